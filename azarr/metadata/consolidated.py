"""Consolidated metadata: the metadata documents of all nodes below a group, kept in one document of that group.

In Zarr v3 they are the ``consolidated_metadata`` member of the group's ``zarr.json``, in v2 the document ``.zmetadata`` beside ``.zgroup``.
The documents are kept as they are; a node's metadata is parsed when somebody asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final, Literal, Self, TypeAlias

from azarr.deferred import DeferredModule
from azarr.errors import MetadataError
from azarr.metadata import v3
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.paths import above, child, depth, is_below, prefix_of
from azarr.types import JSON, Limits

if TYPE_CHECKING:
    from azarr.metadata import v2
else:  # what nodes of v3 do without
    v2 = DeferredModule("azarr.metadata.v2")

Documents: TypeAlias = Mapping[str, Mapping[str, JSON]]
"""The metadata documents of one node by their names, each as the members of its JSON object."""

MEMBER: Final = "consolidated_metadata"
"""Where they are in the ``zarr.json`` of a v3 group."""

HINT: Final = "; open the group with use_consolidated=False to leave its consolidated metadata aside"

_LONGEST: Final = 1024
_DEEPEST: Final = 64
"""What a path may have of characters, and of names: more than stores take, and little enough for a hostile document to cost little."""

_OBJECTS: Final = frozenset({"zarr.json", ".zarray", ".zgroup", ".zattrs"})


class Consolidated:
    """The documents of the nodes below a group by their paths, which are relative to the group. Never changed once made.

    In Zarr v2 the group's own documents are among them, at ``""``.
    """

    __slots__ = ("_below", "documents", "zarr_format")

    def __init__(self, zarr_format: Literal[2, 3], documents: Mapping[str, Documents]) -> None:
        self.zarr_format: Literal[2, 3] = zarr_format
        self.documents = documents
        self._below: dict[str, list[str]] | None = None

    def __repr__(self) -> str:
        return f"<Consolidated v{self.zarr_format} metadata of {len(self.documents)} nodes>"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Consolidated):
            return NotImplemented
        return (self.zarr_format, self.documents) == (other.zarr_format, other.documents)

    __hash__ = None  # type: ignore[assignment]  # as mappings have none

    def metadata(self, path: str, limits: Limits = v3.DEFAULT_LIMITS, *, top: str = "") -> ArrayMetadata | GroupMetadata | None:
        """The metadata of the node at ``path``, ``None`` where there is none; ``MetadataError`` where its documents are not legal.

        ``top`` is the path of the group, for the error to say where the node is.
        """
        documents = self.documents.get(path)
        return None if documents is None else parse_node(documents, child(top, path), limits)

    def children(self, path: str = "") -> list[str]:
        """The paths directly below ``path``, sorted, those included that are no nodes but have nodes below them."""
        if self._below is None:
            self._below = index_of(self.documents)
        return self._below.get(path, [])

    def below(self, path: str = "", max_depth: int | None = None) -> Iterator[str]:
        """The paths of the nodes below ``path``, at most ``max_depth`` names further down: nearest first, then sorted."""
        level, reached = self.children(path), 0
        while level and (max_depth is None or reached < max_depth):
            yield from (each for each in level if each in self.documents)
            level = [further for each in level for further in self.children(each)]
            reached += 1

    def changed(self, put: Mapping[str, Documents], removed: Iterable[str] = ()) -> Self:
        """The same without the nodes at and below the paths ``removed``, and then with the documents of other nodes ``put`` in."""
        tops = tuple(removed)
        kept = {path: each for path, each in self.documents.items() if not any(is_below(path, top) for top in tops)}
        return type(self)(self.zarr_format, {**kept, **put})

    def with_node(self, path: str, documents: Documents) -> Self:
        """The same with the node at ``path`` added or replaced."""
        return self.changed({path: documents})

    def without(self, path: str) -> Self:
        """The same without what is at and below ``path``."""
        return self.changed({}, [path])

    def to_json(self) -> dict[str, JSON]:
        """The ``consolidated_metadata`` of a v3 group, or the ``.zmetadata`` of a v2 group; the nearest nodes come first."""
        paths = sorted(self.documents, key=lambda path: (depth(path), path))
        if self.zarr_format == 3:
            return {"kind": "inline", "must_understand": False, "metadata": {path: self.documents[path]["zarr.json"] for path in paths}}
        metadata = {prefix_of(path) + name: members for path in paths for name, members in self.documents[path].items()}
        return {"zarr_consolidated_format": 1, "metadata": metadata}


def parse_node(documents: Documents, path: str, limits: Limits = v3.DEFAULT_LIMITS) -> ArrayMetadata | GroupMetadata | None:
    """The metadata that the documents of the node at ``path`` hold; ``None`` where they make no node."""
    where = path or "/"
    if "zarr.json" in documents:
        return v3.parse(documents["zarr.json"], where, limits)
    if ".zarray" in documents:
        return v2.parse_array(documents[".zarray"], documents.get(".zattrs"), where, limits)
    if ".zgroup" in documents:
        return v2.parse_group(documents[".zgroup"], documents.get(".zattrs"), where, limits)
    return None


def parse_v3(document: JSON, path: str) -> Consolidated | None:
    """The ``consolidated_metadata`` of the v3 group at ``path``; ``None`` where it is null or of a kind that azarr does not know."""
    if document is None:
        return None
    if not isinstance(document, Mapping):
        raise _malformed(path, f"{MEMBER} must be an object, not {document!r:.100}")
    if document.get("kind") != "inline":
        return None
    nodes = _object(document.get("metadata"), path, f"metadata in {MEMBER}")
    return Consolidated(3, {_checked(name, path): {"zarr.json": _without_nested(_object(nodes[name], path, name))} for name in nodes})


def parse_v2(document: Mapping[str, JSON], path: str) -> Consolidated:
    """The ``.zmetadata`` of the v2 group at ``path``. Documents that are not of nodes are kept."""
    if type(found := document.get("zarr_consolidated_format")) is not int or found != 1:
        raise _malformed(path, f"zarr_consolidated_format in .zmetadata must be 1, not {found!r:.100}")
    nodes: dict[str, dict[str, Mapping[str, JSON]]] = {}
    for key, members in _object(document.get("metadata"), path, "metadata in .zmetadata").items():
        node, _, name = key.rpartition("/")
        if name in _OBJECTS:
            members = _object(members, path, key)  # noqa: PLW2901 - the same, checked
        nodes.setdefault(_checked(node, path) if node else "", {})[name] = members  # type: ignore[assignment]  # others are only kept
    return Consolidated(2, nodes)


def index_of(documents: Iterable[str]) -> dict[str, list[str]]:
    """The paths directly below each path, sorted."""
    below: dict[str, set[str]] = {}
    for path in documents:
        lower = path
        for upper in reversed(above(path)):
            siblings = below.setdefault(upper, set())
            if lower in siblings:
                break
            siblings.add(lower)
            lower = upper
    return {upper: sorted(paths) for upper, paths in below.items()}


def _without_nested(members: Mapping[str, JSON]) -> Mapping[str, JSON]:
    """What a group below says of its own consolidated metadata counts where that group itself is opened."""
    return {name: member for name, member in members.items() if name != MEMBER} if MEMBER in members else members


def _object(document: JSON, path: str, what: str) -> Mapping[str, JSON]:
    if not isinstance(document, Mapping):
        raise _malformed(path, f"{what:.100} in the consolidated metadata must be an object, not {document!r:.100}")
    return document


def _checked(name: str, path: str) -> str:
    """``name``, unless it is not the path of a node below a group."""
    names = name.split("/")
    if "\\" in name or "\0" in name or len(name) > _LONGEST or len(names) > _DEEPEST or not {"", ".", ".."}.isdisjoint(names):
        raise _malformed(path, f"{name!r:.100} in the consolidated metadata is not the path of a node")
    return name


def _malformed(path: str, what: str) -> MetadataError:
    return MetadataError(f"{path or '/'}: {what}{HINT}", path=path or "/")
