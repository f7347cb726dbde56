"""azarr, the asyncio-native Zarr library: chunked, compressed N-dimensional arrays, read, streamed and written with ``async for``."""

from typing import TYPE_CHECKING

from azarr.array import ArrayView, AsyncArray
from azarr.deferred import deferred_names
from azarr.engine import Engine
from azarr.errors import (
    CheckpointError,
    ChecksumError,
    CodecError,
    MetadataError,
    NodeExistsError,
    NodeNotFoundError,
    PluginError,
    PreconditionFailedError,
    RegistrationError,
    SelectionError,
    StoreError,
    StreamError,
    StreamTimeoutError,
    ThrottledError,
    TransientStoreError,
    UnknownExtensionError,
    WorkerError,
    WriteError,
    ZarrError,
)
from azarr.group import AsyncGroup
from azarr.hierarchy import create_array, create_group, create_hierarchy, open, open_array, open_group
from azarr.types import ByteRange, Limits, Listing, Suffix

if TYPE_CHECKING:
    from azarr import blocking, codecs, telemetry
    from azarr.chunk_cache import ChunkCache, ChunkCacheStats
    from azarr.chunk_keys import ChunkKeyEncoding, register_chunk_key_encoding
    from azarr.chunk_reader import Chunk
    from azarr.codecs.registry import register_codec
    from azarr.conversion import convert
    from azarr.data_types import register_data_type
    from azarr.executors import InlineExecutor, ThreadExecutor
    from azarr.extensions import Extension, Supported, supported
    from azarr.handover import Producer
    from azarr.ingest import WriteOptions, WriteReport
    from azarr.process_executor import ProcessExecutor
    from azarr.registry import Registration
    from azarr.retry import RetryPolicy
    from azarr.slices import Slice, SliceOptions, SliceStream
    from azarr.stores.caching import CachingStats, CachingStore
    from azarr.stores.coalescing import CoalescingStore
    from azarr.stores.latency import LatencyStore
    from azarr.stores.local import LocalStore
    from azarr.stores.memory import MemoryStore
    from azarr.stores.overlay import OverlayStore
    from azarr.stores.prefix import PrefixStore
    from azarr.stores.readonly import ReadOnlyStore
    from azarr.stores.recording import RecordedRequest, RecordingStore
    from azarr.stores.retrying import RetryingStore
    from azarr.stores.sqlite import SQLiteStore
    from azarr.stores.urls import open_store, register_store
    from azarr.stores.zip_store import ZipStore
    from azarr.stores.zipped import ZippedStore
    from azarr.stream import ChunkStream
    from azarr.stream_info import ChunkInfo, SliceInfo, StreamStats
    from azarr.streaming import StreamOptions
    from azarr.telemetry import Telemetry
    from azarr.transfer import copy, load, save
    from azarr.version import __version__

__all__ = [
    "ArrayView",
    "AsyncArray",
    "AsyncGroup",
    "ByteRange",
    "CachingStats",
    "CachingStore",
    "CheckpointError",
    "ChecksumError",
    "Chunk",
    "ChunkCache",
    "ChunkCacheStats",
    "ChunkInfo",
    "ChunkKeyEncoding",
    "ChunkStream",
    "CoalescingStore",
    "CodecError",
    "Engine",
    "Extension",
    "InlineExecutor",
    "LatencyStore",
    "Limits",
    "Listing",
    "LocalStore",
    "MemoryStore",
    "MetadataError",
    "NodeExistsError",
    "NodeNotFoundError",
    "OverlayStore",
    "PluginError",
    "PreconditionFailedError",
    "PrefixStore",
    "ProcessExecutor",
    "Producer",
    "ReadOnlyStore",
    "RecordedRequest",
    "RecordingStore",
    "Registration",
    "RegistrationError",
    "RetryPolicy",
    "RetryingStore",
    "SQLiteStore",
    "SelectionError",
    "Slice",
    "SliceInfo",
    "SliceOptions",
    "SliceStream",
    "StoreError",
    "StreamError",
    "StreamOptions",
    "StreamStats",
    "StreamTimeoutError",
    "Suffix",
    "Supported",
    "Telemetry",
    "ThreadExecutor",
    "ThrottledError",
    "TransientStoreError",
    "UnknownExtensionError",
    "WorkerError",
    "WriteError",
    "WriteOptions",
    "WriteReport",
    "ZarrError",
    "ZipStore",
    "ZippedStore",
    "__version__",
    "blocking",
    "codecs",
    "convert",
    "copy",
    "create_array",
    "create_group",
    "create_hierarchy",
    "load",
    "open",
    "open_array",
    "open_group",
    "open_store",
    "register_chunk_key_encoding",
    "register_codec",
    "register_data_type",
    "register_store",
    "save",
    "supported",
    "telemetry",
]

if not TYPE_CHECKING:
    modules = {
        "azarr.chunk_cache": ("ChunkCache", "ChunkCacheStats"),
        "azarr.chunk_keys": ("ChunkKeyEncoding", "register_chunk_key_encoding"),
        "azarr.chunk_reader": ("Chunk",),
        "azarr.codecs.registry": ("register_codec",),
        "azarr.conversion": ("convert",),
        "azarr.data_types": ("register_data_type",),
        "azarr.executors": ("InlineExecutor", "ThreadExecutor"),
        "azarr.extensions": ("Extension", "Supported", "supported"),
        "azarr.handover": ("Producer",),
        "azarr.ingest": ("WriteOptions", "WriteReport"),
        "azarr.process_executor": ("ProcessExecutor",),
        "azarr.registry": ("Registration",),
        "azarr.retry": ("RetryPolicy",),
        "azarr.slices": ("Slice", "SliceOptions", "SliceStream"),
        "azarr.stores.caching": ("CachingStats", "CachingStore"),
        "azarr.stores.coalescing": ("CoalescingStore",),
        "azarr.stores.latency": ("LatencyStore",),
        "azarr.stores.local": ("LocalStore",),
        "azarr.stores.memory": ("MemoryStore",),
        "azarr.stores.overlay": ("OverlayStore",),
        "azarr.stores.prefix": ("PrefixStore",),
        "azarr.stores.readonly": ("ReadOnlyStore",),
        "azarr.stores.recording": ("RecordedRequest", "RecordingStore"),
        "azarr.stores.retrying": ("RetryingStore",),
        "azarr.stores.sqlite": ("SQLiteStore",),
        "azarr.stores.urls": ("open_store", "register_store"),
        "azarr.stores.zip_store": ("ZipStore",),
        "azarr.stores.zipped": ("ZippedStore",),
        "azarr.stream": ("ChunkStream",),
        "azarr.stream_info": ("ChunkInfo", "SliceInfo", "StreamStats"),
        "azarr.streaming": ("StreamOptions",),
        "azarr.telemetry": ("Telemetry",),
        "azarr.transfer": ("copy", "load", "save"),
        "azarr.version": ("__version__",),
    }
    __getattr__, __dir__ = deferred_names(__name__, __all__, modules)
