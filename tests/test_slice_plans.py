"""Plans of slices without I/O: which planes are asked for, where rows of chunks end, and what blocks consist of."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.axis_plans import axis_plan
from azarr.errors import SelectionError
from azarr.selection import AxisSelection, IndexSelection
from azarr.slice_plans import Blocks, Planes, Rows, key_of, planes_of
from azarr.stream import Counts


def rows_of(length, chunk):
    return Rows(axis_plan(AxisSelection(0, length), chunk, length), length, backwards=False)


def test_rows_run_as_the_view_does():
    rows = rows_of(10, 4)
    assert [rows.bounds(number) for number in range(rows.count)] == [(0, 4), (4, 8), (8, 10)]
    assert [rows.end(plane) for plane in (0, 3, 9, 4, 1)] == [4, 4, 10, 8, 4]
    assert rows.longest == 4
    backwards = Rows(axis_plan(AxisSelection(0, 10), 4, 10), 10, backwards=True)
    assert [backwards.bounds(number) for number in range(backwards.count)] == [(0, 2), (2, 6), (6, 10)]
    assert [part.tolist() for part in rows.split(np.array([1, 3, 4, 9]))] == [[1, 3], [4], [9]]


def test_rows_of_indices_are_as_long_as_is_handy():
    rows = Rows(axis_plan(IndexSelection(np.arange(100)[::-1]), 4, 100), 100, backwards=False)
    assert [rows.bounds(number) for number in range(rows.count)] == [(0, 64), (64, 100)]


@given(
    length=st.integers(1, 60),
    chunk=st.integers(1, 20),
    step=st.integers(1, 20),
    thickness=st.integers(1, 20),
    longest=st.integers(1, 30),
    enough=st.integers(0, 30),
    unwanted=st.sets(st.integers(0, 60)),
    missing=st.sets(st.integers(0, 60)),
)
def test_blocks_have_each_plane_that_is_wanted_once(length, chunk, step, thickness, longest, enough, unwanted, missing):
    planes, counts = Planes(0, range(0, length, step), length, thickness, dropped=False), Counts()
    plan = Blocks(
        planes,
        rows_of(length, chunk),
        max(longest, enough),
        enough,
        counts=counts,
        keep=lambda start: start not in unwanted,
        stored=lambda low, high: not missing.issuperset(range(low, high)),
    )
    blocks = [block for block in plan if block is not None]
    kept = [start for start in planes.starts if start not in unwanted]
    wanted = [start for start in kept if not missing.issuperset(range(*planes.bounds(start)))]
    assert list(plan.started) == wanted
    assert (counts.filtered, counts.missing) == (len(planes.starts) - len(kept), len(kept) - len(wanted))
    assert sorted({plane for start in wanted for plane in range(*planes.bounds(start))}) == list(itertools.chain(*map(list, blocks)))
    for block in blocks:
        assert 0 < len(block) <= max(longest, enough)
        assert len({plane // chunk for plane in block}) == 1 or len(block) <= enough + chunk


@pytest.mark.parametrize("positions", [[3], [3, 4, 5], [1, 3, 5], [1, 2, 4], [0, 5, 6]])
def test_a_key_selects_the_planes(positions):
    key = key_of(np.array(positions))
    assert np.arange(20)[key].tolist() == positions
    assert isinstance(key, slice) == (len(set(np.diff(positions))) < 2)


def test_planes_by_number_and_name():
    assert planes_of((5, 9), ("a", "b"), "b", 2, None, None, 3) == Planes(1, range(2, 9, 3), 9, 3, dropped=False)
    assert planes_of((5, 9), ("a", None), -2, None, -1, 2, None) == Planes(0, range(0, 4, 2), 4, 1, dropped=True)
    for along in ("c", 2, -3):
        with pytest.raises(SelectionError):
            planes_of((5, 9), ("a", "b"), along, None, None, None, None)
