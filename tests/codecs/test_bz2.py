from __future__ import annotations

import bz2

import numcodecs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.bz2 import Bz2
from azarr.errors import CodecError, MetadataError

DATA = bytes(range(256)) * 300


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(1, 9))
def test_round_trip(data, level):
    encoded = Bz2(level).encode(memoryview(data))
    assert bz2.decompress(encoded) == data
    assert Bz2().decode(bytearray(encoded), len(data)) == data


def test_numcodecs_reads_and_writes_the_same():
    assert numcodecs.BZ2().decode(Bz2().encode(DATA)) == DATA
    assert Bz2().decode(numcodecs.BZ2(level=9).encode(DATA), len(DATA)) == DATA


def test_several_streams_are_one_value():
    value = Bz2().encode(DATA[:1000]) + Bz2(9).encode(b"") + Bz2().encode(DATA[1000:])
    assert Bz2().decode(value, len(DATA)) == DATA


def test_a_stream_of_several_blocks_decodes():
    data = bytes(range(251)) * 2000
    assert Bz2().decode(Bz2(1).encode(data), len(data)) == data


@pytest.mark.parametrize("extra", [b"x", b"BZ", b"\0x"])
def test_anything_else_behind_the_last_stream_is_refused(extra):
    with pytest.raises(CodecError, match="write it again"):
        Bz2().decode(Bz2().encode(DATA) + extra, len(DATA))


def test_configuration():
    assert Bz2.from_configuration({}) == Bz2(1)
    assert Bz2.from_configuration({"level": 9}).configuration() == {"level": 9}


@pytest.mark.parametrize("wrong", [{"level": 0}, {"level": 10}, {"level": False}, {"blocks": 1}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="bz2"):
        Bz2.from_configuration(wrong)
