"""Memory stays within its bounds, measured from outside: the most that a process of its own ever had."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc/self/status and clear_refs, which only Linux has")

PRELUDE = """
import asyncio, gc, sys
import numpy as np
import azarr
from azarr import Engine
from azarr.stores.base import BlockingStore, ReadableStore, WritableStore
from azarr.types import ByteRange, Suffix

MIB = 2**20

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field + ":"))

def forget_peak():
    with open("/proc/self/clear_refs", "w") as refs:
        refs.write("5")

class Synthetic(ReadableStore):
    "Serves one prepared value under every key of a chunk; counts the requests."
    def __init__(self, document, value):
        self.document, self.value, self.count = document, value, 0
    def _get(self, key, byte_range=None):
        if key.endswith("zarr.json"):
            return self.document
        self.count += 1
        value = memoryview(self.value) if self.value is not None else None
        if value is None or byte_range is None:
            return value
        if isinstance(byte_range, Suffix):
            return value[len(value) - byte_range.nbytes:]
        return value[byte_range.start:byte_range.stop]
    async def get(self, key, byte_range=None):
        await asyncio.sleep(0)
        return self._get(key, byte_range)

class BlockingSynthetic(Synthetic, BlockingStore):
    def get_blocking(self, key, byte_range=None, reserve=None):
        return self._get(key, byte_range)
    def get_into(self, key, out):
        value = self._get(key)
        if value is None:
            return None
        out[:len(value)] = value
        return len(value)
    def set_blocking(self, key, value):
        raise NotImplementedError
    def erase_blocking(self, key):
        raise NotImplementedError

async def synthetic(kind, shape, chunks, fill=False, **options):
    made = azarr.MemoryStore()
    small = await azarr.create_array(made, shape=shape, chunks=chunks, dtype="f4", **options)
    unit = small.shards or small.chunks
    await small[tuple(slice(0, length) for length in unit)].write(1.5)
    key = "c/" + "/".join("0" for _ in shape)
    value = None if fill else await made.get(key)
    store = (BlockingSynthetic if kind == "blocking" else Synthetic)(await made.get("zarr.json"), value)
    return store
"""


# What is freed goes back to the system at once; else every thread's arena of the C library keeps some of it for next time.
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}


def measure(program: str, *arguments: str, environment: dict[str, str] = AT_ONCE) -> list[int]:
    """The numbers that ``program``, with what is prepared above, prints in a process of its own."""
    command = [sys.executable, "-P", "-c", PRELUDE + program, *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


STREAM = """
async def main(kind, ordered, sharded, edge):
    # 100 × 100 chunks of 328 × 328 float32: 10,000 chunks, 4.0 GiB
    length = 32800 if not edge else 32799
    options = {"shards": (3280, 3280)} if sharded else {}
    store = await synthetic(kind, (length, length), (328, 328), **options)
    chunk, window = 328 * 328 * 4, 16
    async with Engine(concurrency=32, memory=window * chunk + chunk // 2, workers=2) as engine:
        array = await azarr.open_array(store, engine=engine)
        assert engine.window(chunk) == window and array.nchunks == 10_000
        async def stream(view):
            count = 0
            async with view.stream_chunks(ordered=ordered) as chunks:
                async for each in chunks:
                    count += 1
                    assert each.data[0, 0] == each.data[-1, -1] == 1.5
            return count
        # the threads and their scratch memory, the codecs, and everything that is imported late
        assert await stream(array[-9840:, -9840:]) >= 900
        gc.collect()
        forget_peak()
        start = memory("VmRSS")
        assert await stream(array) == 10_000
        print(memory("VmHWM") - start, chunk, window, array.nbytes)

asyncio.run(main(sys.argv[1], sys.argv[2] == "ordered", sys.argv[3] == "sharded", sys.argv[3] == "edge"))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "order", "layout"),
    [
        ("blocking", "ordered", "plain"),
        ("blocking", "ordered", "sharded"),
        ("blocking", "unordered", "edge"),
        ("awaited", "ordered", "edge"),
        ("awaited", "unordered", "plain"),
        ("awaited", "unordered", "sharded"),
    ],
)
def test_streaming_ten_thousand_chunks_of_four_gibibytes(kind, order, layout):
    grown, chunk, window, nbytes = measure(STREAM, kind, order, layout)
    assert nbytes > 4.0 * 2**30 - 2**22
    assert grown <= (window + 2) * chunk


PLAN = """
async def main(kind, verb):
    store = await synthetic(kind, (1_000_000,), (1,), fill=True, compressors=None)
    async with Engine(concurrency=32, workers=2) as engine:
        array = await azarr.open_array(store, engine=engine)
        async def run(view):
            if verb == "read":
                await view.read(out=out[:view.size])
                return view.size
            async with view.stream_chunks(ordered=verb == "ordered") as chunks:
                count = 0
                async for _ in chunks:
                    count += 1
                return count
        out = np.ones(1_000_000, "f4")
        small = 20_000
        assert await run(array[:small]) == small
        gc.collect()
        forget_peak()
        start, count = memory("VmRSS"), store.count
        number = 1_000_000 if verb == "read" and kind == "blocking" else 100_000
        assert await run(array[:number]) == number
        assert store.count - count == number
        print(memory("VmHWM") - start)

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["read", "ordered"])
@pytest.mark.parametrize("kind", ["blocking", "awaited"])
def test_a_plan_of_a_million_chunks_costs_no_memory(kind, verb):
    (grown,) = measure(PLAN, kind, verb)
    assert grown <= 8 * 2**20


SLICES = """
async def main():
    # 4 rows of chunks, 64 MiB each, in slices of 16 MiB
    store = await synthetic("blocking", (256, 512, 512), (64, 64, 64))
    async with Engine(workers=2) as engine:
        array = await azarr.open_array(store, engine=engine)
        await array[:64].read()  # the threads and their scratch memory, the codecs, and everything that is imported late
        gc.collect()
        forget_peak()
        start = memory("VmRSS")
        for _ in range(4):  # what threads keep shows when they have worked for a while
            async with array.stream_slices(0, thickness=16) as slices:
                async for each in slices:
                    assert each.data[0, 0, 0] == each.data[-1, -1, -1] == 1.5
            del each
        print(memory("VmHWM") - start)

asyncio.run(main())
"""


def test_large_slices_take_two_rows():
    """The row that they are parts of and the next one."""
    (grown,) = measure(SLICES, environment={})
    assert grown <= (2 * 64 + 16) * 2**20
