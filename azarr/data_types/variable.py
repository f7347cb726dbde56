"""Elements that are Python objects: what is missing ("optional"), arrays inside arrays and JSON, the last two of Zarr v2 only."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from azarr.data_types.base import DataType, check_keys
from azarr.data_types.objects import OBJECT, as_objects, one_object
from azarr.errors import MetadataError, UnknownExtensionError, WriteError
from azarr.types import JSON, Array, FillValue


@dataclass(frozen=True, slots=True)
class Optional(DataType):
    """Elements of another data type, or ``None`` where one is missing."""

    item: DataType

    @classmethod
    def of(cls, item: DataType) -> Optional:
        """The data type of ``item`` or ``None``."""
        if isinstance(item, Optional):
            message = "a data type 'optional' of 'optional' elements is not supported, as None means one thing only"
            raise UnknownExtensionError(message, name="optional")
        return cls("optional", np.dtype(object, metadata={"item": item}), item)

    def to_json(self) -> JSON:
        """The name and configuration of the data type inside."""
        inner = self.item.to_json()
        inner = {"name": inner} if isinstance(inner, str) else inner
        return {"name": self.name, "configuration": {"configuration": {}, **inner}}  # type: ignore[dict-item]  # an object by now

    @property
    def default_codec(self) -> str:
        """A mask, and the elements that are there."""
        return "optional"

    @property
    def zero(self) -> FillValue:
        """Nothing."""
        return None

    def parse_fill_value(self, document: JSON) -> FillValue:
        """``null`` for nothing, or a list of one value."""
        if document is None:
            return None
        if not isinstance(document, list | tuple) or len(document) != 1:
            raise self._illegal(document, "null, or a list of one fill value")
        return self.item.parse_fill_value(document[0])

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """``null``, or a list of one value."""
        return None if value is None else [self.item.serialize_fill_value(value)]

    def fill_value_of(self, value: object) -> FillValue:
        """``None``, or the value that a user gives."""
        return None if value is None else self.item.fill_value_of(value)

    def as_array(self, value: object, ndim: int) -> Array:
        """What a user writes: lists with ``None`` in them, arrays of objects, masked arrays."""
        if isinstance(value, np.ma.MaskedArray):
            elements = np.asarray(value.data).astype(object)
            elements[np.ma.getmaskarray(value)] = None
            return elements
        return as_objects(value, ndim)

    def conform(self, array: Array) -> Array:
        """``array`` as an array of ``None`` and of elements that fit."""
        elements = array.astype(object)
        there = np.array([element is not None for element in elements.flat], bool).reshape(elements.shape)
        values = elements[there]
        if not values.size:
            return elements
        known = self.item.conform(self.item.as_array(values.tolist() if array.dtype == object else array[there], 1))
        elements[there] = known.astype(self.item.dtype)
        return elements


@dataclass(frozen=True, slots=True)
class VlenArray(DataType):
    """One-dimensional arrays of any length."""

    item: DataType

    @classmethod
    def of(cls, item: DataType) -> VlenArray:
        """Arrays of ``item``."""
        if item.dtype.hasobject or item.dtype.subdtype is not None:
            raise MetadataError(f"arrays of any length must be made of elements of a fixed size, not {item.name!r}")
        return cls("vlen-array", np.dtype(object), item)

    def to_json(self) -> JSON:
        """Nothing: raises ``MetadataError``."""
        raise MetadataError("Zarr v3 has no data type for arrays inside arrays; write Zarr v2")

    @property
    def default_codec(self) -> str:
        """Lengths and elements."""
        return "numcodecs.vlen-array"

    @property
    def zero(self) -> FillValue:
        """An array of no elements."""
        empty = np.empty(0, self.item.dtype)
        empty.flags.writeable = False  # it stands in many places at once
        return one_object(empty)

    def parse_fill_value(self, document: JSON) -> FillValue:
        """No elements, for whatever v2 writers leave here: ``0``, ``""`` or ``null``."""
        if document not in (0, "", None):
            raise self._illegal(document, "0, which stands for an array without elements")
        return self.zero

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """0, as v2 writers have it."""
        del value
        return 0

    def fill_value_of(self, value: object) -> FillValue:
        """No elements, where a user gives no others."""
        value = value[()] if isinstance(value, np.ndarray) and not value.ndim else value
        if np.size(np.asarray(value)) and not (isinstance(value, int) and value == 0):
            raise MetadataError(f"fill_value {value!r:.60} cannot be stored; arrays inside arrays have an empty one")
        return self.zero

    def as_array(self, value: object, ndim: int) -> Array:
        """What a user writes: an array of objects, or nested lists, the innermost of which are the elements."""
        return as_objects(value, ndim)

    def conform(self, array: Array) -> Array:
        """``array`` as an array of one-dimensional arrays."""
        if array.dtype != object:
            raise self._misfit(array, "give an array of objects")
        elements = np.empty(array.shape, object)
        flat = elements.reshape(-1)
        for number, element in enumerate(array.flat):
            part = self.item.as_array(element, 1)
            if part.ndim != 1:
                raise WriteError(f"{element!r:.60} is not a one-dimensional array")
            flat[number] = self.item.conform(part).astype(self.item.dtype) if part.size else np.empty(0, self.item.dtype)
        return elements

    @property
    def _shown(self) -> str:
        return f"an array of arrays of {self.item.dtype}"


@dataclass(frozen=True, slots=True)
class Json(DataType):
    """Whatever JSON can express: strings, numbers, truth values, ``None``, lists and dictionaries of such."""

    name: str = "json"
    dtype: np.dtype[Any] = OBJECT

    def to_json(self) -> JSON:
        """Nothing: raises ``MetadataError``."""
        raise MetadataError("Zarr v3 has no data type for JSON; write Zarr v2, or JSON text as strings")

    @property
    def default_codec(self) -> str:
        """JSON."""
        return "numcodecs.json2"

    @property
    def zero(self) -> FillValue:
        """Nothing."""
        return None

    def parse_fill_value(self, document: JSON) -> FillValue:
        """Any value of JSON except for lists and objects."""
        if not isinstance(document, bool | int | float | str | None):
            raise self._illegal(document, "a string, number, truth value or null")
        return document

    def serialize_fill_value(self, value: FillValue) -> JSON:
        """The value as it is."""
        return value  # type: ignore[no-any-return]  # as parse_fill_value made it

    def fill_value_of(self, value: object) -> FillValue:
        """The value that a user gives."""
        value = value.item() if isinstance(value, np.generic) else value
        return self.parse_fill_value(value)  # type: ignore[arg-type]  # it checks

    def as_array(self, value: object, ndim: int) -> Array:
        """What a user writes: lists are dimensions as far as there are any, and elements below."""
        return as_objects(value, ndim)

    def conform(self, array: Array) -> Array:
        """``array`` as an array of objects that JSON can express."""
        elements = array.astype(object)
        try:
            same = repr(json.loads(json.dumps(listed := elements.ravel().tolist()))) == repr(listed)
        except (TypeError, ValueError, RecursionError) as error:
            raise WriteError(f"the value has elements that are not JSON: {error}") from error
        if not same:
            raise WriteError("the value has elements that JSON changes, such as tuples, or keys that are no strings; convert them yourself")
        return elements


def make_optional(name: str, configuration: Mapping[str, JSON], parse: Callable[[JSON], DataType]) -> DataType:
    """The data type of elements that may be missing; ``configuration`` is the name and configuration of the others."""
    if "configuration" not in configuration:
        configuration = {**configuration, "configuration": {}}
    check_keys(name, configuration, "name", "configuration")
    return Optional.of(parse(configuration))
