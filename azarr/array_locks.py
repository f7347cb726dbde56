"""Locks of an array for the code of an application: any number of readers, or one writer.

azarr takes none of them itself: each chunk is safe without. They are for what concerns several chunks, or arrays, at once.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Hashable
from contextlib import suppress
from typing import NamedTuple

from azarr.locks import Waiter, written_to
from azarr.stores.base import identity_of


class Place(NamedTuple):
    """Somebody's place in the queue."""

    waiter: Waiter
    writes: bool


class ArrayLocks:
    """The reader and the writer lock of one array, for tasks of all loops and threads of this process: ``array.locks``.

    First come, first served: a reader who comes after a writer who waits does wait, too, so that no writer waits for ever. Whoever holds a
    lock must not ask for another one of the same array, as a reader who wants to become a writer would wait for himself.
    """

    __slots__ = ("__weakref__", "_mutex", "_queue", "_readers", "_writes")

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._queue: deque[Place] = deque()
        self._readers = 0
        self._writes = False

    def __repr__(self) -> str:
        held = "a writer" if self._writes else f"{self._readers} {'reader' if self._readers == 1 else 'readers'}"
        return f"<ArrayLocks held by {held}, {len(self._queue)} waiting>"

    def read(self) -> ArrayHold:
        """Hold the lock together with other readers, but with no writer: ``async with array.locks.read(): ...``."""
        return ArrayHold(self, writes=False)

    def write(self) -> ArrayHold:
        """Hold the lock alone: ``async with array.locks.write(): ...``."""
        return ArrayHold(self, writes=True)

    async def acquire(self, *, writes: bool) -> None:
        """Wait for the lock, for whoever is sure to ``release`` it."""
        place = Place(Waiter(asyncio.get_running_loop()), writes)
        with self._mutex:
            self._queue.append(place)
            self._advance()
            waits = place in self._queue
        if not waits:
            return
        try:
            await place.waiter.wait()
        except BaseException:  # cancelled, or thrown away together with its loop
            self._leave(place)
            raise

    def _leave(self, place: Place) -> None:
        """Give up waiting; a lock that was granted meanwhile goes on to the next in the queue."""
        with self._mutex:
            if not place.waiter.granted:
                with suppress(ValueError):  # passed over already, as its loop is gone
                    self._queue.remove(place)
                self._advance()  # those behind a writer who gives up need not wait for him
                return
        self.release(writes=place.writes)

    def release(self, *, writes: bool) -> None:
        """Let go of the lock."""
        with self._mutex:
            if writes:
                self._writes = False
            else:
                self._readers -= 1
            self._advance()

    def _advance(self) -> None:
        """Let in whoever is first in the queue, and may."""
        while self._queue and not self._writes and not (self._queue[0].writes and self._readers):
            waiter, writes = self._queue.popleft()
            if waiter.grant():  # if not, his loop is gone
                self._writes = writes
                self._readers += not writes


class ArrayHold:
    """Holds a lock for the time of one ``async with``. Not a generator, as those are not told when a task is thrown away."""

    __slots__ = ("_locks", "_writes")

    def __init__(self, locks: ArrayLocks, *, writes: bool) -> None:
        self._locks, self._writes = locks, writes

    async def __aenter__(self) -> None:
        await self._locks.acquire(writes=self._writes)

    async def __aexit__(self, *_: object) -> None:
        self._locks.release(writes=self._writes)


_locks: weakref.WeakValueDictionary[tuple[Hashable, str], ArrayLocks] = weakref.WeakValueDictionary()
_mutex = threading.Lock()


def array_locks_of(store: object, path: str) -> ArrayLocks:
    """The locks of the array at ``path``: the same for all who reach the same data, whatever store object they have."""
    identity, prefix = written_to(identity_of(store))
    with _mutex:
        return _locks.setdefault((identity, f"{prefix}{path}".rstrip("/")), ArrayLocks())
