"""The events of telemetry; ``telemetry.py`` has a table of them. They are imported once somebody listens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from types import MappingProxyType
from typing import ClassVar, Final, Literal, TypeAlias

from azarr.types import ByteRange, Coords, Suffix

Phase: TypeAlias = Literal["start", "stop", "exception", "chunk", "hit", "miss", "evict"]

CANCELLED = "asyncio.exceptions.CancelledError"

Subject: TypeAlias = Literal["read", "write", "stream", "chunk.read", "chunk.write", "codec", "store.request", "store.retry", "cache"]


@dataclass(frozen=True, slots=True)
class Event:
    """What all events have.

    ``phase`` is the last part of the name. ``span`` is the same number in the start of a piece of work and in its end, and no other's.
    ``seconds`` is the time since the start, 0 in the start itself. ``path`` is that of the array or group, ``None`` where there is none or
    it is not known; ``store`` the type of the store. ``error`` is the type of the error in an ``exception``, by its full name: never its
    message, which may have secrets, nor the error itself, which would keep what was being worked on.
    """

    subject: ClassVar[str] = ""
    """The name without the phase."""
    phases: ClassVar[tuple[Phase, ...]] = ("start", "stop", "exception")

    phase: Phase
    span: int
    _: KW_ONLY
    seconds: float = 0.0
    path: str | None = None
    store: str = ""
    error: str | None = None

    @property
    def name(self) -> str:
        """``subject.phase``, such as ``chunk.read.stop``."""
        return f"{self.subject}.{self.phase}"

    @property
    def cancelled(self) -> bool:
        """Whether this is the end of something that was cancelled, rather than failed."""
        return self.error == CANCELLED


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadEvent(Event):
    """A selection is read into one array, of ``nbytes`` decoded bytes."""

    subject: ClassVar[str] = "read"
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteEvent(Event):
    """A selection is written, of ``nbytes`` decoded bytes."""

    subject: ClassVar[str] = "write"
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEvent(Event):
    """A stream begins, hands out a chunk (``stream.chunk``), ends, or fails.

    So far it has handed out ``chunks`` chunks with ``nbytes`` bytes of data. ``in_flight`` chunks are being fetched or decoded,
    ``buffered_nbytes`` bytes of decoded ones wait for being handed out; both are 0 at the end. ``coords`` is the chunk that is handed out.
    A stream that is closed early stops; it is no exception.
    """

    subject: ClassVar[str] = "stream"
    phases: ClassVar[tuple[Phase, ...]] = ("start", "chunk", "stop", "exception")
    chunks: int = 0
    nbytes: int = 0
    in_flight: int = 0
    buffered_nbytes: int = 0
    coords: Coords | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkReadEvent(Event):
    """A chunk, of ``nbytes`` bytes when decoded, is fetched, decoded and put where it belongs.

    Chunks that are fetched together share the time that they take equally. ``coords`` is the place in the chunk grid.
    """

    subject: ClassVar[str] = "chunk.read"
    coords: Coords
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkWriteEvent(Event):
    """A chunk, or a shard with its chunks, of ``nbytes`` bytes when decoded, is encoded and stored; what is there is read first if need be.

    ``coords`` is the place in the grid of chunks, or of shards.
    """

    subject: ClassVar[str] = "chunk.write"
    coords: Coords
    nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecEvent(Event):
    """``chunks`` chunks are decoded or encoded, as ``operation`` says; decoded they have ``nbytes`` bytes, encoded ``encoded_nbytes``."""

    subject: ClassVar[str] = "codec"
    operation: Literal["decode", "encode"]
    chunks: int = 1
    nbytes: int = 0
    encoded_nbytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreRequestEvent(Event):
    """The store does ``operation``, by the name of the method (``get``, ``set``, ``erase``, ``list_dir``, …), on ``key``, or on a prefix.

    ``byte_range`` is the part of the value that is asked for, ``None`` for all of it. ``nbytes`` bytes have been received or sent;
    ``missing`` says that there was nothing at the key.
    """

    subject: ClassVar[str] = "store.request"
    operation: str
    key: str
    byte_range: ByteRange | Suffix | None = None
    nbytes: int = 0
    missing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryEvent(Event):
    """A request is made again (``start``), with success in the end (``stop``), or without (``exception``).

    ``operation`` and ``key`` are those of the request. There is a start for every attempt after the first: ``attempt`` is its number,
    from 2 on, ``delay`` the seconds until it is made, and ``error`` what the one before failed with. In the end, ``attempt`` is the
    number of the last one.
    """

    subject: ClassVar[str] = "store.retry"
    operation: str
    key: str
    attempt: int
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEvent(Event):
    """The chunk at ``coords``, ``nbytes`` bytes, was in the cache (``hit``), was not (``miss``), or had to make room (``evict``)."""

    subject: ClassVar[str] = "cache"
    phases: ClassVar[tuple[Phase, ...]] = ("hit", "miss", "evict")
    coords: Coords
    nbytes: int = 0


KINDS: Final[Mapping[str, type[Event]]] = MappingProxyType(
    {
        kind.subject: kind
        for kind in (
            ReadEvent,
            WriteEvent,
            StreamEvent,
            ChunkReadEvent,
            ChunkWriteEvent,
            CodecEvent,
            StoreRequestEvent,
            RetryEvent,
            CacheEvent,
        )
    }
)
"""The events by their subjects."""

NAMES: Final = frozenset(f"{kind.subject}.{phase}" for kind in KINDS.values() for phase in kind.phases)
