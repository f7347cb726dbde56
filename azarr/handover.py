"""Handing what a stream has over to other people's code: as many items as it asks for, or as fast as it takes them."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import Generic, Protocol, Self, TypeVar, cast

from azarr.runners import TaskRunner

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)


class Items(Protocol[T_co]):
    """A stream."""

    def __aiter__(self) -> Self: ...

    async def __anext__(self) -> T_co: ...

    async def aclose(self) -> None:
        """End it; once this returns, nothing that it started runs any more."""


class Sender(Protocol[T_contra]):
    """What sends to somebody who receives: the sending side of a memory object stream of anyio, for one."""

    async def send(self, item: T_contra, /) -> None:
        """Hand ``item`` over, once there is room for it."""

    async def aclose(self) -> None:
        """Let the receiver know that there will be no more."""


class Queue(Protocol[T_contra]):
    """A queue whose ``put`` is awaited: ``asyncio.Queue``, for one."""

    async def put(self, item: T_contra | None, /) -> None:
        """Put ``item`` in, once there is room for it."""


class Producer(Generic[T]):
    """Chunks or slices of a stream as they are asked for: ``async with stream.producer() as producer: chunks = await producer.ask(8)``.

    Nothing is taken from the stream that nobody has asked for. Any number of tasks may ask at once; they are answered one after the
    other, and each item goes to one of them. Closing the producer closes the stream.
    """

    def __init__(self, stream: Items[T]) -> None:
        self._stream = stream
        self._taken: deque[T] = deque()
        self._turn = asyncio.Lock()
        # Taken by a task of its own: cancelling whoever asks must not end the stream, as cancelling whoever iterates does.
        self._puller: TaskRunner[Producer[T], None] = TaskRunner(Producer._pull)
        self._idle = asyncio.Event()
        self._idle.set()
        self._demand = 0
        self._ended = False
        self._error: BaseException | None = None

    async def ask(self, n: int = 1) -> list[T]:
        """The next ``n`` items, fewer where the stream ends, and none from then on.

        They are the caller's, beside what the stream holds. Where the stream fails, the items before the failure are handed out first,
        and the next ``ask`` raises the error; so ask until there are none. A cancelled ``ask`` loses nothing: what it has taken is
        there for the next.
        """
        if n < 1:
            raise ValueError(f"at least one must be asked for, not {n}")
        async with self._turn:
            try:
                self._demand = n
                while len(self._taken) < n and not self._ended and self._error is None:
                    if self._idle.is_set():
                        self._idle.clear()
                        self._puller.start(self, self._pulled)
                    await self._idle.wait()
            finally:
                self._demand = 0
            if not self._taken and self._error is not None:
                self._fail()
            return [self._taken.popleft() for _ in range(min(n, len(self._taken)))]

    async def _pull(self) -> None:
        """Take as many items as are asked for."""
        while len(self._taken) < self._demand:
            try:
                self._taken.append(await anext(self._stream))
            except StopAsyncIteration:
                self._ended = True
                return

    def _pulled(self, _: None, error: BaseException | None) -> None:
        self._error = error
        self._idle.set()

    def _fail(self) -> None:
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # it leads to this frame, which must not lead back

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await self.aclose()
        if kind is None:  # whoever took fewer than asked for to be the last hears of the failure here
            self._fail()

    async def aclose(self) -> None:
        """Close the stream: once this returns, nothing runs any more, and whoever asks gets nothing. May be called again."""
        self._ended = True
        self._taken.clear()
        self._idle.set()
        self._puller.stop()
        try:
            await self._puller.stopped()
        finally:
            await self._stream.aclose()


async def hand_over(stream: Items[T], receiver: Sender[T] | Queue[T]) -> int:
    """Give all items to ``receiver`` and close the stream; how many it took. See ``Stream.into``."""
    put, send = getattr(receiver, "put", None), getattr(receiver, "send", None)
    if inspect.iscoroutinefunction(put):
        count, wanted = await deliver(stream, put)
        if wanted:
            with suppress(*gone()):
                await put(None)
        return count
    if send is None or not hasattr(receiver, "aclose"):
        raise TypeError(
            f"a stream goes into a queue whose 'put' is awaited, or to what has 'send' and 'aclose', not into {receiver!r:.100}"
        )
    async with aclosing(cast("Sender[T]", receiver)):
        count, _ = await deliver(stream, send)
        return count


async def deliver(stream: Items[T], send: Callable[[T], Awaitable[object]]) -> tuple[int, bool]:
    """Await ``send`` for every item and close the stream; how many were taken, and whether more would have been."""
    count = 0
    async with aclosing(stream):
        async for item in stream:
            try:
                await send(item)
            except gone():
                return count, False
            del item
            count += 1
    return count, True


def gone() -> tuple[type[Exception], ...]:
    """The errors which say that nobody receives any more. Those of anyio can only be met where it has been imported."""
    anyio, shut_down = sys.modules.get("anyio"), getattr(asyncio, "QueueShutDown", None)
    errors = () if anyio is None else (anyio.BrokenResourceError, anyio.ClosedResourceError)
    return errors if shut_down is None else (*errors, shut_down)
