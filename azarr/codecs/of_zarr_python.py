"""Codecs of zarr-python run as azarr's, for plug-ins that were written for it alone.

They work on zarr-python's buffers. Their synchronous methods are called where they have them; else their coroutines run on the
event loop that zarr-python keeps for such cases in a thread of its own, and starts when it is first needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Self

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, wrong_size
from azarr.codecs.foreign import ForeignCodec, as_chunk, as_json, configured
from azarr.codecs.numpy_filter import converted_fill
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, Buffer, ChunkSpec


def from_zarr_python(codec: type, name: str) -> type[ForeignCodec]:
    """A class for ``azarr.register_codec`` that runs ``codec``, a codec class of zarr-python, under ``name``.

    Raises ``TypeError`` where azarr cannot run it: it is of none of the three kinds, or decodes batches of chunks only.
    """
    from zarr.abc import codec as kinds  # noqa: PLC0415  # only those who pass its classes have it

    pairs = (
        (kinds.ArrayArrayCodec, _ArrayToArray),
        (kinds.ArrayBytesCodec, _ArrayToBytes),
        (kinds.BytesBytesCodec, _BytesToBytes),
    )
    ours = next((ours for theirs, ours in pairs if issubclass(codec, theirs)), None)
    if ours is None:
        raise TypeError(f"{codec!r:.100} is none of zarr-python's ArrayArrayCodec, ArrayBytesCodec and BytesBytesCodec")
    if not hasattr(codec, "_decode_sync") and getattr(codec, "_decode_single", None) is vars(kinds.BaseCodec)["_decode_single"]:
        raise TypeError(f"{codec.__qualname__} decodes batches of chunks only; azarr needs its _decode_sync or _decode_single")
    return _class(codec, name, ours)


@cache
def _class(codec: type, name: str, ours: type[ForeignCodec]) -> type[ForeignCodec]:
    members = {"name": name, "codec": codec, "made_by": (from_zarr_python, (codec, name)), "__slots__": ()}
    return type(f"{codec.__name__}OfZarrPython", (ours,), members)


class _OfZarrPython(ForeignCodec):
    """What the three kinds share."""

    __slots__ = ()
    codec: Any

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        return cls(configured(cls.name, cls.codec.from_dict, {"name": cls.name, "configuration": dict(configuration)}))

    def configuration(self) -> dict[str, JSON]:
        document = self.theirs.to_dict()
        return as_json(self.name, document.get("configuration") or {})

    def bind(self, spec: ChunkSpec) -> Self:
        return type(self)(configured(self.name, lambda _: self.theirs.evolve_from_array_spec(_array_spec(self.name, spec)), {}), spec)

    def run(self, verb: str, data: Any) -> Any:
        """What the codec makes of zarr-python's buffer ``data``; ``verb`` is ``encode`` or ``decode``."""
        spec = _array_spec(self.name, self.bound)
        method = getattr(self.theirs, f"_{verb}_sync", None)
        if method is not None and getattr(self.theirs, "_sync_capable", True):
            made = self.call(method, data, spec)
        else:
            from zarr.core.sync import sync  # noqa: PLC0415  # only those who pass its classes have it

            made = self.call(lambda: sync(getattr(self.theirs, f"_{verb}_single")(data, spec)))
        if made is None:
            raise CodecError(f"{type(self.theirs).__qualname__} would not {verb} the chunk", codec=self.name)
        return made


class _ArrayToArray(_OfZarrPython, ArrayToArrayCodec):
    __slots__ = ()

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        made = configured(self.name, lambda _: self.theirs.resolve_metadata(_array_spec(self.name, spec)), {})
        dtype: np.dtype[Any] = made.dtype.to_native_dtype().newbyteorder("=")
        return replace(spec, shape=tuple(made.shape), dtype=dtype, fill_value=converted_fill(made.fill_value, dtype))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        made = self.run("encode", _prototype().nd_buffer.from_numpy_array(np.ascontiguousarray(chunk).reshape(chunk.shape)))
        return as_chunk(self.name, made.as_numpy_array(), self.resolve(spec))

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        made = self.run("decode", _prototype().nd_buffer.from_numpy_array(chunk))
        return as_chunk(self.name, made.as_numpy_array(), spec)


class _ArrayToBytes(_OfZarrPython, ArrayToBytesCodec):
    __slots__ = ()

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        del spec
        made = self.run("encode", _prototype().nd_buffer.from_numpy_array(np.ascontiguousarray(chunk).reshape(chunk.shape)))
        return bytes(made.to_bytes())

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        made = self.run("decode", _prototype().buffer.from_bytes(data))
        return as_chunk(self.name, made.as_numpy_array(), spec)

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        if not getattr(self.theirs, "is_fixed_size", False):
            return None
        return int(self.theirs.compute_encoded_size(spec.nbytes, _array_spec(self.name, spec)))


class _BytesToBytes(_OfZarrPython, BytesToBytesCodec):
    __slots__ = ()

    def encode(self, data: Buffer) -> Buffer:
        return bytes(self.run("encode", _prototype().buffer.from_bytes(data)).to_bytes())

    def decode(self, data: Buffer, limit: int) -> Buffer:
        decoded = bytes(self.run("decode", _prototype().buffer.from_bytes(data)).to_bytes())
        if len(decoded) > limit:
            raise wrong_size(self.name, len(decoded), limit)
        return decoded

    def encoded_size(self, nbytes: int) -> int | None:
        if self.spec is None or not getattr(self.theirs, "is_fixed_size", False):
            return None
        return int(self.theirs.compute_encoded_size(nbytes, _array_spec(self.name, self.spec)))


def _prototype() -> Any:
    """The classes of zarr-python's buffers in main memory."""
    from zarr.core.buffer.cpu import buffer_prototype  # noqa: PLC0415  # only those who pass its classes have it

    return buffer_prototype


def _array_spec(name: str, spec: ChunkSpec) -> Any:
    """What zarr-python tells codecs of a chunk; ``MetadataError`` where it has no such data type."""
    from zarr.core.array_spec import ArrayConfig, ArraySpec  # noqa: PLC0415  # only those who pass its classes have it
    from zarr.dtype import parse_dtype  # noqa: PLC0415  # likewise

    words: dict[Any, str] = {str: "string", bytes: "variable_length_bytes"}
    described: Any = words.get(type(spec.fill_value), spec.dtype) if spec.variable else spec.dtype
    try:
        data_type = parse_dtype(described, zarr_format=3)
    except Exception as error:  # whatever it raises
        raise MetadataError(f"codec {name!r} is zarr-python's, which has no elements of {spec.dtype}") from error
    return ArraySpec(spec.shape, data_type, spec.fill_value, ArrayConfig(order="C", write_empty_chunks=True), _prototype())
