"""Zip archives in local files: one that is read, and the draft of the one that will take its place."""

from __future__ import annotations

import os
import sys
import threading
import zlib
from contextlib import suppress

from azarr.errors import StoreError, TransientStoreError
from azarr.stores import file_locks
from azarr.stores.base import Request, Reserve
from azarr.stores.files import PIECE, READ, span
from azarr.stores.folders import TEMPORARY
from azarr.stores.zip_compaction import runs, used_of
from azarr.stores.zip_directory import STORED, TAIL, Entry, Record, entries_of, find_end, parse_directory
from azarr.stores.zip_entries import check_crc, check_readable, damaged, decoded, inflate, value_offset
from azarr.stores.zip_records import HEADER, directory_of, header_of, moved, new_entry, record_of
from azarr.types import Buffer


class OpenFile:
    """A descriptor that is closed with the last who uses it, so that no reader ever finds another file behind it."""

    __slots__ = ("_mutex", "descriptor")

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._mutex = threading.Lock()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; fine where that has been done."""
        descriptor, self.descriptor = self.descriptor, -1
        with suppress(OSError):
            os.close(descriptor)

    @property
    def size(self) -> int:
        """How many bytes the file has."""
        return os.fstat(self.descriptor).st_size

    def read(self, start: int, nbytes: int) -> bytes:
        """``nbytes`` bytes from ``start`` on; fewer only at the end of the file."""
        pieces = [self._read(start, nbytes)]
        while pieces[-1] and (missing := nbytes - sum(map(len, pieces))):
            pieces.append(self._read(start + nbytes - missing, missing))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, start: int, out: memoryview) -> int:
        """How many bytes from ``start`` on are now in ``out``; fewer than fit only at the end of the file."""
        size = 0
        while size < len(out) and (got := self._read_into(start + size, out[size : size + PIECE])):
            size += got
        return size

    def write(self, start: int, value: Buffer) -> None:
        """Write all of ``value``, a row of bytes, from ``start`` on."""
        view = memoryview(value)
        while view:
            if sys.platform == "win32":  # has no pwrite
                with self._mutex:
                    os.lseek(self.descriptor, start, os.SEEK_SET)
                    written = os.write(self.descriptor, view[:PIECE])
            else:
                written = os.pwrite(self.descriptor, view[:PIECE], start)
            start, view = start + written, view[written:]

    def _read(self, start: int, nbytes: int) -> bytes:
        if sys.platform == "win32":
            with self._mutex:
                os.lseek(self.descriptor, start, os.SEEK_SET)
                return os.read(self.descriptor, min(nbytes, PIECE))
        return os.pread(self.descriptor, min(nbytes, PIECE), start)

    def _read_into(self, start: int, out: memoryview) -> int:
        if sys.platform == "win32":
            piece = self._read(start, len(out))
            out[: len(piece)] = piece
            return len(piece)
        return os.preadv(self.descriptor, [out], start)


class Archive:
    """The values of an archive as they are in an open file; whatever takes the place of the file later does not show."""

    def __init__(self, file: OpenFile, entries: dict[str, Entry], limit: int) -> None:
        self.file, self.entries = file, entries
        self._limit = limit
        self._sorted: list[str] | None = None

    @property
    def keys(self) -> list[str]:
        """All keys, sorted."""
        keys = self._sorted
        if keys is None:
            keys = self._sorted = sorted(self.entries)
        return keys

    def changed(self) -> None:
        """Keys have come or gone."""
        self._sorted = None

    def get(self, key: str, byte_range: Request, reserve: Reserve | None) -> Buffer | None:
        """The value, or a part of it, in memory from ``reserve`` where it is stored as it is."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        begin = self._begin(key, entry)
        if entry.method != STORED:
            return decoded(key, entry, self._read(key, begin, entry.nbytes), byte_range)
        start, nbytes = span(byte_range, entry.size)
        value: Buffer
        if reserve is None:
            value = self._read(key, begin + start, nbytes)
        else:
            value = reserve(nbytes)[:nbytes]
            self._read_into(key, begin + start, value)
        if nbytes == entry.size:
            check_crc(key, entry, value)
        return value

    def get_into(self, key: str, out: memoryview) -> int | None:
        """The size of the value, which is in ``out`` then; ``len(out) + 1`` where it does not fit."""
        entry = self.entries.get(key)
        if entry is None:
            return None
        if entry.size > len(out):
            return len(out) + 1
        begin = self._begin(key, entry)
        out = out[: entry.size]
        if entry.method == STORED:
            self._read_into(key, begin, out)
        else:
            out[:] = inflate(key, entry, self._read(key, begin, entry.nbytes), entry.size)
        check_crc(key, entry, out)
        return entry.size

    def _begin(self, key: str, entry: Entry) -> int:
        """Where the value begins in the file, which only its header knows."""
        check_readable(key, entry, self._limit)
        return entry.offset + value_offset(key, entry, self.file.read(entry.offset, HEADER.size))

    def _read(self, key: str, start: int, nbytes: int) -> bytes:
        value = self.file.read(start, nbytes)
        if len(value) < nbytes:
            raise damaged(key, "the file ends before it")
        return value

    def _read_into(self, key: str, start: int, out: memoryview) -> None:
        if self.file.read_into(start, out) < len(out):
            raise damaged(key, "the file ends before it")


class Contents:
    """What an archive in a file consists of: its ``entries``, and the directory, which begins at the byte ``directory``."""

    def __init__(self, file: OpenFile, path: str, limit: int) -> None:
        try:
            self._read(file, limit)
        except StoreError as error:
            raise type(error)(f"{path!r}: {error}", key=error.key) from error

    def _read(self, file: OpenFile, limit: int) -> None:
        size = file.size
        tail = file.read(max(0, size - TAIL), TAIL)
        self._end = find_end(tail, limit)
        self.directory = size - self._end.after - self._end.nbytes
        self.begin = self.directory - self._end.offset
        if self.directory < 0 or self.begin < 0:
            raise StoreError("the directory of the zip archive does not fit into its file")
        self._data = file.read(self.directory, self._end.nbytes)
        if len(self._data) < self._end.nbytes:
            raise TransientStoreError("the zip archive became shorter while it was read: read it again")
        self.entries = entries_of(parse_directory(self._data, self._end, self.begin), self.directory)

    @property
    def comment(self) -> bytes:
        """What stands behind the directory."""
        return self._end.comment

    def live_records(self) -> dict[str, Record]:
        """The records by their names, without those that another one with the same name has replaced."""
        return {record.name: record for record in parse_directory(self._data, self._end, self.begin)}


class Draft(Archive):
    """The archive that ``commit`` puts in the place of the one at ``path``: in a file beside it, to which values are appended.

    Begins with what is in ``old``. Only one draft of an archive exists at a time, in all processes; ``StoreError`` for the second.
    """

    def __init__(self, path: str, limit: int) -> None:
        self._path = os.path.realpath(path)  # a link goes on leading to the archive
        folder, name = os.path.split(self._path)
        self._temporary = os.path.join(folder, f"{TEMPORARY}{name}")
        descriptor = file_locks.claimed(self._temporary)
        if descriptor is None:
            raise StoreError(f"{path!r} is being written by somebody else: a zip archive has one writer at a time")
        super().__init__(OpenFile(descriptor), {}, limit)
        self._records: dict[str, bytes] = {}
        self._end = self._begin_byte = self.left_out = 0
        self._comment = b""
        try:
            os.ftruncate(descriptor, 0)
        except BaseException:
            self.discard()
            raise

    def begin_with(self, file: OpenFile, contents: Contents) -> None:
        """Take over the archive in ``file``: its values as they are stored, their order and their attributes."""
        self._become(file, contents)
        copy_bytes(file, self.file, contents.directory)
        self._end = contents.directory
        self.entries = dict(contents.entries)
        self._records = {name: record.raw for name, record in contents.live_records().items()}
        self.changed()

    def begin_with_used(self, file: OpenFile, contents: Contents) -> None:
        """As ``begin_with``, without what was erased or replaced: ``left_out`` bytes. Where there are none, nothing is copied."""
        records = contents.live_records()
        used = used_of(file.read, records.values(), contents.directory)
        self.left_out = contents.directory - contents.begin - sum(part.stop - part.start for part in used)
        if not self.left_out:
            return
        self._become(file, contents)
        copy_bytes(file, self.file, contents.begin)
        position = self._end = contents.begin
        for start, stop in runs(used):
            copy_bytes(file, self.file, stop - start, start, self._end)
            self._end += stop - start
        offsets = {}
        for part in used:
            offsets[part.record.name] = position
            position += part.stop - part.start
        self._records = {name: moved(record.raw, offsets[name] - contents.begin) for name, record in records.items()}
        self.entries = {name: entry._replace(offset=offsets[name]) for name, entry in contents.entries.items()}
        self.changed()

    def _become(self, file: OpenFile, contents: Contents) -> None:
        os.chmod(self._temporary, os.fstat(file.descriptor).st_mode & 0o777)
        self._begin_byte, self._comment = contents.begin, contents.comment

    def set(self, key: str, value: Buffer) -> None:
        """Append ``value``, a row of bytes."""
        entry = new_entry(key, self._end, len(value), zlib.crc32(value))
        header = header_of(key, entry)
        record = record_of(key, entry, self._begin_byte)
        self.file.write(self._end, header)
        self.file.write(self._end + len(header), value)
        self._end += len(header) + len(value)
        self._records[key] = record
        new = key not in self.entries
        self.entries[key] = entry
        if new:
            self.changed()

    def erase(self, key: str) -> None:
        """Leave ``key`` out of the directory."""
        if self.entries.pop(key, None) is not None:
            del self._records[key]
            self.changed()

    def commit(self) -> Archive:
        """Write the directory, and take the place of the old archive; the answer is what is there from now on."""
        directory = directory_of(self._records.values(), self._end - self._begin_byte, self._comment)
        self.file.write(self._end, directory)
        os.ftruncate(self.file.descriptor, self._end + len(directory))
        os.fsync(self.file.descriptor)
        if sys.platform == "win32":  # renames nothing that is open
            self.file.close()
            os.replace(self._temporary, self._path)
            self.file = OpenFile(os.open(self._path, READ))
        else:
            os.replace(self._temporary, self._path)
            file_locks.unclaim(self.file.descriptor)
        return Archive(self.file, self.entries, self._limit)

    def discard(self) -> None:
        """Throw away what has been written."""
        if sys.platform == "win32":  # removes nothing that is open
            self.file.close()
        with suppress(OSError):
            os.unlink(self._temporary)
        file_locks.unclaim(self.file.descriptor)


def open_file(path: str) -> OpenFile | None:
    """The file at ``path``, opened for reading; ``None`` where there is none."""
    try:
        return OpenFile(os.open(path, READ))
    except FileNotFoundError:
        return None


def open_nothing() -> OpenFile:
    """A file without a byte."""
    return OpenFile(os.open(os.devnull, READ))


def copy_bytes(source: OpenFile, target: OpenFile, nbytes: int, start: int = 0, to: int = 0) -> None:
    """Copy ``nbytes`` bytes from ``start`` on to where ``to`` is; file systems that can share them do so."""
    position = 0
    if hasattr(os, "copy_file_range"):
        # not every file system can, and then nothing has been copied
        with suppress(OSError):
            while position < nbytes:
                got = os.copy_file_range(
                    source.descriptor, target.descriptor, min(nbytes - position, PIECE), start + position, to + position
                )
                if not got:
                    break
                position += got
    while position < nbytes:
        piece = source.read(start + position, min(nbytes - position, 8 * 2**20))
        if not piece:
            raise TransientStoreError("the zip archive became shorter while it was copied: try again")
        target.write(to + position, piece)
        position += len(piece)
