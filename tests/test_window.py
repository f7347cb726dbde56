"""The window: so much work at once and no more, and whatever happens, nothing of it is left behind."""

from __future__ import annotations

import asyncio
import gc
import itertools
import threading
import weakref

import numpy as np
import pytest

from azarr import Engine, InlineExecutor, LatencyStore, MemoryStore, ThreadExecutor, create_array
from azarr.errors import StreamError
from azarr.executors import Mailbox
from azarr.runners import TaskRunner, WorkerRunner
from azarr.window import FedWindow, Window

PATIENCE = 30

pytestmark = pytest.mark.usefixtures("complaints")


class Work:
    """A runner's function for tasks that records what runs."""

    def __init__(self, *, failing=(), error=None, turns=lambda item: 1) -> None:
        self.running = self.max_running = 0
        self.begun, self.ended = [], []
        self._failing, self._error, self._turns = failing, error, turns

    async def __call__(self, item):
        self.begun.append(item)
        self.running += 1
        self.max_running = max(self.max_running, self.running)
        try:
            for _ in range(self._turns(item)):
                await asyncio.sleep(0)
            if item in self._failing:
                raise self._error
            self.ended.append(item)
            return -item
        finally:
            self.running -= 1


class Taken:
    """Counts what is taken from an iterator."""

    def __init__(self, items) -> None:
        self._items, self.count = iter(items), 0

    def __iter__(self):
        return self

    def __next__(self):
        item = next(self._items)
        self.count += 1
        return item


@pytest.fixture(params=["tasks", "threads", "inline"])
def make_window(request, counting_executor):
    """Makes windows over a plain function, with every kind of runner; ``make.executor`` counts the jobs."""
    inner = InlineExecutor() if request.param == "inline" else ThreadExecutor(2)
    executor = counting_executor(inner)

    def make(items, function, limit, **options):
        async def task(item):
            await asyncio.sleep(0)
            return function(item)

        if request.param == "tasks":
            return Window(iter(items), TaskRunner(task), limit, **options)
        return Window(iter(items), WorkerRunner(executor, Mailbox(asyncio.get_running_loop()), function), limit, **options)

    make.executor, make.kind = executor, request.param
    yield make
    executor.close()
    if isinstance(inner, ThreadExecutor):
        inner.join()


def negative(item):
    return -item


# --- draining


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
@pytest.mark.parametrize("count", [0, 1, 50])
async def test_drain_does_everything_once(make_window, count, limit):
    seen = []
    await make_window(range(count), seen.append, limit).drain()
    assert sorted(seen) == list(range(count))


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_drain_never_exceeds_the_limit_and_uses_it(limit):
    work = Work(turns=lambda item: 1 + item % 5)
    await Window(iter(range(100)), TaskRunner(work), limit).drain()
    assert work.max_running == limit
    assert sorted(work.ended) == list(range(100))


async def test_drain_never_submits_more_jobs_than_the_limit(workers, counting_executor):
    executor, outstanding = counting_executor(workers), []

    def job(item):
        outstanding.append(executor.outstanding)

    await Window(iter(range(300)), WorkerRunner(executor, Mailbox(asyncio.get_running_loop()), job), 5).drain()
    assert max(outstanding) <= 5
    assert executor.jobs == 300
    assert executor.outstanding == executor.running == 0


async def test_weights_count_while_draining():
    weights = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5]
    inside = worst = 0

    async def work(weight):
        nonlocal inside, worst
        inside += weight
        worst = max(worst, inside)
        for _ in range(weight):
            await asyncio.sleep(0)
        inside -= weight

    await Window(iter(weights * 5), TaskRunner(work), 14, weigh=lambda weight: weight, heaviest=9).drain()
    assert 9 <= worst <= 14


async def test_an_item_heavier_than_the_limit_goes_alone():
    work = Work()
    await Window(iter([10, 20, 30]), TaskRunner(work), 4, weigh=lambda item: item, heaviest=30).drain()
    assert work.ended == [10, 20, 30]
    assert work.max_running == 1


async def test_the_first_error_comes_out_of_drain_bare_and_everything_has_stopped(make_window):
    error, seen = ValueError("first"), []

    def function(item):
        if item == 7:
            raise error
        seen.append(item)

    items = Taken(range(10**9))
    with pytest.raises(ValueError) as caught:
        await make_window(items, function, 4).drain()
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    assert items.count <= len(seen) + 1 + 4  # however slowly the one that failed was
    assert make_window.executor.running == make_window.executor.outstanding == 0
    count = len(seen)
    await asyncio.sleep(0)
    assert len(seen) == count
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_running_jobs_end_and_waiting_ones_do_nothing_after_an_error(workers, until):
    gate, begun, failed = threading.Event(), threading.Event(), threading.Event()
    seen, error = [], ValueError()

    def job(item):
        if item == 0:
            begun.wait(PATIENCE)
            raise error
        if item == 1:
            begun.set()
            gate.wait(PATIENCE)
            seen.append("one ended")
        else:
            # the worker that failed takes this one before the loop has heard of the failure, or never
            failed.wait(PATIENCE)

    window = Window(iter(range(8)), WorkerRunner(workers, Mailbox(loop := asyncio.get_running_loop()), job), 8)
    task = asyncio.create_task(window.drain())
    await until(lambda: window._closed)
    failed.set()
    assert not task.done()
    assert seen == []
    gate.set()
    with pytest.raises(ValueError) as caught:
        await task
    assert caught.value is error
    assert seen == ["one ended"]
    assert loop is asyncio.get_running_loop()


async def test_two_errors_at_once_let_the_first_one_out():
    first, second = ValueError("first"), OSError("second")
    gate = asyncio.Event()

    async def work(item):
        await gate.wait()
        raise (first, second)[item]

    task = asyncio.create_task(Window(iter(range(2)), TaskRunner(work), 2).drain())
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(ValueError) as caught:
        await task
    assert caught.value is first
    assert first.__context__ is None


async def test_an_error_while_stopping_hides_nothing():
    error = ValueError("first")

    async def work(item):
        if item == 0:
            await asyncio.sleep(0)
            raise error
        try:
            await asyncio.Event().wait()
        finally:
            raise OSError("second")

    with pytest.raises(ValueError) as caught:
        await Window(iter(range(3)), TaskRunner(work), 3).drain()
    assert caught.value is error
    assert error.__context__ is None


async def test_a_task_that_is_slow_to_stop_is_waited_for():
    order = []

    async def work(item):
        if item == 0:
            await asyncio.sleep(0)
            raise ValueError
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0)
            order.append("stopped")

    with pytest.raises(ValueError):
        await Window(iter(range(3)), TaskRunner(work), 3).drain()
    assert order == ["stopped"] * 2


async def test_a_plan_that_fails_at_once(make_window):
    def plan():
        raise error
        yield

    error = ValueError("plan")
    with pytest.raises(ValueError) as caught:
        await make_window(plan(), negative, 4).drain()
    assert caught.value is error


@pytest.mark.parametrize("good", [1, 3, 10])
async def test_a_plan_that_fails_later(make_window, good):
    def plan():
        yield from range(good)
        raise error

    error, seen = ValueError("plan"), []
    with pytest.raises(ValueError) as caught:
        await make_window(plan(), seen.append, 2).drain()
    assert caught.value is error
    assert error.__context__ is None
    assert make_window.executor.running == 0


async def test_an_error_leaves_nothing_that_keeps_what_was_worked_on(workers):
    class Thing:
        pass

    def fail(thing):
        raise ValueError

    async def operation(thing):
        await Window(itertools.repeat(thing, 3), WorkerRunner(workers, Mailbox(asyncio.get_running_loop()), fail), 2).drain()

    thing = Thing()
    alive = weakref.ref(thing)
    gc.collect()
    gc.disable()
    try:
        try:
            await operation(thing)
        except ValueError:
            del thing
        await Window(iter([0]), WorkerRunner(workers, Mailbox(asyncio.get_running_loop()), negative), 1).drain()
        assert alive() is None
    finally:
        gc.enable()


async def test_a_loop_is_not_starved_by_work_that_is_done_at_once():
    """With jobs on the loop itself other tasks still have their turns."""
    beats = 0

    async def heart():
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(heart())
    window = Window(iter(range(1000)), WorkerRunner(InlineExecutor(), Mailbox(asyncio.get_running_loop()), negative), 10)
    await window.drain()
    beating.cancel()
    await asyncio.wait([beating])
    assert beats >= 50


# --- taking


@pytest.mark.parametrize("limit", [1, 2, 7, 1000])
@pytest.mark.parametrize("count", [0, 1, 50])
async def test_take_gives_everything_in_order(make_window, count, limit, everything):
    window = make_window(range(count), negative, limit, ordered=True)
    assert await everything(window) == [-item for item in range(count)]
    with pytest.raises(StopAsyncIteration):
        await window.take()


async def test_take_gives_what_is_finished_first(everything):
    work = Work(turns=lambda item: 30 if item == 0 else 1)
    results = await everything(Window(iter(range(6)), TaskRunner(work), 3))
    assert results == [-1, -2, -3, -4, -5, 0]


async def test_an_ordered_window_waits_for_its_turn_and_starts_no_more_than_fits():
    work = Work(turns=lambda item: 30 if item == 0 else 1)
    items = Taken(range(100))
    window = Window(items, TaskRunner(work), 3, ordered=True)
    assert await window.take() == 0
    assert items.count == 3
    assert work.ended == [1, 2, 0]
    await window.aclose()


async def test_four_of_a_billion(make_window):
    items = Taken(range(10**9))
    window = make_window(items, negative, 4, ordered=True)
    assert items.count == 0
    assert await window.take() == 0
    assert items.count == 4
    assert await window.take() == -1
    assert items.count == 4  # nothing has been given back
    window.release(2)
    assert items.count == 6
    await window.aclose()
    assert items.count == 6


async def test_weight_is_outstanding_until_it_is_given_back():
    items = Taken([3, 3, 3, 1, 1, 1, 1, 1])
    work = Work()
    window = Window(items, TaskRunner(work), 7, ordered=True, weigh=lambda item: item, heaviest=3)
    await window.take()
    assert items.count == 2
    window.release(2)  # 4 outstanding: one more of at most 3 fits
    assert items.count == 3
    window.release(1)  # 6
    assert items.count == 3
    await window.take()
    window.release(3)  # 3: one of 1 fits, and then one more
    assert items.count == 5
    await window.aclose()


async def test_the_limit_holds_for_what_is_taken_and_not_given_back():
    work = Work()
    window = Window(iter(range(100)), TaskRunner(work), 5)
    for _ in range(5):
        await window.take()
    assert len(work.begun) == 5
    window.release(1)
    await window.take()
    assert len(work.begun) == 6
    await window.aclose()


@pytest.mark.parametrize("ordered", [False, True])
async def test_the_first_error_comes_out_of_take_bare_and_everything_has_stopped(ordered):
    error = ValueError("first")
    work = Work(failing={5}, error=error, turns=lambda item: 1 + item % 3)
    window = Window(iter(range(10**9)), TaskRunner(work), 4, ordered=ordered)
    results = []
    with pytest.raises(ValueError) as caught:
        while True:
            results.append(await window.take())
            window.release(1)
    assert caught.value is error
    assert error.__context__ is None
    assert error.__cause__ is None
    assert work.running == 0
    assert asyncio.all_tasks() == {asyncio.current_task()}
    if ordered:
        assert results == [0, -1, -2, -3, -4]
    with pytest.raises(StopAsyncIteration):
        await window.take()


async def test_results_that_came_before_an_error_are_still_handed_out(until):
    error = ValueError()
    work = Work(failing={3}, error=error)
    window = Window(iter(range(4)), TaskRunner(work), 4)
    results = [await window.take()]
    await until(lambda: window._error is not None)
    results += [await window.take(), await window.take()]
    assert sorted(results) == [-2, -1, 0]
    with pytest.raises(ValueError) as caught:
        await window.take()
    assert caught.value is error


async def test_work_that_raises_the_end_of_an_iteration_does_not_end_the_results(make_window):
    """A store that lets a StopAsyncIteration escape must not make half of the results look like all of them."""

    def leak(item):
        if item == 3:
            raise StopAsyncIteration
        return item

    window, results = make_window(range(6), leak, 1, ordered=True), []
    with pytest.raises(RuntimeError, match="StopAsyncIteration") as caught:
        while True:
            results.append(await window.take())
            window.release(1)
    assert isinstance(caught.value.__cause__, StopAsyncIteration)
    assert results == [0, 1, 2]


@pytest.mark.parametrize("good", [0, 1, 3, 10])
async def test_a_plan_that_fails_while_taking(make_window, good, everything):
    def plan():
        yield from range(good)
        raise error

    error = ValueError("plan")
    window = make_window(plan(), negative, 2)
    with pytest.raises(ValueError) as caught:
        await everything(window)
    assert caught.value is error
    await window.aclose()
    assert make_window.executor.running == make_window.executor.outstanding == 0


async def test_only_one_task_waits_for_a_window():
    gate = asyncio.Event()

    async def work(item):
        await gate.wait()
        return item

    window = Window(iter(range(3)), TaskRunner(work), 3, ordered=True)
    first = asyncio.create_task(window.take())
    await asyncio.sleep(0)
    with pytest.raises(StreamError, match="another task"):
        await window.take()
    assert not first.done()
    gate.set()
    assert await first == 0
    await window.aclose()


# --- closing


async def test_closing_before_anything_began(make_window):
    items = Taken(range(10))
    window = make_window(items, negative, 4)
    await window.aclose()
    await window.aclose()
    with pytest.raises(StopAsyncIteration):
        await window.take()
    assert items.count == 0
    assert make_window.executor.jobs == 0


async def test_closing_waits_for_running_jobs_and_skips_waiting_ones(workers):
    gate, seen = threading.Event(), []
    loop, both = asyncio.get_running_loop(), asyncio.Event()

    def job(item):
        seen.append(item)
        if len(seen) == 2:
            loop.call_soon_threadsafe(both.set)
        gate.wait(PATIENCE)

    window = Window(iter(range(100)), WorkerRunner(workers, Mailbox(loop), job), 10)
    taking = asyncio.create_task(window.take())
    await asyncio.wait_for(both.wait(), PATIENCE)
    closing = asyncio.create_task(window.aclose())
    await asyncio.sleep(0)
    assert not closing.done()
    gate.set()
    await closing
    with pytest.raises(StopAsyncIteration):
        await taking
    assert sorted(seen) == [0, 1]


@pytest.mark.parametrize("kind", ["tasks", "threads"])
async def test_several_tasks_may_wait_for_the_same_end(workers, kind, until):
    """One waits for a result, others close: each of them goes on when nothing runs any more."""
    loop, begun, gate, ended = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), []

    def job(item):
        loop.call_soon_threadsafe(begun.set)
        gate.wait(PATIENCE)
        ended.append(item)

    async def task(item):
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await until(gate.is_set)
            ended.append(item)

    runner = TaskRunner(task) if kind == "tasks" else WorkerRunner(workers, Mailbox(loop), job)
    window = Window(iter([1]), runner, 4)
    taking = asyncio.create_task(window.take())
    await asyncio.wait_for(begun.wait(), PATIENCE)
    closing = [asyncio.create_task(window.aclose()) for _ in range(3)]
    for _ in range(5):
        await asyncio.sleep(0)
    closing[1].cancel()
    for _ in range(5):
        await asyncio.sleep(0)
    assert not any(each.done() for each in (taking, *closing))
    gate.set()
    _, pending = await asyncio.wait([taking, *closing], timeout=PATIENCE)
    assert not pending
    assert ended == [1]
    assert isinstance(taking.exception(), StopAsyncIteration)
    assert closing[1].cancelled()
    assert closing[0].exception() is closing[2].exception() is None


async def test_close_without_waiting_gives_up_what_can_be_given_up():
    work = Work(turns=lambda item: 10**9)
    window = Window(iter(range(9)), TaskRunner(work), 3)
    taking = asyncio.create_task(window.take())
    await asyncio.sleep(0)
    window.close()
    with pytest.raises(StopAsyncIteration):
        await taking
    assert work.running == 0
    assert work.ended == []


async def test_a_task_that_somebody_else_cancels_counts_as_failed(until):
    started = []

    async def work(item):
        started.append(asyncio.current_task())
        await asyncio.Event().wait()

    draining = asyncio.create_task(Window(iter(range(3)), TaskRunner(work), 3).drain())
    await until(lambda: len(started) == 3)
    started[1].cancel()
    with pytest.raises(asyncio.CancelledError):
        await draining
    assert all(task.cancelled() for task in started)


# --- cancellation


@pytest.mark.parametrize("kind", ["tasks", "threads", "inline"])
@pytest.mark.parametrize("how", ["drain", "ordered", "unordered"])
def test_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, counting_executor, kind, how, everything):
    inner = InlineExecutor() if kind == "inline" else ThreadExecutor(2)

    async def prepare():
        executor = counting_executor(inner)
        work = Work(turns=lambda item: 1 + item % 3)

        def job(item):
            return -item

        async def body():
            runner = TaskRunner(work) if kind == "tasks" else WorkerRunner(executor, Mailbox(asyncio.get_running_loop()), job)
            window = Window(iter(range(12)), runner, 4, ordered=how == "ordered")
            if how == "drain":
                await window.drain()
                return
            try:
                await everything(window)
            finally:
                await window.aclose()

        def check():
            assert work.running == executor.running == executor.outstanding == 0

        return body(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 1
    inner.close()
    if kind == "threads":
        inner.join()


@pytest.mark.parametrize("how", ["drain", "take"])
def test_cancelled_at_every_suspension_of_work_that_fails(cancelled_everywhere, how_cancelled, how, everything):
    """Cancelled while the failure is being cleaned up, too."""

    async def prepare():
        stopping = Work(failing={2}, error=ValueError(), turns=lambda item: 2 if item == 2 else 50)

        async def work(item):
            try:
                return await stopping(item)
            except asyncio.CancelledError:
                for _ in range(3):
                    await asyncio.sleep(0)
                raise

        async def body():
            window = Window(iter(range(12)), TaskRunner(work), 4)
            with pytest.raises(ValueError):
                if how == "drain":
                    await window.drain()
                else:
                    try:
                        await everything(window)
                    finally:
                        await window.aclose()

        def check():
            assert stopping.running == 0

        return body(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 2


async def test_a_second_cancellation_does_not_shorten_the_cleaning_up(workers):
    loop, begun, gate, ended = asyncio.get_running_loop(), asyncio.Event(), threading.Event(), []

    def job(item):
        loop.call_soon_threadsafe(begun.set)
        gate.wait(PATIENCE)
        ended.append(item)

    task = asyncio.create_task(Window(iter(range(5)), WorkerRunner(workers, Mailbox(loop), job), 1).drain())
    await asyncio.wait_for(begun.wait(), PATIENCE)
    for _ in range(5):
        task.cancel("enough")
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
    gate.set()
    with pytest.raises(asyncio.CancelledError, match="enough"):
        await task
    assert ended == [0]


async def test_a_timeout_comes_out_as_a_timeout(workers):
    gate = threading.Event()
    window = Window(iter(range(5)), WorkerRunner(workers, Mailbox(asyncio.get_running_loop()), lambda item: gate.wait(PATIENCE)), 2)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            asyncio.get_running_loop().call_later(0.001, gate.set)
            await window.drain()
    assert gate.is_set()
    assert asyncio.current_task().cancelling() == 0


# --- items that are put in by another task


async def feed(window, items, put):
    for item in items:
        await window.room()
        window.put(item)
        put.append(item)
    window.finish()


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("count", [0, 1, 20])
async def test_what_is_put_in_is_done_and_no_more_at_once_than_fits(limit, count, everything):
    work, put = Work(turns=lambda item: 1 + item % 4), []
    window = FedWindow(TaskRunner(work), limit)
    feeding = asyncio.create_task(feed(window, range(count), put))
    results = await everything(window)
    assert sorted(results) == [-item for item in reversed(range(count))]
    assert put == list(range(count))
    assert work.max_running == min(limit, count)
    await feeding
    with pytest.raises(StopAsyncIteration):
        await window.take()


async def test_nothing_fits_until_what_was_taken_is_given_back(everything, until):
    work, put = Work(), []
    window = FedWindow(TaskRunner(work), 3)
    feeding = asyncio.create_task(feed(window, range(10), put))
    for _ in range(3):
        await window.take()
    await until(lambda: len(work.ended) == 3)
    assert put == [0, 1, 2]
    window.release(2)
    await until(lambda: len(work.ended) == 5)
    assert put == [0, 1, 2, 3, 4]
    window.release(1)
    assert len(await everything(window)) == 7
    await feeding


async def test_room_may_be_asked_for_more_than_room():
    window, ready = FedWindow(TaskRunner(Work()), 2), []
    waiting = asyncio.create_task(window.room(lambda: bool(ready)))
    await asyncio.sleep(0)
    window.release(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    ready.append(1)
    window.release(0)
    await waiting
    await window.aclose()


async def test_an_error_of_whoever_puts_items_in_comes_out_after_what_was_ready(until):
    error = ValueError()
    window = FedWindow(TaskRunner(Work()), 3)
    window.put(1)
    assert await window.take() == -1
    window.put(2)
    await until(lambda: window.ready)
    window.finish(error)
    assert await window.take() == -2
    with pytest.raises(ValueError) as caught:
        await window.take()
    assert caught.value is error
    assert error.__context__ is None


async def test_an_error_of_whoever_puts_items_in_gives_up_what_runs(until):
    work = Work(turns=lambda item: 10**9)
    window = FedWindow(TaskRunner(work), 3)
    window.put(1)
    taking = asyncio.create_task(window.take())
    await until(lambda: work.running)
    window.finish(ValueError())
    with pytest.raises(ValueError):
        await taking
    assert work.running == 0
    assert work.ended == []


async def test_a_closed_window_has_no_room():
    window = FedWindow(TaskRunner(Work()), 3)
    await window.aclose()
    waiting = asyncio.create_task(window.room())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait([waiting])


# --- items that take long to find


@pytest.mark.parametrize("limit", [1, 3, 100])
@pytest.mark.parametrize("how", ["drain", "ordered", "unordered"])
async def test_other_tasks_have_their_turns_while_items_are_looked_for(make_window, limit, how, everything):
    found, seen, worst, results = 0, 0, 0, []

    def search():
        nonlocal found
        for number in range(300):
            found += 1
            yield number if number % 30 == 29 else None

    async def heart():
        nonlocal seen, worst
        while True:
            worst, seen = max(worst, found - seen), found
            await asyncio.sleep(0)

    beating = asyncio.create_task(heart())
    window = make_window(search(), results.append if how == "drain" else negative, limit, ordered=how == "ordered")
    if how == "drain":
        await window.drain()
    else:
        results = [-item for item in await everything(window)]
    beating.cancel()
    await asyncio.wait([beating])
    assert sorted(results) == list(range(29, 300, 30))
    assert worst <= 3


@pytest.mark.parametrize("how", ["drain", "take"])
async def test_a_search_that_finds_nothing_comes_to_its_end(make_window, how, everything):
    window = make_window(itertools.repeat(None, 50), negative, 3)
    assert await (window.drain() if how == "drain" else everything(window)) in ([], None)


async def test_a_search_that_goes_on_for_ever_can_be_closed(make_window, until):
    items = Taken(itertools.repeat(None))
    window = make_window(items, negative, 3)
    taking = asyncio.create_task(window.take())
    await until(lambda: items.count > 5)
    await window.aclose()
    with pytest.raises(StopAsyncIteration):
        await taking
    count = items.count
    for _ in range(5):
        await asyncio.sleep(0)
    assert items.count == count


@pytest.mark.parametrize("how", ["drain", "ordered", "unordered"])
async def test_a_search_that_fails(make_window, how):
    error = ValueError()

    def search():
        yield from (0, 1, None, 2, None, None)
        raise error

    window, results = make_window(search(), negative, 2, ordered=how == "ordered"), []
    with pytest.raises(ValueError) as caught:
        if how == "drain":
            await window.drain()
        while True:
            results.append(await window.take())
            window.release(1)
    assert caught.value is error
    assert error.__context__ is None
    if how == "ordered":
        assert results == [0, -1, -2]


@pytest.mark.parametrize("good", [0, 1, 3, 10])
@pytest.mark.parametrize("limit", [1, 2, 50])
async def test_a_plan_that_fails_does_so_in_its_place(make_window, good, limit):
    """Whatever was planned before is still handed out by a window that keeps the order."""
    error = StopAsyncIteration() if good == 3 else ValueError()

    def plan():
        yield from range(good)
        raise error

    window, results = make_window(plan(), negative, limit, ordered=True), []
    with pytest.raises((ValueError, RuntimeError)) as caught:
        while True:
            results.append(await window.take())
            window.release(1)
    assert error in (caught.value, caught.value.__cause__)
    assert results == [-item for item in range(good)]
    await window.aclose()


# --- the exact schedule


async def synthetic(seconds, count, executor, concurrency, memory=2**28):
    """An array of ``count`` chunks behind a store that takes ``seconds`` for each."""
    inner = MemoryStore()
    array = await create_array(inner, "a", shape=4 * count, chunks=4, dtype="i4", compressors=None)
    await array.write(np.arange(4 * count))
    store = LatencyStore(inner, seconds)
    engine = Engine(concurrency=concurrency, memory=memory, executor=executor)
    return store, type(array)(store, "a", array.metadata, engine)


SCHEDULES = [(1, 1), (1, 5), (4, 4), (5, 4), (12, 4), (13, 4), (40, 7), (3, 32), (100, 32), (9, 1)]


@pytest.mark.parametrize(("count", "concurrency"), SCHEDULES)
def test_reading_takes_as_many_rounds_as_there_must_be(run_virtual, count, concurrency):
    async def main():
        loop = asyncio.get_running_loop()
        store, array = await synthetic(2.0, count, InlineExecutor(), concurrency)
        begin = loop.time()
        data = await array.read()
        assert loop.time() - begin == pytest.approx(2.0 * -(-count // concurrency), abs=1e-6)
        assert store.requests == count
        assert store.max_in_flight == min(count, concurrency)
        assert data.tolist() == list(range(4 * count))

    run_virtual(main)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("count", "concurrency"), SCHEDULES)
def test_streaming_takes_as_many_rounds_as_there_must_be(run_virtual, count, concurrency, ordered):
    async def main():
        loop = asyncio.get_running_loop()
        store, array = await synthetic(2.0, count, InlineExecutor(), concurrency)
        begin, arrivals = loop.time(), []
        async with array.stream_chunks(ordered=ordered) as chunks:
            arrivals += [(chunk.coords, loop.time() - begin) async for chunk in chunks]
        assert [when for _, when in arrivals] == pytest.approx([2.0 * (1 + number // concurrency) for number in range(count)], abs=1e-6)
        assert sorted(coords for coords, _ in arrivals) == [(number,) for number in range(count)]
        assert store.requests == count
        assert store.max_in_flight == min(count, concurrency)

    run_virtual(main)


@pytest.mark.parametrize(("count", "concurrency"), [(12, 4), (13, 4), (9, 1)])
def test_writing_takes_as_many_rounds_as_there_must_be(run_virtual, count, concurrency):
    async def main():
        loop = asyncio.get_running_loop()
        store, array = await synthetic(2.0, count, InlineExecutor(), concurrency)
        begin = loop.time()
        await array.write(np.arange(4 * count) + 1)
        assert loop.time() - begin == pytest.approx(2.0 * -(-count // concurrency), abs=1e-6)
        assert store.max_in_flight == min(count, concurrency)
        begin = loop.time()
        await array[1 : 4 * count - 1].write(7)  # the first and the last chunk in part: one request more for each
        rounds = -(-count // concurrency)
        assert 2.0 * rounds <= loop.time() - begin <= 2.0 * (rounds + 2)
        assert store.max_in_flight == min(count, concurrency)

    run_virtual(main)


def test_a_stream_may_ask_for_another_concurrency(run_virtual):
    async def main():
        loop = asyncio.get_running_loop()
        store, array = await synthetic(2.0, 12, InlineExecutor(), 4)
        for concurrency, seconds in ((2, 12.0), (3, 8.0), (1, 24.0)):
            begin, store.max_in_flight = loop.time(), 0
            async with array.stream_chunks(concurrency=concurrency) as chunks:
                assert len([chunk async for chunk in chunks]) == 12
            assert loop.time() - begin == pytest.approx(seconds, abs=1e-6)
            assert store.max_in_flight == concurrency

    run_virtual(main)


def test_memory_bounds_a_stream_like_concurrency(run_virtual):
    async def main():
        loop = asyncio.get_running_loop()
        store, array = await synthetic(2.0, 12, InlineExecutor(), 32, memory=3 * 16)  # three chunks
        begin = loop.time()
        async with array.stream_chunks() as chunks:
            assert len([chunk async for chunk in chunks]) == 12
        assert loop.time() - begin == pytest.approx(8.0, abs=1e-6)
        assert store.max_in_flight == 3

    run_virtual(main)


def test_a_slow_chunk_holds_up_an_ordered_stream_and_not_an_unordered_one(run_virtual):
    class OneSlow(LatencyStore):
        async def get(self, key, byte_range=None):
            if key == "a/c/0":
                await asyncio.sleep(100)
            return await super().get(key, byte_range)

    async def main():
        loop = asyncio.get_running_loop()
        store, array = await synthetic(2.0, 12, InlineExecutor(), 4)
        store.__class__ = OneSlow
        begin, first = loop.time(), None
        async with array.stream_chunks(timeout=None, ordered=False) as chunks:
            seen = []
            async for chunk in chunks:
                first = first or loop.time() - begin
                seen.append(chunk.coords)
        assert first == pytest.approx(2.0)
        assert seen[-1] == (0,)
        assert loop.time() - begin == pytest.approx(102.0, abs=1e-6)
        begin, before = loop.time(), store.requests
        async with array.stream_chunks(timeout=None, ordered=True) as chunks:
            assert (await anext(chunks)).coords == (0,)
            assert loop.time() - begin == pytest.approx(102.0, abs=1e-6)
            assert store.requests - before == 4  # what fits besides the one that is waited for

    run_virtual(main)
