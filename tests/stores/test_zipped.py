from __future__ import annotations

import asyncio
import pickle
import zipfile

import pytest

import azarr
from azarr.errors import StoreError, TransientStoreError
from azarr.stores import LocalStore, MemoryStore
from azarr.stores.base import BlockingStore, ListableStore, ReadableStore, Stamped
from azarr.stores.zip import ZippedStore, ZipStore, open_inside
from azarr.stores.zip_directory import TAIL
from azarr.testing.values import ILLEGAL_KEYS, ILLEGAL_PREFIXES, PARTS, VALUE, collect, read
from azarr.types import ByteRange, Listing, Suffix


class Counting(MemoryStore):
    """A store that is not asked blockingly, does not tell which value a part is of, and remembers what it was asked for."""

    def __init__(self, values=None):
        super().__init__(values)
        self.requests = []

    async def get(self, key, byte_range=None):
        self.requests.append(byte_range)
        await asyncio.sleep(0)
        return await super().get(key, byte_range)

    async def get_stamped(self, key, byte_range=None):
        return Stamped(await self.get(key, byte_range))


def archive(tmp_path, values, method=zipfile.ZIP_STORED, front=b""):
    path = tmp_path / "made.zip"
    with zipfile.ZipFile(path, "w", method) as target:
        for key, value in values.items():
            target.writestr(key, value)
    return front + path.read_bytes()


@pytest.fixture
def made(tmp_path):
    def made(values, method=zipfile.ZIP_STORED, front=b""):
        outer = Counting({"d/x.zip": archive(tmp_path, values, method, front)})
        return outer, ZippedStore(outer, "d/x.zip")

    return made


MANY = {f"c/{i}": b"%d " % i * 100 for i in range(3000)}
"""Too many for the directory to be in the first piece that is read."""


def test_it_reads_and_lists_and_is_remote(made):
    _, store = made({})
    assert isinstance(store, ReadableStore)
    assert isinstance(store, ListableStore)
    assert not isinstance(store, BlockingStore)


@pytest.mark.parametrize("front", [b"", b"#!" * 500])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("more", [{}, MANY])
async def test_parts_of_values(made, method, more, front):
    _, store = made(more | {"温度/b": VALUE, "empty": b""}, method, front)
    for byte_range, part in PARTS:
        assert await read(store, "温度/b", byte_range) == part
    assert await read(store, "empty") == b""
    assert await read(store, "empty", Suffix(3)) == b""
    assert await store.get("missing") is None
    for key, value in list(more.items())[:10]:
        assert await read(store, key) == value


async def test_requests_of_a_small_archive(made):
    outer, store = made({"a": VALUE, "b": VALUE})
    assert await collect(store.list_prefix()) == ["a", "b"]
    assert outer.requests == [Suffix(TAIL)]
    await read(store, "a")
    await read(store, "b", ByteRange(3, 5))
    await read(store, "b", Suffix(5))
    assert len(outer.requests) == 4
    assert outer.requests[3] == ByteRange(outer.requests[3].start, outer.requests[3].start + 5)


async def test_requests_of_a_large_archive(made):
    outer, store = made(MANY)
    assert len(await collect(store.list_prefix())) == 3000
    assert len(outer.requests) == 2
    assert await store.list_dir() == Listing((), ("c/",))
    assert len(outer.requests) == 2


async def test_part_far_into_a_value(made):
    large = bytes(range(250)) * 8000
    outer, store = made({"a": large})
    assert await read(store, "a", Suffix(10)) == large[-10:]
    assert await read(store, "a", ByteRange(500_000, 500_010)) == large[500_000:500_010]
    # the directory in two, the header, and the two parts
    assert len(outer.requests) == 5
    assert sum(request.stop - request.start for request in outer.requests[2:]) == 50


async def test_a_header_longer_than_expected(made, tmp_path):
    path = tmp_path / "long.zip"
    info = zipfile.ZipInfo("a")
    info.extra = b"\xfe\xca" + (1000).to_bytes(2, "little") + bytes(1000)
    with zipfile.ZipFile(path, "w") as target:
        target.writestr(info, VALUE)
    outer = Counting({"x.zip": path.read_bytes()})
    assert await read(ZippedStore(outer, "x.zip"), "a") == VALUE


async def test_the_directory_is_fetched_once_for_all_who_ask(made):
    outer, store = made({f"a{i}": VALUE for i in range(20)})
    await asyncio.gather(*(read(store, f"a{i}") for i in range(20)))
    assert outer.requests.count(Suffix(TAIL)) == 1


async def test_who_waits_goes_on_where_the_first_is_cancelled(made):
    outer, store = made({"a": VALUE})
    gate = asyncio.Event()
    get = outer.get

    async def wait(key, byte_range=None):
        await gate.wait()
        return await get(key, byte_range)

    outer.get = wait
    first, second = (asyncio.ensure_future(read(store, "a")) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second == VALUE
    assert first.cancelled()
    assert outer.requests.count(Suffix(TAIL)) == 1


async def test_a_failure_is_not_kept(made):
    outer, store = made({"a": VALUE})
    get, outer.get = outer.get, None

    async def fail(_key, _byte_range=None):
        raise TransientStoreError("try again")

    outer.get = fail
    with pytest.raises(TransientStoreError):
        await store.get("a")
    outer.get = get
    assert await read(store, "a") == VALUE


async def test_one_event_loop_after_another(made):
    _, store = made({"a": VALUE})
    for _ in range(3):
        assert await asyncio.to_thread(asyncio.run, read(store, "a")) == VALUE


async def test_no_archive():
    with pytest.raises(StoreError, match="no zip archive at 'x.zip'"):
        await ZippedStore(MemoryStore(), "x.zip").get("a")


async def test_an_archive_that_is_replaced_where_the_store_tells(tmp_path):
    outer = MemoryStore({"x.zip": archive(tmp_path, {"a": VALUE, "b": VALUE})})
    store = ZippedStore(outer, "x.zip")
    first = await store.get_stamped("a", ByteRange(3, 5))
    assert first.stamp == (await store.get_stamped("a")).stamp
    assert first.stamp != (await store.get_stamped("b")).stamp
    await outer.set("x.zip", archive(tmp_path, {"a": bytes(256), "b": VALUE}))
    for byte_range in (ByteRange(3, 5), None):
        with pytest.raises(StoreError, match="another archive; open it again"):
            await store.get("a", byte_range)
    assert await read(ZippedStore(outer, "x.zip"), "a") == bytes(256)


async def test_an_archive_that_is_replaced_while_its_directory_is_read(tmp_path):
    class Changing(MemoryStore):
        async def get_stamped(self, key, byte_range=None):
            found = await super().get_stamped(key, byte_range)
            await self.set(key, bytes(bytearray(await super().get(key))))
            return found

    store = ZippedStore(Changing({"x.zip": archive(tmp_path, MANY)}), "x.zip")
    with pytest.raises(TransientStoreError, match="replaced while its directory was read"):
        await store.get("c/0")


async def test_an_archive_that_is_replaced_where_the_store_does_not_tell(made, tmp_path):
    outer, store = made({"a": VALUE, "b": VALUE})
    await read(store, "b")
    await outer.set("d/x.zip", archive(tmp_path, {"a": bytes(256), "b": bytes(256)}))
    for key in ("a", "b"):
        with pytest.raises(StoreError, match="replaced while it was read"):
            await store.get(key)
    await outer.erase("d/x.zip")
    with pytest.raises(StoreError, match="the archive is gone"):
        await store.get("a")


async def test_illegal_keys_and_prefixes(made):
    _, store = made({"a": VALUE})
    for key in ILLEGAL_KEYS:
        with pytest.raises(StoreError, match="not a key"):
            await store.get(key)
    for prefix in ILLEGAL_PREFIXES:
        with pytest.raises(StoreError):
            await store.list_dir(prefix)
        with pytest.raises(StoreError):
            await collect(store.list_prefix(prefix))


async def test_more_in_front_than_is_fetched(tmp_path):
    data = archive(tmp_path, MANY, front=bytes(2**20 + 1))
    with pytest.raises(StoreError, match="stand before the zip archive"):
        await ZippedStore(MemoryStore({"x.zip": data}), "x.zip").get("a")


async def test_pickling(made):
    _, store = made({"a": VALUE})
    assert await read(pickle.loads(pickle.dumps(store)), "a") == VALUE


async def test_closing_closes_what_was_opened_for_it_alone():
    class Closing(MemoryStore):
        closed = 0

        async def aclose(self):
            self.closed += 1

    outer = Closing()
    await ZippedStore(outer, "x.zip").aclose()
    assert outer.closed == 0
    await open_inside(outer, "x.zip").aclose()
    assert outer.closed == 1
    await open_inside(MemoryStore(), "x.zip").aclose()


async def test_an_archive_in_a_folder_is_a_local_file(tmp_path):
    folder = LocalStore(tmp_path)
    await folder.set("d/x.zip", archive(tmp_path, {"a": VALUE}))
    store = open_inside(folder, "d/x.zip", value_nbytes=1000)
    assert isinstance(store, ZipStore)
    assert await read(store, "a") == VALUE
    assert isinstance(open_inside(MemoryStore(), "x.zip"), ZippedStore)
    with pytest.raises(StoreError, match="can only be read"):
        open_inside(MemoryStore(), "x.zip", mode="a")


async def test_an_archive_in_an_archive(tmp_path):
    inner = archive(tmp_path, {"a": VALUE}, zipfile.ZIP_DEFLATED)
    (tmp_path / "outer.zip").write_bytes(archive(tmp_path, {"d/inner.zip": inner}, zipfile.ZIP_DEFLATED))
    assert await read(azarr.open_store(f"{tmp_path}/outer.zip|zip:d/inner.zip|zip:"), "a") == VALUE


async def test_archives_are_named_by_urls(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    async with azarr.open_store("x.zip", zip={"mode": "w"}) as store:
        array = await azarr.create_array(store, "in/side", shape=(10, 10), chunks=(5, 5), dtype="i4")
        await array.write(5)
    for url in ("x.zip", "x.zip|zip:in", f"file://{tmp_path}/x.zip|zip:in|zarr3:side"):
        path = {"x.zip": "in/side", "x.zip|zip:in": "side"}.get(url, "")
        assert (await (await azarr.open_array(url, path)).read() == 5).all()
    await azarr.MemoryStore.named("archives").set("x.zip", (tmp_path / "x.zip").read_bytes())
    assert (await (await azarr.open_array("memory://archives/x.zip", "in/side")).read() == 5).all()
    azarr.MemoryStore.drop("archives")


@pytest.mark.parametrize("shards", [None, (40, 60)])
async def test_an_array_in_an_archive_on_a_server(tmp_path, shards):
    async with ZipStore(tmp_path / "x.zip", mode="w") as target:
        array = await azarr.create_array(target, "a", shape=(100, 100), chunks=(20, 20), shards=shards, dtype="i4")
        await array.write(5)
    outer = azarr.LatencyStore(MemoryStore({"x.zip": (tmp_path / "x.zip").read_bytes()}), 0)
    array = await azarr.open_array(ZippedStore(outer, "x.zip"), "a")
    assert (await array.read()).sum() == 50_000
    assert (await array[:3, 5]).tolist() == [5, 5, 5]
