from __future__ import annotations

import asyncio

import numpy as np
import pytest

import azarr
from azarr.errors import MetadataError, NodeExistsError, NodeNotFoundError, StoreError


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


async def keys(store):
    return {key async for key in store.list_prefix("")}


async def values(store):
    return {key: bytes(await store.get(key)) async for key in store.list_prefix("")}


# Requiring


async def test_a_required_group_is_opened_or_created(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    made = await root.require_group("a/b", attributes={"n": 1})
    assert (made.attrs, made.metadata.zarr_format) == ({"n": 1}, zarr_format)
    assert (await root.require_group("a/b", attributes={"n": 2})).attrs == {"n": 1}
    await root.create_array("x", shape=3, dtype="i2")
    with pytest.raises(NodeExistsError, match="an array at 'x' already"):
        await root.require_group("x")


async def test_a_required_array_is_opened_or_created(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    made = await root.require_array("x", shape=(4, 6), dtype="f4", chunks=(2, 3), fill_value=7)
    assert (made.chunks, made.fill_value, made.metadata.zarr_format) == ((2, 3), 7, zarr_format)
    await made[0].write(1)
    again = await root.require_array("x", shape=[4, 6], dtype=np.dtype(">f4"), chunks=(1, 1))
    assert again.chunks == (2, 3)
    assert (await again[:2, 0]).tolist() == [1, 7]
    with pytest.raises(NodeExistsError, match=r"shape \(4, 6\) and data type float32, where shape \(4, 5\) and data type float32"):
        await root.require_array("x", shape=(4, 5), dtype="f4")
    with pytest.raises(NodeExistsError, match="data type int32 are required"):
        await root.require_array("x", shape=(4, 6), dtype="i4")
    await root.create_group("g")
    with pytest.raises(NodeExistsError, match="a group at 'g' already"):
        await root.require_array("g", shape=3, dtype="i2")
    with pytest.raises(TypeError, match="compressor"):
        await root.require_array("x", shape=(4, 6), dtype="f4", compressor=None)


async def test_of_many_that_require_one_all_get_it(store):
    root = await azarr.create_group(store)
    arrays = await asyncio.gather(*(root.require_array("x", shape=3, dtype="i2", attributes={"by": number}) for number in range(10)))
    groups = await asyncio.gather(*(root.require_group("g", attributes={"by": number}) for number in range(10)))
    assert len({str(node.attrs) for node in arrays}) == len({str(node.attrs) for node in groups}) == 1


# Attributes


@pytest.mark.parametrize("kind", ["array", "group"])
async def test_attributes_are_replaced_and_deleted(store, zarr_format, kind):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    given = {"a": 1, "b": {"c": [None]}, "d": "x"}
    if kind == "array":
        node, reopen = await root.create_array("n", shape=3, dtype="i2", attributes=given), root.open_array
    else:
        node, reopen = await root.create_group("n", attributes=given), root.open_group
    await node.delete_attributes("a", "nothing")
    assert node.attrs == (await reopen("n")).attrs == {"b": {"c": [None]}, "d": "x"}
    await node.replace_attributes({"e": 5})
    assert node.attrs == (await reopen("n")).attrs == {"e": 5}
    await node.delete_attributes("e")
    assert node.attrs == (await reopen("n")).attrs == {}
    assert "n/.zattrs" not in await keys(store)
    await node.update_attributes({"f": 1})
    assert (await reopen("n")).attrs == {"f": 1}
    await node.replace_attributes({})
    assert (await reopen("n")).attrs == {}
    assert "n/.zattrs" not in await keys(store)


async def test_changing_attributes_leaves_the_rest_as_it_is(store):
    document = (
        b'{"zarr_format":2,"shape":[4],"chunks":[2],"dtype":"<i4","compressor":null,"fill_value":null,"order":"C","filters":[],"_X":1}'
    )
    await store.set("a/.zarray", document)
    await (await azarr.open_array(store, "a")).update_attributes({"n": 1})
    assert bytes(await store.get("a/.zarray")) == document
    v3 = (
        b'{"zarr_format":3,"node_type":"array","shape":[4],"data_type":{"name":"int32"},"chunk_grid":{"name":"regular","configuration":'
        b'{"chunk_shape":[2]}},"chunk_key_encoding":"default","fill_value":0,"codecs":["bytes"],"x":{"must_understand":false}}'
    ).replace(b"int32", b"uint8")
    await store.set("b/zarr.json", v3)
    await (await azarr.open_array(store, "b")).update_attributes({"n": 1})
    await (await azarr.open_array(store, "b")).replace_attributes({})
    assert b'"codecs": ["bytes"]' in bytes(await store.get("b/zarr.json"))
    assert b'"x": {"must_understand": false}' in bytes(await store.get("b/zarr.json"))


async def test_concurrent_deletions_and_updates_lose_nothing(store, zarr_format):
    group = await azarr.create_group(store, attributes={f"old{number}": 1 for number in range(10)}, zarr_format=zarr_format)
    others = [await azarr.open_group(store) for _ in range(3)]
    deletions = (others[number % 3].delete_attributes(f"old{number}") for number in range(10))
    updates = (others[number % 3].update_attributes({f"new{number}": number}) for number in range(10))
    await asyncio.gather(*(each for pair in zip(deletions, updates, strict=True) for each in pair))
    await group.update_attributes({})
    assert group.attrs == {f"new{number}": number for number in range(10)}


async def test_a_node_that_is_gone_is_not_brought_back(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    array = await root.create_array("a", shape=3, dtype="i2")
    await root.delete("a")
    with pytest.raises(NodeNotFoundError, match="any more"):
        await array.update_attributes({"n": 1})
    assert not await root.contains("a")


async def test_attributes_beyond_the_limits_are_refused(store):
    async with azarr.Engine(limits=azarr.Limits(metadata_nbytes=1000)) as engine:
        group = await azarr.create_group(store, attributes={"kept": 1}, engine=engine)
        with pytest.raises(MetadataError, match="1000 are accepted"):
            await group.update_attributes({"big": "x" * 1000})
        assert (await azarr.open_group(store)).attrs == {"kept": 1}


# Deleting


async def test_deleting(store, zarr_format):
    root = await azarr.create_group(store, "top", zarr_format=zarr_format)
    await (await root.create_array("a/b/c", shape=4, chunks=1, dtype="i2")).write(1)
    await root.create_group("ab")
    before = await keys(store)
    await root.delete("a/b")
    assert await keys(store) == {key for key in before if not key.startswith("top/a/b/")}
    await root.delete("/a/")
    assert [name async for name, _ in root.members(max_depth=None)] == ["ab"]
    with pytest.raises(NodeNotFoundError, match="'top/a'"):
        await root.delete("a")
    for name in ("", "/"):
        with pytest.raises(MetadataError, match="not the name of a node"):
            await root.delete(name)
    await store.set("top/folder/file", b"mine")
    with pytest.raises(NodeNotFoundError):
        await root.delete("folder")
    assert "top/folder/file" in await keys(store)


async def test_nodes_of_both_formats_are_deleted_at_once(store):
    root = await azarr.create_group(store)
    await azarr.create_array(store, "a", shape=3, dtype="i2", zarr_format=2)
    await store.set("a/zarr.json", bytes(await store.get("zarr.json")))
    await root.delete("a")
    assert await keys(store) == {"zarr.json"}


# Moving


async def test_moving(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    data = np.arange(24, dtype="f4").reshape(4, 6)
    x = await root.create_array("a/x", shape=(4, 6), chunks=(2, 3), dtype="f4", attributes={"u": 1})
    await x.write(data)
    await store.set("a/notes.txt", b"mine")
    await root.move("a", "new/place")
    assert np.array_equal(await (await root.open_array("new/place/x")), data)
    assert (await root.open("new/place/x")).attrs == {"u": 1}
    assert isinstance(await root.open("new"), azarr.AsyncGroup)
    assert bytes(await store.get("new/place/notes.txt")) == b"mine"
    assert not [key for key in await keys(store) if key.startswith("a/")]
    await root.move("new/place/x", "x")
    assert np.array_equal(await (await root.open_array("x")), data)
    assert [name async for name, _ in root.members(max_depth=None)] == ["new", "x", "new/place"]


async def test_impossible_moves_change_nothing(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    await (await root.create_array("a/x", shape=3, dtype="i2")).write(1)
    await root.create_group("b")
    await store.set("folder/file", b"mine")
    before = await values(store)
    for old, new, error, message in [
        ("c", "d", NodeNotFoundError, "'c'"),
        ("a", "b", NodeExistsError, "something at 'b'"),
        ("a", "folder", NodeExistsError, "something at 'folder'"),
        ("a", "a/b", NodeExistsError, "inside of the other"),
        ("a", "a", NodeExistsError, "inside of the other"),
        ("a/x", "a", NodeExistsError, "inside of the other"),
        ("b", "a/x/b", NodeExistsError, "an array at 'a/x'"),
        ("a", "", MetadataError, "not the name"),
        ("a", "..", MetadataError, "not a node name"),
    ]:
        with pytest.raises(error, match=message):
            await root.move(old, new)
        assert await values(store) == before


async def test_a_move_that_fails_halfway_loses_nothing(faulty_store, zarr_format):
    root = await azarr.create_group(faulty_store, zarr_format=zarr_format)
    await (await root.create_array("a/x", shape=4, chunks=1, dtype="i2", chunk_key_encoding={"separator": "."})).write(1)
    before = await values(faulty_store)
    name = "b/zarr.json" if zarr_format == 3 else "b/.zgroup"
    for key in (name, "b/x/c.3" if zarr_format == 3 else "b/x/3"):
        faulty_store.failing = {key}
        with pytest.raises(StoreError, match="cannot reach"):
            await root.move("a", "b")
        faulty_store.failing = set()
        assert await values(faulty_store) == before
    await root.move("a", "b")
    assert (await (await root.open_array("b/x"))).tolist() == [1, 1, 1, 1]


# Copying


async def test_copying_from_a_group(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    await (await root.create_array("a/x", shape=(4, 6), chunks=(2, 3), dtype="f4")).write(3)
    other = await root.create_group("other")
    assert (await root.copy("a/x", other)).path == "other/x"
    assert (await root.copy("a", (other, "renamed"))).path == "other/renamed"
    elsewhere = azarr.MemoryStore()
    copy = await root.copy("a", (elsewhere, "deep/er"), zarr_format=5 - zarr_format)
    for group, path in ((other, "x"), (other, "renamed/x"), (copy, "x")):
        assert (await (await group.open_array(path))).sum() == 72
    assert (await azarr.open_array(elsewhere, "deep/er/x")).metadata.zarr_format == 5 - zarr_format
    with pytest.raises(NodeExistsError):
        await root.copy("a/x", other)
    with pytest.raises(NodeExistsError, match="inside"):
        await root.copy("a", (root, "a/b"))
    with pytest.raises(NodeNotFoundError):
        await root.copy("nothing", other)
