"""The ``numcodecs.lz4`` codec: the decoded size (32 bits, little endian), then one LZ4 block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, cast

from lz4 import block

from azarr.codecs.base import BytesToBytesCodec, check_keys, integer, wrong_size
from azarr.codecs.damage import damaged
from azarr.errors import CodecError
from azarr.types import JSON, Buffer

MAX_NBYTES = 0x7E000000
"""The most that one LZ4 block can hold."""


@dataclass(frozen=True, slots=True)
class Lz4(BytesToBytesCodec):
    """Fast compression, faster decompression. A higher ``acceleration`` compresses faster and less; below 1 means 1."""

    name: ClassVar[str] = "numcodecs.lz4"
    acceleration: int = 1

    def __post_init__(self) -> None:
        integer(self.name, {"acceleration": self.acceleration}, "acceleration", -(2**31), 2**31 - 1)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"acceleration"}))
        return cls(cast("int", configuration.get("acceleration", 1)))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {"acceleration": self.acceleration}

    def encode(self, data: Buffer) -> Buffer:
        if len(data) > MAX_NBYTES:
            message = f"cannot compress {len(data)} bytes, more than the {MAX_NBYTES} of one LZ4 block; use smaller chunks"
            raise CodecError(message, codec=self.name)
        return cast("bytes", block.compress(data, mode="fast", acceleration=max(self.acceleration, 1), store_size=True))

    def stated_size(self, data: Buffer) -> int:
        size = int.from_bytes(memoryview(data)[:4], "little")
        if len(data) < 5 or size > MAX_NBYTES:
            raise damaged(self.name, f"{len(data)} bytes that do not start with the size of an LZ4 block")
        return size

    def decode(self, data: Buffer, limit: int) -> Buffer:
        size = self.stated_size(data)
        if size > limit:
            raise wrong_size(self.name, size, limit)
        try:
            decoded = cast("bytes", block.decompress(memoryview(data)[4:], uncompressed_size=size))
        except block.LZ4BlockError as error:
            raise damaged(self.name, f"cannot decompress ({error})") from error
        if len(decoded) != size:
            raise damaged(self.name, f"decodes to {len(decoded)} bytes where its own header says {size}")
        return decoded
