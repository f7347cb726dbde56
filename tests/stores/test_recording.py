from __future__ import annotations

import asyncio
import pickle

import pytest

import azarr
from azarr.errors import StoreError
from azarr.stores import BlockingStore, LatencyStore, LocalStore, MemoryStore, RecordedRequest, RecordingStore
from azarr.testing import StoreSuite
from azarr.types import ByteRange, Suffix


class TestRecordingMemory(StoreSuite):
    def make_store(self):
        return RecordingStore(MemoryStore())


class TestRecordingFiles(StoreSuite):
    keys_nest = False

    @pytest.fixture
    def store(self, tmp_path):
        return RecordingStore(LocalStore(tmp_path, durability="none"))


class TestRecordingLateMemory(StoreSuite):
    def make_store(self):
        return RecordingStore(LatencyStore(MemoryStore(), 0.0))


async def test_requests_are_recorded_in_order(faulty_store):
    store = RecordingStore(faulty_store)
    await store.set("a/b", b"12345")
    await store.get("a/b", ByteRange(1, 3))
    await store.get("a/b", Suffix(1))
    await store.get("a/c")
    await store.list_dir("a/")
    version = (await store.get_versioned("a/b")).version
    await store.set_if("a/b", memoryview(b"12345678").cast("I"), version)
    await store.erase("a/b")
    faulty_store.failing = {"x"}
    with pytest.raises(StoreError):
        await store.get("x")
    assert [(each.operation, each.key, each.byte_range, each.nbytes, each.outcome) for each in store.requests] == [
        ("set", "a/b", None, 5, "done"),
        ("get", "a/b", ByteRange(1, 3), 2, "done"),
        ("get", "a/b", Suffix(1), 1, "done"),
        ("get", "a/c", None, 0, "missing"),
        ("list_dir", "a/", None, 0, "done"),
        ("get", "a/b", None, 5, "done"),
        ("set_if", "a/b", None, 8, "done"),
        ("erase", "a/b", None, 0, "done"),
        ("get", "x", None, 0, "azarr.errors.StoreError"),
    ]
    assert all(each.seconds > 0 for each in store.requests)
    store.clear()
    assert store.requests == ()


async def test_order_is_that_in_which_requests_begin():
    class Waiting(LatencyStore):
        async def get(self, key, byte_range=None):
            if key == "first":
                await opened.wait()
            return await super().get(key, byte_range)

    opened = asyncio.Event()
    store = RecordingStore(Waiting(MemoryStore({"first": b"1"}), 0.0))
    task = asyncio.create_task(store.get("first"))
    await asyncio.sleep(0)
    await store.get("second")
    assert [(each.key, each.outcome) for each in store.requests] == [("first", "under way"), ("second", "missing")]
    opened.set()
    await task
    assert [(each.key, each.outcome) for each in store.requests] == [("first", "done"), ("second", "missing")]


async def test_only_the_last_ones_are_kept():
    store = RecordingStore(MemoryStore(), limit=3)
    for number in range(10):
        await store.get(str(number))
    assert [each.key for each in store.requests] == ["7", "8", "9"]
    with pytest.raises(ValueError, match="limit must be at least 1"):
        RecordingStore(MemoryStore(), limit=0)


async def test_what_arrays_ask_for_is_seen():
    store = RecordingStore(MemoryStore())
    assert isinstance(store, BlockingStore)
    array = await azarr.create_array(store, shape=(4, 4), chunks=(2, 2), dtype="i4")
    await array.write(1)
    store.clear()
    await array[:2].read()
    assert sorted(each.key for each in store.requests) == ["c/0/0", "c/0/1"]
    assert {(each.operation, each.outcome) for each in store.requests} == {("get", "done")}


async def test_a_pickled_copy_has_no_requests():
    store = RecordingStore(MemoryStore({"a": b"1"}), limit=5)
    await store.get("a")
    copy = pickle.loads(pickle.dumps(store))
    assert repr(copy) == "RecordingStore(<MemoryStore 1 key>, limit=5)"
    await copy.get("a", None)
    assert [each.operation for each in copy.requests] == ["get"]
    assert RecordedRequest("get", "a").outcome == "under way"
