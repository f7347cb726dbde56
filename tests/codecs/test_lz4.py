from __future__ import annotations

import struct

import numcodecs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lz4 import block

from azarr.codecs.lz4 import Lz4
from azarr.errors import CodecError, MetadataError

DATA = bytes(range(256)) * 300


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(-1, 20))
def test_round_trip_in_the_bytes_of_numcodecs(data, acceleration):
    encoded = Lz4(acceleration).encode(memoryview(data))
    assert encoded == numcodecs.LZ4(acceleration).encode(data)
    assert Lz4().decode(bytearray(encoded), len(data)) == data


def test_numcodecs_reads_the_same():
    assert numcodecs.LZ4().decode(Lz4().encode(DATA)) == DATA


@pytest.mark.parametrize("size", [-1, -(2**31), 0x7E000001])
def test_a_size_that_no_block_has_is_refused(size):
    value = struct.pack("<i", size) + Lz4().encode(DATA)[4:]
    with pytest.raises(CodecError, match="size of an LZ4 block"):
        Lz4().decode(value, 2**40)


def test_a_size_above_the_limit_is_refused_before_decoding(monkeypatch):
    monkeypatch.setattr(block, "decompress", None)
    with pytest.raises(CodecError, match="more than the 9 bytes"):
        Lz4().decode(Lz4().encode(bytes(10)), 9)


@pytest.mark.parametrize("size", [0, 1, len(DATA) - 1, len(DATA) + 1])
def test_a_size_that_the_block_does_not_have_is_refused(size):
    with pytest.raises(CodecError, match="write it again"):
        Lz4().decode(struct.pack("<I", size) + Lz4().encode(DATA)[4:], 2 * len(DATA))


def test_configuration():
    assert Lz4.from_configuration({}) == Lz4(1)
    assert Lz4.from_configuration({"acceleration": 8}).configuration() == {"acceleration": 8}


@pytest.mark.parametrize("wrong", [{"acceleration": 1.0}, {"acceleration": True}, {"level": 1}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="lz4"):
        Lz4.from_configuration(wrong)
