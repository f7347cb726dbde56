"""Streams: how near to the ideal they come, what a chunk costs besides its bytes, what they hold, and how long they stop the loop.

Usage: python bench/streams.py [latency] [overhead] [memory] [stalls] [slices]     (all of them by default)

`overhead` also measures zarr-python where it is installed.
"""

from __future__ import annotations

import asyncio
import math
import statistics
import sys
import time

import numpy as np
import psutil

import azarr


async def filled(store, shape, chunks, dtype="f4", **options):
    array = await azarr.create_array(store, "a", shape=shape, chunks=chunks, dtype=dtype, overwrite=True, **options)
    return array, np.random.default_rng(0).integers(0, 1000, shape).astype(dtype)


async def latency():
    """1,000 chunks, 20 ms from the store, 32 at once."""
    ideal = math.ceil(1000 / 32) * 0.02
    inside = azarr.MemoryStore()
    array, data = await filled(inside, (1000, 1024), (1, 1024))
    await array.write(data)
    slow = azarr.AsyncArray(azarr.LatencyStore(inside, 0.02), "a", array.metadata)
    for ordered in (True, False):
        start = time.perf_counter()
        async with slow.stream_chunks(ordered=ordered, concurrency=32) as chunks:
            async for _ in chunks:
                pass
        seconds = time.perf_counter() - start
        print(
            f"latency   reading, {'ordered' if ordered else 'unordered':9}  {seconds:.3f} s = {seconds / ideal:.2f} x the ideal of {ideal:.2f} s"
        )
    start = time.perf_counter()
    await slow.write(data)
    seconds = time.perf_counter() - start
    print(f"latency   write                {seconds:.3f} s = {seconds / ideal:.2f} x the ideal of {ideal:.2f} s")
    if hasattr(slow, "write_stream"):
        start = time.perf_counter()
        await slow.write_stream((((row, 0), data[row : row + 1]) for row in range(1000)), concurrency=32)
        seconds = time.perf_counter() - start
        print(f"latency   write_stream         {seconds:.3f} s = {seconds / ideal:.2f} x the ideal of {ideal:.2f} s")


async def overhead():
    """10,000 chunks of 1 KiB in memory, uncompressed: all that is left is the cost of the engine."""
    store, count = azarr.MemoryStore(), 10_000
    array, data = await filled(store, (count, 256), (1, 256), compressors=None)
    await array.write(data)
    costs = {}
    for _ in range(5):
        for ordered in (True, False):
            start = time.perf_counter()
            async with array.stream_chunks(ordered=ordered) as chunks:
                async for _ in chunks:
                    pass
            costs.setdefault(f"stream_chunks, {'ordered' if ordered else 'unordered'}", []).append(time.perf_counter() - start)
        start = time.perf_counter()
        async with array.stream_slices(0) as slices:
            async for _ in slices:
                pass
        costs.setdefault("stream_slices", []).append(time.perf_counter() - start)
        if hasattr(array, "write_stream"):
            start = time.perf_counter()
            await array.write_stream(((row, 0), data[row : row + 1]) for row in range(count))
            costs.setdefault("write_stream", []).append(time.perf_counter() - start)
    for name, seconds in costs.items():
        print(f"overhead  {name:28} {statistics.median(seconds) / count * 1e6:8.1f} µs a chunk")
    await zarr_overhead(data)


async def zarr_overhead(data):
    try:
        import zarr
        from zarr.api import asynchronous as zarr_async
    except ImportError:
        print("overhead  zarr-python is not installed")
        return
    array = await zarr_async.create_array(zarr.storage.MemoryStore(), shape=data.shape, chunks=(1, 256), dtype=data.dtype, compressors=None)
    await array.setitem(slice(None), data)
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        await array.getitem(slice(None))
        seconds.append(time.perf_counter() - start)
    print(f"overhead  zarr-python, one getitem     {statistics.median(seconds) / len(data) * 1e6:8.1f} µs a chunk")
    start = time.perf_counter()
    for row in range(0, len(data), 10):
        await array.getitem(slice(row, row + 1))
    seconds = time.perf_counter() - start
    print(f"overhead  zarr-python, chunk by chunk  {seconds / (len(data) / 10) * 1e6:8.1f} µs a chunk")


async def memory():
    """4 GiB of chunks of 4 MiB, 64 MiB of memory, a consumer that is a hundred times slower than the store."""
    store = azarr.MemoryStore()
    array = await azarr.create_array(
        store, "a", shape=(1024, 1024, 1024), chunks=(1, 1024, 1024), dtype="f4", compressors=[azarr.codecs.Zstd()]
    )
    await array[:1].write(np.random.default_rng(0).integers(0, 4, (1, 1024, 1024)).astype("f4"))
    value = await store.get("a/c/0/0/0")
    for number in range(1024):
        await store.set(f"a/c/{number}/0/0", value)
    bound, chunk = 64 * 2**20, 4 * 2**20
    process = psutil.Process()
    async with array[:8].stream_chunks(memory=bound) as chunks:  # warm: codec contexts, scratch memory
        async for each in chunks:
            del each
    start, peak, count = process.memory_info().rss, 0, 0
    begin = time.perf_counter()
    async with array[:64].stream_chunks(memory=bound) as chunks:
        async for each in chunks:
            del each
    pause = (time.perf_counter() - begin) / 64 * 100
    async with array.stream_chunks(memory=bound) as chunks:
        async for each in chunks:
            if count < 20:
                await asyncio.sleep(pause)
            peak = max(peak, process.memory_info().rss - start)
            count += 1
            del each
    print(
        f"memory    4 GiB in {count} chunks, bound {bound / 2**20:.0f} MiB: {peak / 2**20:.1f} MiB = {peak / chunk:.1f} chunks; allowed {bound / chunk + 2:.0f}"
    )
    print(f"          the first 20 chunks were held for {pause * 1000:.0f} ms each")


class Stalls:
    """How late a task is that wants to run every millisecond."""

    async def __aenter__(self):
        self.late = []
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_):
        self._task.cancel()

    async def _watch(self):
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            self.late.append((time.perf_counter() - start - 0.001) * 1000)


async def stalls():
    """64 MiB chunks in threads."""
    store = azarr.MemoryStore()
    array = await azarr.create_array(
        store, "a", shape=(32, 4096, 4096), chunks=(1, 4096, 4096), dtype="f4", compressors=[azarr.codecs.Zstd()]
    )
    await array[:1].write(np.random.default_rng(0).integers(0, 4, (1, 4096, 4096)).astype("f4"))
    value = await store.get("a/c/0/0/0")
    for number in range(32):
        await store.set(f"a/c/{number}/0/0", value)
    for name, view in (
        ("blocking store", array),
        ("awaited store", azarr.AsyncArray(azarr.LatencyStore(store, 0.005), "a", array.metadata)),
    ):
        async with Stalls() as watch:
            for _ in range(3):
                async with view.stream_chunks() as chunks:
                    async for each in chunks:
                        del each
        late = sorted(watch.late)
        p99 = late[int(len(late) * 0.99)]
        print(
            f"stalls    64 MiB chunks, {name}: longest {late[-1]:.1f} ms, p99 {p99:.2f} ms, median {statistics.median(late):.2f} ms, {len(late)} ticks"
        )


async def slices():
    """Planes along the first axis of an array whose chunks are 16 planes deep, in order."""
    store = azarr.MemoryStore()
    array, data = await filled(store, (512, 512, 512), (16, 128, 128))
    await array.write(data)
    for thickness in (None, 8, 16):
        start = time.perf_counter()
        async with array.stream_slices(0, thickness=thickness) as planes:
            async for each in planes:
                del each
        seconds = time.perf_counter() - start
        print(f"slices    thickness {thickness}: {data.nbytes / 2**20 / seconds:.0f} MiB/s")
    start = time.perf_counter()
    await array.read()
    print(f"slices    one read: {data.nbytes / 2**20 / (time.perf_counter() - start):.0f} MiB/s")


ALL = {"latency": latency, "overhead": overhead, "memory": memory, "stalls": stalls, "slices": slices}

if __name__ == "__main__":
    for name in sys.argv[1:] or ALL:
        asyncio.run(ALL[name]())
