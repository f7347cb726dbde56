"""AzureStore on Azurite."""

from __future__ import annotations

import asyncio

import affinity
import numpy as np
import pytest

import azarr
from azarr.errors import PreconditionFailedError, StoreError
from azarr.retry import RetryPolicy
from azarr.stores import azure
from azarr.stores.azure import AzureStore
from azarr.testing import FaultProxy, StoreSuite
from azarr.testing.faults import Answer, BrokenBody, LostResponse, Reset, TruncatedBody


def make_store(server, container, root="", **options):
    return AzureStore(container, root, **{"account": server.account, "endpoint": server.url, "account_key": server.key, **options})


@pytest.fixture
async def store(azure_server, azure_container):
    async with make_store(azure_server, azure_container, "some/root") as store:
        yield store


class TestAzureStore(StoreSuite):
    @pytest.fixture
    async def store(self, azure_server, azure_container):
        async with make_store(azure_server, azure_container, "some/root") as store:
            yield store


async def test_root(store, azure_server, azure_container):
    async with make_store(azure_server, azure_container) as container:
        await container.set("some/rootless", b"")
        await store.set("k", b"v")
        assert await container.get("some/root/k") == b"v"
        assert [key async for key in store.list_prefix()] == ["k"]


async def test_containers_that_are_not_there(azure_server):
    async with make_store(azure_server, "no-such-container") as store:
        for work in (store.get("k"), store.size("k"), store.set("k", b""), store.erase("k"), store.list_dir()):
            with pytest.raises(StoreError, match="ContainerNotFound"):
                await work


async def test_signatures_that_are_wrong(azure_server, azure_container):
    async with make_store(azure_server, azure_container, account_key="c29tZXRoaW5n") as store:
        with pytest.raises(StoreError, match="refused .403.") as failure:
            await store.get("k")
    assert "c29tZXRoaW5n" not in str(failure.value)


async def test_shared_access_signatures(azure_server, azure_container, store):
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    sas = generate_container_sas(
        azure_server.account,
        azure_container,
        account_key=azure_server.key,
        permission=ContainerSasPermissions(read=True, list=True),
        expiry=datetime.now(UTC) + timedelta(hours=1),
    )
    await store.set("ä b", b"v")
    async with make_store(azure_server, azure_container, "some/root", account_key=None, sas_token=f"?{sas}") as limited:
        assert await limited.get("ä b") == b"v"
        assert [key async for key in limited.list_prefix()] == ["ä b"]
        with pytest.raises(StoreError, match="refused") as failure:
            await limited.set("k", b"")
        assert "sig" not in str(failure.value) + repr(limited)


async def test_what_the_sdk_stores_is_read_and_the_other_way_round(azure_admin, azure_container, store):
    client = azure_admin.get_container_client(azure_container)
    client.upload_blob("some/root/a/b", b"theirs")
    await store.set("a/c", b"mine")
    assert await store.get("a/b") == b"theirs"
    assert client.download_blob("some/root/a/c").readall() == b"mine"


async def test_folders_of_a_hierarchical_namespace_are_no_values(azure_admin, azure_container, store):
    client = azure_admin.get_container_client(azure_container)
    client.upload_blob("some/root/a", b"", metadata={"hdi_isfolder": "true"})
    await store.set("a/b", b"v")
    assert await store.get("a") is None
    assert await store.size("a") is None
    assert [key async for key in store.list_prefix()] == ["a/b"]
    assert (await store.list_dir()).keys == ()


async def test_listings_of_several_pages(store, monkeypatch):
    monkeypatch.setattr(azure, "PAGE", 7)
    keys = sorted(f"a/{number}" for number in range(40))
    await asyncio.gather(*(store.set(key, b"") for key in keys))
    assert sorted([key async for key in store.list_prefix("a/")]) == keys
    assert list((await store.list_dir("a/")).keys) == keys
    await store.erase_prefix("a/")
    assert [key async for key in store.list_prefix()] == []


async def test_large_values_are_sent_in_blocks(store, monkeypatch):
    monkeypatch.setattr(azure, "STAGED_NBYTES", 2**20)
    monkeypatch.setattr(azure, "BLOCK_NBYTES", 2**18)
    value = np.random.default_rng(0).bytes(2**20 + 7)
    await store.set("k", value)
    assert await store.get("k") == value
    found = await store.get_versioned("k")
    await store.set_if("k", value[::-1], found.version)
    assert await store.get("k") == value[::-1]
    with pytest.raises(PreconditionFailedError):
        await store.set_if("k", value, found.version)
    with pytest.raises(PreconditionFailedError):
        await store.set_if("k", value, None)


async def test_sixteen_writers_lose_nothing(azure_server, azure_container):
    faults = {Reset(): 0.05, LostResponse(): 0.1}
    async with FaultProxy(azure_server.host, azure_server.port, faults=faults, seed=1) as proxy:
        policy = RetryPolicy(first_delay=0.001, attempts=20)
        async with make_store(azure_server, azure_container, endpoint=f"{proxy.url}/{azure_server.account}", retry=policy) as store:

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


def test_all_loops(azure_server, azure_container, tmp_path):
    store = make_store(azure_server, azure_container, "root")
    asyncio.run(store.set("key", b"value"))
    affinity.check(store, tmp_path)


async def test_nothing_is_wrong_or_missing_where_a_fifth_of_all_requests_fails(azure_server, azure_container):
    data = np.arange(2000 * 8).reshape(2000, 8)
    faults = {Reset(): 0.06, BrokenBody(): 0.04, TruncatedBody(): 0.04, LostResponse(): 0.03, Answer(500): 0.03}
    async with FaultProxy(azure_server.host, azure_server.port, faults=faults, seed=1) as proxy:
        policy = RetryPolicy(first_delay=0.01)
        async with make_store(azure_server, azure_container, endpoint=f"{proxy.url}/{azure_server.account}", retry=policy) as store:
            array = await azarr.create_array(store, "x", shape=data.shape, chunks=(1, 8), dtype=data.dtype, fill_value=-1)
            await array.write(data)
            assert (await (await azarr.open_array(store, "x")).read() == data).all()
            assert len([key async for key in store.list_prefix("x/c/")]) == 2000
            assert await asyncio.gather(*(store.get(f"missing/{number}") for number in range(100))) == [None] * 100
        assert sum(proxy.injected.values()) > 600
