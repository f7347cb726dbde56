"""The peer benchmark's results in the form of the suite: ``python -m bench.peer_figures`` makes a JSON file of each of ``SUBJECTS``."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from bench.suite import FOLDER, Bench

SUBJECTS = ("peers", "tuned_peers")
"""Peers with settings as they come, and as who knows them well would choose them for the task; of peers*.jsonl and tuned_peers*.jsonl."""

TASKS = {
    "T1": "read 1 GiB at once, zstd",
    "T2": "read 1 GiB at once, blosc",
    "T3raw": "read 20,000 small chunks, uncompressed",
    "T3zstd": "read 20,000 small chunks, zstd",
    "T4full": "read 1 GiB in shards at once",
    "T4rand": "single inner chunks of shards at random",
    "T5": "write 512 MiB, zstd",
    "T5b": "write 512 MiB in shards",
    "T6": "single chunks of 1 MiB at random, zstd",
    "T6blosc": "single chunks of 1 MiB at random, blosc",
    "T6small": "single chunks of 16 KiB at random",
    "T6seq": "single chunks of 16 KiB, one by one",
    "T7": "stream 2 GiB, eight chunks in flight",
    "T8s3": "read 256 MiB from S3 that comes 30 ms late",
    "T8http": "read 256 MiB from the web that comes 30 ms late",
    "T9": "start, import and open",
    "T10": "planes in order",
}
"""What the tasks are, in the order in which they are shown."""

RESULTS = {"T1": 1024, "T2": 1024, "T3raw": 312.5, "T3zstd": 312.5, "T4full": 1024, "T8s3": 256, "T8http": 256}
"""MiB that tasks ask for at once, and that every implementation has to hold; the other tasks let go of what they get."""

FIGURES = {"wall": "seconds", "cpu": "CPU s", "p99_ms": "p99 ms", "import_s": "import s"}


def peers(files: Iterable[Path], subject: str = "peers") -> Bench:
    """The medians of the runs in ``files``, in JSON Lines as run.py writes them; wrong and failed runs are left out.

    What was measured again, in a later file, replaces what was there.
    """
    runs: dict[tuple[str, str], list[dict]] = {}
    for file in files:
        latest: dict[tuple[str, str], list[dict]] = {}
        for run in map(json.loads, file.read_text(encoding="utf-8").splitlines()):
            if "wall" in run and run.get("ok", True):
                latest.setdefault((run["task"], run["impl"]), []).append(run)
        runs |= latest
    bench = Bench(subject)
    for (task, implementation), each in runs.items():
        bench.add({"task": task, "implementation": implementation}, *map(figures, each))
    return bench


def figures(run: dict) -> dict[str, float]:
    """What is shown of a run; memory in MiB over what there was at the start, where the task is not the whole process (T9)."""
    found = {unit: run[name] for name, unit in FIGURES.items() if name in run}
    if "rss_peak_mb" in run:
        found["peak MiB"] = (run["rss_peak_mb"] - run.get("rss_before_mb", 0)) / 1.048576
    return found


if __name__ == "__main__":
    results = FOLDER / "results"
    for subject in SUBJECTS:
        if files := sorted(results.glob(f"{subject}*.jsonl"), key=lambda file: file.stat().st_mtime):
            print(peers(files, subject).write(results))
