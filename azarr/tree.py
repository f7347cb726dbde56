"""A hierarchy as text, drawn like the tree of a file system."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from azarr.metadata.consolidated import index_of
from azarr.metadata.model import ArrayMetadata, GroupMetadata


def draw(root: str, labels: Mapping[str, str]) -> str:
    """``root``, and below it the nodes at the paths ``labels`` with what is to be said of each."""
    below = index_of(labels)
    lines = [root]
    # paths with what stands before their children, the next to be drawn last
    waiting = [(path, "", last) for path, last in reversed(marked(below.get("", [])))]
    while waiting:
        path, indent, last = waiting.pop()
        label = labels.get(path, "")
        lines.append(f"{indent}{'└── ' if last else '├── '}{path.rpartition('/')[2]}{label and ' '}{label}")
        further = indent + ("    " if last else "│   ")
        waiting += [(lower, further, is_last) for lower, is_last in reversed(marked(below.get(path, [])))]
    return "\n".join(lines)


def marked(paths: Iterable[str]) -> list[tuple[str, bool]]:
    """The paths, each with whether it is the last."""
    ordered = list(paths)
    return [(path, number == len(ordered)) for number, path in enumerate(ordered, 1)]


def label_of(metadata: ArrayMetadata | GroupMetadata) -> str:
    """What the tree says of a node: the shape and data type of an array, nothing of a group."""
    return f"{metadata.shape} {metadata.data_type.dtype}" if isinstance(metadata, ArrayMetadata) else ""
