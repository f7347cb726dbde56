"""What a store is (Zarr v3 core, "Stores"): a mapping from keys to bytes that is read, written and listed.

Keys are ``/``-separated and relative: no leading or trailing ``/``, no empty, ``.`` or ``..`` segment. A prefix is empty or ends in ``/``.
Stores hold configuration only, so that one store serves any number of event loops, and they are picklable where their content allows.

**Missing is not failing**: ``get`` answers ``None`` only for a key that is proven absent; whatever else goes wrong raises.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol, TypeAlias, cast, runtime_checkable

from azarr.errors import StoreError
from azarr.types import Buffer, ByteRange, Listing, Suffix

Request: TypeAlias = ByteRange | Suffix | None
"""Which part of a value is wanted; ``None`` is all of it."""

Reserve: TypeAlias = Callable[[int], memoryview]
"""Hands out scratch memory of at least so many bytes, valid until it is called again in the same thread."""

Version: TypeAlias = Hashable
"""Stands for one state of the value at a key (an ETag, a generation); only the store that handed it out can tell what it means."""


class Versioned(NamedTuple):
    """A value and its version; both are ``None`` where the key is absent."""

    value: Buffer | None
    version: Version | None


class Stamped(NamedTuple):
    """A value, or a part of one, and a stamp: two with equal stamps, neither of them ``None``, are of one and the same stored value."""

    value: Buffer | None
    stamp: Hashable | None = None


@runtime_checkable
class ReadableStore(Protocol):
    """A store that values can be read from."""

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        """The value at ``key``, or the part of it that ``byte_range`` names; ``None`` only where the key is proven absent.

        A range that ends beyond the value is cut at its end; one that starts beyond it is empty.
        """


@runtime_checkable
class StampingStore(Protocol):
    """A store that can tell whether two parts were read of the same value, so that who reads beside a writer never mixes old and new."""

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        """As ``get``, with a stamp; ``None`` where the store cannot say."""


@runtime_checkable
class WritableStore(Protocol):
    """A store that values can be written to and erased from."""

    async def set(self, key: str, value: Buffer) -> None:
        """Store ``value`` at ``key``, replacing what was there; others see the old value or the new one, never a mixture."""

    async def erase(self, key: str) -> None:
        """Remove ``key``; fine where it is absent."""

    async def erase_prefix(self, prefix: str) -> None:
        """Remove every key that starts with ``prefix``."""


@runtime_checkable
class ListableStore(Protocol):
    """A store that knows its keys."""

    def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        """Every key that starts with ``prefix``, in no particular order."""

    async def list_dir(self, prefix: str = "") -> Listing:
        """The keys and prefixes directly below ``prefix``, sorted."""


@runtime_checkable
class Store(ReadableStore, WritableStore, ListableStore, Protocol):
    """A store that can do everything."""


@runtime_checkable
class ConditionalStore(Protocol):
    """A store that writes on condition that a value is still the one that was read, so that no writer loses what another has written.

    Versions compare by equality, and two states with equal values may have equal versions. A request with an unknown outcome (a connection
    that broke) must not be sent again blindly: the first may have been successful, and the second then fails on account of it.
    """

    @property
    def conditional(self) -> bool:
        """Whether it really can: a store around another one can what that one can."""

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        """As ``get``, together with the version of the whole value."""

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        """As ``set``, but ``PreconditionFailedError`` unless ``key`` has this ``version``; ``None`` means that it must be absent."""

    async def erase_if(self, key: str, version: Version) -> None:
        """As ``erase``, but ``PreconditionFailedError`` unless ``key`` has this ``version``."""


def as_conditional(store: object) -> ConditionalStore | None:
    """``store``, if it can write conditionally."""
    return store if isinstance(store, ConditionalStore) and store.conditional else None


@runtime_checkable
class VersionedStore(Protocol):
    """A store that tells the versions of its values, whether or not it can write on condition of them, as a web server does."""

    @property
    def versioned(self) -> bool:
        """Whether it really can: a store around another one can what that one can."""

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        """As ``get``, together with the version of the whole value."""


def as_versioned(store: object) -> VersionedStore | ConditionalStore | None:
    """``store``, if it tells versions."""
    return store if isinstance(store, VersionedStore) and store.versioned else as_conditional(store)


@runtime_checkable
class LockingStore(Protocol):
    """A store that keeps other processes away for the time of several reads and writes, and lets them in if this one dies."""

    @property
    def locking(self) -> bool:
        """Whether it really can: a store around another one can what that one can."""

    def lock(self, prefix: str) -> AbstractAsyncContextManager[None]:
        """Holds the lock of ``prefix``, below which there must be a value, for the time of an ``async with``.

        Values can be read and written regardless of it: it keeps out those who ask for the same lock.
        """


def as_locking(store: object) -> LockingStore | None:
    """``store``, if it has locks against other processes."""
    return store if isinstance(store, LockingStore) and store.locking else None


@runtime_checkable
class BlockingStore(Protocol):
    """A store whose calls take microseconds and need no event loop: memory, local files.

    azarr then fetches and decodes in one go inside a worker thread, many chunks a job. The methods are called from several threads.
    Inherit from this class: all methods but the first four then need no code, unless a store has a better way.
    """

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        """As ``get``. Where a copy has to be made anyway it may be made into memory from ``reserve``."""

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        """As ``get_blocking``, with a stamp; ``None`` where the store cannot say."""
        return Stamped(self.get_blocking(key, byte_range, reserve))

    def get_each(self, folder: str, names: Sequence[str], reserve: Reserve) -> Iterator[Buffer | None]:
        """The values at ``folder + name`` one after the other, each valid until the next; ``folder`` is a prefix, no name has a ``/``."""
        check_names(folder, names)
        return (self.get_blocking(folder + name, None, reserve) for name in names)

    def get_joined(self, folder: str, names: Sequence[str], out: memoryview) -> list[int | None]:
        """Copy the values at ``folder + name`` one behind the other into ``out``, and answer their sizes, ``None`` where one is absent.

        Before the first value that does not fit it stops: the answer is shorter then. A system that hands out a file piece by piece may
        make a value look shorter than it is. Whoever uses a value must find that out, and then ask for it alone.
        """
        check_names(folder, names)
        sizes: list[int | None] = []
        position = 0
        for name in names:
            value = self.get_blocking(folder + name)
            if value is None:
                sizes.append(None)
                continue
            start, position = position, position + len(value)
            if position > len(out):
                break
            out[start:position] = value
            sizes.append(len(value))
        return sizes

    def get_into(self, key: str, out: memoryview) -> int | None:
        """Copy the value into ``out`` and answer its size, ``None`` where it is absent; a longer value answers ``len(out) + 1``."""

    def set_blocking(self, key: str, value: Buffer) -> None:
        """As ``set``."""

    def erase_blocking(self, key: str) -> None:
        """As ``erase``."""

    def update_blocking(self, key: str, change: Callable[[Buffer | None], Buffer | None]) -> None:
        """Replace the value by what ``change`` makes of it, ``None`` standing for an absent key in both.

        No two calls for one key are made at the same time in one process. A store that other processes write to as well sees to it that
        nothing is lost between reading and writing; it may call ``change`` again for that.
        """
        new = change(self.get_blocking(key))
        if new is None:
            self.erase_blocking(key)
        else:
            self.set_blocking(key, new)


AT_HAND_NBYTES = 65536
"""Up to here, having a value copied takes the event loop less time than giving that to a worker does."""


class PromptStore(Protocol):
    """A blocking store that can say whether it has a value at hand, so that the event loop itself may read small ones."""

    def get_at_hand(self, key: str, limit: int, reserve: Reserve) -> Buffer | None:
        """As ``get_blocking``, but ``OSError`` where the value might take more than microseconds or is longer than ``limit`` bytes."""


def at_hand(store: object) -> Callable[[str, int, Reserve], Buffer | None] | None:
    """The ``get_at_hand`` of ``store``; ``None`` where it has none, or is of a class that changes how that of the method reads."""
    return cast("PromptStore", store).get_at_hand if still_has(store, "get_at_hand", {"get_blocking", "get_into", "get"}) else None


End: TypeAlias = Callable[[], None]
"""The end of a write that only waits, for a disk say. To be called once, in any thread, whatever else happens."""

BeginSet: TypeAlias = Callable[[str, Buffer], End | None]


class PatientStore(Protocol):
    """A blocking store whose writes wait for something, so that a worker may do something else meanwhile."""

    def begin_set(self, key: str, value: Buffer) -> End | None:
        """As ``set_blocking``, up to where it waits: the rest, if there is one, is what it answers.

        Until that has been called, others see the old value. ``value`` is no longer needed by then.
        """


def in_steps(store: object) -> BeginSet | None:
    """The ``begin_set`` of ``store``; ``None`` where it has none, or is of a class that changes how that of the method writes."""
    return cast("PatientStore", store).begin_set if still_has(store, "begin_set", {"set_blocking", "set"}) else None


def still_has(store: object, method: str, others: set[str]) -> bool:
    """Whether ``store`` has ``method``, and is of no class that changes ``others`` of which that method is a faster way."""
    for kind in type(store).__mro__:
        if method in vars(kind):
            return True
        if not vars(kind).keys().isdisjoint(others):
            return False
    return False


async def stamped(store: ReadableStore, key: str, byte_range: Request = None) -> Stamped:
    """What ``store`` answers, awaited, with a stamp where it has one."""
    if isinstance(store, StampingStore):
        return await store.get_stamped(key, byte_range)
    return Stamped(await store.get(key, byte_range))


def identity_of(store: object) -> Hashable:
    """What stores have in common that hold the same data; a store that says nothing of it is alone."""
    identity: Hashable = getattr(store, "identity", None) or ("object", id(store))
    return identity


def is_remote(store: object) -> bool:
    """Whether requests to ``store`` are awaited, as those over a network are, so that few large ones are better than many small ones."""
    return not isinstance(store, BlockingStore)


def check_key(key: str) -> str:
    """``key`` itself; ``StoreError`` where it is not a legal key and might leave the root of a store."""
    if not key or key[0] == "/" or key[-1] == "/" or "//" in key or "\\" in key or "\0" in key:
        raise StoreError(f"{key!r} is not a key: keys are relative, '/'-separated, and have no empty segment, backslash or NUL", key=key)
    if "." in key and not {".", ".."}.isdisjoint(key.split("/")):
        raise StoreError(f"{key!r} is not a key: the segments '.' and '..' are not allowed", key=key)
    return key


def check_names(folder: str, names: Sequence[str]) -> None:
    """Raise ``StoreError`` unless ``folder`` is a prefix and every one of ``names`` makes a key of it without a further ``/``."""
    check_prefix(folder)
    together = "".join(names)
    # chunk indices, which most names are, need no look at each of them
    if not together.isdigit() or "" in names:
        for name in names:
            if "/" in check_key(name):
                raise StoreError(f"{name!r} is not a name: it has a '/'", key=folder + name)


def check_prefix(prefix: str) -> str:
    """``prefix`` itself; ``StoreError`` unless it is empty or a legal key with a ``/`` at its end."""
    if prefix:
        if prefix[-1] != "/":
            raise StoreError(f"{prefix!r} is not a prefix: it must end in '/'", key=prefix)
        check_key(prefix[:-1])
    return prefix
