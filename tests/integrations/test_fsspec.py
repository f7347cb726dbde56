from __future__ import annotations

import asyncio
import itertools
import pickle
import threading

import pytest

import azarr
from azarr.errors import StoreError, TransientStoreError
from azarr.stores.base import BlockingStore, as_conditional
from azarr.testing import StoreSuite
from azarr.testing.values import VALUE, collect, read
from azarr.types import ByteRange, Listing, Suffix

fsspec = pytest.importorskip("fsspec", reason='needs fsspec; pip install "azarr[fsspec]"')

from fsspec.asyn import AsyncFileSystem  # noqa: E402  # not before it is known that there is fsspec
from fsspec.implementations.local import LocalFileSystem  # noqa: E402
from fsspec.implementations.memory import MemoryFileSystem  # noqa: E402

from azarr.integrations.fsspec import FsspecStore, open_url  # noqa: E402

numbers = itertools.count()


@pytest.fixture(autouse=True)
def _memory():
    """What is in the memory of fsspec is there for all of a process."""
    MemoryFileSystem.store.clear()
    MemoryFileSystem.pseudo_dirs[:] = [""]


class Objects(AsyncFileSystem):
    """A store of objects as those of clouds are: asynchronous, without folders, and with errors for parts beyond the end."""

    protocol = "objects"
    cachable = False

    def __init__(self, *, asynchronous=False, **options):
        super().__init__(asynchronous=asynchronous, **options)
        self.values = {}
        self.loops = set()

    async def _cat_file(self, path, start=None, end=None, **_):
        self.loops.add(asyncio.get_running_loop())
        value = self._value(path)
        if start is not None and (start >= len(value) or start == end or not value):
            raise OSError(22, "the range is not satisfiable")
        return value[slice(max(start, -len(value)) if start is not None else None, end)]

    async def _pipe_file(self, path, value, mode="overwrite", **_):
        assert type(value) is bytes
        await asyncio.sleep(0)
        self.values[path] = value

    async def _rm_file(self, path, **_):
        del self.values[path]

    async def _rm(self, path, recursive=False, **_):
        assert not recursive
        for each in path:
            del self.values[each]

    async def _info(self, path, **_):
        if path in self.values:
            return {"name": path, "type": "file", "size": len(self.values[path])}
        if any(each.startswith(f"{path}/") for each in self.values):
            return {"name": path, "type": "directory", "size": 0}
        raise FileNotFoundError(path)

    async def _ls(self, path, detail=True, **_):
        found = {}
        for each in self.values:
            if each.startswith(f"{path}/"):
                name, slash, _ = each[len(path) + 1 :].partition("/")
                found[f"{path}/{name}{slash}"] = "directory" if slash else "file"
        if not found:
            raise FileNotFoundError(path)
        return [{"name": name.rstrip("/"), "type": kind, "size": 0} for name, kind in found.items()]

    async def _find(self, path, **_):
        return [each for each in self.values if each == path or each.startswith(f"{path}/")]

    def _value(self, path):
        if path not in self.values:
            raise FileNotFoundError(path)
        return self.values[path]


class TestMemory(StoreSuite):
    keys_nest = False

    def make_store(self):
        return FsspecStore(MemoryFileSystem(), f"/root{next(numbers)}")


class TestLocal(StoreSuite):
    keys_nest = False

    @pytest.fixture(autouse=True)
    def _root(self, tmp_path):
        self.root = tmp_path / "root"

    def make_store(self):
        return FsspecStore(LocalFileSystem(), str(self.root))

    @pytest.mark.skip(
        "fsspec writes local files in place, so that readers may see half of one; nothing that could be installed changes that"
    )
    async def test_readers_see_one_of_the_values_never_a_mixture(self):
        pass


class TestObjects(StoreSuite):
    """An asynchronous file system on the loop of fsspec."""

    picklable = False

    def make_store(self):
        return FsspecStore(Objects(), "bucket/root")


class TestObjectsOnOurLoop(TestObjects):
    def make_store(self):
        return FsspecStore(Objects(asynchronous=True), "bucket")


async def test_where_requests_run():
    store = FsspecStore(Objects(), "bucket")
    await store.set("a", VALUE)
    await read(store, "a")
    assert store.fs.loops == {fsspec.asyn.get_loop()}
    store = FsspecStore(Objects(asynchronous=True), "bucket")
    await store.set("a", VALUE)
    await read(store, "a")
    assert store.fs.loops == {asyncio.get_running_loop()}


async def test_a_write_that_is_cancelled_does_not_overtake_the_next():
    class Slow(Objects):
        def __init__(self, **options):
            super().__init__(**options)
            self.begun, self.gate = threading.Event(), threading.Event()

        async def _pipe_file(self, path, value, mode="overwrite", **options):
            self.begun.set()
            await asyncio.to_thread(self.gate.wait)
            await super()._pipe_file(path, value, mode, **options)

    store = FsspecStore(Slow(), "bucket")
    first = asyncio.ensure_future(store.set("a", b"first"))
    await asyncio.to_thread(store.fs.begun.wait)
    first.cancel()
    await asyncio.sleep(0)
    assert not first.done()
    store.fs.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await read(store, "a") == b"first"
    await store.set("a", b"second")
    assert await read(store, "a") == b"second"


def test_what_it_can_do():
    store = FsspecStore(MemoryFileSystem(), "root")
    assert not isinstance(store, BlockingStore)
    assert as_conditional(store) is None
    with pytest.raises(TypeError, match="no file system of fsspec"):
        FsspecStore(azarr.MemoryStore())


async def test_from_a_url():
    for url in ("memory://some/folder", "fsspec::memory://some/folder"):
        store = open_url(url)
        assert isinstance(store.fs, MemoryFileSystem)
        assert store.root == "/some/folder"
    await store.set("a", VALUE)
    assert await read(open_url("memory://some"), "folder/a") == VALUE


async def test_schemes_can_be_registered(tmp_path):
    with azarr.register_store("simplecache", open_url), azarr.register_store("local-files", lambda url: open_url(f"file{url[11:]}")):
        array = await azarr.create_array(f"local-files://{tmp_path}/x", "a", shape=(10,), dtype="i4", fill_value=3)
        assert (tmp_path / "x" / "a" / "zarr.json").is_file()
        assert (await array.read() == 3).all()


async def test_size():
    store = FsspecStore(MemoryFileSystem(), "root")
    await store.set("a/b", VALUE)
    assert await store.size("a/b") == 256
    assert await store.size("a") is None
    assert await store.size("x") is None


class Failing(Objects):
    def _value(self, path):
        raise self.error

    async def _info(self, path, **_):
        raise self.error

    _pipe_file = _rm_file = _find = _ls = _info


@pytest.mark.parametrize(("error", "kind"), [
    (ConnectionResetError("gone"), TransientStoreError),
    (TimeoutError("late"), TransientStoreError),
    (OSError(16, "busy"), TransientStoreError),
    (PermissionError(13, "denied"), StoreError),
    (ValueError("what an SDK might say"), StoreError),
])  # fmt: skip
async def test_what_errors_mean(error, kind):
    store = FsspecStore(Failing(asynchronous=True), "bucket")
    store.fs.error = error
    calls = [
        store.get("k"),
        store.get("k", Suffix(5)),
        store.get("k", ByteRange(5)),
        store.erase("k"),
        store.size("k"),
        store.list_dir("k/"),
    ]
    for call in [*calls, collect(store.list_prefix("k/")), store.erase_prefix("k/")]:
        with pytest.raises(StoreError, match="by way of fsspec") as caught:
            await call
        assert type(caught.value) is kind
        assert caught.value.key in {"k", "k/"}


async def test_listings_are_asked_for_anew():
    class Caching(Objects):
        def __init__(self, **options):
            super().__init__(**options)
            self.cache = {}

        def invalidate_cache(self, path=None):
            self.cache.clear()

        async def _ls(self, path, detail=True, **options):
            if path not in self.cache:
                self.cache[path] = await super()._ls(path, detail, **options)
            return self.cache[path]

    store = FsspecStore(Caching(asynchronous=True), "bucket")
    await store.set("a", VALUE)
    assert await store.list_dir() == Listing(("a",), ())
    await store.set("b", VALUE)
    assert await store.list_dir() == Listing(("a", "b"), ())


async def test_a_bucket_is_never_removed():
    store = FsspecStore(Objects(asynchronous=True), "bucket")
    await store.set("a/b", VALUE)
    await store.set("a", VALUE)
    await store.erase_prefix("a/")
    assert await collect(store.list_prefix()) == ["a"]
    await store.erase_prefix("")
    assert store.fs.values == {}


def test_no_secrets_in_its_name():
    store = FsspecStore(Objects(password="SECRET"), "bucket")
    assert "SECRET" not in repr(store)
    assert "SECRET" not in repr(store.identity)


async def test_equality_and_pickling(tmp_path):
    store = FsspecStore(LocalFileSystem(), tmp_path.as_posix())
    await store.set("a", VALUE)
    copy = pickle.loads(pickle.dumps(store))
    assert (copy, hash(copy), copy.identity) == (store, hash(store), store.identity)
    assert await read(copy, "a") == VALUE


async def test_arrays():
    store = FsspecStore(Objects(), "bucket")
    array = await azarr.create_array(store, "a", shape=(40, 40), chunks=(8, 8), shards=(16, 16), dtype="i4")
    await array.write(3)
    again = await azarr.open_array(store, "a")
    assert (await again[5:7]).sum() == 240
