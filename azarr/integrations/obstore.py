"""Stores of obstore (S3, Google Cloud, Azure, HTTP, local, memory, in Rust) in azarr; needs the extra ``obstore``.

::

    store = ObstoreStore(obstore.store.S3Store("bucket", prefix="data.zarr", region="eu-central-1"))
    array = await azarr.open_array(store, "temperature")
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

from azarr.errors import PreconditionFailedError, StoreError, TransientStoreError
from azarr.stores.base import ConditionalStore, Request, Stamped, StampingStore, Store, Version, Versioned, check_key, check_prefix
from azarr.types import Buffer, ByteRange, Listing, Suffix

try:
    from obstore import exceptions
    from obstore.store import AzureStore, GCSStore, MemoryStore, S3Store
except ImportError as missing:
    raise ImportError(f'stores of obstore need obstore ({missing}); pip install "azarr[obstore]"') from missing

CONDITIONAL = (S3Store, GCSStore, AzureStore, MemoryStore)
"""The kinds of stores that can replace a value on condition that it is still the one that was read."""

LISTED_AT_ONCE = 1000

TEMPORARY = re.compile(
    r"status code: (5\d\d|408|429)|timed out|connection|error sending request|reset by peer|broken pipe|error decoding response body"
    r"|kind: (Timeout|Connect|Request|Interrupted)",
    re.IGNORECASE,
)
"""What obstore says where it gave up on something that may be gone on the next attempt; it has no error of its own for that."""

NO_FILE = re.compile("kind: (NotADirectory|IsADirectory)")
"""What obstore says of local files where a key is a folder, or a parent of it is a file: both prove that there is no value."""

QUERY = re.compile(r"\?[^\s\"')]+")
"""The part of a URL that may have a signature in it."""


class Tag(NamedTuple):
    """The state of a value as the server calls it."""

    e_tag: str | None
    version: str | None


class ObstoreStore(Store, ConditionalStore, StampingStore):
    """``store``, any store of obstore, as a store of azarr. Its ``prefix`` and its credentials are its own business.

    obstore makes failed requests again by itself, ten times within three minutes unless its ``retry_config`` says otherwise.
    It belongs to no event loop.

    Writes can be ``conditional`` on S3, Google Cloud, Azure and in memory; say ``False`` where a server that only speaks S3 cannot.
    Local files are better left to ``LocalStore``: obstore leaves empty folders behind, which then show in listings.
    An erasure on condition looks first, as obstore has no such request: what another process writes within that moment is lost.
    """

    def __init__(self, store: Any, *, conditional: bool | None = None) -> None:
        for method in ("get_async", "put_async", "delete_async", "head_async", "list_with_delimiter_async", "list"):
            if not callable(getattr(store, method, None)):
                raise TypeError(f"{type(store).__name__} is no store of obstore: it has no {method}")
        self._store = store
        self._conditional = isinstance(store, CONDITIONAL) if conditional is None else conditional

    @property
    def obstore(self) -> Any:
        """The store of obstore."""
        return self._store

    @property
    def conditional(self) -> bool:
        return self._conditional

    @property
    def identity(self) -> tuple[str, int]:
        """Equal for two stores around the same object."""
        return "obstore", id(self._store)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return (await self.get_versioned(key, byte_range)).value

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        check_key(key)
        if is_empty_part(byte_range):  # which obstore refuses
            return await self._without_value(key)
        try:
            result = await self._store.get_async(key, options=options_of(byte_range))
            return Versioned(memoryview(await result.bytes_async()), tag_of(result.meta))
        except FileNotFoundError:
            return Versioned(None, None)
        except Exception as error:
            if NO_FILE.search(str(error)):
                return Versioned(None, None)
            found = None if byte_range is None else await self._other_way(key, byte_range, error)
            if found is None:
                raise failure("read", key, error) from error
            return found

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        value, version = await self.get_versioned(key, byte_range)
        return Stamped(value, None if version == Tag(None, None) else version)

    async def _other_way(self, key: str, byte_range: ByteRange | Suffix, error: Exception) -> Versioned | None:
        """A part for which the server refuses the request, as it is beyond the end, or a suffix, which Azure has not; else ``None``."""
        try:
            size = (await self._store.head_async(key))["size"]
        except FileNotFoundError:
            return Versioned(None, None)
        except Exception:  # noqa: BLE001 - the first error says more
            return None
        if isinstance(byte_range, ByteRange):
            return await self._without_value(key) if size <= byte_range.start else None
        if not size:
            return await self._without_value(key)
        if isinstance(error, exceptions.NotSupportedError):
            return await self.get_versioned(key, ByteRange(max(0, size - byte_range.nbytes), size))
        return None

    async def _without_value(self, key: str) -> Versioned:
        try:
            return Versioned(b"", tag_of(await self._store.head_async(key)))
        except FileNotFoundError:
            return Versioned(None, None)
        except Exception as error:
            raise failure("read", key, error) from error

    async def size(self, key: str) -> int | None:
        """The size of the value in bytes; ``None`` where ``key`` is absent."""
        try:
            nbytes: int = (await self._store.head_async(check_key(key)))["size"]
        except FileNotFoundError:
            return None
        except Exception as error:
            raise failure("read", key, error) from error
        return nbytes

    async def set(self, key: str, value: Buffer) -> None:
        await self._put(key, value, "overwrite")

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        check_key(key)
        if version is None:
            await self._put(key, value, "create")
        elif isinstance(version, Tag):
            await self._put(key, value, {name: part for name, part in version._asdict().items() if part is not None})
        else:
            raise PreconditionFailedError(f"{version!r:.100} is no version of this store", key=key)

    async def _put(self, key: str, value: Buffer, mode: Any) -> None:
        check_key(key)
        try:
            # bytes, as a store in memory keeps what it gets, and whoever called may change it later
            await self._store.put_async(key, bytes(value), mode=mode)
        except Exception as error:
            raise failure("write", key, error) from error

    async def erase(self, key: str) -> None:
        check_key(key)
        try:
            await self._store.delete_async(key)
        except FileNotFoundError:
            pass
        except Exception as error:
            if not NO_FILE.search(str(error)):
                raise failure("erase", key, error) from error

    async def erase_if(self, key: str, version: Version) -> None:
        if (await self._without_value(check_key(key))).version != version:
            raise PreconditionFailedError(f"{key!r} is not what it was: read it again", key=key)
        await self.erase(key)

    async def erase_prefix(self, prefix: str) -> None:
        async for batch in self._batches(prefix):
            try:
                await self._store.delete_async(batch)
            except FileNotFoundError:  # somebody else erases as well
                for key in batch:
                    await self.erase(key)
            except Exception as error:
                raise failure("erase", prefix, error) from error

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        async for batch in self._batches(prefix):
            for key in batch:
                yield key

    async def _batches(self, prefix: str) -> AsyncIterator[list[str]]:
        check_prefix(prefix)
        batches = self._store.list(prefix or None, chunk_size=LISTED_AT_ONCE)
        while True:
            try:
                batch = await anext(batches)
            except StopAsyncIteration:
                return
            except Exception as error:
                raise failure("list", prefix, error) from error
            yield [each["path"] for each in batch if each["path"].startswith(prefix)]

    async def list_dir(self, prefix: str = "") -> Listing:
        check_prefix(prefix)
        try:
            found = await self._store.list_with_delimiter_async(prefix or None)
        except FileNotFoundError:
            return Listing((), ())
        except Exception as error:
            raise failure("list", prefix, error) from error
        keys = {each["path"] for each in found["objects"]}
        prefixes = {each.rstrip("/") + "/" for each in found["common_prefixes"]}
        return Listing(tuple(sorted(key for key in keys if key.startswith(prefix))), tuple(sorted(prefixes)))


def is_empty_part(byte_range: Request) -> bool:
    """Whether no byte is asked for, only whether there is a value."""
    return byte_range == Suffix(0) or (isinstance(byte_range, ByteRange) and byte_range.start == byte_range.stop)


def options_of(byte_range: Request) -> dict[str, Any] | None:
    """A request in the words of obstore."""
    if byte_range is None:
        return None
    if isinstance(byte_range, Suffix):
        return {"range": {"suffix": byte_range.nbytes}}
    return {"range": {"offset": byte_range.start} if byte_range.stop is None else (byte_range.start, byte_range.stop)}


def tag_of(meta: Any) -> Tag:
    """The state of the value that ``meta`` describes."""
    return Tag(meta["e_tag"], meta["version"])


def failure(verb: str, key: str, error: Exception) -> StoreError:
    """What an error of obstore means."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, exceptions.AlreadyExistsError | exceptions.PreconditionError | exceptions.NotModifiedError):
        return PreconditionFailedError(f"{key!r} is not what it was: read it again, change that, and write it", key=key)
    hint = ""
    if isinstance(error, exceptions.PermissionDeniedError | exceptions.UnauthenticatedError):
        hint = "; look after the credentials and rights of the store"
    text = QUERY.sub("?...", str(error).partition("\n")[0])
    message = f"cannot {verb} {key!r} by way of obstore: {type(error).__name__}: {text:.500}{hint}"
    if isinstance(error, exceptions.GenericError) and TEMPORARY.search(str(error)):
        return TransientStoreError(message, key=key)
    return StoreError(message, key=key)
