"""Text: strings of any length ("string") and of a fixed one ("fixed_length_utf32"), as zarr-extensions define them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from azarr.data_types.base import MAX_NBYTES, DataType, check_keys, whole_number
from azarr.data_types.objects import as_objects
from azarr.errors import MetadataError, WriteError
from azarr.types import JSON, Array, FillValue

STRING_DTYPE: Final[np.dtype[Any]] = np.dtypes.StringDType() if hasattr(np.dtypes, "StringDType") else np.dtype(object)
"""What holds text of any length: NumPy's own strings from version 2 on, ``str`` objects before."""


@dataclass(frozen=True, slots=True)
class String(DataType):
    """Text of any length."""

    name: str = "string"
    dtype: np.dtype[Any] = STRING_DTYPE

    @property
    def default_codec(self) -> str:
        """Lengths and UTF-8."""
        return "vlen-utf8"

    @property
    def zero(self) -> FillValue:
        """The empty string."""
        return ""

    def parse_fill_value(self, document: JSON) -> FillValue:
        """A string, as it is."""
        if not isinstance(document, str) or not _is_unicode(document):
            raise self._illegal(document, "a string")
        return document

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """A string, as it is."""
        return str(value)

    def fill_value_of(self, value: object) -> FillValue:
        """The text that a user gives."""
        value = value[()] if isinstance(value, np.ndarray) and not value.ndim else value
        if not isinstance(value, str):
            raise MetadataError(f"fill_value {value!r:.60} is not a string")
        return self.parse_fill_value(str(value))

    def as_array(self, value: object, ndim: int) -> Array:
        """What a user writes, with the zeros at the end of strings that NumPy's guess would lose."""
        return as_objects(value, ndim)

    def conform(self, array: Array) -> Array:
        """``array`` as an array of strings; ``WriteError`` where there is anything else in it, missing values included."""
        if array.dtype.kind == "U" or (array.dtype.kind == "T" and array.dtype == self.dtype):
            return array
        if array.dtype.kind not in "OT":
            raise self._misfit(array, "convert it to str yourself")
        elements = array.astype(object)  # strings with a way to say that one is missing among them
        for element in elements.flat:
            if not isinstance(element, str):
                raise WriteError(f"{element!r:.60} is not a string; convert all elements to str, and choose one for missing values")
            if not _is_unicode(element):
                raise WriteError(f"{element!r:.60} has half a surrogate pair, which UTF-8 cannot hold")
        return elements.astype(self.dtype)

    @property
    def _shown(self) -> str:
        return "an array of strings"


class FixedLengthUTF32(DataType):
    """Text of so many characters at most, each of four bytes, and zeros behind it."""

    __slots__ = ()

    def to_json(self) -> JSON:
        """The length in bytes."""
        return {"name": self.name, "configuration": {"length_bytes": self.dtype.itemsize}}

    def parse_fill_value(self, document: JSON) -> FillValue:
        """A string of no more characters than elements have."""
        if not isinstance(document, str) or len(document) > self._length:
            raise self._illegal(document, f"a string of at most {self._length} characters")
        return np.array([document], self.dtype)[0]

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """A string, without the zeros behind it."""
        return str(value)

    def conform(self, array: Array) -> Array:
        """``array`` where it is text that fits."""
        if array.dtype.kind not in "OTU":
            raise self._misfit(array, "convert it to str yourself")
        text = String().conform(array)
        if text.dtype.kind != "U" or text.dtype.itemsize > self.dtype.itemsize:
            longest = max(map(len, text.flat), default=0)
            if longest > self._length:
                raise WriteError(f"a string of {longest} characters does not fit into {self.dtype}, which holds {self._length}")
            return text.astype(self.dtype)
        return text

    @property
    def _length(self) -> int:
        return self.dtype.itemsize // 4


def utf32_for(dtype: np.dtype[Any]) -> DataType:
    """The data type of text that NumPy describes as ``dtype``; of any length where it gives none, as ``str`` does."""
    return FixedLengthUTF32("fixed_length_utf32", dtype) if dtype.itemsize else String()


def make_utf32(name: str, configuration: Mapping[str, JSON]) -> DataType:
    """The data type of text with the length in ``configuration``."""
    check_keys(name, configuration, "length_bytes")
    nbytes = whole_number(name, configuration, "length_bytes", 4, MAX_NBYTES)
    if nbytes % 4:
        raise MetadataError(f"data type {name!r}: length_bytes must be a multiple of 4, not {nbytes}")
    return FixedLengthUTF32(name, np.dtype(f"U{nbytes // 4}"))


def _is_unicode(text: str) -> bool:
    """Whether UTF-8 can hold ``text``, which half a surrogate pair prevents."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
