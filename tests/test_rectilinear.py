"""Arrays whose chunks differ in shape: created, written, read and streamed."""

from __future__ import annotations

import json
import pickle
import tracemalloc
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import azarr
from azarr.chunk_grids import RectilinearGrid, parse_chunk_grid
from azarr.chunk_lengths import ChunkLengths, parse_chunk_lengths
from azarr.codecs import Bytes, Crc32c, Gzip, Sharding, Transpose
from azarr.errors import CodecError, MetadataError
from azarr.projections import plan_of
from azarr.selection import Selection
from azarr.stores.latency import LatencyStore
from azarr.stores.memory import MemoryStore

SPEC_EXAMPLE = [4, [1, 2, 3], [[4, 2]], [[1, 3], 3], [4, 4, 4]]


def document(*chunk_shapes, **others):
    return {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": list(chunk_shapes), **others}}


def test_the_example_of_the_specification():
    grid = parse_chunk_grid(document(*SPEC_EXAMPLE), (6,) * 5, "/")
    assert isinstance(grid, RectilinearGrid)
    assert grid.grid_shape == (2, 3, 2, 4, 2), "chunks outside of the array do not count"
    assert grid.nchunks == 96
    assert grid.chunk_shape == (4, 3, 4, 3, 4)
    assert grid.chunk_shape_at((1, 1, 0, 3, 1)) == (4, 2, 4, 3, 4)
    assert grid.region((1, 1, 0, 3, 1)) == (slice(4, 6), slice(1, 3), slice(0, 4), slice(3, 6), slice(4, 6))
    assert parse_chunk_grid(grid.to_json(), (6,) * 5, "/") == grid
    assert grid.to_json() == document(4, [1, 2, 3], [[4, 2]], [[1, 3], 3], [[4, 3]])


@pytest.mark.parametrize(
    "wrong",
    [
        document([3, 2]),
        document(0),
        document([0, 6]),
        document([6], 2),
        document([]),
        document([6], kind="file"),
        document([6], extra=1),
        {"name": "rectilinear"},
        {"name": "rectilinear", "configuration": {"kind": "inline"}},
        {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": 6}},
    ],
    ids=str,
)
def test_illegal_grids_are_refused(wrong):
    with pytest.raises(MetadataError, match="^/: "):
        parse_chunk_grid(wrong, (6,), "/")


lengths = st.lists(st.integers(1, 4), min_size=1, max_size=6) | st.integers(1, 5)


@st.composite
def grids(draw):
    chunks = draw(st.lists(lengths, min_size=1, max_size=3))
    shape = tuple(draw(st.integers(0, 8 if isinstance(each, int) else sum(each))) for each in chunks)
    return shape, chunks


@st.composite
def basic_items(draw, length):
    """A slice of an axis of ``length`` in either direction, or an integer."""
    edge, step = st.none() | st.integers(-length - 2, length + 2), st.integers(-length - 2, length + 2).filter(bool)
    return draw(st.builds(slice, edge, edge, st.none() | step) | (st.integers(-length, length - 1) if length else st.nothing()))


@st.composite
def outer_items(draw, length):
    """What ``oindex`` takes for an axis of ``length``; no element twice, so that it can be written."""
    indices = st.lists(st.integers(0, length - 1), unique=True) if length else st.just([])
    mask = st.lists(st.booleans(), min_size=length, max_size=length)
    return draw(basic_items(length) | indices.map(partial(np.array, dtype=int)) | mask.map(partial(np.array, dtype=bool)))


@st.composite
def selected(draw, view, positions):
    """A part of a view (of an array, or a ``Selection``), and the same part of the positions that its elements have in the array."""
    shape = positions.shape
    kind = draw(st.sampled_from(["select", "outer", "points"]))
    if kind == "select":
        key = tuple(draw(basic_items(length)) for length in shape)
        return getattr(view, kind)(key), positions[key]
    if kind == "outer":
        key = tuple(draw(outer_items(length)) for length in shape)
        each = [np.atleast_1d(np.arange(length)[item]) for length, item in zip(shape, key, strict=True)]
        dropped = tuple(axis for axis, item in enumerate(key) if isinstance(item, int))
        return getattr(view, kind)(key), positions[np.ix_(*each)].squeeze(dropped)
    points = draw(st.lists(st.integers(0, positions.size - 1), unique=True)) if positions.size else []
    if draw(st.booleans()):
        mask = np.isin(np.arange(positions.size), points).reshape(shape)
        return getattr(view, kind)(mask), positions[mask]
    key = np.unravel_index(np.array(points, int), shape) if shape else ()
    return getattr(view, kind)(key), positions[key]


@given(grid=grids(), data=st.data())
def test_projections_put_every_element_where_it_belongs(grid, data):
    shape, chunks = grid
    metadata = RectilinearGrid(shape, parse_chunk_grid(document(*chunks), shape, "/").chunk_lengths)
    whole = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    selection, expected = data.draw(selected(Selection.whole(shape), whole))
    selection = selection.forward()
    out = np.full(selection.full_shape, -1)
    plan = plan_of(selection, metadata.chunk_lengths, shape)
    projections = list(plan.projections())
    assert len(projections) == plan.nchunks == len({each.coords for each in projections})
    assert [each.coords for each in projections] == sorted(each.coords for each in projections)
    for each in projections:
        region = metadata.region(each.coords)
        chunk = np.full(metadata.chunk_shape_at(each.coords), -2)
        chunk[tuple(slice(part.stop - part.start) for part in region)] = whole[region]
        out[each.out] = chunk[each.chunk]
        assert not each.covers or chunk[each.chunk].size == whole[region].size
        assert each.full == (each.covers and chunk.shape == whole[region].shape)
    np.testing.assert_array_equal(np.sort(out, axis=None), np.sort(expected, axis=None))
    runs = list(plan.runs(3))
    assert [coords for run in runs for coords in run.chunk_coords()] == [each.coords for each in projections]
    for run in runs:
        assert len({metadata.chunk_shape_at(coords) for coords in run.chunk_coords()}) == 1


def as_lists(projections):
    return [tuple(part.tolist() if isinstance(part, np.ndarray) else part for part in each) for each in projections]


@given(grid=grids(), data=st.data())
def test_a_part_of_an_axis_is_what_lies_between_two_chunks(grid, data):
    shape, chunks = grid
    lengths = parse_chunk_grid(document(*chunks), shape, "/").chunk_lengths
    axes = tuple(data.draw(outer_items(length)) for length in shape)
    for axis in plan_of(Selection.whole(shape).outer(axes).forward(), lengths, shape).axes:
        every = as_lists(axis)
        assert as_lists(axis[number] for number in range(len(axis))) == every
        low, high = sorted(data.draw(st.tuples(st.integers(0, 20), st.integers(0, 20))))
        part = axis.within(low, high)
        assert as_lists(part) == [each for each in every if low <= each[0] < high]
        lower, higher = sorted(data.draw(st.tuples(st.integers(0, 20), st.integers(0, 20))))
        assert as_lists(part.within(lower, higher)) == [each for each in every if max(low, lower) <= each[0] < min(high, higher)]


@given(grid=grids(), data=st.data())
def test_a_plan_is_made_of_its_parts(grid, data):
    shape, chunks = grid
    lengths = parse_chunk_grid(document(*chunks), shape, "/").chunk_lengths
    selection, _ = data.draw(selected(Selection.whole(shape), np.arange(np.prod(shape, dtype=int)).reshape(shape)))
    plan = plan_of(selection.forward(), lengths, shape)
    every = [(each.coords, *map(repr, each)) for each in plan.projections()]
    first, last = sorted(data.draw(st.tuples(st.integers(0, plan.nchunks), st.integers(0, plan.nchunks))))
    assert [(each.coords, *map(repr, each)) for part in plan.part(first, last) for each in part.projections()] == every[first:last]
    coords = tuple(data.draw(st.integers(0, 7)) for _ in shape)
    assert plan.number_after(coords) == sum(each[0] <= coords for each in every)
    assert plan.has(coords) == any(each[0] == coords for each in every)


def test_a_plan_for_a_billion_chunks_costs_nothing():
    lengths = ChunkLengths([(1000, 10**9), (7, 3)])
    plan = plan_of(Selection.whole((lengths.total,)), (lengths,), (lengths.total,))
    assert plan.nchunks == 10**9 + 3
    assert next(plan.projections()).coords == (0,)
    assert next(iter(plan.runs(10))).length == 10
    assert plan.axes[0][10**9 + 2].place == 10**9 + 2
    assert [each.coords for part in plan.part(10**9 - 1, 10**9 + 1) for each in part.projections()] == [(10**9 - 1,), (10**9,)]
    assert plan.number_after((10**9,)) == 10**9 + 1


def test_a_document_of_many_lengths_costs_little_more_than_its_numbers():
    count = 200_000
    tracemalloc.start()
    lengths = parse_chunk_lengths([1, 2] * count)
    plan = plan_of(Selection.whole((3 * count,)), (lengths,), (3 * count,))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 300 * count
    assert plan.nchunks == 2 * count
    assert plan.axes[0][2 * count - 1].out == slice(3 * count - 2, 3 * count)


def test_a_step_beyond_all_numbers():
    plan = plan_of(Selection.whole((6,)).select(slice(2, None, 10**30)), (ChunkLengths([(1, 2), (4, 1)]),), (6,))
    (projection,) = plan.projections()
    assert (projection.coords, projection.out) == ((2,), (slice(0, 1),))


@settings(deadline=None, max_examples=60)
@given(grid=grids(), data=st.data())
@pytest.mark.parametrize("blocking", [True, False])
async def test_what_is_written_is_read_and_streamed(grid, data, blocking):
    shape, chunks = grid
    store = MemoryStore() if blocking else LatencyStore(MemoryStore(), 0)
    filters = data.draw(st.sampled_from([(), (Transpose(tuple(range(len(shape)))[::-1]),)]))
    array = await azarr.create_array(store, "a", shape=shape, dtype="i2", chunks=chunks, fill_value=-1, filters=filters)
    elements = np.full(array.size, -1, "i2")
    places = np.arange(array.size).reshape(shape)
    for number in range(2):
        selection, positions = data.draw(selected(array.selection, places))
        elements[positions] = value = 100 * number + np.arange(positions.size, dtype="i2").reshape(positions.shape)
        await array.selected(selection).write(value)
    array = await azarr.open_array(store, "a")
    np.testing.assert_array_equal(await array.read(), elements.reshape(shape))
    selection, positions = data.draw(selected(array.selection, places))
    view = array.selected(selection)
    np.testing.assert_array_equal(await view.read(), elements[positions], strict=True)
    out = np.full(view.shape, -2, "i2")
    async with view.stream_chunks(ordered=data.draw(st.booleans())) as stream:
        async for chunk in stream:
            out[chunk.region] = chunk.data
    np.testing.assert_array_equal(out, elements[positions])


async def test_what_a_user_sees():
    array = await azarr.create_array(MemoryStore(), shape=(6, 9), dtype="f4", chunks=[2, [4, [1, 3], 2]])
    assert array.chunks == (2, [4, 1, 1, 1, 2])
    assert array.shards is None
    assert array.nchunks == 15
    assert "chunks=(2, [4, 3×1, 2])" in repr(array)
    assert json.loads(await array.store.get("zarr.json"))["chunk_grid"] == document(2, [4, [1, 3], 2])
    like = await azarr.create_array(MemoryStore(), like=array)
    assert like.chunks == array.chunks
    assert (await azarr.create_array(MemoryStore(), like=array, chunks=(3, 3))).chunks == (3, 3)


async def test_saving_showing_moving_and_consolidating():
    store, data = MemoryStore(), np.arange(30, dtype="i4").reshape(5, 6)
    group = await azarr.save(store, {"a": data, "b/c": data[::-1]}, chunks=[[1, 4], 3])
    assert await group.tree() == "/\n├── a (5, 6) int32\n└── b\n    └── c (5, 6) int32"
    await group.consolidate()
    await group.move("a", "moved")
    copy = await azarr.copy(await azarr.open_group(store, use_consolidated=True), MemoryStore(), "there")
    array = await copy.open_array("moved")
    assert array.chunks == ([1, 4], 3)
    np.testing.assert_array_equal(await array, data)
    assert pickle.loads(pickle.dumps(array.metadata)) == array.metadata


async def test_streams_know_the_chunks_and_tell_arrays_apart():
    store, data = MemoryStore(), np.arange(1, 13, dtype="i4")
    array = await azarr.create_array(store, shape=12, chunks=[[1, 4, 2, 5]], dtype="i4", compressors=None)
    await array.write(data)
    stream = array.stream_chunks(metadata=True)
    chunks = [chunk async for chunk in stream]
    assert [chunk.info.bounds for chunk in chunks] == [(slice(0, 1),), (slice(1, 5),), (slice(5, 7),), (slice(7, 12),)]
    assert [chunk.info.stored_shape for chunk in chunks] == [(1,), (4,), (2,), (5,)]
    assert [chunk.info.encoded_nbytes for chunk in chunks] == [chunk.info.decoded_nbytes for chunk in chunks] == [4, 16, 8, 20]
    rest = [chunk.coords async for chunk in array.stream_chunks(start_after=(1,))]
    assert rest == [(2,), (3,)]
    shares = [[chunk.coords async for chunk in array.stream_chunks(shard=shard, of=3)] for shard in range(3)]
    assert [coords for share in shares for coords in share] == [chunk.coords for chunk in chunks]
    other = await azarr.create_array(MemoryStore(), shape=12, chunks=[[5, 4, 2, 1]], dtype="i4", compressors=None)
    assert other.stream_chunks().fingerprint != stream.fingerprint


@settings(deadline=None, max_examples=60)
@given(grid=grids(), data=st.data())
async def test_slices(grid, data):
    shape, chunks = grid
    array = await azarr.create_array(MemoryStore(), shape=shape, dtype="i4", chunks=chunks)
    whole = np.arange(1, array.size + 1, dtype="i4").reshape(shape)
    await array.write(whole)
    axis = data.draw(st.integers(0, len(shape) - 1))
    key = tuple(slice(None, None, data.draw(st.sampled_from([1, -1, 2, -3]))) for _ in shape)
    thickness = data.draw(st.none() | st.integers(1, 4))
    memory = data.draw(st.sampled_from([1, 100, None]))
    out = np.zeros(whole[key].shape, "i4")
    async for each in array[key].stream_slices(axis, thickness=thickness, memory=memory):
        out[each.region] = each.data
    np.testing.assert_array_equal(out, whole[key])


async def test_chunks_are_stored_at_their_declared_length():
    array = await azarr.create_array(MemoryStore(), shape=(5,), dtype="u1", chunks=[[2, 4]], compressors=None)
    await array.write(np.arange(1, 6))
    assert await array.store.get("c/0") == b"\1\2"
    assert await array.store.get("c/1") == b"\3\4\5\0"


async def test_a_chunk_of_another_length_is_damage():
    array = await azarr.create_array(MemoryStore(), shape=(5,), dtype="u1", chunks=[[2, 3]], compressors=None)
    await array.store.set("c/0", b"\1\2\3")
    with pytest.raises(CodecError) as caught:
        await array.read()
    assert caught.value.coords == (0,)


async def test_shards_of_different_shapes():
    sharding = Sharding((2, 3), (Bytes(), Gzip(1)))
    array = await azarr.create_array(
        MemoryStore(), shape=(10, 9), dtype="i4", chunks=[[2, 4, 4], [3, 6]], serializer=sharding, compressors=[Crc32c()]
    )
    expected = np.arange(90, dtype="i4").reshape(10, 9)
    await array.write(expected)
    await array[3:5].write(0)
    expected[3:5] = 0
    np.testing.assert_array_equal(await array.read(), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunks": [[2, 3], 2]}, "chunk lengths for 2 dimensions"),
        ({"chunks": [[2, 2]]}, "lengthen them"),
        ({"chunks": [[2, 3.5]]}, "whole numbers"),
        ({"chunks": [[2, 3]], "shards": (5,)}, "leave shards out"),
        ({"chunks": [[2, 3]], "zarr_format": 2}, "choose zarr_format=3"),
        ({"chunks": [[2, 3]], "serializer": Sharding((2,), (Bytes(),))}, "do not divide"),
        ({"chunks": [[3, 4]], "serializer": Sharding((2,), (Bytes(),))}, "do not divide"),
    ],
)
async def test_options_that_do_not_fit(options, message):
    with pytest.raises(MetadataError, match=message):
        await azarr.create_array(MemoryStore(), shape=(5,), dtype="i4", **options)
