from __future__ import annotations

import pickle

import pytest

import azarr
from azarr.errors import StoreError
from azarr.stores import (
    BlockingStore,
    ConditionalStore,
    LatencyStore,
    ListableStore,
    LocalStore,
    LockingStore,
    MemoryStore,
    ReadOnlyStore,
    WritableStore,
)
from azarr.stores.base import as_conditional, as_locking, as_versioned
from azarr.testing.values import PARTS, VALUE, collect, read
from azarr.types import Listing


@pytest.fixture(params=["memory", "files", "late"])
def inner(request, tmp_path):
    if request.param == "files":
        return LocalStore(tmp_path, durability="none")
    return MemoryStore() if request.param == "memory" else LatencyStore(MemoryStore(), 0.0)


async def test_reads_and_lists(inner):
    await inner.set("a/b", VALUE)
    store = ReadOnlyStore(inner)
    for byte_range, part in PARTS:
        assert await read(store, "a/b", byte_range) == part
    assert await store.get("a/c") is None
    assert await store.list_dir() == Listing((), ("a/",))
    assert await collect(store.list_prefix()) == ["a/b"]
    assert isinstance(store, ListableStore)
    assert isinstance(store, BlockingStore) == isinstance(inner, BlockingStore)
    assert as_versioned(store) is store
    assert (await store.get_versioned("a/b")).value == VALUE


def test_has_nothing_to_write_with(inner):
    store = ReadOnlyStore(inner)
    assert not isinstance(store, WritableStore | ConditionalStore | LockingStore)
    assert as_conditional(store) is None
    assert as_locking(store) is None


async def test_blocking_writes_are_refused():
    inner = MemoryStore({"a": b"1"})
    store = ReadOnlyStore(inner)
    for attempt in (
        lambda: store.set_blocking("a", b"2"),
        lambda: store.erase_blocking("a"),
        lambda: store.update_blocking("a", lambda old: b"3"),
    ):
        with pytest.raises(StoreError, match="for reading only") as caught:
            attempt()
        assert caught.value.key == "a"
    assert await read(store, "a") == b"1"


async def test_arrays_are_read_and_not_written(inner):
    array = await azarr.create_array(inner, "x", shape=4, dtype="i4")
    await array.write(7)
    store = ReadOnlyStore(inner)
    found = await azarr.open_array(store, "x")
    assert (await found.read()).tolist() == [7] * 4
    with pytest.raises(StoreError):
        await found.write(1)
    for create in (azarr.create_array(store, "y", shape=1, dtype="i4"), azarr.create_group(store, "g")):
        with pytest.raises(StoreError):
            await create
    with pytest.raises(StoreError):
        await found.resize(8)
    assert (await array.read()).tolist() == [7] * 4


def test_pickles():
    copy = pickle.loads(pickle.dumps(ReadOnlyStore(LocalStore("/somewhere"))))
    assert type(copy).__name__ == "ReadOnlyStore"
    assert repr(copy) == "ReadOnlyStore(LocalStore('/somewhere'))"
