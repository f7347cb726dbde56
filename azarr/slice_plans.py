"""Plans for streams of slices, made without I/O: which planes slices hold, and which of them are read at once.

What slices need is read in *blocks*: the planes that are wanted of one row of chunks, or as many of them as memory allows.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

import numpy as np

from azarr.axis_plans import AnyAxisPlan, IndexAxisPlan
from azarr.errors import SelectionError
from azarr.selection import Positions
from azarr.stream import Counts
from azarr.streaming import FILTERED

ROW_LENGTH = 64
"""Planes that count as a row of chunks where an axis was selected with indices, whose order has nothing to do with chunks."""

MEASURED = 4096
"""Rows of chunks whose lengths are looked at to find the longest."""


class Planes(NamedTuple):
    """Which planes slices hold: one begins at each of ``starts`` and is up to ``thickness`` long, but none goes beyond ``stop``."""

    axis: int
    starts: range
    stop: int
    thickness: int
    dropped: bool

    def bounds(self, start: int) -> tuple[int, int]:
        """The first plane of the slice that begins at ``start``, and the one after its last."""
        return start, min(start + self.thickness, self.stop)


def planes_of(
    view_shape: tuple[int, ...],
    names: tuple[str | None, ...],
    along: int | str,
    start: int | None,
    stop: int | None,
    step: int | None,
    thickness: int | None,
) -> Planes:
    """The planes that a user asks for; ``SelectionError`` where there is no such axis, or a step or thickness that leads nowhere."""
    if isinstance(along, str):
        if names.count(along) != 1:
            raise SelectionError(f"there is no dimension {along!r} to stream along; the dimensions are {list(names)}")
        axis = names.index(along)
    else:
        if not -len(view_shape) <= along < len(view_shape):
            raise SelectionError(f"there is no axis {along} to stream along; there are {len(view_shape)}")
        axis = along % len(view_shape)
    for name, value in (("step", step), ("thickness", thickness)):
        if value is not None and value < 1:
            raise SelectionError(f"{name} must be at least 1, not {value}")
    thick = 1 if thickness is None else thickness
    first, last, _ = slice(start, stop).indices(view_shape[axis])
    return Planes(axis, range(first, last, thick if step is None else step), last, thick, thickness is None)


class Rows:
    """Where the rows of chunks lie along an axis of a view, in the view's own order."""

    def __init__(self, plan: AnyAxisPlan, length: int, *, backwards: bool) -> None:
        self._plan, self._length, self._backwards = plan, length, backwards
        self._indexed = isinstance(plan, IndexAxisPlan)
        self.count = -(-length // ROW_LENGTH) if self._indexed else plan.count
        self._latest = -1, 0, 0

    def bounds(self, number: int) -> tuple[int, int]:
        """The first plane of a row, and the one after its last."""
        if self._indexed:
            return number * ROW_LENGTH, min(number * ROW_LENGTH + ROW_LENGTH, self._length)
        if self._backwards:
            out = cast("slice", self._plan[self.count - 1 - number].out)
            return self._length - out.stop, self._length - out.start
        out = cast("slice", self._plan[number].out)
        return out.start, out.stop

    def end(self, plane: int) -> int:
        """The plane after the last of the row that ``plane`` is in."""
        number, low, high = self._latest
        if not low <= plane < high:  # most often it is in the next one
            if plane != high:
                number = bisect_right(range(self.count), plane, key=lambda number: self.bounds(number)[0]) - 2
            low, high = self.bounds(number + 1)
            self._latest = number + 1, low, high
        return high

    def split(self, positions: Positions) -> list[Positions]:
        """``positions``, ascending, row by row."""
        parts, low = [], 0
        while low < len(positions):
            high = int(np.searchsorted(positions, self.end(int(positions[low]))))
            parts.append(positions[low:high])
            low = high
        return parts

    @property
    def longest(self) -> int:
        """The length of the longest row, of those that are looked at."""
        bounds = map(self.bounds, range(min(self.count, MEASURED)))
        return max((high - low for low, high in bounds), default=1)


class Blocks:
    """Plans blocks for slices, lazily: the planes of each, ascending; ``started`` has the slices that the blocks so far are for.

    Slices that ``keep`` does not want by their place, and those of which nothing is ``stored`` by their bounds, are left out. A block has
    ``longest`` planes at most, and planes of several rows only up to ``enough``.
    """

    def __init__(
        self,
        planes: Planes,
        rows: Rows,
        longest: int,
        enough: int,
        *,
        counts: Counts,
        keep: Callable[[int], bool] | None = None,
        stored: Callable[[int, int], bool] | None = None,
    ) -> None:
        self.started: deque[int] = deque()
        self._planes, self._rows, self._longest, self._enough = planes, rows, longest, enough
        self._counts, self._keep, self._stored = counts, keep, stored

    def _wants(self, start: int) -> bool:
        if self._keep is not None and not self._keep(start):
            self._counts.filtered += 1
            return False
        if self._stored is not None and not self._stored(*self._planes.bounds(start)):
            self._counts.missing += 1
            return False
        return True

    def __iter__(self) -> Iterator[Positions | None]:
        pieces: list[Positions] = []
        count = end = covered = rejected = 0
        for start in self._planes.starts:
            if not self._wants(start):
                if (rejected := rejected + 1) % FILTERED == 0:
                    yield None  # the loop has its turn
                continue
            low, high = self._planes.bounds(start)
            low = max(low, covered)
            self.started.append(start)
            while low < high:
                if pieces and (count >= self._enough if low >= end else count == self._longest):
                    yield np.concatenate(pieces)
                    pieces, count = [], 0
                if not pieces or low >= end:
                    end = self._rows.end(low)
                stop = min(high, end, low + self._longest - count)
                pieces.append(np.arange(low, stop))
                count += stop - low
                low = covered = stop
        if pieces:
            yield np.concatenate(pieces)


def key_of(positions: Positions) -> slice | Positions:
    """What selects planes: a slice where one does."""
    first, last, count = int(positions[0]), int(positions[-1]), len(positions)
    step = 1 if count == 1 else int(positions[1]) - first
    if first + (count - 1) * step == last and bool(np.all(np.diff(positions) == step)):
        return slice(first, last + 1, step)
    return positions
