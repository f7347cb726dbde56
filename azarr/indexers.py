"""What stands behind ``view.oindex``, ``view.vindex`` and ``array.blocks``: brackets that select in ways of their own."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from azarr.chunk_lengths import ChunkLengths, count_of, start_of
from azarr.errors import SelectionError
from azarr.selection import AnySelection, BasicKey, OuterKey, PointKey, Selection

ViewT_co = TypeVar("ViewT_co", covariant=True)


class Selectable(Protocol[ViewT_co]):
    """What can be selected from."""

    @property
    def selection(self) -> AnySelection:
        """What of the array it is."""

    def selected(self, selection: AnySelection) -> ViewT_co:
        """The view of another selection of the same array."""


class Chunked(Protocol[ViewT_co]):
    """What has chunks."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis."""

    @property
    def chunks(self) -> tuple[int | ChunkLengths, ...]:
        """The lengths of the chunks along each axis."""

    def __getitem__(self, key: Any) -> ViewT_co:
        """The view of a part."""


class OuterIndexer(Generic[ViewT_co]):
    """``view.oindex[...]``: arrays of integers and masks select along each axis for itself, beside integers and slices."""

    __slots__ = ("_view",)

    def __init__(self, view: Selectable[ViewT_co]) -> None:
        self._view = view

    def __getitem__(self, key: OuterKey) -> ViewT_co:
        """The selected view; ``SelectionError`` where there is no such part."""
        return self._view.selected(self._view.selection.outer(key))


class PointIndexer(Generic[ViewT_co]):
    """``view.vindex[...]``: coordinates for every axis, which broadcast, or a mask of the view's shape select single points."""

    __slots__ = ("_view",)

    def __init__(self, view: Selectable[ViewT_co]) -> None:
        self._view = view

    def __getitem__(self, key: PointKey) -> ViewT_co:
        """The selected view, of the shape of the coordinates; ``SelectionError`` where there are no such points."""
        return self._view.selected(self._view.selection.points(key))


class BlockIndexer(Generic[ViewT_co]):
    """``array.blocks[...]``: integers and slices count whole chunks, as ``array.chunks`` has them."""

    __slots__ = ("_array",)

    def __init__(self, array: Chunked[ViewT_co]) -> None:
        self._array = array

    def __getitem__(self, key: BasicKey) -> ViewT_co:
        """The view of the selected chunks; ``SelectionError`` where there is no such chunk."""
        array = self._array
        blocks = Selection.whole(tuple(map(count_of, array.shape, array.chunks))).select(key)
        items = []
        for block, chunk in zip(blocks.axes, array.chunks, strict=True):
            if block.step != 1:
                raise SelectionError("blocks are selected by integers and slices without a step")
            start = block.take(np.asarray(0)).item() if block.length else 0
            items.append(slice(start_of(start, chunk), start_of(start + block.length, chunk)))
        return array[tuple(items)]
