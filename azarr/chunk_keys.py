"""Chunk key encodings (Zarr v3 core, "Chunk key encoding"): the key of a chunk below the prefix of its array."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from azarr.errors import MetadataError, UnknownExtensionError
from azarr.registry import OWN, Entry, Registration, Registry, callable_of
from azarr.types import JSON, Coords

Separator = Literal["/", "."]

# Nineteen digits count further than any store holds, and keep hostile keys from becoming enormous numbers.
_INDEX = re.compile("0|[1-9][0-9]{0,18}")


class ChunkKeyEncoding(ABC):
    """From the coordinates of chunks to their keys, below the prefix of the array, and back. Its instances are immutable."""

    name: str
    """The name in v3 metadata."""

    @abstractmethod
    def encode(self, coords: Coords) -> str:
        """The key of the chunk at ``coords``, one for each; a scalar array has one chunk, at ``()``."""

    @abstractmethod
    def decode(self, key: str, ndim: int | None = None) -> Coords | None:
        """The coordinates of the chunk at ``key``, or ``None`` where it is no chunk's key; with ``ndim``, only so many coordinates."""

    @abstractmethod
    def to_json(self) -> JSON:
        """The ``chunk_key_encoding`` member of a v3 document."""

    def row_prefix(self, leading: Coords) -> str | None:
        """What all keys of chunks at ``leading`` are with the last coordinate, in decimal, behind it; ``None`` where they end otherwise."""
        del leading
        return None


@dataclass(frozen=True, slots=True)
class SeparatedKeys(ChunkKeyEncoding):
    """Chunk coordinates joined by ``separator``, as ``c/1/23`` (``"default"``) or as ``1.23`` (``"v2"``)."""

    name: Literal["default", "v2"] = "default"
    separator: Separator = "/"

    def encode(self, coords: Coords) -> str:
        """The key; ``c`` or ``0`` for the one chunk of a scalar array."""
        key = self.separator.join(map(str, coords))
        if self.name == "default":
            return f"c{self.separator}{key}" if coords else "c"
        return key if coords else "0"

    def decode(self, key: str, ndim: int | None = None) -> Coords | None:
        """The coordinates. Without ``ndim`` the v2 key ``0``, which a scalar array and one of one dimension share, is the latter's."""
        if key == self.encode(()) and ndim in ({None, 0} if self.name == "default" else {0}):
            return ()
        start = f"c{self.separator}" if self.name == "default" else ""
        indices = key.removeprefix(start).split(self.separator)
        if not key.startswith(start) or len(indices) != (ndim or len(indices)) or ndim == 0:
            return None
        return tuple(map(int, indices)) if all(map(_INDEX.fullmatch, indices)) else None

    def row_prefix(self, leading: Coords) -> str:
        return "".join([f"c{self.separator}" if self.name == "default" else "", *(f"{index}{self.separator}" for index in leading)])

    def to_json(self) -> JSON:
        return {"name": self.name, "configuration": {"separator": self.separator}}


def parse_chunk_key_encoding(document: JSON, path: str) -> ChunkKeyEncoding:
    """The encoding that a v3 ``chunk_key_encoding`` member describes.

    ``UnknownExtensionError`` where azarr has none of its name, ``MetadataError`` where the member is not legal.
    """
    if isinstance(document, str):
        document = {"name": document}
    name = document.get("name") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(name, str):
        raise MetadataError(f"{path}: chunk_key_encoding must be a name, or an object with a name, not {document!r:.100}", path=path)
    if unknown := document.keys() - {"name", "configuration", "must_understand"}:
        raise MetadataError(f"{path}: chunk_key_encoding {name!r} has unknown members {sorted(unknown)!r:.100}", path=path)
    if document.get("must_understand", True) is not True:
        raise MetadataError(f"{path}: chunk_key_encoding must be understood; 'must_understand': false is not legal here", path=path)
    configuration = document.get("configuration", {})
    if not isinstance(configuration, Mapping):
        raise MetadataError(f"{path}: chunk_key_encoding.configuration must be an object, not {configuration!r:.100}", path=path)
    make = CHUNK_KEY_ENCODINGS.get(name)
    if make is None:
        message = f"unknown chunk key encoding {name!r:.100}; azarr has {', '.join(CHUNK_KEY_ENCODINGS.names)}, and no plug-in has it"
        raise UnknownExtensionError(f"{path}: {message}", path=path, name=name)
    try:
        return make(configuration)
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}", path=path) from None


Maker: TypeAlias = Callable[[Mapping[str, JSON]], ChunkKeyEncoding]
"""How an encoding is made from its ``configuration``; ``MetadataError`` where that is not legal."""


def _separated(name: Literal["default", "v2"], usual: Separator) -> Maker:
    def make(configuration: Mapping[str, JSON]) -> SeparatedKeys:
        if configuration.keys() - {"separator"}:
            raise MetadataError(f"chunk_key_encoding.configuration takes 'separator' only, not {configuration!r:.100}")
        separator = configuration.get("separator", usual)
        if separator not in ("/", "."):
            raise MetadataError(f"chunk_key_encoding.configuration.separator must be '/' or '.', not {separator!r:.100}")
        return SeparatedKeys(name, separator)

    return make


CHUNK_KEY_ENCODINGS: Registry[Maker] = Registry(
    "chunk key encoding",
    (Entry(("default",), _separated("default", "/"), OWN), Entry(("v2",), _separated("v2", "."), OWN)),
    ("azarr.chunk_key_encodings",),
    callable_of("a function from a configuration to a ChunkKeyEncoding"),
)
"""Every chunk key encoding by its name in v3 metadata."""


def register_chunk_key_encoding(name: str, make: Maker, *, aliases: Iterable[str] = (), replace: bool = False) -> Registration:
    """Make a chunk key encoding known in this process under the ``name`` that it has in v3 metadata, and under ``aliases``, for reading.

    Args:
        name: As its ``ChunkKeyEncoding.name``.
        make: The encoding for a configuration, an empty one where the metadata have none; ``MetadataError`` where that is not legal.
        aliases: Further names.
        replace: Put it before another encoding of the same name instead of raising.

    Returns:
        What undoes it, also as a context manager.

    Raises:
        RegistrationError: There is an encoding of that name.
        TypeError: ``make`` cannot be called.

    """
    return CHUNK_KEY_ENCODINGS.register(name, make, aliases=aliases, replace=replace)
