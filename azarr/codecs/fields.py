"""One field of the elements of a chunk: whoever reads it decodes the chunk, whoever writes it keeps what the other fields hold."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from azarr.codecs.pipeline import CodecPipeline
from azarr.deferred import DeferredModule
from azarr.types import Array, Buffer, ChunkSpec

if TYPE_CHECKING:
    from azarr.codecs import field_specs
else:  # what those do without who read whole elements
    field_specs = DeferredModule("azarr.codecs.field_specs")


class FieldPipeline(CodecPipeline):
    """Decodes one field of the elements. Its ``spec`` is that of the field alone; what encodes is the ``whole`` pipeline.

    ``field`` are names, the second one of a field within the first, and so on.
    """

    __slots__ = ("_field", "_whole")

    def __init__(self, whole: CodecPipeline, field: tuple[str, ...]) -> None:
        super().__init__(whole.codecs, whole.spec)
        self._whole, self._field = whole, field
        fill = part_of(whole.spec.fill, field)
        self.spec = field_specs.FieldSpec(
            whole.spec.shape, fill.dtype, fill[()], whole.spec.limit, element_nbytes=whole.spec.dtype.itemsize
        )
        self.direct = self.joinable = False  # a field lies scattered in the chunk

    def __reduce__(self) -> tuple[type[FieldPipeline], tuple[CodecPipeline, tuple[str, ...]]]:  # type: ignore[override]  # as it is made
        return FieldPipeline, (self._whole, self._field)

    @property
    def field(self) -> tuple[str, ...]:
        """Which field it is."""
        return self._field

    @property
    def whole(self) -> CodecPipeline:
        """The pipeline of all fields."""
        return self._whole

    def rebound(self, spec: ChunkSpec) -> FieldPipeline:
        """The same codecs and field for chunks of the shape that ``spec`` has."""
        return FieldPipeline(self._whole.rebound(replace(self._whole.spec, shape=spec.shape)), self._field)

    def encode(self, chunk: Array) -> Buffer:
        """Nothing: a field without the others makes no chunk."""
        del chunk
        raise TypeError(f"field {self._field} cannot be encoded alone")

    def _deserialize(self, data: Buffer) -> Array:
        return part_of(super()._deserialize(data), self._field)


def part_of(elements: Array, field: tuple[str, ...]) -> Array:
    """A view of one field of ``elements``; all of them where ``field`` names none."""
    for name in field:
        elements = elements[name]
    return elements
