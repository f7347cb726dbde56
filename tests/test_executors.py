"""Jobs run somewhere and their outcomes come home: all of them, once, and nothing stays behind."""

from __future__ import annotations

import asyncio
import gc
import math
import subprocess
import sys
import threading
import weakref
from contextlib import suppress
from functools import partial

import pytest

from azarr import executors
from azarr.executors import InlineExecutor, Mailbox, ThreadExecutor, available_processors, call

PATIENCE = 30


class Thing:
    """Something that can be referred to weakly."""


@pytest.fixture(params=["inline", "threads", "one thread"])
def executor(request):
    made = InlineExecutor() if request.param == "inline" else ThreadExecutor(3 if request.param == "threads" else 1)
    yield made
    made.close()
    if isinstance(made, ThreadExecutor):
        made.join()


@pytest.fixture
def threads():
    """Makes thread executors that are closed in the end."""
    made = []

    def make(workers=None):
        made.append(ThreadExecutor(workers))
        return made[-1]

    yield make
    for each in made:
        each.close()
        each.join()


class CountingLoop:
    """Looks like a loop to a mailbox, and keeps what it is asked to call."""

    def __init__(self) -> None:
        self.calls = []

    def call_soon_threadsafe(self, function) -> None:
        self.calls.append(function)


def fail(error):
    raise error


# --- the mailbox


def test_many_outcomes_wake_the_loop_once():
    loop, outcomes = CountingLoop(), []
    mailbox = Mailbox(loop)
    for number in range(1000):
        mailbox.post(lambda result, error: outcomes.append((result, error)), number, None)
    assert len(loop.calls) == 1
    assert outcomes == []
    loop.calls.pop()()
    assert outcomes == [(number, None) for number in range(1000)]
    mailbox.post(lambda result, error: outcomes.append((result, error)), None, error := ValueError())
    assert len(loop.calls) == 1
    loop.calls.pop()()
    assert outcomes[-1] == (None, error)


async def test_threads_that_finish_together_wake_the_loop_once(threads, monkeypatch):
    executor, loop = threads(4), asyncio.get_running_loop()
    mailbox, wakes = Mailbox(loop), []
    original = loop.call_soon_threadsafe
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *args: (wakes.append(args), original(*args)))
    gate, left, all_run = threading.Event(), [200], threading.Event()
    done = asyncio.Event()

    def job():
        gate.wait(PATIENCE)

    def last():
        all_run.set()

    def on_done(result, error):
        left[0] -= 1
        if not left[0]:
            done.set()

    for _ in range(199):
        executor.submit(mailbox, on_done, job)
    executor.submit(mailbox, on_done, last)
    gate.set()
    executor.close()
    executor.join()  # the loop is held up here, as by a consumer that computes; meanwhile everything gets done
    assert all_run.is_set()
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert 1 <= len(wakes) <= executor.workers  # threads may find the box unarmed at the same moment


class PromptLoop:
    """A loop that does at once what it is told to, and says how."""

    def __init__(self, told):
        self._told = told

    def call_soon_threadsafe(self, function):
        self._told.append("woken")
        function()


EACH_AT_ONCE = [*["woken", "a"] * 6, "woken", "b", "woken", "a"]


@pytest.mark.parametrize(
    ("together", "quick_seconds", "told"),
    [
        (1, math.inf, EACH_AT_ONCE),
        (4, math.inf, ["woken", "a", "a", "a", "a", "woken", "a", "a", "woken", "b", "woken", "a"]),
        (4, 0, EACH_AT_ONCE),
    ],
)
@pytest.mark.parametrize("closed", [True, False])
def test_outcomes_of_quick_jobs_come_together_while_more_wait(threads, monkeypatch, together, quick_seconds, told, closed):
    monkeypatch.setattr(executors, "QUICK_SECONDS", quick_seconds)
    heard, left, gate, ended, executor = [], [], threading.Event(), threading.Event(), threads(1)
    patient, other = Mailbox(PromptLoop(heard), together), Mailbox(PromptLoop(heard))

    def on_done(result, error):
        heard.append(result)
        left.pop()
        if not left:
            ended.set()

    executor.submit(other, lambda result, error: heard.clear(), gate.wait, PATIENCE)
    for mailbox, name in [*[(patient, "a")] * 6, (other, "b"), (patient, "a")]:
        left.append(name)
        executor.submit(mailbox, on_done, str, name)
    if closed:
        executor.close()
    gate.set()
    assert ended.wait(PATIENCE)
    assert heard == told


def test_what_is_posted_while_outcomes_are_handed_out_waits_for_its_turn():
    loop, seen = CountingLoop(), []
    mailbox = Mailbox(loop)

    def chain(result, error):
        seen.append(result)
        mailbox.post(chain, result + 1, None)

    mailbox.post(chain, 0, None)
    for turn in range(5):
        assert len(loop.calls) == 1
        loop.calls.pop()()
        assert seen == list(range(turn + 1))


def test_no_outcome_is_lost_between_threads_and_a_loop_that_empties_the_box(threads):
    rounds, senders = 2000, 4

    async def main():
        loop = asyncio.get_running_loop()
        mailbox, got, done = Mailbox(loop), [], asyncio.Event()

        def on_done(result, error):
            got.append(result)
            if len(got) == rounds * senders:
                done.set()

        def send(sender):
            for number in range(rounds):
                mailbox.post(on_done, (sender, number), None)

        workers = [threading.Thread(target=send, args=(sender,)) for sender in range(senders)]
        for worker in workers:
            worker.start()
        await asyncio.wait_for(done.wait(), PATIENCE)
        for worker in workers:
            worker.join()
        for sender in range(senders):
            assert [number for which, number in got if which == sender] == list(range(rounds))

    asyncio.run(main())


def test_outcomes_for_a_closed_loop_are_lost_quietly_and_not_kept():
    loop = asyncio.new_event_loop()
    mailbox = Mailbox(loop)
    loop.close()
    for _ in range(3):
        thing = Thing()
        alive = weakref.ref(thing)
        mailbox.post(lambda result, error: pytest.fail("nobody is there to be called"), thing, None)
        del thing
        assert alive() is None


def test_a_worker_outlives_the_loop_it_worked_for(threads):
    executor, gate, posted = threads(1), threading.Event(), threading.Event()
    loop = asyncio.new_event_loop()
    executor.submit(Mailbox(loop), lambda result, error: pytest.fail("the loop is closed"), gate.wait, PATIENCE)
    loop.close()
    gate.set()

    async def main():
        await call(executor, Mailbox(asyncio.get_running_loop()), posted.set)

    asyncio.run(main())
    assert posted.is_set()


# --- what every executor promises


async def test_the_result_of_a_job(executor):
    mailbox = Mailbox(asyncio.get_running_loop())
    assert await call(executor, mailbox, divmod, 17, 5) == (3, 2)


async def test_an_outcome_comes_on_the_loop_and_not_before_it_runs(executor):
    loop, thread = asyncio.get_running_loop(), threading.get_ident()
    seen, done = [], asyncio.Event()

    def on_done(result, error):
        seen.append((result, error, threading.get_ident()))
        done.set()

    executor.submit(Mailbox(loop), on_done, str, 5)
    assert seen == []
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert seen == [("5", None, thread)]


@pytest.mark.parametrize("kind", [ValueError, BaseException, GeneratorExit, StopAsyncIteration, asyncio.CancelledError])
async def test_an_error_comes_out_bare_and_kills_no_worker(executor, kind):
    mailbox, error = Mailbox(asyncio.get_running_loop()), kind("because")
    with pytest.raises(kind) as caught:
        await asyncio.wait_for(call(executor, mailbox, fail, error), PATIENCE)
    assert caught.value is error or kind is asyncio.CancelledError
    assert caught.value.__context__ is None or kind is asyncio.CancelledError
    assert caught.value.__cause__ is None
    assert await asyncio.wait_for(call(executor, mailbox, int, "7"), PATIENCE) == 7


async def test_a_job_that_ends_an_iteration_does_not_hang_its_caller(executor):
    mailbox, error = Mailbox(asyncio.get_running_loop()), StopIteration("leaked")
    with pytest.raises(RuntimeError, match="StopIteration") as caught:
        await asyncio.wait_for(call(executor, mailbox, fail, error), PATIENCE)
    assert caught.value.__cause__ is error
    assert await asyncio.wait_for(call(executor, mailbox, int, "7"), PATIENCE) == 7


async def test_all_of_many_jobs_come_home(executor):
    mailbox = Mailbox(asyncio.get_running_loop())
    results = await asyncio.gather(*(call(executor, mailbox, pow, number, 2) for number in range(500)))
    assert results == [number**2 for number in range(500)]


async def test_closing_lets_submitted_jobs_finish(executor):
    mailbox, outcomes, done = Mailbox(asyncio.get_running_loop()), [], asyncio.Event()

    def on_done(result, error):
        outcomes.append(result)
        if len(outcomes) == 20:
            done.set()

    for number in range(20):
        executor.submit(mailbox, on_done, abs, -number)
    executor.close()
    executor.close()
    await asyncio.wait_for(done.wait(), PATIENCE)
    assert sorted(outcomes) == list(range(20))


async def test_a_closed_executor_says_so(executor):
    mailbox = Mailbox(asyncio.get_running_loop())
    await call(executor, mailbox, int)
    executor.close()
    ran = []
    with pytest.raises(RuntimeError, match="engine is closed"):
        await call(executor, mailbox, ran.append, 1)
    with pytest.raises(RuntimeError, match="engine is closed"):
        executor.submit(mailbox, lambda result, error: ran.append(2), ran.append, 3)
    assert ran == []


def test_nothing_of_a_job_is_kept_while_a_worker_waits(executor):
    class Function:
        def __call__(self, argument):
            return Thing()

    def main_references():
        function, argument, received = Function(), Thing(), []
        alive = [weakref.ref(function), weakref.ref(argument)]

        async def main():
            def on_done(result, error):
                received.append(result)
                alive.append(weakref.ref(result))
                alive.append(weakref.ref(on_done_reference()))
                done.set()

            on_done_reference = weakref.ref(on_done)
            done = asyncio.Event()
            mailbox = Mailbox(asyncio.get_running_loop())
            executor.submit(mailbox, on_done, function, argument)
            await asyncio.wait_for(done.wait(), PATIENCE)
            # with this one done, its worker has begun to wait again at least once; with all workers busy, each has
            barrier = threading.Barrier(max(1, executor.workers))
            await asyncio.gather(*(call(executor, mailbox, barrier.wait, PATIENCE) for _ in range(barrier.parties)))

        asyncio.run(main())
        return alive

    alive = main_references()
    gc.collect()
    assert len(alive) == 4
    assert [each() for each in alive] == [None] * 4


def test_a_worker_lets_go_of_a_job_before_it_tells_the_loop(threads):
    """Else a loop that has handed on the outcome, and begun the next piece for it, finds both in memory."""
    alive, seen, told = [], [], threading.Event()

    class Loop:
        def call_soon_threadsafe(self, function) -> None:
            (_, outcome, _) = mailbox._outcomes.pop()
            alive.append(weakref.ref(outcome))
            del outcome
            seen.extend(each() for each in alive)
            told.set()

    def job(argument):
        return Thing()

    mailbox, argument = Mailbox(Loop()), Thing()
    alive.append(weakref.ref(argument))
    threads(1).submit(mailbox, print, job, argument)
    del argument
    assert told.wait(PATIENCE)
    assert seen == [None, None]


async def test_an_error_of_a_job_does_not_keep_what_the_job_worked_on(threads):
    executor, mailbox = threads(1), Mailbox(asyncio.get_running_loop())

    def job(thing):
        raise ValueError

    gc.collect()
    gc.disable()
    try:
        thing = Thing()
        alive = weakref.ref(thing)
        with suppress(ValueError):
            await call(executor, mailbox, job, thing)
        del thing
        await call(executor, mailbox, int)  # the worker has let go of the job before
        assert alive() is None
    finally:
        gc.enable()


# --- cancellation


async def test_a_cancelled_call_waits_for_the_end_of_its_job(threads):
    executor, begun, gate, ended = threads(1), threading.Event(), threading.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    mailbox = Mailbox(loop)
    running = asyncio.Event()

    def job():
        begun.set()
        loop.call_soon_threadsafe(running.set)
        gate.wait(PATIENCE)
        ended.set()

    task = asyncio.create_task(call(executor, mailbox, job))
    await asyncio.wait_for(running.wait(), PATIENCE)
    for _ in range(5):  # however often
        task.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert not task.done()
    assert not ended.is_set()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_a_call_that_is_cancelled_before_its_job_begins_waits_too(threads):
    executor, gate = threads(1), threading.Event()
    mailbox, order = Mailbox(asyncio.get_running_loop()), []
    blocker = asyncio.create_task(call(executor, mailbox, gate.wait, PATIENCE))
    task = asyncio.create_task(call(executor, mailbox, order.append, "job"))
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.sleep(0)
    assert not task.done()
    gate.set()
    await blocker
    with pytest.raises(asyncio.CancelledError):
        await task
    assert order == ["job"]


def test_the_error_of_a_job_whose_caller_was_cancelled_is_nobodys(threads, cancelled_everywhere, how_cancelled):
    executor = threads(2)

    async def prepare():
        async def body():
            with pytest.raises(ValueError):
                await call(executor, Mailbox(asyncio.get_running_loop()), fail, ValueError("nobody asks"))

        return body(), lambda: None

    assert cancelled_everywhere(prepare, how_cancelled) >= 1


# --- threads


def test_an_executor_needs_a_worker():
    for workers in (0, -1):
        with pytest.raises(ValueError, match="at least one"):
            ThreadExecutor(workers)


def test_workers_default_to_the_processors():
    assert ThreadExecutor().workers == min(32, available_processors())
    assert InlineExecutor.workers == 0


async def test_threads_start_one_by_one_with_the_jobs(threads):
    before = set(threading.enumerate())
    executor = threads(3)
    assert set(threading.enumerate()) == before
    mailbox = Mailbox(asyncio.get_running_loop())
    for number in range(5):
        await call(executor, mailbox, int)
        started = set(threading.enumerate()) - before
        assert len(started) == min(number + 1, 3)
        assert all(thread.daemon and thread.name.startswith("azarr-") for thread in started)


async def test_no_thread_is_left_after_close_and_join(threads):
    before = set(threading.enumerate())
    executor = threads(4)
    mailbox = Mailbox(asyncio.get_running_loop())
    await asyncio.gather(*(call(executor, mailbox, int) for _ in range(50)))
    assert len(set(threading.enumerate()) - before) == 4
    executor.close()
    executor.join()
    assert set(threading.enumerate()) == before


def test_an_executor_that_never_worked_is_closed_without_threads():
    before = set(threading.enumerate())
    executor = ThreadExecutor(2)
    executor.close()
    executor.join()
    assert set(threading.enumerate()) == before


async def test_jobs_run_at_once_in_all_workers(threads):
    executor, together = threads(3), threading.Barrier(3)
    mailbox = Mailbox(asyncio.get_running_loop())
    await asyncio.gather(*(call(executor, mailbox, together.wait, PATIENCE) for _ in range(3)))


def test_a_job_that_is_accepted_is_run_even_when_another_thread_closes(threads):
    """Many submitters race with one that closes: each job either runs, or its submitter gets the error."""
    for _ in range(100):
        executor, start = threads(2), threading.Barrier(4)
        ran, refused, accepted = [], [], []
        mailbox = Mailbox(CountingLoop())

        def submit(executor=executor, start=start, ran=ran, refused=refused, accepted=accepted, mailbox=mailbox):
            start.wait(PATIENCE)
            for number in range(20):
                try:
                    executor.submit(mailbox, print, ran.append, number)
                except RuntimeError:
                    refused.append(number)
                else:
                    accepted.append(number)

        def close(executor=executor, start=start):
            start.wait(PATIENCE)
            executor.close()

        racers = [threading.Thread(target=target) for target in (submit, submit, submit, close)]
        for racer in racers:
            racer.start()
        for racer in racers:
            racer.join(PATIENCE)
        executor.join()
        assert sorted(ran) == sorted(accepted)
        assert len(accepted) + len(refused) == 60


async def test_two_loops_share_one_executor(threads):
    executor = threads(2)

    async def work():
        mailbox = Mailbox(asyncio.get_running_loop())
        return await asyncio.gather(*(call(executor, mailbox, partial(pow, number, 2)) for number in range(200)))

    others = [asyncio.to_thread(asyncio.run, work()) for _ in range(3)]
    assert await asyncio.gather(work(), *others) == [[number**2 for number in range(200)]] * 4


def test_an_executor_that_is_never_closed_does_not_keep_the_interpreter_from_ending():
    program = """
import asyncio
from azarr.executors import Mailbox, ThreadExecutor, call
executor = ThreadExecutor(2)
async def main():
    print(await call(executor, Mailbox(asyncio.get_running_loop()), sum, [1, 2]))
asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "3\n"
    assert done.stderr == ""
