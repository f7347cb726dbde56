"""The ``numcodecs.astype`` codec: elements stored as another data type, converted as NumPy does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from azarr.codecs.base import check_keys
from azarr.codecs.numpy_filter import NumpyFilter, converted, parse_dtype
from azarr.errors import MetadataError
from azarr.types import JSON, Array, ChunkSpec


@dataclass(frozen=True, slots=True)
class AsType(NumpyFilter):
    """Elements of ``decode_dtype`` stored as ``encode_dtype``; the former becomes the array's own once the codec is bound."""

    name: ClassVar[str] = "numcodecs.astype"
    encode_dtype: str
    decode_dtype: str | None = None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"encode_dtype", "decode_dtype"}), frozenset({"encode_dtype"}))
        decode_dtype = None if configuration.get("decode_dtype") is None else parse_dtype(cls.name, configuration, "decode_dtype")
        return cls(parse_dtype(cls.name, configuration, "encode_dtype"), decode_dtype)

    def configuration(self) -> dict[str, JSON]:
        decoded = {} if self.decode_dtype is None else {"decode_dtype": self.decode_dtype}
        return {"encode_dtype": self.encode_dtype, **decoded}

    def bind(self, spec: ChunkSpec) -> Self:
        if self.decode_dtype is not None:
            self.check(spec)
            return self
        if spec.dtype.kind not in "biufc":
            raise MetadataError(f"codec {self.name!r} takes numbers, not {spec.dtype}")
        return replace(self, decode_dtype=spec.dtype.newbyteorder("<").str)

    @property
    def decoded_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.decode_dtype or self.encode_dtype).newbyteorder("=")

    @property
    def encoded_dtype(self) -> np.dtype[Any]:
        return np.dtype(self.encode_dtype).newbyteorder("=")

    def apply(self, values: Array) -> Array:
        return converted(values, self.encoded_dtype)

    def restore(self, values: Array) -> Array:
        return converted(values, self.decoded_dtype)
