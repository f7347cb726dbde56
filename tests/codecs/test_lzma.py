from __future__ import annotations

import lzma
import tracemalloc

import numcodecs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azarr.codecs.lzma import Lzma
from azarr.errors import CodecError, MetadataError

DATA = bytes(range(256)) * 100
FILTERS = [{"id": 3, "dist": 4}, {"id": 33, "preset": 1}]

CONFIGURATIONS = [
    {},
    {"format": 1, "check": -1, "preset": None, "filters": None},
    {"format": 1, "check": 4, "preset": 1},
    {"format": 2, "preset": 0},
    {"format": 3, "filters": FILTERS},
    {"format": 1, "filters": FILTERS},
]


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=repr)
@settings(deadline=None, max_examples=20)
@given(data=st.binary(max_size=2000))
def test_numcodecs_reads_and_writes_the_same(configuration, data):
    codec = Lzma.from_configuration(configuration)
    theirs = numcodecs.LZMA(**configuration)
    assert codec.decode(theirs.encode(data or b"x"), max(len(data), 1)) == (data or b"x")
    if configuration.get("filters") and configuration["format"] == 1:
        assert lzma.decompress(codec.encode(data)) == data  # numcodecs writes this and cannot read it
    else:
        assert bytes(theirs.decode(codec.encode(data or b"x"))) == (data or b"x")


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=repr)
def test_configuration(configuration):
    codec = Lzma.from_configuration(configuration)
    assert codec.configuration() == {"format": 1, "check": -1, "preset": None, "filters": None} | configuration


def test_several_streams_are_one_value():
    value = Lzma(preset=0).encode(DATA[:1000]) + Lzma(preset=1).encode(DATA[1000:])
    assert Lzma().decode(value, len(DATA)) == DATA


def test_a_stream_that_ends_too_early_is_damaged():
    with pytest.raises(CodecError, match="end too early"):
        Lzma().decode(Lzma(preset=0).encode(DATA)[:-1], len(DATA))
    with pytest.raises(CodecError, match="no bytes"):
        Lzma().decode(b"", 10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"format": 0},
        {"format": 4},
        {"format": "xz"},
        {"check": 16},
        {"preset": -1},
        {"preset": 1.5},
        {"level": 1},
        {"format": 3},
        {"format": 3, "filters": []},
        {"filters": [{"id": 33, "preset": 1}] * 5},
        {"format": 3, "filters": [{"id": 999}]},
        {"filters": "lzma2"},
        {"filters": [33]},
        {"filters": [{"preset": 1}]},
        {"filters": [{"id": 33, "dict_size": 2**31}]},
        {"filters": [{"id": 33, "preset": "1"}]},
        {"filters": [{"id": 33, "memory": 1}]},
    ],
    ids=repr,
)
def test_wrong_configurations_are_refused(wrong):
    with pytest.raises(MetadataError, match="lzma"):
        Lzma.from_configuration(wrong)


def test_a_chain_that_cannot_encode_is_an_error_that_says_so():
    with pytest.raises(CodecError, match="change the configuration"):
        Lzma(1, preset=1, filters=((("id", 33),),)).encode(DATA)


def test_a_configuration_costs_no_memory():
    tracemalloc.start()
    Lzma.from_configuration({"format": 3, "filters": [{"id": 33, "dict_size": 2**29}]})
    Lzma.from_configuration({"format": 3, "filters": [{"id": 33, "preset": 9}]})
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 2**20
