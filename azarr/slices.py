"""Streams of slices: an array along one of its axes, a few planes at a time, each chunk read once however many slices cross it.

What slices need is read in *blocks*: the planes that are wanted of one row of chunks, or as many of them as memory allows. Blocks are read
ahead in a window, slices are put together from them.
"""

from __future__ import annotations

import asyncio
import math
import time
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias, TypedDict, cast

import numpy as np

from azarr.axis_plans import AnyAxisPlan, IndexAxisPlan
from azarr.chunk_reader import Failure
from azarr.chunk_sources import ChunkSource
from azarr.engine import Engine
from azarr.errors import SelectionError, StreamError, StreamTimeoutError
from azarr.progress import ProgressOption, progress_of
from azarr.projections import Plan
from azarr.runners import TaskRunner
from azarr.selection import AnySelection, PointSelection, Positions
from azarr.stream import LOOP_SHARE, Counts, OnError, Stream
from azarr.streaming import BATCH_NBYTES, FILTERED, TIMEOUT, StreamOptions, check, fingerprint_of, position
from azarr.types import Array, Coords, element_nbytes
from azarr.window import Window

ROW_LENGTH = 64
"""Planes that count as a row of chunks where an axis was selected with indices, whose order has nothing to do with chunks."""

MEASURED = 4096
"""Rows of chunks whose lengths are looked at to find the longest."""

INLINE_NBYTES = 64 * 2**10
"""Slices up to this size are put together on the loop, in microseconds; larger ones in a worker."""

Read: TypeAlias = Callable[[slice | Positions], Awaitable[Array]]
"""Reads planes of a view."""


class SliceOptions(TypedDict, total=False):
    """The keywords of ``stream_slices`` that streams of chunks have as well; ``AsyncArray.stream_slices`` says what they mean."""

    concurrency: int | None
    memory: int | None
    timeout: float | None
    filter: Callable[[int], bool] | None
    on_error: OnError
    progress: ProgressOption
    start_after: int | str | None
    shard: int | None
    of: int | None


@dataclass(frozen=True, slots=True)
class Slice:
    """The planes from ``start`` up to, not including, ``stop`` along the axis that is streamed.

    ``region`` is where ``data`` belongs in the array or view that was streamed: ``result[region] = data`` puts it there. The data is the
    receiver's own.
    """

    start: int
    stop: int
    region: tuple[slice | int, ...]
    data: Array

    @property
    def coords(self) -> Coords:
        """``start``, as a place."""
        return (self.start,)


class Planes(NamedTuple):
    """Which planes slices hold: one begins at each of ``starts`` and is up to ``thickness`` long, but none goes beyond ``stop``."""

    axis: int
    starts: range
    stop: int
    thickness: int
    dropped: bool

    def bounds(self, start: int) -> tuple[int, int]:
        """The first plane of the slice that begins at ``start``, and the one after its last."""
        return start, min(start + self.thickness, self.stop)


class Rows:
    """Where the rows of chunks lie along an axis of a view, in the view's own order."""

    def __init__(self, plan: AnyAxisPlan, length: int, *, backwards: bool) -> None:
        self._plan, self._length, self._backwards = plan, length, backwards
        self._indexed = isinstance(plan, IndexAxisPlan)
        self.count = -(-length // ROW_LENGTH) if self._indexed else plan.count
        self._latest = -1, 0, 0

    def bounds(self, number: int) -> tuple[int, int]:
        """The first plane of a row, and the one after its last."""
        if self._indexed:
            return number * ROW_LENGTH, min(number * ROW_LENGTH + ROW_LENGTH, self._length)
        if self._backwards:
            out = cast("slice", self._plan[self.count - 1 - number].out)
            return self._length - out.stop, self._length - out.start
        out = cast("slice", self._plan[number].out)
        return out.start, out.stop

    def end(self, plane: int) -> int:
        """The plane after the last of the row that ``plane`` is in."""
        number, low, high = self._latest
        if not low <= plane < high:  # most often it is in the next one
            if plane != high:
                number = bisect_right(range(self.count), plane, key=lambda number: self.bounds(number)[0]) - 2
            low, high = self.bounds(number + 1)
            self._latest = number + 1, low, high
        return high

    def split(self, positions: Positions) -> list[Positions]:
        """``positions``, ascending, row by row."""
        parts, low = [], 0
        while low < len(positions):
            high = int(np.searchsorted(positions, self.end(int(positions[low]))))
            parts.append(positions[low:high])
            low = high
        return parts

    @property
    def longest(self) -> int:
        """The length of the longest row, of those that are looked at."""
        bounds = map(self.bounds, range(min(self.count, MEASURED)))
        return max((high - low for low, high in bounds), default=1)


class Block(NamedTuple):
    """Planes that are read at once: those at ``positions``, ascending; and with their ``data``, or the error that took their place."""

    positions: Positions
    data: Array | Exception | None = None


class Blocks:
    """Plans blocks for slices, lazily; ``started`` has the slices that the blocks so far are for.

    A block has ``longest`` planes at most, and planes of several rows only up to ``enough``.
    """

    def __init__(self, planes: Planes, rows: Rows, longest: int, enough: int, keep: Callable[[int], bool] | None, counts: Counts) -> None:
        self.started: deque[int] = deque()
        self._planes, self._rows, self._longest, self._enough = planes, rows, longest, enough
        self._keep, self._counts = keep, counts

    def __iter__(self) -> Iterator[Block | None]:
        pieces: list[Positions] = []
        count = end = covered = rejected = 0
        for start in self._planes.starts:
            if self._keep is not None and not self._keep(start):
                self._counts.filtered += 1
                if (rejected := rejected + 1) % FILTERED == 0:
                    yield None  # the loop has its turn
                continue
            low, high = self._planes.bounds(start)
            low = max(low, covered)
            self.started.append(start)
            while low < high:
                if pieces and (count >= self._enough if low >= end else count == self._longest):
                    yield Block(np.concatenate(pieces))
                    pieces, count = [], 0
                if not pieces or low >= end:
                    end = self._rows.end(low)
                stop = min(high, end, low + self._longest - count)
                pieces.append(np.arange(low, stop))
                count += stop - low
                low = covered = stop
        if pieces:
            yield Block(np.concatenate(pieces))


class SliceStream(Stream[Slice, Window[Block, list[Block]]]):
    """The slices of an array, one by one: ``async with array.stream_slices("time") as slices: async for each in slices: ...``."""

    def __init__(
        self,
        window: Window[Block, list[Block]],
        total: int,
        *,
        planes: Planes,
        blocks: Blocks,
        target: Target,
        engine: Engine,
        **options: Any,
    ) -> None:
        super().__init__(window, total, **options)
        self._planes, self._plan, self._target, self._engine = planes, blocks, target, engine
        self._blocks: deque[Block] = deque()
        self._rested = 0.0

    async def _outcome(self) -> Slice | Failure:
        while not self._plan.started:
            await self._take()
        low, high = self._planes.bounds(self._plan.started.popleft())
        while not self._blocks or self._blocks[-1].positions[-1] < high - 1:
            await self._take()
        while self._blocks[0].positions[-1] < low:
            self._blocks.popleft()
        crossed = [block for block in self._blocks if block.positions[0] < high]
        for block in crossed:
            if isinstance(block.data, Exception):
                return Failure((low,), block.data)
        only = crossed[0].data if len(crossed) == 1 and self._planes.starts.step >= self._planes.thickness else None
        if isinstance(only, np.ndarray) and only.shape[self._planes.axis] == high - low:
            self._blocks.popleft()
            return self._slice(low, high, only)
        if (high - low) * self._target.plane_nbytes > INLINE_NBYTES:
            return self._slice(low, high, await self._engine.call(self._target.put_together, crossed, low, high))
        if time.perf_counter() - self._rested > LOOP_SHARE:
            await asyncio.sleep(0)
            self._rested = time.perf_counter()
        return self._slice(low, high, self._target.put_together(crossed, low, high))

    async def _take(self) -> None:
        blocks = await self._window.take()
        self._window.release(self._target.weight_of(sum(len(block.positions) for block in blocks)))
        self._blocks.extend(blocks)
        self._rested = time.perf_counter()

    def _slice(self, low: int, high: int, data: Array) -> Slice:
        axis, shape = self._planes.axis, self._target.shape
        before, after = shape[:axis], shape[axis + 1 :]
        place = low if self._planes.dropped else slice(low, high)
        region = (*(slice(0, length) for length in before), place, *(slice(0, length) for length in after))
        return Slice(low, high, region, data.reshape((*before, *after)) if self._planes.dropped else data)

    def _buffer(self) -> tuple[int, int, int]:
        waiting = [*self._blocks, *(block for blocks in self._window.waiting() for block in blocks)]
        return self._window.running, len(waiting), sum(getattr(block.data, "nbytes", 0) for block in waiting)

    def _drop(self) -> None:
        self._blocks.clear()


@dataclass(frozen=True, slots=True)
class Target:
    """What slices are made to fit: a view of ``shape`` and ``dtype``, along ``axis``. A block weighs ``least`` at least."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axis: int
    least: int

    @property
    def plane_nbytes(self) -> int:
        """The size of one plane."""
        return max(1, math.prod(self.shape[: self.axis] + self.shape[self.axis + 1 :]) * element_nbytes(self.dtype))

    def weight_of(self, count: int) -> int:
        """How much of the window a block of ``count`` planes takes, in bytes."""
        return max(self.least, count * self.plane_nbytes)

    def weight(self, block: Block) -> int:
        """How much of the window a block takes, in bytes."""
        return self.weight_of(len(block.positions))

    def put_together(self, blocks: list[Block], low: int, high: int) -> Array:
        """The planes from ``low`` to ``high`` in memory of their own."""
        data = np.empty((*self.shape[: self.axis], high - low, *self.shape[self.axis + 1 :]), self.dtype)
        before = (slice(None),) * self.axis
        for positions, part in blocks:
            first, last = np.searchsorted(positions, [low, high])
            if first < last and isinstance(part, np.ndarray):
                place = slice(int(positions[first]) - low, int(positions[last - 1]) + 1 - low)
                data[(*before, place)] = part[(*before, slice(int(first), int(last)))]
        return data


def stream_slices(
    source: ChunkSource, selection: AnySelection, engine: Engine, planes: Planes, read: Read, dtype: np.dtype[Any], options: SliceOptions
) -> SliceStream:
    """The slices that ``planes`` describes of a view, read by ``read``; must be called on the loop that the stream is used on."""
    check(cast("StreamOptions", options), SliceOptions)
    if isinstance(selection, PointSelection):
        raise SelectionError("points have no planes; stream their chunks, or select with oindex")
    of_array = [number for number, axis in enumerate(selection.axes) if not axis.dropped][planes.axis]
    extent, length = source.extent(selection.forward()), selection.shape[planes.axis]
    backwards = of_array in selection.reversed
    rows = Rows(cast("Plan", extent.chunks).axes[of_array], length, backwards=backwards)
    fingerprint = fingerprint_of(source, selection, cast("StreamOptions", options), str(planes))
    units = Rows(cast("Plan", extent.units).axes[of_array], length, backwards=backwards)
    starts = rest(share(planes.starts, units, options), options, fingerprint)
    planes = planes._replace(starts=starts)

    across = math.prod(axis.count for number, axis in enumerate(cast("Plan", extent.chunks).axes) if number != of_array)
    concurrency = options.get("concurrency") or engine.concurrency
    target = Target(selection.shape, dtype, planes.axis, 1)
    free = max(1, (options.get("memory") or engine.memory) // target.plane_nbytes - planes.thickness)  # in planes, besides the slice itself
    # a row that fits is read at once, for each chunk is then decoded once; else two parts of a row at a time
    longest = rows.longest if rows.longest <= free else max(1, free // 2)
    # a job for every small row would cost more than the row, where nothing is awaited that another could use
    enough = min(free // 2, BATCH_NBYTES // target.plane_nbytes) if source.blocking else 0
    longest = max(longest, enough)
    limit = max(longest, free - longest) * target.plane_nbytes
    target = replace(target, least=max(1, limit * across // max(across, concurrency)))
    counts = Counts()
    blocks = Blocks(planes, rows, longest, enough, options.get("filter"), counts)
    timeout = options.get("timeout", TIMEOUT)
    runner = TaskRunner(counts.counting(partial(read_block, read, rows, None if timeout is None else timeout * -(-across // concurrency))))
    return SliceStream(
        Window(iter(blocks), runner, limit, ordered=True, weigh=target.weight, heaviest=max(target.least, longest * target.plane_nbytes)),
        len(starts),
        planes=planes,
        blocks=blocks,
        target=target,
        engine=engine,
        counts=counts,
        fingerprint=fingerprint,
        on_error=options.get("on_error", "raise"),
        progress=progress_of(options.get("progress"), "slices"),
        observer=source.operation(engine.telemetry).observer,
    )


async def read_block(read: Read, rows: Rows, seconds: float | None, block: Block) -> list[Block]:
    """The block with its data; row by row where something is wrong with it."""
    whole = await read_planes(read, seconds, block.positions)
    if isinstance(whole.data, Exception) and len(parts := rows.split(block.positions)) > 1:
        return [await read_planes(read, seconds, part) for part in parts]
    return [whole]


async def read_planes(read: Read, seconds: float | None, positions: Positions) -> Block:
    """The planes at ``positions``, or the error that stands for them."""
    try:
        async with asyncio.timeout(seconds):
            return Block(positions, await read(key_of(positions)))
    except TimeoutError:
        low, high = int(positions[0]), int(positions[-1])
        message = f"the planes from {low} to {high} were not there after {seconds} s; see the stream's timeout"
        return Block(positions, StreamTimeoutError(message, coords=(low,)))
    except Exception as error:  # noqa: BLE001 - belongs to the slices that it is about
        return Block(positions, error)


def key_of(positions: Positions) -> slice | Positions:
    """What selects planes: a slice where one does."""
    first, last, count = int(positions[0]), int(positions[-1]), len(positions)
    step = 1 if count == 1 else int(positions[1]) - first
    if first + (count - 1) * step == last and bool(np.all(np.diff(positions) == step)):
        return slice(first, last + 1, step)
    return positions


def share(starts: range, units: Rows, options: SliceOptions) -> range:
    """The slices that begin in this share of the rows of units."""
    shard, of = options.get("shard"), options.get("of")
    if shard is None or of is None:
        return starts
    first, last = (number * units.count // of for number in (shard, shard + 1))
    if first == last:
        return starts[:0]
    return starts[bisect_left(starts, units.bounds(first)[0]) : bisect_left(starts, units.bounds(last - 1)[1])]


def rest(starts: range, options: SliceOptions, fingerprint: str) -> range:
    """The slices that come after the one that ``start_after`` names."""
    after = options.get("start_after")
    if after is None:
        return starts
    place = position(after, fingerprint) if isinstance(after, str) else (after,)
    if len(place) != 1:
        raise StreamError(f"{after!r:.100} is not a token of a stream of slices")
    return starts[bisect_right(starts, place[0]) :]


def planes_of(
    view_shape: tuple[int, ...],
    names: tuple[str | None, ...],
    along: int | str,
    start: int | None,
    stop: int | None,
    step: int | None,
    thickness: int | None,
) -> Planes:
    """The planes that a user asks for; ``SelectionError`` where there is no such axis, or a step or thickness that leads nowhere."""
    if isinstance(along, str):
        if names.count(along) != 1:
            raise SelectionError(f"there is no dimension {along!r} to stream along; the dimensions are {list(names)}")
        axis = names.index(along)
    else:
        if not -len(view_shape) <= along < len(view_shape):
            raise SelectionError(f"there is no axis {along} to stream along; there are {len(view_shape)}")
        axis = along % len(view_shape)
    for name, value in (("step", step), ("thickness", thickness)):
        if value is not None and value < 1:
            raise SelectionError(f"{name} must be at least 1, not {value}")
    thick = 1 if thickness is None else thickness
    first, last, _ = slice(start, stop).indices(view_shape[axis])
    return Planes(axis, range(first, last, thick if step is None else step), last, thick, thickness is None)
