"""Chunk sources: where the encoded bytes of an array's chunks are, under keys of their own or inside shards.

The array above sees chunks and never learns of shards. A *unit* is what a store holds under one key: a chunk, or a shard.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from azarr.chunk_grids import ChunkGrid, RectilinearGrid
from azarr.chunk_keys import ChunkKeyEncoding
from azarr.chunk_lengths import ChunkLengths
from azarr.codecs import scratch
from azarr.codecs.base import wrong_size
from azarr.codecs.fields import FieldPipeline
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError
from azarr.new_chunks import encoded_chunks, encoded_or_none, patched
from azarr.observing import Observer, observed_copy
from azarr.projections import AnyPlan, AnyRun, Projection, SingleRun, lone_run, plan_of
from azarr.selection import AnySelection
from azarr.stores.base import BlockingStore, ListableStore, ReadableStore, Reserve, at_hand
from azarr.telemetry import Telemetry
from azarr.types import Array, Buffer, Coords

RUN_LENGTH = 1024
"""Chunks that are placed in one go at most, however small they are: a plan should not cost more memory than the data."""

JOINED_NBYTES = 65536
"""Room for what encoded chunks are longer than decoded ones, beside an eighth."""

PIPELINES = 1024
"""How many pipelines an array with chunks of many shapes keeps."""

Batch: TypeAlias = tuple[AnyRun, ...]

Place: TypeAlias = Callable[[CodecPipeline], CodecPipeline]
"""Answers a pipeline that does the same elsewhere."""


class Extent(NamedTuple):
    """The ``chunks`` that an operation is about, and the ``units`` that they lie in."""

    chunks: AnyPlan
    units: AnyPlan


class Piece(NamedTuple):
    """What is written to the ``unit`` of this projection: the part of ``values``, which stand where ``selection`` says, that lies in it."""

    unit: Projection
    selection: AnySelection
    values: Array


class Fetcher(Protocol):
    """What gets encoded chunks in a worker, by calls that block."""

    def fetch_blocking(self, run: AnyRun) -> Iterator[tuple[int, Buffer | None]]:
        """The encoded chunks of ``run`` with their numbers in it; each is valid until the next is asked for."""

    def copy_blocking(self, run: AnyRun, memory: memoryview) -> list[int]:
        """Copy chunks that nothing compresses side by side into ``memory``, and answer which of them are not stored."""

    def fetch_joined(self, run: AnyRun) -> tuple[memoryview, list[int | None]] | None:
        """The encoded chunks of ``run`` one behind the other, and their sizes, ``None`` where one is not stored.

        ``None`` where they are not to be had like that. A chunk that does not decode may be whole all the same, if it is fetched alone.
        """


class ChunkSource(Fetcher, Protocol):
    """Where the chunks of one array are."""

    store: Any
    pipeline: CodecPipeline
    """The pipeline of the chunks that the array above sees; of the largest, where they differ."""
    chunks: tuple[int | ChunkLengths, ...]
    """How long these chunks are along each axis."""
    unit_shape: tuple[int, ...]
    """The shape of what one key holds."""
    chunks_per_unit: tuple[int, ...]
    """How many chunks lie in a unit along each axis."""
    key_prefix: str
    """What all keys of the array begin with."""
    keys: ChunkKeyEncoding
    blocking: bool
    """Whether the store's calls block, and are made inside workers."""
    observer: Observer | None
    """Who tells what the operation does; ``None`` where nobody listens."""

    def pipeline_of(self, coords: Coords) -> CodecPipeline:
        """The pipeline of the chunk at ``coords``."""

    def of_field(self, field: tuple[str, ...]) -> ChunkSource:
        """The source of one field of the elements; the others keep their values where it is written."""

    def operation(self, telemetry: Telemetry, place: Place | None = None) -> ChunkSource:
        """The source for the time of one operation, which may remember what it has learnt of the units; ``telemetry`` hears of it.

        ``place`` chooses where the pipeline does its work.
        """

    def alone(self, selection: AnySelection) -> SingleRun | None:
        """The chunk that ``selection`` meets, if it is known at once to be only one."""

    def extent(self, selection: AnySelection) -> Extent:
        """The chunks and units that ``selection`` meets."""

    def batches(self, extent: Extent, *, request_nbytes: int, ordered: bool) -> Iterator[Batch]:
        """The chunks of ``extent`` in batches that are fetched together; ``ordered`` means in C order of the grid."""

    def key(self, unit: Coords) -> str:
        """The key of the unit at ``unit``."""

    def region(self, coords: Coords) -> tuple[slice, ...]:
        """The part of the array that the chunk at ``coords`` holds, cut at the array's edge."""

    def gathered(self, batch: Batch) -> Fetcher:
        """What gets the runs of ``batch``, in few calls of the store; for workers, good until they ask for another batch."""

    def fetch_at_hand(self, coords: Coords, limit: int, reserve: Reserve = ...) -> Buffer | None:
        """The encoded chunk at ``coords``; ``OSError`` where it might take time to get, or is longer than ``limit`` bytes.

        It may be in memory that ``reserve`` answers, by default scratch memory of this thread.
        """

    def fetch_single(self, run: SingleRun) -> Iterable[tuple[int, Buffer | None]]:
        """As ``fetch_blocking``, for the one chunk of an operation."""

    async def fetch(self, batch: Batch, requests: asyncio.Semaphore) -> list[Buffer | None]:
        """The encoded chunks of ``batch`` in its order."""

    def update(self, old: Buffer | None, pieces: Sequence[Piece]) -> Buffer | None:
        """A unit with ``pieces`` put in, one after the other; ``None`` where nothing but fill value is left of it."""

    @property
    def together(self) -> int:
        """How many units it is worth encoding in one go."""

    def encode_units(self, units: Sequence[Sequence[Piece]]) -> list[Buffer | None]:
        """As ``update`` of several units, of which nothing that is stored is kept, by their pieces."""


async def stored_units(source: ChunkSource, store: ListableStore | None = None) -> AsyncIterator[Coords]:
    """The units that are stored, as a listing of ``store`` has them, by default of the source's; units outside of the array, too."""
    start = source.key_prefix
    ndim = len(source.chunks_per_unit)
    async for key in (source.store if store is None else store).list_prefix(start):
        unit = source.keys.decode(key[len(start) :], ndim)
        if unit is not None:
            yield unit


def run_length(pipeline: CodecPipeline, request_nbytes: int) -> int:
    """How many chunks make a run."""
    return max(1, min(RUN_LENGTH, min(pipeline.run_nbytes, request_nbytes) // max(1, pipeline.spec.nbytes)))


def patches_of(pieces: Sequence[Piece]) -> list[tuple[Projection, Array]]:
    """What ``pieces`` put where in the chunk that their unit is."""
    return [(unit, values[unit.out or ...]) for unit, _, values in pieces]


def joined_nbytes(pipeline: CodecPipeline, count: int) -> int:
    """How many bytes so many encoded chunks may have to be decoded in one go: more than any that a codec would make."""
    decoded = count * pipeline.spec.nbytes
    return decoded + decoded // 8 + JOINED_NBYTES


def spread(memory: memoryview, nbytes: int, sizes: Sequence[int | None]) -> list[int]:
    """Move chunks of ``nbytes`` that lie one behind the other in ``memory`` to where they belong; which are missing, as ``sizes`` say."""
    missing = [number for number, size in enumerate(sizes) if size is None]
    position = (len(sizes) - len(missing)) * nbytes
    for number in range(len(sizes) - 1, missing[0] if missing else len(sizes), -1):
        if sizes[number] is not None:
            memory[number * nbytes : (number + 1) * nbytes] = memory[position - nbytes : position]
            position -= nbytes
    return missing


SourceT = TypeVar("SourceT", bound=ChunkSource)


def placed(source: SourceT, place: Place | None) -> SourceT:
    """``source``, but its pipeline does its work where ``place`` chooses."""
    pipeline = source.pipeline if place is None else place(source.pipeline)
    if pipeline is source.pipeline:
        return source
    twin = copy(source)
    twin.pipeline = pipeline
    return twin


class PlainChunks:
    """Every chunk under a key of its own; ``keep_fill`` means those of nothing but fill value, too."""

    observer: Observer | None = None

    def __init__(
        self,
        store: ReadableStore,
        prefix: str,
        keys: ChunkKeyEncoding,
        pipeline: CodecPipeline,
        grid: ChunkGrid,
        *,
        keep_fill: bool = False,
    ) -> None:
        self.store: Any = store
        self.blocking = isinstance(store, BlockingStore)
        self._at_hand = at_hand(store)
        self.pipeline = pipeline
        self.chunks: tuple[int | ChunkLengths, ...] = grid.chunk_lengths
        self.unit_shape = pipeline.spec.shape
        self.chunks_per_unit = (1,) * len(grid.shape)
        self.key_prefix, self.keys, self._grid, self._keep_fill = prefix, keys, grid, keep_fill

    def pipeline_of(self, coords: Coords) -> CodecPipeline:
        del coords
        return self.pipeline

    def of_field(self, field: tuple[str, ...]) -> PlainChunks:
        source = copy(self)
        source.pipeline = FieldPipeline(self.pipeline, field)
        return source

    def operation(self, telemetry: Telemetry, place: Place | None = None) -> PlainChunks:
        source = placed(self, place)
        return observed_copy(source, telemetry) if telemetry.active else source

    def alone(self, selection: AnySelection) -> SingleRun | None:
        return lone_run(selection, self.chunks, self._grid.shape)

    def extent(self, selection: AnySelection) -> Extent:
        plan = plan_of(selection, self.chunks, self._grid.shape)
        return Extent(plan, plan)

    def batches(self, extent: Extent, *, request_nbytes: int, ordered: bool) -> Iterator[Batch]:
        del ordered
        return ((run,) for run in extent.chunks.runs(run_length(self.pipeline, request_nbytes)))

    def key(self, unit: Coords) -> str:
        return self.key_prefix + self.keys.encode(unit)

    def region(self, coords: Coords) -> tuple[slice, ...]:
        return self._grid.region(coords)

    def _folder_and_names(self, run: AnyRun) -> tuple[str, list[str]] | None:
        """The keys of ``run`` as names in one folder, where they are that."""
        if run.length == 1 or run.axis != len(run.coords) - 1:
            return None
        row = self.keys.row_prefix(run.coords[:-1])
        if row is None:
            return None
        folder, slash, name = (self.key_prefix + row).rpartition("/")
        first = run.coords[-1]
        return folder + slash, [name + str(number) for number in range(first, first + run.length)]

    def fetch_blocking(self, run: AnyRun) -> Iterator[tuple[int, Buffer | None]]:
        reserve = scratch.encoded.reserve
        if (names := self._folder_and_names(run)) is not None:
            return enumerate(self.store.get_each(*names, reserve))
        get = self.store.get_blocking
        return ((number, get(self.key(coords), None, reserve)) for number, coords in enumerate(run.chunk_coords()))

    def fetch_single(self, run: SingleRun) -> Iterable[tuple[int, Buffer | None]]:
        return ((0, self.store.get_blocking(self.key(run.coords), None, scratch.encoded.reserve)),)

    def copy_blocking(self, run: AnyRun, memory: memoryview) -> list[int]:
        nbytes = self.pipeline_of(run.coords).spec.nbytes
        if (names := self._folder_and_names(run)) is not None:
            sizes = self.store.get_joined(*names, memory)
            if len(sizes) == run.length and {*sizes} <= {nbytes, None}:
                return spread(memory, nbytes, sizes)
        missing = []
        for number, coords in enumerate(run.chunk_coords()):
            size = self.store.get_into(self.key(coords), memory[number * nbytes : (number + 1) * nbytes])
            if size is None:
                missing.append(number)
            elif size != nbytes:
                error = wrong_size("bytes", size, nbytes)
                error.coords = coords
                raise error
        return missing

    def gathered(self, batch: Batch) -> Fetcher:
        del batch
        return self

    def fetch_joined(self, run: AnyRun) -> tuple[memoryview, list[int | None]] | None:
        if (names := self._folder_and_names(run)) is None:
            return None
        memory = scratch.encoded.reserve(joined_nbytes(self.pipeline_of(run.coords), run.length))
        sizes = self.store.get_joined(*names, memory)
        return (memory, sizes) if len(sizes) == run.length else None

    def fetch_at_hand(self, coords: Coords, limit: int, reserve: Reserve = scratch.encoded.reserve) -> Buffer | None:
        if self._at_hand is None or self.observer is not None:
            raise BlockingIOError("what the store has at hand cannot be told")
        return self._at_hand(self.key(coords), limit, reserve)

    async def fetch(self, batch: Batch, requests: asyncio.Semaphore) -> list[Buffer | None]:
        chunks = []
        for run in batch:
            for coords in run.chunk_coords():
                async with requests:
                    chunks.append(await self.store.get(self.key(coords)))
        return chunks

    def update(self, old: Buffer | None, pieces: Sequence[Piece]) -> Buffer | None:
        pipeline = self.pipeline_of(pieces[0].unit.coords)
        chunk = patched(pipeline, old, patches_of(pieces))
        return pipeline.whole.encode(chunk) if self._keep_fill else encoded_or_none(pipeline.whole, chunk)

    @property
    def together(self) -> int:
        return self.pipeline.together

    def encode_units(self, units: Sequence[Sequence[Piece]]) -> list[Buffer | None]:
        pipeline = self.pipeline
        chunks = ((number, pieces[0].unit.coords, patched(pipeline, None, patches_of(pieces))) for number, pieces in enumerate(units))
        encoded = dict(encoded_chunks(pipeline.whole, chunks, keep_fill=self._keep_fill))
        return [encoded.get(number) for number in range(len(units))]


class UnequalChunks(PlainChunks):
    """Every chunk under a key of its own, in a grid whose chunks differ in shape: each shape has a pipeline of its own."""

    def __init__(self, store: ReadableStore, prefix: str, keys: ChunkKeyEncoding, pipeline: CodecPipeline, grid: RectilinearGrid) -> None:
        super().__init__(store, prefix, keys, pipeline, grid)
        self._chunk_shape_at = grid.chunk_shape_at
        self._pipelines: dict[tuple[int, ...], CodecPipeline] = {}

    def of_field(self, field: tuple[str, ...]) -> PlainChunks:
        grid = cast("RectilinearGrid", self._grid)
        return UnequalChunks(self.store, self.key_prefix, self.keys, FieldPipeline(self.pipeline, field), grid)

    def operation(self, telemetry: Telemetry, place: Place | None = None) -> UnequalChunks:
        source = placed(self, place)
        if telemetry.active:
            source = observed_copy(source, telemetry)
        if source is not self:
            source._pipelines = {}  # those that are there tell nothing, and work here  # noqa: SLF001 - of the same class
        return source

    def pipeline_of(self, coords: Coords) -> CodecPipeline:
        shape = self._chunk_shape_at(coords)
        pipeline = self._pipelines.get(shape)
        if pipeline is None:
            if len(self._pipelines) >= PIPELINES:  # threads may come here at once, and then build one twice
                self._pipelines.clear()
            pipeline = self._pipelines[shape] = self.pipeline.rebound(replace(self.pipeline.spec, shape=shape))
        return pipeline

    @property
    def together(self) -> int:
        return 1  # neighbours may differ in shape

    def encode_units(self, units: Sequence[Sequence[Piece]]) -> list[Buffer | None]:
        return [self.update(None, pieces) for pieces in units]


@contextmanager
def about(coords: Coords) -> Iterator[None]:
    """Let the codec errors of the block say which chunk they are about."""
    try:
        yield
    except CodecError as error:
        error.coords = error.coords or coords
        raise
