"""Placement: where the items of a stream that is written belong in an array, and what they must be. Pure."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, SupportsIndex, TypeAlias, cast

import numpy as np

from azarr.axis_plans import Part
from azarr.chunk_reader import Chunk
from azarr.chunk_sources import ChunkSource, Piece
from azarr.coverage import Box
from azarr.errors import StreamError, WriteError
from azarr.metadata.model import ArrayMetadata
from azarr.projections import Plan, Projection
from azarr.selection import AnySelection, AxisSelection, Selection
from azarr.slices import Slice
from azarr.types import Coords

Region: TypeAlias = tuple[Part | int, ...]
"""Where data belong: for every axis a slice, or a number where they have no such axis; or arrays of positions, as NumPy has them."""

Touched: TypeAlias = tuple[int, Box, Box]
"""A part of a chunk: the number of the chunk in C order of the grid, the part, and all of the chunk that can be written to.

Boxes count in the view that is written to, with every axis of the array, ascending.
"""


class Met(NamedTuple):
    """What can be written of a unit: the number of its chunks, whether they are all that the array has of it, and all that there is."""

    chunks: int
    covers: bool
    full: bool


@dataclass(slots=True, eq=False)
class Entry:
    """An item that is on its way: the first chunk that it meets, what it holds in memory, its size in the array, and its pieces left."""

    coords: Coords
    nbytes: int
    size: int
    left: int
    stored: bool = False
    failed: bool = False


class Place(NamedTuple):
    """Where an item belongs: ``selection`` of the array, which starts at ``origin`` in the view; ``None`` where it is no block of it.

    ``unit`` is there where the item is known to be all of one, and nothing else.
    """

    selection: AnySelection
    origin: tuple[int, ...] | None
    unit: Projection | None = None


class Target:
    """What a stream is written to: an array, or a view of one."""

    def __init__(self, source: ChunkSource, selection: AnySelection, metadata: ArrayMetadata) -> None:
        self.source, self.selection, self.data_type = source, selection, metadata.data_type
        self.dtype = metadata.data_type.dtype
        whole = Selection.whole(metadata.shape)
        self._is_array = selection == whole
        self._extent = source.extent(selection.forward())
        self._axes = cast("Plan", source.extent(whole).chunks).axes
        self.grid_shape = tuple(axis.count for axis in self._axes)
        """The number of chunks of the array along each axis."""
        self._is_plain = math.prod(source.chunks_per_unit) == 1
        self.made_of_blocks = isinstance(selection, Selection) and all(isinstance(axis, AxisSelection) for axis in selection.axes)
        """Whether parts of the view can be named by where they start and stop."""

    # Where an item belongs

    def place(self, item: object) -> Place:
        """Where ``item`` says that it belongs; ``StreamError`` where it says no such thing, ``WriteError`` where there is no such place."""
        if isinstance(item, Chunk | Slice):
            return self._region(item.region)
        where, _ = expect_pair(item)
        if not isinstance(where, tuple):
            raise StreamError(f"it says {where!r:.60} of where it belongs, which is neither coordinates nor a region: a tuple is meant")
        if any(isinstance(part, slice) for part in where) or not where:
            return self._region(where)
        coords = as_coords(where)
        if coords is None:
            raise StreamError(f"it says {where!r:.60} of where it belongs; coordinates are whole numbers, and a region has slices")
        return self._chunk(coords)

    def _chunk(self, coords: Coords) -> Place:
        if not self._is_array:
            raise WriteError(
                f"it says {coords} of where it belongs; coordinates are of chunks of an array, and in a view there are regions"
            )
        if len(coords) != len(self.grid_shape) or not all(0 <= index < count for index, count in zip(coords, self.grid_shape, strict=True)):
            raise WriteError(f"there is no chunk {coords}; there are {self.grid_shape} chunks along the axes")
        sides = [axis[index] for axis, index in zip(self._axes, coords, strict=True)]
        outs = [cast("slice", side.out) for side in sides]
        selection = Selection(tuple([AxisSelection(out.start, out.stop - out.start) for out in outs]))
        unit = None
        if self._is_plain:
            region = tuple([slice(0, axis.length) for axis in selection.axes])
            full = all(side.full for side in sides)
            unit = Projection(coords, tuple([side.chunk for side in sides]), region, covers=True, full=full)
        return Place(selection, tuple([out.start for out in outs]), unit)

    def _region(self, region: Region) -> Place:
        shape = self.selection.shape
        if len(region) != len(shape):
            raise WriteError(f"its region has {len(region)} axes where there are {len(shape)}")
        if any(isinstance(part, np.ndarray) for part in region):
            return Place(self._positions(region, shape), None)
        bounds = [bounds_of(part, length, axis) for axis, (part, length) in enumerate(zip(region, shape, strict=True))]
        key = tuple([slice(*side) if isinstance(part, slice) else side[0] for part, side in zip(region, bounds, strict=True)])
        selection = self.selection.select(key)
        if not self.made_of_blocks:
            return Place(selection, None)
        rest = iter(bounds)
        origin = []
        for axis in cast("Selection", self.selection).axes:
            start, stop = (0, 1) if axis.dropped else next(rest)
            origin.append(start if axis.step > 0 else axis.length - stop)
        return Place(selection, tuple(origin))

    def _positions(self, region: Region, shape: tuple[int, ...]) -> AnySelection:
        """The places that arrays of positions name: a grid of them, as outer selections have it, or single points."""
        arrays = [np.asarray(part) for part in region]
        for axis, (array, length) in enumerate(zip(arrays, shape, strict=True)):
            if array.dtype.kind not in "iu" or (array.size and not 0 <= int(array.min()) <= int(array.max()) < length):
                raise WriteError(f"axis {axis} of its region is not of whole numbers from 0 to {length - 1}")
        if all(array.ndim == len(arrays) and array.size == array.shape[axis] for axis, array in enumerate(arrays)):
            return self.selection.outer(tuple(array.reshape(-1) for array in arrays))
        return self.selection.points(tuple(arrays))

    # What becomes of it

    def pieces(self, place: Place, values: Any) -> list[Piece]:
        """The pieces of ``values``, one for each unit that they meet."""
        if place.unit is not None:
            return [Piece(place.unit, place.selection, values)]
        selection = place.selection.forward()
        return [Piece(unit, selection, values) for unit in self.source.extent(selection).units.projections()]

    def first(self, piece: Piece) -> Coords:
        """The first chunk that ``piece`` meets."""
        return piece.unit.coords if self._is_plain else next(self._chunks(piece)).coords

    def touched(self, piece: Piece, origin: tuple[int, ...] | None) -> list[Touched]:
        """The parts of chunks that ``piece`` is; none where it is no block."""
        if origin is None:
            return []
        found = []
        for chunk in self._chunks(piece):
            out = cast("tuple[slice, ...]", chunk.out)
            box = tuple([(start + part.start, start + part.stop) for start, part in zip(origin, out, strict=True)])
            found.append((self._number(chunk.coords), box, box if chunk.covers else self.bounds(chunk.coords)))
        return found

    def _chunks(self, piece: Piece) -> Iterator[Projection]:
        if self._is_plain:
            return iter((piece.unit,))
        return self.source.extent(piece.selection).chunks.within(piece.unit, self.source.chunks_per_unit).projections()

    def _number(self, coords: Coords) -> int:
        number = 0
        for index, count in zip(coords, self.grid_shape, strict=True):
            number = number * count + index
        return number

    def coords(self, number: int) -> Coords:
        """Where the chunk ``number`` is in the grid."""
        coords = []
        for count in reversed(self.grid_shape):
            number, index = divmod(number, max(1, count))
            coords.append(index)
        return tuple(reversed(coords))

    def bounds(self, coords: Coords) -> Box:
        """The part of the view that is in the chunk at ``coords``; nothing along axes along which there is none."""
        sides = []
        for axis, index in zip(cast("Plan", self._extent.chunks).axes, coords, strict=True):
            met = axis.within(index, index + 1)
            out = cast("slice", met[0].out) if met.count else slice(0, 0)
            sides.append((out.start, out.stop))
        return tuple(sides)

    def met(self, unit: Coords) -> Met:
        """What the view meets of the unit at ``unit``."""
        if not isinstance(self.selection, Selection):
            return Met(-1, covers=False, full=False)
        here = Projection(unit, (), (), covers=False, full=False)
        chunks = self._extent.chunks.within(here, self.source.chunks_per_unit).nchunks
        axes = cast("Plan", self._extent.units).axes
        sides = [axis.within(index, index + 1)[0] for axis, index in zip(axes, unit, strict=True)]
        return Met(chunks, all(side.covers for side in sides), all(side.full for side in sides))


def expect_pair(item: object) -> tuple[Any, Any]:
    """Where an item belongs, and its data; ``StreamError`` where it is not such a pair."""
    if not isinstance(item, tuple) or len(item) != 2:
        shown = f"a tuple of {len(item)}" if isinstance(item, tuple) else type(item).__name__
        raise StreamError(f"it is {shown}; items are azarr.Chunk, (coords, data) or (region, data)")
    return item


def data_of(item: object) -> Any:
    """What is to be written of an item."""
    return item.data if isinstance(item, Chunk | Slice) else expect_pair(item)[1]


def as_coords(where: tuple[Any, ...]) -> Coords | None:
    """``where`` as whole numbers, if it is of such."""
    try:
        return None if any(isinstance(index, bool | np.bool) for index in where) else tuple([operator.index(index) for index in where])
    except TypeError:
        return None


def said_coords(item: object) -> Coords | None:
    """The coordinates that an item gives, for those who want to know which one failed; ``None`` where it gives none."""
    if isinstance(item, Chunk):
        return item.coords
    where = item[0] if isinstance(item, tuple) and item else None
    return as_coords(where) if isinstance(where, tuple) else None


def bounds_of(part: object, length: int, axis: int) -> tuple[int, int]:
    """Where a part of an axis of ``length``, a slice or a number, starts and stops; unlike NumPy's, it must not reach beyond."""
    try:
        if isinstance(part, slice):
            start = 0 if part.start is None else operator.index(part.start)
            stop = length if part.stop is None else operator.index(part.stop)
            step = 1 if part.step is None else operator.index(part.step)
        else:
            start, step = operator.index(cast("SupportsIndex", part)), 1
            stop = start + 1
    except TypeError:
        raise WriteError(f"axis {axis} of its region is {part}, which is not of whole numbers") from None
    if step != 1 or not 0 <= start <= stop <= length:
        raise WriteError(f"axis {axis} of its region is {part}; it must be within 0 and {length}, without a step")
    return start, stop


def size_of(piece: Piece) -> int:
    """The number of elements of a piece."""
    out = piece.unit.out
    if all(isinstance(part, slice) for part in out):
        return math.prod(part.stop - part.start for part in cast("tuple[slice, ...]", out))
    return math.prod(np.broadcast_shapes(*(np.shape(cast("Any", part)) for part in out)))
