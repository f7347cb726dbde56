"""Who asks Azure: an account's key, a shared access signature, somebody known to Microsoft Entra, or nobody."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import importlib
import os
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final, Protocol

from azarr.errors import StoreError, TransientStoreError
from azarr.extras import Extra
from azarr.stores.bearer_tokens import BearerToken, Issued

SCOPE: Final = "https://storage.azure.com/.default"

API: Final = "2021-12-02"
"""The version of the service's protocol: one that emulators know, too."""

DEVELOPMENT: Final = (
    "DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;"
    "AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)
"""What ``UseDevelopmentStorage=true`` stands for: an account and a key that everybody knows."""


@dataclass(frozen=True, slots=True)
class Account:
    """An account's ``endpoint``, and who asks it: what is not ``None`` of ``key``, ``sas`` and ``credential``; nobody where all are."""

    name: str
    endpoint: str
    key: bytes | None = field(default=None, repr=False)
    sas: str | None = field(default=None, repr=False)
    credential: Any = field(default=None, repr=False)
    anonymous: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that is to be signed: the path in its URL, encoded, the query, not encoded, and the size of its body."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    nbytes: int


class Signer(Protocol):
    """What says in a request who asks."""

    async def headers(self, asked: Asked, /) -> dict[str, str]:
        """Headers that are sent besides those of ``asked``."""


class Nobody:
    """Without a name, or with one that is in the URL already."""

    async def headers(self, _: Asked, /) -> dict[str, str]:
        """The version and the date."""
        return common()


class SharedKey:
    """With the key of an account (the scheme "Shared Key" of Azure Storage)."""

    def __init__(self, account: str, key: bytes) -> None:
        self._account, self._key = account, key

    async def headers(self, asked: Asked, /) -> dict[str, str]:
        """The signature of the request."""
        added = common()
        all_headers = {**asked.headers, **added}
        encoding, language, digest, date, modified, unmodified = ("",) * 6  # none of them is ever sent
        conditions = (all_headers.get("If-Match", ""), all_headers.get("If-None-Match", ""))
        lines = [asked.method, encoding, language, str(asked.nbytes or ""), digest, all_headers.get("Content-Type", ""), date, modified]
        lines += [*conditions, unmodified, all_headers.get("Range", "")]
        lines += [f"{name}:{text}" for name, text in sorted(all_headers.items()) if name.startswith("x-ms-")]
        lines += [f"/{self._account}{asked.path}", *(f"{name}:{text}" for name, text in sorted(asked.query.items()))]
        signature = hmac.digest(self._key, "\n".join(lines).encode(), "sha256")
        added["Authorization"] = f"SharedKey {self._account}:{base64.b64encode(signature).decode()}"
        return added


class Entra:
    """With a token."""

    def __init__(self, token: BearerToken) -> None:
        self._token = token

    async def headers(self, _: Asked, /) -> dict[str, str]:
        """The token."""
        return {**common(), **await self._token.headers()}


def common() -> dict[str, str]:
    """What every request has."""
    return {"x-ms-date": formatdate(usegmt=True), "x-ms-version": API}


async def find_signer(account: Account, stack: AsyncExitStack) -> Signer:
    """The signer for an account; ``stack`` closes what it needs for itself, while a user's own credential is not closed."""
    if account.key is not None:
        return SharedKey(account.name, account.key)
    if account.sas is not None or account.anonymous:
        return Nobody()
    if account.credential is not None:
        return Entra(token_of(account.credential))
    try:
        identity = await asyncio.to_thread(importlib.import_module, "azure.identity.aio")  # it takes tenths of a second
    except ImportError as error:
        missing = Extra("azure.identity", "azure").missing("stores of Azure without a key or a signature", error)
        raise StoreError(str(missing)) from error
    return Entra(token_of(await stack.enter_async_context(identity.DefaultAzureCredential())))


def token_of(credential: Any) -> BearerToken:
    """The tokens that a credential of the Azure SDK gets."""

    async def fetch() -> Issued:
        try:
            token = await credential.get_token(SCOPE)
        except Exception as error:  # noqa: BLE001 - whatever kind of credential it is
            # by their names, as the packages they come from need not be there; what they say may have parts of secrets
            if type(error).__name__ in {"ServiceRequestError", "ServiceResponseError"} or isinstance(error, OSError):
                raise TransientStoreError(f"no token of Azure could be had ({type(error).__name__})") from None
            raise StoreError(
                f"no token of Azure could be had ({type(error).__name__}): run 'az login', set AZURE_CLIENT_ID and its like, or pass "
                "account_key=, sas_token=, connection_string= or anonymous=True"
            ) from None
        return Issued(token.token, token.expires_on - time.time())

    return BearerToken(fetch)


def find_account(
    name: str | None,
    *,
    endpoint: str | None,
    account_key: str | None,
    sas_token: str | None,
    connection_string: str | None,
    credential: Any,
    anonymous: bool,
) -> Account:
    """The account that the arguments tell of, or else the environment, as Azure's own programs have it; ``StoreError`` where none does."""
    if sum(bool(each) for each in (account_key, sas_token, connection_string, credential, anonymous)) > 1:
        raise StoreError("pass one of account_key=, sas_token=, connection_string=, credential= and anonymous=True")
    told = account_key or sas_token or credential or anonymous
    parts = _parsed(connection_string) if connection_string else {}
    if not (told or parts):
        parts = _environment(name)
    name = name or parts.get("AccountName") or os.environ.get("AZURE_STORAGE_ACCOUNT") or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
    if not told:
        account_key, sas_token = parts.get("AccountKey"), parts.get("SharedAccessSignature")
    endpoint = endpoint or parts.get("BlobEndpoint")
    if endpoint is None and name is not None:
        protocol, suffix = parts.get("DefaultEndpointsProtocol", "https"), parts.get("EndpointSuffix", "core.windows.net")
        endpoint = f"{protocol}://{name}.blob.{suffix}"
    if endpoint is None:
        raise StoreError(
            "which account of Azure is it? Pass account=, name it in the URL (abfss://container@account.dfs.core.windows.net/…), or set "
            "AZURE_STORAGE_ACCOUNT or AZURE_STORAGE_CONNECTION_STRING"
        )
    if account_key and not name:
        raise StoreError("a key of Azure needs the name of its account: pass account=")
    key = None if not account_key else _key(account_key)
    return Account(name or "", endpoint, key, sas_token.lstrip("?") if sas_token else None, credential, anonymous)


def _environment(name: str | None) -> dict[str, str]:
    """What the environment tells of the account ``name``, or of any, as the parts of a connection string; nothing where it has another."""
    get = os.environ.get
    parts = _parsed(get("AZURE_STORAGE_CONNECTION_STRING", ""))
    if not parts:
        found = {
            "AccountName": get("AZURE_STORAGE_ACCOUNT") or get("AZURE_STORAGE_ACCOUNT_NAME"),
            "AccountKey": get("AZURE_STORAGE_KEY") or get("AZURE_STORAGE_ACCOUNT_KEY"),
            "SharedAccessSignature": get("AZURE_STORAGE_SAS_TOKEN"),
        }
        parts = {key: text for key, text in found.items() if text}
        if "AccountKey" in parts:
            parts.pop("SharedAccessSignature", None)
    # a signature is for one account, and shows to any other that it is sent to
    return {} if name is not None and parts.get("AccountName", name) != name else parts


def _key(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise StoreError("the key of the Azure account is not in base64") from None


def _parsed(connection_string: str) -> dict[str, str]:
    parts = dict(part.strip().partition("=")[::2] for part in connection_string.split(";") if part.strip())
    return _parsed(DEVELOPMENT) if parts.get("UseDevelopmentStorage", "").lower() == "true" else parts
