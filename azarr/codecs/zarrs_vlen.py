"""The codecs ``zarrs.vlen`` and ``zarrs.vlen_v2`` of zarrs: strings or bytes of any length, with their offsets apart from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, ClassVar, Literal, Self

import numpy as np

from azarr.codecs.base import Codec, Unconfigured, check_keys, too_large
from azarr.codecs.damage import damaged
from azarr.codecs.pipeline import CodecPipeline, bind_codecs
from azarr.codecs.variable_length import VariableLengthCodec
from azarr.codecs.vlen import LengthPrefixedCodec
from azarr.data_types import DataType
from azarr.data_types.text import String
from azarr.errors import CodecError, MetadataError
from azarr.types import Array, Buffer, ChunkSpec

SIZE = np.dtype("<u8")


def contents_of(chunk: Array) -> list[bytes]:
    """The elements, strings or bytes, as bytes."""
    try:
        return [element.encode() if isinstance(element, str) else bytes(element) for element in chunk.reshape(-1).tolist()]
    except (UnicodeEncodeError, TypeError) as error:
        raise CodecError(f"cannot encode the elements: {error}", codec="zarrs.vlen") from error


def elements_of(codec: str, contents: list[bytes], spec: ChunkSpec) -> Array:
    """The elements of these contents: strings where the fill value is one."""
    chunk = np.empty(len(contents), spec.dtype)
    try:
        chunk[:] = [content.decode() for content in contents] if isinstance(spec.fill_value, str) else contents
    except UnicodeDecodeError as error:
        raise damaged(codec, f"an element is not UTF-8 ({error})") from error
    return chunk.reshape(spec.shape)


def check_elements(codec: str, spec: ChunkSpec) -> None:
    """Raise ``MetadataError`` unless elements are strings or bytes of any length."""
    if not spec.variable or not isinstance(spec.fill_value, str | bytes):
        raise MetadataError(f"codec {codec!r} holds elements of the data types 'string' and 'bytes', not {spec.dtype}")


@dataclass(frozen=True, slots=True)
class ZarrsVlen(VariableLengthCodec):
    """The contents one after the other through ``data_codecs``, their offsets through ``index_codecs``, and the size of the latter."""

    name: ClassVar[str] = "zarrs.vlen"
    nested: ClassVar[frozenset[str]] = frozenset({"data_codecs", "index_codecs"})
    data_codecs: tuple[Codec, ...]
    index_codecs: tuple[Codec, ...]
    index_data_type: Literal["uint32", "uint64"] = "uint64"
    index_location: Literal["start", "end"] = "start"

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        required = cls.nested | {"index_data_type"}
        check_keys(cls.name, configuration, required | {"index_location"}, required)
        index_type, location = configuration["index_data_type"], configuration.get("index_location", "start")
        if index_type not in ("uint32", "uint64"):
            raise MetadataError(f"codec {cls.name!r}: index_data_type must be 'uint32' or 'uint64', not {index_type!r:.100}")
        if location not in ("start", "end"):
            raise MetadataError(f"codec {cls.name!r}: index_location must be 'start' or 'end', not {location!r:.100}")
        return cls(configuration["data_codecs"], configuration["index_codecs"], index_type, location)

    def configuration(self) -> dict[str, Any]:
        return {
            "data_codecs": self.data_codecs,
            "index_codecs": self.index_codecs,
            "index_data_type": self.index_data_type,
            "index_location": self.index_location,
        }

    @property
    def object_type(self) -> DataType:
        return String()

    def bind(self, spec: ChunkSpec) -> Self:
        check_elements(self.name, spec)
        data = bind_codecs(self.data_codecs, self._data_spec(1))
        return replace(self, data_codecs=data, index_codecs=bind_codecs(self.index_codecs, self._index_spec(spec)))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        contents = contents_of(chunk)
        index_spec = self._index_spec(spec)
        offsets = np.concatenate([[0], np.cumsum([len(content) for content in contents], dtype=np.uint64)])
        if int(offsets[-1]) > min(np.iinfo(index_spec.dtype).max, spec.limit):
            raise CodecError(f"the chunk has {offsets[-1]} bytes, too many; use smaller chunks", codec=self.name)
        index = CodecPipeline(self.index_codecs, index_spec).encode(offsets.astype(index_spec.dtype))
        joined = np.frombuffer(b"".join(contents), np.uint8)
        data = CodecPipeline(self.data_codecs, self._data_spec(joined.size)).encode(joined) if joined.size else b""
        if joined.size > spec.bound.after(len(data)):
            raise too_large(self.name, spec.bound, len(data))  # reading would refuse it
        size = len(index).to_bytes(SIZE.itemsize, "little")
        return self.within_limit(b"".join([size, index, data] if self.index_location == "start" else [data, index, size]), spec)

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        view = memoryview(data)
        at_end = self.index_location == "end"
        size, rest = (view[-SIZE.itemsize :], view[: -SIZE.itemsize]) if at_end else (view[: SIZE.itemsize], view[SIZE.itemsize :])
        nbytes = int.from_bytes(size, "little")
        if len(view) < SIZE.itemsize or nbytes > len(rest):
            raise damaged(self.name, f"{len(view)} bytes are to hold an index of {nbytes}")
        border = len(rest) - nbytes if at_end else nbytes
        index, content = (rest[border:], rest[:border]) if at_end else (rest[:border], rest[border:])
        offsets = CodecPipeline(self.index_codecs, self._index_spec(spec)).decode(index).tolist()
        if offsets[0] or any(start > stop for start, stop in pairwise(offsets)):
            raise damaged(self.name, "the offsets do not begin with 0, or do not grow")
        if offsets[-1] > spec.bound.after(len(content)):
            raise too_large(self.name, spec.bound, len(content))
        joined = bytes(CodecPipeline(self.data_codecs, self._data_spec(offsets[-1])).decode(content)) if offsets[-1] else b""
        return elements_of(self.name, [joined[start:stop] for start, stop in pairwise(offsets)], spec)

    def _index_spec(self, spec: ChunkSpec) -> ChunkSpec:
        dtype = np.dtype(self.index_data_type)
        return ChunkSpec((spec.nelements + 1,), dtype, dtype.type(0))

    def _data_spec(self, count: int) -> ChunkSpec:
        return ChunkSpec((count,), np.dtype(np.uint8), np.uint8(0))


@dataclass(frozen=True, slots=True)
class ZarrsVlenV2(Unconfigured, LengthPrefixedCodec):
    """The layout of ``vlen-utf8`` and ``vlen-bytes``, for both of their data types."""

    name: ClassVar[str] = "zarrs.vlen_v2"

    @property
    def object_type(self) -> DataType:
        return String()

    def bind(self, spec: ChunkSpec) -> Self:
        check_elements(self.name, spec)
        return self

    def contents(self, elements: Array) -> Array:
        contents = np.empty(len(elements), object)
        contents[:] = contents_of(elements)
        return contents

    def elements(self, contents: Array, spec: ChunkSpec) -> Array:
        return elements_of(self.name, contents.tolist(), spec)
