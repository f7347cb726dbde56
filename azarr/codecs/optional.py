"""The ``optional`` codec of zarrs: which elements are there, and those that are."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self

import numpy as np

from azarr.codecs.base import Codec, check_keys
from azarr.codecs.damage import damaged
from azarr.codecs.pipeline import CodecPipeline, bind_codecs
from azarr.codecs.variable_length import VariableLengthCodec
from azarr.data_types import DataType
from azarr.errors import MetadataError
from azarr.types import Array, Buffer, ChunkSpec

HEADER: Final = struct.Struct("<QQ")
"""The sizes of the encoded mask and of the encoded elements."""


@dataclass(frozen=True, slots=True)
class Optional(VariableLengthCodec):
    """A mask, true where an element is there, through ``mask_codecs``, and one dimension of these elements through ``data_codecs``."""

    name: ClassVar[str] = "optional"
    nested: ClassVar[frozenset[str]] = frozenset({"mask_codecs", "data_codecs"})
    mask_codecs: tuple[Codec, ...]
    data_codecs: tuple[Codec, ...]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        check_keys(cls.name, configuration, cls.nested, cls.nested)
        return cls(configuration["mask_codecs"], configuration["data_codecs"])

    def configuration(self) -> dict[str, Any]:
        return {"mask_codecs": self.mask_codecs, "data_codecs": self.data_codecs}

    @property
    def object_type(self) -> DataType:
        raise MetadataError(f"codec {self.name!r} does not say what its elements are; choose a data type 'optional' for them")

    def bind(self, spec: ChunkSpec) -> Self:
        mask, data = self._mask_spec(spec), self._data_spec(spec, spec.nelements)
        if data.nbytes > spec.limit:
            raise MetadataError(f"codec {self.name!r} would hold {data.nbytes} bytes where {spec.limit} are accepted")
        return replace(self, mask_codecs=bind_codecs(self.mask_codecs, mask), data_codecs=bind_codecs(self.data_codecs, data))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        elements = chunk.reshape(-1)
        there = np.array([element is not None for element in elements], bool)
        mask = CodecPipeline(self.mask_codecs, self._mask_spec(spec)).encode(there)
        data_spec = self._data_spec(spec, int(there.sum()))
        known = np.empty(data_spec.shape, data_spec.dtype)
        known[...] = elements[there]
        data = CodecPipeline(self.data_codecs, data_spec).encode(known) if known.size else b""
        return self.within_limit(b"".join([HEADER.pack(len(mask), len(data)), mask, data]), spec)

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        view = memoryview(data)
        if len(view) < HEADER.size:
            raise damaged(self.name, f"{len(view)} bytes cannot hold the two sizes")
        mask_nbytes, data_nbytes = HEADER.unpack_from(view)
        if HEADER.size + mask_nbytes + data_nbytes != len(view):
            raise damaged(self.name, f"{len(view)} bytes are to hold a mask of {mask_nbytes} and elements of {data_nbytes}")
        end = HEADER.size + mask_nbytes
        there = CodecPipeline(self.mask_codecs, self._mask_spec(spec)).decode(view[HEADER.size : end]).view(np.uint8) != 0
        chunk = np.full(spec.nelements, None, spec.dtype)
        data_spec = self._data_spec(spec, int(there.sum()))
        if data_spec.nelements:
            known = CodecPipeline(self.data_codecs, data_spec).decode(view[end:])
            for place, element in zip(np.flatnonzero(there), known, strict=True):
                chunk[place] = element  # one of NumPy's scalars, which keep what a Python number would lose
        elif data_nbytes:
            raise damaged(self.name, f"{data_nbytes} bytes are there for no element")
        return chunk.reshape(spec.shape)

    def _mask_spec(self, spec: ChunkSpec) -> ChunkSpec:
        return ChunkSpec((spec.nelements,), np.dtype(bool), np.False_)

    def _data_spec(self, spec: ChunkSpec, count: int) -> ChunkSpec:
        metadata: Mapping[str, Any] = spec.dtype.metadata or {}
        item: DataType | None = metadata.get("item")
        if item is None:
            raise MetadataError(f"codec {self.name!r} holds elements of the data type 'optional', not {spec.dtype}")
        return ChunkSpec((count,), item.dtype, item.zero, spec.limit, spec.expansion)
