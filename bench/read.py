"""Whole arrays, read by one call: from memory and from local files, in small and large chunks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import azarr
from bench.arrays import CUBES, check, filled, weather
from bench.suite import measured

COMPRESSORS = {
    "none": None,
    "zstd": [azarr.codecs.Zstd(level=3)],
    "blosc": [azarr.codecs.Blosc(cname="lz4", clevel=5, shuffle="shuffle", typesize=4)],
}


async def run(bench) -> None:
    data = weather(bench.pick((256, 512, 512), (64, 256, 512), (32, 64, 64)))
    cases = []
    with tempfile.TemporaryDirectory() as folder:
        for kib in bench.pick((64, 1024, 16384), (64, 1024), (4, 16)):
            for codec, compressors in COMPRESSORS.items():
                for kind in ("memory", "local"):
                    store = azarr.MemoryStore() if kind == "memory" else azarr.LocalStore(Path(folder, f"{kib}-{codec}"), durability="none")
                    array = await filled(store, data, chunks=CUBES[kib], compressors=compressors)
                    cases.append(({"store": kind, "chunk KiB": kib, "codec": codec}, reading(array, data)))
        await bench.compare(cases)


def reading(array, data):
    async def way():
        async with measured(touches=data.nbytes) as meter:
            found = await array.read()
        check(found, data)
        return {"MiB/s": data.nbytes / 2**20 / meter.seconds, "CPU s/GiB": meter.cpu / data.nbytes * 2**30}

    return way
