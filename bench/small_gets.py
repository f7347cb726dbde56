"""A small GET through HTTPStore beside plain aiohttp, from nginx on the loopback interface: CPU time of the client, 32 requests at once."""

from __future__ import annotations

import asyncio
import time

from bench.servers import Missing, servers

AT_ONCE = 32
VALUE = b"v" * 1024


def run(bench) -> None:
    try:
        import aiohttp  # noqa: F401

        with servers().nginx() as server:
            (server.root / "small").write_bytes(VALUE)
            asyncio.run(turns(bench, f"{server.url}/small"))
    except Missing as missing:
        bench.skip(str(missing))
    except ImportError as error:
        bench.skip(f"{error.name} is not installed")


async def turns(bench, url):
    import aiohttp

    from azarr.stores.http import HTTPStore
    from azarr.types import ByteRange

    base, _, key = url.rpartition("/")
    async with aiohttp.ClientSession() as session, HTTPStore(base) as store:

        async def plain():
            async with session.get(url) as response:
                return await response.read()

        ways = {
            "aiohttp": (plain, VALUE),
            "HTTPStore.get": (lambda: store.get(key), VALUE),
            "HTTPStore.get of a range": (lambda: store.get(key, ByteRange(0, 100)), VALUE[:100]),
        }
        times = bench.pick(4000, 1000, 50)
        await bench.compare([({"client": name}, spending(fetch, value, times)) for name, (fetch, value) in ways.items()])


def spending(fetch, value, times):
    async def way():
        left = iter(range(times))

        async def work():
            for _ in left:
                assert await fetch() == value

        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return {"CPU ms a request": (time.process_time() - cpu) / times * 1e3, "requests/s": times / (time.perf_counter() - begun)}

    return way
