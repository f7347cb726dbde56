from __future__ import annotations

import math
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from azarr.codecs.cast_value import CastValue
from azarr.codecs.number_formats import ROUND, FloatFormat, WholeFormat, _round_fraction, number_format
from azarr.data_types import parse_data_type
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

WHOLE = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
FLOATS = ["float16", "float32", "float64"]


def codec(data_type, rounding="nearest-even", out_of_range=None, **maps):
    configuration = {"data_type": data_type, "rounding": rounding}
    if out_of_range:
        configuration["out_of_range"] = out_of_range
    if maps:
        configuration["scalar_map"] = maps
    return CastValue.from_configuration(configuration)


def spec_of(dtype, fill=0):
    dtype = np.dtype(dtype)
    return ChunkSpec((1,), dtype, dtype.type(fill))


def cast(values, dtype, *args, **maps):
    chunk = np.array(values, dtype)
    return codec(*args, **maps).encode(chunk, spec_of(dtype)).tolist()


def expected(value, target, rounding, out_of_range):
    """What becomes of one number, in Python's own exact arithmetic; ``None`` for an error."""
    if isinstance(value, float) and not math.isfinite(value):
        if isinstance(target, FloatFormat):
            return value
        return (target.lowest if value < 0 else target.highest) if out_of_range == "clamp" and not math.isnan(value) else None
    exact = Fraction(value)
    if isinstance(target, WholeFormat):
        rounded = _round_fraction(exact, rounding)
        if target.lowest <= rounded <= target.highest:
            return rounded
        if out_of_range == "wrap":
            return (rounded - target.lowest) % (1 << target.bits) + target.lowest
        return None if out_of_range is None else max(target.lowest, min(target.highest, rounded))
    if not exact:
        return 0.0
    exponent = max(math.floor(math.log2(abs(exact))) if exact else 0, target.min_exponent)
    while Fraction(2) ** exponent > abs(exact) and exponent > target.min_exponent:
        exponent -= 1
    while Fraction(2) ** (exponent + 1) <= abs(exact):
        exponent += 1
    step = Fraction(2) ** (max(exponent, target.min_exponent) - target.digits + 1)
    rounded = _round_fraction(exact / step, rounding) * step
    if target.lowest <= rounded <= target.highest:
        return float(rounded)
    return None if out_of_range is None else math.copysign(math.inf, rounded)


numbers = {
    "f": st.floats(width=64) | st.floats(-300, 300, width=64) | st.integers(-600, 600).map(lambda half: half / 2),
    "i": st.integers(-(2**63), 2**63 - 1) | st.integers(-300, 300) | st.sampled_from([2**53 + 1, 2**60 + 1, -(2**53) - 1]),
    "u": st.integers(0, 2**64 - 1) | st.integers(0, 300) | st.sampled_from([2**53 + 1, 2**63 + 1025]),
}


@settings(deadline=None, max_examples=600)
@given(
    st.data(),
    st.sampled_from([*FLOATS, *WHOLE]),
    st.sampled_from([*FLOATS, *WHOLE]),
    st.sampled_from([*ROUND]),
    st.sampled_from([None, "clamp", "wrap"]),
)
def test_every_number_becomes_what_exact_arithmetic_says(data, source, target, rounding, out_of_range):
    dtype = np.dtype(source)
    with np.errstate(all="ignore"):
        value = np.array(data.draw(numbers[dtype.kind]), np.float64 if dtype.kind == "f" else None).astype(dtype)[()]
    target_format = number_format("", np.dtype(target))
    if out_of_range == "wrap" and isinstance(target_format, FloatFormat):
        out_of_range = None
    wanted = value.item() if source == target else expected(value.item(), target_format, rounding, out_of_range)
    cast_value = codec(target, rounding, out_of_range)
    if wanted is None:
        with pytest.raises(CodecError, match="has no place in"):
            cast_value.encode(np.array([value]), spec_of(source))
        return
    (got,) = cast_value.encode(np.array([value]), spec_of(source)).tolist()
    np.testing.assert_array_equal(got, wanted)
    assert type(got) is type(wanted)


@settings(deadline=None)
@given(st.sampled_from(WHOLE), st.data())
def test_whole_numbers_in_float64_come_back(dtype, data):
    bounds = np.iinfo(dtype)
    chunk = data.draw(hnp.arrays(dtype, (3, 4), elements=st.integers(max(-(2**53), int(bounds.min)), min(2**53, int(bounds.max)))))
    cast_value = codec("float64")
    spec = ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))
    encoded = cast_value.encode(chunk, spec)
    assert (encoded.shape, encoded.dtype) == (chunk.shape, np.dtype("f8"))
    np.testing.assert_array_equal(cast_value.decode(encoded, spec), chunk)


@pytest.mark.parametrize(
    ("rounding", "wanted"),
    [
        ("nearest-even", [-2, -2, -1, 0, 0, 1, 2, 2]),
        ("towards-zero", [-2, -1, 0, 0, 0, 0, 1, 2]),
        ("towards-positive", [-2, -1, 0, 0, 1, 1, 2, 3]),
        ("towards-negative", [-3, -2, -1, -1, 0, 0, 1, 2]),
        ("nearest-away", [-3, -2, -1, -1, 1, 1, 2, 3]),
    ],
)
def test_roundings(rounding, wanted):
    assert cast([-2.5, -1.5, -0.75, -0.5, 0.5, 0.75, 1.5, 2.5], "f8", "int8", rounding) == wanted


def test_nearest_away_does_not_round_what_is_just_below_a_half():
    assert cast([0.49999999999999994, -0.49999999999999994], "f8", "int8", "nearest-away") == [0, 0]


def test_out_of_range():
    with pytest.raises(CodecError, match=r"128.0 has no place in int8; map it with scalar_map, or say"):
        cast([128.0], "f8", "int8")
    assert cast([128.0, -500.0, math.inf, -math.inf], "f8", "int8", "nearest-even", "clamp") == [127, -128, 127, -128]
    assert cast([128.0, -129.0, 2.0**70 + 2.0**30], "f8", "int8", "nearest-even", "wrap") == [-128, 127, 0]
    assert cast([1e40, -1e40], "f8", "float32", "nearest-even", "clamp") == [math.inf, -math.inf]
    with pytest.raises(CodecError, match="1e\\+40 has no place"):
        cast([1e40], "f8", "float32")
    assert cast([math.inf, -0.0], "f8", "float32") == [math.inf, -0.0]
    for value in (math.nan, math.inf):
        with pytest.raises(CodecError, match="has no place in uint8"):
            cast([value], "f4", "uint8", "nearest-even", "wrap")
    with pytest.raises(CodecError, match="nan has no place"):
        cast([math.nan], "f4", "uint8", "nearest-even", "clamp")


def test_the_sign_of_zero_is_kept():
    assert math.copysign(1, cast([-0.0], "f8", "float16")[0]) == -1


def test_nan_payloads_survive_where_the_type_is_wider():
    chunk = np.array([0x7FC00001], "u4").view("f4")
    assert np.isnan(codec("float64").encode(chunk, spec_of("f4"))).all()


def test_single_numbers_are_mapped_first():
    cast_value = codec("uint8", encode=[["NaN", 255], [1.5, 7], [1.5, 8]], decode=[[255, "NaN"]])
    chunk = np.array([math.nan, 1.5, 3.0], "f4")
    encoded = cast_value.encode(chunk, spec_of("f4"))
    assert encoded.tolist() == [255, 7, 3]
    np.testing.assert_array_equal(cast_value.decode(encoded, spec_of("f4")), np.array([math.nan, 7, 3], "f4"))


def test_a_fill_value_may_be_mapped():
    cast_value = codec("uint8", encode=[["NaN", 255]], decode=[[255, "NaN"]])
    resolved = cast_value.bind(spec_of("f4", math.nan)).resolve(spec_of("f4", math.nan))
    assert (resolved.dtype, resolved.fill_value) == (np.dtype("u1"), 255)


@pytest.mark.parametrize(
    ("dtype", "fill", "target"), [("f4", 0.5, "uint8"), ("f4", 300, "uint8"), ("f4", math.nan, "uint8"), ("f8", 0.1, "float32")]
)
def test_a_fill_value_that_does_not_come_back_is_refused(dtype, fill, target):
    with pytest.raises(MetadataError, match="fill value"):
        codec(target).bind(spec_of(dtype, fill))


def test_damage_that_does_not_fit_the_array_is_an_error():
    with pytest.raises(CodecError, match="1000 has no place in int8"):
        codec("int32").decode(np.array([1000], "i4"), spec_of("i1"))


MINI = [
    "bfloat16",
    "float8_e4m3",
    "float8_e3m4",
    "float8_e5m2",
    "float8_e4m3b11fnuz",
    "float8_e4m3fnuz",
    "float8_e5m2fnuz",
    "float6_e2m3fn",
    "float4_e2m1fn",
]


@pytest.mark.parametrize("name", MINI)
def test_the_formats_of_small_floats_round_as_their_library_does(name):
    dtype = np.dtype(getattr(ml_dtypes, name))
    every = np.arange(256, dtype="u1").view(dtype) if dtype.itemsize == 1 else np.arange(65536, dtype="u2").view(dtype)
    exact = every.astype("f4")
    finite = np.unique(exact[np.isfinite(exact)])
    between = np.concatenate([finite, finite[1:] / 2 + finite[:-1] / 2]).astype("f4")
    found = number_format("", dtype)
    assert (found.lowest, found.highest) == (finite.min(), finite.max())
    data_type = _data_type(name)
    got = CastValue(data_type).encode(between, spec_of("f4"))
    # halves between two numbers go to the even one, and every number stays what it is
    np.testing.assert_array_equal(got.astype("f4"), between.astype(dtype).astype("f4"))
    if not found.has_infinity:
        beyond = np.array([1e30, -1e30], "f4")
        with pytest.raises(CodecError, match="has no place"):
            CastValue(data_type).encode(beyond, spec_of("f4"))
        clamped = CastValue(data_type, out_of_range="clamp").encode(beyond, spec_of("f4")).astype("f4")
        assert clamped.tolist() == [found.highest, found.lowest]


@pytest.mark.parametrize(("name", "low", "high"), [("int4", -8, 7), ("uint4", 0, 15), ("int2", -2, 1), ("uint2", 0, 3)])
def test_small_whole_numbers(name, low, high):
    data_type = _data_type(name)
    values = np.arange(-40, 40, dtype="i2")
    clamped = CastValue(data_type, out_of_range="clamp").encode(values, spec_of("i2"))
    np.testing.assert_array_equal(clamped.astype("i2"), np.clip(values, low, high))
    wrapped = CastValue(data_type, out_of_range="wrap").encode(values.astype("f4"), spec_of("f4"))
    np.testing.assert_array_equal(wrapped.astype("i2"), (values - low) % (high - low + 1) + low)
    np.testing.assert_array_equal(CastValue(data_type).decode(clamped, spec_of("f4")), np.clip(values, low, high).astype("f4"))
    np.testing.assert_array_equal(CastValue(data_type).decode(clamped, spec_of("i8")), np.clip(values, low, high))


def _data_type(name):
    try:
        return parse_data_type(name, "/")
    except MetadataError:
        pytest.skip(f"there is no data type {name}")


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"data_type": "int8", "extra": 1},
        {"data_type": "no_such"},
        {"data_type": "bool"},
        {"data_type": "complex64"},
        {"data_type": "int8", "rounding": "up"},
        {"data_type": "int8", "rounding": None},
        {"data_type": "int8", "out_of_range": "error"},
        {"data_type": "float32", "out_of_range": "wrap"},
        {"data_type": "int8", "scalar_map": []},
        {"data_type": "int8", "scalar_map": {"both": []}},
        {"data_type": "int8", "scalar_map": {"encode": [1]}},
        {"data_type": "int8", "scalar_map": {"encode": [[1, 1]] * 257}},
        {"data_type": "int8", "scalar_map": {"encode": [[1, 2, 3]]}},
        {"data_type": "int8", "scalar_map": {"encode": [[1, None]]}},
        {"data_type": "int8", "scalar_map": {"encode": [[True, 1]]}},
    ],
    ids=repr,
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="cast_value|no_such"):
        CastValue.from_configuration(wrong)


def test_maps_of_numbers_that_there_are_not_are_refused():
    with pytest.raises(MetadataError, match="scalar_map"):
        codec("int8", encode=[["NaN", 300]]).bind(spec_of("f4"))
    with pytest.raises(MetadataError, match="takes real numbers"):
        codec("int8").bind(spec_of("c8"))
