from __future__ import annotations

import ml_dtypes
import numcodecs
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from azarr.codecs.packbits import SLAB, NumcodecsPackBits, PackBits
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

BITS = np.array([1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0], bool)


def spec_of(chunk):
    return ChunkSpec(chunk.shape, chunk.dtype, np.zeros((), chunk.dtype)[()])


@pytest.mark.parametrize(("padding", "expected"), [("none", "01 03"), ("first_byte", "05 01 03"), ("last_byte", "01 03 05")])
def test_the_first_element_is_the_lowest_bit(padding, expected):
    value = bytes.fromhex(expected)
    assert bytes(PackBits(padding).encode(BITS, spec_of(BITS))) == value
    np.testing.assert_array_equal(PackBits(padding).decode(value, spec_of(BITS)), BITS)


def reference(numbers, first, last):
    """The packed bits of unsigned numbers, one bit after the other."""
    stream = [number >> bit & 1 for number in numbers for bit in range(first, last + 1)]
    stream += [0] * (-len(stream) % 8)
    return bytes(sum(bit << i for i, bit in enumerate(stream[start : start + 8])) for start in range(0, len(stream), 8))


@settings(deadline=None, max_examples=200)
@given(st.data(), st.sampled_from(["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", "M8[s]"]))
def test_any_bits_of_any_numbers(data, dtype):
    chunk = data.draw(hnp.arrays(dtype, hnp.array_shapes(max_dims=2, max_side=9)))
    parts = 2 if chunk.dtype.kind == "c" else 1
    width = 1 if chunk.dtype.kind == "b" else 8 * chunk.dtype.itemsize // parts
    first = data.draw(st.integers(0, width - 1))
    last = data.draw(st.integers(first, width - 1))
    codec = PackBits(data.draw(st.sampled_from(["none", "first_byte", "last_byte"])), first, last).bind(spec_of(chunk))
    value = bytes(codec.encode(chunk, spec_of(chunk)))
    assert len(value) == codec.encoded_size(spec_of(chunk))
    bits = chunk.reshape(-1).view(f"u{chunk.dtype.itemsize // parts}")
    packed = value[1:] if codec.padding_encoding == "first_byte" else value[:-1] if codec.padding_encoding == "last_byte" else value
    assert packed == reference(bits.tolist(), first, last)
    decoded = codec.decode(value, spec_of(chunk)).reshape(-1).view(bits.dtype)
    mask = (1 << last + 1) - (1 << first)
    for number, back in zip(bits.tolist(), decoded.tolist(), strict=True):
        sign = (1 << width) - (1 << last + 1) if chunk.dtype.kind in "imM" and number >> last & 1 else 0
        assert back == number & mask | sign


@pytest.mark.parametrize(
    ("dtype", "width"), [("int4", 4), ("uint4", 4), ("int2", 2), ("uint2", 2), ("float4_e2m1fn", 4), ("float6_e2m3fn", 6), ("bfloat16", 16)]
)
def test_numbers_narrower_than_a_byte(dtype, width):
    dtype = np.dtype(getattr(ml_dtypes, dtype))
    chunk = np.arange(1 << min(width, 8), dtype=f"u{dtype.itemsize}").view(dtype)
    value = PackBits().encode(chunk, spec_of(chunk))
    assert len(value) == -(-chunk.size * width // 8)
    back = PackBits().decode(value, spec_of(chunk))
    assert back.tobytes() == chunk.tobytes()


@pytest.mark.parametrize("dtype", ["?", "u2"])
def test_more_than_a_slab(dtype):
    chunk = np.random.default_rng(0).integers(0, 2, SLAB * 2 + 13).astype(dtype)
    codec = PackBits("first_byte", 0, 0)
    value = codec.encode(chunk, spec_of(chunk))
    assert bytes(value[1:]) == np.packbits(chunk.astype(bool), bitorder="little").tobytes()
    np.testing.assert_array_equal(codec.decode(value, spec_of(chunk)), chunk)


@pytest.mark.parametrize("value", [b"", b"\1", b"\1\3\0"])
def test_another_size_is_damage(value):
    with pytest.raises(CodecError, match="where the chunk has|more than the"):
        PackBits().decode(value, spec_of(BITS))


def test_another_padding_is_damage():
    with pytest.raises(CodecError, match="padding is 4 bits where the chunk has 5"):
        PackBits("first_byte").decode(b"\4\1\3", spec_of(BITS))


@pytest.mark.parametrize("bits", [{"first_bit": 8}, {"last_bit": 8}, {"first_bit": 5, "last_bit": 4}])
def test_bits_that_there_are_not(bits):
    with pytest.raises(MetadataError, match="has no bits from"):
        PackBits.from_configuration(bits).bind(spec_of(np.zeros(3, "u1")))


@pytest.mark.parametrize("dtype", ["S3", "U2", "V2", [("x", "i2")]])
def test_what_has_no_such_bits_is_refused(dtype):
    with pytest.raises(MetadataError, match="truth values and numbers"):
        PackBits().bind(spec_of(np.zeros(3, dtype)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"padding_encoding": "middle"},
        {"padding_encoding": None},
        {"first_bit": -1},
        {"first_bit": 1.0},
        {"last_bit": "7"},
        {"start_bit": 0},
    ],
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="packbits"):
        PackBits.from_configuration(wrong)


@settings(deadline=None)
@given(hnp.arrays("?", hnp.array_shapes(max_dims=2, max_side=9)))
def test_numcodecs_has_the_first_element_in_the_highest_bit(chunk):
    codec, theirs, spec = NumcodecsPackBits(), numcodecs.PackBits(), spec_of(chunk)
    encoded = codec.encode(chunk, spec)
    np.testing.assert_array_equal(encoded, theirs.encode(chunk))
    assert encoded.shape == codec.resolve(spec).shape
    np.testing.assert_array_equal(codec.decode(encoded, spec), chunk)


def test_the_numcodecs_example():
    assert NumcodecsPackBits().encode(BITS, spec_of(BITS)).tobytes() == bytes.fromhex("05 80 c0")
    with pytest.raises(CodecError, match="padding is 4 bits"):
        NumcodecsPackBits().decode(np.array([4, 128, 192], "u1"), spec_of(BITS))
    with pytest.raises(MetadataError, match="truth values"):
        NumcodecsPackBits().bind(spec_of(np.zeros(3, "u1")))
