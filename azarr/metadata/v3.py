"""``zarr.json``, the metadata document of Zarr v3 (core, "Metadata")."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, cast

from azarr.chunk_grids import ChunkGrid, parse_chunk_grid
from azarr.chunk_keys import parse_chunk_key_encoding
from azarr.codecs.registry import parse_codecs, serialize_codec
from azarr.data_types import DataType, parse_data_type
from azarr.deferred import DeferredModule
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.metadata.model import SHAPES_CHECKED, ArrayMetadata, GroupMetadata
from azarr.types import JSON, MAX_NDIM, Buffer, ChunkSpec, FillValue, Limits

if TYPE_CHECKING:
    from azarr.data_types import struct, variable
else:  # what arrays of numbers do without
    struct = DeferredModule("azarr.data_types.struct")
    variable = DeferredModule("azarr.data_types.variable")

DEFAULT_LIMITS: Final = Limits()

_REQUIRED: Final = ("shape", "data_type", "chunk_grid", "chunk_key_encoding", "fill_value", "codecs")
_WORDS: Final = 2**14
"""What a data type may have of strings, numbers, lists and objects: more than a structure of thousands of fields needs."""

_GROUP: Final = frozenset({"zarr_format", "node_type", "attributes"})
_ARRAY: Final = _GROUP | {*_REQUIRED, "dimension_names", "storage_transformers"}


def parse(document: Buffer | Mapping[str, JSON], path: str, limits: Limits = DEFAULT_LIMITS) -> ArrayMetadata | GroupMetadata:
    """The metadata that the ``zarr.json`` of the node at ``path`` holds; ``MetadataError`` where it is not legal."""
    try:
        return _parse_node(load(document, path, "zarr.json", limits), path, limits)
    except RecursionError:
        raise MetadataError(f"{path}: zarr.json is nested too deeply", path=path) from None


def _parse_node(members: Mapping[str, JSON], path: str, limits: Limits) -> ArrayMetadata | GroupMetadata:
    check_format(members, 3, path, "zarr.json")
    node_type = members.get("node_type")
    if node_type == "array":
        return parse_array(members, path, limits)
    if node_type == "group":
        # the one member that the specification lets stand without 'must_understand'
        consolidated = {key: members[key] for key in members.keys() & {"consolidated_metadata"}}
        extensions = _parse_extensions(members, _GROUP | consolidated.keys(), path)
        return GroupMetadata(3, parse_attributes(members.get("attributes", {}), path), {**extensions, **consolidated})
    raise MetadataError(f"{path}: node_type must be 'array' or 'group', not {node_type!r:.100}", path=path)


def parse_array(
    members: Mapping[str, JSON], path: str, limits: Limits, elements: tuple[DataType, FillValue] | None = None
) -> ArrayMetadata:
    """The metadata of the array that the v3 ``members`` describe, except for what they say of their format and node type.

    ``elements`` are a data type and fill value that are known from elsewhere; the members need not have them then.
    """
    if elements is None:
        require(members, _REQUIRED, path, "zarr.json")
        check_extent(members["data_type"], "data_type", path)
        data_type = parse_data_type(members["data_type"], path)
        check_element(data_type, path, limits)
        elements = data_type, _parse_fill_value(members["fill_value"], data_type, members["codecs"], path)
    data_type, fill_value = elements
    extensions = _parse_extensions(members, _ARRAY, path)
    shape = parse_shape(members["shape"], path, limits)
    grid = parse_chunk_grid(members["chunk_grid"], shape, path)
    spec = ChunkSpec(grid.chunk_shape, data_type.dtype, fill_value, limits.chunk_nbytes, limits.expansion)
    texts = spec.nelements * len(fill_value) if spec.variable and isinstance(fill_value, str | bytes) else 0  # what missing chunks take
    if spec.nbytes + texts > limits.chunk_nbytes:
        excess = f"more than the {limits.chunk_nbytes} bytes that are accepted; raise Limits.chunk_nbytes to read them"
        raise MetadataError(f"{path}: chunks of {data_type.name} and shape {grid.chunk_shape!s:.100} are {excess}", path=path)
    return ArrayMetadata(
        zarr_format=3,
        shape=shape,
        data_type=data_type,
        chunk_grid=grid,
        chunk_key_encoding=parse_chunk_key_encoding(members["chunk_key_encoding"], path),
        codecs=_parse_codecs(members["codecs"], spec, grid, path),
        fill_value=fill_value,
        attributes=parse_attributes(members.get("attributes", {}), path),
        dimension_names=_parse_dimension_names(members.get("dimension_names"), len(shape), path),
        storage_transformers=_parse_storage_transformers(members.get("storage_transformers", []), path),
        extensions=extensions,
    )


def load(document: Buffer | Mapping[str, JSON], path: str, name: str, limits: Limits) -> Mapping[str, JSON]:
    """The members of the document ``name`` of the node at ``path``; ``MetadataError`` unless it is a JSON object within limits."""
    members: Any = document
    if not isinstance(document, Mapping):
        if len(document) > limits.metadata_nbytes:
            excess = f"{len(document)} bytes where {limits.metadata_nbytes} are accepted; raise Limits.metadata_nbytes to read it"
            raise MetadataError(f"{path}: {name} has {excess}", path=path)
        try:
            # decoded here, because json takes UTF-16 as well, which the specification does not; it refuses a byte order mark
            members = json.loads(str(document, "utf-8"))
        except ValueError as error:  # malformed JSON, malformed UTF-8, or a number of thousands of digits
            raise MetadataError(f"{path}: {name} is not JSON in UTF-8: {error}", path=path) from None
        except RecursionError:
            raise MetadataError(f"{path}: {name} is nested too deeply", path=path) from None
    if not isinstance(members, Mapping):
        raise MetadataError(f"{path}: {name} must be a JSON object, not {members!r:.100}", path=path)
    return members


def check_format(members: Mapping[str, JSON], expected: Literal[2, 3], path: str, name: str) -> None:
    """Raise ``MetadataError`` unless ``zarr_format`` is the whole number ``expected``."""
    if type(found := members.get("zarr_format")) is not int or found != expected:
        raise MetadataError(f"{path}: zarr_format in {name} must be {expected}, not {found!r:.100}", path=path)


def require(members: Mapping[str, JSON], required: tuple[str, ...], path: str, name: str) -> None:
    """Raise ``MetadataError`` unless all ``required`` members are there."""
    if missing := [member for member in required if member not in members]:
        raise MetadataError(f"{path}: {name} lacks {', '.join(missing)}", path=path)


def parse_shape(document: JSON, path: str, limits: Limits) -> tuple[int, ...]:
    """The shape that a list of whole numbers gives; ``MetadataError`` beyond what NumPy can count or ``limits`` allow."""
    if not isinstance(document, list | tuple) or not all(type(length) is int and 0 <= length < 2**63 for length in document):
        raise MetadataError(f"{path}: shape must be a list of whole numbers from 0 to 2^63 - 1, not {document!r:.100}", path=path)
    if len(document) > (most := min(limits.ndim, MAX_NDIM)):
        raise MetadataError(f"{path}: shape has {len(document)} dimensions where {most} are accepted", path=path)
    return tuple(cast("list[int]", document))


def check_extent(document: JSON, name: str, path: str) -> None:
    """Raise ``MetadataError`` where the member ``name`` describes elements with more words than any that are honest."""
    waiting, found = [document], 0
    while waiting:
        part = waiting.pop()
        waiting += part.values() if isinstance(part, Mapping) else part if isinstance(part, list | tuple) else ()
        found += 1
        if found + len(waiting) > _WORDS:
            raise MetadataError(f"{path}: {name} has more than {_WORDS} names, numbers and lists; such structures are refused", path=path)


def check_element(data_type: DataType, path: str, limits: Limits) -> None:
    """Raise ``MetadataError`` where an element is larger than ``limits`` allow, before a fill value is made of it."""
    item = data_type.item if data_type.dtype.hasobject and isinstance(data_type, variable.Optional) else data_type
    if not item.dtype.hasobject and item.dtype.itemsize > limits.element_nbytes:
        excess = f"{item.dtype.itemsize} bytes where {limits.element_nbytes} are accepted; raise Limits.element_nbytes to read them"
        raise MetadataError(f"{path}: elements of the data type {data_type.name} have {excess}", path=path)


def parse_attributes(document: JSON, path: str) -> Mapping[str, JSON]:
    """The attributes, whatever they hold. Literal NaN and Infinity are no JSON, but many writers leave them here."""
    if not isinstance(document, Mapping):
        raise MetadataError(f"{path}: attributes must be an object, not {document!r:.100}", path=path)
    return document


def _parse_extensions(members: Mapping[str, JSON], known: frozenset[str], path: str) -> dict[str, JSON]:
    extensions = {key: value for key, value in members.items() if key not in known}
    for key, value in extensions.items():
        if not isinstance(value, Mapping) or value.get("must_understand") is not False:
            raise UnknownExtensionError(
                f"{path}: zarr.json has the unknown member {key!r:.100}, which must be understood unless it says 'must_understand': false",
                path=path,
                name=key,
            )
    return extensions


def _parse_fill_value(document: JSON, data_type: DataType, codecs: JSON, path: str) -> FillValue:
    try:
        if isinstance(document, str) and data_type.dtype.names is not None and isinstance(data_type, struct.Struct):
            # base64 of the bytes in their stored order, as writers had it when structs were called "structured"
            return data_type.parse_packed(document, data_type.dtype.newbyteorder(">" if _says_big(codecs) else "<"))
        return data_type.parse_fill_value(document)
    except MetadataError as error:
        raise MetadataError(f"{path}: fill_value: {error}", path=path) from None


def _says_big(codecs: JSON) -> bool:
    """Whether the ``bytes`` codec among ``codecs``, or those inside a shard, is big-endian; they are checked later."""
    for codec in codecs if isinstance(codecs, list | tuple) else ():
        configuration = codec.get("configuration") if isinstance(codec, Mapping) else None
        if isinstance(codec, Mapping) and isinstance(configuration, Mapping):
            if codec.get("name") == "bytes":
                return configuration.get("endian") == "big"
            if codec.get("name") == "sharding_indexed":
                return _says_big(configuration.get("codecs"))
    return False


def _parse_codecs(document: JSON, spec: ChunkSpec, grid: ChunkGrid, path: str) -> tuple[Any, ...]:
    """The codecs, bound to the largest chunks; those of other shapes must do as well, as far as a few of them show it."""
    if not isinstance(document, list | tuple) or not document:
        raise MetadataError(f"{path}: codecs must be a list of at least one codec, not {document!r:.100}", path=path)
    others = itertools.islice(grid.shapes(), 1, SHAPES_CHECKED)
    codecs = parse_codecs(document, spec, path)
    for shape in others:
        parse_codecs(document, replace(spec, shape=shape), path)
    return codecs


def _parse_dimension_names(document: JSON, ndim: int, path: str) -> tuple[str | None, ...] | None:
    if document is None:
        return None
    if not isinstance(document, list | tuple) or not all(name is None or isinstance(name, str) for name in document):
        raise MetadataError(f"{path}: dimension_names must be a list of strings and nulls, not {document!r:.100}", path=path)
    if len(document) != ndim:
        raise MetadataError(f"{path}: dimension_names has {len(document)} names where shape has {ndim} dimensions", path=path)
    return tuple(cast("list[str | None]", document))


def _parse_storage_transformers(document: JSON, path: str) -> tuple[JSON, ...]:
    if not isinstance(document, list | tuple):
        raise MetadataError(f"{path}: storage_transformers must be a list, not {document!r:.100}", path=path)
    for transformer in document:
        members = {"name": transformer} if isinstance(transformer, str) else transformer
        if not isinstance(members, Mapping) or not isinstance(name := members.get("name"), str):
            raise MetadataError(f"{path}: a storage transformer must be an object with a name, not {transformer!r:.100}", path=path)
        if members.get("must_understand") is not False:
            raise UnknownExtensionError(f"{path}: unknown storage transformer {name!r:.100}; azarr has none", path=path, name=name)
    return tuple(document)


def serialize(metadata: ArrayMetadata | GroupMetadata) -> dict[str, bytes]:
    """The documents to store, by their key below the prefix of the node: ``zarr.json``."""
    members = serialize_array(metadata) if isinstance(metadata, ArrayMetadata) else _serialize_group(metadata)
    return {"zarr.json": dump(members, "zarr.json")}


def _serialize_group(metadata: GroupMetadata) -> dict[str, JSON]:
    return {"zarr_format": 3, "node_type": "group", "attributes": dict(metadata.attributes), **metadata.extensions}


def serialize_array(metadata: ArrayMetadata) -> dict[str, JSON]:
    """The members of an array's ``zarr.json``, in the order of the specification; the optional ones where they say something."""
    members: dict[str, JSON] = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": metadata.shape,
        "data_type": metadata.data_type.to_json(),
        "chunk_grid": metadata.chunk_grid.to_json(),
        "chunk_key_encoding": metadata.chunk_key_encoding.to_json(),
        "fill_value": metadata.data_type.serialize_fill_value(metadata.effective_fill_value),
        "codecs": [serialize_codec(codec) for codec in metadata.codecs],
        "attributes": dict(metadata.attributes),
    }
    if metadata.storage_transformers:
        members["storage_transformers"] = metadata.storage_transformers
    if metadata.dimension_names is not None:
        members["dimension_names"] = metadata.dimension_names
    return {**members, **metadata.extensions}


def dump(members: Mapping[str, JSON], name: str) -> bytes:
    """The document ``name`` with these members; ``MetadataError`` where they hold what JSON cannot.

    NaN and Infinity in attributes are written as Python's literals, which is what the other Zarr libraries for Python do and
    read. Characters beyond ASCII are escaped, because a string of JSON may hold half a surrogate pair, which UTF-8 may not.
    """
    try:
        if "consolidated_metadata" in members:  # which may be of thousands of nodes, and is for machines
            return json.dumps(members, separators=(",", ":")).encode()
        return _lines(members, "\n").encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise MetadataError(f"{name} cannot be written, because its attributes are not JSON: {error}") from error


def _lines(members: Mapping[str, JSON], line: str) -> str:
    """The members as JSON, one a line, as are the attributes. ``json.dumps`` with an indentation takes many times as long."""
    if not all(isinstance(name, str) for name in members):  # json makes strings of some, and refuses others
        return json.dumps(members)
    further = f"{line}  "
    values = [
        _lines(value, further) if name == "attributes" and isinstance(value, dict) and value else json.dumps(value)
        for name, value in members.items()
    ]
    whole = [f"{further}{json.dumps(name)}: {value}" for name, value in zip(members, values, strict=True)]
    return f"{{{','.join(whole)}{line}}}" if whole else "{}"
