"""Folders below the root of a file store: made, listed, walked and erased. None of it waits for anything but the disk."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import suppress

from azarr.types import Listing

TEMPORARY = ".__azarr_tmp_"
"""How the names of unfinished files begin. No key may have such a segment and no listing shows one."""


def make_folder(folder: str, *, durable: bool) -> None:
    """Make ``folder`` and those above it, where there are none; ``durable``, so that they survive a crash of the machine."""
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
        if durable:
            sync_folder(os.path.dirname(path))


def erase_folder(folder: str, *, itself: bool, durable: bool) -> None:
    """Erase all that is in ``folder``, and ``itself`` too; fine where it is absent. Of a link to a folder only the link goes."""
    if itself and os.path.islink(folder):
        if os.path.isdir(folder):  # a link to a file is a key, and not below the prefix
            os.unlink(folder)
        return
    found = []
    pending = [folder]
    while pending:
        found.append(pending.pop())
        pending += erase_files(found[-1])
    for path in reversed(found if itself else found[1:]):
        remove_folder(path)
    if durable:
        with suppress(FileNotFoundError, NotADirectoryError):
            sync_folder(os.path.dirname(folder) if itself else folder)


def erase_files(folder: str) -> list[str]:
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


def remove_folder(folder: str) -> None:
    """Remove ``folder``, if it is there and empty."""
    try:
        os.rmdir(folder)
    except OSError as error:
        # Somebody else may have put a new value there, or erased the folder as well.
        if error.errno not in {errno.ENOENT, errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise


def sync_folder(folder: str) -> None:
    """Have the entries of ``folder`` survive a crash of the machine."""
    if sys.platform == "win32":  # cannot open folders, and needs no such thing
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def keys_below(root: str, prefix: str) -> Iterator[str]:
    """The keys that begin with ``prefix``, which are files below ``root``, a path that ends in a separator; links are followed."""
    pending: list[tuple[str, frozenset[tuple[int, int]]]] = [(prefix, frozenset())]
    while pending:
        below, above = pending.pop()
        with suppress(FileNotFoundError, NotADirectoryError):
            status = os.stat(root + below)
            here = (status.st_dev, status.st_ino)
            if here in above:  # a symbolic link leads back up
                continue
            for entry in entries_of(root + below):
                if entry.is_file():
                    yield below + entry.name
                elif entry.is_dir():
                    pending.append((f"{below}{entry.name}/", above | {here}))


def listing_of(root: str, prefix: str) -> Listing:
    """The keys and prefixes directly below ``prefix``."""
    keys: list[str] = []
    prefixes: list[str] = []
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in entries_of(root + prefix):
            if entry.is_file():
                keys.append(prefix + entry.name)
            elif entry.is_dir():
                prefixes.append(f"{prefix}{entry.name}/")
    return Listing(keys=tuple(sorted(keys)), prefixes=tuple(sorted(prefixes)))


def entries_of(folder: str) -> Iterator[os.DirEntry[str]]:
    """What is in ``folder`` and has a name that a key can have."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(TEMPORARY) and "\\" not in entry.name:
                yield entry
