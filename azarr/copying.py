"""Copying arrays and hierarchies, between any stores, formats, chunks and codecs, in bounded memory.

Where nothing about the chunks changes, their values are copied as they are. Everything else is read and written in blocks of whole
units of the target (what it stores under one key) that meet whole chunks of the source as far as memory allows. Nodes come to exist
when all of their data is there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any, TypeAlias

from azarr import documents, nodes
from azarr.array import AsyncArray
from azarr.catalog import WriteThrough
from azarr.chunk_keys import SeparatedKeys
from azarr.chunk_lengths import ChunkLengths, place_of, start_of
from azarr.chunk_sources import stored_units
from azarr.creation import array_metadata
from azarr.crew import Crew
from azarr.documents import Metadata, expect_store, hold
from azarr.engine import Engine
from azarr.errors import MetadataError, NodeExistsError, NodeNotFoundError
from azarr.locks import locks_of
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.metadata.translation import translated
from azarr.paths import above, check_name, child, depth, is_below, prefix_of
from azarr.runners import TaskRunner
from azarr.stores.base import BlockingStore, ListableStore, ReadableStore, Store, is_remote
from azarr.stores.local import LocalStore
from azarr.types import Coords, element_nbytes
from azarr.window import Window, gather

Progress: TypeAlias = Callable[[int, int], object]
"""Told now and then how many bytes, decoded, have been copied, and of how many."""

BLOCK_NBYTES = 16 * 2**20
"""Decoded bytes that are worth reading and writing at once; blocks of less are put together."""

KEYS = 1024
"""Keys that are taken from a listing before their values are copied."""

DOCUMENTS = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")


class Report:
    """Counts what has been copied for whoever wants to know."""

    def __init__(self, progress: Progress | None, total: int) -> None:
        self._progress, self._done, self._total = progress, 0, total

    def add(self, nbytes: int) -> None:
        """So many more bytes."""
        self._done = min(self._total, self._done + nbytes)
        if self._progress is not None and nbytes:
            self._progress(self._done, self._total)

    def reach(self, nbytes: int) -> None:
        """So many bytes in all, at least: what was not stored needed no copying."""
        self.add(nbytes - self._done)


# Whole hierarchies


async def copy_nodes(
    source: ReadableStore,
    path: str,
    found: Mapping[str, Metadata],
    target: ReadableStore,
    where: str,
    engine: Engine,
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    **options: Any,
) -> Metadata:
    """Copy the nodes ``found``, named relative to ``path`` (``""`` is the node there), to below ``where``; the first one's new metadata.

    ``options`` are those of ``azarr.create_array`` for what is to be different about the arrays; see ``azarr.copy`` for the errors.
    """
    wanted = {name: target_metadata(metadata, options, remote=is_remote(target)) for name, metadata in found.items()}
    for name, metadata in wanted.items():
        documents.checked(child(where, name), metadata, engine.limits)
    arrays = [name for name, metadata in wanted.items() if isinstance(metadata, ArrayMetadata)]
    if same_data(source, target) and (is_below(path, where) or is_below(where, path)):
        raise NodeExistsError(f"cannot copy {path or '/'!r} to {where or '/'!r}: one is inside of the other", path=where)
    writable = engine.observed(expect_store(target), where)
    pairs = [(AsyncArray(source, child(path, name), found[name], engine), wanted[name]) for name in arrays]  # type: ignore[arg-type]  # arrays
    report, done = Report(progress, sum(old.nbytes for old, _ in pairs)), 0
    async with new_place(writable, where, wanted[""], engine, overwrite=overwrite):
        for name, (old, metadata) in zip(arrays, pairs, strict=True):
            await copy_array(old, AsyncArray(target, child(where, name), metadata, engine), report)  # type: ignore[arg-type]  # an array's
            done += old.nbytes
            report.reach(done)
        await nodes.create_many(writable, {child(where, name): metadata for name, metadata in wanted.items()}, engine, overwrite=False)
    return wanted[""]


def same_data(one: object, other: object) -> bool:
    """Whether two stores are of the same data."""
    identity = getattr(one, "identity", None)
    return one is other or (identity is not None and identity == getattr(other, "identity", None))


def target_metadata(metadata: Metadata, options: Mapping[str, Any], *, remote: bool) -> Metadata:
    """The metadata of a copy with these options, on a store of which ``remote`` says whether its requests are awaited."""
    zarr_format = options.get("zarr_format", metadata.zarr_format)
    if zarr_format not in (2, 3):
        raise MetadataError(f"zarr_format must be 2 or 3, not {zarr_format!r:.100}")
    same: Metadata = translated(metadata, zarr_format)
    if isinstance(same, GroupMetadata):
        return same
    if options.keys() <= {"zarr_format"}:
        if zarr_format == metadata.zarr_format:
            return same
        encoding = SeparatedKeys("default", "/") if zarr_format == 3 else SeparatedKeys("v2", ".")
        same = replace(same, chunk_key_encoding=encoding)
        try:
            documents.serialize(same)
        except MetadataError:  # shards, say
            pass
        else:
            return same
    like = metadata if isinstance(metadata, ArrayMetadata) else None
    carried: dict[str, Any] = {"attributes": same.attributes, "dimension_names": same.dimension_names}
    if zarr_format == 2:
        carried["shards"] = None  # which v2 does not have
    return array_metadata({**carried, **options, "zarr_format": zarr_format}, like=like, remote=remote)


@asynccontextmanager
async def new_place(store: Store, path: str, metadata: Metadata, engine: Engine, *, overwrite: bool) -> AsyncIterator[None]:
    """A place for a new node's data: nothing is there that would become part of it, and nothing stays where its making fails.

    Raises ``NodeExistsError`` where there is a node and ``overwrite`` is false, and where an array is above it.
    """
    await documents.look_above(store, dict.fromkeys(above(path), path), metadata.zarr_format, engine.limits)
    if await documents.exists(store, path):
        if not overwrite:
            raise documents.exists_error(path)
        await documents.delete(store, path, engine.limits)
    listing = await store.list_dir(prefix_of(path))
    empty = not listing.keys and not listing.prefixes
    if not empty and isinstance(metadata, ArrayMetadata):
        await erase_chunks(store, path, metadata)
    try:
        yield
    except BaseException:
        if empty:
            await documents.erase_below(store, path)
        elif isinstance(metadata, ArrayMetadata):
            await erase_chunks(store, path, metadata)
        raise


async def erase_chunks(store: Store, path: str, metadata: ArrayMetadata) -> None:
    """Erase what would be chunks of such an array."""
    prefix, encoding, ndim = prefix_of(path), metadata.chunk_key_encoding, len(metadata.shape)
    try:
        for key in [key async for key in store.list_prefix(prefix) if encoding.decode(key[len(prefix) :], ndim) is not None]:
            await store.erase(key)
    finally:
        locks_of(store).changed_below(prefix)


# Arrays


async def copy_array(source: AsyncArray, target: AsyncArray, report: Report) -> None:
    """Copy the data of ``source`` to ``target``, of the same shape, which has no data yet."""
    if same_chunks(source.metadata, target.metadata):
        await copy_chunks(source, target, report)
        return
    units = (source.source.pipeline.spec.shape, source.source.unit_shape)
    block = block_shape(source.shape, target.source.unit_shape, units, element_nbytes(target.dtype), max(1, target.engine.memory // 8))
    nbytes = math.prod(block) * (element_nbytes(source.dtype) + element_nbytes(target.dtype))

    async def copy_block(region: tuple[slice, ...]) -> None:
        values = await source[region].read()
        await target[region].write(values)
        report.add(values.nbytes)

    blocks = regions(source.shape, block, target.metadata.chunk_grid.chunk_lengths)
    await Window(blocks, TaskRunner(copy_block), target.engine.window(nbytes)).drain()


def same_chunks(one: ArrayMetadata, other: ArrayMetadata) -> bool:
    """Whether a value of one array is a value of the other as it is; a missing one, too."""
    return (
        one.chunk_grid == other.chunk_grid
        and one.data_type == other.data_type
        and one.codecs == other.codecs
        and one.storage_transformers == other.storage_transformers
        and repr(one.data_type.serialize_fill_value(one.effective_fill_value))
        == repr(other.data_type.serialize_fill_value(other.effective_fill_value))
    )


async def copy_chunks(source: AsyncArray, target: AsyncArray, report: Report) -> None:
    """Copy the values of all units that are stored as they are."""
    grid, itemsize = target.metadata.chunk_grid, target.dtype.itemsize
    limit = target.engine.window(math.prod(grid.chunk_shape) * element_nbytes(target.dtype))
    here, there = source.engine.observed(source.store, source.path), target.engine.observed(target.store, target.path)
    async for batch in units_of(source, here):
        pairs = [(source.source.key(coords), target.source.key(coords)) for coords in batch]
        await copy_values(here, there, pairs, target.engine, limit)
        report.add(sum(itemsize * math.prod(part.stop - part.start for part in grid.region(coords)) for coords in batch))


async def units_of(array: AsyncArray, store: ReadableStore) -> AsyncIterator[list[Coords]]:
    """Where the units of ``array`` are that ``store`` has, some at a time; where it cannot be listed, all that there may be."""
    counts = array.metadata.chunk_grid.grid_shape
    if isinstance(store, ListableStore):
        batch: list[Coords] = []
        async for unit in stored_units(array.source, store):
            if all(index < count for index, count in zip(unit, counts, strict=True)):
                batch.append(unit)
            if len(batch) == KEYS:
                yield batch
                batch = []
        yield batch
        return
    everything = itertools.product(*map(range, counts))
    while some := list(itertools.islice(everything, KEYS)):
        yield some


async def copy_values(source: ReadableStore, target: ReadableStore, pairs: Sequence[tuple[str, str]], engine: Engine, limit: int) -> None:
    """Copy the values at the first key of each pair to the second, ``limit`` at once; those that are not there are passed over."""
    if type(source) is LocalStore and type(target) is LocalStore:
        await Crew(engine, iter(pairs), partial(copy_file, source, target)).run()
        return
    if isinstance(source, BlockingStore) and isinstance(target, BlockingStore):
        await Crew(engine, iter(pairs), partial(copy_value_blocking, source, target)).run()
        return
    requests, writable = engine.requests(), expect_store(target)

    async def copy_value(pair: tuple[str, str]) -> None:
        async with requests:
            value = await source.get(pair[0])
        if value is not None:
            async with requests:
                await writable.set(pair[1], value)

    await gather(copy_value, pairs, limit)


def copy_file(source: LocalStore, target: LocalStore, pair: tuple[str, str]) -> None:
    """Copy one value between folders, however large it is; for workers."""
    target.copy_from(source, *pair)


def copy_value_blocking(source: BlockingStore, target: BlockingStore, pair: tuple[str, str]) -> None:
    """Copy one value; for workers."""
    value = source.get_blocking(pair[0])
    if value is not None:
        target.set_blocking(pair[1], value)


def block_shape(
    shape: tuple[int, ...], target: tuple[int, ...], sources: Sequence[tuple[int, ...]], itemsize: int, memory: int
) -> tuple[int, ...]:
    """The greatest shape of the blocks in which an array is copied: whole units ``target``, which it meets at any rate.

    As far as ``memory`` bytes allow, they also meet each unit of the first of ``sources`` only once, then those of the next.
    """
    block = list(target)
    most = [-(-max(1, length) // unit) * unit for length, unit in zip(shape, target, strict=True)]

    def grow(axis: int, wanted: int, limit: int) -> None:
        fits = limit // max(1, itemsize * math.prod(block) // block[axis]) // target[axis] * target[axis]
        block[axis] = max(block[axis], min(wanted, most[axis], fits))

    for unit in sources:
        for axis in sorted(range(len(shape)), key=lambda axis: block[axis] / unit[axis]):
            together = math.lcm(block[axis], unit[axis])
            whole = -(-unit[axis] // target[axis]) * target[axis]
            others = itemsize * math.prod(block) // block[axis]
            grow(axis, together if together <= most[axis] and together * others <= memory else whole, memory)
    for axis in reversed(range(len(shape))):
        times = max(1, min(BLOCK_NBYTES, memory) // max(1, itemsize * math.prod(block)))
        grow(axis, block[axis] * times, memory)
    return tuple(block)


def regions(shape: tuple[int, ...], block: tuple[int, ...], units: tuple[int | ChunkLengths, ...]) -> Iterator[tuple[slice, ...]]:
    """The blocks of an array of ``shape``, of whole ``units`` and no longer than ``block``, which is no shorter than any; in C order."""
    return itertools.product(*map(pieces, shape, block, units))


def pieces(length: int, longest: int, lengths: int | ChunkLengths) -> Iterator[slice]:
    """The blocks along one axis."""
    start = 0
    while start < length:
        end = start_of(place_of(start + longest, lengths), lengths) if start + longest < length else length
        yield slice(start, end)
        start = end


# Moving


async def copy_prefix(store: ReadableStore, old: str, new: str, engine: Engine) -> None:
    """Copy the node at ``old``, and every value below it, to ``new`` in the same store; see ``AsyncGroup.move`` for the errors."""
    writable, limits = expect_store(store), engine.limits
    own = await documents.fetch_documents(store, old, limits)
    if own is None:
        raise NodeNotFoundError(f"there is no array or group at {old!r} in {store!r} that could be moved", path=old)
    zarr_format = documents.format_of(own)
    check_name(new, zarr_format)
    if is_below(new, old) or is_below(old, new):
        raise NodeExistsError(f"cannot move {old!r} to {new!r}: one is inside of the other", path=new)
    found = {new: own}
    async for name, each in nodes.walk(store, old, engine, max_depth=None):
        found[child(new, name)] = each
    throughs = {each: WriteThrough(store, each, limits) for each in sorted(set(map(documents.format_of, found.values())))}
    async with hold(store, new):
        listing = await writable.list_dir(prefix_of(new))
        if listing.keys or listing.prefixes:
            raise NodeExistsError(f"there is something at {new!r} already; delete it first, or choose another name", path=new)
        surroundings = await documents.look_above(store, dict.fromkeys(above(new), new), zarr_format, limits)
        try:
            await copy_keys(writable, prefix_of(old), prefix_of(new), engine)
        except BaseException:
            await documents.erase_below(writable, new)
            raise
        made = await documents.create_groups(writable, surroundings.missing, zarr_format, limits)
        for number, through in throughs.items():
            put = {path: each for path, each in {**made, **found}.items() if documents.format_of(each) == number}
            await through.apply({path: each for path, each in put.items() if path not in made}, whole=new)
            await through.apply({path: each for path, each in put.items() if path in made})


async def copy_keys(store: Store, old: str, new: str, engine: Engine) -> None:
    """Copy all values below one prefix to below another: data first, then metadata documents, those of the node itself last."""
    last: list[str] = []
    batch: list[tuple[str, str]] = []
    limit = max(1, min(engine.concurrency, 8))  # as nothing is known of their sizes
    async for key in store.list_prefix(old):
        if key.rpartition("/")[2] in DOCUMENTS:
            last.append(key)
            continue
        batch.append((key, new + key[len(old) :]))
        if len(batch) == KEYS:
            await copy_values(store, store, batch, engine, limit)
            batch = []
    await copy_values(store, store, batch, engine, limit)
    for _, level in itertools.groupby(sorted(last, key=depth, reverse=True), key=depth):
        await copy_values(store, store, [(key, new + key[len(old) :]) for key in level], engine, limit)
