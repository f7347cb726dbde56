"""Classes with the interface of numcodecs, run as azarr's codecs."""

from __future__ import annotations

import pickle
import zlib

import numpy as np
import pytest

import azarr
from azarr.codecs import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Zstd, from_numcodecs
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec


class Deflate:
    """Zlib, with the interface of numcodecs and no base class."""

    codec_id = "test-deflate"

    def __init__(self, level=1):
        self.level = int(level)

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def get_config(self):
        return {"id": self.codec_id, "level": self.level}

    def encode(self, buf):
        return zlib.compress(buf, self.level)

    def decode(self, buf, out=None):
        assert out is None
        return zlib.decompress(buf)


class Halved(Deflate):
    """Numbers divided by two, as another type."""

    codec_id = "test-halved"

    def __init__(self, astype="<f4", dtype=None):
        self.astype, self.dtype = astype, dtype

    def get_config(self):
        return {"id": self.codec_id, "astype": self.astype, "dtype": self.dtype}

    def encode(self, buf):
        return (buf / 2).astype(self.astype)

    def decode(self, buf, out=None):
        return (buf * 2).astype(self.dtype)


class Image(Deflate):
    """A picture, which knows its shape and data type by itself and answers arrays."""

    codec_id = "test-image"

    def encode(self, buf):
        assert buf.ndim == 2
        return f"{buf.dtype.str} {buf.shape[0]} ".encode() + super().encode(np.asfortranarray(buf).tobytes("F"))

    def decode(self, buf, out=None):
        dtype, rows, data = bytes(buf).split(b" ", 2)
        return np.frombuffer(super().decode(data), dtype.decode()).reshape(int(rows), -1, order="F")


COMPRESSOR = from_numcodecs(Deflate)
FILTER = from_numcodecs(Halved, ArrayToArrayCodec)
PICTURE = from_numcodecs(Image, ArrayToBytesCodec)


@pytest.fixture
def registered():
    with azarr.register_codec(COMPRESSOR), azarr.register_codec(FILTER), azarr.register_codec(PICTURE):
        yield


VALUES = np.arange(24, dtype="i4").reshape(4, 6) * 3


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"compressors": {"name": "numcodecs.test-deflate", "configuration": {"level": 3}}},
        {"filters": [{"name": "numcodecs.test-halved", "configuration": {"dtype": "<i4"}}], "compressors": "numcodecs.test-deflate"},
        {"filters": [{"name": "numcodecs.test-halved", "configuration": {"dtype": "<i4", "astype": "<f8"}}], "order": "F"},
        {"serializer": "numcodecs.test-image", "compressors": None},
        {"serializer": "numcodecs.test-image"},
    ],
    ids=repr,
)
async def test_arrays_round_trip_in_both_formats(registered, zarr_format, options):
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, shape=(4, 6), chunks=(2, 5), dtype="i4", zarr_format=zarr_format, **options)
    await array.write(VALUES)
    opened = await azarr.open_array(store)
    assert opened.metadata == array.metadata
    np.testing.assert_array_equal(await opened.read(), VALUES)


async def test_an_array_of_v2_is_read_as_its_writer_left_it(registered):
    document = (
        b'{"zarr_format":2,"shape":[3],"chunks":[3],"dtype":">i2","fill_value":0,"order":"C",'
        b'"filters":null,"compressor":{"id":"test-deflate","level":1}}'
    )
    store = azarr.MemoryStore({".zarray": document, "0": zlib.compress(np.array([1, 2, 300], ">i2").tobytes())})
    assert list(await azarr.load(store)) == [1, 2, 300]


async def test_big_endian_elements_are_not_handed_to_what_may_know_their_order_itself(registered):
    with pytest.raises(MetadataError, match="big-endian elements cannot go through the codec 'test-image'"):
        document = (
            b'{"zarr_format":2,"shape":[3,3],"chunks":[3,3],"dtype":">i2","fill_value":0,"order":"C",'
            b'"filters":null,"compressor":{"id":"test-image"}}'
        )
        await azarr.open_array(azarr.MemoryStore({".zarray": document}))


def test_what_it_raises_is_a_codec_error():
    spec = ChunkSpec((4,), np.dtype("u1"), np.uint8(0))
    with pytest.raises(CodecError, match=r"numcodecs\.test-deflate: Deflate failed: error: Error -3") as caught:
        COMPRESSOR(Deflate()).bind(spec).decode(b"nonsense", 100)
    assert isinstance(caught.value.__cause__, zlib.error)
    with pytest.raises(CodecError, match="Image failed: AssertionError"):
        PICTURE(Image()).bind(spec).encode(np.zeros(4, "u1"), spec)


def test_a_configuration_it_does_not_take_is_a_metadata_error():
    with pytest.raises(MetadataError, match=r"codec 'numcodecs\.test-deflate': TypeError: .*speed"):
        COMPRESSOR.from_configuration({"speed": 1})
    with pytest.raises(MetadataError, match="ValueError"):
        COMPRESSOR.from_configuration({"level": "high"})


def test_what_decodes_to_too_much_or_too_little_is_refused():
    spec = ChunkSpec((2, 2), np.dtype("u1"), np.uint8(0))
    compressed = zlib.compress(bytes(101))
    with pytest.raises(CodecError, match="decodes to more than the 100 bytes"):
        COMPRESSOR(Deflate()).decode(compressed, 100)
    pipeline = CodecPipeline([PICTURE(Image())], spec)
    for rows in (1, 3):
        with pytest.raises(CodecError, match="where the chunk has 4|more than the 4 bytes"):
            pipeline.decode(Image().encode(np.zeros((rows, 2), "u1")))


def test_a_filter_that_makes_something_else_than_it_says_is_refused():
    spec = ChunkSpec((4,), np.dtype("i4"), np.int32(0))
    codec = FILTER(Halved(dtype="<i8")).bind(spec)
    assert codec.resolve(spec).dtype == np.float32
    with pytest.raises(CodecError, match=r"made int64 of shape \(4,\) where the chunk is int32 of shape \(4,\)"):
        codec.decode(np.zeros(4, "f4"), spec)


def test_elements_of_variable_length_are_refused():
    spec = ChunkSpec((4,), np.dtype(object), "")
    for codec in (FILTER(Halved()), PICTURE(Image())):
        with pytest.raises(MetadataError, match="is not given elements of variable length"):
            codec.bind(spec)
    assert COMPRESSOR(Deflate()).bind(spec)


def test_they_are_equal_by_their_configuration_and_can_be_pickled():
    one, other, more = COMPRESSOR(Deflate(1)), COMPRESSOR(Deflate(1)), COMPRESSOR(Deflate(2))
    assert one == other != more
    assert hash(one) == hash(other)
    assert one != FILTER(Halved())
    assert one != "numcodecs.test-deflate"
    spec = ChunkSpec((4,), np.dtype("i4"), np.int32(0))
    pipeline = pickle.loads(pickle.dumps(CodecPipeline([azarr.codecs.Bytes(), more], spec)))
    assert pipeline.codecs[1] == more
    np.testing.assert_array_equal(pipeline.decode(pipeline.encode(np.arange(4, dtype="i4"))), np.arange(4))


def test_the_same_class_is_wrapped_once():
    assert from_numcodecs(Deflate) is from_numcodecs(Deflate)


class Silent:
    """No interface at all."""


@pytest.mark.parametrize(
    ("codec", "kind", "why"),
    [
        (Silent, BytesToBytesCodec, "lacks encode, decode, from_config, get_config, codec_id"),
        (Deflate, Zstd, "the kind of a codec is ArrayToArrayCodec, ArrayToBytesCodec or BytesToBytesCodec, not .*Zstd"),
    ],
)
def test_what_does_not_fit_is_refused(codec, kind, why):
    with pytest.raises(TypeError, match=why):
        from_numcodecs(codec, kind)
