"""Work on nodes: opening, listing and creating many arrays, consolidated or not; beside zarr-python, where it is installed."""

from __future__ import annotations

import asyncio
import tempfile
import time
import warnings
from pathlib import Path

import azarr

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
        import zarr

        return zarr.storage.MemoryStore() if kind == "memory" else zarr.storage.LocalStore(root)

    def hierarchy(self, store, count):
        import zarr
        from zarr.core.metadata.v3 import ArrayV3Metadata

        spec = zarr.create_array(zarr.storage.MemoryStore(), **OPTIONS).metadata
        assert isinstance(spec, ArrayV3Metadata)
        return timed(lambda: dict(zarr.create_hierarchy(store=store, nodes={name: spec for name in names(count)})))[0]

    def create(self, store, count):
        import zarr

        async def main():
            group = await zarr.api.asynchronous.create_group(store=store)
            start = time.perf_counter()
            await asyncio.gather(*(group.create_array(name, **OPTIONS) for name in names(count)))
            return time.perf_counter() - start

        return asyncio.run(main())

    def create_one_by_one(self, store, count):
        import zarr

        async def main():
            group = await zarr.api.asynchronous.create_group(store=store)
            start = time.perf_counter()
            for name in names(count):
                await group.create_array(name, **OPTIONS)
            return time.perf_counter() - start

        return asyncio.run(main())

    def consolidate(self, store):
        import zarr

        return timed(lambda: asyncio.run(zarr.api.asynchronous.consolidate_metadata(store)))[0]

    def open_consolidated(self, store, count):
        import zarr

        async def main():
            start = time.perf_counter()
            group = await zarr.api.asynchronous.open_group(store, mode="r")
            arrays = [await group.getitem(name) for name in names(count)]
            assert len(arrays) == count
            return time.perf_counter() - start

        return asyncio.run(main())

    def list(self, store, count, use_consolidated):
        import zarr

        async def main():
            start = time.perf_counter()
            group = await zarr.api.asynchronous.open_group(store, mode="r", use_consolidated=use_consolidated)
            found = [name async for name, _ in group.members(use_consolidated_for_children=bool(use_consolidated))]
            assert len(found) == count
            return time.perf_counter() - start

        return asyncio.run(main())


def tasks(library, kind, root, few, many):
    """The tasks and their seconds, for one library and kind of store."""
    found = {}
    found[f"create {few} at once (create_hierarchy)"] = library.hierarchy(library.store(kind, root / "a"), few)
    found[f"create {few} concurrently (create_array)"] = library.create(library.store(kind, root / "b"), few)
    found[f"create {few} one by one (create_array)"] = library.create_one_by_one(library.store(kind, root / "c"), few)
    large, small = library.store(kind, root / "d"), library.store(kind, root / "a2")
    library.hierarchy(large, many)
    library.hierarchy(small, few)
    found[f"list {many} members"] = library.list(large, many, False)
    found[f"consolidate {few}"] = library.consolidate(small)
    found[f"open {few} of a consolidated group"] = library.open_consolidated(small, few)
    found[f"consolidate {many}"] = library.consolidate(large)
    found[f"list {many} members, consolidated"] = library.list(large, many, True)
    if kind == "local" and isinstance(library, Azarr):
        durable = library.store(kind, root / "e", "file")
        found[f"create {few} at once, fsynced"] = library.hierarchy(durable, few)
    return found


def run(bench) -> None:
    libraries = [Azarr(), ZarrPython()] if bench.those_installed({"zarr-python": "zarr"}) else [Azarr()]
    few, many = bench.pick((1000, 10_000), (100, 500), (5, 10))
    for kind in ("memory", "local"):
        figures = {}
        for _ in range(bench.pick(2, 1, 1)):
            for library in libraries:
                with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # zarr-python's, about consolidated metadata
                    for task, seconds in tasks(library, kind, Path(root), few, many).items():
                        figures.setdefault((task, type(library).__name__), []).append({"ms": seconds * 1000})
        for (task, library), found in figures.items():
            bench.add({"store": kind, "task": task, "library": "azarr" if library == "Azarr" else "zarr-python"}, *found)
