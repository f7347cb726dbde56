"""Structures: elements of several fields, packed without gaps (zarr-extensions, "struct")."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from azarr.data_types.base import MAX_NBYTES, DataType, check_keys
from azarr.data_types.objects import as_objects
from azarr.data_types.raw import parse_bytes
from azarr.errors import MetadataError, SelectionError, WriteError
from azarr.types import JSON, Array, FillValue

MAX_DEPTH: Final = 32
"""How deeply structures may be nested."""


@dataclass(frozen=True, slots=True)
class Struct(DataType):
    """Elements of named fields, each of a data type of its own."""

    fields: tuple[tuple[str, DataType], ...]

    @classmethod
    def of(cls, fields: Sequence[tuple[str, DataType]]) -> Struct:
        """The structure of these fields; ``MetadataError`` where they do not make one."""
        names = [name for name, _ in fields]
        if not names or not all(names) or len(set(names)) < len(names):
            raise MetadataError(f"a struct needs at least one field, and all need names of their own; the names are {names!r:.200}")
        for name, field in fields:
            if field.dtype.hasobject:
                raise MetadataError(f"field {name!r:.100} of a struct must be of a fixed size, which {field.name!r} is not")
            if _depth(field) >= MAX_DEPTH:
                raise MetadataError(f"structs may be nested {MAX_DEPTH} times, no deeper")
        nbytes = sum(field.dtype.itemsize for _, field in fields)
        if nbytes > MAX_NBYTES:
            raise MetadataError(f"a struct of {nbytes} bytes is too large; elements may have {MAX_NBYTES}")
        return cls("struct", np.dtype([(name, field.dtype) for name, field in fields]), tuple(fields))

    def to_json(self) -> JSON:
        """The names and data types of the fields."""
        fields = [{"name": name, "data_type": field.to_json()} for name, field in self.fields]
        return {"name": self.name, "configuration": {"fields": fields}}

    @property
    def zero(self) -> FillValue:
        """Zero in every field."""
        return self._of([field.zero for _, field in self.fields])

    @property
    def default_fill_value(self) -> FillValue:
        """What each field has for one."""
        return self._of([field.default_fill_value for _, field in self.fields])

    def _of(self, values: Sequence[FillValue]) -> FillValue:
        array = np.zeros(1, self.dtype)
        for (name, _), value in zip(self.fields, values, strict=True):
            array[name] = value
        return array[0]

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The value of an object with a member for each field; also of base64 of the packed bytes, in little-endian order."""
        if isinstance(document, str):
            return self.parse_packed(document, self.dtype.newbyteorder("<"))
        names = [name for name, _ in self.fields]
        if not isinstance(document, Mapping) or document.keys() != set(names):
            raise self._illegal(document, f"an object with the members {', '.join(names)!r:.200} and no other")
        return self._of([field.parse_fill_value(document[name]) for name, field in self.fields])

    def parse_packed(self, document: JSON, stored: np.dtype[Any]) -> FillValue:
        """The value of base64 of the packed bytes of an element, which ``stored`` describes with its byte orders."""
        raw = parse_bytes(document) if isinstance(document, str) else None
        if raw is None or len(raw) != self.dtype.itemsize:
            raise self._illegal(document, f"base64 of {self.dtype.itemsize} bytes")
        return np.frombuffer(raw, stored).astype(self.dtype)[0]

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """An object with a member for each field."""
        return {name: field.serialize_fill_value(value[name]) for name, field in self.fields}

    def fill_value_of(self, value: object) -> FillValue:
        """The value that a user gives: a NumPy scalar, a tuple or mapping of what each field takes, or 0 for zeros."""
        if isinstance(value, np.ndarray | np.void) and value.dtype.names is not None:
            return DataType.fill_value_of(self, value)
        if isinstance(value, int) and value == 0:
            return self.zero
        names = [name for name, _ in self.fields]
        if isinstance(value, Mapping) and value.keys() == set(names):
            value = tuple(value[name] for name in names)
        if not isinstance(value, tuple) or len(value) != len(names):
            raise MetadataError(f"fill_value {value!r:.60} is not a struct; give a tuple or mapping of a value for each of {names!r:.200}")
        return self._of([field.fill_value_of(part) for part, (_, field) in zip(value, self.fields, strict=True)])

    def as_array(self, value: object, ndim: int) -> Array:
        """What a user writes: structured arrays, or tuples of what each field takes, in lists for each dimension."""
        if isinstance(value, np.ndarray | np.void):
            return np.asarray(value)
        elements = as_objects(value, ndim, (list,))
        flat: list[Any] = elements.reshape(-1).tolist()
        flat = [element.item() if isinstance(element, np.void) else element for element in flat]
        if not all(isinstance(element, tuple) and len(element) == len(self.fields) for element in flat):
            raise WriteError(f"the value is not made of tuples that fit into {self.dtype}")
        array = np.empty(len(flat), self.dtype)
        for place, (name, field) in enumerate(self.fields if flat else ()):
            part = field.conform(field.as_array([element[place] for element in flat], 1))
            if part.shape != array[name].shape:
                raise WriteError(f"field {name!r} of the value has the shape {part.shape[1:]}, not {array[name].shape[1:]}")
            array[name] = part
        return array.reshape(elements.shape)

    def conform(self, array: Array) -> Array:
        """``array`` where it has the same fields, each of values that fit."""
        if array.dtype == self.dtype:
            return array
        if array.dtype.names is None or set(array.dtype.names) != {name for name, _ in self.fields}:
            raise self._misfit(array, f"it needs the fields {', '.join(name for name, _ in self.fields)}")
        packed = np.empty(array.shape, self.dtype)
        for name, field in self.fields:
            part = array[name]
            if part.shape != packed[name].shape:
                raise self._misfit(array, f"field {name!r} has the shape {part.shape[array.ndim :]}")
            packed[name] = field.conform(part)
        return packed


@dataclass(frozen=True, slots=True)
class Subarray(DataType):
    """A field that is itself an array of a fixed shape, which only Zarr v2 has."""

    item: DataType
    shape: tuple[int, ...]

    @classmethod
    def of(cls, item: DataType, shape: tuple[int, ...]) -> Subarray:
        """Arrays of ``item``; ``MetadataError`` where they are too large or empty."""
        count = 1
        for length in shape:
            count *= length
        if not 0 < count * item.dtype.itemsize <= MAX_NBYTES or len(shape) > MAX_DEPTH or item.dtype.hasobject:
            raise MetadataError(f"a field of shape {shape!s:.100} and data type {item.name!r} is empty, or too large")
        return cls("subarray", np.dtype((item.dtype, shape)), item, shape)

    def to_json(self) -> JSON:
        """Nothing: raises ``MetadataError``."""
        raise MetadataError(f"Zarr v3 has no fields that are arrays, here of shape {self.shape}; make them fields, or write Zarr v2")

    @property
    def zero(self) -> FillValue:
        """Zero in every place."""
        return np.full(self.shape, self.item.zero, self.item.dtype)

    def parse_fill_value(self, document: JSON) -> FillValue:
        """The values in nested lists."""
        array = np.zeros(self.shape, self.item.dtype)
        _fill(array, document, self)
        return array

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """Nested lists."""
        return _nested(value, self.item.serialize_fill_value)

    def fill_value_of(self, value: object) -> FillValue:
        """The value that a user gives for every place."""
        array = self.item.conform(self.item.as_array(value, len(self.shape)))
        return np.broadcast_to(array, self.shape).astype(self.item.dtype)

    def conform(self, array: Array) -> Array:
        """``array`` where its elements fit."""
        return self.item.conform(array)


def field_of(data_type: DataType, name: str) -> DataType:
    """The data type of the field ``name``; ``SelectionError`` where there is none of that name, or its values are arrays."""
    if not isinstance(data_type, Struct):
        raise SelectionError(f"elements of data type {data_type.name!r} have no fields, hence no {name!r:.100}")
    for known, field in data_type.fields:
        if known == name:
            if isinstance(field, Subarray):
                raise SelectionError(f"field {name!r:.100} is an array of shape {field.shape} in each element; read whole elements instead")
            return field
    raise SelectionError(f"there is no field {name!r:.100}; the fields are {', '.join(known for known, _ in data_type.fields):.1000}")


def _fill(array: Array, document: JSON, data_type: Subarray) -> None:
    if not isinstance(document, list | tuple) or len(document) != len(array):
        raise MetadataError(f"{document!r:.100} is not a fill value of shape {data_type.shape}")
    for number, part in enumerate(document):
        if array.ndim > 1:
            _fill(array[number], part, data_type)
        else:
            array[number] = data_type.item.parse_fill_value(part)


def _nested(array: Array, serialize: Callable[[FillValue], JSON]) -> JSON:
    return [_nested(part, serialize) if array.ndim > 1 else serialize(part) for part in array]


def _depth(data_type: DataType) -> int:
    if isinstance(data_type, Subarray):
        return _depth(data_type.item)
    return 1 + max(_depth(field) for _, field in data_type.fields) if isinstance(data_type, Struct) else 0


def make_struct(name: str, configuration: Mapping[str, JSON], parse: Callable[[JSON], DataType]) -> DataType:
    """The structure of the fields in ``configuration``: objects, or the pairs of name and data type that "structured" has."""
    check_keys(name, configuration, "fields")
    fields, known = configuration["fields"], []
    if not isinstance(fields, list | tuple):
        raise MetadataError(f"data type {name!r}: fields must be a list, not {fields!r:.100}")
    for field in fields:
        if isinstance(field, Mapping) and field.keys() == {"name", "data_type"}:
            field_name, document = field["name"], field["data_type"]
        elif name == "structured" and isinstance(field, list | tuple) and len(field) == 2:
            field_name, document = field
        else:
            raise MetadataError(f"data type {name!r}: a field must be an object with 'name' and 'data_type', not {field!r:.100}")
        if not isinstance(field_name, str):
            raise MetadataError(f"data type {name!r}: the name of a field must be a string, not {field_name!r:.100}")
        known.append((field_name, parse(document)))
    return Struct.of(known)


def struct_for(dtype: np.dtype[Any], data_type_for: Callable[[np.dtype[Any]], DataType]) -> DataType:
    """The structure that NumPy describes as ``dtype``, without the gaps that it may have between fields."""
    fields = []
    for name in dtype.names or ():
        field = dtype.fields[name][0]  # type: ignore[index]  # a data type with names has fields
        item = data_type_for(field.base)
        fields.append((name, item if field.subdtype is None else Subarray.of(item, field.shape)))
    return Struct.of(fields)
