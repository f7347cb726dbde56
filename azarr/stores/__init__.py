"""Stores: where values live."""

from azarr.stores.base import BlockingStore, ListableStore, ReadableStore, Store, WritableStore
from azarr.stores.latency import LatencyStore
from azarr.stores.local import LocalStore
from azarr.stores.memory import MemoryStore

__all__ = [
    "BlockingStore",
    "LatencyStore",
    "ListableStore",
    "LocalStore",
    "MemoryStore",
    "ReadableStore",
    "Store",
    "WritableStore",
]
