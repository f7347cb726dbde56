"""What all stores behind a network share, on a server that is an object: a kind of store in a few lines."""

from __future__ import annotations

import asyncio
import gc
import pickle
import threading
from contextlib import asynccontextmanager

import pytest

import azarr
from azarr.errors import PreconditionFailedError, StoreError, ThrottledError, TransientStoreError
from azarr.retry import NO_RETRIES, RetryPolicy
from azarr.stores.network import Condition, NetworkStore, Page
from azarr.stores.network_reader import Fetched, Found, Tag
from azarr.testing import StoreSuite
from azarr.types import ByteRange, Listing, Suffix


class Server:
    """Values, and a script of what goes wrong: ``"before"`` the request is done, or ``"after"`` it, when only the answer is lost.

    ``"twice"``: something on the way makes the request again, and hands on the second answer.
    """

    def __init__(self):
        self.values = {}
        self.faults = []
        self.requests = 0
        self.connections = self.opened = 0
        self.states = 0

    async def request(self, work):
        self.requests += 1
        fault = self.faults.pop(0) if self.faults else None
        await asyncio.sleep(0)
        if isinstance(fault, Exception):
            raise fault
        if fault == "before":
            raise ConnectionResetError
        answer = work()
        if fault == "twice":
            work()
        if fault == "after":
            raise ConnectionResetError
        return answer

    def set(self, key, value, condition, marks):
        self.check(key, condition)
        self.states += 1
        self.values[key] = bytes(value), Tag(self.states, marks)

    def erase(self, key, condition):
        self.check(key, condition)
        self.values.pop(key, None)

    def check(self, key, condition):
        if condition is not None and condition.name != (self.values[key][1].name if key in self.values else None):
            raise PreconditionFailedError("not what it was")


SERVERS = {}


class ObjectStore(NetworkStore):
    """A store of the server ``name``."""

    erased_at_once = 3

    def __init__(self, name, **options):
        super().__init__(**options)
        self.name = name

    def __repr__(self):
        return f"ObjectStore({self.name!r})"

    @asynccontextmanager
    async def _connect(self):
        server = SERVERS.setdefault(self.name, Server())
        server.connections += 1
        server.opened += 1
        try:
            yield server
        finally:
            await asyncio.sleep(0)
            server.connections -= 1

    async def _get(self, client, key, request, attempt, *, tagged):
        found = await client.request(lambda: client.values.get(key))
        if found is None:
            return None
        value, tag = found
        if isinstance(request, ByteRange):
            value = value[request.start : request.stop]
        elif isinstance(request, Suffix):
            value = value[max(0, len(value) - request.nbytes) :]
        return Fetched(value, tag if tagged else None)

    async def _find(self, client, key):
        found = await client.request(lambda: client.values.get(key))
        return None if found is None else Found(len(found[0]), found[1])

    async def _set(self, client, key, value, condition, marks):
        await client.request(lambda: client.set(key, value, condition, marks))

    async def _erase(self, client, key, condition):
        await client.request(lambda: client.erase(key, condition))

    async def _page(self, client, prefix, token, *, deep):
        def work():
            names = sorted(key for key in client.values if key.startswith(prefix))
            if not deep:
                names = sorted({prefix + name + slash for name, slash, _ in (key[len(prefix) :].partition("/") for key in names)})
            start = token or 0
            part = names[start : start + 4]
            more = start + 4 if start + 4 < len(names) else None
            return Page([n for n in part if n[-1] != "/"], [n for n in part if n[-1] == "/"], more)

        return await client.request(work)

    def _classified(self, error, key):
        return ThrottledError("slow down", key=key) if isinstance(error, BlockingIOError) else None


@pytest.fixture
def name():
    yield (name := f"server-{len(SERVERS)}")
    SERVERS.pop(name, None)


@pytest.fixture
async def store(name):
    async with ObjectStore(name, root="the/root", retry=RetryPolicy(first_delay=0.001)) as store:
        await store.get("warm")
        yield store


@pytest.fixture
def server(store, name):
    return SERVERS[name]


class TestObjectStore(StoreSuite):
    @pytest.fixture
    async def store(self, name):
        async with ObjectStore(name, root="a/b") as store:
            yield store


async def test_keys_are_below_the_root(store, server):
    await store.set("k", b"v")
    assert list(server.values) == ["the/root/k"]
    server.values["the/rootless"] = server.values["elsewhere"] = b"", Tag(0)
    assert [key async for key in store.list_prefix()] == ["k"]
    await store.erase_prefix("")
    assert set(server.values) == {"the/rootless", "elsewhere"}


@pytest.mark.parametrize("fault", ["before", "after", BlockingIOError(), TimeoutError(), EOFError(), TransientStoreError("x")], ids=repr)
async def test_every_request_is_made_again(store, server, fault):
    async def go():
        server.faults = [fault, fault]

    await store.set("k", b"first")
    await go()
    await store.set("k", b"value")
    await go()
    assert await store.get("k") == b"value"
    await go()
    found = await store.get_versioned("k")
    await go()
    await store.set_if("k", b"other", found.version)
    await go()
    assert await store.size("k") == 5
    await go()
    assert [key async for key in store.list_prefix()] == ["k"]
    await go()
    assert (await store.list_dir()).keys == ("k",)
    await go()
    await store.erase_if("k", (await store.get_versioned("k")).version)
    await go()
    await store.set_if("k", b"new", None)
    await go()
    await store.erase_prefix("")
    await go()
    await store.erase("k")
    assert await store.get("k") is None
    assert not server.faults
    assert store.stats.retries >= 20


async def test_without_retries_the_first_failure_is_told(name):
    async with ObjectStore(name, retry=NO_RETRIES) as store:
        await store.get("k")
        SERVERS[name].faults = ["before"]
        with pytest.raises(TransientStoreError, match="ConnectionResetError") as failure:
            await store.get("k")
    assert failure.value.key == "k"
    assert isinstance(failure.value.__cause__, ConnectionResetError)


async def test_errors_of_a_program_come_out_as_they_are(store, server):
    server.faults = [ZeroDivisionError()]
    with pytest.raises(ZeroDivisionError):
        await store.get("k")


async def test_a_write_that_lost_its_answer_is_not_taken_for_one_that_lost_the_race(store, server):
    server.faults = ["after"]
    await store.set_if("k", b"a", None)
    version = (await store.get_versioned("k")).version
    server.faults = ["after", "after", "before"]
    await store.set_if("k", b"b", version)
    assert await store.get("k") == b"b"


async def test_a_write_that_was_sent_twice_on_its_way_has_won(store, server):
    server.faults = ["twice"]
    await store.set_if("k", b"a", None)
    server.faults = ["twice"]
    await store.set_if("k", b"b", (await store.get_versioned("k")).version)
    assert await store.get("k") == b"b"
    assert store.stats.retries == 0


async def test_the_time_of_a_write_goes_by_its_bytes(name):
    value = memoryview(bytes(2**20)).cast("B", (1, 2**20))
    async with ObjectStore(name) as store:
        asked = []
        run = store.traffic.run
        store.traffic.run = lambda operation, key, attempt, nbytes=0: asked.append(nbytes) or run(operation, key, attempt, nbytes)
        await store.set("k", value)
        await store.set_if("other", value, None)
    assert asked == [2**20, 2**20]


async def test_a_write_that_lost_the_race_is_not_taken_for_one_that_lost_its_answer(store, server):
    await store.set_if("k", b"a", None)
    version = (await store.get_versioned("k")).version
    await store.set_if("k", b"b", version)
    server.faults = ["before"]
    with pytest.raises(PreconditionFailedError):
        await store.set_if("k", b"b", version)  # the same bytes, and yet from another writer
    server.faults = ["after"]
    with pytest.raises(PreconditionFailedError):
        await store.set_if("k", b"b", None)


async def test_a_write_that_lost_its_answer_and_was_overwritten_since(store, server):
    """Who comes next builds on it: it must not be taken for lost, and be made once more."""
    await store.set_if("k", b"0", None)
    version = (await store.get_versioned("k")).version

    class OvertakenError(ConnectionResetError):
        pass

    async def overtaken(work):
        answer = await real(work)
        server.request = real
        for text in range(60):  # others, who see what has just been written
            await store.set_if("k", b"%d" % text, (await store.get_versioned("k")).version)
        del answer
        raise OvertakenError

    real, server.request = server.request, overtaken
    await store.set_if("k", b"mine", version)
    assert await store.get("k") == b"59"


async def test_an_erasure_that_lost_its_answer(store, server):
    await store.set_if("k", b"a", None)
    server.faults = ["after"]
    await store.erase_if("k", (await store.get_versioned("k")).version)
    with pytest.raises(PreconditionFailedError):
        await store.erase_if("k", Tag("other"))


@pytest.mark.parametrize("version", ["x", 7])
async def test_versions_of_others(store, version):
    with pytest.raises(StoreError, match="no version"):
        await store.set_if("k", b"", version)
    with pytest.raises(StoreError, match="no version"):
        await store.erase_if("k", version)


async def test_read_only(name):
    async with ObjectStore(name, read_only=True) as store:
        for write in (
            store.set("k", b""),
            store.erase("k"),
            store.erase_prefix(""),
            store.set_if("k", b"", None),
            store.erase_if("k", Tag(1)),
        ):
            with pytest.raises(StoreError, match="read-only"):
                await write
        assert not store.conditional
        assert await store.get("k") is None


async def test_what_others_named_badly_is_left_out(store, server):
    for key in ("the/root/", "the/root/a//b", "the/root/../x", "the/root/a\\b", "the/root/folder/", "the/root/good"):
        server.values[key] = b"", Tag(0)
    assert [key async for key in store.list_prefix()] == ["good"]
    assert (await store.list_dir()).keys == ("good",)


async def test_what_was_not_asked_for_is_left_alone(store, server):
    await store.set("a/k", b"")
    others = ("the/rootless", "elsewhere/x", "the/root/b/k")
    for key in others:
        server.values[key] = b"", Tag(0)

    async def page(client, prefix, token, *, deep):
        return Page(list(server.values), ["the/root/a/c/", "else/"], None)

    store._page = page
    assert [key async for key in store.list_prefix("a/")] == ["a/k"]
    assert await store.list_dir("a/") == Listing(("a/k",), ("a/c/",))
    await store.erase_prefix("a/")
    assert set(server.values) == set(others)


# --- clients and loops


class Connection:
    """A context manager that is no generator."""

    def __init__(self, server):
        self.server = server

    async def __aenter__(self):
        await asyncio.sleep(0)
        self.server.opened += 1
        self.server.connections += 1
        return self.server

    async def __aexit__(self, *_):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        self.server.connections -= 1


class ConnectionStore(ObjectStore):
    def _connect(self):
        return Connection(SERVERS.setdefault(self.name, Server()))


@pytest.mark.parametrize("kind", [ObjectStore, ConnectionStore])
def test_one_store_in_one_loop_after_the_other(name, kind, caplog):
    store = kind(name)
    for number in range(20):  # loops close what was begun on them in any order
        asyncio.run(store.set(f"k{number}", b"v"))
        assert SERVERS[name].connections == 0
    assert SERVERS[name].opened == 20
    assert not caplog.records


@pytest.mark.parametrize("kind", [ObjectStore, ConnectionStore])
def test_a_store_is_closed_when_its_loop_has_gone(name, kind, caplog):
    store = kind(name)
    asyncio.run(store.get("k"))
    asyncio.run(store.aclose())
    gc.collect()
    assert SERVERS[name].connections == 0
    assert not caplog.records


def test_one_store_in_several_loops_at_once(name):
    store, barrier = ObjectStore(name), threading.Barrier(3)

    def work():
        async def main():
            await store.set(threading.current_thread().name, b"v")
            barrier.wait()
            return await store.get(threading.current_thread().name)

        assert asyncio.run(main()) == b"v"

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (SERVERS[name].opened, SERVERS[name].connections) == (3, 0)


async def test_one_client_for_many_tasks(name):
    async with ObjectStore(name) as store:
        await asyncio.gather(*(store.get(f"k{number}") for number in range(100)))
        assert SERVERS[name].opened == 1
    assert SERVERS[name].connections == 0


async def test_a_server_that_lists_what_was_not_asked_for(store, server, monkeypatch):
    """It must not be shown, and least of all erased."""
    server.values = {"the/root/a": (b"", Tag(0)), "other": (b"", Tag(0))}

    async def page(client, prefix, token, *, deep):
        return Page(["the/root/a", "other"], ["the/root/p/", "q/"], None)

    monkeypatch.setattr(store, "_page", page)
    assert [key async for key in store.list_prefix()] == ["a"]
    assert await store.list_dir() == Listing(("a",), ("p/",))
    await store.erase_prefix("")
    assert set(server.values) == {"other"}


async def test_a_server_that_lists_the_same_part_again(store, monkeypatch):
    async def page(client, prefix, token, *, deep):
        return Page(["the/root/a"], [], "again")

    monkeypatch.setattr(store, "_page", page)
    with pytest.raises(StoreError, match="again and again"):
        [key async for key in store.list_prefix()]


async def test_a_closed_store_says_so(name):
    store = ObjectStore(name)
    await store.get("k")
    await store.aclose()
    await store.aclose()
    for work in (store.get("k"), store.set("k", b""), anext(store.list_prefix())):
        with pytest.raises(StoreError, match="has been closed"):
            await work


async def test_whoever_opens_the_client_may_give_up(name):
    store = ObjectStore(name)
    gate = asyncio.Event()
    connect = store._connect

    @asynccontextmanager
    async def slowly():
        await gate.wait()
        async with connect() as client:
            yield client

    store._clients._connect = slowly
    first, second = asyncio.ensure_future(store.get("k")), asyncio.ensure_future(store.get("k"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    gate.set()
    assert await second is None
    with pytest.raises(asyncio.CancelledError):
        await first
    await store.aclose()
    assert SERVERS[name].connections == 0


async def test_a_client_that_cannot_be_opened_is_tried_again(name):
    failures = [OSError("no route"), OSError("no route")]

    class Unreachable(ObjectStore):
        @asynccontextmanager
        async def _connect(self):
            if failures:
                raise failures.pop()
            async with super()._connect() as client:
                yield client

    async with Unreachable(name, retry=RetryPolicy(first_delay=0)) as store:
        assert await store.get("k") is None


def test_a_pickled_copy_connects_anew(name):
    async def main():
        async with ObjectStore(name, root="r", concurrency=5, retry=RetryPolicy(attempts=3), read_only=True) as store:
            await store.get("k")
            return pickle.dumps(store)

    copy = pickle.loads(asyncio.run(main()))
    assert (copy.root, copy.traffic.concurrency, copy.traffic.policy.attempts, copy.read_only) == ("r/", 5, 3, True)
    assert asyncio.run(copy.get("k")) is None


class Client:
    """One that complains when it is garbage and was not closed, as those of libraries do."""

    complaints = 0

    def __init__(self, server):
        self.server, self.closed = server, False
        self.myself = self

    def __getattr__(self, name):
        return getattr(self.server, name)

    def __del__(self):
        Client.complaints += not self.closed


class Opened:
    def __init__(self, server):
        self.client = Client(server)

    async def __aenter__(self):
        self.client.server.connections += 1
        return self.client

    async def __aexit__(self, *_):
        await asyncio.sleep(0)
        self.client.server.connections -= 1
        self.client.closed = True


class RecordedStore(ObjectStore):
    def _connect(self):
        return Opened(SERVERS.setdefault(self.name, Server()))


@pytest.mark.parametrize("collected", [True, False])
def test_nobody_complains_when_a_store_is_forgotten(name, collected, caplog):
    async def main():
        await RecordedStore(name).get("k")
        if collected:
            gc.collect()
            for _ in range(5):
                await asyncio.sleep(0)
            assert SERVERS[name].connections == 0

    Client.complaints = 0
    asyncio.run(main())
    gc.collect()
    assert (Client.complaints, SERVERS[name].connections, caplog.messages) == (0, 0, [])


def test_nothing_is_left_when_a_store_is_forgotten(name):
    async def main():
        await ObjectStore(name).get("k")
        gc.collect()
        for _ in range(5):
            await asyncio.sleep(0)
        assert SERVERS[name].connections == 0

    asyncio.run(main())
    assert SERVERS[name].connections == 0


# --- telemetry


async def test_attempts_are_told(name, store, server):
    engine, events = azarr.Engine(), []
    async with engine:
        engine.telemetry.subscribe(events.append, events="store.retry")
        seen = engine.observed(store, "node")
        server.faults = ["before", "after"]
        await seen.set("k", b"v")
        server.faults = ["before"]
        assert [key async for key in seen.list_prefix()] == ["k"]
    assert [(e.name, e.attempt, e.operation, e.key, e.path, e.store) for e in events] == [
        ("store.retry.start", 2, "set", "k", "node", "ObjectStore"),
        ("store.retry.start", 3, "set", "k", "node", "ObjectStore"),
        ("store.retry.stop", 3, "set", "k", "node", "ObjectStore"),
        ("store.retry.start", 2, "list", "", "node", "ObjectStore"),
        ("store.retry.stop", 2, "list", "", "node", "ObjectStore"),
    ]
    assert events[0].error.endswith("TransientStoreError")
    assert len({event.span for event in events}) == 2


async def test_retries_that_fail_are_told(name):
    events = []
    async with azarr.Engine() as engine, ObjectStore(name, retry=RetryPolicy(attempts=2, first_delay=0)) as store:
        await store.get("k")
        engine.telemetry.subscribe(events.append, events="store.retry")
        SERVERS[name].faults = ["before", "before"]
        with pytest.raises(TransientStoreError, match="given up after 2 attempts"):
            await engine.observed(store, "node").get("k")
    assert [event.name for event in events] == ["store.retry.start", "store.retry.exception"]


def test_conditions_are_plain():
    assert Condition(None) == (None,)


@pytest.mark.parametrize("faults", [0, 3])
async def test_streams_count_what_is_made_again(store, server, faults):
    """Each counts its own requests, and not those of others that use the store meanwhile."""
    array = await azarr.create_array(store, "a", shape=(8, 8), chunks=(2, 8), dtype="i4")
    await array.write(7)
    server.faults = ["before"] * faults
    async with array.stream_chunks(concurrency=1) as chunks:
        async for _ in chunks:
            pass
    assert chunks.stats.retries == faults
    for options in ({}, {"metadata": True}):
        server.faults = ["before"] * faults
        async with array.stream_slices(thickness=2, concurrency=1, **options) as slices:
            async for _ in slices:
                await array.store.get("other")
        assert slices.stats.retries == faults
