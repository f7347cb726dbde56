"""Reading: from encoded chunks into one array, or into a stream of chunks.

A store whose calls block is read inside the worker that decodes, so that fetching, decoding and placing a run of chunks is one job.
Any other store is read on the loop, in tasks, and only the decoding goes to a worker.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, cast

import numpy as np

from azarr.chunk_sources import Batch, ChunkSource, Fetcher, spread
from azarr.codecs import scratch
from azarr.codecs.base import bytes_of
from azarr.codecs.pipeline import CodecPipeline
from azarr.crew import SHARES, Crew
from azarr.engine import Engine
from azarr.errors import CodecError
from azarr.observing import chunk_reads, telling
from azarr.projections import AnyRun, SingleRun
from azarr.result_memory import ResultMemory
from azarr.runners import TaskRunner
from azarr.selection import AnySelection, PointSelection, as_planned
from azarr.stores.base import AT_HAND_NBYTES
from azarr.types import Array, Buffer, Coords, element_nbytes
from azarr.window import Window

Fetched = Iterable[tuple[int, Buffer | None]]

REQUEST_NBYTES = 8 * 2**20
"""Decoded bytes of one shard that one task fetches and one job decodes, where the store is read on the loop."""

GATHERED_NBYTES = 16 * 2**20
"""The same where one job of a worker does both: with 1 MiB, a sixth of the time went into calls for small parts of a shard."""


class Result:
    """The array that reading ``selection`` fills: one that is ``given``, or a new one of ``dtype``, made when it is about to be filled."""

    __slots__ = ("_dtype", "_full", "_memory", "_selection", "_target")

    def __init__(self, selection: AnySelection, dtype: np.dtype[Any], memory: ResultMemory, given: Array | None = None) -> None:
        self._selection, self._dtype, self._memory, self._target = selection, dtype, memory, given
        self._full: Array | None = None

    @property
    def nbytes(self) -> int:
        """The size of what is read."""
        return self._selection.size * element_nbytes(self._dtype)

    def room(self) -> Array:
        """What to fill: every axis of the array, dropped ones with length 1."""
        if self._full is None:
            if self._target is None:
                self._target = self._memory.empty(self._selection.shape, self._dtype)
            self._full = as_planned(self._target, self._selection)
        return self._full

    def filled(self) -> Array:
        """The array, now that the room has been filled."""
        full = self.room()
        target = cast("Array", self._target)
        if isinstance(self._selection, PointSelection) and not np.may_share_memory(full, target):
            # points were read one after the other, aside from a target with other strides
            target[...] = full.reshape(self._selection.shape)
        return target


def read(source: ChunkSource, selection: AnySelection, result: Result, engine: Engine) -> Coroutine[Any, Any, None]:
    """Fill the room of ``result`` with what ``selection`` names; to be awaited."""
    alone = source.alone(selection) if source.blocking else None
    # one chunk leaves nothing that the rest of the operation would have to know
    if alone is None or engine.telemetry.active or engine.place is not None:
        source = source.operation(engine.telemetry, engine.place)
    if source.observer is None:
        return fill(source, selection, alone, result, engine)
    return fill_and_tell(source, selection, alone, result, engine)


async def fill_and_tell(source: ChunkSource, selection: AnySelection, alone: SingleRun | None, result: Result, engine: Engine) -> None:
    """As ``fill``, and whoever listens is told of it."""
    with telling(source.observer, "read", nbytes=result.nbytes):
        await fill(source, selection, alone, result, engine)


def fill(
    source: ChunkSource, selection: AnySelection, alone: SingleRun | None, result: Result, engine: Engine
) -> Coroutine[Any, Any, None]:
    """As ``read``, of a selection that is the chunk ``alone``; where that is ``None``, ``source`` is there for this operation."""
    if alone is None:
        return fill_each(source, selection, result, engine)
    if not engine.closed and placed_at_hand(source, result, alone):
        return engine.give_way()
    return engine.call_in_turn(result.nbytes, read_alone, source, result, alone)


async def fill_each(source: ChunkSource, selection: AnySelection, result: Result, engine: Engine) -> None:
    """As ``fill``, of any number of chunks."""
    extent = source.extent(selection)
    nbytes = max(1, source.pipeline.spec.nbytes)
    if source.blocking:
        # shard by shard, where there are any: what lies together is read together
        share = min(GATHERED_NBYTES, engine.memory, extent.chunks.nchunks * nbytes // (SHARES * max(1, engine.executor.workers)))
        batches = source.batches(extent, request_nbytes=max(source.pipeline.run_nbytes, share), ordered=False)
        first, second = next(batches, None), next(batches, None)
        if first is None:
            return
        job = partial(read_batch, source, result.room())
        if second is None:
            await engine.call(job, first)
            return
        await Crew(engine, itertools.chain((first, second), batches), job).run()
        return
    requests = engine.requests()

    async def fetch_and_place(batch: Batch) -> None:
        with chunk_reads(source, batch):
            chunks = await source.fetch(batch, requests)
            out = result.room()  # not before there is something to put there: many may wait for a store at once
            if engine.on_loop(source.pipeline, nbytes * len(chunks)):
                place_batch(source, out, batch, chunks)
            else:
                await engine.call(place_batch, source, out, batch, chunks)

    request_nbytes = min(REQUEST_NBYTES, engine.memory)
    largest = max(1, min(request_nbytes // nbytes, math.prod(source.chunks_per_unit)))
    # half as many tasks more than requests, so that chunks that wait for a worker do not keep the store waiting: answers come in bursts
    spare = max(engine.concurrency // 2, 2 * max(1, engine.executor.workers))
    window = engine.window(nbytes * largest, engine.concurrency + spare)
    batches = source.batches(extent, request_nbytes=request_nbytes if largest > 1 else 0, ordered=False)
    await Window(batches, TaskRunner(fetch_and_place), window).drain()


def placed_at_hand(source: ChunkSource, result: Result, run: SingleRun) -> bool:
    """Whether ``run`` was a small chunk without compression that the store had at hand; it is in ``result`` then, without a worker."""
    pipeline = source.pipeline_of(run.coords)
    if pipeline.compressed or not pipeline.direct or (nbytes := pipeline.spec.nbytes) > AT_HAND_NBYTES:
        return False
    out = result.room()
    memory = memory_for(pipeline, out, run)
    try:
        if memory is None:
            chunk = source.fetch_at_hand(run.coords, nbytes)
        else:
            chunk = source.fetch_at_hand(run.coords, nbytes, lambda size: memory if size == nbytes else scratch.encoded.reserve(size))
    except OSError:
        return False
    if memory is None or chunk is not memory:
        place_run(pipeline, out, run, ((0, chunk),))
    return True


def memory_for(pipeline: CodecPipeline, out: Array, run: SingleRun) -> memoryview | None:
    """The memory of ``out``, all of which ``run`` is, where it is the memory of the chunk as well."""
    if run.full and pipeline.direct and out.flags.c_contiguous and out.dtype == pipeline.spec.dtype:
        return bytes_of(out)
    return None


def read_alone(source: ChunkSource, result: Result, run: SingleRun) -> None:
    """Fetch and place the chunk that all of ``result`` is of; for workers, on a blocking store."""
    pipeline, out = source.pipeline_of(run.coords), result.room()
    memory = memory_for(pipeline, out, run) if pipeline.compressed else None
    if memory is None:
        read_batch(source, out, (run,))
        return
    with chunk_reads(source, (run,)):
        if decode_run(pipeline, run, source.fetch_single(run), memory):
            out[...] = pipeline.spec.fill_value


def read_batch(source: ChunkSource, out: Array, batch: Batch) -> None:
    """Fetch and place a batch; for workers, on a blocking store."""
    raw = source.pipeline.direct and not source.pipeline.compressed
    with chunk_reads(source, batch):
        fetcher = source.gathered(batch)
        for run in batch:
            pipeline = source.pipeline_of(run.coords)
            if run.full and raw:
                place_full_run(pipeline, out, run, partial(fetcher.copy_blocking, run))
            elif run.full and pipeline.joinable and out.dtype == pipeline.spec.dtype:
                place_full_run(pipeline, out, run, partial(decode_joined, fetcher, pipeline, run))
            else:
                place_run(pipeline, out, run, fetcher.fetch_blocking(run))


def place_batch(source: ChunkSource, out: Array, batch: Batch, chunks: list[Buffer | None]) -> None:
    """Place a batch that has been fetched."""
    position = 0
    for run in batch:
        place_run(source.pipeline_of(run.coords), out, run, enumerate(chunks[position : position + run.length]))
        position += run.length


def place_run(pipeline: CodecPipeline, out: Array, run: AnyRun, fetched: Fetched) -> None:
    """Decode the chunks of ``run`` to where they belong in ``out``."""
    if run.full and pipeline.direct and out.dtype == pipeline.spec.dtype:
        place_full_run(pipeline, out, run, partial(decode_run, pipeline, run, fetched))
        return
    projections = list(run.projections())
    for number, data in fetched:
        projection = projections[number]
        if data is None:
            out[projection.out or ...] = pipeline.spec.fill
        else:
            chunk = located(pipeline.decode_scratch, data, projection.coords)
            out[projection.out or ...] = chunk[projection.chunk or ...]


def located(decode: Callable[[Buffer], Array], data: Buffer, coords: Coords) -> Array:
    """The decoded chunk; an error says which chunk it is about."""
    try:
        return decode(data)
    except CodecError as error:
        error.coords = error.coords or coords
        raise


def place_full_run(pipeline: CodecPipeline, out: Array, run: AnyRun, fill: Callable[[memoryview], list[int]]) -> None:
    """Put whole chunks into ``out``: in place where their memory is one piece there, else by scattering the whole run at once.

    ``fill`` fills the chunks' memory, side by side, and answers which of them are not stored.
    """
    view = chunks_view(out, run, pipeline.spec.shape)
    target = view
    if not view.flags.c_contiguous or view.dtype != pipeline.spec.dtype:
        memory = scratch.decoded.reserve(view.size * pipeline.spec.dtype.itemsize)
        target = np.frombuffer(memory, pipeline.spec.dtype).reshape(view.shape)
    missing = fill(bytes_of(target))
    for number in missing:
        target[number] = pipeline.spec.fill_value
    if target is not view:
        np.copyto(view, target)


def chunks_view(out: Array, run: AnyRun, chunk_shape: tuple[int, ...]) -> Array:
    """The part of ``out`` that ``run`` is, with the chunks along a first axis of its own; always a view."""
    part: Array = out[run.out] if run.out else out  # an index of nothing would make a scalar of a scalar array
    if run.length == 1:
        return part.reshape((1, *chunk_shape)) if part.flags.c_contiguous else part[np.newaxis]
    axis = run.axis
    split = part.reshape((*part.shape[:axis], run.length, chunk_shape[axis], *part.shape[axis + 1 :]))
    return split.transpose((axis, *range(axis), *range(axis + 1, split.ndim)))


def decode_joined(fetcher: Fetcher, pipeline: CodecPipeline, run: AnyRun, memory: memoryview) -> list[int]:
    """Fetch chunks and decode them side by side into ``memory``, in one go if it can be; which of them are not stored."""
    if (joined := fetcher.fetch_joined(run)) is not None:
        data, sizes = joined
        stored = [size for size in sizes if size is not None]
        nbytes = pipeline.spec.nbytes
        if pipeline.decode_joined_into(data, stored, memory[: len(stored) * nbytes]):
            return spread(memory, nbytes, sizes)
    return decode_run(pipeline, run, fetcher.fetch_blocking(run), memory)


def decode_run(pipeline: CodecPipeline, run: AnyRun, fetched: Fetched, memory: memoryview) -> list[int]:
    """Decode chunks side by side into ``memory``; which of them are not stored."""
    nbytes, decode, missing, number = pipeline.spec.nbytes, pipeline.decode_bytes_into, [], 0
    try:
        for number, data in fetched:
            if data is None:
                missing.append(number)
            else:
                decode(data, memory[number * nbytes : (number + 1) * nbytes])
    except CodecError as error:
        error.coords = error.coords or run.chunk_coords()[number]
        raise
    return missing
