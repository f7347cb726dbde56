"""Extract, transform, load: stream one array, convert every chunk, write it into another, while the event loop stays free for others."""

import asyncio

import numpy as np

import azarr


async def make_source(url: str) -> None:
    """Something to convert: 96 hours of temperatures in kelvin, as a Zarr v2 array."""
    source = await azarr.create_array(url, shape=(96, 180, 360), dtype="float32", chunks=(24, 90, 90), zarr_format=2, overwrite=True)
    hour, latitude = np.ogrid[0:96, -89.5:90:1]
    await source.write((288 - 0.006 * latitude**2 + 5 * np.sin(hour * np.pi / 12))[..., np.newaxis].astype("float32"))


async def convert_to_celsius(source_url: str, target_url: str) -> None:
    """Rewrite an array of kelvin as degrees Celsius, in Zarr v3, chunk by chunk."""
    async with azarr.Engine(concurrency=16, memory=64 * 2**20) as engine:
        source = await azarr.open_array(source_url, engine=engine)
        target = await azarr.create_array(
            target_url,
            shape=source.shape,
            dtype=source.dtype,
            chunks=source.chunks,
            attributes={**source.attrs, "units": "°C"},
            overwrite=True,
            engine=engine,
        )
        async with source.stream_chunks(ordered=False) as chunks:
            async for chunk in chunks:
                await target[chunk.region].write(chunk.data - np.float32(273.15))


async def main() -> None:
    """Make a source, convert it, and compare both ends."""
    await make_source("kelvin.zarr")
    await convert_to_celsius("kelvin.zarr", "celsius.zarr")
    kelvin, celsius = await azarr.open_array("kelvin.zarr"), await azarr.open_array("celsius.zarr")
    print(f"noon at the equator: {await kelvin[12, 90, 0]:.2f} K = {await celsius[12, 90, 0]:.2f} {celsius.attrs['units']}")
    np.testing.assert_allclose(await celsius[...], await kelvin[...] - 273.15, atol=1e-4)


if __name__ == "__main__":
    asyncio.run(main())
