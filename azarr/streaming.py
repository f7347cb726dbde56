"""What a stream of chunks is made of: the plan with its options, the runner, the window."""

from __future__ import annotations

import asyncio
import inspect
import math
import operator
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict, cast

from azarr.chunk_reader import Chunk, ChunkReader, Failure, Outcome, is_plain
from azarr.chunk_sources import Batch, ChunkSource, Extent, stored_units
from azarr.deferred import Deferred, DeferredModule
from azarr.engine import Engine
from azarr.errors import SelectionError, StreamError
from azarr.progress import ProgressOption, progress_of
from azarr.projections import AnyRun
from azarr.runners import Runner, TaskRunner, WorkerRunner
from azarr.selection import AnySelection, AxisSelection, PointSelection
from azarr.stores.base import ListableStore
from azarr.stream import ChunkStream, Counts, OnError
from azarr.types import Coords
from azarr.window import Window

if TYPE_CHECKING:
    import hashlib

    from azarr.cached_reading import fetcher
else:  # what streams do without unless they are asked for it
    hashlib = DeferredModule("hashlib")
    fetcher = Deferred("azarr.cached_reading", "fetcher")

BATCH_NBYTES = 256 * 2**10
"""Decoded bytes that are worth a job of their own; smaller chunks share one."""

ASKED_FOR = 100
"""Up to so many keys, a store is asked for each rather than listed: that is what a page of a listing costs."""

FILTERED = 1024
"""Chunks that are left out, or listed, in one go, before the loop has its turn."""

TIMEOUT = 60.0
"""Seconds that a chunk may take: longer than what stores need to answer on a bad day, retries included."""


AsyncFunction: TypeAlias = Callable[[Any], Awaitable[Any]]


class StreamOptions(TypedDict, total=False):
    """The keywords of every stream; ``AsyncArray.stream_chunks`` says what they mean."""

    ordered: bool
    concurrency: int | None
    memory: int | None
    timeout: float | None
    filter: Callable[[Coords], bool] | None
    include_missing: bool
    metadata: bool
    on_error: OnError
    progress: ProgressOption
    start_after: Coords | str | None
    shard: int | None
    of: int | None


def stream_chunks(
    source: ChunkSource,
    selection: AnySelection,
    engine: Engine,
    options: StreamOptions,
    function: Callable[[Any], Any] | None = None,
) -> ChunkStream:
    """The chunks that ``selection`` meets, ``function`` applied to their data; must be called on the loop that the stream is used on."""
    check(options)
    cached = None if engine.cache is None else engine.cache.chunks_of(source)
    source, ordered = source.operation(engine.telemetry, engine.place), options.get("ordered", True)
    whole = source.extent(selection.forward())
    fingerprint = partial(fingerprint_of, source, selection, options)
    extents = portion(source, whole, options.get("shard"), options.get("of"))
    if (start_after := options.get("start_after")) is not None:
        extents = rest(extents, position(start_after, fingerprint))
    counts, keep = Counts(), options.get("filter")
    missing = options.get("include_missing", True)
    keys = sum(min(extent.units.nchunks, extent.chunks.nchunks) for extent in extents)
    stored = StoredUnits(source) if not missing and keys > ASKED_FOR and isinstance(source.store, ListableStore) else None

    nbytes = max(1, source.pipeline.spec.nbytes)
    limit = engine.window(nbytes, options.get("concurrency"), options.get("memory"))
    awaits = function is not None and is_async(function)
    share = batch_length(source, engine, limit, alone=awaits)
    batches = chain.from_iterable(source.batches(extent, request_nbytes=share * nbytes, ordered=ordered) for extent in extents)
    reader = ChunkReader(
        source,
        selection,
        engine,
        tolerant=options.get("on_error", "raise") != "raise",
        missing=missing,
        detailed=options.get("metadata", False),
        function=None if awaits else function,
        timeout=options.get("timeout", TIMEOUT),
        plain=is_plain(selection),
        through=None if cached is None else fetcher(cached._replace(source=source), engine, options.get("timeout", TIMEOUT)),
    )
    items = batches if keep is None and stored is None else wanted(batches, keep, stored, counts)
    return ChunkStream(
        Window(items, runner_of(reader, function if awaits else None, counts), limit, ordered=ordered, weigh=weight, heaviest=share),
        sum(extent.chunks.nchunks for extent in extents),
        counts=counts,
        fingerprint=fingerprint,
        ordered=ordered,
        on_error=options.get("on_error", "raise"),
        progress=progress_of(options.get("progress"), "chunks"),
        prepare=None if stored is None else stored.list,
        observer=source.observer,
    )


def check(options: StreamOptions, known: type = StreamOptions) -> None:
    """Raise an error where an option is unknown or makes no sense."""
    if unknown := options.keys() - known.__annotations__.keys():
        raise TypeError(f"a stream has no option {sorted(unknown)}; it has {sorted(known.__annotations__)}")
    for name in ("concurrency", "memory"):
        value = options.get(name)
        if value is not None and cast("int", value) < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    timeout = options.get("timeout")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, or None for no limit, not {timeout}")
    keep: Any = options.get("filter")
    if keep is not None and (not callable(keep) or is_async(keep)):
        raise TypeError(f"filter must be a plain function of coordinates, not {keep!r:.60}")
    on_error = options.get("on_error", "raise")
    if on_error not in ("raise", "skip") and not callable(on_error):
        raise ValueError(f"on_error must be 'raise', 'skip' or a function, not {on_error!r:.60}")
    shard, of = options.get("shard"), options.get("of")
    if (shard is None) != (of is None) or (shard is not None and of is not None and not 0 <= shard < of):
        raise ValueError(f"shard and of go together, with 0 <= shard < of, not shard={shard}, of={of}")
    if options.get("start_after") is not None and not options.get("ordered", True):
        raise ValueError("start_after needs ordered=True: chunks that come in any order have no place to start after")


def batch_length(source: ChunkSource, engine: Engine, limit: int, *, alone: bool) -> int:
    """How many chunks make a batch: several batches at a time for every worker, as far as the window allows."""
    nbytes = max(1, source.pipeline.spec.nbytes)
    share = 1 if alone else max(1, min(BATCH_NBYTES // nbytes, limit // (2 * max(1, engine.executor.workers))))
    # a request fetches one key, so chunks can share one in a shard only
    return share if source.blocking else min(share, math.prod(source.chunks_per_unit))


def weight(batch: Batch) -> int:
    """How many chunks a batch has."""
    return sum(run.length for run in batch)


def is_async(function: Callable[..., Any]) -> bool:
    """Whether what ``function`` answers is to be awaited."""
    while isinstance(function, partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - an object may be called


def runner_of(reader: ChunkReader, function: AsyncFunction | None, counts: Counts) -> Runner[Batch]:
    """What reads batches, and applies a ``function`` that is awaited."""
    executor, mailbox, timeout = reader.engine.executor, reader.engine.mailbox(), reader.timeout
    pipeline = reader.source.pipeline
    prompt = reader.function is None and reader.engine.on_loop(pipeline, pipeline.spec.nbytes)
    if reader.source.blocking and reader.through is None:
        at_hand = reader.read_at_hand if prompt else None
        reading = WorkerRunner(executor, mailbox, reader.read, timeout=timeout, expired=reader.expired, prompt=at_hand)
        return reading if function is None else TaskRunner(partial(apply, function, reading.do))
    at_once = reader.decode_at_once if prompt else None
    decoding = WorkerRunner(executor, mailbox, reader.decode, timeout=timeout, expired=reader.undecoded, prompt=at_once)
    fetch = counts.counting(partial(reader.fetch, decode=decoding.do))
    return TaskRunner(fetch if function is None else partial(apply, function, fetch))


async def apply(function: AsyncFunction, read: Callable[[Batch], Awaitable[list[Outcome]]], batch: Batch) -> list[Outcome]:
    """Read a batch and apply a function that is awaited."""
    outcomes = await read(batch)
    try:
        return [await applied(function, outcome) if isinstance(outcome, Chunk) else outcome for outcome in outcomes]
    finally:
        del outcomes  # an error among them leads to this frame, which must not lead back


async def applied(function: AsyncFunction, chunk: Chunk) -> Outcome:
    """The chunk with what ``function`` makes of its data."""
    try:
        return replace(chunk, data=await function(chunk.data))
    except Exception as error:  # noqa: BLE001 - on_error decides
        return Failure(chunk.coords, error)


def portion(source: ChunkSource, whole: Extent, shard: int | None, of: int | None) -> list[Extent]:
    """The ``shard``-th of ``of`` equal shares of the units, as extents that follow each other."""
    if shard is None or of is None:
        return [whole]
    first, last = (number * whole.units.nchunks // of for number in (shard, shard + 1))
    return [Extent(whole.chunks.inside(units, source.chunks_per_unit), units) for units in whole.units.part(first, last)]


def position(start_after: Coords | str, fingerprint: Callable[[], str]) -> Coords:
    """The coordinates that ``start_after`` names; a token must be of a stream with the same fingerprint."""
    if not isinstance(start_after, str):
        return tuple(map(operator.index, start_after))
    stream, _, coords = start_after.partition(":")
    if stream != fingerprint():
        raise StreamError("this token is that of a stream of other chunks: of another array, view or share; start from the beginning")
    try:
        return tuple(map(int, coords.split(","))) if coords else ()
    except ValueError:
        raise StreamError(f"{start_after!r:.100} is not a stream's token") from None


def rest(extents: list[Extent], coords: Coords) -> list[Extent]:
    """What comes after the chunk at ``coords`` in ``extents``."""
    for number, extent in enumerate(extents):
        if extent.chunks.has(coords):
            after = extent.chunks.part(extent.chunks.number_after(coords), extent.chunks.nchunks)
            return [*(Extent(chunks, extent.units) for chunks in after), *extents[number + 1 :]]
    raise SelectionError(f"start_after={coords} is not the place of a chunk of this stream")


def wanted(
    batches: Iterator[Batch], keep: Callable[[Coords], bool] | None, stored: StoredUnits | None, counts: Counts
) -> Iterator[Batch | None]:
    """The batches without the chunks that ``keep`` does not want and those that are not ``stored``; ``None`` after every so many."""

    def wants(coords: Coords) -> bool:
        if keep is not None and not keep(coords):
            counts.filtered += 1
            return False
        if stored is not None and not stored.has(coords):
            counts.missing += 1
            return False
        return True

    left_out = 0
    for batch in batches:
        runs: list[AnyRun] = []
        for run in batch:
            kept = [number for number, coords in enumerate(run.chunk_coords()) if wants(coords)]
            left_out += run.length - len(kept)
            runs += [run] if len(kept) == run.length else map(run.single, kept)
        if runs:
            yield tuple(runs)
        if left_out >= FILTERED:
            yield None
            left_out = 0


class StoredUnits:
    """Which units of an array are stored, found by listing."""

    def __init__(self, source: ChunkSource) -> None:
        self._source = source
        self._units: set[Coords] = set()

    async def list(self) -> None:
        """Ask the store."""
        async for unit in stored_units(self._source):
            self._units.add(unit)
            if len(self._units) % FILTERED == 0:  # some stores have all keys at hand
                await asyncio.sleep(0)

    def has(self, coords: Coords) -> bool:
        """Whether the unit of the chunk at ``coords`` is stored."""
        return tuple(index // count for index, count in zip(coords, self._source.chunks_per_unit, strict=True)) in self._units


def fingerprint_of(source: ChunkSource, selection: AnySelection, options: StreamOptions, kind: str = "chunks") -> str:
    """What tells streams of different things apart, in 32 hexadecimal digits."""
    digest = hashlib.blake2b(digest_size=16)
    first = source.key((0,) * len(source.chunks_per_unit))
    chunks = [each if isinstance(each, int) else hashlib.blake2b(each.tobytes()).digest() for each in source.chunks]
    described = (kind, first, source.pipeline.field, source.unit_shape, chunks, options.get("shard"), options.get("of"))
    digest.update(repr(described).encode())
    if isinstance(selection, PointSelection):
        digest.update(repr(selection.shape).encode())
        parts = [each.tobytes() for each in selection.coords]
    else:
        parts = [repr(axis).encode() if isinstance(axis, AxisSelection) else axis.indices.tobytes() for axis in selection.axes]
    for part in parts:
        digest.update(hashlib.blake2b(part).digest())
    return digest.hexdigest()
