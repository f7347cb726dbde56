import copy
import json
import math
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from azarr.chunk_grids import RegularGrid
from azarr.chunk_keys import SeparatedKeys
from azarr.data_types import parse_data_type
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.metadata import ArrayMetadata, GroupMetadata, v3
from azarr.types import MAX_NDIM, ChunkSpec, Limits

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

CONFORMANCE = Path(__file__).parents[2].parent / "shared" / "conformance"

ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [10000, 1000],
    "data_type": "float64",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1000, 100]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": "NaN",
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 5}}],
    "attributes": {"foo": 42},
    "dimension_names": ["rows", None],
}
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {"spam": "ham"}}


def without(document, *members):
    return {key: value for key, value in document.items() if key not in members}


def encode(document):
    return json.dumps(document).encode()


def parse(document, **limits):
    return v3.parse(document if isinstance(document, bytes) else encode(document), "/a", Limits(**limits))


def refused(document, match, error=MetadataError, **limits):
    with pytest.raises(error, match=match) as caught:
        parse(document, **limits)
    assert caught.value.path == "/a"
    assert str(caught.value).startswith("/a: ")
    return caught.value


# what documents say


def test_array():
    array = parse(ARRAY)
    assert isinstance(array, ArrayMetadata)
    assert array.zarr_format == 3
    assert array.shape == (10000, 1000)
    assert array.data_type == parse_data_type("float64", "")
    assert array.chunk_grid == RegularGrid((10000, 1000), (1000, 100))
    assert array.chunk_key_encoding == SeparatedKeys("default", "/")
    assert np.isnan(array.fill_value)
    assert [codec.name for codec in array.codecs] == ["bytes", "gzip"]
    assert array.attributes == {"foo": 42}
    assert array.dimension_names == ("rows", None)
    assert array.storage_transformers == ()
    assert array.extensions == {}
    assert replace(array.chunk_spec, fill_value=0) == ChunkSpec((1000, 100), np.dtype("f8"), 0)
    assert np.isnan(array.chunk_spec.fill_value)
    assert array.effective_fill_value is array.fill_value


def test_array_with_as_little_as_there_may_be():
    array = parse(without(ARRAY, "attributes", "dimension_names"))
    assert array.attributes == {}
    assert array.dimension_names is None


def test_scalar_array():
    grid = {"name": "regular", "configuration": {"chunk_shape": []}}
    array = parse(ARRAY | {"shape": [], "chunk_grid": grid, "dimension_names": []})
    assert array.shape == array.dimension_names == array.chunk_grid.chunk_shape == ()


def test_short_hand_names():
    array = parse(ARRAY | {"data_type": {"name": "uint8"}, "fill_value": 0, "codecs": ["bytes"], "chunk_key_encoding": "v2"})
    assert array.data_type.name == "uint8"
    assert array.chunk_key_encoding == SeparatedKeys("v2", ".")
    assert [codec.name for codec in array.codecs] == ["bytes"]


def test_group():
    assert parse(GROUP) == GroupMetadata(3, {"spam": "ham"})
    assert parse(without(GROUP, "attributes")) == GroupMetadata(3)


def test_parsed_mappings_are_as_good_as_bytes():
    assert v3.parse(ARRAY, "/a") == parse(ARRAY)
    assert v3.parse(memoryview(encode(GROUP)), "/a") == v3.parse(bytearray(encode(GROUP)), "/a") == parse(GROUP)


def test_the_last_of_several_equal_members_counts():
    assert parse(b'{"zarr_format": 2, "node_type": "group", "zarr_format": 3}') == GroupMetadata(3)


def test_numbers_beyond_float64_are_exact():
    document = ARRAY | {"data_type": "uint64", "fill_value": 2**64 - 1, "attributes": {"big": 2**70 + 1}}
    array = parse(document)
    assert int(array.fill_value) == 2**64 - 1
    assert array.attributes == {"big": 2**70 + 1}


# what is wrong with documents


@pytest.mark.parametrize("document", [b"", b"{", b'{"zarr_format": 3,}', b"\xff{}", encode(GROUP)[:-1], json.dumps(GROUP).encode("utf-16")])
def test_malformed_json(document):
    refused(document, r"zarr\.json is not JSON in UTF-8")


def test_byte_order_marks_are_named():
    refused(b"\xef\xbb\xbf" + encode(GROUP), "not JSON in UTF-8: Unexpected UTF-8 BOM")


@pytest.mark.parametrize("document", [[], [GROUP], 3, "zarr", None])
def test_json_that_is_no_object(document):
    refused(document, "must be a JSON object")


def test_numbers_of_thousands_of_digits():
    refused(b'{"zarr_format": 3' + b"0" * 5000 + b"}", "not JSON in UTF-8")
    refused(ARRAY | {"shape": [10**4000, 1]}, "shape must be a list")
    grid = {"name": "regular", "configuration": {"chunk_shape": [10**4000, 10**4000]}}
    refused(ARRAY | {"chunk_grid": grid}, "more than the 4294967296 bytes")


def test_large_documents():
    document = GROUP | {"attributes": {"x": "y" * 1000}}
    assert parse(document, metadata_nbytes=len(encode(document)))
    refused(document, r"zarr.json has \d+ bytes where 1000 are accepted", metadata_nbytes=1000)


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
def test_deep_nesting_in_json(opening):
    refused(b'{"zarr_format": 3, "x": ' + opening * 200_000, "nested too deeply")


@pytest.mark.parametrize("member", sorted(ARRAY.keys() - {"attributes"}))
def test_deep_nesting_in_mappings(member):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(MetadataError):
        v3.parse(ARRAY | {member: nested}, "/a")
    while nested:  # taken apart level by level, as freeing it at once would be deep as well
        nested = nested[0]


@pytest.mark.parametrize("value", ["3", 2, 3.0, True, None, [3]])
@pytest.mark.parametrize("document", [ARRAY, GROUP])
def test_zarr_format(document, value):
    refused(document | {"zarr_format": value}, r"zarr_format in zarr.json must be 3")
    refused(without(document, "zarr_format"), r"zarr_format in zarr.json must be 3")


@pytest.mark.parametrize("value", ["Array", "", None, 1, ["array"]])
def test_node_type(value):
    refused(ARRAY | {"node_type": value}, "node_type must be 'array' or 'group'")
    refused(without(ARRAY, "node_type"), "node_type must be 'array' or 'group'")


@pytest.mark.parametrize("member", ["shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs"])
def test_missing_members_of_arrays(member):
    refused(without(ARRAY, member), f"zarr.json lacks {member}$")


def test_all_missing_members_are_named_at_once():
    refused(without(ARRAY, "shape", "codecs"), "lacks shape, codecs")


@pytest.mark.parametrize("value", [None, 4, "4", {}, [-1, 4], [4.0, 4], [True, 4], ["4", 4], [None, 4], [2**63, 4], [[4], 4]])
def test_shape(value):
    refused(ARRAY | {"shape": value}, "shape must be a list of whole numbers")


def test_dimensions_are_limited():
    def document(ndim):
        grid = {"name": "regular", "configuration": {"chunk_shape": [1] * ndim}}
        return without(ARRAY, "dimension_names") | {"shape": [1] * ndim, "chunk_grid": grid}

    assert len(parse(document(MAX_NDIM)).shape) == MAX_NDIM
    for limit in (MAX_NDIM, MAX_NDIM + 1, 1000):  # NumPy has no more
        refused(document(MAX_NDIM + 1), f"shape has {MAX_NDIM + 1} dimensions where {MAX_NDIM} are accepted", ndim=limit)
    refused(document(3), "shape has 3 dimensions where 2 are accepted", ndim=2)


@pytest.mark.parametrize(
    ("data_type", "fill_value"),
    [
        ("r8000", [0] * 1000),
        ({"name": "null_terminated_bytes", "configuration": {"length_bytes": 1000}}, ""),
        ({"name": "struct", "configuration": {"fields": [{"name": "a", "data_type": "r8000"}]}}, {"a": [0] * 1000}),
    ],
)
def test_element_sizes_are_limited(data_type, fill_value):
    document = ARRAY | {"data_type": data_type, "fill_value": fill_value, "codecs": ["bytes"]}
    assert parse(document, element_nbytes=1000).data_type.dtype.itemsize == 1000
    refused(document, "have 1000 bytes where 999 are accepted; raise Limits.element_nbytes", element_nbytes=999)


def test_sizes_of_elements_that_may_be_missing_are_limited():
    mask = {"name": "optional", "configuration": {"mask_codecs": ["packbits"], "data_codecs": ["bytes"]}}
    document = ARRAY | {"data_type": {"name": "optional", "configuration": {"name": "r8000"}}, "fill_value": None, "codecs": [mask]}
    assert parse(document, element_nbytes=1000).fill_value is None
    refused(document, "have 1000 bytes where 999 are accepted", element_nbytes=999)


@pytest.mark.parametrize(("data_type", "fill_value", "codec"), [("string", "x" * 100, "vlen-utf8"), ("bytes", "AAAA" * 25, "vlen-bytes")])
def test_what_missing_chunks_read_as_counts_as_their_size(data_type, fill_value, codec):
    grid = {"name": "regular", "configuration": {"chunk_shape": [10, 10]}}
    document = ARRAY | {"data_type": data_type, "fill_value": fill_value, "codecs": [codec], "chunk_grid": grid}
    parse(document, chunk_nbytes=20_000)
    refused(document, "raise Limits.chunk_nbytes", chunk_nbytes=12_000)


def test_data_types_are_limited_in_extent():
    fields = [{"name": str(number), "data_type": "int8"} for number in range(5000)]
    document = {"data_type": {"name": "struct", "configuration": {"fields": fields}}, "fill_value": {each["name"]: 0 for each in fields}}
    assert len(parse(ARRAY | document | {"codecs": ["bytes"]}).data_type.fields) == 5000
    fields += [{"name": f"x{number}", "data_type": "int8"} for number in range(1000)]
    refused(ARRAY | document, "data_type has more than 16384 names, numbers and lists")


def test_chunk_sizes_are_limited():
    refused(ARRAY, r"chunks of float64 and shape \(1000, 100\) are more than the 799999 bytes", chunk_nbytes=799_999)
    assert parse(ARRAY, chunk_nbytes=800_000)


@pytest.mark.parametrize("value", [None, [], 3, "regular", {"name": "regular"}, {"name": "regular", "configuration": {"chunk_shape": [1]}}])
def test_chunk_grid(value):
    refused(ARRAY | {"chunk_grid": value}, "chunk")


@pytest.mark.parametrize("value", [None, "nan", True, [0, 0], {}, "0x7fc00000"])
def test_fill_value(value):
    refused(ARRAY | {"fill_value": value}, "fill_value: .* takes a number")


def test_literal_nan_is_an_attribute_only():
    text = json.dumps(ARRAY | {"attributes": {"_FillValue": math.nan, "valid_max": math.inf}})
    assert "NaN, " in text
    assert math.isnan(parse(text.encode()).attributes["_FillValue"])
    refused(ARRAY | {"fill_value": math.nan}, "fill_value: nan is not a fill value")
    refused(ARRAY | {"shape": [math.nan, 1]}, "shape must be")
    refused(ARRAY | {"shape": [math.inf, 1]}, "shape must be")


@pytest.mark.parametrize("value", [None, [], {}, "bytes", 3, {"name": "bytes"}])
def test_codecs_must_be_a_list(value):
    refused(ARRAY | {"codecs": value}, "codecs must be a list of at least one")


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
GZIP = {"name": "gzip", "configuration": {"level": 1}}
TRANSPOSE = {"name": "transpose", "configuration": {"order": [1, 0]}}


@pytest.mark.parametrize(
    "value", [[GZIP], [BYTES, BYTES], [GZIP, BYTES], [BYTES, TRANSPOSE], [BYTES, 3], [BYTES, {}], ["bytes"], ["gzip", BYTES]]
)
def test_codecs(value):
    refused(ARRAY | {"codecs": value}, "codec|bytes|gzip")


def replaced(codec, **configuration):
    return {"name": codec["name"], "configuration": codec["configuration"] | configuration}


@pytest.mark.parametrize("value", [None, [], {}, 0, 1.5, True, "x"])
def test_codec_configurations(value):
    sharding = SHARDED["codecs"][1]
    refused(ARRAY | {"codecs": [replaced(BYTES, endian=value)]}, "'bytes'")
    refused(ARRAY | {"codecs": [replaced(sharding, index_location=value)]}, "'sharding_indexed'")
    refused(ARRAY | {"codecs": [replaced(sharding, codecs=value)]}, "codec")
    refused(ARRAY | {"codecs": [replaced(TRANSPOSE, order=value), BYTES]}, "'transpose'")
    refused(ARRAY | {"codecs": [BYTES, {"name": "gzip", "configuration": value}]}, "'gzip'")


def test_unknown_codecs():
    assert refused(ARRAY | {"codecs": [BYTES, {"name": "nope"}]}, "nope", UnknownExtensionError).name == "nope"


@pytest.mark.parametrize("value", [["rows"], ["a", "b", "c"], [], "ab", {}, [1, 2], [True, None], 3])
def test_dimension_names(value):
    refused(ARRAY | {"dimension_names": value}, "dimension_names")


@pytest.mark.parametrize("value", [None, ["", ""], ["x", "x"], [None, None]])
def test_unusual_dimension_names(value):
    assert parse(ARRAY | {"dimension_names": value}).dimension_names == (None if value is None else tuple(value))


@pytest.mark.parametrize("value", [None, [], "x", 3])
@pytest.mark.parametrize("document", [ARRAY, GROUP])
def test_attributes(document, value):
    refused(document | {"attributes": value}, "attributes must be an object")


@pytest.mark.parametrize("value", [None, {}, "x", 3, [3], [None], [{}], [{"name": 3}]])
def test_storage_transformers(value):
    refused(ARRAY | {"storage_transformers": value}, "storage")


@pytest.mark.parametrize("value", ["shift", {"name": "shift"}, {"name": "shift", "configuration": {}, "must_understand": True}])
def test_unknown_storage_transformers(value):
    assert refused(ARRAY | {"storage_transformers": [value]}, "transformer 'shift'", UnknownExtensionError).name == "shift"


def test_storage_transformers_that_need_not_be_understood():
    transformer = {"name": "shift", "must_understand": False}
    array = parse(ARRAY | {"storage_transformers": [transformer]})
    assert array.storage_transformers == (transformer,)
    assert json.loads(v3.serialize(array)["zarr.json"])["storage_transformers"] == [transformer]


@pytest.mark.parametrize(
    "value", [None, 1, "x", [], {}, {"a": 1}, {"must_understand": True}, {"must_understand": 0}, {"must_understand": "false"}]
)
@pytest.mark.parametrize("document", [ARRAY, GROUP])
def test_unknown_members(document, value):
    assert refused(document | {"mystery": value}, "unknown member 'mystery'", UnknownExtensionError).name == "mystery"


def test_members_of_arrays_are_unknown_in_groups():
    refused(GROUP | {"shape": [1]}, "unknown member 'shape'", UnknownExtensionError)
    refused(ARRAY | {"consolidated_metadata": None}, "unknown member 'consolidated_metadata'", UnknownExtensionError)


@pytest.mark.parametrize("document", [ARRAY, GROUP])
def test_members_that_need_not_be_understood_are_written_back(document):
    extension = {"name": "foo.bar", "must_understand": False, "configuration": {"x": [1]}}
    metadata = parse(document | {"mine": extension})
    assert metadata.extensions == {"mine": extension}
    assert json.loads(v3.serialize(metadata.with_attributes({}))["zarr.json"])["mine"] == extension


@pytest.mark.parametrize(
    "value", [None, {"kind": "inline", "metadata": {}}, {"kind": "inline", "must_understand": False, "metadata": {"x": GROUP}}]
)
def test_consolidated_metadata_is_kept(value):
    group = parse(GROUP | {"consolidated_metadata": value})
    assert group.extensions == {"consolidated_metadata": value}
    assert json.loads(v3.serialize(group)["zarr.json"])["consolidated_metadata"] == value


# how documents are written


def test_serialize_array():
    document = v3.serialize(
        parse(ARRAY | {"codecs": ["bytes"], "data_type": {"name": "int8"}, "fill_value": 1, "storage_transformers": []})
    )
    assert list(document) == ["zarr.json"]
    members = json.loads(document["zarr.json"])
    assert members == ARRAY | {"codecs": [{"name": "bytes"}], "data_type": "int8", "fill_value": 1}
    assert list(members) == list(ARRAY)
    assert b'\n  "node_type": "array"' in document["zarr.json"]


def test_members_that_say_nothing_are_not_written():
    assert json.loads(v3.serialize(parse(without(ARRAY, "dimension_names", "attributes")))["zarr.json"]) == (
        without(ARRAY, "dimension_names") | {"attributes": {}}
    )
    assert json.loads(v3.serialize(GroupMetadata(3))["zarr.json"]) == {"zarr_format": 3, "node_type": "group", "attributes": {}}


def test_attributes_of_all_kinds_survive():
    attributes = {"µ": "°C \ud800 🌍", "nan": math.inf, "nested": [{"a": None}, True, 1.5, 2**80], "": {}}
    assert parse(v3.serialize(GroupMetadata(3, attributes))["zarr.json"]).attributes == attributes
    assert b"NaN" in v3.serialize(GroupMetadata(3, {"x": math.nan}))["zarr.json"]


@pytest.mark.parametrize("value", [np.float32(1), {1}, b"x", {(1, 2): 3}])
def test_attributes_that_are_no_json(value):
    with pytest.raises(MetadataError, match="attributes are not JSON"):
        v3.serialize(GroupMetadata(3, {"x": value}))


def test_attributes_that_hold_themselves():
    attributes = {}
    attributes["x"] = attributes
    with pytest.raises(MetadataError, match="attributes are not JSON"):
        v3.serialize(GroupMetadata(3, attributes))


# the model


def test_changed_copies():
    array = parse(ARRAY)
    taller = array.with_shape((20000, 1000))
    assert (taller.shape, taller.chunk_grid) == ((20000, 1000), RegularGrid((20000, 1000), (1000, 100)))
    assert taller.with_shape(array.shape) == array != taller
    assert array.with_attributes({"a": 1}).attributes == {"a": 1}
    assert GroupMetadata(3).with_attributes({"a": 1}) == GroupMetadata(3, {"a": 1})
    with pytest.raises(MetadataError):
        array.with_shape((1,))


def test_arrays_are_equal_by_the_bits_of_their_fill_values():
    array = parse(ARRAY)
    assert array == parse(ARRAY)
    assert array != parse(ARRAY | {"fill_value": "0x7ff8000000000001"})
    assert parse(ARRAY | {"fill_value": 0.0}) != parse(ARRAY | {"fill_value": -0.0})
    assert array != parse(ARRAY | {"attributes": {}})
    assert array != GROUP
    with pytest.raises(TypeError):
        hash(array)


@pytest.mark.parametrize("document", [ARRAY, GROUP])
def test_metadata_can_be_pickled(document):
    metadata = parse(document)
    assert pickle.loads(pickle.dumps(metadata)) == metadata


# documents at random

FILL_VALUES = {
    "bool": st.booleans(),
    "uint8": st.integers(0, 255),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "float16": st.floats(allow_nan=False) | st.sampled_from(["NaN", "Infinity", "-Infinity", "0x7e01", "0xfc01", -(10**350)]),
    "float32": st.floats(allow_nan=False) | st.integers() | st.sampled_from(["NaN", "0xffc00000", "0x7f800001"]),
    "float64": st.floats(allow_nan=False) | st.sampled_from(["NaN", "-Infinity", "0xfff8000000000000"]),
    "complex64": st.lists(st.floats(allow_nan=False) | st.sampled_from(["NaN", "Infinity", "0xffc00001"]), min_size=2, max_size=2),
}


@st.composite
def array_documents(draw):
    ndim, data_type = draw(st.integers(0, 4)), draw(st.sampled_from(sorted(FILL_VALUES)))
    sizes = st.lists(st.integers(1, 100), min_size=ndim, max_size=ndim)
    codecs = [{"name": "bytes", "configuration": {"endian": draw(st.sampled_from(["little", "big"]))}}]
    if draw(st.booleans()):
        codecs.insert(0, {"name": "transpose", "configuration": {"order": draw(st.permutations(range(ndim)))}})
    if draw(st.booleans()):
        codecs.append({"name": "gzip", "configuration": {"level": draw(st.integers(0, 9))}})
    encoding = {"name": draw(st.sampled_from(["default", "v2"])), "configuration": {"separator": draw(st.sampled_from("./"))}}
    optional = {
        "attributes": st.dictionaries(st.text(), st.none() | st.integers() | st.text(), max_size=3),
        "dimension_names": st.none() | st.lists(st.none() | st.text(max_size=3), min_size=ndim, max_size=ndim),
        "storage_transformers": st.just([]),
        "extra": st.just({"must_understand": False}),
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": draw(st.lists(st.integers(0, 2**63 - 1), min_size=ndim, max_size=ndim)),
        "data_type": data_type,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": draw(sizes)}},
        "chunk_key_encoding": encoding,
        "fill_value": draw(FILL_VALUES[data_type]),
        "codecs": codecs,
        **{key: draw(value) for key, value in optional.items() if draw(st.booleans())},
    }


@patient
@given(array_documents())
def test_round_trip(document):
    array = parse(document)
    stored = v3.serialize(array)["zarr.json"]
    assert parse(stored) == array
    assert v3.serialize(parse(stored))["zarr.json"] == stored


SHARDED = ARRAY | {
    "codecs": [
        {"name": "transpose", "configuration": {"order": [1, 0]}},
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [50, 50],
                "codecs": [BYTES, GZIP],
                "index_codecs": [BYTES, {"name": "crc32c"}],
                "index_location": "end",
            },
        },
    ],
    "storage_transformers": [],
}
CONSOLIDATED = GROUP | {"consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {"a": GROUP}}}

junk = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["bytes", "regular", "v2", "uint8", 10**30]),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.sampled_from(["name", "configuration"]), inner, max_size=3)
    ),
    max_leaves=8,
)


def containers(document):
    """Every list and object in a document."""
    if isinstance(document, dict | list):
        yield document
        for inner in document.values() if isinstance(document, dict) else document:
            yield from containers(inner)


def mutate(draw, document):
    """The document with a few of its members dropped, replaced, doubled or joined by others, at any depth."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        container = draw(st.sampled_from([each for each in containers(document) if each] or [{"": None}]))
        key = draw(st.sampled_from(sorted(container) if isinstance(container, dict) else range(len(container))))
        match draw(st.sampled_from(["drop", "replace", "double", "join"])):
            case "drop":
                del container[key]
            case "replace":
                container[key] = draw(junk)
            case "double" if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case "double":
                container[draw(st.sampled_from(sorted(container)))] = copy.deepcopy(container[key])
            case "join" if isinstance(container, list):
                container.insert(key, draw(junk))
            case _:
                container[draw(st.text(max_size=6))] = draw(junk)
    return document


@settings(patient, max_examples=1000)
@given(data=st.data(), document=st.sampled_from([ARRAY, GROUP, SHARDED, CONSOLIDATED]))
def test_damaged_documents_raise_nothing_but_metadata_errors(data, document):
    try:
        metadata = parse(mutate(data.draw, document))
    except MetadataError:
        return
    stored = v3.serialize(metadata)["zarr.json"]
    assert v3.serialize(parse(stored))["zarr.json"] == stored


@patient
@given(st.binary(max_size=40) | st.text(max_size=40).map(str.encode))
def test_arbitrary_bytes_raise_nothing_but_metadata_errors(document):
    with pytest.raises(MetadataError):
        parse(document)


# the conformance corpus


def conformance_cases(zarr_format, select):
    """The nodes of the corpus that ``select`` takes, or one skipped case where the corpus is not there."""
    expected = CONFORMANCE / "EXPECTED.jsonl"
    if not expected.exists():
        return [pytest.param("", "", marks=pytest.mark.skip(reason=f"the conformance corpus is not at {CONFORMANCE}"))]
    nodes = [json.loads(line) for line in expected.read_text().splitlines()]
    name = "zarr.json" if zarr_format == 3 else ".zarray"
    found = [
        (node, CONFORMANCE / node["dataset"] / node["path"] / name)
        for node in nodes
        if node.get("zarr_format") in {zarr_format, None} and select(node)
    ]
    return [pytest.param(node, file, id=f"{node['dataset']}/{node['path']}") for node, file in found if file.is_file()]


@pytest.mark.parametrize(
    ("node", "file"),
    conformance_cases(3, lambda node: node["dataset"].startswith("handmade-invalid/") and node["error_stage"].startswith("open")),
)
def test_illegal_documents_of_the_corpus_are_refused_on_opening(node, file):
    with pytest.raises(MetadataError):
        v3.parse(file.read_bytes(), node["path"])


@pytest.mark.parametrize(
    ("node", "file"), conformance_cases(3, lambda node: node["expect"] in {"value", "group", "metadata"} and "lenient" not in node)
)
def test_legal_documents_of_the_corpus_are_parsed(node, file):
    try:
        metadata = v3.parse(file.read_bytes(), node["path"])
    except UnknownExtensionError as error:
        pytest.skip(f"needs the extension {error.name}")
    assert isinstance(metadata, GroupMetadata if node["expect"] == "group" else ArrayMetadata)
    assert v3.parse(v3.serialize(metadata)["zarr.json"], node["path"]) == metadata
