"""Connections by which values are got, whose bodies go from the socket into the memory of the value: half of what aiohttp costs.

Everything else is left to aiohttp: other methods, proxies, redirects, and answers that are not plain.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final, NamedTuple, Self, cast

import aiohttp
from aiohappyeyeballs import AddrInfoType, start_connection
from multidict import CIMultiDict
from yarl import URL

from azarr.errors import StoreError
from azarr.stores.http_answers import HEAD_NBYTES, VALUES, Accept, Answer, Arriving, Head, Unfit
from azarr.stores.http_exchange import CONNECT_SECONDS, Wanted

IDLE_SECONDS: Final = 15.0
"""How long a connection is kept that nobody uses; as aiohttp does."""

RESOLVED_SECONDS: Final = 10.0
"""How long the addresses of a name are remembered; as aiohttp does."""

UNFIT: Final = 3
"""So many answers one after the other that aiohttp had to ask for again, and it is asked at once from then on."""

_UNSAFE: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
"""What would end a line of a request, or worse."""

_NO_TARGET: Final = re.compile(r"[\x00-\x20\x7f]")


class Connection(asyncio.BufferedProtocol):
    """One connection, for one request after another; it is in ``opened`` as long as it is open."""

    def __init__(self, opened: set[Connection]) -> None:
        self._opened = opened
        self._scratch = bytearray(HEAD_NBYTES)
        self._arriving: Arriving | None = None
        self._outcome: asyncio.Future[Answer | Exception]
        self._transport: asyncio.Transport
        self.answered = False
        """Whether a byte of an answer to the last request has come."""
        self.lost: asyncio.Future[None]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.lost = asyncio.get_running_loop().create_future()
        self._opened.add(self)

    async def exchange(self, request: bytes, accept: Accept) -> Answer:
        """The answer to ``request``; the connection is closed where there is none, or where it is good for no other."""
        self._arriving, self.answered = Arriving(self._scratch, accept), False
        self._outcome = asyncio.get_running_loop().create_future()
        try:
            self._transport.write(request)
            outcome = await self._outcome
        except BaseException:  # cancelled: nobody waits for what comes
            self._arriving = None
            self.abort()
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    @property
    def is_open(self) -> bool:
        """Whether another request may be made, when the last one has been answered."""
        return not self._transport.is_closing()

    def abort(self) -> None:
        """Close it, at once."""
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the protocol's
        return memoryview(self._scratch) if self._arriving is None else self._arriving.room

    def buffer_updated(self, nbytes: int) -> None:
        if self._arriving is None:
            self.abort()  # nobody has asked for that
            return
        self.answered = True
        try:
            outcome: Answer | Exception | None = self._arriving.received(nbytes)
        except Exception as error:  # noqa: BLE001 - for the one who waits
            outcome = error
        if outcome is not None:
            self._end(outcome)

    def connection_lost(self, error: Exception | None) -> None:
        self._opened.discard(self)
        self.lost.set_result(None)
        if self._arriving is not None:
            self._end(_loss(error, begun=self.answered))

    def _end(self, outcome: Answer | Exception) -> None:
        """Hand over how the request has ended, before anything else can be received where the value is."""
        arriving, self._arriving = self._arriving, None
        if isinstance(outcome, Exception) or arriving is None or arriving.last:
            self.abort()
        if not self._outcome.done():
            self._outcome.set_result(outcome)


def _loss(error: Exception | None, *, begun: bool) -> Exception:
    """What aiohttp raises where a connection breaks."""
    if isinstance(error, OSError):
        return aiohttp.ClientOSError(*error.args)
    return aiohttp.ClientPayloadError("the answer is not complete") if begun else aiohttp.ServerDisconnectedError()


class Place(NamedTuple):
    """Where errors of aiohttp say that nobody could be reached."""

    host: str
    port: int
    is_ssl: bool
    ssl: bool = True


class Connections:
    """As many to the server of ``origin`` as there are requests at once, for one event loop; to be used with ``async with``.

    ``headers`` are sent with every request, besides those that say who asks and that nothing may be encoded. ``tls`` is for ``https``.
    Errors are those of aiohttp.
    """

    def __init__(self, origin: URL, headers: Mapping[str, str], tls: ssl.SSLContext | None) -> None:
        self._place = Place(origin.raw_host or "", origin.port or 0, tls is not None)
        self._tls = tls
        always = CIMultiDict({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "azarr"})
        always.update(headers)
        self._lines = _lines(always)
        self._opened: set[Connection] = set()
        self._idle: list[tuple[float, Connection]] = []
        self._sweeping: asyncio.TimerHandle | None = None
        self._unfit = 0
        self._closed = False
        self._resolving = asyncio.Lock()
        self._addresses: Any = ()
        self._resolved = 0.0

    async def get(self, target: str, headers: Mapping[str, str], wanted: Wanted) -> Answer | None:
        """The answer for ``target``, a path and a query; its body is what is ``wanted`` where the status is 200 or 206.

        ``None`` where aiohttp has to be asked. ``TransientStoreError`` and ``StoreError`` as from ``body_of``.
        """
        if self._unfit >= UNFIT:
            return None

        def accept(head: Head) -> int | None:
            if wanted.is_ignored(head):
                raise Unfit
            return wanted.expect_body(head)

        try:
            answer = await self._answer(self._request(target, headers), accept)
        except Unfit:
            self._unfit += 1
            return None
        self._unfit = 0
        if answer.status in VALUES:
            wanted.expect_part(answer.status, answer.headers, len(answer.body))
        return answer

    def _request(self, target: str, headers: Mapping[str, str]) -> bytes:
        if _NO_TARGET.search(target):
            raise StoreError("a URL has neither spaces nor control characters: they are written as %20, %0A, …")
        return f"GET {target} HTTP/1.1\r\n{self._lines}{_lines(headers)}\r\n".encode()

    async def _answer(self, request: bytes, accept: Accept) -> Answer:
        """The answer by a connection that was used before, or by another one where that turns out to be broken."""
        while self._idle:
            connection = self._idle.pop()[1]
            if connection.is_open:
                try:
                    return await self._exchange(connection, request, accept)
                except aiohttp.ClientConnectionError:
                    if connection.answered:
                        raise
                    break
        return await self._exchange(await self._connected(), request, accept)

    async def _exchange(self, connection: Connection, request: bytes, accept: Accept) -> Answer:
        answer = await connection.exchange(request, accept)
        if connection.is_open and not self._closed:
            loop = asyncio.get_running_loop()
            self._idle.append((loop.time(), connection))
            if self._sweeping is None:
                self._sweeping = loop.call_later(IDLE_SECONDS, self._sweep)
        return answer

    def _sweep(self) -> None:
        """Close what has not been used for long."""
        loop = asyncio.get_running_loop()
        while self._idle and self._idle[0][0] + IDLE_SECONDS <= loop.time():
            self._idle.pop(0)[1].abort()
        self._sweeping = loop.call_at(self._idle[0][0] + IDLE_SECONDS, self._sweep) if self._idle else None

    async def _connected(self) -> Connection:
        place: Any = self._place
        self._expect_open()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                connection = await self._dialled()
        except TimeoutError as error:
            raise aiohttp.ConnectionTimeoutError("no connection in time") from error
        except ssl.CertificateError as error:
            raise aiohttp.ClientConnectorCertificateError(place, error) from error
        except ssl.SSLError as error:
            raise aiohttp.ClientConnectorSSLError(place, error) from error
        except socket.gaierror as error:
            raise aiohttp.ClientConnectorDNSError(place, error) from error
        except OSError as error:
            raise aiohttp.ClientConnectorError(place, error) from error
        if self._closed:
            connection.abort()
        self._expect_open()
        return connection

    def _expect_open(self) -> None:
        if self._closed:
            raise aiohttp.ServerDisconnectedError

    async def _dialled(self) -> Connection:
        loop = asyncio.get_running_loop()
        dialled = await start_connection(await self._resolve(), happy_eyeballs_delay=0.25, interleave=1, loop=loop)
        name = None if self._tls is None else self._place.host
        _, connection = await loop.create_connection(lambda: Connection(self._opened), sock=dialled, ssl=self._tls, server_hostname=name)
        return connection

    async def _resolve(self) -> Sequence[AddrInfoType]:
        loop = asyncio.get_running_loop()
        async with self._resolving:
            if not self._addresses or self._resolved + RESOLVED_SECONDS < loop.time():
                host, port, _, _ = self._place
                try:
                    self._addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
                except socket.gaierror:
                    self._addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
                self._resolved = loop.time()
            return cast("Sequence[AddrInfoType]", self._addresses)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close all connections, also those that are in use."""
        self._closed = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._idle.clear()
        left = list(self._opened)
        for connection in left:
            connection.abort()
        for connection in left:
            await connection.lost


def _lines(headers: Mapping[str, str]) -> str:
    """The lines of ``headers``; ``StoreError`` where one would be more than a line."""
    if _UNSAFE.search("".join([*headers, *headers.values()])):
        raise StoreError("headers have no control characters")
    return "".join([f"{name}: {value}\r\n" for name, value in headers.items()])


@cache
def verified() -> ssl.SSLContext:
    """Trusts whom the system trusts. It is read from files: call it in a thread."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context
