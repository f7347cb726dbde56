"""A store of files below a root folder (Zarr v3 core, "Stores", file system store)."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import sys
from collections.abc import AsyncIterator, Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from typing import Literal, TypeAlias, TypeVar, get_args

from azarr.errors import StoreError, TransientStoreError
from azarr.stores.base import BlockingStore, Request, Reserve, Store, check_key, check_names, check_prefix
from azarr.types import Buffer, ByteRange, Listing

Durability: TypeAlias = Literal["none", "file", "full"]

T = TypeVar("T")

_TEMPORARY = ".__azarr_tmp_"
"""How the names of unfinished files begin. No key may have such a segment and no listing shows one."""

_ATTEMPTS = 10
"""How often a write starts again because its folder was erased under it."""

_BATCH = 1000
"""Keys that a listing fetches per thread hop."""

_PIECE = 2**30
"""Most bytes that one ``readv`` is asked for: some systems refuse 2 GiB and more."""

# ``os.open`` makes every descriptor close-on-exec by itself.
_BINARY = getattr(os, "O_BINARY", 0)
_READ = os.O_RDONLY | _BINARY
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY

_TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT}


class LocalStore(Store, BlockingStore):
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

    The store holds nothing but its configuration: it serves any number of loops and threads, and stores of the same root are equal.
    A write or an erasure that is cancelled ends only when its thread has, so that it cannot overtake what the caller does next.
    """

    def __init__(self, root: str | os.PathLike[str], *, durability: Durability = "file") -> None:
        if durability not in get_args(Durability):
            raise ValueError(f"durability must be one of {', '.join(get_args(Durability))}, not {durability!r}")
        self._root = os.path.abspath(os.path.expanduser(root))
        self._prefix = os.path.join(self._root, "")
        self._durability = durability

    @property
    def root(self) -> str:
        """The root folder as an absolute path."""
        return self._root

    @property
    def durability(self) -> Durability:
        """What a finished write survives."""
        return self._durability

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

    async def get(self, key: str, byte_range: Request = None) -> Buffer | None:
        return await asyncio.to_thread(self.get_blocking, key, byte_range)

    async def set(self, key: str, value: Buffer) -> None:
        await _to_its_end(self.set_blocking, key, value)

    async def erase(self, key: str) -> None:
        await _to_its_end(self.erase_blocking, key)

    async def erase_prefix(self, prefix: str) -> None:
        await _to_its_end(self._erase_folder, prefix)

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        walk = self._walk(prefix)
        try:
            while batch := await _to_its_end(lambda: list(islice(walk, _BATCH))):
                for key in batch:
                    yield key
        finally:
            walk.close()

    async def list_dir(self, prefix: str = "") -> Listing:
        return await asyncio.to_thread(self._list_folder, prefix)

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        path = self._path(key)
        try:
            descriptor = os.open(path, _READ)
            try:
                return _read(descriptor, key, byte_range, reserve)
            finally:
                os.close(descriptor)
        except (OSError, UnicodeEncodeError) as error:
            self._check_absent(key, error)
            return None

    def get_into(self, key: str, out: memoryview) -> int | None:
        path = self._path(key)
        try:
            descriptor = os.open(path, _READ)
            try:
                return _fill(descriptor, out)
            finally:
                os.close(descriptor)
        except (OSError, UnicodeEncodeError) as error:
            self._check_absent(key, error)
            return None

    def get_each(self, folder: str, names: Sequence[str], reserve: Reserve) -> Iterator[Buffer | None]:
        with self._folder(folder, names) as parent:
            for name in names:
                try:
                    descriptor = os.open(name, _READ, dir_fd=parent) if parent is not None else self._open(folder + name)
                    try:
                        value = _read(descriptor, folder + name, None, reserve)
                    finally:
                        os.close(descriptor)
                except (OSError, UnicodeEncodeError) as error:
                    self._check_absent(folder + name, error)
                    value = None
                yield value

    def get_each_into(self, folder: str, names: Sequence[str], outs: Sequence[memoryview]) -> list[int | None]:
        sizes: list[int | None] = []
        probe = bytearray(1)
        with self._folder(folder, names) as parent:
            for name, out in zip(names, outs, strict=True):
                # this loop is what many small chunks cost, so it is written out
                try:
                    descriptor = os.open(name, _READ, dir_fd=parent) if parent is not None else self._open(folder + name)
                    try:
                        size = _readv(descriptor, out, probe)
                        if size < len(out):
                            size = _fill(descriptor, out, size)
                    finally:
                        os.close(descriptor)
                except (OSError, UnicodeEncodeError) as error:
                    self._check_absent(folder + name, error)
                    sizes.append(None)
                else:
                    sizes.append(size)
        return sizes

    def _open(self, key: str) -> int:
        return os.open(self._path(key), _READ)

    def _check_absent(self, key: str, error: Exception) -> None:
        """Raise what says what to do, unless ``error`` proves that there is no value at ``key``."""
        if not _is_absent(error, self._prefix + key):
            raise _failure("read", key, error) from error

    @contextmanager
    def _folder(self, folder: str, names: Sequence[str]) -> Iterator[int | None]:
        """A descriptor of ``folder``, from where the system finds files sooner; ``None`` where there is none to be had."""
        check_names(folder, names)
        parent = None
        if len(names) > 1 and os.open in os.supports_dir_fd and _TEMPORARY not in folder:
            with suppress(OSError, UnicodeEncodeError):
                parent = os.open(self._prefix + folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            yield parent
        finally:
            if parent is not None:
                os.close(parent)

    def set_blocking(self, key: str, value: Buffer) -> None:
        path = self._path(key)
        folder = os.path.dirname(path)
        try:
            for _ in range(_ATTEMPTS):
                try:
                    return self._replace(path, folder, value)
                except FileNotFoundError:
                    # The first value below this folder, or somebody erased the folder while the value was written.
                    with suppress(FileNotFoundError):
                        self._make_folder(folder)
        except (OSError, UnicodeEncodeError) as error:
            raise _failure("write", key, error) from error
        raise TransientStoreError(f"cannot write {key!r}: its folder is erased again and again; stop that first", key=key)

    def erase_blocking(self, key: str) -> None:
        path = self._path(key)
        try:
            os.unlink(path)
            if self._durability == "full":
                _sync_folder(os.path.dirname(path))
        except (OSError, UnicodeEncodeError) as error:
            if not _is_absent(error, path):
                raise _failure("erase", key, error) from error

    def _path(self, key: str) -> str:
        check_key(key)
        if _TEMPORARY in key and f"/{_TEMPORARY}" in f"/{key}":
            raise StoreError(f"{key!r} is not a key: names that begin with {_TEMPORARY!r} are temporary files", key=key)
        return self._prefix + key

    def _replace(self, path: str, folder: str, value: Buffer) -> None:
        # In the same folder, for a file can only take the place of another within one file system.
        temporary = f"{folder}/{_TEMPORARY}{os.urandom(8).hex()}"
        descriptor = os.open(temporary, _CREATE, 0o666)
        try:
            try:
                _write(descriptor, value)
                if self._durability != "none":
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        if self._durability == "full":
            _sync_folder(folder)

    def _make_folder(self, folder: str) -> None:
        missing = []
        while not os.path.isdir(folder):
            missing.append(folder)
            folder = os.path.dirname(folder)
            if folder == missing[-1]:
                break
        for path in reversed(missing):
            try:
                os.mkdir(path)
            except FileExistsError:
                # Fine where another writer was faster, but not where it is a file or a link to nowhere.
                if os.path.lexists(path) and not os.path.isdir(path):
                    raise
            if self._durability == "full":
                _sync_folder(os.path.dirname(path))

    def _erase_folder(self, prefix: str) -> None:
        folder = self._path(check_prefix(prefix)[:-1]) if prefix else self._root
        with _reported("erase", prefix):
            if prefix and os.path.islink(folder):
                if os.path.isdir(folder):  # a link to a file is a key, and not below the prefix
                    os.unlink(folder)
                return
            found = []
            pending = [folder]
            while pending:
                found.append(pending.pop())
                pending += _erase_files(found[-1])
            for path in reversed(found if prefix else found[1:]):
                _remove_folder(path)
            if self._durability == "full":
                with suppress(FileNotFoundError, NotADirectoryError):
                    _sync_folder(os.path.dirname(folder) if prefix else folder)

    def _walk(self, prefix: str) -> Generator[str]:
        pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(check_prefix(prefix), frozenset())]
        with _reported("list", prefix):
            while pending:
                below, above = pending.pop()
                with suppress(FileNotFoundError, NotADirectoryError):
                    status = os.stat(self._prefix + below)
                    here = (status.st_dev, status.st_ino)
                    if here in above:  # a symbolic link leads back up
                        continue
                    for entry in self._entries(below):
                        if entry.is_file():
                            yield below + entry.name
                        elif entry.is_dir():
                            pending.append((f"{below}{entry.name}/", above | {here}))

    def _list_folder(self, prefix: str) -> Listing:
        keys: list[str] = []
        prefixes: list[str] = []
        with _reported("list", check_prefix(prefix)), suppress(FileNotFoundError, NotADirectoryError):
            for entry in self._entries(prefix):
                if entry.is_file():
                    keys.append(prefix + entry.name)
                elif entry.is_dir():
                    prefixes.append(f"{prefix}{entry.name}/")
        return Listing(keys=tuple(sorted(keys)), prefixes=tuple(sorted(prefixes)))

    def _entries(self, prefix: str) -> Iterator[os.DirEntry[str]]:
        with os.scandir(self._prefix + prefix) as entries:
            for entry in entries:
                if not entry.name.startswith(_TEMPORARY) and "\\" not in entry.name:
                    yield entry


async def _to_its_end(call: Callable[..., T], *args: object) -> T:
    """The answer of ``call`` from a worker thread. A caller that is cancelled goes only when the thread is done."""
    job = asyncio.get_running_loop().run_in_executor(None, call, *args)
    cancelled = None
    while not job.done():
        try:
            await asyncio.wait([job])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from job.exception()
    return job.result()


def _read(descriptor: int, key: str, byte_range: Request, reserve: Reserve | None) -> Buffer | None:
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        return None
    start, nbytes = _span(byte_range, status.st_size)
    if start:
        os.lseek(descriptor, start, os.SEEK_SET)
    value: Buffer
    if reserve is None:
        value = _read_bytes(descriptor, nbytes)
        got = len(value)
    else:
        value = reserve(nbytes)[:nbytes]
        got = _fill(descriptor, value)
    if got < nbytes:
        raise TransientStoreError(f"{key!r} became shorter while it was read, got {got} of {nbytes} bytes: read it again", key=key)
    return value


def _span(byte_range: Request, size: int) -> tuple[int, int]:
    """Where to start in a value of ``size`` bytes, and how many bytes to read."""
    if byte_range is None:
        return 0, size
    if isinstance(byte_range, ByteRange):
        start = min(byte_range.start, size)
        return start, size - start if byte_range.stop is None else min(byte_range.stop, size) - start
    nbytes = min(byte_range.nbytes, size)
    return size - nbytes, nbytes


def _read_bytes(descriptor: int, nbytes: int) -> bytes:
    """The next ``nbytes`` bytes, fewer only at the end of the file."""
    pieces = [os.read(descriptor, nbytes)]
    while pieces[-1] and (missing := nbytes - sum(map(len, pieces))):
        pieces.append(os.read(descriptor, missing))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _fill(descriptor: int, out: memoryview, size: int | None = None) -> int:
    """How many bytes the file still had, now in ``out``; ``len(out) + 1`` where it had more than fit.

    ``size`` is how many bytes are in ``out`` already, of which the last were less than was asked for.
    """
    probe = bytearray(1)
    if size is None:
        size = _readv(descriptor, out, probe)
    while 0 < size < len(out) and (got := _readv(descriptor, out[size:], probe)):
        size += got
    return size


def _readv(descriptor: int, out: memoryview, probe: bytearray) -> int:
    if sys.platform == "win32":  # has no readv
        piece = os.read(descriptor, len(out) + 1)
        out[: len(piece)] = piece[: len(out)]
        return len(piece)
    return os.readv(descriptor, [out, probe] if len(out) <= _PIECE else [out[:_PIECE]])


def _write(descriptor: int, value: Buffer) -> None:
    view = memoryview(value)
    # Other shapes than a row of bytes are legal buffers; only scattered and empty ones cannot be looked at as such a row.
    view = view.cast("B") if view.c_contiguous and view.nbytes else memoryview(bytes(view))
    while view:
        view = view[os.write(descriptor, view) :]


def _erase_files(folder: str) -> list[str]:
    """The folders in ``folder``, from which everything else is removed."""
    folders = []
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        # A list, for what a folder shows while it is being emptied differs between systems.
        for entry in list(entries):
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                with suppress(FileNotFoundError):
                    os.unlink(entry.path)
    return folders


def _remove_folder(folder: str) -> None:
    try:
        os.rmdir(folder)
    except OSError as error:
        # Somebody else may have put a new value there, or erased the folder as well.
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise


def _sync_folder(folder: str) -> None:
    if sys.platform == "win32":  # cannot open folders, and needs no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_absent(error: Exception, path: str) -> bool:
    """Whether ``error`` proves that there is no value: nothing is there, a parent is a file, or it is a folder."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return True
    return isinstance(error, PermissionError) and os.path.isdir(path)


def _failure(verb: str, key: str, error: Exception) -> StoreError:
    if isinstance(error, OSError) and error.errno in _TRANSIENT:
        return TransientStoreError(f"cannot {verb} {key!r} now, trying again may help: {error}", key=key)
    hint = ""
    if isinstance(error, PermissionError):
        hint = "; give this process the right to it"
    elif isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
        hint = "; a local store cannot hold a key and keys below it, so erase one of them or choose another name"
    return StoreError(f"cannot {verb} {key!r}: {error}{hint}", key=key)


@contextmanager
def _reported(verb: str, prefix: str) -> Iterator[None]:
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        raise _failure(verb, prefix, error) from error
