"""From a path or URL to a store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias
from urllib.parse import unquote, urlsplit

from azarr.errors import StoreError
from azarr.registry import OWN, Entry, Registration, Registry, callable_of
from azarr.stores.base import ReadableStore
from azarr.stores.local import LocalStore

Opener: TypeAlias = Callable[[str], ReadableStore]
"""From a URL to the store there. It is called on the event loop, so it must not wait: a store connects when it is first used."""

# one letter before the colon is a drive
_SCHEME: Final = re.compile("[a-z][a-z0-9+.-]+")


def open_store(location: str | os.PathLike[str] | ReadableStore) -> ReadableStore:
    """The store at ``location``: a folder's path, a URL of a scheme that is known, or a store, which is handed back.

    Raises ``StoreError`` for URLs of any other scheme.
    """
    if isinstance(location, str):
        scheme = urlsplit(location).scheme if "://" in location else ""
        if not scheme:
            return LocalStore(location)
        opener = STORES.get(scheme)
        if opener is None:
            raise StoreError(
                f"azarr has no store for {scheme!r} URLs, and no plug-in has one; "
                f"it opens folders, URLs of {', '.join(STORES.names)}, and any store object you pass"
            )
        store = opener(location)
        if not isinstance(store, ReadableStore):
            raise StoreError(f"what is registered for {scheme!r} URLs answered {type(store).__name__}, which is no store")
        return store
    if isinstance(location, os.PathLike):
        return LocalStore(location)
    if isinstance(location, ReadableStore):
        return location
    raise StoreError(f"expected a path, a URL or a store, not {location!r:.100}")


def _open_folder(url: str) -> LocalStore:
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"}:
        raise StoreError(f"{url!r} names the host {parts.netloc!r}; a file URL of this machine starts with file:///")
    return LocalStore(unquote(parts.path))


STORES: Registry[Opener] = Registry(
    "URL scheme", (Entry(("file",), _open_folder, OWN),), ("azarr.stores",), callable_of("a function from a URL to a store")
)
"""What opens URLs, by their scheme."""


def register_store(scheme: str, opener: Opener, *, aliases: Iterable[str] = (), replace: bool = False) -> Registration:
    """Make URLs of ``scheme`` known in this process, wherever a store can be named by a URL.

    Args:
        scheme: What stands before ``://``, in small letters; at least two, as one letter is a drive.
        opener: The store for a URL. It is called on the event loop and must not wait for anything; stores connect when first used.
        aliases: Further schemes.
        replace: Put it before another store for the same scheme instead of raising.

    Returns:
        What undoes it, also as a context manager.

    Raises:
        RegistrationError: There is a store for that scheme.
        ValueError: ``scheme`` is none.
        TypeError: ``opener`` cannot be called.

    """
    schemes = (scheme, *aliases)
    for each in schemes:
        if not _SCHEME.fullmatch(each):
            raise ValueError(f"{each!r:.100} is not the scheme of a URL: small letters, digits and '+.-', at least two")
    return STORES.register(scheme, opener, aliases=schemes[1:], replace=replace)
