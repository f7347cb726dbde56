"""Fixtures that tests of stores share: stores that answer when they are let, web servers whose answers are bytes that a test writes."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import ssl
import subprocess
import time
from dataclasses import dataclass, field
from http import HTTPStatus

import pytest

from azarr.stores.base import Stamped
from azarr.stores.latency import LatencyStore
from azarr.stores.memory import MemoryStore


class _GatedStore(LatencyStore):
    """A store in memory whose ``get`` finds out at once, and answers when ``opened`` is set."""

    @classmethod
    def _lacking(cls, *_):
        return frozenset()

    def __init__(self, values=None) -> None:
        super().__init__(MemoryStore(values), 0.0)
        self.asked, self.cancelled, self.opened = [], 0, asyncio.Event()
        self._more = asyncio.Condition()

    async def get(self, key, byte_range=None):
        self.asked.append((key, byte_range))
        async with self._more:
            self._more.notify_all()
        try:
            value = await self._store.get(key, byte_range)
            await self.opened.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return value

    async def get_stamped(self, key, byte_range=None):
        return Stamped(await self.get(key, byte_range))

    async def until(self, count) -> None:
        """Wait until so many values have been asked for."""
        async with self._more:
            await self._more.wait_for(lambda: len(self.asked) >= count)


@pytest.fixture
def gated():
    """Makes stores that answer when they are let; see ``_GatedStore``."""
    return _GatedStore


KILLS = int(os.environ.get("AZARR_KILLS", "5"))


@pytest.fixture
def killed_often(started):
    """Runs a program that writes one turn after another, and kills it at any moment, ``AZARR_KILLS`` times.

    Its arguments are a path, the last turn and what else there is; ``look`` checks what is left, and answers the turn that it is of.
    """

    def run(program, path, *args, look):
        turn, chance = 0, random.Random(5)
        for _ in range(KILLS):
            writer = started(program, path, turn, *args)
            time.sleep(chance.uniform(0, 0.1))  # any moment will do
            writer.kill()
            writer.wait()
            turn = look(turn)
        assert turn > 0

    return run


@dataclass
class Asked:
    """A request that has arrived; names of headers are in small letters."""

    method: str
    target: str
    headers: dict
    body: bytes

    @property
    def path(self):
        return self.target.partition("?")[0]


@dataclass
class ScriptedServer:
    """Answers each request with the bytes that ``answer`` makes of it, or with those of ``script``, one after the other.

    ``None`` instead of bytes closes the connection, and so does everything that ends with ``CLOSE``.
    """

    script: list = field(default_factory=list)
    asked: list = field(default_factory=list)
    connections: int = 0
    url: str = ""
    CLOSE = b"\0close"

    def answer(self, asked):
        return reply(404)

    async def converse(self, reader, writer):
        self.connections += 1
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode().split("\r\n")[:-2]
                method, target, _ = first.split(" ")
                headers = {name.lower(): text.strip() for name, _, text in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.asked.append(Asked(method, target, headers, body))
                answer = self.script.pop(0) if self.script else self.answer
                if callable(answer):
                    answer = answer(self.asked[-1])
                if answer is not None:
                    writer.write(answer.removesuffix(self.CLOSE))
                    await writer.drain()
                if answer is None or answer.endswith(self.CLOSE):
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


def make_reply(status=200, body=b"", *, length=True, head=False, **headers):
    """The bytes of a response; ``length`` false leaves out the Content-Length, a number is a lie, ``head`` leaves out the body."""
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
    if length is not False:
        lines.append(f"Content-Length: {len(body) if length is True else length}")
    lines += [f"{name.replace('_', '-')}: {text}" for name, text in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + (b"" if head else body)


reply = make_reply


@pytest.fixture(name="reply")
def _reply():
    return make_reply


@pytest.fixture
async def start_server():
    """Starts any number of scripted servers."""
    running = []

    async def start(**settings):
        scripted = ScriptedServer(**settings)
        tasks = set()

        async def converse(reader, writer):
            tasks.add(asyncio.current_task())
            await scripted.converse(reader, writer)

        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        scripted.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        running.append((server, tasks))
        return scripted

    yield start
    for server, tasks in running:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def server(start_server):
    return await start_server()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """Files with a certificate of 127.0.0.1 and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed: apt-get install openssl")
    folder = tmp_path_factory.mktemp("tls")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-keyout", folder / "key", "-out", folder / "crt"]
    subprocess.run([*command, "-subj", "/CN=x", "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return folder / "crt", folder / "key"


@pytest.fixture
def server_tls(certificate):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)
    return context
