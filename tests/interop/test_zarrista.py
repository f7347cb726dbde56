"""azarr and zarrista, the Python binding of zarrs in Rust, read what the other has written."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

import azarr

zarrista = pytest.importorskip("zarrista", reason="needs zarrista; 'nox -s interop' installs it and runs these tests")

from zarrista.store import FilesystemStore  # noqa: E402  # not before it is known that there is zarrista

patient = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

READING: dict[str, str] = {}
WRITING: dict[str, str] = {}


def read_with_zarrista(store):
    return zarrista.Array.open(FilesystemStore(store.root))


def write_with_zarrista(case, store):
    array = zarrista.Array.from_metadata(case.document, FilesystemStore(store.root))
    array.store_metadata()
    if case.expected[case.written].size:
        array.store_array_subset(case.written or ..., case.values[case.written])


def values_of(array):
    return array[...].to_numpy()


async def test_zarrista_reads_what_azarr_writes(case, folder, known):
    known(READING)
    await case.write(folder)
    array = read_with_zarrista(folder)
    assert tuple(array.shape) == case.shape
    assert array.attrs == case.attributes
    case.check(array[...].to_numpy())


async def test_azarr_reads_what_zarrista_writes(case, folder, known):
    if case.zarr_format == 2:
        pytest.skip("zarrista does not write v2")
    known(WRITING)
    write_with_zarrista(case, folder)
    array = await azarr.open_array(folder)
    case.check_azarr(array)
    case.check(await array.read())
