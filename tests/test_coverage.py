"""What is covered, against sets and masks that say the same at length."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.coverage import Coverage, Part, Runs, joined, volume, without

steps = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(1, 6)), max_size=60)


@given(steps)
def test_runs_are_a_set_of_numbers(todo):
    runs, expected = Runs(), set()
    for adds, first, length in todo:
        if adds:
            runs.add(first, first + length)
            expected |= set(range(first, first + length))
        else:
            runs.discard(first)
            expected.discard(first)
        spans = list(runs)
        assert [number for start, stop in spans for number in range(start, stop)] == sorted(expected)
        # neighbours are one run
        assert all(stop < start for (_, stop), (start, _) in itertools.pairwise(spans))
        assert len(runs) == len(spans)
        assert runs.size == len(expected)
        assert [number in runs for number in range(40)] == [number in expected for number in range(40)]


def test_numbers_in_order_are_one_run():
    runs = Runs()
    for number in range(1000):
        runs.add(number)
    assert list(runs) == [(0, 1000)]
    runs.discard(500)
    runs.add(500)
    assert list(runs) == [(0, 1000)]


@st.composite
def boxes(draw, lengths=(7, 5)):
    box = []
    for length in lengths:
        start = draw(st.integers(0, length - 1))
        box.append((start, draw(st.integers(start + 1, length))))
    return tuple(box)


def marked(box):
    mask = np.zeros((7, 5), int)
    mask[tuple(slice(*side) for side in box)] = 1
    return mask


@given(boxes(), boxes())
def test_without_leaves_what_is_outside_once(box, hole):
    rest = sum((marked(each) for each in without(box, hole)), np.zeros((7, 5), int))
    assert np.array_equal(rest, marked(box) * (1 - marked(hole)))


@given(boxes(), boxes())
def test_boxes_are_joined_only_where_they_make_a_box(one, other):
    whole = joined(one, other)
    if whole is not None:
        assert np.array_equal(marked(one) + marked(other), marked(whole))


@given(st.lists(st.tuples(st.booleans(), boxes()), max_size=20), boxes())
def test_a_part_is_a_mask(todo, probe):
    part, mask = Part(((0, 7), (0, 5))), np.zeros((7, 5), bool)
    for adds, box in todo:
        region = tuple(slice(*side) for side in box)
        (part.add if adds else part.discard)(box)
        mask[region] = adds
        assert np.array_equal(sum(map(marked, part.boxes), np.zeros((7, 5), int)), mask)
        assert part.size == mask.sum()
        assert part.complete == mask.all()
    assert part.has(probe) == mask[tuple(slice(*side) for side in probe)].all()


@pytest.mark.parametrize("seed", range(5))
def test_rows_in_any_order_end_as_one_box(seed):
    part = Part(((0, 50), (3, 9)))
    for row in np.random.default_rng(seed).permutation(50).tolist():
        assert not part.complete
        part.add(((row, row + 1), (3, 9)))
    assert part.complete
    assert part.boxes == [((0, 50), (3, 9))]


def test_a_chunk_whose_parts_are_complete_is_whole():
    coverage, bounds = Coverage(), ((0, 2), (0, 4))
    coverage.add(7, ((0, 2), (0, 3)), bounds)
    coverage.add(7, ((0, 1), (2, 4)), bounds)
    assert not coverage.has(7, bounds)
    assert coverage.has(7, ((0, 1), (0, 4)))
    assert list(coverage.whole) == []
    coverage.add(7, ((1, 2), (3, 4)), bounds)
    assert list(coverage.whole) == [(7, 8)]
    assert coverage.parts == {}
    coverage.add(7, ((0, 1), (0, 1)), bounds)  # again: nothing new
    assert coverage.parts == {}
    assert coverage.has(7, ((0, 1), (1, 2)))
    coverage.discard(7, ((0, 1), (0, 4)), bounds)
    assert list(coverage.whole) == []
    assert coverage.parts[7].boxes == [((1, 2), (0, 4))]
    coverage.discard(7, ((1, 2), (0, 4)), bounds)
    assert coverage.parts == {}
    coverage.discard(7, bounds, bounds)


def test_a_copy_changes_on_its_own():
    coverage, bounds = Coverage(), ((0, 2),)
    coverage.add(0, bounds, bounds)
    coverage.add(5, ((0, 1),), bounds)
    other = coverage.copy()
    other.discard(0, bounds, bounds)
    other.discard(5, ((0, 1),), bounds)
    other.add(3, bounds, bounds)
    assert list(coverage.whole) == [(0, 1)]
    assert coverage.parts[5].boxes == [((0, 1),)]
    assert coverage.whole.size == 1


def test_an_array_without_dimensions_has_one_chunk_of_one_element():
    coverage = Coverage()
    assert volume(()) == 1
    assert without((), ()) == []
    coverage.add(0, (), ())
    assert coverage.has(0, ())
    coverage.discard(0, (), ())
    assert not coverage.has(0, ())
