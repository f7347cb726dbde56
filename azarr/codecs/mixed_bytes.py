"""Elements as they lie in memory, in more than one byte order, which only Zarr v2 has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from azarr.codecs.bytes import Bytes
from azarr.errors import MetadataError
from azarr.types import JSON, ChunkSpec


@dataclass(frozen=True, slots=True)
class MixedBytes(Bytes):
    """Structures whose fields differ in byte order, which only Zarr v2 has: ``stored`` is NumPy's data type for them."""

    stored: np.dtype[Any] = field(kw_only=True)

    def configuration(self) -> dict[str, JSON]:
        raise MetadataError(f"Zarr v3 has no fields that differ in byte order ({self.stored}); write Zarr v2, or another data type")

    def bind(self, spec: ChunkSpec) -> Self:
        del spec
        return self

    def stored_dtype(self, spec: ChunkSpec) -> np.dtype[Any]:
        del spec
        return self.stored
