from __future__ import annotations

import numpy as np
import pytest

from azarr.creation import ArrayOptions
from azarr.metadata.model import GroupMetadata
from azarr.metadata.translation import translated


def array(zarr_format, **options):
    return ArrayOptions(shape=(4, 6), dtype="i2", zarr_format=zarr_format, **options).metadata()


def test_groups_leave_their_consolidated_metadata_behind():
    extension = {"must_understand": False}
    group = GroupMetadata(3, {"a": 1}, {"consolidated_metadata": {}, "x": extension})
    assert translated(group, 3) == GroupMetadata(3, {"a": 1}, {"x": extension})
    assert translated(GroupMetadata(2, {"a": 1}), 3) == GroupMetadata(3, {"a": 1})


def test_an_array_of_the_same_format_is_itself():
    metadata = array(3, dimension_names=["y", "x"])
    assert translated(metadata, 3) is metadata


def test_dimension_names_are_an_attribute_in_v2():
    there = translated(array(3, dimension_names=["y", "x"], attributes={"n": 1}), 2)
    assert (there.dimension_names, there.attributes) == (None, {"_ARRAY_DIMENSIONS": ["y", "x"], "n": 1})
    assert translated(there, 3) == array(3, dimension_names=["y", "x"], attributes={"n": 1})


@pytest.mark.parametrize("names", [["y"], ["y", None], "yx", 5, {"y": 1, "x": 2}, [1, 2]])
def test_other_attributes_of_that_name_stay(names):
    assert translated(array(2, attributes={"_ARRAY_DIMENSIONS": names}), 3).attributes == {"_ARRAY_DIMENSIONS": names}


def test_names_that_v2_cannot_hold_stay_for_it_to_refuse():
    for options in ({"dimension_names": ["y", None]}, {"dimension_names": ["y", "x"], "attributes": {"_ARRAY_DIMENSIONS": ["a", "b"]}}):
        assert translated(array(3, **options), 2).dimension_names is not None


def test_an_undefined_fill_value_becomes_zero():
    from dataclasses import replace

    undefined = replace(array(2), fill_value=None)
    assert translated(undefined, 3).fill_value == np.int16(0)
    assert translated(undefined, 2).fill_value is None
