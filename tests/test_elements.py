"""Arrays of every data type: created, written, read in whole and in part, streamed and opened again, in both formats."""

from __future__ import annotations

import datetime as dt
import pickle
import re

import ml_dtypes
import numpy as np
import pytest

import azarr
from azarr.codecs import Bytes, Categorize, Gzip, Json2, Optional, VlenArray, VlenBytes, VlenUtf8, ZarrsVlen, ZarrsVlenV2, Zstd
from azarr.data_types.text import STRING_DTYPE
from azarr.errors import CodecError, MetadataError, WriteError

POINT = np.dtype([("id", "i4"), ("t", "M8[s]"), ("name", "U3"), ("inner", [("x", "f4"), ("y", ">f8")]), ("raw", "V3"), ("s", "S2")])


def objects(*elements):
    array = np.empty(len(elements), object)
    for number, element in enumerate(elements):
        array[number] = element
    return array


def point(number):
    return (number, np.datetime64(number, "s"), "abc"[: number % 4], (number / 2, -number), bytes([number, 0, 0]), b"z")


TEXT = ["", "a", "ü\0", "日本語" * 30, "x\0\0", "emoji 😀", "last"]
RAW = [b"", b"\0", b"a\0", bytes(range(256)), b"xyz", b"\xff\xfe", b"."]
VALUES = {
    "string": (str, TEXT),
    "string name": ("string", TEXT),
    "string dtype": (STRING_DTYPE, np.array(TEXT, STRING_DTYPE)) if STRING_DTYPE.kind == "T" else ("string", TEXT),
    "U": ("<U95", [text.rstrip("\0") for text in TEXT]),
    ">U": (">U5", ["", "a", "ü", "日本語", "12345", "😀", "last"]),
    "S": ("S5", [b"", b"a", b"\xff", b"12345", b"x", b"\0y", b"."]),
    "V": ("V3", np.frombuffer(bytes(range(21)), "V3")),
    "r24": ("r24", np.frombuffer(bytes(range(21)), "V3")),
    "bytes": (bytes, RAW),
    "variable_length_bytes": ("variable_length_bytes", RAW),
    "datetime": ("M8[ns]", np.arange(7).astype("M8[h]").astype("M8[ns]")),
    ">datetime": (">M8[25us]", np.array([0, 1, -1, 2**40, "NaT", 5, 6], "M8[25us]")),
    "timedelta": ("m8[D]", np.array([0, 1, -1, 2**40, "NaT", 5, 6], "m8[D]")),
    "generic": ("m8", np.arange(7).astype("m8")),
    "struct": (POINT, np.array([point(number) for number in range(7)], POINT)),
    "tuples": ([("a", "u1"), ("b", ">i8")], [(number, -number) for number in range(7)]),
    **{name: (name, np.arange(7).astype(getattr(ml_dtypes, name))) for name in ("bfloat16", "float8_e5m2", "float6_e3m2fn", "uint4")},
    "int4": ("int4", np.array([-8, -1, 0, 1, 2, 3, 7]).astype(ml_dtypes.int4)),
    "int2": ("int2", [-2, -1, 0, 1, 0, 1, -2]),
    ">bfloat16": (np.dtype(ml_dtypes.bfloat16).newbyteorder(">"), np.arange(7)),
    "complex_float16": ("complex_float16", np.arange(7) * (1 - 2j)),
    "complex_float8": ("complex_float8_e5m2", np.arange(7) * (1 - 2j)),
    "optional": ({"name": "optional", "configuration": {"name": "uint8", "configuration": {}}}, [0, None, 2, None, None, None, 255]),
    "optional string": ({"name": "optional", "configuration": {"name": "string"}}, ["", None, "b", None, None, None, "ü"]),
}
V3_ONLY = {"r24", "complex_float16", "complex_float8", "optional", "optional string", ">bfloat16"}


def same(found, expected):
    """Equal element for element to the last byte, once what is expected has the data type that was found."""
    if found.dtype.kind in "OT":
        return found.tolist() == list(expected)
    if found.dtype.names == ("real", "imag") and getattr(expected, "dtype", None) != found.dtype:
        return np.array_equal(found["real"].astype("f8") + 1j * found["imag"].astype("f8"), expected)
    if isinstance(expected, list) and found.dtype.names:
        expected = np.array(expected, found.dtype)
    return found.tobytes() == np.asarray(expected).astype(found.dtype).tobytes()


@pytest.mark.parametrize("shards", [None, 4], ids=["plain", "sharded"])
@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("name", VALUES)
async def test_elements_come_back(store, name, zarr_format, shards):
    if zarr_format == 2 and (name in V3_ONLY or shards):
        pytest.skip("v2 has no such thing")
    dtype, value = VALUES[name]
    array = await azarr.create_array(store, "a", shape=7, chunks=2, shards=shards, dtype=dtype, zarr_format=zarr_format)
    await array.write(value)
    assert array.dtype.isnative
    opened = await azarr.open_array(store, "a")
    assert opened.metadata == array.metadata == pickle.loads(pickle.dumps(array.metadata))
    array = opened
    found = await array
    assert found.dtype == array.dtype
    assert same(found, value)
    assert same(await array[1:6:2], list(value)[1:6:2] if isinstance(value, list) else value[1:6:2])
    assert same((await array[3])[None], list(value)[3:4] if isinstance(value, list) else value[3:4])
    streamed = np.empty_like(found)
    async with array[1:].stream_chunks(ordered=False) as chunks:
        async for chunk in chunks:
            streamed[1:][chunk.region] = chunk.data
            assert chunk.data.dtype == array.dtype
    assert same(streamed[1:], list(value)[1:] if isinstance(value, list) else value[1:])
    out = np.empty_like(found)
    assert await array.read(out=out) is out
    assert same(out, value)
    await array[2:5].write(await array[0:3])  # a part of chunks and shards
    assert same(await array, found[[0, 1, 0, 1, 2, 5, 6]])
    like = await azarr.create_array(store, "like", like=array)
    assert like.metadata == array.metadata
    assert same((await like)[:1], np.full(1, array.metadata.chunk_spec.fill, array.dtype))


async def keys(store):
    return [key async for key in store.list_prefix("")]


@pytest.mark.parametrize("zarr_format", [3, 2])
@pytest.mark.parametrize("name", VALUES)
async def test_chunks_of_fill_value_are_not_stored(name, zarr_format):
    if zarr_format == 2 and name in V3_ONLY:
        pytest.skip("v2 has no such thing")
    dtype, value = VALUES[name]
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, shape=7, chunks=2, dtype=dtype, zarr_format=zarr_format)
    before = await keys(store)
    await array.write(await array)
    assert await keys(store) == before
    await array.write(value)
    assert len(await keys(store)) > len(before)


@pytest.mark.parametrize("shape", [(), (3, 4)])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(
    ("dtype", "one"), [(str, "ü\0"), (bytes, b"a\0"), ("optional", 5), (POINT, point(3)), ("U3", "abc"), ("int4", -3)], ids=str
)
async def test_scalars_and_more_dimensions(shape, order, dtype, one):
    dtype = {"name": "optional", "configuration": {"name": "int16"}} if dtype == "optional" else dtype
    array = await azarr.create_array(azarr.MemoryStore(), shape=shape, chunks=2, dtype=dtype, order=order)
    await array.write(one)
    found = await array
    expected = np.empty(shape, array.dtype)
    expected[...] = np.array(one, array.dtype)
    assert found.shape == shape
    assert equal(found, expected)
    async with array.stream_chunks() as chunks:
        async for chunk in chunks:
            assert equal(chunk.data, found[chunk.region or ...])
    if shape:
        found[1, 2] = array.fill_value
        await array.write(found)
        assert equal(await array, found)


def equal(one, other):
    """Equal to the last byte of text, which NumPy's comparison does not look at where it is zero."""
    return one.tolist() == other.tolist() if one.dtype.kind in "OT" else one.tobytes() == other.tobytes()


async def test_zeros_at_the_end_of_a_fill_value_stay():
    for dtype, fill_value, other in ((str, "a\0", "a"), (bytes, b"a\0", b"a")):
        for shards in (None, 4):
            array = await azarr.create_array(azarr.MemoryStore(), shape=4, chunks=2, shards=shards, dtype=dtype, fill_value=fill_value)
            await array[:2].write(other)
            assert (await array).tolist() == [other, other, fill_value, fill_value]
            async with array.stream_chunks() as chunks:
                assert [chunk.data.tolist() async for chunk in chunks] == [[other] * 2, [fill_value] * 2]


async def test_sharded_scalars():
    for dtype, value in (("f8", 2.5), (str, "x"), (bytes, b"y\0")):
        array = await azarr.create_array(azarr.MemoryStore(), shape=(), dtype=dtype, shards=())
        assert (await array)[()] == array.fill_value
        await array.write(value)
        assert (await array)[()] == value


# objects of Zarr v2


@pytest.mark.parametrize("awaited", [False, True])
async def test_arrays_inside_arrays(awaited):
    inner = azarr.MemoryStore()
    store = azarr.LatencyStore(inner, 0.0) if awaited else inner
    array = await azarr.create_array(store, shape=5, chunks=2, dtype=object, filters=[VlenArray(">i4")], zarr_format=2)
    await array.write([[1, 2], [], np.array([3], "i2"), (4, 5, 6), []])
    array = await azarr.open_array(store)
    found = await array
    assert [part.tolist() for part in found] == [[1, 2], [], [3], [4, 5, 6], []]
    assert all(part.dtype == np.int32 for part in found)
    assert (await array[2])[()].tolist() == [3]
    assert [part.tolist() for part in await (await azarr.create_array(azarr.MemoryStore(), like=array))] == [[]] * 5
    scalar = await azarr.create_array(azarr.MemoryStore(), shape=(), dtype=object, serializer=VlenArray("<f8"), zarr_format=2)
    assert (await scalar)[()].tolist() == []
    await scalar.write(objects([1.5, 2]).reshape(1)[0:1].reshape(()))
    assert (await scalar)[()].tolist() == [1.5, 2]
    async with scalar.stream_chunks() as chunks:
        assert [chunk.data[()].tolist() async for chunk in chunks] == [[1.5, 2]]
    with pytest.raises(WriteError, match="does not fit"):
        await array.write(np.arange(5))
    with pytest.raises(WriteError):
        await array.write([[1.5]] * 5)
    with pytest.raises(MetadataError, match="write Zarr v2"):
        await azarr.create_array(store, "c", shape=5, dtype=object, serializer=VlenArray("<i4"))


@pytest.mark.parametrize("shape", [(), (4,), (2, 2)])
async def test_json(shape):
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, shape=shape, chunks=(2,) * len(shape), dtype=object, serializer=Json2(), zarr_format=2)
    assert (await array).tolist() == np.full(shape, None).tolist()
    elements = objects({"a": [1, None]}, [[1, 2], [3]], "text", 1.5)
    value = elements.reshape(shape) if shape else elements[:1].reshape(())
    await array.write(value)
    assert (await (await azarr.open_array(store))).tolist() == value.tolist()
    for wrong in (objects((1, 2)), objects({1: 2}), objects({1, 2}), objects(1 + 2j)):
        with pytest.raises(WriteError, match="JSON"):
            await array.write(wrong[0:1].reshape(()))


async def test_labels():
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, shape=5, chunks=2, dtype=str, filters=[Categorize(("male", "female"))], zarr_format=2)
    await array.write(["male", "female", "", "male", "male"])
    assert (await (await azarr.open_array(store))).tolist() == ["male", "female", "", "male", "male"]
    assert array.dtype == STRING_DTYPE
    with pytest.raises(CodecError, match="none of the labels"):
        await array.write(["male", "femail", "", "", ""])


# codecs other than the usual ones


@pytest.mark.parametrize(
    "serializer",
    [
        VlenUtf8(),
        ZarrsVlenV2(),
        ZarrsVlen((Bytes(), Gzip()), (Bytes(), Zstd())),
        ZarrsVlen((Bytes(),), (Bytes("big"),), "uint32", "end"),
    ],
    ids=repr,
)
async def test_codecs_for_strings(serializer):
    array = await azarr.create_array(azarr.MemoryStore(), shape=7, chunks=3, dtype=str, serializer=serializer)
    await array.write(TEXT)
    assert (await array).tolist() == TEXT


async def test_codecs_that_do_not_fit_are_refused():
    for dtype, serializer in [
        (str, VlenBytes()), (bytes, VlenUtf8()), (str, Bytes()), ("i4", VlenUtf8()), ("i4", VlenBytes()), ("f8", Json2()),
        (str, Optional((Bytes(),), (Bytes(),))), ("i4", ZarrsVlenV2()), (str, VlenArray("<i4")), ("i4", Optional((Bytes(),), (Bytes(),))),
    ]:  # fmt: skip
        with pytest.raises(MetadataError):
            await azarr.create_array(azarr.MemoryStore(), shape=7, dtype=dtype, serializer=serializer)


# what may be written


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        (str, [1, 2]), (str, [None, "a"]), (str, [b"a", b"b"]), (str, 1.5), (str, ["\ud800", "a"]), (str, np.array([1, 2])),
        (bytes, ["a", "b"]), (bytes, [None, b"a"]), (bytes, [1, 2]), (bytes, "a"),
        ("U2", ["abc", "a"]), ("U2", [1, 2]), ("U2", [b"a", b"b"]), ("U2", [None, "a"]),
        ("S2", [b"abc", b"a"]), ("S2", ["a", "b"]), ("S2", 1), ("V2", [b"abc", b"a"]), ("V2", [1, 2]), ("V2", np.zeros(2, "V3")),
        ("M8[s]", [1, 2]), ("M8[s]", ["2020", "2021"]), ("M8[s]", np.array([1, 2], "M8[ms]")), ("M8[ns]", np.array([2**62, 1], "M8[s]")),
        ("M8[s]", np.array([1, 2], "m8[s]")), ("m8[s]", 1), ("M8[D]", [dt.datetime(2020, 1, 1, 5), None]),  # noqa: DTZ001
        ([("a", "u1")], [(300,), (1,)]), ([("a", "u1")], np.zeros(2, [("b", "u1")])), ([("a", "u1")], np.full(2, 300, [("a", "i2")])),
        ([("a", "u1")], [1, 2]), ([("a", "u1"), ("b", "u1")], [(1,), (2,)]), ([("a", "U1")], [("ab",), ("",)]),
        ([("a", "U1")], np.array([("ab",), ("",)], [("a", "U2")])),
        ("int4", [8, 0]), ("int4", 1.5), ("uint2", -1), ("float8_e4m3fn", [1e9, 0]), ("float4_e2m1fn", [np.nan, 0]), ("float6_e2m3fn", 8.0),
        ("float8_e8m0fnu", -1.0), ("bfloat16", 1j), ("bfloat16", "1"), ("complex_float8_e4m3fn", [1e9, 0]), ("complex_float16", "1"),
        ({"name": "optional", "configuration": {"name": "uint8"}}, [None, 256]),
        ({"name": "optional", "configuration": {"name": "uint8"}}, [None, "a"]),
    ],
    ids=repr,
)  # fmt: skip
async def test_values_that_do_not_fit(dtype, value):
    array = await azarr.create_array(azarr.MemoryStore(), shape=2, dtype=dtype)
    with pytest.raises(WriteError):
        await array.write(value)


@pytest.mark.parametrize(
    ("dtype", "value", "expected"),
    [
        (str, np.array(["a", "b"]), ["a", "b"]), (str, "x", ["x", "x"]), (str, np.array(["a", "b"], object), ["a", "b"]),
        (bytes, np.array([b"a", b"b"]), [b"a", b"b"]), (bytes, [bytearray(b"a"), memoryview(b"b")], [b"a", b"b"]),
        ("U3", np.array(["abc", "d"], "U9"), ["abc", "d"]), ("U3", np.array(["a", "b"], STRING_DTYPE), ["a", "b"]),
        ("S3", np.array([b"abc", b"d"], "S9"), [b"abc", b"d"]), ("S3", np.array([b"a", b"b"], object), [b"a", b"b"]),
        ("V2", [b"a", b"bc"], [b"a\0", b"bc"]),
        ("M8[s]", dt.datetime(2020, 1, 1), [dt.datetime(2020, 1, 1)] * 2),  # noqa: DTZ001
        ("M8[ms]", np.array([1, "NaT"], "M8[s]"), [dt.datetime(1970, 1, 1, 0, 0, 1), None]),  # noqa: DTZ001
        ("m8[s]", dt.timedelta(seconds=3), [dt.timedelta(seconds=3)] * 2),
        ([("a", "u1"), ("b", "f4")], np.array([(1, 2)], [("b", "i2"), ("a", "u1")]), [(2, 1.0)] * 2),
        ([("a", "u1"), ("b", "f4")], np.array([(1, 2)], np.dtype([("a", "u1"), ("b", "f4")], align=True)), [(1, 2.0)] * 2),
        ("bfloat16", [1, 2.5], [1, 2.5]), ("float8_e4m3fn", np.array([1, np.nan]), None), ("int4", np.array([-8, 7], "i8"), [-8, 7]),
        ("f4", np.array([1, 2], ml_dtypes.bfloat16), [1, 2]),
        ({"name": "optional", "configuration": {"name": "uint8"}}, np.ma.array([1, 2], mask=[0, 1]), [1, None]),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", repr(value)),  # the same in every process
)  # fmt: skip
async def test_values_that_fit_are_converted(dtype, value, expected):
    array = await azarr.create_array(azarr.MemoryStore(), shape=2, dtype=dtype)
    await array.write(value)
    if expected is not None:
        assert (await array).tolist() == expected


@pytest.mark.parametrize(
    ("dtype", "fill_value", "document"),
    [
        (str, "ü", "ü"), (bytes, b"a\0", "YQA="), ("U3", "abc", "abc"), ("S3", b"ab", "YWI="), ("V2", b"ab", "YWI="),
        ("r16", b"ab", [97, 98]),
        ("M8[s]", 5, 5), ("M8[s]", "NaT", "NaT"), ("M8[s]", None, "NaT"), ("M8[s]", "1970-01-02", 86400),
        ("M8[s]", np.datetime64(3, "s"), 3),
        ("m8[s]", np.timedelta64(3, "m"), 180), ([("a", "u1"), ("t", "M8[s]")], None, {"a": 0, "t": "NaT"}),
        ([("a", "u1"), ("b", "f4")], (1, 2.5), {"a": 1, "b": 2.5}), ([("a", "u1"), ("b", "f4")], {"b": 2.5, "a": 1}, {"a": 1, "b": 2.5}),
        ([("a", "u1")], 0, {"a": 0}), ("bfloat16", 1.5, 1.5), ("bfloat16", np.nan, "NaN"), ("int4", -8, -8),
        ("complex_float16", 1 + 2j, [1.0, 2.0]),
        ({"name": "optional", "configuration": {"name": "uint8"}}, None, None),
        ({"name": "optional", "configuration": {"name": "uint8"}}, 3, [3]),
    ],
    ids=repr,
)  # fmt: skip
async def test_fill_values(dtype, fill_value, document):
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, shape=2, dtype=dtype, fill_value=fill_value)
    assert array.metadata.data_type.serialize_fill_value(array.fill_value) == document
    opened = await azarr.open_array(store)
    assert opened.metadata == array.metadata
    for element in (await opened).reshape(-1):
        assert element == array.fill_value or element.tobytes() == array.fill_value.tobytes()


@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        (str, 1), (str, b"a"), (str, "\ud800"), (bytes, "a"), (bytes, 0), ("U3", "abcd"), ("U3", 1), ("S3", b"abcd"), ("S3", "a"),
        ("V2", b"abc"),
        ("M8[s]", 1.5), ("M8[s]", "never"), ("M8[s]", np.datetime64(1, "ms")), ("M8[s]", 2**63), ([("a", "u1")], 1),
        ([("a", "u1")], (1, 2)),
        ([("a", "u1")], {"b": 1}), ([("a", "u1")], (300,)), ("int4", 8), ("int4", 0.5), ("float4_e2m1fn", 9.0), ("bfloat16", "1"),
        ({"name": "optional", "configuration": {"name": "uint8"}}, 256),
    ],
    ids=repr,
)  # fmt: skip
async def test_fill_values_that_do_not_fit(dtype, fill_value):
    with pytest.raises(MetadataError):
        await azarr.create_array(azarr.MemoryStore(), shape=2, dtype=dtype, fill_value=fill_value)


# memory


async def test_chunks_are_bounded_by_the_engines_limits():
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, shape=4, chunks=4, dtype=str)
    await array.write("a" * 100_000)
    async with azarr.Engine(limits=azarr.Limits(chunk_nbytes=300_000)) as engine:
        small = await azarr.open_array(store, engine=engine)
        with pytest.raises(CodecError, match="300000"):
            await small
        with pytest.raises(CodecError, match="use smaller chunks"):
            await small.write("b" * 100_000)
    assert (await array[0])[()] == "a" * 100_000


async def test_automatic_chunks_take_variable_elements_for_large():
    array = await azarr.create_array(azarr.MemoryStore(), shape=10**6, dtype=str)
    assert 1000 < array.chunks[0] < 20_000
