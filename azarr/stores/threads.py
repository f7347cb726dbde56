"""Blocking calls of stores, made in threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def to_its_end(call: Callable[..., T], *args: object) -> T:
    """The answer of ``call`` from a worker thread. A caller that is cancelled goes only when the thread is done."""
    job = asyncio.get_running_loop().run_in_executor(None, call, *args)
    cancelled = None
    while not job.done():
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from job.exception()
    return job.result()
