"""Ingest: a stream of chunks into an array, at bounded concurrency and memory, with checkpoints to go on from.

The items of the source are placed (``placement.py``), put together to what is stored under one key (``gathering.py``), and written by
a window. One task advances the source; another takes what has been written, and notes it in the checkpoint (``checkpoint.py``) before
it gives room for more.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias, TypedDict, cast

import numpy as np

from azarr.checkpoint import Callback, CheckpointOption, StoredCheckpoint, checkpoint_of
from azarr.chunk_sources import Piece
from azarr.coverage import Coverage
from azarr.engine import Engine
from azarr.errors import StoreError, StreamError, WriteError
from azarr.feed import END, Feed
from azarr.gathering import Gathered, Gathering
from azarr.metadata.model import ArrayMetadata
from azarr.observing import telling
from azarr.placement import Entry, Target, Touched, data_of, said_coords
from azarr.progress import ProgressOption, progress_of
from azarr.runners import LOOP_SHARE, TaskRunner
from azarr.selection import AnySelection, as_planned
from azarr.stores.base import WritableStore
from azarr.types import Coords, element_nbytes
from azarr.unit_writer import Outcome, runner_for
from azarr.window import FedWindow
from azarr.writing import conform

TIMEOUT = 60.0
"""Seconds that storing a chunk or shard may take: longer than what stores need to answer on a bad day, retries included."""

OnError: TypeAlias = Literal["raise", "skip"] | Callable[[Coords | None, Exception], object]


class WriteOptions(TypedDict, total=False):
    """The keywords of ``write_stream``; ``AsyncArray.write_stream`` says what they mean."""

    concurrency: int | None
    memory: int | None
    validate: bool
    timeout: float | None
    on_error: OnError
    batch_size: int
    checkpoint: CheckpointOption
    resume: bool
    source_id: str | None
    progress: ProgressOption


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What has become of the items of a stream.

    ``written`` items are stored, ``skipped`` ones were stored by an earlier run, ``failed`` ones could not be. ``last_coords`` is the first
    chunk of the item that was stored last, ``nbytes`` the decoded size of those stored, ``seconds`` the time it took. ``total`` is how many
    items there are, where the source knows.
    """

    written: int
    skipped: int
    failed: int
    last_coords: Coords | None
    nbytes: int
    seconds: float
    total: int | None = None

    @property
    def done(self) -> int:
        """How many items nothing is left to be done with."""
        return self.written + self.skipped + self.failed


async def write_stream(
    source: Any, selection: AnySelection, path: str, metadata: ArrayMetadata, engine: Engine, items: Any, options: WriteOptions
) -> WriteReport:
    """Write ``items`` to the ``selection`` of the array that ``source`` has the chunks of; closes what the items come from."""
    feed = Feed(items)
    try:
        check(options)
        if not isinstance(source.store, WritableStore):
            raise StoreError(f"{source.store!r} cannot be written to")
        target = Target(source.operation(engine.telemetry, engine.place), selection, metadata)
        ledger = await opened(options, path, metadata, target, options.get("source_id") or feed.fingerprint, engine)
        with telling(target.source.observer, "write") as span:
            report = await Ingest(target, engine, feed, ledger, options).run()
            if span is not None:
                span.stop(nbytes=report.nbytes)
        return report
    except BaseException:
        await feed.abandon()
        raise


async def opened(
    options: WriteOptions, path: str, metadata: ArrayMetadata, target: Target, source_id: str | None, engine: Engine
) -> Ledger:
    """The ledger of a stream that begins, or goes on."""
    checkpoint = checkpoint_of(options.get("checkpoint"), path, metadata, target, source_id, engine, options.get("timeout", TIMEOUT))
    if not isinstance(checkpoint, StoredCheckpoint):
        return Ledger(checkpoint, None, None)
    done = await checkpoint.load(target) if options.get("resume", False) else None
    if done is not None:
        return Ledger(checkpoint, done, done.copy())
    await checkpoint.save(None, Coverage())  # what an earlier run has left there must not be taken for this one's
    return Ledger(checkpoint, Coverage(), None)


def check(options: WriteOptions) -> None:
    """Raise an error where an option is unknown or makes no sense."""
    if unknown := options.keys() - WriteOptions.__annotations__.keys():
        raise TypeError(f"write_stream has no option {sorted(unknown)}; it has {sorted(WriteOptions.__annotations__)}")
    for name in ("concurrency", "memory", "batch_size"):
        value = options.get(name)
        if value is not None and cast("int", value) < 1:
            raise ValueError(f"{name} must be at least 1, not {value}")
    timeout = options.get("timeout")
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be a positive number of seconds, or None for no limit, not {timeout}")
    on_error = options.get("on_error", "raise")
    if on_error not in ("raise", "skip") and not callable(on_error):
        raise ValueError(f"on_error must be 'raise', 'skip' or a function, not {on_error!r:.60}")
    checkpoint = options.get("checkpoint")
    if options.get("resume", False) and (checkpoint is None or callable(checkpoint)):
        raise ValueError("resume=True needs a checkpoint that can be read: a path, or a store and a key")
    if not isinstance(options.get("source_id"), str | None):
        raise TypeError(f"source_id must be a string, not {options['source_id']!r:.60}")


@dataclass(slots=True)
class Counts:
    """What has become of the items so far."""

    written: int = 0
    skipped: int = 0
    failed: int = 0
    last_coords: Coords | None = None
    nbytes: int = 0
    begun: float = field(default_factory=time.perf_counter)

    def report(self, total: int | None) -> WriteReport:
        """The same, as it is now."""
        seconds = time.perf_counter() - self.begun
        return WriteReport(self.written, self.skipped, self.failed, self.last_coords, self.nbytes, seconds, total)


class Ledger(NamedTuple):
    """Where it is noted what is stored, what is noted there, and what need not be stored again."""

    checkpoint: Callback | StoredCheckpoint | None
    done: Coverage | None
    skips: Coverage | None


class Ingest:
    """One stream that is written."""

    def __init__(self, target: Target, engine: Engine, feed: Feed, ledger: Ledger, options: WriteOptions) -> None:
        self._target, self._engine, self._feed = target, engine, feed
        self._checkpoint, self._done, self._skips = ledger
        self._progress = progress_of(options.get("progress"), "items")
        self._validate = options.get("validate", True)
        self._on_error = options.get("on_error", "raise")
        limit = options.get("concurrency") or engine.concurrency
        self._memory = options.get("memory") or engine.memory
        self._batch = min(options.get("batch_size", 1), limit)
        self._window: FedWindow[Gathered, Outcome] = FedWindow(
            runner_for(target.source, engine, limit, options.get("timeout", TIMEOUT)), limit
        )
        self._gathering = Gathering(target)
        self._counts = Counts()
        self._failing = asyncio.Lock()
        self._held = self._largest = self._unsaved = self._started = self._settled = 0
        self._rested = 0.0

    async def run(self) -> WriteReport:
        """Write everything; when this returns, or raises, nothing of it runs any more."""
        feeder: TaskRunner[Feed, None] = TaskRunner(self._advance)
        feeder.start(self._feed, lambda _, error: self._window.finish(error))
        try:
            await self._take()
            await self._tell(last=True)
        finally:
            self._window.close()
            if not self._feed.closed:  # else it is about to end, and must not be disturbed
                feeder.stop()
            if self._progress is not None:
                self._progress.abandon()
            try:
                await self._window.aclose()
            finally:
                await feeder.stopped()
        return self._report()

    def _report(self) -> WriteReport:
        return self._counts.report(self._feed.total)

    async def _tell(self, *, last: bool = False) -> None:
        if self._progress is not None:
            answer = self._progress.close(self._report()) if last else self._progress.update(self._report())
            if inspect.isawaitable(answer):
                await answer

    # The task that takes what has been written

    async def _take(self) -> None:
        while True:
            try:
                outcome = await self._window.take()
            except StopAsyncIteration:
                break
            try:
                await self._settle(outcome)
            finally:
                del outcome  # its error leads to this frame, which must not lead back
            await self._tell()
            if self._unsaved >= self._batch and not self._window.ready:
                await self._save()
        if self._unsaved:
            await self._save()

    async def _settle(self, outcome: Outcome) -> None:
        gathered, error = outcome
        self._settled += 1
        try:
            if error is not None:
                if not isinstance(error, Exception):
                    raise error
                await self._fail_all(gathered, error)
                self._window.release(1)
                return
        finally:
            del outcome, error  # it leads to this frame, which must not lead back
        for entry in gathered.entries:
            entry.stored = True
            self._leave(entry)
        if self._done is not None:
            for touched in gathered.touched:
                self._done.add(*touched)
        if self._checkpoint is None:
            self._window.release(1)
        else:
            self._unsaved += 1
            self._window.release(0)

    async def _save(self) -> None:
        if self._checkpoint is not None:
            weight, self._unsaved = self._unsaved, 0
            await self._checkpoint.save(self._report(), self._done or Coverage())
            self._window.release(weight)

    def _leave(self, entry: Entry) -> None:
        """One piece of ``entry`` is done with."""
        entry.left -= 1
        if entry.left > 0:
            return
        self._held -= entry.nbytes
        if entry.failed:
            return
        if entry.stored:
            self._counts.written += 1
            self._counts.nbytes += entry.size
            self._counts.last_coords = entry.coords
        else:
            self._counts.skipped += 1

    async def _fail_all(self, gathered: Gathered, error: Exception) -> None:
        try:
            for entry in gathered.entries:
                if not entry.failed:
                    entry.failed = True
                    await self._fail(entry.coords, error)
                self._leave(entry)
        finally:
            del error  # as above

    async def _fail(self, coords: Coords | None, error: Exception) -> None:
        """What ``on_error`` wants of an item that failed."""
        try:
            if self._on_error == "raise":
                raise error
            self._counts.failed += 1
            if callable(self._on_error):
                async with self._failing:  # both tasks may come here
                    answer = self._on_error(coords, error)
                    if inspect.isawaitable(answer):
                        await answer
        finally:
            del error  # as above

    # The task that advances the source

    async def _advance(self, feed: Feed) -> None:
        try:
            number = 0
            while True:
                await self._make_room()
                item = await feed.next()
                if item is END:
                    break
                await self._take_in(number, item)
                del item
                number += 1
            while (gathered := self._gathering.oldest()) is not None:
                await self._start(gathered)
        finally:
            await feed.aclose()

    async def _make_room(self) -> None:
        """Wait until one more item, if it is no larger than those before, fits into memory, and what it completes can be started."""
        while self._held and self._held + self._largest > self._memory:
            gathered = None
            if self._started == self._settled or self._gathering.nbytes + self._largest > self._memory:
                gathered = self._gathering.oldest()
            if gathered is not None:
                await self._start(gathered)
            else:
                await self._window.room(self._something_settled())
        await self._window.room()
        if time.perf_counter() - self._rested > LOOP_SHARE:
            await asyncio.sleep(0)
            self._rested = time.perf_counter()

    def _something_settled(self) -> Callable[[], bool]:
        before = self._settled
        return lambda: self._settled > before

    async def _start(self, gathered: Gathered) -> None:
        await self._window.room()
        self._window.put(gathered)  # what comes later for the same key is stored later, for it waits for the lock
        self._started += 1

    async def _take_in(self, number: int, item: object) -> None:
        try:
            complete = await self._gather(item)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with an item, and be it what its data raise
            await self._fail(said_coords(item), numbered(error, number))
            return
        for gathered in complete:
            await self._start(gathered)

    async def _gather(self, item: object) -> list[Gathered]:
        """The units that are complete with ``item``."""
        target, checks = self._target, self._validate
        place = target.place(item)
        if place.origin is None and self._done is not None:
            raise WriteError("its region is of single positions, which a checkpoint cannot name")
        data, shape = data_of(item), place.selection.shape
        if isinstance(data, np.ndarray) and data.dtype == target.dtype and data.dtype != object:
            values = conform(data, target.data_type, shape, broadcast=not checks)
        else:
            values = await self._engine.call(partial(conform, broadcast=not checks), data, target.data_type, shape)
        values = as_planned(values, place.selection)
        pieces = target.pieces(place, values)
        coords = target.first(pieces[0]) if pieces else ()
        entry = Entry(coords, values.size * element_nbytes(values.dtype), values.size * element_nbytes(target.dtype), len(pieces) or 1)
        self._held += entry.nbytes
        self._largest = max(self._largest, entry.nbytes)
        if not pieces:
            entry.stored = True
            self._leave(entry)
        complete = [self._add(piece, entry, place.origin) for piece in pieces]
        return [gathered for gathered in complete if gathered is not None]

    def _add(self, piece: Piece, entry: Entry, origin: tuple[int, ...] | None) -> Gathered | None:
        """The unit that is complete with ``piece``, if one is."""
        touched = self._target.touched(piece, origin) if self._done is not None or self._gathering.notes(piece) else []
        if self._skips is None or not self._skip(touched, self._skips):
            return self._gathering.add(piece, entry, touched)
        self._leave(entry)
        return self._gathering.skip(piece.unit.coords, touched)

    def _skip(self, touched: list[Touched], skips: Coverage) -> bool:
        """Whether all of these parts were stored by an earlier run; a part that comes again is not, lest the later one be lost."""
        known = all(skips.has(number, box) for number, box, _ in touched)
        for each in touched:
            skips.discard(*each)
        return known


def numbered(error: Exception, number: int) -> Exception:
    """``error`` with the number of the item that it is about."""
    if isinstance(error, StreamError | WriteError) and len(error.args) == 1:
        error.args = (f"item {number} of the source: {error.args[0]}",)
    return error
