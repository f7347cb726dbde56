"""The ``sharding_indexed`` codec (Zarr v3 sharding-indexed 1.0): many inner chunks in one value, and an index of where they lie.

``Sharding`` turns a whole shard into bytes and back, as any array-to-bytes codec does. ``ShardLayout`` is the address book of
a shard: it answers where the bytes of an inner chunk are, so that they can be fetched alone. Neither does I/O.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

import numpy as np

from azarr.codecs.base import ArrayToBytesCodec, Codec, check_keys
from azarr.codecs.bytes import Bytes
from azarr.codecs.crc32c import Crc32c
from azarr.codecs.fill import is_fill
from azarr.codecs.pipeline import CodecPipeline, bind_codecs
from azarr.errors import CodecError, MetadataError
from azarr.types import Array, Buffer, ByteRange, ChunkSpec, Coords, Span, Suffix

EMPTY = 2**64 - 1
"""Offset and size of an inner chunk that is not stored and reads as fill value."""


@dataclass(frozen=True, slots=True)
class Sharding(ArrayToBytesCodec):
    """Inner chunks of ``chunk_shape``, each encoded by ``codecs``, and their index at the ``"end"`` or the ``"start"``."""

    name: ClassVar[str] = "sharding_indexed"
    nested: ClassVar[frozenset[str]] = frozenset({"codecs", "index_codecs"})
    chunk_shape: tuple[int, ...]
    codecs: tuple[Codec, ...]
    index_codecs: tuple[Codec, ...] = (Bytes(), Crc32c())
    index_location: Literal["start", "end"] = "end"

    @property
    def releases_gil(self) -> bool:
        return all(codec.releases_gil for codec in self.codecs)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        required = frozenset({"chunk_shape", "codecs", "index_codecs"})
        check_keys(cls.name, configuration, required | {"index_location"}, required)
        chunk_shape = configuration["chunk_shape"]
        if not isinstance(chunk_shape, list | tuple) or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in chunk_shape):
            raise MetadataError(f"codec 'sharding_indexed': chunk_shape must be a list of whole numbers from 1, not {chunk_shape!r:.100}")
        location = configuration.get("index_location", "end")
        if location not in ("start", "end"):  # a tuple, as documents may hold what cannot be hashed
            raise MetadataError(f"codec 'sharding_indexed': index_location must be 'start' or 'end', not {location!r:.100}")
        return cls(tuple(chunk_shape), configuration["codecs"], configuration["index_codecs"], location)

    def configuration(self) -> dict[str, Any]:
        return {
            "chunk_shape": list(self.chunk_shape),
            "codecs": self.codecs,
            "index_codecs": self.index_codecs,
            "index_location": self.index_location,
        }

    def bind(self, spec: ChunkSpec) -> Self:
        if len(self.chunk_shape) != len(spec.shape) or any(
            outer % inner for outer, inner in zip(spec.shape, self.chunk_shape, strict=True)
        ):
            raise MetadataError(
                f"codec 'sharding_indexed': inner chunks {self.chunk_shape!s:.100} do not divide shards {spec.shape} evenly"
            )
        codecs = bind_codecs(self.codecs, self._inner_spec(spec))
        bound = replace(self, codecs=codecs, index_codecs=bind_codecs(self.index_codecs, self._index_spec(spec)))
        if CodecPipeline(bound.index_codecs, self._index_spec(spec)).encoded_size is None:
            raise MetadataError("codec 'sharding_indexed': index_codecs must give the index a fixed size, so they cannot compress it")
        return bound

    def _grid(self, spec: ChunkSpec) -> tuple[int, ...]:
        return tuple(outer // inner for outer, inner in zip(spec.shape, self.chunk_shape, strict=True))

    def _index_spec(self, spec: ChunkSpec) -> ChunkSpec:
        return ChunkSpec((*self._grid(spec), 2), np.dtype(np.uint64), np.uint64(EMPTY))

    def _inner_spec(self, spec: ChunkSpec) -> ChunkSpec:
        """What inner chunks are like. They share what a chunk may decode to for nothing, as all of them may lie at the same place."""
        return replace(spec, shape=self.chunk_shape, free=spec.free // max(1, math.prod(self._grid(spec))))

    def layout(self, spec: ChunkSpec) -> ShardLayout:
        """The address book of shards like ``spec``."""
        return ShardLayout(
            CodecPipeline(self.codecs, self._inner_spec(spec)),
            CodecPipeline(self.index_codecs, self._index_spec(spec)),
            self.index_location,
        )

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        layout = self.layout(spec)
        shard = NewShard(layout, chunk.nbytes)
        for number, coords in enumerate(layout.coords()):
            if not is_fill(part := chunk[layout.region(coords) or ...], spec.fill):
                shard.put(number, layout.pipeline.encode(part))
        return shard.encoded()

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        layout = self.layout(spec)
        spans, chunk = layout.index_of(data).spans(range(layout.nchunks), len(data)), np.empty(spec.shape, spec.dtype)
        view = memoryview(data)
        for where, coords in zip(spans, layout.coords(), strict=True):
            part = chunk[layout.region(coords) or ...]
            if where is None:
                part[...] = spec.fill
            else:
                layout.pipeline.decode_into(view[where.start : where.stop], part)
        return chunk

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        del spec
        return None

    def max_encoded_size(self, spec: ChunkSpec) -> int:
        layout = self.layout(spec)
        if spec.variable:
            return spec.limit + layout.index_nbytes
        # twice, as shards may have gaps; their writers are free in where they put inner chunks
        return 2 * layout.nchunks * layout.pipeline.max_encoded_size + layout.index_nbytes


class ShardIndex:
    """Where the inner chunks of one shard are, by their number in C order."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Array) -> None:
        self._entries = entries

    @property
    def nbytes(self) -> int:
        """What it takes in memory."""
        return self._entries.nbytes

    def spans(self, numbers: Sequence[int], shard_nbytes: int = 2**63 - 1) -> list[Span | None]:
        """Where inner chunks are, ``None`` for those that are not stored; ``CodecError`` where one cannot be in the shard."""
        entries = self._entries[numbers].tolist()
        return [checked_span(number, start, nbytes, shard_nbytes) for number, (start, nbytes) in zip(numbers, entries, strict=True)]

    def span(self, number: int) -> Span | None:
        """As ``spans``, of one inner chunk."""
        start, nbytes = self._entries[number].tolist()
        return checked_span(number, start, nbytes, 2**63 - 1)


def checked_span(number: int, start: int, nbytes: int, shard_nbytes: int) -> Span | None:
    """Where inner chunk ``number`` is, of which the index of a shard of at most ``shard_nbytes`` says ``start`` and ``nbytes``."""
    if start == nbytes == EMPTY:
        return None
    if EMPTY in {start, nbytes} or start + nbytes > shard_nbytes:
        raise CodecError(
            f"the shard's index puts inner chunk {number} at {start}+{nbytes}, outside the shard; the shard is damaged", codec=Sharding.name
        )
    return Span(start, start + nbytes)


class ShardLayout:
    """The address book of shards of one shape: their inner chunks, and where the index is. Picklable."""

    __slots__ = ("_index_pipeline", "grid_shape", "index_location", "index_nbytes", "nchunks", "pipeline", "shape")

    def __init__(self, pipeline: CodecPipeline, index_pipeline: CodecPipeline, index_location: Literal["start", "end"]) -> None:
        self.pipeline = pipeline
        """The pipeline of the inner chunks."""
        self._index_pipeline = index_pipeline
        self.index_location = index_location
        self.grid_shape = index_pipeline.spec.shape[:-1]
        """The number of inner chunks along each dimension."""
        self.nchunks = math.prod(self.grid_shape)
        self.shape = tuple(count * length for count, length in zip(self.grid_shape, pipeline.spec.shape, strict=True))
        """The shape of a decoded shard."""
        self.index_nbytes = index_pipeline.encoded_size or 0

    def with_pipeline(self, pipeline: CodecPipeline) -> ShardLayout:
        """The same with another pipeline for inner chunks of the same shape."""
        return ShardLayout(pipeline, self._index_pipeline, self.index_location)

    @property
    def index_request(self) -> ByteRange | Suffix:
        """The part of a shard that is its index."""
        return Suffix(self.index_nbytes) if self.index_location == "end" else ByteRange(0, self.index_nbytes)

    def coords(self) -> Iterator[Coords]:
        """The inner chunks in C order, which is the order of the index."""
        return itertools.product(*map(range, self.grid_shape))

    def number(self, coords: Coords) -> int:
        """The place of the inner chunk at ``coords`` (counted within the shard, or within the array) in the index."""
        number = 0
        for index, count in zip(coords, self.grid_shape, strict=True):
            number = number * count + index % count
        return number

    def region(self, coords: Coords) -> tuple[slice, ...]:
        """The part of the shard that the inner chunk at ``coords`` holds."""
        shape = self.pipeline.spec.shape
        return tuple(slice(index * length, (index + 1) * length) for index, length in zip(coords, shape, strict=True))

    def decode_index(self, data: Buffer) -> ShardIndex:
        """The index from its bytes; ``CodecError`` where they are damaged."""
        if len(data) != self.index_nbytes:
            raise CodecError(f"the shard has {len(data)} bytes for an index of {self.index_nbytes}; it was cut off", codec=Sharding.name)
        return ShardIndex(self._index_pipeline.decode(data).reshape(-1, 2))

    def index_of(self, shard: Buffer) -> ShardIndex:
        """The index of a whole shard."""
        view = memoryview(shard)
        start = max(0, len(view) - self.index_nbytes) if self.index_location == "end" else 0
        return self.decode_index(view[start : start + self.index_nbytes])

    def split(self, shard: Buffer) -> list[Buffer | None]:
        """The encoded inner chunks of a whole shard in C order, ``None`` where one is not stored."""
        index, view = self.index_of(shard), memoryview(shard)
        spans = index.spans(range(self.nchunks), len(view))
        return [None if where is None else view[where.start : where.stop] for where in spans]

    def encode_index(self, entries: Array) -> Buffer:
        """The bytes of an index of pairs: where each inner chunk begins, and how many bytes it has."""
        return self._index_pipeline.encode(entries.reshape(self._index_pipeline.spec.shape))


class NewShard:
    """A shard that is put together, one encoded inner chunk after the other; what is never put in is not stored.

    There will hardly be more than ``likely`` bytes of inner chunks, and an eighth, by which codecs may make longer what they cannot make
    shorter. So much memory is asked for at once: what is not used of it costs nothing, while memory that grows bit by bit is copied time
    and again.
    """

    __slots__ = ("_entries", "_layout", "_memory", "_nbytes", "empty")

    def __init__(self, layout: ShardLayout, likely: int) -> None:
        self._layout = layout
        self._entries = np.full((layout.nchunks, 2), EMPTY, np.uint64)
        self._memory = np.empty(likely + likely // 8 + 2 * layout.index_nbytes, np.uint8).data
        self._nbytes = layout.index_nbytes if layout.index_location == "start" else 0
        self.empty = True
        """Whether nothing has been put in yet."""

    def put(self, number: int, part: Buffer) -> None:
        """Copy inner chunk ``number`` behind what there is."""
        self._entries[number] = self._nbytes, len(part)
        self._append(part)
        self.empty = False

    def encoded(self) -> memoryview:
        """The whole shard."""
        index = self._layout.encode_index(self._entries)
        if self._layout.index_location == "end":
            self._append(index)
        else:
            self._memory[: len(index)] = index
        return self._memory[: self._nbytes]

    def _append(self, part: Buffer) -> None:
        start, self._nbytes = self._nbytes, self._nbytes + len(part)
        if self._nbytes > len(self._memory):
            longer = np.empty(2 * self._nbytes, np.uint8).data
            longer[:start] = self._memory[:start]
            self._memory = longer
        self._memory[start : self._nbytes] = part
