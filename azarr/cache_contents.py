"""What is in a cache of chunks, and what is being loaded into it; for any thread.

Chunks are known by the identity of the data, as locks are, by their array and by coordinates. Whoever asks first for one that is not there
loads it; others wait for that. Writers of this process tell the locks of the data what they have changed, and the cache hears of it there:
a chunk goes when the value that it came from has been written, and what is being loaded from that value is not kept. So a read that began
before a write cannot put the old chunk back after it.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar

import numpy as np

from azarr.cached_chunk import CachedChunk
from azarr.chunk_sources import ChunkSource
from azarr.locks import KeyedLocks, locks_of
from azarr.stores.base import identity_of
from azarr.types import Array, Coords

ENTRY_NBYTES = 512
"""What a chunk takes in the cache besides its data."""

UNCHANGEABLE = (str, bytes, int, float, bool, type(None))
"""Objects that a result may share with the cache."""

T = TypeVar("T")


class Traits(NamedTuple):
    """What chunks are made of values by: where any of it differs, another array has taken the place of the one that was there."""

    codecs: tuple[Any, ...]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill: bytes | str
    unit_shape: tuple[int, ...]
    chunks: tuple[Any, ...]
    keys: Any


def traits_of(source: ChunkSource) -> Traits:
    """The traits of the array whose chunks ``source`` has."""
    spec = source.pipeline.spec
    fill = repr(spec.fill_value) if spec.variable else spec.fill.tobytes()  # NaN would not equal itself
    return Traits(source.pipeline.codecs, spec.shape, spec.dtype, fill, source.unit_shape, source.chunks, source.keys)


Name: TypeAlias = tuple[str, tuple[str, ...]]
"""What an array is known by on its shelf: the prefix of its keys, and the field of its elements that is read; ``()`` is all of them."""


class CachedArray:
    """An array, or a field of one, that a cache has chunks of, or that is being read through it."""

    __slots__ = ("__weakref__", "name", "shelf", "traits")

    def __init__(self, shelf: Shelf, name: Name, traits: Traits) -> None:
        self.shelf, self.name, self.traits = shelf, name, traits


Place: TypeAlias = tuple[CachedArray, Coords]


class Entry(NamedTuple):
    """A chunk in a cache, the key of the value that it came from, and what it takes."""

    chunk: CachedChunk
    key: str
    nbytes: int


class Evicted(NamedTuple):
    """A chunk that had to make room."""

    path: str
    coords: Coords
    nbytes: int


class Contents:
    """What a cache has and is loading, under one mutex; nothing that could come back here is called under it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.mutex = threading.RLock()  # a load is abandoned in the midst of anything, when its task is collected as garbage
        self._shelves: weakref.WeakValueDictionary[Hashable, Shelf] = weakref.WeakValueDictionary()
        self._entries: OrderedDict[Place, Entry] = OrderedDict()
        self._loads: dict[Place, Load] = {}
        self._nbytes = self._hits = self._misses = self._evictions = 0

    def counts(self) -> tuple[int, int, int, int, int]:
        """Hits, misses, evictions, chunks and bytes, as of now."""
        with self.mutex:
            return self._hits, self._misses, self._evictions, len(self._entries), self._nbytes

    def shelf(self, identity: Hashable) -> Shelf | None:
        """What there is of the data with this identity."""
        with self.mutex:
            return self._shelves.get(identity)

    def all_shelves(self) -> list[Shelf]:
        """What there is, as of now."""
        with self.mutex:
            return list(self._shelves.values())

    def array_of(self, source: ChunkSource) -> CachedArray:
        """The array whose chunks ``source`` has; what there is of another one that was in its place is forgotten."""
        identity, locks, traits = identity_of(source.store), locks_of(source.store), traits_of(source)
        with self.mutex:
            shelf = self._shelves.get(identity)
            if shelf is None:
                shelf = self._shelves[identity] = Shelf(self, source.store, locks)
                locks.watch(shelf)
            name = source.key_prefix, source.pipeline.field
            array = shelf.arrays.get(name)
            if array is None or array.traits != traits:
                if array is not None:
                    self._forget_all(shelf, shelf.keys_of(array))
                array = shelf.arrays[name] = CachedArray(shelf, name, traits)
            return array

    def claim(self, array: CachedArray, places: Sequence[Coords], key_of: Callable[[Coords], str]) -> list[Claim]:
        """For each of ``places`` what there is of it; see ``CachedChunks.claim``."""
        claims: list[Claim] = []
        with self.mutex:
            for coords in places:
                place = (array, coords)
                entry, load = self._entries.get(place), self._loads.get(place)
                if entry is not None:
                    self._entries.move_to_end(place)
                    claims.append(entry.chunk)
                elif load is not None:
                    claims.append(Wait(load))
                else:
                    load = Load(self, place, key_of(coords))
                    if array.shelf.arrays.get(array.name) is array:  # else another array has taken its place
                        self._loads[place] = load
                        array.shelf.loading.setdefault(load.key, set()).add(load)
                    else:
                        load.stale = True
                    claims.append(load)
            own = sum(isinstance(claim, Load) for claim in claims)
            self._misses += own
            self._hits += len(claims) - own
        return claims

    def end(self, load: Load, chunk: CachedChunk | None, nbytes: int | None) -> list[Evicted]:
        """Take ``load`` out and put its chunk in, unless it is stale or has no place; for whoever holds the mutex."""
        evicted: list[Evicted] = []
        if load.stale:
            return evicted
        shelf = load.place[0].shelf
        del self._loads[load.place]
        discard(shelf.loading, load.key, load)
        if chunk is None or nbytes is None or nbytes > self.limit:
            return evicted
        self._entries[load.place] = Entry(chunk, load.key, nbytes)
        shelf.cached.setdefault(load.key, set()).add(load.place)
        self._nbytes += nbytes
        while self._nbytes > self.limit:
            evicted.append(self._evict())
        return evicted

    def _evict(self) -> Evicted:
        place, entry = self._entries.popitem(last=False)
        array, coords = place
        discard(array.shelf.cached, entry.key, place)
        self._nbytes -= entry.nbytes
        self._evictions += 1
        return Evicted(array.name[0].rstrip("/"), coords, entry.nbytes)

    def forget(self, shelf: Shelf, wanted: Callable[[str], bool]) -> None:
        """Forget what came, or is about to come, from values whose keys are ``wanted``."""
        with self.mutex:
            self._forget_all(shelf, {key for key in {*shelf.cached, *shelf.loading} if wanted(key)})

    def forget_key(self, shelf: Shelf, key: str) -> None:
        """Forget what came, or is about to come, from the value at ``key``."""
        with self.mutex:
            self._forget_all(shelf, (key,))

    def _forget_all(self, shelf: Shelf, keys: Iterable[str]) -> None:
        for key in keys:
            for place in shelf.cached.pop(key, ()):
                self._nbytes -= self._entries.pop(place).nbytes
            for load in shelf.loading.pop(key, ()):
                load.stale = True
                del self._loads[load.place]


class Shelf:
    """What a cache has of the data behind one store; the locks of the data tell it what has changed.

    It keeps the store alive, and the locks: no other data can then come to have the same identity, and no writer can miss it.
    """

    def __init__(self, contents: Contents, store: object, locks: KeyedLocks) -> None:
        self._contents = weakref.ref(contents)
        self._kept = store, locks
        self.arrays: weakref.WeakValueDictionary[Name, CachedArray] = weakref.WeakValueDictionary()
        self.cached: dict[str, set[Place]] = {}
        """The chunks that came from each value."""
        self.loading: dict[str, set[Load]] = {}
        """The loads that began after each value was written last, and go on."""

    def keys_of(self, array: CachedArray) -> set[str]:
        """The keys of the values that something of ``array`` came from, or is about to."""
        cached = {key for key, places in self.cached.items() for each, _ in places if each is array}
        return cached | {key for key, loads in self.loading.items() for load in loads if load.place[0] is array}

    def changed(self, key: str) -> None:
        """The value at ``key`` has been written, or may have been."""
        contents = self._contents()
        if contents is not None:
            contents.forget_key(self, key)

    def changed_below(self, prefix: str) -> None:
        """Values whose keys begin with ``prefix`` have been written or erased, or may have been."""
        contents = self._contents()
        if contents is not None:
            contents.forget(self, lambda key: key.startswith(prefix))


State: TypeAlias = Literal["running", "done", "failed", "abandoned"]


class Load:
    """A chunk that is being loaded by whoever asked first, while others wait.

    Whoever asked first says in any case what became of it: it is ``finish``-ed, ``fail``-ed or, where that never comes to be known,
    ``abandon``-ed; only the first of these counts. For any thread; waiting is for tasks.
    """

    __slots__ = ("_contents", "_waiters", "chunk", "key", "place", "stale", "state")

    def __init__(self, contents: Contents, place: Place, key: str) -> None:
        self._contents = contents
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self.place, self.key = place, key
        self.chunk: CachedChunk | None = None
        """What was loaded; ``None`` where the chunk is not stored."""
        self.state: State = "running"
        self.stale = False
        """Whether the value has been written since this began; what is loaded is then not kept, and nobody joins."""

    @property
    def coords(self) -> Coords:
        """Where the chunk lies."""
        return self.place[1]

    def finish(self, chunk: CachedChunk | None) -> list[Evicted]:
        """The chunk is there; those that had to make room for it."""
        return self._end("done", chunk)

    def fail(self) -> None:
        """The chunk could not be had. The error is for whoever asked first; the others ask again, each alone."""
        self._end("failed", None)

    def abandon(self) -> None:
        """The load was given up; one of those who wait begins another."""
        self._end("abandoned", None)

    def _end(self, state: State, chunk: CachedChunk | None) -> list[Evicted]:
        nbytes = None if chunk is None else kept_nbytes(chunk.data)
        if chunk is not None and nbytes is None:
            state, chunk = "failed", None  # nobody else may have it
        with self._contents.mutex:
            if self.state != "running":
                return []
            self.state, self.chunk = state, chunk
            evicted = self._contents.end(self, chunk, nbytes)
            waiters, self._waiters = self._waiters, []
        for loop, future in waiters:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits there any more
                loop.call_soon_threadsafe(wake, future)
        return evicted

    async def wait(self) -> State:
        """What became of it; waits until that is known. Who is cancelled while waiting disturbs nobody."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._contents.mutex:
            if self.state != "running":
                return self.state
            waiter = loop, future
            self._waiters.append(waiter)
        try:
            await future
        finally:
            with self._contents.mutex:
                if waiter in self._waiters:
                    self._waiters.remove(waiter)
        return self.state


class Wait(NamedTuple):
    """A load that somebody else does."""

    load: Load


Claim: TypeAlias = CachedChunk | Load | Wait


class CachedChunks(NamedTuple):
    """What a cache has of the array whose chunks ``source`` has; for one operation, and for any thread."""

    contents: Contents
    array: CachedArray
    source: ChunkSource

    def claim(self, places: Sequence[Coords]) -> list[Claim]:
        """For each of ``places`` its chunk, a ``Load`` that the caller has to do and to end, or a ``Wait`` for somebody else's."""
        return self.contents.claim(self.array, places, self._key)

    def alone(self, coords: Coords) -> Load:
        """A load for the caller to do that nobody joins, and whose chunk is not kept."""
        load = Load(self.contents, (self.array, coords), self._key(coords))
        load.stale = True
        return load

    def _key(self, coords: Coords) -> str:
        unit = (index // count for index, count in zip(coords, self.source.chunks_per_unit, strict=True))
        return self.source.key(tuple(unit))


def wake(future: asyncio.Future[None]) -> None:
    """Let whoever awaits ``future`` go on."""
    if not future.done():
        future.set_result(None)


def discard(sets: dict[str, set[T]], key: str, member: T) -> None:
    """Take ``member`` out of the set at ``key``, and the set out when nothing is left of it."""
    sets[key].discard(member)
    if not sets[key]:
        del sets[key]


def kept_nbytes(data: Array) -> int | None:
    """What it takes to keep ``data``; ``None`` where there are objects in it that could be changed in a result."""
    if not data.dtype.hasobject:
        return ENTRY_NBYTES + data.nbytes
    if data.dtype.names is not None or not all(type(item) in UNCHANGEABLE for item in data.flat):
        return None
    return ENTRY_NBYTES + data.nbytes + sum(map(sys.getsizeof, data.flat))
