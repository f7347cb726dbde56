"""From encoded chunks to the ``Chunk`` objects that a stream hands out, one batch at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeAlias, cast

import numpy as np

from azarr.axis_plans import Part
from azarr.chunk_sources import Batch, ChunkSource
from azarr.codecs.pipeline import CodecPipeline
from azarr.engine import Engine
from azarr.errors import StreamTimeoutError
from azarr.projections import AnyRun, Projection
from azarr.reading import located
from azarr.selection import AnySelection, PointSelection, Positions, Selection
from azarr.types import Array, Buffer, Coords


@dataclass(frozen=True, slots=True)
class ChunkInfo:
    """What is known of a streamed chunk besides its data.

    ``key`` is where the store has it (a shard's key for the chunks inside), ``bounds`` the part of the array that it holds, cut at the
    array's edge, ``shape`` the shape of that, and ``stored_shape`` the shape of the chunk as it is stored, which may hang over the edge.
    ``encoded_nbytes`` is ``None`` where the chunk is not stored and reads as fill value; ``decoded_nbytes`` is the size of the whole
    chunk. ``seconds`` is the time spent on fetching and decoding it; chunks that are fetched together share that time equally.
    """

    key: str
    bounds: tuple[slice, ...]
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...]
    encoded_nbytes: int | None
    decoded_nbytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """A decoded chunk, or the part of it that was selected.

    ``coords`` is its place in the array's chunk grid, ``region`` where ``data`` belongs in the array or view that was streamed:
    ``result[region] = data`` puts it there. The region has slices, or, where indices or points were selected, arrays of positions. The
    data is the receiver's own. ``info`` is there where the stream was asked for it (``metadata=True``).
    """

    coords: Coords
    region: tuple[Part, ...]
    data: Any
    info: ChunkInfo | None = None


@dataclass(frozen=True, slots=True)
class Failure:
    """A chunk that could not be had."""

    coords: Coords
    error: Exception


Outcome: TypeAlias = Chunk | Failure | None
"""What became of a chunk; ``None`` where it is not stored and such chunks are not wanted."""


@dataclass(frozen=True, slots=True)
class ChunkReader:
    """Reads batches of chunks, what is selected of them.

    ``tolerant``: a chunk that fails costs its neighbours nothing; else a batch ends with its first failure. ``missing``: chunks that are
    not stored are wanted as fill value. ``detailed``: chunks have an ``info``. ``function`` is applied to the data of every chunk.
    ``timeout`` is in seconds.
    """

    source: ChunkSource
    selection: AnySelection
    engine: Engine
    tolerant: bool = False
    missing: bool = True
    detailed: bool = False
    function: Callable[[Any], Any] | None = None
    timeout: float | None = None

    def read(self, batch: Batch) -> list[Outcome]:
        """Fetch and decode; for workers, on a blocking store."""
        outcomes: list[Outcome] = []
        for run in batch:
            outcomes += self._read_run(run)
            if self._failed(outcomes):
                break
        return outcomes

    def _read_run(self, run: AnyRun) -> list[Outcome]:
        places = list(run.projections())
        found: dict[int, Outcome] = {}
        begun = time.perf_counter()
        try:
            for number, encoded in self.source.fetch_blocking(run):
                found[number] = self._outcome(places[number], encoded, time.perf_counter() - begun)
                begun = time.perf_counter()
        except Exception as error:  # noqa: BLE001 - belongs to the chunks that are not there
            if self.tolerant and run.length > 1:
                for number in range(run.length):
                    if number not in found:
                        (found[number],) = self._read_run(run.single(number))
            return self._in_order(places, found, error)
        return self._in_order(places, found, None)

    async def fetch(self, batch: Batch) -> list[Outcome]:
        """Fetch on the loop and decode in a worker."""
        try:
            async with asyncio.timeout(self.timeout):
                return await self._fetch(batch)
        except TimeoutError:
            coords = [each for run in batch for each in run.chunk_coords()]
            return [Failure(each, self._late(each)) for each in (coords if self.tolerant else coords[:1])]

    def expired(self, batch: Batch) -> list[Outcome]:
        """What comes of a batch that a worker has been at for longer than the timeout."""
        coords = [each for run in batch for each in run.chunk_coords()]
        return [Failure(each, self._late(each)) for each in (coords if self.tolerant else coords[:1])]

    async def _fetch(self, batch: Batch) -> list[Outcome]:
        begun = time.perf_counter()
        try:
            fetched = await self.source.fetch(batch, self.engine.requests())
        except Exception as error:  # noqa: BLE001 - belongs to the chunks that are not there
            runs = [run.single(number) for run in batch for number in range(run.length)]
            if self.tolerant and len(runs) > 1:
                return [outcome for run in runs for outcome in await self._fetch((run,))]
            return [Failure(runs[0].coords, error)]
        places = [place for run in batch for place in run.projections()]
        return await self.engine.call(self._decode, places, fetched, (time.perf_counter() - begun) / len(fetched))

    def _decode(self, places: list[Projection], fetched: list[Buffer | None], seconds: float) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for place, encoded in zip(places, fetched, strict=True):
            outcomes.append(self._outcome(place, encoded, seconds))
            if self._failed(outcomes):
                break
        return outcomes

    def _failed(self, outcomes: list[Outcome]) -> bool:
        return not self.tolerant and bool(outcomes) and isinstance(outcomes[-1], Failure)

    def _in_order(self, places: list[Projection], found: dict[int, Outcome], error: Exception | None) -> list[Outcome]:
        """The outcomes by number; ``error`` is that of chunks without one. Not tolerant: up to the first failure."""
        outcomes: list[Outcome] = []
        try:
            for number, place in enumerate(places):
                if number not in found and error is not None:
                    found[number] = Failure(place.coords, error)
                outcomes.append(found[number])
                if self._failed(outcomes):
                    break
            return outcomes
        finally:
            del error  # it leads to the frame of the caller, which must not lead back

    def _outcome(self, place: Projection, encoded: Buffer | None, seconds: float) -> Outcome:
        if encoded is None and not self.missing:
            return None
        begun = time.perf_counter()
        try:
            chunk = decode_chunk(self.source.pipeline_of(place.coords), self.selection, place, encoded)
            if self.function is not None:
                chunk = replace(chunk, data=self.function(chunk.data))
        except Exception as error:  # noqa: BLE001 - whatever a codec of others or the user's function raises is about this chunk
            return Failure(place.coords, error)
        return replace(chunk, info=self._info(place.coords, encoded, seconds + time.perf_counter() - begun)) if self.detailed else chunk

    def _info(self, coords: Coords, encoded: Buffer | None, seconds: float) -> ChunkInfo:
        source, spec = self.source, self.source.pipeline_of(coords).spec
        bounds = source.region(coords)
        key = source.key(tuple(index // count for index, count in zip(coords, source.chunks_per_unit, strict=True)))
        shape = tuple(part.stop - part.start for part in bounds)
        return ChunkInfo(key, bounds, shape, spec.shape, None if encoded is None else len(encoded), spec.nbytes, seconds)

    def _late(self, coords: Coords) -> StreamTimeoutError:
        return StreamTimeoutError(f"the chunk was not there after {self.timeout} s; see the stream's timeout", coords=coords)


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
