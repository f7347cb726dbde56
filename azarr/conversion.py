"""Converting hierarchies from one Zarr format to the other where they are, without touching chunks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, Literal

from azarr import documents, nodes
from azarr.array import AsyncArray
from azarr.catalog import WriteThrough
from azarr.documents import Documents, as_documents, expect_store, format_of, hold
from azarr.engine import Engine, default_engine
from azarr.errors import MetadataError, NodeNotFoundError
from azarr.group import AsyncGroup, open_node
from azarr.locations import place
from azarr.metadata.consolidated import MEMBER, parse_node
from azarr.metadata.model import GroupMetadata
from azarr.metadata.translation import translated
from azarr.paths import child, depth, key_of
from azarr.stores.base import Store
from azarr.stores.urls import StoreLike
from azarr.types import ByteRange, Limits

NAMES = {2: (".zarray", ".zgroup", ".zattrs", ".zmetadata"), 3: ("zarr.json",)}


async def convert(
    store: StoreLike,
    path: str = "",
    *,
    zarr_format: Literal[2, 3] = 3,
    keep_old: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
) -> AsyncArray | AsyncGroup:
    """The node at ``path``, after it and all nodes below it have become Zarr v3 (or v2), their chunks staying as they are.

    Only metadata documents are written. Those of the old format are erased when all new ones are there, or with ``keep_old`` not at
    all; a node that has documents of both formats keeps those of v3, as they come first. Undefined fill values become zero in v3;
    dimension names are an attribute, ``_ARRAY_DIMENSIONS``, in v2. Consolidated metadata are written anew. Nothing else should write
    metadata there meanwhile.

    Raises:
        NodeNotFoundError: There is no node.
        MetadataError: An array needs other chunks in the new format (shards, other chunk keys, a codec it does not have). Nothing has
            been written; ``azarr.copy`` with ``zarr_format`` makes a converted copy of it.
        StoreError: The store failed, or is read-only. Each node is then there in one format or in both.

    """
    found_store, where, _ = await place(store, path, storage_options)  # in whatever format it is by now
    own_store, engine_ = expect_store(found_store), engine or default_engine()
    target, limits = engine_.observed(own_store, where), engine_.limits
    old = other(zarr_format)
    if await documents.fetch_documents(target, where, limits) is None:
        raise NodeNotFoundError(f"there is no array or group at {where or '/'!r} in {target!r} that could be converted", path=where)
    found = await find(target, where, old, engine_)
    written = {each: convert_documents(each, own, zarr_format, limits) for each, own in found.items()}
    new, gone = WriteThrough(target, zarr_format, limits), WriteThrough(target, old, limits)
    consolidated = [each for each, own in found.items() if await is_consolidated(target, each, own)]
    for each in sorted(written, key=depth):
        async with hold(target, each):
            if zarr_format == 2 or await target.get(key_of(each, "zarr.json"), ByteRange(0, 1)) is None:
                await documents.put(target, each, written[each])
    for each in sorted(consolidated, key=depth, reverse=True):
        await nodes.consolidate(target, each, zarr_format, engine_)
    await new.apply({each: as_documents(own) for each, own in written.items()}, whole=where)
    if not keep_old:
        await gone.apply({}, [where], whole=where)
        for each in sorted(found, key=depth, reverse=True):
            async with hold(target, each):
                for name in NAMES[old]:
                    await target.erase(key_of(each, name))
    return await open_node(own_store, where, engine, zarr_format if where in found else None)


def other(zarr_format: Literal[2, 3]) -> Literal[2, 3]:
    """The other format; ``MetadataError`` where there is no such format."""
    if zarr_format not in (2, 3):
        raise MetadataError(f"zarr_format must be 2 or 3, not {zarr_format!r:.100}")
    return 2 if zarr_format == 3 else 3


async def find(store: Store, path: str, zarr_format: Literal[2, 3], engine: Engine) -> dict[str, Documents]:
    """The documents of this format of the nodes at and below ``path``."""
    own = await documents.fetch_documents(store, path, engine.limits, zarr_format)
    found = {} if own is None else {path: own}
    async with aclosing(nodes.walk(store, path, engine, max_depth=None, zarr_format=zarr_format)) as below:
        async for name, each in below:
            found[child(path, name)] = each
    return found


def convert_documents(path: str, own: Documents, zarr_format: Literal[2, 3], limits: Limits) -> dict[str, bytes]:
    """The documents of a node in the other format."""
    metadata = parse_node(own, path, limits) or GroupMetadata(format_of(own))
    try:
        return documents.checked(path, translated(metadata, zarr_format), limits)
    except MetadataError as error:
        raise MetadataError(
            f"{path or '/'!r} cannot become Zarr v{zarr_format} with its chunks as they are: {error}. "
            f"azarr.copy(array, store, path, zarr_format={zarr_format}) re-encodes it",
            path=path or "/",
        ) from error


async def is_consolidated(store: Store, path: str, own: Documents) -> bool:
    """Whether the group with these documents has consolidated metadata in their format."""
    if format_of(own) == 3:
        return MEMBER in own["zarr.json"]
    return ".zgroup" in own and await store.get(key_of(path, ".zmetadata"), ByteRange(0, 1)) is not None
