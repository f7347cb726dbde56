"""What a user holds of a group: ``AsyncGroup``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from azarr import documents
from azarr.array import AsyncArray
from azarr.attributes import delete_attributes, replace_attributes, update_attributes
from azarr.deferred import DeferredModule
from azarr.engine import Engine, default_engine
from azarr.errors import MetadataError, NodeExistsError, NodeNotFoundError
from azarr.importing import ready
from azarr.locations import place
from azarr.metadata.consolidated import Consolidated, parse_node
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.metadata.translation import translated
from azarr.paths import child, normalize, relative
from azarr.stores.base import ReadableStore, is_remote
from azarr.stores.urls import StoreLike
from azarr.tree import draw, label_of
from azarr.types import JSON

if TYPE_CHECKING:
    from azarr import catalog as catalogs
    from azarr import copying, creation, nodes
else:  # what opening an array does without
    catalogs = DeferredModule("azarr.catalog")
    copying = DeferredModule("azarr.copying")
    creation = DeferredModule("azarr.creation")
    nodes = DeferredModule("azarr.nodes")


class AsyncGroup:
    """A group in a store: its attributes, and the arrays and groups below it. Open one with ``azarr.open_group``.

    Names are those of nodes directly below (``"a"``) or further down (``"a/b"``). Where the group has consolidated metadata, or was
    opened through a group that has, all that it says of its nodes comes from there, and no request is made.
    """

    __slots__ = ("_catalog", "_engine", "_use_consolidated", "metadata", "path", "store")

    def __init__(
        self,
        store: ReadableStore,
        path: str,
        metadata: GroupMetadata,
        engine: Engine | None = None,
        catalog: catalogs.Catalog | None = None,
        *,
        use_consolidated: bool | None = None,
    ) -> None:
        self.store = store
        self.path = path
        self.metadata = metadata
        self._engine = engine
        self._catalog = catalog
        self._use_consolidated = use_consolidated

    def __repr__(self) -> str:
        return f"<AsyncGroup {self.path or '/'!r} in {self.store!r}>"

    def __reduce__(self) -> tuple[type[AsyncGroup], tuple[ReadableStore, str, GroupMetadata]]:
        return AsyncGroup, (self.store, self.path, self.metadata)  # an engine's threads stay in their process, and what it knows of others

    @property
    def engine(self) -> Engine:
        """The engine this group was opened with, or the running loop's own; what is opened through the group uses it too."""
        return self._engine or default_engine()

    @property
    def _observed(self) -> ReadableStore:
        return self.engine.observed(self.store, self.path)

    @property
    def attrs(self) -> Mapping[str, JSON]:
        """The attributes, for reading; ``update_attributes`` changes them."""
        return MappingProxyType(dict(self.metadata.attributes))

    async def update_attributes(self, attributes: Mapping[str, JSON]) -> None:
        """Add ``attributes`` to the stored ones, replacing those of the same name."""
        self._take(await update_attributes(self._observed, self.path, attributes, self.engine.limits, self.metadata))

    async def replace_attributes(self, attributes: Mapping[str, JSON]) -> None:
        """Store ``attributes`` in place of all that are stored."""
        self._take(await replace_attributes(self._observed, self.path, attributes, self.engine.limits, self.metadata))

    async def delete_attributes(self, *names: str) -> None:
        """Delete the stored attributes of these names; fine where there are none."""
        self._take(await delete_attributes(self._observed, self.path, names, self.engine.limits, self.metadata))

    def _take(self, updated: documents.Metadata) -> None:
        if isinstance(updated, GroupMetadata):
            self.metadata = translated(updated, updated.zarr_format)

    # Consolidated metadata

    @property
    def consolidated(self) -> bool:
        """Whether what this group says of its nodes comes from consolidated metadata."""
        return self._known is not None

    @property
    def _known(self) -> Consolidated | None:
        return None if self._catalog is None else self._catalog.consolidated

    def _path_in(self, path: str) -> str:
        """``path`` as the consolidated metadata call it."""
        return relative(path, self._catalog.path) if self._catalog is not None else path

    async def consolidate(self) -> None:
        """Write consolidated metadata of all nodes below this group as they are in the store, and use them from now on.

        Whoever opens the group then needs one request for all of it. What azarr changes below the group it changes there, too; other
        libraries may not, and then this must be called again. Nodes of the other Zarr format are left out.

        Raises:
            MetadataError: There is more than ``Limits.metadata_nbytes`` of it.
            StoreError: The store failed, cannot be listed, or is read-only.

        """
        self._catalog = await nodes.consolidate(self._observed, self.path, self.metadata.zarr_format, self.engine)

    async def drop_consolidated(self) -> None:
        """Take this group's consolidated metadata out of the store, and look at the nodes themselves from now on."""
        await nodes.drop_consolidated(self._observed, self.path, self.metadata.zarr_format, self.engine.limits)
        self._catalog = None

    # Opening

    async def open(self, name: str) -> AsyncArray | AsyncGroup:
        """The array or group ``name`` below this one; ``NodeNotFoundError`` where there is none."""
        path, known = child(self.path, name), self._known
        if known is None:
            use = False if self._use_consolidated is False else None
            return await open_node(self.store, path, self._engine, use_consolidated=use)
        metadata = self._look_up(known, path)
        if metadata is None:
            raise NodeNotFoundError(
                f"there is no array or group at {path!r} in the consolidated metadata of {self.store!r}; open the group with "
                "use_consolidated=False if they may be out of date, and consolidate it again",
                path=path,
            )
        return node(self.store, path, metadata, self._engine, self._catalog)

    def _look_up(self, known: Consolidated, path: str) -> documents.Metadata | None:
        if path == self.path:
            return self.metadata
        top = self._catalog.path if self._catalog is not None else ""
        return known.metadata(self._path_in(path), self.engine.limits, top=top)

    async def open_array(self, name: str) -> AsyncArray:
        """As ``open``, for an array."""
        return expect_array(await self.open(name))

    async def open_group(self, name: str) -> AsyncGroup:
        """As ``open``, for a group."""
        return expect_group(await self.open(name))

    async def contains(self, name: str) -> bool:
        """Whether there is an array or group ``name`` below this one."""
        path, known = child(self.path, name), self._known
        if known is None or path == self.path:
            return await documents.exists(self._observed, path)
        return self._path_in(path) in known.documents

    async def members(self, *, max_depth: int | None = 1) -> AsyncGenerator[tuple[str, AsyncArray | AsyncGroup], None]:
        """The nodes below this group and their names relative to it, nearest first, then in order of their names.

        Args:
            max_depth: How many names further down: 1 for what is directly below, ``None`` for everything.

        Raises:
            MetadataError: A node's metadata cannot be read; the nodes before it have been handed out.
            StoreError: The store failed, or cannot be listed. Folders that are no nodes are no error, and looked into.

        """
        known = self._known
        if known is not None:
            inside = self._path_in(self.path)
            for number, path in enumerate(known.below(inside, max_depth), 1):
                metadata = known.metadata(path, self.engine.limits, top=self._catalog.path if self._catalog is not None else "")
                if metadata is not None:
                    name = relative(path, inside)
                    yield name, node(self.store, child(self.path, name), metadata, self._engine, self._catalog)
                if number % nodes.BATCH == 0:
                    await asyncio.sleep(0)
            return
        async with aclosing(nodes.walk(self._observed, self.path, self.engine, max_depth=max_depth)) as found:
            async for name, own in found:
                path = child(self.path, name)
                metadata = parse_node(own, path, self.engine.limits)
                if metadata is not None:
                    yield name, node(self.store, path, metadata, self._engine)

    async def tree(self, *, max_depth: int | None = None) -> str:
        """The hierarchy below this group as text, with the shapes and data types of arrays; ``max_depth`` as for ``members``."""
        async with aclosing(self.members(max_depth=max_depth)) as found:
            labels = {name: label_of(member.metadata) async for name, member in found}
        return draw(f"/{self.path}", labels)

    # Creating

    async def create_array(self, name: str, *, like: AsyncArray | None = None, overwrite: bool = False, **options: Any) -> AsyncArray:
        """A new array below this group, in its format; the options are those of ``azarr.create_array``."""
        await ready(creation)
        metadata = self._new(like, options)
        path = child(self.path, name)
        await documents.create(self._observed, path, metadata, self.engine.limits, overwrite=overwrite)
        return AsyncArray(self.store, path, metadata, self._engine)

    def _new(self, like: AsyncArray | None, options: Mapping[str, Any]) -> ArrayMetadata:
        template = None if like is None else like.metadata
        return creation.array_metadata(options, like=template, zarr_format=self.metadata.zarr_format, remote=is_remote(self.store))

    async def create_group(self, name: str, *, attributes: Mapping[str, JSON] | None = None, overwrite: bool = False) -> AsyncGroup:
        """A new group below this one, in its format."""
        metadata = GroupMetadata(self.metadata.zarr_format, dict(attributes or {}))
        path = child(self.path, name)
        await documents.create(self._observed, path, metadata, self.engine.limits, overwrite=overwrite)
        return AsyncGroup(self.store, path, metadata, self._engine, None if self._known is None else self._catalog)

    async def require_group(self, name: str, *, attributes: Mapping[str, JSON] | None = None) -> AsyncGroup:
        """The group ``name``, created with ``attributes`` where it is not there yet; ``NodeExistsError`` where an array is."""
        found = await self._require(name, lambda: self.create_group(name, attributes=attributes))
        if isinstance(found, AsyncArray):
            raise NodeExistsError(f"there is an array at {found.path!r} already, where a group is required", path=found.path)
        return found

    async def require_array(self, name: str, *, shape: Any, dtype: Any, like: AsyncArray | None = None, **options: Any) -> AsyncArray:
        """The array ``name``, created with the options of ``create_array`` where it is not there yet.

        Raises ``NodeExistsError`` where there is a group, or an array of another shape or data type. The other options count only for a new
        array.
        """
        wanted = self._new(like, {"shape": shape, "dtype": dtype, **options})
        found = await self._require(name, lambda: self.create_array(name, like=like, shape=shape, dtype=dtype, **options))
        if isinstance(found, AsyncGroup):
            raise NodeExistsError(f"there is a group at {found.path or '/'!r} already, where an array is required", path=found.path)
        if (found.shape, found.dtype) != (wanted.shape, wanted.data_type.dtype):
            raise NodeExistsError(
                f"there is an array at {found.path!r} already, of shape {found.shape} and data type {found.dtype}, where shape "
                f"{wanted.shape} and data type {wanted.data_type.dtype} are required; create_array(..., overwrite=True) replaces it",
                path=found.path,
            )
        return found

    async def _require(self, name: str, create: Callable[[], Any]) -> AsyncArray | AsyncGroup:
        try:
            return await self.open(name)
        except NodeNotFoundError:
            pass
        try:
            created: AsyncArray | AsyncGroup = await create()
        except NodeExistsError:  # by somebody else, meanwhile
            return await open_node(self.store, child(self.path, name), self._engine)
        return created

    # Moving things about

    async def delete(self, name: str) -> None:
        """Delete the array or group ``name`` and all that is below it; ``NodeNotFoundError`` where there is none."""
        path, known = self._inside(name), self._known
        listed = known is not None and self._path_in(path) in known.documents
        await documents.delete(self._observed, path, self.engine.limits, listed=listed)

    async def move(self, old: str, new: str) -> None:
        """Give the array or group ``old``, with all that is below it, the name ``new``, also into another group.

        The values are copied, and deleted at the old place at last; nothing else should write to them meanwhile.

        Raises:
            NodeNotFoundError: There is no ``old``.
            NodeExistsError: There is something at ``new`` already, or an array above it; or ``new`` is inside of ``old``.

        """
        await copying.copy_prefix(self._observed, self._inside(old), self._inside(new), self.engine)
        await documents.delete(self._observed, self._inside(old), self.engine.limits)

    async def copy(
        self,
        name: str,
        target: AsyncGroup | tuple[StoreLike | AsyncGroup, str],
        *,
        overwrite: bool = False,
        progress: copying.Progress | None = None,
        **options: Any,
    ) -> AsyncArray | AsyncGroup:
        """Copy the array or group ``name`` into the group ``target``, or to ``(store or group, path)``; the copy.

        The arguments that follow, and the errors, are those of ``azarr.copy``.
        """
        source = await self.open(name)
        to, path = target if isinstance(target, tuple) else (target, normalize(name).rpartition("/")[2])
        store, where, format_ = (to.store, child(to.path, path), None) if isinstance(to, AsyncGroup) else await place(to, path)
        if format_ is not None:
            options.setdefault("zarr_format", format_)
        return await copy_to(source, store, where, overwrite=overwrite, progress=progress, **options)

    def _inside(self, name: str) -> str:
        if not normalize(name):
            raise MetadataError(f"{name!r} is not the name of a node below {self.path or '/'!r}", path=self.path)
        return child(self.path, name)


def node(
    store: ReadableStore,
    path: str,
    metadata: documents.Metadata,
    engine: Engine | None,
    catalog: catalogs.Catalog | None = None,
    *,
    use_consolidated: bool | None = None,
) -> AsyncArray | AsyncGroup:
    """What a user holds of the node with this metadata; with ``catalog``, a group knows its nodes from there."""
    if isinstance(metadata, ArrayMetadata):
        return AsyncArray(store, path, metadata, engine)
    own: GroupMetadata = translated(metadata, metadata.zarr_format)
    return AsyncGroup(store, path, own, engine, catalog, use_consolidated=use_consolidated)


async def open_node(
    store: ReadableStore,
    path: str,
    engine: Engine | None,
    zarr_format: Literal[2, 3] | None = None,
    *,
    kind: Literal["array", "group"] | None = None,
    use_consolidated: bool | None = None,
) -> AsyncArray | AsyncGroup:
    """The array or group at ``path``, with its consolidated metadata; ``NodeNotFoundError`` where there is none.

    ``kind`` is what the caller expects to be there, so that no more is asked for than that needs.
    """
    used = engine or default_engine()
    observed, limits = used.observed(store, path), used.limits
    metadata: documents.Metadata | None
    catalog: catalogs.Catalog | None = None
    if use_consolidated is False or kind == "array":
        metadata = await documents.read(observed, path, limits, zarr_format)
    else:
        found = await documents.read_with_catalog(observed, path, limits, zarr_format, group=kind == "group")
        metadata, catalog = found or (None, None)
    if metadata is None:
        looked = {2: ".zarray or .zgroup", 3: "zarr.json", None: "zarr.json, .zarray or .zgroup"}[zarr_format]
        raise NodeNotFoundError(f"there is no array or group at {path or '/'!r} in {store!r}: no {looked}", path=path)
    if use_consolidated and catalog is None and isinstance(metadata, GroupMetadata):
        raise MetadataError(
            f"the group at {path or '/'!r} in {store!r} has no consolidated metadata; group.consolidate() writes them", path=path or "/"
        )
    return node(store, path, metadata, engine, catalog, use_consolidated=use_consolidated)


async def copy_to(
    source: AsyncArray | AsyncGroup, store: ReadableStore, path: str, *, overwrite: bool, progress: copying.Progress | None, **options: Any
) -> AsyncArray | AsyncGroup:
    """The copy of ``source`` at ``path`` in ``store``; see ``azarr.copy``."""
    found: dict[str, documents.Metadata] = {"": source.metadata}
    if isinstance(source, AsyncGroup):
        async with aclosing(source.members(max_depth=None)) as members:
            async for name, member in members:
                found[name] = member.metadata
    engine = source.engine
    metadata = await copying.copy_nodes(
        source.store, source.path, found, store, path, engine, overwrite=overwrite, progress=progress, **options
    )
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
