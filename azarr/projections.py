"""How a selection meets a chunk grid: which part of which chunk goes where. Pure, and lazy: a billion chunks cost nothing to plan."""

from __future__ import annotations

import itertools
import math
import operator
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeAlias, cast

import numpy as np

from azarr.axis_plans import AnyAxisPlan, AxisProjection, Neighbours, Part, axis_plan, segments, spelled_out
from azarr.chunk_lengths import ChunkLengths, place_of, places_of, start_of
from azarr.selection import AnySelection, AxisSelection, PointSelection, Positions, Selection
from azarr.types import Coords

REMEMBERED = 4096
"""Up to so many chunks along an axis, their projections are computed once and kept."""


class Projection(NamedTuple):
    """The part ``chunk`` of the chunk at ``coords`` is the part ``out`` of the result.

    Both have every axis of the array; one that is empty is all of the chunk, or of the result.

    ``covers``: it is all that the array has of the chunk, so that a write needs nothing of what is stored.
    ``full``: it is the whole chunk, nothing of which hangs over the edge of the array.
    """

    coords: Coords
    chunk: tuple[Part, ...]
    out: tuple[Part, ...]
    covers: bool
    full: bool

    def partly(self) -> Projection:
        """The same where only a part of every element is meant, so that something of the chunk is always kept."""
        return self._replace(covers=False, full=False)


class Run(NamedTuple):
    """``length`` neighbouring chunks along ``axis`` from the one at ``coords`` on; together they are the part ``out`` of the result.

    ``full``: every one is ``full`` as in ``Projection``; the projections are then not written out one by one.
    """

    axis: int
    length: int
    coords: Coords
    out: tuple[Part, ...]
    full: bool
    parts: Neighbours
    """The projections along ``axis``."""
    sides: tuple[AxisProjection, ...]
    """The projection along every axis (for ``axis`` that of the first chunk)."""

    def chunk_coords(self) -> list[Coords]:
        """Where the chunks lie in the grid."""
        lead, first, tail = self.coords[: self.axis], self.coords[self.axis], self.coords[self.axis + 1 :]
        return [(*lead, first + number, *tail) for number in range(self.length)]

    def single(self, number: int) -> SingleRun:
        """The chunk ``number`` of the run as a run of its own."""
        return SingleRun(join((*self.sides[: self.axis], self.parts[number], *self.sides[self.axis + 1 :])))

    def projections(self) -> Iterator[Projection]:
        """The chunks one by one."""
        lead, tail = self.sides[: self.axis], self.sides[self.axis + 1 :]
        if any(type(each.chunk) is not slice for each in (*lead, *tail, *self.parts)):
            return (join((*lead, part, *tail)) for part in self.parts)
        # as ``join`` does it; what the chunks have in common is put together once
        before, after = ([tuple(getattr(each, name) for each in side) for name in ("place", "chunk", "out")] for side in (lead, tail))
        covers, full = all(each.covers for each in (*lead, *tail)), all(each.full for each in (*lead, *tail))
        return (
            Projection(
                (*before[0], part.place, *after[0]),
                (*before[1], part.chunk, *after[1]),
                (*before[2], part.out, *after[2]),
                covers and part.covers,
                full and part.full,
            )
            for part in self.parts
        )


@dataclass(frozen=True, slots=True)
class SingleRun:
    """One chunk; as ``Run``."""

    axis: ClassVar[int] = 0
    length: ClassVar[int] = 1
    projection: Projection

    @property
    def coords(self) -> Coords:
        """Where the chunk lies in the grid."""
        return self.projection.coords

    @property
    def out(self) -> tuple[Part, ...]:
        """The part of the result that it is."""
        return self.projection.out

    @property
    def full(self) -> bool:
        """As of the projection."""
        return self.projection.full

    def single(self, number: int) -> SingleRun:
        """The run itself."""
        del number
        return self

    def chunk_coords(self) -> list[Coords]:
        """The one chunk, in a list."""
        return [self.projection.coords]

    def projections(self) -> Iterator[Projection]:
        """The one projection."""
        return iter([self.projection])


AnyRun: TypeAlias = Run | SingleRun


def plan_of(selection: AnySelection, chunks: tuple[int | ChunkLengths, ...], shape: tuple[int, ...]) -> AnyPlan:
    """How ``selection`` meets ``chunks``, of one length or several along each axis, in an array of ``shape``."""
    if isinstance(selection, PointSelection):
        return PointPlan(selection.coords, chunks)
    return Plan(tuple(map(axis_plan, selection.axes, chunks, shape)))


def lone_run(selection: AnySelection, chunks: tuple[int | ChunkLengths, ...], shape: tuple[int, ...]) -> SingleRun | None:
    """The run that a block of one chunk is; ``None`` of all that is not known at once to be that.

    It is the one that a plan has, whose making took more than a quarter of a small read.
    """
    if not isinstance(selection, Selection) or not selection.axes:
        return None
    coords, parts, covers, whole = [], [], True, True
    for axis, chunk, length in zip(selection.axes, chunks, shape, strict=True):
        if type(axis) is not AxisSelection or type(chunk) is not int or not axis.length:
            return None
        start, count, step, _ = axis
        place, begin = divmod(start, chunk)
        end = begin + (count - 1) * step + 1
        if end > chunk:
            return None
        coords.append(place)
        if count == chunk and start + chunk <= length:
            parts.append(slice(None))
        else:
            whole, covers = False, covers and count == length - start + begin
            parts.append(slice(begin, end, step))
    return SingleRun(Projection(tuple(coords), () if whole else tuple(parts), (), covers, whole))


class Plan(NamedTuple):
    """The chunks that a selection meets in a grid."""

    axes: tuple[AnyAxisPlan, ...]

    @property
    def nchunks(self) -> int:
        """How many chunks are met."""
        return math.prod(axis.count for axis in self.axes)

    def projections(self) -> Iterator[Projection]:
        """The chunks one by one, in C order of the grid."""
        return map(join, product(self.axes))

    def within(self, unit: Projection, chunks_per_unit: tuple[int, ...]) -> Plan:
        """The part of the plan that lies in a storage unit, a block of ``chunks_per_unit`` chunks, of the plan for such units."""
        bounds = zip(self.axes, unit.coords, chunks_per_unit, strict=True)
        return Plan(tuple(axis.within(index * count, (index + 1) * count) for axis, index, count in bounds))

    def inside(self, units: AnyPlan, chunks_per_unit: tuple[int, ...]) -> Plan:
        """The part of the plan that lies in the storage units of ``units``, a part of the plan for such units with at least one."""
        axes = [
            axis.within(of_units[0].place * count, (of_units[of_units.count - 1].place + 1) * count)
            for axis, of_units, count in zip(self.axes, cast("Plan", units).axes, chunks_per_unit, strict=True)
        ]
        return Plan(tuple(axes))

    def part(self, first: int, last: int) -> list[Plan]:
        """The chunks from number ``first`` up to, not including, ``last`` in C order, as plans that follow each other."""
        return [Plan(axes) for axes in cut(self.axes, first, last)]

    def number_after(self, coords: Coords) -> int:
        """The number of the first chunk of the plan that comes after the one at ``coords`` in C order."""
        number, below = 0, self.nchunks
        for axis, place in zip(self.axes, coords, strict=True):
            below //= max(1, axis.count)
            at = bisect_left(axis, place, key=operator.attrgetter("place"))
            number += at * below
            if at == axis.count or axis[at].place != place:
                return number
        return min(number + 1, self.nchunks)

    def has(self, coords: Coords) -> bool:
        """Whether the chunk at ``coords`` is met."""
        if len(coords) != len(self.axes):
            return False
        return (number := self.number_after(coords) - 1) >= 0 and next(self.part(number, number + 1)[0].projections()).coords == coords

    def runs(self, longest: int, *, align: tuple[int, ...] | None = None) -> Iterator[AnyRun]:
        """The chunks in C order, up to ``longest`` neighbours at a time along the last axis that has several.

        With ``align`` (chunks per shard along each axis) no run crosses from one shard into the next.
        """
        ndim = len(self.axes)
        several = [number for number in range(ndim) if self.axes[number].count != 1]
        if not several:
            yield SingleRun(join(tuple(axis[0] for axis in self.axes)))
            return
        if any(self.axes[number].count == 0 for number in several):
            return
        axis = several[-1]
        along, tail = self.axes[axis], tuple(self.axes[number][0] for number in range(axis + 1, ndim))
        step = None if align is None else align[axis]
        cut = list(segments(along, longest, step)) if along.count <= REMEMBERED else None
        for lead in product(self.axes[:axis]):
            sides_full = all(side.full for side in lead) and all(side.full for side in tail)
            for segment in cut if cut is not None else segments(along, longest, step):
                first, last = segment[0], segment[-1]
                sides = (*lead, first, *tail)
                whole = sides_full and first.full
                place = [side.out for side in sides]
                if isinstance(first.out, slice) and isinstance(last.out, slice):
                    place[axis] = slice(first.out.start, last.out.stop)
                yield Run(axis, len(segment), tuple([side.place for side in sides]), tuple(place), whole, segment, sides)


class PointPlan:
    """The chunks that single points lie in, in C order of the grid; as ``Plan``. ``chosen`` are the numbers of the points it is about."""

    __slots__ = ("_chunks", "_order", "_points", "_starts")

    def __init__(self, points: tuple[Positions, ...], chunks: tuple[int | ChunkLengths, ...], chosen: Positions | None = None) -> None:
        self._points, self._chunks = points, chunks
        numbers = np.arange(len(points[0]) if points else 1) if chosen is None else chosen
        places = [places_of(each[numbers], chunk) for each, chunk in zip(points, chunks, strict=True)]
        order = np.lexsort(places[::-1]) if places else np.zeros(1, np.int64)
        changes = np.zeros(max(0, len(order) - 1), np.bool_)
        for each in places:
            changes |= np.diff(each[order]) != 0
        ends = [0, *(np.flatnonzero(changes) + 1).tolist(), len(order)]
        self._order = numbers[order]
        self._starts = ends if len(order) else [0]

    @property
    def nchunks(self) -> int:
        """How many chunks are met."""
        return len(self._starts) - 1

    def projections(self) -> Iterator[Projection]:
        """The chunks one by one."""
        for low, high in itertools.pairwise(self._starts):
            mine = self._order[low:high]
            points = [each[mine] for each in self._points]
            coords = tuple(place_of(int(each[0]), chunk) for each, chunk in zip(points, self._chunks, strict=True))
            inside = tuple(each - start_of(place, chunk) for each, place, chunk in zip(points, coords, self._chunks, strict=True))
            yield Projection(coords, inside, (mine,), covers=False, full=False)

    def within(self, unit: Projection, chunks_per_unit: tuple[int, ...]) -> PointPlan:
        """The part of the plan that lies in a storage unit of the plan for such units."""
        del chunks_per_unit
        return PointPlan(self._points, self._chunks, cast("Positions", unit.out[0]))

    def inside(self, units: AnyPlan, chunks_per_unit: tuple[int, ...]) -> PointPlan:
        """The part of the plan that lies in the storage units of ``units``, a part of the plan for such units."""
        del chunks_per_unit
        return PointPlan(self._points, self._chunks, cast("PointPlan", units)._order)  # noqa: SLF001 - of its own class

    def part(self, first: int, last: int) -> list[PointPlan]:
        """The chunks from number ``first`` up to, not including, ``last``, in a plan."""
        if first >= last:
            return []
        return [PointPlan(self._points, self._chunks, self._order[self._starts[first] : self._starts[last]])]

    def number_after(self, coords: Coords) -> int:
        """The number of the first chunk of the plan that comes after the one at ``coords`` in C order."""
        return bisect_right(range(self.nchunks), coords, key=self._coords)

    def has(self, coords: Coords) -> bool:
        """Whether the chunk at ``coords`` is met."""
        number = self.number_after(coords)
        return number > 0 and self._coords(number - 1) == coords

    def _coords(self, number: int) -> Coords:
        first = self._order[self._starts[number]]
        return tuple(place_of(int(each[first]), chunk) for each, chunk in zip(self._points, self._chunks, strict=True))

    def runs(self, longest: int, *, align: tuple[int, ...] | None = None) -> Iterator[SingleRun]:
        """The chunks, each a run of its own."""
        del longest, align
        return (SingleRun(projection) for projection in self.projections())


def cut(axes: tuple[AnyAxisPlan, ...], first: int, last: int) -> Iterator[tuple[AnyAxisPlan, ...]]:
    """The axes of plans for the chunks from number ``first`` up to ``last`` of all that ``axes`` meet, in C order."""
    if first >= last:
        return
    if not axes:
        yield ()
        return
    axis, rest = axes[0], axes[1:]
    below = math.prod(each.count for each in rest)
    low, skipped = divmod(first, below)
    high, left = divmod(last, below)
    if low == high:
        yield from ((some(axis, low, low + 1), *tail) for tail in cut(rest, skipped, left))
        return
    if skipped:
        yield from ((some(axis, low, low + 1), *tail) for tail in cut(rest, skipped, below))
        low += 1
    if low < high:
        yield (some(axis, low, high), *rest)
    if left:
        yield from ((some(axis, high, high + 1), *tail) for tail in cut(rest, 0, left))


def some(axis: AnyAxisPlan, first: int, last: int) -> AnyAxisPlan:
    """The chunks of an axis from number ``first`` up to, not including, ``last``."""
    return axis.within(axis[first].place, axis[last - 1].place + 1)


AnyPlan: TypeAlias = Plan | PointPlan


def join(axes: tuple[AxisProjection, ...]) -> Projection:
    """The projection of a chunk from its axes."""
    if not axes:
        return Projection((), (), (), covers=True, full=True)
    coords, chunk, out, covers, full, _ = zip(*axes, strict=True)
    if set(map(type, chunk)) != {slice}:  # NumPy would take several arrays for the coordinates of points
        chunk, out = np.ix_(*map(spelled_out, chunk)), np.ix_(*map(spelled_out, out))
    return Projection(coords, chunk, out, all(covers), all(full))


def product(axes: tuple[AnyAxisPlan, ...]) -> Iterator[tuple[AxisProjection, ...]]:
    """The product of the axes in C order; long axes are not kept in memory."""
    if not axes:
        return iter([()])
    if all(axis.count <= REMEMBERED for axis in axes):
        return itertools.product(*axes)
    return ((first, *rest) for first in axes[0] for rest in product(axes[1:]))
