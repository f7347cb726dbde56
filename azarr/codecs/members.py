"""Bounded decoding of the streams that gzip, zlib and bzip2 write: one compressed member, or several in a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from azarr.codecs.base import wrong_size
from azarr.codecs.damage import damaged
from azarr.types import Buffer

WINDOW_NBYTES = 4096
"""How much a decoder is fed at a time after the first member: it copies what lies behind its member, so with everything
at once a value of many tiny members would cost quadratic time."""


class Decoder(Protocol):
    """What ``zlib.decompressobj`` and ``bz2.BZ2Decompressor`` have in common."""

    @property
    def eof(self) -> bool:
        """Whether the member is complete."""

    @property
    def unused_data(self) -> bytes:
        """What was fed beyond the end of the member."""

    def decompress(self, data: Buffer, max_length: int, /) -> bytes:
        """The next decoded bytes, fewer than ``max_length`` only where ``data`` is used up."""


def decode_members(codec: str, data: Buffer, limit: int, decoder: Callable[[], Decoder], errors: tuple[type[Exception], ...]) -> bytes:
    """The decoded bytes of all members, ``limit`` at most; ``CodecError`` where there are more, or where ``errors`` occur.

    Zeros behind the last member are skipped, as writers to tape pad with them.
    """
    view = memoryview(data)
    parts: list[bytes] = []
    total = position = 0
    window = len(view)
    while position < len(view) or not parts:
        member = decoder()
        while not member.eof:
            if position == len(view):
                raise damaged(codec, "the bytes end too early")
            fed = view[position : position + window]
            try:
                part = member.decompress(fed, limit - total + 1)
            except errors as error:
                raise damaged(codec, f"cannot decompress ({error})") from error
            total += len(part)
            if total > limit:
                raise wrong_size(codec, total, limit)
            parts.append(part)
            position += len(fed) - len(member.unused_data)
        if position < len(view) and not view[position] and not any(view[position:]):
            break
        window = WINDOW_NBYTES
    return b"".join(parts)
