"""Many nodes at once: walking through a hierarchy, creating one, and consolidating the metadata of one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Collection, Iterable, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Literal, NamedTuple, TypeAlias

from azarr.catalog import Catalog, WriteThrough, name_of, registry_of, serialize_consolidated, without_member
from azarr.crew import Crew
from azarr.documents import (
    Documents,
    Metadata,
    as_documents,
    checked,
    erase,
    exists,
    exists_error,
    expect_store,
    fetch_documents,
    fetch_documents_blocking,
    hold,
    left_behind,
    loaded,
    look_above,
    put,
    serialize,
)
from azarr.engine import Engine
from azarr.errors import NodeExistsError, NodeNotFoundError, StoreError
from azarr.metadata import v3
from azarr.metadata.consolidated import MEMBER, Consolidated
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.paths import above, child, depth, is_below, key_of, prefix_of
from azarr.rewriting import rewrite
from azarr.runners import Runner, TaskRunner, WorkerRunner
from azarr.stores.base import BlockingStore, ListableStore, ReadableStore, Store
from azarr.types import Buffer, Limits
from azarr.window import Window, gather

Batch: TypeAlias = tuple[str, ...]

BATCH = 64
"""Nodes whose documents a worker reads in one job, where the store's calls block; and after how many the loop gets a turn."""

# Walking


class Read(NamedTuple):
    """What became of a batch: paths and documents (``None`` where there is no node), up to the first that failed."""

    found: list[tuple[str, Documents | None, bool]]
    """Each with whether there may be nodes below."""
    error: Exception | None = None


async def walk(
    store: ReadableStore, path: str, engine: Engine, *, max_depth: int | None = 1, zarr_format: Literal[2, 3] | None = None
) -> AsyncGenerator[tuple[str, Documents], None]:
    """The nodes below ``path``, at most ``max_depth`` names further down, with their documents: nearest first, then sorted.

    Their paths are relative to ``path``. Folders that are no nodes are looked into, chunks are not. Raises ``StoreError`` where the store
    cannot be listed.
    """
    if not isinstance(store, ListableStore):
        raise StoreError(f"{store!r} cannot be listed")
    tops, reached = [""], 0
    while tops and (max_depth is None or reached < max_depth):
        listed = await gather(partial(names_below, store, path, engine), tops, engine.concurrency)
        tops, reached = [], reached + 1
        names = itertools.chain.from_iterable(listed)
        window = reading(store, path, engine, zarr_format, (name for name in names if legal(name, zarr_format) != 0))
        turn = 0
        try:
            while (batch := await taken(window)) is not None:
                for name, documents, open_below in batch.found:
                    if open_below:
                        tops.append(name)
                    if documents is not None:
                        yield name, documents
                if batch.error is not None:
                    raise batch.error
                turn += len(batch.found)
                if turn >= BATCH:
                    turn = 0
                    await asyncio.sleep(0)
        finally:
            await window.aclose()


async def names_below(store: ListableStore, path: str, engine: Engine, name: str) -> list[str]:
    """What might be nodes directly below ``name``, sorted; as ``name``, relative to ``path``."""
    prefix = prefix_of(child(path, name))
    async with engine.requests():
        listing = await store.list_dir(prefix)
    return [child(name, each) for each in sorted(each.removeprefix(prefix).rstrip("/") for each in listing.prefixes)]


def reading(
    store: ReadableStore, path: str, engine: Engine, zarr_format: Literal[2, 3] | None, names: Iterable[str]
) -> Window[Batch, Read]:
    """A window that reads the documents of the nodes ``names``: in workers where the store's calls block, else in tasks."""
    runner: Runner[Batch]
    if isinstance(store, BlockingStore):
        runner = WorkerRunner(engine.executor, engine.mailbox(), partial(read_batch, store, path, engine.limits, zarr_format))
        return Window(batched(names, BATCH), runner, 2 * max(1, engine.executor.workers), ordered=True)

    async def read_one(batch: Batch) -> Read:
        name = batch[0]
        async with engine.requests():
            documents = await fetch_documents(store, child(path, name), engine.limits, legal(name, zarr_format) or None)
            other = documents
            if documents is None and zarr_format is not None:
                other = await fetch_documents(store, child(path, name), engine.limits, 2 if zarr_format == 3 else 3)
        return Read([(name, documents, other is None or not is_array(other))])

    return Window(batched(names, 1), TaskRunner(read_one), engine.concurrency, ordered=True)


def read_batch(store: BlockingStore, path: str, limits: Limits, zarr_format: Literal[2, 3] | None, batch: Batch) -> Read:
    """Read the documents of some nodes; for workers."""
    found: list[tuple[str, Documents | None, bool]] = []
    try:
        for name in batch:
            documents = fetch_documents_blocking(store, child(path, name), limits, legal(name, zarr_format) or None)
            other = documents
            if documents is None and zarr_format is not None:
                other = fetch_documents_blocking(store, child(path, name), limits, 2 if zarr_format == 3 else 3)
            found.append((name, documents, other is None or not is_array(other)))
    except Exception as error:  # noqa: BLE001 - comes out when its turn comes
        return Read(found, error)
    return Read(found)


async def taken(window: Window[Batch, Read]) -> Read | None:
    """The next result of a window, ``None`` after the last."""
    try:
        batch = await window.take()
    except StopAsyncIteration:
        return None
    window.release(1)
    return batch


def legal(name: str, zarr_format: Literal[2, 3] | None) -> Literal[0, 2, 3] | None:
    """In which format, of ``zarr_format``, a node may have this name; 0 for none: those that begin with ``__`` are reserved in v3."""
    if not name.rpartition("/")[2].startswith("__"):
        return zarr_format
    return 0 if zarr_format == 3 else 2


def is_array(documents: Documents) -> bool:
    """Whether these are the documents of an array."""
    return ".zarray" in documents or ("zarr.json" in documents and documents["zarr.json"].get("node_type") == "array")


def batched(items: Iterable[str], size: int) -> Iterator[Batch]:
    """``items`` in tuples of ``size``."""
    iterator = iter(items)
    while batch := tuple(itertools.islice(iterator, size)):
        yield batch


# Creating


async def create_many(store: ReadableStore, nodes: Mapping[str, Metadata], engine: Engine, *, overwrite: bool) -> Store:
    """Create nodes at the paths ``nodes``, and groups above them where there are none; the store, which can be written to.

    Everything is checked before anything is written: ``MetadataError`` where metadata or names are not legal, ``NodeExistsError`` where
    there is a node at one of the paths already and ``overwrite`` is false, and where an array is above one. Groups are written before
    what is below them.
    """
    writable, limits = expect_store(store), engine.limits
    serialized = {path: checked(path, metadata, limits) for path, metadata in nodes.items()}
    for path in nodes:
        if (top := next((top for top in above(path) if isinstance(nodes.get(top), ArrayMetadata)), None)) is not None:
            raise NodeExistsError(f"cannot create {path!r}: an array is to be created at {top or '/'!r}, above it", path=path)
    below = {top: path for path in nodes for top in above(path) if top not in nodes}
    through = {zarr_format: WriteThrough(writable, zarr_format, limits) for zarr_format in formats_of(nodes)}
    async with AsyncExitStack() as stack:
        held = sorted({*nodes, *below}, key=lambda path: (-depth(path), path))
        for path in held:
            await stack.enter_async_context(hold(store, path))
        there = await existing(writable, nodes, engine)
        if there and not overwrite:
            raise exists_error(there[0])
        erased = {top for top in below if any(is_below(top, path) for path in there)}
        consolidated, missing = {}, set(erased)
        for zarr_format in through:
            surroundings = await look_above(writable, {top: below[top] for top in below if top not in erased}, zarr_format, limits)
            consolidated[zarr_format] = surroundings.consolidated
            missing.update(surroundings.missing)
        for top in missing:
            serialized[top] = serialize(GroupMetadata(nodes[below[top]].zarr_format))
        for path in there:
            if not any(is_below(path, other) for other in there if other != path):
                await erase(writable, path, limits, held=held)
        await put_many(writable, serialized, engine)
        for zarr_format, each in through.items():
            made = {path: documents for path, documents in serialized.items() if ("zarr.json" in documents) == (zarr_format == 3)}
            put_in = (
                {path: as_documents(documents) for path, documents in made.items()} if consolidated[zarr_format] or each.disturbed else {}
            )
            await each.apply(put_in, consolidated=consolidated[zarr_format], held=held)
    return writable


def formats_of(nodes: Mapping[str, Metadata]) -> list[Literal[2, 3]]:
    """The formats that there are among ``nodes``."""
    return sorted({metadata.zarr_format for metadata in nodes.values()})


async def existing(store: Store, paths: Collection[str], engine: Engine) -> list[str]:
    """Those of ``paths`` where there is a node, the nearest first; nothing is asked of what no listing shows."""
    uppers = sorted({above(path)[-1] for path in paths if path})
    listed = set(itertools.chain.from_iterable(await gather(partial(names_below, store, "", engine), uppers, engine.concurrency)))
    shown = [path for path in paths if not path or path in listed]
    found = await gather(partial(exists, store), shown, engine.concurrency)
    return sorted((path for path, is_there in zip(shown, found, strict=True) if is_there), key=depth)


async def put_many(store: Store, serialized: Mapping[str, Mapping[str, bytes]], engine: Engine) -> None:
    """Store the documents of many nodes, those nearer to the root first."""
    for _, level in itertools.groupby(sorted(serialized, key=depth), key=depth):
        if isinstance(store, BlockingStore):
            await Crew(engine, level, lambda path: put_blocking(store, path, serialized[path])).run()
        else:
            await gather(partial(put_one, store, serialized, engine), level, engine.concurrency)


async def put_one(store: Store, serialized: Mapping[str, Mapping[str, bytes]], engine: Engine, path: str) -> None:
    """Store the documents of a node as part of what an engine does at once."""
    async with engine.requests():
        await put(store, path, serialized[path])


def put_blocking(store: BlockingStore, path: str, serialized: Mapping[str, bytes]) -> None:
    """Store the documents of a node; for workers."""
    for name in left_behind(serialized):
        store.erase_blocking(key_of(path, name))
    for name, document in serialized.items():
        store.set_blocking(key_of(path, name), document)


# Consolidating


async def consolidate(store: ReadableStore, path: str, zarr_format: Literal[2, 3], engine: Engine) -> Catalog:
    """Write the consolidated metadata of the group at ``path``, of all nodes of its format below it, as they are in the store now.

    ``NodeNotFoundError`` where the group is not there any more.
    """
    writable, registry, limits = expect_store(store), registry_of(store), engine.limits
    registry.begin()
    try:
        async with hold(store, path):
            own = await fetch_documents(store, path, limits, zarr_format)
            if own is None or is_array(own):
                raise NodeNotFoundError(f"there is no group of Zarr v{zarr_format} at {path or '/'!r} in {store!r} any more", path=path)
            documents = {"": own} if zarr_format == 2 else {}
            async for name, found in walk(store, path, engine, max_depth=None, zarr_format=zarr_format):
                documents[name] = without_member(found)
            consolidated = Consolidated(zarr_format, documents)
            await put_consolidated(writable, path, consolidated, limits)
            registry.publish(path, zarr_format, consolidated)
            return Catalog(store, path, consolidated)
    finally:
        registry.end()


async def put_consolidated(store: Store, path: str, consolidated: Consolidated, limits: Limits) -> None:
    """Store the consolidated metadata of the group at ``path``, leaving its other members as they are by now."""

    async def serialized(document: Buffer | None) -> Buffer:
        if consolidated.zarr_format == 2:
            return serialize_consolidated(path, {}, consolidated, limits)
        own = loaded({"zarr.json": document}, path, limits)
        if own is None:
            raise NodeNotFoundError(f"there is no group of Zarr v3 at {path or '/'!r} in {store!r} any more", path=path)
        return serialize_consolidated(path, own["zarr.json"], consolidated, limits)

    await rewrite(store, key_of(path, name_of(consolidated.zarr_format)), serialized, part=limits.document)


async def drop_consolidated(store: ReadableStore, path: str, zarr_format: Literal[2, 3], limits: Limits) -> None:
    """Take the consolidated metadata of the group at ``path`` out of the store; fine where there is none."""
    writable = expect_store(store)
    async with hold(store, path):
        if zarr_format == 2:
            await writable.erase(key_of(path, ".zmetadata"))
        else:

            async def dropped(document: Buffer | None) -> Buffer | None:
                own = loaded({"zarr.json": document}, path, limits)
                return v3.dump(without_member(own)["zarr.json"], "zarr.json") if own and MEMBER in own["zarr.json"] else document

            await rewrite(writable, key_of(path, "zarr.json"), dropped, part=limits.document)
        registry_of(store).publish(path, zarr_format, None)
