"""The part of the conformance suite about stores that several processes write to: conditional writes and locks."""

# ruff: noqa: S101 - asserting is what a suite is for
# ruff: noqa: D102 - a test's name says what it shows

from __future__ import annotations

import asyncio

import pytest

from azarr.errors import PreconditionFailedError, StoreError
from azarr.stores.base import ConditionalStore, LockingStore, Request, Store, Version, Versioned, as_conditional, as_locking
from azarr.testing.values import ILLEGAL_KEYS, PARTS, VALUE, collect, fill, read
from azarr.types import Listing


class SharingSuite:
    """The tests of ``ConditionalStore`` and ``LockingStore``, for stores that are these; the others skip them."""

    @pytest.fixture
    def conditional(self, store: Store) -> ConditionalStore:
        found = as_conditional(store)
        if found is None:
            pytest.skip("the store does not write conditionally")
        return found

    @pytest.fixture
    def locking(self, store: Store) -> LockingStore:
        found = as_locking(store)
        if found is None:
            pytest.skip("the store has no locks against other processes")
        return found

    async def test_versions(self, store: Store, conditional: ConditionalStore) -> None:
        assert await conditional.get_versioned("a/b") == Versioned(None, None)
        await store.set("a/b", b"first")
        value, first = await conditional.get_versioned("a/b")
        assert value is not None
        assert bytes(value) == b"first"
        assert first is not None
        assert hash(first) == hash((await conditional.get_versioned("a/b")).version)
        assert first == (await conditional.get_versioned("a/b")).version
        await store.set("a/b", b"second")
        assert (await conditional.get_versioned("a/b")).version not in {first, None}

    @pytest.mark.parametrize(("byte_range", "part"), PARTS)
    async def test_part_of_a_value_with_a_version(
        self, store: Store, conditional: ConditionalStore, byte_range: Request, part: bytes
    ) -> None:
        await store.set("a/b", VALUE)
        value, version = await conditional.get_versioned("a/b", byte_range)
        assert bytes(value or b"") == part
        await conditional.set_if("a/b", b"new", version)
        assert await read(store, "a/b") == b"new"

    async def test_set_if_nobody_else_has_written(self, store: Store, conditional: ConditionalStore) -> None:
        await conditional.set_if("a/b", b"1", None)
        version = (await conditional.get_versioned("a/b")).version
        await conditional.set_if("a/b", memoryview(b"2"), version)
        assert await read(store, "a/b") == b"2"
        for stale in (version, None):
            with pytest.raises(PreconditionFailedError) as caught:
                await conditional.set_if("a/b", b"3", stale)
            assert caught.value.key == "a/b"
        await store.erase("a/b")
        with pytest.raises(PreconditionFailedError):
            await conditional.set_if("a/b", b"3", version)
        assert await store.get("a/b") is None
        assert await collect(store.list_prefix()) == []

    async def test_erase_if_nobody_else_has_written(self, store: Store, conditional: ConditionalStore) -> None:
        await store.set("a/b", b"1")
        version = (await conditional.get_versioned("a/b")).version
        await store.set("a/b", b"2")
        with pytest.raises(PreconditionFailedError) as caught:
            await conditional.erase_if("a/b", version)
        assert caught.value.key == "a/b"
        assert await read(store, "a/b") == b"2"
        await conditional.erase_if("a/b", (await conditional.get_versioned("a/b")).version)
        assert await store.get("a/b") is None
        with pytest.raises(PreconditionFailedError):
            await conditional.erase_if("a/b", version)

    async def test_one_of_many_conditional_writers_wins(self, store: Store, conditional: ConditionalStore) -> None:
        version: Version | None = None
        for turn in range(2):
            writes = [conditional.set_if("k", f"{turn} {number}".encode(), version) for number in range(10)]
            outcomes = await asyncio.gather(*writes, return_exceptions=True)
            winners = [number for number, outcome in enumerate(outcomes) if outcome is None]
            assert len(winners) == 1
            assert {type(outcome) for outcome in outcomes if outcome is not None} == {PreconditionFailedError}
            assert await read(store, "k") == f"{turn} {winners[0]}".encode()
            version = (await conditional.get_versioned("k")).version

    async def test_nothing_is_lost_by_conditional_writers(self, store: Store, conditional: ConditionalStore) -> None:
        async def count() -> None:
            for _ in range(5):
                while True:
                    value, version = await conditional.get_versioned("k")
                    try:
                        await conditional.set_if("k", str(int(bytes(value or b"0")) + 1).encode(), version)
                        break
                    except PreconditionFailedError:
                        await asyncio.sleep(0)

        await asyncio.gather(*(count() for _ in range(5)))
        assert await read(store, "k") == b"25"

    @pytest.mark.parametrize("key", ILLEGAL_KEYS)
    async def test_illegal_key_is_refused_conditionally(self, store: Store, conditional: ConditionalStore, key: str) -> None:
        for request in (conditional.get_versioned(key), conditional.set_if(key, VALUE, None), conditional.erase_if(key, "x")):
            with pytest.raises(StoreError):
                await request
        assert await collect(store.list_prefix()) == []

    async def test_lock_keeps_others_out(self, store: Store, locking: LockingStore) -> None:
        await store.set("a/b", VALUE)
        inside: list[int] = []

        async def enter(number: int) -> None:
            async with locking.lock("a/"):
                inside.append(number)
                await asyncio.sleep(0)
                assert inside == [number]
                await store.set("a/b", str(number).encode())
                inside.remove(number)

        await asyncio.gather(*map(enter, range(5)))
        assert await collect(store.list_prefix()) == ["a/b"]
        assert await store.list_dir("a/") == Listing(("a/b",), ())

    async def test_locks_of_several_prefixes_are_independent(self, store: Store, locking: LockingStore) -> None:
        await fill(store, ["zarr.json", "a/b", "c/d"])
        async with locking.lock(""), locking.lock("a/"), locking.lock("c/"):
            assert await read(store, "a/b") == b"a/b"
