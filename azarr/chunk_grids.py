"""Chunk grids (Zarr v3 core, "Chunk grids"; zarr-extensions, "rectilinear"): how an array is cut into chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, TypeAlias, cast

from azarr.chunk_lengths import ChunkLengths, count_of, lengthened, parse_chunk_lengths, start_of
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
                f"chunk shape {self.chunk_shape!s:.100} has {len(self.chunk_shape)} dimensions where the array has {len(self.shape)}"
            )
        if any(length < 1 for length in self.chunk_shape):
            raise MetadataError(f"chunk shape {self.chunk_shape!s:.100} must be at least 1 in every dimension")

    @property
    def chunk_lengths(self) -> tuple[int, ...]:
        """How long the chunks are along each dimension."""
        return self.chunk_shape

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

    def resized(self, shape: tuple[int, ...]) -> RegularGrid:
        """The grid of an array of another ``shape``."""
        return RegularGrid(shape, self.chunk_shape)

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """The shapes that chunks have."""
        return iter((self.chunk_shape,))

    def to_json(self) -> JSON:
        """The ``chunk_grid`` member of a v3 document."""
        return {"name": "regular", "configuration": {"chunk_shape": list(self.chunk_shape)}}


@dataclass(frozen=True, slots=True)
class RectilinearGrid:
    """Chunks whose length differs along each dimension: one length for all of them, or as ``ChunkLengths`` say.

    Chunks at the edge are stored whole, as those of a regular grid are; chunks that lie outside of the array are not stored.
    """

    shape: tuple[int, ...]
    chunk_lengths: tuple[int | ChunkLengths, ...]

    def __post_init__(self) -> None:
        if len(self.chunk_lengths) != len(self.shape):
            raise MetadataError(f"there are chunk lengths for {len(self.chunk_lengths)} dimensions where the array has {len(self.shape)}")
        for axis, (length, lengths) in enumerate(zip(self.shape, self.chunk_lengths, strict=True)):
            if isinstance(lengths, int) and lengths < 1:
                raise MetadataError(f"chunks must be at least 1 long, not {lengths}, along dimension {axis}")
            if isinstance(lengths, ChunkLengths) and lengths.total < length:
                raise MetadataError(f"chunks are {lengths.total} long in all along dimension {axis}, which has {length}; lengthen them")

    @property
    def chunk_shape(self) -> tuple[int, ...]:
        """The shape that holds every chunk: the greatest length along each dimension."""
        return tuple(lengths if isinstance(lengths, int) else lengths.longest for lengths in self.chunk_lengths)

    @property
    def grid_shape(self) -> tuple[int, ...]:
        """The number of chunks along each dimension that lie in the array; 0 where it is empty."""
        return tuple(map(count_of, self.shape, self.chunk_lengths))

    @property
    def nchunks(self) -> int:
        """The number of chunks in all."""
        return math.prod(self.grid_shape)

    def chunk_shape_at(self, coords: Coords) -> tuple[int, ...]:
        """The shape of the chunk at ``coords``."""
        return tuple([each if isinstance(each, int) else each[index] for index, each in zip(coords, self.chunk_lengths, strict=True)])

    def region(self, coords: Coords) -> tuple[slice, ...]:
        """The part of the array that the chunk at ``coords`` holds, cut at the array's edge."""
        pairs = zip(map(start_of, coords, self.chunk_lengths), self.chunk_shape_at(coords), self.shape, strict=True)
        return tuple(slice(min(start, length), min(start + chunk, length)) for start, chunk, length in pairs)

    def resized(self, shape: tuple[int, ...]) -> RectilinearGrid:
        """The grid of an array of another ``shape``; where it is longer than all chunks, by more chunks of the last length."""
        return RectilinearGrid(shape, tuple(map(lengthened, self.chunk_lengths, shape)))

    def shapes(self) -> Iterator[tuple[int, ...]]:
        """Shapes that chunks have: the largest, and for each dimension all lengths that there are along it."""
        whole = self.chunk_shape
        yield whole
        for axis, lengths in enumerate(self.chunk_lengths):
            others = () if isinstance(lengths, int) else lengths.distinct[:-1]
            yield from ((*whole[:axis], length, *whole[axis + 1 :]) for length in others)

    def to_json(self) -> JSON:
        """The ``chunk_grid`` member of a v3 document."""
        lengths = [each if isinstance(each, int) else each.to_json() for each in self.chunk_lengths]
        return {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": lengths}}


ChunkGrid: TypeAlias = RegularGrid | RectilinearGrid


def parse_chunk_grid(document: JSON, shape: tuple[int, ...], path: str) -> ChunkGrid:
    """The grid that a v3 ``chunk_grid`` member describes for an array of ``shape``; ``MetadataError`` where it is not legal."""
    if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
        raise MetadataError(f"{path}: chunk_grid must be an object with a name, not {document!r:.100}", path=path)
    if document.get("must_understand", True) is not True:
        raise MetadataError(f"{path}: chunk_grid must be understood; 'must_understand': false is not legal here", path=path)
    name, configuration = cast("str", document["name"]), document.get("configuration")
    if unknown := document.keys() - {"name", "configuration", "must_understand"}:
        raise MetadataError(f"{path}: chunk_grid {name!r:.100} has unknown members {sorted(unknown)!r:.100}", path=path)
    if name not in CHUNK_GRIDS:
        raise UnknownExtensionError(f"{path}: unknown chunk grid {name!r:.100}; azarr has {', '.join(CHUNK_GRIDS)}", path=path, name=name)
    if not isinstance(configuration, Mapping):
        raise MetadataError(f"{path}: chunk_grid.configuration must be an object, not {configuration!r:.100}", path=path)
    try:
        return CHUNK_GRIDS[name](configuration, shape)
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}", path=path) from None


def _parse_regular(configuration: Mapping[str, JSON], shape: tuple[int, ...]) -> RegularGrid:
    if unknown := configuration.keys() - {"chunk_shape"}:
        raise MetadataError(f"chunk_grid.configuration has unknown members {sorted(unknown)!r:.100}")
    chunk_shape = configuration.get("chunk_shape")
    if not isinstance(chunk_shape, list) or any(isinstance(n, bool) or not isinstance(n, int) for n in chunk_shape):
        raise MetadataError(f"chunk_grid.configuration.chunk_shape must be a list of whole numbers, not {chunk_shape!r:.100}")
    return RegularGrid(shape, tuple(chunk_shape))


def _parse_rectilinear(configuration: Mapping[str, JSON], shape: tuple[int, ...]) -> RectilinearGrid:
    if unknown := configuration.keys() - {"kind", "chunk_shapes"}:
        raise MetadataError(f"chunk_grid.configuration has unknown members {sorted(unknown)!r:.100}")
    if configuration.get("kind") != "inline":
        raise MetadataError(f"chunk_grid.configuration.kind must be 'inline', not {configuration.get('kind')!r:.100}")
    chunk_shapes = configuration.get("chunk_shapes")
    if not isinstance(chunk_shapes, list | tuple):
        raise MetadataError(f"chunk_grid.configuration.chunk_shapes must be a list, not {chunk_shapes!r:.100}")
    return RectilinearGrid(shape, tuple(parse_chunk_lengths(each) for each in chunk_shapes))


CHUNK_GRIDS: Final[Mapping[str, Callable[[Mapping[str, JSON], tuple[int, ...]], ChunkGrid]]] = MappingProxyType(
    {"regular": _parse_regular, "rectilinear": _parse_rectilinear}
)
"""How each grid is made of its ``configuration``, for an array of a shape. They are not for plug-ins, as plans of reading know them all."""
