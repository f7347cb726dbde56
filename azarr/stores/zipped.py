"""A store in a zip archive that is itself a value of another store: one on a server, say, of which only the needed parts are fetched."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Hashable
from typing import Any, NamedTuple

from azarr.errors import StoreError, TransientStoreError
from azarr.stores.base import ListableStore, ReadableStore, Request, Stamped, StampingStore, check_key, stamped
from azarr.stores.files import span
from azarr.stores.sorted_keys import keys_below, listing_below
from azarr.stores.zip_directory import DIRECTORY_NBYTES, STORED, TAIL, End, Entry, entries_of, find_end, parse_directory
from azarr.stores.zip_entries import VALUE_NBYTES, check_readable, damaged, decoded, value_offset
from azarr.stores.zip_records import HEADER
from azarr.types import Buffer, ByteRange, Listing, Suffix

PREPENDED_NBYTES = 2**20
"""How much may stand before an archive in its file, such as the program of one that unpacks itself."""

AT_ONCE = 32 * 2**10
"""Values of so many bytes are decompressed and checked on the loop, which takes less time than going to a thread."""

SLACK = 64
"""More bytes of a header than the directory lets expect, fetched so that one request is enough."""


class Contents(NamedTuple):
    """The values of an archive, their keys in order, and the stamp of the archive that they were read of."""

    entries: dict[str, Entry]
    keys: list[str]
    stamp: Hashable | None


class ZippedStore(ReadableStore, ListableStore, StampingStore):
    """The values of the zip archive that is the value at ``key`` of ``store``, for reading.

    The directory of the archive is fetched once, with one request for a small archive and two for a large one, by whoever first needs
    it, and kept. After that a value costs one request, and so does a part of one; the first part of each value that is stored
    uncompressed costs two unless it lies at the beginning. Of a deflated value all is fetched, and decompressed up to the end of the part.

    Where the archive is replaced meanwhile, ``StoreError`` is raised; stores that do not tell which value a part is of find that out by
    the checksums of whole values alone.

    ``directory_nbytes`` and ``value_nbytes`` are limits as of ``ZipStore``. ``aclose`` also closes ``store`` where that is owned.
    """

    def __init__(
        self,
        store: ReadableStore,
        key: str,
        *,
        directory_nbytes: int = DIRECTORY_NBYTES,
        value_nbytes: int = VALUE_NBYTES,
        owned: bool = False,
    ) -> None:
        self._store, self._key = store, check_key(key)
        self._directory_nbytes, self._value_nbytes = directory_nbytes, value_nbytes
        self._owned = owned
        self._contents: Contents | None = None
        self._begins: dict[str, int] = {}
        self._turns: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = weakref.WeakKeyDictionary()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r}, {self._key!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _remade, (self._store, self._key, self._directory_nbytes, self._value_nbytes, self._owned)

    async def aclose(self) -> None:
        """Close the store around the archive, if this one owns it."""
        close = getattr(self._store, "aclose", None)
        if self._owned and close is not None:
            await close()

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return (await self.get_stamped(key, byte_range)).value

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        contents = self._contents or await self._opened()
        entry = contents.entries.get(check_key(key))
        if entry is None:
            return Stamped(None)
        check_readable(key, entry, self._value_nbytes)
        start, nbytes = span(byte_range, entry.size)
        if entry.method == STORED and nbytes < entry.size:
            value: Buffer = await self._stored(key, entry, start, start + nbytes)
        else:
            data = await self._stored(key, entry, 0, entry.nbytes)
            at_once = entry.size <= AT_ONCE
            value = decoded(key, entry, data, byte_range) if at_once else await asyncio.to_thread(decoded, key, entry, data, byte_range)
        return Stamped(value, None if contents.stamp is None else (contents.stamp, entry.offset))

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        for key in keys_below((self._contents or await self._opened()).keys, prefix):
            yield key

    async def list_dir(self, prefix: str = "") -> Listing:
        return listing_below((self._contents or await self._opened()).keys, prefix)

    async def _stored(self, key: str, entry: Entry, start: int, stop: int) -> memoryview:
        """The bytes ``start`` up to ``stop`` of what is stored of a value."""
        begin = self._begins.get(key)
        if begin is None:
            # of what stands before the value only the header knows how long it is
            expected = HEADER.size + len(key.encode()) + SLACK
            near = start <= TAIL
            head = await self._fetch(key, entry.offset, entry.offset + (expected + stop if near else HEADER.size))
            begin = value_offset(key, entry, head)
            self._begins[key] = begin
            if near and len(head) >= begin + stop:
                return memoryview(head)[begin + start : begin + stop]
        data = await self._fetch(key, entry.offset + begin + start, entry.offset + begin + stop)
        if len(data) != stop - start:
            raise damaged(key, "its file ends before it")
        return memoryview(data)

    async def _fetch(self, key: str, start: int, stop: int) -> Buffer:
        if start == stop:
            return b""
        data, stamp = await stamped(self._store, self._key, ByteRange(start, stop))
        if data is None:
            raise damaged(key, "the archive is gone")
        expected = None if self._contents is None else self._contents.stamp
        if stamp != expected and stamp is not None and expected is not None:
            raise damaged(key, "its directory is of another archive; open it again")
        return data

    async def _opened(self) -> Contents:
        """The contents, fetched by whoever first needs them; tasks of one loop wait for the first of them."""
        turn = self._turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        async with turn:
            if self._contents is None:
                try:
                    self._contents = await self._open()
                except StoreError as error:
                    if type(error) is not StoreError or error.key is not None:
                        raise
                    raise StoreError(f"{self._key!r}: {error}", key=self._key) from error
            return self._contents

    async def _open(self) -> Contents:
        tail, stamp = await stamped(self._store, self._key, Suffix(TAIL))
        if tail is None:
            raise StoreError(f"there is no zip archive at {self._key!r} in {self._store!r}", key=self._key)
        data, end, begin, directory = bytes(tail), find_end(bytes(tail), self._directory_nbytes), 0, 0
        if len(data) == TAIL:  # nobody has said how long the file is: what follows from where the directory should be tells that
            stop = end.offset + end.nbytes + end.after + PREPENDED_NBYTES
            rest, again = await stamped(self._store, self._key, ByteRange(end.offset, stop))
            if again != stamp:
                raise TransientStoreError(f"{self._key!r} was replaced while its directory was read: read it again", key=self._key)
            data = bytes(rest or b"")
            if len(data) >= stop - end.offset:
                raise StoreError(f"more than {PREPENDED_NBYTES} bytes stand before the zip archive in its file")
            begin = len(data) - end.nbytes - end.after
            directory = end.offset + begin
            data = data[max(begin, 0) : len(data) - end.after]
        else:
            directory = len(data) - end.nbytes - end.after
            begin = directory - end.offset
            data = data[max(directory, 0) : len(data) - end.after]
        if begin < 0:
            raise StoreError("the directory of the zip archive does not fit into its file")
        return await asyncio.to_thread(_parsed, data, end, begin, directory, stamp)


def _parsed(data: bytes, end: End, begin: int, directory: int, stamp: Hashable | None) -> Contents:
    entries = entries_of(parse_directory(data, end, begin), directory)
    return Contents(entries, sorted(entries), stamp)


def _remade(store: ReadableStore, key: str, directory_nbytes: int, value_nbytes: int, owned: bool) -> ZippedStore:  # noqa: FBT001 - internal
    return ZippedStore(store, key, directory_nbytes=directory_nbytes, value_nbytes=value_nbytes, owned=owned)
