"""``dtype`` and ``fill_value`` of Zarr v2, translated to and from data types and their values.

v2 describes elements in NumPy's words, byte order included; what objects are, only the object codec among the filters says.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import numpy as np

from azarr.codecs.registry import parse_codec
from azarr.data_types import DataType, data_type_for, parse_data_type
from azarr.data_types.base import MAX_NBYTES, has_byte_order
from azarr.data_types.numeric import CORE, Number
from azarr.data_types.raw import Bytes as BytesType
from azarr.data_types.raw import NullTerminatedBytes, RawBytes, to_base64
from azarr.data_types.small import NAMES as SMALL
from azarr.data_types.struct import MAX_DEPTH, Struct
from azarr.data_types.text import FixedLengthUTF32, String
from azarr.data_types.times import NAT, Time
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.metadata.v2_codecs import inexpressible, name_in_v3
from azarr.types import JSON, FillValue

_NUMBERS: Final = frozenset(data_type.dtype.str[1:] for data_type in CORE)
_DTYPE: Final = re.compile(r"([<>|]?)([bBiufcSUV][1-9]\d*|[mM]8(?:\[[0-9a-zA-Zμ]+\])?)")
_NAMES: Final = frozenset(SMALL) - {name for name in SMALL if name.startswith("complex_")}
"""The data types that tensorstore calls by their names in v2 as well, and writes in little-endian order."""

_KNOWN: Final = f"{', '.join(sorted(_NUMBERS))}, S<n>, U<n>, V<n>, M8[<unit>], m8[<unit>], |O and lists of fields"

_UNSAFE: Final[Mapping[str, str]] = MappingProxyType(
    {
        "pickle": "pickled objects are refused, because reading them runs whatever code their writer chose",
        "msgpack": "MessagePack is not supported",
        "msgpack2": "MessagePack is not supported",
        "json": "JSON without shapes, as the oldest writers had it, is not supported",
    }
)


class Elements(NamedTuple):
    """What a v2 document says of elements: their data type, and NumPy's for them as they are stored."""

    data_type: DataType
    stored: np.dtype[Any]

    @property
    def endian(self) -> Literal["little", "big", "mixed"] | None:
        """The byte order of all that has one; ``None`` where nothing has."""
        orders = _byte_orders(self.stored)
        if len(orders) > 1:
            return "mixed"
        return {"<": "little", ">": "big"}[orders.pop()] if orders else None  # type: ignore[return-value]  # literals


def _byte_orders(dtype: np.dtype[Any]) -> set[str]:
    """The byte orders, ``<`` and ``>``, of all parts of ``dtype`` that have one."""
    if dtype.subdtype is not None:
        return _byte_orders(dtype.base)
    if dtype.names is not None:
        return set().union(*(_byte_orders(dtype.fields[name][0]) for name in dtype.names))  # type: ignore[index]  # it has fields
    if dtype.hasobject or not has_byte_order(dtype):
        return set()
    return {"<" if dtype == dtype.newbyteorder("<") else ">"}


# From v2 to v3


def parse_dtype(document: JSON, codecs: Sequence[JSON], path: str) -> Elements:
    """The elements that a v2 ``dtype`` describes, for objects with the help of the filters and compressor ``codecs``."""
    try:
        if document in ("|O", "O", "<O", ">O"):
            data_type = _object_type(codecs)
            return Elements(data_type, data_type.dtype)
        if isinstance(document, str) and document in _NAMES:
            data_type = parse_data_type(document, path)
            return Elements(data_type, data_type.dtype.newbyteorder("<") if has_byte_order(data_type.dtype) else data_type.dtype)
        stored = _stored(document, 0)
        return Elements(data_type_for(stored), stored)
    except UnknownExtensionError as error:
        raise UnknownExtensionError(_at(path, error), path=path, name=error.name) from None
    except MetadataError as error:
        raise MetadataError(_at(path, error), path=path) from None


def _at(path: str, error: MetadataError) -> str:
    return str(error) if error.path else f"{path}: {error}"


def _stored(document: JSON, depth: int) -> np.dtype[Any]:
    if isinstance(document, list | tuple) and document:
        if depth >= MAX_DEPTH:
            raise MetadataError(f"structures in dtype may be nested {MAX_DEPTH} times, no deeper")
        return _structure([_field(field, depth) for field in document])
    match = _DTYPE.fullmatch(document) if isinstance(document, str) else None
    if match is None or (match[2][0] in "bBiufc" and match[2] not in _NUMBERS):
        raise UnknownExtensionError(
            f"unknown dtype {document!r:.100}; azarr has {_KNOWN}, each after '<', '>' or, for single bytes, '|'", name=f"{document!s:.100}"
        )
    if match[2][0] in "SUV" and int(match[2][1:]) * (4 if match[2][0] == "U" else 1) > MAX_NBYTES:
        raise MetadataError(f"dtype {document!r:.100} is too large; elements may have {MAX_NBYTES} bytes")
    try:
        stored = np.dtype(f"{match[1]}{match[2]}")
    except (TypeError, ValueError) as error:
        raise MetadataError(f"dtype {document!r:.100} is none of NumPy's: {error}") from None
    if has_byte_order(stored) and match[1] not in ("<", ">"):
        raise MetadataError(f"dtype {document!r:.100} needs a byte order, '<{match[2]}' or '>{match[2]}'")
    return stored


def _field(document: JSON, depth: int) -> tuple[str, np.dtype[Any]]:
    """The name and data type of a field, which may be an array of a fixed shape."""
    if not isinstance(document, list | tuple) or len(document) not in (2, 3) or not isinstance(document[0], str) or not document[0]:
        raise MetadataError(f"a field of dtype must be a list of a name, a dtype and perhaps a shape, not {document!r:.100}")
    dtype = _stored(document[1], depth + 1)
    if len(document) == 2 or document[2] in ([], ()):
        return document[0], dtype
    shape = [document[2]] if type(document[2]) is int else document[2]
    if not isinstance(shape, list | tuple) or not all(type(length) is int and 0 < length <= MAX_NBYTES for length in shape):
        raise MetadataError(f"the shape of a field of dtype must be a list of whole numbers from 1, not {shape!r:.100}")
    if len(shape) > MAX_DEPTH or math.prod(shape) * dtype.itemsize > MAX_NBYTES:
        raise MetadataError(f"a field of shape {shape!s:.100} is too large; elements may have {MAX_NBYTES} bytes")
    return document[0], np.dtype((dtype, tuple(shape)))


def _structure(fields: list[tuple[str, np.dtype[Any]]]) -> np.dtype[Any]:
    names = [name for name, _ in fields]
    if len(set(names)) < len(names):
        raise MetadataError(f"the fields of dtype need names of their own; the names are {names!r:.200}")
    if (nbytes := sum(dtype.itemsize for _, dtype in fields)) > MAX_NBYTES:
        raise MetadataError(f"a dtype of {nbytes} bytes is too large; elements may have {MAX_NBYTES}")
    return np.dtype(fields)


def _object_type(codecs: Sequence[JSON]) -> DataType:
    """The data type of objects, which the first object codec knows."""
    for document in codecs:
        codec_id = document.get("id") if isinstance(document, Mapping) else None
        if not isinstance(document, Mapping) or not isinstance(codec_id, str):
            continue  # refused later
        if codec_id in _UNSAFE:
            raise UnknownExtensionError(f"object codec {codec_id!r}: {_UNSAFE[codec_id]}; write the array again as text", name=codec_id)
        name = name_in_v3(codec_id)
        if codec_id == "categorize":
            return String()
        if codec_id in _OBJECT_CODECS:
            configuration = {key: value for key, value in document.items() if key != "id"}
            codec = parse_codec({"name": name, "configuration": configuration})
            if (held := codec.object_type) is not None:
                return held
    raise MetadataError(f"dtype '|O' needs an object codec among the filters, one of {', '.join(_OBJECT_CODECS)} or categorize")


_OBJECT_CODECS: Final = ("vlen-utf8", "vlen-bytes", "vlen-array", "json2")


def parse_fill_value(document: JSON, elements: Elements, path: str) -> FillValue:
    """The value that a v2 ``fill_value`` stands for; what is taken for undefined elements for ``null``."""
    data_type = elements.data_type
    try:
        if document is None:
            return data_type.undefined
        if isinstance(data_type, Number | Time):
            return data_type.parse_fill_value(_number(document, data_type))
        if document in (0, "") and isinstance(data_type, Struct | NullTerminatedBytes | RawBytes | BytesType | FixedLengthUTF32 | String):
            return data_type.zero  # what writers leave where nobody chose a value
        if isinstance(data_type, Struct):
            return data_type.parse_packed(document, elements.stored)
        if isinstance(data_type, RawBytes | BytesType) and not isinstance(document, str):
            raise MetadataError(f"{document!r:.100} is not base64")
        return data_type.parse_fill_value(document)
    except MetadataError as error:
        raise MetadataError(f"{path}: fill_value: {error}", path=path) from None


def _number(document: JSON, data_type: DataType) -> JSON:
    """The v3 form of a number: without the bare NaN, the ``7.0`` of integers and the numbers of bool that v2 has."""
    if isinstance(document, list | tuple):
        return [_number(part, data_type) for part in document]
    if isinstance(document, str) and document.startswith("0x"):
        raise MetadataError(f"{document!r:.100} is a form of v3; v2 has no hexadecimal numbers")
    if isinstance(document, float) and math.isnan(document):
        return "NaN"
    if isinstance(document, float) and document.is_integer() and data_type.dtype.kind in "biumM":
        return int(document)
    return document


# From v3 to v2

_FORMS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "numpy.datetime64": "M8[<unit>]",
        "numpy.timedelta64": "m8[<unit>]",
        "fixed_length_utf32": "U<n>",
        "null_terminated_bytes": "S<n>",
        "raw_bytes": "V<n>",
        "r<N>": "V<n>",
        "struct": "a list of fields",
        "string": "|O",
        "bytes": "|O",
        **{data_type.name: data_type.dtype.str[1:] for data_type in CORE},
        **{name: name for name in _NAMES},
    }
)


def form_of(name: str) -> str | None:
    """What ``dtype`` is in v2 for the data type ``name``, without its byte order; ``None`` where v2 does not have it."""
    return _FORMS.get(name)


def serialize_dtype(dtype: np.dtype[Any]) -> JSON:
    """The v2 ``dtype`` of elements that are stored as ``dtype``; ``MetadataError`` where v2 has none."""
    if dtype.hasobject:
        return "|O"
    if dtype.names is not None:
        return [_serialize_field(name, dtype.fields[name][0]) for name in dtype.names]  # type: ignore[index]  # it has fields
    if dtype.name in _NAMES:
        if not dtype.newbyteorder("<") == dtype and has_byte_order(dtype):
            raise inexpressible(f"the data type {dtype.name!r} in big-endian order")
        return dtype.name
    if dtype.kind in "mM" and (unit := np.datetime_data(dtype)) != ("generic", 1):
        return f"{dtype.byteorder.replace('=', np.dtype(np.int16).str[0])}{dtype.kind}8[{unit[1] if unit[1] > 1 else ''}{unit[0]}]"
    if _DTYPE.fullmatch(dtype.str) is None:
        raise inexpressible(f"the data type {dtype}")
    return dtype.str


def _serialize_field(name: str, dtype: np.dtype[Any]) -> JSON:
    shape = [list(dtype.shape)] if dtype.subdtype is not None else []
    if (item := dtype.base).name in _NAMES:
        raise inexpressible(f"the data type {item.name!r} in a field")
    return [name, serialize_dtype(item), *shape]


def serialize_fill_value(value: FillValue, elements: Elements) -> JSON:
    """The v2 ``fill_value`` that stands for ``value``; ``MetadataError`` where v2 has none."""
    data_type = elements.data_type
    if isinstance(data_type, Struct | RawBytes):
        return to_base64(np.array([value], data_type.dtype).astype(elements.stored).tobytes())
    document = data_type.serialize_fill_value(value)
    if isinstance(data_type, Time):
        return NAT if document == "NaT" else document
    parts: Sequence[Any] = document if isinstance(document, list) else [document]
    if isinstance(data_type, Number) and any(isinstance(part, str) and part.startswith("0x") for part in parts):
        raise inexpressible(f"the fill value {document}, a NaN other than the usual one")
    return document
