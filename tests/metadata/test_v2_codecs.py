from __future__ import annotations

import json

import numcodecs
import numpy as np
import pytest

from azarr.codecs import Delta, Reshape
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.metadata import v2

DELTA = {"id": "delta", "dtype": "<i4", "astype": "<i4"}
FIXED = {"id": "fixedscaleoffset", "offset": 0, "scale": 10, "dtype": "<f8", "astype": "<i2"}
QUANTIZE = {"id": "quantize", "digits": 2, "dtype": "<f8", "astype": "<f4"}
SHUFFLE = {"id": "shuffle", "elementsize": 4}
ZLIB = {"id": "zlib", "level": 1}


def parse(dtype, filters, compressor=None, *, order="C", chunks=(3, 4), fill_value=0):
    zarray = {"zarr_format": 2, "shape": chunks, "chunks": chunks, "dtype": dtype, "fill_value": fill_value, "order": order}
    return v2.parse_array(json.dumps(zarray | {"filters": filters, "compressor": compressor}).encode(), None, "a")


def names(metadata):
    return [codec.name for codec in metadata.codecs]


def encode_as_v2(chunk, codecs, order):
    """What the specification of v2 says: the memory of the chunk through one codec after the other."""
    value = chunk.reshape(-1, order=order)
    for config in codecs:
        value = numcodecs.get_codec(dict(config)).encode(value)
    return bytes(value) if isinstance(value, bytes) else np.ascontiguousarray(value).tobytes()


CHAINS = [
    ("<i4", [DELTA], None),
    ("<i4", [DELTA, SHUFFLE], ZLIB),
    ("<i4", [SHUFFLE, {"id": "crc32"}], {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}),
    ("<i4", None, {"id": "adler32"}),
    ("<i4", None, DELTA),
    ("<i4", [{"id": "delta", "dtype": "<i4", "astype": "<i2"}], {"id": "zstd", "level": 100}),
    (">i4", [{"id": "delta", "dtype": ">i4", "astype": ">i2"}], ZLIB),
    (">i4", [{"id": "delta", "dtype": ">i4", "astype": "<i2"}, {"id": "delta", "dtype": "<i2", "astype": "|i1"}], ZLIB),
    ("<f8", [FIXED], ZLIB),
    ("<f8", [FIXED, {"id": "delta", "dtype": "<i2", "astype": "<i2"}], {"id": "bz2", "level": 1}),
    ("<f8", [QUANTIZE, {"id": "shuffle", "elementsize": 4}], {"id": "lzma", "format": 1, "check": -1, "preset": 1, "filters": None}),
    ("<f8", [{"id": "astype", "encode_dtype": ">f4", "decode_dtype": "<f8"}], {"id": "fletcher32"}),
    ("<f4", [{"id": "bitround", "keepbits": 3}], {"id": "gzip", "level": 1}),
    ("|b1", [{"id": "packbits"}], ZLIB),
    ("|b1", [{"id": "packbits"}, {"id": "base64"}], {"id": "jenkins_lookup3", "initval": 0, "prefix": None}),
    ("<i4", None, {"id": "crc32c", "location": "start"}),
    ("<i4", None, {"id": "crc32c"}),
]


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize(("dtype", "filters", "compressor"), CHAINS, ids=lambda value: str(value)[:60])
def test_filters_work_on_the_memory_of_a_chunk(dtype, filters, compressor, order):
    chunk = np.asarray(np.random.default_rng(0).integers(0, 2 if dtype == "|b1" else 9, (3, 4))).astype(dtype)
    metadata = parse(dtype, filters, compressor, order=order)
    value = encode_as_v2(chunk, [*(filters or []), *([compressor] if compressor else [])], order)
    pipeline = CodecPipeline(metadata.codecs, metadata.chunk_spec)
    np.testing.assert_allclose(pipeline.decode(value), chunk, rtol=0.1, atol=0.1)
    again = pipeline.decode(pipeline.encode(chunk.astype(metadata.data_type.dtype)))
    np.testing.assert_array_equal(again, pipeline.decode(value))
    # and on the way back the metadata says the same
    stored = v2.parse_array(v2.serialize(metadata)[".zarray"], None, "a")
    assert stored.codecs == metadata.codecs


def test_what_changes_arrays_stands_before_the_codec_that_makes_bytes():
    assert names(parse("<i4", [DELTA, SHUFFLE], ZLIB)) == ["numcodecs.delta", "bytes", "numcodecs.shuffle", "numcodecs.zlib"]
    assert names(parse("<i4", [DELTA], None, order="F")) == ["transpose", "numcodecs.delta", "bytes"]
    assert names(parse("<i4", None, DELTA)) == ["numcodecs.delta", "bytes"]
    assert names(parse("<i4", [DELTA], {"id": "pcodec"})) == ["numcodecs.delta", "numcodecs.pcodec"]
    assert names(parse("<f4", None, {"id": "zfpy", "mode": 4, "tolerance": 0.1})) == ["numcodecs.zfpy"]


def test_a_filter_for_arrays_behind_one_for_bytes_is_refused():
    with pytest.raises(MetadataError, match="from array to array, then to bytes"):
        parse("<i4", [SHUFFLE, DELTA], ZLIB)


@pytest.mark.parametrize(
    ("filters", "endian"),
    [
        ([{"id": "delta", "dtype": ">i4", "astype": ">i4"}], "big"),
        ([{"id": "delta", "dtype": ">i4"}], "big"),
        ([{"id": "delta", "dtype": ">i4", "astype": "<i2"}], "little"),
        ([{"id": "delta", "dtype": ">i4", "astype": "|i1"}], None),
        ([{"id": "astype", "encode_dtype": "<f4", "decode_dtype": ">i4"}], "little"),
        ([{"id": "shuffle"}], "big"),
    ],
)
def test_the_byte_order_is_that_of_the_last_filter_that_names_a_type(filters, endian):
    metadata = parse(">i4", filters)
    serializer = next(codec for codec in metadata.codecs if codec.name == "bytes")
    assert serializer.configuration().get("endian") == endian


def test_a_filter_that_takes_bytes_for_another_order_is_refused():
    with pytest.raises(MetadataError, match="takes '<i4', little-endian, where the elements are big-endian"):
        parse(">i4", [DELTA])


def test_numcodecs_shuffles_four_bytes_unless_told_otherwise():
    assert parse("<i2", [{"id": "shuffle"}]).codecs[-1].configuration() == {"elementsize": 4}


def test_the_compressor_is_what_comes_last_unless_it_changes_arrays():
    document = json.loads(v2.serialize(parse("<i4", [DELTA, SHUFFLE]))[".zarray"])
    assert (document["filters"], document["compressor"]) == ([DELTA], SHUFFLE)
    document = json.loads(v2.serialize(parse("<i4", None, DELTA))[".zarray"])
    assert (document["filters"], document["compressor"]) == ([DELTA], None)
    document = json.loads(v2.serialize(parse("<i4", [DELTA], {"id": "pcodec"}))[".zarray"])
    assert document["filters"] == [DELTA]
    assert document["compressor"]["id"] == "pcodec"


def test_byte_orders_come_back():
    filters = [{"id": "delta", "dtype": ">i4", "astype": ">i2"}]
    document = json.loads(v2.serialize(parse(">i4", filters))[".zarray"])
    assert (document["dtype"], document["filters"]) == (">i4", filters)


def test_codecs_that_v2_does_not_have():
    metadata = parse("<i4", [DELTA])
    for codec in (Reshape((-1,)), Delta("<i4", "<i4")):
        if codec.name == "reshape":
            with pytest.raises(MetadataError, match="cannot express the codec 'reshape'"):
                v2.v2_codecs.serialize((codec, *metadata.codecs), 2)


@pytest.mark.parametrize("config", [{"id": "imagecodecs_nonsense"}, {"id": "zstd2"}])
def test_unknown_codecs_are_named(config):
    with pytest.raises(UnknownExtensionError, match=config["id"]):
        parse("<i4", None, config)
