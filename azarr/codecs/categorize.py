"""The ``categorize`` filter of numcodecs: texts out of a list of labels, stored as their numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Self, cast

import numpy as np

from azarr.codecs.base import ArrayToArrayCodec, check_keys
from azarr.codecs.damage import damaged
from azarr.data_types import DataType
from azarr.data_types.text import String
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, ChunkSpec


@dataclass(frozen=True, slots=True)
class Categorize(ArrayToArrayCodec):
    """Label ``i`` becomes the number ``i + 1`` of the data type ``astype``, and the empty string 0.

    Other texts are refused: numcodecs would store 0 for them, and they would be lost. ``dtype`` is what numcodecs takes elements
    for, ``"|O"`` for strings of any length.
    """

    name: ClassVar[str] = "numcodecs.categorize"
    labels: tuple[str, ...]
    dtype: str = "|O"
    astype: str = "|u1"

    def __post_init__(self) -> None:
        if len(self.labels) > np.iinfo(self.astype).max:
            raise MetadataError(f"codec {self.name!r}: {len(self.labels)} labels need a larger astype than {self.astype!r}")

    @property
    def releases_gil(self) -> bool:
        return False

    @property
    def object_type(self) -> DataType:
        return String()

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        check_keys(cls.name, configuration, frozenset({"labels", "dtype", "astype"}), frozenset({"labels", "dtype"}))
        labels, dtype, astype = configuration["labels"], configuration["dtype"], configuration.get("astype", "|u1")
        if not isinstance(labels, list | tuple) or not all(isinstance(label, str) for label in labels):
            raise MetadataError(f"codec {cls.name!r}: labels must be a list of strings, not {labels!r:.100}")
        if not isinstance(dtype, str) or not re.fullmatch(r"\|O|object|[<>]?U[0-9]+", dtype):
            raise MetadataError(f"codec {cls.name!r}: dtype must be '|O' or a NumPy data type of text, not {dtype!r:.100}")
        if not isinstance(astype, str) or not re.fullmatch(r"[<>|]?[iu][1248]|u?int(8|16|32|64)", astype):
            raise MetadataError(f"codec {cls.name!r}: astype must be a NumPy data type of whole numbers, not {astype!r:.100}")
        return cls(tuple(cast("list[str]", labels)), dtype, astype)

    def configuration(self) -> dict[str, JSON]:
        return {"labels": list(self.labels), "dtype": self.dtype, "astype": self.astype}

    def bind(self, spec: ChunkSpec) -> Self:
        if not isinstance(spec.fill_value, str) or spec.dtype.kind not in "OTU":
            raise MetadataError(f"codec {self.name!r} encodes strings, not {spec.dtype}")
        if spec.dtype.kind == "U" and any(4 * len(label) > spec.dtype.itemsize for label in self.labels):
            raise MetadataError(f"codec {self.name!r} has labels that do not fit into {spec.dtype}")
        if max(map(len, self.labels), default=0) * spec.nelements > spec.limit:
            raise MetadataError(f"codec {self.name!r} has labels of which {spec.nelements} would take more than {spec.limit} bytes")
        return self

    def resolve(self, spec: ChunkSpec) -> ChunkSpec:
        encoded = np.dtype(self.astype).newbyteorder("=")
        code = self._codes().get(str(spec.fill_value), 0)  # what is no label stands in for parts that are not stored
        return ChunkSpec(spec.shape, encoded, encoded.type(code))

    def encode(self, chunk: Array, spec: ChunkSpec) -> Array:
        codes = self._codes()
        try:
            encoded = [codes[text] for text in chunk.reshape(-1).tolist()]
        except KeyError as error:
            raise CodecError(f"{error.args[0]!r:.60} is none of the labels, and would be lost", codec=self.name) from None
        return np.array(encoded, self.resolve(spec).dtype).reshape(chunk.shape)

    def decode(self, chunk: Array, spec: ChunkSpec) -> Array:
        if chunk.size and (int(chunk.min()) < 0 or int(chunk.max()) > len(self.labels)):
            raise damaged(self.name, f"there are numbers from {chunk.min()} to {chunk.max()} for {len(self.labels)} labels")
        return np.array(["", *self.labels], spec.dtype)[chunk]

    def _codes(self) -> dict[str, int]:
        return {"": 0} | {label: number for number, label in reversed(list(enumerate(self.labels, 1)))}
