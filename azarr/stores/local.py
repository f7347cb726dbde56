"""A store of files below a root folder (Zarr v3 core, "Stores", file system store)."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, contextmanager, nullcontext, suppress
from functools import partial
from itertools import islice
from typing import Literal, TypeAlias, TypeVar, get_args

from azarr.errors import PreconditionFailedError, StoreError, TransientStoreError
from azarr.stores import file_locks, page_cache
from azarr.stores.base import (
    BlockingStore,
    ConditionalStore,
    End,
    LockingStore,
    Request,
    Reserve,
    Stamped,
    Version,
    Versioned,
    check_key,
    check_names,
    check_prefix,
)
from azarr.stores.file_versions import Check, Seen, check_version
from azarr.stores.files import (
    PIECE,
    READ,
    copy_all,
    failure,
    fill,
    is_absent,
    read_value,
    reported,
    write_all,
)
from azarr.stores.folders import TEMPORARY, erase_folder, keys_below, listing_of, make_folder, sync_folder
from azarr.stores.new_files import NewFile
from azarr.stores.threads import ThreadedStore, to_its_end
from azarr.types import Buffer, Listing

Durability: TypeAlias = Literal["none", "file", "full"]

T = TypeVar("T")

Place: TypeAlias = Callable[[str, str], None]
"""Gives the first file the name of the second."""

_ATTEMPTS = 10
"""How often a write starts again because its folder was erased under it."""

_BATCH = 1000
"""Keys that a listing fetches per thread hop."""


class LocalStore(ThreadedStore, ConditionalStore, LockingStore):
    """A store of files below the folder ``root``: each key is a relative path, each value the content of a file.

    A write goes to a temporary file that then takes the place of the old one, so that a reader, or a crash at any moment, finds
    the old value or the new one. ``durability`` says what a finished write survives: ``"none"`` a crash of the process; ``"file"``
    also a crash of the machine, after which the old value may be back but never a torn one; ``"full"`` the same, and the new value
    is there.

    The root is made by the first write. No key leaves it, but symbolic links are the decision of whoever owns the root: reading,
    writing and listing follow links to folders, also out of the root. A write to a key that is itself a link replaces the link,
    and erasing removes links, never what they lead to.

    As a path is a file or a folder, the keys ``a`` and ``a/b`` cannot both exist. Erasing a key leaves its folder; ``erase_prefix``
    removes folders, too.

    With ``locking``, which is the default where the system has ``flock``, processes that write to one folder lose nothing of each other:
    a value is changed while its file is locked, which costs microseconds a write and leaves nothing behind. Without it, or on Windows,
    only the writers of one process are kept apart.

    The store holds nothing but its configuration: it serves any number of loops and threads, and stores of the same root are equal.
    A write or an erasure that is cancelled ends only when its thread has.
    """

    def __init__(self, root: str | os.PathLike[str], *, durability: Durability = "file", locking: bool | None = None) -> None:
        if durability not in get_args(Durability):
            raise ValueError(f"durability must be one of {', '.join(get_args(Durability))}, not {durability!r}")
        if locking and not file_locks.AVAILABLE:
            raise ValueError("this system has no flock, and so no locks between processes: leave locking out")
        self._root = os.path.abspath(os.path.expanduser(root))
        self._prefix = os.path.join(self._root, "")
        self._durability = durability
        self._locking = file_locks.AVAILABLE if locking is None else locking

    @property
    def root(self) -> str:
        """The root folder as an absolute path."""
        return self._root

    @property
    def durability(self) -> Durability:
        """What a finished write survives."""
        return self._durability

    @property
    def locking(self) -> bool:
        """Whether writers in several processes are kept apart."""
        return self._locking

    @property
    def conditional(self) -> bool:
        return self._locking

    @property
    def identity(self) -> tuple[str, str]:
        """Equal for two stores over the same folder, whatever links lead to it."""
        return "file", os.path.realpath(self._root)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._root!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LocalStore) and type(other) is type(self) and other._root == self._root

    def __hash__(self) -> int:
        return hash((type(self), self._root))

    async def get_versioned(self, key: str, byte_range: Request = None) -> Versioned:
        return await asyncio.to_thread(self._get_versioned, key, byte_range)

    async def set_if(self, key: str, value: Buffer, version: Version | None) -> None:
        await to_its_end(self._set, key, value, partial(check_version, key, version))

    async def erase_if(self, key: str, version: Version) -> None:
        await to_its_end(self._erase, key, partial(check_version, key, version))

    def lock(self, prefix: str) -> AbstractAsyncContextManager[None]:
        return file_locks.FolderLock(self._path(check_prefix(prefix)[:-1]) if prefix else self._root, prefix)

    async def erase_prefix(self, prefix: str) -> None:
        await to_its_end(self._erase_folder, prefix)

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        walk = self._walk(prefix)
        try:
            while batch := await to_its_end(lambda: list(islice(walk, _BATCH))):
                for key in batch:
                    yield key
        finally:
            walk.close()

    async def list_dir(self, prefix: str = "") -> Listing:
        return await asyncio.to_thread(self._list_folder, prefix)

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        path = self._path(key)
        try:
            descriptor = os.open(path, READ)
            try:
                return read_value(descriptor, key, byte_range, reserve)
            finally:
                os.close(descriptor)
        except (OSError, UnicodeEncodeError) as error:
            self._check_absent(key, error)
            return None

    def get_at_hand(self, key: str, limit: int, reserve: Reserve) -> Buffer | None:
        """See ``PromptStore``."""
        try:
            return page_cache.read_cached(self._path(key), limit, reserve)
        except FileNotFoundError:
            return None

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        path = self._path(key)
        try:
            descriptor = os.open(path, READ)
            try:
                value = read_value(descriptor, key, byte_range, reserve)
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        except (OSError, UnicodeEncodeError) as error:
            self._check_absent(key, error)
            return Stamped(None)
        # the number of a file that was replaced may come again, but hardly with the same times to the nanosecond
        return Stamped(value, (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns))

    def get_into(self, key: str, out: memoryview) -> int | None:
        path = self._path(key)
        try:
            descriptor = os.open(path, READ)
            try:
                return fill(descriptor, out)
            finally:
                os.close(descriptor)
        except (OSError, UnicodeEncodeError) as error:
            self._check_absent(key, error)
            return None

    def get_each(self, folder: str, names: Sequence[str], reserve: Reserve) -> Iterator[Buffer | None]:
        with self._folder(folder, names) as parent:
            for name in names:
                try:
                    descriptor = os.open(name, READ, dir_fd=parent) if parent is not None else self._open(folder + name)
                    try:
                        value = read_value(descriptor, folder + name, None, reserve)
                    finally:
                        os.close(descriptor)
                except (OSError, UnicodeEncodeError) as error:
                    self._check_absent(folder + name, error)
                    value = None
                yield value

    def get_joined(self, folder: str, names: Sequence[str], out: memoryview) -> list[int | None]:
        if sys.platform == "win32" or len(out) > PIECE:
            return BlockingStore.get_joined(self, folder, names, out)
        open_file, read, close = os.open, os.readv, os.close
        sizes: list[int | None] = []
        position, room = 0, len(out)
        with self._folder(folder, names) as parent:
            for name in names:
                # this loop is what many small chunks cost, so it does without asking for sizes
                try:
                    descriptor = open_file(name, READ, dir_fd=parent) if parent is not None else self._open(folder + name)
                    try:
                        size = read(descriptor, (out[position:],))
                        if size == room and os.read(descriptor, 1):
                            break
                    finally:
                        close(descriptor)
                except (OSError, UnicodeEncodeError) as error:
                    self._check_absent(folder + name, error)
                    sizes.append(None)
                else:
                    sizes.append(size)
                    position += size
                    room -= size
        return sizes

    def _open(self, key: str) -> int:
        return os.open(self._path(key), READ)

    def _check_absent(self, key: str, error: Exception) -> None:
        """Raise what says what to do, unless ``error`` proves that there is no value at ``key``."""
        if not is_absent(error, self._prefix + key):
            raise failure("read", key, error) from error

    @contextmanager
    def _folder(self, folder: str, names: Sequence[str]) -> Iterator[int | None]:
        """A descriptor of ``folder``, from where the system finds files sooner; ``None`` where there is none to be had."""
        check_names(folder, names)
        parent = None
        if len(names) > 1 and os.open in os.supports_dir_fd and TEMPORARY not in folder:
            with suppress(OSError, UnicodeEncodeError):
                parent = os.open(self._prefix + folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield parent
        finally:
            if parent is not None:
                os.close(parent)

    def _get_versioned(self, key: str, byte_range: Request) -> Versioned:
        path = self._path(key)
        try:
            descriptor = os.open(path, READ)
            try:
                value, size = read_value(descriptor, key, byte_range, None), os.fstat(descriptor).st_size
            finally:
                os.close(descriptor)
        except (OSError, UnicodeEncodeError) as error:
            self._check_absent(key, error)
            value, size = None, 0
        return Versioned(None, None) if value is None else Versioned(value, Seen(byte_range, size, bytes(value)))

    def set_blocking(self, key: str, value: Buffer) -> None:
        self._set(key, value, None)

    def erase_blocking(self, key: str) -> None:
        self._erase(key, None)

    def update_blocking(self, key: str, change: Callable[[Buffer | None], Buffer | None]) -> None:
        if not self._locking:
            return super().update_blocking(key, change)
        while True:
            with ExitStack() as stack:
                with reported("write", key):
                    descriptor = stack.enter_context(file_locks.held(self._path(key)))
                    old = None if descriptor is None else read_value(descriptor, key, None, None)
                new = change(old)
                if descriptor is not None:  # which nobody else replaces meanwhile
                    return (
                        self._erase(key, None, lock=False) if new is None else self._write(key, partial(write_all, value=new), os.replace)
                    )
            if new is None:
                return None
            with suppress(PreconditionFailedError):  # somebody was faster: from now on there is a file to lock
                return self._set(key, new, partial(check_version, key, None))

    def _set(self, key: str, value: Buffer, check: Check | None) -> None:
        self._write(key, partial(write_all, value=value), self._placing(check))

    def copy_from(self, source: LocalStore, key: str, to: str) -> bool:
        """Copy what ``source`` has at ``key`` to the key ``to`` here, in next to no memory; whether there was something."""
        path = source._path(key)
        try:
            descriptor = os.open(path, READ)
            try:
                if stat.S_ISDIR(os.fstat(descriptor).st_mode):
                    return False
                self._write(to, partial(copy_all, descriptor), self._placing(None))
            finally:
                os.close(descriptor)
        except (OSError, UnicodeEncodeError) as error:
            source._check_absent(key, error)
            return False
        return True

    def _write(self, key: str, write: Callable[[int], None], place: Place) -> None:
        """Have ``write`` fill a temporary file, and ``place`` give it the name of the key."""
        path = self._path(key)

        def replace() -> None:
            with NewFile(path, write) as new:
                if self._durability != "none":
                    os.fsync(new.descriptor)
                new.close()
                new.place(place, durable=self._durability == "full")

        with reported("write", key):
            self._in_folder(key, path, replace)

    def _in_folder(self, key: str, path: str, attempt: Callable[[], T]) -> T:
        """What ``attempt`` answers, for which the folder of ``path`` has to be there."""
        for _ in range(_ATTEMPTS):
            try:
                return attempt()
            except FileNotFoundError:
                # The first value below this folder, or somebody erased the folder while the value was written.
                with suppress(FileNotFoundError):
                    make_folder(os.path.dirname(path), durable=self._durability == "full")
        raise TransientStoreError(f"cannot write {key!r}: its folder is erased again and again; stop that first", key=key)

    def begin_set(self, key: str, value: Buffer) -> End | None:
        """See ``PatientStore``."""
        if self._durability == "none" or sys.platform == "win32":  # nothing to wait for; or open files keep their names
            self.set_blocking(key, value)
            return None
        path, write = self._path(key), partial(write_all, value=value)
        with reported("write", key):
            return partial(self._end_set, key, self._in_folder(key, path, lambda: NewFile(path, write)))

    def _end_set(self, key: str, new: NewFile) -> None:
        with reported("write", key), new:
            os.fsync(new.descriptor)
            try:
                new.place(self._placing(None), durable=self._durability == "full")
            except FileNotFoundError:  # the folder was erased, and the file with it: but it is open, so that its content is still there
                self._write(key, partial(copy_all, new.descriptor), self._placing(None))

    def _placing(self, check: Check | None) -> Place:
        return partial(file_locks.place, check) if self._locking else os.replace

    def _erase(self, key: str, check: Check | None, *, lock: bool = True) -> None:
        path = self._path(key)
        try:
            with file_locks.held(path) if lock and self._locking else nullcontext() as descriptor:
                if check is not None:
                    check(descriptor)
                os.unlink(path)
            if self._durability == "full":
                sync_folder(os.path.dirname(path))
        except (OSError, UnicodeEncodeError) as error:
            if not is_absent(error, path):
                raise failure("erase", key, error) from error

    def _path(self, key: str) -> str:
        check_key(key)
        if TEMPORARY in key and f"/{TEMPORARY}" in f"/{key}":
            raise StoreError(f"{key!r} is not a key: names that begin with {TEMPORARY!r} are temporary files", key=key)
        return self._prefix + key

    def _erase_folder(self, prefix: str) -> None:
        folder = self._path(check_prefix(prefix)[:-1]) if prefix else self._root
        with reported("erase", prefix):
            erase_folder(folder, itself=bool(prefix), durable=self._durability == "full")

    def _walk(self, prefix: str) -> Generator[str]:
        with reported("list", check_prefix(prefix)):
            yield from keys_below(self._prefix, prefix)

    def _list_folder(self, prefix: str) -> Listing:
        with reported("list", check_prefix(prefix)):
            return listing_of(self._prefix, prefix)
