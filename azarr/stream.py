"""Streams of chunks: one decoded chunk after the other, at bounded concurrency and memory."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from azarr.chunk_sources import Batch, ChunkSource
from azarr.codecs.pipeline import CodecPipeline
from azarr.engine import Engine
from azarr.projections import Projection
from azarr.reading import Fetched, count_in_unit, located
from azarr.selection import Selection
from azarr.stores.base import BlockingStore
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
    ``view[region]`` is ``data``. The data is the receiver's own.
    """

    coords: Coords
    region: tuple[slice, ...]
    data: Array


class ChunkStream(AsyncIterator[Chunk]):
    """The chunks of an array, one by one: ``async with array.stream_chunks() as chunks: async for chunk in chunks: ...``.

    Nothing is fetched before the first chunk is asked for. When the stream is closed, or left by ``break``, an error or a
    cancellation inside ``async with``, everything that it started has come to its end. Without ``async with``, a stream that is
    dropped halfway gives up its work as soon as it is garbage; ``aclose`` does so at once.
    """

    def __init__(self, window: Window[Batch, list[Chunk]]) -> None:
        self._window = window
        self._ready: deque[Chunk] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._held = 0
        self._rested = 0.0
        self._closed = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Chunk:
        if self._closed:
            raise StopAsyncIteration
        self._loop = self._loop or asyncio.get_running_loop()
        try:
            if self._held:  # the chunk that was handed out last is not ours any more
                self._window.release(self._held)
                self._held = 0
            if not self._ready:
                await self._refill()
            elif time.perf_counter() - self._rested > LOOP_SHARE:
                await asyncio.sleep(0)
                self._rested = time.perf_counter()
        except StopAsyncIteration:
            self._closed = True
            raise
        except BaseException:
            await self.aclose()
            raise
        self._held = 1
        return self._ready.popleft()

    async def _refill(self) -> None:
        while not self._ready:
            self._ready.extend(await self._window.take())
        self._rested = time.perf_counter()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End the stream: once this returns, nothing that it started runs any more. May be called again."""
        self._closed = True
        self._ready.clear()
        await self._window.aclose()

    def __del__(self) -> None:
        loop = getattr(self, "_loop", None)
        if loop is not None and not self._closed and not loop.is_closed():
            loop.call_soon_threadsafe(self._window.close)


def stream_chunks(
    source: ChunkSource, selection: Selection, engine: Engine, *, ordered: bool, concurrency: int | None, memory: int | None
) -> ChunkStream:
    """The chunks that ``selection`` meets; must be called on the loop that the stream is used on."""
    source = source.operation()
    nbytes = max(1, source.pipeline.spec.nbytes)
    limit = engine.window(nbytes, concurrency, memory)
    # several batches at a time for every worker, as far as the window allows
    share = max(1, min(BATCH_NBYTES // nbytes, limit // (2 * max(1, engine.executor.workers))))
    if not isinstance(source.store, BlockingStore):  # a request fetches one key, so chunks can share one in a shard only
        share = min(share, count_in_unit(source))
    batches = source.batches(selection, request_nbytes=share * nbytes, ordered=ordered)
    dropped = frozenset(selection.dropped)
    runner: WorkerRunner[Batch, list[Chunk]] | TaskRunner[Batch, list[Chunk]]
    if isinstance(source.store, BlockingStore):
        runner = WorkerRunner(engine.executor, engine.mailbox(), partial(read_chunks, source, dropped))
    else:
        runner = TaskRunner(partial(fetch_chunks, source, dropped, engine))
    return ChunkStream(Window(batches, runner, limit, ordered=ordered, weigh=weight, heaviest=share))


def weight(batch: Batch) -> int:
    """How many chunks a batch has."""
    return sum(run.length for run in batch)


def read_chunks(source: ChunkSource, dropped: frozenset[int], batch: Batch) -> list[Chunk]:
    """Fetch and decode a batch; for workers, on a blocking store."""
    return [chunk for run in batch for chunk in decoded(source, dropped, run.projections(), source.fetch_blocking(run))]


async def fetch_chunks(source: ChunkSource, dropped: frozenset[int], engine: Engine, batch: Batch) -> list[Chunk]:
    """Fetch a batch on the loop and decode it in a worker."""
    fetched = await source.fetch(batch, engine.requests())
    projections = [projection for run in batch for projection in run.projections()]
    return await engine.call(decoded, source, dropped, iter(projections), list(enumerate(fetched)))


def decoded(source: ChunkSource, dropped: frozenset[int], projections: Iterator[Projection], fetched: Fetched) -> list[Chunk]:
    """The chunks that have been fetched."""
    pipeline, spec = source.pipeline, source.pipeline.spec
    places = list(projections)
    chunks: dict[int, Chunk] = {}
    for number, encoded in fetched:
        place = places[number]
        shape = [part.stop - part.start for part in place.out]
        if encoded is None:
            data = np.full(shape, spec.fill_value, spec.dtype)
        elif place.full:
            data = located(partial(decode_own, pipeline), encoded, place.coords)
        else:
            data = located(pipeline.decode_scratch, encoded, place.coords)[place.chunk].astype(spec.dtype, order="C")
        region = place.out
        if dropped:
            data = data.reshape([length for axis, length in enumerate(data.shape) if axis not in dropped])
            region = tuple(part for axis, part in enumerate(region) if axis not in dropped)
        chunks[number] = Chunk(place.coords, region, data)
    return [chunks[number] for number in range(len(places))]


def decode_own(pipeline: CodecPipeline, data: Buffer) -> Array:
    """The chunk in memory of its own, which its receiver may keep and change."""
    chunk = np.empty(pipeline.spec.shape, pipeline.spec.dtype)
    pipeline.decode_into(data, chunk)
    return chunk
