"""Stores: where values live."""

from azarr.stores.base import (
    BlockingStore,
    ConditionalStore,
    ListableStore,
    LockingStore,
    ReadableStore,
    Store,
    Version,
    Versioned,
    WritableStore,
)
from azarr.stores.latency import LatencyStore
from azarr.stores.local import LocalStore
from azarr.stores.memory import MemoryStore

__all__ = [
    "BlockingStore",
    "ConditionalStore",
    "LatencyStore",
    "ListableStore",
    "LocalStore",
    "LockingStore",
    "MemoryStore",
    "ReadableStore",
    "Store",
    "Version",
    "Versioned",
    "WritableStore",
]
