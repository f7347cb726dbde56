from __future__ import annotations

import asyncio
import pickle
import time

import pytest

import azarr
from azarr.errors import StoreError
from azarr.stores import (
    BlockingStore,
    CachingStats,
    CachingStore,
    LatencyStore,
    LocalStore,
    MemoryStore,
    PrefixStore,
    ReadOnlyStore,
    RecordingStore,
    WritableStore,
)
from azarr.stores.cache_index import ENTRY_NBYTES
from azarr.stores.caching import lasts
from azarr.stores.http import HTTPStore
from azarr.testing import StoreSuite
from azarr.testing.values import PARTS, VALUE, collect, fill, read
from azarr.types import ByteRange, Suffix


class TestCachingMemory(StoreSuite):
    def make_store(self):
        return CachingStore(MemoryStore())


class TestCachingForever(StoreSuite):
    def make_store(self):
        return CachingStore(LatencyStore(MemoryStore(), 0.0, jitter=1e-4, seed=1), validate="forever", missing=True, nbytes=5000)


class TestCachingForSeconds(StoreSuite):
    def make_store(self):
        return CachingStore(LatencyStore(MemoryStore(), 0.0), MemoryStore(), validate=1000)


class TestCachingFilesInFiles(StoreSuite):
    keys_nest = False

    @pytest.fixture
    def store(self, tmp_path):
        inner = LocalStore(tmp_path / "store", durability="none")
        return CachingStore(inner, LocalStore(tmp_path / "cache", durability="none"), validate="forever")


class Tagged(LatencyStore):
    """A store in memory that tells small versions, as a web server does, and what it was asked for."""

    conditional, versioned = False, True

    @classmethod
    def _lacking(cls, *_):
        return frozenset()

    def __init__(self, values=None):
        super().__init__(MemoryStore(values), 0.0)
        self.asked = []

    async def get(self, key, byte_range=None):
        self.asked.append((key, byte_range))
        return await super().get(key, byte_range)

    async def get_stamped(self, key, byte_range=None):
        self.asked.append((key, byte_range))
        return await super().get_stamped(key, byte_range)

    async def get_versioned(self, key, byte_range=None):
        self.asked.append((key, byte_range))
        value, version = await super().get_versioned(key, byte_range)
        return azarr.stores.Versioned(value, None if version is None else f"{hash(version)}")


def stats(store, *names):
    return tuple(getattr(store.stats, name) for name in names)


async def test_what_was_asked_for_is_not_asked_for_again():
    inner = Tagged({"a": VALUE, "b": b"b"})
    store = CachingStore(inner, validate="forever")
    for _ in range(3):
        assert await read(store, "a") == VALUE
        assert await read(store, "b", Suffix(1)) == b"b"
    for byte_range, part in PARTS:
        assert await read(store, "a", byte_range) == part
    assert inner.asked == [("a", None), ("b", Suffix(1))]
    assert store.stats == CachingStats(
        hits=4 + len(PARTS), misses=2, validations=0, evictions=0, failures=0, values=2, nbytes=257 + 2 * ENTRY_NBYTES
    )
    await store.clear()
    assert stats(store, "values", "nbytes") == (0, 0)
    assert await read(store, "a") == VALUE
    assert len(inner.asked) == 3


async def test_parts_are_kept_as_they_were_asked_for():
    inner = Tagged({"a": VALUE})
    store = CachingStore(inner, validate="forever")
    for byte_range, part in PARTS[1:] * 2:
        assert await read(store, "a", byte_range) == part
    assert inner.asked == [("a", byte_range) for byte_range, _ in PARTS[1:]]


async def test_versions_tell_what_is_still_the_latest():
    inner = Tagged({"a": b"old" * 100})
    store = CachingStore(inner)
    assert await read(store, "a") == b"old" * 100
    assert await read(store, "a") == b"old" * 100
    assert await read(store, "a", ByteRange(0, 3)) == b"old"
    assert inner.asked == [("a", None), ("a", ByteRange(0, 1)), ("a", ByteRange(0, 1))]
    assert stats(store, "hits", "misses", "validations") == (2, 1, 2)
    await inner.set("a", b"new")
    assert await read(store, "a") == b"new"
    assert stats(store, "hits", "misses", "validations") == (2, 2, 3)
    await inner.erase("a")
    assert await store.get("a") is None
    assert stats(store, "values", "misses") == (0, 3)


async def test_values_are_trusted_for_so_many_seconds(monkeypatch):
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    inner = Tagged({"a": b"old"})
    store = CachingStore(inner, validate=10)
    await read(store, "a")
    await inner.set("a", b"new")
    now += 9
    assert await read(store, "a") == b"old"
    now += 1
    assert await read(store, "a") == b"new"
    assert stats(store, "misses", "validations") == (2, 1)
    now += 10
    assert await read(store, "a") == b"new"
    now += 9
    assert await read(store, "a") == b"new"
    assert stats(store, "misses", "validations") == (2, 2)


async def test_a_store_that_tells_no_versions_is_asked_again(monkeypatch):
    class Plain:
        def __init__(self):
            self.asked = 0

        async def get(self, key, byte_range=None):
            self.asked += 1
            return b"1"

    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    inner = Plain()
    with pytest.raises(ValueError, match="Plain tells no versions: choose validate='forever', or a number of seconds"):
        CachingStore(inner)
    store = CachingStore(inner, validate=10)
    await store.get("a")
    await store.get("a")
    assert inner.asked == 1
    now += 10
    await store.get("a")
    assert inner.asked == 2
    assert not isinstance(store, WritableStore)


async def test_that_a_key_is_absent_is_remembered_only_on_demand():
    inner = Tagged()
    for missing, requests in ((False, 3), (True, 1)):
        store = CachingStore(inner, validate="forever", missing=missing)
        inner.asked.clear()
        for part in (ByteRange(0, 1), None, Suffix(1)):
            assert await store.get("a", part) is None
        assert len(inner.asked) == requests
    store = CachingStore(inner, missing=True)
    assert await store.get("a") is None
    assert await store.get("a") is None
    assert stats(store, "hits", "misses", "validations") == (1, 1, 1)
    await inner.set("a", b"1")
    assert await read(store, "a") == b"1"


async def test_the_cache_is_bounded():
    cache = MemoryStore()
    store = CachingStore(
        Tagged({str(i): bytes(1000) for i in range(10)} | {"large": bytes(5000)}), cache, nbytes=3 * 1600, validate="forever"
    )
    for i in (0, 1, 2, 0, 3):
        await store.get(str(i))
    assert stats(store, "values", "evictions", "hits") == (3, 1, 1)
    await store.get("0")
    assert store.stats.hits == 2
    await store.get("1")
    assert store.stats.misses == 5
    await store.get("large")
    assert stats(store, "values", "nbytes") == (3, 3 * (1000 + ENTRY_NBYTES))
    assert len(await collect(cache.list_prefix())) == 3


@pytest.mark.parametrize("write", ["set", "erase", "erase_prefix", "set_if", "erase_if"])
async def test_what_is_written_is_forgotten(write):
    inner = Tagged({"a/b": b"old", "ab": b"other"})
    cache = MemoryStore()
    store = CachingStore(inner, cache, validate="forever", missing=True)
    for key in ("a/b", "ab"):
        for part in (None, ByteRange(1, 2)):
            await store.get(key, part)
    version = (await inner._store.get_versioned("a/b")).version
    arguments = {"set": ("a/b", b"new"), "set_if": ("a/b", b"new", version), "erase_if": ("a/b", version), "erase_prefix": ("a/",)}
    await getattr(store, write)(*arguments.get(write, ("a/b",)))
    assert len(await collect(cache.list_prefix())) == 1
    value = await store.get("a/b")
    assert (None if value is None else bytes(value)) == (b"new" if "set" in write else None)
    inner.asked.clear()
    await store.get("ab")
    assert inner.asked == []


async def test_a_write_that_fails_is_forgotten_as_well(faulty_store):
    store = CachingStore(faulty_store, validate="forever")
    faulty_store.set_blocking("a", b"1")
    await store.get("a")
    faulty_store.failing = {"a"}
    with pytest.raises(StoreError):
        await store.set("a", b"2")
    with pytest.raises(StoreError):
        await store.get("a")


async def test_one_asks_for_all(gated):
    inner = gated({"a": VALUE})
    store = CachingStore(inner, validate="forever")
    tasks = [asyncio.create_task(store.get("a")) for _ in range(5)]
    await inner.until(1)
    tasks.append(asyncio.create_task(store.get("a")))
    await asyncio.sleep(0)
    tasks[0].cancel()
    inner.opened.set()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(outcomes[0], asyncio.CancelledError)
    assert outcomes[1:] == [VALUE] * 5
    assert inner.asked == [("a", None)]
    assert stats(store, "hits", "misses") == (5, 1)


async def test_what_was_loading_while_it_was_written_is_not_kept(gated):
    inner = gated({"a": b"old"})
    cache = MemoryStore()
    store = CachingStore(inner, cache, validate="forever")
    old = asyncio.create_task(store.get("a"))
    await inner.until(1)
    await store.set("a", b"new")
    new = asyncio.create_task(store.get("a"))
    await inner.until(2)
    inner.opened.set()
    assert [await old, await new] == [b"old", b"new"]
    assert await store.get("a") == b"new"
    assert len(inner.asked) == 2
    assert len(await collect(cache.list_prefix())) == 1


async def test_what_nobody_waits_for_is_cancelled(gated, complaints):
    inner = gated({"a": b"1"})
    store = CachingStore(inner, validate="forever")
    tasks = [asyncio.create_task(store.get("a")) for _ in range(2)]
    await inner.until(1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert inner.cancelled == 1
    inner.opened.set()
    assert await store.get("a") == b"1"


def test_cancelled_anywhere(cancelled_everywhere, how_cancelled, tmp_path):
    async def prepare():
        inner = LatencyStore(MemoryStore({"a": VALUE, "b": VALUE}), 0.0)
        cache = LatencyStore(MemoryStore(), 0.0)
        store = CachingStore(inner, cache, nbytes=800)

        async def work():
            assert await store.get("a", ByteRange(0, 5)) == VALUE[:5]
            assert await store.get("b") == VALUE
            assert await store.get("b") == VALUE
            await store.set("b", b"new")
            assert await store.get("b") == b"new"

        def check():
            assert inner.in_flight == cache.in_flight == 0
            assert store.stats.values <= 1

        return work(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 5


async def test_an_error_of_the_store_is_not_kept(faulty_store):
    faulty_store.failing = {"a"}
    store = CachingStore(faulty_store, validate="forever", missing=True)
    for _ in range(2):
        with pytest.raises(StoreError):
            await store.get("a")
    faulty_store.failing = set()
    assert await store.get("a") is None
    assert stats(store, "misses", "failures") == (3, 0)


async def test_a_cache_that_fails_is_passed_over():
    class Failing(MemoryStore):
        fails = True

        async def get(self, key, byte_range=None):
            return self._fail() if self.fails else await super().get(key, byte_range)

        async def set(self, key, value):
            return self._fail() if self.fails else await super().set(key, value)

        async def erase(self, key):
            return self._fail() if self.fails else await super().erase(key)

        def _fail(self):
            raise StoreError("the disk is full")

    cache = Failing()
    store = CachingStore(MemoryStore({"a": b"1"}), cache, validate="forever")
    assert [await read(store, "a") for _ in range(2)] == [b"1", b"1"]
    assert stats(store, "misses", "failures") == (2, 2)
    cache.fails = False
    assert [await read(store, "a") for _ in range(2)] == [b"1", b"1"]
    assert stats(store, "hits", "misses", "failures") == (1, 3, 2)
    cache.fails = True
    assert await read(store, "a") == b"1"
    await store.set("a", b"2")
    cache.fails = False
    assert await read(store, "a") == b"2"


async def test_what_is_no_longer_in_the_cache_is_asked_for():
    cache = MemoryStore()
    store = CachingStore(MemoryStore({"a": b"1"}), cache, validate="forever")
    await read(store, "a")
    await cache.erase_prefix("")
    assert await read(store, "a") == b"1"
    assert await read(store, "a") == b"1"
    assert stats(store, "hits", "misses") == (1, 2)


async def test_a_cache_of_files_is_taken_over(tmp_path):
    data, files = LocalStore(tmp_path / "data"), LocalStore(tmp_path / "cache", durability="none")
    await fill(data, ["a/b", "a/c", "d"])
    inner = RecordingStore(data)
    first = CachingStore(inner, files, validate="forever")
    await read(first, "a/b")
    await read(first, "a/c", ByteRange(1, 2))
    await read(first, "d", Suffix(1))
    for store in (CachingStore(inner, files, validate="forever"), pickle.loads(pickle.dumps(first))):
        inner.clear()
        assert await read(store, "a/b") == b"a/b"
        assert await read(store, "a/b", ByteRange(2, 3)) == b"b"
        assert await read(store, "a/c", ByteRange(1, 2)) == b"/"
        assert await read(store, "d", Suffix(1)) == b"d"
        assert inner.requests == ()
        assert stats(store, "hits", "misses", "values") == (4, 0, 3)


async def test_what_is_taken_over_keeps_to_the_bound(tmp_path):
    data, files = LocalStore(tmp_path / "data"), LocalStore(tmp_path / "cache", durability="none")
    await fill(data, "abcdef")
    first = CachingStore(data, files, validate="forever")
    for key in "abcdef":
        await read(first, key)
    await files.set("no/name/of/ours", b"1")
    store = CachingStore(data, files, validate="forever", nbytes=2 * (ENTRY_NBYTES + 1))
    await store.get("missing")
    assert stats(store, "values", "evictions") == (2, 4)
    assert len(await collect(files.list_prefix())) == 3


async def test_what_was_taken_over_is_validated(tmp_path):
    inner = Tagged({"a": b"old"})
    inner.__class__ = type("Lasting", (Tagged,), {"identity": ("lasting", "x")})
    files = LocalStore(tmp_path, durability="none")
    assert await read(CachingStore(inner, files), "a") == b"old"
    store = CachingStore(inner, files)
    assert await read(store, "a") == b"old"
    assert stats(store, "hits", "misses", "validations") == (1, 0, 1)
    await inner.set("a", b"new")
    assert await read(CachingStore(inner, files), "a") == b"new"
    store = CachingStore(inner, files, validate=10)
    assert await read(store, "a") == b"new"
    assert stats(store, "hits", "misses", "validations") == (1, 0, 1)


async def test_data_are_not_mixed_up_in_one_cache(tmp_path):
    files = LocalStore(tmp_path / "cache", durability="none")
    stores = [LocalStore(tmp_path / "a"), LocalStore(tmp_path / "b"), PrefixStore(LocalStore(tmp_path / "a"), "p/")]
    stores += [MemoryStore(), MemoryStore()]
    for number, store in enumerate(stores):
        await store.set("k", str(number).encode())
    for _ in range(2):
        for number, store in enumerate(stores):
            assert await read(CachingStore(store, files, validate="forever"), "k") == str(number).encode()


def test_what_lives_in_memory_does_not_last(tmp_path):
    files, memory = LocalStore(tmp_path), MemoryStore()
    assert lasts(files.identity)
    assert lasts(PrefixStore(files, "a/").identity)
    assert not lasts(memory.identity)
    assert not lasts(PrefixStore(memory, "a/").identity)
    assert not lasts(("object", 1))


@pytest.mark.parametrize("validate", ["etag", "forever", 1000])
async def test_parts_of_one_value_have_one_stamp(validate):
    inner = Tagged({"a": VALUE})
    store = CachingStore(inner, validate=validate)
    parts = [await store.get_stamped("a", ByteRange(i % 3, i % 3 + 1)) for i in range(6)]
    assert len({part.stamp for part in parts}) == 1
    assert parts[0].stamp is not None
    await inner.set("a", VALUE[::-1])
    last = await store.get_stamped("a", ByteRange(4, 5))
    assert last.stamp not in {None, parts[0].stamp}
    assert [(await store.get_stamped("a", ByteRange(i, i + 1))).stamp == last.stamp for i in range(3)] == [True] * 3
    assert await store.get_stamped("x") == (None, None)


@pytest.mark.parametrize("validate", ["etag", "forever", 1000])
async def test_a_shard_that_is_replaced_by_others_is_not_mixed_with_what_is_kept(validate):
    inner = Tagged()
    array = await azarr.create_array(inner, shape=64, chunks=8, shards=64, dtype="i4", compressors=None)
    await array.write(1)
    found = await azarr.open_array(CachingStore(inner, validate=validate))
    assert (await found[:8].read()).tolist() == [1] * 8
    await array[:8].write(0)  # which is not stored: all other chunks move
    await array[8:].write(range(56))
    assert (await found[32:40].read()).tolist() == list(range(24, 32))


async def test_serves_several_loops_at_once():
    inner = LatencyStore(MemoryStore({str(i): VALUE for i in range(20)}), 0.0, jitter=1e-3, seed=1)
    store = CachingStore(inner, nbytes=8 * (256 + ENTRY_NBYTES), validate="forever")

    async def visit():
        for _ in range(3):
            assert set(await asyncio.gather(*(store.get(str(i)) for i in range(20)))) == {VALUE}

    await asyncio.gather(*(asyncio.to_thread(asyncio.run, visit()) for _ in range(3)))
    assert store.stats.values == 8


async def test_arrays_read_through_it(tmp_path):
    inner = RecordingStore(LatencyStore(MemoryStore(), 0.0))
    array = await azarr.create_array(inner, shape=(32, 32), chunks=(8, 8), shards=(16, 16), dtype="i4")
    await array.write(7)
    found = await azarr.open_array(CachingStore(inner, validate="forever"))
    await found.read()
    inner.clear()
    assert (await found.read() == 7).all()
    assert inner.requests == ()
    await found[:4].write(8)
    assert (await found[:8].read()).tolist() == [[8] * 32] * 4 + [[7] * 32] * 4
    assert (await array[:4].read() == 8).all()


@pytest.mark.parametrize("shards", [None, 16])
async def test_changes_of_a_part_take_nothing_back_that_others_have_written(shards):
    inner = LatencyStore(MemoryStore(), 0.0)
    theirs = await azarr.create_array(inner, shape=16, chunks=8, shards=shards, dtype="i4")
    await theirs.write(1)
    mine = await azarr.open_array(CachingStore(inner, validate="forever"))
    assert (await mine.read()).tolist() == [1] * 16
    await theirs[:4].write(2)
    await mine[4:8].write(3)
    assert (await theirs.read()).tolist() == [2] * 4 + [3] * 4 + [1] * 8
    assert (await mine.read()).tolist() == [2] * 4 + [3] * 4 + [1] * 8


async def test_closes_the_store_and_the_cache():
    class Closing(MemoryStore):
        closed = 0

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            await self.aclose()

        async def aclose(self):
            self.closed += 1

    inner, cache = Closing(), Closing()
    async with CachingStore(inner, cache):
        assert inner.closed == cache.closed == 0
    assert inner.closed == cache.closed == 1


def test_stores_that_are_only_read_tell_versions_as_well():
    store = CachingStore(HTTPStore("https://localhost/data.zarr"), validate="etag")
    assert not isinstance(store, WritableStore)


def test_says_what_it_is():
    store = CachingStore(MemoryStore(), nbytes=10, validate=3)
    assert repr(store) == "CachingStore(<MemoryStore 0 keys>, nbytes=10, validate=3, missing=False)"
    assert not isinstance(store, BlockingStore)
    assert not isinstance(CachingStore(ReadOnlyStore(MemoryStore())), WritableStore)


@pytest.mark.parametrize(
    ("options", "why"),
    [({"nbytes": 0}, "room for at least 1"), ({"validate": "never"}, "or a number of seconds"), ({"validate": -1}, "number of seconds")],
)
def test_impossible_options_are_refused(options, why):
    with pytest.raises(ValueError, match=why):
        CachingStore(MemoryStore(), **options)
