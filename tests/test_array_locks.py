from __future__ import annotations

import asyncio
import gc
import random
import threading

import pytest

import azarr
from azarr import LatencyStore, LocalStore, MemoryStore, array_locks
from azarr.array_locks import ArrayLocks, array_locks_of

PATIENCE = 30


@pytest.fixture
def locks():
    return ArrayLocks()


async def turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


class Room:
    """Sees to it that nobody is in with a writer, and remembers who came in."""

    def __init__(self, locks):
        self.locks, self.readers, self.writers, self.most, self.log = locks, 0, 0, 0, []

    async def read(self, name="r", stay=turns):
        async with self.locks.read():
            self.log.append(name)
            self.readers += 1
            self.most = max(self.most, self.readers)
            try:
                assert not self.writers
                await stay()
                assert not self.writers
            finally:
                self.readers -= 1

    async def write(self, name="w", stay=turns):
        async with self.locks.write():
            self.log.append(name)
            self.writers += 1
            try:
                assert (self.readers, self.writers) == (0, 1)
                await stay()
                assert (self.readers, self.writers) == (0, 1)
            finally:
                self.writers -= 1


def is_free(locks):
    return not locks._queue and not locks._readers and not locks._writes


async def test_readers_are_together_and_a_writer_is_alone(locks):
    room = Room(locks)
    await asyncio.gather(*(room.write() if number % 4 == 0 else room.read() for number in range(20)))
    assert room.most == 3
    assert is_free(locks)


async def test_first_come_first_served(locks):
    room = Room(locks)
    names = ["r1", "r2", "w1", "r3", "r4", "w2", "w3", "r5"]
    await asyncio.gather(*((room.write if name[0] == "w" else room.read)(name) for name in names))
    assert room.log == names


async def test_a_writer_does_not_wait_for_ever_for_readers_who_come_and_go(locks):
    room, written = Room(locks), asyncio.Event()

    async def readers():
        while not written.is_set():
            await room.read()

    async def writer():
        await turns(5)
        await room.write()
        written.set()

    await asyncio.wait_for(asyncio.gather(*(readers() for _ in range(5)), writer()), PATIENCE)


async def test_a_lock_is_released_by_errors(locks):
    for hold in (locks.read(), locks.write(), locks.read()):
        with pytest.raises(ZeroDivisionError):
            async with hold:
                raise ZeroDivisionError
    assert is_free(locks)


async def test_readers_behind_a_writer_who_gives_up_come_in(locks):
    room, leave = Room(locks), asyncio.Event()
    first = asyncio.create_task(room.read("r1", leave.wait))
    await turns()
    writer = asyncio.create_task(room.write())
    await turns()
    second = asyncio.create_task(room.read("r2", leave.wait))
    await turns()
    assert room.log == ["r1"]
    writer.cancel()
    await turns()
    assert room.log == ["r1", "r2"]
    leave.set()
    await asyncio.gather(first, second)
    assert is_free(locks)


@pytest.mark.parametrize("kind", ["read", "write"])
def test_cancelled_at_every_point(cancelled_everywhere, how_cancelled, kind):
    async def prepare():
        locks = ArrayLocks()

        def check():
            assert is_free(locks)

        return getattr(Room(locks), kind)(stay=lambda: turns(3)), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 3


@pytest.mark.parametrize("how", ["early", "late"])
@pytest.mark.parametrize("kind", ["read", "write"])
@pytest.mark.parametrize("before", ["read", "write"])
def test_one_who_is_cancelled_among_others_keeps_nothing_and_holds_up_nobody(kind, before, how):
    """After any number of steps: while he waits, when it is his turn, while he is in, and when he leaves."""

    async def main(steps):
        locks = ArrayLocks()
        room = Room(locks)
        first = asyncio.create_task(getattr(room, before)("first", lambda: turns(3)))
        await turns(1)
        mine = asyncio.create_task(getattr(room, kind)("me", lambda: turns(3)))
        behind = [asyncio.create_task(room.read("behind", lambda: turns(2))), asyncio.create_task(room.write("behind", lambda: turns(2)))]
        await turns(steps)
        over = mine.done()
        if how == "early":
            mine.cancel()
        else:
            asyncio.get_running_loop().call_soon(mine.cancel)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(first, *behind)
            await asyncio.wait([mine])
        assert mine.cancelled() or room.log.count("me") == 1
        assert room.log.count("behind") == 2
        assert is_free(locks)
        return not over

    steps = 0
    while asyncio.run(main(steps)):
        steps += 1
    assert steps >= 4


def test_tasks_of_several_loops(locks):
    values, errors = [0], []

    def work(number):
        async def main():
            dice = random.Random(number)
            for _ in range(150):
                if dice.random() < 0.5:
                    async with locks.write():
                        value = values[0]
                        await asyncio.sleep(0)
                        values[0] = value + 1
                else:
                    async with locks.read():
                        value = values[0]
                        await asyncio.sleep(0)
                        assert values[0] == value

        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert errors == []
    assert values[0] == sum(random_writes(number) for number in range(4))
    assert is_free(locks)


def random_writes(number):
    dice = random.Random(number)
    return sum(dice.random() < 0.5 for _ in range(150))


def closed_loop_with(coroutine, steps=3):
    """A loop that ran for a while and was then closed over its task, and the task."""
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)
    task = loop.create_task(coroutine)
    for _ in range(steps):
        loop.call_soon(loop.stop)
        loop.run_forever()
    return loop, task


async def enter_and_stay(hold):
    async with hold:
        await asyncio.Event().wait()


@pytest.mark.parametrize("kind", ["read", "write"])
def test_one_whose_loop_is_gone_keeps_nothing(locks, kind):
    loop, task = closed_loop_with(enter_and_stay(getattr(locks, kind)()))
    assert not is_free(locks)
    loop.close()
    del task
    gc.collect()
    assert is_free(locks)


def test_one_whose_loop_is_gone_while_he_waits_is_passed_over(locks):
    first, held = closed_loop_with(enter_and_stay(locks.write()))
    second, waiting = closed_loop_with(enter_and_stay(locks.write()))
    second.close()
    first.close()
    del held
    gc.collect()
    asyncio.run(asyncio.wait_for(Room(locks).write(), PATIENCE))
    del waiting
    gc.collect()
    assert is_free(locks)


# Which locks are whose


async def test_all_objects_for_an_array_share_its_locks(tmp_path):
    inner = MemoryStore()
    array = await azarr.create_array(inner, "a", shape=3, dtype="i4")
    others = [
        await azarr.open_array(inner, "a"),
        await azarr.open_array(LatencyStore(inner, 0), "a"),
        await (await azarr.open_group(inner)).open("a"),
    ]
    mine = array.locks
    assert all(other.locks is mine for other in others)
    assert array[1:].array.locks is mine
    assert array_locks_of(inner, "b") is not mine
    assert array_locks_of(MemoryStore(), "a") is not mine
    local = array_locks_of(LocalStore(tmp_path), "a")
    assert array_locks_of(LocalStore(f"{tmp_path}/b/.."), "a") is local


async def test_azarr_takes_none_of_them_itself():
    array = await azarr.create_array(MemoryStore(), shape=(2, 2), chunks=(1, 2), dtype="i4")
    async with array.locks.write():
        await array.write(1)
        await array.append([[2, 2]])
        await array.resize((2, 2))
        assert (await array == 1).all()


async def test_locks_that_nobody_holds_are_forgotten():
    array = await azarr.create_array(MemoryStore(), shape=3, dtype="i4")
    gc.collect()
    before = len(array_locks._locks)
    async with array.locks.read():
        assert len(array_locks._locks) == before + 1
        assert "1 reader" in repr(array.locks)
        waiting = asyncio.create_task(Room(array.locks).write())
        await turns()
        assert "1 waiting" in repr(array.locks)
    await waiting
    del waiting
    gc.collect()
    assert len(array_locks._locks) == before
