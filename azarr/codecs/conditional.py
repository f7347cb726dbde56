"""The ``conditional`` codec (zarr-extensions, "conditional"): compressors of which each chunk says whether they were applied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

from azarr.codecs.base import BytesToBytesCodec, Codec, check_keys, integer, too_large
from azarr.codecs.damage import damaged
from azarr.errors import MetadataError
from azarr.types import Bound, Buffer, ChunkSpec


@dataclass(frozen=True, slots=True)
class Conditional(BytesToBytesCodec):
    """``codecs`` in order; one that would make a chunk larger is left out of it, and the header of ``header_bits`` bits says so."""

    name: ClassVar[str] = "conditional"
    nested: ClassVar[frozenset[str]] = frozenset({"codecs"})
    codecs: tuple[Codec, ...]
    header_bits: int | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(codec, BytesToBytesCodec) for codec in self.codecs):
            names = [codec.name for codec in self.codecs if not isinstance(codec, BytesToBytesCodec)]
            raise MetadataError(f"codec 'conditional' holds codecs from bytes to bytes, not {', '.join(names)}")
        if self.header_bits is not None:
            bits = integer(self.name, {"header_bits": self.header_bits}, "header_bits", len(self.codecs), 2**16)
            if bits % 8:
                raise MetadataError(f"codec 'conditional': header_bits must be a multiple of 8, not {bits}")

    @property
    def releases_gil(self) -> bool:
        return all(codec.releases_gil for codec in self.codecs)

    @property
    def _steps(self) -> list[BytesToBytesCodec]:
        return [codec for codec in self.codecs if isinstance(codec, BytesToBytesCodec)]

    @property
    def _header_nbytes(self) -> int:
        return -(-len(self.codecs) // 8) if self.header_bits is None else self.header_bits // 8

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, Any]) -> Self:
        check_keys(cls.name, configuration, frozenset({"codecs", "header_bits"}), frozenset({"codecs"}))
        return cls(configuration["codecs"], configuration.get("header_bits"))

    def configuration(self) -> dict[str, Any]:
        bits = {} if self.header_bits is None else {"header_bits": self.header_bits}
        return {"codecs": self.codecs, **bits}

    def bind(self, spec: ChunkSpec) -> Self:
        return replace(self, codecs=tuple(codec.bind(spec) for codec in self.codecs))

    def encode(self, data: Buffer) -> Buffer:
        applied = 0
        for number, codec in enumerate(self._steps):
            encoded = codec.encode(data)
            # what guards or rearranges is meant for every chunk; what compresses, for those that it makes smaller
            if codec.encoded_size(len(data)) is not None or len(encoded) < len(data):
                applied |= 1 << number
                data = encoded
        return b"".join((applied.to_bytes(self._header_nbytes, "little"), data))

    def decode(self, data: Buffer, limit: int) -> Buffer:
        return self.decode_within(data, Bound.fixed(limit))

    def decode_within(self, data: Buffer, bound: Bound) -> Buffer:
        size, view = self._header_nbytes, memoryview(data)
        if len(view) < size:
            raise damaged(self.name, f"{len(view)} bytes cannot hold a header of {size}")
        applied, rest = int.from_bytes(view[:size], "little"), view[size:]
        if applied >> len(self.codecs):
            raise damaged(self.name, f"the header {applied:#x} names more codecs than the {len(self.codecs)} that there are")
        steps: list[tuple[BytesToBytesCodec, Bound]] = []
        for number, codec in enumerate(self._steps):
            if applied >> number & 1:
                steps.append((codec, bound))
                most, free = codec.max_encoded_size(bound.most), codec.max_encoded_size(bound.free)
                bound = bound._replace(most=most, free=free)
        decoded: Buffer = rest
        for codec, within in reversed(steps):
            decoded = codec.decode_within(decoded, within)
        if not steps and len(decoded) > bound.after(len(rest)):
            raise too_large(self.name, bound, len(rest))
        return decoded

    def max_encoded_size(self, nbytes: int) -> int:
        for codec in self._steps:
            nbytes = max(nbytes, codec.max_encoded_size(nbytes))
        return nbytes + self._header_nbytes
