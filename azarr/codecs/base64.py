"""The ``numcodecs.base64`` codec: bytes as text (RFC 4648, the standard alphabet, with padding)."""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from typing import ClassVar

from azarr.codecs.base import BytesToBytesCodec, Unconfigured, wrong_size
from azarr.codecs.damage import damaged
from azarr.types import Buffer


@dataclass(frozen=True, slots=True)
class Base64(Unconfigured, BytesToBytesCodec):
    """A third larger, for stores that take text only."""

    name: ClassVar[str] = "numcodecs.base64"

    @property
    def releases_gil(self) -> bool:
        return False

    def encode(self, data: Buffer) -> Buffer:
        return binascii.b2a_base64(data, newline=False)

    def decode(self, data: Buffer, limit: int) -> Buffer:
        least = len(data) // 4 * 3 - 2
        if least > limit:
            raise wrong_size(self.name, least, limit)
        try:
            decoded = binascii.a2b_base64(data, strict_mode=True)
        except binascii.Error as error:
            raise damaged(self.name, f"cannot decode ({error})") from error
        if len(decoded) > limit:
            raise wrong_size(self.name, len(decoded), limit)
        return decoded

    def encoded_size(self, nbytes: int) -> int | None:
        return (nbytes + 2) // 3 * 4
