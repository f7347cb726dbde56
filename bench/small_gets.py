"""What a small GET through HTTPStore costs beside plain aiohttp, in CPU time of the client: `python bench/small_gets.py URL-OF-A-SMALL-FILE`.

The file is fetched from a server that runs already, 32 requests at once, in turns; the median of five rounds is shown.
"""

import asyncio
import statistics
import sys
import time

import aiohttp

from azarr.stores.http import HTTPStore
from azarr.types import ByteRange

REQUESTS, AT_ONCE = 4000, 32


async def spent(fetch):
    """Milliseconds of CPU for each of REQUESTS calls, and calls a second."""
    left = iter(range(REQUESTS))

    async def work():
        for _ in left:
            await fetch()

    cpu, wall = time.process_time(), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return (time.process_time() - cpu) / REQUESTS * 1e3, REQUESTS / (time.perf_counter() - wall)


async def main(url):
    base, _, key = url.rpartition("/")
    async with aiohttp.ClientSession() as session, HTTPStore(base) as store:

        async def plain():
            async with session.get(url) as response:
                return await response.read()

        ways = {
            "aiohttp": plain,
            "HTTPStore.get": lambda: store.get(key),
            "HTTPStore.get of a range": lambda: store.get(key, ByteRange(0, 100)),
        }
        rounds = {name: [] for name in ways}
        for _ in range(5):
            for name, way in ways.items():
                rounds[name].append(await spent(way))
    for name, figures in rounds.items():
        cpu, rate = (statistics.median(column) for column in zip(*figures, strict=True))
        print(f"{name:26} {cpu:.4f} ms of CPU, {rate:.0f} a second")


asyncio.run(main(sys.argv[1]))
