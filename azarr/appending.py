"""Appending: data are stored behind the end of an array, and then the array gets the shape that has them.

Small appends that wait for their turn in this process are stored together: one change of the metadata, and one of each chunk, for all.
"""

from __future__ import annotations

import asyncio
import operator
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from typing import SupportsIndex, TypeAlias

import numpy as np

from azarr import documents
from azarr.claims import OvertakenError
from azarr.data_types import DataType
from azarr.errors import StoreError, WriteError, ZarrError
from azarr.extents import Place, expect_array, in_turn, publish
from azarr.metadata.model import ArrayMetadata
from azarr.selection import AxisSelection, Selection
from azarr.stores.base import identity_of
from azarr.stores.threads import ended
from azarr.turns import Turn
from azarr.types import Array, element_nbytes
from azarr.writing import write

TOGETHER_NBYTES, BATCH_NBYTES = 2**20, 64 * 2**20
"""Appends of at most so many bytes are stored together, up to so many bytes at once; larger ones are stored alone, without a copy."""

Region: TypeAlias = tuple[slice, ...]


class Append:
    """Data that somebody waits for to be appended, and the region where they are once that is done."""

    __slots__ = ("axis", "error", "over", "region", "small", "take", "values")

    def __init__(self, values: Array, axis: int, take: Callable[[ArrayMetadata], None], *, small: bool) -> None:
        self.values, self.axis, self.take, self.small = values, axis, take, small
        self.region: Region = ()
        self.error: WriteError | StoreError | None = None
        self.over = False

    @property
    def length(self) -> int:
        """How much longer the array becomes."""
        return int(self.values.shape[self.axis])

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether the data have the lengths of an array of ``shape`` along all other axes; if not, that is its ``error``."""
        expected = (*shape[: self.axis], self.length, *shape[self.axis + 1 :])
        if self.values.shape != expected:
            self.fail(WriteError(f"data of shape {self.values.shape} cannot be appended to shape {shape} along axis {self.axis}"))
        return not self.over

    def fail(self, error: WriteError | StoreError) -> None:
        """It is over, with an error."""
        self.error, self.over = error, True

    def settle(self, shape: tuple[int, ...], start: int, published: ArrayMetadata) -> None:
        """It is over, and the data are in an array that had this ``shape``, from ``start`` on."""
        before, behind = shape[: self.axis], shape[self.axis + 1 :]
        self.region = (*map(slice, (0,) * len(before), before), slice(start, start + self.length), *map(slice, (0,) * len(behind), behind))
        self.over = True
        self.take(published)


class Queue:
    """The appends to one array that wait in this process, in the order in which they came."""

    __slots__ = ("__weakref__", "waiting")

    def __init__(self) -> None:
        self.waiting: list[Append] = []

    def enter(self, append: Append) -> None:
        """Wait for the turn."""
        with _mutex:
            self.waiting.append(append)

    def leave(self, append: Append) -> None:
        """Wait no more, whatever became of it."""
        with _mutex:
            self.waiting.remove(append)

    def batch(self, first: Append) -> list[Append]:
        """The appends that are stored with ``first``, whose turn it is."""
        nbytes, batch = first.values.nbytes, [first]
        with _mutex:
            for append in self.waiting if first.small else ():
                if append is not first and append.small and append.axis == first.axis and not append.over:
                    nbytes += append.values.nbytes
                    if nbytes > BATCH_NBYTES:
                        break
                    batch.append(append)
        return batch


_queues: weakref.WeakValueDictionary[tuple[Hashable, str], Queue] = weakref.WeakValueDictionary()
_mutex = threading.Lock()


def queue_of(store: object, path: str) -> Queue:
    """The queue of the array at ``path``, found as locks are."""
    with _mutex:
        return _queues.setdefault((identity_of(store), path), Queue())


async def append(place: Place, own: ArrayMetadata, data: object, axis: SupportsIndex, take: Callable[[ArrayMetadata], None]) -> Region:
    """Append ``data`` along ``axis``; the region where they are. ``take`` is called with the new metadata once these are published."""
    number = checked_axis(axis, len(own.shape))
    values, small = await place.engine.call(prepared, data, own.data_type, len(own.shape))
    mine, queue = Append(values, number, take, small=small), queue_of(place.store, place.path)
    queue.enter(mine)
    try:
        await in_turn(place, own, lambda turn: lead(place, own, turn, queue, mine))
    finally:
        queue.leave(mine)
    if mine.error is not None:
        raise mine.error
    return mine.region


def checked_axis(axis: SupportsIndex, ndim: int) -> int:
    """The number of an axis, counted from the first; ``WriteError`` where there is none."""
    try:
        number = operator.index(axis)
    except TypeError:
        raise WriteError(f"an axis is a whole number, not {axis!r:.100}") from None
    if not -ndim <= number < ndim:
        raise WriteError(f"an array of {ndim} dimensions has no axis {number} to append along")
    return number % ndim


def prepared(data: object, data_type: DataType, ndim: int) -> tuple[Array, bool]:
    """The data as they can be written, and whether they are few; few data are copied, as they may be stored by somebody else's task."""
    array = data_type.as_array(data, ndim)
    if array.ndim != ndim:
        raise WriteError(f"data of shape {array.shape} cannot be appended to an array of {ndim} dimensions; they need as many")
    values, dtype = data_type.conform(array), data_type.dtype
    if values.size * element_nbytes(dtype) > TOGETHER_NBYTES:
        return values, False
    copy = np.empty(values.shape, dtype)
    with np.errstate(over="ignore"):  # what a narrower float cannot hold is infinite in it
        copy[...] = values
    return copy, True


async def lead(place: Place, own: ArrayMetadata, turn: Turn, queue: Queue, mine: Append) -> None:
    """Append what waits, ``mine`` included, unless somebody else has done so; where the data cannot be stored, ``mine`` alone."""
    if mine.over:
        return
    await turn.begin()
    before = expect_array(await documents.read(place.store, place.path, place.engine.limits, own.zarr_format), place)
    batch = [each for each in queue.batch(mine) if each.fits(before.shape)]
    if mine not in batch:
        return
    if not any(each.length for each in batch):
        settle(before, before, batch)
        return
    try:
        after = await write_behind(place, before, turn, batch)
    except OvertakenError:
        raise
    except Exception:
        if len(batch) == 1:
            raise
        batch = [mine]  # perhaps it was because of what others append
        after = await write_behind(place, before, turn, batch)
    # not given up halfway, as then nobody would know whose data are in the array
    await ended(asyncio.get_running_loop().create_task(publish_all(place, own, turn, before, after, batch)))


async def write_behind(place: Place, before: ArrayMetadata, turn: Turn, batch: Sequence[Append]) -> ArrayMetadata:
    """The metadata that the array needs for the data of ``batch``, which have been stored behind its end."""
    axis, shape = batch[0].axis, before.shape
    values = batch[0].values if len(batch) == 1 else np.concatenate([each.values for each in batch], axis)
    after = before.with_shape((*shape[:axis], shape[axis] + values.shape[axis], *shape[axis + 1 :]))
    starts = (*(0,) * axis, shape[axis], *(0,) * (len(shape) - axis - 1))
    selection = Selection(tuple(map(AxisSelection, starts, values.shape)))
    await write(place.source_of(after), selection, values, place.engine, None if turn.claim is None else turn.claim.check)
    return after


async def publish_all(
    place: Place, own: ArrayMetadata, turn: Turn, before: ArrayMetadata, after: ArrayMetadata, batch: Sequence[Append]
) -> None:
    """Publish the shape that has the data of ``batch``."""

    def reshape(found: ArrayMetadata) -> tuple[int, ...]:
        if found.shape != before.shape:  # somebody has not waited for their turn
            raise OvertakenError
        return after.shape

    def stored(_: ArrayMetadata, published: ArrayMetadata) -> None:
        settle(before, published, batch)

    try:
        await publish(place, own, turn, reshape, stored, last=True)
    except OvertakenError:
        raise
    except Exception:
        if not all(append.over for append in batch):
            await find_out(place, own, before, after, batch)
        raise


def settle(before: ArrayMetadata, published: ArrayMetadata, batch: Sequence[Append]) -> None:
    """The appends of ``batch`` are over: their data lie one after the other behind what was the end of the array."""
    start = before.shape[batch[0].axis]
    for append in batch:
        append.settle(before.shape, start, published)
        start += append.length


async def find_out(place: Place, own: ArrayMetadata, before: ArrayMetadata, after: ArrayMetadata, batch: Sequence[Append]) -> None:
    """Whether the shape was published by an attempt that failed: those who wait for it must not append once more if it was."""
    found: documents.Metadata | None = None
    with suppress(ZarrError):
        found = await documents.read(place.store, place.path, place.engine.limits, own.zarr_format)
    if isinstance(found, ArrayMetadata) and found.shape == after.shape:
        settle(before, found, batch)
    elif not isinstance(found, ArrayMetadata) or found.shape != before.shape:
        for append in batch:
            append.fail(StoreError(f"whether the data are appended to {place.path or '/'!r} could not be found out", key=place.path))
