"""Reading through a cache of chunks: what is not there is loaded whole, whatever part of it is wanted.

Every batch of chunks has a task, which claims its chunks, loads those that nobody else does, and only then waits for the others: while it
waits it holds nothing that somebody could be waiting for.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

import numpy as np

from azarr.cache_contents import CachedChunks, Claim, Load, Wait
from azarr.cached_chunk import CachedChunk
from azarr.chunk_cache import ChunkCache
from azarr.chunk_reader import Encoded, Failure, decode_own, late, selected_shape
from azarr.chunk_sources import Batch, ChunkSource, run_length
from azarr.engine import Engine
from azarr.observing import chunk_reads, telling
from azarr.projections import AnyRun, Projection
from azarr.reading import REQUEST_NBYTES
from azarr.runners import TaskRunner, WorkerRunner
from azarr.selection import AnySelection
from azarr.types import Array, Buffer, Coords, element_nbytes
from azarr.window import Window

INLINE_NBYTES, INLINE_LENGTH = 64 * 2**10, 16
"""Up to so many bytes of so many chunks are copied on the loop, in microseconds; more in a worker."""

Found: TypeAlias = CachedChunk | Exception | None
"""A chunk, ``None`` where it is not stored, or why it could not be had."""


class Loading(NamedTuple):
    """Chunks to load into a cache, each a run of its own, with what was fetched of them where the store is awaited."""

    source: ChunkSource
    loads: Sequence[Load]
    runs: Sequence[AnyRun]
    fetched: Sequence[Buffer | Exception | None] | None


Do: TypeAlias = Callable[[Loading], Awaitable[list[Found]]]
"""Has ``load_all`` done in a worker."""


async def read_cached(source: ChunkSource, selection: AnySelection, out: Array, engine: Engine, cache: ChunkCache) -> None:
    """As ``reading.read``, through a cache."""
    chunks, source = cache.chunks_of(source), source.operation(engine.telemetry, engine.place)
    chunks = chunks._replace(source=source)

    async def read_batch(batch: Batch) -> None:
        places = [place for run in batch for place in run.projections()]
        with chunk_reads(source, batch):
            found = whole(await fetch(chunks, batch, engine.requests(), partial(engine.call, load_all)))
            if len(places) <= INLINE_LENGTH and sum(wanted_nbytes(source, place) for place in places) <= INLINE_NBYTES:
                place_all(source, out, places, found)
            else:
                await engine.call(place_all, source, out, places, found)

    with telling(source.observer, "read", nbytes=out.size * element_nbytes(out.dtype)):
        nbytes = max(1, source.pipeline.spec.nbytes)
        most = source.pipeline.run_nbytes if source.blocking else min(REQUEST_NBYTES, engine.memory)
        largest = run_length(source.pipeline, most) if source.blocking else max(1, min(most // nbytes, math.prod(source.chunks_per_unit)))
        batches = source.batches(source.extent(selection), request_nbytes=most if largest > 1 else 0, ordered=source.blocking)
        await drain(batches, read_batch, engine.window(nbytes * largest, engine.concurrency + 2 * max(1, engine.executor.workers)))


async def drain(batches: Iterator[Batch], read_batch: Callable[[Batch], Coroutine[Any, Any, None]], limit: int) -> None:
    """Read all batches, ``limit`` at once; a single one without a task of its own."""
    first, second = next(batches, None), next(batches, None)
    if first is not None and second is None:
        await read_batch(first)
    elif first is not None and second is not None:
        await Window(itertools.chain((first, second), batches), TaskRunner(read_batch), limit).drain()


def whole(found: list[Found]) -> list[CachedChunk | None]:
    """The chunks, if all could be had; else the first error is raised."""
    error = next((each for each in found if isinstance(each, Exception)), None)
    try:
        if error is not None:
            raise error
        return cast("list[CachedChunk | None]", found)
    finally:
        del found, error  # an error leads to this frame, which must not lead back


def wanted_nbytes(source: ChunkSource, place: Projection) -> int:
    """How much is wanted of a chunk."""
    spec = source.pipeline_of(place.coords).spec
    return math.prod(selected_shape(place, spec.shape)) * element_nbytes(spec.dtype)


def place_all(source: ChunkSource, out: Array, places: Sequence[Projection], chunks: Sequence[CachedChunk | None]) -> None:
    """Put what is wanted of chunks where it belongs."""
    for place, chunk in zip(places, chunks, strict=True):
        out[place.out or ...] = source.pipeline.spec.fill if chunk is None else chunk.data[place.chunk or ...]


def fetcher(chunks: CachedChunks, engine: Engine, timeout: float | None) -> Callable[[Batch], Awaitable[list[Encoded | Failure]]]:
    """What fetches the chunks of a stream; a load that a worker is at for longer than ``timeout`` seconds is given up."""
    requests = engine.requests()
    runner = WorkerRunner(engine.executor, engine.mailbox(), load_all, timeout=timeout, expired=partial(given_up, timeout))

    async def fetch_batch(batch: Batch) -> list[Encoded | Failure]:
        found = await fetch(chunks, batch, requests, runner.do)
        try:
            places = [coords for run in batch for coords in run.chunk_coords()]
            return [Failure(at, each) if isinstance(each, Exception) else each for at, each in zip(places, found, strict=True)]
        finally:
            del found  # as above

    return fetch_batch


def given_up(timeout: float | None, loading: Loading) -> list[Found]:
    """What comes of loads that take longer than ``timeout`` seconds."""
    for each in loading.loads:
        each.abandon()
    return [late(timeout, each.coords) for each in loading.loads]


async def fetch(chunks: CachedChunks, batch: Batch, requests: asyncio.Semaphore, do: Do) -> list[Found]:
    """The chunks of ``batch``, from the cache or loaded into it."""
    left: dict[int, AnyRun] = dict(enumerate(run.single(number) for run in batch for number in range(run.length)))
    found: dict[int, Found] = {}
    try:
        while left:
            claims = dict(zip(left, claim(chunks, [coords_of(run) for run in left.values()]), strict=True))
            own = {number: claimed for number, claimed in claims.items() if isinstance(claimed, Load)}
            found |= await load(chunks, own, left, requests, do)
            for number, claimed in claims.items():
                if isinstance(claimed, CachedChunk):
                    found[number] = claimed
                elif isinstance(claimed, Wait):
                    state = await claimed.load.wait()
                    if state == "done":
                        found[number] = claimed.load.chunk
                    elif state == "failed":  # which is for whoever loaded it; this one asks for itself
                        found |= await load(chunks, {number: chunks.alone(coords_of(left[number]))}, left, requests, do)
            left = {number: run for number, run in left.items() if number not in found}  # others have given those up
        return [found[number] for number in sorted(found)]
    finally:
        del found  # an error among them leads to this frame, which must not lead back


def claim(chunks: CachedChunks, places: Sequence[Coords]) -> list[Claim]:
    """As ``chunks.claim``, and who listens is told."""
    claims, observer = chunks.claim(places), chunks.source.observer
    if observer is not None:
        for coords, each in zip(places, claims, strict=True):
            nbytes = chunks.source.pipeline_of(coords).spec.nbytes
            observer.tell("cache", "miss" if isinstance(each, Load) else "hit", coords=coords, nbytes=nbytes)
    return claims


def coords_of(run: AnyRun) -> Coords:
    """Where the one chunk of ``run`` lies."""
    return run.chunk_coords()[0]


async def load(
    chunks: CachedChunks, own: dict[int, Load], runs: dict[int, AnyRun], requests: asyncio.Semaphore, do: Do
) -> dict[int, Found]:
    """What became of the chunks that were claimed, after they were fetched and decoded."""
    if not own:
        return {}
    wanted = [runs[number] for number in own]
    try:
        fetched = None if chunks.source.blocking else await fetch_all(chunks.source, wanted, requests)
        return dict(zip(own, await do(Loading(chunks.source, list(own.values()), wanted, fetched)), strict=True))
    finally:
        for each in own.values():
            each.abandon()  # if nothing has become of it, as this task was cancelled
        fetched = None  # an error among them leads to this frame, which must not lead back


async def fetch_all(source: ChunkSource, runs: Sequence[AnyRun], requests: asyncio.Semaphore) -> list[Buffer | Exception | None]:
    """The encoded chunks, on a store that is awaited; together if all goes well, else one by one."""
    if len(runs) > 1:
        with suppress(Exception):  # of one of them, which shows below
            return [*await source.fetch(tuple(runs), requests)]
    return [await fetch_one(source, run, requests) for run in runs]


async def fetch_one(source: ChunkSource, run: AnyRun, requests: asyncio.Semaphore) -> Buffer | Exception | None:
    """One encoded chunk, or why it could not be had."""
    try:
        (encoded,) = await source.fetch((run,), requests)
    except Exception as error:  # noqa: BLE001 - whoever wants the chunk decides
        return error
    return encoded


def load_all(loading: Loading) -> list[Found]:
    """Decode chunks into the cache, after fetching them where the store's calls block; for workers."""
    found: list[Found] = []
    try:
        for number, each in enumerate(loading.loads):
            found.append(load_one(loading, number, each))
        return found
    finally:
        del found  # as above


def load_one(loading: Loading, number: int, own: Load) -> Found:
    """One chunk, or why it could not be had."""
    source, chunk = loading.source, None
    fetched = None if loading.fetched is None else loading.fetched[number]
    if isinstance(fetched, Exception):
        own.fail()
        return fetched
    try:
        for _, encoded in source.fetch_blocking(loading.runs[number]) if loading.fetched is None else ((0, fetched),):
            chunk = None if encoded is None else decoded(source, own.coords, encoded)
    except Exception as error:  # noqa: BLE001 - whoever wants the chunk decides
        own.fail()
        return error
    evicted = own.finish(chunk)
    if source.observer is not None:
        for each in evicted:
            source.observer.tell("cache", "evict", path=each.path, coords=each.coords, nbytes=each.nbytes)
    return chunk


def decoded(source: ChunkSource, coords: Coords, encoded: Buffer) -> CachedChunk:
    """The whole chunk, in memory of its own."""
    data = decode_own(source.pipeline_of(coords), encoded, coords, np.empty)
    data.flags.writeable = False
    return CachedChunk(data, len(encoded))
