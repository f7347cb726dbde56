"""For code without an event loop, such as scripts, threads and synchronous endpoints: a loop in a thread, for as long as a ``with``.

::

    with azarr.blocking.LoopThread() as loop:
        array = loop.run(azarr.open_array("climate.zarr"))
        for chunk in loop.iterate(array.stream_chunks, ordered=False):
            ...

A way from one thread to the other and back takes about as long as decoding a chunk of 64 KiB. Chunks therefore cross in batches, as many
as are there without waiting.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import CancelledError
from contextlib import suppress
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Never, ParamSpec, Self, TypeAlias, TypeVar

from azarr.errors import StreamError

__all__ = ["BlockingIterator", "LoopThread"]

P = ParamSpec("P")
T = TypeVar("T")

BATCH_LENGTH, BATCH_NBYTES = 256, 2**20
"""A batch is full with so many items or bytes. It is alive beside what a stream's own ``memory`` bounds."""

Reply: TypeAlias = list[T] | BaseException | None
"""A batch, its last item first; at the end the error that ended it all, or ``None``."""


class LoopThread:
    """An event loop in a thread of its own, for callers who have none: ``with LoopThread() as loop: loop.run(open_array(...))``.

    Any number of threads may use it at once. Within a running loop it refuses to serve, as that loop would stand still. Leaving the
    ``with`` cancels what is under way, closes what belongs to the loop, its default engine for one, and ends the thread.
    """

    def __init__(self) -> None:
        self._door: Door | None = None

    def __enter__(self) -> Self:
        if self._door is not None:
            raise RuntimeError("a LoopThread serves for one 'with'; make another one")
        self._door = Door()
        return self

    def __exit__(self, *_: object) -> None:
        self._entered().close()

    def run(self, awaitable: Awaitable[T]) -> T:
        """What ``awaitable`` answers, or the error that it raises. An interrupt meanwhile cancels it, and waits for its end."""
        replies: SimpleQueue[Reply[T]] = SimpleQueue()
        try:
            refuse_within_a_loop()
            errand = Errand(self._entered(), partial(answer, awaitable, replies), replies)
            return batch_of(errand.reply(errand.start))[0]
        finally:
            if inspect.iscoroutine(awaitable) and inspect.getcoroutinestate(awaitable) == inspect.CORO_CREATED:
                awaitable.close()  # it will not be awaited, about which Python would complain

    def iterate(self, function: Callable[P, AsyncIterable[T]], /, *args: P.args, **kwargs: P.kwargs) -> BlockingIterator[T]:
        """The items of ``function(*args, **kwargs)``, such as ``array.stream_chunks``, which is called when the first is asked for."""
        return BlockingIterator(self._entered(), partial(function, *args, **kwargs))

    def _entered(self) -> Door:
        if self._door is None:
            raise RuntimeError("a LoopThread is used within 'with LoopThread() as loop:'")
        return self._door


class BlockingIterator(Iterator[T]):
    """Items of an asynchronous iterator, for a plain ``for``; threads may share it, and each item then goes to one of them.

    Items are taken as they are asked for, a batch at a time, of at most 1 MiB if that is at least one item. ``close``, or leaving a
    ``with``, closes the asynchronous iterator and waits for that; one that is dropped is closed as soon as it is garbage. An error or an
    interrupt ends it for good, so that half of the items are never taken for all.
    """

    def __init__(self, door: Door, function: Callable[[], AsyncIterable[T]]) -> None:
        self._door = door
        self._pump = Pump(function)
        self._errand = Errand(door, self._pump.run, self._pump.replies)
        self._batch: list[T] = []
        self._mutex = threading.Lock()
        self._begun = self._closed = self._broken = False

    def __next__(self) -> T:
        with self._mutex:
            if self._closed:
                self._refuse()
            if not self._batch:
                refuse_within_a_loop()
                self._fill()
            return self._batch.pop()

    def _fill(self) -> None:
        try:
            request = self._pump.ask if self._begun else self._errand.start
            self._begun = True
            self._batch = batch_of(self._errand.reply(request))
        except StopIteration:
            self._closed = True
            raise
        except BaseException as error:
            if self._closed and isinstance(error, CancelledError):  # by another thread, which closed this
                raise StopIteration from None
            self._closed = self._broken = True
            raise

    def _refuse(self) -> Never:
        if self._broken:
            raise StreamError("an error or an interrupt ended this iteration before its last item; begin another one")
        raise StopIteration

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the asynchronous iterator, and wait until it is closed. May be called again, and by any thread."""
        self._closed = True
        if self._begun:
            self._errand.cancel()

    def __del__(self) -> None:
        if getattr(self, "_begun", False) and not self._closed:
            self._errand.drop()


class Pump(Generic[T]):
    """Takes items from an asynchronous iterator as they are asked for; to be used on the loop, but for ``replies``."""

    def __init__(self, function: Callable[[], AsyncIterable[T]]) -> None:
        self.replies: SimpleQueue[Reply[T]] = SimpleQueue()
        self._function = function
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._batch: list[T] = []
        self._nbytes = 0

    async def run(self) -> None:
        """Take all items, batch after batch, and close the iterator."""
        loop, items = asyncio.get_running_loop(), aiter(self._function())
        try:
            async for item in items:
                if not self._batch:
                    loop.call_soon(self._flush)  # as soon as this has to wait for an item
                self._batch.append(item)
                self._nbytes += nbytes_of(item)
                del item
                if self._full():
                    self._flush()
                await self._wanted.wait()
        finally:
            if (aclose := getattr(items, "aclose", None)) is not None:
                await aclose()

    def ask(self) -> None:
        """Have another batch put into ``replies``."""
        if self._full():  # with what came after the last batch had been handed over
            self._hand_over()
            return
        self._wanted.set()
        if self._batch:
            asyncio.get_running_loop().call_soon(self._flush)

    def _full(self) -> bool:
        return len(self._batch) >= BATCH_LENGTH or self._nbytes >= BATCH_NBYTES

    def _flush(self) -> None:
        if self._batch and self._wanted.is_set():
            self._wanted.clear()
            self._hand_over()

    def _hand_over(self) -> None:
        batch, self._batch, self._nbytes = self._batch, [], 0
        batch.reverse()
        self.replies.put(batch)


def nbytes_of(item: object) -> int:
    """The bytes of an array, or of the data of a chunk or slice."""
    nbytes = getattr(item, "nbytes", None) or getattr(getattr(item, "data", None), "nbytes", 0)
    return nbytes if isinstance(nbytes, int) else 0


class Errand(Generic[T]):
    """A coroutine that the loop runs for a thread. What comes of it arrives in ``replies``: batches, and in the end how it ended."""

    def __init__(self, door: Door, function: Callable[[], Coroutine[Any, Any, None]], replies: SimpleQueue[Reply[T]]) -> None:
        self._door, self._function, self._replies = door, function, replies
        self._task: asyncio.Task[BaseException | None] | None = None
        self._ended = threading.Event()

    def reply(self, request: Callable[[], object]) -> Reply[T]:
        """Have ``request`` called on the loop, and wait for what comes next; an interrupt meanwhile cancels it all."""
        try:
            self._door.submit(request)
            return self._replies.get()
        except BaseException:
            self.cancel()
            raise

    def start(self) -> None:
        """The first request."""
        if self._ended.is_set():
            self._replies.put(asyncio.CancelledError())
            return
        self._task = asyncio.get_running_loop().create_task(error_of(self._function))
        self._task.add_done_callback(self._end)

    def cancel(self) -> None:
        """Cancel it and, except within a loop, wait for its end."""
        if within_a_loop():
            self.drop()
            return
        try:
            self._door.submit(self._cancel)
        except RuntimeError:
            self._door.close()  # cancels it as well
        else:
            self._ended.wait()

    def drop(self) -> None:
        """Cancel it without waiting: also for finalizers, which may run in any thread, and in the middle of anything."""
        self._door.tell(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            self._ended.set()  # or never began

    def _end(self, task: asyncio.Task[BaseException | None]) -> None:
        self._task = None
        self._replies.put(asyncio.CancelledError() if task.cancelled() else task.result())
        self._ended.set()


class Door:
    """The way to an event loop that runs in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._left = self._loop.create_future()
        self._closed = False
        self._mutex = threading.Lock()
        # A daemon, as a loop that is never left must not keep the interpreter from ending.
        self._thread = threading.Thread(target=live, args=(self._loop, self._left), name="azarr-loop", daemon=True)
        self._thread.start()

    def submit(self, function: Callable[[], object]) -> None:
        """Have ``function`` called on the loop."""
        with self._mutex:  # what came after the words that end the loop would never run
            if self._closed:
                raise RuntimeError("this LoopThread has been left")
            self._loop.call_soon_threadsafe(function)

    def tell(self, function: Callable[[], object]) -> None:
        """As ``submit``, without a lock and in vain where the loop has been left: for finalizers."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(function)

    def close(self) -> None:
        """Cancel all tasks of the loop, close it, and wait for its thread."""
        with self._mutex:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._left.set_result, None)
        self._thread.join()


def live(loop: asyncio.AbstractEventLoop, left: asyncio.Future[None]) -> None:
    """What the thread of a loop does all its life."""

    async def until_left() -> None:
        await left

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(until_left())


def within_a_loop() -> bool:
    """Whether an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def refuse_within_a_loop() -> None:
    """Raise ``RuntimeError`` where this thread has a running event loop."""
    if within_a_loop():
        raise RuntimeError("this would block the running event loop; use 'await' there, or 'await asyncio.to_thread(...)' around this")


async def answer(awaitable: Awaitable[T], replies: SimpleQueue[Reply[T]]) -> None:
    """Put what ``awaitable`` answers into ``replies``, as a batch of one."""
    replies.put([await awaitable])


async def error_of(function: Callable[[], Coroutine[Any, Any, None]]) -> BaseException | None:
    """The error that a coroutine ends with; raised here, one like ``SystemExit`` would end the loop as well."""
    try:
        await function()
    except BaseException as error:  # noqa: BLE001 - handed to the thread that waits
        return error
    return None


def batch_of(reply: Reply[T]) -> list[T]:
    """The batch that has come, or the error, or ``StopIteration`` at the end."""
    try:
        if isinstance(reply, list):
            return reply
        if reply is None:
            raise StopIteration
        if isinstance(reply, asyncio.CancelledError):
            raise CancelledError("this was cancelled, as is everything under way when a LoopThread is left") from reply
        raise reply
    finally:
        del reply  # an error leads to this frame, which must not lead back
