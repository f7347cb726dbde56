"""``.zarray``, ``.zgroup`` and ``.zattrs``, the metadata documents of Zarr v2, translated to and from the v3-shaped model.

A v2 array becomes the members of a v3 document, which ``v3`` then parses: every check is made once, for both formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from azarr.chunk_grids import RegularGrid
from azarr.chunk_keys import SeparatedKeys
from azarr.codecs.base import Codec
from azarr.codecs.bytes import Bytes
from azarr.codecs.mixed_bytes import MixedBytes
from azarr.codecs.transpose import Transpose
from azarr.data_types.base import has_byte_order
from azarr.data_types.variable import Json
from azarr.errors import MetadataError
from azarr.metadata import v2_codecs, v2_data_types, v3
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.metadata.v2_codecs import inexpressible
from azarr.metadata.v2_data_types import Elements
from azarr.types import JSON, Buffer, Limits

_REQUIRED: Final = ("shape", "chunks", "dtype", "compressor", "fill_value", "order")


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
        v3.check_extent(members["dtype"], "dtype", path)
        elements = v2_data_types.parse_dtype(members["dtype"], _codecs_of(members, path), path)
        v3.check_element(elements.data_type, path, limits)
        fill_value = v2_data_types.parse_fill_value(members["fill_value"], elements, path)
        array = v3.parse_array(_translate(members, elements, path, limits), path, limits, (elements.data_type, fill_value))
    except RecursionError:
        raise MetadataError(f"{path}: .zarray is nested too deeply", path=path) from None
    return replace(
        array,
        zarr_format=2,
        codecs=_with_mixed_orders(array.codecs, elements, path) if elements.endian == "mixed" else array.codecs,
        fill_value=None if members["fill_value"] is None else fill_value,
        attributes=_parse_attributes(zattrs, path, limits),
    )


def _with_mixed_orders(codecs: Sequence[Codec], elements: Elements, path: str) -> tuple[Codec, ...]:
    """The codecs with one for fields of more than one byte order in place of ``bytes``."""
    first = next(codec for codec in codecs if not isinstance(codec, Transpose))
    if not isinstance(first, Bytes):
        raise MetadataError(f"{path}: fields that differ in byte order cannot go through the filter {first.name!r}", path=path)
    return tuple(MixedBytes(stored=elements.stored) if codec is first else codec for codec in codecs)


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


def _translate(members: Mapping[str, JSON], elements: Elements, path: str, limits: Limits) -> dict[str, JSON]:
    """The v3 members for those of a ``.zarray``, except for the data type and fill value, whose forms v3 has not all.

    Members that v2 does not know are ignored, unlike in v3.
    """
    shape = v3.parse_shape(members["shape"], path, limits)
    chunks, order, separator = members["chunks"], members["order"], members.get("dimension_separator", ".")
    if not isinstance(chunks, list | tuple) or not all(type(length) is int for length in chunks):
        raise MetadataError(f"{path}: chunks must be a list of whole numbers, not {chunks!r:.100}", path=path)
    if order not in ("C", "F"):
        raise MetadataError(f"{path}: order must be 'C' or 'F', not {order!r:.100}", path=path)
    if separator not in (".", "/"):
        raise MetadataError(f"{path}: dimension_separator must be '.' or '/', not {separator!r:.100}", path=path)
    codecs = v2_codecs.translate(_codecs_of(members, path), "little" if elements.endian == "mixed" else elements.endian, path)
    if order == "F" and len(shape) > 1:
        if isinstance(elements.data_type, Json):
            raise MetadataError(f"{path}: JSON in order 'F' is refused, because writers disagree on what it means", path=path)
        codecs.insert(0, {"name": "transpose", "configuration": {"order": list(range(len(shape)))[::-1]}})
    return {
        "shape": shape,
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(chunks)}},
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": separator}},
        "codecs": codecs,
    }


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
    if not isinstance(metadata.chunk_grid, RegularGrid):
        raise inexpressible("chunks of different lengths")
    keys = metadata.chunk_key_encoding
    if not isinstance(keys, SeparatedKeys) or keys.name != "v2":
        raise inexpressible(f"the chunk key encoding {keys.name!r}")
    order, endian, codecs, compressor = v2_codecs.serialize(metadata.codecs, len(metadata.shape))
    elements = Elements(metadata.data_type, _stored_dtype(metadata, endian))
    dtype = v2_data_types.serialize_dtype(elements.stored)
    if order == "F" and isinstance(metadata.data_type, Json):
        raise inexpressible("JSON in order 'F'")
    return {
        "zarr_format": 2,
        "shape": metadata.shape,
        "chunks": metadata.chunk_grid.chunk_shape,
        "dtype": dtype,
        "compressor": compressor,
        "fill_value": None if metadata.fill_value is None else v2_data_types.serialize_fill_value(metadata.fill_value, elements),
        "order": order,
        "filters": codecs or None,
        "dimension_separator": keys.separator,
    }


def _stored_dtype(metadata: ArrayMetadata, endian: JSON) -> np.dtype[Any]:
    """The data type of the elements in the byte order in which they are stored."""
    dtype = metadata.data_type.dtype
    mixed = [codec.stored for codec in metadata.codecs if isinstance(codec, MixedBytes)]
    if mixed or dtype.hasobject or not has_byte_order(dtype):
        return mixed[0] if mixed else dtype
    return dtype.newbyteorder(">" if endian == "big" else "<")
