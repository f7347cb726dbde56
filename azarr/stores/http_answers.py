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

    ``last`` tells of a complete one whether its connection is good for no other.
    """

    __slots__ = ("_accept", "_begin", "_body", "_filled", "_head", "_scratch", "last", "room")

    _head: Head

    def __init__(self, scratch: bytearray, accept: Accept) -> None:
        self._scratch, self._accept = scratch, accept
        self._begin = self._filled = 0
        self._body: Sized | Chunked | None = None
        self.last = True
        self.room = memoryview(scratch)

    def received(self, nbytes: int) -> Answer | None:
        """Take the bytes that have come into ``room``; the answer once it is complete.

        ``TransientStoreError`` where it is no HTTP, ``Unfit`` where it is not for this, and whatever ``accept`` raises.
        """
        body = self._body
        try:
            if body is not None:
                body.received(nbytes)
            else:
                body = self._body = self._begun(nbytes)
        except (HttpParserError, HttpParserUpgrade) as error:
            raise TransientStoreError("the answer is no HTTP") from error
        if body is None:
            self.room = memoryview(self._scratch)[self._filled :]
        elif body.content is None:
            self.room = body.room
        else:
            self.last = self.last or not body.exact
            return Answer(self._head.status, self._head.reason, self._head.headers, body.content)
        return None

    def _begun(self, nbytes: int) -> Sized | Chunked | None:
        """The body, once the head is complete."""
        scratch, searched = self._scratch, max(self._begin, self._filled - 3)
        self._filled += nbytes
        while (blank := scratch.find(b"\r\n\r\n", searched, self._filled)) >= 0:
            end = blank + 4
            parsed = Parsed()
            parser = HttpResponseParser(parsed)
            parser.feed_data(memoryview(scratch)[self._begin : end])
            if not parsed.headed:
                raise HttpParserError("an empty line before the head")
            if parser.get_status_code() >= 200:
                self.last = parser.get_http_version() != "1.1" or "close" in ",".join(parsed.headers.getall("Connection", ())).lower()
                return self._body_after(parser, parsed, end)
            self._begin = searched = end  # that was informational
        if self._filled == len(scratch):
            raise Unfit
        return None

    def _body_after(self, parser: HttpResponseParser, parsed: Parsed, begin: int) -> Sized | Chunked:
        status, headers = parser.get_status_code(), parsed.headers
        nbytes, chunked = framing(status, headers)
        if nbytes is None and not chunked:
            raise Unfit  # it ends with the connection
        self._head = Head(status, parsed.reason.decode("latin-1"), headers, nbytes)
        is_value = status in VALUES
        most = self._accept(self._head) if is_value else LITTLE_NBYTES
        first = memoryview(self._scratch)[begin : self._filled]
        if nbytes is None:
            return Chunked(parser, parsed, memoryview(self._scratch), first, most, refused=is_value)
        if most is not None and nbytes > most:
            if is_value:
                raise too_long(most)
            nbytes, self.last = most, True
        return Sized(nbytes, first)


class Sized:
    """A body of ``nbytes`` bytes, which may have come with the head, ``first``; ``content`` is ``None`` before it is complete.

    It is ``exact`` where nothing has come after it.
    """

    __slots__ = ("_filled", "_memory", "_nbytes", "content", "exact", "room")

    def __init__(self, nbytes: int, first: memoryview) -> None:
        self._nbytes, self._filled = nbytes, len(first)
        self.exact = self._filled <= nbytes
        self.content: Buffer | None = None
        if self._filled >= nbytes:
            self.content = bytes(first[:nbytes])
            return
        self._memory = self._fresh(FIRST_NBYTES)
        self._memory[: self._filled] = first
        self.room = self._memory[self._filled :]

    def received(self, nbytes: int) -> None:
        self._filled += nbytes
        if self._filled >= self._nbytes:
            self.exact = self._filled == self._nbytes
            self.content = self._memory[: self._nbytes]
            return
        if self._filled == len(self._memory):
            larger = self._fresh(2 * self._filled)
            larger[: self._filled] = self._memory
            self._memory = larger
        self.room = self._memory[self._filled :]

    def _fresh(self, nbytes: int) -> memoryview:
        """Memory for ``nbytes`` of the body, or for all of it, and for a byte more: it shows whether the server sends too much."""
        return memoryview(np.empty(min(self._nbytes, nbytes) + 1, np.uint8))  # bytearray would fill it with zeros


class Chunked:
    """As ``Sized``, of a body in chunks that has ``most`` bytes at most; a longer one is cut off, or ``refused``."""

    __slots__ = ("_most", "_parsed", "_parser", "_refused", "_scratch", "content", "exact", "room")

    def __init__(
        self, parser: HttpResponseParser, parsed: Parsed, scratch: memoryview, first: memoryview, most: int | None, *, refused: bool
    ) -> None:
        self._parser, self._parsed, self._most, self._refused = parser, parsed, most, refused
        self.content: Buffer | None = None
        self.exact = True
        self.room = scratch
        self._take(first)

    def received(self, nbytes: int) -> None:
        self._take(self.room[:nbytes])

    def _take(self, received: memoryview) -> None:
        parsed, most = self._parsed, self._most
        parsed.empty += len(received)
        ends = bytes(received[-5:]) == b"0\r\n\r\n"
        try:
            self._parser.feed_data(received)
        except HttpParserError:
            if not parsed.ended:
                raise
        if most is not None and len(parsed.body) > most:
            if self._refused:
                raise too_long(most)
            self.content, self.exact = parsed.body[:most], False
        elif parsed.ended:
            self.content, self.exact = parsed.body, ends and parsed.begun == 1
        elif parsed.empty > EMPTY_NBYTES:
            raise HttpParserError("a chunked body with hardly any bytes")


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
