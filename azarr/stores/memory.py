"""A store that keeps its values in memory."""

from __future__ import annotations

import os
import threading
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from azarr.errors import PreconditionFailedError, StoreError
from azarr.stores.base import (
    BlockingStore,
    ConditionalStore,
    Request,
    Reserve,
    Stamped,
    StampingStore,
    Store,
    Version,
    Versioned,
    check_key,
    check_prefix,
)
from azarr.types import Buffer, ByteRange, Listing


class MemoryStore(Store, BlockingStore, ConditionalStore, StampingStore):
    """A store whose values live in this object and go with it.

    ``values`` fill it at the start; they are copied. Single operations are safe from several threads, listings see the keys of one
    moment. Two stores are equal only where they are the same object; a pickled copy takes the values along and goes its own way.

    ``MemoryStore.named("x")`` is the same store for all who name it in this process, as is the URL ``memory://x``. It is there until it is
    dropped, and a pickled copy is the store itself; in another process, which does not have it, unpickling raises ``StoreError``.
    """

    _name: str | None = None

    def __init__(self, values: Mapping[str, Buffer] | None = None) -> None:
        self._values = {check_key(key): bytes(value) for key, value in (values or {}).items()}
        self._mutex = threading.RLock()  # a value is compared and replaced in one go

    def __repr__(self) -> str:
        count = len(self._values)
        name = "" if self._name is None else f" {self._name!r}"
        return f"<{type(self).__name__}{name} {count} {'key' if count == 1 else 'keys'}>"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a snapshot, so that other threads may go on writing; of a store with a name, the name."""
        if self._name is not None:
            return unpickled, (self._name, _process())
        return type(self), (self._values.copy(),)

    @classmethod
    def named(cls, name: str) -> MemoryStore:
        """The store of this ``name`` in this process, empty where nobody has named it before."""
        if not name or "/" in name:
            raise StoreError(f"{name!r} is not the name of a store in memory: it may not be empty, and has no '/'")
        with _named_mutex:
            store = _named.get(name)
            if store is None:
                store = _named[name] = MemoryStore()
                store._name = name
            return store

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """The names of the stores in memory that there are in this process."""
        with _named_mutex:
            return tuple(sorted(_named))

    @classmethod
    def drop(cls, name: str) -> None:
        """Forget the store of this ``name``, and its values once nobody holds it any more; fine where there is none."""
        with _named_mutex:
            _named.pop(name, None)

    @property
    def name(self) -> str | None:
        """What ``named`` knew it by when it was made; ``None`` where it was made without a name."""
        return self._name

    @property
    def identity(self) -> tuple[str, int]:
        """Equal for two stores only where they hold the same values: here, where they are one object."""
        return "memory", id(self)

    @property
    def conditional(self) -> bool:
        return True

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return self.get_blocking(key, byte_range)

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        while True:
            before = self._values.get(key)
            value = await self.get(key, byte_range)
            if self._values.get(key) is before:  # or else it was replaced while it was read
                return Stamped(value, None if before is None else Same(before))

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        value = self.get_blocking(key)
        version = None if value is None else bytes(value)  # nothing stands better for a value than itself
        return Versioned(part_of(version, byte_range), version)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        with self._mutex:
            self._check_version(key, version)
            self.set_blocking(key, value)

    async def erase_if(self, key: str, version: Version) -> None:
        with self._mutex:
            self._check_version(key, version)
            self.erase_blocking(key)

    def _check_version(self, key: str, version: Version | None) -> None:
        if self._values.get(check_key(key)) != version:
            raise PreconditionFailedError(f"{key!r} is not what it was: read it again, change that, and write it", key=key)

    async def set(self, key: str, value: Buffer) -> None:
        self.set_blocking(key, value)

    async def erase(self, key: str) -> None:
        self.erase_blocking(key)

    async def erase_prefix(self, prefix: str) -> None:
        for key in self._keys(prefix):
            self._values.pop(key, None)

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        for key in self._keys(prefix):
            yield key

    async def list_dir(self, prefix: str = "") -> Listing:
        keys: list[str] = []
        prefixes: set[str] = set()
        for key in self._keys(prefix):
            end = key.find("/", len(prefix))
            if end < 0:
                keys.append(key)
            else:
                prefixes.add(key[: end + 1])
        return Listing(keys=tuple(sorted(keys)), prefixes=tuple(sorted(prefixes)))

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        # A part is a view of the value: nothing is copied, so memory from ``reserve`` is never needed.
        del reserve
        return part_of(self._values.get(check_key(key)), byte_range)

    def get_at_hand(self, key: str, limit: int, reserve: Reserve) -> Buffer | None:
        """See ``PromptStore``."""
        del reserve
        value = self._values.get(check_key(key))
        if value is not None and len(value) > limit:
            raise BlockingIOError(f"{key!r} is longer than {limit} bytes")
        return value

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        while True:
            before = self._values.get(key)
            value = self.get_blocking(key, byte_range, reserve)
            if self._values.get(key) is before:
                return Stamped(value, None if before is None else Same(before))

    def get_into(self, key: str, out: memoryview) -> int | None:
        value = self._values.get(check_key(key))
        if value is None:
            return None
        if len(value) > len(out):
            return len(out) + 1
        out[: len(value)] = value
        return len(value)

    def set_blocking(self, key: str, value: Buffer) -> None:
        # ``bytes`` of ``bytes`` is the same object; everything else may change later and is copied.
        new = bytes(value)
        with self._mutex:
            self._values[check_key(key)] = new

    def erase_blocking(self, key: str) -> None:
        with self._mutex:
            self._values.pop(check_key(key), None)

    def _keys(self, prefix: str) -> list[str]:
        check_prefix(prefix)
        snapshot = list(self._values)
        return [key for key in snapshot if key.startswith(prefix)] if prefix else snapshot


class Same:
    """Stands for an object: equal where that is the same one. It keeps it, so that no other can take its place."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self._value is other._value

    def __hash__(self) -> int:
        return id(self._value)


def part_of(value: bytes | None, byte_range: Request) -> Buffer | None:
    """The part of ``value`` that ``byte_range`` names."""
    if value is None or byte_range is None:
        return value
    if isinstance(byte_range, ByteRange):
        return memoryview(value)[byte_range.start : byte_range.stop]
    return memoryview(value)[max(0, len(value) - byte_range.nbytes) :]


_named: Final[dict[str, MemoryStore]] = {}
"""The stores in memory that have names. It is the process's, as two who name one store know nothing else of each other."""

_named_mutex: Final = threading.Lock()
_TOKEN: Final = os.urandom(8)


def _process() -> tuple[bytes, int]:
    """Tells this process from others, also from those that are forked from it."""
    return _TOKEN, os.getpid()


def unpickled(name: str, process: tuple[bytes, int]) -> MemoryStore:
    """The store of this ``name``, if it was pickled in this process and has not been dropped."""
    with _named_mutex:
        store = _named.get(name) if process == _process() else None
    if store is None:
        raise StoreError(
            f"memory://{name} is in the memory of another process, or has been dropped: "
            "pass a LocalStore, or a MemoryStore without a name, which takes its values along"
        )
    return store
