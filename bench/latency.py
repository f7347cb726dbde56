"""A store that answers late: how near reads, writes and streams come to the ideal, as more requests are in flight at once."""

from __future__ import annotations

import numpy as np

import azarr
from bench.arrays import check
from bench.suite import measured

SIDE = 256  # chunks of 256 KiB


async def run(bench) -> None:
    seconds, rounds_of_requests = bench.pick(0.03, 0.03, 0.002), bench.pick(8, 4, 2)
    cases = []
    for concurrency in bench.pick((1, 2, 4, 8, 16, 32, 64), (1, 8, 32, 64), (1, 4)):
        for task, way in TASKS.items():
            case = {"task": task, "concurrency": concurrency, "latency ms": round(seconds * 1000)}
            cases.append((case, late(way, concurrency, rounds_of_requests, seconds)))
    await bench.compare(sorted(cases, key=lambda each: each[0]["task"]), bench.pick(3, 1, 1))


def late(task, concurrency, rounds_of_requests, seconds):
    """As many chunks as fill so many rounds of requests; the ideal is that many times the latency."""
    count = concurrency * rounds_of_requests
    ideal = rounds_of_requests * seconds
    data = np.arange(count * SIDE * SIDE, dtype="f4").reshape(count, SIDE, SIDE)

    async def way():
        async with azarr.Engine(concurrency=concurrency) as engine:
            inside = azarr.MemoryStore()
            array = await azarr.create_array(inside, "a", shape=data.shape, dtype="f4", chunks=(1, SIDE, SIDE), compressors=None)
            await array.write(data)
            store = azarr.LatencyStore(inside, seconds)
            array = azarr.AsyncArray(store, "a", array.metadata, engine)
            async with measured(touches=data.nbytes) as meter:
                found = await task(array, data)
            if found is not None:
                check(found, data)
            assert store.max_in_flight <= concurrency
        return {"seconds": meter.seconds, "× ideal": meter.seconds / ideal, "CPU ms a chunk": meter.cpu / count * 1000}

    return way


async def read(array, data):
    return await array.read()


async def write(array, data):
    await array.write(data)


async def write_stream(array, data):
    await array.write_stream((((row, 0, 0), data[row : row + 1]) for row in range(len(data))), concurrency=array.engine.concurrency)


async def ordered(array, data):
    await stream(array, data, ordered=True)


async def unordered(array, data):
    await stream(array, data, ordered=False)


async def stream(array, data, *, ordered):
    count = 0
    async with array.stream_chunks(ordered=ordered) as chunks:
        async for chunk in chunks:
            assert chunk.data[0, 0, 0] == data[chunk.coords[0], 0, 0]
            count += 1
    assert count == len(data)


TASKS = {"read": read, "write": write, "write_stream": write_stream, "stream, in order": ordered, "stream, as they come": unordered}
