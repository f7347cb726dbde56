"""The ``bitround`` codec (zarr-extensions, "bitround") and ``numcodecs.bitround``: numbers with fewer significant bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self, cast

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, check_keys, integer
from azarr.errors import MetadataError
from azarr.types import JSON, Array, ChunkSpec

MANTISSA_BITS: Final[Mapping[str, int]] = {"float16": 10, "float32": 23, "float64": 52, "bfloat16": 7, "complex64": 23, "complex128": 52}
"""The stored bits of a mantissa, of each part for complex numbers."""


@dataclass(frozen=True, slots=True)
class BitRound(ArrayToArrayCodec):
    """Floating-point numbers with ``keepbits`` bits of their mantissa, whole numbers with so many from their highest one on.

    The rest is rounded to zero bits, half to even, which compresses well. Lossy; decoding changes nothing.
    """

    name: ClassVar[str] = "bitround"
    keepbits: int

    least: ClassVar[int] = 1

    def __post_init__(self) -> None:
        integer(self.name, {"keepbits": self.keepbits}, "keepbits", self.least, 2**31 - 1)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"keepbits"}), frozenset({"keepbits"}))
        return cls(cast("int", configuration["keepbits"]))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {"keepbits": self.keepbits}

    def bind(self, spec: ChunkSpec) -> Self:
        if spec.dtype.name not in MANTISSA_BITS and spec.dtype.kind not in "iu":
            raise MetadataError(f"codec {self.name!r} takes whole and floating-point numbers, not {spec.dtype}")
        return self

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        return spec

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        if spec.dtype.name not in MANTISSA_BITS:
            return round_whole(chunk, self.keepbits)
        dropped = MANTISSA_BITS[spec.dtype.name] - self.keepbits
        if dropped <= 0:
            return chunk
        parts = 2 if spec.dtype.kind == "c" else 1
        bits = np.ascontiguousarray(chunk).reshape(-1).view(np.dtype(f"u{spec.dtype.itemsize // parts}"))
        return round_bits(bits, dropped).view(spec.dtype).reshape(spec.shape)

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        del spec
        return chunk


class NumcodecsBitRound(BitRound):
    """``bitround`` under the name that numcodecs gives it, with ``keepbits`` from 0 on."""

    __slots__ = ()
    name: ClassVar[str] = "numcodecs.bitround"
    least: ClassVar[int] = 0

    def bind(self, spec: ChunkSpec) -> Self:
        if spec.dtype.kind != "f" and spec.dtype.name != "bfloat16":
            raise MetadataError(f"codec {self.name!r} takes floating-point numbers, not {spec.dtype}")
        return self


def round_bits(bits: Array, dropped: int) -> Array:
    """The bit patterns with their last ``dropped`` bits rounded away, half to even."""
    number = bits.dtype.type
    rounded: Array = bits + (((bits >> number(dropped)) & number(1)) + number((1 << (dropped - 1)) - 1))
    rounded &= ~number((1 << dropped) - 1)
    return rounded


def round_whole(values: Array, keepbits: int) -> Array:
    """Whole numbers rounded to ``keepbits`` bits from the highest one of their magnitude on; none becomes larger than there are."""
    bounds = np.iinfo(values.dtype)
    if keepbits >= 8 * values.dtype.itemsize:
        return values
    rounded: Array = np.array(values)
    for bits in range(keepbits + 1, 8 * values.dtype.itemsize + 1):
        step = 1 << (bits - keepbits)
        low, high = 1 << (bits - 1), min((1 << bits) - 1, int(bounds.max))
        if low > high:
            break
        for sign in (1, -1) if bounds.min < 0 else (1,):
            chosen = (values >= low) & (values <= high) if sign > 0 else (values <= -low) & (values >= -high)
            if chosen.any():
                rounded[chosen] = _nearest_even(values[chosen], step, bounds)
    return rounded


def _nearest_even(values: Array, step: int, bounds: np.iinfo[Any]) -> Array:
    number = values.dtype.type
    down = values - values % number(step)
    rest, odd = values - down, (down // number(step)) % number(2)
    up = (rest > step // 2) | ((rest == step // 2) & (odd == 1))
    rounded: Array = np.where(up & (down <= bounds.max - step), down + number(step), down)
    return rounded
