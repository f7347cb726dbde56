"""The ``crc32c`` codec (Zarr v3 codecs, "crc32c"): the bytes, then their CRC-32C (RFC 3720) in four bytes, little endian."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from azarr.codecs.base import BytesToBytesCodec, Unconfigured, wrong_size
from azarr.codecs.damage import damaged
from azarr.errors import ChecksumError
from azarr.types import Buffer


@cache
def _checksum() -> Callable[[Buffer], int]:
    """The checksum function, imported by whoever first needs it: it takes 40 ms, nearly all for the package to read its own version."""
    from crc32c import crc32c  # noqa: PLC0415  # see above

    return crc32c


@dataclass(frozen=True, slots=True)
class Crc32c(Unconfigured, BytesToBytesCodec):
    """A checksum that finds out whether the bytes changed since they were written."""

    name: ClassVar[str] = "crc32c"

    def encode(self, data: Buffer) -> Buffer:
        return b"".join((data, _checksum()(data).to_bytes(4, "little")))

    def decode(self, data: Buffer, limit: int) -> Buffer:
        """The bytes before the checksum, a view of ``data``."""
        view = memoryview(data)
        if len(view) < 4:
            raise damaged(self.name, f"{len(view)} bytes cannot hold a checksum")
        payload = view[:-4]
        if len(payload) > limit:
            raise wrong_size(self.name, len(payload), limit)
        stored, actual = int.from_bytes(view[-4:], "little"), _checksum()(payload)
        if stored != actual:
            raise damaged(self.name, f"the checksum is {actual:08x} where {stored:08x} is stored", ChecksumError)
        return payload

    def encoded_size(self, nbytes: int) -> int | None:
        return nbytes + 4
