from __future__ import annotations

import asyncio
import json
import math
import re
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import azarr
from azarr.codecs import Crc32c
from azarr.crew import LEFT
from azarr.data_types import data_type_for
from azarr.errors import ChecksumError, CodecError, SelectionError, StoreError, WriteError
from azarr.writing import conform
from tests.joined_shards import joined
from tests.patient_store import cancel, chunks_of

WAYS = ["blocking", "awaited", "local"]
LAYOUTS = {"plain": {}, "sharded": {"shards": (4, 6)}, "index first": {"shards": {"shape": (4, 6), "index_location": "start"}}}
NUMBERS = np.arange(1, 97, dtype="i4").reshape(8, 12)

every_way = pytest.mark.parametrize("way", WAYS)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def store(way, tmp_path):
    """A store that blocks, one that is awaited, and one of files."""
    if way == "local":
        return azarr.LocalStore(tmp_path, durability="none")
    return azarr.MemoryStore() if way == "blocking" else azarr.LatencyStore(azarr.MemoryStore(), 0)


async def make(store, layout="plain", **options):
    options = {"shape": (8, 12), "dtype": "<i4", "chunks": (2, 3), **LAYOUTS[layout], **options}
    return await azarr.create_array(store, **options)


async def keys(store):
    return sorted([key async for key in store.list_prefix("") if key.startswith("c")])


async def content(store):
    return {key: bytes(await store.get(key)) for key in await keys(store)}


# What is stored


@every_way
@every_layout
async def test_each_chunk_or_shard_is_one_key(store, layout):
    array = await make(store, layout)
    await array.write(NUMBERS)
    rows, columns = (4, 4) if layout == "plain" else (2, 2)
    assert await keys(store) == sorted(f"c/{row}/{column}" for row in range(rows) for column in range(columns))
    assert np.array_equal(await array, NUMBERS)


@every_way
async def test_the_bytes_of_a_chunk_are_what_the_specification_says(store):
    array = await make(store, shape=(3, 4), chunks=(2, 3), dtype=">u2", order="F", compressors=None, fill_value=9)
    await array.write(np.arange(12).reshape(3, 4))
    assert np.frombuffer(await store.get("c/0/0"), ">u2").tolist() == [0, 4, 1, 5, 2, 6]
    # what hangs over the edge is fill value
    assert np.frombuffer(await store.get("c/1/1"), ">u2").tolist() == [11, 9, 9, 9, 9, 9]


@every_way
@every_layout
async def test_chunks_of_nothing_but_fill_value_are_not_stored(store, layout):
    array = await make(store, layout, fill_value=-1)
    await array.write(-1)
    assert await keys(store) == []
    await array[4:6, 6:9].write(5)
    assert len(await keys(store)) == 1
    assert (await array[4:6, 6:9] == 5).all()
    assert (await array[:4] == -1).all()


@every_way
@every_layout
@pytest.mark.parametrize("whole", [True, False])
async def test_chunks_that_are_overwritten_with_fill_value_are_erased(store, layout, whole):
    array = await make(store, layout, fill_value=-1)
    await array.write(NUMBERS)
    before = len(await keys(store))
    if whole:
        await array[:4, :6].write(-1)
    else:
        for row in range(4):
            await array[row, :6].write(np.full(6, -1))
    assert len(await keys(store)) == before - (4 if layout == "plain" else 1)
    expected = NUMBERS.copy()
    expected[:4, :6] = -1
    assert np.array_equal(await array, expected)


@every_way
async def test_an_inner_chunk_that_is_overwritten_with_fill_value_leaves_its_shard(store):
    array = await make(store, "sharded")
    await array.write(NUMBERS)
    before = len(await store.get("c/0/0"))
    await array[:2, :3].write(0)
    assert len(await store.get("c/0/0")) < before
    parts = array.source._layout.split(await store.get("c/0/0"))
    assert [part is None for part in parts] == [True, False, False, False]


@every_way
@every_layout
@pytest.mark.parametrize(
    ("dtype", "fill_value", "other"),
    [("f4", 0.0, -0.0), ("f8", -0.0, 0.0), ("f4", math.nan, 1.0), ("c8", complex(0.0, -0.0), 0j), ("c16", complex(math.nan, 1), 1.0)],
)
async def test_fill_value_is_told_bit_by_bit(store, layout, dtype, fill_value, other):
    array = await make(store, layout, dtype=dtype, fill_value=fill_value)
    await array.write(np.dtype(dtype).type(fill_value))
    assert await keys(store) == []
    await array.write(np.dtype(dtype).type(other))
    assert await keys(store) != []
    assert (await array).tobytes() == np.full((8, 12), other, dtype).tobytes()
    await array[1].write(np.dtype(dtype).type(fill_value))
    assert (await array[1]).tobytes() == np.full(12, fill_value, dtype).tobytes()


async def test_another_nan_than_the_fill_value_is_stored():
    store = azarr.MemoryStore()
    array = await make(store, dtype="f8", fill_value=math.nan, compressors=None)
    odd = np.array(0x7FF8_0000_0000_0123, "u8").view("f8")
    await array.write(odd)
    assert (await array).view("u8").ravel().tolist() == [0x7FF8_0000_0000_0123] * 96


# Parts of chunks


@every_way
@every_layout
async def test_a_partial_write_keeps_the_rest(store, layout):
    array, expected = await make(store, layout), NUMBERS.copy()
    await array.write(NUMBERS)
    for number, key in enumerate([(3, 5), (slice(1, 7), 4), (slice(None, None, 3), slice(1, None, 2)), (..., -1), slice(7, 8)]):
        expected[key] = -number
        await array[key].write(-number)
        assert np.array_equal(await array, expected)


@every_way
@every_layout
async def test_a_partial_write_of_a_missing_chunk_fills_the_rest(store, layout):
    array = await make(store, layout, fill_value=7)
    await array[3, 4].write(1)
    expected = np.full((8, 12), 7)
    expected[3, 4] = 1
    assert np.array_equal(await array, expected)
    assert len(await keys(store)) == 1


@pytest.mark.parametrize(
    ("layout", "key", "requests"),
    [
        ("plain", ..., 16),
        ("plain", slice(0, 2), 4),
        ("plain", (0, 0), 2),
        ("plain", slice(1, 4), 4 * 2 + 4),
        ("plain", slice(3, 3), 0),
        ("sharded", ..., 4),
        ("sharded", slice(0, 4), 2),
        ("sharded", slice(0, 2), 2 * 2),
    ],
    ids=repr,
)
async def test_only_what_is_written_in_part_is_read_first(layout, key, requests):
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    array = await make(store, layout)
    before = store.requests
    await array[key].write(3)
    assert store.requests - before == requests


@every_layout
async def test_a_store_that_blocks_is_read_only_for_what_is_written_in_part(layout):
    """And for what hangs over the edge of the array, which may be longer by now than this object knows."""

    class Recording(azarr.MemoryStore):
        read = ()

        def get_blocking(self, key, byte_range=None, reserve=None):
            self.read = (*self.read, key)
            return super().get_blocking(key, byte_range, reserve)

        def chunks_read(self):
            keys, self.read = self.read, ()
            return sorted(key for key in keys if key.startswith("c/"))

    store = Recording()
    array = await make(store, layout, shape=(8, 11))
    await array.write(3)
    edge = [f"c/{row}/3" for row in range(4)] if layout == "plain" else ["c/0/1", "c/1/1"]
    assert store.chunks_read() == edge
    await array[4:, :6].write(3)
    assert store.chunks_read() == []
    await array[4:, :5].write(4)
    assert store.chunks_read() == (["c/2/1", "c/3/1"] if layout == "plain" else ["c/1/0"])


async def test_what_becomes_fill_value_when_it_is_converted_is_not_stored():
    store = azarr.MemoryStore()
    array = await make(store, dtype="f4")
    await array.write(np.full((8, 12), 1e-300))
    assert await keys(store) == []


async def test_the_edge_of_the_array_is_written_without_reading():
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    array = await make(store, shape=(7, 11), shards=None)
    before = store.requests
    await array.write(3)
    assert store.requests - before == 16


@every_way
@every_layout
async def test_what_hangs_over_the_edge_is_kept_as_the_array_may_be_longer_by_now(store, layout):
    array = await make(store, layout)
    await array.write(NUMBERS)
    shorter = azarr.AsyncArray(store, "", array.metadata.with_shape((7, 11)))
    await shorter.write(-1)
    expected = NUMBERS.copy()
    expected[:7, :11] = -1
    assert np.array_equal(await array, expected)
    await shorter[6:].write(0)
    expected[6, :11] = 0
    assert np.array_equal(await array, expected)
    assert "c/3/0" in await keys(store) or layout != "plain"


@every_way
@every_layout
async def test_all_that_the_array_has_of_a_damaged_unit_can_be_overwritten(store, layout):
    array = await make(store, layout, shape=(7, 11), compressors=Crc32c())
    await array.write(NUMBERS[:7, :11])
    key = "c/3/3" if layout == "plain" else "c/1/1"
    await store.set(key, bytes(byte ^ 1 for byte in await store.get(key)))
    with pytest.raises(ChecksumError):
        await array[6, 10].write(0)
    await array.write(5)
    assert (await array == 5).all()


@every_way
@every_layout
@pytest.mark.parametrize("step", [1, 5])
async def test_writers_of_one_chunk_lose_nothing_of_each_other(store, layout, step):
    array = await make(store, layout, chunks=(4, 6), shards=None if layout == "plain" else (8, 12))
    other = await azarr.open_array(store)
    writes = [
        (array if row % 2 else other)[row, column : column + step].write(NUMBERS[row, column : column + step])
        for row in range(8)
        for column in range(0, 12, step)
    ]
    await asyncio.gather(*writes)
    assert np.array_equal(await array, NUMBERS)


@every_way
async def test_a_damaged_chunk_is_not_overwritten_in_part(store):
    array = await make(store, compressors=Crc32c())
    await array.write(NUMBERS)
    damaged = bytearray(await store.get("c/1/1"))
    damaged[0] ^= 1
    await store.set("c/1/1", damaged)
    before = await content(store)
    with pytest.raises(ChecksumError) as caught:
        await array[2, 3].write(0)
    assert caught.value.coords == (1, 1)
    assert await content(store) == before
    await array[2:4, 3:6].write(0)  # all of it, so that nothing of the damage is needed
    assert (await array[2:4, 3:6] == 0).all()


@every_way
@pytest.mark.parametrize("where", ["index", "inner chunk"])
async def test_a_damaged_shard_is_not_overwritten_in_part(store, where):
    array = await make(store, "sharded", compressors=Crc32c())
    await array.write(NUMBERS)
    damaged = bytearray(await store.get("c/1/1"))
    damaged[-9 if where == "index" else 0] ^= 1
    await store.set("c/1/1", damaged)
    before = await content(store)
    with pytest.raises(ChecksumError) as caught:
        await array[4, 6].write(0)
    assert caught.value.coords is not None
    assert await content(store) == before


@every_way
async def test_a_damaged_inner_chunk_can_be_overwritten_as_a_whole(store):
    array = await make(store, "sharded", shape=(7, 11), compressors=Crc32c())
    await array.write(NUMBERS[:7, :11])
    layout, shard = array.source._layout, bytes(await store.get("c/1/1"))
    parts = [None if part is None else flipped(bytes(part)) for part in layout.split(shard)]
    await store.set("c/1/1", joined(layout, parts))
    with pytest.raises(ChecksumError):
        await array[6, 10].write(0)
    await array[4:6, 6:9].write(1)  # a whole inner chunk
    await array[6:, 9:].write(2)  # all that the array has of one
    assert (await array[4:6, 6:9] == 1).all()
    assert (await array[6:, 9:] == 2).all()
    with pytest.raises(ChecksumError):
        await array.read()


def flipped(value):
    return bytes([value[0] ^ 1]) + value[1:]


# What is refused


@every_way
@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((8, 11)), "does not broadcast"),
        (np.zeros((1, 8, 12), "i4"), "does not broadcast"),
        (np.zeros(8, "i4"), "does not broadcast"),
        (np.zeros(0, "i4"), "does not broadcast"),
        (1.5, "float64 does not fit into int32"),
        (np.float32(1), "float32 does not fit"),
        (1j, "complex128 does not fit"),
        ("one", "does not fit"),
        (b"one", "does not fit"),
        (None, "does not fit"),
        (np.datetime64("2020-01-01"), "does not fit"),
        (np.timedelta64(1, "s"), "does not fit"),
        ({}, "does not fit"),
        (2**31, "values from 2147483648 to 2147483648 do not fit into int32"),
        (-(2**31) - 1, "do not fit into int32"),
        (2**70, "does not fit"),
        ([[1], [1, 2]], "not an array"),
        (np.array([1] * 11 + [2**40]), "values from 1 to 1099511627776"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_value_that_does_not_fit_is_refused_and_nothing_written(store, value, message):
    array = await make(store)
    await array[2:].write(7)
    before = await content(store)
    with pytest.raises(WriteError, match=message) as caught:
        await array.write(value)
    assert isinstance(caught.value, ValueError)
    assert await content(store) == before


@every_way
async def test_an_impossible_selection_is_refused_and_nothing_written(store):
    array = await make(store)
    for key in (8, (0, 12), (0, 0, 0), slice(None, None, 0), [0], None):
        with pytest.raises(SelectionError):
            await array[key].write(1)
    assert await keys(store) == []


async def test_a_store_that_cannot_be_written_to_says_so():
    class ReadOnly:
        def __init__(self, store):
            self._store = store

        def __repr__(self):
            return "<ReadOnly>"

        async def get(self, key, byte_range=None):
            return await self._store.get(key, byte_range)

    store = azarr.MemoryStore()
    await (await make(store)).write(NUMBERS)
    array = await azarr.open_array(ReadOnly(store))
    assert np.array_equal(await array, NUMBERS)
    with pytest.raises(StoreError, match="<ReadOnly> cannot be written to"):
        await array.write(1)


@pytest.mark.parametrize("wrapped", [False, True], ids=["blocking", "awaited"])
@every_layout
async def test_a_store_that_fails_is_an_error_and_each_chunk_is_old_or_new(faulty_store, wrapped, layout):
    store = azarr.LatencyStore(faulty_store, 0) if wrapped else faulty_store
    array = await make(store, layout)
    await array.write(NUMBERS)
    faulty_store.failing.add("c/1/1")
    for key, value in ((..., NUMBERS + 1000), ((slice(None), 4 if layout == "plain" else 7), 0)):
        with pytest.raises(StoreError, match="cannot reach 'c/1/1'") as caught:
            await array[key].write(value)
        assert caught.value.key == "c/1/1"
    assert asyncio.all_tasks() == {asyncio.current_task()}
    faulty_store.failing.clear()
    found = await array.read()
    assert np.isin(found, [NUMBERS, NUMBERS + 1000, np.zeros_like(NUMBERS)]).all()
    rows, columns = (slice(2, 4), slice(3, 6)) if layout == "plain" else (slice(4, 8), slice(6, 12))
    assert np.array_equal(found[rows, columns], NUMBERS[rows, columns])


async def test_a_partial_write_never_takes_what_cannot_be_read_for_missing(faulty_store):
    for store in (faulty_store, azarr.LatencyStore(faulty_store, 0)):
        array = await make(store, overwrite=True)
        await array.write(NUMBERS)
        get = faulty_store.get_blocking

        def failing(key, *args, get=get):
            if key == "c/0/0":
                raise StoreError("cannot read", key=key)
            return get(key, *args)

        faulty_store.get_blocking = failing
        with pytest.raises(StoreError, match="cannot read"):
            await array[0, 0].write(5)
        faulty_store.get_blocking = get
        assert np.array_equal(await array, NUMBERS)


async def test_the_value_is_not_changed():
    array = await make(azarr.MemoryStore(), "sharded", compressors=None)
    value = NUMBERS.copy()
    await array.write(value)
    await array[1:3, 1:5].write(0)
    assert np.array_equal(value, NUMBERS)
    value[...] = -1  # nor does the store keep it
    expected = NUMBERS.copy()
    expected[1:3, 1:5] = 0
    assert np.array_equal(await array, expected)


# Values


@every_way
@pytest.mark.parametrize(
    "value",
    [
        5,
        np.int8(5),
        np.uint64(5),
        True,
        [[5]],
        list(range(12)),
        range(12),
        np.arange(8)[:, np.newaxis],
        np.arange(96, dtype=">i8").reshape(8, 12),
        np.asfortranarray(NUMBERS),
        NUMBERS[::-1, ::-1],
        np.arange(12, dtype="u1"),
        np.broadcast_to(np.int32(3), (8, 12)),
        memoryview(np.arange(12, dtype="i4")),
        -(2**31),
        2**31 - 1,
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)[:40]),  # the same in every process
)
async def test_whatever_numpy_makes_an_array_of_is_broadcast(store, value):
    array = await make(store)
    await array.write(value)
    assert np.array_equal(await array, np.broadcast_to(np.asarray(value).astype("i4"), (8, 12)))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("f4", 1), ("f4", 0.1), ("f2", np.float64(1e-9)), ("c8", 1.5), ("c8", 1 + 2j), ("f8", True), ("u1", False), ("bool", True)],
    ids=repr,
)
async def test_values_of_a_kind_that_fits_are_converted(dtype, value):
    array = await make(azarr.MemoryStore(), dtype=dtype)
    await array.write(value)
    assert np.array_equal(await array, np.full((8, 12), value, dtype))


@pytest.mark.parametrize(
    ("dtype", "value"), [("bool", 1), ("bool", 0.0), ("i4", 1.0), ("f4", 1j), ("u1", 256), ("u1", -1), ("u8", -1)], ids=repr
)
def test_kinds_that_do_not_fit(dtype, value):
    with pytest.raises(WriteError):
        conform(value, data_type_for(np.dtype(dtype)), (2,))


async def test_numbers_beyond_the_range_of_a_float_are_infinite_or_refused():
    for value in (1e300, 2**200 * 1.0, np.array([1, 1e39])):
        array = await make(azarr.MemoryStore(), shape=2, chunks=1, shards=None, dtype="f4")
        try:
            await array.write(value)
        except WriteError:
            assert (await array == 0).all()
        else:
            assert np.isinf(await array).any()


@given(st.data(), st.sampled_from(["i1", "u1", "i4", "u8"]), st.sampled_from(["bool", "i1", "u2", "i8", "u8", "f4", "c16"]))
def test_whole_numbers_are_stored_as_they_are_or_refused(data, dtype, source):
    value = data.draw(npst.arrays(source, st.integers(0, 4)))
    bounds = np.iinfo(dtype)
    if source == "bool" or (value.dtype.kind in "iu" and all(bounds.min <= number <= bounds.max for number in value.tolist())):
        assert conform(value, data_type_for(np.dtype(dtype)), value.shape).astype(dtype).tolist() == value.tolist()
    else:
        with pytest.raises(WriteError):
            conform(value, data_type_for(np.dtype(dtype)), value.shape)


@every_way
@pytest.mark.parametrize("shape", [(0,), (5, 0)], ids=repr)
async def test_writing_nothing_writes_nothing(store, shape):
    array = await make(store, shape=shape, chunks=2)
    await array.write(np.ones(shape, "i4"))
    await array.write(3)
    with pytest.raises(WriteError):
        await array.write(np.ones((3, 3, 3)))
    assert await keys(store) == []


@every_way
async def test_a_scalar_array(store):
    for shards in (None, ()):
        array = await make(store, shape=(), chunks=(), shards=shards, overwrite=True)
        await array.write(7)
        assert await keys(store) == ["c"]
        assert (await array)[()] == 7
        await array[...].write(np.array(0))
        assert await keys(store) == []


@every_way
async def test_a_damaged_chunk_in_a_shard_names_itself_and_not_the_shard(store):
    array = await make(store, shape=(8, 12), chunks=(2, 3), shards=(4, 6), compressors=Crc32c(), overwrite=True)
    await array.write(NUMBERS)
    shard = bytearray(await store.get("c/1/1"))
    shard[0] ^= 1  # of its first chunk
    await store.set("c/1/1", shard)
    before = await content(store)
    with pytest.raises(ChecksumError) as caught:
        await array[4, 6].write(0)
    assert caught.value.coords == (2, 2)
    assert await content(store) == before
    await array[7, 11].write(0)  # another chunk of that shard


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_a_chunk_that_cannot_be_encoded_names_itself(zarr_format, monkeypatch):
    array = await make(azarr.MemoryStore(), zarr_format=zarr_format)
    codec = type(array.metadata.codecs[-1])

    def refuse(self, data):
        raise CodecError("cannot", codec=self.name)

    monkeypatch.setattr(codec, "encode", refuse)
    with pytest.raises(CodecError, match="cannot") as caught:
        await array[3, 4].write(1)
    assert caught.value.coords == (1, 1)
    assert caught.value.codec == "zstd"


@pytest.mark.parametrize("dtype", ["<i4", "<M8[s]"])
@pytest.mark.parametrize("blocking", [True, False])
async def test_what_is_written_is_stored_where_the_fill_value_is_undefined(dtype, blocking):
    document = {"zarr_format": 2, "shape": [4], "chunks": [2], "dtype": dtype, "compressor": None, "fill_value": None, "order": "C"}
    memory = azarr.MemoryStore({".zarray": json.dumps(document).encode()})
    array = await azarr.open_array(memory if blocking else azarr.LatencyStore(memory, 0))
    fill = np.array([array.fill_value] * 2, dtype)
    await array[:2].write(fill)
    assert bytes(await memory.get("0")) == fill.tobytes()
    assert await memory.get("1") is None
    await array[3].write(fill[0])
    assert bytes(await memory.get("1")) == fill.tobytes()


# Writes that wait for a disk


async def test_workers_go_on_while_what_they_wrote_waits_for_the_disk(patient, until):
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 10, engine)
        writing = asyncio.create_task(array.write(np.arange(1, 11)))
        await until(lambda: len(patient.begun) == 10)
        assert patient.ended == []
        patient.go.set()
        await writing
        assert sorted(patient.ended) == sorted(patient.begun) == await keys(patient)
        assert np.array_equal(await array, np.arange(1, 11))


async def test_workers_wait_for_a_disk_that_is_slower_than_they_are(patient, until):
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 100, engine)
        writing = asyncio.create_task(array.write(np.arange(1, 101)))
        most = LEFT + engine.waiters.workers + engine.executor.workers
        await until(lambda: len(patient.begun) > LEFT)
        await asyncio.sleep(0.02)  # time enough to begin more, if they did
        assert len(patient.begun) <= most
        patient.go.set()
        await writing
        assert np.array_equal(await array, np.arange(1, 101))


@pytest.mark.parametrize("count", [1, 2])
async def test_workers_who_have_nothing_to_go_on_with_wait_themselves(patient, count):
    async with azarr.Engine(workers=2) as engine:
        array = await chunks_of(patient, count, engine)
        await array.write(np.arange(1, count + 1))
        assert patient.begun == []
        assert len(patient.ended) == count


async def test_a_write_that_fails_in_the_end_fails_and_lets_go_of_its_locks(patient):
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 8, engine)
        patient.failing = "c/3"
        patient.go.set()
        with pytest.raises(StoreError, match="cannot write 'c/3'"):
            await array.write(np.arange(1, 9))
        patient.failing = None
        async with asyncio.timeout(30):
            await array.write(np.arange(2, 10))
        assert np.array_equal(await array, np.arange(2, 10))


async def test_a_cancelled_write_ends_only_when_what_has_begun_has_ended(patient, until):
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 10, engine)
        writing = asyncio.create_task(array.write(np.arange(1, 11)))
        await until(lambda: patient.begun)
        await cancel(writing, patient)
        async with asyncio.timeout(30):
            await array.write(7)
        assert (await array).tolist() == [7] * 10


async def test_what_has_begun_ends_when_the_engine_is_closed_meanwhile(patient):
    engine = azarr.Engine(workers=1)
    array = await chunks_of(patient, 10, engine)
    ended = patient.begin_set

    def closing(key, value):
        engine.close_workers()
        return ended(key, value)

    patient.begin_set = closing
    patient.go.set()
    async with asyncio.timeout(30):
        await array.write(np.arange(1, 11))
    assert sorted(patient.ended) == sorted(patient.begun) == await keys(patient)


async def test_no_thread_that_waits_is_left_behind(patient, until):
    before = set(threading.enumerate())
    patient.go.set()
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 10, engine)
        await array.write(3)
        assert len(set(threading.enumerate()) - before) > 1
    await until(lambda: set(threading.enumerate()) <= before)
