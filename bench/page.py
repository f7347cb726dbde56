"""What docs/performance.md shows: the result files of one run, the pictures, and the tables in its text.

``nox -s bench -- page`` takes the results that there are in bench/results, which may be some only, and writes all three. The result files
are kept in docs/performance, so that every figure in the page can be followed to the run that it comes from; a test holds the page to them.
"""

from __future__ import annotations

import json
import math
import textwrap
from pathlib import Path
from typing import Any

from bench.peer_figures import RESULTS, TASKS
from bench.suite import FOLDER
from bench.tables import number, table

PAGE = FOLDER.parent / "docs" / "performance.md"
KEPT = PAGE.with_suffix("")
PICTURES = PAGE.parent / "pictures"
TO_COME = "to come"

Documents = dict[str, dict[str, Any]]


def make(results: Path) -> None:
    """Keep the results, draw the pictures and write the tables."""
    KEPT.mkdir(exist_ok=True)
    for path in sorted(results.glob("*.json")):
        text = path.read_text(encoding="utf-8")
        if json.loads(text)["scale"] != "tiny":
            (KEPT / path.name).write_text(text, encoding="utf-8")
    from bench.pictures import draw

    for picture in draw(kept(), PICTURES):
        print(picture)
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8"), kept()), encoding="utf-8")
    print(PAGE)


def kept() -> Documents:
    """The result files that the page is made of, by subject."""
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(KEPT.glob("*.json"))}


def updated(page: str, documents: Documents) -> str:
    """The page with its tables as they are to be."""
    for name, text in tables(documents).items():
        begin, end = f"<!-- {name}: written by bench/page.py -->\n", "\n<!-- end -->"
        before, rest = page.split(begin)
        _, after = rest.split(end, 1)
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


def tables(documents: Documents) -> dict[str, str]:
    """Every table by the name that it has in the page."""
    peers = documents.get("peers")
    made = {"run": run(documents), "peers": peer_table(peers, SHOWN), "peer memory": peer_memory(peers)}
    made["tuned peers"] = peer_table(documents.get("tuned_peers"), TUNED)
    for name, (subject, down, across, figures, only) in PIVOTS.items():
        made[name] = pivot(documents[subject]["rows"], down, across, figures, only) if subject in documents else TO_COME
    for name, about in ABOUT_PICTURES.items():
        made[f"picture {name}"] = f"![{about}](pictures/{name}.png)" if (PICTURES / f"{name}.png").exists() else TO_COME
    return made


ABOUT_PICTURES = {
    "peers": "Time for the same task, as a multiple of azarr's",
    "throughput": "Whole arrays, by chunk size, codec and store",
    "chunk-count": "What one chunk costs as an array has more of them",
    "latency": "A store that answers late: time as a multiple of the ideal",
    "stalls": "How long the event loop was kept from other work",
    "memory": "Memory at the peak",
}
"""The pictures by name, and what stands for them where they cannot be seen."""

PIVOTS: dict[str, tuple[str, tuple[str, ...], str | None, tuple[str, ...], dict[str, Any]]] = {
    "codecs": ("codecs", ("codec",), None, ("decode MiB/s", "encode MiB/s", "ratio"), {}),
    "read": ("read", ("chunk KiB", "store"), "codec", ("MiB/s",), {}),
    "write": ("write", ("chunk KiB", "store"), "codec", ("MiB/s",), {}),
    "random access": ("random_access", ("store", "codec"), None, ("p50 µs", "p99 µs", "reads/s, 32 at once"), {}),
    "small chunks": ("small_chunks", ("task", "store", "codec"), None, ("µs a chunk", "CPU µs a chunk"), {}),
    "chunk count": ("chunk_count", ("task",), "chunks", ("µs a chunk",), {}),
    "chunk count memory": ("chunk_count", ("task",), "chunks", ("peak MiB over the result",), {}),
    "overhead": ("streams", ("what",), None, ("µs a chunk",), {"task": "overhead"}),
    "shards": ("shards", ("task", "store"), None, ("MiB/s", "a second"), {}),
    "latency": ("latency", ("task",), "concurrency", ("× ideal",), {}),
    "tasks": ("concurrency", ("tasks",), None, ("reads/s", "p99 ms"), {"task": "single chunks of 16 KiB"}),
    "workers": ("concurrency", ("workers",), None, ("MiB/s",), {"task": "whole array"}),
    "executors": ("executors", ("task", "codec", "chunk KiB"), "executor", ("MiB/s",), {}),
    "s3 chunks": ("s3_chunks", ("reader",), None, ("seconds", "× ideal", "CPU s"), {}),
    "opening": ("opening", ("task", "what"), None, ("ms",), {}),
}
"""The tables by name: of which subject, what its lines are called by, its columns, its figures, and which rows."""


def pivot(rows: list[dict[str, Any]], down: tuple[str, ...], across: str | None, figures: tuple[str, ...], only: dict[str, Any]) -> str:
    """A table with a line for each case; its columns are figures, or one figure for each value of ``across``."""
    rows = [row for row in rows if all(row["case"].get(word) == each for word, each in only.items())]
    columns = figures if across is None else tuple(dict.fromkeys(row["case"][across] for row in rows))
    lines: dict[tuple[Any, ...], dict[Any, float]] = {}
    for row in rows:
        line = lines.setdefault(tuple(row["case"].get(word) for word in down), {})
        line.update(row["figures"] if across is None else {row["case"][across]: row["figures"].get(figures[0], math.nan)})
    if across is not None:
        head = [f"{each:,}" if isinstance(each, int) else str(each) for each in columns]
        head[0] = f"{across} {head[0]}" if isinstance(columns[0], int) else head[0]
    else:
        head = list(columns)
    return table([*down, *head], ([*key, *(line.get(each) for each in columns)] for key, line in lines.items()))


Columns = dict[str, tuple[str, ...]]
"""Implementations by the name of the column that shows them, of which each task has one at most."""

SHOWN: Columns = {
    "floor": ("floor",),
    "zarr-python": ("zarr",),
    "zarr-python, fused": ("zarr-fused",),
    "TensorStore": ("tensorstore-thp",),
    "zarrista": ("zarrista",),
}
TUNED: Columns = {
    "floor": ("floor",),
    "zarr-python, fused or with obstore": ("zarr-fused-tuned", "zarr-obstore-tuned"),
    "TensorStore": ("tensorstore-tuned",),
    "zarrista": ("zarrista-tuned", "zarrista-aio-tuned"),
}


def peer_table(document: dict[str, Any] | None, columns: Columns) -> str:
    """Seconds and CPU seconds of azarr, and what the others take as multiples of both."""
    found, lines = figures_of_peers(document), []
    for task, about in TASKS.items():
        mine = found.get((task, "azarr"))
        if mine is None:
            lines.append([about, TO_COME, *[""] * len(columns)])
            continue
        lines.append([about, pair(mine["seconds"], mine.get("CPU s"), " s")])
        for names in columns.values():
            theirs = next((found[task, name] for name in names if (task, name) in found), None)
            cpu = theirs["CPU s"] / mine["CPU s"] if theirs and mine.get("CPU s") and theirs.get("CPU s") else None
            lines[-1].append("" if theirs is None else pair(theirs["seconds"] / mine["seconds"], cpu))
    return table(["task", "azarr", *columns], lines)


def peer_memory(document: dict[str, Any] | None) -> str:
    """Memory at the peak over what there was at the start, in MB, and what of it is the result."""
    found, lines = figures_of_peers(document), []
    for task, about in TASKS.items():
        peaks = [found.get((task, name), {}).get("peak MiB") for name in ("azarr", *(name for names in SHOWN.values() for name in names))]
        result = megabytes(RESULTS.get(task))
        lines.append([about, result, TO_COME, *[""] * len(SHOWN)] if peaks[0] is None else [about, result, *map(megabytes, peaks)])
    return table(["task", "result", "azarr", *SHOWN], lines)


def figures_of_peers(document: dict[str, Any] | None) -> dict[tuple[str, str], dict[str, float]]:
    """What was measured, by task and implementation."""
    return {(row["case"]["task"], row["case"]["implementation"]): row["figures"] for row in (document or {"rows": []})["rows"]}


def megabytes(mebibytes: float | None) -> int | None:
    """Whole MB, as the kernel counts in lots and no more digits count."""
    return None if mebibytes is None else round(mebibytes * 1.048576)


def pair(wall: float, cpu: float | None, unit: str = "") -> str:
    """Time, and CPU time in parentheses."""
    return f"{number(wall)}{unit}" + (f" ({number(cpu)})" if cpu else "")


def run(documents: Documents) -> str:
    """When, where and with what was measured; a line for each such run, as parts may have been measured again."""
    lines: dict[str, list[str]] = {}
    for name, document in documents.items():
        machine, versions = document["machine"], document["versions"]
        where = f"{machine['cores']} cores of {machine['cpu']}, {machine['memory GiB']} GiB, {machine['kernel']}"
        with_what = ", ".join(f"{package} {version}" for package, version in versions.items())
        key = f"- {document['date'][:10]}, commit {document['commit']}, {document['scale']} scale, {where}; {with_what}: "
        lines.setdefault(key, []).append(name if not document["disturbance"] else f"{name} ({document['disturbance']})")
    return "\n".join(textwrap.fill(key + ", ".join(names), 150, subsequent_indent="  ") for key, names in lines.items())
