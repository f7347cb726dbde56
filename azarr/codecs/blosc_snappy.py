"""Blosc 1 chunks whose streams are Snappy, which the Blosc libraries no longer read."""

from __future__ import annotations

import struct

import numpy as np

from azarr.codecs.damage import damaged
from azarr.codecs.shuffle import transpose_into
from azarr.codecs.snappy import decoded_size, uncompress
from azarr.types import Array, Buffer

HEADER_NBYTES = 16
BYTE_SHUFFLED, STORED, BIT_SHUFFLED, UNSPLIT = 0x01, 0x02, 0x04, 0x10
MAX_SPLITS, MIN_SPLIT = 16, 128
"""Blocks are split into a stream for each byte of an element: at most so many, and of at least so many bytes each."""

CODEC = "blosc"


def decode_into(data: Buffer, out: memoryview) -> None:
    """Fill ``out`` with the decoded bytes of a chunk whose header has been checked against both; ``CodecError`` for damage."""
    _, _, flags, typesize, nbytes, blocksize, cbytes = struct.unpack_from("<BBBBIII", data)
    view, typesize = memoryview(data)[:cbytes], max(typesize, 1)
    if flags & STORED:
        if len(view) != HEADER_NBYTES + nbytes:
            raise damaged(CODEC, f"{len(view)} bytes cannot store {nbytes} as they are")
        out[:] = view[HEADER_NBYTES:]
        return
    blocks = -(-nbytes // blocksize) if blocksize else 0
    if not blocks or HEADER_NBYTES + 4 * blocks > len(view):
        raise damaged(CODEC, f"{len(view)} bytes cannot hold blocks of {blocksize}")
    starts = struct.unpack_from(f"<{blocks}i", view, HEADER_NBYTES)
    for number, start in enumerate(starts):
        target = out[number * blocksize : (number + 1) * blocksize]
        whole = len(target) == blocksize
        splits = typesize if whole and not flags & UNSPLIT and typesize <= MAX_SPLITS and blocksize // typesize >= MIN_SPLIT else 1
        block = _block(view, start, len(target), splits)
        if flags & BYTE_SHUFFLED and typesize > 1:
            _unshuffle(block, target, typesize)
        elif flags & BIT_SHUFFLED and len(block) // typesize % 8 == 0:
            _bit_unshuffle(block, target, typesize)
        else:
            target[:] = block


def _block(view: memoryview, start: int, nbytes: int, splits: int) -> bytes:
    """The bytes of one block, as they are shuffled."""
    parts = []
    if nbytes % splits:
        raise damaged(CODEC, f"a block of {nbytes} bytes cannot be split into {splits} streams")
    for _ in range(splits):
        if not HEADER_NBYTES <= start <= len(view) - 4:
            raise damaged(CODEC, f"a stream begins at {start}, outside the {len(view)} bytes of the chunk")
        (size,) = struct.unpack_from("<i", view, start)
        stream = view[start + 4 : start + 4 + max(size, 0)]
        if size < 0 or len(stream) != size:
            raise damaged(CODEC, f"a stream of {size} bytes at {start} ends outside the {len(view)} bytes of the chunk")
        if size == nbytes // splits:
            parts.append(bytes(stream))
        elif decoded_size(CODEC, stream) != nbytes // splits:
            raise damaged(CODEC, f"a stream of {decoded_size(CODEC, stream)} bytes where there are {nbytes // splits}")
        else:
            parts.append(uncompress(CODEC, stream, nbytes // splits))
        start += 4 + size
    return b"".join(parts)


def _unshuffle(block: bytes, target: memoryview, typesize: int) -> None:
    whole = len(block) // typesize * typesize
    if whole:
        shuffled = np.frombuffer(block, np.uint8, whole).reshape(typesize, -1)
        transpose_into(shuffled, np.frombuffer(target[:whole], np.uint8).reshape(-1, typesize))
    target[whole:] = block[whole:]


def _bit_unshuffle(block: bytes, target: memoryview, typesize: int) -> None:
    whole = len(block) // typesize * typesize
    planes: Array = np.frombuffer(block, np.uint8, whole).reshape(8 * typesize, -1)
    # bit k of byte j of all elements stands in plane 8 j + k
    bits = np.unpackbits(planes, axis=1, bitorder="little").T
    target[:whole] = np.packbits(bits, axis=1, bitorder="little").tobytes()
    target[whole:] = block[whole:]
