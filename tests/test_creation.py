from __future__ import annotations

import math

import numpy as np
import pytest

import azarr
from azarr.chunk_keys import SeparatedKeys
from azarr.codecs import AsType, Blosc, Bytes, Crc32c, Gzip, Sharding, Transpose, Zstd
from azarr.creation import ArrayOptions, array_metadata, options_like
from azarr.errors import MetadataError, UnknownExtensionError


def metadata(shape=(6, 8), dtype="i4", **options):
    return ArrayOptions(shape=shape, dtype=dtype, **options).metadata()


def bits(value):
    return value.tobytes()


# Shape and chunks


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((6, 8), (6, 8)), ([6, 8], (6, 8)), (7, (7,)), ((), ()), ((0,), (0,)), (np.array([2, 3]), (2, 3)), ((np.int64(4),), (4,))],
)
def test_shapes(shape, expected):
    assert metadata(shape).shape == expected


def test_a_numpy_number_is_a_shape_of_one_dimension():
    assert metadata(np.int64(7)).shape == (7,)


@pytest.mark.parametrize("shape", [(-1,), (2, -3), (2.0,), ("2",), None, "ab", 1.5])
def test_impossible_shapes(shape):
    with pytest.raises(MetadataError, match="shape"):
        metadata(shape)


@pytest.mark.parametrize(
    ("chunks", "expected"), [((2, 3), (2, 3)), ([2, 3], (2, 3)), (5, (5, 5)), (np.int8(5), (5, 5)), ((100, 1), (100, 1)), ("auto", (6, 8))]
)
def test_chunks(chunks, expected):
    assert metadata(chunks=chunks).chunk_grid.chunk_shape == expected


@pytest.mark.parametrize("chunks", [(2,), (2, 3, 4), (0, 1), (-1, 1), (2.5, 1), "big", None, {"a": 1}], ids=repr)
def test_impossible_chunks(chunks):
    with pytest.raises(MetadataError, match="chunks"):
        metadata(chunks=chunks)


def test_one_length_stands_for_all_dimensions_of_a_scalar_too():
    assert metadata((), chunks=3).chunk_grid.chunk_shape == ()


# Data types and fill values


@pytest.mark.parametrize(
    ("dtype", "endian"), [("<i4", "little"), (">i4", "big"), (">c16", "big"), ("u1", None), (bool, None), (float, "little")]
)
def test_the_byte_order_of_the_data_type_is_the_serializers(dtype, endian):
    made = metadata(dtype=dtype)
    assert made.codecs[0] == Bytes(endian)
    assert made.data_type.dtype == np.dtype(dtype).newbyteorder("=")
    assert made.data_type.dtype.isnative


@pytest.mark.parametrize("dtype", ["no-such", object(), "O", "V0", np.longdouble, "r12"])
def test_data_types_that_do_not_exist(dtype):
    with pytest.raises(MetadataError):
        metadata(dtype=dtype)


@pytest.mark.parametrize(
    ("dtype", "fill_value", "expected"),
    [
        ("i4", None, np.int32(0)),
        ("bool", None, np.bool_(False)),
        ("i4", -7, np.int32(-7)),
        ("i4", np.uint8(7), np.int32(7)),
        ("u1", 255, np.uint8(255)),
        ("u8", 2**64 - 1, np.uint64(2**64 - 1)),
        ("i8", -(2**63), np.int64(-(2**63))),
        ("f4", 1, np.float32(1)),
        ("f4", 0.1, np.float32(0.1)),
        ("f4", -0.0, np.float32(-0.0)),
        ("f8", math.nan, np.float64(math.nan)),
        ("f2", math.inf, np.float16(math.inf)),
        ("f8", np.array(0x7FF8000000000123, "u8").view("f8"), np.array(0x7FF8000000000123, "u8").view("f8")[()]),
        ("c8", 1 + 2j, np.complex64(1 + 2j)),
        ("c16", 3.5, np.complex128(3.5)),
        ("bool", True, np.bool_(True)),
        ("bool", 1, np.bool_(True)),
        ("i4", True, np.int32(1)),
        (">i4", 0x01020304, np.int32(0x01020304)),
    ],
)
def test_fill_values(dtype, fill_value, expected):
    fill = metadata(dtype=dtype, fill_value=fill_value).fill_value
    assert fill.dtype == expected.dtype
    assert fill.dtype.isnative
    assert bits(fill) == bits(expected)


@pytest.mark.parametrize(
    ("dtype", "fill_value"),
    [
        ("u1", -1),
        ("u1", 256),
        ("i1", 128),
        ("i8", 2**63),
        ("u8", 2**64),
        ("u8", -1),
        ("bool", 2),
        ("i4", 1.5),
        ("i4", math.nan),
        ("f4", 1j),
        ("f4", "one"),
        ("i4", [1]),
        ("i4", {}),
        ("i4", [[1], [1, 2]]),
    ],
    ids=repr,
)
def test_fill_values_that_the_data_type_does_not_have(dtype, fill_value):
    with pytest.raises(MetadataError, match="fill_value"):
        metadata(dtype=dtype, fill_value=fill_value)


# Codecs


def test_compression_is_zstd_unless_said_otherwise():
    assert metadata().codecs == (Bytes("little"), Zstd(level=3))


@pytest.mark.parametrize(
    ("compressors", "expected"),
    [
        (None, ()),
        ([], ()),
        ("crc32c", (Crc32c(),)),
        (Gzip(level=2), (Gzip(level=2),)),
        ({"name": "gzip", "configuration": {"level": 2}}, (Gzip(level=2),)),
        ([Zstd(level=1), "crc32c"], (Zstd(level=1), Crc32c())),
        ((Crc32c(),), (Crc32c(),)),
    ],
    ids=repr,
)
def test_compressors(compressors, expected):
    assert metadata(compressors=compressors).codecs[1:] == expected


def test_blosc_learns_the_size_of_the_elements():
    (_, blosc) = metadata(dtype="i8", compressors=Blosc("lz4", 5, "shuffle")).codecs
    assert blosc.configuration()["typesize"] == 8


def test_order_f_is_a_transpose():
    assert metadata(order="F").codecs[0] == Transpose((1, 0))
    assert metadata((3,), order="F").codecs[0] == Bytes("little")
    assert metadata((), order="F").codecs[0] == Bytes("little")


def test_filters_come_before_the_serializer():
    made = metadata(filters=[Transpose((1, 0))], serializer={"name": "bytes", "configuration": {"endian": "big"}}, compressors=None)
    assert made.codecs == (Transpose((1, 0)), Bytes("big"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compressors": [Transpose((1, 0))]}, "the order is"),
        ({"compressors": Bytes()}, "exactly one"),
        ({"filters": [Zstd()]}, "the order is"),
        ({"serializer": Zstd()}, "exactly one"),
        ({"filters": [Transpose((0, 1, 2))]}, "permutation"),
        ({"serializer": Bytes(None)}, "needs 'endian'"),
        ({"compressors": {"name": "zstd", "configuration": {"level": 99}}}, "level"),
        ({"compressors": [7]}, "a codec must be"),
        ({"compressors": "gzip"}, "level"),
        ({"compressors": [{"name": "private", "must_understand": False}]}, "unknown codec"),
    ],
    ids=repr,
)
def test_codecs_that_do_not_fit_together(options, message):
    with pytest.raises(MetadataError, match=message):
        metadata(**options)


def test_an_unknown_codec_is_named():
    with pytest.raises(UnknownExtensionError, match="unknown codec 'brotli'") as caught:
        metadata(compressors="brotli")
    assert caught.value.name == "brotli"


# Shards


@pytest.mark.parametrize("shards", [(4, 6), [4, 6], {"shape": (4, 6)}, {"shape": [4, 6], "index_location": "end"}], ids=repr)
def test_shards_hold_whole_chunks(shards):
    made = metadata(chunks=(2, 3), shards=shards)
    (sharding,) = made.codecs
    assert isinstance(sharding, Sharding)
    assert sharding.chunk_shape == (2, 3)
    assert sharding.index_location == "end"
    assert sharding.codecs == (Bytes("little"), Zstd(level=3))
    assert made.chunk_grid.chunk_shape == (4, 6)


def test_one_length_of_shards_stands_for_all_dimensions():
    assert metadata(chunks=2, shards=4).chunk_grid.chunk_shape == (4, 4)


def test_the_index_of_a_shard_can_stand_at_its_start():
    (sharding,) = metadata(chunks=2, shards={"shape": 4, "index_location": "start"}).codecs
    assert sharding.index_location == "start"


def test_the_elements_of_an_inner_chunk_can_be_in_order_f():
    (sharding,) = metadata(chunks=2, shards=4, order="F").codecs
    assert sharding.codecs[0] == Transpose((1, 0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shards": (5, 6)}, "whole number of chunks"),
        ({"shards": (1, 3)}, "whole number of chunks"),
        ({"shards": (4,)}, "dimensions"),
        ({"shards": (0, 6)}, "dimensions"),
        ({"shards": "big"}, "shards"),
        ({"shards": {}}, "shards must be"),
        ({"shards": {"shape": (4, 6), "index": "end"}}, "shards must be"),
        ({"shards": {"shape": (4, 6), "index_location": "middle"}}, "index_location"),
        ({"shards": {"shape": (4, 6), "index_location": ["end"]}}, "index_location"),
        ({"shards": (4, 6), "zarr_format": 2}, "Zarr v2 has no shards"),
    ],
    ids=repr,
)
def test_impossible_shards(options, message):
    with pytest.raises(MetadataError, match=message):
        metadata(chunks=(2, 3), **options)


# Keys, names, formats


@pytest.mark.parametrize(
    ("given", "zarr_format", "expected"),
    [
        (None, 3, SeparatedKeys("default", "/")),
        (None, 2, SeparatedKeys("v2", ".")),
        ("v2", 3, SeparatedKeys("v2", ".")),
        ({"name": "v2"}, 3, SeparatedKeys("v2", ".")),
        ({"name": "v2", "configuration": {}}, 3, SeparatedKeys("v2", ".")),
        ({"configuration": {"separator": "."}}, 3, SeparatedKeys("default", ".")),
        ({"name": "default"}, 3, SeparatedKeys("default", "/")),
        ({"separator": "."}, 3, SeparatedKeys("default", ".")),
        ({"separator": "/"}, 2, SeparatedKeys("v2", "/")),
        ({"name": "v2", "separator": "/"}, 3, SeparatedKeys("v2", "/")),
        (SeparatedKeys("v2", "/"), 3, SeparatedKeys("v2", "/")),
    ],
    ids=repr,
)
def test_chunk_keys(given, zarr_format, expected):
    assert metadata(chunk_key_encoding=given, zarr_format=zarr_format).chunk_key_encoding == expected


@pytest.mark.parametrize(
    "encoding",
    [
        "v4",
        {"name": "v4"},
        {"name": 2},
        {"separator": "-"},
        {"sep": "/"},
        {"name": "v2", "separator": "/", "configuration": {}},
        {"configuration": {"separator": "-"}},
        {"configuration": []},
    ],
    ids=repr,
)
def test_impossible_chunk_keys(encoding):
    with pytest.raises(MetadataError, match="chunk_key_encoding"):
        metadata(chunk_key_encoding=encoding)


def test_dimension_names():
    assert metadata(dimension_names=["y", None]).dimension_names == ("y", None)
    assert metadata().dimension_names is None


@pytest.mark.parametrize("names", [["y"], ["y", "x", "t"], "yx", [1, 2], [b"y", b"x"]], ids=repr)
def test_impossible_dimension_names(names):
    with pytest.raises(MetadataError, match="dimension_names"):
        metadata(dimension_names=names)


@pytest.mark.parametrize("zarr_format", [1, 4, "3", None])
def test_other_formats_are_refused(zarr_format):
    with pytest.raises(MetadataError, match="zarr_format must be 2 or 3"):
        metadata(zarr_format=zarr_format)


def test_attributes_are_copied():
    attributes = {"units": "K"}
    made = metadata(attributes=attributes)
    attributes["units"] = "°C"
    assert made.attributes == {"units": "K"}


# like=


async def make(**options):
    return await azarr.create_array(azarr.MemoryStore(), **options)


async def test_like_takes_everything_but_the_data():
    source = await make(
        shape=(6, 8),
        dtype=">f4",
        chunks=(2, 4),
        shards={"shape": (4, 8), "index_location": "start"},
        fill_value=math.nan,
        compressors=[Gzip(level=2), Crc32c()],
        order="F",
        dimension_names=["y", "x"],
        attributes={"units": "K"},
        chunk_key_encoding={"separator": "."},
    )
    await source.write(1.0)
    twin = await make(like=source)
    assert twin.metadata == source.metadata
    assert np.isnan(await twin.read()).all()


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_like_keeps_the_format(zarr_format):
    source = await make(shape=(6, 8), dtype=">i2", chunks=4, order="F", fill_value=3, zarr_format=zarr_format)
    assert (await make(like=source)).metadata == source.metadata


async def test_what_is_given_besides_like_wins():
    source = await make(shape=(6, 8), dtype="i4", chunks=(2, 4), attributes={"units": "K"}, fill_value=5)
    other = await make(like=source, shape=(60, 80), chunks=(20, 40), attributes={}, compressors=None, fill_value=7)
    assert other.shape == (60, 80)
    assert other.chunks == (20, 40)
    assert other.attrs == {}
    assert other.metadata.codecs == (Bytes("little"),)
    assert other.fill_value == 7
    assert other.dtype == source.dtype


@pytest.mark.parametrize(("before", "after"), [("u1", "f4"), ("f4", "u1"), ("<i4", ">i4"), (">i4", "<f8"), ("bool", "i2")])
async def test_like_with_another_data_type(before, after):
    source = await make(shape=(6, 8), dtype=before, chunks=(2, 4))
    other = await make(like=source, dtype=after)
    assert other.dtype == np.dtype(after).newbyteorder("=")
    assert other.chunks == (2, 4)
    assert other.metadata.codecs == metadata(dtype=after).codecs


@pytest.mark.parametrize("before", ["C", "F"])
@pytest.mark.parametrize("after", ["C", "F"])
async def test_like_with_another_order(before, after):
    source = await make(shape=(6, 8), dtype="i4", order=before)
    assert (await make(like=source, order=after)).metadata.codecs == metadata(order=after).codecs


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 2)])
async def test_like_with_another_format(before, after):
    source = await make(shape=(6, 8), dtype="i4", chunks=(2, 4), zarr_format=before)
    other = await make(like=source, zarr_format=after)
    assert other.metadata.zarr_format == after
    assert other.chunks == (2, 4)


async def test_options_like_an_array_make_its_metadata():
    source = await make(shape=(4, 4), dtype="i2", chunks=2, shards=4)
    again = ArrayOptions(shape=(4, 4), **options_like(source.metadata)).metadata()
    assert again == source.metadata


@pytest.mark.parametrize("options", [{}, {"shape": (3,)}, {"dtype": "i4"}], ids=repr)
async def test_shape_and_dtype_are_needed(options):
    with pytest.raises(MetadataError, match="needs shape and dtype"):
        await make(**options)


async def test_an_unknown_option_is_named():
    with pytest.raises(TypeError, match=r"no option \['compressor'\]"):
        await make(shape=(3,), dtype="i4", compressor=None)


BLOSC = {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 1, "shuffle": "shuffle", "typesize": 8, "blocksize": 0}}


@pytest.mark.parametrize(
    ("options", "like", "typesize"),
    [
        ({}, {"dtype": "i2"}, 2),
        ({}, {"dtype": "f8"}, 8),
        ({}, {"dtype": "i2", "zarr_format": 2}, 2),
        ({"chunks": 2, "shards": 4}, {"dtype": "i2"}, 2),
        ({}, {"shape": 9}, 8),
        ({"compressors": {**BLOSC, "configuration": {**BLOSC["configuration"], "typesize": 3}}}, {"dtype": "i2"}, 3),
        ({}, {"dtype": "i2", "compressors": BLOSC}, 8),
        ({"dtype": "f4", "filters": [AsType("<f8", "<f4")]}, {"filters": []}, 4),
    ],
)
def test_the_typesize_of_blosc_follows_another_data_type(options, like, typesize):
    first = array_metadata({"shape": 8, "dtype": "f8", "compressors": BLOSC, **options})
    made = array_metadata(like, like=first)
    codecs = made.codecs[0].codecs if "shards" in options else made.codecs
    assert codecs[-1].typesize == typesize
