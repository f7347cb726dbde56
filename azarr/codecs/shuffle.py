"""The ``numcodecs.shuffle`` codec: the first bytes of all elements, then all second ones, and so on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self, cast

import numpy as np

from azarr.codecs.base import BytesToBytesCodec, bytes_of, check_keys, integer, wrong_size
from azarr.codecs.damage import damaged
from azarr.errors import CodecError
from azarr.types import JSON, Array, Buffer, ChunkSpec

NARROW = 16
"""Up to so many bytes an element, one strided copy for each is faster than a transposition."""


@dataclass(frozen=True, slots=True)
class Shuffle(BytesToBytesCodec):
    """Bytes sorted by their place in an element, so that a compressor finds them easier.

    Where ``elementsize`` is ``None`` it becomes the size of an element as soon as the codec is bound to a chunk.
    """

    name: ClassVar[str] = "numcodecs.shuffle"
    elementsize: int | None = None

    def __post_init__(self) -> None:
        if self.elementsize is not None:
            integer(self.name, {"elementsize": self.elementsize}, "elementsize", 0, 2**31 - 1)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"elementsize"}))
        return cls(cast("int | None", configuration.get("elementsize")))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {} if self.elementsize is None else {"elementsize": self.elementsize}

    def bind(self, spec: ChunkSpec) -> Self:
        return replace(self, elementsize=max(spec.dtype.itemsize, 1)) if self.elementsize is None else self

    def encode(self, data: Buffer) -> Buffer:
        size = self.elementsize or 1
        if len(data) % size:
            message = f"cannot shuffle {len(data)} bytes in elements of {size}; choose an elementsize that divides them"
            raise CodecError(message, codec=self.name)
        source = np.frombuffer(data, np.uint8).reshape(-1, size)
        shuffled = np.empty((size, len(source)), np.uint8)
        transpose_into(source, shuffled)
        return bytes_of(shuffled)

    def decode(self, data: Buffer, limit: int) -> Buffer:
        if len(data) > limit:
            raise wrong_size(self.name, len(data), limit)
        out = np.empty(len(data), np.uint8)
        self.decode_into(data, bytes_of(out))
        return bytes_of(out)

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        size = self.elementsize or 1
        if len(data) != len(out):
            raise wrong_size(self.name, len(data), len(out))
        if len(data) % size:
            raise damaged(self.name, f"{len(data)} bytes are not whole elements of {size}")
        if data:
            transpose_into(np.frombuffer(data, np.uint8).reshape(size, -1), np.frombuffer(out, np.uint8).reshape(-1, size))

    def encoded_size(self, nbytes: int) -> int | None:
        return nbytes


def transpose_into(source: Array, out: Array) -> None:
    """Fill ``out`` with the two-dimensional ``source`` transposed."""
    if len(source) <= NARROW:
        for number, row in enumerate(source):
            out[:, number] = row
    elif len(out) <= NARROW:
        for number, row in enumerate(out):
            row[:] = source[:, number]
    else:
        out[:] = source.T
