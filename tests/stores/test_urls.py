"""From a path or URL to a store, and how a program adds a scheme."""

from __future__ import annotations

import pytest

import azarr
from azarr.errors import RegistrationError, StoreError
from azarr.stores.urls import open_store, register_store


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
    with pytest.raises(StoreError, match="no store for 'other' URLs, and no plug-in has one; it opens folders, URLs of file, shelf"):
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
