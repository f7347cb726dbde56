"""Small chunks: the loop reads those that the store has at hand, and decodes those that have come, as long as that takes it no time."""

from __future__ import annotations

import threading

import numpy as np
import pytest

import azarr
from azarr import CodecError, Engine, runners
from azarr.executors import ThreadExecutor
from azarr.stores import page_cache

DATA = np.arange(1, 8 * 60 + 1, dtype="i4").reshape(8, 60)

pytestmark = pytest.mark.usefixtures("complaints")


class Elsewhere(azarr.MemoryStore):
    """A memory store that has chunks at hand until it is told that it has not."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.at_hand = 0, True

    def get_at_hand(self, key, limit, reserve):
        self.asked += 1
        if not self.at_hand:
            raise BlockingIOError
        return super().get_at_hand(key, limit, reserve)


def refuse(*_):
    raise AssertionError("a worker was asked")


async def create(store, **options):
    array = await azarr.create_array(
        store, shape=DATA.shape, dtype=DATA.dtype, **{"chunks": (4, 6), "compressors": None, "fill_value": -1, **options}
    )
    await array.write(DATA)
    return array


async def collected(stream):
    found = np.full_like(DATA, -2)
    async for chunk in stream:
        found[chunk.region] = chunk.data
    return found


@pytest.fixture(autouse=True)
def no_hurry(monkeypatch):
    """A machine with much to do must not make a batch look slow."""
    monkeypatch.setattr(runners, "LOOP_SHARE", 60.0)


@pytest.fixture
async def engine():
    async with Engine(workers=2) as engine:
        yield engine


@pytest.fixture
async def without_workers(monkeypatch):
    async with Engine() as engine:
        monkeypatch.setattr(engine.executor, "submit", refuse)
        yield engine


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("compressors", [None, "zstd"])
@pytest.mark.parametrize("store", ["memory", "local"])
async def test_they_need_no_worker(tmp_path, without_workers, store, compressors, ordered):
    if store == "local" and not page_cache.AVAILABLE:
        pytest.skip("only Linux can tell whether a file is in memory")
    where = azarr.MemoryStore() if store == "memory" else azarr.LocalStore(tmp_path)
    await create(where, compressors=compressors)
    array = await azarr.open_array(where, engine=without_workers)
    async with array.stream_chunks(ordered=ordered, metadata=True) as stream:
        np.testing.assert_array_equal(await collected(stream), DATA)
    assert stream.stats.done == 20
    async with array[1:7, 5:50].stream_chunks(ordered=ordered) as stream:
        found = np.zeros((6, 45), DATA.dtype)
        async for chunk in stream:
            found[chunk.region] = chunk.data
    np.testing.assert_array_equal(found, DATA[1:7, 5:50])


async def test_missing_ones_are_fill_value(without_workers):
    store = azarr.MemoryStore()
    await create(store)
    await store.erase("c/1/3")
    expected = DATA.copy()
    expected[4:, 18:24] = -1
    array = await azarr.open_array(store, engine=without_workers)
    np.testing.assert_array_equal(await collected(array.stream_chunks()), expected)
    expected[4:, 18:24] = -2
    np.testing.assert_array_equal(await collected(array.stream_chunks(include_missing=False)), expected)


async def test_one_that_is_damaged_fails_alone(without_workers):
    store = azarr.MemoryStore()
    await create(store)
    store.set_blocking("c/0/2", b"short")
    array = await azarr.open_array(store, engine=without_workers)
    with pytest.raises(CodecError) as caught:
        await collected(array.stream_chunks())
    assert caught.value.coords == (0, 2)
    failed = []
    stream = array.stream_chunks(on_error=lambda coords, _: failed.append(coords))
    expected = DATA.copy()
    expected[:4, 12:18] = -2
    np.testing.assert_array_equal(await collected(stream), expected)
    assert failed == [(0, 2)]


async def test_a_store_that_would_have_to_wait_is_asked_once(engine):
    store = Elsewhere()
    await create(store)
    array = await azarr.open_array(store, engine=engine)
    store.asked, store.at_hand = 0, False
    np.testing.assert_array_equal(await collected(array.stream_chunks()), DATA)
    assert store.asked == 1
    store.at_hand = True
    async with array.stream_chunks(concurrency=2) as stream:
        first = [await anext(stream) for _ in range(3)]
        store.asked, store.at_hand = 0, False
        rest = [chunk async for chunk in stream]
    assert store.asked == 1
    assert [chunk.coords for chunk in first + rest] == list(np.ndindex(2, 10))
    for chunk in first + rest:
        np.testing.assert_array_equal(chunk.data, DATA[chunk.region])


@pytest.mark.parametrize(
    "options",
    [
        {"chunks": (8, 600), "shape": (8, 6000), "dtype": "f8"},
        {"dtype": "string", "fill_value": "", "shape": (8,), "chunks": (4,)},
        {"chunks": (4, 6), "shards": (8, 60), "shape": DATA.shape, "dtype": "i4"},
    ],
    ids=["larger than pays", "variable", "sharded"],
)
async def test_others_are_for_workers(engine, monkeypatch, options):
    array = await azarr.create_array(azarr.MemoryStore(), **options, engine=engine)
    monkeypatch.setattr(engine.executor, "submit", refuse)
    with pytest.raises(AssertionError, match="a worker"):
        await anext(array.stream_chunks())


async def test_functions_and_executors_of_others_have_them_in_workers(engine):
    store = azarr.MemoryStore()
    await create(store)
    array = await azarr.open_array(store, engine=engine)
    async with array.map_chunks(lambda _: threading.current_thread()) as threads:
        assert threading.main_thread() not in [chunk.data async for chunk in threads]

    class Counting(ThreadExecutor):
        jobs = 0

        def submit(self, *job):
            self.jobs += 1
            super().submit(*job)

    async with Engine(executor=Counting(1)) as mine:
        array = await azarr.open_array(store, engine=mine)
        before = mine.executor.jobs
        np.testing.assert_array_equal(await collected(array.stream_chunks()), DATA)
        assert mine.executor.jobs > before


@pytest.mark.parametrize("shards", [None, (8, 30)])
@pytest.mark.parametrize("compressors", [None, ["zstd", "crc32c"]])
async def test_awaited_ones_are_decoded_and_encoded_without_a_worker(without_workers, compressors, shards):
    inside = azarr.MemoryStore()
    metadata = (await create(inside, compressors=compressors, shards=shards)).metadata
    array = azarr.AsyncArray(azarr.LatencyStore(inside, 0.0), "", metadata, without_workers)
    for view in (array, array[:, :6]):
        np.testing.assert_array_equal(await view.read(), DATA[:, : view.shape[1]])
    np.testing.assert_array_equal(await collected(array.stream_chunks()), DATA)
    await array.write(DATA * 2)
    await array[1:3, 2:5].write(np.full((2, 3), 7, "i4"))
    expected = DATA * 2
    expected[1:3, 2:5] = 7
    np.testing.assert_array_equal(await array.read(), expected)
    await array.write_stream([((0, 0), np.zeros((4, 6), "i4"))])
    expected[:4, :6] = 0
    np.testing.assert_array_equal(await array.read(), expected)


@pytest.mark.parametrize("executor", ["processes", "auto", "another"])
async def test_awaited_ones_are_for_the_executor_of_the_user(monkeypatch, executor):
    inside = azarr.MemoryStore()
    metadata = (await create(inside)).metadata

    async with Engine(executor=executor if executor != "another" else ThreadExecutor(1)) as engine:
        monkeypatch.setattr(engine.executor, "submit", refuse)
        array = azarr.AsyncArray(azarr.LatencyStore(inside, 0.0), "", metadata, engine)
        with pytest.raises(AssertionError, match="a worker"):
            await array.read()
        with pytest.raises(AssertionError, match="a worker"):
            await array.write(DATA)


@pytest.mark.parametrize("awaited", [False, True])
async def test_a_closed_engine_has_nothing_at_hand(awaited):
    store = azarr.MemoryStore()
    await create(store)
    engine = Engine()
    array = await azarr.open_array(azarr.LatencyStore(store, 0.0) if awaited else store, engine=engine)
    stream = array.stream_chunks()
    await engine.aclose()
    with pytest.raises(RuntimeError, match="engine is closed"):
        await anext(stream)
    with pytest.raises(RuntimeError, match="engine is closed"):
        await array[:4, :6].read()


async def test_others_have_turns_beside_a_stream_that_never_waits(without_workers, turns):
    data = np.zeros(20_000, "i2")
    array = await azarr.create_array(azarr.MemoryStore(), shape=data.shape, chunks=(10,), dtype="i2", compressors=None)
    await array.write(data + 1)
    array = azarr.AsyncArray(array.store, "", array.metadata, without_workers)
    before = turns()
    async with array.stream_chunks() as stream:
        async for _ in stream:
            pass
    assert turns() - before >= 20
