"""What reading an array owes to chunks that nobody vouches for: its elements or a ``CodecError``, and little memory."""

from __future__ import annotations

import ast
import bz2
import json
import lzma
import pickle
import random
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import snappy
import zstandard

import azarr
from azarr.codecs.numcodecs_module import numcodecs_module
from azarr.errors import CodecError

MEBIBYTE = 2**20
COUNT = 100


def codec(name, **configuration):
    return {"name": name, "configuration": configuration}


LITTLE = codec("bytes", endian="little")
GZIP = codec("gzip", level=1)
BLOSC = codec("blosc", cname="lz4", clevel=5, shuffle="noshuffle", typesize=1, blocksize=0)
PLAIN_VLEN = codec("zarrs.vlen", data_codecs=["bytes"], index_codecs=[LITTLE], index_data_type="uint64")
SMALL_VLEN = codec("zarrs.vlen", data_codecs=["bytes", "zstd"], index_codecs=[LITTLE, "zstd"], index_data_type="uint64")
OPTIONAL = {"name": "optional", "configuration": {"name": "string", "configuration": {}}}


def documents_of(data_type, fill_value, *codecs, count=COUNT):
    return {
        "zarr.json": {
            "zarr_format": 3,
            "node_type": "array",
            "shape": [count],
            "data_type": data_type,
            "chunk_grid": codec("regular", chunk_shape=[count]),
            "chunk_key_encoding": codec("v2"),
            "fill_value": fill_value,
            "codecs": list(codecs),
        }
    }


def documents_of_v2(fill_value, *filters, compressor=None, count=COUNT):
    zarray = {"zarr_format": 2, "shape": [count], "chunks": [count], "dtype": "|O", "fill_value": fill_value, "order": "C"}
    return {".zarray": {**zarray, "filters": list(filters), "compressor": compressor}}


def store_of(documents, chunk):
    return azarr.MemoryStore({**{name: json.dumps(each).encode() for name, each in documents.items()}, "0": chunk})


def shard_of(data, count=1):
    """A shard of ``count`` inner chunks, all of which lie at the same place."""
    return data + struct.pack("<QQ", 0, len(data)) * count


# Bombs: how little bytes can become how many zeros


def small(data):
    return zstandard.ZstdCompressor(19).compress(data)


def deflated(wbits, nbytes):
    compressor = zlib.compressobj(9, zlib.DEFLATED, wbits)
    return b"".join(compressor.compress(bytes(MEBIBYTE)) for _ in range(nbytes // MEBIBYTE)) + compressor.flush()


def gzipped(data):
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    return compressor.compress(data) + compressor.flush()


def lz4(nbytes):
    return struct.pack("<I", nbytes) + b"\x1f\0\1\0" + b"\xff" * (nbytes // 255) + b"\0" + b"\x50" + bytes(5)


def blosc(cname, nbytes):
    return numcodecs_module("blosc").compress(bytes(nbytes), cname.encode(), 9, 0)


COMPRESSED: dict[str, tuple[list[object], Callable[[], bytes]]] = {
    "zstd": (["zstd"], lambda: zstandard.ZstdCompressor().compress(bytes(256 * MEBIBYTE))),
    "zstd without size": (["zstd"], lambda: zstandard.ZstdCompressor(write_content_size=False).compress(bytes(64 * MEBIBYTE))),
    "zstd frames": (["zstd"], lambda: small(bytes(16 * MEBIBYTE)) * 64),
    "gzip": ([GZIP], lambda: deflated(31, 256 * MEBIBYTE)),
    "gzip members": ([GZIP], lambda: deflated(31, 16 * MEBIBYTE) * 64),
    "zlib": (["numcodecs.zlib"], lambda: deflated(15, 256 * MEBIBYTE)),
    "bz2": (["numcodecs.bz2"], lambda: bz2.compress(bytes(64 * MEBIBYTE))),
    "bz2 streams": (["numcodecs.bz2"], lambda: bz2.compress(bytes(16 * MEBIBYTE)) * 64),
    "lzma": (["numcodecs.lzma"], lambda: lzma.compress(bytes(64 * MEBIBYTE), preset=0)),
    "lzma with a large dictionary": (["numcodecs.lzma"], lambda: lzma.compress(bytes(64 * MEBIBYTE), preset=9)),
    "lz4": (["numcodecs.lz4"], lambda: lz4(2**30)),
    "snappy": (["snappy"], lambda: snappy.compress(bytes(64 * MEBIBYTE))),
    **{f"blosc {name}": ([BLOSC], lambda name=name: blosc(name, 256 * MEBIBYTE)) for name in ("blosclz", "lz4", "lz4hc", "zlib", "zstd")},
    "zstd in gzip": (["zstd", GZIP], lambda: gzipped(zstandard.ZstdCompressor().compress(bytes(256 * MEBIBYTE)))),
    "gzip in zstd": ([GZIP, "zstd"], lambda: small(deflated(31, 256 * MEBIBYTE))),
    "gzip in gzip in gzip": ([GZIP] * 3, lambda: gzipped(gzipped(deflated(31, 256 * MEBIBYTE)))),
    "conditional": ([codec("conditional", codecs=["zstd", GZIP])], lambda: b"\3" + gzipped(small(bytes(256 * MEBIBYTE)))),
}

KINDS = {
    "numbers": lambda codecs: documents_of("float32", 0, LITTLE, *codecs, count=2**18),
    "strings": lambda codecs: documents_of("string", "", "vlen-utf8", *codecs),
    "bytes": lambda codecs: documents_of("bytes", "", "vlen-bytes", *codecs),
    "strings of zarrs": lambda codecs: documents_of("string", "", PLAIN_VLEN, *codecs),
    "missing strings": lambda codecs: documents_of(
        OPTIONAL, None, codec("optional", mask_codecs=["packbits"], data_codecs=["vlen-utf8"]), *codecs
    ),
    "a shard of numbers": lambda codecs: documents_of(
        "float32", 0, codec("sharding_indexed", chunk_shape=[2**18], codecs=[LITTLE, *codecs], index_codecs=[LITTLE]), count=2**18
    ),
    "a shard of strings": lambda codecs: documents_of(
        "string", "", codec("sharding_indexed", chunk_shape=[COUNT], codecs=["vlen-utf8", *codecs], index_codecs=[LITTLE])
    ),
}

BULK = bytes(256 * MEBIBYTE)


def lengths(*contents):
    return struct.pack("<I", len(contents)) + b"".join(struct.pack("<I", len(content)) + content for content in contents)


LIES: dict[str, tuple[dict[str, object], Callable[[], bytes]]] = {
    "count": (documents_of("string", "", "vlen-utf8"), lambda: struct.pack("<I", 2**32 - 1) + bytes(1000)),
    "length": (documents_of("bytes", "", "vlen-bytes", count=2), lambda: struct.pack("<III", 2, 2**32 - 1, 2**32 - 1)),
    "offsets": (
        documents_of("string", "", codec("zarrs.vlen", **{**SMALL_VLEN["configuration"], "index_codecs": [LITTLE]}), count=2),
        lambda: struct.pack("<QQQQ", 24, 0, 1, 2**32 - 1) + small(BULK),
    ),
    "size of an index": (documents_of("string", "", PLAIN_VLEN), lambda: struct.pack("<Q", 2**63) + bytes(100)),
    "an index that is a bomb": (documents_of("string", "", SMALL_VLEN), lambda: struct.pack("<Q", len(small(BULK))) + small(BULK)),
    "sizes of optional elements": (KINDS["missing strings"]([]), lambda: struct.pack("<QQ", 2**63, 2**63) + bytes(100)),
    "a mask that is a bomb": (
        documents_of(OPTIONAL, None, codec("optional", mask_codecs=["packbits", "zstd"], data_codecs=["vlen-utf8"])),
        lambda: struct.pack("<QQ", len(small(BULK)), 0) + small(BULK),
    ),
    "optional elements that are a bomb": (
        documents_of(OPTIONAL, None, codec("optional", mask_codecs=["packbits"], data_codecs=["vlen-utf8", "zstd"]), count=8),
        lambda: struct.pack("<QQ", 1, len(small(BULK))) + b"\xff" + small(BULK),
    ),
    "arrays": (documents_of_v2(0, {"id": "vlen-array", "dtype": "<f4"}, count=2), lambda: lengths(b"abc", b"12345")),
    "JSON": (
        documents_of_v2(None, {"id": "json2"}, compressor={"id": "zstd", "level": 1}, count=2),
        lambda: small(b"[" + b"[]," * 10_000_000 + b'1,"|O",[2]]'),
    ),
    "deep JSON": (documents_of_v2(None, {"id": "json2"}, count=2), lambda: b"[" * 100_000 + b"]" * 100_000),
    "labels": (
        documents_of_v2("a", {"id": "categorize", "labels": ["a"], "dtype": "|O", "astype": "|i1"}, count=4),
        lambda: bytes([0, 1, 2, 255]),
    ),
    "shape of a block": (
        documents_of("int32", 0, codec("n5_default", codecs=[codec("transpose", order=[0]), codec("bytes", endian="big"), "zstd"])),
        lambda: struct.pack(">HHI", 0, 1, 2**32 - 1) + small(BULK),
    ),
    "an address": (
        documents_of("float32", 0, codec("sharding_indexed", chunk_shape=[50], codecs=[LITTLE, "zstd"], index_codecs=[LITTLE])),
        lambda: bytes(10) + struct.pack("<QQQQ", 0, 2**62, 5, 2**63),
    ),
    "addresses of one place": (
        documents_of("string", "", codec("sharding_indexed", chunk_shape=[1], codecs=["vlen-utf8", "zstd"], index_codecs=[LITTLE])),
        lambda: shard_of(small(lengths(b"x" * 1_000_000)), COUNT),
    ),
}


MEASURE = """
import asyncio, pickle, re, sys
from pathlib import Path
import azarr

def memory(kind):
    return int(re.search(kind + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024

async def cost(store):
    array = await azarr.open_array(store)
    bomb = await store.get("0")
    await store.set("0", b"")
    try:
        await array.read()  # imports what it needs, and starts workers
    except azarr.CodecError:
        pass
    await store.set("0", bomb)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = memory("VmRSS")
    outcome = "read"
    try:
        await array.read()
    except azarr.CodecError:
        outcome = "refused"
    return outcome, memory("VmHWM") - start

async def main():
    print({name: await cost(store) for name, store in pickle.loads(Path(sys.argv[1]).read_bytes()).items()})

asyncio.run(main())
"""


def costs(stores, path):
    """What reading each of ``stores`` costs of memory, measured in a process of its own."""
    path.write_bytes(pickle.dumps(stores))
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", MEASURE, str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return ast.literal_eval(done.stdout)


measured = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="measures memory through /proc")


@measured
@pytest.mark.parametrize("name", COMPRESSED)
def test_a_bomb_costs_an_error_and_little_memory(name, tmp_path):
    codecs, build = COMPRESSED[name]
    bomb = build()
    stores = {
        kind: store_of(documents(codecs), shard_of(bomb) if kind.startswith("a shard") else bomb) for kind, documents in KINDS.items()
    }
    found = costs(stores, tmp_path / "stores")
    assert all(outcome == "refused" and cost < 8 * MEBIBYTE for outcome, cost in found.values()), found


@measured
@pytest.mark.parametrize("name", ["brotli", "deflate", "lz4", "lzma", "lzw", "snappy", "zlib", "zstd"])
def test_bombs_for_compressors_of_imagecodecs_cost_little_memory_where_elements_have_a_size(name, tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs.numcodecs", reason='needs pip install "azarr[imagecodecs]"')
    bomb = getattr(imagecodecs, name.capitalize())().encode(bytes(16 * MEBIBYTE))
    ((outcome, cost),) = costs({name: store_of(KINDS["numbers"]([f"imagecodecs_{name}"]), bomb)}, tmp_path / "stores").values()
    assert outcome == "refused"
    assert cost < 8 * MEBIBYTE


@measured
@pytest.mark.parametrize("name", ["jpegls", "lerc", "png", "tiff"])
def test_images_of_another_size_cost_little_memory(name, tmp_path):
    imagecodecs = pytest.importorskip("imagecodecs", reason='needs pip install "azarr[imagecodecs]"')
    image = getattr(imagecodecs, f"{name}_encode")(np.zeros((4000, 4000), "u2"))
    ((outcome, cost),) = costs({name: store_of(documents_of("uint16", 0, f"imagecodecs_{name}"), image)}, tmp_path / "stores").values()
    assert outcome == "refused"
    assert cost < 8 * MEBIBYTE


@measured
@pytest.mark.parametrize("name", LIES)
def test_a_lie_costs_an_error_and_little_memory(name, tmp_path):
    documents, build = LIES[name]
    ((outcome, cost),) = costs({name: store_of(documents, build())}, tmp_path / "stores").values()
    assert outcome == "refused"
    assert cost < 8 * MEBIBYTE


@measured
def test_flat_blocks_of_zfp_cost_little_memory(tmp_path):
    flat = codec("reshape", shape=[-1, 1, 1, 1])
    documents = documents_of("float32", 0, flat, codec("zfp", mode="reversible"), count=2**18)
    ((_, cost),) = costs({"flat": store_of(documents, b"\xff" * 100)}, tmp_path / "stores").values()  # zfp makes numbers of anything
    assert cost < 8 * MEBIBYTE


# Damage


VALUES = {
    "strings": (KINDS["strings"](["zstd"]), ["", "abc", "é" * 30]),
    "bytes": (KINDS["bytes"]([GZIP]), [b"", b"abc", b"\0" * 30]),
    "strings of zarrs": (documents_of("string", "", SMALL_VLEN), ["", "abc", "é" * 30]),
    "missing strings": (KINDS["missing strings"]([]), ["", None, "abc"]),
    "JSON": (documents_of_v2(None, {"id": "json2"}), [1, "a", None, [1, {"a": 2}]]),
    "labels": (documents_of_v2("", {"id": "categorize", "labels": ["a", "b"], "dtype": "|O", "astype": "|i1"}), ["a", "b", ""]),
    "zfp": (documents_of("float32", 0, codec("numcodecs.zfpy", mode=2, rate=8)), [1.5, 2, 1000]),
    "pcodec": (documents_of("int64", 0, "numcodecs.pcodec"), [1, 2, 2**40]),
    "n5": (documents_of("int32", 0, codec("n5_default", codecs=[codec("transpose", order=[0]), codec("bytes", endian="big")])), [1, 2]),
    "packed bits": (documents_of("bool", False, codec("packbits", padding_encoding="first_byte")), [True, False, True]),
    "shards": (
        documents_of("float32", 0, codec("sharding_indexed", chunk_shape=[25], codecs=[LITTLE, "zstd"], index_codecs=[LITTLE, "crc32c"])),
        [1, 0, 3],
    ),
    "shards of strings": (
        documents_of("string", "", codec("sharding_indexed", chunk_shape=[25], codecs=["vlen-utf8"], index_codecs=[LITTLE]), "zstd"),
        ["", "abc"],
    ),
}


def damaged(rng, value):
    raw = bytearray(value)
    place = rng.randrange(min(len(raw), rng.choice((8, 40, len(raw)))))
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(raw[:place])
    if kind == 1:
        return rng.randbytes(rng.choice((0, 1, 8, 16, 300)))
    if kind == 2:
        raw[place : place + 8] = rng.choice((b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f", struct.pack("<Q", 2**31)))
    else:
        raw[place] ^= 1 << rng.randrange(8)
    return bytes(raw)


@pytest.mark.parametrize("name", VALUES)
async def test_damage_is_read_or_is_an_error_about_the_chunk(name):
    documents, values = VALUES[name]
    if name in {"zfp", "pcodec"}:
        pytest.importorskip({"zfp": "zfpy", "pcodec": "pcodec"}[name], reason=f'needs pip install "azarr[{name}]"')
    store = store_of(documents, b"")
    array = await azarr.open_array(store)
    await store.erase("0")
    whole = array.metadata.data_type.as_array([values[number % len(values)] for number in range(COUNT)], 1)
    await array.write(whole)
    value, rng = await store.get("0"), random.Random(0)
    places = []
    for _ in range(500):
        await store.set("0", damaged(rng, value))
        try:
            await array.read()
        except CodecError as error:
            places.append(error.coords)
    assert places
    assert None not in places


# What is honest


TEXTS = {
    "empty": lambda number: "x" if number % 5000 == 0 else "",
    "all the same": lambda _: "http://example.org/" + "abcdefghij" * 10,
    "sorted": lambda number: ["alpha", "beta", "gamma"][number // 7000],
    "numbered": lambda number: f"sample_{number:08d}_" + "y" * 180,
    "long": lambda _: "z" * 1000,
}


@pytest.mark.parametrize("compressor", ["zstd", GZIP, "numcodecs.bz2", "numcodecs.lzma", "numcodecs.lz4", "snappy", BLOSC], ids=str)
@pytest.mark.parametrize("name", TEXTS)
async def test_text_that_shrinks_to_next_to_nothing_is_read(compressor, name):
    texts = [TEXTS[name](number) for number in range(20_000)]
    array = await azarr.create_array(azarr.MemoryStore(), shape=len(texts), chunks=len(texts), dtype=str, compressors=compressor)
    await array.write(texts)
    assert (await array.read()).tolist() == texts


async def test_what_reading_would_take_for_a_bomb_is_not_written_unless_the_limit_is_raised():
    text = "z" * 10 * MEBIBYTE
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, shape=1, dtype=str)
    before = dict(store._values)
    with pytest.raises(CodecError, match=r"raise Limits\.expansion or use smaller chunks"):
        await array.write([text])
    assert store._values == before
    async with azarr.Engine(limits=azarr.Limits(expansion=100_000)) as engine:
        patient = await azarr.open_array(store, engine=engine)
        await patient.write([text])
        assert (await patient.read()).tolist() == [text]
    with pytest.raises(CodecError, match=r"as those of a bomb do.*raise Limits\.expansion") as caught:
        await array.read()
    assert caught.value.coords == (0,)
