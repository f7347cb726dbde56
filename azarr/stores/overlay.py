"""A store on top of another one: what is written goes to the upper one, and the lower one stays as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final, cast

from azarr.errors import PreconditionFailedError, StoreError
from azarr.stores.base import (
    BlockingStore,
    ListableStore,
    Request,
    Reserve,
    Stamped,
    Version,
    Versioned,
    identity_of,
    stamped,
)
from azarr.stores.identities import Overlaid
from azarr.stores.memory import part_of
from azarr.stores.wrapping import BLOCKING, LISTING, LOCKS, Wrapping, left, missing_in
from azarr.types import Buffer, ByteRange, Listing

ERASED: Final = b"azarr: erased here, whatever is below (6f1c0b5e9a7d4c21b38e5d9f02a4c7e6)\n"
"""The value that stands above for a key that has been erased and is below."""

HEAD: Final = ByteRange(0, len(ERASED) + 1)
"""So much of a value tells whether it is ``ERASED``."""


@dataclass(frozen=True, slots=True)
class Beneath:
    """The version of a value that is below, and that nobody has written above."""


class OverlayStore(Wrapping):
    """``below``, on which writes to ``above`` lie: what is not above is read from below, where nothing is ever written.

    A key that is erased and is below gets the value ``azarr.stores.overlay.ERASED`` above, which reads as absent, and which nobody can
    write otherwise. Listings have the keys of both; each key, and each prefix, that both have takes a small request to ``above`` then.
    ``erase_prefix`` marks every key that is below, one by one. Both are for experiments on data that are to stay as they are: where much
    of what is below is rewritten or erased, make a copy.

    It writes conditionally where ``above`` does, and has a blocking face where both have one. It has no locks against other processes,
    so that only one of them should resize an array here. What is below should not change while it is used.
    """

    lacks = LOCKS

    def __init__(self, above: Any, below: Any) -> None:
        super().__init__(above)
        self._below = below

    @classmethod
    def _lacking(cls, above: Any, below: Any) -> frozenset[str]:
        return missing_in(above) | (missing_in(below) & (LISTING | BLOCKING))

    def _options(self) -> dict[str, Any]:
        return {"below": self._below}

    def _wrapped(self) -> tuple[Any, ...]:
        return self._store, self._below

    @property
    def identity(self) -> Overlaid:
        """Those of both."""
        return Overlaid(identity_of(self._store), identity_of(self._below))

    @property
    def locking(self) -> bool:
        """It has no locks: what they would lock may be below, where nothing is written."""
        return False

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        value = await super().get(key, byte_range)
        if value is None:
            return cast("Buffer | None", await self._below.get(key, byte_range))
        return part_above(await super().get(key), byte_range) if may_be_erased(value, byte_range) else value

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """See ``StampingStore``."""
        found = await stamped(self._store, key, byte_range)
        if found.value is None:
            return from_below(await stamped(self._below, key, byte_range))
        if may_be_erased(found.value, byte_range):
            whole = await stamped(self._store, key)
            return Stamped(part_above(whole.value, byte_range), whole.stamp)
        return found

    async def _is_below(self, key: str) -> bool:
        return await self._below.get(key, HEAD) is not None

    async def _is_erased(self, key: str) -> bool:
        return is_erased(await super().get(key, HEAD))

    async def set(self, key: str, value: Buffer) -> None:
        await super().set(key, writable(key, value))

    async def erase(self, key: str) -> None:
        if await self._is_below(key):
            await super().set(key, ERASED)
        else:
            await super().erase(key)

    async def erase_prefix(self, prefix: str) -> None:
        if not isinstance(self._below, ListableStore):
            raise StoreError(f"cannot erase what begins with {prefix!r}: the store below, {self._below!r}, cannot be listed", key=prefix)
        hidden = {key async for key in self._below.list_prefix(prefix)}
        if not hidden:
            await super().erase_prefix(prefix)
            return
        for key in hidden:
            await super().set(key, ERASED)
        for key in [key async for key in super().list_prefix(prefix)]:
            if key not in hidden:
                await super().erase(key)

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        above = {key async for key in super().list_prefix(prefix)}
        async with left(self._below.list_prefix(prefix)) as keys:
            async for key in keys:
                if key not in above:
                    yield key
                elif await self._is_erased(key):
                    above.discard(key)
        for key in above:
            yield key

    async def list_dir(self, prefix: str = "") -> Listing:
        above, below = await super().list_dir(prefix), cast("Listing", await self._below.list_dir(prefix))
        keys, prefixes = {*above.keys, *below.keys}, {*above.prefixes, *below.prefixes}
        for key in {*above.keys} & {*below.keys}:
            if await self._is_erased(key):
                keys.discard(key)
        for each in {*above.prefixes} & {*below.prefixes}:
            if not await self._has_any(each):
                prefixes.discard(each)
        return Listing(tuple(sorted(keys)), tuple(sorted(prefixes)))

    async def _has_any(self, prefix: str) -> bool:
        """Whether there is a key that begins with ``prefix`` and has not been erased."""
        erased = set()
        async with left(super().list_prefix(prefix)) as keys:
            async for key in keys:
                if not await self._is_erased(key):
                    return True
                erased.add(key)
        async with left(self._below.list_prefix(prefix)) as keys:
            async for key in keys:
                if key not in erased:
                    return True
        return False

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        value, version = await super().get_versioned(key, byte_range)
        if value is None:
            value = await self._below.get(key, byte_range)
            return Versioned(value, None if value is None else Beneath())
        if may_be_erased(value, byte_range):
            whole, version = await super().get_versioned(key)
            value = part_above(whole, byte_range)
        return Versioned(value, None if value is None else version)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        await super().set_if(key, writable(key, value), await self._version_above(key, version))

    async def erase_if(self, key: str, version: Version) -> None:
        if await self._is_below(key):
            await super().set_if(key, ERASED, await self._version_above(key, version))
        else:
            await super().erase_if(key, version)

    async def _version_above(self, key: str, version: Version | None) -> Version | None:
        """The version that a key must have above, if it has ``version`` here."""
        if isinstance(version, Beneath):
            return None
        if version is not None:
            return version
        value, above = await super().get_versioned(key, HEAD)
        if is_erased(value):
            return above
        if value is not None or await self._is_below(key):
            raise PreconditionFailedError(f"{key!r} is not what it was: read it again, change that, and write it", key=key)
        return None

    get_each = BlockingStore.get_each
    get_joined = BlockingStore.get_joined

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        value = super().get_blocking(key, byte_range, reserve)
        if value is None:
            return cast("Buffer | None", self._below.get_blocking(key, byte_range, reserve))
        return part_above(super().get_blocking(key), byte_range) if may_be_erased(value, byte_range) else value

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        found: Stamped = self._store.get_stamped_blocking(key, byte_range, reserve)
        if found.value is None:
            return from_below(self._below.get_stamped_blocking(key, byte_range, reserve))
        if may_be_erased(found.value, byte_range):
            found = self._store.get_stamped_blocking(key)
            return Stamped(part_above(found.value, byte_range), found.stamp)
        return found

    def get_into(self, key: str, out: memoryview) -> int | None:
        size = super().get_into(key, out)
        if size is None:
            return cast("int | None", self._below.get_into(key, out))
        if size > len(out):  # of what is erased, too, where there is no room for the mark
            return None if len(out) < len(ERASED) and is_erased(super().get_blocking(key, HEAD)) else size
        return None if is_erased(out[:size]) else size

    def set_blocking(self, key: str, value: Buffer) -> None:
        super().set_blocking(key, writable(key, value))

    def erase_blocking(self, key: str) -> None:
        if self._below.get_blocking(key, HEAD) is not None:
            super().set_blocking(key, ERASED)
        else:
            super().erase_blocking(key)

    def update_blocking(self, key: str, change: Callable[[Buffer | None], Buffer | None]) -> None:
        def changed(old: Buffer | None) -> Buffer | None:
            below = self._below.get_blocking(key) if old is None else None
            new = change(None if is_erased(old) else below if old is None else old)
            if new is not None:
                return writable(key, new)
            hidden = below is not None or (old is not None and self._below.get_blocking(key, HEAD) is not None)
            return ERASED if hidden else None

        super().update_blocking(key, changed)


def from_below(found: Stamped) -> Stamped:
    """What was found below; its stamp is none of what is above."""
    return Stamped(found.value, None if found.stamp is None else (Beneath(), found.stamp))


def may_be_erased(value: Buffer, byte_range: Request) -> bool:
    """Whether ``value``, which is a part of what is above, may be one of ``ERASED``."""
    return memoryview(value).nbytes <= len(ERASED) and bytes(value) == part_of(ERASED, byte_range)


def is_erased(value: Buffer | None) -> bool:
    """Whether the value above stands for an erased key."""
    return value is not None and memoryview(value).nbytes == len(ERASED) and bytes(value) == ERASED


def part_above(value: Buffer | None, byte_range: Request) -> Buffer | None:
    """The part of the whole ``value`` above; ``None`` where it stands for an erased key."""
    return None if value is None or is_erased(value) else part_of(bytes(value), byte_range)


def writable(key: str, value: Buffer) -> Buffer:
    """``value``, unless it would stand for an erased key."""
    if is_erased(value):
        raise StoreError(f"cannot write {key!r}: this very value stands for an erased key", key=key)
    return value
