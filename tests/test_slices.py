"""Streams of slices against NumPy: every axis, step, thickness and view; each chunk once; bounded memory; errors at their places."""

from __future__ import annotations

import asyncio
import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr import (
    CodecError,
    Engine,
    InlineExecutor,
    LatencyStore,
    MemoryStore,
    SelectionError,
    StreamError,
    StreamTimeoutError,
    create_array,
)


class Counting(MemoryStore):
    """Counts what is read of chunks."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []

    def get_blocking(self, key, byte_range=None, reserve=None):
        if "c/" in key:
            self.keys.append(key)
        return super().get_blocking(key, byte_range, reserve)

    def get_into(self, key, out):
        if "c/" in key:
            self.keys.append(key)
        return super().get_into(key, out)


async def filled(store, shape, chunks, *, shards=None, engine=None, **options):
    array = await create_array(store, "a", shape=shape, chunks=chunks, shards=shards, dtype="i4", engine=engine, **options)
    data = np.arange(np.prod(shape), dtype="i4").reshape(shape)
    await array.write(data)
    return array, data


def expected(data, axis, start, stop, step, thickness):
    """The slices that NumPy has."""
    thick = thickness or 1
    first, last, _ = slice(start, stop).indices(data.shape[axis])
    for low in range(first, last, step or thick):
        part = np.moveaxis(data, axis, 0)[low : min(low + thick, last)]
        yield low, (part[0] if thickness is None else np.moveaxis(part, 0, axis))


async def check(view, data, axis, start=None, stop=None, step=None, thickness=None, **options):
    got = [each async for each in view.stream_slices(axis, start, stop, step, thickness=thickness, **options)]
    want = list(expected(data, axis, start, stop, step, thickness))
    assert [each.start for each in got] == [low for low, _ in want]
    for each, (_, part) in zip(got, want, strict=True):
        assert each.data.shape == part.shape
        np.testing.assert_array_equal(each.data, part)
        np.testing.assert_array_equal(data[each.region], part)
        assert each.data.flags.owndata or each.data.base.flags.owndata


@st.composite
def cases(draw):
    """An array, a view of it, and slices of that."""
    ndim = draw(st.integers(1, 3))
    shape = tuple(draw(st.integers(1, 12)) for _ in range(ndim))
    inner = tuple(draw(st.integers(1, 5)) for _ in range(ndim))
    shards = tuple(draw(st.integers(1, 3)) * each for each in inner) if draw(st.booleans()) else None
    axis = draw(st.integers(0, ndim - 1))
    bounds = st.none() | st.integers(-13, 13)
    where = {
        "axis": axis,
        "start": draw(bounds),
        "stop": draw(bounds),
        "step": draw(st.none() | st.integers(1, 13)),
        "thickness": draw(st.none() | st.integers(1, 13)),
    }
    every = [slice(None), slice(None, None, -1), slice(1, None, 2), slice(-2, None, -3)]
    key = tuple(draw(st.sampled_from(every)) for _ in range(ndim))
    if draw(st.booleans()):
        indices = draw(st.lists(st.integers(0, shape[axis] - 1), min_size=1, max_size=9))
        key = (*(slice(None),) * axis, indices)
    return shape, inner, shards, where, key


@given(case=cases(), memory=st.none() | st.integers(1, 4000), latency=st.booleans())
def test_any_slices_of_any_view_are_those_of_numpy(case, memory, latency):
    shape, inner, shards, where, key = case

    async def main():
        inside = MemoryStore()
        array, values = await filled(inside, shape, inner, shards=shards)
        if latency:
            array = type(array)(LatencyStore(inside, 0), "a", array.metadata, Engine(executor=InlineExecutor()))
        view = array.oindex[key] if any(isinstance(each, list) for each in key) else array[key]
        await check(view, values[key], memory=memory, **where)

    asyncio.run(main())


class Uneven(LatencyStore):
    """A store whose answers take as long as ``delays`` say, by key, or so many seconds."""

    def __init__(self, inner, delays, others=1.0):
        super().__init__(inner, others)
        self.delays = delays

    async def get(self, key, byte_range=None):
        await asyncio.sleep(self.delays(key))
        return await super().get(key, byte_range)


@given(
    case=cases(),
    memory=st.none() | st.integers(1, 4000),
    latency=st.booleans(),
    ordered=st.booleans(),
    missing=st.booleans(),
    metadata=st.booleans(),
    seed=st.integers(0, 100),
    asked_for=st.sampled_from([0, 100]),
)
def test_any_slices_with_any_options(run_virtual, case, memory, latency, ordered, missing, metadata, seed, asked_for):
    shape, inner, shards, where, key = case
    rng = np.random.default_rng(seed)

    async def main():
        inside = MemoryStore()
        array, values = await filled(inside, shape, inner, shards=shards, fill_value=-1)
        numbers = np.ravel_multi_index([index // each for index, each in zip(np.indices(shape), inner, strict=True)], shape)
        stored = np.isin(numbers, rng.choice(np.unique(numbers), len(np.unique(numbers)) // 2, replace=False))
        values[~stored] = -1
        await array.write(values)
        store = Uneven(inside, lambda _: rng.random(), 0) if latency else inside
        array = type(array)(store, "a", array.metadata, Engine(executor=InlineExecutor()))
        view = array.oindex[key] if any(isinstance(each, list) for each in key) else array[key]
        options = {"memory": memory, "ordered": ordered, "include_missing": missing, "metadata": metadata}
        place = (where["axis"], where["start"], where["stop"], where["step"])
        stream = view.stream_slices(*place, thickness=where["thickness"], **options)
        got = [each async for each in stream]
        found = {each.start: each for each in got}
        assert len(found) == len(got)
        assert ordered <= (list(found) == sorted(found))
        parts = [list(expected(each[key], **where)) for each in (values, stored, numbers, *np.indices(shape))]
        wanted = [low for low, there in parts[1] if missing or there.any()]
        assert sorted(found) == wanted
        assert (stream.stats.done, stream.stats.missing, stream.stats.total) == (len(wanted), len(parts[0]) - len(wanted), len(wanted))
        for (low, part), (_, there), (_, chunks), *indices in zip(*parts, strict=True):
            if low in found:
                np.testing.assert_array_equal(found[low].data, part)
                checked_info(found[low].info, metadata, there, chunks, [each for _, each in indices], 4 * int(np.prod(inner)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("azarr.slices.ASKED_FOR", asked_for)
        run_virtual(main)


def checked_info(info, metadata, there, chunks, indices, chunk_nbytes):
    """Check what is said of a slice whose elements have these chunks and indices in the array, and are stored where they are ``there``."""
    assert (info is not None) == metadata
    if info is not None:
        assert info.shape == chunks.shape
        assert info.chunks == len(np.unique(chunks))
        assert info.decoded_nbytes == info.chunks * chunk_nbytes
        assert (info.encoded_nbytes is not None) == there.any()
        assert info.seconds >= 0
        if chunks.size:
            assert info.bounds == tuple(slice(int(each.min()), int(each.max()) + 1) for each in indices)


async def test_dropped_axes_names_and_negative_axes():
    array, data = await filled(MemoryStore(), (6, 7, 8), (2, 3, 4), dimension_names=("t", "y", "x"))
    await check(array[3], data[3], 1, thickness=3)
    await check(array[:, 2], data[:, 2], 0)
    got = [each.data async for each in array[:, 2].stream_slices("x", 1, 5, thickness=2)]
    assert np.array_equal(np.concatenate(got, axis=1), data[:, 2, 1:5])
    got = [each.data async for each in array.stream_slices(-1)]
    assert np.array_equal(np.stack(got, axis=-1), data)


@pytest.mark.parametrize("thickness", [None, 3, 4, 10, 40])
@pytest.mark.parametrize("step", [None, 1, 5])
async def test_each_chunk_is_read_once(thickness, step):
    store = Counting()
    array, data = await filled(store, (40, 12), (4, 3))
    store.keys.clear()
    await check(array, data, 0, step=step, thickness=thickness)
    assert len(store.keys) == len(set(store.keys))
    assert len(store.keys) == 40 or step == 5


async def test_only_the_chunks_that_are_needed_are_read():
    store = Counting()
    array, data = await filled(store, (40, 12), (4, 12))
    store.keys.clear()
    await check(array, data, 0, 2, 33, 10)
    assert sorted(store.keys) == ["a/c/0/0", "a/c/3/0", "a/c/5/0", "a/c/8/0"]
    store.keys.clear()
    got = [each.start async for each in array.stream_slices(0, filter=lambda start: start % 16 == 5)]
    assert got == [5, 21, 37]
    assert sorted(store.keys) == ["a/c/1/0", "a/c/5/0", "a/c/9/0"]


async def test_little_memory_decodes_a_chunk_in_parts():
    store = Counting()
    array, data = await filled(store, (40, 12), (40, 12))
    store.keys.clear()
    await check(array, data, 0, memory=10 * 12 * 4)
    assert 1 < len(store.keys) <= 10


@pytest.mark.parametrize(("concurrency", "rounds"), [(1, 20), (4, 5), (20, 1)])
def test_slices_are_read_ahead(run_virtual, concurrency, rounds):
    async def main():
        inside = MemoryStore()
        array, data = await filled(inside, (20, 5), (1, 5))
        array = type(array)(LatencyStore(inside, 1.0), "a", array.metadata, Engine(executor=InlineExecutor()))
        loop = asyncio.get_running_loop()
        begin = loop.time()
        await check(array, data, 0, concurrency=concurrency)
        assert loop.time() - begin == pytest.approx(rounds, abs=1e-6)

    run_virtual(main)


def test_slices_that_are_complete_do_not_wait_for_others(run_virtual):
    async def main():
        inside = MemoryStore()
        array, data = await filled(inside, (20, 4), (2, 2))
        store = Uneven(inside, lambda key: 50.0 if key == "a/c/1/0" else 0.0)
        array = type(array)(store, "a", array.metadata, Engine(executor=InlineExecutor()))
        loop = asyncio.get_running_loop()
        for thickness, late in ((None, [2, 3]), (3, [0, 3]), (20, [0])):
            begin, came = loop.time(), {}
            # memory for two blocks besides the one that is late
            async with array.stream_slices(0, thickness=thickness, ordered=False, memory=(16 + (thickness or 1)) * 16) as slices:
                async for each in slices:
                    came[each.start] = loop.time() - begin
                    np.testing.assert_array_equal(each.data, data[each.region])
                with pytest.raises(StreamError, match="ordered=True"):
                    _ = slices.token
            assert sorted(start for start, seconds in came.items() if seconds >= 50) == late
            assert len(came) == -(-20 // (thickness or 1))

    run_virtual(main)


async def test_blocks_that_wait_for_others_count():
    class Half(LatencyStore):
        async def get(self, key, byte_range=None):
            if int(key.split("/")[2]) % 2:
                self.requests += 1
                await asyncio.Event().wait()
            return await super().get(key, byte_range)

    inside = MemoryStore()
    array, _ = await filled(inside, (64, 8), (4, 8))
    store = Half(inside, 0)
    array = type(array)(store, "a", array.metadata, Engine(executor=InlineExecutor()))
    # memory for six rows besides a slice of two, of which the second never comes: one is read, five are under way or wait
    async with array.stream_slices(0, ordered=False, thickness=8, memory=(6 * 4 + 8) * 8 * 4) as slices:
        waiting = asyncio.ensure_future(anext(slices))
        for _ in range(50):
            await asyncio.sleep(0)
        assert store.requests == 6
        assert slices.stats.buffered == 3
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_slices_of_which_nothing_is_stored_are_left_out():
    store = Counting()
    array = await create_array(store, "a", shape=(1000, 8), chunks=(4, 2), dtype="i4", fill_value=7)
    await array[404:409].write(1)
    for options in ({}, {"ordered": False}, {"metadata": True}):
        store.keys.clear()
        slices = array.stream_slices(0, thickness=3, include_missing=False, **options)
        got = [each.start async for each in slices]
        assert sorted(got) == [402, 405, 408, 411]
        assert (slices.stats.done, slices.stats.missing, slices.stats.total) == (4, 330, 4)
        assert sorted({key.split("/")[2] for key in store.keys}) == ["100", "101", "102", "103"]
    # only what the view meets counts
    await array.write(np.full((1000, 8), 7))
    await array[500, 0].write(1)
    assert [each.start async for each in array[:, 4:].stream_slices(0, include_missing=False)] == []
    assert [each.start async for each in array[:, :4].stream_slices(0, include_missing=False)] == [500, 501, 502, 503]
    assert [each.start async for each in array[::-1, :4].stream_slices(0, include_missing=False)] == [496, 497, 498, 499]
    assert [each.start async for each in array[:, :4].stream_slices(1, include_missing=False)] == [0, 1]


async def test_what_is_known_of_slices():
    store = MemoryStore()
    array, _ = await filled(store, (12, 6), (4, 3), compressors=None, fill_value=-1)
    await array[4:8].write(-1)
    got = [each.info async for each in array.stream_slices(0, 2, thickness=4, metadata=True)]
    assert [info.bounds for info in got] == [(slice(low, low + 4), slice(0, 6)) for low in (2, 6)] + [(slice(10, 12), slice(0, 6))]
    assert [info.shape for info in got] == [(4, 6), (4, 6), (2, 6)]
    assert [(info.chunks, info.encoded_nbytes, info.decoded_nbytes) for info in got] == [(4, 96, 192), (4, 96, 192), (2, 96, 96)]
    (missing,) = [each.info async for each in array[5].stream_slices(0, thickness=6, metadata=True)]
    assert (missing.bounds, missing.shape) == ((slice(5, 6), slice(0, 6)), (6,))
    assert (missing.chunks, missing.encoded_nbytes, missing.decoded_nbytes) == (2, None, 96)


async def test_options_that_need_order():
    array, _ = await filled(MemoryStore(), (4, 6), (2, 3))
    with pytest.raises(ValueError, match="start_after needs ordered=True"):
        array.stream_slices(0, ordered=False, start_after=1)


async def test_memory_bounds_what_is_read_ahead():
    inside = MemoryStore()
    array, _ = await filled(inside, (64, 8), (4, 8))
    store = LatencyStore(inside, 0)
    array = type(array)(store, "a", array.metadata, Engine(executor=InlineExecutor()))
    slices = array.stream_slices(0, memory=3 * 4 * 8 * 4 + 8 * 4)
    await anext(slices)
    for _ in range(20):
        await asyncio.sleep(0)
    assert store.requests == 3
    await slices.aclose()


@pytest.mark.parametrize("thickness", [1, 32, 256], ids=["made on the loop", "made by a worker", "the block itself"])
async def test_a_slice_is_held_by_its_receiver_alone(thickness):
    array, _ = await filled(MemoryStore(), (512, 1024), (256, 1024))
    gone = 0
    async with array.stream_slices(0, thickness=thickness, memory=2**21) as slices:
        async for each in slices:
            seen = weakref.ref(each.data if each.data.base is None else each.data.base)
            del each
            gone += seen() is None  # at once, though the loop has had no turn since
    assert gone == 512 // thickness


async def test_large_slices_are_parts_of_what_was_read_which_goes_with_the_last_of_them():
    array, data = await filled(MemoryStore(), (32, 8), (8, 8))
    rows = []
    async with array.stream_slices(0, thickness=2, memory=18 * 8 * 4) as slices:
        async for each in slices:
            if each.start % 8 == 0:
                assert [row() for row in rows] == [None] * len(rows)
                rows.append(weakref.ref(each.data.base))
            assert each.data.base is rows[-1]()
            assert np.array_equal(each.data, data[each.start : each.stop])
            each.data[...] = -1  # which no other slice sees
            del each
    assert len(rows) == 4


@pytest.mark.parametrize(
    ("axis", "thickness", "step"),
    [(0, 1, 1), (0, 2, 1), (1, 4, 4)],
    ids=["small", "overlapping", "scattered"],
)
async def test_other_slices_are_copies(axis, thickness, step):
    array, data = await filled(MemoryStore(), (8, 8), (8, 8))
    async with array.stream_slices(axis, thickness=thickness, step=step, memory=20 * 8 * 4) as slices:
        got = [each async for each in slices]
    owners = [each.data if each.data.base is None else each.data.base for each in got]
    assert len({id(owner) for owner in owners}) == len(owners)
    assert all(each.data.flags.c_contiguous for each in got)
    for each in got:
        assert np.array_equal(each.data, data[each.region])


async def test_nothing_more_is_read_while_the_receiver_has_the_last_part_of_a_row():
    inside = MemoryStore()
    array, _ = await filled(inside, (64, 8), (4, 8))
    store = LatencyStore(inside, 0)
    array = type(array)(store, "a", array.metadata, Engine(executor=InlineExecutor()))
    slices = array.stream_slices(0, thickness=2, memory=2 * 4 * 8 * 4 + 2 * 8 * 4)
    requests = []
    for _ in range(6):
        await anext(slices)
        for _ in range(20):
            await asyncio.sleep(0)
        requests.append(store.requests)
    assert requests == [2, 2, 3, 3, 4, 4]
    await slices.aclose()


async def test_a_damaged_chunk_costs_the_slices_that_need_it():
    store = MemoryStore()
    array, data = await filled(store, (12, 6), (3, 3))
    await store.set("a/c/1/1", b"rubbish")
    slices = array.stream_slices(0)
    assert [(await anext(slices)).start for _ in range(3)] == [0, 1, 2]
    with pytest.raises(CodecError):
        await anext(slices)
    with pytest.raises(StreamError):
        await anext(slices)
    told = []
    slices = array.stream_slices(0, on_error=lambda coords, error: told.append((coords, type(error))))
    got = [each.start async for each in slices]
    assert got == [0, 1, 2, 6, 7, 8, 9, 10, 11]
    assert told == [((start,), CodecError) for start in (3, 4, 5)]
    assert (slices.stats.done, slices.stats.failed, slices.stats.total) == (9, 3, 9)
    assert data[0, 0] == 0


def test_a_slow_block_times_out(run_virtual):
    async def main():
        inside = MemoryStore()
        array, _ = await filled(inside, (4, 6), (2, 3))
        array = type(array)(LatencyStore(inside, 10.0), "a", array.metadata, Engine(executor=InlineExecutor()))
        with pytest.raises(StreamTimeoutError, match="5"):
            await anext(array.stream_slices(0, timeout=5.0))
        assert (await anext(array.stream_slices(0, timeout=11.0))).start == 0

    run_virtual(main)


async def test_going_on_and_sharing_out():
    array, _ = await filled(MemoryStore(), (20, 6), (2, 3), shards=(4, 6))
    every = list(range(0, 20, 3))
    slices = array.stream_slices(0, thickness=3)
    for number, start in enumerate(every):
        assert (await anext(slices)).start == start
        for after in (start, slices.token):
            rest = [each.start async for each in array.stream_slices(0, thickness=3, start_after=after)]
            assert rest == every[number + 1 :]
    await slices.aclose()
    parts = [[each.start async for each in array.stream_slices(0, thickness=3, shard=n, of=3)] for n in range(3)]
    assert [start for part in parts for start in part] == every
    assert all(part for part in parts)
    with pytest.raises(StreamError, match="token"):
        array.stream_slices(0, thickness=2, start_after=slices.token)
    for place in ("", "1,2", "x"):  # cut off, or spoilt
        with pytest.raises(StreamError, match="token"):
            array.stream_slices(0, thickness=3, start_after=f"{slices.fingerprint}:{place}")


@pytest.mark.parametrize("options", [{"along": 2}, {"along": -3}, {"along": "z"}, {"step": 0}, {"step": -1}, {"thickness": 0}])
async def test_what_leads_nowhere_is_an_error(options):
    array, _ = await filled(MemoryStore(), (4, 6), (2, 3))
    with pytest.raises(SelectionError):
        array.stream_slices(**options)


async def test_points_and_unknown_options():
    array, _ = await filled(MemoryStore(), (4, 6), (2, 3))
    with pytest.raises(SelectionError, match="points"):
        array.vindex[[0, 1], [2, 3]].stream_slices(0)
    with pytest.raises(TypeError, match="sorted"):
        array.stream_slices(0, sorted=False)


async def test_empty():
    array, data = await filled(MemoryStore(), (4, 0), (2, 3))
    await check(array, data, 0)
    await check(array, data, 1)
    array, data = await filled(MemoryStore(), (4, 6), (2, 3))
    await check(array, data, 0, 3, 3)
    with pytest.raises(SelectionError):
        array[1, 1].stream_slices(0)


@pytest.mark.parametrize("options", [{}, {"ordered": False, "metadata": True, "include_missing": False}], ids=len)
@pytest.mark.parametrize("latency", [None, 0])
def test_cancelled_at_every_suspension(cancelled_everywhere, how_cancelled, counting_executor, latency, options):
    async def prepare():
        inside = MemoryStore()
        plain, _ = await filled(inside, (6, 40_000), (2, 10_000))
        executor = counting_executor(Engine(workers=1).executor)
        engine = Engine(executor=executor, concurrency=4)
        array = type(plain)(inside if latency is None else LatencyStore(inside, latency), "a", plain.metadata, engine)

        async def run():
            async with array.stream_slices(0, concurrency=1, **options) as slices:
                async for _ in slices:
                    pass

        def finished():
            assert executor.running == 0
            executor.close()

        return run(), finished

    assert cancelled_everywhere(prepare, how_cancelled) >= 3
