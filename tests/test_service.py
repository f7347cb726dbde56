"""The example of a service: whole answers, and nothing left of a stream whose client has gone away, in whatever it was doing."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import logging
from pathlib import Path

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from starlette.requests import ClientDisconnect

import azarr
from azarr import LatencyStore, MemoryStore, StoreError

PATIENCE = 30
EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "service.py"
SPEC = importlib.util.spec_from_file_location("service", EXAMPLE)
service = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(service)

DATA = np.arange(60, dtype="f4")

pytestmark = pytest.mark.usefixtures("complaints")


class Network(LatencyStore):
    """A store that never answers for some chunks, and fails for others."""

    silent, failing = frozenset(), frozenset()
    waiting = 0

    async def get(self, key, byte_range=None):
        if key in self.silent:
            self.waiting += 1
            try:
                await asyncio.Event().wait()
            finally:
                self.waiting -= 1
        if key in self.failing:
            raise StoreError("cannot reach it", key=key)
        return await super().get(key, byte_range)


@pytest.fixture(autouse=True)
def _log(monkeypatch):
    """Let the server's log come to the tests."""
    monkeypatch.setattr(service.uvicorn, "Config", functools.partial(service.uvicorn.Config, log_config=None))


@pytest.fixture
async def store():
    store = MemoryStore()
    array = await azarr.create_array(store, shape=60, dtype="f4", chunks=1)
    await array.write(DATA)
    return Network(store, 0.0)


@pytest.fixture(params=["blocking", "awaited"])
def reached(request, store):
    """The store as the service has it."""
    return store if request.param == "awaited" else store._store


async def until(condition) -> None:
    """Let the loop go round until something is so."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - there is nothing to be woken by
            await asyncio.sleep(0.001)


def warnings_of(caplog):
    return [record for record in caplog.records if record.levelno >= logging.WARNING]


async def test_clients_get_all_lines(reached, caplog):
    async with service.serving(service.create_app(reached)) as address, httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
        answers = await asyncio.gather(*(client.get("/means") for _ in range(4)))
    for answer in answers:
        assert answer.headers["content-type"].startswith("application/x-ndjson")
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines == [{"coords": [number], "mean": number} for number in range(60)]
    assert warnings_of(caplog) == []


@pytest.mark.parametrize("clients", [1, 5])
async def test_a_client_that_leaves_while_the_service_waits_for_chunks(store, caplog, clients):
    store.silent = {f"c/{number}" for number in range(7, 60)}
    async with service.serving(service.create_app(store)) as address:
        before = asyncio.all_tasks()

        async def leave_halfway():
            async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client, client.stream("GET", "/means") as response:
                lines = response.aiter_lines()
                for _ in range(7):
                    await anext(lines)
                await until(lambda: store.waiting)

        await asyncio.gather(*(leave_halfway() for _ in range(clients)))
        await until(lambda: store.waiting == store.in_flight == 0 and asyncio.all_tasks() == before)
        store.silent = frozenset()
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:  # the service goes on
            assert len((await client.get("/means")).text.splitlines()) == 60
    assert warnings_of(caplog) == []


async def test_a_client_that_leaves_while_the_service_sends(reached, caplog):
    """It does not read, so that the service waits with its generator at a ``yield``."""
    closed, sent = asyncio.Event(), 0

    async def lines(array):
        nonlocal sent
        try:
            async with array.stream_chunks(concurrency=4) as chunks:
                async for chunk in chunks:
                    sent += 1
                    yield f"{chunk.coords}" * 2**18  # more than all buffers on the way hold
        finally:
            closed.set()

    app = FastAPI()

    @app.get("/")
    async def get():
        return service.ClosingResponse(lines(await azarr.open_array(reached)))

    async with service.serving(app) as address:
        before = asyncio.all_tasks()
        reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\nHost: here\r\n\r\n")
        try:
            await reader.readuntil(b"\r\n\r\n")
            await until(lambda: sent)
            same = seen = 0
            while same < 20:  # nothing more is taken from it
                await asyncio.sleep(0.01)
                same, seen = same + 1 if sent == seen else 0, sent
            assert sent < 60
            assert not closed.is_set()
        finally:
            writer.transport.abort()
        await asyncio.wait_for(closed.wait(), PATIENCE)
        await until(lambda: asyncio.all_tasks() == before)
        assert sent < 60
    assert warnings_of(caplog) == []


async def test_a_client_that_leaves_where_the_server_says_so_by_an_error():
    """As servers of the newer specification do."""
    array = await azarr.create_array(MemoryStore(), shape=60, dtype="f4", chunks=1)
    generator, sent = service.means(array), []

    async def send(message):
        sent.append(message)
        if len(sent) == 5:
            raise OSError("gone")

    with pytest.raises(ClientDisconnect):
        await service.ClosingResponse(generator)({"type": "http", "asgi": {"spec_version": "2.4"}}, None, send)
    assert await anext(generator, None) is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_half_an_answer_does_not_pass_for_a_whole_one(store, caplog):
    """Where a chunk fails, the connection breaks off."""
    store.failing = {"c/30"}
    async with service.serving(service.create_app(store)) as address:
        before, lines = asyncio.all_tasks(), []
        async with httpx.AsyncClient(base_url=address, timeout=PATIENCE) as client:
            with pytest.raises(httpx.RemoteProtocolError):
                async with client.stream("GET", "/means") as response:
                    lines += [line async for line in response.aiter_lines()]
        await until(lambda: asyncio.all_tasks() == before)
    assert len(lines) <= 30
    assert any("Exception in ASGI application" in record.getMessage() for record in warnings_of(caplog))
