"""``.zarray``, ``.zgroup`` and ``.zattrs``, the metadata documents of Zarr v2, translated to and from the v3-shaped model.

A v2 array becomes the members of a v3 document, which ``v3`` then parses: every check is made once, for both formats.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final

from azarr.data_types import DataType, parse_data_type
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.metadata import v2_codecs, v3
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.metadata.v2_codecs import inexpressible
from azarr.types import JSON, Buffer, Limits

_REQUIRED: Final = ("shape", "chunks", "dtype", "compressor", "fill_value", "order")
_ENDIAN: Final = MappingProxyType({"<": "little", ">": "big"})
_KINDS: Final = MappingProxyType(
    {"b1": "bool"}
    | {f"i{nbytes}": f"int{8 * nbytes}" for nbytes in (1, 2, 4, 8)}
    | {f"u{nbytes}": f"uint{8 * nbytes}" for nbytes in (1, 2, 4, 8)}
    | {f"f{nbytes}": f"float{8 * nbytes}" for nbytes in (2, 4, 8)}
    | {f"c{nbytes}": f"complex{8 * nbytes}" for nbytes in (8, 16)}
)
"""Data types of v3 by the kind and size that stand for them in v2."""


def parse_array(
    zarray: Buffer | Mapping[str, JSON],
    zattrs: Buffer | Mapping[str, JSON] | None,
    path: str,
    limits: Limits = v3.DEFAULT_LIMITS,
) -> ArrayMetadata:
    """The metadata that the ``.zarray`` and, where there is one, the ``.zattrs`` of the array at ``path`` hold."""
    try:
        members = v3.load(zarray, path, ".zarray", limits)
        v3.check_format(members, 2, path, ".zarray")
        v3.require(members, _REQUIRED, path, ".zarray")
        array = v3.parse_array(_translate(members, path, limits), path, limits)
    except RecursionError:
        raise MetadataError(f"{path}: .zarray is nested too deeply", path=path) from None
    fill_value = None if members["fill_value"] is None else array.fill_value
    return replace(array, zarr_format=2, fill_value=fill_value, attributes=_parse_attributes(zattrs, path, limits))


def parse_group(
    zgroup: Buffer | Mapping[str, JSON],
    zattrs: Buffer | Mapping[str, JSON] | None,
    path: str,
    limits: Limits = v3.DEFAULT_LIMITS,
) -> GroupMetadata:
    """The metadata that the ``.zgroup`` and, where there is one, the ``.zattrs`` of the group at ``path`` hold."""
    v3.check_format(v3.load(zgroup, path, ".zgroup", limits), 2, path, ".zgroup")
    return GroupMetadata(2, _parse_attributes(zattrs, path, limits))


def _parse_attributes(zattrs: Buffer | Mapping[str, JSON] | None, path: str, limits: Limits) -> Mapping[str, JSON]:
    return {} if zattrs is None else v3.load(zattrs, path, ".zattrs", limits)


# From v2 to v3


def _translate(members: Mapping[str, JSON], path: str, limits: Limits) -> dict[str, JSON]:
    """The v3 members for those of a ``.zarray``. Members that v2 does not know are ignored, unlike in v3."""
    shape = v3.parse_shape(members["shape"], path, limits)
    data_type, endian = _parse_dtype(members["dtype"], path)
    fill_value = members["fill_value"]
    if fill_value is None:  # undefined, which the codecs are spared
        fill_value = data_type.serialize_fill_value(data_type.default_fill_value)
    chunks, order, separator = members["chunks"], members["order"], members.get("dimension_separator", ".")
    if not isinstance(chunks, list | tuple) or not all(type(length) is int for length in chunks):
        raise MetadataError(f"{path}: chunks must be a list of whole numbers, not {chunks!r:.100}", path=path)
    if order not in ("C", "F"):
        raise MetadataError(f"{path}: order must be 'C' or 'F', not {order!r:.100}", path=path)
    if separator not in (".", "/"):
        raise MetadataError(f"{path}: dimension_separator must be '.' or '/', not {separator!r:.100}", path=path)
    codecs = v2_codecs.translate(_codecs_of(members, path), endian, path)
    if order == "F" and len(shape) > 1:
        codecs.insert(0, {"name": "transpose", "configuration": {"order": list(range(len(shape)))[::-1]}})
    return {
        "shape": shape,
        "data_type": data_type.to_json(),
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": separator}},
        "fill_value": _translate_fill_value(fill_value, data_type, path),
        "codecs": codecs,
    }


def _parse_dtype(document: JSON, path: str) -> tuple[DataType, str | None]:
    """The data type and byte order in a v2 ``dtype``; the byte order is ``None`` for single bytes, whatever the document says."""
    match = re.fullmatch(r"([<>|]?)([a-zA-Z]\d+)", document) if isinstance(document, str) else None
    name = _KINDS.get(match[2]) if match else None
    if match is None or name is None:
        # structured types, strings, times and objects of v2 would be told apart here
        known = ", ".join(_KINDS)
        raise UnknownExtensionError(
            f"{path}: unknown dtype {document!r:.100}; azarr has {known}, each after '<', '>' or, for single bytes, '|'",
            path=path,
            name=f"{document!s:.100}",
        )
    data_type = parse_data_type(name, path)
    if data_type.dtype.itemsize == 1:
        return data_type, None
    if match[1] not in _ENDIAN:
        raise MetadataError(f"{path}: dtype {document!r:.100} needs a byte order, '<{match[2]}' or '>{match[2]}'", path=path)
    return data_type, _ENDIAN[match[1]]


def _translate_fill_value(document: JSON, data_type: DataType, path: str) -> JSON:
    """The v3 form of a v2 ``fill_value``: without the bare NaN, the ``7.0`` of integers and the numbers of bool that v2 has."""
    if isinstance(document, list | tuple):
        return [_translate_fill_value(part, data_type, path) for part in document]
    if isinstance(document, str) and document.startswith("0x"):
        raise MetadataError(f"{path}: fill_value {document!r:.100} is a form of v3; v2 has no hexadecimal numbers", path=path)
    if isinstance(document, float) and math.isnan(document):
        return "NaN"
    if isinstance(document, float) and document.is_integer() and data_type.dtype.kind in "biu":
        return int(document)
    return document


def _codecs_of(members: Mapping[str, JSON], path: str) -> list[JSON]:
    """The filters and the compressor in the order in which they encode; to v2 they are all the same."""
    filters = members.get("filters")
    if filters is not None and not isinstance(filters, list | tuple):
        raise MetadataError(f"{path}: filters must be a list or null, not {filters!r:.100}", path=path)
    compressor = members["compressor"]
    return [*(filters or []), *([] if compressor is None else [compressor])]


# From v3 to v2


def serialize(metadata: ArrayMetadata | GroupMetadata) -> dict[str, bytes]:
    """The documents to store, by their key below the prefix of the node; ``.zattrs`` only where there are attributes.

    ``MetadataError`` where v2 has no words for what the metadata says.
    """
    if metadata.extensions:
        raise inexpressible(f"the members {sorted(metadata.extensions)}")
    attributes = {".zattrs": v3.dump(dict(metadata.attributes), ".zattrs")} if metadata.attributes else {}
    if isinstance(metadata, GroupMetadata):
        return {".zgroup": v3.dump({"zarr_format": 2}, ".zgroup"), **attributes}
    return {".zarray": v3.dump(_serialize_array(metadata), ".zarray"), **attributes}


def _serialize_array(metadata: ArrayMetadata) -> dict[str, JSON]:
    if metadata.dimension_names is not None:
        raise inexpressible("dimension_names (many readers take them from the attribute '_ARRAY_DIMENSIONS')")
    if metadata.storage_transformers:
        raise inexpressible("storage_transformers")
    if metadata.chunk_key_encoding.name != "v2":
        raise inexpressible(f"the chunk key encoding {metadata.chunk_key_encoding.name!r}")
    order, endian, codecs, compressor = v2_codecs.serialize(metadata.codecs, len(metadata.shape))
    return {
        "zarr_format": 2,
        "shape": metadata.shape,
        "chunks": metadata.chunk_grid.chunk_shape,
        "dtype": _serialize_dtype(metadata.data_type, endian),
        "compressor": compressor,
        "fill_value": _serialize_fill_value(metadata),
        "order": order,
        "filters": codecs or None,
        "dimension_separator": metadata.chunk_key_encoding.separator,
    }


def _serialize_dtype(data_type: DataType, endian: JSON) -> str:
    kind = next((kind for kind, name in _KINDS.items() if name == data_type.name), None)
    if kind is None:
        raise inexpressible(f"the data type {data_type.name!r}")
    byte_order = "|" if data_type.dtype.itemsize == 1 else ">" if endian == "big" else "<"
    return f"{byte_order}{kind}"


def _serialize_fill_value(metadata: ArrayMetadata) -> JSON:
    if metadata.fill_value is None:
        return None
    document = metadata.data_type.serialize_fill_value(metadata.fill_value)
    parts: Sequence[Any] = document if isinstance(document, list) else [document]
    if any(isinstance(part, str) and part.startswith("0x") for part in parts):
        raise inexpressible(f"the fill value {document}, a NaN other than the usual one")
    return document
