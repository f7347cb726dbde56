"""One connection of a client to a server that goes through a proxy, and what is let go wrong on it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from typing import Final

from azarr.testing.faults import (
    Answer,
    BrokenBody,
    Delay,
    Fault,
    LostResponse,
    NoAnswer,
    ProxiedRequest,
    Reset,
    Script,
    StalledBody,
    TokenBucket,
    TruncatedBody,
)
from azarr.testing.http_messages import PIECE, Body, Head, message, read_head

STEPS: Final = 20
"""Into so many steps a second of a limited bandwidth is cut."""


class Traffic:
    """What all connections through one proxy share: the requests that are counted, and what happens to them."""

    script: Script

    def __init__(self, *, seed: int, latency: float, jitter: float, bucket: TokenBucket | None, throttle: Answer) -> None:
        self.requests = self.in_flight = self.max_in_flight = 0
        self.injected: Counter[str] = Counter()
        self._latency, self._jitter = latency, jitter
        self._random = random.Random(seed)  # noqa: S311 - faults are no secret
        self._bucket, self._throttle = bucket, throttle

    def draw(self, method: str, path: str, head: bytes) -> Fault | None:
        """What happens to the next request."""
        request = ProxiedRequest(self.requests, method, path, head)
        self.requests += 1
        if self._bucket is not None and not self._bucket.take(asyncio.get_running_loop().time()):
            self.injected["throttled"] += 1
            return self._throttle
        fault = self.script(request)
        if fault is not None:
            self.injected[fault.kind] += 1
        return fault

    async def travel(self, fault: Fault | None) -> None:
        """Let the time pass that a request is on its way."""
        seconds = self._latency + self._random.uniform(0, self._jitter) + (fault.seconds if isinstance(fault, Delay) else 0)
        if seconds > 0:
            await asyncio.sleep(seconds)

    def place(self, after: int | None, nbytes: int) -> int:
        """After how many of ``nbytes`` bytes a fault strikes."""
        drawn = int(self._random.random() * nbytes)
        return drawn if after is None else min(after, nbytes - 1)

    def begin(self) -> None:
        """Count a request as being in flight."""
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)

    def end(self) -> None:
        """Count it no more."""
        self.in_flight -= 1


class Link:
    """One connection, to a client or to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bandwidth: float | None) -> None:
        self.reader = reader
        self._writer = writer
        self._bandwidth = bandwidth

    async def send(self, data: bytes) -> None:
        """Send ``data``, at the pace of the bandwidth."""
        if self._bandwidth is None:
            self._writer.write(data)
            await self._writer.drain()
            return
        step = max(1, int(self._bandwidth / STEPS))
        for start in range(0, len(data), step):
            piece = data[start : start + step]
            self._writer.write(piece)
            await self._writer.drain()
            await asyncio.sleep(len(piece) / self._bandwidth)

    async def flush(self) -> None:
        """Wait until the system has got all that was sent."""
        self._writer.transport.set_write_buffer_limits(0)
        await self._writer.drain()

    def reset(self) -> None:
        """End the connection by a reset."""
        # to linger for no time at all is to reset
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def finish(self) -> None:
        """End the connection in order, when all has been sent."""
        self._writer.close()
        await self._writer.wait_closed()

    async def silence(self) -> None:
        """Take what comes and do nothing, until the other side ends the connection."""
        while await self.reader.read(PIECE):
            pass

    def abort(self) -> None:
        """End the connection, if it has not ended, whatever is still to be sent."""
        self._writer.transport.abort()

    async def closed(self) -> None:
        """Wait until the connection has ended, however it does so."""
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class Conversation:
    """A connection of a client through a proxy, and the one to the ``server`` that belongs to it, when there is one."""

    def __init__(self, traffic: Traffic, client: Link, target: tuple[str, int], bandwidth: float | None) -> None:
        self._traffic = traffic
        self._client = client
        self._target, self._bandwidth = target, bandwidth
        self._server: Link | None = None

    async def run(self) -> None:
        """Serve the client until it goes away, or a fault ends the connection."""
        raise NotImplementedError

    async def end(self) -> None:
        """Leave no connection open."""
        links = [link for link in (self._client, self._server) if link is not None]
        for link in links:
            link.abort()
        for link in links:
            await link.closed()

    async def _connected(self) -> Link:
        """The connection to the server; a new one where the server has closed the old one meanwhile."""
        if self._server is not None and self._server.reader.at_eof():
            self._server.abort()
            await self._server.closed()
            self._server = None
        if self._server is None:
            self._server = Link(*await asyncio.open_connection(*self._target, limit=2**20), self._bandwidth)
        return self._server


class HttpConversation(Conversation):
    """Request after request of HTTP/1.1, as ``run`` forwards them; ``False`` as an answer means that the connection has ended."""

    async def run(self) -> None:
        """Serve the client until it goes away, or a fault ends the connection."""
        while (request := await read_head(self._client.reader)) is not None:
            self._traffic.begin()
            try:
                if not await self._exchange(request):
                    return
            finally:
                self._traffic.end()

    async def _exchange(self, request: Head) -> bool:
        fault = self._traffic.draw(request.method, request.path, request.raw)
        body = Body.of_request(request, self._client.reader)
        await self._traffic.travel(fault)
        match fault:
            case Reset():
                self._client.reset()
                return False
            case NoAnswer():
                await self._client.silence()
                return False
            case Answer():
                return await self._answer(fault, request, body)
        return await self._forward(fault, request, body)

    async def _answer(self, answer: Answer, request: Head, body: Body | None) -> bool:
        # a client that waits to be told to go on does not send the body, and a client that sends it does not look for an answer before
        close = request.expects_continue
        if body is not None and not close:
            while await body.read():
                pass
        await self._client.send(message(answer, request, close=close))
        if close:
            await self._client.finish()
        return not close

    async def _forward(self, fault: Fault | None, request: Head, body: Body | None) -> bool:
        server = await self._connected()
        await server.send(request.raw)
        if body is None:
            return await self._respond(fault, request, server)
        sending = asyncio.create_task(send_body(body, server))
        try:
            going_on = await self._respond(fault, request, server)
            if not sending.done():
                # the server did not want all of the body, so where the next request begins is not known
                await self._client.finish()
                return False
            return going_on
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    async def _respond(self, fault: Fault | None, request: Head, server: Link) -> bool:
        while (response := await read_head(server.reader)) is not None and response.status < 200:
            await self._client.send(response.raw)
        if response is None:
            await self._client.finish()
            return False
        body = Body.of_response(response, server.reader, request.method)
        match fault:
            case LostResponse():
                await body.read_all()
                self._client.reset()
                return False
            case BrokenBody() | TruncatedBody() | StalledBody():
                raw = await body.read_all()
                await self._client.send(response.raw + raw[: self._traffic.place(fault.after, len(raw))] if raw else half(response.raw))
                await cut(self._client, fault)
                return False
        await self._client.send(response.raw + await body.read())
        while piece := await body.read():
            await self._client.send(piece)
        if response.closes or body.ends_with_connection:
            await self._client.finish()
            return False
        return True


class TcpConversation(Conversation):
    """Any protocol in which the client asks and the server answers: what is sent after an answer is the next request."""

    _fault: Fault | None = None
    _asked = False
    _silent = False

    async def run(self) -> None:
        """Serve the client until it goes away, or a fault ends the connection."""
        server = await self._connected()
        ways = [asyncio.create_task(self._ask(server)), asyncio.create_task(self._answer(server))]
        try:
            done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._end_request()
        for way in done:
            way.result()

    def _end_request(self) -> None:
        if self._asked:
            self._asked = False
            self._traffic.end()

    async def _ask(self, server: Link) -> None:
        while data := await self._client.reader.read(PIECE):
            if not self._asked and not self._silent:
                self._asked = True
                self._traffic.begin()
                self._fault = fault = self._traffic.draw("", "", data)
                if isinstance(fault, Answer):
                    raise TypeError(f"{fault} is an answer of HTTP, which is not what is spoken here")
                await self._traffic.travel(fault)
                if isinstance(fault, Reset):
                    self._client.reset()
                    return
                self._silent = isinstance(fault, NoAnswer)
            if not self._silent:
                await server.send(data)

    async def _answer(self, server: Link) -> None:
        while data := await server.reader.read(PIECE):
            if self._silent:
                continue
            fault, self._fault = self._fault, None
            match fault:
                case LostResponse():
                    self._client.reset()
                    return
                case StalledBody(after):
                    self._silent = True
                    await self._client.send(data[: self._traffic.place(after, len(data))])
                    continue
                case BrokenBody(after) | TruncatedBody(after):
                    await self._client.send(data[: self._traffic.place(after, len(data))])
                    await cut(self._client, fault)
                    return
            self._end_request()
            await self._client.send(data)
        await self._client.finish()


async def send_body(body: Body, server: Link) -> None:
    """Send the body of a request; a client that breaks off breaks the connection to the server, too."""
    try:
        while piece := await body.read():
            await server.send(piece)
    except (OSError, asyncio.IncompleteReadError):
        server.abort()
        raise


def half(head: bytes) -> bytes:
    """What a response without a body is cut to."""
    return head[: len(head) // 2]


async def cut(client: Link, fault: BrokenBody | TruncatedBody | StalledBody) -> None:
    """End a response in its middle as ``fault`` says."""
    match fault:
        case BrokenBody():
            await client.flush()
            client.reset()
        case TruncatedBody():
            await client.finish()
        case StalledBody():
            await client.silence()
