from __future__ import annotations

import asyncio
import pickle

import pytest

import azarr
from azarr.errors import PreconditionFailedError, StoreError
from azarr.locks import locks_of
from azarr.stores import (
    BlockingStore,
    ConditionalStore,
    LatencyStore,
    ListableStore,
    LocalStore,
    LockingStore,
    MemoryStore,
    OverlayStore,
    PrefixStore,
    ReadOnlyStore,
    WritableStore,
)
from azarr.stores.overlay import ERASED
from azarr.testing import StoreSuite
from azarr.testing.values import PARTS, VALUE, collect, fill, read
from azarr.types import ByteRange, Listing, Suffix


class TestOverlayInMemory(StoreSuite):
    def make_store(self):
        return OverlayStore(MemoryStore(), MemoryStore())


class TestOverlayOfFiles(StoreSuite):
    keys_nest = False

    @pytest.fixture
    def store(self, tmp_path):
        return OverlayStore(LocalStore(tmp_path / "above", durability="none"), ReadOnlyStore(LocalStore(tmp_path / "below")))


class TestOverlayOnLateMemory(StoreSuite):
    def make_store(self):
        return OverlayStore(LatencyStore(MemoryStore(), 0.0, jitter=1e-4, seed=1), LatencyStore(MemoryStore(), 0.0))


class TestOverlayInMemoryOnLateMemory(StoreSuite):
    def make_store(self):
        return OverlayStore(MemoryStore(), LatencyStore(MemoryStore(), 0.0))


class TestOverlayWhereAllIsErased(StoreSuite):
    """All the keys that the suite writes were there once."""

    keys_nest = True

    @pytest.fixture
    async def store(self):
        below = MemoryStore()
        await fill(below, ["a", "a/b", "a/c", "k", "z", "ab/c", "zarr.json", "a/c/d", "a/0", "b", "with space"])
        store = OverlayStore(MemoryStore(), below)
        await store.erase_prefix("")
        return store

    test_pickled_copy_has_the_values = None


@pytest.fixture(params=["blocking", "late"])
def pair(request):
    """A store, with what is above and below it."""
    above, below = MemoryStore(), MemoryStore({"a/b": b"below", "a/c": VALUE, "d": b"d"})
    late = request.param == "late"
    return OverlayStore(LatencyStore(above, 0.0) if late else above, LatencyStore(below, 0.0) if late else below), above, below


async def test_what_is_below_shines_through(pair):
    store, above, below = pair
    assert await read(store, "a/b") == b"below"
    for byte_range, part in PARTS:
        assert await read(store, "a/c", byte_range) == part
    assert await collect(store.list_prefix("a/")) == ["a/b", "a/c"]
    assert await store.list_dir() == Listing(("d",), ("a/",))
    await store.set("a/b", b"above")
    await store.set("e/f", b"new")
    assert await read(store, "a/b") == b"above"
    assert await collect(store.list_prefix()) == ["a/b", "a/c", "d", "e/f"]
    assert await store.list_dir() == Listing(("d",), ("a/", "e/"))
    assert await collect(above.list_prefix()) == ["a/b", "e/f"]
    assert below.get_blocking("a/b") == b"below"


async def test_what_is_erased_is_hidden(pair):
    store, above, below = pair
    await store.set("a/b", b"above")
    for key in ("a/b", "a/c", "x"):
        await store.erase(key)
    for key in ("a/b", "a/c"):
        assert await store.get(key) is None
        for part in (ByteRange(0, 3), ByteRange(3, 3), ByteRange(500), Suffix(0), Suffix(500)):
            assert await store.get(key, part) is None
        assert await store.get_versioned(key) == (None, None)
        assert await store.get_versioned(key, ByteRange(1, 2)) == (None, None)
    assert await collect(store.list_prefix()) == ["d"]
    assert await store.list_dir() == Listing(("d",), ())
    assert await store.list_dir("a/") == Listing((), ())
    assert above.get_blocking("a/b") == ERASED
    assert await collect(above.list_prefix()) == ["a/b", "a/c"]
    assert await collect(below.list_prefix()) == ["a/b", "a/c", "d"]
    await store.set("a/b", b"again")
    assert await read(store, "a/b") == b"again"
    assert await store.list_dir("a/") == Listing(("a/b",), ())


async def test_what_is_not_below_is_just_erased(pair):
    store, above, _ = pair
    await store.set("x", b"1")
    await store.erase("x")
    assert await collect(above.list_prefix()) == []
    await fill(store, ["x/1", "x/2"])
    await store.erase_prefix("x/")
    assert await collect(above.list_prefix()) == []


async def test_a_prefix_is_erased_in_both(pair):
    store, above, _ = pair
    await fill(store, ["a/b", "a/new", "ab"])
    await store.erase_prefix("a/")
    assert await collect(store.list_prefix()) == ["ab", "d"]
    assert await collect(above.list_prefix()) == ["a/b", "a/c", "ab"]
    await store.set("a/new", b"1")
    assert await store.list_dir() == Listing(("ab", "d"), ("a/",))


async def test_conditional_writes_know_where_a_value_is(pair):
    store, above, _ = pair
    _, beneath = await store.get_versioned("d")
    with pytest.raises(PreconditionFailedError):
        await store.set_if("d", b"x", None)
    await store.set_if("d", b"first", beneath)
    with pytest.raises(PreconditionFailedError):
        await store.set_if("d", b"second", beneath)
    value, version = await store.get_versioned("d")
    assert value == b"first"
    await store.erase_if("d", version)
    assert above.get_blocking("d") == ERASED
    for stale in (beneath, version):
        with pytest.raises(PreconditionFailedError):
            await store.set_if("d", b"third", stale)
        with pytest.raises(PreconditionFailedError):
            await store.erase_if("d", stale)
    await store.set_if("d", b"third", None)
    assert await read(store, "d") == b"third"
    _, beneath = await store.get_versioned("a/b", ByteRange(0, 1))
    await store.erase_if("a/b", beneath)
    assert await store.get("a/b") is None
    with pytest.raises(PreconditionFailedError):
        await store.erase_if("a/b", beneath)


async def test_an_erasure_is_not_lost_by_who_has_read_before(pair):
    store, _, _ = pair
    _, beneath = await store.get_versioned("d")
    await store.erase("d")
    with pytest.raises(PreconditionFailedError):
        await store.set_if("d", b"x", beneath)


async def test_the_mark_cannot_be_written(pair):
    store, _, _ = pair
    for attempt in (store.set("x", ERASED), store.set("x", memoryview(ERASED)), store.set_if("x", ERASED, None)):
        with pytest.raises(StoreError, match="this very value stands for an erased key"):
            await attempt
    for almost in (ERASED[:-1], ERASED + b"\n", ERASED[1:]):
        await store.set("x", almost)
        assert await read(store, "x") == almost
        assert await read(store, "x", ByteRange(0, 5)) == almost[:5]
        assert await read(store, "x", ByteRange(400)) == b""
        assert (await store.get_versioned("x", ByteRange(0, 5))).value == almost[:5]
        assert "x" in (await store.list_dir()).keys


def test_blocking_face_of_what_is_below():
    above, below = MemoryStore(), MemoryStore({"a": VALUE, "b": b"b"})
    store = OverlayStore(above, below)
    out = memoryview(bytearray(256))
    assert store.get_into("a", out) == 256
    assert out == VALUE
    store.erase_blocking("a")
    for nbytes in (0, 10, len(ERASED), 256):
        assert store.get_into("a", memoryview(bytearray(nbytes))) is None
    assert store.get_blocking("a") is None
    assert store.get_blocking("a", ByteRange(0, 4)) is None
    assert [each if each is None else bytes(each) for each in store.get_each("", ["a", "b"], lambda n: memoryview(bytearray(n)))] == [
        None,
        b"b",
    ]
    assert store.get_joined("", ["a", "b"], out) == [None, 1]
    with pytest.raises(StoreError, match="stands for an erased key"):
        store.set_blocking("a", ERASED)
    store.set_blocking("a", b"x" * 300)
    assert store.get_into("a", memoryview(bytearray(10))) == 11


def test_blocking_updates_see_what_is_below():
    above, below = MemoryStore(), MemoryStore({"a": b"1"})
    store = OverlayStore(above, below)
    store.update_blocking("a", lambda old: bytes(old) + b"2")
    assert (store.get_blocking("a"), below.get_blocking("a")) == (b"12", b"1")
    for expected in (b"12", None):

        def change(old, expected=expected):
            assert old == expected

        store.update_blocking("a", change)
        assert store.get_blocking("a") is None
        assert above.get_blocking("a") == ERASED
    store.update_blocking("a", lambda old: b"3" if old is None else b"wrong")
    assert store.get_blocking("a") == b"3"
    store.update_blocking("x", lambda old: None)
    assert above.get_blocking("x") is None
    with pytest.raises(StoreError, match="stands for an erased key"):
        store.update_blocking("x", lambda old: ERASED)


def test_can_do_what_both_can(tmp_path):
    memory, late, readonly, files = MemoryStore(), LatencyStore(MemoryStore(), 0.0), ReadOnlyStore(MemoryStore()), LocalStore(tmp_path)

    class Unlisted:
        async def get(self, key, byte_range=None):
            return None

    assert isinstance(OverlayStore(memory, readonly), BlockingStore)
    assert not isinstance(OverlayStore(memory, late), BlockingStore)
    assert not isinstance(OverlayStore(late, memory), BlockingStore)
    assert isinstance(OverlayStore(late, Unlisted()), WritableStore | ConditionalStore)
    assert not isinstance(OverlayStore(late, Unlisted()), ListableStore)
    assert not isinstance(OverlayStore(readonly, memory), WritableStore | ConditionalStore)
    assert not isinstance(OverlayStore(files, memory), LockingStore)


async def test_what_cannot_be_listed_is_not_erased_by_prefix():
    class Unlisted:
        async def get(self, key, byte_range=None):
            return None

    with pytest.raises(StoreError, match="cannot be listed"):
        await OverlayStore(MemoryStore(), Unlisted()).erase_prefix("a/")


async def test_arrays_are_changed_without_touching_what_is_below(pair):
    store, _, below = pair
    original = await azarr.create_array(below, "x", shape=(8, 8), chunks=(2, 2), dtype="i4")
    await original.write(1)
    before = below._values.copy()
    array = await azarr.open_array(store, "x")
    await asyncio.gather(*(array[row, column].write(row * 8 + column) for row in range(4) for column in range(4)))
    await array[4:6].write(0)
    assert (await array[:4, :4].read()).tolist() == [[row * 8 + column for column in range(4)] for row in range(4)]
    assert (await array[4:].read()).tolist() == [[0] * 8] * 2 + [[1] * 8] * 2
    await array.append([[2] * 8])
    assert (await array[8].read()).tolist() == [2] * 8
    await azarr.create_group(store, "g")
    group = await azarr.open_group(store, "g")
    await group.create_array("y", shape=1, dtype="i1")
    await array.resize((2, 2))
    assert below._values == before
    await azarr.create_array(store, "x", shape=3, dtype="i1", overwrite=True)
    assert (await azarr.load(store, "x")).tolist() == [0, 0, 0]
    assert (await original.read() == 1).all()
    assert below._values == before


async def test_writers_through_two_overlays_of_the_same_stores_lose_nothing():
    above, below = MemoryStore(), MemoryStore()
    await azarr.create_array(below, shape=40, chunks=40, dtype="i4")
    arrays = [await azarr.open_array(OverlayStore(above, below)) for _ in range(2)]
    await asyncio.gather(*(arrays[i % 2][i].write(i) for i in range(40)))
    assert (await arrays[0].read()).tolist() == list(range(40))


async def test_locks_are_those_of_what_is_written_to():
    above, below = MemoryStore(), MemoryStore()
    store = OverlayStore(PrefixStore(above, "p/"), below)
    locks = locks_of(above)
    assert locks_of(OverlayStore(above, below)) is locks
    async with locks_of(store).hold("a"):
        assert list(locks._queues) == ["p/a"]


async def test_chunks_of_different_overlays_are_not_mixed_up_in_a_cache():
    above = MemoryStore()
    async with azarr.Engine(cache=azarr.ChunkCache(2**20)) as engine:
        arrays = []
        for number in range(2):
            below = MemoryStore()
            await (await azarr.create_array(below, shape=2, dtype="i4")).write(number + 1)
            arrays.append(await azarr.open_array(OverlayStore(above, below), engine=engine))
        assert [(await each.read()).tolist() for each in arrays for _ in range(2)] == [[1, 1]] * 2 + [[2, 2]] * 2
        await arrays[0].write(7)
        assert [(await each.read()).tolist() for each in arrays] == [[7, 7]] * 2


async def test_stamps_tell_what_is_above_from_what_is_below(pair):
    store, _, _ = pair
    below = [await store.get_stamped("a/c", part) for part in (None, ByteRange(3, 5))]
    assert [bytes(each.value) for each in below] == [VALUE, VALUE[3:5]]
    await store.set("a/c", VALUE)
    above = [await store.get_stamped("a/c", part) for part in (None, ByteRange(3, 5))]
    assert [bytes(each.value) for each in above] == [VALUE, VALUE[3:5]]
    assert below[0].stamp == below[1].stamp != above[0].stamp == above[1].stamp
    assert None not in {below[0].stamp, above[0].stamp}
    if isinstance(store, BlockingStore):
        assert store.get_stamped_blocking("a/c") == above[0]
        assert store.get_stamped_blocking("a/b") == await store.get_stamped("a/b")
    await store.erase("a/c")
    for part in (None, ByteRange(3, 3)):
        assert (await store.get_stamped("a/c", part)).value is None
        if isinstance(store, BlockingStore):
            assert store.get_stamped_blocking("a/c", part).value is None


async def test_closes_both():
    class Closing(MemoryStore):
        closed = 0

        async def __aenter__(self):
            return self

        async def __aexit__(self, *_):
            await self.aclose()

        async def aclose(self):
            self.closed += 1

    above, below = Closing(), Closing()
    async with OverlayStore(above, below):
        assert above.closed == below.closed == 0
    assert above.closed == below.closed == 1


async def test_pickles():
    copy = pickle.loads(pickle.dumps(OverlayStore(MemoryStore({"a": b"1"}), ReadOnlyStore(MemoryStore({"b": b"2"})))))
    assert await collect(copy.list_prefix()) == ["a", "b"]
    assert repr(copy) == "OverlayStore(<MemoryStore 1 key>, below=ReadOnlyStore(<MemoryStore 1 key>))"
