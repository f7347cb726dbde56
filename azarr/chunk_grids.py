"""Chunk grids (Zarr v3 core, "Chunk grids"): how an array is cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from azarr.errors import MetadataError, UnknownExtensionError
from azarr.types import JSON, Coords


@dataclass(frozen=True, slots=True)
class RegularGrid:
    """Chunks of one ``chunk_shape``, the last of each dimension hanging over the edge of an array of ``shape``."""

    shape: tuple[int, ...]
    chunk_shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.chunk_shape) != len(self.shape):
            raise MetadataError(
                f"chunk shape {self.chunk_shape} has {len(self.chunk_shape)} dimensions where the array has {len(self.shape)}"
            )
        if any(length < 1 for length in self.chunk_shape):
            raise MetadataError(f"chunk shape {self.chunk_shape} must be at least 1 in every dimension")

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """The number of chunks along each dimension; 0 where the array is empty."""
        return tuple(-(-length // chunk) for length, chunk in zip(self.shape, self.chunk_shape, strict=True))

    @property
    def nchunks(self) -> int:
        """The number of chunks in all."""
        return math.prod(self.grid_shape)

    def region(self, coords: Coords) -> tuple[slice, ...]:
        """The part of the array that the chunk at ``coords`` holds, cut at the array's edge."""
        return tuple(
            slice(index * chunk, min(index * chunk + chunk, length))
            for index, chunk, length in zip(coords, self.chunk_shape, self.shape, strict=True)
        )

    def to_json(self) -> JSON:
        """The ``chunk_grid`` member of a v3 document."""
        return {"name": "regular", "configuration": {"chunk_shape": list(self.chunk_shape)}}


def parse_chunk_grid(document: JSON, shape: tuple[int, ...], path: str) -> RegularGrid:
    """The grid that a v3 ``chunk_grid`` member describes for an array of ``shape``; ``MetadataError`` where it is not legal."""
    if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
        raise MetadataError(f"{path}: chunk_grid must be an object with a name, not {document!r:.100}", path=path)
    if document.get("must_understand", True) is not True:
        raise MetadataError(f"{path}: chunk_grid must be understood; 'must_understand': false is not legal here", path=path)
    name = document["name"]
    if name != "regular":
        raise UnknownExtensionError(f"{path}: unknown chunk grid {name!r}; azarr has 'regular'", path=path, name=str(name))
    configuration = document.get("configuration")
    chunk_shape = configuration.get("chunk_shape") if isinstance(configuration, Mapping) else None
    if not isinstance(chunk_shape, list) or any(isinstance(n, bool) or not isinstance(n, int) for n in chunk_shape):
        raise MetadataError(
            f"{path}: chunk_grid.configuration.chunk_shape must be a list of whole numbers, not {chunk_shape!r:.100}", path=path
        )
    try:
        return RegularGrid(shape, tuple(chunk_shape))
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}", path=path) from None
