"""Blocking calls of stores, made in threads; and waiting for what cannot be given up halfway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from azarr.stores.base import AT_HAND_NBYTES, BlockingStore, Request, Stamped, StampingStore, Store, at_hand
from azarr.types import Buffer, ByteRange

T = TypeVar("T")


async def to_its_end(call: Callable[..., T], *args: object) -> T:
    """The answer of ``call`` from a worker thread. A caller that is cancelled goes only when the thread is done."""
    return await ended(asyncio.get_running_loop().run_in_executor(None, call, *args))


async def ended(job: asyncio.Future[T]) -> T:
    """The outcome of ``job``, which nobody else cancels. A caller that is cancelled goes only when the job is done."""
    cancelled = None
    while not job.done():
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from None if job.cancelled() else job.exception()
    return job.result()


class ThreadedStore(Store, BlockingStore, StampingStore):
    """A store whose calls block: what is awaited is called in a worker thread, unless it is a small value at hand.

    A write or an erasure that is cancelled ends only when its thread has, so that it cannot overtake what the caller does next.
    """

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        prompt = at_hand(self)
        if prompt is None or not (byte_range is None or (isinstance(byte_range, ByteRange) and byte_range.start == 0)):
            return await asyncio.to_thread(self.get_blocking, key, byte_range)
        most = AT_HAND_NBYTES if byte_range is None or byte_range.stop is None else min(AT_HAND_NBYTES, byte_range.stop)
        try:
            value = prompt(key, most, lambda nbytes: memoryview(bytearray(nbytes)))
        except (OSError, UnicodeEncodeError):  # a thread finds out
            return await asyncio.to_thread(self.get_blocking, key, byte_range)
        await asyncio.sleep(0)  # whoever reads value after value leaves others their turn
        return None if value is None else bytes(value)

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        return await asyncio.to_thread(self.get_stamped_blocking, key, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        await to_its_end(self.set_blocking, key, value)

    async def erase(self, key: str) -> None:
        await to_its_end(self.erase_blocking, key)
