"""Metadata documents: one v3-shaped model, and the doors to v3 and v2."""

from azarr.metadata.model import ArrayMetadata, GroupMetadata

__all__ = ["ArrayMetadata", "GroupMetadata"]
