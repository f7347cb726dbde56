from __future__ import annotations

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from azarr.codecs.fixedscaleoffset import FixedScaleOffset
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

DTYPES = [("<f8", "<i4"), ("<f4", "<i2"), ("<f8", "|u1"), ("<f4", "<f4"), ("<f8", "<f8"), ("<i4", "<i2"), ("<f4", "<f2"), ("<f8", "<f4")]


@settings(deadline=None)
@given(st.data(), st.sampled_from(DTYPES), st.sampled_from([0, 1000, -0.5, 1e3]), st.sampled_from([1, 10, 0.1, 1e6, -3]))
def test_the_numbers_of_numcodecs(data, dtypes, offset, scale):
    dtype, astype = dtypes
    floats = st.floats(-1e4, 1e4, width=8 * np.dtype(dtype).itemsize) if np.dtype(dtype).kind == "f" else st.integers(-100, 100)
    chunk = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=2, max_side=9), elements=floats))
    codec, theirs = FixedScaleOffset(offset, scale, dtype, astype), numcodecs.FixedScaleOffset(offset, scale, dtype, astype)
    spec = ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))
    with np.errstate(all="ignore"):
        expected = theirs.encode(chunk)
        decoded = theirs.decode(expected)
    encoded = codec.encode(chunk, spec)
    assert encoded.dtype == astype
    np.testing.assert_array_equal(encoded, expected.reshape(chunk.shape))
    np.testing.assert_array_equal(codec.decode(encoded, spec), decoded.reshape(chunk.shape))


def test_an_offset_that_whole_numbers_cannot_take_is_an_error():
    spec = ChunkSpec((2,), np.dtype("i1"), np.int8(0))
    with pytest.raises(CodecError, match="change the configuration"):
        FixedScaleOffset(1000, 1, "|i1", "|i1").encode(np.zeros(2, "i1"), spec)


@pytest.mark.parametrize(
    "wrong",
    [
        {"offset": 0, "scale": 1},
        {"offset": 0, "dtype": "<f4"},
        {"offset": "0", "scale": 1, "dtype": "<f4"},
        {"offset": True, "scale": 1, "dtype": "<f4"},
        {"offset": float("nan"), "scale": 1, "dtype": "<f4"},
        {"offset": 0, "scale": 10**400, "dtype": "<f4"},
        {"offset": 0, "scale": 0, "dtype": "<f4"},
        {"offset": 0, "scale": 1, "dtype": "<c8"},
        {"offset": 0, "scale": 1, "dtype": "<f4", "astype": "|b1"},
    ],
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="fixedscaleoffset"):
        FixedScaleOffset.from_configuration(wrong)
