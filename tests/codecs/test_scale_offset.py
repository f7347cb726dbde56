from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from azarr.codecs.scale_offset import ScaleOffset
from azarr.data_types import data_type_for
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec


def spec_of(chunk, fill=0):
    return ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(fill))


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8"])
def test_floats_stay_in_their_own_precision(dtype):
    chunk = np.linspace(-3, 3, 20).astype(dtype).reshape(4, 5)
    codec = ScaleOffset(5, 0.1).bind(spec_of(chunk))
    encoded = codec.encode(chunk, spec_of(chunk))
    scalar = np.dtype(dtype).type
    np.testing.assert_array_equal(encoded, (chunk - scalar(5)) * scalar(0.1))
    decoded = codec.decode(encoded, spec_of(chunk))
    np.testing.assert_array_equal(decoded, encoded / scalar(0.1) + scalar(5))
    assert encoded.dtype == decoded.dtype == dtype


@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from(["i1", "u1", "i2", "u4", "i8", "u8"]))
def test_whole_numbers_are_exact_or_an_error(data, dtype):
    bounds = np.iinfo(dtype)
    whole = st.integers(int(bounds.min), int(bounds.max)) | st.integers(0, 100)
    chunk = data.draw(hnp.arrays(dtype, 4, elements=whole))
    offset, scale = data.draw(whole), data.draw(st.integers(max(-5, int(bounds.min)), 5).filter(bool))
    codec, spec = ScaleOffset(offset, scale), ChunkSpec((4,), np.dtype(dtype), np.dtype(dtype).type(offset))
    expected = [(value - offset) * scale for value in chunk.tolist()]
    steps = [value - offset for value in chunk.tolist()] + expected
    if all(bounds.min <= value <= bounds.max for value in steps):
        encoded = codec.encode(chunk, spec)
        assert encoded.dtype == dtype
        assert encoded.tolist() == expected
        np.testing.assert_array_equal(codec.decode(encoded, spec), chunk)
    else:
        with pytest.raises(CodecError, match="another scale or offset"):
            codec.encode(chunk, spec)


def test_small_whole_numbers():
    chunk = np.array([-8, -4, 0, 3], ml_dtypes.int4)
    try:
        data_type_for(chunk.dtype)
    except MetadataError:
        pytest.skip("there is no data type int4")
    codec = ScaleOffset(-4, 1)
    with pytest.raises(CodecError, match="cannot hold"):
        codec.encode(np.array([4], ml_dtypes.int4), spec_of(chunk, -4))
    encoded = codec.encode(chunk, spec_of(chunk, -4))
    assert encoded.dtype == chunk.dtype
    assert encoded.astype(int).tolist() == [-4, 0, 4, 7]
    np.testing.assert_array_equal(codec.decode(encoded, spec_of(chunk)).astype(int), chunk.astype(int))


def test_what_the_scale_does_not_divide_is_damage():
    with pytest.raises(CodecError, match="does not divide"):
        ScaleOffset(scale=3).decode(np.array([3, 4]), spec_of(np.zeros(2, int)))


def test_the_fill_value_is_scaled_too():
    spec = ChunkSpec((3,), np.dtype("u2"), np.uint16(1010))
    assert ScaleOffset(1000, 3).resolve(spec).fill_value == 30
    with pytest.raises(MetadataError, match="fill value 0 cannot be encoded"):
        ScaleOffset(1000).bind(ChunkSpec((3,), np.dtype("u2"), np.uint16(0)))


@pytest.mark.parametrize("configuration", [{}, {"offset": 3}, {"scale": 2}, {"offset": "0x7fc00001"}, {"scale": "Infinity"}])
def test_configuration(configuration):
    codec = ScaleOffset.from_configuration(configuration)
    assert codec.configuration() == configuration
    chunk = np.ones(3, "f4")
    codec.bind(spec_of(chunk))
    if not configuration:
        np.testing.assert_array_equal(codec.decode(codec.encode(chunk, spec_of(chunk)), spec_of(chunk)), chunk)


@pytest.mark.parametrize("wrong", [{"offset": None}, {"scale": True}, {"scale": [1]}, {"offset": 1, "dtype": "<f4"}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="scale_offset"):
        ScaleOffset.from_configuration(wrong)


@pytest.mark.parametrize(
    ("dtype", "configuration"),
    [
        ("i2", {"offset": 0.5}),
        ("u1", {"offset": -1}),
        ("i4", {"scale": 0}),
        ("f4", {"scale": 0.0}),
        ("f4", {"offset": "x"}),
        ("c8", {}),
        ("?", {}),
        ("S3", {}),
    ],
)
def test_what_the_data_type_does_not_have_is_refused(dtype, configuration):
    with pytest.raises(MetadataError, match="scale_offset"):
        ScaleOffset.from_configuration(configuration).bind(ChunkSpec((3,), np.dtype(dtype), np.zeros((), dtype)[()]))
