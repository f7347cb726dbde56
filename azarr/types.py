"""The plain values that every floor of azarr shares: coordinates, byte ranges, listings and limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

Buffer: TypeAlias = bytes | bytearray | memoryview
"""Encoded bytes. Whoever receives one reads it and never writes to it."""

Array: TypeAlias = npt.NDArray[Any]
"""Decoded elements."""

Coords: TypeAlias = tuple[int, ...]
"""Where a chunk lies in its grid, one index a dimension."""

FillValue: TypeAlias = Any
"""One decoded element: a NumPy scalar; for elements of variable length a ``str``, ``bytes``, or whatever the data type says."""

JSON: TypeAlias = bool | int | float | str | Sequence["JSON"] | Mapping[str, "JSON"] | None


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Bytes ``start`` up to, not including, ``stop`` of a value; ``stop=None`` means up to its end."""

    start: int
    stop: int | None = None

    def __post_init__(self) -> None:
        if self.start < 0 or (self.stop is not None and self.stop < self.start):
            raise ValueError(f"a byte range needs 0 <= start <= stop, not {self.start}..{self.stop}")


class Span(NamedTuple):
    """Bytes ``start`` up to, not including, ``stop`` of a value, which are known to make sense."""

    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Suffix:
    """The last ``nbytes`` bytes of a value, or all of it where it is shorter."""

    nbytes: int

    def __post_init__(self) -> None:
        if self.nbytes < 0:
            raise ValueError(f"a suffix needs nbytes >= 0, not {self.nbytes}")


class Listing(NamedTuple):
    """One level of a store: the ``keys`` directly below a prefix, and the ``prefixes`` (each ending in ``/``)."""

    keys: tuple[str, ...]
    prefixes: tuple[str, ...]


MAX_NDIM = 63 if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else 31
"""Dimensions of an array at most: one less than NumPy has, which chunks side by side and the index of a shard need."""

CHUNK_NBYTES = 4 * 2**30
"""What one decoded chunk may take in memory, unless a user says otherwise."""

EXPANSION = 100
"""What a stored byte may decode to where elements vary in length, unless a user says otherwise."""

FREE_NBYTES, FREE_ELEMENT_NBYTES = 2**20, 2**10
"""What a chunk, and each of its elements, may decode to however few bytes are stored."""

VARIABLE_NBYTES = 64
"""What an element of variable length is taken to need in memory, where memory is planned: a Python object and some content."""


def element_nbytes(dtype: np.dtype[Any]) -> int:
    """The size of an element in bytes; an estimate where elements vary in length."""
    return VARIABLE_NBYTES if dtype.hasobject else dtype.itemsize


@dataclass(frozen=True, slots=True)
class Limits:
    """What azarr accepts from a store before it refuses, because metadata and chunks may be hostile.

    ``metadata_nbytes`` bounds one metadata document (16 MiB: a thousand times a usual one), ``ndim`` the dimensions of an
    array (``MAX_NDIM``), ``element_nbytes`` one element of a fixed size, and so the fill value that is made of a document
    of a few bytes (16 MiB, as if it stood there in full), ``chunk_nbytes`` one decoded chunk (4 GiB, beyond which one chunk outgrows
    common machines). Elements of variable length count with the bytes that they are encoded to.

    ``expansion`` bounds what compressed elements of variable length decode to, as nothing else in the metadata does: so many bytes for
    each one stored, besides 1 MiB and 1 KiB for each element, which are free. 100, because text seldom shrinks to a hundredth, and
    where it does its elements are short.
    """

    metadata_nbytes: int = 16 * 2**20
    ndim: int = MAX_NDIM
    element_nbytes: int = 16 * 2**20
    chunk_nbytes: int = CHUNK_NBYTES
    expansion: int = EXPANSION

    @property
    def document(self) -> ByteRange:
        """What is asked for of a metadata document: no more than the limit allows, and one byte that tells that there is more."""
        return ByteRange(0, self.metadata_nbytes + 1)


class Bound(NamedTuple):
    """What may come out of a decoder: at most ``most`` bytes, of which ``free`` for nothing and ``expansion`` for each that went in."""

    most: int
    free: int
    expansion: int

    @classmethod
    def fixed(cls, nbytes: int) -> Bound:
        """So many bytes at most, whatever goes in."""
        return cls(nbytes, nbytes, 0)

    def after(self, nbytes: int) -> int:
        """What may have come out once ``nbytes`` bytes have gone in."""
        return min(self.most, self.free + self.expansion * nbytes)


@dataclass(frozen=True, slots=True)
class ChunkSpec:
    """What a codec pipeline is bound to: the ``shape``, ``dtype`` and ``fill_value`` of one decoded chunk.

    What elements of variable length are shows in the type of their fill value. A chunk of them may take ``limit`` bytes at most
    when it is encoded, before it is compressed, and ``expansion`` for each byte that it is compressed to, besides ``free`` and
    ``FREE_ELEMENT_NBYTES`` for each element: nothing else in the metadata bounds it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fill_value: FillValue
    limit: int = CHUNK_NBYTES
    expansion: int = EXPANSION
    free: int = FREE_NBYTES

    @property
    def bound(self) -> Bound:
        """What a compressed chunk of elements of variable length may decode to."""
        return Bound(self.limit, self.free + self.nelements * FREE_ELEMENT_NBYTES, self.expansion)

    @property
    def fill(self) -> Array:
        """The fill value as an array without dimensions, from which NumPy copies it as it is.

        From a ``str`` or ``bytes`` object it would take off zeros at the end, and of an array inside arrays it would copy the elements.
        """
        if isinstance(self.fill_value, np.ndarray):
            return self.fill_value
        fill = np.empty((), self.dtype)
        fill[()] = self.fill_value
        return fill

    @property
    def nelements(self) -> int:
        """The number of elements of one chunk."""
        return math.prod(self.shape)

    @property
    def variable(self) -> bool:
        """Whether elements vary in length."""
        return self.dtype.hasobject

    @property
    def nbytes(self) -> int:
        """Size of one decoded chunk in bytes; where elements vary in length, an estimate of ``VARIABLE_NBYTES`` for each."""
        return self.nelements * element_nbytes(self.dtype)
