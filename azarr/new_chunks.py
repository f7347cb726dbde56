"""New chunks: what chunks are after values have been put in, and their bytes, if there is anything to store."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from azarr.codecs.fields import part_of
from azarr.codecs.fill import is_fill
from azarr.codecs.pipeline import CodecPipeline
from azarr.errors import CodecError, WorkerError
from azarr.projections import Projection
from azarr.types import Array, Buffer, Coords


def patched(pipeline: CodecPipeline, old: Buffer | None, patches: Sequence[tuple[Projection, Array]]) -> Array:
    """The chunk with values in the parts that projections name, put in one after the other."""
    whole, spec = pipeline.whole, pipeline.whole.spec
    if pipeline.field:
        patches = [(projection.partly(), values) for projection, values in patches]
    last, values = patches[-1]
    if last.full and values.dtype == spec.dtype:
        return values
    # nothing shows of what is put in before something that covers it all
    first = next((number for number in range(len(patches) - 1, -1, -1) if patches[number][0].covers), 0)
    covered, full = patches[first][0].covers, patches[first][0].full
    chunk = np.full(spec.shape, spec.fill, spec.dtype) if old is None or full else decoded(whole, old, covered=covered)
    part = part_of(chunk, pipeline.field)
    with np.errstate(over="ignore"):  # what a narrower float cannot hold is infinite in it
        for projection, values in patches[first:]:
            part[projection.chunk or ...] = values
    return chunk


def decoded(pipeline: CodecPipeline, old: Buffer, *, covered: bool) -> Array:
    """The chunk as it is stored; fill value where it is damaged, but all that the array has of it is ``covered`` by what is written."""
    chunk = np.empty(pipeline.spec.shape, pipeline.spec.dtype)
    try:
        pipeline.decode_into(old, chunk)
    except CodecError as error:
        if not covered or isinstance(error, WorkerError):  # which says nothing of the chunk
            raise
        return np.full(pipeline.spec.shape, pipeline.spec.fill, pipeline.spec.dtype)
    return chunk


def encoded_or_none(pipeline: CodecPipeline, chunk: Array) -> Buffer | None:
    """The encoded chunk; ``None`` where every element is the fill value, as such chunks are not stored."""
    return None if is_fill(chunk, pipeline.spec.fill) else pipeline.encode(chunk)


def encoded_chunks(
    pipeline: CodecPipeline, chunks: Iterable[tuple[int, Coords, Array]], *, keep_fill: bool = False
) -> Iterator[tuple[int, Buffer]]:
    """Chunks encoded, with their numbers; those of nothing but fill value, which are not stored, are left out unless ``keep_fill``."""
    waiting: deque[tuple[int, Coords]] = deque()

    def stored() -> Iterator[Array]:
        for number, coords, chunk in chunks:
            if keep_fill or not is_fill(chunk, pipeline.spec.fill):
                waiting.append((number, coords))
                yield chunk

    encoded = pipeline.encode_each(stored())
    while True:
        try:
            data = next(encoded, None)
        except CodecError as error:
            if waiting:
                error.coords = error.coords or waiting[0][1]
            raise
        if data is None:
            return
        yield waiting.popleft()[0], data
