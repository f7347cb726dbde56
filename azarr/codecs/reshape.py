"""The ``reshape`` codec (zarr-extensions, "reshape"): the same elements in C order, cut into other dimensions."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from azarr.codecs.base import ArrayToArrayCodec, check_keys
from azarr.errors import MetadataError
from azarr.types import JSON, MAX_NDIM, Array, ChunkSpec

AUTO = -1
"""Stands for the length that makes the number of elements right."""


@dataclass(frozen=True, slots=True)
class Reshape(ArrayToArrayCodec):
    """Chunks of another ``shape``: a length each, -1 for what is left over, or the input dimensions whose product it is."""

    name: ClassVar[str] = "reshape"
    shape: tuple[int | tuple[int, ...], ...]

    def __post_init__(self) -> None:
        if len(self.shape) > MAX_NDIM:
            raise MetadataError(f"codec 'reshape': shape has {len(self.shape)} dimensions where {MAX_NDIM} are possible")
        lengths = [item for item in self.shape if isinstance(item, int)]
        dimensions = [dimension for item in self.shape if not isinstance(item, int) for dimension in item]
        if lengths.count(AUTO) > 1 or any(length < 1 and length != AUTO for length in lengths):
            raise MetadataError(f"codec 'reshape': lengths in shape {self.shape!s:.100} must be at least 1, or -1 once")
        if any(dimension < 0 for dimension in dimensions) or any(a >= b for a, b in itertools.pairwise(dimensions)):
            raise MetadataError(f"codec 'reshape': the input dimensions in shape {self.shape!s:.100} must increase from one to the next")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"shape"}), frozenset({"shape"}))
        shape = configuration["shape"]
        if not isinstance(shape, list | tuple):
            raise MetadataError(f"codec 'reshape': shape must be a list, not {shape!r:.100}")
        return cls(tuple(tuple(map(_whole, item)) if isinstance(item, list | tuple) else _whole(item) for item in shape))

    def configuration(self) -> dict[str, JSON]:
        return {"shape": [item if isinstance(item, int) else list(item) for item in self.shape]}

    def bind(self, spec: ChunkSpec) -> Self:
        self._shape(spec.shape)
        return self

    def _shape(self, source: tuple[int, ...]) -> tuple[int, ...]:
        """The encoded shape of chunks of shape ``source``."""
        error = MetadataError(f"codec 'reshape': chunks of shape {source} cannot become {self.shape!s:.100}")
        lengths = []
        for item in self.shape:
            if isinstance(item, int):
                lengths.append(item)
            elif any(dimension >= len(source) for dimension in item):
                raise error
            else:
                lengths.append(math.prod(source[dimension] for dimension in item))
        total = math.prod(source)
        if AUTO in lengths:
            known = math.prod(length for length in lengths if length != AUTO)
            lengths[lengths.index(AUTO)] = total // max(known, 1)
        if math.prod(lengths) != total:
            raise error
        for position, item in enumerate(self.shape):
            if not isinstance(item, int) and item:
                before = math.prod(lengths[:position]) == math.prod(source[: item[0]])
                after = math.prod(lengths[position + 1 :]) == math.prod(source[item[-1] + 1 :])
                if not before or not after:
                    raise error
        return tuple(lengths)

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        return replace(spec, shape=self._shape(spec.shape))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        return chunk.reshape(self._shape(spec.shape))

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        return chunk.reshape(spec.shape)


def _whole(item: JSON) -> int:
    if isinstance(item, bool) or not isinstance(item, int):
        raise MetadataError(f"codec 'reshape': shape holds whole numbers and lists of dimensions, not {item!r:.100}")
    return item
