"""Changing the attributes of a node, of either format."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from azarr.documents import Metadata, change
from azarr.stores.base import ReadableStore
from azarr.types import JSON, Limits


async def change_attributes(
    store: ReadableStore, path: str, change_them: Callable[[Mapping[str, JSON]], Mapping[str, JSON]], limits: Limits, own: Metadata
) -> Metadata:
    """The node's metadata after its stored attributes have become what ``change_them`` makes of them. The rest stays as it is."""

    def edit(metadata: Metadata, members: Mapping[str, JSON]) -> Mapping[str, JSON]:
        attributes = dict(change_them(metadata.attributes))
        return attributes if own.zarr_format == 2 else {**members, "attributes": attributes}

    return await change(store, path, "zarr.json" if own.zarr_format == 3 else ".zattrs", edit, limits, own)


async def update_attributes(store: ReadableStore, path: str, attributes: Mapping[str, JSON], limits: Limits, own: Metadata) -> Metadata:
    """The node's metadata after its stored attributes have taken on ``attributes``; others in this process lose nothing by it."""
    return await change_attributes(store, path, lambda old: {**old, **attributes}, limits, own)


async def replace_attributes(store: ReadableStore, path: str, attributes: Mapping[str, JSON], limits: Limits, own: Metadata) -> Metadata:
    """The node's metadata after ``attributes`` have taken the place of all that are stored."""
    return await change_attributes(store, path, lambda _: attributes, limits, own)


async def delete_attributes(store: ReadableStore, path: str, names: Collection[str], limits: Limits, own: Metadata) -> Metadata:
    """The node's metadata after the attributes of these names have gone; fine where there are none."""
    return await change_attributes(store, path, lambda old: {name: value for name, value in old.items() if name not in names}, limits, own)
