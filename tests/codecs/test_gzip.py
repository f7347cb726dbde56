from __future__ import annotations

import gzip

import numcodecs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.gzip import Gzip
from azarr.errors import CodecError, MetadataError

DATA = bytes(range(256)) * 300


@settings(deadline=None)
@given(st.binary(max_size=3000), st.integers(0, 9))
def test_round_trip(data, level):
    encoded = Gzip(level).encode(memoryview(data))
    assert gzip.decompress(encoded) == data
    assert Gzip().decode(bytearray(encoded), len(data)) == data


def test_numcodecs_reads_and_writes_the_same():
    assert numcodecs.GZip().decode(Gzip().encode(DATA)) == DATA
    assert Gzip().decode(numcodecs.GZip(level=1).encode(DATA), len(DATA)) == DATA


def test_equal_chunks_become_equal_bytes():
    encoded = Gzip().encode(DATA)
    assert encoded[4:8] == bytes(4), "the time of writing"
    assert encoded == Gzip().encode(bytearray(DATA))


@pytest.mark.parametrize("padding", [b"", b"\0", bytes(9000)], ids=["exact", "one zero", "zeros"])
def test_several_members_are_one_value(padding):
    members = b"".join(Gzip().encode(DATA[start : start + 5000]) for start in range(0, len(DATA), 5000))
    value = Gzip().encode(b"") + members + Gzip().encode(b"") + padding
    assert Gzip().decode(value, len(DATA)) == DATA


def test_many_tiny_members_take_linear_time():
    value = Gzip().encode(b"") * 50_000
    assert Gzip().decode(value, 0) == b""


@pytest.mark.parametrize("extra", [b"x", b"\x1f", b"\x1f\x8b", b"\0x", bytes(20) + b"\x1f"])
def test_anything_else_behind_the_last_member_is_refused(extra):
    with pytest.raises(CodecError, match="write it again"):
        Gzip().decode(Gzip().encode(DATA) + extra, len(DATA))


@pytest.mark.parametrize("position", [-8, -1], ids=["crc", "size"])
def test_the_trailer_is_verified(position):
    value = bytearray(Gzip().encode(DATA))
    value[position] ^= 1
    with pytest.raises(CodecError) as caught:
        Gzip().decode_into(value, memoryview(bytearray(len(DATA))))
    assert "incorrect" in str(caught.value.__cause__)


def test_configuration():
    assert Gzip.from_configuration({"level": 9}) == Gzip(9)
    assert Gzip(0).configuration() == {"level": 0}


@pytest.mark.parametrize("wrong", [{}, {"level": 10}, {"level": -1}, {"level": 1.5}, {"level": 1, "mtime": 0}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="gzip"):
        Gzip.from_configuration(wrong)
