"""Connections for values: when they are used again, when never, and what is left of them."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
from types import SimpleNamespace

import aiohttp
import pytest
from yarl import URL

from azarr.errors import StoreError, TransientStoreError
from azarr.retry import NO_RETRIES
from azarr.stores import http_connections
from azarr.stores.http import HTTPStore
from azarr.stores.http_connections import Connections
from azarr.stores.http_exchange import Wanted, failed
from azarr.types import ByteRange

LARGE = bytes(range(256)) * 2000


class Server:
    """Runs ``talk`` for each connection, with a ``Talk``; all have ended when it is left."""

    def __init__(self, talk, *, tls=None) -> None:
        self._talk, self._tls = talk, tls
        self.talks = []

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        self.url = URL(f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}")
        return self

    async def __aexit__(self, *_):
        self._server.close()
        await asyncio.gather(*[talk.ended.wait() for talk in self.talks])

    async def _serve(self, reader, writer):
        talk = Talk(reader, writer)
        self.talks.append(talk)
        try:
            await self._talk(talk)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            talk.ended.set()


class Talk:
    """One connection, as the server sees it."""

    def __init__(self, reader, writer) -> None:
        self.reader, self.writer = reader, writer
        self.asked = []
        self.ended = asyncio.Event()

    async def request(self):
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.asked.append(head.decode())

    async def send(self, *pieces):
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    def reset(self):
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def end(self):
        """Wait until the other side has closed it."""
        while await self.reader.read(2**16):
            pass


def reply(body=b"hello", status="200 OK", more=""):
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


async def always(talk):
    while True:
        await talk.request()
        await talk.send(reply())


def wanted(request=None, expected=None, **options):
    return Wanted(request, SimpleNamespace(expect=(expected if expected is not None else []).append), **options)


async def get(connections, target="/k", request=None, headers=None):
    answer = await connections.get(target, headers or {}, wanted(request))
    return None if answer is None else bytes(answer.body)


def pool(server, **headers):
    return Connections(server.url, {"Host": "here", **headers}, None)


# --- requests


async def test_what_is_sent():
    async with Server(always) as server, pool(server, **{"user-agent": "mine", "X-Name": "ü"}) as connections:
        await connections.get("/a%20b?c=d", {"range": "bytes=0-4"}, wanted(None))
        (talk,) = server.talks
        first, *lines = talk.asked[0].split("\r\n")
        assert first == "GET /a%20b?c=d HTTP/1.1"
        assert sorted(lines) == [
            "",
            "",
            "Accept-Encoding: identity",
            "Accept: */*",
            "Host: here",
            "X-Name: ü",
            "range: bytes=0-4",
            "user-agent: mine",
        ]


@pytest.mark.parametrize("bad", ["\r", "\n", "\0", "\x7f", "\r\nX: y", "\x0b"])
async def test_nothing_breaks_out_of_its_line(bad):
    async with Server(always) as server:
        with pytest.raises(StoreError, match="control characters"):
            pool(server, X=f"a{bad}b")
        async with pool(server) as connections:
            for target, headers in ((f"/{bad}", {}), ("/ HTTP/1.1 ", {}), ("/k", {"range": bad}), ("/k", {f"X{bad}": "y"})):
                with pytest.raises(StoreError, match="control characters"):
                    await get(connections, target, headers=headers)
        assert not server.talks


# --- connections that are used again


async def test_connections_are_used_again_the_last_one_first():
    gate, both = asyncio.Event(), asyncio.Semaphore(0)

    async def talk(talk):
        while True:
            await talk.request()
            both.release()
            await gate.wait()
            await talk.send(reply())

    async with Server(talk) as server, pool(server) as connections:
        requests = [asyncio.create_task(get(connections)) for _ in range(2)]
        for _ in range(2):
            await both.acquire()
        gate.set()
        assert await asyncio.gather(*requests) == [b"hello"] * 2
        for _ in range(5):
            assert await get(connections) == b"hello"
        assert sorted(len(talk.asked) for talk in server.talks) == [1, 6]


async def test_many_absent_values_by_one_connection():
    page = b"<Error><Code>NoSuchKey</Code></Error>"

    async def talk(talk):
        while True:
            await talk.request()
            head = b"HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n"
            await talk.send(head, b"%x\r\n%s\r\n0\r\n\r\n" % (len(page), page))

    async with Server(talk) as server, pool(server) as connections:
        for _ in range(10):
            answer = await connections.get("/k", {}, wanted())
            assert (answer.status, bytes(answer.body)) == (404, page)
        assert len(server.talks) == 1


async def test_values_in_pieces():
    expected = []

    async def talk(talk):
        while True:
            await talk.request()
            data = reply(LARGE)
            await talk.send(data[:10], data[10:30], data[30:1000], data[1000:200_000], data[200_000:])

    async with Server(talk) as server, pool(server) as connections:
        values = [(await connections.get("/k", {}, wanted(None, expected))).body for _ in range(3)]
        assert values == [LARGE] * 3
        assert expected == [len(LARGE)] * 3
        assert len(server.talks) == 1


# --- connections that are not used again


@pytest.mark.parametrize(
    "answer",
    [
        reply(more="Connection: close\r\n"),
        reply().replace(b"HTTP/1.1", b"HTTP/1.0"),
        reply() + b"x",
        reply() + reply(b"other"),
        reply(LARGE) + reply(b"other"),
    ],
    ids=["close", "1.0", "a byte more", "an answer more", "an answer after a large one"],
)
async def test_connections_that_are_not_used_again(answer):
    async def talk(talk):
        await talk.request()
        await talk.send(answer)
        await talk.end()

    async with Server(talk) as server, pool(server) as connections:
        for _ in range(3):
            assert await get(connections) in {b"hello", LARGE}
        assert [len(talk.asked) for talk in server.talks] == [1, 1, 1]


async def test_nothing_is_taken_from_a_connection_that_speaks_unasked():
    spoken = asyncio.Event()

    async def talk(talk):
        await talk.request()
        await talk.send(reply(b"1"))
        await spoken.wait()
        await talk.send(reply(b"smuggled"))
        await talk.end()

    async with Server(talk) as server, pool(server) as connections:
        assert await get(connections) == b"1"
        (first,) = server.talks
        spoken.set()
        await first.ended.wait()
        assert await get(connections) == b"1"
        assert len(server.talks) == 2


async def test_a_value_does_not_change_when_more_arrives():
    async with Server(always) as server, pool(server) as connections:
        await get(connections)
        (connection,) = connections._opened
        request = asyncio.create_task(connection.exchange(b"GET / HTTP/1.1\r\n\r\n", lambda head: None))
        await asyncio.sleep(0)
        for data in (reply(LARGE), b"x" * 100):  # before the request gets its turn
            start = 0
            while start < len(data):
                room = connection.get_buffer(-1)
                piece = data[start : start + len(room)]
                room[: len(piece)] = piece
                connection.buffer_updated(len(piece))
                start += len(piece)
        assert (await request).body == LARGE
        assert not connection.is_open


async def test_idle_connections_are_closed(monkeypatch):
    monkeypatch.setattr(http_connections, "IDLE_SECONDS", 0.0)
    async with Server(always) as server, pool(server) as connections:
        assert await get(connections) == b"hello"
        await server.talks[0].ended.wait()
        assert not connections._idle
        assert connections._sweeping is None
        assert await get(connections) == b"hello"
        assert len(server.talks) == 2


async def test_only_those_are_closed_that_were_idle_for_long(monkeypatch):
    async with Server(always) as server, pool(server) as connections:
        assert await get(connections) == b"hello"
        connections._sweeping.cancel()
        connections._sweep()
        assert len(connections._idle) == 1
        assert connections._sweeping is not None
        assert await get(connections) == b"hello"
        assert len(server.talks) == 1


# --- connections that break


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_a_request_is_made_again_where_an_old_connection_is_broken(how):
    async def talk(talk):
        await talk.request()
        await talk.send(reply())
        await talk.request()  # which is not answered
        if how == "reset":
            talk.reset()

    async with Server(talk) as server, pool(server) as connections:
        for _ in range(3):
            assert await get(connections) == b"hello"
        assert [len(talk.asked) for talk in server.talks] == [2, 2, 1]


async def test_one_that_is_closed_while_it_is_idle():
    async def talk(talk):
        await talk.request()
        await talk.send(reply())

    async with Server(talk) as server, pool(server) as connections:
        for _ in range(3):
            assert await get(connections) == b"hello"
            await asyncio.gather(*[each.lost for each in connections._opened])
        assert [len(talk.asked) for talk in server.talks] == [1, 1, 1]


async def test_a_request_is_made_again_only_once():
    async def talk(talk):
        await talk.request()
        if len(server.talks) <= 2:
            await gate.wait()
            await talk.send(reply())
            await talk.request()

    gate = asyncio.Event()
    async with Server(talk) as server, pool(server) as connections:
        requests = [asyncio.create_task(get(connections)) for _ in range(2)]
        gate.set()
        await asyncio.gather(*requests)
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(connections)
        assert sum(len(talk.asked) for talk in server.talks) == 4


@pytest.mark.parametrize(
    "sent", [b"", b"HTTP/1.1 200", reply()[:-1], reply(LARGE)[:-1], b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhell"]
)
async def test_a_new_connection_that_breaks(sent):
    async def talk(talk):
        await talk.request()
        await talk.send(sent)

    async with Server(talk) as server, pool(server) as connections:
        with pytest.raises(aiohttp.ClientError) as failure:
            await get(connections)
        assert isinstance(failed(failure.value, "it"), TransientStoreError)
        assert len(server.talks) == 1


@pytest.mark.parametrize("how", ["closed", "reset"])
async def test_an_answer_that_has_begun_is_not_asked_for_again(how):
    begun = asyncio.Event()

    async def talk(talk):
        await talk.request()
        await talk.send(reply(LARGE))
        await talk.request()
        await talk.send(reply(LARGE)[:-1])
        await begun.wait()
        if how == "reset":
            talk.reset()

    async with Server(talk) as server, pool(server) as connections:
        assert await get(connections) == LARGE
        head_came = Wanted(None, SimpleNamespace(expect=lambda nbytes: begun.set()))
        with pytest.raises(aiohttp.ClientPayloadError if how == "closed" else aiohttp.ClientOSError):
            await connections.get("/k", {}, head_came)
        assert len(server.talks) == 1


async def test_answers_that_are_no_http():
    async def talk(talk):
        await talk.request()
        await talk.send(b"220 smtp ESMTP\r\n\r\n")
        await talk.end()

    async with Server(talk) as server, pool(server) as connections:
        for _ in range(2):
            with pytest.raises(TransientStoreError, match="no HTTP"):
                await get(connections)
        assert len(server.talks) == 2


async def test_requests_that_are_cancelled_leave_nothing():
    arrived, gate = asyncio.Event(), asyncio.Event()

    async def talk(talk):
        while True:
            await talk.request()
            await talk.send(reply(LARGE)[:300_000])
            arrived.set()
            await gate.wait()
            await talk.send(reply(LARGE)[300_000:])

    async with Server(talk) as server, pool(server) as connections:
        request = asyncio.create_task(get(connections))
        await arrived.wait()
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
        gate.set()
        await server.talks[0].ended.wait()
        assert await get(connections) == LARGE
        assert len(server.talks) == 2
        assert len(connections._idle) == len(connections._opened) == 1


async def test_cancelled_while_connecting():
    async with Server(always) as server, pool(server) as connections:
        for turns in range(8):
            request = asyncio.create_task(get(connections))
            for _ in range(turns):
                await asyncio.sleep(0)
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        assert await get(connections) == b"hello"


async def test_a_timeout_closes_the_connection():
    async def talk(talk):
        await talk.request()
        await talk.end()

    async with Server(talk) as server, pool(server) as connections:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await get(connections)
        await asyncio.gather(*[talk.ended.wait() for talk in server.talks])
        assert not connections._idle


# --- what is left to aiohttp


async def test_answers_that_aiohttp_has_to_ask_for():
    async def talk(talk):
        while True:
            await talk.request()
            await talk.send(reply(LARGE))

    async with Server(talk) as server, pool(server) as connections:
        for _ in range(http_connections.UNFIT - 1):
            assert await get(connections, request=ByteRange(0, 5)) is None
        assert await get(connections) == LARGE
        for _ in range(http_connections.UNFIT + 3):  # from now on it does not even try
            assert await get(connections, request=ByteRange(0, 5)) is None
        assert await get(connections) is None
        assert sum(len(talk.asked) for talk in server.talks) == 2 * http_connections.UNFIT


async def test_a_server_that_ignores_ranges_is_asked_once_in_the_end(server):
    server.answer = lambda asked: reply(LARGE)
    async with HTTPStore(server.url, retry=NO_RETRIES) as store:
        for _ in range(6):
            assert await store.get("k", ByteRange(1, 5)) == LARGE[1:5]
    assert len(server.asked) == 6 + http_connections.UNFIT


async def test_values_that_end_with_the_connection(server):
    server.answer = lambda asked: b"HTTP/1.1 200 OK\r\n\r\nhello" + server.CLOSE
    async with HTTPStore(server.url, retry=NO_RETRIES) as store:
        assert await store.get("k") == b"hello"


async def test_other_parts_than_what_was_asked_for():
    async def talk(talk):
        while True:
            await talk.request()
            await talk.send(reply(b"hello", "206 Partial", "Content-Range: bytes 1-5/9\r\n"))

    async with Server(talk) as server, pool(server) as connections:
        assert await get(connections, request=ByteRange(1, 6)) == b"hello"
        with pytest.raises(TransientStoreError, match="another range"):
            await get(connections, request=ByteRange(0, 5))
        with pytest.raises(StoreError, match="more than the 4 bytes"):
            await get(connections, request=ByteRange(1, 5))


async def test_encoded_values():
    async def talk(talk):
        await talk.request()
        await talk.send(reply(more="Content-Encoding: gzip\r\n"))

    async with Server(talk) as server, pool(server) as connections:
        with pytest.raises(StoreError, match="encoded"):
            await get(connections)
        answer = await connections.get("/k", {}, wanted(None, stored_encoded=True))
        assert bytes(answer.body) == b"hello"


async def test_proxies_are_for_aiohttp(server, monkeypatch):
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.delenv("no_proxy", raising=False)
    server.answer = lambda asked: reply()
    async with HTTPStore("http://data.example/", retry=NO_RETRIES, trust_env=True) as store:
        assert await store.get("k") == b"hello"
    assert server.asked[0].target == "http://data.example/k"


# --- the other side is not there, or not who it should be


async def test_nobody_there():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with Connections(URL(f"http://127.0.0.1:{port}"), {}, None) as connections:
        with pytest.raises(aiohttp.ClientConnectorError, match=f"127.0.0.1:{port}") as failure:
            await get(connections)
        assert isinstance(failed(failure.value, "it"), TransientStoreError)


async def test_names_are_looked_up_once(monkeypatch):
    looked_up = []

    async def lookup(host, port, **options):
        looked_up.append(host)
        return socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)

    async with Server(always) as server, Connections(URL(f"http://data.example:{server.port}"), {}, None) as connections:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        assert await asyncio.gather(*[get(connections) for _ in range(5)]) == [b"hello"] * 5
        assert looked_up == ["data.example"]


async def test_names_that_nobody_has(monkeypatch):
    async def lookup(host, port, **options):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async with Connections(URL("http://data.example"), {}, None) as connections:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        with pytest.raises(aiohttp.ClientConnectorDNSError, match=r"data.example:80.*not known"):
            await get(connections)


async def test_another_address_where_the_first_is_dead(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        dead = taken.getsockname()

    async def lookup(host, port, **options):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in (dead, ("127.0.0.1", port))]

    async with Server(always) as server, Connections(URL(f"http://data.example:{server.port}"), {}, None) as connections:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        assert await get(connections) == b"hello"


async def test_a_server_that_does_not_take_connections(monkeypatch):
    monkeypatch.setattr(http_connections, "CONNECT_SECONDS", 0.01)

    async def lookup(host, port, **options):
        await asyncio.Event().wait()

    async with Connections(URL("http://data.example"), {}, None) as connections:
        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", lookup)
        with pytest.raises(aiohttp.ConnectionTimeoutError) as failure:
            await get(connections)
        assert isinstance(failed(failure.value, "it"), TransientStoreError)


async def test_tls(certificate, server_tls):
    async def talk(talk):
        while True:
            await talk.request()
            await talk.send(reply(LARGE))

    trusting = ssl.create_default_context(cafile=certificate[0])
    async with Server(talk, tls=server_tls) as server, Connections(server.url, {}, trusting) as connections:
        for _ in range(3):
            assert await get(connections) == LARGE
        assert len(server.talks) == 1


async def test_a_certificate_that_nobody_trusts(server_tls, monkeypatch):
    async with Server(always, tls=server_tls) as server:
        async with Connections(server.url, {}, http_connections.verified()) as connections:
            with pytest.raises(aiohttp.ClientConnectorCertificateError) as failure:
                await get(connections)
        assert type(failed(failure.value, "it")) is StoreError
        async with HTTPStore(str(server.url), retry=NO_RETRIES) as store:
            with pytest.raises(StoreError, match="cannot prove who it is") as refusal:
                await store.get("k")
            assert type(refusal.value) is StoreError
        assert not server.talks


async def test_a_certificate_of_another(certificate, server_tls):
    trusting = ssl.create_default_context(cafile=certificate[0])
    async with Server(always, tls=server_tls) as server, Connections(URL(f"https://localhost:{server.port}"), {}, trusting) as connections:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await get(connections)


async def test_a_server_that_speaks_no_tls():
    async def talk(talk):
        await talk.send(b"220 smtp ESMTP\r\n")
        await talk.end()

    async with Server(talk) as server, Connections(server.url.with_scheme("https"), {}, http_connections.verified()) as connections:
        with pytest.raises(aiohttp.ClientConnectorSSLError):
            await get(connections)


# --- the end


async def test_requests_in_flight_when_all_is_closed():
    async def talk(talk):
        await talk.request()
        asked.set()
        await talk.end()

    asked = asyncio.Event()
    async with Server(talk) as server:
        async with pool(server) as connections:
            request = asyncio.create_task(get(connections))
            await asked.wait()
        assert not connections._opened
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await request
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await get(connections)


def test_nothing_is_left_with_the_loop_or_a_store_that_is_forgotten():
    async def forget(*, collect):
        async with Server(always) as server:
            store = HTTPStore(str(server.url), retry=NO_RETRIES)
            assert await store.get("k") == b"hello"
            if collect:
                del store
                gc.collect()
                await server.talks[0].ended.wait()
            else:
                kept.append(store)
                server.talks.clear()  # the loop ends before they do

    kept = []
    for collect in (True, False):
        asyncio.run(forget(collect=collect))
    gc.collect()


async def test_as_many_connections_as_there_are_requests_at_once(server):
    server.answer = lambda asked: reply()
    async with HTTPStore(server.url, retry=NO_RETRIES, concurrency=3) as store:
        await asyncio.gather(*[store.get(f"k{i}") for i in range(50)])
    assert server.connections <= 3
