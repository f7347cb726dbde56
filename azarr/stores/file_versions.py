"""Versions of files that hold values, so that a store of files writes on condition that nobody else has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

from azarr.errors import PreconditionFailedError
from azarr.stores.base import Request, Version
from azarr.stores.files import read_value

Check: TypeAlias = Callable[[int | None], None]
"""Looks at the open file of a value, or at its absence, and raises where that is not what was expected."""


class Seen(NamedTuple):
    """The version of a value: what was read of it, and how long all of it was. Times and numbers of files come again too soon."""

    part: Request
    size: int
    content: bytes


def check_version(key: str, version: Version | None, descriptor: int | None) -> None:
    """Raise ``PreconditionFailedError`` unless the open file, or its absence, is what ``version`` stands for."""
    if descriptor is None:
        same = version is None
    else:
        same = (
            isinstance(version, Seen)
            and os.fstat(descriptor).st_size == version.size
            and read_value(descriptor, key, version.part, None) == version.content
        )
    if not same:
        raise PreconditionFailedError(f"{key!r} is not what it was: read it again, change that, and write it", key=key)
