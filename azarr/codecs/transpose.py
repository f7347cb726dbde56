"""The ``transpose`` codec (Zarr v3 codecs, "transpose"): the axes of a chunk in another order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, check_keys
from azarr.errors import MetadataError
from azarr.types import JSON, Array, ChunkSpec


@dataclass(frozen=True, slots=True)
class Transpose(ArrayToArrayCodec):
    """Encoded axis ``i`` is decoded axis ``order[i]``. Both directions are views and cost nothing."""

    name: ClassVar[str] = "transpose"
    order: tuple[int, ...]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"order"}), frozenset({"order"}))
        order = configuration["order"]
        if not isinstance(order, list | tuple) or any(isinstance(axis, bool) or not isinstance(axis, int) for axis in order):
            raise MetadataError(f"codec 'transpose': order must be a list of axes, not {order!r:.100}")
        return cls(tuple(int(axis) for axis in order))

    def configuration(self) -> dict[str, JSON]:
        return {"order": list(self.order)}

    def bind(self, spec: ChunkSpec) -> Self:
        if sorted(self.order) != list(range(len(spec.shape))):
            raise MetadataError(f"codec 'transpose': order {list(self.order)} is not a permutation of the {len(spec.shape)} axes of the chunk")
        return self

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        return ChunkSpec(tuple(spec.shape[axis] for axis in self.order), spec.dtype, spec.fill_value)

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        del spec
        return chunk.transpose(self.order)

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        del spec
        return chunk.transpose(np.argsort(self.order))
