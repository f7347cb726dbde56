"""Turns: who may change how far an array reaches. One at a time, in this process and, if the store has the means, in all."""

from __future__ import annotations

from typing import Any, Self

from azarr.claims import Claim
from azarr.locks import locks_of
from azarr.paths import prefix_of
from azarr.stores.base import BlockingStore, as_conditional, as_locking
from azarr.stores.identities import is_private
from azarr.types import Limits


class Turn:
    """Holds the turn at the array at ``path`` for the time of an ``async with``: in this process, and after ``begin`` among all.

    In this process whoever comes first is first. Among processes there is no order: those of a store with locks wait for its lock of the
    array, those of a networked store with conditional writes claim the array's document ``name``.
    """

    __slots__ = ("_key", "_lock", "_locked", "_locks", "claim")

    def __init__(self, store: Any, path: str, name: str, limits: Limits) -> None:
        self._locks, self._key = locks_of(store), f"{prefix_of(path)}/extent"  # no key of a value begins or goes on like that
        locking, conditional = as_locking(store), as_conditional(store)
        self._lock = None if locking is None else locking.lock(prefix_of(path))
        self._locked = False
        shared = locking is None and conditional is not None and not (isinstance(store, BlockingStore) and is_private(store))
        self.claim = Claim(conditional, path, name, limits) if conditional is not None and shared else None

    async def __aenter__(self) -> Self:
        await self._locks.acquire(self._key)
        return self

    async def begin(self) -> None:
        """Wait for other processes."""
        if self._lock is not None:
            await self._lock.__aenter__()
            self._locked = True
        elif self.claim is not None:
            await self.claim.begin()

    async def __aexit__(self, *error: object) -> None:
        try:
            if self._lock is not None and self._locked:
                await self._lock.__aexit__(*error)  # type: ignore[arg-type]  # as it came
            elif self.claim is not None and error[0] is not GeneratorExit:  # thrown away with its loop, a task cannot wait for anything
                await self.claim.end()
        finally:
            self._locks.release(self._key)
