"""Blosc chunks with Snappy inside; no library here writes them, so they are made from the parts of the format."""

from __future__ import annotations

import struct
from contextlib import suppress

import cramjam
import numpy as np
import pytest

from azarr.codecs.blosc import Blosc
from azarr.errors import CodecError

SHUFFLE, STORED, BITSHUFFLE, UNSPLIT, SNAPPY = 1, 2, 4, 16, 2 << 5


def shuffled(block, typesize, flags):
    whole = len(block) // typesize * typesize
    elements = np.frombuffer(block, "u1", whole).reshape(-1, typesize)
    if flags & SHUFFLE and typesize > 1:
        return elements.T.tobytes() + block[whole:]
    if flags & BITSHUFFLE and len(elements) % 8 == 0:
        bits = np.unpackbits(elements, axis=1, bitorder="little")
        return np.packbits(bits.T, axis=1, bitorder="little").tobytes() + block[whole:]
    return block


def compress(data, typesize, flags, blocksize, *, incompressible=False):
    starts, body = [], b""
    blocks = [data[start : start + blocksize] for start in range(0, len(data), blocksize)]
    for block in blocks:
        starts.append(16 + 4 * len(blocks) + len(body))
        split = not flags & UNSPLIT and len(block) == blocksize and typesize <= 16 and blocksize // typesize >= 128
        streams, sorted_block = typesize if split else 1, shuffled(block, typesize, flags)
        size = len(block) // streams
        for number in range(streams):
            stream = sorted_block[number * size : (number + 1) * size]
            packed = stream if incompressible else bytes(cramjam.snappy.compress_raw(stream))
            packed = stream if len(packed) >= len(stream) else packed
            body += struct.pack("<i", len(packed)) + packed
    body = struct.pack(f"<{len(starts)}i", *starts) + body
    return struct.pack("<BBBBIII", 2, 1, flags | SNAPPY, typesize, len(data), blocksize, 16 + len(body)) + body


@pytest.mark.parametrize("typesize", [1, 2, 3, 4, 8, 16, 17])
@pytest.mark.parametrize("flags", [0, SHUFFLE, BITSHUFFLE, UNSPLIT, SHUFFLE | UNSPLIT, BITSHUFFLE | UNSPLIT])
@pytest.mark.parametrize("nbytes", [1, 100, 4096, 10_000, 20_003])
@pytest.mark.parametrize("incompressible", [False, True])
def test_chunks_of_every_kind(typesize, flags, nbytes, incompressible):
    data = (np.arange(nbytes // 8 + 1, dtype="<u8") * 3).tobytes()[:nbytes]
    blocksize = 4096 // typesize * typesize
    value = compress(data, typesize, flags, blocksize, incompressible=incompressible)
    assert bytes(Blosc().decode(value, nbytes)) == data
    out = bytearray(nbytes)
    Blosc().decode_into(value, memoryview(out))
    assert out == data


def test_stored_chunks():
    value = struct.pack("<BBBBIII", 2, 1, STORED | SNAPPY, 4, 5, 4096, 21) + b"abcde"
    assert bytes(Blosc().decode(value, 5)) == b"abcde"
    with pytest.raises(CodecError, match="cannot store"):
        Blosc().decode(value[:12] + struct.pack("<I", 20) + value[16:], 5)


DATA = bytes(range(256)) * 40
VALUE = compress(DATA, 4, SHUFFLE, 4096)


@pytest.mark.parametrize(
    ("at", "bytes_there"),
    [
        (8, struct.pack("<I", 0)),
        (8, struct.pack("<I", 1)),
        (8, struct.pack("<I", 2**32 - 1)),
        (16, struct.pack("<i", -1)),
        (16, struct.pack("<i", 2**31 - 1)),
        (16, struct.pack("<i", 3)),
        (28, struct.pack("<i", -5)),
        (28, struct.pack("<i", 2**31 - 1)),
        (32, b"\xff\xff\xff\xff\x0f"),
    ],
    ids=repr,
)
def test_headers_that_lie_are_damage(at, bytes_there):
    with pytest.raises(CodecError, match="write it again"):
        Blosc().decode(VALUE[:at] + bytes_there + VALUE[at + len(bytes_there) :], len(DATA))


def test_flipped_bits_and_truncation_raise_or_keep_the_size():
    rng = np.random.default_rng(0)
    for length in range(0, len(VALUE), 37):
        with pytest.raises(CodecError):
            Blosc().decode(VALUE[:length], len(DATA))
    for _ in range(1000):
        damaged = bytearray(VALUE)
        damaged[rng.integers(4, len(VALUE))] ^= 1 << rng.integers(8)
        with suppress(CodecError):
            assert len(Blosc().decode(bytes(damaged), len(DATA))) <= len(DATA)
