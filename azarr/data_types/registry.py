"""Which data types there are, by their names in metadata and by NumPy's data types."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from azarr.data_types.base import DataType, Maker, native, without_configuration
from azarr.data_types.numeric import CORE
from azarr.data_types.small import MAKERS as SMALL
from azarr.data_types.small import small_for
from azarr.deferred import Deferred
from azarr.errors import MetadataError, RegistrationError, UnknownExtensionError
from azarr.registry import OWN, Entry, Registration, Registry, callable_of
from azarr.types import JSON

if TYPE_CHECKING:
    from azarr.data_types.raw import Bytes, make_fixed, raw_bits, raw_for
    from azarr.data_types.struct import make_struct, struct_for
    from azarr.data_types.text import String, make_utf32, utf32_for
    from azarr.data_types.times import make_time, time_for
    from azarr.data_types.variable import make_optional
else:  # what arrays of numbers do without
    Bytes, make_fixed, raw_bits, raw_for = (
        Deferred("azarr.data_types.raw", name) for name in ("Bytes", "make_fixed", "raw_bits", "raw_for")
    )
    make_struct, struct_for = (Deferred("azarr.data_types.struct", name) for name in ("make_struct", "struct_for"))
    String, make_utf32, utf32_for = (Deferred("azarr.data_types.text", name) for name in ("String", "make_utf32", "utf32_for"))
    make_time, time_for = (Deferred("azarr.data_types.times", name) for name in ("make_time", "time_for"))
    make_optional = Deferred("azarr.data_types.variable", "make_optional")


def _of_scalars(data_type: DataType) -> Callable[[np.dtype[Any]], DataType]:
    return lambda _: data_type


def _parse(document: JSON) -> DataType:
    """The data type that a ``data_type`` member, or a member inside it, describes."""
    if isinstance(document, str):
        document = {"name": document}
    name = document.get("name") if isinstance(document, Mapping) else None
    if not isinstance(document, Mapping) or not isinstance(name, str):
        raise MetadataError(f"data_type must be a name, or an object with a name, not {document!r:.100}")
    if unknown := document.keys() - {"name", "configuration", "must_understand"}:
        raise MetadataError(f"data_type {name!r} has unknown members {sorted(unknown)!r:.100}")
    if document.get("must_understand", True) is not True:
        raise MetadataError("a data type must be understood; 'must_understand': false is not legal here")
    configuration = document.get("configuration", {})
    if not isinstance(configuration, Mapping):
        raise MetadataError(f"data_type.configuration must be an object, not {configuration!r:.100}")
    if (raw := _raw(name)) is not None:
        return without_configuration(name, lambda: raw)(configuration)
    if (make := DATA_TYPES.get(name)) is not None:
        return make(configuration)
    raise UnknownExtensionError(f"unknown data type {name!r:.100}; azarr has {_known()}, and no plug-in has it", name=name)


def _raw(name: str) -> DataType | None:
    """The data type that is called ``r<N>``; other names do not ask for its module."""
    return raw_bits(name) if name[:1] == "r" and name[1:2].isdigit() else None


def _known() -> str:
    return f"{', '.join(DATA_TYPES.names)} and r8, r16, …"


_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "complex_float32": "complex64",
        "complex_float64": "complex128",
        "variable_length_bytes": "bytes",  # as zarr-python writes it
        "binary": "bytes",  # as drafts had it
        "zarrs.optional": "optional",
    }
)
"""Names of data types that have another one."""

_SIMPLE: Mapping[str, Callable[[], DataType]] = {
    **{data_type.name: partial(_of_scalars(data_type), np.dtype(bool)) for data_type in CORE},
    **SMALL,
    "string": String,
    "bytes": Bytes,
}

_OWN: Mapping[str, Maker] = {
    **{name: without_configuration(name, make) for name, make in _SIMPLE.items()},
    **{name: partial(make_time, name) for name in ("numpy.datetime64", "numpy.timedelta64")},
    "fixed_length_utf32": partial(make_utf32, "fixed_length_utf32"),
    **{name: partial(make_fixed, name) for name in ("null_terminated_bytes", "raw_bytes")},
    **{name: partial(make_struct, name, parse=_parse) for name in ("struct", "structured")},
    "optional": partial(make_optional, "optional", parse=_parse),
}


def _entry(name: str) -> Entry[Maker]:
    return Entry((name, *(alias for alias, of in _ALIASES.items() if of == name)), _OWN[name], OWN)


DATA_TYPES: Registry[Maker] = Registry(
    "data type", map(_entry, _OWN), ("azarr.data_types",), callable_of("a function from a configuration to a DataType")
)
"""Every data type by its names in v3 metadata, as a function of its configuration; ``r<N>`` exists besides for every N."""

NUMPY_TYPES: Mapping[type[np.generic], Callable[[np.dtype[Any]], DataType]] = MappingProxyType(
    {
        **{data_type.dtype.type: _of_scalars(data_type) for data_type in CORE},
        np.datetime64: time_for,
        np.timedelta64: time_for,
        np.str_: utf32_for,
        np.bytes_: raw_for,
        np.void: raw_for,
    }
)
"""Every data type by NumPy's class for its elements, as a function of the NumPy data type in native byte order."""


def is_data_type(name: str) -> bool:
    """Whether ``name`` is that of a data type in v3 metadata, as far as that is known without looking for plug-ins."""
    return name in DATA_TYPES.names or _raw(name) is not None


def register_data_type(name: str, make: Maker, *, aliases: Iterable[str] = (), replace: bool = False) -> Registration:
    """Make a data type known in this process under the ``name`` that it has in v3 metadata, and under ``aliases``, for reading.

    Args:
        name: As its ``DataType.name``; it is also what users pass as ``dtype``.
        make: The ``DataType`` for a configuration, an empty one where the metadata have none; ``MetadataError`` where that is not legal.
        aliases: Further names.
        replace: Put it before another data type of the same name instead of raising.

    Returns:
        What undoes it, also as a context manager.

    Raises:
        RegistrationError: There is a data type of that name.
        TypeError: ``make`` cannot be called.

    """
    if _raw(name) is not None:
        raise RegistrationError(f"the data type {name!r} is one of azarr's for raw bits; choose another name", name=name)
    return DATA_TYPES.register(name, make, aliases=aliases, replace=replace)


def parse_data_type(document: JSON, path: str) -> DataType:
    """The data type that a v3 ``data_type`` member describes.

    ``UnknownExtensionError`` where azarr has none of its name, ``MetadataError`` where the member is not legal.
    """
    try:
        return _parse(document)
    except UnknownExtensionError as error:
        raise UnknownExtensionError(f"{path}: {error}", path=path, name=error.name) from None
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}", path=path) from None


def data_type_for(dtype: np.dtype[Any]) -> DataType:
    """The data type of elements that NumPy describes as ``dtype``, in either byte order; ``MetadataError`` where there is none."""
    if dtype.kind == "T":
        return String()
    if dtype.names is not None:
        return struct_for(native(dtype), data_type_for)
    if dtype.kind == "O":
        raise MetadataError(
            "arrays of objects do not say what the objects are: choose dtype=str or bytes, or a serializer for them such as 'vlen-utf8'"
        )
    if (small := small_for(native(dtype))) is not None:
        return small
    # one width of integers has two classes in NumPy (C's long and long long); its sized name leads to the usual one
    scalar = np.dtype(f"{dtype.kind}{dtype.itemsize}").type if dtype.kind in "iu" else dtype.type
    if scalar not in NUMPY_TYPES:
        raise MetadataError(f"Zarr arrays of {dtype} are not supported; azarr has {_known()}")
    return NUMPY_TYPES[scalar](native(dtype))
