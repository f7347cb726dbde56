"""A cache of chunks: what it keeps, for how long, and who loads what is not there."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import weakref

import numpy as np
import pytest

import azarr
from azarr import ChunkCache, Engine, InlineExecutor, LatencyStore, LocalStore, MemoryStore
from azarr.cache_contents import ENTRY_NBYTES, CachedChunk, Load, Wait, kept_nbytes
from azarr.errors import CodecError, StoreError, StreamTimeoutError
from azarr.testing import TelemetryRecorder

PATIENCE = 30
DATA = np.arange(1, 1 + 8 * 8, dtype="i4").reshape(8, 8)
CHUNK = 4 * 4 * 4
"""The bytes of one of its four chunks."""


class Gated(LatencyStore):
    """A store that is awaited and answers ``get`` when its gate is open; ``began`` says for which keys it has been asked."""

    @classmethod
    def _lacking(cls, *_):
        return frozenset()

    def __init__(self, store=None) -> None:
        super().__init__(store if store is not None else MemoryStore(), 0.0)
        self.gate = asyncio.Event()
        self.gate.set()
        self.began: list[str] = []
        self.failing: set[str] = set()

    async def get(self, key, byte_range=None):
        value = await super().get(key, byte_range)  # as it is before the gate opens
        if "/c/" in key:
            self.began.append(key)
            await self.gate.wait()
            if key in self.failing:
                raise StoreError(f"cannot reach {key!r}", key=key)
        return value


async def until(condition):
    """Let others work until ``condition`` holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0)


@pytest.fixture
def cache():
    return ChunkCache(2**20)


@pytest.fixture
async def engine(cache):
    async with Engine(workers=2, cache=cache) as engine:
        yield engine


async def filled(store, engine, path="a", **options):
    """An array of four chunks that the cache has nothing of."""
    array = await azarr.create_array(store, path, **{"shape": DATA.shape, "chunks": (4, 4), "dtype": "i4", "engine": engine, **options})
    await array.write(DATA)
    return array


# What it is


@pytest.mark.parametrize("nbytes", [0, -1])
def test_needs_room(nbytes):
    with pytest.raises(ValueError, match="at least 1 byte"):
        ChunkCache(nbytes)


async def test_shows_itself(cache, engine):
    assert repr(cache) == "<ChunkCache 0 chunks, 0 of 1048576 bytes>"
    array = await filled(MemoryStore(), engine)
    await array[0, 0]
    assert repr(cache) == f"<ChunkCache 1 chunk, {CHUNK + ENTRY_NBYTES} of 1048576 bytes>"
    assert cache.nbytes == 2**20


async def test_engines_have_none_unless_they_are_given_one():
    async with Engine() as engine:
        assert engine.cache is None


# What is read


async def test_a_chunk_is_loaded_once(store, cache, engine):
    array = await filled(store, engine)
    with TelemetryRecorder(engine.telemetry) as recorder:
        assert (await array == DATA).all()
        assert recorder.count("store.request.stop", operation="get") == recorder.count("codec.stop") == 4
        recorder.clear()
        assert (await array == DATA).all()
        assert (await array[1:7:2, ::-1] == DATA[1:7:2, ::-1]).all()
        assert await array[3, 3] == DATA[3, 3]
        async with array.stream_chunks() as chunks:
            async for chunk in chunks:
                assert (chunk.data == DATA[chunk.region]).all()
        assert recorder.count("store.request") == recorder.count("codec") == 0
        assert recorder.count("cache.hit", path="a", nbytes=CHUNK) == 4 + 4 + 1 + 4
        assert recorder.count("cache.miss") == 0
        assert recorder.count("chunk.read.stop") == 13
    stats = cache.stats
    assert (stats.hits, stats.misses, stats.evictions, stats.chunks) == (13, 4, 0, 4)
    assert stats.nbytes == 4 * (CHUNK + ENTRY_NBYTES)


async def test_a_part_of_a_chunk_brings_all_of_it(store, cache, engine):
    array = await filled(store, engine)
    assert (await array[0:2, 0:2] == DATA[0:2, 0:2]).all()
    assert cache.stats.misses == 1
    assert (await array[2:4, 1:4] == DATA[2:4, 1:4]).all()
    assert (cache.stats.hits, cache.stats.misses) == (1, 1)


@pytest.mark.parametrize(
    "options", [{"shards": (8, 8)}, {"compressors": ()}, {"chunks": [[3, 5], [8]]}, {"zarr_format": 2, "order": "F"}], ids=str
)
async def test_whatever_the_chunks_are_like(store, cache, engine, options):
    array = await filled(store, engine, **options)
    for _ in range(2):
        assert (await array == DATA).all()
        assert (await array.oindex[[6, 1, 1], ::3] == DATA[np.ix_([6, 1, 1], range(0, 8, 3))]).all()
        assert (await array.vindex[[7, 0, 7], [1, 2, 1]] == DATA[[7, 0, 7], [1, 2, 1]]).all()
        async with array[::-1].stream_slices(0) as slices:
            assert [each.data.tolist() async for each in slices] == DATA[::-1].tolist()
    assert cache.stats.misses == array.nchunks


async def test_streams_fill_it_and_tell_what_they_always_tell(store, cache, engine):
    array = await filled(store, engine)
    infos = []
    for _ in range(2):
        async with array.stream_chunks(metadata=True) as chunks:
            infos.append([(chunk.coords, chunk.info.key, chunk.info.encoded_nbytes, chunk.info.decoded_nbytes) async for chunk in chunks])
    assert infos[0] == infos[1]
    assert all(encoded for _, _, encoded, _ in infos[0])
    assert (cache.stats.hits, cache.stats.misses) == (4, 4)


async def test_results_may_be_changed(store, cache, engine):
    array = await filled(store, engine)
    for _ in range(2):
        result = await array[0:4, 0:4]
        result[...] = -1
        async with array[0:4, 0:4].stream_chunks() as chunks:
            async for chunk in chunks:
                chunk.data[...] = -2
        async with array[0:4, 0:4].map_chunks(lambda data: data.__imul__(0)) as mapped:
            assert [chunk.data.max() async for chunk in mapped] == [0]
    assert (await array == DATA).all()


async def test_chunks_that_are_not_stored_are_asked_for_again(store, cache, engine):
    array = await azarr.create_array(store, "a", shape=(8,), chunks=(4,), dtype="i4", fill_value=9, engine=engine)
    assert (await array == 9).all()
    assert (await array == 9).all()
    assert (cache.stats.hits, cache.stats.misses, cache.stats.chunks) == (0, 4, 0)
    async with array.stream_chunks(include_missing=False) as chunks:
        assert [chunk async for chunk in chunks] == []
    raw = await azarr.open_array(store, "a")  # as another process might
    await raw.write(5)
    assert (await array == 5).all()


async def test_scalars_and_empty_arrays(store, cache, engine):
    scalar = await azarr.create_array(store, "s", shape=(), dtype="f8", engine=engine)
    await scalar.write(1.5)
    empty = await azarr.create_array(store, "e", shape=(0, 3), dtype="f8", engine=engine)
    for _ in range(2):
        assert await scalar[()] == 1.5
        assert (await empty).shape == (0, 3)
    assert (cache.stats.hits, cache.stats.misses) == (1, 1)


async def test_arrays_that_are_opened_again_share_their_chunks(store, cache, engine):
    await filled(store, engine, fill_value=np.nan, dtype="f4")
    for _ in range(3):
        array = await azarr.open_array(store, "a", engine=engine)
        assert (await array == DATA).all()
    assert (cache.stats.hits, cache.stats.misses) == (8, 4)


async def test_texts_are_kept_with_their_true_size(cache, engine):
    texts = np.array(["x" * 1000, "", "é", "y"], dtype=object)
    array = await azarr.create_array(MemoryStore(), "a", shape=(4,), chunks=(4,), dtype=str, engine=engine)
    await array.write(texts)
    for _ in range(2):
        assert (await array).tolist() == texts.tolist()
    assert cache.stats.hits == 1
    # a text is a little longer once somebody has asked for its bytes
    assert 0 <= cache.stats.nbytes - (ENTRY_NBYTES + 4 * 8 + sum(map(sys.getsizeof, texts))) < 100


def test_objects_that_could_be_changed_are_not_kept():
    assert kept_nbytes(np.zeros(3)) == ENTRY_NBYTES + 24
    assert kept_nbytes(np.array(["a", b"b", 1, None, True], dtype=object)) is not None
    changeable = np.empty(2, dtype=object)
    changeable[:] = ["a", ["b"]]
    assert kept_nbytes(changeable) is None


# How much it keeps


async def test_the_chunks_asked_for_last_stay(store):
    cache = ChunkCache(2 * (CHUNK + ENTRY_NBYTES))
    async with Engine(cache=cache) as engine:
        array = await filled(store, engine)
        with TelemetryRecorder(engine.telemetry) as recorder:
            await array.blocks[0, 0]
            await array.blocks[0, 1]
            await array.blocks[0, 0]  # now (0, 1) is the one that was asked for longest ago
            await array.blocks[1, 0]
            (evicted,) = recorder.events("cache.evict")
            assert (evicted.path, evicted.coords, evicted.nbytes) == ("a", (0, 1), CHUNK + ENTRY_NBYTES)
        stats = cache.stats
        assert (stats.hits, stats.misses, stats.evictions, stats.chunks) == (1, 3, 1, 2)
        await array.blocks[0, 0]
        assert cache.stats.misses == 3
        await array.blocks[0, 1]
        assert cache.stats.misses == 4


async def test_never_has_more_than_it_may(store):
    cache = ChunkCache(3 * (CHUNK + ENTRY_NBYTES) - 1)
    async with Engine(cache=cache) as engine:
        array = await filled(store, engine)
        for _ in range(3):
            assert (await array == DATA).all()
            assert cache.stats.nbytes == 2 * (CHUNK + ENTRY_NBYTES)


async def test_a_chunk_that_is_too_large_is_not_kept(store):
    cache = ChunkCache(CHUNK + ENTRY_NBYTES - 1)
    async with Engine(cache=cache) as engine:
        array = await filled(store, engine)
        for _ in range(2):
            assert (await array == DATA).all()
    assert (cache.stats.chunks, cache.stats.nbytes, cache.stats.evictions, cache.stats.misses) == (0, 0, 0, 8)


async def test_clear_and_invalidate(store, cache, engine):
    group = await azarr.create_group(store, engine=engine)
    arrays = [await filled(store, engine, path) for path in ("x/a", "x/b", "xa")]
    other = await filled(MemoryStore(), engine, "x/a")
    for array in (*arrays, other):
        await array.read()
    assert cache.stats.chunks == 16
    cache.invalidate(arrays[0])
    assert cache.stats.chunks == 12
    cache.invalidate(await group.open("x"))
    assert cache.stats.chunks == 8
    cache.invalidate(group)
    assert cache.stats.chunks == 4
    cache.clear()
    assert cache.stats.chunks == cache.stats.nbytes == 0
    cache.invalidate(await filled(MemoryStore(), engine))
    assert cache.stats.evictions == 0
    assert cache.stats.misses == 16


async def test_nothing_is_kept_alive_by_a_cache_that_is_empty(cache):
    class Mortal(MemoryStore):
        pass

    async with Engine(cache=cache) as engine:
        store = Mortal()
        array = await filled(store, engine)
        await array.read()
        alive = weakref.ref(store)
        del store, array
        gc.collect()
        assert alive() is not None  # else another store could come to have its identity
        cache.clear()
        gc.collect()
        assert alive() is None


async def test_a_cache_goes_when_nobody_has_it():
    async with Engine(cache=ChunkCache(2**20)) as engine:
        array = await filled(MemoryStore(), engine)
        await array.read()
        contents = weakref.ref(engine.cache._contents)
        gc.disable()
        try:
            engine.cache = None
            assert contents() is None
        finally:
            gc.enable()
        await array.write(0)  # whose locks know of no cache any more


# What changes


async def test_what_is_written_is_read(store, cache, engine):
    array = await filled(store, engine)
    await array.read()
    await array[1, 1].write(-5)
    assert cache.stats.chunks == 3
    assert await array[1, 1] == -5
    await array[0:4].write(-6)
    assert (await array[0:4] == -6).all()
    await array.write(0)  # nothing is stored any more
    assert (await array == 0).all()
    assert cache.stats.chunks == 0


async def test_what_is_written_to_a_shard_forgets_its_chunks(store, cache, engine):
    array = await filled(store, engine, chunks=(2, 2), shards=(4, 4))
    await array.read()
    await array[0, 0].write(-1)
    assert cache.stats.chunks == 16 - 4
    expected = DATA.copy()
    expected[0, 0] = -1
    assert (await array == expected).all()


async def test_what_others_in_the_process_write_is_read(store, cache, engine):
    array = await filled(store, engine)
    await array.read()

    async def write():
        async with Engine() as other:
            await (await azarr.open_array(store, "a", engine=other))[0, 0].write(-7)

    await asyncio.to_thread(asyncio.run, write())
    assert await array[0, 0] == -7


async def test_a_stream_that_is_written_is_read(store, cache, engine):
    array, source = await filled(store, engine), await filled(MemoryStore(), engine)
    await source.write(DATA * 2)
    await array.read()
    await array.write_stream(source.stream_chunks())
    assert (await array == DATA * 2).all()


async def test_a_write_that_fails_forgets_what_it_may_have_changed(faulty_store, cache, engine):
    array = await filled(faulty_store, engine)
    await array.read()
    faulty_store.failing.add("a/c/0/0")
    with pytest.raises(StoreError):
        await array[0, 0].write(1)
    assert cache.stats.chunks == 3


async def test_an_array_that_is_replaced_is_read(store, cache, engine):
    group = await azarr.create_group(store, engine=engine)
    old = await filled(store, engine)
    await old.read()
    new = await filled(store, engine, overwrite=True, fill_value=3)
    assert cache.stats.chunks == 0
    await new[0:4].write(3)
    assert (await new[0:4] == 3).all()
    await group.move("a", "b")
    assert cache.stats.chunks == 0
    assert (await (await group.open("b"))[4:] == DATA[4:]).all()
    await group.delete("b")
    assert cache.stats.chunks == 0


async def test_an_array_of_another_kind_in_its_place_has_nothing_in_common_with_it(cache, engine):
    memory = MemoryStore()
    old = await filled(memory, engine)
    await old.read()
    async with Engine() as other:
        wide = await azarr.create_array(MemoryStore(), "a", shape=(8, 8), chunks=(4, 4), dtype="f8", engine=other)
        await wide.write(DATA / 2)
        for key in [key async for key in wide.store.list_prefix()]:  # as another process would
            await memory.set(key, await wide.store.get(key))
    new = await azarr.open_array(memory, "a", engine=engine)
    assert (await new == DATA / 2).all()
    assert cache.stats.chunks == 4
    with pytest.raises(CodecError):
        await old.read()
    assert (await new == DATA / 2).all()


async def test_copies_that_fail_leave_nothing_in_the_cache(cache, engine, faulty_store):
    source = await filled(MemoryStore(), engine)
    faulty_store.failing.add("b/c/1/1")
    with pytest.raises(StoreError):
        await azarr.copy(source, faulty_store, "b")
    assert cache.stats.chunks == 0


# Who loads


@pytest.mark.parametrize("askers", [2, 20])
async def test_one_loads_for_all(cache, engine, askers):
    store = Gated()
    array = await filled(store, engine)
    store.gate.clear()
    reads = [asyncio.create_task(array[0:4, 0:4].read()) for _ in range(askers)]
    await until(lambda: cache.stats.hits == askers - 1 and store.began)
    assert store.began == ["a/c/0/0"]
    store.gate.set()
    for result in await asyncio.gather(*reads):
        assert (result == DATA[0:4, 0:4]).all()
    assert store.began == ["a/c/0/0"]
    assert cache.stats.misses == 1


async def test_reads_and_streams_of_several_chunks_wait_for_each_other(cache, engine):
    store = Gated()
    array = await filled(store, engine)
    store.gate.clear()

    async def stream():
        async with array[::-1].stream_chunks(ordered=False) as chunks:
            result = np.zeros_like(DATA)
            async for chunk in chunks:
                result[chunk.region] = chunk.data
            return result[::-1]

    reads = [asyncio.create_task(each) for each in (array.read(), stream(), array.read(), stream())]
    await until(lambda: cache.stats.hits == 12)
    store.gate.set()
    assert all((result == DATA).all() for result in await asyncio.gather(*reads))
    assert sorted(store.began) == ["a/c/0/0", "a/c/0/1", "a/c/1/0", "a/c/1/1"]


async def test_who_asked_first_may_be_cancelled(cache, engine, complaints):
    store = Gated()
    array = await filled(store, engine)
    store.gate.clear()
    first = asyncio.create_task(array[0, 0].read())
    await until(lambda: store.began)
    others = [asyncio.create_task(array[0, 0].read()) for _ in range(3)]
    await until(lambda: cache.stats.hits == 3)
    first.cancel()
    await asyncio.wait([first])
    assert first.cancelled()
    await until(lambda: len(store.began) == 2)  # one of the others asks now, and for all
    store.gate.set()
    assert await asyncio.gather(*others) == [DATA[0, 0]] * 3
    assert len(store.began) == 2
    assert cache.stats.chunks == 1


async def test_who_waits_may_be_cancelled(cache, engine):
    store = Gated()
    array = await filled(store, engine)
    store.gate.clear()
    first = asyncio.create_task(array[0, 0].read())
    await until(lambda: store.began)
    second, third = (asyncio.create_task(array[0, 0].read()) for _ in range(2))
    await until(lambda: cache.stats.hits == 2)
    second.cancel()
    await asyncio.wait([second])
    store.gate.set()
    assert await first == await third == DATA[0, 0]
    assert store.began == ["a/c/0/0"]


async def test_an_error_is_for_who_asked_first_and_the_others_ask_again(cache, engine):
    store = Gated()
    array = await filled(store, engine)
    store.gate.clear()
    store.failing.add("a/c/0/0")
    reads = [asyncio.create_task(array[0, 0].read()) for _ in range(3)]
    await until(lambda: cache.stats.hits == 2)
    store.gate.set()
    errors = await asyncio.gather(*reads, return_exceptions=True)
    assert [type(error) for error in errors] == [StoreError] * 3
    assert len({id(error) for error in errors}) == 3
    assert store.began == ["a/c/0/0"] * 3
    store.failing.clear()
    assert await array[0, 0] == DATA[0, 0]
    assert cache.stats.chunks == 1


@pytest.mark.parametrize("kind", ["memory", "latency"])
async def test_a_damaged_chunk_costs_its_neighbours_nothing(kind, cache, engine):
    memory = MemoryStore()
    array = await filled(memory if kind == "memory" else LatencyStore(memory, 0.0), engine)
    await memory.set("a/c/0/1", b"damaged")
    with pytest.raises(CodecError) as caught:
        await array.read()
    assert caught.value.coords == (0, 1)
    async with array.stream_chunks(on_error="skip") as chunks:
        assert [chunk.coords async for chunk in chunks] == [(0, 0), (1, 0), (1, 1)]
    with pytest.raises(CodecError):
        async for _ in array.stream_chunks():
            pass
    assert cache.stats.chunks == 3


async def test_a_stream_does_not_wait_longer_than_its_timeout(cache, engine):
    store = Gated()
    array = await filled(store, engine)
    store.gate.clear()
    first = asyncio.create_task(array[0, 0].read())
    await until(lambda: store.began)
    with pytest.raises(StreamTimeoutError):
        await anext(array[0:4, 0:4].stream_chunks(timeout=0.01))
    store.gate.set()
    assert await first == DATA[0, 0]


async def test_a_worker_that_hangs_is_given_up_and_nobody_waits_for_it(cache):
    class Hanging(MemoryStore):
        hang = False

        def get_blocking(self, key, byte_range=None, reserve=None):
            if self.hang and "/c/" in key:
                self.hang = False
                hung.set()
                assert opened.wait(PATIENCE)
            return super().get_blocking(key, byte_range, reserve)

    hung, opened = threading.Event(), threading.Event()
    async with Engine(workers=2, cache=cache) as engine:
        array = await filled(Hanging(), engine)
        array.store.hang = True
        try:
            with pytest.raises(StreamTimeoutError):
                await anext(array[0:4, 0:4].stream_chunks(timeout=0.05))
            assert hung.is_set()
            assert (await array == DATA).all()
        finally:
            opened.set()


# What is written while it is loaded


async def test_a_read_that_began_before_a_write_puts_nothing_old_back(cache, engine):
    store = Gated()
    array = await filled(store, engine)
    store.gate.clear()
    before = asyncio.create_task(array[0:4, 0:4].read())
    await until(lambda: store.began)
    joined = asyncio.create_task(array[0, 0].read())
    await until(lambda: cache.stats.hits == 1)
    async with Engine() as other:
        await (await azarr.open_array(store._store, "a", engine=other))[0:4, 0:4].write(-1)
    after = asyncio.create_task(array[0, 0].read())
    await until(lambda: len(store.began) == 2)  # it does not join what began before the write
    store.gate.set()
    assert (await before == DATA[0:4, 0:4]).all()
    assert await joined == DATA[0, 0]
    assert await after == -1
    assert await array[0, 0] == -1
    assert cache.stats.chunks == 1


@pytest.mark.parametrize("how", ["clear", "invalidate", "delete", "replace"])
async def test_what_is_forgotten_while_it_is_loaded_is_not_kept(cache, engine, how):
    store = Gated()
    group = await azarr.create_group(store, engine=engine)
    array = await filled(store, engine)
    store.gate.clear()
    before = asyncio.create_task(array[0, 0].read())
    await until(lambda: store.began)
    if how == "clear":
        cache.clear()
    elif how == "invalidate":
        cache.invalidate(array)
    elif how == "delete":
        await group.delete("a")
    else:
        other = await azarr.create_array(store, "a", like=array, dtype="f8", overwrite=True, engine=engine)
        cache.chunks_of(other.source)
    store.gate.set()
    assert await before == DATA[0, 0]
    assert cache.stats.chunks == cache.stats.nbytes == 0


async def test_an_array_that_another_has_taken_the_place_of_is_still_read(cache, engine):
    memory = MemoryStore()
    array = await filled(memory, engine)
    chunks = cache.chunks_of(array.source)
    other = azarr.AsyncArray(memory, "a", (await azarr.create_array(MemoryStore(), like=array, dtype="u4")).metadata, engine)
    cache.chunks_of(other.source)
    (load,) = chunks.claim([(0, 0)])
    assert isinstance(load, Load)
    assert load.finish(CachedChunk(np.zeros((4, 4)), 1)) == []
    assert cache.stats.chunks == 0
    (again,) = chunks.claim([(0, 0)])
    assert isinstance(again, Load)
    again.abandon()


# Loads


async def test_only_the_first_end_counts(cache, engine):
    chunks = cache.chunks_of((await filled(MemoryStore(), engine)).source)
    load, wait = chunks.claim([(0, 0), (0, 0)])
    assert isinstance(wait, Wait)
    assert wait.load is load
    chunk = CachedChunk(np.zeros((4, 4), "i4"), 1)
    load.finish(chunk)
    load.abandon()
    load.fail()
    load.finish(CachedChunk(np.ones((4, 4), "i4"), 1))
    assert await wait.load.wait() == "done"
    assert chunks.claim([(0, 0)]) == [chunk]
    assert cache.stats.chunks == 1


async def test_waiting_on_several_loops(cache, engine):
    chunks = cache.chunks_of((await filled(MemoryStore(), engine)).source)
    (load,) = chunks.claim([(0, 0)])
    waiting = threading.Barrier(4)

    async def wait():
        (other,) = chunks.claim([(0, 0)])
        task = asyncio.create_task(other.load.wait())
        await asyncio.sleep(0)
        waiting.wait(PATIENCE)
        return await task

    threads = [asyncio.create_task(asyncio.to_thread(asyncio.run, wait())) for _ in range(3)]
    await asyncio.to_thread(waiting.wait, PATIENCE)
    load.finish(None)
    assert await asyncio.gather(*threads) == ["done"] * 3
    assert load.chunk is None


def test_a_loop_that_is_closed_is_waited_for_by_nobody(cache):
    async def begin():
        engine = Engine(executor=InlineExecutor())
        chunks = cache.chunks_of((await filled(MemoryStore(), engine)).source)
        (load,) = chunks.claim([(0, 0)])
        coroutine = load.wait()
        coroutine.send(None)  # waits on a loop that will not go on
        return load, coroutine

    load, coroutine = asyncio.run(begin())
    load.abandon()
    coroutine.close()
    assert load.state == "abandoned"


def test_many_threads_and_loops_see_nothing_old(tmp_path):
    """Each loop writes its own chunks, reads everybody's, and finds what was there before its read began, or later."""
    store = LocalStore(tmp_path / "store", durability="none")
    cache, turns, loops = ChunkCache(12 * (CHUNK + ENTRY_NBYTES)), 25, 4
    written = [0] * loops

    async def prepare():
        await azarr.create_array(store, "a", shape=(loops * 4, 4), chunks=(4, 4), dtype="i4")

    async def work(number, latency):
        mine = LatencyStore(store, 0.0) if latency else store
        async with Engine(workers=2, cache=cache) as engine:
            array = await azarr.open_array(mine, "a", engine=engine)
            for turn in range(1, turns + 1):
                await array[number * 4 : number * 4 + 4].write(turn)
                written[number] = turn
                before = written.copy()
                reads = [array.read() for _ in range(3)]
                for result in await asyncio.gather(*reads):
                    for other in range(loops):
                        chunk = result[other * 4 : other * 4 + 4]
                        assert (chunk == chunk[0, 0]).all()
                        assert chunk[0, 0] >= before[other]
                    assert result[number * 4, 0] == turn

    asyncio.run(prepare())
    errors = []

    def run(number):
        try:
            asyncio.run(work(number, latency=number % 2 == 0))
        except BaseException as error:  # noqa: BLE001 - shown below
            errors.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(loops)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert errors == []
    assert cache.stats.nbytes <= cache.nbytes


# Cancellation


@pytest.mark.parametrize("kind", ["latency", "memory"])
@pytest.mark.parametrize("executor", ["threads", "inline"])
def test_cancellation_anywhere_leaves_the_cache_usable(cancelled_everywhere, how_cancelled, kind, executor):
    engines = []

    async def prepare():
        cache = ChunkCache(2**20)
        engine = Engine(executor=InlineExecutor()) if executor == "inline" else Engine(workers=2)
        engine.cache = cache
        engines.append(engine)
        memory = MemoryStore()
        array = await filled(LatencyStore(memory, 0.0) if kind == "latency" else memory, engine)

        async def work():
            await array[0:4].read()
            await asyncio.gather(array[:, 0:4].read(), array[4:, 0:4].read())
            await array[0:4, 0:4].write(DATA[0:4, 0:4])
            async with array.stream_chunks() as chunks:
                async for chunk in chunks:
                    assert (chunk.data == DATA[chunk.region]).all()

        def check():
            assert cache._contents._loads == {}
            for shelf in cache._contents.all_shelves():
                assert shelf.loading == {}

        return work(), check

    assert cancelled_everywhere(prepare, how_cancelled) > 3
    for engine in engines:
        engine.executor.close()


def test_cancellation_of_one_never_harms_another(cancelled_everywhere, how_cancelled):
    async def prepare():
        engine = Engine(executor=InlineExecutor(), cache=ChunkCache(2**20))
        array = await filled(LatencyStore(MemoryStore(), 0.0), engine)
        results = []

        async def other():
            results.append(await array.read())

        async def work():
            bystander = asyncio.create_task(other())
            try:
                await array.read()
            finally:
                await asyncio.wait([bystander])

        def check():
            assert engine.cache._contents._loads == {}
            assert all((result == DATA).all() for result in results)
            assert len(results) <= 1

        return work(), check

    assert cancelled_everywhere(prepare, "early") > 1


# What is left behind


async def test_what_is_in_the_cache_cannot_be_changed(cache, engine):
    array = await filled(MemoryStore(), engine)
    await array.read()
    (chunk,) = cache.chunks_of(array.source).claim([(0, 0)])
    with pytest.raises(ValueError, match="read-only"):
        chunk.data[0, 0] = 1


@pytest.mark.parametrize("latency", [False, True])
async def test_an_error_keeps_nothing_alive(cache, engine, latency):
    memory = MemoryStore()
    array = await filled(LatencyStore(memory, 0.0) if latency else memory, engine)
    await memory.set("a/c/0/0", b"damaged")
    gc.collect()
    gc.disable()
    try:
        for selected in (array, array[0, 0]):
            try:
                await selected.read()
            except CodecError as error:
                kept = weakref.ref(error)
            await asyncio.sleep(0)
            assert kept() is None
    finally:
        gc.enable()


# Fields


@pytest.mark.parametrize("options", [{}, {"shards": (4,)}, {"chunks": [[1, 3]]}], ids=str)
async def test_fields_of_the_same_kind_are_not_taken_for_each_other(cache, engine, options):
    data = np.array([(1, 10), (2, 20), (3, 30), (4, 40)], dtype=[("x", "i4"), ("y", "i4")])
    array = await azarr.create_array(
        MemoryStore(), "a", **{"shape": (4,), "chunks": (2,), "dtype": data.dtype, "engine": engine, **options}
    )
    await array.write(data)
    for _ in range(2):
        assert (await array["x"] == data["x"]).all()
        assert (await array["y"] == data["y"]).all()
        assert (await array == data).all()
    assert cache.stats.misses == cache.stats.chunks == 3 * array.nchunks
    await array["x"].write(7)
    assert cache.stats.chunks == 0
    assert (await array["x"] == 7).all()
    assert (await array["y"] == data["y"]).all()
