"""A web service that streams what it computes: a line of JSON for each chunk. A client that goes away ends its stream.

Needs ``pip install fastapi uvicorn httpx``. Run as it is, it serves itself on a free port, asks itself, and ends.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx
import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

import azarr
from azarr.stores.base import ReadableStore


class ClosingResponse(StreamingResponse):
    """Streams ``lines``, and closes them however that ends.

    A client that goes away cancels the task that serves it. Where that task is sending at that moment, the generator knows nothing of it,
    and would go on to exist until it is garbage.
    """

    def __init__(self, lines: AsyncGenerator[str, None]) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._lines = lines

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        async with aclosing(self._lines):
            await super().__call__(scope, receive, send)


async def means(array: azarr.AsyncArray) -> AsyncGenerator[str, None]:
    """The mean of every chunk, as lines of JSON: computed in the workers, in order, while the lines before it are on their way."""
    async with array.map_chunks(np.mean, concurrency=8) as chunks:
        async for chunk in chunks:
            yield json.dumps({"coords": chunk.coords, "mean": float(chunk.data)}) + "\n"


def create_app(store: ReadableStore | str) -> FastAPI:
    """The service for the array in ``store``: one engine, whose limits all requests share, for as long as it runs."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with azarr.Engine(concurrency=32, memory=64 * 2**20) as engine:
            app.state.array = await azarr.open_array(store, engine=engine)
            yield

    app = FastAPI(lifespan=lifespan)

    @app.get("/means")
    async def get_means() -> ClosingResponse:
        return ClosingResponse(means(app.state.array))

    return app


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """Serve ``app`` within this process; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    task = asyncio.create_task(server.serve())
    try:
        while not (server.started or task.done()):  # noqa: ASYNC110 - uvicorn does not say when
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


async def main() -> None:
    """Make an array, serve it, read some of its means, go away, and read all of them."""
    array = await azarr.create_array("weather.zarr", shape=(240, 90, 180), dtype="float32", chunks=(24, 30, 60), overwrite=True)
    await array.write(np.arange(240, dtype="float32").reshape(-1, 1, 1))
    async with serving(create_app("weather.zarr")) as address, httpx.AsyncClient(base_url=address) as client:
        async with client.stream("GET", "/means") as response:
            async for line in response.aiter_lines():
                print("first:", line)
                break
        lines = (await client.get("/means")).text.splitlines()
        print(len(lines), "lines, last:", lines[-1])


if __name__ == "__main__":
    asyncio.run(main())
