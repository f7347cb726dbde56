"""Admission: jobs whose results take memory begin as workers come to them and callers take what is done, rather than as they are asked for.

Thousands of single chunks may be asked for at once. Those that wait for their turn are given up at once where they are cancelled.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

from azarr.executors import CodecExecutor, Mailbox, Reply

T = TypeVar("T")

NBYTES = 8 * 2**20
"""Bytes of results that may be under way however many those are: small chunks are done before the loop has handed out more."""

UNTAKEN_NBYTES = 2 * 2**20
"""Bytes of results that the loop has not come to yet, from which on a worker lets it go first where they share a processor."""

TOGETHER = 3
"""Outcomes of quick jobs that the loop is told of together while more wait. Each time that it wakes it takes the interpreter from a worker
and wakes that again later: with one at a time, reading chunks of 1 MiB (Blosc, LZ4) at random took a tenth longer."""

let_others_go: Callable[[], object] = getattr(os, "sched_yield", partial(time.sleep, 0))
"""The thread goes on once others have had its processor, if there are any that wait for one."""


class Admission:
    """Jobs on the way from one event loop to an executor: those that have begun, and those that wait, in the order in which they came.

    ``concurrency`` jobs have begun at once at most, but for small ones. With a third of the default, 32, workers run dry while the loop is
    busy. Nothing but this bounds what is done and not taken while the loop is busy with something else.
    """

    __slots__ = ("_concurrency", "_executor", "_jobs", "_mailbox", "_nbytes", "_waiting")

    def __init__(self, executor: CodecExecutor, loop: asyncio.AbstractEventLoop, concurrency: int) -> None:
        self._executor, self._mailbox, self._concurrency = executor, Mailbox(loop, TOGETHER), max(concurrency, executor.workers)
        self._jobs = self._nbytes = 0
        self._waiting: OrderedDict[Admitted, None] = OrderedDict()

    def call(self, nbytes: int, function: Callable[..., T], *args: Any) -> Coroutine[Any, Any, T]:
        """Have ``function(*args)`` run in its turn, which takes ``nbytes`` of memory; to be awaited.

        Where the caller is cancelled, a job that has begun comes to its end first.
        """
        job = Admitted(self, nbytes, function, args)
        if self._waiting or not self._has_room():
            self._waiting[job] = None
        else:
            self._begin(job)
        return job.outcome()

    def _has_room(self) -> bool:
        return self._jobs < self._concurrency or self._nbytes < NBYTES

    def _begin(self, job: Admitted) -> None:
        self._executor.submit(self._mailbox, job, run, self._mailbox, job.nbytes, job.function, job.args)
        job.begun = True
        self._jobs += 1
        self._nbytes += job.nbytes

    def leave(self, job: Admitted) -> None:
        """The caller has what a job has done, so that others may begin."""
        self._jobs -= 1
        self._nbytes -= job.nbytes
        while self._waiting and self._has_room():
            following, _ = self._waiting.popitem(last=False)
            try:
                self._begin(following)
            except Exception as error:  # noqa: BLE001 - the engine has been closed: for whoever awaits that job
                following(None, error.with_traceback(None))  # which leads to the job, and the job to the error

    def withdraw(self, job: Admitted) -> None:
        """A job that waits is not wanted any more."""
        self._waiting.pop(job, None)


class Admitted(Reply):
    """The outcome of a job that may have to wait for its turn."""

    __slots__ = ("_admission", "args", "begun", "function", "nbytes")

    def __init__(self, admission: Admission, nbytes: int, function: Callable[..., object], args: tuple[Any, ...]) -> None:
        super().__init__()
        self._admission, self.nbytes, self.function, self.args = admission, nbytes, function, args
        self.begun = False

    async def outcome(self) -> Any:
        """As of any job; others may begin once the caller has what it waited for, and may be done with it."""
        try:
            return await super().outcome()
        finally:
            if self.begun:
                self._admission.leave(self)
            del self  # as in any reply

    async def ended(self) -> None:
        """As of any job; one that has not begun never does."""
        if self.begun:
            await super().ended()
        else:
            self._admission.withdraw(self)


def run(mailbox: Mailbox, nbytes: int, function: Callable[..., T], args: tuple[Any, ...]) -> T:
    """``function(*args)``, which is about to take ``nbytes``; for workers."""
    if mailbox.told and mailbox.untaken * nbytes >= UNTAKEN_NBYTES:
        let_others_go()
    return function(*args)
