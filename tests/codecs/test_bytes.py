from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from azarr.codecs.bytes import Bytes
from azarr.codecs.pipeline import CodecPipeline
from azarr.data_types import parse_data_type
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

DTYPES = ["bool", "i1", "u1", "i2", "u4", "i8", "f2", "f4", "f8", "c8", "c16"]


def spec_of(shape, dtype):
    return ChunkSpec(tuple(shape), np.dtype(dtype), np.zeros(1, dtype)[0])


@given(st.data(), st.sampled_from(DTYPES), st.sampled_from(["little", "big"]))
def test_the_bytes_are_the_elements_in_c_order_and_byte_order(data, dtype, endian):
    chunk = data.draw(npst.arrays(dtype, npst.array_shapes(min_dims=0, max_dims=3, max_side=4)))
    spec = spec_of(chunk.shape, dtype)
    codec = Bytes(endian).bind(spec)
    encoded = codec.encode(chunk, spec)
    assert bytes(encoded) == chunk.astype(chunk.dtype.newbyteorder("<" if endian == "little" else ">")).tobytes()
    decoded = codec.decode(encoded, spec)
    assert decoded.shape == chunk.shape
    assert decoded.astype(dtype).tobytes() == chunk.tobytes()
    assert len(encoded) == codec.encoded_size(spec) == codec.max_encoded_size(spec) == spec.nbytes


@pytest.mark.parametrize("endian", ["little", "big"])
@pytest.mark.parametrize("view", ["transposed", "stepped", "reversed", "broadcast", "foreign"])
def test_chunks_of_any_strides_and_byte_order(endian, view):
    base = np.arange(24, dtype="i4").reshape(4, 6)
    chunk = {
        "transposed": base.T,
        "stepped": base[::2, ::3],
        "reversed": base[::-1, ::-1],
        "broadcast": np.broadcast_to(base[0], (3, 6)),
        "foreign": base.astype(">i4"),
    }[view]
    spec = spec_of(chunk.shape, "i4")
    codec = Bytes(endian).bind(spec)
    before = chunk.copy()
    assert np.array_equal(codec.decode(codec.encode(chunk, spec), spec), chunk)
    assert np.array_equal(chunk, before)


def test_nothing_is_copied_where_the_memory_is_what_is_stored():
    chunk = np.arange(6, dtype="<i4").reshape(2, 3)
    spec = spec_of((2, 3), "<i4")
    encoded = Bytes("little").bind(spec).encode(chunk, spec)
    assert np.shares_memory(np.frombuffer(encoded, "u1"), chunk)
    data = bytes(encoded)
    decoded = Bytes("little").bind(spec).decode(data, spec)
    assert not decoded.flags.writeable
    assert not decoded.flags.owndata


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_decodes(kind):
    spec = spec_of((2,), "<u2")
    assert Bytes().bind(spec).decode(kind(b"\x01\x00\x02\x00"), spec).tolist() == [1, 2]


@pytest.mark.parametrize("nbytes", [0, 1, 7, 9, 16])
def test_another_size_is_an_error(nbytes):
    spec = spec_of((2,), "i4")
    with pytest.raises(CodecError, match="^bytes: decodes to .*8") as caught:
        Bytes().bind(spec).decode(bytes(nbytes), spec)
    assert caught.value.codec == "bytes"


def test_a_chunk_without_elements():
    spec = spec_of((0, 3), "i4")
    codec = Bytes().bind(spec)
    assert len(codec.encode(np.empty((0, 3), "i4"), spec)) == 0
    assert codec.decode(b"", spec).shape == (0, 3)


@pytest.mark.parametrize("dtype", ["bool", "i1", "u1"])
@pytest.mark.parametrize("endian", ["little", "big", None])
def test_single_bytes_have_no_byte_order(dtype, endian):
    assert Bytes(endian).bind(spec_of((2,), dtype)) == Bytes(None)
    assert Bytes(None).configuration() == {}


@pytest.mark.parametrize("dtype", ["i2", "f8", "c8"])
def test_several_bytes_need_a_byte_order(dtype):
    with pytest.raises(MetadataError, match="needs 'endian'"):
        Bytes(None).bind(spec_of((2,), dtype))


def test_elements_of_variable_length_are_refused():
    with pytest.raises(MetadataError, match="variable length"):
        Bytes().bind(ChunkSpec((2,), np.dtype(object), np.int8(0)))


@pytest.mark.parametrize(("name", "stored", "values", "written"), [
    ("int4", b"\xf8\x0f\x27\x7e", [-8, -1, 7, -2], b"\xf8\xff\x07\xfe"),
    ("uint4", b"\xf8\x0f\x27\x7e", [8, 15, 7, 14], b"\x08\x0f\x07\x0e"),
    ("int2", b"\xfe\x03\x01\x04", [-2, -1, 1, 0], b"\xfe\xff\x01\x00"),
    ("float4_e2m1fn", b"\xf7\x01\x08\x0f", [6.0, 0.5, -0.0, -6.0], b"\x07\x01\x08\x0f"),
    ("float6_e2m3fn", b"\xdf\x01\x20\x3f", [7.5, 0.125, -0.0, -7.5], b"\x1f\x01\x20\x3f"),
])  # fmt: skip
def test_upper_bits_of_narrow_elements_mean_nothing(name, stored, values, written):
    data_type = parse_data_type(name, "/")
    pipeline = CodecPipeline([Bytes(None)], ChunkSpec((4,), data_type.dtype, data_type.zero))
    decoded = pipeline.decode(stored)
    assert decoded.tolist() == values
    out = np.empty(4, data_type.dtype)
    pipeline.decode_into(stored, out)
    assert out.tobytes() == decoded.tobytes() == np.array(values).astype(data_type.dtype).tobytes()
    assert bytes(pipeline.encode(decoded)) == written


@pytest.mark.parametrize("endian", ["little", "big"])
def test_fields_take_the_byte_order_at_every_depth(endian):
    sign = "<" if endian == "little" else ">"
    stored = np.dtype([("a", "u1"), ("b", sign + "i4"), ("n", [("t", sign + "M8[s]"), ("u", sign + "U2"), ("c", sign + "c8")])])
    values = np.array([(1, 2, (3, "ab", 1 + 2j)), (255, -2, (-3, "ü", 0))], stored)
    native = stored.newbyteorder("=")
    pipeline = CodecPipeline([Bytes(endian)], ChunkSpec((2,), native, np.zeros(1, native)[0]))
    assert bytes(pipeline.encode(values.astype(native))) == values.tobytes()
    assert (pipeline.decode(values.tobytes()) == values).all()
    with pytest.raises(MetadataError, match="needs 'endian'"):
        Bytes(None).bind(pipeline.spec)


@pytest.mark.parametrize(("configuration", "endian"), [({}, None), ({"endian": "big"}, "big"), ({"endian": "little"}, "little")])
def test_configurations_round_trip(configuration, endian):
    codec = Bytes.from_configuration(configuration)
    assert codec == Bytes(endian)
    assert codec.configuration() == configuration


@pytest.mark.parametrize("configuration", [{"endian": "middle"}, {"endian": 1}, {"endian": []}, {"order": "C"}], ids=repr)
def test_illegal_configurations(configuration):
    with pytest.raises(MetadataError, match="codec 'bytes'"):
        Bytes.from_configuration(configuration)
