from __future__ import annotations

import asyncio
import pickle

import pytest

import azarr
from azarr.errors import PreconditionFailedError, StoreError, TransientStoreError
from azarr.stores.base import BlockingStore, as_conditional
from azarr.testing import StoreSuite
from azarr.testing.values import VALUE, collect, read
from azarr.types import ByteRange, Listing, Suffix

obstore = pytest.importorskip("obstore", reason='needs obstore; pip install "azarr[obstore]"')

from obstore import exceptions  # noqa: E402  # not before it is known that there is obstore
from obstore.store import HTTPStore, LocalStore, MemoryStore  # noqa: E402

from azarr.integrations.obstore import ObstoreStore, failure  # noqa: E402


class TestMemory(StoreSuite):
    picklable = False

    def make_store(self):
        return ObstoreStore(MemoryStore())


class TestLocal(StoreSuite):
    keys_nest = False

    @pytest.fixture(autouse=True)
    def _root(self, tmp_path):
        self.root = tmp_path / "root"

    def make_store(self):
        return ObstoreStore(LocalStore(self.root, mkdir=True))

    @pytest.mark.skip("obstore leaves empty folders behind; nothing that could be installed changes that")
    async def test_erase_prefix(self):
        pass

    test_erase_prefix_of_everything = test_erase_prefix


class Standing:
    """A store of obstore in front of another one, whose methods tests replace."""

    def __init__(self, inner=None, **methods):
        self._inner = MemoryStore() if inner is None else inner
        self.__dict__.update(methods)

    def __getattr__(self, name):
        return getattr(self._inner, name)


def raising(error):
    async def fail(*_args, **_options):
        raise error

    return fail


def test_what_it_can_do():
    store = ObstoreStore(MemoryStore())
    assert not isinstance(store, BlockingStore)
    assert as_conditional(store) is not None
    assert as_conditional(ObstoreStore(MemoryStore(), conditional=False)) is None
    assert as_conditional(ObstoreStore(HTTPStore("https://example.org"))) is None
    with pytest.raises(TypeError, match="no store of obstore"):
        ObstoreStore(azarr.MemoryStore())


async def test_size():
    store = ObstoreStore(MemoryStore())
    await store.set("a", VALUE)
    assert await store.size("a") == 256
    assert await store.size("b") is None


async def test_stamps_tell_whether_a_value_is_the_same():
    store = ObstoreStore(MemoryStore())
    await store.set("a", VALUE)
    first = await store.get_stamped("a", ByteRange(3, 5))
    assert first.stamp is not None
    assert first.stamp == (await store.get_stamped("a")).stamp
    await store.set("a", VALUE)
    assert (await store.get_stamped("a")).stamp != first.stamp
    assert await store.get_stamped("missing") == (None, None)


async def test_suffixes_where_the_server_has_none():
    inner = MemoryStore()

    async def get(key, *, options=None):
        if options and "suffix" in options["range"]:
            raise exceptions.NotSupportedError("Azure has no suffixes")
        return await inner.get_async(key, options=options)

    store = ObstoreStore(Standing(inner, get_async=get))
    await store.set("a", VALUE)
    await store.set("empty", b"")
    assert await read(store, "a", Suffix(3)) == VALUE[-3:]
    assert await read(store, "a", Suffix(1000)) == VALUE
    assert await read(store, "empty", Suffix(3)) == b""
    assert await store.get("missing", Suffix(3)) is None


@pytest.mark.parametrize(("error", "kind"), [
    (exceptions.GenericError("Generic S3 error: error sending request: operation timed out"), TransientStoreError),
    (exceptions.GenericError("Generic S3 error: Server returned non-2xx status code: 503 Service Unavailable"), TransientStoreError),
    (exceptions.GenericError("Generic S3 error: Connection reset by peer"), TransientStoreError),
    (exceptions.GenericError("Generic S3 error: the bucket is not there"), StoreError),
    (exceptions.GenericError("Error performing PUT http://h:5500/a - status code: 400\n\nDebug source:\nretry_timeout: 180s"), StoreError),
    (exceptions.PermissionDeniedError("denied"), StoreError),
    (exceptions.PreconditionError("etag"), PreconditionFailedError),
    (exceptions.AlreadyExistsError("there"), PreconditionFailedError),
    (ValueError("a path that obstore does not like"), StoreError),
])  # fmt: skip
async def test_what_errors_mean(error, kind):
    fail = raising(error)
    store = ObstoreStore(Standing(get_async=fail, put_async=fail, delete_async=fail, head_async=fail))
    calls = [
        store.get("k"),
        store.get("k", Suffix(5)),
        store.get("k", ByteRange(5)),
        store.set("k", b""),
        store.erase("k"),
        store.size("k"),
    ]
    for call in calls:
        with pytest.raises(StoreError) as caught:
            await call
        assert type(caught.value) is kind
        assert caught.value.key == "k"
        assert caught.value.__cause__ is error


def test_signatures_do_not_show():
    error = exceptions.GenericError("request to https://host/c/k?sv=1&sig=SECRET) failed: timed out")
    assert "SECRET" not in str(failure("read", "k", error))


async def test_listing_that_fails():
    store = ObstoreStore(Standing(list_with_delimiter_async=raising(exceptions.GenericError("connection closed"))))
    with pytest.raises(TransientStoreError, match="cannot list"):
        await store.list_dir()


async def test_erasing_what_somebody_else_erases():
    inner = MemoryStore()

    async def delete(paths):
        if not isinstance(paths, str):
            raise FileNotFoundError(paths[0])
        await inner.delete_async(paths)

    store = ObstoreStore(Standing(inner, delete_async=delete))
    for key in ("a/b", "a/c", "d"):
        await store.set(key, VALUE)
    await store.erase_prefix("a/")
    assert await collect(store.list_prefix()) == ["d"]
    assert await store.list_dir() == Listing(("d",), ())


async def test_more_keys_than_a_page(monkeypatch):
    monkeypatch.setattr("azarr.integrations.obstore.LISTED_AT_ONCE", 7)
    store = ObstoreStore(MemoryStore())
    keys = sorted(f"a/{i}" for i in range(30))
    await asyncio.gather(*(store.set(key, b"") for key in keys))
    assert await collect(store.list_prefix("a/")) == keys
    await store.erase_prefix("")
    assert await collect(store.list_prefix()) == []


async def test_arrays():
    store = ObstoreStore(MemoryStore())
    array = await azarr.create_array(store, "a", shape=(40, 40), chunks=(8, 8), shards=(16, 16), dtype="i4")
    await array.write(3)
    again = await azarr.open_array(store, "a")
    assert (await again[5:7]).sum() == 240


async def test_pickling(tmp_path):
    store = ObstoreStore(LocalStore(tmp_path), conditional=False)
    await store.set("a", VALUE)
    assert await read(pickle.loads(pickle.dumps(store)), "a") == VALUE
