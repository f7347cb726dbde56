from __future__ import annotations

import asyncio
import errno
import gc
import os
import pickle
import stat
import sys
import warnings
import zipfile

import pytest

import azarr
from azarr.errors import StoreError
from azarr.stores import file_locks, zip_records
from azarr.stores.base import BlockingStore, Store
from azarr.stores.zip import ZipStore, open_url
from azarr.testing import StoreSuite
from azarr.testing.values import PARTS, VALUE, collect, read
from azarr.types import ByteRange, Listing

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX locks and signals")


class TestZipStore(StoreSuite):
    picklable = False

    @pytest.fixture
    async def store(self, tmp_path):
        async with ZipStore(tmp_path / "x.zip", mode="a") as store:
            yield store


class TestZipStoreOfManyCommits(TestZipStore):
    """The same promises where every write is put in place of the archive."""

    @pytest.fixture
    async def store(self, tmp_path):
        class Committing(ZipStore):
            def set_blocking(self, key, value):
                super().set_blocking(key, value)
                self._commit()

        async with Committing(tmp_path / "x.zip", mode="w") as store:
            yield store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.zip"


def written(path, values, **options):
    """An archive as the standard library writes it."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for key, value in values.items():
            archive.writestr(key, value)
    return path


def content(path):
    """What the standard library finds, the directory and all checksums checked."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def names(folder):
    return sorted(os.listdir(folder))


def test_is_both_kinds_of_store(path):
    assert isinstance(ZipStore(path), Store)
    assert isinstance(ZipStore(path), BlockingStore)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize(("byte_range", "part"), PARTS)
async def test_reads_what_others_wrote(path, method, byte_range, part):
    store = ZipStore(written(path, {"a/b": VALUE, "empty": b""}, compression=method))
    assert await read(store, "a/b", byte_range) == part
    assert bytes(store.get_blocking("a/b", byte_range, lambda nbytes: memoryview(bytearray(nbytes + 5)))) == part
    assert await read(store, "empty") == b""
    out = memoryview(bytearray(300))
    assert store.get_into("a/b", out) == 256
    assert out[:256] == VALUE
    assert store.get_into("a/b", out[:100]) == 101
    assert store.get_into("empty", out) == 0
    assert store.get_into("missing", out) is None
    assert await store.get("missing") is None
    assert await collect(store.list_prefix()) == ["a/b", "empty"]


async def test_others_read_what_it_writes(path):
    async with ZipStore(path, mode="w") as store:
        await store.set("a/b", VALUE)
        await store.set("温度/c", b"unicode")
        await store.set("a/b", b"again")
        await store.set("gone", VALUE)
        await store.erase("gone")
        assert not path.exists()
    assert content(path) == {"a/b": b"again", "温度/c": b"unicode"}
    assert names(path.parent) == ["x.zip"]


async def test_equal_values_make_equal_archives(path, tmp_path):
    for place in (path, tmp_path / "other.zip"):
        async with ZipStore(place, mode="w") as store:
            await store.set("a/b", VALUE)
    assert path.read_bytes() == (tmp_path / "other.zip").read_bytes()


async def test_appends_and_keeps_what_is_there(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.comment = b"a comment"
        archive.mkdir("folder")
        archive.writestr(zipfile.ZipInfo("old", (2001, 2, 3, 4, 5, 6)), VALUE, zipfile.ZIP_DEFLATED)
        archive.writestr("replaced", b"old")
        archive.writestr("erased", b"old")
    path.chmod(0o640)
    before = path.read_bytes()
    async with ZipStore(path, mode="a") as store:
        await store.set("new", b"value")
        await store.set("replaced", b"new")
        await store.erase("erased")
        assert await read(store, "old") == VALUE
        assert path.read_bytes() == before
        await store.commit()
        await store.set("later", b"2")
    assert content(path) == {"folder/": b"", "old": VALUE, "replaced": b"new", "new": b"value", "later": b"2"}
    with zipfile.ZipFile(path) as archive:
        assert archive.comment == b"a comment"
        assert archive.getinfo("old").date_time == (2001, 2, 3, 4, 5, 6)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_data_in_front_of_an_archive_stay_there(path):
    inner = written(path, {"a": VALUE}).read_bytes()
    path.write_bytes(b"#!/bin/sh\n" * 100 + inner)
    assert await read(ZipStore(path), "a") == VALUE
    async with ZipStore(path, mode="a") as store:
        await store.set("b", b"new")
        assert await read(store, "a") == VALUE
    assert path.read_bytes().startswith(b"#!/bin/sh\n" * 100)
    assert content(path) == {"a": VALUE, "b": b"new"}


async def test_an_exception_throws_away_what_was_not_committed(path):
    async def fail():
        async with ZipStore(path, mode="a") as store:
            await store.set("a", b"1")
            await store.commit()
            await store.set("b", b"2")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert content(path) == {"a": b"1"}
    assert names(path.parent) == ["x.zip"]


async def test_discard_shows_the_old_archive_again(path):
    async with ZipStore(written(path, {"a": b"1"}), mode="a") as store:
        await store.set("a", b"2")
        await store.erase_prefix("")
        assert await store.get("a") is None
        await store.discard()
        assert await read(store, "a") == b"1"
    assert content(path) == {"a": b"1"}


async def test_a_new_archive_takes_the_place_of_the_old_one_at_the_end(path):
    written(path, {"old": VALUE})
    async with ZipStore(path, mode="w") as store:
        assert await store.list_dir() == Listing((), ())
        await store.set("new", b"1")
        assert content(path) == {"old": VALUE}
        await store.commit()
        assert content(path) == {"new": b"1"}
        await store.set("later", b"2")
    assert content(path) == {"new": b"1", "later": b"2"}


@pytest.mark.parametrize("mode", ["a", "w"])
async def test_nothing_written_changes_nothing(path, mode):
    async with ZipStore(path, mode=mode) as store:
        assert await collect(store.list_prefix()) == []
        await store.erase("missing")
        await store.erase_prefix("missing/")
    assert names(path.parent) == []


@pytest.mark.parametrize("mode", ["r", "a", "w"])
async def test_a_file_that_is_no_archive_is_left_alone(path, mode):
    path.write_bytes(b"something else" * 10)
    store = ZipStore(path, mode=mode)
    with pytest.raises(StoreError, match="x.zip.*no zip archive"):
        await store.get("a")
    if mode != "r":
        with pytest.raises(StoreError, match="no zip archive"):
            await store.set("a", b"")
    await store.aclose()
    assert path.read_bytes() == b"something else" * 10
    assert names(path.parent) == ["x.zip"]


async def test_an_empty_file_becomes_an_archive(path):
    path.touch()
    async with ZipStore(path, mode="a") as store:
        await store.set("a", VALUE)
    assert content(path) == {"a": VALUE}


async def test_reading_where_nothing_is(path):
    with pytest.raises(StoreError, match="no zip archive at"):
        await ZipStore(path).get("zarr.json")


async def test_writing_where_one_only_reads(path):
    store = ZipStore(written(path, {"a": VALUE}))
    for request in (store.set("a", b""), store.erase("a"), store.erase_prefix("")):
        with pytest.raises(StoreError, match="mode='a'"):
            await request
    with pytest.raises(StoreError, match="mode='a'"):
        store.update_blocking("a", lambda _: b"")
    assert content(path) == {"a": VALUE}


def test_unknown_mode(path):
    with pytest.raises(ValueError, match="r, a, w"):
        ZipStore(path, mode="x")


async def test_use_after_closing(path):
    store = ZipStore(written(path, {"a": VALUE}))
    await read(store, "a")
    await store.aclose()
    await store.aclose()
    with pytest.raises(StoreError, match="closed"):
        await store.get("a")


async def test_a_reader_keeps_the_archive_that_it_has_opened(path):
    reader = ZipStore(written(path, {"a": b"old"}))
    assert await read(reader, "a") == b"old"
    async with ZipStore(path, mode="a") as store:
        await store.set("a", b"new")
    assert await read(reader, "a") == b"old"
    assert await read(ZipStore(path), "a") == b"new"


@on_posix
async def test_one_writer_at_a_time(path):
    async with ZipStore(path, mode="a") as first, ZipStore(path, mode="a") as second:
        await first.set("a", b"1")
        with pytest.raises(StoreError, match="one writer"):
            await second.set("b", b"2")
        await first.commit()
        await second.set("b", b"2")
        with pytest.raises(StoreError, match="one writer"):
            await first.set("a", b"3")
    assert content(path) == {"a": b"1", "b": b"2"}


@on_posix
async def test_file_systems_without_locks(path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, "no locks here")

    monkeypatch.setattr(file_locks.fcntl, "flock", refuse)
    async with ZipStore(path, mode="a") as store:
        await store.set("a", VALUE)
    assert content(path) == {"a": VALUE}


@on_posix
async def test_a_full_disk_costs_the_write_and_not_the_archive(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    async with ZipStore(written(path, {"a": b"old"}), mode="a") as store:
        await store.set("b", b"1")
        with monkeypatch.context() as patched:
            patched.setattr(os, "pwrite", full)
            with pytest.raises(StoreError, match="cannot write 'c'.*no space"):
                await store.set("c", b"2")
            with pytest.raises(StoreError, match="no space"):
                await store.commit()
        assert content(path) == {"a": b"old"}
        assert await store.get("c") is None
    assert content(path) == {"a": b"old", "b": b"1"}


@on_posix
async def test_a_link_leads_to_the_archive_that_is_written(path, tmp_path):
    link = tmp_path / "link.zip"
    link.symlink_to(written(path, {"a": b"1"}))
    async with ZipStore(link, mode="a") as store:
        await store.set("b", b"2")
    assert link.is_symlink()
    assert content(path) == {"a": b"1", "b": b"2"}


async def test_a_write_that_is_cancelled_has_ended(path):
    async with ZipStore(path, mode="a") as store:
        task = asyncio.ensure_future(store.set("a", VALUE * 10_000))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await store.set("a", b"later")
    assert content(path) == {"a": b"later"}


async def test_a_store_that_is_never_closed_says_so(path):
    store = ZipStore(path, mode="a")
    store.set_blocking("a", VALUE)
    with pytest.warns(ResourceWarning, match="never closed"):  # noqa: PT031 - warned by the first on CPython, else by the second
        del store
        gc.collect()
    assert names(path.parent) == []


async def test_a_reader_needs_no_closing(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert await read(ZipStore(written(path, {"a": VALUE})), "a") == VALUE
        gc.collect()


async def test_pickling(path):
    store = ZipStore(written(path, {"a": VALUE}), value_nbytes=256)
    copy = pickle.loads(pickle.dumps(store))
    assert await read(copy, "a") == VALUE
    with pytest.raises(StoreError, match="cannot be pickled"):
        pickle.dumps(ZipStore(path, mode="a"))


async def test_sizes_of_zip64(path, monkeypatch):
    monkeypatch.setattr(zip_records, "WIDE32", 100)
    monkeypatch.setattr(zip_records, "WIDE16", 3)
    values = {f"a{i}": VALUE * i for i in range(5)}
    async with ZipStore(path, mode="w") as store:
        for key, value in values.items():
            await store.set(key, value)
    assert content(path) == values
    assert {key: await read(ZipStore(path), key) for key in values} == values


async def test_reads_zip64(path):
    with zipfile.ZipFile(path, "w") as archive, archive.open("a", "w", force_zip64=True) as member:
        member.write(VALUE)
    assert await read(ZipStore(path), "a") == VALUE


@on_posix
@pytest.mark.slow
async def test_an_archive_beyond_4_gib(path):
    """With a hole in its first value, so that it takes no room on disks."""
    large = 2**32 + 5
    async with ZipStore(path, mode="w") as store:
        await store.set("first", b"")
        draft = store._archive
        await store.set("b", VALUE)
        draft._end += large  # as if something had been replaced
        await store.set("c", VALUE)
        assert await read(store, "c", ByteRange(3, 7)) == VALUE[3:7]
    assert path.stat().st_size > large
    assert content(path) == {"first": b"", "b": VALUE, "c": VALUE}
    assert await read(ZipStore(path), "c") == VALUE


async def test_more_entries_than_16_bits_count(path):
    keys = [f"c/{i}" for i in range(70_000)]
    async with ZipStore(path, mode="w") as store:
        for key in keys:
            store.set_blocking(key, b"x")
    assert len(content(path)) == 70_000
    store = ZipStore(path)
    assert await read(store, "c/69999") == b"x"
    assert len((await store.list_dir("c/")).keys) == 70_000


async def test_an_array_in_an_archive(path):
    async with ZipStore(path, mode="w") as store:
        array = await azarr.create_array(store, "a", shape=(100, 100), chunks=(7, 9), shards=(35, 45), dtype="i4")
        await array.write(5)
        await array.resize((120, 100))
    again = await azarr.open_array(ZipStore(path), "a")
    assert again.shape == (120, 100)
    assert (await again[:100]).sum() == 50_000


async def test_stamps_tell_whether_a_value_is_the_same(path):
    async with ZipStore(written(path, {"a": VALUE, "b": VALUE}), mode="a") as store:
        first = await store.get_stamped("a", ByteRange(3, 5))
        assert (bytes(first.value), first.stamp) == (VALUE[3:5], (await store.get_stamped("a")).stamp)
        assert first.stamp is not None
        await store.set("b", b"other")
        assert (await store.get_stamped("a")).stamp == first.stamp
        await store.set("a", VALUE)
        assert (await store.get_stamped("a")).stamp != first.stamp
        assert await store.get_stamped("missing") == (None, None)


def test_from_a_url(path):
    assert open_url(str(path)).path == str(path)
    assert open_url(f"file://{path}", mode="a").mode == "a"
    assert open_url("file:///a%20b.zip").path == "/a b.zip"
    with pytest.raises(StoreError, match="no URL of a zip archive"):
        open_url("s3://bucket/x.zip")


PROGRAM = """
import asyncio, sys
from azarr.stores.zip import ZipStore

async def main():
    turn = int(sys.argv[2])
    async with ZipStore(sys.argv[1], mode="a") as store:
        print("ready", flush=True)
        while True:
            turn += 1
            for i in range(3):
                await store.set(f"c/{i}", f"{turn} {i} ".encode() * 20_000)
            await store.set("turn", str(turn).encode())
            await (store.commit() if sys.argv[3] == "commit" else store.compact())

asyncio.run(main())
"""


@on_posix
@pytest.mark.slow
@pytest.mark.parametrize("way", ["commit", "compact"])
def test_a_writer_that_is_killed_leaves_the_old_archive_or_the_new_one(path, killed_often, way):
    def look(turn):
        if not path.exists():
            return turn
        found = content(path)
        turn = int(found.pop("turn"))
        assert found == {f"c/{i}": f"{turn} {i} ".encode() * 20_000 for i in range(3)}
        return turn

    killed_often(PROGRAM, path, way, look=look)
    asyncio.run(_finished(path))
    assert names(path.parent) == ["x.zip"]


async def _finished(path):
    async with ZipStore(path, mode="a") as store:
        await store.set("end", b"")
