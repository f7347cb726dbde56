"""Whatever is done to stores around stores, in whatever order, they answer as a dictionary of bytes would."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.errors import PreconditionFailedError
from azarr.stores import (
    BlockingStore,
    CachingStore,
    CoalescingStore,
    LatencyStore,
    MemoryStore,
    OverlayStore,
    PrefixStore,
    ReadOnlyStore,
    RecordingStore,
)
from azarr.stores.memory import part_of
from azarr.testing.values import collect
from azarr.types import ByteRange, Suffix

KEYS = ["a", "a/b", "a/c", "b/c/d", "e"]
PREFIXES = ["", "a/", "b/", "b/c/", "x/"]
SEED = {"a/b": b"below", "b/c/d": bytes(100), "e": b""}

keys = st.sampled_from(KEYS)
prefixes = st.sampled_from(PREFIXES)
values = st.binary(max_size=20) | st.sampled_from([bytes(300), b"x" * 74])
parts = (
    st.none()
    | st.builds(lambda start, nbytes: ByteRange(start, start + nbytes), st.integers(0, 120), st.integers(0, 120))
    | st.builds(ByteRange, st.integers(0, 120))
    | st.builds(Suffix, st.integers(0, 120))
)
steps = st.lists(
    st.tuples(st.just("get"), keys, parts)
    | st.tuples(st.just("together"), keys, st.lists(parts, min_size=1, max_size=4))
    | st.tuples(st.just("versioned"), keys, parts)
    | st.tuples(st.just("set"), keys, values)
    | st.tuples(st.just("set_if"), keys, values, st.booleans())
    | st.tuples(st.just("erase"), keys)
    | st.tuples(st.just("erase_if"), keys, st.booleans())
    | st.tuples(st.just("erase_prefix"), prefixes)
    | st.tuples(st.just("list_prefix"), prefixes)
    | st.tuples(st.just("list_dir"), prefixes)
    | st.tuples(st.just("update"), keys, values | st.none()),
    max_size=25,
)


def late(values=None):
    return LatencyStore(MemoryStore(values), 0.0)


def below(prefix):
    return {prefix + key: value for key, value in SEED.items()}


def overlay(*, blocking=True):
    return OverlayStore(MemoryStore() if blocking else late(), ReadOnlyStore(MemoryStore(SEED) if blocking else late(SEED)))


STACKS = {
    "overlay": overlay,
    "late overlay": lambda: overlay(blocking=False),
    "overlay on a part": lambda: OverlayStore(PrefixStore(MemoryStore(), "up/"), PrefixStore(MemoryStore(below("down/")), "down/")),
    "overlay on an overlay": lambda: OverlayStore(MemoryStore(), overlay()),
    "cache of an overlay": lambda: CachingStore(overlay(blocking=False), nbytes=1500, missing=True),
    "cache for ever": lambda: CachingStore(late(SEED), late(), validate="forever", nbytes=1500, missing=True),
    "cache for a while": lambda: CachingStore(late(SEED), validate=1000.0),
    "cache under a cache": lambda: CachingStore(CachingStore(late(SEED)), validate="forever"),
    "all": lambda: CoalescingStore(
        CachingStore(RecordingStore(PrefixStore(OverlayStore(late(), late({f"p/{k}": v for k, v in SEED.items()})), "p/")), nbytes=2000),
        gap=5,
    ),
}


class Model:
    """The store and the dictionary, and one step at a time on both."""

    def __init__(self, store):
        self.store, self.values = store, SEED.copy()

    def expected(self, key, part=None):
        value = part_of(self.values.get(key), part)
        return None if value is None else bytes(value)

    async def get(self, key, part):
        assert plain(await self.store.get(key, part)) == self.expected(key, part)

    async def together(self, key, parts):
        found = await asyncio.gather(*(self.store.get(key, part) for part in parts))
        assert [plain(each) for each in found] == [self.expected(key, part) for part in parts]

    async def versioned(self, key, part):
        value, version = await self.store.get_versioned(key, part)
        assert plain(value) == self.expected(key, part)
        assert (version is None) == (value is None)

    async def set(self, key, value):
        await self.store.set(key, value)
        self.values[key] = value

    async def set_if(self, key, value, overtaken):
        _, version = await self.store.get_versioned(key)
        if overtaken:
            await self.set(key, b"somebody else's")
        if overtaken and self.expected(key) != version:
            with pytest.raises(PreconditionFailedError):
                await self.store.set_if(key, value, version)
        else:
            await self.store.set_if(key, value, version)
            self.values[key] = value

    async def erase(self, key):
        await self.store.erase(key)
        self.values.pop(key, None)

    async def erase_if(self, key, overtaken):
        _, version = await self.store.get_versioned(key)
        if version is None:
            return
        if overtaken:
            await self.erase(key)
            with pytest.raises(PreconditionFailedError):
                await self.store.erase_if(key, version)
        else:
            await self.store.erase_if(key, version)
            del self.values[key]

    async def erase_prefix(self, prefix):
        await self.store.erase_prefix(prefix)
        self.values = {key: value for key, value in self.values.items() if not key.startswith(prefix)}

    async def list_prefix(self, prefix):
        assert await collect(self.store.list_prefix(prefix)) == sorted(key for key in self.values if key.startswith(prefix))

    async def list_dir(self, prefix):
        assert await self.store.list_dir(prefix) == await MemoryStore(self.values).list_dir(prefix)

    async def update(self, key, value):
        if isinstance(self.store, BlockingStore):
            seen = []
            self.store.update_blocking(key, lambda old: (seen.append(plain(old)), value)[1])
            assert seen == [self.expected(key)]
            self.values.pop(key, None)
            if value is not None:
                self.values[key] = value


def plain(value):
    return None if value is None else bytes(value)


@pytest.mark.parametrize("stack", STACKS)
@given(steps=steps)
def test_answers_as_a_dictionary_would(stack, steps):
    async def main():
        model = Model(STACKS[stack]())
        for name, *arguments in steps:
            await getattr(model, name)(*arguments)
        for key in KEYS:
            await model.get(key, None)
        await model.list_prefix("")

    asyncio.run(main())
