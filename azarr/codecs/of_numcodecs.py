"""Codecs in the manner of numcodecs run as azarr's, for those that azarr does not have itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Self, cast

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Codec, wrong_size
from azarr.codecs.foreign import ForeignCodec, as_chunk, as_json, configured
from azarr.codecs.numpy_filter import converted_fill
from azarr.errors import MetadataError
from azarr.types import JSON, Array, Buffer, ChunkSpec

_MADE = ("astype", "encode_dtype")
"""Where the filters of numcodecs say what they make."""


def from_numcodecs(codec: type, kind: type[Codec] = BytesToBytesCodec) -> type[ForeignCodec]:
    """A class for ``azarr.register_codec`` that runs ``codec``, a class with the interface of numcodecs, as ``numcodecs.<codec_id>``.

    Arrays of Zarr v2 find it by its id, those of v3 by that name. What its bytes or elements are, such a class does not say, so that
    ``kind`` has to: ``BytesToBytesCodec`` for compressors and checksums, ``ArrayToArrayCodec`` for filters that make numbers of numbers
    (of the data type that ``astype`` or ``encode_dtype`` in their configuration name, else of the same), ``ArrayToBytesCodec`` for what
    compresses arrays, such as images.

    Raises ``TypeError`` where it lacks ``codec_id``, ``encode``, ``decode``, ``from_config`` or ``get_config``.
    """
    kinds = {
        ArrayToArrayCodec: ArrayToArrayOfNumcodecs,
        ArrayToBytesCodec: ArrayToBytesOfNumcodecs,
        BytesToBytesCodec: BytesToBytesOfNumcodecs,
    }
    ours = kinds.get(cast("Any", kind))
    if ours is None:
        raise TypeError(f"the kind of a codec is ArrayToArrayCodec, ArrayToBytesCodec or BytesToBytesCodec, not {kind!r:.100}")
    lacking = [each for each in ("encode", "decode", "from_config", "get_config") if not callable(getattr(codec, each, None))]
    if not isinstance(getattr(codec, "codec_id", None), str):
        lacking.append("codec_id")
    if lacking:
        raise TypeError(f"{codec!r:.100} is no codec in the manner of numcodecs: it lacks {', '.join(lacking)}")
    return _class(codec, kind, ours)


@cache
def _class(codec: Any, kind: type[Codec], ours: type[ForeignCodec]) -> type[ForeignCodec]:
    members = {"name": f"numcodecs.{codec.codec_id}", "codec": codec, "made_by": (from_numcodecs, (codec, kind)), "__slots__": ()}
    return type(f"{codec.__name__}OfNumcodecs", (ours,), members)


class OfNumcodecs(ForeignCodec):
    """What the three kinds share."""

    __slots__ = ()
    codec: Any

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        return cls(configured(cls.name, cls.codec.from_config, dict(configuration)))

    def configuration(self) -> dict[str, JSON]:
        return as_json(self.name, {key: value for key, value in self.theirs.get_config().items() if key != "id"})

    def bind(self, spec: ChunkSpec) -> Self:
        if spec.variable and not isinstance(self, BytesToBytesCodec):
            raise MetadataError(f"codec {self.name!r} is not azarr's, and is not given elements of variable length")
        return super().bind(spec)

    def as_bytes(self, made: Any) -> Buffer:
        """What the codec made, as bytes; of an array, its elements in C order."""
        if isinstance(made, np.ndarray) and not made.flags.c_contiguous:
            made = np.ascontiguousarray(made)
        return self.call(lambda: memoryview(made).cast("B"))


class ArrayToArrayOfNumcodecs(OfNumcodecs, ArrayToArrayCodec):
    """A filter of another library."""

    __slots__ = ()

    def bind(self, spec: ChunkSpec) -> Self:
        self.resolve(spec)
        return super().bind(spec)

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        configuration = self.configuration()
        described = next((configuration[key] for key in _MADE if configuration.get(key)), spec.dtype)
        try:
            dtype: np.dtype[Any] = np.dtype(cast("Any", described)).newbyteorder("=")
        except TypeError as error:
            raise MetadataError(f"codec {self.name!r}: {described!r:.100} is no NumPy data type") from error
        return replace(spec, dtype=dtype, fill_value=converted_fill(spec.fill_value, dtype))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        return as_chunk(self.name, self.call(self.theirs.encode, np.ascontiguousarray(chunk).reshape(chunk.shape)), self.resolve(spec))

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        return as_chunk(self.name, self.call(self.theirs.decode, np.ascontiguousarray(chunk).reshape(chunk.shape)), spec)


class ArrayToBytesOfNumcodecs(OfNumcodecs, ArrayToBytesCodec):
    """A compressor of arrays of another library."""

    __slots__ = ()

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        del spec
        return self.as_bytes(self.call(self.theirs.encode, np.ascontiguousarray(chunk).reshape(chunk.shape)))

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        return self.as_chunk(self.call(self.theirs.decode, data), spec)

    def as_chunk(self, made: Any, spec: ChunkSpec) -> Array:
        """What the codec made, as a chunk like ``spec``; ``CodecError`` where it has another size."""
        decoded = self.as_bytes(made)
        if len(decoded) != spec.nbytes:
            raise wrong_size(self.name, len(decoded), spec.nbytes)
        return np.frombuffer(decoded, spec.dtype).reshape(spec.shape)

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        del spec
        return None


class BytesToBytesOfNumcodecs(OfNumcodecs, BytesToBytesCodec):
    """A compressor of bytes of another library."""

    __slots__ = ()

    def encode(self, data: Buffer) -> Buffer:
        return self.as_bytes(self.call(self.theirs.encode, data))

    def decode(self, data: Buffer, limit: int) -> Buffer:
        return self.within(self.call(self.theirs.decode, data), limit)

    def within(self, made: Any, limit: int) -> Buffer:
        """What the codec made, as bytes; ``CodecError`` where they are more than ``limit``."""
        decoded = self.as_bytes(made)
        if len(decoded) > limit:
            raise wrong_size(self.name, len(decoded), limit)
        return decoded
