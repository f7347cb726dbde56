"""The directory at the end of a zip archive (APPNOTE 4.3 and 4.5): found, checked and parsed, without I/O.

Nothing in it is trusted: sizes, counts and positions are held against each other and against the file, and names against what a key
may be. An archive that contradicts itself is refused as a whole, since a chunk that goes missing would read as fill value.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

from azarr.errors import StoreError
from azarr.stores.base import check_key

DIRECTORY_NBYTES: Final = 64 * 2**20
"""What the directory of an archive may take unless a user says otherwise: about a million entries, which take some 300 MB of memory."""

TAIL: Final = 128 * 2**10
"""What is read of the end of an archive at first: all that the longest comment needs, and with most archives the directory, too."""

MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
"""The values that say that the real ones are in a record of zip64."""

STORED, DEFLATED = 0, 8
ENCRYPTED = 0x1 | 0x40 | 0x2000
UTF8 = 0x800

END = Struct("<4s4H2LH")
LOCATOR = Struct("<4sLQL")
END64 = Struct("<4sQ2H2L4Q")
RECORD = Struct("<4s6H3L5H2L")
END_SIGNATURE, LOCATOR_SIGNATURE, END64_SIGNATURE = b"PK\5\6", b"PK\6\7", b"PK\6\6"
RECORD_SIGNATURE, SIGNED_SIGNATURE = b"PK\1\2", b"PK\5\5"

ZIP64_EXTRA, UNICODE_PATH_EXTRA = 0x0001, 0x7075

_DRIVE = re.compile("[A-Za-z]:(/|$)")


class End(NamedTuple):
    """What the end of an archive says: where the directory begins, how long it is, and how many ``entries`` it has.

    ``offset`` counts from where the archive begins in its file, which need not be the first byte; ``after`` bytes follow the directory.
    """

    offset: int
    nbytes: int
    entries: int
    after: int
    comment: bytes


class Entry(NamedTuple):
    """Where a value lies in the file of an archive: its header is at ``offset``, and ``nbytes`` are stored of its ``size``."""

    offset: int
    nbytes: int
    size: int
    crc: int
    method: int
    flags: int


class Record(NamedTuple):
    """One record of a directory: the name, what it says, and the record as it stands there."""

    name: str
    entry: Entry
    raw: bytes


def find_end(tail: bytes, limit: int) -> End:
    """What the end of an archive says, of which ``tail`` are the last bytes; ``StoreError`` where there is none, or beyond ``limit``."""
    at = tail.rfind(END_SIGNATURE)
    while at >= 0:
        # the signature may stand in a comment: only where all fits up to the last byte is it the end
        if at + END.size <= len(tail) and at + END.size + END.unpack_from(tail, at)[-1] == len(tail):
            break
        at = tail.rfind(END_SIGNATURE, 0, at)
    if at < 0:
        raise StoreError("this is no zip archive, or its end is cut off")
    _, *disks, entries, nbytes, offset, _ = END.unpack_from(tail, at)
    start = at
    if at >= LOCATOR.size and tail.startswith(LOCATOR_SIGNATURE, at - LOCATOR.size):
        start = at - LOCATOR.size - END64.size
        if start < 0 or not tail.startswith(END64_SIGNATURE, start):
            raise StoreError("the end of the zip archive is damaged: its record of zip64 is not where it should be")
        *_, first, second, _, entries, nbytes, offset = END64.unpack_from(tail, start)
        disks = [first, second]
    if any(disks[:2]):
        raise StoreError("the zip archive is one part of several; put them together first")
    if nbytes > limit:
        raise StoreError(f"the directory of the zip archive takes {nbytes} bytes, more than the limit of {limit} (directory_nbytes)")
    return End(offset, nbytes, entries, len(tail) - start, tail[at + END.size :])


def parse_directory(data: bytes, end: End, begin: int) -> Iterator[Record]:
    """The records of the directory ``data``, of an archive that begins at the byte ``begin`` of its file."""
    position = count = 0
    while position < len(data) and not data.startswith(SIGNED_SIGNATURE, position):
        if position + RECORD.size > len(data) or not data.startswith(RECORD_SIGNATURE, position):
            raise StoreError("the directory of the zip archive is damaged")
        record = RECORD.unpack_from(data, position)
        name_end = position + RECORD.size + record[10]
        stop = name_end + record[11] + record[12]
        if stop > len(data):
            raise StoreError("the directory of the zip archive is cut off")
        name, entry = _parsed(record, data[position + RECORD.size : name_end], data[name_end : name_end + record[11]], begin)
        yield Record(name, entry, data[position:stop])
        position = stop
        count += 1
    if count != end.entries and count & MAX16 != end.entries:
        raise StoreError(f"the directory of the zip archive has {count} entries, and {end.entries} at its end")


def _parsed(record: tuple[int, ...], raw_name: bytes, extra: bytes, begin: int) -> tuple[str, Entry]:
    flags, method, crc, nbytes, size, disk, offset = *record[3:5], *record[7:10], record[13], record[16]
    name = raw_name.decode("utf-8" if flags & UTF8 or raw_name.isascii() else "cp437", "replace")
    if extra:
        fields = dict(_extra_fields(extra))
        wide = fields.get(ZIP64_EXTRA, b"")
        wanted = [value == MAX32 for value in (size, nbytes, offset)]
        if any(wanted):
            if len(wide) < 8 * sum(wanted):
                raise StoreError(f"the entry {name!r:.200} of the zip archive lacks its sizes of zip64")
            numbers = (int.from_bytes(wide[at : at + 8], "little") for at in range(0, len(wide), 8))
            size, nbytes, offset = (
                next(numbers) if wide_one else value for wide_one, value in zip(wanted, (size, nbytes, offset), strict=True)
            )
        name = _unicode_path(fields.get(UNICODE_PATH_EXTRA, b""), raw_name) or name
    if disk not in {0, MAX16}:
        raise StoreError(f"the entry {name!r:.200} of the zip archive is in another part of it; put the parts together first")
    return name, Entry(begin + offset, nbytes, size, crc, method, flags)


def _extra_fields(extra: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    while position + 4 <= len(extra):
        kind, nbytes = (int.from_bytes(extra[at : at + 2], "little") for at in (position, position + 2))
        yield kind, extra[position + 4 : position + 4 + nbytes]
        position += 4 + nbytes


def _unicode_path(field: bytes, raw_name: bytes) -> str | None:
    """The name in Unicode that Info-ZIP writes beside the one in an old code page, if it belongs to that."""
    if len(field) > 5 and field[0] == 1 and int.from_bytes(field[1:5], "little") == zlib.crc32(raw_name):
        return field[5:].decode("utf-8", "replace")
    return None


def entries_of(records: Iterable[Record], directory: int) -> dict[str, Entry]:
    """The values of an archive whose directory begins at the byte ``directory`` of the file; the last of several with one name counts.

    Raises ``StoreError`` for a name that cannot be a key, and where entries overlap or reach into the directory.
    """
    entries = {record.name: record.entry for record in records if not record.name.endswith("/")}
    for name in entries:
        check_name(name)
    position, last = 0, ""
    for name, entry in sorted(entries.items(), key=lambda item: item[1].offset):
        if entry.offset < position:
            raise StoreError(f"the entries {last!r:.200} and {name!r:.200} of the zip archive overlap")
        position, last = entry.offset + 30 + entry.nbytes, name
    if position > directory:
        raise StoreError(f"the entry {last!r:.200} of the zip archive does not fit into its file")
    return entries


def check_name(name: str) -> str:
    """``name`` itself; ``StoreError`` unless it can be a key and leaves no folder that it might be unpacked into."""
    try:
        check_key(name)
    except StoreError as error:
        raise StoreError(f"the zip archive has an entry that is not a key: {error}", key=name) from error
    if _DRIVE.match(name) or "\ufffd" in name:
        raise StoreError(f"{name!r:.200} is not a key of a zip archive: it names a drive, or is not text", key=name)
    return name
