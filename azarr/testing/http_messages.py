"""HTTP/1.1 as a proxy needs it (RFC 9112): heads and bodies as they are on the wire, byte for byte."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from azarr.testing.faults import Answer

PIECE: Final = 2**18
"""Bytes that are forwarded at once, at most."""

_START: Final = re.compile(rb"(?:HTTP/1\.(?P<minor>\d) (?P<status>\d{3})|(?P<method>[A-Z]+) (?P<path>\S+) HTTP/1\.\d)")


@dataclass(frozen=True, slots=True)
class Head:
    """The head of a request or a response: its ``raw`` bytes, and of what they say what a proxy needs."""

    raw: bytes
    method: str = field(init=False)
    path: str = field(init=False)
    status: int = field(init=False)
    headers: dict[bytes, bytes] = field(init=False)

    def __post_init__(self) -> None:
        start, *lines = self.raw.split(b"\r\n")
        found = _START.match(start)
        if found is None:
            raise ValueError(f"{start!r:.100} is not how a message of HTTP/1 begins")
        headers = {}
        for line in lines:
            name, _, value = line.partition(b":")
            headers[name.lower()] = value.strip()
        object.__setattr__(self, "method", (found["method"] or b"").decode("latin-1"))
        object.__setattr__(self, "path", (found["path"] or b"").decode("latin-1"))
        object.__setattr__(self, "status", int(found["status"] or 0))
        object.__setattr__(self, "headers", headers)

    @property
    def chunked(self) -> bool:
        """Whether the length of the body is told piece by piece."""
        return self.headers.get(b"transfer-encoding", b"").lower().endswith(b"chunked")

    @property
    def length(self) -> int | None:
        """The length of the body as the head tells it."""
        told = self.headers.get(b"content-length")
        return None if told is None else int(told)

    @property
    def expects_continue(self) -> bool:
        """Whether the client waits for a word of the server before it sends the body."""
        return self.headers.get(b"expect", b"").lower() == b"100-continue"

    @property
    def closes(self) -> bool:
        """Whether the connection ends after this message."""
        return self.headers.get(b"connection", b"").lower() == b"close"


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; ``None`` where the connection has ended in order."""
    try:
        return Head(await reader.readuntil(b"\r\n\r\n"))
    except asyncio.IncompleteReadError as error:
        if error.partial:
            raise
        return None


class Body:
    """The body of a message, read in pieces that are forwarded as they are, the framing of chunked bodies included.

    ``length`` is ``None`` where the body ends with the connection.
    """

    def __init__(self, reader: asyncio.StreamReader, length: int | None, *, chunked: bool = False) -> None:
        self._reader = reader
        self._left = length
        self._chunked = chunked
        if chunked:
            self._left = 0

    @classmethod
    def of_request(cls, head: Head, reader: asyncio.StreamReader) -> Body | None:
        """The body of a request, ``None`` where it has none."""
        return cls(reader, head.length, chunked=head.chunked) if head.chunked or head.length else None

    @classmethod
    def of_response(cls, head: Head, reader: asyncio.StreamReader, method: str) -> Body:
        """The body of the response to a request with ``method``."""
        if method == "HEAD" or head.status in {HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED}:
            return cls(reader, 0)
        return cls(reader, head.length, chunked=head.chunked)

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection tells the end of the body."""
        return self._left is None

    async def read(self) -> bytes:
        """The next piece, empty at the end; ``asyncio.IncompleteReadError`` where the connection ends before it."""
        if self._left is None:
            return await self._reader.read(PIECE)
        prefix = b""
        if self._left == 0:
            if not self._chunked:
                return b""
            prefix = await self._reader.readuntil(b"\r\n")
            size = int(prefix.partition(b";")[0], 16)
            if size == 0:
                self._chunked = False
                return prefix + await self._trailer()
            self._left = size + 2
        piece = await self._reader.read(min(self._left, PIECE))
        if not piece:
            raise asyncio.IncompleteReadError(piece, self._left)
        self._left -= len(piece)
        return prefix + piece

    async def read_all(self) -> bytes:
        """What is left of it."""
        pieces = []
        while piece := await self.read():
            pieces.append(piece)
        return b"".join(pieces)

    async def _trailer(self) -> bytes:
        lines = [await self._reader.readuntil(b"\r\n")]
        while lines[-1] != b"\r\n":
            lines.append(await self._reader.readuntil(b"\r\n"))
        return b"".join(lines)


def message(answer: Answer, request: Head, *, close: bool) -> bytes:
    """The whole response that ``answer`` stands for; ``close`` says that the connection ends with it."""
    reason = HTTPStatus(answer.status).phrase
    kind, body = "text/plain", reason
    if answer.code is not None:
        kind = "application/xml"
        body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{answer.code}</Code><Message>{reason}</Message></Error>'
    lines = [f"HTTP/1.1 {answer.status} {reason}", f"Content-Type: {kind}", f"Content-Length: {len(body)}"]
    if answer.retry_after is not None:
        lines.append(f"Retry-After: {answer.retry_after}")
    if close:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", "" if request.method == "HEAD" else body]).encode()
