"""Connections to one SQLite database: opened as threads need them, kept for the next one, and closed with their owner."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from azarr.errors import StoreError, TransientStoreError
from azarr.stores.local import Durability

TABLE: Final = "zarr"
"""The name of the table, which has the columns ``k`` and ``v``, as zarr-python 2 has them."""

PAGE_NBYTES: Final = 16384
"""The pages of a new database: four times the usual size, as chunks are larger than most other rows."""

PAUSE: Final = 0.001
"""Seconds between two attempts to give a new database its log; others are done with that in no time."""

WITH_LOG: Final = {"none": "OFF", "file": "NORMAL", "full": "FULL"}
WITH_ROLLBACK: Final = {"none": "OFF", "file": "FULL", "full": "EXTRA"}
"""How SQLite calls what a write survives; with a rollback journal, NORMAL might leave a database that is damaged."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where a database is and how it is opened; the fields are those of ``SQLiteStore``."""

    path: str
    read_only: bool
    durability: Durability
    wal: bool
    timeout: float
    value_nbytes: int

    def connect(self, *, create: bool) -> sqlite3.Connection | None:
        """A new connection; ``None`` where there is no database, or nothing in it, and none is to be made."""
        if not create and not os.path.exists(self.path):
            if self.read_only:
                raise StoreError(f"there is no SQLite database at {self.path!r}")
            return None
        mode = "ro" if self.read_only else "rwc" if create else "rw"
        connection = sqlite3.connect(
            f"file:{quote(self.path)}?mode={mode}", uri=True, timeout=self.timeout, isolation_level=None, check_same_thread=False
        )
        try:
            connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, max(self.value_nbytes, 1000))  # for the schema, too
            connection.execute("PRAGMA trusted_schema = OFF")
            if not self._has_table(connection):
                if not create:
                    connection.close()
                    return None
                self._create(connection)
            logged = connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            connection.execute(f"PRAGMA synchronous = {(WITH_LOG if logged else WITH_ROLLBACK)[self.durability]}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _has_table(self, connection: sqlite3.Connection) -> bool:
        """Whether the table is there; ``StoreError`` where there is something else instead."""
        found = connection.execute("SELECT name, type FROM sqlite_master WHERE name NOT LIKE 'sqlite_%' LIMIT 2").fetchall()
        if not found:
            return False
        columns = [name for _, name, *_ in connection.execute(f"PRAGMA table_info({TABLE})")]
        if found != [(TABLE, "table")] or columns != ["k", "v"]:
            raise StoreError(
                f"{self.path!r} is the database of another program: it has other tables than {TABLE!r} with the columns k and v"
            )
        return True

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA page_size = {PAGE_NBYTES}")
        if self.wal:
            self._log_ahead(connection)
        connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE}(k TEXT PRIMARY KEY, v BLOB)")

    def _log_ahead(self, connection: sqlite3.Connection) -> None:
        """Give a new database a write-ahead log. SQLite refuses at once while somebody else begins to write: the waiting is done here."""
        end = time.monotonic() + self.timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(PAUSE)
            else:
                return


class Connections:
    """Connections to ``database``, of which each is used by one thread at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._idle: list[sqlite3.Connection] = []
        self._left_behind: list[sqlite3.Connection] = []
        self.writing = threading.Lock()
        """For threads that want to write: SQLite would let them wait by sleeping, and wake up late."""
        self._mutex = threading.Lock()
        self._process = os.getpid()
        self._closed = False

    def __del__(self) -> None:
        self.close()

    @contextmanager
    def use(self, verb: str, key: str | None = None, *, create: bool = False) -> Iterator[sqlite3.Connection | None]:
        """A connection for the time of a ``with``; ``None`` where there is no database yet, and none is to be made.

        What SQLite raises meanwhile comes out as ``StoreError``, saying that one cannot ``verb``.
        """
        connection = None
        try:
            connection = self._take() or self._database.connect(create=create)
            yield connection
        except (sqlite3.Error, OverflowError, UnicodeEncodeError) as error:
            raise failure(self._database.path, verb, key, error) from error
        finally:
            if connection is not None:
                self._put_back(connection)

    def close(self) -> None:
        """Close what nobody uses; what is in use is closed by who uses it."""
        self._closed = True
        if self._process != os.getpid():
            return
        with self._mutex:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def _take(self) -> sqlite3.Connection | None:
        if self._closed:
            raise StoreError(f"the store in {self._database.path!r} is closed")
        with self._mutex:
            if self._process != os.getpid():
                # SQLite wants connections of the parent process neither used nor closed by its children
                self._left_behind, self._idle, self._process = self._idle, [], os.getpid()
                self.writing = threading.Lock()
            return self._idle.pop() if self._idle else None

    def _put_back(self, connection: sqlite3.Connection) -> None:
        with self._mutex:
            if not self._closed:
                self._idle.append(connection)
                return
        connection.close()


def failure(path: str, verb: str, key: str | None, error: Exception) -> StoreError:
    """What to raise where SQLite could not ``verb``."""
    what = f"cannot {verb} {path!r}" if key is None else f"cannot {verb} {key!r} in {path!r}"
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return TransientStoreError(f"{what} now: another process is writing ({error}); trying again may help", key=key)
    hint = ""
    if code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        hint = "; the file is damaged or no SQLite database: take another one, or a copy"
    elif code == sqlite3.SQLITE_READONLY:
        hint = "; give this process the right to write to the file and its folder"
    elif code == sqlite3.SQLITE_CANTOPEN:
        hint = "; its folder must be there, and SQLite must be able to write into it unless the database has no write-ahead log"
    elif code == sqlite3.SQLITE_TOOBIG or isinstance(error, OverflowError):
        hint = "; the limit is value_nbytes, and SQLite's own 1,000,000,000 bytes"
    return StoreError(f"{what}: {error}{hint}", key=key)
