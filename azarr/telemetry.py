"""Telemetry: what an engine does, told to whoever subscribes, in the thread where it happens.

An event has a name, ``subject.phase``, measurements (``seconds``, ``nbytes``, counts) and fields that say what it was about:

=================  =====================  ========================================================================================
subject            event                  what it is about
=================  =====================  ========================================================================================
``read``           ``ReadEvent``          one ``await view.read()``
``write``          ``WriteEvent``         one ``await view.write(...)``, or ``write_stream``
``stream``         ``StreamEvent``        a stream, from the first chunk that is asked for to its end
``chunk.read``     ``ChunkReadEvent``     a chunk, from being asked for to lying decoded where it belongs
``chunk.write``    ``ChunkWriteEvent``    what is stored under one key (a chunk, or a shard), the reading of what is kept included
``codec``          ``CodecEvent``         a run of the codec pipeline
``store.request``  ``StoreRequestEvent``  a call of a store
``store.retry``    ``RetryEvent``         a request that failed and is made again
``cache``          ``CacheEvent``         a chunk that a cache was asked for, or let go
=================  =====================  ========================================================================================

The phases are ``start`` and then either ``stop`` or ``exception``, unless the event says otherwise; the three have the same ``span``
number. A cancelled piece of work ends with ``exception``.

An operation (a read, a write, a stream) looks for listeners when it begins: who subscribes later hears of the next one.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar, Concatenate, Literal, NamedTuple, ParamSpec, Protocol, Self, TypeAlias, cast

from azarr.types import ByteRange, Coords, Suffix

__all__ = [
    "CacheEvent",
    "ChunkReadEvent",
    "ChunkWriteEvent",
    "CodecEvent",
    "Event",
    "ReadEvent",
    "RetryEvent",
    "StoreRequestEvent",
    "StreamEvent",
    "Subscription",
    "Telemetry",
    "WriteEvent",
]

Phase: TypeAlias = Literal["start", "stop", "exception", "chunk", "hit", "miss", "evict"]

CANCELLED = "asyncio.exceptions.CancelledError"

log = logging.getLogger("azarr")


@dataclass(frozen=True, slots=True)
class Event:
    """What all events have.

    ``phase`` is the last part of the name. ``span`` is the same number in the start of a piece of work and in its end, and no other's.
    ``seconds`` is the time since the start, 0 in the start itself. ``path`` is that of the array or group, ``None`` where there is none or
    it is not known; ``store`` the type of the store. ``error`` is the type of the error in an ``exception``, by its full name: never its
    message, which may have secrets, nor the error itself, which would keep what was being worked on.
    """

    subject: ClassVar[str] = ""
    """The name without the phase."""
    phases: ClassVar[tuple[Phase, ...]] = ("start", "stop", "exception")

    phase: Phase
    span: int
    _: KW_ONLY
    seconds: float = 0.0
    path: str | None = None
    store: str = ""
    error: str | None = None

    @property
    def name(self) -> str:
        """``subject.phase``, such as ``chunk.read.stop``."""
        return f"{self.subject}.{self.phase}"

    @property
    def cancelled(self) -> bool:
        """Whether this is the end of something that was cancelled, rather than failed."""
        return self.error == CANCELLED


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadEvent(Event):
    """A selection is read into one array, of ``nbytes`` decoded bytes."""

    subject: ClassVar[str] = "read"
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteEvent(Event):
    """A selection is written, of ``nbytes`` decoded bytes."""

    subject: ClassVar[str] = "write"
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent(Event):
    """A stream begins, hands out a chunk (``stream.chunk``), ends, or fails.

    So far it has handed out ``chunks`` chunks with ``nbytes`` bytes of data. ``in_flight`` chunks are being fetched or decoded,
    ``buffered_nbytes`` bytes of decoded ones wait for being handed out; both are 0 at the end. ``coords`` is the chunk that is handed out.
    A stream that is closed early stops; it is no exception.
    """

    subject: ClassVar[str] = "stream"
    phases: ClassVar[tuple[Phase, ...]] = ("start", "chunk", "stop", "exception")
    chunks: int = 0
    nbytes: int = 0
    in_flight: int = 0
    buffered_nbytes: int = 0
    coords: Coords | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReadEvent(Event):
    """A chunk, of ``nbytes`` bytes when decoded, is fetched, decoded and put where it belongs.

    Chunks that are fetched together share the time that they take equally. ``coords`` is the place in the chunk grid.
    """

    subject: ClassVar[str] = "chunk.read"
    coords: Coords
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWriteEvent(Event):
    """A chunk, or a shard with its chunks, of ``nbytes`` bytes when decoded, is encoded and stored; what is there is read first if need be.

    ``coords`` is the place in the grid of chunks, or of shards.
    """

    subject: ClassVar[str] = "chunk.write"
    coords: Coords
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecEvent(Event):
    """``chunks`` chunks are decoded or encoded, as ``operation`` says; decoded they have ``nbytes`` bytes, encoded ``encoded_nbytes``."""

    subject: ClassVar[str] = "codec"
    operation: Literal["decode", "encode"]
    chunks: int = 1
    nbytes: int = 0
    encoded_nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequestEvent(Event):
    """The store does ``operation``, by the name of the method (``get``, ``set``, ``erase``, ``list_dir``, …), on ``key``, or on a prefix.

    ``byte_range`` is the part of the value that is asked for, ``None`` for all of it. ``nbytes`` bytes have been received or sent;
    ``missing`` says that there was nothing at the key.
    """

    subject: ClassVar[str] = "store.request"
    operation: str
    key: str
    byte_range: ByteRange | Suffix | None = None
    nbytes: int = 0
    missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryEvent(Event):
    """A request is made again (``start``), with success in the end (``stop``), or without (``exception``).

    ``operation`` and ``key`` are those of the request. There is a start for every attempt after the first: ``attempt`` is its number,
    from 2 on, ``delay`` the seconds until it is made, and ``error`` what the one before failed with. In the end, ``attempt`` is the
    number of the last one.
    """

    subject: ClassVar[str] = "store.retry"
    operation: str
    key: str
    attempt: int
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEvent(Event):
    """The chunk at ``coords``, ``nbytes`` bytes, was in the cache (``hit``), was not (``miss``), or had to make room (``evict``)."""

    subject: ClassVar[str] = "cache"
    phases: ClassVar[tuple[Phase, ...]] = ("hit", "miss", "evict")
    coords: Coords
    nbytes: int = 0


KINDS: tuple[type[Event], ...] = (
    ReadEvent,
    WriteEvent,
    StreamEvent,
    ChunkReadEvent,
    ChunkWriteEvent,
    CodecEvent,
    StoreRequestEvent,
    RetryEvent,
    CacheEvent,
)
NAMES = frozenset(f"{kind.subject}.{phase}" for kind in KINDS for phase in kind.phases)

Handler: TypeAlias = Callable[[Any], object]
"""Called with every event. Any thread may call it, several at once, and a read waits for it: it must be quick and thread-safe."""

P = ParamSpec("P")


class Subscription:
    """A handler and the events it hears of; ``close`` it, or leave it by ``with``, to hear no more."""

    __slots__ = ("_prefixes", "_telemetry", "handler")

    def __init__(self, telemetry: Telemetry, handler: Handler, prefixes: tuple[str, ...]) -> None:
        self._telemetry, self._prefixes = telemetry, prefixes
        self.handler = handler

    def hears(self, name: str) -> bool:
        """Whether the handler wants the event ``name``, or some event of the subject ``name``."""
        dotted = f"{name}."
        return not self._prefixes or any(dotted.startswith(f"{each}.") or each.startswith(dotted) for each in self._prefixes)

    def close(self) -> None:
        """Unsubscribe; fine where that has been done."""
        self._telemetry.unsubscribe(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Routes(dict[str, tuple[Subscription, ...]]):
    """Who hears of what, for one set of subscriptions; found out when it is first asked for."""

    def __init__(self, subscriptions: tuple[Subscription, ...]) -> None:
        super().__init__()
        self.subscriptions = subscriptions

    def __missing__(self, name: str) -> tuple[Subscription, ...]:
        found = self[name] = tuple(each for each in self.subscriptions if each.hears(name))
        return found


class Telemetry:
    """Where an engine tells what it does. Every engine has one: ``Engine(telemetry=...)`` shares one between engines.

    For any number of threads. As long as nobody subscribes, nothing is measured and no event is made.
    """

    __slots__ = ("_mutex", "_numbers", "_routes", "active")

    def __init__(self) -> None:
        self.active = False
        """Whether anybody listens."""
        self._routes = Routes(())
        self._mutex = threading.Lock()
        self._numbers = itertools.count(1)

    def __repr__(self) -> str:
        count = len(self._routes.subscriptions)
        return f"<Telemetry {count} {'subscription' if count == 1 else 'subscriptions'}>"

    def subscribe(self, handler: Handler, *, events: str | Iterable[str] = ()) -> Subscription:
        """Have ``handler`` called with every event whose name begins with one of ``events``; with all events if there are none.

        Names are compared part by part: ``"chunk"`` stands for ``chunk.read.start``, ``chunk.write.stop``, …. ``ValueError`` where no
        event is called so.

        The handler is called in the thread where the event happens, on the loop or in a worker, before the work goes on: it must be quick
        and thread-safe, and it cannot await. A handler that raises is dropped, with one line in the log ``azarr``; the work goes on.
        """
        prefixes = (events,) if isinstance(events, str) else tuple(events)
        for prefix in prefixes:
            if not any(f"{name}.".startswith(f"{prefix}.") for name in NAMES):
                raise ValueError(f"there are no events {prefix!r}; there are {', '.join(sorted(NAMES))}")
        subscription = Subscription(self, handler, prefixes)
        with self._mutex:
            self._listen((*self._routes.subscriptions, subscription))
        return subscription

    def unsubscribe(self, subscription: Subscription) -> bool:
        """Take ``subscription`` out, and whether it was there. A call that another thread has begun still comes to its end."""
        with self._mutex:
            rest = tuple(each for each in self._routes.subscriptions if each is not subscription)
            found = len(rest) < len(self._routes.subscriptions)
            self._listen(rest)
        return found

    def _listen(self, subscriptions: tuple[Subscription, ...]) -> None:
        self._routes = Routes(subscriptions)
        self.active = bool(subscriptions)

    def wants(self, name: str) -> bool:
        """Whether anybody listens to the event ``name``, or to any of the subject ``name``."""
        return bool(self._routes[name])

    def number(self) -> int:
        """A new number for a span."""
        return next(self._numbers)

    def emit(self, event: Event) -> None:
        """Tell ``event`` to whoever listens to it."""
        for subscription in self._routes[event.name]:
            try:
                subscription.handler(event)
            except (KeyboardInterrupt, SystemExit):
                raise
            # Nobody can cancel what does not await: a cancellation from here must not pass for one of the task that reads.
            except BaseException as error:  # noqa: BLE001 - a handler never breaks the work
                if self.unsubscribe(subscription):
                    # as text: the record may live long, and the error leads to what is being worked on
                    reason = " ".join("".join(traceback.format_exception_only(error)).split())
                    log.error("a telemetry handler failed at %s and is dropped: %s", event.name, reason)  # noqa: TRY400 - one line

    def begin(self, kind: Callable[Concatenate[Phase, int, P], Event], /, *_: P.args, **fields: P.kwargs) -> Span:
        """Tell the start of a piece of work, by a ``kind`` of event with these ``fields``; end the span that is answered."""
        return Span(self, cast("type[Event]", kind), fields)


class Span:
    """A piece of work whose start has been told, and whose end is told by ``stop`` or ``fail``; only the first of them counts."""

    __slots__ = ("_begun", "_ended", "_fields", "_kind", "_telemetry", "number")

    def __init__(self, telemetry: Telemetry, kind: type[Event], fields: dict[str, Any]) -> None:
        self._telemetry, self._kind, self._fields = telemetry, kind, fields
        self._ended = False
        self.number = telemetry.number()
        self._begun = time.perf_counter()
        self.tell("start")

    def stop(self, **measured: Any) -> None:
        """The work is done; ``measured`` are fields of the event that are known now."""
        self._end("stop", measured)

    def fail(self, error: BaseException, **measured: Any) -> None:
        """The work has failed, or been cancelled."""
        measured["error"] = error_type(error)
        self._end("exception", measured)

    def _end(self, phase: Phase, measured: dict[str, Any]) -> None:
        if not self._ended:
            self._ended = True
            measured.setdefault("seconds", time.perf_counter() - self._begun)
            self.tell(phase, **measured)

    def tell(self, phase: Phase, **measured: Any) -> None:
        """Tell that the work is in ``phase``."""
        if self._telemetry.wants(f"{self._kind.subject}.{phase}"):
            self._telemetry.emit(self._kind(phase, self.number, **self._fields, **measured))


def error_type(error: BaseException) -> str:
    """The full name of the type of ``error``."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


class Listener(NamedTuple):
    """Who hears of what happens below a request to a store: for which node it is, and to what kind of store."""

    telemetry: Telemetry
    path: str | None
    store: str


class RetryCount(Protocol):
    """What counts attempts after the first."""

    retries: int


listener: ContextVar[Listener | None] = ContextVar("listener", default=None)
"""Whom stores tell of the attempts that a request takes, in the task that makes it; ``None`` where nobody listens."""

counts: ContextVar[RetryCount | None] = ContextVar("counts", default=None)
"""Where stores count the attempts after the first, in the task that makes the request."""
