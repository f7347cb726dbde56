"""Crews: workers that help themselves to one piece of work, and let others go first."""

from __future__ import annotations

import asyncio
import threading

import pytest

import azarr
from azarr import crew as module
from azarr.crew import Crew

PATIENCE = 60


class Counting(azarr.ThreadExecutor):
    """Counts the jobs that it is given."""

    count = 0

    def submit(self, *args):
        self.count += 1
        super().submit(*args)


@pytest.fixture
async def engine(monkeypatch):
    monkeypatch.setattr(module, "SLICE", 0)
    async with azarr.Engine(executor=Counting(1)) as made:
        yield made
    await asyncio.to_thread(made.executor.join)


async def test_a_crew_that_has_the_workers_to_itself_does_not_tell_the_loop_of_every_slice(engine):
    done = []
    await Crew(engine, iter(range(1000)), done.append).run()
    assert done == list(range(1000))
    assert engine.executor.count == 1


async def test_a_crew_lets_a_small_job_go_first(engine):
    done, begun, go = [], threading.Event(), threading.Event()

    def work(item):
        begun.set()
        go.wait(PATIENCE)
        done.append(item)

    large = asyncio.create_task(Crew(engine, iter(range(1000)), work).run())
    await asyncio.to_thread(begun.wait, PATIENCE)
    small = asyncio.create_task(engine.call(done.append, "small"))
    await asyncio.sleep(0)  # it has been given to the executor
    go.set()
    await asyncio.gather(large, small)
    assert 1 <= done.index("small") < 100
    assert [each for each in done if each != "small"] == list(range(1000))


async def test_an_executor_that_does_not_say_who_waits_is_given_back_after_every_slice(monkeypatch, engine):
    monkeypatch.delattr(azarr.ThreadExecutor, "waiting")
    done = []
    await Crew(engine, iter(range(1000)), done.append).run()
    assert done == list(range(1000))
    assert engine.executor.count > 10
