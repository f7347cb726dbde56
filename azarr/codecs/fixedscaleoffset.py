"""The ``numcodecs.fixedscaleoffset`` codec: floating-point numbers as whole multiples of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from azarr.codecs.base import check_keys
from azarr.codecs.numpy_filter import NumpyFilter, number, parse_dtype
from azarr.errors import MetadataError
from azarr.types import JSON, Array


@dataclass(frozen=True, slots=True)
class FixedScaleOffset(NumpyFilter):
    """``(x - offset) * scale`` of elements of ``dtype``, rounded half to even and stored as ``astype``. Lossy.

    Arithmetic is NumPy's for these data types and plain numbers: float32 stays float32, whole numbers decode through float64.
    """

    name: ClassVar[str] = "numcodecs.fixedscaleoffset"
    offset: float
    scale: float
    dtype: str
    astype: str

    def __post_init__(self) -> None:
        numbers: dict[str, JSON] = {"offset": self.offset, "scale": self.scale}
        number(self.name, numbers, "offset")
        if number(self.name, numbers, "scale") == 0:
            raise MetadataError(f"codec {self.name!r}: scale must not be 0")
        if {self.decoded_dtype.kind, self.encoded_dtype.kind} & {"b", "c"}:
            raise MetadataError(f"codec {self.name!r} takes real numbers, not {self.dtype} and {self.astype}")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        required = frozenset({"offset", "scale", "dtype"})
        check_keys(cls.name, configuration, required | {"astype"}, required)
        dtype = parse_dtype(cls.name, configuration, "dtype")
        astype = parse_dtype(cls.name, configuration, "astype", dtype)
        return cls(number(cls.name, configuration, "offset"), number(cls.name, configuration, "scale"), dtype, astype)

    def configuration(self) -> dict[str, JSON]:
        return {"offset": self.offset, "scale": self.scale, "dtype": self.dtype, "astype": self.astype}

    @property
    def decoded_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("=")

    @property
    def encoded_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.astype).newbyteorder("=")

    def apply(self, values: Array) -> Array:
        return np.around((values - self.offset) * self.scale).astype(self.encoded_dtype, copy=False)

    def restore(self, values: Array) -> Array:
        decoded: Array = values / self.scale
        decoded += self.offset
        return decoded.astype(self.decoded_dtype, copy=False)
