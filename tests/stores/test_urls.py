"""From a path or URL to a store, and how a program adds a scheme."""

from __future__ import annotations

import sys
import types

import pytest

import azarr
from azarr import extensions
from azarr.deferred import Deferred
from azarr.errors import RegistrationError, StoreError
from azarr.extras import Extra
from azarr.registry import OWN, Entry, Registry, callable_of
from azarr.stores import urls
from azarr.stores.url_parts import folder_and_name, redacted, split_url, stages_of
from azarr.stores.urls import Location, locate, open_store, register_store
from azarr.testing.values import read


@pytest.fixture
def shelf():
    """Stores in memory by URL, and what opens them."""
    stores = {}

    def opener(url):
        return stores.setdefault(url, azarr.MemoryStore())

    with register_store("shelf", opener, aliases=["shelf+x"]):
        yield stores


async def test_a_registered_scheme_opens_wherever_a_url_does(shelf, tmp_path):
    array = await azarr.create_array("shelf://a", "x", shape=4, dtype="i4")
    await array.write(range(4))
    assert shelf.keys() == {"shelf://a"}
    assert list(await azarr.load("shelf://a", "x")) == [0, 1, 2, 3]
    await azarr.copy(array, "SHELF+X://b")
    assert shelf.keys() == {"shelf://a", "SHELF+X://b"}


async def test_a_scheme_is_forgotten_again(shelf):
    with (
        register_store("other", lambda url: shelf.setdefault(url, azarr.MemoryStore())),
        pytest.raises(azarr.NodeNotFoundError),
    ):
        await azarr.open("other://a")
    with pytest.raises(StoreError, match="no store for 'other' URLs, and no plug-in has one; it opens folders, URLs of file, .*shelf"):
        await azarr.open("other://a")


def test_a_scheme_is_replaced_only_on_purpose(shelf, tmp_path):
    with pytest.raises(RegistrationError, match="URL scheme 'file' is that of azarr already"):
        register_store("file", lambda _: azarr.MemoryStore())
    with register_store("file", lambda _: azarr.MemoryStore(), replace=True):
        assert isinstance(open_store(tmp_path.as_uri()), azarr.MemoryStore)
    assert isinstance(open_store(tmp_path.as_uri()), azarr.LocalStore)


@pytest.mark.parametrize("scheme", ["", "c", "S3", "s 3", "3s", "s3://", "s:3"])
def test_what_is_no_scheme_is_refused(scheme):
    for names in ((scheme,), ("fine", scheme)):
        with pytest.raises(ValueError, match="is not the scheme of a URL"):
            register_store(names[0], lambda _: azarr.MemoryStore(), aliases=names[1:])


def test_what_opens_must_be_a_function_and_answer_a_store():
    with pytest.raises(TypeError, match="needs a function from a URL to a store"):
        register_store("odd", azarr.MemoryStore())
    with register_store("odd", lambda _: 1), pytest.raises(StoreError, match="for 'odd' URLs answered int, which is no store"):
        open_store("odd://a")


# --- options


async def test_options_reach_the_store(tmp_path):
    for location in (tmp_path / "a", str(tmp_path / "a"), (tmp_path / "a").as_uri()):
        assert open_store(location, durability="full").durability == "full"
        array = await azarr.create_array(
            location, shape=1, dtype="i1", storage_options={"durability": "none", "locking": False}, overwrite=True
        )
        assert array.store.durability == "none"
        assert not array.store.locking


async def test_every_function_that_takes_a_location_takes_options(tmp_path):
    options = {"storage_options": {"durability": "none"}}
    array = await azarr.create_array(tmp_path / "g" / "x", shape=2, dtype="i4", **options)
    found = [array, await azarr.create_group(tmp_path / "h", **options), await azarr.open(tmp_path / "g", "x", **options)]
    found += [await azarr.open_array(tmp_path / "g", "x", **options), await azarr.open_group(tmp_path / "h", **options)]
    found += [await azarr.copy(array, tmp_path / "c", **options), await azarr.save(tmp_path / "s", [1, 2], **options)]
    found += [await azarr.convert(tmp_path / "h", zarr_format=2, **options)]
    found += (await azarr.create_hierarchy(tmp_path / "many", {"a": {}}, **options)).values()
    assert {each.store.durability for each in found} == {"none"}
    assert (await azarr.load(tmp_path / "c", **options)).tolist() == [0, 0]


@pytest.mark.parametrize("location", ["folder", "file:///folder"])
def test_unknown_options_are_named(location):
    with pytest.raises(TypeError, match="have no option 'endpoint', 'sync'; they have durability, locking"):
        open_store(location, sync=True, endpoint="x", locking=False)


def test_options_that_nobody_can_have_are_refused(shelf):
    with pytest.raises(TypeError, match="memory:// URLs have no option 'size'; they have none"):
        open_store("memory://x", size=1)
    with pytest.raises(TypeError, match="shelf:// URLs have no option 'size'"):
        open_store("shelf://x", size=1)
    with pytest.raises(TypeError, match="this is a store, give them to MemoryStore"):
        open_store(azarr.MemoryStore(), size=1)


def test_an_opener_takes_the_options_that_it_names():
    def opener(url, *, values=None):
        return azarr.MemoryStore(values)

    def any_opener(url, **options):
        return azarr.MemoryStore(options)

    with register_store("some", opener), register_store("all", any_opener):
        assert open_store("some://a", values={"k": b"1"}).get_blocking("k") == b"1"
        assert open_store("all://a", k=b"2").get_blocking("k") == b"2"
        with pytest.raises(TypeError, match="some:// URLs have no option 'value'; they have values"):
            open_store("some://a", value={})


# --- memory


@pytest.fixture
def memory():
    """A name that is free, and free again after the test."""
    yield "tests"
    azarr.MemoryStore.drop("tests")


async def test_memory_urls_share_their_data(memory):
    array = await azarr.create_array("memory://tests", "g/x", shape=3, dtype="i4")
    await array.write([1, 2, 3])
    assert array.store is azarr.MemoryStore.named("tests")
    assert (await azarr.load("memory://tests", "g/x")).tolist() == [1, 2, 3]
    assert (await azarr.load("memory://tests/g/x")).tolist() == [1, 2, 3]
    assert (await azarr.load("MEMORY://tests/g/", "x")).tolist() == [1, 2, 3]


@pytest.mark.parametrize("url", ["memory://", "memory:///a", "memory://a@b", "memory://user:secret@b", "memory://a?b", "memory://a/b#c"])
def test_what_is_no_name_in_memory_is_refused(url):
    before = azarr.MemoryStore.names()
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert "secret" not in str(caught.value)
    assert azarr.MemoryStore.names() == before


# --- pipelines


@pytest.fixture
def zipped(monkeypatch):
    """What would open archives: it answers stores in memory, and notes what it was asked for."""
    asked = []

    def open_inside(store, key, *, strict=False):
        asked.append((store, key, strict))
        return azarr.MemoryStore({"asked/zarr.json": b"{}"})

    monkeypatch.setitem(sys.modules, "azarr_tests_zip", types.SimpleNamespace(open_inside=open_inside))
    monkeypatch.setattr(urls, "ADAPTERS", {"zip": Deferred("azarr_tests_zip", "open_inside")})
    return asked


def test_stages_of_a_pipeline():
    assert stages_of("s3://b/x.zip|zip:a%20b/c/|zarr3:") == ("s3://b/x.zip", (("zip", "a b/c"), ("zarr3", "")))
    assert stages_of("s3://b/x") == ("s3://b/x", ())
    assert stages_of("a|b") == ("a|b", ())
    assert stages_of("a|B:c") == ("a|B:c", ())


@pytest.mark.parametrize(
    ("location", "folder", "name"),
    [
        ("x.zip", ".", "x.zip"),
        ("a/b/x.zip", "a/b", "x.zip"),
        ("/x.zip", "/", "x.zip"),
        ("file:///a/x%20y.zip", "file:///a", "x y.zip"),
        ("file:///x.zip", "file:///", "x.zip"),
        ("s3://bucket/x.zip", "s3://bucket/", "x.zip"),
        ("https://host:81/a/x.zip?token=1", "https://host:81/a?token=1", "x.zip"),
        ("memory://name/a/b", "memory://name/a", "b"),
    ],
)
def test_where_a_file_is(location, folder, name):
    assert folder_and_name(location) == (folder, name)


def test_what_is_no_file_has_no_place():
    for url in ("s3://bucket", "s3://bucket/a/"):
        with pytest.raises(StoreError, match="not the URL of a file"):
            folder_and_name(url)


async def test_a_format_names_the_node(tmp_path):
    for name in ("zarr2", "zarr3"):
        await azarr.create_array(f"{tmp_path}|{name}:{name}/x", shape=1, dtype="i1")
    assert (tmp_path / "zarr2" / "x" / ".zarray").is_file()
    assert (tmp_path / "zarr3" / "x" / "zarr.json").is_file()
    for location, path in (("|zarr2:zarr2/x", ""), ("|zarr2:zarr2/", "x"), ("|zarr:zarr2/x", ""), ("|zarr:", "zarr2/x")):
        array = await azarr.open_array(f"{tmp_path}{location}", path)
        assert (array.path, array.metadata.zarr_format) == ("zarr2/x", 2)
    assert (await azarr.open_array(f"{tmp_path}|zarr:zarr2/x", zarr_format=2)).shape == (1,)
    for location in ("|zarr3:zarr2/x", "|zarr2:zarr3/x"):
        with pytest.raises(azarr.NodeNotFoundError):
            await azarr.open(f"{tmp_path}{location}")


async def test_a_format_counts_wherever_a_node_is_made(tmp_path):
    array = await azarr.create_array(azarr.MemoryStore(), shape=1, dtype="i1")
    group = await azarr.create_group(azarr.MemoryStore())
    await group.create_array("x", shape=1, dtype="i1")
    made = [await azarr.create_group(f"{tmp_path}/a|zarr2:"), await azarr.copy(array, f"{tmp_path}/b|zarr2:")]
    made += [await azarr.save(f"{tmp_path}/c|zarr2:", [1]), await group.copy("x", (f"{tmp_path}/d|zarr2:", "y"))]
    made += (await azarr.create_hierarchy(f"{tmp_path}/e|zarr2:", {"": {}, "z": {"shape": 1, "dtype": "i1"}})).values()
    assert [each.metadata.zarr_format for each in made] == [2] * 6


async def test_two_formats_are_refused(tmp_path):
    for call in (
        azarr.open(f"{tmp_path}|zarr2:", zarr_format=3),
        azarr.create_array(f"{tmp_path}|zarr3:", shape=1, dtype="i1", zarr_format=2),
    ):
        with pytest.raises(azarr.MetadataError, match="leave one of them out"):
            await call


def test_an_archive_is_opened_from_the_store_that_has_it(zipped, tmp_path):
    inside = [locate(each) for each in (tmp_path / "x.zip", f"{tmp_path}/x.zip", f"{tmp_path}/x.zip|zip:", (tmp_path / "x.zip").as_uri())]
    assert zipped == [(azarr.LocalStore(tmp_path), "x.zip", False)] * 4
    assert {(path, zarr_format) for _, path, zarr_format in inside} == {("", None)}
    assert locate(f"{tmp_path}/data.bin|zip:asked/for|zarr2:node")[1:] == ("asked/for/node", 2)
    assert zipped[-1][1] == "data.bin"
    assert locate(f"{tmp_path}/x.zip|zarr3:node")[1:] == ("node", 3)
    assert locate(f"{tmp_path}/x.zip|zip:inner.zip|zip:")[1:] == ("", None)
    assert (type(zipped[-1][0]), zipped[-1][1]) == (azarr.MemoryStore, "inner.zip")


def test_a_folder_that_is_called_like_an_archive_is_a_folder(zipped, tmp_path):
    (tmp_path / "x.zip").mkdir()
    assert locate(tmp_path / "x.zip") == Location(azarr.LocalStore(tmp_path / "x.zip"))
    assert zipped == []


async def test_what_is_inside_of_an_archive_is_a_store(zipped):
    store = open_store("some/x.zip|zip:asked")
    assert await read(store, "zarr.json") == b"{}"


def test_each_stage_has_its_options(zipped, tmp_path):
    locate(tmp_path / "x.zip", {"durability": "none", "zip": {"strict": True}})
    assert [(store.durability, strict) for store, _, strict in zipped] == [("none", True)]
    with pytest.raises(TypeError, match="zip: have no option 'mode'; they have strict"):
        locate(tmp_path / "x.zip", {"zip": {"mode": "r"}})
    with pytest.raises(TypeError, match="no option 'zip'"):
        locate(tmp_path / "x", {"zip": {}})


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("x|tar:", "azarr does not know 'tar:' behind a '|'; it knows 'zip:', 'zarr:', 'zarr2:', 'zarr3:'"),
        ("x|zarr3:a|zip:b", "nothing can come behind 'zarr3:'"),
        ("zip://x", "an archive is opened by what stands behind its own URL"),
    ],
)
def test_what_no_pipeline_does_is_refused(zipped, url, why):
    with pytest.raises(StoreError) as caught:
        locate(url)
    assert why in str(caught.value)


# --- stores that need an extra


@pytest.fixture
def late(monkeypatch):
    """A scheme whose module is not there, and that it needs an extra."""
    entries = tuple(
        Entry((scheme,), Deferred("azarr_tests_missing", "open_url", extra=extra), OWN)
        for scheme, extra in (("late", Extra("azarr_tests_sdk", "s3")), ("plain", None))
    )
    for module in (urls, extensions):
        monkeypatch.setattr(module, "STORES", Registry("URL scheme", entries, ("azarr.tests.nothing",), callable_of("a function")))


def test_a_store_is_imported_when_it_is_asked_for(late, monkeypatch):
    with pytest.raises(StoreError, match=r"""'late' URLs need an extra: pip install "azarr\[s3\]" \(No module named"""):
        open_store("late://x")
    with pytest.raises(ImportError, match="No module named"):
        open_store("plain://x")
    opened = types.SimpleNamespace(open_url=lambda url, *, region=None: azarr.MemoryStore({"url": url.encode()}))
    monkeypatch.setitem(sys.modules, "azarr_tests_missing", opened)
    assert open_store("late://x", region="r").get_blocking("url") == b"late://x"
    with pytest.raises(TypeError, match="late:// URLs have no option 'zone'; they have region"):
        open_store("late://x", zone=1)


def test_an_extra_that_a_scheme_needs_is_listed(late):
    (found,) = (each for each in azarr.supported("URL scheme") if each.name == "late")
    assert (found.extra, found.ready) == ("s3", False)


# --- secrets


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://user:secret@bucket/a", "s3://user:***@bucket/a"),
        ("redis://:secret@host:6379/0", "redis://:***@host:6379/0"),
        ("mongodb://user:sec/ret@host,other/db?authSource=x", "mongodb://user:***@host,other/db?***"),
        ("mongodb://user:sec@ret@host/db", "mongodb://user:***@host/db"),
        ("https://secret@host/a", "https://***@host/a"),
        ("http://secret@host/a", "http://***@host/a"),
        ("https://host/a?sig=secret&x=1", "https://host/a?***"),
        ("https://host/x.zip?sig=secret|zip:a|zarr3:", "https://host/x.zip?***|zip:a|zarr3:"),
        ("abfss://container@account.dfs.core.windows.net/a", "abfss://container@account.dfs.core.windows.net/a"),
        ("s3://bucket/a@b", "s3://bucket/a@b"),
        ("/folder/a:b@c?d", "/folder/a:b@c?d"),
    ],
)
def test_secrets_do_not_show(url, shown):
    assert redacted(url) == shown


@pytest.mark.parametrize(
    "url", ["ftp://user:secret@host/a?sig=secret", "file://user:secret@host:port/a", "file://[secret/a", "file://user:secret@host/a"]
)
def test_secrets_do_not_show_in_errors(url):
    with pytest.raises(StoreError) as caught:
        open_store(url)
    error = caught.value
    while error is not None:
        assert "secret" not in str(error).replace("[secret", "")
        error = error.__cause__
    with pytest.raises(StoreError):
        split_url(f"s3://user:secret@host:{'x' * 3}/a")
