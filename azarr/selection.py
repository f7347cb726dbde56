"""Selections: which elements of an array are meant, as NumPy's basic indexing says it, composed without touching data."""

from __future__ import annotations

import math
import operator
from types import EllipsisType
from typing import NamedTuple, SupportsIndex, TypeAlias

from azarr.errors import SelectionError

Index: TypeAlias = SupportsIndex | slice | EllipsisType
BasicKey: TypeAlias = Index | tuple[Index, ...]
"""What stands between the brackets of ``array[...]``: integers, slices with positive steps, and one ellipsis."""


class AxisSelection(NamedTuple):
    """Elements ``start, start + step, …`` along one axis of the array, ``length`` of them; ``dropped`` where an integer chose one."""

    start: int
    length: int
    step: int = 1
    dropped: bool = False


class Selection(NamedTuple):
    """A block of an array, one ``AxisSelection`` for each of the array's axes."""

    axes: tuple[AxisSelection, ...]

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
    def size(self) -> int:
        """The number of selected elements."""
        return math.prod(axis.length for axis in self.axes)

    def select(self, key: BasicKey) -> Selection:
        """What ``key`` selects of what is selected here; ``SelectionError`` where there is no such thing."""
        if key is Ellipsis:
            return self
        items = expand(key, len(self.shape))
        axes: list[AxisSelection] = []
        position = 0
        for axis in self.axes:
            if axis.dropped:
                axes.append(axis)
            else:
                axes.append(select_axis(axis, items[position], position))
                position += 1
        return Selection(tuple(axes))


def expand(key: BasicKey, ndim: int) -> list[Index]:
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


def select_axis(axis: AxisSelection, item: Index, position: int) -> AxisSelection:
    """What ``item`` selects along ``axis``, the one at ``position`` in the user's view."""
    if isinstance(item, slice):
        try:
            start, stop, step = item.indices(axis.length)
        except (TypeError, ValueError) as error:
            raise SelectionError(f"axis {position}: {item} is not a slice of whole numbers with a step other than 0") from error
        if step < 0:
            raise SelectionError(f"axis {position}: step {step} is negative; read forwards and reverse the result with NumPy")
        return AxisSelection(axis.start + start * axis.step, len(range(start, stop, step)), axis.step * step)
    try:
        if isinstance(item, bool):
            raise TypeError
        index = operator.index(item)  # type: ignore[arg-type]  # an ellipsis cannot come here; whatever else users pass is caught
    except TypeError:
        raise SelectionError(f"axis {position}: {item!r:.60} is neither an integer nor a slice") from None
    if not -axis.length <= index < axis.length:
        raise SelectionError(f"axis {position}: index {index} is out of range for length {axis.length}")
    return AxisSelection(axis.start + (index % axis.length) * axis.step, 1, axis.step, dropped=True)
