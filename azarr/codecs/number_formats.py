"""Formats of numbers, and conversion between them with a chosen rounding (zarr-extensions, "cast_value").

Everything that a format with at most 53 significant bits holds, float64 holds exactly. Conversions therefore go through
float64 and round there to the grid of the target, so that they round once; only whole numbers beyond 2^53 are converted one
by one, as Python's fractions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final, Literal

import numpy as np

from azarr.errors import MetadataError
from azarr.types import Array

Rounding = Literal["nearest-even", "towards-zero", "towards-positive", "towards-negative", "nearest-away"]

EXACT = 2**53
"""Whole numbers up to this one are exact in float64."""


@dataclass(frozen=True, slots=True)
class WholeFormat:
    """Whole numbers of ``bits`` bits."""

    dtype: np.dtype[Any]
    bits: int
    signed: bool

    @property
    def lowest(self) -> int:
        """The least number there is."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The greatest number there is."""
        return (1 << (self.bits - self.signed)) - 1


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """Floating-point numbers with ``digits`` binary digits, of exponents from ``min_exponent`` (of the least normal number) on."""

    dtype: np.dtype[Any]
    digits: int
    min_exponent: int
    lowest: float
    highest: float
    has_infinity: bool
    has_nan: bool
    has_negative_zero: bool

    def holds(self, other: WholeFormat | FloatFormat) -> bool:
        """Whether every number of ``other`` is one of this format."""
        if isinstance(other, WholeFormat):
            return 8 <= other.bits <= self.digits and self.lowest <= other.lowest and other.highest <= self.highest
        flags = ((self.has_infinity, other.has_infinity), (self.has_nan, other.has_nan), (self.has_negative_zero, other.has_negative_zero))
        wide = self.digits >= other.digits and self.min_exponent <= other.min_exponent
        return wide and self.lowest <= other.lowest and other.highest <= self.highest and all(own or not theirs for own, theirs in flags)


def number_format(who: str, dtype: np.dtype[Any]) -> WholeFormat | FloatFormat:
    """The format of the real numbers of ``dtype``; ``MetadataError`` for anything else, in the name of ``who``."""
    found = _format(dtype)
    if found is None:
        raise MetadataError(f"{who} takes real numbers, not {dtype}")
    return found


@lru_cache(maxsize=64)
def _format(dtype: np.dtype[Any]) -> WholeFormat | FloatFormat | None:
    if dtype.kind in "iu":
        return WholeFormat(dtype, 8 * dtype.itemsize, dtype.kind == "i")
    if dtype.kind != "f" and (dtype.type.__module__ != "ml_dtypes" or dtype.names is not None):
        return None
    if dtype.name.startswith(("int", "uint")):
        return WholeFormat(dtype, int(dtype.name.lstrip("uint")), dtype.name.startswith("int"))
    info: Any
    if dtype.kind == "f" and dtype.type.__module__ == "numpy":
        info = np.finfo(dtype)
    else:
        import ml_dtypes  # noqa: PLC0415  # only where there are such numbers

        info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    infinity, nan, zero = (float(np.array(value).astype(dtype)) for value in (math.inf, math.nan, -0.0))
    return FloatFormat(
        dtype=dtype,
        digits=int(info.nmant) + 1,
        min_exponent=int(info.minexp),
        lowest=float(info.min),
        highest=float(info.max),
        has_infinity=math.isinf(infinity),
        has_nan=math.isnan(nan),
        has_negative_zero=zero == 0 and math.copysign(1, zero) < 0,
    )


def _away(values: Array) -> Array:
    whole: Array = np.trunc(values)
    return whole + np.where(np.abs(values - whole) >= 0.5, np.copysign(1.0, values), 0.0)


ROUND: Final[Mapping[str, Callable[[Array], Array]]] = MappingProxyType(
    {
        "nearest-even": np.rint,
        "towards-zero": np.trunc,
        "towards-positive": np.ceil,
        "towards-negative": np.floor,
        "nearest-away": _away,
    }
)
"""How float64 numbers become whole, by the name of the rounding."""


def _round_fraction(value: Fraction, rounding: str) -> int:
    if rounding == "nearest-even":
        return round(value)
    if rounding == "towards-zero":
        return math.trunc(value)
    if rounding == "towards-positive":
        return math.ceil(value)
    if rounding == "towards-negative":
        return math.floor(value)
    return math.floor(abs(value) + Fraction(1, 2)) * (-1 if value < 0 else 1)


def round_to_float(values: Array, target: FloatFormat, rounding: str) -> Array:
    """Finite float64 numbers rounded to the grid of ``target``, without regard to its range."""
    if target.digits >= 53:
        return values
    _, exponents = np.frexp(values)
    shift = np.maximum(exponents - 1, target.min_exponent) - (target.digits - 1)
    rounded: Array = np.ldexp(ROUND[rounding](np.ldexp(values, -shift)), shift)
    return rounded


def round_big(values: Array, target: FloatFormat, rounding: str) -> Array:
    """Whole numbers beyond ``EXACT`` rounded to the grid of ``target``, as float64, one by one."""
    out = np.empty(values.shape, np.float64)
    for number, value in enumerate(values.tolist()):
        step = 1 << max(0, abs(value).bit_length() - target.digits)
        out[number] = float(_round_fraction(Fraction(value, step), rounding) * step)
    return out
