"""What an array remembers of shards: reading again costs a request less, and what others have written meanwhile is read all the same."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import azarr
from azarr.stores.base import Stamped
from azarr.stores.latency import LatencyStore
from azarr.stores.local import LocalStore
from azarr.stores.memory import MemoryStore
from azarr.types import Suffix

SHAPE, CHUNKS, SHARDS = (12, 12), (3, 3), (6, 6)
DATA = np.arange(1, 145, dtype="i4").reshape(SHAPE)


class Noting(LocalStore):
    """Notes the parts of values that are asked for; ``stampless`` is one that cannot tell of which value they are."""

    stampless = False

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.requests = []

    def get_stamped_blocking(self, key, byte_range=None, reserve=None):
        self.requests.append(byte_range)
        found = super().get_stamped_blocking(key, byte_range, reserve)
        return Stamped(found.value) if self.stampless else found

    def asked(self):
        asked, self.requests = self.requests, []
        return ["index" if isinstance(each, Suffix) else "chunk" for each in asked]


class Awaited(LatencyStore):
    """The same, but asked on the loop."""

    async def get_stamped(self, key, byte_range=None):
        return self._store.get_stamped_blocking(key, byte_range)


@pytest.fixture
def inside(tmp_path):
    return Noting(tmp_path / "store", durability="none")


@pytest.fixture(params=["blocking", "awaited"])
async def array(request, inside):
    """An array whose chunks are not compressed, so that shards with the same chunks are of the same size; half of a shard is not stored."""
    store = inside if request.param == "blocking" else Awaited(inside, 0)
    array = await azarr.create_array(store, "a", shape=SHAPE, dtype="i4", chunks=CHUNKS, shards=SHARDS, compressors=None, fill_value=0)
    await array[:, 3:].write(DATA[:, 3:])
    inside.asked()
    return array


async def other(inside):
    """The same array as another process has it open."""
    return await azarr.open_array(inside, "a")


async def test_the_second_read_from_a_shard_asks_for_no_index(array, inside):
    for turn in range(3):
        np.testing.assert_array_equal(await array[0:3, 3:6], DATA[0:3, 3:6])
        assert inside.asked() == (["chunk"] if turn else ["index", "chunk"])
    np.testing.assert_array_equal(await array[4, 4], DATA[4, 4])
    assert inside.asked() == ["chunk"]
    np.testing.assert_array_equal(await array[9:, 9:], DATA[9:, 9:])
    assert inside.asked() == ["index", "chunk"]


async def test_chunks_that_are_not_stored_and_shards_that_are_not_there_are_looked_for_each_time(array, inside):
    for _ in range(2):
        assert (await array[0:3, 0:3] == 0).all()
        assert inside.asked() == ["index"]
    await inside.erase("a/c/0/0")
    for _ in range(2):
        assert (await array[0:3, 3:6] == 0).all()
        assert inside.asked()[-1] == "index"
    await array[0:3, 3:6].write(5)
    assert (await array[0:3, 3:6] == 5).all()


async def test_a_shard_that_others_replace_is_read_as_it_is(array, inside):
    await array.read()
    writer = await other(inside)
    for value in (7, 8):  # as large as before
        await writer[0:3, 3:6].write(value)
        inside.asked()
        assert (await array[0:3, 3:6] == value).all()
        assert inside.asked() == ["chunk", "index", "chunk"]
        assert (await array[0:3, 3:6] == value).all()
        assert inside.asked() == ["chunk"]
    await writer[0:3, 0:3].write(9)  # larger, with other places for its chunks
    assert (await array[0:3, 0:3] == 9).all()
    assert (await array[0:6, 3:6] == (await writer[0:6, 3:6])).all()
    await writer[0:6, 0:6].write(0)  # gone
    assert (await array[0:6, 0:6] == 0).all()


async def test_a_shard_that_became_shorter_is_read_as_it_is(array, inside):
    assert (await array[3:6, 3:6] == DATA[3:6, 3:6]).all()
    writer = await other(inside)
    await writer[0:6, 0:6].write(0)
    await writer[0:1, 0:1].write(1)
    assert (await array[3:6, 3:6] == 0).all()
    assert await array[0, 0] == 1


@pytest.mark.parametrize("part", [np.s_[0:3, 3:6], np.s_[1:3, 3:5], np.s_[4, 4]], ids=["chunk", "part", "element"])
@pytest.mark.parametrize("compressors", [None, [azarr.codecs.Zstd()]], ids=["raw", "zstd"])
async def test_without_stamps_nothing_is_remembered(inside, compressors, part):
    options = {"chunks": CHUNKS, "shards": SHARDS, "compressors": compressors}
    array = await azarr.create_array(inside, "a", shape=SHAPE, dtype="i4", **options)
    inside.stampless = True
    for data in (DATA, -DATA):
        await (await other(inside)).write(data)
        inside.asked()
        np.testing.assert_array_equal(await array[part], data[part])
        assert inside.asked() == ["index", "chunk"]


async def test_shards_in_memory_are_not_kept_by_who_has_read_them():
    store = MemoryStore()
    array = await azarr.create_array(store, shape=SHAPE, dtype="i4", chunks=CHUNKS, shards=SHARDS)
    await array.write(DATA)
    shard = store.get_blocking("c/0/0")
    held = sys.getrefcount(shard)
    await array[0:3, 0:3]
    await array.read()
    assert sys.getrefcount(shard) == held


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.sampled_from(["write", "clear", "read", "read"]), st.integers(0, 11), st.integers(0, 11), st.integers(1, 6)),
        min_size=2,
        max_size=12,
    ),
    st.booleans(),
)
def test_who_reads_while_others_write_sees_what_is_stored(tmp_path_factory, steps, awaited):
    async def main():
        inside = Noting(tmp_path_factory.mktemp("shards"), durability="none")
        options = {"shape": SHAPE, "dtype": "i4", "chunks": CHUNKS, "shards": SHARDS, "fill_value": 0}
        writer = await azarr.create_array(inside, "a", **options)
        reader = await azarr.open_array(Awaited(inside, 0) if awaited else inside, "a")
        model = np.zeros(SHAPE, "i4")
        for number, (step, row, column, length) in enumerate(steps, 1):
            part = np.s_[row : row + length, column : column + length]
            if step == "read":
                np.testing.assert_array_equal(await reader[part], model[part])
            else:
                model[part] = number if step == "write" else 0
                await writer[part].write(model[part])
        np.testing.assert_array_equal(await reader.read(), model)

    asyncio.run(main())
