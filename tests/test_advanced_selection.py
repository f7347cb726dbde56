"""Indices, masks, points, blocks, names and negative steps, alone and one upon the other, against NumPy."""

from __future__ import annotations

import random

import numpy as np
import pytest

import azarr
from azarr.errors import SelectionError


class Model:
    """A view and the flat positions of its elements in the array, which NumPy selects."""

    def __init__(self, view, positions) -> None:
        self.view, self.positions = view, np.asarray(positions)


def a_slice(rng, length):
    edge = [None, *range(-length - 2, length + 3)]
    return slice(rng.choice(edge), rng.choice(edge), rng.choice([None, 1, 2, 3, -1, -2, -5]))


def basic(rng, model):
    key = tuple(rng.randrange(-n, n) if n and rng.random() < 0.2 else a_slice(rng, n) for n in model.positions.shape)
    return Model(model.view[key], model.positions[key])


def outer(rng, model):
    key, indices, dropped = [], [], []
    for axis, length in enumerate(model.positions.shape):
        kind = rng.choice(["indices", "mask", "integer", "slice"]) if length else "slice"
        if kind == "indices":
            item = [rng.randrange(-length, length) for _ in range(rng.randrange(6))]
        elif kind == "mask":
            item = np.array([rng.random() < 0.5 for _ in range(length)])
        else:
            item = rng.randrange(-length, length) if kind == "integer" else a_slice(rng, length)
        if kind == "integer":
            dropped.append(axis)
        key.append(item)
        indices.append(np.atleast_1d(np.arange(length)[np.asarray(item, dtype=int) if kind == "indices" else item]))
    return Model(model.view.oindex[tuple(key)], model.positions[np.ix_(*indices)].squeeze(tuple(dropped)))


def points(rng, model):
    shape = model.positions.shape
    if not shape or 0 in shape:
        return model
    if rng.random() < 0.5:
        mask = np.array([rng.random() < 0.4 for _ in range(model.positions.size)]).reshape(shape)
        return Model(model.view.vindex[mask], model.positions[mask])
    common = rng.choice([(4,), (2, 3), (), (0,)])
    key = tuple(np.array([rng.randrange(-n, n) for _ in range(int(np.prod(common)))], dtype=int).reshape(common) for n in shape)
    return Model(model.view.vindex[key], model.positions[key])


def a_grid(rng, ndim):
    """The shape of an array, its chunks, of one length or of several along each axis, and perhaps shards."""
    shape = tuple(rng.randint(0, 9) for _ in range(ndim))
    if rng.random() < 0.4:
        lengths = [[rng.randint(1, 4) for _ in range(max(1, length))] for length in shape]
        return shape, tuple(rng.choice([each, rng.randint(1, 4)]) for each in lengths), None
    chunks = tuple(rng.randint(1, 4) for _ in range(ndim))
    return shape, chunks, tuple(chunk * rng.randint(1, 3) for chunk in chunks) if rng.random() < 0.4 else None


async def streamed(view, ordered):
    result = np.full(view.shape, -1, view.dtype)
    async with view.stream_chunks(ordered=ordered) as chunks:
        async for chunk in chunks:
            result[chunk.region] = chunk.data
    return result


@pytest.mark.parametrize("kind", ["blocking", "awaited"])
@pytest.mark.parametrize("seed", range(6))
async def test_any_selection_upon_any_other_equals_numpy(seed, kind):
    rng = random.Random(f"{seed} {kind}")
    for _ in range(40):
        shape, chunks, shards = a_grid(rng, rng.randint(1, 3))
        store = azarr.MemoryStore() if kind == "blocking" else azarr.LatencyStore(azarr.MemoryStore(), 0)
        array = await azarr.create_array(store, shape=shape, dtype="i4", chunks=chunks, shards=shards)
        data = np.array([rng.randint(1, 999) for _ in range(array.size)], "i4")
        await array.write(data.reshape(shape))
        model = Model(array, np.arange(array.size).reshape(shape))
        for _ in range(rng.randint(1, 3)):
            model = rng.choice([basic, outer, points])(rng, model)
        view, expected = model.view, data[model.positions]
        np.testing.assert_array_equal(await view, expected, strict=True)
        out = np.full((*expected.shape, 2), -1, "i4")[..., 0]
        np.testing.assert_array_equal(await view.read(out=out), expected)
        np.testing.assert_array_equal(await streamed(view, rng.random() < 0.5), expected)
        if len(np.unique(model.positions)) == model.positions.size:
            data[model.positions] = values = np.arange(1000, 1000 + expected.size, dtype="i4").reshape(expected.shape)
            await view.write(values)
            np.testing.assert_array_equal(await array, data.reshape(shape))


async def test_blocks_are_whole_chunks():
    array = await azarr.create_array(azarr.MemoryStore(), shape=(7, 9), dtype="i4", chunks=(3, 4))
    data = np.arange(63, dtype="i4").reshape(7, 9)
    await array.write(data)
    np.testing.assert_array_equal(await array.blocks[1, 2], data[3:6, 8:9])
    np.testing.assert_array_equal(await array.blocks[-1], data[6:])
    np.testing.assert_array_equal(await array.blocks[1:, :2], data[3:, :8])
    unequal = await azarr.create_array(azarr.MemoryStore(), shape=(7, 9), dtype="i4", chunks=([2, 4, 1, 5], 4))
    await unequal.write(data)
    np.testing.assert_array_equal(await unequal.blocks[1, 2], data[2:6, 8:9])
    np.testing.assert_array_equal(await unequal.blocks[-1], data[6:])
    np.testing.assert_array_equal(await unequal.blocks[1:, :2], data[2:, :8])
    assert unequal.blocks[3:].shape == (0, 9)
    with pytest.raises(SelectionError, match="index 3 is out of range for length 3"):
        unequal.blocks[3]
    with pytest.raises(SelectionError, match="without a step"):
        array.blocks[::2]
    with pytest.raises(SelectionError, match="index 3 is out of range for length 3"):
        array.blocks[3]


async def test_dimensions_are_selected_by_name():
    array = await azarr.create_array(azarr.MemoryStore(), shape=(5, 4, 3), dtype="i4", dimension_names=("time", None, "x"))
    data = np.arange(60, dtype="i4").reshape(5, 4, 3)
    await array.write(data)
    np.testing.assert_array_equal(await array.sel(time=slice(1, 3), x=-1), data[1:3, :, -1])
    view = array.sel(x=[2, 0])
    assert view.names == ("time", None, "x")
    np.testing.assert_array_equal(await view.sel(time=0), data[0][:, [2, 0]])
    with pytest.raises(SelectionError, match="no dimension"):
        array.sel(y=0)


@pytest.mark.parametrize(
    ("select", "message"),
    [
        (lambda a: a.oindex[[0, 9]], "index 9 is out of range for length 4"),
        (lambda a: a.oindex[[0.5]], "whole numbers or a mask"),
        (lambda a: a.oindex[[[0, 1]]], "must have 1 dimension"),
        (lambda a: a.oindex[:, [True, False]], "a mask of 2 elements does not fit length 5"),
        (lambda a: a.vindex[[0, 1]], "coordinates for each of 2 dimensions"),
        (lambda a: a.vindex[[0, 1], :], "slices go to oindex"),
        (lambda a: a.vindex[[0, 1], [0, 1, 2]], "do not broadcast"),
        (lambda a: a.vindex[np.ones((4, 4), bool)], "does not fit the shape"),
        (lambda a: a[[0, 1]], "indices and masks go to oindex or vindex"),
    ],
)
async def test_impossible_selections_say_why(select, message):
    array = await azarr.create_array(azarr.MemoryStore(), shape=(4, 5), dtype="i4")
    with pytest.raises(SelectionError, match=message):
        select(array)
