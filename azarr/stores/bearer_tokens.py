"""Access tokens (RFC 6750) that expire: fetched once for all requests, and renewed in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, NamedTuple, TypeAlias

AccessToken: TypeAlias = str | Callable[[], Awaitable[str]]
"""A token, or what answers one that is valid now; it is called for every request."""

RENEWED: Final = 0.8
"""The part of a token's lifetime after which the next one is fetched; the old one serves the others meanwhile."""


class Issued(NamedTuple):
    """A token, and for how many seconds it is valid."""

    token: str
    seconds: float


class BearerToken:
    """The token that ``fetch`` answers, for as long as it is valid; it belongs to one loop."""

    def __init__(self, fetch: Callable[[], Awaitable[Issued]]) -> None:
        self._fetch = fetch
        self._headers: dict[str, str] = {}
        self._renew_at = self._ends_at = 0.0
        self._renewing = asyncio.Lock()

    async def headers(self) -> dict[str, str]:
        """The header with the token; raises what ``fetch`` raises."""
        now = asyncio.get_running_loop().time
        if now() < self._renew_at or (self._renewing.locked() and now() < self._ends_at):
            return self._headers
        async with self._renewing:
            if now() >= self._renew_at:
                begun = now()
                issued = await self._fetch()
                self._headers = bearer(issued.token)
                self._renew_at, self._ends_at = begun + RENEWED * issued.seconds, begun + issued.seconds
        return self._headers


class GivenToken:
    """The token that a user has brought."""

    def __init__(self, token: AccessToken) -> None:
        self._token = token

    async def headers(self) -> dict[str, str]:
        """The header with the token."""
        return bearer(self._token if isinstance(self._token, str) else await self._token())


def bearer(token: str) -> dict[str, str]:
    """The header with the token."""
    return {"Authorization": f"Bearer {token}"}
