from __future__ import annotations

import numpy as np
import pytest

import azarr
from azarr.errors import MetadataError, NodeExistsError, NodeNotFoundError, StoreError


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_what_is_saved_is_loaded(tmp_path, zarr_format):
    data = np.arange(24, dtype=">i2").reshape(4, 6)
    array = await azarr.save(tmp_path / "a.zarr", data, zarr_format=zarr_format, chunks=(2, 3), attributes={"n": 1})
    assert (array.chunks, array.attrs, array.metadata.zarr_format) == ((2, 3), {"n": 1}, zarr_format)
    loaded = await azarr.load(tmp_path / "a.zarr")
    assert isinstance(loaded, np.ndarray)
    assert np.array_equal(loaded, data)


@pytest.mark.parametrize("data", [5, 2.5, [[1, 2], [3, 4]], np.zeros((0, 3)), True])
async def test_whatever_numpy_makes_an_array_of(data):
    store = azarr.MemoryStore()
    await azarr.save(store, data, "deep/er")
    loaded = await azarr.load(store, "deep/er")
    assert np.array_equal(loaded, data)
    assert loaded.dtype == np.asarray(data).dtype


async def test_mappings_become_groups():
    store = azarr.MemoryStore()
    given = {"a": np.arange(3), "b": {"c": np.ones((2, 2)), "d": {}}, "e/f": [1.5]}
    group = await azarr.save(store, given, "top", compressors=None)
    assert isinstance(group, azarr.AsyncGroup)
    loaded = await azarr.load(store, "top")
    assert loaded.keys() == {"a", "b", "e"}
    assert (loaded["a"].tolist(), loaded["b"]["c"].tolist(), loaded["b"]["d"], loaded["e"]["f"].tolist()) == (
        [0, 1, 2],
        [[1, 1], [1, 1]],
        {},
        [1.5],
    )
    assert (await azarr.load(store)).keys() == {"top"}
    assert await azarr.load(store, "top/b/d") == {}


async def test_saving_does_not_replace_unless_that_is_wanted(faulty_store):
    await azarr.save(faulty_store, [1, 2], "a")
    with pytest.raises(NodeExistsError):
        await azarr.save(faulty_store, [3], "a")
    with pytest.raises(MetadataError):
        await azarr.save(faulty_store, [3], "a", overwrite=True, chunks=0)
    assert (await azarr.load(faulty_store, "a")).tolist() == [1, 2]
    await azarr.save(faulty_store, [3], "a", overwrite=True)
    assert (await azarr.load(faulty_store, "a")).tolist() == [3]
    faulty_store.failing.add("b/y/zarr.json")
    with pytest.raises(StoreError):
        await azarr.save(faulty_store, {"x": [1], "y": [2]}, "b")
    assert not [key for key in faulty_store._values if key.startswith("b")]


async def test_nothing_there_is_nothing_to_load(tmp_path):
    with pytest.raises(NodeNotFoundError):
        await azarr.load(tmp_path)
