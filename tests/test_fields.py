"""Fields of structures by name: read, written and streamed alone, before and after any selection, as NumPy does it."""

from __future__ import annotations

import asyncio
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr
from azarr import CodecError, LatencyStore, MemoryStore, SelectionError, StreamError, WriteError
from azarr.codecs.fields import FieldPipeline

INNER = np.dtype([("a", "u2"), ("b", "S3")])
DTYPE = np.dtype([("x", "f4"), ("when", "M8[s]"), ("flag", "?"), ("pos", [("deep", INNER), ("z", "i8")]), ("name", "U2")])
PATHS = [("x",), ("when",), ("flag",), ("name",), ("pos",), ("pos", "z"), ("pos", "deep"), ("pos", "deep", "a"), ("pos", "deep", "b")]
SHAPE = (13, 17)
FILL = (1.5, "1999-12-31", True, ((3, b"f"), -9), "no")


def structures(shape, seed=0):
    """Random structures, without values that are not equal to themselves."""
    raw = np.random.default_rng(seed)
    data = np.zeros(shape, DTYPE)
    data["x"] = raw.standard_normal(shape)
    data["when"] = raw.integers(0, 2**31, shape).astype("M8[s]")
    data["flag"] = raw.random(shape) < 0.5
    data["pos"]["z"] = raw.integers(-(2**40), 2**40, shape)
    data["pos"]["deep"]["a"] = raw.integers(0, 2**16, shape)
    data["pos"]["deep"]["b"] = raw.integers(0, 999, shape).astype("S3")
    data["name"] = raw.integers(0, 99, shape).astype("U2")
    return data


def field_of(data, path):
    for name in path:
        data = data[name]
    return data


FORMATS = [
    {"chunks": (5, 4)},
    {"chunks": (5, 4), "compressors": None},
    {"chunks": (20, 20), "order": "F"},
    {"chunks": (2, 3), "shards": (4, 9)},
    {"chunks": (2, 3), "shards": (4, 9), "compressors": None},
    {"chunks": ([3, 1, 9], [5, 5, 7])},
    {"chunks": (5, 4), "zarr_format": 2},
    {"chunks": (5, 4), "zarr_format": 2, "compressors": None, "order": "F"},
]


@pytest.fixture(params=["blocking", "awaited"])
def make_array(request):
    async def make(**options):
        options = {"shape": SHAPE, "chunks": (5, 4), "dtype": DTYPE} | options
        make.store = inner = MemoryStore()
        array = await azarr.create_array(inner, "a", **options)
        return array if request.param == "blocking" else azarr.AsyncArray(LatencyStore(inner, 0.0), "a", array.metadata)

    return make


@st.composite
def selections(draw, basic_keys):
    """A function of a view or an array that selects from it, and whether it can be done with a field's name besides."""
    kind = draw(st.sampled_from(["basic", "outer", "points", "mask", "reversed"]))
    seed = draw(st.integers(0, 2**32))
    key = draw(basic_keys(SHAPE)) if kind == "basic" else None
    return kind, seed, key


def select(thing, selection, field=None):
    """What a selection makes of a view, or of an array of NumPy's; fewer axes are left to those that do not fit."""
    kind, seed, key = selection
    rng, shape, view = np.random.default_rng(seed), thing.shape, not isinstance(thing, np.ndarray)
    if kind == "basic" and shape == SHAPE:
        if field is not None and view:
            return thing[(field, *key)] if isinstance(key, tuple) else thing[key, field]
        return thing[key]
    if 0 in shape or not shape:
        return thing
    if kind == "outer":
        indices = [rng.integers(0, length, rng.integers(1, 5)) for length in shape]
        return thing.oindex[tuple(indices)] if view else thing[np.ix_(*indices)]
    if kind == "points":
        indices = tuple(rng.integers(0, length, (2, 3)) for length in shape)
        return thing.vindex[indices] if view else thing[indices]
    if kind == "mask":
        mask = rng.random(shape) < 0.3
        return thing.vindex[mask] if view else thing[mask]
    return thing[::-2]


async def streamed(view):
    result = np.zeros(view.shape, view.dtype)
    async with view.stream_chunks() as chunks:
        async for chunk in chunks:
            assert chunk.data.dtype == view.dtype
            result[chunk.region] = chunk.data
    return result


# --- as NumPy does it


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(drawn=st.data())
async def test_fields_and_selections_equal_numpys(make_array, basic_keys, drawn):
    """A field named before, between or after selections, read, streamed and written."""
    options = drawn.draw(st.sampled_from(FORMATS))
    array, data = await make_array(**options, fill_value=FILL), structures(SHAPE)
    if drawn.draw(st.booleans()):
        await array.write(data)
    else:
        data[6:] = np.array(FILL, DTYPE)
        await array[:6].write(data[:6])
    for _ in range(drawn.draw(st.integers(1, 3))):
        path = drawn.draw(st.sampled_from(PATHS))
        steps = [drawn.draw(selections(basic_keys)) for _ in range(drawn.draw(st.integers(0, 2)))]
        for _ in path:
            steps.insert(drawn.draw(st.integers(0, len(steps))), None)
        names, view, places = iter(path), array, np.arange(data.size).reshape(SHAPE)
        for step in steps:
            if step is None:
                name = next(names)
                view = view[name] if drawn.draw(st.booleans()) else view.field(name)
            else:
                view, places = select(view, step), select(places, step)
        expected = field_of(data, path).reshape(-1)[places, ...]  # a scalar of bytes would lose the zeros at its end
        assert (view.shape, view.dtype) == (expected.shape, expected.dtype)
        np.testing.assert_array_equal(await view, expected, strict=True)
        np.testing.assert_array_equal(await streamed(view), expected)
        out = np.zeros((*expected.shape, 2), expected.dtype)[..., 0]
        assert await view.read(out=out) is out
        np.testing.assert_array_equal(out, expected)
        if len(np.unique(places)) == places.size:
            values = field_of(structures(places.shape, seed=drawn.draw(st.integers(1, 9))), path)
            whole = field_of(data, path).copy()
            whole.reshape(-1)[places] = values
            field_of(data, path)[...] = whole
            await view.write(values)
            np.testing.assert_array_equal(await array, data)


async def test_a_name_besides_indices(make_array):
    array, data = await make_array(), structures(SHAPE)
    await array.write(data)
    for key, expected in [
        (("x", slice(2, 9), 3), data["x"][2:9, 3]),
        ((slice(2, 9), "x", 3), data["x"][2:9, 3]),
        ((..., 3, "pos"), data["pos"][..., 3]),
        (("when",), data["when"]),
        ((4, 5, "name"), data["name"][4, 5]),
    ]:
        got = await array[key]
        np.testing.assert_array_equal(got, expected)
        assert got.dtype == expected.dtype
    assert array.fields == ("x", "when", "flag", "pos", "name")
    assert array["pos"][2:].fields == ("deep", "z")
    assert array["x"].fields == ()
    assert repr(array["pos"]["z"][2:]) == "<ArrayView of 'a'['pos']['z'] shape=(11, 17) dtype=int64>"
    assert array["x"].nbytes == 4 * 13 * 17


async def test_there_is_no_such_field(make_array):
    array = await make_array()
    for select in (lambda: array["y"], lambda: array.field("y"), lambda: array["y", 2:], lambda: array[2:][""]):
        with pytest.raises(SelectionError, match="the fields are x, when, flag, pos, name"):
            select()
    with pytest.raises(SelectionError, match="the fields are deep, z"):
        array["pos"]["x"]
    for select in (lambda: array["x"]["x"], lambda: array["x"][2:, "x"]):
        with pytest.raises(SelectionError, match="'float32' have no fields, hence no 'x'"):
            select()
    with pytest.raises(SelectionError, match=r"one field at a time.*view\['pos'\]\['z'\]"):
        array["pos", "z"]
    with pytest.raises(SelectionError, match="too many indices"):
        array["x", 1, 2, 3]
    plain = await make_array(dtype="i4")
    with pytest.raises(SelectionError, match="'int32' have no fields"):
        plain["x"]
    assert plain.fields == ()


async def test_a_field_that_is_an_array_is_not_selected(make_array):
    array = await make_array(dtype=np.dtype([("x", "f4", (3,)), ("y", "i4")]), zarr_format=2)
    with pytest.raises(SelectionError, match=r"array of shape \(3,\) in each element"):
        array["x"]
    await array["y"].write(7)
    assert (await array["y"] == 7).all()
    assert (await array)["x"].shape == (*SHAPE, 3)


# --- writing


async def test_what_a_field_cannot_hold_is_not_written(make_array):
    array = await make_array()
    for view, value in [
        (array["x"], 1j),
        (array["pos"]["deep"]["a"], 70_000),
        (array["pos"], 7),
        (array["x"], np.zeros(5)),
        (array["name"], "abc"),
    ]:
        with pytest.raises(WriteError):
            await view.write(value)
    await array["pos"].write(((7, b"ab"), -1))
    await array["x"][2:4].write(np.arange(17, dtype="i2"))
    data = await array
    assert (data["pos"]["deep"]["b"] == b"ab").all()
    assert (data["x"][3] == np.arange(17)).all()
    with pytest.raises(WriteError, match="data type float32"):
        await array["x"].read(out=np.zeros(SHAPE))


async def test_fields_of_what_is_not_stored_are_fill_value(make_array):
    array = await make_array(fill_value=FILL)
    for path in PATHS:
        view = array
        for name in path:
            view = view[name]
        expected = field_of(np.full(SHAPE, np.array(FILL, DTYPE)), path)
        np.testing.assert_array_equal(await view, expected)
        np.testing.assert_array_equal(await streamed(view[3:5]), expected[3:5])
    await array["x"][:2].write(0)
    data = await array
    assert (data["x"][:2] == 0).all()
    assert (data["x"][2:] == 1.5).all()
    assert (data["name"] == "no").all()


@pytest.mark.parametrize("options", FORMATS, ids=str)
async def test_chunks_are_stored_as_long_as_some_field_is_not_fill_value(options):
    store = MemoryStore()
    array = await azarr.create_array(store, shape=SHAPE, dtype=DTYPE, **options)
    documents = len(store._values)
    await array["x"].write(1)
    await array["flag"].write(value=True)
    assert len(store._values) > documents
    await array["x"].write(0)
    assert (await array["flag"]).all()
    await array["flag"].write(value=False)
    assert len(store._values) == documents


@pytest.mark.parametrize("options", FORMATS, ids=str)
async def test_writers_of_different_fields_lose_nothing_of_each_other(make_array, options):
    array, data = await make_array(**options), structures(SHAPE)

    async def write(path):
        view = array
        for name in path:
            view = view[name]
        await view.write(field_of(data, path))

    leaves = [path for path in PATHS if field_of(data, path).dtype.names is None]
    await asyncio.gather(*map(write, leaves))
    np.testing.assert_array_equal(await array, data)


@pytest.mark.parametrize("options", [{}, {"chunks": (2, 3), "shards": (14, 18)}], ids=str)
async def test_a_damaged_chunk_is_not_replaced_by_one_of_its_fields(make_array, options):
    """All of the field is written, but the other fields are still needed."""
    array = await make_array(**options)
    await array.write(structures(SHAPE))
    damaged = b"\xff" * 8 + (await make_array.store.get("a/c/0/0"))[8:]
    await make_array.store.set("a/c/0/0", damaged)
    with pytest.raises(CodecError):
        await array["x"].write(0)
    assert await make_array.store.get("a/c/0/0") == damaged
    await array.write(structures(SHAPE))  # of all fields nothing is needed
    assert (await array == structures(SHAPE)).all()


@pytest.mark.parametrize("options", FORMATS, ids=str)
async def test_a_stream_is_written_to_a_field(make_array, options):
    array, data = await make_array(**options), structures(SHAPE)
    await array.write(data)
    other = await azarr.create_array(MemoryStore(), shape=SHAPE, chunks=(4, 4), dtype="f4")
    await other.write(np.arange(13 * 17, dtype="f4").reshape(SHAPE))
    data["x"] = await other
    report = await array["x"].write_stream(other.stream_chunks())
    assert report.nbytes == data["x"].nbytes
    np.testing.assert_array_equal(await array, data)
    data["pos"]["z"][2:9, 3:] = -1
    await array["pos"]["z"][2:9, 3:].write_stream([((slice(0, 7), slice(0, 14)), np.full((7, 14), -1))])
    np.testing.assert_array_equal(await array, data)


async def test_a_checkpoint_is_of_one_field(make_array):
    array, notes = await make_array(), (MemoryStore(), "note")
    items = [((0, 0), np.ones((5, 4), "f4"))]
    await array["x"].write_stream(items, checkpoint=notes)
    report = await array["x"].write_stream(items, checkpoint=notes, resume=True)
    assert (report.written, report.skipped) == (0, 1)
    with pytest.raises(azarr.CheckpointError):
        await array["flag"].write_stream([((0, 0), np.ones((5, 4), "?"))], checkpoint=notes, resume=True)


@pytest.mark.parametrize("options", FORMATS, ids=str)
async def test_work_on_fields_is_told(make_array, options):
    """By whoever listens to telemetry; what is read and written is the same."""
    array, data = await make_array(**options), structures(SHAPE)
    await array.write(data)
    events = []
    async with azarr.Engine() as engine:
        engine.telemetry.subscribe(events.append)
        told = azarr.AsyncArray(array.store, "a", array.metadata, engine)
        await told["x"].write(7)
        data["x"] = 7
        np.testing.assert_array_equal(await told["pos"]["z"], data["pos"]["z"])
        np.testing.assert_array_equal(await streamed(told["x"]), data["x"])
    np.testing.assert_array_equal(await array, data)
    codecs = {event.operation for event in events if isinstance(event, azarr.telemetry.CodecEvent)}
    assert codecs == {"encode", "decode"}


# --- streaming


async def test_streams_of_a_field(make_array):
    array, data = await make_array(), structures(SHAPE)
    await array.write(data)
    async with array["x"].map_chunks(np.sum) as sums:
        assert np.isclose(sum([chunk.data async for chunk in sums]), data["x"].sum())
    async with array["pos"]["z"].stream_slices(1, thickness=5) as slices:
        assert (np.concatenate([each.data async for each in slices], axis=1) == data["pos"]["z"]).all()
    async with array["x"].stream_chunks(metadata=True) as chunks:
        chunk = await anext(chunks)
        assert chunk.info.decoded_nbytes == 5 * 4 * DTYPE.itemsize  # what was decoded, of which the field is a part
        assert chunk.data.flags.writeable
        assert chunk.data.flags.c_contiguous
        token = chunks.token
    async with array["x"].stream_chunks(start_after=token) as chunks:
        assert (await anext(chunks)).coords == (0, 1)
    with pytest.raises(StreamError, match="other chunks"):
        array["flag"].stream_chunks(start_after=token)


async def test_memory_counts_whole_elements(make_array):
    """They are fetched and decoded, however small the field is."""
    array = await make_array(dtype=np.dtype([("x", "u1"), ("rest", "S999")]))
    async with array["x"].stream_chunks(memory=3 * 20 * 1000) as chunks:
        await anext(chunks)
        stats = chunks.stats
        assert stats.in_flight + stats.buffered <= 3


def test_a_pipeline_of_a_field_travels_and_encodes_nothing():
    whole = asyncio.run(azarr.create_array(MemoryStore(), shape=SHAPE, chunks=(5, 4), dtype=DTYPE)).source.pipeline
    pipeline = pickle.loads(pickle.dumps(FieldPipeline(whole, ("pos", "z"))))
    data = structures((5, 4))
    encoded = pipeline.whole.encode(data)
    np.testing.assert_array_equal(pipeline.decode(encoded), data["pos"]["z"])
    assert (pipeline.spec.dtype, pipeline.spec.nbytes, pipeline.field) == (np.dtype("i8"), 20 * DTYPE.itemsize, ("pos", "z"))
    with pytest.raises(TypeError, match="cannot be encoded alone"):
        pipeline.encode(data["pos"]["z"])
