"""A window over work: so much of it at once and no more, started lazily, and nothing of it left when the window is closed.

The one concurrency primitive of azarr: reading, streaming and writing all go through it. The work is done by a runner. A window
belongs to one task; it never yields inside a task group or timeout (PEP 789), so the first error comes out as it is and at the place
where the caller waits.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar, cast

from azarr.errors import StreamError
from azarr.runners import Runner, TaskRunner

T = TypeVar("T")
R = TypeVar("R")


class Window(Generic[T, R]):
    """Runs ``items`` so that at most ``limit`` of their weight is outstanding, and hands out or discards their results.

    ``None`` among the items means that the next takes long to find: the loop then has its turn before it is asked for.

    An item weighs 1, or what ``weigh`` says, at most ``heaviest``. Weight is outstanding from the start of the item until its result
    is there (``drain``), or until whoever took the result gives it back (``take`` and ``release``). One item always fits.
    """

    def __init__(
        self,
        items: Iterator[T | None],
        runner: Runner[T],
        limit: int,
        *,
        ordered: bool = False,
        weigh: Callable[[T], int] = lambda _: 1,
        heaviest: int = 1,
    ) -> None:
        self._items, self._runner, self._weigh, self._ordered = items, runner, weigh, ordered
        self._room = limit - heaviest
        self._outstanding = 0
        self._started = self._finished = 0
        self._exhausted = self._draining = self._closed = self._pausing = False
        self._ready: deque[R] = deque()
        self._early: dict[int, R | BaseException] = {}
        self._turn = 0
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def drain(self) -> None:
        """Run everything to its end; the first error comes out once nothing runs any more."""
        self._draining = True
        try:
            self._fill()
            while self._error is None and (self._finished < self._started or self._pausing):
                await self._wait()
            if self._error is not None:
                raise self._forget(self._error)
        finally:
            await self.aclose()

    @property
    def outstanding(self) -> int:
        """The weight that is outstanding."""
        return self._outstanding

    @property
    def running(self) -> int:
        """How many pieces are under way."""
        return self._started - self._finished

    def waiting(self) -> list[R]:
        """The results that wait for being taken, or for their turn."""
        return [*self._ready, *(each for each in self._early.values() if not isinstance(each, BaseException))]

    @property
    def ready(self) -> bool:
        """Whether ``take`` would not have to wait."""
        return bool(self._ready)

    async def take(self) -> R:
        """The next result, in order of the items if the window is ``ordered``; ``StopAsyncIteration`` after the last."""
        while not self._ready:
            self._fill()
            if self._error is not None:
                error = self._forget(self._error)
                try:
                    await self.aclose()
                    raise error
                finally:
                    del error
            if self._closed or (self._exhausted and self._finished == self._started):
                await self.aclose()
                raise StopAsyncIteration
            await self._wait()
        return self._ready.popleft()

    def release(self, weight: int) -> None:
        """Give back ``weight`` of a result that was taken, and start what now fits."""
        self._outstanding -= weight
        self._fill()

    def close(self) -> None:
        """Start nothing any more and give up what can be given up; does not wait for the rest."""
        self._closed = True
        self._ready.clear()
        self._early.clear()
        self._runner.stop()
        self._wake()

    async def aclose(self) -> None:
        """Close, and wait until nothing runs any more. May be called again."""
        self.close()
        await self._runner.stopped()

    def _fill(self) -> None:
        while not (self._exhausted or self._closed or self._error or self._pausing) and (
            self._outstanding <= self._room or not self._outstanding
        ):
            try:
                item = next(self._items)
                if item is None:
                    self._pausing = True
                    asyncio.get_running_loop().call_soon(self._go_on)
                    return
                self._start(item)
            except StopIteration:
                self._exhausted = True
                return
            except BaseException as failure:  # noqa: BLE001 - belongs to the caller, in the place of the item that there is not
                self._exhausted = True
                self._started += 1
                self._on_done(self._started - 1, 0, None, failure)
                return

    def _start(self, item: T) -> None:
        weight = self._weigh(item)
        self._runner.start(item, partial(self._on_done, self._started, weight))
        self._outstanding += weight
        self._started += 1

    def _go_on(self) -> None:
        self._pausing = False
        self._fill()
        self._wake()

    def _on_done(self, number: int, weight: int, result: Any, error: BaseException | None) -> None:
        self._finished += 1
        if self._draining:
            self._outstanding -= weight
            self._error = self._error or error
            self._fill()
            if self._error is not None or self._finished == self._started:
                self._wake()
            return
        if self._ordered:
            self._early[number] = result if error is None else error
            while self._error is None and self._turn in self._early:
                self._deliver(self._early.pop(self._turn))
                self._turn += 1
        else:
            self._deliver(result if error is None else error)
        self._wake()

    def _deliver(self, outcome: R | BaseException) -> None:
        if not isinstance(outcome, BaseException):
            self._ready.append(outcome)
        elif self._error is None:
            self._error = outcome

    def _forget(self, error: BaseException) -> BaseException:
        """``error`` for the caller. It leads to frames that lead to this window: a ring would keep what was being worked on."""
        self._error = None
        if not isinstance(error, StopAsyncIteration):
            return error
        failure = RuntimeError("a piece of work raised StopAsyncIteration")  # which would pass for the end of the results
        failure.__cause__ = error
        return failure

    async def _wait(self) -> None:
        if self._waiter is not None:
            raise StreamError("this stream is already being waited for by another task; give each task a stream of its own")
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class FedWindow(Window[T, R]):
    """A window whose items one task puts in while another takes the results. Every item weighs 1."""

    def __init__(self, runner: Runner[T], limit: int) -> None:
        super().__init__(iter(()), runner, limit)
        self._feeder: asyncio.Future[None] | None = None

    async def room(self, also: Callable[[], bool] = lambda: True) -> None:
        """Wait until one more item fits, ``also`` being so, which is asked again whenever something is released."""
        while not (self._fits and also()):
            self._feeder = asyncio.get_running_loop().create_future()
            try:
                await self._feeder
            finally:
                self._feeder = None

    def put(self, item: T) -> None:
        """Start on ``item``; for whoever has waited for ``room``."""
        self._start(item)

    def finish(self, error: BaseException | None = None) -> None:
        """There are no more items; ``error`` says what has become of the rest, and is what the taker gets."""
        self._exhausted = True
        self._error = self._error or error
        self._wake()

    @property
    def _fits(self) -> bool:
        return not (self._closed or self._error) and self._outstanding <= self._room

    def _fill(self) -> None:
        if self._feeder is not None and not self._feeder.done() and self._fits:
            self._feeder.set_result(None)


async def gather(function: Callable[[T], Coroutine[Any, Any, R]], items: Iterable[T], limit: int) -> list[R]:
    """What ``function`` answers for each of ``items``, in their order, at most ``limit`` at once.

    The first error comes out once nothing runs any more, unlike with ``asyncio.gather``.
    """
    results: dict[int, R] = {}

    async def run(numbered: tuple[int, T]) -> None:
        number, item = numbered
        results[number] = await function(item)

    await Window(enumerate(items), TaskRunner(run), limit).drain()
    return [results[number] for number in range(len(results))]


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, R]) -> tuple[T, R]:
    """What two coroutines answer that run at once; where one fails, the other is given up."""
    results = await gather(_itself, (first, second), 2)
    return cast("tuple[T, R]", tuple(results))


async def _itself(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return await coroutine
