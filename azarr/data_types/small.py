"""The small numbers of machine learning (zarr-extensions): bfloat16, floats of 4 to 8 bits, whole numbers of 2 and 4, and pairs of them.

Most are held by ml_dtypes, which is imported when the first array of such a type is met.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from contextlib import suppress
from functools import cache, lru_cache, partial
from types import MappingProxyType
from typing import Any, Final, cast

import numpy as np

from azarr.data_types.base import DataType
from azarr.data_types.float_format import FloatFormat
from azarr.data_types.numeric import Complex, Float, Integer, check_range
from azarr.errors import UnknownExtensionError, WriteError
from azarr.extras import Extra
from azarr.types import Array, FillValue

ML: Final = Extra("ml_dtypes", "ml")

WIDTHS: Final[Mapping[str, int]] = MappingProxyType(
    {"int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6}
)
"""How many bits, the lowest of a byte, hold an element of the types that are narrower than a byte."""

_FLOATS: Final[Mapping[str, tuple[int | None, bool]]] = MappingProxyType(
    {
        "bfloat16": (0x7FC0, True),
        "float8_e3m4": (0x78, True),
        "float8_e4m3": (0x7C, True),
        "float8_e4m3fn": (0x7F, False),
        "float8_e4m3b11fnuz": (0x80, False),
        "float8_e4m3fnuz": (0x80, False),
        "float8_e5m2": (0x7E, True),
        "float8_e5m2fnuz": (0x80, False),
        "float8_e8m0fnu": (0xFF, False),
        "float6_e2m3fn": (None, False),
        "float6_e3m2fn": (None, False),
        "float4_e2m1fn": (None, False),
    }
)
"""The bits of the usual NaN, and whether there are infinities."""

_INTEGERS: Final = ("int2", "uint2", "int4", "uint4")
_NATIVE_PAIRS: Final = MappingProxyType({"complex_float16": "complex32", "complex_bfloat16": "bcomplex32"})
NAMES: Final = (*_FLOATS, *_INTEGERS, "complex_float16", *(f"complex_{name}" for name in _FLOATS))
"""The names of all small types."""


class SmallInteger(Integer):
    """A whole number of a few bits."""

    __slots__ = ()

    @property
    def bounds(self) -> tuple[int, int]:
        """The smallest and the largest number."""
        nbits = WIDTHS[self.name]
        return (0, 2**nbits - 1) if self.name.startswith("u") else (-(2 ** (nbits - 1)), 2 ** (nbits - 1) - 1)

    def conform(self, array: Array) -> Array:
        """``array`` where it holds whole numbers in range."""
        if array.dtype == self.dtype:
            return array
        if array.dtype.name in _INTEGERS:
            array = array.astype(np.int8)
        if array.dtype.kind not in "iu":
            raise self._misfit(array)
        check_range(array, *self.bounds, self.dtype)
        return array

    def fill_value_of(self, value: object) -> FillValue:
        """The number that a user gives."""
        return DataType.fill_value_of(self, value)


def _check_floats(array: Array, target: FloatFormat) -> None:
    numbers = array.astype(np.float64)
    if not (held := target.holds(numbers)).all():
        raise WriteError(f"{float(numbers[~held].flat[0])} does not fit into {target.dtype}, which has no number that is close to it")


class SmallFloat(Float):
    """A floating-point number of 16 bits or fewer that NumPy does not have itself."""

    __slots__ = ()

    @property
    def format(self) -> FloatFormat:
        """How its values stand in JSON."""
        return float_format(self.name)

    def conform(self, array: Array) -> Array:
        """``array`` where each number can be rounded to this type: without NaN or infinity where it has none."""
        if array.dtype == self.dtype:
            return array
        if array.dtype.kind not in "fiu" and array.dtype.name not in {*_FLOATS, *_INTEGERS}:
            raise self._misfit(array)
        _check_floats(array, self.format)
        return array

    def fill_value_of(self, value: object) -> FillValue:
        """The number that a user gives, rounded to this type."""
        return DataType.fill_value_of(self, value)


class SmallComplex(Complex):
    """Two small numbers. Where NumPy's friends have no such type, an element is a structure of ``real`` and ``imag``."""

    __slots__ = ()

    @property
    def component(self) -> FloatFormat:
        """How each of the parts stands in JSON."""
        return float_format(self.name.removeprefix("complex_"))

    def conform(self, array: Array) -> Array:
        """``array`` where both parts of each number can be rounded to this type."""
        if array.dtype == self.dtype:
            return array
        if array.dtype.kind not in "cfiu" and array.dtype.name not in _NATIVE_PAIRS.values():
            raise self._misfit(array)
        wide = array.astype(np.complex128)
        _check_floats(wide.real, self.component)
        _check_floats(wide.imag, self.component)
        if self.dtype.names is None:
            return wide
        pairs = np.empty(wide.shape, self.dtype)
        pairs["real"], pairs["imag"] = wide.real, wide.imag
        return pairs

    def fill_value_of(self, value: object) -> FillValue:
        """The number that a user gives, rounded to this type."""
        return DataType.fill_value_of(self, value)


@cache
def ml_dtype(name: str) -> np.dtype[Any]:
    """The NumPy data type ``name`` of ml_dtypes; ``UnknownExtensionError`` where that is not installed, or too old to have it."""
    try:
        return cast("np.dtype[Any]", np.dtype(getattr(importlib.import_module(ML.package), name)))
    except (ImportError, AttributeError):
        raise UnknownExtensionError(f'data type {name!r} needs a recent {ML.package}: pip install "azarr[{ML.name}]"', name=name) from None


@cache
def float_format(name: str) -> FloatFormat:
    """How numbers of the small type ``name``, or of float16, stand in JSON."""
    if name == "float16":
        return FloatFormat.ieee(np.dtype(np.float16))
    dtype, (nan, infinite) = ml_dtype(name), _FLOATS[name]
    return FloatFormat(dtype, WIDTHS.get(name, 8 * dtype.itemsize), nan, infinite)


def small(name: str) -> DataType:
    """The small data type ``name``."""
    if name in _INTEGERS:
        return SmallInteger(name, ml_dtype(name))
    if name in _FLOATS:
        return SmallFloat(name, ml_dtype(name))
    with suppress(UnknownExtensionError):  # which ml_dtypes has only of late
        if name in _NATIVE_PAIRS:
            return SmallComplex(name, ml_dtype(_NATIVE_PAIRS[name]))
    part = float_format(name.removeprefix("complex_")).dtype
    return SmallComplex(name, np.dtype([("real", part), ("imag", part)]))


def small_for(dtype: np.dtype[Any]) -> DataType | None:
    """The small data type whose elements are of ``dtype``; ``None`` where there is none."""
    pairs = {held: name for name, held in _NATIVE_PAIRS.items()}
    name = pairs.get(dtype.name, dtype.name)
    return small(name) if dtype.names is None and name in NAMES and name not in {"complex_" + each for each in _INTEGERS} else None


MAKERS = MappingProxyType({name: partial(small, name) for name in NAMES})
"""How each small type is made."""


@lru_cache(maxsize=64)
def stored_bits(dtype: np.dtype[Any]) -> tuple[Array, Array] | None:
    """For every byte of an element, its significant bits, and the sign bit among them where that is not the highest of the byte.

    ``None`` where all bits are significant, as they are in all but the small types.
    """
    if not _is_narrow(dtype):
        return None
    significant = np.full(dtype.itemsize, 0xFF, np.uint8)
    sign = np.zeros(dtype.itemsize, np.uint8)
    if dtype.subdtype is not None:
        inner = stored_bits(dtype.base)
        repeats = dtype.itemsize // max(1, dtype.base.itemsize)
        return None if inner is None else (np.tile(inner[0], repeats), np.tile(inner[1], repeats))
    for name in dtype.names or ():
        field, offset = dtype.fields[name][:2]  # type: ignore[index]  # a data type with names has fields
        if (inner := stored_bits(field)) is not None:
            significant[offset : offset + field.itemsize], sign[offset : offset + field.itemsize] = inner
    if dtype.names is None:
        significant[0] = 2 ** WIDTHS[dtype.name] - 1
        sign[0] = 2 ** (WIDTHS[dtype.name] - 1) if dtype.name.startswith("int") else 0
    return significant, sign


def _is_narrow(dtype: np.dtype[Any]) -> bool:
    """Whether elements have bits without significance in any of their parts."""
    if dtype.subdtype is not None:
        return _is_narrow(dtype.base)
    if dtype.names is not None:
        return any(_is_narrow(dtype.fields[name][0]) for name in dtype.names)  # type: ignore[index]  # it has fields
    return dtype.name in WIDTHS
