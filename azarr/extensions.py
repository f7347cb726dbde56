"""What azarr supports in this process: data types, codecs, chunk grids, chunk key encodings and the schemes of URLs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from azarr import plugins
from azarr.chunk_grids import CHUNK_GRIDS
from azarr.chunk_keys import CHUNK_KEY_ENCODINGS
from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, Codec
from azarr.codecs.registry import CODECS
from azarr.data_types.registry import DATA_TYPES
from azarr.data_types.small import ML
from azarr.data_types.small import NAMES as SMALL
from azarr.extras import Extra
from azarr.metadata.v2_codecs import id_in_v2
from azarr.metadata.v2_data_types import form_of
from azarr.registry import OWN, Registry
from azarr.stores.urls import STORES

KINDS: Final = ("array-to-array codec", "array-to-bytes codec", "bytes-to-bytes codec")
"""The kinds of codec, in the order in which they encode."""

_IN_V2: Final = {"bytes": "the byte order of dtype", "transpose": "order", "regular": "chunks", "v2": "dimension_separator"}
"""What v2 has no name of its own for, by its name in v3."""


@dataclass(frozen=True, slots=True)
class Extension:
    """One thing that azarr supports.

    ``name`` and ``aliases`` are those of v3 metadata (the first is written, all are read), or the scheme of URLs. ``in_v2`` is what
    stands for it in Zarr v2, ``None`` where nothing does. ``source`` is "azarr", the distribution of a plug-in, or the module of the
    program that registered it. ``extra`` is what has to be installed with azarr to use it; ``ready`` says whether it is. A plug-in
    that nobody has asked for yet has not been loaded; what it supports besides its name shows when it is.
    """

    kind: str
    name: str
    aliases: tuple[str, ...] = ()
    in_v2: str | None = None
    source: str = OWN
    extra: str | None = None
    ready: bool = True
    loaded: bool = True


class Supported(tuple[Extension, ...]):
    """Extensions, which ``print`` shows as a table."""

    __slots__ = ()

    def __str__(self) -> str:
        rows = [("kind", "name", "also read as", "Zarr v2", "from"), *map(_row, self)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def supported(kind: str = "") -> Supported:
    """What azarr supports in this process, with what has been registered and what plug-ins bring; without importing any of them.

    ``kind`` leaves only those in whose kind it occurs: ``"codec"``, ``"data type"``, ``"chunk grid"``, ``"chunk key encoding"``,
    ``"URL scheme"``, or a part of it.
    """
    return Supported(each for each in _extensions() if kind in each.kind)


def _extensions() -> Iterator[Extension]:
    for type_ in DATA_TYPES.entries:
        yield _with_extra(ML if type_.names[0] in SMALL else None, "data type", type_.names, form_of(type_.names[0]), type_.source)
    yield Extension("data type", "r<N>", in_v2=form_of("r<N>"))
    yield from _waiting(DATA_TYPES)
    for codec in sorted(CODECS.entries, key=lambda entry: (KINDS.index(kind_of(entry.value)), entry.value.name)):
        name = codec.value.name if codec.value.name in codec.names else codec.names[0]
        in_v2 = id_in_v2(codec.value) or _IN_V2.get(name)
        yield _with_extra(codec.value.extra, kind_of(codec.value), (name, *codec.names), in_v2, codec.source)
    yield from _waiting(CODECS)
    yield from (Extension("chunk grid", name, in_v2=_IN_V2.get(name)) for name in CHUNK_GRIDS)
    for keys in CHUNK_KEY_ENCODINGS.entries:
        yield _with_extra(None, "chunk key encoding", keys.names, _IN_V2.get(keys.names[0]), keys.source)
    yield from _waiting(CHUNK_KEY_ENCODINGS)
    for store in STORES.entries:
        yield _with_extra(store.extra, "URL scheme", store.names, None, store.source)
    yield from _waiting(STORES)


def _with_extra(extra: Extra | None, kind: str, names: tuple[str, ...], in_v2: str | None, source: str) -> Extension:
    name, *aliases = dict.fromkeys(names)
    needed, ready = (None, True) if extra is None else (extra.name, extra.installed)
    return Extension(kind, name, tuple(aliases), in_v2, source, needed, ready)


def _waiting(registry: Registry[Any]) -> Iterator[Extension]:
    for point in registry.waiting:
        yield Extension(registry.kind, point.name, source=plugins.distribution(point), loaded=False)


def kind_of(codec: type[Codec]) -> str:
    """Which of the three kinds of codec it is."""
    return KINDS[0 if issubclass(codec, ArrayToArrayCodec) else 1 if issubclass(codec, ArrayToBytesCodec) else 2]


def _row(extension: Extension) -> tuple[str, ...]:
    needs = "" if extension.ready else f', needs pip install "{OWN}[{extension.extra}]"'
    source = extension.source + needs + ("" if extension.loaded else ", not loaded yet")
    return extension.kind, extension.name, ", ".join(extension.aliases), extension.in_v2 or "", source
