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
from typing import TYPE_CHECKING, Any, Concatenate, NamedTuple, ParamSpec, Protocol, Self, TypeAlias, cast

from azarr.deferred import DeferredModule, deferred_names

if TYPE_CHECKING:
    from azarr import events as kinds
    from azarr.events import (
        CacheEvent,
        ChunkReadEvent,
        ChunkWriteEvent,
        CodecEvent,
        Event,
        ReadEvent,
        RetryEvent,
        StoreRequestEvent,
        StreamEvent,
        WriteEvent,
    )

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

if not TYPE_CHECKING:
    kinds = DeferredModule("azarr.events")
    own = ("Subscription", "Telemetry")
    __getattr__, __dir__ = deferred_names(__name__, __all__, {"azarr.events": tuple(name for name in __all__ if name not in own)})

log = logging.getLogger("azarr")


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
            if not any(f"{name}.".startswith(f"{prefix}.") for name in kinds.NAMES):
                raise ValueError(f"there are no events {prefix!r}; there are {', '.join(sorted(kinds.NAMES))}")
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

    def emit(self, event: kinds.Event) -> None:
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

    def begin(self, kind: Callable[Concatenate[kinds.Phase, int, P], kinds.Event], /, *_: P.args, **fields: P.kwargs) -> Span:
        """Tell the start of a piece of work, by a ``kind`` of event with these ``fields``; end the span that is answered."""
        return Span(self, cast("type[kinds.Event]", kind), fields)


class Span:
    """A piece of work whose start has been told, and whose end is told by ``stop`` or ``fail``; only the first of them counts."""

    __slots__ = ("_begun", "_ended", "_fields", "_kind", "_telemetry", "number")

    def __init__(self, telemetry: Telemetry, kind: type[kinds.Event], fields: dict[str, Any]) -> None:
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

    def _end(self, phase: kinds.Phase, measured: dict[str, Any]) -> None:
        if not self._ended:
            self._ended = True
            measured.setdefault("seconds", time.perf_counter() - self._begun)
            self.tell(phase, **measured)

    def tell(self, phase: kinds.Phase, **measured: Any) -> None:
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
