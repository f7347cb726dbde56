"""What all data types share: names in metadata, elements in memory, fill values in JSON, and which values may be written."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

import numpy as np

from azarr.errors import MetadataError, WriteError
from azarr.types import JSON, Array, FillValue

MAX_NBYTES = 2**31 - 1
"""The size of an element at most, which is also NumPy's bound."""


@dataclass(frozen=True, slots=True)
class DataType(ABC):
    """What the elements of an array are: their ``name`` in v3 metadata and their ``dtype`` in memory, in native byte order.

    Elements of variable length are held by NumPy's data types for strings and objects. A chunk of them cannot tell what its objects
    are, but its fill value can: it is a ``str`` for text, ``bytes`` for bytes, a zero-dimensional array of objects for arrays.
    """

    name: str
    dtype: np.dtype[Any]

    def to_json(self) -> JSON:
        """The ``data_type`` member of a v3 document; ``MetadataError`` for what only v2 has."""
        return self.name

    @property
    def default_codec(self) -> str:
        """The name of the array-to-bytes codec that arrays get where the user names none."""
        return "bytes"

    @property
    def zero(self) -> FillValue:
        """Zero, or what comes closest."""
        return np.zeros(1, self.dtype)[0]

    @property
    def undefined(self) -> FillValue:
        """What elements are that nobody has defined, as in missing chunks of v2 where the fill value is ``null``."""
        return self.zero

    @property
    def default_fill_value(self) -> FillValue:
        """The fill value of arrays that are created without one."""
        return self.zero

    @abstractmethod
    def parse_fill_value(self, document: JSON) -> FillValue:
        """The value that a ``fill_value`` member stands for; ``MetadataError`` says what is legal."""

    @abstractmethod
    def serialize_fill_value(self, value: FillValue) -> JSON:
        """The ``fill_value`` member that stands for ``value``, which is of this data type."""

    def fill_value_of(self, value: object) -> FillValue:
        """The fill value that a user gives as ``value``, a NumPy or Python object; ``MetadataError`` where it is none."""
        try:
            array = self.conform(self.as_array(value, 0))
        except WriteError as error:
            raise MetadataError(f"fill_value {value!r:.60} is not a {self.name}: {error}") from None
        if array.ndim:
            raise MetadataError(f"fill_value {value!r:.60} is not a {self.name}, but an array of shape {array.shape}")
        with np.errstate(all="ignore"):
            return array.astype(self.dtype)[()]

    def as_array(self, value: object, ndim: int) -> Array:
        """What a user writes as an array of ``ndim`` dimensions or fewer; ``WriteError`` where it is none."""
        del ndim
        try:
            return np.asarray(value)
        except (ValueError, OverflowError, TypeError) as error:
            raise WriteError(f"the value is not an array: {error}") from error

    def conform(self, array: Array) -> Array:
        """``array``, or one like it, that NumPy assigns to elements of this type without silent changes; otherwise ``WriteError``."""
        if array.dtype == self.dtype:
            return array
        if not np.can_cast(array.dtype, self.dtype, "same_kind"):
            raise self._misfit(array)
        return array

    def _misfit(self, array: Array, hint: str = "convert it yourself, with astype, if that is meant") -> WriteError:
        return WriteError(f"a value of data type {array.dtype} does not fit into {self._shown}; {hint}")

    @property
    def _shown(self) -> str:
        return str(self.dtype)

    def _illegal(self, document: JSON, legal: str) -> MetadataError:
        return MetadataError(f"{document!r:.100} is not a fill value of {self.name}, which takes {legal}")


Maker: TypeAlias = Callable[[Mapping[str, JSON]], DataType]
"""How a data type is made from its ``configuration`` in v3 metadata; ``MetadataError`` where that is not legal."""


def without_configuration(name: str, make: Callable[[], DataType]) -> Maker:
    """The maker of a data type that takes no configuration."""

    def maker(configuration: Mapping[str, JSON]) -> DataType:
        if configuration:
            raise MetadataError(f"data type {name!r} takes no configuration, not {sorted(configuration)!r:.100}")
        return make()

    return maker


def check_keys(name: str, configuration: Mapping[str, JSON], *required: str) -> None:
    """Raise ``MetadataError`` unless the configuration of data type ``name`` has exactly the ``required`` keys."""
    if configuration.keys() != set(required):
        raise MetadataError(f"data type {name!r} takes the configuration {', '.join(required)}, not {sorted(configuration)!r:.100}")


def whole_number(name: str, configuration: Mapping[str, JSON], key: str, least: int, most: int) -> int:
    """The whole number at ``key`` within ``least``..``most``; ``MetadataError`` for anything else."""
    value = configuration[key]
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise MetadataError(f"data type {name!r}: {key} must be a whole number from {least} to {most}, not {value!r:.100}")
    return value


def has_byte_order(dtype: np.dtype[Any]) -> bool:
    """Whether elements have a byte order: some part of them is a number, time or character of several bytes."""
    if dtype.subdtype is not None:
        return has_byte_order(dtype.base)
    if dtype.names is not None:
        return any(has_byte_order(cast("Any", dtype.fields)[name][0]) for name in dtype.names)
    return dtype.itemsize > 1 and not issubclass(dtype.type, np.bytes_ | np.void)


def native(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """``dtype`` in native byte order at every depth."""
    return dtype.newbyteorder("=") if has_byte_order(dtype) and not dtype.hasobject else dtype


def packed(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """``dtype`` without gaps between the fields of structures, in the byte orders that it has."""
    if dtype.subdtype is not None:
        return np.dtype((packed(dtype.base), dtype.shape))
    if dtype.names is None:
        return dtype
    return np.dtype([(name, packed(cast("Any", dtype.fields)[name][0])) for name in dtype.names])
