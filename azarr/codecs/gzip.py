"""The ``gzip`` codec (Zarr v3 codecs, "gzip"): RFC 1952, any number of members."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Self, cast

from azarr.codecs.base import BytesToBytesCodec, check_keys, integer
from azarr.codecs.members import decode_members
from azarr.types import JSON, Bound, Buffer

WBITS = 16 + zlib.MAX_WBITS
"""zlib's way to ask for a gzip header and trailer; it leaves the time of writing out, so equal chunks become equal bytes."""

_decoder = partial(zlib.decompressobj, WBITS)


@dataclass(frozen=True, slots=True)
class Gzip(BytesToBytesCodec):
    """Deflate with a checksum. ``level`` runs from 0 (stored) to 9 (small)."""

    name: ClassVar[str] = "gzip"
    level: int = 5

    def __post_init__(self) -> None:
        integer(self.name, {"level": self.level}, "level", 0, 9)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"level"}), frozenset({"level"}))
        return cls(cast("int", configuration["level"]))  # checked by __post_init__

    @classmethod
    def from_numcodecs(cls, configuration: Mapping[str, JSON]) -> Self:
        return cls.from_configuration({"level": 1, **configuration})

    def configuration(self) -> dict[str, JSON]:
        return {"level": self.level}

    def encode(self, data: Buffer) -> Buffer:
        return zlib.compress(data, self.level, WBITS)

    def decode(self, data: Buffer, limit: int) -> Buffer:
        return self.decode_within(data, Bound.fixed(limit))

    def decode_within(self, data: Buffer, bound: Bound) -> Buffer:
        return decode_members(self.name, data, bound, _decoder, (zlib.error,))
