"""What a codec pipeline of one field is bound to."""

from __future__ import annotations

from dataclasses import dataclass

from azarr.types import ChunkSpec


@dataclass(frozen=True, slots=True)
class FieldSpec(ChunkSpec):
    """The spec of one field of elements of ``element_nbytes``, which its ``nbytes`` counts: whole elements are fetched and decoded."""

    element_nbytes: int = 0

    @property
    def nbytes(self) -> int:
        """Size of one decoded chunk in bytes, with all fields."""
        return self.nelements * self.element_nbytes
