"""azarr and zarr-python read, and change, arrays whose chunks differ in length that the other has written."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr
from azarr.chunk_grids import RectilinearGrid

zarr = pytest.importorskip("zarr", minversion="3.4", reason="needs zarr 3.4 or later; 'nox -s interop' installs it and runs these tests")

from zarr.codecs import BytesCodec, ShardingCodec  # noqa: E402  # not before it is known that there is zarr
from zarr.core.buffer import default_buffer_prototype  # noqa: E402
from zarr.core.buffer.cpu import Buffer  # noqa: E402
from zarr.core.sync import sync  # noqa: E402
from zarr.testing import strategies as zarr_strategies  # noqa: E402

# what zarr-python says of the data types that have no specification in v3
pytestmark = pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification:FutureWarning")

patient = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(autouse=True, scope="module")
def rectilinear_chunks():
    """zarr-python takes such arrays for experimental, and has to be asked for them."""
    with zarr.config.set({"array.rectilinear_chunks": True}):
        yield


async def zarr_store(store):
    return zarr.storage.MemoryStore({key: Buffer.from_bytes(bytes(await store.get(key))) async for key in store.list_prefix()})


def azarr_store(store):
    async def content():
        return {key: (await store.get(key, default_buffer_prototype())).to_bytes() async for key in store.list()}

    return azarr.MemoryStore(sync(content()))


def chunk_shapes(array):
    """The chunks of zarr-python's array as azarr has them: of one length, or of several along each axis."""
    return tuple(each if isinstance(each, int) else list(each) for each in array.metadata.chunk_grid.chunk_shapes)


async def check(theirs, data):
    """Fail unless azarr finds the same array, chunks and elements; the whole, and parts."""
    array = await azarr.open_array(azarr_store(theirs.store), theirs.path)
    expected = np.asarray(theirs[...])
    assert isinstance(array.metadata.chunk_grid, RectilinearGrid)
    assert array.chunks == chunk_shapes(theirs)
    assert array.metadata.chunk_grid.grid_shape == theirs._chunk_grid.grid_shape
    assert dict(array.attrs) == dict(theirs.attrs)
    np.testing.assert_array_equal(await array.read(), expected, strict=True)
    basic = data.draw(zarr_strategies.basic_indices(shape=theirs.shape))
    np.testing.assert_array_equal(await array[basic], expected[basic])
    outer, of_numpy = data.draw(zarr_strategies.orthogonal_indices(shape=theirs.shape))
    np.testing.assert_array_equal(await array.oindex[outer], expected[of_numpy])
    blocks, block_slices = data.draw(zarr_strategies.block_indices(chunk_sizes=theirs.write_chunk_sizes))
    if all(block.step in (None, 1) for block in blocks if isinstance(block, slice)):
        np.testing.assert_array_equal(await array.blocks[blocks], expected[block_slices])


@patient
@given(theirs=zarr_strategies.rectilinear_arrays(), data=st.data())
async def test_azarr_reads_arrays_of_zarr_pythons_strategies(theirs, data):
    await check(theirs, data)


@patient
@given(made=zarr_strategies.complex_rectilinear_arrays(), data=st.data())
async def test_azarr_reads_arrays_of_many_chunks(made, data):
    await check(made[1], data)


@st.composite
def declared(draw):
    """A shape, chunks as documents have them, run by run or one by one, and what zarr-python makes of them."""
    shape = draw(st.lists(st.integers(0, 12), min_size=1, max_size=3).map(tuple))
    return shape, *draw(zarr_strategies.rectilinear_chunk_shape_declarations(shape=shape).filter(lambda made: not has_only_steps(made)))


def has_only_steps(made):
    return all(isinstance(each, int) for each in made[1])


@patient
@given(array=declared(), data=st.data())
async def test_zarr_python_reads_what_azarr_writes_and_azarr_what_it_changes(array, data, basic_keys):
    shape, chunks, meant = array
    ours = await azarr.create_array(azarr.MemoryStore(), "a", shape=shape, dtype="int32", chunks=chunks, fill_value=-1)
    expected = np.full(shape, -1, np.int32)
    first, second = data.draw(basic_keys(shape)), data.draw(basic_keys(shape))
    expected[first] = value = np.arange(expected[first].size, dtype=np.int32).reshape(expected[first].shape)
    await ours[first].write(value)
    theirs = zarr.open_array(await zarr_store(ours.store), path="a", mode="r+")
    assert theirs.metadata.chunk_grid.chunk_shapes == meant
    np.testing.assert_array_equal(theirs[...], expected)
    expected[second] = 1000
    theirs[second] = 1000
    changed = await azarr.open_array(azarr_store(theirs.store), "a")
    assert changed.metadata == ours.metadata
    np.testing.assert_array_equal(await changed.read(), expected)


@pytest.mark.parametrize("ours_first", [True, False])
async def test_shards_of_different_lengths(ours_first):
    shape, chunks = (10, 9), [[2, 4, 4], [3, 6]]
    expected = np.arange(90, dtype="int32").reshape(shape)
    if ours_first:
        sharding = azarr.codecs.Sharding((2, 3), (azarr.codecs.Bytes(),))
        ours = await azarr.create_array(
            azarr.MemoryStore(), shape=shape, dtype="int32", chunks=chunks, serializer=sharding, compressors=None
        )
        await ours.write(expected)
        found = zarr.open_array(await zarr_store(ours.store))[...]
    else:
        sharding = ShardingCodec(chunk_shape=(2, 3), codecs=[BytesCodec()])
        theirs = zarr.create_array(
            zarr.storage.MemoryStore(), shape=shape, dtype="int32", chunks=chunks, serializer=sharding, compressors=None
        )
        theirs[...] = expected
        found = await (await azarr.open_array(azarr_store(theirs.store))).read()
    np.testing.assert_array_equal(found, expected)
