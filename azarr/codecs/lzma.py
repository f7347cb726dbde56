"""The ``numcodecs.lzma`` codec: LZMA as xz files, as the older ``.lzma`` files, or bare."""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Final, Self, cast

from azarr.codecs.base import BytesToBytesCodec, check_keys, integer
from azarr.codecs.damage import damaged
from azarr.codecs.members import decode_members
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Bound, Buffer

MEMORY_NBYTES: Final = 512 * 2**20
"""What a decoder may ask for: eight times what the strongest preset needs."""

MAX_FILTERS: Final = 4
"""What a chain of LZMA can have."""

SMALL_NBYTES: Final = 2**16
_WITH_DICTIONARY: Final = (lzma.FILTER_LZMA1, lzma.FILTER_LZMA2)
_FILTER_KEYS: Final = frozenset({"id", "preset", "dict_size", "lc", "lp", "pb", "mode", "nice_len", "mf", "depth", "dist", "start_offset"})
_FORMATS: Final = (lzma.FORMAT_XZ, lzma.FORMAT_ALONE, lzma.FORMAT_RAW)

Filter = tuple[tuple[str, int], ...]
"""One filter of a chain: its id and its options."""


@dataclass(frozen=True, slots=True)
class Lzma(BytesToBytesCodec):
    """Slow and small. ``format`` is 1 (xz), 2 (alone) or 3 (raw, which needs ``filters``), as in Python's ``lzma`` module.

    ``check`` is the kind of checksum that xz adds (-1: the usual one), ``preset`` runs from 0 to 9 and stands for ``filters``.
    """

    name: ClassVar[str] = "numcodecs.lzma"
    format: int = lzma.FORMAT_XZ
    check: int = -1
    preset: int | None = None
    filters: tuple[Filter, ...] | None = None

    def __post_init__(self) -> None:
        numbers: dict[str, JSON] = {"format": self.format, "check": self.check, "preset": self.preset}
        integer(self.name, numbers, "format", _FORMATS[0], _FORMATS[-1])
        integer(self.name, numbers, "check", -1, 15)
        if self.preset is not None:
            integer(self.name, numbers, "preset", 0, 9 | lzma.PRESET_EXTREME)
        if self.format == lzma.FORMAT_RAW and self.filters is None:
            raise MetadataError("codec 'numcodecs.lzma': format 3 (raw) needs filters, as its bytes do not say how to decode them")
        if self.format == lzma.FORMAT_RAW and self.filters is not None:
            small = [_with_small_dictionary(dict(each)) for each in self.filters]
            try:
                lzma.LZMADecompressor(self.format, filters=small)
            except (lzma.LZMAError, ValueError, TypeError, OverflowError, MemoryError) as error:
                raise MetadataError(f"codec 'numcodecs.lzma': filters {self.filters!r:.100} are not a chain of LZMA ({error})") from None

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"format", "check", "preset", "filters"}))
        rest = cast("dict[str, Any]", {key: value for key, value in configuration.items() if key != "filters"})
        return cls(**rest, filters=_parse_filters(configuration.get("filters")))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        filters = None if self.filters is None else [dict(each) for each in self.filters]
        return {"format": self.format, "check": self.check, "preset": self.preset, "filters": filters}

    def encode(self, data: Buffer) -> Buffer:
        filters = None if self.filters is None else [dict(each) for each in self.filters]
        try:
            return lzma.compress(data, self.format, self.check, self.preset, filters)
        except (lzma.LZMAError, ValueError, MemoryError) as error:
            raise CodecError(f"cannot compress {len(data)} bytes ({error}); change the configuration", codec=self.name) from error

    def decode(self, data: Buffer, limit: int) -> Buffer:
        return self.decode_within(data, Bound.fixed(limit))

    def decode_within(self, data: Buffer, bound: Bound) -> Buffer:
        if not data:
            raise damaged(self.name, "there are no bytes")
        return decode_members(self.name, data, bound, self._decoder, (lzma.LZMAError, EOFError, MemoryError))

    @property
    def _decoder(self) -> partial[lzma.LZMADecompressor]:
        if self.format == lzma.FORMAT_RAW and self.filters is not None:
            return partial(lzma.LZMADecompressor, self.format, filters=[dict(each) for each in self.filters])
        # The other formats say themselves how to decode them; Python refuses filters there.
        return partial(lzma.LZMADecompressor, self.format, memlimit=MEMORY_NBYTES)


def _with_small_dictionary(options: dict[str, int]) -> dict[str, int]:
    """The options of a filter, to see whether they are legal without the memory that they ask for."""
    if options["id"] not in _WITH_DICTIONARY:
        return options
    return {**options, "dict_size": min(options.get("dict_size", SMALL_NBYTES), SMALL_NBYTES)}


def _parse_filters(document: JSON) -> tuple[Filter, ...] | None:
    if document is None:
        return None
    if isinstance(document, list | tuple) and len(document) > MAX_FILTERS:
        raise MetadataError(f"codec 'numcodecs.lzma': filters may have {MAX_FILTERS} filters, not {len(document)}")
    if not isinstance(document, list | tuple) or not all(isinstance(each, Mapping) and "id" in each for each in document):
        raise MetadataError(f"codec 'numcodecs.lzma': filters must be a list of objects with an id, not {document!r:.100}")
    filters = tuple(tuple((str(key), value) for key, value in each.items()) for each in cast("list[dict[str, int]]", document))
    for each in filters:
        for key, value in each:
            if key not in _FILTER_KEYS or type(value) is not int or not 0 <= value < 2**32:
                raise MetadataError(f"codec 'numcodecs.lzma': {key!r:.40} of a filter must not be {value!r:.40}")
            if key == "dict_size" and value > MEMORY_NBYTES:
                raise MetadataError(f"codec 'numcodecs.lzma': dict_size {value} is more than the {MEMORY_NBYTES} bytes that are accepted")
    return filters
