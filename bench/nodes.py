"""Work on nodes, azarr against zarr-python in one run: opening, listing and creating many arrays, consolidated or not.

Usage: python bench/nodes.py [rounds]     (Python 3.12 or later, with zarr-python installed)

Prints the median of the rounds in milliseconds; the two libraries take turns.
"""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
import warnings
from pathlib import Path

import zarr

import azarr

warnings.filterwarnings("ignore")
MANY, FEW = 10_000, 1_000
OPTIONS = {"shape": (100, 100), "chunks": (10, 10), "dtype": "f4"}


def names(count):
    return [f"array_{number:05}" for number in range(count)]


def timed(function):
    start = time.perf_counter()
    result = function()
    return time.perf_counter() - start, result


class Azarr:
    def store(self, kind, root, durability="none"):
        return azarr.MemoryStore() if kind == "memory" else azarr.LocalStore(root, durability=durability)

    def hierarchy(self, store, count):
        async def main():
            await azarr.create_hierarchy(store, {name: OPTIONS for name in names(count)})

        return timed(lambda: asyncio.run(main()))[0]

    def create(self, store, count):
        async def main():
            group = await azarr.create_group(store)
            start = time.perf_counter()
            await asyncio.gather(*(group.create_array(name, **OPTIONS) for name in names(count)))
            return time.perf_counter() - start

        return asyncio.run(main())

    def create_one_by_one(self, store, count):
        async def main():
            group = await azarr.create_group(store)
            start = time.perf_counter()
            for name in names(count):
                await group.create_array(name, **OPTIONS)
            return time.perf_counter() - start

        return asyncio.run(main())

    def consolidate(self, store):
        async def main():
            group = await azarr.open_group(store)
            start = time.perf_counter()
            await group.consolidate()
            return time.perf_counter() - start

        return asyncio.run(main())

    def open_consolidated(self, store, count):
        async def main():
            start = time.perf_counter()
            group = await azarr.open_group(store)
            arrays = [await group.open(name) for name in names(count)]
            assert len(arrays) == count
            return time.perf_counter() - start

        return asyncio.run(main())

    def list(self, store, count, use_consolidated):
        async def main():
            start = time.perf_counter()
            group = await azarr.open_group(store, use_consolidated=use_consolidated)
            found = [name async for name, _ in group.members()]
            assert len(found) == count
            return time.perf_counter() - start

        return asyncio.run(main())


class ZarrPython:
    def store(self, kind, root, durability="none"):
        return zarr.storage.MemoryStore() if kind == "memory" else zarr.storage.LocalStore(root)

    def hierarchy(self, store, count):
        from zarr.core.metadata.v3 import ArrayV3Metadata

        spec = zarr.create_array(zarr.storage.MemoryStore(), **OPTIONS).metadata
        assert isinstance(spec, ArrayV3Metadata)
        return timed(lambda: dict(zarr.create_hierarchy(store=store, nodes={name: spec for name in names(count)})))[0]

    def create(self, store, count):
        async def main():
            group = await zarr.api.asynchronous.create_group(store=store)
            start = time.perf_counter()
            await asyncio.gather(*(group.create_array(name, **OPTIONS) for name in names(count)))
            return time.perf_counter() - start

        return asyncio.run(main())

    def create_one_by_one(self, store, count):
        async def main():
            group = await zarr.api.asynchronous.create_group(store=store)
            start = time.perf_counter()
            for name in names(count):
                await group.create_array(name, **OPTIONS)
            return time.perf_counter() - start

        return asyncio.run(main())

    def consolidate(self, store):
        return timed(lambda: asyncio.run(zarr.api.asynchronous.consolidate_metadata(store)))[0]

    def open_consolidated(self, store, count):
        async def main():
            start = time.perf_counter()
            group = await zarr.api.asynchronous.open_group(store, mode="r")
            arrays = [await group.getitem(name) for name in names(count)]
            assert len(arrays) == count
            return time.perf_counter() - start

        return asyncio.run(main())

    def list(self, store, count, use_consolidated):
        async def main():
            start = time.perf_counter()
            group = await zarr.api.asynchronous.open_group(store, mode="r", use_consolidated=use_consolidated)
            found = [name async for name, _ in group.members(use_consolidated_for_children=bool(use_consolidated))]
            assert len(found) == count
            return time.perf_counter() - start

        return asyncio.run(main())


def tasks(library, kind, root):
    """The tasks and their seconds, for one library and kind of store."""
    found = {}
    found[f"create {FEW} at once (create_hierarchy)"] = library.hierarchy(library.store(kind, root / "a"), FEW)
    found[f"create {FEW} concurrently (create_array)"] = library.create(library.store(kind, root / "b"), FEW)
    found[f"create {FEW} one by one (create_array)"] = library.create_one_by_one(library.store(kind, root / "c"), FEW)
    many, few = library.store(kind, root / "d"), library.store(kind, root / "a2")
    library.hierarchy(many, MANY)
    library.hierarchy(few, FEW)
    found[f"list {MANY} members"] = library.list(many, MANY, False)
    found[f"consolidate {FEW}"] = library.consolidate(few)
    found[f"open {FEW} of a consolidated group"] = library.open_consolidated(few, FEW)
    found[f"consolidate {MANY}"] = library.consolidate(many)
    found[f"list {MANY} members, consolidated"] = library.list(many, MANY, True)
    if kind == "local" and isinstance(library, Azarr):
        durable = library.store(kind, root / "e", "file")
        found[f"create {FEW} at once, fsynced"] = library.hierarchy(durable, FEW)
    return found


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    for kind in ("memory", "local"):
        figures = {}
        for _ in range(rounds):
            for library in (Azarr(), ZarrPython()):
                root = Path(tempfile.mkdtemp())
                for task, seconds in tasks(library, kind, root).items():
                    figures.setdefault(task, {}).setdefault(type(library).__name__, []).append(seconds)
                shutil.rmtree(root)
        print(f"\n{kind} store{'':40} azarr      zarr-python   ratio")
        for task, by_library in figures.items():
            mine = statistics.median(by_library["Azarr"]) * 1000
            theirs = statistics.median(by_library["ZarrPython"]) * 1000 if "ZarrPython" in by_library else float("nan")
            print(f"{task:48} {mine:9.0f} ms {theirs:9.0f} ms {theirs / mine:7.1f}")


if __name__ == "__main__":
    main()
