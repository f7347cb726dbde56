"""Single chunks that are asked for at once: few of them have memory, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import weakref
from contextlib import suppress

import numpy as np
import pytest

import azarr
from azarr import admission, executors
from azarr.admission import NBYTES
from azarr.executors import ThreadExecutor
from azarr.result_memory import ResultMemory

PATIENCE = 60
JOBS = 5


class Counting(ThreadExecutor):
    """One worker that counts the jobs it was given."""

    def __init__(self) -> None:
        super().__init__(1)
        self.begun = 0

    def submit(self, *args):
        super().submit(*args)
        self.begun += 1


class Gate:
    """Jobs that wait until they may go on."""

    def __init__(self) -> None:
        self.done: list[int] = []
        self.open = threading.Event()

    def job(self, engine, number, nbytes=NBYTES):
        """What is to be awaited."""
        return engine.call_in_turn(nbytes, self._work, number)

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
    async with azarr.Engine(executor=Counting(), concurrency=JOBS) as made:
        yield made


def started(coroutines):
    return [asyncio.create_task(coroutine) for coroutine in coroutines]


async def test_few_jobs_begin_and_the_others_follow_in_order(engine, gate):
    tasks = started(gate.job(engine, number) for number in range(50))
    await asyncio.sleep(0)
    assert engine.executor.begun == JOBS
    gate.open.set()
    assert await asyncio.gather(*tasks) == gate.done == list(range(50))


async def test_of_small_jobs_more_begin(engine, gate):
    tasks = started(gate.job(engine, number, NBYTES // 16) for number in range(50))
    await asyncio.sleep(0)
    assert engine.executor.begun == 16
    gate.open.set()
    await asyncio.gather(*tasks)


async def test_a_result_that_nobody_has_taken_holds_its_place(engine, gate):
    gate.open.set()
    held = [gate.job(engine, number) for number in range(JOBS)]
    waiting = asyncio.create_task(gate.job(engine, 99))
    await asyncio.sleep(0.05)
    assert gate.done == list(range(JOBS))
    assert engine.executor.begun == JOBS
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


async def test_a_job_that_fails_keeps_no_other_from_its_turn(engine, gate):
    def refuse():
        raise MemoryError("too much")

    tasks = started(gate.job(engine, number) for number in range(JOBS))
    tasks += started([engine.call_in_turn(NBYTES, refuse), gate.job(engine, 7)])
    await asyncio.sleep(0)
    gate.open.set()
    with pytest.raises(MemoryError, match="too much"):
        await tasks[JOBS]
    assert await tasks[-1] == 7


async def test_a_worker_lets_the_loop_go_first_where_much_waits_for_it(engine, gate, monkeypatch):
    """The loop hears of three together, and here takes none before all are done: from the fourth on, a worker lets it go first."""
    yielded = []
    monkeypatch.setattr(executors, "QUICK_SECONDS", math.inf)
    monkeypatch.setattr(admission, "let_others_go", lambda: yielded.append(len(gate.done)))
    jobs = [gate.job(engine, number, 2**20) for number in range(JOBS)]
    gate.open.set()
    engine.executor.close()
    engine.executor.join()
    assert gate.done == list(range(JOBS))
    assert yielded == [3, 4]
    await asyncio.gather(*jobs)


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
            await engine.call_in_turn(1, fail, thing)
        del thing
        await engine.call(int)  # the worker has let go of the job before
        assert seen() is None
    finally:
        gc.enable()


class Watched(ResultMemory):
    """Knows the most bytes of arrays that there were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = self.most = 0
        self.mutex = threading.Lock()

    def empty(self, shape, dtype):
        made = super().empty(shape, dtype)
        self.count(made.nbytes)
        weakref.finalize(made, self.count, -made.nbytes)
        return made

    def count(self, nbytes):
        with self.mutex:
            self.nbytes += nbytes
            self.most = max(self.most, self.nbytes)


@pytest.mark.parametrize("awaited", [False, True], ids=["blocking", "awaited"])
async def test_many_single_chunks_at_once_take_the_memory_of_few(awaited):
    store, nbytes = azarr.MemoryStore(), 2**20
    async with azarr.Engine(workers=2, concurrency=8) as engine:
        array = await azarr.create_array(store, "a", shape=(4 * nbytes,), chunks=(nbytes,), dtype="u1", engine=engine)
        await array.write(np.arange(4 * nbytes, dtype="u4").astype("u1"))
        if awaited:
            array = await azarr.open_array(azarr.LatencyStore(store, 0.02), "a", engine=engine)
        engine.results = watched = Watched()

        async def one(number):
            return int((await array[number % 4 * nbytes : (number % 4 + 1) * nbytes])[::1000].sum())

        sums = await asyncio.gather(*map(one, range(200)))
    assert len(set(sums)) == 1
    assert nbytes <= watched.most < (100 if awaited else 24) * nbytes
    assert watched.nbytes == 0
