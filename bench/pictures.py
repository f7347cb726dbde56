"""Pictures of the results, for docs/performance.md: each is drawn from one result file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.peer_figures import TASKS
from bench.tables import number

Rows = list[dict[str, Any]]

INK, FAINT, GRID, PAPER = "#1f2430", "#5f6673", "#d9dce2", "#fbfbf9"
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"
"""The colours of Okabe and Ito, which the colour-blind tell apart; markers differ as well."""

STYLE: dict[str, Any] = {
    "font.size": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": PAPER,
    "figure.facecolor": PAPER,
    "axes.edgecolor": GRID,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.titlesize": 11.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "legend.frameon": False,
    "lines.linewidth": 2.2,
    "lines.markersize": 6.5,
}

IMPLEMENTATIONS = {
    "floor": ("floor: least work in plain Python", INK, "|"),
    "zarr": ("zarr-python", RED, "s"),
    "zarr-fused": ("zarr-python, fused pipeline", ORANGE, "D"),
    "tensorstore-thp": ("TensorStore (C++), huge pages", GREEN, "^"),
    "zarrista": ("zarrista (Rust)", PURPLE, "v"),
    "zarrs": ("zarrs (Rust) in zarr-python", SKY, "P"),
}
LIBRARIES = {"azarr": BLUE, "zarr-python": RED, "tensorstore": GREEN, "zarrista, in threads": PURPLE, "zarrista": PURPLE}
NAMES = {"tensorstore": "TensorStore"}


def titled(title: str, subtitle: str, height: float, width: float = 9.2) -> Figure:
    """An empty figure with what it shows in its first line, and how to read it in the second."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.get_layout_engine().set(rect=(0.012, 0.012, 0.976, 1 - 0.86 / height), h_pad=0.1, w_pad=0.1)
    figure.text(0.022, 1 - 0.34 / height, title, fontsize=15, weight="bold")
    figure.text(0.022, 1 - 0.62 / height, subtitle, fontsize=10.5, color=FAINT)
    return figure


def value(rows: Rows, figure: str, **case: Any) -> float | None:
    """The figure of the case, where it was measured."""
    found = [
        row["figures"].get(figure) for row in rows if all(row["case"].get(word.replace("_", " ")) == each for word, each in case.items())
    ]
    return found[0] if found else None


def words(rows: Rows, word: str) -> list[Any]:
    """What a word of the cases stands for, in the order of the rows."""
    return list(dict.fromkeys(row["case"][word] for row in rows if word in row["case"]))


def plain(axis: Any, ticks: Iterable[float] = (), suffix: str = "") -> None:
    """Numbers in full at ``ticks`` of a logarithmic axis, or wherever it has ticks."""
    axis.set_major_formatter(FuncFormatter(lambda each, _: f"{each:,.10g}{suffix}"))
    if ticks := list(ticks):
        axis.set_major_locator(FixedLocator(ticks))
        axis.set_minor_locator(NullLocator())


def legend(figure: Figure, axes: Axes, columns: int, **options: Any) -> None:
    """One legend below everything."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=columns, **options)


# ---------------------------------------------------------------------------------------------------------------------- the pictures


def peers(rows: Rows) -> Figure:
    """Each task a line, each implementation a mark on it, by its time as a multiple of azarr's."""
    tasks = [task for task in TASKS if value(rows, "seconds", task=task, implementation="azarr")]
    figure = titled(
        "Time for the same task, as a multiple of azarr's",
        "Right of the line: slower than azarr; left of it: faster. Logarithmic; medians of interleaved runs, every result checked.",
        1.75 + 0.44 * len(tasks),
    )
    axes = figure.subplots()
    ratios = []
    for name, (label, colour, marker) in IMPLEMENTATIONS.items():
        points = [
            (value(rows, "seconds", task=task, implementation=name) / value(rows, "seconds", task=task, implementation="azarr"), place)
            for place, task in enumerate(tasks)
            if value(rows, "seconds", task=task, implementation=name)
        ]
        if points:
            ratios += [ratio for ratio, _ in points]
            size, width = (260, 2.6) if marker == "|" else (62, 0.8)
            edge = {} if marker == "|" else {"edgecolors": PAPER}
            axes.scatter(*zip(*points, strict=True), s=size, c=colour, marker=marker, linewidths=width, label=label, zorder=3, **edge)
    axes.axvline(1, color=BLUE, linewidth=2.4, label="azarr", zorder=2)
    axes.set_xscale("log")
    low, high = min([*ratios, 0.9]) * 0.88, max([*ratios, 2]) * 1.15
    axes.set_xlim(low, high)
    plain(axes.xaxis, [each for each in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if low <= each <= high], " ×")
    axes.set_yticks(range(len(tasks)), [TASKS[task] for task in tasks])
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.tick_params(length=0)
    legend(figure, axes, 3)
    return figure


def chunk_count(rows: Rows) -> Figure:
    """Lines of microseconds by the number of chunks."""
    figure = titled(
        "What one chunk costs as an array has more of them",
        "Chunks of 256 bytes in memory, so that only the engine's own work is left. A flat line is the aim.",
        4.6,
    )
    axes = figure.subplots()
    styles = {"read": (BLUE, "o"), "write": (RED, "s"), "stream": (GREEN, "^"), "write_stream": (PURPLE, "D"), "dictionary": (ORANGE, "x")}
    for task in words(rows, "task"):
        colour, marker = styles[task.removesuffix(", zstd")]
        line = "--" if task.endswith("zstd") else "-"
        counts = [row["case"]["chunks"] for row in rows if row["case"]["task"] == task]
        costs = [value(rows, "µs a chunk", task=task, chunks=count) for count in counts]
        axes.plot(counts, costs, color=colour, marker=marker, linestyle=line, label=task)
    axes.set_xscale("log")
    axes.set_ylim(bottom=0)
    plain(axes.xaxis, words(rows, "chunks"))
    axes.set_xlabel("chunks in the array")
    axes.set_ylabel("µs a chunk")
    legend(figure, axes, 7)
    return figure


def throughput(rows: Rows, title: str, axes: Axes) -> None:
    """Groups of bars, by chunk size; within a group by store and codec."""
    sizes = words(rows, "chunk KiB")
    bars = [(store, codec) for codec in words(rows, "codec") for store in words(rows, "store") if not store.endswith("synchronised")]
    colours = {"none": (SKY, "uncompressed"), "zstd": (BLUE, "zstd"), "blosc": (ORANGE, "blosc")}
    width = 0.84 / len(bars)
    for place, (store, codec) in enumerate(bars):
        colour, name = colours[codec]
        heights = [value(rows, "MiB/s", store=store, codec=codec, chunk_KiB=size) or 0 for size in sizes]
        look = {"color": colour} if store == "memory" else {"color": PAPER, "edgecolor": colour, "hatch": "////", "linewidth": 1.2}
        places = [group - 0.42 + (place + 0.5) * width for group in range(len(sizes))]
        axes.bar(places, [height / 1024 for height in heights], width * 0.9, label=f"{name}, {store}", **look)
    axes.set_xticks(range(len(sizes)), [f"{size:,} KiB" if size < 1024 else f"{size // 1024} MiB" for size in sizes])
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_title(title)
    axes.set_ylabel("GiB/s of decoded data")


def read_and_write(reading: Rows, writing: Rows) -> Figure:
    """Throughput of reading beside that of writing."""
    figure = titled("Whole arrays, by chunk size, codec and store", "Full bars: memory; hatched: local files in the page cache.", 4.9, 10.5)
    left, right = figure.subplots(1, 2)
    throughput(reading, "read", left)
    throughput(writing, "write", right)
    legend(figure, left, 6, fontsize=9.5)
    return figure


def latency(rows: Rows) -> Figure:
    """Seconds over the ideal, by requests in flight."""
    late = words(rows, "latency ms")[0]
    figure = titled(
        f"A store that answers {late} ms late: time as a multiple of the ideal",
        "As many chunks of 256 KiB as fill the same rounds of requests; 1 is the waiting alone.",
        4.4,
    )
    axes = figure.subplots()
    marks = zip((BLUE, RED, PURPLE, GREEN, ORANGE), "osD^v", strict=True)
    for task, (colour, marker) in zip(words(rows, "task"), marks, strict=False):
        at = [row["case"]["concurrency"] for row in rows if row["case"]["task"] == task]
        axes.plot(at, [value(rows, "× ideal", task=task, concurrency=each) for each in at], color=colour, marker=marker, label=task)
    axes.axhline(1, color=INK, linewidth=1.4, linestyle=(0, (4, 3)))
    axes.set_xscale("log", base=2)
    plain(axes.xaxis, words(rows, "concurrency"))
    axes.set_ylim(0, max(1.5, axes.get_ylim()[1]))
    axes.set_xlabel("requests in flight (concurrency)")
    axes.set_ylabel("time / ideal")
    legend(figure, axes, 5)
    return figure


def stalls(rows: Rows) -> Figure:
    """Bars of the longest stall, by library, for both tasks and all sizes of chunks."""
    figure = titled(
        "How long the event loop was kept from other work",
        "How late a task came that wants to run every millisecond: the longest (bar) and the 99th percentile (line). Logarithmic.",
        4.9,
        10.5,
    )
    for axes, task in zip(figure.subplots(1, 2, sharey=True), words(rows, "task"), strict=True):
        libraries, sizes = words(rows, "library"), words(rows, "chunk KiB")
        width = 0.8 / len(libraries)
        for place, library in enumerate(libraries):
            at = [group - 0.4 + (place + 0.5) * width for group in range(len(sizes))]
            longest, p99 = (
                [value(rows, unit, task=task, library=library, chunk_KiB=size) or 0 for size in sizes] for unit in ("longest ms", "p99 ms")
            )
            axes.bar(at, longest, width * 0.9, color=LIBRARIES[library], label=NAMES.get(library, library))
            axes.hlines(p99, [each - width * 0.45 for each in at], [each + width * 0.45 for each in at], color=INK, linewidth=1.8)
            for each, height in zip(at, longest, strict=True):
                axes.text(each, height * 1.06, number(height).rstrip("."), ha="center", va="bottom", fontsize=8, color=FAINT)
        axes.set_yscale("log")
        plain(axes.yaxis, [0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10000])
        axes.set_ylim(0.1, 2.5 * max(row["figures"]["longest ms"] for row in rows))
        axes.set_xticks(range(len(sizes)), [f"{size:,} KiB" if size < 1024 else f"{size // 1024} MiB" for size in sizes])
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        axes.set_title(f"reading {'a ' if task.startswith('whole') else ''}{task}, by chunk size")
        axes.set_ylabel("ms" if task.startswith("whole") else "")
    legend(figure, axes, 4)
    return figure


def memory(rows: Rows) -> Figure:
    """Bars of memory beyond results, with the bound as a line."""
    names = [(row["case"]["library"], row["case"]["task"]) for row in rows]
    size = words(rows, "array MiB")[0]
    figure = titled(
        f"Memory at the peak for an array of {size:,} MiB",
        "Beyond what the process had before, and beyond the result of a read. Black lines: the bound that was asked for.",
        1.5 + 0.37 * len(rows),
    )
    axes = figure.subplots()
    heights = [row["figures"]["beyond the result MiB"] for row in rows]
    axes.barh(range(len(rows)), heights, 0.68, color=[LIBRARIES[library] for library, _ in names])
    for place, (row, height) in enumerate(zip(rows, heights, strict=True)):
        allowed = row["figures"].get("allowed MiB")
        if allowed:
            axes.vlines(allowed, place - 0.42, place + 0.42, color=INK, linewidth=2)
        axes.text(height + max(heights) * 0.012, place, f"{height:,.1f}", va="center", fontsize=9, color=FAINT)
    axes.set_yticks(
        range(len(rows)),
        [f"{NAMES.get(library, library)}: {task.partition(', 64')[0] + task.partition('64 MiB')[2]}" for library, task in names],
    )
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlabel("MiB")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    return figure


PICTURES: dict[str, tuple[Callable[..., Figure], tuple[str, ...]]] = {
    "peers": (peers, ("peers",)),
    "chunk-count": (chunk_count, ("chunk_count",)),
    "throughput": (read_and_write, ("read", "write")),
    "latency": (latency, ("latency",)),
    "stalls": (stalls, ("stalls",)),
    "memory": (memory, ("memory",)),
}
"""The pictures, and the results that each is drawn from."""


def draw(documents: dict[str, Any], folder: Path) -> list[Path]:
    """Save the pictures whose results are there; where they are."""
    folder.mkdir(parents=True, exist_ok=True)
    saved = []
    for name, (picture, subjects) in PICTURES.items():
        if all(documents.get(subject, {}).get("rows") for subject in subjects):
            with mpl.rc_context(STYLE):
                figure = picture(*(documents[subject]["rows"] for subject in subjects))
                figure.savefig(folder / f"{name}.png", dpi=115, metadata={"Software": None})
            saved.append(folder / f"{name}.png")
    return saved
