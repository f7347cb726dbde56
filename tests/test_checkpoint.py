"""Checkpoints: they name what is stored and nothing else, and a later run goes on from them or is refused."""

from __future__ import annotations

import asyncio
import itertools
import json
import random

import numpy as np
import pytest

import azarr
from azarr import CheckpointError, Engine, InlineExecutor, LatencyStore, LocalStore, MemoryStore, StoreError, WriteReport
from azarr import checkpoint as module
from azarr.stores.base import Store

PATIENCE = 30
DATA = np.arange(60 * 70, dtype="i4").reshape(60, 70) + 1
CHUNKS = (10, 20)
LAYOUTS = {"plain": {}, "sharded": {"shards": (20, 40)}}

pytestmark = pytest.mark.usefixtures("complaints")
every_layout = pytest.mark.parametrize("layout", LAYOUTS)


class Log(Store):
    """An awaited store that keeps a log of what was stored, and may die after so many writes of chunks."""

    def __init__(self, inner=None, dies_after=None) -> None:
        self.inner = MemoryStore() if inner is None else inner
        self.log: list[tuple[str, bytes]] = []
        self.left = dies_after

    async def get(self, key, byte_range=None):
        return await self.inner.get(key, byte_range)

    async def set(self, key, value):
        if key.startswith("a/c") and self.left is not None:
            if self.left == 0:
                raise StoreError("dead")
            self.left -= 1
        await asyncio.sleep(0)
        await self.inner.set(key, value)
        self.log.append((key, bytes(value)))

    async def erase(self, key):
        await self.inner.erase(key)

    async def erase_prefix(self, prefix):
        await self.inner.erase_prefix(prefix)

    def list_prefix(self, prefix=""):
        return self.inner.list_prefix(prefix)

    async def list_dir(self, prefix=""):
        return await self.inner.list_dir(prefix)

    @property
    def chunks(self):
        return [key for key, _ in self.log if key.startswith("a/c")]


async def make(store, layout="plain", **options):
    options = {"shape": DATA.shape, "dtype": "<i4", "chunks": CHUNKS, **LAYOUTS[layout], **options}
    return await azarr.create_array(store, "a", **options)


def regions(shape, block):
    starts = itertools.product(*(range(0, length, step) for length, step in zip(shape, block, strict=True)))
    return [tuple(slice(low, min(low + step, length)) for low, step, length in zip(start, block, shape, strict=True)) for start in starts]


def by_region(data, block=CHUNKS):
    return [(region, data[region]) for region in regions(data.shape, block)]


async def stream(items):
    for item in items:
        await asyncio.sleep(0)
        yield item


def chunks_of(document):
    return [number for first, stop in document["chunks"] for number in range(first, stop)]


# --- what is in it


async def test_the_document(tmp_path):
    store = MemoryStore()
    await make(store)
    array = await azarr.open_array(store, "a")
    report = await array.write_stream(by_region(DATA), checkpoint=tmp_path / "c.json", source_id="mine")
    assert report.written == 24
    assert json.loads((tmp_path / "c.json").read_text()) == {
        "azarr_checkpoint": 1,
        "array": {
            "path": "a",
            "zarr_format": 3,
            "shape": [60, 70],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [10, 20]}},
            "chunks_per_shard": [1, 1],
            "data_type": "int32",
            "field": [],
            "selection": [[0, 60, 1], [0, 70, 1]],
        },
        "source": "mine",
        "chunks": [[0, 24]],
        "parts": [],
    }
    assert [path.name for path in tmp_path.iterdir()] == ["c.json"]


async def test_chunks_of_shards_are_counted_in_the_grid_of_chunks():
    store = MemoryStore()
    array = await make(store, "sharded")
    await array.write_stream(by_region(DATA)[:10], checkpoint=(store, "c.json"))
    document = json.loads(await store.get("c.json"))
    assert document["array"]["chunk_grid"]["configuration"]["chunk_shape"] == [20, 40]
    assert document["array"]["chunks_per_shard"] == [2, 2]
    assert document["chunks"] == [[0, 10]]


async def test_parts_of_chunks_are_kept_as_boxes():
    store = MemoryStore()
    array = await make(store)
    items = [((slice(0, 10), slice(0, 20)), DATA[:10, :20]), ((slice(8, 15), slice(15, 25)), DATA[8:15, 15:25])]
    await array.write_stream(items, checkpoint=(store, "c.json"))
    document = json.loads(await store.get("c.json"))
    assert document["chunks"] == [[0, 1]]
    assert document["parts"] == [[1, [[[8, 10], [20, 25]]]], [4, [[[10, 15], [15, 20]]]], [5, [[[10, 15], [20, 25]]]]]


async def test_chunks_in_any_order_are_runs():
    store = MemoryStore()
    array = await make(store)
    some = [item for number, item in enumerate(by_region(DATA)) if number % 5]
    random.Random(0).shuffle(some)
    await array.write_stream(some, checkpoint=(store, "c.json"))
    assert json.loads(await store.get("c.json"))["chunks"] == [[1, 5], [6, 10], [11, 15], [16, 20], [21, 24]]


async def test_a_view_counts_by_itself():
    store = MemoryStore()
    array = await make(store)
    view = array[5:45:2, ::-1]
    await view.write_stream(by_region(DATA[5:45:2, ::-1], (7, 30)), checkpoint=(store, "c.json"))
    document = json.loads(await store.get("c.json"))
    assert document["array"]["selection"] == [[5, 20, 2], [69, 70, -1]]
    assert document["chunks"] == [[0, 20]]
    assert document["parts"] == []
    with pytest.raises(ValueError, match="integers and slices"):
        await array.oindex[[1, 2]].write_stream([], checkpoint=(store, "c.json"))


@every_layout
@pytest.mark.parametrize("block", [CHUNKS, (7, 11), (1, 70), (60, 70)], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3, 100])
async def test_it_never_names_what_is_not_stored(layout, block, batch_size):
    """After each single write: what the last checkpoint names is as it will be in the end."""
    store = Log()
    array = await make(store, layout)
    store.log.clear()
    await array.write_stream(
        stream(by_region(DATA, block)), checkpoint=(store, "c.json"), batch_size=batch_size, concurrency=4, memory=6 * 800
    )
    final = dict(store.log)
    stored, named = {}, {}
    grid = list(itertools.product(range(6), range(4)))
    for key, value in store.log:
        stored[key] = value
        if key != "c.json":
            continue
        named = json.loads(value)
        for number in chunks_of(named):
            row, column = grid[number]
            unit = f"a/c/{row}/{column}" if layout == "plain" else f"a/c/{row // 2}/{column // 2}"
            assert unit in stored
            if layout == "plain" and block == CHUNKS:
                assert stored[unit] == final[unit]
    assert chunks_of(named) == list(range(24))


@pytest.mark.parametrize("concurrency", [1, 2, 5])
@pytest.mark.parametrize("batch_size", [1, 2, 4, 50])
@every_layout
async def test_no_more_is_stored_and_not_named_than_concurrency(layout, concurrency, batch_size):
    store = Log()
    array = await make(store, layout)
    store.log.clear()
    await array.write_stream(stream(by_region(DATA)), checkpoint=(store, "c.json"), concurrency=concurrency, batch_size=batch_size)
    unnamed = worst = written = 0
    for key, _ in store.log[1:]:
        written += key == "c.json"
        unnamed = 0 if key == "c.json" else unnamed + 1
        worst = max(worst, unnamed)
    units = 24 if layout == "plain" else 6
    assert worst <= concurrency
    assert worst >= min(batch_size, concurrency, units)
    assert written >= units / concurrency


def test_what_is_stored_while_a_checkpoint_is_written_goes_into_the_next(run_virtual):
    """One write at a time, and one for many chunks."""

    async def main():
        loop, inner = asyncio.get_running_loop(), MemoryStore()
        await azarr.create_array(inner, "a", shape=400, chunks=4, dtype="i4", compressors=None)
        array = await azarr.open_array(LatencyStore(inner, 1.0, jitter=1.0, seed=3), "a", engine=Engine(executor=InlineExecutor()))
        notes = Log()
        notes.busy = notes.worst = 0

        async def slow_set(key, value):
            notes.busy += 1
            notes.worst = max(notes.worst, notes.busy)
            await asyncio.sleep(5.0)
            await Log.set(notes, key, value)
            notes.busy -= 1

        notes.set = slow_set
        items = [((number,), np.full(4, number + 1, "i4")) for number in range(100)]
        begin = loop.time()
        report = await array.write_stream(items, checkpoint=(notes, "c.json"), concurrency=10)
        assert report.written == 100
        assert notes.worst == 1
        assert len(notes.log) < 40
        assert loop.time() - begin < 200

    run_virtual(main)


async def test_a_function_gets_what_is_stored_so_far():
    store, told = Log(), []
    array = await make(store)

    def tell(report):
        told.append(report)
        assert report.written == len(store.chunks)

    report = await array.write_stream(stream(by_region(DATA)), checkpoint=tell, concurrency=1)
    assert [each.written for each in told] == list(range(1, 25))
    assert all(isinstance(each, WriteReport) for each in told)
    assert [each.nbytes for each in told][-1] == DATA.nbytes == report.nbytes
    assert told[0].last_coords == (0, 0)
    assert told[-1].last_coords == report.last_coords == (5, 3)
    told.clear()
    await array.write_stream(stream(by_region(DATA)), checkpoint=lambda report: told.append(report.written), concurrency=4, batch_size=4)
    assert told == [4, 8, 12, 16, 20, 24]

    async def later(report):
        await asyncio.sleep(0)
        told.append(report.written)

    told.clear()
    await array.write_stream(stream(by_region(DATA)[:7]), checkpoint=later, batch_size=5, concurrency=5)
    assert told[-1] == 7


@pytest.mark.parametrize("kind", ["function", "store"])
async def test_a_checkpoint_that_cannot_be_written_ends_the_stream(kind):
    store, error = Log(), StoreError("full")
    array = await make(store)

    class Full(Log):
        async def set(self, key, value):
            if self.log:
                raise error
            await super().set(key, value)

    def fail(report):
        raise error

    with pytest.raises(StoreError) as caught:
        await array.write_stream(
            stream(by_region(DATA)), checkpoint=fail if kind == "function" else (Full(), "c.json"), concurrency=2, on_error="skip"
        )
    assert caught.value is error
    assert len(store.chunks) <= 4


# --- going on


def parts_that_fit(block, data, seed):
    items = by_region(data, block)
    if seed:
        random.Random(seed).shuffle(items)
    return items


@every_layout
@pytest.mark.parametrize("block", [CHUNKS, (20, 40), (7, 11), (1, 70)], ids=str)
@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["blocking", "awaited"])
async def test_a_run_that_was_ended_anywhere_goes_on(layout, block, seed, kind):
    """After each number of writes: the next run stores what is not named, and ends as one run would have."""
    items = parts_that_fit(block, DATA, seed)
    whole = Log()
    array = await make(whole, layout)
    await array.write_stream(stream(items))
    expected = {key: await whole.get(key) for key in sorted(set(whole.chunks))}
    concurrency, total = 3, len(whole.chunks)
    for dies_after in range(0, total + 1, 1 if total < 10 else 3):
        store = Log(dies_after=dies_after)
        array = await make(store, layout)
        options = {"checkpoint": (store, "c.json"), "concurrency": concurrency}
        if dies_after < total:
            with pytest.raises(StoreError, match="dead"):
                await array.write_stream(stream(items), **options)
        else:
            await array.write_stream(stream(items), **options)
        first, store.left = len(store.chunks), None
        if kind == "blocking":
            array = await azarr.open_array(store.inner, "a")
            options["checkpoint"] = (store.inner, "c.json")
        report = await array.write_stream(stream(items), resume=True, **options)
        assert {key: await store.get(key) for key in expected} == expected
        assert np.array_equal(await array, DATA)
        assert report.written + report.skipped == len(items)
        if kind == "awaited":
            assert len(store.chunks) - total <= concurrency
            assert len(store.chunks) >= total
            assert first >= dies_after
        again = await array.write_stream(stream(items), resume=True, **options)
        assert (again.written, again.skipped, again.nbytes, again.last_coords) == (0, len(items), 0, None)


async def test_memory_that_ends_within_shards_loses_nothing():
    """Shards that are stored in part, some of them before the end and some after."""
    items, died = by_region(DATA), 0
    for dies_after in range(20):
        store = Log(dies_after=dies_after)
        array = await make(store, "sharded")
        options = {"checkpoint": (store, "c.json"), "concurrency": 2, "memory": 3 * 800}
        try:
            await array.write_stream(stream(items), **options)
        except StoreError:
            died += 1
        store.left = None
        await array.write_stream(stream(items), resume=True, **options)
        assert np.array_equal(await array, DATA)
    assert died > 6  # some shards are written more than once


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("seed", range(4))
async def test_what_comes_again_and_overlaps_ends_as_one_run_would_have(layout, seed):
    """What comes last stays, also where what came first had been stored and named."""
    dice, items, expected = random.Random(seed), [], np.zeros_like(DATA)
    for _ in range(40):
        region = []
        for length in DATA.shape:
            start = dice.randrange(length)
            region.append(slice(start, dice.randrange(start + 1, min(length, start + 25) + 1)))
        if dice.random() < 0.3:
            region = dice.choice(regions(DATA.shape, CHUNKS))
        items.append((tuple(region), DATA[tuple(region)] * dice.randrange(1, 100)))
        expected[tuple(region)] = items[-1][1]
    for dies_after in (0, 1, 3, 8, 20, 40):
        store = Log(dies_after=dies_after)
        array = await make(store, layout)
        options = {"checkpoint": (store, "c.json"), "concurrency": 3, "memory": 5000}
        runs = 0
        while True:
            try:
                await array.write_stream(stream(items), resume=True, **options)
                break
            except StoreError:
                runs, store.left = runs + 1, dies_after + 5 * runs
        assert np.array_equal(await array, expected)


async def test_without_resume_an_old_checkpoint_is_replaced_before_anything_is_stored():
    store = Log()
    array = await make(store)
    await array.write_stream(by_region(DATA), checkpoint=(store, "c.json"))
    store.log.clear()
    store.left = 0
    with pytest.raises(StoreError, match="dead"):
        await array.write_stream(by_region(-DATA), checkpoint=(store, "c.json"))
    assert json.loads(await store.get("c.json"))["chunks"] == []
    store.left = None
    report = await array.write_stream(by_region(-DATA), checkpoint=(store, "c.json"), resume=True)
    assert report.written == 24
    assert np.array_equal(await array, -DATA)


async def test_without_a_checkpoint_to_go_on_from_it_begins():
    store = Log()
    array = await make(store)
    report = await array.write_stream(by_region(DATA), checkpoint=(store, "c.json"), resume=True)
    assert report.written == 24
    assert np.array_equal(await array, DATA)


async def test_what_failed_is_tried_again():
    store = Log()
    array = await make(store)
    store.left = 10
    report = await array.write_stream(stream(by_region(DATA)), checkpoint=(store, "c.json"), on_error="skip")
    assert (report.written, report.failed) == (10, 14)
    store.left = None
    report = await array.write_stream(stream(by_region(DATA)), checkpoint=(store, "c.json"), resume=True)
    assert (report.written, report.skipped) == (14, 10)
    assert np.array_equal(await array, DATA)


async def test_a_source_may_begin_where_it_had_ended():
    source = await azarr.create_array(MemoryStore(), shape=DATA.shape, chunks=CHUNKS, dtype="i4")
    await source.write(DATA)
    store = Log(dies_after=9)
    array = await make(store)
    with pytest.raises(StoreError):
        await array.write_stream(source.stream_chunks(), checkpoint=(store, "c.json"), concurrency=1)
    store.left = None
    done = json.loads(await store.get("c.json"))["chunks"]
    assert done == [[0, 9]]
    items = source.stream_chunks(start_after=(2, 0))
    report = await array.write_stream(items, checkpoint=(store, "c.json"), resume=True)
    assert (report.written, report.skipped) == (15, 0)
    assert np.array_equal(await array, DATA)


# --- what is refused


async def interrupted(store, **options):
    array = await make(store)
    await array.write_stream(by_region(DATA)[:5], checkpoint=(store, "c.json"), **options)
    return json.loads(await store.get("c.json"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (60, 71)}, "shape"),
        ({"chunks": (10, 10)}, "chunk_grid"),
        ({"shards": (20, 40)}, "chunk_grid"),
        ({"dtype": "f4"}, "data_type"),
        ({"zarr_format": 2}, "zarr_format"),
    ],
    ids=str,
)
async def test_a_checkpoint_of_another_array_is_refused(change, message):
    store = MemoryStore()
    await interrupted(store)
    before = await store.get("c.json")
    array = await make(store, overwrite=True, **change)
    closed = []

    async def items():
        try:
            yield None
        finally:
            closed.append(True)

    with pytest.raises(CheckpointError, match=f"another array or view: {message}") as caught:
        await array.write_stream(items(), checkpoint=(store, "c.json"), resume=True)
    assert caught.value.key == "c.json"
    assert await store.get("c.json") == before
    await array.write_stream([], checkpoint=(store, "c.json"))
    await array.write_stream([], checkpoint=(store, "c.json"), resume=True)


async def test_a_checkpoint_of_another_path_or_view_is_refused():
    store = MemoryStore()
    await interrupted(store)
    other = await azarr.create_array(store, "b", shape=DATA.shape, chunks=CHUNKS, dtype="<i4")
    with pytest.raises(CheckpointError, match="path is 'a', here 'b'"):
        await other.write_stream([], checkpoint=(store, "c.json"), resume=True)
    array = await azarr.open_array(store, "a")
    with pytest.raises(CheckpointError, match="selection"):
        await array[:50].write_stream([], checkpoint=(store, "c.json"), resume=True)


async def test_a_checkpoint_of_another_source_is_refused():
    store = MemoryStore()
    await interrupted(store, source_id="one")
    array = await azarr.open_array(store, "a")
    with pytest.raises(CheckpointError, match="another source: 'one', here 'two'"):
        await array.write_stream([], checkpoint=(store, "c.json"), resume=True, source_id="two")
    with pytest.raises(CheckpointError, match="another source"):
        await array.write_stream([], checkpoint=(store, "c.json"), resume=True)
    await array.write_stream([], checkpoint=(store, "c.json"), resume=True, source_id="one")


async def test_streams_say_themselves_which_source_they_are():
    store = MemoryStore()
    array = await make(store)
    source = await azarr.create_array(MemoryStore(), "s", shape=DATA.shape, chunks=CHUNKS, dtype="i4")
    other = await azarr.create_array(MemoryStore(), "s", shape=DATA.shape, chunks=(5, 5), dtype="i4")
    await array.write_stream(source.stream_chunks(), checkpoint=(store, "c.json"))
    report = await array.write_stream(source.stream_chunks(), checkpoint=(store, "c.json"), resume=True)
    assert report.skipped == 24
    with pytest.raises(CheckpointError, match="another source"):
        await array.write_stream(other.stream_chunks(), checkpoint=(store, "c.json"), resume=True)


def damaged(**members):
    return lambda document: json.dumps({**document, **members}).encode()


DAMAGE = {
    "nothing": lambda document: b"",
    "no JSON": lambda document: b"{",
    "no UTF-8": lambda document: b'{"azarr_checkpoint": "\xff"}',
    "UTF-16": lambda document: json.dumps(document).encode("utf-16"),
    "a list": lambda document: b"[]",
    "nested deeply": lambda document: b"[" * 200_000,
    "no checkpoint": lambda document: b"{}",
    "another version": damaged(azarr_checkpoint=2),
    "a version that is none": damaged(azarr_checkpoint="1"),
    "no array": damaged(array=None),
    "an array of something else": damaged(array={"path": "a"}),
    "an array with more to it": lambda document: json.dumps({**document, "array": {**document["array"], "codecs": []}}).encode(),
    "no chunks": damaged(chunks=None),
    "chunks that are no runs": damaged(chunks=[1, 2]),
    "a run of one number": damaged(chunks=[[1]]),
    "a run backwards": damaged(chunks=[[5, 3]]),
    "an empty run": damaged(chunks=[[5, 5]]),
    "a negative run": damaged(chunks=[[-1, 5]]),
    "a run too far": damaged(chunks=[[0, 25]]),
    "a run of truths": damaged(chunks=[[False, True]]),
    "a run of floats": damaged(chunks=[[0.0, 1.0]]),
    "no parts": damaged(parts={}),
    "a part that is none": damaged(parts=[3]),
    "a part of no chunk": damaged(parts=[[24, [[[0, 1], [0, 1]]]]]),
    "a part of a negative chunk": damaged(parts=[[-1, [[[0, 1], [0, 1]]]]]),
    "a part without boxes": damaged(parts=[[3, None]]),
    "a box outside": damaged(parts=[[3, [[[0, 1], [0, 1]]]]]),
    "a box beyond": damaged(parts=[[3, [[[0, 11], [60, 70]]]]]),
    "an empty box": damaged(parts=[[3, [[[5, 5], [60, 70]]]]]),
    "a box of one axis": damaged(parts=[[3, [[[0, 10]]]]]),
    "a box of text": damaged(parts=[[3, [["0", "1"]]]]),
}


@pytest.mark.parametrize("name", DAMAGE)
async def test_a_checkpoint_that_is_damaged_is_refused(name):
    store = MemoryStore()
    document = await interrupted(store)
    array = await azarr.open_array(store, "a")
    bad = DAMAGE[name](document)
    await store.set("c.json", bad)
    with pytest.raises(CheckpointError, match="resume=True") as caught:
        await array.write_stream(by_region(DATA), checkpoint=(store, "c.json"), resume=True)
    assert caught.value.key == "c.json"
    assert await store.get("c.json") == bad
    assert len(str(caught.value)) < 500


async def test_no_more_is_read_than_is_accepted(monkeypatch):
    monkeypatch.setattr(module, "MOST_NBYTES", 1000)
    store = MemoryStore()
    document = await interrupted(store)
    array = await azarr.open_array(store, "a")
    asked = []

    class Asked(Log):
        async def get(self, key, byte_range=None):
            asked.append(byte_range)
            return await super().get(key, byte_range)

    await store.set("c.json", json.dumps(document).encode() + b" " * 10**6)
    with pytest.raises(CheckpointError, match="more than 1000 bytes"):
        await array.write_stream([], checkpoint=(Asked(store), "c.json"), resume=True)
    assert asked == [azarr.ByteRange(0, 1001)]


async def test_no_more_boxes_are_read_than_are_accepted(monkeypatch):
    monkeypatch.setattr(module, "MOST_BOXES", 3)
    store = MemoryStore()
    document = await interrupted(store)
    array = await azarr.open_array(store, "a")
    for count, fits in ((3, True), (4, False)):
        boxes = [[[2 * number, 2 * number + 1], [60, 70]] for number in range(count)]
        await store.set("c.json", damaged(parts=[[7 - 4, boxes]])(document))
        if fits:
            await array.write_stream([], checkpoint=(store, "c.json"), resume=True)
        else:
            with pytest.raises(CheckpointError, match="boxes"):
                await array.write_stream([], checkpoint=(store, "c.json"), resume=True)


async def test_boxes_beyond_what_is_accepted_are_left_out(monkeypatch):
    """Which costs nothing but writing them again."""
    monkeypatch.setattr(module, "MOST_BOXES", 3)
    store = Log()
    array = await make(store)
    items = [((slice(row, row + 1), slice(0, 20)), DATA[row : row + 1, :20]) for row in range(0, 40, 2)]
    await array.write_stream(items, checkpoint=(store, "c.json"))
    document = json.loads(await store.get("c.json"))
    assert sum(len(boxes) for _, boxes in document["parts"]) <= 3
    report = await array.write_stream(items, checkpoint=(store, "c.json"), resume=True)
    assert report.written >= 17
    assert np.array_equal(await array[:40:2, :20], DATA[:40:2, :20])


async def test_a_checkpoint_that_would_be_too_large_is_not_written(monkeypatch):
    store = Log()
    array = await make(store)
    await array.write_stream([], checkpoint=(store, "c.json"))
    monkeypatch.setattr(module, "MOST_NBYTES", len(await store.get("c.json")) + 20)
    with pytest.raises(CheckpointError, match="in order") as caught:
        await array.write_stream(by_region(DATA)[::2], checkpoint=(store, "c.json"))
    assert caught.value.key == "c.json"


@pytest.mark.parametrize("small", [0, 10**6])
async def test_large_documents_are_made_in_workers(monkeypatch, small):
    monkeypatch.setattr(module, "SMALL", small)
    store = Log()
    array = await make(store)
    await array.write_stream(by_region(DATA)[::2], checkpoint=(store, "c.json"))
    assert chunks_of(json.loads(await store.get("c.json"))) == list(range(0, 24, 2))


# --- where it is


@pytest.mark.parametrize("kind", ["path", "string", "store"])
async def test_a_local_file_is_replaced_as_a_whole(tmp_path, kind):
    array = await make(MemoryStore())
    (tmp_path / "folder").mkdir()
    option = {"path": tmp_path / "folder" / "c.json", "string": str(tmp_path / "folder" / "c.json")}.get(kind)
    if option is None:
        option = (LocalStore(tmp_path), "folder/c.json")
    seen = []

    def items():
        for item in by_region(DATA):
            names = sorted(path.name for path in (tmp_path / "folder").iterdir() if not path.name.startswith("."))
            assert names == ["c.json"]
            seen.append(len(chunks_of(json.loads((tmp_path / "folder" / "c.json").read_text()))))
            yield item

    await array.write_stream(items(), checkpoint=option, concurrency=1)
    assert seen == list(range(24))


async def test_a_folder_that_is_missing_is_made(tmp_path):
    array = await make(MemoryStore())
    await array.write_stream(by_region(DATA), checkpoint=tmp_path / "new" / "folder" / "c.json")
    assert (tmp_path / "new" / "folder" / "c.json").exists()


async def test_a_path_that_is_a_folder(tmp_path):
    array = await make(MemoryStore())
    with pytest.raises(StoreError):
        await array.write_stream([], checkpoint=tmp_path)


def test_a_checkpoint_is_not_waited_for_longer_than_a_chunk(run_virtual):
    class Stuck(Log):
        async def set(self, key, value):
            await asyncio.sleep(1000)

    async def main():
        array = await make(MemoryStore())
        with pytest.raises(TimeoutError):
            await array.write_stream([], checkpoint=(Stuck(), "c.json"), timeout=5.0)
        assert asyncio.get_running_loop().time() == pytest.approx(5.0)

    run_virtual(main)
