from __future__ import annotations

import zlib

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.checksums import ROW, Adler32, Crc32, Fletcher32, JenkinsLookup3, LocatedCrc32c, fletcher32
from azarr.codecs.crc32c import Crc32c
from azarr.errors import ChecksumError, CodecError, MetadataError

DATA = bytes(range(256)) * 60

PAIRS = [
    (Crc32(), numcodecs.CRC32()),
    (Crc32("end"), numcodecs.CRC32("end")),
    (Adler32(), numcodecs.Adler32()),
    (Adler32("end"), numcodecs.Adler32("end")),
    (LocatedCrc32c("start"), numcodecs.CRC32C("start")),
    (Crc32c(), numcodecs.CRC32C()),
    (Fletcher32(), numcodecs.Fletcher32()),
    (JenkinsLookup3(), numcodecs.JenkinsLookup3()),
    (JenkinsLookup3(77), numcodecs.JenkinsLookup3(77)),
]


@pytest.mark.parametrize(("codec", "theirs"), PAIRS, ids=repr)
@settings(deadline=None, max_examples=50)
@given(data=st.binary(min_size=1, max_size=3000))
def test_the_bytes_of_numcodecs(codec, theirs, data):
    encoded = bytes(codec.encode(memoryview(data)))
    assert encoded == bytes(theirs.encode(data))
    assert len(encoded) == codec.encoded_size(len(data))
    assert codec.decode(bytearray(encoded), len(data)) == data
    assert bytes(theirs.decode(encoded)) == data


@pytest.mark.parametrize("codec", [codec for codec, _ in PAIRS], ids=repr)
def test_every_flipped_bit_is_found(codec):
    value = codec.encode(DATA[:300])
    for position in range(len(value)):
        damaged = bytearray(value)
        damaged[position] ^= 0x10
        with pytest.raises(ChecksumError, match="restore it or write it again"):
            codec.decode(damaged, len(DATA))


@pytest.mark.parametrize("codec", [codec for codec, _ in PAIRS], ids=repr)
@pytest.mark.parametrize("nbytes", range(4))
def test_too_few_bytes(codec, nbytes):
    with pytest.raises(CodecError, match="cannot hold a checksum"):
        codec.decode(bytes(nbytes), 10)


@pytest.mark.parametrize("nbytes", [0, 1, 2, 3, 719, 720, 721, 2 * ROW, 2 * ROW + 1, 100_003])
@pytest.mark.parametrize("content", ["zeros", "ones", "random"])
def test_fletcher32_is_the_one_of_hdf5_at_every_length(nbytes, content):
    random = np.random.default_rng(nbytes).bytes(nbytes)
    data = {"zeros": bytes(nbytes), "ones": b"\xff" * nbytes, "random": random}[content]
    first = second = 0
    words = [data[i] << 8 | (data[i + 1] if i + 1 < nbytes else 0) for i in range(0, nbytes, 2)]
    for start in range(0, len(words), 360):
        for word in words[start : start + 360]:
            first += word
            second += first
        first, second = ((total & 0xFFFF) + (total >> 16) for total in (first, second))
    first, second = ((total & 0xFFFF) + (total >> 16) for total in (first, second))
    assert fletcher32(data) == second << 16 | first


def test_a_checksum_of_nothing():
    assert Crc32().encode(b"") == bytes(4)
    assert Crc32().decode(bytes(4), 0) == b""
    assert Adler32().encode(b"") == zlib.adler32(b"").to_bytes(4, "little")
    assert JenkinsLookup3().decode(JenkinsLookup3().encode(b""), 0) == b""


@pytest.mark.parametrize("codec", [Crc32, Adler32, LocatedCrc32c])
def test_locations(codec):
    assert codec.from_configuration({}) == codec.from_configuration({"location": codec.usual}) == codec()
    other = "end" if codec.usual == "start" else "start"
    assert codec.from_configuration({"location": other}).configuration() == {"location": other}
    for wrong in ["middle", 1, ["start"]]:
        with pytest.raises(MetadataError, match="location must be 'start' or 'end'"):
            codec.from_configuration({"location": wrong})


@pytest.mark.parametrize(
    ("codec", "wrong"),
    [
        (Fletcher32, {"location": "end"}),
        (JenkinsLookup3, {"initval": -1}),
        (JenkinsLookup3, {"initval": 2**32}),
        (JenkinsLookup3, {"initval": 1.0}),
        (JenkinsLookup3, {"prefix": "x"}),
        (Crc32, {"level": 1}),
    ],
)
def test_wrong_configurations_are_refused(codec, wrong):
    with pytest.raises(MetadataError, match=codec.name):
        codec.from_configuration(wrong)


def test_what_holds_the_interpreter_says_so():
    assert Crc32().releases_gil
    assert not JenkinsLookup3().releases_gil
