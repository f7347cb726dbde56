"""A crew: worker threads that help themselves to the pieces of one piece of work, without a word to the event loop until it is done.

A loop that hands out every piece would be woken for every piece, and each time fight the workers for the interpreter lock: reading
20,000 small chunks takes half as long again. For stores whose calls block; what is awaited goes through a ``Window``.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar

from azarr.engine import Engine
from azarr.executors import Reply

T = TypeVar("T")

TAKE, MOST = 0.002, 32
"""Seconds of work, and pieces, that a worker takes at once: workers that come back too often wait for each other."""

SHARES = 4
"""Items that each worker has at least where many pieces make one, as far as there are so many: the last should not work alone for long."""

LEFT = 16
"""Pieces at most that wait for a waiter: each keeps a file open. Where a disk is slower than the codecs, the workers wait for it, too."""

SLICE = 0.01
"""Seconds after which a worker lets work that waits in the queue go first, so that a small read does not wait for a large one."""


class Crew(Generic[T]):
    """Does ``function`` for each of ``items``, which are taken lazily, in the workers of an engine."""

    def __init__(self, engine: Engine, items: Iterator[T], function: Callable[[T], object]) -> None:
        self._executor, self._waiters, self._mailbox = engine.executor, engine.waiters, engine.mailbox()
        self._items, self._function = items, function
        self._mutex, self._counting = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._lanes = max(1, self._executor.workers)
        self._left: deque[Callable[[], object]] = deque()
        self._waiting = 0
        self._reply = Reply()

    async def run(self) -> None:
        """Do everything; the first error comes out once nothing runs any more, as does a cancellation."""
        for _ in range(self._lanes):
            self._submit(self._lane)
        try:
            await self._reply.future
        except asyncio.CancelledError:
            self._stop.set()
            await self._reply.ended()
            raise
        finally:
            # an error leads to frames that lead to this crew: a ring would keep what was being worked on
            self._error = None
            del self._reply

    def _lane(self) -> bool:
        """Work until the time is up, and whether there may be more to do; in a worker."""
        begun = now = time.perf_counter()
        take = 1
        try:
            while not self._stop.is_set():
                with self._mutex:  # plans are generators, which must not be asked twice at once
                    items = list(itertools.islice(self._items, take))
                if not items:
                    return False
                for item in items:
                    if self._stop.is_set():
                        return False
                    self._function(item)
                before, now = now, time.perf_counter()
                if now - begun > SLICE and getattr(self._executor, "waiting", True):
                    return self._again()
                take = max(1, min(MOST, round(take * TAKE / (now - before + 1e-9))))
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the crew
            self._fail(error)
        return False

    def _again(self) -> bool:
        if self._executor.workers:  # on the loop itself, the next slice has to let the loop have a turn
            self._submit(self._lane)
        return True

    def _submit(self, lane: Callable[[], bool]) -> None:
        try:
            self._executor.submit(self._mailbox, self._on_done, lane)
        except RuntimeError as error:  # the engine has been closed
            self._fail(error)
            self._mailbox.post(self._on_done, lane(), None)  # does no more than to let go of what it holds

    @property
    def stopped(self) -> bool:
        """Whether an error or a cancellation has ended the work: what has not begun must not begin."""
        return self._stop.is_set()

    def begin(self, attempt: Callable[[Callable[[], None]], bool], function: Callable[[], object]) -> None:
        """Do ``function`` in this worker if ``attempt`` says so; else in some worker, once ``attempt``'s argument has been called.

        So a worker need not wait for something (a lock) that only another worker can bring about. ``function`` is called in any case.
        """
        with self._counting:
            self._lanes += 1
        if attempt(lambda: self._mailbox.post(self._resume, function, None)):
            with self._counting:
                self._lanes -= 1
            function()

    def leave(self, function: Callable[[], object]) -> None:
        """Have a waiter call ``function``, which waits rather than works; or this worker, where much has been left already.

        It is called in any case.
        """
        with self._counting:
            mine = len(self._left) >= LEFT or not self._executor.workers
            more = not mine and self._waiting < self._waiters.workers
            if more:
                self._waiting += 1
                self._lanes += 1
            if not mine:
                self._left.append(function)
        if mine:
            function()
        elif more:
            try:
                self._waiters.submit(self._mailbox, self._on_done, self._clear)
            except RuntimeError:  # the engine has been closed
                self._mailbox.post(self._on_done, self._clear(), None)

    def _clear(self) -> bool:
        """Do what has been left until nothing is; in a waiter."""
        while True:
            with self._counting:
                if not self._left:
                    self._waiting -= 1
                    return False
                function = self._left.popleft()
            self._late(function)

    def _resume(self, function: Callable[[], object], _: BaseException | None) -> None:
        self._submit(partial(self._late, function))

    def _late(self, function: Callable[[], object]) -> bool:
        try:
            function()
        except BaseException as error:  # noqa: BLE001 - handed to whoever awaits the crew
            self._fail(error)
        return False

    def _fail(self, error: BaseException) -> None:
        self._stop.set()
        with self._counting:
            self._error = self._error or error

    def _on_done(self, unfinished: Any, error: BaseException | None) -> None:
        if unfinished:
            if not self._executor.workers:
                self._submit(self._lane)
            return
        with self._counting:
            self._error = self._error or error
            self._lanes -= 1
            done = not self._lanes
        if done:
            self._reply(None, self._error)
