"""Many small chunks: 16 KiB each, read, streamed and written; what counts is the time for one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np

import azarr
from bench.arrays import CUBES, check, filled, weather
from bench.suite import measured


async def run(bench) -> None:
    data = weather(bench.pick((320, 320, 800), (96, 96, 160), (32, 32, 64)))
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        for codec, compressors in (("none", None), ("zstd", [azarr.codecs.Zstd(level=3)])):
            for kind in ("memory", "local"):
                store = azarr.MemoryStore() if kind == "memory" else azarr.LocalStore(Path(folder, codec), durability="none")
                array = await filled(store, data, chunks=CUBES[16], compressors=compressors)
                about = {"store": kind, "codec": codec, "chunks": array.nchunks}
                cases += [
                    ({"task": "read", **about}, reading(array, data)),
                    ({"task": "stream", **about}, streaming(array, data)),
                    ({"task": "write", **about}, writing(kind, Path(folder, "write"), data, compressors)),
                ]
        await bench.compare(sorted(cases, key=lambda each: each[0]["task"]), bench.pick(2, 1, 1))


def figures(meter, array):
    return {"µs a chunk": meter.seconds / array.nchunks * 1e6, "CPU µs a chunk": meter.cpu / array.nchunks * 1e6}


def reading(array, data):
    async def way():
        async with measured(touches=data.nbytes) as meter:
            found = await array.read()
        check(found, data)
        return figures(meter, array)

    return way


def streaming(array, data):
    async def way():
        total = 0.0
        async with measured() as meter, array.stream_chunks(ordered=False) as chunks:
            async for chunk in chunks:
                total += float(chunk.data[0, 0, 0])
        assert total == float(np.sum(data[::16, ::16, ::16], dtype="f8"))
        return figures(meter, array)

    return way


def writing(kind, folder, data, compressors):
    async def way():
        shutil.rmtree(folder, ignore_errors=True)
        store = azarr.MemoryStore() if kind == "memory" else azarr.LocalStore(folder, durability="none")
        array = await azarr.create_array(store, "a", shape=data.shape, dtype=data.dtype, chunks=CUBES[16], compressors=compressors)
        async with measured(touches=data.nbytes) as meter:
            await array.write(data)
        check(await array.read(), data)
        return figures(meter, array)

    return way
