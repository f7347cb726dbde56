"""Writing: from one array into encoded chunks.

What a store holds under one key (a chunk, or a shard) is rewritten as a whole, under the lock of that key: where only a part of it
is written, the rest is read first and kept. That goes for chunks at the edge of the array, too, even if all that the array has of them
is written: somebody else may have made the array longer meanwhile, and filled what hangs over the edge.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from azarr.chunk_sources import ChunkSource
from azarr.crew import Crew
from azarr.data_types import DataType
from azarr.engine import Engine
from azarr.errors import CodecError, WriteError
from azarr.locks import KeyedLocks, locks_of
from azarr.projections import Projection
from azarr.rewriting import rewrite
from azarr.selection import AnySelection
from azarr.types import Array, Buffer
from azarr.window import TaskRunner, Window


async def write(source: ChunkSource, selection: AnySelection, values: Array, engine: Engine) -> None:
    """Store ``values`` (every axis of the array, dropped ones with length 1, the array's data type) where ``selection`` says."""
    locks = locks_of(source.store)
    nbytes = replace(source.pipeline.spec, shape=source.unit_shape).nbytes
    if source.blocking:
        await write_blocking(source, locks, selection, values, engine)
    else:
        task = partial(write_unit, source, locks, selection, values, engine)
        await Window(source.extent(selection).units.projections(), TaskRunner(task), engine.window(nbytes)).drain()


async def write_blocking(source: ChunkSource, locks: KeyedLocks, selection: AnySelection, values: Array, engine: Engine) -> None:
    """As ``write``, on a store whose calls block: everything is done in workers."""

    def begin(unit: Projection) -> None:
        key = source.key(unit.coords)
        crew.begin(partial(locks.acquire_or_call, key), partial(write_held_unit, unit, key))

    def write_held_unit(unit: Projection, key: str) -> None:
        try:
            if crew.stopped:
                return
            if not unit.full:
                source.store.update_blocking(key, lambda old: updated(source, old, unit, selection, values))
            elif (new := updated(source, None, unit, selection, values)) is None:
                source.store.erase_blocking(key)
            else:
                source.store.set_blocking(key, new)
        finally:
            locks.release(key)

    crew = Crew(engine, source.extent(selection).units.projections(), begin)
    await crew.run()


async def write_unit(
    source: ChunkSource, locks: KeyedLocks, selection: AnySelection, values: Array, engine: Engine, unit: Projection
) -> None:
    """Write one unit, with the requests on the loop and the codecs in a worker."""
    key, store, requests = source.key(unit.coords), source.store, engine.requests()

    async def change(old: Buffer | None) -> Buffer | None:
        return await engine.call(updated, source, old, unit, selection, values)

    async with locks.hold(key):
        if not unit.full:
            await rewrite(store, key, change, requests=requests, probably_absent=unit.covers)
            return
        new = await change(None)
        async with requests:
            await (store.erase(key) if new is None else store.set(key, new))


def updated(source: ChunkSource, old: Buffer | None, unit: Projection, selection: AnySelection, values: Array) -> Buffer | None:
    """The new value of a unit; an error says which unit it is about."""
    try:
        return source.update(old, unit, selection, values)
    except CodecError as error:
        if unit.covers and old is not None:  # nothing that the array has of the unit is needed: so what is damaged can be replaced
            return updated(source, None, unit, selection, values)
        error.coords = error.coords or unit.coords
        raise


def conform(value: object, data_type: DataType, shape: tuple[int, ...]) -> Array:
    """``value`` as an array that NumPy assigns to elements of ``data_type``, broadcast to the shape of what it is written to.

    Raises ``WriteError`` where the shape does not broadcast, where the kind of data does not fit (complex to real, real to whole
    numbers, numbers to text), and where a whole number is out of range, a text too long or a time between two ticks: a write never
    changes values silently, except that floating-point numbers are rounded to the array's precision.
    """
    array = data_type.as_array(value, len(shape))
    try:
        np.broadcast_to(array, shape)
    except ValueError:
        raise WriteError(f"a value of shape {array.shape} does not broadcast to the selected shape {shape}") from None
    return np.broadcast_to(data_type.conform(array), shape)
