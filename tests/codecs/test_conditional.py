from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.codecs import Bytes, Conditional, Crc32c, Gzip, JenkinsLookup3, Shuffle, Zstd
from azarr.errors import ChecksumError, CodecError, MetadataError
from azarr.types import ChunkSpec

RANDOM = random.Random(0).randbytes(500)
CODECS = (Shuffle(4), Zstd(1), Crc32c())


@given(st.binary(max_size=100).map(lambda data: data * 4))
def test_round_trip(data):
    codec = Conditional(CODECS)
    encoded = bytes(codec.encode(data))
    assert len(encoded) <= codec.max_encoded_size(len(data))
    assert codec.decode(encoded, len(data)) == data


def test_what_does_not_compress_is_left_as_it_is_and_still_guarded():
    assert bytes(Conditional(CODECS).encode(bytes(500)))[0] == 0b111
    value = bytes(Conditional(CODECS).encode(RANDOM))
    assert value[0] == 0b101
    assert value[1:-4] == bytes(Shuffle(4).encode(RANDOM))
    with pytest.raises(ChecksumError):
        Conditional(CODECS).decode(value[:-5] + b"x" + value[-4:], 500)


def test_the_first_codec_is_the_lowest_bit_of_the_first_byte():
    codecs = (*[Crc32c()] * 8, Gzip(1))
    value = bytes(Conditional(codecs).encode(RANDOM))
    assert value[:2] == b"\xff\0"
    value = b"\0\1" + Gzip(1).encode(b"abc")
    assert Conditional(codecs).decode(value, 3) == b"abc"


@pytest.mark.parametrize(("header_bits", "nbytes"), [(None, 1), (8, 1), (16, 2), (64, 8)])
def test_header_bits(header_bits, nbytes):
    codec = Conditional((Crc32c(),), header_bits)
    assert bytes(codec.encode(b"abc"))[:nbytes] == b"\1" + bytes(nbytes - 1)
    assert codec.decode(bytes(nbytes) + b"abc", 3) == b"abc"
    with pytest.raises(CodecError, match="cannot hold a header"):
        codec.decode(bytes(nbytes - 1), 3)


@pytest.mark.parametrize("header", [2, 3, 128])
def test_bits_without_a_codec_are_damage(header):
    with pytest.raises(CodecError, match="more codecs than the 1"):
        Conditional((Gzip(),)).decode(bytes([header]) + Gzip().encode(b"abc"), 3)


def test_the_result_is_bounded():
    with pytest.raises(CodecError, match="more than the 2 bytes"):
        Conditional((Gzip(),)).decode(b"\0abc", 2)
    with pytest.raises(CodecError, match="more than the 2 bytes"):
        Conditional((Gzip(),)).decode(b"\1" + Gzip().encode(b"abc"), 2)


def test_inner_codecs_are_bound():
    spec = ChunkSpec((3,), np.dtype("i2"), np.int16(0))
    assert Conditional((Shuffle(),)).bind(spec).codecs == (Shuffle(2),)


@pytest.mark.parametrize("bits", [0, 4, 12, -8, 8.0, True])
def test_wrong_header_bits_are_refused(bits):
    with pytest.raises(MetadataError, match="header_bits"):
        Conditional.from_configuration({"codecs": (Gzip(),), "header_bits": bits})


def test_only_codecs_from_bytes_to_bytes():
    with pytest.raises(MetadataError, match="not bytes"):
        Conditional((Bytes(),))


def test_it_holds_the_interpreter_where_a_codec_inside_does():
    assert Conditional((Gzip(),)).releases_gil
    assert not Conditional((Gzip(), JenkinsLookup3())).releases_gil
