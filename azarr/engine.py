"""The engine: what the arrays of one application share, which is limits, the executor of their codecs, and telemetry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, cast

from azarr.admission import Admission
from azarr.codecs.pipeline import CodecPipeline
from azarr.deferred import DeferredModule
from azarr.executors import CodecExecutor, Mailbox, ThreadExecutor, call
from azarr.process_executor import executor_of
from azarr.result_memory import ResultMemory
from azarr.stores.base import ReadableStore
from azarr.telemetry import Telemetry
from azarr.types import Limits

if TYPE_CHECKING:
    from azarr import chunk_cache
    from azarr.stores import observed
else:  # what engines without a cache do without, and those to whom nobody listens
    chunk_cache = DeferredModule("azarr.chunk_cache")
    observed = DeferredModule("azarr.stores.observed")

LOOP_NBYTES = 16 * 2**10
"""Up to here, decoding a chunk takes the event loop less time than giving that to a worker does."""

WAITERS = 2
"""Threads that wait for a disk beside the workers: one hides four fifths of what two do, four no more than two."""

TURN = 16
"""Pieces of work on the loop itself, each of some ten microseconds, in one turn of it; each task may do one more, and then has to wait."""

T = TypeVar("T")
StoreT = TypeVar("StoreT", bound=ReadableStore)


class Engine:
    """Limits and codec executor for any number of arrays, on any number of event loops; use it with ``async with``, or ``aclose`` it.

    Args:
        concurrency: Requests in flight at once to stores that are awaited, chunks in flight at once in a stream, and single chunks read at
            once from other stores: more than that (and than 8 MiB) wait, without memory for their result.
            32 keeps an object store with 30 ms latency busy; stores need not take more from one client.
        memory: Bytes of decoded chunks that one operation holds at most besides its result, if that is at least one chunk; 256 MiB.
        workers: Threads or processes that decode and encode; the processors this process may use, at most 32.
        executor: Where codecs work. ``"threads"``, the default, except for chunks so small that the loop is quicker; ``"processes"``, one
            beside each thread, for codecs that hold the interpreter lock and for loops that must not wait for it; ``"auto"``, processes
            for such codecs only; ``"inline"``, on the loop, for tests; or a ``CodecExecutor``. It is closed with the engine.
        limits: What is refused as too large to be honest.
        telemetry: Where the engine tells what it does; one of its own by default.
        cache: Decoded chunks that reads and streams look for before they ask a store; none by default.

    """

    def __init__(
        self,
        *,
        concurrency: int = 32,
        memory: int = 256 * 2**20,
        workers: int | None = None,
        executor: CodecExecutor | Literal["threads", "processes", "auto", "inline"] | None = None,
        limits: Limits | None = None,
        telemetry: Telemetry | None = None,
        cache: chunk_cache.ChunkCache | None = None,
    ) -> None:
        if concurrency < 1 or memory < 1:
            raise ValueError(f"concurrency and memory must be at least 1, not {concurrency} and {memory}")
        self.concurrency = concurrency
        self.memory = memory
        self.limits = limits or Limits()
        self.telemetry = telemetry if telemetry is not None else Telemetry()
        self.cache = cache
        self.executor: CodecExecutor = executor_of(executor, workers)
        self.waiters = ThreadExecutor(WAITERS)
        """Where jobs wait, rather than work, so that the workers of the executor need not: for a disk to have what was written."""
        self._usual_executor = executor in (None, "threads")
        self.place: Callable[[CodecPipeline], CodecPipeline] | None = getattr(self.executor, "pipeline", None)
        """Makes pipelines work where the executor has them work; ``None`` where that is in the workers."""
        self.closed = False
        """Whether it has been closed: nothing can be read or written with it any more."""
        self.results = ResultMemory()
        self._by_loop: dict[asyncio.AbstractEventLoop, OnLoop] = {}

    def __repr__(self) -> str:
        return f"<Engine concurrency={self.concurrency} memory={self.memory} workers={self.executor.workers}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the executor: its workers end once they have finished what they were given."""
        self.close_workers()
        self._by_loop.clear()

    def close_workers(self) -> None:
        """The part of closing that also works where the loop is gone."""
        self.closed = True
        self.executor.close()
        self.waiters.close()
        self.results.clear()

    def mailbox(self) -> Mailbox:
        """Where the executor's outcomes for the running loop arrive."""
        return self._on_loop().mailbox

    def requests(self) -> asyncio.Semaphore:
        """The running loop's share of requests to stores; hold one for the time of one request and for nothing else."""
        return self._on_loop().requests

    def _on_loop(self) -> OnLoop:
        loop = asyncio.get_running_loop()
        mine = self._by_loop.get(loop)
        if mine is None:
            forget_closed(self._by_loop)
            mine = self._by_loop[loop] = OnLoop(loop, self.executor, self.concurrency)
        return mine

    def on_loop(self, pipeline: CodecPipeline, nbytes: int) -> bool:
        """Whether the loop has decoded ``nbytes`` sooner than it has told a worker.

        Codecs that hold the interpreter lock and elements of any length are for workers, as is everything where the user has chosen another
        executor.
        """
        small = nbytes <= LOOP_NBYTES and self._usual_executor
        return small and pipeline.releases_gil and not pipeline.spec.variable and not self.closed

    def call(self, function: Callable[..., T], *args: Any) -> Coroutine[Any, Any, T]:
        """Have the executor run ``function(*args)``, whose result is to be awaited."""
        return call(self.executor, self.mailbox(), function, *args)

    def call_in_turn(self, nbytes: int, function: Callable[..., T], *args: Any) -> Coroutine[Any, Any, T]:
        """As ``call``, when few enough are under way of such jobs, which take ``nbytes`` of memory for what they do."""
        return self._on_loop().admission.call(nbytes, function, *args)

    async def give_way(self) -> None:
        """Count a small piece of work on the loop itself; if there have been many in this turn of the loop, wait for the next."""
        mine = self._on_loop()
        if not mine.pieces:
            mine.loop.call_soon(mine.begin_turn)
        mine.pieces += 1
        if mine.pieces >= TURN:
            await asyncio.sleep(0)

    def observed(self, store: StoreT, path: str) -> StoreT:
        """``store``; where somebody listens, one that tells the requests that are made of it for the node at ``path``."""
        return cast("StoreT", observed.observed(store, self.telemetry, path)) if self.telemetry.active else store

    def window(self, chunk_nbytes: int, concurrency: int | None = None, memory: int | None = None) -> int:
        """How many chunks of ``chunk_nbytes`` may be in flight at once; at least one."""
        most = (self.memory if memory is None else memory) // max(1, chunk_nbytes)
        return max(1, min(self.concurrency if concurrency is None else concurrency, most))


class OnLoop:
    """What an engine has on one event loop. ``pieces`` are those of work that have been done on the loop itself in this turn of it."""

    __slots__ = ("admission", "loop", "mailbox", "pieces", "requests")

    def __init__(self, loop: asyncio.AbstractEventLoop, executor: CodecExecutor, concurrency: int) -> None:
        self.loop, self.mailbox, self.requests = loop, Mailbox(loop), asyncio.Semaphore(concurrency)
        self.admission = Admission(executor, loop, concurrency)
        self.pieces = 0

    def begin_turn(self) -> None:
        """A turn of the loop begins."""
        self.pieces = 0


def forget_closed(by_loop: dict[asyncio.AbstractEventLoop, Any]) -> list[Any]:
    """Take out, and answer, what belongs to loops that have been closed."""
    forgotten = [by_loop.pop(loop, None) for loop in list(by_loop) if loop.is_closed()]
    return [each for each in forgotten if each is not None]  # another thread may have been faster


_default_engines: dict[asyncio.AbstractEventLoop, tuple[Engine, AsyncGenerator[None, None]]] = {}


def default_engine() -> Engine:
    """The engine of the running loop, for those who pass none; it is closed when the loop shuts down."""
    loop = asyncio.get_running_loop()
    found = _default_engines.get(loop)
    if found is not None:
        return found[0]
    for engine, _ in forget_closed(_default_engines):  # loops that were closed without being shut down
        engine.close_workers()
    engine = Engine()
    # Loops close the asynchronous generators that were begun on them; one that is suspended there closes the engine.
    lifetime = close_with_loop(loop, engine)
    try:
        lifetime.asend(None).send(None)
    except StopIteration:
        _default_engines[loop] = engine, lifetime
    return engine


async def close_with_loop(loop: asyncio.AbstractEventLoop, engine: Engine) -> AsyncGenerator[None, None]:
    """Sleep until the loop shuts down, then close its engine."""
    try:
        yield
    finally:
        _default_engines.pop(loop, None)
        await engine.aclose()
