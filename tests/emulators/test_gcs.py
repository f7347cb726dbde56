"""GCSStore on fake-gcs-server."""

from __future__ import annotations

import asyncio

import affinity
import numpy as np
import pytest

import azarr
from azarr.errors import PreconditionFailedError, StoreError
from azarr.retry import RetryPolicy
from azarr.stores import gcs
from azarr.stores.gcs import GCSStore
from azarr.testing import FaultProxy, StoreSuite
from azarr.testing.faults import Answer, BrokenBody, LostResponse, Reset, TruncatedBody


@pytest.fixture
async def store(gcs_server, gcs_bucket):
    async with GCSStore(gcs_bucket, "some/root", endpoint=gcs_server.url) as store:
        yield store


class TestGCSStore(StoreSuite):
    @pytest.fixture
    async def store(self, gcs_server, gcs_bucket):
        async with GCSStore(gcs_bucket, "some/root", endpoint=gcs_server.url) as store:
            yield store

    @pytest.mark.skip(reason="fake-gcs-server deletes unconditionally; what is asked of Google is tested with a server that is scripted")
    async def test_erase_if_nobody_else_has_written(self):
        pass


async def test_root(store, gcs_server, gcs_bucket):
    async with GCSStore(gcs_bucket, endpoint=gcs_server.url) as bucket:
        await bucket.set("some/rootless", b"")
        await store.set("k", b"v")
        assert await bucket.get("some/root/k") == b"v"
        assert [key async for key in store.list_prefix()] == ["k"]


async def test_buckets_that_are_not_there(gcs_server):
    async with GCSStore("no-such-bucket", endpoint=gcs_server.url) as store:
        with pytest.raises(StoreError):
            await store.set("k", b"")
        with pytest.raises(StoreError):
            await store.list_dir()


async def test_listings_of_several_pages(store, monkeypatch):
    monkeypatch.setattr(gcs, "PAGE", 7)
    keys = sorted(f"a/{number}" for number in range(40))
    await asyncio.gather(*(store.set(key, b"") for key in keys))
    assert sorted([key async for key in store.list_prefix("a/")]) == keys
    assert list((await store.list_dir("a/")).keys) == keys
    await store.erase_prefix("a/")
    assert [key async for key in store.list_prefix()] == []


@pytest.fixture
def small_pieces(monkeypatch):
    monkeypatch.setattr(gcs, "RESUMABLE_NBYTES", 2**20)
    monkeypatch.setattr(gcs, "PIECE_NBYTES", 2**18)


async def test_large_values_are_sent_in_pieces(store, small_pieces):
    for nbytes in (2**20 + 1, 2**21):
        value = np.random.default_rng(0).bytes(nbytes)
        await store.set("k", value)
        assert await store.get("k") == value


async def test_sixteen_writers_lose_nothing(gcs_server, gcs_bucket):
    faults = {Reset(): 0.05, LostResponse(): 0.1}
    async with (
        FaultProxy(gcs_server.host, gcs_server.port, faults=faults, seed=1) as proxy,
        GCSStore(gcs_bucket, endpoint=proxy.url, retry=RetryPolicy(first_delay=0.001, attempts=20)) as store,
    ):

        async def count():
            for _ in range(5):
                while True:
                    found = await store.get_versioned("k")
                    try:
                        await store.set_if("k", b"%d" % (int(bytes(found.value or b"0")) + 1), found.version)
                    except PreconditionFailedError:
                        continue
                    break

        await asyncio.gather(*(count() for _ in range(16)))
        assert bytes(await store.get("k")) == b"80"


def test_all_loops(gcs_server, gcs_bucket, tmp_path):
    store = GCSStore(gcs_bucket, "root", endpoint=gcs_server.url)
    asyncio.run(store.set("key", b"value"))
    affinity.check(store, tmp_path)


async def test_nothing_is_wrong_or_missing_where_a_fifth_of_all_requests_fails(gcs_server, gcs_bucket):
    data = np.arange(2000 * 8).reshape(2000, 8)
    faults = {Reset(): 0.06, BrokenBody(): 0.04, TruncatedBody(): 0.04, LostResponse(): 0.03, Answer(500): 0.03}
    async with FaultProxy(gcs_server.host, gcs_server.port, faults=faults, seed=1) as proxy:
        async with GCSStore(gcs_bucket, endpoint=proxy.url, retry=RetryPolicy(first_delay=0.01)) as store:
            array = await azarr.create_array(store, "x", shape=data.shape, chunks=(1, 8), dtype=data.dtype, fill_value=-1)
            await array.write(data)
            assert (await (await azarr.open_array(store, "x")).read() == data).all()
            assert len([key async for key in store.list_prefix("x/c/")]) == 2000
            assert await asyncio.gather(*(store.get(f"missing/{number}") for number in range(100))) == [None] * 100
        assert sum(proxy.injected.values()) > 600
