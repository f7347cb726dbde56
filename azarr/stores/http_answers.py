"""An answer of HTTP/1.1 while it arrives: its head is parsed by llhttp, its body received where the value is to be.

Nothing here waits: who receives puts bytes into ``room``, and says how many.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, TypeAlias

import numpy as np

from azarr.errors import TransientStoreError
from azarr.extras import Extra
from azarr.stores.http_exchange import too_long
from azarr.types import Buffer

try:
    from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
    from multidict import CIMultiDict
except ImportError as error:
    raise Extra("httptools", "http").missing("stores that speak HTTP", error) from error

VALUES: Final = frozenset({200, 206})
"""With these statuses a body is a value, or a part of one."""

BODILESS: Final = frozenset({204, 304})

HEAD_NBYTES: Final = 16 * 2**10
"""What a head may have, with those of informational answers before it; a longer one is left to aiohttp."""

LITTLE_NBYTES: Final = 64 * 2**10
"""What is received of a body that is no value."""

EMPTY_NBYTES: Final = 64 * 2**10
"""What of a chunked body may be sizes and their like between two of its bytes."""

FIRST_NBYTES: Final = 16 * 2**20
"""The memory that a body gets on the word of the server; from there on it doubles as bytes arrive."""


class Head(NamedTuple):
    """What comes before a body of ``content_length`` bytes; ``None`` where nobody knows yet."""

    status: int
    reason: str
    headers: CIMultiDict[str]
    content_length: int | None


class Answer(NamedTuple):
    """The ``body`` of a value, whose status is 200 or 206, is complete; any other may be the beginning only."""

    status: int
    reason: str
    headers: CIMultiDict[str]
    body: Buffer


Accept: TypeAlias = Callable[[Head], int | None]
"""How many bytes the value may have that comes after this head, ``None`` for any number; raises where it is not wanted."""


class Unfit(Exception):  # noqa: N818 - nothing is wrong
    """An answer of a kind that is left to aiohttp."""


class Arriving:
    """One answer. It begins in ``scratch``, of ``HEAD_NBYTES``; a value goes on in memory of its own, if ``accept`` wants it.

    ``begun`` tells whether a byte has come; ``last``, of a complete one, whether its connection is good for no other.
    """

    __slots__ = (
        "_accept",
        "_begin",
        "_body",
        "_filled",
        "_head",
        "_most",
        "_parsed",
        "_parser",
        "_scratch",
        "_take",
        "_wanted",
        "begun",
        "last",
        "room",
    )

    _parsed: Parsed
    _parser: HttpResponseParser
    _head: Head
    _most: int | None
    _wanted: int
    _body: memoryview

    def __init__(self, scratch: bytearray, accept: Accept) -> None:
        self._scratch, self._accept = scratch, accept
        self._begin = self._filled = 0
        # a function rather than a method, which would make a circle: the memory of values is freed as soon as they are
        self._take: Callable[[Arriving, int], Answer | None] = Arriving._take_head
        self.begun, self.last = False, True
        self.room = memoryview(scratch)

    def received(self, nbytes: int) -> Answer | None:
        """Take the bytes that have come into ``room``; the answer once it is complete.

        ``TransientStoreError`` where it is no HTTP, ``Unfit`` where it is not for this, and whatever ``accept`` raises.
        """
        self.begun = True
        try:
            return self._take(self, nbytes)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise TransientStoreError("the answer is no HTTP") from error

    def _take_head(self, nbytes: int) -> Answer | None:
        scratch, searched = self._scratch, max(self._begin, self._filled - 3)
        self._filled += nbytes
        while (blank := scratch.find(b"\r\n\r\n", searched, self._filled)) >= 0:
            end = blank + 4
            self._parsed = Parsed()
            self._parser = HttpResponseParser(self._parsed)
            self._parser.feed_data(memoryview(scratch)[self._begin : end])
            if not self._parsed.is_head:
                raise HttpParserError("an empty line before the head, or in it")
            if self._parser.get_status_code() >= 200:
                return self._begin_body(end)
            self._begin = searched = end  # that was informational
        if self._filled == len(scratch):
            raise Unfit
        self.room = memoryview(scratch)[self._filled :]
        return None

    def _begin_body(self, begin: int) -> Answer | None:
        status, headers = self._parser.get_status_code(), self._parsed.headers
        nbytes, chunked = framing(status, headers)
        is_value = status in VALUES
        if nbytes is None and not chunked:
            raise Unfit  # it ends with the connection
        self.last = self._parser.get_http_version() != "1.1" or "close" in ",".join(headers.getall("Connection", ())).lower()
        self._head = Head(status, self._parsed.reason.decode("latin-1"), headers, nbytes)
        self._most = self._accept(self._head) if is_value else LITTLE_NBYTES
        if nbytes is None:
            self._take = Arriving._take_chunks
            return self._take_pieces(memoryview(self._scratch)[begin : self._filled])
        if self._most is not None and nbytes > self._most:
            if is_value:
                raise too_long(self._most)
            nbytes, self.last = self._most, True
        self._wanted = nbytes
        return self._take_first(memoryview(self._scratch)[begin : self._filled])

    def _take_first(self, first: memoryview) -> Answer | None:
        """Take what has come of the body together with the head."""
        if len(first) >= self._wanted:
            self.last = self.last or len(first) > self._wanted
            return self._answer(bytes(first[: self._wanted]))
        self._filled = len(first)
        self._body = self._memory(FIRST_NBYTES)
        self._body[: self._filled] = first
        self._take = Arriving._take_body
        self.room = self._body[self._filled :]
        return None

    def _take_body(self, nbytes: int) -> Answer | None:
        self._filled += nbytes
        if self._filled >= self._wanted:
            self.last = self.last or self._filled > self._wanted
            return self._answer(self._body[: self._wanted])
        if self._filled == len(self._body):
            larger = self._memory(2 * self._filled)
            larger[: self._filled] = self._body
            self._body = larger
        self.room = self._body[self._filled :]
        return None

    def _memory(self, nbytes: int) -> memoryview:
        """For ``nbytes`` of the body, or for all of it and a byte more, which shows whether the server sends too much."""
        return memoryview(np.empty(min(self._wanted, nbytes) + 1, np.uint8))  # bytearray would fill it with zeros

    def _take_chunks(self, nbytes: int) -> Answer | None:
        return self._take_pieces(memoryview(self._scratch)[:nbytes])

    def _take_pieces(self, received: memoryview) -> Answer | None:
        parsed, most = self._parsed, self._most
        parsed.empty += len(received)
        try:
            self._parser.feed_data(received)
        except HttpParserError:
            if not parsed.ended:
                raise
            self.last = True
        if most is not None and len(parsed.body) > most:
            if self._head.status in VALUES:
                raise too_long(most)
            self.last = True
            return self._answer(parsed.body[:most])
        if parsed.ended:
            self.last = self.last or parsed.begun > 1 or bytes(received[-5:]) != b"0\r\n\r\n"
            return self._answer(parsed.body)
        if parsed.empty > EMPTY_NBYTES:
            raise HttpParserError("a chunked body with hardly any bytes")
        self.room = memoryview(self._scratch)
        return None

    def _answer(self, body: Buffer) -> Answer:
        head = self._head
        return Answer(head.status, head.reason, head.headers, body)


class Parsed:
    """What llhttp has made of an answer so far; of what comes after it only that it has ``begun``."""

    __slots__ = ("begun", "body", "empty", "ended", "headed", "headers", "reason")

    def __init__(self) -> None:
        self.begun, self.headed, self.ended = 0, False, False
        self.reason = b""
        self.headers: CIMultiDict[str] = CIMultiDict()
        self.body = bytearray()
        self.empty = 0
        """How many bytes have been received since there was one of the body among them."""

    @property
    def is_head(self) -> bool:
        """Whether it is a head and nothing else."""
        return self.headed and self.begun == 1 and not self.body

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_status(self, reason: bytes) -> None:
        if not self.headed:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.headed:
            self.headers.add(name.decode("ascii"), value.decode("utf-8", "surrogateescape"))

    def on_headers_complete(self) -> None:
        self.headed = True

    def on_body(self, piece: bytes) -> None:
        if not self.ended:
            self.body += piece
            self.empty = 0

    def on_message_complete(self) -> None:
        self.ended = True


def framing(status: int, headers: CIMultiDict[str]) -> tuple[int | None, bool]:
    """How many bytes of a body come, if that is known; and whether they come in chunks. What contradicts itself llhttp has refused."""
    if status in BODILESS:
        return 0, False
    if "Transfer-Encoding" in headers:
        return None, [each.strip().lower() for each in headers.getall("Transfer-Encoding")] == ["chunked"]
    length = headers.get("Content-Length")
    return None if length is None else int(length), False
