"""Selections: which elements of an array are meant, as NumPy's indexing says it, composed without touching data.

Three ways to select, as the Zarr libraries for Python have them: basic (integers and slices), outer (an array of indices or a mask for an
axis, independent of the other axes) and by points (arrays of coordinates, or one mask for the whole array).
"""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, ClassVar, NamedTuple, SupportsIndex, TypeAlias

import numpy as np
import numpy.typing as npt

from azarr.errors import SelectionError
from azarr.types import Array

Index: TypeAlias = SupportsIndex | slice | EllipsisType
BasicKey: TypeAlias = Index | tuple[Index, ...]
"""What stands between the brackets of ``array[...]``: integers, slices, and one ellipsis."""

OuterKey: TypeAlias = Index | npt.ArrayLike | tuple[Index | npt.ArrayLike, ...]
"""What stands between the brackets of ``array.oindex[...]``: also a list or array of integers, or a mask, for an axis."""

PointKey: TypeAlias = npt.ArrayLike | tuple[npt.ArrayLike, ...]
"""What stands between the brackets of ``array.vindex[...]``: coordinates for every axis, or one mask for the whole array."""

Positions: TypeAlias = npt.NDArray[np.int64]


class AxisSelection(NamedTuple):
    """Elements ``start, start + step, …`` along one axis of the array, ``length`` of them; ``dropped`` where an integer chose one."""

    start: int
    length: int
    step: int = 1
    dropped: bool = False

    def take(self, positions: Positions) -> Positions:
        """Where in the array the elements at ``positions`` of this selection are."""
        return self.start + positions * self.step

    def slice(self, item: slice, position: int) -> AxisSelection:
        """The elements of this selection that ``item`` names."""
        try:
            start, stop, step = item.indices(self.length)
        except (TypeError, ValueError) as error:
            raise not_a_slice(item, position) from error
        if step == self.step == 1:  # the usual case
            return AxisSelection(self.start + start, stop - start if stop > start else 0)
        return AxisSelection(self.start + start * self.step, len(range(start, stop, step)), self.step * step)

    def forward(self) -> AxisSelection:
        """The same elements in ascending order."""
        if self.step > 0:
            return self
        return AxisSelection(self.start + max(0, self.length - 1) * self.step, self.length, -self.step, self.dropped)


@dataclass(frozen=True, slots=True, eq=False)
class IndexSelection:
    """The elements at ``indices`` along one axis of the array, in this order."""

    dropped: ClassVar[bool] = False
    step: ClassVar[int] = 1
    indices: Positions

    @property
    def length(self) -> int:
        """The number of elements."""
        return len(self.indices)

    def take(self, positions: Positions) -> Positions:
        """Where in the array the elements at ``positions`` of this selection are."""
        return self.indices[positions]

    def slice(self, item: slice, position: int) -> IndexSelection:
        """The elements of this selection that ``item`` names."""
        try:
            return IndexSelection(self.indices[item])
        except (TypeError, ValueError) as error:
            raise not_a_slice(item, position) from error

    def forward(self) -> IndexSelection:
        """The selection itself: indices say their order."""
        return self


class Selection(NamedTuple):
    """A block of an array, selected axis by axis."""

    axes: tuple[AxisSelection | IndexSelection, ...]

    @classmethod
    def whole(cls, shape: tuple[int, ...]) -> Selection:
        """All of an array of ``shape``."""
        return cls(tuple(AxisSelection(0, length) for length in shape))

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of what is selected: integers take their axis away."""
        return tuple([axis.length for axis in self.axes if not axis.dropped])

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The same with every axis of the array; those that integers chose from have length 1."""
        return tuple([axis.length for axis in self.axes])

    @property
    def dropped(self) -> tuple[int, ...]:
        """The axes of the array that integers took away."""
        return tuple([number for number, axis in enumerate(self.axes) if axis.dropped])

    @property
    def reversed(self) -> tuple[int, ...]:
        """The axes of the array that are selected backwards."""
        return tuple([number for number, axis in enumerate(self.axes) if axis.step < 0])

    @property
    def size(self) -> int:
        """The number of selected elements."""
        return math.prod(axis.length for axis in self.axes)

    def forward(self) -> Selection:
        """The same elements, every axis in ascending order."""
        for axis in self.axes:
            if axis.step < 0:
                return Selection(tuple([each.forward() for each in self.axes]))
        return self

    def select(self, key: BasicKey) -> Selection:
        """What ``key`` selects of what is selected here; ``SelectionError`` where there is no such thing."""
        if key is Ellipsis:
            return self
        if isinstance(key, tuple) and len(key) == len(self.axes):
            axes: list[AxisSelection | IndexSelection] = []
            for axis, item in zip(self.axes, key, strict=True):
                if type(item) is not slice or axis.dropped:
                    break
                axes.append(axis.slice(item, len(axes)))
            else:  # the usual case, for which this is a shorter way
                return Selection(tuple(axes))
        return self._each(key, select_axis)

    def outer(self, key: OuterKey) -> Selection:
        """What ``key``, which may hold arrays of indices and masks, selects axis by axis."""
        return self._each(key, select_outer)

    def points(self, key: PointKey) -> PointSelection:
        """The points that ``key`` selects."""
        places = point_positions(key, self.shape)
        shape = places[0].shape if places else ()
        rest = iter(places)
        coords = [axis.take(np.zeros(shape, np.int64) if axis.dropped else next(rest)) for axis in self.axes]
        return PointSelection(tuple(each.reshape(-1) for each in coords), shape)

    def _each(self, key: Any, select: Any) -> Selection:
        items = expand(key, len(self.shape))
        axes: list[AxisSelection | IndexSelection] = []
        position = 0
        for axis in self.axes:
            if axis.dropped:
                axes.append(axis)
            else:
                axes.append(select(axis, items[position], position))
                position += 1
        return Selection(tuple(axes))


@dataclass(frozen=True, slots=True, eq=False)
class PointSelection:
    """Single elements of an array: ``coords`` holds their coordinates along each axis, flat; together they have ``shape``."""

    dropped: ClassVar[tuple[int, ...]] = ()
    reversed: ClassVar[tuple[int, ...]] = ()
    coords: tuple[Positions, ...]
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of selected elements."""
        return math.prod(self.shape)

    @property
    def full_shape(self) -> tuple[int, ...]:
        """The shape in which points are read and written: one after the other."""
        return (self.size,)

    def forward(self) -> PointSelection:
        """The selection itself."""
        return self

    def select(self, key: BasicKey) -> PointSelection:
        """What ``key`` selects of the points."""
        return self._pick(tuple(expand(key, len(self.shape))))

    def outer(self, key: OuterKey) -> PointSelection:
        """What ``key`` selects of the points, axis by axis of their shape."""
        whole = Selection.whole(self.shape).outer(key)
        picked = np.ix_(*(axis.take(np.arange(axis.length)) for axis in whole.axes))
        return self._pick(picked, whole.shape)

    def points(self, key: PointKey) -> PointSelection:
        """The points of the points that ``key`` selects."""
        return self._pick(tuple(point_positions(key, self.shape)))

    def _pick(self, key: Any, shape: tuple[int, ...] | None = None) -> PointSelection:
        try:
            numbers = np.arange(self.size).reshape(self.shape)[key]
        except IndexError as error:
            raise SelectionError(str(error)) from error
        flat = np.atleast_1d(numbers).reshape(-1)
        return PointSelection(tuple(each[flat] for each in self.coords), np.shape(numbers) if shape is None else shape)


AnySelection: TypeAlias = Selection | PointSelection


def as_planned(values: Array, selection: AnySelection) -> Array:
    """``values`` of a selection's shape as reading and writing plan them: every axis of the array, ascending; points in a row.

    A view, except of points whose strides do not allow it.
    """
    if isinstance(selection, PointSelection):
        return values.reshape(-1)
    for axis in selection.axes:
        if axis.dropped or axis.step < 0:
            break
    else:  # the usual case
        return values
    full = np.expand_dims(values, selection.dropped) if selection.dropped else values
    return np.flip(full, selection.reversed) if selection.reversed else full  # flipping nothing makes a scalar of a scalar array


def lies_within(selection: AnySelection, shape: tuple[int, ...]) -> bool:
    """Whether an array of ``shape`` has everything that is selected."""
    if not selection.size:
        return True
    if isinstance(selection, PointSelection):
        return all(int(each.max()) < length for each, length in zip(selection.coords, shape, strict=True))
    return all(
        int(axis.indices.max()) < length
        if isinstance(axis, IndexSelection)
        else max(axis.start, axis.start + (axis.length - 1) * axis.step) < length
        for axis, length in zip(selection.axes, shape, strict=True)
    )


def expand(key: Any, ndim: int) -> list[Any]:
    """One index for each of ``ndim`` axes: the ellipsis written out, or whole axes added at the end."""
    items = list(key) if isinstance(key, tuple) else [key]
    ellipses = [number for number, item in enumerate(items) if item is Ellipsis]
    if len(ellipses) > 1:
        raise SelectionError("a selection can have one ellipsis ('...') only")
    missing = ndim - (len(items) - len(ellipses))
    if missing < 0:
        raise SelectionError(f"too many indices: {len(items) - len(ellipses)} for {ndim} dimensions")
    at = ellipses[0] if ellipses else len(items)
    items[at : at + len(ellipses)] = [slice(None)] * missing
    return items


def not_a_slice(item: slice, position: int) -> SelectionError:
    """The error for a slice that NumPy would not take either."""
    return SelectionError(f"axis {position}: {item} is not a slice of whole numbers with a step other than 0")


def select_axis(axis: AxisSelection | IndexSelection, item: Any, position: int) -> AxisSelection | IndexSelection:
    """What an integer or a slice selects along ``axis``, the one at ``position`` in the user's view."""
    if isinstance(item, slice):
        return axis.slice(item, position)
    try:
        if isinstance(item, bool | np.bool):
            raise TypeError
        index = operator.index(item)
    except TypeError:
        hint = "; indices and masks go to oindex or vindex" if isinstance(item, list | np.ndarray) else ""
        raise SelectionError(f"axis {position}: {item!r:.60} is neither an integer nor a slice{hint}") from None
    if not -axis.length <= index < axis.length:
        raise SelectionError(f"axis {position}: index {index} is out of range for length {axis.length}")
    start = int(axis.take(np.asarray(index % axis.length)))
    return AxisSelection(start, 1, 1, dropped=True)


def select_outer(axis: AxisSelection | IndexSelection, item: Any, position: int) -> AxisSelection | IndexSelection:
    """What an integer, a slice, a list or array of integers, or a mask selects along ``axis``."""
    if isinstance(item, slice) or np.ndim(item) == 0:
        return select_axis(axis, item, position)
    return IndexSelection(axis.take(as_positions(item, axis.length, f"axis {position}", ndim=1)))


def as_positions(item: Any, length: int, what: str, ndim: int | None = None) -> Positions:
    """Non-negative positions along an axis of ``length`` from integers, counted from the end where negative, or a mask."""
    array: Array = np.asarray(item)
    if ndim is not None and array.ndim != ndim:
        raise SelectionError(f"{what}: indices must have {ndim} dimension, not {array.ndim}")
    if array.dtype.kind == "b" and array.ndim == 1:
        if len(array) != length:
            raise SelectionError(f"{what}: a mask of {len(array)} elements does not fit length {length}")
        return np.flatnonzero(array).astype(np.int64)
    if array.size == 0:
        return np.zeros(array.shape, np.int64)
    if array.dtype.kind not in "iu":
        raise SelectionError(f"{what}: indices must be whole numbers or a mask, not {array.dtype}")
    low, high = array.min(), array.max()
    if low < -length or high >= length:
        raise SelectionError(f"{what}: index {low if low < -length else high} is out of range for length {length}")
    positions = array.astype(np.int64)
    return np.where(positions < 0, positions + length, positions)


def point_positions(key: Any, shape: tuple[int, ...]) -> list[Positions]:
    """Coordinates along each axis of a block of ``shape``, broadcast to one shape, from coordinates or a mask."""
    mask = np.asarray(key) if not isinstance(key, tuple) else None
    if mask is not None and mask.dtype.kind == "b":
        if mask.shape != shape:
            raise SelectionError(f"a mask of shape {mask.shape} does not fit the shape {shape}")
        return [each.astype(np.int64) for each in np.nonzero(mask)]
    items = key if isinstance(key, tuple) else (key,)
    if len(items) != len(shape):
        raise SelectionError(f"vindex needs coordinates for each of {len(shape)} dimensions, or one mask; there are {len(items)}")
    if any(isinstance(item, slice) or item is Ellipsis for item in items):
        raise SelectionError("vindex takes coordinates or a mask; slices go to oindex or into plain brackets")
    places = [as_positions(item, length, f"axis {number}") for number, (item, length) in enumerate(zip(items, shape, strict=True))]
    try:
        return [np.asarray(each) for each in np.broadcast_arrays(*places)]
    except ValueError:
        raise SelectionError(f"coordinates of shapes {[each.shape for each in places]} do not broadcast to one shape") from None
