"""Bounded decoding of the streams that gzip, zlib and bzip2 write: one compressed member, or several in a row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from azarr.codecs.base import too_large
from azarr.codecs.damage import damaged
from azarr.types import Bound, Buffer

WINDOW_NBYTES = 4096
"""How much a decoder is fed at a time, where what it has been fed bounds what it may answer, and after the first member: it copies
what lies behind its member, so with everything at once a value of many tiny members would cost quadratic time."""


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


def decode_members(
    codec: str, data: Buffer, bound: Bound, decoder: Callable[[], Decoder], errors: tuple[type[Exception], ...], *, several: bool = True
) -> Buffer:
    """The decoded bytes of all members; ``CodecError`` where there are more than ``bound`` allows, or where ``errors`` occur.

    Zeros behind the last member are skipped, as writers to tape pad with them. Where there must not be ``several`` members, nothing
    may follow the first.
    """
    view = memoryview(data)
    parts: list[bytes] = []
    total = position = 0
    window = WINDOW_NBYTES if bound.expansion else len(view)
    while position < len(view) or not parts:
        try:
            member = decoder()
            while not member.eof:
                if position == len(view):
                    raise damaged(codec, "the bytes end too early")
                fed = view[position : position + window]
                limit = bound.after(position + len(fed))
                parts.append(member.decompress(fed, limit - total + 1))
                total += len(parts[-1])
                if total > limit:
                    raise too_large(codec, bound, position + len(fed))
                position += len(fed) - len(member.unused_data)
        except errors as error:
            raise damaged(codec, f"cannot decompress ({error})") from error
        if not several and position < len(view):
            raise damaged(codec, f"{len(view) - position} bytes follow the end of the stream")
        if position < len(view) and not view[position] and not any(view[position:]):
            break
        window = WINDOW_NBYTES
    return b"".join(parts)
