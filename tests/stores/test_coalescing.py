from __future__ import annotations

import asyncio
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

import azarr
from azarr.errors import StoreError
from azarr.stores import BlockingStore, CoalescingStore, LatencyStore, LocalStore, MemoryStore, RecordingStore
from azarr.stores.base import as_conditional
from azarr.stores.merging import merge, span_of
from azarr.testing import StoreSuite
from azarr.testing.values import VALUE, read
from azarr.types import ByteRange, Span, Suffix


class TestCoalescingMemory(StoreSuite):
    def make_store(self):
        return CoalescingStore(MemoryStore())


class TestCoalescingFiles(StoreSuite):
    keys_nest = False

    @pytest.fixture
    def store(self, tmp_path):
        return CoalescingStore(LocalStore(tmp_path, durability="none"))


class TestCoalescingLateMemory(StoreSuite):
    def make_store(self):
        return CoalescingStore(LatencyStore(MemoryStore(), 0.0, jitter=1e-4, seed=1), gap=3)


async def asked_at_once(store, *requests):
    return [None if value is None else bytes(value) for value in await asyncio.gather(*(store.get(*each) for each in requests))]


def recorded(values, **options):
    inner = RecordingStore(LatencyStore(MemoryStore(values), 0.0))
    return CoalescingStore(inner, **options), inner


def gets(inner):
    return [(each.key, each.byte_range) for each in inner.requests]


async def test_neighbouring_ranges_come_with_one_request():
    store, inner = recorded({"a": VALUE}, gap=10)
    ranges = [ByteRange(100, 110), ByteRange(0, 10), ByteRange(15, 40), ByteRange(120, 300), ByteRange(20, 30)]
    assert await asked_at_once(store, *(("a", each) for each in ranges)) == [VALUE[each.start : each.stop] for each in ranges]
    assert gets(inner) == [("a", ByteRange(0, 40)), ("a", ByteRange(100, 300))]


async def test_a_request_has_at_most_so_many_bytes():
    store, inner = recorded({"a": VALUE}, most=100)
    await asked_at_once(store, *(("a", ByteRange(start, start + 30)) for start in range(0, 210, 30)))
    assert [each.stop - each.start for _, each in gets(inner)] == [90, 90, 30]
    assert await asked_at_once(store, ("a", ByteRange(0, 256))) == [VALUE]


async def test_what_is_no_closed_range_is_asked_for_alone():
    store, inner = recorded({"a": VALUE, "b": VALUE})
    requests = [("a", None), ("a", Suffix(3)), ("a", ByteRange(5)), ("a", ByteRange(0, 3)), ("b", ByteRange(3, 6)), ("c", ByteRange(0, 3))]
    assert await asked_at_once(store, *requests) == [VALUE, VALUE[-3:], VALUE[5:], VALUE[:3], VALUE[3:6], None]
    assert sorted(map(str, gets(inner))) == sorted(map(str, requests))


async def test_ranges_beyond_the_end_are_cut():
    store, inner = recorded({"a": b"12345"})
    ranges = [(0, 3), (3, 9), (7, 9), (5, 5)]
    assert await asked_at_once(store, *(("a", ByteRange(*each)) for each in ranges)) == [b"123", b"45", b"", b""]
    assert gets(inner) == [("a", ByteRange(0, 9))]


@given(
    value=st.binary(max_size=60),
    ranges=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 30)), min_size=1, max_size=12),
    gap=st.integers(0, 20),
    most=st.integers(1, 60),
)
def test_every_range_is_what_the_store_has(value, ranges, gap, most):
    async def main():
        store, _ = recorded({"a": value}, gap=gap, most=most)
        parts = [ByteRange(start, start + nbytes) for start, nbytes in ranges]
        assert await asked_at_once(store, *(("a", each) for each in parts)) == [value[each.start : each.stop] for each in parts]

    asyncio.run(main())


def test_groups_are_in_order_and_complete():
    ranges = [ByteRange(50, 60), ByteRange(0, 10), ByteRange(5, 40), ByteRange(61, 62)]
    groups = list(merge(enumerate(ranges), gap=1, most=100))
    assert [[number for number, _ in group] for group in groups] == [[1, 2], [0, 3]]
    assert [span_of(group) for group in groups] == [Span(0, 40), Span(50, 62)]


async def test_what_is_asked_for_later_is_another_request():
    store, inner = recorded({"a": VALUE})
    await store.get("a", ByteRange(0, 10))
    await store.get("a", ByteRange(10, 20))
    assert gets(inner) == [("a", ByteRange(0, 10)), ("a", ByteRange(10, 20))]


async def test_who_asks_for_the_same_waits_along(gated):
    inner = gated({"a": VALUE})
    store = CoalescingStore(inner)
    first = [asyncio.create_task(store.get("a", part)) for part in (None, ByteRange(0, 9), None)]
    await inner.until(2)
    later = [asyncio.create_task(store.get("a", part)) for part in (None, ByteRange(0, 9))]
    await asyncio.sleep(0)
    inner.opened.set()
    assert await asyncio.gather(*first, *later) == [VALUE, VALUE[:9], VALUE, VALUE, VALUE[:9]]
    assert inner.asked == [("a", None), ("a", ByteRange(0, 9))]


@pytest.mark.parametrize("write", ["set", "erase", "erase_prefix", "set_if", "erase_if"])
async def test_who_asks_after_a_write_does_not_get_what_was_there_before(write, gated):
    inner = gated({"a/b": b"old"})
    store = CoalescingStore(inner)
    old = asyncio.create_task(store.get("a/b"))
    await inner.until(1)
    version = (await store.get_versioned("a/b")).version
    arguments = {"set": ("a/b", b"new"), "set_if": ("a/b", b"new", version), "erase_if": ("a/b", version), "erase_prefix": ("a/",)}
    await getattr(store, write)(*arguments.get(write, ("a/b",)))
    new = asyncio.create_task(store.get("a/b"))
    await inner.until(2)
    inner.opened.set()
    assert [await old, await new] == [b"old", b"new" if "set" in write else None]


async def test_an_error_reaches_all_who_wait(faulty_store, complaints):
    faulty_store.failing = {"a"}
    store = CoalescingStore(faulty_store)
    outcomes = await asyncio.gather(*(store.get("a", ByteRange(i, i + 1)) for i in range(3)), store.get("b"), return_exceptions=True)
    assert [type(each) for each in outcomes] == [StoreError] * 3 + [type(None)]
    faulty_store.failing = set()
    assert await store.get("a") is None


async def test_who_leaves_disturbs_nobody(complaints, gated):
    inner = gated({"a": VALUE})
    store = CoalescingStore(inner)
    tasks = [asyncio.create_task(store.get("a", ByteRange(i, i + 1))) for i in range(3)]
    await inner.until(1)
    tasks[0].cancel()
    tasks[1].cancel()
    await asyncio.wait(tasks[:2])
    assert inner.cancelled == 0
    inner.opened.set()
    assert await tasks[2] == VALUE[2:3]
    assert inner.asked == [("a", ByteRange(0, 3))]


async def test_a_request_that_nobody_waits_for_is_cancelled(complaints, gated):
    inner = gated({"a": VALUE})
    store = CoalescingStore(inner)
    tasks = [asyncio.create_task(store.get("a", ByteRange(i, i + 1))) for i in range(3)]
    await inner.until(1)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    assert inner.cancelled == 1
    inner.opened.set()
    assert await read(store, "a", ByteRange(0, 1)) == VALUE[:1]
    assert len(inner.asked) == 2


async def test_what_is_cancelled_at_once_is_not_asked_for(complaints):
    store, inner = recorded({"a": VALUE})
    task = asyncio.create_task(store.get("a"))
    await asyncio.sleep(0)
    task.cancel()
    assert await asked_at_once(store, ("a", ByteRange(0, 1))) == [VALUE[:1]]
    assert gets(inner) == [("a", ByteRange(0, 1))]


def test_cancelled_anywhere(cancelled_everywhere, how_cancelled):
    async def prepare():
        inner = LatencyStore(MemoryStore({"a": VALUE}), 0.0)
        store = CoalescingStore(inner)

        async def work():
            assert await store.get("a", ByteRange(0, 5)) == VALUE[:5]
            assert await store.get("a") == VALUE

        def check():
            assert inner.in_flight == 0

        return work(), check

    assert cancelled_everywhere(prepare, how_cancelled) >= 2


async def test_reads_of_a_sharded_array_make_few_requests():
    inner = RecordingStore(LatencyStore(MemoryStore(), 0.0))
    array = await azarr.create_array(inner, shape=(64, 64), chunks=(8, 8), shards=(64, 64), dtype="i4", compressors=None)
    await array.write(1)
    counts = []
    for store in (inner, CoalescingStore(inner)):
        found = await azarr.open_array(store)
        inner.clear()
        columns = await asyncio.gather(*(found[:, column].read() for column in range(0, 64, 8)))
        assert all((column == 1).all() for column in columns)
        counts.append(len(inner.requests))
    assert counts[1] == 2  # the index, and all chunks
    assert counts[0] > counts[1]


async def test_parts_of_one_request_have_one_stamp():
    store, inner = recorded({"a": VALUE, "b": b"b"})
    parts = await asyncio.gather(*(store.get_stamped("a", ByteRange(i, i + 1)) for i in range(3)), store.get_stamped("b"))
    assert [bytes(part.value) for part in parts] == [VALUE[:1], VALUE[1:2], VALUE[2:3], b"b"]
    assert parts[0].stamp == parts[1].stamp == parts[2].stamp != parts[3].stamp is not None
    assert len(inner.requests) == 2
    await inner.set("a", VALUE[::-1])
    assert (await store.get_stamped("a")).stamp != parts[0].stamp
    assert await store.get_stamped("x") == (None, None)


def test_has_no_blocking_face_and_pickles():
    store = CoalescingStore(MemoryStore(), gap=1, most=2)
    assert not isinstance(store, BlockingStore)
    assert as_conditional(store) is store
    copy = pickle.loads(pickle.dumps(store))
    assert repr(copy) == "CoalescingStore(<MemoryStore 0 keys>, gap=1, most=2)"
    for options in ({"gap": -1}, {"most": 0}):
        with pytest.raises(ValueError, match="gap must not be negative"):
            CoalescingStore(MemoryStore(), **options)
