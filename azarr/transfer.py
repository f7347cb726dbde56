"""Copying nodes between stores, and saving and loading NumPy arrays: for those who need no array or group in hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from azarr import nodes
from azarr.array import AsyncArray
from azarr.copying import Progress, new_place
from azarr.creation import array_metadata
from azarr.documents import Metadata, checked, expect_store
from azarr.engine import Engine, default_engine
from azarr.group import AsyncGroup, copy_to, node
from azarr.hierarchy import new_group, open
from azarr.locations import place
from azarr.metadata.model import ArrayMetadata
from azarr.paths import above, child, depth, normalize
from azarr.stores.base import is_remote
from azarr.stores.urls import StoreLike
from azarr.types import Array


async def copy(
    source: AsyncArray | AsyncGroup,
    store: StoreLike,
    path: str = "",
    *,
    overwrite: bool = False,
    progress: Progress | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncArray | AsyncGroup:
    """The copy of an array, or of a group with all that is below it, at ``path`` in ``store``.

    Values are copied as they are where nothing about the chunks changes, and only those that are stored. Else the data are read and
    written in blocks, within the memory that the source's engine allows. The nodes come to exist when all data are there.

    Args:
        source: What is copied. A group's nodes are found through its consolidated metadata where it has some.
        store: A folder's path, a URL, or a store object.
        path: Where the copy is to be inside the store; the root by default.
        overwrite: Erase what is there already, before copying, instead of raising.
        progress: Called now and then with the decoded bytes that have been copied, and how many there are in all.
        storage_options: Options of the store at a path or URL, as ``open_store`` takes them.
        **options: What is to be different, as ``create_array`` takes it: ``zarr_format``, ``chunks``, ``shards``, ``compressors``,
            ``dtype``, … for each array that is copied.

    Raises:
        NodeExistsError: A node is there already, or an array above it, or one of the two places is inside of the other.
        MetadataError: The options do not fit together, or the format cannot express an array. Nothing has been written.
        CodecError: A chunk of the source is damaged. Nothing of the copy is left, as with any error.
        StoreError: A store failed, or is read-only.

    """
    target, where, format_ = await place(store, path, storage_options, options.get("zarr_format"))
    if format_ is not None:
        options["zarr_format"] = format_
    return await copy_to(source, target, where, overwrite=overwrite, progress=progress, **options)


async def save(
    store: StoreLike,
    data: object,
    path: str = "",
    *,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    engine: Engine | None = None,
    **options: Any,
) -> AsyncArray | AsyncGroup:
    """A new array with ``data``, anything NumPy makes an array of, or a new group of arrays where it is a mapping of such.

    A mapping's names may be paths, and its values mappings again. ``options`` are those of ``create_array``, for each array. The
    nodes come to exist when all data are there. Raises as ``copy`` does.
    """
    found, where, format_ = await place(store, path, storage_options, options.get("zarr_format"))
    target, engine_ = expect_store(found), engine or default_engine()
    values, options = named(data), {**options, "zarr_format": 3 if format_ is None else format_}
    metadata = {name: new_metadata(value, options, remote=is_remote(target)) for name, value in values.items()}
    for name, each in metadata.items():
        checked(child(where, name), each, engine_.limits)
    observed = engine_.observed(target, where)
    async with new_place(observed, where, metadata[""], engine_, overwrite=overwrite):
        for name, each in metadata.items():
            if isinstance(each, ArrayMetadata):
                await AsyncArray(target, child(where, name), each, engine_).write(values[name])
        await nodes.create_many(observed, {child(where, name): each for name, each in metadata.items()}, engine_, overwrite=False)
    return node(target, where, metadata[""], engine)


def new_metadata(value: Array | None, options: Mapping[str, Any], *, remote: bool) -> Metadata:
    """The metadata of an array for ``value``; those of a group for ``None``."""
    if value is None:
        return new_group(options["zarr_format"])
    return array_metadata({"shape": value.shape, "dtype": value.dtype, **options}, remote=remote)


def named(data: object) -> dict[str, Array | None]:
    """The arrays in ``data`` by their paths, nearest first, and ``None`` for each group."""
    if not isinstance(data, Mapping):
        return {"": np.asarray(data)}
    found: dict[str, Array | None] = {"": None}
    for key, value in data.items():
        name = normalize(str(key))
        found |= dict.fromkeys(above(name))
        found |= {child(name, lower): array for lower, array in named(value).items()}
    return dict(sorted(found.items(), key=lambda item: depth(item[0])))


async def load(store: StoreLike, path: str = "", *, storage_options: Mapping[str, Any] | None = None, engine: Engine | None = None) -> Any:
    """The array at ``path`` as a NumPy array, or the group there as a dictionary of what is in it, by name; as ``open``, and then read."""
    found = await open(store, path, storage_options=storage_options, engine=engine)
    if isinstance(found, AsyncArray):
        return await found.read()
    whole: dict[str, Any] = {}
    async for name, member in found.members(max_depth=None):
        *groups, last = name.split("/")
        below = whole
        for each in groups:
            below = below.setdefault(each, {})
        below[last] = await member.read() if isinstance(member, AsyncArray) else {}
    return whole
