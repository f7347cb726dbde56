from __future__ import annotations

import numpy as np
import pytest

from azarr.codecs.reshape import Reshape
from azarr.errors import MetadataError
from azarr.types import ChunkSpec

SPEC = ChunkSpec((2, 3, 5, 4), np.dtype("i4"), np.int32(7))
CHUNK = np.arange(120, dtype="i4").reshape(SPEC.shape)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ([120], (120,)),
        ([-1], (120,)),
        ([6, -1], (6, 20)),
        ([2, 3, 20], (2, 3, 20)),
        ([[0, 1], [2], [3]], (6, 5, 4)),
        ([[0], -1, [3]], (2, 15, 4)),
        ([2, [1, 2], 1, 4], (2, 15, 1, 4)),
        ([1, 120, 1], (1, 120, 1)),
        ([[0, 1], 10, 2], (6, 10, 2)),
    ],
)
def test_shapes(shape, expected):
    codec = Reshape.from_configuration({"shape": shape}).bind(SPEC)
    assert codec.resolve(SPEC) == ChunkSpec(expected, SPEC.dtype, SPEC.fill_value)
    encoded = codec.encode(CHUNK, SPEC)
    assert encoded.shape == expected
    np.testing.assert_array_equal(encoded.ravel(), CHUNK.ravel())
    np.testing.assert_array_equal(codec.decode(encoded, SPEC), CHUNK)
    assert codec.configuration() == {"shape": shape}


def test_a_transposed_chunk():
    chunk = CHUNK.T
    spec = ChunkSpec(chunk.shape, chunk.dtype, np.int32(0))
    np.testing.assert_array_equal(Reshape((-1,)).encode(chunk, spec), chunk.ravel())


def test_scalars():
    spec = ChunkSpec((), np.dtype("i4"), np.int32(0))
    assert Reshape((1, 1)).resolve(spec).shape == (1, 1)
    assert Reshape(()).resolve(ChunkSpec((1, 1), np.dtype("i4"), np.int32(0))).shape == ()


@pytest.mark.parametrize("shape", [[119], [7, -1], [2, 3, 5], [[0, 1, 2, 4]], [[0], [2], [1], [3]], [[0], [3], 15], [[0, 2], 3, 4], [[]]])
def test_what_does_not_fit_is_refused(shape):
    with pytest.raises(MetadataError, match="reshape"):
        Reshape.from_configuration({"shape": shape}).bind(SPEC)


@pytest.mark.parametrize(
    "shape", [None, "120", [0], [-2], [-1, -1], [1.0], [True], [[0, 0]], [[1], [0]], [[-1]], [["x"]], [[[0]]], [None], [1] * 64]
)
def test_wrong_configurations_are_refused(shape):
    with pytest.raises(MetadataError, match="reshape"):
        Reshape.from_configuration({"shape": shape})
