"""Opening and creating arrays and groups: where a user comes in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy.typing as npt

from azarr import documents
from azarr.array import AsyncArray
from azarr.creation import array_metadata
from azarr.engine import Engine, default_engine
from azarr.group import AsyncGroup, expect_array, expect_group, open_node
from azarr.metadata.model import GroupMetadata
from azarr.stores.base import ReadableStore
from azarr.stores.urls import open_store
from azarr.types import JSON

StoreLike: TypeAlias = str | os.PathLike[str] | ReadableStore
"""Where a hierarchy is: a folder's path, a URL, or a store."""


async def open(
    store: StoreLike, path: str = "", *, zarr_format: Literal[2, 3] | None = None, engine: Engine | None = None
) -> AsyncArray | AsyncGroup:
    """The array or group at ``path`` in ``store``.

    Args:
        store: A folder's path, a ``file://`` URL, or a store object.
        path: The node inside the store; the root by default.
        zarr_format: Look for this format only; by default v3 is looked for first, then v2.
        engine: The limits and workers to use; by default the running loop has one of its own.

    Raises:
        NodeNotFoundError: There is no node.
        MetadataError: Its metadata is malformed, or needs what azarr does not have.
        StoreError: The store failed.

    """
    return await open_node(open_store(store), documents.normalize(path), engine, zarr_format)


async def open_array(
    store: StoreLike, path: str = "", *, zarr_format: Literal[2, 3] | None = None, engine: Engine | None = None
) -> AsyncArray:
    """The array at ``path`` in ``store``; as ``open``, and ``NodeNotFoundError`` where a group is there."""
    return expect_array(await open(store, path, zarr_format=zarr_format, engine=engine))


async def open_group(
    store: StoreLike, path: str = "", *, zarr_format: Literal[2, 3] | None = None, engine: Engine | None = None
) -> AsyncGroup:
    """The group at ``path`` in ``store``; as ``open``, and ``NodeNotFoundError`` where an array is there."""
    return expect_group(await open(store, path, zarr_format=zarr_format, engine=engine))


async def create_array(
    store: StoreLike,
    path: str = "",
    *,
    shape: Sequence[int] | int | None = None,
    dtype: npt.DTypeLike | None = None,
    like: AsyncArray | None = None,
    overwrite: bool = False,
    engine: Engine | None = None,
    **options: Any,
) -> AsyncArray:
    """A new array at ``path`` in ``store``, all fill value; groups above it are created too.

    Args:
        store: A folder's path, a ``file://`` URL, or a store object.
        path: The node inside the store; the root by default.
        shape: The length of each dimension.
        dtype: A NumPy data type; its byte order is kept by the ``bytes`` codec.
        like: An array from which everything is taken that is not given here, except its data.
        overwrite: Erase what is there already instead of raising.
        engine: The limits and workers to use; by default the running loop has one of its own.
        **options: ``chunks`` (a shape, one length for all dimensions, or ``"auto"``, the default: at most 1 MiB),
            ``shards`` (a shape of whole chunks that are stored under one key, or ``{"shape": …, "index_location": "start"}``;
            none by default), ``fill_value`` (0 by default), ``compressors`` (codecs, their names or v3 objects; zstd level 3 by
            default, ``None`` for none), ``filters`` (array-to-array codecs), ``serializer`` (the array-to-bytes codec), ``order``
            (``"C"`` or ``"F"``: the order of the elements of a stored chunk), ``dimension_names``, ``attributes``,
            ``chunk_key_encoding`` (``{"name": "default" or "v2", "separator": "/" or "."}``), ``zarr_format`` (3 by default, or 2).

    Raises:
        NodeExistsError: A node is there already, or an array above it.
        MetadataError: The options do not fit together.
        StoreError: The store failed, or is read-only.

    """
    metadata = array_metadata({"shape": shape, "dtype": dtype, **options}, like=None if like is None else like.metadata)
    target, where = open_store(store), documents.normalize(path)
    await documents.create(target, where, metadata, (engine or default_engine()).limits, overwrite=overwrite)
    return AsyncArray(target, where, metadata, engine)


async def create_group(
    store: StoreLike,
    path: str = "",
    *,
    attributes: Mapping[str, JSON] | None = None,
    zarr_format: Literal[2, 3] = 3,
    overwrite: bool = False,
    engine: Engine | None = None,
) -> AsyncGroup:
    """A new group at ``path`` in ``store``; groups above it are created too.

    Raises ``NodeExistsError`` where a node is there already and ``overwrite`` is false.
    """
    metadata = GroupMetadata(zarr_format, dict(attributes or {}))
    target, where = open_store(store), documents.normalize(path)
    await documents.create(target, where, metadata, (engine or default_engine()).limits, overwrite=overwrite)
    return AsyncGroup(target, where, metadata, engine)
