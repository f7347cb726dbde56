"""The filters and the compressor of Zarr v2, translated to and from the codecs of v3.

To v2 both are codecs of numcodecs, applied one after the other to the memory of a chunk. In v3 they stand around the codec that
makes bytes of an array, and have no byte order: the data types in their configurations lose theirs, which becomes the one of the
``bytes`` codec, and get it back on the way to v2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, cast

from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, Codec
from azarr.codecs.bytes import Bytes
from azarr.codecs.foreign import ForeignCodec
from azarr.codecs.ignored import Ignored
from azarr.codecs.registry import CODECS
from azarr.codecs.variable_length import VariableLengthCodec
from azarr.deferred import Deferred
from azarr.errors import MetadataError
from azarr.types import JSON

# v3 has codecs of its own for these; any other id is "numcodecs.<id>" there.
_NAMES: Final[Mapping[str, str]] = MappingProxyType({name: name for name in ("snappy", "vlen-bytes", "vlen-utf8")})
_IDS: Final[Mapping[str, str]] = MappingProxyType(
    {name: name for name in ("blosc", "crc32c", "gzip", "snappy", "vlen-bytes", "vlen-utf8", "zstd")},
)

_SHUFFLES: Final = Deferred("azarr.codecs.blosc", "SHUFFLES")
"""In the order of their numbers in v2."""

_BEFORE: Final = ("dtype", "decode_dtype")
"""What a filter says of the elements that it encodes."""

_AFTER: Final = ("astype", "encode_dtype")
"""What it says of those that it makes."""


def inexpressible(what: str) -> MetadataError:
    """The error for what v2 has no words for."""
    return MetadataError(f"Zarr v2 cannot express {what}; leave it out, or write Zarr v3")


# From v2 to v3


def name_in_v3(codec_id: str) -> str:
    """The name in v3 of the codec ``codec_id``."""
    return _NAMES.get(codec_id, f"numcodecs.{codec_id}")


def id_in_v2(codec: type[Codec]) -> str | None:
    """The id in v2 of codecs of this class; ``None`` where v2 does not have them."""
    if codec.name in _IDS or codec.name.startswith("numcodecs."):
        return _IDS.get(codec.name, codec.name.removeprefix("numcodecs."))
    registered = [name for entry in CODECS.entries if entry.held is codec for name in entry.names]  # azarr's own have one of these names
    candidates = (name for name in (*registered, f"numcodecs.{codec.name}") if name.startswith("numcodecs."))
    return next((name.removeprefix("numcodecs.") for name in candidates if CODECS.get(name) is codec), None)


def translate(documents: Sequence[JSON], endian: str | None, path: str) -> list[JSON]:
    """The v3 codecs for filters and a compressor of v2, in the order in which they encode chunks whose byte order is ``endian``."""
    codecs: list[JSON] = []
    place = 0  # of the codec that makes bytes of an array
    has_serializer = False
    for document in documents:
        codec_id = document.get("id") if isinstance(document, Mapping) else None
        if not isinstance(document, Mapping) or not isinstance(codec_id, str):
            raise MetadataError(f"{path}: a filter or compressor must be an object with an id, not {document!r:.100}", path=path)
        name = name_in_v3(codec_id)
        configuration = {key: value for key, value in document.items() if key != "id"}
        kind = CODECS.get(name) or Codec
        if issubclass(kind, ArrayToArrayCodec):
            if place == len(codecs):
                place += 1
            endian = _without_byte_order(configuration, endian, codec_id, path)
        has_serializer = has_serializer or issubclass(kind, ArrayToBytesCodec)
        if endian == "big" and issubclass(kind, ArrayToBytesCodec) and issubclass(kind, ForeignCodec):
            raise MetadataError(f"{path}: big-endian elements cannot go through the codec {codec_id!r}, which is not azarr's", path=path)
        if name == "numcodecs.blosc":
            configuration.pop("typesize", None)  # it is that of the elements
        if name == "numcodecs.shuffle":
            configuration.setdefault("elementsize", 4)
        codecs.append({"name": name, "configuration": configuration})
    if not has_serializer:
        codecs.insert(place, {"name": "bytes", "configuration": {"endian": endian} if endian else {}})
    return codecs


def _without_byte_order(configuration: dict[str, JSON], endian: str | None, codec_id: str, path: str) -> str | None:
    """Take the byte orders out of the data types of a filter, and answer that of the elements it makes."""
    before = [configuration[key] for key in _BEFORE if isinstance(configuration.get(key), str)]
    after = [configuration[key] for key in _AFTER if isinstance(configuration.get(key), str)]
    for dtype in before:
        if endian is not None and (own := _endian(str(dtype))) not in {None, endian}:
            raise MetadataError(
                f"{path}: the filter {codec_id!r} takes {dtype!r:.40}, {own}-endian, where the elements are {endian}-endian; "
                "such arrays are not supported",
                path=path,
            )
    for key in (*_BEFORE, *_AFTER):
        if isinstance(dtype := configuration.get(key), str):
            configuration[key] = dtype.replace(">", "<")
    made = [*before, *after][-1:]
    return (_endian(str(made[0])) or "little") if made else endian


def _endian(dtype: str) -> str | None:
    """The byte order that a NumPy data type states, ``None`` for one that has none; without a sign it is the usual one."""
    if dtype.startswith((">", "|")) or dtype in {"bool", "int8", "uint8"} or dtype[1:] in {"b1", "i1", "u1"}:
        return "big" if dtype.startswith(">") and dtype[1:] not in {"b1", "i1", "u1"} else None
    return "little"


# From v3 to v2


def serialize(codecs: Sequence[Codec], ndim: int) -> tuple[str, JSON, list[JSON], JSON]:
    """The order, the byte order, the filters and the compressor for a list of v3 codecs; ``MetadataError`` where v2 has none."""
    order, rest = "C", list(codecs)
    if ndim > 1 and rest[0].name == "transpose" and rest[0].configuration()["order"] == list(range(ndim))[::-1]:
        order, rest = "F", rest[1:]
    serializer = next(codec for codec in rest if isinstance(codec, ArrayToBytesCodec))
    endian = serializer.endian if isinstance(serializer, Bytes) else serializer.configuration().get("endian")
    documents = [_serialize_codec(codec, endian) for codec in rest if codec is not serializer or codec.name != "bytes"]
    if isinstance(rest[-1], Bytes | VariableLengthCodec):  # whatever there is changes arrays, or is the codec of objects
        return order, endian, documents, None
    return order, endian, documents[:-1], documents[-1]


def _serialize_codec(codec: Codec, endian: JSON) -> JSON:
    """The filter or compressor that ``codec`` is in v2."""
    codec_id = None if isinstance(codec, Ignored) else id_in_v2(type(codec))
    if codec_id is None:
        raise inexpressible(f"the codec {codec.name!r}")
    configuration = codec.configuration()
    if codec_id == "blosc":
        configuration["shuffle"] = _SHUFFLES.load().index(cast("str", configuration["shuffle"]))
        configuration.pop("typesize", None)  # v2 writers take it from the data type, and readers from the chunk
    if codec_id == "zstd" and not configuration["checksum"]:
        del configuration["checksum"]  # younger than many readers, which refuse what they do not know
    for key in (*_BEFORE, *_AFTER):
        if endian == "big" and isinstance(dtype := configuration.get(key), str):
            configuration[key] = dtype.replace("<", ">")
    return {"id": codec_id, **configuration}
