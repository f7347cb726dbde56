"""Chunks and shards of automatic size: within their bounds, and as large as these allow."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr
from azarr.chunk_sizes import LOCAL_NBYTES, REMOTE_NBYTES, SHARD_NBYTES, SHARD_NCHUNKS, auto_chunks, auto_shards

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

shapes = st.lists(st.integers(0, 10**7), max_size=5).map(tuple)
itemsizes = st.sampled_from([1, 2, 4, 8, 16, 64])


@patient
@given(shapes, itemsizes, st.sampled_from([LOCAL_NBYTES, REMOTE_NBYTES]))
def test_chunks_are_small_and_no_smaller_than_they_must_be(shape, itemsize, most):
    chunks = auto_chunks(shape, itemsize, most)
    nbytes = itemsize * math.prod(chunks)
    assert nbytes <= most
    assert all(1 <= chunk <= max(1, length) for chunk, length in zip(chunks, shape, strict=True))
    if itemsize * math.prod(max(1, length) for length in shape) > most:
        assert nbytes >= most // 2
    else:
        assert chunks == tuple(max(1, length) for length in shape)


def test_chunks_of_an_enormous_array():
    assert math.prod(auto_chunks((2**62,) * 3, 8)) <= LOCAL_NBYTES // 8


@patient
@given(shapes, itemsizes, st.data())
def test_shards_hold_whole_chunks_within_their_bounds(shape, itemsize, data):
    lengths = [st.integers(1, max(1, length)) for length in shape]
    chunks = data.draw(st.one_of(st.just(auto_chunks(shape, itemsize)), st.tuples(*lengths)))
    shards = auto_shards(shape, chunks, itemsize)
    counts = [max(1, -(-length // chunk)) for length, chunk in zip(shape, chunks, strict=True)]
    bound = min(SHARD_NCHUNKS, SHARD_NBYTES // (itemsize * math.prod(chunks)))
    if shards is None:
        assert math.prod(counts) == 1 or bound < 2
        return
    factors = [shard // chunk for shard, chunk in zip(shards, chunks, strict=True)]
    assert tuple(factor * chunk for factor, chunk in zip(factors, chunks, strict=True)) == shards
    assert all(factor <= count for factor, count in zip(factors, counts, strict=True))
    assert 1 < math.prod(factors) <= bound
    for factor, count in zip(factors, counts, strict=True):  # no side can be doubled
        assert factor == count or math.prod(factors) // factor * min(2 * factor, count) > bound


@pytest.mark.parametrize(
    ("shape", "dtype", "chunks", "shards"),
    [
        ((100, 100), "f4", (100, 100), None),
        ((4096, 4096), "f4", (512, 512), (4096, 2048)),
        ((365 * 20, 721, 1440), "f4", (58, 46, 90), (232, 184, 360)),
        ((10**9,), "f8", (122071,), (7812544,)),
        ((), "f8", (), None),
        ((0, 1000), "f8", (1, 1000), None),
    ],
)
def test_examples_on_a_local_store(shape, dtype, chunks, shards):
    itemsize = np.dtype(dtype).itemsize
    assert auto_chunks(shape, itemsize) == chunks
    assert auto_shards(shape, chunks, itemsize) == shards


def nbytes(array, shape):
    return array.dtype.itemsize * math.prod(shape)


@pytest.mark.parametrize("how", ["create", "group", "hierarchy", "like", "save", "copy"])
async def test_stores_whose_requests_are_awaited_get_larger_chunks(how):
    for store, least, most in [
        (azarr.MemoryStore(), 2**19, 2**20),
        (azarr.LatencyStore(azarr.MemoryStore(), 0), 4 * 10**6, 8 * 10**6),
    ]:
        options = {"shape": (3000, 3000), "dtype": "f8"}
        if how == "create":
            array = await azarr.create_array(store, **options)
        elif how == "group":
            array = await (await azarr.create_group(store)).create_array("a", **options)
        elif how == "hierarchy":
            array = (await azarr.create_hierarchy(store, {"a": options}))["a"]
        elif how == "save":
            array = await azarr.save(store, np.zeros((3000, 3000)))
        else:
            other = await azarr.create_array(azarr.MemoryStore(), chunks=10, **options)
            if how == "like":
                array = await azarr.create_array(store, like=other, chunks="auto")
            else:
                array = await azarr.copy(other, store, chunks="auto")
        assert least <= nbytes(array, array.chunks) <= most


@pytest.mark.parametrize("remote", [False, True])
@pytest.mark.parametrize("shards", ["auto", {"shape": "auto", "index_location": "start"}])
async def test_automatic_shards(remote, shards):
    memory = azarr.MemoryStore()
    store = azarr.LatencyStore(memory, 0) if remote else memory
    array = await azarr.create_array(store, shape=(20000, 20000), dtype="i4", shards=shards)
    least, most = (10**6, 2 * 10**6) if remote else (2**19, 2**20)
    assert least <= nbytes(array, array.chunks) <= most
    assert 32 * 10**6 <= nbytes(array, array.shards) <= 64 * 10**6
    assert array.metadata.codecs[0].index_location == ("end" if shards == "auto" else "start")


async def test_automatic_shards_around_given_chunks():
    array = await azarr.create_array(azarr.MemoryStore(), shape=(1000, 1000), dtype="i4", chunks=(10, 10), shards="auto")
    assert (array.chunks, array.shards) == ((10, 10), (320, 320))
    await array[:50, :50].write(np.ones((50, 50), "i4"))
    assert int((await array.read()).sum()) == 2500
    whole = await azarr.create_array(azarr.MemoryStore(), shape=(1000, 1000), dtype="i4", chunks=1000, shards="auto")
    assert (whole.chunks, whole.shards) == ((1000, 1000), None)


async def test_v2_has_no_shards_to_be_chosen():
    with pytest.raises(azarr.MetadataError, match="Zarr v2 has no shards"):
        await azarr.create_array(azarr.MemoryStore(), shape=4, dtype="i4", shards="auto", zarr_format=2)
