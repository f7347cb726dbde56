from __future__ import annotations

import asyncio
import gc

import pytest

import azarr
from azarr.array_locks import array_locks_of
from azarr.errors import StoreError
from azarr.locks import locks_of
from azarr.stores import BlockingStore, LatencyStore, LocalStore, MemoryStore, PrefixStore
from azarr.stores.identities import Below
from azarr.testing import StoreSuite
from azarr.testing.values import ILLEGAL_PREFIXES, collect, fill, read
from azarr.types import Listing


class TestPrefixOfMemory(StoreSuite):
    def make_store(self):
        return PrefixStore(MemoryStore({"outside": b"1", "a/b": b"2", "a/bc/d": b"3"}), "a/b/")


class TestPrefixOfFiles(StoreSuite):
    keys_nest = False

    @pytest.fixture
    def store(self, tmp_path):
        return PrefixStore(LocalStore(tmp_path, durability="none"), "a/b/")


class TestPrefixOfLateMemory(StoreSuite):
    def make_store(self):
        return PrefixStore(LatencyStore(MemoryStore({"outside": b"1"}), 0.0), "a/")


class TestPrefixOfPrefix(StoreSuite):
    def make_store(self):
        return PrefixStore(PrefixStore(MemoryStore(), "a/"), "b/")


async def test_keys_have_the_prefix_in_the_store():
    whole = MemoryStore()
    store = PrefixStore(whole, "a/b/")
    await store.set("c/d", b"1")
    assert await read(whole, "a/b/c/d") == b"1"
    await whole.set("a/b/e", b"2")
    await whole.set("a/bc", b"3")
    assert await store.list_dir() == Listing(("e",), ("c/",))
    assert await collect(store.list_prefix()) == ["c/d", "e"]
    await store.erase_prefix("")
    assert await collect(whole.list_prefix()) == ["a/bc"]


async def test_nothing_outside_is_reached():
    whole = MemoryStore({"secret": b"1"})
    store = PrefixStore(whole, "a/")
    for key in ("../secret", "/secret", "b/../../secret"):
        with pytest.raises(StoreError, match="is not a key"):
            await store.get(key)
    await store.erase_prefix("")
    assert await read(whole, "secret") == b"1"


@pytest.mark.parametrize("prefix", ILLEGAL_PREFIXES)
def test_illegal_prefix_is_refused(prefix):
    with pytest.raises(StoreError):
        PrefixStore(MemoryStore(), prefix)


async def test_listing_that_is_left_is_left_in_the_store():
    class Listed(MemoryStore):
        closed = False

        async def list_prefix(self, prefix=""):
            try:
                async for key in super().list_prefix(prefix):
                    yield key
            finally:
                self.closed = True

    whole = Listed()
    await fill(whole, ["a/b", "a/c"])
    keys = PrefixStore(whole, "a/").list_prefix()
    assert await anext(keys) == "b"
    await keys.aclose()
    assert whole.closed


def test_prefixes_of_one_store_share_locks_by_the_whole_key():
    whole = MemoryStore()
    outer, inner = PrefixStore(whole, "a/"), PrefixStore(PrefixStore(whole, "a/"), "b/")
    assert inner.identity == PrefixStore(whole, "a/b/").identity == Below(whole.identity, "a/b/")
    locks = locks_of(whole)
    places = ((whole, "a/b/c"), (outer, "b/c"), (inner, "c"))
    assert [locks_of(store).acquire_or_call(key, lambda: None) for store, key in places] == [True, False, False]
    for store, key in ((inner, "c"), (outer, "b/c"), (whole, "a/b/c")):
        locks_of(store).release(key)
    assert locks._queues == {}
    assert locks_of(PrefixStore(whole, "x/")).acquire_or_call("c", lambda: None)
    assert array_locks_of(inner, "") is array_locks_of(whole, "a/b")
    assert array_locks_of(inner, "c") is array_locks_of(outer, "b/c")


@pytest.mark.parametrize("late", [False, True])
async def test_writers_through_different_prefixes_lose_nothing(late):
    whole = LatencyStore(MemoryStore(), 0.0, jitter=1e-4, seed=1) if late else MemoryStore()
    assert isinstance(PrefixStore(whole, "a/"), BlockingStore) != late
    await azarr.create_array(whole, "a/b/x", shape=60, chunks=60, dtype="i4")
    views = [
        await azarr.open_array(store, path)
        for store, path in ((whole, "a/b/x"), (PrefixStore(whole, "a/"), "b/x"), (PrefixStore(whole, "a/b/x/"), ""))
    ]
    await asyncio.gather(*(views[i % 3][i].write(i) for i in range(60)))
    assert (await views[0].read()).tolist() == list(range(60))


async def test_caches_hear_of_writes_through_any_prefix():
    whole = MemoryStore()
    async with azarr.Engine(cache=azarr.ChunkCache(2**20)) as engine:
        one = await azarr.create_array(whole, "a/x", shape=4, dtype="i4", engine=engine)
        other = await azarr.open_array(PrefixStore(whole, "a/"), "x", engine=engine)
        await one.write(1)
        assert (await other.read()).tolist() == [1] * 4
        await one.write(2)
        assert (await other.read()).tolist() == [2] * 4
        await other.write(3)
        assert (await one.read()).tolist() == [3] * 4
        await azarr.create_array(whole, "a/x", shape=4, dtype="i4", overwrite=True)
        await one.write(4)
        assert (await other.read()).tolist() == [4] * 4


async def test_two_prefixes_are_not_mixed_up_in_a_cache():
    whole = MemoryStore()
    async with azarr.Engine(cache=azarr.ChunkCache(2**20)) as engine:
        for name in ("a/", "b/"):
            array = await azarr.create_array(PrefixStore(whole, name), "x", shape=1, dtype="S2", engine=engine)
            await array.write(name.encode())
        found = [await azarr.open_array(PrefixStore(whole, name), "x", engine=engine) for name in ("a/", "b/") for _ in range(2)]
        assert [bytes((await each.read())[0]) for each in found] == [b"a/", b"a/", b"b/", b"b/"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_consolidated_metadata_are_kept_up_to_date_through_any_prefix(late, zarr_format):
    whole = LatencyStore(MemoryStore(), 0.0) if late else MemoryStore()
    part = PrefixStore(whole, "p/")
    made = await azarr.create_group(whole, "p/g", zarr_format=zarr_format)
    await made.create_array("a", shape=1, dtype="i4")
    await made.consolidate()
    there = await azarr.open_group(part, "g", zarr_format=zarr_format, use_consolidated=True)
    await there.create_array("b", shape=1, dtype="i4")
    assert [name async for name, _ in made.members()] == ["a", "b"]
    await (await azarr.open_array(whole, "p/g/b", zarr_format=zarr_format)).update_attributes({"x": 1})
    assert dict((await there.open("b")).attrs) == {"x": 1}
    inner = await azarr.open_group(PrefixStore(part, "g/"), zarr_format=zarr_format, use_consolidated=True)
    await asyncio.gather(*(group.create_array(f"n{number}", shape=1, dtype="i4") for number, group in enumerate((made, there, inner))))
    await inner.delete("a")
    for group in (made, there, inner, await azarr.open_group(whole, "p/g", zarr_format=zarr_format, use_consolidated=True)):
        assert sorted([name async for name, _ in group.members()]) == ["b", "n0", "n1", "n2"]


async def test_errors_name_own_keys(faulty_store):
    faulty_store.failing = {"a/b"}
    store = PrefixStore(faulty_store, "a/")
    for attempt in (store.get("b"), store.set("b", b""), store.get("../b")):
        with pytest.raises(StoreError) as caught:
            await attempt
        assert caught.value.key in {"b", "../b"}


async def test_locks_below_are_forgotten():
    whole = MemoryStore()
    async with locks_of(PrefixStore(whole, "a/")).hold("b"):
        assert list(locks_of(whole)._queues) == ["a/b"]
    gc.collect()
    assert locks_of(whole)._queues == {}
