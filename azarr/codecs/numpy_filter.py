"""What the array filters of numcodecs have in common: data types in NumPy's words, which may differ before and after the filter."""

from __future__ import annotations

import re
import sys
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Self, cast

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, ChunkSpec

_DTYPE: Final = re.compile(r"[<|=]?(b1|[iu][1248]|f[248]|c(8|16)|bool|u?int(8|16|32|64)|float(16|32|64)|complex(64|128))")


class NumpyFilter(ArrayToArrayCodec):
    """A filter that turns elements of ``decoded_dtype`` into ``encoded_dtype``, both in native byte order.

    It works on the elements in C order, whatever the shape of the chunk. Where the elements before it are of another kind and
    the same size (a time, for instance, which is a whole number inside), it takes their bytes for its own kind.
    """

    @property
    @abstractmethod
    def decoded_dtype(self) -> np.dtype[Any]:
        """The data type that it is made for."""

    @property
    @abstractmethod
    def encoded_dtype(self) -> np.dtype[Any]:
        """The data type that it makes."""

    @abstractmethod
    def apply(self, values: Array) -> Array:
        """The encoded elements of a one-dimensional array."""

    @abstractmethod
    def restore(self, values: Array) -> Array:
        """The decoded elements of a one-dimensional array."""

    def bind(self, spec: ChunkSpec) -> Self:
        self.check(spec)
        return self

    def check(self, spec: ChunkSpec) -> None:
        """Raise ``MetadataError`` unless elements of ``spec`` can be taken for ``decoded_dtype``."""
        if spec.dtype.hasobject or spec.dtype.itemsize != self.decoded_dtype.itemsize:
            raise MetadataError(f"codec {self.name!r} is configured for {self.decoded_dtype}, and cannot encode {spec.dtype}")

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        return replace(spec, dtype=self.encoded_dtype, fill_value=converted_fill(spec.fill_value, self.encoded_dtype))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        values = np.ascontiguousarray(chunk, spec.dtype).reshape(-1).view(self.decoded_dtype)
        try:
            with np.errstate(all="ignore"):
                return self.apply(values).reshape(spec.shape)
        except OverflowError as error:  # a whole number in the configuration that elements of a whole type cannot take
            raise CodecError(f"cannot encode {spec.dtype} ({error}); change the configuration", codec=self.name) from error

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        values = np.ascontiguousarray(chunk, self.encoded_dtype).reshape(-1)
        with np.errstate(all="ignore"):
            restored = converted(self.restore(values), self.decoded_dtype)
        return np.ascontiguousarray(restored).view(spec.dtype).reshape(spec.shape)


def parse_dtype(codec: str, configuration: Mapping[str, JSON], key: str, default: str | None = None) -> str:
    """The data type at ``key`` as NumPy writes it in little-endian order, which stands for either order here.

    ``MetadataError`` for what is no number, and for big-endian: in v3 the byte order is that of the ``bytes`` codec.
    """
    document = configuration.get(key)
    if document is None and default is not None:
        return default
    if not isinstance(document, str) or not _DTYPE.fullmatch(document):
        raise MetadataError(f"codec {codec!r}: {key} must be a NumPy data type of numbers, such as '<f4', not {document!r:.100}")
    return np.dtype(document).newbyteorder("<").str


def number(codec: str, configuration: Mapping[str, JSON], key: str) -> int | float:
    """The finite number at ``key``; ``MetadataError`` for anything else."""
    value = configuration.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= sys.float_info.max:
        raise MetadataError(f"codec {codec!r}: {key} must be a number, not {value!r:.100}")
    return value


def converted(values: Array, dtype: np.dtype[Any]) -> Array:
    """``values`` as elements of ``dtype``, however far from it; of complex numbers that become real ones, the real part.

    NumPy does the same, and warns.
    """
    real = values.real if values.dtype.kind == "c" and dtype.kind != "c" else values
    return real.astype(dtype, copy=False)


def converted_fill(fill_value: np.generic, dtype: np.dtype[Any]) -> np.generic:
    """The fill value behind a filter: the same number where ``dtype`` has it, otherwise zero.

    It stands for parts of an encoded chunk that are not stored, as sharding leaves them out. The filters do not define what
    those are; others take the number as it is, too.
    """
    with np.errstate(all="ignore"):
        try:
            fill = converted(np.asarray(fill_value), dtype)
            same = bool(fill == fill_value) or bool(fill != fill)  # noqa: PLR0124 - NaN
        except (TypeError, ValueError):
            same = False
    return cast("np.generic", (fill if same else np.zeros((), dtype))[()])
