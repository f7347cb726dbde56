from __future__ import annotations

import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from azarr.codecs.quantize import Quantize
from azarr.errors import MetadataError
from azarr.types import ChunkSpec


@settings(deadline=None)
@given(st.data(), st.integers(-5, 12), st.sampled_from([("<f8", "<f8"), ("<f8", "<f4"), ("<f4", "<f4"), ("<f8", "<f2"), ("<f4", "<f2")]))
def test_the_numbers_of_numcodecs(data, digits, dtypes):
    chunk = data.draw(hnp.arrays(dtypes[0], hnp.array_shapes(max_dims=2, max_side=9)))
    codec, theirs = Quantize(digits, *dtypes), numcodecs.Quantize(digits, *dtypes)
    spec = ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))
    with np.errstate(all="ignore"):
        expected = theirs.encode(chunk)
        decoded = theirs.decode(expected)
    encoded = codec.encode(chunk, spec)
    assert encoded.dtype == dtypes[1]
    np.testing.assert_array_equal(encoded, expected.reshape(chunk.shape))
    np.testing.assert_array_equal(codec.decode(encoded, spec), decoded.reshape(chunk.shape))


@pytest.mark.parametrize(
    "wrong",
    [
        {"digits": 1},
        {"dtype": "<f4"},
        {"digits": 1.0, "dtype": "<f4"},
        {"digits": 301, "dtype": "<f4"},
        {"digits": 1, "dtype": "<i4"},
        {"digits": 1, "dtype": "<f4", "astype": "<i2"},
    ],
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="quantize"):
        Quantize.from_configuration(wrong)
