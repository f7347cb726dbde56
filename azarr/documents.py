"""Metadata documents in a store: finding, reading, creating and changing them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, TypeAlias

from azarr.errors import MetadataError, NodeExistsError, StoreError
from azarr.locks import locks_of
from azarr.metadata import v2, v3
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.stores.base import ReadableStore, Store, WritableStore
from azarr.types import JSON, Buffer, ByteRange, Limits
from azarr.window import TaskRunner, Window

Metadata: TypeAlias = ArrayMetadata | GroupMetadata
ZarrFormat: TypeAlias = Literal[2, 3]


def normalize(path: str) -> str:
    """``path`` without slashes at its ends: ``""`` is the root, ``"a/b"`` a node below it."""
    return path.strip("/")


def child(path: str, name: str) -> str:
    """The path of ``name`` below ``path``; ``name`` may be a path itself."""
    name = normalize(name)
    return f"{path}/{name}" if path and name else path or name


def key_of(path: str, document: str) -> str:
    """The key of a metadata document of the node at ``path``."""
    return f"{path}/{document}" if path else document


async def fetch(store: ReadableStore, path: str, document: str, limits: Limits) -> Buffer | None:
    """A metadata document, of which no more is read than the limit allows and one byte that tells that there is more."""
    return await store.get(key_of(path, document), ByteRange(0, limits.metadata_nbytes + 1))


async def fetch_all(store: ReadableStore, path: str, names: Sequence[str], nbytes: int) -> list[Buffer | None]:
    """The first ``nbytes`` of several documents, fetched at once; where one fails, nothing of the others goes on."""

    async def one(name: str) -> Buffer | None:
        return await store.get(key_of(path, name), ByteRange(0, nbytes))

    window: Window[str, Buffer | None] = Window(iter(names), TaskRunner(one), len(names), ordered=True)
    try:
        return [await window.take() for _ in names]
    finally:
        await window.aclose()


async def read(store: ReadableStore, path: str, limits: Limits, zarr_format: ZarrFormat | None = None) -> Metadata | None:
    """The metadata of the node at ``path``, ``None`` where there is no node; v3 comes first where both formats are there."""
    if zarr_format in {None, 3}:
        document = await fetch(store, path, "zarr.json", limits)
        if document is not None:
            return v3.parse(document, path or "/", limits)
    if zarr_format in {None, 2}:
        zarray, zgroup, zattrs = await fetch_all(store, path, (".zarray", ".zgroup", ".zattrs"), limits.metadata_nbytes + 1)
        if zarray is not None:
            return v2.parse_array(zarray, zattrs, path or "/", limits)
        if zgroup is not None:
            return v2.parse_group(zgroup, zattrs, path or "/", limits)
    return None


def serialize(metadata: Metadata) -> dict[str, bytes]:
    """The documents of a node by their names, the one that makes the node exist last."""
    documents = v3.serialize(metadata) if metadata.zarr_format == 3 else v2.serialize(metadata)
    return {name: documents[name] for name in sorted(documents, key=lambda name: name != ".zattrs")}


def check(metadata: Metadata, path: str, limits: Limits) -> None:
    """Raise ``MetadataError`` unless the node can have such a path and metadata, in its format and within the limits."""
    if metadata.zarr_format not in (2, 3):
        raise MetadataError(f"{path or '/'}: zarr_format must be 2 or 3, not {metadata.zarr_format!r:.100}", path=path)
    check_name(path, metadata.zarr_format)
    documents = serialize(metadata)
    if metadata.zarr_format == 3:
        v3.parse(documents["zarr.json"], path or "/", limits)
    elif isinstance(metadata, ArrayMetadata):
        v2.parse_array(documents[".zarray"], documents.get(".zattrs"), path or "/", limits)
    else:
        v2.parse_group(documents[".zgroup"], documents.get(".zattrs"), path or "/", limits)


async def write(store: WritableStore, path: str, metadata: Metadata) -> None:
    """Store the documents of a node."""
    for name, document in serialize(metadata).items():
        await store.set(key_of(path, name), document)


async def create(store: ReadableStore, path: str, metadata: Metadata, limits: Limits, *, overwrite: bool) -> Store:
    """Create a node, and groups above it where there are none; the store, which can be written to.

    Raises ``NodeExistsError`` where a node is there already and ``overwrite`` is false, and where an array is above it. With
    ``overwrite``, what is at and below the node is erased first; nothing is erased where there is no node.
    """
    if not isinstance(store, Store):
        raise StoreError(f"{store!r} cannot be written to and listed")
    check(metadata, path, limits)  # what cannot be expressed or read back must not cost what is there
    async with locks_of(store).hold(key_of(path, "")):
        there = await exists(store, path)
        if there and not overwrite:
            raise NodeExistsError(
                f"there is a node at {path or '/'!r} already; pass overwrite=True to replace it and all that is below it", path=path
            )
        await create_ancestors(store, path, metadata.zarr_format, limits)
        if there:
            await store.erase_prefix(f"{path}/" if path else "")
        await write(store, path, metadata)
    return store


async def exists(store: ReadableStore, path: str) -> bool:
    """Whether there is a node of either format at ``path``, whatever its documents say."""
    found = await fetch_all(store, path, ("zarr.json", ".zarray", ".zgroup"), 1)
    return any(part is not None for part in found)


async def create_ancestors(store: Store, path: str, zarr_format: ZarrFormat, limits: Limits) -> None:
    """Make a group of every path above ``path`` where there is no node; ``NodeExistsError`` where there is an array."""
    parts = path.split("/")[:-1] if path else []
    for above in ["/".join(parts[:count]) for count in range(len(parts) + 1)] if path else []:
        # Whoever creates a node holds the lock of its path first and then those of the paths above, so nobody waits in a ring.
        async with locks_of(store).hold(key_of(above, "")):
            metadata = await read(store, above, limits)
            if metadata is None:
                await write(store, above, GroupMetadata(zarr_format))
        if isinstance(metadata, ArrayMetadata):
            raise NodeExistsError(
                f"cannot create {path!r}: there is an array at {above or '/'!r}, and arrays have no nodes below them", path=above
            )


def check_name(path: str, zarr_format: ZarrFormat) -> None:
    """Raise ``MetadataError`` where a part of ``path`` is no legal node name (Zarr v3 core, "Node names")."""
    for name in path.split("/") if path else []:
        if not name or not name.strip(".") or (zarr_format == 3 and (name.startswith("__") or name == "zarr.json")):
            raise MetadataError(
                f"{name!r} in path {path!r} is not a node name: it may not be empty, of periods only, 'zarr.json', or start with '__'",
                path=path,
            )


async def update_attributes(store: ReadableStore, path: str, attributes: Mapping[str, JSON], limits: Limits, own: Metadata) -> Metadata:
    """The node's metadata after its stored attributes have taken on ``attributes``; others in this process lose nothing by it."""
    if not isinstance(store, WritableStore):
        raise StoreError(f"{store!r} cannot be written to")
    async with locks_of(store).hold(key_of(path, "")):
        stored = await read(store, path, limits, own.zarr_format) or own
        updated = stored.with_attributes({**stored.attributes, **attributes})
        await write(store, path, updated)
    return updated
