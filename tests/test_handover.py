"""Chunks in other people's hands: as many as asked for, as fast as they are taken, none lost, none twice, and nothing left."""

from __future__ import annotations

import asyncio
import gc
import itertools
import queue
import random
import subprocess
import sys
import weakref

import anyio
import numpy as np
import pytest

import azarr
from azarr import Engine, InlineExecutor, LatencyStore, MemoryStore, StoreError, StreamError, ThreadExecutor

DATA = np.arange(60 * 70, dtype="i4").reshape(60, 70) + 1
ALL = [(row, column) for row in range(6) for column in range(4)]

pytestmark = pytest.mark.usefixtures("complaints")


class GatedStore:
    """An awaited store over the values of another; requests for chunks wait for ``gate``."""

    def __init__(self, inner: MemoryStore) -> None:
        self.inner = inner
        self.gate = asyncio.Event()
        self.gate.set()
        self.failing: dict[str, BaseException] = {}
        self.in_flight = 0

    async def get(self, key, byte_range=None):
        self.in_flight += 1
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            if key in self.failing:
                raise self.failing[key]
            return await self.inner.get(key, byte_range)
        finally:
            self.in_flight -= 1


async def behind(store_type=GatedStore, *, engine=None):
    inner = MemoryStore()
    array = await azarr.create_array(inner, "a", shape=DATA.shape, chunks=(10, 20), dtype="i4")
    await array.write(DATA)
    return azarr.AsyncArray(store_type(inner), "a", array.metadata, engine)


async def turns(count=10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def coords_of(chunks):
    return [chunk.coords for chunk in chunks]


class Taker:
    """A queue of other people, which takes a turn of the loop for each item."""

    def __init__(self) -> None:
        self.got = []

    async def put(self, item) -> None:
        await asyncio.sleep(0)
        self.got.append(item)


class Channel:
    """A sending side of other people."""

    def __init__(self) -> None:
        self.got, self.closed, self.failing = [], 0, {}

    async def send(self, item) -> None:
        await asyncio.sleep(0)
        if item.coords in self.failing:
            raise self.failing[item.coords]
        self.got.append(item)

    async def aclose(self) -> None:
        self.closed += 1
        await asyncio.sleep(0)


# --- as many as asked for


@pytest.mark.parametrize("store_type", [lambda inner: inner, GatedStore], ids=["blocking", "awaited"])
async def test_as_many_as_asked_for_and_fewer_at_the_end(store_type):
    array = await behind(store_type)
    result = np.zeros_like(DATA)
    async with array.stream_chunks().producer() as producer:
        seen = []
        for n, expected in [(1, 1), (5, 5), (10, 10), (9, 8), (3, 0), (1, 0)]:
            chunks = await producer.ask(n)
            assert len(chunks) == expected
            seen += coords_of(chunks)
            for chunk in chunks:
                result[chunk.region] = chunk.data
        assert seen == ALL
    assert (result == DATA).all()
    assert await producer.ask() == []


async def test_slices():
    array = await behind()
    async with array.stream_slices(1, thickness=20).producer() as producer:
        assert [each.start for each in await producer.ask(3)] == [0, 20, 40]
        (last,) = await producer.ask(3)
        assert (last.data == DATA[:, 60:]).all()
    line = asyncio.Queue()
    assert await array.stream_slices(thickness=30).into(line) == 2
    assert [each and each.start for each in (line.get_nowait(), line.get_nowait(), line.get_nowait())] == [0, 30, None]


async def test_one_unless_said_otherwise_and_never_none():
    array = await behind()
    async with array.stream_chunks().producer() as producer:
        assert coords_of(await producer.ask()) == [(0, 0)]
        for n in (0, -1):
            with pytest.raises(ValueError, match="at least one must"):
                await producer.ask(n)
        assert coords_of(await producer.ask()) == [(0, 1)]


async def test_nothing_is_taken_that_nobody_asked_for():
    array = await behind()
    stream = array.stream_chunks(concurrency=3)
    async with stream.producer() as producer:
        await turns()
        assert stream.stats.in_flight == 0
        for asked in (2, 4, 6):
            await producer.ask(2)
            await turns()
            assert stream.stats.done == asked
            assert stream.stats.in_flight + stream.stats.buffered <= 3


async def test_each_chunk_goes_to_one_of_those_who_ask():
    array = await behind()
    got = {number: [] for number in range(5)}

    async def consume(number):
        while chunks := await producer.ask(number + 1):
            got[number] += coords_of(chunks)
            await asyncio.sleep(0)

    async with array.stream_chunks().producer() as producer:
        await asyncio.gather(*map(consume, got))
    assert sorted(itertools.chain.from_iterable(got.values())) == ALL
    assert all(got.values())


async def test_whoever_asks_first_is_answered_first():
    array = await behind()
    array.store.gate.clear()
    async with array.stream_chunks().producer() as producer:
        asking = [asyncio.create_task(producer.ask(3)) for _ in range(4)]
        await turns()
        array.store.gate.set()
        assert list(itertools.chain.from_iterable(map(coords_of, await asyncio.gather(*asking)))) == ALL[:12]


# --- cancelled


async def test_a_cancelled_ask_loses_nothing():
    array = await behind(engine=Engine(executor=InlineExecutor()))
    stream = array.stream_chunks(concurrency=4)
    async with stream.producer() as producer:
        assert coords_of(await producer.ask(2)) == ALL[:2]
        array.store.gate.clear()
        await turns(50)  # requests that were past the gate are answered
        while stream.stats.buffered:
            await producer.ask()
        taken = stream.stats.done
        asking = asyncio.create_task(producer.ask(10))
        await turns()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        array.store.gate.set()
        await turns(50)
        assert stream.stats.done == taken + 1  # the one that was being waited for, and none after it
        assert coords_of(await producer.ask(24)) == ALL[taken:]


async def test_after_a_cancelled_ask_less_can_be_asked_for():
    array = await behind()
    array.store.gate.clear()
    async with array.stream_chunks().producer() as producer:
        asking = asyncio.create_task(producer.ask(20))
        await turns()
        asking.cancel()
        await asyncio.wait([asking])
        again = asyncio.create_task(producer.ask(1))
        await turns()
        array.store.gate.set()
        assert coords_of(await again) == ALL[:1]


@pytest.mark.parametrize("seed", range(5))
def test_impatient_consumers_lose_nothing_and_get_nothing_twice(run_virtual, seed):
    async def main():
        array = await behind(lambda inner: LatencyStore(inner, 0.010, jitter=0.008, seed=seed), engine=Engine(concurrency=3))
        patience, got, given_up = random.Random(seed), [], 0

        async def consume():
            nonlocal given_up
            while True:
                try:
                    async with asyncio.timeout(patience.uniform(0, 0.030)):
                        chunks = await producer.ask(patience.randint(1, 4))
                except TimeoutError:
                    given_up += 1
                    continue
                if not chunks:
                    return
                got.extend(coords_of(chunks))

        async with array.stream_chunks().producer() as producer:
            await asyncio.gather(consume(), consume(), consume())
        assert sorted(got) == ALL
        assert given_up > 5

    run_virtual(main)


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
def test_a_producer_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, counting_executor, kind):
    inner = ThreadExecutor(2)

    async def prepare():
        executor = counting_executor(inner)
        array = await behind(GatedStore if kind == "awaited" else lambda store: store, engine=Engine(executor=executor, concurrency=3))

        async def body():
            async with array.stream_chunks().producer() as producer:
                while await producer.ask(7):
                    await turns(1)

        def check():
            assert executor.running == executor.outstanding == 0
            assert getattr(array.store, "in_flight", 0) == 0

        return body(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 4
    inner.close()
    inner.join()


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
def test_closing_a_producer_that_still_takes_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, counting_executor, kind):
    inner = ThreadExecutor(2)

    async def prepare():
        executor = counting_executor(inner)
        array = await behind(GatedStore if kind == "awaited" else lambda store: store, engine=Engine(executor=executor, concurrency=3))

        async def body():
            producer = array.stream_chunks().producer()
            try:
                async with asyncio.timeout(0):
                    await producer.ask(20)
            except TimeoutError:
                pass
            finally:
                await producer.aclose()

        def check():
            assert executor.running == executor.outstanding == 0
            assert getattr(array.store, "in_flight", 0) == 0

        return body(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 2
    inner.close()
    inner.join()


# --- how it ends


async def test_chunks_before_an_error_come_first_and_then_the_error():
    array, error = await behind(), StoreError("no")
    array.store.failing["a/c/1/3"] = error
    async with array.stream_chunks().producer() as producer:
        assert coords_of(await producer.ask(5)) == ALL[:5]
        assert coords_of(await producer.ask(5)) == ALL[5:7]
        with pytest.raises(StoreError) as caught:
            await producer.ask(5)
        assert caught.value is error
        assert error.__context__ is None
        for _ in range(2):
            with pytest.raises(StreamError, match="before its last chunk"):
                await producer.ask()


async def test_an_error_goes_to_one_and_nobody_takes_it_for_the_end():
    array, error = await behind(), StoreError("no")
    array.store.failing["a/c/0/0"] = error
    async with array.stream_chunks().producer() as producer:
        outcomes = await asyncio.gather(*(producer.ask() for _ in range(3)), return_exceptions=True)
    assert outcomes[0] is error
    assert [type(outcome) for outcome in outcomes[1:]] == [StreamError] * 2


async def test_an_error_that_was_not_asked_for_comes_out_in_the_end():
    """Whoever takes fewer chunks than asked for to be the last does not miss the failure."""
    array, error = await behind(), StoreError("no")
    array.store.failing["a/c/0/2"] = error
    with pytest.raises(StoreError) as caught:
        async with array.stream_chunks().producer() as producer:
            while len(await producer.ask(8)) == 8:
                pass
    assert caught.value is error
    with pytest.raises(ZeroDivisionError) as other:
        async with array.stream_chunks().producer() as producer:
            assert len(await producer.ask(8)) == 2
            raise ZeroDivisionError
    assert other.value.__context__ is None


async def test_closing_while_others_ask():
    array = await behind()
    array.store.gate.clear()
    producer = array.stream_chunks().producer()
    asking = [asyncio.create_task(producer.ask(4)) for _ in range(3)]
    await turns()
    await producer.aclose()
    assert await asyncio.gather(*asking) == [[], [], []]
    assert array.store.in_flight == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    await producer.aclose()
    assert await producer.ask() == []


async def test_closing_after_a_cancelled_ask_that_still_takes():
    array = await behind()
    array.store.gate.clear()
    producer = array.stream_chunks().producer()
    asking = asyncio.create_task(producer.ask(4))
    await turns()
    asking.cancel()
    await asyncio.wait([asking])
    closing = asyncio.create_task(producer.aclose())
    await asyncio.wait([closing])
    assert array.store.in_flight == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stream_that_is_closed_has_no_more_chunks_to_ask_for():
    array = await behind()
    stream = array.stream_chunks()
    producer = stream.producer()
    await producer.ask()
    await stream.aclose()
    assert await producer.ask() == []


async def test_a_producer_that_is_dropped_gives_up_its_work():
    array = await behind()
    producer = array.stream_chunks().producer()
    await producer.ask(3)
    gone = weakref.ref(producer)
    gc.collect()
    gc.disable()
    try:
        del producer
        assert gone() is None  # at once, as nothing in it refers to itself
    finally:
        gc.enable()
    async with asyncio.timeout(30):
        while array.store.in_flight or len(asyncio.all_tasks()) > 1:  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0)


# --- as fast as they are taken


async def test_into_a_queue():
    array = await behind()
    stream, line = array.stream_chunks(), asyncio.Queue(3)
    feeding = asyncio.create_task(stream.into(line))
    got = []
    while (chunk := await line.get()) is not None:
        got.append(chunk.coords)
        await turns()
        assert stream.stats.done <= len(got) + 4  # three in the queue, and one in front of it
    assert got == ALL
    assert await feeding == 24
    assert line.empty()
    assert await stream.into(line) == 0
    assert await line.get() is None


async def test_into_a_queue_that_several_take_from():
    array = await behind()
    line, got = asyncio.Queue(2), []

    async def consume():
        while (chunk := await line.get()) is not None:
            got.append(chunk.coords)
        await line.put(None)

    async with asyncio.TaskGroup() as group:
        for _ in range(3):
            group.create_task(consume())
        group.create_task(array.stream_chunks(ordered=False).into(line))
    assert sorted(got) == ALL


async def test_into_a_memory_object_stream_of_anyio():
    array = await behind()
    stream = array.stream_chunks()
    send, receive = anyio.create_memory_object_stream(2)
    got = []
    async with receive, asyncio.TaskGroup() as group:
        feeding = group.create_task(stream.into(send))
        async for chunk in receive:
            got.append(chunk.coords)
            await turns()
            assert stream.stats.done <= len(got) + 3
    assert got == ALL
    assert feeding.result() == 24
    with pytest.raises(anyio.ClosedResourceError):
        await send.send(None)


async def test_several_streams_into_clones_of_one_sending_side():
    array = await behind()
    send, receive = anyio.create_memory_object_stream(1)
    async with receive, asyncio.TaskGroup() as group:
        with send:
            for shard in range(3):
                group.create_task(array.stream_chunks(shard=shard, of=3).into(send.clone()))
        got = [chunk.coords async for chunk in receive]
    assert sorted(got) == ALL


@pytest.mark.parametrize("waiting", [False, True])
async def test_the_receiver_of_a_memory_object_stream_goes_away(waiting):
    array = await behind()
    stream = array.stream_chunks()
    send, receive = anyio.create_memory_object_stream(1)
    feeding = asyncio.create_task(stream.into(send))
    assert (await receive.receive()).coords == (0, 0)
    if waiting:
        await turns(50)
    receive.close()
    assert 1 <= await feeding <= 2
    assert array.store.in_flight == 0
    assert [chunk async for chunk in stream] == []
    assert send.statistics().open_send_streams == 0


async def test_a_sending_side_that_is_closed_ends_the_stream():
    array = await behind()
    send, receive = anyio.create_memory_object_stream(1)
    send.close()
    assert await array.stream_chunks().into(send) == 0
    receive.close()


async def test_a_queue_that_is_shut_down(monkeypatch):
    """As ``asyncio.Queue`` can be as of Python 3.13."""
    if not hasattr(asyncio, "QueueShutDown"):
        monkeypatch.setattr(asyncio, "QueueShutDown", type("QueueShutDown", (Exception,), {}), raising=False)

    class Fickle(asyncio.Queue):
        async def put(self, item):
            if self.full():
                raise asyncio.QueueShutDown
            await super().put(item)

    array = await behind()
    line = Fickle(5)
    stream = array.stream_chunks()
    assert await stream.into(line) == 5
    assert array.store.in_flight == 0
    assert [line.get_nowait().coords for _ in range(5)] == ALL[:5]
    assert line.empty()
    line = Fickle(24)  # full when the last chunk is in it
    assert await array.stream_chunks().into(line) == 24


@pytest.mark.parametrize("receiver", [Taker, Channel])
async def test_an_error_of_the_stream_comes_out_and_is_no_end(receiver):
    array, error, taker = await behind(), StoreError("no"), receiver()
    array.store.failing["a/c/1/1"] = error
    with pytest.raises(StoreError) as caught:
        await array.stream_chunks().into(taker)
    assert caught.value is error
    assert coords_of(taker.got) == ALL[:5]
    assert array.store.in_flight == 0
    assert receiver is Taker or taker.closed == 1


async def test_an_error_of_the_receiver_comes_out():
    array, error, channel = await behind(), ZeroDivisionError(), Channel()
    channel.failing[1, 1] = error
    stream = array.stream_chunks()
    with pytest.raises(ZeroDivisionError) as caught:
        await stream.into(channel)
    assert caught.value is error
    assert channel.closed == 1
    assert array.store.in_flight == 0
    assert [chunk async for chunk in stream] == []


async def test_an_error_of_the_users_function_is_not_that_of_the_receiver():
    array, channel = await behind(), Channel()

    async def broken(_):
        raise anyio.BrokenResourceError

    with pytest.raises(anyio.BrokenResourceError):
        await array.map_chunks(broken).into(channel)
    assert channel.closed == 1


@pytest.mark.parametrize(
    "receiver", [queue.Queue(), queue.SimpleQueue(), [], None, lambda chunk: chunk], ids=lambda each: type(each).__name__
)
async def test_what_nothing_can_be_put_into(receiver):
    array = await behind()
    with pytest.raises(TypeError, match="'put' is awaited"):
        await array.stream_chunks().into(receiver)


@pytest.mark.parametrize("receiver", [Taker, Channel])
@pytest.mark.parametrize("kind", ["blocking", "awaited"])
def test_into_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, counting_executor, kind, receiver):
    inner = ThreadExecutor(2)

    async def prepare():
        executor = counting_executor(inner)
        array = await behind(GatedStore if kind == "awaited" else lambda store: store, engine=Engine(executor=executor, concurrency=3))
        taker = receiver()

        def check():
            assert executor.running == executor.outstanding == 0
            assert getattr(array.store, "in_flight", 0) == 0
            got = [chunk and chunk.coords for chunk in taker.got]
            assert got == (ALL + [None] * (receiver is Taker))[: len(got)]
            assert receiver is Taker or taker.closed == 1

        return array.stream_chunks().into(taker), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 24
    inner.close()
    inner.join()


def test_anyio_is_not_needed():
    code = "import asyncio, sys, azarr; from azarr import handover; assert 'anyio' not in sys.modules; assert handover.gone() is not None"
    subprocess.run([sys.executable, "-c", code], check=True)
