"""What a user holds of a group: ``AsyncGroup``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

from azarr import documents
from azarr.array import AsyncArray
from azarr.creation import array_metadata
from azarr.engine import Engine, default_engine
from azarr.errors import NodeNotFoundError, StoreError
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.stores.base import ListableStore, ReadableStore
from azarr.types import JSON
from azarr.window import TaskRunner, Window


class AsyncGroup:
    """A group in a store: its attributes, and the arrays and groups below it. Open one with ``azarr.open_group``."""

    __slots__ = ("_engine", "metadata", "path", "store")

    def __init__(self, store: ReadableStore, path: str, metadata: GroupMetadata, engine: Engine | None = None) -> None:
        self.store = store
        self.path = path
        self.metadata = metadata
        self._engine = engine

    def __repr__(self) -> str:
        return f"<AsyncGroup {self.path or '/'!r} in {self.store!r}>"

    @property
    def engine(self) -> Engine:
        """The engine this group was opened with, or the running loop's own; what is opened through the group uses it too."""
        return self._engine or default_engine()

    @property
    def attrs(self) -> Mapping[str, JSON]:
        """The attributes, for reading; ``update_attributes`` changes them."""
        return MappingProxyType(dict(self.metadata.attributes))

    async def update_attributes(self, attributes: Mapping[str, JSON]) -> None:
        """Add ``attributes`` to the stored ones, replacing those of the same name."""
        updated = await documents.update_attributes(self.store, self.path, attributes, self.engine.limits, self.metadata)
        if isinstance(updated, GroupMetadata):
            self.metadata = updated

    async def open(self, name: str) -> AsyncArray | AsyncGroup:
        """The array or group ``name`` (``"a"`` or ``"a/b"``) below this one; ``NodeNotFoundError`` where there is none."""
        return await open_node(self.store, documents.child(self.path, name), self._engine)

    async def open_array(self, name: str) -> AsyncArray:
        """As ``open``, for an array."""
        return expect_array(await self.open(name))

    async def open_group(self, name: str) -> AsyncGroup:
        """As ``open``, for a group."""
        return expect_group(await self.open(name))

    async def create_array(self, name: str, *, like: AsyncArray | None = None, overwrite: bool = False, **options: Any) -> AsyncArray:
        """A new array below this group, in its format; the options are those of ``azarr.create_array``."""
        metadata = array_metadata(options, like=None if like is None else like.metadata, zarr_format=self.metadata.zarr_format)
        path = documents.child(self.path, name)
        await documents.create(self.store, path, metadata, self.engine.limits, overwrite=overwrite)
        return AsyncArray(self.store, path, metadata, self._engine)

    async def create_group(self, name: str, *, attributes: Mapping[str, JSON] | None = None, overwrite: bool = False) -> AsyncGroup:
        """A new group below this one, in its format."""
        metadata = GroupMetadata(self.metadata.zarr_format, dict(attributes or {}))
        path = documents.child(self.path, name)
        await documents.create(self.store, path, metadata, self.engine.limits, overwrite=overwrite)
        return AsyncGroup(self.store, path, metadata, self._engine)

    async def members(self) -> AsyncIterator[tuple[str, AsyncArray | AsyncGroup]]:
        """The names and nodes directly below this group, in order of their names; folders that are no nodes are passed over."""
        if not isinstance(self.store, ListableStore):
            raise StoreError(f"{self.store!r} cannot be listed")
        prefix = f"{self.path}/" if self.path else ""
        listing = await self.store.list_dir(prefix)
        names = sorted(name for each in listing.prefixes if not (name := each.removeprefix(prefix).rstrip("/")).startswith("__"))
        window: Window[str, tuple[str, AsyncArray | AsyncGroup] | None] = Window(
            iter(names), TaskRunner(self._member), self.engine.concurrency, ordered=True
        )
        try:
            while True:
                try:
                    found = await window.take()
                except StopAsyncIteration:
                    return
                window.release(1)
                if found is not None:
                    yield found
        finally:
            await window.aclose()

    async def _member(self, name: str) -> tuple[str, AsyncArray | AsyncGroup] | None:
        path = documents.child(self.path, name)
        async with self.engine.requests():
            metadata = await documents.read(self.store, path, self.engine.limits)
        return None if metadata is None else (name, node(self.store, path, metadata, self._engine))


def node(store: ReadableStore, path: str, metadata: documents.Metadata, engine: Engine | None) -> AsyncArray | AsyncGroup:
    """What a user holds of the node with this metadata."""
    if isinstance(metadata, ArrayMetadata):
        return AsyncArray(store, path, metadata, engine)
    return AsyncGroup(store, path, metadata, engine)


async def open_node(
    store: ReadableStore, path: str, engine: Engine | None, zarr_format: Literal[2, 3] | None = None
) -> AsyncArray | AsyncGroup:
    """The array or group at ``path``; ``NodeNotFoundError`` where there is none."""
    limits = (engine or default_engine()).limits
    metadata = await documents.read(store, path, limits, zarr_format)
    if metadata is None:
        looked = {2: ".zarray or .zgroup", 3: "zarr.json", None: "zarr.json, .zarray or .zgroup"}[zarr_format]
        raise NodeNotFoundError(f"there is no array or group at {path or '/'!r} in {store!r}: no {looked}", path=path)
    return node(store, path, metadata, engine)


def expect_array(found: AsyncArray | AsyncGroup) -> AsyncArray:
    """The node, if it is an array."""
    if isinstance(found, AsyncGroup):
        raise NodeNotFoundError(
            f"there is a group at {found.path or '/'!r} in {found.store!r}, not an array; open_group opens it", path=found.path
        )
    return found


def expect_group(found: AsyncArray | AsyncGroup) -> AsyncGroup:
    """The node, if it is a group."""
    if isinstance(found, AsyncArray):
        raise NodeNotFoundError(
            f"there is an array at {found.path or '/'!r} in {found.store!r}, not a group; open_array opens it", path=found.path
        )
    return found
