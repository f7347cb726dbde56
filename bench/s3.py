"""Requests for values in S3, per second of the client's CPU: azarr, obstore, aiobotocore and bare aiohttp, one after the other, in one run.

    python bench/s3.py                     # 1 KiB GETs and PUTs at concurrency 32, from nginx and from SeaweedFS
    python bench/s3.py --chunks            # 256 chunks of 1 MiB, each answered 30 ms late, with readers of arrays beside

Needs nginx, `weed` (AZARR_SERVERS, as the tests), obstore, aiobotocore and aiohttp. A repetition counts only if other processes took less
than 12 % of a core meanwhile; medians of three such are printed.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "emulators")]

import servers

CONCURRENCY = 32
SECONDS = 2.0
VALUE = os.urandom(1024)


def machine_busy():
    """Seconds of CPU that the machine has spent, and those stolen from it."""
    fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    tick = os.sysconf("SC_CLK_TCK")
    return (sum(fields[:3]) + fields[5] + fields[6]) / tick, fields[7] / tick


def tree_cpu(ports):
    """Seconds of CPU of the processes of the servers, found by their process groups."""
    total, tick = 0, os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) in ports:
            total += int(fields[11]) + int(fields[12])
    return total / tick


def groups():
    """The process groups of servers that this process has started."""
    mine, found = os.getpid(), set()
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == mine:
            found.add(int(fields[2]))
    return found


async def repeat(request, seconds):
    """Requests made in so many seconds by CONCURRENCY tasks, and what that cost."""
    done, end = 0, time.perf_counter() + seconds

    async def work(number):
        nonlocal done
        while time.perf_counter() < end:
            await request(number)
            done += 1

    begun, cpu = time.perf_counter(), time.process_time()
    server = tree_cpu(groups())
    machine, stolen = machine_busy()
    await asyncio.gather(*map(work, range(CONCURRENCY)))
    elapsed, cpu = time.perf_counter() - begun, time.process_time() - cpu
    server = tree_cpu(groups()) - server
    machine, stolen = (after - before for after, before in zip(machine_busy(), (machine, stolen), strict=True))
    return done, elapsed, cpu, (machine - cpu - server) / elapsed, stolen / elapsed


async def measure(request, most, reps=3, tries=12):
    """Requests a second, and per second of the client's CPU: medians of clean repetitions."""
    await repeat(request, 0.3)
    kept = []
    for _ in range(tries):
        done, elapsed, cpu, foreign, stolen = await repeat(request, SECONDS)
        if foreign < most and stolen < 0.02:
            kept.append((done / elapsed, done / cpu))
        if len(kept) == reps:
            break
    if not kept:
        return None
    return len(kept), statistics.median(each[0] for each in kept), statistics.median(each[1] for each in kept)


@asynccontextmanager
async def azarr_requests(server, bucket):
    from azarr.stores.s3 import S3Store

    async with S3Store(
        bucket, endpoint_url=server.url, region="us-east-1", access_key=server.access_key, secret_key=server.secret_key
    ) as store:
        yield lambda n: store.get(f"k{n}"), lambda n: store.set(f"w{n}", VALUE)


@asynccontextmanager
async def obstore_requests(server, bucket):
    from obstore.store import S3Store

    store = S3Store(
        bucket,
        endpoint=server.url,
        region="us-east-1",
        access_key_id=server.access_key,
        secret_access_key=server.secret_key,
        client_options={"allow_http": True},
        virtual_hosted_style_request=False,
    )

    async def get(n):
        return await (await store.get_async(f"k{n}")).bytes_async()

    yield get, lambda n: store.put_async(f"w{n}", VALUE)


@asynccontextmanager
async def aiobotocore_requests(server, bucket):
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    config = AioConfig(
        signature_version="s3v4",
        s3={"addressing_style": "path"},
        max_pool_connections=CONCURRENCY,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    async with AioSession().create_client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=config,
    ) as client:

        async def get(n):
            answer = await client.get_object(Bucket=bucket, Key=f"k{n}")
            async with answer["Body"] as body:
                return await body.read()

        yield get, lambda n: client.put_object(Bucket=bucket, Key=f"w{n}", Body=VALUE)


@asynccontextmanager
async def aiohttp_requests(server, bucket):
    import aiohttp

    async with aiohttp.ClientSession() as http:

        async def get(n):
            async with http.get(f"{server.url}/{bucket}/k{n}") as answer:
                return await answer.read()

        yield get, None


CLIENTS = {
    "azarr": azarr_requests,
    "obstore": obstore_requests,
    "aiobotocore": aiobotocore_requests,
    "bare aiohttp (no signatures)": aiohttp_requests,
}


@contextmanager
def nginx():
    """nginx as a server of S3 for GET."""
    with servers.nginx() as server:
        (server.root / "bucket").mkdir()
        for number in range(CONCURRENCY):
            (server.root / "bucket" / f"k{number}").write_bytes(VALUE)
        yield servers.S3Server(server.host, server.port, server.url, "testkey", "testsecret", "us-east-1")


@contextmanager
def weed():
    """SeaweedFS with a bucket."""
    with servers.seaweedfs() as server:
        asyncio.run(prepare(server))
        yield server


async def prepare(server):
    from aiobotocore.config import AioConfig
    from aiobotocore.session import AioSession

    async with AioSession().create_client(
        "s3",
        endpoint_url=server.url,
        region_name="us-east-1",
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=AioConfig(retries={"total_max_attempts": 10, "mode": "standard"}),
    ) as client:
        await client.create_bucket(Bucket="bucket")
        for number in range(CONCURRENCY):
            await client.put_object(Bucket="bucket", Key=f"k{number}", Body=VALUE)


async def requests(server, name, names, most):
    for label, client in CLIENTS.items():
        if names and label not in names:
            continue
        async with client(server, "bucket") as (get, put):
            for what, request in (("GET", get), ("PUT", put if name == "SeaweedFS" else None)):
                # what needs no signature is refused by a server that checks them
                if request is None or (name == "SeaweedFS" and label.startswith("bare")):
                    continue
                found = await measure(request, most)
                said = "no clean repetition" if found is None else f"{found[1]:8.0f}/s {found[2]:8.0f}/CPU s  ({found[0]} clean)"
                print(f"{name:10} {what} 1 KiB  {label:30} {said}", flush=True)


# --- chunks that come late

CHUNKS, SIDE, LATENCY = 256, 512, 0.03


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


def serve_late(port, ready):
    import json

    value = os.urandom(SIDE * SIDE * 4)
    metadata = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [CHUNKS * SIDE, SIDE],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [SIDE, SIDE]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "fill_value": 0.0,
        "attributes": {},
    }
    objects = {f"/bucket/a/c/{number}/0": value for number in range(CHUNKS)}
    objects["/bucket/a/zarr.json"] = json.dumps(metadata).encode()

    async def run():
        server = await asyncio.get_running_loop().create_server(lambda: Late(objects), "127.0.0.1", port, backlog=1024)
        ready.set()
        await server.serve_forever()

    asyncio.run(run())


async def chunks_azarr(url):
    import azarr
    from azarr.stores.s3 import S3Store

    async with (
        azarr.Engine(concurrency=CONCURRENCY, memory=2**30) as engine,
        S3Store("bucket", endpoint_url=url, region="us-east-1", access_key="a", secret_key="b", concurrency=CONCURRENCY) as store,
    ):
        array = await azarr.open_array(store, "a", engine=engine)
        yield
        yield (await array.read()).nbytes


async def chunks_aiohttp(url):
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONCURRENCY), read_bufsize=2**20) as http:

        async def get(number):
            async with http.get(f"{url}/bucket/a/c/{number}/0") as answer:
                return len(await answer.read())

        yield
        yield sum(await asyncio.gather(*map(get, range(CHUNKS))))


async def chunks_zarr_obstore(url):
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


async def chunks_zarr_s3fs(url):
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


async def chunks_tensorstore(url):
    import tensorstore

    os.environ |= {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    place = {"driver": "s3", "bucket": "bucket", "path": "a/", "endpoint": url, "aws_region": "us-east-1"}
    context = {"s3_request_concurrency": {"limit": CONCURRENCY}, "data_copy_concurrency": {"limit": 2}}
    array = await tensorstore.open({"driver": "zarr3", "kvstore": place, "context": context}, open=True)
    yield
    yield (await array.read()).nbytes


async def read_all(reader, url):
    steps = reader(url)
    await anext(steps)
    begun, cpu = time.perf_counter(), time.process_time()
    nbytes = await anext(steps)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    async for _ in steps:
        pass
    assert nbytes == CHUNKS * SIDE * SIDE * 4
    return seconds, cpu


def chunks(names):
    import multiprocessing

    (port,) = servers.free_ports(1)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    server = context.Process(target=serve_late, args=(port, ready), daemon=True)
    server.start()
    ready.wait(60)
    ideal = CHUNKS / CONCURRENCY * LATENCY
    print(f"{CHUNKS} chunks of 1 MiB, {LATENCY * 1000:.0f} ms late, {CONCURRENCY} at once: {ideal:.2f} s of waiting")
    try:
        for label, reader in {
            "bare aiohttp, nothing decoded": chunks_aiohttp,
            "azarr": chunks_azarr,
            "zarr-python, obstore": chunks_zarr_obstore,
            "zarr-python, s3fs": chunks_zarr_s3fs,
            "tensorstore": chunks_tensorstore,
        }.items():
            if names and label not in names:
                continue
            try:
                found = [asyncio.run(read_all(reader, f"http://127.0.0.1:{port}")) for _ in range(5)]
            except Exception as error:
                print(f"{label:32} {type(error).__name__}: {error}"[:200])
                continue
            print(
                f"{label:32} best {min(found)[0]:.2f} s, median {statistics.median(each[0] for each in found):.2f} s; {min(found)[1]:.2f} s of CPU",
                flush=True,
            )
    finally:
        server.kill()
        server.join()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--servers", nargs="*", default=["nginx", "SeaweedFS"])
    parser.add_argument("--foreign", type=float, default=0.12, help="what other processes may take meanwhile, of a core")
    parser.add_argument("--chunks", action="store_true", help="chunks that come late instead")
    options = parser.parse_args()
    if options.chunks:
        chunks(options.only)
        return
    for name, start in (("nginx", nginx), ("SeaweedFS", weed)):
        if name in options.servers:
            with start() as server:
                asyncio.run(requests(server, name, options.only, options.foreign))


if __name__ == "__main__":
    main()
