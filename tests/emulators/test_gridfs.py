"""GridFSStore against a server that speaks the protocol of MongoDB."""

from __future__ import annotations

import asyncio
import gc
import itertools
import pickle
import zlib

import affinity
import gridfs
import numpy as np
import pytest
from pymongo import AsyncMongoClient
from pymongo import errors as failures

import azarr
from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.retry import NO_RETRIES, RetryPolicy
from azarr.stores.gridfs import GridFSStore, open_url
from azarr.stores.urls import open_store
from azarr.testing import FaultProxy, StoreSuite
from azarr.testing.faults import LostResponse, Reset
from azarr.types import ByteRange, Listing

QUICK = RetryPolicy(first_delay=0.0001, longest_delay=0.001, total=None, attempts=30, budget=10**9)


@pytest.fixture
def url(mongodb_server, mongodb_database):
    return f"{mongodb_server.url}{mongodb_database}"


@pytest.fixture
def database(mongodb_admin, mongodb_database):
    return mongodb_admin[mongodb_database]


def left_over(database):
    """The numbers of files, and of those that pieces belong to, that no key names."""
    named = {each["file"] for each in database["fs.keys"].find()}
    files = {each["_id"] for each in database["fs.files"].find()}
    return (files | set(database["fs.chunks"].distinct("files_id"))) - named


class TestGridFSStore(StoreSuite):
    @pytest.fixture
    async def store(self, url, database):
        async with GridFSStore(url, prefix="a/weather") as store:
            yield store
            # of those that replace a value at the same moment this server tells several the same old file, unlike MongoDB
            await store.sweep(older_than=-10)
        assert left_over(database) == set()


class TestGridFSStoreOnABadNetwork(StoreSuite):
    """What conditional writes promise holds even if answers are lost."""

    @pytest.fixture
    async def store(self, request, mongodb_server, mongodb_database):
        chance = np.random.default_rng(zlib.crc32(request.node.name.encode()))

        def lose(request):
            # what is asked for while a connection is being made counts as much as what comes later, and is asked for all the time
            return LostResponse() if b"findAndModify" in request.head and chance.random() < 0.1 else None

        options = {"protocol": "tcp", "faults": lose}
        async with FaultProxy(mongodb_server.host, mongodb_server.port, **options) as proxy:
            url = f"mongodb://{proxy.host}:{proxy.port}/{mongodb_database}?directConnection=true"
            async with GridFSStore(url, retry=QUICK) as store:
                yield store


async def test_connection_that_breaks_is_a_failure_of_its_request_alone(mongodb_server, mongodb_database):
    counted = itertools.count()

    def broken(request):
        return Reset() if b"fs.chunks" in request.head and next(counted) in {10, 100} else None

    async with FaultProxy(mongodb_server.host, mongodb_server.port, faults=broken, protocol="tcp") as proxy:
        url = f"mongodb://{proxy.host}:{proxy.port}/{mongodb_database}?directConnection=true"
        async with GridFSStore(url, retry=RetryPolicy(first_delay=0.001), concurrency=64) as store:
            await asyncio.gather(*(store.set(f"a/{number}", b"value" * number) for number in range(64)))
            values = await asyncio.gather(*(store.get(f"a/{number}") for number in range(64)))
            assert values == [b"value" * number for number in range(64)]
            assert 1 <= store.stats.retries <= sum(proxy.injected.values())


@pytest.fixture
async def store(url):
    async with GridFSStore(url, retry=NO_RETRIES) as store:
        yield store


async def test_values_are_files_that_others_can_read(store, database):
    await store.set("a/b", b"old")
    await store.set("a/b", b"0123456789")
    with gridfs.GridFSBucket(database).open_download_stream_by_name("a/b") as file:
        assert file.read() == b"0123456789"
    assert database["fs.files"].count_documents({}) == 1
    await store.erase("a/b")
    assert database["fs.files"].count_documents({}) == database["fs.chunks"].count_documents({}) == 0


async def test_parts_of_a_value_in_many_pieces(url, database):
    value = bytes(range(256)) * 10
    async with GridFSStore(url, piece_nbytes=100) as store:
        await store.set("a", value)
        assert database["fs.chunks"].count_documents({}) == 26
        for start, stop in ((0, 1), (99, 101), (100, 200), (2559, 2560), (0, 2560), (150, 1999)):
            assert await store.get("a", ByteRange(start, stop)) == value[start:stop]


async def test_what_is_beside_a_prefix_stays_there(store, url):
    beside = ["a/weathe", "a/weather", "a/weather-/a", "a/weatheq/a", "a/weathes/a"]
    await asyncio.gather(*(store.set(key, b"") for key in [*beside, "a/weather/b"]))
    async with GridFSStore(url, prefix="a/weather") as below:
        assert [key async for key in below.list_prefix()] == ["b"]
        assert await below.list_dir() == Listing(("b",), ())
        await below.erase_prefix("")
    assert [key async for key in store.list_prefix()] == sorted(beside)


@pytest.mark.parametrize("batch", [1, 2, 3, 7])
async def test_listings_in_many_parts(store, monkeypatch, batch):
    monkeypatch.setattr("azarr.stores.gridfs.BATCH", batch)
    monkeypatch.setattr("azarr.stores.gridfs.LEVEL_BATCH", batch)
    keys = sorted([f"{group}/c/{number}" for group in "ab" for number in range(3)] + ["a", "a-b", "c", "d"])
    await asyncio.gather(*(store.set(key, b"") for key in keys))
    assert [key async for key in store.list_prefix()] == keys
    assert await store.list_dir() == Listing(("a", "a-b", "c", "d"), ("a/", "b/"))
    assert await store.list_dir("b/c/") == Listing(("b/c/0", "b/c/1", "b/c/2"), ())


async def test_value_that_is_replaced_while_it_is_read(store, monkeypatch):
    await store.set("a", b"old")
    client = await store._clients.get()
    opened = type(client.bucket).open_download_stream

    async def replaced_first(bucket, number):
        monkeypatch.setattr(type(client.bucket), "open_download_stream", opened)
        await store.set("a", b"new value")
        return await opened(bucket, number)

    monkeypatch.setattr(type(client.bucket), "open_download_stream", replaced_first)
    assert await store.get("a") == b"new value"


async def test_damaged_file_is_an_error(store, database):
    await store.set("a", b"1234")
    database["fs.chunks"].delete_many({})
    with pytest.raises(StoreError, match="damaged") as caught:
        await store.get("a")
    assert not isinstance(caught.value, TransientStoreError)
    database["fs.files"].delete_many({})
    with pytest.raises(StoreError, match="damaged"):
        await store.get("a")
    await store.set("a", b"5678")
    assert await store.get("a") == b"5678"


async def test_lost_race_leaves_no_file(store, database):
    await store.set_if("a", b"1", None)
    for version in (None, azarr.stores.gridfs.Tag("stale")):
        with pytest.raises(PreconditionFailedError):
            await store.set_if("a", b"2", version)
    assert database["fs.files"].count_documents({}) == 1
    assert left_over(database) == set()


@pytest.mark.parametrize("at", range(0, 60, 3))
async def test_cancelled_write_is_whole_or_not_there(store, database, at):
    await store.set("a", b"old")
    task = asyncio.create_task(store.set("a", bytes(1000)))
    for _ in range(at):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await store.get("a") in {b"old", bytes(1000)}
    await store.set("a", b"new")
    assert await store.get("a") == b"new"
    await store.sweep(older_than=-10)
    assert left_over(database) == set()


async def test_sweep(store, database, url):
    await store.set("a", b"1")
    bucket = gridfs.GridFSBucket(database)
    orphan = bucket.upload_from_stream("a", b"orphan")
    half = bucket.upload_from_stream("b", bytes(10))
    database["fs.files"].delete_one({"_id": half})
    assert await store.sweep() == 0
    assert left_over(database) == {orphan, half}
    assert await store.sweep(older_than=-10) == 2
    assert left_over(database) == set()
    assert await store.get("a") == b"1"
    async with GridFSStore(url, read_only=True) as reader:
        with pytest.raises(StoreError, match="read-only"):
            await reader.sweep()


@pytest.mark.filterwarnings("ignore")  # the client leaves a socket behind that has not been connected
async def test_server_that_is_not_there():
    async with FaultProxy("127.0.0.1", 1, protocol="tcp") as gone:
        port = gone.port
    async with GridFSStore(f"mongodb://127.0.0.1:{port}/db?serverSelectionTimeoutMS=100", retry=NO_RETRIES) as store:
        with pytest.raises(TransientStoreError):
            await store.get("a")
    gc.collect()


async def test_client_of_the_user(mongodb_server, mongodb_database):
    async with AsyncMongoClient(mongodb_server.url) as client:
        async with GridFSStore(client=client, database=mongodb_database) as store:
            await store.set("a", b"1")
            with pytest.raises(TypeError, match="client"):
                pickle.dumps(store)
        assert await client[mongodb_database]["fs.keys"].count_documents({}) == 1


async def test_array(url):
    async with GridFSStore(url, prefix="data") as store:
        array = await azarr.create_array(store, "t2m", shape=(60, 40), chunks=(6, 40), shards=(12, 40), dtype="float32")
        await array.write(np.arange(2400).reshape(60, 40))
        assert ((await array[...]).ravel() == np.arange(2400)).all()
    again = await azarr.open_array(f"{url}?prefix=data", "t2m")
    assert float(await again[59, 39]) == 2399


async def test_appends_of_several_writers_lose_nothing(url, elsewhere):
    async with GridFSStore(url) as store:
        await azarr.create_array(store, "a", shape=(0,), chunks=(3,), dtype="int64")
        writers = [await azarr.open_array(elsewhere(store), "a") for _ in range(4)]
        await asyncio.gather(*(array.append(np.full(5, number)) for number, array in enumerate(writers)))
        array = await azarr.open_array(store, "a")
        assert sorted((await array[...]).tolist()) == sorted(list(range(4)) * 5)


def test_urls():
    store = open_store("mongodb://u:secret@one,two:2/db?bucket=b&prefix=a%20b/c&authSource=admin", read_only=True, concurrency=3)
    assert repr(store) == "GridFSStore('mongodb://one:27017,two:2/db', bucket='b', prefix='a b/c/')"
    assert store._url == "mongodb://u:secret@one,two:2/db?authSource=admin"
    assert (store.read_only, store.traffic.concurrency) == (True, 3)
    assert store.identity == GridFSStore("mongodb://one,two:2/db", bucket="b", prefix="a b/c").identity
    assert repr(open_url("mongodb+srv://u:p@cluster.example.org/db")).startswith("GridFSStore('mongodb://cluster.example.org")


@pytest.mark.parametrize(
    "wrong",
    [
        "mongodb://host",
        "mongodb://host/db.collection",
        "mongodb://u:se/cret@host/db",
        "mongodb://host/db?unknownOption=1",
        "mongodb://host/db?prefix=../a",
        "mongodb://u:secret@host:port/db",
    ],
)
def test_urls_that_are_none(wrong):
    with pytest.raises(StoreError) as caught:
        open_url(wrong)
    assert "cret" not in str(caught.value)


def test_errors_that_mean_something():
    store = GridFSStore("mongodb://host/db")
    for error, kind in (
        (failures.AutoReconnect("x"), TransientStoreError),
        (failures.ServerSelectionTimeoutError("x"), TransientStoreError),
        (failures.DuplicateKeyError("x"), TransientStoreError),
        (failures.OperationFailure("x", 112), TransientStoreError),
        (failures.OperationFailure("x", 91, {"errorLabels": ["RetryableWriteError"]}), TransientStoreError),
        (failures.OperationFailure("x", 16500), ThrottledError),
        (failures.OperationFailure("x", 18), StoreError),
        (failures.OperationFailure("x", 2), StoreError),
    ):
        assert type(store._classified(error, "a")) is kind
    assert store._classified(KeyError(), "a") is None


def test_all_loops(url, tmp_path):
    store = GridFSStore(url, prefix="root")
    asyncio.run(store.set("key", b"value"))
    affinity.check(store, tmp_path)
