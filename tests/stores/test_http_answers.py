"""Answers of HTTP, byte by byte: what is one, what is none, and whether a connection may be used again afterwards."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.errors import StoreError, TransientStoreError
from azarr.stores import http_answers
from azarr.stores.http_answers import EMPTY_NBYTES, HEAD_NBYTES, LITTLE_NBYTES, Arriving, Unfit

OK = b"HTTP/1.1 200 OK\r\n"


def receive(data, *, cuts=(), accept=lambda head: None, scratch=HEAD_NBYTES):
    """The answer in ``data``, which arrives in pieces that end at ``cuts``; ``None`` where it is not complete."""
    arriving = Arriving(bytearray(scratch), accept)
    answer = None
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    start = 0
    for end in ends:
        while start < end and answer is None:
            piece = data[start : min(end, start + len(arriving.room))]
            arriving.room[: len(piece)] = piece
            answer = arriving.received(len(piece))
            start += len(piece)
    return answer, arriving, len(data) - start


def chunked(*pieces, end=b"0\r\n\r\n"):
    return b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + end


CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


def sized(nbytes, more=b""):
    return OK + b"Content-Length: %d\r\n%s\r\n" % (nbytes, more)


@pytest.mark.parametrize(
    ("data", "status", "body"),
    [
        (sized(5) + b"hello", 200, b"hello"),
        (sized(0), 200, b""),
        (sized(100_000) + b"x" * 100_000, 200, b"x" * 100_000),
        (OK + b"content-length: 5 \r\n\r\nhello", 200, b"hello"),
        (b"HTTP/1.1 206\r\nContent-Length: 2\r\n\r\nab", 206, b"ab"),
        (CHUNKED + chunked(b"hello", b" ", b"you" * 10_000), 200, b"hello " + b"you" * 10_000),
        (CHUNKED + chunked(), 200, b""),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nwhy", 404, b"why"),
        (b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: Chunked\r\n\r\n" + chunked(b"why"), 404, b"why"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, b""),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + sized(2) + b"ab", 200, b"ab"),
        (sized(2, b"Connection: Upgrade, Keep-Alive\r\nUpgrade: h2c\r\n") + b"ab", 200, b"ab"),
    ],
    ids=range(13),
)
@given(cuts=st.lists(st.integers(1, 400), max_size=8))
def test_answers_may_come_in_any_pieces(data, status, body, cuts):
    answer, arriving, left = receive(data, cuts=cuts)
    assert (answer.status, bytes(answer.body), left) == (status, body, 0)
    if b"chunked" not in data.lower():  # of those pieces tell less
        assert not arriving.last


@pytest.mark.parametrize("data", [CHUNKED + chunked(b"hello"), CHUNKED + chunked()])
def test_connections_are_good_for_another_answer_after_chunks(data):
    _, arriving, _ = receive(data)
    assert not arriving.last


def test_what_a_head_says():
    answer, _, _ = receive(b'HTTP/1.1 404 Away\r\nETag: "1"\r\nX-Odd: \xff\r\nX-Odd: 2\r\nContent-Length: 0\r\n\r\n')
    assert answer.reason == "Away"
    assert answer.headers["etag"] == '"1"'
    assert answer.headers.getall("x-odd") == ["\udcff", "2"]


def test_trailers_are_no_headers():
    answer, arriving, _ = receive(CHUNKED + chunked(b"a", end=b"0\r\nETag: x\r\n\r\n"))
    assert bytes(answer.body) == b"a"
    assert "etag" not in answer.headers
    assert arriving.last


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n\r\n",
        b"\r\n\r\n" + sized(0),
        b"220 smtp.example.org ESMTP\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 20 OK\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/9.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        OK + b"Content-Length: +5\r\n\r\n",
        OK + b"Content-Length: -5\r\n\r\n",
        OK + b"Content-Length: 0x5\r\n\r\n",
        OK + b"Content-Length: 5, 5\r\n\r\n",
        OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        OK + b"Content-Length: \r\n\r\n",
        OK + b"Content-Length: 99999999999999999999999\r\n\r\n",
        OK + b"Content-Length : 5\r\n\r\nhello",
        OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        OK + b"X: a\r\n b\r\nContent-Length: 5\r\n\r\n",
        OK + b"X: a\nContent-Length: 5\r\n\r\n",
        OK + b"X: a\rb\r\nContent-Length: 5\r\n\r\n",
        OK + b"X: a\0b\r\nContent-Length: 5\r\n\r\n",
        OK + b"X\x01: a\r\nContent-Length: 5\r\n\r\n",
        OK + b"no colon\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 5\n\nhello\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-1\r\n",
        CHUNKED + b"5\r\nhelloX\r\n",
        CHUNKED + b"5;a=\0\r\n",
        CHUNKED + b"fffffffffffffffff\r\n",
    ],
)
def test_what_is_no_http(data):
    with pytest.raises(TransientStoreError, match="no HTTP"):
        receive(data)


@pytest.mark.parametrize(
    "data",
    [
        OK + b"\r\nit ends with the connection",
        b"HTTP/1.1 404 Not Found\r\n\r\n",
        OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
        OK + b"Transfer-Encoding: gzip\r\n\r\n",
        OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        sized(5, b"X: " + b"x" * HEAD_NBYTES + b"\r\n") + b"hello",
        b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_NBYTES,
    ],
    ids=range(7),
)
def test_what_is_left_to_aiohttp(data):
    with pytest.raises(Unfit):
        receive(data)


@pytest.mark.parametrize(
    "data",
    [
        sized(5, b"Connection: close\r\n") + b"hello",
        sized(5, b"Connection: Keep-Alive\r\nConnection: X, Close\r\n") + b"hello",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello",
        sized(5) + b"hello!",
        sized(5) + b"hello" + sized(5),
        CHUNKED + chunked(b"hello") + b"!",
        CHUNKED + chunked(b"hello") + b"\r\n",
        CHUNKED + chunked(b"hello") + b"0\r\n\r\n",
        CHUNKED + chunked(b"hello") + CHUNKED + chunked(b"hello"),
        CHUNKED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n") + chunked(b"hello") + b"0\r\n\r\n",
    ],
    ids=range(11),
)
def test_when_a_connection_is_not_used_again(data):
    answer, arriving, _ = receive(data)
    assert bytes(answer.body) == b"hello"
    assert arriving.last


def test_what_comes_after_a_large_body():
    for surplus in (b"", b"x", b"x" * 100):
        answer, arriving, left = receive(sized(100_000) + bytes(100_000) + surplus)
        assert len(answer.body) == 100_000
        assert arriving.last == bool(surplus)
        assert left == max(0, len(surplus) - 1)


def test_an_answer_that_is_not_complete():
    for data in (OK[:5], sized(5), sized(5) + b"hell", CHUNKED, CHUNKED + b"5\r\nhello\r\n", CHUNKED + chunked(b"hello")[:-1]):
        assert receive(data)[0] is None


def test_more_than_was_asked_for():
    for data in (sized(5) + b"hello", CHUNKED + chunked(b"he", b"llo")):
        assert bytes(receive(data, accept=lambda head: 5)[0].body) == b"hello"
        with pytest.raises(StoreError, match="more than the 4 bytes") as failure:
            receive(data, accept=lambda head: 4)
        assert type(failure.value) is StoreError


def test_heads_are_shown_before_bodies():
    heads = []
    receive(sized(5), accept=heads.append)
    receive(CHUNKED, accept=heads.append)
    receive(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", accept=heads.append)
    assert [head.content_length for head in heads] == [5, None]
    for data in (sized(5), CHUNKED):
        with pytest.raises(ZeroDivisionError):
            receive(data, accept=lambda head: 1 // 0)


def test_only_the_beginning_of_a_long_error_is_received():
    body = b"x" * (LITTLE_NBYTES + 1)
    for length, rest in ((b"Content-Length: %d" % 10**12, body), (b"Transfer-Encoding: chunked", b"fffffff\r\n" + body)):
        answer, arriving, _ = receive(b"HTTP/1.1 500 Failed\r\n" + length + b"\r\n\r\n" + rest)
        assert bytes(answer.body) == body[:-1]
        assert arriving.last


def test_memory_grows_with_what_arrives(monkeypatch):
    monkeypatch.setattr(http_answers, "FIRST_NBYTES", 1000)
    arriving = Arriving(bytearray(HEAD_NBYTES), lambda head: None)
    data = sized(10**15)
    arriving.room[: len(data)] = data
    assert arriving.received(len(data)) is None
    assert len(arriving.room) <= 1001
    value = bytes(range(256)) * 500
    answer, arriving, _ = receive(sized(len(value)) + value, scratch=100)
    assert answer.body == value
    assert not arriving.last


@pytest.mark.parametrize("rest", [b"5;" + b"x" * 2 * EMPTY_NBYTES, b"0\r\n" + b"X: y\r\n" * EMPTY_NBYTES], ids=["extension", "trailers"])
def test_chunks_of_hardly_any_bytes(rest):
    with pytest.raises(TransientStoreError, match="no HTTP"):
        receive(CHUNKED + rest)


def test_the_memory_of_a_value_is_freed_with_it():
    answer, arriving, _ = receive(sized(100_000) + bytes(100_000))
    memory = answer.body.obj
    del answer, arriving
    assert memory.base is None
    assert sys.getrefcount(memory) == 2
