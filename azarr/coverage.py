"""Which elements of an array have been dealt with: whole chunks as runs of their numbers, parts of others as boxes. Pure."""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TypeAlias

Box: TypeAlias = tuple[tuple[int, int], ...]
"""A block of elements: where it starts and stops along each axis."""


class Runs:
    """A set of whole numbers, kept as runs of neighbours."""

    __slots__ = ("_firsts", "_stops", "size")

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._stops: list[int] = []
        self.size = 0
        """How many numbers there are."""

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """The first number of each run, and the one after its last, in ascending order."""
        return zip(self._firsts, self._stops, strict=True)

    def __len__(self) -> int:
        """The number of runs."""
        return len(self._firsts)

    def __contains__(self, number: int) -> bool:
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number < self._stops[at]

    def copy(self) -> Runs:
        """The same numbers in a set that changes on its own."""
        other = Runs()
        other._firsts, other._stops, other.size = self._firsts.copy(), self._stops.copy(), self.size
        return other

    def add(self, first: int, stop: int | None = None) -> None:
        """Add ``first``, and with ``stop`` all numbers from there up to, not including, that one."""
        stop = first + 1 if stop is None else stop
        if self._stops and self._stops[-1] == first:  # most work is done in order
            self._stops[-1] = stop
            self.size += stop - first
            return
        low, high = bisect_left(self._stops, first), bisect_right(self._firsts, stop)
        self.size -= sum(self._stops[at] - self._firsts[at] for at in range(low, high))
        if low < high:
            first, stop = min(first, self._firsts[low]), max(stop, self._stops[high - 1])
        self._firsts[low:high], self._stops[low:high] = [first], [stop]
        self.size += stop - first

    def discard(self, number: int) -> None:
        """Take ``number`` out; fine where it is not in."""
        if number in self:
            at = bisect_right(self._firsts, number) - 1
            rest = [(first, stop) for first, stop in ((self._firsts[at], number), (number + 1, self._stops[at])) if first < stop]
            self._firsts[at : at + 1], self._stops[at : at + 1] = [first for first, _ in rest], [stop for _, stop in rest]
            self.size -= 1


class Part:
    """The boxes of one chunk, which is ``bounds`` in all, that are covered; they do not overlap, and are joined where they touch."""

    __slots__ = ("bounds", "boxes", "size")

    def __init__(self, bounds: Box) -> None:
        self.bounds = bounds
        self.boxes: list[Box] = []
        self.size = 0
        """How many elements are covered."""

    def copy(self) -> Part:
        """The same in a part that changes on its own."""
        other = Part(self.bounds)
        other.boxes, other.size = self.boxes.copy(), self.size
        return other

    @property
    def complete(self) -> bool:
        """Whether all of the chunk is covered."""
        return self.size == volume(self.bounds)

    def add(self, box: Box) -> None:
        """Cover ``box``."""
        for each in self._uncovered(box):
            self.size += volume(each)
            self._join(each)

    def has(self, box: Box) -> bool:
        """Whether all of ``box`` is covered."""
        return not self._uncovered(box)

    def discard(self, box: Box) -> None:
        """Cover ``box`` no more."""
        self.boxes = [rest for each in self.boxes for rest in without(each, box)]
        self.size = sum(map(volume, self.boxes))

    def _uncovered(self, box: Box) -> list[Box]:
        left = [box]
        for covered in self.boxes:
            left = [rest for each in left for rest in without(each, covered)]
        return left

    def _join(self, box: Box) -> None:
        at = 0
        while at < len(self.boxes):
            whole = joined(self.boxes[at], box)
            if whole is None:
                at += 1
            else:  # which may now touch one that was passed already
                del self.boxes[at]
                box, at = whole, 0
        self.boxes.append(box)


class Coverage:
    """The part of a grid of chunks that is covered. Chunks are named by their number in C order of the grid."""

    __slots__ = ("parts", "whole")

    def __init__(self) -> None:
        self.whole = Runs()
        self.parts: dict[int, Part] = {}
        """The chunks of which only a part is covered."""

    def copy(self) -> Coverage:
        """A coverage of the same that changes on its own."""
        other = Coverage()
        other.whole = self.whole.copy()
        other.parts = {number: part.copy() for number, part in self.parts.items()}
        return other

    def add(self, number: int, box: Box, bounds: Box) -> None:
        """Cover ``box`` of the chunk ``number``, which is ``bounds`` in all."""
        if number in self.whole:
            return
        if box != bounds:
            part = self.parts.setdefault(number, Part(bounds))
            part.add(box)
            if not part.complete:
                return
        self.parts.pop(number, None)
        self.whole.add(number)

    def has(self, number: int, box: Box) -> bool:
        """Whether all of ``box``, of the chunk ``number``, is covered."""
        return number in self.whole or (number in self.parts and self.parts[number].has(box))

    def discard(self, number: int, box: Box, bounds: Box) -> None:
        """Cover ``box`` of the chunk ``number`` no more."""
        if number in self.whole:
            self.whole.discard(number)
            self.parts[number] = part = Part(bounds)
            part.add(bounds)
        if number in self.parts:
            self.parts[number].discard(box)
            if not self.parts[number].boxes:
                del self.parts[number]


def volume(box: Box) -> int:
    """How many elements a box has."""
    return math.prod(stop - start for start, stop in box)


def without(box: Box, hole: Box) -> list[Box]:
    """What is left of ``box`` outside ``hole``, in boxes that do not overlap."""
    if any(stop <= low or high <= start for (start, stop), (low, high) in zip(box, hole, strict=True)):
        return [box]
    rest: list[Box] = []
    core = list(box)
    for axis, (low, high) in enumerate(hole):
        start, stop = core[axis]
        if start < low:
            rest.append((*core[:axis], (start, low), *core[axis + 1 :]))
        if high < stop:
            rest.append((*core[:axis], (high, stop), *core[axis + 1 :]))
        core[axis] = max(start, low), min(stop, high)
    return rest


def joined(one: Box, other: Box) -> Box | None:
    """The box that two boxes make together, where they touch and make one."""
    different = [axis for axis, (mine, its) in enumerate(zip(one, other, strict=True)) if mine != its]
    if len(different) != 1:
        return None
    axis = different[0]
    (start, stop), (low, high) = sorted((one[axis], other[axis]))
    return (*one[:axis], (start, high), *one[axis + 1 :]) if stop == low else None
