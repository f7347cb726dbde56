"""Chunks that hold nothing but fill value, which are not stored."""

from __future__ import annotations

import numpy as np

from azarr.types import Array, FillValue


def is_fill(chunk: Array, fill_value: FillValue) -> bool:
    """Whether every element of ``chunk`` is the fill value bit by bit, so that -0.0 is not 0.0 and a NaN is itself.

    Text and bytes of any length need their fill value as an array without dimensions, lest NumPy take off the zeros at its end.
    """
    if chunk.size == 0:
        return True
    if chunk.dtype.kind == "T":
        return bool((chunk.reshape(-1)[:1] == fill_value).all() and (chunk == fill_value).all())
    if chunk.dtype.hasobject:
        one = fill_value[()] if isinstance(fill_value, np.ndarray) else fill_value
        return all(_is_same(element, one) for element in chunk.flat)
    fill = np.asarray(fill_value, chunk.dtype)
    # most chunks that hold data differ at once; both are scalars here, as those of text lose the zeros behind it
    if chunk[(0,) * chunk.ndim].tobytes() != fill[()].tobytes():
        return False
    bits = np.dtype((np.void, chunk.dtype.itemsize)) if chunk.dtype.itemsize not in {1, 2, 4, 8} else np.dtype(f"u{chunk.dtype.itemsize}")
    return bool((chunk.view(bits) == fill.view(bits)).all())


def _is_same(element: object, fill_value: FillValue) -> bool:
    """Whether two objects are the same scalar; what is none is taken to differ, and stored."""
    if isinstance(element, np.generic):
        return type(element) is type(fill_value) and element.tobytes() == fill_value.tobytes()
    if isinstance(element, np.ndarray):
        return not element.size and isinstance(fill_value, np.ndarray)
    if isinstance(element, float):  # in full, as -0.0 equals 0.0
        return isinstance(fill_value, float) and repr(element) == repr(fill_value)
    return type(element) is type(fill_value) and isinstance(element, str | bytes | int | None) and element == fill_value
