"""Which bytes of a zip archive are of use: those of the entries that its directory names, without what was erased or replaced.

Entries are kept as they are stored, with their headers and, where they have one, their data descriptors (APPNOTE 4.3.7 to 4.3.9).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from azarr.errors import StoreError
from azarr.stores.zip_directory import Record
from azarr.stores.zip_entries import damaged, value_offset
from azarr.stores.zip_records import HEADER

DESCRIBED: Final = 0x8
"""The flag of an entry whose sizes are told behind it, as its writer did not know them before."""

DESCRIPTOR_SIGNATURE: Final = b"PK\7\10"
DESCRIPTOR_NBYTES: Final = 24
"""How long a data descriptor is at most."""


class Used(NamedTuple):
    """Where an entry lies in its file, header and all; its record has it in the directory."""

    record: Record
    start: int
    stop: int


def used_of(read: Callable[[int, int], bytes], records: Iterable[Record], directory: int) -> list[Used]:
    """What is of use of an archive whose directory begins at ``directory``, as it lies in the file; ``read`` has the file's bytes.

    Raises ``StoreError`` where entries overlap: what nobody has vouched for must not make an archive grow.
    """
    found: list[Used] = []
    position = 0
    for record in sorted(records, key=lambda record: record.entry.offset):
        start = record.entry.offset
        stop = _end_of(read, record)
        if start < position or stop > directory:
            raise StoreError(f"the entry {record.name!r:.200} of the zip archive overlaps with what is beside it")
        found.append(Used(record, start, stop))
        position = stop
    return found


def _end_of(read: Callable[[int, int], bytes], record: Record) -> int:
    name, entry, _ = record
    stop = entry.offset + value_offset(name, entry, read(entry.offset, HEADER.size)) + entry.nbytes
    if not entry.flags & DESCRIBED:
        return stop
    behind = read(stop, DESCRIPTOR_NBYTES)
    for signature in (DESCRIPTOR_SIGNATURE, b""):  # which is not obligatory
        for width in (8, 4):
            sizes = b"".join((size & (1 << 8 * width) - 1).to_bytes(width, "little") for size in (entry.nbytes, entry.size))
            descriptor = signature + entry.crc.to_bytes(4, "little") + sizes
            if behind.startswith(descriptor):
                return stop + len(descriptor)
    raise damaged(name, "it is not followed by its sizes")


def runs(used: Iterable[Used]) -> Iterator[tuple[int, int]]:
    """Where the bytes of use begin and end, each run as long as can be."""
    start = stop = 0
    for part in used:
        if part.start != stop:
            if start < stop:
                yield start, stop
            start = part.start
        stop = part.stop
    if start < stop:
        yield start, stop
