"""The suite's command: ``python -m bench [--quick] [SUBJECT …]``, and ``python -m bench page`` for what is made of the results."""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.suite import FOLDER, measure, subjects


def main() -> None:
    """Run the subjects that are named, or all."""
    names = subjects()
    parser = argparse.ArgumentParser(prog="bench", description="azarr's benchmarks; they write result files and print tables")
    parser.add_argument(
        "names", nargs="*", metavar="SUBJECT", help=f"all by default: {', '.join(names)}; or 'page': pictures and docs/performance.md"
    )
    parser.add_argument("--quick", dest="scale", action="store_const", const="quick", default="full", help="smaller sizes, under a minute")
    parser.add_argument("--tiny", dest="scale", action="store_const", const="tiny", help="sizes that say nothing, to see whether all runs")
    parser.add_argument("--results", type=Path, default=FOLDER / "results", help="folder of the result files")
    options = parser.parse_args()
    unknown = set(options.names) - {*names, "page"}
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(names)}, and page")
    if "page" not in options.names or len(options.names) > 1:
        for name in [each for each in options.names if each != "page"] or names:
            measure(name, options.scale, options.results)
    if "page" in options.names:
        from bench.page import make

        make(options.results)


if __name__ == "__main__":  # which spawned processes are not
    main()
