"""Modules of numcodecs, imported by whoever first needs one, as it takes 200 ms."""

from __future__ import annotations

import importlib
import threading
import warnings
from types import ModuleType

_importing = threading.Lock()


def numcodecs_module(name: str) -> ModuleType:
    """The module ``name`` of numcodecs.

    numcodecs warns whoever has the crc32c package, which azarr needs. The lock is there because two threads that leave
    ``catch_warnings`` in another order than they entered it would silence the whole process for good.
    """
    with _importing, warnings.catch_warnings(record=True):
        return importlib.import_module(f"numcodecs.{name}")
