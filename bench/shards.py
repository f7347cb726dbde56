"""Sharded arrays: read and written as a whole, and single inner chunks at random."""

from __future__ import annotations

import asyncio
import random
import shutil
import tempfile
from pathlib import Path

import numpy as np

import azarr
from bench.arrays import CUBES, check, filled, weather
from bench.suite import measured

AT_ONCE = 16


async def run(bench) -> None:
    data = weather(bench.pick((256, 256, 512), (128, 256, 256), (64, 64, 64)))
    shape = bench.pick((128, 128, 256), (64, 128, 128), (32, 32, 32))
    inner = CUBES[bench.pick(256, 64, 4)]
    reads = bench.pick(1000, 200, 10)
    about = {"shard MiB": float(np.prod(shape)) * 4 / 2**20, "inner KiB": float(np.prod(inner)) * 4 / 2**10}
    with tempfile.TemporaryDirectory() as folder:
        cases = []
        for kind in ("memory", "local"):
            store = azarr.MemoryStore() if kind == "memory" else azarr.LocalStore(Path(folder, "read"), durability="none")
            array = await filled(store, data, chunks=inner, shards=shape)
            cases += [
                ({"task": "read all", "store": kind, **about}, whole(array, data)),
                ({"task": "read inner chunks", "store": kind, **about}, inner_chunks(array, data, inner, reads)),
                ({"task": "write all", "store": kind, **about}, writing(kind, Path(folder, "write"), data, inner, shape)),
            ]
        await bench.compare(sorted(cases, key=lambda each: each[0]["task"]))


def whole(array, data):
    async def way():
        async with measured(touches=data.nbytes) as meter:
            found = await array.read()
        check(found, data)
        return {"MiB/s": data.nbytes / 2**20 / meter.seconds, "a second": array.nchunks / meter.seconds}

    return way


def inner_chunks(array, data, inner, reads):
    async def way():
        draw = random.Random(7)
        corners = [[draw.randrange(length // step) * step for length, step in zip(data.shape, inner, strict=True)] for _ in range(reads)]
        selections = [tuple(slice(c, c + step) for c, step in zip(corner, inner, strict=True)) for corner in corners]
        left, found = iter(enumerate(selections)), [None] * reads

        async def work():
            for number, selection in left:
                found[number] = await array[selection]

        async with measured() as meter:
            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        for selection, chunk in zip(selections, found, strict=True):
            check(chunk, data[selection])
        return {"MiB/s": reads * found[0].nbytes / 2**20 / meter.seconds, "a second": reads / meter.seconds}

    return way


def writing(kind, folder, data, inner, shape):
    async def way():
        shutil.rmtree(folder, ignore_errors=True)
        store = azarr.MemoryStore() if kind == "memory" else azarr.LocalStore(folder, durability="none")
        array = await azarr.create_array(store, "a", shape=data.shape, dtype=data.dtype, chunks=inner, shards=shape)
        async with measured(touches=data.nbytes) as meter:
            await array.write(data)
        check(await array.read(), data)
        return {"MiB/s": data.nbytes / 2**20 / meter.seconds, "a second": array.nchunks / meter.seconds}

    return way
