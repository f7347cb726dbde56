from __future__ import annotations

import asyncio
import errno
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import azarr
from azarr.errors import StoreError, TransientStoreError
from azarr.stores import BlockingStore, LocalStore, Store, file_locks
from azarr.stores.base import in_steps
from azarr.testing import StoreSuite
from azarr.types import ByteRange, Listing, Suffix

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
on_posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX links and signals")


class TestLocalStore(StoreSuite):
    keys_nest = False

    @pytest.fixture(autouse=True)
    def _root(self, tmp_path):
        self.root = tmp_path / "missing" / "root"

    def make_store(self) -> LocalStore:
        return LocalStore(self.root)


class TestFullDurability(TestLocalStore):
    def make_store(self) -> LocalStore:
        return LocalStore(self.root, durability="full")


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "root")


def files(store):
    """Every file and folder below the root, temporary ones too."""
    return sorted(str(path.relative_to(store.root)) for path in Path(store.root).rglob("*"))


def failing(number):
    """A stand-in for a function of the system that always fails."""

    def fail(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return fail


# What the store is


def full(name):
    """A stand-in for a function of the system that fails as on a full disk; what is closed is closed all the same."""
    real = getattr(os, name)

    def fail(*args):
        if name == "close":
            real(*args)
        raise OSError(errno.ENOSPC, "No space left on device")

    return fail


def test_is_both_kinds_of_store(store):
    assert isinstance(store, Store)
    assert isinstance(store, BlockingStore)


def test_root_is_absolute_and_made_by_the_first_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    store = LocalStore("a/../b")
    assert store.root == str(tmp_path / "b")
    assert LocalStore("~/x").root == str(tmp_path / "home" / "x")
    assert store.get_blocking("k") is None
    assert list(tmp_path.iterdir()) == []
    store.set_blocking("k", b"1")
    assert (tmp_path / "b" / "k").read_bytes() == b"1"


def test_equality_hash_repr_and_pickle(tmp_path):
    store = LocalStore(tmp_path, durability="none")
    assert store == LocalStore(str(tmp_path) + "/")
    assert hash(store) == hash(LocalStore(tmp_path))
    assert store != LocalStore(tmp_path / "a")
    assert store != type("Other", (LocalStore,), {})(tmp_path)
    assert store != "x"
    assert repr(store) == f"LocalStore({str(tmp_path)!r})"
    copy = pickle.loads(pickle.dumps(store))
    assert copy == store
    assert copy.durability == "none"


@on_posix
def test_identity_sees_through_links(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    data, link = LocalStore(tmp_path / "data"), LocalStore(tmp_path / "link")
    assert data != link
    assert data.identity == link.identity == ("file", os.path.realpath(tmp_path / "data"))


def test_unknown_durability_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none, file, full"):
        LocalStore(tmp_path, durability="sometimes")


async def test_one_thread_hop_a_call(store, monkeypatch):
    hops = []
    loop = asyncio.get_running_loop()
    run = loop.run_in_executor
    monkeypatch.setattr(loop, "run_in_executor", lambda *args: hops.append(args) or run(*args))
    await store.set("a/b", b"1")
    await store.get("a/b", Suffix(1))
    await store.list_dir("a/")
    await store.erase("a/b")
    await store.erase_prefix("a/")
    assert len(hops) == 5


# Atomic writes


@pytest.mark.parametrize("name", ["write", "fsync", "replace", "close"])
def test_failed_write_leaves_the_old_value_and_no_temporary_file(store, monkeypatch, name):
    store.set_blocking("a/k", b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, full(name))
        with pytest.raises(StoreError, match=r"cannot write 'a/k': .*No space left") as caught:
            store.set_blocking("a/k", b"new")
    assert caught.value.key == "a/k"
    assert isinstance(caught.value.__cause__, OSError)
    assert files(store) == ["a", "a/k"]
    assert store.get_blocking("a/k") == b"old"


@pytest.mark.parametrize("name", ["write", "fsync"])
def test_a_write_of_which_not_even_the_file_can_be_closed_leaves_none(store, monkeypatch, name):
    store.set_blocking("k", b"old")
    with monkeypatch.context() as patch:
        close = os.close

        def fail(descriptor):
            close(descriptor)
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(os, name, failing(errno.EIO))
        patch.setattr(os, "close", fail)
        with pytest.raises(StoreError, match=r"cannot write 'k': .*Input/output error"):
            store.set_blocking("k", b"new")
    assert files(store) == ["k"]
    assert store.get_blocking("k") == b"old"


def test_interrupted_write_leaves_no_temporary_file(store, monkeypatch):
    store.set_blocking("k", b"old")

    def interrupt(*_args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.set_blocking("k", b"new")
    assert files(store) == ["k"]
    assert store.get_blocking("k") == b"old"


def test_short_writes_are_continued(store, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    store.set_blocking("k", bytes(range(100)))
    assert store.get_blocking("k") == bytes(range(100))


OVERWRITE = """
import sys
from azarr.stores import LocalStore

store = LocalStore(sys.argv[1], durability=sys.argv[2])
print("ready", flush=True)
while True:
    for letter in (b"A", b"B"):
        store.set_blocking("a/k", letter * 4_000_000)
"""


@pytest.mark.slow
@on_posix
def test_killed_writer_leaves_one_of_the_values(store):
    store.set_blocking("a/k", b"A" * 4_000_000)
    moments = random.Random(0)
    unfinished = 0
    for i in range(20):
        command = [sys.executable, "-c", OVERWRITE, store.root, "none" if i % 2 else "file"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
            time.sleep(moments.uniform(0, 0.03))
            writer.send_signal(signal.SIGKILL)
        assert store.get_blocking("a/k") in (b"A" * 4_000_000, b"B" * 4_000_000)
        assert asyncio.run(store.list_dir("a/")) == Listing(("a/k",), ())
        unfinished = len(files(store)) - 2
    assert unfinished > 0, "no writer was killed in the middle of a write, so this showed nothing"
    asyncio.run(store.erase_prefix(""))
    assert files(store) == []


@pytest.mark.parametrize(("durability", "first", "again"), [("none", 0, 0), ("file", 1, 1), ("full", 5, 2)])
def test_fsyncs(tmp_path, monkeypatch, durability, first, again):
    store = LocalStore(tmp_path / "root", durability=durability)
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    # The root and two folders are new, then the file and the entry of the file.
    store.set_blocking("a/b/k", b"1")
    assert len(synced) == first
    store.set_blocking("a/b/k", b"2")
    assert len(synced) == first + again


# Writes in two steps


@on_posix
def test_a_write_that_has_begun_is_not_seen_before_its_end(store):
    for old in (None, b"old"):
        value = bytearray(b"new")
        end = store.begin_set("a/k", value)
        value[:] = b"xxx"  # memory that the next value is encoded into
        assert store.get_blocking("a/k") == old
        end()
        assert store.get_blocking("a/k") == b"new"
        assert files(store) == ["a", "a/k"]
        store.set_blocking("a/k", b"old")


@on_posix
def test_a_write_in_two_steps_waits_for_the_disk_in_the_second(store, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", synced.append)
    end = store.begin_set("k", b"1")
    assert synced == []
    end()
    assert len(synced) == 1


@on_posix
def test_a_folder_that_is_erased_between_the_two_steps_is_made_again(store):
    ends = [store.begin_set(f"a/b/{number}", bytes([number]) * 1000) for number in range(3)]
    asyncio.run(store.erase_prefix("a/"))
    assert files(store) == []
    for end in ends:
        end()
    assert [store.get_blocking(f"a/b/{number}") for number in range(3)] == [bytes([number]) * 1000 for number in range(3)]
    assert files(store) == ["a", "a/b", "a/b/0", "a/b/1", "a/b/2"]


@on_posix
@pytest.mark.parametrize("name", ["write", "fsync", "link", "close"])
def test_a_write_in_two_steps_that_fails_leaves_nothing(store, monkeypatch, name):
    store.set_blocking("a/old", b"old")
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(os, name, full(name))
        with pytest.raises(StoreError, match=r"cannot write 'a/k': .*No space left"):
            store.begin_set("a/k", b"new")()
    assert [each for each in files(store) if name != "close" or each != "a/k"] == ["a", "a/old"]
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors


def test_where_nothing_waits_for_the_disk_a_write_is_one_step(tmp_path, monkeypatch):
    store = LocalStore(tmp_path, durability="none")
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    assert store.begin_set("a/k", b"1") is None
    assert store.get_blocking("a/k") == b"1"


def test_a_store_that_writes_in_its_own_way_does_not_write_in_two_steps(store):
    class Counting(LocalStore):
        def set_blocking(self, key, value):
            super().set_blocking(key, value)

    class Named(LocalStore):
        pass

    assert in_steps(store) is not None
    assert in_steps(Named(store.root)) is not None
    assert in_steps(Counting(store.root)) is None
    assert in_steps(azarr.MemoryStore()) is None


def test_default_durability_is_file(tmp_path):
    assert LocalStore(tmp_path).durability == "file"


async def test_cancelled_write_does_not_overtake_the_next(store, monkeypatch):
    await store.set("k", b"old")
    entered, go = threading.Event(), threading.Event()
    replace = os.replace

    def slow(*args):
        entered.set()
        go.wait(10)
        replace(*args)

    monkeypatch.setattr(os, "replace", slow)
    task = asyncio.create_task(store.set("k", b"first"))
    await asyncio.to_thread(entered.wait, 10)
    for _ in range(3):
        task.cancel()
        await asyncio.sleep(0)
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    await store.set("k", b"second")
    assert await store.get("k") == b"second"


def test_writing_while_the_prefix_is_erased(store):
    failures, done = [], threading.Event()

    def write(name):
        for i in range(100):
            try:
                store.set_blocking(f"a/b/{name}/{i}", b"x" * 100)
            except TransientStoreError:
                continue
            except StoreError as error:
                failures.append(error)

    def erase():
        while not done.is_set():
            asyncio.run(store.erase_prefix("a/"))

    writers = [threading.Thread(target=write, args=(name,)) for name in "xyz"]
    eraser = threading.Thread(target=erase)
    for thread in (*writers, eraser):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    eraser.join()
    assert failures == []


def test_write_whose_folder_always_vanishes_is_transient(store, monkeypatch):
    monkeypatch.setattr(os, "mkdir", failing(errno.ENOENT))
    with pytest.raises(TransientStoreError, match="erased again and again"):
        store.set_blocking("a/k", b"")


# Missing is not failing


def test_absent_is_none_and_forbidden_raises(store, monkeypatch):
    store.set_blocking("k", b"1")
    monkeypatch.setattr(os, "open", failing(errno.EACCES))
    for call in (store.get_blocking, lambda key: store.get_into(key, memoryview(bytearray(1)))):
        with pytest.raises(StoreError, match="cannot read 'k'") as caught:
            call("k")
        assert caught.value.key == "k"
        assert isinstance(caught.value.__cause__, PermissionError)
        assert not isinstance(caught.value, TransientStoreError)


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT])
def test_passing_failures_are_transient(store, monkeypatch, number):
    monkeypatch.setattr(os, "open", failing(number))
    with pytest.raises(TransientStoreError):
        store.get_blocking("k")
    with pytest.raises(TransientStoreError):
        store.set_blocking("k", b"")


@pytest.mark.parametrize(("name", "verb"), [("unlink", "erase"), ("scandir", "list")])
async def test_forbidden_erasing_and_listing_raise(store, monkeypatch, name, verb):
    store.set_blocking("a/k", b"1")
    monkeypatch.setattr(os, name, failing(errno.EIO))
    if verb == "erase":
        with pytest.raises(StoreError, match="cannot erase 'a/k'"):
            await store.erase("a/k")
    else:
        with pytest.raises(StoreError, match="cannot list 'a/'"):
            await store.list_dir("a/")
        with pytest.raises(StoreError, match="cannot list 'a/'"):
            [key async for key in store.list_prefix("a/")]
    with pytest.raises(StoreError, match="cannot erase 'a/'"):
        await store.erase_prefix("a/")


async def test_key_that_is_a_folder_is_absent(store):
    store.set_blocking("a/b/c", b"1")
    for key in ("a", "a/b"):
        assert await store.get(key) is None
        assert store.get_blocking(key, Suffix(0), lambda nbytes: memoryview(bytearray(nbytes))) is None
        assert store.get_into(key, memoryview(bytearray(0))) is None
        assert store.get_into(key, memoryview(bytearray(8))) is None
        await store.erase(key)
        with pytest.raises(StoreError, match="cannot hold a key and keys below it"):
            await store.set(key, b"2")
    assert files(store) == ["a", "a/b", "a/b/c"]


async def test_key_below_a_file_is_absent(store):
    store.set_blocking("a", b"1")
    for key in ("a/b", "a/b/c"):
        assert await store.get(key) is None
        assert store.get_into(key, memoryview(bytearray(8))) is None
        await store.erase(key)
        with pytest.raises(StoreError, match="cannot hold a key and keys below it"):
            await store.set(key, b"2")
    assert await store.list_dir("a/") == Listing((), ())
    await store.erase_prefix("a/")
    assert files(store) == ["a"]


@pytest.mark.parametrize("key", ["x" * 300, "a/" * 3000 + "b", "\ud800"])
def test_key_that_no_file_can_have_raises(store, key):
    store.set_blocking("k", b"")
    with pytest.raises(StoreError):
        store.get_blocking(key)
    with pytest.raises(StoreError):
        store.set_blocking(key, b"")
    with pytest.raises(StoreError):
        store.erase_blocking(key)


def test_deep_key(store):
    key = "a/" * 1500 + "b"
    store.set_blocking(key, b"1")
    assert store.get_blocking(key) == b"1"
    asyncio.run(store.erase_prefix("a/"))
    assert files(store) == []


def test_file_that_shrinks_while_it_is_read_raises(store, monkeypatch):
    store.set_blocking("k", bytes(1000))
    fstat = os.fstat

    def shrink(descriptor):
        status = fstat(descriptor)
        os.truncate(Path(store.root, "k"), 400)
        return status

    monkeypatch.setattr(os, "fstat", shrink)
    for reserve in (None, lambda nbytes: memoryview(bytearray(nbytes))):
        Path(store.root, "k").write_bytes(bytes(1000))
        with pytest.raises(TransientStoreError, match="400 of 1000 bytes"):
            store.get_blocking("k", None, reserve)


@on_posix
def test_short_reads_are_continued(store, monkeypatch):
    value = bytes(range(200))
    store.set_blocking("k", value)
    read, readv = os.read, os.readv
    monkeypatch.setattr(os, "read", lambda descriptor, nbytes: read(descriptor, min(nbytes, 7)))
    monkeypatch.setattr(os, "readv", lambda descriptor, buffers: readv(descriptor, [buffers[0][:7]] if len(buffers[0]) > 7 else buffers))
    assert store.get_blocking("k") == value
    assert store.get_blocking("k", ByteRange(3, 100)) == value[3:100]
    assert store.get_blocking("k", Suffix(50), lambda nbytes: memoryview(bytearray(nbytes))) == value[-50:]
    for nbytes, answer in ((200, 200), (300, 200), (199, 200), (100, 101)):
        out = memoryview(bytearray(nbytes))
        assert store.get_into("k", out) == answer
        assert out[: min(nbytes, 200)] == value[:nbytes]


@on_posix
def test_parts_are_cut_at_the_end_of_the_file_and_never_trusted(store, monkeypatch):
    value = bytes(range(200))
    store.set_blocking("k", value)
    asked = []

    def reserve(nbytes):
        asked.append(nbytes)
        return memoryview(bytearray(nbytes))

    assert store.get_blocking("k", ByteRange(150, 170), reserve) == value[150:170]
    assert store.get_blocking("k", ByteRange(150, 300), reserve) == value[150:]
    assert store.get_blocking("k", ByteRange(300, 310), reserve) == b""
    assert store.get_blocking("k", ByteRange(7, 7), reserve) == b""
    asked.clear()
    assert store.get_blocking("k", ByteRange(0, 2**40), reserve) == value
    assert asked == [200]
    preadv = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, start: preadv(descriptor, [buffers[0][:7]], start))
    assert store.get_blocking("k", ByteRange(3, 100), reserve) == value[3:100]
    os.mkdir(os.path.join(store.root, "folder"))
    assert store.get_blocking("folder", ByteRange(0, 5), reserve) is None


@on_posix
async def test_chunks_of_files_that_are_handed_out_piece_by_piece_are_read(store, monkeypatch):
    """As some file systems in user space do it."""
    values = np.arange(5000, dtype="i8").reshape(50, 100)
    for name, compressors in (("zstd", "auto"), ("raw", None)):
        array = await azarr.create_array(store, name, shape=(50, 100), chunks=(5, 10), dtype="i8", compressors=compressors)
        await array.write(values)
    read, readv = os.read, os.readv
    monkeypatch.setattr(os, "read", lambda descriptor, nbytes: read(descriptor, min(nbytes, 50)))
    monkeypatch.setattr(os, "readv", lambda descriptor, buffers: readv(descriptor, [buffers[0][:50]] if len(buffers[0]) > 50 else buffers))
    for name in ("zstd", "raw"):
        assert np.array_equal(await (await azarr.open_array(store, name)).read(), values)


@on_posix
def test_large_reads_go_in_pieces(store, monkeypatch):
    monkeypatch.setattr("azarr.stores.files.PIECE", 64)
    value = bytes(range(200))
    store.set_blocking("k", value)
    for nbytes, answer in ((200, 200), (300, 200), (199, 200), (64, 65), (128, 129)):
        out = memoryview(bytearray(nbytes))
        assert store.get_into("k", out) == answer
        assert out[: min(nbytes, 200)] == value[:nbytes]


def test_bytes_are_read_into_reserved_memory(store):
    scratch, asked = memoryview(bytearray(1000)), []
    store.set_blocking("k", b"x" * 300)

    def reserve(nbytes):
        asked.append(nbytes)
        return scratch

    value = store.get_blocking("k", ByteRange(100), reserve)
    assert asked == [200]
    assert value.obj is scratch.obj
    assert len(value) == 200


# Temporary files


@pytest.mark.parametrize("key", [".__azarr_tmp_x", "a/.__azarr_tmp_x", ".__azarr_tmp_x/b"])
async def test_temporary_names_are_no_keys(store, key):
    for call in (store.get(key), store.set(key, b""), store.erase(key), store.erase_prefix(f"{key}/")):
        with pytest.raises(StoreError, match="temporary"):
            await call
    with pytest.raises(StoreError, match="temporary"):
        store.get_into(key, memoryview(bytearray(1)))
    store.set_blocking("a/fine.__azarr_tmp_x", b"1")
    assert store.get_blocking("a/fine.__azarr_tmp_x") == b"1"


async def test_temporary_files_are_hidden_and_erased_with_their_prefix(store):
    store.set_blocking("a/k", b"1")
    Path(store.root, "a", ".__azarr_tmp_0123").write_bytes(b"half")
    Path(store.root, ".__azarr_tmp_4567").write_bytes(b"half")
    assert [key async for key in store.list_prefix()] == ["a/k"]
    assert await store.list_dir() == Listing((), ("a/",))
    assert await store.list_dir("a/") == Listing(("a/k",), ())
    await store.erase_prefix("a/")
    assert files(store) == [".__azarr_tmp_4567"]
    await store.erase_prefix("")
    assert files(store) == []
    assert Path(store.root).is_dir()


async def test_names_that_are_no_keys_are_not_listed(store):
    store.set_blocking("k", b"1")
    try:
        Path(store.root, "a\\b").write_bytes(b"")
    except OSError:
        pytest.skip("a backslash cannot be in a file's name here")
    assert await store.list_dir() == Listing(("k",), ())
    assert [key async for key in store.list_prefix()] == ["k"]


# Symbolic links


@pytest.fixture
def linked(store, tmp_path):
    """A store with links to a folder and a file outside of its root, to nowhere, and back to the root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "k").write_bytes(b"outside")
    store.set_blocking("in/k", b"inside")
    root = Path(store.root)
    (root / "folder").symlink_to(outside)
    (root / "file").symlink_to(outside / "k")
    (root / "nowhere").symlink_to(tmp_path / "absent")
    (root / "in" / "up").symlink_to(root)
    return store


@on_posix
async def test_links_are_followed(linked, tmp_path):
    assert await linked.get("folder/k") == b"outside"
    assert await linked.get("file") == b"outside"
    assert await linked.get("nowhere") is None
    await linked.set("folder/new", b"1")
    assert (tmp_path / "outside" / "new").read_bytes() == b"1"
    with pytest.raises(StoreError):
        await linked.set("nowhere/k", b"1")


@on_posix
async def test_listing_follows_links_but_not_in_circles(linked):
    assert await linked.list_dir() == Listing(("file",), ("folder/", "in/"))
    assert sorted([key async for key in linked.list_prefix()]) == ["file", "folder/k", "in/k"]


@on_posix
async def test_writing_and_erasing_a_link_leaves_its_target(linked, tmp_path):
    await linked.set("file", b"new")
    assert await linked.get("file") == b"new"
    await linked.erase_prefix("file/")
    assert await linked.get("file") == b"new"
    await linked.erase_prefix("folder/")
    assert await linked.get("folder/k") is None
    await linked.erase_prefix("")
    assert files(linked) == []
    assert (tmp_path / "outside" / "k").read_bytes() == b"outside"


# Resources and large stores


@on_linux
async def test_no_descriptor_is_leaked(store, monkeypatch):
    store.set_blocking("a/k", b"x" * 100)

    def count():
        return len(list(Path("/proc/self/fd").iterdir()))

    await asyncio.to_thread(store.get_blocking, "a/k")
    before = count()
    for _ in range(20):
        await store.set("a/k", b"y" * 100)
        for key in ("a/k", "a", "a/k/x", "missing"):
            await store.get(key)
            store.get_into(key, memoryview(bytearray(10)))
        await store.list_dir("a/")
        keys = store.list_prefix()
        await anext(keys)
        await keys.aclose()
    with monkeypatch.context() as patch:
        patch.setattr(os, "fstat", failing(errno.EIO))
        patch.setattr(os, "write", failing(errno.EIO))
        for _ in range(20):
            with pytest.raises(StoreError):
                store.get_blocking("a/k")
            with pytest.raises(StoreError):
                store.set_blocking("a/k", b"z")
    assert count() == before


@pytest.mark.parametrize("shares", ["all", "some", "nothing", "no such call"])
@pytest.mark.parametrize("locking", [True, False])
def test_copies_whole_files(tmp_path, monkeypatch, shares, locking):
    """Whatever the system does of it by itself."""
    share, values = getattr(os, "copy_file_range", None), {"a/k": bytes(range(256)) * 1000, "empty": b""}

    def some(source, target, _):
        if shares == "nothing" or os.lseek(source, 0, os.SEEK_CUR):
            raise OSError(errno.EXDEV, "not between these")
        return share(source, target, 1000)

    if shares == "no such call":
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    elif shares != "all":
        if share is None:
            pytest.skip("needs a system that copies files by itself, such as Linux")
        monkeypatch.setattr(os, "copy_file_range", some)
    locking = locking and file_locks.AVAILABLE
    source, target = (LocalStore(tmp_path / name, durability="none", locking=locking) for name in ("source", "target"))
    target.set_blocking("new/empty", b"old")
    for key, value in values.items():
        source.set_blocking(key, value)
        assert target.copy_from(source, key, f"new/{key}")
        assert target.get_blocking(f"new/{key}") == value
    assert not target.copy_from(source, "missing", "new/missing")
    assert not target.copy_from(source, "a", "new/missing")
    assert target.get_blocking("new/missing") is None
    with pytest.raises(StoreError, match="not a key"):
        target.copy_from(source, "../x", "x")
    with pytest.raises(StoreError, match="cannot write"):
        target.copy_from(source, "a/k", "new/a/k/below")
    assert sorted(os.listdir(tmp_path / "target/new")) == ["a", "empty"]


async def test_listing_5000_keys_never_works_in_the_loop(tmp_path, monkeypatch):
    store = LocalStore(tmp_path, durability="none")
    expected = sorted(f"c/{i % 10}/{i}" for i in range(5000))
    for key in expected:
        store.set_blocking(key, b"")
    threads, turns = set(), 0
    scandir = os.scandir

    def record(path):
        threads.add(threading.get_ident())
        return scandir(path)

    async def tick():
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    monkeypatch.setattr(os, "scandir", record)
    ticker = asyncio.create_task(tick())
    assert sorted([key async for key in store.list_prefix("c/")]) == expected
    ticker.cancel()
    assert threading.get_ident() not in threads
    assert turns >= 5


async def test_listing_while_keys_come_and_go(store):
    stop = threading.Event()
    for i in range(300):
        store.set_blocking(f"stays/{i % 3}/{i}", b"")

    def churn():
        i = 0
        while not stop.is_set():
            store.set_blocking(f"goes/{i % 5}/k", b"")
            store._erase_folder(f"goes/{(i * 3) % 5}/")
            i += 1

    thread = threading.Thread(target=churn)
    thread.start()
    try:
        for _ in range(20):
            assert len([key async for key in store.list_prefix() if key.startswith("stays/")]) == 300
            await store.list_dir("goes/")
    finally:
        stop.set()
        thread.join()
