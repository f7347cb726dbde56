"""Values that a web server hands out."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import uuid
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Final, Self, Unpack
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from yarl import URL

from azarr.errors import StoreError, TransientStoreError
from azarr.stores.base import Request, Stamped
from azarr.stores.http_answers import VALUES, Answer
from azarr.stores.http_connections import Connections, verified
from azarr.stores.http_exchange import (
    Response,
    Session,
    Wanted,
    ask,
    body_of,
    drain,
    failed,
    failure_of,
    is_nothing,
    open_session,
    range_headers,
    size_behind,
)
from azarr.stores.network_reader import Fetched, Found, NetworkReader, ReadingOptions, Tag
from azarr.stores.traffic import Attempt
from azarr.types import ByteRange, Suffix

__all__ = ["HTTPStore", "open_url"]

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})

OWN_HEADERS: Final = frozenset({"range", "accept-encoding", "host"})
"""What a user cannot set, as it says which part of which value is wanted."""


class Client:
    """What asks a web server on one event loop: aiohttp, and connections to ``origin`` for values where no proxy may stand between."""

    def __init__(self, origin: URL, headers: Mapping[str, str], concurrency: int, *, trust_env: bool) -> None:
        self._origin, self._headers, self._concurrency, self._trust_env = origin, headers, concurrency, trust_env
        self._opened = AsyncExitStack()
        self._connections: Connections | None = None
        self.session: Session

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            self.session = await stack.enter_async_context(open_session(self._concurrency, trust_env=self._trust_env))
            if not self._trust_env:
                tls = await asyncio.to_thread(verified) if self._origin.scheme == "https" else None
                self._connections = await stack.enter_async_context(Connections(self._origin, self._headers, tls))
            self._opened = stack.pop_all()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._opened.aclose()

    async def get(self, target: str, wanted: Wanted) -> Answer | None:
        """The answer to a GET; ``None`` where aiohttp has to be asked."""
        if self._connections is None:
            return None
        return await self._connections.get(target, range_headers(wanted.request), wanted)


class HTTPStore(NetworkReader[Client]):
    """Values at ``url/key`` of a web server, to be read only; it cannot list, so members of groups are known from consolidated metadata.

    Args:
        url: ``http://`` or ``https://``. Its query (a token) is sent with every request, and never shown; so are a user and a password.
        headers: Sent with every request to this server, and to no other one that it redirects to; likewise ``auth``.
        auth: A user and a password.
        missing_on_403: Take 403 for an absent key, as buckets say that do not let everybody list them. An error by default, because
            a chunk that one may not read is not a chunk of fill values.
        redirects: How many are followed for one request, never from ``https`` to ``http``; 5.
        trust_env: Use the proxies of the environment (``HTTPS_PROXY``, …) and ``.netrc``.
        retry, concurrency, rate: As for all stores behind networks, see ``ReadingOptions``.

    Only 404 and 410 mean that a key is absent. Servers that ignore ranges are served, as long as not too much is read in vain.
    """

    read_only: Final = True

    def __init__(
        self,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        auth: tuple[str, str] | None = None,
        missing_on_403: bool = False,
        redirects: int = 5,
        trust_env: bool = False,
        **options: Unpack[ReadingOptions],
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise StoreError(f"{parts.scheme}://{parts.hostname or ''} is no place on the web: expected http:// or https:// and a host")
        if parts.fragment:
            raise StoreError(f"a URL of values has no fragment: write # as %23 in {parts.hostname}{parts.path}")
        if not OWN_HEADERS.isdisjoint(each.lower() for each in headers or ()):
            raise StoreError(f"the headers {', '.join(sorted(OWN_HEADERS))} are set by the store itself")
        super().__init__(**options)
        if auth is None and parts.username is not None:
            auth = unquote(parts.username), unquote(parts.password or "")
        host = parts.netloc.rpartition("@")[2]
        self._url = URL(urlunsplit((parts.scheme, host, parts.path.rstrip("/") + "/", "", "")))
        self._base = str(self._url)
        self._query = f"?{parts.query}" if parts.query else ""
        self._headers = {**(headers or {}), **({} if auth is None else {"Authorization": _basic(*auth)})}
        self._missing = frozenset({404, 410, 403} if missing_on_403 else {404, 410})
        self._redirects, self._trust_env = redirects, trust_env

    def __repr__(self) -> str:
        return f"HTTPStore({self._base!r})"

    @property
    def identity(self) -> tuple[str, str, str]:
        """What tells the values apart from others: where they are, and what says who may read them, in a form that does not tell."""
        secret = repr((self._query, sorted(self._headers.items())))
        return "http", self._base, hashlib.sha256(secret.encode()).hexdigest()

    def _connect(self) -> AbstractAsyncContextManager[Client]:
        headers = {"Host": self._url.host_port_subcomponent or "", **self._headers}
        return Client(self._url.origin(), headers, self.traffic.concurrency, trust_env=self._trust_env)

    async def get_stamped(self, key: str, byte_range: Request = None) -> Stamped:
        value, version = await self.get_versioned(key, byte_range)
        # a weak ETag ('W/"…"') may be that of other bytes, too
        return Stamped(value, version.name if isinstance(version, Tag) and str(version.name).startswith('"') else None)

    async def _get(self, client: Client, key: str, request: Request, attempt: Attempt, *, tagged: bool) -> Fetched | None:
        if is_nothing(request):
            found = await self._find(client, key)
            return None if found is None else Fetched(b"", found.tag)
        wanted, moved = Wanted(request, attempt), None
        answer = await client.get(f"{self._url.raw_path}{quote(key)}{self._query}", wanted)
        if answer is not None:
            if answer.status in VALUES:
                return Fetched(answer.body, _tag(answer.headers) if tagged else None)
            if answer.status == 416:
                return await self._beyond(client, key, request, attempt, tagged=tagged)
            moved = self._next("GET", self._url_of(key), key, answer.status, answer.headers)
            if moved is None:
                return None
        response = await self._asked(client, "GET", key, range_headers(request), moved)
        if response is None:
            return None
        async with response:
            if response.status != 416:
                return Fetched(await body_of(response, wanted), _tag(response.headers) if tagged else None)
            await drain(response)
        return await self._beyond(client, key, request, attempt, tagged=tagged)

    async def _beyond(self, client: Client, key: str, request: Request, attempt: Attempt, *, tagged: bool) -> Fetched | None:
        """What a range is of which the server says that it lies beyond the end: nothing, if that is true."""
        found = await self._find(client, key)
        if found is None:
            return None
        if isinstance(request, Suffix) and found.nbytes:  # some servers know no suffixes, or none that are longer than the value
            return await self._get(client, key, ByteRange(max(0, found.nbytes - request.nbytes), found.nbytes), attempt, tagged=tagged)
        if isinstance(request, ByteRange) and request.start < found.nbytes:
            raise TransientStoreError(f"the server denies bytes that {key!r} in {self!r} has")
        return Fetched(b"", found.tag)

    async def _find(self, client: Client, key: str) -> Found | None:
        response = await self._asked(client, "HEAD", key, {})
        if response is None:
            return None
        async with response:
            if response.status == 200 and response.content_length is not None:
                return Found(response.content_length, _tag(response.headers))
        # no HEAD, or one that does not tell the size: a range does
        response = await self._asked(client, "GET", key, range_headers(ByteRange(0, 1)))
        if response is None:
            return None
        async with response:
            size = response.content_length if response.status == 200 else size_behind(response.headers.get("Content-Range"))
            tag = _tag(response.headers)
            if size is not None:
                await drain(response)
            elif response.status == 200:
                size = len(await response.read())
            elif response.status == 416:
                size = 0
        if size is None:
            raise StoreError(f"the server does not tell how large {key!r} in {self!r} is")
        return Found(size, tag)

    def _url_of(self, key: str) -> URL:
        return URL(f"{self._base}{quote(key)}{self._query}", encoded=True)

    async def _asked(self, client: Client, method: str, key: str, headers: Mapping[str, str], moved: URL | None = None) -> Response | None:
        """The response to a request, after redirects: with status 200, 206 or 416, for HEAD also 405 and 501; ``None`` for absent keys.

        ``moved`` is where the server has redirected to already.
        """
        first = self._url_of(key)
        url, own = moved or first, self._headers if moved is None or _same_server(first, moved) else {}
        for _ in range(self._redirects + (moved is None)):
            response = await ask(client.session, method, url, f"{method} of {key!r} in {self!r}", headers={**own, **headers})
            status = response.status
            if status in {200, 206, 416} or (method == "HEAD" and status in {405, 501}):
                return response
            async with response:
                await drain(response)
            there = self._next(method, url, key, status, response.headers)
            if there is None:
                return None
            if not _same_server(url, there):
                own = {}
            url = there
        raise StoreError(f"{method} of {key!r} in {self!r} was redirected more than {self._redirects} times")

    def _next(self, method: str, url: URL, key: str, status: int, headers: Mapping[str, str]) -> URL | None:
        """Where to ask next after an answer from ``url`` that is no success; ``None`` where it says that the key is absent."""
        if status in self._missing:
            return None
        if status not in REDIRECTS:
            raise failure_of(status, headers, f"{method} of {key!r} in {self!r}")
        return self._target(url, headers, key)

    def _target(self, url: URL, headers: Mapping[str, str], key: str) -> URL:
        """Where a redirect leads; ``StoreError`` where one should not go."""
        try:
            place = headers["Location"]
            # what is signed must not change
            there = url.join(URL(place, encoded=place.isascii() and " " not in place)).with_fragment(None)
            host = there.host
        except (KeyError, ValueError):
            host = None
        if host is None or there.scheme not in {"http", "https"} or (url.scheme, there.scheme) == ("https", "http"):
            raise StoreError(f"{key!r} in {self!r} is redirected to nowhere, or to where everybody could listen")
        if (there.host, there.raw_path) == (url.host, f"{url.raw_path}/"):
            raise StoreError(f"{key!r} in {self!r} is a folder of the server, and no value")
        return there

    def _classified(self, error: Exception, key: str) -> Exception | None:
        return failed(error, f"the request for {key!r} in {self!r}")


def _basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def _tag(headers: Mapping[str, str]) -> Tag:
    """The state that the server names; one that is like no other where it names none."""
    return Tag(headers.get("ETag") or uuid.uuid4().hex)


def _same_server(one: URL, other: URL) -> bool:
    """Whether what is secret may go to ``other``: the same origin, or the same host that has turned to TLS."""
    upgraded = (one.scheme, one.port, other.scheme, other.port) == ("http", 80, "https", 443)
    return one.host == other.host and ((one.scheme, one.port) == (other.scheme, other.port) or upgraded)


def open_url(url: str, **options: Any) -> HTTPStore:
    """The store at a URL; ``options`` are those of ``HTTPStore``."""
    return HTTPStore(url, **options)
