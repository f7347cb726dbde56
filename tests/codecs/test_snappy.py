from __future__ import annotations

import cramjam
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.snappy import Snappy
from azarr.errors import CodecError, MetadataError

DATA = bytes(range(256)) * 300


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_round_trip_with_another_library(data):
    assert Snappy().decode(Snappy().encode(data), len(data)) == data
    assert bytes(cramjam.snappy.decompress_raw(Snappy().encode(data))) == data
    assert Snappy().decode(bytes(cramjam.snappy.compress_raw(data)), len(data)) == data


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_buffer(kind):
    assert Snappy().decode(kind(Snappy().encode(kind(DATA))), len(DATA)) == DATA


def test_a_size_above_the_limit_is_refused_before_decoding():
    with pytest.raises(CodecError, match="more than the 9 bytes"):
        Snappy().decode(Snappy().encode(bytes(10)), 9)


@pytest.mark.parametrize("value", [b"", b"\x80", b"\xff" * 5, b"\xff\xff\xff\xff\x7f"])
def test_values_without_a_size_are_refused(value):
    with pytest.raises(CodecError, match="size of a Snappy block"):
        Snappy().decode(value, 2**40)


def test_damage_is_refused():
    with pytest.raises(CodecError, match="cannot decompress"):
        Snappy().decode(Snappy().encode(DATA)[:-1], len(DATA))


def test_configuration():
    assert Snappy.from_configuration({}).configuration() == {}
    with pytest.raises(MetadataError, match="snappy"):
        Snappy.from_configuration({"level": 1})
