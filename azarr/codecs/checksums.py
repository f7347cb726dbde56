"""The checksums of numcodecs (spec of their ``numcodecs.*`` names: numcodecs, "Checksum codecs"): 32 bits before or behind the bytes.

``crc32c``, which Zarr v3 has of its own, is in ``crc32c.py``.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar, Literal, Self, cast

import numpy as np

from azarr.codecs.base import BytesToBytesCodec, Codec, Unconfigured, check_keys, integer, wrong_size
from azarr.codecs.crc32c import Crc32c
from azarr.codecs.damage import damaged
from azarr.codecs.numcodecs_module import numcodecs_module
from azarr.errors import ChecksumError, MetadataError
from azarr.types import JSON, Array, Buffer

Location = Literal["start", "end"]

NBYTES = 4
"""What every checksum here takes."""


class Checksum(BytesToBytesCodec):
    """A checksum that finds out whether the bytes changed since they were written."""

    @property
    @abstractmethod
    def place(self) -> Location:
        """Where the checksum stands: before the bytes, or behind them."""

    @abstractmethod
    def checksum(self, data: Buffer) -> int:
        """The checksum of ``data``."""

    def encode(self, data: Buffer) -> Buffer:
        stored = self.checksum(data).to_bytes(NBYTES, "little")
        return b"".join((stored, data) if self.place == "start" else (data, stored))

    def decode(self, data: Buffer, limit: int) -> Buffer:
        """The bytes without the checksum, a view of ``data``."""
        view = memoryview(data)
        if len(view) < NBYTES:
            raise damaged(self.name, f"{len(view)} bytes cannot hold a checksum")
        if len(view) - NBYTES > limit:
            raise wrong_size(self.name, len(view) - NBYTES, limit)
        at_start = self.place == "start"
        stored, payload = (view[:NBYTES], view[NBYTES:]) if at_start else (view[-NBYTES:], view[:-NBYTES])
        expected, actual = int.from_bytes(stored, "little"), self.checksum(payload)
        if expected != actual:
            raise damaged(self.name, f"the checksum is {actual:08x} where {expected:08x} is stored", ChecksumError)
        return payload

    def encoded_size(self, nbytes: int) -> int | None:
        return nbytes + NBYTES


@dataclass(frozen=True, slots=True)
class _Located(Checksum):
    """A checksum that may stand at either end."""

    location: Location | None = None

    usual: ClassVar[Location] = "start"
    """Where it stands unless the configuration says otherwise."""

    def __post_init__(self) -> None:
        if self.location not in ("start", "end", None):
            raise MetadataError(f"codec {self.name!r}: location must be 'start' or 'end', not {self.location!r:.100}")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"location"}))
        location = cls(cast("Location | None", configuration.get("location"))).location
        return cls(None if location == cls.usual else location)

    def configuration(self) -> dict[str, JSON]:
        return {} if self.location is None else {"location": self.location}

    @property
    def place(self) -> Location:
        return self.location or self.usual


class Crc32(_Located):
    """CRC-32, as gzip and zip have it; before the bytes unless ``location`` is ``"end"``."""

    __slots__ = ()
    name: ClassVar[str] = "numcodecs.crc32"

    def checksum(self, data: Buffer) -> int:
        return zlib.crc32(data)


class Adler32(_Located):
    """Adler-32, as zlib has it; before the bytes unless ``location`` is ``"end"``."""

    __slots__ = ()
    name: ClassVar[str] = "numcodecs.adler32"

    def checksum(self, data: Buffer) -> int:
        return zlib.adler32(data)


class LocatedCrc32c(_Located):
    """CRC-32C before the bytes, which numcodecs can write; behind them it is the codec ``crc32c``."""

    __slots__ = ()
    name: ClassVar[str] = "numcodecs.crc32c"
    usual: ClassVar[Location] = "end"

    @classmethod
    def from_numcodecs(cls, configuration: Mapping[str, JSON]) -> Codec:
        located = cls.from_configuration(configuration)
        return located if located.place == "start" else Crc32c()

    def checksum(self, data: Buffer) -> int:
        return int.from_bytes(memoryview(Crc32c().encode(data))[-NBYTES:], "little")


@dataclass(frozen=True, slots=True)
class Fletcher32(Unconfigured, Checksum):
    """The checksum of HDF5 and netCDF, behind the bytes."""

    name: ClassVar[str] = "numcodecs.fletcher32"

    @property
    def place(self) -> Location:
        return "end"

    def checksum(self, data: Buffer) -> int:
        return fletcher32(data)


ROW = 4096
"""Words that are summed at once; their weighted sums stay exact in 64 bits."""

_WEIGHTS = np.arange(ROW, 0, -1, dtype=np.uint64)


def fletcher32(data: Buffer) -> int:
    """Fletcher's checksum over 16-bit words, high byte first, as HDF5 computes it.

    The first sum adds the words, the second one adds the first sum after each word, so that every word counts as often as there
    are words from it on. HDF5 folds both to 16 bits now and then: that is the remainder by 65535, with 65535 for a nonzero 0.
    """
    words = np.frombuffer(data, ">u2", len(data) // 2)
    first = second = 0
    whole = len(words) // ROW * ROW
    for row in words[:whole].reshape(-1, ROW):
        first, second = _add(row.astype(np.uint64), first, second)
    first, second = _add(words[whole:].astype(np.uint64), first, second)
    if len(data) % 2:
        first += memoryview(data)[-1] << 8
        second += first
    return _fold(second) << 16 | _fold(first)


def _add(words: Array, first: int, second: int) -> tuple[int, int]:
    count = len(words)
    return first + int(words.sum()), second + count * first + int((words * _WEIGHTS[ROW - count :]).sum())


def _fold(total: int) -> int:
    return total % 65535 or (65535 if total else 0)


@cache
def _lookup3() -> Callable[[Any, int], int]:
    return cast("Callable[[Any, int], int]", numcodecs_module("jenkins").jenkins_lookup3)


@dataclass(frozen=True, slots=True)
class JenkinsLookup3(Checksum):
    """Bob Jenkins' lookup3, the checksum of HDF5's own metadata, behind the bytes; ``initval`` is what it starts from."""

    name: ClassVar[str] = "numcodecs.jenkins_lookup3"
    initval: int = 0

    def __post_init__(self) -> None:
        integer(self.name, {"initval": self.initval}, "initval", 0, 2**32 - 1)

    @property
    def releases_gil(self) -> bool:
        return False

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"initval", "prefix"}))
        if configuration.get("prefix") is not None:
            raise MetadataError("codec 'numcodecs.jenkins_lookup3' with a prefix is not supported, as bytes have no form in JSON")
        return cls(cast("int", configuration.get("initval", 0)))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {"initval": self.initval, "prefix": None}

    @property
    def place(self) -> Location:
        return "end"

    def checksum(self, data: Buffer) -> int:
        return int(_lookup3()(np.frombuffer(data, np.uint8), self.initval))
