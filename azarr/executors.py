"""Codec executors: where chunks are encoded and decoded, so that the event loop never does.

A job is a plain call. Its outcome comes back to the loop through a ``Mailbox``, which wakes the loop once for many outcomes:
no task, future or hop is spent on a single chunk.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any, Protocol, TypeAlias, TypeVar

T = TypeVar("T")
Jobs: TypeAlias = "SimpleQueue[tuple[Mailbox, OnDone, Callable[..., Any], tuple[Any, ...]] | None]"
OnDone = Callable[[Any, BaseException | None], None]
"""Called on the loop with a job's result and ``None``, or with ``None`` and its error."""

QUICK_SECONDS = 0.001
"""The loop is told at once of a job that took longer: the next one would keep whoever waits for it as long again."""


class Mailbox:
    """Carries outcomes from worker threads to one event loop.

    Workers may let ``together`` outcomes of quick jobs come together before they wake the loop, as long as they have more jobs for this
    mailbox in hand. Whatever may wait for another outcome of the same mailbox needs 1, the default.
    """

    __slots__ = ("_armed", "_loop", "_outcomes", "together")

    def __init__(self, loop: asyncio.AbstractEventLoop, together: int = 1) -> None:
        self._loop, self.together = loop, together
        self._outcomes: deque[tuple[OnDone, Any, BaseException | None]] = deque()
        self._armed = False

    @property
    def untaken(self) -> int:
        """How many outcomes the loop has not come to yet."""
        return len(self._outcomes)

    @property
    def told(self) -> bool:
        """Whether the loop has been told, and has not come to it yet."""
        return self._armed

    def post(self, on_done: OnDone, result: object, error: BaseException | None) -> None:
        """Have ``on_done`` called on the loop soon; from any thread. Lost where the loop has been closed, as nobody is left to care."""
        self.put(on_done, result, error)
        self.wake()

    def put(self, on_done: OnDone, result: object, error: BaseException | None) -> None:
        """The first half of ``post``: the outcome is in the box."""
        self._outcomes.append((on_done, result, error))

    def wake(self) -> None:
        """The second half of ``post``: the loop is told."""
        # Armed too often is harmless, too rarely is not: the loop disarms before it empties the box.
        if not self._armed:
            self._armed = True
            try:
                self._loop.call_soon_threadsafe(self._deliver)
            except RuntimeError:
                self._armed = False
                self._outcomes.clear()

    def _deliver(self) -> None:
        self._armed = False
        outcomes = self._outcomes
        # Only what is there by now: an executor that works on the loop posts from within ``on_done``, and would never let go of it.
        for _ in range(len(outcomes)):
            on_done, result, error = outcomes.popleft()
            on_done(result, error)


class CodecExecutor(Protocol):
    """Runs jobs somewhere.

    One that has codecs work elsewhere than its jobs has a method ``pipeline``, too: of a ``CodecPipeline``, one that does the same there.
    One may have a property ``waiting``, whether there are jobs that no worker has begun: large pieces of work go on until there are.
    """

    workers: int
    """How many jobs run at once; 0 where they run on the loop itself."""

    def submit(self, mailbox: Mailbox, on_done: OnDone, function: Callable[..., Any], *args: Any) -> None:
        """Have ``function(*args)`` run, and ``on_done`` called on the mailbox's loop once it has; ``RuntimeError`` after ``close``."""

    def close(self) -> None:
        """Take no more jobs. Those that are under way come to their end; nothing is left behind after that."""


class Reply:
    """The outcome of one job, awaited by one task.

    An error leads to the frames of those who awaited it, and the reply to the error: they let go of it, as such a ring would keep what the
    job worked on.
    """

    __slots__ = ("_ended", "_loop", "finished", "future")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self._loop.create_future()
        self.finished = False
        self._ended: asyncio.Future[None] | None = None

    def __call__(self, result: object, error: BaseException | None) -> None:
        self.finished = True
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)
        if self.future.done():
            return
        if error is None:
            self.future.set_result(result)
        elif isinstance(error, StopIteration):  # which no future takes; Python does the same to generators
            failure = RuntimeError("a job raised StopIteration")
            failure.__cause__ = error
            self.future.set_exception(failure)
        else:
            self.future.set_exception(error)

    async def outcome(self) -> Any:
        """The job's result. Where the caller is cancelled, the job still comes to its end before the cancellation goes on."""
        try:
            return await self.future
        except asyncio.CancelledError:
            await self.ended()
            raise
        finally:
            del self

    async def ended(self) -> None:
        """Wait until the job has come to its end, however often the waiting task is cancelled meanwhile."""
        while not self.finished:
            self._ended = self._loop.create_future()
            try:
                await self._ended
            except asyncio.CancelledError:
                continue


def call(executor: CodecExecutor, mailbox: Mailbox, function: Callable[..., T], *args: Any) -> Coroutine[Any, Any, T]:
    """Begin a job, whose result is to be awaited.

    Where the caller is cancelled, the job still comes to its end before the cancellation goes on.
    """
    reply = Reply()
    executor.submit(mailbox, reply, function, *args)
    return reply.outcome()


class InlineExecutor:
    """Runs jobs on the loop, one after another: for tests, and for chunks so small that nothing else pays."""

    workers = 0

    def __init__(self) -> None:
        self._closed = False

    def submit(self, mailbox: Mailbox, on_done: OnDone, function: Callable[..., Any], *args: Any) -> None:
        """Run the job now; its outcome still comes through the mailbox, as it does from threads."""
        if self._closed:
            raise closed_error()
        mailbox.post(on_done, *outcome(function, args))
        del on_done  # an error of the job leads to this frame

    def close(self) -> None:
        """Take no more jobs."""
        self._closed = True


class ThreadExecutor:
    """Runs jobs in private threads that a plain queue feeds. Codecs release the interpreter lock, so threads use every core.

    ``workers`` defaults to the processors that this process may use, at most 32. Threads start with the first job.
    """

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers if workers is not None else min(32, available_processors())
        if self.workers < 1:
            raise ValueError(f"an executor of threads needs at least one worker, not {self.workers}")
        self._closed = False
        self._begin()

    def _begin(self) -> None:
        self._jobs: Jobs = SimpleQueue()
        self._mutex = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._process = os.getpid()

    def submit(self, mailbox: Mailbox, on_done: OnDone, function: Callable[..., Any], *args: Any) -> None:
        """Have the job run in a worker."""
        if self._process != os.getpid():  # forked: the threads stayed behind
            self._begin()
        # Under the mutex to its end: a job that came after the words which end the workers would never run.
        with self._mutex:
            if self._closed:
                raise closed_error()
            if len(self._threads) < self.workers:
                self._start()
            self._jobs.put((mailbox, on_done, function, args))

    @property
    def waiting(self) -> bool:
        """Whether there is a job that no worker has begun."""
        return not self._jobs.empty()

    def close(self) -> None:
        """Let the workers finish what was submitted, then end; does not wait for them."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                for _ in self._threads:
                    self._jobs.put(None)

    def join(self) -> None:
        """Wait until the workers of a closed executor have ended. Blocks: not for the loop."""
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        # Daemons, as a loop that is never closed must not keep the interpreter from ending.
        thread = threading.Thread(target=self._life(), args=(self._jobs,), name=f"azarr-{len(self._threads)}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _life(self) -> Callable[[Jobs], None]:
        """What a worker does."""
        return work


def work(jobs: Jobs) -> None:
    """What a worker thread does all its life. It holds on to nothing of a job while it waits for the next one."""
    job = jobs.get()
    while job is not None:
        began = perf_counter()
        mailbox, on_done, function, args = job
        mailbox.put(on_done, *outcome(function, args))
        # Let go before the loop is told, which may have handed out the outcome, and begun another piece for it, before this goes on.
        del job, on_done, function, args
        if mailbox.untaken < mailbox.together and perf_counter() - began < QUICK_SECONDS:
            with suppress(Empty):
                job = jobs.get_nowait()
                # A job of the same mailbox comes back to here. For any other, and where none is left, the loop is not kept waiting.
                if job is None or job[0] is not mailbox:
                    mailbox.wake()
                continue
        mailbox.wake()
        del mailbox
        job = jobs.get()


def outcome(function: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, BaseException | None]:
    """The result of a job and ``None``, or ``None`` and its error: a worker outlives whatever a job raises."""
    try:
        return function(*args), None
    except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the job
        return None, error


def closed_error() -> RuntimeError:
    """What an executor raises that is asked for more after it was closed."""
    return RuntimeError("this engine is closed; open the array with another one, or without")


def available_processors() -> int:
    """How many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
