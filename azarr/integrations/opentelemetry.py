"""Events as OpenTelemetry traces and metrics; needs the extra ``otel``.

Metrics, all without coordinates or keys, so that their number stays small:

=================================  ==============  ==========  =======================================================
name                               instrument      unit        attributes
=================================  ==============  ==========  =======================================================
``azarr.chunk.read.duration``      histogram       s           ``azarr.store``, ``error.type``
``azarr.chunk.write.duration``     histogram       s           ``azarr.store``, ``error.type``
``azarr.chunk.size``               histogram       By          ``azarr.operation`` (read, write); decoded size
``azarr.codec.duration``           histogram       s           ``azarr.operation`` (decode, encode), ``error.type``
``azarr.store.request.duration``   histogram       s           ``azarr.store``, ``azarr.operation``, ``error.type``
``azarr.store.request.size``       histogram       By          ``azarr.store``, ``azarr.operation``
``azarr.store.retries``            counter         {retry}     ``azarr.store``, ``azarr.operation``, ``error.type``
``azarr.stream.inflight``          updowncounter   {chunk}     ``azarr.store``
``azarr.stream.buffered``          updowncounter   By          ``azarr.store``
``azarr.cache.hits``               counter         {hit}
``azarr.cache.misses``             counter         {miss}
=================================  ==============  ==========  =======================================================

Spans: ``azarr.read``, ``azarr.write`` and ``azarr.stream``. During a read or a write its span is the current one, so that what the
instrumentation of an HTTP client or an SDK makes lies below it. Spans of single requests are left to those.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Token
from types import ModuleType
from typing import TYPE_CHECKING, Any

from azarr.telemetry import (
    CacheEvent,
    ChunkReadEvent,
    ChunkWriteEvent,
    CodecEvent,
    Event,
    ReadEvent,
    RetryEvent,
    StoreRequestEvent,
    StreamEvent,
    Subscription,
    Telemetry,
    WriteEvent,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter, MeterProvider
    from opentelemetry.trace import Span, Tracer, TracerProvider

SECONDS = (1e-5, 3e-5, 1e-4, 3e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Boundaries of durations, from a small chunk in memory to a large one behind a slow network."""

BYTES = tuple(float(4**power) for power in range(4, 16))
"""Boundaries of sizes, from 256 B to 1 GiB."""

ENDS = ("stop", "exception")
MEASURED = tuple(f"{kind.subject}.{end}" for kind in (ChunkReadEvent, ChunkWriteEvent, CodecEvent, StoreRequestEvent) for end in ENDS)
EVENTS = (*MEASURED, "read", "write", "stream", "store.retry.start", "cache.hit", "cache.miss")


def instrument(
    telemetry: Telemetry, *, tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Subscription:
    """Report what ``telemetry`` (that of an engine) tells to OpenTelemetry, until the subscription is closed.

    The providers are the global ones by default. ``ImportError`` where opentelemetry-api is not installed.
    """
    try:
        from opentelemetry import context, metrics, trace  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ImportError(
            'reporting to OpenTelemetry needs the package opentelemetry-api: pip install "azarr[otel]"', name="opentelemetry"
        ) from error
    meter = metrics.get_meter("azarr", meter_provider=meter_provider)
    tracing = Tracing(trace.get_tracer("azarr", tracer_provider=tracer_provider), trace, context)
    return telemetry.subscribe(Reporter(meter, tracing), events=EVENTS)


class Reporter:
    """Hands each event to what it concerns."""

    def __init__(self, meter: Meter, tracing: Tracing) -> None:
        def seconds(name: str, description: str) -> Any:
            return meter.create_histogram(name, "s", description, explicit_bucket_boundaries_advisory=SECONDS)

        def nbytes(name: str, description: str) -> Any:
            return meter.create_histogram(name, "By", description, explicit_bucket_boundaries_advisory=BYTES)

        self._tracing = tracing
        self._durations = {
            ChunkReadEvent: seconds("azarr.chunk.read.duration", "Time to fetch and decode a chunk"),
            ChunkWriteEvent: seconds("azarr.chunk.write.duration", "Time to encode and store a chunk or a shard"),
            CodecEvent: seconds("azarr.codec.duration", "Time in a codec pipeline"),
            StoreRequestEvent: seconds("azarr.store.request.duration", "Time of a request to a store"),
        }
        self._chunk_size = nbytes("azarr.chunk.size", "Decoded size of the chunks and shards that were read and written")
        self._request_size = nbytes("azarr.store.request.size", "Bytes received or sent by a request to a store")
        self._retries = meter.create_counter("azarr.store.retries", "{retry}", "Requests that were made again")
        self._in_flight = meter.create_up_down_counter("azarr.stream.inflight", "{chunk}", "Chunks that streams are fetching or decoding")
        self._buffered = meter.create_up_down_counter("azarr.stream.buffered", "By", "Decoded bytes that wait in streams")
        self._hits = meter.create_counter("azarr.cache.hits", "{hit}", "Chunks that were found in a cache")
        self._misses = meter.create_counter("azarr.cache.misses", "{miss}", "Chunks that were not found in a cache")
        self._levels: dict[int, tuple[int, int]] = {}
        self._handlers: dict[type[Event], Callable[[Any], None]] = {
            ReadEvent: tracing.current,
            WriteEvent: tracing.current,
            StreamEvent: self._stream,
            RetryEvent: self._retry,
            CacheEvent: self._cache,
            ChunkReadEvent: self._measure,
            ChunkWriteEvent: self._measure,
            CodecEvent: self._measure,
            StoreRequestEvent: self._measure,
        }

    def __call__(self, event: Event) -> None:
        """Report ``event``."""
        self._handlers[type(event)](event)

    def _measure(self, event: ChunkReadEvent | ChunkWriteEvent | CodecEvent | StoreRequestEvent) -> None:
        self._durations[type(event)].record(event.seconds, attributes_of(event))
        if event.error is None:
            if isinstance(event, StoreRequestEvent):
                self._request_size.record(event.nbytes, attributes_of(event))
            elif not isinstance(event, CodecEvent):
                self._chunk_size.record(event.nbytes, {"azarr.operation": "read" if isinstance(event, ChunkReadEvent) else "write"})

    def _retry(self, event: RetryEvent) -> None:
        self._retries.add(1, attributes_of(event))

    def _cache(self, event: CacheEvent) -> None:
        (self._hits if event.phase == "hit" else self._misses).add(1)

    def _stream(self, event: StreamEvent) -> None:
        self._tracing.aside(event)
        in_flight, buffered = self._levels.pop(event.span, (0, 0))
        if event.phase in ("start", "chunk"):
            self._levels[event.span] = event.in_flight, event.buffered_nbytes
        attributes = {"azarr.store": event.store}
        self._in_flight.add(event.in_flight - in_flight, attributes)
        self._buffered.add(event.buffered_nbytes - buffered, attributes)


class Tracing:
    """Spans from the starts and ends of operations."""

    def __init__(self, tracer: Tracer, trace: ModuleType, context: ModuleType) -> None:
        self._tracer, self._trace, self._context = tracer, trace, context
        self._spans: dict[int, Span] = {}
        self._tokens: dict[int, Token[Context]] = {}

    def current(self, event: Event) -> None:
        """The start or end of an operation that begins and ends in one task; its span is the current one meanwhile."""
        if event.phase == "start":
            self._tokens[event.span] = self._context.attach(self._trace.set_span_in_context(self._start(event)))
            return
        token = self._tokens.pop(event.span, None)
        if token is not None:
            self._context.detach(token)
        self._end(event)

    def aside(self, event: StreamEvent) -> None:
        """The start or end of a stream: what its consumer does between two chunks is no part of it."""
        if event.phase == "start":
            self._start(event)
        elif event.phase != "chunk":
            self._end(event)

    def _start(self, event: Event) -> Span:
        span = self._tracer.start_span(f"azarr.{event.subject}", attributes={"azarr.path": event.path or "/", "azarr.store": event.store})
        self._spans[event.span] = span
        return span

    def _end(self, event: Any) -> None:
        span = self._spans.pop(event.span, None)
        if span is None:  # it began before anybody listened
            return
        span.set_attribute("azarr.nbytes", event.nbytes)
        if isinstance(event, StreamEvent):
            span.set_attribute("azarr.chunks", event.chunks)
        if event.error is not None:
            span.set_attribute("error.type", event.error)
            if not event.cancelled:
                span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, event.error))
        span.end()


def attributes_of(event: Any) -> dict[str, str]:
    """What of an event is an attribute of its metrics: nothing that has many values."""
    attributes = {}
    if event.store and not isinstance(event, CodecEvent):
        attributes["azarr.store"] = event.store
    if hasattr(event, "operation"):
        attributes["azarr.operation"] = event.operation
    if event.error is not None:
        attributes["error.type"] = event.error
    return attributes
