"""Codecs on the loop, in threads and in processes: throughput of whole reads and writes, and how long the event loop stands still meanwhile.

``python bench/executors.py [--rounds 3] [--nbytes 67108864] [--sizes "1 MiB"] [--out results.json] -- [codec ...]``

Each round runs every executor once, one after the other, and the best round of each counts, as others may use the machine. CPU is that of this
process and of its workers together.
"""

import argparse
import asyncio
import json
import sys
import time
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import psutil

import azarr
from azarr import codecs

PERIOD = 0.001


@dataclass(frozen=True)
class Scramble(codecs.BytesToBytesCodec):
    """A filter in plain Python, a few tens of nanoseconds a byte, that holds the interpreter lock."""

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
    "blosc": [codecs.Blosc("lz4", 5, "shuffle")],
    "pure": [Scramble(), codecs.Zstd(level=1)],
}
CHUNKS = {"64 KiB": 2**16, "1 MiB": 2**20, "4 MiB": 2**22}
EXECUTORS = ["inline", "threads", "processes", "auto"]


class Stalls:
    """How much later than asked for the loop comes back, sampled every millisecond."""

    async def __aenter__(self):
        self.late = []
        self._task = asyncio.create_task(self._watch())
        await asyncio.sleep(0)
        return self

    async def _watch(self):
        while True:
            begun = time.perf_counter()
            await asyncio.sleep(PERIOD)
            self.late.append(time.perf_counter() - begun - PERIOD)

    async def __aexit__(self, *_):
        await asyncio.sleep(0)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def summary(self):
        late = sorted(self.late) or [0.0]
        return {"max_ms": 1000 * late[-1], "p99_ms": 1000 * late[int(0.99 * (len(late) - 1))]}


def cpu_seconds():
    """What this process and its children have used."""
    processes = [psutil.Process(), *psutil.Process().children()]
    return sum(sum(process.cpu_times()[:2]) for process in processes)


def values(nbytes):
    """Numbers that compress as measurements do, about three to one."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal(nbytes // 4).cumsum() * 4).round().astype("f4")


async def measured(array, data, out):
    result = {}
    for name, operation in (("write", lambda: array.write(data)), ("read", lambda: array.read(out=out))):
        async with Stalls() as stalls:
            cpu, begun = cpu_seconds(), time.perf_counter()
            await operation()
            seconds, cpu = time.perf_counter() - begun, cpu_seconds() - cpu
        mebibytes = data.nbytes / 2**20
        result[name] = {"MiB_s": mebibytes / seconds, "cpu_ms_per_MiB": 1000 * cpu / mebibytes, **stalls.summary()}
    assert (out == data).all()
    return result


async def run(names, sizes, rounds, nbytes, workers):
    results = []
    azarr.register_codec(Scramble)
    for name in names:
        for size in sizes:
            chunk_nbytes = CHUNKS[size]
            # plain Python takes long: fewer chunks of it
            data = values(max(4 * chunk_nbytes, nbytes // 8 if name == "pure" else nbytes))
            out = np.empty_like(data)
            prepared = []
            for executor in EXECUTORS:
                engine = azarr.Engine(executor=executor, workers=workers)
                options = {"chunks": (chunk_nbytes // 4,), "compressors": CODECS[name], "engine": engine}
                array = await azarr.create_array(azarr.MemoryStore(), "a", shape=data.shape, dtype=data.dtype, **options)
                await measured(array, data, out)  # starts what has to be started
                prepared.append((executor, engine, array))
            runs = {executor: [] for executor in EXECUTORS}
            for _ in range(rounds):
                for executor, _, array in prepared:
                    runs[executor].append(await measured(array, data, out))
            for _, engine, _ in prepared:
                await engine.aclose()
            results += report(name, size, runs)
    return results


def best(samples, operation):
    """The highest throughput, and the least of everything else."""
    return {key: (max if key == "MiB_s" else min)(sample[operation][key] for sample in samples) for key in samples[0][operation]}


def report(name, size, runs):
    rows = []
    for operation in ("write", "read"):
        for executor, samples in runs.items():
            row = best(samples, operation)
            row["of_threads"] = row["MiB_s"] / best(runs["threads"], operation)["MiB_s"]
            row["of_inline"] = row["MiB_s"] / best(runs["inline"], operation)["MiB_s"]
            rows.append({"codec": name, "chunk": size, "operation": operation, "executor": executor, **row})
            print(
                f"{name:6} {size:7} {operation:5} {executor:10} {row['MiB_s']:8.0f} MiB/s  {row['of_threads']:5.2f} of threads {row['of_inline']:5.2f} of inline"
                f"  {row['cpu_ms_per_MiB']:6.2f} ms CPU/MiB  stalls: p99 {row['p99_ms']:6.1f} ms, max {row['max_ms']:6.1f} ms",
                flush=True,
            )
    return rows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("codecs", nargs="*", default=list(CODECS))
    parser.add_argument("--sizes", nargs="*", choices=list(CHUNKS), help="chunk sizes; all by default")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--nbytes", type=int, default=2**26)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out")
    options = parser.parse_args()
    results = asyncio.run(run(options.codecs, options.sizes or CHUNKS, options.rounds, options.nbytes, options.workers))
    if options.out:
        with open(options.out, "w") as file:
            json.dump({"python": sys.version, "results": results}, file, indent=1)


if __name__ == "__main__":
    main()
