"""The frame of the suite: how things are measured, how often, and in what form they are written down.

A subject is a module of this folder with a function ``run(bench)``, plain or ``async``; its name is the subject's. It hands cases to
``bench.compare``, or figures that it has come by itself to ``bench.add``. A case checks its result before its figures count.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
import mmap
import multiprocessing
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from bench.tables import table_of

T = TypeVar("T")
Case = dict[str, str | int | float]
"""What is measured, in words and numbers: ``{"task": "read", "store": "memory", "chunk KiB": 64}``."""
Figures = dict[str, float]
"""What came out, by unit: ``{"MiB/s": 2100.0}``."""
Way = Callable[[], Awaitable[Figures]]

FOLDER = Path(__file__).parent
RUN = re.compile(r"^(async )?def run\(bench", re.MULTILINE)
SCALES = ("full", "quick", "tiny")
PACKAGES = (
    "azarr",
    "numpy",
    "zstandard",
    "blosc2",
    "numcodecs",
    "lz4",
    "crc32c",
    "python-snappy",
    "zarr",
    "zarrs",
    "zarrista",
    "tensorstore",
    "obstore",
    "aiohttp",
)
ROUNDS = {"full": 3, "quick": 2, "tiny": 1}


@dataclass(frozen=True, slots=True)
class Row:
    """A case, the medians of its figures, and the least and the most that was seen of each."""

    case: Case
    figures: Figures
    spread: dict[str, tuple[float, float]] = field(default_factory=dict)
    rounds: int = 1


class Bench:
    """What one subject finds out."""

    def __init__(self, name: str, scale: str = "full") -> None:
        if scale not in SCALES:
            raise ValueError(f"the scale is one of {SCALES}, not {scale!r}")
        self.name = name
        self.scale = scale
        self.rows: list[Row] = []
        self.skipped: list[str] = []
        self.disturbance: float | None = None
        """Processors that other programs kept busy meanwhile, on average; a quiet machine has less than 0.1."""

    def pick(self, full: T, quick: T, tiny: T) -> T:
        """What belongs to the scale of this run."""
        return {"full": full, "quick": quick, "tiny": tiny}[self.scale]

    @property
    def rounds(self) -> int:
        """How often each case is measured."""
        return ROUNDS[self.scale]

    def add(self, case: Case, figures: Figures, *more: Figures) -> None:
        """Note figures; where there are several, their medians and what they lie between."""
        every = [figures, *more]
        medians = {name: statistics.median(each[name] for each in every) for name in figures if not math.isnan(figures[name])}
        spread = {name: (min(each[name] for each in every), max(each[name] for each in every)) for name in medians}
        self.rows.append(Row(case, medians, spread, len(every)))

    def skip(self, why: str) -> None:
        """Note that something could not be measured, and what would help."""
        self.skipped.append(why)
        print(f"{self.name}: left out: {why}", flush=True)

    def those_installed(self, packages: Mapping[str, str]) -> list[str]:
        """Those names whose package is installed, of which a quick run takes only azarr; what is missing is noted."""
        if self.scale == "quick":
            return [name for name in packages if name == "azarr"]
        missing = [package for package in packages.values() if importlib.util.find_spec(package) is None]
        if missing:
            self.skip(f"beside it would be measured what is not installed: {', '.join(missing)}")
        return [name for name, package in packages.items() if package not in missing]

    def in_child(self, function: Callable[..., T], *args: Any) -> T:
        """``function(*args)`` in a fresh process; in this one at the scale that is there to see whether all runs."""
        return function(*args) if self.scale == "tiny" else in_child(function, *args)

    async def compare(self, cases: Iterable[tuple[Case, Way]], rounds: int | None = None) -> None:
        """Measure the cases in turns, so that what disturbs the machine disturbs all alike; the first round only warms up."""
        cases = list(cases)
        found: list[list[Figures]] = [[] for _ in cases]
        for number in range(1 + (rounds or self.rounds)):
            for (_, way), figures in zip(cases, found, strict=True):
                latest = await way()
                if number:
                    figures.append(latest)
        for (case, _), figures in zip(cases, found, strict=True):
            self.add(case, *figures)

    def document(self) -> dict[str, Any]:
        """What is written to the result file."""
        return {
            "name": self.name,
            "about": about(self.name),
            "scale": self.scale,
            **environment(),
            "disturbance": self.disturbance,
            "skipped": self.skipped,
            "rows": [asdict(row) for row in self.rows],
        }

    def write(self, folder: Path) -> Path:
        """Write the result file, and say where it is."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(self.document(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        return path


# ------------------------------------------------------------------------------------------------------------------------ subjects


def subjects() -> list[str]:
    """The names of all subjects: the modules of this folder that have a function ``run``."""
    return sorted(path.stem for path in FOLDER.glob("*.py") if RUN.search(path.read_text(encoding="utf-8")))


def about(name: str) -> str:
    """What a subject is about: the first line of its module; nothing, where it is not a module of the suite."""
    return (getattr(sys.modules.get(f"bench.{name}"), "__doc__", None) or "").partition("\n")[0]


def measure(name: str, scale: str, folder: Path) -> Bench:
    """Run one subject, write its result file and print its table."""
    module = importlib.import_module(f"bench.{name}")
    bench = Bench(name, scale)
    print(f"\n{name}: {about(name)}", flush=True)
    begun, busy = time.perf_counter(), busy_elsewhere()
    outcome = module.run(bench)
    if inspect.iscoroutine(outcome):
        asyncio.run(outcome)
    seconds = time.perf_counter() - begun
    bench.disturbance = max(0.0, round((busy_elsewhere() - busy) / seconds, 2))
    path = bench.write(folder)
    print(table_of([asdict(row) for row in bench.rows]))
    print(f"{seconds:.0f} s, other programs kept {bench.disturbance} processors busy; {path}", flush=True)
    return bench


# ----------------------------------------------------------------------------------------------------------------------- measuring


@dataclass(slots=True)
class Meter:
    """What a block cost: seconds, seconds of CPU, bytes at the peak beyond those at the start, and the stalls of the loop in seconds."""

    seconds: float = math.nan
    cpu: float = math.nan
    peak: float = math.nan
    longest_stall: float = math.nan
    p99_stall: float = math.nan


@asynccontextmanager
async def measured(*, touches: int = 0, heartbeat: bool = False) -> AsyncIterator[Meter]:
    """Measure the block. ``touches`` is the memory that it will need, which is made warm before; ``heartbeat`` looks for stalls.

    A heartbeat is a task that wants to run every millisecond, and costs a few per cent; nothing but stalls should be read off beside it.
    """
    meter, late = Meter(), []
    gc.collect(1)
    warm(touches)
    if heartbeat:
        task = asyncio.create_task(beat(late))
        await asyncio.sleep(0.005)
        late.clear()
    start_rss = restart_peak()
    begun, cpu = time.perf_counter(), cpu_seconds()
    try:
        yield meter
    finally:
        meter.seconds, meter.cpu = time.perf_counter() - begun, cpu_seconds() - cpu
        meter.peak = max(0.0, status("VmHWM") - start_rss) if start_rss == start_rss else math.nan
        if heartbeat:
            await asyncio.sleep(0.003)  # a stall that lasted to the end is noted, too
            task.cancel()
            await asyncio.wait([task])
            late.sort()
            meter.longest_stall, meter.p99_stall = late[-1], late[int(len(late) * 0.99)]


async def beat(late: list[float]) -> None:
    """Note every millisecond how late this task is."""
    while True:
        asleep = time.perf_counter()
        await asyncio.sleep(0.001)
        late.append(time.perf_counter() - asleep - 0.001)


def warm(nbytes: int) -> None:
    """Touch so much memory and give it back.

    Virtual machines hand freed memory back to their host, and touching it again costs fifty times what it costs otherwise.
    """
    if nbytes >= 2**20:
        with mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
            if hasattr(mmap, "MADV_HUGEPAGE"):
                memory.madvise(mmap.MADV_HUGEPAGE)
            view = np.frombuffer(memory, np.uint8)
            view[::4096] = 1
            del view


def cpu_seconds(whose: int = resource.RUSAGE_SELF) -> float:
    """Seconds of CPU that this process has spent so far, or its children."""
    usage = resource.getrusage(whose)
    return usage.ru_utime + usage.ru_stime


def busy_elsewhere() -> float:
    """Seconds of CPU that programs other than this one and those that it has started and seen the end of have spent so far."""
    try:
        fields = [int(each) for each in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    except OSError:
        return 0.0  # only Linux tells
    busy = (sum(fields[:3]) + sum(fields[5:8])) / os.sysconf("SC_CLK_TCK")
    return busy - cpu_seconds() - cpu_seconds(resource.RUSAGE_CHILDREN)


def restart_peak() -> float:
    """Have the kernel forget the peak of this process's memory; the bytes that it has now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return math.nan  # only Linux tells
    return status("VmRSS")


def status(name: str) -> float:
    """Bytes of memory as /proc/self/status has them; nan where there is none."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return math.nan
    return next((int(line.split()[1]) * 1024.0 for line in lines if line.startswith(f"{name}:")), math.nan)


def in_child(function: Callable[..., T], *args: Any) -> T:
    """``function(*args)`` in a fresh process, for what depends on what the process did before, such as memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


# ------------------------------------------------------------------------------------------------------------------- where and when


def environment() -> dict[str, Any]:
    """The date, the commit, the machine and the versions."""
    installed = {each: version(each) for each in PACKAGES}
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "machine": {
            "cpu": cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory GiB": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "kernel": f"{platform.system()} {platform.release()}",
        },
        "versions": {"python": platform.python_version(), **{name: each for name, each in installed.items() if each}},
    }


def version(package: str) -> str | None:
    """The installed version of a package, where there is one."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def commit() -> str | None:
    """The commit that is checked out, with a plus where files differ from it."""
    git = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def cpu_model() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor() or "unknown")
