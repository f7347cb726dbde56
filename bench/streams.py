"""Streams: what they bring a second, what a chunk costs besides its bytes, and slices that cross chunks."""

from __future__ import annotations

import numpy as np

import azarr
from bench.arrays import CUBES, check, filled, weather
from bench.suite import measured


async def run(bench) -> None:
    await throughput(bench)
    await overhead(bench)
    await slices(bench)


async def throughput(bench):
    """Chunks of a useful size, compressed, in order and as they come."""
    data = weather(bench.pick((256, 512, 512), (128, 256, 256), (32, 64, 64)))
    array = await filled(azarr.MemoryStore(), data, chunks=CUBES[bench.pick(1024, 256, 16)])

    def way(ordered):
        async def way():
            total = 0.0
            async with measured() as meter, array.stream_chunks(ordered=ordered) as chunks:
                async for chunk in chunks:
                    total += float(chunk.data[0, 0, 0])
            assert total == float(data[tuple(slice(None, None, step) for step in array.chunks)].sum(dtype="f8"))
            return {"MiB/s": data.nbytes / 2**20 / meter.seconds, "µs a chunk": meter.seconds / array.nchunks * 1e6}

        return way

    await bench.compare(
        [
            ({"task": "stream", "what": "in order" if ordered else "as they come", "chunks": array.nchunks}, way(ordered))
            for ordered in (True, False)
        ]
    )


async def overhead(bench):
    """Chunks of 1 KiB in memory, uncompressed: all that is left is the cost of the engine."""
    count = bench.pick(10_000, 5000, 50)
    data = np.arange(count * 256, dtype="f4").reshape(count, 256)
    array = await filled(azarr.MemoryStore(), data, chunks=(1, 256), compressors=None)

    def way(task):
        async def way():
            async with measured() as meter:
                assert await task() == count
            return {"µs a chunk": meter.seconds / count * 1e6}

        return way

    async def chunks(ordered):
        number = 0
        async with array.stream_chunks(ordered=ordered) as stream:
            async for _ in stream:
                number += 1
        return number

    async def planes():
        number = 0
        async with array.stream_slices(0) as stream:
            async for _ in stream:
                number += 1
        return number

    async def write_stream():
        await array.write_stream(((row, 0), data[row : row + 1]) for row in range(count))
        return count

    ways = {
        "stream_chunks, in order": lambda: chunks(ordered=True),
        "stream_chunks, as they come": lambda: chunks(ordered=False),
        "stream_slices": planes,
        "write_stream": write_stream,
    }
    cases = [({"task": "overhead", "what": name, "chunks": count}, way(task)) for name, task in ways.items()]
    await bench.compare(cases + await zarr_python(bench, data))


async def zarr_python(bench, data):
    """The same with zarr-python, which has no streams: all at once, and chunk after chunk."""
    if not bench.those_installed({"zarr-python": "zarr"}):
        return []
    import zarr
    from zarr.api import asynchronous

    array = await asynchronous.create_array(
        zarr.storage.MemoryStore(), shape=data.shape, chunks=(1, 256), dtype=data.dtype, compressors=None
    )
    await array.setitem(slice(None), data)

    async def all_at_once():
        async with measured() as meter:
            found = await array.getitem(slice(None))
        check(found, data)
        return {"µs a chunk": meter.seconds / len(data) * 1e6}

    async def chunk_by_chunk():
        few = range(0, len(data), 10)
        async with measured() as meter:
            for row in few:
                await array.getitem(slice(row, row + 1))
        return {"µs a chunk": meter.seconds / len(few) * 1e6}

    about = {"task": "overhead", "chunks": len(data)}
    return [
        (about | {"what": "zarr-python, one getitem"}, all_at_once),
        (about | {"what": "zarr-python, chunk by chunk"}, chunk_by_chunk),
    ]


async def slices(bench):
    """Planes along the first axis of an array whose chunks are several planes deep, in order, and one read beside."""
    side = bench.pick(512, 256, 32)
    data = weather((side, side, side))
    array = await filled(azarr.MemoryStore(), data, chunks=(side // 32, side // 4, side // 4))

    def way(thickness):
        async def way():
            number = 0
            async with measured(touches=data.nbytes // 8) as meter, array.stream_slices(0, thickness=thickness) as planes:
                async for plane in planes:
                    number += 1
                    last = plane.data
            assert np.array_equal(last, data[-(thickness or 1) :].reshape(last.shape))
            return {"MiB/s": data.nbytes / 2**20 / meter.seconds}

        return way

    async def read():
        async with measured(touches=data.nbytes) as meter:
            found = await array.read()
        check(found, data)
        return {"MiB/s": data.nbytes / 2**20 / meter.seconds}

    deep = array.chunks[0]
    cases = [
        ({"task": "slices", "what": f"{thickness or 'single'} of {deep} planes"}, way(thickness))
        for thickness in (None, max(1, deep // 2), deep)
    ]
    await bench.compare([*cases, ({"task": "slices", "what": "one read beside"}, read)], bench.pick(3, 2, 1))
