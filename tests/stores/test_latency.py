from __future__ import annotations

import asyncio
import pickle

import pytest

from azarr.errors import StoreError
from azarr.stores import BlockingStore, LatencyStore, LocalStore, MemoryStore, ReadOnlyStore, Store, WritableStore, ZipStore
from azarr.testing import StoreSuite


class TestLatencyStore(StoreSuite):
    def make_store(self) -> LatencyStore:
        return LatencyStore(MemoryStore(), 0.0, jitter=1e-4, seed=1)


@pytest.fixture
def waits(monkeypatch):
    """How long each request waited; nobody really waits."""
    waited = []
    sleep = asyncio.sleep

    async def record(seconds):
        waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    return waited


def test_has_no_blocking_face():
    store = LatencyStore(MemoryStore(), 0.1)
    assert isinstance(store, Store)
    assert not isinstance(store, BlockingStore)


async def test_every_request_waits(waits):
    store = LatencyStore(MemoryStore({"a/b": b"1"}), 0.5)
    await store.get("a/b")
    await store.set("a/c", b"")
    await store.erase("a/c")
    await store.list_dir()
    assert [key async for key in store.list_prefix()] == ["a/b"]
    await store.erase_prefix("")
    assert waits == [0.5] * 6
    assert store.requests == 6
    assert store.in_flight == 0
    assert store.max_in_flight == 1


async def test_counts_what_is_in_flight():
    store = LatencyStore(MemoryStore(), 0.001)
    await asyncio.gather(*(store.get(str(i)) for i in range(10)))
    assert (store.requests, store.in_flight, store.max_in_flight) == (10, 0, 10)


async def test_failed_and_cancelled_requests_are_not_in_flight():
    store = LatencyStore(MemoryStore(), 0.0)
    with pytest.raises(StoreError):
        await store.get("../x")
    slow = LatencyStore(MemoryStore(), 3600)
    task = asyncio.create_task(slow.get("a"))
    await asyncio.sleep(0)
    assert slow.in_flight == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (store.in_flight, slow.in_flight) == (0, 0)


async def test_jitter_is_bounded_and_reproducible(waits):
    for _ in range(2):
        store = LatencyStore(MemoryStore(), 1.0, jitter=0.5, seed=7)
        for _ in range(20):
            await store.get("a")
    assert waits[:20] == waits[20:]
    assert len(set(waits)) == 20
    assert all(1.0 <= seconds <= 1.5 for seconds in waits)


@pytest.mark.parametrize("arguments", [{"seconds": -1}, {"seconds": 0, "jitter": -1}])
def test_negative_times_are_refused(arguments):
    with pytest.raises(ValueError, match="negative"):
        LatencyStore(MemoryStore(), **arguments)


def test_identity_is_that_of_the_data(tmp_path):
    memory, local = MemoryStore(), LocalStore(tmp_path)
    assert LatencyStore(memory, 0).identity == memory.identity
    assert LatencyStore(LatencyStore(local, 0), 0).identity == local.identity
    assert repr(LatencyStore(memory, 0.1)) == "LatencyStore(<MemoryStore 0 keys>, 0.1, jitter=0.0)"


def test_can_what_the_store_around_which_it_is_can():
    assert not isinstance(LatencyStore(ReadOnlyStore(MemoryStore()), 0), WritableStore)
    copy = pickle.loads(pickle.dumps(LatencyStore(MemoryStore({"a": b"1"}), 0.1, jitter=0.2, seed=3)))
    assert repr(copy) == "LatencyStore(<MemoryStore 1 key>, 0.1, jitter=0.2)"


async def test_is_closed_with_its_store(tmp_path):
    async with LatencyStore(ZipStore(tmp_path / "x.zip", mode="w"), 0) as store:
        await store.set("a", b"1")
    assert ZipStore(tmp_path / "x.zip").get_blocking("a") == b"1"
