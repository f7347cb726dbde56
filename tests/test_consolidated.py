from __future__ import annotations

import asyncio
import json
import pickle
from pathlib import Path

import pytest

import azarr
from azarr import documents, nodes
from azarr.catalog import registry_of, without_member
from azarr.errors import MetadataError, NodeExistsError, NodeNotFoundError, StoreError, UnknownExtensionError
from azarr.types import Limits

CORPUS = Path(__file__).parents[2] / "shared" / "conformance"


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


async def hierarchy(store, zarr_format, *, path=""):
    root = await azarr.create_group(store, path, zarr_format=zarr_format, attributes={"root": True})
    await root.create_array("a/x", shape=(4, 6), chunks=(2, 3), dtype="f4", attributes={"units": "K"})
    await root.create_group("a/empty", attributes={"e": 1})
    await root.create_array("b", shape=3, dtype="i2")
    return root


async def listed(group):
    return {name: node.metadata async for name, node in group.members(max_depth=None)}


async def check(store, path=""):
    """The consolidated metadata of the group say what is in the store."""
    known, real = [await azarr.open_group(store, path, use_consolidated=use) for use in (True, False)]
    assert known.consolidated
    assert not real.consolidated
    assert await listed(known) == await listed(real)
    assert known.metadata == real.metadata
    return await listed(known)


# Reading


@pytest.mark.parametrize("path", ["", "top/sub"])
async def test_opening_a_consolidated_hierarchy_costs_one_request(zarr_format, path):
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    root = await hierarchy(store, zarr_format, path=path)
    await root.consolidate()
    tree = await (await azarr.open_group(store, path, use_consolidated=False)).tree()
    store.requests = 0
    group = await azarr.open_group(store, path, zarr_format=zarr_format)
    assert store.requests == 1
    assert group.attrs == {"root": True}
    x = await group.open_array("a/x")
    assert (x.path.removeprefix(path).strip("/"), x.attrs, x.chunks) == ("a/x", {"units": "K"}, (2, 3))
    a = await group.open_group("a")
    assert await a.contains("x")
    assert not await a.contains("y")
    assert (await a.open_group("empty")).attrs == {"e": 1}
    assert [name async for name, _ in a.members()] == ["empty", "x"]
    assert [name async for name, _ in group.members(max_depth=None)] == ["a", "b", "a/empty", "a/x"]
    assert await group.tree() == tree
    with pytest.raises(NodeNotFoundError, match="use_consolidated=False"):
        await group.open("a/nothing")
    assert store.requests == 1


async def test_detecting_the_format_asks_for_the_documents_of_v2_at_once():
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    await (await hierarchy(store, 2)).consolidate()
    store.requests = store.max_in_flight = 0
    assert (await azarr.open_group(store)).consolidated
    assert (store.requests, store.max_in_flight) == (5, 4)


async def test_a_v2_group_without_consolidated_metadata_is_opened_too():
    store = azarr.MemoryStore()
    await hierarchy(store, 2)
    assert not (await azarr.open_group(store, zarr_format=2)).consolidated
    with pytest.raises(NodeNotFoundError):
        await azarr.open_group(store, "c", zarr_format=2)


async def test_consolidated_metadata_can_be_required_and_left_aside(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    with pytest.raises(MetadataError, match="consolidate()"):
        await azarr.open_group(store, use_consolidated=True)
    await root.consolidate()
    assert (await azarr.open_group(store, use_consolidated=True)).consolidated
    assert not (await azarr.open_group(store, use_consolidated=False)).consolidated
    assert (await azarr.open(store)).consolidated
    with pytest.raises(NodeNotFoundError, match="an array"):
        await azarr.open_group(store, "b", use_consolidated=True)


async def test_groups_opened_without_stay_without(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    await (await root.open_group("a")).consolidate()
    assert (await (await azarr.open_group(store)).open_group("a")).consolidated
    assert not (await (await azarr.open_group(store, use_consolidated=False)).open_group("a")).consolidated


async def test_dropping_consolidated_metadata(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    before = {key async for key in store.list_prefix("")}
    await root.consolidate()
    other = await azarr.open_group(store)
    await root.drop_consolidated()
    assert not root.consolidated
    assert not other.consolidated
    assert not (await azarr.open_group(store)).consolidated
    assert {key async for key in store.list_prefix("")} == before
    assert root.attrs == (await azarr.open_group(store)).attrs == {"root": True}
    await root.drop_consolidated()


async def test_an_empty_group_can_be_consolidated(store, zarr_format):
    root = await azarr.create_group(store, zarr_format=zarr_format)
    await root.consolidate()
    assert await check(store) == {}
    await root.create_group("a")
    assert list(await check(store)) == ["a"]


async def test_what_is_out_of_date_is_consolidated_again(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    await root.consolidate()
    name = "zarr.json" if zarr_format == 3 else ".zgroup"
    value = await store.get(f"a/empty/{name}")
    await store.set(f"new/{name}", value)  # as another library would
    assert not await root.contains("new")
    await root.consolidate()
    assert await root.contains("new")
    await check(store)


async def test_nodes_that_azarr_cannot_read_are_kept(store):
    root = await hierarchy(store, 3)
    document = json.loads(bytes(await store.get("b/zarr.json")))
    document["codecs"] = [{"name": "future"}]
    await store.set("b/zarr.json", json.dumps(document).encode())
    await root.consolidate()
    assert json.loads(bytes(await store.get("zarr.json")))["consolidated_metadata"]["metadata"]["b"] == document
    assert (await root.open_array("a/x")).shape == (4, 6)
    with pytest.raises(MetadataError, match="future"):
        await root.open("b")


async def test_nodes_of_the_other_format_are_left_out(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    other = 5 - zarr_format
    await azarr.create_array(store, "other/z", shape=(3, 3), chunks=1, dtype="i4", zarr_format=other)
    await (await azarr.open_array(store, "other/z")).write(1)
    await root.consolidate()
    assert {name async for name, _ in root.members(max_depth=None)} == {"a", "b", "a/empty", "a/x"}


async def test_hostile_consolidated_metadata_can_be_left_aside(store):
    await azarr.create_group(store)
    await store.set(
        "zarr.json", b'{"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"kind": "inline", "metadata": {"../x": {}}}}'
    )
    with pytest.raises(MetadataError, match="use_consolidated=False"):
        await azarr.open_group(store)
    await azarr.open_group(store, use_consolidated=False)
    await azarr.create_group(store, "old", zarr_format=2)
    for document in (b"{", b'{"zarr_consolidated_format": 3}', b"[]"):
        await store.set("old/.zmetadata", document)
        for zarr_format in (None, 2):
            with pytest.raises(MetadataError, match="use_consolidated=False"):
                await azarr.open_group(store, "old", zarr_format=zarr_format)
        await azarr.open_group(store, "old", use_consolidated=False)


async def test_an_unknown_kind_is_left_alone(store):
    document = {"zarr_format": 3, "node_type": "group", "consolidated_metadata": {"kind": "other", "must_understand": False}}
    await store.set("zarr.json", json.dumps(document).encode())
    group = await azarr.open_group(store)
    assert not group.consolidated
    await group.create_group("a")
    await group.update_attributes({"n": 1})
    assert json.loads(bytes(await store.get("zarr.json"))) == {**document, "attributes": {"n": 1}}


async def test_groups_pickle_without_what_they_know(zarr_format, tmp_path):
    root = await hierarchy(azarr.LocalStore(tmp_path), zarr_format)
    await root.consolidate()
    again = pickle.loads(pickle.dumps(root))
    assert again.attrs == root.attrs
    assert not again.consolidated
    assert (await again.open_array("b")).shape == (3,)


# Writing through


async def test_every_change_is_written_through_and_seen_at_once(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    await root.consolidate()
    await check(store)
    a = await root.open_group("a")
    await a.create_array("y", shape=5, dtype="u1", attributes={"n": 1})
    assert (await root.open_array("a/y")).attrs == {"n": 1}
    await azarr.create_group(store, "deep/er/est", zarr_format=zarr_format)
    assert await root.contains("deep/er")
    await check(store)
    x = await root.open_array("a/x")
    await x.update_attributes({"units": "C", "more": [1]})
    assert (await root.open("a/x")).attrs == x.attrs == {"units": "C", "more": [1]}
    await x.replace_attributes({})
    assert (await root.open("a/x")).attrs == x.attrs == {}
    await a.delete_attributes("nothing")
    await root.update_attributes({"root": False})
    assert (await check(store)).keys() == {"a", "b", "a/empty", "a/x", "a/y", "deep", "deep/er", "deep/er/est"}
    await root.delete("a/x")
    assert not await a.contains("x")
    await root.move("a", "deep/a")
    assert (await check(store)).keys() == {"b", "deep", "deep/er", "deep/er/est", "deep/a", "deep/a/empty", "deep/a/y"}
    await root.create_array("deep", shape=3, dtype="i2", overwrite=True)
    assert (await check(store)).keys() == {"b", "deep"}
    await azarr.create_hierarchy(store, {"many/a": {}, "many/b": {"shape": 3, "dtype": "i2"}}, zarr_format=zarr_format)
    assert (await check(store)).keys() == {"b", "deep", "many", "many/a", "many/b"}
    await azarr.copy(await root.open("many"), store, "again")
    assert {"again", "again/a", "again/b"} <= (await check(store)).keys()
    assert await root.contains("again/b")


async def test_all_consolidated_groups_above_are_written_through(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    a = await root.open_group("a")
    await a.consolidate()
    await root.consolidate()
    await (await root.open_group("a")).create_group("new/er")
    assert {"a/new", "a/new/er"} <= (await check(store)).keys()
    assert {"new", "new/er"} <= (await check(store, "a")).keys()
    assert await a.contains("new/er")
    await root.delete("a/x")
    assert "x" not in await check(store, "a")
    await check(store)


async def test_a_consolidated_group_can_be_moved_and_converted(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    await root.consolidate()
    await (await root.open_group("a")).consolidate()
    await root.move("a", "new/a")
    assert {"new", "new/a", "new/a/x", "new/a/empty"} <= (await check(store)).keys()
    assert (await check(store, "new/a")).keys() == {"empty", "x"}
    if zarr_format == 2:
        await azarr.convert(store)
        assert {"new", "new/a", "new/a/x", "new/a/empty"} <= (await check(store)).keys()
        assert (await check(store, "new/a")).keys() == {"empty", "x"}


async def test_another_open_group_sees_it_too(store, zarr_format):
    await (await hierarchy(store, zarr_format)).consolidate()
    one, other = await azarr.open_group(store), await azarr.open_group(store)
    await one.create_group("new")
    assert await other.contains("new")
    await azarr.create_group(store, zarr_format=zarr_format, overwrite=True)
    assert not other.consolidated
    assert not await other.contains("new")


async def test_concurrent_changes_lose_nothing_of_each_other(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    await root.consolidate()
    groups = [await azarr.open_group(store) for _ in range(3)]

    async def work(number):
        group = groups[number % 3]
        await group.create_group(f"n{number}/below")
        array = await group.create_array(f"m{number}", shape=3, dtype="i2")
        await array.update_attributes({"number": number})
        await (await group.open("b")).update_attributes({f"n{number}": number})
        if number % 3 == 0:
            await group.delete(f"n{number}")

    await asyncio.gather(*(work(number) for number in range(15)))
    found = await check(store)
    assert found["b"].attributes == {f"n{number}": number for number in range(15)}
    assert {f"m{number}" for number in range(15)} <= found.keys()
    assert ("n0" in found, "n1/below" in found) == (False, True)


async def test_a_consolidation_misses_nothing_that_happens_meanwhile(zarr_format):
    store = azarr.LatencyStore(azarr.MemoryStore(), 0, jitter=0.002, seed=1)
    root = await hierarchy(store, zarr_format)

    async def work(number):
        await asyncio.sleep(0.0007 * number)
        await root.create_group(f"n{number}")
        if number % 2:
            await root.delete(f"n{number}")

    async def consolidate(number):
        await asyncio.sleep(0.004 * number)
        await (await azarr.open_group(store, use_consolidated=False)).consolidate()

    await asyncio.gather(*(work(number) for number in range(30)), *(consolidate(number) for number in range(4)))
    assert {f"n{number}" for number in range(0, 30, 2)} <= (await check(store)).keys()


async def test_many_changes_at_once_are_written_together(zarr_format):
    store = azarr.LatencyStore(azarr.MemoryStore(), 0.001)
    root = await azarr.create_group(store, zarr_format=zarr_format)
    await root.consolidate()
    written = 0
    real = store.set

    async def counted(key, value):
        nonlocal written
        written += key in {"zarr.json", ".zmetadata"}
        await real(key, value)

    store.set = counted
    await asyncio.gather(*(root.create_group(f"n{number}") for number in range(30)))
    assert len(await check(store)) == 30
    assert written < 15


async def test_what_is_not_consolidated_costs_no_waiting(zarr_format):
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    root = await azarr.create_group(store, zarr_format=zarr_format)
    store.requests = 0
    await root.create_group("a")
    # 3 to see that nothing is there, 1 (or 5) for what is above, 1 to write (and 1 to erase attributes that a crash may have left)
    assert store.requests == {3: 5, 2: 10}[zarr_format]


async def test_a_change_that_cannot_be_written_through_says_so(zarr_format):
    store = azarr.MemoryStore()
    async with azarr.Engine(limits=Limits(metadata_nbytes=3000)) as engine:
        root = await azarr.create_group(store, zarr_format=zarr_format, engine=engine)
        await root.consolidate()
        with pytest.raises(MetadataError, match="drop_consolidated"):
            for number in range(100):
                await root.create_array(f"{number}", shape=3, dtype="i2")
        with pytest.raises(MetadataError, match="Limits.metadata_nbytes"):
            await root.consolidate()


async def test_deleting_takes_a_node_out_of_the_consolidated_metadata_first(faulty_store, zarr_format):
    class Stuck(type(faulty_store)):
        async def erase_prefix(self, prefix):
            raise StoreError("cannot erase", key=prefix)

    store = Stuck()
    root = await hierarchy(store, zarr_format)
    await root.consolidate()
    with pytest.raises(StoreError, match="cannot erase"):
        await root.delete("b")
    assert not await root.contains("b")
    await check(store)


async def test_what_is_consolidated_and_gone_can_be_deleted(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    await root.consolidate()
    await store.erase_prefix("b/")
    await root.delete("b")
    assert not await root.contains("b")
    with pytest.raises(NodeNotFoundError):
        await root.delete("b")
    await check(store)


async def test_requiring_looks_at_the_store_where_consolidated_metadata_are_out_of_date(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    await root.consolidate()
    name = "zarr.json" if zarr_format == 3 else ".zgroup"
    await store.set(f"new/{name}", bytes(await store.get(f"a/empty/{name}")))
    assert (await root.require_group("new")).path == "new"
    with pytest.raises(NodeExistsError):
        await root.require_array("new", shape=3, dtype="i2")


async def test_nothing_is_kept_of_stores_that_are_gone(zarr_format):
    store = azarr.MemoryStore()
    root = await hierarchy(store, zarr_format)
    await root.consolidate()
    assert [catalog.path for catalog in registry_of(store).live(zarr_format)] == [""]
    del root
    assert registry_of(store).live(zarr_format) == []


async def test_a_group_that_is_gone_cannot_be_consolidated(store, zarr_format):
    root = await hierarchy(store, zarr_format)
    a = await root.open_group("a")
    await root.delete("a")
    with pytest.raises(NodeNotFoundError):
        await a.consolidate()
    assert registry_of(store).known.begun == registry_of(store).known.ended


async def test_cancelling_leaves_nothing_running(zarr_format, cancelled_everywhere, how_cancelled):
    async def prepare():
        store = azarr.LatencyStore(azarr.MemoryStore(), 0)
        root = await hierarchy(store, zarr_format)
        await root.consolidate()

        async def work():
            await root.create_group("new/er")
            await root.delete("a")
            await root.consolidate()

        def after():
            assert registry_of(store).known.begun == registry_of(store).known.ended

        return work(), after

    assert await asyncio.to_thread(cancelled_everywhere, prepare, how_cancelled) > 10


# The corpus


def parsed(own, name):
    try:
        return documents.parse_node(without_member(own), name)
    except UnknownExtensionError as error:  # which is no matter here
        return error.name


@pytest.mark.parametrize(
    "dataset",
    [
        "vitessce/anndata-0.12__anndata-csc.zarr",
        "neuroglancer/ome_zarr__simple_0.5",
        "gen-zarr-python-3.4/api_consolidated.zarr",
        "gen-zarr-python-2.18/layout.zarr",
        "xcube/cube-1-250-250.levels__1.zarr",
        "gdal/byte_cf1.zarr",
        "esmvalcore/example_field_0.zarr2",
    ],
)
async def test_consolidated_groups_of_others(dataset):
    if not (CORPUS / dataset).exists():
        pytest.skip("needs the conformance corpus beside the repository")
    store = azarr.LocalStore(CORPUS / dataset)
    group = await azarr.open_group(store, use_consolidated=True)
    known = group._known
    found = nodes.walk(store, "", group.engine, max_depth=None, zarr_format=group.metadata.zarr_format)
    real = {name: own async for name, own in found}
    assert real
    listed = dict(known.documents)
    listed.pop("", None)
    assert set(listed) == set(real)
    for name, own in real.items():
        assert documents.format_of(own) == group.metadata.zarr_format
        assert parsed(known.documents[name], name) == parsed(own, name)


# Several processes


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_changes_from_several_processes_are_written_through_without_loss(zarr_format, elsewhere, run_virtual):
    async def main(seed):
        inner = azarr.MemoryStore()
        group = await azarr.create_group(inner, zarr_format=zarr_format)
        for name in "abc":
            await group.create_group(name)
        await group.consolidate()

        async def work(number):
            store = elsewhere(inner, jitter=1.0, seed=10 * seed + number)
            mine = await azarr.open_group(store, "abc"[number % 3])
            for turn in range(2):
                await mine.update_attributes({f"{number}.{turn}": turn})
            await (await azarr.open_group(store)).update_attributes({f"root {number}": number})

        await asyncio.gather(*map(work, range(6)))
        found = await azarr.open_group(inner, use_consolidated=True)
        assert dict(found.attrs) == {f"root {number}": number for number in range(6)}
        members = {name: dict(member.attrs) async for name, member in found.members()}
        assert members == {
            name: {f"{number}.{turn}": turn for number in (first, first + 3) for turn in range(2)} for first, name in enumerate("abc")
        }

    for seed in range(15):
        run_virtual(lambda seed=seed: main(seed))


def test_consolidating_keeps_the_attributes_that_another_process_sets_meanwhile(elsewhere, run_virtual):
    async def main(seed):
        inner = azarr.MemoryStore()
        group = await azarr.create_group(inner)
        await group.create_group("a")
        here = await azarr.open_group(elsewhere(inner, jitter=1.0, seed=seed))
        there = await azarr.open_group(elsewhere(inner, jitter=1.0, seed=seed + 1000))
        await asyncio.gather(here.consolidate(), there.update_attributes({"x": 1}))
        await asyncio.gather(here.drop_consolidated(), there.update_attributes({"y": 2}))
        assert dict((await azarr.open_group(inner)).attrs) == {"x": 1, "y": 2}

    for seed in range(30):
        run_virtual(lambda seed=seed: main(seed))
