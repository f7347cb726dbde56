"""What a stream's options leave out, put in order, share out and apply: alone, together, and whatever is streamed."""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from dataclasses import dataclass
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import azarr
from azarr import Engine, InlineExecutor, LatencyStore, MemoryStore, SelectionError, StoreError, StreamError, ThreadExecutor, streaming

ROWS, COLUMNS = 18, 22
DATA = np.arange(ROWS * COLUMNS, dtype="i4").reshape(ROWS, COLUMNS) + 1
DATA[4:9] = 0  # the fill value: rows of chunks, and one of shards, that are not stored
DATA[:4, 6:12] = 0

KINDS = ["blocking", "awaited"]

FORMATS = {
    "v3": {"chunks": (2, 3)},
    "uncompressed": {"chunks": (4, 22), "compressors": None},
    "sharded": {"chunks": (2, 3), "shards": (4, 6)},
    "index first": {"chunks": (2, 3), "shards": {"shape": (8, 12), "index_location": "start"}},
    "v2": {"zarr_format": 2, "chunks": (2, 3), "order": "F"},
    "rectilinear": {"chunks": [[2, 2, 5, 1, 4, 4], [6, 3, 3, 9, 1]]},
}

MASK = DATA % 7 == 1

VIEWS = {
    "whole": (lambda array: array, DATA),
    "block": (lambda array: array[3:15, 2:20], DATA[3:15, 2:20]),
    "steps": (lambda array: array[::5, ::7], DATA[::5, ::7]),
    "backwards": (lambda array: array[::-1, 20:1:-2], DATA[::-1, 20:1:-2]),
    "row": (lambda array: array[11], DATA[11]),
    "column": (lambda array: array[::-1, -3], DATA[::-1, -3]),
    "element": (lambda array: array[3, 4], DATA[3, 4]),
    "nothing": (lambda array: array[5:5], DATA[5:5]),
    "rows": (lambda array: array.oindex[[15, 1, 1, 10], 2:9], DATA[[15, 1, 1, 10], 2:9]),
    "rows and a column": (lambda array: array.oindex[[15, 1, 10], 7], DATA[[15, 1, 10], 7]),
    "columns, turned": (lambda array: array.oindex[:, [20, 0, 5, 6]][::-1, ::-1], DATA[:, [20, 0, 5, 6]][::-1, ::-1]),
    "no rows": (lambda array: array.oindex[[]], DATA[[]]),
    "points": (lambda array: array.vindex[[[17, 0], [9, 9]], [[3, 21], [0, 1]]], DATA[[[17, 0], [9, 9]], [[3, 21], [0, 1]]]),
    "mask": (lambda array: array.vindex[MASK], DATA[MASK]),
    "no points": (lambda array: array.vindex[np.zeros_like(MASK)], DATA[np.zeros_like(MASK)]),
}

pytestmark = pytest.mark.usefixtures("complaints")


class Store(MemoryStore):
    """A memory store that writes down what it is asked for, and fails where it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.listings, self.listed, self.failing = [], 0, 0, {}

    def get_blocking(self, key, byte_range=None, reserve=None):
        self.asked.append(key)
        if key in self.failing:
            raise self.failing[key]
        return super().get_blocking(key, byte_range, reserve)

    async def list_prefix(self, prefix=""):
        self.listings += 1
        async for key in super().list_prefix(prefix):
            self.listed += 1
            yield key


@dataclass
class Case:
    array: azarr.AsyncArray
    store: Store
    """What is below the array's store."""

    def key(self, coords) -> str:
        """The key of the unit that the chunk at ``coords`` lies in."""
        source = self.array.source
        return source.key(tuple(index // count for index, count in zip(coords, source.chunks_per_unit, strict=True)))

    def stored(self, coords) -> bool:
        """Whether a chunk has been written, as nothing but fill value is not."""
        return bool(DATA[self.array.source.region(coords)].any())


async def case_of(kind, *, data=DATA, engine=None, **options) -> Case:
    store = Store()
    array = await azarr.create_array(store, "a", shape=data.shape, dtype=data.dtype, **options)
    await array.write(data)
    store.asked.clear()
    return Case(azarr.AsyncArray(store if kind == "blocking" else LatencyStore(store, 0.0), "a", array.metadata, engine), store)


async def chunks_of(view, **options):
    async with view.stream_chunks(**options) as stream:
        return [chunk async for chunk in stream]


async def coords_of(view, **options):
    return [chunk.coords for chunk in await chunks_of(view, **options)]


def assert_same(chunks, others):
    assert [chunk.coords for chunk in chunks] == [chunk.coords for chunk in others]
    for chunk, other in zip(chunks, others, strict=True):
        assert all(
            np.array_equal(np.arange(9999)[part], np.arange(9999)[its]) for part, its in zip(chunk.region, other.region, strict=True)
        )
        np.testing.assert_array_equal(chunk.data, other.data, strict=True)


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(params=FORMATS)
def form(request):
    return FORMATS[request.param]


# --- everything together


@settings(max_examples=300)
@given(st.data())
def test_options_together_give_what_each_leaves_of_the_whole(data):
    """Against the stream without options, which other tests compare with the array."""
    kind, form = data.draw(st.sampled_from(KINDS)), FORMATS[data.draw(st.sampled_from(list(FORMATS)))]
    select, expected = VIEWS[data.draw(st.sampled_from(list(VIEWS)))]
    of = data.draw(st.none() | st.integers(1, 5), "of")
    shard = None if of is None else data.draw(st.integers(0, of - 1), "shard")
    rejected = data.draw(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 7))), "rejected")
    broken = data.draw(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 7)), max_size=3), "broken")
    options = {
        "ordered": data.draw(st.booleans(), "ordered"),
        "concurrency": data.draw(st.none() | st.integers(1, 40), "concurrency"),
        "memory": data.draw(st.none() | st.integers(1, 500), "memory"),
        "include_missing": data.draw(st.booleans(), "include_missing"),
        "metadata": data.draw(st.booleans(), "metadata"),
        "filter": data.draw(st.sampled_from([None, lambda coords: coords not in rejected]), "filter"),
    }
    asked_for = data.draw(st.sampled_from([0, 3, 100]), "asked_for")

    async def main():
        case = await case_of(kind, **form)
        view = select(case.array)
        whole = await chunks_of(view)
        shares = [await chunks_of(view, shard=number, of=of) for number in range(of)] if of is not None else [whole]
        mine = shares[shard or 0]
        failed, reports = [], []
        case.store.failing = {case.key(coords): StoreError("no") for coords in broken if coords[0] < 9}
        options["start_after"] = place = data.draw(st.none() | st.sampled_from([c.coords for c in mine]), "after") if mine else None
        options["ordered"] = options["ordered"] or place is not None
        with mock.patch.object(streaming, "ASKED_FOR", asked_for):
            stream = view.stream_chunks(
                **options, shard=shard, of=of, on_error=lambda *args: failed.append(args), progress=reports.append, timeout=None
            )
        async with stream:
            got = [chunk async for chunk in stream]

        rest = mine if place is None else mine[1 + [chunk.coords for chunk in mine].index(place) :]
        left = [chunk for chunk in rest if options["filter"] is None or chunk.coords not in rejected]
        gone = [chunk for chunk in left if case.key(chunk.coords) in case.store.failing]
        if not options["include_missing"] and asked_for < len({case.key(chunk.coords) for chunk in rest}):
            gone = [chunk for chunk in gone if case.key(chunk.coords) in case.store._values]  # nobody asks for it
        left = [chunk for chunk in left if case.key(chunk.coords) not in case.store.failing]
        if not options["include_missing"]:
            left = [chunk for chunk in left if case.stored(chunk.coords)]
        order = (lambda chunks: chunks) if options["ordered"] else (lambda chunks: sorted(chunks, key=lambda chunk: chunk.coords))
        assert_same(order(got), left)
        if len({case.key(chunk.coords) for chunk in whole}) <= asked_for or asked_for == 0 or options["include_missing"]:
            assert sorted(coords for coords, _ in failed) == [chunk.coords for chunk in gone]
        assert all(isinstance(error, StoreError) for _, error in failed)
        assert all((chunk.info is not None) == options["metadata"] for chunk in got)
        stats = stream.stats
        assert stats.done == stats.total == len(got)
        assert stats.done + stats.filtered + stats.missing + stats.failed == len(rest)
        assert stats.filtered == sum(options["filter"] is not None and chunk.coords in rejected for chunk in rest)
        assert stats.in_flight == stats.buffered == stats.buffered_nbytes == 0
        assert stats.nbytes == sum(chunk.data.nbytes for chunk in got)
        assert [report.done for report in reports] == [*range(1, len(got) + 1), len(got)]
        if not rejected and not broken and of is None and place is None and options["include_missing"]:
            result = np.full(expected.shape, -1, "i4")
            for chunk in got:
                result[chunk.region] = chunk.data
            np.testing.assert_array_equal(result, expected)

    asyncio.run(main())


# --- filter


async def test_no_request_is_made_for_chunks_that_are_filtered_out(kind, form):
    case = await case_of(kind, **form)
    wanted = {coords for coords in await coords_of(case.array) if sum(coords) % 3 == 0}
    case.store.asked.clear()
    for ordered in (True, False):
        got = await coords_of(case.array, filter=lambda coords: sum(coords) % 3 == 0, ordered=ordered)
        assert sorted(got) == sorted(wanted)
    assert {*case.store.asked} == {case.key(coords) for coords in wanted}
    if case.array.shards is None:
        assert len(case.store.asked) == 2 * len(wanted)
    case.store.asked.clear()
    assert await coords_of(case.array, filter=lambda coords: False) == []
    assert case.store.asked == []


async def test_a_filter_sees_each_chunk_once_and_in_order(kind, form):
    case = await case_of(kind, **form)
    seen = []
    got = await coords_of(case.array, filter=lambda coords: seen.append(coords) or len(seen) % 2)
    assert seen == await coords_of(case.array)
    assert got == seen[::2]


@pytest.mark.parametrize("ordered", [True, False])
async def test_the_error_of_a_filter_comes_out_bare_and_after_what_came_before(kind, form, ordered):
    case, error = await case_of(kind, **form), ValueError()
    places = await coords_of(case.array)
    for bad in (0, 1, len(places) // 2, len(places) - 1):

        def keep(coords, bad=bad):
            if coords == places[bad]:
                raise error
            return True

        got = []
        with pytest.raises(ValueError) as caught:
            async with case.array.stream_chunks(filter=keep, ordered=ordered, concurrency=4) as stream:
                async for chunk in stream:
                    got.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream fails
        assert caught.value is error
        assert error.__context__ is None
        if ordered:
            assert len(got) >= bad - 3  # those that were to be fetched with it may be missing
            assert got == places[: len(got)]
        with pytest.raises(StreamError, match="before its last chunk"):
            await anext(stream)


@pytest.mark.parametrize("leaked", [StopIteration, StopAsyncIteration])
async def test_a_filter_that_raises_the_end_of_an_iteration_does_not_end_the_stream(kind, leaked):
    case = await case_of(kind, **FORMATS["v3"])

    def keep(coords):
        if coords == (3, 1):
            raise leaked
        return True

    for concurrency in (1, 4, 100):
        with pytest.raises(RuntimeError):
            await coords_of(case.array, filter=keep, concurrency=concurrency)


@pytest.mark.parametrize("step", [10**9, 700], ids=["all", "most"])
@pytest.mark.parametrize("options", [{}, {"ordered": False, "shards": 5000}], ids=["plain", "sharded"])
async def test_the_loop_goes_on_while_a_filter_rejects(kind, step, options):
    """Other tasks have their turns: they see the filter at work, a little at a time."""
    data = np.ones(100_000, "u1")
    ordered = options.get("ordered", True)
    case = await case_of(kind, data=data[:0], chunks=1, engine=Engine(executor=InlineExecutor(), concurrency=4000))
    array = await azarr.create_array(case.store, "b", shape=data.shape, dtype="u1", chunks=1, shards=options.get("shards"))
    array = azarr.AsyncArray(case.array.store, "b", array.metadata, case.array.engine)
    calls, seen, worst = 0, 0, 0

    def keep(coords):
        nonlocal calls
        calls += 1
        return coords[0] % step == step - 1

    async def heart():
        nonlocal seen, worst
        while True:
            worst, seen = max(worst, calls - seen), calls
            await asyncio.sleep(0)

    beating = asyncio.create_task(heart())
    assert len(await coords_of(array, filter=keep, ordered=ordered)) == len(data) // step
    beating.cancel()
    await asyncio.wait([beating])
    assert calls == len(data)
    assert worst <= 2 * streaming.FILTERED + 4000


# --- chunks that are not stored


@pytest.mark.parametrize("ordered", [True, False])
async def test_missing_chunks_are_left_out_by_asking(kind, form, ordered):
    case = await case_of(kind, **form)
    places = await coords_of(case.array)
    case.store.asked.clear()
    got = await coords_of(case.array, include_missing=False, ordered=ordered)
    assert sorted(got) == [coords for coords in places if case.stored(coords)]
    assert {*case.store.asked} == {case.key(coords) for coords in places}
    assert case.store.listings == 0


@pytest.mark.parametrize("ordered", [True, False])
async def test_missing_chunks_are_left_out_by_listing(kind, form, ordered, monkeypatch):
    """One listing, and no request for what it does not have."""
    monkeypatch.setattr(streaming, "ASKED_FOR", 2)
    case = await case_of(kind, **form)
    places = await coords_of(case.array)
    case.store.asked.clear()
    async with case.array.stream_chunks(include_missing=False, ordered=ordered) as stream:
        got = [chunk.coords async for chunk in stream]
    assert sorted(got) == [coords for coords in places if case.stored(coords)]
    assert {*case.store.asked} == {case.key(coords) for coords in got}
    assert case.store.listings == 1
    assert (stream.stats.missing, stream.stats.filtered) == (len(places) - len(got), 0)


async def test_as_many_keys_as_a_page_of_a_listing_has_are_asked_for(kind):
    data = np.arange(101, dtype="i4")
    case = await case_of(kind, data=data, chunks=1)
    for view, of, listings in ((case.array[:100], 1, 0), (case.array, 1, 1), (case.array, 2, 0), (case.array[::2], 1, 0)):
        case.store.asked.clear()
        case.store.listings = 0
        got = await coords_of(view, include_missing=False, shard=0, of=of)
        assert case.store.listings == listings
        assert got == [(int(number),) for number in (await view)[: view.size // of] if number]


async def test_a_store_that_cannot_list_is_asked():
    class Reading:
        def __init__(self, store):
            self.get = store.get

    case = await case_of("awaited", data=np.arange(150, dtype="i4"), chunks=1)
    array = azarr.AsyncArray(Reading(case.store), "a", case.array.metadata)
    assert await coords_of(array, include_missing=False) == [(number,) for number in range(1, 150)]
    assert len(case.store.asked) == 150


async def test_an_array_without_chunks_is_found_by_one_request(kind):
    case = await case_of(kind, data=np.zeros(10_000, "i4"), chunks=1)
    async with case.array.stream_chunks(include_missing=False) as stream:
        assert [chunk async for chunk in stream] == []
    assert (case.store.listings, case.store.asked) == (1, [])
    assert (stream.stats.total, stream.stats.missing) == (0, 10_000)


async def test_the_loop_goes_on_while_a_listing_is_taken_in(kind):
    case = await case_of(kind, data=np.arange(1, 20_001, dtype="i4"), chunks=1)
    seen = worst = 0

    async def heart():
        nonlocal seen, worst
        while True:
            worst, seen = max(worst, case.store.listed - seen), case.store.listed
            await asyncio.sleep(0)

    beating = asyncio.create_task(heart())
    async with case.array.stream_chunks(include_missing=False) as stream:
        await anext(stream)
    beating.cancel()
    await asyncio.wait([beating])
    assert case.store.listed == 20_001  # with the array's own document
    if kind == "blocking":  # the other store hands out what it has collected
        assert worst <= streaming.FILTERED + 1  # the array's own document is no chunk


async def test_a_listing_that_fails_comes_out_bare(kind):
    error = StoreError("no")

    class Unlisted(Store):
        async def list_prefix(self, prefix=""):
            yield "a/c/0"
            raise error

    case = await case_of(kind, data=np.arange(150, dtype="i4"), chunks=1)
    case.store.__class__ = Unlisted
    stream = case.array.stream_chunks(include_missing=False)
    with pytest.raises(StoreError) as caught:
        await anext(stream)
    assert caught.value is error
    assert error.__context__ is None
    with pytest.raises(StreamError, match="before its last chunk"):
        await anext(stream)


# --- going on where another stream ended


@settings(max_examples=60)
@given(st.data())
def test_two_halves_are_the_whole_wherever_it_is_cut(data):
    kind, form = data.draw(st.sampled_from(KINDS)), FORMATS[data.draw(st.sampled_from(list(FORMATS)))]
    select, _ = VIEWS[data.draw(st.sampled_from(list(VIEWS)))]
    of = data.draw(st.integers(1, 4))
    options = {
        "shard": data.draw(st.integers(0, of - 1)),
        "of": of,
        "filter": data.draw(st.sampled_from([None, lambda coords: sum(coords) % 3])),
        "include_missing": data.draw(st.booleans()),
    }

    async def main():
        case = await case_of(kind, **form)
        view = select(case.array)
        whole = await chunks_of(view, **options)
        for cut in range(1, len(whole) + 1):
            async with view.stream_chunks(**options) as first:
                head = [await anext(first) for _ in range(cut)]
                token = first.token
            for start_after in (token, head[-1].coords):
                tail = await chunks_of(view, start_after=start_after, **options)
                assert_same([*head, *tail], whole)

    asyncio.run(main())


async def test_tokens_go_on_from_tokens_and_through_other_stores(kind, form):
    case, other = await case_of(kind, **form), await case_of("blocking", **form)
    places, got, token = await coords_of(case.array), [], None
    while len(got) < len(places):
        source = (case if len(got) % 2 else other).array
        async with source.stream_chunks(start_after=token) as stream:
            got.append((await anext(stream)).coords)
            token = stream.token
    assert got == places
    assert await coords_of(case.array, start_after=token) == []


async def test_nothing_of_what_went_before_is_fetched(kind, form):
    case = await case_of(kind, **form)
    places = await coords_of(case.array)
    case.store.asked.clear()
    await chunks_of(case.array, start_after=places[len(places) // 2])
    assert {*case.store.asked} == {case.key(coords) for coords in places[len(places) // 2 + 1 :]}


async def test_tokens_of_other_streams_are_refused(kind):
    case = await case_of(kind, **FORMATS["v3"])
    array = case.array
    other = await azarr.create_array(case.store, "b", shape=array.shape, dtype="i4", chunks=(2, 3))
    coarse = await azarr.create_array(MemoryStore(), "a", shape=array.shape, dtype="i4", chunks=(3, 2))
    sharded = await azarr.create_array(MemoryStore(), "a", shape=array.shape, dtype="i4", chunks=(2, 3), shards=(4, 6))
    turned = await azarr.create_array(MemoryStore(), "a", shape=array.shape, dtype="i4", chunks=[[9, 9], [11, 11]])
    uneven = await azarr.create_array(MemoryStore(), "a", shape=array.shape, dtype="i4", chunks=[[9, 9], [11, 10, 1]])
    longer = await azarr.create_array(MemoryStore(), "a", shape=(ROWS + 1, COLUMNS), dtype="i4", chunks=(2, 3))
    streams = {}
    for view in (
        array,
        other,
        coarse,
        sharded,
        turned,
        uneven,
        longer,
        *(select(array) for name, (select, _) in VIEWS.items() if name != "whole"),
    ):
        for share in ({}, {"shard": 0, "of": 1}, {"shard": 1, "of": 2}):
            streams[view, *share.values()] = view.stream_chunks(**share)
    assert len({stream.fingerprint for stream in streams.values()}) == len(streams)
    token = streams[array,].fingerprint + ":0,0"
    assert await anext(array.stream_chunks(start_after=token))
    for view, *share in streams:
        if (view, *share) != (array,):
            with pytest.raises(StreamError, match="token is that of a stream of other chunks"):
                view.stream_chunks(start_after=token, **dict(zip(("shard", "of"), share, strict=False)))


async def test_the_fingerprint_is_that_of_the_chunks_and_not_of_how_they_are_had(kind):
    one, two = await case_of(kind, **FORMATS["v3"]), await case_of("blocking", **FORMATS["v3"])
    same = [
        one.array.stream_chunks(),
        two.array.stream_chunks(ordered=False, concurrency=3, metadata=True, filter=bool, include_missing=False),
        two.array[:].stream_chunks(start_after=(0, 0), timeout=None, on_error="skip"),
        one.array[...].map_chunks(abs),
    ]
    assert len({stream.fingerprint for stream in same}) == 1


@pytest.mark.parametrize("place", [(0, 8), (9, 0), (-1, 0), (1,), (), (1, 1, 1)])
@pytest.mark.parametrize("view", ["whole", "points", "row"])
async def test_a_place_where_no_chunk_is_is_refused(kind, place, view):
    array = VIEWS[view][0]((await case_of(kind, **FORMATS["v3"])).array)
    with pytest.raises(SelectionError, match="not the place of a chunk of this stream"):
        array.stream_chunks(start_after=place)
    token = f"{array.stream_chunks().fingerprint}:{','.join(map(str, place))}"
    with pytest.raises((SelectionError, StreamError)):
        array.stream_chunks(start_after=token)


@pytest.mark.parametrize(
    "token", ["", ":", "0,0", "nonsense", "{}", "{}:x", "{}:0,", "{}:0,0,0", "{}:99999999999999999999,0", "{}:" + "9" * 5000]
)
async def test_what_is_no_token_is_refused(token):
    array = (await case_of("blocking", **FORMATS["v3"])).array
    with pytest.raises((StreamError, SelectionError)):
        array.stream_chunks(start_after=token.format(array.stream_chunks().fingerprint))


async def test_a_place_in_another_share_is_refused():
    array = (await case_of("blocking", **FORMATS["v3"])).array
    with pytest.raises(SelectionError, match="not the place of a chunk of this stream"):
        array.stream_chunks(start_after=(8, 0), shard=0, of=2)


async def test_an_unordered_stream_has_no_place_to_go_on_from(kind):
    array = (await case_of(kind, **FORMATS["v3"])).array
    with pytest.raises(ValueError, match="ordered"):
        array.stream_chunks(ordered=False, start_after=(0, 0))
    async with array.stream_chunks(ordered=False) as stream:
        await anext(stream)
        with pytest.raises(StreamError, match="ordered=True"):
            _ = stream.token
    stream = array.stream_chunks()
    with pytest.raises(StreamError, match="from its first chunk on"):
        _ = stream.token


async def test_a_scalar_array_and_numpy_integers(kind):
    case = await case_of(kind, data=np.array(7, "i4"), chunks=())
    async with case.array.stream_chunks() as stream:
        assert (await anext(stream)).data == 7
        assert await coords_of(case.array, start_after=stream.token) == []
    assert await coords_of(case.array, start_after=()) == []
    array = (await case_of(kind, **FORMATS["v3"])).array
    assert await coords_of(array, start_after=np.array([8, 6])) == [(8, 7)]
    assert await coords_of(array, start_after=[8, 6]) == [(8, 7)]


# --- shares


def units(array, places):
    counts = array.source.chunks_per_unit
    return {tuple(index // count for index, count in zip(coords, counts, strict=True)) for coords in places}


@settings(max_examples=60)
@given(st.data())
def test_shares_are_everything_and_have_nothing_in_common(data):
    kind = data.draw(st.sampled_from(KINDS))
    ndim = data.draw(st.integers(0, 3))
    chunks = tuple(data.draw(st.integers(1, 3)) for _ in range(ndim))
    factors = tuple(data.draw(st.integers(1, 3)) for _ in range(ndim))
    shape = tuple(data.draw(st.integers(0, 9)) for _ in range(ndim))
    shards = (
        data.draw(st.sampled_from([None, tuple(chunk * factor for chunk, factor in zip(chunks, factors, strict=True))])) if ndim else None
    )
    of, ordered = data.draw(st.integers(1, 12)), data.draw(st.booleans())
    keys = [data.draw(st.slices(length)) for length in shape]
    points = data.draw(st.booleans()) and 0 not in shape
    numbers = [data.draw(st.lists(st.integers(0, length - 1), min_size=7, max_size=7)) for length in shape] if points else []

    async def main():
        case = await case_of(kind, data=np.ones(shape, "i4"), chunks=chunks, shards=shards)
        array = case.array
        view = array.vindex[tuple(np.array(each) for each in numbers)] if points else array[tuple(keys)]
        whole = await coords_of(view)
        assert whole == sorted(whole)
        shares = [await coords_of(view, shard=number, of=of, ordered=ordered) for number in range(of)]
        assert sorted(itertools.chain.from_iterable(shares)) == whole
        each = [units(array, share) for share in shares]
        assert sum(map(len, each)) == len(units(array, whole)), "a unit is split"
        assert max(map(len, each)) - min(map(len, each)) <= 1
        # shares lie one after the other
        assert [unit for share in each for unit in sorted(share)] == sorted(units(array, whole))
        if ordered and (shards is None or ndim < 3):
            assert all(share == sorted(share) for share in shares)

    asyncio.run(main())


async def test_more_shares_than_units_leave_some_empty(kind):
    array = (await case_of(kind, data=np.ones((4, 4), "i4"), chunks=(2, 2), shards=(4, 4))).array
    shares = [await coords_of(array, shard=number, of=5) for number in range(5)]
    assert sorted(map(len, shares)) == [0, 0, 0, 0, 4]


# --- map_chunks


async def test_functions_are_applied_in_the_workers(kind, form):
    engine = Engine(executor=(executor := ThreadExecutor(2)))
    case, names = await case_of(kind, engine=engine, **form), set()

    def double(data):
        names.add(threading.current_thread().name)
        return data * 2

    async with case.array[3:, ::-1].map_chunks(double) as stream:
        async for chunk in stream:
            np.testing.assert_array_equal(chunk.data, DATA[3:, ::-1][chunk.region] * 2)
    assert names <= {"azarr-0", "azarr-1"}
    assert names
    await engine.aclose()
    executor.join()


class PlainCallable:
    def __call__(self, data):
        return int(data.sum())


class AsyncCallable:
    async def __call__(self, data):
        await asyncio.sleep(0)
        return int(data.sum())

    async def method(self, data, *, factor=1):
        await asyncio.sleep(0)
        return int(data.sum()) * factor


async def total(data, factor=1):
    await asyncio.sleep(0)
    return int(data.sum()) * factor


FUNCTIONS = {
    "function": np.sum,
    "partial": functools.partial(np.sum, axis=None),
    "callable object": PlainCallable(),
    "lambda": lambda data: data.sum(),
    "async": total,
    "async partial": functools.partial(total, factor=1),
    "async callable object": AsyncCallable(),
    "async method": AsyncCallable().method,
    "async partial of a method": functools.partial(AsyncCallable().method, factor=1),
    "async partial of a callable object": functools.partial(AsyncCallable()),
    "async partial of a partial": functools.partial(functools.partial(AsyncCallable())),
}


@pytest.mark.parametrize("function", FUNCTIONS)
@pytest.mark.parametrize("ordered", [True, False])
async def test_anything_that_can_be_called_is_applied(kind, function, ordered):
    for form in FORMATS.values():
        array = (await case_of(kind, **form)).array
        async with array.map_chunks(FUNCTIONS[function], ordered=ordered, metadata=True) as stream:
            got = {chunk.coords: chunk async for chunk in stream}
        assert len(got) == array.nchunks
        for coords, chunk in got.items():
            assert chunk.data == DATA[array.source.region(coords)].sum()
            assert chunk.info.key == array.source.key(
                tuple(index // count for index, count in zip(coords, array.source.chunks_per_unit, strict=True))
            )


async def test_a_generator_function_gives_generators(kind):
    def rows(data):
        yield from data

    array = (await case_of(kind, **FORMATS["v3"])).array
    async with array.map_chunks(rows) as stream:
        async for chunk in stream:
            np.testing.assert_array_equal(np.stack(list(chunk.data)), DATA[chunk.region])


async def sleepy(data):
    await asyncio.sleep(3)
    return data


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize(("count", "concurrency"), [(1, 1), (12, 4), (13, 4), (9, 1), (40, 7)])
def test_functions_are_awaited_as_many_at_once_as_chunks_are_in_flight(run_virtual, kind, count, concurrency, ordered):
    async def main():
        loop = asyncio.get_running_loop()
        case = await case_of(
            kind, data=np.arange(1, count + 1, dtype="i4"), chunks=1, engine=Engine(executor=InlineExecutor(), concurrency=concurrency)
        )
        if kind == "awaited":
            case.array.store._seconds = 2.0
        begin = loop.time()
        async with case.array.map_chunks(sleepy, ordered=ordered) as stream:
            assert sorted([int(chunk.data[0]) async for chunk in stream]) == list(range(1, count + 1))
        assert loop.time() - begin == pytest.approx((3.0 if kind == "blocking" else 5.0) * -(-count // concurrency), abs=1e-6)

    run_virtual(main)


def failing_at(number, error):
    def function(data):
        if number in data:
            raise error
        return data

    async def awaited(data):
        return function(data)

    return function, awaited


@pytest.mark.parametrize("awaited", [False, True])
async def test_what_a_function_raises_is_a_failure_of_the_chunk(kind, form, awaited):
    error = ValueError()
    function = failing_at(DATA[11, 8], error)[awaited]
    array = (await case_of(kind, **form)).array
    places, got, told = await coords_of(array), [], []
    (bad,) = [coords for coords in places if DATA[11, 8] in DATA[array.source.region(coords)]]
    with pytest.raises(ValueError) as caught:
        async with array.map_chunks(function) as stream:
            async for chunk in stream:
                got.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream fails
    assert caught.value is error
    assert error.__context__ is None
    assert got == places[: places.index(bad)]
    async with array.map_chunks(function, on_error=lambda *args: told.append(args)) as stream:
        assert [chunk.coords async for chunk in stream] == [coords for coords in places if coords != bad]
    assert told == [(bad, error)]
    assert stream.stats.failed == 1


@pytest.mark.parametrize("leaked", [StopIteration, StopAsyncIteration])
@pytest.mark.parametrize("awaited", [False, True])
async def test_a_function_that_raises_the_end_of_an_iteration_does_not_end_the_stream(kind, form, leaked, awaited):
    function = failing_at(DATA[11, 8], leaked())[awaited]
    array = (await case_of(kind, **form)).array
    stream, got = array.map_chunks(function), []
    with pytest.raises(RuntimeError):
        async for chunk in stream:
            got.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream fails
    assert len(got) < array.nchunks
    with pytest.raises(StreamError, match="before its last chunk"):
        await anext(stream)
    async with array.map_chunks(function, on_error="skip") as stream:
        assert len([chunk async for chunk in stream]) == array.nchunks - 1


# --- what makes no sense


@pytest.mark.parametrize(
    ("options", "kind_of_error"),
    [
        ({"concurency": 3}, TypeError),
        ({"ordered": True, "workers": 3}, TypeError),
        ({"concurrency": 0}, ValueError),
        ({"concurrency": -1}, ValueError),
        ({"memory": 0}, ValueError),
        ({"timeout": 0}, ValueError),
        ({"timeout": -1.0}, ValueError),
        ({"timeout": float("nan")}, ValueError),
        ({"on_error": "ignore"}, ValueError),
        ({"on_error": None}, ValueError),
        ({"progress": "bar"}, ValueError),
        ({"progress": 3}, ValueError),
        ({"shard": 0}, ValueError),
        ({"of": 2}, ValueError),
        ({"shard": 2, "of": 2}, ValueError),
        ({"shard": -1, "of": 2}, ValueError),
        ({"shard": 0, "of": 0}, ValueError),
        ({"start_after": (0, 0), "ordered": False}, ValueError),
        ({"start_after": (0.5, 0)}, TypeError),
        ({"start_after": ("0", "0")}, TypeError),
        ({"start_after": 3}, TypeError),
        ({"filter": 3}, TypeError),
        ({"filter": total}, TypeError),
        ({"filter": AsyncCallable()}, TypeError),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else value.__name__,
)
async def test_options_that_make_no_sense_are_refused_at_once(options, kind_of_error):
    array = (await case_of("blocking", **FORMATS["v3"])).array
    for stream in (array.stream_chunks, functools.partial(array[2:5].map_chunks, abs)):
        with pytest.raises(kind_of_error) as caught:
            stream(**options)
        assert any(name in str(caught.value) for name in options) or "start_after" in options


@pytest.mark.parametrize("function", [None, 3, "sum"])
async def test_what_cannot_be_called_cannot_be_applied(function):
    array = (await case_of("blocking", **FORMATS["v3"])).array
    with pytest.raises(TypeError, match="map_chunks"):
        array.map_chunks(function)


# --- the exact schedule


OPTIONS = {
    "metadata": {"metadata": True},
    "skip": {"on_error": "skip"},
    "without missing": {"include_missing": False},
    "progress": {"progress": lambda stats: None},
    "no timeout": {"timeout": None},
    "share": {"shard": 0, "of": 1},
    "mapped": {},
}


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize(("count", "concurrency"), [(1, 1), (5, 4), (12, 4), (40, 7), (100, 32)])
def test_streaming_takes_as_many_rounds_with_options_as_without(run_virtual, count, concurrency, options, ordered):
    async def main():
        loop = asyncio.get_running_loop()
        engine = Engine(executor=InlineExecutor(), concurrency=concurrency)
        case = await case_of("awaited", data=np.arange(1, count + 1, dtype="i4"), chunks=1, engine=engine)
        case.array.store._seconds = 2.0
        begin = loop.time()
        stream = (
            case.array.map_chunks(abs, ordered=ordered)
            if options == "mapped"
            else case.array.stream_chunks(ordered=ordered, **OPTIONS[options])
        )
        async with stream:
            arrivals = [loop.time() - begin async for _ in stream]
        assert arrivals == pytest.approx([2.0 * (1 + number // concurrency) for number in range(count)], abs=1e-6)
        assert len(case.store.asked) == count
        assert case.array.store.max_in_flight == min(count, concurrency)

    run_virtual(main)


@pytest.mark.parametrize("ordered", [True, False])
def test_what_is_left_out_takes_no_time(run_virtual, ordered):
    async def main():
        loop = asyncio.get_running_loop()
        data = np.arange(1, 5001, dtype="i4")
        data[::2] = 0
        engine = Engine(executor=InlineExecutor(), concurrency=4)
        case = await case_of("awaited", data=data, chunks=1, engine=engine)
        case.array.store._seconds = 2.0
        begin = loop.time()
        keep = {coords for coords in range(5000) if coords % 100 == 7}
        got = await coords_of(case.array, filter=lambda coords: coords[0] in keep, ordered=ordered)
        assert len(got) == 50
        assert loop.time() - begin == pytest.approx(2.0 * 13, abs=1e-6)
        begin = loop.time()
        got = await coords_of(case.array[:400], include_missing=False, ordered=ordered)
        assert len(got) == 200
        assert loop.time() - begin == pytest.approx(2.0 * 51, abs=1e-6)  # the listing, and fifty rounds
        begin = loop.time()
        got = await coords_of(case.array, shard=3, of=100, ordered=ordered)
        assert loop.time() - begin == pytest.approx(2.0 * 13, abs=1e-6)
        if ordered:
            begin = loop.time()
            assert len(await coords_of(case.array, start_after=(4987,))) == 12
            assert loop.time() - begin == pytest.approx(2.0 * 3, abs=1e-6)

    run_virtual(main)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("options", [{}, {"filter": lambda coords: coords[0] % 3 == 0}, {"include_missing": False}, {"shard": 1, "of": 2}])
async def test_the_plan_is_never_further_than_the_window(kind, ordered, options):
    """However long the consumer takes, what is asked for is what fits beside what it has."""
    engine = Engine(executor=InlineExecutor(), concurrency=4)
    case = await case_of(kind, data=np.arange(1, 601, dtype="i4"), chunks=1, engine=engine)
    async with case.array.stream_chunks(ordered=ordered, **options) as stream:
        async for _ in stream:
            for _ in range(30):
                await asyncio.sleep(0)
            assert len(case.store.asked) <= stream.stats.done + 3


# --- cancelled, closed, dropped


async def nothing(*_):
    await asyncio.sleep(0)


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("what", ["on_error", "progress", "listing", "mapped", "mapped and failing"])
def test_cancelled_at_every_suspension_with_options(cancelled_everywhere, how_cancelled, counting_executor, kind, what, ordered):
    inner = ThreadExecutor(2)

    async def prepare():
        executor = counting_executor(inner)
        case = await case_of(kind, chunks=(6, 11), shards=(12, 22) if ordered else None, engine=Engine(executor=executor, concurrency=3))
        if what in ("on_error", "mapped and failing"):
            case.store.failing = {case.key((1, 0)): StoreError("no")}
        options = {"on_error": {"on_error": nothing}, "progress": {"progress": nothing}, "listing": {"include_missing": False}}
        running = 0

        async def function(data):
            nonlocal running
            running += 1
            try:
                await asyncio.sleep(0)
                if what == "mapped and failing" and DATA[0, 0] in data:
                    raise ValueError
            finally:
                running -= 1

        async def body():
            if what.startswith("mapped"):
                stream = case.array.map_chunks(function, ordered=ordered, on_error=nothing)
            else:
                stream = case.array.stream_chunks(ordered=ordered, **options[what])
            async with stream:
                async for _ in stream:
                    await asyncio.sleep(0)

        def check():
            assert executor.running == executor.outstanding == running == 0
            assert getattr(case.array.store, "in_flight", 0) == 0

        return body(), check

    with mock.patch.object(streaming, "ASKED_FOR", 0):
        assert cancelled_everywhere(prepare, how_cancelled) >= 5
    inner.close()
    inner.join()


async def test_closing_while_a_function_is_awaited(kind):
    begun, ended, all_begun = [], [], asyncio.Event()

    async def function(data):
        begun.append(1)
        if len(begun) == 5:
            all_begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    array = (await case_of(kind, **FORMATS["v3"])).array
    stream = array.map_chunks(function, concurrency=5)
    waiting = asyncio.create_task(anext(stream))
    await all_begun.wait()
    await stream.aclose()
    assert len(ended) == len(begun) == 5
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert asyncio.all_tasks() == {asyncio.current_task()}
