"""S3Store on a real server, which checks signatures: on many loops, with many writers, and on a bad network."""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import pickle
import threading
import uuid
import warnings

import affinity
import pytest

sdk = pytest.importorskip("azarr.stores.s3", reason='needs aiobotocore: pip install "azarr[s3]"', exc_type=ImportError)

import azarr  # noqa: E402 - needed only where the packages are there
from azarr.errors import PreconditionFailedError, StoreError  # noqa: E402
from azarr.retry import RetryPolicy  # noqa: E402
from azarr.stores import s3_uploads  # noqa: E402
from azarr.testing import FaultProxy, StoreSuite  # noqa: E402
from azarr.testing.faults import Answer, BrokenBody, LostResponse, Reset, TruncatedBody  # noqa: E402
from azarr.types import ByteRange  # noqa: E402

PATIENT = RetryPolicy(first_delay=0.005, longest_delay=0.5, attempts=20, budget=10**6)


def store_of(server, **options):
    """A store of a place of its own in the bucket."""
    known = {
        "prefix": f"t/{uuid.uuid4().hex}",
        "endpoint_url": server.url,
        "region": server.region,
        "access_key": server.access_key,
        "secret_key": server.secret_key,
    }
    return sdk.S3Store("bucket", **{**known, **options})


@pytest.fixture
async def store(s3_server, s3_bucket):
    async with store_of(s3_server) as store:
        yield store


class TestS3Store(StoreSuite):
    @pytest.fixture
    async def store(self, s3_server, s3_bucket):
        async with store_of(s3_server) as store:
            yield store

    async def test_erase_prefix(self, store):
        pytest.skip("SeaweedFS lists folders that are empty for a while; the suite on moto has this test")

    async def test_erase_prefix_of_everything(self, store):
        pytest.skip("SeaweedFS lists folders that are empty for a while; the suite on moto has this test")


async def test_prefixes_are_erased(store):
    for key in ("a/b", "a/c/d", "ab/c"):
        await store.set(key, b"")
    await store.erase_prefix("a/")
    assert [key async for key in store.list_prefix()] == ["ab/c"]


async def test_signatures_are_checked(s3_server, s3_bucket):
    async with store_of(s3_server, secret_key="another") as store:
        for request in (store.get("k"), store.set("k", b""), store.size("k"), store.erase("k"), anext(store.list_prefix())):
            with pytest.raises(StoreError) as failure:
                await request
            assert "another" not in str(failure.value)
    async with store_of(s3_server, access_key="nobody") as store:
        with pytest.raises(StoreError, match="InvalidAccessKeyId"):
            await store.get("k")


async def test_buckets_that_are_not_there(s3_server, s3_bucket):
    async with sdk.S3Store(
        "nowhere", endpoint_url=s3_server.url, region="us-east-1", access_key=s3_server.access_key, secret_key=s3_server.secret_key
    ) as store:
        for request in (store.get("k"), store.size("k"), anext(store.list_prefix())):
            with pytest.raises(StoreError, match="NoSuchBucket"):
                await request


async def test_conditions_are_heeded(store):
    assert await store.check_conditional_writes()


async def test_large_values_go_in_parts(store, monkeypatch):
    monkeypatch.setattr(sdk, "WHOLE_NBYTES", 2**20)
    value = bytes(range(256)) * (17 * 2**12)
    await store.set("k", value)
    found = await store.get_versioned("k")
    assert found.value == value
    assert len(found.version.marks) == 1
    await store.set_if("k", value[1:], found.version)
    with pytest.raises(PreconditionFailedError):
        await store.set_if("k", value, found.version)
    assert await store.get("k", ByteRange(2**20, 2**20 + 5)) == value[2**20 + 1 : 2**20 + 6]


# --- loops


@pytest.fixture
def nothing_unclosed(caplog):
    """No warning and no complaint about anything that was not closed, also none from finalizers."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(warning.message) for warning in told] == []
    assert caplog.messages == []


def loops():
    yield pytest.param(asyncio.new_event_loop, id="asyncio")
    try:
        import uvloop
    except ImportError:
        yield pytest.param(None, id="uvloop", marks=pytest.mark.skip(reason="needs uvloop: pip install uvloop"))
    else:
        yield pytest.param(uvloop.new_event_loop, id="uvloop")


@pytest.fixture(params=loops())
def run(request):
    """Runs a coroutine on a new loop."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(coroutine)

    return run


async def use(store, name):
    await asyncio.gather(*(store.set(f"{name}/{number}", b"%d" % number) for number in range(10)))
    values = await asyncio.gather(*(store.get(f"{name}/{number}") for number in range(10)))
    assert values == [b"%d" % number for number in range(10)]
    assert len([key async for key in store.list_prefix(f"{name}/")]) == 10


@pytest.mark.parametrize("closed", [True, False])
def test_one_loop_after_the_other(s3_server, s3_bucket, run, nothing_unclosed, closed):
    store = store_of(s3_server)

    async def main(name):
        await use(store, name)
        if closed and name == "2":
            await store.aclose()

    for name in "012":
        run(main(name))


def test_all_loops(s3_server, s3_bucket, tmp_path):
    store = store_of(s3_server)
    asyncio.run(store.set("key", b"value"))
    affinity.check(store, tmp_path)


def test_loops_in_two_threads(s3_server, s3_bucket, run, nothing_unclosed):
    store, barrier, failures = store_of(s3_server), threading.Barrier(2), []

    def work(name):
        async def main():
            await use(store, name)
            barrier.wait(60)
            await use(store, f"{name}-again")

        try:
            run(main())
        except BaseException as error:  # noqa: BLE001 - raised by the test
            barrier.abort()
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_unpickled(s3_server, s3_bucket, run, nothing_unclosed):
    async def main(store):
        await use(store, "here")
        copy = pickle.loads(pickle.dumps(store))
        await use(copy, "there")
        await copy.aclose()
        return copy

    copy = run(main(store_of(s3_server)))
    with pytest.raises(StoreError, match="closed"):
        run(copy.get("k"))


def forked(store, outcome):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            asyncio.run(use(store, "child"))
            gc.collect()
            outcome.put([str(warning.message) for warning in told])
        except BaseException as error:  # noqa: BLE001 - told to the test
            outcome.put(repr(error))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs a system that forks")
def test_after_a_fork(s3_server, s3_bucket, nothing_unclosed):
    """The child has loops, and so connections, of its own; those of the parent go on."""
    context, store = multiprocessing.get_context("fork"), store_of(s3_server)
    outcome = context.Queue()

    async def main():
        await use(store, "before")
        child = context.Process(target=forked, args=(store, outcome))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads, which the default executor has
            child.start()
        await use(store, "meanwhile")
        told = await asyncio.to_thread(outcome.get, timeout=60)
        child.join(60)
        await use(store, "after")
        return told

    assert asyncio.run(main()) == []
    outcome.close()
    outcome.join_thread()


@pytest.mark.parametrize("at_the_end", [True, False])
def test_a_store_that_is_forgotten(s3_server, s3_bucket, run, nothing_unclosed, at_the_end):
    async def main():
        await use(store_of(s3_server), "x")
        for _ in range(0 if at_the_end else 10):
            gc.collect()
            await asyncio.sleep(0)

    run(main())


# --- writers


async def add(store, times):
    for _ in range(times):
        while True:
            found = await store.get_versioned("count")
            try:
                await store.set_if("count", str(int(bytes(found.value or b"0")) + 1).encode(), found.version)
                break
            except PreconditionFailedError:
                await asyncio.sleep(0)


async def test_nothing_is_lost_by_sixteen_writers(store):
    await asyncio.gather(*(add(store, 5) for _ in range(16)))
    assert await store.get("count") == b"80"


async def test_nothing_is_lost_by_writers_whose_answers_are(s3_server, s3_bucket):
    faults = {LostResponse(): 0.15, Reset(): 0.05, Answer(503, code="SlowDown", retry_after=0): 0.05}
    async with (
        FaultProxy(s3_server.host, s3_server.port, seed=3, faults=faults) as proxy,
        store_of(s3_server, endpoint_url=proxy.url, retry=PATIENT) as store,
    ):
        await asyncio.gather(*(add(store, 5) for _ in range(4)))
        proxy.inject(None)
        assert await store.get("count") == b"20"
        assert proxy.injected["lost_response"] > 0


def write_half(store, start):
    async def main():
        array = await azarr.open_array(store, "a")
        for index in range(start, 20, 2):
            await array[index].write(index)

    asyncio.run(main())


def test_nothing_is_lost_by_processes_that_share_a_chunk(s3_server, s3_bucket):
    store = store_of(s3_server)
    asyncio.run(azarr.create_array(store, "a", shape=20, chunks=20, dtype="i4"))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=write_half, args=(store, start)) for start in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(100)
    assert [process.exitcode for process in processes] == [0, 0]

    async def content():
        return await (await azarr.open_array(store, "a")).read()

    assert asyncio.run(content()).tolist() == list(range(20))


# --- a bad network


async def test_a_fifth_of_all_requests_fails(s3_server, s3_bucket):
    faults = {
        Reset(): 0.04,
        LostResponse(): 0.03,
        BrokenBody(): 0.03,
        TruncatedBody(): 0.03,
        Answer(503): 0.03,
        Answer(500, code="InternalError"): 0.04,
    }
    values = {f"c/{number}": b"%d " % number * (number % 50) for number in range(2000)}
    async with (
        FaultProxy(s3_server.host, s3_server.port, seed=1, faults=faults) as proxy,
        store_of(s3_server, endpoint_url=proxy.url, retry=PATIENT) as store,
    ):
        await asyncio.gather(*(store.set(key, value) for key, value in values.items()))
        found = dict(zip(values, await asyncio.gather(*map(store.get, values)), strict=True))
        listed = [key async for key in store.list_prefix()]
        assert proxy.requests > 4000
        assert sum(proxy.injected.values()) > 600
    assert [key for key, value in values.items() if found[key] != value] == []
    assert sorted(listed) == sorted(values)


async def test_a_server_that_takes_so_many_requests_a_second(s3_server, s3_bucket):
    async with (
        FaultProxy(s3_server.host, s3_server.port, rate_limit=50) as proxy,
        store_of(s3_server, endpoint_url=proxy.url, retry=PATIENT) as store,
    ):
        await asyncio.gather(*(store.set(f"c/{number}", b"v") for number in range(150)))
        assert len([key async for key in store.list_prefix()]) == 150
        assert 0 < store.stats.throttled < 150


async def test_large_values_on_a_bad_network(s3_server, s3_bucket, monkeypatch):
    monkeypatch.setattr(sdk, "WHOLE_NBYTES", 2**20)
    monkeypatch.setattr(s3_uploads, "PART_NBYTES", 5 * 2**20)
    faults = {Reset(): 0.05, LostResponse(): 0.15, Answer(500, code="InternalError"): 0.05}
    value = bytes(range(256)) * (11 * 2**12)
    async with (
        FaultProxy(s3_server.host, s3_server.port, seed=2, faults=faults) as proxy,
        store_of(s3_server, endpoint_url=proxy.url, retry=PATIENT) as store,
    ):
        for number in range(6):
            await store.set_if(f"k{number}", value[number:], None)
            found = await store.get_versioned(f"k{number}")
            assert found.value == value[number:]
            with pytest.raises(PreconditionFailedError):
                await store.set_if(f"k{number}", value, None)
            await store.set(f"k{number}", value)
            assert await store.get(f"k{number}") == value
        assert proxy.injected["lost_response"] > 5
