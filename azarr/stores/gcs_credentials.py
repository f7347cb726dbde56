"""Access tokens of Google Cloud, from credentials that are found where Google's own programs look for them."""

from __future__ import annotations

import asyncio
from typing import Any, Final, Protocol, cast

import aiohttp

from azarr.errors import StoreError, TransientStoreError
from azarr.extras import Extra
from azarr.stores.bearer_tokens import BearerToken, Issued
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


async def find_credentials(service_file: str | None, session: Session, *, read_only: bool) -> Credentials:
    """The credentials in ``service_file``, or those of the environment, of gcloud, or of the machine."""

    def read() -> Any:
        return Token(service_file=service_file, session=cast("Any", session), scopes=SCOPES[read_only])

    try:
        found = await asyncio.to_thread(read)
    except Exception as error:  # noqa: BLE001 - whatever a wrong file makes of the parts of the library
        raise StoreError(f"the file with the credentials of Google Cloud cannot be read ({type(error).__name__})") from None
    if service_file is not None and not found.service_data:
        raise StoreError(f"{service_file!r} has no credentials of Google Cloud")

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
