"""Encoded chunks out of what was read of a shard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from azarr.codecs import scratch
from azarr.codecs.base import wrong_size
from azarr.errors import CodecError
from azarr.projections import AnyRun
from azarr.types import Buffer, Coords, Span

Ranges: TypeAlias = list[tuple[int, Span]]
"""Where chunks are in a shard, by their numbers among those that are wanted."""


class Placed(NamedTuple):
    """An encoded chunk: the bytes of ``data`` from ``start`` up to, not including, ``stop``, if it has so many."""

    data: memoryview
    start: int
    stop: int


class Gathered:
    """What was read of one shard at once: ``chunks`` that are stored, of ``nbytes`` bytes each where nothing compresses them."""

    def __init__(self, chunks: Mapping[Coords, Placed], nbytes: int) -> None:
        self._chunks, self._nbytes = chunks, nbytes

    def fetch_blocking(self, run: AnyRun) -> Iterator[tuple[int, Buffer | None]]:
        for number, coords in enumerate(run.chunk_coords()):
            chunk = self._chunks.get(coords)
            yield number, None if chunk is None else part_of(chunk, coords)

    def copy_blocking(self, run: AnyRun, memory: memoryview) -> list[int]:
        return copied(self.fetch_blocking(run), run, self._nbytes, memory)

    def fetch_joined(self, run: AnyRun) -> tuple[memoryview, list[int | None]] | None:
        chunks = list(map(self._chunks.get, run.chunk_coords()))
        stored = [chunk for chunk in chunks if chunk is not None]
        if not stored or any(one.data is not other.data or one.stop != other.start for one, other in pairwise(stored)):
            return None
        data, start, stop = stored[0].data, stored[0].start, stored[-1].stop
        if stop > len(data):
            return None
        return data[start:stop], [None if chunk is None else chunk.stop - chunk.start for chunk in chunks]


def reserve_part(total: int, start: int, nbytes: int) -> memoryview:
    """``nbytes`` bytes from ``start`` on of scratch memory that has ``total``: parts asked for one after the other are good together."""
    return scratch.encoded.reserve(total)[start : start + nbytes]


def copied(fetched: Iterator[tuple[int, Buffer | None]], run: AnyRun, nbytes: int, memory: memoryview) -> list[int]:
    """Copy chunks of ``nbytes`` that nothing compresses side by side into ``memory``, and answer which of them are not stored."""
    missing = []
    for number, data in fetched:
        if data is None:
            missing.append(number)
        elif len(data) != nbytes:
            error = wrong_size("bytes", len(data), nbytes)
            error.coords = run.chunk_coords()[number]
            raise error
        else:
            memory[number * nbytes : (number + 1) * nbytes] = data
    return missing


def cut(data: Buffer | None, merged: Ranges, start: int, coords: Sequence[Coords]) -> Iterator[tuple[int, Buffer]]:
    """The chunks that ``data``, the bytes of a shard from ``start`` on, holds."""
    view = memoryview(data if data is not None else b"")
    for number, where in merged:
        yield number, part_of(Placed(view, where.start - start, where.stop - start), coords[number])


def part_of(chunk: Placed, coords: Coords) -> memoryview:
    """The bytes of the chunk at ``coords``."""
    data, start, stop = chunk
    if stop > len(data):
        raise CodecError(
            "the shard ends before the place where its index puts this chunk; the shard was cut off or replaced meanwhile",
            codec="sharding_indexed",
            coords=coords,
        )
    return data[start:stop]
