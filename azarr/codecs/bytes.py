"""The ``bytes`` codec (Zarr v3 codecs, "bytes"): the elements in C order, in one byte order."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from azarr.codecs.base import ArrayToBytesCodec, bytes_of, check_keys, wrong_size
from azarr.data_types.base import has_byte_order
from azarr.data_types.small import stored_bits
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
            raise MetadataError(f"codec 'bytes': endian must be 'little' or 'big', not {endian!r:.100}")
        return cls(endian)

    def configuration(self) -> dict[str, JSON]:
        return {} if self.endian is None else {"endian": self.endian}

    def bind(self, spec: ChunkSpec) -> Self:
        if spec.variable:
            raise MetadataError(f"codec 'bytes' cannot hold elements of variable length ({spec.dtype}); use 'vlen-utf8' or 'vlen-bytes'")
        single = not has_byte_order(spec.dtype)
        if not single and self.endian is None:
            raise MetadataError(f"codec 'bytes' needs 'endian' for {spec.dtype}, whose elements have several bytes")
        return replace(self, endian=None) if single else self

    def stored_dtype(self, spec: ChunkSpec) -> np.dtype[Any]:
        """The NumPy data type of the elements as they are stored."""
        return spec.dtype if self.endian in {None, sys.byteorder} else spec.dtype.newbyteorder("S")

    def in_place(self, spec: ChunkSpec) -> bool:
        """Whether the bytes are the memory of the chunk as it is."""
        return self.stored_dtype(spec) == spec.dtype and stored_bits(spec.dtype) is None

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        stored = bytes_of(np.ascontiguousarray(chunk, self.stored_dtype(spec)))
        if (bits := stored_bits(spec.dtype)) is None or not stored:
            return stored
        # The upper bits of elements that are narrower than their bytes mean nothing, but many readers take them for the sign.
        significant, sign = bits
        raw = np.frombuffer(stored, np.uint8).reshape(-1, spec.dtype.itemsize)
        return bytes_of(((raw & significant) ^ sign) - sign)

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        if len(data) != spec.nbytes:
            raise wrong_size(self.name, len(data), spec.nbytes)
        if not data:
            return np.empty(spec.shape, spec.dtype)
        if (bits := stored_bits(spec.dtype)) is not None:
            data = bytes_of(np.frombuffer(data, np.uint8).reshape(-1, spec.dtype.itemsize) & bits[0])
        return np.frombuffer(data, self.stored_dtype(spec)).reshape(spec.shape)

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        return spec.nbytes
