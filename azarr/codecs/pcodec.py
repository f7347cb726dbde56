"""The ``numcodecs.pcodec`` codec: numbers compressed without loss by pcodec, in its standalone format.

It needs the package ``pcodec``: ``pip install "azarr[pcodec]"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import ModuleType
from typing import Any, ClassVar, Final, Literal, Self, cast

import numpy as np

from azarr.codecs.base import ArrayToBytesCodec, check_keys, integer
from azarr.codecs.damage import damaged
from azarr.errors import CodecError, MetadataError
from azarr.extras import Extra
from azarr.types import JSON, Array, Buffer, ChunkSpec

_MODES: Final = ("auto", "classic")
_DELTAS: Final = ("auto", "none", "no_op", "try_consecutive", "try_lookback")
_PAGINGS: Final = ("equal_pages_up_to",)
_DTYPES: Final = frozenset({"int16", "int32", "int64", "uint16", "uint32", "uint64", "float16", "float32", "float64"})


@cache
def _library() -> ModuleType:
    return Pcodec.extra.module(Pcodec.name)


@dataclass(frozen=True, slots=True)
class Pcodec(ArrayToBytesCodec):
    """Numbers compressed by their distribution. ``level`` runs from 0 to 12; the rest is how pcodec looks for patterns."""

    name: ClassVar[str] = "numcodecs.pcodec"
    extra: ClassVar[Extra] = Extra("pcodec", "pcodec")
    level: int = 8
    mode_spec: Literal["auto", "classic"] = "auto"
    delta_spec: Literal["auto", "none", "no_op", "try_consecutive", "try_lookback"] = "auto"
    paging_spec: Literal["equal_pages_up_to"] = "equal_pages_up_to"
    delta_encoding_order: int | None = None
    equal_pages_up_to: int = 2**18

    def __post_init__(self) -> None:
        for key, known in (("mode_spec", _MODES), ("delta_spec", _DELTAS), ("paging_spec", _PAGINGS)):
            value = getattr(self, key)
            if value not in known:
                raise MetadataError(f"codec {self.name!r}: {key} must be one of {', '.join(known)}, not {value!r:.100}")
        numbers: dict[str, JSON] = {"level": self.level, "pages": self.equal_pages_up_to, "delta_encoding_order": self.delta_encoding_order}
        integer(self.name, numbers, "level", 0, 12)
        integer(self.name, numbers, "pages", 1, 2**24)
        if self.delta_encoding_order is not None:
            integer(self.name, numbers, "delta_encoding_order", 0, 7)
            if self.delta_spec not in {"auto", "try_consecutive"}:
                raise MetadataError(f"codec {self.name!r}: delta_encoding_order needs the delta_spec 'try_consecutive'")

    @classmethod
    def from_configuration(cls, configuration: Mapping[str, JSON]) -> Self:
        known = frozenset({"level", "mode_spec", "delta_spec", "paging_spec", "delta_encoding_order", "equal_pages_up_to"})
        check_keys(cls.name, configuration, known)
        return cls(**cast("dict[str, Any]", configuration))  # checked by __post_init__

    def configuration(self) -> dict[str, JSON]:
        return {
            "level": self.level,
            "mode_spec": self.mode_spec,
            "delta_spec": self.delta_spec,
            "paging_spec": self.paging_spec,
            "delta_encoding_order": self.delta_encoding_order,
            "equal_pages_up_to": self.equal_pages_up_to,
        }

    def bind(self, spec: ChunkSpec) -> Self:
        if spec.dtype.name not in _DTYPES:
            raise MetadataError(f"codec {self.name!r} takes numbers of 16, 32 and 64 bits, not {spec.dtype}")
        return self

    def _options(self) -> Any:
        library = _library()
        deltas, order = library.DeltaSpec, self.delta_encoding_order
        if self.delta_spec == "try_consecutive" or (self.delta_spec == "auto" and order is not None):
            delta = deltas.try_consecutive(order)
        elif self.delta_spec in {"none", "no_op"}:
            delta = deltas.no_op() if hasattr(deltas, "no_op") else deltas.none()
        else:
            delta = getattr(deltas, self.delta_spec)()
        return library.ChunkConfig(
            compression_level=self.level,
            mode_spec=getattr(library.ModeSpec, self.mode_spec)(),
            delta_spec=delta,
            paging_spec=library.PagingSpec.equal_pages_up_to(self.equal_pages_up_to),
        )

    def encode(self, chunk: Array, spec: ChunkSpec) -> Buffer:
        values = np.ascontiguousarray(chunk, spec.dtype).reshape(-1)
        try:
            return cast("bytes", _library().standalone.simple_compress(values, self._options()))
        except (RuntimeError, TypeError, ValueError) as error:
            raise CodecError(f"cannot compress {spec.dtype} ({error})", codec=self.name) from error

    def decode(self, data: Buffer, spec: ChunkSpec) -> Array:
        # one more than there should be, as the library stops silently where there is no more room
        out = np.empty(int(np.prod(spec.shape, dtype=object)) + 1, spec.dtype)
        try:
            progress = _library().standalone.simple_decompress_into(bytes(data), out)
        except (RuntimeError, TypeError, ValueError) as error:
            raise damaged(self.name, f"cannot decompress ({error})") from error
        except BaseException as error:
            if type(error).__name__ != "PanicException":  # how a Rust library reports what it did not foresee
                raise
            raise damaged(self.name, f"cannot decompress ({error})") from error
        if progress.n_processed != len(out) - 1 or not progress.finished:
            raise damaged(self.name, f"decodes to {progress.n_processed} numbers where the chunk has {len(out) - 1}")
        return out[:-1].reshape(spec.shape)

    def encoded_size(self, spec: ChunkSpec) -> int | None:
        del spec
        return None
