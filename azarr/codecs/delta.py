"""The ``numcodecs.delta`` codec: the first element, then the difference of each element to the one before it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from azarr.codecs.base import check_keys
from azarr.codecs.numpy_filter import NumpyFilter, converted, parse_dtype
from azarr.types import JSON, Array


@dataclass(frozen=True, slots=True)
class Delta(NumpyFilter):
    """Differences of elements of ``dtype``, stored as ``astype``. Whole numbers wrap around, so that nothing is lost."""

    name: ClassVar[str] = "numcodecs.delta"
    dtype: str
    astype: str

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"dtype", "astype"}), frozenset({"dtype"}))
        dtype = parse_dtype(cls.name, configuration, "dtype")
        return cls(dtype, parse_dtype(cls.name, configuration, "astype", dtype))

    def configuration(self) -> dict[str, JSON]:
        return {"dtype": self.dtype, "astype": self.astype}

    @property
    def decoded_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.dtype).newbyteorder("=")

    @property
    def encoded_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.astype).newbyteorder("=")

    def apply(self, values: Array) -> Array:
        encoded = np.empty(values.shape, self.encoded_dtype)
        encoded[:1] = converted(values[:1], self.encoded_dtype)
        encoded[1:] = converted(np.diff(values), self.encoded_dtype)
        return encoded

    def restore(self, values: Array) -> Array:
        dtype = self.decoded_dtype
        if dtype.kind == "b":  # the difference of truth values is whether they differ
            restored: Array = np.logical_xor.accumulate(values)
            return restored
        return np.add.accumulate(converted(values, dtype), dtype=dtype)
