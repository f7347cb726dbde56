"""How floating-point numbers stand in JSON: by value where JSON has it, by name or by their bits otherwise.

They travel as bit patterns here, because a Python float would lose the payload of a NaN.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import numpy as np

from azarr.types import JSON, Array


class FloatFormat(NamedTuple):
    """A format of floating-point numbers, whose ``dtype`` holds them in its lowest ``nbits`` bits.

    ``nan`` is the bit pattern that ``"NaN"`` stands for (``None`` where there is no NaN); ``infinite`` whether there are infinities.
    """

    dtype: np.dtype[Any]
    nbits: int
    nan: int | None
    infinite: bool = True

    @classmethod
    def ieee(cls, dtype: np.dtype[Any]) -> FloatFormat:
        """The format of one of NumPy's own floating-point types. Its NaN is positive, quiet and without payload."""
        return cls(dtype, 8 * dtype.itemsize, int(np.array([np.nan], dtype).view(f"u{dtype.itemsize}")[0]))

    @property
    def digits(self) -> int:
        """The number of hexadecimal digits that name a bit pattern."""
        return 2 * self.dtype.itemsize

    @property
    def forms(self) -> str:
        """What is legal in JSON, in words."""
        names = [*(["'NaN'"] if self.nan is not None else []), *(["'Infinity'", "'-Infinity'"] if self.infinite else [])]
        return f"{', '.join(['a number', *names])} or '0x' and {self.digits} hexadecimal digits"

    def parse(self, document: JSON) -> int | None:
        """The bit pattern of a number in JSON; ``None`` where it is not legal."""
        if isinstance(document, str):
            if document == "NaN":
                return self.nan
            if re.fullmatch(f"0x[0-9a-fA-F]{{{self.digits}}}", document):
                return bits if (bits := int(document, 16)) < 2**self.nbits else None
            document = {"Infinity": np.inf, "-Infinity": -np.inf}.get(document) if self.infinite else None
        if isinstance(document, bool) or not isinstance(document, int | float):
            return None
        try:
            number = float(document)
        except OverflowError:  # a whole number beyond the largest float64
            number = np.inf if document > 0 else -np.inf
        if np.isnan(number):  # a literal NaN, which Python reads and JSON does not have
            return None
        with np.errstate(all="ignore"):  # a number out of range becomes infinite, which is how rounding ends
            rounded = np.array([number], np.float64).astype(self.dtype)
            if not self.infinite and not self.holds(np.array([number])).all():
                return None
        return int(rounded.view(f"u{self.dtype.itemsize}")[0])

    def holds(self, numbers: Array) -> Array:
        """Which of these float64 numbers have a counterpart that they can be rounded to."""
        with np.errstate(all="ignore"):
            rounded = numbers.astype(self.dtype).astype(np.float64)
        strange = np.isnan(numbers) if self.nan is None else np.isnan(rounded) & ~np.isnan(numbers)
        if not self.infinite:
            # some formats of NumPy's friends end at their largest number instead
            largest = np.abs(_all_numbers(self.dtype)).max()
            strange |= np.abs(numbers) > largest
        held: Array = ~strange
        return held

    def serialize(self, bits: int) -> JSON:
        """A number where JSON has one, otherwise one of the strings."""
        number = float(np.array([bits], f"u{self.dtype.itemsize}").view(self.dtype)[0])
        if np.isnan(number):
            return "NaN" if bits == self.nan else f"0x{bits:0{self.digits}x}"
        if np.isinf(number):
            return "Infinity" if number > 0 else "-Infinity"
        return number


def _all_numbers(dtype: np.dtype[Any]) -> Array:
    """The finite numbers of a data type of single bytes."""
    numbers = np.arange(256, dtype=np.uint8).view(dtype).astype(np.float64)
    return numbers[np.isfinite(numbers)]
