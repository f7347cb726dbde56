"""Memory of results: that of those which nobody has any more serves the next ones."""

from __future__ import annotations

import math
import mmap
from collections import deque
from functools import lru_cache
from typing import Any

import numpy as np

from azarr.codecs.scratch import PRIVATE
from azarr.types import Array

SMALLEST_NBYTES, LARGEST_NBYTES = 64 * 2**10, 4 * 2**20
"""Arrays in between get memory from here. Of smaller ones an allocator keeps what it needs, and NumPy gives larger ones huge pages."""

KEPT_NBYTES, SIZES = 8 * 2**20, 8
"""How much is kept of each size, and of how many sizes: arrays that are read over and over have chunks of a few."""


class ResultMemory:
    """New arrays, in memory that has been used before where there is some. For any thread.

    An allocator keeps for each thread what that thread once needed: where two workers made results of 1 MiB, and the loop let go of them,
    that came to five times as much. And memory that was used last is still in the processor's cache.
    """

    __slots__ = ("_unused",)

    def __init__(self) -> None:
        self._unused = lru_cache(SIZES)(unused)

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
        """As ``numpy.empty``: what it holds is arbitrary."""
        nbytes = math.prod(shape) * dtype.itemsize
        if dtype.hasobject or not SMALLEST_NBYTES <= nbytes < LARGEST_NBYTES:
            return np.empty(shape, dtype)
        kept = self._unused(nbytes)
        try:
            memory = kept.pop()
        except IndexError:
            try:
                memory = mmap.mmap(-1, nbytes, **PRIVATE)
            except OSError:  # mappings are limited in number, too
                return np.empty(shape, dtype)
        lent = Lent(nbytes, np.uint8, memory)
        lent.kept = kept
        return np.ndarray(shape, dtype, lent)

    def clear(self) -> None:
        """Keep nothing of what there is so far."""
        self._unused.cache_clear()


class Lent(np.ndarray[Any, np.dtype[np.uint8]]):
    """Memory that an array has, with all views of it: NumPy lets go of it with the last of them."""

    __slots__ = ("kept",)
    kept: deque[mmap.mmap]

    def __del__(self) -> None:
        kept = getattr(self, "kept", None)
        if kept is not None:  # views of this itself have none
            kept.append(self.base)


def unused(nbytes: int) -> deque[mmap.mmap]:
    """Room for memory of that size; what does not fit makes the oldest go."""
    return deque(maxlen=KEPT_NBYTES // nbytes)
