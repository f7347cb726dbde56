"""A store that cannot be written to."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from azarr.errors import StoreError
from azarr.stores.base import Request, Reserve, Stamped
from azarr.stores.wrapping import CONDITIONS, LOCKS, WRITES, Wrapping
from azarr.types import Buffer


class ReadOnlyStore(Wrapping):
    """``store`` for reading and listing only: whoever tries to write what is in it is told that by a ``StoreError``.

    It keeps well-meaning code from writing by mistake; what is allowed to whom is for the permissions of the storage itself to say.
    """

    lacks = WRITES | CONDITIONS | LOCKS

    @property
    def conditional(self) -> bool:
        """It is not written to, and so not on any condition."""
        return False

    @property
    def locking(self) -> bool:
        """It is not written to, so there is nobody to keep away."""
        return False

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """See ``StampingStore``."""
        found: Stamped = await self._store.get_stamped(key, byte_range)
        return found

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        found: Stamped = self._store.get_stamped_blocking(key, byte_range, reserve)
        return found

    def set_blocking(self, key: str, value: Buffer) -> None:
        del value
        self._refuse("write", key)

    def erase_blocking(self, key: str) -> None:
        self._refuse("erase", key)

    def update_blocking(self, key: str, change: Callable[[Buffer | None], Buffer | None]) -> None:
        del change
        self._refuse("write", key)

    def _refuse(self, verb: str, key: str) -> NoReturn:
        raise StoreError(f"cannot {verb} {key!r}: {self!r} is for reading only", key=key)
