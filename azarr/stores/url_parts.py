"""What URLs are made of, and how they are shown without the secrets in them."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from azarr.deferred import DeferredModule
from azarr.errors import StoreError

if TYPE_CHECKING:
    from urllib import parse
else:  # what paths do without
    parse = DeferredModule("urllib.parse")

# One letter before a colon is a drive.
SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.\-]+)://")

# Patterns that paths do not need are compiled, and kept, by the first URL.
_STAGE: Final = r"\|(?=[a-z][a-z0-9+.\-]*:)"
_CREDENTIALS: Final = r"(?<=://)([^/?#@|:]*):[^|]*@"
_USER: Final = r"(?<=http://|ttps://)[^/?#@|]*@"
_QUERY: Final = r"\?[^|]*"


class Stage(NamedTuple):
    """A part of a URL behind a ``|``: what is to be done with what stands before it, and which part of the outcome is meant."""

    scheme: str
    path: str


def redacted(url: str) -> str:
    """``url`` as it may be shown: without passwords, and without what stands in its queries, where signatures and tokens are."""
    if not SCHEME.match(url):
        return url
    return re.sub(_QUERY, "?***", re.sub(_USER, "***@", re.sub(_CREDENTIALS, r"\1:***@", url)))


def scheme_of(location: str) -> str:
    """The scheme of a URL in small letters; empty where ``location`` is a path."""
    match = SCHEME.match(location)
    return match[1].lower() if match else ""


def split_url(url: str) -> parse.SplitResult:
    """The parts of ``url``; ``StoreError`` where it has none."""
    try:
        parts = parse.urlsplit(url)
        _ = parts.port
    except ValueError:
        # whose message may show a password
        raise StoreError(
            f"{redacted(url)!r} is not a URL: look at its host and port, and whether a password in it is percent-encoded"
        ) from None
    return parts


def plain_path(url: str) -> str:
    """The path in ``url``, of a scheme whose URLs have nothing behind it."""
    parts = split_url(url)
    if parts.query or parts.fragment:
        raise StoreError(f"{redacted(url)!r}: such URLs have no query and no fragment; '?' and '#' in a path are %3F and %23")
    return parse.unquote(parts.path)


def stages_of(location: str) -> tuple[str, tuple[Stage, ...]]:
    """What stands before the first ``|`` of a pipeline, and the stages behind it, their paths decoded."""
    if "|" not in location:
        return location, ()
    base, *rest = re.split(_STAGE, location)
    stages = []
    for each in rest:
        scheme, _, path = each.partition(":")
        stages.append(Stage(scheme, parse.unquote(path).strip("/")))
    return base, tuple(stages)


def folder_and_name(location: str) -> tuple[str, str]:
    """Where the value at ``location`` is, as a location again, and its name there; ``StoreError`` where that is no value."""
    if not scheme_of(location):
        folder, name = os.path.split(location)
        return folder or os.curdir, name
    parts = split_url(location)
    head, _, name = parts.path.rpartition("/")
    if not name:
        raise StoreError(f"{redacted(location)!r} is not the URL of a file, as there is nothing behind its last '/'")
    return parts._replace(path=head or "/").geturl(), parse.unquote(name)
