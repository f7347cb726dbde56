"""The image codecs and compressors of the package imagecodecs, by the ids ``imagecodecs_*`` that its interface for numcodecs gives them.

They need the package ``imagecodecs``: ``pip install "azarr[imagecodecs]"``.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar, Final, Self

import numpy as np

from azarr.codecs.foreign import ForeignCodec, as_json
from azarr.codecs.numcodecs_module import numcodecs_module
from azarr.codecs.of_numcodecs import ArrayToBytesOfNumcodecs, BytesToBytesOfNumcodecs, OfNumcodecs
from azarr.codecs.own import COMPRESSORS, IMAGES, PREDICTORS, PREFIX
from azarr.extras import Extra
from azarr.types import JSON, Array, Buffer, ChunkSpec


@dataclass(frozen=True, slots=True)
class Imagecodec:
    """The codec ``codec_id`` of the package, which is imported when the first chunk needs it; ``text`` is its configuration in JSON."""

    codec_id: str
    text: str

    def get_config(self) -> dict[str, JSON]:
        """The configuration as it was given: what is left out of it has defaults of the package's own."""
        return {"id": self.codec_id, **json.loads(self.text)}

    def encode(self, buf: Any) -> Any:
        """What the package makes of an array or bytes."""
        return _of_package(self).encode(buf)

    def decode(self, buf: Any, out: Any = None) -> Any:
        """What the package makes of bytes, in ``out`` where that is given and has room for it."""
        return _of_package(self).decode(buf, out)


@lru_cache(maxsize=64)
def _of_package(codec: Imagecodec) -> Any:
    """The object that does the work, which may be shared between threads; ``CodecError`` names the extra where the package is missing."""
    _FromPackage.extra.module(codec.codec_id)
    numcodecs_module("abc")
    classes = importlib.import_module("imagecodecs.numcodecs")
    configuration = {key: value for key, value in codec.get_config().items() if key != "id"}
    return getattr(classes, codec.codec_id.removeprefix(PREFIX).capitalize())(**configuration)


class _FromPackage(OfNumcodecs):
    """What the codecs share that work on images, on predictions, and on bytes."""

    extra: ClassVar[Extra] = Extra("imagecodecs", "imagecodecs")
    theirs: Imagecodec
    __slots__ = ()

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        return cls(Imagecodec(cls.name, json.dumps(as_json(cls.name, configuration), sort_keys=True)))

    @property
    def releases_gil(self) -> bool:
        return True


class _Predictor(_FromPackage, ArrayToBytesOfNumcodecs):
    """Differences and sorted bytes, before a compressor."""

    __slots__ = ()


class _Image(_FromPackage, ArrayToBytesOfNumcodecs):
    """Images in a format of their own."""

    __slots__ = ()

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        # The package compares the shape that an image states with that of the memory it is given, and makes none of its own.
        return self.as_chunk(self.call(self.theirs.decode, data, np.empty(spec.shape, spec.dtype)), spec)


class _Compressor(_FromPackage, BytesToBytesOfNumcodecs):
    """Compressed bytes."""

    __slots__ = ()

    def decode(self, data: Buffer, limit: int) -> Buffer:
        # one byte more than there may be, as some compressors stop silently where there is no more room
        return self.within(self.call(self.theirs.decode, data, np.empty(limit + 1, np.uint8)), limit)


def imagecodec(format_: str) -> type[ForeignCodec]:
    """The codec of a format, such as ``"tiff"``."""
    return IMAGECODECS[format_]


def _class(kind: type[ForeignCodec], format_: str) -> type[ForeignCodec]:
    members = {"name": f"{PREFIX}{format_}", "made_by": (imagecodec, (format_,)), "__slots__": (), "__doc__": kind.__doc__}
    return type(f"{format_.capitalize()}OfImagecodecs", (kind,), {**members, "__module__": __name__})


IMAGECODECS: Final[Mapping[str, type[ForeignCodec]]] = MappingProxyType(
    {
        format_: _class(kind, format_)
        for kind, formats in ((_Image, IMAGES), (_Predictor, PREDICTORS), (_Compressor, COMPRESSORS))
        for format_ in formats
    }
)
"""The codecs by what follows ``imagecodecs_`` in their names."""
