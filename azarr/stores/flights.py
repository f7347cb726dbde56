"""Requests that several callers wait for together, so that a store is asked only once."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeAlias, TypeVar

from azarr.stores.base import Request

T = TypeVar("T")


class Ask(Generic[T]):
    """What any number of callers want, who all come to hear of its outcome; it is found out by a ``Flight``."""

    __slots__ = ("flight", "futures")

    def __init__(self) -> None:
        self.flight: Flight[T] | None = None
        self.futures: list[asyncio.Future[T]] = []

    async def outcome(self) -> T:
        """The outcome, or the error. Who is cancelled disturbs nobody; where nobody else waits the flight is over before that comes out."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancel() and not future.cancelled():
                future.exception()  # it came too late, and nobody is to complain that it was not looked at
            if self.flight is not None:
                await self.flight.left()
            raise


class Flight(Generic[T]):
    """A task that finds out what ``asks`` are for, and is cancelled when nobody waits for any of them any more.

    ``over`` is called before anybody hears of the outcome; whoever asks after that needs another flight.
    """

    __slots__ = ("_asks", "_over", "_task")

    def __init__(self, asks: Sequence[Ask[T]], load: Callable[[], Awaitable[T]], over: Callable[[], None]) -> None:
        self._asks, self._over = asks, over
        for ask in asks:
            ask.flight = self
        self._task = asyncio.get_running_loop().create_task(self._fly(load))

    async def _fly(self, load: Callable[[], Awaitable[T]]) -> None:
        try:
            outcome = await load()
        except asyncio.CancelledError:
            self._over()
            for future in self._waiting():
                future.cancel()
            raise
        except BaseException as error:
            self._over()
            for future in self._waiting():
                future.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._over()
            for future in self._waiting():
                future.set_result(outcome)

    def _waiting(self) -> list[asyncio.Future[T]]:
        return [future for ask in self._asks for future in ask.futures if not future.done()]

    async def left(self) -> None:
        """Somebody has left: if he was the last one, the task is cancelled, and has ended when this returns."""
        if not self._waiting():
            self._over()
            self._task.cancel()
            while not self._task.done():
                with suppress(asyncio.CancelledError):  # which is on its way already
                    await asyncio.wait([self._task])


ByPart: TypeAlias = dict[Request, Ask[T]]


class LoopAsks(Generic[T]):
    """What is asked for on one event loop, by key and part."""

    __slots__ = ("__weakref__", "by_key")

    def __init__(self) -> None:
        self.by_key: dict[str, ByPart[T]] = {}

    def get(self, key: str, part: Request) -> Ask[T] | None:
        """What is asked for already."""
        return self.by_key.get(key, {}).get(part)

    def add(self, key: str, part: Request) -> Ask[T]:
        """What is asked for from now on."""
        ask: Ask[T] = Ask()
        self.by_key.setdefault(key, {})[part] = ask
        return ask

    def drop(self, key: str, part: Request, ask: Ask[T]) -> None:
        """Let nobody join ``ask`` any more."""
        parts = self.by_key.get(key, {})
        if parts.get(part) is ask:
            del parts[part]
            if not parts:
                self.by_key.pop(key, None)


class Asks(Generic[T]):
    """What is asked for, on any loop. What is written is to be forgotten, so that nobody who comes later joins who asked before."""

    def __init__(self) -> None:
        self._loops: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, LoopAsks[T]] = weakref.WeakKeyDictionary()
        self._mutex = threading.Lock()

    def here(self) -> LoopAsks[T]:
        """What is asked for on the running loop."""
        loop = asyncio.get_running_loop()
        with self._mutex:
            found = self._loops.get(loop)
            if found is None:
                found = self._loops[loop] = LoopAsks()
            return found

    def forget(self, key: str) -> None:
        """Let nobody join what was asked of ``key``."""
        for each in self._all():
            each.by_key.pop(key, None)

    def forget_below(self, prefix: str) -> None:
        """Let nobody join what was asked of keys that begin with ``prefix``."""
        for each in self._all():
            for key in [key for key in each.by_key.copy() if key.startswith(prefix)]:
                each.by_key.pop(key, None)

    def _all(self) -> list[LoopAsks[T]]:
        with self._mutex:
            return list(self._loops.values())
