"""The three kinds of codec (Zarr v3 core, "Codecs"): array-to-array, array-to-bytes and bytes-to-bytes.

A codec is a frozen value: it knows its configuration, no store, no event loop and no array. It works on one chunk at a
time in whatever thread calls it, so what is expensive to set up (contexts, scratch memory) belongs in thread-local storage.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self, cast

import numpy as np

from azarr.data_types.base import DataType
from azarr.errors import CodecError, MetadataError
from azarr.extras import Extra
from azarr.types import JSON, Array, Bound, Buffer, ChunkSpec


class Codec(ABC):
    """What all codecs share: a name, a configuration, and how they meet the chunk they are bound to."""

    name: ClassVar[str]
    """The name in v3 metadata."""

    extra: ClassVar[Extra | None] = None
    """What has to be installed besides azarr to encode and decode."""

    nested: ClassVar[frozenset[str]] = frozenset()
    """The members of its configuration that are lists of codecs; they are parsed before ``from_configuration`` sees them."""

    @property
    def releases_gil(self) -> bool:
        """Whether most of its time is spent without the interpreter lock, so that threads run it in parallel."""
        return True

    @classmethod
    @abstractmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        """The codec that a metadata document describes; ``MetadataError`` where the configuration is not legal."""

    @classmethod
    def from_numcodecs(cls, configuration: Mapping[str, JSON]) -> Codec:
        """The codec under a name ``numcodecs.x``, where the configuration may have defaults and words of its own."""
        return cls.from_configuration(configuration)

    @abstractmethod
    def configuration(self) -> dict[str, JSON]:
        """The configuration as it stands in v3 metadata; an empty one is left out of the document."""

    @property
    def object_type(self) -> DataType | None:
        """The data type of arrays of objects for which nothing but this codec says what the objects are; ``None`` where it does not."""
        return None

    def bind(self, spec: ChunkSpec) -> Self:
        """The codec completed for chunks like ``spec``; ``MetadataError`` where it cannot work on them."""
        del spec
        return self


class Unconfigured(Codec):
    """What codecs share that take no configuration."""

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        """The codec; ``MetadataError`` where it is given a configuration."""
        check_keys(cls.name, configuration, frozenset())
        return cls()

    def configuration(self) -> dict[str, JSON]:
        """Nothing."""
        return {}


class ArrayToArrayCodec(Codec):
    """Turns a chunk into another one: other axes, other values, another data type."""

    @abstractmethod
    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        """What a chunk like ``spec`` looks like once encoded, for the codec that comes next."""

    @abstractmethod
    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        """The encoded chunk; a view where one will do. ``spec`` is the decoded side."""

    @abstractmethod
    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        """The decoded chunk; a view where one will do. ``spec`` is the decoded side."""


class ArrayToBytesCodec(Codec):
    """Turns a chunk into bytes. Every pipeline has exactly one."""

    @abstractmethod
    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        """The bytes of ``chunk``."""

    @abstractmethod
    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        """The chunk in ``data``, possibly a read-only view of it; ``CodecError`` where the bytes do not fit ``spec``."""

    @abstractmethod
    def encoded_size(self, spec: ChunkSpec) -> int | None:
        """How many bytes a chunk like ``spec`` takes, where that does not depend on its content."""

    def max_encoded_size(self, spec: ChunkSpec) -> int:
        """A generous bound on the bytes of a chunk like ``spec``; what a decompressor may hand on at most."""
        exact = self.encoded_size(spec)
        return exact if exact is not None else 2 * spec.nbytes + 65536

    def growth(self, spec: ChunkSpec) -> Bound | None:
        """What decompressors may hand on of a chunk like ``spec``, where that depends on its content; ``None`` where it does not."""
        return spec.bound if spec.variable else None


class BytesToBytesCodec(Codec):
    """Compresses bytes or guards them with a checksum."""

    @abstractmethod
    def encode(self, data: Buffer) -> Buffer:
        """The encoded bytes."""

    @abstractmethod
    def decode(self, data: Buffer, limit: int) -> Buffer:
        """The decoded bytes, at most ``limit`` of them: a longer result is a ``CodecError``, before it costs memory."""

    def decode_within(self, data: Buffer, bound: Bound) -> Buffer:
        """As ``decode``, where only what has gone in bounds what may come out: less at first than in the end.

        Codecs that decode bit by bit can stop where that becomes too much; the others know at the end, unless the bytes say it at first.
        """
        limit = bound.after(len(data))
        if (stated_size := self.stated_size(data)) is not None and stated_size > limit:
            raise too_large(self.name, bound, len(data))
        return self.decode(data, limit)

    def narrowed(self, bound: Bound) -> Bound:
        """``bound`` for what this codec compresses: tighter where even bombs stay within it."""
        return bound

    def unbound(self, spec: ChunkSpec) -> Self:
        """The codec without what it gets from ``spec`` anyway, so that it follows another data type."""
        del spec
        return self

    def stated_size(self, data: Buffer) -> int | None:
        """How many bytes ``data`` itself says that it decodes to, where it does; ``CodecError`` where it cannot be read."""
        del data
        return None

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        """Fill ``out`` (writable, contiguous, format ``B``) with the decoded bytes; ``CodecError`` unless they fit exactly."""
        decoded = self.decode(data, len(out))
        if len(decoded) != len(out):
            raise wrong_size(self.name, len(decoded), len(out))
        out[:] = decoded

    joinable: ClassVar[bool] = False
    """Whether values one behind the other decode to what each of them decodes to, one behind the other."""

    def decode_joined_into(self, data: Buffer, sizes: Sequence[int], out: memoryview) -> bool:
        """Fill ``out`` with equal shares, decoded from the values of ``sizes`` bytes that lie one behind the other in ``data``.

        For ``joinable`` codecs. ``False`` unless every value has just its share: then they have to be decoded one by one, to find out more.
        """
        raise NotImplementedError

    def encoded_size(self, nbytes: int) -> int | None:
        """How many bytes ``nbytes`` bytes become, where that does not depend on their content."""
        del nbytes
        return None

    def max_encoded_size(self, nbytes: int) -> int:
        """A generous bound on what ``nbytes`` bytes can become; what a decoder before this one may hand on at most."""
        exact = self.encoded_size(nbytes)
        return exact if exact is not None else nbytes + nbytes // 4 + 65536


def bytes_of(array: Array) -> memoryview:
    """The memory of a contiguous array, byte by byte."""
    # NumPy arrays are buffers from the first; its type stubs know it only as of Python 3.12
    return memoryview(cast("Buffer", array.reshape(-1).view(np.uint8))) if array.size else memoryview(bytearray())


def wrong_size(codec: str, got: int, expected: int) -> CodecError:
    """The error for bytes that decode to another size than the chunk has."""
    if got > expected:
        message = f"decodes to more than the {expected} bytes of the chunk; the value is damaged, or not of this array"
    else:
        message = f"decodes to {got} bytes where the chunk has {expected}; the value is damaged, or not of this array"
    return CodecError(message, codec=codec)


def too_large(codec: str, bound: Bound, nbytes: int) -> CodecError:
    """The error for ``nbytes`` bytes that decode to more than ``bound`` allows."""
    limit = bound.after(nbytes)
    if not bound.expansion:
        return wrong_size(codec, limit + 1, limit)
    message = f"{nbytes} bytes decode to more than {limit}, as those of a bomb do"
    return CodecError(f"{message}; where they are honest, raise Limits.expansion or use smaller chunks", codec=codec)


def check_keys(codec: str, configuration: Mapping[str, JSON], known: frozenset[str], required: frozenset[str] = frozenset()) -> None:
    """Raise ``MetadataError`` unless ``configuration`` has all ``required`` keys and none beyond ``known``."""
    unknown = configuration.keys() - known
    if unknown:
        raise MetadataError(f"codec {codec!r} has no configuration {sorted(unknown)!r:.200}; it takes {sorted(known)}")
    missing = required - configuration.keys()
    if missing:
        raise MetadataError(f"codec {codec!r} lacks the configuration {sorted(missing)}")


def integer(codec: str, configuration: Mapping[str, JSON], key: str, low: int, high: int, default: int | None = None) -> int:
    """The whole number at ``key`` within ``low``..``high``, or ``default``; ``MetadataError`` for anything else."""
    value = configuration.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise MetadataError(f"codec {codec!r}: {key} must be a whole number from {low} to {high}, not {value!r:.100}")
    return value
