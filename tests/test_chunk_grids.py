from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.chunk_grids import RegularGrid, parse_chunk_grid
from azarr.errors import MetadataError, UnknownExtensionError


def document(*chunk_shape, **members):
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk_shape)}, **members}


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 11)), max_size=3))
def test_regions_tile_the_array(lengths):
    shape, chunk_shape = tuple(length for length, _ in lengths), tuple(chunk for _, chunk in lengths)
    grid = RegularGrid(shape, chunk_shape)
    met = np.zeros(shape, int)
    every = list(itertools.product(*map(range, grid.grid_shape)))
    for coords in every:
        region = grid.region(coords)
        met[region] += 1
        assert [part.start for part in region] == [index * chunk for index, chunk in zip(coords, chunk_shape, strict=True)]
    assert (met == 1).all()
    assert grid.nchunks == len(every)


@pytest.mark.parametrize(
    ("shape", "chunk_shape", "grid_shape"),
    [((), (), ()), ((0,), (5,), (0,)), ((5,), (5,), (1,)), ((6,), (5,), (2,)), ((7, 0), (2, 3), (4, 0)), ((3,), (10**12,), (1,))],
)
def test_the_shape_of_the_grid(shape, chunk_shape, grid_shape):
    grid = RegularGrid(shape, chunk_shape)
    assert grid.grid_shape == grid_shape
    assert grid.nchunks == np.prod(grid_shape, dtype=int)


def test_grids_beyond_64_bits_are_counted():
    assert RegularGrid((2**62, 2**62), (1, 1)).nchunks == 2**124


def test_the_last_region_ends_with_the_array():
    assert RegularGrid((7, 4), (5, 4)).region((1, 0)) == (slice(5, 7), slice(0, 4))


@pytest.mark.parametrize(("shape", "chunk_shape"), [((5,), (2, 2)), ((), (1,)), ((5, 5), ()), ((5,), (0,)), ((5,), (-1,))])
def test_chunks_that_do_not_fit_the_array_are_refused(shape, chunk_shape):
    with pytest.raises(MetadataError, match="chunk shape"):
        RegularGrid(shape, chunk_shape)


@given(st.lists(st.integers(1, 2**40), max_size=4))
def test_documents_round_trip(chunk_shape):
    shape = (100,) * len(chunk_shape)
    grid = parse_chunk_grid(document(*chunk_shape), shape, "a")
    assert grid == RegularGrid(shape, tuple(chunk_shape))
    assert grid.to_json() == document(*chunk_shape)


def test_must_understand_may_be_said():
    assert parse_chunk_grid(document(2, must_understand=True), (4,), "a") == RegularGrid((4,), (2,))


@pytest.mark.parametrize(
    "illegal",
    [
        None,
        "regular",
        [],
        {},
        {"name": 1},
        {"configuration": {"chunk_shape": [2]}},
        {"name": "regular"},
        {"name": "regular", "configuration": None},
        {"name": "regular", "configuration": [2]},
        {"name": "regular", "configuration": {}},
        {"name": "regular", "configuration": {"chunk_shape": 2}},
        {"name": "regular", "configuration": {"chunk_shape": "2"}},
        document("2"),
        document(2.0),
        document(True),
        document(None),
        document(0),
        document(-2),
        document(2, 2),
        document(),
        document(2, must_understand=False),
        document(2, must_understand=1),
        document(2, chunk_shape=[2]),
        {"name": "regular", "configuration": {"chunk_shape": [2], "origin": [1]}},
    ],
    ids=repr,
)
def test_an_illegal_document_is_refused_with_the_path(illegal):
    with pytest.raises(MetadataError, match="^group/array: ") as caught:
        parse_chunk_grid(illegal, (4,), "group/array")
    assert caught.value.path == "group/array"
    assert not isinstance(caught.value, UnknownExtensionError)


def test_an_unknown_grid_is_named():
    with pytest.raises(UnknownExtensionError, match="a: unknown chunk grid 'rectangular'") as caught:
        parse_chunk_grid({"name": "rectangular", "configuration": {}}, (4,), "a")
    assert caught.value.name == "rectangular"
    assert caught.value.path == "a"
