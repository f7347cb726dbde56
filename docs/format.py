"""Writes the tables of format.md, which lies beside it: ``python docs/format.py``.

They come from azarr's registries, so that they say what there is; a test compares them with the page.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

import azarr
from azarr.chunk_grids import RectilinearGrid, RegularGrid
from azarr.chunk_keys import parse_chunk_key_encoding
from azarr.codecs.registry import CODECS
from azarr.data_types import parse_data_type
from azarr.extensions import KINDS
from azarr.registry import OWN

PAGE = Path(__file__).with_name("format.md")
PROJECT = Path(__file__).parents[1] / "pyproject.toml"

ELEMENTS = {
    "string": "strings: NumPy's `StringDType` where there is one, else objects",
    "bytes": "`bytes` objects",
    "numpy.datetime64": "`datetime64[<unit>]`",
    "numpy.timedelta64": "`timedelta64[<unit>]`",
    "fixed_length_utf32": "`U<n>`",
    "null_terminated_bytes": "`S<n>`",
    "raw_bytes": "`V<n>`",
    "r<N>": "`V<n>`, N = 8 n",
    "struct": "a structured data type",
    "structured": "as `struct`, which is written instead",
    "optional": "objects, `None` where an element is missing",
}
"""What elements are in memory, for data types that have a configuration or objects in memory."""

LIMITS = {
    "metadata_nbytes": "bytes of one metadata document",
    "ndim": "dimensions of an array: one less than NumPy has, which is 31 before its version 2",
    "element_nbytes": "bytes of one element of a fixed size, and so of the fill value",
    "chunk_nbytes": "bytes of one decoded chunk",
    "expansion": "bytes that a compressed byte may decode to where elements vary in length",
}

V2_ONLY = {"numcodecs.vlen-array"}
"""Codecs for whose elements v3 has no data type."""

GRIDS = {"regular": RegularGrid, "rectilinear": RectilinearGrid}


def own(kind: str) -> list[azarr.Extension]:
    """What azarr has itself of a kind."""
    return [each for each in azarr.supported(kind) if each.source == OWN and each.loaded]


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [tuple(head), *map(tuple, rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def code(*names: str) -> str:
    """Names as code."""
    return ", ".join(f"`{name}`" for name in names)


def first_line(documented: type) -> str:
    """The first line of a docstring, in Markdown."""
    return (documented.__doc__ or "").splitlines()[0].replace("``", "`")


def in_v2(each: azarr.Extension, verb: str = "") -> str:
    """What stands for it in v2, and what azarr does with it there."""
    if each.in_v2 is None:
        return "–"
    return (each.in_v2 if " " in each.in_v2 else code(each.in_v2)) + verb


def data_types() -> str:
    """All data types, v3 names first."""

    def elements(name: str) -> str:
        if name in ELEMENTS:
            return ELEMENTS[name]
        if name.startswith("complex_"):  # for two of which newer versions of ml_dtypes have a data type
            return f"pairs of {code(name.removeprefix('complex_'))}"
        return code(str(parse_data_type(name, name).dtype))

    rows = (
        (code(each.name), code(*each.aliases), elements(each.name), in_v2(each), code(each.extra) if each.extra else "")
        for each in own("data type")
    )
    return table(("Zarr v3", "also read as", "elements in memory", "Zarr v2 `dtype`", "extra"), rows)


def codecs(kind: str) -> str:
    """All codecs of one kind."""
    rows = []
    for each in own(kind):
        if each.extra == "imagecodecs":
            continue
        codec = CODECS.get(each.name)
        assert codec is not None  # noqa: S101  # it has just been listed
        extra = f" Extra: {code(each.extra)}." if each.extra else ""
        in_v3 = "–" if each.name in V2_ONLY else "read, write"
        rows.append((code(each.name), code(*each.aliases), in_v3, in_v2(each, ": read, write"), f"{first_line(codec)}{extra}"))
    return table(("name", "also read as", "Zarr v3", "Zarr v2", "what it does"), rows)


def imagecodecs() -> str:
    """The codecs of the package imagecodecs, which are too many for the tables."""
    formats = {kind: code(*(each.name for each in own(kind) if each.extra == "imagecodecs")) for kind in KINDS[1:]}
    return "\n".join(f"- {kind}: {names}" for kind, names in formats.items())


def chunk_grids() -> str:
    """All chunk grids."""
    rows = ((code(each.name), in_v2(each), first_line(GRIDS[each.name])) for each in own("chunk grid"))
    return table(("Zarr v3", "Zarr v2", "what it is"), rows)


def chunk_keys() -> str:
    """All chunk key encodings, by example."""

    def keys(name: str, coords: tuple[int, ...]) -> str:
        encodings = (parse_chunk_key_encoding({"name": name, "configuration": {"separator": each}}, name) for each in "/.")
        return code(*dict.fromkeys(encoding.encode(coords) for encoding in encodings))

    rows = ((code(each.name), in_v2(each), keys(each.name, (1, 23)), keys(each.name, ())) for each in own("chunk key encoding"))
    return table(("Zarr v3", "Zarr v2", "the chunk at (1, 23), by separator", "of a scalar"), rows)


def limits() -> str:
    """The default limits."""
    defaults = azarr.Limits()
    numbers = {each.name: 63 if each.name == "ndim" else getattr(defaults, each.name) for each in fields(azarr.Limits)}
    rows = ((code(f"Limits.{name}"), f"{number:,}", LIMITS[name]) for name, number in numbers.items())
    return table(("limit", "default", "of what"), rows)


def extras() -> str:
    """The extras that data types and codecs need."""
    packages = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    needed: dict[str, list[azarr.Extension]] = {}
    for each in azarr.supported():
        if each.extra is not None and each.source == OWN:
            needed.setdefault(each.extra, []).append(each)
    rows = []
    for extra, users in sorted(needed.items()):
        many = "data types" if users[0].kind == "data type" else "codecs"
        names = code(*(each.name for each in users)) if len(users) < 5 else f"{len(users)} {many}, {code(users[0].name)} among them"
        rows.append((code(f'pip install "{OWN}[{extra}]"'), code(*(re.split("[<>=!]", each)[0] for each in packages[extra])), names))
    return table(("extra", "brings", "for"), rows)


def tables() -> dict[str, str]:
    """Every table by the name that it has in the page."""
    by_kind = {f"{kind}s": codecs(kind) for kind in KINDS}
    schemes = code(*(f"{each.name}://" for each in own("URL scheme")))
    return {
        "data types": data_types(),
        **by_kind,
        "imagecodecs": imagecodecs(),
        "chunk grids": chunk_grids(),
        "chunk key encodings": chunk_keys(),
        "schemes": f"Besides paths of folders and store objects, azarr opens URLs of {schemes}.",
        "limits": limits(),
        "extras": extras(),
    }


def updated(page: str) -> str:
    """The page with its tables as they are to be."""
    for name, text in tables().items():
        begin, end = f"<!-- {name}: written by docs/format.py -->\n", "\n<!-- end -->"
        before, rest = page.split(begin)
        _, after = rest.split(end, 1)
        page = f"{before}{begin}\n{text}\n{end}{after}"
    return page


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
