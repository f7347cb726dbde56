"""Fixtures that tests of stores share."""

from __future__ import annotations

import asyncio

import pytest

from azarr.stores.latency import LatencyStore
from azarr.stores.memory import MemoryStore


class _GatedStore(LatencyStore):
    """A store in memory whose ``get`` finds out at once, and answers when ``opened`` is set."""

    def __init__(self, values=None) -> None:
        super().__init__(MemoryStore(values), 0.0)
        self.asked, self.cancelled, self.opened = [], 0, asyncio.Event()
        self._more = asyncio.Condition()

    async def get(self, key, byte_range=None):
        self.asked.append((key, byte_range))
        async with self._more:
            self._more.notify_all()
        try:
            value = await self._store.get(key, byte_range)
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return value

    async def until(self, count) -> None:
        """Wait until so many values have been asked for."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.asked) >= count)


@pytest.fixture
def gated():
    """Makes stores that answer when they are let; see ``_GatedStore``."""
    return _GatedStore
