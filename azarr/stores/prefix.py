"""A store that is a part of another one: what is below a prefix there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

from azarr.errors import StoreError
from azarr.stores.base import Request, Reserve, Stamped, Version, Versioned, check_key, check_prefix, identity_of
from azarr.stores.identities import Below
from azarr.stores.wrapping import Wrapping, left
from azarr.types import Buffer, Listing


class OwnKeys:
    """Makes errors that come out of a ``with`` name keys without ``prefix``; their messages name the whole keys."""

    __slots__ = ("_prefix",)

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, StoreError) and error.key is not None:
            error.key = error.key.removeprefix(self._prefix)


class PrefixStore(Wrapping):
    """What is below ``prefix`` in ``store``, by keys without that prefix; nothing else of ``store`` can be reached.

    ``prefix`` is empty or ends in ``/``. It can do what ``store`` can. Writers meet those who write the same values through ``store``
    itself, or through another prefix. Consolidated metadata of groups above the prefix cannot be reached, and so are not kept up to date.
    """

    def __init__(self, store: Any, prefix: str) -> None:
        super().__init__(store)
        self._prefix = check_prefix(prefix)
        self._own_keys = OwnKeys(self._prefix)

    def _options(self) -> dict[str, Any]:
        return {"prefix": self._prefix}

    @property
    def identity(self) -> Below:
        """That of the store, and the prefix."""
        whole = identity_of(self._store)
        return Below(whole.whole, whole.prefix + self._prefix) if isinstance(whole, Below) else Below(whole, self._prefix)

    def _key(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _below(self, prefix: str) -> str:
        return self._prefix + check_prefix(prefix)

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        with self._own_keys:
            return await super().get(self._key(key), byte_range)

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """See ``StampingStore``."""
        with self._own_keys:
            found: Stamped = await self._store.get_stamped(self._key(key), byte_range)
            return found

    async def set(self, key: str, value: Buffer) -> None:
        with self._own_keys:
            await super().set(self._key(key), value)

    async def erase(self, key: str) -> None:
        with self._own_keys:
            await super().erase(self._key(key))

    async def erase_prefix(self, prefix: str) -> None:
        with self._own_keys:
            await super().erase_prefix(self._below(prefix))

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        with self._own_keys:
            async with left(super().list_prefix(self._below(prefix))) as keys:
                async for key in keys:
                    yield key[len(self._prefix) :]

    async def list_dir(self, prefix: str = "") -> Listing:
        with self._own_keys:
            found, start = await super().list_dir(self._below(prefix)), len(self._prefix)
        return Listing(tuple(key[start:] for key in found.keys), tuple(each[start:] for each in found.prefixes))

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        with self._own_keys:
            return super().get_blocking(self._key(key), byte_range, reserve)

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        with self._own_keys:
            found: Stamped = self._store.get_stamped_blocking(self._key(key), byte_range, reserve)
            return found

    def get_each(self, folder: str, names: Sequence[str], reserve: Reserve) -> Iterator[Buffer | None]:
        return super().get_each(self._below(folder), names, reserve)

    def get_joined(self, folder: str, names: Sequence[str], out: memoryview) -> list[int | None]:
        with self._own_keys:
            return super().get_joined(self._below(folder), names, out)

    def get_into(self, key: str, out: memoryview) -> int | None:
        with self._own_keys:
            return super().get_into(self._key(key), out)

    def set_blocking(self, key: str, value: Buffer) -> None:
        with self._own_keys:
            super().set_blocking(self._key(key), value)

    def erase_blocking(self, key: str) -> None:
        with self._own_keys:
            super().erase_blocking(self._key(key))

    def update_blocking(self, key: str, change: Callable[[Buffer | None], Buffer | None]) -> None:
        with self._own_keys:
            super().update_blocking(self._key(key), change)

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        with self._own_keys:
            return await super().get_versioned(self._key(key), byte_range)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        with self._own_keys:
            await super().set_if(self._key(key), value, version)

    async def erase_if(self, key: str, version: Version) -> None:
        with self._own_keys:
            await super().erase_if(self._key(key), version)

    def lock(self, prefix: str) -> AbstractAsyncContextManager[None]:
        return super().lock(self._below(prefix))
