from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress

import pytest

from azarr.testing import FaultProxy
from azarr.testing.faults import Answer, BrokenBody, Delay, LostResponse, NoAnswer, Reset, StalledBody, TruncatedBody

BODY = bytes(range(256)) * 40
LATE = [BrokenBody, TruncatedBody, StalledBody]
pytestmark = pytest.mark.usefixtures("complaints")


class Server:
    """Answers HTTP as the path says; ``seen`` are the heads and bodies of the requests that reached it."""

    def __init__(self) -> None:
        self.seen = []
        self.wanted = asyncio.Event()

    async def serve(self, reader, writer):
        try:
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    return
                if b"expect: 100-continue" in head.lower():
                    if head.startswith(b"PUT /refused"):
                        self.seen.append((head, b""))
                        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
                        await reader.read()
                        return
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                self.seen.append((head, await self.body(head, reader)))
                method, path, _ = head.decode().split(" ", 2)
                response = self.response(method, path)
                writer.write(response[: response.index(b"\r\n\r\n") + 4] if method == "HEAD" else response)
                if path == "/close":
                    return
        finally:
            writer.close()

    async def body(self, head, reader):
        if b"Transfer-Encoding: chunked" in head:
            return await reader.readuntil(b"0\r\n\r\n")
        length = next((int(line[15:]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length:")), 0)
        return await reader.readexactly(length)

    def response(self, method, path):
        if path == "/missing":
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        if path == "/same":
            return b"HTTP/1.1 304 Not Modified\r\nContent-Length: 999\r\n\r\n"
        if path == "/chunked":
            return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
        if path == "/early":
            return b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        if path == "/close":
            return b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY
        if method == "PUT":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY


@asynccontextmanager
async def proxied(serve, **options):
    """A proxy of a server of ours."""
    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=2**20)
    try:
        async with FaultProxy("127.0.0.1", server.sockets[0].getsockname()[1], **options) as proxy:
            yield proxy
    finally:
        server.close()
        await server.wait_closed()
        # the connections of the server notice that those of the proxy have ended
        await asyncio.gather(*(asyncio.all_tasks() - {asyncio.current_task()}), return_exceptions=True)


@pytest.fixture
def server():
    return Server()


class Client:
    """A connection to the proxy on which a test says everything itself."""

    def __init__(self, reader, writer) -> None:
        self.reader, self.writer = reader, writer

    async def ask(self, method, path, body=b"", *headers):
        lines = [f"{method} {path} HTTP/1.1", "Host: Example.org:1", *headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    async def head(self):
        return (await self.reader.readuntil(b"\r\n\r\n")).decode()

    async def response(self):
        """The head, and the body if it has a length."""
        head = await self.head()
        length = next((int(line[15:]) for line in head.split("\r\n") if line.startswith("Content-Length:")), 0)
        return head, await self.reader.readexactly(length)

    async def rest(self):
        """All that comes before the end of the connection, and how it ends."""
        received = b""
        try:
            while piece := await self.reader.read(100_000):
                received += piece
        except ConnectionResetError:
            return received, "reset"
        return received, "closed"


@asynccontextmanager
async def connected(proxy):
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port, limit=2**20)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(OSError):
            await writer.wait_closed()


async def nothing_comes(client):
    """Whether the connection is open and silent; the proxy has had its turns to say something."""
    for _ in range(50):
        await asyncio.sleep(0)
    assert not client.reader.at_eof()


async def test_forwards_byte_for_byte(server):
    async with proxied(server.serve) as proxy, connected(proxy) as client:
        assert proxy.url == f"http://127.0.0.1:{proxy.port}"
        await client.ask("PUT", "/a?b=%2F", BODY, "aUtHorization:   AWS4 x")
        assert await client.response() == ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"")
        await client.ask("GET", "/a")
        assert (await client.response())[1] == BODY
        assert server.seen == [
            (
                f"PUT /a?b=%2F HTTP/1.1\r\nHost: Example.org:1\r\naUtHorization:   AWS4 x\r\nContent-Length: {len(BODY)}\r\n\r\n".encode(),
                BODY,
            ),
            (b"GET /a HTTP/1.1\r\nHost: Example.org:1\r\n\r\n", b""),
        ]
        assert (proxy.requests, proxy.injected, proxy.max_in_flight) == (2, {}, 1)


async def test_responses_without_a_body(server):
    async with proxied(server.serve) as proxy, connected(proxy) as client:
        for method, path, first in [
            ("HEAD", "/a", "200"),
            ("GET", "/missing", "204"),
            ("GET", "/same", "304"),
            ("HEAD", "/chunked", "200"),
        ]:
            await client.ask(method, path)
            assert (await client.head()).split()[1] == first
        await client.ask("GET", "/a")
        assert (await client.response())[1] == BODY
        assert proxy.requests == 5


async def test_chunked_bodies_both_ways(server):
    async with proxied(server.serve) as proxy, connected(proxy) as client:
        await client.ask("POST", "/chunked", b"", "Transfer-Encoding: chunked")
        client.writer.write(b"4\r\n0123\r\n")
        await client.writer.drain()
        client.writer.write(b"0\r\n\r\n")
        await client.head()
        assert await client.reader.readuntil(b"Trailer: t\r\n\r\n") == b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n"
        assert server.seen[0][1] == b"4\r\n0123\r\n0\r\n\r\n"
        await client.ask("GET", "/a")
        assert (await client.response())[1] == BODY


async def test_body_that_ends_with_the_connection(server):
    async with proxied(server.serve) as proxy, connected(proxy) as client:
        await client.ask("GET", "/close")
        await client.head()
        assert await client.rest() == (BODY, "closed")


async def test_expect_continue(server):
    async with proxied(server.serve) as proxy, connected(proxy) as client:
        client.writer.write(b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert await client.head() == "HTTP/1.1 100 Continue\r\n\r\n"
        client.writer.write(b"abc")
        assert (await client.head()).startswith("HTTP/1.1 200 OK")
        assert server.seen[0][1] == b"abc"
        await client.ask("GET", "/early")
        assert (await client.head()).startswith("HTTP/1.1 103")
        assert (await client.response())[1] == b"ok"


async def test_server_refuses_a_body_before_it_is_sent(server):
    async with proxied(server.serve) as proxy, connected(proxy) as client:
        client.writer.write(b"PUT /refused HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert (await client.response())[1] == b"no"
        assert await client.rest() == (b"", "closed")


async def test_server_that_closes_between_two_requests():
    async def once(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    async with proxied(once) as proxy, connected(proxy) as client:
        for _ in range(3):
            await client.ask("GET", "/")
            assert (await client.response())[1] == b"ok"
            await nothing_comes(client)


async def test_server_that_cannot_be_reached():
    async with proxied(lambda *_: None) as gone:
        pass
    async with FaultProxy(*gone._target) as proxy, connected(proxy) as client:
        await client.ask("GET", "/")
        assert (await client.rest())[0] == b""


async def test_server_that_breaks_off():
    async def half(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
        writer.close()

    async with proxied(half) as proxy, connected(proxy) as client:
        await client.ask("GET", "/")
        assert (await client.rest())[0] == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc"


async def test_client_that_breaks_off_breaks_the_connection_to_the_server():
    ended = asyncio.Event()

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        with suppress(ConnectionResetError):
            assert len(await reader.read()) == 3
        ended.set()
        writer.close()

    async with proxied(serve) as proxy:
        async with connected(proxy) as client:
            client.writer.write(b"PUT / HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc")
            await client.writer.drain()
        await ended.wait()


async def test_reset_before_the_request_is_forwarded(server):
    async with proxied(server.serve, faults={Reset(): 1.0}) as proxy, connected(proxy) as client:
        await client.ask("GET", "/a")
        assert await client.rest() == (b"", "reset")
        assert server.seen == []
        assert proxy.injected == {"reset": 1}


@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
async def test_lost_response(server, method):
    async with proxied(server.serve, faults={LostResponse(): 1.0}) as proxy, connected(proxy) as client:
        await client.ask(method, "/a", b"abc" if method == "PUT" else b"")
        assert await client.rest() == (b"", "reset")
        assert [body for _, body in server.seen] == [b"abc" if method == "PUT" else b""]
        assert proxy.injected == {"lost_response": 1}


async def test_no_answer(server):
    async with proxied(server.serve, faults={NoAnswer(): 1.0}) as proxy, connected(proxy) as client:
        await client.ask("GET", "/a")
        await nothing_comes(client)
        assert server.seen == []
        assert proxy.in_flight == 1


@pytest.mark.parametrize("kind", LATE)
@pytest.mark.parametrize(("after", "nbytes"), [(100, 100), (0, 0), (10**9, len(BODY) - 1), (None, None)])
async def test_response_that_breaks_in_its_body(server, kind, after, nbytes):
    async with proxied(server.serve, faults={kind(after): 1.0}, seed=3) as proxy, connected(proxy) as client:
        await client.ask("GET", "/a")
        assert f"Content-Length: {len(BODY)}" in await client.head()
        await ends_as(kind, client, nbytes)
        assert proxy.injected == {kind.kind: 1}


async def ends_as(kind, client, nbytes):
    if kind is StalledBody:
        if nbytes is not None:
            assert await client.reader.readexactly(nbytes) == BODY[:nbytes]
        await nothing_comes(client)
        return
    received, ending = await client.rest()
    assert ending == ("reset" if kind is BrokenBody else "closed")
    assert BODY.startswith(received)
    assert len(received) < len(BODY) if nbytes is None else len(received) == nbytes


@pytest.mark.parametrize("kind", LATE)
async def test_response_without_a_body_breaks_in_its_head(server, kind):
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with proxied(server.serve, faults={kind(7): 1.0}) as proxy, connected(proxy) as client:
        await client.ask("PUT", "/a", b"abc")
        if kind is StalledBody:
            assert await client.reader.readexactly(len(head) // 2) == head[: len(head) // 2]
            await nothing_comes(client)
        else:
            assert (await client.rest())[0] == head[: len(head) // 2]


async def test_truncated_chunked_body_lacks_its_end(server):
    async with proxied(server.serve, faults={TruncatedBody(10**9): 1.0}) as proxy, connected(proxy) as client:
        await client.ask("GET", "/chunked")
        await client.head()
        received, ending = await client.rest()
        assert ending == "closed"
        assert received.endswith(b"Trailer: t\r\n\r")


@pytest.mark.parametrize("answer", [Answer(429, retry_after=2), Answer(500), Answer(503, code="SlowDown", retry_after="now")])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
async def test_answers(server, answer, method):
    faults = {0: answer, 1: answer}
    async with proxied(server.serve, faults=lambda request: faults.get(request.number)) as proxy, connected(proxy) as client:
        for _ in range(2):
            await client.ask(method, "/a", BODY if method == "PUT" else b"")
            head = await client.head()
            assert head.startswith(f"HTTP/1.1 {answer.status} ")
            assert (f"Retry-After: {answer.retry_after}\r\n" in head) is (answer.retry_after is not None)
            if method != "HEAD":
                length = int(head.split("Content-Length: ")[1].split("\r\n")[0])
                body = await client.reader.readexactly(length)
                assert (b"<Code>SlowDown</Code>" in body) is (answer.code is not None)
        assert server.seen == []
        assert proxy.injected == {str(answer.status): 2}
        await client.ask("GET", "/a")
        assert (await client.response())[1] == BODY


async def test_answer_to_who_expects_to_be_told_to_go_on(server):
    async with proxied(server.serve, faults={Answer(503): 1.0}) as proxy, connected(proxy) as client:
        client.writer.write(b"PUT /a HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        head, _ = await client.response()
        assert "Connection: close" in head
        assert await client.rest() == (b"", "closed")


async def test_script_sees_the_requests(server):
    seen = []
    async with proxied(server.serve, faults=seen.append) as proxy, connected(proxy) as client:
        for path in ("/a", "/b?c=d"):
            await client.ask("GET", path)
            await client.response()
    assert [(each.number, each.method, each.path) for each in seen] == [(0, "GET", "/a"), (1, "GET", "/b?c=d")]
    assert seen[0].head == b"GET /a HTTP/1.1\r\nHost: Example.org:1\r\n\r\n"


async def test_error_of_a_script_comes_out_at_the_end(server):
    with pytest.raises(ZeroDivisionError):
        async with proxied(server.serve, faults=lambda _: 1 / 0) as proxy, connected(proxy) as client:
            await client.ask("GET", "/a")
            assert (await client.rest())[0] == b""


async def test_error_of_the_test_is_not_hidden_by_that_of_a_script(server):
    with pytest.raises(KeyError):
        async with proxied(server.serve, faults=lambda _: 1 / 0) as proxy, connected(proxy) as client:
            await client.ask("GET", "/a")
            await client.rest()
            raise KeyError


async def outcomes(server, seed, count=60):
    """What happens to each of so many requests."""
    faults = {Reset(): 0.2, Answer(500): 0.2, LostResponse(): 0.1}
    seen = []
    async with proxied(server.serve, faults=faults, seed=seed) as proxy:
        for _ in range(count):
            async with connected(proxy) as client:
                await client.ask("HEAD", "/a")
                before = len(server.seen)
                received, ending = await one_answer(client)
                seen.append((received, ending, len(server.seen) - before))
        assert sum(proxy.injected.values()) == sum(kind[0] != "200" for kind in seen)
    return seen


async def one_answer(client):
    try:
        return (await client.head()).split()[1], "answered"
    except ConnectionResetError:
        return "", "reset"


async def test_same_seed_same_faults(server):
    first = await outcomes(server, 1)
    assert first == await outcomes(server, 1)
    assert first != await outcomes(server, 2)
    assert {each[0] for each in first} == {"200", "500", ""}


async def test_faults_can_be_changed(server):
    async with proxied(server.serve) as proxy:
        for faults, status in ((None, "200"), ({Answer(500): 1.0}, "500"), (lambda _: Answer(429), "429"), (None, "200")):
            proxy.inject(faults)
            async with connected(proxy) as client:
                await client.ask("HEAD", "/a")
                assert (await one_answer(client))[0] == status


async def test_counts_what_is_in_flight():
    together = asyncio.Barrier(5)

    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        await together.wait()
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        await reader.read()
        writer.close()

    async def one(proxy):
        async with connected(proxy) as client:
            await client.ask("GET", "/")
            await client.head()

    async with proxied(serve) as proxy:
        await asyncio.gather(*(one(proxy) for _ in range(5)))
        assert (proxy.requests, proxy.max_in_flight) == (5, 5)


@pytest.fixture
def waits(monkeypatch):
    """How long has been waited; nobody really waits."""
    waited = []
    sleep = asyncio.sleep

    async def record(seconds):
        if seconds:
            waited.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    return waited


async def test_latency_and_jitter(server, waits):
    for _ in range(2):
        async with proxied(server.serve, latency=1.0, jitter=0.5, seed=7, faults={Delay(10.0): 1.0}) as proxy, connected(proxy) as client:
            for _ in range(20):
                await client.ask("HEAD", "/a")
                await client.head()
    assert waits[:20] == waits[20:]
    assert len(set(waits)) == 20
    assert all(11.0 <= seconds <= 11.5 for seconds in waits)


async def test_bandwidth(server, waits):
    async with proxied(server.serve, bandwidth=1000) as proxy, connected(proxy) as client:
        await client.ask("PUT", "/a", BODY)
        await client.response()
        await client.ask("GET", "/a")
        assert (await client.response())[1] == BODY
    assert sum(waits) == pytest.approx(2 * len(BODY) / 1000, rel=0.1)
    assert max(waits) <= 0.05


async def test_rate_limit(server, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    async with proxied(server.serve, rate_limit=3) as proxy, connected(proxy) as client:
        statuses = []
        for now in (1000.0, 1000.0, 1000.0, 1000.0, 1000.2, 1000.4, 1000.4, 1100.0, 1100.0, 1100.0, 1100.0):  # noqa: B007
            await client.ask("HEAD", "/a")
            statuses.append((await client.head()).split()[1])
    assert statuses == ["200"] * 3 + ["503"] * 2 + ["200", "503"] + ["200"] * 3 + ["503"]
    assert proxy.injected == {"throttled": 4}


async def test_throttle(server):
    limit = {"rate_limit": 0.001, "throttle": Answer(429, retry_after=1)}
    async with proxied(server.serve, **limit) as proxy, connected(proxy) as client:
        for status in ("200", "429"):
            await client.ask("HEAD", "/a")
            assert (await client.head()).split()[1] == status


@pytest.mark.parametrize("size", [2**24])
async def test_large_bodies(server, size):
    async def serve(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(size)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + body)
        await writer.drain()
        writer.close()

    sent = BODY * (size // len(BODY)) + bytes(size % len(BODY))
    async with proxied(serve) as proxy, connected(proxy) as client:
        await client.ask("PUT", "/", sent)
        assert (await client.response())[1] == sent


async def test_message_that_is_none_comes_out_at_the_end(server):
    with pytest.raises(ValueError, match="HTTP/1"):
        async with proxied(server.serve) as proxy, connected(proxy) as client:
            client.writer.write(b"*1\r\n$4\r\nPING\r\n\r\n")
            await client.rest()


@pytest.mark.parametrize(
    "arguments",
    [
        {"latency": -1},
        {"jitter": -1},
        {"bandwidth": 0},
        {"rate_limit": 0},
        {"protocol": "tcp", "rate_limit": 1},
        {"faults": {Reset(): 1.5}},
        {"faults": {Reset(): -0.1}},
        {"faults": {Reset(): 0.6, NoAnswer(): 0.6}},
    ],
)
def test_numbers_that_make_no_sense(arguments):
    with pytest.raises(ValueError):
        FaultProxy("127.0.0.1", 1, **arguments)


class TestTcp:
    """A protocol of lines, each answered by its echo."""

    async def echo(self, reader, writer):
        self.heard = []
        try:
            while line := await reader.readline():
                self.heard.append(line)
                writer.write(line)
        finally:
            writer.close()

    def proxied(self, **options):
        return proxied(self.echo, protocol="tcp", **options)

    async def test_forwards(self):
        async with self.proxied() as proxy, connected(proxy) as client:
            assert proxy.url.startswith("tcp://127.0.0.1:")
            for line in (b"a\n", BODY.replace(b"\n", b"") + b"\n"):
                client.writer.write(line)
                assert await client.reader.readuntil(b"\n") == line
            assert (proxy.requests, proxy.in_flight, proxy.max_in_flight) == (2, 0, 1)

    async def test_script_sees_what_is_asked(self):
        seen = []
        async with self.proxied(faults=seen.append) as proxy, connected(proxy) as client:
            client.writer.write(b"a\n")
            await client.reader.readline()
        assert [(each.method, each.path, each.head) for each in seen] == [("", "", b"a\n")]

    @pytest.mark.parametrize(
        ("fault", "received", "ending", "heard"),
        [
            (Reset(), b"", "reset", []),
            (LostResponse(), b"", "reset", [b"abcd\n"]),
            (BrokenBody(2), b"ab", "reset", [b"abcd\n"]),
            (TruncatedBody(3), b"abc", "closed", [b"abcd\n"]),
        ],
    )
    async def test_faults_that_end_the_connection(self, fault, received, ending, heard):
        self.heard = []
        async with self.proxied(faults={fault: 1.0}) as proxy, connected(proxy) as client:
            client.writer.write(b"abcd\n")
            assert await client.rest() == (received, ending)
            assert self.heard == heard
            assert proxy.injected == {fault.kind: 1}

    @pytest.mark.parametrize(("fault", "received"), [(NoAnswer(), b""), (StalledBody(2), b"ab"), (StalledBody(0), b"")])
    async def test_faults_that_leave_the_connection_silent(self, fault, received):
        async with self.proxied(faults={fault: 1.0}) as proxy, connected(proxy) as client:
            client.writer.write(b"abcd\n")
            assert await client.reader.readexactly(len(received)) == received
            client.writer.write(b"efgh\n")
            await nothing_comes(client)
            assert proxy.requests == 1

    async def test_fault_of_one_request_spares_the_next(self, waits):
        async with self.proxied(faults=lambda request: Delay(5.0) if request.number == 1 else None) as proxy, connected(proxy) as client:
            for line in (b"a\n", b"b\n", b"c\n"):
                client.writer.write(line)
                assert await client.reader.readline() == line
        assert waits == [5.0]

    async def test_answer_of_http_is_refused(self):
        with pytest.raises(TypeError, match="HTTP"):
            async with self.proxied(faults={Answer(503): 1.0}) as proxy, connected(proxy) as client:
                client.writer.write(b"a\n")
                await client.rest()

    async def test_server_that_closes(self):
        async def bye(reader, writer):
            writer.write(b"bye\n")
            writer.close()

        async with proxied(bye, protocol="tcp") as proxy, connected(proxy) as client:
            assert await client.rest() == (b"bye\n", "closed")
