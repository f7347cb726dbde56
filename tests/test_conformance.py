"""Arrays that other libraries wrote, and broken ones: a corpus that lies beside the project, where it is there."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import zipfile
from collections import Counter
from pathlib import Path

import pytest

import azarr
from azarr.errors import StoreError, UnknownExtensionError, ZarrError
from azarr.stores.zip import ZipStore
from azarr.stores.zipped import ZippedStore

CORPUS = Path(__file__).parents[1].parent / "shared" / "conformance"

pytestmark = pytest.mark.skipif(not (CORPUS / "EXPECTED.jsonl").is_file(), reason="the conformance corpus is not beside the project")

PASSED_AT_LEAST = 1041
"""Arrays of the corpus that are read right. This number only grows."""


@pytest.fixture(scope="module")
def digest():
    """The corpus's own function from an array to its kind and hash."""
    spec = importlib.util.spec_from_file_location("conformance_check", CORPUS / "check.py")
    check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(check)
    return check.digest


@pytest.fixture(scope="module")
def nodes():
    return [json.loads(line) for line in (CORPUS / "EXPECTED.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def stores():
    return {}


def store_of(stores, dataset):
    """The folder or the zip archive."""
    if dataset not in stores:
        path = CORPUS / dataset
        stores[dataset] = ZipStore(path) if path.is_file() else azarr.LocalStore(path)
    return stores[dataset]


def attributes_hash(node):
    text = json.dumps(dict(node.attrs), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=True)
    return hashlib.sha256(text.encode()).hexdigest()


def where(expected):
    return f"{expected['dataset']} {expected['path'] or '/'}"


async def opened(stores, expected):
    return await azarr.open(store_of(stores, expected["dataset"]), expected["path"], zarr_format=expected.get("zarr_format"))


async def test_arrays_are_read_right(stores, nodes, digest):
    passed, failures = 0, []
    for expected in nodes:
        if expected["expect"] != "value":
            continue
        try:
            array = await opened(stores, expected)
            found = digest(await array.read())
        except Exception as error:  # noqa: BLE001 - whatever comes out is reported
            failures.append(f"{where(expected)}: {type(error).__name__}: {error}")
            continue
        if found != (expected["data_kind"], expected["sha256"]):
            failures.append(f"{where(expected)}: wrong data")
        elif list(array.shape) != expected.get("shape", list(array.shape)):
            failures.append(f"{where(expected)}: shape {array.shape}")
        elif attributes_hash(array) != expected.get("attributes_sha256", attributes_hash(array)):
            failures.append(f"{where(expected)}: wrong attributes")
        else:
            passed += 1
    assert not failures, "\n".join(failures)
    assert passed >= PASSED_AT_LEAST


async def test_broken_nodes_are_errors(stores, nodes, digest):
    seen, failures = Counter(), []
    for expected in nodes:
        if expected["expect"] != "error":
            continue
        seen[expected["strictness"]] += 1
        try:
            node = await opened(stores, expected)
            found = digest(await node.read())[1] if isinstance(node, azarr.AsyncArray) else None
        except ZarrError:
            continue
        except Exception as error:  # noqa: BLE001 - whatever comes out is reported
            failures.append(f"{where(expected)}: {type(error).__name__}: {error}")
            continue
        if expected["strictness"] == "hard":
            failures.append(f"{where(expected)}: accepted, though {expected['error_why']}")
        elif found != expected.get("lenient", {}).get("sha256"):
            failures.append(f"{where(expected)}: accepted with other data than lenient readers find")
    assert not failures, "\n".join(failures)
    assert seen["hard"] > 50
    assert seen["soft"] > 10


async def test_groups_open_with_their_attributes(stores, nodes):
    passed, failures = 0, []
    for expected in nodes:
        if expected["expect"] != "group":
            continue
        try:
            group = await azarr.open_group(store_of(stores, expected["dataset"]), expected["path"], zarr_format=expected["zarr_format"])
        except UnknownExtensionError:
            continue
        except Exception as error:  # noqa: BLE001 - whatever comes out is reported
            failures.append(f"{where(expected)}: {type(error).__name__}: {error}")
            continue
        if attributes_hash(group) == expected["attributes_sha256"]:
            passed += 1
        else:
            failures.append(f"{where(expected)}: wrong attributes")
    assert not failures, "\n".join(failures)
    assert passed >= 566


async def test_metadata_of_arrays_too_large_to_read(stores, nodes):
    found = 0
    for expected in nodes:
        if expected["expect"] != "metadata":
            continue
        array = await azarr.open_array(store_of(stores, expected["dataset"]), expected["path"], zarr_format=expected["zarr_format"])
        assert list(array.shape) == expected["shape"]
        assert list(array.chunks) == expected["chunks"]
        assert attributes_hash(array) == expected["attributes_sha256"]
        found += 1
    assert found


NOT_READ = {"zip_bzip2.zip", "zip_zstd.zip"}
"""Archives whose entries are compressed otherwise than by deflate."""


@pytest.mark.parametrize("archive", sorted(CORPUS.rglob("*.zip")), ids=lambda path: path.name)
async def test_zip_archives_are_read_as_the_standard_library_does(archive):
    for store in (ZipStore(archive), ZippedStore(azarr.MemoryStore({"x.zip": archive.read_bytes()}), "x.zip")):
        keys = [key async for key in store.list_prefix()]
        with zipfile.ZipFile(archive) as expected:
            assert sorted(keys) == sorted({info.filename for info in expected.infolist() if not info.is_dir()})
            for key in keys:
                if archive.name in NOT_READ:
                    with pytest.raises(StoreError, match="is compressed with"):
                        await store.get(key)
                else:
                    assert bytes(await store.get(key)) == expected.read(key)
