"""Chunks of nothing but fill value."""

import numpy as np
import pytest

from azarr.codecs.fill import is_fill


@pytest.mark.parametrize("dtype", ["bool", "u1", "i2", "f4", "f8", "c8", "c16"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3)], ids=repr)
def test_fill_value_is_recognised_in_every_data_type(dtype, shape):
    fill = np.dtype(dtype).type(1)
    chunk = np.full(shape, fill)
    assert is_fill(chunk, fill)
    assert is_fill(np.broadcast_to(fill, shape), fill)
    chunk[(-1,) * len(shape)] = 0
    assert not is_fill(chunk, fill)


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "c8", "c16"])
def test_fill_value_is_compared_bit_by_bit(dtype):
    kind = np.dtype(dtype).type
    assert is_fill(np.full(4, np.nan, dtype), kind(np.nan))
    assert not is_fill(np.full(4, -0.0, dtype), kind(0.0))
    assert not is_fill(np.full(4, 0.0, dtype), kind(-0.0))
    other = np.full(4, np.nan, dtype)
    other.view("u1")[0] ^= 1  # another NaN
    assert not is_fill(other, kind(np.nan))


def test_fill_value_is_recognised_in_chunks_of_any_strides():
    base = np.full((6, 8), 7, "i4")
    assert is_fill(base.T[::2, ::-1], np.int32(7))
    base[4, 2] = 0
    assert not is_fill(base[::2, ::2], np.int32(7))
    assert is_fill(base[1::2, ::2], np.int32(7))


def test_a_chunk_without_elements_is_fill_value():
    assert is_fill(np.empty((0, 3), "i4"), np.int32(7))
