"""Streams of slices: an array along one of its axes, a few planes at a time, each chunk read once however many slices cross it.

Blocks of planes are read ahead in a window, slices are put together from them.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, TypedDict, cast

import numpy as np

from azarr.chunk_lengths import places_of
from azarr.chunk_reader import Failure
from azarr.chunk_sources import ChunkSource, Extent, stored_units
from azarr.deferred import Deferred
from azarr.engine import Engine
from azarr.errors import SelectionError, StreamError, StreamTimeoutError
from azarr.progress import ProgressOption, progress_of
from azarr.projections import Plan
from azarr.runners import LOOP_SHARE, TaskRunner
from azarr.selection import AnySelection, AxisSelection, IndexSelection, PointSelection, Positions, Selection
from azarr.slice_assembly import Assembly, Block, Share, Target
from azarr.slice_plans import Blocks, Planes, Rows, key_of
from azarr.stores.base import ListableStore
from azarr.stream import ChunkStream, Counts, OnError, Stream
from azarr.streaming import ASKED_FOR, BATCH_NBYTES, FILTERED, TIMEOUT, StreamOptions, check, fingerprint_of, position
from azarr.types import Array, Coords
from azarr.window import Window

if TYPE_CHECKING:
    from azarr.stream_info import ChunkInfo, SliceInfo
else:  # what streams do without unless they are asked for it
    SliceInfo = Deferred("azarr.stream_info", "SliceInfo")

SHARE = 4
"""A slice that is so large a share of a block, or larger, is a part of it rather than a copy: who keeps it keeps no more than so much."""

INLINE_NBYTES = 64 * 2**10
"""Slices up to this size are put together on the loop, in microseconds; larger ones in a worker."""


class View(Protocol):
    """Planes of a view, which can be read at once or as chunks."""

    shape: tuple[int, ...]

    def read(self) -> Awaitable[Array]:
        """The planes."""

    def stream_chunks(self, **options: Any) -> ChunkStream:
        """Their chunks."""


Select: TypeAlias = Callable[[slice | Positions], Any]
"""Selects planes of a view, as a ``View``."""


class SliceOptions(TypedDict, total=False):
    """The keywords of ``stream_slices`` that streams of chunks have as well; ``AsyncArray.stream_slices`` says what they mean."""

    ordered: bool
    concurrency: int | None
    memory: int | None
    timeout: float | None
    filter: Callable[[int], bool] | None
    include_missing: bool
    metadata: bool
    on_error: OnError
    progress: ProgressOption
    start_after: int | str | None
    shard: int | None
    of: int | None


@dataclass(frozen=True, slots=True)
class Slice:
    """The planes from ``start`` up to, not including, ``stop`` along the axis that is streamed.

    ``region`` is where ``data`` belongs in the array or view that was streamed: ``result[region] = data`` puts it there. The data is the
    receiver's own; that of a slice of a quarter of a row of chunks, or more, may be a part of the row, which is in memory as long as any of
    its parts is. ``info`` is there where the stream was asked for it (``metadata=True``).
    """

    start: int
    stop: int
    region: tuple[slice | int, ...]
    data: Array
    info: SliceInfo | None = None

    @property
    def coords(self) -> Coords:
        """``start``, as a place."""
        return (self.start,)


class SliceStream(Stream[Slice, Window[Positions, list[Block]]]):
    """The slices of an array, one by one: ``async with array.stream_slices("time") as slices: async for each in slices: ...``."""

    def __init__(
        self,
        window: Window[Positions, list[Block]],
        total: int,
        *,
        planes: Planes,
        plan: Blocks,
        target: Target,
        engine: Engine,
        describe: Callable[[Slice, list[Block]], SliceInfo] | None,
        missing: bool,
        **options: Any,
    ) -> None:
        super().__init__(window, total, **options)
        self._planes, self._target, self._engine, self._describe, self._missing = planes, target, engine, describe, missing
        self._assembly = Assembly(planes, plan)
        self._apart = planes.starts.step >= planes.thickness
        self._rested = 0.0

    async def _outcome(self) -> Slice | Failure | None:
        while not self._assembly.ready:
            blocks = await self._window.take()
            self._assembly.add(blocks, self._target.weight(np.concatenate([block.positions for block in blocks])))
            self._window.release(self._assembly.freed())
            self._rested = time.perf_counter()
        low, high, crossed = self._assembly.take()
        self._window.release(self._assembly.freed())
        for block in crossed:
            if isinstance(block.data, Exception):
                return Failure((low,), block.data)
        if not self._missing and all(share.info.encoded_nbytes is None for share in shares_of(crossed, low, high)):
            return None
        made = self._slice(low, high, await self._data(crossed, low, high))
        return made if self._describe is None else replace(made, info=self._describe(made, crossed))

    async def _data(self, crossed: list[Block], low: int, high: int) -> Array:
        part = part_of(crossed[0], self._planes.axis, low, high) if len(crossed) == 1 and self._apart else None
        if part is not None:
            return part
        # Made here and not by a worker: C libraries keep what a thread took for that thread, which is a slice or two for each worker; and
        # what a worker answers, the loop holds on to until the receiver waits, even if the receiver has let go.
        data = self._target.room(high - low)
        if (high - low) * self._target.plane_nbytes > INLINE_NBYTES:
            await self._engine.call(self._target.fill, data, crossed, low)
            return data
        if time.perf_counter() - self._rested > LOOP_SHARE:
            await asyncio.sleep(0)
            self._rested = time.perf_counter()
        self._target.fill(data, crossed, low)
        return data

    def _slice(self, low: int, high: int, data: Array) -> Slice:
        axis, shape = self._planes.axis, self._target.shape
        before, after = shape[:axis], shape[axis + 1 :]
        place = low if self._planes.dropped else slice(low, high)
        region = (*(slice(0, length) for length in before), place, *(slice(0, length) for length in after))
        return Slice(low, high, region, data.reshape((*before, *after)) if self._planes.dropped else data)

    def _buffer(self) -> tuple[int, int, int]:
        waiting = [*self._assembly.waiting(), *(block for blocks in self._window.waiting() for block in blocks)]
        return self._window.running, len(waiting), sum(getattr(block.data, "nbytes", 0) for block in waiting)

    def _drop(self) -> None:
        self._assembly.clear()


def stream_slices(
    source: ChunkSource,
    selection: AnySelection,
    engine: Engine,
    planes: Planes,
    select: Select,
    dtype: np.dtype[Any],
    options: SliceOptions,
) -> SliceStream:
    """The slices that ``planes`` describes of a view, read by ``select``; must be called on the loop that the stream is used on."""
    check(cast("StreamOptions", options), SliceOptions)
    if isinstance(selection, PointSelection):
        raise SelectionError("points have no planes; stream their chunks, or select with oindex")
    of_array = [number for number, axis in enumerate(selection.axes) if not axis.dropped][planes.axis]
    extent, length = source.extent(selection.forward()), selection.shape[planes.axis]
    backwards = of_array in selection.reversed
    rows = Rows(cast("Plan", extent.chunks).axes[of_array], length, backwards=backwards)
    fingerprint = partial(fingerprint_of, source, selection, cast("StreamOptions", options), str(planes))
    units = Rows(cast("Plan", extent.units).axes[of_array], length, backwards=backwards)
    planes = planes._replace(starts=rest(share(planes.starts, units, options), options, fingerprint))
    missing, detailed = options.get("include_missing", True), options.get("metadata", False)
    keys = min(extent.units.nchunks, extent.chunks.nchunks)
    listed = not missing and keys > ASKED_FOR and isinstance(source.store, ListableStore)
    stored = StoredPlanes(source, extent, selection, of_array) if listed else None

    across = math.prod(axis.count for number, axis in enumerate(cast("Plan", extent.chunks).axes) if number != of_array)
    sizes = Sizes.of(source, engine, Target(selection.shape, dtype, planes.axis, 1), planes, rows, options, across)
    counts = Counts()
    plan = Blocks(
        planes,
        rows,
        sizes.longest,
        sizes.enough,
        counts=counts,
        keep=options.get("filter"),
        stored=None if stored is None else stored.has,
    )
    timeout, concurrency = options.get("timeout", TIMEOUT), options.get("concurrency") or engine.concurrency
    reader = Reader(
        select,
        rows,
        None if timeout is None else timeout * -(-across // concurrency),
        sizes.target,
        engine if detailed or not missing else None,
        options.get("concurrency"),
        counts,
    )
    heaviest = max(sizes.target.least, sizes.longest * sizes.target.plane_nbytes)
    ordered = options.get("ordered", True)
    return SliceStream(
        Window(
            iter(plan), TaskRunner(counts.counting(reader.read)), sizes.limit, ordered=ordered, weigh=sizes.target.weight, heaviest=heaviest
        ),
        len(planes.starts),
        planes=planes,
        plan=plan,
        target=sizes.target,
        engine=engine,
        describe=partial(described, selection, of_array) if detailed else None,
        missing=missing,
        counts=counts,
        fingerprint=fingerprint,
        ordered=ordered,
        on_error=options.get("on_error", "raise"),
        progress=progress_of(options.get("progress"), "slices"),
        prepare=None if stored is None else stored.list,
        observer=source.operation(engine.telemetry).observer,
    )


class Sizes(NamedTuple):
    """How large blocks are, in planes: ``longest`` at most, those of several rows up to ``enough``; and the ``limit`` of the window."""

    target: Target
    longest: int
    enough: int
    limit: int

    @classmethod
    def of(
        cls, source: ChunkSource, engine: Engine, target: Target, planes: Planes, rows: Rows, options: SliceOptions, across: int
    ) -> Sizes:
        """The sizes for a view of which ``across`` chunks lie side by side in a row."""
        memory = options.get("memory") or engine.memory
        if options.get("metadata", False) or not options.get("include_missing", True):
            memory //= 2  # while a block is put together from chunks, both are there
        free = max(1, memory // target.plane_nbytes - planes.thickness)  # in planes, besides the slice itself
        # a row that fits is read at once, for each chunk is then decoded once; else two parts of a row at a time
        longest = rows.longest if rows.longest <= free else max(1, free // 2)
        # a job for every small row would cost more than the row, where nothing is awaited that another could use
        enough = min(free // 2, BATCH_NBYTES // target.plane_nbytes) if source.blocking else 0
        longest = max(longest, enough)
        limit = max(longest, free - longest) * target.plane_nbytes
        concurrency = options.get("concurrency") or engine.concurrency
        return cls(target._replace(least=max(1, limit * across // max(across, concurrency))), longest, enough, limit)


def part_of(block: Block, axis: int, low: int, high: int) -> Array | None:
    """The planes from ``low`` to ``high`` as a part of ``block``, if it has them in one piece and they are a good share of it."""
    data, (first, last) = block.data, (bisect_left(block.positions, bound) for bound in (low, high))
    if not isinstance(data, np.ndarray) or last - first < high - low or SHARE * (high - low) < data.shape[axis]:
        return None
    part: Array = data[(*(slice(None),) * axis, slice(first, last))]
    return part if part.flags.c_contiguous else None


class StoredPlanes:
    """Of which planes of a view something is stored, found by listing the units that the view meets."""

    def __init__(self, source: ChunkSource, extent: Extent, selection: Selection, axis: int) -> None:
        self._source, self._extent, self._selection, self._axis = source, extent, selection.axes[axis], axis
        self._rows: set[int] = set()

    async def list(self) -> None:
        """Ask the store."""
        number = 0
        async for unit in stored_units(self._source):
            if unit[self._axis] not in self._rows and self._extent.units.has(unit):
                self._rows.add(unit[self._axis])
            number += 1
            if number % FILTERED == 0:  # some stores have all keys at hand
                await asyncio.sleep(0)

    def has(self, low: int, high: int) -> bool:
        """Whether something is stored of the planes from ``low`` to ``high``."""
        chunks = places_of(self._selection.take(np.arange(low, high)), self._source.chunks[self._axis])
        units = np.unique(chunks // self._source.chunks_per_unit[self._axis])
        return not self._rows.isdisjoint(units.tolist())


class Reader(NamedTuple):
    """Reads blocks, within ``seconds`` each; chunk by chunk, with what is known of the chunks, where there is an ``engine``."""

    select: Select
    rows: Rows
    seconds: float | None
    target: Target
    engine: Engine | None
    concurrency: int | None
    counts: Counts

    async def read(self, positions: Positions) -> list[Block]:
        """The block of these planes with its data; row by row where something is wrong with it."""
        whole = await self._planes(positions)
        if isinstance(whole.data, Exception) and len(parts := self.rows.split(positions)) > 1:
            return [await self._planes(part) for part in parts]
        return [whole]

    async def _planes(self, positions: Positions) -> Block:
        try:
            view: View = self.select(key_of(positions))
            async with asyncio.timeout(self.seconds):
                if self.engine is None:
                    return Block(positions, await view.read())
                return await self._chunks(view, positions, self.engine)
        except TimeoutError:
            low, high = int(positions[0]), int(positions[-1])
            message = f"the planes from {low} to {high} were not there after {self.seconds} s; see the stream's timeout"
            return Block(positions, StreamTimeoutError(message, coords=(low,)))
        except Exception as error:  # noqa: BLE001 - belongs to the slices that it is about
            return Block(positions, error)

    async def _chunks(self, view: View, positions: Positions, engine: Engine) -> Block:
        data, shares = np.empty(view.shape, self.target.dtype), []
        # what waits here of chunks is never more than the block
        async with view.stream_chunks(ordered=False, metadata=True, timeout=None, concurrency=self.concurrency) as chunks:
            async for chunk in chunks:
                if chunk.data.nbytes > INLINE_NBYTES:
                    await engine.call(data.__setitem__, chunk.region, chunk.data)
                else:
                    data[chunk.region] = chunk.data
                part = chunk.region[self.target.axis]
                mine = positions[part if isinstance(part, slice) else np.sort(part, axis=None)]
                shares.append(Share(mine, chunk.coords, cast("ChunkInfo", chunk.info)))
        self.counts.retries += chunks.stats.retries
        return Block(positions, data, shares)


def shares_of(blocks: list[Block], low: int, high: int) -> list[Share]:
    """What the planes from ``low`` to ``high`` have of chunks; one chunk may be there several times, if it was read in parts."""
    return [share for block in blocks for share in block.shares if share.has(low, high)]


def described(selection: Selection, axis: int, made: Slice, blocks: list[Block]) -> SliceInfo:
    """What is known of the slice that was made of ``blocks``, along ``axis`` of the array."""
    shares = shares_of(blocks, made.start, made.stop)
    chunks = {share.coords: share.info for share in shares}.values()
    stored = [info.encoded_nbytes for info in chunks if info.encoded_nbytes is not None]
    spans = [(made.start, made.stop) if number == axis else (0, each.length) for number, each in enumerate(selection.axes)]
    return SliceInfo(
        bounds=tuple(bounds_of(each, *span) for each, span in zip(selection.axes, spans, strict=True)),
        shape=made.data.shape,
        chunks=len(chunks),
        encoded_nbytes=sum(stored) if stored else None,
        decoded_nbytes=sum(info.decoded_nbytes for info in chunks),
        seconds=sum(share.info.seconds for share in shares),
    )


def bounds_of(axis: AxisSelection | IndexSelection, low: int, high: int) -> slice:
    """The part of the array that the elements from ``low`` to ``high`` of a selection lie in."""
    if low == high:
        return slice(0, 0)
    places = axis.take(np.arange(low, high) if isinstance(axis, IndexSelection) else np.array([low, high - 1]))
    return slice(int(places.min()), int(places.max()) + 1)


def share(starts: range, units: Rows, options: SliceOptions) -> range:
    """The slices that begin in this share of the rows of units."""
    shard, of = options.get("shard"), options.get("of")
    if shard is None or of is None:
        return starts
    first, last = (number * units.count // of for number in (shard, shard + 1))
    if first == last:
        return starts[:0]
    return starts[bisect_left(starts, units.bounds(first)[0]) : bisect_left(starts, units.bounds(last - 1)[1])]


def rest(starts: range, options: SliceOptions, fingerprint: Callable[[], str]) -> range:
    """The slices that come after the one that ``start_after`` names."""
    after = options.get("start_after")
    if after is None:
        return starts
    place = position(after, fingerprint) if isinstance(after, str) else (after,)
    if len(place) != 1:
        raise StreamError(f"{after!r:.100} is not a token of a stream of slices")
    return starts[bisect_right(starts, place[0]) :]
