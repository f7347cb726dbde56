"""A store around a store of somebody else, whose failed requests are made again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AbstractAsyncContextManager
from typing import Any, Self, TypeVar

from azarr.retry import RetryPolicy
from azarr.stores.base import (
    ConditionalStore,
    LockingStore,
    Request,
    Stamped,
    StampingStore,
    Store,
    Version,
    Versioned,
    as_conditional,
    as_locking,
    stamped,
)
from azarr.stores.traffic import CONCURRENCY, Attempt, Traffic, TrafficStats
from azarr.types import Buffer, Listing

T = TypeVar("T")


class RetryingStore(Store, ConditionalStore, StampingStore, LockingStore):
    """``store``, whose requests are made again where they fail with ``TransientStoreError`` or ``ThrottledError``.

    For stores that do not do so themselves; azarr's own stores behind networks do. ``policy``, ``concurrency`` and ``rate`` are as theirs.

    A conditional write is made again, too. Where the answer to an earlier attempt was lost, it may then fail with
    ``PreconditionFailedError`` although it was successful: whoever changes a value reads it again and makes the change once more.
    """

    def __init__(
        self, store: Store, policy: RetryPolicy | None = None, *, concurrency: int = CONCURRENCY, rate: float | None = None
    ) -> None:
        self._store = store
        self._capable: Any = store
        self.traffic = Traffic(policy or RetryPolicy(), concurrency=concurrency, rate=rate)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        traffic = self.traffic
        return _remade, (self._store, traffic.policy, traffic.concurrency, traffic.rate)

    @property
    def identity(self) -> Hashable:
        """That of the store around which this one is, for the data are the same."""
        return getattr(self._store, "identity", ("object", id(self._store)))

    @property
    def stats(self) -> TrafficStats:
        """What has been done so far."""
        return self.traffic.stats

    @property
    def conditional(self) -> bool:
        return as_conditional(self._store) is not None

    @property
    def locking(self) -> bool:
        return as_locking(self._store) is not None

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return await self._made("get", key, lambda: self._store.get(key, byte_range))

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        return await self._made("get", key, lambda: stamped(self._store, key, byte_range))

    async def set(self, key: str, value: Buffer) -> None:
        await self._made("set", key, lambda: self._store.set(key, value), len(value))

    async def erase(self, key: str) -> None:
        await self._made("erase", key, lambda: self._store.erase(key))

    async def erase_prefix(self, prefix: str) -> None:
        await self._made("erase_prefix", prefix, lambda: self._store.erase_prefix(prefix))

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        found: Versioned = await self._made("get", key, lambda: self._capable.get_versioned(key, byte_range))
        return found

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        await self._made("set_if", key, lambda: self._capable.set_if(key, value, version), len(value))

    async def erase_if(self, key: str, version: Version) -> None:
        await self._made("erase_if", key, lambda: self._capable.erase_if(key, version))

    def lock(self, prefix: str) -> AbstractAsyncContextManager[None]:
        lock: AbstractAsyncContextManager[None] = self._capable.lock(prefix)
        return lock

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        # collected first, as what has been handed out could not be taken back when the listing has to begin again
        async def collected() -> list[str]:
            return [key async for key in self._store.list_prefix(prefix)]

        for key in await self._made("list", prefix, collected):
            yield key

    async def list_dir(self, prefix: str = "") -> Listing:
        return await self._made("list", prefix, lambda: self._store.list_dir(prefix))

    async def _made(self, operation: str, key: str, request: Callable[[], Awaitable[T]], nbytes: int = 0) -> T:
        async def attempt(_: Attempt) -> T:
            return await request()

        return await self.traffic.run(operation, key, attempt, nbytes)

    async def aclose(self) -> None:
        """Close the store around which this one is, if it can be closed."""
        if hasattr(self._store, "aclose"):
            await self._store.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()


def _remade(store: Store, policy: RetryPolicy, concurrency: int, rate: float | None) -> RetryingStore:
    return RetryingStore(store, policy, concurrency=concurrency, rate=rate)
