"""What users import: the names, and that each is documented. A change here is a change of the public interface."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
import types
import typing

import pytest

import azarr
import azarr.stores
import azarr.testing
import azarr.testing.faults

NAMES = [
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

CODECS = [
    "Adler32",
    "ArrayToArrayCodec",
    "ArrayToBytesCodec",
    "AsType",
    "Base64",
    "BitRound",
    "Blosc",
    "Bytes",
    "BytesToBytesCodec",
    "Bz2",
    "CastValue",
    "Categorize",
    "Codec",
    "Conditional",
    "Crc32",
    "Crc32c",
    "Delta",
    "FixedScaleOffset",
    "Fletcher32",
    "Gzip",
    "JenkinsLookup3",
    "Json2",
    "LocatedCrc32c",
    "Lz4",
    "Lzma",
    "N5Default",
    "NumcodecsBitRound",
    "NumcodecsPackBits",
    "Optional",
    "PackBits",
    "Pcodec",
    "Quantize",
    "Reshape",
    "ScaleOffset",
    "Sharding",
    "Shuffle",
    "Snappy",
    "Transpose",
    "VlenArray",
    "VlenBytes",
    "VlenUtf8",
    "ZarrsVlen",
    "ZarrsVlenV2",
    "Zfp",
    "Zfpy",
    "Zlib",
    "Zstd",
    "from_numcodecs",
    "from_zarr_python",
]

MODULES = [azarr, azarr.blocking, azarr.codecs, azarr.telemetry, azarr.testing, azarr.testing.faults]

SELDOM = {
    "aiohttp",
    "azarr.appending",
    "azarr.array_locks",
    "azarr.blocking",
    "azarr.cache_contents",
    "azarr.cached_chunk",
    "azarr.cached_reading",
    "azarr.catalog",
    "azarr.checkpoint",
    "azarr.chunk_cache",
    "azarr.chunk_reader",
    "azarr.claims",
    "azarr.codecs.blosc",
    "azarr.codecs.crc32c",
    "azarr.codecs.gzip",
    "azarr.codecs.imagecodecs",
    "azarr.codecs.of_numcodecs",
    "azarr.codecs.of_zarr_python",
    "azarr.codecs.sharding",
    "azarr.codecs.vlen",
    "azarr.conversion",
    "azarr.copying",
    "azarr.coverage",
    "azarr.creation",
    "azarr.data_types.raw",
    "azarr.data_types.struct",
    "azarr.data_types.text",
    "azarr.data_types.times",
    "azarr.data_types.variable",
    "azarr.events",
    "azarr.extensions",
    "azarr.extents",
    "azarr.gathering",
    "azarr.handover",
    "azarr.indexers",
    "azarr.ingest",
    "azarr.locks",
    "azarr.metadata.v2",
    "azarr.nodes",
    "azarr.placement",
    "azarr.plugins",
    "azarr.process_pipeline",
    "azarr.process_worker",
    "azarr.progress",
    "azarr.resizing",
    "azarr.retry",
    "azarr.rewriting",
    "azarr.sharded_chunks",
    "azarr.shared_memory",
    "azarr.slices",
    "azarr.stores.caching",
    "azarr.stores.http",
    "azarr.stores.identities",
    "azarr.stores.memory",
    "azarr.stores.observed",
    "azarr.stores.prefix",
    "azarr.stores.s3",
    "azarr.stores.sqlite",
    "azarr.stores.zip_store",
    "azarr.stream",
    "azarr.stream_info",
    "azarr.streaming",
    "azarr.transfer",
    "azarr.turns",
    "azarr.unit_writer",
    "azarr.version",
    "azarr.worker_process",
    "azarr.writing",
    "bz2",
    "email",
    "fractions",
    "hashlib",
    "httptools",
    "importlib.metadata",
    "ipaddress",
    "lz4",
    "lzma",
    "ml_dtypes",
    "multiprocessing",
    "numcodecs",
    "pathlib",
    "random",
    "runpy",
    "shutil",
    "sqlite3",
    "tempfile",
    "urllib.parse",
    "zipfile",
}
"""What importing azarr and opening an array of numbers leave to those who need it, as importing it takes time."""


def objects():
    """Every public class and function by its full name."""
    return {f"{module.__name__}.{name}": getattr(module, name) for module in MODULES for name in module.__all__}


def test_the_names_are_these():
    assert azarr.__all__ == NAMES
    assert azarr.codecs.__all__ == CODECS


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_names_resolve_and_are_sorted(module):
    assert module.__doc__
    assert module.__all__ == sorted(module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None
    scope: dict[str, object] = {}
    exec(f"from {module.__name__} import *", scope)
    assert set(module.__all__) <= scope.keys()


@pytest.mark.parametrize("name", sorted(objects()))
def test_what_is_public_is_documented(name):
    public = objects()[name]
    doc = inspect.getdoc(public)
    assert doc, f"{name} has no docstring"
    assert doc.splitlines()[0].rstrip().endswith((".", ";", ",")) or len(doc.splitlines()) > 1
    if not isinstance(public, type):
        return
    # a class does not pass off the docstring of what it inherits from as its own
    assert public.__dict__.get("__doc__"), f"{name} has no docstring of its own"
    for member, value in vars(public).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not member.startswith(("_", "test_")) and isinstance(function, types.FunctionType):
            assert inspect.getdoc(getattr(public, member)), f"{name}.{member} has no docstring"


@pytest.mark.parametrize("name", sorted(objects()))
def test_annotations_can_be_resolved(name):
    """Those, too, that name what is imported with its first use."""
    public = objects()[name]
    members = vars(public).items() if isinstance(public, type) else [("", public)]
    for member, value in members:
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not member.startswith("_") and isinstance(function, types.FunctionType):
            typing.get_type_hints(function)


def test_every_error_is_exported():
    from azarr import errors

    def errors_among(module, names):
        return {name for name in names if isinstance(each := getattr(module, name), type) and issubclass(each, errors.ZarrError)}

    assert errors_among(errors, vars(errors)) == errors_among(azarr, azarr.__all__)


def test_the_version_is_that_of_the_distribution():
    from importlib.metadata import version

    assert azarr.__version__ == version("azarr")


def test_modules_for_typing_are_marked():
    from importlib.resources import files

    assert files("azarr").joinpath("py.typed").is_file()


def test_importing_starts_no_thread_and_no_loop():
    code = "import threading, azarr; assert threading.active_count() == 1"
    subprocess.run([sys.executable, "-c", code], check=True)


OPENING = """
import asyncio, numpy, sys
before = set(sys.modules)
import azarr
asyncio.run(azarr.open_array(sys.argv[1]))
print(*(set(sys.modules) - before))
"""


async def test_importing_and_opening_import_nothing_that_is_seldom_needed(tmp_path):
    await azarr.create_array(tmp_path / "a", shape=(4, 4), dtype="f4", compressors=["zstd"])
    done = subprocess.run([sys.executable, "-c", OPENING, tmp_path / "a"], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert {"azarr.array", "azarr.codecs.zstd", "azarr.stores.local"} <= loaded
    assert loaded & SELDOM == set()


STREAMING = """
import asyncio, numpy, sys
import azarr
before = set()
async def main():
    array = await azarr.open_array(sys.argv[1])
    before.update(sys.modules)
    async with array.stream_chunks() as chunks:
        async for _ in chunks:
            pass
asyncio.run(main())
print(*(set(sys.modules) - before))
"""


async def test_streaming_imports_nothing_that_only_some_streams_need(tmp_path):
    array = await azarr.create_array(tmp_path / "a", shape=(4, 4), chunks=(2, 2), dtype="f4")
    await array.write(1)
    done = subprocess.run([sys.executable, "-c", STREAMING, tmp_path / "a"], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.split())
    assert {"azarr.stream", "azarr.chunk_reader"} <= loaded
    assert loaded & SELDOM <= {"azarr.stream", "azarr.streaming", "azarr.chunk_reader", "azarr.cached_chunk", "azarr.progress"}


ON_THE_LOOP = """
import asyncio, importlib.util, numpy, sys, threading
import azarr
needed = {"http": "aiohttp", "s3": "aiobotocore", "sqlite": "sqlite3"}
schemes = [scheme for scheme, package in needed.items() if importlib.util.find_spec(package)]
loop, imported = threading.current_thread(), set()
class Finder:
    def find_spec(self, name, path=None, target=None):
        if threading.current_thread() is loop:
            imported.add(name)
async def main():
    array = await azarr.create_array(sys.argv[1], shape=(4, 4), chunks=(2, 2), dtype="f4")
    await array.write(1)
    await array.append([[2, 2, 2, 2]])
    await array.resize((4, 4))
    await array.refresh()
    await array.write_stream(iter([((slice(0, 2), slice(0, 4)), numpy.ones((2, 4), "f4"))]))
    await azarr.create_hierarchy(sys.argv[1] + "s", {"b": {"shape": 1, "dtype": "f4"}})
    for scheme in schemes:
        try:
            await azarr.open_array(f"{scheme}://place/a", storage_options={"nothing": 1})
        except TypeError:
            pass
sys.meta_path.insert(0, Finder())
asyncio.run(main())
print(*imported)
"""


def test_what_takes_long_to_import_does_not_keep_the_loop_from_others(tmp_path):
    """Whoever awaits something that needs more of azarr, or the library of a service, has that imported in a thread."""
    done = subprocess.run([sys.executable, "-c", ON_THE_LOOP, tmp_path / "a"], check=True, capture_output=True, text=True)
    slow = {"azarr.creation", "azarr.ingest", "azarr.appending", "azarr.resizing", "azarr.nodes", "azarr.writing", "azarr.catalog"}
    assert (
        set(done.stdout.split()) & {*slow, "azarr.stores.http", "azarr.stores.s3", "azarr.stores.sqlite", "aiohttp", "aiobotocore"} == set()
    )


def test_what_is_seldom_needed_exists():
    for name in SELDOM:
        assert importlib.util.find_spec(name) is not None or name == "ml_dtypes"


@pytest.mark.parametrize("package", [azarr, azarr.codecs, azarr.stores, azarr.telemetry], ids=lambda package: package.__name__)
def test_names_that_are_imported_late_are_those_that_type_checkers_see(package):
    tree = ast.parse(inspect.getsource(package))
    (block,) = (node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING")
    for statement in block.body:
        module = importlib.import_module(statement.module)
        for name in {alias.name for alias in statement.names} & set(package.__all__):
            assert getattr(package, name) is getattr(module, name, module)
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing
