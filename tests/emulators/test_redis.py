"""RedisStore against a Redis server."""

from __future__ import annotations

import asyncio
import pickle
import shutil
import subprocess
import zlib

import affinity
import numpy as np
import pytest
import redis
import redis.asyncio
import servers

import azarr
from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.retry import NO_RETRIES, RetryPolicy
from azarr.stores.network import Condition
from azarr.stores.redis import BATCH, RedisStore, open_url
from azarr.stores.urls import open_store
from azarr.testing import FaultProxy, StoreSuite
from azarr.testing.faults import BrokenBody, LostResponse, Reset, StalledBody, TruncatedBody
from azarr.types import ByteRange, Listing, Suffix

QUICK = RetryPolicy(first_delay=0.0001, longest_delay=0.001, total=None, attempts=30, budget=10**9)


@pytest.fixture
def url(redis_server, redis_database):
    return f"{redis_server.url}/{redis_database}"


def at(proxy, **options):
    """A store behind a proxy."""
    return RedisStore(f"redis://{proxy.host}:{proxy.port}", **options)


class TestRedisStore(StoreSuite):
    @pytest.fixture
    async def store(self, url):
        async with RedisStore(url) as store:
            yield store


class TestRedisStoreBelowAPrefix(StoreSuite):
    @pytest.fixture
    async def store(self, url, redis_admin):
        async with RedisStore(url) as others:
            await others.set("weathe", b"")
            await others.set("weatheq/a", b"")
            await others.set("weather", b"")
            await others.set("weather-/a", b"")
            await others.set("weathes/a", b"")
        async with RedisStore(url, prefix="weather") as store:
            yield store
        assert {b"weathe", b"weatheq/a", b"weather", b"weather-/a", b"weathes/a"} <= set(redis_admin.keys())


class TestRedisStoreOnABadNetwork(StoreSuite):
    """What conditional writes promise holds even if every tenth answer is lost."""

    @pytest.fixture
    async def store(self, request, redis_server, redis_admin, redis_database):
        faults = {Reset(): 0.05, LostResponse(): 0.1, BrokenBody(): 0.02, TruncatedBody(): 0.02}
        options = {"protocol": "tcp", "seed": zlib.crc32(request.node.name.encode()), "faults": faults}
        async with FaultProxy(redis_server.host, redis_server.port, **options) as proxy, at(proxy, retry=QUICK) as store:
            yield store


@pytest.fixture
async def store(url):
    async with RedisStore(url, retry=NO_RETRIES) as store:
        yield store


async def test_values_are_strings_that_others_can_read(store, redis_admin):
    await store.set("a/b", b"0123456789")
    assert redis_admin.get("a/b") == b"0123456789"
    assert redis_admin.zrange("//azarr/keys", 0, -1) == [b"a/b"]
    await store.erase("a/b")
    assert redis_admin.keys() == []


async def test_values_of_others_are_found_and_not_listed(store, redis_admin):
    redis_admin.set("a", b"1234")
    assert await store.get("a") == b"1234"
    assert await store.get("a", ByteRange(1, 3)) == b"23"
    assert await store.size("a") == 4
    assert await store.list_dir() == Listing((), ())
    version = (await store.get_versioned("a")).version
    with pytest.raises(PreconditionFailedError):
        await store.set_if("a", b"5", None)
    await store.set_if("a", b"5", version)
    assert await store.list_dir() == Listing(("a",), ())


async def test_evicted_value_is_an_error(store, redis_admin):
    await store.set("a", b"1")
    redis_admin.delete("a")
    for request in (store.get("a"), store.get("a", Suffix(1)), store.get_versioned("a"), store.size("a")):
        with pytest.raises(StoreError, match="evict") as caught:
            await request
        assert not isinstance(caught.value, TransientStoreError)
    await store.erase("a")
    assert await store.get("a") is None


async def test_long_listings(store):
    keys = sorted([f"{group}/c/{number}" for group in range(3) for number in range(BATCH)] + [f"x{number}" for number in range(BATCH + 1)])
    await asyncio.gather(*(store.set(key, b"") for key in keys))
    assert [key async for key in store.list_prefix()] == keys
    assert await store.list_dir() == Listing(tuple(key for key in keys if key[0] == "x"), ("0/", "1/", "2/"))
    assert len((await store.list_dir("1/c/")).keys) == BATCH
    await store.erase_prefix("1/")
    assert (await store.list_dir()).prefixes == ("0/", "2/")


async def test_write_whose_answer_was_lost_is_known_however_many_came_after_it(store, redis_admin):
    client = await store._clients.get()
    await store._set(client, "a", b"0", Condition(None), ("lost",))
    for number in range(1, 30):
        await store.set_if("a", str(number).encode(), (await store.get_versioned("a")).version)
    assert await store._is_marked(client, "a", "lost")
    assert not await store._is_marked(client, "a", "never done")
    assert 0 < redis_admin.ttl("//azarr/mark/lost") <= 600


async def test_write_that_fails_leaves_no_trace(store, redis_admin):
    redis_admin.config_set("maxmemory", "1")
    try:
        for write in (store.set("a", b"1"), store.set_if("a", b"1", None)):
            with pytest.raises(StoreError, match="maxmemory"):
                await write
    finally:
        redis_admin.config_set("maxmemory", "0")
    assert redis_admin.keys() == []


async def test_value_that_is_too_large(store, monkeypatch):
    monkeypatch.setattr("azarr.stores.redis.VALUE_NBYTES", 10)
    await store.set("a", bytes(10))
    with pytest.raises(StoreError, match="smaller chunks"):
        await store.set("a", bytes(11))
    assert await store.size("a") == 10


async def test_value_of_another_type(store, redis_admin):
    redis_admin.lpush("list", "x")
    with pytest.raises(StoreError, match="WRONGTYPE") as caught:
        await store.get("list")
    assert caught.value.key == "list"
    await store.set("list", b"now a value")
    assert await store.get("list") == b"now a value"


async def test_passwords(redis_server, redis_admin, redis_database):
    redis_admin.acl_setuser("reader", enabled=True, passwords=["+p@ss/word"], keys=["*"], commands=["+get", "+client", "+hello"])
    try:
        at = f"{redis_server.host}:{redis_server.port}"
        for given in (
            {"url": f"redis://reader:p%40ss%2Fword@{at}"},
            {"url": f"redis://{at}", "username": "reader", "password": "p@ss/word"},
        ):
            async with RedisStore(**given, retry=NO_RETRIES) as store:
                assert "p@ss" not in repr(store)
                redis_admin.set("a", b"1")
                assert await store.get("a") == b"1"
                with pytest.raises(StoreError, match="user and password") as caught:
                    await store.set("a", b"2")
                assert not isinstance(caught.value, TransientStoreError)
        async with RedisStore(f"redis://reader:wrong-secret@{at}") as store:
            with pytest.raises(StoreError, match="user and password") as caught:
                await store.get("a")
        assert "wrong-secret" not in str(caught.value)
        assert store.stats.attempts == 1
    finally:
        redis_admin.acl_deluser("reader")


async def test_server_that_is_not_there(redis_server):
    async with FaultProxy("127.0.0.1", 1, protocol="tcp") as gone:
        port = gone.port
    async with RedisStore(f"redis://127.0.0.1:{port}", retry=NO_RETRIES) as store:
        with pytest.raises(TransientStoreError):
            await store.get("a")


async def test_server_that_falls_silent(redis_server, redis_admin, redis_database):
    redis_admin.set("a", bytes(1000))

    def stall_once(request):
        return StalledBody(300) if b"GET" in request.head and not stalled.append(1) and len(stalled) == 1 else None

    stalled = []
    policy = RetryPolicy(attempt_timeout=0.2, first_delay=0.0)
    options = {"protocol": "tcp", "faults": stall_once}
    async with FaultProxy(redis_server.host, redis_server.port, **options) as proxy, at(proxy, retry=policy) as store:
        assert await store.get("a") == bytes(1000)
        assert store.stats.retries == 1


async def test_cancelled_requests_do_not_mix_up_answers(redis_server, redis_admin, redis_database):
    values = {str(number): bytes([number]) * 50_000 for number in range(16)}
    options = {"protocol": "tcp", "jitter": 0.002, "seed": 2}
    async with FaultProxy(redis_server.host, redis_server.port, **options) as proxy, at(proxy, concurrency=4) as store:
        await asyncio.gather(*(store.set(key, value) for key, value in values.items()))
        for turn in range(30):
            tasks = {key: asyncio.create_task(store.get(key)) for key in values}
            await asyncio.sleep(0.0003 * turn)  # so that they are caught at all kinds of moments
            for key in list(tasks)[::2]:
                tasks[key].cancel()
            outcomes = await asyncio.gather(*tasks.values(), return_exceptions=True)
            for value, outcome in zip(values.values(), outcomes, strict=True):
                assert outcome == value or isinstance(outcome, asyncio.CancelledError)


async def test_client_of_the_user(redis_server, redis_database):
    async with redis.asyncio.Redis(host=redis_server.host, port=redis_server.port) as client:
        async with RedisStore(client=client) as store:
            await store.set("a", b"1")
            with pytest.raises(TypeError, match="client"):
                pickle.dumps(store)
        assert await client.get("a") == b"1"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed: apt-get install openssl")
async def test_tls(tmp_path):
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-keyout",
        tmp_path / "key",
        "-out",
        tmp_path / "crt",
    ]
    subprocess.run([*command, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"], check=True, capture_output=True)
    program = servers.find_program("redis-server", get="apt-get install redis-server")
    (port,) = servers.free_ports(1)
    command = [program, "--port", "0", "--tls-port", str(port), "--bind", servers.HOST, "--save", "", "--tls-auth-clients", "no"]
    command += ["--tls-cert-file", tmp_path / "crt", "--tls-key-file", tmp_path / "key"]
    with servers.running([str(each) for each in command], tmp_path, servers.listens(port)):
        async with RedisStore(f"rediss://localhost:{port}", ca_file=str(tmp_path / "crt")) as store:
            await store.set("a", b"1")
            assert await store.get("a") == b"1"
        for wrong in ({"url": f"rediss://localhost:{port}"}, {"url": f"rediss://{servers.HOST}:{port}", "ca_file": str(tmp_path / "crt")}):
            async with RedisStore(**wrong, retry=NO_RETRIES) as store:
                with pytest.raises(StoreError):
                    await store.get("a")


async def test_array(url):
    async with RedisStore(url, prefix="data") as store:
        array = await azarr.create_array(store, "t2m", shape=(60, 40), chunks=(6, 40), shards=(12, 40), dtype="float32")
        await array.write(np.arange(2400).reshape(60, 40))
        assert ((await array[...]).ravel() == np.arange(2400)).all()
    again = await azarr.open_array(f"{url}?prefix=data", "t2m")
    assert float(await again[59, 39]) == 2399


async def test_appends_of_several_writers_lose_nothing(url, elsewhere):
    async with RedisStore(url) as store:
        await azarr.create_array(store, "a", shape=(0,), chunks=(3,), dtype="int64")
        writers = [await azarr.open_array(elsewhere(store), "a") for _ in range(4)]
        await asyncio.gather(*(array.append(np.full(5, number)) for number, array in enumerate(writers)))
        array = await azarr.open_array(store, "a")
        assert sorted((await array[...]).tolist()) == sorted(list(range(4)) * 5)


def test_urls(url):
    store = open_store(f"{url}?prefix=a%20b/c", read_only=True, concurrency=3)
    assert repr(store) == f"RedisStore('{url}', prefix='a b/c/')"
    assert (store.read_only, store.traffic.concurrency) == (True, 3)
    assert store.identity == RedisStore(url, prefix="a b/c").identity != RedisStore(url).identity
    assert repr(open_url("rediss://u:p@host")) == "RedisStore('rediss://host:6379/0', prefix='')"


@pytest.mark.parametrize(
    "wrong", ["redis://host/x", "redis://host?db=1", "redis://host?prefix=a&prefix=b", "redis://host?prefix=../a", "redis://h:x"]
)
def test_urls_that_are_none(wrong):
    with pytest.raises(StoreError):
        open_url(wrong)


def test_errors_that_mean_something():
    store = RedisStore("redis://host")
    for error, kind in (
        (redis.exceptions.MaxConnectionsError("x"), ThrottledError),
        (redis.exceptions.BusyLoadingError("x"), TransientStoreError),
        (redis.exceptions.ReadOnlyError("x"), TransientStoreError),
        (redis.exceptions.MovedError("1 host:1"), StoreError),
        (redis.exceptions.ResponseError("x"), StoreError),
    ):
        assert type(store._classified(error, "a")) is kind
    assert store._classified(KeyError(), "a") is None


def test_all_loops(url, tmp_path):
    store = RedisStore(url, prefix="root")
    asyncio.run(store.set("key", b"value"))
    affinity.check(store, tmp_path)
