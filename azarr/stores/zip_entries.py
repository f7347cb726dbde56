"""From the bytes of an entry in a zip archive to the value: where the value begins, decompressing and checking it."""

from __future__ import annotations

import zlib

from azarr.errors import StoreError
from azarr.stores.base import Request
from azarr.stores.files import span
from azarr.stores.zip_directory import DEFLATED, ENCRYPTED, STORED, Entry
from azarr.stores.zip_records import HEADER, HEADER_SIGNATURE
from azarr.types import CHUNK_NBYTES, Buffer

VALUE_NBYTES = CHUNK_NBYTES
"""What one value may take unless a user says otherwise."""

EXPANSION = 1032
"""What a byte can decompress to at most, by the construction of deflate."""

METHODS = {1: "shrink", 6: "implode", 9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstd", 95: "xz", 98: "ppmd", 99: "AES"}


def check_readable(key: str, entry: Entry, limit: int) -> None:
    """Raise ``StoreError`` where azarr cannot or will not read ``entry``."""
    if entry.flags & ENCRYPTED:
        raise StoreError(f"{key!r} is encrypted, which azarr does not read: write the zip archive without a password", key=key)
    if entry.method not in {STORED, DEFLATED}:
        name = METHODS.get(entry.method, f"method {entry.method}")
        raise StoreError(f"{key!r} is compressed with {name}, azarr reads zip entries that are stored or deflated: write it so", key=key)
    if entry.size > limit:
        raise StoreError(f"{key!r} has {entry.size} bytes, more than the limit of {limit} (value_nbytes)", key=key)
    most = entry.nbytes if entry.method == STORED else entry.nbytes * EXPANSION + EXPANSION
    if entry.size > most or (entry.method == STORED and entry.size != entry.nbytes):
        raise damaged(key, f"{entry.nbytes} bytes cannot be a value of {entry.size}")


def value_offset(key: str, entry: Entry, header: Buffer) -> int:
    """How many bytes after its header's beginning the value begins; ``header`` is that or more."""
    if len(header) < HEADER.size or header[:4] != HEADER_SIGNATURE:
        raise damaged(key, "no entry begins where the directory says")
    fields = HEADER.unpack_from(header)
    if fields[3] != entry.method:
        raise damaged(key, "its header contradicts the directory")
    return HEADER.size + int(fields[-2]) + int(fields[-1])


def inflate(key: str, entry: Entry, data: Buffer, stop: int) -> bytes:
    """The first ``stop`` bytes of a value from its compressed bytes. No more than that is ever decompressed."""
    whole = stop >= entry.size
    if not whole and not stop:
        return b""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # one byte more than there may be, to see one that should not be there
        value = stream.decompress(data, entry.size + 1 if whole else stop)
    except zlib.error as error:
        raise damaged(key, str(error)) from error
    if len(value) != min(stop, entry.size) or (whole and not stream.eof):
        raise damaged(key, f"it decompresses to other than the {entry.size} bytes that the directory says")
    return value


def decoded(key: str, entry: Entry, data: Buffer, byte_range: Request) -> Buffer:
    """The part that ``byte_range`` names of a value, from all bytes that are stored of it."""
    start, nbytes = span(byte_range, entry.size)
    value = data if entry.method == STORED else inflate(key, entry, data, start + nbytes)
    if len(value) == entry.size:
        check_crc(key, entry, value)
    return value if nbytes == len(value) else memoryview(value)[start : start + nbytes]


def check_crc(key: str, entry: Entry, value: Buffer) -> None:
    """Raise ``StoreError`` unless ``value`` has the checksum that the directory says."""
    if zlib.crc32(value) != entry.crc:
        raise damaged(key, "its checksum does not match")


def damaged(key: str, why: str) -> StoreError:
    """The error for an entry that cannot be what the directory says."""
    return StoreError(f"{key!r} in the zip archive is damaged, or the archive was replaced while it was read: {why}", key=key)
