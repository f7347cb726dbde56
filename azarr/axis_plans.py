"""How a selection along one axis meets the chunks along it. Pure, and lazy: a billion chunks cost nothing to plan."""

from __future__ import annotations

import itertools
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from azarr.chunk_lengths import ChunkLengths, places_of, start_of
from azarr.selection import AxisSelection, IndexSelection, Positions

Part: TypeAlias = slice | npt.NDArray[np.int64]


class AxisProjection(NamedTuple):
    """One axis of a ``Projection``."""

    place: int
    """The index of the chunk along this axis."""
    chunk: Part
    out: Part
    covers: bool
    full: bool
    length: int
    """How long the chunk is along this axis."""


class AxisPlan:
    """The chunks that a selection meets along one axis, in order; a sequence computed on demand.

    ``first`` is the index of the first chunk, ``count`` the number of chunks, and ``offset`` where the selection's first element
    stands in the result.
    """

    __slots__ = ("chunk", "count", "first", "length", "offset", "selection")

    def __init__(self, selection: AxisSelection, chunk: int, length: int, offset: int = 0) -> None:
        self.selection, self.chunk, self.length, self.offset = selection, chunk, length, offset
        self.first = selection.start // chunk
        if selection.length == 0 or selection.step > chunk:  # at most one element a chunk, and chunks without any
            self.count = selection.length
        else:
            self.count = (selection.start + (selection.length - 1) * selection.step) // chunk - self.first + 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> AxisProjection:
        axis, chunk = self.selection, self.chunk
        start, step = axis.start, axis.step
        if step > chunk:
            low, high = number, number + 1
            place = (start + number * step) // chunk
        else:
            place = self.first + number
            low = -((start - place * chunk) // step) if number else 0
            high = -((start - (place + 1) * chunk) // step) if number + 1 < self.count else axis.length
        begin = start + low * step - place * chunk
        taken = high - low
        stored = min(chunk, self.length - place * chunk)
        covers = taken == stored
        out = slice(self.offset + low, self.offset + high)
        part = slice(begin, begin + (taken - 1) * step + 1, step)
        return AxisProjection(place, part, out, covers, covers and stored == chunk, chunk)

    def __iter__(self) -> Iterator[AxisProjection]:
        return map(self.__getitem__, range(self.count))

    def within(self, low: int, high: int) -> AxisPlan:
        """The part of the plan whose chunk indices are at least ``low`` and less than ``high``."""
        axis = self.selection
        begin = max(0, -((axis.start - low * self.chunk) // axis.step))
        end = min(axis.length, -((axis.start - high * self.chunk) // axis.step))
        part = AxisSelection(axis.start + begin * axis.step, max(0, end - begin), axis.step)
        return AxisPlan(part, self.chunk, self.length, self.offset + begin)


class StretchPlan(AxisPlan):
    """An ``AxisPlan`` for chunks of one length in the middle of others; ``base`` is the index of the first chunk of that length.

    Positions count from where that chunk begins, and the indices of chunks from the first of the axis.
    """

    __slots__ = ("base",)

    def __init__(self, selection: AxisSelection, chunk: int, length: int, offset: int, base: int) -> None:
        super().__init__(selection, chunk, length, offset)
        self.base = base

    def __getitem__(self, number: int) -> AxisProjection:
        part = super().__getitem__(number)
        return part._replace(place=part.place + self.base)

    def within(self, low: int, high: int) -> StretchPlan:
        """The part of the plan whose chunk indices are at least ``low`` and less than ``high``."""
        part = super().within(low - self.base, high - self.base)
        return StretchPlan(part.selection, part.chunk, part.length, part.offset, self.base)


class JoinedPlan:
    """The chunks that a selection meets along an axis whose chunks differ in length; as ``AxisPlan``.

    There is a plan for each stretch of equal chunks, and each of them meets a chunk at least.
    """

    __slots__ = ("_ends", "_stretches", "count")

    def __init__(self, stretches: Sequence[StretchPlan]) -> None:
        self._stretches = stretches
        self._ends = list(itertools.accumulate(stretch.count for stretch in stretches))
        self.count = self._ends[-1] if stretches else 0

    @classmethod
    def of(cls, selection: AxisSelection, lengths: ChunkLengths, length: int) -> JoinedPlan:
        """How ``selection`` meets chunks of these ``lengths`` along an axis of ``length``."""
        start, count, step = selection.start, selection.length, selection.step
        plans = []
        for stretch in lengths.stretches(start, start + (count - 1) * step + 1) if count else ():
            low = max(0, -((start - stretch.start) // step))
            high = min(count, -((start - stretch.start - stretch.length * stretch.chunks) // step))
            if low < high:
                part = AxisSelection(start + low * step - stretch.start, high - low, step)
                plans.append(StretchPlan(part, stretch.length, length - stretch.start, low, stretch.first))
        return cls(plans)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> AxisProjection:
        at = bisect_right(self._ends, number)
        return self._stretches[at][number - (self._ends[at - 1] if at else 0)]

    def __iter__(self) -> Iterator[AxisProjection]:
        return itertools.chain.from_iterable(self._stretches)

    def within(self, low: int, high: int) -> JoinedPlan:
        """The part of the plan whose chunk indices are at least ``low`` and less than ``high``."""
        first = bisect_left(self._stretches, low, key=lambda stretch: stretch[stretch.count - 1].place)
        last = bisect_left(self._stretches, high, key=lambda stretch: stretch[0].place)
        parts = [stretch.within(low, high) for stretch in self._stretches[first:last]]
        return JoinedPlan([part for part in parts if part.count])


class IndexAxisPlan:
    """The chunks that a list of indices along one axis meets, in order of the chunks; as ``AxisPlan``."""

    __slots__ = ("_chunk", "_indices", "_places", "_positions", "_starts", "count")

    def __init__(self, indices: Positions, chunk: int | ChunkLengths, positions: Positions | None = None) -> None:
        places = places_of(indices, chunk)
        order = np.argsort(places, kind="stable")
        self._chunk = chunk
        self._indices = indices[order]
        self._positions = order if positions is None else positions[order]
        self._places, starts = np.unique(places[order], return_index=True)
        self._starts = [*starts.tolist(), len(indices)]
        self.count = len(self._places)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> AxisProjection:
        place, chunk = int(self._places[number]), self._chunk
        mine = slice(self._starts[number], self._starts[number + 1])
        part, length = self._indices[mine] - start_of(place, chunk), chunk if isinstance(chunk, int) else chunk[place]
        return AxisProjection(place, part, self._positions[mine], covers=False, full=False, length=length)

    def __iter__(self) -> Iterator[AxisProjection]:
        return map(self.__getitem__, range(self.count))

    def within(self, low: int, high: int) -> IndexAxisPlan:
        """The part of the plan whose chunk indices are at least ``low`` and less than ``high``."""
        first, last = np.searchsorted(self._places, [low, high])
        mine = slice(self._starts[first], self._starts[last])
        return IndexAxisPlan(self._indices[mine], self._chunk, self._positions[mine])


AnyAxisPlan: TypeAlias = AxisPlan | JoinedPlan | IndexAxisPlan


def axis_plan(selection: AxisSelection | IndexSelection, chunk: int | ChunkLengths, length: int) -> AnyAxisPlan:
    """How a selection along one axis of ``length`` meets its chunks, all as long as ``chunk``, or as long as its items."""
    if isinstance(selection, IndexSelection):
        return IndexAxisPlan(selection.indices, chunk)
    return AxisPlan(selection, chunk, length) if isinstance(chunk, int) else JoinedPlan.of(selection, chunk, length)


def spelled_out(part: Part) -> Positions:
    """The positions that a slice names."""
    return np.arange(part.start, part.stop, part.step) if isinstance(part, slice) else part


def segments(axis: AnyAxisPlan, longest: int, align: int | None) -> Iterator[tuple[AxisProjection, ...]]:
    """The chunks along one axis, cut after ``longest``, before multiples of ``align``, and where their length or fullness changes."""
    segment: list[AxisProjection] = []
    for part in axis:
        if segment and (
            len(segment) == longest
            or part.place != segment[-1].place + 1
            or part.full != segment[-1].full
            or part.length != segment[-1].length
            or (align is not None and part.place % align == 0)
        ):
            yield tuple(segment)
            segment = []
        segment.append(part)
    if segment:
        yield tuple(segment)
