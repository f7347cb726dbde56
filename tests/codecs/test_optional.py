from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.codecs import Bytes, Gzip, Optional, PackBits, VlenUtf8
from azarr.codecs.pipeline import CodecPipeline
from azarr.data_types import parse_data_type
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec


def pipeline(name, codec, *shape, **options):
    data_type = parse_data_type({"name": "optional", "configuration": {"name": name, "configuration": {}}}, "/")
    return CodecPipeline([codec], ChunkSpec(shape, data_type.dtype, None, **options))


def test_the_sample_of_the_specification():
    sample = bytes.fromhex("0100000000000000 0200000000000000 09 00 05")
    found = pipeline("uint8", Optional((PackBits(),), (Bytes(),)), 4)
    assert found.decode(sample).tolist() == [0, None, None, 5]
    assert bytes(found.encode(np.array([0, None, None, 5], object))) == sample


@given(st.lists(st.none() | st.integers(-(2**15), 2**15 - 1), min_size=1))
def test_numbers(values):
    for codec in (Optional((PackBits(),), (Bytes("big"),)), Optional((Bytes(), Gzip()), (Bytes(), Gzip()))):
        one = pipeline("int16", codec, len(values))
        decoded = one.decode(one.encode(np.array(values, object)))
        assert decoded.tolist() == values
        assert all(element is None or type(element) is np.int16 for element in decoded)


@given(st.lists(st.none() | st.text(st.characters(codec="utf-8")), min_size=1))
def test_strings(values):
    one = pipeline("string", Optional((PackBits(),), (VlenUtf8(), Gzip())), len(values))
    assert one.decode(one.encode(np.array(values, object))).tolist() == values


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\0" * 15, struct.pack("<QQ", 1, 0), struct.pack("<QQ", 1, 1) + b"\1", struct.pack("<QQ", 1, 1) + b"\1ab",
        struct.pack("<QQ", 2**64 - 1, 2**63), struct.pack("<QQ", 1, 1) + b"\3a", struct.pack("<QQ", 1, 1) + b"\0a",
        struct.pack("<QQ", 1, 0) + b"\1",
        struct.pack("<QQ", 2, 1) + b"\1\0a",
    ],
)  # fmt: skip
def test_hostile_bytes(data):
    with pytest.raises(CodecError):
        pipeline("uint8", Optional((PackBits(),), (Bytes(),)), 2).decode(data)


def test_limits_and_elements_that_cannot_be_missing():
    with pytest.raises(CodecError, match="smaller chunks"):
        pipeline("uint8", Optional((Bytes(),), (Bytes(),)), 100, limit=100).encode(np.zeros(100, object))
    for spec in (ChunkSpec((2,), np.dtype(object), ""), ChunkSpec((2,), np.dtype("i4"), np.int32(0))):
        with pytest.raises(MetadataError, match="data type 'optional'"):
            CodecPipeline([Optional((Bytes(),), (Bytes(),))], spec)
    with pytest.raises(MetadataError, match="array into bytes"):
        pipeline("uint8", Optional((Gzip(),), (Bytes(),)), 2)


def test_elements_that_would_take_more_than_a_chunk_may_are_refused():
    data_type = parse_data_type({"name": "optional", "configuration": {"name": "r8000", "configuration": {}}}, "/")
    codec = Optional((PackBits(),), (Bytes(),))
    codec.bind(ChunkSpec((10,), data_type.dtype, None, limit=10_000))
    with pytest.raises(MetadataError, match="would hold 10000 bytes where 9999 are accepted"):
        codec.bind(ChunkSpec((10,), data_type.dtype, None, limit=9999))
