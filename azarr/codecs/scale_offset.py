"""The ``scale_offset`` codec (zarr-extensions, "scale_offset"): numbers less an offset, times a scale."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, check_keys
from azarr.codecs.number_formats import WholeFormat, number_format
from azarr.data_types import data_type_for
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, ChunkSpec


@dataclass(frozen=True, slots=True)
class ScaleOffset(ArrayToArrayCodec):
    """``(x - offset) * scale`` in the data type of the array; both are written as its fill values are.

    Whole numbers are never changed silently: one that does not fit, or that the scale does not divide, is a ``CodecError``.
    """

    name: ClassVar[str] = "scale_offset"
    offset: int | float | str | None = None
    scale: int | float | str | None = None

    def __post_init__(self) -> None:
        for key, value in (("offset", self.offset), ("scale", self.scale)):
            if isinstance(value, bool) or not isinstance(value, int | float | str | None):
                raise MetadataError(f"codec 'scale_offset': {key} must be a number, not {value!r:.100}")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        check_keys(cls.name, configuration, frozenset({"offset", "scale"}))
        if None in configuration.values():
            raise MetadataError("codec 'scale_offset': offset and scale must not be null")
        return cls(**configuration)

    def configuration(self) -> dict[str, JSON]:
        both = {"offset": self.offset, "scale": self.scale}
        return {key: value for key, value in both.items() if value is not None}

    def bind(self, spec: ChunkSpec) -> Self:
        self.resolve(spec)
        return self

    def _numbers(self, spec: ChunkSpec) -> tuple[np.generic | None, np.generic | None]:
        """Offset and scale in the data type of ``spec``."""
        number_format("codec 'scale_offset'", spec.dtype)
        data_type = data_type_for(spec.dtype)
        try:
            offset = None if self.offset is None else data_type.parse_fill_value(self.offset)
            scale = None if self.scale is None else data_type.parse_fill_value(self.scale)
        except MetadataError as error:
            raise MetadataError(f"codec 'scale_offset': {error}") from None
        if scale is not None and scale == 0:
            raise MetadataError("codec 'scale_offset': scale must not be 0")
        return offset, scale

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        fill = np.full(1, spec.fill_value, spec.dtype)
        try:
            encoded = self.encode(fill, spec)
        except CodecError as error:
            raise MetadataError(f"codec 'scale_offset': the fill value {spec.fill_value} cannot be encoded: {error}") from None
        return replace(spec, fill_value=encoded[0])

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        offset, scale = self._numbers(spec)
        with np.errstate(all="ignore"):
            if isinstance(whole := number_format("", spec.dtype), WholeFormat):
                values = _wide(chunk, whole)
                if offset is not None:
                    values = _step(values, whole, operator.sub, int(offset))
                if scale is not None:
                    values = _step(values, whole, operator.mul, int(scale))
                return values.astype(spec.dtype, copy=False)
            chunk = chunk if offset is None else chunk - offset
            return chunk if scale is None else chunk * scale

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        offset, scale = self._numbers(spec)
        with np.errstate(all="ignore"):
            if isinstance(whole := number_format("", spec.dtype), WholeFormat):
                values = _wide(chunk, whole)
                if scale is not None:
                    if (values % int(scale)).any():
                        raise CodecError(f"there are numbers that the scale {scale} does not divide; the chunk is damaged", codec=self.name)
                    values = _step(values, whole, operator.floordiv, int(scale))
                if offset is not None:
                    values = _step(values, whole, operator.add, int(offset))
                return values.astype(spec.dtype, copy=False)
            chunk = chunk if scale is None else chunk / scale
            return chunk if offset is None else chunk + offset


def _wide(chunk: Array, whole: WholeFormat) -> Array:
    """The elements in a data type that NumPy itself computes with."""
    return chunk.astype(np.int8) if whole.bits < 8 else chunk


def _step(values: Array, whole: WholeFormat, step: Callable[[Any, int], Any], by: int) -> Array:
    """Each value after ``step``, which preserves or reverses their order; ``CodecError`` where one is out of range then."""
    if not values.size:
        return values
    for value in (step(int(values.min()), by), step(int(values.max()), by)):
        if not whole.lowest <= value <= whole.highest:
            message = f"{value} comes out, which {whole.dtype} cannot hold; choose another scale or offset"
            raise CodecError(message, codec=ScaleOffset.name)
    stepped: Array = step(values, by)
    return stepped
