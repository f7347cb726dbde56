"""What a user holds of an array: ``AsyncArray`` and ``ArrayView``, to read, write and stream."""

from __future__ import annotations

import math
from collections.abc import AsyncIterable, Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import reduce
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Never, SupportsIndex, Unpack, cast

import numpy as np
import numpy.typing as npt

from azarr.attributes import delete_attributes, replace_attributes, update_attributes
from azarr.chunk_grids import RectilinearGrid, RegularGrid
from azarr.chunk_lengths import ChunkLengths, count_of
from azarr.chunk_sources import ChunkSource, PlainChunks, UnequalChunks
from azarr.codecs.ignored import understood
from azarr.codecs.pipeline import CodecPipeline
from azarr.data_types import DataType
from azarr.deferred import Deferred, DeferredModule
from azarr.engine import Engine, default_engine
from azarr.errors import SelectionError, StoreError, WriteError
from azarr.importing import ready
from azarr.metadata.model import ArrayMetadata
from azarr.reading import Result, read
from azarr.selection import (
    AnySelection,
    BasicKey,
    Index,
    PointSelection,
    Positions,
    Selection,
    as_planned,
    lies_within,
)
from azarr.stores.base import ReadableStore, WritableStore
from azarr.types import JSON, Array, FillValue, Limits, element_nbytes

if TYPE_CHECKING:
    from azarr import (
        appending,
        array_locks,
        documents,
        extents,
        indexers,
        ingest,
        resizing,
        sharded_chunks,
        slice_plans,
        slices,
        stream,
        streaming,
        writing,
    )
    from azarr.cached_reading import read_cached
    from azarr.codecs import sharding
    from azarr.data_types.struct import field_of
else:  # what opening an array does without
    appending = DeferredModule("azarr.appending")
    array_locks = DeferredModule("azarr.array_locks")
    documents = DeferredModule("azarr.documents")
    extents = DeferredModule("azarr.extents")
    field_of = Deferred("azarr.data_types.struct", "field_of")
    indexers = DeferredModule("azarr.indexers")
    ingest = DeferredModule("azarr.ingest")
    read_cached = Deferred("azarr.cached_reading", "read_cached")
    resizing = DeferredModule("azarr.resizing")
    sharded_chunks = DeferredModule("azarr.sharded_chunks")
    sharding = DeferredModule("azarr.codecs.sharding")
    slice_plans = DeferredModule("azarr.slice_plans")
    slices = DeferredModule("azarr.slices")
    stream = DeferredModule("azarr.stream")
    streaming = DeferredModule("azarr.streaming")
    writing = DeferredModule("azarr.writing")


class ArrayView:
    """A block of an array that has been selected and not yet read: ``await view`` reads it, ``view[...]`` selects from it again.

    Selections are NumPy's basic ones (integers, slices with positive steps, one ellipsis) and compose without any I/O. A view
    belongs to no event loop; each operation runs on the loop it is awaited on.
    """

    __slots__ = ("_array", "_field", "_selected", "_whole")

    def __init__(self, array: AsyncArray, selection: AnySelection, field: tuple[str, ...] = ()) -> None:
        self._array = array
        self._field = field
        self._selected = selection
        self._whole = array.selection

    @property
    def _selection(self) -> AnySelection:
        return self._selected

    def located(self) -> tuple[ChunkSource, AnySelection]:
        """Where the chunks are and what of them is selected; ``SelectionError`` where the array has become too small for it."""
        source, whole = self.array.located()
        if whole is not self._whole and whole.shape != self._whole.shape and not lies_within(self._selected, whole.shape):
            raise SelectionError(f"the array has been resized to {whole.shape}, and this view of it reaches further: select again")
        return source.of_field(self._field) if self._field else source, self._selected

    def __repr__(self) -> str:
        field = "".join(f"[{name!r}]" for name in self._field)
        return f"<ArrayView of {self.array.path or '/'!r}{field} shape={self.shape} dtype={self.dtype}>"

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
        return self._data_type.dtype

    @property
    def _data_type(self) -> DataType:
        return reduce(field_of, self._field, self.array.metadata.data_type)

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields of the elements, where those are structures."""
        return self.dtype.names or ()

    @property
    def nbytes(self) -> int:
        """The decoded size in bytes; an estimate where elements vary in length."""
        return self.size * element_nbytes(self.dtype)

    def __getitem__(self, key: BasicKey | str | tuple[Index | str, ...]) -> ArrayView:
        """A view of a part of this; ``SelectionError`` where there is no such part.

        A name selects a field of the elements, as ``field`` does, alone or besides indices: ``view["x"]``, ``view["x", :10]``.
        """
        if isinstance(key, str):
            return self.field(key)
        if isinstance(key, tuple) and (names := [item for item in key if isinstance(item, str)]):
            if len(names) > 1:
                raise SelectionError(
                    f"one field at a time is selected, not {names}; for a field inside another: view[{names[0]!r}][{names[1]!r}]"
                )
            return self.field(names[0])[tuple(item for item in key if not isinstance(item, str))]
        return self.selected(self._selection.select(cast("BasicKey", key)))

    def field(self, name: str) -> ArrayView:
        """The view of one field of the elements, for reading, writing and streaming it alone; selections may come before and after.

        Chunks are decoded whole all the same. Writing a field keeps what the others hold: each chunk is read, changed and written back.

        Raises:
            SelectionError: There is no such field, or it is an array itself.

        """
        field_of(self._data_type, name)
        return ArrayView(self.array, self._selection, (*self._field, name))

    @property
    def selection(self) -> AnySelection:
        """What of the array this view is."""
        return self._selection

    def selected(self, selection: AnySelection) -> ArrayView:
        """The view of another ``selection`` of the same array, or of the same field of its elements."""
        return ArrayView(self.array, selection, self._field)

    @property
    def oindex(self) -> indexers.OuterIndexer[ArrayView]:
        """To select with lists, arrays and masks along each axis: ``view.oindex[[3, 1], :, mask]``."""
        return indexers.OuterIndexer(self)

    @property
    def vindex(self) -> indexers.PointIndexer[ArrayView]:
        """To select points: ``view.vindex[[0, 1], [5, 2]]``, or ``view.vindex[mask]``."""
        return indexers.PointIndexer(self)

    def sel(self, **keys: SupportsIndex | slice | npt.ArrayLike) -> ArrayView:
        """Select by dimension names: ``array.sel(time=slice(0, 24), x=7)``; arrays and masks as in ``oindex``."""
        names = self.names
        if unknown := [name for name in keys if names.count(name) != 1]:
            raise SelectionError(f"there is no dimension {unknown} that could be selected; the dimensions are {list(names)}")
        return self.oindex[tuple(keys.get(name, slice(None)) if name is not None else slice(None) for name in names)]

    @property
    def names(self) -> tuple[str | None, ...]:
        """The names of the axes that are left; ``None`` for those without."""
        if isinstance(self._selection, PointSelection):
            return (None,) * self.ndim
        names = self.array.dimension_names or (None,) * len(self._selection.axes)
        return tuple(name for name, axis in zip(names, self._selection.axes, strict=True) if not axis.dropped)

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
        source, selection = self.located()
        if out is not None:
            check_out(out, selection.shape, self.dtype)
        engine = self.array.engine
        result = Result(selection, self.dtype, engine.results, out)
        if engine.cache is None:
            await read(source, selection.forward(), result, engine)
        else:
            await read_cached(source, selection.forward(), result.room(), engine, engine.cache)
        return result.filled()

    async def write(self, value: object) -> None:
        """Store ``value``, anything NumPy makes an array of, broadcast to this view's shape.

        A chunk (or shard) that is written in part is read, changed and written back under a lock of its own, so that writers in this
        process lose nothing of each other. Chunks that hold nothing but fill value are not stored.

        Raises:
            WriteError: The value's shape or kind of data does not fit, or a whole number is out of range; nothing has been written.
            StoreError: The store failed, or is read-only. Each chunk is then the old or the new one.

        """
        self._expect_writable()
        await ready(writing)
        engine, (source, selection) = self.array.engine, self.located()
        data_type = self._data_type
        if isinstance(value, np.ndarray) and value.dtype == self.dtype and value.dtype != object:
            values = writing.conform(value, data_type, selection.shape)
        else:
            values = await engine.call(writing.conform, value, data_type, selection.shape)
        await writing.write(source, selection.forward(), as_planned(values, selection), engine)

    def _expect_writable(self) -> None:
        if not isinstance(self.array.store, WritableStore):
            raise StoreError(f"{self.array.store!r} cannot be written to")

    def stream_chunks(self, **options: Unpack[streaming.StreamOptions]) -> stream.ChunkStream:
        """The chunks that this view meets, one decoded ``Chunk`` after the other, for ``async for``; nothing is read before.

        Keyword Args:
            ordered: In C order of the chunk grid (the default), or as they come in; the latter never waits for a slow chunk.
            concurrency: Chunks in flight at once, from being asked for to being handed out; the engine's, 32, by default.
            memory: Bytes of decoded chunks in flight at once, if that is at least one chunk; the engine's, 256 MiB, by default.
            timeout: Seconds that fetching may take for a chunk, or for small ones that are fetched together, and decoding as many; 60 by
                default, ``None`` for no limit. ``StreamTimeoutError`` is then what failed. A worker that hangs is not waited for.
            filter: A plain function of a chunk's coordinates; those for which it says no are neither fetched nor handed out. What it raises
                ends the stream.
            include_missing: ``False`` leaves out the chunks that are not stored. They are found by listing where more than a hundred keys
                would have to be asked for. By default they are handed out as fill value.
            metadata: ``True`` gives every chunk a ``ChunkInfo``.
            on_error: ``"raise"`` ends the stream with the error of the first chunk that fails (the default), ``"skip"`` goes on without the
                chunk. A function, which may be ``async``, is called with its coordinates and the error before the stream goes on
                without it; what the function raises ends the stream.
            progress: A function, which may be ``async``, that gets the ``StreamStats`` after every chunk; or ``"rich"`` or ``"tqdm"`` for a
                bar in the terminal.
            start_after: Leave out everything up to and with the chunk at these coordinates, or at the place that a stream's
                ``token`` names. For ordered streams.
            shard, of: Only the part ``shard`` (from 0 on) of ``of`` parts, so that several processes share the work: the parts have
                nothing in common, are everything together, and never split a shard. An array with shards and three dimensions or more may
                have parts of several blocks, which are streamed one after the other, each in order.

        """
        return streaming.stream_chunks(*self.located(), self.array.engine, options)

    def stream_slices(
        self,
        along: int | str = 0,
        start: int | None = None,
        stop: int | None = None,
        step: int | None = None,
        *,
        thickness: int | None = None,
        **options: Unpack[slices.SliceOptions],
    ) -> slices.SliceStream:
        """This view along one of its axes, one ``Slice`` after the other; nothing is read before the first is asked for.

        Each chunk is read and decoded once, however many slices cross it, if a row of chunks (all that have the same place along the
        axis) fits into the memory; else each is decoded as often as it takes to get through the row.

        Args:
            along: The axis, by number (negative ones count from the end) or by name.
            start, stop: Where to begin and to end, as in a NumPy slice; everything by default.
            step: From the beginning of one slice to that of the next; the thickness by default. With less, slices overlap.
            thickness: The planes of a slice, fewer at the end. By default slices are single planes, and their data lack the axis.

        Keyword Args:
            ordered: In order (the default), or as they are complete; the latter never waits for a slow chunk that a slice does not need.
            concurrency: Chunks that are fetched at once, about; the engine's, 32, by default.
            memory: Bytes that are held besides the slice that has been handed out, if that is enough for it and one more plane; the
                engine's, 256 MiB, by default.
            timeout: Seconds that a chunk may take, 60 by default; a row has so many times more as it has rounds of ``concurrency`` chunks.
            filter: A function of the place where a slice begins; those for which it says no are left out, and not read.
            include_missing: ``False`` leaves out the slices of which no chunk is stored. They are found by listing, and not read, where
                more than a hundred keys would have to be asked for. By default they are handed out as fill value.
            metadata: ``True`` gives every slice a ``SliceInfo``: what is known of the chunks that it is from.
            on_error: As for ``stream_chunks``; every slice that needs a chunk that fails does fail. Coordinates are ``(slice.start,)``.
            progress: As for ``stream_chunks``, counted in slices.
            start_after: Leave out the slices that begin at this place or before, or up to the one that a stream's ``token`` names. For
                ordered streams.
            shard, of: Only the slices that begin in part ``shard`` of ``of`` parts of the rows of chunks or shards.

        Raises:
            SelectionError: There is no such axis, the step or thickness is less than 1, or the view is one of points.

        """
        planes = slice_plans.planes_of(self.shape, self.names, along, start, stop, step, thickness)

        def select(key: slice | Positions) -> ArrayView:
            return self.oindex[(*(slice(None),) * planes.axis, key)]

        return slices.stream_slices(*self.located(), self.array.engine, planes, select, self.dtype, options)

    def map_chunks(self, function: Callable[[Any], Any], **options: Unpack[streaming.StreamOptions]) -> stream.ChunkStream:
        """As ``stream_chunks``, but what ``function`` makes of the data of a chunk stands for the data.

        An ``async`` function is awaited on the loop, as many at once as chunks are in flight; any other runs in the workers, right after
        the chunk has been decoded, so it must be fit for threads, and the timeout includes it. What it raises is taken as a failure of
        the chunk.
        """
        if not callable(function):
            raise TypeError(f"map_chunks needs a function of a chunk's data, not {function!r:.60}")
        return streaming.stream_chunks(*self.located(), self.array.engine, options, function)

    async def write_stream(self, source: AsyncIterable[Any] | Iterable[Any], **options: Unpack[ingest.WriteOptions]) -> ingest.WriteReport:
        """Store the items of ``source`` as they come, and answer what has become of them; ``source`` is closed in any case.

        An item is a ``Chunk`` of a stream, ``(region, data)`` with a slice for every axis of this view, or, in an array, ``(coords, data)``
        with the coordinates of a chunk. A ``Chunk`` belongs where its region says, whatever the chunks of the array that it is from. The
        source may be asynchronous or not; one that is not is advanced on the loop, and so must not block. It is asked for an item
        only when there is room, and must not change the data of one afterwards.

        What is stored under one key is put together and stored once, without reading what was stored before, as far as memory allows.
        Of elements that come several times, the last stay.

        Keyword Args:
            concurrency: Chunks, or shards, that are encoded and stored at once; the engine's, 32, by default.
            memory: Bytes of data that are held at once, if that is at least one item; the engine's, 256 MiB, by default. Where it would be
                exceeded, the chunk or shard that has waited longest for its missing parts is stored as far as it has come.
            validate: Whether data must have the shape of their region (the default); else they are broadcast to it. As for ``write``, they
                must be of a kind that fits.
            timeout: Seconds that a chunk or shard may take to be stored; 60 by default, ``None`` for no limit. ``StreamTimeoutError`` is
                then what failed. A call that blocks in a worker cannot be stopped, and may still come to its end later.
            on_error: ``"raise"`` ends everything with the error of the first item that is not right or cannot be stored (the default),
                ``"skip"`` goes on without the item. A function, which may be ``async``, is called with the coordinates of the first chunk
                that the item meets (or that it names, ``None`` where it names none) and the error before the stream goes on without
                it; what the function raises ends the stream. What the source raises ends the stream in any case.
            checkpoint: A function, which may be ``async``, that gets a ``WriteReport`` of what is stored so far; or the path of a local
                file, or ``(store, key)``, where it is noted which chunks are stored, after they are. What is there is replaced.
            batch_size: Chunks, or shards, that are stored before a checkpoint is written, if so many fit into ``concurrency``; 1 by
                default. Those stored while it is written go into the next. No more than ``concurrency`` are ever stored and not named.
            resume: ``True`` goes on from the checkpoint, if there is one: what it names is not stored again the first time it comes.
            source_id: What tells the source from others; its ``fingerprint``, where it has one, by default.
            progress: A function, which may be ``async``, that gets a ``WriteReport`` of what is stored so far whenever something is; or
                ``"rich"`` or ``"tqdm"`` for a bar in the terminal.

        Raises:
            CheckpointError: The checkpoint to go on from is damaged, or of another array, view or source.
            StreamError: An item is none.
            WriteError: An item does not fit, or has no place here.
            StoreError: The store failed, or is read-only. Each chunk is then the old or the new one.

        """
        array = self.array
        metadata = replace(array.metadata, data_type=self._data_type)
        await ready(ingest)
        return await ingest.write_stream(*self.located(), array.path, metadata, array.engine, source, options)


class AsyncArray(ArrayView):
    """An array in a store: its metadata, and its elements to read, write and stream. Open one with ``azarr.open_array``."""

    __slots__ = ("_engine", "_state", "path", "store")

    def __init__(self, store: ReadableStore, path: str, metadata: ArrayMetadata, engine: Engine | None = None) -> None:
        # not through ArrayView.__init__: an array that refers to itself would wait for the garbage collector
        self._field = ()
        self.store = store
        self.path = path
        self._engine = engine
        self._take(metadata)

    def _take(self, metadata: documents.Metadata) -> None:
        """Be what ``metadata`` says; in one step, so that nothing ever works with half of it."""
        if isinstance(metadata, ArrayMetadata):
            self._state = State(metadata, self._source_of(metadata), Selection.whole(metadata.shape))

    def _source_of(self, metadata: ArrayMetadata) -> ChunkSource:
        return chunk_source(self.store, self.path, metadata, self._engine.limits if self._engine else Limits())

    @property
    def metadata(self) -> ArrayMetadata:
        """What the array's metadata document said when it was last read or written through this object."""
        return self._state.metadata

    @property
    def source(self) -> ChunkSource:
        """Where the chunks are."""
        return self._state.source

    @property
    def _selection(self) -> AnySelection:
        return self._state.selection

    def located(self) -> tuple[ChunkSource, AnySelection]:
        """As a view's, of one moment."""
        state = self._state
        return state.source, state.selection

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
    def chunks(self) -> tuple[int | ChunkLengths, ...]:
        """The shape of what is read and decoded at once: of the inner chunks where there are shards.

        Where chunks differ in length along an axis, a sequence of all their lengths stands for it.
        """
        return self.source.chunks

    @property
    def shards(self) -> tuple[int, ...] | None:
        """The shape of what is written and stored at once, where that is more than a chunk."""
        return None if isinstance(self.source, PlainChunks) else self.source.unit_shape

    @property
    def blocks(self) -> indexers.BlockIndexer[ArrayView]:
        """To select whole chunks: ``array.blocks[0, 2:4]``."""
        return indexers.BlockIndexer(self)

    @property
    def nchunks(self) -> int:
        """The number of chunks that the array is cut into, stored or not."""
        return math.prod(map(count_of, self.shape, self.chunks))

    @property
    def fill_value(self) -> FillValue:
        """What missing chunks read as."""
        return self.metadata.effective_fill_value

    @property
    def dimension_names(self) -> tuple[str | None, ...] | None:
        """The names of the axes, where they have any."""
        return self.metadata.dimension_names

    @property
    def locks(self) -> array_locks.ArrayLocks:
        """Locks for application code, shared by all objects for this array in this process; azarr takes none of them itself.

        ::

            async with array.locks.read():  # with other readers
                before, after = await array[0], await array[-1]
            async with array.locks.write():  # alone
                await array.write(await array * 2)

        First come, first served. They do not nest: who holds one must not ask for another one of the same array.
        """
        return array_locks.array_locks_of(self.store, self.path)

    @property
    def attrs(self) -> Mapping[str, JSON]:
        """The attributes, for reading; ``update_attributes`` changes them."""
        return MappingProxyType(dict(self.metadata.attributes))

    @property
    def _observed(self) -> ReadableStore:
        return self.engine.observed(self.store, self.path)

    async def update_attributes(self, attributes: Mapping[str, JSON]) -> None:
        """Add ``attributes`` to the stored ones, replacing those of the same name."""
        self._take(await update_attributes(self._observed, self.path, attributes, self.engine.limits, self.metadata))

    async def replace_attributes(self, attributes: Mapping[str, JSON]) -> None:
        """Store ``attributes`` in place of all that are stored."""
        self._take(await replace_attributes(self._observed, self.path, attributes, self.engine.limits, self.metadata))

    async def delete_attributes(self, *names: str) -> None:
        """Delete the stored attributes of these names; fine where there are none."""
        self._take(await delete_attributes(self._observed, self.path, names, self.engine.limits, self.metadata))

    async def refresh(self) -> None:
        """Read the metadata again, to see what others have changed: the shape, the attributes. ``NodeNotFoundError`` where it is gone."""
        await ready(extents)
        await extents.refresh(self._place, self.metadata, self._take)

    async def resize(self, shape: Sequence[SupportsIndex] | SupportsIndex) -> None:
        """Give the array another ``shape`` with as many dimensions; what it gains reads as fill value, and what it loses is erased.

        The new shape is stored first, then chunks outside of it are erased and the part of others that lies outside is filled. Views keep
        what they have selected, and refuse to be read or written where that is no longer there. Other objects for this array see the new
        shape once they are refreshed; until then, they must not write to what has been cut off. Resizing and appending take turns, in this
        process, and in several as docs/concurrent-writers.md says.

        Raises:
            WriteError: The shape is none, or has another number of dimensions.
            NodeNotFoundError: The array is not there any more.
            StoreError: The store failed, or is read-only. The array may have its new shape, and something left outside of it.

        """
        self._expect_writable()
        await ready(resizing)
        await resizing.resize(self._place, self.metadata, resizing.checked_shape(shape, self.ndim), self._take)

    async def append(self, data: object, axis: SupportsIndex = 0) -> tuple[slice, ...]:
        """Make the array longer along ``axis`` by ``data``; the region where they are now: ``array[region]``.

        The data need the array's number of dimensions, and its lengths along all other axes. They are stored first, then the new shape, so
        that nobody sees one without the other. Any number of tasks, threads and objects may append at once, and several processes as
        docs/concurrent-writers.md says: nothing is lost, and each append is in one piece. Small ones that wait are stored together.

        Raises:
            WriteError: The data do not fit; nothing has been written.
            NodeNotFoundError: The array is not there any more.
            StoreError: The store failed, or is read-only. The shape is as it was, unless the store failed just after it was stored. What
                lies behind the end is overwritten by the next append. So it is when an append is cancelled.

        """
        self._expect_writable()
        await ready(appending)
        return await appending.append(self._place, self.metadata, data, axis, self._take)

    @property
    def _place(self) -> extents.Place:
        return extents.Place(self.store, self.path, self.engine, self._source_of)


class State(NamedTuple):
    """What changes together when an array is resized."""

    metadata: ArrayMetadata
    source: ChunkSource
    selection: Selection


def check_out(out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise ``WriteError`` unless ``out`` can be filled with elements of ``dtype`` in ``shape``."""
    if not isinstance(out, np.ndarray):
        raise WriteError(f"out must be a NumPy array, not {type(out).__name__}")
    if out.shape != shape or out.dtype != dtype or not out.flags.writeable:
        raise WriteError(f"out must be writable, of shape {shape} and data type {dtype}, not {out.shape} and {out.dtype}")


def chunk_source(store: ReadableStore, path: str, metadata: ArrayMetadata, limits: Limits) -> ChunkSource:
    """Where the chunks of an array are: inside shards that can be read in part, or under keys of their own."""
    prefix = f"{path}/" if path else ""
    keys, codecs = metadata.chunk_key_encoding, understood(metadata.codecs)
    spec = replace(metadata.chunk_spec, limit=limits.chunk_nbytes, expansion=limits.expansion)
    regular = isinstance(metadata.chunk_grid, RegularGrid)
    if regular and len(codecs) == 1 and codecs[0].name == "sharding_indexed" and isinstance(codecs[0], sharding.Sharding):
        return sharded_chunks.ShardedChunks(store, prefix, keys, codecs[0].layout(spec), metadata.shape)
    pipeline = CodecPipeline(codecs, spec)
    if isinstance(metadata.chunk_grid, RectilinearGrid):
        return UnequalChunks(store, prefix, keys, pipeline, metadata.chunk_grid)
    # what is missing where no fill value is defined, every reader takes for something else
    return PlainChunks(store, prefix, keys, pipeline, metadata.chunk_grid, keep_fill=metadata.leaves_fill_undefined)
