"""Whatever is done to an array, in whatever order and through whichever object, it agrees with a NumPy array."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
import numpy as np
from hypothesis import settings
from hypothesis.extra import numpy as npst
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import azarr

LENGTHS = st.integers(0, 7)
OBJECTS = st.integers(0, 2)


class ArrayMachine(RuleBasedStateMachine):
    """Three objects for one array, one of them as another process has it, against one NumPy array."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.Runner()
        self.content = np.zeros((0, 0), "i4")
        self.attributes = {}

    def teardown(self):
        self.loop.close()

    def run(self, coroutine):
        return self.loop.run(coroutine)

    @initialize(
        shape=st.tuples(LENGTHS, LENGTHS),
        chunks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
        per_shard=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)),
        zarr_format=st.sampled_from([2, 3]),
        fill_value=st.sampled_from([0, -1]),
    )
    def create(self, shape, chunks, per_shard, zarr_format, fill_value):
        shards = None if per_shard is None or zarr_format == 2 else tuple(np.multiply(chunks, per_shard).tolist())
        store = azarr.MemoryStore()
        options = {"shape": shape, "chunks": chunks, "shards": shards, "zarr_format": zarr_format, "fill_value": fill_value}
        self.fill = fill_value

        async def make():
            first = await azarr.create_array(store, "a", dtype="i4", **options)
            return [first, await azarr.open_array(store, "a"), await azarr.open_array(azarr.LatencyStore(store, 0), "a")]

        self.arrays = self.run(make())
        self.content = np.full(shape, fill_value, "i4")

    def current(self, number):
        """One of the objects, which knows the shape: what a stale one may do is for other tests."""
        array = self.arrays[number]
        if array.shape != self.content.shape:
            self.run(array.refresh())
        return array

    def drawn_block(self, data):
        block = []
        for length in self.content.shape:
            start = data.draw(st.integers(0, length))
            block.append(slice(start, data.draw(st.integers(start, length))))
        return tuple(block)

    @rule(number=OBJECTS, data=st.data(), value=st.integers(-5, 5))
    def write(self, number, data, value):
        block = self.drawn_block(data)
        self.run(self.current(number)[block].write(value))
        self.content[block] = value

    @rule(number=OBJECTS, data=st.data())
    def write_values(self, number, data):
        block = self.drawn_block(data)
        values = data.draw(npst.arrays("i4", self.content[block].shape))
        self.run(self.current(number)[block].write(values))
        self.content[block] = values

    @rule(data=st.data())
    def write_at_once(self, data):
        """Rows by tasks of their own, each through another object."""
        rows = data.draw(st.lists(st.integers(0, 6), max_size=5, unique=True))
        rows = [row for row in rows if row < self.content.shape[0]]
        arrays = [self.current(number) for number in range(3)]

        async def write():
            await asyncio.gather(*(arrays[place % 3][row].write(100 + row) for place, row in enumerate(rows)))

        self.run(write())
        self.content[rows] = 100 + np.array(rows, int)[:, np.newaxis]

    @rule(number=OBJECTS, data=st.data())
    def read(self, number, data):
        block = self.drawn_block(data)
        assert np.array_equal(self.run(self.current(number)[block].read()), self.content[block])

    @rule(number=OBJECTS, shape=st.tuples(LENGTHS, LENGTHS))
    def resize(self, number, shape):
        self.run(self.arrays[number].resize(shape))
        kept = tuple(map(slice, np.minimum(shape, self.content.shape)))
        content = np.full(shape, self.fill, "i4")
        content[kept] = self.content[kept]
        self.content = content
        assert self.arrays[number].shape == shape

    @precondition(lambda self: self.content.size < 400)
    @rule(number=OBJECTS, axis=st.integers(0, 1), length=st.integers(0, 4), value=st.integers(-5, 5))
    def append(self, number, axis, length, value):
        shape = list(self.content.shape)
        shape[axis] = length
        region = self.run(self.arrays[number].append(np.full(shape, value, "i4"), axis))
        assert region[axis] == slice(self.content.shape[axis], self.content.shape[axis] + length)
        self.content = np.concatenate([self.content, np.full(shape, value, "i4")], axis)

    @precondition(lambda self: self.content.size < 400)
    @rule(count=st.integers(1, 5))
    def append_at_once(self, count):
        width = self.content.shape[1]

        async def append():
            return await asyncio.gather(*(self.arrays[number % 3].append(np.full((1, width), number)) for number in range(count)))

        regions = self.run(append())
        order = sorted(range(count), key=lambda number: regions[number][0].start)
        more = np.repeat(np.array(order, "i4")[:, np.newaxis], width, axis=1)
        self.content = np.concatenate([self.content, more])

    @rule(number=OBJECTS, name=st.sampled_from("abc"), value=st.integers(0, 3))
    def change_attributes(self, number, name, value):
        self.run(self.arrays[number].update_attributes({name: value}))
        self.attributes[name] = value

    @rule(number=OBJECTS, name=st.sampled_from("abc"))
    def delete_attribute(self, number, name):
        self.run(self.arrays[number].delete_attributes(name))
        self.attributes.pop(name, None)

    @rule(number=OBJECTS)
    def refresh(self, number):
        self.run(self.arrays[number].refresh())
        assert self.arrays[number].shape == self.content.shape

    @invariant()
    def what_is_stored_agrees(self):
        if not hasattr(self, "arrays"):
            return

        async def look():
            found = await azarr.open_array(self.arrays[0].store, "a")
            return await found, dict(found.attrs)

        content, attributes = self.run(look())
        assert np.array_equal(content, self.content)
        assert attributes == self.attributes


TestArrayMachine = ArrayMachine.TestCase
TestArrayMachine.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
