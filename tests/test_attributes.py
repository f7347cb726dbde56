from __future__ import annotations

import asyncio
import json

import pytest

import azarr
from azarr import documents
from azarr.attributes import update_attributes
from azarr.errors import MetadataError
from azarr.metadata.model import GroupMetadata
from azarr.types import Limits

LIMITS = Limits()
V3_GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {"format": 3}}'
V2_GROUP = b'{"zarr_format": 2}'


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_updates_from_several_processes_lose_nothing_of_each_other(elsewhere, zarr_format):
    inner = azarr.MemoryStore()
    own = GroupMetadata(zarr_format, {"first": 1})
    await documents.create(inner, "g", own, LIMITS, overwrite=False)
    stores = [elsewhere(inner, seed=number, jitter=0.001) for number in range(5)]
    updates = [update_attributes(stores[number % 5], "g", {f"a{number}": number}, LIMITS, own) for number in range(20)]
    await asyncio.gather(*updates)
    found = await documents.read(inner, "g", LIMITS)
    assert found.attributes == {"first": 1, **{f"a{number}": number for number in range(20)}}


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("wrap", [lambda store: store, lambda store: azarr.LatencyStore(store, 0)], ids=["blocking", "awaited"])
async def test_updates_of_attributes_lose_nothing_of_each_other(zarr_format, wrap):
    store = wrap(azarr.MemoryStore())
    own = GroupMetadata(zarr_format, {"first": 1})
    await documents.create(store, "g", own, LIMITS, overwrite=False)
    await asyncio.gather(*(update_attributes(store, "g", {f"a{number}": number}, LIMITS, own) for number in range(20)))
    found = await documents.read(store, "g", LIMITS)
    assert found.attributes == {"first": 1, **{f"a{number}": number for number in range(20)}}


async def test_updating_attributes_keeps_the_rest_of_the_document():
    members = {**json.loads(V3_GROUP), "extra": {"must_understand": False, "x": 1}}
    store = azarr.MemoryStore({"zarr.json": json.dumps(members).encode()})
    own = await documents.read(store, "", LIMITS)
    await update_attributes(store, "", {"new": 1}, LIMITS, own)
    assert json.loads(store._values["zarr.json"]) == {**members, "attributes": {"format": 3, "new": 1}}


async def test_attributes_that_are_not_json_are_refused_and_nothing_written():
    store = azarr.MemoryStore({"zarr.json": V3_GROUP})
    with pytest.raises(MetadataError, match="not JSON"):
        await update_attributes(store, "", {"bad": {1, 2}}, LIMITS, GroupMetadata(3))
    assert store._values == {"zarr.json": V3_GROUP}


async def test_attributes_of_the_format_that_was_opened_are_updated():
    store = azarr.MemoryStore({"zarr.json": V3_GROUP, ".zgroup": V2_GROUP})
    own = await documents.read(store, "", LIMITS, 2)
    await update_attributes(store, "", {"new": 1}, LIMITS, own)
    assert store._values["zarr.json"] == V3_GROUP
    assert json.loads(store._values[".zattrs"]) == {"new": 1}
