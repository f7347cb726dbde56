"""Access tokens of Google Cloud: found where Google's own programs look for them, and renewed in time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeAlias, cast

import aiohttp

from azarr.errors import StoreError, TransientStoreError
from azarr.extras import Extra
from azarr.stores.http_exchange import Session

try:
    from gcloud.aio.auth import Token
except ImportError as error:
    raise Extra("gcloud.aio.auth", "gcs").missing("stores of Google Cloud", error) from error

SCOPES: Final = {
    False: ["https://www.googleapis.com/auth/devstorage.read_write"],
    True: ["https://www.googleapis.com/auth/devstorage.read_only"],
}
"""What a token allows, by whether the store is read-only."""

RENEWED: Final = 0.8
"""The part of a token's lifetime after which the next one is fetched; the old one serves the others meanwhile."""

TOKEN_SECONDS: Final = 10
"""Seconds within which a token has to arrive."""

AccessToken: TypeAlias = str | Callable[[], Awaitable[str]]
"""A token, or what answers one that is valid now; it is called for every request."""


class Credentials(Protocol):
    """What requests are signed with."""

    async def headers(self) -> dict[str, str]:
        """Headers that say who asks."""


class Anonymous:
    """Nobody."""

    async def headers(self) -> dict[str, str]:
        """No headers."""
        return {}


class Given:
    """Whoever a token stands for that a user has brought."""

    def __init__(self, token: AccessToken) -> None:
        self._token = token

    async def headers(self) -> dict[str, str]:
        """The header with the token."""
        token = self._token if isinstance(self._token, str) else await self._token()
        return {"Authorization": f"Bearer {token}"}


class Found:
    """Whoever is known on this machine: a service account's file, a user of gcloud, or the account of a virtual machine."""

    def __init__(self, token: Any) -> None:
        self._token = token
        self._headers: dict[str, str] = {}
        self._renew_at = self._ends_at = 0.0
        self._renewing = asyncio.Lock()

    async def headers(self) -> dict[str, str]:
        """The header with a token that is valid; ``StoreError`` where none can be had."""
        now = asyncio.get_running_loop().time
        if now() < self._renew_at or (self._renewing.locked() and now() < self._ends_at):
            return self._headers
        async with self._renewing:
            if now() >= self._renew_at:
                begun = now()
                answer = await self._fetched()
                self._headers = {"Authorization": f"Bearer {answer.value}"}
                self._renew_at, self._ends_at = begun + RENEWED * answer.expires_in, begun + answer.expires_in
        return self._headers

    async def _fetched(self) -> Any:
        # What the errors say is left out: there may be parts of secrets in them. Token.get would try again by itself.
        try:
            return await self._token.refresh(timeout=TOKEN_SECONDS)
        except aiohttp.ClientConnectorDNSError:
            raise StoreError(
                "there are no credentials of Google Cloud, and this is none of its machines: set GOOGLE_APPLICATION_CREDENTIALS, "
                "run 'gcloud auth application-default login', pass service_file= or token=, or anonymous=True for public buckets"
            ) from None
        except aiohttp.ClientResponseError as error:
            if error.status < 500 and error.status not in {408, 429}:
                raise StoreError(f"the credentials of Google Cloud were refused ({error.status})") from None
            raise TransientStoreError(f"no token of Google Cloud could be had ({error.status})") from None
        except (aiohttp.ClientError, OSError) as error:
            raise TransientStoreError(f"no token of Google Cloud could be had ({type(error).__name__})") from None
        except Exception as error:  # noqa: BLE001 - whatever a wrong file makes of the parts of the library
            raise StoreError(f"the credentials of Google Cloud make no sense ({type(error).__name__})") from None


async def find_credentials(service_file: str | None, session: Session, *, read_only: bool) -> Found:
    """The credentials in ``service_file``, or those of the environment, of gcloud, or of the machine."""

    def read() -> Any:
        return Token(service_file=service_file, session=cast("Any", session), scopes=SCOPES[read_only])

    try:
        token = await asyncio.to_thread(read)
    except Exception as error:  # noqa: BLE001 - as above
        raise StoreError(f"the file with the credentials of Google Cloud cannot be read ({type(error).__name__})") from None
    if service_file is not None and not token.service_data:
        raise StoreError(f"{service_file!r} has no credentials of Google Cloud")
    return Found(token)
