from __future__ import annotations

import sys
from contextlib import suppress

import numpy as np
import pytest

from azarr.codecs import pcodec
from azarr.codecs.pcodec import Pcodec
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

standalone = pytest.importorskip("pcodec.standalone", reason='pcodec needs pip install "azarr[pcodec]"')
numcodecs_pcodec = pytest.importorskip("numcodecs.pcodec")

CHUNK = np.arange(1000, dtype="i4").reshape(50, 20) ** 2


def spec_of(chunk):
    return ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))


@pytest.mark.parametrize("dtype", ["i2", "i4", "i8", "u2", "u4", "u8", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(), (1,), (50, 20)], ids=str)
def test_numcodecs_reads_and_writes_the_same(dtype, shape):
    chunk = np.random.default_rng(0).integers(0, 1000, shape, endpoint=True).astype(dtype) if shape else np.array(7, dtype)
    codec, theirs = Pcodec(), numcodecs_pcodec.PCodec()
    np.testing.assert_array_equal(theirs.decode(codec.encode(chunk, spec_of(chunk))).reshape(shape), chunk)
    decoded = codec.decode(theirs.encode(chunk.reshape(-1)), spec_of(chunk))
    assert decoded.dtype == chunk.dtype
    np.testing.assert_array_equal(decoded, chunk)


@pytest.mark.parametrize(
    "configuration",
    [
        {"level": 0},
        {"level": 12, "mode_spec": "classic"},
        {"delta_spec": "none"},
        {"delta_spec": "no_op"},
        {"delta_spec": "try_consecutive", "delta_encoding_order": 2},
        {"delta_spec": "auto", "delta_encoding_order": 1},
        {"delta_spec": "try_lookback"},
        {"paging_spec": "equal_pages_up_to", "equal_pages_up_to": 100},
    ],
)
def test_configurations(configuration):
    codec = Pcodec.from_configuration(configuration)
    assert codec.configuration().items() >= configuration.items()
    np.testing.assert_array_equal(codec.decode(codec.encode(CHUNK, spec_of(CHUNK)), spec_of(CHUNK)), CHUNK)


@pytest.mark.parametrize("shape", [(999,), (1001,), (0,), (10**6,)], ids=str)
def test_another_number_of_elements_is_damage(shape):
    value = Pcodec().encode(CHUNK, spec_of(CHUNK))
    with pytest.raises(CodecError, match="numbers where the chunk has"):
        Pcodec().decode(value, ChunkSpec(shape, CHUNK.dtype, np.int32(0)))


@pytest.mark.parametrize("dtype", ["u4", "f4", "i8", "i2"])
def test_another_data_type_is_damage(dtype):
    value = Pcodec().encode(CHUNK, spec_of(CHUNK))
    with pytest.raises(CodecError, match="write it again"):
        Pcodec().decode(value, spec_of(CHUNK.astype(dtype)))


def test_damage_is_an_error_or_keeps_the_size():
    value = bytes(Pcodec().encode(np.random.default_rng(0).normal(size=(50, 20)), spec_of(CHUNK.astype("f8"))))
    spec, rng = spec_of(CHUNK.astype("f8")), np.random.default_rng(1)
    for length in range(0, len(value), 61):
        with pytest.raises(CodecError):
            Pcodec().decode(value[:length], spec)
    for _ in range(300):
        damaged = bytearray(value)
        damaged[rng.integers(len(value))] ^= 1 << rng.integers(8)
        with suppress(CodecError):
            assert Pcodec().decode(bytes(damaged), spec).shape == spec.shape


@pytest.mark.parametrize(
    "wrong",
    [
        {"level": 13},
        {"level": "8"},
        {"mode_spec": "fast"},
        {"mode_spec": None},
        {"delta_spec": ["auto"]},
        {"paging_spec": "exact"},
        {"equal_pages_up_to": 0},
        {"delta_encoding_order": 8},
        {"delta_spec": "none", "delta_encoding_order": 1},
        {"x": 1},
    ],
    ids=repr,
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="pcodec"):
        Pcodec.from_configuration(wrong)


@pytest.mark.parametrize("dtype", ["?", "i1", "c8", "S4", "M8[s]"])
def test_what_pcodec_does_not_take_is_refused(dtype):
    with pytest.raises(MetadataError, match="numbers of 16, 32 and 64 bits"):
        Pcodec().bind(ChunkSpec((2,), np.dtype(dtype), np.zeros((), dtype)[()]))


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "pcodec", None)
    monkeypatch.setattr(pcodec, "_library", pcodec._library.__wrapped__)
    with pytest.raises(CodecError, match=r'pip install "azarr\[pcodec\]"'):
        Pcodec().encode(CHUNK, spec_of(CHUNK))
