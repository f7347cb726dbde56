from __future__ import annotations

import gzip
import pickle
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs import (
    ArrayToArrayCodec,
    Blosc,
    Bytes,
    BytesToBytesCodec,
    Bz2,
    Crc32c,
    Gzip,
    Lz4,
    Sharding,
    Transpose,
    Zlib,
    Zstd,
)
from azarr.codecs.pipeline import CodecPipeline, bind_codecs
from azarr.errors import ChecksumError, CodecError, MetadataError
from azarr.types import ChunkSpec

MEBIBYTE = 2**20


def spec_of(*shape, dtype="i4", fill=0):
    return ChunkSpec(shape, np.dtype(dtype), np.dtype(dtype).type(fill))


PIPELINES = {
    "plain": (Bytes(),),
    "big": (Bytes("big"),),
    "zstd": (Bytes(), Zstd()),
    "big, gzip": (Bytes("big"), Gzip(1)),
    "F, blosc": (Transpose("F"), Bytes(), Blosc("zstd", 3, "bitshuffle")),
    "two transposes": (Transpose((1, 0)), Transpose((1, 0)), Bytes(), Zlib(1)),
    "three compressors": (Bytes(), Lz4(), Bz2(1), Crc32c()),
    "checksum inside": (Bytes(), Crc32c(), Zstd(checksum=True)),
    "checksum": (Bytes(), Crc32c()),
    "sharding": (Sharding((1, 1), (Bytes(), Crc32c())),),
    "F, sharding, zstd": (Transpose("F"), Sharding((1, 1), (Bytes(),)), Zstd()),
}
every_pipeline = pytest.mark.parametrize("name", PIPELINES)


def outs(shape, dtype):
    """Arrays of every kind of layout to decode into."""
    row, column = shape
    yield "contiguous", np.empty(shape, dtype)
    yield "F", np.empty(shape, dtype, order="F")
    yield "stepped", np.empty((3 * row, 2 * column), dtype)[::3, ::2]
    yield "reversed", np.empty(shape, dtype)[::-1, ::-1]
    yield "part", np.empty((row + 2, column + 2), dtype)[1:-1, 1:-1]
    yield "foreign", np.empty(shape, np.dtype(dtype).newbyteorder())
    yield "unaligned", np.frombuffer(bytearray(row * column * np.dtype(dtype).itemsize + 1), "u1")[1:].view(dtype).reshape(shape)


@every_pipeline
@settings(deadline=None, max_examples=20)
@given(st.data())
def test_round_trip_into_any_destination(name, data):
    shape = data.draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    dtype = data.draw(st.sampled_from(["bool", "u2", "i4", "f8", "c16"]))
    chunk = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, 3, shape).astype(dtype)
    pipeline = CodecPipeline(PIPELINES[name], spec_of(*shape, dtype=dtype))
    given_ = chunk.copy()
    encoded = bytes(pipeline.encode(given_))
    assert np.array_equal(given_, chunk), "encoding changed the chunk"
    assert len(encoded) <= pipeline.max_encoded_size
    if pipeline.encoded_size is not None:
        assert len(encoded) == pipeline.encoded_size
    assert np.array_equal(pipeline.decode(encoded), chunk)
    assert np.array_equal(pipeline.decode_scratch(encoded), chunk)
    for layout, out in outs(shape, dtype):
        pipeline.decode_into(encoded, out)
        assert np.array_equal(out, chunk), layout
    if pipeline.direct:
        memory = bytearray(chunk.nbytes)
        pipeline.decode_bytes_into(encoded, memoryview(memory))
        assert memory == chunk.tobytes()


@every_pipeline
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_every_kind_of_buffer_decodes(name, kind):
    chunk = np.arange(6, dtype="i4").reshape(2, 3)
    pipeline = CodecPipeline(PIPELINES[name], spec_of(2, 3))
    encoded = kind(bytes(pipeline.encode(chunk)))
    assert np.array_equal(pipeline.decode(encoded), chunk)
    out = np.empty((3, 2), "i4").T
    pipeline.decode_into(encoded, out)
    assert np.array_equal(out, chunk)


@every_pipeline
def test_chunks_of_any_strides_encode(name):
    pipeline = CodecPipeline(PIPELINES[name], spec_of(2, 3))
    base = np.arange(36, dtype="i4").reshape(6, 6)
    for chunk in (base[::3, ::2], base[:3, :2].T, base[1::-1, 2::-1], np.broadcast_to(base[0, :3], (2, 3))):
        assert np.array_equal(pipeline.decode(bytes(pipeline.encode(chunk))), chunk)


@every_pipeline
def test_pipelines_survive_pickling(name):
    chunk = np.arange(6, dtype="i4").reshape(2, 3)
    pipeline = CodecPipeline(PIPELINES[name], spec_of(2, 3, fill=3))
    again = pickle.loads(pickle.dumps(pipeline))
    assert again.codecs == pipeline.codecs
    assert again.spec == pipeline.spec
    assert np.array_equal(again.decode(bytes(pipeline.encode(chunk))), chunk)


@every_pipeline
def test_threads_may_share_a_pipeline(name):
    pipeline = CodecPipeline(PIPELINES[name], spec_of(8, 8))
    encoded = {number: bytes(pipeline.encode(np.full((8, 8), number, "i4"))) for number in range(32)}

    def right(number):
        out = np.empty((8, 16), "i4")[:, ::2]
        pipeline.decode_into(encoded[number], out)
        return bool((out == number).all()) and bytes(pipeline.encode(out)) == encoded[number]

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(right, list(encoded) * 4))


def test_a_decoded_chunk_is_not_overwritten_by_the_next():
    for codecs in PIPELINES.values():
        pipeline = CodecPipeline(codecs, spec_of(4, 4))
        first, second = (bytes(pipeline.encode(np.full((4, 4), number, "i4"))) for number in (1, 2))
        chunk = pipeline.decode(first)
        pipeline.decode(second)
        pipeline.decode_scratch(second)
        assert (chunk == 1).all()


@pytest.mark.parametrize(
    ("codecs", "direct", "compressed", "encoded_size"),
    [
        ((Bytes("little"),), True, False, 24),
        ((Bytes("big"),), False, False, 24),
        ((Bytes("little"), Crc32c(), Crc32c()), True, True, 32),
        ((Bytes("little"), Zstd()), True, True, None),
        ((Transpose((1, 0)), Bytes("little")), False, False, 24),
        ((Sharding((1, 1), (Bytes("little"),)),), False, False, None),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_what_a_pipeline_says_of_itself(codecs, direct, compressed, encoded_size):
    pipeline = CodecPipeline(codecs, spec_of(2, 3, dtype="<i4"))
    assert (pipeline.direct, pipeline.compressed, pipeline.encoded_size) == (direct, compressed, encoded_size)
    assert pipeline.releases_gil


# Order


@pytest.mark.parametrize(
    ("codecs", "message"),
    [
        ((), "there are 0"),
        ((Zstd(),), "there are 0"),
        ((Transpose((1, 0)),), "there are 0"),
        ((Bytes(), Bytes()), "there are 2"),
        ((Bytes(), Sharding((1, 1), (Bytes(),))), "there are 2"),
        ((Zstd(), Bytes()), r"order is \['zstd', 'bytes'\]"),
        ((Bytes(), Transpose((1, 0))), r"order is \['bytes', 'transpose'\]"),
        ((Bytes(), Zstd(), Transpose((1, 0))), "order is"),
        ((Sharding((1, 1), (Zstd(), Bytes())),), r"order is \['zstd', 'bytes'\]"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_codecs_in_an_impossible_order_are_refused(codecs, message):
    with pytest.raises(MetadataError, match=message):
        bind_codecs(codecs, spec_of(2, 3))


# Codecs of users


class Halves(ArrayToArrayCodec):
    """Whole numbers as half as wide ones; shows that codecs may change the data type."""

    name = "halves"
    releases_gil = False

    @classmethod
    def from_configuration(cls, configuration):
        return cls()

    def configuration(self):
        return {}

    def resolve(self, spec):
        return replace(spec, dtype=np.dtype("i2"), fill_value=np.int16(spec.fill_value))

    def encode(self, chunk, spec):
        return chunk.astype("i2")

    def decode(self, chunk, spec):
        return chunk.astype(spec.dtype)


class Inverted(BytesToBytesCodec):
    """Every bit turned over; has ``decode`` only, so that the inherited ``decode_into`` is used."""

    name = "inverted"

    @classmethod
    def from_configuration(cls, configuration):
        return cls()

    def configuration(self):
        return {}

    def encode(self, data):
        return bytes(255 - byte for byte in bytes(data))

    def decode(self, data, limit):
        return self.encode(data)


def test_codecs_may_change_the_data_type():
    pipeline = CodecPipeline((Halves(), Transpose((1, 0)), Bytes("big"), Zstd()), spec_of(2, 3))
    chunk = np.arange(6, dtype="i4").reshape(2, 3)
    encoded = pipeline.encode(chunk)
    assert zstandard.decompress(encoded) == chunk.T.astype(">i2").tobytes()
    decoded = pipeline.decode(encoded)
    assert decoded.dtype == np.dtype("i4")
    assert np.array_equal(decoded, chunk)
    assert not pipeline.releases_gil
    assert not pipeline.direct


def test_a_codec_without_decode_into_decodes_into():
    pipeline = CodecPipeline((Bytes("little"), Inverted()), spec_of(2, 3, dtype="<i4"))
    chunk = np.arange(6, dtype="<i4").reshape(2, 3)
    encoded = pipeline.encode(chunk)
    assert encoded == bytes(255 - byte for byte in chunk.tobytes())
    out = np.empty((2, 3), "<i4")
    pipeline.decode_into(encoded, out)
    assert np.array_equal(out, chunk)
    with pytest.raises(CodecError, match="inverted: decodes to 20 bytes where the chunk has 24"):
        pipeline.decode_into(encoded[:-4], out)
    with pytest.raises(CodecError, match="inverted: decodes to more than the 24 bytes"):
        pipeline.decode_into(encoded + b"more", out)


# Sizes and limits


@every_pipeline
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (4, 4)])
def test_a_chunk_of_another_shape_is_an_error(name, shape):
    other = CodecPipeline(PIPELINES[name], spec_of(*shape))
    encoded = bytes(other.encode(np.arange(1, 1 + shape[0] * shape[1], dtype="i4").reshape(shape)))
    pipeline = CodecPipeline(PIPELINES[name], spec_of(2, 3))
    for decode in (pipeline.decode, pipeline.decode_scratch, lambda data: pipeline.decode_into(data, np.empty((2, 3), "i4"))):
        with pytest.raises(CodecError):
            decode(encoded)


@every_pipeline
def test_a_chunk_that_was_cut_off_is_an_error(name):
    pipeline = CodecPipeline(PIPELINES[name], spec_of(4, 4))
    encoded = bytes(pipeline.encode(np.arange(16, dtype="i4").reshape(4, 4)))
    out = np.empty((4, 4), "i4")
    for nbytes in {0, 1, len(encoded) // 2, len(encoded) - 1}:
        with pytest.raises(CodecError):
            pipeline.decode(encoded[:nbytes])
        with pytest.raises(CodecError):
            pipeline.decode_into(encoded[:nbytes], out)


@pytest.mark.parametrize(
    ("codecs", "data"),
    [
        pytest.param((Bytes(), Zlib(1), Gzip(1)), gzip.compress(zlib.compress(bytes(64 * MEBIBYTE))), id="inner stage"),
        pytest.param((Bytes(), Zlib(1), Gzip(1)), gzip.compress(bytes(64 * MEBIBYTE)), id="outer stage"),
        pytest.param((Bytes(), Crc32c(), Zstd()), zstandard.compress(bytes(64 * MEBIBYTE)), id="zstd before a checksum"),
        pytest.param((Sharding((1, 1), (Bytes(), Zstd())), Gzip(1)), gzip.compress(bytes(64 * MEBIBYTE)), id="around shards"),
        pytest.param((Bytes(), Bz2(1), Zlib(1)), zlib.compress(bytes(64 * MEBIBYTE)), id="zlib before bz2"),
    ],
)
def test_a_bomb_in_two_stages_is_stopped_before_it_costs_memory(codecs, data):
    pipeline = CodecPipeline(codecs, spec_of(2, 3))
    out = np.empty((2, 3), "i4")
    tracemalloc.start()
    try:
        for decode in (pipeline.decode, pipeline.decode_scratch, lambda data: pipeline.decode_into(data, out)):
            with pytest.raises(CodecError, match=r"decodes to more than|larger|more"):
                decode(data)
        assert tracemalloc.get_traced_memory()[1] < 4 * MEBIBYTE
    finally:
        tracemalloc.stop()


def test_the_limit_leaves_room_for_what_honest_compressors_make_of_noise():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300), "u1")
    for codecs in ((Bytes(), Lz4(), Bz2(1), Gzip(1), Zstd()), (Bytes(), Blosc("lz4", 1, "noshuffle"), Zlib(1)), (Bytes(), *[Zstd()] * 5)):
        pipeline = CodecPipeline(codecs, spec_of(300, 300, dtype="u1"))
        assert np.array_equal(pipeline.decode(pipeline.encode(noise)), noise)


def test_a_wrong_checksum_between_compressors_is_a_checksum_error():
    encoded = bytearray(CodecPipeline((Bytes(), Crc32c()), spec_of(2, 3)).encode(np.ones((2, 3), "i4")))
    encoded[0] ^= 1
    pipeline = CodecPipeline((Bytes(), Crc32c(), Gzip(1)), spec_of(2, 3))
    with pytest.raises(ChecksumError) as caught:
        pipeline.decode(gzip.compress(encoded))
    assert caught.value.codec == "crc32c"
    assert caught.value.coords is None


def test_a_scalar_chunk():
    for codecs in ((Bytes(),), (Bytes("big"), Zstd()), (Transpose(()), Bytes(), Crc32c()), (Sharding((), (Bytes(),)),)):
        pipeline = CodecPipeline(codecs, spec_of())
        encoded = bytes(pipeline.encode(np.array(7, "i4")))
        assert pipeline.decode(encoded).shape == ()
        out = np.empty((), "i4")
        pipeline.decode_into(encoded, out)
        assert out == 7
