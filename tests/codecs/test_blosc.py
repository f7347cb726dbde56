from __future__ import annotations

import itertools
import struct
import subprocess
import sys

import numcodecs
import numcodecs.blosc
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.blosc import HEADER, Blosc
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

CNAMES = ("blosclz", "lz4", "lz4hc", "zlib", "zstd")
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
DATA = np.arange(20_000, dtype="<i4").tobytes()
DOCUMENT = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}


def decoded_into(data: bytes, nbytes: int) -> bytes:
    out = bytearray(nbytes)
    Blosc().decode_into(data, memoryview(out))
    return bytes(out)


def with_header(value: bytes, **changes: int) -> bytes:
    names = ("version", "versionlz", "flags", "typesize", "nbytes", "blocksize", "cbytes")
    fields = dict(zip(names, HEADER.unpack_from(value), strict=True))
    return HEADER.pack(*(fields | changes).values()) + value[HEADER.size :]


@settings(deadline=None)
@given(
    st.binary(max_size=3000),
    st.sampled_from(CNAMES),
    st.sampled_from(SHUFFLES),
    st.integers(0, 9),
    st.sampled_from([1, 2, 3, 4, 8, 16, 300]),
)
def test_round_trip(data, cname, shuffle, clevel, typesize):
    encoded = Blosc(cname, clevel, shuffle, typesize).encode(memoryview(data))
    assert decoded_into(encoded, len(data)) == data
    assert Blosc().decode(bytearray(encoded), len(data)) == data


@pytest.mark.parametrize(("cname", "shuffle"), list(itertools.product(CNAMES, SHUFFLES)))
@pytest.mark.parametrize("nbytes", [len(DATA), 4096, 17, 1, 0])
def test_numcodecs_reads_and_writes_the_same(cname, shuffle, nbytes):
    data = DATA[:nbytes]
    ours = Blosc(cname, 5, shuffle, 4, 1024).encode(data)
    theirs = numcodecs.blosc.compress(data, cname.encode(), 5, SHUFFLES.index(shuffle), 1024, 4)
    assert ours == theirs
    assert (numcodecs.blosc.decompress(ours) if data else b"") == data
    assert decoded_into(theirs, nbytes) == data


def test_bit_shuffled_chunks_of_broken_elements_decode():
    # what blosc2 alone gets wrong
    for typesize, nbytes in itertools.product((2, 3, 4, 8, 24), (1001, 4099, 20_003, 70_001)):
        data = DATA[:nbytes]
        value = numcodecs.blosc.compress(data, b"zstd", 5, numcodecs.blosc.BITSHUFFLE, 0, typesize)
        assert decoded_into(value, nbytes) == data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nbytes": len(DATA) + 1}, "decodes to more"),
        ({"nbytes": 2**32 - 1}, "decodes to more"),
        ({"nbytes": len(DATA) - 1}, "where the chunk has"),
        ({"version": 5}, "format version 5"),
        ({"cbytes": 2**32 - 1}, "where the header says"),
        ({"cbytes": 15}, "not one of Blosc 1"),
        ({"flags": 0x25}, "not one of Blosc 1"),
        ({"flags": 0x29}, "not one of Blosc 1"),
        ({"flags": 0xC1}, "not one of Blosc 1"),
        ({"flags": 0x41}, "write it again"),
        ({"typesize": 0}, "cannot decompress"),
        ({"blocksize": 0}, "cannot decompress"),
    ],
    ids=str,
)
def test_no_library_sees_a_header_that_lies(changes, message):
    value = with_header(Blosc("lz4", 5, "shuffle", 4).encode(DATA), **changes)
    with pytest.raises(CodecError, match=message):
        decoded_into(value, len(DATA))
    if changes.get("nbytes", 0) < len(DATA):
        with pytest.raises(CodecError):
            Blosc().decode(value, len(DATA))


@pytest.mark.parametrize("length", [0, 1, 15])
def test_less_than_a_header_is_refused(length):
    value = Blosc().encode(DATA)[:length]
    with pytest.raises(CodecError, match="cannot hold a header"):
        Blosc().decode(value, len(DATA))
    with pytest.raises(CodecError, match="cannot hold a header"):
        decoded_into(value, len(DATA))


def test_blocks_beyond_the_size_in_the_header_are_not_decoded():
    value = Blosc("zstd", 5, "shuffle", 4, 4096).encode(DATA)
    assert decoded_into(with_header(value, nbytes=8192), 8192) == DATA[:8192]


def test_bytes_behind_the_chunk_are_ignored():
    assert decoded_into(Blosc("lz4").encode(DATA) + b"padding", len(DATA)) == DATA


def test_chunks_of_blosc2_are_refused():
    import blosc2

    with pytest.raises(CodecError, match="write it again as Blosc 1"):
        decoded_into(blosc2.compress2(DATA, nthreads=1), len(DATA))


def test_a_library_error_is_the_cause():
    value = bytearray(Blosc("zstd", 5, "shuffle", 4).encode(DATA))
    value[16:20] = struct.pack("<i", -1)
    with pytest.raises(CodecError, match="write it again") as caught:
        decoded_into(bytes(value), len(DATA))
    assert isinstance(caught.value.__cause__, ValueError)


def test_snappy_is_legal_in_metadata_but_not_to_be_had():
    codec = Blosc.from_configuration(DOCUMENT | {"cname": "snappy"})
    with pytest.raises(CodecError, match="snappy"):
        codec.encode(DATA)


FUZZ = """
import random, sys
from azarr.codecs.blosc import Blosc
from azarr.errors import CodecError

GUARD = b"\\xaa" * 4096
rng = random.Random(0)
data = bytes(i * i >> 7 & 255 for i in range(30_000))
for number in range(6000):
    if number % 100 == 0:
        typesize = rng.choice([1, 2, 3, 4, 8, 16])
        codec = Blosc(rng.choice(["blosclz", "lz4", "zlib", "zstd"]), 5, rng.choice(["noshuffle", "shuffle", "bitshuffle"]), typesize, 4096)
        value = codec.encode(data)
    damaged = bytearray(value)
    for _ in range(rng.choice([1, 2, 10])):
        damaged[rng.choice([rng.randrange(80), rng.randrange(len(value))])] ^= 1 << rng.randrange(8)
    if rng.random() < 0.7:
        damaged[0], damaged[4:8], damaged[12:16] = 2, value[4:8], value[12:16]
    memory = bytearray(GUARD + bytes(len(data)) + GUARD)
    try:
        Blosc().decode_into(damaged, memoryview(memory)[len(GUARD) : -len(GUARD)])
    except CodecError:
        pass
    assert memory.startswith(GUARD) and memory.endswith(GUARD), number
"""


def test_damaged_chunks_neither_crash_nor_overrun():
    # in a process of its own, as what it guards against would take this one down
    done = subprocess.run([sys.executable, "-c", FUZZ], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_encoding_is_quiet_and_leaves_the_warning_filters_alone():
    code = "from azarr.codecs.blosc import Blosc; import warnings; before = list(warnings.filters)\n"
    code += "Blosc().encode(b'x'); assert warnings.filters == before"
    done = subprocess.run([sys.executable, "-W", "always", "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_importing_imports_no_heavy_library():
    code = "import sys, azarr.codecs.blosc, azarr.codecs.crc32c; sys.exit(bool({'blosc2', 'numcodecs', 'crc32c'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_numcodecs_starts_no_threads_of_its_own():
    Blosc().encode(DATA)
    assert numcodecs.blosc.use_threads is False


@pytest.mark.parametrize(("dtype", "shuffle"), [("u1", "bitshuffle"), ("<f4", "shuffle"), ("V12", "shuffle")])
def test_binding_fills_in_what_was_left_open(dtype, shuffle):
    spec = ChunkSpec((10,), np.dtype(dtype), np.zeros((), dtype)[()])
    bound = Blosc("lz4").bind(spec)
    assert bound == Blosc("lz4", shuffle=shuffle, typesize=np.dtype(dtype).itemsize)
    assert bound.bind(spec) == bound
    assert Blosc.from_configuration(bound.configuration()) == bound


def test_binding_keeps_what_was_said():
    codec = Blosc(shuffle="noshuffle", typesize=3)
    assert codec.bind(ChunkSpec((10,), np.dtype("f8"), np.float64(0))) == codec


def test_configuration():
    assert Blosc.from_configuration(DOCUMENT).configuration() == DOCUMENT
    assert Blosc.from_configuration({"cname": "zstd", "clevel": 0, "shuffle": "noshuffle"}) == Blosc("zstd", 0, "noshuffle")


@pytest.mark.parametrize(
    "wrong",
    [
        {"cname": "gzip"},
        {"cname": ["lz4"]},
        {"clevel": 10},
        {"clevel": None},
        {"shuffle": 1},
        {"shuffle": None},
        {"shuffle": "byteshuffle"},
        {"typesize": 0},
        {"typesize": None},
        {"typesize": "4"},
        {"blocksize": -1},
        {"level": 5},
    ],
    ids=str,
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="blosc"):
        Blosc.from_configuration(DOCUMENT | wrong)


@pytest.mark.parametrize("missing", ["cname", "clevel", "shuffle", "typesize"])
def test_incomplete_configurations_are_refused(missing):
    with pytest.raises(MetadataError, match=missing):
        Blosc.from_configuration({key: value for key, value in DOCUMENT.items() if key != missing})
