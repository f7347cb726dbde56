from __future__ import annotations

import asyncio
import itertools
import math
import pickle

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr
from azarr.codecs import Blosc, Bz2, Crc32c, Gzip, Lz4, Transpose, Zlib, Zstd
from azarr.errors import (
    ChecksumError,
    CodecError,
    MetadataError,
    NodeExistsError,
    NodeNotFoundError,
    PreconditionFailedError,
    SelectionError,
    StoreError,
    StreamError,
    ThrottledError,
    TransientStoreError,
    UnknownExtensionError,
    WriteError,
    ZarrError,
)

DTYPES = ["bool", "<i1", ">u2", "<i4", ">i4", "<u8", "<f2", ">f4", "<f8", ">c8", "<c16"]
COMPRESSORS = [None, "auto", Gzip(1), Zstd(1, checksum=True), Blosc("lz4", 1, "shuffle"), Blosc("zstd", 1, "bitshuffle")]
COMPRESSORS_V2 = [*COMPRESSORS, Zlib(1), Bz2(1), Lz4(1), [Zlib(1), Gzip(1)]]
COMPRESSORS_V3 = [*COMPRESSORS, Crc32c(), [Zstd(1), Crc32c()], [Gzip(1), Zstd(1)]]


def values_of(dtype):
    """A few values that tell bit patterns apart, some of them likely fill values."""
    special = [0, 0, 1, 1] if dtype.kind in "biu" else [0.0, 0.0, -0.0, math.nan, 1.5, -2.25]
    return np.array(special, dtype)


def same(left, right):
    return left.shape == right.shape and left.dtype == right.dtype and left.tobytes() == right.tobytes()


def part_of(array, key):
    """``array[key]``, always as a view: an ellipsis keeps a single element an array."""
    items = key if isinstance(key, tuple) else (key,)
    return array[items if any(item is Ellipsis for item in items) else (*items, ...)]


def out_of(shape, dtype, kind):
    """An array to read into; its elements lie in memory as ``kind`` says."""
    if kind == "F":
        return np.empty(shape, dtype, order="F")
    if kind == "stepped":
        return np.empty([2 * length for length in shape], dtype)[(*(slice(None, None, 2) for _ in shape), ...)]
    if kind == "reversed":
        return np.empty(shape, dtype)[(*(slice(None, None, -1) for _ in shape), ...)]
    if kind == "part":
        return np.empty([length + 2 for length in shape], dtype)[(*(slice(1, -1) for _ in shape), ...)]
    if kind == "fields":
        return np.empty(shape, np.dtype([("before", "u1"), ("here", dtype)]))["here"]
    return np.empty(shape, dtype)


@pytest.fixture
async def engines():
    async with (
        azarr.Engine() as usual,
        azarr.Engine(executor=azarr.InlineExecutor()) as inline,
        azarr.Engine(concurrency=1, memory=1, workers=1) as small,
    ):
        yield [usual, inline, small]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Functions that make an empty store."""
    root, count = tmp_path_factory.mktemp("arrays"), itertools.count()
    return {
        "memory": azarr.MemoryStore,
        "latency": lambda: azarr.LatencyStore(azarr.MemoryStore(), 0),
        "local": lambda: azarr.LocalStore(root / str(next(count)), durability="none"),
    }


@st.composite
def any_options(draw):
    """Options of ``create_array``."""
    zarr_format = draw(st.sampled_from([2, 3]))
    lengths = draw(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 5)), max_size=3))
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    chunks = tuple(chunk for _, chunk in lengths)
    options = {
        "shape": tuple(length for length, _ in lengths),
        "chunks": chunks,
        "dtype": dtype,
        "zarr_format": zarr_format,
        "order": draw(st.sampled_from("CF")),
        "compressors": draw(st.sampled_from(COMPRESSORS_V2 if zarr_format == 2 else COMPRESSORS_V3)),
        "fill_value": draw(st.sampled_from(values_of(dtype).tolist()) | st.none()),
        "chunk_key_encoding": {"separator": draw(st.sampled_from("/."))},
    }
    if zarr_format == 3 and draw(st.booleans()):
        location = draw(st.sampled_from(["start", "end"]))
        options["shards"] = {"shape": tuple(chunk * draw(st.integers(1, 3)) for chunk in chunks), "index_location": location}
    return options


@pytest.mark.parametrize("kind", ["memory", "latency", "local"])
@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
async def test_reading_and_writing_equal_numpy(stores, engines, basic_keys, kind, data):
    options = data.draw(any_options())
    engine = data.draw(st.sampled_from([None, *engines]))
    store = stores[kind]()
    array = await azarr.create_array(store, "a", engine=engine, **options)
    dtype = array.dtype
    expected = np.full(array.shape, array.fill_value, dtype)
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))

    def select(most):
        """A view and the same part of ``expected``."""
        view, part = array, expected
        for _ in range(data.draw(st.integers(0, most))):
            key = data.draw(basic_keys(part.shape))
            view, part = view[key], part_of(part, key)
        return view, part

    for _ in range(data.draw(st.integers(1, 3))):
        view, part = select(2)
        shape = data.draw(st.sampled_from([part.shape, part.shape[1:], (1,) * part.ndim, ()]))
        value = random.choice(values_of(dtype), shape)
        if data.draw(st.booleans()):
            value = np.asarray(value, dtype.newbyteorder())
        part[...] = value
        await view.write(value)
        assert same(await array.read(), expected)

    again = await azarr.open_array(store, "a", zarr_format=options["zarr_format"], engine=engine)
    assert again.metadata == array.metadata
    for _ in range(2):
        view, part = select(3)
        assert (view.shape, view.ndim, view.size, view.nbytes, view.dtype) == (part.shape, part.ndim, part.size, part.nbytes, dtype)
        assert same(await view, part)
        out = out_of(part.shape, dtype, data.draw(st.sampled_from(["C", "F", "stepped", "reversed", "part", "fields"])))
        assert await view.read(out=out) is out
        assert same(out, part)


# Views


async def make(shape=(6, 8), dtype="i4", *, store=None, **options):
    return await azarr.create_array(azarr.MemoryStore() if store is None else store, shape=shape, dtype=dtype, **options)


async def numbered(**options):
    array = await make(chunks=(2, 3), **options)
    await array.write(np.arange(48).reshape(6, 8))
    return array


async def test_selecting_does_no_io(faulty_store):
    array = await make(store=faulty_store)
    faulty_store.failing |= {"c/0/0", "zarr.json"}
    view = array[1:][..., 2][::2]
    assert isinstance(view, azarr.ArrayView)
    assert view.array is array
    assert (view.shape, view.ndim, view.size, view.nbytes, view.dtype) == ((3,), 1, 3, 12, np.dtype("i4"))


async def test_awaiting_reads():
    array = await numbered()
    assert np.array_equal(await array, np.arange(48).reshape(6, 8))
    assert np.array_equal(await array[1, 2:5], [10, 11, 12])
    view = array[-1]
    assert np.array_equal(await view, await view)


async def test_one_element_is_an_array_without_dimensions():
    array = await numbered()
    element = await array[2, 3]
    assert isinstance(element, np.ndarray)
    assert element.shape == ()
    assert element == 19


async def test_what_is_read_belongs_to_the_reader():
    array = await numbered(compressors=None)
    for view in (array, array[:2, :3], array[0, 0]):
        first = await view
        assert first.flags.writeable
        first[...] = -1
    assert np.array_equal(await array, np.arange(48).reshape(6, 8))


async def test_many_readers_at_once():
    array = await numbered()
    rows = await asyncio.gather(*(array[row].read() for row in range(6) for _ in range(5)))
    assert np.array_equal(np.reshape(rows, (6, 5, 8))[:, 4], np.arange(48).reshape(6, 8))


@pytest.mark.parametrize("key", [6, -7, (0, 8), (0, 0, 0), slice(None, None, 0), None, "name", [0], 1.5, True])
async def test_a_selection_that_is_not_there_is_an_error(key):
    array = await make()
    with pytest.raises(SelectionError):
        array[key]
    with pytest.raises(IndexError):
        array[key]


async def test_a_view_can_be_used_as_a_key():
    array = await make()
    view = array[0]
    assert {view: 1, array: 2}[view] == 1
    assert array[0] != view


async def test_numpy_is_told_to_await():
    array = await make()
    for what in (array, array[0]):
        with pytest.raises(TypeError, match="await"):
            np.asarray(what)
        with pytest.raises(TypeError, match="await"):
            np.asarray(what, dtype="f4")
        with pytest.raises(TypeError, match="await"):
            np.add(what, 1)


async def test_iteration_is_refused():
    array = await make()
    with pytest.raises(TypeError, match="not iterable"):
        iter(array)
    with pytest.raises(TypeError):
        list(array[0])
    with pytest.raises(TypeError):
        0 in array  # noqa: B015 - the comparison is what is tested


@pytest.mark.parametrize(
    ("out", "what"),
    [
        (np.empty((8, 6), "i4"), "shape"),
        (np.empty((6, 8, 1), "i4"), "shape"),
        (np.empty((6, 8), "i8"), "int64"),
        (np.empty((6, 8), np.dtype("i4").newbyteorder()), "data type"),
        (np.broadcast_to(np.int32(0), (6, 8)), "writable"),
    ],
    ids=["shape", "ndim", "dtype", "byte order", "read-only"],
)
async def test_an_out_that_does_not_fit_is_refused(out, what):
    array = await numbered()
    with pytest.raises(WriteError, match=what):
        await array.read(out=out)


async def test_an_out_that_is_no_array_is_refused():
    array = await numbered()
    for out in ([0] * 48, bytearray(192), 0):
        with pytest.raises((WriteError, TypeError)):
            await array.read(out=out)


async def test_what_out_has_around_is_left_alone():
    array = await numbered()
    around = np.full((10, 12), -1, "i4")
    await array.read(out=around[2:8, 2:10])
    assert np.array_equal(around[2:8, 2:10], np.arange(48).reshape(6, 8))
    around[2:8, 2:10] = -1
    assert (around == -1).all()


# What an array says of itself


async def test_properties():
    array = await make(
        (7, 10),
        ">f4",
        chunks=(2, 3),
        shards=(4, 6),
        fill_value=1.5,
        dimension_names=["y", None],
        attributes={"units": "K"},
    )
    assert (array.shape, array.ndim, array.size, array.nbytes) == ((7, 10), 2, 70, 280)
    assert (array.chunks, array.shards, array.nchunks) == ((2, 3), (4, 6), 16)
    assert array.dtype == np.dtype("=f4")
    assert array.fill_value == np.float32(1.5)
    assert array.dimension_names == ("y", None)
    assert array.attrs == {"units": "K"}
    assert array.array is array
    with pytest.raises(TypeError):
        array.attrs["units"] = "°C"


async def test_an_array_without_shards_has_none():
    array = await make(chunks=(4, 4))
    assert array.shards is None
    assert array.nchunks == 4
    assert (await make((0, 5))).nchunks == 0
    assert (await make(())).nchunks == 1


async def test_a_whole_shard_codec_is_still_read_as_a_whole():
    inner = {"chunk_shape": [2, 2], "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}], "index_codecs": ["crc32c"]}
    inner["index_codecs"] = [{"name": "bytes", "configuration": {"endian": "little"}}, "crc32c"]
    sharding = {"name": "sharding_indexed", "configuration": inner}
    for options in ({"compressors": Gzip(1)}, {"filters": [Transpose((1, 0))], "compressors": None}):
        array = await make((8, 8), chunks=(4, 4), serializer=sharding, **options)
        assert (array.chunks, array.shards) == ((4, 4), None)
        await array.write(np.arange(64).reshape(8, 8))
        await array[1:3, 2:6].write(0)
        expected = np.arange(64).reshape(8, 8)
        expected[1:3, 2:6] = 0
        assert np.array_equal(await array, expected)


async def test_nested_shards():
    inner = {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [1, 2],
            "codecs": [{"name": "bytes", "configuration": {"endian": "big"}}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, "crc32c"],
        },
    }
    array = await make((8, 8), chunks=(2, 4), shards=(4, 8), serializer=inner, compressors=None)
    await array.write(np.arange(64).reshape(8, 8))
    await array[3, 5].write(-5)
    again = await azarr.open_array(array.store)
    expected = np.arange(64).reshape(8, 8)
    expected[3, 5] = -5
    assert np.array_equal(await again, expected)
    assert np.array_equal(await again[2:7:3, 1:6], expected[2:7:3, 1:6])


async def test_the_repr_is_useful_and_tells_no_secrets():
    array = await make((6, 8), "f4", chunks=(2, 4), shards=(4, 8), attributes={"token": "hunter2"}, fill_value=42)
    await array.write(1)
    shown = repr(array)
    for part in ("AsyncArray", "(6, 8)", "float32", "(2, 4)", "shards=(4, 8)", "MemoryStore"):
        assert part in shown
    assert "hunter2" not in shown
    assert len(shown) < 200
    below = await azarr.create_array(azarr.MemoryStore(), "some/array", shape=3, dtype="i4")
    assert "'some/array'" in repr(below)
    assert "shards" not in repr(below)
    assert repr(below[1:]) == "<ArrayView of 'some/array' shape=(2,) dtype=int32>"


async def test_an_array_uses_the_engine_it_was_opened_with():
    async with azarr.Engine(workers=1) as engine:
        array = await make(engine=engine)
        assert array.engine is engine
        assert (await azarr.open_array(array.store, engine=engine)).engine is engine
    assert (await make()).engine is (await make()).engine


def test_one_array_serves_one_loop_after_another():
    store = azarr.MemoryStore()
    array = asyncio.run(make(store=store))
    for number in range(3):
        asyncio.run(array.write(number))
        assert (asyncio.run(array.read()) == number).all()


def test_arrays_on_disk_survive_pickling(tmp_path):
    array = asyncio.run(azarr.create_array(tmp_path, "a", shape=(4, 4), dtype="i2", chunks=2, shards=4))
    asyncio.run(array.write(7))
    again = pickle.loads(pickle.dumps(array))
    assert again.metadata == array.metadata
    assert (asyncio.run(again[1:].read()) == 7).all()


# Errors


@pytest.mark.parametrize(
    ("error", "fields"),
    [
        (StoreError("m", key="k"), {"key": "k"}),
        (TransientStoreError("m", key="k"), {"key": "k"}),
        (ThrottledError("m", key="k", retry_after=1.5), {"key": "k", "retry_after": 1.5}),
        (PreconditionFailedError("m", key="k"), {"key": "k"}),
        (MetadataError("m", path="p"), {"path": "p"}),
        (UnknownExtensionError("m", path="p", name="n"), {"path": "p", "name": "n"}),
        (NodeNotFoundError("m", path="p"), {"path": "p"}),
        (NodeExistsError("m", path="p"), {"path": "p"}),
        (CodecError("m", codec="c", coords=(1, 2)), {"codec": "c", "coords": (1, 2)}),
        (ChecksumError("m", codec="c", coords=(1, 2)), {"codec": "c", "coords": (1, 2)}),
        (SelectionError("m"), {}),
        (WriteError("m"), {}),
        (StreamError("m", coords=(1, 2)), {"coords": (1, 2)}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_survive_pickling_with_their_fields_and_cause(error, fields):
    error.__cause__ = OSError(5, "input/output error")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert isinstance(again, ZarrError)
    assert str(again) == str(error)
    assert {name: getattr(again, name) for name in fields} == fields
    assert isinstance(again.__cause__, OSError)
    assert again.__cause__.errno == 5


@pytest.mark.parametrize(
    ("error", "also"),
    [
        (NodeNotFoundError("m"), FileNotFoundError),
        (NodeExistsError("m"), FileExistsError),
        (SelectionError("m"), IndexError),
        (WriteError("m"), ValueError),
        (UnknownExtensionError("m"), MetadataError),
        (ChecksumError("m"), CodecError),
        (ThrottledError("m"), StoreError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_errors_are_also_what_python_calls_them(error, also):
    assert isinstance(error, also)


def test_a_codec_error_says_where_and_which():
    assert str(CodecError("is damaged", codec="zstd", coords=(1, 2))) == "chunk (1, 2): zstd: is damaged"
    assert str(CodecError("is damaged")) == "is damaged"
