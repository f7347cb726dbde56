from __future__ import annotations

import base64
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import azarr
from azarr.codecs.mixed_bytes import MixedBytes
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.metadata import v2, v3
from azarr.metadata.v2_data_types import parse_dtype, serialize_dtype

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])

UTF8 = {"id": "vlen-utf8"}
ARRAY = {"zarr_format": 2, "shape": [4], "chunks": [2], "compressor": None, "order": "C", "filters": None, "dimension_separator": "."}
NAT = -(2**63)


def document(dtype, fill_value=None, *filters, **members):
    return {**ARRAY, "dtype": dtype, "fill_value": fill_value, "filters": list(filters) or None, **members}


def parse(*args, **members):
    return v2.parse_array(json.dumps(document(*args, **members)).encode(), None, "/a")


def b64(raw):
    return base64.b64encode(raw).decode()


NESTED = [["x", "<f4"], ["z", "<f4", [2, 2]], ["n", [["a", "|u1"], ["b", "<i8"]]]]
DOCUMENTS = [
    (("|S3", "YWI="), "null_terminated_bytes", b"ab"),
    (("|S3", ""), "null_terminated_bytes", b""),
    (("|V3", b64(b"\1\2\3")), "raw_bytes", np.void(b"\1\2\3")),
    (("<U3", "né"), "fixed_length_utf32", "né"),
    ((">U3", ""), "fixed_length_utf32", ""),
    (("<M8[25us]", 5), "numpy.datetime64", np.datetime64(5, "25us")),
    ((">M8[D]", NAT), "numpy.datetime64", None),
    (("<m8[ns]", 0), "numpy.timedelta64", np.timedelta64(0, "ns")),
    (("<m8", 7), "numpy.timedelta64", np.array(7, np.int64).view("m8")[()]),
    (([["r", "|u1"], ["g", "|u1"]], "AQI="), "struct", (1, 2)),
    (([["a", ">i2"], ["b", ">f4"]], b64(np.array([(1, 2.5)], ">i2,>f4").tobytes())), "struct", (1, 2.5)),
    (([["a", "<i2"], ["b", ">f4"]], b64(np.array([(1, 2.5)], "<i2,>f4").tobytes())), "struct", (1, 2.5)),
    ((NESTED, b64(bytes(29))), "struct", None),
    ((NESTED, None), "struct", None),
    (("|O", "ü", UTF8), "string", "ü"),
    (("|O", None, UTF8), "string", None),
    (("|O", "YQA=", {"id": "vlen-bytes"}), "bytes", b"a\0"),
    (("|O", 0, {"id": "vlen-array", "dtype": "<i4"}), "vlen-array", None),
    (("|O", None, {"id": "json2"}), "json", None),
    (("|O", "x", {"id": "json2"}), "json", "x"),
    (("|O", "", {"id": "categorize", "labels": ["a"], "dtype": "|O", "astype": "|u1"}), "string", ""),
    (("bfloat16", 1.5), "bfloat16", 1.5),
    (("int4", -1), "int4", -1),
]


@pytest.mark.parametrize(("args", "name", "fill"), DOCUMENTS, ids=str)
def test_documents_come_back(args, name, fill):
    array = parse(*args)
    assert array.data_type.name == name
    assert array.data_type.dtype.hasobject or array.data_type.dtype.isnative
    if fill is not None:
        assert array.fill_value == fill if not isinstance(fill, tuple) else array.fill_value.tolist() == fill
    written = json.loads(v2.serialize(array)[".zarray"])
    for key in ("dtype", "fill_value"):
        assert written[key] == document(*args)[key]
    assert [codec["id"] for codec in written["filters"] or []] == [codec["id"] for codec in args[2:]]
    assert v2.parse_array(json.dumps(written).encode(), None, "/a") == array


@pytest.mark.parametrize(
    ("args", "zero"),
    [
        (("|S3", 0), b""), (("|V3", ""), np.void(b"\0\0\0")), (("|V3", 0), np.void(b"\0\0\0")), (("<U3", 0), ""),
        (("<M8[s]", "NaT"), np.datetime64("NaT", "s")),
        (("<M8[s]", 0.0), np.datetime64(0, "s")), (("|O", 0, UTF8), ""), (("|O", 0, {"id": "vlen-bytes"}), b""),
        (("|O", "", {"id": "vlen-bytes"}), b""),
        ((NESTED, 0), None), ((NESTED, ""), None), (("|O", "", {"id": "vlen-array", "dtype": "<i4"}), None),
    ],
    ids=str,
)  # fmt: skip
def test_what_old_writers_left(args, zero):
    value = parse(*args).fill_value
    if zero is not None:
        assert value == zero or (np.isnat(value) and np.isnat(zero))


@pytest.mark.parametrize("dtype", ["|S3", "|V3", "<U3", NESTED, [["t", "<M8[s]"], ["n", "<i4"]]])
def test_undefined_fill_values_are_zero(dtype):
    array = parse(dtype)
    assert array.fill_value is None
    assert not any(np.array([array.effective_fill_value], array.data_type.dtype).tobytes())


@pytest.mark.parametrize("dtype", ["<M8[s]", "<m8[s]", ">M8[25us]"])
def test_undefined_times_are_no_times(dtype):
    array = parse(dtype)
    assert array.fill_value is None
    assert np.isnat(array.effective_fill_value)
    assert json.loads(v2.serialize(array)[".zarray"])["fill_value"] is None


@pytest.mark.parametrize(
    ("dtype", "fills"),
    [
        ("|S3", ["?", "YWJjZA==", 1, ["a"]]), ("|V3", ["AQ==", "?", [1, 2, 3], 1]),

        ("<U3", ["abcd", 1]), ("<M8[s]", ["2020", 0.5, 2**63, True]),
        (NESTED, ["AQ==", {"x": 1}, 1, [0]]),
    ],
    ids=str,
)  # fmt: skip
def test_illegal_fill_values(dtype, fills):
    for fill in fills:
        with pytest.raises(MetadataError, match=r"^/a: fill_value: "):
            parse(dtype, fill)


@pytest.mark.parametrize("fill", [1, ["a"], {}, 1.5, "\ud800"])
def test_illegal_fill_values_of_objects(fill):
    for filters in (UTF8, {"id": "vlen-bytes"}, {"id": "vlen-array", "dtype": "<i4"}):
        with pytest.raises(MetadataError, match=r"^/a: fill_value: "):
            parse("|O", fill, filters)


@pytest.mark.parametrize("codec", ["pickle", "msgpack2", "msgpack", "json"])
def test_object_codecs_that_are_refused_by_name(codec):
    for filters, compressor in (([{"id": codec}], None), (None, {"id": codec})):
        with pytest.raises(UnknownExtensionError, match=f"object codec '{codec}'") as caught:
            parse("|O", 0, filters=filters, compressor=compressor)
        assert caught.value.name == codec
        assert caught.value.path == "/a"
    with pytest.raises(UnknownExtensionError, match="runs whatever code"):
        parse("|O", 0, {"id": "pickle"})


@pytest.mark.parametrize("filters", [None, [], [{"id": "zlib"}], [{}], [3]])
def test_objects_need_an_object_codec(filters):
    with pytest.raises(MetadataError, match="needs an object codec among the filters, one of vlen-utf8"):
        parse("|O", 0, filters=filters)


@pytest.mark.parametrize(
    "dtype",
    [
        [["a"]], [["a", "<i4", [2], 1]], [[1, "<i4"]], [["", "<i4"]], [["a", "<i4"], ["a", "<i4"]], [["a", "<i4", [0]]],
        [["a", "<i4", [-1]]],
        [["a", "<i4", [1.0]]], [["a", "<i4", "2"]], [["a", "<i4", [2**31, 2**31]]], [["a", "|V2147483647"], ["b", "|u1"]],
        [["a", "i4"]], ["a"],
        "|V99999999999", "<U999999999", "M8[s]", "|U3", "<M8[fortnight]", "<M8[]", "<M8[99999999999s]", [["a", "|O"]],
    ],
    ids=str,
)  # fmt: skip
def test_illegal_dtypes(dtype):
    with pytest.raises(MetadataError, match=r"^/a: ") as caught:
        parse(dtype, 0, UTF8)
    assert caught.value.path == "/a"


def test_nesting_ends_somewhere():
    dtype = "|u1"
    for _ in range(200):
        dtype = [["a", dtype]]
    with pytest.raises(MetadataError, match="nested"):
        parse(dtype)


def test_json_in_order_f_is_refused():
    assert parse("|O", None, {"id": "json2"}, order="F").codecs
    with pytest.raises(MetadataError, match="order 'F'"):
        parse("|O", None, {"id": "json2"}, order="F", shape=[2, 2], chunks=[2, 2])


def test_object_codecs_stand_among_the_filters():
    written = json.loads(v2.serialize(parse("|O", "", UTF8, compressor={"id": "zlib", "level": 1}))[".zarray"])
    assert (written["filters"], written["compressor"]) == ([UTF8], {"id": "zlib", "level": 1})
    written = json.loads(v2.serialize(parse("|O", "", UTF8))[".zarray"])
    assert (written["filters"], written["compressor"]) == ([UTF8], None)


async def test_fields_of_different_byte_orders():
    stored = np.dtype([("a", "<i2"), ("b", ">f4"), ("n", [("c", ">M8[s]"), ("d", "|u1")])])
    dtype = [["a", "<i2"], ["b", ">f4"], ["n", [["c", ">M8[s]"], ["d", "|u1"]]]]
    values = np.array([(1, 2.5, (3, 4)), (-1, -2.5, (-3, 255))] * 2, stored)
    store = azarr.MemoryStore({".zarray": json.dumps(document(dtype, None)).encode(), "0": values[:2].tobytes()})
    array = await azarr.open_array(store)
    assert array.metadata.codecs == (MixedBytes(stored=stored),)
    assert (await array[:2] == values[:2]).all()
    assert array.dtype.isnative
    await array.write(values)
    assert await store.get("1") == values[2:].tobytes()
    await array.update_attributes({"a": 1})
    assert json.loads(await store.get(".zarray"))["dtype"] == dtype
    with pytest.raises(MetadataError, match="differ in byte order"):
        v3.serialize_array(array.metadata)
    with pytest.raises(MetadataError, match="cannot encode|filter"):
        parse(dtype, None, {"id": "delta", "dtype": "<i2"})


def test_what_only_one_format_has():
    with pytest.raises(MetadataError, match="write Zarr v2"):
        v3.serialize_array(parse("|O", None, {"id": "json2"}))
    for dtype in ("complex_float8_e5m2", {"name": "optional", "configuration": {"name": "int8"}}):
        from azarr.creation import ArrayOptions

        with pytest.raises(MetadataError, match="Zarr v2 cannot express"):
            v2.serialize(ArrayOptions(shape=2, dtype=dtype, zarr_format=2).metadata())


@patient
@given(npst.array_dtypes(max_size=4) | npst.nested_dtypes(max_itemsize=200))
def test_any_numpy_dtype_comes_back(dtype):
    try:
        written = json.loads(json.dumps(serialize_dtype(dtype)))
        elements = parse_dtype(written, [], "/a")
    except MetadataError:
        return
    assert serialize_dtype(elements.stored) == written


@patient
@given(
    st.recursive(
        st.sampled_from(["<i4", "|u1", "|S3", "<U2", "<M8[s]", "|O", "", "a", None, 3]),
        lambda inner: st.lists(inner, max_size=3),
        max_leaves=8,
    ),
    st.none() | st.integers() | st.floats() | st.text(max_size=8),
)
def test_any_document_is_parsed_or_refused(dtype, fill):
    try:
        array = parse(dtype, fill, UTF8) if dtype == "|O" else parse(dtype, fill)
    except MetadataError:
        return
    assert v2.parse_array(v2.serialize(array)[".zarray"], None, "/a") == array
