"""Requests for values in a bucket: signed here, sent by connections for values or by aiohttp, and answered in full or not at all.

What is asked for often costs a twelfth of what it costs by way of aiobotocore, which does the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, NamedTuple, Self, TypeAlias

from azarr.errors import StoreError, TransientStoreError
from azarr.stores.aws_signing import EMPTY, UNSIGNED, Credentials, Signer, quoted
from azarr.stores.http_answers import VALUES
from azarr.stores.http_connections import Connections
from azarr.stores.http_exchange import Wanted, body_of, whole_body
from azarr.stores.s3_account import Access, Address, Lookups, S3Account, connected, connections_to, opened
from azarr.stores.s3_failures import BODY_NBYTES, Failure, failure_of
from azarr.stores.s3_packages import URL, AioAWSResponse, aiohttp
from azarr.types import Buffer

LARGE_NBYTES = 2**20
"""From here on, bodies are hashed in a thread, and sent in pieces."""

PAGE_NBYTES = 64 * 2**20
"""What an answer to a request of aiobotocore may have, in bytes; a thousand keys of the longest are a few MiB."""

EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired"})
ELSEWHERE = frozenset({301, 307, 400})


Read: TypeAlias = Callable[[aiohttp.ClientResponse], Awaitable[Buffer]]
"""Reads the body of a response."""


class Ask(NamedTuple):
    """A request about the value at ``key``.

    All ``headers`` are signed, their names are in small letters; ``query`` is as it is sent. What is to be sent ``once`` is never sent
    again on a fresh connection where an old one turns out to be broken, as aiohttp does by itself.
    """

    method: str
    key: str
    headers: Mapping[str, str]
    body: Buffer = b""
    query: str = ""
    once: bool = False


class Answer(NamedTuple):
    """A success: the ``body`` is complete."""

    status: int
    headers: Mapping[str, str]
    body: Buffer


class S3Requests:
    """Makes requests for values of a bucket on one event loop, as long as an ``async with``; ``given`` is a session of aiobotocore."""

    def __init__(self, account: S3Account, given: Any | None, concurrency: int, lookups: Lookups) -> None:
        self._account, self._given, self._concurrency, self._lookups = account, given, concurrency, lookups
        self._opening, self._closed = asyncio.Lock(), False
        self._client = AsyncExitStack()
        self._expired: Credentials | None = None
        self._connections: dict[str, Connections | None] = {}
        self.access: Access
        self._http: aiohttp.ClientSession

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            found = self._lookups.recall() if self._given is None else None
            if found is None:
                await self._open(None)
            else:
                self.access = Access(found, None)
            stack.push_async_callback(self._client.aclose)
            self._http = await connected(self.access, self._concurrency)
            stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        self._closed = True
        async with self._opening, AsyncExitStack() as stack:
            stack.push_async_callback(self._client.aclose)
            stack.push_async_callback(self._http.close)
            for connections in filter(None, self._connections.values()):
                stack.push_async_exit(connections)

    async def _open(self, region: str | None) -> None:
        """Look up where the bucket is, and who asks; that then takes the place of what was known."""
        async with AsyncExitStack() as stack:
            found, client = await opened(self._account, region, self._given, self._concurrency, stack)
            client.meta.events.register("before-send.s3", self._sent_for_client)
            old, self._client = self._client, stack.pop_all()
            self.access = Access(found, client)
        self._lookups.note(found)
        await old.aclose()  # what it is doing it does by the session here

    async def sdk(self) -> Any:
        """A client of aiobotocore, for what is seldom asked."""
        while self.access.client is None:
            await self._reopen(self.access, self.access.found.region)
        return self.access.client

    async def _sent_for_client(self, request: Any, **_: Any) -> Any:
        """The answer to a request of aiobotocore, which itself would follow redirects to anywhere, and take its session token along."""
        headers = {name: value.decode() if isinstance(value, bytes) else value for name, value in request.headers.items()}
        url = URL(request.url, encoded=True)
        with without_the_request():
            async with self._http.request(
                request.method, url, headers=headers, data=request.body or None, allow_redirects=False
            ) as response:
                expect_length(response)
                body = await whole_body(response, PAGE_NBYTES)
                told = {name.lower(): value for name, value in response.headers.items()}
                return AioAWSResponse(str(url.origin()), response.status, told, _Body(body))

    async def send(self, ask: Ask, read: Read | Wanted = whole_body) -> Answer | Failure:
        """The answer to ``ask``; where the bucket turns out to be in another region, or credentials to have expired, the next one.

        ``read`` takes the body of a success, or says what is wanted of a value.
        """
        payload = await self._hash_of(ask.body)
        for _ in range(3):
            access = self.access
            signer = await access.signer()
            answer = await self._sent(access.address, signer, ask, payload, read)
            if isinstance(answer, Answer) or not await self._is_mended(access, signer, answer):
                break
        return answer

    async def _sent(self, address: Address, signer: Signer | None, ask: Ask, payload: str, read: Read | Wanted) -> Answer | Failure:
        method, key, headers, body, query, once = ask
        path = address.path + quoted(key)
        target = f"{path}?{query}" if query else path
        sent = {"host": address.host, **headers}
        if signer is not None:
            signer.sign(method, path, query, sent, payload, time.time())
        if isinstance(read, Wanted):
            answer = await self._got(address.origin, target, sent, read)
            if answer is not None:
                return answer
            read = partial(body_of, wanted=read)
        url = URL(address.origin + target, encoded=True)
        data = io.BytesIO(body) if len(body) > LARGE_NBYTES else body or None
        again = _ONCE if once else ()
        with without_the_request():
            async with self._http.request(method, url, headers=sent, data=data, allow_redirects=False, middlewares=again) as response:
                if response.status >= 300:
                    return failure_of(response.status, response.reason, response.headers, await _start_of(response))
                expect_length(response)
                return Answer(response.status, response.headers, await read(response))

    async def _got(self, origin: str, target: str, headers: Mapping[str, str], wanted: Wanted) -> Answer | Failure | None:
        """The answer to a GET of a value; ``None`` where aiohttp has to be asked."""
        if origin not in self._connections:
            self._connections[origin] = connections_to(origin, self.access.tls)
        connections = self._connections[origin]
        found = None if connections is None else await connections.get(target, headers, wanted)
        if found is None:
            return None
        if found.status in VALUES:
            return Answer(found.status, found.headers, found.body)
        return failure_of(found.status, found.reason, found.headers, bytes(found.body)) if found.status >= 300 else None

    async def _hash_of(self, body: Buffer) -> str:
        """The hash of what is sent; with TLS, which protects it already, it is not signed."""
        if not body:
            return EMPTY
        if self.access.address.origin.startswith("https:"):
            return UNSIGNED
        if len(body) > LARGE_NBYTES:
            return await asyncio.to_thread(_sha256, body)
        return _sha256(body)

    async def _is_mended(self, access: Access, signer: Signer | None, failure: Failure) -> bool:
        """Whether another access has been opened, since this one was for another region, or its credentials have expired."""
        region = failure.region
        if failure.status in ELSEWHERE and region and region != access.address.region:
            return await self._reopen(access, region)
        if failure.code in EXPIRED and signer is not None and self._given is None and self._account.access_key is None:
            if signer.credentials == self._expired:
                return False  # the same have been found again
            self._expired = signer.credentials
            return await self._reopen(access, access.address.region)
        return False

    async def _reopen(self, old: Access, region: str | None) -> bool:
        async with self._opening:
            if self._closed:
                raise StoreError("the store was closed while it was asked")
            if self.access is old:
                await self._open(region)
        return True


class without_the_request:  # noqa: N801 - reads as what it does
    """Takes off errors of aiohttp that have the request in them, and so its signature."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, aiohttp.ClientResponseError):
            raise TransientStoreError("the answer is no HTTP") from None


class _Body(NamedTuple):
    """What has been read, as aiobotocore reads it."""

    body: bytes

    async def read(self) -> bytes:
        return self.body


def _sha256(body: Buffer) -> str:
    return hashlib.sha256(body).hexdigest()


async def _without_a_second_try(request: Any, handler: Any) -> Any:
    """Keeps aiohttp from sending a request again, as it does where a connection that was used before turns out to be broken."""
    try:
        return await handler(request)
    except aiohttp.ClientConnectionError as error:
        raise TransientStoreError(f"the connection broke ({type(error).__name__})") from error


_ONCE = (_without_a_second_try,)


async def _start_of(response: Any) -> bytes:
    """As much of an error's body as is looked at."""
    body = bytearray()
    async for piece in response.content.iter_any():
        body += piece
        if len(body) >= BODY_NBYTES:
            response.close()
            break
    return bytes(body)


def expect_length(response: aiohttp.ClientResponse) -> None:
    """Raise ``TransientStoreError`` where nobody could know whether all of the body has come; S3 always says how long it is."""
    if (
        response.content_length is None
        and response.status != 204
        and response.method != "HEAD"
        and "chunked" not in response.headers.get("transfer-encoding", "")
    ):
        raise TransientStoreError("the server did not say how many bytes it would send, so that nobody knows whether all have come")
