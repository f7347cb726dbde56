"""A codec pipeline (Zarr v3 core, "Codecs"): the codecs of an array, bound once to the chunks that they turn into bytes and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

import numpy as np

from azarr.codecs import scratch
from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Codec, bytes_of, too_large, wrong_size
from azarr.codecs.bytes import Bytes
from azarr.codecs.ignored import understood
from azarr.errors import MetadataError
from azarr.types import Array, Buffer, ChunkSpec


def check_order(codecs: Sequence[Codec]) -> None:
    """Raise ``MetadataError`` unless there are array-to-array codecs, then one array-to-bytes codec, then bytes-to-bytes codecs."""
    kinds = [
        0 if isinstance(codec, ArrayToArrayCodec) else 1 if isinstance(codec, ArrayToBytesCodec) else 2 for codec in understood(codecs)
    ]
    if kinds.count(1) != 1:
        raise MetadataError(f"codecs need exactly one that turns the array into bytes (such as 'bytes'); there are {kinds.count(1)}")
    if kinds != sorted(kinds):
        raise MetadataError(
            f"codecs must go from array to array, then to bytes, then from bytes to bytes; the order is {[c.name for c in codecs]}"
        )


def bind_codecs(codecs: Sequence[Codec], spec: ChunkSpec) -> tuple[Codec, ...]:
    """The codecs in order, each bound to what the ones before it make of a chunk like ``spec``."""
    check_order(codecs)
    bound: list[Codec] = []
    for codec in codecs:
        complete = codec.bind(spec)
        bound.append(complete)
        if isinstance(complete, ArrayToArrayCodec):
            spec = complete.resolve(spec)
    return tuple(bound)


def resolved(codecs: Sequence[Codec], spec: ChunkSpec) -> ChunkSpec:
    """What a chunk like ``spec`` looks like behind those of ``codecs``, in order, that make arrays of arrays."""
    for codec in codecs:
        if isinstance(codec, ArrayToArrayCodec):
            spec = codec.resolve(spec)
    return spec


RUN_NBYTES = 2**20
"""Decoded bytes of neighbouring chunks that are placed in one go: what a core's second-level cache holds."""


class CodecPipeline:
    """Turns chunks like ``spec`` into bytes and back. Holds no state between calls, so threads may share it; picklable."""

    __slots__ = (
        "_array_codecs",
        "_bound",
        "_bytes_codecs",
        "_limits",
        "_serializer",
        "_stored",
        "codecs",
        "direct",
        "encoded_size",
        "joinable",
        "spec",
    )

    def __init__(self, codecs: Sequence[Codec], spec: ChunkSpec) -> None:
        self.codecs = bind_codecs(codecs, spec)
        self.spec = spec
        self._array_codecs: list[tuple[ArrayToArrayCodec, ChunkSpec]] = []
        self._bytes_codecs: list[BytesToBytesCodec] = []
        for codec in self.codecs:
            if isinstance(codec, ArrayToArrayCodec):
                self._array_codecs.append((codec, spec))
                spec = codec.resolve(spec)
            elif isinstance(codec, ArrayToBytesCodec):
                self._serializer = codec
            elif isinstance(codec, BytesToBytesCodec):
                self._bytes_codecs.append(codec)
        self._stored = spec
        serializer = self._serializer
        self.direct = not self._array_codecs and isinstance(serializer, Bytes) and serializer.in_place(spec)
        """Whether the serialized bytes are the chunk's memory as it is, so that they can be decoded in place."""
        self.joinable = self.direct and len(self._bytes_codecs) == 1 and self._bytes_codecs[0].joinable
        """Whether encoded chunks that lie one behind the other can be decoded in one go, in place."""
        self.encoded_size: int | None = serializer.encoded_size(spec)
        """How many bytes an encoded chunk takes, where that does not depend on its content."""
        growth = serializer.growth(spec) if self._bytes_codecs else None
        self._bound = growth and reduce(lambda bound, codec: codec.narrowed(bound), self._bytes_codecs, growth)
        self._limits = [serializer.max_encoded_size(spec)]
        for compressor in self._bytes_codecs:
            self._limits.append(compressor.max_encoded_size(self._limits[-1]))
            self.encoded_size = None if self.encoded_size is None else compressor.encoded_size(self.encoded_size)

    def __reduce__(self) -> tuple[type[CodecPipeline], tuple[tuple[Codec, ...], ChunkSpec]]:
        return CodecPipeline, (self.codecs, self.spec)

    def rebound(self, spec: ChunkSpec) -> CodecPipeline:
        """The same codecs for chunks like ``spec``."""
        return CodecPipeline(self.codecs, spec)

    @property
    def field(self) -> tuple[str, ...]:
        """Which field of the elements it decodes, where it is not all of them; see ``FieldPipeline``."""
        return ()

    @property
    def whole(self) -> CodecPipeline:
        """The pipeline that encodes: this one, unless it is of one field only."""
        return self

    @property
    def releases_gil(self) -> bool:
        """Whether threads run it in parallel."""
        return all(codec.releases_gil for codec in self.codecs)

    @property
    def run_nbytes(self) -> int:
        """Decoded bytes of neighbouring chunks that it is worth decoding in one go."""
        return RUN_NBYTES

    @property
    def together(self) -> int:
        """How many chunks it is worth encoding in one go; more than one only where ``encode_each`` makes something of that."""
        return 1

    @property
    def compressed(self) -> bool:
        """Whether there is anything to do between the serialized and the encoded bytes."""
        return bool(self._bytes_codecs)

    @property
    def max_encoded_size(self) -> int:
        """A generous bound on the bytes of an encoded chunk."""
        return self._limits[-1]

    def encode(self, chunk: Array) -> Buffer:
        """The bytes of ``chunk``; they may share its memory where nothing had to change."""
        for codec, spec in self._array_codecs:
            chunk = codec.encode(chunk, spec)
        data = self._serializer.encode(chunk, self._stored)
        nbytes = len(data)
        for compressor in self._bytes_codecs:
            data = compressor.encode(data)
        if self._bound is not None and nbytes > self._bound.after(len(data)):
            raise too_large(self._serializer.name, self._bound, len(data))  # reading would refuse it
        return data

    def encode_each(self, chunks: Iterable[Array]) -> Iterator[Buffer]:
        """The bytes of ``chunks``, one after the other; up to ``together`` of them are taken before the first is encoded."""
        return map(self.encode, chunks)

    def decode(self, data: Buffer) -> Array:
        """The chunk in ``data`` as an array of its own or a read-only view of ``data``; ``CodecError`` where it does not fit."""
        size = self._serializer.encoded_size(self._stored)
        if self._bytes_codecs and size is not None:
            out = np.empty(size, np.uint8)
            self._decompress_into(data, bytes_of(out))
            return self._deserialize(bytes_of(out))
        return self._deserialize(self._decompress(data))

    def decode_into(self, data: Buffer, out: Array) -> None:
        """Fill ``out``, an array of the chunk's shape with any strides, with the chunk in ``data``."""
        if self.direct and out.flags.c_contiguous and out.dtype == self.spec.dtype:
            self.decode_bytes_into(data, bytes_of(out))
        else:
            np.copyto(out, self.decode_scratch(data))

    def decode_scratch(self, data: Buffer) -> Array:
        """The chunk in ``data``, for reading only and only until this thread decodes the next one."""
        size = self._serializer.encoded_size(self._stored)
        if self._bytes_codecs and size is not None:
            out = scratch.decoded.reserve(size)
            self._decompress_into(data, out)
            return self._deserialize(out)
        return self._deserialize(self._decompress(data))

    def decode_bytes_into(self, data: Buffer, out: memoryview) -> None:
        """As ``decode_into`` for a ``direct`` pipeline: ``out`` is the memory of the chunk."""
        if self._bytes_codecs:
            self._decompress_into(data, out)
        else:
            if len(data) != len(out):
                raise wrong_size(self._serializer.name, len(data), len(out))
            out[:] = data

    def decode_joined_into(self, data: Buffer, sizes: Sequence[int], out: memoryview) -> bool:
        """As ``decode_bytes_into`` for a ``joinable`` pipeline, with encoded chunks of ``sizes`` bytes one behind the other in ``data``.

        ``False`` where they have to be decoded one by one, to find out what is wrong with which.
        """
        return self._bytes_codecs[0].decode_joined_into(data, sizes, out)

    def _decompress(self, data: Buffer, first: int = 0) -> Buffer:
        """The bytes before compressor number ``first``, each step bounded by what the codec before it can have made."""
        bound = self._bound and self._bound._replace(most=self._bound.after(len(data)))  # whatever lies between
        for position in range(len(self._bytes_codecs) - 1, first - 1, -1):
            codec, limit = self._bytes_codecs[position], self._limits[position]
            data = codec.decode(data, limit) if bound is None else codec.decode_within(data, bound._replace(most=min(bound.most, limit)))
        return data

    def _decompress_into(self, data: Buffer, out: memoryview) -> None:
        codecs = self._bytes_codecs
        codecs[0].decode_into(self._decompress(data, 1) if len(codecs) > 1 else data, out)

    def _deserialize(self, data: Buffer) -> Array:
        chunk = self._serializer.decode(data, self._stored)
        for codec, spec in reversed(self._array_codecs):
            chunk = codec.decode(chunk, spec)
        return chunk
