"""Writers and readers beside each other: nothing that was written is lost, and nobody sees half of a chunk."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading

import numpy as np
import pytest

import azarr
from azarr import Engine, InlineExecutor, LatencyStore, LocalStore, MemoryStore

PATIENCE = 60

pytestmark = pytest.mark.usefixtures("complaints")


@pytest.fixture(params=["memory", "local", "latency", "latency over local"])
def make_store(request, tmp_path):
    """Makes a store with the given seed; a new one of the same data each time for local files."""

    def make(seed):
        if request.param == "memory":
            return MemoryStore()
        local = LocalStore(tmp_path / str(seed), durability="none")
        if request.param == "local":
            return local
        return LatencyStore(MemoryStore() if request.param == "latency" else local, 0.0, jitter=0.001, seed=seed)

    make.kind = request.param
    return make


def rounds(make_store, many) -> range:
    """Fewer of them where each takes time."""
    return range({"memory": many, "local": many // 2, "latency": many // 4, "latency over local": many // 8}[make_store.kind])


async def stagger(dice) -> None:
    for _ in range(dice.randrange(4)):
        await asyncio.sleep(0)


async def test_two_halves_of_one_chunk(make_store):
    async with Engine(workers=2) as engine:
        for seed in rounds(make_store, 400):
            dice = random.Random(seed)
            array = await azarr.create_array(make_store(seed), shape=100, chunks=100, dtype="i4", engine=engine)

            async def half(part, value, dice=dice, array=array):
                await stagger(dice)
                await array[part].write(value)

            await asyncio.gather(half(slice(0, 50), 1), half(slice(50, 100), 2))
            assert (await array).tolist() == [1] * 50 + [2] * 50


async def test_ten_inner_chunks_of_one_shard(make_store):
    async with Engine(workers=3) as engine:
        for seed in rounds(make_store, 200):
            dice = random.Random(seed)
            options = {"shape": (10, 10), "chunks": (1, 10), "shards": (10, 10), "dtype": "i4", "engine": engine}
            array = await azarr.create_array(make_store(seed), compressors="auto" if seed % 2 else None, **options)

            async def row(number, dice=dice, array=array):
                await stagger(dice)
                await array[number].write(number + 1)

            await asyncio.gather(*map(row, range(10)))
            assert (await array == np.arange(1, 11)[:, np.newaxis]).all()


async def test_every_element_of_a_chunk_by_a_task_of_its_own(make_store):
    async with Engine(workers=2) as engine:
        for seed in rounds(make_store, 20):
            array = await azarr.create_array(make_store(seed), shape=60, chunks=20, dtype="i4", engine=engine)
            order = list(range(60))
            random.Random(seed).shuffle(order)
            await asyncio.gather(*(array[number].write(number) for number in order))
            assert (await array).tolist() == list(range(60))


async def test_writers_on_several_loops(tmp_path, make_store):
    """Each in a thread of its own, with an engine and a store object of its own."""
    store = make_store(0)
    array = await azarr.create_array(store, "a", shape=(40, 30), chunks=(20, 30), dtype="i4")
    reachable = [store] * 4
    if isinstance(store, LocalStore):
        reachable = [LocalStore(store.root, durability="none") for _ in range(4)]
    start, errors = threading.Barrier(4), []

    def work(number):
        async def main():
            mine = await azarr.open_array(reachable[number], "a")
            for turn in range(1, 26 if make_store.kind != "memory" else 101):
                await asyncio.gather(*(mine[row].write(1000 * turn + row) for row in range(number, 40, 4)))
                assert (await mine[number::4] == 1000 * turn + np.arange(number, 40, 4)[:, np.newaxis]).all()

        start.wait(PATIENCE)
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE)
        assert not thread.is_alive()
    assert errors == []
    assert (await array % 1000 == np.arange(40)[:, np.newaxis]).all()


async def test_readers_beside_writers_see_whole_chunks(make_store):
    """A reader sees each chunk as some write left it, with read, with views and in streams."""
    store = make_store(0)
    array = await azarr.create_array(store, shape=(4, 500), chunks=(1, 500), dtype="i4")
    await array.write(0)
    finished = asyncio.Event()
    last = 60

    async def write():
        for value in range(1, last + 1):
            await asyncio.gather(*(array[row].write(value) for row in range(4)))
        finished.set()

    async def read():
        seen = np.zeros(4, int)
        while not finished.is_set():
            rows = await array
            assert (rows == rows[:, :1]).all()
            assert (rows[:, 0] >= seen).all()  # and none goes back in time
            seen = rows[:, 0]
            part = await array[:, 100:300:7]
            assert (part == part[:, :1]).all()

    async def stream():
        seen = np.zeros(4, int)
        while not finished.is_set():
            async with array.stream_chunks(ordered=False) as chunks:
                async for chunk in chunks:
                    assert (chunk.data == chunk.data[0, 0]).all()
                    assert chunk.data[0, 0] >= seen[chunk.coords[0]]
                    seen[chunk.coords[0]] = chunk.data[0, 0]

    await asyncio.gather(write(), read(), read(), stream())
    assert (await array == last).all()


async def test_writers_of_parts_beside_writers_of_whole_chunks(make_store):
    """Whatever the order, what is left of a chunk is one whole write with parts that came after it."""
    async with Engine(workers=3) as engine:
        for seed in rounds(make_store, 100):
            dice = random.Random(seed)
            array = await azarr.create_array(make_store(seed), shape=8, chunks=8, dtype="i4", engine=engine)

            async def whole(value, dice=dice, array=array):
                await stagger(dice)
                await array.write(value)

            async def part(position, dice=dice, array=array):
                await stagger(dice)
                await array[position].write(100 + position)

            await asyncio.gather(whole(1), *map(part, range(8)), whole(2))
            final = (await array).tolist()
            rest = {value for value in final if value < 100}
            assert rest <= {0} or rest <= {1} or rest <= {2}
            assert all(value in (0, 1, 2, 100 + position) for position, value in enumerate(final))
            assert 0 not in final  # a whole write came, and everything after it stood on it


async def test_erasing_and_writing_one_chunk(make_store):
    """A chunk that becomes all fill value is erased; a writer beside it does not lose its part."""
    async with Engine(workers=2) as engine:
        for seed in rounds(make_store, 100):
            dice = random.Random(seed)
            array = await azarr.create_array(make_store(seed), shape=10, chunks=10, dtype="i4", engine=engine)
            await array[:5].write(7)

            async def write(part, value, dice=dice, array=array):
                await stagger(dice)
                await array[part].write(value)

            await asyncio.gather(write(slice(0, 5), 0), write(slice(5, 10), 3))
            assert (await array).tolist() == [0] * 5 + [3] * 5


@pytest.mark.parametrize("shards", [None, (20, 10)])
async def test_cancelled_writes_leave_each_unit_old_or_new(make_store, shards):
    async with Engine(workers=2, concurrency=3) as engine:
        store = make_store(0)
        array = await azarr.create_array(store, shape=(40, 10), chunks=(10, 10), shards=shards, dtype="i4", engine=engine)
        units = 4 if shards is None else 2
        await array.write(1)
        old, value = [1] * units, 1
        for distance in rounds(make_store, 80):
            value += 1
            task = asyncio.create_task(array.write(value))
            for _ in range(distance % 27):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            rows = (await array).reshape(units, -1)
            assert (rows == rows[:, :1]).all()
            now = rows[:, 0].tolist()
            assert all(unit in (before, value) for unit, before in zip(now, old, strict=True))
            if not task.cancelled():
                assert now == [value] * units
            # nothing goes on in the background: what the next write puts there stays
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert (await array).reshape(units, -1)[:, 0].tolist() == now
            old = now


async def test_a_cancelled_writer_does_not_hold_up_the_next(make_store):
    async with Engine(workers=2) as engine:
        for seed in rounds(make_store, 60):
            array = await azarr.create_array(make_store(seed), shape=10, chunks=10, dtype="i4", engine=engine)
            tasks = [asyncio.create_task(array[number].write(number + 1)) for number in range(10)]
            dice = random.Random(seed)
            await stagger(dice)
            cancelled = dice.sample(range(10), 4)
            for number in cancelled:
                tasks[number].cancel()
            await asyncio.wait_for(asyncio.wait(tasks), PATIENCE)
            data = (await array).tolist()
            for number in range(10):
                assert data[number] == number + 1 or (data[number] == 0 and tasks[number].cancelled())


async def test_a_failing_write_does_not_hold_up_the_next(faulty_store):
    array = await azarr.create_array(faulty_store, "a", shape=10, chunks=5, dtype="i4")
    faulty_store.failing.add("a/c/0")
    outcomes = await asyncio.gather(*(array[number].write(number + 1) for number in range(10)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [azarr.StoreError] * 5 + [type(None)] * 5
    faulty_store.failing.clear()
    await asyncio.wait_for(array[2].write(9), PATIENCE)
    assert (await array).tolist() == [0, 0, 9, 0, 0, 6, 7, 8, 9, 10]


def test_the_same_interleavings_on_a_virtual_clock(run_virtual):
    """Hundreds of schedules of slow stores, exactly repeatable."""

    async def main(seed):
        store = LatencyStore(MemoryStore(), 1.0, jitter=10.0, seed=seed)
        engine = Engine(executor=InlineExecutor(), concurrency=1 + seed % 5)
        shards = 10 if seed % 2 else None
        array = await azarr.create_array(store, shape=20, chunks=5, shards=shards, dtype="i4", engine=engine)
        store.max_in_flight = 0
        await asyncio.gather(*(array[number].write(number) for number in range(20)))
        assert (await array).tolist() == list(range(20))
        assert store.max_in_flight <= engine.concurrency

    for seed in range(200):
        run_virtual(lambda seed=seed: main(seed))


TWO_WAYS = """
import asyncio, azarr

async def main():
    inner = azarr.MemoryStore()
    async with azarr.Engine(workers=2) as engine:
        array = await azarr.create_array(inner, shape=60, chunks=60, dtype="i4", engine=engine)
        late = await azarr.open_array(azarr.LatencyStore(inner, 0.0, jitter=0.001, seed=1), engine=engine)
        for _ in range(20):
            await array.write(0)
            await asyncio.gather(*((late if number % 3 == 0 else array)[number].write(number + 1) for number in range(60)))
            assert (await array).tolist() == list(range(1, 61))

asyncio.run(main())
"""


def test_writers_that_reach_one_chunk_in_two_ways_do_not_wait_for_each_other_for_ever():
    """One that is awaited holds the lock and needs a worker; those that block must not occupy all of them waiting for the lock."""
    done = subprocess.run([sys.executable, "-P", "-c", TWO_WAYS], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
