"""The ``zfp`` codec (zarr-extensions, "zfp") and ``numcodecs.zfpy``: blocks of numbers, compressed with a chosen loss or none.

Both need the package ``zfpy``: ``pip install "azarr[zfp]"``.
"""

from __future__ import annotations

import math
import mmap
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, ClassVar, Final, Literal, Self, cast

import numpy as np

from azarr.codecs import scratch
from azarr.codecs.base import ArrayToBytesCodec, check_keys, integer
from azarr.codecs.damage import damaged
from azarr.codecs.numpy_filter import number
from azarr.errors import CodecError, MetadataError
from azarr.extras import Extra
from azarr.types import JSON, Array, Buffer, ChunkSpec

Mode = Literal["reversible", "fixed_accuracy", "fixed_rate", "fixed_precision"]

MAGIC: Final = int.from_bytes(b"zfp\x05", "little")
HEADER_NBYTES, LONG_HEADER_NBYTES = 12, 19
"""What a header takes, and one that spells out its mode."""

BLOCK_SIDE: Final = 4
"""zfp works on blocks of so many elements along each dimension."""

MAX_RATE: Final = 128
"""Bits for each element at most: twice what the widest has. From a larger rate the library computes sizes that overflow."""

_KEYS: Final[Mapping[str, str]] = {"fixed_accuracy": "tolerance", "fixed_rate": "rate", "fixed_precision": "precision"}
_TYPES: Final = {1: "int32", 2: "int64", 3: "float32", 4: "float64"}
"""What zfp compresses, by its number in the header."""


@cache
def _library(codec: str) -> ModuleType:
    return _ZfpStream.extra.module(codec)


class _ZfpStream(ArrayToBytesCodec):
    """What both codecs share: the compression with a mode and its parameter, and how elements become what zfp compresses."""

    extra: ClassVar[Extra] = Extra("zfpy", "zfp")

    @property
    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The mode in the words of the library, which takes no parameter at all for no loss."""

    def bind(self, spec: ChunkSpec) -> Self:
        self.promoted(spec.dtype)
        if len(spec.shape) > BLOCK_SIDE:
            raise MetadataError(f"codec {self.name!r} takes chunks of up to 4 dimensions, not {len(spec.shape)}")
        if not self.parameters and spec.nbytes == 0:
            raise MetadataError(f"codec {self.name!r} takes no empty chunks")
        return self

    def lacking(self, dtype: np.dtype[Any], ndim: int) -> str | None:
        """What is wrong with a rate that leaves blocks too few bits; below zero it stands for no loss."""
        rate = self.parameters.get("rate", -1)
        bits, least = math.floor(rate * BLOCK_SIDE ** max(1, ndim) + 0.5), least_bits(dtype)
        return f"a rate of {rate} leaves a block {bits} bits, and it needs {least}" if rate >= 0 and bits < least else None

    @abstractmethod
    def promoted(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """The data type that elements of ``dtype`` are compressed as; ``MetadataError`` where there is none."""

    def compress(self, values: Array, *, header: bool) -> bytes:
        """The stream of ``values``, of which there is at least one dimension."""
        if (lacking := self.lacking(values.dtype, values.ndim)) is not None:
            raise CodecError(f"{lacking}; choose another rate", codec=self.name)
        try:
            stream = _library(self.name).compress_numpy(np.ascontiguousarray(values), write_header=header, **self.parameters)
        except (RuntimeError, TypeError, ValueError, MemoryError) as error:
            raise CodecError(f"cannot compress {values.dtype} of shape {values.shape} ({error})", codec=self.name) from error
        return cast("bytes", stream)

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        del spec
        return None

    def max_encoded_size(self, spec: ChunkSpec) -> int:
        # a block of narrow elements takes as much as one of wide elements, and one that is not full as much as a full one
        return 4 * max(padded_nbytes(spec.shape, 8), spec.nbytes) + 65536


def least_bits(dtype: np.dtype[Any]) -> int:
    """The bits that a block of elements needs; with fewer than a sign and an exponent the library writes where it must not."""
    return 1 if dtype.kind != "f" else 9 if dtype.itemsize == 4 else 12


def padded_nbytes(shape: tuple[int, ...], itemsize: int) -> int:
    """The size of whole blocks that hold ``shape``, with room for their headers."""
    elements = math.prod(-(-length // BLOCK_SIDE) * BLOCK_SIDE for length in shape)
    return elements * itemsize + elements // 2 + 64


def padded(data: Buffer, shape: tuple[int, ...], itemsize: int, rate: float = 0) -> memoryview:
    """The stream with zeros behind it, because zfp reads on where one ends too early, past the end of its memory.

    ``rate`` is the number of bits that each element takes at least. The zeros take no memory, as nobody has written them: in flat
    chunks they would be a hundred times as many as the elements.
    """
    size = max(2 * padded_nbytes(shape, itemsize), math.ceil(padded_nbytes(shape, 1) * rate / 8))
    memory = mmap.mmap(-1, len(data) + size, **scratch.PRIVATE)
    memory[: len(data)] = data
    return memoryview(memory)


@dataclass(frozen=True, slots=True)
class Zfp(_ZfpStream):
    """Numbers compressed in ``mode``, whose ``parameter`` is a tolerance, a number of bits for each element, or a precision in bits.

    Whole numbers of fewer than 32 bits and float16 are compressed in 32 bits.
    """

    name: ClassVar[str] = "zfp"
    mode: Mode
    parameter: float | None = None

    def __post_init__(self) -> None:
        if self.mode == "reversible":
            if self.parameter is not None:
                raise MetadataError("codec 'zfp': mode 'reversible' takes no parameter")
            return
        if self.mode not in _KEYS:
            raise MetadataError(f"codec 'zfp': mode must be reversible or one of {', '.join(_KEYS)}, not {self.mode!r:.100}")
        key = _KEYS[self.mode]
        if self.mode == "fixed_precision":
            integer(self.name, {key: self.parameter}, key, 1, 64)
        elif number(self.name, {key: self.parameter}, key) <= 0:
            raise MetadataError(f"codec 'zfp': {key} must be more than 0, not {self.parameter}")
        elif self.parameters.get("rate", 0) > MAX_RATE:
            raise MetadataError(f"codec 'zfp': rate must be at most {MAX_RATE} bits for each element, not {self.parameter}")

    def bind(self, spec: ChunkSpec) -> Self:
        if (lacking := self.lacking(self.promoted(spec.dtype), len(spec.shape))) is not None:
            raise MetadataError(f"codec {self.name!r}: {lacking}")
        return _ZfpStream.bind(self, spec)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        mode = configuration.get("mode")
        if mode == "expert":
            raise MetadataError("codec 'zfp': mode 'expert' is not supported, as the library for Python does not offer it")
        key = _KEYS.get(mode) if isinstance(mode, str) else None
        keys = {"mode"} if key is None else {"mode", key}
        check_keys(cls.name, configuration, frozenset(keys), frozenset(keys))
        if not isinstance(mode, str):
            raise MetadataError(f"codec 'zfp': mode must be a string, not {mode!r:.100}")
        return cls(cast("Mode", mode), None if key is None else cast("float", configuration[key]))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {"mode": self.mode} if self.mode == "reversible" else {"mode": self.mode, _KEYS[self.mode]: self.parameter}

    @property
    def parameters(self) -> dict[str, Any]:
        return {} if self.mode == "reversible" else {_KEYS[self.mode]: self.parameter}

    def promoted(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        if dtype.kind in "iu" and dtype.itemsize <= 4:
            return np.dtype(np.int32)
        if dtype.kind in "iu":
            return np.dtype(np.int64)
        if dtype.kind == "f":
            return np.dtype(np.float64 if dtype.itemsize == 8 else np.float32)
        raise MetadataError(f"codec 'zfp' takes whole and floating-point numbers, not {dtype}")

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        wide = self.promoted(spec.dtype)
        values = chunk.astype(wide, copy=False) if spec.dtype.kind == "f" else _promote(chunk, wide)
        return self.compress(values.reshape(values.shape or (1,)), header=False)

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        wide, shape, library = self.promoted(spec.dtype), spec.shape or (1,), _library(self.name)
        if not data:
            raise damaged(self.name, "there are no bytes")
        kind = library.dtype_to_ztype(wide)
        try:
            stream = padded(data, shape, wide.itemsize, self.parameters.get("rate", 0))
            values = library._decompress(stream, kind, shape, **self.parameters)  # noqa: SLF001 - all there is
        except (RuntimeError, TypeError, ValueError, MemoryError, OSError) as error:
            raise damaged(self.name, f"cannot decompress ({error})") from error
        values = values if spec.dtype.kind == "f" else _demote(values, spec.dtype)
        return values.astype(spec.dtype, copy=False).reshape(spec.shape)


def _promote(chunk: Array, wide: np.dtype[Any]) -> Array:
    """Whole numbers as zfp compresses them: signed, in the upper bits of ``wide`` but the highest."""
    bits = 8 * chunk.dtype.itemsize
    if bits == 8 * wide.itemsize:
        if chunk.dtype.kind == "u" and chunk.size and chunk.max() > np.iinfo(wide).max:
            raise CodecError(f"{chunk.max()} is more than the {np.iinfo(wide).max} that zfp can hold", codec=Zfp.name)
        return chunk.astype(wide)
    values = chunk.astype(wide)
    if chunk.dtype.kind == "u":
        values -= 1 << (bits - 1)
    return values << (31 - bits)


def _demote(values: Array, dtype: np.dtype[Any]) -> Array:
    """The inverse of ``_promote``; what the loss puts out of range becomes the nearest number there is."""
    bits, bounds = 8 * dtype.itemsize, np.iinfo(dtype)
    if dtype.itemsize < values.dtype.itemsize:
        values = values >> (31 - bits)
        if dtype.kind == "u":
            values = values + (1 << (bits - 1))
        values = np.clip(values, bounds.min, bounds.max)
    elif dtype.kind == "u":
        values = np.maximum(values, 0)
    return values


@dataclass(frozen=True, slots=True)
class Zfpy(_ZfpStream):
    """What numcodecs writes: ``mode`` 2 (``rate``), 3 (``precision``) or 4 (``tolerance``), and a header that says so in each chunk."""

    name: ClassVar[str] = "numcodecs.zfpy"
    mode: int = 4
    tolerance: float = -1
    rate: float = -1
    precision: float = -1

    def __post_init__(self) -> None:
        values: dict[str, JSON] = {"mode": self.mode, "tolerance": self.tolerance, "rate": self.rate, "precision": self.precision}
        integer(self.name, values, "mode", 2, 4)
        for key in ("tolerance", "rate", "precision"):
            if number(self.name, values, key) > MAX_RATE and key != "tolerance":
                raise MetadataError(f"codec {self.name!r}: {key} must be at most {MAX_RATE} bits, not {values[key]}")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        known = frozenset({"mode", "tolerance", "rate", "precision", "compression_kwargs"})
        check_keys(cls.name, configuration, known)
        rest = {key: value for key, value in configuration.items() if key != "compression_kwargs"}  # says the same once more
        return cls(**cast("dict[str, Any]", rest))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {"mode": self.mode, "tolerance": self.tolerance, "rate": self.rate, "precision": self.precision}

    @property
    def parameters(self) -> dict[str, Any]:
        if self.mode == 4:
            return {"tolerance": self.tolerance}
        return {"rate": self.rate} if self.mode == 2 else {"precision": self.precision}

    def promoted(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        if dtype.name not in _TYPES.values():
            raise MetadataError(f"codec {self.name!r} takes {', '.join(_TYPES.values())}, not {dtype}")
        return dtype

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        return self.compress(chunk.reshape(spec.shape or (1,)), header=True)

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        shape = self._header_shape(data, spec)
        try:
            rate = self._header_rate(data, len(shape), spec.dtype)
            values = _library(self.name).decompress_numpy(padded(data, shape, spec.dtype.itemsize, rate))
        except (RuntimeError, TypeError, ValueError, MemoryError, OSError) as error:
            raise damaged(self.name, f"cannot decompress ({error})") from error
        return cast("Array", values).reshape(spec.shape)

    def _header_shape(self, data: Buffer, spec: ChunkSpec) -> tuple[int, ...]:
        """The shape in the header, which the library allocates; ``CodecError`` where it is not that of the chunk."""
        bits = int.from_bytes(memoryview(data)[:HEADER_NBYTES], "little")
        meta = bits >> 32 & (1 << 52) - 1
        if len(data) < HEADER_NBYTES or bits & (1 << 32) - 1 != MAGIC:
            raise damaged(self.name, f"{len(data)} bytes that do not start with the header of zfp")
        dtype, ndim, lengths = _TYPES[(meta & 3) + 1], (meta >> 2 & 3) + 1, meta >> 4
        width = 48 // ndim
        shape = tuple((lengths >> width * axis & (1 << width) - 1) + 1 for axis in reversed(range(ndim)))
        # chunks in order F were once compressed as one dimension
        if dtype != spec.dtype.name or shape not in {spec.shape or (1,), (math.prod(spec.shape),)}:
            raise damaged(self.name, f"the header says {dtype} of shape {shape} where the chunk is {spec.dtype} of shape {spec.shape}")
        return shape

    def _header_rate(self, data: Buffer, ndim: int, dtype: np.dtype[Any]) -> float:
        """The bits that each element takes at least, by the mode in the header; ``CodecError`` where they are too many or too few."""
        mode = int.from_bytes(memoryview(data)[:LONG_HEADER_NBYTES], "little") >> 84
        short = mode & 0xFFF
        # the bits of a block at least and at most: two numbers where the mode is spelt out, one where it is a rate
        low, high = (mode >> 12 & 0x7FFF, mode >> 27 & 0x7FFF) if short == 0xFFF else (short, short) if short < 2048 else (0, 0x7FFF)
        rate: float = (low + 1) / BLOCK_SIDE**ndim
        if rate > MAX_RATE or high + 1 < least_bits(dtype):
            raise damaged(self.name, f"the header says {low + 1} to {high + 1} bits for {BLOCK_SIDE**ndim} elements")
        return rate
