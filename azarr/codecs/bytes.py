"""The ``bytes`` codec (Zarr v3 codecs, "bytes"): the elements in C order, in one byte order."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from azarr.codecs.base import ArrayToBytesCodec, bytes_of, check_keys, wrong_size
from azarr.errors import MetadataError
from azarr.types import JSON, Array, Buffer, ChunkSpec

Endian = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class Bytes(ArrayToBytesCodec):
    """Elements as they lie in memory. ``endian`` defaults to little, and is left out for elements of single bytes."""

    name: ClassVar[str] = "bytes"
    endian: Endian | None = "little"

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"endian"}))
        endian = configuration.get("endian")
        if endian not in ("little", "big", None):  # a tuple, as documents may hold what cannot be hashed
            raise MetadataError(f"codec 'bytes': endian must be 'little' or 'big', not {endian!r}")
        return cls(endian)

    def configuration(self) -> dict[str, JSON]:
        return {} if self.endian is None else {"endian": self.endian}

    def bind(self, spec: ChunkSpec) -> Self:
        if spec.dtype.hasobject:
            raise MetadataError(f"codec 'bytes' cannot hold elements of variable length ({spec.dtype})")
        single = spec.dtype.newbyteorder("<") == spec.dtype.newbyteorder(">")
        if not single and self.endian is None:
            raise MetadataError(f"codec 'bytes' needs 'endian' for {spec.dtype}, whose elements have several bytes")
        return replace(self, endian=None) if single else self

    def stored_dtype(self, spec: ChunkSpec) -> np.dtype[Any]:
        """The NumPy data type of the elements as they are stored."""
        return spec.dtype if self.endian in {None, sys.byteorder} else spec.dtype.newbyteorder("S")

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        return bytes_of(np.ascontiguousarray(chunk, self.stored_dtype(spec)))

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        if len(data) != spec.nbytes:
            raise wrong_size(self.name, len(data), spec.nbytes)
        if not data:
            return np.empty(spec.shape, spec.dtype)
        return np.frombuffer(data, self.stored_dtype(spec)).reshape(spec.shape)

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        return spec.nbytes
