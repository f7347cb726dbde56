"""Streams of chunks: one decoded chunk after the other, at bounded concurrency and memory."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Self, cast

import numpy as np

from azarr.chunk_sources import Batch, ChunkSource
from azarr.codecs.pipeline import CodecPipeline
from azarr.engine import Engine
from azarr.errors import CodecError, StreamError
from azarr.projections import Part, Projection
from azarr.reading import Fetched, count_in_unit, located
from azarr.selection import AnySelection, PointSelection, Positions, Selection
from azarr.types import Array, Buffer, Coords
from azarr.window import TaskRunner, Window, WorkerRunner

BATCH_NBYTES = 256 * 2**10
"""Decoded bytes that are worth a job of their own; smaller chunks share one."""

LOOP_SHARE = 0.002
"""Seconds after which a stream whose chunks are always ready lets the loop do something else."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A decoded chunk, or the part of it that was selected.

    ``coords`` is its place in the array's chunk grid, ``region`` where ``data`` belongs in the array or view that was streamed:
    ``result[region] = data`` puts it there. The region has slices, or, where indices or points were selected, arrays of positions. The
    data is the receiver's own.
    """

    coords: Coords
    region: tuple[Part, ...]
    data: Array


@dataclass(frozen=True, slots=True)
class Decoded:
    """What became of a batch: its chunks, up to the first that failed."""

    chunks: list[Chunk]
    error: Exception | None = None


class ChunkStream(AsyncIterator[Chunk]):
    """The chunks of an array, one by one: ``async with array.stream_chunks() as chunks: async for chunk in chunks: ...``.

    Nothing is fetched before the first chunk is asked for. When the stream is closed, or left by ``break``, an error or a
    cancellation inside ``async with``, everything that it started has come to its end. Without ``async with``, a stream that is
    dropped halfway gives up its work as soon as it is garbage; ``aclose`` does so at once.

    An error, or the cancellation of whoever waits for a chunk, ends the stream; asking it for more raises ``StreamError``, so that
    half a stream is never taken for a whole one.
    """

    def __init__(self, window: Window[Batch, Decoded]) -> None:
        self._window = window
        self._ready: deque[Chunk] = deque()
        self._error: Exception | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = 0
        self._rested = 0.0
        self._waiting = self._closed = self._broken = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._waiting:
            raise StreamError("this stream is already being waited for by another task; give each task a stream of its own")
        if self._broken:
            raise StreamError("an error or a cancellation ended this stream before its last chunk; open another one")
        if self._closed:
            raise StopAsyncIteration
        self._loop = self._loop or asyncio.get_running_loop()
        self._waiting = True
        try:
            if self._held:  # the chunk that was handed out last is not ours any more
                self._window.release(self._held)
                self._held = 0
            await self._refill()
        except StopAsyncIteration:
            self._closed = True
            raise
        except BaseException:
            self._broken = True
            await self.aclose()
            raise
        finally:
            self._waiting = False
        self._held = 1
        return self._ready.popleft()

    async def _refill(self) -> None:
        if (self._ready or self._window.ready) and time.perf_counter() - self._rested > LOOP_SHARE:
            await asyncio.sleep(0)
            self._rested = time.perf_counter()
        while not self._ready:
            if self._error is not None:
                raise self._error
            waits = not self._window.ready
            batch = await self._window.take()
            self._ready.extend(batch.chunks)
            self._error = batch.error
            del batch  # its error leads to this frame, which must not lead back
            if waits:
                self._rested = time.perf_counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream: once this returns, nothing that it started runs any more. May be called again."""
        self._closed = True
        self._ready.clear()
        self._error = None  # it leads to frames that lead to this stream
        await self._window.aclose()

    def __del__(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None and not self._closed:
            with suppress(RuntimeError):  # the loop is closed, and all that it ran with it
                loop.call_soon_threadsafe(self._window.close)


def stream_chunks(
    source: ChunkSource, selection: AnySelection, engine: Engine, *, ordered: bool, concurrency: int | None, memory: int | None
) -> ChunkStream:
    """The chunks that ``selection`` meets; must be called on the loop that the stream is used on."""
    for name, value in (("concurrency", concurrency), ("memory", memory)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    source = source.operation()
    nbytes = max(1, source.pipeline.spec.nbytes)
    limit = engine.window(nbytes, concurrency, memory)
    # several batches at a time for every worker, as far as the window allows
    share = max(1, min(BATCH_NBYTES // nbytes, limit // (2 * max(1, engine.executor.workers))))
    if not source.blocking:  # a request fetches one key, so chunks can share one in a shard only
        share = min(share, count_in_unit(source))
    batches = source.batches(selection.forward(), request_nbytes=share * nbytes, ordered=ordered)
    runner: WorkerRunner[Batch, Decoded] | TaskRunner[Batch, Decoded]
    if source.blocking:
        runner = WorkerRunner(engine.executor, engine.mailbox(), partial(read_chunks, source, selection))
    else:
        runner = TaskRunner(partial(fetch_chunks, source, selection, engine))
    return ChunkStream(Window(batches, runner, limit, ordered=ordered, weigh=weight, heaviest=share))


def weight(batch: Batch) -> int:
    """How many chunks a batch has."""
    return sum(run.length for run in batch)


def read_chunks(source: ChunkSource, selection: AnySelection, batch: Batch) -> Decoded:
    """Fetch and decode a batch; for workers, on a blocking store."""
    chunks: list[Chunk] = []
    for run in batch:
        part = decoded(source, selection, run.projections(), source.fetch_blocking(run))
        chunks += part.chunks
        if part.error is not None:
            return Decoded(chunks, part.error)
    return Decoded(chunks)


async def fetch_chunks(source: ChunkSource, selection: AnySelection, engine: Engine, batch: Batch) -> Decoded:
    """Fetch a batch on the loop and decode it in a worker."""
    fetched = await source.fetch(batch, engine.requests())
    projections = [projection for run in batch for projection in run.projections()]
    return await engine.call(decoded, source, selection, iter(projections), list(enumerate(fetched)))


def decoded(source: ChunkSource, selection: AnySelection, projections: Iterator[Projection], fetched: Fetched) -> Decoded:
    """The chunks that have been fetched, up to the first that fails."""
    places = list(projections)
    chunks: dict[int, Chunk] = {}
    errors: dict[int, Exception] = {}
    rest: Exception | None = None
    try:
        for number, encoded in fetched:
            try:
                chunks[number] = decode_chunk(source.pipeline, selection, places[number], encoded)
            except CodecError as error:  # ones before it may come after it
                errors[number] = error
    except Exception as error:  # noqa: BLE001 - comes out when its turn comes
        rest = error
    whole = next((number for number in range(len(places)) if number not in chunks), len(places))
    try:
        return Decoded([chunks[number] for number in range(whole)], None if whole == len(places) else errors.get(whole, rest))
    finally:
        del errors, rest  # they lead to this frame, which must not lead back


def decode_chunk(pipeline: CodecPipeline, selection: AnySelection, place: Projection, encoded: Buffer | None) -> Chunk:
    """What is selected of one chunk."""
    spec = pipeline.spec
    if encoded is None:
        data = np.full(selected_shape(place, spec.shape), spec.fill, spec.dtype)
    elif place.full:
        data = located(partial(decode_own, pipeline), encoded, place.coords)
    else:
        data = located(pipeline.decode_scratch, encoded, place.coords)[place.chunk or ...].astype(spec.dtype, order="C")
    if isinstance(selection, PointSelection):
        if not selection.shape:
            return Chunk(place.coords, (), data.reshape(()))
        return Chunk(place.coords, np.unravel_index(cast("Positions", place.out[0]), selection.shape), data)
    region, data = turned(place.out, data, selection)
    if dropped := selection.dropped:
        data = data.reshape([length for axis, length in enumerate(data.shape) if axis not in dropped])
        region = tuple(np.squeeze(part, dropped) if isinstance(part, np.ndarray) else part for part in region)
        region = tuple(part for axis, part in enumerate(region) if axis not in dropped)
    return Chunk(place.coords, region, data)


def selected_shape(place: Projection, chunk_shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of what is selected of a chunk."""
    if place.chunk and isinstance(place.chunk[0], np.ndarray):
        return np.broadcast_shapes(*(part.shape for part in place.chunk if isinstance(part, np.ndarray)))
    bounds = zip(place.chunk, chunk_shape, strict=True)
    return tuple(len(range(*part.indices(length))) for part, length in bounds if isinstance(part, slice))


def turned(region: tuple[Part, ...], data: Array, selection: Selection) -> tuple[tuple[Part, ...], Array]:
    """Region and data of a chunk that was read forwards, where the view runs along some axes backwards."""
    parts = list(region)
    for axis in selection.reversed:
        part, length = parts[axis], selection.axes[axis].length
        if isinstance(part, slice):
            parts[axis] = slice(length - part.stop, length - part.start)
            data = np.flip(data, axis)
        else:
            parts[axis] = length - 1 - part
    return tuple(parts), data


def decode_own(pipeline: CodecPipeline, data: Buffer) -> Array:
    """The chunk in memory of its own, which its receiver may keep and change."""
    chunk = np.empty(pipeline.spec.shape, pipeline.spec.dtype)
    pipeline.decode_into(data, chunk)
    return chunk
