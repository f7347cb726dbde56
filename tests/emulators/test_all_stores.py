"""What all stores behind networks have to stand: networks on which a fifth of all requests fails, and writers in many processes.

``AZARR_CHUNKS`` says how many chunks are written and read over a bad network, 300 by default, ``AZARR_REPEATS`` how many rounds the
processes make, 10 by default.
"""

from __future__ import annotations

import asyncio
import dataclasses
import multiprocessing
import os

import numpy as np
import pytest

import azarr
from azarr import LocalStore, RetryPolicy, StoreError
from azarr.retry import NO_RETRIES
from azarr.stores.azure import AzureStore
from azarr.stores.gcs import GCSStore
from azarr.stores.gridfs import GridFSStore
from azarr.stores.http import HTTPStore
from azarr.stores.redis import RedisStore
from azarr.stores.s3 import S3Store
from azarr.testing import FaultProxy
from azarr.testing.faults import Answer, BrokenBody, LostResponse, Reset, StalledBody, TruncatedBody

CHUNKS = int(os.environ.get("AZARR_CHUNKS", "300"))
ROUNDS = int(os.environ.get("AZARR_REPEATS", "10"))
PROCESSES = 8
PATIENT = RetryPolicy(first_delay=0.02, attempt_timeout=2, attempts=12)

HTTP_FAULTS = {
    Reset(): 0.05,
    LostResponse(): 0.03,
    BrokenBody(): 0.02,
    TruncatedBody(): 0.03,
    StalledBody(): 0.001,
    Answer(500): 0.02,
    Answer(503, retry_after=0.01): 0.02,
    Answer(429): 0.02,
}
TCP_FAULTS = {Reset(): 0.01, LostResponse(): 0.01}


def s3(server, bucket, url, **options):
    keys = {"region": server.region, "access_key": server.access_key, "secret_key": server.secret_key}
    return S3Store(bucket, prefix="all", endpoint_url=url, **keys, **options)


def gcs(_, bucket, url, **options):
    return GCSStore(bucket, "all", endpoint=url, **options)


def azure(server, container, url, **options):
    return AzureStore(container, "all", account=server.account, endpoint=f"{url}/{server.account}", account_key=server.key, **options)


def redis(_, database, url, **options):
    return RedisStore(f"{url.replace('tcp://', 'redis://')}/{database}", prefix="all", **options)


def mongodb(_, database, url, **options):
    return GridFSStore(f"mongodb://{url.split('://')[1].strip('/')}/{database}?directConnection=true", **options)


KINDS = {
    "s3": ("s3_server", "s3_bucket", s3),
    "gcs": ("gcs_server", "gcs_bucket", gcs),
    "azure": ("azure_server", "azure_container", azure),
    "redis": ("redis_server", "redis_database", redis),
    "mongodb": ("mongodb_server", "mongodb_database", mongodb),
}


@pytest.fixture(params=KINDS)
def kind(request):
    """The name of a kind, its server, and what makes a store from the URL by which that server is reached."""
    server, place, make = KINDS[request.param]
    server, place = request.getfixturevalue(server), request.getfixturevalue(place)
    return request.param, server, lambda url, **options: make(server, place, url, **options)


def proxy_to(server, name):
    if name in {"redis", "mongodb"}:
        return FaultProxy(server.host, server.port, faults=TCP_FAULTS, seed=3, protocol="tcp")
    return FaultProxy(server.host, server.port, faults=HTTP_FAULTS, seed=3)


@pytest.mark.timeout(1200)
async def test_nothing_is_wrong_or_missing_on_a_bad_network(kind):
    name, server, make = kind
    count = CHUNKS if name != "mongodb" else max(100, CHUNKS // 20)  # this server takes ever longer for a file
    # its driver closes all connections when one breaks, and looks for the server again
    patience = PATIENT if name != "mongodb" else dataclasses.replace(PATIENT, attempt_timeout=20)
    data = np.arange(1, count * 64 + 1).reshape(count, 64)
    async with proxy_to(server, name) as proxy, make(proxy.url, retry=patience) as store:
        array = await azarr.create_array(store, "x", shape=data.shape, chunks=(1, 64), dtype=data.dtype, fill_value=-1)
        await array.write(data)
        read = await (await azarr.open_array(store, "x")).read()
        assert int((read == -1).all(axis=1).sum()) == 0, "chunks that are stored were read as fill value"
        np.testing.assert_array_equal(read, data)
        assert len([key async for key in store.list_prefix("x/c/")]) == count
        injected = sum(proxy.injected.values())
        assert injected > (0.1 * 2 * count if name not in {"redis", "mongodb"} else 0)
        print(f"{name}: {count} chunks, {proxy.requests} requests, {injected} faults, {store.stats}")  # noqa: T201 - for who measures


async def test_without_retries_the_first_fault_is_told(kind):
    name, server, make = kind
    async with make(server.url if name != "azure" else f"http://{server.host}:{server.port}") as store:
        await store.set("k", b"value" * 100)
    async with proxy_to(server, name) as proxy, make(proxy.url, retry=NO_RETRIES) as store:
        with pytest.raises(StoreError):
            for _ in range(1000):
                assert await store.get("k") == b"value" * 100
        # aiohttp sends a request itself once more where a connection breaks that was used before; MongoDB's driver has connections to
        # watch the server, too
        injected = sum(proxy.injected.values())
        assert injected >= 1
        assert injected <= 2 or name == "mongodb"
        assert store.stats.retries == 0


@pytest.mark.timeout(1200)
async def test_nothing_read_from_a_web_server_on_a_bad_network_is_wrong(nginx_server, nginx_folder):
    data = np.arange(1, CHUNKS * 64 + 1).reshape(CHUNKS, 64)
    folder = LocalStore(nginx_server.root / nginx_folder)
    await (await azarr.create_array(folder, "x", shape=data.shape, chunks=(1, 64), dtype=data.dtype, fill_value=-1)).write(data)
    async with (
        FaultProxy(nginx_server.host, nginx_server.port, faults=HTTP_FAULTS, seed=3) as proxy,
        HTTPStore(f"{proxy.url}/{nginx_folder}", retry=PATIENT) as store,
    ):
        np.testing.assert_array_equal(await (await azarr.open_array(store, "x")).read(), data)
        injected = sum(proxy.injected.values())
        assert injected > 0.1 * CHUNKS
        print(f"http: {CHUNKS} chunks, {proxy.requests} requests, {injected} faults, {store.stats}")  # noqa: T201 - for who measures


def add(store, number):
    """One of the processes: writes a column of its own, an element at a time, into chunks that all of them share."""

    async def main():
        array = await azarr.open_array(store, "x")
        for turn in range(ROUNDS):
            await array[turn, number].write(turn * PROCESSES + number + 1)

    asyncio.run(main())


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("where", ["s3", "gcs", "azure", "redis", "local"])
def test_processes_that_write_to_the_same_chunks_lose_nothing(where, request, tmp_path):
    if where == "local":
        store = LocalStore(tmp_path, durability="none")
    else:
        server, place, make = KINDS[where]
        server, place = request.getfixturevalue(server), request.getfixturevalue(place)
        url = server.url if where != "azure" else f"http://{server.host}:{server.port}"
        store = make(server, place, url, retry=RetryPolicy(first_delay=0.02))
    asyncio.run(azarr.create_array(store, "x", shape=(ROUNDS, PROCESSES), chunks=(25, PROCESSES), dtype="i4"))
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=add, args=(store, number)) for number in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * PROCESSES

    async def content():
        return await (await azarr.open_array(store, "x")).read()

    found = asyncio.run(content())
    assert int((found == 0).sum()) == 0, "writes were lost"
    np.testing.assert_array_equal(found, np.arange(1, ROUNDS * PROCESSES + 1).reshape(ROUNDS, PROCESSES))
