"""azarr and zarrista, the Python binding of zarrs in Rust, read what the other has written."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr

zarrista = pytest.importorskip("zarrista", reason="needs zarrista; 'nox -s interop' installs it and runs these tests")

from zarrista.store import FilesystemStore  # noqa: E402  # not before it is known that there is zarrista

patient = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# What zarrista does not have, by case. A test that stops failing says so.
NO_CODEC = "zarrista does not have the codecs zlib, bz2 and lz4 in v2"
NO_CHECKSUM = "zarrista's v2 codec zstd does not know 'checksum'"
LACKING = dict.fromkeys(("zlib-0", "zlib-1", "zlib-9", "bz2-1", "bz2-9", "lz4-1", "lz4-10"), NO_CODEC) | {"zstd-checksum": NO_CHECKSUM}
READING = {f"codecs2-v2-{name}{more}": reason for name, reason in LACKING.items() for more in ("", "-F-big")}


def values_of(array):
    return array[...].to_numpy()


def attributes_of(attrs):
    """The attributes but for the one by which zarrista says that it was here."""
    return {name: value for name, value in attrs.items() if name != "_zarrs"}


def write_with_zarrista(case, root):
    """The array of a case, created from the document that the specification asks for, and written."""
    array = zarrista.Array.from_metadata(case.document, FilesystemStore(root))
    array.store_metadata()
    values = np.ascontiguousarray(case.values[case.written])
    if values.size:
        array.store_array_subset(case.written or ..., values.tobytes())  # the only form that it takes for every data type


async def check_azarr(case, array):
    expected = array.metadata.with_attributes(attributes_of(array.attrs))
    case.check_azarr(azarr.AsyncArray(array.store, array.path, expected))
    case.check(await array.read())


async def test_zarrista_reads_what_azarr_writes(case, folder, known):
    known(READING)
    await case.write(folder)
    array = zarrista.Array.open(FilesystemStore(folder.root))
    assert tuple(array.shape) == case.shape
    assert attributes_of(array.attrs) == case.attributes
    case.check(values_of(array))


async def test_azarr_reads_what_zarrista_writes(v3_case, folder):
    write_with_zarrista(v3_case, folder.root)
    await check_azarr(v3_case, await azarr.open_array(folder))


def suits_zarrista(case):
    """Whether zarrista can read its own: not a part of a chunk that Blosc has compressed after another codec."""
    return all(codec["name"] != "blosc" for codec in case.compressors[1:])


@patient
@given(data=st.data())
async def test_random_arrays_both_ways(data, cases):
    case = data.draw(cases(zarr_formats=[3]).filter(suits_zarrista))
    with tempfile.TemporaryDirectory() as root:
        write_with_zarrista(case, f"{root}/theirs")
        await check_azarr(case, await azarr.open_array(f"{root}/theirs"))
        await case.write(azarr.LocalStore(f"{root}/ours", durability="none"))
        case.check(values_of(zarrista.Array.open(FilesystemStore(f"{root}/ours"))))


@patient
@given(data=st.data())
async def test_chunks_of_different_lengths_both_ways(data, basic_keys):
    lengths = st.lists(st.integers(1, 4), min_size=1, max_size=6)
    chunks = data.draw(st.lists(lengths, min_size=1, max_size=3))
    shape = tuple(data.draw(st.integers(1, sum(each))) for each in chunks)
    values = np.arange(1, np.prod(shape) + 1, dtype="int32").reshape(shape)
    with tempfile.TemporaryDirectory() as root:
        ours = await azarr.create_array(azarr.LocalStore(root, durability="none"), shape=shape, dtype="int32", chunks=chunks)
        await ours.write(values)
        theirs = zarrista.Array.open(FilesystemStore(root))
        np.testing.assert_array_equal(values_of(theirs), values)
        key = data.draw(basic_keys(shape))
        values[key] = -1
        await ours[key].write(-1)
        np.testing.assert_array_equal(values_of(theirs), values)
        theirs.store_array_subset(..., (2 * values).tobytes())
        np.testing.assert_array_equal(await ours, 2 * values)
