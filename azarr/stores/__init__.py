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
    VersionedStore,
    WritableStore,
)
from azarr.stores.latency import LatencyStore
from azarr.stores.local import LocalStore
from azarr.stores.memory import MemoryStore
from azarr.stores.prefix import PrefixStore
from azarr.stores.readonly import ReadOnlyStore

__all__ = [
    "BlockingStore",
    "ConditionalStore",
    "LatencyStore",
    "ListableStore",
    "LocalStore",
    "LockingStore",
    "MemoryStore",
    "PrefixStore",
    "ReadOnlyStore",
    "ReadableStore",
    "Store",
    "Version",
    "Versioned",
    "VersionedStore",
    "WritableStore",
]
