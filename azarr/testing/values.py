"""The keys and values that stores are tested with."""

# ruff: noqa: S101 - asserting is what a suite is for

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from azarr.stores.base import Request, Store
from azarr.types import Buffer, ByteRange, Suffix

ILLEGAL_KEYS = ["", "/", "/abs", "a/", "a//b", ".", "..", "../x", "a/..", "a/../b", "a/./b", "a\\b", "..\\x", "a\0b"]
ILLEGAL_PREFIXES = ["/", "a", "/abs/", "a//", "../", "a/../", "a/../b/", "./", "a\\b/", "a\0b/"]
UNICODE_KEYS = ["温度/c/0", "αβγ", "🌊/🌍", "with space", "50%", "%35%30", "a#b?c=d&e", "a+b", "...", "a..b", ".hidden", "a:b", "~"]

VALUE = bytes(range(256))
PARTS: list[tuple[Request, bytes]] = [
    (None, VALUE),
    (ByteRange(0), VALUE),
    (ByteRange(0, 256), VALUE),
    (ByteRange(3, 7), VALUE[3:7]),
    (ByteRange(200), VALUE[200:]),
    (ByteRange(5, 5), b""),
    (ByteRange(250, 1000), VALUE[250:]),
    (ByteRange(256), b""),
    (ByteRange(256, 300), b""),
    (ByteRange(1000), b""),
    (ByteRange(1000, 2000), b""),
    (Suffix(16), VALUE[-16:]),
    (Suffix(256), VALUE),
    (Suffix(1000), VALUE),
    (Suffix(0), b""),
]


def changing(expected: bytes | None, new: bytes | None) -> Callable[[Buffer | None], Buffer | None]:
    """A function for ``update_blocking`` that makes ``new`` of what it expects."""

    def change(old: Buffer | None) -> Buffer | None:
        assert (None if old is None else bytes(old)) == expected
        return new

    return change


async def read(store: Any, key: str, byte_range: Request = None) -> bytes:
    """The value, which has to be there, as plain bytes."""
    value = await store.get(key, byte_range)
    assert value is not None, f"{key!r} is missing"
    return bytes(value)


async def fill(store: Store, keys: Iterable[str]) -> None:
    """Store each key's own name there."""
    for key in keys:
        await store.set(key, key.encode())


async def collect(keys: AsyncIterator[str]) -> list[str]:
    """All of them, sorted; a duplicate would show."""
    return sorted([key async for key in keys])
