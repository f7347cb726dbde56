"""Stores go both ways: azarr's pass the suites of zarr-python, and zarr-python's the suite of azarr."""

from __future__ import annotations

import asyncio
import pickle
import threading
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

import azarr
from azarr.errors import StoreError, TransientStoreError
from azarr.stores.zip import ZipStore
from azarr.testing import StoreSuite
from azarr.testing.values import VALUE, collect, read
from azarr.types import ByteRange, Listing

zarr = pytest.importorskip("zarr", minversion="3.4", reason="needs zarr 3.4 or later; 'nox -s interop' installs it and runs these tests")

from zarr.abc.store import SupportsGetSync  # noqa: E402  # not before it is known that there is zarr
from zarr.core.buffer import cpu  # noqa: E402
from zarr.core.buffer.core import default_buffer_prototype  # noqa: E402
from zarr.core.sync import sync  # noqa: E402
from zarr.storage import LocalStore, MemoryStore, WrapperStore  # noqa: E402
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine  # noqa: E402
from zarr.testing.store import StoreTests  # noqa: E402

from azarr.integrations.zarr_python import AzarrStore, BlockingAzarrStore, ZarrPythonStore, as_zarr_store  # noqa: E402


class Plain(azarr.stores.base.Store):
    """A store without a blocking face."""

    def __init__(self, root):
        self._inner = azarr.LocalStore(root)
        for name in ("get", "set", "erase", "erase_prefix", "list_prefix", "list_dir"):
            setattr(self, name, getattr(self._inner, name))

    def __eq__(self, other):
        return self._inner == other._inner

    __hash__ = None

    def __reduce__(self):
        return Plain, (self._inner.root,)


class ZarrPythonSuite(StoreTests):
    """zarr-python's tests of stores, on stores of azarr."""

    buffer_cls = cpu.Buffer

    @pytest.fixture
    def store_kwargs(self, tmp_path):
        return {"store": self.inner(tmp_path)}

    async def set(self, store, key, value):
        await store.azarr_store.set(key, value.to_bytes())

    async def get(self, store, key):
        return self.buffer_cls.from_bytes(await store.azarr_store.get(key))

    def test_store_repr(self, store):
        assert repr(store).startswith(f"{self.store_cls.__name__}(")
        assert str(store) == repr(store)

    def test_store_supports_writes(self, store):
        assert store.supports_writes
        assert store.supports_deletes

    def test_store_supports_listing(self, store):
        assert store.supports_listing


class TestLocalStoreInZarrPython(ZarrPythonSuite):
    store_cls = BlockingAzarrStore

    def inner(self, path):
        return azarr.LocalStore(path / "root")


class TestSQLiteStoreInZarrPython(ZarrPythonSuite):
    store_cls = BlockingAzarrStore

    def inner(self, path):
        return azarr.SQLiteStore(path / "x.db", durability="none")


class TestAsynchronousStoreInZarrPython(ZarrPythonSuite):
    store_cls = AzarrStore

    def inner(self, path):
        return Plain(path / "root")


class TestZarrMemoryStoreInAzarr(StoreSuite):
    def make_store(self):
        return ZarrPythonStore(MemoryStore())


class TestZarrLocalStoreInAzarr(StoreSuite):
    keys_nest = False

    @pytest.fixture(autouse=True)
    def _root(self, tmp_path):
        self.root = tmp_path / "root"

    def make_store(self):
        return ZarrPythonStore(LocalStore(self.root))


class TestThereAndBack(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path):
        async with azarr.SQLiteStore(tmp_path / "x.db", durability="none") as store:
            yield ZarrPythonStore(as_zarr_store(store))


SLOW = settings(max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["memory", "sqlite", "late"])
def test_the_state_machine_of_stores(kind, tmp_path):
    inner = {
        "memory": azarr.MemoryStore,
        "sqlite": lambda: azarr.SQLiteStore(tmp_path / "x.db", durability="none"),
        "late": lambda: azarr.LatencyStore(azarr.MemoryStore(), 0),
    }[kind]()
    run_state_machine_as_test(lambda: ZarrStoreStateMachine(as_zarr_store(inner)), settings=SLOW)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # what zarr-python says of its own data types and codecs
def test_the_state_machine_of_hierarchies():
    few = settings(SLOW, max_examples=3, stateful_step_count=8)
    run_state_machine_as_test(lambda: ZarrHierarchyStateMachine(as_zarr_store(azarr.MemoryStore())), settings=few)


def test_zarr_python_uses_stores_of_azarr_from_its_own_loop(tmp_path):
    async def main():
        async with azarr.SQLiteStore(tmp_path / "x.db") as store, ZipStore(tmp_path / "x.zip", mode="w") as archive:
            for each in (store, archive, azarr.LatencyStore(azarr.MemoryStore(), 0)):
                ours = await azarr.create_array(each, "a", shape=(20, 30), chunks=(7, 8), shards=(14, 16), dtype="i4")
                await ours.write(np.arange(600).reshape(20, 30))
                theirs = await asyncio.to_thread(zarr.open_array, as_zarr_store(each), path="a")
                assert (theirs[:] == np.arange(600).reshape(20, 30)).all()
                theirs[3, :] = -1
                theirs.attrs["by"] = "zarr"
                again = await azarr.open_array(each, "a")
                assert (await again[3] == -1).all()
                assert again.attrs["by"] == "zarr"

    asyncio.run(main())


async def test_azarr_uses_stores_of_zarr_python():
    memory = MemoryStore()
    theirs = await asyncio.to_thread(zarr.create_array, memory, name="a", shape=(20, 30), chunks=(7, 8), shards=(14, 16), dtype="i4")
    theirs[:] = np.arange(600).reshape(20, 30)
    array = await azarr.open_array(ZarrPythonStore(memory), "a")
    assert (await array[5:7, ::3] == np.arange(600).reshape(20, 30)[5:7, ::3]).all()
    await array[:2].write(7)
    assert (theirs[:2] == 7).all()


def test_which_face_a_store_gets():
    assert isinstance(as_zarr_store(azarr.MemoryStore()), SupportsGetSync)
    assert not isinstance(as_zarr_store(azarr.LatencyStore(azarr.MemoryStore(), 0)), SupportsGetSync)
    with pytest.raises(TypeError, match="no store of zarr-python"):
        ZarrPythonStore(azarr.MemoryStore())


async def test_what_cannot_be_written_is_read_only():
    class Readable:
        async def get(self, _key, _byte_range=None):
            return b"value"

    store = as_zarr_store(Readable())
    assert store.read_only
    assert not store.supports_listing
    assert (await store.get("a", default_buffer_prototype())).to_bytes() == b"value"


async def test_only_one_of_many_creates_a_value():
    store = as_zarr_store(azarr.MemoryStore())
    values = [cpu.Buffer.from_bytes(bytes([i])) for i in range(10)]
    await asyncio.gather(*(store.set_if_not_exists("k", value) for value in values))
    assert (await store.get("k", default_buffer_prototype())).to_bytes() == b"\0"


class Failing(WrapperStore):
    async def get(self, *_args, **_options):
        raise self.error


async def test_errors_are_those_of_azarr():
    failing = Failing(MemoryStore())
    failing.error = ConnectionResetError("gone")
    store = ZarrPythonStore(failing)
    with pytest.raises(TransientStoreError, match="cannot read 'a'.*gone") as caught:
        await store.get("a")
    assert caught.value.key == "a"
    failing.error = PermissionError("not yours")
    with pytest.raises(StoreError, match="not yours"):
        await store.get("a", ByteRange(1, 2))
    with pytest.raises(StoreError, match="read-only"):
        await ZarrPythonStore(MemoryStore(read_only=True)).set("a", b"")


async def test_a_write_that_is_cancelled_does_not_overtake_the_next():
    begun, gate = threading.Event(), threading.Event()

    class Slow(WrapperStore):
        async def set(self, key, value):
            begun.set()
            await asyncio.to_thread(gate.wait)
            await super().set(key, value)

    store = ZarrPythonStore(Slow(MemoryStore()))
    first = asyncio.ensure_future(store.set("a", b"first"))
    await asyncio.to_thread(begun.wait)
    first.cancel()
    await asyncio.sleep(0)
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert await read(store, "a") == b"first"


async def test_an_erasure_takes_nothing_that_is_below_the_key(tmp_path):
    store = ZarrPythonStore(LocalStore(tmp_path))
    await store.set("a/b", VALUE)
    await store.erase("a")
    assert await collect(store.list_prefix()) == ["a/b"]
    (tmp_path / "empty").mkdir()
    assert await store.list_dir() == Listing((), ("a/",))


async def test_pickling():
    store = pickle.loads(pickle.dumps(ZarrPythonStore(as_zarr_store(azarr.MemoryStore({"a": VALUE})))))
    assert await read(store, "a") == VALUE
    assert sync(store.zarr_store.exists("a"))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_archives_of_zarr_python_are_read(tmp_path, compression):
    def write():
        with zarr.storage.ZipStore(tmp_path / "x.zip", mode="w", compression=compression) as store:
            group = zarr.open_group(store)
            array = group.create_array("a", shape=(20, 30), chunks=(7, 8), shards=(14, 16), dtype="i4")
            array[:] = np.arange(600).reshape(20, 30)

    await asyncio.to_thread(write)
    array = await azarr.open_array(f"{tmp_path}/x.zip|zip:a")
    assert (await array.read() == np.arange(600).reshape(20, 30)).all()
    assert (await array[13, 5:9] == np.arange(600).reshape(20, 30)[13, 5:9]).all()


async def test_archives_are_read_by_zarr_python(tmp_path):
    async with ZipStore(tmp_path / "x.zip", mode="w") as store:
        array = await azarr.create_array(store, "a", shape=(20, 30), chunks=(7, 8), dtype="i4")
        await array.write(np.arange(600).reshape(20, 30))
        await array[3].write(-1)
        await array.resize((20, 31))

    def read_all():
        with zarr.storage.ZipStore(tmp_path / "x.zip") as store:
            return zarr.open_array(store, path="a", mode="r")[:]

    found = await asyncio.to_thread(read_all)
    assert found.shape == (20, 31)
    assert (found[4:, :30] == np.arange(600).reshape(20, 30)[4:]).all()
    assert (found[3, :30] == -1).all()
