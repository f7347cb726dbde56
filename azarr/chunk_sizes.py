"""How large chunks and shards are where a user leaves that to azarr.

A chunk is what is read and decoded at once, a shard what is written at once. Sizes are those of decoded elements; what is stored is
usually half of that or less.
"""

from __future__ import annotations

import math
from typing import Final

LOCAL_NBYTES: Final = 2**20
"""A chunk on a store that answers at once (memory, local files): it decodes in a millisecond, and larger ones are no faster."""

REMOTE_NBYTES: Final = 8 * 10**6
"""A chunk on a store whose requests are awaited. A request takes tens of milliseconds whatever its size, in which a connection carries some
megabytes; and the 32 requests that an engine has in flight fill its 256 MiB of memory."""

REMOTE_INNER_NBYTES: Final = 2 * 10**6
"""A chunk inside a shard there: neighbouring ones come with one request anyway."""

SHARD_NBYTES: Final = 64 * 10**6
"""A shard, which is in memory as a whole while it is written: a few of them at once are within the memory of an engine."""

SHARD_NCHUNKS: Final = 1024
"""Chunks in a shard: their index, of 16 KiB, which is read first, then costs less than a chunk."""


def chunk_nbytes(*, remote: bool, sharded: bool) -> int:
    """What a chunk may take at most."""
    if not remote:
        return LOCAL_NBYTES
    return REMOTE_INNER_NBYTES if sharded else REMOTE_NBYTES


def auto_chunks(shape: tuple[int, ...], itemsize: int, most: int = LOCAL_NBYTES) -> tuple[int, ...]:
    """The array's own shape, its longest side halved until a chunk has ``most`` bytes or fewer: half as many at least."""
    chunks = [max(1, length) for length in shape]
    while itemsize * math.prod(chunks) > most and max(chunks) > 1:
        longest = chunks.index(max(chunks))
        chunks[longest] = -(-chunks[longest] // 2)
    return tuple(chunks)


def auto_shards(shape: tuple[int, ...], chunks: tuple[int, ...], itemsize: int) -> tuple[int, ...] | None:
    """Chunks put together along the shortest side of a shard, twice as many each time, while bounds and array allow it.

    ``None`` where a shard would hold one chunk only.
    """
    most = min(SHARD_NCHUNKS, SHARD_NBYTES // max(1, itemsize * math.prod(chunks)))
    counts = [max(1, -(-length // chunk)) for length, chunk in zip(shape, chunks, strict=True)]
    factors = [1] * len(shape)
    growing = set(range(len(shape)))
    while growing:
        axis = min(growing, key=lambda each: (factors[each] * chunks[each], each))
        grown = factors.copy()
        grown[axis] = min(2 * factors[axis], counts[axis])
        if grown == factors or math.prod(grown) > most:
            growing.remove(axis)
        else:
            factors = grown
    return tuple(factor * chunk for factor, chunk in zip(factors, chunks, strict=True)) if math.prod(factors) > 1 else None
