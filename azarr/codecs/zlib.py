"""The ``numcodecs.zlib`` codec: one zlib stream (RFC 1950)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, cast

from azarr.codecs.base import BytesToBytesCodec, check_keys, integer
from azarr.codecs.members import decode_members
from azarr.types import JSON, Bound, Buffer


@dataclass(frozen=True, slots=True)
class Zlib(BytesToBytesCodec):
    """Deflate with a short checksum. ``level`` runs from 0 (stored) to 9 (small), -1 is the library's default."""

    name: ClassVar[str] = "numcodecs.zlib"
    level: int = 1

    def __post_init__(self) -> None:
        integer(self.name, {"level": self.level}, "level", -1, 9)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"level"}))
        return cls(cast("int", configuration.get("level", 1)))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {"level": self.level}

    def encode(self, data: Buffer) -> Buffer:
        return zlib.compress(data, self.level)

    def decode(self, data: Buffer, limit: int) -> Buffer:
        return self.decode_within(data, Bound.fixed(limit))

    def decode_within(self, data: Buffer, bound: Bound) -> Buffer:
        return decode_members(self.name, data, bound, zlib.decompressobj, (zlib.error,), several=False)
