"""Nothing that was written is lost: every way of writing beside others, again and again, a thousand times if asked to.

``AZARR_REPEATS`` says how often altogether, 200 by default; each way has its share of it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import threading

import numpy as np
import pytest

import azarr
from azarr import Engine, LatencyStore, LocalStore, MemoryStore
from azarr.stores import file_locks

PATIENCE = 100
REPEATS = int(os.environ.get("AZARR_REPEATS", "200"))
KINDS = ["memory", "local", "latency", "elsewhere"]
WAYS = ["halves", "inner chunks", "appends"]

between_processes = pytest.mark.skipif(not file_locks.AVAILABLE, reason="this system has no flock; POSIX systems do")


def share(ways: int) -> range:
    """What falls to one of so many ways."""
    return range(max(1, REPEATS // ways))


async def make(store, way):
    options = {
        "halves": {"shape": 20, "chunks": 20},
        "inner chunks": {"shape": (10, 4), "chunks": (1, 4), "shards": (10, 4)},
        "appends": {"shape": (0, 3), "chunks": (4, 3), "shards": None},
    }[way]
    return await azarr.create_array(store, "a", dtype="i4", **options)


def writers(way):
    """The writers of one way, each a function of an array, and what they leave."""
    if way == "halves":
        return [lambda array: array[:10].write(1), lambda array: array[10:].write(2)], [[1] * 10 + [2] * 10]
    if way == "inner chunks":
        return [lambda array, row=row: array[row].write(row + 1) for row in range(10)], (np.arange(10)[:, np.newaxis] + [[1] * 4]).tolist()
    return [lambda array, row=row: array.append([[row] * 3]) for row in range(20)], [[row] * 3 for row in range(20)]


def content(way, found):
    """As ``writers`` has it: the order of appends is nobody's promise."""
    rows = found.tolist()
    return sorted(rows) if way == "appends" else [rows] if way == "halves" else rows


def reachable(kind, tmp_path, seed, elsewhere, count):
    """So many stores of the same values, as writers who know nothing of each other have them."""
    local = LocalStore(tmp_path / str(seed), durability="none")
    inner = MemoryStore()
    if kind == "local":
        return [LocalStore(local.root, durability="none") for _ in range(count)]
    if kind == "elsewhere":
        return [elsewhere(inner, jitter=0.0005, seed=seed + number) for number in range(count)]
    return [LatencyStore(inner, 0.0, jitter=0.0005, seed=seed) if kind == "latency" else inner] * count


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
async def test_tasks(way, kind, tmp_path, elsewhere):
    async with Engine(workers=2) as engine:
        for seed in share(2 * len(WAYS) * len(KINDS)):
            functions, expected = writers(way)
            stores = reachable(kind, tmp_path, seed, elsewhere, 2)
            await make(stores[0], way)
            arrays = [await azarr.open_array(store, "a", engine=engine) for store in stores]
            random.Random(seed).shuffle(functions)
            await asyncio.gather(*(function(arrays[number % 2]) for number, function in enumerate(functions)))
            await arrays[0].refresh()
            assert content(way, await arrays[0]) == expected


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_threads_with_loops_of_their_own(way, kind, tmp_path, elsewhere):
    for seed in share(2 * len(WAYS) * len(KINDS)):
        functions, expected = writers(way)
        stores = reachable(kind, tmp_path, seed, elsewhere, 3)
        asyncio.run(make(stores[0], way))
        start, errors = threading.Barrier(3), []

        def work(number, functions=functions, stores=stores, start=start, errors=errors):
            async def main():
                array = await azarr.open_array(stores[number], "a")
                await asyncio.gather(*(function(array) for function in functions[number::3]))

            start.wait(PATIENCE)
            try:
                asyncio.run(main())
            except BaseException as error:
                errors.append(error)
                raise

        threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        assert errors == []

        async def look(store=stores[0]):
            return await (await azarr.open_array(store, "a")).read()

        assert content(way, asyncio.run(look())) == expected


# Processes

PROCESS = """
import asyncio, random, sys
import azarr

root, number, count, turns = sys.argv[1], *map(int, sys.argv[2:])
dice = random.Random(number)

async def main():
    async with azarr.Engine(workers=2) as engine:
        store = azarr.LocalStore(root, durability="none")
        other = azarr.LatencyStore(store, 0.0)
        print("ready", flush=True)
        sys.stdin.readline()
        for turn in range(turns):
            await one(store if turn % 3 else other, turn, engine)

async def one(store, turn, engine):
    if turn % 10 == 0:
        await (await azarr.open_group(store, engine=engine)).update_attributes({f"{number}.{turn}": turn})
    halves = await azarr.open_array(store, "halves", engine=engine)
    shard = await azarr.open_array(store, "shard", engine=engine)
    rows = await azarr.open_array(store, "rows", engine=engine)
    width = 60 // count
    mine = slice(number * width, (number + 1) * width)
    work = [
        halves[mine].write(turn + 1),
        shard[number].write(turn + 1),
        halves.update_attributes({f"{number}": turn}),
        *(rows.append([[number, turn]]) for _ in range(1 if dice.random() < 0.8 else 2)),
    ]
    await asyncio.gather(*work)
    assert ((await halves[mine]) == turn + 1).all(), "a write of this process has been lost"
    assert ((await shard[number]) == turn + 1).all(), "an inner chunk of this process has been lost"

asyncio.run(main())
"""


def go(processes):
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()


async def make_shared(root):
    store = LocalStore(root, durability="none")
    group = await azarr.create_group(store)
    await group.create_array("halves", shape=60, chunks=60, dtype="i4")
    await group.create_array("shard", shape=(4, 6), chunks=(1, 6), shards=(4, 6), dtype="i4")
    await group.create_array("rows", shape=(0, 2), chunks=(3, 2), shards=(9, 2), dtype="i4")
    await group.consolidate()
    return store


@pytest.mark.slow
@between_processes
async def test_processes(tmp_path, started):
    """Halves of one chunk, inner chunks of one shard, attributes, consolidated metadata and appends of several processes at once."""
    count, turns = 3, max(4, REPEATS // 10)
    store = await make_shared(tmp_path)
    processes = [started(PROCESS, tmp_path, number, count, turns) for number in range(count)]
    go(processes)
    for process in processes:
        await asyncio.to_thread(process.communicate, timeout=PATIENCE)
    assert [process.returncode for process in processes] == [0] * count
    group = await azarr.open_group(store, use_consolidated=True)
    assert dict(group.attrs) == {f"{number}.{turn}": turn for number in range(count) for turn in range(0, turns, 10)}
    halves, shard, rows = [await azarr.open_array(store, name) for name in ("halves", "shard", "rows")]
    assert (await halves == turns).all()
    assert (await shard[:count] == turns).all()
    assert dict(halves.attrs) == {str(number): turns - 1 for number in range(count)}
    found = (await rows).tolist()
    assert {tuple(row) for row in found} == {(number, turn) for number in range(count) for turn in range(turns)}
    for number in range(count):
        mine = [turn for who, turn in found if who == number]
        assert mine == sorted(mine)
    # what is consolidated is what is stored
    for name, array in {"halves": halves, "rows": rows}.items():
        member = await group.open(name)
        assert (member.shape, dict(member.attrs)) == (array.shape, dict(array.attrs))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["halves", "rows", "shard", "zarr.json"]


APPEND_FOREVER = """
import asyncio, sys
import azarr

async def main():
    array = await azarr.open_array(azarr.LocalStore(sys.argv[1], durability="none"), "rows")
    print("ready", flush=True)
    sys.stdin.readline()
    turn = 0
    while True:
        await array.append([[9, turn]] * 5)
        turn += 1

asyncio.run(main())
"""


@pytest.mark.slow
@between_processes
async def test_processes_that_are_killed_while_they_append(tmp_path, started):
    store = await make_shared(tmp_path)
    rows = await azarr.open_array(store, "rows")
    dice = random.Random(0)
    mine = 0
    for _ in range(max(3, REPEATS // 50)):
        killed = started(APPEND_FOREVER, tmp_path)
        go([killed])
        for _ in range(dice.randrange(1, 12)):
            await rows.append([[1, mine]])
            mine += 1
        killed.send_signal(signal.SIGKILL)
        await asyncio.to_thread(killed.communicate, timeout=PATIENCE)
        async with asyncio.timeout(PATIENCE):
            await rows.append([[1, mine]])
        mine += 1
    found = (await rows).tolist()
    assert [turn for who, turn in found if who == 1] == list(range(mine))
    blocks = [row for row in found if row[0] == 9]
    assert len(blocks) % 5 == 0
    assert len(blocks) + mine == len(found)
