"""What stores around a store have in common: they can do what that one can."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, ClassVar, Final, Self, cast

from azarr.stores.base import Request, Reserve, Stamped, Version, Versioned, as_conditional, as_locking, as_versioned, identity_of
from azarr.types import Buffer, Listing

WRITES: Final = frozenset({"set", "erase", "erase_prefix"})
LISTING: Final = frozenset({"list_prefix", "list_dir"})
STAMPS: Final = frozenset({"get_stamped"})
BLOCKING: Final = frozenset(
    {
        "get_blocking",
        "get_stamped_blocking",
        "get_each",
        "get_joined",
        "get_into",
        "set_blocking",
        "erase_blocking",
        "update_blocking",
    }
)
VERSIONS: Final = frozenset({"get_versioned"})
CONDITIONS: Final = frozenset({"set_if", "erase_if"})
LOCKS: Final = frozenset({"lock"})

FACES: Final = (WRITES, LISTING, STAMPS, BLOCKING, VERSIONS, CONDITIONS, LOCKS)
"""The methods by which the protocols of stores are told, besides ``get``: a store has all of a face or none."""


class Wrapping:
    """A store around ``store`` that hands on whatever it is asked for: what a subclass is about is what it overrides.

    Protocols are told by the methods that a class has. An object is therefore of a class in which the faces that ``store`` lacks, and
    those in ``lacks``, are taken out; its name and everything else are those of the subclass. A subclass's constructor takes the store
    first, and ``_options`` answers the other arguments by name, for ``repr`` and pickle.
    """

    lacks: ClassVar[frozenset[str]] = frozenset()
    """Methods that such a store has in no case."""

    _shape_of: ClassVar[type[Any] | None] = None
    _store: Any

    def __new__(cls, *args: Any, **options: Any) -> Self:
        plain: Any = plain_of(cls)
        lacking = frozenset(name for name in plain.lacks | cls._lacking(*args, **options) if hasattr(plain, name))
        return cast("Self", object.__new__(shaped(plain, lacking)))

    def __init__(self, store: Any) -> None:
        self._store = store

    @classmethod
    def _lacking(cls, store: Any, *_: Any, **_options: Any) -> frozenset[str]:
        """The methods that a store made of these arguments cannot have."""
        return missing_in(store)

    def _options(self) -> dict[str, Any]:
        return {}

    def __repr__(self) -> str:
        options = "".join(f", {name}={value!r}" for name, value in self._options().items())
        return f"{type(self).__name__}({self._store!r}{options})"

    def __reduce__(self) -> tuple[Any, ...]:
        return remade, (plain_of(type(self)), self._store, self._options())

    def _wrapped(self) -> tuple[Any, ...]:
        """The stores around which this one is."""
        return (self._store,)

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            for each in self._wrapped():
                if hasattr(each, "__aenter__"):
                    await each.__aenter__()
                    stack.push_async_exit(each.__aexit__)
            stack.pop_all()  # it is for __aexit__ to leave them
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        stack = AsyncExitStack()
        for each in self._wrapped():
            if hasattr(each, "__aexit__"):
                stack.push_async_exit(each.__aexit__)
        await stack.__aexit__(kind, error, trace)

    async def aclose(self) -> None:
        """Close the store, where it is one that is closed."""
        async with AsyncExitStack() as stack:
            for each in self._wrapped():
                if hasattr(each, "aclose"):
                    stack.push_async_callback(each.aclose)

    @property
    def identity(self) -> Hashable:
        """That of the store around which this one is, for the data are the same."""
        return identity_of(self._store)

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        """See ``ReadableStore``."""
        return cast("Buffer | None", await self._store.get(key, byte_range))

    async def set(self, key: str, value: Buffer) -> None:
        """See ``WritableStore``."""
        await self._store.set(key, value)

    async def erase(self, key: str) -> None:
        """See ``WritableStore``."""
        await self._store.erase(key)

    async def erase_prefix(self, prefix: str) -> None:
        """See ``WritableStore``."""
        await self._store.erase_prefix(prefix)

    def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        """See ``ListableStore``."""
        return cast("AsyncIterator[str]", self._store.list_prefix(prefix))

    async def list_dir(self, prefix: str = "") -> Listing:
        """See ``ListableStore``."""
        return cast("Listing", await self._store.list_dir(prefix))

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        """See ``BlockingStore``."""
        return cast("Buffer | None", self._store.get_blocking(key, byte_range, reserve))

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        """See ``BlockingStore``: without a stamp, like ``get_stamped``, unless a subclass knows where its values are from."""
        return Stamped(self.get_blocking(key, byte_range, reserve))

    def get_each(self, folder: str, names: Sequence[str], reserve: Reserve) -> Iterator[Buffer | None]:
        """See ``BlockingStore``."""
        return cast("Iterator[Buffer | None]", self._store.get_each(folder, names, reserve))

    def get_joined(self, folder: str, names: Sequence[str], out: memoryview) -> list[int | None]:
        """See ``BlockingStore``."""
        return cast("list[int | None]", self._store.get_joined(folder, names, out))

    def get_into(self, key: str, out: memoryview) -> int | None:
        """See ``BlockingStore``."""
        return cast("int | None", self._store.get_into(key, out))

    def set_blocking(self, key: str, value: Buffer) -> None:
        """See ``BlockingStore``."""
        self._store.set_blocking(key, value)

    def erase_blocking(self, key: str) -> None:
        """See ``BlockingStore``."""
        self._store.erase_blocking(key)

    def update_blocking(self, key: str, change: Callable[[Buffer | None], Buffer | None]) -> None:
        """See ``BlockingStore``."""
        self._store.update_blocking(key, change)

    @property
    def versioned(self) -> bool:
        """As of the store."""
        return as_versioned(self._store) is not None

    @property
    def conditional(self) -> bool:
        """As of the store."""
        return as_conditional(self._store) is not None

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        """See ``ConditionalStore``."""
        return cast("Versioned", await self._store.get_versioned(key, byte_range))

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        """See ``ConditionalStore``."""
        await self._store.set_if(key, value, version)

    async def erase_if(self, key: str, version: Version) -> None:
        """See ``ConditionalStore``."""
        await self._store.erase_if(key, version)

    @property
    def locking(self) -> bool:
        """As of the store."""
        return as_locking(self._store) is not None

    def lock(self, prefix: str) -> AbstractAsyncContextManager[None]:
        """See ``LockingStore``."""
        return cast("AbstractAsyncContextManager[None]", self._store.lock(prefix))


def missing_in(store: object) -> frozenset[str]:
    """The methods of all faces that ``store`` has not all of."""
    return frozenset().union(*(face for face in FACES if not all(callable(getattr(store, name, None)) for name in face)))


@asynccontextmanager
async def left(keys: AsyncIterator[str]) -> AsyncIterator[AsyncIterator[str]]:
    """``keys`` of a listing, which is closed when the ``async with`` is left, if it can be."""
    try:
        yield keys
    finally:
        if hasattr(keys, "aclose"):
            await keys.aclose()


def plain_of(shape: type[Wrapping]) -> type[Wrapping]:
    """The class that ``shape`` was made of by ``shaped``; a class that somebody derives from one of those is its own."""
    return vars(shape).get("_shape_of") or shape


@functools.cache
def shaped(plain: type[Wrapping], lacking: frozenset[str]) -> type[Wrapping]:
    """``plain`` without the methods that are ``lacking``: ``None`` is what Python takes for a method that there is not."""
    if not lacking:
        return plain
    namespace = {"_shape_of": plain, "__doc__": plain.__doc__, "__module__": plain.__module__, "__qualname__": plain.__qualname__}
    return type(plain.__name__, (plain,), namespace | dict.fromkeys(lacking))


def remade(plain: type[Wrapping], store: object, options: dict[str, Any]) -> Wrapping:
    """What a wrapping store is unpickled as."""
    return plain(store, **options)
