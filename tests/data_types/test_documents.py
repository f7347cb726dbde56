"""Data types and fill values as they stand in v3 documents."""

from __future__ import annotations

import json
import pickle
import sys

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from azarr.data_types import DATA_TYPES, data_type_for, parse_data_type
from azarr.data_types.base import has_byte_order, packed
from azarr.data_types.small import NAMES, ml_dtype, stored_bits
from azarr.errors import MetadataError, UnknownExtensionError

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def parse(document):
    return parse_data_type(document, "/a")


def typed(name, /, **configuration):
    return {"name": name, "configuration": configuration}


def struct(**fields):
    return typed("struct", fields=[{"name": name, "data_type": data_type} for name, data_type in fields.items()])


TIME = typed("numpy.datetime64", unit="s", scale_factor=1)

# document, fill value, what it becomes in a document, its bytes
FILLS = [
    ("string", "ü\0", "ü\0", None),
    ("bytes", "AAE=", "AAE=", None),
    ("bytes", [0, 1], "AAE=", None),
    ("variable_length_bytes", "", "", None),
    ("binary", [], "", None),
    (typed("fixed_length_utf32", length_bytes=12), "né", "né", "né\0".encode(f"utf-32-{sys.byteorder[0]}e")),
    (typed("null_terminated_bytes", length_bytes=3), "YWI=", "YWI=", b"ab\0"),
    (typed("null_terminated_bytes", length_bytes=3), "", "", b"\0\0\0"),
    (typed("raw_bytes", length_bytes=3), "YWIA", "YWIA", b"ab\0"),
    (typed("raw_bytes", length_bytes=3), [1, 2, 3], "AQID", b"\1\2\3"),
    ("r24", [1, 2, 3], [1, 2, 3], b"\1\2\3"),
    ("r24", "AQID", [1, 2, 3], b"\1\2\3"),
    ({"name": "r8", "configuration": {}}, [255], [255], b"\xff"),
    (TIME, 5, 5, np.int64(5).tobytes()),
    (TIME, "NaT", "NaT", np.int64(-(2**63)).tobytes()),
    (TIME, -(2**63), "NaT", np.int64(-(2**63)).tobytes()),
    (typed("numpy.timedelta64", unit="generic", scale_factor=1), 2**63 - 1, 2**63 - 1, np.int64(2**63 - 1).tobytes()),
    (struct(a="int8", t=TIME), {"t": "NaT", "a": -1}, {"a": -1, "t": "NaT"}, None),
    (struct(a="int8", b=struct(c="float32")), {"a": 1, "b": {"c": "0x7fc00001"}}, {"a": 1, "b": {"c": "0x7fc00001"}}, None),
    (typed("structured", fields=[["a", "int16"], ["b", "uint8"]]), "AQID", {"a": 0x0201, "b": 3}, None),
    (typed("structured", fields=[{"name": "a", "data_type": "int16"}]), {"a": 5}, {"a": 5}, None),
    (typed("optional", name="uint8", configuration={}), None, None, None),
    (typed("optional", name="float32"), ["0x7fc00001"], ["0x7fc00001"], None),
    (typed("zarrs.optional", name="string", configuration={}), ["a"], ["a"], None),
    ("bfloat16", "NaN", "NaN", b"\xc0\x7f" if np.little_endian else b"\x7f\xc0"),
    ("bfloat16", "0x7fc1", "0x7fc1", b"\xc1\x7f" if np.little_endian else b"\x7f\xc1"),
    ("bfloat16", 1.5, 1.5, b"\xc0\x3f" if np.little_endian else b"\x3f\xc0"),
    ("bfloat16", "-Infinity", "-Infinity", None),
    ("float8_e4m3", "NaN", "NaN", b"\x7c"),
    ("float8_e4m3", 1e9, "Infinity", b"\x78"),
    ("float8_e4m3fn", "NaN", "NaN", b"\x7f"),
    ("float8_e4m3fnuz", "NaN", "NaN", b"\x80"),
    ("float8_e5m2fnuz", "0x80", "NaN", b"\x80"),
    ("float8_e8m0fnu", "0x00", 2.0**-127, b"\0"),
    ("float6_e2m3fn", "0x01", 0.125, b"\1"),
    ("float4_e2m1fn", -6, -6.0, b"\x0f"),
    ("int4", -8, -8, b"\x08"),
    ("uint2", 3, 3, b"\3"),
    ("complex_float16", [1, "0x7e01"], [1.0, "0x7e01"], None),
    ("complex_bfloat16", [1, "NaN"], [1.0, "NaN"], None),
    ("complex_float8_e5m2", [1.5, -2], [1.5, -2.0], None),
    ("complex_float4_e2m1fn", [6, 0], [6.0, 0.0], None),
]


@pytest.mark.parametrize(("document", "fill", "serialized", "raw"), FILLS, ids=repr)
def test_fill_values(document, fill, serialized, raw):
    data_type = parse(document)
    value = data_type.parse_fill_value(fill)
    assert data_type.serialize_fill_value(value) == serialized
    assert json.loads(json.dumps(serialized, allow_nan=False)) == serialized
    again = parse(json.loads(json.dumps(data_type.to_json())))
    assert again == data_type == pickle.loads(pickle.dumps(data_type))
    assert hash(again) == hash(data_type)
    assert repr(again.serialize_fill_value(again.parse_fill_value(serialized))) == repr(serialized)
    if raw is not None:
        assert np.array([value], data_type.dtype).tobytes() == raw


@pytest.mark.parametrize(
    ("document", "fills"),
    [
        ("string", [None, 0, b"", ["a"], "\ud800"]),
        ("bytes", [None, 0, "a", "ü", [256], [-1], [1.0], [True], {}]),
        (typed("fixed_length_utf32", length_bytes=8), [None, 0, "abc", []]),
        (typed("null_terminated_bytes", length_bytes=2), [None, 0, "YWJj", "?", [97]]),
        (typed("raw_bytes", length_bytes=2), [None, 0, "", "YQ==", "YWJj", [1], [1, 2, 3], [1, 256]]),
        ("r16", [None, 0, "", [1], [1, 2, 3], [1, -1]]),
        (TIME, [None, 1.0, "nat", "2020-01-01", True, 2**63, -(2**63) - 1, [1]]),
        (struct(a="int8", b="int8"), [None, 0, {}, {"a": 1}, {"a": 1, "b": 2, "c": 3}, {"a": 1, "b": 300}, [1, 2], "AQ==", "?"]),
        (typed("optional", name="uint8"), [0, [], [1, 2], [None], [256], "a", {}]),
        ("bfloat16", [None, "nan", "0x7fc", "0x7fc00", True, [1], "0x7FC0 "]),
        ("float8_e4m3fn", ["Infinity", "-Infinity", 449, -1e9, 10**400]),
        ("float8_e8m0fnu", [0, -1, 1e39]),
        ("float6_e2m3fn", ["NaN", "Infinity", 7.6, "0x40", "0xff"]),
        ("float4_e2m1fn", ["NaN", 6.5, "0x10"]),
        ("int4", [8, -9, 1.0, "1", None, True]),
        ("uint2", [4, -1]),
        ("complex_float16", [0, [0], [0, 0, 0], [0, "nan"], "NaN"]),
        ("complex_float6_e2m3fn", [[0, 8], [0, "NaN"]]),
    ],
    ids=repr,
)
def test_illegal_fill_values(document, fills):
    data_type = parse(document)
    for fill in fills:
        with pytest.raises(MetadataError, match="is not a fill value of"):
            data_type.parse_fill_value(fill)


@pytest.mark.parametrize(
    "document",
    [
        "r0", "r12", "r08", "r99999999999", {"name": "r8", "configuration": {"a": 1}}, "r" + "9" * 40 if False else "r1",
        {"name": "string", "configuration": {"a": 1}}, "fixed_length_utf32", typed("fixed_length_utf32", length_bytes=6),
        typed("fixed_length_utf32", length_bytes=0), typed("fixed_length_utf32", length_bytes="8"),
        typed("fixed_length_utf32", length_bytes=2**40),
        typed("null_terminated_bytes", length_bytes=0), typed("raw_bytes", length_bytes=2**31), typed("raw_bytes", length_bytes=3, other=1),
        "numpy.datetime64", typed("numpy.datetime64", unit="s"), typed("numpy.datetime64", unit="fortnight", scale_factor=1),
        typed("numpy.datetime64", unit="s", scale_factor=0), typed("numpy.datetime64", unit="s", scale_factor=2**31),
        typed("numpy.datetime64", unit="s", scale_factor=1.0), typed("numpy.datetime64", unit="s", scale_factor=1, x=1),
        typed("numpy.datetime64", unit=["s"], scale_factor=1), typed("numpy.datetime64", unit="s", scale_factor=True),
        "struct", typed("struct", fields=[]), typed("struct", fields={}), typed("struct", fields=["a"]),
        typed("struct", fields=[["a", "int8"]]),
        struct(a="string"), struct(a=typed("optional", name="int8")), struct(**{"": "int8"}), typed("struct", fields=[{"name": "a"}]),
        typed("struct", fields=[{"name": 1, "data_type": "int8"}]), typed("struct", fields=[{"name": "a", "data_type": "int8", "x": 1}]),
        typed("struct", fields=[{"name": "a", "data_type": "int8"}] * 2),
        struct(a=typed("raw_bytes", length_bytes=2**31 - 1), b="int8"), "optional", typed("optional", name=3), typed("optional", x=1),
        typed("optional", name="int8", configuration=[]),
    ],
    ids=lambda document: str(document)[:60],
)  # fmt: skip
def test_illegal_data_types(document):
    with pytest.raises(MetadataError, match=r"^/a: ") as caught:
        parse(document)
    assert caught.value.path == "/a"


def test_structs_of_structs_end_somewhere():
    document = "int8"
    for _ in range(32):
        document = struct(a=document)
    parse(document)
    with pytest.raises(MetadataError, match="nested"):
        parse(struct(a=document))


def test_unknown_types_inside_others_are_named():
    for document in (struct(a="nope"), typed("optional", name="nope"), struct(a=struct(b="nope"))):
        with pytest.raises(UnknownExtensionError, match="'nope'") as caught:
            parse(document)
        assert caught.value.name == "nope"
    with pytest.raises(UnknownExtensionError, match="'optional'"):
        parse(typed("optional", name="optional", configuration={"name": "int8"}))


def test_micro_has_several_spellings():
    for unit in ("us", "μs", "µs"):
        assert parse(typed("numpy.datetime64", unit=unit, scale_factor=10)).dtype == np.dtype("M8[10us]")


@pytest.mark.parametrize("name", [name for name in DATA_TYPES.names if name in NAMES])
def test_small_types_are_known_by_name_and_by_dtype(name):
    data_type = parse(name)
    assert data_type.to_json() == data_type.name == name
    assert data_type.zero.tobytes() == bytes(data_type.dtype.itemsize)
    if data_type.dtype.names is None:
        assert data_type_for(data_type.dtype) == data_type
        if data_type.dtype.itemsize > 1:
            assert data_type_for(data_type.dtype.newbyteorder("S")) == data_type


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("float", "bfloat"))])
def test_every_bit_pattern_of_small_floats_survives(name):
    data_type = parse(name)
    width = {"float4": 4, "float6": 6}.get(name.split("_")[0], 8 * data_type.dtype.itemsize)
    for pattern in range(0, 2**width, 1 if width < 16 else 13):
        document = f"0x{pattern:0{2 * data_type.dtype.itemsize}x}"
        value = data_type.parse_fill_value(document)
        assert np.array([value]).view(f"u{data_type.dtype.itemsize}")[0] == pattern
        again = data_type.parse_fill_value(json.loads(json.dumps(data_type.serialize_fill_value(value), allow_nan=False)))
        assert again.tobytes() == value.tobytes()


@patient
@given(npst.array_dtypes(allow_subarrays=False, max_size=4) | npst.nested_dtypes(max_itemsize=200))
def test_any_numpy_dtype_has_a_type_or_is_refused(dtype):
    try:
        data_type = data_type_for(dtype)
        document = json.loads(json.dumps(data_type.to_json()))
    except MetadataError:
        return
    assert parse(document) == data_type
    for value in (data_type.zero, data_type.default_fill_value):
        fill = json.loads(json.dumps(data_type.serialize_fill_value(value), allow_nan=False))
        assert np.array([data_type.parse_fill_value(fill)], data_type.dtype).tobytes() == np.array([value], data_type.dtype).tobytes()


def test_gaps_between_fields_are_closed():
    aligned = np.dtype([("a", "u1"), ("b", ">i8"), ("c", [("d", "u1"), ("e", "f4")])], align=True)
    data_type = data_type_for(aligned)
    assert data_type.dtype.itemsize == 14
    assert packed(aligned) == np.dtype([("a", "u1"), ("b", ">i8"), ("c", [("d", "u1"), ("e", "f4")])])
    with pytest.raises(MetadataError, match="arrays"):
        data_type_for(np.dtype([("a", "i4", (2,))])).to_json()


@pytest.mark.parametrize(
    ("dtype", "ordered"),
    [
        ("u1", False), ("<u2", True), ("S5", False), ("V5", False), ("U1", True), ("M8[s]", True), ("?", False), ([("a", "u1")], False),
        ([("a", "u1"), ("b", "i2")], True), ([("a", "i2", 3)], True), (ml_dtypes.bfloat16, True), (ml_dtypes.int4, False),
    ],
)  # fmt: skip
def test_what_has_a_byte_order(dtype, ordered):
    assert has_byte_order(np.dtype(dtype)) is ordered


def test_bits_that_mean_something():
    assert stored_bits(np.dtype("f8")) is None
    assert [part.tolist() for part in stored_bits(np.dtype(ml_dtypes.int4))] == [[15], [8]]
    fields = np.dtype([("a", "u2"), ("b", ml_dtypes.uint2), ("c", ml_dtypes.int2, (2,))])
    assert [part.tolist() for part in stored_bits(fields)] == [[255, 255, 3, 3, 3], [0, 0, 0, 2, 2]]


def test_without_ml_dtypes_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    ml_dtype.cache_clear()
    with pytest.raises(UnknownExtensionError, match=r'pip install "azarr\[ml\]"') as caught:
        parse("bfloat16")
    assert caught.value.name == "bfloat16"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@patient
@given(
    st.sampled_from(sorted(DATA_TYPES.names)),
    json_values
    | st.dictionaries(st.sampled_from(["unit", "scale_factor", "length_bytes", "fields", "name", "configuration"]), json_values),
)
def test_any_configuration_is_parsed_or_refused(name, configuration):
    try:
        data_type = parse({"name": name, "configuration": configuration})
    except MetadataError:
        return
    assert parse(data_type.to_json()) == data_type


@patient
@given(st.sampled_from(FILLS), json_values)
def test_any_fill_value_is_parsed_or_refused(case, document):
    data_type = parse(case[0])
    try:
        value = data_type.parse_fill_value(document)
    except MetadataError:
        return
    serialized = data_type.serialize_fill_value(value)
    assert repr(data_type.serialize_fill_value(data_type.parse_fill_value(serialized))) == repr(serialized)
