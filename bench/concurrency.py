"""Many tasks that read at once, and more or fewer workers: what a service gets out of one process."""

from __future__ import annotations

import asyncio
import time

import numpy as np

import azarr
from azarr.executors import available_processors
from bench.arrays import CUBES, check, filled, weather
from bench.suite import measured


async def run(bench) -> None:
    data = weather(bench.pick((128, 256, 512), (64, 128, 256), (32, 32, 64)))
    memory, big = azarr.MemoryStore(), azarr.MemoryStore()
    await filled(memory, data, chunks=CUBES[16])
    await filled(big, data, chunks=CUBES[bench.pick(1024, 256, 16)])
    cases = []
    for tasks in bench.pick((1, 8, 64, 512, 4096), (1, 64, 512), (1, 8)):
        cases.append(({"task": "single chunks of 16 KiB", "tasks": tasks}, single_chunks(memory, data, tasks, bench.pick(8192, 1024, 32))))
    for workers in sorted({1, 2, available_processors(), 2 * available_processors()}):
        cases.append(({"task": "whole array", "workers": workers}, workers_at_work(big, data, workers)))
    await bench.compare(cases, bench.pick(3, 2, 1))


def single_chunks(store, data, tasks, reads):
    async def way():
        array = await azarr.open_array(store, "a")
        rows, latencies = data.shape[0] // 16, []
        left = iter(range(reads))

        async def work():
            for number in left:
                begun = time.perf_counter()
                row = number % rows * 16
                found = await array[row : row + 16, :16, :16]
                latencies.append(time.perf_counter() - begun)
                assert found[0, 0, 0] == data[row, 0, 0]

        async with measured() as meter:
            await asyncio.gather(*(work() for _ in range(tasks)))
        return {"reads/s": reads / meter.seconds, "p99 ms": float(np.quantile(latencies, 0.99)) * 1000}

    return way


def workers_at_work(store, data, workers):
    async def way():
        async with azarr.Engine(workers=workers) as engine:
            array = await azarr.open_array(store, "a", engine=engine)
            async with measured(touches=data.nbytes) as meter:
                found = await array.read()
        check(found, data)
        return {"MiB/s": data.nbytes / 2**20 / meter.seconds}

    return way
