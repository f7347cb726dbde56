"""Chunks inside shards (Zarr v3, "sharding-indexed"): found through the index of their shard, and read alone.

Whoever reads while others write sees each chunk as it was or as it is: where the store can tell that a shard was replaced between
its index and its chunks, both are read again. Where it can tell that, an index is also remembered from one operation to the next, and the
chunks that it leads to show whether it is still the right one: then reading one of them is one request.
"""

from __future__ import annotations

import asyncio
import heapq
import operator
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

from azarr.chunk_grids import RegularGrid
from azarr.chunk_keys import ChunkKeyEncoding
from azarr.chunk_lengths import ChunkLengths
from azarr.chunk_sources import Batch, Extent, Fetcher, Piece, Place, about, joined_nbytes, placed, run_length
from azarr.codecs import scratch
from azarr.codecs.fields import FieldPipeline
from azarr.codecs.pipeline import CodecPipeline
from azarr.codecs.sharding import NewShard, ShardIndex, ShardLayout
from azarr.errors import CodecError, TransientStoreError
from azarr.new_chunks import encoded_chunks, patched
from azarr.observing import Observer, observed_copy
from azarr.projections import AnyRun, Projection, SingleRun, lone_run, plan_of
from azarr.selection import AnySelection
from azarr.shard_parts import Gathered, Placed, Ranges, copied, cut, reserve_part
from azarr.stores.base import BlockingStore, ReadableStore, Reserve, Stamped, stamped
from azarr.stores.memory import Same
from azarr.stores.merging import merge, span_of
from azarr.telemetry import Telemetry
from azarr.types import Array, Buffer, ByteRange, Coords, Span

INDEXES_NBYTES = 16 * 2**20
"""What one operation keeps of shard indexes, and what an array remembers of them afterwards."""

NEAR = 64 * 2**10
"""Bytes between two chunks that a store whose calls block reads along with them sooner than it answers another call."""

ENTRY_NBYTES = 256
"""What it takes to remember that there is no shard."""

ATTEMPTS = 100
"""How often a shard is read again because it was replaced meanwhile."""


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """The index of a shard, ``None`` where there is no shard, and the stamp of the shard that it was read of.

    ``remembered`` means that it was read by an earlier operation, and only an equal stamp shows that it is right.
    """

    index: ShardIndex | None
    stamp: Any = None
    remembered: bool = False

    @property
    def nbytes(self) -> int:
        """What it takes to remember it."""
        return ENTRY_NBYTES if self.index is None else self.index.nbytes

    def fits(self, found: Stamped) -> bool:
        """Whether what was found is of the same shard, as far as the store can tell."""
        if found.value is None:
            return False
        return found.stamp == self.stamp or (not self.remembered and None in (found.stamp, self.stamp))

    def where(self, number: int) -> Span | None:
        """Where inner chunk ``number`` is, if the index says so and that makes sense."""
        try:
            return None if self.index is None else self.index.span(number)
        except CodecError:
            return None

    def lasting(self) -> Located | None:
        """What may be remembered of it: that there is no shard cannot be verified later, nor where a stamp keeps a value in memory."""
        if self.index is None or self.stamp is None or isinstance(self.stamp, Same):
            return None
        return replace(self, remembered=True)


class ShardIndexes:
    """The indexes of shards that have been met, the latest of them within a bound in bytes; for threads and tasks."""

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._indexes: OrderedDict[Coords, Located] = OrderedDict()
        self._nbytes = 0

    def get(self, unit: Coords) -> Located | None:
        """The index of ``unit``, if it is known."""
        with self._mutex:
            if unit not in self._indexes:
                return None
            self._indexes.move_to_end(unit)
            return self._indexes[unit]

    def put(self, unit: Coords, located: Located) -> None:
        """Remember the index of ``unit``."""
        with self._mutex:
            self._forget(unit)
            self._indexes[unit] = located
            self._nbytes += located.nbytes
            while self._nbytes > INDEXES_NBYTES and len(self._indexes) > 1:
                self._forget(next(iter(self._indexes)))

    def forget(self, unit: Coords, located: Located) -> None:
        """Forget the index of ``unit``, if it is this one."""
        with self._mutex:
            kept = self._indexes.get(unit)
            if kept is not None and kept.index is located.index:
                self._forget(unit)

    def _forget(self, unit: Coords) -> None:
        old = self._indexes.pop(unit, None)
        if old is not None:
            self._nbytes -= old.nbytes


class NoIndexes(ShardIndexes):
    """Keeps nothing, as nothing is known outside of an operation."""

    def put(self, unit: Coords, located: Located) -> None:
        del unit, located


class ShardedChunks:
    """Chunks inside shards: units that hold ``layout.grid_shape`` chunks each."""

    observer: Observer | None = None

    def __init__(
        self,
        store: ReadableStore,
        prefix: str,
        keys: ChunkKeyEncoding,
        layout: ShardLayout,
        shape: tuple[int, ...],
        remembered: ShardIndexes | None = None,
    ) -> None:
        self.store: Any = store
        self.blocking = isinstance(store, BlockingStore)
        self.pipeline = layout.pipeline
        self.chunks: tuple[int | ChunkLengths, ...] = layout.pipeline.spec.shape
        self.unit_shape = layout.shape
        self.chunks_per_unit = layout.grid_shape
        self.key_prefix, self.keys, self._layout, self._shape = prefix, keys, layout, shape
        self._remembered = ShardIndexes() if remembered is None else remembered
        self._indexes: ShardIndexes = NoIndexes()
        """What this operation has read. An index is trusted no longer, as other writers may replace the shard afterwards."""
        self._fetching: dict[Coords, asyncio.Lock] = {}

    def pipeline_of(self, coords: Coords) -> CodecPipeline:
        del coords
        return self.pipeline

    def of_field(self, field: tuple[str, ...]) -> ShardedChunks:
        layout = self._layout.with_pipeline(FieldPipeline(self.pipeline, field))
        return ShardedChunks(self.store, self.key_prefix, self.keys, layout, self._shape, self._remembered)

    def operation(self, telemetry: Telemetry, place: Place | None = None) -> ShardedChunks:
        fresh = copy(self)
        fresh.__dict__.update(_indexes=ShardIndexes(), _fetching={})
        fresh = placed(fresh, place)
        return observed_copy(fresh, telemetry) if telemetry.active else fresh

    def alone(self, selection: AnySelection) -> SingleRun | None:
        return lone_run(selection, self.chunks, self._shape)

    def extent(self, selection: AnySelection) -> Extent:
        chunks = plan_of(selection, self.pipeline.spec.shape, self._shape)
        return Extent(chunks, plan_of(selection, self.unit_shape, self._shape))

    def batches(self, extent: Extent, *, request_nbytes: int, ordered: bool) -> Iterator[Batch]:
        longest, per_shard = run_length(self.pipeline, request_nbytes), self.chunks_per_unit
        if ordered:
            yield from ((run,) for run in extent.chunks.runs(longest, align=per_shard))
            return
        most = max(1, request_nbytes // max(1, self.pipeline.spec.nbytes))
        for unit in extent.units.projections():
            batch: list[AnyRun] = []
            for run in extent.chunks.within(unit, per_shard).runs(longest):
                if batch and sum(other.length for other in batch) + run.length > most:
                    yield tuple(batch)
                    batch = []
                batch.append(run)
            yield tuple(batch)

    def key(self, unit: Coords) -> str:
        return self.key_prefix + self.keys.encode(unit)

    def region(self, coords: Coords) -> tuple[slice, ...]:
        return RegularGrid(self._shape, self.pipeline.spec.shape).region(coords)

    def _unit(self, coords: Coords) -> Coords:
        return tuple([index // count for index, count in zip(coords, self.chunks_per_unit, strict=True)])

    def _locate(self, located: Located, coords: Sequence[Coords], wanted: Sequence[int]) -> Ranges:
        """Where the chunks with the numbers ``wanted`` among ``coords`` are; those that are not stored are left out."""
        if located.index is None:
            return []
        try:
            spans = located.index.spans([self._layout.number(coords[number]) for number in wanted])
        except CodecError:
            for number in wanted:
                with about(coords[number]):
                    located.index.spans([self._layout.number(coords[number])])
            raise
        return [(number, span) for number, span in zip(wanted, spans, strict=True) if span is not None]

    def _known(self, unit: Coords, coords: Sequence[Coords], wanted: Sequence[int]) -> tuple[Located, Ranges] | None:
        """The index that this operation has of ``unit``, or one that is remembered and says where all chunks are that are wanted."""
        located = self._indexes.get(unit)
        if located is not None:
            return located, self._locate(located, coords, wanted)
        located = self._remembered.get(unit)
        if located is not None:
            with suppress(CodecError):  # what is wrong with it may not be so any more
                ranges = self._locate(located, coords, wanted)
                if len(ranges) == len(wanted):
                    return located, ranges
        return None

    def _learn(self, unit: Coords, located: Located) -> Located:
        """Keep an index that has just been read."""
        self._indexes.put(unit, located)
        if (lasting := located.lasting()) is not None:
            self._remembered.put(unit, lasting)
        return located

    def _fits(self, unit: Coords, located: Located, found: Stamped) -> bool:
        """Whether what was found is of the shard of the index, which is forgotten if it is not."""
        if located.fits(found):
            if located.remembered:
                self._indexes.put(unit, located)
            return True
        self._indexes.forget(unit, located)
        self._remembered.forget(unit, located)
        return False

    def fetch_blocking(self, run: AnyRun) -> Iterator[tuple[int, Buffer | None]]:
        coords = run.chunk_coords()
        unit = self._unit(coords[0])
        store, key, wanted = cast("BlockingStore", self.store), self.key(unit), list(range(run.length))
        left: set[int] = set()
        for _ in range(ATTEMPTS):
            located, ranges = self._known(unit, coords, wanted) or self._index_blocking(unit, coords, wanted)
            left = {number for number, _ in ranges}
            yield from ((number, None) for number in wanted if number not in left)
            for merged in merge(ranges, NEAR):
                where = span_of(merged)
                found = store.get_stamped_blocking(key, ByteRange(*where), scratch.encoded.reserve)
                if not self._fits(unit, located, found):
                    break
                yield from cut(found.value, merged, where.start, coords)
                left.difference_update(number for number, _ in merged)
            if not left:
                return
            wanted = sorted(left)
        raise self._restless(key)

    def fetch_single(self, run: SingleRun) -> Iterable[tuple[int, Buffer | None]]:
        # All that several chunks need, a source for the operation among it, would be a third of the time that one takes. Whatever is not
        # as remembered is left to that.
        unit = self._unit(run.coords)
        located = self._remembered.get(unit)
        where = None if located is None else located.where(self._layout.number(run.coords))
        if located is None or where is None:
            return self.fetch_blocking(run)
        found = cast("BlockingStore", self.store).get_stamped_blocking(self.key(unit), ByteRange(*where), scratch.encoded.reserve)
        if found.value is None or found.stamp != located.stamp or len(found.value) != where.stop - where.start:
            return self.fetch_blocking(run)
        return ((0, found.value),)

    def _restless(self, key: str) -> TransientStoreError:
        return TransientStoreError(f"{key!r} was replaced each time while it was read, {ATTEMPTS} times: let its writers pause", key=key)

    def copy_blocking(self, run: AnyRun, memory: memoryview) -> list[int]:
        return copied(self.fetch_blocking(run), run, self.pipeline.spec.nbytes, memory)

    def fetch_joined(self, run: AnyRun) -> tuple[memoryview, list[int | None]] | None:
        del run
        return None  # what is to be had like that has been gathered

    def gathered(self, batch: Batch) -> Fetcher:
        if len(batch) == 1 and batch[0].length == 1:
            return self
        coords = [each for run in batch for each in run.chunk_coords()]
        unit = self._unit(coords[0])
        store, key, wanted = cast("BlockingStore", self.store), self.key(unit), range(len(coords))
        located, ranges = self._known(unit, coords, wanted) or self._index_blocking(unit, coords, wanted)
        groups = list(merge(ranges, NEAR))
        spans = list(map(span_of, groups))
        total, filled = sum(where.stop - where.start for where in spans), 0
        if total > joined_nbytes(self.pipeline, len(coords)):
            return self
        chunks: dict[Coords, Placed] = {}
        for group, where in zip(groups, spans, strict=True):
            found = store.get_stamped_blocking(key, ByteRange(*where), partial(reserve_part, total, filled))
            if not self._fits(unit, located, found):
                return self  # which reads until nobody comes between
            data, begin = memoryview(cast("Buffer", found.value)), where.start
            for number, each in group:
                chunks[coords[number]] = Placed(data, each.start - begin, each.stop - begin)
            filled += where.stop - begin
        return Gathered(chunks, self.pipeline.spec.nbytes)

    def fetch_at_hand(self, coords: Coords, limit: int, reserve: Reserve = scratch.encoded.reserve) -> Buffer | None:
        del reserve
        raise BlockingIOError(f"the chunk {coords} of at most {limit} bytes is in a shard, whose index comes first")

    def _index_blocking(self, unit: Coords, coords: Sequence[Coords], wanted: Sequence[int]) -> tuple[Located, Ranges]:
        found = cast("BlockingStore", self.store).get_stamped_blocking(self.key(unit), self._layout.index_request)
        located = self._learn(unit, self._decoded(found, coords[0]))
        return located, self._locate(located, coords, wanted)

    def _decoded(self, found: Stamped, coords: Coords) -> Located:
        with about(coords):
            return Located(None if found.value is None else self._layout.decode_index(found.value), found.stamp)

    async def fetch(self, batch: Batch, requests: asyncio.Semaphore) -> list[Buffer | None]:
        coords = [each for run in batch for each in run.chunk_coords()]
        chunks: list[Buffer | None] = [None] * len(coords)
        unit = self._unit(coords[0])
        key, wanted = self.key(unit), list(range(len(coords)))
        for _ in range(ATTEMPTS):
            located, ranges = self._known(unit, coords, wanted) or await self._index(unit, coords, wanted, requests)
            left = {number for number, _ in ranges}
            for merged in merge(ranges):
                where = span_of(merged)
                async with requests:
                    found = await stamped(self.store, key, ByteRange(*where))
                if not self._fits(unit, located, found):
                    break
                for number, chunk in cut(found.value, merged, where.start, coords):
                    chunks[number] = chunk
                    left.discard(number)
            if not left:
                return chunks
            wanted = sorted(left)
        raise self._restless(key)

    async def _index(
        self, unit: Coords, coords: Sequence[Coords], wanted: Sequence[int], requests: asyncio.Semaphore
    ) -> tuple[Located, Ranges]:
        async with self._fetching.setdefault(unit, asyncio.Lock()):
            located = self._indexes.get(unit)
            if located is None:
                async with requests:
                    found = await stamped(self.store, self.key(unit), self._layout.index_request)
                located = self._learn(unit, self._decoded(found, coords[0]))
            self._fetching.pop(unit, None)
            return located, self._locate(located, coords, wanted)

    def update(self, old: Buffer | None, pieces: Sequence[Piece]) -> Buffer | None:
        layout = self._layout
        kept: list[Buffer | None] = [None] * layout.nchunks if old is None else layout.split(old)
        patches: dict[int, list[tuple[Projection, Array]]] = {}
        for unit, selection, values in pieces:
            for projection in self.extent(selection).chunks.within(unit, layout.grid_shape).projections():
                patches.setdefault(self._layout.number(projection.coords), []).append((projection, values[projection.out or ...]))
        shard = NewShard(layout, len(patches) * self.pipeline.spec.nbytes + (0 if old is None else len(old)))
        changed = ((number, each[0][0].coords, self._patched(kept[number], each)) for number, each in sorted(patches.items()))
        rest = ((number, part) for number, part in enumerate(kept) if part is not None and number not in patches)
        for number, part in heapq.merge(encoded_chunks(self.pipeline.whole, changed), rest, key=operator.itemgetter(0)):
            shard.put(number, part)
        return None if shard.empty else shard.encoded()

    def _patched(self, part: Buffer | None, patches: Sequence[tuple[Projection, Array]]) -> Array:
        with about(patches[0][0].coords):
            return patched(self.pipeline, part, patches)

    @property
    def together(self) -> int:
        return 1  # their chunks are encoded together

    def encode_units(self, units: Sequence[Sequence[Piece]]) -> list[Buffer | None]:
        return [self.update(None, pieces) for pieces in units]
