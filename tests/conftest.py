"""Fixtures that several test modules share."""

from __future__ import annotations

import asyncio
import gc
import selectors
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st

from azarr import ThreadExecutor
from azarr.errors import StoreError
from azarr.stores.base import Request, Reserve
from azarr.stores.latency import LatencyStore
from azarr.stores.local import LocalStore
from azarr.stores.memory import MemoryStore
from azarr.types import Buffer
from tests.patient_store import PatientStore

# Processes that tests spawn find the tests here; at the end, so that azarr is the one that is installed.
sys.path.append(str(Path(__file__).parents[1]))

# how long an example takes says something of the machine, and nothing of the code
settings.register_profile("azarr", deadline=None)
settings.load_profile("azarr")


@st.composite
def _basic_keys(draw, shape):
    """Any legal basic selection of an array of ``shape``: integers, slices with positive steps, at most one ellipsis."""
    items = []
    for length in shape:
        edge = st.none() | st.integers(-length - 2, length + 2)
        item = st.builds(slice, edge, edge, st.none() | st.integers(1, length + 2))
        if length:
            item |= st.integers(-length, length - 1)
        items.append(draw(item))
    given = draw(st.integers(0, len(items)))
    if given < len(items) or draw(st.booleans()):
        at = draw(st.integers(0, given))
        behind = given - at
        items = [*items[:at], Ellipsis, *items[len(items) - behind :]]
    if len(items) == 1 and draw(st.booleans()):
        return items[0]
    return tuple(items)


class _FaultyStore(MemoryStore):
    """A memory store that fails for the keys in ``failing``, for reading and writing."""

    def __init__(self, values=None) -> None:
        super().__init__(values)
        self.failing: set[str] = set()

    def _check(self, key: str) -> None:
        if key in self.failing:
            raise StoreError(f"cannot reach {key!r}", key=key)

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        self._check(key)
        return super().get_blocking(key, byte_range, reserve)

    def get_into(self, key: str, out: memoryview) -> int | None:
        self._check(key)
        return super().get_into(key, out)

    def set_blocking(self, key: str, value: Buffer) -> None:
        self._check(key)
        super().set_blocking(key, value)

    def erase_blocking(self, key: str) -> None:
        self._check(key)
        super().erase_blocking(key)


class _Elsewhere(LatencyStore):
    """The values of another store as another process sees them: without its locks, and through conditional writes if it has them."""

    @property
    def identity(self):
        return "elsewhere", id(self)

    @property
    def locking(self):
        return False


@pytest.fixture(params=["memory", "awaited", "local"])
def store(request, tmp_path):
    """An empty store of each of the ways in which stores are asked: calls that block, in memory and files, and calls that are awaited."""
    if request.param == "local":
        return LocalStore(tmp_path / "root", durability="none")
    return MemoryStore() if request.param == "memory" else LatencyStore(MemoryStore(), 0.0)


@pytest.fixture(scope="session")
def elsewhere() -> Callable:
    """Makes a store of the values of another store that stands for another process: ``elsewhere(store, jitter=, seed=)``."""
    return lambda store, jitter=0.0, seed=None: _Elsewhere(store, 0.0, jitter=jitter, seed=seed)


@pytest.fixture(scope="session")
def basic_keys() -> Callable[[tuple[int, ...]], st.SearchStrategy]:
    """A function from a shape to a strategy of basic selections."""
    return _basic_keys


@pytest.fixture
def faulty_store() -> _FaultyStore:
    """A memory store that can be told to fail: ``store.failing.add(key)``."""
    return _FaultyStore()


@pytest.fixture
def started():
    """Starts a process and waits until it says that it is ready; none outlives the test."""
    processes = []

    def start(code, *args):
        command = [sys.executable, "-c", code, *map(str, args)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate(timeout=100)


@pytest.fixture
def workers():
    """Two worker threads, which end with the test."""
    executor = ThreadExecutor(2)
    yield executor
    executor.close()
    executor.join()


async def _everything(window, *, weigh=lambda result: 1):
    """All results, each given back at once."""
    results = []
    while True:
        try:
            results.append(await window.take())
        except StopAsyncIteration:
            return results
        window.release(weigh(results[-1]))


@pytest.fixture(scope="session")
def everything():
    """Takes all results of a window: ``await everything(window)``."""
    return _everything


async def _until(condition) -> None:
    """Let the loop go round until something is so."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0)


@pytest.fixture(scope="session")
def until():
    """Waits for what other tasks or threads do: ``await until(lambda: …)``."""
    return _until


@pytest.fixture
async def turns():
    """How many turns somebody else has had on the loop, who always wants the next one: ``turns()``."""
    count = 0

    async def other():
        nonlocal count
        while True:
            count += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(other())
    yield lambda: count
    beside.cancel()


class _NoWait:
    """A selector that turns waiting for time into the passing of time; without a deadline it waits for the world outside."""

    def __init__(self, selector: selectors.BaseSelector, loop: _VirtualClockLoop) -> None:
        self._selector, self._loop = selector, loop

    def __getattr__(self, name):
        return getattr(self._selector, name)

    def select(self, timeout=None):
        events = self._selector.select(None if timeout is None else 0)
        if timeout and not events:
            self._loop.now += timeout
        return events


class _VirtualClockLoop(asyncio.SelectorEventLoop):
    """An event loop whose time stands still while there is something to do, and jumps to the next timer when there is not."""

    now = 0.0

    def __init__(self) -> None:
        super().__init__()
        self._selector = _NoWait(self._selector, self)
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.now


def _run_virtual(main):
    """What ``await main()`` answers, on a loop with a virtual clock that starts at 0."""
    with asyncio.Runner(loop_factory=_VirtualClockLoop) as runner:
        return runner.run(main())


class _CountingExecutor:
    """An executor around another that knows how many jobs run, and how many outcomes have not come back."""

    def __init__(self, inner) -> None:
        self.inner, self.workers = inner, inner.workers
        self.jobs = self.outstanding = self.running = self.max_running = 0
        self._mutex = threading.Lock()

    def submit(self, mailbox, on_done, function, *args) -> None:
        def back(result, error):
            self.outstanding -= 1
            on_done(result, error)

        self.inner.submit(mailbox, back, self._run, function, args)
        self.jobs += 1
        self.outstanding += 1

    def _run(self, function, args):
        with self._mutex:
            self.running += 1
            self.max_running = max(self.max_running, self.running)
        try:
            return function(*args)
        finally:
            with self._mutex:
                self.running -= 1

    def close(self) -> None:
        self.inner.close()


class _Interrupted:
    """Awaits ``coroutine`` and cancels the task that does so at suspension number ``at``.

    ``early``: while that suspension lasts. ``late``: when what it waited for is there, and the task has not run yet. ``again``: at
    every suspension from then on, as structured libraries do.
    """

    def __init__(self, coroutine, at: int, how: str) -> None:
        self._coroutine, self._at, self._how = coroutine, at, how
        self.suspensions = 0

    def __await__(self):
        steps = self._coroutine.__await__()
        task = asyncio.current_task()
        step, value = steps.send, None
        while True:
            try:
                waited_for = step(value)
            except StopIteration as stop:
                return stop.value
            if self.suspensions == self._at or (self._how == "again" and self.suspensions > self._at):
                if self._how == "late" and waited_for is not None:
                    waited_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            self.suspensions += 1
            try:
                value = yield waited_for
                step = steps.send
            except BaseException as error:  # noqa: BLE001 - the coroutine is to see it
                step, value = steps.throw, error


def _cancelled_everywhere(prepare, how: str, *, must_come_out: bool = True) -> int:
    """Run a coroutine to its end again and again, cancelled at its first, second, … suspension, each time on a fresh loop.

    ``await prepare()`` answers the coroutine and a function that checks the state afterwards. No task may be left, the cancellation
    must come out, and the loop must have nothing to complain about. Answers how many suspensions there are.
    """

    async def main(at: int) -> bool:
        complaints = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        coroutine, check = await prepare()
        before = asyncio.all_tasks()
        interrupted = _Interrupted(coroutine, at, how)

        async def run() -> None:
            await interrupted

        task = asyncio.create_task(run())
        (outcome,) = await asyncio.gather(task, return_exceptions=True)
        assert asyncio.all_tasks() == before
        check()
        del task, coroutine
        gc.collect()
        await asyncio.sleep(0)
        assert complaints == []
        if interrupted.suspensions <= at:
            assert outcome is None
            return False
        assert isinstance(outcome, asyncio.CancelledError) or (outcome is None and not must_come_out)
        return True

    at = 0
    while asyncio.run(main(at)):
        at += 1
        assert at < 10_000
    return at


@pytest.fixture(scope="session")
def run_virtual() -> Callable:
    """Runs an async function on a loop with a virtual clock, which starts at 0 and waits for nothing."""
    return _run_virtual


@pytest.fixture(scope="session")
def counting_executor() -> Callable:
    """Makes an executor around another one that counts ``jobs``, those ``running`` and ``max_running``, and outcomes ``outstanding``."""
    return _CountingExecutor


@pytest.fixture
def cancelled_everywhere(_frozen_heap) -> Callable:
    """Cancels a coroutine at each of its suspensions; see ``_cancelled_everywhere``."""
    return _cancelled_everywhere


@pytest.fixture(params=["early", "late", "again"])
def how_cancelled(request) -> str:
    """The ways in which a suspended coroutine can be cancelled."""
    return request.param


@pytest.fixture
def _frozen_heap() -> None:
    """Make collecting garbage quick: what is there before the test is none. Other tests leave much behind, which is looked through once."""
    gc.collect()
    gc.freeze()


@pytest.fixture
async def complaints(_frozen_heap):
    """What the running loop's exception handler was told; when the test is over there must be nothing, and no task left."""
    loop, told = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: told.append(context))
    yield told
    gc.collect()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() == {asyncio.current_task()}
    gc.collect()
    assert told == []


@pytest.fixture
def patient():
    """A store whose writes wait until they are told to end."""
    store = PatientStore()
    yield store
    store.go.set()  # or a test that fails would hang
