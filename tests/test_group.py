from __future__ import annotations

import asyncio

import pytest

import azarr
from azarr.errors import MetadataError, NodeExistsError, NodeNotFoundError, StoreError


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


async def names(group):
    return [name async for name, _ in group.members()]


async def test_a_tree_can_be_created_and_walked(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format, attributes={"title": "root"})
    a = await root.create_group("a", attributes={"title": "a"})
    b = await a.create_array("b", shape=(4, 6), chunks=(2, 3), dtype="f4")
    await b.write(1.5)
    deep = await root.create_array("x/y/z", shape=3, dtype="i2")
    assert (a.path, b.path, deep.path) == ("a", "a/b", "x/y/z")
    assert {node.metadata.zarr_format for node in (root, a, b, deep)} == {zarr_format}

    async def walk(group):
        found = {}
        async for name, node in group.members():
            found[name] = await walk(node) if isinstance(node, azarr.AsyncGroup) else node.shape
        return found

    assert await walk(await azarr.open_group(store)) == {"a": {"b": (4, 6)}, "x": {"y": {"z": (3,)}}}


async def test_nodes_below_are_opened_by_name_or_path(store, zarr_format):
    root = await azarr.create_group(store, "top", zarr_format=zarr_format)
    await root.create_array("a/b", shape=3, dtype="i2", fill_value=7)
    assert isinstance(await root.open("a"), azarr.AsyncGroup)
    assert isinstance(await root.open("a/b"), azarr.AsyncArray)
    assert (await (await root.open_array("/a/b/")).read()).tolist() == [7, 7, 7]
    assert (await (await root.open_group("a")).open_array("b")).path == "top/a/b"
    with pytest.raises(NodeNotFoundError, match="no array or group at 'top/c'") as caught:
        await root.open("c")
    assert caught.value.path == "top/c"
    with pytest.raises(NodeNotFoundError, match="a group at 'top/a'.*open_group opens it"):
        await root.open_array("a")
    with pytest.raises(NodeNotFoundError, match="an array at 'top/a/b'.*open_array opens it"):
        await root.open_group("a/b")


async def test_members_are_in_order_of_their_names(store):
    root = await azarr.create_group(store)
    given = ["b", "a", "a-b", "a.b", "a b", "Z", "10", "9", "ä", "a0"]
    for name in given:
        await root.create_group(name)
    assert await names(root) == sorted(given)


async def test_what_is_no_node_is_passed_over(store):
    root = await azarr.create_group(store)
    await root.create_group("group")
    await root.create_array("array", shape=3, dtype="i2")
    await store.set("folder/file", b"mine")
    await store.set("file", b"mine")
    await store.set("__hidden/zarr.json", b'{"zarr_format": 3, "node_type": "group"}')
    assert await names(root) == ["array", "group"]


async def test_members_are_direct_ones_only(store):
    root = await azarr.create_group(store)
    await root.create_array("a/b/c", shape=3, dtype="i2")
    assert await names(root) == ["a"]
    assert await names(await root.open_group("a")) == ["b"]
    assert await names(await root.open_group("a/b")) == ["c"]


async def test_a_group_may_have_members_of_both_formats(store):
    root = await azarr.create_group(store)
    await azarr.create_array(store, "old", shape=3, dtype="i2", zarr_format=2)
    await azarr.create_array(store, "new", shape=3, dtype="i2")
    assert {name: node.metadata.zarr_format async for name, node in root.members()} == {"new": 3, "old": 2}


async def test_an_empty_group_has_no_members(store):
    assert await names(await azarr.create_group(store)) == []


async def test_more_members_than_requests_at_once():
    latent = azarr.LatencyStore(azarr.MemoryStore(), 0)
    async with azarr.Engine(concurrency=3) as engine:
        root = await azarr.create_group(latent, engine=engine)
        for number in range(20):
            await root.create_group(f"{number:02}")
        latent.max_in_flight = 0
        assert await names(root) == [f"{number:02}" for number in range(20)]
        assert latent.max_in_flight <= 3
        assert {node.engine async for _, node in root.members()} == {engine}


async def test_leaving_the_members_early_leaves_nothing_running():
    latent = azarr.LatencyStore(azarr.MemoryStore(), 0)
    root = await azarr.create_group(latent)
    for number in range(50):
        await root.create_group(f"{number:02}")
    members = root.members()
    async for name, _ in members:
        assert name == "00"
        break
    await members.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_member_that_cannot_be_read_is_an_error(faulty_store):
    root = await azarr.create_group(faulty_store)
    for name in "abc":
        await root.create_group(name)
    faulty_store.failing.add("b/zarr.json")
    found = []
    with pytest.raises(StoreError, match="cannot reach 'b/zarr.json'"):
        async for name, _ in root.members():
            found.append(name)
    assert found == ["a"]
    await faulty_store.erase("c/zarr.json")
    faulty_store.failing.clear()
    await faulty_store.set("b/zarr.json", b"broken")
    with pytest.raises(MetadataError):
        await names(root)


async def test_a_store_that_cannot_be_listed_says_so():
    class Unlisted:
        async def get(self, key, byte_range=None):
            return b'{"zarr_format": 3, "node_type": "group"}' if key == "zarr.json" else None

        def __repr__(self):
            return "<Unlisted>"

    group = await azarr.open_group(Unlisted())
    with pytest.raises(StoreError, match="<Unlisted> cannot be listed"):
        await names(group)


async def test_creating_twice_needs_overwrite(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    await (await root.create_array("a", shape=3, dtype="i2")).write(1)
    with pytest.raises(NodeExistsError, match="'a' already"):
        await root.create_array("a", shape=3, dtype="i2")
    with pytest.raises(NodeExistsError):
        await root.create_group("a")
    assert (await (await root.open_array("a")).read()).tolist() == [1, 1, 1]
    await root.create_array("a", shape=4, dtype="i2", overwrite=True)
    assert (await (await root.open_array("a")).read()).tolist() == [0, 0, 0, 0]
    await root.create_group("a", attributes={"n": 1}, overwrite=True)
    assert (await root.open_group("a")).attrs == {"n": 1}


async def test_an_array_has_no_nodes_below_it(store):
    root = await azarr.create_group(store)
    await root.create_array("a", shape=3, dtype="i2")
    with pytest.raises(NodeExistsError, match="arrays have no nodes below them"):
        await root.create_group("a/b")


async def test_the_options_of_create_array_are_those_of_the_function(store):
    root = await azarr.create_group(store)
    array = await root.create_array("a", shape=(8, 8), dtype=">i4", chunks=2, shards=4, fill_value=9, dimension_names=["y", "x"])
    assert (array.chunks, array.shards, array.fill_value, array.dimension_names) == ((2, 2), (4, 4), 9, ("y", "x"))


async def test_create_array_takes_like(store):
    root = await azarr.create_group(store)
    source = await root.create_array("a", shape=(8, 8), dtype="i4", chunks=2, fill_value=9)
    twin = await root.create_array("b", like=source)
    assert twin.metadata == source.metadata


async def test_create_array_without_shape_says_so(store):
    root = await azarr.create_group(store)
    with pytest.raises((MetadataError, TypeError), match="shape"):
        await root.create_array("a", dtype="i4")
    with pytest.raises(TypeError, match="compressor"):
        await root.create_array("a", shape=3, dtype="i4", compressor=None)


async def test_attributes_are_added_and_replaced(store, zarr_format):
    group = await azarr.create_group(store, "g", attributes={"a": 1, "b": 1}, zarr_format=zarr_format)
    await group.update_attributes({"b": 2, "c": [1, {"d": None}]})
    assert group.attrs == {"a": 1, "b": 2, "c": [1, {"d": None}]}
    assert (await azarr.open_group(store, "g")).attrs == group.attrs
    with pytest.raises(TypeError):
        group.attrs["a"] = 2


async def test_updates_from_twenty_tasks_are_all_there(store, zarr_format):
    group = await azarr.create_group(store, "g", attributes={"first": 0}, zarr_format=zarr_format)
    others = [await azarr.open_group(store, "g") for _ in range(4)]
    await asyncio.gather(*(others[number % 4].update_attributes({f"a{number}": number}) for number in range(20)))
    await group.update_attributes({})
    assert group.attrs == {"first": 0, **{f"a{number}": number for number in range(20)}}


async def test_attributes_of_arrays_can_be_updated_too(store, zarr_format):
    array = await azarr.create_array(store, "a", shape=3, dtype="i2", attributes={"units": "K"}, zarr_format=zarr_format)
    await array.write(5)
    await array.update_attributes({"scale": 2})
    assert array.attrs == {"units": "K", "scale": 2}
    again = await azarr.open_array(store, "a")
    assert again.attrs == array.attrs
    assert (await again).tolist() == [5, 5, 5]


async def test_the_repr_is_useful_and_tells_no_secrets():
    group = await azarr.create_group(azarr.MemoryStore(), "some/group", attributes={"token": "hunter2"})
    assert repr(group) == "<AsyncGroup 'some/group' in <MemoryStore 3 keys>>"
    assert "'/'" in repr(await azarr.open_group(group.store))
