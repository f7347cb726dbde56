"""An array in S3 whose chunks come 30 ms late, on the loopback interface: azarr, other readers of arrays, and bare aiohttp.

The server is one of this module, in a process of its own. 32 requests at once; the ideal is the waiting alone.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import socket
import time

CONCURRENCY = 32
SIDE, LATENCY = 512, 0.03  # chunks of 1 MiB


class Late(asyncio.Protocol):
    """Answers GET and HEAD for objects, the first byte ``LATENCY`` seconds after the request."""

    def __init__(self, objects):
        self._objects, self._buffer = objects, b""

    def connection_made(self, transport):
        self._transport = transport

    def data_received(self, data):
        self._buffer += data
        while b"\r\n\r\n" in self._buffer:
            head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(LATENCY, self._answer, head.decode())

    def _answer(self, head):
        method, target, _ = head.split("\r\n", 1)[0].split()
        value = self._objects.get(target.partition("?")[0])
        if value is None:
            body = b"<Error><Code>NoSuchKey</Code></Error>"
            self._transport.write(f"HTTP/1.1 404 x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + (body if method == "GET" else b""))
            return
        ranges = [line.split("=")[1].split("-") for line in head.split("\r\n") if line.lower().startswith("range: bytes=")]
        status, more, part = 200, "", memoryview(value)
        if ranges:
            start, stop = int(ranges[0][0] or 0), min(len(value), int(ranges[0][1] or len(value)) + 1)
            status, more, part = 206, f"Content-Range: bytes {start}-{stop - 1}/{len(value)}\r\n", part[start:stop]
        stamps = 'ETag: "1"\r\nLast-Modified: Sat, 01 Nov 2025 00:00:00 GMT\r\nAccept-Ranges: bytes\r\n'
        self._transport.write(f"HTTP/1.1 {status} x\r\nContent-Length: {len(part)}\r\n{more}{stamps}\r\n".encode())
        if method == "GET":
            self._transport.write(part)


def serve_late(listener, count):
    value = os.urandom(SIDE * SIDE * 4)
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [count * SIDE, SIDE],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [SIDE, SIDE]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "fill_value": 0.0,
        "attributes": {},
    }
    objects = {f"/bucket/a/c/{number}/0": value for number in range(count)}
    objects["/bucket/a/zarr.json"] = json.dumps(metadata).encode()

    async def run():
        server = await asyncio.get_running_loop().create_server(lambda: Late(objects), sock=listener, backlog=1024)
        await server.serve_forever()

    asyncio.run(run())


async def chunks_azarr(url, count):
    import azarr
    from azarr.stores.s3 import S3Store

    async with (
        azarr.Engine(concurrency=CONCURRENCY, memory=2**30) as engine,
        S3Store("bucket", endpoint_url=url, region="us-east-1", access_key="a", secret_key="b", concurrency=CONCURRENCY) as store,
    ):
        array = await azarr.open_array(store, "a", engine=engine)
        yield
        yield (await array.read()).nbytes


async def chunks_aiohttp(url, count):
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY), read_bufsize=2**20) as http:

        async def get(number):
            async with http.get(f"{url}/bucket/a/c/{number}/0") as answer:
                return len(await answer.read())

        yield
        yield sum(await asyncio.gather(*map(get, range(count))))


async def chunks_zarr_obstore(url, count):
    import zarr
    from obstore.store import S3Store
    from zarr.storage import ObjectStore

    store = S3Store(
        "bucket",
        endpoint=url,
        region="us-east-1",
        access_key_id="a",
        secret_access_key="b",
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )
    with zarr.config.set({"async.concurrency": CONCURRENCY}):
        array = await zarr.api.asynchronous.open_array(store=ObjectStore(store, read_only=True), path="a", mode="r")
        yield
        yield (await array.getitem(...)).nbytes


async def chunks_zarr_s3fs(url, count):
    import s3fs
    import zarr
    from zarr.storage import FsspecStore

    system = s3fs.S3FileSystem(key="a", secret="b", endpoint_url=url, asynchronous=True)
    session = await system.set_session()
    with zarr.config.set({"async.concurrency": CONCURRENCY}):
        array = await zarr.api.asynchronous.open_array(store=FsspecStore(system, read_only=True, path="bucket"), path="a", mode="r")
        yield
        yield (await array.getitem(...)).nbytes
    await session.close()


async def chunks_tensorstore(url, count):
    import tensorstore

    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    place = {"driver": "s3", "bucket": "bucket", "path": "a/", "endpoint": url, "aws_region": "us-east-1"}
    place["aws_credentials"] = {"type": "environment"}  # or else it asks the network for some, for twenty seconds
    context = {"s3_request_concurrency": {"limit": CONCURRENCY}, "data_copy_concurrency": {"limit": 2}}
    array = await tensorstore.open({"driver": "zarr3", "kvstore": place, "context": context}, open=True)
    yield
    yield (await array.read()).nbytes


async def read_all(reader, url, count):
    steps = reader(url, count)
    await anext(steps)
    begun, cpu = time.perf_counter(), time.process_time()
    nbytes = await anext(steps)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    async for _ in steps:
        pass
    assert nbytes == count * SIDE * SIDE * 4
    return seconds, cpu


READERS = {
    "bare aiohttp, nothing decoded": ("aiohttp", chunks_aiohttp),
    "azarr": ("aiobotocore", chunks_azarr),
    "zarr-python, obstore": ("zarr", chunks_zarr_obstore),
    "zarr-python, s3fs": ("s3fs", chunks_zarr_s3fs),
    "tensorstore": ("tensorstore", chunks_tensorstore),
}
"""The package that a reader needs, and the reader."""


def run(bench) -> None:
    count = bench.pick(256, 64, 4)
    ideal = max(1, count / CONCURRENCY) * LATENCY
    readers = bench.those_installed({label: package for label, (package, _) in READERS.items()})
    found = {label: [] for label in readers}
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:  # before the server is there, connections wait
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = multiprocessing.get_context("spawn").Process(target=serve_late, args=(listener, count), daemon=True)
        server.start()
        try:
            for number in range(1 + bench.rounds):  # the first only warms up
                for label in readers:
                    seconds, cpu = asyncio.run(read_all(READERS[label][1], url, count))
                    if number:
                        found[label].append({"seconds": seconds, "× ideal": seconds / ideal, "CPU s": cpu})
        finally:
            server.kill()
            server.join()
    for label, figures in found.items():
        bench.add({"task": f"{count} chunks of 1 MiB, {LATENCY * 1000:.0f} ms late", "reader": label}, *figures)
