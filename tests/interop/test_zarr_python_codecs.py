"""Codec classes of zarr-python, run as azarr's: its own, which azarr has as well and can be compared with, and those of plug-ins."""

from __future__ import annotations

import asyncio
import pickle
import sys
from dataclasses import dataclass, replace

import numpy as np
import pytest

import azarr
from azarr.codecs.pipeline import CodecPipeline
from azarr.codecs.registry import CODECS, parse_codec, parse_codecs
from azarr.errors import CodecError, MetadataError, PluginError
from azarr.types import ChunkSpec

zarr = pytest.importorskip("zarr", minversion="3.4", reason="needs zarr 3.4 or later; 'nox -s interop' installs it and runs these tests")

from zarr import codecs  # noqa: E402  # not before it is known that there is zarr
from zarr.abc.codec import ArrayArrayCodec, ArrayBytesCodec, BytesBytesCodec  # noqa: E402
from zarr.codecs import numcodecs as numcodecs_in_v3  # noqa: E402
from zarr.core.buffer.cpu import Buffer  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification:UserWarning")

SPEC = ChunkSpec((4, 6), np.dtype("f4"), np.float32(0))
CHUNK = np.linspace(0, 50, 24, dtype="f4").reshape(4, 6).round()

OF_ZARR = [
    (codecs.GzipCodec, "gzip", {"level": 5}),
    (codecs.ZstdCodec, "zstd", {"level": 3, "checksum": True}),
    (codecs.Crc32cCodec, "crc32c", {}),
    (codecs.BloscCodec, "blosc", {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}),
    (codecs.TransposeCodec, "transpose", {"order": [1, 0]}),
    (codecs.BytesCodec, "bytes", {"endian": "big"}),
    (numcodecs_in_v3.Zlib, "numcodecs.zlib", {"level": 2}),
    (numcodecs_in_v3.Shuffle, "numcodecs.shuffle", {"elementsize": 4}),
    (numcodecs_in_v3.CRC32, "numcodecs.crc32", {}),
    (numcodecs_in_v3.Delta, "numcodecs.delta", {"dtype": "<f4"}),
    (numcodecs_in_v3.AsType, "numcodecs.astype", {"encode_dtype": "<f8", "decode_dtype": "<f4"}),
    (numcodecs_in_v3.FixedScaleOffset, "numcodecs.fixedscaleoffset", {"offset": 0, "scale": 1, "dtype": "<f4", "astype": "<i2"}),
    (numcodecs_in_v3.PCodec, "numcodecs.pcodec", {}),
    (
        codecs.ShardingCodec,
        "sharding_indexed",
        {
            "chunk_shape": [2, 3],
            "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "gzip", "configuration": {"level": 1}}],
            "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
            "index_location": "end",
        },
    ),
]


def pipeline_with(codec, spec=SPEC):
    kind = type(codec)
    if issubclass(kind, azarr.codecs.ArrayToArrayCodec):
        return CodecPipeline([codec, azarr.codecs.Bytes()], spec)
    if issubclass(kind, azarr.codecs.ArrayToBytesCodec):
        return CodecPipeline([codec], spec)
    return CodecPipeline([azarr.codecs.Bytes(), codec], spec)


@pytest.mark.parametrize(("codec", "name", "configuration"), OF_ZARR, ids=[name for _, name, _ in OF_ZARR])
def test_codecs_of_zarr_python_do_what_azarrs_do(codec, name, configuration):
    if name == "numcodecs.pcodec":
        pytest.importorskip("pcodec", reason="needs pcodec, which 'nox -s interop' installs")
    theirs = azarr.codecs.from_zarr_python(codec, name).from_configuration(configuration)
    ours = parse_codec({"name": name, "configuration": configuration})
    wrapped, own = pipeline_with(theirs), pipeline_with(ours)
    for one, other in ((wrapped, own), (own, wrapped), (wrapped, wrapped)):
        decoded = other.decode(one.encode(CHUNK))
        assert decoded.shape == CHUNK.shape
        np.testing.assert_array_equal(decoded, CHUNK)
    again = pickle.loads(pickle.dumps(wrapped))
    assert again.codecs == wrapped.codecs
    np.testing.assert_array_equal(again.decode(wrapped.encode(CHUNK)), CHUNK)
    assert {key: value for key, value in theirs.configuration().items() if key in configuration} == configuration


@pytest.mark.parametrize("fill", ["", b""])
def test_elements_of_variable_length(fill):
    codec, name = (codecs.VLenUTF8Codec, "vlen-utf8") if fill == "" else (codecs.VLenBytesCodec, "vlen-bytes")
    chunk = np.array(["a", "", "ä" * 9] if fill == "" else [b"a", b"", b"\0\xff"], object)
    spec = ChunkSpec((3,), np.dtype(object), fill)
    theirs = CodecPipeline([azarr.codecs.from_zarr_python(codec, name).from_configuration({})], spec)
    own = CodecPipeline([parse_codec(name)], spec)
    assert theirs.encode(chunk) == own.encode(chunk)
    assert theirs.decode(own.encode(chunk)).tolist() == chunk.tolist()


def test_elements_that_zarr_python_does_not_have_are_refused():
    codec = azarr.codecs.from_zarr_python(codecs.GzipCodec, "gzip").from_configuration({"level": 1})
    with pytest.raises(MetadataError, match="codec 'gzip' is zarr-python's, which has no elements of object"):
        codec.bind(ChunkSpec((3,), np.dtype(object), None))


def test_a_configuration_that_zarr_python_refuses_is_a_metadata_error():
    wrapped = azarr.codecs.from_zarr_python(codecs.GzipCodec, "gzip")
    with pytest.raises(MetadataError, match="codec 'gzip': ValueError: .*Got 11 instead"):
        wrapped.from_configuration({"level": 11})
    transpose = azarr.codecs.from_zarr_python(codecs.TransposeCodec, "transpose").from_configuration({"order": [0, 0]})
    with pytest.raises(MetadataError, match="codec 'transpose': ValueError: There must not be duplicates"):
        transpose.bind(SPEC)


def test_damaged_bytes_are_a_codec_error():
    pipeline = pipeline_with(azarr.codecs.from_zarr_python(codecs.ZstdCodec, "zstd").from_configuration({"level": 1}))
    with pytest.raises(CodecError, match="^zstd: ZstdCodec failed: "):
        pipeline.decode(b"nonsense" * 4)
    long = CodecPipeline([azarr.codecs.Bytes(), azarr.codecs.Zstd()], replace(SPEC, shape=(8, 6)))
    with pytest.raises(CodecError, match="decodes to more than the 96 bytes"):
        pipeline.decode(long.encode(np.zeros((8, 6), "f4")))


# Codecs of plug-ins


@dataclass(frozen=True)
class Inverted(BytesBytesCodec):
    """Every bit turned over; coroutines alone, as before zarr-python had anything else."""

    mask: int = 255

    @classmethod
    def from_dict(cls, data):
        return cls(**data.get("configuration", {}))

    def to_dict(self):
        return {"name": "test.inverted", "configuration": {"mask": self.mask}}

    def _turned(self, data):
        return Buffer.from_bytes((data.as_numpy_array() ^ np.uint8(self.mask)).tobytes())

    async def _decode_single(self, chunk_data, chunk_spec):
        return await asyncio.to_thread(self._turned, chunk_data)

    async def _encode_single(self, chunk_data, chunk_spec):
        await asyncio.sleep(0)
        return self._turned(chunk_data)


@dataclass(frozen=True)
class ReadOnly(ArrayBytesCodec):
    """Can decode, and has no configuration."""

    @classmethod
    def from_dict(cls, data):
        return cls()

    def to_dict(self):
        return {"name": "test.readonly"}

    async def _decode_single(self, chunk_data, chunk_spec):
        return chunk_spec.prototype.nd_buffer.from_numpy_array(np.full(chunk_spec.shape, 7, chunk_spec.dtype.to_native_dtype()))


@dataclass(frozen=True)
class Liar(ArrayArrayCodec):
    """Makes something else than it says."""

    @classmethod
    def from_dict(cls, data):
        return cls()

    def _encode_sync(self, chunk_data, chunk_spec):
        return chunk_spec.prototype.nd_buffer.from_numpy_array(chunk_data.as_numpy_array().astype("f8"))

    def _decode_sync(self, chunk_data, chunk_spec):
        return None


class Batches(BytesBytesCodec):
    """Knows batches only."""

    async def decode(self, chunks_and_specs):
        return [data for data, _ in chunks_and_specs]


async def test_coroutines_run_from_workers_and_from_the_event_loop():
    store = azarr.MemoryStore()
    values = np.arange(100).reshape(10, 10)
    with azarr.register_codec(azarr.codecs.from_zarr_python(Inverted, "test.inverted")):
        compressor = {"name": "test.inverted", "configuration": {"mask": 5}}
        array = await azarr.create_array(store, shape=(10, 10), chunks=(3, 3), dtype="i8", compressors=compressor)
        await array.write(values)
        for executor in (azarr.ThreadExecutor(2), azarr.InlineExecutor()):
            async with azarr.Engine(executor=executor) as engine:
                opened = await azarr.open_array(store, engine=engine)
                np.testing.assert_array_equal(await opened.read(), values)
        copy = await azarr.copy(array, azarr.MemoryStore(), shards=(6, 6), chunks=(3, 3))
        np.testing.assert_array_equal(await copy.read(), values)


async def test_a_codec_that_can_only_decode_says_so_when_it_is_to_encode():
    store = azarr.MemoryStore({"c/0": b"?"})
    with azarr.register_codec(azarr.codecs.from_zarr_python(ReadOnly, "test.readonly")):
        array = await azarr.create_array(store, shape=4, dtype="i4", serializer="test.readonly", compressors=None, overwrite=True)
        await store.set("c/0", b"?")
        assert list(await array.read()) == [7, 7, 7, 7]
        with pytest.raises(CodecError, match=r"test\.readonly: ReadOnly failed: NotImplementedError"):
            await array.write([1, 2, 3, 4])


def test_what_breaks_its_word_is_a_codec_error():
    liar = azarr.codecs.from_zarr_python(Liar, "test.liar").from_configuration({}).bind(SPEC)
    with pytest.raises(CodecError, match="made float64 of shape .* where the chunk is float32"):
        liar.encode(CHUNK, SPEC)
    with pytest.raises(CodecError, match="Liar would not decode the chunk"):
        liar.decode(CHUNK, SPEC)


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        (Batches, "Batches decodes batches of chunks only; azarr needs its _decode_sync or _decode_single"),
        (int, "is none of zarr-python's ArrayArrayCodec, ArrayBytesCodec and BytesBytesCodec"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(codec, why):
    with pytest.raises(TypeError, match=why):
        azarr.codecs.from_zarr_python(codec, "test.codec")


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution with codecs for zarr-python, which knows nothing of azarr."""
    info = tmp_path / "theirs-0.7.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 0.7\n", encoding="utf-8")
    points = [f"{name} = theirs_plugin:{kind}" for name, kind in [("test.inverted", "Inverted"), ("test.batches", "Batches")]]
    (info / "entry_points.txt").write_text("\n".join(["[zarr.codecs]", *points, ""]), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "theirs_plugin", sys.modules[__name__])
    before = CODECS._added
    yield
    with CODECS._lock:
        CODECS._set(before)


async def test_a_plugin_for_zarr_python_works_in_azarr_as_it_is(installed):
    bound = parse_codecs(["bytes", {"name": "test.inverted", "configuration": {"mask": 3}}], replace(SPEC, dtype=np.dtype("u1")), "/")
    assert bound[1].configuration() == {"mask": 3}
    assert CODECS.entries[-1].source == "theirs 0.7"
    array = await azarr.create_array(azarr.MemoryStore(), shape=5, dtype="i4", compressors="test.inverted")
    await array.write(range(5))
    assert list(await array.read()) == [0, 1, 2, 3, 4]


def test_a_plugin_that_does_not_fit_is_named(installed):
    with pytest.raises(PluginError, match=r"'test\.batches' of theirs 0\.7 .* is not a codec: Batches decodes batches of chunks only"):
        parse_codec("test.batches")
