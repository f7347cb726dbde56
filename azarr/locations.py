"""Where a user says that a node is: a path, a URL or a store, and a path in that."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from azarr.errors import MetadataError
from azarr.paths import child, normalize
from azarr.stores.urls import Location, StoreLike, locate, prepare


async def place(
    store: StoreLike, path: str, storage_options: Mapping[str, Any] | None = None, zarr_format: Literal[2, 3] | None = None
) -> Location:
    """The store, the path in it and the format, if anybody has said which, of the node at ``path`` in ``store``."""
    await prepare(store)
    found = locate(store, storage_options)
    if zarr_format is not None and found.zarr_format not in {None, zarr_format}:
        raise MetadataError(f"the URL says zarr{found.zarr_format}, and zarr_format={zarr_format} is asked for: leave one of them out")
    return Location(found.store, child(normalize(found.path), path), found.zarr_format if zarr_format is None else zarr_format)
