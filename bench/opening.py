"""Beginning: importing azarr, and opening arrays of both formats, alone and in a consolidated group."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import azarr

MEMBERS = 100


async def run(bench) -> None:
    programs = {"Python alone": "pass", "asyncio": "import asyncio", "NumPy": "import numpy", "azarr": "import azarr"}
    times = bench.pick(500, 200, 5)
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: each for name, each in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}  # the first round writes it
        starts = [({"task": "start and import", "what": what}, starting(code, environment)) for what, code in programs.items()]
        await bench.compare(starts, bench.pick(9, 3, 1))
        cases = []
        for kind in ("memory", "local"):
            for name, zarr_format in (("v3", 3), ("v2", 2)):
                store = azarr.MemoryStore() if kind == "memory" else azarr.LocalStore(Path(folder, name), durability="none")
                nodes = {f"array{number}": {"shape": (100, 100), "chunks": (10, 10), "dtype": "f4"} for number in range(MEMBERS)}
                group = await azarr.create_group(store, zarr_format=zarr_format)
                for path, options in nodes.items():
                    await group.create_array(path, **options)
                cases.append(({"task": "open an array", "what": f"{name}, {kind}"}, opening(store, times)))
                await group.consolidate()
                cases.append(
                    ({"task": f"open a consolidated group and its {MEMBERS} arrays", "what": f"{name}, {kind}"}, opening_all(store))
                )
        await bench.compare(cases)


def starting(code, environment):
    async def way():
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], env=environment, check=True)
        return {"ms": (time.perf_counter() - begun) * 1000}

    return way


def opening(store, times):
    async def way():
        begun = time.perf_counter()
        for _ in range(times):
            array = await azarr.open_array(store, "array7")
        seconds = time.perf_counter() - begun
        assert array.shape == (100, 100)
        return {"ms": seconds / times * 1000}

    return way


def opening_all(store):
    async def way():
        begun = time.perf_counter()
        group = await azarr.open_group(store)
        arrays = [await group.open(f"array{number}") for number in range(MEMBERS)]
        seconds = time.perf_counter() - begun
        assert all(array.shape == (100, 100) for array in arrays)
        return {"ms": seconds * 1000}

    return way
