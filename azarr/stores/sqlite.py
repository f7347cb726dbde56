"""A store in one SQLite database."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
from bisect import bisect_left
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any, Self, get_args
from urllib.parse import unquote, urlsplit

from azarr.errors import PreconditionFailedError, StoreError
from azarr.stores.base import (
    ConditionalStore,
    Request,
    Reserve,
    Stamped,
    Version,
    Versioned,
    check_key,
    check_prefix,
)
from azarr.stores.files import as_row, span
from azarr.stores.local import Durability
from azarr.stores.sorted_keys import after
from azarr.stores.sqlite_connections import Connections, Database
from azarr.stores.threads import ThreadedStore, to_its_end
from azarr.types import Buffer, Listing

VALUE_NBYTES = 10**9
"""What a value may take with its key; SQLite takes no more."""

TIMEOUT = 30.0
"""Seconds that a write waits for those of other processes."""

LAST = "\U0010ffff\U0010ffff"
"""Behind every key."""

_BATCH = 1000
"""Keys that a listing fetches at once."""


class SQLiteStore(ThreadedStore, ConditionalStore):
    """A store in the SQLite database at ``path``: one file for everything, which the first write makes.

    Each write is a transaction: others see the old value or the new one, and so it is after a crash. ``durability`` says what a
    finished write survives, as for ``LocalStore``. Writers wait for each other, for up to ``timeout`` seconds, in all processes;
    conditional writes lose nothing. Many small values cost less than as many files.

    A new database has a write-ahead log (``wal``), with which readers never wait for writers. While it is open there are
    two more files beside it, ``-wal`` and ``-shm``, and no process on another machine may use it: for folders that several machines share
    take ``wal=False``. Databases that are there keep what they were made with.

    The table is that of zarr-python 2, which can read and write the database as well. A database with other tables is refused.
    What is erased leaves room for what comes later; ``VACUUM`` gives it back to the system. A value has 1,000,000,000 bytes at most,
    ``value_nbytes`` may be less.

    Connections are opened as threads need them, and closed by ``aclose``, ``async with`` or when the store is thrown away.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        read_only: bool = False,
        durability: Durability = "file",
        wal: bool = True,
        timeout: float = TIMEOUT,
        value_nbytes: int = VALUE_NBYTES,
    ) -> None:
        if durability not in get_args(Durability):
            raise ValueError(f"durability must be one of {', '.join(get_args(Durability))}, not {durability!r}")
        self._database = Database(os.path.abspath(os.path.expanduser(path)), read_only, durability, wal, timeout, value_nbytes)
        self._connections = Connections(self._database)

    @property
    def path(self) -> str:
        """Where the database is, as an absolute path."""
        return self._database.path

    @property
    def read_only(self) -> bool:
        """Whether writing is refused."""
        return self._database.read_only

    @property
    def conditional(self) -> bool:
        return not self.read_only

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for two stores in the same database, whatever links lead to it."""
        return "sqlite", os.path.realpath(self.path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.path!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SQLiteStore) and type(other) is type(self) and other._database == self._database

    def __hash__(self) -> int:
        return hash((type(self), self._database))

    def __getstate__(self) -> dict[str, Any]:
        return {"_database": self._database}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._database = state["_database"]
        self._connections = Connections(self._database)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the database; fine where that has been done."""
        await to_its_end(self._connections.close)

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        return await asyncio.to_thread(self._read, key, byte_range)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        await to_its_end(self._set_if, key, value, version)

    async def erase_if(self, key: str, version: Version) -> None:
        await to_its_end(self._erase_if, key, version)

    async def erase_prefix(self, prefix: str) -> None:
        await to_its_end(self._erase_prefix, prefix)

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        start, stop = bounds(prefix)
        while batch := await asyncio.to_thread(self._keys, start, stop):
            for key in batch:
                yield key
            if len(batch) < _BATCH:
                return
            start = batch[-1] + "\0"

    async def list_dir(self, prefix: str = "") -> Listing:
        return await asyncio.to_thread(self._list_folder, prefix)

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        del reserve  # SQLite has memory of its own
        return self._read(key, byte_range).value

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        del reserve
        return Stamped(*self._read(key, byte_range))

    def _read(self, key: str, byte_range: Request = None) -> Versioned:
        check_key(key)
        with self._connections.use("read", key) as connection:
            if connection is None:
                return Versioned(None, None)
            if byte_range is not None:
                return read_part(connection, key, byte_range)
            row = connection.execute("SELECT v, rowid FROM zarr WHERE k = ?", (key,)).fetchone()
        if row is None:
            return Versioned(None, None)
        if not isinstance(row[0], bytes):
            raise no_bytes(key)
        return Versioned(*row)

    def get_into(self, key: str, out: memoryview) -> int | None:
        check_key(key)
        with self._connections.use("read", key) as connection:
            query = "SELECT typeof(v), length(v), CASE WHEN length(v) <= ? THEN v END FROM zarr WHERE k = ?"
            row = None if connection is None else connection.execute(query, (len(out), key)).fetchone()
        if row is None:
            return None
        size = expect_size(key, row[0], row[1])
        if size > len(out):
            return len(out) + 1
        out[:size] = row[2]
        return size

    def set_blocking(self, key: str, value: Buffer) -> None:
        replace = "INSERT INTO zarr(rowid, k, v) VALUES (?, ?, ?) ON CONFLICT(k) DO UPDATE SET rowid = excluded.rowid, v = excluded.v"
        self._write("write", key, replace, (new_version(), check_key(key), as_row(value)))

    def erase_blocking(self, key: str) -> None:
        self._write("erase", key, "DELETE FROM zarr WHERE k = ?", (check_key(key),), create=False)

    def update_blocking(self, key: str, change: Callable[[Buffer | None], Buffer | None]) -> None:
        # nothing is locked while ``change`` works: it is done again where another process was faster
        while True:
            old, version = self._read(key)
            new = change(old)
            with suppress(PreconditionFailedError):
                if new is not None:
                    return self._set_if(key, new, version)
                return None if version is None else self._erase_if(key, version)

    def _set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        check_key(key)
        if version is None:
            create = "INSERT INTO zarr(rowid, k, v) VALUES (?, ?, ?) ON CONFLICT(k) DO NOTHING"
            done = self._write("write", key, create, (new_version(), key, as_row(value)))
        else:
            replace = "UPDATE zarr SET rowid = ?, v = ? WHERE k = ? AND rowid = ?"
            done = self._write("write", key, replace, (new_version(), as_row(value), key, as_version(version)), create=False)
        expect_changed(key, done)

    def _erase_if(self, key: str, version: Version) -> None:
        erase = "DELETE FROM zarr WHERE k = ? AND rowid = ?"
        expect_changed(key, self._write("erase", key, erase, (check_key(key), as_version(version)), create=False))

    def _erase_prefix(self, prefix: str) -> None:
        self._write("erase", prefix, "DELETE FROM zarr WHERE k >= ? AND k < ?", bounds(prefix), create=False)

    def _write(self, verb: str, key: str, statement: str, values: tuple[Any, ...], *, create: bool = True) -> int:
        """How many rows a statement has changed, in a transaction of its own."""
        if self.read_only:
            raise StoreError(f"{self!r} is only read", key=key)
        with self._connections.use(verb, key, create=create) as connection, self._connections.writing:
            return 0 if connection is None else connection.execute(statement, values).rowcount

    def _keys(self, start: str, stop: str) -> list[str]:
        """The first keys from ``start`` on that are before ``stop``, sorted."""
        query = "SELECT k FROM zarr WHERE k >= ? AND k < ? ORDER BY k LIMIT ?"
        with self._connections.use("list") as connection:
            rows = [] if connection is None else connection.execute(query, (start, stop, _BATCH)).fetchall()
        return [check_key(key) for (key,) in rows]

    def _list_folder(self, prefix: str) -> Listing:
        values: list[str] = []
        prefixes: list[str] = []
        start, stop = bounds(prefix)
        while batch := self._keys(start, stop):
            position = 0
            while position < len(batch):
                key = batch[position]
                end = key.find("/", len(prefix))
                if end < 0:
                    values.append(key)
                    start = key + "\0"
                    position += 1
                else:
                    # nobody wants to know what is below: the index leads past it
                    prefixes.append(key[: end + 1])
                    start = after(prefixes[-1])
                    position = bisect_left(batch, start, position)
        return Listing(keys=tuple(values), prefixes=tuple(prefixes))


def read_part(connection: sqlite3.Connection, key: str, byte_range: Request) -> Versioned:
    """Part of a value and its version. Of a large value only the pages are read that the part is on."""
    # the transaction keeps others from taking the row away between its size and its content
    connection.execute("BEGIN")
    try:
        row = connection.execute("SELECT rowid, typeof(v), length(v) FROM zarr WHERE k = ?", (key,)).fetchone()
        if row is None:
            return Versioned(None, None)
        start, nbytes = span(byte_range, expect_size(key, row[1], row[2]))
        if not nbytes:
            return Versioned(b"", row[0])
        with connection.blobopen("zarr", "v", row[0], readonly=True) as blob:
            blob.seek(start)
            return Versioned(blob.read(nbytes), row[0])
    finally:
        connection.execute("ROLLBACK")


def new_version() -> int:
    """The number of a row, which is the version of its value: another one with each write, also of zarr-python."""
    return random.getrandbits(62)


def as_version(version: Version) -> int:
    """The number of a row; one that no row has where ``version`` is that of another store."""
    return version if isinstance(version, int) else -1


def bounds(prefix: str) -> tuple[str, str]:
    """From where up to where in their order the keys are that start with ``prefix``."""
    return (prefix, after(prefix)) if check_prefix(prefix) else ("", LAST)


def expect_size(key: str, kind: str, size: int) -> int:
    """The size of a value; ``StoreError`` where it is no bytes."""
    if kind != "blob":
        raise no_bytes(key)
    return size


def no_bytes(key: str) -> StoreError:
    """The error for what other programs may put into a database."""
    return StoreError(f"{key!r} is there, but its value is not a BLOB", key=key)


def expect_changed(key: str, count: int) -> None:
    """Raise ``PreconditionFailedError`` where no row was as it had to be."""
    if not count:
        raise PreconditionFailedError(f"{key!r} is not what it was: read it again, change that, and write it", key=key)


def open_url(
    url: str,
    *,
    read_only: bool = False,
    durability: Durability = "file",
    wal: bool = True,
    timeout: float = TIMEOUT,
    value_nbytes: int = VALUE_NBYTES,
) -> SQLiteStore:
    """The store at ``url``, which is ``sqlite:///folder/name.db``: the path is absolute, as in URLs of files."""
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme != "sqlite" or parts.netloc not in {"", "localhost"} or not path:
        raise StoreError(f"{url!r} is no URL of an SQLite database on this machine, which begins with sqlite:///")
    return SQLiteStore(path, read_only=read_only, durability=durability, wal=wal, timeout=timeout, value_nbytes=value_nbytes)
