from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.axis_plans import AxisPlan
from azarr.chunk_grids import RegularGrid
from azarr.projections import REMEMBERED, Plan, Projection, plan_of
from azarr.selection import AxisSelection, Selection


def unit_at(coords):
    """The storage unit at ``coords``, of which a plan of slices needs nothing else."""
    return Projection(coords, (), (), covers=False, full=False)


@dataclass
class Case:
    """An array whose elements are their own numbers, its chunks, and a selection of it."""

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]
    selection: Selection

    @property
    def plan(self) -> Plan:
        return plan_of(self.selection, self.chunk_shape, self.shape)

    @property
    def array(self) -> np.ndarray:
        return np.arange(math.prod(self.shape)).reshape(self.shape)

    @property
    def selected(self) -> np.ndarray:
        """With every axis of the array, dropped ones with length 1."""
        return self.array[
            np.ix_(*([axis.start + count * axis.step for count in range(axis.length)] for axis in self.selection.axes))
        ].astype(int)

    def chunk(self, coords: tuple[int, ...]) -> np.ndarray:
        """A whole chunk; -1 where it hangs over the edge."""
        region = RegularGrid(self.shape, self.chunk_shape).region(coords)
        chunk = np.full(self.chunk_shape, -1)
        chunk[tuple(slice(0, part.stop - part.start) for part in region)] = self.array[region]
        return chunk


any_case = given(st.data())


@pytest.fixture(scope="module")
def draw_case(basic_keys):
    def draw(data: st.DataObject) -> Case:
        lengths = data.draw(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 3) | st.integers(1, 14)), max_size=3), "lengths")
        shape, chunk_shape = tuple(length for length, _ in lengths), tuple(chunk for _, chunk in lengths)
        selection = Selection.whole(shape)
        for _ in range(data.draw(st.integers(0, 3), "selections")):
            selection = selection.select(data.draw(basic_keys(selection.shape)))
        return Case(shape, chunk_shape, selection)

    return draw


@any_case
def test_projections_place_every_element_once(draw_case, data):
    case = draw_case(data)
    out = np.full(case.selection.full_shape, -2)
    placed = np.zeros(case.selection.full_shape, int)
    for projection in case.plan.projections():
        out[projection.out] = case.chunk(projection.coords)[projection.chunk]
        placed[projection.out] += 1
    assert np.array_equal(out, case.selected)
    assert (placed == 1).all()


@any_case
def test_projections_meet_each_chunk_once_in_c_order(draw_case, data):
    case = draw_case(data)
    coords = [projection.coords for projection in case.plan.projections()]
    assert coords == sorted(set(coords))
    assert len(coords) == case.plan.nchunks
    grid = RegularGrid(case.shape, case.chunk_shape).grid_shape
    assert all(0 <= index < count for each in coords for index, count in zip(each, grid, strict=True))


@any_case
def test_covers_and_full_are_exact(draw_case, data):
    case = draw_case(data)
    selected = set(case.selected.ravel().tolist())
    for projection in case.plan.projections():
        chunk = case.chunk(projection.coords)
        stored = set(chunk[chunk >= 0].tolist())
        assert selected & stored, "a chunk is met that has nothing of the selection"
        assert projection.covers == (stored <= selected)
        assert projection.full == (projection.covers and bool((chunk >= 0).all()))


@given(st.data(), st.integers(1, 5), st.booleans())
def test_runs_are_the_projections_in_a_row(draw_case, data, longest, aligned):
    case = draw_case(data)
    align = tuple(data.draw(st.integers(1, 4)) for _ in case.shape) if aligned else None
    runs = list(case.plan.runs(longest, align=align))
    assert [each for run in runs for each in run.projections()] == list(case.plan.projections())
    for run in runs:
        projections = list(run.projections())
        assert 1 <= run.length == len(projections) <= longest
        assert run.coords == projections[0].coords
        assert run.chunk_coords() == [projection.coords for projection in projections]
        assert run.full == all(projection.full for projection in projections)
        covered = np.zeros(case.selection.full_shape, int)
        for projection in projections:
            covered[projection.out] += 1
        assert (covered[run.out] == 1).all()
        assert covered.sum() == covered[run.out].size
        if align is not None:
            units = {tuple(index // count for index, count in zip(each, align, strict=True)) for each in run.chunk_coords()}
            assert len(units) == 1


@any_case
def test_runs_are_as_long_as_they_may_be(draw_case, data):
    case = draw_case(data)
    runs = list(case.plan.runs(10**9))
    several = [number for number, axis in enumerate(case.plan.axes) if len(axis) > 1]
    for before, after in itertools.pairwise(runs):
        assert before.axis == after.axis == max(several)
        continues = after.coords[:-1] == before.coords[:-1] and after.coords[after.axis] == before.coords[before.axis] + before.length
        same_row = all(before.coords[number] == after.coords[number] for number in range(len(case.shape)) if number != after.axis)
        if continues and same_row:
            assert before.parts[-1].full != after.parts[0].full


@any_case
def test_within_is_the_part_that_lies_in_a_unit(draw_case, data):
    case = draw_case(data)
    per_unit = tuple(data.draw(st.integers(1, 4)) for _ in case.shape)
    expected: dict[tuple[int, ...], list[Projection]] = {}
    for projection in case.plan.projections():
        unit = tuple(index // count for index, count in zip(projection.coords, per_unit, strict=True))
        expected.setdefault(unit, []).append(projection)
    grid = RegularGrid(case.shape, case.chunk_shape).grid_shape
    units = itertools.product(*(range(-(-count // each)) for count, each in zip(grid, per_unit, strict=True)))
    found = {unit: list(case.plan.within(unit_at(unit), per_unit).projections()) for unit in units}
    assert {unit: inside for unit, inside in found.items() if inside} == expected


def test_a_scalar_array_is_one_full_chunk():
    plan = plan_of(Selection.whole(()), (), ())
    (projection,) = plan.projections()
    assert projection == ((), (), (), True, True)
    (run,) = plan.runs(10)
    assert (run.length, run.full, run.chunk_coords(), list(run.projections())) == (1, True, [()], [projection])
    assert plan.nchunks == 1
    assert list(plan.within(unit_at(()), ()).projections()) == [projection]


@pytest.mark.parametrize("shape", [(0,), (3, 0), (0, 0, 5)])
def test_an_array_without_elements_meets_no_chunks(shape):
    plan = plan_of(Selection.whole(shape), (2,) * len(shape), shape)
    assert plan.nchunks == 0
    assert list(plan.projections()) == []
    assert list(plan.runs(10)) == []


@pytest.mark.parametrize(
    ("shape", "nchunks"),
    [((10**9,), 10**9), ((10**12,), 10**12), ((10**6, 10**6), 10**12), ((10**3, 10**9), 10**12), ((10**9, 10**3), 10**12)],
)
def test_a_plan_over_a_trillion_chunks_starts_at_once(shape, nchunks):
    plan = plan_of(Selection.whole(shape), (1,) * len(shape), shape)
    assert plan.nchunks == nchunks
    last = len(shape) - 1
    first = list(itertools.islice(plan.projections(), 3))
    assert [projection.coords[last] for projection in first] == [0, 1, 2]
    runs = list(itertools.islice(plan.runs(1000), 3))
    assert [run.chunk_coords()[0][last] for run in runs] == ([0, 1000, 2000] if shape[last] > 3000 else [0, 0, 0])
    inside = plan.within(unit_at((0,) * last + (5,)), (1,) * last + (10,))
    assert [projection.coords[last] for projection in itertools.islice(inside.projections(), 100)] == list(range(50, 60))


def test_a_selection_with_steps_over_a_trillion_chunks_skips_those_between():
    shape = (10**15,)
    selection = Selection.whole(shape).select(slice(17, None, 10**6))
    plan = plan_of(selection, (1000,), shape)
    assert plan.nchunks == 10**9
    assert [projection.coords for projection in itertools.islice(plan.projections(), 3)] == [(0,), (1000,), (2000,)]
    assert plan.axes[0][10**9 - 1].out == slice(10**9 - 1, 10**9)


def test_a_run_ends_where_a_chunk_is_passed_over():
    plan = plan_of(Selection.whole((12,)).select(slice(None, None, 3)), (2,), (12,))  # elements 0, 3, 6, 9
    assert [run.chunk_coords() for run in plan.runs(100)] == [[(0,), (1,)], [(3,), (4,)]]


@pytest.mark.parametrize("count", [REMEMBERED, REMEMBERED + 1])
def test_long_axes_are_planned_as_short_ones(count):
    plan = plan_of(Selection.whole((2, count, 2)), (1, 1, 1), (2, count, 2))
    assert [projection.coords for projection in plan.projections()] == list(itertools.product(range(2), range(count), range(2)))
    assert sum(run.length for run in plan.runs(7)) == plan.nchunks == 4 * count


def test_a_long_axis_is_cut_into_runs_as_a_short_one():
    long, chunk = REMEMBERED + 3, 2
    plan = plan_of(Selection.whole((2, long * chunk - 1)), (1, chunk), (2, long * chunk - 1))
    runs = list(plan.runs(1000))
    assert [run.length for run in runs] == 2 * [1000, 1000, 1000, 1000, long - 4001, 1]
    assert [run.full for run in runs] == 2 * [True, True, True, True, True, False]


def test_one_axis_in_numbers():
    plan = AxisPlan(AxisSelection(start=3, length=4, step=3), chunk=4, length=14)  # elements 3, 6, 9, 12
    assert [(part.place, part.chunk, part.out) for part in plan] == [
        (0, slice(3, 4, 3), slice(0, 1)),
        (1, slice(2, 3, 3), slice(1, 2)),
        (2, slice(1, 2, 3), slice(2, 3)),
        (3, slice(0, 1, 3), slice(3, 4)),
    ]
    assert len(plan) == 4
    assert [part.place for part in plan.within(1, 3)] == [1, 2]
    assert [part.out for part in plan.within(1, 3)] == [slice(1, 2), slice(2, 3)]
    assert len(plan.within(4, 9)) == 0
