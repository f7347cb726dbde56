from __future__ import annotations

import pytest

from azarr.errors import MetadataError
from azarr.paths import above, check_name, depth, is_below, prefix_of, relative


def test_what_is_above():
    assert above("") == []
    assert above("a") == [""]
    assert above("a/b/c") == ["", "a", "a/b"]


@pytest.mark.parametrize(
    ("path", "top", "expected"),
    [("a", "", True), ("", "", True), ("a/b", "a", True), ("a", "a", True), ("ab", "a", False), ("a", "a/b", False), ("", "a", False)],
)
def test_what_is_below(path, top, expected):
    assert is_below(path, top) == expected


def test_paths_relative_to_another():
    assert (relative("a/b", ""), relative("a/b", "a"), relative("a", "a")) == ("a/b", "b", "")


def test_depth_and_prefix():
    assert [depth(path) for path in ("", "a", "a/b")] == [0, 1, 2]
    assert (prefix_of(""), prefix_of("a")) == ("", "a/")


@pytest.mark.parametrize("path", ["__a", "a/__b", "zarr.json"])
def test_names_that_only_v3_reserves(path):
    check_name(path, 2)
    with pytest.raises(MetadataError, match="not a node name"):
        check_name(path, 3)
