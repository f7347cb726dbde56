"""Stores of others whose failed requests are made again."""

from __future__ import annotations

import pickle

import pytest

from azarr import LocalStore, MemoryStore, ReadOnlyStore, RetryingStore, RetryPolicy, TransientStoreError
from azarr.stores.base import BlockingStore, WritableStore
from azarr.testing import FaultyStore, StoreSuite

QUICK = RetryPolicy(first_delay=0.001)


class TestRetryingStore(StoreSuite):
    def make_store(self):
        return RetryingStore(MemoryStore())


class TestRetryingLocalStore(StoreSuite):
    keys_nest = False

    @pytest.fixture
    def store(self, tmp_path):
        return RetryingStore(LocalStore(tmp_path, durability="none"))


async def test_failures_are_made_again():
    inner = MemoryStore()
    store = RetryingStore(FaultyStore(inner, rate=0.3, seed=1, kinds=("transient", "throttled"), retry_after=0.0), QUICK)
    for number in range(100):
        await store.set(f"k{number}", b"%d" % number)
    assert [await store.get(f"k{number}") for number in range(100)] == [b"%d" % number for number in range(100)]
    assert len([key async for key in store.list_prefix()]) == 100
    assert store.stats.retries > 30


async def test_what_never_succeeds_comes_out():
    store = RetryingStore(FaultyStore(MemoryStore(), rate=1.0, kinds=("transient",)), RetryPolicy(attempts=3, first_delay=0))
    with pytest.raises(TransientStoreError, match="given up after 3 attempts"):
        await store.get("k")


def test_it_can_do_what_the_store_can():
    assert not isinstance(RetryingStore(MemoryStore()), BlockingStore)
    assert not isinstance(RetryingStore(ReadOnlyStore(MemoryStore())), WritableStore)


def test_is_pickled_with_its_policy(tmp_path):
    copy = pickle.loads(pickle.dumps(RetryingStore(LocalStore(tmp_path), QUICK, concurrency=3, rate=7)))
    assert (copy.traffic.policy, copy.traffic.concurrency, copy.traffic.rate) == (QUICK, 3, 7)
