"""Metadata documents that nobody vouches for: those of the conformance corpus, where it is there, and of this module, changed at random."""

from __future__ import annotations

import functools
import json
import os
from pathlib import Path

import pytest

CORPUS = Path(__file__).parents[2].parent / "shared" / "conformance"
NAMES = ("zarr.json", ".zarray", ".zgroup", ".zattrs", ".zmetadata")
MARKS = ("zarr_format", "node_type", "id", "name", "kind")

MOST_NBYTES = 20_000
"""The size of a document to start from: in larger ones changes seldom hit what matters."""

ARRAY = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [8, 6],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 6]}},
    "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
    "fill_value": "NaN",
    "codecs": [
        {
            "name": "sharding_indexed",
            "configuration": {
                "chunk_shape": [2, 3],
                "codecs": [
                    {"name": "transpose", "configuration": {"order": [1, 0]}},
                    {"name": "bytes", "configuration": {"endian": "little"}},
                    {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4, "blocksize": 0}},
                ],
                "index_codecs": [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}],
                "index_location": "start",
            },
        }
    ],
    "attributes": {"units": "K", "nested": {"list": [1, 2.5, None, True]}},
    "dimension_names": ["x", None],
    "storage_transformers": [{"name": "unknown", "must_understand": False}],
    "extension": {"must_understand": False, "any": [1]},
}
GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {"a": 1}}
ZARRAY = {
    "zarr_format": 2,
    "shape": [8, 6],
    "chunks": [4, 6],
    "dtype": "<f8",
    "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
    "fill_value": 0.5,
    "order": "F",
    "filters": [{"id": "delta", "dtype": "<f8", "astype": "<f8"}, {"id": "shuffle", "elementsize": 4}],
    "dimension_separator": "/",
}


def array_of(data_type, fill_value, *codecs, shape=(4,)):
    grid = {"name": "regular", "configuration": {"chunk_shape": [2] * len(shape)}}
    own = {"shape": list(shape), "data_type": data_type, "fill_value": fill_value, "chunk_grid": grid, "codecs": list(codecs)}
    return {key: value for key, value in {**ARRAY, **own}.items() if key != "dimension_names"}


def codec(name, **configuration):
    return {"name": name, "configuration": configuration}


def objects_of(fill_value, *filters, dtype="|O"):
    return {**ZARRAY, "dtype": dtype, "fill_value": fill_value, "order": "C", "filters": list(filters)}


BYTES = codec("bytes", endian="little")
FIELDS = [{"name": "a", "data_type": "int16"}, {"name": "b", "data_type": {"name": "raw_bytes", "configuration": {"length_bytes": 3}}}]
OWN = [
    {"zarr.json": ARRAY},
    {"zarr.json": GROUP},
    {"zarr.json": {**GROUP, "consolidated_metadata": {"kind": "inline", "must_understand": False, "metadata": {"g": GROUP, "g/a": ARRAY}}}},
    *(
        {"zarr.json": document}
        for document in (
            array_of("string", "", {"name": "vlen-utf8"}, codec("zstd", level=3, checksum=True)),
            array_of("bytes", "AA==", {"name": "vlen-bytes"}, codec("gzip", level=5)),
            array_of({"name": "struct", "configuration": {"fields": FIELDS}}, {"a": 1, "b": "AAAA"}, BYTES),
            array_of({"name": "numpy.datetime64", "configuration": {"unit": "s", "scale_factor": 10}}, "NaT", BYTES),
            array_of({"name": "fixed_length_utf32", "configuration": {"length_bytes": 8}}, "ab", BYTES),
            array_of("complex64", [0.0, "NaN"], BYTES, codec("numcodecs.lz4", acceleration=1), shape=(4, 4, 4)),
            array_of("int8", 1, codec("packbits", padding_encoding="first_byte", first_bit=1, last_bit=5), codec("numcodecs.bz2", level=1)),
            array_of("float32", 0, codec("zfp", mode="fixed_rate", rate=8.5)),
            array_of("float32", 0, codec("reshape", shape=[[0, 1], -1]), codec("numcodecs.pcodec", level=8), shape=(4, 4)),
            array_of("int32", 0, codec("n5_default", codecs=[codec("transpose", order=[0]), codec("bytes", endian="big")])),
            array_of("int64", 7, codec("cast_value", data_type="int8", rounding="towards-zero", out_of_range="clamp"), codec("bytes")),
            array_of(
                "float64", 7, codec("scale_offset", offset=5, scale=0.1), BYTES, codec("conditional", codecs=[codec("gzip", level=1)])
            ),
            array_of("string", "", codec("zarrs.vlen", data_codecs=[codec("bytes")], index_codecs=[BYTES], index_data_type="uint32")),
            array_of(
                {"name": "optional", "configuration": {"name": "int32", "configuration": {}}},
                [5],
                codec("optional", mask_codecs=[codec("packbits")], data_codecs=[BYTES]),
            ),
            array_of(
                "int32",
                0,
                codec("numcodecs.fixedscaleoffset", offset=1, scale=10, dtype="<i4", astype="<i2"),
                BYTES,
                codec("numcodecs.lzma", format=3, check=-1, preset=None, filters=[{"id": 33, "preset": 1}]),
                codec("numcodecs.fletcher32"),
            ),
        )
    ),
    {
        "zarr.json": {
            **array_of("float32", "NaN", BYTES, shape=(10, 6)),
            "chunk_grid": {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": [[3, [2, 3], 1], 4]}},
        }
    },
    {".zarray": ZARRAY, ".zattrs": {"_ARRAY_DIMENSIONS": ["y", "x"]}},
    {".zgroup": {"zarr_format": 2}, ".zattrs": {"a": {"b": [1]}}},
    {".zarray": objects_of(0, {"id": "vlen-array", "dtype": "<f4"})},
    {".zarray": objects_of("", {"id": "vlen-utf8"})},
    {".zarray": objects_of("", {"id": "vlen-bytes"})},
    {".zarray": objects_of("x", {"id": "json2", "encoding": "utf-8", "indent": None, "separators": [",", ":"], "strict": True})},
    {".zarray": objects_of("a", {"id": "categorize", "labels": ["a", "b"], "dtype": "|O", "astype": "|u1"})},
    {".zarray": objects_of("AAAAAAAAAAAAAAAA", dtype=[["a", "<i2"], ["b", ">f4", [2]], ["c", [["d", "|S2"]]]])},
    {
        ".zarray": objects_of(
            0, {"id": "astype", "encode_dtype": "<f4", "decode_dtype": "<f8"}, {"id": "quantize", "digits": 3, "dtype": "<f4"}, dtype="<f8"
        )
    },
    {
        ".zmetadata": {
            "zarr_consolidated_format": 1,
            "metadata": {".zgroup": {"zarr_format": 2}, ".zattrs": {"a": 1}, "a/.zarray": ZARRAY, "a/.zattrs": {}},
        },
        ".zgroup": {"zarr_format": 2},
    },
]


class Raw(str):
    """JSON, or what is none, as it is to stand in a document."""

    __slots__ = ()


class Object(list):
    """An object of JSON as pairs, so that a key may stand there twice."""

    __slots__ = ()


@functools.cache
def seeds():
    """The documents of nodes to start from, by their names; those of the corpus once each."""
    found = {json.dumps(each): each for each in OWN}
    for folder, _, names in sorted(os.walk(CORPUS)):
        node = {name: Path(folder, name).read_bytes() for name in NAMES if name in names}
        try:
            parsed = {name: json.loads(text) for name, text in node.items() if len(text) <= MOST_NBYTES}
        except ValueError:
            continue
        if parsed.keys() - {".zattrs"}:
            found[json.dumps(parsed)] = parsed
    return [{name: as_pairs(document) for name, document in each.items()} for each in found.values()]


def as_pairs(document):
    if isinstance(document, dict):
        return Object((key, as_pairs(value)) for key, value in document.items())
    return [as_pairs(value) for value in document] if isinstance(document, list) else document


@functools.cache
def vocabulary():
    """What stands at each key anywhere, and what stands in lists, to be put somewhere else."""
    by_key = {}
    waiting = [document for each in seeds() for document in each.values()]
    while waiting:
        tree = waiting.pop()
        pairs = tree if isinstance(tree, Object) else [("", value) for value in tree] if isinstance(tree, list) else []
        for key, value in pairs:
            by_key.setdefault(key, {})[text_of(value)] = value
            waiting.append(value)
    return {key: list(values.values())[:300] for key, values in by_key.items()}


NUMBERS = (0, 1, -1, 2, 3, 7, 8, 64, 65, 255, 256, 2**16, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30)
FLOATS = (0.0, -0.0, 0.5, 1.0, -1.5, 1e-300, 1e300, 5e-324, 4.0)
LITERALS = (
    "NaN",
    "Infinity",
    "-Infinity",
    "1e400",
    "-1e400",
    "-0",
    "1E2",
    "1" * 400,
    "9" * 5000,
    "0." + "3" * 3000,
    '"\\ud800"',
    '"\\udc00x"',
)
STRINGS = (
    "",
    " ",
    "/",
    "a/b",
    "..",
    "\0",
    "ä",
    "😀",
    "\ufeff",
    "null",
    "NaN",
    "Infinity",
    "0x",
    "0x7fc00000",
    "AAAA",
    "AA==",
    "=",
    "x" * 1000,
)
WORDS = (
    "|V2147483647",
    "<U500000000",
    "|S1000000000",
    "r16000000000",
    "|O",
    "<f8",
    ">f8",
    "|V3",
    "<U4",
    "|S0",
    "<M8[ns]",
    "<m8[0s]",
    "V99999999999",
    "r16",
    "r7",
    "int2",
    "bfloat16",
    "object",
    "<i3",
)
DEEP = ("[" * 200 + "]" * 200, "[" * 50_000 + "]" * 50_000, '{"a":' * 3000 + "1" + "}" * 3000, "[[" * 900 + "1" + "]]" * 900)


def junk(rng):
    """A value of any type that nobody expects."""
    kind = rng.randrange(9)
    if kind == 0:
        return rng.choice((None, True, False))
    if kind == 1:
        return rng.choice(NUMBERS)
    if kind == 2:
        return rng.choice(FLOATS)
    if kind == 3:
        return Raw(rng.choice(LITERALS))
    if kind == 4:
        return rng.choice(STRINGS + WORDS)
    if kind == 5:
        return rng.choice(([], Object(), [[]], [None], Object([("name", "bytes")]), Object([("must_understand", False)])))
    if kind == 6:
        return [junk(rng) for _ in range(rng.randrange(4))]
    if kind == 7:
        return Object((rng.choice(STRINGS + tuple(vocabulary())), junk(rng)) for _ in range(rng.randrange(3)))
    return (
        Raw(rng.choice(DEEP))
        if rng.randrange(4) == 0
        else Raw(json.dumps("y" * rng.choice((10, 100_000))))
        if rng.randrange(2)
        else -rng.choice(NUMBERS)
    )


def mutated(rng, tree, odds=10):
    """``tree`` with one change somewhere inside it, one in ``odds`` at its top, as a new tree where it changed."""
    if not isinstance(tree, list) or not tree or not rng.randrange(odds):
        return changed_here(rng, tree)
    pairs = tree if isinstance(tree, Object) else [("", value) for value in tree]
    inner = [
        place for place, (_, value) in enumerate(pairs) if isinstance(value, list) and any(isinstance(each, list | tuple) for each in value)
    ]
    # most of a document is in what it has inside, and nothing else counts where the members that say what it is are wrong
    places = (
        inner if inner and rng.randrange(3) else [place for place, (key, _) in enumerate(pairs) if key not in MARKS or not rng.randrange(8)]
    )
    place = rng.choice(places or [0])
    key, value = pairs[place]
    known = vocabulary().get(key, ())
    fresh = rng.choice(known) if known and key and not rng.randrange(3) else mutated(rng, value, 4)
    changed = type(tree)(tree)
    changed[place] = (key, fresh) if isinstance(tree, Object) else fresh
    return changed


def changed_here(rng, tree):
    kind = rng.randrange(10)
    if isinstance(tree, Object) and kind < 7:
        changed = Object(tree)
        place = rng.randrange(len(tree)) if tree else 0
        if kind == 0 and tree:
            del changed[place]
        elif kind == 1 and tree:
            changed.insert(rng.randrange(len(tree) + 1), (tree[place][0], junk(rng)))  # the key is there twice
        elif kind == 2 and tree:
            changed[place] = (rng.choice(STRINGS + tuple(vocabulary())), tree[place][1])
        elif kind in {3, 4}:
            key = rng.choice(list(vocabulary()))
            changed.append((key, rng.choice(vocabulary()[key])))
        elif tree:
            changed[place] = (tree[place][0], junk(rng))
        return changed
    if isinstance(tree, list) and kind < 7:
        changed = list(tree)
        place = rng.randrange(len(tree)) if tree else 0
        if kind == 0 and tree:
            del changed[place]
        elif kind == 1 and tree:
            changed[place:place] = [tree[place]] * rng.choice((1, 2, 70))
        elif kind == 2:
            rng.shuffle(changed)
        elif kind == 3:
            changed.insert(place, rng.choice(vocabulary()[""]))
        else:
            changed[place : place + 1] = [junk(rng)]
        return changed
    if isinstance(tree, int) and not isinstance(tree, bool) and kind < 8:
        return rng.choice((tree + 1, tree - 1, -tree, float(tree) if abs(tree) < 2**60 else 0.5, str(tree), tree * 2**31, bool(tree)))
    if isinstance(tree, str) and not isinstance(tree, Raw) and kind < 6:
        return rng.choice((tree[:-1], tree + "x", tree.upper(), tree * 2, [tree], Object([("name", tree)]), tree.encode().hex()))
    if kind == 9:
        return [tree] if rng.randrange(2) else Object([("name", tree)])
    return junk(rng)


def text_of(tree):
    """The JSON of a tree."""
    if isinstance(tree, Raw):
        return tree
    if isinstance(tree, Object):
        return "{" + ",".join(f"{json.dumps(key)}:{text_of(value)}" for key, value in tree) + "}"
    return "[" + ",".join(map(text_of, tree)) + "]" if isinstance(tree, list) else json.dumps(tree, ensure_ascii=False)


def damaged(rng, text):
    """The bytes of a document, in one case of eight with bits or bytes changed."""
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    kind = rng.randrange(32)
    place = rng.randrange(max(1, len(raw)))
    if kind == 0:
        del raw[place:]
    elif kind == 1 and raw:
        raw[place] ^= 1 << rng.randrange(8)
    elif kind == 2:
        del raw[place : place + rng.choice((1, 2, 10))]
    elif kind == 3:
        raw[place:place] = rng.choice((b"\0", b"\xff", b"\xef\xbb\xbf", b",", b"}", b'"', b"\\", b"\xed\xa0\x80", raw[place : place + 20]))
    return bytes(raw)


def _hostile_documents(rng):
    """The documents of one node, most of them changed in a few places."""
    node = dict(rng.choice(seeds()))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 6))):
        name = rng.choice(sorted(node))
        node[name] = mutated(rng, node[name])
    return {name: damaged(rng, text_of(document)) for name, document in node.items()}


@pytest.fixture(scope="session")
def hostile_documents():
    """A function from a ``random.Random`` to the documents of one node by their names, most of them changed in a few places."""
    return _hostile_documents
