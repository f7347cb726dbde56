from __future__ import annotations

import asyncio
import json

import pytest

import azarr
from azarr.errors import MetadataError, NodeExistsError, StoreError
from azarr.metadata.model import GroupMetadata
from azarr.tree import draw


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


async def names(group, **options):
    return [name async for name, _ in group.members(**options)]


async def test_members_of_all_depths_nearest_first(store, zarr_format):
    await azarr.create_hierarchy(store, {"b": {}, "a/y/z": {"shape": (2, 3), "dtype": "f4"}, "a/x": {}}, zarr_format=zarr_format)
    root = await azarr.open_group(store)
    assert await names(root) == await names(root, max_depth=1) == ["a", "b"]
    assert await names(root, max_depth=2) == ["a", "b", "a/x", "a/y"]
    assert await names(root, max_depth=None) == ["a", "b", "a/x", "a/y", "a/y/z"]
    assert await names(root, max_depth=0) == []
    assert await names(await root.open_group("a"), max_depth=None) == ["x", "y", "y/z"]
    assert {name: node.path async for name, node in (await root.open_group("a")).members()} == {"x": "a/x", "y": "a/y"}


async def test_folders_that_are_no_nodes_are_looked_into(store):
    root = await azarr.create_group(store)
    await store.set("hole/deeper/g/zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    await store.set("hole/file", b"mine")
    assert await names(root) == await names(root, max_depth=2) == []
    assert await names(root, max_depth=None) == ["hole/deeper/g"]


async def test_chunks_are_not_looked_into(zarr_format):
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    root = await azarr.create_group(store, zarr_format=zarr_format)
    await (await root.create_array("a", shape=(8, 8), chunks=1, dtype="i2", chunk_key_encoding={"separator": "/"})).write(1)
    store.requests = 0
    assert await names(root, max_depth=None) == ["a"]
    assert store.requests == {3: 2, 2: 5}[zarr_format]


async def test_names_that_v3_reserves_are_names_in_v2(store):
    root = await azarr.create_group(store, zarr_format=2)
    await root.create_group("__a")
    await store.set("__b/zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    assert await names(root) == ["__a"]


async def test_members_are_read_side_by_side_and_no_more_than_allowed():
    store = azarr.LatencyStore(azarr.MemoryStore(), 0.001)
    await azarr.create_hierarchy(store, {f"{group}/{number}": {} for group in range(5) for number in range(20)})
    async with azarr.Engine(concurrency=7) as engine:
        root = await azarr.open_group(store, engine=engine)
        store.requests = store.max_in_flight = 0
        assert len(await names(root, max_depth=None)) == 105
    assert (store.requests, store.max_in_flight) == (105 + 106, 7)


async def test_many_members_in_a_store_whose_calls_block(tmp_path):
    for store in (azarr.MemoryStore(), azarr.LocalStore(tmp_path, durability="none")):
        await azarr.create_hierarchy(store, {f"{number:03}": {"attributes": {"n": number}} for number in range(300)})
        root = await azarr.open_group(store)
        assert [(name, node.attrs["n"]) async for name, node in root.members()] == [(f"{number:03}", number) for number in range(300)]
        members = root.members()
        assert (await anext(members))[0] == "000"
        await members.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_loop_gets_a_turn(tmp_path):
    store = azarr.MemoryStore()
    await azarr.create_hierarchy(store, {f"{number:04}": {} for number in range(1000)})
    root = await azarr.open_group(store)
    turns = 0

    async def count():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    counting = asyncio.create_task(count())
    for _ in range(2):
        before = turns
        assert len(await names(root)) == 1000
        assert turns >= before + 10
        await root.consolidate()
    counting.cancel()


async def test_members_before_a_broken_one_are_handed_out(store):
    root = await azarr.create_group(store)
    for name in "abc":
        await root.create_group(name)
    await store.set("b/zarr.json", b'{"zarr_format": 3, "node_type": "other"}')
    found = []
    with pytest.raises(MetadataError, match="node_type"):
        async for name, _ in root.members(max_depth=None):
            found.append(name)
    assert found == ["a"]


async def test_contains(store, zarr_format):
    root = await azarr.create_group(store, "top", zarr_format=zarr_format)
    await root.create_array("a/b", shape=3, dtype="i2")
    assert await root.contains("a")
    assert await root.contains("/a/b/")
    assert not await root.contains("b")
    assert await root.contains("")


async def test_the_tree(store, zarr_format):
    root = await azarr.create_group(store, "top", zarr_format=zarr_format)
    assert await root.tree() == "/top"
    await root.create_array("t2m", shape=(24, 3, 4), dtype="f4")
    await root.create_array("grid/lat", shape=3, dtype=">f8")
    await root.create_array("grid/lon", shape=4, dtype="f8")
    await root.create_array("scalar", shape=(), dtype="bool")
    assert (
        await root.tree()
        == "/top\n├── grid\n│   ├── lat (3,) float64\n│   └── lon (4,) float64\n├── scalar () bool\n└── t2m (24, 3, 4) float32"
    )
    assert await root.tree(max_depth=1) == "/top\n├── grid\n├── scalar () bool\n└── t2m (24, 3, 4) float32"


def test_drawing_fills_holes_and_goes_deep():
    assert draw("/", {"a/b": "x"}) == "/\n└── a\n    └── b x"
    assert draw("/", {"/".join("a" * 2000): "x"}).count("\n") == 2000


# Many at once


async def test_a_hierarchy_is_created_at_once(store, zarr_format):
    source = await azarr.create_array(azarr.MemoryStore(), shape=(8, 8), chunks=2, dtype="i2", fill_value=9, zarr_format=zarr_format)
    given = {
        "g": {"attributes": {"n": 1}},
        "g/x/y": {"shape": (4, 6), "chunks": (2, 3), "dtype": "f4"},
        "like": {"like": source},
        "/ready/": GroupMetadata(zarr_format, {"m": 2}),
        "array": source.metadata,
    }
    made = await azarr.create_hierarchy(store, given, "top", zarr_format=zarr_format)
    assert list(made) == list(given)
    assert made["g/x/y"].path == "top/g/x/y"
    await made["g/x/y"].write(1)
    root = await azarr.open_group(store)
    found = {name: node async for name, node in root.members(max_depth=None)}
    assert found.keys() == {"top", *(f"top/{name}" for name in ("g", "g/x", "g/x/y", "like", "ready", "array"))}
    assert {node.metadata.zarr_format for node in found.values()} == {zarr_format}
    assert found["top/g"].attrs == {"n": 1}
    assert found["top/ready"].attrs == {"m": 2}
    assert found["top/like"].metadata == found["top/array"].metadata == source.metadata


async def test_creating_many_costs_few_requests():
    store = azarr.LatencyStore(azarr.MemoryStore(), 0.001)
    async with azarr.Engine(concurrency=10) as engine:
        await azarr.create_hierarchy(store, {f"g/{number}": {} for number in range(50)}, engine=engine)
    # above: zarr.json and three documents of v2, for the root and g; the listing of g; the root, g and the nodes
    assert store.requests == 8 + 1 + 52
    assert store.max_in_flight == 10


async def test_nothing_is_written_where_anything_is_wrong(store):
    await azarr.create_group(store)
    await azarr.create_group(store, "there", attributes={"kept": True})
    await azarr.create_array(store, "array", shape=3, dtype="i2")
    before = {key: bytes(await store.get(key)) async for key in store.list_prefix("")}
    array = {"shape": 3, "dtype": "i2"}
    for nodes, error, message in [
        ({"new": {}, "there": {}}, NodeExistsError, "'there' already"),
        ({"new": {}, "array/below": {}}, NodeExistsError, "arrays have no nodes below"),
        ({"new": array, "new/below": {}}, NodeExistsError, "above it"),
        ({"new": {}, "bad": {**array, "chunks": 0}}, MetadataError, "chunks"),
        ({"new": {}, "__bad": {}}, MetadataError, "not a node name"),
        ({"new": {}, "bad": {"attributes": {"a": object()}}}, MetadataError, "JSON"),
        ({"new": {}, "bad": {"zarr_format": 4}}, MetadataError, "2 or 3"),
        ({"new": {}, "bad": {"compressors": None}}, TypeError, "compressors"),
        ({"new": {}, "bad": {"shape": 3}}, MetadataError, "dtype"),
    ]:
        with pytest.raises(error, match=message):
            await azarr.create_hierarchy(store, nodes)
        assert {key: bytes(await store.get(key)) async for key in store.list_prefix("")} == before


async def test_a_hierarchy_replaces_another_where_that_is_wanted(store):
    await azarr.create_hierarchy(store, {"a/b": {"shape": 3, "dtype": "i2"}, "a/c": {}, "d": {}})
    await azarr.create_hierarchy(store, {"a": {"attributes": {"new": 1}}, "a/b/x": {}}, overwrite=True)
    root = await azarr.open_group(store)
    assert await names(root, max_depth=None) == ["a", "d", "a/b", "a/b/x"]
    assert (await root.open("a")).attrs == {"new": 1}


async def test_hierarchies_that_are_created_side_by_side(store):
    given = [{f"{number}/x": {}, f"shared/{number}": {}, "also/shared": {}} for number in range(8)]
    outcomes = await asyncio.gather(*(azarr.create_hierarchy(store, nodes) for nodes in given), return_exceptions=True)
    assert sum(isinstance(outcome, dict) for outcome in outcomes) == 1
    given = [{f"y{number}/x": {}, f"shared/y{number}": {}} for number in range(8)]
    await asyncio.gather(*(azarr.create_hierarchy(store, nodes) for nodes in given))
    assert len(await names(await azarr.open_group(store), max_depth=None)) == 6 + 8 * 3


async def test_a_hierarchy_needs_a_store_that_can_be_written_to():
    class ReadOnly:
        async def get(self, key, byte_range=None):
            return None

    with pytest.raises(StoreError, match="cannot be written to"):
        await azarr.create_hierarchy(ReadOnly(), {"a": {}})


async def test_an_empty_hierarchy_is_nothing():
    store = azarr.MemoryStore()
    assert await azarr.create_hierarchy(store, {}) == {}
    assert store._values == {}


async def test_documents_are_readable(store):
    await azarr.create_hierarchy(store, {"a": {"shape": 3, "dtype": "i2", "attributes": {"b": {"c": 1}, "d": []}}})
    document = bytes(await store.get("a/zarr.json")).decode()
    assert '\n  "shape": [3],\n' in document
    assert '\n    "d": []\n' in document
    assert json.loads(document)["attributes"] == {"b": {"c": 1}, "d": []}
