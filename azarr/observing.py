"""What an operation on an array tells, where somebody listens to the engine's telemetry.

Nothing in the paths of reading and writing asks for listeners: an operation that has some works on a copy of its chunk source, whose store
and codec pipeline tell what is asked of them.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, Protocol, Self, TypeVar

from azarr.codecs.pipeline import CodecPipeline
from azarr.deferred import DeferredModule
from azarr.projections import AnyRun
from azarr.telemetry import Span, Telemetry
from azarr.types import Array, Buffer, ChunkSpec, Coords

if TYPE_CHECKING:
    from azarr import events
    from azarr.stores import observed
else:  # what those do without to whom nobody listens
    events = DeferredModule("azarr.events")
    observed = DeferredModule("azarr.stores.observed")

P = ParamSpec("P")
T = TypeVar("T")


class Observer(NamedTuple):
    """Tells ``telemetry`` of one operation on the array at ``path``, in a store of the type ``store``."""

    telemetry: Telemetry
    path: str
    store: str

    def begin(self, subject: events.Subject, /, **fields: Any) -> Span:
        """A span of this operation."""
        return self.telemetry.begin(events.KINDS[subject], path=self.path, store=self.store, **fields)

    def tell(self, subject: events.Subject, phase: events.Phase, /, **fields: Any) -> None:
        """An event that is a span of its own."""
        event = events.KINDS[subject](phase, self.telemetry.number(), **{"path": self.path, "store": self.store, **fields})
        self.telemetry.emit(event)

    @contextmanager
    def span(self, subject: events.Subject, /, **fields: Any) -> Iterator[Span]:
        """A span of this operation that is the block."""
        span = self.begin(subject, **fields)
        try:
            yield span
        except BaseException as error:
            span.fail(error)
            raise
        span.stop()

    def chunk_reads(self, chunks: Sequence[tuple[Coords, int]]) -> ChunkReads:
        """The reading, from now on, of chunks that are fetched together, by coordinates and decoded size."""
        wanted = chunks if self.telemetry.wants("chunk.read") else ()
        return ChunkReads([self.begin("chunk.read", coords=coords, nbytes=nbytes) for coords, nbytes in wanted])


NOBODY: AbstractContextManager[None] = nullcontext()
"""What is told where nobody listens."""


def telling(observer: Observer | None, subject: events.Subject, /, **fields: Any) -> AbstractContextManager[Span | None]:
    """A span of the operation that is the block, if anybody listens."""
    return NOBODY if observer is None else observer.span(subject, **fields)


class ChunkReads:
    """The reading in the block of chunks that are fetched together. They share its time equally, and its failure unless ``end`` knows."""

    __slots__ = ("_begun", "_spans")

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = spans
        self._begun = time.perf_counter()

    def end(self, outcomes: Sequence[Any]) -> None:
        """What became of the chunks: one failed whose outcome has an ``error``, and those beyond the last outcome failed with that."""
        if self._spans and outcomes:
            share = (time.perf_counter() - self._begun) / len(self._spans)
            for number, span in enumerate(self._spans):
                error = getattr(outcomes[min(number, len(outcomes) - 1)], "error", None)
                if error is None:
                    span.stop(seconds=share)
                else:
                    span.fail(error, seconds=share)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        share = (time.perf_counter() - self._begun) / max(1, len(self._spans))
        for span in self._spans:
            if error is None:
                span.stop(seconds=share)
            else:
                span.fail(error, seconds=share)


class NoReads(ChunkReads):
    """The reading of chunks of which nobody is told."""

    __slots__ = ()

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        pass  # not even the time, which every read of a single chunk would pay for


NO_READS = NoReads(())


def chunk_reads(source: Observable, batch: Sequence[AnyRun]) -> ChunkReads:
    """Tells of the chunks of ``batch``, which are read in the block, if anybody listens."""
    if source.observer is None:
        return NO_READS
    return source.observer.chunk_reads([(coords, source.pipeline_of(coords).spec.nbytes) for run in batch for coords in run.chunk_coords()])


def chunk_write(source: Observable, coords: Coords) -> AbstractContextManager[Span | None]:
    """Tells of the chunk or shard at ``coords``, which is written in the block, if anybody listens."""
    if source.observer is None:
        return NOBODY
    nbytes = source.pipeline_of(coords).spec.nbytes * math.prod(source.chunks_per_unit)
    return source.observer.span("chunk.write", coords=coords, nbytes=nbytes)


class StreamSpan:
    """The span of a stream, from the first item that is asked for."""

    __slots__ = ("_observer", "_span")

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._span: Span | None = None

    def begin(self) -> None:
        """The first item is asked for."""
        self._span = self._observer.begin("stream")

    def item(self, coords: Coords, stats: Any) -> None:
        """An item is handed out; ``stats`` are those of the stream."""
        if self._span is not None:
            counts = {"chunks": stats.done, "nbytes": stats.nbytes, "in_flight": stats.in_flight, "buffered_nbytes": stats.buffered_nbytes}
            self._span.tell("chunk", seconds=stats.seconds, coords=coords, **counts)

    def end(self, chunks: int, nbytes: int, error: BaseException | None = None) -> None:
        """The stream ends; only the first end counts."""
        if self._span is None:
            return
        if error is None:
            self._span.stop(chunks=chunks, nbytes=nbytes)
        else:
            self._span.fail(error, chunks=chunks, nbytes=nbytes)


class Observable(Protocol):
    """What is asked of a chunk source here."""

    store: Any
    pipeline: CodecPipeline
    chunks_per_unit: tuple[int, ...]
    key_prefix: str
    observer: Observer | None

    def pipeline_of(self, coords: Coords) -> CodecPipeline:
        """The pipeline of the chunk at ``coords``."""


SourceT = TypeVar("SourceT", bound=Observable)


def observed_copy(source: SourceT, telemetry: Telemetry) -> SourceT:
    """``source``, but it tells what is asked of its store and its pipeline."""
    twin = copy.copy(source)
    path = source.key_prefix.rstrip("/")
    twin.observer = Observer(telemetry, path, type(source.store).__name__)
    if telemetry.wants("store.request"):
        twin.store = observed.observed(source.store, telemetry, path)
    if telemetry.wants("codec"):
        twin.pipeline = ObservedPipeline(source.pipeline, twin.observer)
    return twin


class ObservedPipeline(CodecPipeline):
    """A pipeline that tells every run of it. A pickled copy is the pipeline itself, since nobody listens in another process."""

    __slots__ = ("_observer", "_plain")

    def __init__(self, plain: CodecPipeline, observer: Observer) -> None:
        for name in CodecPipeline.__slots__:
            setattr(self, name, getattr(plain, name))
        self._plain, self._observer = plain, observer
        self.joinable = False  # every run is told of one chunk

    @property
    def field(self) -> tuple[str, ...]:
        """As of the pipeline."""
        return self._plain.field

    @property
    def whole(self) -> CodecPipeline:
        """As of the pipeline; it tells, too."""
        return ObservedPipeline(self._plain.whole, self._observer) if self._plain.field else self

    def rebound(self, spec: ChunkSpec) -> CodecPipeline:
        """As of the pipeline; it tells, too."""
        return ObservedPipeline(self._plain.rebound(spec), self._observer)

    def encode(self, chunk: Array) -> Buffer:
        """As of the pipeline."""
        with self._observer.span("codec", operation="encode", nbytes=self.spec.nbytes) as span:
            data = self._plain.encode(chunk)
            span.stop(encoded_nbytes=len(data))
        return data

    def decode(self, data: Buffer) -> Array:
        """As of the pipeline."""
        return self._decoded(data, self._plain.decode, data)

    def decode_into(self, data: Buffer, out: Array) -> None:
        """As of the pipeline."""
        self._decoded(data, self._plain.decode_into, data, out)

    def decode_scratch(self, data: Buffer) -> Array:
        """As of the pipeline."""
        return self._decoded(data, self._plain.decode_scratch, data)

    def decode_bytes_into(self, data: Buffer, out: memoryview) -> None:
        """As of the pipeline."""
        self._decoded(data, self._plain.decode_bytes_into, data, out)

    def _decoded(self, data: Buffer, decode: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        with self._observer.span("codec", operation="decode", nbytes=self.spec.nbytes, encoded_nbytes=len(data)):
            return decode(*args, **options)
