"""The project's tasks: `nox` runs the tests, `nox --list` shows the rest, `nox -s lint -- --fix` hands arguments on.

Each session works in an environment of its own, with the interpreter that runs nox; only `interop` looks for a Python 3.12 or later, which
the newest of azarr's peers need; `bench` measures them beside azarr where nox itself runs with one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2026.2"
nox.options.sessions = ["tests"]
nox.options.error_on_missing_interpreters = True
nox.options.download_python = "never"

PROJECT = nox.project.load_toml("pyproject.toml")
DEMO_DATA = "pvlib>=0.11"  # wanted for one data file, hence installed without what it depends on
AZURITE = "azurite@3.35.0"
DEBIAN = {"redis-server": "redis-server", "nginx": "nginx-light"}
PARALLEL = ["--numprocesses=logical", "--dist=worksteal"]  # a process for every processor


def install(session: nox.Session, *groups: str, extra: str = "") -> None:
    """Install azarr with one of its extras, and dependency groups."""
    requirements = nox.project.dependency_groups(PROJECT, *groups) if groups else ()
    session.install(f".[{extra}]" if extra else ".", *requirements)


def install_demo(session: nox.Session, *groups: str) -> None:
    """Install azarr with all that examples and demo need."""
    install(session, *groups, extra="demo")
    session.install("--no-deps", DEMO_DATA)


@nox.session
def demo(session: nox.Session) -> None:
    """Turn a real global data set into a Zarr array, stream it back, check it and draw a map (into demo-output/)."""
    install_demo(session)
    session.run("python", "examples/linke_turbidity.py", *(session.posargs or ["--output", "demo-output"]))


@nox.session
def tests(session: nox.Session) -> None:
    """Run the test suite, with the examples, the documentation's code and, where it is found, the conformance corpus."""
    install_demo(session, "tests")
    session.run("pytest", *PARALLEL, "--ignore=tests/interop", "--ignore=tests/emulators", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting; `-- --fix` mends what can be mended."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", *([] if "--fix" in session.posargs else ["--diff"]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly."""
    install_demo(session, "types")
    session.run("mypy", *session.posargs)


@nox.session(python=">=3.12")
def interop(session: nox.Session) -> None:
    """Exchange arrays with zarr-python and TensorStore, in both directions."""
    install(session, "interop")
    session.run("pytest", *PARALLEL, "tests/interop", *session.posargs)


@nox.session
def emulators(session: nox.Session) -> None:
    """Run the tests of stores against real servers, which are installed where they are missing."""
    install(session, "emulators")
    # a folder that lives as long as the environment; the newest release for Node 20
    session.run("npm", "install", "--silent", "--prefix", str(Path(session.virtualenv.location, "npm")), AZURITE, external=True)
    missing = [package for program, package in DEBIAN.items() if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing and os.geteuid() == 0:
        session.run("apt-get", "update", "-qq", external=True)
        session.run("apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing, external=True)
    session.run("pytest", "tests/emulators", "tests/stores/test_s3.py", *session.posargs, env={"AZARR_REQUIRE_SERVERS": "1"})


@nox.session
def bench(session: nox.Session) -> None:
    """Measure azarr; with `-- peers run.py …` the peer benchmark, with `-- page` docs/performance.md; see bench/README.md."""
    install(session, "bench", extra="s3")
    if session.posargs[:1] == ["peers"]:
        measure_peers(session, *session.posargs[1:])
    else:
        session.run("python", "-m", "bench", *session.posargs)


def measure_peers(session: nox.Session, script: str = "run.py", *arguments: str) -> None:
    """Run a script of the peer benchmark, whose folder PEERBENCH names, and put its results into the form of the suite."""
    peerbench = os.environ.get("PEERBENCH")
    if not peerbench:
        session.error("set PEERBENCH to a checkout of the peer benchmark; bench/README.md says how")
    Path("bench/results").mkdir(exist_ok=True)
    session.run("python", str(Path(peerbench, script)), *arguments, env={"PEERBENCH_ADAPTERS": str(Path("bench/peers").resolve())})
    if script == "run.py":
        session.run("python", "-m", "bench.peer_figures")


@nox.session
def docs(session: nox.Session) -> None:
    """Run the code of the README and the documentation, and the examples."""
    install_demo(session, "tests")
    session.run("pytest", "tests/test_docs.py", "tests/test_examples.py", *session.posargs)
