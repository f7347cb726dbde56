"""What a node's metadata says, in the shape of Zarr v3 for both formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, Self

from azarr.chunk_grids import ChunkGrid
from azarr.chunk_keys import ChunkKeyEncoding
from azarr.codecs.base import Codec
from azarr.data_types import DataType
from azarr.types import JSON, ChunkSpec, FillValue

SHAPES_CHECKED = 64
"""On how many shapes of chunks the codecs of an array are tried before it is used; on the others when they are met."""


@dataclass(frozen=True, slots=True, eq=False)
class ArrayMetadata:
    """The metadata of an array. What v2 calls otherwise is translated: order F is a transpose codec, byte order the bytes codec's.

    Where a v2 document says ``null``, ``fill_value`` is ``None``, and missing chunks are undefined: they read as zero, times as NaT. Since
    others take them for something else, all chunks that are written are stored. In v3 ``None`` is the fill value of some data types.
    ``extensions`` are the top-level members that azarr does not know and need not understand; they are written back.
    """

    zarr_format: Literal[2, 3]
    shape: tuple[int, ...]
    data_type: DataType
    chunk_grid: ChunkGrid
    chunk_key_encoding: ChunkKeyEncoding
    codecs: tuple[Codec, ...]
    fill_value: FillValue | None
    attributes: Mapping[str, JSON] = field(default_factory=dict)
    dimension_names: tuple[str | None, ...] | None = None
    storage_transformers: tuple[JSON, ...] = ()
    extensions: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def leaves_fill_undefined(self) -> bool:
        """Whether nothing says what missing chunks hold."""
        return self.zarr_format == 2 and self.fill_value is None

    @property
    def effective_fill_value(self) -> FillValue:
        """What missing chunks read as."""
        return self.data_type.undefined if self.fill_value is None else self.fill_value

    @property
    def chunk_spec(self) -> ChunkSpec:
        """What every chunk looks like once decoded; the largest, where they differ in shape."""
        return ChunkSpec(self.chunk_grid.chunk_shape, self.data_type.dtype, self.effective_fill_value)

    def with_attributes(self, attributes: Mapping[str, JSON]) -> Self:
        """The same metadata with other attributes."""
        return replace(self, attributes=attributes)

    def with_shape(self, shape: tuple[int, ...]) -> Self:
        """The same metadata for an array of another ``shape`` and as many dimensions."""
        return replace(self, shape=shape, chunk_grid=self.chunk_grid.resized(shape))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ArrayMetadata):
            return NotImplemented
        return self._comparable() == other._comparable()

    __hash__ = None  # type: ignore[assignment]  # attributes can change, as those of any mapping

    def _comparable(self) -> list[Any]:
        """The fields, with the bits of the fill value: NaN equals itself then, and 0.0 is not -0.0."""
        fill = None if self.fill_value is None else repr(self.data_type.serialize_fill_value(self.fill_value))
        return [fill, *(getattr(self, each.name) for each in fields(self) if each.name != "fill_value")]


@dataclass(frozen=True, slots=True)
class GroupMetadata:
    """The metadata of a group. ``extensions`` are as an array's, and the ``consolidated_metadata`` of a v3 group."""

    zarr_format: Literal[2, 3]
    attributes: Mapping[str, JSON] = field(default_factory=dict)
    extensions: Mapping[str, JSON] = field(default_factory=dict)

    def with_attributes(self, attributes: Mapping[str, JSON]) -> Self:
        """The same metadata with other attributes."""
        return replace(self, attributes=attributes)
