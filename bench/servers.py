"""The servers that azarr's tests start, for measurements on the loopback interface."""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

SCRIPT = Path(__file__).resolve().parents[1] / "tests" / "emulators" / "servers.py"


class Missing(Exception):
    """A server is not installed; the message says how to get it."""


@cache
def servers() -> ModuleType:
    """tests/emulators/servers.py, whose servers raise ``Missing`` here instead of skipping a test."""
    spec = importlib.util.spec_from_file_location("bench_servers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look
    spec.loader.exec_module(module)

    def missing(why: str):
        raise Missing(why)

    module.missing = missing
    return module
