"""Clients of servers: one for every event loop that uses a store, opened when it is first needed and closed with the loop."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager
from inspect import isasyncgen
from typing import Generic, TypeVar, cast

from azarr.errors import StoreError

ClientT = TypeVar("ClientT")


class LoopClient(Generic[ClientT]):
    """The client of one loop, which whoever comes first opens while the others wait."""

    __slots__ = ("client", "lifetime", "opening")

    def __init__(self) -> None:
        self.client: ClientT | None = None
        self.lifetime: AsyncGenerator[ClientT, None] | None = None
        self.opening = asyncio.Lock()


class Clients(Generic[ClientT]):
    """The clients that ``connect`` opens, one for every loop; a store that has them belongs to no loop itself."""

    def __init__(self, connect: Callable[[], AbstractAsyncContextManager[ClientT]], owner: object) -> None:
        self._connect = connect
        self._owner = owner
        self._by_loop: dict[asyncio.AbstractEventLoop, LoopClient[ClientT]] = {}
        self.closed = False

    async def get(self) -> ClientT:
        """The client of the running loop; ``StoreError`` after ``aclose``."""
        mine = self._by_loop.get(asyncio.get_running_loop())
        if mine is not None and mine.client is not None:
            return mine.client
        return await self._open()

    async def _open(self) -> ClientT:
        self._expect_open()
        loop = asyncio.get_running_loop()
        for other in [each for each in self._by_loop if each.is_closed()]:
            self._by_loop.pop(other, None)
        mine = self._by_loop.setdefault(loop, LoopClient())
        async with mine.opening:
            self._expect_open()
            if mine.client is None:
                lifetime = self._lifetime(loop)
                mine.client = await anext(lifetime)
                mine.lifetime = lifetime
                # What is garbage together with a store is finalized with it, and clients then complain that nobody has closed them, before
                # the generator has its turn. This keeps the client out of that.
                weakref.finalize(lifetime, let_go, mine.client).atexit = False
        return mine.client

    def _expect_open(self) -> None:
        if self.closed:
            raise StoreError(f"{self._owner!r} has been closed: make another one, or leave 'async with' only when all is done")

    def _lifetime(self, loop: asyncio.AbstractEventLoop) -> AsyncGenerator[ClientT, None]:
        """Yields the client once, and closes it when it is closed.

        Loops close the asynchronous generators that were begun on them when they shut down, and so the client. They close all of them at
        once, so that none may be inside another: what ``asynccontextmanager`` makes is taken apart.
        """
        manager = self._connect()
        generator = getattr(manager, "gen", None)
        return cast("AsyncGenerator[ClientT, None]", generator) if isasyncgen(generator) else self._live(manager, loop)

    async def _live(self, manager: AbstractAsyncContextManager[ClientT], loop: asyncio.AbstractEventLoop) -> AsyncGenerator[ClientT, None]:
        async with manager as client:
            try:
                yield client
            finally:
                self._by_loop.pop(loop, None)

    async def aclose(self) -> None:
        """Close all clients, those of other running loops as well; nothing can be asked for afterwards. Fine where that has been done."""
        self.closed = True
        mine = asyncio.get_running_loop()
        for loop, entry in list(self._by_loop.items()):
            self._by_loop.pop(loop, None)
            if loop is mine:
                async with entry.opening:
                    if entry.lifetime is not None:
                        await entry.lifetime.aclose()
            elif entry.lifetime is not None and not loop.is_closed():
                closing = finish(entry.lifetime)
                try:
                    asyncio.run_coroutine_threadsafe(closing, loop)
                except RuntimeError:  # that loop has been closed meanwhile
                    closing.close()


async def finish(lifetime: AsyncGenerator[ClientT, None]) -> None:
    """Close a client on the loop where it lives."""
    await lifetime.aclose()


def let_go(_: object) -> None:
    """Nothing is to be done for a client: what gave it closes it."""
