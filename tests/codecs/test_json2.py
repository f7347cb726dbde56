from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.codecs import Json2
from azarr.codecs.numcodecs_module import numcodecs_module
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def pipeline(*shape):
    return CodecPipeline([Json2()], ChunkSpec(shape, np.dtype(object), None))


@given(st.lists(VALUES, min_size=4, max_size=4))
def test_anything_json_can_express(values):
    flat = np.empty(4, object)
    for number, value in enumerate(values):
        flat[number] = value
    for chunk in (flat, flat.reshape(2, 2), flat[:1].reshape(())):
        decoded = pipeline(*chunk.shape).decode(pipeline(*chunk.shape).encode(chunk))
        assert decoded.shape == chunk.shape
        assert decoded.dtype == object
        assert decoded.tolist() == chunk.tolist()


def test_the_bytes_are_those_of_numcodecs():
    theirs = numcodecs_module("json").JSON()
    for chunk in (np.array(["ü", None, 1.5], object), np.array([["a", "b"]], object), np.array("a", object)):
        assert bytes(theirs.encode(chunk)) == bytes(pipeline(*chunk.shape).encode(chunk))
        assert pipeline(*chunk.shape).decode(theirs.encode(chunk)).tolist() == chunk.tolist()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff", b"{}", b"3", b"[]", b"[1]", b"[1,2]", b'[1,2,"|O"]', b'[1,2,"|O",[3]]', b'[1,"|O",[2]]',
        b'[1,2,3,"|O",[2]]', b'[1,2,"|O",2]',
        b'[[1,2],"|O",[2]]', b'[1,2,"|O",[2.0]] x', b"[" * 100_000, b"[" + b"9" * 5000 + b',1,"|O",[2]]',
    ],
    ids=lambda data: data[:20],
)  # fmt: skip
def test_hostile_bytes(data):
    assert pipeline(2).decode(b'[1,2,"|O",[2]]').tolist() == [1, 2]
    with pytest.raises(CodecError, match="json2"):
        pipeline(2).decode(data)


@pytest.mark.parametrize("data", [b'["|O",[]]', b'[1,2,"|O",[]]'])
def test_hostile_scalars(data):
    assert pipeline().decode(b'[1,"|O",[]]')[()] == 1
    with pytest.raises(CodecError):
        pipeline().decode(data)


def test_what_json_cannot_express():
    for value in ({1, 2}, 1j, object()):
        with pytest.raises(CodecError, match="cannot encode"):
            pipeline(1).encode(np.array([value], object))


@pytest.mark.parametrize(
    "configuration",
    [{"encoding": "latin-1"}, {"encoding": 3}, {"separators": ["", ""]}, {"indent": "x"}, {"strict": 1}, {"sort_keys": None}, {"other": 1}],
)
def test_configurations(configuration):
    assert json.dumps(Json2.from_configuration({}).configuration()) == json.dumps(Json2().configuration())
    with pytest.raises(MetadataError):
        Json2.from_configuration(configuration)


def test_elements_must_be_objects():
    with pytest.raises(MetadataError, match="holds objects"):
        CodecPipeline([Json2()], ChunkSpec((2,), np.dtype("i4"), np.int32(0)))
