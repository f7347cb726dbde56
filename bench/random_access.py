"""Single chunks at random: how long one read takes, and how many a second there are with 32 at once."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time

import numpy as np

import azarr
from bench.arrays import CUBES, filled, weather

AT_ONCE = 32


async def run(bench) -> None:
    data = weather(bench.pick((128, 256, 512), (64, 128, 256), (32, 32, 64)))
    reads = bench.pick(2000, 500, 20)
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for codec, compressors in (("none", None), ("zstd", [azarr.codecs.Zstd(level=3)])):
            stores = {"memory": azarr.MemoryStore(), "local": azarr.LocalStore(f"{folder}/{codec}", durability="none")}
            for kind, store in stores.items():
                array = await filled(store, data, chunks=CUBES[16], compressors=compressors)
                cases.append(({"store": kind, "codec": codec, "chunk KiB": 16}, access(array, data, reads)))
        cached = azarr.Engine(cache=azarr.ChunkCache(2 * data.nbytes))
        async with cached:
            array = await azarr.open_array(stores["local"], "a", engine=cached)
            cases.append(({"store": "local, cached", "codec": "zstd", "chunk KiB": 16}, access(array, data, reads)))
            await bench.compare(cases, bench.pick(5, 3, 1))


def access(array, data, reads):
    lengths = [length // step for length, step in zip(data.shape, array.chunks, strict=True)]

    def selections():
        draw = random.Random(7)
        for _ in range(reads):
            corner = [draw.randrange(length) * step for length, step in zip(lengths, array.chunks, strict=True)]
            yield tuple(slice(begin, begin + step) for begin, step in zip(corner, array.chunks, strict=True))

    async def way():
        latencies = []
        for selection in selections():
            begun = time.perf_counter()
            found = await array[selection]
            latencies.append(time.perf_counter() - begun)
            assert np.array_equal(found, data[selection])
        latencies.sort()
        left, sums = iter(list(selections())), []

        async def work():
            for selection in left:
                sums.append((await array[selection])[0, 0, 0])

        begun = time.perf_counter()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        seconds = time.perf_counter() - begun
        assert len(sums) == reads
        return {
            "p50 µs": latencies[reads // 2] * 1e6,
            "p99 µs": latencies[int(reads * 0.99)] * 1e6,
            f"reads/s, {AT_ONCE} at once": reads / seconds,
        }

    return way
