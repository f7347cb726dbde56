"""Locks between the processes that write to one folder, without a file of their own.

A value is locked by its file: whoever wants to replace or erase it holds ``flock`` on the file that is there. The new file takes the
place of the old one in one step, and who waited for the old one finds that out and locks the new one. Where there is no file yet, a
link makes one, which fails where somebody else was faster. Nothing is left behind, and a lock goes with the process that held it.
"""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from azarr.deferred import DeferredModule
from azarr.stores.files import BINARY, reported
from azarr.stores.threads import to_its_end

if TYPE_CHECKING:
    import random
else:  # which only those need who have to wait
    random = DeferredModule("random")

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

AVAILABLE = fcntl is not None
"""Whether this system has such locks."""

SHORTEST, LONGEST = 0.0005, 0.02
"""Seconds between two looks at a folder that somebody else has locked."""

_REFUSED = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EINVAL}
_NO_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@contextmanager
def held(path: str) -> Iterator[int | None]:
    """A descriptor of the file at ``path``, which nobody else replaces or erases meanwhile; ``None`` where there is none."""
    descriptor = _open_locked(path)
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            unlock(descriptor)


def _open_locked(path: str) -> int | None:
    while True:
        try:
            descriptor = _open(path)
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            _lock(descriptor)
            if _is_at(path, descriptor):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)  # replaced or erased while this waited


def _open(path: str) -> int:
    # Network file systems lock only what is open for writing.
    try:
        return os.open(path, os.O_RDWR)
    except PermissionError:
        return os.open(path, os.O_RDONLY)


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def place(check: Callable[[int | None], None] | None, temporary: str, path: str) -> None:
    """Give ``temporary`` the name ``path`` while nobody else does.

    ``check`` sees the open file that is there, or ``None``, and raises where it has something against that.
    """
    while True:
        with held(path) as descriptor:
            if check is not None:
                check(descriptor)
            if descriptor is not None:
                return os.replace(temporary, path)
        if create(temporary, path):
            return None


def create(temporary: str, path: str) -> bool:
    """Give the file ``temporary`` the name ``path``; ``False`` where somebody else was faster."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        if not os.path.islink(path) or os.path.exists(path):
            return False
        os.replace(temporary, path)  # a link that leads nowhere holds no value, and cannot be locked
        return True
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _create_without_link(temporary, path)
    os.unlink(temporary)
    return True


def _create_without_link(temporary: str, path: str) -> bool:
    """As ``create``, on file systems that have no links: under the lock of the folder, which everybody there has to take."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        _lock(folder)
        if os.path.lexists(path):
            return False
        os.replace(temporary, path)
        return True
    finally:
        unlock(folder)


def _lock(descriptor: int, how: int = 0) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
    except OSError as error:
        if error.errno in _REFUSED:
            raise OSError(errno.ENOLCK, f"the file system has no such locks ({error.strerror})") from error
        raise


def unlock(descriptor: int) -> None:
    """Unlock and close a descriptor; a copy of it in a process that was forked meanwhile holds no lock any more, either."""
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


class FolderLock:
    """Holds the lock of a folder for the time of an ``async with``; waiting for it occupies no thread. No folder, no lock."""

    __slots__ = ("_descriptor", "_folder", "_prefix")

    def __init__(self, folder: str, prefix: str) -> None:
        self._folder, self._prefix = folder, prefix
        self._descriptor: int | None = None

    async def __aenter__(self) -> None:
        pause = SHORTEST
        try:
            while not await to_its_end(self._try):
                await asyncio.sleep(random.uniform(0, pause))
                pause = min(LONGEST, 2 * pause)
        except BaseException:  # cancelled, perhaps with the lock
            self._unlock()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._unlock()

    def _try(self) -> bool:
        with reported("lock", self._prefix):
            try:
                descriptor = os.open(self._folder, os.O_RDONLY)
            except FileNotFoundError:
                return True
            try:
                _lock(descriptor, fcntl.LOCK_NB)
                if _is_at(self._folder, descriptor):
                    self._descriptor, descriptor = descriptor, -1
                    return True
            except BlockingIOError:
                pass
            finally:
                if descriptor >= 0:
                    os.close(descriptor)
        return False

    def _unlock(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            unlock(descriptor)


def claimed(path: str) -> int | None:
    """A descriptor of the file at ``path``, made where there is none, that nobody else gets until it is closed; ``None`` where one has it.

    Where the system or the file system has no such locks, everybody gets it.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
        try:
            if not AVAILABLE:
                return descriptor
            _lock(descriptor, fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except BaseException as error:
            if isinstance(error, OSError) and error.errno == errno.ENOLCK:
                return descriptor
            os.close(descriptor)
            raise
        os.close(descriptor)  # renamed or removed by the one who had it


def unclaim(descriptor: int) -> None:
    """Let others get what was ``claimed``, also where a process that was forked meanwhile has a copy of the descriptor."""
    if AVAILABLE:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
