from __future__ import annotations

import asyncio
import os
from contextlib import suppress

import pytest

from azarr.stores import LocalStore, MemoryStore, PrefixStore, page_cache
from azarr.stores.base import at_hand
from azarr.stores.page_cache import read_cached
from azarr.types import ByteRange, Suffix

pytestmark = pytest.mark.skipif(not page_cache.AVAILABLE, reason="only Linux can tell whether a file is in memory")


def reserve(nbytes: int) -> memoryview:
    return memoryview(bytearray(nbytes + 3))


@pytest.fixture
def path(tmp_path):
    (tmp_path / "value").write_bytes(b"12345")
    return tmp_path / "value"


@pytest.fixture(autouse=True)
def _no_descriptor_is_left():
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("limit", [5, 6, 1000])
def test_what_is_in_memory_is_read(path, limit):
    assert read_cached(str(path), limit, reserve) == b"12345"


def test_an_empty_file_is_read(path):
    path.write_bytes(b"")
    assert read_cached(str(path), 0, reserve) == b""


def test_an_absent_file_is_absent_or_left_to_others(path):
    """The system may have to look at the disk for that."""
    with pytest.raises((FileNotFoundError, BlockingIOError)):
        read_cached(str(path) + "x", 10, reserve)


def test_what_is_too_long_is_left_to_others(path):
    with pytest.raises(BlockingIOError, match="not a short file"):
        read_cached(str(path), 4, reserve)


def test_a_folder_is_left_to_others(tmp_path):
    with pytest.raises(BlockingIOError, match="not a short file"):
        read_cached(str(tmp_path), 10**6, reserve)


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BlockingIOError, match="not a short file"):
        read_cached(str(tmp_path / "pipe"), 10, reserve)


def test_a_file_that_is_not_in_memory_is_left_to_others(path, monkeypatch):
    def preadv(descriptor, buffers, offset, flags):
        assert flags == os.RWF_NOWAIT
        raise BlockingIOError

    monkeypatch.setattr(os, "preadv", preadv)
    with pytest.raises(BlockingIOError):
        read_cached(str(path), 10, reserve)


def test_a_file_of_which_only_a_part_is_in_memory_is_left_to_others(path, monkeypatch):
    monkeypatch.setattr(os, "preadv", lambda *_: 3)
    with pytest.raises(BlockingIOError, match="not all in memory"):
        read_cached(str(path), 10, reserve)


def test_a_system_without_the_call_is_left_to_others(path, monkeypatch):
    monkeypatch.setattr(page_cache, "OPENAT2", 100_000)
    with pytest.raises(OSError, match="not implemented"):
        read_cached(str(path), 10, reserve)
    monkeypatch.setattr(page_cache, "_libc", None)
    with pytest.raises(BlockingIOError, match="cannot tell"):
        read_cached(str(path), 10, reserve)


def test_stores_have_values_at_hand(tmp_path):
    for store in (LocalStore(tmp_path), MemoryStore()):
        store.set_blocking("a/b", b"12345")
        get = at_hand(store)
        assert get("a/b", 5, reserve) == b"12345"
        with suppress(BlockingIOError):
            assert get("a/x", 5, reserve) is None
        with pytest.raises(BlockingIOError):
            get("a/b", 4, reserve)


def test_who_changes_how_values_are_read_has_none_at_hand(tmp_path):
    class Other(MemoryStore):
        def get_blocking(self, key, byte_range=None, reserve=None):
            return b"other"

    class Same(MemoryStore):
        pass

    assert at_hand(Other()) is None
    assert at_hand(Same()) is not None
    assert at_hand(PrefixStore(MemoryStore(), "a/")) is None
    assert at_hand(object()) is None


@pytest.fixture
def threads(monkeypatch):
    """What is called in threads."""
    called, to_thread = [], asyncio.to_thread

    async def noted(function, *args):
        called.append(function.__name__)
        return await to_thread(function, *args)

    monkeypatch.setattr(asyncio, "to_thread", noted)
    yield called
    called.clear()


@pytest.mark.parametrize("part", [None, ByteRange(0, 5), ByteRange(0, 6), ByteRange(0, None), ByteRange(0, 10**9)])
async def test_a_store_of_files_needs_no_thread_for_what_is_in_memory(path, threads, part):
    assert await LocalStore(path.parent).get("value", part) == b"12345"
    assert threads == []


@pytest.mark.parametrize(
    ("part", "expected"),
    [(ByteRange(0, 4), b"1234"), (ByteRange(1, 5), b"2345"), (ByteRange(0, 0), b""), (Suffix(2), b"45"), (Suffix(9), b"12345")],
)
async def test_parts_of_a_file_are_read_by_threads(path, threads, part, expected):
    assert await LocalStore(path.parent).get("value", part) == expected
    assert threads == ["get_blocking"]


async def test_a_long_file_is_read_by_a_thread(path, threads):
    path.write_bytes(bytes(65537))
    assert await LocalStore(path.parent).get("value") == bytes(65537)
    assert threads == ["get_blocking"]


@pytest.mark.parametrize("key", ["x", "value/x", "\udc80", "a/b/c"])
async def test_an_absent_key_is_absent_however_that_is_found_out(path, key):
    store = LocalStore(path.parent)
    for _ in range(2):
        assert await store.get(key) is None


async def test_what_a_store_of_files_has_read_is_the_readers_own(path):
    store = LocalStore(path.parent)
    value = await store.get("value")
    path.write_bytes(b"54321")
    assert await store.get("value") == b"54321"
    assert value == b"12345"


async def test_who_reads_file_after_file_leaves_others_their_turn(path):
    store, turns = LocalStore(path.parent), 0

    async def other():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(other())
    for _ in range(20):
        await store.get("value")
    task.cancel()
    assert turns >= 20
