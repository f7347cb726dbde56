"""The ``numcodecs.zlib`` codec: one zlib stream (RFC 1950)."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, cast

from azarr.codecs.base import BytesToBytesCodec, check_keys, integer, wrong_size
from azarr.codecs.damage import damaged
from azarr.types import JSON, Buffer


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
        stream = zlib.decompressobj()
        try:
            decoded = stream.decompress(data, limit + 1)
        except zlib.error as error:
            raise damaged(self.name, f"cannot decompress ({error})") from error
        if len(decoded) > limit:
            raise wrong_size(self.name, len(decoded), limit)
        if not stream.eof:
            raise damaged(self.name, "the bytes end too early")
        if stream.unused_data:
            raise damaged(self.name, f"{len(stream.unused_data)} bytes follow the end of the stream")
        return decoded
