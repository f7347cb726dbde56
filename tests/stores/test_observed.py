from __future__ import annotations

import pickle

import pytest

from azarr.errors import PreconditionFailedError, StoreError
from azarr.locks import locks_of
from azarr.stores import (
    BlockingStore,
    ConditionalStore,
    LatencyStore,
    ListableStore,
    LocalStore,
    LockingStore,
    MemoryStore,
    ReadableStore,
    Store,
    WritableStore,
)
from azarr.stores.base import as_conditional, as_locking
from azarr.stores.observed import observed
from azarr.telemetry import Telemetry
from azarr.testing import StoreSuite, TelemetryRecorder
from azarr.types import ByteRange


class TestObservedMemoryStore(StoreSuite):
    test_pickled_copy_has_the_values = None  # a copy is the store itself, see below

    def make_store(self):
        telemetry = Telemetry()
        telemetry.subscribe(lambda event: None)
        return observed(MemoryStore(), telemetry)


class TestObservedLocalStore(StoreSuite):
    keys_nest = False
    test_pickled_copy_has_the_values = None

    @pytest.fixture
    def store(self, tmp_path):
        telemetry = Telemetry()
        telemetry.subscribe(lambda event: None)
        return observed(LocalStore(tmp_path / "root", durability="none"), telemetry)


class ReadOnly:
    def __init__(self, values):
        self._store = MemoryStore(values)

    async def get(self, key, byte_range=None):
        return await self._store.get(key, byte_range)


@pytest.fixture
def telemetry():
    return Telemetry()


@pytest.fixture
def recorder(telemetry):
    with TelemetryRecorder(telemetry) as recorder:
        yield recorder


@pytest.mark.parametrize("make", [lambda: ReadOnly({}), MemoryStore, lambda: LatencyStore(MemoryStore(), 0.0)])
def test_can_do_what_the_store_can(make, telemetry):
    store = make()
    around = observed(store, telemetry)
    for protocol in (ReadableStore, WritableStore, ListableStore, Store, BlockingStore, ConditionalStore, LockingStore):
        assert isinstance(around, protocol) == isinstance(store, protocol)


@pytest.mark.parametrize("locking", [False, None])
def test_writes_conditionally_and_locks_where_the_store_does(telemetry, tmp_path, locking):
    store = LocalStore(tmp_path, locking=locking)
    for around in (observed(store, telemetry), LatencyStore(observed(LatencyStore(store, 0), telemetry), 0)):
        assert (as_conditional(around) is None) == (as_conditional(store) is None)
        assert (as_locking(around) is None) == (as_locking(store) is None)


def test_is_the_same_store_to_locks_and_to_readers(telemetry, tmp_path):
    for store in (MemoryStore(), LocalStore(tmp_path), ReadOnly({})):
        around = observed(store, telemetry)
        assert locks_of(around) is locks_of(store)
        assert repr(around) == repr(store)


def test_a_pickled_copy_is_the_store(telemetry, tmp_path):
    store = LocalStore(tmp_path)
    assert pickle.loads(pickle.dumps(observed(store, telemetry))) == store


async def test_every_request_is_told(telemetry, recorder):
    store = observed(LatencyStore(MemoryStore({"a/b": b"123"}), 0.0), telemetry, "a")
    await store.get("a/b")
    await store.get("a/b", ByteRange(1, 2))
    await store.get("a/x")
    await store.set("a/c", b"12345")
    await store.erase("a/c")
    await store.list_dir("a/")
    assert [key async for key in store.list_prefix("a/")] == ["a/b"]
    await store.erase_prefix("a/")
    starts, stops = recorder.events("store.request.start"), recorder.events("store.request.stop")
    assert [event.span for event in starts] == [event.span for event in stops]
    assert {(event.path, event.store) for event in starts + stops} == {("a", "LatencyStore")}
    assert [(event.operation, event.key, event.nbytes, event.missing) for event in stops] == [
        ("get", "a/b", 3, False),
        ("get", "a/b", 1, False),
        ("get", "a/x", 0, True),
        ("set", "a/c", 5, False),
        ("erase", "a/c", 0, False),
        ("list_dir", "a/", 0, False),
        ("list_prefix", "a/", 0, False),
        ("erase_prefix", "a/", 0, False),
    ]
    assert all(event.seconds > 0 for event in stops)


async def test_conditional_requests_are_told(telemetry, recorder):
    store = observed(LatencyStore(MemoryStore({"a": b"123"}), 0.0), telemetry)
    _, version = await store.get_versioned("a")
    await store.get_versioned("x")
    await store.set_if("a", b"12", version)
    with pytest.raises(PreconditionFailedError):
        await store.set_if("a", b"1234", version)
    _, version = await store.get_versioned("a", ByteRange(0, 1))
    await store.erase_if("a", version)
    ends = [event for event in recorder.events("store.request") if event.phase != "start"]
    assert [(event.operation, event.phase, event.nbytes, event.missing) for event in ends] == [
        ("get", "stop", 3, False),
        ("get", "stop", 0, True),
        ("set_if", "stop", 2, False),
        ("set_if", "exception", 0, False),
        ("get", "stop", 1, False),
        ("erase_if", "stop", 0, False),
    ]


def test_updates_are_told_as_reading_and_writing(telemetry, recorder):
    class Overtaken(MemoryStore):
        def update_blocking(self, key, change):
            change(self.get_blocking(key))
            super().update_blocking(key, change)

    store = observed(Overtaken({"a": b"123"}), telemetry)
    store.update_blocking("a", lambda old: bytes(old) * 2)
    store.update_blocking("a", lambda old: None)
    with pytest.raises(ZeroDivisionError):
        store.update_blocking("a", lambda old: 1 // 0)
    ends = [event for event in recorder.events("store.request") if event.phase != "start"]
    assert [(event.operation, event.phase, event.nbytes) for event in ends] == [
        ("get", "stop", 3),
        ("set", "exception", 0),
        ("get", "stop", 3),
        ("set", "stop", 6),
        ("get", "stop", 6),
        ("erase", "exception", 0),
        ("get", "stop", 6),
        ("erase", "stop", 0),
        ("get", "stop", 0),
    ]


def test_every_blocking_request_is_told(telemetry, recorder):
    store = observed(MemoryStore({"a/0": b"12", "a/1": b"345"}), telemetry)
    out = memoryview(bytearray(2))
    store.get_blocking("a/0")
    assert [bytes(value) if value is not None else None for value in store.get_each("a/", ["0", "x", "1"], bytearray)] == [
        b"12",
        None,
        b"345",
    ]
    assert store.get_into("a/0", out) == 2
    assert store.get_into("a/1", out) == 3
    assert store.get_joined("a/", ["1", "x"], memoryview(bytearray(3))) == [3, None]
    store.set_blocking("b", b"1")
    store.erase_blocking("b")
    stops = recorder.events("store.request.stop")
    assert [(event.operation, event.key, event.nbytes, event.missing) for event in stops] == [
        ("get", "a/0", 2, False),
        ("get", "a/0", 2, False),
        ("get", "a/x", 0, True),
        ("get", "a/1", 3, False),
        ("get", "a/0", 2, False),
        ("get", "a/1", 2, False),
        ("get", "a/1", 3, False),
        ("get", "a/x", 0, True),
        ("set", "b", 1, False),
        ("erase", "b", 0, False),
    ]
    assert recorder.count("store.request.start") == len(stops)


async def test_requests_that_fail_are_told(telemetry, recorder, faulty_store):
    faulty_store.failing |= {"a", "f/1"}
    store = observed(faulty_store, telemetry)
    with pytest.raises(StoreError):
        await store.get("a")
    with pytest.raises(StoreError):
        await store.set("a", b"")
    with pytest.raises(StoreError):
        store.get_blocking("a")
    with pytest.raises(StoreError):
        store.get_into("a", memoryview(b""))
    with pytest.raises(StoreError):
        list(store.get_each("f/", ["0", "1", "2"], bytearray))
    with pytest.raises(StoreError):
        store.get_joined("f/", ["0", "1"], memoryview(b""))
    with pytest.raises(StoreError):
        [key async for key in store.list_prefix("../")]
    failed = recorder.events("store.request.exception")
    assert [(event.operation, event.key) for event in failed] == [
        ("get", "a"),
        ("set", "a"),
        ("get", "a"),
        ("get", "a"),
        ("get", "f/1"),
        ("get", "f/1"),
        ("list_prefix", "../"),
    ]
    assert {event.error for event in failed} == {"azarr.errors.StoreError"}
    assert recorder.count("store.request.start") == len(failed) + recorder.count("store.request.stop")


async def test_a_listing_that_is_left_early_has_stopped(telemetry, recorder):
    class Listing(MemoryStore):
        closed = False

        async def list_prefix(self, prefix=""):
            try:
                yield "a"
                yield "b"
            finally:
                self.closed = True

    inner = Listing()
    keys = observed(inner, telemetry).list_prefix()
    assert await anext(keys) == "a"
    assert not inner.closed
    await keys.aclose()
    assert inner.closed
    assert recorder.names() == ["store.request.start", "store.request.stop"]
