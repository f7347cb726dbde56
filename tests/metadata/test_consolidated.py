from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.errors import MetadataError
from azarr.metadata.consolidated import Consolidated, index_of, parse_node, parse_v2, parse_v3
from azarr.metadata.model import ArrayMetadata, GroupMetadata

GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}}
ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [4],
    "data_type": "int32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
    "chunk_key_encoding": {"name": "default"},
    "fill_value": 0,
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
}
ZARRAY = {"zarr_format": 2, "shape": [4], "chunks": [2], "dtype": "<i4", "compressor": None, "fill_value": 0, "order": "C", "filters": None}
ZGROUP = {"zarr_format": 2}


def v3(nodes):
    return {"kind": "inline", "must_understand": False, "metadata": nodes}


def v2(documents):
    return {"zarr_consolidated_format": 1, "metadata": documents}


def test_nodes_of_v3_are_found_by_their_paths():
    consolidated = parse_v3(v3({"g": GROUP, "g/x": ARRAY}), "top")
    assert consolidated.metadata("g") == GroupMetadata(3, {"a": 1})
    assert isinstance(consolidated.metadata("g/x"), ArrayMetadata)
    assert consolidated.metadata("x") is None
    assert json.loads(json.dumps(consolidated.to_json())) == v3({"g": GROUP, "g/x": ARRAY})


def test_nodes_of_v2_are_found_by_their_paths():
    document = v2(
        {".zgroup": ZGROUP, ".zattrs": {"r": 1}, "g/.zgroup": ZGROUP, "g/.zattrs": {"a": 1}, "g/x/.zarray": ZARRAY, ".nczgroup": 5}
    )
    consolidated = parse_v2(document, "")
    assert consolidated.metadata("") == GroupMetadata(2, {"r": 1})
    assert consolidated.metadata("g") == GroupMetadata(2, {"a": 1})
    assert consolidated.metadata("g/x").shape == (4,)
    assert json.loads(json.dumps(consolidated.to_json())) == document


def test_metadata_are_parsed_when_they_are_asked_for():
    consolidated = parse_v3(v3({"bad": {"zarr_format": 3}, "good": GROUP}), "top")
    assert consolidated.metadata("good") is not None
    with pytest.raises(MetadataError, match="top/bad: node_type") as caught:
        consolidated.metadata("bad", top="top")
    assert caught.value.path == "top/bad"


def test_attributes_alone_make_no_node():
    assert parse_v2(v2({"a/.zattrs": {}}), "").metadata("a") is None


def test_what_nested_groups_say_of_their_own_is_left_out():
    consolidated = parse_v3(v3({"g": {**GROUP, "consolidated_metadata": v3({})}}), "")
    assert consolidated.metadata("g") == GroupMetadata(3, {"a": 1})


@pytest.mark.parametrize("document", [None, {"kind": "elsewhere", "url": "x"}, {"kind": None}, {}])
def test_an_unknown_kind_is_ignored(document):
    assert parse_v3(document, "") is None


@pytest.mark.parametrize(
    "document",
    [
        5,
        [],
        "inline",
        {"kind": "inline"},
        v3(None),
        v3([]),
        v3({"a": None}),
        v3({"a": []}),
        v3({"": GROUP}),
        v3({"/a": GROUP}),
        v3({"a/": GROUP}),
        v3({"a/../b": GROUP}),
        v3({".": GROUP}),
        v3({"a\\b": GROUP}),
        v3({"a\x00": GROUP}),
        v3({"a//b": GROUP}),
        v3({"a/" * 70 + "b": GROUP}),
        v3({"x" * 2000: GROUP}),
    ],
)
def test_malformed_documents_of_v3(document):
    with pytest.raises(MetadataError, match="use_consolidated=False") as caught:
        parse_v3(document, "top")
    assert caught.value.path == "top"


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"zarr_consolidated_format": 1},
        {"zarr_consolidated_format": 2, "metadata": {}},
        {"zarr_consolidated_format": True, "metadata": {}},
        v2([]),
        v2({".zgroup": 5}),
        v2({"a/.zarray": None}),
        v2({"../.zgroup": ZGROUP}),
        v2({"a//.zattrs": {}}),
    ],
)
def test_malformed_documents_of_v2(document):
    with pytest.raises(MetadataError, match="use_consolidated=False"):
        parse_v2(document, "top")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5) | st.sampled_from([*ARRAY, *ZARRAY]), inner, max_size=4)
    ),
    max_leaves=12,
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(["a", "a/b", "..", "", "a/.zarray", ".zgroup", "kind"]) | st.text(max_size=6), JSON, max_size=4))
def test_hostile_documents_meet_metadata_errors_only(nodes):
    for parse, document in ((parse_v3, v3(nodes)), (parse_v2, v2(nodes)), (parse_v3, nodes), (parse_v2, nodes)):
        try:
            consolidated = parse(document, "top")
        except MetadataError:
            continue
        for path in consolidated.documents if consolidated is not None else ():
            try:
                consolidated.metadata(path)
            except MetadataError:
                continue
        if consolidated is not None:
            list(consolidated.below())


def test_children_and_what_is_below():
    consolidated = Consolidated(3, {path: {"zarr.json": GROUP} for path in ("b", "a", "a/y", "a/x", "hole/x/y", "a/x/z")})
    assert consolidated.children() == ["a", "b", "hole"]
    assert consolidated.children("a") == ["a/x", "a/y"]
    assert consolidated.children("b") == consolidated.children("nowhere") == []
    assert consolidated.children("hole") == ["hole/x"]
    assert list(consolidated.below()) == ["a", "b", "a/x", "a/y", "a/x/z", "hole/x/y"]
    assert list(consolidated.below("", 1)) == ["a", "b"]
    assert list(consolidated.below("a")) == ["a/x", "a/y", "a/x/z"]
    assert list(consolidated.below("", 0)) == []


PATHS = st.lists(st.sampled_from("abc"), min_size=1, max_size=4).map("/".join)


@given(st.sets(PATHS))
def test_the_index_is_that_of_a_tree(paths):
    index = index_of(paths)
    everything = {"/".join(path.split("/")[:count]) for path in paths for count in range(1, path.count("/") + 2)}
    for upper in {"", *everything}:
        assert index.get(upper, []) == sorted(path for path in everything if path.rpartition("/")[0] == upper)


@given(st.sets(PATHS), st.lists(st.tuples(st.booleans(), PATHS), max_size=6))
def test_changes_are_those_of_a_dictionary(paths, changes):
    consolidated = Consolidated(3, {path: {"zarr.json": GROUP} for path in paths})
    model = dict(consolidated.documents)
    for put, path in changes:
        before = dict(consolidated.documents)
        old = consolidated
        if put:
            consolidated = consolidated.with_node(path, {"zarr.json": ARRAY})
            model[path] = {"zarr.json": ARRAY}
        else:
            consolidated = consolidated.without(path)
            model = {each: own for each, own in model.items() if each != path and not each.startswith(f"{path}/")}
        assert consolidated.documents == model
        assert old.documents == before
    again = parse_v3(json.loads(json.dumps(consolidated.to_json())), "")
    assert again == consolidated


def test_a_node_needs_documents():
    assert parse_node({}, "a") is None
    assert parse_node({".zarray": ZARRAY, ".zgroup": ZGROUP, ".zattrs": {"n": 1}}, "a").attributes == {"n": 1}


def test_it_compares_and_shows_itself():
    one = Consolidated(3, {"a": {"zarr.json": GROUP}})
    assert one == Consolidated(3, {"a": {"zarr.json": dict(GROUP)}})
    assert one != Consolidated(3, {})
    assert one != 5
    assert repr(one) == "<Consolidated v3 metadata of 1 nodes>"
