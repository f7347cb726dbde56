"""Elements of any length, each behind its own length: ``vlen-utf8``, ``vlen-bytes`` (zarr-extensions) and ``vlen-array`` (numcodecs).

The bytes are the number of elements, then for each of them its length in bytes and its content, numbers as ``<u4``. numcodecs
takes them apart; what it lets pass is checked here.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np

from azarr.codecs.base import Unconfigured, check_keys
from azarr.codecs.damage import damaged
from azarr.codecs.numcodecs_module import numcodecs_module
from azarr.codecs.variable_length import VariableLengthCodec
from azarr.data_types import DataType, data_type_for
from azarr.data_types.base import native
from azarr.data_types.raw import Bytes as BytesType
from azarr.data_types.text import String
from azarr.data_types.variable import VlenArray as VlenArrayType
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, Buffer, ChunkSpec

HEADER = np.dtype("<u4")
MAX_NBYTES = 2**31 - 1
"""The length of one element at most; what numcodecs counts with."""


class LengthPrefixedCodec(VariableLengthCodec):
    """What the three codecs of this layout share."""

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        return self.within_limit(join(self.name, self.contents(chunk.astype(object).reshape(-1))), spec)

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        return self.elements(split(self.name, data, spec.nelements), spec).reshape(spec.shape)

    @abstractmethod
    def contents(self, elements: Array) -> Array:
        """The contents, as an array of ``bytes`` or ``str`` objects."""

    @abstractmethod
    def elements(self, contents: Array, spec: ChunkSpec) -> Array:
        """The elements of these contents, ``bytes`` objects."""


def join(codec: str, contents: Array) -> bytes:
    """The contents, each behind its length."""
    if max(map(len, contents), default=0) > MAX_NBYTES // 4:
        raise CodecError("an element is longer than 512 MiB, which this codec cannot hold; cut it into several", codec=codec)
    vlen = numcodecs_module("vlen")
    encoder = vlen.VLenUTF8() if contents.size and isinstance(contents[0], str) else vlen.VLenBytes()
    try:
        return cast("bytes", encoder.encode(contents))
    except (TypeError, ValueError) as error:  # elements that are neither, and text that UTF-8 cannot hold
        raise CodecError(f"cannot encode the elements: {error}", codec=codec) from error


def split(codec: str, data: Buffer, count: int) -> Array:
    """The contents of ``count`` elements as ``bytes`` objects; ``CodecError`` where there are more or fewer bytes."""
    if len(data) < HEADER.itemsize:
        raise damaged(codec, f"{len(data)} bytes cannot hold the number of elements")
    found = int.from_bytes(memoryview(data)[: HEADER.itemsize], "little")
    least = HEADER.itemsize * (count + 1)
    if found != count or len(data) < least:  # before memory is taken for them
        raise damaged(codec, f"{len(data)} bytes are to hold {found} elements where the chunk has {count}")
    try:
        contents = cast("Array", numcodecs_module("vlen").VLenBytes().decode(data))
    except ValueError as error:
        raise damaged(codec, f"the lengths do not fit the bytes ({error})") from error
    if (rest := len(data) - least - sum(map(len, contents))) != 0:
        raise damaged(codec, f"{rest} bytes are left behind the last element")
    return contents


@dataclass(frozen=True, slots=True)
class VlenUtf8(Unconfigured, LengthPrefixedCodec):
    """Strings in UTF-8."""

    name: ClassVar[str] = "vlen-utf8"

    @property
    def object_type(self) -> DataType:
        return String()

    def bind(self, spec: ChunkSpec) -> Self:
        if not spec.variable or not isinstance(spec.fill_value, str):
            raise MetadataError(f"codec {self.name!r} holds elements of the data type 'string', not {spec.dtype}")
        return self

    def contents(self, elements: Array) -> Array:
        return elements

    def elements(self, contents: Array, spec: ChunkSpec) -> Array:
        try:
            return np.array([content.decode() for content in contents], spec.dtype)
        except UnicodeDecodeError as error:
            raise damaged(self.name, f"an element is not UTF-8 ({error})") from error


@dataclass(frozen=True, slots=True)
class VlenBytes(Unconfigured, LengthPrefixedCodec):
    """Bytes as they are."""

    name: ClassVar[str] = "vlen-bytes"

    @property
    def object_type(self) -> DataType:
        return BytesType()

    def bind(self, spec: ChunkSpec) -> Self:
        if not spec.variable or not isinstance(spec.fill_value, bytes):
            raise MetadataError(f"codec {self.name!r} holds elements of the data type 'bytes', not {spec.dtype}")
        return self

    def contents(self, elements: Array) -> Array:
        return elements

    def elements(self, contents: Array, spec: ChunkSpec) -> Array:
        del spec
        return contents


@dataclass(frozen=True, slots=True)
class VlenArray(LengthPrefixedCodec):
    """One-dimensional arrays whose elements are stored as ``dtype``, in NumPy's words. Zarr v2 only."""

    name: ClassVar[str] = "numcodecs.vlen-array"
    dtype: str

    def __post_init__(self) -> None:
        _ = self.object_type  # checks the data type

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"dtype"}), frozenset({"dtype"}))
        return cls(cast("str", configuration["dtype"]))

    def configuration(self) -> dict[str, JSON]:
        return {"dtype": self.dtype}

    @property
    def object_type(self) -> DataType:
        return VlenArrayType.of(data_type_for(self._stored))

    @property
    def _stored(self) -> np.dtype[Any]:
        try:
            stored = np.dtype(self.dtype) if type(self.dtype) is str else None
        except (TypeError, ValueError):
            stored = None
        if stored is None or not stored.itemsize or stored.hasobject or stored.names is not None:
            raise MetadataError(f"codec {self.name!r}: dtype must be a NumPy data type of a fixed size, not {self.dtype!r:.100}")
        return stored

    def bind(self, spec: ChunkSpec) -> Self:
        if not isinstance(spec.fill_value, np.ndarray):
            raise MetadataError(f"codec {self.name!r} holds arrays, not elements of {spec.dtype}")
        return self

    def contents(self, elements: Array) -> Array:
        contents = np.empty(len(elements), object)
        for number, element in enumerate(elements):
            contents[number] = np.ascontiguousarray(element, self._stored).tobytes()
        return contents

    def elements(self, contents: Array, spec: ChunkSpec) -> Array:
        stored = self._stored
        elements = np.empty(len(contents), spec.dtype)
        for number, content in enumerate(contents):
            if len(content) % stored.itemsize:
                raise damaged(self.name, f"an array of {len(content)} bytes is not made of elements of {stored.itemsize}")
            elements[number] = np.frombuffer(content, stored).astype(native(stored))
        return elements
