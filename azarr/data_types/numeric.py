"""Truth values and numbers: the data types of the core specification."""

from __future__ import annotations

from typing import Any

import numpy as np

from azarr.data_types.base import DataType
from azarr.data_types.float_format import FloatFormat
from azarr.errors import MetadataError, WriteError
from azarr.types import JSON, Array, FillValue


class Number(DataType):
    """What all numbers share: which values may be written to them, and which may be their fill value."""

    __slots__ = ()

    def conform(self, array: Array) -> Array:
        """``array`` where it can be rounded to this type; whole numbers must be in range."""
        if array.dtype == self.dtype:
            return array
        whole = array.dtype.kind in "iu" and self.dtype.kind in "iu"
        if not whole and not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise self._misfit(array)
        if whole and not np.can_cast(array.dtype, self.dtype, "safe"):
            check_range(array, np.iinfo(self.dtype).min, np.iinfo(self.dtype).max, self.dtype)
        return array

    def fill_value_of(self, value: object) -> FillValue:
        """The number that a user gives, rounded to this type."""
        try:
            fill = np.asarray(value)
        except (ValueError, TypeError) as error:
            raise MetadataError(f"fill_value {value!r:.60} is not a {self.name}") from error
        if fill.ndim or not (fill.dtype.kind in "iu" or np.can_cast(fill.dtype, self.dtype, "same_kind")):
            raise MetadataError(f"fill_value {value!r:.60} is not a {self.name}")
        with np.errstate(over="ignore"):
            converted = fill.astype(self.dtype)
        if fill.dtype.kind in "iu" and converted != fill and self.dtype.kind in "iub":
            raise MetadataError(f"fill_value {value!r:.60} is out of range for {self.name}")
        return converted[()]


def check_range(array: Array, least: int, most: int, dtype: np.dtype[Any]) -> None:
    """Raise ``WriteError`` unless all whole numbers of ``array`` lie within ``least``..``most``."""
    if array.size:
        low, high = int(array.min()), int(array.max())
        if low < least or high > most:
            raise WriteError(f"values from {low} to {high} do not fit into {dtype}, which holds {least} to {most}")


class Bool(Number):
    """True or false, one byte each."""

    __slots__ = ()

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The value of ``true`` or ``false``; also of 0 and 1, which early v3 writers left behind."""
        if isinstance(document, bool) or (isinstance(document, int) and document in {0, 1}):
            return np.bool_(document)
        raise self._illegal(document, "true or false")

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """``true`` or ``false``."""
        return bool(value)


class Integer(Number):
    """A whole number, signed or unsigned."""

    __slots__ = ()

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest number."""
        limits = np.iinfo(self.dtype)
        return int(limits.min), int(limits.max)

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The value of a whole number in range, written without fraction or exponent."""
        low, high = self.bounds
        if isinstance(document, bool) or not isinstance(document, int) or not low <= document <= high:
            raise self._illegal(document, f"a whole number from {low} to {high}, without fraction")
        return self.dtype.type(document)

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """A whole number."""
        return int(value)


class Float(Number):
    """A binary floating-point number."""

    __slots__ = ()

    @property
    def format(self) -> FloatFormat:
        """How its values stand in JSON."""
        return FloatFormat.ieee(self.dtype)

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The value of a number, ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` or ``"0x…"``, whose bits are kept as they are."""
        bits = self.format.parse(document)
        if bits is None:
            raise self._illegal(document, self.format.forms)
        return from_bits([bits], self.dtype)

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """A number where JSON has one, otherwise one of the strings."""
        return self.format.serialize(to_bits(value, self.dtype, 1)[0])


class Complex(Number):
    """A complex number: its real and its imaginary part, each a floating-point number."""

    __slots__ = ()

    @property
    def component(self) -> FloatFormat:
        """How each of the parts stands in JSON."""
        return FloatFormat.ieee(np.dtype(f"f{self.dtype.itemsize // 2}"))

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The value of ``[real, imaginary]``, each in any form that a floating-point number has."""
        parts = document if isinstance(document, list | tuple) else []
        bits = [known for part in parts if (known := self.component.parse(part)) is not None]
        if len(bits) != 2 or len(parts) != 2:
            raise self._illegal(document, f"[real, imaginary], each {self.component.forms}")
        return from_bits(bits, self.dtype)

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """``[real, imaginary]``."""
        return [self.component.serialize(bits) for bits in to_bits(value, self.dtype, 2)]


def from_bits(bits: list[int], dtype: np.dtype[Any]) -> FillValue:
    """The scalar whose components have these bit patterns."""
    return np.array(bits, f"u{dtype.itemsize // len(bits)}").view(dtype)[0]


def to_bits(value: FillValue, dtype: np.dtype[Any], count: int) -> list[int]:
    """The bit patterns of the ``count`` components of a scalar."""
    return [int(bits) for bits in np.array([value], dtype).view(f"u{dtype.itemsize // count}")]


CORE: tuple[DataType, ...] = (
    Bool("bool", np.dtype(bool)),
    *(Integer(name, np.dtype(name)) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")),
    *(Float(name, np.dtype(name)) for name in ("float16", "float32", "float64")),
    *(Complex(name, np.dtype(name)) for name in ("complex64", "complex128")),
)
"""The data types that every implementation has."""
