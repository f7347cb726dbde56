"""Consolidated metadata in a store, kept up to date: whatever is done to a node is written through to the groups above it.

Every change of a node is made under the node's lock, and written through, group by group, under the lock of each group, whose
document is read again there. Locks are always taken from below upwards. Whether a group above is consolidated at all is looked at
without a lock, so that those who work side by side in a group that is not consolidated do not wait for each other; a consolidation
that goes on meanwhile makes itself known in the ``Registry``.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from azarr.errors import MetadataError
from azarr.locks import locks_of, written_to
from azarr.metadata import v3
from azarr.metadata.consolidated import MEMBER, Consolidated, Documents, parse_v2, parse_v3
from azarr.paths import above, child, depth, is_below, key_of, relative
from azarr.rewriting import rewrite
from azarr.stores.base import as_conditional, identity_of
from azarr.types import JSON, Buffer, Limits
from azarr.window import gather

REQUESTS = 32
"""Documents of groups above a node that are fetched at once."""


class Catalog:
    """The consolidated metadata of the group at ``path``, as everybody who works through that group sees it; ``None`` once dropped."""

    __slots__ = ("__weakref__", "_registry", "consolidated", "path", "place")

    def __init__(self, store: object, path: str, consolidated: Consolidated) -> None:
        self.path = path
        self.consolidated: Consolidated | None = consolidated
        self._registry = registry_of(store)
        self.place = child(self._registry.base, path)
        with _mutex:
            self._registry.known.catalogs.add(self)


@dataclass(eq=False, slots=True)
class Change:
    """What is to be written through: nodes put in after whatever is at and below other paths has been removed."""

    put: Mapping[str, Documents]
    removed: Sequence[str]
    latest: Callable[[], Awaitable[Mapping[str, Documents]]] | None = None
    """What to put in instead, as it is in the store by now: for stores that other processes write to."""
    done: bool = False


@dataclass(slots=True, weakref_slot=True)
class Known:
    """What this process knows of the consolidated metadata in the data behind one store."""

    catalogs: weakref.WeakSet[Catalog] = field(default_factory=weakref.WeakSet)
    begun: int = 0
    ended: int = 0
    """How many consolidations have begun and ended."""
    waiting: dict[tuple[str, str, int], list[Change]] = field(default_factory=dict)
    """The changes that wait for the lock of a group, by its path and format, and by who calls it so: whoever gets it writes all of them
    through at once."""


class Registry(NamedTuple):
    """What is ``known`` of the data, for those whose paths begin at ``base``."""

    known: Known
    base: str

    def begin(self) -> None:
        """A consolidation begins."""
        with _mutex:
            self.known.begun += 1

    def end(self) -> None:
        """A consolidation has ended."""
        with _mutex:
            self.known.ended += 1

    def waiting(self, path: str, zarr_format: int) -> list[Change]:
        """The changes that wait for the lock of the group at ``path``."""
        return self.known.waiting.setdefault((self.base, path, zarr_format), [])

    def live(self, zarr_format: int) -> list[Catalog]:
        """The catalogs of groups of this format that somebody works through."""
        with _mutex:
            catalogs = list(self.known.catalogs)
        return [each for each in catalogs if each.consolidated is not None and each.consolidated.zarr_format == zarr_format]

    def live_paths(self, zarr_format: int) -> set[str]:
        """The paths of these groups, of those at and below ``base``."""
        return {relative(each.place, self.base) for each in self.live(zarr_format) if is_below(each.place, self.base)}

    def publish(self, path: str, zarr_format: int, consolidated: Consolidated | None) -> None:
        """Show those who work through the group at ``path`` what its consolidated metadata is now."""
        for catalog in self.live(zarr_format):
            if catalog.place == child(self.base, path):
                catalog.consolidated = consolidated

    def forget(self, path: str, zarr_format: int) -> None:
        """Tell those who work through groups at and below ``path`` that these are gone."""
        for catalog in self.live(zarr_format):
            if is_below(catalog.place, child(self.base, path)):
                catalog.consolidated = None


_known: weakref.WeakValueDictionary[Hashable, Known] = weakref.WeakValueDictionary()
_mutex = threading.Lock()
"""For whatever threads share: which data there are, and which catalogs of them."""


def registry_of(store: object) -> Registry:
    """The registry of the data behind ``store``, found as its locks are. What is known lives as long as somebody holds it."""
    identity, prefix = written_to(identity_of(store))
    with _mutex:
        known = _known.get(identity)
        if known is None:
            known = _known[identity] = Known()
    return Registry(known, prefix.rstrip("/"))


class WriteThrough:
    """Keeps the consolidated metadata above some nodes of one format up to date; to be made before anything is read or changed."""

    def __init__(self, store: Any, zarr_format: Literal[2, 3], limits: Limits) -> None:
        self._store, self._format, self._limits = store, zarr_format, limits
        self._registry = registry_of(store)
        self._locks = locks_of(store)
        self._ended = self._registry.known.ended
        self._shared = as_conditional(store) is not None

    @property
    def disturbed(self) -> bool:
        """Whether there is a consolidation that may have read documents which have been changed since."""
        return not self._registry.known.begun == self._registry.known.ended == self._ended

    async def apply(
        self,
        put: Mapping[str, Documents],
        removed: Sequence[str] = (),
        *,
        consolidated: Iterable[str] | None = None,
        held: Collection[str] = (),
        own: str | None = None,
        whole: str | None = None,
        again: Callable[[], Awaitable[Documents | None]] | None = None,
    ) -> None:
        """Put nodes in and take others out, in the documents of all consolidated groups above them.

        ``consolidated`` are these groups where the caller knows them, ``held`` the paths whose locks the caller holds. ``own`` is a
        group of v2 that has been changed and not made: its documents are in its own ``.zmetadata``, too. ``whole`` is the path of a
        hierarchy that takes care of the groups within it itself. ``again`` reads the documents of the one node that is put in again.
        """
        tops = {top for path in ([*put, *removed] if whole is None else [whole]) for top in above(path)}
        if own is not None:
            tops.add(own)
        for path in removed:
            self._registry.forget(path, self._format)
        if not self.disturbed:
            live = tops & self._registry.live_paths(self._format)
            tops = live.union(await self.consolidated_of(tops - live) if consolidated is None else consolidated)
        members = {path: without_member(documents) for path, documents in put.items()}

        async def latest() -> Mapping[str, Documents]:
            found = {path: await again() for path in put} if again is not None else {}
            return {path: without_member(documents) for path, documents in found.items() if documents is not None}

        for top in sorted(tops, key=depth, reverse=True):
            await self._apply_at(top, Change(members, removed, None if again is None else latest), held)

    async def consolidated_of(self, tops: Iterable[str]) -> list[str]:
        """Those of the groups at ``tops`` that are consolidated, as far as can be told without parsing their documents."""

        async def look(top: str) -> str | None:
            document = await self._store.get(key_of(top, name_of(self._format)), self._limits.document)
            found = document is not None and (self._format == 2 or f'"{MEMBER}"'.encode() in bytes(document))
            return top if found else None

        return [top for top in await gather(look, tops, REQUESTS) if top is not None]

    async def _apply_at(self, top: str, change: Change, held: Collection[str]) -> None:
        waiting = self._registry.waiting(top, self._format)
        waiting.append(change)
        try:
            async with AsyncExitStack() as stack:
                if top not in held:
                    await stack.enter_async_context(self._locks.hold(key_of(top, "")))
                if not change.done:
                    changes = list(waiting)
                    await self._rewrite(top, changes)
                    for each in changes:
                        each.done = True
        finally:
            waiting.remove(change)

    async def _rewrite(self, top: str, changes: Iterable[Change]) -> None:
        consolidated: Consolidated | None = None

        async def rewritten(document: Buffer | None) -> Buffer | None:
            nonlocal consolidated
            found = parse_consolidated(document, top, self._format, self._limits)
            if found is None:
                consolidated = None
                return document
            members, consolidated = found
            for change in changes:
                # what other processes have done to the node since must not be taken back: it is read after what it goes into
                latest = await change.latest() if change.latest is not None and self._shared else change.put
                put = {relative(path, top): documents for path, documents in latest.items() if is_below(path, top)}
                if self._format == 3:
                    put.pop("", None)
                removed = [relative(path, top) for path in change.removed if path != top and is_below(path, top)]
                consolidated = consolidated.changed(put, removed)
            return serialize_consolidated(top, members, consolidated, self._limits)

        await rewrite(self._store, key_of(top, name_of(self._format)), rewritten, part=self._limits.document)
        self._registry.publish(top, self._format, consolidated)


def name_of(zarr_format: Literal[2, 3]) -> str:
    """The name of the document that holds a group's consolidated metadata."""
    return "zarr.json" if zarr_format == 3 else ".zmetadata"


def without_member(documents: Documents) -> Documents:
    """The documents without what a v3 group says of its own consolidated metadata."""
    if MEMBER not in documents.get("zarr.json", {}):
        return documents
    return {"zarr.json": {name: value for name, value in documents["zarr.json"].items() if name != MEMBER}}


def parse_consolidated(
    document: Buffer | None, path: str, zarr_format: Literal[2, 3], limits: Limits
) -> tuple[Mapping[str, JSON], Consolidated] | None:
    """The members of the document that holds the consolidated metadata of the group at ``path``, and that; ``None`` without."""
    name, where = name_of(zarr_format), path or "/"
    if document is None:
        return None
    members = v3.load(document, where, name, limits)
    consolidated = parse_v2(members, where) if zarr_format == 2 else parse_v3(members.get(MEMBER), where)
    return None if consolidated is None else (members, consolidated)


def serialize_consolidated(path: str, members: Mapping[str, JSON], consolidated: Consolidated, limits: Limits) -> bytes:
    """The document with the consolidated metadata of the group at ``path``, which has, for v3, these other ``members``."""
    name = name_of(consolidated.zarr_format)
    whole = consolidated.to_json() if consolidated.zarr_format == 2 else {**members, MEMBER: consolidated.to_json()}
    document = v3.dump(whole, name)
    if len(document) > limits.metadata_nbytes:
        raise MetadataError(
            f"{path or '/'}: consolidated metadata of {len(consolidated.documents)} nodes would have {len(document)} bytes where "
            f"{limits.metadata_nbytes} are accepted; raise Limits.metadata_nbytes, or do without with group.drop_consolidated()",
            path=path or "/",
        )
    return document
