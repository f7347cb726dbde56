from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from azarr.codecs import Bytes, Crc32c, Gzip, Lzma, N5Default, Shuffle, Transpose, Zstd
from azarr.codecs.pipeline import CodecPipeline
from azarr.codecs.registry import parse_codec
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

SPEC = ChunkSpec((3, 2, 4), np.dtype("i2"), np.int16(-1))
CHUNK = np.arange(24, dtype="i2").reshape(SPEC.shape)
HEADER = struct.pack(">HHIII", 0, 3, 3, 2, 4)
PLAIN = N5Default((Transpose((2, 1, 0)), Bytes("big")))

BLOCKS = Path(__file__).parents[3] / "shared" / "conformance" / "_extra" / "n5-tensorstore"


def test_a_header_and_the_transposed_elements():
    pipeline = CodecPipeline([PLAIN], SPEC)
    value = bytes(pipeline.encode(CHUNK))
    assert value == HEADER + CHUNK.T.astype(">i2").tobytes()
    np.testing.assert_array_equal(pipeline.decode(value), CHUNK)
    assert len(value) <= pipeline.max_encoded_size


@pytest.mark.parametrize("compressor", [Gzip(1), Zstd(1), Shuffle(2)], ids=repr)
def test_compressors(compressor):
    pipeline = CodecPipeline([N5Default((Transpose((2, 1, 0)), Bytes("big"), compressor))], SPEC)
    value = bytes(pipeline.encode(CHUNK))
    assert value == HEADER + bytes(compressor.encode(CHUNK.T.astype(">i2").tobytes()))
    np.testing.assert_array_equal(pipeline.decode(value), CHUNK)


@pytest.mark.parametrize("shape", [(1, 2, 4), (3, 1, 1), (2, 2, 2), (4, 3, 4)])
def test_blocks_of_another_shape_are_cut_or_filled(shape):
    block = np.arange(np.prod(shape), dtype="i2").reshape(shape)
    chunk = CodecPipeline([PLAIN], SPEC).decode(struct.pack(">HHIII", 0, 3, *shape) + block.T.astype(">i2").tobytes())
    common = tuple(slice(min(pair)) for pair in zip(shape, SPEC.shape, strict=True))
    np.testing.assert_array_equal(chunk[common], block[common])
    rest = np.ones(SPEC.shape, bool)
    rest[common] = False
    assert (chunk[rest] == -1).all()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "cannot hold the header"),
        (HEADER[:-1], "cannot hold the header"),
        (b"\0\1" + HEADER[2:], "mode 1"),
        (b"\0\0\0\2" + HEADER[4:], "2 dimensions in an array of 3"),
        (struct.pack(">HHIII", 0, 3, 0, 2, 4), "cannot belong"),
        (struct.pack(">HHIII", 0, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "cannot belong"),
        (HEADER + bytes(47), "decodes to 47 bytes"),
        (HEADER + bytes(49), "more than the 48"),
    ],
)
def test_damage_is_refused(value, message):
    with pytest.raises(CodecError, match=message):
        CodecPipeline([PLAIN], SPEC).decode(value)


@pytest.mark.parametrize(
    "codecs",
    [
        (Bytes("big"),),
        (Transpose((0, 1, 2)), Bytes("big")),
        (Transpose((2, 1, 0)), Bytes("little")),
        (Transpose((2, 1, 0)), Transpose((0, 1, 2)), Bytes("big")),
        (Transpose((2, 1, 0)), Bytes("big"), Gzip(), Crc32c()),
        (Transpose((2, 1, 0)), Gzip()),
    ],
    ids=repr,
)
def test_other_codecs_are_refused(codecs):
    with pytest.raises(MetadataError, match="n5_default|codecs"):
        CodecPipeline([N5Default(codecs)], SPEC)


def test_single_bytes_have_no_byte_order():
    spec = ChunkSpec((2,), np.dtype("u1"), np.uint8(0))
    pipeline = CodecPipeline([N5Default((Transpose((0,)), Bytes(None)))], spec)
    assert bytes(pipeline.encode(np.array([1, 2], "u1"))) == b"\0\0\0\1\0\0\0\2\1\2"


@pytest.mark.parametrize("name", ["blosc", "gzip", "xz"])
def test_blocks_that_n5_wrote(name):
    if not BLOCKS.exists():
        pytest.skip(f"the codec fixtures are not at {BLOCKS.parent}")
    attributes = json.loads((BLOCKS / name / "attributes.json").read_text())
    compressors = {"gzip": Gzip(), "xz": Lzma(), "blosc": parse_codec({"name": "numcodecs.blosc", "configuration": {}})}
    block, shape = tuple(attributes["blockSize"]), tuple(attributes["dimensions"])
    spec = ChunkSpec(block, np.dtype(attributes["dataType"]), np.dtype(attributes["dataType"]).type(0))
    ndim = len(block)
    pipeline = CodecPipeline([N5Default((Transpose(tuple(range(ndim))[::-1]), Bytes("big"), compressors[name]))], spec)
    whole = np.zeros(tuple(-(-length // side) * side for length, side in zip(shape, block, strict=True)), spec.dtype)
    for file in sorted((BLOCKS / name).rglob("*")):
        if file.is_file() and file.name.isdigit():
            coords = tuple(map(int, file.relative_to(BLOCKS / name).parts))
            region = tuple(slice(index * side, (index + 1) * side) for index, side in zip(coords, block, strict=True))
            whole[region] = pipeline.decode(file.read_bytes())
    np.testing.assert_array_equal(whole[tuple(map(slice, shape))], np.arange(20).reshape(5, 4))
