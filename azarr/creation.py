"""From what a user says of a new array to its metadata."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, SupportsIndex, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from azarr.chunk_grids import RegularGrid
from azarr.chunk_keys import ChunkKeyEncoding
from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Codec
from azarr.codecs.bytes import Bytes
from azarr.codecs.pipeline import bind_codecs
from azarr.codecs.registry import parse_codec
from azarr.codecs.sharding import Sharding
from azarr.codecs.transpose import Transpose
from azarr.codecs.zstd import Zstd
from azarr.data_types import DataType, data_type_for
from azarr.errors import MetadataError
from azarr.metadata.model import ArrayMetadata
from azarr.types import JSON, ChunkSpec

CodecLike: TypeAlias = Codec | str | Mapping[str, JSON]
"""A codec, its name, or the object that stands for it in v3 metadata."""

AUTO_NBYTES = 2**20
"""Decoded bytes that a chunk has at most where the user leaves its shape to azarr: enough to compress well and quick to read."""


@dataclass(frozen=True, slots=True)
class ArrayOptions:
    """What a user says of a new array; the meaning of each option is at ``azarr.create_array``."""

    shape: Sequence[int] | int
    dtype: npt.DTypeLike
    chunks: tuple[int, ...] | int | Literal["auto"] = "auto"
    shards: tuple[int, ...] | int | Mapping[str, Any] | None = None
    fill_value: object = None
    filters: Sequence[CodecLike] = ()
    serializer: CodecLike | None = None
    compressors: Sequence[CodecLike] | CodecLike | Literal["auto"] | None = "auto"
    order: Literal["C", "F"] = "C"
    chunk_key_encoding: ChunkKeyEncoding | Mapping[str, JSON] | None = None
    dimension_names: Sequence[str | None] | None = None
    attributes: Mapping[str, JSON] | None = None
    zarr_format: Literal[2, 3] = 3

    def metadata(self) -> ArrayMetadata:
        """The metadata of such an array; ``MetadataError`` says what does not fit together."""
        try:
            dtype = np.dtype(self.dtype)
        except TypeError as error:
            raise MetadataError(f"dtype {self.dtype!r:.100} is not a NumPy data type") from error
        if self.zarr_format not in (2, 3):
            raise MetadataError(f"zarr_format must be 2 or 3, not {self.zarr_format!r:.100}")
        data_type = data_type_for(dtype)
        shape = as_shape("shape", self.shape, 1 if isinstance(self.shape, int) else None, least=0)
        chunk_shape = auto_chunks(shape, dtype.itemsize) if self.chunks == "auto" else as_shape("chunks", self.chunks, len(shape))
        shard_shape, location = self._shards(chunk_shape)
        fill_value = self._fill_value(data_type)
        spec = ChunkSpec(shard_shape or chunk_shape, data_type.dtype, fill_value)
        codecs: tuple[Codec, ...] = self._codecs(dtype, len(shape))
        if shard_shape is not None:
            codecs = (Sharding(chunk_shape, codecs, index_location=location),)
        return ArrayMetadata(
            zarr_format=self.zarr_format,
            shape=shape,
            data_type=data_type,
            chunk_grid=RegularGrid(shape, spec.shape),
            chunk_key_encoding=self._key_encoding(),
            codecs=bind_codecs(codecs, spec),
            fill_value=fill_value,
            attributes=dict(self.attributes or {}),
            dimension_names=self._names(len(shape)),
        )

    def _shards(self, chunk_shape: tuple[int, ...]) -> tuple[tuple[int, ...] | None, Literal["start", "end"]]:
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
        shape = as_shape("shards", described["shape"], len(chunk_shape))
        if any(shard % chunk for shard, chunk in zip(shape, chunk_shape, strict=True)):
            raise MetadataError(f"shards {shape} must be a whole number of chunks {chunk_shape} along every dimension")
        return shape, "start" if location == "start" else "end"

    def _fill_value(self, data_type: DataType) -> np.generic:
        if self.fill_value is None:
            return data_type.default_fill_value
        fill = np.asarray(self.fill_value)
        if fill.ndim or not (fill.dtype.kind in "iu" or np.can_cast(fill.dtype, data_type.dtype, "same_kind")):
            raise MetadataError(f"fill_value {self.fill_value!r:.60} is not a {data_type.name}")
        with np.errstate(over="ignore"):
            converted = fill.astype(data_type.dtype)
        if fill.dtype.kind in "iu" and converted != fill and data_type.dtype.kind in "iub":
            raise MetadataError(f"fill_value {self.fill_value!r:.60} is out of range for {data_type.name}")
        return cast("np.generic", converted[()])

    def _codecs(self, dtype: np.dtype[Any], ndim: int) -> tuple[Codec, ...]:
        transpose = (Transpose(tuple(reversed(range(ndim)))),) if self.order == "F" and ndim > 1 else ()
        if self.serializer is not None:
            serializer = as_codec(self.serializer)
        else:
            # v3 data types have no byte order: the bytes codec keeps what a NumPy data type says
            serializer = Bytes("big" if dtype.newbyteorder("<") != dtype and dtype.itemsize > 1 else "little")
        compressors: Sequence[CodecLike]
        if self.compressors is None:
            compressors = ()
        elif self.compressors == "auto":
            compressors = (Zstd(level=3),)
        elif isinstance(self.compressors, Codec | str | Mapping):
            compressors = (self.compressors,)
        else:
            compressors = self.compressors
        return (*transpose, *map(as_codec, self.filters), serializer, *map(as_codec, compressors))

    def _key_encoding(self) -> ChunkKeyEncoding:
        encoding = self.chunk_key_encoding
        if isinstance(encoding, ChunkKeyEncoding):
            return encoding
        default = ChunkKeyEncoding("default", "/") if self.zarr_format == 3 else ChunkKeyEncoding("v2", ".")
        if encoding is None:
            return default
        if not encoding.keys() <= {"name", "separator"}:
            raise MetadataError(f"chunk_key_encoding takes 'name' and 'separator', not {sorted(encoding)}")
        name = encoding.get("name", default.name)
        separator = encoding.get("separator", "/" if name == "default" else ".")
        if name not in {"default", "v2"} or separator not in {"/", "."}:
            raise MetadataError(f"chunk_key_encoding must be 'default' or 'v2' with separator '/' or '.', not {name!r} with {separator!r}")
        return replace(default, name=name, separator=separator)

    def _names(self, ndim: int) -> tuple[str | None, ...] | None:
        if self.dimension_names is None:
            return None
        names = tuple(self.dimension_names)
        if isinstance(self.dimension_names, str) or len(names) != ndim:
            raise MetadataError(
                f"dimension_names must be one name (or None) for each of the {ndim} dimensions, not {self.dimension_names!r:.100}"
            )
        return names


def options_like(metadata: ArrayMetadata) -> dict[str, Any]:
    """The options that make an array like the one with this ``metadata``."""
    outer = metadata.codecs
    shape, shards = metadata.chunk_grid.chunk_shape, None
    if len(outer) == 1 and isinstance(sharding := outer[0], Sharding):
        shards = {"shape": shape, "index_location": sharding.index_location}
        shape, outer = sharding.chunk_shape, sharding.codecs
    return {
        "dtype": metadata.data_type.dtype,
        "chunks": shape,
        "shards": shards,
        "fill_value": metadata.effective_fill_value,
        "filters": tuple(codec for codec in outer if isinstance(codec, ArrayToArrayCodec)),
        "serializer": next(codec for codec in outer if isinstance(codec, ArrayToBytesCodec)),
        "compressors": tuple(codec for codec in outer if isinstance(codec, BytesToBytesCodec)),
        "chunk_key_encoding": metadata.chunk_key_encoding,
        "dimension_names": metadata.dimension_names,
        "attributes": metadata.attributes,
        "zarr_format": metadata.zarr_format,
    }


def as_shape(what: str, value: object, ndim: int | None, *, least: int = 1) -> tuple[int, ...]:
    """``value`` as a shape of ``ndim`` lengths of at ``least`` so much; one number stands for all dimensions."""
    try:
        lengths = (operator.index(value),) * (ndim or 0) if isinstance(value, SupportsIndex) else tuple(map(operator.index, value))  # type: ignore[call-overload]  # what cannot be iterated is caught
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
    if parsed is None:
        raise MetadataError(f"unknown codec {codec!r:.100}")
    return parsed


def auto_chunks(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """A chunk shape of at most ``AUTO_NBYTES``: the array's own, its longest side halved until it is small enough."""
    chunks = [max(1, length) for length in shape]
    while itemsize * int(np.prod(chunks, dtype=object)) > AUTO_NBYTES and max(chunks) > 1:
        longest = chunks.index(max(chunks))
        chunks[longest] = -(-chunks[longest] // 2)
    return tuple(chunks)


def new_metadata(options: Mapping[str, Any], like: ArrayMetadata | None = None) -> ArrayMetadata:
    """The metadata of a new array with these options of ``azarr.create_array``; what they leave out is taken from ``like``.

    ``MetadataError`` where they do not fit together or do not suffice, ``TypeError`` where there is no such option.
    """
    known = ArrayOptions.__dataclass_fields__
    if unknown := options.keys() - known:
        raise TypeError(f"create_array has no option {sorted(unknown)}; it takes {sorted(known)}")
    given = {name: value for name, value in options.items() if value is not None or name not in {"shape", "dtype"}}
    whole = given if like is None else {"shape": like.shape, **fitting(options_like(like), given), **given}
    if "shape" not in whole or "dtype" not in whole:
        raise MetadataError("create_array needs shape and dtype, or an array to be like")
    return ArrayOptions(**whole).metadata()


def fitting(taken: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """The options ``taken`` from an array, without what goes with its format or data type where another one is ``given``."""
    fits = dict(taken)
    zarr_format = given.get("zarr_format", taken["zarr_format"])
    if zarr_format != taken["zarr_format"]:
        del fits["chunk_key_encoding"]
    if zarr_format == 2:
        fits["shards"] = None
    if "dtype" in given and isinstance(taken["serializer"], Bytes):
        del fits["serializer"]  # the byte order is that of the data type
    return fits
