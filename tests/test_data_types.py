import ipaddress
import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr
from azarr.data_types import NUMPY_TYPES, DataType, data_type_for, parse_data_type, register_data_type
from azarr.errors import MetadataError, RegistrationError, UnknownExtensionError

patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no failure

INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]
FLOATS = ["float16", "float32", "float64"]
COMPLEX = ["complex64", "complex128"]
CORE = ["bool", *INTEGERS, *FLOATS, *COMPLEX]

CANONICAL_NAN = {"float16": 0x7E00, "float32": 0x7FC00000, "float64": 0x7FF8000000000000}


def parse(name):
    return parse_data_type(name, "/a")


def bits(value):
    return int.from_bytes(value.tobytes(), "little" if np.little_endian else "big")


def hexadecimal(name, number):
    return f"0x{number:0{2 * np.dtype(name).itemsize}x}"


@pytest.mark.parametrize("name", CORE)
def test_core_types_are_known_by_name_and_by_dtype(name):
    data_type = parse(name)
    assert data_type.name == data_type.to_json() == name
    assert data_type.dtype == np.dtype(name)
    assert data_type.dtype.isnative
    for dtype in (np.dtype(name), np.dtype(name).newbyteorder(">"), np.dtype(name).newbyteorder("<")):
        assert data_type_for(dtype) == data_type
    assert pickle.loads(pickle.dumps(data_type)) == data_type
    assert hash(data_type) == hash(parse(name))


@pytest.mark.parametrize("name", CORE)
def test_default_fill_value_is_zero(name):
    value = parse(name).default_fill_value
    assert value == 0
    assert value.dtype == np.dtype(name)
    assert value.tobytes() == bytes(np.dtype(name).itemsize)


@pytest.mark.parametrize("code", np.typecodes["AllInteger"])
def test_every_integer_class_of_numpy_has_a_type(code):
    assert data_type_for(np.dtype(code)).dtype == np.dtype(code)


@pytest.mark.parametrize(
    "document", ["int32", {"name": "int32"}, {"name": "int32", "configuration": {}}, {"name": "int32", "must_understand": True}]
)
def test_all_forms_of_a_name_are_equal(document):
    assert parse(document) == parse("int32")


@pytest.mark.parametrize(("alias", "name"), [("complex_float32", "complex64"), ("complex_float64", "complex128")])
def test_aliases(alias, name):
    assert parse(alias) == parse(name)


@pytest.mark.parametrize(
    "document",
    [
        None,
        3,
        [],
        {},
        {"name": 3},
        {"name": ["int8"]},
        {"name": "int8", "must_understand": False},
        {"name": "int8", "configuration": []},
        {"name": "int8", "configuration": None},
        {"name": "int8", "configuration": {"x": 1}},
        {"name": "int8", "other": 1},
    ],
)
def test_malformed_data_types_are_refused(document):
    with pytest.raises(MetadataError, match=r"^/a: .*data.type") as caught:
        parse(document)
    assert caught.value.path == "/a"


@pytest.mark.parametrize("document", ["float128", "Int8", "", {"name": "nope", "configuration": {"a": 1}}])
def test_unknown_data_types_say_which_there_are(document):
    with pytest.raises(UnknownExtensionError, match="azarr has bool, int8") as caught:
        parse(document)
    assert caught.value.name == (document if isinstance(document, str) else "nope")
    assert caught.value.path == "/a"


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble, [("a", np.longdouble)]])
def test_unsupported_dtypes_say_which_there_are(dtype):
    with pytest.raises(MetadataError, match="azarr has bool, int8"):
        data_type_for(np.dtype(dtype))


def test_arrays_of_objects_do_not_say_what_they_hold():
    with pytest.raises(MetadataError, match="choose dtype=str or bytes"):
        data_type_for(np.dtype(object))


def test_numpy_types_are_read_only():
    with pytest.raises(TypeError):
        NUMPY_TYPES[np.void] = NUMPY_TYPES[np.int8]


# bool and integers


def test_bool_fill_values():
    boolean = parse("bool")
    assert boolean.parse_fill_value(True) is np.True_
    assert boolean.parse_fill_value(False) is np.False_
    assert boolean.serialize_fill_value(np.True_) is True
    assert boolean.parse_fill_value(1) is np.True_  # written by early v3 writers
    for document in (None, 2, -1, 0.0, 1.0, "true", "", [True], {}):
        with pytest.raises(MetadataError, match="takes true or false"):
            boolean.parse_fill_value(document)


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_fill_values_are_exact_and_in_range(name):
    data_type, bounds = parse(name), np.iinfo(name)
    for number in (bounds.min, bounds.max, 0, 7):
        value = data_type.parse_fill_value(json.loads(json.dumps(number)))
        assert int(value) == number
        assert value.dtype == np.dtype(name)
        assert data_type.serialize_fill_value(value) == number
        assert type(data_type.serialize_fill_value(value)) is int
    for document in (bounds.min - 1, bounds.max + 1, 10**30, 7.0, 0.5, True, False, None, "7", "0x07", [7], {}, float("nan"), float("inf")):
        with pytest.raises(MetadataError, match=f"from {bounds.min} to {bounds.max}"):
            data_type.parse_fill_value(document)


# floating-point numbers


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(
    ("document", "expected"),
    [(0, 0.0), (7, 7.0), (-2, -2.0), (1.5, 1.5), ("Infinity", np.inf), ("-Infinity", -np.inf), (10**400, np.inf), (-(10**400), -np.inf)],
)
def test_numbers_and_infinities(name, document, expected):
    value = parse(name).parse_fill_value(document)
    assert value == expected
    assert value.dtype == np.dtype(name)


def test_numbers_are_rounded_to_nearest_even_and_out_of_range_to_infinity():
    half, single, double = map(parse, FLOATS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert half.parse_fill_value(2049) == 2048
        assert half.parse_fill_value(2051) == 2052
        assert half.parse_fill_value(65520) == np.inf
        assert half.parse_fill_value(65519) == 65504
        assert single.parse_fill_value(16777217) == 16777216
        assert single.parse_fill_value(16777219) == 16777220
        assert single.parse_fill_value(1e40) == np.inf
        assert single.parse_fill_value(-1e40) == -np.inf
        assert double.parse_fill_value(json.loads("1e400")) == np.inf
        assert double.parse_fill_value(5e-324) == 5e-324


@pytest.mark.parametrize("name", FLOATS)
def test_the_canonical_nan(name):
    data_type = parse(name)
    value = data_type.parse_fill_value("NaN")
    assert bits(value) == CANONICAL_NAN[name]
    assert data_type.serialize_fill_value(value) == "NaN"
    assert bits(data_type.parse_fill_value(hexadecimal(name, CANONICAL_NAN[name]))) == CANONICAL_NAN[name]
    assert data_type.serialize_fill_value(np.dtype(name).type(np.nan)) == "NaN"


@pytest.mark.parametrize("name", FLOATS)
def test_other_nans_keep_their_payload(name):
    data_type, canonical = parse(name), CANONICAL_NAN[name]
    quiet = 1 << {"float16": 9, "float32": 22, "float64": 51}[name]
    negative = 1 << (8 * np.dtype(name).itemsize - 1)
    for pattern in (canonical | 1, canonical | negative, (canonical ^ quiet) | 1, canonical | 0x155):
        document = hexadecimal(name, pattern)
        value = data_type.parse_fill_value(document)
        assert bits(value) == pattern
        assert data_type.serialize_fill_value(value) == document
        assert bits(data_type.parse_fill_value(document.upper().replace("X", "x"))) == pattern


@pytest.mark.parametrize("name", FLOATS)
def test_negative_zero_stays_negative(name):
    data_type = parse(name)
    document = data_type.serialize_fill_value(data_type.parse_fill_value(json.loads("-0.0")))
    assert json.dumps(document) == "-0.0"


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(
    "document",
    [
        None,
        True,
        False,
        "nan",
        "NAN",
        "+Infinity",
        "inf",
        "Inf",
        "1.0",
        "",
        "0x",
        "0x7",
        "0x7fc",
        "0X7e00",
        " NaN",
        [],
        [0],
        {},
        float("nan"),
    ],
)
def test_illegal_float_fill_values_say_what_is_legal(name, document):
    with pytest.raises(MetadataError, match=f"{name}, which takes a number, 'NaN', 'Infinity', '-Infinity' or '0x' and"):
        parse(name).parse_fill_value(document)


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize(
    "change", [lambda text: text + "0", lambda text: text[:-1], lambda text: text[:-1] + "g", lambda text: text + "\n"]
)
def test_hexadecimal_needs_exactly_the_digits_of_the_type(name, change):
    with pytest.raises(MetadataError, match="hexadecimal digits"):
        parse(name).parse_fill_value(change(hexadecimal(name, 1)))


@patient
@given(name=st.sampled_from(FLOATS), data=st.data())
def test_every_bit_pattern_survives(name, data):
    data_type = parse(name)
    pattern = data.draw(st.integers(0, 2 ** (8 * np.dtype(name).itemsize) - 1))
    value = data_type.parse_fill_value(hexadecimal(name, pattern))
    assert bits(value) == pattern
    document = json.loads(json.dumps(data_type.serialize_fill_value(value), allow_nan=False))
    assert bits(data_type.parse_fill_value(document)) == pattern


# complex numbers


def test_complex_fill_values():
    single = parse("complex64")
    assert single.parse_fill_value([1.5, -2]) == np.complex64(1.5 - 2j)
    assert single.parse_fill_value([0, "-Infinity"]).imag == -np.inf
    value = single.parse_fill_value(["0xffc00001", "NaN"])
    assert value.dtype == np.complex64
    assert value.tobytes() == np.array([0xFFC00001, 0x7FC00000], "u4").tobytes()
    assert single.serialize_fill_value(value) == ["0xffc00001", "NaN"]
    assert json.dumps(single.serialize_fill_value(single.parse_fill_value([-0.0, 1]))) == "[-0.0, 1.0]"
    assert parse("complex128").serialize_fill_value(np.complex128(0.1)) == [0.1, 0.0]


@pytest.mark.parametrize("name", COMPLEX)
@pytest.mark.parametrize(
    "document", [None, 0, 1.5, "NaN", [], [0], [0, 0, 0], [0, None], [0, 1, "x"], [True, 0], ["nan", 0], {"re": 0}, [[0], [0]]]
)
def test_illegal_complex_fill_values(name, document):
    with pytest.raises(MetadataError, match=rf"{name}, which takes \[real, imaginary\]"):
        parse(name).parse_fill_value(document)


@patient
@given(name=st.sampled_from(COMPLEX), data=st.data())
def test_every_complex_bit_pattern_survives(name, data):
    data_type = parse(name)
    raw = data.draw(st.binary(min_size=data_type.dtype.itemsize, max_size=data_type.dtype.itemsize))
    value = np.frombuffer(raw, data_type.dtype)[0]
    document = json.loads(json.dumps(data_type.serialize_fill_value(value), allow_nan=False))
    assert data_type.parse_fill_value(document).tobytes() == raw


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.from_regex(r"-?0x[0-9a-f]{0,17}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@patient
@given(name=st.sampled_from(CORE), document=json_values)
def test_any_fill_value_is_parsed_or_refused(name, document):
    data_type = parse(name)
    try:
        value = data_type.parse_fill_value(document)
    except MetadataError:
        return
    assert value.dtype == data_type.dtype
    assert data_type.parse_fill_value(data_type.serialize_fill_value(value)).tobytes() == value.tobytes()


# Data types of users


class IPv4(DataType):
    """Addresses, whole numbers in memory and text in metadata."""

    def parse_fill_value(self, document):
        return np.uint32(int(ipaddress.IPv4Address(document)))

    def serialize_fill_value(self, value):
        return str(ipaddress.IPv4Address(int(value)))


def make_ipv4(configuration):
    assert not configuration
    return IPv4("test.ipv4", np.dtype(np.uint32))


async def test_a_registered_data_type_reads_and_writes():
    store = azarr.MemoryStore()
    with register_data_type("test.ipv4", make_ipv4, aliases=["test.address"]):
        array = await azarr.create_array(store, shape=3, dtype="test.ipv4", fill_value=np.uint32(16909060))
        assert json.loads(await store.get("zarr.json"))["fill_value"] == "1.2.3.4"
        await array[1].write(np.uint32(7))
        opened = await azarr.open_array(store)
        assert opened.metadata.data_type == make_ipv4({})
        np.testing.assert_array_equal(await opened.read(), np.array([16909060, 7, 16909060], "u4"))
        assert parse("test.address") == parse({"name": "test.ipv4"})
    with pytest.raises(UnknownExtensionError, match=r"unknown data type 'test\.ipv4'"):
        await azarr.open_array(store)
    with pytest.raises(MetadataError, match=r"dtype 'test\.ipv4' is neither"):
        await azarr.create_array(store, "b", shape=3, dtype="test.ipv4")


@pytest.mark.parametrize("name", ["int8", "variable_length_bytes", "r24"])
def test_a_data_type_is_replaced_only_on_purpose(name):
    with pytest.raises(RegistrationError, match=f"'{name}' is .* azarr"):
        register_data_type(name, make_ipv4)


def test_a_replaced_data_type_comes_back():
    with register_data_type("int8", make_ipv4, replace=True):
        assert parse("int8") == make_ipv4({})
    assert parse("int8").dtype == np.int8


def test_a_data_type_that_cannot_be_made_is_refused():
    with pytest.raises(TypeError, match="needs a function from a configuration to a DataType"):
        register_data_type("test.ipv4", make_ipv4({}))
