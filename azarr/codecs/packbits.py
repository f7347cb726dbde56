"""The ``packbits`` codec (zarr-extensions, "packbits"), and ``numcodecs.packbits``, which orders the bits otherwise."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Literal, NamedTuple, Self, cast

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, Unconfigured, bytes_of, check_keys, integer, wrong_size
from azarr.codecs.damage import damaged
from azarr.errors import MetadataError
from azarr.types import JSON, Array, Buffer, ChunkSpec

PaddingEncoding = Literal["none", "first_byte", "last_byte"]

_PADDING_ENCODINGS: Final = ("none", "first_byte", "last_byte")
_NARROW: Final = {"bool": 1, "int2": 2, "uint2": 2, "int4": 4, "uint4": 4, "float4_e2m1fn": 4, "float6_e2m3fn": 6, "float6_e3m2fn": 6}

SLAB = 2**16
"""Components that are packed at once: a multiple of eight, so that each slab begins with a byte, and few enough to stay in a cache."""


class Layout(NamedTuple):
    """How the bits of a chunk are packed: ``components`` of ``width`` bits each, of which ``first`` to ``last`` are kept."""

    components: int
    itemsize: int
    width: int
    first: int
    last: int
    signed: bool

    @property
    def kept(self) -> int:
        """Bits that are kept of each component."""
        return self.last - self.first + 1

    @property
    def nbytes(self) -> int:
        """Bytes of the packed bits."""
        return -(-self.components * self.kept // 8)

    @property
    def padding(self) -> int:
        """Bits that fill the last byte."""
        return 8 * self.nbytes - self.components * self.kept

    def slabs(self) -> Iterator[tuple[int, int]]:
        """Begin and end of groups of components."""
        return ((begin, min(begin + SLAB, self.components)) for begin in range(0, self.components, SLAB))


@dataclass(frozen=True, slots=True)
class PackBits(ArrayToBytesCodec):
    """Elements without their unused bits: ``first_bit`` to ``last_bit`` of each, one after the other, least significant first.

    What is cut off below reads as zero, what is cut off above as the sign of a signed whole number, otherwise as zero.
    ``padding_encoding`` says whether a byte with the number of bits behind the last element is stored, and where.
    """

    name: ClassVar[str] = "packbits"
    padding_encoding: PaddingEncoding = "none"
    first_bit: int | None = None
    last_bit: int | None = None

    def __post_init__(self) -> None:
        if self.padding_encoding not in _PADDING_ENCODINGS:
            known = ", ".join(_PADDING_ENCODINGS)
            raise MetadataError(f"codec 'packbits': padding_encoding must be one of {known}, not {self.padding_encoding!r:.100}")
        bits: dict[str, JSON] = {"first_bit": self.first_bit, "last_bit": self.last_bit}
        for key, value in bits.items():
            if value is not None:
                integer(self.name, bits, key, 0, 127)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"padding_encoding", "first_bit", "last_bit"}))
        padding = configuration.get("padding_encoding", "none")
        if not isinstance(padding, str):
            raise MetadataError(f"codec 'packbits': padding_encoding must be a string, not {padding!r:.100}")
        first, last = (cast("int | None", configuration.get(key)) for key in ("first_bit", "last_bit"))
        return cls(cast("PaddingEncoding", padding), first, last)  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        bits = {"first_bit": self.first_bit, "last_bit": self.last_bit}
        return {"padding_encoding": self.padding_encoding, **{key: value for key, value in bits.items() if value is not None}}

    def bind(self, spec: ChunkSpec) -> Self:
        self._layout(spec)
        return self

    def _layout(self, spec: ChunkSpec) -> Layout:
        dtype, parts = spec.dtype, 2 if spec.dtype.kind == "c" else 1
        if dtype.name not in _NARROW and dtype.kind not in "iufcmM" and not dtype.name.startswith(("float", "bfloat")):
            raise MetadataError(f"codec 'packbits' takes truth values and numbers, not {dtype}")
        itemsize = dtype.itemsize // parts
        width = _NARROW.get(dtype.name, 8 * itemsize)
        first, last = self.first_bit or 0, width - 1 if self.last_bit is None else self.last_bit
        if not first <= last < width:
            raise MetadataError(f"codec 'packbits': {dtype} has no bits from {first} to {last}; there are {width}")
        count = parts
        for length in spec.shape:
            count *= length
        return Layout(count, itemsize, width, first, last, dtype.kind in "imM" or dtype.name.startswith("int"))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        layout = self._layout(spec)
        elements = np.ascontiguousarray(chunk, spec.dtype).reshape(-1).view(np.uint8).reshape(layout.components, layout.itemsize)
        has_byte = self.padding_encoding != "none"
        out = np.empty(layout.nbytes + has_byte, np.uint8)
        packed = out[1:] if self.padding_encoding == "first_byte" else out[: layout.nbytes]
        for begin, end in layout.slabs():
            slab = np.packbits(_bits(elements[begin:end], layout), bitorder="little")
            start = begin * layout.kept // 8
            packed[start : start + len(slab)] = slab
        if has_byte:
            out[0 if self.padding_encoding == "first_byte" else -1] = layout.padding
        return bytes_of(out)

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        layout = self._layout(spec)
        packed = np.frombuffer(data, np.uint8)
        if len(packed) != self.encoded_size(spec):
            raise wrong_size(self.name, len(packed), self.encoded_size(spec))
        if self.padding_encoding != "none":
            first = self.padding_encoding == "first_byte"
            padding, packed = (packed[0], packed[1:]) if first else (packed[-1], packed[:-1])
            if padding != layout.padding:
                raise damaged(self.name, f"the padding is {padding} bits where the chunk has {layout.padding}")
        elements = np.empty((layout.components, layout.itemsize), np.uint8)
        for begin, end in layout.slabs():
            start = begin * layout.kept // 8
            stored = packed[start : start + -(-(end - begin) * layout.kept // 8)]
            kept = np.unpackbits(stored, bitorder="little", count=(end - begin) * layout.kept).reshape(end - begin, layout.kept)
            elements[begin:end] = _elements(kept, layout)
        return elements.reshape(-1).view(spec.dtype).reshape(spec.shape)

    def encoded_size(self, spec: ChunkSpec) -> int:
        return self._layout(spec).nbytes + (self.padding_encoding != "none")


def _bits(elements: Array, layout: Layout) -> Array:
    """The bits of each element that are kept, from its bytes."""
    if layout.width == 1:
        return elements
    bits = np.unpackbits(_little_endian(elements), axis=1, bitorder="little")
    return bits[:, layout.first : layout.last + 1]


def _elements(kept: Array, layout: Layout) -> Array:
    """The bytes of each element, from the bits of it that were kept."""
    if layout.width == 1:
        return kept
    bits = np.zeros((len(kept), 8 * layout.itemsize), np.uint8)
    bits[:, layout.first : layout.last + 1] = kept
    if layout.signed:
        bits[:, layout.last + 1 : layout.width] = kept[:, -1:]
    return _little_endian(np.packbits(bits, axis=1, bitorder="little"))


def _little_endian(elements: Array) -> Array:
    """The bytes of elements in little-endian order, from or to the machine's own."""
    return elements if sys.byteorder == "little" else elements[:, ::-1]


@dataclass(frozen=True, slots=True)
class NumcodecsPackBits(Unconfigured, ArrayToArrayCodec):
    """Truth values as single bits, the first one in the highest bit, behind a byte with the number of bits that fill the last one."""

    name: ClassVar[str] = "numcodecs.packbits"

    def bind(self, spec: ChunkSpec) -> Self:
        if spec.dtype.kind != "b":
            raise MetadataError(f"codec {self.name!r} takes truth values, not {spec.dtype}")
        return self

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        return replace(spec, shape=(1 + -(-spec.nbytes // 8),), dtype=np.dtype(np.uint8), fill_value=np.uint8(0))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        packed = np.packbits(np.ascontiguousarray(chunk, spec.dtype).reshape(-1))
        return np.concatenate([np.array([-spec.nbytes % 8], np.uint8), packed])

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        if chunk[0] != -spec.nbytes % 8:
            raise damaged(self.name, f"the padding is {chunk[0]} bits where the chunk has {-spec.nbytes % 8}")
        return np.unpackbits(chunk[1:], count=spec.nbytes).view(spec.dtype).reshape(spec.shape)
