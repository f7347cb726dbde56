"""A store around a store of somebody else, whose failed requests are made again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from azarr.retry import RetryPolicy
from azarr.stores.base import Request, Stamped, Version, Versioned, stamped
from azarr.stores.traffic import CONCURRENCY, Attempt, Traffic, TrafficStats
from azarr.stores.wrapping import BLOCKING, Wrapping
from azarr.types import Buffer, Listing

T = TypeVar("T")


class RetryingStore(Wrapping):
    """``store``, whose requests are made again where they fail with ``TransientStoreError`` or ``ThrottledError``.

    For stores that do not do so themselves; azarr's own stores behind networks do. ``policy``, ``concurrency`` and ``rate`` are as theirs.

    A conditional write is made again, too. Where the answer to an earlier attempt was lost, it may then fail with
    ``PreconditionFailedError`` although it was successful: whoever changes a value reads it again and makes the change once more.
    """

    lacks = BLOCKING  # waiting for the next attempt must not keep a worker

    def __init__(self, store: Any, policy: RetryPolicy | None = None, *, concurrency: int = CONCURRENCY, rate: float | None = None) -> None:
        super().__init__(store)
        self.traffic = Traffic(policy or RetryPolicy(), concurrency=concurrency, rate=rate)

    def _options(self) -> dict[str, Any]:
        traffic = self.traffic
        return {"policy": traffic.policy, "concurrency": traffic.concurrency, "rate": traffic.rate}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    @property
    def stats(self) -> TrafficStats:
        """What has been done so far."""
        return self.traffic.stats

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return await self._made("get", key, lambda: super(RetryingStore, self).get(key, byte_range))

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """See ``StampingStore``."""
        return await self._made("get", key, lambda: stamped(self._store, key, byte_range))

    async def set(self, key: str, value: Buffer) -> None:
        await self._made("set", key, lambda: super(RetryingStore, self).set(key, value), memoryview(value).nbytes)

    async def erase(self, key: str) -> None:
        await self._made("erase", key, lambda: super(RetryingStore, self).erase(key))

    async def erase_prefix(self, prefix: str) -> None:
        await self._made("erase_prefix", prefix, lambda: super(RetryingStore, self).erase_prefix(prefix))

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        return await self._made("get", key, lambda: super(RetryingStore, self).get_versioned(key, byte_range))

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        await self._made("set_if", key, lambda: super(RetryingStore, self).set_if(key, value, version), memoryview(value).nbytes)

    async def erase_if(self, key: str, version: Version) -> None:
        await self._made("erase_if", key, lambda: super(RetryingStore, self).erase_if(key, version))

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        # collected first, as what has been handed out could not be taken back when the listing has to begin again
        async def collected() -> list[str]:
            return [key async for key in self._store.list_prefix(prefix)]

        for key in await self._made("list", prefix, collected):
            yield key

    async def list_dir(self, prefix: str = "") -> Listing:
        return await self._made("list", prefix, lambda: super(RetryingStore, self).list_dir(prefix))

    async def _made(self, operation: str, key: str, request: Callable[[], Awaitable[T]], nbytes: int = 0) -> T:
        async def attempt(_: Attempt) -> T:
            return await request()

        return await self.traffic.run(operation, key, attempt, nbytes)
