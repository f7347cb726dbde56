from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.errors import SelectionError, ZarrError
from azarr.selection import AxisSelection, Selection

shapes = st.lists(st.integers(0, 9), max_size=4).map(tuple)


def elements(selection: Selection, array: np.ndarray) -> np.ndarray:
    """What ``selection`` means, by its definition: every ``step``-th element from ``start`` on, ``length`` times."""
    for number, axis in enumerate(selection.axes):
        array = array.take([axis.start + count * axis.step for count in range(axis.length)], axis=number)
    return array.reshape(selection.shape)


@given(shapes, st.data())
def test_composed_selections_are_numpys(basic_keys, shape, data):
    array = expected = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    selection = Selection.whole(shape)
    for _ in range(data.draw(st.integers(1, 3))):
        key = data.draw(basic_keys(expected.shape))
        selection, expected = selection.select(key), np.asarray(expected[key])
        assert selection.shape == expected.shape
        assert selection.size == expected.size
        assert np.array_equal(elements(selection, array), expected)
        assert all(axis.step > 0 and axis.length >= 0 for axis in selection.axes)


def test_the_whole_of_a_shape():
    whole = Selection.whole((3, 0, 2))
    assert whole.axes == (AxisSelection(0, 3), AxisSelection(0, 0), AxisSelection(0, 2))
    assert whole.shape == whole.full_shape == (3, 0, 2)
    assert whole.dropped == ()
    assert whole.size == 0


def test_integers_drop_their_axis_from_the_shape_and_keep_it_in_the_full_shape():
    selection = Selection.whole((5, 6, 7)).select((2, slice(None), -1))
    assert selection.shape == (6,)
    assert selection.full_shape == (1, 6, 1)
    assert selection.dropped == (0, 2)
    assert selection.size == 6


def test_a_scalar_array_is_one_element():
    scalar = Selection.whole(())
    assert scalar.shape == ()
    assert scalar.size == 1
    assert scalar.select(()) == scalar.select(...) == scalar.select((...,)) == scalar


def test_an_ellipsis_alone_changes_nothing():
    whole = Selection.whole((2, 3))
    assert whole.select(...) is whole


@pytest.mark.parametrize("index", [np.int8(2), np.uint64(2), np.array(2), -3])
def test_whatever_is_an_index_selects(index):
    assert Selection.whole((5,)).select(index).axes == (AxisSelection(2, 1, 1, dropped=True),)


def test_lengths_beyond_64_bits_of_elements_cost_nothing():
    selection = Selection.whole((10**12, 10**12)).select((slice(7, None, 10**6), -1))
    assert selection.shape == (10**6,)
    assert selection.axes[1].start == 10**12 - 1


@pytest.mark.parametrize("step", [2**62, 2**63, 10**30])
def test_a_step_beyond_the_array_selects_one_element(step):
    assert Selection.whole((5,)).select(slice(1, None, step)).shape == (1,)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (3, "axis 0: index 3 is out of range for length 3"),
        (-4, "axis 0: index -4 is out of range"),
        ((0, 4), "axis 1: index 4 is out of range for length 4"),
        ((0, 0, 0), "too many indices: 3 for 2 dimensions"),
        ((0, 0, ..., 0), "too many indices: 3 for 2 dimensions"),
        ((..., ...), "one ellipsis"),
        (slice(None, None, 0), "step other than 0"),
        (slice(0.5, None), "not a slice of whole numbers"),
        (slice("a", "b"), "not a slice of whole numbers"),
        (None, "neither an integer nor a slice"),
        (1.0, "neither an integer nor a slice"),
        (True, "neither an integer nor a slice"),
        (np.bool_(True), "neither an integer nor a slice"),
        ("name", "neither an integer nor a slice"),
        ([0, 1], "neither an integer nor a slice"),
        (np.array([0, 1]), "neither an integer nor a slice"),
        (np.zeros((3, 4), bool), "neither an integer nor a slice"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_an_impossible_selection_says_why(key, message):
    with pytest.raises(SelectionError, match=message) as caught:
        Selection.whole((3, 4)).select(key)
    assert isinstance(caught.value, ZarrError)
    assert isinstance(caught.value, IndexError)


def test_the_axis_in_an_error_is_that_of_the_view():
    view = Selection.whole((3, 4)).select(0)
    with pytest.raises(SelectionError, match="axis 0: index 4 is out of range for length 4"):
        view.select(4)


def test_nothing_can_be_taken_from_an_empty_axis():
    with pytest.raises(SelectionError, match="out of range for length 0"):
        Selection.whole((0,)).select(0)


def test_the_error_about_a_huge_index_is_short():
    with pytest.raises(SelectionError) as caught:
        Selection.whole((3,)).select(list(range(10_000)))
    assert len(str(caught.value)) < 200
