"""Parts of values over HTTP."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.errors import TransientStoreError
from azarr.stores.http_ranges import IGNORED_NBYTES, most_of, part_of, range_of
from azarr.types import ByteRange, Suffix

VALUE = bytes(range(100))

REQUESTS = st.one_of(
    st.builds(lambda a, b: ByteRange(min(a, b), max(a, b)), st.integers(0, 150), st.integers(0, 150)),
    st.builds(ByteRange, st.integers(0, 150)),
    st.builds(Suffix, st.integers(0, 150)),
)


def expected(request):
    if isinstance(request, Suffix):
        return VALUE[max(0, len(VALUE) - request.nbytes) :]
    return VALUE[request.start : request.stop]


@pytest.mark.parametrize(
    ("request_", "header"),
    [
        (ByteRange(0, 10), "bytes=0-9"),
        (ByteRange(5), "bytes=5-"),
        (Suffix(7), "bytes=-7"),
        (ByteRange(5, 5), None),
        (Suffix(0), None),
    ],
)
def test_how_a_part_is_asked_for(request_, header):
    assert range_of(request_) == header


@given(REQUESTS)
def test_a_part_is_taken_from_answers_of_both_kinds(request_):
    part = expected(request_)
    assert bytes(part_of(VALUE, request_, None, partial=False)) == part
    if part:
        start = VALUE.index(part)
        for total in ("100", "*"):
            said = f"bytes {start}-{start + len(part) - 1}/{total}"
            if total == "100":
                assert part_of(part, request_, said, partial=True) == part
    assert part_of(VALUE, None, None, partial=False) == VALUE


@pytest.mark.parametrize(
    ("request_", "said", "nbytes"),
    [
        (ByteRange(10, 20), "bytes 0-9/100", 10),
        (ByteRange(10, 20), "bytes 10-18/100", 9),
        (ByteRange(10, 20), "bytes 10-20/100", 11),
        (ByteRange(10, 20), "bytes 10-19/100", 9),
        (ByteRange(10, 20), "bytes 10-19/15", 10),
        (ByteRange(10, 20), "bytes 10-14/*", 5),
        (ByteRange(10), "bytes 10-98/100", 89),
        (ByteRange(10), "bytes 10-99/*", 90),
        (ByteRange(10, 20), "bytes 19-10/100", 10),
        (ByteRange(10, 20), "items 10-19/100", 10),
        (ByteRange(10, 20), "bytes 10-19", 10),
        (ByteRange(10, 20), f"bytes 10-{'9' * 5000}/*", 10),
        (ByteRange(10, 20), "", 10),
        (ByteRange(10, 20), None, 10),
        (Suffix(10), "bytes 0-9/100", 10),
        (Suffix(10), "bytes 90-98/99", 9),
        (Suffix(10), "bytes 95-99/*", 5),
    ],
)
def test_another_part_than_was_asked_for(request_, said, nbytes):
    with pytest.raises(TransientStoreError, match="was asked for"):
        part_of(bytes(nbytes), request_, said, partial=True)


def test_how_much_an_answer_may_have():
    assert most_of(None, partial=False) is None
    assert most_of(ByteRange(10, 20), partial=True) == 10
    assert most_of(Suffix(10), partial=True) == 10
    assert most_of(ByteRange(10), partial=True) is None
    for request in (ByteRange(10, 20), ByteRange(10), Suffix(3)):
        assert most_of(request, partial=False) == IGNORED_NBYTES
