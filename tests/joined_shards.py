"""Shards of inner chunks that a test has encoded, or damaged, by itself."""

from __future__ import annotations

from collections.abc import Sequence

from azarr.codecs.sharding import NewShard, ShardLayout
from azarr.types import Buffer


def joined(layout: ShardLayout, parts: Sequence[Buffer | None], likely: int = 0) -> bytes:
    """The shard that has ``parts``, in C order, where they are not ``None``."""
    shard = NewShard(layout, likely)
    for number, part in enumerate(parts):
        if part is not None:
            shard.put(number, part)
    return bytes(shard.encoded())
