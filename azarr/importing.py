"""Importing what is deferred without keeping the loop from others."""

from __future__ import annotations

import asyncio
from importlib import import_module

from azarr.deferred import missing


async def ready(*modules: object) -> None:
    """Have a thread import those of ``modules`` that are still deferred: that may take longer than a loop should be kept from others."""
    if names := missing(modules):
        await asyncio.to_thread(lambda: [import_module(name) for name in names])
