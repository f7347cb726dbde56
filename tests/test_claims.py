"""Turns among processes that have nothing but conditional writes in common, on a virtual clock."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import numpy as np
import pytest

import azarr
from azarr.claims import BEAT, PATIENCE, Claim, OvertakenError, claim_of, new_claim, without_claim
from azarr.errors import StoreError
from azarr.types import Limits

DOCUMENT = b'{"a": 1}'


def claim(store):
    return Claim(store, "", "zarr.json", Limits())


@pytest.fixture
def inner():
    return azarr.MemoryStore({"zarr.json": DOCUMENT})


# What a claim is


def test_a_claim_is_white_space_that_readers_skip():
    claimed = DOCUMENT + new_claim()
    assert json.loads(claimed) == {"a": 1}
    assert claim_of(claimed) == claimed[len(DOCUMENT) :]
    assert without_claim(claimed) == DOCUMENT
    assert without_claim(memoryview(claimed)) == DOCUMENT
    assert len({new_claim() for _ in range(100)}) == 100


@pytest.mark.parametrize(
    "document", [None, b"", DOCUMENT, DOCUMENT + b"\n", DOCUMENT + b"\n" + b" " * 63, DOCUMENT + b" " * 65, b"\n" * 65]
)
def test_other_white_space_is_none(document):
    assert claim_of(document) == b""
    assert document is None or without_claim(document) == document


# Taking turns


def test_one_waits_for_the_other(inner, elsewhere, run_virtual):
    async def main():
        inside = []

        async def enter(number):
            mine = claim(elsewhere(inner, jitter=0.1, seed=number))
            await mine.begin()
            inside.append(number)
            await asyncio.sleep(1)
            assert inside == [number]
            mine.check()
            inside.clear()
            await mine.end()

        await asyncio.gather(*map(enter, range(5)))
        assert inner._values["zarr.json"] == DOCUMENT

    run_virtual(main)


def test_one_who_takes_long_keeps_the_claim(inner, elsewhere, run_virtual):
    async def main():
        first, second = claim(elsewhere(inner)), claim(elsewhere(inner))
        await first.begin()
        waiting = asyncio.create_task(second.begin())
        await asyncio.sleep(20 * PATIENCE)
        first.check()
        assert not waiting.done()
        await first.end()
        await waiting
        second.check()
        await second.end()

    run_virtual(main)


def test_the_claim_of_one_who_died_is_taken_over(inner, elsewhere, run_virtual):
    async def main():
        inner._values["zarr.json"] = DOCUMENT + new_claim()
        mine = claim(elsewhere(inner))
        await mine.begin()
        assert PATIENCE <= asyncio.get_running_loop().time() < PATIENCE + 2
        await mine.end()
        assert inner._values["zarr.json"] == DOCUMENT

    run_virtual(main)


def test_one_who_was_taken_for_dead_finds_out(inner, elsewhere, run_virtual):
    class Gone(type(elsewhere(inner))):
        gone = False

        async def get_versioned(self, key, byte_range=None):
            if self.gone:
                raise StoreError("no connection", key=key)
            return await super().get_versioned(key, byte_range)

    async def main():
        store = Gone(inner, 0.0)
        first, second = claim(store), claim(elsewhere(inner))
        await first.begin()
        document = inner._values["zarr.json"]
        assert first.keep(document) == claim_of(document)
        store.gone = True
        await asyncio.sleep(PATIENCE / 2 + BEAT)
        with pytest.raises(OvertakenError):
            first.check()
        await second.begin()
        store.gone = False
        with pytest.raises(OvertakenError):
            first.keep(inner._values["zarr.json"])
        await asyncio.sleep(BEAT)  # a beat does not take back what is another's
        second.check()
        await first.end()
        assert claim_of(inner._values["zarr.json"])
        await second.end()
        assert inner._values["zarr.json"] == DOCUMENT

    run_virtual(main)


def test_what_others_change_meanwhile_keeps_the_claim(elsewhere, run_virtual):
    async def main():
        inner = azarr.MemoryStore()
        await azarr.create_array(inner, shape=3, chunks=3, dtype="i4")
        mine = claim(elsewhere(inner))
        await mine.begin()
        await (await azarr.open_array(elsewhere(inner))).update_attributes({"x": 1})
        mine.keep(inner._values["zarr.json"])
        await mine.end()
        assert inner._values["zarr.json"].endswith(b"}")
        assert dict((await azarr.open_array(inner)).attrs) == {"x": 1}

    run_virtual(main)


def test_a_document_that_is_missing_cannot_be_claimed(elsewhere, run_virtual):
    async def main():
        inner = azarr.MemoryStore()
        mine = claim(elsewhere(inner))
        await mine.begin()
        with pytest.raises(OvertakenError):
            mine.check()
        await mine.end()
        assert inner._values == {}

    run_virtual(main)


def test_a_claim_that_is_given_up_leaves_nothing(inner, elsewhere, cancelled_everywhere, how_cancelled):
    async def prepare():
        values = azarr.MemoryStore({"zarr.json": DOCUMENT})

        async def enter():
            mine = claim(elsewhere(values))
            try:
                await mine.begin()
            finally:
                await mine.end()

        def check():
            assert values._values["zarr.json"] == DOCUMENT

        return enter(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 3


# Processes that stop, and come back


def test_one_who_was_suspended_does_not_write_over_what_others_have_appended(elsewhere, run_virtual):
    """It wakes between reading a chunk and writing it, long after another process has taken over."""

    class Suspended(type(elsewhere(azarr.MemoryStore()))):
        at = None

        async def set_if(self, key, value, version):
            if key.startswith("c/") and self.at is not None:
                wait, self.at = self.at, None
                await wait()
            await super().set_if(key, value, version)

    async def main(length):
        inner = azarr.MemoryStore()
        await azarr.create_array(inner, shape=2, chunks=4, dtype="i4")
        await (await azarr.open_array(inner)).write([1, 1])
        store = Suspended(inner, 0.0)
        engine = azarr.Engine(executor=azarr.InlineExecutor())
        slow = await azarr.open_array(store, engine=engine)

        async def another_takes_over():
            # no beat comes through, and the document does not change: that is what a dead process looks like
            stale = inner._values["zarr.json"]
            inner._values["zarr.json"] = without_claim(stale) + new_claim()
            quick = await azarr.open_array(elsewhere(inner), engine=engine)
            assert await quick.append(np.full(length, 5, "i4")) == (slice(2, 2 + length),)

        store.at = another_takes_over
        region = await slow.append([7, 7, 7])
        assert region == (slice(2 + length, 5 + length),)
        found = (await (await azarr.open_array(inner, engine=engine))).tolist()
        assert found == [1, 1] + [5] * length + [7, 7, 7]
        assert inner._values["zarr.json"].endswith(b"}")

    for length in (1, 2, 5, 9):
        run_virtual(lambda length=length: main(length))


def test_a_process_that_dies_while_it_appends_holds_up_the_others_for_a_while_only(elsewhere, run_virtual):
    async def main():
        inner = azarr.MemoryStore()
        await azarr.create_array(inner, shape=0, chunks=4, dtype="i4")
        engine = azarr.Engine(executor=azarr.InlineExecutor())

        class Dying(type(elsewhere(inner))):
            async def set_if(self, key, value, version):
                await super().set_if(key, value, version)
                if key.startswith("c/"):
                    died.set()
                    await asyncio.Event().wait()

        died = asyncio.Event()
        dead = asyncio.create_task((await azarr.open_array(Dying(inner, 0.0), engine=engine)).append([9, 9, 9]))
        await died.wait()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.get_loop().call_soon(task.cancel)
        with suppress(asyncio.CancelledError):
            await dead
        # a process that is killed does not clean up behind it
        inner._values["zarr.json"] = without_claim(inner._values["zarr.json"]) + new_claim()
        begun = asyncio.get_running_loop().time()
        array = await azarr.open_array(elsewhere(inner), engine=engine)
        assert array.shape == (0,)
        await array.append([1, 2])
        assert asyncio.get_running_loop().time() - begun < PATIENCE + 5
        assert (await array).tolist() == [1, 2]

    run_virtual(main)
