"""Writing: from one array into encoded chunks.

What a store holds under one key (a chunk, or a shard) is rewritten as a whole, under the lock of that key: where only a part of it
is written, the rest is read first and kept. That goes for chunks at the edge of the array, too, even if all that the array has of them
is written: somebody else may have made the array longer meanwhile, and filled what hangs over the edge.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from azarr.chunk_sources import ChunkSource, Piece
from azarr.crew import SHARES, Crew
from azarr.data_types import DataType
from azarr.engine import Engine
from azarr.errors import CodecError, WorkerError, WriteError
from azarr.locks import KeyedLocks, locks_of
from azarr.observing import chunk_write, telling
from azarr.projections import Projection
from azarr.rewriting import rewrite
from azarr.runners import TaskRunner
from azarr.selection import AnySelection
from azarr.stores.base import BeginSet, End, in_steps
from azarr.types import Array, Buffer, Coords, element_nbytes
from azarr.window import Window

ENCODING = 4
"""How much longer encoding takes than decoding, or so."""

Guard: TypeAlias = Callable[[], None]
"""Raises where what is about to be written must not be written any more."""


class Unit(NamedTuple):
    """What is written to one unit: ``pieces``, one after the other.

    ``covers``: together they are all that the array has of the unit. ``full``: they are all of it, nothing of which hangs over the edge.
    ``encoded`` is there where the new value has been made already, ``(None,)`` where it is nothing but fill value.
    """

    coords: Coords
    pieces: Sequence[Piece]
    covers: bool
    full: bool
    encoded: tuple[Buffer | None] | None = None

    def kept_by(self, source: ChunkSource) -> Unit:
        """The same; but where ``source`` is of one field of the elements only, something of what is stored is always kept."""
        return self._replace(covers=False, full=False) if source.pipeline.field else self


def unit_of(projection: Projection, selection: AnySelection, values: Array) -> Unit:
    """The unit that ``projection`` is of, to which a part of ``values`` is written."""
    return Unit(projection.coords, (Piece(projection, selection, values),), projection.covers, projection.full)


async def write(source: ChunkSource, selection: AnySelection, values: Array, engine: Engine, guard: Guard | None = None) -> None:
    """Store ``values`` (every axis of the array, dropped ones with length 1, the array's data type) where ``selection`` says.

    With a ``guard``, which only stores that are awaited take, everything is written on condition that it is what it was before the guard
    was asked.
    """
    source, locks = source.operation(engine.telemetry, engine.place), locks_of(source.store)
    with telling(source.observer, "write", nbytes=values.size * element_nbytes(source.pipeline.spec.dtype)):
        if source.blocking:
            await write_blocking(source, locks, selection, values, engine)
            return

        async def write_one(unit: Projection) -> None:
            await write_unit(source, locks, unit_of(unit, selection, values), engine, guard)

        nbytes = replace(source.pipeline.spec, shape=source.unit_shape).nbytes
        await Window(source.extent(selection).units.projections(), TaskRunner(write_one), engine.window(nbytes)).drain()


async def write_blocking(source: ChunkSource, locks: KeyedLocks, selection: AnySelection, values: Array, engine: Engine) -> None:
    """As ``write``, on a store whose calls block: everything is done in workers."""
    units = source.extent(selection).units
    # a worker that has nothing to go on with may as well wait; and where somebody listens, the store is one that tells of whole writes
    begin_set = in_steps(source.store) if units.nchunks > engine.executor.workers else None

    def begin(projection: Projection) -> None:
        begin_unit(unit_of(projection, selection, values))

    def begin_some(projections: Iterable[Projection]) -> None:
        for unit in encoded_ahead(source, [unit_of(projection, selection, values) for projection in projections]):
            begin_unit(unit)

    def begin_unit(unit: Unit) -> None:
        key = source.key(unit.coords)
        crew.begin(partial(locks.acquire_or_call, key), partial(write_one, unit, key))

    def write_one(unit: Unit, key: str) -> None:
        end = None
        try:
            if not crew.stopped:
                end = write_held_unit(source, key, unit, begin_set)
        finally:
            if end is None:
                locks.release(key)
        if end is not None:
            crew.leave(partial(end_one, end, key))

    def end_one(end: End, key: str) -> None:
        try:
            end()
        finally:
            locks.release(key)

    together = min(source.together, units.nchunks // (SHARES * max(1, engine.executor.workers)))
    left = units.projections()
    crew: Crew[Any] = Crew(engine, groups(left, together), begin_some) if together > 1 else Crew(engine, left, begin)
    await crew.run()


def groups(units: Iterator[Projection], length: int) -> Iterator[tuple[Projection, ...]]:
    """``units``, so many at a time."""
    while group := tuple(itertools.islice(units, length)):
        yield group


def encoded_ahead(source: ChunkSource, units: list[Unit]) -> list[Unit]:
    """``units``, those that can be encoded together as such, before anybody holds their locks: what they are to be depends on nothing else.

    Where one cannot be encoded, none is: that is found out when it is written.
    """
    whole = [number for number, unit in enumerate(units) if unit.kept_by(source).full]
    if source.together == 1 or len(whole) < 2 or source.observer is not None:  # who wants to know how long each took
        return units
    try:
        values = source.encode_units([units[number].pieces for number in whole])
    except Exception:  # noqa: BLE001 - as above
        return units
    ahead = units.copy()
    for number, value in zip(whole, values, strict=True):
        ahead[number] = units[number]._replace(encoded=(value,))
    return ahead


def write_held_unit(source: ChunkSource, key: str, unit: Unit, begin_set: BeginSet | None = None) -> End | None:
    """Write the unit at ``key``; for workers, on a store whose calls block, under the lock of the unit.

    With ``begin_set`` of the store, the end of the write is left to what is answered, where it only waits.
    """
    store, unit = source.store, unit.kept_by(source)
    with chunk_write(source, unit.coords):
        if not unit.full:
            store.update_blocking(key, partial(updated, source, unit))
        elif (new := updated(source, unit, None)) is None:
            store.erase_blocking(key)
        elif begin_set is not None:
            return begin_set(key, new)
        else:
            store.set_blocking(key, new)
    return None


async def write_unit(source: ChunkSource, locks: KeyedLocks, unit: Unit, engine: Engine, guard: Guard | None = None) -> None:
    """Write one unit, with the requests on the loop and the codecs in a worker."""
    key, store, requests, unit = source.key(unit.coords), source.store, engine.requests(), unit.kept_by(source)

    async def change(old: Buffer | None) -> Buffer | None:
        if guard is not None:
            guard()
        if engine.on_loop(source.pipeline, ENCODING * source.pipeline.spec.nbytes * math.prod(source.chunks_per_unit)):
            return updated(source, unit, old)
        return await engine.call(updated, source, unit, old)

    async with locks.hold(key):
        with chunk_write(source, unit.coords):
            if not unit.full or guard is not None:
                await rewrite(store, key, change, requests=requests, probably_absent=unit.covers)
                return
            new = await change(None)
            async with requests:
                await (store.erase(key) if new is None else store.set(key, new))


def updated(source: ChunkSource, unit: Unit, old: Buffer | None) -> Buffer | None:
    """The new value of a unit; an error says which unit it is about."""
    if unit.encoded is not None:
        return unit.encoded[0]
    try:
        return source.update(old, unit.pieces)
    except CodecError as error:
        if (
            unit.covers and old is not None and not isinstance(error, WorkerError)
        ):  # nothing that the array has of the unit is needed: so what is damaged can be replaced
            return updated(source, unit, None)
        error.coords = error.coords or unit.coords
        raise


def conform(value: object, data_type: DataType, shape: tuple[int, ...], *, broadcast: bool = True) -> Array:
    """``value`` as an array that NumPy assigns to elements of ``data_type``, broadcast to the shape of what it is written to.

    Raises ``WriteError`` where the shape does not broadcast (without ``broadcast``: where it is another), where the kind of data does not
    fit (complex to real, real to whole numbers, numbers to text), and where a whole number is out of range, a text too long or a time
    between two ticks: a write never changes values silently, except that floating-point numbers are rounded to the array's precision.
    """
    array = data_type.as_array(value, len(shape))
    if array.shape == shape:
        return data_type.conform(array)
    if not broadcast:
        raise WriteError(f"a value of shape {array.shape} is not of the selected shape {shape}")
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise WriteError(f"a value of shape {array.shape} does not broadcast to the selected shape {shape}") from None
    return np.broadcast_to(data_type.conform(array), shape)
