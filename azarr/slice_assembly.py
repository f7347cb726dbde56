"""Slices put together from the blocks that are there: which are complete, what they consist of, and how long blocks are kept."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from azarr.selection import Positions
from azarr.slice_plans import Blocks, Planes
from azarr.types import Array, Coords, element_nbytes

if TYPE_CHECKING:
    from azarr.stream_info import ChunkInfo


class Share(NamedTuple):
    """What a block has of one chunk: the planes at ``positions``, ascending; and what is known of the chunk."""

    positions: Positions
    coords: Coords
    info: ChunkInfo

    def has(self, low: int, high: int) -> bool:
        """Whether that is something of the planes from ``low`` to ``high``."""
        return planes_in(self.positions, low, high) > 0


class Block(NamedTuple):
    """Planes that were read at once: those at ``positions``, ascending, with their ``data``, or the error that took their place.

    ``shares`` are of the chunks that the planes are from, where those are asked for.
    """

    positions: Positions
    data: Array | Exception
    shares: Sequence[Share] = ()

    def planes_in(self, low: int, high: int) -> int:
        """How many of the planes from ``low`` to ``high`` it has."""
        return planes_in(self.positions, low, high)


def planes_in(positions: Positions, low: int, high: int) -> int:
    """How many of ``positions``, ascending, lie from ``low`` up to, not including, ``high``."""
    return bisect_left(positions, high) - bisect_left(positions, low)  # which takes NumPy several times as long


class Target(NamedTuple):
    """What slices are made to fit: a view of ``shape`` and ``dtype``, along ``axis``. A block weighs ``least`` at least."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axis: int
    least: int

    @property
    def plane_nbytes(self) -> int:
        """The size of one plane."""
        return max(1, math.prod(self.shape[: self.axis] + self.shape[self.axis + 1 :]) * element_nbytes(self.dtype))

    def weight(self, positions: Positions) -> int:
        """How much of the window a block of planes takes, in bytes."""
        return max(self.least, len(positions) * self.plane_nbytes)

    def room(self, count: int) -> Array:
        """Memory for so many planes."""
        return np.empty((*self.shape[: self.axis], count, *self.shape[self.axis + 1 :]), self.dtype)

    def fill(self, data: Array, blocks: list[Block], low: int) -> None:
        """Copy what ``blocks`` have of the planes from ``low`` into ``data``."""
        high, before = low + data.shape[self.axis], (slice(None),) * self.axis
        for positions, part, _ in blocks:
            first, last = bisect_left(positions, low), bisect_left(positions, high)
            if first < last and isinstance(part, np.ndarray):
                place = slice(int(positions[first]) - low, int(positions[last - 1]) + 1 - low)
                data[(*before, place)] = part[(*before, slice(first, last))]


@dataclass(slots=True, eq=False)
class Held:
    """Blocks from planes ``low`` to ``high`` that were read at once, ``weight`` of the window, and how many slices still need them."""

    low: int
    high: int
    blocks: list[Block]
    weight: int
    users: int = 0

    def planes_in(self, low: int, high: int) -> int:
        """How many of the planes from ``low`` to ``high`` they have."""
        return sum(block.planes_in(low, high) for block in self.blocks)


class Assembly:
    """Slices that are complete, in ``ready``, as blocks come in any order; in the order of the slices, where the blocks are.

    A block is kept until no slice needs it. What the window lets in is bounded by the weight of the blocks that are kept, save those of the
    first slice that has not been handed out: these have room of their own, and the window goes on until that slice is complete.
    """

    def __init__(self, planes: Planes, plan: Blocks) -> None:
        self.ready: deque[int] = deque()
        self._planes, self._plan = planes, plan
        self._held: list[Held] = []
        self._lacking: dict[int, int] = {}
        self._order: deque[int] = deque()
        self._next = 0
        self._gone = 0

    def add(self, blocks: list[Block], weight: int) -> None:
        """Take ``blocks``, which were read at once, and have taken ``weight`` of the window."""
        self._admit()
        self._held = [held for held in self._held if not self._is_done(held)]
        held = Held(int(blocks[0].positions[0]), int(blocks[-1].positions[-1]) + 1, blocks, weight)
        insort(self._held, held, key=lambda each: each.low)
        starts = self._planes.starts
        first, last = bisect_left(starts, held.low - self._planes.thickness + 1), bisect_left(starts, held.high)
        for start in starts[first:last]:
            if start in self._lacking:
                self._give(start, held)

    def _admit(self) -> None:
        """Take note of the slices that blocks are planned for."""
        while self._plan.started:
            start = self._plan.started.popleft()
            low, high = self._planes.bounds(start)
            self._lacking[start], self._next = high - low, start + self._planes.starts.step
            self._order.append(start)
            for held in self._crossing(low, high):
                self._give(start, held)

    def _give(self, start: int, held: Held) -> None:
        if there := held.planes_in(*self._planes.bounds(start)):
            held.users += 1
            self._lacking[start] -= there
            if not self._lacking[start]:
                self.ready.append(start)

    def _crossing(self, low: int, high: int) -> Iterator[Held]:
        first = max(0, bisect_left(self._held, low, key=lambda each: each.high - 1))
        for held in self._held[first:]:
            if held.low >= high:
                return
            yield held

    def _is_done(self, held: Held) -> bool:
        """Whether no slice needs it any more, and none that is still to come can; its weight is then free."""
        if held.users or held.high > self._next:
            return False
        self._gone += held.weight
        return True

    def take(self) -> tuple[int, int, list[Block]]:
        """The bounds of the slice that is ready first, and the blocks that it is to be put together from."""
        start = self.ready.popleft()
        del self._lacking[start]
        low, high = self._planes.bounds(start)
        crossed = []
        for held in list(self._crossing(low, high)):
            if mine := [block for block in held.blocks if block.planes_in(low, high)]:
                crossed += mine
                held.users -= 1
                if self._is_done(held):
                    self._held.remove(held)
        return low, high, crossed

    def freed(self) -> int:
        """The weight that has become free since it was last asked for."""
        while self._order and self._order[0] not in self._lacking:
            self._order.popleft()
        until = self._planes.bounds(self._order[0])[1] if self._order else self._planes.stop
        freed, self._gone = self._gone, 0
        for held in self._held:
            if held.low >= until:
                break
            freed, held.weight = freed + held.weight, 0
        return freed

    def waiting(self) -> list[Block]:
        """The blocks that are kept."""
        return [block for held in self._held for block in held.blocks]

    def clear(self) -> None:
        """Let go of everything."""
        self.ready.clear()
        self._held.clear()
