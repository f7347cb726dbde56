"""A proxy before a real server that lets go wrong what goes wrong in networks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final, Literal, Self

from azarr.testing.conversations import HttpConversation, Link, TcpConversation, Traffic
from azarr.testing.faults import Answer, Dice, Fault, Script, TokenBucket

SLOW_DOWN: Final = Answer(503, code="SlowDown")
"""What S3 answers to who asks too often."""

LOOPBACK: Final = "127.0.0.1"


class FaultProxy(Traffic):
    """Forwards connections to the server at ``target_host`` and ``target_port``, and lets happen to requests what ``faults`` say.

    ::

        async with FaultProxy("127.0.0.1", 8333, seed=1, faults={Reset(): 0.05, Answer(503, code="SlowDown"): 0.1}) as proxy:
            ...  # a client of proxy.url

    What is forwarded stays as it is, byte for byte, so that signatures stay valid: the server sees the host that the client has asked
    for. The proxy listens on a port of its own of the loopback interface from the beginning of the ``async with`` to its end, which
    ends all connections. It serves any HTTP/1.1 client without TLS; with ``protocol="tcp"`` any protocol in which a client asks and
    a server answers: what a client sends after an answer is the next request, and bodies are what the server sends at once.

    ``requests`` counts the requests, ``injected`` the faults by their kind (``"reset"``, ``"503"``, ``"throttled"``, …), ``in_flight``
    the requests under way, ``max_in_flight`` the most that ever were.

    Args:
        target_host: Where the server is.
        target_port: Where the server is.
        faults: The probability of each fault, or a script: a function from a ``ProxiedRequest`` to a ``Fault`` or ``None``. What
            a script raises ends the connection, and is raised at the end of the ``async with``.
        seed: What is drawn depends on it and on the order of the requests, and on nothing else.
        latency: Seconds that each request waits before it is forwarded.
        jitter: Up to so many seconds more.
        bandwidth: Bytes a second, for each connection in each direction.
        rate_limit: Requests a second that are served; after a second of rest so many at once. ``throttle`` is for those beyond.
        throttle: The answer to requests beyond the rate limit; 503 with the error ``SlowDown`` of S3 by default.
        protocol: ``"http"`` or ``"tcp"``, which knows neither ``rate_limit`` nor ``Answer``.

    Raises:
        ValueError: A number that makes no sense.

    """

    def __init__(
        self,
        target_host: str,
        target_port: int,
        *,
        faults: Mapping[Fault, float] | Script | None = None,
        seed: int = 0,
        latency: float = 0.0,
        jitter: float = 0.0,
        bandwidth: float | None = None,
        rate_limit: float | None = None,
        throttle: Answer = SLOW_DOWN,
        protocol: Literal["http", "tcp"] = "http",
    ) -> None:
        if latency < 0 or jitter < 0 or (bandwidth is not None and bandwidth <= 0):
            raise ValueError(f"times are not negative and a bandwidth is positive, unlike one of {latency}, {jitter} and {bandwidth}")
        if protocol == "tcp" and rate_limit is not None:
            raise ValueError("those beyond a rate limit are answered in HTTP, which is not what protocol='tcp' speaks")
        bucket = None if rate_limit is None else TokenBucket(rate_limit)
        super().__init__(seed=seed, latency=latency, jitter=jitter, bucket=bucket, throttle=throttle)
        self._target = target_host, target_port
        self._bandwidth = bandwidth
        self._seed = seed
        self._protocol = protocol
        self._conversations: set[asyncio.Task[None]] = set()
        self._error: Exception | None = None
        self.inject(faults)

    def inject(self, faults: Mapping[Fault, float] | Script | None) -> None:
        """Let happen to requests what ``faults`` say, from the next one on; ``None`` is nothing."""
        self.script = faults if callable(faults) else Dice(faults or {}, self._seed)

    @property
    def host(self) -> str:
        """Where the proxy listens."""
        return LOOPBACK

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        port: int = self._listener.sockets[0].getsockname()[1]
        return port

    @property
    def url(self) -> str:
        """Where the proxy listens, without a ``/`` at the end."""
        return f"{self._protocol}://{self.host}:{self.port}"

    async def __aenter__(self) -> Self:
        self._listener = await asyncio.start_server(self._accept, LOOPBACK, 0, limit=2**20, backlog=1024)
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        self._listener.close()
        for conversation in self._conversations:
            conversation.cancel()
        await asyncio.gather(*self._conversations, return_exceptions=True)
        await self._listener.wait_closed()
        if self._error is not None and kind is None:
            raise self._error

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        conversation = asyncio.create_task(self._converse(Link(reader, writer, self._bandwidth)))
        self._conversations.add(conversation)
        conversation.add_done_callback(self._conversations.discard)

    async def _converse(self, client: Link) -> None:
        kind = HttpConversation if self._protocol == "http" else TcpConversation
        conversation = kind(self, client, self._target, self._bandwidth)
        try:
            # broken connections are what a proxy of faults lives with, whoever breaks them
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await conversation.run()
        except Exception as error:  # noqa: BLE001 - raised at the end, where the test sees it
            self._error = self._error or error
        finally:
            await conversation.end()
