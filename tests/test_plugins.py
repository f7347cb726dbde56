"""Plug-ins: distributions that are installed beside azarr and offer it codecs, data types, chunk key encodings and stores."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata

import numpy as np
import pytest

import azarr
from azarr import plugins
from azarr.chunk_keys import CHUNK_KEY_ENCODINGS
from azarr.codecs.registry import CODECS, parse_codec
from azarr.data_types.registry import DATA_TYPES, parse_data_type
from azarr.errors import PluginError, RegistrationError, StoreError, UnknownExtensionError
from azarr.stores.urls import STORES, open_store

CODE = """
from dataclasses import dataclass
import numpy as np
import azarr
from azarr.chunk_keys import SeparatedKeys
from azarr.codecs import BytesToBytesCodec
from azarr.data_types.numeric import Integer


@dataclass(frozen=True)
class Inverted(BytesToBytesCodec):
    name = "tiny.inverted"

    @classmethod
    def from_configuration(cls, configuration):
        return cls()

    def configuration(self):
        return {}

    def encode(self, data):
        return (np.frombuffer(data, np.uint8) ^ 255).tobytes()

    def decode(self, data, limit):
        return self.encode(data)


def make_id(configuration):
    return Integer("tiny.id", np.dtype("u4"))


class Flat(SeparatedKeys):
    def to_json(self):
        return {"name": "tiny.flat"}


def make_flat(configuration):
    return Flat("v2", ".")


shelf = {}


def open_shelf(url):
    return shelf.setdefault(url, azarr.MemoryStore())
"""

POINTS = """
[azarr.codecs]
tiny.inverted = tiny_plugin:Inverted
numcodecs.tiny.inverted = tiny_plugin:Inverted

[azarr.data_types]
tiny.id = tiny_plugin:make_id

[azarr.chunk_key_encodings]
tiny.flat = tiny_plugin:make_flat

[azarr.stores]
tiny = tiny_plugin:open_shelf
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Installs a distribution of these entry points and modules; all is gone after the test."""
    registries = [CODECS, DATA_TYPES, CHUNK_KEY_ENCODINGS, STORES]
    before, imported = [registry._added for registry in registries], set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def install(name, entry_points, version="1.2", **modules):
        # a distribution appears at once, as it does for whoever looks by the time of the folder
        made = tmp_path.parent / f"{tmp_path.name}-{name}"
        made.mkdir()
        (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
        (made / "entry_points.txt").write_text(entry_points, encoding="utf-8")
        for module, code in modules.items():
            (tmp_path / f"{module}.py").write_text(code, encoding="utf-8")
        made.rename(tmp_path / f"{name}-{version}.dist-info")

    yield install
    for registry, added in zip(registries, before, strict=True):
        with registry._lock:
            registry._set(added)
    for module in set(sys.modules) - imported:
        if getattr(sys.modules[module], "__file__", None) and str(tmp_path) in sys.modules[module].__file__:
            del sys.modules[module]


async def test_what_is_installed_just_works(install):
    install("tiny", POINTS, tiny_plugin=CODE)
    array = await azarr.create_array(
        "tiny://x", "a", shape=(4, 4), chunks=(2, 2), dtype="tiny.id", compressors="tiny.inverted", chunk_key_encoding="tiny.flat"
    )
    await array.write(np.arange(16, dtype="u4").reshape(4, 4))
    opened = await azarr.open_array("tiny://x", "a")
    np.testing.assert_array_equal(await opened.read(), np.arange(16).reshape(4, 4))
    assert opened.metadata.data_type.name == "tiny.id"
    assert sorted([key async for key in opened.store.list_prefix("a/")]) == ["a/0.0", "a/0.1", "a/1.0", "a/1.1", "a/zarr.json"]


async def test_a_plugin_with_a_name_of_numcodecs_is_one_of_v2(install):
    install("tiny", POINTS, tiny_plugin=CODE)
    store = azarr.MemoryStore()
    array = await azarr.create_array(store, shape=4, dtype="i4", compressors="tiny.inverted", zarr_format=2)
    await array.write([1, 2, 3, 4])
    assert b'"id": "tiny.inverted"' in await store.get(".zarray")
    assert list(await azarr.load(store)) == [1, 2, 3, 4]


def test_nothing_is_loaded_before_it_is_asked_for(install):
    install("tiny", POINTS, tiny_plugin=CODE)
    assert parse_codec({"name": "zstd", "configuration": {"level": 1}})
    with pytest.raises(UnknownExtensionError):
        parse_codec("tiny")
    assert [point.name for point in CODECS.waiting if point.dist.name == "tiny"] == ["numcodecs.tiny.inverted", "tiny.inverted"]
    assert "tiny_plugin" not in sys.modules
    assert parse_codec("tiny.inverted").name == "tiny.inverted"
    assert "tiny_plugin" in sys.modules
    assert [point.name for point in CODECS.waiting if point.dist.name == "tiny"] == ["numcodecs.tiny.inverted"]
    assert CODECS.entries[-1].source == "tiny 1.2"


def test_importing_azarr_and_working_without_plugins_reads_no_entry_points(install, monkeypatch):
    def no_look(**_):
        raise AssertionError("looked for entry points")

    monkeypatch.setattr(metadata, "entry_points", no_look)
    monkeypatch.setattr(plugins, "entry_points", no_look)
    plugins._scan.cache_clear()
    for name in CODECS.names:
        assert CODECS.get(name) is not None
    for document in ("int8", "r24"):
        assert parse_data_type(document, "/")
    open_store("/nowhere")
    with azarr.register_store("fine", lambda _: azarr.MemoryStore()):
        open_store("fine://x")


def test_the_entry_points_are_read_once_and_again_where_something_was_installed(install, monkeypatch):
    looks = []
    monkeypatch.setattr(plugins, "entry_points", lambda: looks.append("look") or metadata.entry_points())
    for _ in range(3):
        assert CODECS.get("tiny.inverted") is None
    assert len(looks) == 2  # for azarr's group and zarr-python's
    install("tiny", POINTS, tiny_plugin=CODE)
    assert CODECS.get("tiny.inverted").name == "tiny.inverted"
    assert len(looks) == 3


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import no_such_module", r"cannot be loaded: ModuleNotFoundError: No module named 'no_such_module'; update or uninstall it"),
        ("raise RuntimeError('broken')", r"cannot be loaded: RuntimeError: broken; update or uninstall it"),
        ("", r"cannot be loaded: AttributeError"),
        ("class Inverted: ...", r"is not a codec: 'tiny\.inverted' needs a subclass of ArrayToArrayCodec"),
        ("Inverted = 1", r"is not a codec: 'tiny\.inverted' needs a subclass of ArrayToArrayCodec.* not 1"),
    ],
)
async def test_a_plugin_that_cannot_be_used_is_named_with_its_distribution(install, code, why):
    install("tiny", POINTS, version="0.3", tiny_plugin=code)
    with pytest.raises(PluginError, match=rf"'tiny\.inverted' of tiny 0\.3 \(azarr\.codecs: tiny_plugin:Inverted\) {why}") as caught:
        await azarr.create_array(azarr.MemoryStore(), shape=4, dtype="i4", compressors="tiny.inverted")
    assert (caught.value.name, caught.value.distribution) == ("tiny.inverted", "tiny 0.3")


def test_one_broken_plugin_does_not_stop_another(install):
    install("broken", "[azarr.codecs]\nbroken.a = broken_plugin:A", broken_plugin="raise RuntimeError")
    install("tiny", POINTS, tiny_plugin=CODE)
    with pytest.raises(PluginError):
        parse_codec("broken.a")
    assert parse_codec("tiny.inverted")
    with pytest.raises(UnknownExtensionError):
        parse_codec("other")


def test_other_kinds_are_checked_as_well(install):
    install("tiny", POINTS, tiny_plugin="make_id = make_flat = open_shelf = 1")
    with pytest.raises(PluginError, match=r"'tiny\.id' of tiny 1\.2 .* is not a data type: .* needs a function from a configuration"):
        parse_data_type("tiny.id", "/")
    with pytest.raises(PluginError, match=r"'tiny' of tiny 1\.2 .* is not a URL scheme: .* needs a function from a URL to a store"):
        open_store("tiny://x")


def test_a_name_that_two_distributions_have_is_refused(install):
    install("tiny", POINTS, tiny_plugin=CODE)
    install("other", POINTS, tiny_plugin=CODE)
    with pytest.raises(PluginError, match=r"other 1\.2 and tiny 1\.2 all bring 'tiny\.inverted' \(azarr\.codecs\); uninstall all but one"):
        parse_codec("tiny.inverted")
    with azarr.register_codec(type(parse_codec({"name": "zstd", "configuration": {"level": 1}})), aliases=["tiny.inverted"], replace=True):
        assert parse_codec({"name": "tiny.inverted", "configuration": {"level": 2}}).level == 2


def test_a_plugin_in_use_is_not_replaced_silently(install):
    install("tiny", POINTS, tiny_plugin=CODE)
    codec = type(parse_codec("tiny.inverted"))
    with pytest.raises(RegistrationError, match=r"the codec 'tiny\.inverted' is that of tiny 1\.2 already"):
        azarr.register_codec(codec)
    with azarr.register_codec(codec, replace=True):
        assert parse_codec("tiny.inverted")


def test_a_plugin_that_registers_itself_while_it_is_loaded_may(install):
    install("tiny", POINTS, tiny_plugin=CODE + "\nazarr.register_codec(Inverted)\n")
    assert parse_codec("tiny.inverted")
    assert [entry.source for entry in CODECS.entries if "tiny.inverted" in entry.names] == ["tiny_plugin"]


def test_threads_that_ask_at_once_get_the_same(install):
    install("tiny", POINTS, tiny_plugin=CODE)
    with ThreadPoolExecutor(8) as pool:
        found = set(pool.map(lambda _: CODECS.get("tiny.inverted"), range(64)))
    assert len(found) == 1
    assert len([entry for entry in CODECS.entries if "tiny.inverted" in entry.names]) == 1


def test_a_codec_of_zarr_python_without_zarr_python_says_what_is_missing(install):
    code = "import zarr_that_is_not_there"
    install("theirs", "[zarr.codecs]\ntheirs.codec = theirs_plugin:Codec", theirs_plugin=code)
    with pytest.raises(PluginError, match=r"'theirs\.codec' of theirs 1\.2 \(zarr\.codecs: .*No module named 'zarr_that_is_not_there'"):
        parse_codec("theirs.codec")


def test_a_plugin_for_azarr_goes_before_one_for_zarr_python(install):
    points = POINTS + "\n[zarr.codecs]\ntiny.inverted = no_such_module:Codec\n"
    install("tiny", points, tiny_plugin=CODE)
    assert parse_codec("tiny.inverted")


def test_groups_inside_groups_offer_what_they_are_called_after(install):
    code = "from azarr.codecs import Gzip\n\nclass Codec(Gzip):\n    name = 'nested.codec'"
    install("nested", "[zarr.codecs.nested.codec]\nwhatever = nested_plugin:Codec\n", nested_plugin=code)
    assert type(parse_codec({"name": "nested.codec", "configuration": {"level": 1}})).__name__ == "Codec"
    assert "whatever" not in str(azarr.supported("codec"))


def test_a_scheme_without_a_plugin_is_unknown(install):
    install("tiny", POINTS, tiny_plugin=CODE)
    with pytest.raises(StoreError, match="no store for 'small' URLs, and no plug-in has one"):
        open_store("small://x")


def test_plugins_are_listed_whether_they_are_loaded_or_not(install):
    install("tiny", POINTS, tiny_plugin=CODE)
    waiting = {each.name: each for each in azarr.supported() if each.source == "tiny 1.2"}
    assert waiting.keys() == {"tiny.inverted", "numcodecs.tiny.inverted", "tiny.id", "tiny.flat", "tiny"}
    assert not any(each.loaded for each in waiting.values())
    assert "tiny_plugin" not in sys.modules
    assert "tiny 1.2, not loaded yet" in str(azarr.supported("codec"))
    parse_codec("tiny.inverted")
    found = [each for each in azarr.supported("codec") if each.name == "tiny.inverted"]
    assert [(each.kind, each.loaded, each.in_v2) for each in found] == [("bytes-to-bytes codec", True, "tiny.inverted")]
