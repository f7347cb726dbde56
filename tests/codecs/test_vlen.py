from __future__ import annotations

import pickle
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.codecs import Bytes, Gzip, Sharding, VlenArray, VlenBytes, VlenUtf8, ZarrsVlen, ZarrsVlenV2, Zstd
from azarr.codecs.numcodecs_module import numcodecs_module
from azarr.codecs.pipeline import CodecPipeline
from azarr.data_types.raw import Bytes as BytesType
from azarr.data_types.text import String
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

TEXTS = st.lists(st.text(st.characters(codec="utf-8"), max_size=20), min_size=1, max_size=20)
RAWS = st.lists(st.binary(max_size=20), min_size=1, max_size=20)


def spec_of(data_type, count, **options):
    return ChunkSpec((count,), data_type.dtype, data_type.zero, **options)


def array_of(data_type, elements):
    array = np.empty(len(elements), object)
    for number, element in enumerate(elements):
        array[number] = element
    return array.astype(data_type.dtype)


def round_trip(codecs, data_type, elements, **options):
    pipeline = CodecPipeline(codecs, spec_of(data_type, len(elements), **options))
    encoded = pipeline.encode(array_of(data_type, elements))
    decoded = pickle.loads(pickle.dumps(pipeline)).decode(encoded)
    assert decoded.dtype == data_type.dtype
    assert decoded.tolist() == elements
    out = np.empty(len(elements), data_type.dtype)
    pipeline.decode_into(encoded, out)
    assert out.tolist() == elements
    return bytes(encoded)


@given(TEXTS)
def test_strings(elements):
    encoded = round_trip([VlenUtf8()], String(), elements)
    ours = numcodecs_module("vlen").VLenUTF8()
    assert ours.decode(encoded).tolist() == elements
    assert bytes(ours.encode(np.array(elements, object))) == encoded == round_trip([ZarrsVlenV2()], String(), elements)
    round_trip([VlenUtf8(), Zstd(), Gzip()], String(), elements)
    round_trip([ZarrsVlen((Bytes(), Gzip()), (Bytes("big"), Gzip()), "uint32", "end")], String(), elements)
    round_trip([Sharding((1,), (VlenUtf8(),))], String(), elements)


@given(RAWS)
def test_bytes(elements):
    encoded = round_trip([VlenBytes()], BytesType(), elements)
    assert encoded == round_trip([ZarrsVlenV2()], BytesType(), elements)
    assert numcodecs_module("vlen").VLenBytes().decode(encoded).tolist() == elements
    round_trip([VlenBytes(), Zstd()], BytesType(), elements)
    round_trip([ZarrsVlen((Bytes(),), (Bytes(),))], BytesType(), elements)
    round_trip([Sharding((1,), (VlenBytes(), Gzip()))], BytesType(), elements)


@pytest.mark.parametrize("dtype", ["<i4", ">i4", "|u1", "<f8", ">M8[s]", "<U3"])
def test_arrays(dtype):
    codec = VlenArray(dtype)
    elements = [np.arange(count).astype(np.dtype(dtype).newbyteorder("=")) for count in (0, 1, 5)]
    array = np.empty(3, object)
    array[:] = elements
    pipeline = CodecPipeline([codec], spec_of(codec.object_type, 3))
    encoded = pipeline.encode(array)
    contents = np.array([element.astype(dtype).tobytes() for element in elements], object)
    assert bytes(encoded) == bytes(numcodecs_module("vlen").VLenBytes().encode(contents))
    for found, expected in zip(pipeline.decode(encoded), elements, strict=True):
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected)


@pytest.mark.parametrize("dtype", ["|O", "", "nope", "S0", None, 3, [["a", "<i4"]], "i4,i4"])
def test_arrays_need_a_data_type_of_a_fixed_size(dtype):
    with pytest.raises(MetadataError, match="dtype must be"):
        VlenArray.from_configuration({"dtype": dtype})


def payload(count, *parts):
    return struct.pack("<I", count) + b"".join(struct.pack("<I", length) + content for length, content in parts)


A, B = (1, b"a"), (2, "ü".encode())
HOSTILE = {
    "empty": b"",
    "header": b"\2\0\0",
    "no elements": payload(0),
    "fewer": payload(1, A),
    "more": payload(3, A, B, A),
    "count lies": payload(2, A),
    "count lies upwards": payload(3, A, B),
    "enormous count": payload(2**32 - 1, A, B),
    "cut off": payload(2, A, B)[:-1],
    "cut off in a length": payload(2, A, B)[:-4],
    "bytes behind": payload(2, A, B) + b"\0",
    "long length": payload(2, A, (2**31 - 1, b"b")),
    "enormous length": payload(2, A, (2**32 - 1, b"b")),
    "length backwards": payload(2, (2**32 - 4, b""), A),
    "short length": payload(2, A, (1, b"bc")),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(("codec", "data_type"), [(VlenUtf8(), String()), (VlenBytes(), BytesType()), (ZarrsVlenV2(), String())], ids=repr)
def test_hostile_bytes(codec, data_type, data):
    pipeline = CodecPipeline([codec], spec_of(data_type, 2))
    assert pipeline.decode(payload(2, A, B)).tolist() in ([b"a", B[1]], ["a", "ü"])
    with pytest.raises(CodecError) as caught:
        pipeline.decode(data)
    assert caught.value.codec == codec.name


@pytest.mark.parametrize("raw", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xf5\x80\x80\x80"])
def test_what_is_not_utf8(raw):
    for codec in (VlenUtf8(), ZarrsVlenV2()):
        with pytest.raises(CodecError, match="not UTF-8"):
            CodecPipeline([codec], spec_of(String(), 1)).decode(payload(1, (len(raw), raw)))


@given(st.binary(max_size=60), st.sampled_from([VlenUtf8(), VlenBytes(), VlenArray("<i4"), ZarrsVlen((Bytes(),), (Bytes(),))]))
def test_any_bytes_are_decoded_or_refused(data, codec):
    pipeline = CodecPipeline([codec], spec_of(codec.object_type, 2))
    try:
        decoded = pipeline.decode(data)
    except CodecError:
        return
    assert decoded.shape == (2,)
    assert bytes(pipeline.encode(decoded)) == data or isinstance(codec, ZarrsVlen)


def test_bombs_cost_no_more_than_the_limit():
    bomb = Zstd(19).encode(payload(1, (2**26, bytes(2**26))))
    assert len(bomb) < 10_000
    pipeline = CodecPipeline([VlenUtf8(), Zstd()], spec_of(String(), 1, limit=2**20))
    with pytest.raises(CodecError, match=str(2**20)):
        pipeline.decode(bomb)
    with pytest.raises(CodecError, match="use smaller chunks"):
        pipeline.encode(array_of(String(), ["a" * 2**20]))
    offsets = struct.pack("<QQQ", 16, 0, 2**62)
    with pytest.raises(CodecError, match="decode to more than"):
        CodecPipeline([ZarrsVlen((Bytes(),), (Bytes(),))], spec_of(String(), 1)).decode(offsets)


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 7, struct.pack("<Q", 2**63), struct.pack("<QQQ", 16, 0, 3) + b"ab", struct.pack("<QQQ", 16, 0, 1) + b"ab",
        struct.pack("<QQQ", 16, 1, 1) + b"a", struct.pack("<QQQ", 16, 2, 1) + b"ab", struct.pack("<QQ", 8, 0),
        struct.pack("<QQQ", 16, 0, 1) + b"\xff",
    ],
)  # fmt: skip
def test_hostile_offsets(data):
    with pytest.raises(CodecError):
        CodecPipeline([ZarrsVlen((Bytes(),), (Bytes(),))], spec_of(String(), 1)).decode(data)


def test_half_surrogates_cannot_be_encoded():
    chunk = np.array(["\ud800"], object)
    for codec in (VlenUtf8(), ZarrsVlenV2(), ZarrsVlen((Bytes(),), (Bytes(),))):
        with pytest.raises(CodecError, match="cannot encode"):
            CodecPipeline([codec], ChunkSpec((1,), np.dtype(object), "")).encode(chunk)


@pytest.mark.parametrize(
    "configuration",
    [
        {"index_data_type": "int8"}, {"index_data_type": ["uint32"]}, {"index_location": "middle"}, {"index_location": None}, {"other": 1},
    ],
)  # fmt: skip
def test_configurations_of_zarrs_vlen(configuration):
    legal = {"data_codecs": (), "index_codecs": (), "index_data_type": "uint32"}
    with pytest.raises(MetadataError):
        ZarrsVlen.from_configuration({**legal, **configuration})
    for codec in (VlenUtf8, VlenBytes, ZarrsVlenV2):
        with pytest.raises(MetadataError):
            codec.from_configuration(configuration)
