"""A store around a store that makes few requests of many."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Hashable
from functools import partial
from typing import Any, NamedTuple, TypeAlias, cast

from azarr.stores.base import Request, Stamped, Version, check_key, stamped
from azarr.stores.flights import Ask, Asks, Flight, LoopAsks
from azarr.stores.merging import GAP, MOST, merge, span_of
from azarr.stores.wrapping import BLOCKING, Wrapping
from azarr.types import Buffer, ByteRange


class Fetched(NamedTuple):
    """What a request has brought: a ``part`` of a value, ``None`` where the key is absent, and its stamp."""

    data: Buffer | None
    part: Request
    stamp: Hashable | None


class Wanted(NamedTuple):
    """A part of a value that is to be fetched."""

    key: str
    part: Request
    ask: Ask[Fetched]


Pending: TypeAlias = list[Wanted]


class CoalescingStore(Wrapping):
    """``store``, but neighbouring ranges of one value that are asked for at the same time come with one request.

    At the same time is within one iteration of the event loop, as what the tasks of one operation ask for. Ranges are merged where at
    most ``gap`` bytes lie between them and together they have at most ``most`` bytes: such a gap takes less time than another request. Who
    asks for just what somebody else is waiting for waits along, unless it has been written through this store since that was asked for.

    For stores behind a network; it has no blocking face. Requests that wait for nobody any more are cancelled. Whoever writes as well
    should share one such store, as it does not hear of what is written to the data by others while a request is under way.
    """

    lacks = BLOCKING

    def __init__(self, store: Any, *, gap: int = GAP, most: int = MOST) -> None:
        if gap < 0 or most < 1:
            raise ValueError(f"gap must not be negative, and most be at least 1, not {gap} and {most}")
        super().__init__(store)
        self._gap, self._most = gap, most
        self._asks: Asks[Fetched] = Asks()
        self._pending: weakref.WeakKeyDictionary[LoopAsks[Fetched], Pending] = weakref.WeakKeyDictionary()

    def _options(self) -> dict[str, Any]:
        return {"gap": self._gap, "most": self._most}

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return (await self._get(key, byte_range)).value

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """See ``StampingStore``."""
        return await self._get(key, byte_range)

    async def _get(self, key: str, byte_range: Request) -> Stamped:
        asks = self._asks.here()
        ask = asks.get(check_key(key), byte_range)
        if ask is None:
            ask = asks.add(key, byte_range)
            self._want(asks, Wanted(key, byte_range, ask))
        data, part, stamp = await ask.outcome()
        if data is None or part == byte_range:
            return Stamped(data, stamp)
        start, wanted = cast("ByteRange", part).start, cast("ByteRange", byte_range)
        return Stamped(memoryview(data)[wanted.start - start : cast("int", wanted.stop) - start], stamp)

    def _want(self, asks: LoopAsks[Fetched], wanted: Wanted) -> None:
        pending = self._pending.get(asks)
        if pending is None:
            pending = self._pending[asks] = []
            asyncio.get_running_loop().call_soon(self._send, asks)
        pending.append(wanted)

    def _send(self, asks: LoopAsks[Fetched]) -> None:
        """Make the requests for all that is wanted by now, and still is."""
        ranges: dict[str, list[tuple[Wanted, ByteRange]]] = {}
        for each in self._pending.pop(asks, []):
            if all(future.done() for future in each.ask.futures):
                asks.drop(*each)
            elif isinstance(each.part, ByteRange) and each.part.stop is not None:
                ranges.setdefault(each.key, []).append((each, each.part))
            else:
                self._start(asks, [each], each.part)
        for wanted in ranges.values():
            for group in merge(enumerate(part for _, part in wanted), self._gap, self._most):
                self._start(asks, [wanted[number][0] for number, _ in group], ByteRange(*span_of(group)))

    def _start(self, asks: LoopAsks[Fetched], wanted: list[Wanted], part: Request) -> None:
        def over() -> None:
            for each in wanted:
                asks.drop(*each)

        Flight([each.ask for each in wanted], partial(self._fetch, wanted[0].key, part), over)

    async def _fetch(self, key: str, part: Request) -> Fetched:
        value, stamp = await stamped(self._store, key, part)
        return Fetched(value, part, stamp)

    async def set(self, key: str, value: Buffer) -> None:
        try:
            await super().set(key, value)
        finally:
            self._asks.forget(key)

    async def erase(self, key: str) -> None:
        try:
            await super().erase(key)
        finally:
            self._asks.forget(key)

    async def erase_prefix(self, prefix: str) -> None:
        try:
            await super().erase_prefix(prefix)
        finally:
            self._asks.forget_below(prefix)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        try:
            await super().set_if(key, value, version)
        finally:
            self._asks.forget(key)

    async def erase_if(self, key: str, version: Version) -> None:
        try:
            await super().erase_if(key, version)
        finally:
            self._asks.forget(key)
