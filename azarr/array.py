"""What a user holds of an array: ``AsyncArray`` and ``ArrayView``, to read, write and stream."""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from types import MappingProxyType
from typing import Any, Never

import numpy as np

from azarr import documents
from azarr.chunk_sources import ChunkSource, PlainChunks, ShardedChunks
from azarr.codecs.pipeline import CodecPipeline
from azarr.codecs.sharding import Sharding
from azarr.engine import Engine, default_engine
from azarr.errors import StoreError, WriteError
from azarr.metadata.model import ArrayMetadata
from azarr.reading import read
from azarr.selection import BasicKey, Selection
from azarr.stores.base import ReadableStore, WritableStore
from azarr.stream import ChunkStream, stream_chunks
from azarr.types import JSON, Array
from azarr.writing import conform, write


class ArrayView:
    """A block of an array that has been selected and not yet read: ``await view`` reads it, ``view[...]`` selects from it again.

    Selections are NumPy's basic ones (integers, slices with positive steps, one ellipsis) and compose without any I/O. A view
    belongs to no event loop; each operation runs on the loop it is awaited on.
    """

    __slots__ = ("_array", "_selection")

    def __init__(self, array: AsyncArray, selection: Selection) -> None:
        self._array = array
        self._selection = selection

    def __repr__(self) -> str:
        return f"<ArrayView of {self.array.path or '/'!r} shape={self.shape} dtype={self.dtype}>"

    @property
    def array(self) -> AsyncArray:
        """The array that this is a view of."""
        return self._array

    @property
    def shape(self) -> tuple[int, ...]:
        """The length of each axis that is left."""
        return self._selection.shape

    @property
    def ndim(self) -> int:
        """The number of axes that are left."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return self._selection.size

    @property
    def dtype(self) -> np.dtype[Any]:
        """The data type of the elements, in native byte order."""
        return self.array.metadata.data_type.dtype

    @property
    def nbytes(self) -> int:
        """The decoded size in bytes."""
        return self.size * self.dtype.itemsize

    def __getitem__(self, key: BasicKey) -> ArrayView:
        """A view of a part of this; ``SelectionError`` where there is no such part."""
        return ArrayView(self.array, self._selection.select(key))

    __iter__ = None  # iterating would read element by element, and could not await
    __hash__ = object.__hash__

    def __array__(self, *_: object, **__: object) -> Never:
        raise TypeError("an azarr array is read with await: use 'await array.read()' or 'await array[...]'")

    def __await__(self) -> Generator[Any, None, Array]:
        return self.read().__await__()

    async def read(self, *, out: Array | None = None) -> Array:
        """The elements as a NumPy array of this view's shape, zero-dimensional where integers selected one element.

        ``out`` is filled and returned instead of a new array; it must have the view's shape and data type, and may have any
        strides. Chunks that are not stored read as fill value. Where reading fails or is cancelled, nothing goes on in the
        background, and what ``out`` holds is undefined.

        Raises:
            CodecError: A chunk is damaged; ``coords`` says which.
            StoreError: The store failed; a chunk that could not be fetched is never taken for a missing one.
            WriteError: ``out`` does not fit.

        """
        selection = self._selection
        if out is None:
            target = full = np.empty(selection.full_shape, self.dtype)
            target = full.reshape(selection.shape) if selection.dropped else full
        else:
            if out.shape != selection.shape or out.dtype != self.dtype or not out.flags.writeable:
                raise WriteError(
                    f"out must be writable, of shape {selection.shape} and data type {self.dtype}, not {out.shape} and {out.dtype}"
                )
            target, full = out, np.expand_dims(out, selection.dropped)
        await read(self.array.source, selection, full, self.array.engine)
        return target

    async def write(self, value: object) -> None:
        """Store ``value``, anything NumPy makes an array of, broadcast to this view's shape.

        A chunk (or shard) that is written in part is read, changed and written back under a lock of its own, so that writers in this
        process lose nothing of each other. Chunks that hold nothing but fill value are not stored.

        Raises:
            WriteError: The value's shape or kind of data does not fit, or a whole number is out of range; nothing has been written.
            StoreError: The store failed, or is read-only. Each chunk is then the old or the new one.

        """
        if not isinstance(self.array.store, WritableStore):
            raise StoreError(f"{self.array.store!r} cannot be written to")
        engine, selection = self.array.engine, self._selection
        if isinstance(value, np.ndarray) and value.dtype == self.dtype:
            values = conform(value, self.dtype, selection.shape)
        else:
            values = await engine.call(conform, value, self.dtype, selection.shape)
        await write(self.array.source, selection, np.expand_dims(values, selection.dropped), engine)

    def stream_chunks(self, *, ordered: bool = True, concurrency: int | None = None, memory: int | None = None) -> ChunkStream:
        """The chunks that this view meets, one decoded ``Chunk`` after the other, for ``async for``; nothing is read before.

        Args:
            ordered: In C order of the chunk grid, or as they come in; the latter never waits for a slow chunk.
            concurrency: Chunks in flight at once, from being asked for to being handed out; the engine's, 32, by default.
            memory: Bytes of decoded chunks in flight at once, if that is at least one chunk; the engine's, 256 MiB, by default.

        """
        return stream_chunks(self.array.source, self._selection, self.array.engine, ordered=ordered, concurrency=concurrency, memory=memory)


class AsyncArray(ArrayView):
    """An array in a store: its metadata, and its elements to read, write and stream. Open one with ``azarr.open_array``."""

    __slots__ = ("_engine", "metadata", "path", "source", "store")

    def __init__(self, store: ReadableStore, path: str, metadata: ArrayMetadata, engine: Engine | None = None) -> None:
        # not through ArrayView.__init__: an array that refers to itself would wait for the garbage collector
        self._selection = Selection.whole(metadata.shape)
        self.store = store
        self.path = path
        self.metadata = metadata
        self.source = chunk_source(store, path, metadata)
        self._engine = engine

    def __repr__(self) -> str:
        shards = f" shards={self.shards}" if self.shards else ""
        return f"<AsyncArray {self.path or '/'!r} shape={self.shape} dtype={self.dtype} chunks={self.chunks}{shards} in {self.store!r}>"

    def __reduce__(self) -> tuple[type[AsyncArray], tuple[ReadableStore, str, ArrayMetadata]]:
        return AsyncArray, (self.store, self.path, self.metadata)  # an engine's threads stay in their process

    @property
    def array(self) -> AsyncArray:
        """The array itself."""
        return self

    @property
    def engine(self) -> Engine:
        """The engine this array was opened with, or the running loop's own."""
        return self._engine or default_engine()

    @property
    def chunks(self) -> tuple[int, ...]:
        """The shape of what is read and decoded at once: of the inner chunks where there are shards."""
        return self.source.pipeline.spec.shape

    @property
    def shards(self) -> tuple[int, ...] | None:
        """The shape of what is written and stored at once, where that is more than a chunk."""
        return self.source.unit_shape if isinstance(self.source, ShardedChunks) else None

    @property
    def nchunks(self) -> int:
        """The number of chunks that the array is cut into, stored or not."""
        return math.prod(-(-length // chunk) for length, chunk in zip(self.shape, self.chunks, strict=True))

    @property
    def fill_value(self) -> np.generic:
        """What missing chunks read as."""
        return self.metadata.effective_fill_value

    @property
    def dimension_names(self) -> tuple[str | None, ...] | None:
        """The names of the axes, where they have any."""
        return self.metadata.dimension_names

    @property
    def attrs(self) -> Mapping[str, JSON]:
        """The attributes, for reading; ``update_attributes`` changes them."""
        return MappingProxyType(dict(self.metadata.attributes))

    async def update_attributes(self, attributes: Mapping[str, JSON]) -> None:
        """Add ``attributes`` to the stored ones, replacing those of the same name."""
        self._take(await documents.update_attributes(self.store, self.path, attributes, self.engine.limits, self.metadata))

    async def replace_attributes(self, attributes: Mapping[str, JSON]) -> None:
        """Store ``attributes`` in place of all that are stored."""
        self._take(await documents.replace_attributes(self.store, self.path, attributes, self.engine.limits, self.metadata))

    async def delete_attributes(self, *names: str) -> None:
        """Delete the stored attributes of these names; fine where there are none."""
        self._take(await documents.delete_attributes(self.store, self.path, names, self.engine.limits, self.metadata))

    def _take(self, updated: documents.Metadata) -> None:
        if isinstance(updated, ArrayMetadata):
            self.metadata = updated


def chunk_source(store: ReadableStore, path: str, metadata: ArrayMetadata) -> ChunkSource:
    """Where the chunks of an array are: inside shards that can be read in part, or under keys of their own."""
    prefix = f"{path}/" if path else ""
    keys, spec, codecs = metadata.chunk_key_encoding, metadata.chunk_spec, metadata.codecs
    if len(codecs) == 1 and isinstance(codecs[0], Sharding):
        return ShardedChunks(store, prefix, keys, codecs[0].layout(spec), metadata.shape)
    return PlainChunks(store, prefix, keys, CodecPipeline(codecs, spec), metadata.shape)
