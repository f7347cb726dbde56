"""Stores: where values live."""

from typing import TYPE_CHECKING

from azarr.deferred import deferred_names
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
from azarr.stores.local import LocalStore

if TYPE_CHECKING:
    from azarr.stores.caching import CachingStats, CachingStore
    from azarr.stores.coalescing import CoalescingStore
    from azarr.stores.latency import LatencyStore
    from azarr.stores.memory import MemoryStore
    from azarr.stores.overlay import OverlayStore
    from azarr.stores.prefix import PrefixStore
    from azarr.stores.readonly import ReadOnlyStore
    from azarr.stores.recording import RecordedRequest, RecordingStore
    from azarr.stores.sqlite import SQLiteStore
    from azarr.stores.zip_store import ZipStore
    from azarr.stores.zipped import ZippedStore

__all__ = [
    "BlockingStore",
    "CachingStats",
    "CachingStore",
    "CoalescingStore",
    "ConditionalStore",
    "LatencyStore",
    "ListableStore",
    "LocalStore",
    "LockingStore",
    "MemoryStore",
    "OverlayStore",
    "PrefixStore",
    "ReadOnlyStore",
    "ReadableStore",
    "RecordedRequest",
    "RecordingStore",
    "SQLiteStore",
    "Store",
    "Version",
    "Versioned",
    "VersionedStore",
    "WritableStore",
    "ZipStore",
    "ZippedStore",
]

if not TYPE_CHECKING:
    modules = {
        "azarr.stores.caching": ("CachingStats", "CachingStore"),
        "azarr.stores.coalescing": ("CoalescingStore",),
        "azarr.stores.latency": ("LatencyStore",),
        "azarr.stores.memory": ("MemoryStore",),
        "azarr.stores.overlay": ("OverlayStore",),
        "azarr.stores.prefix": ("PrefixStore",),
        "azarr.stores.readonly": ("ReadOnlyStore",),
        "azarr.stores.recording": ("RecordedRequest", "RecordingStore"),
        "azarr.stores.sqlite": ("SQLiteStore",),
        "azarr.stores.zip_store": ("ZipStore",),
        "azarr.stores.zipped": ("ZippedStore",),
    }
    __getattr__, __dir__ = deferred_names(__name__, __all__, modules)
