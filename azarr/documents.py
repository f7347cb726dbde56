"""Metadata documents in a store: finding, reading, creating and changing them."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

from azarr.deferred import DeferredModule
from azarr.errors import MetadataError, NodeExistsError, NodeNotFoundError, PreconditionFailedError, StoreError
from azarr.importing import ready
from azarr.metadata import v3
from azarr.metadata.consolidated import HINT, MEMBER, Consolidated, Documents, parse_node, parse_v2, parse_v3
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.paths import above, check_name, child, depth, key_of, normalize, prefix_of
from azarr.stores.base import BlockingStore, ReadableStore, Store, WritableStore, as_conditional
from azarr.types import JSON, Buffer, ByteRange, Limits
from azarr.window import both, gather

if TYPE_CHECKING:
    from azarr import catalog, claims, locks, rewriting
    from azarr.metadata import v2
else:  # what reading does without
    catalog = DeferredModule("azarr.catalog")
    claims = DeferredModule("azarr.claims")
    locks = DeferredModule("azarr.locks")
    rewriting = DeferredModule("azarr.rewriting")
    v2 = DeferredModule("azarr.metadata.v2")

__all__ = ["Documents", "Metadata", "ZarrFormat", "check_name", "child", "key_of", "normalize"]

Metadata: TypeAlias = ArrayMetadata | GroupMetadata
ZarrFormat: TypeAlias = Literal[2, 3]

NAMES_V2 = (".zarray", ".zgroup", ".zattrs")

Edit: TypeAlias = Callable[[Metadata, Mapping[str, JSON]], Mapping[str, JSON]]
"""From a node's metadata and the members of one of its documents to new members; none at all erase the document."""

# Reading


async def fetch(store: ReadableStore, path: str, names: Sequence[str], limits: Limits) -> list[Buffer | None]:
    """Documents of the node at ``path``, all at once; of each no more is read than the limit allows and one byte."""
    if len(names) < 2:
        return [await store.get(key_of(path, name), limits.document) for name in names]
    return await gather(lambda name: store.get(key_of(path, name), limits.document), names, len(names))


async def fetch_documents(store: ReadableStore, path: str, limits: Limits, zarr_format: ZarrFormat | None = None) -> Documents | None:
    """The documents of the node at ``path``, ``None`` where there is no node; v3 comes first where both formats are there."""
    if zarr_format != 2:
        (document,) = await fetch(store, path, ["zarr.json"], limits)
        if document is not None:
            return {"zarr.json": v3.load(document, path or "/", "zarr.json", limits)}
    if zarr_format != 3:
        return loaded(dict(zip(NAMES_V2, await fetch(store, path, NAMES_V2, limits), strict=True)), path, limits)
    return None


def fetch_documents_blocking(store: BlockingStore, path: str, limits: Limits, zarr_format: ZarrFormat | None = None) -> Documents | None:
    """As ``fetch_documents``, for workers."""
    if zarr_format != 2:
        document = store.get_blocking(key_of(path, "zarr.json"), limits.document)
        if document is not None:
            return {"zarr.json": v3.load(document, path or "/", "zarr.json", limits)}
    if zarr_format != 3:
        return loaded({name: store.get_blocking(key_of(path, name), limits.document) for name in NAMES_V2}, path, limits)
    return None


def names_of(zarr_format: ZarrFormat) -> tuple[str, ...]:
    """The names of a node's documents."""
    return ("zarr.json",) if zarr_format == 3 else NAMES_V2


def loaded(found: Mapping[str, Buffer | None], path: str, limits: Limits) -> Documents | None:
    """The documents of a node, all of one format; an array comes before a group."""
    kind = next((name for name in ("zarr.json", ".zarray", ".zgroup") if found.get(name) is not None), None)
    names = (kind, ".zattrs") if kind is not None else ()
    documents = {name: v3.load(document, path or "/", name, limits) for name in names if (document := found.get(name)) is not None}
    return documents or None


async def read(store: ReadableStore, path: str, limits: Limits, zarr_format: ZarrFormat | None = None) -> Metadata | None:
    """The metadata of the node at ``path``, ``None`` where there is no node; v3 comes first where both formats are there."""
    documents = await fetch_documents(store, path, limits, zarr_format)
    return None if documents is None else parse_node(documents, path, limits)


async def read_with_catalog(
    store: ReadableStore, path: str, limits: Limits, zarr_format: ZarrFormat | None = None, *, group: bool = False
) -> tuple[Metadata, catalog.Catalog | None] | None:
    """The metadata of the node at ``path``, and its consolidated metadata where it is a group that has some; ``None`` without a node.

    With ``group``, and ``zarr_format=2``, only the consolidated document is asked for, unless there is none.
    """
    documents: Documents | None = None
    consolidated: Consolidated | None = None
    if zarr_format != 2:
        documents = await fetch_documents(store, path, limits, 3)
        if documents is not None and MEMBER in documents["zarr.json"] and documents["zarr.json"].get("node_type") == "group":
            consolidated = parse_v3(documents["zarr.json"][MEMBER], path)
            documents = {"zarr.json": {key: value for key, value in documents["zarr.json"].items() if key != MEMBER}}
    if documents is None and zarr_format != 3:
        first = [".zmetadata"] if zarr_format == 2 and group else [".zmetadata", *NAMES_V2]
        found = dict(zip(first, await fetch(store, path, first, limits), strict=True))
        if found[".zmetadata"] is not None and found.get(".zarray") is None:
            consolidated = read_v2(found[".zmetadata"], path, limits)
            documents = consolidated.documents.get("")
        if documents is None or ".zgroup" not in documents:
            if len(first) == 1:
                found = dict(zip(NAMES_V2, await fetch(store, path, NAMES_V2, limits), strict=True))
            documents = loaded(found, path, limits)
    metadata = None if documents is None else parse_node(documents, path, limits)
    if metadata is None:
        return None
    if consolidated is None or isinstance(metadata, ArrayMetadata):
        return metadata, None
    return metadata, catalog.Catalog(store, path, consolidated)


def read_v2(document: Buffer, path: str, limits: Limits) -> Consolidated:
    """The consolidated metadata in a ``.zmetadata``."""
    try:
        members = v3.load(document, path or "/", ".zmetadata", limits)
    except MetadataError as error:
        raise MetadataError(f"{error}{HINT}", path=path or "/") from None
    return parse_v2(members, path)


async def exists(store: ReadableStore, path: str) -> bool:
    """Whether there is a node of either format at ``path``, whatever its documents say."""
    names = ("zarr.json", ".zarray", ".zgroup")
    found = await gather(lambda name: store.get(key_of(path, name), ByteRange(0, 1)), names, len(names))
    return any(part is not None for part in found)


# Writing


def serialize(metadata: Metadata) -> dict[str, bytes]:
    """The documents of a node by their names, the one that makes the node exist last."""
    documents = v3.serialize(metadata) if metadata.zarr_format == 3 else v2.serialize(metadata)
    return {name: documents[name] for name in sorted(documents, key=lambda name: name != ".zattrs")}


def checked(path: str, metadata: Metadata, limits: Limits) -> dict[str, bytes]:
    """The documents of a new node at ``path``; ``MetadataError`` where the name or they are not legal, or beyond the limits."""
    if metadata.zarr_format not in (2, 3):
        raise MetadataError(f"{path or '/'}: zarr_format must be 2 or 3, not {metadata.zarr_format!r:.100}", path=path)
    check_name(path, metadata.zarr_format)
    documents = serialize(metadata)
    parse_node({name: v3.load(document, path or "/", name, limits) for name, document in documents.items()}, path, limits)
    return documents


def as_documents(serialized: Mapping[str, bytes]) -> Documents:
    """Serialized documents as the consolidated metadata have them."""
    return {name: json.loads(document) for name, document in serialized.items()}


def format_of(documents: Documents) -> ZarrFormat:
    """The format of the node with these documents."""
    return 3 if "zarr.json" in documents else 2


async def write(store: WritableStore, path: str, metadata: Metadata) -> None:
    """Store the documents of a node."""
    for name, document in serialize(metadata).items():
        await store.set(key_of(path, name), document)


def hold(store: object, path: str) -> locks.Hold:
    """Holds the lock of the node at ``path`` for the time of an ``async with``."""
    return locks.locks_of(store).hold(key_of(path, ""))


async def create(store: ReadableStore, path: str, metadata: Metadata, limits: Limits, *, overwrite: bool) -> Store:
    """Create a node, and groups above it where there are none; the store, which can be written to.

    Raises ``NodeExistsError`` where a node is there already and ``overwrite`` is false, and where an array is above it. With
    ``overwrite``, what is at and below the node is erased first; nothing is erased where there is no node.
    """
    writable = expect_store(store)
    await ready(catalog, locks)
    serialized = checked(path, metadata, limits)  # whatever cannot be expressed must not cost what is there
    through = catalog.WriteThrough(writable, metadata.zarr_format, limits)
    async with hold(store, path):
        found, surroundings = await both(
            exists(store, path), look_above(writable, dict.fromkeys(above(path), path), metadata.zarr_format, limits)
        )
        if found and not overwrite:
            raise exists_error(path)
        if found:
            await erase(writable, path, limits)
        made = await create_groups(writable, surroundings.missing, metadata.zarr_format, limits)
        if overwrite:
            await put(writable, path, serialized)
        elif not await put_new(writable, path, serialized):
            raise exists_error(path)
        await through.apply({**made, path: as_documents(serialized)}, consolidated=surroundings.consolidated)
    return writable


def expect_store(store: ReadableStore) -> Store:
    """``store``, if it can be written to and listed."""
    if not isinstance(store, Store):
        raise StoreError(f"{store!r} cannot be written to and listed")
    return store


def exists_error(path: str) -> NodeExistsError:
    """The error for a new node where there is one."""
    return NodeExistsError(
        f"there is a node at {path or '/'!r} already; pass overwrite=True to replace it and all that is below it", path=path
    )


async def put(store: WritableStore, path: str, serialized: Mapping[str, bytes]) -> None:
    """Store the documents of a node, one after the other."""
    for name in left_behind(serialized):
        await store.erase(key_of(path, name))
    for name, document in serialized.items():
        await store.set(key_of(path, name), document)


def left_behind(serialized: Mapping[str, bytes]) -> list[str]:
    """What a node with these documents does not have, and a creation that never came to its end may have left in its place."""
    return [".zattrs"] if serialized.keys() & {".zarray", ".zgroup"} and ".zattrs" not in serialized else []


async def put_new(store: WritableStore, path: str, serialized: Mapping[str, bytes]) -> bool:
    """As ``put``; ``False`` where another process has made the node meanwhile, as far as the store can tell."""
    conditional = as_conditional(store)
    if conditional is None:
        await put(store, path, serialized)
        return True
    *first, last = serialized  # the one that makes the node exist
    for name in left_behind(serialized):
        await store.erase(key_of(path, name))
    await put(store, path, {name: serialized[name] for name in first})
    try:
        await conditional.set_if(key_of(path, last), serialized[last], None)
    except PreconditionFailedError:
        return False
    return True


class Surroundings(NamedTuple):
    """What is above some paths: those where there is no node, from the top down, and the groups that are consolidated."""

    missing: list[str]
    consolidated: list[str]


async def look_above(store: ReadableStore, below: Mapping[str, str], zarr_format: ZarrFormat, limits: Limits) -> Surroundings:
    """What is at the paths ``below``, each of which is above another path; ``NodeExistsError`` where it is an array.

    ``consolidated`` are groups of this format.
    """

    async def look(top: str) -> tuple[bool, bool]:
        documents = await fetch_documents(store, top, limits)
        if documents is None:
            return True, False
        if isinstance(parse_node(documents, top, limits), ArrayMetadata):
            raise NodeExistsError(
                f"cannot create {below[top]!r}: there is an array at {top or '/'!r}, and arrays have no nodes below them", path=top
            )
        if zarr_format == 3:
            return False, MEMBER in documents.get("zarr.json", {})
        return False, await store.get(key_of(top, ".zmetadata"), ByteRange(0, 1)) is not None

    tops = sorted(below, key=depth)
    found = await gather(look, tops, catalog.REQUESTS)
    missing = [top for top, (absent, _) in zip(tops, found, strict=True) if absent]
    return Surroundings(missing, [top for top, (_, consolidated) in zip(tops, found, strict=True) if consolidated])


async def create_groups(store: Store, paths: Iterable[str], zarr_format: ZarrFormat, limits: Limits) -> dict[str, Documents]:
    """Make a group at each of ``paths`` where nobody has made a node meanwhile; the documents of those that were made."""
    made = {}
    serialized = serialize(GroupMetadata(zarr_format))
    for path in paths:
        async with hold(store, path):
            documents = await fetch_documents(store, path, limits)
            if documents is None and await put_new(store, path, serialized):
                made[path] = as_documents(serialized)
                continue
            documents = documents or await fetch_documents(store, path, limits)  # of another process
            if documents is not None and isinstance(parse_node(documents, path, limits), ArrayMetadata):
                raise NodeExistsError(f"there is an array at {path or '/'!r}, and arrays have no nodes below them", path=path)
    return made


# Changing


async def change(
    store: ReadableStore,
    path: str,
    name: str,
    edit: Edit,
    limits: Limits,
    own: Metadata,
    *,
    claim: Callable[[Buffer | None], bytes] | None = None,
    stored: Callable[[Metadata], None] = lambda _: None,
) -> Metadata:
    """The node's metadata after its document ``name`` has become what ``edit`` makes of it; others lose nothing by it.

    ``claim`` answers the claim that the document is to carry afterwards, by default the one that it carried. ``stored`` is called as soon
    as the document is stored, in the order in which that is done in this process. Raises ``NodeNotFoundError`` where there is no node of
    the format of ``own`` any more, and ``MetadataError`` where it would not be legal any more.
    """
    if not isinstance(store, WritableStore):
        raise StoreError(f"{store!r} cannot be written to")
    gone = NodeNotFoundError(f"there is no node of Zarr v{own.zarr_format} at {path or '/'!r} in {store!r} any more", path=path)
    through = catalog.WriteThrough(store, own.zarr_format, limits)
    rest = [each for each in names_of(own.zarr_format) if each != name]
    changed: Documents = {}
    metadata: Metadata | None = None

    async def edited(old: Buffer | None) -> bytes | None:
        nonlocal changed, metadata
        documents = loaded({**others, name: old}, path, limits)
        metadata = None if documents is None else parse_node(documents, path, limits)
        if documents is None or metadata is None:
            raise gone
        members = edit(metadata, documents.get(name, {}))
        document = v3.dump(members, name) if members else None
        if document is not None and len(document) > limits.metadata_nbytes:
            raise MetadataError(
                f"{path or '/'}: {name} would have {len(document)} bytes where {limits.metadata_nbytes} are accepted", path=path
            )
        changed = {each: value for each, value in documents.items() if each != name}
        if document is not None:
            changed = {**changed, name: json.loads(document)}
        metadata = parse_node(changed, path, limits)
        return None if document is None else document + (claim or claims.claim_of)(old)

    async with hold(store, path):
        others = dict(zip(rest, await fetch(store, path, rest, limits), strict=True))
        await rewriting.rewrite(store, key_of(path, name), edited, part=limits.document)
        if metadata is None:
            raise gone
        stored(metadata)
        again = partial(fetch_documents, store, path, limits, own.zarr_format)
        await through.apply({path: changed}, held=[path], own=path if ".zgroup" in changed else None, again=again)
    return metadata


async def erase(store: Store, path: str, limits: Limits, *, held: Collection[str] = ()) -> None:
    """Erase what is at and below ``path``, for whoever holds its lock: first from consolidated metadata, then the node, then the rest.

    ``held`` are the paths of other locks that the caller holds.
    """
    throughs = [catalog.WriteThrough(store, 3, limits), catalog.WriteThrough(store, 2, limits)]
    for through in throughs:
        await through.apply({}, [path], held=held)
    for name in ("zarr.json", ".zarray", ".zgroup"):
        await store.erase(key_of(path, name))
    await erase_below(store, path)
    for through in throughs:
        if through.disturbed:
            await through.apply({}, [path], held=held)


async def erase_below(store: WritableStore, path: str) -> None:
    """Erase every value below ``path``."""
    try:
        await store.erase_prefix(prefix_of(path))
    finally:
        locks.locks_of(store).changed_below(prefix_of(path))


async def delete(store: ReadableStore, path: str, limits: Limits, *, listed: bool = False) -> None:
    """Delete the node at ``path`` and all below it; ``NodeNotFoundError`` where there is none, unless it is ``listed`` nevertheless."""
    writable = expect_store(store)
    async with hold(store, path):
        if not listed and not await exists(store, path):
            raise NodeNotFoundError(f"there is no array or group at {path or '/'!r} in {store!r} that could be deleted", path=path)
        await erase(writable, path, limits)
