"""Codecs that need not be understood (Zarr v3 core, "must_understand"), and are not."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self, cast

from azarr.codecs.base import Codec, Unconfigured
from azarr.types import JSON


@dataclass(frozen=True, slots=True)
class Ignored(Unconfigured):
    """What azarr does not know, as its ``document`` in JSON: chunks pass it by, and it is written back as it is."""

    name: str  # type: ignore[misc]  # elsewhere that of the class; here no class knows it
    document: str

    @classmethod
    def of(cls, document: Mapping[str, JSON]) -> Self:
        """The codec that ``document``, an object with a name, describes."""
        return cls(str(document["name"]), json.dumps(document))

    def to_json(self) -> dict[str, JSON]:
        """The document."""
        return cast("dict[str, JSON]", json.loads(self.document))


def understood(codecs: Sequence[Codec]) -> tuple[Codec, ...]:
    """The codecs through which chunks go."""
    return tuple(codec for codec in codecs if not isinstance(codec, Ignored))
