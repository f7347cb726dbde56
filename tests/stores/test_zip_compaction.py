from __future__ import annotations

import asyncio
import errno
import io
import os
import stat
import sys
import zipfile

import pytest

import azarr
from azarr.errors import StoreError
from azarr.stores import zip_records
from azarr.stores.zip import ZipStore
from azarr.stores.zip_compaction import Used, runs, used_of
from azarr.stores.zip_directory import RECORD, STORED, Entry, Record
from azarr.stores.zip_records import HEADER
from azarr.testing import StoreSuite
from azarr.testing.values import VALUE, read

on_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX files")


class TestZipStoreOfManyCompactions(StoreSuite):
    """The same promises where nothing is ever left of what was replaced or erased."""

    picklable = False

    @pytest.fixture
    async def store(self, tmp_path):
        class Compacting(ZipStore):
            def set_blocking(self, key, value):
                super().set_blocking(key, value)
                self._compact()

        async with Compacting(tmp_path / "x.zip", mode="a") as store:
            yield store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "x.zip"


def content(path):
    """What the standard library finds, the directory and all checksums checked."""
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


class Pipe(io.BytesIO):
    """What cannot go back, so that ``zipfile`` tells the sizes of values behind them."""

    def tell(self):
        raise io.UnsupportedOperation

    def seek(self, *_):
        raise io.UnsupportedOperation


async def wasteful(path):
    """An archive in which ``a`` was replaced and ``c`` erased."""
    async with ZipStore(path, mode="w") as store:
        for key in "abc":
            await store.set(key, VALUE)
        await store.set("a", b"new")
        await store.erase("c")
    return path


async def test_nothing_is_left_of_what_was_replaced_or_erased(path, tmp_path):
    size = (await wasteful(path)).stat().st_size
    async with ZipStore(path, mode="a") as store:
        saved = await store.compact()
        assert size - saved == path.stat().st_size
        assert saved > 2 * len(VALUE)
        assert {key: await read(store, key) for key in "ab"} == {"a": b"new", "b": VALUE}
        assert await store.get("c") is None
    async with ZipStore(tmp_path / "fresh.zip", mode="w") as fresh:
        await fresh.set("b", VALUE)
        await fresh.set("a", b"new")
    assert path.stat().st_size == (tmp_path / "fresh.zip").stat().st_size
    assert content(path) == {"a": b"new", "b": VALUE}
    assert sorted(os.listdir(tmp_path)) == ["fresh.zip", "x.zip"]


async def test_what_was_written_is_committed_first(path):
    async with ZipStore(await wasteful(path), mode="a") as store:
        await store.set("b", b"newer")
        await store.set("d", VALUE)
        assert await store.compact() > 3 * len(VALUE)
        assert content(path) == {"a": b"new", "b": b"newer", "d": VALUE}
        await store.set("e", b"later")
        assert await read(store, "d") == VALUE
    assert content(path) == {"a": b"new", "b": b"newer", "d": VALUE, "e": b"later"}


async def test_where_all_is_erased_an_empty_archive_is_left(path):
    async with ZipStore(await wasteful(path), mode="a") as store:
        await store.erase_prefix("")
        await store.compact()
    assert content(path) == {}
    assert path.stat().st_size == 22


@pytest.mark.parametrize("written", [False, True])
async def test_where_there_is_nothing_to_save_nothing_is_copied(path, written):
    async with ZipStore(path, mode="w") as store:
        await store.set("a", VALUE)
    before = path.stat()
    async with ZipStore(path, mode="a") as store:
        if written:
            await store.set("b", VALUE)
            await store.commit()
            before = path.stat()
        assert await store.compact() == 0
        assert os.listdir(path.parent) == ["x.zip"]
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


@pytest.mark.parametrize("mode", ["a", "w"])
async def test_an_archive_that_there_is_not(path, mode):
    async with ZipStore(path, mode=mode) as store:
        assert await store.compact() == 0
    assert os.listdir(path.parent) == []


async def test_an_archive_that_is_to_be_replaced_is_left_alone(path):
    before = (await wasteful(path)).read_bytes()
    async with ZipStore(path, mode="w") as store:
        assert await store.compact() == 0
    assert path.read_bytes() == before


async def test_only_writers_compact(path):
    store = ZipStore(await wasteful(path))
    with pytest.raises(StoreError, match="mode='a'"):
        await store.compact()
    writer = ZipStore(path, mode="a")
    await writer.aclose()
    with pytest.raises(StoreError, match="closed"):
        await writer.compact()


async def test_a_reader_keeps_the_archive_that_it_has_opened(path):
    reader = ZipStore(await wasteful(path))
    assert await read(reader, "a") == b"new"
    async with ZipStore(path, mode="a") as store:
        await store.compact()
    assert await read(reader, "b") == VALUE
    assert await read(ZipStore(path), "b") == VALUE


async def test_readers_of_the_same_store_read_on(path):
    values = {f"c/{number}": bytes([number]) * 5000 for number in range(20)}
    async with ZipStore(path, mode="w") as store:
        for key, value in values.items():
            await store.set(key, b"old")
            await store.set(key, value)
        reads = [read(store, key) for key in values for _ in range(5)]
        found, saved = await asyncio.gather(asyncio.gather(*reads), store.compact())
        assert found == [value for value in values.values() for _ in range(5)]
        assert saved > 0
    assert content(path) == values


@on_posix
async def test_one_writer_at_a_time(path):
    async with ZipStore(await wasteful(path), mode="a") as first, ZipStore(path, mode="a") as second:
        await first.set("d", b"1")
        with pytest.raises(StoreError, match="one writer"):
            await second.compact()
        assert await first.compact() > 0
        assert await second.compact() == 0
        await second.set("e", b"2")
        with pytest.raises(StoreError, match="one writer"):
            await first.compact()
    assert content(path) == {"a": b"new", "b": VALUE, "d": b"1", "e": b"2"}


@on_posix
async def test_a_full_disk_costs_nothing(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    before = (await wasteful(path)).read_bytes()
    for failing in ("pwrite", "fsync"):
        async with ZipStore(path, mode="a") as store:
            with monkeypatch.context() as patched:
                patched.setattr(os, failing, full)
                with pytest.raises(StoreError, match="no space"):
                    await store.compact()
            assert await read(store, "b") == VALUE
            assert os.listdir(path.parent) == ["x.zip"]
        assert path.read_bytes() == before


async def test_a_compaction_that_is_cancelled_has_ended(path):
    async with ZipStore(await wasteful(path), mode="a") as store:
        task = asyncio.ensure_future(store.compact())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert os.listdir(path.parent) == ["x.zip"]
        assert await read(store, "b") == VALUE
    assert content(path) == {"a": b"new", "b": VALUE}


@pytest.mark.parametrize("seekable", [True, False])
async def test_what_others_wrote_stays_as_it_is(path, seekable):
    """Compressed values, folders, times, comments, modes, data in front, and sizes that are told behind the values."""

    made = io.BytesIO() if seekable else Pipe()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.comment = b"a comment"
        archive.writestr("gone", VALUE * 10)
        archive.mkdir("folder")
        archive.writestr(zipfile.ZipInfo("old", (2001, 2, 3, 4, 5, 6)), VALUE, zipfile.ZIP_DEFLATED)
        archive.writestr("replaced", VALUE)
        archive.writestr("empty", b"")
        archive.writestr("stored", VALUE, zipfile.ZIP_STORED)
        with archive.open("wide", "w", force_zip64=True) as member:
            member.write(VALUE)
    front = b"#!/bin/sh\n" * 100 if seekable else b""
    path.write_bytes(front + made.getvalue())
    path.chmod(0o640)
    async with ZipStore(path, mode="a") as store:
        await store.erase("gone")
        await store.set("replaced", b"new")
        await store.compact()
        assert await read(store, "old") == VALUE
        assert await store.compact() == 0
    kept = {"folder/": b"", "old": VALUE, "replaced": b"new", "empty": b"", "stored": VALUE, "wide": VALUE}
    assert content(path) == kept
    assert path.read_bytes().startswith(front)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    with zipfile.ZipFile(path) as archive:
        assert archive.comment == b"a comment"
        assert archive.getinfo("old").date_time == (2001, 2, 3, 4, 5, 6)
        assert archive.getinfo("old").compress_type == zipfile.ZIP_DEFLATED
    assert {key: await read(ZipStore(path), key) for key in ("old", "replaced", "empty", "stored", "wide")} == {
        key: value for key, value in kept.items() if key != "folder/"
    }


def test_sizes_behind_values_are_found_in_all_their_forms():
    """With a signature or without, in 4 bytes each or in 8: a writer of streams need not say which."""
    header = HEADER.pack(b"PK\3\4", 20, 8, STORED, 0, 0, 0, 0, 0, 1, 0) + b"k"
    for size in (0, 256):
        entry = Entry(5, size, size, 77, STORED, 8)
        for signature in (b"PK\7\10", b""):
            for width in (4, 8):
                sizes = signature + (77).to_bytes(4, "little") + 2 * size.to_bytes(width, "little")
                file = bytes(5) + header + bytes(size) + sizes + b"PK\3\4"

                def read(start, nbytes, file=file):
                    return file[start : start + nbytes]

                ((_, start, stop),) = used_of(read, [Record("k", entry, b"")], len(file) - 4)
                assert (start, stop) == (5, len(file) - 4), (size, signature, width)


async def test_offsets_of_zip64(path, monkeypatch):
    monkeypatch.setattr(zip_records, "WIDE32", 100)
    monkeypatch.setattr(zip_records, "WIDE16", 3)
    values = {f"a{i}": VALUE[:50] * i for i in range(6)}
    async with ZipStore(path, mode="w") as store:
        for key, value in values.items():
            await store.set("gone", VALUE)
            await store.set(key, value)
        await store.erase("gone")
        await store.compact()
        assert {key: await read(store, key) for key in values} == values
    assert content(path) == values
    assert {key: await read(ZipStore(path), key) for key in values} == values


async def test_entries_that_overlap_are_refused(path):
    """Folders among them: each would be copied on its own, and the archive would grow."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("value", VALUE)
        archive.mkdir("folder")
        archive.mkdir("folding")
    raw = path.read_bytes()
    at = raw.rindex(b"PK\1\2")
    first = raw.index(b"PK\1\2", raw.index(b"PK\1\2") + 1)
    position = RECORD.size - 4
    path.write_bytes(raw[: at + position] + raw[first + position : first + position + 4] + raw[at + position + 4 :])
    before = path.read_bytes()
    async with ZipStore(path, mode="a") as store:
        with pytest.raises(StoreError, match="overlaps"):
            await store.compact()
        assert await read(store, "value") == VALUE
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == ["x.zip"]


async def test_a_value_without_the_sizes_that_should_follow_it_is_damaged(path):
    made = Pipe()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("a", VALUE)
    path.write_bytes(made.getvalue().replace(b"PK\7\10", b"PK\7\11"))
    async with ZipStore(path, mode="a") as store:
        with pytest.raises(StoreError, match="not followed by its sizes"):
            await store.compact()


def test_neighbours_are_copied_together():
    parts = [Used(None, start, stop) for start, stop in [(0, 5), (5, 9), (12, 20), (20, 21), (30, 31)]]
    assert list(runs(parts)) == [(0, 9), (12, 21), (30, 31)]
    assert list(runs([])) == []


async def test_an_array_that_was_rewritten_often(path):
    async with ZipStore(path, mode="w") as store:
        array = await azarr.create_array(store, "a", shape=(40, 40), chunks=(10, 10), dtype="i4", compressors=None)
        for number in range(1, 5):
            await array.write(number)
        assert await store.compact() >= 3 * 6400
    assert (await (await azarr.open_array(ZipStore(path), "a")).read() == 4).all()
