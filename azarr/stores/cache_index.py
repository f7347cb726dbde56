"""What a cache of values has, where, and what has to make room; pure bookkeeping, for whoever holds its mutex."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from typing import Final, NamedTuple

from azarr.stores.base import Request
from azarr.types import ByteRange, Suffix

ENTRY_NBYTES: Final = 512
"""What a value takes besides its bytes."""

UNKNOWN: Final = "0"
"""The mark of a value whose version nobody has asked for."""

_NAME: Final = re.compile(
    r"(?P<key>.+)/~(?P<part>all|\d+\.\.\d*|last\d+)-(?P<nbytes>\d+)-(?P<mark>[0-9a-f]+)-(?P<origin>[0-9a-f]+)\.\d+", re.DOTALL
)


class Kept(NamedTuple):
    """A value, or a part of one, that is in the cache.

    ``name`` is its key there, ``None`` of what is known to be absent. ``mark`` stands for the version of the value, and ``checked`` is
    when that was known to be the latest. Parts with equal stamps are of one value.
    """

    name: str | None
    nbytes: int
    mark: str
    checked: float
    stamp: Hashable | None = None

    def contradicts(self, other: Kept) -> bool:
        """Whether the two cannot be of one value."""
        return self.mark != other.mark or (self.stamp != other.stamp and None not in {self.stamp, other.stamp})


class CacheIndex:
    """What is in a cache, at most ``limit`` bytes: what was asked for last. The names of what had to go are ``garbage``."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.mutex = threading.Lock()
        self.nbytes = self.evictions = 0
        self.garbage: set[str] = set()
        self._entries: OrderedDict[tuple[str, Request], Kept] = OrderedDict()
        self._parts: dict[str, set[Request]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: str, part: Request) -> tuple[Kept, Request, Request] | None:
        """What has this ``part`` of a value, which part that is, and what to ask of it."""
        for kept_part, rest in ((part, None), (None, part)):
            kept = self._entries.get((key, kept_part))
            if kept is not None:
                self._entries.move_to_end((key, kept_part))
                return kept, kept_part, rest
        return None

    def put(self, key: str, part: Request, kept: Kept) -> None:
        """Have it from now on, in place of what there was, and of what cannot be of the same value; what is too large is garbage."""
        for each in self._parts.get(key, set()).copy():
            if each == part or kept.contradicts(self._entries[key, each]):
                self._drop(key, each, keep=kept.name)
        if kept.nbytes + ENTRY_NBYTES > self.limit:
            self._discard(kept)
            return
        self._entries[key, part] = kept
        self._parts.setdefault(key, set()).add(part)
        self.nbytes += kept.nbytes + ENTRY_NBYTES
        while self.nbytes > self.limit:
            self._drop(*next(iter(self._entries)))
            self.evictions += 1

    def checked(self, key: str, part: Request, kept: Kept, now: float) -> None:
        """``kept`` is known to be the latest as of ``now``, if it is still there."""
        if self._entries.get((key, part)) is kept:
            self._entries[key, part] = kept._replace(checked=now)

    def forget(self, key: str) -> None:
        """Have nothing of ``key`` any more."""
        for part in self._parts.get(key, set()).copy():
            self._drop(key, part)

    def forget_below(self, prefix: str) -> None:
        """Have nothing of keys that begin with ``prefix`` any more."""
        for key in [key for key in self._parts if key.startswith(prefix)]:
            self.forget(key)

    def _drop(self, key: str, part: Request, *, keep: str | None = None) -> None:
        kept = self._entries.pop((key, part), None)
        if kept is not None:
            self.nbytes -= kept.nbytes + ENTRY_NBYTES
            self._parts[key].discard(part)
            if not self._parts[key]:
                del self._parts[key]
            if kept.name != keep:
                self._discard(kept)

    def _discard(self, kept: Kept) -> None:
        if kept.name is not None:
            self.garbage.add(kept.name)


def name_of(key: str, part: Request, nbytes: int, mark: str, origin: str) -> str:
    """The key in the cache of a part of ``key``; it says all that an index has to know, so that a later process can go on with it."""
    if part is None:
        text = "all"
    else:
        text = f"last{part.nbytes}" if isinstance(part, Suffix) else f"{part.start}..{'' if part.stop is None else part.stop}"
    return f"{key}/~{text}-{nbytes}-{mark}-{origin}"


def parsed(names: Iterable[str], folder: str, own: str) -> list[tuple[str, Request, Kept]]:
    """What the ``names`` in ``folder`` stand for; those that are not such names, or of the origin ``own``, are left aside."""
    found: list[tuple[str, Request, Kept]] = []
    for name in names:
        match = _NAME.fullmatch(name.removeprefix(folder))
        if match is not None and match["origin"] != own:
            kept = Kept(name, int(match["nbytes"]), match["mark"], float("-inf"), stamp_of(match["mark"]))
            found.append((match["key"], part_of(match["part"]), kept))
    return found


def stamp_of(mark: str) -> str | None:
    """The stamp of a value whose version ``mark`` stands for; ``None`` where nobody knows the version."""
    return None if mark == UNKNOWN else mark


def part_of(text: str) -> Request:
    """The part that a name speaks of."""
    if text == "all":
        return None
    if text.startswith("last"):
        return Suffix(int(text[4:]))
    start, _, stop = text.partition("..")
    return ByteRange(int(start), int(stop) if stop else None)
