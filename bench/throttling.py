"""Servers that take 100 requests a second and answer "slow down" beyond: how much of that is reached, and how many are turned away."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from contextlib import contextmanager

from azarr.testing import FaultProxy
from azarr.testing.faults import Answer
from bench.s3 import weed
from bench.servers import Missing, servers

RATE = 100
TASKS = 64


def run(bench) -> None:
    for name, opened in STORES.items():
        try:
            with opened() as (server, make, throttle):
                asyncio.run(turned_away(bench, name, server, make, throttle))
        except Missing as missing:
            bench.skip(f"{name}: {missing}")
        except ImportError as error:
            bench.skip(f"{name}: {error.name} is not installed")


async def turned_away(bench, name, server, make, throttle):
    """Many tasks that ask without a pause; what came after the first ten seconds, in which the store has learnt the server's rate."""
    settle, seconds = bench.pick((10, 30), (10, 10), (0.3, 0.3))
    async with FaultProxy(server.host, server.port, rate_limit=RATE, throttle=throttle) as proxy, make(proxy.url) as store:
        done, end = 0, time.perf_counter() + settle + seconds

        async def ask(number):
            nonlocal done
            while time.perf_counter() < end:
                await store.set(f"k{number}", b"value")
                assert await store.get(f"k{number}") == b"value"
                done += 2

        async def settled():
            await asyncio.sleep(settle)
            return done, store.stats.throttled, time.perf_counter()

        *_, (done_before, throttled, then) = await asyncio.gather(*map(ask, range(TASKS)), settled())
        throttled = store.stats.throttled - throttled
        done -= done_before
        case = {"store": name, "requests a second": RATE}
        figures = {
            "% of the limit": 100 * done / (time.perf_counter() - then) / RATE,
            "% turned away": 100 * throttled / (done + throttled),
        }
        bench.add(case, figures)


@contextmanager
def s3():
    from azarr.stores.s3 import S3Store

    with weed() as server:
        keys = {"region": server.region, "access_key": server.access_key, "secret_key": server.secret_key}
        yield server, lambda url: S3Store("bucket", endpoint_url=url, **keys), Answer(503, code="SlowDown")


@contextmanager
def gcs():
    from azarr.stores.gcs import GCSStore

    with servers().fake_gcs_server() as server:
        body, kind = json.dumps({"name": "bucket"}).encode(), {"Content-Type": "application/json"}
        urllib.request.urlopen(urllib.request.Request(f"{server.url}/storage/v1/b?project=bench", body, kind), timeout=30).close()
        yield server, lambda url: GCSStore("bucket", endpoint=url), Answer(429)


@contextmanager
def azure():
    from azure.storage.blob import BlobServiceClient

    from azarr.stores.azure import AzureStore

    with servers().azurite() as server:
        with BlobServiceClient(server.url, credential=server.key) as client:
            client.create_container("container")

        def make(url):
            return AzureStore("container", account=server.account, endpoint=f"{url}/{server.account}", account_key=server.key)

        yield server, make, Answer(503, code="ServerBusy")


STORES = {"S3 (SeaweedFS)": s3, "GCS (fake-gcs-server)": gcs, "Azure (Azurite)": azure}
