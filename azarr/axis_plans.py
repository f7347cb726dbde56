"""How a selection along one axis meets the chunks along it. Pure, and lazy: a billion chunks cost nothing to plan."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from azarr.chunk_lengths import ChunkLengths, places_of, start_of
from azarr.selection import AxisSelection, IndexSelection, Positions

Part: TypeAlias = slice | npt.NDArray[np.int64]

SHORT = 32
"""Up to so many neighbours are written out at once: streams go through them all, and have few at a time."""


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
    stands in the result. Chunks that lie behind others of another length are counted from ``base`` on, and elements from where chunk
    ``base`` begins.
    """

    __slots__ = ("base", "chunk", "count", "first", "length", "offset", "selection")

    def __init__(self, selection: AxisSelection, chunk: int, length: int, offset: int = 0, base: int = 0) -> None:
        self.selection, self.chunk, self.length, self.offset, self.base = selection, chunk, length, offset, base
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
        part, out = slice(begin, begin + (taken - 1) * step + 1, step), slice(self.offset + low, self.offset + high)
        return AxisProjection(self.base + place, part, out, covers, covers and stored == chunk, chunk)

    def __iter__(self) -> Iterator[AxisProjection]:
        return map(self.__getitem__, range(self.count))

    def within(self, low: int, high: int) -> AxisPlan:
        """The part of the plan whose chunk indices are at least ``low`` and less than ``high``."""
        begin, part = between(self.selection, (low - self.base) * self.chunk, (high - self.base) * self.chunk)
        return AxisPlan(part, self.chunk, self.length, self.offset + begin, self.base)


class JoinedPlan:
    """The chunks that a selection meets along an axis whose chunks differ in length; as ``AxisPlan``.

    There is a plan for each stretch of equal chunks, made when it is needed.
    """

    __slots__ = ("_bounds", "_ends", "_stretches", "count", "length", "lengths", "offset", "selection")

    def __init__(self, selection: AxisSelection, lengths: ChunkLengths, length: int, offset: int = 0) -> None:
        self.selection, self.lengths, self.length, self.offset = selection, lengths, length, offset
        start, count, step = selection.start, selection.length, selection.step if selection.length > 1 else 1
        firsts, starts, chunks = lengths.stretches(start, start + (count - 1) * step + 1)
        before = np.clip(-((start - starts) // step), 0, count)  # how many of the elements come before each stretch begins
        met = np.flatnonzero(np.diff(before))
        self._bounds = before[met], before[met + 1]
        self._stretches = firsts[met], starts[met], chunks[met]
        first, last = (start + each * step - starts[met] for each in (self._bounds[0], self._bounds[1] - 1))
        counts = np.where(step > chunks[met], np.diff(self._bounds, axis=0)[0], last // chunks[met] - first // chunks[met] + 1)
        self._ends = np.cumsum(counts)
        self.count = int(self._ends[-1]) if len(met) else 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> AxisProjection:
        at = int(np.searchsorted(self._ends, number, side="right"))
        return self._stretch(at)[number - (int(self._ends[at - 1]) if at else 0)]

    def __iter__(self) -> Iterator[AxisProjection]:
        return itertools.chain.from_iterable(map(self._stretch, range(len(self._ends))))

    def _stretch(self, at: int) -> AxisPlan:
        base, begin, chunk = (int(each[at]) for each in self._stretches)
        low, high = (int(each[at]) for each in self._bounds)
        step = self.selection.step
        part = AxisSelection(self.selection.start + low * step - begin, high - low, step)
        return AxisPlan(part, chunk, self.length - begin, self.offset + low, base)

    def within(self, low: int, high: int) -> JoinedPlan:
        """The part of the plan whose chunk indices are at least ``low`` and less than ``high``."""
        begin, part = between(self.selection, self.lengths.start(low), self.lengths.start(high))
        return JoinedPlan(part, self.lengths, self.length, self.offset + begin)


def between(axis: AxisSelection, low: int, high: int) -> tuple[int, AxisSelection]:
    """The elements of ``axis`` from position ``low`` up to, not including, ``high``, and how many come before them."""
    begin = max(0, -((axis.start - low) // axis.step))
    end = min(axis.length, -((axis.start - high) // axis.step))
    return begin, AxisSelection(axis.start + begin * axis.step, max(0, end - begin), axis.step)


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
    return AxisPlan(selection, chunk, length) if isinstance(chunk, int) else JoinedPlan(selection, chunk, length)


def spelled_out(part: Part) -> Positions:
    """The positions that a slice names."""
    return np.arange(part.start, part.stop, part.step) if isinstance(part, slice) else part


class Segment:
    """Neighbours among the chunks of an axis, by their ``numbers`` in its plan; computed when somebody goes through them."""

    __slots__ = ("_axis", "_numbers", "_parts")

    def __init__(self, axis: AxisPlan, numbers: range) -> None:
        self._axis, self._numbers = axis, numbers
        self._parts: tuple[AxisProjection, ...] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, number: int) -> AxisProjection:
        return self._axis[self._numbers[number]]

    def __iter__(self) -> Iterator[AxisProjection]:
        if self._parts is None:  # threads may come here at once, and then compute them twice
            self._parts = tuple(map(self._axis.__getitem__, self._numbers))
        return iter(self._parts)


Neighbours: TypeAlias = Segment | tuple[AxisProjection, ...]


def segments(axis: AnyAxisPlan, longest: int, align: int | None) -> Iterator[Neighbours]:
    """The chunks along one axis, cut after ``longest``, before multiples of ``align``, and where their length or fullness changes."""
    if isinstance(axis, AxisPlan) and axis.selection.step == 1:
        return even_segments(axis, longest, align)
    return uneven_segments(axis, longest, align)


def even_segments(axis: AxisPlan, longest: int, align: int | None) -> Iterator[Neighbours]:
    """The same of neighbours as long as each other, of which only the first and the last may be cut: so none is looked at but those."""
    count = axis.count
    bounds = [number for number in sorted({1, count - 1}) if 0 < number < count and axis[number].full != axis[number - 1].full]
    start = 0
    for bound in (*bounds, count):
        while start < bound:
            stop = min(start + longest, bound)
            if align is not None:
                stop = min(stop, start + align - (axis.base + axis.first + start) % align)
            segment = Segment(axis, range(start, stop))
            yield segment if len(segment) > SHORT else tuple(segment)
            start = stop


def uneven_segments(axis: AnyAxisPlan, longest: int, align: int | None) -> Iterator[tuple[AxisProjection, ...]]:
    """The same of any chunks, one after the other."""
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
