"""Consolidated metadata that azarr writes and zarr-python reads, and the reverse."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

import azarr

zarr = pytest.importorskip("zarr", minversion="3.4", reason="needs zarr 3.4 or later: run 'nox -s interop', which installs it")

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(params=[2, 3])
def zarr_format(request):
    return request.param


def theirs(root):
    """Everything zarr-python finds below a group."""
    return {name: (getattr(node, "shape", None), dict(node.attrs)) for name, node in root.members(max_depth=None)}


async def ours(root):
    return {name: (getattr(node, "shape", None), dict(node.attrs)) async for name, node in root.members(max_depth=None)}


EXPECTED = {
    "g": (None, {"n": 1}),
    "empty": (None, {}),
    "g/x": ((4, 6), {"units": "K"}),
    "g/deep": (None, {}),
    "g/deep/y": ((3,), {}),
}


async def test_zarr_python_reads_what_azarr_consolidated(tmp_path, zarr_format):
    root = await azarr.create_group(tmp_path, zarr_format=zarr_format, attributes={"root": True})
    await root.create_group("g", attributes={"n": 1})
    await root.create_group("empty")
    x = await root.create_array("g/x", shape=(4, 6), chunks=(2, 3), dtype="f4", attributes={"units": "K"}, compressors=azarr.codecs.Gzip(5))
    await x.write(2)
    await root.create_array("g/deep/y", shape=3, dtype="i2", compressors=azarr.codecs.Gzip(5))
    await root.consolidate()

    def check(expected):
        group = zarr.open_group(tmp_path, mode="r", use_consolidated=True)
        assert group.metadata.consolidated_metadata is not None
        assert dict(group.attrs) == {"root": True}
        assert theirs(group) == expected
        assert np.asarray(group["g/x"][:]).sum() == 48

    await asyncio.to_thread(check, EXPECTED)
    await x.update_attributes({"more": 1})
    await root.delete("g/deep")
    await root.create_group("new")
    expected = {name: each for name, each in EXPECTED.items() if "deep" not in name} | {"new": (None, {})}
    await asyncio.to_thread(check, expected | {"g/x": ((4, 6), {"units": "K", "more": 1})})


async def test_azarr_reads_and_keeps_up_what_zarr_python_consolidated(tmp_path, zarr_format):
    def write():
        root = zarr.create_group(tmp_path, zarr_format=zarr_format, attributes={"root": True})
        root.create_group("g", attributes={"n": 1})
        root.create_group("empty")
        x = root.create_array("g/x", shape=(4, 6), chunks=(2, 3), dtype="f4", attributes={"units": "K"})
        x[:] = 2
        root["g"].create_group("deep").create_array("y", shape=(3,), dtype="i2")
        zarr.consolidate_metadata(tmp_path)

    await asyncio.to_thread(write)
    store = azarr.LatencyStore(azarr.LocalStore(tmp_path), 0)
    root = await azarr.open_group(store, zarr_format=zarr_format)
    assert root.attrs == {"root": True}
    assert await ours(root) == EXPECTED
    assert store.requests == 1
    assert (await (await root.open_array("g/x"))).sum() == 48
    await (await root.open_group("g")).update_attributes({"n": 2})
    await root.create_group("g/deep/new")
    expected = EXPECTED | {"g": (None, {"n": 2}), "g/deep/new": (None, {})}
    assert await ours(root) == await ours(await azarr.open_group(store, use_consolidated=False)) == expected
    assert await asyncio.to_thread(lambda: theirs(zarr.open_group(tmp_path, mode="r", use_consolidated=True))) == expected


async def test_both_consolidate_the_same(tmp_path, zarr_format):
    root = await azarr.create_group(tmp_path, zarr_format=zarr_format)
    await root.create_array("g/x", shape=(4, 6), chunks=(2, 3), dtype="f4", attributes={"units": "K"}, compressors=azarr.codecs.Gzip(5))
    await root.consolidate()
    mine = root._known
    await asyncio.to_thread(zarr.consolidate_metadata, tmp_path)
    other = (await azarr.open_group(tmp_path, use_consolidated=True))._known
    assert mine.documents.keys() == other.documents.keys()
    for path in mine.documents:
        assert mine.metadata(path) == other.metadata(path)


async def test_zarr_python_reads_what_azarr_converted(tmp_path):
    def write():
        root = zarr.create_group(tmp_path, zarr_format=2)
        root.create_array("x", shape=(4, 6), chunks=(2, 3), dtype="f4", order="F")[:] = np.arange(24).reshape(4, 6)
        zarr.consolidate_metadata(tmp_path)

    await asyncio.to_thread(write)
    for zarr_format in (3, 2):
        await azarr.convert(tmp_path, zarr_format=zarr_format)
        group = await asyncio.to_thread(lambda: zarr.open_group(tmp_path, mode="r", use_consolidated=True))
        assert group.metadata.zarr_format == zarr_format
        values = await asyncio.to_thread(lambda: np.asarray(group["x"][:]))  # noqa: B023
        assert np.array_equal(values, np.arange(24).reshape(4, 6))
