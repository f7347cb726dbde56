"""Writers of one folder in several processes, and file systems that cannot keep them apart."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import threading
import warnings
from pathlib import Path

import pytest

from azarr.errors import PreconditionFailedError, StoreError
from azarr.stores import LocalStore, file_locks
from azarr.stores.base import as_conditional, as_locking

pytestmark = pytest.mark.skipif(not file_locks.AVAILABLE, reason="this system has no flock; POSIX systems do")

PATIENCE = 60


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "root", durability="none")


def files(store):
    return sorted(str(path.relative_to(store.root)) for path in Path(store.root).rglob("*"))


def finished(processes):
    for process in processes:
        process.communicate(timeout=PATIENCE)
    return [process.returncode for process in processes]


COUNT = """
import sys
from azarr.stores import LocalStore

store = LocalStore(sys.argv[1], durability="none")
print("ready", flush=True)
sys.stdin.read(1)
for turn in range(int(sys.argv[3])):
    store.update_blocking("a/k", lambda old: str(int(bytes(old or b"0")) + 1).encode())
    if turn % 7 == 0 and sys.argv[2] == "1":
        store.update_blocking("a/erased", lambda old: None if old else b"1")
"""

COUNT_IF = """
import asyncio, sys
from azarr import PreconditionFailedError
from azarr.stores import LocalStore

store = LocalStore(sys.argv[1], durability="none")
print("ready", flush=True)
sys.stdin.read(1)

async def main():
    for _ in range(int(sys.argv[3])):
        while True:
            value, version = await store.get_versioned("a/k")
            try:
                await store.set_if("a/k", str(int(bytes(value or b"0")) + 1).encode(), version)
                break
            except PreconditionFailedError:
                pass

asyncio.run(main())
"""


def go(processes):
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


@pytest.mark.slow
def test_processes_that_change_one_value_lose_nothing(store, started):
    processes = [started(code, store.root, number % 2, 300) for number, code in enumerate([COUNT, COUNT, COUNT_IF])]
    go(processes)
    assert finished(processes) == [0, 0, 0]
    assert bytes(store.get_blocking("a/k")) == b"900"
    assert set(files(store)) <= {"a", "a/k", "a/erased"}


WHOLE = """
import sys
from azarr.stores import LocalStore

store = LocalStore(sys.argv[1], durability="none")
print("ready", flush=True)
sys.stdin.read(1)
for turn in range(int(sys.argv[2])):
    store.set_blocking("k", f"{turn} 0".encode())
    generation = store.get_blocking("k")
"""

PART = """
import sys
from azarr.stores import LocalStore

store = LocalStore(sys.argv[1], durability="none")
print("ready", flush=True)
sys.stdin.read(1)
latest = -1
for _ in range(int(sys.argv[2])):
    def change(old):
        global seen
        seen, count = map(int, bytes(old).split())
        return f"{seen} {count + 1}".encode()
    store.update_blocking("k", change)
    assert seen >= latest, "a value that was written as a whole has been lost"
    latest = seen
"""


@pytest.mark.slow
def test_a_value_that_is_written_as_a_whole_is_not_lost_to_one_who_changes_it(store, started):
    store.set_blocking("k", b"0 0")
    processes = [started(WHOLE, store.root, 1500), started(PART, store.root, 1500)]
    go(processes)
    assert finished(processes) == [0, 0]
    assert bytes(store.get_blocking("k")).startswith(b"1499 ")


HOLD = """
import sys, time
from azarr.stores import LocalStore

store = LocalStore(sys.argv[1], durability="none")

def change(old):
    print("ready", flush=True)
    time.sleep(1000)

store.update_blocking("k", change)
"""

HOLD_FOLDER = """
import asyncio, sys
from azarr.stores import LocalStore

async def main():
    async with LocalStore(sys.argv[1]).lock(""):
        print("ready", flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


def test_a_process_that_is_killed_leaves_no_lock(store, started):
    store.set_blocking("k", b"old")
    holder = started(HOLD, store.root)
    result = []
    waiting = threading.Thread(target=lambda: store.update_blocking("k", lambda old: result.append(bytes(old)) or b"new"))
    waiting.start()
    assert not result
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=PATIENCE)
    waiting.join(PATIENCE)
    assert result == [b"old"]
    assert files(store) == ["k"]


async def test_a_process_that_is_killed_leaves_no_lock_of_a_folder(store, started):
    store.set_blocking("k", b"old")
    holder = started(HOLD_FOLDER, store.root)

    async def enter():
        async with store.lock(""):
            return True

    waiting = asyncio.create_task(enter())
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=PATIENCE)
    assert await asyncio.wait_for(waiting, PATIENCE)
    assert files(store) == ["k"]


async def test_waiting_for_a_folder_can_be_given_up(store):
    store.set_blocking("k", b"old")
    async with store.lock(""):
        waiting = asyncio.create_task(store.lock("").__aenter__())
        for _ in range(10):
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    async with asyncio.timeout(PATIENCE), store.lock(""):
        pass


def test_a_lock_of_a_folder_is_not_kept_by_one_who_is_cancelled(store, cancelled_everywhere, how_cancelled):
    store.set_blocking("k", b"old")

    async def enter():
        async with store.lock(""):
            pass

    async def prepare():
        def check():
            descriptor = os.open(store.root, os.O_RDONLY)
            file_locks.fcntl.flock(descriptor, file_locks.fcntl.LOCK_EX | file_locks.fcntl.LOCK_NB)
            os.close(descriptor)

        return enter(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 1


async def test_the_lock_of_a_folder_that_does_not_exist_keeps_nobody_out(store):
    async with store.lock("a/"), store.lock("a/"):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system with fork")
def test_a_forked_process_does_not_keep_the_lock(store):
    store.set_blocking("k", b"old")
    ends = os.pipe()
    children = []

    def change(_old):
        child = os.fork()
        if not child:  # holds a copy of the descriptor until the test is over
            os.close(ends[1])
            os.read(ends[0], 1)
            os._exit(0)
        children.append(child)
        raise ZeroDivisionError

    with warnings.catch_warnings(), pytest.raises(ZeroDivisionError):
        warnings.simplefilter("ignore", DeprecationWarning)  # that there are other threads does not matter to a child that only waits
        store.update_blocking("k", change)
    store.update_blocking("k", lambda _: b"new")  # would wait for ever
    assert bytes(store.get_blocking("k")) == b"new"
    for end in ends:
        os.close(end)
    os.waitpid(children[0], 0)


# What is given up


def refusing(number):
    def refuse(*_args, **_kwargs):
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
async def test_a_file_system_without_locks_is_an_error_that_says_what_to_do(store, monkeypatch, number):
    store.set_blocking("a/k", b"old")
    monkeypatch.setattr(file_locks.fcntl, "flock", refusing(number))
    for write in (store.set("a/k", b"new"), store.erase("a/k"), asyncio.to_thread(store.update_blocking, "a/k", lambda _: b"new")):
        with pytest.raises(StoreError, match=r"has no such locks.*locking=False"):
            await write
    with pytest.raises(StoreError, match=r"has no such locks.*locking=False"):
        async with store.lock("a/"):
            pass
    assert files(store) == ["a", "a/k"]
    assert await store.get("a/k") == b"old"
    free = LocalStore(store.root, durability="none", locking=False)
    await free.set("a/k", b"new")
    free.update_blocking("a/k", lambda old: bytes(old) + b"er")
    assert await free.get("a/k") == b"newer"
    await free.erase("a/k")
    assert files(store) == ["a"]


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
async def test_a_file_system_without_links(store, monkeypatch, number):
    monkeypatch.setattr(os, "link", refusing(number))
    await store.set("a/k", b"1")
    await store.set("a/k", b"2")
    assert await store.get("a/k") == b"2"
    with pytest.raises(PreconditionFailedError):
        await store.set_if("a/k", b"3", None)
    outcomes = await asyncio.gather(*(store.set_if("a/other", b"1", None) for _ in range(10)), return_exceptions=True)
    assert [outcome for outcome in outcomes if outcome is None] == [None]
    assert files(store) == ["a", "a/k", "a/other"]


def test_somebody_else_is_faster_to_create_where_there_are_no_links(store, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(errno.EPERM))
    store.set_blocking("k", b"old")
    (Path(store.root) / "new").write_bytes(b"new")
    assert not file_locks.create(f"{store.root}/new", f"{store.root}/k")
    assert files(store) == ["k", "new"]


def test_other_failures_of_links_come_out(store, monkeypatch):
    monkeypatch.setattr(os, "link", refusing(errno.ENOSPC))
    with pytest.raises(StoreError, match="No space left"):
        store.set_blocking("k", b"1")
    assert files(store) == []


def test_a_link_that_leads_nowhere_is_replaced(store):
    store.set_blocking("other", b"1")
    os.symlink("missing", f"{store.root}/k")
    store.set_blocking("k", b"new")
    assert bytes(store.get_blocking("k")) == b"new"
    os.symlink("missing", f"{store.root}/l")
    store.update_blocking("l", lambda _: b"new")
    os.symlink("missing", f"{store.root}/m")
    store.erase_blocking("m")
    assert files(store) == ["k", "l", "other"]


def test_a_file_that_is_only_readable_can_be_replaced(store):
    store.set_blocking("k", b"old")
    os.chmod(f"{store.root}/k", 0o444)
    store.set_blocking("k", b"new")
    store.update_blocking("k", lambda old: bytes(old) + b"er")
    assert bytes(store.get_blocking("k")) == b"newer"


def test_one_who_waited_for_a_file_that_has_been_replaced_locks_the_new_one(store):
    store.set_blocking("k", b"0")
    entered, go_on = threading.Event(), threading.Event()
    order = []

    def first(old):
        entered.set()
        go_on.wait(PATIENCE)
        order.append(bytes(old))
        return b"1"

    def second(old):
        order.append(bytes(old))
        return b"2"

    threads = [threading.Thread(target=store.update_blocking, args=("k", first))]
    threads[0].start()
    entered.wait(PATIENCE)
    threads += [threading.Thread(target=store.update_blocking, args=("k", second)) for _ in range(3)]
    for thread in threads[1:]:
        thread.start()
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert order == [b"0", b"1", b"2", b"2"]


def test_one_who_waited_for_a_file_that_has_been_erased_starts_with_nothing(store):
    store.set_blocking("k", b"0")
    entered, go_on = threading.Event(), threading.Event()
    seen = []

    def erase(_old):
        entered.set()
        go_on.wait(PATIENCE)

    threads = [threading.Thread(target=store.update_blocking, args=("k", erase))]
    threads[0].start()
    entered.wait(PATIENCE)
    threads.append(threading.Thread(target=store.update_blocking, args=("k", lambda old: seen.append(old) or b"1")))
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
    assert seen == [None]
    assert bytes(store.get_blocking("k")) == b"1"


def test_one_who_creates_a_value_too_late_starts_again(store):
    seen = []

    def change(old):
        seen.append(old if old is None else bytes(old))
        if len(seen) == 1:
            LocalStore(store.root).set_blocking("k", b"1")
        return b"2"

    store.update_blocking("k", change)
    assert seen == [None, b"1"]
    assert bytes(store.get_blocking("k")) == b"2"
    assert files(store) == ["k"]


def test_a_store_without_locks_says_so(tmp_path, monkeypatch):
    store = LocalStore(tmp_path, locking=False)
    assert as_conditional(store) is None
    assert as_locking(store) is None
    monkeypatch.setattr(file_locks, "AVAILABLE", False)
    assert not LocalStore(tmp_path).locking
    with pytest.raises(ValueError, match="no flock"):
        LocalStore(tmp_path, locking=True)
