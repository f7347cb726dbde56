"""From what a user says of a new array to its metadata."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, SupportsIndex, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from azarr.chunk_grids import RectilinearGrid, RegularGrid
from azarr.chunk_keys import ChunkKeyEncoding, parse_chunk_key_encoding
from azarr.chunk_lengths import parse_chunk_lengths
from azarr.chunk_sizes import auto_chunks, auto_shards, chunk_nbytes
from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Codec
from azarr.codecs.bytes import Bytes
from azarr.codecs.ignored import Ignored, understood
from azarr.codecs.pipeline import bind_codecs, resolved
from azarr.codecs.registry import parse_codec, serialize_codec
from azarr.codecs.sharding import Sharding
from azarr.codecs.transpose import Transpose
from azarr.codecs.zstd import Zstd
from azarr.data_types import DATA_TYPES, DataType, data_type_for, is_data_type, parse_data_type
from azarr.data_types.base import has_byte_order, packed
from azarr.data_types.variable import Optional as OptionalType
from azarr.data_types.variable import VlenArray as VlenArrayType
from azarr.errors import MetadataError
from azarr.metadata.model import SHAPES_CHECKED, ArrayMetadata
from azarr.types import JSON, ChunkSpec, element_nbytes

CodecLike: TypeAlias = Codec | str | Mapping[str, JSON]
"""A codec, its name, or the object that stands for it in v3 metadata."""


@dataclass(frozen=True, slots=True)
class ArrayOptions:
    """What a user says of a new array; the meaning of each option is at ``azarr.create_array``."""

    shape: Sequence[int] | int
    dtype: npt.DTypeLike | DataType | Mapping[str, JSON]
    chunks: Sequence[int | Sequence[int]] | int | Literal["auto"] = "auto"
    shards: tuple[int, ...] | int | Literal["auto"] | Mapping[str, Any] | None = None
    fill_value: object = None
    filters: Sequence[CodecLike] = ()
    serializer: CodecLike | None = None
    compressors: Sequence[CodecLike] | CodecLike | Literal["auto"] | None = "auto"
    order: Literal["C", "F"] = "C"
    chunk_key_encoding: ChunkKeyEncoding | Mapping[str, JSON] | str | None = None
    dimension_names: Sequence[str | None] | None = None
    attributes: Mapping[str, JSON] | None = None
    zarr_format: Literal[2, 3] = 3

    def metadata(self, *, remote: bool = False) -> ArrayMetadata:
        """The metadata of such an array; ``MetadataError`` says what does not fit together. Chunks of automatic size suit the store."""
        if self.zarr_format not in (2, 3):
            raise MetadataError(f"zarr_format must be 2 or 3, not {self.zarr_format!r:.100}")
        data_type, endian = as_data_type(self.dtype, self.serializer, self.filters)
        shape = as_shape("shape", self.shape, None, least=0)
        itemsize = element_nbytes(data_type.dtype)
        rectilinear = self._rectilinear(shape)
        if rectilinear is not None:
            chunk_shape = rectilinear.chunk_shape
        elif isinstance(self.chunks, str) and self.chunks == "auto":
            chunk_shape = auto_chunks(shape, itemsize, chunk_nbytes(remote=remote, sharded=self.shards is not None))
        else:
            chunk_shape = as_shape("chunks", self.chunks, len(shape))
        shard_shape, location = self._shards(shape, chunk_shape, itemsize)
        fill_value = data_type.default_fill_value if self.fill_value is None else data_type.fill_value_of(self.fill_value)
        spec = ChunkSpec(shard_shape or chunk_shape, data_type.dtype, fill_value)
        codecs: tuple[Codec, ...] = self._codecs(data_type, endian, len(shape))
        if shard_shape is not None:
            codecs = (Sharding(chunk_shape, codecs, index_location=location),)
        for each in itertools.islice(rectilinear.shapes(), 1, SHAPES_CHECKED) if rectilinear is not None else ():
            bind_codecs(codecs, replace(spec, shape=each))
        return ArrayMetadata(
            zarr_format=self.zarr_format,
            shape=shape,
            data_type=data_type,
            chunk_grid=rectilinear or RegularGrid(shape, spec.shape),
            chunk_key_encoding=self._key_encoding(),
            codecs=bind_codecs(codecs, spec),
            fill_value=fill_value,
            attributes=dict(self.attributes or {}),
            dimension_names=self._names(len(shape)),
        )

    def _rectilinear(self, shape: tuple[int, ...]) -> RectilinearGrid | None:
        """The grid where chunks differ in length along any axis."""
        items: Sequence[object] = self.chunks if isinstance(self.chunks, list | tuple) else ()
        if not any(isinstance(each, Sequence) for each in items):
            return None
        if self.zarr_format == 2:
            raise MetadataError("Zarr v2 has no chunks of different lengths; choose zarr_format=3, or one length along every axis")
        if self.shards is not None:
            raise MetadataError("shards need chunks of one shape; leave shards out, or give chunks one length along every axis")
        return RectilinearGrid(shape, tuple(parse_chunk_lengths(each) for each in items))

    def _shards(
        self, shape: tuple[int, ...], chunk_shape: tuple[int, ...], itemsize: int
    ) -> tuple[tuple[int, ...] | None, Literal["start", "end"]]:
        if self.shards is None:
            return None, "end"
        if self.zarr_format == 2:
            raise MetadataError("Zarr v2 has no shards; leave shards out or choose zarr_format=3")
        described = self.shards if isinstance(self.shards, Mapping) else {"shape": self.shards}
        if not described.keys() <= {"shape", "index_location"} or "shape" not in described:
            raise MetadataError(f"shards must be a shape, or have 'shape' and perhaps 'index_location', not {self.shards!r:.100}")
        location = described.get("index_location", "end")
        if location not in ("start", "end"):
            raise MetadataError(f"index_location must be 'start' or 'end', not {location!r:.100}")
        place: Literal["start", "end"] = "start" if location == "start" else "end"
        if isinstance(described["shape"], str) and described["shape"] == "auto":
            return auto_shards(shape, chunk_shape, itemsize), place
        shards = as_shape("shards", described["shape"], len(chunk_shape))
        if any(shard % chunk for shard, chunk in zip(shards, chunk_shape, strict=True)):
            raise MetadataError(f"shards {shards} must be a whole number of chunks {chunk_shape} along every dimension")
        return shards, place

    def _codecs(self, data_type: DataType, endian: Literal["little", "big"], ndim: int) -> tuple[Codec, ...]:
        transpose = (Transpose(tuple(reversed(range(ndim)))),) if self.order == "F" and ndim > 1 else ()
        filters = tuple(map(as_codec, self.filters))
        made = [codec for codec in filters if isinstance(codec, ArrayToBytesCodec)]  # v2 has the codec of objects among the filters
        if self.serializer is not None:
            serializer = as_codec(self.serializer)
        elif made:
            serializer, filters = made[0], tuple(codec for codec in filters if codec is not made[0])
        elif any(codec.object_type is not None for codec in filters):  # it makes numbers of them
            serializer = Bytes(endian)
        else:
            serializer = default_serializer(data_type, endian)
        compressors: Sequence[CodecLike]
        if self.compressors is None:
            compressors = ()
        elif isinstance(self.compressors, str) and self.compressors == "auto":
            compressors = (Zstd(level=3),)
        elif isinstance(self.compressors, Codec | str | Mapping):
            compressors = (self.compressors,)
        else:
            compressors = self.compressors
        return (*transpose, *filters, serializer, *map(as_codec, compressors))

    def _key_encoding(self) -> ChunkKeyEncoding:
        encoding = self.chunk_key_encoding
        if isinstance(encoding, ChunkKeyEncoding):
            return encoding
        given: Mapping[str, Any] = {"name": encoding} if isinstance(encoding, str) else encoding or {}
        if not given.keys() <= {"name", "separator", "configuration"} or {"separator", "configuration"} <= given.keys():
            raise MetadataError(f"chunk_key_encoding takes 'name', and 'separator' or 'configuration', not {sorted(given)}")
        name = given.get("name", "default" if self.zarr_format == 3 else "v2")
        configuration = given.get("configuration", {key: given[key] for key in given.keys() & {"separator"}})
        return parse_chunk_key_encoding({"name": name, "configuration": configuration}, "chunk_key_encoding")

    def _names(self, ndim: int) -> tuple[str | None, ...] | None:
        if self.dimension_names is None:
            return None
        names = tuple(self.dimension_names)
        if isinstance(self.dimension_names, str) or len(names) != ndim or not all(n is None or isinstance(n, str) for n in names):
            raise MetadataError(
                f"dimension_names must be one name (or None) for each of the {ndim} dimensions, not {self.dimension_names!r:.100}"
            )
        return names


def array_metadata(
    options: Mapping[str, Any], *, like: ArrayMetadata | None = None, zarr_format: Literal[2, 3] | None = None, remote: bool = False
) -> ArrayMetadata:
    """The metadata that ``options`` describe; what they leave open is taken from ``like``, then from the defaults.

    ``zarr_format`` is that of the group the array is made in, which goes before that of ``like``. ``remote`` says whether the requests
    to its store are awaited, which makes for larger chunks where their size is left to azarr. Raises ``MetadataError`` where the
    options do not fit together, ``TypeError`` where there is no such option.
    """
    chosen = {name: value for name, value in options.items() if name not in {"shape", "dtype"} or value is not None}
    if unknown := chosen.keys() - ArrayOptions.__dataclass_fields__.keys():
        raise TypeError(f"arrays have no option {sorted(unknown)}; they have {sorted(ArrayOptions.__dataclass_fields__)}")
    given = {} if zarr_format is None else {"zarr_format": zarr_format}
    merged = {**({} if like is None else {"shape": like.shape, **options_like(like)}), **given, **chosen}
    if "shape" not in merged or "dtype" not in merged:
        raise MetadataError("a new array needs shape and dtype, or an array to be like")
    if like is not None:
        if merged["zarr_format"] != like.zarr_format and "chunk_key_encoding" not in chosen:
            del merged["chunk_key_encoding"]
        data_type, _ = as_data_type(merged["dtype"], merged["serializer"], merged["filters"])
        if data_type != like.data_type:
            variable = data_type.dtype.hasobject or like.data_type.dtype.hasobject
            if "fill_value" not in chosen and (variable or not np.can_cast(like.data_type.dtype, data_type.dtype, "same_kind")):
                del merged["fill_value"]
            if "serializer" not in chosen and variable:
                del merged["serializer"]
    return ArrayOptions(**merged).metadata(remote=remote)


def options_like(metadata: ArrayMetadata) -> dict[str, Any]:
    """The options that make an array like the one with this ``metadata``."""
    outer, spec = understood(metadata.codecs), metadata.chunk_spec
    shape, shards = spec.shape, None
    unequal = isinstance(metadata.chunk_grid, RectilinearGrid)
    if len(outer) == 1 and isinstance(sharding := outer[0], Sharding) and not unequal:
        shards = {"shape": shape, "index_location": sharding.index_location}
        shape, outer = sharding.chunk_shape, understood(sharding.codecs)
        spec = replace(spec, shape=shape)
    filters = tuple(codec for codec in outer if isinstance(codec, ArrayToArrayCodec))
    backwards = bool(filters) and filters[0] == Transpose(tuple(reversed(range(len(shape)))))
    serializer = next(codec for codec in outer if isinstance(codec, ArrayToBytesCodec))
    plain = isinstance(serializer, Bytes)
    return {
        "dtype": _dtype_of(metadata.data_type, serializer, spec),
        "chunks": metadata.chunk_grid.chunk_lengths if unequal else shape,
        "shards": shards,
        "fill_value": metadata.effective_fill_value,
        "order": "F" if backwards else "C",
        "filters": filters[1:] if backwards else filters,
        "serializer": None if plain else serializer,
        "compressors": tuple(codec.unbound(resolved(filters, spec)) for codec in outer if isinstance(codec, BytesToBytesCodec)),
        "chunk_key_encoding": metadata.chunk_key_encoding,
        "dimension_names": metadata.dimension_names,
        "attributes": metadata.attributes,
        "zarr_format": metadata.zarr_format,
    }


def _dtype_of(data_type: DataType, serializer: ArrayToBytesCodec, spec: ChunkSpec) -> np.dtype[Any] | DataType:
    """What a user passes for elements like these: NumPy's data type where it says all, as that has a byte order."""
    if isinstance(serializer, Bytes) and data_type_for(stored := serializer.stored_dtype(spec)) == data_type:
        return stored
    return data_type


def as_data_type(
    value: npt.DTypeLike | DataType | Mapping[str, JSON], serializer: CodecLike | None = None, filters: Sequence[CodecLike] = ()
) -> tuple[DataType, Literal["little", "big"]]:
    """The data type that a user means, and the byte order of the NumPy data type where it is one.

    What arrays of objects hold, the codecs say that encode them.
    """
    if isinstance(value, DataType):
        return value, "little"
    if (isinstance(value, Mapping) and "name" in value) or (isinstance(value, str) and is_data_type(value)):
        return parse_data_type(cast("JSON", value), "dtype"), "little"
    try:
        dtype: np.dtype[Any] = np.dtype(cast("Any", value))
    except (TypeError, ValueError) as error:
        if isinstance(value, str) and DATA_TYPES.get(value) is not None:
            return parse_data_type(value, "dtype"), "little"
        raise MetadataError(f"dtype {value!r:.100} is neither a NumPy data type nor the name of a Zarr data type") from error
    if dtype.kind == "O":
        for codec in map(as_codec, [*([] if serializer is None else [serializer]), *filters]):
            if (held := codec.object_type) is not None:
                return held, "little"
    data_type = data_type_for(dtype)
    # v3 data types have no byte order: the bytes codec keeps what a NumPy data type says
    ordered = has_byte_order(data_type.dtype) and not data_type.dtype.hasobject
    return data_type, "big" if ordered and packed(dtype) == data_type.dtype.newbyteorder(">") else "little"


def default_serializer(data_type: DataType, endian: Literal["little", "big"] = "little") -> Codec:
    """The array-to-bytes codec for elements of ``data_type`` where the user names none."""
    if isinstance(data_type, OptionalType):
        data_codecs: JSON = [serialize_codec(default_serializer(data_type.item))]
        return as_codec({"name": "optional", "configuration": {"mask_codecs": ["packbits"], "data_codecs": data_codecs}})
    if data_type.default_codec == Bytes.name:
        return Bytes(endian)
    if isinstance(data_type, VlenArrayType):
        return as_codec({"name": "numcodecs.vlen-array", "configuration": {"dtype": data_type.item.dtype.str}})
    return as_codec(data_type.default_codec)


def as_shape(what: str, value: object, ndim: int | None, *, least: int = 1) -> tuple[int, ...]:
    """``value`` as a shape of ``ndim`` lengths of at ``least`` so much; one number stands for all dimensions."""
    try:
        if isinstance(value, SupportsIndex) and not isinstance(value, np.ndarray):
            lengths = (operator.index(value),) * (1 if ndim is None else ndim)
        else:
            lengths = tuple(map(operator.index, cast("Iterable[SupportsIndex]", value)))
    except TypeError:
        raise MetadataError(f"{what} must be a shape of whole numbers, not {value!r:.100}") from None
    if (ndim is not None and len(lengths) != ndim) or any(length < least for length in lengths):
        wanted = "" if ndim is None else f"{ndim} "
        raise MetadataError(f"{what} {lengths} must have {wanted}dimensions of at least {least}")
    return lengths


def as_codec(codec: CodecLike) -> Codec:
    """The codec that a user names or describes."""
    if isinstance(codec, Codec):
        return codec
    parsed = parse_codec(codec)
    if isinstance(parsed, Ignored):
        raise MetadataError(f"unknown codec {codec!r:.100}")
    return parsed
