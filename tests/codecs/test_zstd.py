from __future__ import annotations

import struct

import numcodecs
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs import zstd
from azarr.codecs.zstd import SMALL_NBYTES, Zstd
from azarr.errors import ChecksumError, CodecError, MetadataError

SMALL = bytes(range(256)) * 16
LARGE = bytes(range(256)) * (4 * SMALL_NBYTES // 256)


def decoded_into(data: bytes, nbytes: int) -> bytes:
    out = bytearray(nbytes)
    Zstd().decode_into(data, memoryview(out))
    return bytes(out)


def frame(data: bytes, *, size: bool = True, checksum: bool = False) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=size, write_checksum=checksum).compress(data)


def decoded_joined(values: list[bytes], nbytes: int) -> bytes | None:
    out = bytearray(nbytes * len(values))
    fine = Zstd().decode_joined_into(memoryview(b"".join(values) + b"scratch"), [*map(len, values)], memoryview(out))
    return bytes(out) if fine else None


@given(st.integers(0, 200), st.integers(0, 5), st.randoms(use_true_random=False))
def test_values_one_behind_the_other_decode_in_one_go(nbytes, count, random):
    parts = [random.randbytes(nbytes) for _ in range(count)]
    assert decoded_joined([*map(frame, parts)], nbytes) == b"".join(parts)


def test_a_value_that_is_not_what_it_should_be_stops_what_goes_in_one_go():
    good = frame(SMALL)
    assert decoded_joined([good, good], len(SMALL)) == SMALL * 2
    stored = zstandard.ZstdCompressor(level=1).compress(bytes(range(100)))  # as it is, so that other bytes fit in as well
    for bad in (
        b"",
        good[:-1],
        good[:5],
        good + b"x",
        good + good,
        good + frame(b"x"),
        frame(SMALL, size=False),
        frame(SMALL[1:]),
        b"\xff" * 40,
    ):
        for values in ([bad, good], [good, bad], [good, bad, good], [bad, bad]):
            assert decoded_joined(values, len(SMALL)) is None
    assert decoded_joined([stored[:-20], stored, stored[-20:]], 100) is None
    assert decoded_joined([stored[:-20], stored], 100) is None


@pytest.mark.parametrize("level", [-131072, -1, 0, 1, 3, 22])
def test_levels_round_trip(level):
    assert decoded_into(Zstd(level).encode(SMALL), len(SMALL)) == SMALL


@settings(deadline=None)
@given(st.binary(max_size=3000), st.booleans())
def test_round_trip(data, checksum):
    encoded = Zstd(3, checksum).encode(memoryview(data))
    assert zstandard.get_frame_parameters(encoded).has_checksum == checksum
    assert zstandard.frame_content_size(encoded) == len(data)
    assert decoded_into(encoded, len(data)) == data
    assert Zstd().decode(bytearray(encoded), len(data)) == data


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_numcodecs_reads_and_writes_the_same(data):
    assert numcodecs.Zstd().decode(Zstd().encode(data)) == data
    assert decoded_into(numcodecs.Zstd(level=1, checksum=True).encode(data), len(data)) == data


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("size", [True, False], ids=["size", "no-size"])
def test_several_frames_are_one_value(data, size):
    middle = len(data) // 3
    skippable = struct.pack("<II", 0x184D2A50, 5) + b"notes"
    value = frame(data[:middle], size=size) + frame(b"") + skippable + frame(data[middle:], size=size, checksum=True) + frame(b"")
    assert decoded_into(value, len(data)) == data
    assert Zstd().decode(value, len(data)) == data


def test_a_frame_without_size_decodes_below_its_limit():
    value = frame(LARGE, size=False)
    assert zstandard.frame_content_size(value) == -1
    assert Zstd().decode(value, 10 * len(LARGE)) == LARGE


def test_empty_frames_hold_nothing():
    value = frame(b"") + frame(b"", size=False)
    assert Zstd().decode(value, 0) == b""
    Zstd().decode_into(value, memoryview(bytearray()))


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("size", [True, False], ids=["size", "no-size"])
def test_every_truncation_is_found(data, size):
    value = frame(data, size=size, checksum=True)
    assert decoded_into(value, len(data)) == data
    for length in range(len(value)):
        with pytest.raises(CodecError):
            decoded_into(value[:length], len(data))
        with pytest.raises(CodecError):
            Zstd().decode(value[:length], len(data))


def test_a_missing_last_empty_block_is_found():
    compressor = zstandard.ZstdCompressor().compressobj()
    value = compressor.compress(SMALL) + compressor.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    end = compressor.flush()
    assert decoded_into(value + end, len(SMALL)) == SMALL
    with pytest.raises(CodecError, match="write it again"):
        decoded_into(value, len(SMALL))


def test_the_end_of_a_frame_is_waited_for():
    value = frame(SMALL, size=False, checksum=True)
    with pytest.raises(CodecError, match="write it again"):
        decoded_into(value[:-4], len(SMALL))


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("size", [True, False], ids=["size", "no-size"])
def test_a_wrong_checksum_is_found_after_all_bytes_came(data, size):
    value = bytearray(frame(data, size=size, checksum=True))
    value[-1] ^= 1
    with pytest.raises(ChecksumError, match="write it again"):
        decoded_into(bytes(value), len(data))
    with pytest.raises(ChecksumError):
        Zstd().decode(bytes(value), len(data))


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("more", [-100, -1, 1, 10, 16, 17, 100])
def test_another_size_than_the_chunk_is_said(data, more):
    expected = "more than the" if more < 0 else f"decodes to {len(data)} bytes where"
    with pytest.raises(CodecError, match=expected):
        decoded_into(frame(data), len(data) + more)


def test_the_end_mark_may_occur_in_the_data():
    data = zstd.END * 3
    for value in (frame(data), frame(data, size=False), frame(data[:20]) + frame(data[20:])):
        assert decoded_into(value, len(data)) == data
        assert Zstd().decode(value, len(data)) == data
        for nbytes in (len(data) - len(zstd.END), len(data) + len(zstd.END)):
            with pytest.raises(CodecError):
                decoded_into(value, nbytes)


def test_bytes_behind_the_last_frame_are_refused():
    for extra in (b"\0", b"\x28", b"\x28\xb5\x2f", bytes(20), frame(b"x")):
        with pytest.raises(CodecError):
            decoded_into(frame(LARGE) + extra, len(LARGE))
        with pytest.raises(CodecError):
            decoded_into(frame(SMALL) + extra, len(SMALL))


def test_a_decoding_may_begin_inside_another(monkeypatch):
    value, inner = frame(LARGE), []

    class Interrupted(zstd._Frames):
        def read(self, size):
            if not inner:
                inner.append(b"")
                inner[0] = decoded_into(value, len(LARGE))
            return super().read(size)

    monkeypatch.setattr(zstd, "_Frames", Interrupted)
    assert decoded_into(value, len(LARGE)) == LARGE
    assert inner == [LARGE]


def test_contexts_are_reused():
    Zstd(4).encode(SMALL)
    decoded_into(frame(LARGE), len(LARGE))
    compressor, decompressors = zstd._contexts.compressors[4, False], list(zstd._contexts.decompressors)
    Zstd(4).encode(SMALL)
    decoded_into(frame(LARGE), len(LARGE))
    assert zstd._contexts.compressors[4, False] is compressor
    assert zstd._contexts.decompressors == decompressors


def test_configuration():
    assert Zstd.from_configuration({}) == Zstd(0, checksum=False)
    codec = Zstd.from_configuration({"level": 7, "checksum": True})
    assert codec == Zstd(7, checksum=True)
    assert codec.configuration() == {"level": 7, "checksum": True}


@pytest.mark.parametrize(
    "wrong", [{"level": 23}, {"level": -131073}, {"level": True}, {"level": "3"}, {"checksum": 1}, {"checksum": None}, {"x": 1}]
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="zstd"):
        Zstd.from_configuration(wrong)
