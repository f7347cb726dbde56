"""Parts of values in HTTP (RFC 9110, section 14): how they are asked for, and what of an answer is what was asked for."""

from __future__ import annotations

import re
from typing import NamedTuple

from azarr.errors import TransientStoreError
from azarr.stores.base import Request
from azarr.types import Buffer, ByteRange, Suffix

IGNORED_NBYTES = 64 * 2**20
"""How large a value may be of which a server sends all instead of the part that was asked for, in bytes; more is refused."""

_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)")


class Sent(NamedTuple):
    """What a server says it has sent: bytes ``start`` to ``stop`` of ``total``; ``None`` where it does not say of how many."""

    start: int
    stop: int
    total: int | None


def range_of(request: ByteRange | Suffix) -> str | None:
    """The header ``Range``; ``None`` where no byte is asked for, which HTTP cannot say."""
    if isinstance(request, Suffix):
        return f"bytes=-{request.nbytes}" if request.nbytes else None
    if request.stop is None:
        return f"bytes={request.start}-"
    return f"bytes={request.start}-{request.stop - 1}" if request.stop > request.start else None


def most_of(request: Request, *, partial: bool) -> int | None:
    """How many bytes an answer may have at most; ``None`` for any number. ``partial`` answers are those with status 206."""
    if request is None:
        return None
    if not partial:
        return IGNORED_NBYTES
    if isinstance(request, Suffix):
        return request.nbytes
    return None if request.stop is None else request.stop - request.start


def part_of(body: Buffer, request: Request, content_range: str | None, *, partial: bool) -> Buffer:
    """What ``request`` asks for of ``body``, which is all of a value unless the answer is ``partial`` (status 206).

    ``TransientStoreError`` where a partial answer is another part than was asked for.
    """
    if request is None:
        return body
    if not partial:
        if isinstance(request, Suffix):
            return memoryview(body)[max(0, len(body) - request.nbytes) :]
        return memoryview(body)[request.start : request.stop]
    sent = sent_of(content_range)
    if sent is None or sent.stop - sent.start != len(body) or not is_asked_for(sent, request):
        raise TransientStoreError(f"the server was asked for {request} and answered with {len(body)} bytes as {content_range!r:.80}")
    return body


def sent_of(content_range: str | None) -> Sent | None:
    """The header ``Content-Range``; ``None`` where it makes no sense."""
    match = _CONTENT_RANGE.fullmatch(content_range or "")
    if match is None:
        return None
    start, last = int(match[1]), int(match[2])
    total = None if match[3] == "*" else int(match[3])
    return Sent(start, last + 1, total) if start <= last and (total is None or last < total) else None


def is_asked_for(sent: Sent, request: ByteRange | Suffix) -> bool:
    """Whether that is the part: only the end of the value may have cut it."""
    if isinstance(request, Suffix):
        if sent.total is None:
            return sent.stop - sent.start == request.nbytes
        return (sent.start, sent.stop) == (max(0, sent.total - request.nbytes), sent.total)
    if sent.start != request.start:
        return False
    if sent.total is None:
        return sent.stop == request.stop
    return sent.stop == (sent.total if request.stop is None else min(request.stop, sent.total))
