"""Listing from keys in their order, without looking at each of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from azarr.stores.base import check_prefix
from azarr.types import Listing


def keys_below(keys: Sequence[str], prefix: str) -> Sequence[str]:
    """Those of the sorted ``keys`` that start with ``prefix``."""
    check_prefix(prefix)
    return keys[bisect_left(keys, prefix) : bisect_left(keys, after(prefix))] if prefix else keys


def listing_below(keys: Sequence[str], prefix: str) -> Listing:
    """The keys and prefixes directly below ``prefix``, of the sorted ``keys``."""
    values: list[str] = []
    prefixes: list[str] = []
    below = keys_below(keys, prefix)
    position = 0
    while position < len(below):
        key = below[position]
        end = key.find("/", len(prefix))
        if end < 0:
            values.append(key)
            position += 1
        else:
            prefixes.append(key[: end + 1])
            position = bisect_left(below, after(prefixes[-1]), position)
    return Listing(keys=tuple(values), prefixes=tuple(prefixes))


def after(prefix: str) -> str:
    """The first string behind all that start with ``prefix``, which ends in ``/``."""
    return prefix[:-1] + chr(ord("/") + 1)
