"""Whole arrays, written by one call: to memory and to local files, in small and large chunks; synchronised to the disk, and not."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import azarr
from bench.arrays import CUBES, check, weather
from bench.read import COMPRESSORS
from bench.suite import measured


async def run(bench) -> None:
    data = weather(bench.pick((64, 512, 1024), (64, 128, 512), (32, 64, 64)))
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for kib in bench.pick((64, 1024, 16384), (64, 1024), (4, 16)):
            for codec, compressors in COMPRESSORS.items():
                for kind, durability in (("memory", ""), ("local", "none"), ("local", "file")):
                    if durability == "file" and (codec != "zstd" or kib < 1024):
                        continue  # which would measure the disk
                    make = azarr.MemoryStore if kind == "memory" else local(Path(folder, f"{kib}-{codec}-{durability}"), durability)
                    case = {"store": "local, synchronised" if durability == "file" else kind, "chunk KiB": kib, "codec": codec}
                    cases.append((case, writing(make, data, chunks=tuple(map(min, CUBES[kib], data.shape)), compressors=compressors)))
        await bench.compare(cases)


def local(folder, durability):
    def make():
        shutil.rmtree(folder, ignore_errors=True)
        return azarr.LocalStore(folder, durability=durability)

    return make


def writing(make, data, **options):
    async def way():
        array = await azarr.create_array(make(), "a", shape=data.shape, dtype=data.dtype, **options)
        async with measured(touches=data.nbytes) as meter:
            await array.write(data)
        check(await array.read(), data)
        return {"MiB/s": data.nbytes / 2**20 / meter.seconds, "CPU s/GiB": meter.cpu / data.nbytes * 2**30}

    return way
