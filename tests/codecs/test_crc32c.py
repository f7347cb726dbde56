from __future__ import annotations

import numcodecs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.crc32c import Crc32c
from azarr.errors import ChecksumError, CodecError, MetadataError


def test_the_check_value_of_the_algorithm_stands_behind_the_bytes():
    assert Crc32c().encode(b"123456789") == b"123456789" + bytes.fromhex("839206e3")


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_round_trip(data):
    encoded = Crc32c().encode(memoryview(data))
    assert len(encoded) == Crc32c().encoded_size(len(data)) == Crc32c().max_encoded_size(len(data))
    assert Crc32c().decode(bytearray(encoded), len(data)) == data


def test_numcodecs_reads_and_writes_the_same():
    codec = numcodecs.get_codec({"id": "crc32c"})
    assert bytes(codec.decode(Crc32c().encode(b"chunk"))) == b"chunk"
    assert Crc32c().decode(bytes(codec.encode(b"chunk")), 5) == b"chunk"


def test_decoding_copies_nothing():
    value = bytearray(Crc32c().encode(b"chunk"))
    decoded = Crc32c().decode(value, 5)
    assert isinstance(decoded, memoryview)
    assert decoded.obj is value


@pytest.mark.parametrize("position", range(9))
def test_any_changed_byte_is_found(position):
    value = bytearray(Crc32c().encode(b"chunk"))
    value[position] ^= 0x10
    with pytest.raises(ChecksumError, match="write it again"):
        Crc32c().decode(value, 5)


@pytest.mark.parametrize("nbytes", range(4))
def test_too_few_bytes_for_a_checksum_are_refused(nbytes):
    with pytest.raises(CodecError, match="cannot hold a checksum"):
        Crc32c().decode(bytes(nbytes), 5)


def test_configuration():
    assert Crc32c.from_configuration({}).configuration() == {}
    with pytest.raises(MetadataError, match="crc32c"):
        Crc32c.from_configuration({"location": "end"})
