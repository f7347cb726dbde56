"""The conformance suite for stores: one test for each promise of ``azarr.stores.base``."""

# ruff: noqa: S101, S301 - asserting is what a suite is for, and it unpickles only what it pickled itself
# ruff: noqa: D102 - a test's name says what it shows

from __future__ import annotations

import asyncio
import inspect
import pickle
from collections.abc import Awaitable, Callable

import pytest

from azarr.errors import StoreError
from azarr.stores.base import BlockingStore, Request, Store
from azarr.testing.sharing_suite import SharingSuite
from azarr.testing.values import ILLEGAL_KEYS, ILLEGAL_PREFIXES, PARTS, UNICODE_KEYS, VALUE, changing, collect, fill, read
from azarr.types import Buffer, ByteRange, Listing, Suffix


class StoreSuite(SharingSuite):
    """Inherit from it in a test module, and every promise that azarr relies on is tested on your store.

    ::

        class TestMyStore(StoreSuite):
            def make_store(self):
                return MyStore()

    ``make_store`` answers a new, empty store; it may be ``async``. Where a store has to be closed, override the fixture ``store``
    instead. The tests are ``async``: run them with pytest-asyncio in its mode "auto". What a store cannot do is said by the class
    attributes; the tests of the blocking face are skipped where the store has none.
    """

    keys_nest = True
    """Whether the keys ``a`` and ``a/b`` can both exist; in a file system they cannot."""

    picklable = True
    """Whether the store can be pickled; its copy then has the same values."""

    def make_store(self) -> Store | Awaitable[Store]:
        """A new, empty store of the kind that is tested."""
        raise NotImplementedError("override make_store: it answers a new, empty store")

    @pytest.fixture
    async def store(self) -> Store:
        made = self.make_store()
        return await made if inspect.isawaitable(made) else made

    @pytest.fixture
    def blocking(self, store: Store) -> BlockingStore:
        if not isinstance(store, BlockingStore):
            pytest.skip("the store has no blocking face")
        return store

    async def test_is_a_store(self, store: Store) -> None:
        assert isinstance(store, Store)
        assert repr(store)

    @pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
    async def test_get_returns_what_was_set(self, store: Store, kind: Callable[[bytes], Buffer]) -> None:
        await store.set("a/b", kind(VALUE))
        assert await read(store, "a/b") == VALUE

    async def test_value_of_other_shape_is_stored_as_its_bytes(self, store: Store) -> None:
        await store.set("k", memoryview(VALUE).cast("B", (16, 16)))
        assert await read(store, "k") == VALUE
        await store.set("k", memoryview(VALUE)[::2])
        assert await read(store, "k") == VALUE[::2]

    async def test_value_is_kept_when_the_buffer_changes_later(self, store: Store) -> None:
        buffer = bytearray(VALUE)
        await store.set("k", buffer)
        buffer[:] = bytes(256)
        assert await read(store, "k") == VALUE

    async def test_large_value(self, store: Store) -> None:
        value = VALUE * (2**14 + 1)
        await store.set("k", value)
        assert await read(store, "k") == value
        assert await read(store, "k", Suffix(300)) == value[-300:]

    async def test_missing_key_is_none(self, store: Store) -> None:
        await store.set("a/b", VALUE)
        for key in ("x", "a/x", "x/y/z", "a", "a/bb"):
            assert await store.get(key) is None
            assert await store.get(key, ByteRange(0, 1)) is None
            assert await store.get(key, Suffix(0)) is None

    async def test_empty_value_is_not_missing(self, store: Store) -> None:
        await store.set("k", b"")
        assert await read(store, "k") == b""
        assert await read(store, "k", ByteRange(0, 10)) == b""
        assert await read(store, "k", Suffix(10)) == b""
        assert await collect(store.list_prefix()) == ["k"]

    @pytest.mark.parametrize(("byte_range", "part"), PARTS)
    async def test_part_of_a_value(self, store: Store, byte_range: Request, part: bytes) -> None:
        await store.set("a/b", VALUE)
        assert await read(store, "a/b", byte_range) == part

    async def test_set_replaces_the_whole_value(self, store: Store) -> None:
        for value in (VALUE, b"short", VALUE * 2, b""):
            await store.set("a/b", value)
            assert await read(store, "a/b") == value
        assert await collect(store.list_prefix()) == ["a/b"]

    async def test_erase(self, store: Store) -> None:
        await fill(store, ["a/b", "a/c"])
        await store.erase("a/b")
        assert await store.get("a/b") is None
        assert await collect(store.list_prefix()) == ["a/c"]
        await store.set("a/b", b"again")
        assert await read(store, "a/b") == b"again"

    async def test_erase_of_a_missing_key_is_fine(self, store: Store) -> None:
        await store.set("a/b", VALUE)
        for key in ("x", "a/x", "x/y/z", "a"):
            await store.erase(key)
        assert await collect(store.list_prefix()) == ["a/b"]

    async def test_list_prefix(self, store: Store) -> None:
        keys = ["a/b", "a/c/d", "a/c/e/f", "ab/c", "z"]
        assert await collect(store.list_prefix()) == []
        await fill(store, keys)
        assert await collect(store.list_prefix()) == keys
        assert await collect(store.list_prefix("a/")) == ["a/b", "a/c/d", "a/c/e/f"]
        assert await collect(store.list_prefix("a/c/")) == ["a/c/d", "a/c/e/f"]
        assert await collect(store.list_prefix("a/b/")) == []
        assert await collect(store.list_prefix("missing/")) == []

    async def test_list_prefix_may_be_left_early(self, store: Store) -> None:
        await fill(store, [f"a/{i}" for i in range(10)])
        async for key in store.list_prefix("a/"):
            assert key.startswith("a/")
            break
        assert len(await collect(store.list_prefix())) == 10

    async def test_list_dir(self, store: Store) -> None:
        assert await store.list_dir() == Listing((), ())
        await fill(store, ["zarr.json", "a/zarr.json", "a/c/0/0", "a/c/0/1", "a-b/x", "a/10", "a/9", "B"])
        assert await store.list_dir() == Listing(("B", "zarr.json"), ("a-b/", "a/"))
        assert await store.list_dir("a/") == Listing(("a/10", "a/9", "a/zarr.json"), ("a/c/",))
        assert await store.list_dir("a/c/") == Listing((), ("a/c/0/",))
        assert await store.list_dir("a/c/0/") == Listing(("a/c/0/0", "a/c/0/1"), ())
        assert await store.list_dir("missing/") == Listing((), ())
        assert await store.list_dir("zarr.json/") == Listing((), ())

    async def test_erase_prefix(self, store: Store) -> None:
        await fill(store, ["a/b", "a/c/d", "a/c/e/f", "ab/c", "z"])
        await store.erase_prefix("missing/")
        await store.erase_prefix("z/")
        await store.erase_prefix("a/c/")
        assert await collect(store.list_prefix()) == ["a/b", "ab/c", "z"]
        await store.erase_prefix("a/")
        assert await store.list_dir() == Listing(("z",), ("ab/",))
        assert await store.get("a/b") is None
        await store.set("a/c/d", b"again")
        assert await read(store, "a/c/d") == b"again"

    async def test_erase_prefix_of_everything(self, store: Store) -> None:
        await fill(store, ["a/b", "ab/c", "z"])
        await store.erase_prefix("")
        assert await collect(store.list_prefix()) == []
        assert await store.list_dir() == Listing((), ())
        await store.set("a/b", VALUE)
        assert await read(store, "a/b") == VALUE

    async def test_keys_that_begin_alike(self, store: Store) -> None:
        if not self.keys_nest:
            pytest.skip("in this store a key cannot be the beginning of another key's path")
        keys = ["a", "a/b", "a/b/c", "ab"]
        await fill(store, keys)
        assert [await read(store, key) for key in keys] == [key.encode() for key in keys]
        assert await store.list_dir() == Listing(("a", "ab"), ("a/",))
        assert await store.list_dir("a/") == Listing(("a/b",), ("a/b/",))
        await store.erase_prefix("a/")
        assert await collect(store.list_prefix()) == ["a", "ab"]

    async def test_key_above_or_below_another_is_stored_or_refused(self, store: Store) -> None:
        await store.set("a/b", VALUE)
        for key in ("a", "a/b/c"):
            try:
                await store.set(key, b"nested")
            except StoreError:
                assert await store.get(key) is None
            else:
                assert await read(store, key) == b"nested"
        assert await read(store, "a/b") == VALUE

    @pytest.mark.parametrize("key", UNICODE_KEYS)
    async def test_unusual_key(self, store: Store, key: str) -> None:
        await fill(store, [*UNICODE_KEYS, f"below/{key}"])
        assert await read(store, key) == key.encode()
        assert await read(store, f"below/{key}") == f"below/{key}".encode()
        assert await collect(store.list_prefix("below/")) == [f"below/{key}"]
        await store.erase(key)
        assert await store.get(key) is None
        assert await collect(store.list_prefix()) == sorted({*UNICODE_KEYS, f"below/{key}"} - {key})

    @pytest.mark.parametrize("key", ILLEGAL_KEYS)
    async def test_illegal_key_is_refused(self, store: Store, key: str) -> None:
        for request in (store.get(key), store.get(key, ByteRange(0, 1)), store.set(key, VALUE), store.erase(key)):
            with pytest.raises(StoreError):
                await request
        if isinstance(store, BlockingStore):
            calls: list[Callable[[], object]] = [
                lambda: store.get_blocking(key),
                lambda: store.get_into(key, memoryview(bytearray(1))),
                lambda: store.set_blocking(key, VALUE),
                lambda: store.erase_blocking(key),
            ]
            for call in calls:
                with pytest.raises(StoreError):
                    call()
        assert await collect(store.list_prefix()) == []

    @pytest.mark.parametrize("prefix", ILLEGAL_PREFIXES)
    async def test_illegal_prefix_is_refused(self, store: Store, prefix: str) -> None:
        await store.set("a/b", VALUE)
        for request in (store.erase_prefix(prefix), store.list_dir(prefix)):
            with pytest.raises(StoreError):
                await request
        with pytest.raises(StoreError):
            await collect(store.list_prefix(prefix))
        assert await collect(store.list_prefix()) == ["a/b"]

    async def test_many_concurrent_sets(self, store: Store) -> None:
        keys = sorted(f"c/{i % 7}/{i}" for i in range(200))
        await asyncio.gather(*(store.set(key, key.encode()) for key in keys))
        assert await collect(store.list_prefix()) == keys
        assert await asyncio.gather(*(read(store, key) for key in keys)) == [key.encode() for key in keys]

    async def test_readers_see_one_of_the_values_never_a_mixture(self, store: Store) -> None:
        values = [bytes([i]) * (10_000 + i) for i in range(4)]
        await store.set("k", values[0])

        async def write(value: bytes) -> None:
            for _ in range(10):
                await store.set("k", value)

        async def watch() -> None:
            for _ in range(30):
                assert await read(store, "k") in values

        await asyncio.gather(watch(), watch(), *(write(value) for value in values))
        assert await read(store, "k") in values

    async def test_serves_one_event_loop_after_another(self, store: Store) -> None:
        async def visit(i: int) -> None:
            await store.set(f"a/{i}", VALUE)
            assert await read(store, "a/0") == VALUE
            assert len(await collect(store.list_prefix("a/"))) == i + 1

        def visits() -> None:
            for i in range(3):
                asyncio.run(visit(i))

        await asyncio.to_thread(visits)
        assert len(await collect(store.list_prefix())) == 3

    async def test_serves_event_loops_in_two_threads(self, store: Store) -> None:
        async def visit(name: str) -> None:
            keys = [f"{name}/{i}" for i in range(30)]
            await asyncio.gather(*(store.set(key, key.encode()) for key in keys))
            assert await asyncio.gather(*(read(store, key) for key in keys)) == [key.encode() for key in keys]

        await asyncio.gather(*(asyncio.to_thread(asyncio.run, visit(name)) for name in ("a", "b")))
        assert len(await collect(store.list_prefix())) == 60

    async def test_pickled_copy_has_the_values(self, store: Store) -> None:
        if not self.picklable:
            pytest.skip("this store cannot be pickled")
        await store.set("a/b", VALUE)
        copy = pickle.loads(pickle.dumps(store))
        assert type(copy) is type(store)
        assert await read(copy, "a/b") == VALUE
        await copy.set("a/c", b"new")
        assert await read(copy, "a/c") == b"new"

    @pytest.mark.parametrize(("byte_range", "part"), PARTS)
    async def test_blocking_get(self, blocking: BlockingStore, byte_range: Request, part: bytes) -> None:
        scratch = memoryview(bytearray(1000))
        blocking.set_blocking("a/b", VALUE)
        for reserve in (None, lambda _: scratch):
            value = blocking.get_blocking("a/b", byte_range, reserve)
            assert value is not None
            assert bytes(value) == part

    async def test_blocking_get_reserves_enough(self, blocking: BlockingStore) -> None:
        blocking.set_blocking("k", VALUE)
        assert bytes(blocking.get_blocking("k", None, lambda nbytes: memoryview(bytearray(nbytes))) or b"") == VALUE

    async def test_blocking_get_of_a_missing_key_is_none(self, blocking: BlockingStore) -> None:
        blocking.set_blocking("a/b", VALUE)
        for key in ("x", "a/x", "x/y", "a"):
            assert blocking.get_blocking(key) is None
            assert blocking.get_blocking(key, Suffix(0), lambda nbytes: memoryview(bytearray(nbytes))) is None

    @pytest.mark.parametrize(("nbytes", "answer"), [(256, 256), (300, 256), (257, 256), (255, 256), (100, 101), (0, 1)])
    async def test_get_into(self, blocking: BlockingStore, nbytes: int, answer: int) -> None:
        blocking.set_blocking("a/b", VALUE)
        out = memoryview(bytearray(b"\xee" * nbytes))
        assert blocking.get_into("a/b", out) == answer
        if answer <= nbytes:
            assert out[:answer] == VALUE
            assert out[answer:] == b"\xee" * (nbytes - answer)

    async def test_get_into_of_a_missing_key_is_none(self, blocking: BlockingStore) -> None:
        blocking.set_blocking("a/b", VALUE)
        for key in ("x", "a/x", "x/y", "a"):
            for nbytes in (0, 10):
                out = memoryview(bytearray(nbytes))
                assert blocking.get_into(key, out) is None
                assert out == bytes(nbytes)

    async def test_get_into_of_an_empty_value(self, blocking: BlockingStore) -> None:
        blocking.set_blocking("k", b"")
        assert blocking.get_into("k", memoryview(bytearray(5))) == 0
        assert blocking.get_into("k", memoryview(bytearray())) == 0

    async def test_get_each(self, blocking: BlockingStore) -> None:
        for name, value in (("0", b"ab"), ("1", b""), ("10", VALUE)):
            blocking.set_blocking(f"a/{name}", value)
        values = blocking.get_each("a/", ["1", "x", "0", "10"], lambda nbytes: memoryview(bytearray(nbytes)))
        assert [None if value is None else bytes(value) for value in values] == [b"", None, b"ab", VALUE]

    @pytest.mark.parametrize(("nbytes", "answer"), [(500, 5), (261, 5), (260, 4), (5, 4), (4, 2), (2, 2), (0, 0)])
    async def test_get_joined(self, blocking: BlockingStore, nbytes: int, answer: int) -> None:
        for name, value in (("0", b"ab"), ("1", b""), ("2", b"cde"), ("10", VALUE)):
            blocking.set_blocking(f"a/{name}", value)
        out = memoryview(bytearray(nbytes))
        expected = (2, None, 3, 0, 256)[:answer]
        assert blocking.get_joined("a/", ["0", "x", "2", "1", "10"], out) == list(expected)
        total = sum(size or 0 for size in expected)
        assert out[:total] == (b"abcde" + VALUE)[:total]

    async def test_both_faces_show_the_same_values(self, store: Store, blocking: BlockingStore) -> None:
        await store.set("a", VALUE)
        assert bytes(blocking.get_blocking("a") or b"") == VALUE
        blocking.set_blocking("b", memoryview(VALUE))
        assert await read(store, "b") == VALUE
        blocking.erase_blocking("a")
        blocking.erase_blocking("missing")
        assert await store.get("a") is None
        assert await collect(store.list_prefix()) == ["b"]

    async def test_blocking_face_serves_several_threads(self, blocking: BlockingStore) -> None:
        def work(name: str) -> None:
            out = memoryview(bytearray(100))
            for i in range(50):
                blocking.set_blocking(f"{name}/{i}", name.encode())
                blocking.set_blocking("shared", name.encode() * 50)
                assert blocking.get_into(f"{name}/{i}", out) == len(name)
                assert bytes(blocking.get_blocking("shared") or b"") in {b"t0" * 50, b"t1" * 50, b"t2" * 50}
                blocking.erase_blocking(f"{name}/{i - 1}" if i else "missing")

        await asyncio.gather(*(asyncio.to_thread(work, f"t{i}") for i in range(3)))
        assert [bytes(blocking.get_blocking(f"t{i}/49") or b"") for i in range(3)] == [b"t0", b"t1", b"t2"]

    async def test_update_blocking(self, blocking: BlockingStore) -> None:
        for change in (None, b"1"), (b"1", b"2" * 1000), (b"2" * 1000, b""), (b"", None), (None, None), (None, b"3"):
            blocking.update_blocking("a/b", changing(*change))
            found = blocking.get_blocking("a/b")
            assert (None if found is None else bytes(found)) == change[1]

    async def test_update_blocking_that_fails_changes_nothing(self, blocking: BlockingStore) -> None:
        def fail(_: Buffer | None) -> Buffer | None:
            raise ZeroDivisionError

        for key in ("a/b", "missing"):
            blocking.set_blocking("a/b", VALUE)
            with pytest.raises(ZeroDivisionError):
                blocking.update_blocking(key, fail)
        assert bytes(blocking.get_blocking("a/b") or b"") == VALUE
        assert blocking.get_blocking("missing") is None
        blocking.update_blocking("a/b", changing(VALUE, b"1"))
