"""The ``snappy`` codec: one block of Snappy, which begins with its decoded size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from azarr.codecs.base import BytesToBytesCodec, Unconfigured, wrong_size
from azarr.codecs.damage import damaged
from azarr.errors import CodecError
from azarr.types import Bound, Buffer

MAX_NBYTES = 2**32 - 1
"""The most that one block can hold."""


@cache
def _library() -> tuple[Callable[[Buffer], bytes], Callable[[Buffer], bytes], type[Exception]]:
    """What compresses, what decompresses and what the latter raises, imported by whoever first needs it."""
    import snappy  # noqa: PLC0415  # takes 15 ms

    return snappy.compress, snappy.uncompress, snappy.UncompressError


@dataclass(frozen=True, slots=True)
class Snappy(Unconfigured, BytesToBytesCodec):
    """Fast compression without a setting; no checksum."""

    name: ClassVar[str] = "snappy"

    def encode(self, data: Buffer) -> Buffer:
        if len(data) > MAX_NBYTES:
            message = f"cannot compress {len(data)} bytes, more than the {MAX_NBYTES} of one Snappy block; use smaller chunks"
            raise CodecError(message, codec=self.name)
        return _library()[0](data)

    def narrowed(self, bound: Bound) -> Bound:
        # 21 bytes for one are the most that Snappy reaches, where others reach hundreds
        return bound._replace(expansion=bound.expansion // 10)

    def stated_size(self, data: Buffer) -> int:
        return decoded_size(self.name, data)

    def decode(self, data: Buffer, limit: int) -> Buffer:
        size = decoded_size(self.name, data)
        if size > limit:
            raise wrong_size(self.name, size, limit)
        return uncompress(self.name, data, size)


def decoded_size(codec: str, data: Buffer) -> int:
    """What a block says of its decoded size; the library allocates that much."""
    size = 0
    for position, byte in enumerate(bytes(memoryview(data)[:5])):
        size |= (byte & 0x7F) << 7 * position
        if not byte & 0x80:
            break
    else:
        size = MAX_NBYTES + 1
    if size > MAX_NBYTES:
        raise damaged(codec, f"{len(data)} bytes that do not start with the size of a Snappy block")
    return size


def uncompress(codec: str, data: Buffer, size: int) -> bytes:
    """The ``size`` bytes in a block; ``CodecError`` where they are damaged."""
    _, decompress, error_type = _library()
    try:
        decoded = decompress(data)
    except error_type as error:
        raise damaged(codec, f"cannot decompress ({error.__cause__ or error})") from error
    if len(decoded) != size:
        raise damaged(codec, f"decodes to {len(decoded)} bytes where its own header says {size}")
    return decoded
