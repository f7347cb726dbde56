"""A global data set becomes a sharded Zarr array, is streamed back at bounded memory, checked against NumPy and drawn as a map.

The data: the monthly climatology of Linke turbidity (how hazy the clear sky is; 1 is perfectly clean air, 5 is dusty) on a grid of 5 arc
minutes, as the pvlib package ships it: 2160 latitudes x 4320 longitudes x 12 months, one byte each, 112 MB decoded.

    pip install "azarr[demo]" && pip install --no-deps pvlib
    python examples/linke_turbidity.py --output demo-output
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import psutil
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

import azarr

SCALE = 20  # a stored 60 is a turbidity of 3.0
CHUNKS = (180, 180, 12)  # 15° x 15°, all months: 0.4 MB
SHARDS = (720, 720, 12)  # 60° x 60°: 16 chunks in one file
STREAM_MEMORY = 64 * 2**20
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

Region = tuple[slice, ...]
Array = npt.NDArray[Any]


# ---------------------------------------------------------------------------------------------------------------- azarr at work


async def write_array(url: Path, source: Array, progress: Progress) -> azarr.AsyncArray:
    """The array that holds all of ``source``, written one shard at a time."""
    array = await azarr.create_array(
        url,
        shape=source.shape,
        dtype=source.dtype,
        chunks=CHUNKS,
        shards=SHARDS,
        compressors=[azarr.codecs.Zstd(level=3)],
        dimension_names=("latitude", "longitude", "month"),
        attributes={"long_name": "Linke turbidity", "units": "1", "scale_factor": 1 / SCALE, "grid": "cell centres, from 90°N 180°W"},
        overwrite=True,
    )
    task = progress.add_task("writing", total=array.nbytes)
    for region in shard_regions(array.shape):
        await array[region].write(source[region])
        progress.advance(task, source[region].nbytes)
    return array


async def stream_zonal_sums(array: azarr.AsyncArray, progress: Progress) -> tuple[Array, int]:
    """The sum over all longitudes, by latitude and month, and the number of chunks that it was made of."""
    sums = np.zeros((array.shape[0], array.shape[2]), np.int64)
    count = 0
    task = progress.add_task("streaming", total=array.nbytes)
    async with array.stream_chunks(ordered=False, memory=STREAM_MEMORY) as chunks:
        async for chunk in chunks:
            latitudes, _, months = chunk.region
            sums[latitudes, months] += chunk.data.sum(axis=1, dtype=np.int64)
            count += 1
            progress.advance(task, chunk.data.nbytes)
    return sums, count


async def read_map(array: azarr.AsyncArray, month: int) -> Array:
    """One month of the whole world, every second row and column, as turbidity."""
    return await array[::2, ::2, month] / SCALE


def shard_regions(shape: tuple[int, ...]) -> Iterator[Region]:
    """The part of the array that each shard holds."""
    for corner in np.ndindex(*(-(-length // step) for length, step in zip(shape, SHARDS, strict=True))):
        yield tuple(slice(i * step, min((i + 1) * step, length)) for i, step, length in zip(corner, SHARDS, shape, strict=True))


# --------------------------------------------------------------------------------------------------------- measuring and checking


@dataclass
class Meter:
    """What a phase cost: seconds, the longest time that the event loop was kept from its work, and how far memory rose."""

    seconds: float = 0.0
    longest_stall: float = 0.0
    start_rss: int = 0
    peak_rss: int = 0

    @property
    def memory_rise(self) -> int:
        """Bytes of memory beyond those of the start, at the peak."""
        return self.peak_rss - self.start_rss


@asynccontextmanager
async def measured() -> AsyncIterator[Meter]:
    """Measure the block with a task that wants to run every millisecond and notes when it cannot."""
    process = psutil.Process()
    resident = process.memory_info().rss
    meter = Meter(start_rss=resident, peak_rss=resident)

    async def tick() -> None:
        while True:
            asleep = time.perf_counter()
            await asyncio.sleep(0.001)
            meter.longest_stall = max(meter.longest_stall, time.perf_counter() - asleep - 0.001)
            meter.peak_rss = max(meter.peak_rss, process.memory_info().rss)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.002)
    started = time.perf_counter()
    try:
        yield meter
    finally:
        meter.seconds = time.perf_counter() - started
        await asyncio.sleep(0.002)  # one more tick, which notes a stall that lasted to the end
        ticker.cancel()
        await asyncio.wait([ticker])


async def check(array: azarr.AsyncArray, zonal_sums: Array, source: Array) -> None:
    """Fail unless the stored array equals the source, and the streamed sums those of NumPy, to the last unit."""
    np.testing.assert_array_equal(await array[...], source, err_msg="the array does not hold what was written")
    np.testing.assert_array_equal(zonal_sums, source.sum(axis=1, dtype=np.int64), err_msg="zonal sums")
    np.testing.assert_array_equal(zonal_sums.sum(axis=0), source.sum(axis=(0, 1), dtype=np.int64), err_msg="monthly sums")


# ------------------------------------------------------------------------------------------------------------------------ the map

INK, PAPER, FAINT = "#0a0d1c", "#e8e6e1", "#8d8fa3"
HAZE = LinearSegmentedColormap.from_list(
    "haze", ["#070a1e", "#16245a", "#3b3a86", "#7c4691", "#bd5481", "#e9795d", "#f7ad5a", "#fbdc8c", "#fffbe6"]
)
HAZE_RANGE = Normalize(1, 6)
LATITUDE_TICKS = (range(-60, 61, 30), ["60°S", "30°S", "0°", "30°N", "60°N"])
LONGITUDE_TICKS = (range(-120, 121, 60), ["120°W", "60°W", "0°", "60°E", "120°E"])
STYLE: dict[Any, Any] = {
    "font.size": 11,
    "text.color": PAPER,
    "axes.labelcolor": PAPER,
    "axes.facecolor": INK,
    "figure.facecolor": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.spines.bottom": False,
    "axes.titlesize": 15,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "grid.color": "white",
    "grid.linewidth": 0.5,
    "grid.alpha": 0.16,
}


def draw(path: Path, january: Array, july: Array, zonal_means: Array) -> None:
    """Save the picture: two maps, the year of each latitude, and the year of each hemisphere."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(16, 10.4))
        grid = figure.add_gridspec(2, 2, height_ratios=(1, 0.8), left=0.045, right=0.972, top=0.868, bottom=0.05, hspace=0.42, wspace=0.09)
        world = draw_world(figure.add_subplot(grid[0, 0]), january, "January")
        draw_world(figure.add_subplot(grid[0, 1]), july, "July")
        draw_seasons(figure.add_subplot(grid[1, 0]), zonal_means)
        draw_curves(figure.add_subplot(grid[1, 1]), zonal_means)
        bar = figure.colorbar(world, cax=figure.add_axes((0.3, 0.462, 0.4, 0.014)), orientation="horizontal", extend="max")
        bar.set_label("Linke turbidity (1 would be perfectly clean and dry air)")
        figure.text(0.045, 0.946, "The haze of the clear sky", fontsize=26, weight="bold")
        subtitle = "Linke turbidity, monthly climatology on a grid of 5 arc minutes, streamed from a Zarr array by azarr"
        figure.text(0.045, 0.917, subtitle, fontsize=12.5, color=FAINT)
        figure.savefig(path, dpi=140)


def draw_world(axes: Axes, values: Array, title: str) -> AxesImage:
    """A map in plain latitude and longitude, north up, with a graticule."""
    axes.set_title(title)
    axes.set_xticks(*LONGITUDE_TICKS)
    axes.set_yticks(*LATITUDE_TICKS)
    axes.grid()
    return axes.imshow(values, extent=(-180, 180, -90, 90), cmap=HAZE, norm=HAZE_RANGE)


def draw_seasons(axes: Axes, zonal_means: Array) -> None:
    """The year from left to right, the latitudes from south to north."""
    axes.set_title("Mean of each latitude, month by month")
    axes.imshow(zonal_means, extent=(0, 12, -90, 90), aspect="auto", cmap=HAZE, norm=HAZE_RANGE, interpolation="nearest")
    smooth = zonal_means.reshape(72, -1, 12).mean(axis=1)  # bands of 2.5°, and the year closed at both ends
    year = np.concatenate([smooth[:, -1:], smooth, smooth[:, :1]], axis=1)
    months, latitudes = np.arange(-0.5, 13), 88.75 - 2.5 * np.arange(72)
    lines = axes.contour(months, latitudes, year, levels=[2, 3, 4], colors="white", linewidths=0.8, alpha=0.7)
    axes.clabel(lines, fmt="%d", fontsize=9.5)
    axes.set_xlim(0, 12)
    axes.set_xticks(np.arange(12) + 0.5, MONTHS)
    axes.set_yticks(*LATITUDE_TICKS)


def draw_curves(axes: Axes, zonal_means: Array) -> None:
    """The means of the world and of both hemispheres, where a square kilometre counts the same everywhere."""
    axes.set_title("Mean by area")
    rows = len(zonal_means)
    area = np.sin((np.arange(rows) + 0.5) * np.pi / rows)
    north, south = slice(None, rows // 2), slice(rows // 2, None)
    for name, band, colour, width in [("north", north, "#f7ad5a", 2), ("world", slice(None), PAPER, 3), ("south", south, "#a08be0", 2)]:
        means = np.average(zonal_means[band], axis=0, weights=area[band])
        axes.plot(means, color=colour, linewidth=width, marker="o", markersize=5)
        axes.annotate(name, (11, means[-1]), xytext=(11, 0), textcoords="offset points", color=colour, va="center", fontsize=12)
    axes.set_xticks(range(12), MONTHS)
    axes.set_xlim(-0.4, 12.2)
    axes.grid(axis="y")


# --------------------------------------------------------------------------------------------------------------------- the program


def load_source() -> Array:
    """The data set, from the file inside the installed pvlib package, which is not imported."""
    package = importlib.util.find_spec("pvlib")
    if package is None or package.origin is None:
        raise SystemExit("The demo needs the data file of pvlib: pip install --no-deps pvlib")
    with h5py.File(Path(package.origin).parent / "data" / "LinkeTurbidities.h5") as file:
        values: Array = file["LinkeTurbidity"][...]
    return values


def describe(array: azarr.AsyncArray, folder: Path, chunk_count: int) -> str:
    """What the array is, and how much room it takes."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    stored = sum(file.stat().st_size for file in files)
    shape, chunks, shards = (" × ".join(map(str, lengths)) for lengths in (array.shape, CHUNKS, SHARDS))
    return (
        f"[bold]Linke turbidity[/]: {shape} {array.dtype}, {chunk_count} chunks of {chunks} in shards of {shards}\n"
        f"{array.nbytes / 1e6:.1f} MB decoded, {stored / 1e6:.1f} MB in {len(files)} files (ratio {array.nbytes / stored:.2f})"
    )


def figures(array: azarr.AsyncArray, chunk_count: int, writing: Meter, streaming: Meter) -> Table:
    """What writing and streaming cost."""
    phases = (writing, streaming)
    table = Table("", "write", "stream", min_width=60)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("time", *(f"{phase.seconds:.2f} s" for phase in phases))
    table.add_row("decoded data", *(f"{array.nbytes / phase.seconds / 1e6:,.0f} MB/s" for phase in phases))
    table.add_row("chunks", *(f"{chunk_count / phase.seconds:,.0f} /s" for phase in phases))
    table.add_row("peak memory over the start", *(f"{phase.memory_rise / 1e6:,.1f} MB" for phase in phases))
    table.add_row("longest event-loop stall", *(f"{phase.longest_stall * 1e3:.1f} ms" for phase in phases))
    return table


async def main(output: Path) -> None:
    """Write, stream, check and draw."""
    console = Console()
    folder, picture = output / "linke_turbidity.zarr", output / "linke_turbidity.png"
    source = await asyncio.to_thread(load_source)
    columns = (TextColumn("{task.description:>9}"), BarColumn(30), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console) as progress:
        async with measured() as writing:
            await write_array(folder, source, progress)
        array = await azarr.open_array(folder)
        async with measured() as streaming:
            zonal_sums, chunk_count = await stream_zonal_sums(array, progress)
    console.print(describe(array, folder, chunk_count), figures(array, chunk_count, writing, streaming), sep="\n", highlight=False)
    await check(array, zonal_sums, source)
    console.print("[green]checked[/]: every value, monthly sum and zonal sum equals NumPy's")
    january, july = await read_map(array, 0), await read_map(array, 6)
    await asyncio.to_thread(draw, picture, january, july, zonal_sums / array.shape[1] / SCALE)
    console.print(f"[green]map[/]: {picture}", highlight=False)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write, stream, check and draw a global data set with azarr.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="folder for the array and the map")
    asyncio.run(main(parser.parse_args().output))
