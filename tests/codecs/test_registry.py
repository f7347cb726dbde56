from __future__ import annotations

import json
import pickle
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

import azarr
from azarr import codecs
from azarr.codecs import (
    Adler32,
    AsType,
    Base64,
    BitRound,
    Blosc,
    Bytes,
    BytesToBytesCodec,
    Bz2,
    CastValue,
    Categorize,
    Codec,
    Conditional,
    Crc32,
    Crc32c,
    Delta,
    FixedScaleOffset,
    Fletcher32,
    Gzip,
    JenkinsLookup3,
    Json2,
    LocatedCrc32c,
    Lz4,
    Lzma,
    N5Default,
    NumcodecsBitRound,
    NumcodecsPackBits,
    Optional,
    PackBits,
    Pcodec,
    Quantize,
    Reshape,
    ScaleOffset,
    Sharding,
    Shuffle,
    Snappy,
    Transpose,
    VlenArray,
    VlenBytes,
    VlenUtf8,
    ZarrsVlen,
    ZarrsVlenV2,
    Zfp,
    Zfpy,
    Zlib,
    Zstd,
)
from azarr.codecs.imagecodecs import IMAGECODECS
from azarr.codecs.pipeline import CodecPipeline
from azarr.codecs.registry import CODECS, MAX_CODECS, parse_codec, parse_codecs, register_codec, serialize_codec
from azarr.data_types import parse_data_type
from azarr.errors import MetadataError, RegistrationError, UnknownExtensionError
from azarr.types import ChunkSpec

SPEC = ChunkSpec((4, 6), np.dtype("i4"), np.int32(0))

EVERY = [
    Adler32("end"),
    AsType("<f4", "<f8"),
    Base64(),
    BitRound(3),
    Blosc("zstd", 3, "shuffle", 4),
    Bytes("big"),
    Bytes(None),
    Bz2(3),
    CastValue(parse_data_type("uint8", "/"), "nearest-away", "clamp", (("NaN", 0), (1.5, 3)), ((0, "NaN"),)),
    Categorize(("a", "b"), "<U3", "<u2"),
    Conditional((Gzip(3), Crc32c()), 16),
    Crc32(),
    Crc32c(),
    Delta("<i4", "<i2"),
    FixedScaleOffset(1000, 0.5, "<f8", "|u1"),
    Fletcher32(),
    Gzip(3),
    JenkinsLookup3(5),
    Json2(),
    LocatedCrc32c("start"),
    Lz4(2),
    Lzma(3, filters=((("id", 3), ("dist", 4)), (("id", 33), ("preset", 1)))),
    N5Default((Transpose((1, 0)), Bytes("big"), Gzip(3))),
    NumcodecsBitRound(0),
    NumcodecsPackBits(),
    Optional((PackBits(),), (Bytes("big"), Gzip(3))),
    PackBits("last_byte", 1, 5),
    Pcodec(5, delta_spec="try_consecutive", delta_encoding_order=2),
    Quantize(2, "<f8", "<f4"),
    Reshape((6, (0, 1), -1)),
    ScaleOffset(3, 0.1),
    Sharding((2, 3), (Transpose((1, 0)), Bytes(), Zstd(1)), (Bytes("big"), Crc32c()), "start"),
    Sharding((2, 3), (Sharding((1, 1), (Bytes(), Gzip(1))),)),
    Shuffle(4),
    Snappy(),
    Transpose((1, 0)),
    VlenArray("<i4"),
    VlenBytes(),
    VlenUtf8(),
    ZarrsVlen((Bytes(None), Gzip(3)), (Bytes("big"),), "uint32", "end"),
    ZarrsVlenV2(),
    Zfp("fixed_accuracy", 0.5),
    Zfp("reversible"),
    Zfpy(4, tolerance=0.5),
    Zlib(3),
    Zstd(3, checksum=True),
]


def test_every_exported_codec_is_registered_under_its_name():
    classes = [each for name in codecs.__all__ if isinstance(each := getattr(codecs, name), type)]
    exported = {each for each in classes if issubclass(each, Codec) and hasattr(each, "name")}
    assert exported == {entry.value for entry in CODECS.entries} - set(IMAGECODECS.values())
    for codec in exported:
        assert CODECS.get(codec.name) is codec
    assert {type(codec) for codec in EVERY} == exported


@pytest.mark.parametrize("codec", EVERY, ids=repr)
def test_documents_round_trip(codec):
    document = json.loads(json.dumps(serialize_codec(codec)))
    assert document["name"] == codec.name
    assert document.get("configuration", True), "an empty configuration is left out"
    assert document.keys() <= {"name", "configuration"}
    assert parse_codec(document) == codec
    assert parse_codec({**document, "must_understand": True}) == codec


@pytest.mark.parametrize(("name", "codec"), [("numcodecs.gzip", Gzip(3)), ("numcodecs.zstd", Zstd(3))])
def test_names_that_other_writers_use(name, codec):
    configuration = {"level": 3, "checksum": False} if name == "numcodecs.zstd" else {"level": 3}
    parsed = parse_codec({"name": name, "configuration": configuration})
    assert parsed == codec
    assert serialize_codec(parsed)["name"] == codec.name


@pytest.mark.parametrize(
    ("name", "configuration", "codec"),
    [
        ("numcodecs.blosc", {}, Blosc("lz4", 5, "shuffle")),
        ("numcodecs.blosc", {"id": "blosc", "cname": "zstd", "clevel": 1, "shuffle": 2, "blocksize": 0}, Blosc("zstd", 1, "bitshuffle")),
        ("numcodecs.blosc", {"shuffle": -1, "typesize": 8}, Blosc("lz4", 5, None, 8)),
        ("numcodecs.crc32c", {}, Crc32c()),
        ("numcodecs.crc32c", {"location": "end"}, Crc32c()),
        ("numcodecs.crc32c", {"location": "start"}, LocatedCrc32c("start")),
        ("numcodecs.gzip", {"id": "gzip"}, Gzip(1)),
        ("numcodecs.zlib", {"id": "zlib", "level": 2}, Zlib(2)),
        ("numcodecs.zstd", {}, Zstd(0)),
        ("numcodecs.shuffle", {}, Shuffle()),
    ],
)
def test_configurations_in_the_words_of_numcodecs(name, configuration, codec):
    assert parse_codec({"name": name, "configuration": configuration}) == codec
    assert CODECS.get(name) is type(codec) or name == "numcodecs.crc32c"


def test_an_id_is_dropped_only_where_numcodecs_leaves_it():
    with pytest.raises(MetadataError, match="id"):
        parse_codec({"name": "gzip", "configuration": {"id": "gzip", "level": 1}})


def test_a_name_alone_is_a_codec_without_configuration():
    assert parse_codec("crc32c") == parse_codec({"name": "crc32c"}) == parse_codec({"name": "crc32c", "configuration": {}}) == Crc32c()


BIG = {"name": "bytes", "configuration": {"endian": "big"}}
PRIVATE = {"name": "private", "configuration": {"b": [1, None], "a": {}}, "must_understand": False}


def test_a_known_codec_is_used_even_where_it_need_not_be_understood():
    assert parse_codecs([BIG, {"name": "crc32c", "must_understand": False}], SPEC, "a") == (Bytes("big"), Crc32c())


@pytest.mark.parametrize("documents", [[BIG, PRIVATE], [PRIVATE, BIG], [PRIVATE, BIG, PRIVATE, {"name": "crc32c"}, PRIVATE]])
def test_chunks_pass_by_what_need_not_be_understood_and_its_document_stays(documents):
    codecs = parse_codecs(documents, SPEC, "a")
    assert [serialize_codec(codec) for codec in codecs] == documents
    assert parse_codecs(documents, SPEC, "a") == codecs
    known = parse_codecs([document for document in documents if document is not PRIVATE], SPEC, "a")
    chunk = np.arange(24, dtype="i4").reshape(4, 6)
    pipeline = pickle.loads(pickle.dumps(CodecPipeline(codecs, SPEC)))
    assert pipeline.encode(chunk) == CodecPipeline(known, SPEC).encode(chunk)
    np.testing.assert_array_equal(pipeline.decode(pipeline.encode(chunk)), chunk)


def test_what_need_not_be_understood_stays_inside_shards():
    inner = {"chunk_shape": [2, 3], "codecs": [PRIVATE, BIG], "index_codecs": [BIG, PRIVATE], "index_location": "end"}
    document = {"name": "sharding_indexed", "configuration": inner}
    (codec,) = parse_codecs([document], SPEC, "a")
    assert serialize_codec(codec) == document
    pipeline, chunk = CodecPipeline([codec], SPEC), np.arange(24, dtype="i4").reshape(4, 6)
    np.testing.assert_array_equal(pipeline.decode(pipeline.encode(chunk)), chunk)


def test_what_says_itself_whether_a_codec_was_applied_needs_to_know_it():
    with pytest.raises(MetadataError, match="'conditional' holds codecs from bytes to bytes, not private"):
        parse_codec({"name": "conditional", "configuration": {"codecs": [PRIVATE]}})


@pytest.mark.parametrize("document", ["private", {"name": "private"}, {"name": "private", "must_understand": True}], ids=repr)
def test_an_unknown_codec_is_named(document):
    with pytest.raises(UnknownExtensionError, match=r"unknown codec 'private'; azarr\.supported\('codec'\) lists") as caught:
        parse_codec(document)
    assert caught.value.name == "private"


@pytest.mark.parametrize(
    "document",
    [
        None,
        1,
        [],
        {},
        {"name": 1},
        {"id": "zstd"},
        {"name": "crc32c", "configuration": None},
        {"name": "crc32c", "configuration": []},
        {"name": "crc32c", "level": 1},
        {"name": "crc32c", "configuration": {"level": 1}},
        {"name": "gzip"},
        {"name": "gzip", "configuration": {"level": "1"}},
        {"name": "sharding_indexed", "configuration": {"chunk_shape": [1], "codecs": "bytes", "index_codecs": ["bytes"]}},
        {"name": "sharding_indexed", "configuration": {"chunk_shape": [1], "codecs": [1], "index_codecs": ["bytes"]}},
        {"name": "sharding_indexed"},
    ],
    ids=repr,
)
def test_an_illegal_document_is_refused(document):
    with pytest.raises(MetadataError) as caught:
        parse_codec(document)
    assert not isinstance(caught.value, UnknownExtensionError)


def test_the_codecs_of_a_node_are_bound_to_its_chunks():
    documents = [
        {"name": "transpose", "configuration": {"order": "F"}},
        {"name": "bytes", "configuration": {"endian": "little"}},
        {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 1, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}},
    ]
    transpose, serializer, _ = parse_codecs(documents, SPEC, "a")
    assert (transpose, serializer) == (Transpose((1, 0)), Bytes("little"))


@pytest.mark.parametrize(
    ("documents", "kind", "name"),
    [
        ([], MetadataError, None),
        (["crc32c"], MetadataError, None),
        ([{"name": "bytes", "configuration": {"endian": "odd"}}], MetadataError, None),
        ([{"name": "bytes"}], MetadataError, None),
        (["private"], UnknownExtensionError, "private"),
        (
            [{"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1], "codecs": ["inner"], "index_codecs": ["bytes"]}}],
            UnknownExtensionError,
            "inner",
        ),
    ],
    ids=repr,
)
def test_errors_about_the_codecs_of_a_node_have_its_path(documents, kind, name):
    with pytest.raises(MetadataError, match="^group/array: ") as caught:
        parse_codecs(documents, SPEC, "group/array")
    assert type(caught.value) is kind
    assert caught.value.path == "group/array"
    assert getattr(caught.value, "name", None) == name


def test_an_array_has_so_many_codecs_and_no_more():
    spec = ChunkSpec((4,), np.dtype("u1"), np.uint8(0))
    assert len(parse_codecs(["bytes", *["crc32c"] * (MAX_CODECS - 1)], spec, "/a")) == MAX_CODECS
    inner = {"name": "conditional", "configuration": {"codecs": ["crc32c"] * (MAX_CODECS // 2)}}
    for documents in (["bytes", *["crc32c"] * MAX_CODECS], ["bytes", inner, inner]):
        with pytest.raises(MetadataError, match="/a: there are more than the 64 codecs"):
            parse_codecs(documents, spec, "/a")


# Codecs of users


@dataclass(frozen=True)
class Inverted(BytesToBytesCodec):
    """Every bit turned over."""

    name: ClassVar[str] = "test.inverted"
    mask: int = 255

    @classmethod
    def from_configuration(cls, configuration):
        return cls(**configuration)

    def configuration(self):
        return {"mask": self.mask}

    def encode(self, data):
        return (np.frombuffer(data, np.uint8) ^ self.mask).tobytes()

    def decode(self, data, limit):
        del limit
        return self.encode(data)

    def encoded_size(self, nbytes):
        return nbytes


async def test_a_registered_codec_reads_and_writes():
    store = azarr.MemoryStore()
    with register_codec(Inverted, aliases=["numcodecs.inverted"]):
        array = await azarr.create_array(store, shape=(10,), dtype="i4", compressors=["test.inverted", Inverted(1)])
        await array.write(np.arange(10))
        opened = await azarr.open_array(store)
        assert opened.metadata.codecs[1:] == (Inverted(), Inverted(1))
        np.testing.assert_array_equal(await opened.read(), np.arange(10))
    with pytest.raises(UnknownExtensionError, match=r"unknown codec 'test\.inverted'"):
        await azarr.open_array(store)


async def test_an_alias_makes_it_one_of_v2():
    store = azarr.MemoryStore()
    with register_codec(Inverted, aliases=["numcodecs.upside-down"]):
        array = await azarr.create_array(store, shape=(10,), dtype="i4", compressors=Inverted(7), zarr_format=2)
        await array.write(np.arange(10))
        assert json.loads(await store.get(".zarray"))["compressor"] == {"id": "upside-down", "mask": 7}
        np.testing.assert_array_equal(await (await azarr.open_array(store)).read(), np.arange(10))


async def test_a_codec_without_such_an_alias_is_not_one_of_v2():
    with register_codec(Inverted), pytest.raises(MetadataError, match=r"Zarr v2 cannot express the codec 'test\.inverted'"):
        await azarr.create_array(azarr.MemoryStore(), shape=4, dtype="i4", compressors=Inverted(), zarr_format=2)


def test_a_codec_of_azarr_is_replaced_only_on_purpose():
    class Louder(Inverted):
        name = "zstd"

    with pytest.raises(RegistrationError, match=r"'zstd' is that of azarr already .*Zstd.*replace=True") as caught:
        register_codec(Louder)
    assert caught.value.name == "zstd"
    with register_codec(Louder, replace=True, aliases=["numcodecs.gzip"]):
        assert parse_codec({"name": "zstd", "configuration": {"mask": 1}}) == Louder(1)
        assert parse_codec({"name": "numcodecs.gzip", "configuration": {"mask": 1}}) == Louder(1)
        assert parse_codec({"name": "numcodecs.zstd", "configuration": {"level": 1}}) == Zstd(1)
    assert parse_codec({"name": "zstd", "configuration": {"level": 1}}) == Zstd(1)


class Nameless(BytesToBytesCodec):
    """Neither a name nor a way to decode."""

    def encode(self, data):
        return data


class Incomplete(Nameless):
    """A name, and no way to decode."""

    name = "test.incomplete"


class Kindless(Codec):
    """A codec of no kind."""

    name = "test.kindless"


@pytest.mark.parametrize(
    ("codec", "why"),
    [
        (Nameless, "Nameless lacks .*decode"),
        (Incomplete, "Incomplete lacks configuration, decode, from_configuration"),
        (Kindless, "needs a subclass of ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec"),
        (Zstd(), "needs a subclass of .* not Zstd"),
        (None, "needs a subclass"),
    ],
)
def test_what_is_no_codec_is_refused(codec, why):
    with pytest.raises(TypeError, match=why):
        register_codec(codec)
