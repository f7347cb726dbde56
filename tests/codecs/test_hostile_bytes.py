"""What every bytes-to-bytes codec owes to bytes that nobody vouches for."""

from __future__ import annotations

import lzma
import pickle
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs import (
    Adler32,
    Base64,
    Blosc,
    BytesToBytesCodec,
    Bz2,
    Conditional,
    Crc32,
    Crc32c,
    Fletcher32,
    Gzip,
    JenkinsLookup3,
    LocatedCrc32c,
    Lz4,
    Lzma,
    Shuffle,
    Snappy,
    Zlib,
    Zstd,
)
from azarr.errors import CodecError

RAW_LZMA = Lzma(3, filters=((("id", 3), ("dist", 4)), (("id", 33), ("preset", 1))))

CODECS = [
    Adler32(),
    Blosc("lz4", 5, "shuffle", 4),
    Blosc("zstd", 5, "bitshuffle", 2),
    Bz2(),
    Conditional((Gzip(), Crc32c())),
    Conditional((Snappy(),), 16),
    Crc32(),
    Crc32("end"),
    Crc32c(),
    Fletcher32(),
    Gzip(),
    JenkinsLookup3(3),
    LocatedCrc32c("start"),
    Lz4(),
    Lzma(preset=1),
    Lzma(2, preset=1),
    RAW_LZMA,
    Snappy(),
    Zlib(),
    Zstd(),
    Zstd(checksum=True),
]
MEBIBYTE = 2**20
DATA = np.random.default_rng(0).integers(0, 30, 5_000).cumsum().astype("<i4").tobytes()

every_codec = pytest.mark.parametrize("codec", CODECS, ids=repr)


def outcome(codec: BytesToBytesCodec, data: bytes, nbytes: int) -> bytes | None:
    """What both ways to decode make of ``data``, which must agree; ``None`` for an error, which must be a ``CodecError``."""
    out = bytearray(nbytes)
    with suppress(CodecError):
        codec.decode_into(data, memoryview(out))
        assert codec.decode(data, nbytes) == out
        return bytes(out)
    with suppress(CodecError):
        assert len(codec.decode(data, nbytes)) < nbytes
    return None


@every_codec
@settings(deadline=None)
@given(st.binary(max_size=500), st.integers(0, 400))
def test_any_bytes_decode_or_raise(codec, data, nbytes):
    outcome(codec, data, nbytes)
    assert outcome(codec, codec.encode(data), len(data)) == data


@every_codec
@pytest.mark.parametrize("nbytes", [1, 15, 16, 4095, 65_535, 65_536, 65_537, 300_000])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_round_trip(codec, nbytes, kind):
    data = (DATA * 20)[:nbytes]
    encoded = codec.encode(kind(data))
    assert len(encoded) <= codec.max_encoded_size(nbytes)
    assert outcome(codec, kind(encoded), nbytes) == data


@every_codec
def test_the_destination_may_be_part_of_an_array(codec):
    array = np.full((3, len(DATA)), 7, np.uint8)
    codec.decode_into(codec.encode(DATA), array[1].data)
    assert array[1].tobytes() == DATA
    assert (array[::2] == 7).all()


@every_codec
def test_nothing_is_not_a_value(codec):
    assert outcome(codec, b"", 0) is None
    assert outcome(codec, b"", 10) is None


@every_codec
def test_every_truncation_is_found(codec):
    value = bytes(codec.encode(DATA))
    for length in {*range(100), *range(0, len(value), 53), *range(len(value) - 100, len(value))} & {*range(len(value))}:
        assert outcome(codec, value[:length], len(DATA)) is None, length


@every_codec
@pytest.mark.parametrize("nbytes", [0, 1, len(DATA) - 1, len(DATA) + 1, 2 * len(DATA)])
def test_another_size_is_found(codec, nbytes):
    with pytest.raises(CodecError, match="where the chunk has" if nbytes > len(DATA) else "decodes to more than"):
        codec.decode_into(codec.encode(DATA), memoryview(bytearray(nbytes)))


@every_codec
@pytest.mark.parametrize("extra", [b"\1", b"garbage" * 100], ids=["byte", "garbage"])
def test_garbage_behind_the_end_changes_nothing_unseen(codec, extra):
    assert outcome(codec, bytes(codec.encode(DATA)) + extra, len(DATA)) in {None, DATA}


@every_codec
def test_flipped_bits_raise_or_keep_the_size(codec):
    rng = random.Random(1)
    value = codec.encode(DATA)
    for _ in range(1_000):
        damaged = bytearray(value)
        for _ in range(rng.choice([1, 2, 8])):
            damaged[rng.choice([rng.randrange(min(40, len(value))), rng.randrange(len(value))])] ^= 1 << rng.randrange(8)
        outcome(codec, bytes(damaged), len(DATA))


@every_codec
def test_threads_decode_at_once(codec):
    values = [DATA[i:] * 5 for i in range(8)]
    encoded = [codec.encode(value) for value in values]

    def work(number):
        out = bytearray(len(values[number % 8]))
        codec.decode_into(encoded[number % 8], memoryview(out))
        return out == values[number % 8] and codec.encode(values[number % 8]) == encoded[number % 8]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(48)))


@every_codec
def test_codecs_are_values(codec):
    assert pickle.loads(pickle.dumps(codec)) == codec
    assert type(codec).from_configuration(codec.configuration()) == codec
    assert hash(codec) == hash(pickle.loads(pickle.dumps(codec)))


def deflate_bomb(wbits: int, nbytes: int) -> bytes:
    compressor = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join(compressor.compress(bytes(MEBIBYTE)) for _ in range(nbytes // MEBIBYTE)) + compressor.flush()


def blosc_bomb(nbytes: int) -> bytes:
    chunk = Blosc("zstd", 5, "shuffle", 4).encode(bytes(16 * MEBIBYTE))
    return chunk[:4] + struct.pack("<I", nbytes) + chunk[8:]


def lz4_bomb(nbytes: int) -> bytes:
    """One literal, then a match of a gibibyte at distance 1, behind a header that says ``nbytes``."""
    return struct.pack("<I", nbytes) + b"\x1f\0\1\0" + b"\xff" * (2**30 // 255) + b"\0" + b"\x50" + bytes(5)


def lzma_bomb(nbytes: int) -> bytes:
    return lzma.compress(bytes(nbytes), preset=0)


def greedy_lzma() -> bytes:
    """A stream that wants a dictionary of 1.5 GiB to decode a mebibyte."""
    return lzma.compress(bytes(MEBIBYTE), filters=[{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 3 * 2**29}])


def snappy_bomb(nbytes: int) -> bytes:
    """A block that says it has ``nbytes`` bytes, in so many copies of 64 at distance 1 as make a mebibyte."""
    size = bytes([nbytes >> 7 * i & 0x7F | 0x80 for i in range(4)]) + bytes([nbytes >> 28])
    return size + b"\0x" + b"\xfe\1\0" * (MEBIBYTE // 64)


# A gibibyte each, or 64 MiB of one stream where a gibibyte would take long to make.
BOMBS: dict[str, tuple[BytesToBytesCodec, Callable[[], bytes]]] = {
    "base64": (Base64(), lambda: Base64().encode(bytes(16 * MEBIBYTE))),
    "blosc": (Blosc(), lambda: blosc_bomb(2**30)),
    "bz2 streams": (Bz2(), lambda: Bz2(9).encode(bytes(16 * MEBIBYTE)) * 64),
    "conditional": (Conditional((Gzip(),)), lambda: b"\1" + deflate_bomb(31, 64 * MEBIBYTE)),
    "conditional, none applied": (Conditional((Gzip(),)), lambda: bytes(16 * MEBIBYTE)),
    "crc32c": (Crc32c(), lambda: Crc32c().encode(bytes(16 * MEBIBYTE))),
    "gzip": (Gzip(), lambda: deflate_bomb(31, 64 * MEBIBYTE)),
    "gzip members": (Gzip(), lambda: Gzip().encode(bytes(16 * MEBIBYTE)) * 64),
    "fletcher32": (Fletcher32(), lambda: bytes(16 * MEBIBYTE)),
    "lz4": (Lz4(), lambda: lz4_bomb(2**30)),
    "lz4 that lies": (Lz4(), lambda: lz4_bomb(MEBIBYTE)),
    "lzma": (Lzma(), lambda: lzma_bomb(64 * MEBIBYTE)),
    "lzma with a large dictionary": (Lzma(), greedy_lzma),
    "lzma streams": (Lzma(), lambda: lzma_bomb(16 * MEBIBYTE) * 64),
    "shuffle": (Shuffle(4), lambda: bytes(16 * MEBIBYTE)),
    "snappy": (Snappy(), lambda: snappy_bomb(2**30)),
    "snappy that lies": (Snappy(), lambda: snappy_bomb(MEBIBYTE)[:-4]),
    "zlib": (Zlib(), lambda: deflate_bomb(15, 64 * MEBIBYTE)),
    "zstd": (Zstd(), lambda: Zstd().encode(bytes(64 * MEBIBYTE))),
    "zstd frames": (Zstd(), lambda: Zstd().encode(bytes(16 * MEBIBYTE)) * 64),
    "zstd without size": (Zstd(), lambda: zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MEBIBYTE))),
}


MEASURE = """
import pickle, re, sys
from pathlib import Path
from azarr.errors import CodecError

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

codec, value = pickle.loads(Path(sys.argv[1]).read_bytes())
small = codec.encode(bytes(1000))
codec.decode(small, 1000)
codec.decode_into(small, memoryview(bytearray(1000)))
out = memoryview(bytearray(b"x" * 2**20))
Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
start = memory("VmRSS")
for decode in (lambda: codec.decode(value, 2**20), lambda: codec.decode_into(value, out)):
    try:
        decode()
    except CodecError:
        pass
    else:
        sys.exit("decoded")
print(memory("VmHWM") - start)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory through /proc")
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_an_error_and_little_memory(name, tmp_path):
    path = tmp_path / "bomb"
    codec, build = BOMBS[name]
    path.write_bytes(pickle.dumps((codec, build())))
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 8 * MEBIBYTE
