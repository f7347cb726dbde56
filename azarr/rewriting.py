"""Changing a value in a store that is awaited: it is read, changed and written back, and nothing that others write meanwhile is lost.

Those who ask within this process wait for each other before they come here. Where the store writes conditionally, whoever was
overtaken by another process reads again and makes the change once more; where it does not, the last one wins.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeAlias

from azarr.errors import PreconditionFailedError
from azarr.stores.base import Request, Versioned, as_conditional
from azarr.types import Buffer

Change: TypeAlias = Callable[[Buffer | None], Awaitable[Buffer | None]]
"""What a value becomes; ``None`` stands for an absent key in both. It may be called several times.

Nothing is written where it hands back what it was given.
"""

ATTEMPTS = 100
"""How often a change is made again because others were faster: more than ten processes do to each other, less than for ever."""

SHORTEST, LONGEST = 0.005, 1.0
"""Seconds to wait at most after the first lost race and after many, so that those who race get out of step."""

NO_LIMIT: AbstractAsyncContextManager[Any] = nullcontext()


async def rewrite(
    store: Any,
    key: str,
    change: Change,
    *,
    part: Request = None,
    requests: AbstractAsyncContextManager[Any] = NO_LIMIT,
    probably_absent: bool = False,
) -> None:
    """Replace the value at ``key`` by what ``change`` makes of it.

    ``part`` is how much of it is read, ``requests`` is held for each request. What is ``probably_absent`` is not read first where the
    store finds out while it writes. Raises ``PreconditionFailedError`` where others were faster again and again.
    """
    conditional = as_conditional(store)
    if conditional is None:
        async with requests:
            old = await store.get(key, part)
        new = await change(old)
        if new is not old:
            async with requests:
                await (store.erase(key) if new is None else store.set(key, new))
        return
    assumed = probably_absent
    for attempt in range(ATTEMPTS):
        found = Versioned(None, None)
        if not assumed:
            async with requests:
                found = await conditional.get_versioned(key, part)
        new = await change(found.value)
        if new is found.value and not assumed:
            return
        try:
            async with requests:
                if new is not None:
                    await conditional.set_if(key, new, found.version)
                    return
                if not assumed:
                    await conditional.erase_if(key, found.version)
                    return
        except PreconditionFailedError:
            if not assumed:
                await asyncio.sleep(random.uniform(0, min(LONGEST, SHORTEST * 2**attempt)))  # noqa: S311 - no secret
        assumed = False
    raise PreconditionFailedError(
        f"{key!r} has been changed by others {ATTEMPTS} times while this process tried to; let fewer of them write to one place at once",
        key=key,
    )
