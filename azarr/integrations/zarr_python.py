"""Stores of zarr-python (3.1 or later) in azarr, and stores of azarr in zarr-python; needs the extra ``zarr``.

::

    store = ZarrPythonStore(icechunk_session.store)      # any zarr.abc.store.Store
    array = await azarr.open_array(store, "temperature")

    group = zarr.open_group(as_zarr_store(azarr.SQLiteStore("data.db")))
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine, Iterable
from contextlib import suppress
from typing import Any, Literal, TypeVar, cast

from azarr.errors import PreconditionFailedError, StoreError, TransientStoreError
from azarr.stores.base import (
    BlockingStore,
    ListableStore,
    ReadableStore,
    Request,
    Store,
    WritableStore,
    as_conditional,
    check_key,
    check_prefix,
)
from azarr.stores.threads import ended
from azarr.stores.together import together
from azarr.types import Buffer, ByteRange, Listing, Suffix

try:
    from zarr.abc.store import OffsetByteRequest, RangeByteRequest, SuffixByteRequest
    from zarr.abc.store import Store as ZarrStore
    from zarr.core.buffer import default_buffer_prototype
except ImportError as missing:
    raise ImportError(f'stores of zarr-python need zarr 3 ({missing}); pip install "azarr[zarr]"') from missing

T = TypeVar("T")

LISTED_AT_ONCE = 64
"""Names of a listing that are looked at at once, to find out which are keys."""


class ZarrPythonStore(Store):
    """``zarr_store``, any store of zarr-python, as a store of azarr.

    Its methods are called on the loops where azarr is used. Most do not mind; those that hold connections, such as zarr-python's
    ``FsspecStore``, need one that was made for that: of fsspec, a file system with ``asynchronous=True``.

    What zarr-python does not promise is made up for with more requests: an erasure looks first whether the key is there, and a listing
    whether each name is a key. There are no conditional writes, so that only the writers of one process are kept apart. Errors that are
    no errors of azarr become ``StoreError``, those of connections ``TransientStoreError``.
    """

    def __init__(self, zarr_store: Any) -> None:
        if not isinstance(zarr_store, ZarrStore):
            raise TypeError(f"{zarr_store!r:.100} is no store of zarr-python (zarr.abc.store.Store)")
        self._store: Any = zarr_store

    @property
    def zarr_store(self) -> Any:
        """The store of zarr-python."""
        return self._store

    @property
    def identity(self) -> tuple[str, int]:
        """Equal for two stores around the same object."""
        return "zarr-python", id(self._store)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        check_key(key)
        if is_empty_part(byte_range):  # which zarr-python does not ask for
            return b"" if await self._exists(key) else None
        try:
            found = await self._store.get(key, default_buffer_prototype(), to_zarr(byte_range))
        except Exception as error:
            if isinstance(byte_range, ByteRange) and await self._ends_before(key, byte_range.start):
                return b""
            raise failure("read", key, error) from error
        return None if found is None else found.as_buffer_like()

    async def set(self, key: str, value: Buffer) -> None:
        check_key(key)
        # bytes, as stores may keep what they get, and whoever called may change it later
        content = default_buffer_prototype().buffer.from_bytes(bytes(value))
        await changed("write", key, self._store.set(key, content))

    async def erase(self, key: str) -> None:
        # some stores take a key for a folder, and would erase what is below
        if await self._exists(check_key(key)):
            await changed("erase", key, self._store.delete(key))

    async def erase_prefix(self, prefix: str) -> None:
        check_prefix(prefix)
        if not await asked("list", prefix, self._store.is_empty(prefix)):
            await changed("erase", prefix, self._store.delete_dir(prefix[:-1]) if prefix else self._store.clear())

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        check_prefix(prefix)
        keys = self._store.list_prefix(prefix)
        while (key := await asked("list", prefix, anext(keys, None))) is not None:
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str = "") -> Listing:
        check_prefix(prefix)
        names = await asked("list", prefix, names_of(self._store.list_dir(prefix)))
        room = asyncio.Semaphore(LISTED_AT_ONCE)

        async def kind(name: str) -> tuple[bool, bool]:
            async with room:
                return await self._exists(prefix + name), not await asked("list", prefix, self._store.is_empty(f"{prefix}{name}/"))

        kinds = dict(zip(names, await together(kind, names), strict=True))
        keys = [prefix + name for name in names if kinds[name][0]]
        prefixes = [f"{prefix}{name}/" for name in names if kinds[name][1]]
        return Listing(keys=tuple(sorted(keys)), prefixes=tuple(sorted(prefixes)))

    async def _exists(self, key: str) -> bool:
        return cast("bool", await asked("read", key, self._store.exists(key)))

    async def _ends_before(self, key: str, start: int) -> bool:
        """Whether a range could not be read because the value ends before it."""
        try:
            return bool(start) and await self._store.getsize(key) <= start
        except Exception:  # noqa: BLE001 - the first error says more
            return False


class AzarrStore(ZarrStore):  # type: ignore[misc]  # zarr is not there when types are checked
    """A store of azarr for zarr-python; ``as_zarr_store`` makes it.

    zarr-python calls it on a loop of its own, in another thread than yours: stores of azarr do not mind. Closing it does not close the
    store of azarr, for that may be used elsewhere.
    """

    def __init__(self, store: ReadableStore, *, read_only: bool = False) -> None:
        super().__init__(read_only=read_only or not isinstance(store, WritableStore))
        self._store: Any = store

    @property
    def azarr_store(self) -> ReadableStore:
        """The store of azarr."""
        return cast("ReadableStore", self._store)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    def __str__(self) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AzarrStore) and other._store == self._store and other.read_only == self.read_only

    __hash__ = None  # type: ignore[assignment]  # as zarr-python's own stores

    def with_read_only(self, read_only: bool = False) -> AzarrStore:  # noqa: FBT001, FBT002 - as zarr-python has it
        return type(self)(self._store, read_only=read_only)

    @property
    def supports_writes(self) -> bool:
        return isinstance(self._store, WritableStore)

    @property
    def supports_deletes(self) -> bool:
        return isinstance(self._store, WritableStore)

    @property
    def supports_partial_writes(self) -> Literal[False]:
        return False

    async def set_partial_values(self, key_start_values: Iterable[tuple[str, int, Any]]) -> None:
        """What zarr-python wanted stores to have up to 3.1, and never called."""
        raise NotImplementedError("stores of azarr replace whole values")

    @property
    def supports_listing(self) -> bool:
        return isinstance(self._store, ListableStore)

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:
        await self._ensure_open()
        return as_zarr_buffer(await self._store.get(key, from_zarr(byte_range)), prototype)

    async def get_partial_values(self, prototype: Any, key_ranges: Iterable[tuple[str, Any]]) -> list[Any]:
        return await together(lambda pair: self.get(pair[0], prototype, pair[1]), list(key_ranges))

    async def exists(self, key: str) -> bool:
        return await self._store.get(key, ByteRange(0, 0)) is not None

    async def getsize(self, key: str) -> int:
        size = getattr(self._store, "size", None)
        nbytes = await super().getsize(key) if size is None else await size(key)
        if nbytes is None:
            raise FileNotFoundError(key)
        return cast("int", nbytes)

    async def set(self, key: str, value: Any) -> None:
        self._check_writable()
        await self._ensure_open()
        await self._store.set(key, value.as_buffer_like())

    async def set_if_not_exists(self, key: str, value: Any) -> None:
        self._check_writable()
        await self._ensure_open()
        conditional = as_conditional(self._store)
        if conditional is None:
            await super().set_if_not_exists(key, value)
        else:
            with suppress(PreconditionFailedError):
                await conditional.set_if(key, value.as_buffer_like(), None)

    async def delete(self, key: str) -> None:
        self._check_writable()
        await self._store.erase(key)

    async def delete_dir(self, prefix: str) -> None:
        self._check_writable()
        await self._store.erase_prefix(as_prefix(prefix))

    async def list(self) -> AsyncIterator[str]:
        async for key in self._store.list_prefix(""):
            yield key

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        # a prefix of zarr-python may end within a name, and "/" is the root
        prefix = prefix.lstrip("/")
        async for key in self._store.list_prefix(prefix[: prefix.rfind("/") + 1]):
            if key.startswith(prefix):
                yield key

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        below = as_prefix(prefix)
        listing = await self._store.list_dir(below)
        for name in dict.fromkeys(each[len(below) :].rstrip("/") for each in (*listing.keys, *listing.prefixes)):
            yield name


class BlockingAzarrStore(AzarrStore):
    """A store of azarr that answers at once, for zarr-python's synchronous paths."""

    def get_sync(self, key: str, *, prototype: Any = None, byte_range: Any = None) -> Any:
        """As ``get``."""
        return as_zarr_buffer(self._store.get_blocking(key, from_zarr(byte_range)), prototype)

    def set_sync(self, key: str, value: Any) -> None:
        """As ``set``."""
        self._check_writable()
        self._store.set_blocking(key, value.as_buffer_like())

    def delete_sync(self, key: str) -> None:
        """As ``delete``."""
        self._check_writable()
        self._store.erase_blocking(key)


def as_zarr_store(store: ReadableStore, *, read_only: bool = False) -> AzarrStore:
    """``store``, any store of azarr, as a store for ``zarr.open(store=...)`` and whatever else builds upon zarr-python."""
    return (BlockingAzarrStore if isinstance(store, BlockingStore) else AzarrStore)(store, read_only=read_only)


def to_zarr(byte_range: Request) -> Any:
    """A request in the words of zarr-python."""
    if byte_range is None:
        return None
    if isinstance(byte_range, Suffix):
        return SuffixByteRequest(byte_range.nbytes)
    return OffsetByteRequest(byte_range.start) if byte_range.stop is None else RangeByteRequest(byte_range.start, byte_range.stop)


def from_zarr(byte_range: Any) -> Request:
    """A request in the words of azarr."""
    if byte_range is None:
        return None
    if isinstance(byte_range, RangeByteRequest):
        return ByteRange(byte_range.start, byte_range.end)
    if isinstance(byte_range, OffsetByteRequest):
        return ByteRange(byte_range.offset)
    if isinstance(byte_range, SuffixByteRequest):
        return Suffix(byte_range.suffix)
    raise ValueError(f"Unexpected byte_range, got {byte_range!r}")


def is_empty_part(byte_range: Request) -> bool:
    """Whether no byte is asked for, only whether there is a value."""
    return byte_range == Suffix(0) or (isinstance(byte_range, ByteRange) and byte_range.start == byte_range.stop)


def as_zarr_buffer(value: Buffer | None, prototype: Any) -> Any:
    """A value as a buffer of zarr-python."""
    return None if value is None else (prototype or default_buffer_prototype()).buffer.from_bytes(value)


def as_prefix(prefix: str) -> str:
    """A folder of zarr-python as a prefix of azarr."""
    path = prefix.strip("/")
    return f"{path}/" if path else ""


async def asked(verb: str, key: str, request: Awaitable[T]) -> T:
    """The answer of zarr-python's store to a request; its errors become those of azarr."""
    try:
        return await request
    except Exception as error:
        raise failure(verb, key, error) from error


async def changed(verb: str, key: str, request: Coroutine[Any, Any, None]) -> None:
    """As ``asked``, but who is cancelled waits for its end: it may go on in a thread, and must not overtake what comes next."""
    await asked(verb, key, ended(asyncio.ensure_future(request)))


def failure(verb: str, key: str, error: Exception) -> Exception:
    """What an error of zarr-python's store means."""
    if isinstance(error, StoreError):
        return error
    kind = TransientStoreError if isinstance(error, ConnectionError | TimeoutError) else StoreError
    return kind(f"cannot {verb} {key!r} by way of zarr-python: {type(error).__name__}: {error}", key=key)


async def names_of(listing: AsyncIterator[str]) -> list[str]:
    """The names of a listing, without what some stores hang on them."""
    names = [name.strip("/") async for name in listing]
    return list(dict.fromkeys(name for name in names if name))
