"""Jobs that take too long are given up, and nothing of them is left behind; what else runners promise is tested through windows."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

import pytest

from azarr import InlineExecutor, ThreadExecutor, runners
from azarr.executors import Mailbox
from azarr.runners import WorkerRunner
from azarr.window import Window

PATIENCE = 30

pytestmark = pytest.mark.usefixtures("complaints")


def negative(item):
    return -item


class Clock:
    """The time that runners of workers see: it stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    thread_time = monotonic


SECONDS = 0.005
"""How often runners look at the clock: nothing is late before it is moved."""


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(runners, "time", clock)
    return clock


class Gates:
    """A function for workers that waits, for some items, until they are let go."""

    def __init__(self, *items) -> None:
        self.gates = {item: threading.Event() for item in items}
        self.begun, self.ended = set(), set()

    def __call__(self, item):
        self.begun.add(item)
        if item in self.gates:
            self.gates[item].wait(PATIENCE)
        self.ended.add(item)
        return -item

    def open(self, *items) -> None:
        for item in items or self.gates:
            self.gates[item].set()


@pytest.fixture
def gates(request):
    made = []

    def make(*items):
        made.append(Gates(*items))
        return made[-1]

    yield make
    for each in made:
        each.open()


def looking(executor, job, **options):
    """A runner that gives up after a time, and answers ``("late", item)`` for what it gave up."""
    options = {"timeout": SECONDS, "expired": lambda item: ("late", item), **options}
    return WorkerRunner(executor, Mailbox(asyncio.get_running_loop()), job, **options)


async def looked() -> None:
    """Long enough for a runner to look at the clock."""
    for _ in range(3):
        await asyncio.sleep(SECONDS)


@pytest.mark.parametrize("ordered", [True, False])
async def test_a_job_that_takes_too_long_is_given_up(workers, clock, gates, ordered, everything, until):
    job = gates(2)
    window = Window(iter(range(8)), looking(workers, job), 4, ordered=ordered)
    taking = asyncio.create_task(everything(window))
    await until(lambda: 2 in job.begun and len(job.ended) == (5 if ordered else 7))
    await looked()
    assert not taking.done()
    clock.now += 2 * SECONDS
    results = await asyncio.wait_for(taking, PATIENCE)
    assert {*results} == {0, -1, ("late", 2), -3, -4, -5, -6, -7}
    if ordered:
        assert results[2] == ("late", 2)
        assert [result for result in results if result != ("late", 2)] == [0, -1, -3, -4, -5, -6, -7]
    assert 2 not in job.ended


async def test_what_a_job_answers_that_was_given_up_is_forgotten(workers, clock, gates, until):
    job = gates(0)
    window = Window(iter(range(3)), looking(workers, job), 3, ordered=True)
    taking = asyncio.create_task(window.take())
    await until(lambda: job.begun == {0, 1, 2} and job.ended == {1, 2})
    await looked()
    clock.now += 2 * SECONDS
    assert await asyncio.wait_for(taking, PATIENCE) == ("late", 0)
    job.open()
    await until(lambda: 0 in job.ended)
    await looked()
    assert [await window.take(), await window.take()] == [-1, -2]
    window.release(3)
    with pytest.raises(StopAsyncIteration):
        await window.take()


async def test_a_job_may_begin_late_as_long_as_others_end(clock, gates, everything, until):
    """Waiting for a worker is no fault of a job while workers work."""
    executor = ThreadExecutor(1)
    job = gates(*range(5))
    taking = asyncio.create_task(everything(Window(iter(range(5)), looking(executor, job), 5, ordered=True)))
    for item in range(5):
        await until(lambda item=item: item in job.begun)
        clock.now += SECONDS * 0.8
        await looked()
        job.open(item)
    assert await asyncio.wait_for(taking, PATIENCE) == [0, -1, -2, -3, -4]
    executor.close()
    executor.join()


async def test_jobs_that_no_worker_takes_up_are_given_up_when_all_hang(workers, clock, gates, everything, until):
    job = gates(1, 2)
    taking = asyncio.create_task(everything(Window(iter(range(9)), looking(workers, job), 5, ordered=True)))
    await until(lambda: {1, 2} <= job.begun and 0 in job.ended)
    while not taking.done():
        clock.now += 2 * SECONDS
        await asyncio.sleep(SECONDS)
    assert await taking == [0, *(("late", item) for item in range(1, 9))]
    assert job.begun == {0, 1, 2}


async def test_without_a_timeout_jobs_have_all_the_time(workers, clock, gates, everything, until):
    job = gates(1)
    taking = asyncio.create_task(everything(Window(iter(range(4)), looking(workers, job, timeout=None), 4, ordered=True)))
    await until(lambda: {0, 2, 3} <= job.ended)
    clock.now += 10**9
    await looked()
    assert not taking.done()
    job.open()
    assert await taking == [0, -1, -2, -3]


@pytest.mark.parametrize("hanging", [(0,), (0, 1)])
async def test_closing_waits_for_jobs_until_they_are_given_up(workers, clock, gates, hanging, until):
    job = gates(*hanging)
    window = Window(iter(range(9)), looking(workers, job), 6)
    taking = asyncio.create_task(window.take())
    await until(lambda: {*hanging} <= job.begun)
    window.close()
    closing = asyncio.create_task(window.aclose())
    await looked()
    assert not closing.done()
    clock.now += 2 * SECONDS
    await asyncio.wait_for(closing, PATIENCE)
    assert not job.ended & {*hanging}
    await asyncio.wait([taking])
    assert isinstance(taking.exception(), StopAsyncIteration) or taking.result() <= 0


@pytest.mark.parametrize("hangs", [False, True])
async def test_no_timer_is_left(workers, clock, gates, hangs, until):
    loop, job = asyncio.get_running_loop(), gates(*([3] if hangs else []))
    window = Window(iter(range(9)), looking(workers, job), 6, ordered=True)
    for _ in range(3):
        await window.take()
        window.release(1)
    if hangs:
        await until(lambda: 3 in job.begun)
        clock.now += 2 * SECONDS
    await window.aclose()
    assert [timer for timer in loop._scheduled if not timer.cancelled()] == []


async def test_a_task_may_wait_for_a_single_job(workers, clock, gates, until):
    job = gates(1, 2, 3)
    runner = looking(workers, job)
    assert await runner.do(5) == -5
    waiting = asyncio.create_task(runner.do(1))
    await until(lambda: 1 in job.begun)
    waiting.cancel()
    await looked()
    assert not waiting.done()  # the job has to end first
    job.open(1)
    await asyncio.wait([waiting], timeout=PATIENCE)
    assert waiting.cancelled()
    assert 1 in job.ended
    waiting = [asyncio.create_task(runner.do(item)) for item in (2, 3)]
    await until(lambda: {2, 3} <= job.begun)
    waiting[1].cancel()
    clock.now += 2 * SECONDS
    await asyncio.wait(waiting, timeout=PATIENCE)  # or to be given up
    assert waiting[0].result() == ("late", 2)
    assert waiting[1].cancelled()
    assert [timer for timer in asyncio.get_running_loop()._scheduled if not timer.cancelled()] == []


async def test_a_single_job_that_fails_keeps_nothing(workers):
    def fail(thing):
        raise ValueError

    class Thing:
        pass

    async def operation(thing, executor):
        await looking(executor, fail).do(thing)

    for executor in (workers, InlineExecutor()):
        thing = Thing()
        alive = weakref.ref(thing)
        gc.collect()
        gc.disable()
        try:
            try:
                await operation(thing, executor)
            except ValueError:
                del thing
            await looking(executor, negative).do(0)
            assert alive() is None
        finally:
            gc.enable()


# Answering at once


async def test_what_is_answered_at_once_needs_no_job(workers, gates, everything):
    job = gates()
    window = Window(iter(range(1, 9)), looking(workers, job, prompt=lambda item: item * 10), 4, ordered=True)
    assert await everything(window) == [10, 20, 30, 40, 50, 60, 70, 80]
    assert not job.begun


@pytest.mark.parametrize(("seconds", "missing", "results"), [(0.0, 3, [10, 20, -3, -4, -5]), (1.0, None, [10, -2, -3, -4, -5])])
async def test_who_has_no_answer_at_once_or_takes_too_long_is_not_asked_again(workers, clock, gates, everything, seconds, missing, results):
    asked = []

    def prompt(item):
        asked.append(item)
        clock.now += seconds
        return None if item == missing else item * 10

    window = Window(iter(range(1, 6)), looking(workers, gates(), prompt=prompt, timeout=None), 4, ordered=True)
    assert await everything(window) == results
    assert asked == list(range(1, 1 + (missing or 1)))


async def test_an_answer_at_once_comes_no_more_when_the_runner_has_stopped(workers, gates):
    told = []
    runner = looking(workers, gates(), prompt=lambda item: item)
    runner.start(1, lambda *outcome: told.append(outcome))
    runner.stop()
    await asyncio.wait_for(runner.stopped(), PATIENCE)
    assert told == []
