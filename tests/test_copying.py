from __future__ import annotations

import asyncio
import filecmp
import itertools
import json
import math
import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr
from azarr.chunk_lengths import ChunkLengths
from azarr.codecs import Blosc, Gzip, Zlib
from azarr.copying import block_shape, regions
from azarr.errors import CodecError, MetadataError, NodeExistsError, StoreError


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


async def values(store):
    return {key: bytes(await store.get(key)) async for key in store.list_prefix("")}


def ramp(shape, dtype="f4"):
    return np.arange(math.prod(shape)).reshape(shape).astype(dtype)


class Counting(azarr.MemoryStore):
    """Counts how often each key is read and written."""

    def __init__(self):
        super().__init__()
        self.read, self.written = {}, {}

    def get_blocking(self, key, byte_range=None, reserve=None):
        self.read[key] = self.read.get(key, 0) + 1
        return super().get_blocking(key, byte_range, reserve)

    def get_into(self, key, out):
        self.read[key] = self.read.get(key, 0) + 1
        return super().get_into(key, out)

    def set_blocking(self, key, value):
        self.written[key] = self.written.get(key, 0) + 1
        super().set_blocking(key, value)


# Planning


@given(st.data())
def test_blocks_are_whole_units_within_memory_and_cover_the_array_once(data):
    ndim = data.draw(st.integers(0, 3))
    shape = tuple(data.draw(st.integers(0, 30)) for _ in range(ndim))
    target, chunks = [tuple(data.draw(st.integers(1, 12)) for _ in range(ndim)) for _ in range(2)]
    shards = tuple(chunk * data.draw(st.integers(1, 3)) for chunk in chunks)
    memory = data.draw(st.integers(1, 20_000))
    block = block_shape(shape, target, (chunks, shards), 4, memory)
    assert all(length % unit == 0 for length, unit in zip(block, target, strict=True))
    assert 4 * math.prod(block) <= max(memory, 4 * math.prod(target))
    met = np.zeros(shape, int)
    for region in regions(shape, block, target):
        met[region] += 1
    assert (met == 1).all()


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20), data=st.data())
def test_blocks_of_unequal_chunks_are_whole_ones(lengths, data):
    length, kept = data.draw(st.integers(0, sum(lengths))), ChunkLengths((each, 1) for each in lengths)
    longest = max(lengths) * data.draw(st.integers(1, 3))
    pieces = [region[0] for region in regions((length,), (longest,), (kept,))]
    assert [position for piece in pieces for position in range(piece.start, piece.stop)] == list(range(length))
    ends = set(itertools.accumulate(lengths)) | {length}
    assert all(piece.stop in ends and piece.stop - piece.start <= longest for piece in pieces)
    for piece in pieces[:-1]:
        following = kept[kept.place(piece.stop)]
        assert piece.stop + following > min(length, piece.start + longest), "blocks are as long as may be"


@pytest.mark.parametrize(
    ("shape", "target", "source", "expected"),
    [
        ((100, 100), (1, 100), (100, 1), (100, 100)),  # every chunk of the source is decoded once
        ((1000, 1000), (1, 1000), (1000, 1), (1000, 1000)),
        ((1000,), (10,), (15,), (1000,)),
        ((10**6, 10**6), (1000, 1), (1000, 1000), (1000, 4000)),
    ],
)
def test_blocks_meet_whole_chunks_of_the_source(shape, target, source, expected):
    assert block_shape(shape, target, (source,), 4, 16 * 2**20)[: len(expected)] >= expected


def test_a_source_larger_than_memory_is_met_as_seldom_as_it_fits():
    block = block_shape((10_000, 10_000), (1, 10_000), ((10_000, 1),), 1, 10**6)
    assert block == (100, 10_000)


# Arrays


@pytest.mark.parametrize("wrap", [lambda store: store, lambda store: azarr.LatencyStore(store, 0)], ids=["blocking", "awaited"])
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_a_copy_equals_its_source(wrap, data):
    ndim = data.draw(st.integers(0, 3))
    shape = tuple(data.draw(st.integers(0, 9)) for _ in range(ndim))

    def options():
        zarr_format = data.draw(st.sampled_from([2, 3]))
        chunks = tuple(data.draw(st.integers(1, 5)) for _ in range(ndim))
        given = {"zarr_format": zarr_format, "chunks": chunks, "order": data.draw(st.sampled_from("CF"))}
        given["compressors"] = data.draw(st.sampled_from([None, Gzip(1), Blosc("lz4", 1, "shuffle"), Zlib(1)]))
        given["chunk_key_encoding"] = {"separator": data.draw(st.sampled_from("/."))}
        if zarr_format == 3 and data.draw(st.booleans()):
            given["shards"] = tuple(2 * chunk for chunk in chunks)
        elif zarr_format == 3 and ndim and data.draw(st.booleans()):
            lengths = [data.draw(st.lists(st.integers(1, 5), min_size=max(1, length), max_size=9)) for length in shape]
            given["chunks"] = tuple(data.draw(st.sampled_from(each)) for each in zip(chunks, lengths, strict=True))
        return given

    source = await azarr.create_array(
        wrap(azarr.MemoryStore()),
        "a",
        shape=shape,
        dtype=data.draw(st.sampled_from(["<i4", ">f8", "bool"])),
        attributes={"n": 1},
        **options(),
    )
    await source[tuple(slice(0, data.draw(st.integers(0, length))) for length in shape)].write(np.ones((), source.dtype))
    told = []
    changed = data.draw(st.none() | st.just(options()))
    changed = {"shards": None, "filters": (), **changed} if changed else {}
    copy = await azarr.copy(source, wrap(azarr.MemoryStore()), "b/c", progress=lambda done, total: told.append((done, total)), **changed)
    assert np.array_equal(await copy, await source)
    assert (copy.attrs, copy.dtype, copy.fill_value) == ({"n": 1}, source.dtype, source.fill_value)
    assert (await azarr.open_array(copy.store, "b/c")).metadata == copy.metadata
    for name, value in changed.items():
        if name in {"zarr_format", "chunks"}:
            assert getattr(copy, name, copy.metadata.zarr_format) == value
    if not changed:
        assert copy.chunks == source.chunks
    assert told == sorted(told)
    assert (told[-1] if told else (0, 0)) == (source.nbytes, source.nbytes)


@pytest.mark.parametrize("wrap", [lambda store: store, lambda store: azarr.LatencyStore(store, 0)], ids=["blocking", "awaited"])
async def test_values_are_copied_as_they_are(zarr_format, wrap):
    inner, target = azarr.MemoryStore(), azarr.MemoryStore()
    source = await azarr.create_array(wrap(inner), "a", shape=(5, 7), chunks=(2, 3), dtype="f4", zarr_format=zarr_format)
    await source[:2].write(1)
    key = source.source.key((0, 0))
    await inner.set(key, b"damaged")  # nobody decodes it
    await inner.set("a/notes", b"not a chunk")
    await azarr.copy(source, wrap(target))
    assert await values(target) == {
        name[2:]: value for name, value in (await values(inner)).items() if name.startswith("a/") and name != "a/notes"
    }
    copied = azarr.MemoryStore()
    await azarr.copy(source, wrap(copied), zarr_format=5 - zarr_format)
    assert len(await values(copied)) == len(await values(target))
    assert b"damaged" in (await values(copied)).values()


async def test_values_are_copied_from_a_store_that_cannot_be_listed():
    inner = azarr.MemoryStore()
    await (await azarr.create_array(inner, shape=(40, 40), chunks=1, dtype="i2"))[3:5].write(1)

    class Unlisted:
        async def get(self, key, byte_range=None):
            return await inner.get(key, byte_range)

    target = azarr.MemoryStore()
    await azarr.copy(await azarr.open_array(Unlisted()), target)
    assert await values(target) == await values(inner)


async def test_no_chunk_is_read_or_written_more_often_than_needed():
    store, target = Counting(), Counting()
    source = await azarr.create_array(store, "a", shape=(64, 64), chunks=(64, 1), dtype="f4")
    await source.write(ramp((64, 64)))
    store.read.clear()
    copy = await azarr.copy(source, target, "b", chunks=(1, 64))
    assert np.array_equal(await copy, ramp((64, 64)))
    assert set(store.read.values()) == {1}
    chunks = {key: count for key, count in target.written.items() if "/c/" in key}
    assert len(chunks) == 64
    assert set(chunks.values()) == {1}


async def test_chunks_of_different_lengths_are_read_and_written_once_where_memory_allows():
    store, target = Counting(), Counting()
    source = await azarr.create_array(store, "a", shape=(60, 64), chunks=[[10, 30, 25], 64], dtype="f4")
    await source.write(ramp((60, 64)))
    store.read.clear()
    copy = await azarr.copy(source, target, "b", chunks=[7, [1, 40, 3, 20]])
    assert np.array_equal(await copy, ramp((60, 64)))
    assert set(store.read.values()) == {1}
    assert {count for key, count in target.written.items() if "/c/" in key} == {1}


async def test_v2_has_no_chunks_of_different_lengths():
    source = await azarr.create_array(azarr.MemoryStore(), shape=(5, 6), chunks=[[1, 4], 3], dtype="i4")
    await source.write(ramp((5, 6), "i4"))
    with pytest.raises(MetadataError, match="no chunks of different lengths; choose zarr_format=3, or one length along every axis"):
        await azarr.copy(source, azarr.MemoryStore(), zarr_format=2)
    copy = await azarr.copy(source, azarr.MemoryStore(), zarr_format=2, chunks=(4, 3))
    assert np.array_equal(await copy, await source)


async def test_memory_is_bounded():
    store = azarr.MemoryStore()
    source = await azarr.create_array(store, "a", shape=(400, 1000), chunks=(400, 10), dtype="f8")
    await source.write(ramp((400, 1000), "f8"))
    async with azarr.Engine(memory=2**20) as engine:
        source = await azarr.open_array(store, "a", engine=engine)
        copy = await azarr.copy(source, azarr.MemoryStore(), chunks=(10, 1000))
        assert np.array_equal(await copy, ramp((400, 1000), "f8"))


@pytest.mark.parametrize("shares", [True, False])
async def test_large_files_are_copied_in_pieces(tmp_path, monkeypatch, shares):
    if not shares:  # as on systems that do not copy by themselves
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    nbytes = 64 * 2**20
    async with azarr.Engine(workers=1) as engine:
        source = azarr.LocalStore(tmp_path / "source", durability="none")
        array = await azarr.create_array(source, shape=nbytes, chunks=nbytes, dtype="u1", compressors=None, engine=engine)
        await array.write(np.arange(nbytes, dtype="u4").astype("u1"))
        tracemalloc.start()
        try:
            copy = await azarr.copy(array, azarr.LocalStore(tmp_path / "target", durability="none"))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert peak < nbytes // 4
    assert filecmp.cmp(tmp_path / "source/c/0", tmp_path / "target/c/0", shallow=False)
    assert copy.shape == (nbytes,)


async def test_another_data_type_and_fill_value():
    source = await azarr.create_array(azarr.MemoryStore(), shape=(5, 7), chunks=2, dtype="<i2", fill_value=3)
    await source[0].write(300)
    copy = await azarr.copy(source, azarr.MemoryStore(), dtype=">f8", fill_value=-1)
    assert np.array_equal(await copy, await source)
    assert (copy.dtype, copy.fill_value) == (np.dtype("f8"), -1)
    with pytest.raises(azarr.WriteError):
        await azarr.copy(source, store := azarr.MemoryStore(), dtype="u1")
    assert store._values == {}


async def test_dimension_names_become_an_attribute_in_v2_and_come_back():
    source = await azarr.create_array(azarr.MemoryStore(), shape=(2, 3), dtype="i2", dimension_names=["y", "x"], attributes={"n": 1})
    old = await azarr.copy(source, azarr.MemoryStore(), zarr_format=2)
    assert old.attrs == {"_ARRAY_DIMENSIONS": ["y", "x"], "n": 1}
    new = await azarr.copy(old, azarr.MemoryStore(), zarr_format=3)
    assert new.metadata == source.metadata


# What is there already


async def test_what_is_there_is_not_replaced_unless_that_is_wanted(zarr_format):
    store = azarr.MemoryStore()
    source = await azarr.create_array(azarr.MemoryStore(), shape=4, chunks=2, dtype="i2", zarr_format=zarr_format)
    await source[:2].write(1)
    old = await azarr.create_array(store, "a", shape=8, chunks=2, dtype="i2")
    await old.write(5)
    before = await values(store)
    with pytest.raises(NodeExistsError, match="'a' already"):
        await azarr.copy(source, store, "a")
    with pytest.raises(NodeExistsError, match="an array at 'a'"):
        await azarr.copy(source, store, "a/b", overwrite=True)
    with pytest.raises(MetadataError):
        await azarr.copy(source, store, "a", overwrite=True, chunks=0)
    with pytest.raises(MetadataError, match="not a node name"):
        await azarr.copy(source, store, "..", overwrite=True)
    with pytest.raises(TypeError, match="compressor"):
        await azarr.copy(source, store, "a", overwrite=True, compressor=None)
    assert await values(store) == before
    copy = await azarr.copy(source, store, "a", overwrite=True)
    assert (await copy).tolist() == [1, 1, 0, 0]


async def test_left_over_chunks_do_not_become_part_of_a_copy(zarr_format):
    store = azarr.MemoryStore()
    old = await azarr.create_array(store, "a", shape=4, chunks=2, dtype="i2", zarr_format=zarr_format)
    await old.write(5)
    await store.erase("a/zarr.json")
    await store.erase("a/.zarray")
    source = await azarr.create_array(azarr.MemoryStore(), shape=4, chunks=2, dtype="i2", zarr_format=zarr_format)
    await azarr.copy(source, store, "a")
    assert (await (await azarr.open_array(store, "a"))).tolist() == [0, 0, 0, 0]


async def test_of_a_copy_that_fails_nothing_is_left(faulty_store, zarr_format):
    source = await azarr.create_array(azarr.MemoryStore(), shape=8, chunks=2, dtype="i2", zarr_format=zarr_format)
    await source.write(1)
    faulty_store.failing.add("a/zarr.json" if zarr_format == 3 else "a/.zarray")
    with pytest.raises(StoreError, match="cannot reach"):
        await azarr.copy(source, faulty_store, "a")
    faulty_store.failing.clear()
    assert not [key for key in faulty_store._values if key.startswith("a")]
    await source.store.set(source.source.key((2,)), b"damaged")
    with pytest.raises(CodecError) as caught:
        await azarr.copy(source, faulty_store, "a", compressors=None)
    assert caught.value.coords == (2,)
    assert not [key for key in faulty_store._values if key.startswith("a")]


async def test_a_copy_that_is_cancelled_leaves_nothing(cancelled_everywhere, how_cancelled):
    async def prepare():
        source = await azarr.create_array(azarr.LatencyStore(azarr.MemoryStore(), 0), shape=8, chunks=2, dtype="i2")
        await source.write(1)
        inner = azarr.MemoryStore()

        def after():
            assert how_cancelled == "again" or "a/zarr.json" in inner._values or not [key for key in inner._values if key.startswith("a")]

        return azarr.copy(source, azarr.LatencyStore(inner, 0), "a"), after

    assert await asyncio.to_thread(cancelled_everywhere, prepare, how_cancelled) > 5


# Groups


@pytest.mark.parametrize("consolidated", [False, True])
async def test_copying_a_hierarchy(zarr_format, consolidated):
    inner = azarr.MemoryStore()
    root = await azarr.create_group(azarr.LatencyStore(inner, 0), "src", zarr_format=zarr_format, attributes={"r": 1})
    await (await root.create_array("g/x", shape=(4, 6), chunks=(2, 3), dtype="f4", attributes={"n": 1})).write(2)
    await (await root.create_array("y", shape=5, chunks=2, dtype="i2"))[:2].write(3)
    await root.create_group("empty")
    if consolidated:
        await root.consolidate()
    for other in (zarr_format, 5 - zarr_format):
        told = []
        store = azarr.MemoryStore()
        copy = await azarr.copy(root, store, "dst", zarr_format=other, progress=lambda done, total, told=told: told.append((done, total)))
        assert told[-1] == (106, 106)
        assert copy.metadata.zarr_format == other
        assert copy.attrs == {"r": 1}
        assert not (await azarr.open_group(store, "dst")).consolidated
        assert (await copy.tree()).partition("\n")[2] == (await root.tree()).partition("\n")[2]
        assert (await copy.open("g/x")).attrs == {"n": 1}
        assert (await (await copy.open_array("y"))).tolist() == [3, 3, 0, 0, 0]
        assert {node.metadata.zarr_format async for _, node in copy.members(max_depth=None)} == {other}


async def test_options_count_for_all_arrays():
    root = await azarr.create_group(azarr.MemoryStore())
    for name in "ab":
        await (await root.create_array(name, shape=4, chunks=2, dtype="f4")).write(1)
    copy = await azarr.copy(root, azarr.MemoryStore(), compressors=Gzip(1), chunks="auto")
    assert {(node.metadata.codecs[-1], node.chunks) async for _, node in copy.members()} == {(Gzip(1), (4,))}


async def test_a_group_is_not_copied_into_itself(tmp_path):
    store = azarr.LocalStore(tmp_path, durability="none")
    await azarr.create_hierarchy(store, {"a/b": {}})
    for target in (store, azarr.LocalStore(tmp_path), azarr.LatencyStore(store, 0)):
        for path in ("a", "a/c", ""):
            with pytest.raises(NodeExistsError, match="inside of the other"):
                await azarr.copy(await azarr.open_group(store, "a"), target, path, overwrite=True)


async def test_text_of_any_length_is_copied():
    source = await azarr.create_array(azarr.MemoryStore(), shape=10, chunks=3, dtype="string")
    values = np.array(["", "a", "é" * 100, "b\0", "x", "y", "z", "", "", "end"], object)
    await source.write(values)
    for options in ({}, {"chunks": 4}, {"zarr_format": 2}, {"compressors": None}):
        copy = await azarr.copy(source, azarr.MemoryStore(), **options)
        assert (await copy).tolist() == values.tolist()


async def test_a_codec_that_need_not_be_understood_goes_with_the_copy():
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, "a", shape=(4, 4), chunks=(2, 2), shards=(4, 4), dtype="i4")
    await array.write(np.arange(16).reshape(4, 4))
    members = json.loads(await store.get("a/zarr.json"))
    members["codecs"].append({"name": "private", "must_understand": False, "configuration": {"x": 1}})
    await store.set("a/zarr.json", json.dumps(members).encode())
    opened = await azarr.open_array(store, "a")
    assert (opened.chunks, opened.shards) == ((2, 2), (4, 4))
    copy = await azarr.copy(opened, store, "b")
    assert json.loads(await store.get("b/zarr.json"))["codecs"] == members["codecs"]
    np.testing.assert_array_equal(await copy.read(), np.arange(16).reshape(4, 4))
    other = await azarr.copy(opened, store, "c", chunks=(1, 4))
    assert json.loads(await store.get("c/zarr.json"))["codecs"][-1]["name"] == "sharding_indexed"
    np.testing.assert_array_equal(await other.read(), np.arange(16).reshape(4, 4))
