import copy
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from azarr.chunk_grids import RegularGrid
from azarr.chunk_keys import SeparatedKeys
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.metadata import ArrayMetadata, GroupMetadata, v2, v3
from azarr.types import Limits

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

CONFORMANCE = Path(__file__).parents[2].parent / "shared" / "conformance"

BLOSC = {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0}
ARRAY = {
    "zarr_format": 2,
    "shape": [100, 50],
    "chunks": [10, 20],
    "dtype": "<f4",
    "compressor": BLOSC,
    "fill_value": 0.0,
    "order": "C",
    "filters": None,
    "dimension_separator": ".",
}


def without(document, *members):
    return {key: value for key, value in document.items() if key not in members}


def encode(document):
    return json.dumps(document).encode()


def parse(document, zattrs=None, **limits):
    return v2.parse_array(document if isinstance(document, bytes) else encode(document), zattrs, "/a", Limits(**limits))


def refused(document, match, error=MetadataError, **limits):
    with pytest.raises(error, match=match) as caught:
        parse(document, **limits)
    assert caught.value.path == "/a"
    assert str(caught.value).startswith("/a: ")
    return caught.value


def codecs_of(array):
    """The codecs as a v3 document has them."""
    return json.loads(v3.serialize(array)["zarr.json"])["codecs"]


def translated(**members):
    return codecs_of(parse(ARRAY | members))


# what documents say


def test_array():
    array = parse(ARRAY, b'{"units": "K"}')
    assert isinstance(array, ArrayMetadata)
    assert array.zarr_format == 2
    assert array.shape == (100, 50)
    assert array.data_type.name == "float32"
    assert array.chunk_grid == RegularGrid((100, 50), (10, 20))
    assert array.chunk_key_encoding == SeparatedKeys("v2", ".")
    assert array.fill_value == 0
    assert array.attributes == {"units": "K"}
    assert array.dimension_names is None
    assert codecs_of(array) == [
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}},
    ]


def test_scalar_array():
    array = parse(ARRAY | {"shape": [], "chunks": [], "order": "F"})
    assert array.shape == array.chunk_grid.chunk_shape == ()
    assert [codec.name for codec in array.codecs] == ["bytes", "blosc"]


def test_group():
    assert v2.parse_group(b'{"zarr_format": 2}', None, "/") == GroupMetadata(2)
    assert v2.parse_group(b'{"zarr_format": 2, "_NCZARR_GROUP": {}}', b'{"a": NaN}', "/").attributes.keys() == {"a"}
    assert v2.parse_group({"zarr_format": 2}, {"a": 1}, "/") == GroupMetadata(2, {"a": 1})


def test_unknown_members_are_ignored():
    assert parse(ARRAY | {"foo": 1, "node_type": "array", "_nczarr_array": {}}) == parse(ARRAY)


def test_optional_members():
    assert parse(without(ARRAY, "filters", "dimension_separator")) == parse(ARRAY)
    assert parse(ARRAY | {"filters": []}) == parse(ARRAY)


@pytest.mark.parametrize("separator", [".", "/"])
def test_dimension_separator(separator):
    assert parse(ARRAY | {"dimension_separator": separator}).chunk_key_encoding == SeparatedKeys("v2", separator)


@pytest.mark.parametrize("kind", ["b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16"])
def test_dtypes(kind):
    fill = {"b": False, "c": [0, 0]}.get(kind[0], 0)
    for byte_order, endian in {"<": "little", ">": "big"}.items():
        array = parse(ARRAY | {"dtype": byte_order + kind, "fill_value": fill, "compressor": None})
        assert array.data_type.dtype == np.dtype(kind)
        assert array.data_type.dtype.isnative
        assert codecs_of(array) == [{"name": "bytes", "configuration": {"endian": endian}} if kind[1:] != "1" else {"name": "bytes"}]


@pytest.mark.parametrize("dtype", ["|u1", "<u1", ">u1", "u1"])
def test_single_bytes_need_no_byte_order(dtype):
    array = parse(ARRAY | {"dtype": dtype, "fill_value": 0})
    assert array == parse(ARRAY | {"dtype": "|u1", "fill_value": 0})
    assert json.loads(v2.serialize(array)[".zarray"])["dtype"] == "|u1"


@pytest.mark.parametrize("dtype", ["i4", "|i4"])
def test_several_bytes_need_a_byte_order(dtype):
    refused(ARRAY | {"dtype": dtype}, "needs a byte order, '<i4' or '>i4'")


@pytest.mark.parametrize(
    "dtype",
    ["<z4", "=i4", "<i3", "<i4 ", "<i\u0664", "|S0", "|V", "<M8[\u0664s]", "|O2", None, 4, {}, [], ""],
)
def test_unknown_dtypes_are_named(dtype):
    assert refused(ARRAY | {"dtype": dtype}, "unknown dtype .* azarr has b1, c16", UnknownExtensionError).name == str(dtype)


@pytest.mark.parametrize("dtype", ["<m8[0s]", ">M8[0ns]", "<m8[0generic]", [["a", "<m8[0D]"]]])
def test_ticks_of_no_length_are_refused(dtype):
    refused(ARRAY | {"dtype": dtype, "fill_value": None, "compressor": None}, "a tick of time must be at least one of its unit")


def test_the_size_and_the_extent_of_elements_are_limited():
    document = ARRAY | {"dtype": [["a", "<i4", [250]]], "fill_value": None}
    assert parse(document, element_nbytes=1000).data_type.dtype.itemsize == 1000
    refused(document, "raise Limits.element_nbytes", element_nbytes=999)
    refused(ARRAY | {"dtype": [[str(number), "|i1"] for number in range(6000)]}, "dtype has more than 16384 names")


def test_order_f_is_a_transpose():
    members = {"shape": [4, 4, 4], "chunks": [1, 2, 3], "order": "F", "compressor": None}
    assert translated(**members) == [
        {"name": "transpose", "configuration": {"order": [2, 1, 0]}},
        {"name": "bytes", "configuration": {"endian": "little"}},
    ]
    assert [codec["name"] for codec in translated(shape=[4], chunks=[2], order="F", compressor=None)] == ["bytes"]


@pytest.mark.parametrize(
    ("compressor", "expected"),
    [
        ({"id": "zlib", "level": 3}, {"name": "numcodecs.zlib", "configuration": {"level": 3}}),
        ({"id": "zlib"}, {"name": "numcodecs.zlib", "configuration": {"level": 1}}),
        ({"id": "gzip", "level": 3}, {"name": "gzip", "configuration": {"level": 3}}),
        ({"id": "bz2", "level": 3}, {"name": "numcodecs.bz2", "configuration": {"level": 3}}),
        ({"id": "lz4", "acceleration": 2}, {"name": "numcodecs.lz4", "configuration": {"acceleration": 2}}),
        ({"id": "zstd", "level": 3}, {"name": "zstd", "configuration": {"level": 3, "checksum": False}}),
        ({"id": "zstd", "level": 3, "checksum": True}, {"name": "zstd", "configuration": {"level": 3, "checksum": True}}),
    ],
)
def test_compressors(compressor, expected):
    assert translated(compressor=compressor)[1:] == [expected]


@pytest.mark.parametrize(
    ("dtype", "shuffle", "expected"),
    [("<f4", 0, "noshuffle"), ("<f4", 1, "shuffle"), ("<f4", 2, "bitshuffle"), ("<f4", -1, "shuffle"), ("|u1", -1, "bitshuffle")],
)
def test_blosc(dtype, shuffle, expected):
    codec = translated(
        dtype=dtype, fill_value=0, compressor=BLOSC | {"shuffle": shuffle, "cname": "zstd", "blocksize": 1024, "typesize": 77}
    )[-1]
    typesize = np.dtype(dtype).itemsize
    assert codec == {
        "name": "blosc",
        "configuration": {"cname": "zstd", "clevel": 5, "shuffle": expected, "typesize": typesize, "blocksize": 1024},
    }


def test_compressors_as_filters():
    array = parse(ARRAY | {"filters": [{"id": "zlib", "level": 1}], "compressor": {"id": "gzip", "level": 2}})
    assert [codec.name for codec in array.codecs] == ["bytes", "numcodecs.zlib", "gzip"]
    written = json.loads(v2.serialize(array)[".zarray"])
    assert written["filters"] == [{"id": "zlib", "level": 1}]
    assert written["compressor"] == {"id": "gzip", "level": 2}


@pytest.mark.parametrize(
    ("dtype", "document", "expected"),
    [
        ("<i4", 7.0, 7),
        ("<i4", -7, -7),
        ("<u8", 2**64 - 1, 2**64 - 1),
        ("|b1", 0, False),
        ("|b1", 1, True),
        ("|b1", 0.0, False),
        ("|b1", True, True),
        ("<f8", -9, -9.0),
        ("<f4", 1e40, math.inf),
        ("<f4", "Infinity", math.inf),
        ("<f4", "-Infinity", -math.inf),
        ("<f4", -math.inf, -math.inf),
        ("<c8", [1, "-Infinity"], complex(1, -math.inf)),
    ],
)
def test_fill_values(dtype, document, expected):
    value = parse(ARRAY | {"dtype": dtype, "fill_value": document}).fill_value
    assert value == expected
    assert value.dtype == np.dtype(dtype)


@pytest.mark.parametrize(("dtype", "document"), [("<f4", "NaN"), ("<f4", math.nan), ("<c8", [math.nan, 0])])
def test_nan_is_a_fill_value_as_string_and_as_literal(dtype, document):
    array = parse(ARRAY | {"dtype": dtype, "fill_value": document})
    assert np.isnan(array.fill_value)
    assert b"NaN" in v2.serialize(array)[".zarray"]
    json.loads(v2.serialize(array)[".zarray"], parse_constant=pytest.fail)


@pytest.mark.parametrize("dtype", ["|b1", "<i4", ">f8", "<c16"])
def test_null_fill_values_are_undefined_and_read_as_zero(dtype):
    array = parse(ARRAY | {"dtype": dtype, "fill_value": None})
    assert array.fill_value is None
    assert array.effective_fill_value == array.chunk_spec.fill_value == 0
    assert json.loads(v2.serialize(array)[".zarray"])["fill_value"] is None


# what is wrong with documents


@pytest.mark.parametrize("document", [b"", b"{", b"\xff", b"\xef\xbb\xbf{}"])
def test_malformed_json(document):
    refused(document, r"\.zarray is not JSON in UTF-8")
    with pytest.raises(MetadataError, match=r"/a: \.zattrs is not JSON in UTF-8"):
        parse(ARRAY, document)
    with pytest.raises(MetadataError, match=r"/a: \.zgroup is not JSON in UTF-8"):
        v2.parse_group(document, None, "/a")


@pytest.mark.parametrize("document", [[], 3, None])
def test_json_that_is_no_object(document):
    refused(document, r"\.zarray must be a JSON object")
    with pytest.raises(MetadataError, match=r"/a: \.zattrs must be a JSON object"):
        parse(ARRAY, encode(document))


@pytest.mark.parametrize("value", [1, 3, "2", 2.0, True, None])
def test_zarr_format(value):
    refused(ARRAY | {"zarr_format": value}, "zarr_format in .zarray must be 2")
    refused(without(ARRAY, "zarr_format"), "zarr_format in .zarray must be 2")
    with pytest.raises(MetadataError, match=r"zarr_format in \.zgroup must be 2"):
        v2.parse_group(encode({"zarr_format": value}), None, "/a")


@pytest.mark.parametrize("member", ["shape", "chunks", "dtype", "compressor", "fill_value", "order"])
def test_missing_members(member):
    refused(without(ARRAY, member), f"zarray lacks {member}$")


@pytest.mark.parametrize("value", [None, 4, [-1, 4], [4.0, 4], [True, 4], [2**63, 4]])
def test_shape(value):
    refused(ARRAY | {"shape": value}, "shape must be a list of whole numbers")


@pytest.mark.parametrize("value", [None, 4, [1.0, 2], ["1", 2], [True, 2], [[1], 2], [None, 1], [1], [1, 2, 3], [0, 2], [-1, 2]])
def test_chunks(value):
    refused(ARRAY | {"chunks": value}, "chunk")


def test_limits():
    refused(ARRAY, "more than the 799 bytes", chunk_nbytes=799)
    refused(ARRAY, "2 dimensions where 1 are accepted", ndim=1)
    refused(ARRAY, r"\.zarray has \d+ bytes", metadata_nbytes=10)
    with pytest.raises(MetadataError, match=r"\.zattrs has 1011 bytes"):
        parse(ARRAY, encode({"a": "b" * 1002}), metadata_nbytes=1000)


@pytest.mark.parametrize("value", ["A", "", "c", None, 0, ["C"]])
def test_order(value):
    refused(ARRAY | {"order": value}, "order must be 'C' or 'F'")


@pytest.mark.parametrize("value", ["", "-", "..", None, 0, ["."]])
def test_illegal_dimension_separator(value):
    refused(ARRAY | {"dimension_separator": value}, "dimension_separator must be")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("<i4", 7.5),
        ("<i4", True),
        ("<i4", 2**31),
        ("<i4", math.nan),
        ("<i4", math.inf),
        ("<i4", "7"),
        ("|b1", 2),
        ("|b1", "true"),
        ("<f4", "nan"),
        ("<f4", [0]),
        ("<f4", {}),
        ("<f4", True),
        ("<f4", "0x7fc00000"),
        ("<c8", 0),
        ("<c8", [0]),
        ("<c8", [None, None]),
        ("<c8", ["0x7fc00000", 0]),
    ],
)
def test_illegal_fill_values(dtype, value):
    refused(ARRAY | {"dtype": dtype, "fill_value": value}, "fill_value")


@pytest.mark.parametrize("value", ["zlib", 3, [], {}, {"id": None}, {"id": ["zlib"]}, {"level": 1}, True])
def test_illegal_compressors(value):
    refused(ARRAY | {"compressor": value}, "must be an object with an id")
    refused(ARRAY | {"filters": [value]}, "must be an object with an id")


@pytest.mark.parametrize("value", ["zlib", {"id": "zlib"}, 3, True])
def test_filters_must_be_a_list(value):
    refused(ARRAY | {"filters": value}, "filters must be a list or null")


@pytest.mark.parametrize("value", [3, -2, "shuffle", None, 1.0, True])
def test_illegal_shuffle(value):
    refused(ARRAY | {"compressor": BLOSC | {"shuffle": value}}, "shuffle of the blosc compressor must be -1, 0, 1 or 2")


def test_unknown_compressors_and_filters():
    error = refused(ARRAY | {"compressor": {"id": "nope", "level": 1}}, "nope", UnknownExtensionError)
    assert error.name == "numcodecs.nope"
    refused(ARRAY | {"filters": [{"id": "nope"}]}, "nope", UnknownExtensionError)


def test_deep_nesting():
    refused(b'{"zarr_format": 2, "x": ' + b"[" * 200_000, "nested too deeply")


@pytest.mark.parametrize("member", ["shape", "dtype", "fill_value", "filters", "compressor"])
def test_deep_nesting_in_mappings(member):
    nested = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises(MetadataError):
        v2.parse_array(ARRAY | {member: nested}, None, "/a")
    while nested:  # taken apart level by level, as freeing it at once would be deep as well
        nested = nested[0]


# how documents are written


def test_serialize_array():
    documents = v2.serialize(parse(ARRAY, b'{"a": 1}'))
    assert list(documents) == [".zarray", ".zattrs"]
    assert json.loads(documents[".zarray"]) == ARRAY
    assert json.loads(documents[".zattrs"]) == {"a": 1}
    assert list(v2.serialize(parse(ARRAY))) == [".zarray"]


def test_serialize_group():
    assert v2.serialize(GroupMetadata(2)).keys() == {".zgroup"}
    documents = v2.serialize(GroupMetadata(2, {"a": "µ"}))
    assert json.loads(documents[".zgroup"]) == {"zarr_format": 2}
    assert json.loads(documents[".zattrs"]) == {"a": "µ"}


def v3_array(**members):
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [8, 8],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 4]}},
        "chunk_key_encoding": "v2",
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "big"}}],
    }
    return v3.parse(document | members, "/a")


def test_arrays_of_v3_can_be_written_as_v2():
    order = {"name": "transpose", "configuration": {"order": [1, 0]}}
    codecs = [order, {"name": "bytes", "configuration": {"endian": "big"}}, {"name": "zstd", "configuration": {"level": 3}}]
    members = json.loads(v2.serialize(v3_array(codecs=codecs))[".zarray"])
    assert members == {
        "zarr_format": 2,
        "shape": [8, 8],
        "chunks": [4, 4],
        "dtype": ">f4",
        "compressor": {"id": "zstd", "level": 3},
        "fill_value": 0.0,
        "order": "F",
        "filters": None,
        "dimension_separator": ".",
    }


def test_undefined_fill_values_are_written_as_zero_in_v3():
    assert json.loads(v3.serialize(parse(ARRAY | {"fill_value": None}))["zarr.json"])["fill_value"] == 0


BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
SHARDING = {
    "name": "sharding_indexed",
    "configuration": {"chunk_shape": [2, 2], "codecs": [BYTES], "index_codecs": [BYTES]},
}


@pytest.mark.parametrize(
    ("members", "what"),
    [
        ({"dimension_names": ["x", "y"]}, "dimension_names"),
        ({"storage_transformers": [{"name": "x", "must_understand": False}]}, "storage_transformers"),
        ({"extra": {"must_understand": False}}, r"the members \['extra'\]"),
        ({"chunk_key_encoding": "default"}, "the chunk key encoding 'default'"),
        ({"codecs": [SHARDING]}, "the codec 'sharding_indexed'"),
        ({"codecs": [{"name": "reshape", "configuration": {"shape": [-1]}}, BYTES]}, "the codec 'reshape'"),
        ({"codecs": [{"name": "transpose", "configuration": {"order": [0, 1]}}, BYTES]}, "the codec 'transpose'"),
        ({"fill_value": "0xffc00000"}, "the fill value 0xffc00000, a NaN other than the usual one"),
        ({"data_type": "complex64", "fill_value": [0, "0xffc00000"]}, ".*a NaN other than the usual one"),
    ],
)
def test_what_v2_cannot_express(members, what):
    with pytest.raises(MetadataError, match=f"Zarr v2 cannot express {what}"):
        v2.serialize(v3_array(**members))


def test_consolidated_metadata_of_groups_is_not_v2():
    with pytest.raises(MetadataError, match="cannot express the members"):
        v2.serialize(GroupMetadata(3, {}, {"consolidated_metadata": {}}))


# documents at random

FILL_VALUES = {
    "|b1": st.booleans() | st.sampled_from([0, 1, 0.0]),
    "<u1": st.integers(0, 255),
    ">i8": st.integers(-(2**63), 2**63 - 1) | st.integers(-100, 100).map(float),
    "<f2": st.floats() | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    ">f8": st.floats() | st.integers() | st.sampled_from(["NaN", "Infinity", "-Infinity"]),
    "<c16": st.lists(st.floats() | st.sampled_from(["NaN", "-Infinity"]), min_size=2, max_size=2),
}
COMPRESSORS = st.none() | st.one_of(
    st.builds(lambda level: {"id": "zlib", "level": level}, st.integers(0, 9)),
    st.builds(lambda level: {"id": "gzip", "level": level}, st.integers(0, 9)),
    st.builds(lambda level: {"id": "bz2", "level": level}, st.integers(1, 9)),
    st.builds(lambda level, checksum: {"id": "zstd", "level": level, "checksum": checksum}, st.integers(-5, 22), st.booleans()),
    st.builds(lambda acceleration: {"id": "lz4", "acceleration": acceleration}, st.integers(1, 10)),
    st.builds(lambda clevel, shuffle: BLOSC | {"clevel": clevel, "shuffle": shuffle}, st.integers(0, 9), st.integers(-1, 2)),
)


@st.composite
def array_documents(draw):
    ndim, dtype = draw(st.integers(0, 4)), draw(st.sampled_from(sorted(FILL_VALUES)))
    return {
        "zarr_format": 2,
        "shape": draw(st.lists(st.integers(0, 2**63 - 1), min_size=ndim, max_size=ndim)),
        "chunks": draw(st.lists(st.integers(1, 100), min_size=ndim, max_size=ndim)),
        "dtype": dtype,
        "compressor": draw(COMPRESSORS),
        "fill_value": draw(st.none() | FILL_VALUES[dtype]),
        "order": draw(st.sampled_from("CF")),
        "filters": draw(st.none() | st.lists(COMPRESSORS.filter(bool), max_size=2)),
        "dimension_separator": draw(st.sampled_from("./")),
    }


@patient
@given(document=array_documents(), attributes=st.none() | st.dictionaries(st.text(), st.integers(), min_size=1, max_size=3))
def test_round_trip(document, attributes):
    array = parse(document, attributes)
    stored = v2.serialize(array)
    assert parse(stored[".zarray"], stored.get(".zattrs")) == array
    assert v2.serialize(parse(stored[".zarray"], stored.get(".zattrs"))) == stored


@patient
@given(document=array_documents())
def test_round_trip_through_v3(document):
    array = parse(document)
    stored = v3.serialize(array)["zarr.json"]
    assert v3.serialize(v3.parse(stored, "/a"))["zarr.json"] == stored


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["<i4", "zlib", 10**30]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4) | st.sampled_from(["id", "level"]), inner, max_size=3),
    max_leaves=8,
)


@settings(patient, max_examples=1000)
@given(data=st.data(), document=array_documents())
def test_damaged_documents_raise_nothing_but_metadata_errors(data, document):
    document = copy.deepcopy(document)
    for _ in range(data.draw(st.integers(1, 3))):
        compressor = document.get("compressor")
        container = data.draw(st.sampled_from([document, compressor if compressor and isinstance(compressor, dict) else document]))
        key = data.draw(st.sampled_from(sorted(container)) if container else st.text(max_size=3))
        if data.draw(st.booleans()):
            container.pop(key, None)
        else:
            container[key] = data.draw(junk)
    try:
        array = parse(document)
    except MetadataError:
        return
    assert parse(v2.serialize(array)[".zarray"]) == array


# the conformance corpus


def conformance_cases(select):
    """The arrays of the corpus that ``select`` takes, or one skipped case where the corpus is not there."""
    expected = CONFORMANCE / "EXPECTED.jsonl"
    if not expected.exists():
        return [pytest.param("", "", marks=pytest.mark.skip(reason=f"the conformance corpus is not at {CONFORMANCE}"))]
    nodes = [json.loads(line) for line in expected.read_text().splitlines()]
    found = [
        (node, CONFORMANCE / node["dataset"] / node["path"] / ".zarray") for node in nodes if node.get("zarr_format") == 2 and select(node)
    ]
    return [pytest.param(node, file, id=f"{node['dataset']}/{node['path']}") for node, file in found if file.is_file()]


@pytest.mark.parametrize(
    ("node", "file"),
    conformance_cases(lambda node: node["dataset"].startswith("handmade-invalid/") and node["error_stage"].startswith("open")),
)
def test_illegal_documents_of_the_corpus_are_refused_on_opening(node, file):
    with pytest.raises(MetadataError):
        v2.parse_array(file.read_bytes(), None, node["path"])


@pytest.mark.parametrize(("node", "file"), conformance_cases(lambda node: node["expect"] in {"value", "metadata"}))
def test_legal_documents_of_the_corpus_are_parsed(node, file):
    try:
        array = v2.parse_array(file.read_bytes(), None, node["path"])
    except UnknownExtensionError as error:
        pytest.skip(f"needs the extension {error.name}")
    assert v2.parse_array(v2.serialize(array)[".zarray"], None, node["path"]) == array
