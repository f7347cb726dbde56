from __future__ import annotations

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.shuffle import Shuffle
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(1, 100), st.randoms(use_true_random=False))
def test_the_bytes_of_numcodecs(elementsize, count, random):
    data = random.randbytes(elementsize * count)
    encoded = bytes(Shuffle(elementsize).encode(data))
    assert encoded == bytes(numcodecs.Shuffle(elementsize).encode(data))
    assert bytes(Shuffle(elementsize).decode(encoded, len(data))) == data
    out = bytearray(len(data))
    Shuffle(elementsize).decode_into(encoded, memoryview(out))
    assert out == data


def test_bytes_are_sorted_by_their_place():
    assert bytes(Shuffle(4).encode(b"abcdABCD")) == b"aAbBcCdD"


@pytest.mark.parametrize("elementsize", [0, 1])
def test_single_bytes_stay_as_they_are(elementsize):
    assert bytes(Shuffle(elementsize).encode(b"abc")) == b"abc" == bytes(Shuffle(elementsize).decode(b"abc", 3))


def test_nothing_stays_nothing():
    assert bytes(Shuffle(4).encode(b"")) == b"" == bytes(Shuffle(4).decode(b"", 0))


def test_parts_of_elements_are_refused():
    with pytest.raises(CodecError, match="choose an elementsize"):
        Shuffle(4).encode(b"abcde")
    with pytest.raises(CodecError, match="not whole elements of 4"):
        Shuffle(4).decode(b"abcde", 5)
    with pytest.raises(CodecError, match="more than the 3 bytes"):
        Shuffle(4).decode(bytes(4), 3)


def test_the_element_is_that_of_the_chunk_unless_it_is_given():
    spec = ChunkSpec((3,), np.dtype("i2"), np.int16(0))
    assert Shuffle.from_configuration({}).bind(spec) == Shuffle(2)
    assert Shuffle.from_configuration({"elementsize": 8}).bind(spec) == Shuffle(8)


@pytest.mark.parametrize("wrong", [{"elementsize": -1}, {"elementsize": 1.0}, {"elementsize": True}, {"size": 1}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="shuffle"):
        Shuffle.from_configuration(wrong)
