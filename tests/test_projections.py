from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.axis_plans import AxisPlan
from azarr.chunk_grids import RegularGrid
from azarr.chunk_lengths import ChunkLengths
from azarr.projections import REMEMBERED, AnyPlan, Plan, PointPlan, Projection, lone_run, plan_of
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
def test_a_chunk_that_is_alone_is_the_only_run_of_its_plan(draw_case, data):
    case = draw_case(data)
    selection = case.selection.forward()
    plan = plan_of(selection, case.chunk_shape, case.shape)
    alone = lone_run(selection, case.chunk_shape, case.shape)
    if not case.shape or plan.nchunks != 1:
        assert alone is None
        return
    assert alone is not None
    (expected,), (found,) = next(plan.runs(1)).projections(), alone.projections()
    assert (found.coords, found.covers, found.full) == (expected.coords, expected.covers, expected.full)
    for shape, part, same in ((case.chunk_shape, expected.chunk, found.chunk), (selection.full_shape, expected.out, found.out)):
        numbers = np.arange(math.prod(shape)).reshape(shape)
        assert np.array_equal(numbers[part], numbers[same or ...])


def test_chunks_of_several_lengths_and_chosen_elements_are_left_to_plans():
    whole = Selection.whole((4,))
    assert lone_run(whole, (ChunkLengths([(4, 1)]),), (4,)) is None
    assert lone_run(whole.outer([0, 1]), (4,), (4,)) is None
    assert lone_run(whole.points([0, 1]), (4,), (4,)) is None
    assert lone_run(whole.select(np.s_[::2]), (2,), (4,)) is None  # as many elements as a chunk has, of two chunks


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


def test_a_run_of_a_billion_full_chunks_is_not_written_out():
    plan = plan_of(Selection.whole((10**12 + 1,)).select(np.s_[1:]), (2,), (10**12 + 1,))
    first, second, third = itertools.islice(plan.runs(10**9, align=(10**8,)), 3)
    assert (first.length, second.length, third.length) == (1, 10**8 - 1, 10**8)
    assert (first.full, second.full, third.full) == (False, True, True)
    assert (third.parts[0].place, third.parts[-1].place) == (10**8, 2 * 10**8 - 1)
    assert third.out == (slice(2 * 10**8 - 1, 4 * 10**8 - 1),)


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


# --- parts of plans, and places in them


def spelled(projection):
    """A projection in terms that can be compared."""

    def parts(each):
        return [part.tolist() if isinstance(part, np.ndarray) else part for part in each]

    return projection.coords, parts(projection.chunk), parts(projection.out), projection.covers, projection.full


def everything(plans):
    return [spelled(projection) for plan in plans for projection in plan.projections()]


@dataclass
class Planned:
    """A plan of chunks with the plan of the units that they lie in."""

    chunks: AnyPlan
    units: AnyPlan
    per_unit: tuple[int, ...]


@st.composite
def planned(draw):
    ndim = draw(st.integers(0, 3))
    shape = tuple(draw(st.integers(0, 12)) for _ in range(ndim))
    chunk_shape = tuple(draw(st.integers(1, 4)) for _ in range(ndim))
    per_unit = tuple(draw(st.integers(1, 3)) for _ in range(ndim))
    unit_shape = tuple(chunk * count for chunk, count in zip(chunk_shape, per_unit, strict=True))
    if draw(st.booleans()):  # chunks of different lengths, each a unit
        pieces = [draw(st.lists(st.integers(1, 5), min_size=length, max_size=length)) for length in shape]
        chunk_shape = unit_shape = tuple(ChunkLengths((length, 1) for length in each) if each else 1 for each in pieces)
        per_unit = (1,) * ndim
    whole = Selection.whole(shape)
    if 0 not in shape and draw(st.booleans()):
        count = draw(st.integers(0, 12))
        selection = whole.points(tuple(np.array([draw(st.integers(0, n - 1)) for _ in range(count)], int) for n in shape))
    else:
        indices = [st.lists(st.integers(0, length - 1), max_size=9).map(lambda each: np.array(each, int)) for length in shape if length]
        axes = iter(indices)
        keys = tuple(draw(st.slices(length) | next(axes)) if length else slice(None) for length in shape)
        selection = whole.outer(keys).forward()
    return Planned(plan_of(selection, chunk_shape, shape), plan_of(selection, unit_shape, shape), per_unit)


@given(planned(), st.data())
def test_a_part_is_that_part_of_the_projections(case, data):
    plan = case.chunks
    first = data.draw(st.integers(0, plan.nchunks))
    last = data.draw(st.integers(0, plan.nchunks))
    parts = plan.part(first, last)
    assert everything(parts) == everything([plan])[first:last]
    assert sum(part.nchunks for part in parts) == max(0, last - first)
    assert all(part.nchunks for part in parts)
    assert len(parts) <= 1 if isinstance(plan, PointPlan) else len(parts) <= max(1, 2 * len(plan.axes) - 1)


@given(planned(), st.data())
def test_parts_of_parts_are_parts(case, data):
    bounds = sorted(data.draw(st.lists(st.integers(0, case.chunks.nchunks), min_size=2, max_size=2)))
    for part in case.chunks.part(*bounds):
        cut = data.draw(st.integers(0, part.nchunks))
        assert everything([*part.part(0, cut), *part.part(cut, part.nchunks)]) == everything([part])


@given(planned(), st.data())
def test_the_number_after_a_place_is_how_many_chunks_come_up_to_it(case, data):
    coords = [projection.coords for projection in case.chunks.projections()]
    ndim = len(case.per_unit)
    places = [*coords, *data.draw(st.lists(st.tuples(*[st.integers(-2, 14)] * ndim), max_size=5))]
    for place in places:
        assert case.chunks.number_after(place) == bisect_right(coords, place)
        assert case.chunks.has(place) == (place in coords)
        assert not case.chunks.has((*place, 0))
        assert not ndim or not case.chunks.has(place[:-1])


@given(planned(), st.data())
def test_inside_are_the_chunks_of_the_units_of_a_part(case, data):
    first, last = sorted(data.draw(st.lists(st.integers(0, case.units.nchunks), min_size=2, max_size=2)))
    parts = case.units.part(first, last)
    units = {projection.coords for part in parts for projection in part.projections()}
    inside = everything(case.chunks.inside(part, case.per_unit) for part in parts)
    expected = [
        each
        for each in everything([case.chunks])
        if tuple(index // count for index, count in zip(each[0], case.per_unit, strict=True)) in units
    ]
    assert sorted(inside, key=lambda each: each[0]) == expected
    for part in parts:  # and within each of the units there
        chunks = case.chunks.inside(part, case.per_unit)
        found = [each for unit in part.projections() for each in everything([chunks.within(unit, case.per_unit)])]
        assert sorted(found, key=lambda each: each[0]) == everything([chunks])


@given(planned(), st.integers(1, 5))
def test_a_single_chunk_of_a_run_is_a_run(case, longest):
    for run in case.chunks.runs(longest):
        singles = [run.single(number) for number in range(run.length)]
        assert all(single.length == 1 for single in singles)
        assert [single.coords for single in singles] == run.chunk_coords()
        assert [single.chunk_coords() for single in singles] == [[coords] for coords in run.chunk_coords()]
        assert everything(singles) == everything([run])
        assert run.full == all(single.full for single in singles)
        for single in singles:
            (projection,) = single.projections()
            assert single.full == projection.full
            assert not single.full or projection.out == single.out


@pytest.mark.parametrize("shape", [(10**12,), (10**6, 10**6), (10**4, 10**4, 10**4)])
def test_parts_and_places_of_a_trillion_chunks_are_found_at_once(shape):
    plan = plan_of(Selection.whole(shape), (1,) * len(shape), shape)
    parts = plan.part(10**12 // 3, 2 * 10**12 // 3)
    assert sum(part.nchunks for part in parts) == 2 * 10**12 // 3 - 10**12 // 3
    first = next(parts[0].projections()).coords
    assert plan.number_after(first) == 10**12 // 3 + 1
    assert plan.has(first)
    assert not plan.has((*first[:-1], shape[-1]))
    step = Selection.whole(shape).select((slice(3, None, 7),) * len(shape))
    sparse = plan_of(step, (1,) * len(shape), shape)
    assert sparse.has((10,) * len(shape))
    assert not sparse.has((11,) * len(shape))


def test_points_of_a_chunk_stay_together_in_parts():
    points = tuple(np.array(each) for each in ([5, 0, 5, 9, 4], [5, 0, 4, 9, 5]))
    plan = PointPlan(points, (3, 3))
    assert [(each.coords, each.out[0].tolist()) for each in plan.projections()] == [((0, 0), [1]), ((1, 1), [0, 2, 4]), ((3, 3), [3])]
    (part,) = plan.part(1, 3)
    assert [(each.coords, each.out[0].tolist()) for each in part.projections()] == [((1, 1), [0, 2, 4]), ((3, 3), [3])]
    assert [part.number_after(place) for place in ((0, 5), (1, 1), (2, 0), (3, 3))] == [0, 1, 1, 2]
    assert plan.part(2, 2) == []


def test_the_one_element_of_a_scalar_array_is_a_point():
    plan = plan_of(Selection.whole(()).points(()), (), ())
    assert plan.nchunks == 1
    assert plan.has(())
    assert (plan.number_after(()), len(plan.part(0, 1)), plan.part(1, 1)) == (1, 1, [])
    assert [projection.coords for part in plan.part(0, 1) for projection in part.projections()] == [()]
