"""Zip archives by where they are: in a file of this machine, or in a value of another store."""

from __future__ import annotations

from urllib.parse import unquote

from azarr.errors import StoreError
from azarr.stores.base import ReadableStore, check_key
from azarr.stores.local import LocalStore
from azarr.stores.zip_directory import DIRECTORY_NBYTES
from azarr.stores.zip_entries import VALUE_NBYTES
from azarr.stores.zip_store import Mode, ZipStore
from azarr.stores.zipped import ZippedStore

__all__ = ["ZipStore", "ZippedStore", "open_inside", "open_url"]


def open_inside(
    store: ReadableStore,
    key: str,
    *,
    mode: Mode = "r",
    directory_nbytes: int = DIRECTORY_NBYTES,
    value_nbytes: int = VALUE_NBYTES,
    owned: bool = True,
) -> ZipStore | ZippedStore:
    """The store in the archive at ``key`` of ``store``, which is taken for opened for that alone unless it is not ``owned``.

    Only an archive in a folder of this machine can be written to; ``StoreError`` where another one should be.
    """
    if type(store) is LocalStore:
        return ZipStore(f"{store.root}/{check_key(key)}", mode=mode, directory_nbytes=directory_nbytes, value_nbytes=value_nbytes)
    if mode != "r":
        raise StoreError(f"the archive {key!r} in {store!r} can only be read: write one to a local file, and copy that", key=key)
    return ZippedStore(store, key, directory_nbytes=directory_nbytes, value_nbytes=value_nbytes, owned=owned)


def open_url(url: str, *, mode: Mode = "r", directory_nbytes: int = DIRECTORY_NBYTES, value_nbytes: int = VALUE_NBYTES) -> ZipStore:
    """The store in the archive at ``url``, a path or a ``file://`` URL."""
    scheme, separator, rest = url.partition("://")
    if separator:
        host, slash, path = rest.partition("/")
        if scheme != "file" or host not in {"", "localhost"}:
            raise StoreError(f"{url!r:.200} is no URL of a zip archive on this machine, which begins with file:///")
        url = unquote(slash + path)
    return ZipStore(url, mode=mode, directory_nbytes=directory_nbytes, value_nbytes=value_nbytes)
