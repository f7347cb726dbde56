"""The ``numcodecs.bz2`` codec: bzip2, any number of streams in a row."""

from __future__ import annotations

import bz2
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, cast

from azarr.codecs.base import BytesToBytesCodec, check_keys, integer
from azarr.codecs.members import decode_members
from azarr.types import JSON, Bound, Buffer


@dataclass(frozen=True, slots=True)
class Bz2(BytesToBytesCodec):
    """Slow and small. ``level`` runs from 1 to 9: blocks of that many hundred kilobytes."""

    name: ClassVar[str] = "numcodecs.bz2"
    level: int = 1

    def __post_init__(self) -> None:
        integer(self.name, {"level": self.level}, "level", 1, 9)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"level"}))
        return cls(cast("int", configuration.get("level", 1)))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {"level": self.level}

    def encode(self, data: Buffer) -> Buffer:
        return bz2.compress(data, self.level)

    def decode(self, data: Buffer, limit: int) -> Buffer:
        return self.decode_within(data, Bound.fixed(limit))

    def decode_within(self, data: Buffer, bound: Bound) -> Buffer:
        return decode_members(self.name, data, bound, bz2.BZ2Decompressor, (OSError, ValueError))
