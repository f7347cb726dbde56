"""HTTPStore on nginx."""

from __future__ import annotations

import asyncio

import affinity
import numpy as np
import pytest

import azarr
from azarr.retry import RetryPolicy
from azarr.stores.http import HTTPStore
from azarr.testing import FaultProxy
from azarr.testing.faults import Answer, BrokenBody, LostResponse, Reset, TruncatedBody
from azarr.testing.values import PARTS, UNICODE_KEYS, VALUE


@pytest.fixture
def folder(nginx_server, nginx_folder):
    return nginx_server.root / nginx_folder


@pytest.fixture
async def store(nginx_server, nginx_folder):
    async with HTTPStore(f"{nginx_server.url}/{nginx_folder}") as store:
        yield store


@pytest.mark.parametrize(("byte_range", "part"), PARTS)
@pytest.mark.parametrize("value", [VALUE, b""], ids=["full", "empty"])
async def test_parts(store, folder, byte_range, part, value):
    (folder / "k").write_bytes(value)
    assert await store.get("k", byte_range) == (part if value else b"")
    assert (await store.get_versioned("k", byte_range)).version == (await store.get_versioned("k")).version
    assert await store.get("missing", byte_range) is None


async def test_versions(store, folder):
    (folder / "k").write_bytes(b"one")
    first = (await store.get_versioned("k")).version
    (folder / "k").write_bytes(b"other")
    assert (await store.get_versioned("k")).version != first


@pytest.mark.parametrize("key", [key for key in UNICODE_KEYS if "/" not in key])
async def test_unusual_keys(store, folder, key):
    (folder / key).write_bytes(key.encode())
    assert await store.get(key) == key.encode()
    assert await store.size(key) == len(key.encode())


async def test_large_values(store, folder):
    value = VALUE * 2**15
    (folder / "k").write_bytes(value)
    assert await store.get("k") == value


async def test_arrays(store, folder):
    data = np.arange(60 * 50).reshape(60, 50)
    group = await azarr.create_group(folder, "g")
    array = await group.create_array("x", shape=data.shape, chunks=(10, 10), shards=(30, 50), dtype=data.dtype)
    await array.write(data)
    await group.consolidate()
    group = await azarr.open_group(store, "g")
    members = [node async for _, node in group.members()]
    assert (await members[0].read() == data).all()
    assert (await members[0][3:17, 40:].read() == data[3:17, 40:]).all()


def test_all_loops(nginx_server, nginx_folder, folder, tmp_path):
    (folder / "key").write_bytes(b"value")
    affinity.check(HTTPStore(f"{nginx_server.url}/{nginx_folder}"), tmp_path)


async def test_nothing_is_wrong_or_missing_where_a_fifth_of_all_requests_fails(nginx_server, nginx_folder, folder):
    data = np.arange(2000 * 8).reshape(2000, 8)
    array = await azarr.create_array(folder, "x", shape=data.shape, chunks=(1, 8), dtype=data.dtype)
    await array.write(data)
    faults = {Reset(): 0.06, BrokenBody(): 0.04, TruncatedBody(): 0.04, LostResponse(): 0.03, Answer(500): 0.03}
    async with FaultProxy(nginx_server.host, nginx_server.port, faults=faults, seed=1) as proxy:
        async with HTTPStore(f"{proxy.url}/{nginx_folder}", retry=RetryPolicy(first_delay=0.01)) as store:
            array = await azarr.open_array(store, "x")
            assert (await array.read() == data).all()
            assert await asyncio.gather(*(store.get(f"missing/{number}") for number in range(100))) == [None] * 100
        assert sum(proxy.injected.values()) > 300
