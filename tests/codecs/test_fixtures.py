"""What numcodecs encoded, release after release, decodes: its own fixtures, as chunks of v2 arrays."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import MetadataError
from azarr.metadata import v2

FIXTURES = Path(__file__).parents[3] / "shared" / "conformance" / "_extra"

REFUSED = {"pickle", "json", "msgpack", "msgpack2"}
"""Pickles run code, ``json`` and ``msgpack`` are so old that nothing else reads them."""


def cases(*, refused):
    file = FIXTURES / "CODEC_FIXTURES.jsonl"
    if not file.exists():
        return [pytest.param({}, marks=pytest.mark.skip(reason=f"the codec fixtures are not at {FIXTURES}"))]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    return [pytest.param(case, id=case["encoded"]) for case in lines if (case["codec_id"] in REFUSED) is refused]


def zarray(case):
    """The ``.zarray`` of an array that is the one chunk of ``case``."""
    dtype = np.dtype(case["array_dtype"])
    bare = {"shape": case["array_shape"], "chunks": case["array_shape"], "order": case["order"], "zarr_format": 2}
    config = case["config"]
    if dtype.hasobject:
        return bare | {"dtype": "|O", "filters": [config], "compressor": None, "fill_value": None}
    return bare | {"dtype": dtype.str, "filters": None, "compressor": config, "fill_value": None}


def decoded(case):
    metadata = v2.parse_array(json.dumps(zarray(case)).encode(), None, case["encoded"])
    return CodecPipeline(metadata.codecs, metadata.chunk_spec).decode((FIXTURES / "numcodecs-fixture" / case["encoded"]).read_bytes())


def flat(value):
    """An element as it stands in JSON."""
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    if isinstance(value, float) and not np.isfinite(value):
        return repr(value)
    return [flat(item) for item in value.tolist()] if isinstance(value, np.ndarray) else value


@pytest.mark.parametrize("case", cases(refused=False))
def test_what_numcodecs_wrote_decodes(case):
    if case["codec_id"] in {"zfpy", "pcodec"}:
        pytest.importorskip(case["codec_id"])
    if case["codec_id"] == "json2" and case["array_dtype"] != "object":
        pytest.skip("text of numbers: these codecs are for objects here")
    chunk = decoded(case)
    assert chunk.shape == tuple(case["array_shape"])
    if case["decoded_kind"] == "raw":
        digest = hashlib.sha256(chunk.ravel(order=case["order"]).tobytes()).hexdigest()
    else:
        elements = [flat(item) for item in chunk.ravel(order=case["order"]).tolist()]
        digest = hashlib.sha256(json.dumps(elements, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    assert digest == case["decoded_sha256"]


@pytest.mark.parametrize("case", cases(refused=True))
def test_what_nobody_should_decode_is_refused_by_name(case):
    with pytest.raises(MetadataError, match=case["codec_id"]):
        decoded(case)
