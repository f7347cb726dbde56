"""How long the event loop is kept from other work, by azarr and by other libraries that can be awaited, each in a fresh process.

A task wants to run every millisecond; how late it came at the worst, and in one case of a hundred, is what a request to the same service
would have waited. Two tasks: reading a whole array, and reading chunks one by one, sixteen at once.
"""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import numpy as np

import azarr
from bench.arrays import CUBES, weather
from bench.suite import measured

AT_ONCE = 16


def run(bench) -> None:
    shape = bench.pick((256, 512, 512), (128, 256, 256), (32, 64, 64))
    installed = bench.those_installed({library: package for library, (package, _) in LIBRARIES.items()})
    with tempfile.TemporaryDirectory() as folder:
        for kib in bench.pick((16, 1024, 16384), (16, 1024), (4, 16)):
            place = f"{folder}/{kib}"
            prepare(place, shape, kib)
            for library in installed:
                for task, found in bench.in_child(measure, library, place, shape, kib, bench.rounds).items():
                    bench.add({"task": task, "library": library, "chunk KiB": kib}, *found)


def prepare(place: str, shape: tuple[int, ...], kib: int) -> None:
    """Write the array that is read."""

    async def main():
        array = await azarr.create_array(azarr.LocalStore(place, durability="none"), shape=shape, chunks=CUBES[kib], dtype="f4")
        await array.write(weather(shape))

    asyncio.run(main())


def measure(library: str, place: str, shape: tuple[int, ...], kib: int, rounds: int) -> dict[str, list[dict[str, float]]]:
    """The figures of so many rounds of each task, after one that warms up; in a process of its own."""

    async def main():
        whole, part = await LIBRARIES[library][1](place)
        found = {task: [] for task in TASKS}
        for task, way in TASKS.items():
            for number in range(rounds + 1):
                async with measured(touches=int(np.prod(shape)) * 4 if task == "whole array" else 0, heartbeat=True) as meter:
                    await way(whole, part, shape, CUBES[kib])
                if number:
                    stalls = {"longest ms": meter.longest_stall * 1000, "p99 ms": meter.p99_stall * 1000}
                    found[task].append(stalls | {"seconds": meter.seconds})
        return found

    return asyncio.run(main())


async def read_whole(whole, part, shape, chunks):
    result = await whole()
    assert result.shape == shape
    del result


async def read_parts(whole, part, shape, chunks):
    most = 512
    corners = list(np.ndindex(*(length // step for length, step in zip(shape, chunks, strict=True))))[:most]
    left = iter([tuple(slice(i * step, (i + 1) * step) for i, step in zip(corner, chunks, strict=True)) for corner in corners])

    async def work():
        for selection in left:
            assert (await part(selection)).shape == chunks

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


TASKS = {"whole array": read_whole, "chunk by chunk": read_parts}


async def with_azarr(place):
    array = await azarr.open_array(place)
    return array.read, lambda selection: array[selection].read()


async def with_zarr_python(place):
    import zarr

    array = await zarr.api.asynchronous.open_array(store=place, mode="r")
    return lambda: array.getitem(...), array.getitem


async def with_tensorstore(place):
    import tensorstore

    array = await tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{place}/"}}, read=True)

    async def part(selection):
        return await array[selection].read()

    async def whole():
        return await array.read()

    return whole, part


async def with_zarrista(place):
    """Its calls block, so that they are made in threads, as a careful user would."""
    import zarrista
    from zarrista.store import FilesystemStore

    array = zarrista.Array.open(FilesystemStore(place))

    def part(selection):
        return asyncio.to_thread(lambda: array.retrieve_array_subset(selection).to_numpy())

    return lambda: part(...), part


LIBRARIES = {
    "azarr": ("azarr", with_azarr),
    "zarr-python": ("zarr", with_zarr_python),
    "tensorstore": ("tensorstore", with_tensorstore),
    "zarrista, in threads": ("zarrista", with_zarrista),
}
"""The package that a library comes with, and how it reads a whole array and parts of it."""
