"""From what users write to arrays of objects, without NumPy guessing at what the objects are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np

from azarr.errors import WriteError
from azarr.types import Array

OBJECT: Final[np.dtype[Any]] = np.dtype(object)
"""What holds Python objects."""


def as_objects(value: object, ndim: int, dimensions: tuple[type, ...] = (list, tuple)) -> Array:
    """``value`` as an array of objects: lists and tuples are ``dimensions``, at most ``ndim`` of them; what is in those is an element.

    ``WriteError`` where lists differ in length.
    """
    if isinstance(value, np.ndarray):
        return value
    shape: list[int] = []
    inner = value
    while len(shape) < ndim and isinstance(inner, dimensions):
        parts: Any = inner
        shape.append(len(parts))
        if not parts:
            break
        inner = parts[0]
    array = np.empty(shape, object)
    elements = list(_flat(value, shape))
    flat = array.reshape(-1)
    for number, element in enumerate(elements):  # one by one: NumPy would look into elements that are lists or arrays
        flat[number] = element
    return array


def _flat(value: Any, shape: list[int]) -> Iterator[Any]:
    if not shape:
        yield value
        return
    if not isinstance(value, list | tuple) or len(value) != shape[0]:
        raise WriteError("the lists of the value differ in length or depth; give it as an array of objects")
    for part in value:
        yield from _flat(part, shape[1:])


def one_object(value: object) -> Array:
    """A zero-dimensional array of objects that holds ``value``, whatever it is."""
    array = np.empty((), object)
    array[()] = value
    return array
