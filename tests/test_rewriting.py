from __future__ import annotations

import asyncio
import random

import pytest

import azarr
from azarr import rewriting
from azarr.errors import PreconditionFailedError
from azarr.rewriting import rewrite
from azarr.types import ByteRange


class Unconditional:
    """What a store without conditional writes shows."""

    def __init__(self, inner):
        self.inner = inner
        self.requests = 0

    async def get(self, key, byte_range=None):
        self.requests += 1
        return await self.inner.get(key, byte_range)

    async def set(self, key, value):
        self.requests += 1
        await self.inner.set(key, value)

    async def erase(self, key):
        self.requests += 1
        await self.inner.erase(key)


@pytest.fixture(params=["conditional", "unconditional"])
def store(request):
    inner = azarr.MemoryStore()
    return azarr.LatencyStore(inner, 0) if request.param == "conditional" else Unconditional(inner)


def to(new):
    async def change(_old):
        return new

    return change


async def same(old):
    return old


@pytest.mark.parametrize("assumed", [False, True])
@pytest.mark.parametrize("old", [None, b"old"])
@pytest.mark.parametrize("new", [None, b"new"])
async def test_a_value_becomes_what_the_change_makes_of_it(store, old, new, assumed):
    if old is not None:
        await store.set("k", old)
    seen = []

    async def change(value):
        seen.append(value)
        return new

    await rewrite(store, "k", change, probably_absent=assumed)
    assert seen[-1] == old
    assert await store.get("k") == new


@pytest.mark.parametrize("old", [None, b"old"])
async def test_what_stays_the_same_is_not_written(store, old):
    if old is not None:
        await store.set("k", old)
    store.requests = 0
    await rewrite(store, "k", same)
    assert store.requests == 1


async def test_only_the_part_that_is_asked_for_is_read(store):
    await store.set("k", b"0123456789")

    async def change(old):
        assert bytes(old) == b"012"
        return b"new"

    await rewrite(store, "k", change, part=ByteRange(0, 3))
    assert await store.get("k") == b"new"


async def test_what_is_absent_as_assumed_costs_one_request():
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    await rewrite(store, "k", to(b"1"), probably_absent=True)
    assert store.requests == 1
    await rewrite(store, "k", to(b"2"), probably_absent=True)
    assert store.requests == 1 + 3
    await rewrite(store, "missing", to(None), probably_absent=True)
    assert store.requests == 1 + 3 + 1


async def test_a_change_that_fails_writes_nothing(store):
    async def fail(_old):
        raise ZeroDivisionError

    await store.set("k", b"old")
    with pytest.raises(ZeroDivisionError):
        await rewrite(store, "k", fail)
    assert await store.get("k") == b"old"


async def test_requests_are_held_for_requests_only(store):
    requests = asyncio.Semaphore(1)

    async def change(_old):
        assert not requests.locked()
        return b"new"

    await rewrite(store, "k", change, requests=requests)
    assert not requests.locked()


def test_many_processes_lose_nothing(elsewhere, run_virtual):
    async def main(seed):
        inner, dice = azarr.MemoryStore(), random.Random(seed)

        async def work(number):
            store = elsewhere(inner, jitter=0.5, seed=dice.random())
            for turn in range(4):

                async def change(old, turn=turn):
                    return f"{bytes(old or b'').decode()}{number}.{turn} ".encode()

                await rewrite(store, "k", change, probably_absent=dice.random() < 0.2)

        await asyncio.gather(*map(work, range(6)))
        written = bytes(inner._values["k"]).decode().split()
        assert sorted(written) == [f"{number}.{turn}" for number in range(6) for turn in range(4)]

    for seed in range(50):
        run_virtual(lambda seed=seed: main(seed))


async def test_one_who_is_always_too_late_gives_up_and_says_so(monkeypatch):
    monkeypatch.setattr(rewriting, "SHORTEST", 0.0)
    inner = azarr.MemoryStore()
    store = azarr.LatencyStore(inner, 0)
    calls = []

    async def change(_old):
        calls.append(1)
        await inner.set("k", str(len(calls)).encode())
        return b"new"

    with pytest.raises(PreconditionFailedError, match="'k' has been changed by others 100 times") as caught:
        await rewrite(store, "k", change)
    assert caught.value.key == "k"
    assert len(calls) == 100
    assert await inner.get("k") == b"100"


def test_a_cancelled_change_writes_all_or_nothing(cancelled_everywhere, how_cancelled):
    async def prepare():
        inner = azarr.MemoryStore({"k": b"old"})

        async def change(_old):
            await asyncio.sleep(0)
            return b"new"

        def check():
            assert bytes(inner._values["k"]) in (b"old", b"new")

        return rewrite(azarr.LatencyStore(inner, 0), "k", change), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 3
