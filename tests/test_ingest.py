"""Streams that are written: everything once and in its place, no more at once than allowed, and nothing left however they end."""

from __future__ import annotations

import asyncio
import gc
import itertools
import random
import threading
import weakref

import numpy as np
import pytest

import azarr
from azarr import (
    Chunk,
    CodecError,
    Engine,
    InlineExecutor,
    LatencyStore,
    LocalStore,
    MemoryStore,
    StoreError,
    StreamError,
    StreamTimeoutError,
    ThreadExecutor,
    WriteError,
)
from azarr.stores.base import Store
from tests.patient_store import cancel, chunks_of

PATIENCE = 30
DATA = np.arange(60 * 70, dtype="i4").reshape(60, 70) + 1
ALIGNED = np.arange(60 * 80, dtype="i4").reshape(60, 80) + 1
"""Nothing of its chunks and shards hangs over the edge, which would have to be read."""

pytestmark = pytest.mark.usefixtures("complaints")

LAYOUTS = {"plain": {}, "sharded": {"shards": (20, 40)}}


class RecordingStore(MemoryStore):
    """A memory store that knows what was asked of it; ``failing`` maps keys to errors, ``before`` is called before a write."""

    def __init__(self) -> None:
        super().__init__()
        self.gets: list[str] = []
        self.sets: list[str] = []
        self.failing: dict[str, BaseException] = {}
        self.before = lambda key: None

    def get_blocking(self, key, byte_range=None, reserve=None):
        if key.startswith("a/c"):
            self.gets.append(key)
        return super().get_blocking(key, byte_range, reserve)

    def set_blocking(self, key, value):
        self.before(key)
        if key in self.failing:
            raise self.failing[key]
        if key.startswith("a/c"):
            self.sets.append(key)
        super().set_blocking(key, value)


class AwaitedStore(Store):
    """The same, with calls that are awaited."""

    def __init__(self) -> None:
        self.inner = RecordingStore()
        self.in_flight = self.max_in_flight = 0
        self.gate = asyncio.Event()
        self.gate.set()

        self._values, self.gets, self.sets, self.failing = (getattr(self.inner, name) for name in ("_values", "gets", "sets", "failing"))

    def erase_blocking(self, key):
        self.inner.erase_blocking(key)

    async def get(self, key, byte_range=None):
        await asyncio.sleep(0)
        return self.inner.get_blocking(key, byte_range)

    async def set(self, key, value):
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            self.inner.set_blocking(key, value)
        finally:
            self.in_flight -= 1

    async def erase(self, key):
        await asyncio.sleep(0)
        self.inner.erase_blocking(key)

    async def erase_prefix(self, prefix):
        await self.inner.erase_prefix(prefix)

    async def list_prefix(self, prefix=""):
        async for key in self.inner.list_prefix(prefix):
            yield key

    async def list_dir(self, prefix=""):
        return await self.inner.list_dir(prefix)


class Items:
    """An asynchronous source that knows how many items were asked of it, and whether it has been closed."""

    def __init__(self, items, *, pause=lambda: asyncio.sleep(0), error=None) -> None:
        self._items, self._pause, self._error = iter(items), pause, error
        self.count = self.closed = 0
        self.tasks = set()

    def __aiter__(self):
        return self

    async def __anext__(self):
        assert not self.closed
        self.tasks.add(asyncio.current_task())
        await self._pause()
        try:
            item = next(self._items)
        except StopIteration:
            if self._error is not None:
                raise self._error from None
            raise StopAsyncIteration from None
        self.count += 1
        return item

    async def aclose(self):
        self.tasks.add(asyncio.current_task())
        await asyncio.sleep(0)
        self.closed += 1


async def turns(count=10) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition) -> None:
    """Let the loop go round until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0)


async def make(store, layout="plain", **options):
    options = {"shape": DATA.shape, "dtype": "<i4", "chunks": (10, 20), **LAYOUTS[layout], **options}
    return await azarr.create_array(store, "a", **options)


def regions(shape, block):
    """The blocks of an array, in C order."""
    starts = itertools.product(*(range(0, length, step) for length, step in zip(shape, block, strict=True)))
    return [tuple(slice(low, min(low + step, length)) for low, step, length in zip(start, block, shape, strict=True)) for start in starts]


def by_region(data, block):
    return [(region, data[region]) for region in regions(data.shape, block)]


def by_coords(data, block):
    counts = [range(-(-length // step)) for length, step in zip(data.shape, block, strict=True)]
    return [(coords, data[region]) for coords, region in zip(itertools.product(*counts), regions(data.shape, block), strict=True)]


def data_keys(store):
    return sorted(key for key in store._values if key.startswith("a/c"))


@pytest.fixture(params=["memory", "local", "latency", "awaited"])
def store(request, tmp_path):
    """Stores whose calls block, and stores that are awaited."""
    if request.param == "local":
        return LocalStore(tmp_path / "s", durability="none")
    if request.param == "latency":
        return LatencyStore(MemoryStore(), 0.0, jitter=0.001, seed=1)
    return RecordingStore() if request.param == "memory" else AwaitedStore()


@pytest.fixture(params=[RecordingStore, AwaitedStore])
def recording(request):
    """A store that knows what was asked of it, one of each kind."""
    return request.param()


every_layout = pytest.mark.parametrize("layout", LAYOUTS)


# --- what is written


@every_layout
@pytest.mark.parametrize("block", [(10, 20), (20, 40), (7, 11), (1, 70), (60, 1), (60, 70), (13, 40)], ids=str)
@pytest.mark.parametrize("order", ["in order", "shuffled"])
async def test_regions_of_any_shape_in_any_order(store, layout, block, order):
    array = await make(store, layout)
    items = by_region(DATA, block)
    if order == "shuffled":
        random.Random(1).shuffle(items)
    report = await array.write_stream(Items(items))
    assert np.array_equal(await array, DATA)
    assert (report.written, report.skipped, report.failed) == (len(items), 0, 0)
    assert report.nbytes == DATA.nbytes
    assert report.seconds > 0


@every_layout
@pytest.mark.parametrize("kind", ["asynchronous generator", "generator", "list"])
async def test_chunks_by_their_coordinates(store, layout, kind):
    array = await make(store, layout)
    items = by_coords(DATA, (10, 20))

    async def generate():
        for item in items:
            yield item

    source = {"asynchronous generator": generate(), "generator": (item for item in items), "list": items}[kind]
    report = await array.write_stream(source)
    assert report.written == len(items)
    assert np.array_equal(await array, DATA)


@every_layout
@pytest.mark.parametrize("chunks", [(10, 20), (7, 11), (60, 70), (1, 70)], ids=str)
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_stream_of_another_array(store, layout, chunks, ordered):
    source = await azarr.create_array(MemoryStore(), shape=DATA.shape, chunks=chunks, dtype="i4")
    await source.write(DATA)
    array = await make(store, layout)
    report = await array.write_stream(source.stream_chunks(ordered=ordered))
    assert report.written == source.nchunks
    assert np.array_equal(await array, DATA)


async def test_what_is_stored_is_what_write_stores(recording):
    array = await make(recording, "sharded", compressors=None)
    await array.write(DATA)
    expected = {key: recording._values[key] for key in data_keys(recording)}
    for block in ((10, 20), (7, 11), (60, 70)):
        for key in expected:
            recording.erase_blocking(key)
        await array.write_stream(Items(by_region(DATA, block)))
        assert {key: recording._values[key] for key in data_keys(recording)} == expected


VIEWS = [
    (slice(5, 48), slice(13, 66)),
    (slice(None, None, 3), slice(2, None, 7)),
    (17,),
    (slice(None), 23),
    (3, 4),
    (slice(None, None, -1), slice(60, 10, -3)),
    (slice(20, 40), slice(0, 40)),
]


@every_layout
@pytest.mark.parametrize("key", VIEWS, ids=str)
@pytest.mark.parametrize("step", [3, 100])
async def test_views_are_written_by_their_own_regions(store, layout, key, step):
    array, expected = await make(store, layout), -DATA
    await array.write(-DATA)
    view = array[key]
    part = DATA[key]
    report = await view.write_stream(Items(by_region(part, (step,) * view.ndim)))
    expected[key] = part
    assert np.array_equal(await array, expected)
    assert report.failed == 0


@every_layout
@pytest.mark.parametrize("how", ["outer", "points"])
async def test_views_of_indices(store, layout, how):
    array, expected = await make(store, layout), -DATA
    await array.write(-DATA)
    rows, columns = np.array([41, 3, 3 + 1, 17]), np.array([0, 69, 33, 12])
    view = array.oindex[rows, columns] if how == "outer" else array.vindex[rows, columns]
    key = np.ix_(rows, columns) if how == "outer" else (rows, columns)
    await view.write_stream(Items(by_region(DATA[key], (3,) * view.ndim)))
    expected[key] = DATA[key]
    assert np.array_equal(await array, expected)


@every_layout
@pytest.mark.parametrize("how", ["outer", "points", "dropped"])
async def test_streams_of_indices(store, layout, how):
    """Their chunks say with arrays of positions where they belong."""
    source = await azarr.create_array(MemoryStore(), shape=DATA.shape, chunks=(9, 9), dtype="i4")
    await source.write(DATA)
    rng = np.random.default_rng(0)
    if how == "outer":
        view = source.oindex[rng.permutation(60), :]
    elif how == "dropped":
        view = source.oindex[rng.permutation(60), 5]
    else:
        view = source.vindex[rng.integers(0, 60, (6, 7)), rng.integers(0, 70, (6, 7))]
    expected = await view
    shards = {"shards": (10,) * expected.ndim if layout == "sharded" else None}
    array = await make(store, shape=expected.shape, chunks=(5,) * expected.ndim, **shards)
    await array.write_stream(view.stream_chunks())
    assert np.array_equal(await array, expected)


@every_layout
@pytest.mark.parametrize(("axis", "thickness"), [(0, None), (1, 7), (1, None)])
async def test_slices_of_another_array(store, layout, axis, thickness):
    source = await azarr.create_array(MemoryStore(), shape=DATA.shape, chunks=(9, 9), dtype="i4")
    await source.write(DATA)
    array = await make(store, layout)
    await array.write_stream(source.stream_slices(axis, thickness=thickness))
    assert np.array_equal(await array, DATA)
    line = await make(store, overwrite=True, shape=(70,), chunks=(20,))
    await line.write_stream(source[3].stream_slices(0))
    assert np.array_equal(await line, DATA[3])


async def test_a_number_in_a_region_takes_its_axis_away(store):
    array = await make(store)
    await array.write_stream([((row, slice(None)), DATA[row]) for row in range(60)])
    assert np.array_equal(await array, DATA)


async def test_chunks_of_different_lengths(store):
    array = await azarr.create_array(store, "a", shape=DATA.shape, chunks=[[7, 13, 40], [20, 20, 10, 20]], dtype="i4")
    for sign, items in ((1, by_region(DATA, (11, 70))), (2, [((2, 3), 2 * DATA[20:, 50:]), ((0, 0), 2 * DATA[:7, :20])])):
        await array.write_stream(Items(items))
        assert np.array_equal(await array[20:, 50:], sign * DATA[20:, 50:])
        assert np.array_equal(await array[:7, :20], sign * DATA[:7, :20])
    assert np.array_equal(await array[7:20], DATA[7:20])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("str", np.array(["", "α", "a longer one", "\0"] * 6, dtype=object)),
        ("bytes", np.array([b"", b"\0\1", b"abc"] * 8, dtype=object)),
        (np.dtype([("a", "i4"), ("b", "f8")]), np.array([(1, 2.5), (3, -0.0)] * 12, dtype=[("a", "i4"), ("b", "f8")])),
        ("datetime64[s]", np.arange(24).astype("datetime64[s]")),
        ("bool", np.arange(24) % 3 == 0),
        ("complex64", np.arange(24) * 1j),
    ],
    ids=lambda value: "" if isinstance(value, np.ndarray) else str(value),
)
@pytest.mark.parametrize("layout", ["plain", "sharded"])
@pytest.mark.parametrize("block", [4, 3])
async def test_all_kinds_of_elements(store, dtype, values, layout, block):
    shards = {"shards": (8,)} if layout == "sharded" else {}
    array = await azarr.create_array(store, "a", shape=24, chunks=4, dtype=dtype, **shards)
    await array.write_stream(Items(by_region(values, (block,))))
    assert (await array == values).all()


async def test_an_array_without_dimensions(store):
    array = await azarr.create_array(store, "a", shape=(), chunks=(), dtype="i4")
    report = await array.write_stream([((), 7)])
    assert await array == 7
    assert report.last_coords == ()


@pytest.mark.parametrize("shape", [(0,), (0, 5), (5, 0)])
async def test_arrays_and_regions_without_elements(store, shape):
    array = await azarr.create_array(store, "a", shape=shape, chunks=(2,) * len(shape), dtype="i4")
    report = await array.write_stream([(tuple(slice(0, length) for length in shape), np.zeros(shape, "i4"))])
    assert report.written == 1
    assert report.nbytes == 0
    assert (await array.write_stream([])).written == 0


async def test_data_are_converted_as_write_does(store):
    array = await make(store, dtype="f4")
    await array.write_stream(Items(by_region(DATA.tolist() and DATA.astype("f8"), (10, 20))))
    assert np.array_equal(await array, DATA.astype("f4"))
    await array.write_stream([((0, 0), (DATA[:10, :20] * 2).tolist())])
    assert np.array_equal(await array[:10, :20], DATA[:10, :20] * 2)


async def test_data_are_broadcast_only_where_they_need_not_be_valid(store):
    array = await make(store)
    with pytest.raises(WriteError, match="shape"):
        await array.write_stream([((0, 0), 7)])
    await array.write_stream([((0, 0), 7), ((1, 0), np.arange(20))], validate=False)
    assert (await array[:10, :20] == 7).all()
    assert (await array[10:20, :20] == np.arange(20)).all()
    with pytest.raises(WriteError, match="broadcast"):
        await array.write_stream([((0, 0), np.zeros(7, "i4"))], validate=False)


async def test_fill_value_is_not_stored(recording):
    array = await make(recording)
    await array.write(DATA)
    await array.write_stream([((0, 0), np.zeros((10, 20), "i4"))])
    assert "a/c/0/0" not in recording._values


# --- what is put together


@pytest.mark.parametrize(
    ("layout", "block", "sets"),
    [
        ("plain", (10, 20), 24),
        ("plain", (60, 1), 24),
        ("plain", (1, 80), 24),
        ("plain", (7, 11), 24),
        ("sharded", (10, 20), 6),
        ("sharded", (20, 40), 6),
        ("sharded", (10, 40), 6),
        ("sharded", (60, 1), 6),
        ("sharded", (7, 11), 6),
        ("sharded", (60, 80), 6),
    ],
    ids=str,
)
@pytest.mark.parametrize("order", ["in order", "shuffled"])
async def test_what_is_stored_under_one_key_is_stored_once_and_not_read(recording, layout, block, sets, order):
    array = await make(recording, layout, shape=ALIGNED.shape)
    await array.write(-ALIGNED)
    recording.sets.clear()
    recording.gets.clear()
    items = by_region(ALIGNED, block)
    if order == "shuffled":
        random.Random(2).shuffle(items)
    await array.write_stream(Items(items))
    assert recording.gets == []
    assert sorted(recording.sets) == data_keys(recording)
    assert len(recording.sets) == sets
    assert np.array_equal(await array, ALIGNED)


async def test_a_shard_is_stored_when_its_last_chunk_comes():
    store = RecordingStore()
    array, seen = await make(store, "sharded", shape=ALIGNED.shape), []

    async def generate():
        for item in by_coords(ALIGNED, (10, 20)):
            await turns(50)
            seen.append(len(data_keys(store)))
            yield item

    async with Engine(executor=InlineExecutor()) as engine:
        array = await azarr.open_array(store, "a", engine=engine)
        await array.write_stream(generate())
    # two rows of four chunks make two shards
    assert seen[:8] == [0, 0, 0, 0, 0, 0, 1, 1]
    assert seen[8] == 2


async def test_what_has_not_come_is_read_and_kept(recording):
    array, expected = await make(recording, "sharded", shape=ALIGNED.shape), -ALIGNED
    await array.write(-ALIGNED)
    recording.sets.clear()
    some = [item for number, item in enumerate(by_region(ALIGNED, (10, 20))) if number not in {0, 9}]
    await array.write_stream(Items(some))
    assert sorted(recording.gets) == ["a/c/0/0", "a/c/1/0"]
    assert len(recording.sets) == 6
    for region, data in some:
        expected[region] = data
    assert np.array_equal(await array, expected)


async def test_a_view_of_part_of_a_shard_is_complete_when_all_of_the_view_has_come(recording):
    """Nothing more can come, so nothing is waited for; the rest of the shard is read."""
    array, stored = await make(recording, "sharded", shape=ALIGNED.shape), []
    await array.write(-ALIGNED)
    recording.sets.clear()
    view = array[:10, :]

    async def generate():
        for item in by_region(ALIGNED[:10], (10, 20)):
            yield item
        await until(lambda: len(recording.sets) == 2)
        stored.extend(recording.sets)

    await view.write_stream(generate())
    assert sorted(stored) == ["a/c/0/0", "a/c/0/1"]
    assert sorted(recording.gets) == ["a/c/0/0", "a/c/0/1"]
    assert np.array_equal(await array[10:], -ALIGNED[10:])
    assert np.array_equal(await array[:10], ALIGNED[:10])


async def test_what_comes_twice_is_stored_as_it_comes_last(store):
    array = await make(store, "sharded")
    items = [(region, data * sign) for sign in (3, 2, 1) for region, data in by_region(DATA, (10, 20))]
    random.Random(5).shuffle(items)
    expected = np.zeros_like(DATA)
    for region, data in items:
        expected[region] = data
    report = await array.write_stream(Items(items))
    assert report.written == len(items)
    assert np.array_equal(await array, expected)


@every_layout
@pytest.mark.parametrize("memory", [None, 3000])
@pytest.mark.parametrize("seed", range(3))
async def test_regions_that_overlap_are_stored_as_they_come_last(store, layout, seed, memory):
    array, expected, dice = await make(store, layout), -DATA, random.Random(seed)
    await array.write(-DATA)
    items = []
    for _ in range(60):
        region = []
        for length in DATA.shape:
            start = dice.randrange(length)
            region.append(slice(start, dice.randrange(start + 1, min(length, start + 25) + 1)))
        items.append((tuple(region), DATA[tuple(region)] * dice.randrange(1, 100)))
        expected[tuple(region)] = items[-1][1]
    await array.write_stream(Items(items), memory=memory, concurrency=7)
    assert np.array_equal(await array, expected)


async def test_one_chunk_again_and_again_is_stored_in_order(recording):
    """A later write of the same key does not overtake an earlier one."""
    array = await make(recording)
    second = threading.Event()
    calls = itertools.count()

    def before(key):
        if next(calls):
            second.set()
        else:
            second.wait(0.05)  # but it does not come, as it waits for the first

    (recording.inner if isinstance(recording, AwaitedStore) else recording).before = before
    for count in (2, 1, 50):
        await array.write_stream(Items([((0, 0), np.full((10, 20), number, "i4")) for number in range(1, count + 1)]))
        assert (await array[:10, :20] == count).all()
    for whole in (True, False):  # and so are what comes whole and what comes in parts
        parts = [((slice(row, row + 1), slice(0, 20)), np.full((1, 20), row + 100, "i4")) for row in range(10)]
        items = [((0, 0), np.full((10, 20), 7, "i4"))] if whole else []
        await array.write_stream(Items([*items, *parts, *parts[:5]]), memory=160)
        assert (await array[:10, :20] == np.arange(100, 110)[:, np.newaxis]).all()


# --- how much at once


def test_it_takes_as_many_rounds_as_there_must_be(run_virtual):
    async def main():
        for count, concurrency in [(1, 1), (1, 5), (4, 4), (5, 4), (12, 4), (13, 4), (40, 7), (3, 32), (100, 32), (9, 1)]:
            for kind in (Items, list):
                loop, inner = asyncio.get_running_loop(), MemoryStore()
                await azarr.create_array(inner, "a", shape=4 * count, chunks=4, dtype="i4", compressors=None)
                store = LatencyStore(inner, 2.0)
                array = await azarr.open_array(store, "a", engine=Engine(executor=InlineExecutor()))
                begin = loop.time()
                items = kind([((number,), np.full(4, number + 1, "i4")) for number in range(count)])
                store.max_in_flight, store.requests = 0, 0
                report = await array.write_stream(items, concurrency=concurrency)
                assert loop.time() - begin == pytest.approx(2.0 * -(-count // concurrency), abs=1e-6)
                assert store.max_in_flight == min(count, concurrency)
                assert store.requests == count
                assert report.written == count

    run_virtual(main)


def test_a_slow_source_and_a_slow_store_work_at_the_same_time(run_virtual):
    async def main():
        loop, inner = asyncio.get_running_loop(), MemoryStore()
        await azarr.create_array(inner, "a", shape=40, chunks=4, dtype="i4", compressors=None)
        store = LatencyStore(inner, 3.0)
        array = await azarr.open_array(store, "a", engine=Engine(executor=InlineExecutor()))
        begin = loop.time()
        items = [((number,), np.full(4, number + 1, "i4")) for number in range(10)]
        await array.write_stream(Items(items, pause=lambda: asyncio.sleep(2.0)), concurrency=3)
        # ten items, and the source's word that there are no more
        assert loop.time() - begin == pytest.approx(max(10 * 2.0 + 3.0, 11 * 2.0), abs=1e-6)
        assert store.max_in_flight == 2

    run_virtual(main)


@pytest.mark.parametrize("concurrency", [1, 3, 8])
@every_layout
async def test_the_source_is_never_ahead(layout, concurrency):
    store = AwaitedStore()
    array = await make(store, layout)
    store.gate.clear()
    items = Items(by_coords(DATA, (10, 20)))
    task = asyncio.create_task(array.write_stream(items, concurrency=concurrency))
    await until(lambda: store.in_flight == min(concurrency, 6 if layout != "plain" else 24))
    await turns(50)
    if layout == "plain":
        assert items.count == concurrency
    assert store.max_in_flight == min(concurrency, 6 if layout != "plain" else 24)
    count = items.count
    await turns(50)
    assert items.count == count
    store.gate.set()
    await task
    assert store.max_in_flight <= concurrency
    assert np.array_equal(await array, DATA)


async def test_a_source_of_a_billion_is_not_read_ahead(recording):
    array = await azarr.create_array(recording, "a", shape=4 * 10**9, chunks=4, dtype="i4")
    source = Items(((number,), np.full(4, number + 1, "i4")) for number in range(10**9))
    error = StoreError("full")
    recording.failing["a/c/20"] = error
    with pytest.raises(StoreError) as caught:
        await array.write_stream(source, concurrency=4)
    assert caught.value is error
    stored = len([key async for key in recording.list_prefix("a/c/")])
    assert 20 <= source.count <= stored + 4 + 1  # those that were under way, and the one that there was no place for


class Watched(np.ndarray):
    """An array of its own memory that can be watched dying."""

    @classmethod
    def of(cls, data):
        array = cls(data.shape, data.dtype)
        array[...] = data
        return array


@pytest.mark.parametrize("layout", ["plain", "sharded"])
@pytest.mark.parametrize("block", [(10, 20), (5, 70), (3, 7)], ids=str)
@pytest.mark.parametrize("checkpoint", [False, True])
async def test_memory_bounds_the_data_that_are_held(recording, layout, block, checkpoint, tmp_path):
    array = await make(recording, layout)
    alive, held = {}, []

    def generate():
        for number, region in enumerate(regions(DATA.shape, block)):
            data = Watched.of(DATA[region])
            alive[number] = data.nbytes
            weakref.finalize(data, alive.pop, number)
            held.append(sum(alive.values()))
            yield region, data
            del data

    largest = DATA[regions(DATA.shape, block)[0]].nbytes
    memory = 5 * largest
    options = {"checkpoint": tmp_path / "c.json"} if checkpoint else {}
    gc.collect()
    gc.disable()
    try:
        report = await array.write_stream(generate(), memory=memory, concurrency=4, **options)
    finally:
        gc.enable()
    assert report.written == len(regions(DATA.shape, block))
    assert max(held) <= memory
    assert alive == {}
    assert np.array_equal(await array, DATA)


async def test_what_fits_into_memory_is_held():
    store = AwaitedStore()
    array = await make(store, "sharded")
    store.gate.clear()
    items = Items(by_coords(DATA, (10, 20)))
    task = asyncio.create_task(array.write_stream(items, memory=5 * 800))
    await until(lambda: items.count == 5)
    await turns(50)
    assert items.count == 5
    store.gate.set()
    await task
    assert np.array_equal(await array, DATA)


async def test_one_item_always_fits(recording):
    array = await make(recording, "sharded", shape=ALIGNED.shape)
    report = await array.write_stream(Items(by_region(ALIGNED, (20, 40))), memory=1)
    assert report.written == 6
    assert recording.gets == []
    recording.sets.clear()
    await array.write_stream(Items(by_region(ALIGNED, (10, 20))), memory=1)
    assert len(recording.sets) == 24  # each chunk by itself
    assert np.array_equal(await array, ALIGNED)


async def test_where_memory_ends_the_oldest_is_stored_as_far_as_it_has_come(recording):
    array = await make(recording, "sharded", shape=(20, 400), compressors=None)
    wide = np.arange(20 * 400, dtype="i4").reshape(20, 400) + 1
    items = by_region(wide, (10, 20))  # a row of chunks through ten shards, then another
    await array.write_stream(Items(items), memory=12 * 800, concurrency=1)
    assert np.array_equal(await array, wide)
    shards = [key.rpartition("/")[2] for key in recording.sets]
    assert shards[:4] == ["0", "1", "2", "3"]
    # what is left of the first row when the second begins is completed and not read
    assert len(recording.sets) == 20 - len([shard for shard in set(shards) if shards.count(shard) == 1])
    assert {key.rpartition("/")[2] for key in recording.gets} >= {shard for shard in shards if shards.count(shard) > 1}


# --- what goes wrong


WRONG = {
    "no pair": ("nonsense", StreamError, "str"),
    "a tuple of three": ((1, 2, 3), StreamError, "a tuple of 3"),
    "no tuple": ((3, DATA), StreamError, "neither coordinates nor a region"),
    "a mixture": (((slice(0, 10), "x"), DATA), WriteError, "whole numbers"),
    "a number beyond": (((slice(0, 10), 70), np.zeros(10, "i4")), WriteError, "within 0 and 70"),
    "floats": (((0.0, 0.0), DATA), StreamError, "coordinates are whole numbers"),
    "booleans": (((True, False), DATA), StreamError, "coordinates are whole numbers"),
    "no such chunk": (((6, 0), np.zeros((10, 20), "i4")), WriteError, r"no chunk \(6, 0\)"),
    "a negative chunk": (((-1, 0), np.zeros((10, 20), "i4")), WriteError, "no chunk"),
    "too few coordinates": (((1,), np.zeros((10, 20), "i4")), WriteError, "no chunk"),
    "another shape": (((0, 0), np.zeros((10, 19), "i4")), WriteError, "shape"),
    "a whole chunk at the edge": (((0, 3), np.zeros((10, 20), "i4")), WriteError, "shape"),
    "another kind": (((0, 0), np.zeros((10, 20), "f8")), WriteError, "float64"),
    "a region beyond": (((slice(0, 10), slice(60, 71)), np.zeros((10, 11), "i4")), WriteError, "within 0 and 70"),
    "a negative region": (((slice(-10, None), slice(0, 20)), np.zeros((10, 20), "i4")), WriteError, "within"),
    "a region backwards": (((slice(10, 0), slice(0, 20)), np.zeros((0, 20), "i4")), WriteError, "within"),
    "a region with steps": (((slice(0, 10, 2), slice(0, 20)), np.zeros((5, 20), "i4")), WriteError, "step"),
    "a region of floats": (((slice(0, 1.5), slice(0, 20)), np.zeros((5, 20), "i4")), WriteError, "whole numbers"),
    "a region of one axis": (((slice(0, 10),), np.zeros(10, "i4")), WriteError, "1 axes where there are 2"),
    "positions beyond": (Chunk((0, 0), np.ix_([0, 60], [0]), np.zeros((2, 1), "i4")), WriteError, "whole numbers from 0 to 59"),
    "no array": (((0, 0), [[1, 2], [3]]), WriteError, "not an array"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_an_item_that_is_wrong_is_named_and_ends_the_stream(recording, name):
    item, kind, message = WRONG[name]
    array = await make(recording)
    source = Items([((0, 1), np.ones((10, 20), "i4")), item, ((0, 2), np.ones((10, 20), "i4"))])
    with pytest.raises(kind, match=message) as caught:
        await array.write_stream(source)
    assert "item 1 of the source" in str(caught.value)
    assert source.closed == 1
    assert source.count == 2


@pytest.mark.parametrize("how", ["skip", "function", "coroutine"])
async def test_items_that_are_wrong_can_be_left_out(recording, how):
    array, told = await make(recording), []

    async def tell(coords, error):
        await asyncio.sleep(0)
        told.append((coords, error))

    good = by_coords(DATA, (10, 20))
    bad = [item for item, _, _ in WRONG.values()]
    items = [each for pair in itertools.zip_longest(good, bad) for each in pair if each is not None]
    on_error = {"skip": "skip", "function": lambda *args: told.append(args), "coroutine": tell}[how]
    report = await array.write_stream(Items(items), on_error=on_error)
    assert (report.written, report.failed) == (len(good), len(bad))
    assert np.array_equal(await array, DATA)
    if how != "skip":
        assert [type(error) for _, error in told] == [kind for _, kind, _ in WRONG.values()]
        by_name = dict(zip(WRONG, [coords for coords, _ in told], strict=True))
        assert by_name["no such chunk"] == (6, 0)
        assert by_name["no pair"] is None
        assert by_name["a region beyond"] is None
        assert by_name["positions beyond"] == (0, 0)


async def test_coordinates_have_no_meaning_in_a_view(recording):
    array = await make(recording)
    with pytest.raises(WriteError, match="regions"):
        await array[5:].write_stream([((0, 0), np.zeros((10, 20), "i4"))])
    await array[...].write_stream([((0, 0), DATA[:10, :20])])
    assert np.array_equal(await array[:10, :20], DATA[:10, :20])


@every_layout
async def test_a_store_that_fails_ends_the_stream_with_its_error(recording, layout):
    array = await make(recording, layout)
    error = StoreError("full", key="a/c/0/1")
    recording.failing["a/c/0/1"] = error
    source = Items(by_coords(DATA, (10, 20)))
    with pytest.raises(StoreError) as caught:
        await array.write_stream(source, concurrency=1)
    assert caught.value is error
    assert error.__context__ is None
    assert source.closed == 1
    assert source.count <= 8


@every_layout
@pytest.mark.parametrize("how", ["skip", "function", "coroutine"])
async def test_what_a_store_refuses_can_be_left_out(recording, layout, how):
    array, told = await make(recording, layout), []
    for key in ("a/c/0/1", "a/c/2/0"):
        recording.failing[key] = StoreError("full", key=key)

    async def tell(coords, error):
        await asyncio.sleep(0)
        told.append((coords, error.key))

    on_error = {"skip": "skip", "function": lambda coords, error: told.append((coords, error.key)), "coroutine": tell}[how]
    report = await array.write_stream(Items(by_coords(DATA, (10, 20))), on_error=on_error)
    lost = {"a/c/0/1": [(0, 1)], "a/c/2/0": [(2, 0)]}
    if layout != "plain":
        lost = {"a/c/0/1": [(0, 2), (0, 3), (1, 2), (1, 3)], "a/c/2/0": [(4, 0), (4, 1), (5, 0), (5, 1)]}
    assert report.failed == sum(map(len, lost.values()))
    assert report.written == 24 - report.failed
    if how != "skip":
        assert sorted(told) == sorted((coords, key) for key, each in lost.items() for coords in each)
    expected = DATA.copy()
    for coords in itertools.chain.from_iterable(lost.values()):
        expected[coords[0] * 10 : coords[0] * 10 + 10, coords[1] * 20 : coords[1] * 20 + 20] = 0
    assert np.array_equal(await array, expected)


async def test_an_item_of_several_chunks_fails_once(recording):
    array, told = await make(recording), []
    for key in ("a/c/0/1", "a/c/0/2"):
        recording.failing[key] = StoreError("full", key=key)
    report = await array.write_stream(Items(by_region(DATA, (10, 70))), on_error=lambda *args: told.append(args))
    assert report.failed == 1
    assert report.written == 5
    assert [coords for coords, _ in told] == [(0, 0)]


async def test_a_function_that_raises_ends_the_stream(recording):
    array = await make(recording)
    recording.failing["a/c/0/1"] = StoreError("full")
    error = KeyError("mine")

    def tell(coords, failure):
        raise error

    source = Items(by_coords(DATA, (10, 20)))
    with pytest.raises(KeyError) as caught:
        await array.write_stream(source, on_error=tell)
    assert caught.value is error
    assert source.closed == 1
    with pytest.raises(KeyError):
        await array.write_stream([((9, 9), 1)], on_error=tell)


@pytest.mark.parametrize("on_error", ["raise", "skip"])
@pytest.mark.parametrize("good", [0, 1, 7])
@pytest.mark.parametrize("kind", ["asynchronous", "plain"])
async def test_a_source_that_fails_ends_the_stream_with_its_error(recording, on_error, good, kind):
    array, error = await make(recording), ValueError("of the source")
    items = by_coords(DATA, (10, 20))[:good]

    def generate():
        yield from items
        raise error

    with pytest.raises(ValueError) as caught:
        await array.write_stream(Items(items, error=error) if kind == "asynchronous" else generate(), on_error=on_error)
    assert caught.value is error
    assert error.__context__ is None or kind == "asynchronous"


async def test_a_store_that_fails_is_not_waited_out_by_a_source_that_is_slow(recording):
    array, error, closed = await make(recording), StoreError("full"), []
    recording.failing["a/c/0/0"] = error

    async def generate():
        yield (0, 0), DATA[:10, :20]
        try:
            await asyncio.Event().wait()
        finally:
            await turns()
            closed.append(asyncio.current_task().cancelling())

    async with asyncio.timeout(PATIENCE):
        with pytest.raises(StoreError) as caught:
            await array.write_stream(generate())
    assert caught.value is error
    assert closed == [1]


async def test_an_engine_that_is_closed_meanwhile(recording):
    engine = Engine(executor=ThreadExecutor(1))
    await make(recording)
    array = await azarr.open_array(recording, "a", engine=engine)

    async def generate():
        for number, item in enumerate(by_coords(DATA, (10, 20))):
            if number == 5:
                await engine.aclose()
            yield item

    with pytest.raises(RuntimeError, match="engine is closed"):
        await array.write_stream(generate())


async def test_a_damaged_chunk_is_not_completed(recording):
    array = await make(recording, compressors=azarr.codecs.Crc32c())
    await array.write(DATA)
    damaged = bytearray(recording._values["a/c/1/1"])
    damaged[0] ^= 1
    recording._values["a/c/1/1"] = bytes(damaged)
    with pytest.raises(CodecError) as caught:
        await array.write_stream([((slice(10, 11), slice(20, 21)), [[5]])])
    assert caught.value.coords == (1, 1)
    assert recording._values["a/c/1/1"] == bytes(damaged)


async def test_a_store_that_cannot_be_written_to():
    class ReadOnly:
        def __init__(self, inner):
            self.inner = inner

        async def get(self, key, byte_range=None):
            return await self.inner.get(key, byte_range)

    inner = MemoryStore()
    await make(inner)
    array = await azarr.open_array(ReadOnly(inner), "a")
    source = Items([])
    with pytest.raises(StoreError, match="cannot be written to"):
        await array.write_stream(source)
    assert source.closed == 1


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"concurrency": 0}, ValueError),
        ({"memory": 0}, ValueError),
        ({"batch_size": 0}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"on_error": "ignore"}, ValueError),
        ({"resume": True}, ValueError),
        ({"resume": True, "checkpoint": print}, ValueError),
        ({"checkpoint": 7}, TypeError),
        ({"checkpoint": (1, 2)}, TypeError),
        ({"checkpoint": (MemoryStore(), "a", "b")}, TypeError),
        ({"checkpoint": (MemoryStore(), 7)}, TypeError),
        ({"source_id": 7}, TypeError),
        ({"unknown": 7}, TypeError),
    ],
    ids=str,
)
async def test_options_that_make_no_sense(recording, options, error):
    array = await make(recording)
    source = Items([])
    with pytest.raises(error):
        await array.write_stream(source, **options)
    assert source.closed == 1


async def test_what_is_no_source(recording):
    array = await make(recording)
    with pytest.raises(StreamError, match="iterable"):
        await array.write_stream(7)


# --- timeouts


def test_a_chunk_that_takes_too_long_has_failed(run_virtual):
    class Stuck(LatencyStore):
        async def set(self, key, value):
            if key in ("a/c/3", "a/c/5"):
                await asyncio.sleep(1000)
            await super().set(key, value)

    async def main():
        loop, inner = asyncio.get_running_loop(), MemoryStore()
        await azarr.create_array(inner, "a", shape=40, chunks=4, dtype="i4", compressors=None)
        array = await azarr.open_array(Stuck(inner, 1.0), "a", engine=Engine(executor=InlineExecutor()))
        items, begin, told = [((number,), np.full(4, number + 1, "i4")) for number in range(10)], loop.time(), []
        with pytest.raises(StreamTimeoutError) as caught:
            await array.write_stream(Items(items), timeout=5.0)
        assert caught.value.coords in {(3,), (5,)}
        assert loop.time() - begin == pytest.approx(5.0)
        begin = loop.time()
        report = await array.write_stream(Items(items), timeout=5.0, on_error=lambda *args: told.append(args), concurrency=4)
        assert (report.written, report.failed) == (8, 2)
        assert sorted(coords for coords, _ in told) == [(3,), (5,)]
        assert loop.time() - begin <= 12
        assert (await array[:12]).tolist() == [1] * 4 + [2] * 4 + [3] * 4

    run_virtual(main)


async def test_the_timeout_of_a_store_is_its_own_error():
    class Slow(AwaitedStore):
        async def set(self, key, value):
            raise TimeoutError("of the store")

    store = Slow()
    await make(store.inner)
    array = await azarr.open_array(store, "a")
    with pytest.raises(TimeoutError, match="of the store") as caught:
        await array.write_stream([((0, 0), DATA[:10, :20])])
    assert not isinstance(caught.value, StreamTimeoutError)


async def test_a_call_that_blocks_for_too_long_has_failed():
    store, gate = RecordingStore(), threading.Event()
    await make(store)
    store.before = lambda key: key == "a/c/0/1" and gate.wait(PATIENCE)
    async with Engine(workers=2) as engine:
        array, told = await azarr.open_array(store, "a", engine=engine), []
        items = Items(by_coords(DATA, (10, 20)))
        report = await array.write_stream(items, timeout=0.02, concurrency=1, on_error=lambda *args: told.append(args))
        assert report.failed == 1
        assert report.written == 23
        assert isinstance(told[0][1], StreamTimeoutError)
        assert told[0][0] == told[0][1].coords == (0, 1)
        # whoever comes later waits for the call that is still under way, and is not overwritten by it
        later = asyncio.create_task(array[:10, 20:40].write(7))
        await turns()
        gate.set()
        await later
        assert (await array[:10, 20:40] == 7).all()


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_a_lock_that_is_not_let_go_for_too_long(on_error):
    store = RecordingStore()
    array = await make(store)
    locks = azarr.locks.locks_of(store)
    items = by_coords(DATA, (10, 20))
    async with locks.hold("a/c/0/1"):
        if on_error == "raise":
            with pytest.raises(StreamTimeoutError) as caught:
                await array.write_stream(Items(items), timeout=1)
            assert caught.value.coords == (0, 1)
        else:
            report = await array.write_stream(Items(items), timeout=1, on_error="skip")
            assert (report.written, report.failed) == (23, 1)
    await until(lambda: not locks._queues)
    assert "a/c/0/1" not in store.sets
    await array.write_stream(Items(items))
    assert np.array_equal(await array, DATA)


async def test_no_timeout(recording):
    array = await make(recording)
    assert (await array.write_stream(by_coords(DATA, (10, 20)), timeout=None)).written == 24


# --- progress


async def test_progress_is_told_whenever_something_is_stored(recording):
    array, told = await make(recording), []
    items = by_coords(DATA, (10, 20))

    async def later(report):
        await asyncio.sleep(0)
        told.append((report.done, report.total))

    report = await array.write_stream(items, concurrency=1, progress=lambda report: told.append((report.done, report.total)))
    assert told == [*((number, 24) for number in range(1, 25)), (24, 24)]
    assert report.total == report.done == 24
    told.clear()
    await array.write_stream(Items(items), concurrency=1, progress=later)
    assert told == [*((number, None) for number in range(1, 25)), (24, None)]
    source = await azarr.create_array(MemoryStore(), shape=DATA.shape, chunks=(10, 20), dtype="i4")
    await source.write(DATA)
    stream = source.stream_chunks(filter=lambda coords: coords[0] > 3)
    report = await array.write_stream(stream, progress=lambda report: told.append((report.done, report.total)))
    assert told[-1] == (8, 8)
    error = KeyError()

    def fail(report):
        raise error

    with pytest.raises(KeyError):
        await array.write_stream(items, progress=fail)


@pytest.mark.parametrize("library", ["rich", "tqdm"])
async def test_progress_as_a_bar(recording, library, capsys):
    array = await make(recording)
    await array.write_stream(by_coords(DATA, (10, 20)), progress=library)
    shown = capsys.readouterr()
    assert "24/24" in shown.out + shown.err
    recording.failing["a/c/0/1"] = StoreError("full")
    with pytest.raises(StoreError):
        await array.write_stream(Items(by_coords(DATA, (10, 20))), progress=library)
    source = Items([])
    with pytest.raises(ValueError, match="progress"):
        await array.write_stream(source, progress="a bar")
    assert source.closed == 1


# --- what is closed, and what is left


async def test_the_source_is_closed_by_the_task_that_advanced_it(recording):
    array = await make(recording)
    source = Items(by_coords(DATA, (10, 20)))
    await array.write_stream(source)
    assert source.closed == 1
    assert len(source.tasks) == 1
    assert source.tasks != {asyncio.current_task()}


async def test_a_generator_is_closed(recording):
    array, closed = await make(recording), []

    def generate():
        try:
            yield from by_coords(DATA, (10, 20))
        finally:
            closed.append(True)

    recording.failing["a/c/0/0"] = StoreError("full")
    with pytest.raises(StoreError):
        await array.write_stream(generate(), concurrency=1)
    assert closed == [True]


async def test_what_makes_a_generator_and_the_generator_are_closed(recording):
    array, closed = await make(recording), []

    class Maker:
        async def __aiter__(self):
            try:
                for item in by_coords(DATA, (10, 20)):
                    yield item
            finally:
                closed.append("generator")

        async def aclose(self):
            closed.append("maker")

    await array.write_stream(Maker())
    assert closed == ["generator", "maker"]


async def test_a_source_that_fails_to_close(recording):
    class Failing(Items):
        async def aclose(self):
            await super().aclose()
            raise OSError("closing")

    array = await make(recording)
    with pytest.raises(OSError, match="closing"):
        await array.write_stream(Failing(by_coords(DATA, (10, 20))))
    error = recording.failing["a/c/0/0"] = StoreError("full")
    with pytest.raises(StoreError) as caught:
        await array.write_stream(Failing(by_coords(DATA, (10, 20))), concurrency=1)
    assert caught.value is error


@pytest.mark.parametrize("kind", [RecordingStore, AwaitedStore])
@pytest.mark.parametrize("case", ["plain", "sharded", "parts", "checkpoint", "failing", "callback"])
def test_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, kind, case, tmp_path):
    data = DATA[:20, :40]

    async def prepare():
        store = kind()
        layout = "sharded" if case == "sharded" else "plain"
        await make(store, layout, shape=(20, 40), **({"shards": (20, 20)} if layout == "sharded" else {}))
        array = await azarr.open_array(store, "a", engine=Engine(executor=InlineExecutor()))
        if case == "failing":
            store.failing["a/c/1/0"] = StoreError("full")
        source = Items(by_region(data, (5, 40) if case == "parts" else (10, 20)))
        options = {
            "checkpoint": {"checkpoint": (store, "checkpoint.json")},
            "failing": {"on_error": lambda *_: asyncio.sleep(0)},
            "callback": {"checkpoint": lambda _: asyncio.sleep(0)},
        }.get(case, {})

        async def body():
            await array.write_stream(source, concurrency=2, **options)

        def check():
            assert source.closed == 1
            for (row, column), part in by_coords(data, (10, 20)):
                if layout == "plain" and (value := store._values.get(f"a/c/{row}/{column}")) is not None:
                    assert np.array_equal(array.source.pipeline.decode(value), part)

        return body(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 3


@pytest.mark.parametrize("kind", [RecordingStore, AwaitedStore])
def test_cancelled_at_every_suspension_with_threads(cancelled_everywhere, how_cancelled, counting_executor, kind):
    inner = ThreadExecutor(2)

    async def prepare():
        store, executor = kind(), counting_executor(inner)
        await make(store, "sharded")
        array = await azarr.open_array(store, "a", engine=Engine(executor=executor))
        source = Items(by_coords(DATA, (10, 20)))

        async def body():
            await array.write_stream(source, concurrency=3)

        def check():
            assert source.closed == 1
            assert executor.running == executor.outstanding == 0
            assert store.locks() == {}

        store.locks = lambda: azarr.locks.locks_of(store)._queues
        return body(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 3
    inner.close()
    inner.join()


async def test_cancelling_gives_back_all_locks():
    """Those of units that wait for a worker, and those that are waited for."""
    store, begun, gate = RecordingStore(), threading.Event(), threading.Event()
    await make(store)
    locks = azarr.locks.locks_of(store)

    def wait(key):
        begun.set()
        gate.wait(PATIENCE)

    store.before = wait
    async with Engine(workers=1) as engine:
        array = await azarr.open_array(store, "a", engine=engine)
        async with locks.hold("a/c/0/1"):
            task = asyncio.create_task(array.write_stream(by_coords(DATA, (10, 20)), concurrency=8))
            await until(begun.is_set)
            task.cancel()
            await turns()
            assert not task.done()
            gate.set()
            await turns()
            assert not task.done()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert locks._queues == {}
        stored = len(store.sets)
        await turns()
        assert len(store.sets) == stored <= 9


async def test_an_error_leaves_nothing_that_keeps_what_was_worked_on(recording):
    array = await make(recording)
    recording.failing["a/c/0/1"] = StoreError("full")
    gc.collect()
    gc.disable()
    try:
        for options in ({}, {"on_error": "skip"}):
            alive = []

            def generate(alive=alive):
                for coords, data in by_coords(DATA, (10, 20)):
                    mine = Watched.of(data)
                    alive.append(weakref.ref(mine))
                    yield coords, mine
                    del mine

            try:
                await array.write_stream(generate(), **options)
            except StoreError as error:
                error.__traceback__ = None
            recording.failing["a/c/0/1"] = StoreError("full")
            await turns()
            assert [each for each in alive if each() is not None] == []
    finally:
        gc.enable()


async def test_a_source_that_never_waits_does_not_starve_the_loop(recording):
    array, beats = await make(recording, shape=(3000, 20), chunks=(1000, 20)), 0

    async def heart():
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    beating = asyncio.create_task(heart())
    rows = ((slice(row, row + 1), slice(0, 20)) for row in range(3000))
    await array.write_stream((row, np.ones((1, 20), "i4")) for row in rows)
    beating.cancel()
    await asyncio.wait([beating])
    assert beats > 10


async def test_several_streams_into_one_array(recording):
    """Writers of the same shards lose nothing of each other."""
    array = await make(recording, "sharded")
    items = by_coords(DATA, (10, 20))
    await asyncio.gather(*(array.write_stream(Items(items[number::3])) for number in range(3)))
    assert np.array_equal(await array, DATA)


async def test_an_array_may_be_changed_by_a_stream_of_itself(recording):
    array = await make(recording)
    await array.write(DATA)

    async def doubled():
        async with array.stream_chunks() as chunks:
            async for chunk in chunks:
                yield chunk.region, chunk.data * 2

    await array.write_stream(doubled())
    assert np.array_equal(await array, DATA * 2)


def test_several_loops_one_after_the_other():
    store = MemoryStore()

    async def main(number):
        array = await make(store, overwrite=True)
        await array.write_stream(Items(by_coords(DATA * number, (10, 20))))
        assert np.array_equal(await array, DATA * number)

    for number in (1, 2, 3):
        asyncio.run(main(number))


# Chunks on their way to a disk


def ones(count):
    return (((number,), np.ones(1, "i4")) for number in range(count))


async def test_workers_go_on_while_what_they_wrote_waits_for_the_disk(patient):
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 20, engine)
        writing = asyncio.create_task(array.write_stream(ones(20)))
        await until(lambda: len(patient.begun) == 20)
        assert patient.ended == []
        patient.go.set()
        report = await writing
        assert report.written == 20
        assert sorted(patient.ended) == sorted(patient.begun) == sorted(f"c/{number}" for number in range(20))


@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_a_write_that_fails_in_the_end_has_failed(patient, on_error):
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 8, engine)
        patient.failing = "c/3"
        patient.go.set()
        if on_error == "raise":
            with pytest.raises(StoreError, match="cannot write 'c/3'"):
                await array.write_stream(ones(8))
        else:
            report = await array.write_stream(ones(8), on_error="skip")
            assert (report.written, report.failed) == (7, 1)
            assert (await array).tolist() == [1, 1, 1, 0, 1, 1, 1, 1]
        patient.failing = None
        async with asyncio.timeout(30):
            await array.write(2)  # all locks have been let go
        assert (await array).tolist() == [2] * 8


async def test_a_stream_that_is_cancelled_ends_only_when_what_has_begun_has_ended(patient):
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 20, engine)
        writing = asyncio.create_task(array.write_stream(ones(20)))
        await until(lambda: patient.begun)
        await cancel(writing, patient)
        async with asyncio.timeout(30):
            await array.write(7)
        assert (await array).tolist() == [7] * 20


async def test_a_chunk_that_is_not_on_the_disk_in_time_has_failed(patient):
    async with azarr.Engine(workers=1) as engine:
        array = await chunks_of(patient, 2, engine)
        with pytest.raises(azarr.errors.StreamTimeoutError):
            await array.write_stream(ones(2), timeout=0.05)
        patient.go.set()
        async with asyncio.timeout(30):
            await array.write(5)  # the locks have been let go once the disk had it
        assert (await array).tolist() == [5, 5]
        assert patient.ended.count("c/0") == 2


@pytest.mark.parametrize("executor", ["inline", None])
async def test_without_anybody_else_who_waits_it_waits_itself(patient, executor):
    engine = azarr.Engine(workers=1, executor=executor)
    array = await chunks_of(patient, 5, engine)
    patient.go.set()
    if executor is None:
        engine.waiters.close()
    await array.write_stream(ones(5))
    assert (await array).tolist() == [1] * 5
    assert len(patient.begun) == (0 if executor else 5)
    await engine.aclose()
