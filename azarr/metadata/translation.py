"""From the metadata of one Zarr format to that of the other, as far as the chunks can stay as they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Final, Literal

from azarr.metadata.consolidated import MEMBER
from azarr.metadata.model import ArrayMetadata, GroupMetadata

DIMENSIONS: Final = "_ARRAY_DIMENSIONS"
"""The attribute in which v2 arrays keep their dimension names, by a convention of xarray."""


def translated(metadata: ArrayMetadata | GroupMetadata, zarr_format: Literal[2, 3]) -> Any:
    """The same metadata in the other format: an undefined fill value becomes zero in v3 (or NaT), dimension names an attribute in v2.

    The consolidated metadata of a group stay behind. Whether the format can express the rest is for its ``serialize`` to say.
    """
    if isinstance(metadata, GroupMetadata):
        extensions = {name: value for name, value in metadata.extensions.items() if name != MEMBER}
        return GroupMetadata(zarr_format, metadata.attributes, extensions)
    if metadata.zarr_format == zarr_format:
        return metadata
    if zarr_format == 3:
        names = dimensions_of(metadata)
        attributes = {name: value for name, value in metadata.attributes.items() if names is None or name != DIMENSIONS}
        return replace(
            metadata,
            zarr_format=3,
            fill_value=metadata.effective_fill_value,
            attributes=attributes,
            dimension_names=names or metadata.dimension_names,
        )
    given = metadata.dimension_names
    if given is None or None in given or metadata.attributes.get(DIMENSIONS, list(given)) != list(given):
        return replace(metadata, zarr_format=2)
    named: Mapping[str, Any] = {DIMENSIONS: list(given), **metadata.attributes}
    return replace(metadata, zarr_format=2, attributes=named, dimension_names=None)


def dimensions_of(metadata: ArrayMetadata) -> tuple[str, ...] | None:
    """The dimension names that a v2 array's attributes give it."""
    names = metadata.attributes.get(DIMENSIONS)
    if not isinstance(names, list | tuple) or len(names) != len(metadata.shape):
        return None
    strings = tuple(name for name in names if isinstance(name, str))
    return strings if len(strings) == len(names) else None
