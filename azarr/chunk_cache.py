"""A cache of decoded chunks that engines share; ``cache_contents.py`` says how it is kept right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from azarr.chunk_sources import ChunkSource
from azarr.deferred import DeferredModule
from azarr.stores.base import identity_of

if TYPE_CHECKING:
    from azarr import cache_contents
else:  # what engines without a cache do without
    cache_contents = DeferredModule("azarr.cache_contents")


@dataclass(frozen=True, slots=True)
class ChunkCacheStats:
    """What a cache has done so far, and what is in it.

    ``hits`` chunks were there when they were asked for, or were being loaded by somebody else; ``misses`` had to be loaded. ``evictions``
    had to make room, which those that were invalidated did not. ``chunks`` are in it now, and take ``nbytes`` bytes.
    """

    hits: int
    misses: int
    evictions: int
    chunks: int
    nbytes: int


class Node(Protocol):
    """An array or a group."""

    @property
    def store(self) -> Any:
        """Where it is."""

    @property
    def path(self) -> str:
        """Its path there."""


class ChunkCache:
    """Keeps decoded chunks, at most ``nbytes`` bytes of them: those that were asked for last. Hand it to an ``Engine``, or to several.

    With ``Engine(cache=ChunkCache(2**30))`` reads and streams look here first. A part of a chunk is then read by decoding all of it once;
    who asks for a chunk that somebody else is loading waits for that. Results are copies: they may be changed.

    A chunk counts with 512 bytes besides its data, and one that is larger than the cache is not kept. Chunks that are not stored are not
    kept either: they are asked for again, as they may come to be stored. Nor are chunks of objects that could be changed in a result.

    What this process writes through arrays and groups, with whatever engine, is never stale here. What other processes write, and what is
    written to a store directly, is not noticed: use the cache for data that does not change, or ``invalidate`` what has changed.

    For any number of event loops and threads. The cache keeps the stores alive whose chunks it has.
    """

    def __init__(self, nbytes: int) -> None:
        if nbytes < 1:
            raise ValueError(f"a cache needs room for at least 1 byte, not {nbytes}")
        self._contents = cache_contents.Contents(nbytes)

    def __repr__(self) -> str:
        stats = self.stats
        return f"<ChunkCache {stats.chunks} {'chunk' if stats.chunks == 1 else 'chunks'}, {stats.nbytes} of {self.nbytes} bytes>"

    @property
    def nbytes(self) -> int:
        """How many bytes it may have."""
        return self._contents.limit

    @property
    def stats(self) -> ChunkCacheStats:
        """What it has done so far, and what is in it."""
        return ChunkCacheStats(*self._contents.counts())

    def clear(self) -> None:
        """Forget all chunks, and keep none of those that are being loaded; the counts stay."""
        for shelf in self._contents.all_shelves():
            shelf.changed_below("")

    def invalidate(self, node: Node) -> None:
        """Forget the chunks of an array, or of all arrays below a group, whatever engine they were opened with."""
        shelf = self._contents.shelf(identity_of(node.store))
        if shelf is not None:
            shelf.changed_below(f"{node.path}/" if node.path else "")

    def chunks_of(self, source: ChunkSource) -> cache_contents.CachedChunks:
        """What there is of the array whose chunks ``source`` has, for the time of one operation."""
        return cache_contents.CachedChunks(self._contents, self._contents.array_of(source), source)
