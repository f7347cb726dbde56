"""Access tokens of Google Cloud, from credentials that are found where Google's own programs look for them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, cast

import aiohttp

from azarr.errors import StoreError, TransientStoreError
from azarr.extras import Extra
from azarr.stores.bearer_tokens import AccessToken, BearerToken, GivenToken, Issued
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

TOKEN_SECONDS: Final = 10
"""Seconds within which a token has to arrive."""


class Credentials(Protocol):
    """What requests are signed with."""

    async def headers(self) -> dict[str, str]:
        """Headers that say who asks."""


class Anonymous:
    """Nobody."""

    async def headers(self) -> dict[str, str]:
        """No headers."""
        return {}


@dataclass(frozen=True, slots=True)
class Who:
    """Who asks, as a user says it: ``anonymous``, or by ``token``, or else by ``service_file``, or what is found where that is ``None``."""

    anonymous: bool
    token: AccessToken | None = field(default=None, repr=False)
    service_file: str | None = None
    read_only: bool = False


async def find_credentials(who: Who, session: Session) -> Credentials:
    """What requests are signed with; tokens are fetched through ``session``."""
    if who.token is not None:
        return GivenToken(who.token)
    if who.anonymous:
        return Anonymous()

    def read() -> Any:
        return Token(service_file=who.service_file, session=cast("Any", session), scopes=SCOPES[who.read_only])

    try:
        found = await asyncio.to_thread(read)
    except Exception as error:  # noqa: BLE001 - whatever a wrong file makes of the parts of the library
        raise StoreError(f"the file with the credentials of Google Cloud cannot be read ({type(error).__name__})") from None
    if who.service_file is not None and not found.service_data:
        raise StoreError(f"{who.service_file!r} has no credentials of Google Cloud")

    async def fetch() -> Issued:
        return await _fetched(found)

    return BearerToken(fetch)


async def _fetched(found: Any) -> Issued:
    # What the errors say is left out: there may be parts of secrets in them. Token.get would try again by itself.
    try:
        answer = await found.refresh(timeout=TOKEN_SECONDS)
        return Issued(answer.value, answer.expires_in)
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
    except Exception as error:  # noqa: BLE001 - as above
        raise StoreError(f"the credentials of Google Cloud make no sense ({type(error).__name__})") from None
