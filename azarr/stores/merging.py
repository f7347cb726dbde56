"""Which ranges of one value are worth one request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from azarr.types import ByteRange, Span

SpanT = TypeVar("SpanT", ByteRange, Span)

GAP: Final = 2**20
"""Bytes between two ranges that are fetched along with them rather than left out by another request, which takes tens of milliseconds."""

MOST: Final = 16 * 2**20
"""Bytes that are fetched by one request at most, unless it is one range that is larger."""


def merge(ranges: Iterable[tuple[int, SpanT]], gap: int = GAP, most: int = MOST) -> Iterator[list[tuple[int, SpanT]]]:
    """Numbered ranges, each of which has an end, in groups that are worth one request each."""
    ordered = sorted(ranges, key=lambda item: item[1].start)
    group: list[tuple[int, SpanT]] = []
    stop = 0
    for number, where in ordered:
        end = where.stop or 0
        if group and (where.start - stop > gap or max(stop, end) - group[0][1].start > most):
            yield group
            group, stop = [], 0
        group.append((number, where))
        stop = max(stop, end)
    if group:
        yield group


def span_of(group: Sequence[tuple[int, SpanT]]) -> Span:
    """What has all ranges of a group."""
    return Span(group[0][1].start, max(where.stop or 0 for _, where in group))
