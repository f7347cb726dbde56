"""Placement: which parts of which chunks an item is. What is refused is tested where streams are written."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import azarr
from azarr.placement import Target, as_coords, said_coords, size_of
from azarr.selection import Selection

DATA = np.arange(30 * 34, dtype="i4").reshape(30, 34)


async def target_of(key=..., **options):
    array = await azarr.create_array(azarr.MemoryStore(), shape=DATA.shape, dtype="i4", **{"chunks": (5, 8), **options})
    return Target(array.source, Selection.whole(DATA.shape).select(key), array.metadata)


@pytest.mark.parametrize("options", [{}, {"shards": (10, 16)}, {"chunks": [[7, 13, 10], [4, 30]]}], ids=str)
@pytest.mark.parametrize(
    "key",
    [..., (slice(3, 28), slice(2, 33)), (slice(None, None, 3), slice(None, None, -2)), (4, slice(None)), (slice(None, None, -1), 33)],
    ids=str,
)
async def test_parts_of_chunks_are_where_the_view_has_them(options, key):
    target = await target_of(key, **options)
    view = DATA[key]
    numbers = np.arange(int(np.prod(target.grid_shape))).reshape(target.grid_shape)
    seen = {}
    for starts in itertools.product(*(range(0, length, 7) for length in view.shape)):
        region = tuple(slice(start, min(start + 7, length)) for start, length in zip(starts, view.shape, strict=True))
        place = target.place((region, None))
        assert place.selection.shape == view[region].shape
        for piece in target.pieces(place, np.zeros(place.selection.full_shape)):
            touched = target.touched(piece, place.origin)
            assert target.first(piece) == target.coords(touched[0][0])
            assert sum(np.prod([stop - start for start, stop in box]) for _, box, _ in touched) == size_of(piece)
            for number, box, bounds in touched:
                assert number in numbers
                if bounds != box:
                    assert bounds == target.bounds(target.coords(number))
                part = seen.setdefault(number, np.zeros(target.selection.full_shape, int))
                part[tuple(slice(*side) for side in box)] += 1
    together = sum(seen.values())
    assert (together == 1).all()  # each element once, in one chunk
    for number, part in seen.items():
        inside = tuple(slice(*side) for side in target.bounds(target.coords(number)))
        assert part[inside].all()
        assert part.sum() == part[inside].sum()


async def test_coordinates_are_the_region_of_the_chunk():
    for options in ({}, {"shards": (10, 16)}, {"chunks": [[7, 13, 10], [4, 30]]}):
        target = await target_of(**options)
        for coords in itertools.product(*map(range, target.grid_shape)):
            region = target.source.region(coords)
            by_coords, by_region = target.place((coords, None)), target.place((region, None))
            assert by_coords.selection == by_region.selection
            assert by_coords.origin == by_region.origin
            values = np.zeros(by_coords.selection.shape)
            one, other = target.pieces(by_coords, values), target.pieces(by_region, values)
            assert [piece[:2] for piece in one] == [piece[:2] for piece in other]
            assert target.touched(one[0], by_coords.origin) == target.touched(other[0], by_region.origin)


async def test_numbers_of_chunks_are_in_c_order():
    target = await target_of()
    assert target.grid_shape == (6, 5)
    assert [target.coords(number) for number in (0, 4, 5, 29)] == [(0, 0), (0, 4), (1, 0), (5, 4)]
    assert target.bounds((5, 4)) == ((25, 30), (32, 34))
    assert (await target_of((slice(0, 3), slice(None)))).bounds((5, 4)) == ((0, 0), (32, 34))


def test_what_an_item_says_of_its_coordinates():
    assert as_coords((1, np.int8(2))) == (1, 2)
    assert as_coords((1, 2.0)) is None
    assert as_coords((True,)) is None
    assert said_coords(((3, 4), None)) == (3, 4)
    assert said_coords(azarr.Chunk((1,), (slice(0, 2),), None)) == (1,)
    assert said_coords(7) is None
    assert said_coords(()) is None
    assert said_coords(((slice(3),), None)) is None
