"""What does the pieces of work that a window hands out: jobs in worker threads, or tasks on the loop.

A runner is told to start a piece, and to stop; it answers on the loop, and nothing of it is left once it has stopped.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, cast

from azarr.executors import CodecExecutor, Mailbox, OnDone, Reply

LOOP_SHARE = 0.002
"""Seconds that the loop may be kept from something else."""

T = TypeVar("T")
R = TypeVar("R")
T_contra = TypeVar("T_contra", contravariant=True)


class Runner(Protocol[T_contra]):
    """Does pieces of work, several at a time."""

    def start(self, item: T_contra, on_done: OnDone) -> None:
        """Start on ``item``; ``on_done`` is called on the loop when it is done, unless the runner has been told to stop."""

    def stop(self) -> None:
        """Start nothing any more, and give up what can be given up."""

    async def stopped(self) -> None:
        """Wait until nothing runs any more, however often the waiting task is cancelled; the cancellation then goes on."""


class Running:
    """How many pieces of work are under way, and a way to wait until there are none, for any number of tasks."""

    __slots__ = ("_waiters", "count")

    def __init__(self) -> None:
        self.count = 0
        self._waiters: set[asyncio.Future[None]] = set()

    def leave(self) -> None:
        """One piece less."""
        self.count -= 1
        if not self.count:
            for waiter in self._waiters:
                if not waiter.done():
                    waiter.set_result(None)

    async def empty(self) -> None:
        """Wait for the last piece. Cancelling the waiting task does not shorten the wait; it takes effect afterwards."""
        cancelled: asyncio.CancelledError | None = None
        while self.count:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.add(waiter)
            try:
                await waiter
            except asyncio.CancelledError as error:
                cancelled = error
            finally:
                self._waiters.discard(waiter)
        if cancelled is not None:
            try:
                raise cancelled
            finally:
                del cancelled  # it leads to this frame, which must not lead back: the ring would keep what was being worked on


class Rest(NamedTuple):
    """What is left of a job when there is nothing to do but to wait. ``end`` answers its result, and is called in any case."""

    end: Callable[[], Any]


class WorkerRunner(Generic[T, R]):
    """Does each piece in one job of an executor. A job that has not begun when the runner stops does nothing.

    A job that answers a ``Rest`` goes on in one of the ``waiters``, if there are any.

    A job that takes longer than ``timeout`` seconds is given up: what ``expired`` makes of its item stands for its result, and nobody
    waits for it any more, since a call that blocks in a worker cannot be cancelled. A job that no worker takes up is given up when
    none of this runner's has come to its end for so long: the workers hang.

    ``prompt`` answers on the loop, where that is less work than telling a worker and being told. It is asked until it answers ``None``, as
    there is something to wait for, or keeps the loop for longer than its share.
    """

    def __init__(
        self,
        executor: CodecExecutor,
        mailbox: Mailbox,
        function: Callable[[T], R | Rest],
        *,
        timeout: float | None = None,
        expired: Callable[[T], R] | None = None,
        prompt: Callable[[T], R | None] | None = None,
        waiters: CodecExecutor | None = None,
    ) -> None:
        self._executor, self._mailbox, self._function, self._prompt = executor, mailbox, function, prompt
        self._waiters = waiters
        self._timeout, self._expired = timeout, expired
        self._running = Running()
        self._stopped = False
        self._number = 0
        self._begun: dict[int, float] = {}
        self._watched: dict[int, tuple[T, OnDone, float]] = {}
        self._ended = 0.0
        self._watch: asyncio.TimerHandle | None = None

    def start(self, item: T, on_done: OnDone) -> None:
        number = self._number
        result = None if self._prompt is None else self._prompted(self._prompt, item)
        if result is None:
            self._executor.submit(self._mailbox, partial(self._finish, number), self._run, number, item)
        else:
            self._mailbox.post(partial(self._finish, number), result, None)
        self._number += 1
        self._watched[number] = item, on_done, time.monotonic()
        del on_done  # an error of a job that has been run already leads to this frame
        self._running.count += 1
        if self._watch is None and self._timeout is not None:
            self._watch = asyncio.get_running_loop().call_later(self._timeout, self._look, self._timeout)

    async def do(self, item: T) -> R:
        """The result for ``item``. Where the caller is cancelled, the job still comes to its end, or is given up, before that goes on."""
        if self._prompt is not None and (answer := self._prompted(self._prompt, item)) is not None:
            return answer
        reply = Reply()
        self.start(item, reply)
        try:
            return cast("R", await reply.outcome())
        finally:
            del reply

    def _prompted(self, prompt: Callable[[T], R | None], item: T) -> R | None:
        begun = time.thread_time()  # what other threads and programs take does not count
        result = prompt(item)
        if result is None or time.thread_time() - begun > LOOP_SHARE:
            self._prompt = None
        return result

    def _run(self, number: int, item: T) -> R | Rest | None:
        if self._stopped:
            return None
        self._begun[number] = time.monotonic()
        try:
            # a result is no variable of a frame to which its errors lead
            return self._passed_on(number, self._function(item))
        except BaseException:
            self._end(number)
            raise

    def _passed_on(self, number: int, result: R | Rest) -> R | Rest:
        if not isinstance(result, Rest):
            return self._ended_with(number, result)
        if self._waiters is not None:
            with suppress(RuntimeError):  # the engine has been closed
                self._waiters.submit(self._mailbox, partial(self._finish, number), self._wait, number, result)
                return result
        return self._ended_with(number, result.end())

    def _ended_with(self, number: int, result: R) -> R:
        self._end(number)
        return result

    def _wait(self, number: int, rest: Rest) -> Any:
        try:
            return rest.end()
        finally:
            self._end(number)

    def _end(self, number: int) -> None:
        del self._begun[number]
        self._ended = time.monotonic()

    def _finish(self, number: int, result: object, error: BaseException | None) -> None:
        if number in self._watched and not isinstance(result, Rest):
            self._leave(number, result, error)

    def _leave(self, number: int, result: object, error: BaseException | None) -> None:
        _, on_done, _ = self._watched.pop(number)
        if not self._stopped:
            on_done(result, error)
        self._unwatch()
        self._running.leave()

    def _unwatch(self) -> None:
        if self._watch is not None and not self._watched:
            self._watch.cancel()
            self._watch = None

    def _look(self, timeout: float) -> None:
        """Give up what has taken too long, and come back when the oldest of the others may have."""
        self._watch = None
        now = time.monotonic()
        since = {number: self._begun.get(number, max(started, self._ended)) for number, (_, _, started) in self._watched.items()}
        late = [number for number, begun in since.items() if now - begun >= timeout]
        if len(late) < len(since):
            oldest = min(begun for begun in since.values() if now - begun < timeout)
            self._watch = asyncio.get_running_loop().call_later(max(0.001, oldest + timeout - now), self._look, timeout)
        for number in late:
            item, *_ = self._watched[number]
            self._leave(number, None if self._expired is None else self._expired(item), None)

    def stop(self) -> None:
        self._stopped = True
        self._unwatch()

    async def stopped(self) -> None:
        await self._running.empty()


class TaskRunner(Generic[T, R]):
    """Does each piece in a task of its own; stopping cancels the tasks."""

    def __init__(self, function: Callable[[T], Coroutine[Any, Any, R]]) -> None:
        self._function = function
        self._tasks: set[asyncio.Task[R]] = set()
        self._running = Running()
        self._stopped = False

    def start(self, item: T, on_done: OnDone) -> None:
        task = asyncio.get_running_loop().create_task(self._function(item))
        self._tasks.add(task)
        self._running.count += 1
        task.add_done_callback(partial(self._finish, on_done))

    def _finish(self, on_done: OnDone, task: asyncio.Task[R]) -> None:
        self._tasks.discard(task)
        # asking for the exception also keeps asyncio from complaining that nobody did
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        if not self._stopped:
            on_done(None if error is not None else task.result(), error)
        self._running.leave()

    def stop(self) -> None:
        if not self._stopped:  # a second cancellation would disturb their cleaning up
            self._stopped = True
            for task in self._tasks:
                task.cancel()

    async def stopped(self) -> None:
        await self._running.empty()
