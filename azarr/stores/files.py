"""Reading and writing files through the calls of the operating system, and what their failures mean for a store."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from azarr.errors import StoreError, TransientStoreError
from azarr.stores.base import Request, Reserve
from azarr.types import Buffer, ByteRange

PIECE = 2**30
"""Most bytes that one ``readv`` is asked for: some systems refuse 2 GiB and more."""

PART = 16 * 2**20
"""Most bytes of a part for which memory is reserved before the size of the file is known: who asks for more may have been lied to."""

COPIED_NBYTES = 2**20
"""What is read at once where the system does not copy by itself."""

# ``os.open`` makes every descriptor close-on-exec by itself.
BINARY = getattr(os, "O_BINARY", 0)
READ = os.O_RDONLY | BINARY
CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | BINARY

TRANSIENT = {errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EBUSY, errno.ESTALE, errno.ETIMEDOUT}


def read_value(descriptor: int, key: str, byte_range: Request, reserve: Reserve | None) -> Buffer | None:
    """The part of an open file that ``byte_range`` names, in memory from ``reserve``; ``None`` of a folder."""
    if reserve is not None and isinstance(byte_range, ByteRange) and (part := read_part(descriptor, byte_range, reserve)) is not None:
        return part
    status = os.fstat(descriptor)
    if stat.S_ISDIR(status.st_mode):
        return None
    start, nbytes = span(byte_range, status.st_size)
    if start:
        os.lseek(descriptor, start, os.SEEK_SET)
    value: Buffer
    if reserve is None:
        value = read_bytes(descriptor, nbytes)
        got = len(value)
    else:
        value = reserve(nbytes)[:nbytes]
        got = fill(descriptor, value)
    if got < nbytes:
        raise TransientStoreError(f"{key!r} became shorter while it was read, got {got} of {nbytes} bytes: read it again", key=key)
    return value


def read_part(descriptor: int, byte_range: ByteRange, reserve: Reserve) -> Buffer | None:
    """The part of an open file in one call; ``None`` where that is not all, or may be more than there is."""
    start, stop = byte_range.start, byte_range.stop
    if stop is None or not 0 < stop - start <= PART or not hasattr(os, "preadv"):
        return None
    part = reserve(stop - start)[: stop - start]
    return part if os.preadv(descriptor, (part,), start) == len(part) else None


def span(byte_range: Request, size: int) -> tuple[int, int]:
    """Where to start in a value of ``size`` bytes, and how many bytes to read."""
    if byte_range is None:
        return 0, size
    if isinstance(byte_range, ByteRange):
        start = min(byte_range.start, size)
        return start, size - start if byte_range.stop is None else min(byte_range.stop, size) - start
    nbytes = min(byte_range.nbytes, size)
    return size - nbytes, nbytes


def read_bytes(descriptor: int, nbytes: int) -> bytes:
    """The next ``nbytes`` bytes, fewer only at the end of the file."""
    pieces = [os.read(descriptor, nbytes)]
    while pieces[-1] and (missing := nbytes - sum(map(len, pieces))):
        pieces.append(os.read(descriptor, missing))
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def fill(descriptor: int, out: memoryview, size: int | None = None) -> int:
    """How many bytes the file still had, now in ``out``; ``len(out) + 1`` where it had more than fit.

    ``size`` is how many bytes are in ``out`` already, of which the last were less than was asked for.
    """
    probe = bytearray(1)
    if size is None:
        size = readv(descriptor, out, probe)
    while 0 < size < len(out) and (got := readv(descriptor, out[size:], probe)):
        size += got
    return size


def readv(descriptor: int, out: memoryview, probe: bytearray) -> int:
    """How many bytes were read into ``out`` and, beyond its end, ``probe``."""
    if sys.platform == "win32":  # has no readv
        piece = os.read(descriptor, len(out) + 1)
        out[: len(piece)] = piece[: len(out)]
        return len(piece)
    return os.readv(descriptor, [out, probe] if len(out) <= PIECE else [out[:PIECE]])


def write_all(descriptor: int, value: Buffer) -> None:
    """Write all of ``value``."""
    view = as_row(value)
    while view:
        view = view[os.write(descriptor, view) :]


def copy_all(source: int, target: int) -> None:
    """Copy all of one open file into another, which is empty, piece by piece; file systems that can share the bytes do so."""
    os.lseek(source, 0, os.SEEK_SET)
    if hasattr(os, "copy_file_range"):
        with suppress(OSError):  # not every file system can, and the rest is then read and written
            while os.copy_file_range(source, target, PIECE):
                pass
    while piece := os.read(source, COPIED_NBYTES):
        write_all(target, piece)


def as_row(value: Buffer) -> memoryview:
    """``value`` as a row of bytes: other shapes are legal, and only scattered and empty ones have to be copied for that."""
    view = memoryview(value)
    return view.cast("B") if view.c_contiguous and view.nbytes else memoryview(bytes(view))


def is_absent(error: Exception, path: str) -> bool:
    """Whether ``error`` proves that there is no value: nothing is there, a parent is a file, or it is a folder."""
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError):
        return True
    return isinstance(error, PermissionError) and os.path.isdir(path)


def failure(verb: str, key: str, error: Exception) -> StoreError:
    """What to raise where the system could not ``verb`` (read, write, erase) a value."""
    if isinstance(error, OSError) and error.errno in TRANSIENT:
        return TransientStoreError(f"cannot {verb} {key!r} now, trying again may help: {error}", key=key)
    hint = ""
    if isinstance(error, PermissionError):
        hint = "; give this process the right to it"
    elif isinstance(error, OSError) and error.errno == errno.ENOLCK:
        hint = "; if no other process writes to this store, open it with LocalStore(..., locking=False)"
    elif isinstance(error, NotADirectoryError | FileExistsError | IsADirectoryError):
        hint = "; a local store cannot hold a key and keys below it, so erase one of them or choose another name"
    return StoreError(f"cannot {verb} {key!r}: {error}{hint}", key=key)


@contextmanager
def reported(verb: str, prefix: str) -> Iterator[None]:
    """Turn the errors of the system into those of a store."""
    try:
        yield
    except (OSError, UnicodeEncodeError) as error:
        raise failure(verb, prefix, error) from error
