"""From a path or URL to a store.

URLs may be pipelines: what stands behind a ``|`` is done with what stands before it. ``s3://bucket/data.zip|zip:inside|zarr3:`` is the
node of format 3 at ``inside`` in the archive ``data.zip``.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple, TypeAlias, cast

from azarr.deferred import Deferred, DeferredModule
from azarr.errors import StoreError
from azarr.extras import Extra
from azarr.registry import OWN, Entry, Registration, Registry, callable_of
from azarr.stores.base import ReadableStore
from azarr.stores.local import Durability, LocalStore
from azarr.stores.url_parts import Stage, folder_and_name, plain_path, redacted, scheme_of, split_url, stages_of

if TYPE_CHECKING:
    from urllib import parse

    from azarr.stores import memory
    from azarr.stores.prefix import PrefixStore
else:  # what paths do without
    memory = DeferredModule("azarr.stores.memory")
    PrefixStore = Deferred("azarr.stores.prefix", "PrefixStore")
    parse = DeferredModule("urllib.parse")

StoreLike: TypeAlias = str | os.PathLike[str] | ReadableStore
"""Where a hierarchy is: a folder's path, a URL, or a store."""

Opener: TypeAlias = Callable[..., ReadableStore]
"""From a URL, and options by name, to the store there. It is called on the event loop and must not wait: stores connect when first used."""

_SCHEME: Final = "[a-z][a-z0-9+.-]+"

FORMATS: Final[Mapping[str, Literal[2, 3] | None]] = {"zarr": None, "zarr2": 2, "zarr3": 3}
"""The stages that say which node is meant, and in which format it is."""


class Location(NamedTuple):
    """What a URL stands for: a store, a path in it, and the format of the node there, where the URL says it."""

    store: ReadableStore
    path: str = ""
    zarr_format: Literal[2, 3] | None = None


def open_store(location: StoreLike, **options: Any) -> ReadableStore:
    """The store at ``location``: a folder's path, a URL of a scheme that is known, or a store, which is handed back.

    A URL with a path behind ``|`` stands for what is below that path. ``options`` are those of the store, such as ``durability`` for
    folders; where the URL goes through an archive, the options of that are a mapping by the name of the stage: ``zip={...}``.

    Raises:
        StoreError: Nobody knows the scheme, or what it needs is not installed.
        TypeError: The store has no such option.

    """
    store, path, _ = locate(location, options)
    return cast("ReadableStore", PrefixStore(store, f"{path}/")) if path else store


async def prepare(location: StoreLike) -> None:
    """Have a thread import what the store at a URL needs, which takes up to a second; ``locate`` says what is wrong with it."""
    if not isinstance(location, str) or not (scheme := scheme_of(location)):
        return
    entry = STORES.find(scheme) if scheme in STORES.names else None
    if entry is None or (isinstance(entry.held, Deferred) and not entry.held.is_imported):
        await asyncio.to_thread(_import, scheme)


def _import(scheme: str) -> None:
    with suppress(Exception):
        STORES.get(scheme)


def locate(location: StoreLike, options: Mapping[str, Any] | None = None) -> Location:
    """What ``location`` stands for; raises as ``open_store`` does."""
    if isinstance(location, str):
        return _through(*stages_of(location), dict(options or {}))
    if isinstance(location, os.PathLike):
        return _through(os.fspath(location), (), dict(options or {}))
    if not isinstance(location, ReadableStore):
        raise StoreError(f"expected a path, a URL or a store, not {location!r:.100}")
    if options:
        raise TypeError(f"the options {sorted(options)} are for paths and URLs; this is a store, give them to {type(location).__name__}")
    return Location(location)


def _through(base: str, stages: tuple[Stage, ...], options: dict[str, Any]) -> Location:
    """What a pipeline stands for."""
    if stages[:1] != () and stages[0].scheme not in FORMATS:
        archive = True
    else:
        archive = _is_archive(base)
        stages = (Stage("zip", ""), *stages) if archive else stages
    own = {each.scheme: options.pop(each.scheme) for each in stages if isinstance(options.get(each.scheme), Mapping)}
    folder, path = folder_and_name(base) if archive else (base, "")
    store, shown = _opened(folder, options), redacted(base)
    for number, (scheme, inside) in enumerate(stages):
        if scheme in FORMATS:
            if number + 1 < len(stages):
                raise StoreError(f"{shown!r}: nothing can come behind '{scheme}:', which names a node")
            return Location(store, "/".join(filter(None, (path, inside))), FORMATS[scheme])
        adapter = ADAPTERS.get(scheme)
        if adapter is None:
            known = ", ".join(f"'{each}:'" for each in (*ADAPTERS, *FORMATS))
            raise StoreError(f"{shown!r}: azarr does not know '{scheme}:' behind a '|'; it knows {known}")
        store = _called(f"{scheme}:", adapter.load(), (store, path), own.get(scheme, {}))
        path = inside
    return Location(store, path)


def _is_archive(base: str) -> bool:
    """Whether there is a zip archive at a path or URL, going by its name."""
    scheme = scheme_of(base)
    path = split_url(base).path if scheme else base
    if not path.endswith(".zip"):
        return False
    return scheme not in {"", "file"} or not os.path.isdir(os.path.expanduser(plain_path(base) if scheme else base))


def _opened(location: str, options: Mapping[str, Any]) -> ReadableStore:
    """The store at a path or a URL that is no pipeline."""
    scheme = scheme_of(location)
    if not scheme:
        return _called("paths", LocalStore, (location,), options)
    entry = STORES.find(scheme)
    if entry is None:
        pipeline = "; an archive is opened by what stands behind its own URL, '…/data.zip|zip:path/inside'" if scheme in ADAPTERS else ""
        raise StoreError(
            f"azarr has no store for {scheme!r} URLs, and no plug-in has one; "
            f"it opens folders, URLs of {', '.join(STORES.names)}, and any store object you pass{pipeline}"
        )
    try:
        opener = entry.value
    except ImportError as error:
        if entry.extra is None:
            raise
        raise StoreError(f'{scheme!r} URLs need an extra: pip install "azarr[{entry.extra.name}]" ({error})') from error
    store = _called(f"{scheme}:// URLs", opener, (location,), options)
    if not isinstance(store, ReadableStore):
        raise StoreError(f"what is registered for {scheme!r} URLs answered {type(store).__name__}, which is no store")
    return store


def _called(what: str, opener: Opener, args: tuple[Any, ...], options: Mapping[str, Any]) -> ReadableStore:
    """What ``opener`` answers; ``TypeError`` where it has not all of the options."""
    if not options:
        return opener(*args)
    with suppress(ValueError):  # written in C, it does not tell its parameters
        parameters = inspect.signature(opener).parameters.values()
        names = [each.name for each in parameters if each.kind in {each.KEYWORD_ONLY, each.POSITIONAL_OR_KEYWORD}][len(args) :]
        unknown = sorted(set(options) - set(names))
        if unknown and not any(each.kind is each.VAR_KEYWORD for each in parameters):
            raise TypeError(f"{what} have no option {', '.join(map(repr, unknown))}; they have {', '.join(names) or 'none'}")
    return opener(*args, **options)


def _open_folder(url: str, *, durability: Durability = "file", locking: bool | None = None) -> LocalStore:
    parts = split_url(url)
    if parts.netloc not in {"", "localhost"}:
        raise StoreError(f"{redacted(url)!r} names the host {parts.hostname!r}; a file URL of this machine starts with file:///")
    return LocalStore(plain_path(url), durability=durability, locking=locking)


def _open_memory(url: str) -> ReadableStore:
    name, path = split_url(url).netloc, plain_path(url).strip("/")
    if "@" in name:
        raise StoreError(f"{redacted(url)!r}: a store in memory has no users")
    store = memory.MemoryStore.named(parse.unquote(name))
    return cast("ReadableStore", PrefixStore(store, f"{path}/")) if path else store


def _own_stores() -> Iterable[Entry[Opener]]:
    yield Entry(("file",), _open_folder, OWN)
    yield Entry(("memory",), _open_memory, OWN)
    for schemes, module, extra in (
        (("s3",), "azarr.stores.s3", Extra("aiobotocore", "s3")),
        (("gs", "gcs"), "azarr.stores.gcs", Extra("aiohttp", "gcs")),
        (("az", "abfs", "abfss"), "azarr.stores.azure", Extra("aiohttp", "azure")),
        (("http", "https"), "azarr.stores.http", Extra("aiohttp", "http")),
        (("mongodb", "mongodb+srv"), "azarr.stores.gridfs", Extra("pymongo", "mongodb")),
        (("redis", "rediss"), "azarr.stores.redis", Extra("redis", "redis")),
        (("sqlite",), "azarr.stores.sqlite", None),
    ):
        yield Entry(schemes, Deferred(module, "open_url", extra=extra), OWN)


STORES: Registry[Opener] = Registry("URL scheme", _own_stores(), ("azarr.stores",), callable_of("a function from a URL to a store"))
"""What opens URLs, by their scheme."""

ADAPTERS: Final[Mapping[str, Deferred]] = {"zip": Deferred("azarr.stores.zip", "open_inside")}
"""What makes a store of one value of another store, by the name of the stage."""


def register_store(scheme: str, opener: Opener, *, aliases: Iterable[str] = (), replace: bool = False) -> Registration:
    """Make URLs of ``scheme`` known in this process, wherever a store can be named by a URL.

    Args:
        scheme: What stands before ``://``, in small letters; at least two, as one letter is a drive.
        opener: The store for a URL, and for the options by name that it takes. It is called on the event loop and must not wait for
            anything; stores connect when first used.
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
        if not re.fullmatch(_SCHEME, each):
            raise ValueError(f"{each!r:.100} is not the scheme of a URL: small letters, digits and '+.-', at least two")
    return STORES.register(scheme, opener, aliases=schemes[1:], replace=replace)
