"""Which codecs there are, and how the ``codecs`` member of a metadata document becomes codecs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from azarr.codecs.astype import AsType
from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Codec
from azarr.codecs.base64 import Base64
from azarr.codecs.bitround import BitRound, NumcodecsBitRound
from azarr.codecs.blosc import Blosc
from azarr.codecs.bytes import Bytes
from azarr.codecs.bz2 import Bz2
from azarr.codecs.cast_value import CastValue
from azarr.codecs.categorize import Categorize
from azarr.codecs.checksums import Adler32, Crc32, Fletcher32, JenkinsLookup3, LocatedCrc32c
from azarr.codecs.conditional import Conditional
from azarr.codecs.crc32c import Crc32c
from azarr.codecs.delta import Delta
from azarr.codecs.fixedscaleoffset import FixedScaleOffset
from azarr.codecs.from_zarr_python import from_zarr_python, is_of_zarr_python
from azarr.codecs.gzip import Gzip
from azarr.codecs.ignored import Ignored
from azarr.codecs.imagecodecs import IMAGECODECS
from azarr.codecs.json2 import Json2
from azarr.codecs.lz4 import Lz4
from azarr.codecs.lzma import Lzma
from azarr.codecs.n5_default import N5Default
from azarr.codecs.optional import Optional
from azarr.codecs.packbits import NumcodecsPackBits, PackBits
from azarr.codecs.pcodec import Pcodec
from azarr.codecs.pipeline import bind_codecs
from azarr.codecs.quantize import Quantize
from azarr.codecs.reshape import Reshape
from azarr.codecs.scale_offset import ScaleOffset
from azarr.codecs.sharding import Sharding
from azarr.codecs.shuffle import Shuffle
from azarr.codecs.snappy import Snappy
from azarr.codecs.transpose import Transpose
from azarr.codecs.vlen import VlenArray, VlenBytes, VlenUtf8
from azarr.codecs.zarrs_vlen import ZarrsVlen, ZarrsVlenV2
from azarr.codecs.zfp import Zfp, Zfpy
from azarr.codecs.zlib import Zlib
from azarr.codecs.zstd import Zstd
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.registry import OWN, Entry, Registration, Registry
from azarr.types import JSON, ChunkSpec

_OWN: tuple[type[Codec], ...] = (
    Adler32, AsType, Base64, BitRound, Blosc, Bytes, Bz2, CastValue, Conditional, Crc32, Crc32c, Delta, FixedScaleOffset,
    Fletcher32, Gzip, JenkinsLookup3, LocatedCrc32c, Lz4, Lzma, N5Default, NumcodecsBitRound, NumcodecsPackBits, PackBits,
    Pcodec, Quantize, Reshape, ScaleOffset, Sharding, Shuffle, Snappy, Transpose, Zfp, Zfpy, Zlib, Zstd,
    Categorize, Json2, Optional, VlenArray, VlenBytes, VlenUtf8, ZarrsVlen, ZarrsVlenV2,
)  # fmt: skip


def _gzip(configuration: Mapping[str, JSON]) -> Codec:
    return Gzip.from_configuration({"level": 1, **configuration})


def _zstd(configuration: Mapping[str, JSON]) -> Codec:
    level = configuration.get("level", 0)
    return Zstd.from_configuration({**configuration, "level": min(level, 22) if type(level) is int else level})


def _crc32c(configuration: Mapping[str, JSON]) -> Codec:
    located = LocatedCrc32c.from_configuration(configuration)
    return located if located.place == "start" else Crc32c()


_FROM_NUMCODECS: Mapping[tuple[str, type[Codec]], Callable[[Mapping[str, JSON]], Codec]] = MappingProxyType(
    {
        ("numcodecs.blosc", Blosc): Blosc.from_numcodecs,
        ("numcodecs.crc32c", LocatedCrc32c): _crc32c,
        ("numcodecs.gzip", Gzip): _gzip,
        ("numcodecs.zstd", Zstd): _zstd,
    }
)
"""Codecs that numcodecs and v3 share, by numcodecs' name, from a configuration in which numcodecs has defaults and words of its own."""


def _accept(name: str, value: object) -> type[Codec]:
    """``value``, if it is the class of a codec that is complete."""
    if is_of_zarr_python(value):
        value = from_zarr_python(cast("type", value), name)
    kinds = ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec
    if not isinstance(value, type) or not issubclass(value, kinds):
        raise TypeError(f"{name!r} needs a subclass of {', '.join(kind.__name__ for kind in kinds)}, not {value!r:.100}")
    if lacking := getattr(value, "__abstractmethods__", None):
        raise TypeError(f"{value.__qualname__} lacks {', '.join(sorted(lacking))}")
    if not isinstance(getattr(value, "name", None), str):
        raise TypeError(f"{value.__qualname__} lacks a name, which is what stands for it in v3 metadata")
    return value


def _entry(codec: type[Codec]) -> Entry[type[Codec]]:
    also = tuple(name for name, kind in _FROM_NUMCODECS if kind is codec and name != codec.name)
    if codec in IMAGECODECS.values():
        also = (f"numcodecs.{codec.name}",)
    return Entry((codec.name, *also), codec, OWN)


CODECS: Registry[type[Codec]] = Registry("codec", map(_entry, (*_OWN, *IMAGECODECS.values())), ("azarr.codecs", "zarr.codecs"), _accept)
"""Every codec by its names in v3 metadata; what v2 calls ``x`` is ``numcodecs.x`` there, unless v3 has a codec of that name itself."""


def register_codec(codec: type[Codec], *, aliases: Iterable[str] = (), replace: bool = False) -> Registration:
    """Make ``codec`` known in this process under its ``name``, and under ``aliases``, for reading.

    Args:
        codec: A class derived from ``ArrayToArrayCodec``, ``ArrayToBytesCodec`` or ``BytesToBytesCodec``; one whose instances are
            immutable and can be pickled, because threads and processes share them.
        aliases: Further names. The alias ``numcodecs.x`` stands for the filter or compressor ``x`` of Zarr v2, as which it is written, too.
        replace: Put it before another codec of the same name instead of raising.

    Returns:
        What undoes it, also as a context manager.

    Raises:
        RegistrationError: There is a codec of that name.
        TypeError: ``codec`` is no class of codecs, or lacks a method.

    """
    return CODECS.register(getattr(codec, "name", ""), codec, aliases=aliases, replace=replace)


MAX_CODECS = 64
"""Codecs that an array may have, those inside other codecs included: many times what is of any use."""


def parse_codec(document: JSON) -> Codec:
    """The codec that one entry of ``codecs`` describes; an ``Ignored`` one where it is unknown and need not be understood."""
    if isinstance(document, str):
        document = {"name": document}
    if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
        raise MetadataError(f"a codec must be a name, or an object with a name, not {document!r:.100}")
    name, configuration = str(document["name"]), document.get("configuration", {})
    if not isinstance(configuration, Mapping):
        raise MetadataError(f"codec {name!r:.100}: configuration must be an object, not {configuration!r:.100}")
    if unknown := document.keys() - {"name", "configuration", "must_understand"}:
        raise MetadataError(f"codec {name!r:.100} has unknown members {sorted(unknown)!r:.200}")
    if name.startswith("numcodecs."):
        configuration = {key: value for key, value in configuration.items() if key != "id"}  # some writers leave it in
    codec = CODECS.get(name)
    if codec is not None:
        inner = {key: _parse_nested(name, key, configuration[key]) for key in codec.nested & configuration.keys()}
        return _FROM_NUMCODECS.get((name, codec), codec.from_configuration)({**configuration, **inner})
    if document.get("must_understand", True) is False:
        return Ignored.of(document)
    message = f"unknown codec {name!r:.100}; azarr.supported('codec') lists those that azarr has, and no plug-in has it"
    raise UnknownExtensionError(message, name=name)


def _parse_nested(name: str, key: str, documents: JSON) -> Any:
    if not isinstance(documents, list | tuple):
        raise MetadataError(f"codec {name!r}: {key} must be a list of codecs, not {documents!r:.100}")
    codecs = tuple(map(parse_codec, documents[: MAX_CODECS + 1]))
    if len(documents) > MAX_CODECS or _count(codecs) > MAX_CODECS:
        raise MetadataError(f"there are more than the {MAX_CODECS} codecs that are accepted")
    return codecs


def parse_codecs(documents: Sequence[JSON], spec: ChunkSpec, path: str) -> tuple[Codec, ...]:
    """The codecs of a node at ``path``, bound to chunks like ``spec``; ``MetadataError`` says which one is not legal."""
    try:
        return bind_codecs(_parse_nested("", "codecs", documents), spec)
    except UnknownExtensionError as error:
        raise UnknownExtensionError(f"{path}: {error}", path=path, name=error.name) from None
    except MetadataError as error:
        # cut, as some tell of a data type that may have thousands of fields
        raise MetadataError(f"{path}: {error!s:.1000}", path=path) from None


def _count(codecs: Sequence[Codec]) -> int:
    """How many codecs these are, with those inside them."""
    return len(codecs) + sum(_count(getattr(codec, key)) for codec in codecs for key in codec.nested)


def serialize_codec(codec: Codec) -> dict[str, JSON]:
    """The object that stands for ``codec`` in v3 metadata; always an object, as older readers refuse bare names."""
    if isinstance(codec, Ignored):
        return codec.to_json()
    configuration = codec.configuration()
    for key in codec.nested & configuration.keys():
        configuration[key] = [serialize_codec(inner) for inner in cast("tuple[Codec, ...]", configuration[key])]
    return {"name": codec.name, "configuration": configuration} if configuration else {"name": codec.name}
