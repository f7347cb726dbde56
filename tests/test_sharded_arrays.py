"""Shards in every position that the specification allows: nested, behind filters, inside compressors, with ranges of any order."""

from __future__ import annotations

import numpy as np
import pytest

import azarr
from azarr.codecs import (
    Bytes,
    CastValue,
    Conditional,
    Crc32c,
    Delta,
    Gzip,
    PackBits,
    Reshape,
    ScaleOffset,
    Sharding,
    Shuffle,
    Transpose,
    Zstd,
)
from azarr.data_types import parse_data_type
from azarr.sharded_chunks import NEAR
from azarr.stores.latency import LatencyStore
from azarr.stores.memory import MemoryStore
from azarr.types import ByteRange
from tests.joined_shards import joined

PLAIN = (Bytes("big"), Zstd(1))
INDEX = (Bytes("big"),)

ARRANGEMENTS = {
    "sharded": ((), Sharding((2, 3), PLAIN), ()),
    "index first, big-endian, without checksum": ((), Sharding((2, 3), PLAIN, INDEX, "start"), ()),
    "nested": ((), Sharding((4, 6), (Sharding((2, 3), PLAIN),)), ()),
    "nested twice, indexes at either end": (
        (),
        Sharding((4, 6), (Sharding((2, 6), (Sharding((1, 3), PLAIN),), INDEX, "start"), Crc32c())),
        (),
    ),
    "transposed outside": ((Transpose((1, 0)),), Sharding((3, 4), PLAIN), ()),
    "transposed inside": ((), Sharding((4, 6), (Transpose((1, 0)), Sharding((3, 2), PLAIN))), ()),
    "transposed around and inside": ((Transpose((1, 0)),), Sharding((6, 4), (Transpose((1, 0)), Bytes())), ()),
    "reshaped": ((Reshape((8, -1)),), Sharding((2, 4), PLAIN), ()),
    "compressed outside": ((), Sharding((2, 3), (Bytes(),)), (Zstd(1), Crc32c())),
    "conditional outside": ((), Sharding((2, 3), (Bytes(),)), (Conditional((Shuffle(4), Gzip(1))),)),
    "cast": ((ScaleOffset(-9, 1), CastValue(parse_data_type("uint8", "/"))), Sharding((2, 3), PLAIN), ()),
    "cast inside": ((), Sharding((4, 6), (CastValue(parse_data_type("int16", "/")), Sharding((2, 3), (Bytes("little"), Gzip(1))))), ()),
    "packed": ((), Sharding((2, 3), (PackBits("first_byte"),)), ()),
    "differences inside": ((), Sharding((2, 3), (Delta("<i4", "<i4"), Bytes(), Shuffle(4), Zstd(1))), ()),
}


@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("name", ARRANGEMENTS)
async def test_every_arrangement_reads_what_it_wrote(name, blocking):
    filters, serializer, compressors = ARRANGEMENTS[name]
    store = MemoryStore() if blocking else LatencyStore(MemoryStore(), 0)
    options = {"chunks": (8, 12), "filters": filters, "serializer": serializer, "compressors": compressors, "fill_value": -9}
    array = await azarr.create_array(store, "a", shape=(13, 30), dtype="i4", **options)
    expected = np.full((13, 30), -9, "i4")
    rng = np.random.default_rng(0)
    for key in [np.s_[:, :], np.s_[3:9, 5:20], np.s_[12, 29], np.s_[::3, 1::5], np.s_[0:4, 0:6]]:
        value = rng.integers(0, 100, expected[key].shape, dtype="i4")
        expected[key] = value
        await array[key].write(value)
    await array[4:8, 6:12].write(-9)
    expected[4:8, 6:12] = -9
    array = await azarr.open_array(store, "a")
    assert array.metadata.codecs == (await azarr.create_array(MemoryStore(), shape=(13, 30), dtype="i4", **options)).metadata.codecs
    np.testing.assert_array_equal(await array.read(), expected)
    for key in [np.s_[3:9, 5:20], np.s_[12, 29], np.s_[::3, 1::5]]:
        np.testing.assert_array_equal(await array[key].read(), expected[key])
    out = np.zeros_like(expected)
    async with array.stream_chunks(ordered=False) as chunks:
        async for chunk in chunks:
            out[chunk.region] = chunk.data
    np.testing.assert_array_equal(out, expected)


async def test_only_shards_without_other_codecs_are_read_in_parts():
    for name, (filters, serializer, compressors) in ARRANGEMENTS.items():
        array = await azarr.create_array(
            MemoryStore(),
            shape=(8, 12),
            dtype="i4",
            chunks=(8, 12),
            filters=filters,
            serializer=serializer,
            compressors=compressors,
            fill_value=-9,
        )
        alone = not filters and not compressors
        assert array.chunks == (serializer.chunk_shape if alone else (8, 12)), name
        assert array.shards == ((8, 12) if alone else None), name


@pytest.mark.parametrize("location", ["start", "end"])
@pytest.mark.parametrize("blocking", [True, False])
async def test_chunks_may_share_bytes_lie_apart_and_in_any_order(location, blocking):
    """A shard of four chunks: the first two are the same bytes, the third lies before them, the fourth is not stored."""
    store = MemoryStore() if blocking else LatencyStore(MemoryStore(), 0)
    codec = Sharding((2,), (Bytes(),), (Bytes(),), location)
    array = await azarr.create_array(store, shape=(8,), dtype="u1", chunks=(8,), serializer=codec, compressors=None, fill_value=7)
    base, missing = 64 if location == "start" else 0, 2**64 - 1
    index = np.array([base + 6, 2, base + 6, 2, base + 1, 2, missing, missing], "<u8").tobytes()
    body = b"\xff\5\6\xff\xff\xff\1\2\xff"
    await store.set("c/0", index + body if location == "start" else body + index)
    assert (await array.read()).tolist() == [1, 2, 1, 2, 5, 6, 7, 7]
    assert (await array[3:6].read()).tolist() == [2, 5, 6]
    await array[2:4].write([8, 9])  # must not change the chunk that shared its bytes
    assert (await array.read()).tolist() == [1, 2, 8, 9, 5, 6, 7, 7]


# --- rows of chunks that lie one behind the other


class Asked(MemoryStore):
    """Notes the parts of values that are asked for."""

    def __init__(self):
        super().__init__()
        self.parts = []

    def get_stamped_blocking(self, key, byte_range=None, reserve=None):
        self.parts.append(byte_range)
        return super().get_stamped_blocking(key, byte_range, reserve)


ROWS = np.arange(64, dtype="i4").reshape(4, 16)


async def rows(shard_of=lambda parts: parts, *, missing=()):
    """An array of one shard of four rows of four chunks, whose parts are put into it as ``shard_of`` says."""
    store = Asked()
    options = {"chunks": (1, 4), "shards": (4, 16), "compressors": [Zstd(1)], "fill_value": -1}
    array = await azarr.create_array(store, "a", shape=(4, 16), dtype="i4", **options)
    await array.write(ROWS)
    layout = array.metadata.codecs[0].layout(array.metadata.chunk_spec)
    parts = [None if number in missing else part for number, part in enumerate(layout.split(store.get_blocking("a/c/0/0")))]
    store.set_blocking("a/c/0/0", shard_of(parts) if shard_of(parts) is not parts else joined(layout, parts))
    store.parts.clear()
    return array, store


def laid_out(order, *, damage=None, gap=0):
    """A shard whose chunks are stored in another order than that of the index, with gaps, or one of them damaged."""

    def shard_of(parts):
        body, entries = bytearray(), np.full((16, 2), 2**64 - 1, "<u8")
        for number in order:
            part = bytes(parts[number])
            if number == damage:
                part = b"\0" + part[1:]
            entries[number] = len(body), len(part)
            body += part + bytes(gap)
        index = entries.tobytes()
        return bytes(body) + bytes(Crc32c().encode(index))

    return shard_of


async def test_chunks_of_one_shard_are_one_request():
    array, store = await rows()
    np.testing.assert_array_equal(await array.read(), ROWS)
    assert len([part for part in store.parts if isinstance(part, ByteRange)]) == 1


@pytest.mark.parametrize("compressors", [None, "auto"], ids=["raw", "zstd"])
async def test_chunks_that_lie_far_apart_are_requests_of_their_own(compressors, tmp_path):
    """In memory that is shared by the parts of a shard, from a store that reads into it."""
    array, store = await rows(laid_out([5, *range(5), *range(6, 16)], gap=NEAR + 1))
    np.testing.assert_array_equal(await array.read(), ROWS)
    assert len([part for part in store.parts if isinstance(part, ByteRange)]) == 16
    folder = azarr.LocalStore(tmp_path, durability="none")
    options = {"chunks": (1, 4), "shards": (4, 16), "compressors": compressors, "fill_value": -1}
    stored = await azarr.create_array(folder, "a", shape=(4, 16), dtype="i4", **options)
    await stored.write(ROWS)
    parts = stored.metadata.codecs[0].layout(stored.metadata.chunk_spec).split(folder.get_blocking("a/c/0/0"))
    folder.set_blocking("a/c/0/0", laid_out([5, *range(5), *range(6, 16)], gap=NEAR + 1)(parts))
    np.testing.assert_array_equal(await stored.read(), ROWS)
    np.testing.assert_array_equal(await stored[1:3, 5:].read(), ROWS[1:3, 5:])


@pytest.mark.parametrize("missing", [{0}, {5}, {3, 4}, {0, 1, 2, 3}, {4, 5, 7, 13}, set(range(16)) - {6}])
async def test_chunks_of_a_row_that_are_not_stored_are_fill_value(missing):
    array, _ = await rows(missing=missing)
    expected = ROWS.copy()
    for number in missing:
        expected[number // 4, number % 4 * 4 : number % 4 * 4 + 4] = -1
    np.testing.assert_array_equal(await array.read(), expected)


@pytest.mark.parametrize("gap", [0, 3])
@pytest.mark.parametrize("order", [[*range(16)], [*range(15, -1, -1)], [*range(0, 16, 2), *range(1, 16, 2)]], ids=repr)
async def test_rows_are_read_wherever_their_chunks_lie(order, gap):
    array, _ = await rows(laid_out(order, gap=gap))
    np.testing.assert_array_equal(await array.read(), ROWS)


@pytest.mark.parametrize("damage", [0, 6, 15])
async def test_a_damaged_chunk_of_a_row_is_named(damage):
    array, _ = await rows(laid_out(range(16), damage=damage))
    with pytest.raises(azarr.CodecError) as failure:
        await array.read()
    assert failure.value.coords == (damage // 4, damage % 4)


async def test_chunks_that_claim_to_be_long_are_not_read_at_once():
    def shard_of(parts):
        entries = np.full((16, 2), 2**64 - 1, "<u8")
        entries[0], entries[1] = (0, 10 * 2**20), (10 * 2**20, 10 * 2**20)
        return bytes(20 * 2**20) + bytes(Crc32c().encode(entries.tobytes()))

    array, store = await rows(shard_of)
    with pytest.raises(azarr.CodecError):
        await array[0].read()
    assert max(part.stop - part.start for part in store.parts if isinstance(part, ByteRange)) == 10 * 2**20


# --- readers beside writers


class Replacing:
    """Stores the next of ``values`` whenever something of a shard has been read; ``None`` erases it."""

    values = ()

    def get_stamped_blocking(self, key, byte_range=None, reserve=None):
        found = super().get_stamped_blocking(key, byte_range, reserve)
        if self.values and key == "a/c/0":
            value, *self.values = self.values
            if value is None:
                self.erase_blocking(key)
            else:
                self.set_blocking(key, value)
        return found


class ReplacingMemory(Replacing, MemoryStore):
    pass


class ReplacingFolder(Replacing, azarr.LocalStore):
    pass


KINDS = {
    "memory": lambda _: ReplacingMemory(),
    "local": lambda path: ReplacingFolder(path, durability="none"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "around", [None, lambda store: LatencyStore(store, 0), azarr.RetryingStore], ids=["blocking", "awaited", "retried"]
)
@pytest.mark.parametrize("compressors", [None, "auto"], ids=["raw", "zstd"])
@pytest.mark.parametrize("location", ["start", "end"])
async def test_a_shard_that_is_replaced_while_it_is_read_is_never_mixed(kind, around, location, compressors, tmp_path):
    inner = KINDS[kind](tmp_path)
    store = inner if around is None else around(inner)
    shards = {"shape": 40, "index_location": location}
    array = await azarr.create_array(store, "a", shape=40, chunks=4, dtype="i4", shards=shards, compressors=compressors)
    states, shapes = [np.zeros(40, "i4")], [None]
    for number in range(1, 4):
        states.append(np.arange(40, dtype="i4") * (np.arange(40) % (number + 1)) + 100 * number)  # of other lengths when compressed
        await array.write(states[-1])
        shapes.append(bytes(await inner.get("a/c/0")))
    for order in ([1], [1, 2], [1, 2, 3], [1, 0], [1, 0, 2], [1, 1, 2], [3, 2, 1, 2, 1, 2, 1]):
        inner.set_blocking("a/c/0", shapes[order[0]])
        inner.values = [shapes[number] for number in order[1:]]
        got = await array[2:30].read()
        for start in range(2, 30, 4):  # each chunk is as it was at some time, here all of one or the second half and the first of the next
            for part in (slice(start, start + 2), slice(start + 2, min(start + 4, 30))):
                assert any((got[part.start - 2 : part.stop - 2] == state[part]).all() for state in states), (order, got)
        inner.values = [shapes[number] for number in order]
        async with array.stream_chunks(ordered=False) as chunks:
            async for chunk in chunks:
                assert any((chunk.data == state[chunk.region]).all() for state in states)


async def test_a_shard_that_is_never_left_alone_is_an_error():
    store = ReplacingMemory()
    array = await azarr.create_array(store, "a", shape=40, chunks=4, dtype="i4", shards=40)
    await array.write(7)
    store.values = [bytearray(await store.get("a/c/0")) for _ in range(1000)]
    with pytest.raises(azarr.TransientStoreError, match="replaced each time"):
        await array.read()
