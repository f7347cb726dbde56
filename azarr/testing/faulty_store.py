"""A store around a store that fails as networked stores do."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from azarr.errors import ThrottledError, TransientStoreError
from azarr.stores.base import Request, Stamped, Store, Version, Versioned, stamped
from azarr.stores.wrapping import BLOCKING, Wrapping
from azarr.types import Buffer, Listing

StoreFault: TypeAlias = Literal["transient", "throttled", "lost", "stalled", "truncated"]
"""What can happen to a request; see ``FaultyStore``."""

KINDS: Final[tuple[StoreFault, ...]] = get_args(StoreFault)


class StoreRequest(NamedTuple):
    """A request as a script of faults sees it; ``number`` counts from 0 on, ``key`` may be a prefix."""

    number: int
    operation: str
    key: str


StoreScript: TypeAlias = Callable[[StoreRequest], StoreFault | None]
"""Says what happens to a request, ``None`` if nothing does."""


class FaultyStore(Wrapping):
    """``store``, but requests fail with probability ``rate``, the same ones in every run with the same ``seed``.

    ::

        store = FaultyStore(MemoryStore(), rate=0.1, seed=1, kinds=["transient", "lost"])

    ``kinds`` are what happens, each as often as the others:

    - ``transient``: ``TransientStoreError``, and nothing is done.
    - ``throttled``: ``ThrottledError`` with ``retry_after``, and nothing is done.
    - ``lost``: the request is carried out, and then raises ``TransientStoreError``, as when a response is lost. What has been written is
      there. A listing breaks off in its middle.
    - ``stalled``: the request waits for ``stall`` seconds first, an hour by default, so that only a timeout ends it.
    - ``truncated``: ``get`` answers less than there is, as a bad server would whose word is taken; other requests go well. No retry helps
      against it, which is why it must be asked for.

    ``script`` decides instead of chance: a function from a ``StoreRequest`` to one of these words or ``None``.

    ``requests`` counts the requests, and ``injected`` the faults by their kind. Locks are no requests and never fail. The store has no
    blocking face even where ``store`` has one. A pickled copy counts and draws from the beginning.
    """

    lacks = BLOCKING

    def __init__(
        self,
        store: Store,
        *,
        rate: float = 0.0,
        seed: int = 0,
        kinds: Collection[StoreFault] = ("transient", "throttled", "lost"),
        script: StoreScript | None = None,
        retry_after: float | None = None,
        stall: float = 3600.0,
    ) -> None:
        if not 0 <= rate <= 1:
            raise ValueError(f"a rate of faults lies between 0 and 1, unlike {rate}")
        if not kinds or not set(kinds) <= set(KINDS):
            raise ValueError(f"the kinds of faults are {', '.join(KINDS)}, not {kinds!r:.100}")
        super().__init__(store)
        self.requests = 0
        self.injected: Counter[StoreFault] = Counter()
        self._rate, self._seed, self._kinds = rate, seed, tuple(kinds)
        self._random = random.Random(seed)  # noqa: S311 - faults are no secret
        self._script, self._retry_after, self._stall = script, retry_after, stall

    def _options(self) -> dict[str, Any]:
        drawn = {"rate": self._rate, "seed": self._seed, "kinds": self._kinds}
        return (drawn if self._script is None else {"script": self._script}) | {"retry_after": self._retry_after, "stall": self._stall}

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        """As of the store, if nothing happens."""
        async with self._request("get", key) as fault:
            value: Buffer | None = await self._store.get(key, byte_range)
        return self._shortened(value) if fault == "truncated" else value

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """As of the store, if nothing happens."""
        async with self._request("get", key) as fault:
            found = await stamped(self._store, key, byte_range)
        return Stamped(self._shortened(found.value), found.stamp) if fault == "truncated" else found

    async def set(self, key: str, value: Buffer) -> None:
        """As of the store, if nothing happens."""
        async with self._request("set", key):
            await self._store.set(key, value)

    async def erase(self, key: str) -> None:
        """As of the store, if nothing happens."""
        async with self._request("erase", key):
            await self._store.erase(key)

    async def erase_prefix(self, prefix: str) -> None:
        """As of the store, if nothing happens."""
        async with self._request("erase_prefix", prefix):
            await self._store.erase_prefix(prefix)

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        """As of the store, if nothing happens."""
        async with self._request("get", key) as fault:
            found: Versioned = await self._store.get_versioned(key, byte_range)
        return Versioned(self._shortened(found.value), found.version) if fault == "truncated" else found

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        """As of the store, if nothing happens."""
        async with self._request("set_if", key):
            await self._store.set_if(key, value, version)

    async def erase_if(self, key: str, version: Version) -> None:
        """As of the store, if nothing happens."""
        async with self._request("erase_if", key):
            await self._store.erase_if(key, version)

    async def list_dir(self, prefix: str = "") -> Listing:
        """As of the store, if nothing happens."""
        async with self._request("list_dir", prefix):
            listing: Listing = await self._store.list_dir(prefix)
        return listing

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        """As of the store, if nothing happens."""
        request = StoreRequest(self.requests, "list_prefix", prefix)
        fault = await self._begin(request)
        keys = [key async for key in self._store.list_prefix(prefix)]
        for key in keys[: len(keys) // 2] if fault == "lost" else keys:
            yield key
        end(fault, request)

    @asynccontextmanager
    async def _request(self, operation: str, key: str) -> AsyncIterator[StoreFault | None]:
        request = StoreRequest(self.requests, operation, key)
        fault = await self._begin(request)
        yield fault
        end(fault, request)

    async def _begin(self, request: StoreRequest) -> StoreFault | None:
        self.requests += 1
        fault = (self._script or self._draw)(request)
        if fault is None:
            return None
        self.injected[fault] += 1
        what = f"{request.operation} of {request.key!r}"
        match fault:
            case "transient":
                raise TransientStoreError(f"{what} failed, as was asked for", key=request.key)
            case "throttled":
                raise ThrottledError(f"{what} was throttled, as was asked for", key=request.key, retry_after=self._retry_after)
            case "stalled":
                await asyncio.sleep(self._stall)
        return fault

    def _draw(self, _: StoreRequest) -> StoreFault | None:
        drawn, kind = self._random.random(), self._random.choice(self._kinds)
        return kind if drawn < self._rate else None

    def _shortened(self, value: Buffer | None) -> Buffer | None:
        return value if value is None else memoryview(value)[: int(self._random.random() * len(value))]


def end(fault: StoreFault | None, request: StoreRequest) -> None:
    """The end of a request that has been carried out."""
    if fault == "lost":
        raise TransientStoreError(f"the response to {request.operation} of {request.key!r} was lost, as was asked for", key=request.key)
