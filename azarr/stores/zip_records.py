"""What is written into a zip archive (APPNOTE 4.3): headers of entries that are stored as they are, and a directory at the end."""

from __future__ import annotations

from collections.abc import Collection
from struct import Struct

from azarr.errors import StoreError
from azarr.stores.zip_directory import (
    END,
    END64,
    END64_SIGNATURE,
    END_SIGNATURE,
    LOCATOR,
    LOCATOR_SIGNATURE,
    MAX16,
    MAX32,
    RECORD,
    RECORD_SIGNATURE,
    STORED,
    UTF8,
    ZIP64_EXTRA,
    Entry,
    check_name,
)

HEADER = Struct("<4s5H3L2H")
HEADER_SIGNATURE = b"PK\3\4"

VERSION, VERSION64 = 20, 45
"""What a reader has to understand, at most."""

WIDE16, WIDE32 = MAX16, MAX32
"""From where on numbers are written as zip64 has them."""

UNIX = 3 << 8
REGULAR_FILE = 0o100644 << 16

MIDNIGHT, FIRST_DAY = 0, 1 << 5 | 1
"""The time of all entries, as equal values make equal archives: 1980-01-01, where the calendar of zip begins."""


def new_entry(key: str, offset: int, size: int, crc: int) -> Entry:
    """The entry of a value that is stored as it is."""
    return Entry(offset, size, size, crc, STORED, 0 if key.isascii() else UTF8)


def header_of(key: str, entry: Entry) -> bytes:
    """What stands in front of the value at ``key``."""
    name, wide = encoded_name(key), entry.size >= WIDE32
    extra = Struct("<2H2Q").pack(ZIP64_EXTRA, 16, entry.size, entry.nbytes) if wide else b""
    sizes = (MAX32, MAX32) if wide else (entry.nbytes, entry.size)
    fixed = HEADER.pack(
        HEADER_SIGNATURE, VERSION64 if wide else VERSION, entry.flags, STORED, MIDNIGHT, FIRST_DAY, entry.crc, *sizes, len(name), len(extra)
    )
    return fixed + name + extra


def record_of(key: str, entry: Entry, begin: int) -> bytes:
    """The record of the directory for ``entry``, in an archive that begins at the byte ``begin`` of its file."""
    name, offset = encoded_name(key), entry.offset - begin
    wide = [number for number in (entry.size, entry.nbytes, offset) if number >= WIDE32]
    extra = Struct(f"<2H{len(wide)}Q").pack(ZIP64_EXTRA, 8 * len(wide), *wide) if wide else b""
    version = VERSION64 if wide else VERSION
    sizes = narrow(entry.nbytes), narrow(entry.size)
    fixed = RECORD.pack(
        RECORD_SIGNATURE, UNIX | version, version, entry.flags, STORED, MIDNIGHT, FIRST_DAY, entry.crc, *sizes,
        len(name), len(extra), 0, 0, 0, REGULAR_FILE, narrow(offset),
    )  # fmt: skip
    return fixed + name + extra


def moved(raw: bytes, offset: int) -> bytes:
    """The record ``raw`` of a directory, for the same entry ``offset`` bytes after the beginning of its archive: no later than it was."""
    fields = list(RECORD.unpack_from(raw))
    if fields[16] != MAX32:
        return RECORD.pack(*fields[:16], offset) + raw[RECORD.size :]
    before = 8 * sum(size == MAX32 for size in fields[8:10])  # the sizes come first in the field of zip64
    position = RECORD.size + fields[10]
    while int.from_bytes(raw[position : position + 2], "little") != ZIP64_EXTRA:
        position += 4 + int.from_bytes(raw[position + 2 : position + 4], "little")
    position += 4 + before
    return raw[:position] + offset.to_bytes(8, "little") + raw[position + 8 :]


def directory_of(records: Collection[bytes], offset: int, comment: bytes) -> bytes:
    """The directory and what follows it, to be written ``offset`` bytes after the beginning of the archive."""
    directory = b"".join(records)
    count, nbytes = len(records), len(directory)
    after = b""
    if count >= WIDE16 or nbytes >= WIDE32 or offset >= WIDE32:
        rest = VERSION64, VERSION64, 0, 0, count, count, nbytes, offset
        after = END64.pack(END64_SIGNATURE, END64.size - 12, *rest) + LOCATOR.pack(LOCATOR_SIGNATURE, 0, offset + nbytes, 1)
    few = MAX16 if count >= WIDE16 else count
    return directory + after + END.pack(END_SIGNATURE, 0, 0, few, few, narrow(nbytes), narrow(offset), len(comment)) + comment


def narrow(number: int) -> int:
    """``number`` in 32 bits; what says that zip64 has it, where it does not fit."""
    return MAX32 if number >= WIDE32 else number


def encoded_name(key: str) -> bytes:
    """``key`` as the name of an entry; ``StoreError`` where it cannot be one."""
    try:
        name = check_name(key).encode()
    except UnicodeEncodeError as error:
        raise StoreError(f"{key!r} is not a key: {error}", key=key) from error
    if len(name) > MAX16:
        raise StoreError(f"{key!r:.200} is too long for a zip archive, which takes {MAX16} bytes", key=key)
    return name
