from __future__ import annotations

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.chunk_lengths import ChunkLengths, parse_chunk_lengths
from azarr.errors import MetadataError

many = st.lists(st.integers(1, 5), min_size=1, max_size=12)


@given(many)
def test_a_sequence_of_lengths(lengths):
    kept = ChunkLengths((length, 1) for length in lengths)
    assert list(kept) == lengths == [kept[number] for number in range(len(kept))]
    assert kept == lengths
    assert kept == tuple(lengths)
    assert kept != [*lengths, 1]
    assert kept[-1] == lengths[-1]
    assert kept[1:3] == tuple(lengths[1:3])
    assert hash(kept) == hash(pickle.loads(pickle.dumps(kept)))
    assert pickle.loads(pickle.dumps(kept)) == kept
    assert (kept.total, kept.longest) == (sum(lengths), max(lengths))
    assert parse_chunk_lengths(kept.to_json()) == kept


@given(many)
def test_every_element_is_in_its_chunk(lengths):
    kept = ChunkLengths((length, 1) for length in lengths)
    starts = [0, *itertools.accumulate(lengths)]
    for place, (start, end) in enumerate(itertools.pairwise(starts)):
        assert kept.start(place) == start
        assert {kept.place(position) for position in range(start, end)} == {place}
        assert kept.places(np.arange(start, end)).tolist() == [place] * (end - start)
        assert {kept.count_within(length) for length in range(start + 1, end + 1)} == {place + 1}
    assert kept.count_within(0) == 0


def test_chunks_as_far_out_as_numpy_counts():
    kept = ChunkLengths([(5, 1), (2**62, 1), (1, 2**62 - 6)])
    positions = [0, 4, 5, 2**62 + 4, 2**62 + 5, 2**63 - 2]
    assert kept.places(np.array(positions)).tolist() == [kept.place(position) for position in positions] == [0, 0, 1, 1, 2, 2**62 - 5]
    with pytest.raises(MetadataError, match=r"less than 2\^63 long in all"):
        ChunkLengths([(5, 1), (2**62, 1), (1, 2**62 - 4)])


def test_equal_chunks_are_one_run_however_many():
    kept = ChunkLengths([(3, 10**15), (1, 2), (1, 3)])
    assert tuple(kept.runs()) == ((3, 10**15), (1, 5))
    assert len(kept) == 10**15 + 5
    assert kept.place(3 * 10**15 + 4) == 10**15 + 4
    assert repr(kept) == "[1000000000000000×3, 5×1]"
    assert repr(ChunkLengths((n, 1) for n in range(1, 20))).endswith("8, …]")


@pytest.mark.parametrize("index", [3, -4])
def test_chunks_that_there_are_not(index):
    with pytest.raises(IndexError, match="there are 3"):
        ChunkLengths([(2, 3)])[index]


@given(many, st.data())
def test_stretches_cover_what_they_are_asked_for(lengths, data):
    kept = ChunkLengths((length, 1) for length in lengths)
    low = data.draw(st.integers(0, kept.total - 1))
    high = data.draw(st.integers(low + 1, kept.total))
    firsts, starts, chunks = kept.stretches(low, high)
    assert starts[0] <= low < starts[1]
    assert starts[-2] < high <= starts[-1]
    assert len(firsts) == len(chunks) == len(starts) - 1
    assert [kept[first] for first in firsts] == chunks.tolist()
    assert [kept.start(first) for first in firsts] == starts[:-1].tolist()
    assert (chunks[1:] != chunks[:-1]).all()


@pytest.mark.parametrize(("document", "expected"), [(4, 4), ([1, 2, 3], [1, 2, 3]), ([[4, 2]], [4, 4]), ([[1, 3], 3], [1, 1, 1, 3])])
def test_documents(document, expected):
    assert parse_chunk_lengths(document) == expected


@pytest.mark.parametrize(
    "document", [0, -1, 2**63, 1.5, True, None, "4", [], [0], [[4]], [[4, 2, 1]], [[4, 0]], [[0, 4]], [["4", 2]], [None], {}]
)
def test_wrong_documents_are_refused(document):
    with pytest.raises(MetadataError, match=r"chunk"):
        parse_chunk_lengths(document)
