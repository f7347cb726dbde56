"""The codecs of the package imagecodecs, and what hostile images cost."""

from __future__ import annotations

import json
import pickle
import sys
import zlib

import numpy as np
import pytest

import azarr
from azarr.codecs import ArrayToBytesCodec, Bytes
from azarr.codecs.imagecodecs import IMAGECODECS, imagecodec
from azarr.codecs.pipeline import CodecPipeline
from azarr.codecs.registry import parse_codec, serialize_codec
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

imagecodecs = pytest.importorskip("imagecodecs", reason='needs pip install "azarr[imagecodecs]"')

GREY = (np.arange(400, dtype="u2") * 50).reshape(20, 20)
BYTES = GREY.astype("u1")
COLOURS = np.random.default_rng(0).integers(0, 256, (20, 20, 3)).astype("u1")
NUMBERS = np.linspace(0, 1, 400, dtype="f4").reshape(20, 20)
PREDICTED = {"shape": [20, 20], "axis": -1}

EXACT = {
    "apng": GREY, "bmp": BYTES, "gif": BYTES, "jpeg2k": GREY, "jpegls": GREY, "jpegxl": GREY, "lerc": NUMBERS, "ljpeg": GREY,
    "png": GREY, "qoi": COLOURS, "spng": BYTES, "tiff": NUMBERS, "webp": COLOURS, "zfp": NUMBERS, "byteshuffle": GREY, "delta": GREY,
    "floatpred": NUMBERS, "blosc": GREY, "blosc2": GREY, "brotli": GREY, "bitorder": GREY, "bitshuffle": GREY, "bz2": GREY, "deflate": GREY,
    "lz4": GREY, "lz4f": GREY, "lz4h5": GREY, "lzf": GREY, "lzfse": GREY, "lzham": GREY, "lzma": GREY, "lzw": GREY, "packbits": GREY,
    "snappy": GREY, "zlib": GREY, "zlibng": GREY, "zopfli": GREY, "zstd": GREY,
}  # fmt: skip
"""What loses nothing as it is configured here, and what it can encode."""

CONFIGURATIONS = {
    "bmp": {"asrgb": False},
    "webp": {"lossless": True},
    "byteshuffle": {**PREDICTED, "dtype": "<u2"},
    "delta": {**PREDICTED, "dtype": "<u2"},
    "floatpred": {**PREDICTED, "dtype": "<f4"},
}


def document(format_, **more):
    return {"name": f"imagecodecs_{format_}", "configuration": {**CONFIGURATIONS.get(format_, {}), **more}}


def pipeline_of(format_, spec, **more):
    codec = parse_codec(document(format_, **more))
    return CodecPipeline([codec] if isinstance(codec, ArrayToBytesCodec) else [Bytes(), codec], spec)


def spec_of(chunk):
    return ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))


async def array_with(format_, shape, dtype, **options):
    store = azarr.MemoryStore()
    role = "serializer" if issubclass(imagecodec(format_), ArrayToBytesCodec) else "compressors"
    others = {"compressors": None} if role == "serializer" else {}
    return store, await azarr.create_array(store, shape=shape, dtype=dtype, **{role: document(format_)}, **others, **options)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("format_", EXACT)
async def test_arrays_round_trip_in_both_formats(format_, zarr_format):
    values = EXACT[format_]
    store, array = await array_with(format_, values.shape, values.dtype, zarr_format=zarr_format, fill_value=7)
    await array.write(values)
    opened = await azarr.open_array(store)
    assert opened.metadata == array.metadata
    np.testing.assert_array_equal(await opened.read(), values)


@pytest.mark.parametrize("format_", ["avif", "jpeg", "jpegxr", "jpegxl"])
async def test_images_that_lose_something_are_close(format_):
    smooth = np.add.outer(np.arange(64), np.arange(64)).astype("u1")
    _, array = await array_with(format_, smooth.shape, smooth.dtype)
    await array.write(smooth)
    np.testing.assert_allclose((await array.read()).astype(int), smooth, atol=8)


@pytest.mark.parametrize("shape", [(1, 20, 20, 1), (400, 1), (400,)])
async def test_dimensions_of_one_element_are_not_in_the_image(shape):
    _, array = await array_with("png", shape, "u2")
    await array.write(GREY.reshape(shape))
    np.testing.assert_array_equal(await array.read(), GREY.reshape(shape))


async def test_what_v2_calls_a_codec_is_read_in_v3_by_either_name():
    for name in ("imagecodecs_zlib", "numcodecs.imagecodecs_zlib"):
        metadata = {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [3],
            "data_type": "uint8",
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [3]}},
            "chunk_key_encoding": {"name": "default"},
            "fill_value": 0,
            "codecs": ["bytes", {"name": name}],
        }
        store = azarr.MemoryStore({"zarr.json": json.dumps(metadata).encode(), "c/0": zlib.compress(b"\1\2\3")})
        assert list(await azarr.load(store)) == [1, 2, 3]


async def test_configurations_are_kept_as_they_are():
    store, _ = await array_with("webp", (20, 20, 3), "u1", zarr_format=2)
    written = json.loads(await store.get(".zarray"))
    assert written["compressor"] == {"id": "imagecodecs_webp", "lossless": True}
    assert (await azarr.open_array(store)).metadata.codecs[0].configuration() == {"lossless": True}


@pytest.mark.parametrize("format_", IMAGECODECS)
def test_documents_and_pickles_round_trip(format_):
    codec = parse_codec(document(format_))
    assert parse_codec(serialize_codec(codec)) == codec == pickle.loads(pickle.dumps(codec))
    assert type(codec) is imagecodec(format_)
    assert codec.releases_gil
    assert codec != parse_codec(document("tiff", level=9))


def test_a_codec_that_the_package_lacks_or_a_setting_that_it_does_not_take_is_named():
    with pytest.raises(CodecError, match=r"imagecodecs_png: .*nonsense"):
        pipeline_of("png", spec_of(GREY), nonsense=1).encode(GREY)
    unavailable = [format_ for format_ in ("heif", "jetraw", "jpegxs") if not getattr(imagecodecs, format_.upper()).available]
    for format_ in unavailable:
        options = {"shape": [20, 20], "identifier": ""} if format_ == "jetraw" else {}
        with pytest.raises(CodecError, match=f"imagecodecs_{format_}: .*(not available|has no attribute)"):
            pipeline_of(format_, spec_of(GREY), **options).decode(b"1")


async def test_without_the_package_arrays_open_and_reading_says_which_extra_is_missing(monkeypatch):
    store, array = await array_with("tiff", GREY.shape, GREY.dtype)
    await array.write(GREY)
    from azarr.codecs.imagecodecs import _of_package

    _of_package.cache_clear()
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    opened = await azarr.open_array(store)
    with pytest.raises(CodecError, match=r'needs the package imagecodecs.*pip install "azarr\[imagecodecs\]"'):
        await opened.read()


def test_big_endian_images_are_refused():
    zarray = {"zarr_format": 2, "shape": [2, 2], "chunks": [2, 2], "dtype": ">u2", "fill_value": 0, "order": "C", "filters": None}
    from azarr.metadata import v2

    with pytest.raises(MetadataError, match="big-endian elements cannot go through the codec 'imagecodecs_png'"):
        v2.parse_array(json.dumps({**zarray, "compressor": {"id": "imagecodecs_png"}}).encode(), None, "/")


# Chunks that nobody vouches for


@pytest.mark.parametrize("format_", [each for each in EXACT if issubclass(imagecodec(each), ArrayToBytesCodec)])
def test_an_image_of_another_size_is_an_error(format_):
    values = EXACT[format_]
    encoded = pipeline_of(format_, spec_of(values)).encode(values)
    for shape in [(10, 10), (21, 20)]:
        spec = ChunkSpec(shape + values.shape[2:], values.dtype, values.dtype.type(0))
        with pytest.raises(CodecError):
            pipeline_of(format_, spec).decode(encoded)


@pytest.mark.parametrize("format_", [each for each in EXACT if not issubclass(imagecodec(each), ArrayToBytesCodec)])
def test_bytes_that_are_too_many_are_not_cut_off(format_):
    encoded = pipeline_of(format_, spec_of(GREY)).encode(GREY)
    for less in (GREY[:10], GREY.reshape(-1)[:-1]):
        with pytest.raises(CodecError):
            pipeline_of(format_, spec_of(less)).decode(encoded)
