"""The ``json2`` codec of numcodecs: elements that are anything JSON can express. Zarr v2 only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Self

import numpy as np

from azarr.codecs.base import check_keys
from azarr.codecs.damage import damaged
from azarr.codecs.variable_length import VariableLengthCodec
from azarr.data_types import DataType
from azarr.data_types.variable import Json
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, Bound, Buffer, ChunkSpec

OBJECT_NBYTES: Final = 32
"""What a byte of JSON may take in memory: an empty list, and its place in another one, are three bytes."""

_DEFAULTS: Final[dict[str, JSON]] = {
    "encoding": "utf-8",
    "skipkeys": False,
    "ensure_ascii": True,
    "check_circular": True,
    "allow_nan": True,
    "sort_keys": True,
    "indent": None,
    "separators": (",", ":"),
    "strict": True,
}


@dataclass(frozen=True, slots=True)
class Json2(VariableLengthCodec):
    """One JSON list of the elements (lists inside lists for more dimensions), then their NumPy data type and shape.

    ``options`` are the encoder's, as metadata has them; they are kept and change nothing that matters to a reader.
    """

    name: ClassVar[str] = "numcodecs.json2"
    options: tuple[tuple[str, Any], ...] = tuple(_DEFAULTS.items())

    @property
    def object_type(self) -> DataType:
        return Json()

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset(_DEFAULTS))
        if configuration.get("encoding", "utf-8") not in ("utf-8", "utf8", "UTF-8", "ascii"):
            raise MetadataError(f"codec {cls.name!r}: encoding must be 'utf-8', not {configuration['encoding']!r:.100}")
        separators = configuration.get("separators") or _DEFAULTS["separators"]
        if separators not in ([",", ":"], [", ", ": "], (",", ":"), (", ", ": ")):
            raise MetadataError(f"codec {cls.name!r}: separators must be those of JSON, not {separators!r:.100}")
        indent = configuration.get("indent")
        if not isinstance(indent, int | None):
            raise MetadataError(f"codec {cls.name!r}: indent must be a whole number or null, not {indent!r:.100}")
        for key in _DEFAULTS.keys() & configuration.keys() - {"encoding", "separators", "indent"}:
            if not isinstance(configuration[key], bool):
                raise MetadataError(f"codec {cls.name!r}: {key} must be true or false, not {configuration[key]!r:.100}")
        options = {**_DEFAULTS, **configuration, "separators": tuple(separators)}
        return cls(tuple(options.items()))

    def configuration(self) -> dict[str, JSON]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in self.options}

    def bind(self, spec: ChunkSpec) -> Self:
        if not spec.variable:
            raise MetadataError(f"codec {self.name!r} holds objects, not elements of {spec.dtype}")
        return self

    def growth(self, spec: ChunkSpec) -> Bound:
        # the objects that JSON describes take many times as much memory
        return spec.bound._replace(free=spec.bound.free // OBJECT_NBYTES)

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        items = chunk.tolist() if chunk.ndim else [chunk.tolist()]
        options = dict(self.options)
        try:
            text = json.dumps(
                [*items, "|O", chunk.shape],
                ensure_ascii=options["ensure_ascii"],
                sort_keys=options["sort_keys"],
                separators=options["separators"],
                allow_nan=options["allow_nan"],
            ).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise CodecError(f"cannot encode the elements: {error}", codec=self.name) from error
        return self.within_limit(text, spec)

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        try:
            document = json.loads(str(data, "utf-8"))
        except (ValueError, RecursionError) as error:
            raise damaged(self.name, f"the bytes are not JSON ({error})") from None
        if not isinstance(document, list) or len(document) < 2 or document[-1] != list(spec.shape):
            found = document[-1] if isinstance(document, list) and document else document
            raise damaged(self.name, f"the chunk has the shape {list(spec.shape)} where the JSON says {found!r:.60}")
        items: Any = document[:-2]
        if not spec.shape:
            items = items[0] if len(items) == 1 else None
        chunk = np.empty(spec.nelements, spec.dtype)
        number = 0
        for number, element in enumerate(_flat(items, spec.shape), 1):
            chunk[number - 1] = element
        if number != spec.nelements or (not spec.shape and len(document) != 3):
            raise damaged(self.name, "the lists of the JSON do not have the shape that it says")
        return chunk.reshape(spec.shape)


def _flat(items: Any, shape: tuple[int, ...]) -> Any:
    """The elements of nested lists, no more of them than the shape has; they end early where a list is of another length."""
    if not shape:
        yield items
    elif isinstance(items, list) and len(items) == shape[0]:
        for item in items:
            yield from _flat(item, shape[1:])
