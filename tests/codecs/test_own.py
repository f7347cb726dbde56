"""The table of azarr's own codecs says what their classes say of themselves."""

from __future__ import annotations

import subprocess
import sys

import pytest

from azarr.codecs.own import MODULES, OWN_CODECS


@pytest.mark.parametrize(("names", "home"), OWN_CODECS.items(), ids=lambda each: each[0] if isinstance(each, tuple) else "")
def test_names_are_those_of_the_class(names, home):
    codec = home.load()
    assert names[0] == codec.name
    assert codec.__module__ == home.module
    also = [] if codec.name.startswith("numcodecs.") else [f"numcodecs.{codec.name}"]
    own_words = "from_numcodecs" in vars(codec)  # then it is known by numcodecs' name
    assert list(names[1:]) == (also if own_words or codec.name.startswith("imagecodecs_") else [])


def test_names_and_classes_are_listed_once():
    names = [name for each in OWN_CODECS for name in each]
    kinds = [kind for kinds in MODULES.values() for kind in kinds]
    assert len(set(names)) == len(names)
    assert len(set(kinds)) == len(kinds)


def test_a_document_loads_the_codecs_that_it_names():
    code = """
import sys
from azarr.codecs.registry import CODECS, parse_codec
assert not {"azarr.codecs.gzip", "azarr.codecs.blosc"} & sys.modules.keys()
assert parse_codec({"name": "gzip", "configuration": {"level": 1}}).level == 1
assert "azarr.codecs.gzip" in sys.modules and "azarr.codecs.blosc" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_writing_an_array_of_v2_loads_no_other_codecs():
    code = """
import asyncio, sys, azarr
gzip = {"name": "gzip", "configuration": {"level": 1}}
asyncio.run(azarr.create_array(azarr.MemoryStore(), shape=4, dtype="i4", zarr_format=2, compressors=gzip))
assert not {"azarr.codecs.blosc", "azarr.codecs.vlen", "azarr.codecs.imagecodecs", "importlib.metadata"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
