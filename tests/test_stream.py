"""Streams: every chunk once, no more of them at once than allowed, and nothing left however a stream ends."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref

import numpy as np
import pytest

import azarr
from azarr import (
    CodecError,
    Engine,
    InlineExecutor,
    LatencyStore,
    LocalStore,
    MemoryStore,
    StoreError,
    StreamError,
    ThreadExecutor,
    chunk_reader,
)
from azarr import stream as module

PATIENCE = 30
DATA = np.arange(60 * 70, dtype="i4").reshape(60, 70) + 1

pytestmark = pytest.mark.usefixtures("complaints")


class RecordingStore:
    """An awaited store over the values of another, which knows what is in flight; requests wait for ``gate``."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.failing: dict[str, BaseException] = {}
        self.in_flight = self.max_in_flight = 0

    async def get(self, key, byte_range=None):
        self.begun.append(key)
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            if key in self.failing:
                raise self.failing[key]
            return await self.inner.get(key, byte_range)
        finally:
            self.in_flight -= 1
            self.ended.append(key)


class GatedStore(MemoryStore):
    """A memory store whose ``get_blocking`` waits for ``gate``, and counts what is fetched."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.begun = threading.Event(), threading.Event()
        self.gate.set()
        self.fetched, self.inside, self.failing = [], 0, {}

    def get_blocking(self, key, byte_range=None, reserve=None):
        if "/c/" in key:
            self.fetched.append(key)
            self.inside += 1
            self.begun.set()
            try:
                self.gate.wait(PATIENCE)
                if key in self.failing:
                    raise self.failing[key]
            finally:
                self.inside -= 1
        return super().get_blocking(key, byte_range, reserve)


async def turns(count=10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition) -> None:
    """Let the loop go round until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0)


async def filled(store, *, data=DATA, chunks=(10, 20), engine=None, **options):
    array = await azarr.create_array(store, "a", shape=data.shape, chunks=chunks, dtype=data.dtype, engine=engine, **options)
    await array.write(data)
    if isinstance(store, GatedStore):  # what hangs over the edge is read before it is written
        store.fetched.clear()
        store.begun.clear()
    return array


async def behind(store_type, *, engine=None, **options):
    """A filled array in a memory store, read through another store."""
    inner = MemoryStore()
    array = await filled(inner, **options)
    return azarr.AsyncArray(store_type(inner), "a", array.metadata, engine)


@pytest.fixture(params=["memory", "local", "latency"])
def make_array(request, tmp_path):
    """Fills an array and opens it through each kind of store."""

    async def make(**options):
        inner = LocalStore(tmp_path / "s", durability="none") if request.param == "local" else MemoryStore()
        array = await filled(inner, **options)
        if request.param != "latency":
            return array
        return azarr.AsyncArray(LatencyStore(inner, 0.0, jitter=0.001, seed=1), "a", array.metadata, options.get("engine"))

    return make


FORMATS = [
    {},
    {"chunks": (1, 70)},
    {"chunks": (7, 11)},
    {"chunks": (100, 100)},
    {"compressors": None},
    {"order": "F"},
    {"chunks": (5, 10), "shards": (20, 30)},
    {"chunks": (5, 10), "shards": {"shape": (20, 30), "index_location": "start"}, "compressors": None},
    {"zarr_format": 2},
    {"zarr_format": 2, "compressors": None, "order": "F", "chunks": (7, 11)},
]

VIEWS = [
    (...,),
    (slice(5, 48), slice(13, 66)),
    (slice(None, None, 3), slice(2, None, 7)),
    (slice(None, None, 25), slice(None, None, 33)),
    (17,),
    (slice(None), 23),
    (-1, slice(60, None)),
    (3, 4),
    (slice(5, 5),),
]


# --- what is streamed


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("options", FORMATS, ids=str)
async def test_all_chunks_come_once_and_whole(make_array, options, ordered):
    array = await make_array(**options)
    for key in VIEWS:
        view, expected = array[key], DATA[key]
        result, seen = np.zeros_like(expected), []
        async with view.stream_chunks(ordered=ordered) as chunks:
            async for chunk in chunks:
                assert len(chunk.region) == expected.ndim
                assert chunk.data.dtype == DATA.dtype
                assert chunk.data.shape == result[chunk.region].shape
                assert (result[chunk.region] == 0).all()
                result[chunk.region] = chunk.data
                seen.append(chunk.coords)
        assert (result == expected).all()
        assert len(set(seen)) == len(seen)
        assert all(len(coords) == 2 for coords in seen)
        if ordered:
            assert seen == sorted(seen)


async def test_missing_chunks_come_as_fill_value(make_array):
    data = DATA.copy()
    data[10:30] = 7
    array = await make_array(data=data, fill_value=7)
    async with array.stream_chunks() as chunks:
        async for chunk in chunks:
            assert (chunk.data == data[chunk.region]).all()
            chunk.data[...] = 0  # the receiver's own


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (1,)])
async def test_shapes_at_the_edge(make_array, shape):
    data = np.full(shape, 5, "i4")
    array = await make_array(data=data, chunks=tuple(max(1, length) for length in shape))
    async with array.stream_chunks() as chunks:
        got = [chunk async for chunk in chunks]
    assert len(got) == (0 if 0 in shape else 1)
    for chunk in got:
        assert chunk.data.shape == shape
        assert chunk.coords == (0,) * len(shape)
        assert (data[chunk.region] == chunk.data).all()


@pytest.mark.parametrize("options", FORMATS, ids=str)
@pytest.mark.parametrize("key", [(...,), (slice(5, 48), 13)], ids=str)
async def test_data_belong_to_the_receiver(make_array, options, key):
    array = await make_array(**options)
    async with array[key].stream_chunks() as chunks:
        got = [chunk async for chunk in chunks]
    for number, chunk in enumerate(got):
        assert chunk.data.flags.writeable
        chunk.data[...] = -1 - number
    for number, chunk in enumerate(got):
        assert (chunk.data == -1 - number).all()
        assert not any(np.shares_memory(chunk.data, other.data) for other in got[number + 1 :])
    assert (await array[key] == DATA[key]).all()


# --- how much at once


async def test_nothing_is_fetched_before_the_first_chunk_is_asked_for():
    array = await behind(RecordingStore)
    stream = array.stream_chunks()
    await turns()
    assert array.store.begun == []
    assert (await anext(stream)).coords == (0, 0)
    await stream.aclose()
    blocking = GatedStore()
    stream = (await filled(blocking)).stream_chunks()
    await turns()
    assert blocking.fetched == []
    await stream.aclose()
    assert blocking.fetched == []


async def test_a_stream_that_is_never_used_leaves_nothing(make_array):
    array = await make_array()
    stream = array.stream_chunks()
    del stream
    async with array.stream_chunks():
        pass


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 3, 5])
async def test_concurrency_holds_and_is_used(concurrency, ordered):
    array = await behind(RecordingStore)
    async with array.stream_chunks(concurrency=concurrency, ordered=ordered) as chunks:
        assert len([chunk async for chunk in chunks]) == 24
    assert array.store.max_in_flight == concurrency


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_slow_consumer_does_not_let_the_stream_run_ahead(ordered):
    array = await behind(RecordingStore)
    async with array.stream_chunks(concurrency=4, ordered=ordered) as chunks:
        handed_out = 0
        async for _ in chunks:
            handed_out += 1
            await turns(30)
            assert len(array.store.begun) <= handed_out + 3  # those in the window, with the one that the consumer works on
    assert handed_out == 24


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("shards", [None, (20, 30)])
async def test_a_slow_consumer_does_not_let_workers_run_ahead(ordered, shards):
    store = GatedStore()
    engine = Engine(executor=InlineExecutor(), concurrency=8)
    array = await filled(store, chunks=(5, 10), shards=shards, engine=engine)
    decoded = 0
    original = chunk_reader.decode_data

    def counting(*args):
        nonlocal decoded
        decoded += 1
        return original(*args)

    chunk_reader.decode_data = counting
    try:
        async with array.stream_chunks(ordered=ordered) as chunks:
            handed_out = 0
            async for _ in chunks:
                handed_out += 1
                await turns(5)
                assert decoded <= handed_out + 7
    finally:
        chunk_reader.decode_data = original
    assert handed_out == decoded == 84


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("store_type", [lambda inner: inner, RecordingStore], ids=["blocking", "awaited"])
async def test_memory_bounds_the_chunks_that_are_alive(store_type, ordered, monkeypatch):
    """With the one in the consumer's hands there are never more chunks than fit."""
    alive, worst, mutex = 0, 0, threading.Lock()

    class Tracked(np.ndarray):
        def __del__(self):
            nonlocal alive
            if self.base is None:
                with mutex:
                    alive -= 1

    def tracked(shape, dtype):
        nonlocal alive, worst
        with mutex:
            alive += 1
            worst = max(worst, alive)
        return np.ndarray.__new__(Tracked, shape, dtype)

    def decode_own(pipeline, data, coords, empty):
        chunk = tracked(pipeline.spec.shape, pipeline.spec.dtype)
        pipeline.decode_into(data, chunk)
        return chunk

    monkeypatch.setattr(chunk_reader, "decode_own", decode_own)
    data = np.arange(6400, dtype="i4").reshape(80, 80)
    # on the loop, as a worker may hold on to a chunk for the moment that it takes to post it
    array = await behind(store_type, data=data, chunks=(8, 8), engine=Engine(executor=InlineExecutor()))
    for fit in (1, 2, 5, 9):
        worst = 0
        async with array.stream_chunks(ordered=ordered, memory=fit * 256 + 100) as chunks:
            async for chunk in chunks:
                await turns(2)
                del chunk
        gc.collect()
        assert alive == 0
        assert 1 <= worst <= fit


# --- how a stream ends


@pytest.fixture(params=["blocking", "awaited"])
def make_busy(request, counting_executor):
    """Makes an array whose stream has more under way after its first chunk; ``make.idle()`` says whether all of it is over."""
    inner = ThreadExecutor(2)
    executor = counting_executor(inner)
    engine = Engine(executor=executor, concurrency=6)
    stores = []

    async def make(**options):
        array = (
            await behind(RecordingStore, engine=engine, **options) if request.param == "awaited" else await filled(GatedStore(), **options)
        )
        stores.append(array.store)
        return azarr.AsyncArray(array.store, "a", array.metadata, engine)

    def idle():
        return executor.running == executor.outstanding == 0 and not any(getattr(store, "in_flight", 0) for store in stores)

    make.idle, make.kind, make.executor = idle, request.param, executor
    yield make
    assert idle()
    executor.close()
    inner.join()


def lone() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def test_break_inside_async_with(make_busy):
    array = await make_busy()
    async with array.stream_chunks() as chunks:
        async for _ in chunks:
            break
    assert make_busy.idle()
    assert lone()


async def test_aclose_and_use_after_it(make_busy):
    array = await make_busy()
    stream = array.stream_chunks()
    await anext(stream)
    await stream.aclose()
    assert make_busy.idle()
    assert lone()
    await stream.aclose()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert [chunk async for chunk in stream] == []


async def test_a_stream_that_came_to_its_end_stays_there(make_busy):
    array = await make_busy()
    stream = array.stream_chunks()
    assert len([chunk async for chunk in stream]) == 24
    assert make_busy.idle()
    assert lone()
    for _ in range(2):
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    await stream.aclose()


async def test_contextlib_closes_it_too(make_busy):
    array = await make_busy()
    async with contextlib.aclosing(array.stream_chunks()) as chunks:
        await anext(chunks)
    assert make_busy.idle()
    assert lone()


async def test_an_error_in_the_consumer_comes_out_as_it_is(make_busy):
    array, error = await make_busy(), ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught:
        async with array.stream_chunks() as chunks:
            async for _ in chunks:
                raise error
    assert caught.value is error
    assert error.__context__ is None
    assert make_busy.idle()
    assert lone()


async def test_cancelling_a_consumer_that_waits_for_a_chunk(make_busy):
    array = await make_busy()
    array.store.gate.clear()

    async def consume():
        async with array.stream_chunks() as chunks:
            await anext(chunks)

    task = asyncio.create_task(consume())
    await until(lambda: array.store.fetched if make_busy.kind == "blocking" else array.store.begun)
    task.cancel()
    await turns()
    array.store.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert make_busy.idle()
    assert lone()


async def test_cancelling_a_consumer_that_works_on_a_chunk(make_busy):
    array, working = await make_busy(), asyncio.Event()

    async def consume():
        async with array.stream_chunks() as chunks:
            async for _ in chunks:
                working.set()
                await asyncio.Event().wait()

    task = asyncio.create_task(consume())
    await asyncio.wait_for(working.wait(), PATIENCE)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert make_busy.idle()
    assert lone()


async def test_a_timeout_around_a_stream(make_busy):
    array = await make_busy()
    array.store.gate.clear()
    asyncio.get_running_loop().call_later(0.005, array.store.gate.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001), array.stream_chunks() as chunks:
            async for _ in chunks:
                await asyncio.Event().wait()
    assert make_busy.idle()
    assert lone()


async def test_half_a_stream_does_not_pass_for_a_whole_one(make_busy):
    """Once waiting for a chunk was cancelled, the stream is over, and says so."""
    array = await make_busy()
    stream = array.stream_chunks()
    await anext(stream)
    array.store.gate.clear()
    asyncio.get_running_loop().call_later(0.005, array.store.gate.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            while True:
                await anext(stream)
    assert make_busy.idle()
    assert lone()
    for _ in range(2):
        with pytest.raises(StreamError, match="before its last chunk"):
            await anext(stream)
    await stream.aclose()


async def test_closing_while_another_task_waits(make_busy):
    array = await make_busy()
    array.store.gate.clear()
    stream = array.stream_chunks()
    waiting = asyncio.create_task(anext(stream))
    await until(lambda: array.store.fetched if make_busy.kind == "blocking" else array.store.begun)
    closing = [asyncio.create_task(stream.aclose()) for _ in range(2)]
    await turns()
    array.store.gate.set()
    _, pending = await asyncio.wait([waiting, *closing], timeout=PATIENCE)
    assert not pending
    assert isinstance(waiting.exception(), StopAsyncIteration)
    assert [task.exception() for task in closing] == [None, None]
    assert make_busy.idle()
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_closing_while_another_task_lets_the_loop_go_round(make_busy, monkeypatch):
    """A stream whose chunks are ready rests now and then; it can be closed meanwhile, too."""
    array = await make_busy(chunks=(2, 2))
    monkeypatch.setattr(module, "LOOP_SHARE", -1.0)
    for distance in range(20):
        stream = array.stream_chunks()
        await anext(stream)

        async def consume(stream=stream):
            return [chunk async for chunk in stream]

        task = asyncio.create_task(consume())
        await turns(distance)
        await stream.aclose()
        await asyncio.wait([task], timeout=PATIENCE)
        assert task.exception() is None


async def test_garbage_gives_up_its_work(make_busy):
    array = await make_busy()
    stream = array.stream_chunks()
    await anext(stream)
    alive = weakref.ref(stream)
    del stream
    gc.collect()
    assert alive() is None
    await until(lambda: make_busy.idle() and lone())
    store = array.store
    count = len(store.fetched if make_busy.kind == "blocking" else store.begun)
    await turns(50)
    assert len(store.fetched if make_busy.kind == "blocking" else store.begun) == count < 24


async def test_break_without_async_with_gives_up_its_work(make_busy):
    array = await make_busy()
    async for _ in array.stream_chunks():
        break
    gc.collect()
    await until(lambda: make_busy.idle() and lone())


def test_garbage_after_its_loop_is_closed():
    kept = []

    async def main():
        array = await filled(MemoryStore())
        kept.append(array.stream_chunks())
        await anext(kept[0])

    asyncio.run(main())
    kept.clear()
    gc.collect()


# --- errors


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", [StoreError, OSError, ValueError])
async def test_a_chunk_that_cannot_be_fetched(make_busy, kind, ordered):
    array, error = await make_busy(), kind("no")
    array.store.failing["a/c/2/1"] = error
    seen = []
    with pytest.raises(kind) as caught:
        async with array.stream_chunks(ordered=ordered) as chunks:
            async for chunk in chunks:
                seen.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream fails
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    if ordered:
        assert seen == [(row, column) for row in range(6) for column in range(4)][:9]
    assert (2, 1) not in seen
    assert make_busy.idle()
    assert lone()


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("chunks", [(10, 20), (2, 2)])
@pytest.mark.parametrize("shards", [False, True])
async def test_a_chunk_that_is_damaged(make_busy, ordered, chunks, shards):
    """An ordered stream delivers everything before it, also where chunks are fetched and decoded several at a time."""
    if shards:
        array = await make_busy(chunks=chunks, shards=(20, 20), compressors=["zstd", "crc32c"])
        inner = getattr(array.store, "inner", array.store)
        shard = bytearray(inner._values["a/c/1/1"])
        shard[10] ^= 255  # in the first chunk that was written into it
        inner._values["a/c/1/1"] = bytes(shard)
        bad = (20 // chunks[0], 20 // chunks[1])
    else:
        array = await make_busy(chunks=chunks)
        bad = (2, 3)
        getattr(array.store, "inner", array.store)._values["a/c/2/3"] = b"damaged"
    seen = []
    with pytest.raises(CodecError) as caught:
        async with array.stream_chunks(ordered=ordered, concurrency=64) as stream:
            async for chunk in stream:
                seen.append(chunk.coords)
                assert (chunk.data == DATA[chunk.region]).all()
    assert caught.value.coords == bad
    assert caught.value.__context__ is None or caught.value.__cause__ is caught.value.__context__
    if ordered:
        columns = -(-70 // chunks[1])
        assert seen == [divmod(number, columns) for number in range(bad[0] * columns + bad[1])]
    assert bad not in seen
    assert make_busy.idle()
    assert lone()


async def test_a_stream_that_failed_does_not_pass_for_a_whole_one(make_busy):
    array = await make_busy()
    array.store.failing["a/c/1/1"] = StoreError("no", key="a/c/1/1")
    stream = array.stream_chunks()
    with pytest.raises(StoreError):
        async for _ in stream:
            pass
    for _ in range(2):
        with pytest.raises(StreamError, match="before its last chunk"):
            await anext(stream)
    await stream.aclose()


async def test_of_several_failures_the_first_comes_out(make_busy):
    array = await make_busy()
    errors = {f"a/c/{row}/{column}": StoreError(f"{row}/{column}") for row in range(6) for column in range(4)}
    array.store.failing.update(errors)
    with pytest.raises(StoreError) as caught:
        async with array.stream_chunks() as chunks:
            await anext(chunks)
    assert caught.value is errors["a/c/0/0"]
    assert caught.value.__context__ is None


async def test_two_consumers_of_one_stream(make_busy):
    """The second one is told; the first one loses nothing by it."""
    array = await make_busy()
    array.store.gate.clear()
    stream, got = array.stream_chunks(), []

    async def consume():
        got.extend([chunk.coords async for chunk in stream])

    first = asyncio.create_task(consume())
    await until(lambda: array.store.fetched if make_busy.kind == "blocking" else array.store.begun)
    with pytest.raises(StreamError, match="another task"):
        await anext(stream)
    array.store.gate.set()
    await first
    assert got == [(row, column) for row in range(6) for column in range(4)]


async def test_two_streams_of_one_array_are_two(make_busy):
    array = await make_busy()
    async with array.stream_chunks() as first, array.stream_chunks() as second:
        while True:
            try:
                one = await anext(first)
            except StopAsyncIteration:
                break
            two = await anext(second)
            assert one.coords == two.coords
            assert not np.shares_memory(one.data, two.data)
        with pytest.raises(StopAsyncIteration):
            await anext(second)


# --- how far it is


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("options", [{}, {"shards": (20, 40)}, {"chunks": (2, 2)}], ids=["plain", "sharded", "small"])
async def test_stats_are_right_at_any_time(make_busy, ordered, on_error, options):
    """Looked at by another task whenever it has its turn, and by the consumer."""
    data = DATA.copy()
    data[20:30] = 0
    array, seen = await make_busy(data=data, **{"chunks": (10, 10), **options}), []
    # the document has these chunks, whoever holds it
    array.store.failing["a/c/4/3" if "shards" not in options else "a/c/2/1"] = StoreError("no")
    stream = array.stream_chunks(
        ordered=ordered, on_error=on_error, include_missing=False, filter=lambda coords: sum(coords) % 5, concurrency=10
    )
    total = stream.stats.total
    assert total == array.nchunks
    zero = stream.stats
    assert (zero.done, zero.in_flight, zero.buffered, zero.buffered_nbytes, zero.nbytes, zero.seconds) == (0, 0, 0, 0, 0, 0.0)

    async def watch():
        while True:
            seen.append(stream.stats)
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    done = nbytes = 0
    try:
        async with stream:
            async for chunk in stream:
                done += 1
                nbytes += chunk.data.nbytes
                seen.append(stream.stats)
                assert (seen[-1].done, seen[-1].nbytes) == (done, nbytes)
                if done % 3 == 0:
                    await turns(3)
    except StoreError:
        assert on_error == "raise"
    seen.append(stream.stats)
    watching.cancel()
    await asyncio.wait([watching])
    for stats in seen:
        assert min(stats.done, stats.in_flight, stats.buffered, stats.buffered_nbytes, stats.filtered, stats.missing, stats.failed) >= 0
        assert stats.in_flight + stats.buffered <= 10
        assert stats.total == total - stats.filtered - stats.missing - stats.failed
        assert stats.done + stats.in_flight + stats.buffered <= stats.total + 1  # one that is missing is not counted until it is its turn
        assert stats.buffered_nbytes <= stats.buffered * array.source.pipeline.spec.nbytes
    for name in ("done", "filtered", "missing", "failed", "nbytes", "seconds"):
        values = [getattr(stats, name) for stats in seen]
        assert values == sorted(values)
    assert any(stats.in_flight for stats in seen)
    last = seen[-1]
    assert last.in_flight == last.buffered == last.buffered_nbytes == 0
    if on_error == "skip":
        assert last.done == last.total == done
        assert last.missing > 0
        assert last.failed > 0


async def test_stats_of_what_is_ready_and_what_is_under_way():
    array = await behind(RecordingStore, engine=Engine(executor=InlineExecutor(), concurrency=6))
    stream = array.stream_chunks()
    await anext(stream)
    await turns(20)
    await until(lambda: stream.stats.in_flight == 0)
    stats = stream.stats
    assert (stats.done, stats.buffered, stats.buffered_nbytes) == (1, 5, 5 * 800 - 400)  # one hangs over the edge
    array.store.gate.clear()
    await anext(stream)
    assert (stream.stats.in_flight, stream.stats.buffered, stream.stats.done) == (1, 4, 2)
    array.store.gate.set()
    await stream.aclose()


# --- the loop goes on


@pytest.mark.parametrize("chunks", [(2, 2), (1, 1), (1, 70_000)])
async def test_other_tasks_have_their_turns_while_chunks_are_always_ready(monkeypatch, chunks):
    """However long the consumer computes over each chunk: it is measured with a clock that it moves itself."""
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    beats, worst = [0.0], 0.0

    async def heart():
        nonlocal worst
        while True:
            worst = max(worst, clock[0] - beats[-1])
            beats.append(clock[0])
            await asyncio.sleep(0)

    data = DATA if chunks[1] < 70 else np.tile(DATA[:40], (1, 1000))
    engine = Engine(concurrency=1000, executor=InlineExecutor())
    array = await filled(MemoryStore(), data=data, chunks=chunks, engine=engine)
    beating = asyncio.create_task(heart())
    async with array.stream_chunks() as stream:
        async for _ in stream:
            clock[0] += module.LOOP_SHARE / 2
    beating.cancel()
    await asyncio.wait([beating])
    assert worst <= 2 * module.LOOP_SHARE


# --- cancellation everywhere, and other libraries


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("kind", ["blocking", "awaited", "sharded"])
def test_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, counting_executor, kind, ordered):
    inner = ThreadExecutor(2)

    async def prepare():
        executor = counting_executor(inner)
        engine = Engine(executor=executor, concurrency=3)
        options = {"chunks": (20, 30), "shards": (40, 60)} if kind == "sharded" else {"chunks": (20, 30)}
        array = await behind((lambda store: store) if kind == "blocking" else RecordingStore, **options)
        array = azarr.AsyncArray(array.store, "a", array.metadata, engine)
        count = 0

        async def body():
            nonlocal count
            async with array.stream_chunks(ordered=ordered) as chunks:
                async for _ in chunks:
                    count += 1
                    await asyncio.sleep(0)

        def check():
            assert executor.running == executor.outstanding == 0
            assert getattr(array.store, "in_flight", 0) == 0
            assert count <= 9

        return body(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 9
    inner.close()
    inner.join()


@pytest.mark.parametrize("kind", ["blocking", "awaited", "sharded"])
@pytest.mark.parametrize("verb", ["read", "write", "write a part"])
def test_reading_and_writing_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, counting_executor, kind, verb):
    """Also: a cancelled write leaves every chunk as it was or as it was to be."""
    inner = ThreadExecutor(2)
    new = -DATA if verb == "write" else DATA.copy()
    if verb == "write a part":
        new[5:50, 10:60] = -3

    async def prepare():
        executor = counting_executor(inner)
        engine = Engine(executor=executor, concurrency=3)
        options = {"chunks": (10, 15), "shards": (20, 30)} if kind == "sharded" else {"chunks": (20, 30)}
        store = MemoryStore()
        array = await filled(store, **options)
        reached = store if kind == "blocking" else LatencyStore(store, 0.0)
        subject = azarr.AsyncArray(reached, "a", array.metadata, engine)
        unit = array.shards or array.chunks

        async def body():
            if verb == "read":
                assert (await subject == DATA).all()
            elif verb == "write":
                await subject.write(new)
            else:
                await subject[5:50, 10:60].write(-3)

        def check():
            assert executor.running == executor.outstanding == 0
            assert getattr(reached, "in_flight", 0) == 0
            for row in range(-(-60 // unit[0])):
                for column in range(-(-70 // unit[1])):
                    part = np.s_[row * unit[0] : (row + 1) * unit[0], column * unit[1] : (column + 1) * unit[1]]
                    stored = asyncio.run_coroutine_threadsafe(array[part].read(), other).result(PATIENCE)
                    assert (stored == DATA[part]).all() or (stored == new[part]).all()

        return body(), check

    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    try:
        assert cancelled_everywhere(prepare, how_cancelled) >= 1
    finally:
        asyncio.run_coroutine_threadsafe(other.shutdown_asyncgens(), other).result(PATIENCE)
        other.call_soon_threadsafe(other.stop)
        thread.join(PATIENCE)
        other.close()
    inner.close()
    inner.join()


def test_anyio():
    anyio = pytest.importorskip("anyio")

    async def main():
        array = await behind(lambda inner: LatencyStore(inner, 0.0))
        blocking = await filled(GatedStore())
        total = 0
        async with array.stream_chunks(ordered=False) as chunks:
            async for chunk in chunks:
                total += int(chunk.data.sum())
        assert total == DATA.sum()
        for each in (array, blocking):
            with anyio.CancelScope() as scope:
                async with each.stream_chunks() as chunks:
                    async for _ in chunks:
                        scope.cancel()
                        await anyio.sleep(0)
            assert scope.cancelled_caught
            with pytest.raises(ZeroDivisionError):
                async with each.stream_chunks() as chunks:
                    async for _ in chunks:
                        raise ZeroDivisionError
            send, receive = anyio.create_memory_object_stream(2)
            received = []

            async def produce(each=each, send=send):
                async with send, each.stream_chunks() as chunks:
                    async for chunk in chunks:
                        await send.send(chunk)

            async with anyio.create_task_group() as group:
                group.start_soon(produce)
                async with receive:
                    async for chunk in receive:
                        received.append(chunk.coords)
                        if len(received) == 10:
                            group.cancel_scope.cancel()
            assert len(received) == 10
        # level-triggered cancellation: the worker is waited for, however often the task is told to go
        blocking.store.gate.clear()
        blocking.store.begun.clear()
        with anyio.CancelScope() as scope:
            asyncio.get_running_loop().call_later(0.002, scope.cancel)
            asyncio.get_running_loop().call_later(0.010, blocking.store.gate.set)
            async with blocking.stream_chunks() as chunks:
                await anext(chunks)
        assert scope.cancelled_caught
        assert blocking.store.inside == 0
        assert len(asyncio.all_tasks()) == 1

    anyio.run(main)
