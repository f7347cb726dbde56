"""Locks by key: whoever they are, two writers of one key never hold it together, and nobody is forgotten."""

from __future__ import annotations

import asyncio
import gc
import threading
from contextlib import contextmanager, suppress

import pytest

from azarr.locks import KeyedLocks, locks_of
from azarr.stores.latency import LatencyStore
from azarr.stores.local import LocalStore
from azarr.stores.memory import MemoryStore

PATIENCE = 30


class Inside:
    """Fails when two are inside at once."""

    def __init__(self) -> None:
        self.who = []
        self.count = 0

    def enter(self, who) -> None:
        assert not self.who, f"{who} came in while {self.who} was inside"
        self.who.append(who)

    def leave(self) -> None:
        self.who.pop()
        self.count += 1


@contextmanager
def held(locks, key):
    """Holds a lock in a thread, as workers do, save that they do not wait."""
    granted = threading.Event()
    if not locks.acquire_or_call(key, granted.set):
        assert granted.wait(PATIENCE)
    try:
        yield
    finally:
        locks.release(key)


@pytest.fixture
def locks():
    made = KeyedLocks()
    yield made
    assert made._queues == {}


async def turns(count=5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_tasks_exclude_each_other(locks, complaints):
    inside = Inside()

    async def task(number):
        for _ in range(20):
            async with locks.hold("k"):
                inside.enter(number)
                await turns(number % 3)
                inside.leave()

    await asyncio.gather(*map(task, range(10)))
    assert inside.count == 200


def test_threads_exclude_each_other(locks):
    inside = Inside()

    def work(number):
        for _ in range(200):
            with held(locks, "k"):
                inside.enter(number)
                inside.leave()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert inside.count == 1200


def test_threads_and_tasks_of_several_loops_exclude_each_other(locks):
    inside, start = Inside(), threading.Barrier(5)

    async def task(who):
        for number in range(50):
            async with locks.hold("k"):
                inside.enter(who)
                await turns(number % 3)
                inside.leave()

    async def tasks(who):
        await asyncio.gather(*(task((who, number)) for number in range(4)))

    def loop(who):
        start.wait(PATIENCE)
        asyncio.run(tasks(who))

    def thread(who):
        start.wait(PATIENCE)
        for _ in range(200):
            with held(locks, "k"):
                inside.enter(who)
                inside.leave()

    threads = [threading.Thread(target=target, args=(who,)) for who, target in enumerate((loop, loop, loop, thread, thread))]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
        assert not each.is_alive()
    assert inside.count == 3 * 4 * 50 + 2 * 200


async def test_other_keys_do_not_wait(locks, complaints):
    async with locks.hold("a"), locks.hold("b"):
        with held(locks, "c"):
            assert locks._queues.keys() == {"a", "b", "c"}


async def test_first_come_first_served(locks, complaints):
    order, threads = [], []

    def thread(number):
        with held(locks, "k"):
            order.append(number)

    async def task(number):
        async with locks.hold("k"):
            order.append(number)
            await turns()

    tasks = []
    async with locks.hold("k"):
        for number in range(20):
            if number % 4 == 3:
                threads.append(threading.Thread(target=thread, args=(number,)))
                threads[-1].start()
            else:
                tasks.append(asyncio.create_task(task(number)))
            while len(locks._queues["k"]) <= number:  # noqa: ASYNC110 - until it stands in the queue
                await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    for each in threads:
        await asyncio.to_thread(each.join, PATIENCE)
    assert order == list(range(20))


async def test_one_that_comes_late_does_not_push_in(locks, complaints):
    order = []

    async def task(who):
        async with locks.hold("k"):
            order.append(who)

    async with locks.hold("k"):
        waiting = asyncio.create_task(task("first"))
        await turns()
    # the lock has been handed to the one that waits, which has not run yet
    await task("second")
    await waiting
    assert order == ["first", "second"]


async def test_an_error_inside_gives_the_lock_back(locks, complaints):
    error = ValueError()
    for _ in range(3):
        with pytest.raises(ValueError) as caught:
            async with locks.hold("k"):
                raise error
        assert caught.value is error
        with pytest.raises(ValueError), held(locks, "k"):
            raise error


async def test_one_that_is_cancelled_while_it_waits_leaves_the_queue(locks, complaints):
    order = []

    async def task(who):
        async with locks.hold("k"):
            order.append(who)

    async with locks.hold("k"):
        tasks = [asyncio.create_task(task(number)) for number in range(5)]
        await turns()
        for number in (0, 2, 4):
            tasks[number].cancel()
        await asyncio.wait([tasks[number] for number in (0, 2, 4)])
        assert len(locks._queues["k"]) == 2
    await asyncio.wait(tasks)
    assert order == [1, 3]
    assert [task.cancelled() for task in tasks] == [True, False, True, False, True]


async def test_one_that_is_cancelled_when_the_lock_is_handed_to_it_hands_it_on(locks, complaints):
    order = []

    async def task(who):
        async with locks.hold("k"):
            order.append(who)

    async with locks.hold("k"):
        tasks = [asyncio.create_task(task(number)) for number in range(4)]
        await turns()
    tasks[0].cancel()  # granted, and not yet told
    await asyncio.sleep(0)
    tasks[1].cancel()  # granted by the first, likewise
    await asyncio.wait(tasks)
    assert [task.cancelled() for task in tasks] == [True, True, False, False]
    assert order == [2, 3]


async def test_the_last_one_that_is_cancelled_when_the_lock_is_handed_to_it(locks, complaints):
    async with locks.hold("k"):
        task = asyncio.create_task(locks.hold("k").__aenter__())
        await turns()
    task.cancel()
    await asyncio.wait([task])
    assert locks._queues == {}


def test_cancelled_at_every_suspension(locks, cancelled_everywhere, how_cancelled):
    async def prepare():
        inside = Inside()

        async def task(who):
            async with locks.hold("k"):
                inside.enter(who)
                try:
                    await turns(2)
                finally:
                    inside.leave()

        async def body():
            others = [asyncio.create_task(task(number)) for number in range(3)]
            try:
                await turns(1)
                await task("body")
                await task("body")
            finally:
                while not all(other.done() for other in others):
                    with suppress(asyncio.CancelledError):  # the cancellation that is under way goes on; later ones only hurry
                        await asyncio.wait(others)

        def check():
            assert inside.who == []
            assert locks._queues == {}

        return body(), check

    # cancellations that the waiting for the others swallows do not come out
    assert cancelled_everywhere(prepare, "early" if how_cancelled == "again" else how_cancelled, must_come_out=False) >= 4


def closed_loop_with(coroutine, steps=5):
    """A loop that ran ``coroutine`` for a while and was then closed over it, and the task."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(coroutine)
    loop.set_exception_handler(lambda *_: None)
    for _ in range(steps):
        loop.call_soon(loop.stop)
        loop.run_forever()
    return loop, task


async def enter_and_stay(locks):
    async with locks.hold("k"):
        await asyncio.Event().wait()


def test_one_whose_loop_is_closed_while_it_waits_is_passed_over(locks):
    order = []

    def thread():
        with held(locks, "k"):
            order.append("thread")

    with held(locks, "k"):
        loop, task = closed_loop_with(enter_and_stay(locks))
        assert len(locks._queues["k"]) == 1
        loop.close()
        waiting = threading.Thread(target=thread)
        waiting.start()
        while len(locks._queues["k"]) < 2:
            pass
    waiting.join(PATIENCE)
    assert order == ["thread"]
    del task
    gc.collect()


def test_one_whose_loop_is_closed_when_the_lock_is_handed_to_it_does_not_keep_it(locks):
    with held(locks, "k"):
        loop, task = closed_loop_with(enter_and_stay(locks))
    assert locks._queues.keys() == {"k"}  # handed over, but the loop does not turn any more
    loop.close()
    del task
    gc.collect()
    assert locks._queues == {}


def test_one_that_is_thrown_away_while_it_waits_is_passed_over(locks):
    with held(locks, "k"):
        loop, task = closed_loop_with(enter_and_stay(locks))
        loop.close()
        del task
        gc.collect()
    assert locks._queues == {}


def test_one_that_is_thrown_away_with_the_lock_gives_it_back(locks):
    loop, task = closed_loop_with(enter_and_stay(locks))
    assert locks._queues.keys() == {"k"}
    loop.close()
    del task
    gc.collect()
    assert locks._queues == {}


def test_nothing_is_kept_of_a_million_keys(locks):
    async def main():
        for number in range(10_000):
            async with locks.hold(f"c/{number}"):
                pass
            with held(locks, f"c/{number}"):
                pass
        assert locks._queues == {}

    asyncio.run(main())


# --- which locks are whose


def test_stores_of_one_folder_share_their_locks(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    mine = locks_of(LocalStore(tmp_path / "a"))
    assert locks_of(LocalStore(tmp_path / "a")) is mine
    assert locks_of(LocalStore(str(tmp_path / "b" / ".." / "a"), durability="none")) is mine
    assert locks_of(LocalStore(tmp_path / "link")) is mine
    assert locks_of(LocalStore(tmp_path / "b")) is not mine
    assert locks_of(LatencyStore(LocalStore(tmp_path / "a"), 0.0)) is mine


def test_memory_stores_share_nothing():
    first, second = MemoryStore(), MemoryStore()
    mine = locks_of(first)
    assert locks_of(first) is mine
    assert locks_of(second) is not mine
    assert locks_of(LatencyStore(LatencyStore(first, 0.0), 0.0)) is mine


def test_a_store_without_identity_has_locks_of_its_own():
    class Plain:
        pass

    first, second = Plain(), Plain()
    mine = locks_of(first)
    assert locks_of(first) is mine
    assert locks_of(second) is not mine


def test_locks_that_nobody_holds_are_forgotten():
    from azarr import locks as module

    store = MemoryStore()
    gc.collect()
    before = len(module._locks)
    kept = locks_of(store)
    assert len(module._locks) == before + 1
    del kept
    gc.collect()
    assert len(module._locks) == before


def test_many_threads_get_the_same_locks_at_once():
    store, start, got = MemoryStore(), threading.Barrier(8), []

    def work():
        start.wait(PATIENCE)
        got.append(locks_of(store))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(got) == 8
    assert len(set(map(id, got))) == 1
