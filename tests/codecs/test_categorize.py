from __future__ import annotations

import numpy as np
import pytest

from azarr.codecs import Bytes, Categorize
from azarr.codecs.numcodecs_module import numcodecs_module
from azarr.codecs.pipeline import CodecPipeline
from azarr.data_types.text import STRING_DTYPE
from azarr.errors import CodecError, MetadataError
from azarr.types import ChunkSpec

TEXTS = ["b", "", "ü", "b", "ab"]


@pytest.mark.parametrize("dtype", [STRING_DTYPE, np.dtype(object), np.dtype("U4")], ids=repr)
@pytest.mark.parametrize("astype", ["|u1", "<u2", "<i8"])
def test_labels_come_back_and_are_those_of_numcodecs(dtype, astype):
    codec = Categorize(("ab", "b", "ü"), "|O", astype)
    pipeline = CodecPipeline([codec, Bytes()], ChunkSpec((5,), dtype, ""))
    encoded = pipeline.encode(np.array(TEXTS, dtype))
    theirs = numcodecs_module("categorize").Categorize(["ab", "b", "ü"], object, astype)
    assert np.frombuffer(encoded, astype).tolist() == theirs.encode(np.array(TEXTS, object)).tolist() == [2, 0, 3, 2, 1]
    assert pipeline.decode(encoded).tolist() == TEXTS
    assert pipeline.decode(encoded).dtype == dtype


def test_other_texts_would_be_lost():
    pipeline = CodecPipeline([Categorize(("a",)), Bytes()], ChunkSpec((1,), np.dtype(object), ""))
    with pytest.raises(CodecError, match="'b' is none of the labels"):
        pipeline.encode(np.array(["b"], object))


@pytest.mark.parametrize(("astype", "data"), [("|u1", b"\2"), ("|i1", b"\xff")])
def test_numbers_without_a_label(astype, data):
    pipeline = CodecPipeline([Categorize(("a",), "|O", astype), Bytes()], ChunkSpec((1,), np.dtype(object), ""))
    assert pipeline.decode(b"\1").tolist() == ["a"]
    with pytest.raises(CodecError, match="for 1 labels"):
        pipeline.decode(data)


@pytest.mark.parametrize(
    "wrong",
    [
        {"labels": "ab"}, {"labels": [1]}, {"labels": None}, {"dtype": "<i4"}, {"dtype": 3}, {"astype": "<f4"}, {"astype": None},
        {"other": 1},
        {"labels": [str(number) for number in range(256)]},
    ],
    ids=lambda wrong: str(wrong)[:30],
)  # fmt: skip
def test_wrong_configurations(wrong):
    with pytest.raises(MetadataError):
        Categorize.from_configuration({"labels": ["a"], "dtype": "|O", **wrong})


def test_elements_must_be_text():
    for dtype, fill_value in (("i4", np.int32(0)), (object, b""), ("U1", np.str_(""))):
        with pytest.raises(MetadataError):
            CodecPipeline([Categorize(("ab",)), Bytes()], ChunkSpec((1,), np.dtype(dtype), fill_value))


def test_labels_that_would_fill_more_than_a_chunk_may_take_are_refused():
    spec = ChunkSpec((10,), STRING_DTYPE, "", limit=1000)
    Categorize(("x" * 100,)).bind(spec)
    with pytest.raises(MetadataError, match="labels of which 10 would take more than 1000 bytes"):
        Categorize(("x" * 101,)).bind(spec)
