from __future__ import annotations

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from azarr.codecs.bitround import BitRound, NumcodecsBitRound
from azarr.errors import MetadataError
from azarr.types import ChunkSpec


def spec_of(chunk):
    return ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))


@settings(deadline=None)
@given(st.data(), st.sampled_from([("f2", 10), ("f4", 23), ("f8", 52)]))
def test_floats_are_rounded_as_numcodecs_does(data, kind):
    dtype, most = kind
    chunk = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=2, max_side=9)))
    keepbits = data.draw(st.integers(1, most))
    theirs = numcodecs.BitRound(keepbits)
    with np.errstate(all="ignore"):
        expected = theirs.encode(chunk).view(dtype)
    for codec in (BitRound(keepbits), NumcodecsBitRound(keepbits)):
        encoded = codec.encode(chunk, spec_of(chunk))
        assert encoded.tobytes() == expected.tobytes()
        assert codec.decode(encoded, spec_of(chunk)) is encoded


def test_complex_numbers_part_by_part():
    chunk = np.random.default_rng(0).normal(size=20).view("c16")
    encoded = BitRound(3).encode(chunk, spec_of(chunk))
    np.testing.assert_array_equal(encoded.view("f8"), BitRound(3).encode(chunk.view("f8"), spec_of(chunk.view("f8"))))


def test_the_chunk_itself_is_not_changed():
    chunk = np.random.default_rng(0).normal(size=20)
    before = chunk.copy()
    BitRound(3).encode(chunk, spec_of(chunk))
    np.testing.assert_array_equal(chunk, before)


def test_more_bits_than_there_are_change_nothing():
    chunk = np.random.default_rng(0).normal(size=20).astype("f4")
    assert BitRound(99).encode(chunk, spec_of(chunk)) is chunk


@pytest.mark.parametrize("dtype", ["u1", "i1", "u2", "i4", "u8", "i8"])
def test_whole_numbers_keep_their_highest_bits(dtype):
    bounds = np.iinfo(dtype)
    special = [0, 1, 2, 3, 5, 6, 7, 100, 108, 116, 124, 127, bounds.max, bounds.max - 1, bounds.min, bounds.min + 1]
    chunk = np.array([value for value in special if bounds.min <= value <= bounds.max], dtype)
    for value, rounded in zip(chunk.tolist(), BitRound(2).encode(chunk, spec_of(chunk)).tolist(), strict=True):
        step = 1 << max(0, abs(value).bit_length() - 2)
        assert rounded % step == 0
        assert abs(rounded - value) <= step // 2 or rounded == bounds.max // step * step
        assert BitRound(64).encode(chunk, spec_of(chunk)) is chunk


@pytest.mark.parametrize("dtype", ["S3", "M8[s]", "?"])
def test_what_has_no_such_bits_is_refused(dtype):
    with pytest.raises(MetadataError, match="bitround"):
        BitRound(3).bind(ChunkSpec((2,), np.dtype(dtype), np.zeros((), dtype)[()]))
    with pytest.raises(MetadataError, match="floating-point"):
        NumcodecsBitRound(3).bind(ChunkSpec((2,), np.dtype("i4"), np.int32(0)))


@pytest.mark.parametrize("wrong", [{}, {"keepbits": 0}, {"keepbits": 1.0}, {"keepbits": True}, {"keepbits": 3, "x": 1}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="bitround"):
        BitRound.from_configuration(wrong)
    assert NumcodecsBitRound.from_configuration({"keepbits": 0}).keepbits == 0
