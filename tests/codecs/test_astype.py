from __future__ import annotations

import numcodecs
import numpy as np
import pytest

from azarr.codecs.astype import AsType
from azarr.errors import MetadataError
from azarr.types import ChunkSpec

CHUNK = np.random.default_rng(0).normal(size=(5, 7)) * 1000


@pytest.mark.parametrize(
    ("decode", "encode"), [("<f8", "<f4"), ("<f8", "<i2"), ("<i4", "<i2"), ("<f4", "<f8"), ("<u2", "<f4"), ("<i4", "|b1")]
)
def test_the_numbers_of_numcodecs(decode, encode):
    chunk = CHUNK.astype(decode)
    codec, theirs = AsType(encode, decode), numcodecs.AsType(encode, decode)
    spec = ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))
    encoded = codec.encode(chunk, spec)
    np.testing.assert_array_equal(encoded, theirs.encode(chunk))
    np.testing.assert_array_equal(codec.decode(encoded, spec), theirs.decode(theirs.encode(chunk)))
    assert codec.resolve(spec).dtype == encode


@pytest.mark.parametrize(("decode", "encode"), [("<c16", "<f4"), ("<f8", "<c8"), ("<c8", "<i2")])
def test_complex_numbers_become_real_ones_without_a_warning(decode, encode):
    chunk = np.array([1 + 2j, 3] if "c" in decode else [1, 3], decode)
    codec = AsType(encode, decode)
    spec = ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(1))
    np.testing.assert_array_equal(codec.decode(codec.encode(chunk, spec), spec), chunk.real)
    assert codec.resolve(spec).fill_value == 1


def test_the_decoded_type_is_that_of_the_array_unless_it_is_given():
    spec = ChunkSpec((5,), np.dtype("f8"), np.float64(0))
    assert AsType.from_configuration({"encode_dtype": "float32"}).bind(spec) == AsType("<f4", "<f8")
    with pytest.raises(MetadataError, match="cannot encode"):
        AsType("<f4", "<f4").bind(spec)
    with pytest.raises(MetadataError, match="takes numbers"):
        AsType("<f4").bind(ChunkSpec((5,), np.dtype("S3"), np.bytes_(b"")))


@pytest.mark.parametrize("wrong", [{}, {"decode_dtype": "<f4"}, {"encode_dtype": "|S3"}, {"encode_dtype": "<f4", "decode_dtype": ">f8"}])
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="astype"):
        AsType.from_configuration(wrong)
