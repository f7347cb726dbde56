"""A chunk as a cache has it."""

from __future__ import annotations

from typing import NamedTuple

from azarr.types import Array


class CachedChunk(NamedTuple):
    """A decoded chunk that nobody may change, and the size that it has in the store."""

    data: Array
    encoded_nbytes: int
