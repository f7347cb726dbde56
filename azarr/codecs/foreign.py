"""What codecs of other libraries have in common once they are run as azarr's."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self, TypeVar, cast

import numpy as np

from azarr.codecs.base import Codec
from azarr.data_types.base import native
from azarr.errors import CodecError, MetadataError
from azarr.types import JSON, Array, ChunkSpec

T = TypeVar("T")


class ForeignCodec(Codec):
    """A codec that lets ``theirs``, an object of another library, do the work. What it raises is a ``CodecError`` or ``MetadataError``.

    Nothing is known of its use of the interpreter lock, and nothing bounds what it decodes to before it is done: that is checked
    afterwards.
    """

    made_by: ClassVar[tuple[Callable[..., type[ForeignCodec]], tuple[Any, ...]]]
    """What made the class, so that instances can be pickled."""

    __slots__ = ("spec", "theirs")

    def __init__(self, theirs: Any, spec: ChunkSpec | None = None) -> None:
        self.theirs = theirs
        self.spec = spec

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.configuration()})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ForeignCodec):
            return NotImplemented
        return type(self) is type(other) and self.configuration() == other.configuration()

    def __hash__(self) -> int:
        return hash(self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (*self.made_by, self.theirs, self.spec)

    @property
    def releases_gil(self) -> bool:
        return False

    @property
    def bound(self) -> ChunkSpec:
        """The chunks it is bound to."""
        if self.spec is None:
            raise CodecError("is not bound to chunks yet", codec=self.name)
        return self.spec

    def bind(self, spec: ChunkSpec) -> Self:
        return type(self)(self.theirs, spec)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """The result of ``function``; ``CodecError`` says what it raised."""
        try:
            return function(*args)
        except CodecError:
            raise
        except Exception as error:  # whatever another library raises
            raise CodecError(f"{type(self.theirs).__qualname__} failed: {_shown(error)}", codec=self.name) from error


def _restored(make: Callable[..., type[ForeignCodec]], args: tuple[Any, ...], theirs: Any, spec: ChunkSpec | None) -> ForeignCodec:
    return make(*args)(theirs, spec)


def _shown(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


def configured(name: str, make: Callable[[dict[str, Any]], T], document: dict[str, Any]) -> T:
    """What ``make`` makes of ``document``; ``MetadataError`` says what it raised."""
    try:
        return make(document)
    except Exception as error:  # whatever another library raises
        raise MetadataError(f"codec {name!r}: {_shown(error)}") from error


def as_json(name: str, configuration: Mapping[str, Any]) -> dict[str, JSON]:
    """``configuration`` as JSON has it; ``MetadataError`` where it does not."""
    try:
        return cast("dict[str, JSON]", json.loads(json.dumps(dict(configuration), default=lambda value: value.value)))  # enumerations
    except (TypeError, ValueError, AttributeError) as error:
        raise MetadataError(f"codec {name!r}: the configuration {configuration!r:.100} is not JSON: {error}") from error


def as_chunk(name: str, made: object, spec: ChunkSpec) -> Array:
    """What another library made, if it is a chunk like ``spec``, save that its dimensions may be lost; otherwise ``CodecError``."""
    chunk = np.asarray(made)
    fits = chunk.dtype.hasobject if spec.variable else native(chunk.dtype) == spec.dtype
    if chunk.size != spec.nelements or not fits:
        message = f"made {chunk.dtype} of shape {chunk.shape} where the chunk is {spec.dtype} of shape {spec.shape}"
        raise CodecError(message, codec=name)
    return chunk.astype(spec.dtype, copy=False).reshape(spec.shape)
