from __future__ import annotations

import asyncio
import itertools
import random
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import azarr
from azarr import appending
from azarr.errors import ChecksumError, NodeNotFoundError, StoreError, WriteError
from azarr.locks import locks_of

PATIENCE = 60
LAYOUTS = {
    "plain": {"chunks": (3, 4)},
    "sharded": {"chunks": (3, 4), "shards": (6, 8)},
    "v2": {"chunks": (3, 4), "zarr_format": 2},
    "unequal": {"chunks": ([3, 1, 6], [4, 1, 1])},
}

every_layout = pytest.mark.parametrize("layout", LAYOUTS)

pytestmark = pytest.mark.usefixtures("complaints")


@pytest.fixture(params=["blocking", "awaited", "local", "elsewhere"])
def store(request, tmp_path, elsewhere):
    """Stores whose shapes are changed under a lock of this process, under a claim, and under a lock of all processes."""
    if request.param == "local":
        return azarr.LocalStore(tmp_path, durability="none")
    inner = azarr.MemoryStore()
    return {"blocking": inner, "awaited": azarr.LatencyStore(inner, 0), "elsewhere": elsewhere(inner)}[request.param]


async def make(store, layout="plain", shape=(0, 6), **options):
    return await azarr.create_array(store, "a", **{"shape": shape, "dtype": "i4", **LAYOUTS[layout], **options})


async def together(array, data, return_exceptions=False):
    """Append ``data`` in one batch, in this order: nobody's turn comes before all of them wait."""
    queue, tasks = appending.queue_of(array.store, array.path), []
    async with locks_of(array.store).hold("a//extent"):
        for each in data:
            tasks.append(asyncio.create_task(array.append(each)))
            while len(queue.waiting) < len(tasks):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0)
    return await asyncio.gather(*tasks, return_exceptions=return_exceptions)


async def stored(store):
    return await (await azarr.open_array(store, "a")).read()


@every_layout
@pytest.mark.parametrize("axis", [0, 1, -1])
async def test_what_is_appended_lies_behind_the_end(store, layout, axis):
    array, content = await make(store, layout, shape=(2, 3), fill_value=7), np.full((2, 3), 7)
    for length in (1, 0, 2, 5, 1, 17):
        shape = list(content.shape)
        shape[axis] = length
        data = np.arange(np.prod(shape)).reshape(shape)
        region = await array.append(data, axis)
        start = content.shape[axis]
        content = np.concatenate([content, data], axis)
        assert region == tuple(
            slice(start, start + length) if number == axis % 2 else slice(0, each) for number, each in enumerate(content.shape)
        )
        assert array.shape == content.shape
        assert np.array_equal(await array[region], data)
        assert np.array_equal(await array, content)
        assert np.array_equal(await stored(store), content)


async def test_values_of_many_kinds():
    array = await azarr.create_array(azarr.MemoryStore(), shape=0, chunks=4, dtype="f4")
    await array.append([1, 2.5])
    await array.append(np.float64([3]))
    await array.append(range(2), axis=np.int64(0))
    await array.append(np.array([], "i1"))
    assert (await array).tolist() == [1, 2.5, 3, 0, 1]
    texts = await azarr.create_array(azarr.MemoryStore(), shape=(0, 2), chunks=2, dtype="str")
    await asyncio.gather(texts.append([["a", "b"]]), texts.append([["c", "d\0"]]))
    assert sorted((await texts).tolist()) == [["a", "b"], ["c", "d\0"]]  # who is first is not said


@pytest.mark.parametrize(
    ("data", "axis", "message"),
    [
        (np.zeros((1, 5), "i4"), 0, r"shape \(1, 5\) cannot be appended to shape \(2, 6\) along axis 0"),
        (np.zeros((1, 1), "i4"), 0, "cannot be appended"),
        (np.zeros((1, 0), "i4"), 0, "cannot be appended"),
        (np.zeros((1, 6), "i4"), 1, "along axis 1"),
        (np.zeros(6, "i4"), 0, "of 2 dimensions"),
        (3, 0, "of 2 dimensions"),
        (np.zeros((1, 1, 6), "i4"), 0, "of 2 dimensions"),
        (np.zeros((1, 6)), 0, "float64 does not fit"),
        (np.full((1, 6), 2**40), 0, "do not fit"),
        ([[1], [1, 2]], 0, "not an array"),
        (np.zeros((1, 6), "i4"), 2, "has no axis 2"),
        (np.zeros((1, 6), "i4"), -3, "has no axis -3"),
        (np.zeros((1, 6), "i4"), "time", "whole number"),
        (np.zeros((2**18, 7), "i4"), 0, "cannot be appended"),
    ],
    ids=str,
)
async def test_data_that_do_not_fit_are_refused_and_nothing_written(data, axis, message):
    store = azarr.MemoryStore()
    array = await make(store, shape=(2, 6))
    await array.write(1)
    before = dict(store._values)
    with pytest.raises(WriteError, match=message):
        await array.append(data, axis)
    assert store._values == before


async def test_nothing_can_be_appended_to_a_scalar():
    array = await azarr.create_array(azarr.MemoryStore(), shape=(), dtype="i4")
    with pytest.raises(WriteError, match="no axis 0"):
        await array.append(1)


async def test_an_array_that_is_gone_or_only_readable():
    class ReadOnly:
        def __init__(self, store):
            self.get = store.get

    store = azarr.MemoryStore()
    array = await make(store)
    with pytest.raises(StoreError, match="cannot be written to"):
        await (await azarr.open_array(ReadOnly(store), "a")).append([[1] * 6])
    for each in (array, await azarr.open_array(azarr.LatencyStore(store, 0), "a")):
        await store.erase("a/zarr.json")
        with pytest.raises(NodeNotFoundError):
            await each.append([[1] * 6])
        await azarr.create_group(store, "a")
        with pytest.raises(NodeNotFoundError):
            await each.append([[1] * 6])


@every_layout
async def test_an_object_that_knows_an_older_shape_appends_at_the_end(store, layout):
    array = await make(store, layout)
    other = await azarr.open_array(store, "a")
    await array.append(np.full((4, 6), 1))
    assert other.shape == (0, 6)
    assert await other.append(np.full((1, 6), 2)) == (slice(4, 5), slice(0, 6))
    assert other.shape == (5, 6)
    await array.append(np.full((1, 6), 3))
    assert (await array)[:, 0].tolist() == [1] * 4 + [2, 3]


async def test_what_another_process_appends_is_neither_overwritten_nor_passed_over(store, elsewhere):
    array = await make(store)
    there = await azarr.open_array(elsewhere(store), "a")
    for number in range(6):
        await (array, there)[number % 2].append([[number] * 6])
    assert (await stored(store))[:, 0].tolist() == list(range(6))


async def test_metadata_are_written_after_the_data_and_by_one_step():
    class Recording(azarr.MemoryStore):
        log = ()

        def set_blocking(self, key, value):
            self.log = (*self.log, key)
            super().set_blocking(key, value)

    store = Recording()
    array = await make(store)
    store.log = ()
    await array.append(np.ones((4, 6)).astype("i4"))
    assert sorted(store.log[:-1]) == ["a/c/0/0", "a/c/0/1", "a/c/1/0", "a/c/1/1"]
    assert store.log[-1] == "a/zarr.json"


async def test_readers_never_see_a_row_that_is_not_there_yet(store):
    array = await make(store)
    finished = asyncio.Event()

    async def write():
        await asyncio.gather(*(array.append(np.full((2, 6), number + 1)) for number in range(25)))
        finished.set()

    async def look():
        seen = 0
        while not finished.is_set():
            await asyncio.sleep(0)
            rows = await stored(store)
            assert len(rows) % 2 == 0
            assert len(rows) >= seen
            assert rows.all()
            seen = len(rows)

    await asyncio.gather(write(), look(), look())
    assert sorted((await stored(store))[:, 0].tolist()) == sorted([*range(1, 26)] * 2)


# Many at once


@every_layout
@pytest.mark.parametrize("axis", [0, 1])
async def test_many_appends_lose_nothing_of_each_other(store, layout, axis):
    array = await make(store, layout, shape=(0, 6) if axis == 0 else (6, 0))
    other = await azarr.open_array(store, "a")
    data = [np.full((number % 4, 6) if axis == 0 else (6, number % 4), number, "i4") for number in range(40)]
    regions = await asyncio.gather(*((array if number % 3 else other).append(each, axis) for number, each in enumerate(data)))
    await other.refresh()
    assert other.shape[axis] == sum(each.shape[axis] for each in data)
    for region, each in zip(regions, data, strict=True):
        assert np.array_equal(await other[region], each)
    ends = sorted((region[axis].start, region[axis].stop) for region in regions if region[axis].start < region[axis].stop)
    assert all(stop == start for (_, stop), (start, _) in itertools.pairwise(ends))


async def test_small_appends_that_wait_are_stored_together():
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    array = await make(store, chunks=(100, 6))
    store.requests = 0
    await array.append([[0] * 6])
    alone = store.requests
    store.requests = 0
    regions = await together(array, [[[number] * 6] for number in range(50)])
    assert store.requests == alone + 1  # one to read the chunk that is there now
    assert [region[0].start for region in regions] == list(range(1, 51))
    assert array.shape == (51, 6)


async def test_appends_along_several_axes_at_once(store):
    array = await make(store, shape=(2, 2))
    outcomes = await asyncio.gather(
        array.append(np.ones((1, 2), "i4")),
        array.append(np.ones((3, 1), "i4"), 1),
        array.append(np.ones((1, 2), "i4")),
        return_exceptions=True,
    )
    # one of them comes first, and whoever does not fit to what is then there is refused
    assert [type(outcome) for outcome in outcomes].count(WriteError) in (1, 2)
    assert array.size == (await stored(store)).size


async def test_one_that_does_not_fit_does_not_hold_up_the_others(store):
    array = await make(store)
    data = [np.full((1, 6 if number % 3 else 5), number, "i4") for number in range(12)]
    outcomes = await asyncio.gather(*map(array.append, data), return_exceptions=True)
    assert [isinstance(outcome, WriteError) for outcome in outcomes] == [number % 3 == 0 for number in range(12)]
    assert sorted((await stored(store))[:, 0].tolist()) == [number for number in range(12) if number % 3]


async def test_large_appends_are_stored_alone_and_not_copied(monkeypatch, store):
    monkeypatch.setattr(appending, "TOGETHER_NBYTES", 6 * 4)
    array = await make(store)
    await asyncio.gather(*(array.append(np.full((1 + number % 2, 6), number)) for number in range(10)))
    assert sorted((await array)[:, 0].tolist()) == sorted([*range(10), *range(1, 10, 2)])


async def test_few_are_stored_together_where_they_are_not_so_small(monkeypatch):
    monkeypatch.setattr(appending, "BATCH_NBYTES", 3 * 6 * 4)
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    array = await make(store)
    shapes = []
    take = array._take
    monkeypatch.setattr(azarr.AsyncArray, "_take", lambda self, metadata: (shapes.append(metadata.shape[0]), take(metadata)))
    await together(array, [[[number] * 6] for number in range(10)])
    assert max(np.diff(sorted(set(shapes)))) <= 3


async def test_what_is_appended_may_change_after_that():
    array = await make(azarr.LatencyStore(azarr.MemoryStore(), 0), compressors=None)
    data = np.ones((3, 6), "i4")
    await array.append(data)
    data[...] = 5
    assert (await array == 1).all()


async def test_appends_on_several_loops(store):
    array = await make(store)
    start, errors = threading.Barrier(4), []

    def work(number):
        async def main():
            mine = await azarr.open_array(store, "a")
            for turn in range(5):
                rows = [np.full((1, 6), 100 * number + 10 * turn + each) for each in range(3)]
                regions = await asyncio.gather(*map(mine.append, rows))
                for row, region in zip(rows, regions, strict=True):
                    assert np.array_equal(await mine[region], row)

        start.wait(PATIENCE)
        try:
            asyncio.run(main())
        except BaseException as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join, PATIENCE)
    assert errors == []
    await array.refresh()
    expected = [100 * number + 10 * turn + each for number in range(4) for turn in range(5) for each in range(3)]
    assert sorted((await array)[:, 0].tolist()) == expected


def test_appends_from_several_processes_to_a_networked_store(elsewhere, run_virtual):
    """As conditional writes alone make it possible, in hundreds of schedules that are exactly repeatable."""

    async def main(seed):
        inner, dice = azarr.MemoryStore(), random.Random(seed)
        await azarr.create_array(inner, "a", shape=(0, 2), chunks=(3, 2), shards=(6, 2) if seed % 2 else None, dtype="i4")

        async def work(number):
            store = elsewhere(inner, jitter=1.0, seed=seed * 10 + number)
            engine = azarr.Engine(executor=azarr.InlineExecutor(), concurrency=1 + seed % 4)
            array = await azarr.open_array(store, "a", engine=engine)
            for turn in range(3):
                lengths = [dice.randrange(4) for _ in range(2)]
                data = [np.full((length, 2), 1 + 100 * number + 10 * turn + each) for each, length in enumerate(lengths)]
                regions = await asyncio.gather(*map(array.append, data))
                for region, each in zip(regions, data, strict=True):
                    appended.append((region[0].start, region[0].stop, int(each.flat[0]) if each.size else 0))
                if dice.random() < 0.3:
                    await array.update_attributes({f"{number}.{turn}": 1})

        appended = []
        await asyncio.gather(*map(work, range(3)))
        rows = await stored(inner)
        assert len(rows) == sum(stop - start for start, stop, _ in appended)
        for start, stop, value in appended:
            assert (rows[start:stop] == value).all()
        document = bytes(inner._values["a/zarr.json"])
        assert document.endswith(b"}")

    for seed in range(60):
        run_virtual(lambda seed=seed: main(seed))


# What fails


@every_layout
async def test_an_append_that_fails_leaves_the_shape_and_the_next_one_overwrites_it(faulty_store, layout):
    array = await make(faulty_store, layout, shape=(0, 6))
    await array.append(np.full((4, 6), 1))
    failing = {"plain": "a/c/2/1", "sharded": "a/c/1/0", "v2": "a/2.1", "unequal": "a/c/2/2"}[layout]
    faulty_store.failing.add(failing)
    for each in (array, await azarr.open_array(azarr.LatencyStore(faulty_store, 0), "a")):
        with pytest.raises(StoreError, match="cannot reach"):
            await each.append(np.full((4, 6), 9))
        assert each.shape == (4, 6)
    faulty_store.failing.clear()
    assert (await stored(faulty_store)).shape == (4, 6)
    await array.append(np.full((2, 6), 2))
    assert (await stored(faulty_store))[:, 0].tolist() == [1] * 4 + [2] * 2
    await array.append(np.full((4, 6), 3))
    assert (await stored(faulty_store))[:, 0].tolist() == [1] * 4 + [2] * 2 + [3] * 4


async def test_an_append_that_cannot_be_published_leaves_the_shape(faulty_store):
    array = await make(faulty_store)
    await array.append(np.full((2, 6), 1))
    set_blocking = faulty_store.set_blocking

    def failing(key, value):
        if key == "a/zarr.json":
            raise StoreError("cannot write", key=key)
        set_blocking(key, value)

    faulty_store.set_blocking = failing
    outcomes = await together(array, [[[number] * 6] for number in range(5)], return_exceptions=True)
    assert {str(outcome) for outcome in outcomes} == {"cannot write"}
    del faulty_store.set_blocking
    assert (await stored(faulty_store)).shape == (2, 6)
    await array.append([[7] * 6])
    assert (await stored(faulty_store))[:, 0].tolist() == [1, 1, 7]


class Forgetful(azarr.MemoryStore):
    """Sets the metadata as it is told, and then says that it has failed."""

    lost = 0
    blind = False

    def set_blocking(self, key, value):
        super().set_blocking(key, value)
        if key == "a/zarr.json" and self.lost:
            self.lost -= 1
            raise StoreError("connection lost", key=key)

    def get_blocking(self, key, byte_range=None, reserve=None):
        if self.blind and key == "a/zarr.json" and not self.lost:
            raise StoreError("no connection", key=key)
        return super().get_blocking(key, byte_range, reserve)


async def test_appends_that_were_published_though_that_seemed_to_fail_are_not_made_again():
    store = Forgetful()
    array = await make(store)
    store.lost = 1
    outcomes = await together(array, [[[number] * 6] for number in range(5)], return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreError] + [tuple] * 4
    assert (await stored(store))[:, 0].tolist() == list(range(5))


async def test_appends_of_which_nobody_can_find_out_whether_they_were_published_are_not_made_again():
    store = Forgetful()
    array = await make(store)
    store.lost, store.blind = 1, True
    outcomes = await together(array, [[[number] * 6] for number in range(5)], return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [StoreError] * 5
    assert "could not be found out" in str(outcomes[1])
    store.blind = False
    assert (await stored(store))[:, 0].tolist() == list(range(5))


async def test_a_damaged_last_chunk_is_not_appended_to(store):
    array = await make(store, compressors=azarr.codecs.Crc32c())
    await array.append(np.ones((2, 6), "i4"))
    damaged = bytearray(await store.get("a/c/0/0"))
    damaged[0] ^= 1
    await store.set("a/c/0/0", damaged)
    with pytest.raises(ChecksumError):
        await array.append(np.ones((1, 6), "i4"))
    assert array.shape == (2, 6)


async def test_what_was_left_by_a_failed_append_is_no_obstacle_even_if_it_is_damaged(store):
    array = await make(store, compressors=azarr.codecs.Crc32c())
    await store.set("a/c/0/0", b"damaged, or half of something")
    await array.append(np.ones((2, 6), "i4"))
    assert (await stored(store) == 1).all()


@pytest.mark.parametrize("kind", ["blocking", "elsewhere", "local"])
def test_a_cancelled_append_is_made_or_not(cancelled_everywhere, how_cancelled, kind, elsewhere, tmp_path):
    numbers = itertools.count()

    async def prepare():
        inner = azarr.LocalStore(tmp_path / str(next(numbers)), durability="none") if kind == "local" else azarr.MemoryStore()
        array = await make(elsewhere(inner) if kind == "elsewhere" else inner)
        await array.append([[1] * 6])

        def check():
            async def look():
                found = await azarr.open_array(inner, "a")
                assert (await found)[:, 0].tolist() in ([1], [1, 2, 2, 2])
                await found.append([[3] * 6])  # nothing is in the way
                assert (await found)[-1].tolist() == [3] * 6

            thread = threading.Thread(target=asyncio.run, args=(look(),))
            thread.start()
            thread.join()

        return array.append([[2] * 6] * 3), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 2


@pytest.mark.parametrize("kind", ["blocking", "elsewhere", "local"])
def test_one_who_is_cancelled_takes_nobody_along(cancelled_everywhere, how_cancelled, kind, elsewhere, tmp_path):
    """The first of several who append is cancelled at every point: the others have appended once each, neither never nor twice."""
    numbers = itertools.count()

    async def prepare():
        inner = azarr.LocalStore(tmp_path / str(next(numbers)), durability="none") if kind == "local" else azarr.MemoryStore()
        array = await make(elsewhere(inner) if kind == "elsewhere" else inner)

        async def first_and_others():
            others = [asyncio.create_task(array.append([[number] * 6])) for number in (2, 3, 4)]
            try:
                await array.append([[1] * 6])
            finally:
                try:
                    await ended(others)
                finally:
                    regions.extend(other.result() for other in others)

        regions = []

        def check():
            rows = asyncio_run(stored(inner))[:, 0].tolist()
            assert sorted(rows) in ([1, 2, 3, 4], [2, 3, 4])
            assert [rows[region[0].start] for region in regions] == [2, 3, 4]

        return first_and_others(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 2


async def ended(tasks):
    """Wait for tasks that nobody cancels, however often this one is cancelled."""
    cancelled = None
    while not all(task.done() for task in tasks):
        try:
            await asyncio.wait(tasks)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


def asyncio_run(coroutine):
    """What ``coroutine`` answers on a loop of its own, from within another one."""
    result = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(coroutine)))
    thread.start()
    thread.join(PATIENCE)
    return result[0]


async def test_queues_that_nobody_is_in_are_forgotten(store):
    array = await make(store)
    await asyncio.gather(*(array.append([[1] * 6]) for _ in range(5)))
    assert not appending._queues


# Everything


@given(
    data=st.data(),
    shape=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    chunks=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    per_shard=st.none() | st.tuples(st.integers(1, 3), st.integers(1, 3)),
)
def test_appending_equals_numpy(data, shape, chunks, per_shard):
    async def main():
        shards = None if per_shard is None else tuple(np.multiply(chunks, per_shard).tolist())
        store = azarr.MemoryStore()
        array = await azarr.create_array(store, "a", shape=shape, chunks=chunks, shards=shards, dtype="u1")
        content = np.zeros(shape, "u1")
        for _ in range(data.draw(st.integers(1, 5))):
            axis = data.draw(st.integers(0, 1))
            more = list(content.shape)
            more[axis] = data.draw(st.integers(0, 6))
            values = data.draw(npst.arrays("u1", tuple(more)))
            await array.append(values, axis)
            content = np.concatenate([content, values], axis)
            assert np.array_equal(await array, content)

    asyncio.run(main())
