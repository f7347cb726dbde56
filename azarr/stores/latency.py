"""A store around a store that answers late, as one behind a network does."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from azarr.stores.base import Request, Stamped, Version, Versioned, stamped
from azarr.stores.wrapping import BLOCKING, Wrapping
from azarr.types import Buffer, Listing


class LatencyStore(Wrapping):
    """``store``, but every request waits ``seconds`` first, and up to ``jitter`` seconds more.

    It stands in for networked stores in tests and measurements, so it has no blocking face even where ``store`` has one. A whole
    listing is one request, and a lock is none: whoever waits for others would count as in flight for all that time. With ``seed`` the
    waiting times are the same in every run.

    ``requests`` counts the requests so far, ``in_flight`` those under way, ``max_in_flight`` the most that ever were.
    """

    lacks = BLOCKING

    def __init__(self, store: Any, seconds: float, *, jitter: float = 0.0, seed: int | None = None) -> None:
        if seconds < 0 or jitter < 0:
            raise ValueError(f"seconds and jitter must not be negative, not {seconds} and {jitter}")
        super().__init__(store)
        self.requests = 0
        self.in_flight = 0
        self.max_in_flight = 0
        self._seconds, self._jitter, self._seed = seconds, jitter, seed
        self._random = random.Random(seed)  # noqa: S311 - waiting times are no secret

    def _options(self) -> dict[str, Any]:
        return {"seconds": self._seconds, "jitter": self._jitter, "seed": self._seed}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r}, {self._seconds}, jitter={self._jitter})"

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        async with self._request():
            return await super().get(key, byte_range)

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """See ``StampingStore``."""
        async with self._request():
            return await stamped(self._store, key, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        async with self._request():
            await super().set(key, value)

    async def erase(self, key: str) -> None:
        async with self._request():
            await super().erase(key)

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        async with self._request():
            return await super().get_versioned(key, byte_range)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        async with self._request():
            await super().set_if(key, value, version)

    async def erase_if(self, key: str, version: Version) -> None:
        async with self._request():
            await super().erase_if(key, version)

    async def erase_prefix(self, prefix: str) -> None:
        async with self._request():
            await super().erase_prefix(prefix)

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        # Collected first: a request that stayed open while the consumer works would count as in flight for all that time.
        async with self._request():
            keys = [key async for key in super().list_prefix(prefix)]
        for key in keys:
            yield key

    async def list_dir(self, prefix: str = "") -> Listing:
        async with self._request():
            return await super().list_dir(prefix)

    @asynccontextmanager
    async def _request(self) -> AsyncIterator[None]:
        self.requests += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            await asyncio.sleep(self._seconds + self._random.uniform(0, self._jitter))
            yield
        finally:
            self.in_flight -= 1
