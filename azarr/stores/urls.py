"""From a path or URL to a store."""

from __future__ import annotations

import os
from urllib.parse import unquote, urlsplit

from azarr.errors import StoreError
from azarr.stores.base import ReadableStore
from azarr.stores.local import LocalStore


def open_store(location: str | os.PathLike[str] | ReadableStore) -> ReadableStore:
    """The store at ``location``: a folder's path or ``file://`` URL, or a store, which is handed back.

    Raises ``StoreError`` for URLs of any other scheme.
    """
    if isinstance(location, str):
        # one letter before the colon is a drive
        scheme = urlsplit(location).scheme if "://" in location else ""
        if scheme == "file":
            parts = urlsplit(location)
            if parts.netloc not in {"", "localhost"}:
                raise StoreError(f"{location!r} names the host {parts.netloc!r}; a file URL of this machine starts with file:///")
            return LocalStore(unquote(parts.path))
        if scheme:
            raise StoreError(f"azarr has no store for {scheme!r} URLs; it opens folders and file:// URLs, and any store object you pass")
        return LocalStore(location)
    if isinstance(location, os.PathLike):
        return LocalStore(location)
    if isinstance(location, ReadableStore):
        return location
    raise StoreError(f"expected a path, a URL or a store, not {location!r:.100}")
