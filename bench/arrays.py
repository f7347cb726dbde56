"""What is read and written: arrays that look like weather, and shapes that suit chunks of a size."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

import azarr

BLOCK = 64  # planes that are drawn; the others repeat them, which no chunk notices


def weather(shape: tuple[int, ...], dtype: str = "f4") -> npt.NDArray:
    """A smooth field with noise, in steps of 1/64, as unpacked measurements are; zstd makes a third of it."""
    block = (min(BLOCK, shape[0]), *shape[1:])
    axes = np.ogrid[tuple(slice(0, length) for length in block)]
    smooth = 280 + sum(10 * np.sin(axis / (17.0 + 5 * number)) for number, axis in enumerate(axes))
    noise = np.random.default_rng(0).normal(0, 0.05, block)
    planes = (np.round((smooth + noise) * 64) / 64).astype(dtype)
    return np.tile(planes, (math.ceil(shape[0] / block[0]), *[1] * (len(shape) - 1)))[: shape[0]]


CUBES = {4: (8, 8, 16), 16: (16, 16, 16), 64: (16, 32, 32), 256: (32, 32, 64), 1024: (64, 64, 64), 16384: (128, 128, 256)}
"""Chunks of float32, by their KiB."""


async def filled(store: object, data: npt.NDArray, **options: object) -> azarr.AsyncArray:
    """An array that holds ``data``."""
    array = await azarr.create_array(store, "a", shape=data.shape, dtype=data.dtype, overwrite=True, **options)
    await array.write(data)
    return array


def check(found: npt.NDArray, data: npt.NDArray) -> None:
    """Fail unless all values are what they are to be: a figure about a wrong result is worth nothing."""
    if not np.array_equal(found, data):
        raise AssertionError("the result is wrong, so that its time does not count")
