"""The ``blosc`` codec (Zarr v3 codecs, "blosc"): Blosc 1 chunks, which shuffle the bytes of elements before they compress them.

Two libraries share the work. blosc2 reads: it is faster, and fills the destination. It cannot write chunks that other
readers understand, so numcodecs writes. Both are imported by whoever first needs them, as each takes 200 ms.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from types import ModuleType
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np

from azarr.codecs import blosc_snappy
from azarr.codecs.base import BytesToBytesCodec, check_keys, integer, wrong_size
from azarr.codecs.damage import damaged
from azarr.codecs.numcodecs_module import numcodecs_module
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Buffer, ChunkSpec

Cname = Literal["blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd"]
Shuffle = Literal["noshuffle", "shuffle", "bitshuffle"]

CNAMES = ("blosclz", "lz4", "lz4hc", "snappy", "zlib", "zstd")
SHUFFLES = ("noshuffle", "shuffle", "bitshuffle")
"""In the order of their numbers in the library."""

AUTOMATIC_SHUFFLE = -1
"""numcodecs' number for "shuffle" or "bitshuffle", whichever suits the elements."""

HEADER = struct.Struct("<BBBBIII")
"""Format version, version of the compressor, flags, typesize, decoded size, block size, encoded size."""

BYTE_SHUFFLED, BIT_SHUFFLED, RESERVED = 0x01, 0x04, 0x08
COMPRESSORS = {0: "blosclz", 1: "lz4", 2: "snappy", 3: "zlib", 4: "zstd"}
"""By their number in the upper three bits of the flags."""

MAX_NBYTES = 2**31 - 1 - HEADER.size
"""The most that one Blosc chunk can hold."""


@cache
def _blosc2_decompress() -> Callable[..., None]:
    import blosc2  # noqa: PLC0415  # slow, see above

    # A flag of the whole process, and off by default: without it threads would decode one after another.
    blosc2.set_releasegil(True)
    return cast("Callable[..., None]", blosc2.decompress2)


@cache
def _numcodecs() -> ModuleType:
    blosc = numcodecs_module("blosc")
    # A flag of the whole process. In the main thread numcodecs would otherwise start threads of its own, under a lock that
    # every compression has to wait for; what runs in parallel here is chunks.
    blosc.__dict__["use_threads"] = False
    return blosc


@dataclass(frozen=True, slots=True)
class Blosc(BytesToBytesCodec):
    """Compression of elements whose bytes, or bits, are sorted by significance first.

    ``clevel`` runs from 0 (stored) to 9 (small); ``blocksize`` 0 leaves the size of the blocks to the library. Where
    ``typesize`` is ``None`` it becomes the size of an element as soon as the codec is bound to a chunk, and ``shuffle``
    becomes "bitshuffle" for elements of one byte, "shuffle" for others.
    """

    name: ClassVar[str] = "blosc"
    cname: Cname = "zstd"
    clevel: int = 5
    shuffle: Shuffle | None = None
    typesize: int | None = None
    blocksize: int = 0

    def __post_init__(self) -> None:
        if self.cname not in CNAMES:
            raise MetadataError(f"codec 'blosc': cname must be one of {', '.join(CNAMES)}, not {self.cname!r:.100}")
        if self.shuffle is not None and self.shuffle not in SHUFFLES:
            raise MetadataError(f"codec 'blosc': shuffle must be one of {', '.join(SHUFFLES)}, not {self.shuffle!r:.100}")
        numbers: dict[str, JSON] = {"clevel": self.clevel, "blocksize": self.blocksize, "typesize": self.typesize}
        integer(self.name, numbers, "clevel", 0, 9)
        integer(self.name, numbers, "blocksize", 0, 2**31 - 1)
        if self.typesize is not None:
            integer(self.name, numbers, "typesize", 1, 2**31 - 1)

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        required = {"cname", "clevel", "shuffle"} | ({"typesize"} if configuration.get("shuffle") != "noshuffle" else set())
        check_keys(cls.name, configuration, frozenset({"cname", "clevel", "shuffle", "typesize", "blocksize"}), frozenset(required))
        if absent := sorted(key for key, value in configuration.items() if value is None):
            raise MetadataError(f"codec 'blosc': {', '.join(absent)} must not be null")
        return cls(**cast("dict[str, Any]", configuration))  # checked by __post_init__

    @property
    def releases_gil(self) -> bool:
        return self.cname != "snappy"

    @classmethod
    def from_numcodecs(cls, configuration: Mapping[str, JSON]) -> Self:
        """The codec for a configuration of numcodecs: shuffle is a number, -1 to choose by the element, and all have defaults."""
        check_keys("numcodecs.blosc", configuration, frozenset({"cname", "clevel", "shuffle", "typesize", "blocksize"}))
        shuffle = configuration.get("shuffle", 1)
        if type(shuffle) is not int or not AUTOMATIC_SHUFFLE <= shuffle < len(SHUFFLES):
            raise MetadataError(f"shuffle of the blosc compressor must be -1, 0, 1 or 2, not {shuffle!r:.100}")
        name = None if shuffle == AUTOMATIC_SHUFFLE else SHUFFLES[shuffle]
        rest = {key: value for key, value in configuration.items() if key != "shuffle"}
        return cls(**cast("dict[str, Any]", {"cname": "lz4", **rest, "shuffle": name}))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        """The configuration as it stands in v3 metadata, which a codec has only when it is bound or complete."""
        optional = {"shuffle": self.shuffle, "typesize": self.typesize}
        present = {key: value for key, value in optional.items() if value is not None}
        return {"cname": self.cname, "clevel": self.clevel, **present, "blocksize": self.blocksize}

    def bind(self, spec: ChunkSpec) -> Self:
        typesize = self.typesize or (1 if spec.variable else max(spec.dtype.itemsize, 1))
        return replace(self, typesize=typesize, shuffle=self.shuffle or ("bitshuffle" if typesize == 1 else "shuffle"))

    def unbound(self, spec: ChunkSpec) -> Self:
        free = replace(self, typesize=None)
        return free if free.bind(spec).typesize == self.typesize else self

    def encode(self, data: Buffer) -> Buffer:
        if len(data) > MAX_NBYTES:
            message = f"cannot compress {len(data)} bytes, more than the {MAX_NBYTES} of one Blosc chunk; use smaller chunks"
            raise CodecError(message, codec=self.name)
        if self.cname == "snappy":
            raise CodecError("cannot compress with cname 'snappy', which Blosc libraries now lack; use another", codec=self.name)
        shuffle = SHUFFLES.index(self.shuffle or "noshuffle")
        try:
            encoded = _numcodecs().compress(data, self.cname.encode(), self.clevel, shuffle, self.blocksize, self.typesize or 1)
        except (RuntimeError, ValueError) as error:
            raise CodecError(f"cannot compress {len(data)} bytes ({error})", codec=self.name) from error
        return cast("bytes", encoded)

    def stated_size(self, data: Buffer) -> int:
        if len(data) < HEADER.size:
            raise damaged(self.name, f"{len(data)} bytes cannot hold a header")
        return int(HEADER.unpack_from(data)[4])

    def decode(self, data: Buffer, limit: int) -> Buffer:
        nbytes = self.stated_size(data)
        if nbytes > limit:
            raise wrong_size(self.name, nbytes, limit)
        out = np.empty(nbytes, np.uint8).data  # a bytearray would be filled with zeros first
        self.decode_into(data, out)
        return out

    def decode_into(self, data: Buffer, out: memoryview) -> None:
        if len(data) < HEADER.size:
            raise damaged(self.name, f"{len(data)} bytes cannot hold a header")
        # The libraries trust the header: they would write past ``out`` and read past ``data``.
        version, _, flags, typesize, nbytes, _, cbytes = HEADER.unpack_from(data)
        if nbytes != len(out):
            raise wrong_size(self.name, nbytes, len(out))
        if version > 2 or not HEADER.size <= cbytes <= len(data) or not _is_blosc1(flags):
            raise _bad_header(version, cbytes, len(data))
        if not nbytes:
            return
        if COMPRESSORS.get(flags >> 5) == "snappy":
            blosc_snappy.decode_into(data, out)
            return
        try:
            # blosc2 gets the end of bit-shuffled chunks wrong where it is not a whole element.
            if flags & BIT_SHUFFLED and typesize > 1 and nbytes % typesize:
                _numcodecs().decompress(data, out)
            else:
                _blosc2_decompress()(data, out, nthreads=1)
        except (RuntimeError, ValueError) as error:
            raise damaged(self.name, f"cannot decompress ({error})") from error


def _is_blosc1(flags: int) -> bool:
    """Whether a Blosc 1 reader can have written these flags, for a compressor that there is.

    Others would switch on features of Blosc 2, among them extended headers, filters across chunks and plug-ins.
    """
    both = BYTE_SHUFFLED | BIT_SHUFFLED
    return flags & both != both and not flags & RESERVED and flags >> 5 in COMPRESSORS


def _bad_header(version: int, cbytes: int, nbytes: int) -> CodecError:
    """The error for a header that must not reach a library."""
    if version > 2:
        return CodecError(f"the value is of format version {version} where Blosc 1 has 2; write it again as Blosc 1", codec="blosc")
    if cbytes > nbytes:
        return damaged("blosc", f"there are {nbytes} bytes where the header says {cbytes}")
    return damaged("blosc", "the header is not one of Blosc 1")
