"""Single chunks that are asked for at once: few of them have memory, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import threading
import tracemalloc
import weakref
from contextlib import suppress

import numpy as np
import pytest

import azarr
from azarr.admission import NBYTES

PATIENCE = 60
JOBS = 5


class Gate:
    """Jobs that wait until they may go on."""

    def __init__(self) -> None:
        self.prepared: list[int] = []
        self.done: list[int] = []
        self.open = threading.Event()

    def job(self, engine, number, nbytes=NBYTES):
        """What is to be awaited."""

        def prepare():
            self.prepared.append(number)
            return (number,)

        return engine.call_in_turn(nbytes, prepare, self._work)

    def _work(self, number):
        self.open.wait(PATIENCE)
        self.done.append(number)
        return number


@pytest.fixture
def gate():
    made = Gate()
    yield made
    made.open.set()


@pytest.fixture
async def engine():
    async with azarr.Engine(workers=1, concurrency=JOBS) as made:
        yield made


def started(coroutines):
    return [asyncio.create_task(coroutine) for coroutine in coroutines]


async def test_few_jobs_begin_and_the_others_follow_in_order(engine, gate):
    tasks = started(gate.job(engine, number) for number in range(50))
    await asyncio.sleep(0)
    assert gate.prepared == list(range(JOBS))
    gate.open.set()
    assert await asyncio.gather(*tasks) == gate.prepared == gate.done == list(range(50))


async def test_of_small_jobs_more_begin(engine, gate):
    tasks = started(gate.job(engine, number, NBYTES // 16) for number in range(50))
    await asyncio.sleep(0)
    assert gate.prepared == list(range(16))
    gate.open.set()
    await asyncio.gather(*tasks)


async def test_a_result_that_nobody_has_taken_holds_its_place(engine, gate):
    gate.open.set()
    held = [gate.job(engine, number) for number in range(JOBS)]
    waiting = asyncio.create_task(gate.job(engine, 99))
    await asyncio.sleep(0.05)
    assert gate.done == list(range(JOBS))
    assert gate.prepared == list(range(JOBS))
    assert await held.pop() == JOBS - 1
    assert await waiting == 99
    for each in held:
        await each


async def test_a_job_that_waits_is_given_up_at_once(engine, gate):
    tasks = started(gate.job(engine, number) for number in range(JOBS + 3))
    await asyncio.sleep(0)
    tasks[JOBS].cancel()
    with pytest.raises(asyncio.CancelledError):
        await tasks[JOBS]
    tasks[0].cancel()
    await asyncio.sleep(0.02)
    assert not tasks[0].done(), "it has begun, and comes to its end"
    gate.open.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert tasks[0].cancelled()
    assert gate.done == [number for number in range(JOBS + 3) if number != JOBS]


async def test_all_that_wait_hear_of_an_engine_that_is_closed(gate):
    engine = azarr.Engine(workers=1, concurrency=JOBS)
    tasks = started(gate.job(engine, number) for number in range(JOBS + 5))
    await asyncio.sleep(0)
    await engine.aclose()
    gate.open.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert outcomes[:JOBS] == list(range(JOBS))
    assert [type(each) for each in outcomes[JOBS:]] == [RuntimeError] * 5
    assert "closed" in str(outcomes[-1])


async def test_a_job_that_cannot_begin_keeps_no_other_from_it(engine, gate):
    def refuse():
        raise MemoryError("too much")

    tasks = started(gate.job(engine, number) for number in range(JOBS))
    tasks += started([engine.call_in_turn(NBYTES, refuse, print), gate.job(engine, 7)])
    await asyncio.sleep(0)
    gate.open.set()
    with pytest.raises(MemoryError, match="too much"):
        await tasks[JOBS]
    assert await tasks[-1] == 7
    with pytest.raises(MemoryError, match="too much"):
        await engine.call_in_turn(NBYTES, refuse, print)
    assert await gate.job(engine, 8) == 8


async def test_an_error_keeps_nothing(engine):
    class Thing:
        pass

    def fail(thing):
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        thing = Thing()
        seen = weakref.ref(thing)
        with suppress(ValueError):
            await engine.call_in_turn(1, lambda thing=thing: (thing,), fail)
        del thing
        await engine.call(int)  # the worker has let go of the job before
        assert seen() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
async def test_many_single_chunks_at_once_take_the_memory_of_few(awaited):
    store, nbytes = azarr.MemoryStore(), 2**20
    async with azarr.Engine(workers=2, concurrency=8) as engine:
        array = await azarr.create_array(store, "a", shape=(4 * nbytes,), chunks=(nbytes,), dtype="u1", engine=engine)
        await array.write(np.arange(4 * nbytes, dtype="u4").astype("u1"))
        if awaited:
            array = await azarr.open_array(azarr.LatencyStore(store, 0.02), "a", engine=engine)

        async def one(number):
            return int((await array[number % 4 * nbytes : (number % 4 + 1) * nbytes])[::1000].sum())

        await asyncio.gather(*map(one, range(8)))
        tracemalloc.start()
        try:
            sums = await asyncio.gather(*map(one, range(200)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert len(set(sums)) == 1
    assert peak < (100 if awaited else 24) * nbytes
