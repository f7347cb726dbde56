"""azarr and TensorStore read what the other has written, change it in turn, and agree on what arrays are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr

ts = pytest.importorskip("tensorstore", reason="needs tensorstore; 'nox -s interop' installs it and runs these tests")

patient = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

READING: dict[str, str] = {}
WRITING: dict[str, str] = {}


def spec(case, **members):
    return {"driver": "zarr" if case.zarr_format == 2 else "zarr3", **members}


async def kvstore(store, path=""):
    """TensorStore's view of the same folder, or a copy of a store in memory."""
    if isinstance(store, azarr.LocalStore):
        return await ts.KvStore.open({"driver": "file", "path": f"{store.root}/{path}"})
    copy = await ts.KvStore.open({"driver": "memory"})
    async for key in store.list_prefix():
        await copy.write(key, bytes(await store.get(key)))
    return copy


async def azarr_store(kvs):
    """A copy of a store of TensorStore's in memory."""
    return azarr.MemoryStore({key.decode(): (await kvs.read(key)).value for key in await kvs.list()})


async def create_with_tensorstore(case, kvs):
    """The array of a case, created by TensorStore from the document that the specification asks for, with nothing written."""
    return await ts.open(spec(case, metadata=case.document), kvstore=kvs, create=True)


async def write_with_tensorstore(case, kvs):
    array = await create_with_tensorstore(case, kvs)
    await array[case.written].write(case.values[case.written])
    return array


async def open_with_tensorstore(case, kvs):
    return await ts.open(spec(case), kvstore=kvs, open=True)


def check_tensorstore(case, array):
    """Fail unless TensorStore says of ``array`` what the case says."""
    assert (array.shape, array.dtype.numpy_dtype) == (case.shape, case.native)
    layout = array.chunk_layout
    assert (layout.read_chunk.shape or ()) == case.chunks
    assert (layout.write_chunk.shape or ()) == (case.shards or case.chunks)
    case.check(array.fill_value, np.asarray(case.fill))
    if case.zarr_format == 3:
        assert array.domain.labels == tuple(name or "" for name in case.dimension_names or [None] * len(case.shape))
        assert array.spec().to_json()["metadata"].get("attributes", {}) == case.attributes


# Every case, both ways


async def test_tensorstore_reads_what_azarr_writes(case, folder, known):
    known(READING)
    await case.write(folder)
    array = await open_with_tensorstore(case, await kvstore(folder))
    check_tensorstore(case, array)
    case.check(await array.read())


async def test_azarr_reads_what_tensorstore_writes(case, folder, known):
    known(WRITING)
    await write_with_tensorstore(case, await kvstore(folder))
    array = await azarr.open_array(folder)
    case.check(await array.read())
    case.check_azarr(array)


async def test_each_changes_what_the_other_has_written(fewer, folder, known):
    known(READING)
    case = fewer
    ours, theirs = await case.write(folder), await open_with_tensorstore(case, await kvstore(folder))
    (first, left), (second, right) = case.updates
    expected = case.expected.copy()
    expected[first] = left
    await theirs[first].write(left)
    case.check(await ours.read(), expected)
    expected[second] = right
    await ours[second].write(right)
    case.check(await theirs.read(), expected)
