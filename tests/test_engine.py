"""Engines: one for every loop that asks for none, gone with the loop; or one that is shared and closed by whoever made it."""

from __future__ import annotations

import asyncio
import gc
import threading

import numpy as np
import pytest

import azarr
from azarr import Engine, InlineExecutor, LatencyStore, LocalStore, MemoryStore
from azarr import engine as module
from azarr.engine import default_engine

PATIENCE = 30
DATA = np.arange(200_000, dtype="i4").reshape(200, 1000)


@pytest.fixture(params=["memory", "local", "latency", "sharded"])
def filled(request, tmp_path):
    """An array object that was made on a loop that is gone."""
    store = LocalStore(tmp_path / "store", durability="none") if request.param == "local" else MemoryStore()
    shards = (100, 500) if request.param == "sharded" else None

    async def main():
        array = await azarr.create_array(store, "a", shape=DATA.shape, chunks=(50, 250), shards=shards, dtype=DATA.dtype)
        await array.write(DATA)
        if request.param == "latency":
            return await azarr.open_array(LatencyStore(store, 0.0), "a")
        return array

    return asyncio.run(main())


@pytest.fixture
def new_threads():
    """The worker threads that were started since; the fixture's end waits for their end."""
    before = set(threading.enumerate())

    def started():
        return {thread for thread in threading.enumerate() if thread not in before and thread.name.startswith("azarr-")}

    yield started
    assert_ended(started())


def assert_ended(threads):
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()


async def use(array):
    """Read, write and stream, and the threads that did it."""
    assert (await array == DATA).all()
    await array[3:17, 20:30].write(DATA[3:17, 20:30])
    total = 0
    async with array.stream_chunks(ordered=False) as chunks:
        async for chunk in chunks:
            assert (chunk.data == DATA[chunk.region]).all()
            total += chunk.data.size
    assert total == DATA.size
    return set(default_engine().executor._threads)


def test_the_default_engine_is_one_for_each_loop():
    engines = []

    async def main():
        engines.append(default_engine())
        assert default_engine() is engines[-1]
        assert await asyncio.create_task(same()) is engines[-1]

    async def same():
        return default_engine()

    asyncio.run(main())
    asyncio.run(main())
    assert engines[0] is not engines[1]


def test_the_default_engine_needs_a_loop():
    with pytest.raises(RuntimeError, match="no running event loop"):
        default_engine()


def test_the_default_engine_ends_with_its_loop(filled, new_threads):
    threads = asyncio.run(use(filled))
    assert threads
    assert_ended(threads)
    assert not any(loop.is_closed() for loop in module._default_engines)


def test_one_array_object_on_three_loops_one_after_the_other(filled, new_threads):
    for _ in range(3):
        assert_ended(asyncio.run(use(filled)))


def test_one_array_object_on_two_loops_at_once(filled, new_threads):
    start, errors, used = threading.Barrier(2), [], []

    def work():
        async def main():
            for _ in range(20):
                assert (await filled == DATA).all()
            used.append(await use(filled))

        start.wait(PATIENCE)
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)
            raise

    loops = [threading.Thread(target=work) for _ in range(2)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(PATIENCE)
    assert errors == []
    first, second = used
    assert not first & second
    assert_ended(first | second)


def test_loops_that_are_closed_without_a_word(filled, new_threads):
    """Without ``shutdown_asyncgens`` the engine ends as soon as another loop asks for one."""
    threads = set()
    for _ in range(3):
        loop = asyncio.new_event_loop()
        threads |= loop.run_until_complete(use(filled))
        loop.close()
    threads |= asyncio.run(use(filled))
    assert_ended(threads)
    gc.collect()
    assert not any(loop.is_closed() for loop in module._default_engines)


def test_tables_do_not_grow(filled, new_threads):
    before = len(module._default_engines)
    shared = Engine(workers=2)
    other = azarr.AsyncArray(filled.store, filled.path, filled.metadata, shared)

    async def main():
        assert (await filled == DATA).all()
        assert (await other == DATA).all()

    for _ in range(50):
        asyncio.run(main())
        assert len(module._default_engines) == before
        assert len(shared._by_loop) <= 1
    asyncio.run(shared.aclose())
    assert shared._by_loop == {}
    assert_ended(shared.executor._threads)


def test_an_explicit_engine_serves_two_loops_at_once(filled, new_threads):
    engine = Engine(concurrency=4, workers=2)
    array = azarr.AsyncArray(filled.store, filled.path, filled.metadata, engine)
    start, results = threading.Barrier(3), []

    def work():
        async def main():
            for _ in range(10):
                assert (await array == DATA).all()
            async with array.stream_chunks() as chunks:
                results.append(sum([chunk.data.size async for chunk in chunks]))

        start.wait(PATIENCE)
        asyncio.run(main())

    loops = [threading.Thread(target=work) for _ in range(3)]
    for loop in loops:
        loop.start()
    for loop in loops:
        loop.join(PATIENCE)
    assert results == [DATA.size] * 3
    assert len(engine.executor._threads) <= 2
    asyncio.run(engine.aclose())
    assert_ended(engine.executor._threads)


async def test_leaving_an_engine_ends_its_threads(filled):
    async with Engine(workers=2) as engine:
        array = await azarr.open_array(filled.store, "a", engine=engine)
        assert array.engine is engine
        assert (await array == DATA).all()
        threads = list(engine.executor._threads)
        assert threads
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("executor", [None, "inline"])
async def test_a_closed_engine_says_so_and_harms_nothing(filled, executor, complaints):
    engine = Engine(workers=1) if executor is None else Engine(executor=InlineExecutor())
    array = await azarr.open_array(filled.store, "a", engine=engine)
    stream = array.stream_chunks()
    await engine.aclose()
    await engine.aclose()
    with pytest.raises(RuntimeError, match="engine is closed"):
        await array.read()
    with pytest.raises(RuntimeError, match="engine is closed"):
        await array[0, 0].read()
    with pytest.raises(RuntimeError, match="engine is closed"):
        await array.write(np.zeros_like(DATA))
    with pytest.raises(RuntimeError, match="engine is closed"):
        await array[1, 1].write(5)
    with pytest.raises(RuntimeError, match="engine is closed"):
        await anext(stream)
    await stream.aclose()
    assert (await azarr.AsyncArray(filled.store, "a", filled.metadata) == DATA).all()


async def test_closing_an_engine_lets_what_is_under_way_finish_or_fail_and_never_hang(filled, complaints):
    for turns in range(12):
        engine = Engine(workers=2, concurrency=3)
        array = azarr.AsyncArray(filled.store, "a", filled.metadata, engine)
        reading = asyncio.create_task(array.read())
        for _ in range(turns):
            await asyncio.sleep(0)
        await engine.aclose()
        await asyncio.wait([reading], timeout=PATIENCE)
        assert reading.done()
        if reading.exception() is None:
            assert (reading.result() == DATA).all()
        else:
            assert "engine is closed" in str(reading.exception())


async def test_the_error_of_a_job_comes_out_of_the_engine_bare():
    async with Engine(workers=1) as engine:
        assert await engine.call(divmod, 7, 2) == (3, 1)
        with pytest.raises(ZeroDivisionError) as caught:
            await engine.call(divmod, 7, 0)
        assert caught.value.__context__ is None


@pytest.mark.parametrize(
    ("chunk_nbytes", "options", "window"),
    [
        (1, {}, 8),
        (0, {}, 8),
        (100, {}, 8),
        (125, {}, 8),
        (126, {}, 7),
        (500, {}, 2),
        (501, {}, 1),
        (1000, {}, 1),
        (10**12, {}, 1),
        (1, {"concurrency": 3}, 3),
        (1, {"concurrency": 100}, 100),
        (1, {"concurrency": 5000}, 1000),
        (100, {"memory": 250}, 2),
        (100, {"memory": 1}, 1),
        (100, {"memory": 10**9}, 8),
        (100, {"concurrency": 3, "memory": 10**9}, 3),
        (100, {"concurrency": 100, "memory": 450}, 4),
    ],
)
def test_how_many_chunks_fit(chunk_nbytes, options, window):
    engine = Engine(concurrency=8, memory=1000, executor=InlineExecutor())
    assert engine.window(chunk_nbytes, **options) == window


@pytest.mark.parametrize("options", [{"concurrency": 0}, {"memory": 0}, {"concurrency": -1}, {"workers": 0}])
def test_limits_must_allow_something(options):
    with pytest.raises(ValueError, match="at least"):
        Engine(**options)


async def test_requests_are_limited_for_all_that_share_an_engine():
    inner = MemoryStore()
    store = LatencyStore(inner, 0.0)
    async with Engine(concurrency=3) as engine:
        arrays = [await azarr.create_array(store, f"a{n}", shape=DATA.shape, chunks=(25, 500), dtype="i4", engine=engine) for n in range(4)]
        store.max_in_flight = 0
        await asyncio.gather(*(array.write(DATA) for array in arrays))
        results = await asyncio.gather(*(array.read() for array in arrays))
        assert all((result == DATA).all() for result in results)
        assert store.max_in_flight == 3


def test_a_repr_says_what_it_allows():
    assert repr(Engine(concurrency=3, memory=4, executor=InlineExecutor())) == "<Engine concurrency=3 memory=4 workers=0>"
