"""Paths of nodes (Zarr v3 core, "Names and paths"): ``""`` is the root, ``"a/b"`` a node below it."""

from __future__ import annotations

from typing import Literal

from azarr.errors import MetadataError


def normalize(path: str) -> str:
    """``path`` without slashes at its ends."""
    return path.strip("/")


def child(path: str, name: str) -> str:
    """The path of ``name`` below ``path``; ``name`` may be a path itself."""
    name = normalize(name)
    return f"{path}/{name}" if path and name else path or name


def prefix_of(path: str) -> str:
    """What the keys of a node, and the paths below it, begin with."""
    return f"{path}/" if path else ""


def key_of(path: str, document: str) -> str:
    """The key of a metadata document of the node at ``path``."""
    return f"{path}/{document}" if path else document


def above(path: str) -> list[str]:
    """The paths above ``path``, from the root down."""
    if not path:
        return []
    parts = path.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(len(parts) + 1)]


def is_below(path: str, top: str) -> bool:
    """Whether ``path`` is ``top`` or below it."""
    return not top or path == top or path.startswith(f"{top}/")


def relative(path: str, top: str) -> str:
    """``path`` as it is called from ``top``, which is above it or the same."""
    return path[len(top) + 1 :] if top else path


def depth(path: str) -> int:
    """How many names a path has; 0 for the root."""
    return path.count("/") + 1 if path else 0


def check_name(path: str, zarr_format: Literal[2, 3]) -> None:
    """Raise ``MetadataError`` where a part of ``path`` is no legal node name (Zarr v3 core, "Node names")."""
    for name in path.split("/") if path else []:
        if not name or not name.strip(".") or (zarr_format == 3 and (name.startswith("__") or name == "zarr.json")):
            raise MetadataError(
                f"{name!r} in path {path!r} is not a node name: it may not be empty, of periods only, 'zarr.json', or start with '__'",
                path=path,
            )
