"""A store around a store that remembers what it was asked for."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import Any, Literal

from azarr.errors import StoreError
from azarr.stores.base import ListableStore, Request, Stamped, Version, as_versioned, check_key, identity_of, stamped
from azarr.stores.cache_index import UNKNOWN, CacheIndex, Kept, name_of, parsed, stamp_of
from azarr.stores.flights import Ask, Asks, Flight, LoopAsks
from azarr.stores.identities import Below, Overlaid
from azarr.stores.memory import MemoryStore
from azarr.stores.wrapping import BLOCKING, Wrapping
from azarr.types import Buffer, ByteRange

PROBE = ByteRange(0, 1)
"""What is asked for where only the version is wanted."""


@dataclass(frozen=True, slots=True)
class CachingStats:
    """What a ``CachingStore`` has done so far, and what is in its cache.

    ``hits`` were answered from the cache, or along with somebody who asked for the same; ``misses`` by the store. ``validations`` asked
    the store whether a value is still the one in the cache. ``evictions`` had to make room. ``failures`` are those of the cache itself,
    whose place the store took. ``values`` and parts of values are in it now, and take ``nbytes`` bytes.
    """

    hits: int
    misses: int
    validations: int
    evictions: int
    failures: int
    values: int
    nbytes: int


class CachingStore(Wrapping):
    """``store``, but values and ranges that were asked for before come from ``cache``, which is in memory unless it is another store.

    The cache has at most ``nbytes`` bytes: what was asked for last. A value that is there as a whole answers for its parts. Equal requests
    at the same time are one. What is written through this store is forgotten; what others write is noticed as ``validate`` says:

    - ``"etag"``: the store is asked for the version of the value each time, which costs a request and saves the bytes;
    - a number: as ``"etag"``, but only if that was so many seconds ago or longer; where the store tells no versions, the value is
      fetched again. Parts of a value that are kept may then be of different versions, which readers of shards notice;
    - ``"forever"``: never. For data that do not change.

    Versions for conditional writes are always the store's. Where it has none, all who write to the data should share one such store.

    That a key is absent is not remembered, as it may come to be there, unless ``missing`` is true.

    A cache in another store, such as a ``LocalStore``, is taken over by whoever uses it next for the same data, if the identity of these
    lasts longer than a process. Several processes may use one; each keeps to ``nbytes``. Errors of the cache are counted, and the store is
    asked instead. For stores behind a network; it has no blocking face. A pickled copy has the same cache only where that is another store.
    """

    lacks = BLOCKING

    def __init__(
        self,
        store: Any,
        cache: Any = None,
        *,
        nbytes: int = 2**28,
        validate: Literal["etag", "forever"] | float = "etag",
        missing: bool = False,
    ) -> None:
        if nbytes < 1:
            raise ValueError(f"a cache needs room for at least 1 byte, not {nbytes}")
        if validate not in {"etag", "forever"} and (isinstance(validate, str) or not validate >= 0):
            raise ValueError(f"validate must be 'etag', 'forever' or a number of seconds, not {validate!r}")
        if validate == "etag" and as_versioned(store) is None:
            raise ValueError(f"{type(store).__name__} tells no versions: choose validate='forever', or a number of seconds")
        super().__init__(store)
        self._given, self._validate, self._missing = cache, validate, missing
        self._cache = MemoryStore() if cache is None else cache
        self._index = CacheIndex(nbytes)
        self._asks: Asks[Stamped] = Asks()
        self._origin, self._numbers = os.urandom(8).hex(), itertools.count()
        identity = identity_of(store)
        self._folder = f"{digest(identity if lasts(identity) else self._origin)}/"
        self._adopted = cache is None or not lasts(identity) or not isinstance(cache, ListableStore)
        self._hits = self._misses = self._validations = self._failures = 0

    def _options(self) -> dict[str, Any]:
        options = {"nbytes": self._index.limit, "validate": self._validate, "missing": self._missing}
        return options if self._given is None else {"cache": self._given, **options}

    def _wrapped(self) -> tuple[Any, ...]:
        return self._store, self._cache

    @property
    def stats(self) -> CachingStats:
        """What it has done so far, and what is in the cache."""
        with self._index.mutex:
            counts = self._hits, self._misses, self._validations, self._index.evictions, self._failures
            return CachingStats(*counts, len(self._index), self._index.nbytes)

    async def clear(self) -> None:
        """Forget all values; the counts stay."""
        await self._forget("", below=True)

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return (await self._get(key, byte_range)).value

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """See ``StampingStore``."""
        return await self._get(key, byte_range)

    async def _get(self, key: str, byte_range: Request) -> Stamped:
        check_key(key)
        if not self._adopted:
            await self._adopt()
        with self._index.mutex:
            self._hits += 1
            found = self._index.find(key, byte_range)
        if found is not None and self._is_fresh(found[0]):
            recalled = await self._recall(found[0], found[2])
            if recalled is not None:
                return recalled
        asks = self._asks.here()
        ask = asks.get(key, byte_range)
        if ask is None:
            ask = asks.add(key, byte_range)
            Flight([ask], partial(self._find_out, key, byte_range, asks, ask), partial(asks.drop, key, byte_range, ask))
        return await ask.outcome()

    def _is_fresh(self, kept: Kept) -> bool:
        if isinstance(self._validate, str):
            return self._validate == "forever"
        return time.monotonic() - kept.checked < self._validate

    async def _find_out(self, key: str, part: Request, asks: LoopAsks[Stamped], ask: Ask[Stamped]) -> Stamped:
        """The value from the cache, if it is still the latest, or else from the store."""
        with self._index.mutex:
            found = self._index.find(key, part)
        if found is not None:
            kept, kept_part, rest = found
            if self._is_fresh(kept) or await self._is_latest(key, kept_part, kept):
                recalled = await self._recall(kept, rest)
                if recalled is not None:
                    return recalled
            with self._index.mutex:
                self._index.forget(key)
        with self._index.mutex:
            self._hits -= 1
            self._misses += 1
        loaded, mark = await self._load(key, part)
        await self._keep(key, part, loaded, mark, lambda: asks.get(key, part) is ask)
        return loaded

    async def _is_latest(self, key: str, part: Request, kept: Kept) -> bool:
        """Whether the store has the version that is in the cache."""
        versioned = as_versioned(self._store)
        if versioned is None or kept.mark == UNKNOWN:
            return False
        now = time.monotonic()
        _, version = await versioned.get_versioned(key, PROBE)
        with self._index.mutex:
            self._validations += 1
            if digest(version) != kept.mark:
                return False
            self._index.checked(key, part, kept, now)
            return True

    async def _load(self, key: str, part: Request) -> tuple[Stamped, str]:
        """The value from the store, and the mark of its version if that will be asked for."""
        versioned = None if self._validate == "forever" else as_versioned(self._store)
        if versioned is None:
            return await stamped(self._store, key, part), UNKNOWN
        value, version = await versioned.get_versioned(key, part)
        mark = digest(version)
        return Stamped(value, None if value is None else stamp_of(mark)), mark

    async def _keep(self, key: str, part: Request, loaded: Stamped, mark: str, still: Callable[[], bool]) -> None:
        """Put what was ``loaded`` into the cache, if it is ``still`` to be there once it is."""
        value = loaded.value
        name, nbytes, now = None, 0, time.monotonic()
        if value is not None:
            nbytes = memoryview(value).nbytes
            if nbytes > self._index.limit:
                return
            name = self._folder + name_of(key, part, nbytes, mark, f"{self._origin}.{next(self._numbers)}")
            try:
                await self._cache.set(name, value)
            except BaseException as error:
                with self._index.mutex:
                    self._index.garbage.add(name)
                if not isinstance(error, StoreError):
                    raise
                self._failures += 1
                return
        elif not self._missing:
            return
        with self._index.mutex:
            if still():
                self._index.put(key, part if name else None, Kept(name, nbytes, mark, now, loaded.stamp))
            elif name is not None:
                self._index.garbage.add(name)
        await self._sweep()

    async def _recall(self, kept: Kept, rest: Request) -> Stamped | None:
        """What the cache has of a value, or that there is none, and ``None`` where it is no longer there."""
        if kept.name is None:
            return Stamped(None)
        try:
            value: Buffer | None = await self._cache.get(kept.name, rest)
        except StoreError:
            self._failures += 1
            return None
        return None if value is None else Stamped(value, kept.stamp)

    async def _sweep(self) -> None:
        """Erase what is no longer wanted in the cache."""
        while True:
            with self._index.mutex:
                name = next(iter(self._index.garbage), None)
            if name is None:
                return
            try:
                await self._cache.erase(name)
            except StoreError:
                self._failures += 1
            with self._index.mutex:
                self._index.garbage.discard(name)

    async def _adopt(self) -> None:
        """Take over what others have left in the cache; who asks meanwhile does not wait for that."""
        self._adopted = True
        try:
            names = [name async for name in self._cache.list_prefix(self._folder)]
        except StoreError:
            self._failures += 1
            return
        except BaseException:  # cancelled
            self._adopted = False
            raise
        with self._index.mutex:
            for key, part, kept in parsed(names, self._folder, self._origin):
                if self._index.find(key, part) is None:
                    self._index.put(key, part, kept)
                elif kept.name is not None:
                    self._index.garbage.add(kept.name)
        await self._sweep()

    async def _forget(self, key: str, *, below: bool = False) -> None:
        with self._index.mutex:
            (self._asks.forget_below if below else self._asks.forget)(key)
            (self._index.forget_below if below else self._index.forget)(key)
        await self._sweep()

    async def set(self, key: str, value: Buffer) -> None:
        try:
            await super().set(key, value)
        finally:
            await self._forget(key)

    async def erase(self, key: str) -> None:
        try:
            await super().erase(key)
        finally:
            await self._forget(key)

    async def erase_prefix(self, prefix: str) -> None:
        try:
            await super().erase_prefix(prefix)
        finally:
            await self._forget(prefix, below=True)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        try:
            await super().set_if(key, value, version)
        finally:
            await self._forget(key)

    async def erase_if(self, key: str, version: Version) -> None:
        try:
            await super().erase_if(key, version)
        finally:
            await self._forget(key)


def digest(what: Hashable) -> str:
    """Stands for a version, or for the identity of a store, in the names of a cache."""
    return blake2b(repr(what).encode(), digest_size=12).hexdigest()


def lasts(identity: Hashable) -> bool:
    """Whether data with this identity have it in other processes, too: what lives in memory goes by a number that comes again."""
    if isinstance(identity, Below):
        return lasts(identity.whole)
    if isinstance(identity, Overlaid):
        return lasts(identity.above) and lasts(identity.below)
    return not (isinstance(identity, tuple) and identity[:1] in {("memory",), ("object",)})
