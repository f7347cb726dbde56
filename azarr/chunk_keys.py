"""Chunk key encodings (Zarr v3 core, "Chunk key encoding"): the key of a chunk below the prefix of its array."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, cast

from azarr.errors import MetadataError, UnknownExtensionError
from azarr.types import JSON, Coords

Separator = Literal["/", "."]

_SEPARATORS: Final[Mapping[str, Separator]] = {"default": "/", "v2": "."}
"""The encodings there are, each with the separator it has when a document names none."""

# Nineteen digits count further than any store holds, and keep hostile keys from becoming enormous numbers.
_INDEX = re.compile("0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class ChunkKeyEncoding:
    """Chunk coordinates joined by ``separator``, as ``c/1/23`` (``"default"``) or as ``1.23`` (``"v2"``)."""

    name: Literal["default", "v2"] = "default"
    separator: Separator = "/"

    def encode(self, coords: Coords) -> str:
        """The key of the chunk at ``coords``; ``c`` or ``0`` for the one chunk of a scalar array."""
        key = self.separator.join(map(str, coords))
        if self.name == "default":
            return f"c{self.separator}{key}" if coords else "c"
        return key if coords else "0"

    def decode(self, key: str, ndim: int | None = None) -> Coords | None:
        """The coordinates of the chunk at ``key``, or ``None`` where it is no chunk's key.

        With ``ndim``, only of chunks with so many dimensions. Without it the v2 key ``0``, which a scalar array and an array of
        one dimension share, is taken for the latter's.
        """
        if key == self.encode(()) and ndim in ({None, 0} if self.name == "default" else {0}):
            return ()
        start = f"c{self.separator}" if self.name == "default" else ""
        indices = key.removeprefix(start).split(self.separator)
        if not key.startswith(start) or len(indices) != (ndim or len(indices)) or ndim == 0:
            return None
        return tuple(map(int, indices)) if all(map(_INDEX.fullmatch, indices)) else None

    def row_prefix(self, leading: Coords) -> str:
        """What the keys of all chunks that differ in the last coordinate only begin with: their key is this and that coordinate."""
        return "".join([f"c{self.separator}" if self.name == "default" else "", *(f"{index}{self.separator}" for index in leading)])

    def to_json(self) -> JSON:
        """The ``chunk_key_encoding`` member of a v3 document."""
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
    if name not in _SEPARATORS:
        raise UnknownExtensionError(f"{path}: unknown chunk key encoding {name!r:.100}; azarr has 'default' and 'v2'", path=path, name=name)
    configuration = document.get("configuration", {})
    if not isinstance(configuration, Mapping) or configuration.keys() - {"separator"}:
        raise MetadataError(f"{path}: chunk_key_encoding.configuration takes 'separator' only, not {configuration!r:.100}", path=path)
    separator = configuration.get("separator", _SEPARATORS[name])
    if separator not in ("/", "."):
        raise MetadataError(f"{path}: chunk_key_encoding.configuration.separator must be '/' or '.', not {separator!r:.100}", path=path)
    return ChunkKeyEncoding(cast("Literal['default', 'v2']", name), separator)
