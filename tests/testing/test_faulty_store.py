from __future__ import annotations

import asyncio
import pickle

import pytest

from azarr.errors import StoreError, ThrottledError, TransientStoreError
from azarr.stores import BlockingStore, LocalStore, MemoryStore, Store
from azarr.stores.base import as_conditional, as_locking
from azarr.testing import FaultyStore, StoreSuite


class TestFaultyStore(StoreSuite):
    picklable = False  # a copy of what is in memory is another one

    def make_store(self) -> FaultyStore:
        return FaultyStore(MemoryStore())


def scripted(*faults, store=None, **options):
    """A store whose first requests have these faults."""
    script = dict(enumerate(faults)).get
    return FaultyStore(store or MemoryStore({"a/b": b"old!"}), script=lambda request: script(request.number), **options)


OPERATIONS = {
    "get": lambda store: store.get("a/b"),
    "set": lambda store: store.set("a/b", b"new"),
    "erase": lambda store: store.erase("a/b"),
    "erase_prefix": lambda store: store.erase_prefix("a/"),
    "list_dir": lambda store: store.list_dir("a/"),
    "get_stamped": lambda store: store.get_stamped("a/b"),
    "get_versioned": lambda store: store.get_versioned("a/b"),
    "set_if": lambda store: store.set_if("a/c", b"new", None),
}
WRITTEN = {
    "set": {"a/b": b"new"},
    "erase": {},
    "erase_prefix": {},
    "set_if": {"a/b": b"old!", "a/c": b"new"},
}


async def content(store):
    return {key: bytes(await store.get(key)) async for key in store.list_prefix()}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(("kind", "error"), [("transient", TransientStoreError), ("throttled", ThrottledError)])
async def test_failure_before_anything_is_done(operation, kind, error):
    inner = MemoryStore({"a/b": b"old!"})
    store = scripted(kind, store=inner)
    with pytest.raises(error) as caught:
        await OPERATIONS[operation](store)
    assert caught.value.key
    assert await content(inner) == {"a/b": b"old!"}
    assert (store.requests, store.injected) == (1, {kind: 1})
    await OPERATIONS[operation](store)
    assert await content(inner) == WRITTEN.get(operation, {"a/b": b"old!"})


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_lost_response_to_what_has_been_done(operation):
    inner = MemoryStore({"a/b": b"old!"})
    with pytest.raises(TransientStoreError, match="lost"):
        await OPERATIONS[operation](scripted("lost", store=inner))
    assert await content(inner) == WRITTEN.get(operation, {"a/b": b"old!"})


async def test_conditional_erase():
    inner = MemoryStore({"a/b": b"old!"})
    store = scripted(None, "transient", "lost", store=inner)
    version = (await store.get_versioned("a/b")).version
    for left in ({"a/b": b"old!"}, {}):
        with pytest.raises(TransientStoreError):
            await store.erase_if("a/b", version)
        assert await content(inner) == left


async def test_retry_after():
    with pytest.raises(ThrottledError) as caught:
        await scripted("throttled", retry_after=2.5).get("a/b")
    assert caught.value.retry_after == 2.5


async def test_listing_that_breaks_off():
    store = scripted("transient", "lost", store=MemoryStore(dict.fromkeys("abcd", b"")))
    for count in (0, 2):
        seen = []
        with pytest.raises(TransientStoreError):
            async for key in store.list_prefix():
                seen.append(key)  # noqa: PERF401 - a comprehension that fails has nothing
        assert len(seen) == count
    assert len([key async for key in store.list_prefix()]) == 4


def test_stall(run_virtual):
    async def main():
        store = scripted("stalled", "stalled", stall=60.0)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(59):
                await store.get("a/b")
        assert await store.get("a/b") == b"old!"
        return asyncio.get_running_loop().time()

    assert run_virtual(main) == 59 + 60


async def test_truncated_values():
    store = FaultyStore(MemoryStore({"a": bytes(1000)}), rate=1.0, kinds=["truncated"])
    sizes = []
    for _ in range(7):
        sizes += [len(await store.get("a")), len((await store.get_versioned("a")).value), len((await store.get_stamped("a")).value)]
    assert max(sizes) < 1000
    assert len(set(sizes)) > 5
    assert await store.get("missing") is None
    await store.set("b", b"whole")
    assert store.injected == {"truncated": 23}


async def outcomes(**options):
    store = FaultyStore(MemoryStore({"a": b"1"}), **options)
    seen = []
    for _ in range(300):
        try:
            await store.get("a")
            seen.append("")
        except StoreError as error:
            seen.append(type(error).__name__ + str(error))
    assert sum(map(bool, seen)) == store.injected.total()
    return seen


async def test_same_seed_same_faults():
    first = await outcomes(rate=0.3, seed=1)
    assert first == await outcomes(rate=0.3, seed=1)
    assert first != await outcomes(rate=0.3, seed=2)
    assert 60 <= sum(map(bool, first)) <= 120
    assert len(set(first)) == 4


async def test_rates_at_the_ends():
    assert set(await outcomes()) == {""}
    assert "" not in await outcomes(rate=1.0, kinds=["transient"])


async def test_script_sees_the_requests():
    seen = []
    store = FaultyStore(MemoryStore(), script=seen.append)
    await store.set("a/b", b"")
    await store.list_dir("a/")
    assert [key async for key in store.list_prefix()] == ["a/b"]
    assert seen == [(0, "set", "a/b"), (1, "list_dir", "a/"), (2, "list_prefix", "")]


def test_can_do_what_the_store_can(tmp_path):
    memory, local = FaultyStore(MemoryStore()), FaultyStore(LocalStore(tmp_path))
    assert isinstance(memory, Store)
    assert not isinstance(memory, BlockingStore)
    assert as_conditional(memory)
    assert as_locking(local)
    assert not as_locking(memory)
    assert local.identity == LocalStore(tmp_path).identity
    assert repr(memory).startswith("FaultyStore(<MemoryStore 0 keys>, rate=0.0, seed=0, ")


async def test_pickled_copy_has_the_same_faults(tmp_path):
    store = FaultyStore(LocalStore(tmp_path), rate=1.0, kinds=["transient"], seed=3)
    copy = pickle.loads(pickle.dumps(store))
    assert repr(copy) == repr(store)
    with pytest.raises(TransientStoreError):
        await copy.get("a")
    assert (store.requests, copy.requests) == (0, 1)


@pytest.mark.parametrize("options", [{"rate": -0.1}, {"rate": 1.1}, {"kinds": []}, {"kinds": ["bad"]}])
def test_options_that_make_no_sense(options):
    with pytest.raises(ValueError):
        FaultyStore(MemoryStore(), **options)
