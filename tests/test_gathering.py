"""Gathering: what is complete when, what is not, and what is oldest."""

from __future__ import annotations

import numpy as np
import pytest

import azarr
from azarr.gathering import Gathering
from azarr.placement import Entry, Target
from azarr.selection import Selection

DATA = np.arange(40 * 40, dtype="i4").reshape(40, 40)


@pytest.fixture(params=["plain", "sharded"])
def make(request):
    """Makes the target and the gathering for a view of an array with units of 20 × 20 elements."""
    options = {"chunks": (20, 20)} if request.param == "plain" else {"chunks": (5, 5), "shards": (20, 20)}

    async def make(key=..., shape=(40, 40)):
        array = await azarr.create_array(azarr.MemoryStore(), shape=shape, dtype="i4", **options)
        target = Target(array.source, Selection.whole(shape).select(key), array.metadata)
        return target, Gathering(target)

    return make


def add(target, gathering, rows, columns, skip=False):
    """Add a region; the units that are complete with it, and the entry."""
    place = target.place(((slice(*rows), slice(*columns)), None))
    pieces = target.pieces(place, DATA[slice(*rows), slice(*columns)])
    entry, found = Entry((0, 0), 0, 0, len(pieces)), []
    for piece in pieces:
        touched = target.touched(piece, place.origin)
        found.append(gathering.skip(piece.unit.coords, touched) if skip else gathering.add(piece, entry, touched))
    return [each for each in found if each is not None], entry


async def test_what_is_all_of_a_unit_waits_for_nothing(make):
    target, gathering = await make()
    (gathered,), entry = add(target, gathering, (20, 40), (0, 20))
    assert (gathered.unit.coords, gathered.unit.covers, gathered.unit.full) == ((1, 0), True, True)
    assert gathered.entries == [entry]
    assert gathering.nbytes == 0
    assert gathering.oldest() is None


async def test_a_unit_is_complete_with_its_last_element(make):
    target, gathering = await make()
    assert add(target, gathering, (0, 20), (0, 19))[0] == []
    assert gathering.nbytes == 20 * 19 * 4
    assert add(target, gathering, (0, 19), (10, 20))[0] == []
    (gathered,), _ = add(target, gathering, (19, 20), (19, 20))
    assert (gathered.unit.covers, gathered.unit.full, len(gathered.unit.pieces)) == (True, True, 3)
    assert gathering.nbytes == 0
    assert gathering.oldest() is None


async def test_what_hangs_over_the_edge_is_not_full(make):
    target, gathering = await make(shape=(30, 40))
    assert add(target, gathering, (20, 30), (0, 3))[0] == []
    (gathered,), _ = add(target, gathering, (20, 30), (3, 20))
    assert (gathered.unit.covers, gathered.unit.full) == (True, False)
    (gathered,), _ = add(target, gathering, (20, 30), (20, 40))
    assert (gathered.unit.covers, gathered.unit.full) == (True, False)


async def test_a_region_may_complete_several_units(make):
    target, gathering = await make()
    assert add(target, gathering, (0, 1), (0, 40))[0] == []
    complete, entry = add(target, gathering, (1, 30), (0, 40))
    assert sorted(each.unit.coords for each in complete) == [(0, 0), (0, 1)]
    assert [entry in each.entries for each in complete] == [True, True]
    assert gathering.nbytes == 10 * 40 * 4


async def test_all_of_a_view_is_complete_but_covers_no_unit(make):
    target, gathering = await make((slice(10, 30), slice(None, None, 2)))
    assert add(target, gathering, (0, 9), (0, 20))[0] == []
    complete, _ = add(target, gathering, (9, 20), (0, 20))
    assert [each.unit.covers for each in complete] == [False] * 4
    assert gathering.oldest() is None


async def test_the_oldest_is_the_one_whose_first_piece_has_waited_longest(make):
    target, gathering = await make()
    add(target, gathering, (0, 1), (20, 21))
    add(target, gathering, (20, 21), (0, 1))
    add(target, gathering, (0, 2), (20, 21))
    oldest = gathering.oldest()
    assert (oldest.unit.coords, oldest.unit.covers, oldest.unit.full, len(oldest.unit.pieces)) == ((0, 1), False, False, 2)
    add(target, gathering, (2, 3), (20, 21))
    assert gathering.oldest().unit.coords == (1, 0)
    assert gathering.oldest().unit.coords == (0, 1)
    assert gathering.oldest() is None
    assert gathering.nbytes == 0


async def test_the_rest_of_what_was_given_out_is_complete_by_itself_and_covers_nothing(make):
    target, gathering = await make()
    add(target, gathering, (0, 10), (0, 20))
    gathering.oldest()
    (gathered,), _ = add(target, gathering, (10, 20), (0, 20))
    assert (gathered.unit.covers, gathered.unit.full, len(gathered.unit.pieces)) == (False, False, 1)
    add(target, gathering, (0, 10), (0, 20))
    assert gathering.oldest().unit.coords == (0, 0)  # and begins anew


async def test_what_is_skipped_counts_as_come_but_not_as_given(make):
    target, gathering = await make()
    assert add(target, gathering, (0, 10), (0, 20), skip=True)[0] == []
    assert gathering.oldest() is None
    (gathered,), _ = add(target, gathering, (10, 20), (0, 20))
    assert (gathered.unit.covers, gathered.unit.full) == (False, False)
    assert add(target, gathering, (0, 20), (20, 40), skip=True)[0] == []
    add(target, gathering, (20, 30), (20, 40))
    (gathered,), _ = add(target, gathering, (30, 40), (20, 40), skip=True)
    assert (gathered.unit.coords, len(gathered.unit.pieces)) == ((1, 1), 1)
