"""azarr in the peer benchmark: what a careful user of azarr would write, with default settings."""

import asyncio


def run(awaitable):
    """What ``awaitable`` comes to; ``asyncio.run`` would print the array that it returns, twice and for nobody, in 5 ms (CPython 3.12)."""
    results = []

    async def main():
        results.append(await awaitable)

    asyncio.run(main())
    return results[0]


class Azarr(pb.Adapter):
    def load(self):
        import azarr

        self.az = azarr

    def prepare(self, h):
        import blosc2  # noqa: F401 - the other peers load their codecs beforehand, too
        import zstandard  # noqa: F401

    def open(self, path):
        return asyncio.run(self.az.open_array(path))

    def open_s3(self, endpoint, bucket, key, limit):
        options = {"endpoint_url": endpoint, "region": "us-east-1", "anonymous": True}
        return asyncio.run(self.az.open_array(f"s3://{bucket}/{key}", storage_options=options))

    def open_http(self, url, limit):
        return asyncio.run(self.az.open_array(url))

    def read_all(self, h):
        return run(h.read())

    def read_sel(self, h, sel):
        return run(h[sel].read())

    def read_many(self, h, sels, limit, consume):
        async def main():
            async def one(i):
                consume(i, await h[sels[i]])

            return await pb.window(len(sels), limit, one)

        return asyncio.run(main())

    def slabs(self, h, shape, step, consume):
        async def main():
            async with h.stream_slices(0, thickness=step) as slices:
                async for each in slices:
                    consume(each.start, each.data)

        asyncio.run(main())

    def write(self, path, data, chunks, shards):
        async def main():
            codec = self.az.codecs.Zstd(level=3)
            array = await self.az.create_array(
                path, shape=data.shape, dtype=data.dtype, chunks=chunks, shards=shards, compressors=[codec], fill_value=0
            )
            await array.write(data)

        asyncio.run(main())


class AzarrStream(Azarr):
    """The same, with the stream where a task reads every chunk of an array."""

    def read_many(self, h, sels, limit, consume):
        if len(sels) != h.nchunks:
            return super().read_many(h, sels, limit, consume)

        async def main():
            import time

            latencies, clock = [], time.perf_counter
            async with h.stream_chunks(concurrency=limit) as chunks:
                began = clock()
                async for number, chunk in numbered(chunks):
                    latencies.append(clock() - began)
                    consume(number, chunk.data)
                    began = clock()
            return latencies

        return asyncio.run(main())


async def numbered(chunks):
    number = 0
    async for chunk in chunks:
        yield number, chunk
        number += 1


VARIANTS = {"azarr": (Azarr, {}), "azarr-stream": (AzarrStream, {})}
