"""Importing what is deferred without keeping the loop from others."""

from __future__ import annotations

import asyncio
import sys
import threading

import pytest

from azarr.deferred import DeferredModule
from azarr.importing import ready

MODULE = """
import threading
thread = threading.current_thread()
"""


async def test_a_thread_imports_what_is_deferred(tmp_path, monkeypatch):
    (tmp_path / "imported_late.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    late = DeferredModule("imported_late")
    try:
        await ready(late, asyncio)
        assert "imported_late" in sys.modules
        assert late.thread is not threading.current_thread()
        monkeypatch.delattr(asyncio, "to_thread")
        await ready(late, asyncio)  # without a thread, once it is there
    finally:
        sys.modules.pop("imported_late", None)


async def test_an_import_that_fails_says_so():
    with pytest.raises(ModuleNotFoundError, match="nowhere"):
        await ready(DeferredModule("azarr.nowhere"))
