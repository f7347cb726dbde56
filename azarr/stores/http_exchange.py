"""What stores that speak HTTP have in common: sessions, ranges, bodies that are whole, and what statuses and failures mean."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple, Protocol

from azarr.errors import StoreError, ThrottledError, TransientStoreError
from azarr.extras import Extra
from azarr.stores.base import Request
from azarr.stores.traffic import Attempt
from azarr.types import Buffer, ByteRange, Suffix

try:
    import aiohttp
except ImportError as error:
    raise Extra("aiohttp", "http").missing("stores that speak HTTP", error) from error

CONNECT_SECONDS: Final = 10.0
"""Seconds for a connection to be made: less than an attempt has, so that another address is tried in time."""

DRAINED_NBYTES: Final = 64 * 2**10
"""What is read of a body that nobody wants, so that its connection can be used again; a larger one is closed instead."""

LARGE_NBYTES: Final = 2**20
"""What is sent at once at most."""

BUFFER_NBYTES: Final = 4 * 2**20
"""What a connection receives before somebody has to take it: most values as a whole, so that who reads them is woken once."""

IGNORED_RANGE_NBYTES: Final = 64 * 2**20
"""What is read in vain at most where a server ignores ranges and sends whole values."""

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_UNSATISFIED: Final = re.compile(r"bytes \*/(\d+)")


def open_session(concurrency: int, *, trust_env: bool = False, resends: bool = True) -> aiohttp.ClientSession:
    """A session for ``concurrency`` requests at once, which keeps no cookies and decodes no bodies; to be used with ``async with``.

    With ``resends`` aiohttp itself sends a request once more where a connection that was idle turns out to be broken: fine for reading.
    """
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        # values are wanted as they are stored: ranges are of what is stored, too
        headers={"Accept-Encoding": "identity"},
        trust_env=trust_env,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
        read_bufsize=BUFFER_NBYTES,
    )
    session._retry_connection = resends  # noqa: SLF001 - there is no public way, and it resends PUT and DELETE as well
    return session


def range_headers(request: Request) -> dict[str, str]:
    """The headers that ask for the part; ``is_nothing`` parts cannot be asked for."""
    if request is None:
        return {}
    if isinstance(request, Suffix):
        return {"Range": f"bytes=-{request.nbytes}"}
    return {"Range": f"bytes={request.start}-{'' if request.stop is None else request.stop - 1}"}


def is_nothing(request: Request) -> bool:
    """Whether the part has no bytes, which HTTP cannot say."""
    return request.nbytes == 0 if isinstance(request, Suffix) else request is not None and request.start == request.stop


class Headed(Protocol):
    """What a response says before its body."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def content_length(self) -> int | None: ...


class Wanted(NamedTuple):
    """What an ``attempt`` asks for, and what a response with the status 200 or 206 has to be to be that.

    With ``stored_encoded`` a ``Content-Encoding`` says how the value is stored, and not how it is sent.
    """

    request: Request
    attempt: Attempt
    stored_encoded: bool = False

    def is_ignored(self, response: Headed) -> bool:
        """Whether the server has ignored the range, and sends the whole value."""
        return self.request is not None and response.status == 200

    def expect_stored(self, response: Headed) -> None:
        """Raise ``StoreError`` where the body is not what is stored."""
        if not self.stored_encoded and response.headers.get("Content-Encoding", "identity") != "identity":
            raise StoreError("the server sends the value encoded, though it was asked for as it is stored")

    def expect_body(self, response: Headed) -> int | None:
        """How many bytes the body may have, ``None`` for any number; the attempt is given the time for a large one."""
        self.expect_stored(response)
        request, nbytes = self.request, response.content_length
        if nbytes is not None and (request is None or (isinstance(request, ByteRange) and request.stop is None)):
            self.attempt.expect(nbytes)
        return nbytes_asked(request)

    def expect_part(self, status: int, headers: Mapping[str, str], nbytes: int) -> None:
        """Raise ``TransientStoreError`` where a body of ``nbytes`` bytes is another part."""
        if status == 206 and not _is_part(headers.get("Content-Range", ""), self.request, nbytes):
            raise TransientStoreError("the server has answered with another range than it was asked for")


async def body_of(response: aiohttp.ClientResponse, wanted: Wanted) -> Buffer:
    """What is ``wanted``, from a response with the status 200 or 206.

    ``TransientStoreError`` where it is shorter than the server has said, or another part; ``StoreError`` where it is longer than what was
    asked for. Where the server has ignored the range, the part is cut out of the whole value; ``StoreError`` if more than
    ``IGNORED_RANGE_NBYTES`` would have to be read in vain for it.
    """
    if wanted.request is not None and wanted.is_ignored(response):
        wanted.expect_stored(response)
        return await _cut(response, wanted.request, wanted.attempt, response.content_length)
    body = await whole_body(response, wanted.expect_body(response))
    wanted.expect_part(response.status, response.headers, len(body))
    return body


async def whole_body(response: aiohttp.ClientResponse, most: int | None = None) -> bytes:
    """All of the body: ``TransientStoreError`` where that is less than the server has said, ``StoreError`` beyond ``most`` bytes."""
    nbytes = response.content_length
    if most is not None and nbytes is not None and nbytes > most:
        response.close()
        raise too_long(most)
    if most is None or nbytes is not None:
        if nbytes is not None and nbytes <= BUFFER_NBYTES:
            await response.content.wait_eof()
        body = await response.read()
        if nbytes is not None and len(body) != nbytes:
            raise TransientStoreError(f"{len(body)} bytes have arrived where the server has announced {nbytes}")
        return body
    pieces = bytearray()
    async for piece in response.content.iter_any():
        pieces += piece
        if len(pieces) > most:
            response.close()
            raise too_long(most)
    return bytes(pieces)


def nbytes_asked(request: Request) -> int | None:
    """How many bytes were asked for; ``None`` for all that there are."""
    if isinstance(request, Suffix):
        return request.nbytes
    return None if request is None or request.stop is None else request.stop - request.start


def too_long(most: int) -> StoreError:
    """The error where a server sends more than the ``most`` bytes that were asked for."""
    return StoreError(f"the server sends more than the {most} bytes that were asked for")


def _is_part(content_range: str, request: Request, nbytes: int) -> bool:
    """Whether ``nbytes`` bytes with this ``Content-Range`` are what was asked for."""
    found = _CONTENT_RANGE.fullmatch(content_range)
    if found is None or request is None:
        return nbytes == 0 and request is not None and content_range.endswith("/0")  # of an empty value, which is right after all
    first, last = int(found[1]), int(found[2])
    if last - first + 1 != nbytes:
        return False
    total = None if found[3] == "*" else int(found[3])
    if isinstance(request, Suffix):
        return nbytes == request.nbytes if total is None else (first, last) == (max(0, total - request.nbytes), total - 1)
    if first != request.start:
        return False
    wanted = None if request.stop is None else request.stop - 1
    if total is None:
        return wanted is None or last == wanted
    return last == (total - 1 if wanted is None else min(wanted, total - 1))


async def _cut(response: aiohttp.ClientResponse, request: ByteRange | Suffix, attempt: Attempt, total: int | None) -> Buffer:
    """The part of a value of which the server sends everything; the rest is not waited for."""
    if isinstance(request, Suffix) and total is not None:
        request = ByteRange(max(0, total - request.nbytes), total)
    if isinstance(request, ByteRange):
        _expect_little(min(request.start, total or 0))
        attempt.expect(request.start if total is None else min(total, request.stop or total))
    kept = bytearray()
    passed = 0
    async for piece in response.content.iter_any():
        passed += len(piece)
        if isinstance(request, Suffix):
            kept += piece
            if len(kept) > 2 * request.nbytes + DRAINED_NBYTES:
                del kept[: len(kept) - request.nbytes]
            _expect_little(passed - len(kept))
            continue
        begun = passed - len(piece)
        kept += memoryview(piece)[max(0, request.start - begun) :]
        _expect_little(passed - len(kept))
        if request.stop is not None and passed >= request.stop:
            response.close()
            break
    if isinstance(request, Suffix):
        return memoryview(kept)[max(0, len(kept) - request.nbytes) :]
    return memoryview(kept)[: None if request.stop is None else request.stop - request.start]


def _expect_little(passed: int) -> None:
    if passed > IGNORED_RANGE_NBYTES:
        raise StoreError(
            f"the server ignores ranges and sends whole values: the part wanted lies behind more than {IGNORED_RANGE_NBYTES} bytes; "
            "read it from a server that knows ranges, or choose chunks that are read as a whole"
        )


def size_behind(content_range: str | None) -> int | None:
    """The size of the value, from the ``Content-Range`` of a 206 or 416; ``None`` where it does not tell."""
    found = _CONTENT_RANGE.fullmatch(content_range or "")
    if found is not None:
        return None if found[3] == "*" else int(found[3])
    none = _UNSATISFIED.fullmatch(content_range or "")
    return None if none is None else int(none[1])


def payload_of(content: Buffer) -> Buffer | io.BytesIO:
    """The body of a request: in pieces where it is large, so that the loop has time for others."""
    return io.BytesIO(content) if len(content) > LARGE_NBYTES else content


async def drain(response: aiohttp.ClientResponse) -> None:
    """Make the connection free again: by reading the body where it is small, or by closing it."""
    await read_little(response)


async def read_little(response: aiohttp.ClientResponse) -> bytes:
    """The body, or the beginning of one that is large, which is then not waited for."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) > DRAINED_NBYTES:
            response.close()
            break
    response.release()
    return bytes(body)


def failure_of(status: int, headers: Mapping[str, str], what: str) -> StoreError:
    """What a status that is no success means; ``what`` was asked for. Nothing of the body is shown: servers put secrets there."""
    if status in {429, 503}:
        return ThrottledError(f"{what}: the server asks to slow down ({status})", retry_after=retry_after(headers))
    if status in {408, 425} or (status >= 500 and status not in {501, 505}):
        return TransientStoreError(f"{what}: the server failed ({status})")
    if status in {401, 403, 407}:
        return StoreError(f"{what} was refused ({status}): look at the credentials and at what they allow")
    return StoreError(f"{what}: the server answered {status}")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait, from the header ``Retry-After``, which is a number or a date; ``None`` where there is none that makes sense."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d{1,9})?", text):
        return float(text)
    try:
        when = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def failed(error: Exception, what: str) -> StoreError | None:
    """What an exception of aiohttp means; ``None`` for any other.

    Only its type is told, and what it says of hosts and sockets: aiohttp's messages show URLs, in which there may be tokens. Therefore
    raise it ``from None`` where a request begins.
    """
    if not isinstance(error, aiohttp.ClientError):
        return None
    why = str(error) if isinstance(error, aiohttp.ClientConnectorError) else type(error).__name__
    if isinstance(error, aiohttp.ClientSSLError):
        return StoreError(f"{what} failed, as the server cannot prove who it is: {why}")
    if isinstance(error, aiohttp.InvalidURL | aiohttp.NonHttpUrlClientError):
        return StoreError(f"{what} failed, as its URL makes no sense ({why})")
    return TransientStoreError(f"{what} failed ({why})")


Session = aiohttp.ClientSession
Response = aiohttp.ClientResponse


async def ask(session: Session, method: str, url: Any, what: str, **options: Any) -> Response:
    """The response to one request, whatever its status is; ``StoreError`` where there is none. Redirects are not followed."""
    try:
        return await session.request(method, url, allow_redirects=False, **options)
    except aiohttp.ClientError as error:
        raise failed(error, what) or error from None
