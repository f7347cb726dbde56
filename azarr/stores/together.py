"""Many requests at once, of which one failure ends all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
ItemT = TypeVar("ItemT")


async def together(request: Callable[[ItemT], Awaitable[T]], items: Iterable[ItemT]) -> list[T]:
    """The answers for all ``items``, in their order; where one fails, the others are cancelled, and its error comes out."""
    tasks = [asyncio.ensure_future(request(item)) for item in items]
    try:
        return [await task for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
