"""A store in a zip archive that is a local file."""

from __future__ import annotations

import asyncio
import os
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeAlias, get_args

from azarr.errors import StoreError
from azarr.stores.base import Request, Reserve, Stamped, check_key
from azarr.stores.files import as_row, failure, reported
from azarr.stores.folders import sync_folder
from azarr.stores.sorted_keys import keys_below, listing_below
from azarr.stores.threads import ThreadedStore, to_its_end
from azarr.stores.zip_directory import DIRECTORY_NBYTES
from azarr.stores.zip_entries import VALUE_NBYTES
from azarr.stores.zip_file import Archive, Contents, Draft, OpenFile, open_file, open_nothing
from azarr.types import Buffer, Listing

Mode: TypeAlias = Literal["r", "a", "w"]


class ZipStore(ThreadedStore):
    """A store in the zip archive at ``path``: each key is the name of an entry.

    ``mode`` is ``"r"`` for reading, ``"a"`` for writing to an archive that is made where there is none, and ``"w"`` for a new one in the
    place of an old one. Entries that are stored or deflated are read, those with zip64 included. The whole of an entry is checked against
    its checksum.

    What is written shows at once to whoever uses this object. Everybody else sees it after ``commit``, ``aclose`` or the end of an
    ``async with``: until then the archive at ``path`` is the old one, or none, and so it is after a crash at any moment. Values are
    stored uncompressed, as chunks are compressed already; their time is 1980-01-01, so that equal values make equal archives.
    An ``async with`` that is left by an exception throws away what has not been committed, and so does ``discard``.

    The first write after a commit copies the archive, which file systems with shared blocks do in no time. What was erased or replaced
    keeps its place in the file until ``compact``. One store at a time can write to an archive; where another one does, ``StoreError`` is
    raised.

    Who reads sees the archive as it was when the first value was asked for, even where another one takes its place later.

    ``directory_nbytes`` bounds the directory of the archive, which is held in memory, ``value_nbytes`` the size of a value: both
    protect from archives of strangers.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, mode: Mode = "r", directory_nbytes: int = DIRECTORY_NBYTES, value_nbytes: int = VALUE_NBYTES
    ) -> None:
        if mode not in get_args(Mode):
            raise ValueError(f"mode must be one of {', '.join(get_args(Mode))}, not {mode!r}")
        self._path = os.path.abspath(os.path.expanduser(path))
        self._mode: Mode = mode
        self._anew = mode == "w"
        self._directory_nbytes, self._value_nbytes = directory_nbytes, value_nbytes
        self._mutex = threading.RLock()
        self._archive: Archive | None = None
        self._closed = False

    @property
    def path(self) -> str:
        """Where the archive is, as an absolute path."""
        return self._path

    @property
    def mode(self) -> Mode:
        """Whether the store reads or writes."""
        return self._mode

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r}, mode={self._mode!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Only where it is read: an archive has one writer."""
        if self._mode != "r":
            raise StoreError(f"{self!r} cannot be pickled, as an archive has one writer; commit, and open it with mode='r'")
        return _reopened, (self._path, self._directory_nbytes, self._value_nbytes)

    def __del__(self) -> None:
        draft = getattr(self, "_archive", None)
        if isinstance(draft, Draft):
            draft.discard()
            warnings.warn(f"{self!r} was never closed: what has been written to it is lost", ResourceWarning, source=self, stacklevel=1)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is not None:
            await self.discard()
        await self.aclose()

    async def commit(self) -> None:
        """Put what has been written in the place of the archive. The store can be used further."""
        await to_its_end(self._commit)

    async def compact(self) -> int:
        """The bytes that are saved by an archive without what was erased or replaced, which has taken the place of the old one.

        What has been written is committed first. Then the rest is copied, and takes its place as with a commit: whoever has opened the
        old archive keeps it, and a crash leaves the one or the other. Where there is nothing to save, nothing is copied.
        """
        return await to_its_end(self._compact)

    async def discard(self) -> None:
        """Throw away what has been written since the last commit."""
        await to_its_end(self._discard)

    async def aclose(self) -> None:
        """Commit, and close the file; fine where that has been done."""
        await to_its_end(self._close)

    async def erase_prefix(self, prefix: str) -> None:
        await to_its_end(self._erase_prefix, prefix)

    async def list_prefix(self, prefix: str = "") -> AsyncIterator[str]:
        for key in keys_below(await asyncio.to_thread(self._keys), prefix):
            yield key

    async def list_dir(self, prefix: str = "") -> Listing:
        return await asyncio.to_thread(lambda: listing_below(self._keys(), prefix))

    def get_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Buffer | None:
        archive = self._archive or self._opened()
        try:
            return archive.get(check_key(key), byte_range, reserve)
        except OSError as error:
            raise failure("read", key, error) from error

    def get_stamped_blocking(self, key: str, byte_range: Request = None, reserve: Reserve | None = None) -> Stamped:
        while True:
            archive = self._archive or self._opened()
            before = archive.entries.get(check_key(key))
            value = self.get_blocking(key, byte_range, reserve)
            if self._archive is archive and archive.entries.get(key) is before:  # or else it was replaced while it was read
                return Stamped(value, before)

    def get_into(self, key: str, out: memoryview) -> int | None:
        archive = self._archive or self._opened()
        try:
            return archive.get_into(check_key(key), out)
        except OSError as error:
            raise failure("read", key, error) from error

    def set_blocking(self, key: str, value: Buffer) -> None:
        row = as_row(value)
        with self._mutex:
            check_key(key)
            draft = self._draft()
            try:
                draft.set(key, row)
            except OSError as error:
                raise failure("write", key, error) from error

    def erase_blocking(self, key: str) -> None:
        self._erase([check_key(key)])

    def _erase_prefix(self, prefix: str) -> None:
        with self._mutex:
            self._erase(keys_below(self._keys(), prefix))

    def _erase(self, keys: Sequence[str]) -> None:
        with self._mutex:
            self._check_writable()
            there = [key for key in keys if key in self._opened().entries]
            if there:
                draft = self._draft()
                for key in there:
                    draft.erase(key)

    def _keys(self) -> list[str]:
        return (self._archive or self._opened()).keys

    def _opened(self) -> Archive:
        """The archive, opened by whoever first needs it."""
        with self._mutex, reported("open the zip archive", self._path):
            if self._closed:
                raise StoreError(f"{self!r} is closed")
            if self._archive is None:
                file = open_file(self._path)
                if self._mode == "r" and file is None:
                    raise StoreError(f"there is no zip archive at {self._path!r}")
                if file is None or (self._mode != "r" and not file.size):
                    self._archive = Archive(open_nothing(), {}, self._value_nbytes)
                else:
                    # looked at before it is replaced, too: who names another file by mistake does not want to lose it
                    entries = Contents(file, self._path, self._directory_nbytes).entries
                    self._archive = Archive(file, {} if self._anew else entries, self._value_nbytes)
            return self._archive

    def _check_writable(self) -> None:
        if self._mode == "r":
            raise StoreError(f"{self!r} is only read; open it with mode='a' to write")

    def _draft(self) -> Draft:
        """The archive with what has been written since the last commit; begun by the first write after one."""
        self._check_writable()
        archive = self._opened()
        if isinstance(archive, Draft):
            return archive
        self._archive = draft = self._begun(Draft.begin_with)
        return draft

    def _begun(self, take_over: Callable[[Draft, OpenFile, Contents], None]) -> Draft:
        """A new draft that has taken over what is in the archive."""
        with reported("write the zip archive", self._path):
            draft = Draft(self._path, self._value_nbytes)
            try:
                # what is there by now, for others may have written until this draft was begun
                file = None if self._anew else open_file(self._path)
                if file is not None and file.size:
                    take_over(draft, file, Contents(file, self._path, self._directory_nbytes))
            except BaseException:
                draft.discard()
                raise
        return draft

    def _commit(self) -> None:
        with self._mutex:
            if isinstance(self._archive, Draft):
                with reported("write the zip archive", self._path):
                    self._archive = self._archive.commit()
                    self._anew = False
                    sync_folder(os.path.dirname(os.path.realpath(self._path)))

    def _compact(self) -> int:
        with self._mutex:
            self._check_writable()
            self._opened()
            self._commit()
            draft = self._begun(Draft.begin_with_used)
            if not draft.left_out:
                draft.discard()
                return 0
            self._archive = draft
            try:
                self._commit()
            except BaseException:
                self._discard()
                raise
            return draft.left_out

    def _discard(self) -> None:
        with self._mutex:
            if isinstance(self._archive, Draft):
                self._archive.discard()
                self._archive = None

    def _close(self) -> None:
        with self._mutex:
            self._commit()
            self._archive, self._closed = None, True


def _reopened(path: str, directory_nbytes: int, value_nbytes: int) -> ZipStore:
    return ZipStore(path, directory_nbytes=directory_nbytes, value_nbytes=value_nbytes)
