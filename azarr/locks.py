"""Locks by key, so that two writers of one chunk wait for each other whatever thread or event loop they run in."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections import deque
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Protocol

from azarr.stores.base import identity_of
from azarr.stores.identities import Below, Overlaid


class Waiter:
    """Somebody in the queue for a key: a task on some loop."""

    __slots__ = ("_future", "_loop", "granted")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.granted = False
        self._loop = loop
        self._future = loop.create_future()

    def grant(self) -> bool:
        """Hand over the lock; ``False`` where the waiter's loop is gone."""
        try:
            self._loop.call_soon_threadsafe(self._wake)
        except RuntimeError:
            return False
        self.granted = True
        return True

    def _wake(self) -> None:
        if not self._future.done():
            self._future.set_result(None)

    async def wait(self) -> None:
        """Wait on the loop until the lock is granted."""
        await self._future


class Caller:
    """Somebody in the queue for a key who does not wait but wants to be called."""

    __slots__ = ("_call", "granted")

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call
        self.granted = False

    def grant(self) -> bool:
        """Hand over the lock."""
        self.granted = True
        self._call()
        return True


class Watcher(Protocol):
    """Somebody who wants to know what has been written."""

    def changed(self, key: str) -> None:
        """The value at ``key`` has been written, or may have been."""

    def changed_below(self, prefix: str) -> None:
        """Values whose keys begin with ``prefix`` have been written or erased, or may have been."""


class KeyedLocks:
    """One lock for every key that somebody holds; first come, first served. Keys nobody holds cost nothing.

    Here is also told what has been written: whatever was held may have been, and is told before the next one holds it.
    """

    def __init__(self) -> None:
        self._mutex = threading.Lock()
        self._queues: dict[str, deque[Waiter | Caller]] = {}
        self._watchers: tuple[tuple[weakref.ref[Watcher], str], ...] = ()

    def watch(self, watcher: Watcher, below: str = "") -> None:
        """Tell ``watcher``, for as long as it lives, what has been written, in the thread where that happens.

        With ``below`` only where keys begin with that, and by the rest of the keys.
        """
        with self._mutex:
            self._watchers = (*(each for each in self._watchers if each[0]() is not None), (weakref.ref(watcher), below))

    def changed_below(self, prefix: str) -> None:
        """For whoever has written or erased values whose keys begin with ``prefix`` without holding their locks."""
        for each, below in self._watchers:
            watcher = each()
            if watcher is not None and (prefix.startswith(below) or below.startswith(prefix)):
                watcher.changed_below(prefix[len(below) :])

    def hold(self, key: str) -> Hold:
        """Hold the lock of ``key`` in a task: ``async with locks.hold(key): ...``."""
        return Hold(self, key)

    async def acquire(self, key: str) -> None:
        """Wait for the lock of ``key``, for whoever is sure to ``release`` it."""
        waiter = self._enter(key, asyncio.get_running_loop())
        if waiter is not None:
            try:
                await waiter.wait()
            except BaseException:  # cancelled, or thrown away together with its loop
                self._leave(key, waiter)
                raise

    def acquire_or_call(self, key: str, granted: Callable[[], None]) -> bool:
        """Whether the lock of ``key`` is held from now on; if not, ``granted`` is called once it is, from any thread.

        For worker threads, which must not wait: the holder may need a worker before it can let go. ``granted`` must be quick, and
        must not touch the locks.
        """
        with self._mutex:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
                return True
            queue.append(Caller(granted))
            return False

    def release(self, key: str) -> None:
        """Hand the lock of ``key`` to the next in the queue."""
        for each, below in self._watchers:
            watcher = each()
            if watcher is not None and key.startswith(below):
                watcher.changed(key[len(below) :])
        with self._mutex:
            queue = self._queues[key]
            while queue:
                if queue.popleft().grant():
                    return
            del self._queues[key]

    def _enter(self, key: str, loop: asyncio.AbstractEventLoop) -> Waiter | None:
        with self._mutex:
            queue = self._queues.get(key)
            if queue is None:
                self._queues[key] = deque()
                return None
            waiter = Waiter(loop)
            queue.append(waiter)
            return waiter

    def _leave(self, key: str, waiter: Waiter) -> None:
        """Give up waiting; a lock that was granted meanwhile goes on to the next in the queue."""
        with self._mutex:
            if not waiter.granted:
                with suppress(KeyError, ValueError):  # passed over already, as its loop is gone
                    self._queues[key].remove(waiter)
                return
        self.release(key)


class LocksBelow(KeyedLocks):
    """The locks of ``whole`` for those whose keys lack the ``prefix`` that the values have there."""

    def __init__(self, whole: KeyedLocks, prefix: str) -> None:
        super().__init__()
        self._whole, self._prefix = whole, prefix

    def watch(self, watcher: Watcher, below: str = "") -> None:
        """As of all locks."""
        self._whole.watch(watcher, self._prefix + below)

    def changed_below(self, prefix: str) -> None:
        """As of all locks."""
        self._whole.changed_below(self._prefix + prefix)

    async def acquire(self, key: str) -> None:
        """As of all locks."""
        await self._whole.acquire(self._prefix + key)

    def acquire_or_call(self, key: str, granted: Callable[[], None]) -> bool:
        """As of all locks."""
        return self._whole.acquire_or_call(self._prefix + key, granted)

    def release(self, key: str) -> None:
        """As of all locks."""
        self._whole.release(self._prefix + key)


class Hold:
    """Holds a lock for the time of an ``async with``. Not a generator, as those are not told when a task is thrown away."""

    __slots__ = ("_key", "_locks")

    def __init__(self, locks: KeyedLocks, key: str) -> None:
        self._locks, self._key = locks, key

    async def __aenter__(self) -> None:
        await self._locks.acquire(self._key)

    async def __aexit__(self, *_: object) -> None:
        self._locks.release(self._key)


_locks: weakref.WeakValueDictionary[Hashable, KeyedLocks] = weakref.WeakValueDictionary()
_locks_mutex = threading.Lock()


def locks_of(store: object) -> KeyedLocks:
    """The locks of the data behind ``store``: the same for every store object of this process that says it has the same ``identity``.

    The one thing azarr shares between all users of a process, since writers who know nothing of each other must meet somewhere.
    """
    identity, prefix = written_to(identity_of(store))
    with _locks_mutex:
        locks = _locks.get(identity)
        if locks is None:
            locks = _locks[identity] = KeyedLocks()
    return LocksBelow(locks, prefix) if prefix else locks


def written_to(identity: Hashable) -> tuple[Hashable, str]:
    """Where values are written by whoever has data of this ``identity``, and what their keys begin with there."""
    prefix = ""
    while isinstance(identity, Below | Overlaid):
        if isinstance(identity, Below):
            prefix, identity = identity.prefix + prefix, identity.whole
        else:
            identity = identity.above
    return identity, prefix
