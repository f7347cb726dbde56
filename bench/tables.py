"""Tables in Markdown, which are also legible in a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def number(value: float | str | None) -> str:
    """A number with three digits that count; words as they are."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:#.3g}".rstrip(".") if value else "0"


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table whose columns are aligned; columns with numbers in them to the right."""
    rows = [list(row) for row in rows]
    cells = [list(head), *([number(cell) for cell in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    right = [any(isinstance(row[column], (int, float)) for row in rows) for column in range(len(head))]

    def line(row: list[str]) -> str:
        padded = (cell.rjust(width) if to_right else cell.ljust(width) for cell, width, to_right in zip(row, widths, right, strict=True))
        return f"| {' | '.join(padded)} |"

    rule = "|".join("-" * (width + 1) + (":" if to_right else "-") for width, to_right in zip(widths, right, strict=True))
    return "\n".join([line(cells[0]), f"|{rule}|", *map(line, cells[1:])])


def table_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """A table of the rows of a result file: a column for each word of their cases, then one for each unit of their figures."""
    rows = list(rows)
    words = list(dict.fromkeys(word for row in rows for word in row["case"]))
    units = list(dict.fromkeys(unit for row in rows for unit in row["figures"]))
    body = [[row["case"].get(word) for word in words] + [row["figures"].get(unit) for unit in units] for row in rows]
    return table([*words, *units], body) if body else "nothing was measured"
