from __future__ import annotations

import asyncio
import functools
import gc
import multiprocessing
import os
import pickle
import sqlite3
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing

import pytest

import azarr
from azarr.errors import PreconditionFailedError, StoreError, TransientStoreError
from azarr.stores.base import BlockingStore, as_conditional
from azarr.stores.sqlite import SQLiteStore, open_url
from azarr.testing import StoreSuite
from azarr.testing.values import VALUE, collect, read
from azarr.types import ByteRange, Listing, Suffix

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


class TestSQLiteStore(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path):
        async with SQLiteStore(tmp_path / "x.db") as store:
            yield store


class TestRollbackJournal(TestSQLiteStore):
    @pytest.fixture
    async def store(self, tmp_path):
        async with SQLiteStore(tmp_path / "x.db", wal=False, durability="none") as store:
            yield store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.db"


def query(path, statement, *values):
    connection = sqlite3.connect(path)
    try:
        with connection:
            return connection.execute(statement, values).fetchall()
    finally:
        connection.close()


def test_it_blocks_and_writes_conditionally(path):
    assert isinstance(SQLiteStore(path), BlockingStore)
    assert as_conditional(SQLiteStore(path)) is not None
    assert as_conditional(SQLiteStore(path, read_only=True)) is None


async def test_one_file_is_left(path):
    async with SQLiteStore(path) as store:
        await store.set("a", VALUE)
    assert os.listdir(path.parent) == ["x.db"]


async def test_reading_makes_no_database(path):
    async with SQLiteStore(path) as store:
        assert await store.get("a") is None
        assert await store.get("a", Suffix(1)) is None
        assert store.get_into("a", memoryview(bytearray(1))) is None
        assert await store.list_dir() == Listing((), ())
        assert await collect(store.list_prefix()) == []
        await store.erase("a")
        await store.erase_prefix("")
    assert os.listdir(path.parent) == []


async def test_many_first_writes_at_once(path):
    async with SQLiteStore(path) as store:
        await asyncio.gather(*(store.set(f"{number}", VALUE) for number in range(20)))
        assert len(await collect(store.list_prefix())) == 20


async def test_a_database_that_somebody_else_is_about_to_make(path, monkeypatch):
    """SQLite does not wait for them by itself."""
    refused = []

    class Telling(sqlite3.Connection):
        def execute(self, statement, *values):
            try:
                return super().execute(statement, *values)
            except sqlite3.OperationalError:
                refused.append(statement)
                if len(refused) == 3:
                    other.execute("ROLLBACK")
                raise

    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientStoreError, match="another process"):
            await SQLiteStore(path, timeout=0).set("a", VALUE)
        monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Telling))
        async with SQLiteStore(path) as store:
            await store.set("a", VALUE)
            assert await read(store, "a") == VALUE
    assert refused == ["PRAGMA journal_mode = WAL"] * 3


async def test_the_database_is_that_of_zarr_python_2(path):
    query(path, "CREATE TABLE zarr(k TEXT PRIMARY KEY, v BLOB)")
    query(path, "INSERT INTO zarr VALUES ('.zgroup', ?)", b'{"zarr_format": 2}')
    async with SQLiteStore(path) as store:
        assert await read(store, ".zgroup") == b'{"zarr_format": 2}'
        await store.set("b", VALUE)
    assert query(path, "SELECT v FROM zarr WHERE k = 'b'") == [(VALUE,)]
    query(path, "REPLACE INTO zarr VALUES ('b', ?)", b"again")
    async with SQLiteStore(path) as store:
        assert await read(store, "b") == b"again"


async def test_wildcards_in_prefixes_stand_for_themselves(path):
    async with SQLiteStore(path) as store:
        for key in ("a%/x", "ab/x", "a_/x", "A%/x", "a%0/x"):
            await store.set(key, b"")
        assert await collect(store.list_prefix("a%/")) == ["a%/x"]
        assert await collect(store.list_prefix("a_/")) == ["a_/x"]
        await store.erase_prefix("a%/")
        assert await collect(store.list_prefix()) == ["A%/x", "a%0/x", "a_/x", "ab/x"]


async def test_many_keys(path):
    keys = [f"c/{i % 3}/{i}" for i in range(3500)] + [f"d{i}" for i in range(1500)]
    async with SQLiteStore(path, durability="none") as store:
        for key in keys:
            store.set_blocking(key, b"")
        assert await collect(store.list_prefix()) == sorted(keys)
        assert await collect(store.list_prefix("c/1/")) == sorted(key for key in keys if key.startswith("c/1/"))
        assert await store.list_dir("c/") == Listing((), ("c/0/", "c/1/", "c/2/"))
        assert await store.list_dir() == Listing(tuple(sorted(f"d{i}" for i in range(1500))), ("c/",))


async def test_parts_of_a_large_value(path):
    large = VALUE * 10_000
    async with SQLiteStore(path) as store:
        await store.set("a", large)
        assert await read(store, "a", ByteRange(1_000_000, 1_000_500)) == large[1_000_000:1_000_500]
        assert await read(store, "a", Suffix(3)) == large[-3:]


async def test_read_only(path):
    with pytest.raises(StoreError, match="no SQLite database at"):
        await SQLiteStore(path, read_only=True).get("a")
    async with SQLiteStore(path) as store:
        await store.set("a", VALUE)
    async with SQLiteStore(path, read_only=True) as store:
        assert await read(store, "a") == VALUE
        for request in (store.set("a", b""), store.erase("a"), store.erase_prefix(""), store.set_if("a", b"", VALUE)):
            with pytest.raises(StoreError, match="only read"):
                await request


async def test_a_limit_for_values(path):
    async with SQLiteStore(path) as store:
        await store.set("a", bytes(5000))
    async with SQLiteStore(path, value_nbytes=2000) as store:
        with pytest.raises(StoreError, match="value_nbytes"):
            await store.get("a")
        with pytest.raises(StoreError, match="value_nbytes"):
            await store.set("b", bytes(5000))
        await store.set("b", bytes(1000))


async def test_a_database_of_another_program_is_left_alone(path):
    query(path, "CREATE TABLE history(url TEXT)")
    before = path.read_bytes()
    async with SQLiteStore(path) as store:
        for request in (store.get("a"), store.set("a", b""), store.list_dir()):
            with pytest.raises(StoreError, match="database of another program"):
                await request
    assert path.read_bytes() == before


async def test_a_table_with_other_columns_is_refused(path):
    query(path, "CREATE TABLE zarr(key TEXT, value BLOB)")
    with pytest.raises(StoreError, match="another program"):
        await SQLiteStore(path).get("a")


async def test_a_view_instead_of_the_table_is_refused(path):
    query(path, "CREATE VIEW zarr(k, v) AS SELECT 'a', x'00'")
    with pytest.raises(StoreError, match="another program"):
        await SQLiteStore(path).get("a")


async def test_values_that_are_no_bytes(path):
    async with SQLiteStore(path) as store:
        await store.set("a", b"")
        for value in ("text", 5, None):
            query(path, "UPDATE zarr SET v = ?", value)
            for call in (
                lambda: store.get_blocking("a"),
                lambda: store.get_blocking("a", Suffix(1)),
                lambda: store.get_into("a", memoryview(bytearray(9))),
            ):
                with pytest.raises(StoreError, match="not a BLOB"):
                    call()


async def test_keys_that_others_have_written_do_not_lead_out(path):
    async with SQLiteStore(path) as store:
        await store.set("a", b"")
        query(path, "INSERT INTO zarr VALUES ('../../etc/passwd', x'00')")
        with pytest.raises(StoreError, match="not a key"):
            await collect(store.list_prefix())


async def test_something_else_than_a_database(path):
    path.write_bytes(b"something else" * 1000)
    async with SQLiteStore(path) as store:
        for request in (store.get("a"), store.set("a", b"")):
            with pytest.raises(StoreError, match="damaged or no SQLite database"):
                await request
    assert path.read_bytes() == b"something else" * 1000


async def test_a_damaged_database(path):
    async with SQLiteStore(path) as store:
        for i in range(500):
            store.set_blocking(f"a/{i}", VALUE * 10)
    data = bytearray(path.read_bytes())
    for position in range(20_000, len(data), 3000):
        data[position : position + 500] = os.urandom(500)
    path.write_bytes(data)
    failures = 0
    async with SQLiteStore(path) as store:
        for i in range(500):
            try:
                await store.get(f"a/{i}")
            except StoreError:
                failures += 1
    assert failures


async def test_a_folder_that_is_missing(tmp_path):
    with pytest.raises(StoreError, match="folder must be there"):
        await SQLiteStore(tmp_path / "missing" / "x.db").set("a", b"")


async def test_use_after_closing(path):
    store = SQLiteStore(path)
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreError, match="closed"):
        await store.get("a")


async def test_a_store_that_is_thrown_away_closes_its_connections(path):
    store = SQLiteStore(path)
    await store.set("a", VALUE)
    connection = store._connections._idle[0]
    del store
    async with asyncio.timeout(30):
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            while True:  # the thread that wrote may be about to let go of the store
                gc.collect()
                connection.execute("SELECT 1")
                await asyncio.sleep(0)


async def test_waiting_for_another_writer_ends(path):
    async with SQLiteStore(path, timeout=0.01) as store:
        await store.set("a", VALUE)
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            assert await read(store, "a") == VALUE  # readers do not wait
            with pytest.raises(TransientStoreError, match="another process is writing"):
                await store.set("a", b"")
        finally:
            other.close()
        await store.set("a", b"")


async def test_an_update_starts_again_where_somebody_else_was_faster(path):
    async with SQLiteStore(path) as store:
        seen = []

        def change(old):
            seen.append(old)
            if len(seen) == 1:
                query(path, "REPLACE INTO zarr VALUES ('a', x'02')")
            return bytes(old) + b"!"

        await store.set("a", b"\1")
        store.update_blocking("a", change)
        assert seen == [b"\1", b"\2"]
        assert await read(store, "a") == b"\2!"


async def test_stamps_tell_whether_a_value_is_the_same(path):
    async with SQLiteStore(path) as store:
        await store.set("a", VALUE)
        await store.set("b", VALUE)
        first = await store.get_stamped("a", ByteRange(3, 5))
        assert first == (VALUE[3:5], (await store.get_stamped("a")).stamp)
        await store.set("b", b"other")
        assert store.get_stamped_blocking("a").stamp == first.stamp
        for write in (lambda: store.set_blocking("a", VALUE), lambda: query(path, "REPLACE INTO zarr VALUES ('a', ?)", VALUE)):
            write()
            assert store.get_stamped_blocking("a").stamp != first.stamp
        assert await store.get_stamped("missing") == (None, None)


async def test_a_version_of_another_store_is_not_what_is_there(path):
    async with SQLiteStore(path) as store:
        await store.set("a", VALUE)
        for version in ("text", 5):
            with pytest.raises(PreconditionFailedError):
                await store.set_if("a", b"", version)


def test_pickling_equality_and_identity(path):
    store = SQLiteStore(path, timeout=3)
    assert pickle.loads(pickle.dumps(store)) == store
    assert hash(store) == hash(SQLiteStore(path, timeout=3))
    assert SQLiteStore(path) != store
    assert SQLiteStore(path).identity == store.identity
    with pytest.raises(ValueError, match="durability"):
        SQLiteStore(path, durability="half")


def test_from_a_url(path):
    assert open_url(f"sqlite://{path}").path == str(path)
    assert open_url("sqlite:///a%20b.db", read_only=True).read_only
    for url in ("sqlite://", "sqlite://host/x.db", "file:///x.db"):
        with pytest.raises(StoreError, match="no URL of an SQLite database"):
            open_url(url)


def test_an_array_in_a_database(path):
    async def main():
        async with SQLiteStore(path) as store:
            array = await azarr.create_array(store, "a", shape=(100, 100), chunks=(7, 9), shards=(35, 45), dtype="i4")
            await array.write(5)
            await array[:3, :3].write(7)
            assert (await array.read()).sum() == 50_018

    asyncio.run(main())


def count(path, turns):
    """Runs in a process of its own."""

    async def main():
        async with SQLiteStore(path) as store:
            for _ in range(turns):
                store.update_blocking("k", lambda old: str(int(bytes(old or b"0")) + 1).encode())

    asyncio.run(main())


def test_several_processes_lose_nothing(path):
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
        list(pool.map(count, [path] * 3, [50] * 3))
    assert query(path, "SELECT v FROM zarr") == [(b"150",)]


def append(path, turns):
    """Runs in a process of its own."""

    async def main():
        async with SQLiteStore(path) as store:
            array = await azarr.open_array(azarr.PrefixStore(store, "below/"), "a")
            await store.set(f"ready/{os.getpid()}", b"")
            while len((await store.list_dir("ready/")).keys) < 3:
                time.sleep(0.01)  # until all are there
            for number in range(turns):
                await array.append([number])

    asyncio.run(main())


@pytest.mark.slow
async def test_processes_that_append_take_turns(path):
    async with SQLiteStore(path) as store:
        await azarr.create_array(store, "below/a", shape=(0,), chunks=(7,), dtype="i4")
        with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("spawn")) as pool:
            await asyncio.to_thread(lambda: list(pool.map(append, [path] * 3, [15] * 3)))
        array = await azarr.open_array(store, "below/a")
        assert sorted(await array.read()) == sorted([*range(15)] * 3)
        assert len(await collect(store.list_prefix("below/a/c/"))) == 7


@on_posix
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_process_has_connections_of_its_own(path):
    store = SQLiteStore(path)
    store.set_blocking("a", b"parent")
    child = os.fork()
    if not child:
        try:
            store.set_blocking("b", store.get_blocking("a"))
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert store.get_blocking("b") == b"parent"


PROGRAM = """
import sys
from azarr.stores.sqlite import SQLiteStore

store, turn = SQLiteStore(sys.argv[1], durability="none"), int(sys.argv[2])
print("ready", flush=True)
while True:
    turn += 1
    store.set_blocking("first", f"{turn} ".encode() * 20_000)
    store.set_blocking("second", f"{turn} ".encode() * 20_000)
"""


@on_posix
@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_whole_values(path, killed_often):
    def look(turn):
        store = SQLiteStore(path)
        first, second = (store.get_blocking(key) for key in ("first", "second"))
        if first is None:
            return turn
        turn = int(first.split()[0])
        assert first == f"{turn} ".encode() * 20_000
        assert second in {f"{each} ".encode() * 20_000 for each in (turn - 1, turn)} or turn == 1
        return turn

    killed_often(PROGRAM, path, look=look)
