"""How a selection meets a chunk grid: which part of which chunk goes where. Pure, and lazy: a billion chunks cost nothing to plan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from azarr.selection import AxisSelection, Selection
from azarr.types import Coords

REMEMBERED = 4096
"""Up to so many chunks along an axis, their projections are computed once and kept."""


class AxisProjection(NamedTuple):
    """One axis of a ``Projection``."""

    place: int
    """The index of the chunk along this axis."""
    chunk: slice
    out: slice
    covers: bool
    full: bool


class Projection(NamedTuple):
    """The part ``chunk`` of the chunk at ``coords`` is the part ``out`` of the result (both with every axis of the array).

    ``covers``: it is all that the array has of the chunk, so that a write needs nothing of what is stored.
    ``full``: it is the whole chunk, nothing of which hangs over the edge of the array.
    """

    coords: Coords
    chunk: tuple[slice, ...]
    out: tuple[slice, ...]
    covers: bool
    full: bool


class Run(NamedTuple):
    """``length`` neighbouring chunks along ``axis`` from the one at ``coords`` on; together they are the part ``out`` of the result.

    ``full``: every one is ``full`` as in ``Projection``; the projections are then not written out one by one.
    """

    axis: int
    length: int
    coords: Coords
    out: tuple[slice, ...]
    full: bool
    parts: tuple[AxisProjection, ...]
    """The projections along ``axis``."""
    sides: tuple[AxisProjection, ...]
    """The projection along every axis (for ``axis`` that of the first chunk)."""

    def chunk_coords(self) -> list[Coords]:
        """Where the chunks lie in the grid."""
        if not self.coords:
            return [()]
        lead, first, tail = self.coords[: self.axis], self.coords[self.axis], self.coords[self.axis + 1 :]
        return [(*lead, first + number, *tail) for number in range(self.length)]

    def projections(self) -> Iterator[Projection]:
        """The chunks one by one."""
        if not self.parts:
            return iter([join(())])
        lead, tail = self.sides[: self.axis], self.sides[self.axis + 1 :]
        return (join((*lead, part, *tail)) for part in self.parts)


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
        return AxisProjection(place, slice(begin, begin + (taken - 1) * step + 1, step), out, covers, covers and stored == chunk)

    def __iter__(self) -> Iterator[AxisProjection]:
        return map(self.__getitem__, range(self.count))

    def within(self, low: int, high: int) -> AxisPlan:
        """The part of the plan whose chunk indices are at least ``low`` and less than ``high``."""
        axis = self.selection
        begin = max(0, -((axis.start - low * self.chunk) // axis.step))
        end = min(axis.length, -((axis.start - high * self.chunk) // axis.step))
        part = AxisSelection(axis.start + begin * axis.step, max(0, end - begin), axis.step)
        return AxisPlan(part, self.chunk, self.length, self.offset + begin)


@dataclass(frozen=True, slots=True)
class Plan:
    """The chunks that a selection meets in a regular grid."""

    axes: tuple[AxisPlan, ...]

    @classmethod
    def of(cls, selection: Selection, chunk_shape: tuple[int, ...], shape: tuple[int, ...]) -> Plan:
        """How ``selection`` meets chunks of ``chunk_shape`` in an array of ``shape``."""
        return cls(tuple(map(AxisPlan, selection.axes, chunk_shape, shape)))

    @property
    def nchunks(self) -> int:
        """How many chunks are met."""
        return math.prod(axis.count for axis in self.axes)

    def projections(self) -> Iterator[Projection]:
        """The chunks one by one, in C order of the grid."""
        return map(join, product(self.axes))

    def within(self, unit: Coords, chunks_per_unit: tuple[int, ...]) -> Plan:
        """The part of the plan that lies in the storage unit at ``unit``, a block of ``chunks_per_unit`` chunks."""
        bounds = zip(self.axes, unit, chunks_per_unit, strict=True)
        return Plan(tuple(axis.within(index * count, (index + 1) * count) for axis, index, count in bounds))

    def runs(self, longest: int, *, align: tuple[int, ...] | None = None) -> Iterator[Run]:
        """The chunks in C order, up to ``longest`` neighbours at a time along the last axis that has several.

        With ``align`` (chunks per shard along each axis) no run crosses from one shard into the next.
        """
        ndim = len(self.axes)
        if ndim == 0:
            yield Run(0, 1, (), (), full=True, parts=(), sides=())
            return
        several = [number for number in range(ndim) if self.axes[number].count != 1]
        if not several:
            sides = tuple(axis[0] for axis in self.axes)
            coords, _, out, _, full = zip(*sides, strict=True)
            yield Run(ndim - 1, 1, coords, out, all(full), (sides[-1],), sides)
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
                out = [side.out for side in sides]
                out[axis] = slice(first.out.start, last.out.stop)
                coords = tuple([side.place for side in sides])
                yield Run(axis, len(segment), coords, tuple(out), sides_full and first.full, segment, sides)


def join(axes: tuple[AxisProjection, ...]) -> Projection:
    """The projection of a chunk from its axes."""
    if not axes:
        return Projection((), (), (), covers=True, full=True)
    coords, chunk, out, covers, full = zip(*axes, strict=True)
    return Projection(coords, chunk, out, all(covers), all(full))


def product(axes: tuple[AxisPlan, ...]) -> Iterator[tuple[AxisProjection, ...]]:
    """The product of the axes in C order; long axes are not kept in memory."""
    if not axes:
        return iter([()])
    if all(axis.count <= REMEMBERED for axis in axes):
        return itertools.product(*axes)
    return ((first, *rest) for first in axes[0] for rest in product(axes[1:]))


def segments(axis: AxisPlan, longest: int, align: int | None) -> Iterator[tuple[AxisProjection, ...]]:
    """The chunks along one axis, cut before multiples of ``align``, between full and partial ones, and after ``longest``."""
    segment: list[AxisProjection] = []
    for part in axis:
        if segment and (
            len(segment) == longest
            or part.place != segment[-1].place + 1
            or part.full != segment[-1].full
            or (align is not None and part.place % align == 0)
        ):
            yield tuple(segment)
            segment = []
        segment.append(part)
    if segment:
        yield tuple(segment)
