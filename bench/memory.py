"""Memory at the peak, beyond what there was at the start, each task in a fresh process; a result that is handed over is counted apart."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path

import numpy as np

import azarr
from bench.suite import measured

SIDE = 512  # planes of 1 MiB
BOUND = 64 * 2**20


def run(bench) -> None:
    planes, per_chunk = bench.pick(1024, 128, 8), bench.pick(4, 2, 1)
    with tempfile.TemporaryDirectory() as folder:
        prepare(folder, planes, per_chunk)
        peers = bench.those_installed({library: package for library, (package, _) in PEERS.items()})
        tasks = list(TASKS)[:: bench.pick(1, 2, 1)]
        for library, task in [*(("azarr", task) for task in tasks), *((library, "read") for library in peers)]:
            found = bench.in_child(measure, library, task, folder, planes, per_chunk)
            bench.add({"task": task, "library": library, "array MiB": planes, "chunk MiB": per_chunk}, found)


def planes_of(first: int, count: int) -> np.ndarray:
    """Planes that can be told from each other, and compress as weather does."""
    noise = np.random.default_rng(0).integers(0, 8, (SIDE, SIDE)).astype("f4")
    return noise + np.arange(first, first + count, dtype="f4")[:, None, None]


def prepare(folder: str, planes: int, per_chunk: int) -> None:
    """Write the arrays that are read, one part after the other."""

    async def main():
        shards = (4 * per_chunk, SIDE, SIDE)
        for name, options in (("plain", {}), ("sharded", {"shards": shards})):
            array = await azarr.create_array(
                Path(folder, name), shape=(planes, SIDE, SIDE), chunks=(per_chunk, SIDE, SIDE), dtype="f4", **options
            )
            for first in range(0, planes, shards[0]):
                await array[first : first + shards[0]].write(planes_of(first, shards[0]))

    asyncio.run(main())


def measure(library: str, task: str, folder: str, planes: int, per_chunk: int) -> dict[str, float]:
    """The figures of one task; in a process of its own."""
    return asyncio.run(TASKS[task](Path(folder), planes, per_chunk) if library == "azarr" else PEERS[library][1](Path(folder), planes))


def figures(meter, result=0, allowed=None):
    found = {"peak MiB": max(0.0, meter.peak) / 2**20, "beyond the result MiB": max(0.0, meter.peak - result) / 2**20}
    return found if allowed is None else found | {"allowed MiB": allowed / 2**20}


async def read(folder, planes, per_chunk, name="plain"):
    array = await azarr.open_array(folder / name)
    await array[:1].read()  # codecs are imported
    async with measured() as meter:
        found = await array.read()
    assert np.array_equal(found[-1:], planes_of(planes - 1, 1))
    return figures(meter, found.nbytes)


async def read_shards(folder, planes, per_chunk):
    return await read(folder, planes, per_chunk, "sharded")


async def write(folder, planes, per_chunk, *, stream=False, shards=None):
    """What is written is there before, or is made as it is asked for."""
    with tempfile.TemporaryDirectory() as place:
        async with azarr.Engine(memory=BOUND) as engine:
            array = await azarr.create_array(
                place, shape=(planes, SIDE, SIDE), chunks=(per_chunk, SIDE, SIDE), shards=shards, dtype="f4", engine=engine
            )
            data = None if stream else planes_of(0, planes)
            async with measured() as meter:
                if stream:
                    await array.write_stream(
                        ((first // per_chunk, 0, 0), planes_of(first, per_chunk)) for first in range(0, planes, per_chunk)
                    )
                else:
                    await array.write(data)
            assert np.array_equal(await array[-1], planes_of(planes - 1, 1)[0])
    return figures(meter, 0, BOUND)


async def write_stream(folder, planes, per_chunk):
    return await write(folder, planes, per_chunk, stream=True)


async def write_stream_shards(folder, planes, per_chunk):
    return await write(folder, planes, per_chunk, stream=True, shards=(4 * per_chunk, SIDE, SIDE))


async def stream(folder, planes, per_chunk, pause=0.02, name="plain"):
    """A consumer that is much slower than the store for the first twenty chunks, so that all piles up that may."""
    array = await azarr.open_array(folder / name)
    await array[:1].read()
    count = 0
    async with measured() as meter, array.stream_chunks(memory=BOUND) as chunks:
        async for chunk in chunks:
            if count < 20:
                await asyncio.sleep(pause)
            assert chunk.data[0, 0, 0] - chunk.coords[0] * per_chunk < 8
            count += 1
            del chunk
    assert count == planes // per_chunk
    return figures(meter, 0, BOUND + 2 * per_chunk * 2**20)


async def stream_shards(folder, planes, per_chunk):
    return await stream(folder, planes, per_chunk, name="sharded")


async def slices(folder, planes, per_chunk):
    array = await azarr.open_array(folder / "plain")
    await array[:1].read()
    count = 0
    async with measured() as meter, array.stream_slices(0, memory=BOUND) as stream:
        async for each in stream:
            count += 1
            del each
    assert count == planes
    return figures(meter, 0, BOUND)


TASKS = {
    "read": read,
    "read, sharded": read_shards,
    "stream, 64 MiB": stream,
    "stream, 64 MiB, sharded": stream_shards,
    "slices, 64 MiB": slices,
    "write, 64 MiB": write,
    "write_stream, 64 MiB": write_stream,
    "write_stream, 64 MiB, sharded": write_stream_shards,
}


async def read_zarr_python(folder, planes):
    import zarr

    array = await zarr.api.asynchronous.open_array(store=str(folder / "plain"), mode="r")
    await array.getitem(slice(0, 1))
    async with measured() as meter:
        found = await array.getitem(...)
    return figures(meter, checked(found, planes))


async def read_tensorstore(folder, planes):
    import tensorstore

    array = await tensorstore.open({"driver": "zarr3", "kvstore": {"driver": "file", "path": f"{folder / 'plain'}/"}}, read=True)
    await array[:1].read()
    async with measured() as meter:
        found = await array.read()
    return figures(meter, checked(found, planes))


async def read_zarrista(folder, planes):
    import zarrista
    from zarrista.store import FilesystemStore

    array = zarrista.Array.open(FilesystemStore(str(folder / "plain")))
    array.retrieve_array_subset((slice(0, 1), slice(None), slice(None)))
    async with measured() as meter:
        found = (await asyncio.to_thread(array.retrieve_array_subset, ...)).to_numpy()
    return figures(meter, checked(found, planes))


def checked(found, planes):
    assert np.array_equal(found[-1:], planes_of(planes - 1, 1))
    return found.nbytes


PEERS = {
    "zarr-python": ("zarr", read_zarr_python),
    "tensorstore": ("tensorstore", read_tensorstore),
    "zarrista": ("zarrista", read_zarrista),
}
