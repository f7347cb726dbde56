"""What OpenTelemetry is told, as its SDK receives it."""

from __future__ import annotations

import asyncio
import sys

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode, get_current_span

from azarr.integrations.opentelemetry import instrument
from azarr.telemetry import (
    CacheEvent,
    ChunkReadEvent,
    ChunkWriteEvent,
    CodecEvent,
    ReadEvent,
    RetryEvent,
    StoreRequestEvent,
    StreamEvent,
    Telemetry,
    WriteEvent,
)


class Backend:
    """What receives traces and metrics."""

    def __init__(self) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracer_provider = TracerProvider()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._reader])

    @property
    def spans(self):
        return self._spans.get_finished_spans()

    @property
    def metrics(self):
        data = self._reader.get_metrics_data()
        return {metric.name: metric for each in data.resource_metrics for scope in each.scope_metrics for metric in scope.metrics}

    def points(self, name):
        """The data points of a metric by their attributes."""
        return {tuple(sorted(point.attributes.items())): point for point in self.metrics[name].data.data_points}


@pytest.fixture
def backend():
    made = Backend()
    yield made
    made.tracer_provider.shutdown()
    made.meter_provider.shutdown()


@pytest.fixture
def telemetry(backend, caplog):
    telemetry = Telemetry()
    with instrument(telemetry, tracer_provider=backend.tracer_provider, meter_provider=backend.meter_provider):
        yield telemetry
        assert telemetry.active, "the handler has been dropped"
    assert caplog.records == []


def test_durations_and_sizes(backend, telemetry):
    telemetry.emit(ChunkReadEvent("stop", 1, coords=(0,), nbytes=4096, seconds=0.5, path="a", store="S"))
    telemetry.emit(ChunkReadEvent("exception", 2, coords=(1,), seconds=0.25, store="S", error="OSError"))
    telemetry.emit(ChunkWriteEvent("stop", 3, coords=(0,), nbytes=100, seconds=2.0, store="S"))
    telemetry.emit(CodecEvent("stop", 4, operation="decode", nbytes=4096, encoded_nbytes=50, seconds=0.125))
    telemetry.emit(StoreRequestEvent("stop", 5, operation="get", key="a/c/0", nbytes=50, seconds=0.0625, store="S"))
    store, read, get = ("azarr.store", "S"), ("azarr.operation", "read"), ("azarr.operation", "get")
    reads = backend.points("azarr.chunk.read.duration")
    assert {attributes: (point.count, point.sum) for attributes, point in reads.items()} == {
        (store,): (1, 0.5),
        (store, ("error.type", "OSError")): (1, 0.25),
    }
    assert backend.points("azarr.chunk.write.duration")[(store,)].sum == 2.0
    assert backend.points("azarr.chunk.size")[(read,)].sum == 4096
    assert backend.points("azarr.chunk.size")[(("azarr.operation", "write"),)].sum == 100
    assert backend.points("azarr.codec.duration")[(("azarr.operation", "decode"),)].sum == 0.125
    assert backend.points("azarr.store.request.duration")[(get, store)].sum == 0.0625
    assert backend.points("azarr.store.request.size")[(get, store)].sum == 50


def test_units(backend, telemetry):
    telemetry.emit(ChunkReadEvent("stop", 1, coords=(0,)))
    telemetry.emit(ChunkWriteEvent("stop", 1, coords=(0,)))
    telemetry.emit(CodecEvent("stop", 1, operation="encode"))
    telemetry.emit(StoreRequestEvent("stop", 1, operation="set", key="k"))
    telemetry.emit(RetryEvent("start", 1, operation="get", key="k", attempt=2, error="TimeoutError"))
    telemetry.emit(StreamEvent("start", 1))
    telemetry.emit(CacheEvent("hit", 1, coords=(0,)))
    telemetry.emit(CacheEvent("miss", 1, coords=(0,)))
    assert {name: metric.unit for name, metric in backend.metrics.items()} == {
        "azarr.chunk.read.duration": "s",
        "azarr.chunk.write.duration": "s",
        "azarr.chunk.size": "By",
        "azarr.codec.duration": "s",
        "azarr.store.request.duration": "s",
        "azarr.store.request.size": "By",
        "azarr.store.retries": "{retry}",
        "azarr.stream.inflight": "{chunk}",
        "azarr.stream.buffered": "By",
        "azarr.cache.hits": "{hit}",
        "azarr.cache.misses": "{miss}",
    }


def test_no_metric_has_coordinates_keys_or_paths(backend, telemetry):
    for number in range(3):
        coords, key = (number,), f"a/c/{number}"
        telemetry.emit(ChunkReadEvent("stop", 1, coords=coords, path=key))
        telemetry.emit(ChunkWriteEvent("stop", 1, coords=coords, path=key))
        telemetry.emit(StoreRequestEvent("stop", 1, operation="get", key=key, path=key))
        telemetry.emit(CodecEvent("stop", 1, operation="encode", path=key))
        telemetry.emit(RetryEvent("start", 1, operation="get", key=key, attempt=number))
        telemetry.emit(StreamEvent("chunk", number, coords=coords, path=key))
        telemetry.emit(CacheEvent("hit", 1, coords=coords, path=key))
        telemetry.emit(CacheEvent("miss", 1, coords=coords, path=key))
    assert {name: len(metric.data.data_points) for name, metric in backend.metrics.items() if len(metric.data.data_points) > 1} == {
        "azarr.chunk.size": 2  # read and written
    }


def test_counts(backend, telemetry):
    for attempt in (2, 3):
        telemetry.emit(RetryEvent("start", 1, operation="get", key="k", attempt=attempt, error="TimeoutError", store="S"))
    telemetry.emit(RetryEvent("stop", 1, operation="get", key="k", attempt=3, store="S"))
    telemetry.emit(CacheEvent("hit", 1, coords=(0,)))
    telemetry.emit(CacheEvent("hit", 1, coords=(1,)))
    telemetry.emit(CacheEvent("miss", 1, coords=(2,)))
    telemetry.emit(CacheEvent("evict", 1, coords=(2,)))
    ((attributes, retries),) = backend.points("azarr.store.retries").items()
    assert dict(attributes) == {"azarr.store": "S", "azarr.operation": "get", "error.type": "TimeoutError"}
    assert retries.value == 2
    assert backend.points("azarr.cache.hits")[()].value == 2
    assert backend.points("azarr.cache.misses")[()].value == 1


def test_streams_have_levels_that_go_back_to_zero(backend, telemetry):
    def levels():
        ((_, in_flight),) = backend.points("azarr.stream.inflight").items()
        ((_, buffered),) = backend.points("azarr.stream.buffered").items()
        return in_flight.value, buffered.value

    for number in (1, 2):
        telemetry.emit(StreamEvent("start", number, store="S"))
        telemetry.emit(StreamEvent("chunk", number, store="S", in_flight=5, buffered_nbytes=100))
    assert levels() == (10, 200)
    telemetry.emit(StreamEvent("chunk", 1, store="S", in_flight=3, buffered_nbytes=400))
    assert levels() == (8, 500)
    telemetry.emit(StreamEvent("stop", 1, store="S"))
    assert levels() == (5, 100)
    telemetry.emit(StreamEvent("exception", 2, store="S", error="OSError"))
    assert levels() == (0, 0)


@pytest.mark.parametrize("kind", [ReadEvent, WriteEvent, StreamEvent])
def test_operations_are_spans(backend, telemetry, kind):
    with backend.tracer_provider.get_tracer("app").start_as_current_span("request") as request:
        operation = telemetry.begin(kind, path="t2m", store="S")
        inside = get_current_span()
        operation.stop(nbytes=12)
        assert get_current_span() is request
    span, _ = backend.spans
    assert span.name == f"azarr.{kind.subject}"
    assert span.parent.span_id == request.get_span_context().span_id
    expected = {"azarr.path": "t2m", "azarr.store": "S", "azarr.nbytes": 12}
    assert dict(span.attributes) == expected | ({"azarr.chunks": 0} if kind is StreamEvent else {})
    assert span.status.status_code is StatusCode.UNSET
    # what a stream's consumer does between two chunks is not the stream's doing
    assert (inside is request) == (kind is StreamEvent)


def test_the_root_has_a_path(backend, telemetry):
    telemetry.begin(ReadEvent, path="").stop()
    (span,) = backend.spans
    assert span.attributes["azarr.path"] == "/"


def test_failure_and_cancellation(backend, telemetry):
    telemetry.begin(ReadEvent).fail(OSError("s3cr3t"))
    telemetry.begin(ReadEvent).fail(asyncio.CancelledError())
    failed, cancelled = backend.spans
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes["error.type"] == "OSError"
    assert cancelled.status.status_code is StatusCode.UNSET
    assert cancelled.attributes["error.type"] == "asyncio.exceptions.CancelledError"
    assert "s3cr3t" not in failed.to_json()


async def test_spans_of_concurrent_reads_do_not_nest(backend, telemetry):
    async def read():
        span = telemetry.begin(ReadEvent)
        await asyncio.sleep(0)
        span.stop()

    await asyncio.gather(read(), read(), read())
    assert [span.parent for span in backend.spans] == [None] * 3


def test_an_end_without_a_start_is_left_alone(backend, telemetry):
    telemetry.emit(ReadEvent("stop", 99))
    assert backend.spans == ()


def test_says_which_extra_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    telemetry = Telemetry()
    with pytest.raises(ImportError, match=r'pip install "azarr\[otel\]"'):
        instrument(telemetry)
    assert not telemetry.active


def test_works_without_an_sdk():
    telemetry = Telemetry()
    with instrument(telemetry):
        telemetry.begin(ReadEvent).stop()
        assert telemetry.active
