"""The ``numcodecs.quantize`` codec: floating-point numbers rounded to some decimal digits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self, cast

import numpy as np

from azarr.codecs.base import check_keys, integer
from azarr.codecs.numpy_filter import NumpyFilter, parse_dtype
from azarr.errors import MetadataError
from azarr.types import JSON, Array


@dataclass(frozen=True, slots=True)
class Quantize(NumpyFilter):
    """Elements of ``dtype`` rounded to ``digits`` behind the decimal point (negative: before it), stored as ``astype``. Lossy."""

    name: ClassVar[str] = "numcodecs.quantize"
    digits: int
    dtype: str
    astype: str

    def __post_init__(self) -> None:
        integer(self.name, {"digits": self.digits}, "digits", -300, 300)
        if self.decoded_dtype.kind != "f" or self.encoded_dtype.kind != "f":
            raise MetadataError(f"codec {self.name!r} takes floating-point numbers, not {self.dtype} and {self.astype}")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"digits", "dtype", "astype"}), frozenset({"digits", "dtype"}))
        dtype = parse_dtype(cls.name, configuration, "dtype")
        astype = parse_dtype(cls.name, configuration, "astype", dtype)
        return cls(cast("int", configuration["digits"]), dtype, astype)  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {"digits": self.digits, "dtype": self.dtype, "astype": self.astype}

    @property
    def decoded_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("=")

    @property
    def encoded_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.astype).newbyteorder("=")

    def apply(self, values: Array) -> Array:
        scale = 2.0 ** math.ceil(math.log2(10.0**self.digits))
        return (np.around(scale * values) / scale).astype(self.encoded_dtype, copy=False)

    def restore(self, values: Array) -> Array:
        return values
