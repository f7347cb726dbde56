"""Resizing: an array gets another shape first, and then loses what lies outside of it, so that it reads as fill value if it grows again."""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import SupportsIndex

import numpy as np

from azarr.chunk_lengths import count_of, place_of, start_of
from azarr.chunk_sources import ChunkSource, stored_units
from azarr.engine import Engine
from azarr.errors import WriteError
from azarr.extents import Place, in_turn, publish
from azarr.locks import locks_of
from azarr.metadata.model import ArrayMetadata
from azarr.rewriting import rewrite
from azarr.runners import TaskRunner
from azarr.selection import AxisSelection, Selection
from azarr.stores.base import ListableStore
from azarr.turns import Turn
from azarr.types import Buffer, Coords
from azarr.window import Window
from azarr.writing import Guard, write

ENUMERATED = 10_000
"""More chunks than these are not erased one by one where they may not exist: the store is asked which of them do."""


def checked_shape(shape: Sequence[SupportsIndex] | SupportsIndex, ndim: int) -> tuple[int, ...]:
    """A new shape for an array of ``ndim`` dimensions; ``WriteError`` where it is none."""
    lengths = tuple(shape) if isinstance(shape, Sequence | np.ndarray) else (shape,)
    try:
        checked = tuple(map(operator.index, lengths))
    except TypeError:
        raise WriteError(f"a shape is made of whole numbers, not {shape!r:.100}") from None
    if len(checked) != ndim:
        raise WriteError(f"an array of {ndim} dimensions cannot be resized to {checked}, which has {len(checked)}")
    if any(length < 0 for length in checked):
        raise WriteError(f"an array cannot be resized to {checked}: lengths must not be negative")
    return checked


async def resize(place: Place, own: ArrayMetadata, shape: tuple[int, ...], take: Callable[[ArrayMetadata], None]) -> None:
    """Give the array another ``shape``, and clear what lies outside of it; ``take`` is called as soon as it is published."""

    async def work(turn: Turn) -> None:
        before = own
        await turn.begin()

        def stored(was: ArrayMetadata, now: ArrayMetadata) -> None:
            nonlocal before
            before = was
            take(now)

        await publish(place, own, turn, lambda _: shape, stored, last=False)
        await clear(place, before, shape, None if turn.claim is None else turn.claim.check)

    await in_turn(place, own, work)


async def clear(place: Place, before: ArrayMetadata, shape: tuple[int, ...], guard: Guard | None) -> None:
    """Erase the chunks and shards that are outside of ``shape``, and fill the part of others that is."""
    lengths = before.chunk_grid.chunk_lengths
    whole = tuple(start_of(count_of(length, each), each) for length, each in zip(before.shape, lengths, strict=True))
    kept = tuple(new if new < old else end for new, old, end in zip(shape, before.shape, whole, strict=True))
    outside = list(boxes(kept, whole))
    if not outside:
        return
    metadata = before.with_shape(whole)  # so that nothing hangs over the edge
    source, grid = place.source_of(metadata), metadata.chunk_grid
    fill = np.full((), source.pipeline.spec.fill, source.pipeline.spec.dtype)

    async def clear_unit(unit: Coords) -> None:
        region = grid.region(unit)
        if any(axis.start >= end for axis, end in zip(region, kept, strict=True)):
            await erase(source, source.key(unit), place.engine, guard)
            return
        for box in outside:
            part = tuple(map(intersection, region, box))
            if all(axis.length for axis in part):
                values = np.broadcast_to(fill, [axis.length for axis in part])
                await write(source, Selection(part), values, place.engine, guard)

    async def clear_units(units: Iterator[Coords]) -> None:
        await Window(units, TaskRunner(clear_unit), place.engine.concurrency).drain()

    spans = [
        [range(place_of(axis.start, each), count_of(axis.stop, each)) for axis, each in zip(box, lengths, strict=True)] for box in outside
    ]
    if sum(math.prod(map(len, span)) for span in spans) <= ENUMERATED or not isinstance(place.store, ListableStore):
        await clear_units(itertools.chain.from_iterable(itertools.product(*span) for span in spans))
        return
    stored = [unit async for unit in stored_units(source) if any(map(partial(is_within, unit), spans))]
    await clear_units(iter(stored))


def is_within(unit: Coords, span: Sequence[range]) -> bool:
    """Whether ``unit`` lies in a block of units."""
    return all(index in axis for index, axis in zip(unit, span, strict=True))


def boxes(kept: tuple[int, ...], whole: tuple[int, ...]) -> Iterator[tuple[slice, ...]]:
    """What is in ``whole`` but not in ``kept``, in blocks that have nothing in common."""
    for axis, (start, stop) in enumerate(zip(kept, whole, strict=True)):
        box = (*map(slice, [0] * axis, kept[:axis]), slice(start, stop), *map(slice, [0] * (len(whole) - axis - 1), whole[axis + 1 :]))
        if all(part.start < part.stop for part in box):
            yield box


def intersection(first: slice, second: slice) -> AxisSelection:
    """What two slices have in common."""
    start = max(first.start, second.start)
    return AxisSelection(start, max(0, min(first.stop, second.stop) - start))


async def erase(source: ChunkSource, key: str, engine: Engine, guard: Guard | None) -> None:
    """Erase what is stored under ``key``."""

    async def nothing(_: Buffer | None) -> None:
        if guard is not None:
            guard()

    async with locks_of(source.store).hold(key):
        if guard is not None:
            await rewrite(source.store, key, nothing, requests=engine.requests())
        else:
            async with engine.requests():
                await source.store.erase(key)
