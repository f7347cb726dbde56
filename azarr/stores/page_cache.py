"""Reading small files that the system has in memory, without ever waiting for a disk: for the event loop itself.

A thread costs more than such a read. Linux can say instead of waiting that it would have to, for finding a file (openat2, as of 5.12) as
for reading it (preadv2).
"""

from __future__ import annotations

import ctypes
import os
import stat
import sys
from typing import Final

from azarr.stores.base import Reserve
from azarr.stores.files import READ
from azarr.types import Buffer

AVAILABLE: Final = sys.platform == "linux" and hasattr(os, "RWF_NOWAIT")

OPENAT2: Final = 437
"""The number of the system call, which C libraries have no function for."""

RESOLVE_CACHED: Final = 0x20
"""Fail with EAGAIN where the path cannot be followed with what is in memory."""

CURRENT_FOLDER: Final = -100


class OpenHow(ctypes.Structure):
    """The ``open_how`` of openat2."""

    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


# PyDLL holds the interpreter lock, as another thread would otherwise take it for milliseconds because of a call that takes one microsecond.
_libc = ctypes.PyDLL(None, use_errno=True) if AVAILABLE else None
_how = OpenHow(READ | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0), 0, RESOLVE_CACHED)
"""Without blocking, which matters for what is no file: a pipe would wait for its writer."""


def read_cached(path: str, limit: int, reserve: Reserve) -> Buffer:
    """The content of the file at ``path``, of at most ``limit`` bytes, in memory from ``reserve``.

    Raises:
        FileNotFoundError: There is none, as far as the system need not look at the disk for that.
        OSError: Reading it might take time, or it is too long, or the system cannot tell: a thread has to find out.

    """
    descriptor = open_cached(path)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > limit:
            raise BlockingIOError(f"{path!r} is not a short file")
        out = reserve(status.st_size)
        if len(out) > status.st_size:
            out = out[: status.st_size]
        if os.preadv(descriptor, (out,), 0, os.RWF_NOWAIT) < status.st_size:
            raise BlockingIOError(f"{path!r} is not all in memory")
        return out
    finally:
        os.close(descriptor)


def open_cached(path: str) -> int:
    """A descriptor of the file at ``path``, if the system finds it without a disk."""
    if _libc is None:
        raise BlockingIOError("this system cannot tell whether a file is in memory")
    name = os.fsencode(path)
    descriptor: int = _libc.syscall(OPENAT2, CURRENT_FOLDER, name, ctypes.byref(_how), ctypes.sizeof(_how))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return descriptor
