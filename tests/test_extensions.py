"""What azarr says it supports: all of it, where it comes from, and what is missing to use it."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

import azarr
from azarr.chunk_keys import CHUNK_KEY_ENCODINGS
from azarr.codecs.registry import CODECS
from azarr.data_types import parse_data_type
from azarr.data_types.registry import DATA_TYPES
from azarr.extras import Extra
from azarr.metadata.v2_codecs import name_in_v3
from azarr.metadata.v2_data_types import serialize_dtype
from azarr.stores.urls import STORES


def by_name(kind):
    return {each.name: each for each in azarr.supported(kind)}


def test_everything_there_is_is_listed_once():
    listed = [(each.kind, name) for each in azarr.supported() for name in (each.name, *each.aliases)]
    assert len(listed) == len(set(listed))
    for kind, registry in [("data type", DATA_TYPES), ("codec", CODECS), ("chunk key encoding", CHUNK_KEY_ENCODINGS), ("URL", STORES)]:
        names = {name for each in azarr.supported(kind) for name in (each.name, *each.aliases) if each.loaded}
        assert names - {"r<N>"} == set(registry.names)
    assert by_name("chunk grid").keys() == {"regular", "rectilinear"}


def test_kinds_of_codec_can_be_asked_for():
    assert by_name("bytes-to-bytes")["zstd"].aliases == ("numcodecs.zstd",)
    assert "zstd" not in by_name("array-to-bytes")
    assert by_name("no such kind") == {}


@pytest.mark.parametrize("each", [each for each in azarr.supported("codec") if each.in_v2 and each.name not in {"bytes", "transpose"}])
def test_ids_of_v2_lead_to_the_codec(each):
    assert CODECS.get(name_in_v3(each.in_v2)) in {CODECS.get(each.name), CODECS.get("numcodecs.crc32c")}


@pytest.mark.parametrize("name", ["bool", "uint16", "complex128", "bfloat16", "int4", "r24"])
def test_forms_of_v2_are_those_that_are_written(name):
    dtype = parse_data_type(name, "/").dtype
    form = by_name("data type")["r<N>" if name == "r24" else name].in_v2
    assert serialize_dtype(dtype).lstrip("<>|") == form.replace("<n>", "3")


def test_what_has_to_be_installed_is_said(monkeypatch):
    assert {each.extra for each in azarr.supported() if each.kind != "URL scheme"} == {None, "imagecodecs", "ml", "pcodec", "zfp"}
    before = by_name("codec")["numcodecs.pcodec"]
    assert before.ready
    monkeypatch.setitem(sys.modules, "pcodec", None)
    assert by_name("codec")["numcodecs.pcodec"] == dataclasses.replace(before, ready=False)
    assert 'azarr, needs pip install "azarr[pcodec]"' in str(azarr.supported())


def test_what_a_program_registers_is_listed_with_the_program():
    with azarr.register_store("shelf", lambda _: azarr.MemoryStore(), aliases=["rack"]):
        shelf = by_name("URL scheme")["shelf"]
        assert (shelf.source, shelf.aliases) == (__name__, ("rack",))
    assert "shelf" not in by_name("URL scheme")


def test_what_is_replaced_is_listed_in_its_place():
    class Louder(azarr.codecs.Zstd):
        """Another codec of the same name."""

    with azarr.register_codec(Louder, replace=True):
        assert by_name("codec")["zstd"].source == __name__
        assert by_name("codec")["numcodecs.zstd"].source == "azarr"
        assert by_name("codec")["zstd"].in_v2 == "zstd"
    assert by_name("codec")["zstd"].source == "azarr"


def test_a_table_has_a_line_for_each():
    lines = str(azarr.supported("codec")).splitlines()
    assert lines[0].split() == ["kind", "name", "also", "read", "as", "Zarr", "v2", "from"]
    assert len(lines) == len(azarr.supported("codec")) + 1
    assert len({line.find("azarr") for line in lines[1:] if line.endswith(" azarr")}) == 1


def test_listing_imports_nothing_that_is_heavy():
    heavy = "{'numcodecs', 'ml_dtypes', 'pcodec', 'zfpy', 'imagecodecs', 'blosc2', 'zarr'}"
    code = f"import sys, azarr; str(azarr.supported()); assert not {heavy} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_numpy_has_the_elements_of_simple_types():
    for each in azarr.supported("data type"):
        if each.extra is None and each.in_v2 and "<" not in each.in_v2 and each.name not in {"string", "bytes", "struct"}:
            assert parse_data_type(each.name, "/").dtype == np.dtype(each.in_v2)


def test_a_package_in_a_package_that_is_not_there_is_not_installed():
    assert not Extra("azarr_tests_missing.inner", "x").installed
    assert not Extra("azarr_tests_missing", "x").installed
    assert Extra("concurrent.futures", "x").installed
