"""Create an array, write it, read parts of it, and stream it; five minutes of azarr in one file."""

import asyncio

import numpy as np

import azarr


async def main() -> None:
    """Write a year of daily temperatures and look at it in three ways."""
    group = await azarr.create_group("quickstart.zarr", attributes={"title": "A made-up year"}, overwrite=True)
    array = await group.create_array(
        "temperature",
        shape=(365, 180, 360),
        dtype="float32",
        chunks=(73, 90, 90),
        dimension_names=("day", "latitude", "longitude"),
        attributes={"units": "K"},
    )

    # Write all of it, one value for all, or a part. What a chunk lacks is read first, so parts may lie anywhere.
    day = np.arange(365, dtype="float32").reshape(-1, 1, 1)
    await array.write(288 + 10 * np.sin(2 * np.pi * day / 365))
    await array[:, :10].write(250)

    # Read a part: nothing happens until it is awaited, and only the chunks that it touches are read.
    first_week = array[:7]
    print("first week over the equator:", await first_week[:, 90, 0])

    # Stream it: chunks come while the next ones are being read, in bounded memory.
    total = 0.0
    async with array.stream_chunks(ordered=False, memory=32 * 2**20) as chunks:
        async for chunk in chunks:
            total += float(chunk.data.sum(dtype="float64"))
    print(f"mean of {array.size:,} values: {total / array.size:.2f} {array.attrs['units']}")

    # Find out what is there.
    async for name, node in (await azarr.open_group("quickstart.zarr")).members():
        print(f"{name}: {node}")


if __name__ == "__main__":
    asyncio.run(main())
