"""Requests of 1 KiB to S3 on the loopback interface, 32 at once: azarr, obstore, aiobotocore and bare aiohttp, one after the other.

nginx answers GETs without looking at signatures; SeaweedFS (`weed`) is a whole server of S3. A repetition counts only if other processes
took less than 12 % of a core meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from bench.servers import Missing, servers

CONCURRENCY = 32
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


async def repeated(request, seconds, reps, most):
    """Requests a second, and per second of the client's CPU, of clean repetitions."""
    await repeat(request, min(0.3, seconds))
    kept = []
    for _ in range(4 * reps):
        done, elapsed, cpu, foreign, stolen = await repeat(request, seconds)
        if foreign < most and stolen < 0.02:
            kept.append({"requests/s": done / elapsed, "requests/CPU s": done / cpu})
        if len(kept) == reps:
            break
    return kept


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
    with servers().nginx() as server:
        (server.root / "bucket").mkdir()
        for number in range(CONCURRENCY):
            (server.root / "bucket" / f"k{number}").write_bytes(VALUE)
        yield servers().S3Server(server.host, server.port, server.url, "testkey", "testsecret", "us-east-1")


@contextmanager
def weed():
    """SeaweedFS with a bucket."""
    with servers().seaweedfs() as server:
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


async def requests(bench, server, name):
    seconds, reps = bench.pick((2.0, 3), (0.4, 2), (0.05, 1))
    most = bench.pick(0.12, 0.5, 10)
    for label, client in CLIENTS.items():
        try:
            async with client(server, "bucket") as (get, put):
                for what, request in (("GET", get), ("PUT", put if name == "SeaweedFS" else None)):
                    # what needs no signature is refused by a server that checks them
                    if request is None or (name == "SeaweedFS" and label.startswith("bare")):
                        continue
                    found = await repeated(request, seconds, reps, most)
                    if found:
                        bench.add({"server": name, "request": what, "client": label}, *found)
                    else:
                        bench.skip(f"{what} from {name} through {label}: other processes kept the machine busy")
        except ImportError as error:
            bench.skip(f"{label}: {error.name} is not installed")


SERVERS = (("nginx", nginx), ("SeaweedFS", weed))


def run(bench) -> None:
    for name, start in bench.pick(SERVERS, SERVERS[:1], SERVERS):
        try:
            with start() as server:
                asyncio.run(requests(bench, server, name))
        except Missing as missing:
            bench.skip(str(missing))
        except ImportError as error:
            bench.skip(f"{name}: {error.name} is not installed")
