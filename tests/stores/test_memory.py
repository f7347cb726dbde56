from __future__ import annotations

import pickle
import threading

import pytest

from azarr.errors import StoreError
from azarr.stores import BlockingStore, MemoryStore, Store
from azarr.testing import StoreSuite
from azarr.testing.values import read
from azarr.types import ByteRange


class TestMemoryStore(StoreSuite):
    def make_store(self) -> MemoryStore:
        return MemoryStore()


class TestNamedMemoryStore(StoreSuite):
    @pytest.fixture
    def store(self, memory):
        return MemoryStore.named(memory)


def test_is_both_kinds_of_store():
    assert isinstance(MemoryStore(), Store)
    assert isinstance(MemoryStore(), BlockingStore)


async def test_initial_values_are_copied():
    values = {"a": b"1"}
    store = MemoryStore(values)
    values["a"] = b"2"
    assert await store.get("a") == b"1"


def test_illegal_initial_key_is_refused():
    with pytest.raises(StoreError, match="not a key"):
        MemoryStore({"../a": b""})


async def test_bytes_are_neither_copied_in_nor_out():
    value = b"x" * 1000
    store = MemoryStore()
    await store.set("k", value)
    assert await store.get("k") is value
    part = await store.get("k", ByteRange(10, 20))
    assert isinstance(part, memoryview)
    assert part.obj is value


def test_values_cannot_be_changed_through_what_get_returns():
    store = MemoryStore({"k": b"abc"})
    store.set_blocking("m", bytearray(b"abc"))
    for key in ("k", "m"):
        part = store.get_blocking(key, ByteRange(0))
        assert isinstance(part, memoryview)
        assert part.readonly


@pytest.mark.parametrize(("count", "text"), [(0, "<MemoryStore 0 keys>"), (1, "<MemoryStore 1 key>"), (12, "<MemoryStore 12 keys>")])
def test_repr(count, text):
    assert repr(MemoryStore({str(i): b"" for i in range(count)})) == text


def test_equal_only_to_itself():
    one, other = MemoryStore(), MemoryStore()
    assert one == one  # noqa: PLR0124 - equality with itself is what is shown
    assert one != other
    assert one.identity == one.identity
    assert one.identity != other.identity
    assert len({one, other}) == 2


async def test_pickled_copy_goes_its_own_way():
    store = MemoryStore({"k": b"old"})
    copy = pickle.loads(pickle.dumps(store))
    await copy.set("k", b"new")
    assert await store.get("k") == b"old"


async def test_listing_is_a_snapshot():
    store = MemoryStore({f"a/{i}": b"" for i in range(10)})
    seen = []
    async for key in store.list_prefix():
        seen.append(key)
        await store.erase(key)
        await store.set(f"b/{key}", b"")
    assert len(seen) == 10
    assert len((await store.list_dir("b/a/")).keys) == 10


async def test_listing_while_other_threads_write():
    store = MemoryStore()
    done = threading.Event()

    def churn():
        i = 0
        while not done.is_set():
            store.set_blocking(f"a/{i % 1000}", b"")
            store.erase_blocking(f"a/{(i * 7) % 1000}")
            i += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(200):
            assert all([key.startswith("a/") async for key in store.list_prefix()])
            await store.list_dir("a/")
            pickle.dumps(store)
    finally:
        done.set()
        thread.join()


@pytest.fixture
def memory():
    """A name that is free, and free again after the test."""
    yield "tests"
    MemoryStore.drop("tests")


async def test_a_name_in_memory_stands_for_one_store(memory):
    store = MemoryStore.named(memory)
    assert MemoryStore.named(memory) is store
    assert store.name == memory
    assert MemoryStore().name is None
    assert memory in MemoryStore.names()
    assert repr(store) == "<MemoryStore 'tests' 0 keys>"
    await store.set("a", b"1")
    MemoryStore.drop(memory)
    MemoryStore.drop(memory)
    assert memory not in MemoryStore.names()
    assert await read(store, "a") == b"1"
    assert MemoryStore.named(memory) is not store


@pytest.mark.parametrize("name", ["", "a/b"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(StoreError, match="is not the name of a store in memory"):
        MemoryStore.named(name)


def test_a_store_with_a_name_is_pickled_by_name(memory, monkeypatch):
    store = MemoryStore.named(memory)
    pickled = pickle.dumps(store)
    assert pickle.loads(pickled) is store
    monkeypatch.setattr("os.getpid", lambda: -1)
    with pytest.raises(StoreError, match="memory://tests is in the memory of another process, or has been dropped"):
        pickle.loads(pickled)
    monkeypatch.undo()
    MemoryStore.drop(memory)
    with pytest.raises(StoreError, match="has been dropped"):
        pickle.loads(pickled)
