"""Bytes that mean nothing to Zarr: of a fixed number ("r<N>", "raw_bytes", "null_terminated_bytes") or any ("bytes")."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from azarr.data_types.base import MAX_NBYTES, DataType, check_keys, whole_number
from azarr.data_types.objects import OBJECT, as_objects
from azarr.errors import MetadataError, WriteError
from azarr.types import JSON, Array, FillValue


class RawBytes(DataType):
    """So many bytes: ``r<N>`` of the core specification, N in bits, or the ``raw_bytes`` of zarr-python."""

    __slots__ = ()

    def to_json(self) -> JSON:
        """The name, which says the number of bits, or the number of bytes."""
        if self.name != "raw_bytes":
            return self.name
        return {"name": self.name, "configuration": {"length_bytes": self.dtype.itemsize}}

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The bytes in a list of numbers, or in a string in base64: both are written for either type."""
        raw = parse_bytes(document)
        if raw is None or len(raw) != self.dtype.itemsize:
            raise self._illegal(document, f"a list of {self.dtype.itemsize} numbers from 0 to 255, or base64 of as many bytes")
        return np.frombuffer(raw, self.dtype)[0]

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """A list of numbers for ``r<N>``, base64 for ``raw_bytes``."""
        raw = np.array([value], self.dtype).tobytes()
        return to_base64(raw) if self.name == "raw_bytes" else list(raw)

    def conform(self, array: Array) -> Array:
        """``array`` of bytes, filled up with zeros where they are fewer."""
        return _fixed_bytes(self, array, np.void)


class NullTerminatedBytes(DataType):
    """So many bytes at most, and zeros behind them, which are not told from zeros at the end of the bytes."""

    __slots__ = ()

    def to_json(self) -> JSON:
        """The number of bytes."""
        return {"name": self.name, "configuration": {"length_bytes": self.dtype.itemsize}}

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The bytes in a string in base64, no more than elements have."""
        raw = parse_bytes(document) if isinstance(document, str) else None
        if raw is None or len(raw) > self.dtype.itemsize:
            raise self._illegal(document, f"base64 of at most {self.dtype.itemsize} bytes")
        return np.array([raw], self.dtype)[0]

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """Base64 of the bytes without the zeros behind them."""
        return to_base64(bytes(value))

    def conform(self, array: Array) -> Array:
        """``array`` of bytes that fit."""
        return _fixed_bytes(self, array, np.bytes_)


def _fixed_bytes(data_type: DataType, array: Array, kind: type[np.generic]) -> Array:
    if array.dtype == data_type.dtype:
        return array
    if array.dtype.kind == "O" and all(isinstance(element, bytes) for element in array.flat):
        longest = max(map(len, array.flat), default=0)
        array = array.astype(f"S{max(1, longest)}")
    if array.dtype.type is not np.bytes_ and (array.dtype.type is not kind or array.dtype.names is not None):
        raise WriteError(f"a value of data type {array.dtype} does not fit into {data_type.dtype}; encode it to bytes yourself")
    if array.dtype.itemsize > data_type.dtype.itemsize:
        longest = max(map(len, array.flat), default=0) if array.dtype.type is np.bytes_ else array.dtype.itemsize
        if longest > data_type.dtype.itemsize:
            raise WriteError(f"{longest} bytes do not fit into {data_type.dtype}, which holds {data_type.dtype.itemsize}")
        array = array.astype(f"S{data_type.dtype.itemsize}")
    return array


@dataclass(frozen=True, slots=True)
class Bytes(DataType):
    """Bytes of any number, held as ``bytes`` objects."""

    name: str = "bytes"
    dtype: np.dtype[Any] = OBJECT

    @property
    def default_codec(self) -> str:
        """Lengths and bytes."""
        return "vlen-bytes"

    @property
    def zero(self) -> FillValue:
        """No bytes."""
        return b""

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The bytes in a string in base64, or in a list of numbers."""
        raw = parse_bytes(document)
        if raw is None:
            raise self._illegal(document, "base64, or a list of numbers from 0 to 255")
        return raw

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """Base64."""
        return to_base64(value)

    def fill_value_of(self, value: object) -> FillValue:
        """The bytes that a user gives."""
        if not isinstance(value, bytes | bytearray | memoryview | np.void):
            raise MetadataError(f"fill_value {value!r:.60} is not made of bytes")
        return bytes(value) if not isinstance(value, np.void) else value.tobytes()

    def as_array(self, value: object, ndim: int) -> Array:
        """What a user writes, with the zeros at the end of bytes that NumPy's guess would lose."""
        return as_objects(value, ndim)

    def conform(self, array: Array) -> Array:
        """``array`` as an array of ``bytes`` objects."""
        if array.dtype.kind not in "SO" and (array.dtype.type is not np.void or array.dtype.names is not None):
            raise self._misfit(array, "encode it to bytes yourself")
        elements = np.empty(array.shape, object)
        flat = elements.reshape(-1)
        for number, element in enumerate(array.flat):
            if not isinstance(element, bytes | bytearray | memoryview | np.void):
                raise WriteError(f"{element!r:.60} is not made of bytes; encode all elements, and choose bytes for missing values")
            flat[number] = element.tobytes() if isinstance(element, np.void) else bytes(element)
        return elements

    @property
    def _shown(self) -> str:
        return "an array of bytes"


def parse_bytes(document: JSON) -> bytes | None:
    """The bytes in base64 or a list of numbers; ``None`` where it is neither."""
    if isinstance(document, str):
        try:
            return base64.b64decode(document, validate=True)
        except (binascii.Error, ValueError):
            return None
    if isinstance(document, list | tuple) and all(type(number) is int and 0 <= number < 256 for number in document):
        return bytes(document)
    return None


def to_base64(raw: bytes) -> str:
    """The bytes as a string of JSON."""
    return base64.b64encode(raw).decode()


def raw_bits(name: str) -> RawBytes | None:
    """The data type that is called ``r<N>``, ``None`` where ``name`` is not of this form; ``MetadataError`` for an impossible N."""
    if not re.fullmatch(r"r[0-9]{1,12}", name):
        return None
    nbytes, rest = divmod(int(name[1:]), 8)
    if rest or not 0 < nbytes <= MAX_NBYTES or name != f"r{8 * nbytes}":
        raise MetadataError(f"data type {name!r}: the number of bits must be a multiple of 8")
    return RawBytes(name, np.dtype(f"V{nbytes}"))


def raw_for(dtype: np.dtype[Any]) -> DataType:
    """The data type of bytes that NumPy describes as ``dtype``; of any number where it gives none, as ``bytes`` does."""
    if not dtype.itemsize:
        if dtype.kind == "V":
            raise MetadataError("dtype V0 has no bytes; say how many, as in 'V3', or choose dtype=bytes for any number of them")
        return Bytes()
    return NullTerminatedBytes("null_terminated_bytes", dtype) if dtype.kind == "S" else RawBytes("raw_bytes", dtype)


def make_fixed(name: str, configuration: Mapping[str, JSON]) -> DataType:
    """The data type of bytes with the length in ``configuration``."""
    check_keys(name, configuration, "length_bytes")
    kind = "S" if name == "null_terminated_bytes" else "V"
    return raw_for(np.dtype(f"{kind}{whole_number(name, configuration, 'length_bytes', 1, MAX_NBYTES)}"))
