"""From encoded chunks to the ``Chunk`` objects that a stream hands out, one batch at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import numpy as np

from azarr.axis_plans import Part
from azarr.cached_chunk import CachedChunk
from azarr.chunk_sources import Batch, ChunkSource
from azarr.codecs.pipeline import CodecPipeline
from azarr.deferred import Deferred
from azarr.engine import Engine
from azarr.errors import CodecError, StreamTimeoutError
from azarr.observing import chunk_reads
from azarr.projections import AnyRun, Projection
from azarr.reading import located
from azarr.selection import AnySelection, PointSelection, Positions, Selection
from azarr.stores.base import AT_HAND_NBYTES
from azarr.types import Array, Buffer, Coords

if TYPE_CHECKING:
    from azarr.stream_info import ChunkInfo
else:  # what streams do without unless they are asked for it
    ChunkInfo = Deferred("azarr.stream_info", "ChunkInfo")


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


class Failure(NamedTuple):
    """A chunk that could not be had."""

    coords: Coords
    error: Exception


Outcome: TypeAlias = Chunk | Failure | None
"""What became of a chunk; ``None`` where it is not stored and such chunks are not wanted."""


Empty: TypeAlias = Callable[[tuple[int, ...], np.dtype[Any]], Array]
"""Makes an array of a shape and data type, as ``numpy.empty`` does."""

Encoded: TypeAlias = Buffer | CachedChunk | None
"""A chunk to be decoded, or that has been; ``None`` where it is not stored."""


class Fetched(NamedTuple):
    """The encoded chunks for ``places``, or why they could not be had, up to the first failure where only that matters."""

    places: list[Projection]
    chunks: list[Encoded | Failure]
    seconds: float
    """What fetching took for each."""


class ChunkReader(NamedTuple):
    """Reads batches of chunks, what is selected of them.

    ``tolerant``: a chunk that fails costs its neighbours nothing; else a batch ends with its first failure. ``missing``: chunks that are
    not stored are wanted as fill value. ``detailed``: chunks have an ``info``. ``function`` is applied to the data of every chunk.
    ``timeout`` is in seconds. ``through`` fetches chunks instead of the source, from a cache. ``plain`` says what ``is_plain`` does.
    """

    source: ChunkSource
    selection: AnySelection
    engine: Engine
    tolerant: bool = False
    missing: bool = True
    detailed: bool = False
    function: Callable[[Any], Any] | None = None
    timeout: float | None = None
    through: Callable[[Batch], Awaitable[list[Encoded | Failure]]] | None = None
    plain: bool = False

    def read(self, batch: Batch) -> list[Outcome]:
        """Fetch and decode; for workers, on a blocking store."""
        outcomes: list[Outcome] = []
        try:
            with chunk_reads(self.source, batch) as reads:
                for run in batch:
                    outcomes += self._read_run(run)
                    if self._failed(outcomes):
                        break
                reads.end(outcomes)
            return outcomes
        finally:
            del outcomes  # an error among them leads to this frame, which must not lead back

    def read_at_hand(self, batch: Batch) -> list[Outcome] | None:
        """As ``read``, on the loop; ``None`` where the store would have to wait for a chunk, or a worker finds out better what is wrong."""
        if self.engine.closed:
            return None
        outcomes: list[Outcome] = []
        try:
            for run in batch:
                for place in run.projections():
                    begun = time.perf_counter()
                    encoded = self.source.fetch_at_hand(place.coords, AT_HAND_NBYTES)
                    outcomes.append(self._outcome(place, encoded, time.perf_counter() - begun))
                    if self._failed(outcomes):
                        return outcomes
            return outcomes
        except Exception:  # noqa: BLE001 - the worker meets it again
            return None
        finally:
            del outcomes  # as above

    def _read_run(self, run: AnyRun) -> list[Outcome]:
        places = list(run.projections())
        found: dict[int, Outcome] = {}
        outcomes: list[Outcome] = []
        begun = time.perf_counter()
        try:
            for number, encoded in self.source.fetch_blocking(run):
                found[number] = self._outcome(places[number], encoded, time.perf_counter() - begun)
                begun = time.perf_counter()
        except Exception as error:  # noqa: BLE001 - of one chunk; with several it shows below of which
            if run.length == 1:
                return [Failure(run.coords, error)]
        try:
            if len(found) == run.length and (self.tolerant or Failure not in map(type, found.values())):
                return [found[number] for number in range(run.length)]
            for number in range(run.length):
                outcomes += [found[number]] if number in found else self._read_run(run.single(number))
                if self._failed(outcomes):
                    break
            return outcomes
        finally:
            del found, outcomes  # as above

    async def fetch(self, batch: Batch, decode: Callable[[Fetched], Awaitable[list[Outcome]]]) -> list[Outcome]:
        """Fetch on the loop, and have it decoded."""
        with chunk_reads(self.source, batch) as reads:
            outcomes = await self._fetch_and_decode(batch, decode)
            reads.end(outcomes)
        try:
            return outcomes
        finally:
            del outcomes  # as above

    async def _fetch_and_decode(self, batch: Batch, decode: Callable[[Fetched], Awaitable[list[Outcome]]]) -> list[Outcome]:
        places = [place for run in batch for place in run.projections()]
        begun = time.perf_counter()
        try:
            async with asyncio.timeout(self.timeout):
                chunks = await self._fetch(batch)
        except TimeoutError:
            return self.expired(batch)
        try:
            return await decode(Fetched(places, chunks, (time.perf_counter() - begun) / len(places)))
        finally:
            del chunks  # as above

    async def _fetch(self, batch: Batch) -> list[Encoded | Failure]:
        if self.through is not None:
            return await self.through(batch)
        runs = [run.single(number) for run in batch for number in range(run.length)]
        if len(runs) > 1:
            with suppress(Exception):  # of one of them, which shows below
                return [*await self.source.fetch(batch, self.engine.requests())]
        found: list[Encoded | Failure] = []
        try:
            for run in runs:
                found.append(await self._fetch_one(run))
                if self._failed(found):
                    break
            return found
        finally:
            del found  # as above

    async def _fetch_one(self, run: AnyRun) -> Encoded | Failure:
        try:
            (chunk,) = await self.source.fetch((run,), self.engine.requests())
        except Exception as error:  # noqa: BLE001 - on_error decides
            return Failure(run.coords, error)
        return chunk

    def decode(self, fetched: Fetched) -> list[Outcome]:
        """Decode what was fetched; for workers."""
        outcomes: list[Outcome] = []
        try:
            for place, chunk in zip(fetched.places, fetched.chunks, strict=False):
                outcomes.append(chunk if isinstance(chunk, Failure) else self._outcome(place, chunk, fetched.seconds))
                if self._failed(outcomes):
                    break
            return outcomes
        finally:
            del outcomes  # as above

    def decode_at_once(self, fetched: Fetched) -> list[Outcome] | None:
        """As ``decode``, on the loop; ``None`` where the engine has been closed, which a worker tells."""
        return None if self.engine.closed else self.decode(fetched)

    def expired(self, batch: Batch) -> list[Outcome]:
        """What comes of a batch that takes longer than the timeout."""
        return self._late([coords for run in batch for coords in run.chunk_coords()])

    def undecoded(self, fetched: Fetched) -> list[Outcome]:
        """What comes of chunks whose decoding takes longer than the timeout."""
        return self._late([place.coords for place in fetched.places])

    def _late(self, places: list[Coords]) -> list[Outcome]:
        return [Failure(coords, late(self.timeout, coords)) for coords in (places if self.tolerant else places[:1])]

    def _failed(self, outcomes: Sequence[object]) -> bool:
        return not self.tolerant and bool(outcomes) and isinstance(outcomes[-1], Failure)

    def _outcome(self, place: Projection, encoded: Encoded, seconds: float) -> Outcome:
        if encoded is None and not self.missing:
            return None
        begun = time.perf_counter()
        try:
            data = decode_data(self.source.pipeline_of(place.coords), place, encoded, self.engine.results.empty)
            chunk = Chunk(place.coords, place.out, data) if self.plain else arranged(self.selection, place, data)
            seconds += time.perf_counter() - begun
            if self.function is not None:
                chunk = replace(chunk, data=self.function(chunk.data))
        except Exception as error:  # noqa: BLE001 - whatever a codec of others or the user's function raises is about this chunk
            return Failure(place.coords, error)
        return replace(chunk, info=self._info(place.coords, encoded, seconds)) if self.detailed else chunk

    def _info(self, coords: Coords, encoded: Encoded, seconds: float) -> ChunkInfo:
        source, spec = self.source, self.source.pipeline_of(coords).spec
        bounds = source.region(coords)
        key = source.key(tuple(index // count for index, count in zip(coords, source.chunks_per_unit, strict=True)))
        shape = tuple(part.stop - part.start for part in bounds)
        nbytes = encoded.encoded_nbytes if isinstance(encoded, CachedChunk) else None if encoded is None else len(encoded)
        return ChunkInfo(key, bounds, shape, spec.shape, nbytes, spec.nbytes, seconds)


def late(timeout: float | None, coords: Coords) -> StreamTimeoutError:
    """The error of a chunk that takes longer than ``timeout`` seconds."""
    return StreamTimeoutError(f"the chunk was not there after {timeout} s; see the stream's timeout", coords=coords)


def decode_data(pipeline: CodecPipeline, place: Projection, encoded: Encoded, empty: Empty) -> Array:
    """The data that are selected of one chunk, with every axis of the array and forwards."""
    spec = pipeline.spec
    if encoded is None:
        return np.full(selected_shape(place, spec.shape), spec.fill, spec.dtype)
    if isinstance(encoded, CachedChunk):
        return encoded.data[place.chunk or ...].astype(spec.dtype, order="C")
    if place.full:
        return decode_own(pipeline, encoded, place.coords, empty)
    return located(pipeline.decode_scratch, encoded, place.coords)[place.chunk or ...].astype(spec.dtype, order="C")


def is_plain(selection: AnySelection) -> bool:
    """Whether chunks are handed out as they are read: with every axis of the array and forwards."""
    return isinstance(selection, Selection) and not selection.dropped and not selection.reversed


def arranged(selection: AnySelection, place: Projection, data: Array) -> Chunk:
    """A chunk with its data as the view has them."""
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


def decode_own(pipeline: CodecPipeline, data: Buffer, coords: Coords, empty: Empty) -> Array:
    """The chunk in memory of its own, which its receiver may keep and change; an error says which chunk it is about."""
    chunk = empty(pipeline.spec.shape, pipeline.spec.dtype)
    try:
        pipeline.decode_into(data, chunk)
    except CodecError as error:
        error.coords = error.coords or coords
        raise
    return chunk
