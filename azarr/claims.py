"""Claims: how the processes that write to a networked store take turns at an array, where there are only conditional writes.

Whoever wants to change how far an array reaches claims its metadata document first, by sixty-four spaces and tabs behind it, which every
reader of JSON skips. A claim is renewed as long as its owner lives. One that has not changed for ``PATIENCE`` seconds is taken over; its
old owner then can neither publish, as the document is another one, nor write chunks, as it looks at its clock between reading and writing.
No two clocks are compared: each process measures for itself how long it has seen, or has not renewed, a claim.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

from azarr.errors import StoreError
from azarr.locks import locks_of
from azarr.paths import key_of
from azarr.rewriting import rewrite
from azarr.stores.base import ConditionalStore
from azarr.stores.threads import ended
from azarr.types import Buffer, Limits

PATIENCE = 20.0
"""Seconds after which a claim that is not renewed counts as left behind by a process that died."""

BEAT = 5.0
"""Seconds between two renewals."""

SHORTEST, LONGEST = 0.01, 0.5
"""Seconds between two looks at somebody else's claim."""

BITS = 64


class OvertakenError(Exception):
    """Somebody else has changed, or claimed, the array meanwhile: what was done has to be done again."""


def claim_of(document: Buffer | None) -> bytes:
    """The claim behind a metadata document; nothing where there is none."""
    end = bytes(document[-BITS - 1 :]) if document is not None else b""
    return end if len(end) == BITS + 1 and end[:1] == b"\n" and not end[1:].strip(b" \t") else b""


def new_claim() -> bytes:
    """A claim unlike any other."""
    return b"\n" + format(random.getrandbits(BITS), f"0{BITS}b").translate({ord("0"): " ", ord("1"): "\t"}).encode()


def without_claim(document: Buffer) -> bytes:
    """The document itself."""
    return bytes(document).removesuffix(claim_of(document) or b"\0")


class Claim:
    """A claim to the node at ``path``, whose document ``name`` carries it, from ``begin`` to ``end``."""

    def __init__(self, store: ConditionalStore, path: str, name: str, limits: Limits) -> None:
        self._store, self._path, self._key, self._limits = store, path, key_of(path, name), limits
        self._mine = b""
        self._renewed = 0.0
        self._beats: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def begin(self) -> None:
        """Wait for the claim. Where there is no document, there is nothing to claim."""
        loop = asyncio.get_running_loop()
        seen, since, pause = b"", 0.0, SHORTEST

        async def claimed(document: Buffer | None) -> Buffer | None:
            nonlocal seen, since
            self._mine = b""
            other, now = claim_of(document), loop.time()
            if other != seen:
                seen, since = other, now
            if document is None or (other and now < since + PATIENCE):
                return document
            self._renewed, self._mine = now, new_claim()
            return without_claim(document) + self._mine

        while True:
            await rewrite(self._store, self._key, claimed, part=self._limits.document)
            if self._mine or not seen:
                break
            await asyncio.sleep(random.uniform(0, pause))  # noqa: S311 - no secret
            pause = min(LONGEST, 2 * pause)
        self._beats = loop.create_task(self._beat())

    def check(self) -> None:
        """Raise ``OvertakenError`` where somebody else may have taken over. To be called between reading and writing conditionally."""
        if not self._mine or asyncio.get_running_loop().time() > self._renewed + PATIENCE / 2:
            raise OvertakenError

    def keep(self, document: Buffer | None) -> bytes:
        """What is to stand behind the document, which has to carry this claim, when it has been changed."""
        if not self._mine or claim_of(document) != self._mine:
            raise OvertakenError
        return self._mine

    def close(self, document: Buffer | None) -> bytes:
        """The same for the last change, with which the claim ends."""
        self.keep(document)
        return b""

    def over(self) -> None:
        """The last change has been stored."""
        self._mine = b""

    async def end(self) -> None:
        """Renew no more, and take the claim away, even for one who is cancelled; where that fails, others wait for it a while."""
        if self._mine or self._beats is not None:
            await ended(asyncio.get_running_loop().create_task(self._release()))

    async def _release(self) -> None:
        self._over.set()
        if self._beats is not None:
            await self._beats
        if self._mine:
            with suppress(StoreError):
                await self._replace(b"")

    async def _beat(self) -> None:
        while not await happens(self._over, BEAT):
            now = asyncio.get_running_loop().time()
            with suppress(StoreError):  # the clock tells how serious that is
                if not await self._replace(new_claim()):
                    return
                self._renewed = now

    async def _replace(self, claim: bytes) -> bool:
        """Whether this claim was there, and has been replaced by ``claim``."""
        found = False

        async def replaced(document: Buffer | None) -> Buffer | None:
            nonlocal found
            found = document is not None and claim_of(document) == self._mine
            return without_claim(document) + claim if document is not None and found else document

        async with locks_of(self._store).hold(key_of(self._path, "")):
            if self._mine:
                await rewrite(self._store, self._key, replaced, part=self._limits.document)
            self._mine = claim if found else b""
        return found


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Whether ``event`` happens within so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
