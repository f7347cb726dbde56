"""What a chunk comes with, and what becomes of one that fails or takes too long: it alone, at its place, with its coordinates."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
import weakref

import numpy as np
import pytest

import azarr
from azarr import (
    ChecksumError,
    CodecError,
    Engine,
    InlineExecutor,
    LatencyStore,
    MemoryStore,
    StoreError,
    StreamError,
    StreamTimeoutError,
    ThreadExecutor,
    runners,
)
from azarr.stores.base import Stamped

PATIENCE = 30
DATA = np.arange(18 * 22, dtype="i4").reshape(18, 22) + 1

FORMATS = {
    "v3": {"chunks": (4, 5)},
    "uncompressed": {"chunks": (4, 5), "compressors": None},
    "sharded": {"chunks": (4, 5), "shards": (8, 10), "compressors": ["zstd", "crc32c"]},
    "index first": {"chunks": (4, 5), "shards": {"shape": (8, 10), "index_location": "start"}, "compressors": ["zstd", "crc32c"]},
    "v2": {"chunks": (4, 5), "zarr_format": 2},
}

pytestmark = pytest.mark.usefixtures("complaints")


class Store(MemoryStore):
    """A memory store that fails for some keys, and hangs for others until its gate is opened."""

    def __init__(self) -> None:
        super().__init__()
        self.failing, self.hanging, self.gate, self.inside = {}, set(), threading.Event(), 0
        self.asked = []

    def get_blocking(self, key, byte_range=None, reserve=None):
        self.asked.append(key)
        if key in self.hanging:
            self.inside += 1
            self.gate.wait(PATIENCE)
            self.inside -= 1
        if key in self.failing:
            raise self.failing[key]
        return super().get_blocking(key, byte_range, reserve)


class Late(LatencyStore):
    """An awaited store that takes a thousand seconds for some keys."""

    late: frozenset[str] = frozenset()

    async def get(self, key, byte_range=None):
        if key in self.late:
            await asyncio.sleep(1000)
        return await super().get(key, byte_range)

    async def get_stamped(self, key, byte_range=None):
        return Stamped(await self.get(key, byte_range))


async def filled(kind, *, engine=None, data=DATA, **options):
    store = Store()
    array = await azarr.create_array(store, "a", shape=data.shape, dtype=data.dtype, **options)
    await array.write(data)
    store.asked.clear()
    return azarr.AsyncArray(store if kind == "blocking" else Late(store, 0.0), "a", array.metadata, engine), store


def key_of(array, coords):
    source = array.source
    return source.key(tuple(index // count for index, count in zip(coords, source.chunks_per_unit, strict=True)))


async def coords_of(view, **options):
    async with view.stream_chunks(**options) as stream:
        return [chunk.coords async for chunk in stream]


async def until(condition) -> None:
    """Let the loop go round until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0)


@pytest.fixture(params=["blocking", "awaited"])
def kind(request):
    return request.param


@pytest.fixture(params=FORMATS)
def form(request):
    return FORMATS[request.param]


@pytest.fixture
def engine():
    executor = ThreadExecutor(2)
    yield Engine(executor=executor, concurrency=6)
    executor.close()
    executor.join()


# --- what a chunk comes with


VIEWS = {
    "whole": lambda array: array,
    "block": lambda array: array[3:15, 2:20],
    "backwards": lambda array: array[::-1, ::-2],
    "row": lambda array: array[11],
    "rows": lambda array: array.oindex[[15, 1, 10], 7],
    "points": lambda array: array.vindex[[17, 0], [3, 21]],
}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("view", VIEWS)
async def test_metadata_is_that_of_the_store(kind, form, view, ordered):
    data = DATA.copy()
    data[:4] = 0
    array, store = await filled(kind, data=data, **form)
    async with VIEWS[view](array).stream_chunks(metadata=True, ordered=ordered) as stream:
        got = [chunk async for chunk in stream]
    assert got
    for chunk in got:
        row, column = chunk.coords
        info = chunk.info
        assert info.key == key_of(array, chunk.coords)
        assert info.bounds == (slice(4 * row, min(4 * row + 4, 18)), slice(5 * column, min(5 * column + 5, 22)))
        assert info.shape == data[info.bounds].shape
        assert (info.stored_shape, info.decoded_nbytes) == ((4, 5), 80)
        assert 0 < info.seconds < PATIENCE
        if row == 0:
            assert info.encoded_nbytes is None
        elif array.shards is None:
            assert info.encoded_nbytes == len(store._values[info.key])
        else:
            assert 0 < info.encoded_nbytes < len(store._values[info.key])
    if view == "whole" and array.shards:
        # a shard is its chunks and an index of 16 bytes for each, with a checksum
        for key in {chunk.info.key for chunk in got if chunk.info.key in store._values}:
            assert sum(chunk.info.encoded_nbytes or 0 for chunk in got if chunk.info.key == key) + 4 * 16 + 4 == len(store._values[key])


@pytest.mark.parametrize("shape", [(), (3,)])
async def test_metadata_at_the_edge(kind, shape):
    array, _ = await filled(kind, data=np.ones(shape, "i4"), chunks=(4,) * len(shape))
    async with array.stream_chunks(metadata=True) as stream:
        (chunk,) = [chunk async for chunk in stream]
    assert chunk.info.bounds == tuple(slice(0, length) for length in shape)
    assert chunk.info.shape == shape
    assert chunk.info.stored_shape == (4,) * len(shape)


async def test_without_being_asked_there_is_no_metadata(kind):
    array, _ = await filled(kind, **FORMATS["v3"])
    async with array.stream_chunks() as stream:
        assert (await anext(stream)).info is None


async def test_the_time_of_a_chunk_is_that_of_fetching_and_decoding_and_not_of_functions(kind, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])

    def function(data):
        clock[0] += 100

    array, store = await filled(kind, engine=Engine(executor=InlineExecutor()), **FORMATS["v3"])
    original = store.get_blocking

    def slow(*args):
        clock[0] += 1
        return original(*args)

    store.get_blocking = slow
    store.get_each = lambda folder, names, reserve: (slow(folder + name) for name in names)
    async with array.map_chunks(function, metadata=True, concurrency=1) as stream:
        assert [chunk.info.seconds async for chunk in stream] == [1.0] * 25


# --- chunks that fail


def break_one(array, store, how):
    """Break something of the chunk at (2, 2), the first of its shard, and answer which chunks cannot be had any more."""
    key, shard = key_of(array, (2, 2)), bytearray(store._values[key_of(array, (2, 2))])
    start = array.shards is not None and array.metadata.codecs[0].index_location == "start"
    if how == "store":
        store.failing[key] = StoreError("cannot reach it", key=key)
    elif how == "cut off":
        store._values[key] = bytes(shard[: len(shard) // 2]) if not start else bytes(shard[: 4 * 16 + 4 + 5])
    elif how == "index":
        shard[3 if start else -7] ^= 255
        store._values[key] = bytes(shard)
    elif how == "chunk":
        shard[4 * 16 + 4 + 10 if start else 10] ^= 255
        store._values[key] = bytes(shard)


def whole_shard(array):
    return {(2, 2), (2, 3), (3, 2), (3, 3)} if array.shards else {(2, 2)}


CASES = [
    ("v3", "store", StoreError),
    ("v3", "cut off", CodecError),
    ("uncompressed", "cut off", CodecError),
    ("uncompressed", "store", StoreError),
    ("v2", "store", StoreError),
    ("v2", "cut off", CodecError),
    ("sharded", "store", StoreError),
    ("sharded", "cut off", CodecError),
    ("sharded", "index", CodecError),
    ("sharded", "chunk", CodecError),
    ("index first", "store", StoreError),
    ("index first", "cut off", CodecError),
    ("index first", "index", CodecError),
    ("index first", "chunk", CodecError),
]


@pytest.mark.parametrize(("form", "how", "kind_of_error"), CASES)
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("concurrency", [1, 4, 100])
async def test_a_chunk_that_fails(kind, form, how, kind_of_error, ordered, concurrency):
    """All that came before it is handed out, or all the rest."""
    array, store = await filled(kind, **FORMATS[form])
    places = await coords_of(array)
    break_one(array, store, how)
    told, asynchronously, got = [], [], []

    async def tell(*args):
        await asyncio.sleep(0)
        asynchronously.append(args)

    options = {"ordered": ordered, "concurrency": concurrency}
    for on_error in ("skip", lambda *args: told.append(args), tell):
        async with array.stream_chunks(on_error=on_error, **options) as stream:
            got = [chunk async for chunk in stream]
        bad = {*places} - {chunk.coords for chunk in got}
        assert [chunk.coords for chunk in got if ordered] == [coords for coords in places if coords not in bad and ordered]
        assert all((chunk.data == DATA[chunk.region]).all() for chunk in got)
        assert stream.stats.failed == len(bad)
        assert stream.stats.done == stream.stats.total == len(got)
    assert (2, 2) in bad or how == "cut off"
    assert bad
    assert bad <= whole_shard(array)
    if how == "chunk":
        assert bad == {(2, 2)}
    elif how != "cut off" or form == "sharded":  # of a shard with its index at the start, the chunks before the cut are there
        assert bad == whole_shard(array)
    for calls in (told, asynchronously):
        assert sorted(coords for coords, _ in calls) == sorted(bad)
        for coords, error in calls:
            assert isinstance(error, kind_of_error)
            assert getattr(error, "coords", coords) == coords
            assert error.__context__ is error.__cause__

    got.clear()
    with pytest.raises(kind_of_error) as caught:
        async with array.stream_chunks(**options) as stream:
            async for chunk in stream:
                got.append(chunk.coords)
    assert caught.value.__context__ is caught.value.__cause__
    assert not bad & {*got}
    if ordered:
        assert got == places[: min(places.index(coords) for coords in bad)]
        assert getattr(caught.value, "coords", min(bad)) == min(bad)
    with pytest.raises(StreamError, match="before its last chunk"):
        await anext(stream)


async def test_a_checksum_says_that_it_is_one(kind):
    array, store = await filled(kind, **FORMATS["sharded"])
    break_one(array, store, "chunk")
    told = []
    await coords_of(array, on_error=lambda *args: told.append(args))
    ((coords, error),) = told
    assert isinstance(error, ChecksumError)
    assert coords == error.coords == (2, 2)


async def test_when_all_chunks_fail_the_stream_is_empty(kind, form):
    array, store = await filled(kind, **form)
    for key in store._values:
        store.failing[key] = StoreError("no")
    told = []
    async with array.stream_chunks(on_error=lambda coords, _: told.append(coords)) as stream:
        assert [chunk async for chunk in stream] == []
    assert told == [(row, column) for row in range(5) for column in range(5)]
    assert (stream.stats.failed, stream.stats.total, stream.stats.done) == (25, 0, 0)


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind_of_error", [ZeroDivisionError, StoreError, StopAsyncIteration, StopIteration])
async def test_what_on_error_raises_ends_the_stream(kind, asynchronous, kind_of_error):
    array, store = await filled(kind, **FORMATS["v3"])
    break_one(array, store, "store")
    error, got = kind_of_error("on_error"), []

    def fail(*_):
        raise error

    async def fail_later(*_):
        await asyncio.sleep(0)
        raise error

    leaked = issubclass(kind_of_error, StopAsyncIteration | StopIteration)
    with pytest.raises(RuntimeError if leaked else kind_of_error) as caught:
        async with array.stream_chunks(on_error=fail_later if asynchronous else fail) as stream:
            async for chunk in stream:
                got.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream fails
    assert (caught.value.__cause__ if leaked else caught.value) is error
    assert error.__context__ is None
    assert len(got) == 12
    with pytest.raises(StreamError, match="before its last chunk"):
        await anext(stream)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_the_stream_goes_on_while_on_error_waits():
    """What it waits for may be chunks of the same array."""
    array, store = await filled("awaited", **FORMATS["v3"])
    break_one(array, store, "store")
    again = []

    async def heal(coords, _):
        store.failing.clear()
        again.append(await array.blocks[coords].read())

    assert len(await coords_of(array, on_error=heal)) == 24
    np.testing.assert_array_equal(again[0], DATA[8:12, 10:15])


# --- nothing is kept


class Thing(Exception):  # noqa: N818 - it is no mistake
    """An error that can be looked for."""


@pytest.mark.parametrize("shards", [None, (8, 10)])
@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("where", ["fetching", "decoding", "function", "async function", "on_error", "progress", "filter"])
async def test_errors_are_in_no_ring_that_keeps_them_and_the_chunks(kind, where, ordered, shards, monkeypatch):
    """Without the garbage collector they go as soon as nobody has them any more."""
    engine = Engine(executor=InlineExecutor())
    array, store = await filled(kind, engine=engine, chunks=(4, 5), shards=shards)
    errors, kept, count = [], [], 0

    def fail(*args):
        nonlocal count
        if (count := count + 1) == 3:
            error = Thing()
            errors.append(weakref.ref(error))
            try:
                raise error
            finally:
                del error
        return args[0]

    async def fail_awaited(data):
        await asyncio.sleep(0)
        return fail(data)

    options = {"ordered": ordered}
    if where == "fetching":
        original = store.get_blocking
        store.get_blocking = lambda *args: original(*args) if fail(args) else None
    elif where == "decoding":
        monkeypatch.setattr("azarr.codecs.pipeline.CodecPipeline.decode_into", fail)
        monkeypatch.setattr("azarr.codecs.pipeline.CodecPipeline.decode_scratch", fail)
    elif where == "progress":
        options["progress"] = fail
    elif where == "filter":
        options["filter"] = fail
    elif where == "on_error":

        def refuse(*_):
            raise StoreError("no")  # a new one each time, as the store would keep it

        store.get_blocking = refuse
        options["on_error"] = fail

    def stream_of(**more):
        if "function" in where:
            return array.map_chunks(fail_awaited if where == "async function" else fail, **options, **more)
        return array.stream_chunks(**options, **more)

    async def consume(**more):
        async with stream_of(**more) as stream:
            async for chunk in stream:
                kept[:] = [weakref.ref(chunk.data)]

    gc.collect()
    gc.disable()
    try:
        for on_error in ("raise", "skip"):
            count = 0
            if where == "on_error" and on_error == "skip":
                continue
            with contextlib.suppress(Thing):
                await consume(**({} if where == "on_error" else {"on_error": on_error}))
            assert errors
            await asyncio.sleep(0)
            assert [error() for error in errors] == [None] * len(errors)
            assert all(data() is None for data in kept)
    finally:
        gc.enable()


# --- chunks that take too long, of stores that are awaited


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("on_error", ["raise", "skip", "function"])
@pytest.mark.parametrize("shards", [None, (8, 10)])
def test_a_chunk_that_takes_too_long_is_given_up(run_virtual, ordered, on_error, shards):
    async def main():
        loop = asyncio.get_running_loop()
        array, _ = await filled("awaited", engine=Engine(executor=InlineExecutor()), chunks=(4, 5), shards=shards)
        array.store.late, array.store._seconds = frozenset({key_of(array, (2, 2))}), 1.0
        bad, told, got = whole_shard(array), [], []
        places = [(row, column) for row in range(5) for column in range(5)]
        begin = loop.time()
        stream = array.stream_chunks(
            ordered=ordered, timeout=7.0, on_error=on_error if on_error != "function" else lambda *args: told.append(args)
        )
        error = None
        try:
            async with stream:
                async for chunk in stream:
                    got.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream fails
        except StreamTimeoutError as raised:
            error = raised
        if on_error == "raise":
            assert error.coords == (2, 2)
            assert isinstance(error, TimeoutError)
            assert "7.0 s" in str(error)
            assert error.__context__ is None
            assert got == places[:12] if ordered else {*got} <= {*places} - bad
        else:
            assert error is None
            assert sorted(got) == [coords for coords in places if coords not in bad]
            assert stream.stats.failed == len(bad)
        if told:
            assert sorted(coords for coords, _ in told) == sorted(bad)
            assert all(error.coords == coords and type(error) is StreamTimeoutError for coords, error in told)
        assert loop.time() - begin == pytest.approx(7.0, abs=1e-6)
        assert array.store.in_flight == 0

    run_virtual(main)


def test_the_default_is_a_minute_and_none_is_no_limit(run_virtual):
    async def main():
        loop = asyncio.get_running_loop()
        array, _ = await filled("awaited", engine=Engine(executor=InlineExecutor()), **FORMATS["v3"])
        array.store.late = frozenset({key_of(array, (2, 2))})
        begin = loop.time()
        with pytest.raises(StreamTimeoutError):
            await coords_of(array)
        assert loop.time() - begin == pytest.approx(60.0, abs=1e-6)
        assert len(await coords_of(array, timeout=None)) == 25
        assert loop.time() - begin == pytest.approx(1060.0, abs=1e-6)

    run_virtual(main)


def test_chunks_that_fail_in_a_row_have_their_time_each(run_virtual):
    async def main():
        loop = asyncio.get_running_loop()
        array, _ = await filled("awaited", engine=Engine(executor=InlineExecutor(), concurrency=2), **FORMATS["v3"])
        array.store.late = frozenset(key_of(array, (row, column)) for row in range(5) for column in range(5))
        begin = loop.time()
        assert await coords_of(array, timeout=4.0, on_error="skip") == []
        assert loop.time() - begin == pytest.approx(4.0 * 13, abs=1e-6)

    run_virtual(main)


def test_a_store_that_has_a_timeout_of_its_own_is_believed(run_virtual):
    async def main():
        array, store = await filled("awaited", engine=Engine(executor=InlineExecutor()), **FORMATS["v3"])
        error = store.failing[key_of(array, (2, 2))] = TimeoutError("mine")
        with pytest.raises(TimeoutError) as caught:
            await coords_of(array, timeout=7.0)
        assert caught.value is error

    run_virtual(main)


def test_the_time_that_a_consumer_takes_is_not_that_of_chunks(run_virtual):
    async def main():
        array, _ = await filled("awaited", engine=Engine(executor=InlineExecutor(), concurrency=3), **FORMATS["v3"])
        got = []
        async with array.stream_chunks(timeout=5.0) as stream:
            async for chunk in stream:
                await asyncio.sleep(100)
                got.append(chunk.coords)
        assert len(got) == 25

    run_virtual(main)


def test_the_time_that_an_awaited_function_takes_is_not_that_of_chunks(run_virtual, kind):
    async def main():
        array, _ = await filled(kind, engine=Engine(executor=InlineExecutor()), **FORMATS["v3"])

        async def function(data):
            await asyncio.sleep(100)

        async with array.map_chunks(function, timeout=5.0) as stream:
            assert len([chunk async for chunk in stream]) == 25

    run_virtual(main)


# --- chunks that take too long in workers


class Clock:
    """The time that runners of workers see: it stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now

    thread_time = monotonic


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(runners, "time", clock)
    return clock


SECONDS = 0.005
"""How often runners look at the clock: nothing is late before it is moved."""


@pytest.fixture
def hang(request, engine, clock):
    """Makes arrays whose chunks at some places hang a worker: in the store, or in a function."""
    stores = []

    async def make(*places, where="store", **form):
        array, store = await filled("awaited" if where == "decoding" else "blocking", engine=engine, **(form or FORMATS["v3"]))
        stores.append(store)
        if where == "store":
            store.hanging = {key_of(array, coords) for coords in places}
        store.values = {int(DATA[array.source.region(coords)].flat[0]) for coords in places}
        # if the worst comes to the worst the test fails rather than hangs
        asyncio.get_running_loop().call_later(PATIENCE / 2, store.gate.set)
        return array, store

    yield make
    for store in stores:
        store.gate.set()


def streamed(array, store, where, **options):
    """A stream of the array in which a worker hangs, as ``hang`` has it."""

    async def awaited(data):
        await asyncio.sleep(0)
        return data

    def hanging(data):
        if int(data.flat[0]) in store.values:
            store.inside += 1
            store.gate.wait(PATIENCE)
            store.inside -= 1
        return data

    if where == "store, async function":
        store.hanging = {"a/c/2/2"}
        return array.map_chunks(awaited, **options)
    return array.stream_chunks(**options) if where == "store" else array.map_chunks(hanging, **options)


PLACES = [(row, column) for row in range(5) for column in range(5)]


@pytest.mark.parametrize("where", ["store", "function", "decoding", "store, async function"])
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_worker_that_hangs_does_not_hold_up_the_stream(hang, clock, where, ordered):
    array, store = await hang((2, 2), where=where)
    got, told = [], []
    stream = streamed(array, store, where, ordered=ordered, timeout=SECONDS, on_error=lambda *args: told.append(args), concurrency=2)

    async def consume():
        async with stream:
            async for chunk in stream:
                got.append(chunk.coords)  # noqa: PERF401 - looked at meanwhile

    consuming = asyncio.create_task(consume())
    await until(lambda: store.inside and len(got) >= (12 if ordered else 24) and stream.stats.in_flight == 1)
    for _ in range(3):
        await asyncio.sleep(SECONDS)  # it is looked at the clock
    assert not told
    assert not consuming.done()
    clock.now += 2 * SECONDS
    await asyncio.wait_for(consuming, PATIENCE)
    assert sorted(got) == [coords for coords in PLACES if coords != (2, 2)]
    ((coords, error),) = told
    assert coords == error.coords == (2, 2)
    assert type(error) is StreamTimeoutError
    assert (stream.stats.failed, stream.stats.done, stream.stats.total, stream.stats.in_flight) == (1, 24, 24, 0)
    assert store.inside == 1
    store.gate.set()
    await until(lambda: not store.inside)
    store.hanging.clear()
    store.values.clear()
    for _ in range(2):  # both workers do right again
        async with array.stream_chunks(timeout=SECONDS) as chunks:
            assert [(DATA[chunk.region] == chunk.data).all() async for chunk in chunks] == [True] * 25


@pytest.mark.parametrize("where", ["store", "function", "decoding", "store, async function"])
async def test_by_default_the_stream_fails_at_its_place_and_ends_while_the_worker_hangs(hang, clock, where):
    array, store = await hang((2, 2), where=where)
    got = []

    async def consume():
        async with streamed(array, store, where, timeout=SECONDS, concurrency=3) as stream:
            async for chunk in stream:
                got.append(chunk.coords)  # noqa: PERF401 - looked at meanwhile

    consuming = asyncio.create_task(consume())
    await until(lambda: store.inside and len(got) == 12)
    clock.now += 2 * SECONDS
    with pytest.raises(StreamTimeoutError) as caught:
        await asyncio.wait_for(consuming, PATIENCE)
    assert caught.value.coords == (2, 2)
    assert caught.value.__context__ is None
    assert store.inside == 1
    assert not store.gate.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.mark.parametrize("where", ["store", "function", "decoding"])
@pytest.mark.parametrize("on_error", ["raise", "skip"])
async def test_nobody_waits_for_ever_when_all_workers_hang(hang, clock, where, on_error):
    """Neither for chunks, of those that no worker can take up any more, nor for the end."""
    array, store = await hang(*PLACES[3:], where=where)
    got = []

    async def consume():
        async with streamed(array, store, where, timeout=SECONDS, on_error=on_error, concurrency=6) as stream:
            async for chunk in stream:
                got.append(chunk.coords)  # noqa: PERF401 - looked at meanwhile
        return stream.stats

    consuming = asyncio.create_task(consume())
    await until(lambda: store.inside == 2 and got == PLACES[:3])
    while not consuming.done():
        clock.now += 2 * SECONDS
        await asyncio.sleep(SECONDS)
    assert not store.gate.is_set()
    assert got == PLACES[:3]
    if on_error == "raise":
        assert isinstance(consuming.exception(), StreamTimeoutError)
    else:
        assert (consuming.result().failed, consuming.result().done) == (22, 3)


@pytest.mark.parametrize("how", ["aclose", "cancelled", "break"])
@pytest.mark.parametrize("where", ["store", "function", "decoding", "store, async function"])
async def test_closing_waits_for_a_worker_that_hangs_no_longer_than_the_timeout(hang, clock, where, how):
    array, store = await hang((2, 2), where=where)
    stream = streamed(array, store, where, timeout=SECONDS, ordered=False, concurrency=6)
    closing = asyncio.Event()

    async def consume():
        async with stream:
            async for _ in stream:
                if store.inside and how == "break":
                    closing.set()
                    break

    consuming = asyncio.create_task(consume())
    await until(lambda: store.inside)
    if how == "cancelled":
        consuming.cancel()
    elif how == "aclose":
        closed = asyncio.create_task(stream.aclose())
    for _ in range(20):
        await asyncio.sleep(0)
    clock.now += 2 * SECONDS
    await asyncio.wait({consuming}, timeout=PATIENCE)
    assert consuming.done()
    if how == "aclose":
        await closed
    assert not store.gate.is_set()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    consuming.cancelled() or consuming.exception()


async def test_what_waits_for_a_worker_that_is_busy_is_not_late(kind, clock):
    """Chunks that wait for others of their stream to be decoded have all the time that takes."""
    executor = ThreadExecutor(1)
    array, _ = await filled(kind, engine=Engine(executor=executor), **FORMATS["v3"])

    def function(data):
        clock.now += SECONDS / 2
        return data

    async with array.map_chunks(function, timeout=SECONDS * (12 if kind == "blocking" else 1), concurrency=25) as stream:
        assert len([chunk async for chunk in stream]) == 25
    executor.close()
    executor.join()


async def test_a_stream_that_is_over_leaves_no_timer(kind, engine):
    loop = asyncio.get_running_loop()
    array, _ = await filled(kind, engine=engine, **FORMATS["v3"])
    alive = weakref.ref(array.source)

    async def function(data):
        await asyncio.sleep(0)

    for stream in (array.stream_chunks(), array.map_chunks(abs), array.map_chunks(function)):
        async with stream:
            await anext(stream)
        assert [handle for handle in loop._scheduled if not handle.cancelled()] == []
    del array, stream, _
    gc.collect()
    assert alive() is None
