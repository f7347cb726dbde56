"""Streams: decoded chunks one after the other, at bounded concurrency and memory."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeAlias, TypeVar

from azarr import telemetry
from azarr.chunk_reader import Chunk, Failure, Outcome
from azarr.chunk_sources import Batch
from azarr.deferred import Deferred, DeferredModule
from azarr.errors import StreamError
from azarr.observing import Observer, StreamSpan
from azarr.runners import LOOP_SHARE
from azarr.types import Coords
from azarr.window import Window

if TYPE_CHECKING:
    from azarr import handover
    from azarr.progress import Progress
    from azarr.stream_info import StreamStats
else:  # what streams do without that are only iterated over
    handover = DeferredModule("azarr.handover")
    StreamStats = Deferred("azarr.stream_info", "StreamStats")

OnError: TypeAlias = Literal["raise", "skip"] | Callable[[Coords, Exception], object]
"""What becomes of a chunk that fails: the stream fails, it goes on without it, or a function, which may be ``async``, is told."""


class Item(Protocol):
    """What a stream hands out."""

    @property
    def coords(self) -> Coords:
        """Its place."""

    @property
    def data(self) -> Any:
        """Its data."""


ItemT = TypeVar("ItemT", bound=Item)
WindowT = TypeVar("WindowT", bound=Window[Any, Any])
WorkT = TypeVar("WorkT")
OutcomeT = TypeVar("OutcomeT")


class Stream(AsyncIterator[ItemT], Generic[ItemT, WindowT]):
    """What all streams have in common: they are asked for one item after the other, by one task at a time, and own what they start.

    Nothing is fetched before the first item is asked for. When the stream is closed, or left by ``break``, an error or a
    cancellation inside ``async with``, everything that it started has come to its end. Without ``async with``, a stream that is
    dropped halfway gives up its work as soon as it is garbage; ``aclose`` does so at once.

    An error, or the cancellation of whoever waits for an item, ends the stream; asking it for more raises ``StreamError``, so that
    half a stream is never taken for a whole one.
    """

    def __init__(
        self,
        window: WindowT,
        total: int,
        *,
        counts: Counts,
        fingerprint: Callable[[], str],
        ordered: bool = True,
        on_error: OnError = "raise",
        progress: Progress | None = None,
        prepare: Callable[[], Awaitable[None]] | None = None,
        observer: Observer | None = None,
    ) -> None:
        self._fingerprint = fingerprint
        self._window, self._total, self._counts, self._ordered = window, total, counts, ordered
        self._on_error, self._progress, self._prepare = on_error, progress, prepare
        self._told = None if observer is None else StreamSpan(observer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._last: Coords | None = None
        self._begun = 0.0
        self._waiting = self._closed = self._broken = False

    async def _outcome(self) -> ItemT | Failure | None:
        """The next item, or what became of it; ``StopAsyncIteration`` after the last."""
        raise NotImplementedError

    def _done_with(self) -> None:
        """The item or outcome that came last is not the stream's any more."""

    def _buffer(self) -> tuple[int, int, int]:
        """What is in flight, what is ready, and how many bytes that has."""
        raise NotImplementedError

    def _drop(self) -> None:
        """Let go of what is ready."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ItemT:
        if self._waiting:
            raise StreamError("this stream is already being waited for by another task; give each task a stream of its own")
        if self._broken:
            raise StreamError("an error or a cancellation ended this stream before its last chunk; open another one")
        if self._closed:
            raise StopAsyncIteration
        self._waiting, ended = True, False
        try:
            if self._loop is None:
                await self._begin()
            else:
                self._done_with()
            item = await self._next()
            ended = item is None
            if item is not None:
                if self._progress is not None:
                    await self._report()
                self._last = item.coords
                if self._told is not None:
                    self._told.item(item.coords, self.stats)
            elif not self._closed:
                self._closed = True
                self._tell_end()
                await self._report(last=True)
        except StopAsyncIteration as error:  # of a function of the user's or of the store's; it would pass for the end of the stream
            self._broken = not ended
            self._tell_end(error)
            await self.aclose()
            raise RuntimeError("a function that the stream called raised StopAsyncIteration") from error
        except BaseException as error:
            self._broken = not ended
            self._tell_end(error)
            await self.aclose()
            raise
        finally:
            self._waiting = False
        if item is None:
            raise StopAsyncIteration
        return item

    async def _begin(self) -> None:
        self._loop, self._begun = asyncio.get_running_loop(), time.perf_counter()
        if self._told is not None:
            self._told.begin()
        if self._prepare is not None:
            await self._prepare()

    def _tell_end(self, error: BaseException | None = None) -> None:
        if self._told is not None:
            self._told.end(self._counts.done, self._counts.nbytes, error)

    async def _next(self) -> ItemT | None:
        """The next item; ``None`` after the last."""
        while True:
            try:
                outcome = await self._outcome()
            except StopAsyncIteration:
                return None
            if outcome is not None and not isinstance(outcome, Failure):
                self._counts.done += 1
                self._counts.nbytes += getattr(outcome.data, "nbytes", 0)
                return outcome
            if outcome is None:
                self._counts.missing += 1
            else:
                try:
                    await self._fail(outcome)
                finally:
                    del outcome  # its error leads to this frame, which must not lead back
            self._done_with()

    async def _fail(self, failure: Failure) -> None:
        """What ``on_error`` wants of a chunk that failed."""
        try:
            if self._on_error == "raise":
                raise failure.error
            self._counts.failed += 1
            if callable(self._on_error):
                answer = self._on_error(failure.coords, failure.error)
                if inspect.isawaitable(answer):
                    await answer
        finally:
            del failure  # as above

    async def _report(self, *, last: bool = False) -> None:
        if self._progress is not None:
            answer = self._progress.close(self.stats) if last else self._progress.update(self.stats)
            if inspect.isawaitable(answer):
                await answer

    @property
    def stats(self) -> StreamStats:
        """How far the stream is now."""
        counts = self._counts
        in_flight, buffered, nbytes = (0, 0, 0) if self._closed else self._buffer()
        return StreamStats(
            done=counts.done,
            total=self._total - counts.filtered - counts.missing - counts.failed,
            filtered=counts.filtered,
            missing=counts.missing,
            failed=counts.failed,
            in_flight=in_flight,
            buffered=buffered,
            buffered_nbytes=nbytes,
            nbytes=counts.nbytes,
            seconds=time.perf_counter() - self._begun if self._begun else 0.0,
            retries=counts.retries,
        )

    @cached_property
    def fingerprint(self) -> str:
        """The same for streams of the same items of the same array, whatever the store; in hexadecimal digits."""
        return self._fingerprint()

    @property
    def token(self) -> str:
        """Where to go on: another stream of the same chunks that gets this as ``start_after`` begins behind the chunk handed out last.

        ``StreamError`` where the stream is not ordered, since it then has no such place, or has not handed out anything.
        """
        if not self._ordered or self._last is None:
            raise StreamError("a stream has a token from its first chunk on, and only with ordered=True")
        return f"{self.fingerprint}:{','.join(map(str, self._last))}"

    def producer(self) -> handover.Producer[ItemT]:
        """To take items as they are needed, several at a time or by several tasks: ``async with stream.producer() as producer``."""
        return handover.Producer(self)

    async def into(self, receiver: handover.Sender[ItemT] | handover.Queue[ItemT]) -> int:
        """Hand all items over to ``receiver`` as fast as it takes them, close the stream, and answer how many it took.

        ``receiver`` is an ``asyncio.Queue``, or another whose ``put`` is awaited: after the last item it gets ``None``. Or it is the
        sending side of a memory object stream of anyio, or something else with ``send`` and ``aclose``: it is closed, however this ends.
        What it buffers is its own, beside what the stream holds; a queue without ``maxsize`` takes everything.

        Where nobody receives any more, that ends the stream, and is no error: a queue was shut down, the receiving side was closed. All
        other errors come out here, and a queue then gets no ``None``.
        """
        return await handover.hand_over(self, receiver)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream: once this returns, nothing that it started runs any more. May be called again."""
        self._closed = True
        self._drop()
        self._tell_end()
        try:
            if self._progress is not None:
                self._progress.abandon()
        finally:
            await self._window.aclose()

    def __del__(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None and not self._closed:
            with suppress(RuntimeError):  # the loop is closed, and all that it ran with it
                loop.call_soon_threadsafe(self._window.close)
                if self._told is not None:
                    loop.call_soon_threadsafe(self._told.end, self._counts.done, self._counts.nbytes)
            if self._progress is not None:
                self._progress.abandon()


class ChunkStream(Stream[Chunk, Window[Batch, list[Outcome]]]):
    """The chunks of an array, one by one: ``async with array.stream_chunks() as chunks: async for chunk in chunks: ...``."""

    def __init__(self, window: Window[Batch, list[Outcome]], total: int, **options: Any) -> None:
        super().__init__(window, total, **options)
        self._ready: deque[Outcome] = deque()
        self._rested = 0.0
        self._held = 0

    async def _outcome(self) -> Outcome:
        if (self._ready or self._window.ready) and time.perf_counter() - self._rested > LOOP_SHARE:
            await asyncio.sleep(0)
            self._rested = time.perf_counter()
        while not self._ready:
            waits = not self._window.ready
            self._ready.extend(await self._window.take())
            if waits:
                self._rested = time.perf_counter()
        self._held = 1
        return self._ready.popleft()

    def _done_with(self) -> None:
        if self._held:
            self._held = 0
            self._window.release(1)

    def _buffer(self) -> tuple[int, int, int]:
        ready = [*self._ready, *(outcome for outcomes in self._window.waiting() for outcome in outcomes)]
        nbytes = sum(getattr(outcome.data, "nbytes", 0) for outcome in ready if isinstance(outcome, Chunk))
        return self._window.outstanding - len(ready) - self._held, len(ready), nbytes

    def _drop(self) -> None:
        self._ready.clear()


class Counts:
    """What has become of the chunks of a stream so far."""

    __slots__ = ("done", "failed", "filtered", "missing", "nbytes", "retries")

    def __init__(self) -> None:
        self.done = self.filtered = self.missing = self.failed = self.nbytes = self.retries = 0

    def counting(self, work: Callable[[WorkT], Awaitable[OutcomeT]]) -> Callable[[WorkT], Coroutine[Any, Any, OutcomeT]]:
        """``work``, for tasks of its own; the requests that it makes again are counted here."""

        async def counted(item: WorkT) -> OutcomeT:
            telemetry.counts.set(self)
            return await work(item)

        return counted
