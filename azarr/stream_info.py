"""What streams tell besides their items: of every chunk or slice, and how far they are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChunkInfo:
    """What is known of a streamed chunk besides its data.

    ``key`` is where the store has it (a shard's key for the chunks inside), ``bounds`` the part of the array that it holds, cut at the
    array's edge, ``shape`` the shape of that, and ``stored_shape`` the shape of the chunk as it is stored, which may hang over the edge.
    ``encoded_nbytes`` is ``None`` where the chunk is not stored and reads as fill value; ``decoded_nbytes`` is the size of the whole
    chunk. ``seconds`` is the time spent on fetching and decoding it; chunks that are fetched together share that of fetching equally.
    """

    key: str
    bounds: tuple[slice, ...]
    shape: tuple[int, ...]
    stored_shape: tuple[int, ...]
    encoded_nbytes: int | None
    decoded_nbytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class SliceInfo:
    """What is known of a streamed slice besides its data.

    ``bounds`` are the part of the array that it lies in, from its first to its last index along each axis of the array; ``shape`` is that
    of its data. It is from so many ``chunks``: ``encoded_nbytes`` is the size of those that are stored, ``None`` where none is,
    ``decoded_nbytes`` that of all, whole, and ``seconds`` the time spent on fetching and decoding them. A chunk that several slices cross
    counts for each of them.
    """

    bounds: tuple[slice, ...]
    shape: tuple[int, ...]
    chunks: int
    encoded_nbytes: int | None
    decoded_nbytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class StreamStats:
    """How far a stream is.

    ``done`` chunks have been handed out, of ``total`` that it has to give as far as is known: chunks that turn out to be filtered out,
    not stored and not wanted, or failed do not count any more. ``filtered``, ``missing`` and ``failed`` are those; ``in_flight`` are being
    fetched or decoded, ``buffered`` are ready with ``buffered_nbytes`` bytes of data, ``nbytes`` have been handed out, in ``seconds`` since
    the first chunk was asked for. ``retries`` requests have been made again, where the store counts them.
    """

    done: int
    total: int
    filtered: int
    missing: int
    failed: int
    in_flight: int
    buffered: int
    buffered_nbytes: int
    nbytes: int
    seconds: float
    retries: int = 0
