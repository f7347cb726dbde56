"""Packages that only some arrays need; they are imported by whoever first needs one."""

from __future__ import annotations

import importlib
from types import ModuleType

from azarr.errors import CodecError


def extra(package: str, name: str, codec: str) -> ModuleType:
    """The module ``package``; ``CodecError`` says which extra of azarr brings it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        message = f'needs the package {package}, which cannot be imported ({error}); pip install "azarr[{name}]"'
        raise CodecError(message, codec=codec) from error
