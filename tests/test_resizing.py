from __future__ import annotations

import asyncio
import itertools
import json
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import azarr
from azarr import resizing
from azarr.errors import MetadataError, NodeNotFoundError, SelectionError, StoreError, WriteError

LAYOUTS = {
    "plain": {"chunks": (3, 4)},
    "sharded": {"chunks": (3, 4), "shards": (6, 8)},
    "v2": {"chunks": (3, 4), "zarr_format": 2},
    "unequal": {"chunks": ([3, 1, 6], 4)},
}

every_layout = pytest.mark.parametrize("layout", LAYOUTS)

pytestmark = pytest.mark.usefixtures("complaints")


@pytest.fixture(params=["blocking", "awaited", "local", "elsewhere"])
def store(request, tmp_path, elsewhere):
    """Stores whose shapes are changed under a lock of this process, under a claim, and under a lock of all processes."""
    if request.param == "local":
        return azarr.LocalStore(tmp_path, durability="none")
    inner = azarr.MemoryStore()
    return {"blocking": inner, "awaited": azarr.LatencyStore(inner, 0), "elsewhere": elsewhere(inner)}[request.param]


async def make(store, layout="plain", **options):
    options = {"shape": (10, 10), "dtype": "i4", "fill_value": -1, **LAYOUTS[layout], **options}
    array = await azarr.create_array(store, "a", **options)
    await array.write(np.arange(array.size).reshape(array.shape))
    return array


async def chunk_keys(store):
    return sorted([key async for key in store.list_prefix("a/") if key.rpartition("/")[2] not in ("zarr.json", ".zarray", ".zattrs")])


def resized(old, shape, fill=-1):
    new = np.full(shape, fill, old.dtype)
    kept = tuple(map(slice, np.minimum(old.shape, shape)))
    new[kept] = old[kept]
    return new


@every_layout
@pytest.mark.parametrize(
    "shape", [(10, 10), (20, 10), (10, 11), (4, 10), (10, 5), (7, 3), (3, 20), (20, 3), (0, 10), (10, 0), (0, 0), (6, 8)]
)
async def test_what_is_kept_stays_and_what_is_gained_is_fill_value(store, layout, shape):
    array, content = await make(store, layout), np.arange(100).reshape(10, 10)
    for each in (shape, (10, 10), shape):
        await array.resize(each)
        content = resized(content, each)
        assert array.shape == each
        assert np.array_equal(await array, content)
        assert np.array_equal(await (await azarr.open_array(store, "a")), content)


@every_layout
async def test_chunks_outside_are_erased_and_those_at_the_edge_are_cut(store, layout):
    array = await make(store, layout)
    await array.resize((4, 5))
    kept = {"plain": 2 * 2, "sharded": 1, "v2": 2 * 2, "unequal": 2 * 2}[layout]
    assert len(await chunk_keys(store)) == kept
    await array.resize((3, 4))
    assert len(await chunk_keys(store)) == 1
    await array.resize((0, 4))
    assert await chunk_keys(store) == []


async def test_inner_chunks_outside_leave_their_shard(store):
    array = await make(store, "sharded", shape=(6, 8))
    before = len(await store.get("a/c/0/0"))
    await array.resize((3, 8))
    assert len(await store.get("a/c/0/0")) < before
    parts = array.source._layout.split(await store.get("a/c/0/0"))
    assert [part is None for part in parts] == [False, False, True, True]


@pytest.mark.parametrize("shape", [(5, 5, 5), (5,), (), 5, (5, -1), (5.0, 5), "ab", ("5", 5), None, [[5, 5]], np.zeros((2, 2))], ids=repr)
async def test_a_shape_that_is_none_is_refused_and_nothing_changed(shape):
    store = azarr.MemoryStore()
    array = await make(store)
    before = dict(store._values)
    with pytest.raises(WriteError):
        await array.resize(shape)
    assert store._values == before
    assert array.shape == (10, 10)


async def test_shapes_of_many_kinds():
    array = await azarr.create_array(azarr.MemoryStore(), shape=5, chunks=2, dtype="i4")
    for shape in (7, (7,), [7], np.array([7]), np.int64(7), True):
        await array.resize(shape)
        assert array.shape == (int(np.ravel(shape)[0]),)
    scalar = await azarr.create_array(azarr.MemoryStore(), shape=(), dtype="i4")
    await scalar.write(3)
    await scalar.resize(())
    assert await scalar == 3


@every_layout
async def test_a_shape_beyond_all_limits_is_refused_and_nothing_changed(layout):
    store = azarr.MemoryStore()
    array = await make(store, layout)
    before = dict(store._values)
    with pytest.raises(MetadataError):
        await array.resize((2**70, 10))
    assert store._values == before
    assert array.shape == (10, 10)


@every_layout
async def test_the_rest_of_the_document_stays_as_it_is(store, layout):
    array = await make(store, layout, attributes={"kept": [1]})
    name = "a/.zarray" if layout == "v2" else "a/zarr.json"
    members = json.loads(await store.get(name))
    extra = members if layout == "v2" else {**members, "extra": {"must_understand": False}}
    await store.set(name, json.dumps(extra).encode())
    await (await azarr.open_array(store, "a")).update_attributes({"new": 2})
    await array.resize((4, 4))
    document = await store.get(name)
    found = json.loads(document)
    assert found["shape"] == [4, 4]
    assert {key: value for key, value in found.items() if key not in ("shape", "attributes")} == {
        key: value for key, value in extra.items() if key not in ("shape", "attributes")
    }
    assert dict(array.attrs) == {"kept": [1], "new": 2}
    assert bytes(document).endswith(b"}")  # and no claim is left


async def test_a_grid_of_unequal_chunks_is_lengthened_by_its_last_length():
    array = await make(azarr.MemoryStore(), "unequal")
    assert list(array.chunks[0]) == [3, 1, 6]
    await array.resize((11, 10))
    assert list(array.chunks[0]) == [3, 1, 6, 6]
    await array[10].write(5)
    await array.resize((29, 10))
    assert list(array.chunks[0]) == [3, 1, 6, 6, 6, 6, 6]
    assert (await array[10] == 5).all()
    await array.resize((2, 10))
    assert list(array.chunks[0]) == [3, 1, 6, 6, 6, 6, 6]
    assert array.nchunks == 3
    assert list((await azarr.open_array(array.store, "a")).chunks[0]) == [3, 1, 6, 6, 6, 6, 6]


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_consolidated_metadata_have_the_new_shape(zarr_format):
    store = azarr.MemoryStore()
    group = await azarr.create_group(store, zarr_format=zarr_format)
    array = await group.create_array("a", shape=10, chunks=5, dtype="i4")
    group = await group.consolidate() or await azarr.open_group(store, use_consolidated=True)
    await array.resize(3)
    assert (await group.open("a")).shape == (3,)
    assert (await (await azarr.open_group(store, use_consolidated=True)).open("a")).shape == (3,)


# Objects and views


async def test_other_objects_see_the_shape_once_they_are_refreshed():
    store = azarr.MemoryStore()
    array = await make(store)
    other = await azarr.open_array(store, "a")
    await array.update_attributes({"x": 1})
    await array.resize((4, 10))
    assert other.shape == (10, 10)
    await other.refresh()
    assert other.shape == (4, 10)
    assert dict(other.attrs) == {"x": 1}
    assert other.nchunks == 6
    assert other[...].shape == (4, 10)
    await azarr.create_array(store, "a", shape=(2, 2), dtype="f8", overwrite=True)
    await other.refresh()
    assert (other.shape, other.dtype) == ((2, 2), np.dtype("f8"))
    await store.erase_prefix("a/")
    with pytest.raises(NodeNotFoundError):
        await other.refresh()
    await azarr.create_group(store, "a")
    with pytest.raises(NodeNotFoundError):
        await other.refresh()
    with pytest.raises(NodeNotFoundError):
        await other.resize((1, 1))


async def test_changing_attributes_shows_the_shape_that_is_stored():
    store = azarr.MemoryStore()
    array = await make(store)
    other = await azarr.open_array(store, "a")
    await array.resize((4, 10))
    await other.update_attributes({"x": 1})
    assert other.shape == (4, 10)
    assert (await other).shape == (4, 10)


async def test_views_keep_what_they_have_selected():
    array = await make(azarr.MemoryStore())
    views = [array[2:4], array[3, ::-1], array.oindex[[3, 1]], array.vindex[[3, 0], [9, 1]], array[5:5], array[::-1][7:8]]
    before = [(await view).tolist() for view in views]
    await array.resize((20, 10))
    assert [(await view).tolist() for view in views] == before
    await array.resize((4, 10))
    assert [(await view).tolist() for view in views] == before
    for view in views:
        await view.write(await view)


@pytest.mark.parametrize(
    "select", [lambda a: a[...], lambda a: a[5], lambda a: a[::-1], lambda a: a.oindex[[1, 9]], lambda a: a.vindex[[4], [0]]]
)
async def test_views_that_reach_beyond_the_array_are_refused(select):
    array = await make(azarr.MemoryStore())
    view = select(array)
    await array.resize((4, 10))
    for work in (view.read, lambda: view.write(1)):
        with pytest.raises(SelectionError, match=r"has been resized to \(4, 10\)"):
            await work()
    with pytest.raises(SelectionError):
        view.stream_chunks()
    await array.resize((10, 10))
    assert (await view).shape == view.shape


async def test_a_read_only_store_is_not_resized():
    class ReadOnly:
        def __init__(self, store):
            self.get = store.get

    store = azarr.MemoryStore()
    await make(store)
    array = await azarr.open_array(ReadOnly(store), "a")
    with pytest.raises(StoreError, match="cannot be written to"):
        await array.resize((1, 1))


# What happens in between


@every_layout
async def test_the_shape_is_published_before_anything_is_erased(layout):
    class Recording(azarr.MemoryStore):
        log = ()

        def set_blocking(self, key, value):
            self.log = (*self.log, key)
            super().set_blocking(key, value)

        def erase_blocking(self, key):
            self.log = (*self.log, key)
            super().erase_blocking(key)

    store = Recording()
    array = await make(store, layout)
    store.log = ()
    await array.resize((4, 5))
    assert store.log[0] in ("a/zarr.json", "a/.zarray")
    assert len(store.log) > 3
    assert not {"a/zarr.json", "a/.zarray"} & set(store.log[1:])


async def test_growing_writes_nothing_but_the_document():
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    array = await make(store)
    store.requests = 0
    await array.resize((1000, 1000))
    assert store.requests == 7  # claimed, published and released, by reading and writing each time, and a look at the group above


async def test_a_store_that_fails_leaves_the_new_shape(faulty_store):
    array = await make(faulty_store)
    faulty_store.failing.add("a/c/3/2")
    with pytest.raises(StoreError):
        await array.resize((4, 4))
    assert array.shape == (4, 4)
    faulty_store.failing.clear()
    assert (await array).tolist() == np.arange(100).reshape(10, 10)[:4, :4].tolist()
    faulty_store.failing.add("a/zarr.json")
    with pytest.raises(StoreError):
        await array.resize((2, 2))
    assert array.shape == (4, 4)


@pytest.mark.parametrize("shape", [(4, 4), (20, 20)])
@pytest.mark.parametrize("kind", ["blocking", "elsewhere", "local"])
def test_a_cancelled_resize_leaves_the_old_or_the_new_array(cancelled_everywhere, how_cancelled, shape, kind, elsewhere, tmp_path):
    numbers = itertools.count()

    async def prepare():
        inner = azarr.LocalStore(tmp_path / str(next(numbers)), durability="none") if kind == "local" else azarr.MemoryStore()
        array = await make(elsewhere(inner) if kind == "elsewhere" else inner)

        def check():
            async def look():
                found = await azarr.open_array(inner, "a")
                assert found.shape in (shape, (10, 10))
                old = np.arange(100).reshape(10, 10)
                assert np.array_equal(await found, resized(old, found.shape))
                await found.resize((3, 3))  # nothing is in the way
                assert np.array_equal(await found, old[:3, :3])

            thread = threading.Thread(target=asyncio.run, args=(look(),))
            thread.start()
            thread.join()

        return array.resize(shape), check

    assert cancelled_everywhere(prepare, how_cancelled) >= (0 if kind == "blocking" else 2)


async def test_many_chunks_that_do_not_exist_are_not_asked_for(monkeypatch):
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    array = await azarr.create_array(store, "a", shape=(10**12, 10), chunks=(10, 3), dtype="i4", fill_value=-1)
    for row in (0, 4, 5, 11, 10**6, 10**12 - 1):
        await array[row].write(row % 1000)
    store.requests = 0
    await array.resize((5, 7))
    assert store.requests < 60
    await array.resize((10**12, 10))
    for row, value in {0: 0, 4: 4, 5: -1, 11: -1, 10**6: -1, 10**12 - 1: -1}.items():
        assert (await array[row]).tolist() == [value] * 7 + [value if value == -1 else -1] * 3


@pytest.mark.parametrize("enumerated", [0, 10_000])
@given(
    shapes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=5),
    chunks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    per_shard=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_resizing_again_and_again_equals_numpy(enumerated, shapes, chunks, per_shard):
    async def main():
        shards = None if per_shard is None else tuple(np.multiply(chunks, per_shard).tolist())
        store = azarr.MemoryStore()
        array = await azarr.create_array(store, "a", shape=shapes[0], chunks=chunks, shards=shards, dtype="i4")
        content = np.zeros(shapes[0], "i4")
        for number, shape in enumerate(shapes):
            await array.resize(shape)
            content = resized(content, shape, 0)
            assert np.array_equal(await array, content)
            content[...] = number + 1
            await array.write(content)
        await array.resize((0, 0))
        assert await chunk_keys(store) == []

    before, resizing.ENUMERATED = resizing.ENUMERATED, enumerated
    try:
        asyncio.run(main())
    finally:
        resizing.ENUMERATED = before
