"""Blocking calls of stores, made in threads; and waiting for what cannot be given up halfway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from azarr.stores.base import BlockingStore, Request, Stamped, StampingStore, Store
from azarr.types import Buffer

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
    """A store whose calls block: what is awaited is called in a worker thread.

    A write or an erasure that is cancelled ends only when its thread has, so that it cannot overtake what the caller does next.
    """

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return await asyncio.to_thread(self.get_blocking, key, byte_range)

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        return await asyncio.to_thread(self.get_stamped_blocking, key, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        await to_its_end(self.set_blocking, key, value)

    async def erase(self, key: str) -> None:
        await to_its_end(self.erase_blocking, key)
