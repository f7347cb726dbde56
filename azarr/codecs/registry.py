"""Which codecs there are, and how the ``codecs`` member of a metadata document becomes codecs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, cast

from azarr.codecs.base import Codec
from azarr.codecs.blosc import Blosc
from azarr.codecs.bytes import Bytes
from azarr.codecs.bz2 import Bz2
from azarr.codecs.crc32c import Crc32c
from azarr.codecs.gzip import Gzip
from azarr.codecs.lz4 import Lz4
from azarr.codecs.pipeline import bind_codecs
from azarr.codecs.sharding import Sharding
from azarr.codecs.transpose import Transpose
from azarr.codecs.zlib import Zlib
from azarr.codecs.zstd import Zstd
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.types import JSON, ChunkSpec

CODECS: Mapping[str, type[Codec]] = MappingProxyType(
    {codec.name: codec for codec in (Blosc, Bytes, Bz2, Crc32c, Gzip, Lz4, Sharding, Transpose, Zlib, Zstd)}
    # what zarr-python calls the codecs that it shares with v2
    | {"numcodecs.gzip": Gzip, "numcodecs.zstd": Zstd}
)
"""Every codec by its name in v3 metadata."""


def parse_codec(document: JSON) -> Codec | None:
    """The codec that one entry of ``codecs`` describes; ``None`` where it is unknown and need not be understood."""
    if isinstance(document, str):
        document = {"name": document}
    if not isinstance(document, Mapping) or not isinstance(document.get("name"), str):
        raise MetadataError(f"a codec must be a name, or an object with a name, not {document!r:.100}")
    name, configuration = str(document["name"]), document.get("configuration", {})
    if not isinstance(configuration, Mapping):
        raise MetadataError(f"codec {name!r}: configuration must be an object, not {configuration!r:.100}")
    if unknown := document.keys() - {"name", "configuration", "must_understand"}:
        raise MetadataError(f"codec {name!r} has unknown members {sorted(unknown)}")
    codec = CODECS.get(name)
    if codec is not None:
        inner = {key: _parse_nested(name, key, configuration[key]) for key in codec.nested & configuration.keys()}
        return codec.from_configuration({**configuration, **inner})
    if document.get("must_understand", True) is False:
        return None
    raise UnknownExtensionError(f"unknown codec {name!r}; azarr has {sorted(CODECS)}", name=name)


def _parse_nested(name: str, key: str, documents: JSON) -> Any:
    if not isinstance(documents, list | tuple):
        raise MetadataError(f"codec {name!r}: {key} must be a list of codecs, not {documents!r:.100}")
    return tuple(codec for document in documents if (codec := parse_codec(document)) is not None)


def parse_codecs(documents: Sequence[JSON], spec: ChunkSpec, path: str) -> tuple[Codec, ...]:
    """The codecs of a node at ``path``, bound to chunks like ``spec``; ``MetadataError`` says which one is not legal."""
    try:
        return bind_codecs(_parse_nested("", "codecs", documents), spec)
    except UnknownExtensionError as error:
        raise UnknownExtensionError(f"{path}: {error}", path=path, name=error.name) from None
    except MetadataError as error:
        raise MetadataError(f"{path}: {error}", path=path) from None


def serialize_codec(codec: Codec) -> dict[str, JSON]:
    """The object that stands for ``codec`` in v3 metadata; always an object, as older readers refuse bare names."""
    configuration = codec.configuration()
    for key in codec.nested & configuration.keys():
        configuration[key] = [serialize_codec(inner) for inner in cast("tuple[Codec, ...]", configuration[key])]
    return {"name": codec.name, "configuration": configuration} if configuration else {"name": codec.name}
