from __future__ import annotations

import itertools
import pickle
import struct

import crc32c
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs import Blosc, Bytes, Crc32c, Gzip, Sharding, Transpose, Zstd
from azarr.codecs.pipeline import CodecPipeline
from azarr.codecs.sharding import EMPTY
from azarr.errors import ChecksumError, CodecError, MetadataError
from azarr.types import ByteRange, ChunkSpec, Suffix
from tests.joined_shards import joined

FILL = -1
RAW = Sharding((1, 2), (Bytes(),), index_codecs=(Bytes(),))
"""Four inner chunks of 8 bytes in a shard of 2 x 4 elements; an index of 64 bytes without checksum."""
DATA = np.arange(8, dtype="<i4").reshape(2, 4)


def spec_of(*shape, dtype="i4", fill=FILL):
    return ChunkSpec(shape, np.dtype(dtype), np.dtype(dtype).type(fill))


def pipeline(*codecs, shape=(2, 4), **spec):
    return CodecPipeline(codecs, spec_of(*shape, **spec))


def index(*entries, order="<"):
    return struct.pack(f"{order}{2 * len(entries)}Q", *itertools.chain(*entries))


def inner(number):
    """The bytes of inner chunk ``number`` of ``DATA``."""
    row, column = divmod(number, 2)
    return DATA[row, 2 * column : 2 * column + 2].tobytes()


# What is written


def test_inner_chunks_lie_in_c_order_before_their_index():
    encoded = bytes(pipeline(RAW).encode(DATA))
    assert encoded == b"".join(map(inner, range(4))) + index((0, 8), (8, 8), (16, 8), (24, 8))


def test_an_index_at_the_start_counts_its_own_bytes():
    sharding = Sharding((1, 2), (Bytes(),), index_codecs=(Bytes(),), index_location="start")
    encoded = bytes(pipeline(sharding).encode(DATA))
    assert encoded == index((64, 8), (72, 8), (80, 8), (88, 8)) + b"".join(map(inner, range(4)))


def test_the_index_can_be_big_endian_and_have_a_checksum():
    sharding = Sharding((1, 2), (Bytes(),), index_codecs=(Bytes("big"), Crc32c()))
    expected = index((0, 8), (8, 8), (16, 8), (24, 8), order=">")
    encoded = bytes(pipeline(sharding).encode(DATA))
    assert encoded[32:] == expected + struct.pack("<I", crc32c.crc32c(expected))
    assert np.array_equal(pipeline(sharding).decode(encoded), DATA)


def test_inner_chunks_of_fill_value_are_not_stored():
    data = DATA.copy()
    data[0, :2] = data[1, 2:] = FILL
    encoded = bytes(pipeline(RAW).encode(data))
    assert encoded == inner(1) + inner(2) + index((EMPTY, EMPTY), (0, 8), (8, 8), (EMPTY, EMPTY))
    assert np.array_equal(pipeline(RAW).decode(encoded), data)


def test_a_shard_of_nothing_but_fill_value_is_its_index():
    encoded = bytes(pipeline(RAW).encode(np.full((2, 4), FILL, "i4")))
    assert encoded == index(*[(EMPTY, EMPTY)] * 4)
    assert (pipeline(RAW).decode(encoded) == FILL).all()


CODECS = {
    "plain": (Bytes(),),
    "big": (Bytes("big"),),
    "zstd": (Bytes(), Zstd()),
    "transposed": (Transpose((1, 0)), Bytes(), Gzip(1), Crc32c()),
    "blosc": (Bytes(), Blosc("lz4", 5, "shuffle")),
    "nested": (Sharding((1, 1), (Bytes(), Crc32c())),),
    "nested, index first": (Sharding((1, 1), (Bytes(),), index_codecs=(Bytes("big"),), index_location="start"), Zstd()),
}


@settings(deadline=None, max_examples=40)
@given(st.data(), st.sampled_from(list(CODECS)), st.sampled_from(["start", "end"]), st.booleans())
def test_shards_round_trip(data, codecs, location, checksum):
    chunk_shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    shape = tuple(length * data.draw(st.integers(1, 4)) for length in chunk_shape)
    dtype = data.draw(st.sampled_from(["u1", "i4", "c16"]))
    values = data.draw(st.lists(st.sampled_from([0, 1, 2]), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1]))
    chunk = np.array(values, dtype).reshape(shape)
    index_codecs = (Bytes(), Crc32c()) if checksum else (Bytes(),)
    whole = pipeline(Sharding(chunk_shape, CODECS[codecs], index_codecs, location), shape=shape, dtype=dtype, fill=0)
    encoded = whole.encode(chunk)
    assert len(encoded) <= whole.max_encoded_size
    assert np.array_equal(whole.decode(encoded), chunk)
    out = np.empty(shape[::-1], dtype).T
    whole.decode_into(encoded, out)
    assert np.array_equal(out, chunk)


def test_a_shard_of_a_scalar():
    whole = CodecPipeline((Sharding((), (Bytes(),), index_codecs=(Bytes(),)),), ChunkSpec((), np.dtype("i4"), np.int32(0)))
    encoded = bytes(whole.encode(np.array(7, "i4")))
    assert encoded == struct.pack("<i", 7) + index((0, 4))
    assert whole.decode(encoded)[()] == 7


# What others write


def test_inner_chunks_may_lie_anywhere():
    encoded = inner(3) + b"gap" + inner(1) + inner(0) + b"another" + inner(2) + index((19, 8), (11, 8), (34, 8), (0, 8))
    assert np.array_equal(pipeline(RAW).decode(encoded), DATA)


def test_inner_chunks_may_share_bytes():
    encoded = inner(0) + index((0, 8), (0, 8), (0, 8), (0, 8))
    assert np.array_equal(pipeline(RAW).decode(encoded), np.tile(DATA[0, :2], (2, 2)))


def test_inner_chunks_may_overlap():
    encoded = DATA[0].tobytes() + index((0, 8), (4, 8), (8, 8), (0, 8))
    assert pipeline(RAW).decode(encoded).tolist() == [[0, 1, 1, 2], [2, 3, 0, 1]]


def test_a_shard_may_have_bytes_before_an_index_at_the_end():
    assert np.array_equal(pipeline(RAW).decode(b"x" + pipeline_bytes_shifted(1)), DATA)


def pipeline_bytes_shifted(by):
    return b"".join(map(inner, range(4))) + index(*[(by + 8 * number, 8) for number in range(4)])


def test_sharding_can_be_one_codec_among_others():
    whole = pipeline(Transpose((1, 0)), Sharding((2, 1), (Bytes(), Zstd())), Gzip(1), Crc32c())
    encoded = whole.encode(DATA)
    assert np.array_equal(whole.decode(encoded), DATA)
    out = np.empty((4, 8), "i4")[::2, ::2]
    whole.decode_into(encoded, out)
    assert np.array_equal(out, DATA)


def test_nested_shards_are_shards():
    nested = pipeline(Sharding((2, 2), (Sharding((1, 2), (Bytes(),), (Bytes(),)),), (Bytes(),)))
    left = inner(0) + inner(2) + index((0, 8), (8, 8))
    right = inner(1) + inner(3) + index((0, 8), (8, 8))
    encoded = left + right + index((0, 48), (48, 48))
    assert bytes(nested.encode(DATA)) == encoded
    assert np.array_equal(nested.decode(encoded), DATA)


# Damage


@pytest.mark.parametrize(
    "entry", [(0, EMPTY), (EMPTY, 8), (0, 97), (96, 1), (2**64 - 8, 8), (2**63, 2**63), (10**12, 8), (2**64 - 2, 2**64 - 2)], ids=repr
)
@pytest.mark.parametrize("number", [0, 3])
def test_an_inner_chunk_outside_its_shard_is_an_error(entry, number):
    entries = [(8 * each, 8) for each in range(4)]
    entries[number] = entry
    with pytest.raises(CodecError, match=f"inner chunk {number} at .* outside the shard") as caught:
        pipeline(RAW).decode(b"".join(map(inner, range(4))) + index(*entries))
    assert caught.value.codec == "sharding_indexed"


@pytest.mark.parametrize("nbytes", [0, 7, 9, 16])
def test_an_inner_chunk_of_another_size_is_an_error(nbytes):
    entries = [(0, nbytes), (8, 8), (16, 8), (24, 8)]
    with pytest.raises(CodecError, match="the chunk"):
        pipeline(RAW).decode(b"".join(map(inner, range(4))) + index(*entries))


@pytest.mark.parametrize("nbytes", [0, 1, 63])
def test_a_shard_that_is_shorter_than_its_index_is_an_error(nbytes):
    with pytest.raises(CodecError, match=f"{nbytes} bytes for an index of 64; it was cut off"):
        pipeline(RAW).decode(bytes(nbytes))


@pytest.mark.parametrize("location", ["start", "end"])
def test_damage_to_the_index_is_found_by_its_checksum(location):
    whole = pipeline(Sharding((1, 2), (Bytes(),), index_location=location))
    encoded = bytearray(whole.encode(DATA))
    at = 3 if location == "start" else len(encoded) - 30
    encoded[at] ^= 1
    with pytest.raises(ChecksumError, match="crc32c"):
        whole.decode(encoded)


@pytest.mark.parametrize("location", ["start", "end"])
def test_a_shard_that_was_cut_off_is_an_error(location):
    whole = pipeline(Sharding((1, 2), (Bytes(), Zstd()), index_location=location))
    encoded = bytes(whole.encode(np.arange(100, 108, dtype="i4").reshape(2, 4)))
    for nbytes in range(len(encoded)):
        with pytest.raises(CodecError):
            whole.decode(encoded[:nbytes])


def test_damage_to_an_inner_chunk_is_found():
    whole = pipeline(Sharding((1, 2), (Bytes(), Crc32c())))
    encoded = bytearray(whole.encode(DATA))
    encoded[13] ^= 1
    with pytest.raises(ChecksumError):
        whole.decode(encoded)


@settings(deadline=None)
@given(st.binary(min_size=64, max_size=130))
def test_any_bytes_decode_or_raise(data):
    try:
        assert pipeline(RAW).decode(data).shape == (2, 4)
    except CodecError:
        return


# The address book


@pytest.mark.parametrize(("location", "request_"), [("end", Suffix(68)), ("start", ByteRange(0, 68))])
def test_the_layout_says_where_the_index_is(location, request_):
    whole = pipeline(sharding := Sharding((1, 2), (Bytes(), Zstd()), index_location=location))
    layout = whole.codecs[0].layout(spec_of(2, 4))
    assert sharding == whole.codecs[0]
    assert layout.index_nbytes == 68
    assert layout.index_request == request_
    assert (layout.grid_shape, layout.nchunks) == ((2, 2), 4)
    encoded = bytes(whole.encode(DATA))
    part = encoded[-68:] if location == "end" else encoded[:68]
    entries = layout.decode_index(part)
    for number, coords in enumerate(layout.coords()):
        assert layout.number(coords) == number
        (where,) = entries.spans([number])
        assert np.array_equal(layout.pipeline.decode(encoded[where.start : where.stop]), DATA[layout.region(coords)])


@pytest.mark.parametrize("location", ["start", "end"])
def test_splitting_and_joining_are_inverse(location):
    whole = pipeline(Sharding((1, 2), (Bytes(), Zstd()), index_location=location))
    layout = pickle.loads(pickle.dumps(whole.codecs[0].layout(spec_of(2, 4))))
    data = DATA.copy()
    data[0, :2] = FILL
    encoded = bytes(whole.encode(data))
    parts = layout.split(encoded)
    assert [part is None for part in parts] == [True, False, False, False]
    assert joined(layout, parts, len(encoded)) == encoded
    assert joined(layout, parts) == encoded  # where it has to grow


def test_an_index_alone_is_checked_for_overflow():
    layout = pipeline(RAW).codecs[0].layout(spec_of(2, 4))
    entries = layout.decode_index(index((2**63 - 1, 1), (0, 8), (8, 8), (EMPTY, EMPTY)))
    assert entries.spans([1, 3]) == [(0, 8), None]
    with pytest.raises(CodecError, match="outside the shard"):
        entries.spans([0])


# Configuration


@pytest.mark.parametrize("chunk_shape", [(2, 3), (1, 8), (4, 4), (2,), (1, 2, 1), ()], ids=repr)
def test_inner_chunks_must_divide_the_shard(chunk_shape):
    with pytest.raises(MetadataError, match="do not divide shards"):
        pipeline(Sharding(chunk_shape, (Bytes(),)))


@pytest.mark.parametrize("compressor", [Zstd(), Gzip(1)])
def test_the_index_cannot_be_compressed(compressor):
    with pytest.raises(MetadataError, match="fixed size"):
        pipeline(Sharding((1, 2), (Bytes(),), (Bytes(), compressor)))


@pytest.mark.parametrize(
    "change",
    [
        {"chunk_shape": None},
        {"chunk_shape": 2},
        {"chunk_shape": [0, 2]},
        {"chunk_shape": [1.0, 2]},
        {"chunk_shape": [True, 2]},
        {"index_location": "middle"},
        {"index_location": []},
        {"surprise": 1},
    ],
    ids=repr,
)
def test_illegal_configurations(change):
    legal = {"chunk_shape": [1, 2], "codecs": (Bytes(),), "index_codecs": (Bytes(),)}
    assert Sharding.from_configuration(legal) == RAW
    with pytest.raises(MetadataError, match="codec 'sharding_indexed'"):
        Sharding.from_configuration({**legal, **change})


@pytest.mark.parametrize("missing", ["chunk_shape", "codecs", "index_codecs"])
def test_a_configuration_needs_all_of_it(missing):
    legal = {"chunk_shape": [1, 2], "codecs": (Bytes(),), "index_codecs": (Bytes(),)}
    del legal[missing]
    with pytest.raises(MetadataError, match=f"lacks the configuration .*{missing}"):
        Sharding.from_configuration(legal)


def test_codecs_of_the_inner_chunks_are_bound_to_them():
    bound = pipeline(Sharding((1, 2), (Transpose("F"), Bytes(), Blosc("lz4", 5, "shuffle")))).codecs[0]
    assert bound.codecs[0] == Transpose((1, 0))
    assert bound.codecs[2].configuration()["typesize"] == 4
