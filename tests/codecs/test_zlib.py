from __future__ import annotations

import zlib

import numcodecs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.zlib import Zlib
from azarr.errors import CodecError, MetadataError

DATA = bytes(range(256)) * 300


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(-1, 9))
def test_round_trip(data, level):
    encoded = Zlib(level).encode(memoryview(data))
    assert zlib.decompress(encoded) == data
    assert Zlib().decode(bytearray(encoded), len(data)) == data


def test_numcodecs_reads_and_writes_the_same():
    assert numcodecs.Zlib().decode(Zlib().encode(DATA)) == DATA
    assert Zlib().decode(numcodecs.Zlib(level=9).encode(DATA), len(DATA)) == DATA


def test_the_checksum_is_verified():
    value = bytearray(Zlib().encode(DATA))
    value[-1] ^= 1
    with pytest.raises(CodecError) as caught:
        Zlib().decode(value, len(DATA))
    assert isinstance(caught.value.__cause__, zlib.error)


@pytest.mark.parametrize("extra", [b"\0", b"x", Zlib().encode(b"")], ids=["zero", "byte", "stream"])
def test_anything_behind_the_stream_is_refused(extra):
    with pytest.raises(CodecError, match="follow the end"):
        Zlib().decode(Zlib().encode(DATA) + extra, len(DATA))


def test_configuration():
    assert Zlib.from_configuration({}) == Zlib(1)
    assert Zlib.from_configuration({"level": -1}).configuration() == {"level": -1}


@pytest.mark.parametrize("wrong", [{"level": 10}, {"level": -2}, {"level": None}, {"wbits": 15}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="zlib"):
        Zlib.from_configuration(wrong)
