"""What one chunk costs as an array has more of them: reading, writing and streaming small chunks in memory, each in a fresh process.

``dictionary`` is no task of azarr's but what is left of ``read`` without it: each chunk is looked up in a dictionary, and copied. The tasks with
``zstd`` are of compressed chunks, the others of raw ones.
"""

from __future__ import annotations

import asyncio

import numpy as np

import azarr
from bench.suite import measured

ELEMENTS = 64  # 256 bytes a chunk: what is left is the cost of the engine
LARGE = 100_000


def run(bench) -> None:
    counts = bench.pick((100, 1000, 10_000, 100_000, 1_000_000), (100, 1000, 10_000, 100_000), (10, 100))
    for task in bench.pick(tuple(WAYS), tuple(WAYS)[:-1], tuple(WAYS)):
        found = {count: [] for count in counts}
        for _ in range(bench.pick(3, 1, 1)):  # in turns, so that a minute in which the machine is slow is none of one count alone
            for count in counts:
                rounds = max(1, min(50, bench.pick(100_000, 10_000, 100) // count))
                found[count] += bench.in_child(measure, task, count, rounds)
        for count in counts:
            bench.add({"task": task, "chunks": count}, *found[count])


def measure(task: str, count: int, rounds: int) -> list[dict[str, float]]:
    """The figures of so many rounds after one that warms up, which large arrays do without."""
    return asyncio.run(rounds_of(task, count, rounds))


async def rounds_of(task, count, rounds):
    store = azarr.MemoryStore()
    data = np.arange(count * ELEMENTS, dtype="f4")
    writes = task.startswith("write")
    codecs = [azarr.codecs.Zstd()] if "zstd" in task else None
    array = await azarr.create_array(store, "a", shape=data.shape, dtype="f4", chunks=(ELEMENTS,), compressors=codecs)
    if task == "dictionary":
        array = {f"a/c/{number}": data[number * ELEMENTS : (number + 1) * ELEMENTS].tobytes() for number in range(count)}
    elif not writes:
        await array.write(data)
    found = []
    for number in range(rounds + (count < LARGE)):
        if writes:
            await store.erase_prefix("a/c/")
        result = 0 if writes or task == "stream" else data.nbytes
        stored = count * 500 if writes else 0  # values, keys and the dictionary
        async with measured(touches=result + stored) as meter:
            await WAYS[task](array, data)
        if number or count >= LARGE:
            found.append(figures(meter, count, result))
    if writes:
        assert np.array_equal(await array.read(), data)
    return found


def figures(meter, count, result):
    return {
        "µs a chunk": meter.seconds / count * 1e6,
        "CPU µs a chunk": meter.cpu / count * 1e6,
        "peak MiB over the result": max(0.0, meter.peak - result) / 2**20,
    }


async def read(array, data):
    assert np.array_equal((await array.read())[:: ELEMENTS + 1], data[:: ELEMENTS + 1])


async def dictionary(values, data):
    out = np.empty_like(data)
    memory = memoryview(out).cast("B")
    nbytes = ELEMENTS * data.itemsize
    for number in range(len(values)):
        memory[number * nbytes : (number + 1) * nbytes] = values[f"a/c/{number}"]
    assert np.array_equal(out[:: ELEMENTS + 1], data[:: ELEMENTS + 1])


async def write(array, data):
    await array.write(data)


async def stream(array, data):
    count = 0
    async with array.stream_chunks() as chunks:
        async for chunk in chunks:
            count += 1
    assert count == array.nchunks
    assert chunk.data[-1] == data[-1]


async def write_stream(array, data):
    await array.write_stream(((number,), data[number * ELEMENTS : (number + 1) * ELEMENTS]) for number in range(array.nchunks))


WAYS = {
    "read": read,
    "dictionary": dictionary,
    "write": write,
    "read, zstd": read,
    "write, zstd": write,
    "stream": stream,
    "write_stream": write_stream,
}
"""What each task does; their names in the order in which they are measured."""
