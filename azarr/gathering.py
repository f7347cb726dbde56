"""Gathering: pieces of chunks and shards that come one after the other are put together, so that each is stored once. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from azarr.chunk_sources import Piece
from azarr.coverage import Coverage
from azarr.placement import Entry, Met, Target, Touched, size_of
from azarr.types import Coords
from azarr.writing import Unit


@dataclass(slots=True, eq=False)
class Gathered:
    """A unit that is to be stored, with the entry that each of its pieces belongs to, and what of which chunks the pieces are."""

    unit: Unit
    entries: list[Entry]
    touched: list[Touched]


@dataclass(slots=True, eq=False)
class Draft:
    """A unit of which something has come, and something has not.

    ``met`` is what the target meets of it; nothing of that has been stored, skipped or given up so far while it is ``intact``.
    """

    met: Met
    intact: bool = True
    coverage: Coverage = field(default_factory=Coverage)
    pieces: list[Piece] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    touched: list[Touched] = field(default_factory=list)
    nbytes: int = 0

    @property
    def complete(self) -> bool:
        """Whether everything has come."""
        return self.coverage.whole.size == self.met.chunks

    def cover(self, touched: list[Touched]) -> None:
        """Note what has come."""
        for each in touched:
            self.coverage.add(*each)

    def take(self, coords: Coords) -> Gathered:
        """What there is to be stored; it is here no more."""
        whole = self.complete and self.intact
        unit = Unit(coords, self.pieces, covers=whole and self.met.covers, full=whole and self.met.full)
        gathered = Gathered(unit, self.entries, self.touched)
        self.pieces, self.entries, self.touched = [], [], []
        self.intact, self.nbytes = False, 0
        return gathered


class Gathering:
    """The drafts of a target."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._drafts: dict[Coords, Draft] = {}
        self._waiting: dict[Coords, Draft] = {}
        """Those that hold pieces, the oldest first."""
        self.nbytes = 0
        """What the pieces hold in memory."""

    def notes(self, piece: Piece) -> bool:
        """Whether it matters what of which chunks ``piece`` is: not where it is all of a unit of which nothing has come."""
        return not piece.unit.covers or piece.unit.coords in self._drafts

    def add(self, piece: Piece, entry: Entry, touched: list[Touched]) -> Gathered | None:
        """Add a piece; the unit that is complete with it, if one is."""
        coords = piece.unit.coords
        if not self.notes(piece):
            return Gathered(Unit(coords, [piece], covers=True, full=piece.unit.full), [entry], touched)
        draft = self._draft(coords)
        draft.cover(touched)
        draft.pieces.append(piece)
        draft.entries.append(entry)
        draft.touched += touched
        nbytes = size_of(piece) * piece.values.dtype.itemsize
        draft.nbytes += nbytes
        self.nbytes += nbytes
        self._waiting[coords] = draft
        return self._take(coords) if draft.complete else None

    def skip(self, coords: Coords, touched: list[Touched]) -> Gathered | None:
        """Note that something has come which is stored already; the unit that is complete with it, if one is to be stored."""
        draft = self._draft(coords)
        draft.intact = False
        draft.cover(touched)
        return self._take(coords) if draft.complete else None

    def oldest(self) -> Gathered | None:
        """The unit of which pieces have waited for longest, as far as it has come; ``None`` where none waits."""
        coords = next(iter(self._waiting), None)
        return None if coords is None else self._take(coords)

    def _draft(self, coords: Coords) -> Draft:
        draft = self._drafts.get(coords)
        if draft is None:
            draft = self._drafts[coords] = Draft(self._target.met(coords))
        return draft

    def _take(self, coords: Coords) -> Gathered | None:
        draft = self._drafts[coords]
        self.nbytes -= draft.nbytes
        self._waiting.pop(coords, None)
        if draft.complete:
            del self._drafts[coords]
        return draft.take(coords) if draft.pieces else None
