"""azarr and zarr-python read what the other has written."""

from __future__ import annotations

import asyncio
import json
import math
import tempfile

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import azarr

zarr = pytest.importorskip("zarr", minversion="3.4", reason="needs zarr 3.4 or later: run 'nox -s interop', which installs it")

from zarr.core.buffer import default_buffer_prototype  # noqa: E402  # not before it is known that there is zarr
from zarr.core.buffer.cpu import Buffer  # noqa: E402
from zarr.core.sync import sync  # noqa: E402
from zarr.testing import strategies as zarr_strategies  # noqa: E402

bounded = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


def open_with_zarr(store, path=""):
    return zarr.open_array(zarr_store(store), path=path, mode="r+")


def zarr_store(store):
    """zarr-python's store for the same folder; a copy of it for a store in memory."""
    if isinstance(store, azarr.LocalStore):
        return zarr.storage.LocalStore(store.root)
    return zarr.storage.MemoryStore({key: Buffer.from_bytes(bytes(value)) for key, value in store._values.items()})


async def azarr_store(store):
    """A copy of zarr-python's store."""

    async def content():
        return {key: (await store.get(key, default_buffer_prototype())).to_bytes() async for key in store.list()}

    return azarr.MemoryStore(await asyncio.to_thread(sync, content()))


def create_with_zarr(case, store, name=None):
    """The array of a case, created by zarr-python and with nothing written."""
    options = {}
    if case.zarr_format == 3:
        if case.needs_sharding_codec:
            options = {"chunks": case.shards, "serializer": case.sharding, "compressors": None}
        else:
            shards = None if case.shards is None else {"shape": case.shards, "index_location": case.index_location}
            options = {"chunks": case.chunks, "shards": shards, "filters": case.filters or None, "serializer": case.bytes_codec}
            options["compressors"] = list(case.compressors) or None
        options["dimension_names"] = case.dimension_names
    else:
        options = {"chunks": case.chunks, "filters": None, "compressors": case.compressors[0] if case.compressors else None}
        options["order"] = case.order
    key_encoding, separator = case.keys
    return zarr.create_array(
        store,
        name=name,
        shape=case.shape,
        dtype=case.stored if case.zarr_format == 2 else case.native,
        fill_value=case.fill,
        chunk_key_encoding={"name": key_encoding, "separator": separator},
        attributes=dict(case.attributes),
        zarr_format=case.zarr_format,
        **options,
    )


def write_with_zarr(case, store, name=None):
    array = create_with_zarr(case, store, name)
    array[case.written] = case.values[case.written]
    return array


def check_zarr(case, array):
    """Fail unless zarr-python says of ``array`` what the case says."""
    assert (array.shape, array.dtype.newbyteorder("="), array.chunks, array.shards) == (case.shape, case.native, case.chunks, case.shards)
    assert array.metadata.zarr_format == case.zarr_format
    case.check(np.asarray(array.fill_value, case.native), np.asarray(case.fill))
    assert dict(array.attrs) == case.attributes
    if case.zarr_format == 3:
        assert array.metadata.dimension_names == case.dimension_names
        assert array.metadata.chunk_key_encoding.separator == case.keys[1]
    else:
        assert array.metadata.order == case.order
        assert array.metadata.dimension_separator == case.keys[1]


async def test_zarr_python_reads_what_azarr_writes(case, folder):
    await case.write(folder)
    array = open_with_zarr(folder)
    check_zarr(case, array)
    case.check(array[...])


async def test_azarr_reads_what_zarr_python_writes(case, folder):
    write_with_zarr(case, zarr_store(folder))
    array = await azarr.open_array(folder)
    case.check_azarr(array)
    case.check(await array.read())
