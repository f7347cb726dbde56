from __future__ import annotations

import asyncio
import gzip
import itertools

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import azarr
from azarr import reading
from azarr.codecs import Crc32c, Gzip, Zstd, scratch
from azarr.errors import ChecksumError, CodecError, StoreError
from azarr.stores import page_cache
from tests.joined_shards import joined

EXPECTED = np.arange(1, 97, dtype="i4").reshape(8, 12)
"""Chunks of 2 x 3 elements in a grid of 4 x 4; shards hold 2 x 2 of them."""

WAYS = ["blocking", "awaited"]
"""The two ways to read: inside a worker from a store that blocks, and on the loop from one that is awaited."""
LAYOUTS = {"plain": {}, "sharded": {"shards": (4, 6)}, "index first": {"shards": {"shape": (4, 6), "index_location": "start"}}}

every_way = pytest.mark.parametrize("way", WAYS)
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


def seen(store, way):
    return store if way == "blocking" else azarr.LatencyStore(store, 0)


async def make(store, way, layout="plain", **options):
    """``EXPECTED``, stored."""
    options = {"shape": (8, 12), "dtype": "<i4", "chunks": (2, 3), **LAYOUTS[layout], **options}
    array = await azarr.create_array(seen(store, way), **options)
    await array.write(EXPECTED)
    return array


async def read_somehow(array, how):
    """The whole array, into a destination of one kind or another."""
    if how == "new":
        return await array.read()
    if how == "F":
        return await array.read(out=np.empty(array.shape, array.dtype, order="F"))
    return await array.read(out=np.empty([2 * length for length in array.shape], array.dtype)[(*[slice(None, None, 2)] * array.ndim, ...)])


# What is not stored


@every_way
@every_layout
@pytest.mark.parametrize("how", ["new", "F", "stepped"])
@pytest.mark.parametrize("compressors", ["auto", None])
async def test_missing_chunks_read_as_fill_value(faulty_store, way, layout, how, compressors):
    array = await make(faulty_store, way, layout, fill_value=-7, compressors=compressors)
    expected = EXPECTED.copy()
    expected[2:4, 3:9] = -7  # two chunks, of two shards
    await array[2:4, 3:9].write(-7)
    assert np.array_equal(await read_somehow(array, how), expected)
    for key in ("c/0/0", "c/1/1"):
        await faulty_store.erase(key)
    rows, columns = (2, 3) if layout == "plain" else (4, 6)
    expected[:rows, :columns] = expected[rows : 2 * rows, columns : 2 * columns] = -7
    assert np.array_equal(await read_somehow(array, how), expected)
    assert np.array_equal(await array[1:7:2, 2:], expected[1:7:2, 2:])


@every_way
@every_layout
@pytest.mark.parametrize("dtype", ["bool", "<i2", ">f4", "<c16"])
async def test_an_array_without_chunks_is_all_fill_value(way, layout, dtype):
    store = seen(azarr.MemoryStore(), way)
    array = await azarr.create_array(store, shape=(8, 12), chunks=(2, 3), dtype=dtype, fill_value=1, **LAYOUTS[layout])
    assert np.array_equal(await array, np.ones((8, 12), dtype))
    assert (await array[3, 1:]).tolist() == [1] * 11


async def test_undefined_fill_value_reads_as_zero():
    document = b'{"zarr_format":2,"shape":[4],"chunks":[2],"dtype":"<i4","compressor":null,"fill_value":null,"order":"C","filters":null}'
    array = await azarr.open_array(azarr.MemoryStore({".zarray": document, "0": b"\x01\0\0\0\x02\0\0\0"}))
    assert (await array).tolist() == [1, 2, 0, 0]


@every_way
@pytest.mark.parametrize("shape", [(0,), (5, 0), (0, 3, 2)], ids=repr)
async def test_an_array_without_elements_reads_without_requests(shape, way):
    latent = azarr.LatencyStore(azarr.MemoryStore(), 0)
    store = latent if way == "awaited" else azarr.MemoryStore()
    array = await azarr.create_array(store, shape=shape, chunks=2, dtype="i4")
    before = latent.requests
    assert (await array).shape == shape
    assert latent.requests == before


# Many chunks, little room


@pytest.mark.parametrize("options", [{}, {"shards": (20, 20)}, {"shards": (2, 200)}, {"compressors": None}], ids=repr)
@every_way
async def test_ten_thousand_chunks(way, options):
    store = seen(azarr.MemoryStore(), way)
    array = await azarr.create_array(store, shape=(200, 200), chunks=(2, 2), dtype="u2", **options)
    expected = np.arange(40_000, dtype="u2").reshape(200, 200)
    await array.write(expected)
    assert np.array_equal(await array, expected)
    assert np.array_equal(await array[::7, 1::3], expected[::7, 1::3])


@every_way
@every_layout
@pytest.mark.parametrize("limits", [{"concurrency": 1}, {"memory": 1}, {"memory": 100, "workers": 1}], ids=repr)
async def test_an_engine_with_little_room_reads_all_the_same(faulty_store, way, layout, limits):
    array = await make(faulty_store, way, layout)
    async with azarr.Engine(**limits) as engine:
        again = await azarr.open_array(seen(faulty_store, way), engine=engine)
        assert np.array_equal(await again, EXPECTED)
        assert np.array_equal(await again[1:-1, 1:-1], EXPECTED[1:-1, 1:-1])
    assert array.shape == (8, 12)


async def test_no_more_requests_are_in_flight_than_the_engine_allows():
    latent = azarr.LatencyStore(azarr.MemoryStore(), 0)
    async with azarr.Engine(concurrency=3) as engine:
        array = await azarr.create_array(latent, shape=(40, 40), chunks=(2, 2), dtype="i4", engine=engine)
        await array.write(1)
        await asyncio.gather(*(array.read() for _ in range(4)))
    assert latent.max_in_flight == 3


# What a read costs


@pytest.mark.parametrize(
    ("layout", "key", "requests"),
    [
        ("plain", ..., 16),
        ("plain", (0, 0), 1),
        ("plain", (slice(1, 3), slice(2, 4)), 4),
        ("plain", (slice(0, 0), slice(None)), 0),
        ("plain", slice(None, None, 4), 8),
        ("sharded", ..., 8),
        ("sharded", (0, 0), 2),
        ("sharded", (slice(1, 3), slice(2, 4)), 2),
        ("sharded", (slice(0, 4), slice(0, 3)), 2),  # and the chunk between the two comes along
        ("index first", (slice(3, 5), slice(5, 7)), 8),
    ],
    ids=repr,
)
async def test_requests_are_one_for_each_chunk_or_two_for_each_shard(faulty_store, layout, key, requests):
    array = await make(faulty_store, "awaited", layout)
    before = array.store.requests
    assert np.array_equal(await array[key], EXPECTED[key])
    assert array.store.requests - before == requests


async def test_a_shard_that_is_not_stored_costs_one_request(faulty_store):
    array = await make(faulty_store, "awaited", "sharded")
    await faulty_store.erase("c/0/0")
    before = array.store.requests
    assert (await array[:4, :6] == 0).all()
    assert array.store.requests - before == 1


async def test_a_shard_that_was_replaced_is_seen_by_the_next_read(faulty_store):
    for way in WAYS:
        array = await make(faulty_store, way, "sharded", overwrite=True)
        assert np.array_equal(await array, EXPECTED)
        other = await azarr.open_array(faulty_store)
        await other[:3].write(np.arange(36).reshape(3, 12) * 1000)
        assert np.array_equal((await array)[:3], np.arange(36).reshape(3, 12) * 1000)


# Damage


def flipped(value):
    return value[:5] + bytes([value[5] ^ 1]) + value[6:]


DAMAGE = {
    "truncated": ({}, lambda value: value[:-1], CodecError),
    "empty": ({}, lambda value: b"", CodecError),
    "garbage": ({}, lambda value: b"garbage", CodecError),
    "truncated, uncompressed": ({"compressors": None}, lambda value: value[:-1], CodecError),
    "too long, uncompressed": ({"compressors": None}, lambda value: value + b"x", CodecError),
    "too long": ({"compressors": Gzip(1)}, lambda value: gzip.compress(bytes(25)), CodecError),
    "too short": ({"compressors": Gzip(1)}, lambda value: gzip.compress(bytes(23)), CodecError),
    "wrong checksum": ({"compressors": Crc32c()}, flipped, ChecksumError),
    "wrong checksum of zstd": (
        {"compressors": Zstd(checksum=True)},
        lambda value: value[:-1] + bytes([value[-1] ^ 1]),
        ChecksumError,
    ),
    "wrong checksum within": (
        {"compressors": [Crc32c(), Gzip(1)]},
        lambda value: gzip.compress(flipped(gzip.decompress(value))),
        ChecksumError,
    ),
    "bomb": ({}, lambda value: zstandard.compress(bytes(2**26)), CodecError),
    "bomb of two stages": ({"compressors": [Gzip(1), Zstd()]}, lambda value: zstandard.compress(gzip.compress(bytes(2**26))), CodecError),
    "big endian": ({"compressors": None, "dtype": ">i4"}, lambda value: value[:-1], CodecError),
    "order F": ({"compressors": Crc32c(), "order": "F"}, flipped, ChecksumError),
}


@every_way
@pytest.mark.parametrize("damage", DAMAGE)
async def test_a_damaged_chunk_is_an_error_that_names_it(faulty_store, way, damage):
    options, harm, error = DAMAGE[damage]
    array = await make(faulty_store, way, **options)
    key = "c/1/2"
    await faulty_store.set(key, harm(bytes(await faulty_store.get(key))))
    for view in (array, array[2:4, 6:9], array[3, 7], array[1:5, ::2]):
        for how in ("new", "F", "stepped"):
            with pytest.raises(error, match=r"chunk \(1, 2\)") as caught:
                await read_somehow(view, how)
            assert caught.value.coords == (1, 2)
            assert caught.value.codec
    assert np.array_equal(await array[:2], EXPECTED[:2])
    assert np.array_equal(await array[2:, :6], EXPECTED[2:, :6])


@every_way
@pytest.mark.parametrize("damage", ["truncated", "empty", "too long", "wrong checksum", "big endian", "order F", "bomb"])
@pytest.mark.parametrize("layout", ["sharded", "index first"])
async def test_a_damaged_inner_chunk_is_an_error_that_names_it(faulty_store, way, layout, damage):
    options, harm, error = DAMAGE[damage]
    array = await make(faulty_store, way, layout, **options)
    layout_ = array.source._layout
    parts = layout_.split(bytes(await faulty_store.get("c/0/1")))
    number = layout_.number((1, 0))  # of the grid's (1, 2)
    parts[number] = harm(bytes(parts[number]))
    await faulty_store.set("c/0/1", joined(layout_, parts))
    for view in (array, array[2:4, 6:9], array[3, 7], array[1:5, ::2]):
        with pytest.raises(error) as caught:
            await view.read()
        assert caught.value.coords == (1, 2)
    assert np.array_equal(await array[:2], EXPECTED[:2])
    assert np.array_equal(await array[2:, :6], EXPECTED[2:, :6])


def harmed_index(layout, shard, number, entry):
    """The shard with another entry in its index, and the right checksum."""
    entries = layout.index_of(shard)._entries.copy()
    entries[number] = entry
    index = bytes(layout._index_pipeline.encode(entries.reshape(layout._index_pipeline.spec.shape)))
    nbytes = layout.index_nbytes
    return index + shard[nbytes:] if layout.index_location == "start" else shard[:-nbytes] + index


EMPTY = 2**64 - 1


@every_way
@pytest.mark.parametrize("layout", ["sharded", "index first"])
@pytest.mark.parametrize(
    "entry", [(10**6, 24), (0, 10**6), (EMPTY, 24), (0, EMPTY), (2**63, 2**63), (2**64 - 24, 24), (2**62, 2**62 - 1)], ids=repr
)
async def test_an_inner_chunk_outside_its_shard_is_an_error_that_names_it(faulty_store, way, layout, entry):
    array = await make(faulty_store, way, layout, compressors=None)
    layout_ = array.source._layout
    number = layout_.number((1, 0))  # of the grid's (1, 2)
    await faulty_store.set("c/0/1", harmed_index(layout_, bytes(await faulty_store.get("c/0/1")), number, entry))
    for view in (array, array[2:4, 6:9], array[3, 7], array[1:5, ::2]):
        with pytest.raises(CodecError, match="shard") as caught:
            await view.read()
        assert caught.value.coords == (1, 2)
    assert np.array_equal(await array[:2], EXPECTED[:2])


@every_way
@pytest.mark.parametrize("layout", ["sharded", "index first"])
@pytest.mark.parametrize("how", ["checksum", "cut off", "empty"])
async def test_a_damaged_index_is_an_error_that_names_a_chunk_of_its_shard(faulty_store, way, layout, how):
    array = await make(faulty_store, way, layout)
    shard = bytearray(await faulty_store.get("c/0/1"))
    shard[3 if layout == "index first" else -9] ^= 1
    await faulty_store.set("c/0/1", {"checksum": shard, "cut off": shard[:30], "empty": b""}[how])
    for view in (array, array[2:4, 6:9], array[3, 7], array[1:5, ::2]):
        with pytest.raises(ChecksumError if how == "checksum" else CodecError) as caught:
            await view.read()
        assert caught.value.coords in {(0, 2), (0, 3), (1, 2), (1, 3)}
    assert np.array_equal(await array[:, :6], EXPECTED[:, :6])


@every_way
async def test_a_shard_without_checksum_and_with_shared_bytes_reads(faulty_store, way):
    serializer = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [2],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "big"}}],
        },
    }
    store = seen(faulty_store, way)
    array = await azarr.create_array(store, shape=6, chunks=6, dtype="<i2", serializer=serializer, compressors=None, fill_value=9)
    assert (array.chunks, array.shards) == ((2,), (6,))
    entries = np.array([[3, 4], [EMPTY, EMPTY], [1, 4]], ">u8")
    await faulty_store.set("c/0", b"\xff\x01\x02\x03\x04\x05\x06\x07gap" + entries.tobytes())
    assert (await array).tolist() == [0x0403, 0x0605, 9, 9, 0x0201, 0x0403]
    assert (await array[1:5]).tolist() == [0x0605, 9, 9, 0x0201]


# Failing stores


@every_way
@every_layout
@pytest.mark.parametrize("compressors", ["auto", None])
async def test_what_a_store_cannot_fetch_is_never_taken_for_missing(faulty_store, way, layout, compressors):
    array = await make(faulty_store, way, layout, fill_value=5, compressors=compressors)
    faulty_store.failing.add("c/1/1")
    row, column = (2, 3) if layout == "plain" else (4, 6)
    for view in (array, array[row, column], array[1:, 1::2]):
        with pytest.raises(StoreError, match="cannot reach 'c/1/1'") as caught:
            await view.read()
        assert caught.value.key == "c/1/1"
        assert type(caught.value) is StoreError, "the error comes out bare"
    assert np.array_equal(await array[:row], EXPECTED[:row])
    faulty_store.failing.clear()
    assert np.array_equal(await array, EXPECTED)


@every_way
@every_layout
async def test_nothing_is_left_running_after_an_error(faulty_store, way, layout):
    array = await make(faulty_store, way, layout)
    faulty_store.failing |= {f"c/{row}/{column}" for row, column in itertools.product(range(4), range(4))}
    with pytest.raises(StoreError):
        await array.read()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@every_way
async def test_another_exception_of_a_store_comes_out_as_it_is(way):
    class Broken(azarr.MemoryStore):
        def get_blocking(self, key, byte_range=None, reserve=None):
            if key.startswith("c/"):
                raise ZeroDivisionError(key)
            return super().get_blocking(key, byte_range, reserve)

    array = await make(Broken(), way)
    with pytest.raises(ZeroDivisionError):
        await array.read()


@every_way
async def test_reading_writes_nothing(faulty_store, way):
    array = await make(faulty_store, way, "sharded")
    await faulty_store.erase("c/0/0")
    before = dict(faulty_store._values)
    await array.read()
    await array[1:3, 4].read()
    assert faulty_store._values == before


# Rows of small chunks in files, which are read and decoded in one go


@pytest.mark.parametrize("compressors", ["auto", None, [Gzip()]])
@given(missing=st.sets(st.integers(0, 11)), fill_value=st.integers(0, 3))
@settings(deadline=None, max_examples=30)
def test_rows_with_any_chunks_missing(tmp_path_factory, compressors, missing, fill_value):
    async def main():
        store = azarr.LocalStore(tmp_path_factory.mktemp("store"), durability="none")
        array = await azarr.create_array(store, shape=(4, 24), chunks=(4, 2), dtype="i2", fill_value=fill_value, compressors=compressors)
        expected = np.arange(10, 106, dtype="i2").reshape(4, 24)
        await array.write(expected)
        for number in missing:
            store.erase_blocking(f"c/0/{number}")
            expected[:, 2 * number : 2 * number + 2] = fill_value
        assert np.array_equal(await array.read(), expected)
        assert np.array_equal(await array.read(out=np.empty((4, 24), "i2", order="F")), expected)

    asyncio.run(main())


@pytest.mark.parametrize("compressors", ["auto", None])
@pytest.mark.parametrize("nbytes", [0, 5, 15, 17, 100_000])
async def test_a_damaged_chunk_in_a_row_is_named(tmp_path, compressors, nbytes):
    store = azarr.LocalStore(tmp_path)
    array = await azarr.create_array(store, shape=(4, 24), chunks=(4, 2), dtype="i2", fill_value=0, compressors=compressors)
    await array.write(np.arange(1, 97).reshape(4, 24))
    store.set_blocking("c/0/7", (b"(" * nbytes)[:nbytes])
    store.erase_blocking("c/0/3")
    with pytest.raises(CodecError) as caught:
        await array.read()
    assert caught.value.coords == (0, 7)


async def test_a_chunk_of_several_frames_in_a_row_is_read(tmp_path):
    store = azarr.LocalStore(tmp_path)
    array = await azarr.create_array(store, shape=(4, 24), chunks=(4, 2), dtype="i2", fill_value=0)
    expected = np.arange(1, 97, dtype="i2").reshape(4, 24)
    await array.write(expected)
    data = expected[:, 14:16].tobytes()
    store.set_blocking("c/0/7", zstandard.compress(data[:3]) + zstandard.compress(data[3:]))
    assert np.array_equal(await array.read(), expected)


# Single small chunks that the store has at hand


class Refusing:
    """An executor that gets nothing to do."""

    workers = 1

    def submit(self, *_):
        raise AssertionError("a worker was asked")

    def close(self):
        pass


@pytest.mark.parametrize("store", ["memory", "local"])
async def test_a_small_chunk_at_hand_needs_no_worker(tmp_path, store):
    if store == "local" and not page_cache.AVAILABLE:
        pytest.skip("only Linux can tell whether a file is in memory")
    where = azarr.MemoryStore() if store == "memory" else azarr.LocalStore(tmp_path)
    array = await azarr.create_array(where, shape=(8, 12), chunks=(4, 6), dtype="<i4", fill_value=-1, compressors=None)
    await array[:4].write(EXPECTED[:4])
    async with azarr.Engine(executor=Refusing()) as engine:
        array = await azarr.open_array(where, engine=engine)
        assert np.array_equal(await array[:4, 6:], EXPECTED[:4, 6:])
        assert np.array_equal(await array[1, 2:5], EXPECTED[1, 2:5])
        assert np.array_equal(await array[3:0:-1, 7], EXPECTED[3:0:-1, 7])
        if store == "memory":
            assert np.array_equal(await array[4:, :6], np.full((4, 6), -1))
        with pytest.raises(AssertionError, match="a worker"):
            await array[:, :6]
        where.set_blocking("c/0/1", b"short")
        with pytest.raises(CodecError) as caught:
            await array[:4, 6:]
        assert caught.value.coords == (0, 1)


async def test_a_long_value_in_place_of_a_small_chunk_is_named(tmp_path):
    store = azarr.LocalStore(tmp_path)
    array = await azarr.create_array(store, shape=(4,), chunks=(4,), dtype="i4", fill_value=0, compressors=None)
    store.set_blocking("c/0", bytes(100_000))
    with pytest.raises(CodecError, match="more than the 16 bytes"):
        await array.read()


@pytest.mark.skipif(not page_cache.AVAILABLE, reason="needs Linux, which can tell what is in memory")
async def test_a_small_file_at_hand_is_read_straight_into_the_result(tmp_path, monkeypatch):
    array = await make(azarr.LocalStore(tmp_path), "blocking", compressors=None)

    def aside(nbytes):
        raise AssertionError(f"{nbytes} bytes were read aside")

    monkeypatch.setattr(scratch.encoded, "reserve", aside)
    monkeypatch.setattr(reading, "place_run", aside)
    assert np.array_equal(await array[2:4, 3:6], EXPECTED[2:4, 3:6])


async def test_others_have_turns_beside_someone_who_reads_what_is_at_hand(turns):
    array = await azarr.create_array(azarr.MemoryStore(), shape=(4,), chunks=(4,), dtype="i4", fill_value=0, compressors=None)
    await array.write(1)
    before = turns()
    for _ in range(320):
        await array.read()
    assert turns() - before >= 10


async def test_others_have_turns_beside_many_who_read_what_is_at_hand(turns):
    array = await azarr.create_array(azarr.MemoryStore(), shape=(4,), chunks=(4,), dtype="i4", fill_value=0, compressors=None)
    await array.write(1)

    async def reader():
        for _ in range(64):
            await array.read()

    before = turns()
    await asyncio.gather(*[reader() for _ in range(16)])
    assert turns() - before >= 1024 // (16 + 16)
