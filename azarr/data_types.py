"""Data types and their fill values (Zarr v3 core, "Data types" and "Fill value").

A data type knows its name in metadata, the NumPy data type that holds its elements in memory, and how its fill value stands in
JSON. It has no byte order: that belongs to the ``bytes`` codec.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from azarr.errors import MetadataError, UnknownExtensionError
from azarr.types import JSON


@dataclass(frozen=True, slots=True)
class DataType(ABC):
    """What the elements of an array are: their ``name`` in v3 metadata and their ``dtype`` in memory, in native byte order."""

    name: str
    dtype: np.dtype[Any]

    def to_json(self) -> JSON:
        """The ``data_type`` member of a v3 document."""
        return self.name

    @property
    def default_fill_value(self) -> np.generic:
        """The fill value of arrays that are created without one: zero, or what comes closest."""
        return np.zeros(1, self.dtype)[0]  # type: ignore[no-any-return]  # the scalar at index 0

    @abstractmethod
    def parse_fill_value(self, document: JSON) -> np.generic:
        """The value that a ``fill_value`` member stands for; ``MetadataError`` says what is legal."""

    @abstractmethod
    def serialize_fill_value(self, value: np.generic) -> JSON:
        """The ``fill_value`` member that stands for ``value``, which is of this data type."""

    def _illegal(self, document: JSON, legal: str) -> MetadataError:
        return MetadataError(f"{document!r:.100} is not a fill value of {self.name}, which takes {legal}")


@dataclass(frozen=True, slots=True)
class Bool(DataType):
    """True or false, one byte each."""

    def parse_fill_value(self, document: JSON) -> np.generic:
        """The value of ``true`` or ``false``; also of 0 and 1, which early v3 writers left behind."""
        if isinstance(document, bool) or (isinstance(document, int) and document in {0, 1}):
            return np.bool_(document)
        raise self._illegal(document, "true or false")

    def serialize_fill_value(self, value: np.generic) -> JSON:
        """``true`` or ``false``."""
        return bool(value)


@dataclass(frozen=True, slots=True)
class Integer(DataType):
    """A whole number, signed or unsigned."""

    def parse_fill_value(self, document: JSON) -> np.generic:
        """The value of a whole number in range, written without fraction or exponent."""
        bounds = np.iinfo(self.dtype)
        if isinstance(document, bool) or not isinstance(document, int) or not bounds.min <= document <= bounds.max:
            raise self._illegal(document, f"a whole number from {bounds.min} to {bounds.max}, without fraction")
        return self.dtype.type(document)  # type: ignore[no-any-return]  # NumPy's scalar of this dtype

    def serialize_fill_value(self, value: np.generic) -> JSON:
        """A whole number."""
        return int(value)


@dataclass(frozen=True, slots=True)
class Float(DataType):
    """A binary floating-point number."""

    def parse_fill_value(self, document: JSON) -> np.generic:
        """The value of a number, ``"NaN"``, ``"Infinity"``, ``"-Infinity"`` or ``"0x…"``, whose bits are kept as they are."""
        bits = _parse_float_bits(document, self.dtype)
        if bits is None:
            raise self._illegal(document, _float_forms(self.dtype))
        return _from_bits([bits], self.dtype)

    def serialize_fill_value(self, value: np.generic) -> JSON:
        """A number where JSON has one, otherwise one of the strings."""
        return _serialize_float_bits(_to_bits(value, self.dtype, self.dtype)[0], self.dtype)


@dataclass(frozen=True, slots=True)
class Complex(DataType):
    """A complex number: its real and its imaginary part, each a floating-point number."""

    @property
    def _component(self) -> np.dtype[Any]:
        return np.dtype(f"f{self.dtype.itemsize // 2}")

    def parse_fill_value(self, document: JSON) -> np.generic:
        """The value of ``[real, imaginary]``, each in any form that a floating-point number has."""
        parts = document if isinstance(document, list | tuple) else []
        bits = [known for part in parts if (known := _parse_float_bits(part, self._component)) is not None]
        if len(bits) != 2 or len(parts) != 2:
            raise self._illegal(document, f"[real, imaginary], each {_float_forms(self._component)}")
        return _from_bits(bits, self.dtype)

    def serialize_fill_value(self, value: np.generic) -> JSON:
        """``[real, imaginary]``."""
        component = self._component
        return [_serialize_float_bits(bits, component) for bits in _to_bits(value, self.dtype, component)]


# Floating-point fill values travel as bit patterns, because a Python float would lose the payload of a NaN.


def _unsigned(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(f"u{dtype.itemsize}")


def _from_bits(bits: list[int], dtype: np.dtype[Any]) -> np.generic:
    component = np.dtype(f"u{dtype.itemsize // len(bits)}")
    return np.array(bits, component).view(dtype)[0]  # type: ignore[no-any-return]  # the scalar at index 0


def _to_bits(value: np.generic, dtype: np.dtype[Any], component: np.dtype[Any]) -> list[int]:
    return [int(bits) for bits in np.array([value], dtype).view(_unsigned(component))]


def _nan_bits(dtype: np.dtype[Any]) -> int:
    """The one NaN that ``"NaN"`` stands for: positive, quiet, without payload."""
    return _to_bits(dtype.type(np.nan), dtype, dtype)[0]


def _float_forms(dtype: np.dtype[Any]) -> str:
    return f"a number, 'NaN', 'Infinity', '-Infinity' or '0x' and {2 * dtype.itemsize} hexadecimal digits"


def _parse_float_bits(document: JSON, dtype: np.dtype[Any]) -> int | None:
    """The bit pattern of a floating-point number in JSON; ``None`` where it is not legal."""
    if isinstance(document, str):
        if document == "NaN":
            return _nan_bits(dtype)
        if re.fullmatch(f"0x[0-9a-fA-F]{{{2 * dtype.itemsize}}}", document):
            return int(document, 16)
        document = {"Infinity": np.inf, "-Infinity": -np.inf}.get(document)
    if isinstance(document, bool) or not isinstance(document, int | float):
        return None
    try:
        number = float(document)
    except OverflowError:  # a whole number beyond the largest float64
        number = np.inf if document > 0 else -np.inf
    if np.isnan(number):  # a literal NaN, which Python reads and JSON does not have
        return None
    with np.errstate(over="ignore"):  # a number out of range becomes infinite, which is how rounding ends
        return int(np.array(number, dtype).view(_unsigned(dtype)))


def _serialize_float_bits(bits: int, dtype: np.dtype[Any]) -> JSON:
    number = float(_from_bits([bits], dtype))
    if np.isnan(number):
        return "NaN" if bits == _nan_bits(dtype) else f"0x{bits:0{2 * dtype.itemsize}x}"
    if np.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    return number


_CORE: tuple[DataType, ...] = (
    Bool("bool", np.dtype(bool)),
    *(Integer(name, np.dtype(name)) for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")),
    *(Float(name, np.dtype(name)) for name in ("float16", "float32", "float64")),
    *(Complex(name, np.dtype(name)) for name in ("complex64", "complex128")),
)
_ALIASES = {"complex_float32": "complex64", "complex_float64": "complex128"}


def _simple(data_type: DataType) -> Callable[[Mapping[str, JSON]], DataType]:
    """How a data type without configuration is made from one."""

    def make(configuration: Mapping[str, JSON]) -> DataType:
        if configuration:
            raise MetadataError(f"data type {data_type.name!r} takes no configuration, not {sorted(configuration)!r:.100}")
        return data_type

    return make


def _of_scalars(data_type: DataType) -> Callable[[np.dtype[Any]], DataType]:
    return lambda _: data_type


_BY_NAME = {data_type.name: _simple(data_type) for data_type in _CORE}

DATA_TYPES: Mapping[str, Callable[[Mapping[str, JSON]], DataType]] = MappingProxyType(
    _BY_NAME | {alias: _BY_NAME[name] for alias, name in _ALIASES.items()}
)
"""Every data type by its name in v3 metadata, as a function of its configuration."""

NUMPY_TYPES: Mapping[type[np.generic], Callable[[np.dtype[Any]], DataType]] = MappingProxyType(
    {data_type.dtype.type: _of_scalars(data_type) for data_type in _CORE}
)
"""Every data type by NumPy's class for its elements, as a function of the NumPy data type in native byte order."""


def parse_data_type(document: JSON, path: str) -> DataType:
    """The data type that a v3 ``data_type`` member describes.

    ``UnknownExtensionError`` where azarr has none of its name, ``MetadataError`` where the member is not legal.
    """
    if isinstance(document, str):
        document = {"name": document}
    name = document.get("name") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(name, str):
        raise MetadataError(f"{path}: data_type must be a name, or an object with a name, not {document!r:.100}", path=path)
    if unknown := document.keys() - {"name", "configuration", "must_understand"}:
        raise MetadataError(f"{path}: data_type {name!r} has unknown members {sorted(unknown)!r:.100}", path=path)
    if document.get("must_understand", True) is not True:
        raise MetadataError(f"{path}: a data type must be understood; 'must_understand': false is not legal here", path=path)
    configuration = document.get("configuration", {})
    if not isinstance(configuration, Mapping):
        raise MetadataError(f"{path}: data_type.configuration must be an object, not {configuration!r:.100}", path=path)
    if name not in DATA_TYPES:
        raise UnknownExtensionError(f"{path}: unknown data type {name!r:.100}; azarr has {', '.join(DATA_TYPES)}", path=path, name=name)
    try:
        return DATA_TYPES[name](configuration)
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}", path=path) from None


def data_type_for(dtype: np.dtype[Any]) -> DataType:
    """The data type of elements that NumPy describes as ``dtype``, in either byte order; ``MetadataError`` where there is none."""
    native = dtype.newbyteorder("=")
    # one width of integers has two classes in NumPy (C's long and long long); its sized name leads to the usual one
    scalar = np.dtype(f"{native.kind}{native.itemsize}").type if native.kind in "iu" else native.type
    if scalar not in NUMPY_TYPES:
        known = ", ".join(data_type.name for data_type in _CORE)
        raise MetadataError(f"Zarr arrays of {dtype} are not supported; azarr has {known}")
    return NUMPY_TYPES[scalar](native)
