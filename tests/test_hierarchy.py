from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import azarr
from azarr.errors import MetadataError, NodeExistsError, NodeNotFoundError, StoreError, UnknownExtensionError


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


async def test_what_is_created_is_opened(tmp_path, zarr_format):
    array = await azarr.create_array(
        tmp_path, "a/b", shape=(5, 7), chunks=(2, 3), dtype=">i2", fill_value=-3, attributes={"units": "K"}, zarr_format=zarr_format
    )
    await array[1:4, 2:].write(5)
    expected = np.full((5, 7), -3)
    expected[1:4, 2:] = 5
    again = await azarr.open_array(tmp_path, "a/b")
    assert again.metadata == array.metadata
    assert again.attrs == {"units": "K"}
    assert np.array_equal(await again, expected)
    assert isinstance(await azarr.open(tmp_path, "a/b"), azarr.AsyncArray)
    assert isinstance(await azarr.open(tmp_path, "a"), azarr.AsyncGroup)
    assert isinstance(await azarr.open(tmp_path), azarr.AsyncGroup)
    assert (await azarr.open_group(tmp_path, "a")).metadata.zarr_format == zarr_format


@pytest.mark.parametrize("path", ["", "/", "a", "/a/", "a/b"])
async def test_a_path_may_have_slashes_around_it(path):
    store = azarr.MemoryStore()
    created = await azarr.create_group(store, path, attributes={"n": 1})
    assert created.path == path.strip("/")
    assert (await azarr.open_group(store, path.strip("/"))).attrs == {"n": 1}


# Where a store is


async def test_a_folder_is_named_in_many_ways(tmp_path, monkeypatch):
    await azarr.create_group(tmp_path / "with space.zarr", attributes={"n": 1})
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "with space.zarr"
    for location in (path, str(path), "with space.zarr", Path("with space.zarr"), path.as_uri(), f"file://localhost{path.as_uri()[7:]}"):
        assert (await azarr.open_group(location)).attrs == {"n": 1}
    assert "%20" in path.as_uri()


async def test_arrays_are_created_at_urls(tmp_path):
    array = await azarr.create_array((tmp_path / "a.zarr").as_uri(), shape=3, dtype="i2")
    assert (tmp_path / "a.zarr" / "zarr.json").is_file()
    assert array.store == azarr.LocalStore(tmp_path / "a.zarr")


async def test_a_store_is_used_as_it_is():
    store = azarr.MemoryStore()
    assert (await azarr.create_group(store)).store is store
    assert (await azarr.open(store)).store is store


@pytest.mark.parametrize("scheme", ["ftp", "hdfs", "zip"])
async def test_an_unknown_scheme_is_named(scheme):
    for call in (azarr.open, azarr.open_array, azarr.open_group, azarr.create_group):
        with pytest.raises(StoreError, match=f"no store for '{scheme}' URLs"):
            await call(f"{scheme}://user:secret@bucket/key")


async def test_credentials_in_a_url_do_not_show_in_the_error():
    with pytest.raises(StoreError) as caught:
        await azarr.open("ftp://user:secret@bucket/key?token=secret")
    assert "secret" not in str(caught.value)


async def test_a_file_url_of_another_machine_is_refused():
    with pytest.raises(StoreError, match="names the host 'server'"):
        await azarr.open("file://server/share")


@pytest.mark.parametrize("location", [None, 7, b"path", object()], ids=["none", "number", "bytes", "object"])
async def test_what_is_no_location_is_refused(location):
    with pytest.raises(StoreError, match="expected a path, a URL or a store"):
        await azarr.open(location)


# Nothing, or something else


async def test_nothing_there_is_an_error_that_says_what_was_looked_for(tmp_path):
    for zarr_format, looked in ((None, "no zarr.json, .zarray or .zgroup"), (3, "no zarr.json"), (2, "no .zarray or .zgroup")):
        for call in (azarr.open, azarr.open_array, azarr.open_group):
            with pytest.raises(NodeNotFoundError, match=looked) as caught:
                await call(tmp_path / "nothing", "a/b", zarr_format=zarr_format)
            assert caught.value.path == "a/b"
            assert isinstance(caught.value, FileNotFoundError)
    assert not (tmp_path / "nothing").exists()


async def test_the_other_kind_of_node_is_an_error_that_says_what_opens_it():
    store = azarr.MemoryStore()
    await azarr.create_array(store, "g/a", shape=3, dtype="i2")
    with pytest.raises(NodeNotFoundError, match="a group at 'g'.*open_group") as caught:
        await azarr.open_array(store, "g")
    assert caught.value.path == "g"
    with pytest.raises(NodeNotFoundError, match="an array at 'g/a'.*open_array"):
        await azarr.open_group(store, "g/a")


@pytest.mark.parametrize("path", ["..", "a/../../b", "a//b", "a\\b", "./a"])
async def test_no_path_leaves_the_store(tmp_path, path):
    await azarr.create_group(tmp_path / "root")
    await azarr.create_group(tmp_path / "b")
    with pytest.raises((StoreError, MetadataError, NodeNotFoundError)):
        await azarr.open(tmp_path / "root", path)
    with pytest.raises((StoreError, MetadataError)):
        await azarr.create_group(tmp_path / "root", path, overwrite=True)
    assert sorted(file.relative_to(tmp_path).as_posix() for file in tmp_path.rglob("*")) == ["b", "b/zarr.json", "root", "root/zarr.json"]


async def test_both_formats_in_one_folder(tmp_path):
    old = await azarr.create_array(tmp_path, "a", shape=3, dtype="i2", zarr_format=2)
    documents = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    await azarr.create_array(tmp_path, "a", shape=4, dtype="i2", overwrite=True)
    for name, document in documents.items():
        (tmp_path / "a" / name).write_bytes(document)
    assert (await azarr.open_array(tmp_path, "a")).shape == (4,)
    assert (await azarr.open_array(tmp_path, "a", zarr_format=3)).shape == (4,)
    forced = await azarr.open_array(tmp_path, "a", zarr_format=2)
    assert forced.shape == (3,)
    assert forced.metadata == old.metadata


async def test_a_format_that_is_not_there_is_not_found(tmp_path, zarr_format):
    await azarr.create_group(tmp_path, zarr_format=zarr_format)
    with pytest.raises(NodeNotFoundError):
        await azarr.open(tmp_path, zarr_format=5 - zarr_format)


# Creating


async def test_creating_twice_needs_overwrite(tmp_path, zarr_format):
    await azarr.create_array(tmp_path, "a/b", shape=3, dtype="i2", zarr_format=zarr_format)
    for create in (azarr.create_group, lambda *args, **options: azarr.create_array(*args, shape=5, dtype="i2", **options)):
        with pytest.raises(NodeExistsError, match="pass overwrite=True") as caught:
            await create(tmp_path, "a/b")
        assert isinstance(caught.value, FileExistsError)
    assert (await azarr.open_array(tmp_path, "a/b")).shape == (3,)
    await azarr.create_array(tmp_path, "a/b", shape=5, dtype="i2", overwrite=True)
    assert (await azarr.open_array(tmp_path, "a/b")).shape == (5,)
    assert (await azarr.open_group(tmp_path, "a")).metadata.zarr_format == zarr_format


async def test_overwriting_erases_the_chunks_too(tmp_path):
    array = await azarr.create_array(tmp_path, "a", shape=30, chunks=3, dtype="i2")
    await array.write(1)
    again = await azarr.create_array(tmp_path, "a", shape=30, chunks=3, dtype="i2", overwrite=True)
    assert (await again == 0).all()
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["zarr.json"]


async def test_overwriting_does_not_touch_a_folder_that_is_no_node(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_bytes(b"cat")
    await azarr.create_group(tmp_path / "photos", overwrite=True)
    await azarr.create_array(tmp_path, "photos/sub", shape=3, dtype="i2", overwrite=True)
    assert (tmp_path / "photos" / "cat.jpg").read_bytes() == b"cat"


async def test_impossible_options_create_nothing(tmp_path):
    for options in ({"chunks": (2, 2)}, {"fill_value": "x"}, {"compressors": "none-such"}, {"zarr_format": 2, "shards": 4}):
        with pytest.raises(MetadataError):
            await azarr.create_array(tmp_path / "a", shape=4, dtype="i2", overwrite=True, **options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("zarr_format", [1, 4, "3"])
async def test_a_group_of_another_format_is_refused(zarr_format):
    store = azarr.MemoryStore()
    with pytest.raises(MetadataError, match="zarr_format must be 2 or 3"):
        await azarr.create_group(store, zarr_format=zarr_format)
    assert store._values == {}


async def test_what_is_beyond_the_limits_is_not_created():
    async with azarr.Engine(limits=azarr.Limits(ndim=3, chunk_nbytes=1000, metadata_nbytes=2000)) as engine:
        for options in ({"shape": (1,) * 4}, {"shape": 2000, "chunks": 2000}, {"shape": 3, "attributes": {"a": "x" * 2000}}):
            store = azarr.MemoryStore()
            with pytest.raises(MetadataError):
                await azarr.create_array(store, dtype="u1", engine=engine, **options)
            assert store._values == {}


# Documents that are refused


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (azarr.Limits(metadata_nbytes=50), "Limits.metadata_nbytes"),
        (azarr.Limits(ndim=1), "2 dimensions where 1 are accepted"),
        (azarr.Limits(chunk_nbytes=95), "Limits.chunk_nbytes"),
        (azarr.Limits(element_nbytes=3), "Limits.element_nbytes"),
    ],
)
async def test_what_is_beyond_the_limits_of_the_engine_is_refused(limits, message, zarr_format):
    store = azarr.MemoryStore()
    await azarr.create_array(store, "a", shape=(4, 6), dtype="i4", zarr_format=zarr_format)
    async with azarr.Engine(limits=limits) as engine:
        with pytest.raises(MetadataError, match=message) as caught:
            await azarr.open_array(store, "a", engine=engine)
    assert caught.value.path == "a"
    assert (await azarr.open_array(store, "a")).shape == (4, 6)


async def test_what_azarr_does_not_have_is_named():
    store = azarr.MemoryStore()
    await azarr.create_array(store, "a", shape=3, dtype="f4")
    document = store._values["a/zarr.json"]
    await store.set("a/zarr.json", document.replace(b'"zstd"', b'"brotli"'))
    with pytest.raises(UnknownExtensionError, match="a: unknown codec 'brotli'") as caught:
        await azarr.open(store, "a")
    assert (caught.value.path, caught.value.name) == ("a", "brotli")


async def test_the_engine_that_is_given_is_used():
    store = azarr.MemoryStore()
    async with azarr.Engine(workers=1) as engine:
        assert (await azarr.create_group(store, engine=engine)).engine is engine
        group = await azarr.open_group(store, engine=engine)
        assert (await group.create_array("a", shape=3, dtype="i2")).engine is engine
        assert (await group.open("a")).engine is engine
