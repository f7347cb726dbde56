"""Blocking calls of stores, made in threads; and waiting for what cannot be given up halfway."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

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
