"""What opening a node owes to metadata documents that nobody vouches for: an array, a group, or a ``MetadataError``, and little memory.

``AZARR_HOSTILE_DOCUMENTS`` says how many nodes are opened: two thousand by default, a hundred thousand and more now and then.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
import tracemalloc
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

import azarr
from azarr import documents
from azarr.errors import MetadataError, NodeNotFoundError
from azarr.metadata.consolidated import parse_node
from azarr.metadata.model import ArrayMetadata

COUNT = int(os.environ.get("AZARR_HOSTILE_DOCUMENTS", "2000"))
EXAMPLE, ROUND = 50, 1000
"""Nodes in one example of hypothesis, which costs as much as opening ten of them, and in one test."""

MEBIBYTE = 2**20
MOST_CHARACTERS = 4000
"""The length of an error: nobody reads more, and logs should not grow with what strangers send."""

PLAIN = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [4],
    "data_type": "int8",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
    "chunk_key_encoding": "default",
    "fill_value": 0,
    "codecs": ["bytes"],
}
PLAIN_V2 = {
    "zarr_format": 2,
    "shape": [4],
    "chunks": [2],
    "dtype": "<i4",
    "compressor": None,
    "fill_value": None,
    "order": "C",
    "filters": None,
}


def codec(name, **configuration):
    return {"name": name, "configuration": configuration}


def check_model(metadata):
    """A node that opens can be written, and is the same when it is read again."""
    again = parse_node({name: json.loads(text) for name, text in documents.serialize(metadata).items()}, "")
    loose = ("attributes", "extensions", *(("storage_transformers",) if isinstance(metadata, ArrayMetadata) else ()))
    assert replace(again, **dict.fromkeys(loose)) == replace(metadata, **dict.fromkeys(loose))
    for name in loose:  # which may hold NaN, that does not equal itself
        assert json.dumps(getattr(again, name)) == json.dumps(getattr(metadata, name))


async def open_hostile(found):
    """Open what the documents ``found`` hold, in the one format and the other; what is raised is a ``MetadataError``."""
    store = azarr.MemoryStore(found)
    for zarr_format in (None, 2):
        try:
            node = await azarr.open(store, zarr_format=zarr_format)
        except NodeNotFoundError:
            assert not found.keys() & {".zarray", ".zgroup"}
            assert zarr_format == 2 or "zarr.json" not in found
        except MetadataError as error:
            length = len(str(error))  # apart, as it should not be shown
            assert length < MOST_CHARACTERS
        else:
            check_model(node.metadata)
            consolidated = node._known if isinstance(node, azarr.AsyncGroup) else None
            for path in consolidated.below() if consolidated else ():
                metadata = None
                with suppress(MetadataError):
                    metadata = consolidated.metadata(path)
                if metadata is not None:
                    check_model(metadata)


class Cost:
    """What was measured of the documents of one run."""

    documents = 0
    slowest = most = 0.0


@pytest.fixture(scope="module")
def opening(request):
    """Opens documents on one loop and measures it: a function of the documents of a node, and of a bound on the memory for it."""
    runner, cost = asyncio.Runner(), Cost()
    tracemalloc.start()

    def run(found, bound=64 * MEBIBYTE):
        tracemalloc.reset_peak()
        before, begun = tracemalloc.get_traced_memory()[0], time.process_time()
        try:
            runner.run(open_hostile(found))
        except BaseException as error:
            error.add_note(f"{found!r:.2000}")
            raise
        seconds, nbytes = time.process_time() - begun, tracemalloc.get_traced_memory()[1] - before
        cost.documents, cost.slowest, cost.most = cost.documents + 1, max(cost.slowest, seconds), max(cost.most, nbytes)
        assert nbytes < bound + 64 * sum(map(len, found.values()))

    with runner:
        yield run
    tracemalloc.stop()
    told = f"{cost.documents} nodes, the slowest {cost.slowest:.3f} s, the largest {cost.most / MEBIBYTE:.1f} MiB"
    if "AZARR_HOSTILE_DOCUMENTS" in os.environ:
        request.config.get_terminal_writer().line(f"\n{told}")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", range(-(-COUNT // ROUND)))
def test_hostile_documents_open_as_what_they_say_or_are_refused(opening, hostile_documents, number):
    @seed(number)
    @settings(max_examples=-(-min(COUNT, ROUND) // EXAMPLE), database=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=True))
    def attempt(rng):
        for _ in range(EXAMPLE):
            opening(hostile_documents(rng))

    attempt()


def nested(wrap, depth, innermost):
    for _ in range(depth):
        innermost = wrap(innermost)
    return innermost


GREEDY = {"id": 33, "dict_size": 512 * MEBIBYTE}
LARGE = {"name": "null_terminated_bytes", "configuration": {"length_bytes": 2**31 - 1}}
BOMBS = {
    "a large dictionary": {**PLAIN, "codecs": ["bytes", codec("numcodecs.lzma", format=3, filters=[GREEDY])]},
    "a large element": {**PLAIN, "data_type": LARGE, "fill_value": ""},
    "a large field": {**PLAIN, "data_type": codec("struct", fields=[{"name": "a", "data_type": LARGE}]), "fill_value": {"a": ""}},
    "a large element that may be missing": {
        **PLAIN,
        "data_type": {"name": "optional", "configuration": LARGE},
        "fill_value": [""],
        "codecs": [codec("optional", mask_codecs=["bytes"], data_codecs=["bytes"])],
    },
    "a large element of v2": {**PLAIN_V2, "dtype": "|V2147483647"},
    "a large array in a field": {**PLAIN_V2, "dtype": [["a", "<i4", [500_000_000]]]},
    "many codecs": {**PLAIN, "codecs": ["bytes", *["snappy"] * 10_000]},
    "many codecs in codecs": {**PLAIN, "codecs": ["bytes", nested(lambda inner: codec("conditional", codecs=[inner] * 10), 4, "snappy")]},
    "many dimensions": {**PLAIN, "codecs": [codec("reshape", shape=[1] * 100_000), "bytes"]},
    "many fields": {**PLAIN_V2, "dtype": [[str(number), "|i1"] for number in range(10_000)]},
    "many filters": {**PLAIN, "codecs": ["bytes", codec("numcodecs.lzma", format=3, filters=[{"id": 3, "dist": 1}] * 10_000)]},
    "many numbers": {**PLAIN, "codecs": [codec("cast_value", data_type="int8", scalar_map={"encode": [[1, 1]] * 10_000}), "bytes"]},
    "many inner chunks": {
        **PLAIN,
        "shape": [2**32],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2**32]}},
        "codecs": [codec("sharding_indexed", chunk_shape=[1], codecs=["bytes"], index_codecs=[codec("bytes", endian="little")])],
    },
    "many fields without a byte order": {
        **PLAIN,
        "data_type": codec("struct", fields=[{"name": str(number), "data_type": "int16"} for number in range(4000)]),
        "fill_value": {str(number): 0 for number in range(4000)},
    },
    "a long name": {**PLAIN, "codecs": ["x" * 100_000]},
    "a long data type": {**PLAIN, "data_type": "x" * 100_000},
    "long members": {**PLAIN, "codecs": [{"name": "bytes", "configuration": {"x" * 100_000: 1}}]},
    "a long value": {**PLAIN, "codecs": [codec("gzip", level=["x" * 100_000])]},
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_small_document_costs_little_memory(opening, name):
    document = BOMBS[name]
    opening({"zarr.json" if document["zarr_format"] == 3 else ".zarray": json.dumps(document).encode()}, 2 * MEBIBYTE)
