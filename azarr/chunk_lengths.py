"""The lengths of chunks along one dimension of a rectilinear grid (zarr-extensions, "rectilinear"), run by run.

A run is a number of neighbouring chunks of one length. A billion equal chunks are one run, and cost as much.
"""

from __future__ import annotations

import itertools
import operator
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, SupportsIndex, overload

import numpy as np
import numpy.typing as npt

from azarr.errors import MetadataError
from azarr.types import JSON

FARTHEST: Final = 2**63 - 1
"""No element of an array is that far out, though chunks may lie there."""


class Stretch(NamedTuple):
    """``chunks`` neighbouring chunks of ``length``, from chunk ``first`` on, which begins at element ``start``."""

    first: int
    start: int
    length: int
    chunks: int


class ChunkLengths(Sequence[int]):
    """The lengths of all chunks along one dimension; a sequence of whole numbers that keeps runs of equal ones."""

    __slots__ = ("_firsts", "_starts", "runs")

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        merged: list[tuple[int, int]] = []
        for length, count in runs:
            if length < 1 or count < 1:
                raise MetadataError(f"chunks must be at least 1 long, and at least one each, not {count} of {length}")
            if merged and merged[-1][0] == length:
                merged[-1] = (length, merged[-1][1] + count)
            else:
                merged.append((length, count))
        if not merged:
            raise MetadataError("there must be at least one chunk along every dimension")
        self.runs = tuple(merged)
        """Length and number of the chunks of each run."""
        self._firsts = [0, *itertools.accumulate(count for _, count in merged)]
        self._starts = [0, *itertools.accumulate(length * count for length, count in merged)]

    def __len__(self) -> int:
        return self._firsts[-1]

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        if isinstance(index, slice):
            return tuple(self[number] for number in range(*index.indices(len(self))))
        place = index + len(self) if index < 0 else index
        if not 0 <= place < len(self):
            raise IndexError(f"there is no chunk {index}; there are {len(self)}")
        return self.runs[bisect_right(self._firsts, place) - 1][0]

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(itertools.repeat(length, count) for length, count in self.runs)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ChunkLengths):
            return self.runs == other.runs
        return len(self) == len(other) and all(map(operator.eq, self, other)) if isinstance(other, list | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.runs)

    def __repr__(self) -> str:
        shown = ", ".join(f"{length}" if count == 1 else f"{count}×{length}" for length, count in self.runs[:8])
        return f"[{shown}{', …' if len(self.runs) > 8 else ''}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkLengths, (self.runs,)

    @property
    def total(self) -> int:
        """The length of all chunks together."""
        return self._starts[-1]

    @property
    def longest(self) -> int:
        """The greatest length."""
        return max(length for length, _ in self.runs)

    def start(self, place: int) -> int:
        """Where the chunk ``place`` begins."""
        number = min(bisect_right(self._firsts, place), len(self.runs)) - 1
        return self._starts[number] + (place - self._firsts[number]) * self.runs[number][0]

    def place(self, position: int) -> int:
        """Which chunk the element at ``position`` is in."""
        number = bisect_right(self._starts, position) - 1
        return self._firsts[number] + (position - self._starts[number]) // self.runs[number][0]

    def places(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Which chunks the elements at ``positions`` are in."""
        # chunks beyond the farthest element are as good as at it, and the numbers fit
        starts = np.array([min(start, FARTHEST) for start in self._starts], np.int64)
        numbers = np.searchsorted(starts, positions, side="right") - 1
        firsts = np.array([min(first, FARTHEST) for first in self._firsts], np.int64)
        lengths = np.array([length for length, _ in self.runs], np.int64)
        return firsts[numbers] + (positions - starts[numbers]) // lengths[numbers]

    def count_within(self, length: int) -> int:
        """The number of chunks that hold elements of a dimension of ``length``."""
        return self.place(length - 1) + 1 if length else 0

    def stretches(self, low: int, high: int) -> Iterator[Stretch]:
        """The runs that hold elements from ``low`` up to, not including, ``high``."""
        number = bisect_right(self._starts, low) - 1
        while number < len(self.runs) and self._starts[number] < high:
            yield Stretch(self._firsts[number], self._starts[number], *self.runs[number])
            number += 1

    def to_json(self) -> JSON:
        """What stands for these lengths in a v3 document: lengths, and pairs of a length and how often it is repeated."""
        return [length if count == 1 else [length, count] for length, count in self.runs]


def parse_chunk_lengths(document: object) -> int | ChunkLengths:
    """One length for all chunks, or the lengths that a list of lengths and of pairs of a length and a number of chunks gives."""
    if isinstance(document, ChunkLengths):
        return document
    if not isinstance(document, list | tuple):
        return _whole(document)
    items = [tuple(item) if isinstance(item, list | tuple) else (item, 1) for item in document]
    if any(len(item) != 2 for item in items):
        raise MetadataError(f"chunk lengths must be whole numbers, or pairs of a length and a number of chunks, not {document!r:.100}")
    return ChunkLengths((_whole(length), _whole(count)) for length, count in items)


def _whole(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        raise MetadataError(f"chunk lengths must be whole numbers, or pairs of a length and a number of chunks, not {value!r:.100}")
    number = operator.index(value)
    if not 1 <= number < 2**63:
        raise MetadataError(f"chunk lengths and numbers of chunks must be at least 1 and less than 2^63, not {number}")
    return number


def count_of(length: int, lengths: int | ChunkLengths) -> int:
    """How many chunks hold elements of a dimension of ``length``, where chunks are this long."""
    return -(-length // lengths) if isinstance(lengths, int) else lengths.count_within(length)


def place_of(position: int, lengths: int | ChunkLengths) -> int:
    """Which chunk the element at ``position`` is in."""
    return position // lengths if isinstance(lengths, int) else lengths.place(position)


def places_of(positions: npt.NDArray[np.int64], lengths: int | ChunkLengths) -> npt.NDArray[np.int64]:
    """Which chunks the elements at ``positions`` are in."""
    return positions // lengths if isinstance(lengths, int) else lengths.places(positions)


def start_of(place: int, lengths: int | ChunkLengths) -> int:
    """Where the chunk ``place`` begins."""
    return place * lengths if isinstance(lengths, int) else lengths.start(place)
