"""A loop in a thread for callers without one: everything crosses once, with its type, and nothing is left."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import gc
import itertools
import os
import signal
import sys
import threading
import time
import weakref

import numpy as np
import pytest

import azarr
from azarr import CodecError, Engine, InlineExecutor, LatencyStore, MemoryStore, NodeNotFoundError, StoreError, StreamError, blocking
from azarr.blocking import LoopThread

PATIENCE = 30
DATA = np.arange(60 * 70, dtype="i4").reshape(60, 70) + 1
ALL = [(row, column) for row in range(6) for column in range(4)]


class GatedStore(MemoryStore):
    """A memory store whose ``get_blocking`` waits for ``gate`` where chunks are asked for, and counts what is fetched."""

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
                assert self.gate.wait(PATIENCE)
                if key in self.failing:
                    raise self.failing[key]
            finally:
                self.inside -= 1
        return super().get_blocking(key, byte_range, reserve)


@pytest.fixture(autouse=True)
def nothing_left(_frozen_heap):
    """No thread, and no error that only a thread or a finalizer could tell of."""
    before = set(threading.enumerate())
    yield
    gc.collect()
    until(lambda: set(threading.enumerate()) <= before)  # workers of an engine end by themselves
    assert not [thread.name for thread in threading.enumerate() if thread.name == "azarr-loop"]


@pytest.fixture
def loop():
    with LoopThread() as entered:
        yield entered


def until(condition) -> None:
    """Wait for other threads to make something so."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


def filled(loop, store, *, chunks=(10, 20), data=DATA, engine=None, **options):
    array = loop.run(azarr.create_array(store, "a", shape=data.shape, chunks=chunks, dtype=data.dtype, engine=engine, **options))
    loop.run(array.write(data))
    if isinstance(store, GatedStore):  # what hangs over the edge is read before it is written
        store.fetched.clear()
        store.begun.clear()
    return array


def tasks(loop):
    """How many tasks the loop has besides those that ask, and that wait for the end."""

    async def count():
        return len(asyncio.all_tasks()) - 2

    return loop.run(count())


def coords_of(chunks):
    return [chunk.coords for chunk in chunks]


# --- run


def test_arrays_are_opened_written_and_read(loop, tmp_path):
    array = filled(loop, tmp_path / "s.zarr")
    opened = loop.run(azarr.open_array(tmp_path / "s.zarr", "a"))
    assert (loop.run(opened.read()) == DATA).all()
    assert (loop.run(opened[3:7, ::-1]) == DATA[3:7, ::-1]).all()  # what can be awaited need not be a coroutine
    assert loop.run(array.read()).dtype == "i4"


def test_errors_come_out_as_they_are(loop):
    error = ZeroDivisionError()

    async def fail():
        raise error

    with pytest.raises(ZeroDivisionError) as caught:
        loop.run(fail())
    assert caught.value is error
    assert error.__context__ is None
    with pytest.raises(NodeNotFoundError):
        loop.run(azarr.open_array(MemoryStore(), "a"))


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_end_a_loop_comes_out_and_the_loop_goes_on(loop, kind):
    async def fail():
        raise kind

    with pytest.raises(kind):
        loop.run(fail())
    assert loop.run(asyncio.sleep(0, "on")) == "on"


def test_what_is_cancelled_says_so(loop):
    async def give_up():
        raise asyncio.CancelledError

    with pytest.raises(concurrent.futures.CancelledError):
        loop.run(give_up())


def test_an_error_keeps_nothing_alive(loop):
    class Data:
        pass

    async def fail():
        data = Data()
        alive.append(weakref.ref(data))
        raise ZeroDivisionError

    alive = []
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(ZeroDivisionError):
            loop.run(fail())
        until(lambda: alive[0]() is None)
    finally:
        gc.enable()


def test_context_variables_come_along(loop):
    variable = contextvars.ContextVar("variable")
    variable.set(7)

    async def look():
        return variable.get()

    async def items():
        yield variable.get()

    assert loop.run(look()) == 7
    assert list(loop.iterate(items)) == [7]


def test_threads_share_a_loop(loop):
    array = filled(loop, MemoryStore())
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        results = list(pool.map(lambda row: loop.run(array[row].read()), range(60)))
    assert (np.stack(results) == DATA).all()


# --- iterate


@pytest.mark.parametrize("options", [{}, {"ordered": False}, {"concurrency": 1}, {"memory": 1}], ids=str)
@pytest.mark.parametrize("chunks", [(10, 20), (2, 2), (100, 100)], ids=str)
def test_all_chunks_come_once_and_whole(loop, chunks, options):
    array = filled(loop, MemoryStore(), chunks=chunks)
    result = np.zeros_like(DATA)
    for chunk in loop.iterate(array.stream_chunks, **options):
        assert (result[chunk.region] == 0).all()
        result[chunk.region] = chunk.data
    assert (result == DATA).all()


def test_chunks_of_a_slow_store(loop):
    array = filled(loop, MemoryStore())
    array = azarr.AsyncArray(LatencyStore(array.store, 0.0, jitter=0.001, seed=1), "a", array.metadata)
    assert coords_of(loop.iterate(array.stream_chunks)) == ALL
    assert sorted(coords_of(loop.iterate(array.stream_chunks, ordered=False))) == ALL


def test_any_asynchronous_iterator(loop):
    closed = []

    async def numbers(stop):
        try:
            for number in range(stop):
                if not number % 3:
                    await asyncio.sleep(0)
                yield number
        finally:
            closed.append(stop)

    class Plain:
        def __init__(self):
            self.left = 3

        def __aiter__(self):
            return self

        async def __anext__(self):
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return self.left

    assert list(loop.iterate(numbers, 10)) == list(range(10))
    assert list(loop.iterate(numbers, stop=2000)) == list(range(2000))
    assert list(loop.iterate(numbers, 0)) == []
    assert closed == [10, 2000, 0]
    assert list(loop.iterate(Plain)) == [2, 1, 0]
    group = loop.run(azarr.create_group(MemoryStore()))
    for name in "ab":
        loop.run(group.create_group(name))
    assert sorted(name for name, _ in loop.iterate(group.members)) == ["a", "b"]
    with pytest.raises(TypeError):
        next(loop.iterate(lambda: [1, 2]))


def test_nothing_begins_before_the_first_item_is_asked_for(loop):
    array = filled(loop, GatedStore())
    called = []

    def stream():
        called.append(threading.current_thread())
        return array.stream_chunks()

    chunks = loop.iterate(stream)
    loop.run(asyncio.sleep(0.001))
    assert called == []
    chunks.close()
    assert list(chunks) == []
    assert called == []
    assert next(loop.iterate(stream)).coords == (0, 0)
    assert called[0].name == "azarr-loop"


def test_what_is_ready_crosses_at_once(loop, monkeypatch):
    """A hop between the threads is not made for every small chunk."""
    crossings = 0
    reply = blocking.Errand.reply

    def counting(*args):
        nonlocal crossings
        crossings += 1
        return reply(*args)

    monkeypatch.setattr(blocking.Errand, "reply", counting)

    async def numbers():
        for number in range(1000):
            yield number

    assert list(loop.iterate(numbers)) == list(range(1000))
    assert crossings == -(-1000 // blocking.BATCH_LENGTH) + 1  # and one for the end
    crossings = 0

    async def arrays():
        for _ in range(8):
            yield np.empty(blocking.BATCH_NBYTES // 2, "u1")

    assert len(list(loop.iterate(arrays))) == 8
    assert crossings == 5


def test_slices(loop):
    array = filled(loop, MemoryStore())
    slices = list(loop.iterate(array.stream_slices, 1, thickness=20))
    assert [each.start for each in slices] == [0, 20, 40, 60]
    assert (np.concatenate([each.data for each in slices], axis=1) == DATA).all()
    assert blocking.nbytes_of(slices[0]) == slices[0].data.nbytes


def test_what_is_ready_does_not_wait_for_what_is_not(loop):
    gate = asyncio.Event()

    async def numbers():
        yield 0
        yield 1
        await gate.wait()
        yield 2

    async def go_on():
        gate.set()

    items = loop.iterate(numbers)
    assert [next(items), next(items)] == [0, 1]
    loop.run(go_on())
    assert list(items) == [2]


def test_who_iterates_slowly_is_not_run_away_from(loop):
    taken = 0

    async def numbers():
        nonlocal taken
        for number in itertools.count():
            taken = number + 1
            yield number
            if number % 10 == 9:
                await asyncio.sleep(0)

    with loop.iterate(numbers) as items:
        for handed_out, _ in enumerate(itertools.islice(items, 300), start=1):
            assert taken <= handed_out + 10
            if handed_out % 10 == 1:
                loop.run(asyncio.sleep(0))
        time.sleep(0.001)
        assert taken <= 311


@pytest.mark.parametrize("fit", [1, 3])
def test_memory_bounds_the_chunks_that_are_alive(loop, monkeypatch, fit):
    """Chunks that are a batch of their own are counted like those of a stream; smaller ones have a batch beside it."""
    alive, worst, mutex = 0, 0, threading.Lock()

    class Tracked(np.ndarray):
        def __del__(self):
            nonlocal alive
            if self.base is None:
                with mutex:
                    alive -= 1

    def decode_own(pipeline, data, coords, empty):
        nonlocal alive, worst
        with mutex:
            alive += 1
            worst = max(worst, alive)
        chunk = np.ndarray.__new__(Tracked, pipeline.spec.shape, pipeline.spec.dtype)
        pipeline.decode_into(data, chunk)
        return chunk

    array = filled(loop, MemoryStore(), engine=Engine(executor=InlineExecutor()))
    monkeypatch.setattr(azarr.chunk_reader, "decode_own", decode_own)
    monkeypatch.setattr(blocking, "BATCH_NBYTES", 800)
    for chunk in loop.iterate(array.stream_chunks, memory=fit * 800):
        loop.run(asyncio.sleep(0))
        del chunk
    gc.collect()
    assert alive == 0
    assert 1 <= worst <= fit


def test_threads_share_an_iterator(loop):
    array = filled(loop, MemoryStore(), chunks=(2, 2))
    chunks = loop.iterate(array.stream_chunks)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        parts = [pool.submit(coords_of, chunks) for _ in range(4)]
        seen = list(itertools.chain.from_iterable(part.result(PATIENCE) for part in parts))
    assert sorted(seen) == [(row, column) for row in range(30) for column in range(35)]


# --- how it ends


def test_leaving_with_break_closes_at_once(loop):
    array = filled(loop, GatedStore(), chunks=(2, 2))
    with loop.iterate(array.stream_chunks, concurrency=4) as chunks:
        for _ in chunks:
            break
    assert tasks(loop) == 0
    assert array.store.inside == 0
    assert len(array.store.fetched) < 100
    assert list(chunks) == []
    chunks.close()


def test_break_without_with_closes_as_soon_as_it_is_garbage(loop):
    closed = threading.Event()

    async def numbers():
        try:
            for number in itertools.count():
                yield number
        finally:
            closed.set()

    gc.disable()
    try:
        for _ in loop.iterate(numbers):
            break
        assert closed.wait(PATIENCE)
    finally:
        gc.enable()
    until(lambda: tasks(loop) == 0)


def test_an_error_of_who_iterates_comes_out_as_it_is(loop):
    array, error = filled(loop, GatedStore()), ZeroDivisionError()
    with pytest.raises(ZeroDivisionError) as caught, loop.iterate(array.stream_chunks) as chunks:
        for _ in chunks:
            raise error
    assert caught.value is error
    assert error.__context__ is None
    assert tasks(loop) == 0


@pytest.mark.parametrize("kind", [StoreError, CodecError, ValueError])
def test_an_error_of_the_stream_comes_after_the_chunks_before_it(loop, kind):
    array, error = filled(loop, GatedStore()), kind("no")
    array.store.failing["a/c/2/1"] = error
    chunks, seen = loop.iterate(array.stream_chunks), []
    with pytest.raises(kind) as caught:
        for chunk in chunks:
            seen.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream fails
    assert caught.value is error
    assert error.__context__ is None
    assert seen == ALL[:9]
    for _ in range(2):
        with pytest.raises(StreamError, match="before its last item"):
            next(chunks)
    assert tasks(loop) == 0


def test_an_iterator_that_came_to_its_end_stays_there(loop):
    array = filled(loop, MemoryStore())
    chunks = loop.iterate(array.stream_chunks)
    assert len(list(chunks)) == 24
    assert list(chunks) == []
    chunks.close()
    assert tasks(loop) == 0


def test_closing_while_another_thread_waits(loop):
    array = filled(loop, GatedStore())
    array.store.gate.clear()
    chunks = loop.iterate(array.stream_chunks)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        waiting = pool.submit(list, chunks)
        assert array.store.begun.wait(PATIENCE)
        closing = pool.submit(chunks.close)
        until(lambda: chunks._closed)
        array.store.gate.set()
        # the chunk that was under way comes if it is quicker than the end
        assert [chunk.coords for chunk in waiting.result(PATIENCE)] in ([], [(0, 0)])
        closing.result(PATIENCE)
    assert list(chunks) == []
    assert tasks(loop) == 0


def test_an_iterator_that_becomes_garbage_on_the_loop_itself(loop):
    """Nobody waits there for what only the loop can do."""

    async def numbers():
        try:
            for number in itertools.count():
                yield number
                await asyncio.sleep(0)
        finally:
            closed.set()

    closed = threading.Event()
    kept = [loop.iterate(numbers)]
    assert next(kept[0]) == 0

    async def drop():
        kept.clear()

    loop.run(drop())
    assert closed.wait(PATIENCE)


@pytest.fixture
def interruptible():
    """Signals of a keyboard interrupt have their effect, also where the tests run in the background, which turns them off."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt_when(condition, afterwards=lambda: None):
    """A thread that sends this process the signal of a keyboard interrupt, once something is so."""

    def run():
        until(condition)
        os.kill(os.getpid(), signal.SIGINT)
        afterwards()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


@pytest.mark.skipif(sys.platform == "win32", reason="waiting for a lock cannot be interrupted on Windows; run on another system")
@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("how", ["run", "iterate"])
def test_an_interrupt_while_waiting_ends_it_all(loop, how):
    array = filled(loop, GatedStore())
    array.store.gate.clear()

    def open_gate():
        time.sleep(0.005)
        array.store.gate.set()

    interrupting = interrupt_when(array.store.begun.is_set, open_gate)
    chunks = loop.iterate(array.stream_chunks)
    with pytest.raises(KeyboardInterrupt):
        loop.run(array.read()) if how == "run" else next(chunks)
    interrupting.join(PATIENCE)
    assert array.store.inside == 0
    assert tasks(loop) == 0
    if how == "iterate":
        with pytest.raises(StreamError, match="interrupt"):
            next(chunks)
    assert (loop.run(array.read()) == DATA).all()


@pytest.mark.skipif(sys.platform == "win32", reason="waiting for a lock cannot be interrupted on Windows; run on another system")
@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_of_who_iterates_closes_all(counting_executor):
    executor = counting_executor(azarr.ThreadExecutor(2))
    working = threading.Event()
    interrupting = interrupt_when(working.is_set)
    with pytest.raises(KeyboardInterrupt), LoopThread() as loop:
        array = filled(loop, GatedStore(), chunks=(2, 2), engine=Engine(executor=executor))
        for _ in loop.iterate(array.stream_chunks):
            working.set()
            threading.Event().wait(PATIENCE)
    interrupting.join(PATIENCE)
    assert executor.running == executor.outstanding == 0
    assert array.store.inside == 0
    executor.close()


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
def test_taking_for_another_thread_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, counting_executor, monkeypatch, kind):
    inner = azarr.ThreadExecutor(2)
    monkeypatch.setattr(blocking, "BATCH_LENGTH", 2)

    async def prepare():
        executor = counting_executor(inner)
        store = MemoryStore()
        array = await azarr.create_array(store, "a", shape=DATA.shape, chunks=(20, 30), dtype="i4")
        await array.write(DATA)
        subject = azarr.AsyncArray(
            store if kind == "blocking" else LatencyStore(store, 0.0), "a", array.metadata, Engine(executor=executor)
        )
        pump, got = blocking.Pump(subject.stream_chunks), []

        class Replies:
            def put(self, batch):
                got.extend(reversed(batch))
                asyncio.get_running_loop().call_soon(pump.ask)

        pump.replies = Replies()

        def check():
            assert executor.running == executor.outstanding == 0
            assert getattr(subject.store, "in_flight", 0) == 0
            assert coords_of(got) == [(row, column) for row in range(3) for column in range(3)][: len(got)]

        return pump.run(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 5
    inner.close()
    inner.join()


# --- leaving


def test_leaving_cancels_what_is_under_way():
    begun, ended = threading.Event(), []

    async def forever(name):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def numbers():
        yield 0
        await forever("iterate")

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        with LoopThread() as loop:
            running = pool.submit(loop.run, forever("run"))
            assert begun.wait(PATIENCE)
            begun.clear()
            items = loop.iterate(numbers)
            assert next(items) == 0
            iterating = pool.submit(next, items)
            assert begun.wait(PATIENCE)
            kept = loop.iterate(numbers)
            assert next(kept) == 0
        for waiting in (running, iterating):
            with pytest.raises(concurrent.futures.CancelledError, match="LoopThread is left"):
                waiting.result(PATIENCE)
    assert sorted(ended) == ["iterate", "iterate", "run"]
    with pytest.raises(StreamError, match="before its last item"):
        next(items)
    with pytest.raises(RuntimeError, match="has been left"):
        next(kept)  # half of the items do not pass for all
    kept.close()
    coroutine = forever("late")
    with pytest.raises(RuntimeError, match="has been left"):
        loop.run(coroutine)
    with pytest.raises(RuntimeError, match="has been left"):
        next(loop.iterate(numbers))
    with pytest.raises(RuntimeError, match="serves for one"):
        loop.__enter__()


def test_leaving_closes_the_default_engine():
    with LoopThread() as loop:
        array = filled(loop, MemoryStore())
        assert [thread for thread in threading.enumerate() if thread.name.startswith("azarr-") and thread.name != "azarr-loop"]
        del array
    # ``nothing_left`` looks for its threads


def test_what_comes_while_it_is_left_is_run_or_refused():
    async def nothing():
        return "run"

    def keep_asking(loop):
        while True:
            try:
                assert loop.run(nothing()) == "run"
            except (RuntimeError, concurrent.futures.CancelledError) as error:
                return error

    for _ in range(20):
        with concurrent.futures.ThreadPoolExecutor(3) as pool:
            with LoopThread() as loop:
                asking = [pool.submit(keep_asking, loop) for _ in range(3)]
            assert all(each.result(PATIENCE) for each in asking)


def test_an_iterator_outlives_its_loop_as_garbage():
    async def numbers():
        yield 0
        yield 1
        await asyncio.Event().wait()

    with LoopThread() as loop:
        items = loop.iterate(numbers)
        assert next(items) == 0
    assert next(items) == 1  # which had crossed already
    del items
    gc.collect()


def test_it_is_used_within_a_with():
    loop = LoopThread()
    for use in (lambda: loop.run(asyncio.sleep(0)), lambda: loop.iterate(list)):
        with pytest.raises(RuntimeError, match="with LoopThread"):
            use()


# --- programs that have a loop elsewhere


async def test_within_a_running_loop_it_refuses():
    with LoopThread() as loop:
        with pytest.raises(RuntimeError, match="would block the running event loop"):
            loop.run(asyncio.sleep(0))
        with pytest.raises(RuntimeError, match="would block the running event loop"):
            next(loop.iterate(MemoryStore().list_prefix, ""))

        def endpoint():
            array = filled(loop, MemoryStore())
            return sum(int(chunk.data.sum()) for chunk in loop.iterate(array.stream_chunks))

        assert await asyncio.to_thread(endpoint) == DATA.sum()

    def whole():
        with LoopThread() as other:
            return coords_of(other.iterate(filled(other, MemoryStore()).stream_chunks))

    assert await asyncio.gather(*(asyncio.to_thread(whole) for _ in range(4))) == [ALL] * 4


def test_from_within_its_own_loop_it_refuses(loop):
    async def nested():
        return loop.run(asyncio.sleep(0))

    with pytest.raises(RuntimeError, match="would block the running event loop"):
        loop.run(nested())
