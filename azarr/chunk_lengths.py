"""The lengths of chunks along one dimension of a rectilinear grid (zarr-extensions, "rectilinear"), run by run.

A run is a number of neighbouring chunks of one length. A billion equal chunks are one run, and cost as much; a million runs take
as little memory as their numbers, for documents may be hostile.
"""

from __future__ import annotations

import itertools
import operator
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, SupportsIndex, TypeAlias, overload

import numpy as np
import numpy.typing as npt

from azarr.errors import MetadataError
from azarr.types import JSON

FARTHEST: Final = 2**63 - 1
"""No chunk may end beyond: NumPy counts no further."""

Numbers: TypeAlias = npt.NDArray[np.int64]


class Stretches(NamedTuple):
    """Neighbouring runs: the index of the first chunk of each, the element that it begins at, and how long its chunks are.

    ``starts`` has one more item, the end of the last run.
    """

    firsts: Numbers
    starts: Numbers
    lengths: Numbers


class ChunkLengths(Sequence[int]):
    """The lengths of all chunks along one dimension; a sequence of whole numbers that keeps runs of equal ones."""

    __slots__ = ("_firsts", "_lengths", "_starts")

    def __init__(self, runs: Iterable[tuple[int, int]]) -> None:
        lengths: array[int] = array("q")
        counts: array[int] = array("q")
        total = 0
        for length, count in runs:
            if length < 1 or count < 1:
                raise MetadataError(f"chunks must be at least 1 long, and at least one each, not {count} of {length}")
            total += length * count
            if total > FARTHEST:
                raise MetadataError("chunks must be less than 2^63 long in all along every dimension")
            if lengths and lengths[-1] == length:
                counts[-1] += count
            else:
                lengths.append(length)
                counts.append(count)
        if not lengths:
            raise MetadataError("there must be at least one chunk along every dimension")
        self._lengths = lengths
        self._firsts: array[int] = array("q", itertools.accumulate(counts, initial=0))
        self._starts: array[int] = array("q", itertools.accumulate(map(operator.mul, lengths, counts), initial=0))

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
        return self._lengths[bisect_right(self._firsts, place) - 1]

    def __iter__(self) -> Iterator[int]:
        return itertools.chain.from_iterable(itertools.starmap(itertools.repeat, self.runs()))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, ChunkLengths):
            return self._lengths == other._lengths and self._firsts == other._firsts
        return len(self) == len(other) and all(map(operator.eq, self, other)) if isinstance(other, list | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.tobytes())

    def __repr__(self) -> str:
        shown = [f"{length}" if count == 1 else f"{count}×{length}" for length, count in itertools.islice(self.runs(), 8)]
        return f"[{', '.join(shown)}{', …' if len(self._lengths) > 8 else ''}]"

    def __reduce__(self) -> tuple[Any, ...]:
        return ChunkLengths, (tuple(self.runs()),)

    def runs(self) -> Iterator[tuple[int, int]]:
        """Length and number of the chunks of each run."""
        return zip(self._lengths, map(operator.sub, itertools.islice(self._firsts, 1, None), self._firsts), strict=False)

    def tobytes(self) -> bytes:
        """The same bytes for equal lengths, and for no others."""
        return self._lengths.tobytes() + self._firsts.tobytes()

    @property
    def total(self) -> int:
        """The length of all chunks together."""
        return self._starts[-1]

    @property
    def longest(self) -> int:
        """The greatest length."""
        return max(self._lengths)

    @property
    def distinct(self) -> list[int]:
        """All lengths that there are, in ascending order."""
        return sorted(set(self._lengths))

    def start(self, place: int) -> int:
        """Where the chunk ``place`` begins."""
        number = min(bisect_right(self._firsts, place), len(self._lengths)) - 1
        return self._starts[number] + (place - self._firsts[number]) * self._lengths[number]

    def place(self, position: int) -> int:
        """Which chunk the element at ``position`` is in."""
        number = bisect_right(self._starts, position) - 1
        return self._firsts[number] + (position - self._starts[number]) // self._lengths[number]

    def places(self, positions: Numbers) -> Numbers:
        """Which chunks the elements at ``positions`` are in."""
        firsts, starts, lengths = self._between(0, len(self._lengths))
        numbers = np.searchsorted(starts, positions, side="right") - 1
        return firsts[numbers] + (positions - starts[numbers]) // lengths[numbers]

    def count_within(self, length: int) -> int:
        """The number of chunks that hold elements of a dimension of ``length``."""
        return self.place(length - 1) + 1 if length else 0

    def stretches(self, low: int, high: int) -> Stretches:
        """The runs that hold elements from ``low`` up to, not including, ``high``."""
        return self._between(bisect_right(self._starts, low) - 1, bisect_right(self._starts, high - 1))

    def _between(self, first: int, last: int) -> Stretches:
        firsts, starts, lengths = (np.frombuffer(each, np.int64) for each in (self._firsts, self._starts, self._lengths))
        return Stretches(firsts[first:last], starts[first : last + 1], lengths[first:last])

    def to_json(self) -> JSON:
        """What stands for these lengths in a v3 document: lengths, and pairs of a length and how often it is repeated."""
        return [length if count == 1 else [length, count] for length, count in self.runs()]


def parse_chunk_lengths(document: object) -> int | ChunkLengths:
    """One length for all chunks, or the lengths that a list of lengths and of pairs of a length and a number of chunks gives."""
    if isinstance(document, ChunkLengths):
        return document
    if not isinstance(document, list | tuple):
        return _whole(document)
    return ChunkLengths(map(_run, document))


def _run(item: object) -> tuple[int, int]:
    """The length and number of chunks that an item of a list stands for."""
    if not isinstance(item, list | tuple):
        return _whole(item), 1
    if len(item) != 2:
        raise MetadataError(f"chunk lengths must be whole numbers, or pairs of a length and a number of chunks, not {item!r:.100}")
    return _whole(item[0]), _whole(item[1])


def _whole(value: object) -> int:
    # to ask whether something is like a number takes its time, and there may be millions
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, SupportsIndex)):
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


def places_of(positions: Numbers, lengths: int | ChunkLengths) -> Numbers:
    """Which chunks the elements at ``positions`` are in."""
    return positions // lengths if isinstance(lengths, int) else lengths.places(positions)


def start_of(place: int, lengths: int | ChunkLengths) -> int:
    """Where the chunk ``place`` begins."""
    return place * lengths if isinstance(lengths, int) else lengths.start(place)


def lengthened(lengths: int | ChunkLengths, length: int) -> int | ChunkLengths:
    """Lengths of chunks for a dimension of ``length``: the same, and as many more of the last one as it takes."""
    if isinstance(lengths, int) or lengths.total >= length:
        return lengths
    return ChunkLengths([*lengths.runs(), (lengths[-1], -(-(length - lengths.total) // lengths[-1]))])
