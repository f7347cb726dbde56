"""Codecs on the loop, in threads and in processes: throughput of whole reads and writes, and how long the event loop is kept from other work.

In memory, with as many workers as there are processors. ``plain Python`` is a filter that holds the interpreter lock, and zstd behind it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

import azarr
from azarr import codecs
from bench.arrays import CUBES, check, filled, weather
from bench.suite import measured

EXECUTORS = ("inline", "threads", "processes", "auto")


@dataclass(frozen=True)
class Scramble(codecs.BytesToBytesCodec):
    """A filter in plain Python: some tens of nanoseconds a byte."""

    name: ClassVar[str] = "bench.scramble"
    releases_gil = False

    @classmethod
    def from_configuration(cls, configuration):
        return cls()

    def configuration(self):
        return {}

    def encode(self, data):
        return bytes([byte ^ 0x5A for byte in memoryview(data)])

    def decode(self, data, limit):
        return self.encode(data)


CODECS = {
    "zstd": [codecs.Zstd(level=3)],
    "blosc, lz4": [codecs.Blosc("lz4", 5, "shuffle")],
    "plain Python": [Scramble(), codecs.Zstd(level=1)],
}


async def run(bench) -> None:
    with azarr.register_codec(Scramble):
        for codec in CODECS:
            # plain Python takes so long for a byte that a little says as much
            slow = codec == "plain Python"
            shape = bench.pick((16, 512, 512) if slow else (256, 512, 512), (64, 256, 256) if slow else (128, 256, 256), (16, 32, 32))
            for kib in bench.pick((64, 1024) if slow else (64, 1024, 16384), (64, 1024), (16,)):
                await compare(bench, codec, weather(shape), kib)


async def compare(bench, codec: str, data: np.ndarray, kib: int) -> None:
    """All executors in turns."""
    engines, cases = [], []
    out = np.empty_like(data)
    for executor in EXECUTORS:
        engines.append(azarr.Engine(executor=executor))
        array = await filled(azarr.MemoryStore(), data, chunks=CUBES[kib], compressors=CODECS[codec], engine=engines[-1])
        for task in ("read", "write"):
            case = {"task": task, "codec": codec, "chunk KiB": kib, "executor": executor}
            cases.append((case, partial(figures, array, task, data, out)))
    await bench.compare(cases)
    for engine in engines:
        await engine.aclose()


async def figures(array: azarr.AsyncArray, task: str, data: np.ndarray, out: np.ndarray) -> dict[str, float]:
    """Throughput, and in a run of its own the stalls."""
    work = partial(array.read, out=out) if task == "read" else partial(array.write, data)
    out[...] = 0
    async with measured() as meter:
        await work()
    async with measured(heartbeat=True) as stalls:
        await work()
    if task == "read":
        check(out, data)
    throughput = data.nbytes / 2**20 / meter.seconds
    return {"MiB/s": throughput, "p99 stall ms": stalls.p99_stall * 1000, "longest stall ms": stalls.longest_stall * 1000}
