"""Progress: a function hears of every chunk and of the end; bars show the same, and let go of the terminal however a stream ends."""

from __future__ import annotations

import asyncio
import gc
import io
import itertools
import sys

import numpy as np
import pytest
import rich.console
import rich.progress
import tqdm

import azarr
from azarr import Engine, InlineExecutor, LatencyStore, MemoryStore, StoreError, StreamError
from azarr.progress import RichBar, TqdmBar

DATA = np.arange(1, 25, dtype="i4")

pytestmark = pytest.mark.usefixtures("complaints")


class Failing(MemoryStore):
    """A memory store that fails for some keys."""

    failing: frozenset[str] = frozenset()

    def get_blocking(self, key, byte_range=None, reserve=None):
        if key in self.failing:
            raise StoreError("no")
        return super().get_blocking(key, byte_range, reserve)


@pytest.fixture(params=["blocking", "awaited"])
async def array(request):
    store = Failing()
    array = await azarr.create_array(store, "a", shape=24, dtype="i4", chunks=1)
    await array.write(DATA)
    engine = Engine(executor=InlineExecutor(), concurrency=6)
    array = azarr.AsyncArray(store if request.param == "blocking" else LatencyStore(store, 0.0), "a", array.metadata, engine)
    array.engine.below = store
    return array


class Bar:
    """What a bar in the terminal has shown: when it began and ended, where it stood."""

    def __init__(self) -> None:
        self.shown, self.open, self.begun, self.ended = [], False, 0, 0


@pytest.fixture(params=["rich", "tqdm"])
def bar(request, monkeypatch):
    bar = Bar()
    bar.kind = request.param

    class Rich(rich.progress.Progress):
        def __init__(self, *columns) -> None:
            super().__init__(*columns, console=rich.console.Console(file=io.StringIO(), force_terminal=True))

        def start(self, **options) -> None:
            bar.begun += not bar.open
            bar.open = True
            super().start(**options)

        def stop(self) -> None:
            bar.ended += 1
            bar.open = False
            super().stop()

        def update(self, task, *, completed, total) -> None:
            bar.shown.append((completed, total))
            super().update(task, completed=completed, total=total)

    class Tqdm(tqdm.tqdm):
        monitor_interval = 0  # its watching thread is not of interest

        def __init__(self, **options) -> None:
            bar.begun += 1
            bar.open = True
            super().__init__(**options, file=io.StringIO())

        def update(self, n=1) -> None:
            super().update(n)
            bar.shown.append((self.n, self.total))

        def close(self) -> None:
            if not self.disable:
                bar.ended += 1
                bar.open = False
            super().close()

    monkeypatch.setattr(rich.progress, "Progress", Rich)
    monkeypatch.setattr(tqdm, "tqdm", Tqdm)
    yield bar
    assert not bar.open


# --- functions


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("ordered", [True, False])
async def test_a_function_hears_of_every_chunk_and_of_the_end(array, ordered, asynchronous):
    heard = []

    async def hear(stats):
        await asyncio.sleep(0)
        heard.append(stats)

    async with array.stream_chunks(ordered=ordered, progress=hear if asynchronous else heard.append) as stream:
        async for _ in stream:
            assert heard[-1].done == len(heard) == stream.stats.done
    assert [stats.done for stats in heard] == [*range(1, 25), 24]
    assert all(stats.total == 24 for stats in heard)
    assert all(0 <= stats.in_flight + stats.buffered < 6 for stats in heard)
    assert [stats.nbytes for stats in heard] == [4 * stats.done for stats in heard]
    assert all(earlier.seconds <= later.seconds for earlier, later in itertools.pairwise(heard))
    assert (heard[-1].in_flight, heard[-1].buffered) == (0, 0)


async def test_the_end_is_heard_of_where_there_are_no_chunks(array):
    heard = []
    async with array[3:3].stream_chunks(progress=heard.append) as stream:
        assert [chunk async for chunk in stream] == []
    assert [(stats.done, stats.total) for stats in heard] == [(0, 0)]


async def test_a_stream_that_is_left_says_no_more(array):
    heard = []
    async with array.stream_chunks(progress=heard.append) as stream:
        async for _ in stream:
            if len(heard) == 5:
                break
    assert [stats.done for stats in heard] == [1, 2, 3, 4, 5]
    assert await anext(stream, None) is None
    assert len(heard) == 5


async def test_a_stream_that_is_closed_while_it_reports_says_no_more(array):
    heard = []

    async def close(stats):
        heard.append(stats)
        if len(heard) == 5:
            await asyncio.create_task(stream.aclose())

    stream = array.stream_chunks(progress=close)
    assert len([chunk async for chunk in stream]) == 5
    assert [stats.done for stats in heard] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("at", [1, 7, 24, 25])
@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("kind", [ZeroDivisionError, StopAsyncIteration])
async def test_what_the_function_raises_ends_the_stream(array, at, asynchronous, kind):
    """The chunk that it was told of has not been handed out then, and the token knows it."""
    error, heard, got = kind(), [], []

    def fail(stats):
        heard.append(stats)
        if len(heard) == at:
            raise error

    async def fail_later(stats):
        await asyncio.sleep(0)
        fail(stats)

    stream = array.stream_chunks(progress=fail_later if asynchronous else fail)
    with pytest.raises(RuntimeError if kind is StopAsyncIteration else kind) as caught:
        async for chunk in stream:
            got.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream fails
    assert (caught.value.__cause__ if kind is StopAsyncIteration else caught.value) is error
    assert error.__context__ is None
    assert got == [(number,) for number in range(at - 1)]
    assert len(heard) == at
    if got:
        rest = [chunk.coords async for chunk in array.stream_chunks(start_after=stream.token)]
        assert [*got, *rest] == [(number,) for number in range(24)]
    else:
        with pytest.raises(StreamError, match="from its first chunk on"):
            _ = stream.token
    if at <= 24:
        with pytest.raises(StreamError, match="before its last chunk"):
            await anext(stream)
    else:
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_chunk_is_not_lost_where_reporting_it_is_cancelled(array):
    async def wait(stats):
        if stats.done == 5:
            await asyncio.Event().wait()

    stream, got = array.stream_chunks(progress=wait), []

    async def consume():
        async for chunk in stream:
            got.append(chunk.coords)  # noqa: PERF401 - to be kept when the stream is cancelled

    task = asyncio.create_task(consume())
    while stream.stats.done < 5:  # noqa: ASYNC110 - there is nothing to be woken by
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    rest = [chunk.coords async for chunk in array.stream_chunks(start_after=stream.token)]
    assert [*got, *rest] == [(number,) for number in range(24)]


# --- bars


async def test_a_bar_goes_from_one_end_to_the_other(array, bar):
    async with array.stream_chunks(progress=bar.kind) as stream:
        assert bar.begun == 0
        async for _ in stream:
            assert bar.open
        assert not bar.open
    assert bar.shown == [*((number, 24) for number in range(1, 25)), (24, 24)]
    assert (bar.begun, bar.ended) == (1, 1)


async def test_a_bar_knows_what_is_left_out(array, bar):
    array.engine.below.failing = frozenset({"a/c/3", "a/c/5"})
    async with array.stream_chunks(progress=bar.kind, filter=lambda coords: coords[0] % 2, on_error="skip") as stream:
        assert len([chunk async for chunk in stream]) == 10
    assert bar.shown[-1] == (10, 10)


async def test_the_bar_of_an_empty_stream(array, bar):
    async with array[3:3].stream_chunks(progress=bar.kind) as stream:
        assert [chunk async for chunk in stream] == []
    assert bar.shown == [(0, 0)]
    assert (bar.begun, bar.ended) == (1, 1)


async def test_the_bar_of_a_stream_that_is_never_used(array, bar):
    async with array.stream_chunks(progress=bar.kind):
        pass
    stream = array.stream_chunks(progress=bar.kind)
    await stream.aclose()
    assert (bar.begun, bar.ended) == (0, 0)


@pytest.mark.parametrize("how", ["break", "error of the consumer", "error of a chunk", "cancelled", "aclose"])
async def test_a_bar_is_closed_however_a_stream_ends(array, bar, how):
    if how == "error of a chunk":
        array.engine.below.failing = frozenset({"a/c/3"})

    async def consume():
        async with array.stream_chunks(progress=bar.kind) as stream:
            async for chunk in stream:
                if chunk.coords == (2,):
                    if how == "break":
                        break
                    if how == "error of the consumer":
                        raise StoreError("no")
                    if how == "cancelled":
                        task.cancel()
                        await asyncio.sleep(0)
                    if how == "aclose":
                        await stream.aclose()

    task = asyncio.create_task(consume())
    await asyncio.wait([task])
    assert task.cancelled() if how == "cancelled" else isinstance(task.exception(), StoreError) == how.startswith("error")
    assert (bar.begun, bar.ended) == (1, 1)
    assert bar.shown[-1] == (3, 24)


async def test_the_bar_of_a_stream_that_is_garbage_is_closed(array, bar):
    async for _ in array.stream_chunks(progress=bar.kind):
        break
    gc.collect()
    assert (bar.begun, bar.ended) == (1, 1)


def test_the_bar_of_a_stream_that_outlives_its_loop_is_closed(bar):
    kept = []

    async def main():
        array = await azarr.create_array(MemoryStore(), shape=24, dtype="i4", chunks=1)
        kept.append(array.stream_chunks(progress=bar.kind))
        await anext(kept[0])

    asyncio.run(main())
    kept.clear()
    gc.collect()
    assert (bar.begun, bar.ended) == (1, 1)


async def test_a_terminal_that_is_gone_does_not_keep_the_stream_from_ending(array, monkeypatch):
    """What closing the bar raises comes out when everything else is over."""

    class Gone(TqdmBar):
        def abandon(self) -> None:
            raise BrokenPipeError

    monkeypatch.setitem(azarr.progress.BARS, "tqdm", Gone)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    stream = array.stream_chunks(progress="tqdm")
    await anext(stream)
    with pytest.raises(BrokenPipeError):
        await stream.aclose()
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert stream.stats.in_flight == 0


@pytest.mark.parametrize("kind", ["rich", "tqdm"])
async def test_a_library_that_is_not_installed_is_named(array, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "rich.progress" if kind == "rich" else "tqdm", None)
    with pytest.raises(ImportError, match=r'pip install "azarr\[progress\]"') as caught:
        array.stream_chunks(progress=kind)
    assert caught.value.name == kind


@pytest.mark.parametrize("kind", [RichBar, TqdmBar])
def test_a_bar_writes_to_the_terminal(kind, capfd, monkeypatch):
    """As it is, on a terminal that is none: it is there at the end, once."""

    class Stats:
        done, total = 3, 7

    bar = kind("chunks")
    bar.update(Stats)
    bar.close(Stats)
    bar.abandon()
    bar.abandon()
    out = "".join(capfd.readouterr())
    assert "chunks" in out
    assert "3/7" in out
    assert not out.endswith("\n\n\n")
