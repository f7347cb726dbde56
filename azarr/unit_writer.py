"""Writing units one by one, as they come: a chunk or shard at a time, each in a task or in a job of its own."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

from azarr.chunk_sources import ChunkSource
from azarr.engine import Engine
from azarr.errors import StreamTimeoutError
from azarr.executors import OnDone
from azarr.gathering import Gathered
from azarr.locks import KeyedLocks, locks_of
from azarr.runners import Rest, Runner, Running, TaskRunner, WorkerRunner
from azarr.stores.base import End, in_steps
from azarr.writing import Unit, encoded_ahead, write_held_unit, write_unit

BATCH_NBYTES = 256 * 2**10
"""Decoded bytes that are worth a job of their own; smaller units share one."""


class Outcome(NamedTuple):
    """What has become of a unit: it is stored unless there is an error."""

    gathered: Gathered
    error: BaseException | None = None


def runner_for(source: ChunkSource, engine: Engine, limit: int, seconds: float | None) -> Runner[Gathered]:
    """What writes units, at most ``limit`` at once: in workers on a store whose calls block, else in tasks; ``seconds`` for each."""
    if source.blocking:
        return HeldRunner(source, engine, limit, seconds)
    return TaskRunner(partial(write_awaited, source, locks_of(source.store), engine, seconds))


async def write_awaited(source: ChunkSource, locks: KeyedLocks, engine: Engine, seconds: float | None, gathered: Gathered) -> Outcome:
    """Write a unit on a store that is awaited."""
    limit = asyncio.timeout(seconds)
    try:
        async with limit:
            await write_unit(source, locks, gathered.unit, engine)
    except TimeoutError as error:
        return late(seconds, gathered) if limit.expired() else Outcome(gathered, error)
    except Exception as error:  # noqa: BLE001 - on_error decides
        return Outcome(gathered, error)
    finally:
        del limit  # it leads to the task, whose cancellation leads to this frame, which must not lead back
    return Outcome(gathered)


def late(seconds: float | None, gathered: Gathered) -> Outcome:
    """What comes of a unit that takes longer than ``seconds``."""
    message = f"it was not stored after {seconds} s; see the timeout of write_stream"
    return Outcome(gathered, StreamTimeoutError(message, coords=gathered.entries[0].coords))


def all_late(seconds: float | None, batch: list[Gathered]) -> list[Outcome]:
    """The same for several that share a job."""
    return [late(seconds, gathered) for gathered in batch]


@dataclass(slots=True, eq=False)
class Turn:
    """A unit in the queue for its lock; ``on_done`` is gone when nobody waits for it any more."""

    gathered: Gathered
    on_done: OnDone | None
    timer: asyncio.TimerHandle | None = None


class HeldRunner:
    """Writes units in workers, on a store whose calls block. Small ones that come at the same time share a job.

    A unit is given to a worker when the lock of its key is held: a worker that waited for it might be what the holder needs.
    """

    def __init__(self, source: ChunkSource, engine: Engine, limit: int, seconds: float | None) -> None:
        self._source, self._locks, self._mailbox, self._seconds = source, locks_of(source.store), engine.mailbox(), seconds
        self._begin_set = in_steps(source.store) if engine.executor.workers else None
        self._workers: WorkerRunner[list[Gathered], list[Outcome]] = WorkerRunner(
            engine.executor, self._mailbox, self._write_all, timeout=seconds, expired=partial(all_late, seconds), waiters=engine.waiters
        )
        nbytes = max(1, replace(source.pipeline.spec, shape=source.unit_shape).nbytes)
        self._share = max(1, min(BATCH_NBYTES // nbytes, limit // (2 * max(1, engine.executor.workers))))
        self._batch: list[tuple[Gathered, OnDone]] = []
        self._waiting = Running()
        self._stopped = False

    def start(self, item: Gathered, on_done: OnDone) -> None:
        """Start on ``item`` as soon as its lock is held."""
        self._waiting.count += 1
        turn = Turn(item, on_done)
        if self._locks.acquire_or_call(self._key(item), partial(self._mailbox.post, self._held, turn, None)):
            self._held(turn)
        elif self._seconds is not None:
            turn.timer = asyncio.get_running_loop().call_later(self._seconds, self._expire, turn, self._seconds)

    def _expire(self, turn: Turn, seconds: float) -> None:
        on_done, turn.on_done = turn.on_done, None
        if on_done is not None and not self._stopped:
            on_done(late(seconds, turn.gathered), None)
        self._waiting.leave()

    def _held(self, turn: Turn, _: BaseException | None = None) -> None:
        if turn.timer is not None:
            turn.timer.cancel()
        if turn.on_done is None:
            self._release(turn.gathered)
            return
        self._batch.append((turn.gathered, turn.on_done))
        if len(self._batch) == self._share:
            self._send()
        elif len(self._batch) == 1:
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        """Give the units whose locks are held to a worker."""
        batch, self._batch = self._batch, []
        if batch and self._stopped:
            self._give_up(batch)
        elif batch:
            try:
                self._workers.start([gathered for gathered, _ in batch], partial(self._finish, batch))
            except RuntimeError as error:  # the engine has been closed
                self._give_up(batch)
                batch[0][1](None, error)
        for _ in batch:
            self._waiting.leave()

    def _give_up(self, batch: list[tuple[Gathered, OnDone]]) -> None:
        for gathered, _ in batch:
            self._release(gathered)

    def _finish(self, batch: list[tuple[Gathered, OnDone]], outcomes: list[Outcome], error: BaseException | None) -> None:
        if not self._stopped:
            for (_, on_done), outcome in zip(batch, outcomes, strict=True):
                on_done(outcome, error)

    def _write_all(self, batch: list[Gathered]) -> list[Outcome] | Rest:
        # the list is no variable of this frame, to which its errors lead
        return self._settled([self._begin(gathered, unit) for gathered, unit in zip(batch, self._ahead(batch), strict=True)])

    def _ahead(self, batch: list[Gathered]) -> list[Unit]:
        units = [gathered.unit for gathered in batch]
        return units if self._stopped else encoded_ahead(self._source, units)

    def _settled(self, begun: list[tuple[Outcome, End | None]]) -> list[Outcome] | Rest:
        if all(end is None for _, end in begun):
            return [outcome for outcome, _ in begun]
        return Rest(lambda: [outcome if end is None else self._end(outcome.gathered, end) for outcome, end in begun])

    def _begin(self, gathered: Gathered, unit: Unit) -> tuple[Outcome, End | None]:
        try:
            end = None if self._stopped else write_held_unit(self._source, self._key(gathered), unit, self._begin_set)
        except BaseException as error:  # noqa: BLE001 - the locks of the others must be released, whatever happens
            self._release(gathered)
            return Outcome(gathered, error), None
        if end is None:
            self._release(gathered)
        return Outcome(gathered), end

    def _end(self, gathered: Gathered, end: End) -> Outcome:
        try:
            end()
            return Outcome(gathered)
        except BaseException as error:  # noqa: BLE001 - as above
            return Outcome(gathered, error)
        finally:
            self._release(gathered)

    def _release(self, gathered: Gathered) -> None:
        self._locks.release(self._key(gathered))

    def _key(self, gathered: Gathered) -> str:
        return self._source.key(gathered.unit.coords)

    def stop(self) -> None:
        """Write nothing that has not begun."""
        self._stopped = True  # but the jobs come to their turn, to release their locks

    async def stopped(self) -> None:
        """Wait until nothing runs any more, however often the waiting task is cancelled."""
        try:
            await self._waiting.empty()
        finally:
            await self._workers.stopped()
