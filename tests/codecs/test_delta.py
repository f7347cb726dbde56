from __future__ import annotations

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from azarr.codecs.delta import Delta
from azarr.errors import MetadataError
from azarr.types import ChunkSpec


def spec_of(chunk):
    return ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))


@settings(deadline=None)
@given(st.data(), st.sampled_from(["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"]))
def test_whole_numbers_come_back_even_where_they_wrap_around(data, dtype):
    chunk = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=3, max_side=6)))
    codec = Delta.from_configuration({"dtype": chunk.dtype.str})
    encoded = codec.encode(chunk, spec_of(chunk))
    assert encoded.shape == chunk.shape
    theirs = numcodecs.Delta(dtype)
    np.testing.assert_array_equal(encoded.reshape(-1), theirs.encode(chunk))
    np.testing.assert_array_equal(codec.decode(encoded, spec_of(chunk)), chunk)
    np.testing.assert_array_equal(codec.decode(theirs.encode(chunk).reshape(chunk.shape), spec_of(chunk)), chunk)


@pytest.mark.parametrize(
    ("dtype", "astype"), [("<i4", "<i2"), ("<f8", "<f4"), ("<f4", "<f4"), ("<u2", "|i1"), ("<f8", "<f8"), ("<i8", "<f8")]
)
def test_other_types_decode_as_numcodecs_does(dtype, astype):
    chunk = np.random.default_rng(0).integers(0, 100, (7, 5)).cumsum(1).astype(dtype)
    codec, theirs = Delta(dtype, astype), numcodecs.Delta(dtype, astype)
    encoded = codec.encode(chunk, spec_of(chunk))
    assert encoded.dtype == astype
    np.testing.assert_array_equal(encoded.reshape(-1), theirs.encode(chunk))
    np.testing.assert_array_equal(codec.decode(encoded, spec_of(chunk)).reshape(-1), theirs.decode(encoded))


def test_truth_values_come_back():
    chunk = np.random.default_rng(0).integers(0, 2, 50).astype(bool)
    codec = Delta("|b1", "|b1")
    encoded = codec.encode(chunk, spec_of(chunk))
    np.testing.assert_array_equal(encoded, numcodecs.Delta("|b1").encode(chunk))
    np.testing.assert_array_equal(codec.decode(encoded, spec_of(chunk)), chunk)


def test_times_can_be_taken_for_whole_numbers():
    chunk = np.array([["2026-01-01", "2026-01-03"], ["NaT", "1969-12-31"]], "M8[D]")
    spec = ChunkSpec(chunk.shape, chunk.dtype, np.datetime64(0, "D"))
    codec = Delta("<i8", "<i8").bind(spec)
    encoded = codec.encode(chunk, spec)
    assert encoded.dtype == "i8"
    np.testing.assert_array_equal(codec.decode(encoded, spec), chunk)


def test_the_next_codec_sees_the_stored_type():
    spec = Delta("<i4", "<i2").resolve(ChunkSpec((2, 3), np.dtype("i4"), np.int32(7)))
    assert (spec.shape, spec.dtype, spec.fill_value) == ((2, 3), np.dtype("i2"), 7)
    assert type(spec.fill_value) is np.int16
    spec = Delta("<i4", "<i2").resolve(ChunkSpec((2, 3), np.dtype("i4"), np.int32(70_000)))
    assert spec.fill_value == 0, "what the stored type does not have"


@pytest.mark.parametrize("dtype", ["i2", "f8", "S3", "O"])
def test_chunks_of_another_size_are_refused(dtype):
    with pytest.raises(MetadataError, match="cannot encode"):
        Delta("<i4", "<i4").bind(ChunkSpec((2,), np.dtype(dtype), np.zeros((), dtype)[()]))


@pytest.mark.parametrize(
    "wrong",
    [{}, {"dtype": "|O"}, {"dtype": ">i4"}, {"dtype": "i3"}, {"dtype": 4}, {"dtype": "<i4", "astype": "|S4"}, {"dtype": "<i4", "x": 1}],
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="delta"):
        Delta.from_configuration(wrong)


@pytest.mark.parametrize("dtype", ["int32", "i4", "<i4", "=i4"])
def test_data_types_in_other_words(dtype):
    assert Delta.from_configuration({"dtype": dtype}) == Delta("<i4", "<i4")


@pytest.mark.parametrize(("dtype", "astype"), [("<c8", "<f4"), ("<f4", "<c8"), ("|i1", "<c16")])
def test_complex_numbers_become_real_ones_without_a_warning(dtype, astype):
    chunk = np.array([1, 5, 3], dtype)
    codec = Delta(dtype, astype)
    np.testing.assert_array_equal(codec.decode(codec.encode(chunk, spec_of(chunk)), spec_of(chunk)), chunk)
    assert codec.resolve(spec_of(chunk)).fill_value == 0
