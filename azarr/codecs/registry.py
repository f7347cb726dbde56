"""Which codecs there are, and how the ``codecs`` member of a metadata document becomes codecs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

from azarr.codecs.base import ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec, Codec
from azarr.codecs.ignored import Ignored
from azarr.codecs.own import OWN_CODECS
from azarr.codecs.pipeline import bind_codecs
from azarr.deferred import Deferred
from azarr.errors import MetadataError, UnknownExtensionError
from azarr.registry import OWN, Entry, Registration, Registry
from azarr.types import JSON, ChunkSpec

if TYPE_CHECKING:
    from azarr.codecs.of_zarr_python import from_zarr_python
else:
    from_zarr_python = Deferred("azarr.codecs.of_zarr_python", "from_zarr_python")


def _accept(name: str, value: object) -> type[Codec]:
    """``value``, if it is the class of a codec that is complete."""
    if _is_of_zarr_python(value):
        value = from_zarr_python(cast("type", value), name)
    kinds = ArrayToArrayCodec, ArrayToBytesCodec, BytesToBytesCodec
    if not isinstance(value, type) or not issubclass(value, kinds):
        raise TypeError(f"{name!r} needs a subclass of {', '.join(kind.__name__ for kind in kinds)}, not {value!r:.100}")
    if lacking := getattr(value, "__abstractmethods__", None):
        raise TypeError(f"{value.__qualname__} lacks {', '.join(sorted(lacking))}")
    if not isinstance(getattr(value, "name", None), str):
        raise TypeError(f"{value.__qualname__} lacks a name, which is what stands for it in v3 metadata")
    return value


def _is_of_zarr_python(value: object) -> bool:
    """Whether ``value`` is a codec class of zarr-python, or of a plug-in for it; found out without importing it."""
    return isinstance(value, type) and any(base.__module__ == "zarr.abc.codec" for base in value.__mro__)


CODECS: Registry[type[Codec]] = Registry(
    "codec", (Entry(names, home, OWN) for names, home in OWN_CODECS.items()), ("azarr.codecs", "zarr.codecs"), _accept
)
"""Every codec by its names in v3 metadata."""


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
        make = codec.from_numcodecs if name.startswith("numcodecs.") else codec.from_configuration
        return make({**configuration, **inner})
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
