"""File systems of fsspec (SFTP, SMB, HDFS, Dropbox, WebDAV, caches, …) in azarr; needs the extra ``fsspec``.

::

    store = FsspecStore.from_url("sftp://host/data.zarr", username="me")
    array = await azarr.open_array(store, "temperature")

Where azarr has a store of its own, as for S3, Google Cloud, Azure, HTTP and local files, that one is faster, and promises more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Hashable
from typing import Any, Self, cast

from azarr.errors import StoreError, TransientStoreError
from azarr.stores.base import Request, Store, check_key, check_prefix
from azarr.stores.files import TRANSIENT
from azarr.stores.threads import ended, to_its_end
from azarr.types import Buffer, ByteRange, Listing, Suffix

try:
    from fsspec.core import url_to_fs
    from fsspec.spec import AbstractFileSystem
except ImportError as missing:
    raise ImportError(f'file systems of fsspec need fsspec ({missing}); pip install "azarr[fsspec]"') from missing

ABSENT = (FileNotFoundError, NotADirectoryError, IsADirectoryError)
"""What proves that there is no value: nothing is there, a parent is a file, or it is a folder. Everything else is a failure."""


class FsspecStore(Store):
    """What is below ``root`` in ``fs``, a file system of fsspec, as a store of azarr.

    A file system that was made with ``asynchronous=True`` is awaited on the loop where azarr is used, and may be bound to the first one.
    Other asynchronous ones (the default of fsspec) run on the loop that fsspec keeps in a thread, and serve any number of loops; those that
    are not asynchronous run in worker threads.

    What becomes of a write that is interrupted is up to the file system: object stores have the old value or the new one, servers of files
    often have half of one. There are no conditional writes, so that only the writers of one process are kept apart. Listings
    are asked for anew, whatever the file system has in its cache. Failed requests are made again only if the file system does.
    """

    def __init__(self, fs: Any, root: str = "") -> None:
        if not isinstance(fs, AbstractFileSystem):
            raise TypeError(f"{fs!r:.100} is no file system of fsspec")
        self._fs: Any = fs
        self._root = str(fs._strip_protocol(root)).rstrip("/")  # noqa: SLF001 - there is no other way to get the paths that it answers

    @classmethod
    def from_url(cls, url: str, **storage_options: Any) -> Self:
        """The store at ``url``, of any kind that fsspec knows; ``storage_options`` are those of its file system."""
        fs, root = url_to_fs(url, **storage_options)
        return cls(fs, root)

    @property
    def fs(self) -> Any:
        """The file system."""
        return self._fs

    @property
    def root(self) -> str:
        """What all keys are below, without the protocol."""
        return self._root

    @property
    def identity(self) -> Hashable:
        """Equal for two stores of one root in file systems that were made alike."""
        return "fsspec", type(self._fs).__qualname__, hash(self._fs), self._root

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._fs).__name__}, {self._root!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FsspecStore) and (other._fs, other._root) == (self._fs, self._root)

    def __hash__(self) -> int:
        return hash(self.identity)

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        path = self._path(key)
        try:
            if is_empty_part(byte_range):  # which protocols cannot ask for
                return None if await self._size(path) is None else b""
            return cast("Buffer", await self._ask("cat_file", path, **limits_of(byte_range)))
        except ABSENT:
            return None
        except Exception as error:
            if byte_range is not None and await self._holds_nothing(path, byte_range):
                return b""
            raise failure("read", key, error) from error

    async def _holds_nothing(self, path: str, byte_range: ByteRange | Suffix) -> bool:
        """Whether a part could not be read because the value ends before it."""
        try:
            size = await self._size(path)
        except Exception:  # noqa: BLE001 - the first error says more
            return False
        return size is not None and size <= (byte_range.start if isinstance(byte_range, ByteRange) else 0)

    async def size(self, key: str) -> int | None:
        """The size of the value in bytes; ``None`` where ``key`` is absent."""
        try:
            return await self._size(self._path(key))
        except ABSENT:
            return None
        except Exception as error:
            raise failure("read", key, error) from error

    async def _size(self, path: str) -> int | None:
        info = await self._ask("info", path)
        return info["size"] if info["type"] == "file" else None

    async def set(self, key: str, value: Buffer) -> None:
        path = self._path(key)
        content = bytes(value)  # some file systems take nothing else
        try:
            try:
                await self._do("pipe_file", path, content)
            except FileNotFoundError:  # its folder, where there are such
                await self._do("makedirs", path.rpartition("/")[0], exist_ok=True)
                await self._do("pipe_file", path, content)
        except Exception as error:
            raise failure("write", key, error) from error

    async def erase(self, key: str) -> None:
        path = self._path(key)
        try:
            if await self._size(path) is not None:  # a folder would be erased with all that is in it
                await self._do("rm_file", path)
        except ABSENT:
            pass
        except Exception as error:
            raise failure("erase", key, error) from error

    async def erase_prefix(self, prefix: str) -> None:
        folder = self._folder(prefix)
        try:
            paths = await self._find(folder)
            if paths:
                await self._do("rm", paths)
            # folders that are empty now, where there are such; the root stays, which may be a bucket
            for path in [folder] if prefix else [entry["name"] for entry in await self._entries(folder)]:
                if (await self._ask("info", path))["type"] == "directory":
                    await self._do("rm", path, recursive=True)
        except ABSENT:
            pass
        except Exception as error:
            raise failure("erase", prefix, error) from error

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        folder = self._folder(prefix)
        try:
            paths = await self._find(folder)
        except ABSENT:
            return
        except Exception as error:
            raise failure("list", prefix, error) from error
        for path in paths:
            yield prefix + path[len(folder) :].lstrip("/")

    async def list_dir(self, prefix: str = "") -> Listing:
        folder = self._folder(prefix)
        try:
            entries = await self._entries(folder)
        except ABSENT:
            return Listing((), ())
        except Exception as error:
            raise failure("list", prefix, error) from error
        found = {(prefix + entry["name"].rstrip("/").rpartition("/")[2], entry["type"]) for entry in entries}
        keys = (key for key, kind in found if kind == "file")
        prefixes = (f"{key}/" for key, kind in found if kind == "directory")
        return Listing(keys=tuple(sorted(keys)), prefixes=tuple(sorted(prefixes)))

    async def _find(self, folder: str) -> list[str]:
        """The paths of all files below ``folder``, which some file systems take for a file of that name."""
        self._fs.invalidate_cache(folder)
        paths = cast("list[str]", await self._ask("find", folder))
        return [path for path in paths if path.startswith(f"{folder}/") and not path.endswith("/")]

    async def _entries(self, folder: str) -> list[dict[str, Any]]:
        """What is in ``folder``."""
        self._fs.invalidate_cache(folder)
        entries = await self._ask("ls", folder, detail=True)
        return [entry for entry in entries if entry["name"].startswith(f"{folder}/") and entry["name"].strip("/") != folder.strip("/")]

    def _path(self, key: str) -> str:
        return f"{self._root}/{check_key(key)}"

    def _folder(self, prefix: str) -> str:
        return f"{self._root}/{prefix[:-1]}" if check_prefix(prefix) else self._root

    async def _ask(self, method: str, *args: Any, **options: Any) -> Any:
        """The answer of the file system."""
        if not self._fs.async_impl:
            return await asyncio.to_thread(getattr(self._fs, method), *args, **options)
        request = getattr(self._fs, f"_{method}")(*args, **options)
        return await (request if self._fs.asynchronous else self._elsewhere(request))

    async def _do(self, method: str, *args: Any, **options: Any) -> None:
        """Have the file system change something. Who is cancelled waits for it, as it must not overtake what comes next."""
        if not self._fs.async_impl:
            await to_its_end(lambda: getattr(self._fs, method)(*args, **options))
            return
        request = getattr(self._fs, f"_{method}")(*args, **options)
        await (request if self._fs.asynchronous else ended(self._elsewhere(request)))

    def _elsewhere(self, request: Coroutine[Any, Any, Any]) -> asyncio.Future[Any]:
        """The request on the loop of fsspec."""
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(request, self._fs.loop))


def open_url(url: str, **storage_options: Any) -> FsspecStore:
    """The store at ``url``, which may begin with ``fsspec::``; to be registered for the schemes that fsspec shall serve."""
    return FsspecStore.from_url(url.removeprefix("fsspec::"), **storage_options)


def limits_of(byte_range: Request) -> dict[str, int | None]:
    """A request in the words of fsspec."""
    if byte_range is None:
        return {}
    if isinstance(byte_range, Suffix):
        return {"start": -byte_range.nbytes}
    return {"start": byte_range.start, "end": byte_range.stop}


def is_empty_part(byte_range: Request) -> bool:
    """Whether no byte is asked for, only whether there is a value."""
    return byte_range == Suffix(0) or (isinstance(byte_range, ByteRange) and byte_range.start == byte_range.stop)


def failure(verb: str, key: str, error: Exception) -> Exception:
    """What an error of a file system means."""
    if isinstance(error, StoreError):
        return error
    temporary = isinstance(error, ConnectionError | TimeoutError) or (isinstance(error, OSError) and error.errno in TRANSIENT)
    kind = TransientStoreError if temporary else StoreError
    hint = "; look after the credentials and rights of the file system" if isinstance(error, PermissionError) else ""
    return kind(f"cannot {verb} {key!r} by way of fsspec: {type(error).__name__}: {error}{hint}", key=key)
