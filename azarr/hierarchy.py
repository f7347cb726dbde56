"""Opening and creating arrays and groups: where a user comes in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy.typing as npt

from azarr.array import AsyncArray
from azarr.data_types import DataType
from azarr.deferred import DeferredModule
from azarr.engine import Engine, default_engine
from azarr.errors import MetadataError
from azarr.group import AsyncGroup, expect_array, expect_group, node, open_node
from azarr.importing import ready
from azarr.locations import place
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.paths import child, normalize
from azarr.stores.base import is_remote
from azarr.stores.urls import StoreLike
from azarr.types import JSON

if TYPE_CHECKING:
    from azarr import creation, documents
    from azarr import nodes as many_nodes
else:  # what opening does without
    creation = DeferredModule("azarr.creation")
    documents = DeferredModule("azarr.documents")
    many_nodes = DeferredModule("azarr.nodes")


async def open(
    store: StoreLike,
    path: str = "",
    *,
    zarr_format: Literal[2, 3] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
) -> AsyncArray | AsyncGroup:
    """The array or group at ``path`` in ``store``.

    Args:
        store: A folder's path, a URL, or a store object.
        path: The node inside the store; the root by default.
        zarr_format: Look for this format only; by default that of the URL, or v3 first, then v2.
        storage_options: Options of the store at a path or URL, as ``open_store`` takes them.
        engine: The limits and workers to use; by default the running loop has one of its own.

    Raises:
        NodeNotFoundError: There is no node.
        MetadataError: Its metadata is malformed, or needs what azarr does not have.
        StoreError: The store failed.

    """
    target, where, format_ = await place(store, path, storage_options, zarr_format)
    return await open_node(target, where, engine, format_)


async def open_array(
    store: StoreLike,
    path: str = "",
    *,
    zarr_format: Literal[2, 3] | None = None,
    storage_options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
) -> AsyncArray:
    """The array at ``path`` in ``store``; as ``open``, and ``NodeNotFoundError`` where a group is there."""
    target, where, format_ = await place(store, path, storage_options, zarr_format)
    return expect_array(await open_node(target, where, engine, format_, kind="array"))


async def open_group(
    store: StoreLike,
    path: str = "",
    *,
    zarr_format: Literal[2, 3] | None = None,
    use_consolidated: bool | None = None,
    storage_options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
) -> AsyncGroup:
    """The group at ``path`` in ``store``; as ``open``, and ``NodeNotFoundError`` where an array is there.

    Where the group has consolidated metadata, the documents of all nodes below it come with the one request that opens it (of Zarr v2,
    with ``zarr_format=2``). ``use_consolidated=False`` leaves them aside, which may be out of date where something other than azarr has
    changed the hierarchy; ``use_consolidated=True`` raises ``MetadataError`` where there are none.
    """
    target, where, format_ = await place(store, path, storage_options, zarr_format)
    found = await open_node(target, where, engine, format_, kind="group", use_consolidated=use_consolidated)
    return expect_group(found)


async def create_array(
    store: StoreLike,
    path: str = "",
    *,
    shape: Sequence[int] | int | None = None,
    dtype: npt.DTypeLike | DataType | Mapping[str, JSON] | None = None,
    like: AsyncArray | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    **options: Any,
) -> AsyncArray:
    """A new array at ``path`` in ``store``, all fill value; groups above it are created too.

    Args:
        store: A folder's path, a URL, or a store object.
        path: The node inside the store; the root by default.
        shape: The length of each dimension.
        dtype: A NumPy data type, whose byte order the ``bytes`` codec keeps; ``str`` or ``bytes`` for text or bytes of any length; or the
            name of a data type in v3 metadata (``"bfloat16"``, ``"r24"``), or the object that stands for it there.
        like: An array from which everything is taken that is not given here, except its data.
        overwrite: Erase what is there already instead of raising.
        storage_options: Options of the store at a path or URL, as ``open_store`` takes them.
        engine: The limits and workers to use; by default the running loop has one of its own.
        **options: ``chunks`` (a shape, in which a list of lengths may stand for a dimension; one length for all dimensions; or
            ``"auto"``, the default, see below),
            ``shards`` (a shape of whole chunks that are stored under one key, ``"auto"``, or
            ``{"shape": …, "index_location": "start"}``; none by default), ``fill_value`` (0, an empty string or "not a time" by
            default), ``compressors`` (codecs, their names or v3 objects; zstd level 3 by default, ``None`` for none), ``filters``
            (array-to-array codecs), ``serializer`` (the array-to-bytes codec; by default what suits the data type), ``order``
            (``"C"`` or ``"F"``: the order of the elements of a stored chunk), ``dimension_names``, ``attributes``,
            ``chunk_key_encoding`` (``{"name": "default" or "v2", "separator": "/" or "."}``, or a v3 object), ``zarr_format`` (3 by
            default, or 2).

    Automatic chunks are the whole array, its longest side halved until they are small enough: 0.5 to 1 MiB of decoded elements where
    the store answers at once (memory, local files), as they then decode in a millisecond; 4 to 8 MB where its requests are awaited,
    as each takes tens of milliseconds whatever its size, and the 32 that an engine has in flight fill its memory; there inside of
    shards 1 to 2 MB, as neighbours come with one request. Automatic shards hold up to 64 MB, since they are in memory as a whole
    while they are written, and up to 1024 chunks, since their index is read first; there are none where they would hold one chunk.

    Raises:
        NodeExistsError: A node is there already, or an array above it.
        MetadataError: The options do not fit together.
        StoreError: The store failed, or is read-only.

    """
    await ready(creation)
    target, where, format_ = await place(store, path, storage_options, options.get("zarr_format"))
    given = {"shape": shape, "dtype": dtype, **options, **({} if format_ is None else {"zarr_format": format_})}
    metadata = creation.array_metadata(given, like=None if like is None else like.metadata, remote=is_remote(target))
    used = engine or default_engine()
    await documents.create(used.observed(target, where), where, metadata, used.limits, overwrite=overwrite)
    return AsyncArray(target, where, metadata, engine)


async def create_group(
    store: StoreLike,
    path: str = "",
    *,
    attributes: Mapping[str, JSON] | None = None,
    zarr_format: Literal[2, 3] | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
) -> AsyncGroup:
    """A new group at ``path`` in ``store``; groups above it are created too.

    Raises ``NodeExistsError`` where a node is there already and ``overwrite`` is false.
    """
    target, where, format_ = await place(store, path, storage_options, zarr_format)
    metadata = new_group(3 if format_ is None else format_, attributes)
    used = engine or default_engine()
    await documents.create(used.observed(target, where), where, metadata, used.limits, overwrite=overwrite)
    return AsyncGroup(target, where, metadata, engine)


def new_group(zarr_format: Literal[2, 3], attributes: Mapping[str, JSON] | None = None) -> GroupMetadata:
    """The metadata of a new group; ``MetadataError`` where there is no such format."""
    if zarr_format not in (2, 3):
        raise MetadataError(f"zarr_format must be 2 or 3, not {zarr_format!r:.100}")
    return GroupMetadata(zarr_format, dict(attributes or {}))


async def create_hierarchy(
    store: StoreLike,
    nodes: Mapping[str, Mapping[str, Any] | ArrayMetadata | GroupMetadata],
    path: str = "",
    *,
    zarr_format: Literal[2, 3] | None = None,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
) -> dict[str, AsyncArray | AsyncGroup]:
    """Many new arrays and groups at once, by the names they are given in ``nodes``; groups above them are created too.

    Args:
        store: A folder's path, a URL, or a store object.
        nodes: What is to be at each path: for an array the options of ``create_array`` (``shape`` and ``dtype``, or ``like``), for a
            group ``{}`` or its ``attributes``, or in either case metadata.
        path: Where the hierarchy begins inside the store; the root by default.
        zarr_format: 2 or 3, where an option or metadata do not say it; by default that of the URL, or 3.
        overwrite: Erase what is at these paths already, and below them, instead of raising.
        storage_options: Options of the store at a path or URL, as ``open_store`` takes them.
        engine: The limits and workers to use; by default the running loop has one of its own.

    Raises:
        NodeExistsError: There is a node at one of the paths already, or an array above one. Nothing has been written.
        MetadataError: The options of a node do not fit together. Nothing has been written.
        StoreError: The store failed, or is read-only. What has been written are whole nodes.

    """
    target, top, format_ = await place(store, path, storage_options, zarr_format)
    await ready(creation, many_nodes)
    metadata = {
        normalize(name): described(each, 3 if format_ is None else format_, remote=is_remote(target)) for name, each in nodes.items()
    }
    used = engine or default_engine()
    await many_nodes.create_many(
        used.observed(target, top), {child(top, name): each for name, each in metadata.items()}, used, overwrite=overwrite
    )
    return {name: node(target, child(top, normalize(name)), metadata[normalize(name)], engine) for name in nodes}


def described(
    options: Mapping[str, Any] | ArrayMetadata | GroupMetadata, zarr_format: Literal[2, 3], *, remote: bool
) -> ArrayMetadata | GroupMetadata:
    """The metadata of a node that ``create_hierarchy`` is to make."""
    if isinstance(options, ArrayMetadata | GroupMetadata):
        return options
    given = dict(options)
    like = given.pop("like", None)
    if like is not None or given.keys() & {"shape", "dtype"}:
        return creation.array_metadata(given, like=None if like is None else like.metadata, zarr_format=zarr_format, remote=remote)
    if unknown := given.keys() - {"attributes", "zarr_format"}:
        raise TypeError(f"a group has no option {sorted(unknown)}; an array needs shape and dtype")
    return new_group(given.get("zarr_format", zarr_format), given.get("attributes"))
