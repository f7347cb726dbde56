from __future__ import annotations

import numpy as np
import pytest

import azarr
from azarr.codecs import Blosc, Zlib
from azarr.errors import MetadataError, NodeNotFoundError, StoreError


async def values(store):
    return {key: bytes(await store.get(key)) async for key in store.list_prefix("")}


V2 = ("zarray", "zgroup", "zattrs", "zmetadata")


def split(found):
    """The names of the metadata documents, and the chunks."""
    chunks = {key: value for key, value in found.items() if not key.endswith((*V2, "zarr.json"))}
    return sorted(found.keys() - chunks.keys()), chunks


async def hierarchy(store, path=""):
    root = await azarr.create_group(store, path, zarr_format=2, attributes={"r": 1})
    data = np.arange(24, dtype="f4").reshape(4, 6)
    for name, options in {
        "g/plain": {"compressors": None, "chunk_key_encoding": {"separator": "/"}},
        "g/blosc": {"compressors": Blosc("lz4", 5, "shuffle"), "order": "F"},
        "zlib": {"compressors": Zlib(1), "attributes": {"_ARRAY_DIMENSIONS": ["y", "x"], "units": "K"}},
    }.items():
        await (await root.create_array(name, shape=(4, 6), chunks=(2, 3), dtype=">f4", **options)).write(data)
    return data


@pytest.mark.parametrize("consolidated", [False, True])
@pytest.mark.parametrize("path", ["", "top/sub"])
async def test_there_and_back(store, path, consolidated):
    data = await hierarchy(store, path)
    if consolidated:
        await (await azarr.open_group(store, path)).consolidate()
    before = await values(store)
    root = await azarr.convert(store, path, zarr_format=3)
    assert (root.metadata.zarr_format, root.attrs, root.consolidated) == (3, {"r": 1}, consolidated)
    names, chunks = split(await values(store))
    assert not [name for name in names if name.startswith(path) and name.endswith(V2)]
    assert chunks == split(before)[1]
    assert [name async for name, _ in root.members(max_depth=None)] == ["g", "zlib", "g/blosc", "g/plain"]
    async for _, node in root.members(max_depth=None):
        assert node.metadata.zarr_format == 3
        if isinstance(node, azarr.AsyncArray):
            assert np.array_equal(await node, data)
    zlib = await root.open_array("zlib")
    assert (zlib.dimension_names, zlib.attrs) == (("y", "x"), {"units": "K"})
    again = await azarr.convert(store, path, zarr_format=2)
    assert (again.metadata.zarr_format, again.consolidated) == (2, consolidated)
    assert split(await values(store)) == split(before)
    assert (await again.open_array("zlib")).attrs == {"_ARRAY_DIMENSIONS": ["y", "x"], "units": "K"}
    async for _, node in again.members(max_depth=None):
        if isinstance(node, azarr.AsyncArray):
            assert np.array_equal(await node, data)


async def test_one_array_can_be_converted(store):
    array = await azarr.create_array(store, "a", shape=4, dtype="i2", zarr_format=2, chunks=2)
    await array.write(3)
    new = await azarr.convert(store, "a")
    assert new.metadata.zarr_format == 3
    assert (await new).tolist() == [3, 3, 3, 3]
    assert (await azarr.open_group(store)).metadata.zarr_format == 2


async def test_the_old_documents_can_be_kept(store):
    await hierarchy(store)
    before = await values(store)
    await azarr.convert(store, keep_old=True)
    after = await values(store)
    assert before.items() <= after.items()
    assert (await azarr.open_group(store)).metadata.zarr_format == 3
    assert (await azarr.open_group(store, zarr_format=2)).attrs == {"r": 1}
    await azarr.convert(store)
    assert not [key for key in await values(store) if key.endswith(V2)]


async def test_an_undefined_fill_value_becomes_zero(store):
    document = b'{"zarr_format":2,"shape":[4],"chunks":[2],"dtype":"<i4","compressor":null,"fill_value":null,"order":"C","filters":null}'
    await store.set("a/.zarray", document)
    array = await azarr.convert(store, "a")
    assert array.metadata.fill_value == 0
    assert (await array).tolist() == [0, 0, 0, 0]


async def test_an_undefined_time_stays_none(store):
    document = b'{"zarr_format":2,"shape":[4],"chunks":[2],"dtype":"<M8[s]","compressor":null,"fill_value":null,"order":"C","filters":null}'
    await store.set("a/.zarray", document)
    await store.set("a/1", bytes(16))
    array = await azarr.convert(store, "a")
    assert np.isnat(array.metadata.fill_value)
    assert (await array).astype("i8").tolist() == [-(2**63), -(2**63), 0, 0]


@pytest.mark.parametrize(
    "options", [{}, {"shards": 4, "chunk_key_encoding": {"name": "v2"}}, {"dimension_names": [None]}, {"chunks": [[1, 3]]}]
)
async def test_what_needs_other_chunks_is_refused(store, options):
    root = await azarr.create_group(store)
    await root.create_array("fine", shape=4, dtype="i2", chunk_key_encoding={"name": "v2"})
    given = {"chunk_key_encoding": {"name": "v2"}, **options} if options else {}
    await root.create_array("x", shape=4, dtype="i2", **{"chunks": 2, **given})
    before = await values(store)
    with pytest.raises(MetadataError, match=r"'x' cannot become Zarr v2 .*azarr\.copy\(array, store, path, zarr_format=2\)") as caught:
        await azarr.convert(store, zarr_format=2)
    assert caught.value.path == "x"
    assert await values(store) == before


async def test_other_things_that_cannot_be_converted(store):
    with pytest.raises(NodeNotFoundError):
        await azarr.convert(store, "nothing")
    await azarr.create_group(store, "g", zarr_format=2)
    with pytest.raises(MetadataError, match="2 or 3"):
        await azarr.convert(store, "g", zarr_format=1)
    await azarr.create_group(store, "g/__x", zarr_format=2)
    with pytest.raises(MetadataError, match="not a node name"):
        await azarr.convert(store, "g")


async def test_what_is_of_the_format_already_stays(store):
    root = await azarr.create_group(store, attributes={"n": 1})
    await root.create_array("x", shape=4, dtype="i2")
    before = await values(store)
    assert (await azarr.convert(store)).attrs == {"n": 1}
    assert await values(store) == before


async def test_consolidated_groups_above_are_kept_up_to_date(store):
    await hierarchy(store)
    root = await azarr.open_group(store)
    await root.consolidate()
    await azarr.convert(store, "g")
    assert [name async for name, _ in (await azarr.open_group(store, use_consolidated=True)).members(max_depth=None)] == ["zlib"]
    await azarr.convert(store, "g", zarr_format=2)
    known = await azarr.open_group(store, use_consolidated=True)
    assert {name async for name, _ in known.members(max_depth=None)} == {"zlib", "g", "g/plain", "g/blosc"}


async def test_a_conversion_that_fails_halfway_loses_nothing(faulty_store):
    data = await hierarchy(faulty_store)
    before = dict(faulty_store._values)
    faulty_store.failing.add("g/blosc/zarr.json")
    with pytest.raises(StoreError):
        await azarr.convert(faulty_store)
    assert before.items() <= faulty_store._values.items()
    faulty_store.failing.clear()
    for name in ("zlib", "g/plain", "g/blosc"):
        assert np.array_equal(await (await azarr.open_array(faulty_store, name)), data)
    await azarr.convert(faulty_store)
    assert np.array_equal(await (await azarr.open_array(faulty_store, "g/blosc", zarr_format=3)), data)
