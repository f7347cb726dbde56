from __future__ import annotations

import sys
from contextlib import suppress

import numcodecs
import numpy as np
import pytest

from azarr.codecs import zfp
from azarr.codecs.pipeline import CodecPipeline
from azarr.codecs.zfp import Zfp, Zfpy
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

zfpy = pytest.importorskip("zfpy", reason='zfp needs pip install "azarr[zfp]"')

SHAPES = [(), (1,), (17,), (5, 9), (3, 5, 7), (2, 3, 4, 5)]
FIELD = np.sin(np.arange(64 * 64) / 50).reshape(64, 64)


def spec_of(chunk):
    return ChunkSpec(chunk.shape, chunk.dtype, chunk.dtype.type(0))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", ["i4", "i8", "f4", "f8", "i1", "u1", "i2", "u2", "u4", "u8", "f2"])
def test_reversible_loses_nothing(shape, dtype):
    rng = np.random.default_rng(0)
    high = min(np.iinfo(dtype).max, 2**31 - 1) if np.dtype(dtype).kind in "iu" else 1000
    low = np.iinfo(dtype).min if np.dtype(dtype).kind == "i" and np.dtype(dtype).itemsize < 4 else 0
    chunk = np.asarray(rng.integers(low, high, shape, endpoint=True)).astype(dtype)
    pipeline = CodecPipeline([Zfp("reversible")], spec_of(chunk))
    value = pipeline.encode(chunk)
    assert len(value) <= pipeline.max_encoded_size
    decoded = pipeline.decode(value)
    assert decoded.dtype == chunk.dtype
    np.testing.assert_array_equal(decoded, chunk)


@pytest.mark.parametrize(
    ("mode", "key", "parameter"), [("fixed_accuracy", "tolerance", 0.01), ("fixed_rate", "rate", 16), ("fixed_precision", "precision", 20)]
)
def test_lossy_modes_write_what_the_library_does_without_a_header(mode, key, parameter):
    codec = Zfp.from_configuration({"mode": mode, key: parameter})
    assert codec.configuration() == {"mode": mode, key: parameter}
    value = codec.encode(FIELD, spec_of(FIELD))
    assert value == zfpy.compress_numpy(FIELD, write_header=False, **{key: parameter})
    np.testing.assert_allclose(codec.decode(value, spec_of(FIELD)), FIELD, atol=0.01)


@pytest.mark.parametrize("dtype", ["u1", "i2"])
def test_loss_never_leads_out_of_the_data_type(dtype):
    bounds = np.iinfo(dtype)
    chunk = np.where(np.arange(64).reshape(8, 8) % 2, bounds.max, bounds.min).astype(dtype)
    codec = Zfp("fixed_precision", 6)
    decoded = codec.decode(codec.encode(chunk, spec_of(chunk)), spec_of(chunk)).astype("f8")
    assert np.abs(decoded - chunk).max() < (float(bounds.max) - float(bounds.min)) / 4


def test_numbers_that_zfp_cannot_hold_are_an_error():
    chunk = np.array([2**32 - 1], "u4")
    with pytest.raises(CodecError, match="more than the 2147483647"):
        Zfp("reversible").encode(chunk, spec_of(chunk))


@pytest.mark.parametrize(("mode", "key", "parameter"), [(4, "tolerance", 0.01), (2, "rate", 16), (3, "precision", 20)])
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
@pytest.mark.parametrize("dtype", ["i4", "i8", "f4", "f8"])
def test_numcodecs_reads_and_writes_the_same(mode, key, parameter, shape, dtype):
    if mode == 4 and dtype.startswith("i"):
        pytest.skip("zfp has no tolerance for whole numbers")
    chunk = (np.cumsum(np.ones(shape)).reshape(shape) * 1000).astype(dtype)
    codec, theirs = Zfpy(mode, **{key: parameter}), numcodecs.zfpy.ZFPY(mode, **{key: parameter})
    value = codec.encode(chunk, spec_of(chunk))
    assert value == theirs.encode(chunk)
    np.testing.assert_array_equal(codec.decode(value, spec_of(chunk)), theirs.decode(value).reshape(shape))


def test_chunks_that_were_compressed_as_one_dimension():
    value = zfpy.compress_numpy(FIELD.reshape(-1), tolerance=0.001)
    np.testing.assert_allclose(Zfpy(4, 0.001).decode(value, spec_of(FIELD)), FIELD, atol=0.001)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"zfp\5",
        b"zfp\6" + bytes(30),
        zfpy.compress_numpy(np.zeros((64, 63)), tolerance=0.1),
        zfpy.compress_numpy(np.zeros((64, 64), "f4"), tolerance=0.1),
        zfpy.compress_numpy(np.zeros((1, 64, 64)), tolerance=0.1),
    ],
    ids=len,
)
def test_headers_of_other_chunks_are_refused(value):
    with pytest.raises(CodecError, match="header"):
        Zfpy(4, 0.1).decode(value, spec_of(FIELD))


def test_a_header_that_promises_the_world_costs_nothing():
    meta = 3 | 1 << 2 | (2**48 - 1) << 4  # float64, two dimensions of 2^24
    value = b"zfp\5" + meta.to_bytes(8, "little") + bytes(100)
    with pytest.raises(CodecError, match="16777216, 16777216"):
        Zfpy(4, 0.1).decode(value, spec_of(FIELD))


@pytest.mark.parametrize("codec", [Zfp("reversible"), Zfp("fixed_accuracy", 0.01), Zfpy(4, tolerance=0.01)], ids=repr)
def test_bytes_cut_off_or_changed_never_lead_out_of_memory(codec):
    value = bytes(codec.encode(FIELD, spec_of(FIELD)))
    rng = np.random.default_rng(0)
    for length in [*range(1, 100, 7), *range(100, len(value), 997)]:
        with suppress(CodecError):
            assert codec.decode(value[:length], spec_of(FIELD)).shape == FIELD.shape
    for _ in range(200):
        damaged = bytearray(value)
        damaged[rng.integers(len(value))] ^= 1 << rng.integers(8)
        with suppress(CodecError):
            assert codec.decode(damaged, spec_of(FIELD)).shape == FIELD.shape


@pytest.mark.parametrize(
    "wrong",
    [
        {},
        {"mode": "expert", "minbits": 1, "maxbits": 16658, "maxprec": 64, "minexp": -1074},
        {"mode": "lossless"},
        {"mode": 1},
        {"mode": "reversible", "tolerance": 1},
        {"mode": "fixed_rate"},
        {"mode": "fixed_rate", "rate": 0},
        {"mode": "fixed_rate", "rate": "8"},
        {"mode": "fixed_precision", "precision": 65},
        {"mode": "fixed_accuracy", "tolerance": -1},
        {"mode": "fixed_accuracy", "rate": 1},
    ],
    ids=repr,
)
def test_wrong_configurations_of_zfp_are_refused(wrong):
    with pytest.raises(MetadataError, match="zfp"):
        Zfp.from_configuration(wrong)


@pytest.mark.parametrize("wrong", [{"mode": 1}, {"mode": "4"}, {"tolerance": "1"}, {"level": 1}])
def test_wrong_configurations_of_zfpy_are_refused(wrong):
    with pytest.raises(MetadataError, match="zfpy"):
        Zfpy.from_configuration(wrong)


def test_what_numcodecs_adds_to_the_configuration_is_understood():
    configuration = {"mode": 4, "tolerance": 0.01, "rate": -1, "precision": -1, "compression_kwargs": {"tolerance": 0.01}}
    assert Zfpy.from_configuration(configuration) == Zfpy(4, tolerance=0.01)


@pytest.mark.parametrize("codec", [Zfp("reversible"), Zfpy()], ids=repr)
@pytest.mark.parametrize(("dtype", "shape"), [("?", (2,)), ("c8", (2,)), ("S4", (2,)), ("f4", (1, 1, 1, 1, 1))])
def test_chunks_that_zfp_does_not_take(codec, dtype, shape):
    with pytest.raises(MetadataError, match="zfp"):
        codec.bind(ChunkSpec(shape, np.dtype(dtype), np.zeros((), dtype)[()]))


def test_without_the_package_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "zfpy", None)
    monkeypatch.setattr(zfp, "_library", zfp._library.__wrapped__)
    with pytest.raises(CodecError, match=r'pip install "azarr\[zfp\]"'):
        Zfp("reversible").encode(FIELD, spec_of(FIELD))


@pytest.mark.parametrize("mode", [2047, 0xFFF | 0x7FFF << 12 | 0x7FFF << 27, 0xFFF | 0x3FFF << 12 | 0x7FFF << 27], ids=hex)
def test_a_header_that_says_larger_blocks_does_not_lead_out_of_memory(mode):
    chunk = np.ones(2**20, "f4")  # so many blocks that what lies behind the stream could not be read
    codec = Zfpy(mode=2, rate=8)
    value = bytearray(codec.encode(chunk, spec_of(chunk))[:4000])
    header = int.from_bytes(value[:19], "little") & (1 << 84) - 1 | mode << 84
    value[:19] = header.to_bytes(19, "little")
    with pytest.raises(CodecError, match="the header says .* bits for 4 elements"):
        codec.decode(bytes(value), spec_of(chunk))


@pytest.mark.parametrize("mode", [0, 7, 0xFFF | 0 << 12 | 7 << 27], ids=hex)
def test_a_header_that_leaves_no_room_for_an_exponent_is_damage(mode):
    chunk = np.ones(64, "f4")
    codec = Zfpy(mode=2, rate=8)
    value = bytearray(codec.encode(chunk, spec_of(chunk)))
    value[:19] = (int.from_bytes(value[:19], "little") & (1 << 84) - 1 | mode << 84).to_bytes(19, "little")
    with pytest.raises(CodecError, match="bits for 4 elements"):
        codec.decode(bytes(value), spec_of(chunk))


def test_every_rate_that_is_accepted_decodes_what_was_cut_off():
    chunk = np.ones(2**18, "f4")
    for rate in (2.25, 8, 64, zfp.MAX_RATE):
        codec = Zfp("fixed_rate", rate).bind(spec_of(chunk))
        assert codec.decode(codec.encode(chunk, spec_of(chunk))[:100], spec_of(chunk)).shape == chunk.shape


@pytest.mark.parametrize(
    ("dtype", "shape", "least"),
    [("f4", (8,), 2.25), ("f8", (8,), 3), ("f2", (8, 8), 0.5625), ("f8", (4, 4, 4), 0.1875), ("i4", (8,), 0.25)],
)
def test_rates_that_leave_a_block_too_few_bits_are_refused(dtype, shape, least):
    spec = spec_of(np.zeros(shape, dtype))
    Zfp("fixed_rate", least).bind(spec)
    with pytest.raises(MetadataError, match="leaves a block .* bits, and it needs"):
        Zfp("fixed_rate", least * 0.4).bind(spec)
    if dtype != "f2":  # which numcodecs does not take
        codec = Zfpy(mode=2, rate=least * 0.4).bind(spec)  # to read, as streams have their own rate
        with pytest.raises(CodecError, match="leaves a block .* bits, and it needs"):
            codec.encode(np.zeros(shape, dtype), spec)


@pytest.mark.parametrize("rate", [129, 1e9, 1e300])
def test_rates_from_which_sizes_overflow_are_refused(rate):
    with pytest.raises(MetadataError, match="at most 128 bits"):
        Zfp("fixed_rate", rate)
    with pytest.raises(MetadataError, match="at most 128 bits"):
        Zfpy(mode=2, rate=rate)
