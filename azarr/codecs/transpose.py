"""The ``transpose`` codec (Zarr v3 codecs, "transpose"): the axes of a chunk in another order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, check_keys
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, ChunkSpec


@dataclass(frozen=True, slots=True)
class Transpose(ArrayToArrayCodec):
    """Encoded axis ``i`` is decoded axis ``order[i]``. Both directions are views and cost nothing.

    ``"C"`` (as they are) and ``"F"`` (reversed), which drafts of the specification had, become axes when the codec is bound.
    """

    name: ClassVar[str] = "transpose"
    order: tuple[int, ...] | Literal["C", "F"]

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"order"}), frozenset({"order"}))
        order = configuration["order"]
        if order in ("C", "F"):  # a tuple, as documents may hold what cannot be hashed
            return cls("C" if order == "C" else "F")
        if not isinstance(order, list | tuple) or any(isinstance(axis, bool) or not isinstance(axis, int) for axis in order):
            raise MetadataError(f"codec 'transpose': order must be a list of axes, not {order!r:.100}")
        return cls(tuple(int(axis) for axis in order))

    def configuration(self) -> dict[str, JSON]:
        return {"order": self.order if isinstance(self.order, str) else list(self.order)}

    def bind(self, spec: ChunkSpec) -> Self:
        axes = tuple(range(len(spec.shape)))
        if isinstance(self.order, str):
            return replace(self, order=axes if self.order == "C" else axes[::-1])
        if sorted(self.order) != list(axes):
            raise MetadataError(
                f"codec 'transpose': order {list(self.order)!s:.100} is not a permutation of the {len(spec.shape)} axes of the chunk"
            )
        return self

    @property
    def _axes(self) -> tuple[int, ...]:
        if isinstance(self.order, str):
            raise CodecError(f"order {self.order!r} has no axes before the codec is bound", codec=self.name)
        return self.order

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        return replace(spec, shape=tuple(spec.shape[axis] for axis in self._axes))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        del spec
        return chunk.transpose(self._axes)

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        del spec
        return chunk.transpose(np.argsort(self._axes))
