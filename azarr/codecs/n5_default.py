"""The ``n5_default`` codec (zarr-extensions, "n5_default"): the blocks of N5 in its default mode."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from azarr.codecs.base import ArrayToBytesCodec, BytesToBytesCodec, Codec, check_keys
from azarr.codecs.bytes import Bytes
from azarr.codecs.damage import damaged
from azarr.codecs.ignored import understood
from azarr.codecs.pipeline import CodecPipeline, bind_codecs
from azarr.codecs.transpose import Transpose
from azarr.errors import CodecError, MetadataError
from azarr.types import Array, Buffer, ChunkSpec

START = struct.Struct(">HH")
"""Mode and number of dimensions; the length of each dimension follows in 32 bits."""

DEFAULT_MODE = 0


@dataclass(frozen=True, slots=True)
class N5Default(ArrayToBytesCodec):
    """A header with the shape of the block, then what ``codecs`` make of it: transposed, big-endian, perhaps compressed.

    Blocks at the edge of the array may be cut off there. What they lack of a chunk is filled with the fill value.
    """

    name: ClassVar[str] = "n5_default"
    nested: ClassVar[frozenset[str]] = frozenset({"codecs"})
    codecs: tuple[Codec, ...]

    @property
    def releases_gil(self) -> bool:
        return all(codec.releases_gil for codec in self.codecs)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        check_keys(cls.name, configuration, frozenset({"codecs"}), frozenset({"codecs"}))
        return cls(configuration["codecs"])

    def configuration(self) -> dict[str, Any]:
        return {"codecs": self.codecs}

    def bind(self, spec: ChunkSpec) -> Self:
        bound = bind_codecs(self.codecs, spec)
        codecs = understood(bound)
        reversal = tuple(range(len(spec.shape)))[::-1]
        right = (
            2 <= len(codecs) <= 3
            and isinstance(codecs[0], Transpose)
            and codecs[0].order == reversal
            and isinstance(codecs[1], Bytes)
            and codecs[1].endian in {"big", None}
            and all(isinstance(codec, BytesToBytesCodec) for codec in codecs[2:])
        )
        if not right:
            order = list(reversal)
            raise MetadataError(f"codec 'n5_default' takes 'transpose' of order {order}, 'bytes' (endian 'big') and at most one compressor")
        return replace(self, codecs=bound)

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        header = START.pack(DEFAULT_MODE, len(spec.shape)) + struct.pack(f">{len(spec.shape)}I", *spec.shape)
        return b"".join((header, CodecPipeline(self.codecs, spec).encode(chunk)))

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        shape, payload = self._split(data, len(spec.shape))
        block_spec = replace(spec, shape=shape)
        # writers pad blocks to the chunk or cut them at the array's edge; anything far beyond is a lie
        if 0 in shape or block_spec.nbytes > 2 * spec.nbytes + 65536:
            raise damaged(self.name, f"a block of shape {shape} cannot belong to chunks of shape {spec.shape}")
        block = CodecPipeline(self.codecs, block_spec).decode(payload)
        if shape == spec.shape:
            return block
        chunk = np.full(spec.shape, spec.fill_value, spec.dtype)
        common = tuple(slice(min(one, other)) for one, other in zip(shape, spec.shape, strict=True))
        chunk[common] = block[common]
        return chunk

    def _split(self, data: Buffer, ndim: int) -> tuple[tuple[int, ...], memoryview]:
        """The shape of a block and its encoded elements."""
        view = memoryview(data)
        size = START.size + 4 * ndim
        if len(view) < size:
            raise damaged(self.name, f"{len(view)} bytes cannot hold the header of a block of {ndim} dimensions")
        mode, block_ndim = START.unpack_from(view)
        if mode != DEFAULT_MODE:
            raise CodecError(f"blocks of mode {mode} are not supported, which are of varying length or hold objects", codec=self.name)
        if block_ndim != ndim:
            raise damaged(self.name, f"a block of {block_ndim} dimensions in an array of {ndim}")
        return struct.unpack_from(f">{ndim}I", view, START.size), view[size:]

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        del spec
        return None

    def max_encoded_size(self, spec: ChunkSpec) -> int:
        return START.size + 4 * len(spec.shape) + CodecPipeline(self.codecs, spec).max_encoded_size
