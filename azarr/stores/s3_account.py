"""Where a bucket is and in whose name it is asked, as a user says it; and what that comes to once aiobotocore has looked it up."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, NamedTuple, TypeAlias
from urllib.parse import parse_qs, urlsplit

from azarr.errors import StoreError
from azarr.stores.aws_signing import Credentials, Signer
from azarr.stores.http_connections import Connections, verified
from azarr.stores.s3_packages import NO_SIGNATURES, URL, AioConfig, AioCredentials, AioSession, aiohttp, get_environ_proxies

AddressingStyle: TypeAlias = Literal["auto", "path", "virtual"]

LOOKUP_SECONDS = 300
"""How long what was found is used again: the environment may say something else by then."""

_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}|arn:[a-z-]+:s3[a-z-]*:[a-z0-9-]*:[0-9]*:accesspoint[/:][A-Za-z0-9._-]{1,255}")


@dataclass(frozen=True, slots=True)
class S3Account:
    """A bucket, where it is, and who asks. Keys that are given here are in pickled copies; those that are found are found again."""

    bucket: str
    region: str | None = None
    endpoint_url: str | None = None
    addressing_style: AddressingStyle = "auto"
    anonymous: bool = False
    profile: str | None = None
    access_key: str | None = field(default=None, repr=False)
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not _BUCKET.fullmatch(self.bucket) or self.bucket in {".", ".."}:
            raise StoreError(f"{self.bucket!r:.80} is not the name of a bucket, nor the ARN of an access point")
        if self.bucket.endswith("--x-s3"):
            raise StoreError(
                f"{self.bucket!r} is a directory bucket, which has signatures of its own; azarr knows those of general purpose buckets"
            )
        if (self.access_key is None) != (self.secret_key is None) or (self.session_token is not None and self.access_key is None):
            raise StoreError("credentials are access_key and secret_key, and session_token if they are lent; pass all of them or none")
        if self.anonymous and (self.access_key is not None or self.profile is not None):
            raise StoreError("anonymous requests have no credentials: pass anonymous=True, or credentials, or a profile")
        if self.access_key is not None and self.profile is not None:
            raise StoreError("pass credentials, or a profile to take them from, not both")
        if self.addressing_style not in {"auto", "path", "virtual"}:
            raise StoreError(f"addressing_style is 'auto', 'path' or 'virtual', not {self.addressing_style!r}")
        if self.endpoint_url is not None:
            check_endpoint(self.endpoint_url)


def check_endpoint(url: str) -> None:
    """Raise ``StoreError`` unless ``url`` is that of a server; its text is not repeated where it may hold a password."""
    try:
        parts = urlsplit(url)
        fine = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        fine = False
    if not fine or "@" in parts.netloc or parts.query or parts.fragment:
        raise StoreError("endpoint_url is http://host:port or https://host, without user, password or query; credentials are arguments")


class Address(NamedTuple):
    """Where the values of a bucket are."""

    origin: str
    """As ``https://host:port``."""
    host: str
    """The header ``host``."""
    path: str
    """What the path of a value begins with; it ends in ``/``."""
    region: str
    service: str


class Found(NamedTuple):
    """What a lookup has found: where the values of a bucket are, who asks for them, ``None`` where nobody signs, and what encrypts."""

    address: Address
    credentials: Any
    tls: ssl.SSLContext | None
    region: str | None
    """The region that was looked for; ``None`` for the one that the account or the environment names."""

    @property
    def lasting(self) -> bool:
        """Whether it is good for any event loop: credentials that are lent are renewed by one loop."""
        return self.credentials is None or type(self.credentials) is AioCredentials


class Lookups:
    """What a store has found last, for the event loops that come after: a client of aiobotocore takes 20 ms of a processor to open."""

    def __init__(self) -> None:
        self._kept: tuple[Found, float] | None = None

    def recall(self) -> Found | None:
        """What was found, unless that is too long ago."""
        kept = self._kept
        return kept[0] if kept is not None and time.monotonic() < kept[1] else None

    def note(self, found: Found) -> None:
        """Keep what has been found now, if others may use it."""
        self._kept = (found, time.monotonic() + LOOKUP_SECONDS) if found.lasting else None


class Access:
    """What is needed to ask for values of a bucket: what was found, signers of requests, and a client of aiobotocore, if there is one."""

    def __init__(self, found: Found, client: Any | None) -> None:
        self.found, self.client = found, client
        self.address, self.tls = found.address, found.tls
        self._signer: Signer | None = None

    async def signer(self) -> Signer | None:
        """Who signs now, as credentials that are lent are renewed in time; ``None`` where requests are anonymous."""
        if self.found.credentials is None:
            return None
        frozen = await self.found.credentials.get_frozen_credentials()
        current = frozen.access_key, frozen.secret_key, frozen.token
        if self._signer is None or self._signer.credentials != current:
            self._signer = Signer(Credentials(*current), self.address.region, self.address.service)
        return self._signer


async def opened(account: S3Account, region: str | None, given: Any | None, concurrency: int, stack: AsyncExitStack) -> tuple[Found, Any]:
    """Look up where the bucket is, in ``region`` if that is known, and who asks; ``given`` is a session of aiobotocore to use.

    What was found, and the client that found it.
    """
    session = given or AioSession(profile=account.profile)
    if given is None:
        session.register_component("data_loader", await asyncio.to_thread(descriptions))
        if account.access_key is not None:
            session.set_credentials(account.access_key, account.secret_key, account.session_token)
    credentials = None if account.anonymous else await session.get_credentials()
    if credentials is None and not account.anonymous:
        raise StoreError(
            f"there are no credentials for the bucket {account.bucket!r}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, pass access_key "
            "and secret_key or a profile, or anonymous=True for public data"
        )
    config = AioConfig(
        signature_version=NO_SIGNATURES if account.anonymous else "s3v4",
        s3={"addressing_style": account.addressing_style},
        retries={"total_max_attempts": 1, "mode": "standard"},  # azarr tries again
        request_checksum_calculation="when_required",  # compatibles refuse the others
        response_checksum_validation="when_required",
        max_pool_connections=concurrency,
    )
    context = session.create_client("s3", region_name=region or account.region, endpoint_url=account.endpoint_url, config=config)
    client = await stack.enter_async_context(context)
    address = await address_of(client, account.bucket)
    tls = await tls_for(address.origin, session.get_config_variable("ca_bundle"))
    return Found(address, credentials, tls, region), client


@cache
def descriptions() -> Any:
    """What botocore has to know of S3: large files, which are read once, by whichever thread asks first."""
    loader = AioSession().get_component("data_loader")
    for name in ("_retry", "endpoints", "partitions", "sdk-default-configuration"):
        loader.load_data_with_path(name)
    for kind in ("service-2", "endpoint-rule-set-1"):
        loader.load_service_model("s3", type_name=kind)
    return loader


async def address_of(client: Any, bucket: str) -> Address:
    """Where botocore has the values of ``bucket``, and for which region and service it signs."""
    url = await client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "k"})
    parts = urlsplit(url)
    scope = parse_qs(parts.query).get("X-Amz-Credential", [""])[0].split("/")
    region, service = (scope[-3], scope[-2]) if len(scope) == 5 else (client.meta.region_name or "us-east-1", "s3")
    host = parts.netloc.removesuffix(":443" if parts.scheme == "https" else ":80")
    if host == f"{bucket}.s3.amazonaws.com" and region != "us-east-1":  # presigned URLs go by way of the global endpoint, which redirects
        host = f"{bucket}.s3.{region}.amazonaws.com"
    return Address(f"{parts.scheme}://{host}", host, parts.path.removesuffix("k"), region, service)


async def tls_for(origin: str, ca_bundle: str | None) -> ssl.SSLContext | None:
    """What encrypts connections to ``origin`` with the certificates that botocore would use; ``None`` for ``http``."""
    if not origin.startswith("https:"):
        return None
    return await (asyncio.to_thread(verified) if ca_bundle is None else asyncio.to_thread(ssl.create_default_context, cafile=ca_bundle))


def proxy_to(origin: str) -> str | None:
    """The proxy by which botocore would ask there."""
    proxies: dict[str, str] = get_environ_proxies(origin)
    return proxies.get(urlsplit(origin).scheme)


def connections_to(origin: str, tls: ssl.SSLContext | None) -> Connections | None:
    """Connections for values; ``None`` where there is a proxy between, with which aiohttp deals."""
    return Connections(URL(origin), {}, tls) if proxy_to(origin) is None else None


async def connected(access: Access, concurrency: int) -> aiohttp.ClientSession:
    """A session of aiohttp for requests to the bucket, by the proxy that botocore would use."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=concurrency, ssl=True if access.tls is None else access.tls),
        auto_decompress=False,  # a value is what is stored
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"accept-encoding": "identity", "user-agent": "azarr"},
        proxy=proxy_to(access.address.origin),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=20),
        read_bufsize=2**20,
    )
