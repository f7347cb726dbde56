"""What one chunk costs does not depend on how many there are: counted in calls, which take their time on any machine."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import azarr


async def calls_per_chunk(task, count):
    """The calls of Python and C functions for one chunk of an array that has ``count``."""
    data = np.arange(count * 4, dtype="i4")
    calls = 0

    def notice(frame, event, argument):
        nonlocal calls
        calls += event in {"call", "c_call"}

    async with azarr.Engine(executor=azarr.InlineExecutor()) as engine:
        array = await azarr.create_array(azarr.MemoryStore(), shape=data.shape, chunks=(4,), dtype="i4", compressors=None, engine=engine)
        await array.write(data)
        sys.setprofile(notice)
        try:
            await task(array, data)
        finally:
            sys.setprofile(None)
    return calls / count


async def read(array, data):
    await array.read()


async def stream(array, data):
    async with array.stream_chunks() as chunks:
        async for _ in chunks:
            pass


async def write_stream(array, data):
    await array.write_stream(((number,), data[number * 4 : (number + 1) * 4]) for number in range(array.nchunks))


@pytest.mark.parametrize("task", [read, stream, write_stream], ids=lambda task: task.__name__)
async def test_a_chunk_costs_the_same_among_many_as_among_few(task):
    few, many = await calls_per_chunk(task, 512), await calls_per_chunk(task, 4096)
    assert many < 1.1 * few
