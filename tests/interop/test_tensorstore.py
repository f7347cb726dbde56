"""azarr and TensorStore read what the other has written, change it in turn, and agree on what arrays are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr

ts = pytest.importorskip("tensorstore", reason="needs tensorstore; 'nox -s interop' installs it and runs these tests")

patient = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# What TensorStore does not have or gets wrong, by case. A test that stops failing says so.
NO_LZ4 = "TensorStore does not have the v2 codec lz4"
NO_CHECKSUM = "TensorStore's v2 codec zstd does not know 'checksum'"
NO_OUTER_CODECS = "TensorStore refuses compressors and checksums around shards"
READING = {
    **{f"codecs2-v2-lz4-{case}": NO_LZ4 for case in ("1", "1-F-big", "10", "10-F-big")},
    **{f"codecs2-v2-zstd-checksum{case}": NO_CHECKSUM for case in ("", "-F-big")},
    **{f"shards-v3-{case}-shard": NO_OUTER_CODECS for case in ("compressed", "checked")},
}
NO_NAMES = "TensorStore leaves out dimension names where no dimension has one"
WRITING = {
    **READING,
    "rest-v2-attributes": "TensorStore does not write the attributes of v2",
    "rest-v3-names-(None, None)": NO_NAMES,
    "rest-v3-names-0d": NO_NAMES,
}


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
    if case.serializer is None:  # otherwise the chunks are those of a sharding codec further down
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


async def test_tensorstore_means_the_same_by_a_document_that_azarr_has_rewritten(fewer, known):
    known(READING)
    case = fewer
    kvs = await ts.KvStore.open({"driver": "memory"})
    before = (await create_with_tensorstore(case, kvs)).spec().to_json()["metadata"]
    array = await azarr.open_array(await azarr_store(kvs))
    await array.update_attributes({"added": [1, None]})
    after = (await open_with_tensorstore(case, await kvstore(array.store))).spec().to_json()["metadata"]
    if case.zarr_format == 3:
        assert after.pop("attributes") == {**before.pop("attributes", {}), "added": [1, None]}
    case.check_documents(after, before)


# Single features


@pytest.mark.parametrize("dtype", ["bool", "int16", "float32", "complex64"])
async def test_an_undefined_fill_value_of_v2_reads_as_zero(make_case, dtype):
    case = make_case(zarr_format=2, dtype=dtype)
    kvs = await ts.KvStore.open({"driver": "memory"})
    await ts.open({"driver": "zarr", "metadata": {**case.document, "fill_value": None}}, kvstore=kvs, create=True)
    case.check(await (await azarr.open_array(await azarr_store(kvs))).read(), np.zeros(case.shape, dtype))


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_what_azarr_chooses_by_itself_suits_tensorstore(zarr_format, tmp_path):
    array = await azarr.create_array(tmp_path, shape=(30, 40), dtype="float32", zarr_format=zarr_format)
    await array.write(np.arange(1200, dtype="f4").reshape(30, 40))
    theirs = await ts.open({"driver": "zarr" if zarr_format == 2 else "zarr3", "kvstore": {"driver": "file", "path": str(tmp_path)}})
    np.testing.assert_array_equal(await theirs.read(), np.arange(1200, dtype="f4").reshape(30, 40))


async def test_what_tensorstore_chooses_by_itself_suits_azarr(tmp_path):
    for driver in ("zarr", "zarr3"):
        path = tmp_path / driver
        kvs = {"driver": "file", "path": str(path)}
        theirs = await ts.open({"driver": driver, "kvstore": kvs}, dtype=ts.float32, shape=[30, 40], create=True)
        await theirs.write(np.arange(1200, dtype="f4").reshape(30, 40))
        array = await azarr.open_array(path)
        np.testing.assert_array_equal(await array.read(), np.arange(1200, dtype="f4").reshape(30, 40))


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_chunks_of_fill_value_may_be_stored(zarr_format, make_case):
    case = make_case(zarr_format=zarr_format, dtype="float32", fill_value=np.nan, shards=(4, 6) if zarr_format == 3 else None)
    kvs = await ts.KvStore.open({"driver": "memory"})
    members = {"metadata": case.document, "store_data_equal_to_fill_value": True}
    theirs = await ts.open(spec(case, **members), kvstore=kvs, create=True)
    expected = np.full(case.shape, np.float32(np.nan))
    await theirs.write(expected)
    assert len(await kvs.list()) > 1
    case.check(await (await azarr.open_array(await azarr_store(kvs))).read(), expected)


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_a_group_of_azarr_takes_in_arrays_of_tensorstore(zarr_format, make_case, folder):
    case = make_case(zarr_format=zarr_format)
    group = await azarr.create_group(folder, zarr_format=zarr_format)
    await case.write(folder, "below/ours")
    await write_with_tensorstore(case, await kvstore(folder, "below/theirs/"))
    below = await group.open_group("below")
    assert [name async for name, _ in below.members()] == ["ours", "theirs"]
    case.check(await (await below.open_array("theirs")).read())
    case.check(await (await open_with_tensorstore(case, await kvstore(folder, "below/ours/"))).read())


# Random arrays


def suits_tensorstore(case):
    """Whether TensorStore can have such an array: it lacks lz4 in v2, and takes no name for two dimensions."""
    names = [name for name in case.dimension_names or () if name]
    return len(names) == len(set(names)) and not any(codec.get("id") == "lz4" for codec in case.compressors)


def is_named(case):
    """Whether there is a dimension name, if any; TensorStore leaves out those that are all null."""
    return case.dimension_names is None or any(name is not None for name in case.dimension_names)


@patient
@given(data=st.data())
async def test_tensorstore_reads_random_arrays_of_azarr(data, cases):
    case = data.draw(cases().filter(suits_tensorstore))
    store = azarr.MemoryStore()
    await case.write(store)
    array = await open_with_tensorstore(case, await kvstore(store))
    check_tensorstore(case, array)
    case.check(await array.read())


@patient
@given(data=st.data())
async def test_azarr_reads_random_arrays_of_tensorstore(data, cases):
    case = data.draw(cases().filter(suits_tensorstore).filter(is_named))
    kvs = await ts.KvStore.open({"driver": "memory"})
    await write_with_tensorstore(case, kvs)
    array = await azarr.open_array(await azarr_store(kvs))
    case.check_azarr(array)
    case.check(await array.read())
