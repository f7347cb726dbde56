"""What all stores around a store have in common."""

from __future__ import annotations

import pickle
from contextlib import suppress

import pytest

from azarr.stores import (
    BlockingStore,
    ConditionalStore,
    LatencyStore,
    ListableStore,
    LocalStore,
    LockingStore,
    MemoryStore,
    OverlayStore,
    PrefixStore,
    ReadableStore,
    Store,
    VersionedStore,
    WritableStore,
    ZipStore,
)
from azarr.stores.base import as_conditional, as_locking, as_versioned, identity_of
from azarr.stores.wrapping import Wrapping
from azarr.testing import StoreSuite
from azarr.testing.values import read

PROTOCOLS = (ReadableStore, WritableStore, ListableStore, Store, BlockingStore, ConditionalStore, LockingStore)


class Passing(Wrapping):
    """Changes nothing."""


class Careful(Wrapping):
    lacks = frozenset({"lock"})

    def __init__(self, store, *, care=1):
        super().__init__(store)
        self.care = care

    def _options(self):
        return {"care": self.care}


class ReadOnly:
    async def get(self, key, byte_range=None):
        return key.encode()


class Versions(ReadOnly):
    versioned = True

    async def get_versioned(self, key, byte_range=None):
        return key.encode(), 1


class TestPassingMemoryStore(StoreSuite):
    def make_store(self):
        return Passing(MemoryStore())


class TestPassingLocalStore(StoreSuite):
    keys_nest = False

    @pytest.fixture
    def store(self, tmp_path):
        return Passing(LocalStore(tmp_path / "root", durability="none"))


@pytest.mark.parametrize("make", [ReadOnly, MemoryStore, lambda: LatencyStore(MemoryStore(), 0.0), lambda: LocalStore(".")])
def test_can_do_what_the_store_can(make):
    store = make()
    around = Passing(Passing(store))
    assert [isinstance(around, each) for each in PROTOCOLS] == [isinstance(store, each) for each in PROTOCOLS]
    for ability in (as_conditional, as_locking, as_versioned):
        assert (ability(around) is None) == (ability(store) is None)
    assert identity_of(around) == identity_of(store)


def test_what_tells_versions_need_not_write():
    around = Passing(Versions())
    assert isinstance(around, VersionedStore)
    assert as_versioned(around) is around
    assert as_conditional(around) is None
    assert not isinstance(Passing(ReadOnly()), VersionedStore)


def test_what_a_wrapper_lacks_it_never_has(tmp_path):
    store = Careful(LocalStore(tmp_path))
    assert not isinstance(store, LockingStore)
    assert isinstance(store, ConditionalStore)
    assert not isinstance(Passing(store), LockingStore)


def test_is_of_its_class_whatever_it_lacks():
    for store in (MemoryStore(), ReadOnly()):
        around = Careful(store, care=2)
        assert isinstance(around, Careful)
        assert type(around).__name__ == "Careful"
        assert repr(around) == f"Careful({store!r}, care=2)"
    assert type(Careful(ReadOnly())) is type(Careful(store=ReadOnly()))


def test_is_pickled_with_its_store_and_options(tmp_path):
    copy = pickle.loads(pickle.dumps(Careful(Passing(LocalStore(tmp_path)), care=3)))
    assert type(copy) is type(Careful(LocalStore(tmp_path)))
    assert repr(copy) == f"Careful(Passing({LocalStore(tmp_path)!r}), care=3)"


class Closing(MemoryStore):
    def __init__(self):
        super().__init__()
        self.told = []

    async def __aenter__(self):
        self.told.append("enter")
        return self

    async def __aexit__(self, *error):
        self.told.append(error[0])

    async def aclose(self):
        self.told.append("close")


async def test_closes_what_is_closed():
    store = Closing()
    async with Passing(Passing(store)) as around:
        assert isinstance(around, Passing)
        assert store.told == ["enter"]
    await around.aclose()
    assert store.told == ["enter", None, "close"]
    async with Passing(MemoryStore()) as around:  # which is not closed
        await around.set("a", b"1")
        await around.aclose()


async def test_the_store_hears_of_the_error_that_leaves_it():
    store = Closing()
    with pytest.raises(ZeroDivisionError):
        async with Passing(store):
            raise ZeroDivisionError
    assert store.told == ["enter", ZeroDivisionError]


async def test_what_has_been_entered_is_left_where_the_next_cannot_be():
    class Refusing(Closing):
        async def __aenter__(self):
            raise ZeroDivisionError

    first, second = Closing(), Closing()
    with pytest.raises(ZeroDivisionError):
        await OverlayStore(first, Refusing()).__aenter__()
    assert first.told == ["enter", ZeroDivisionError]
    async with OverlayStore(first, second):
        pass
    assert second.told == ["enter", None]


async def test_an_archive_that_is_left_by_an_error_stays_as_it_was(tmp_path):
    for error in (None, ZeroDivisionError):
        with suppress(ZeroDivisionError):
            async with PrefixStore(ZipStore(tmp_path / "x.zip", mode="a"), "p/") as store:
                await store.set("a", repr(error).encode())
                if error is not None:
                    raise error
    async with ZipStore(tmp_path / "x.zip") as store:
        assert await read(store, "p/a") == b"None"


def test_a_class_may_derive_from_that_of_an_object():
    class Derived(type(LatencyStore(MemoryStore(), 0))):
        pass

    store = Derived(MemoryStore(), 0.5)
    assert type(store).__name__ == "Derived"
    assert repr(store) == "Derived(<MemoryStore 0 keys>, 0.5, jitter=0.0)"
    assert not isinstance(store, LockingStore)
