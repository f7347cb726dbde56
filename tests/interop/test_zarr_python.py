"""azarr and zarr-python read what the other has written, change it in turn, and mean the same by their documents."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import azarr

zarr = pytest.importorskip("zarr", minversion="3.4", reason="needs zarr 3.4 or later; 'nox -s interop' installs it and runs these tests")

import numcodecs  # noqa: E402  # not before it is known that there is zarr
from zarr.codecs import numcodecs as numcodecs_in_v3  # noqa: E402
from zarr.core.buffer import default_buffer_prototype  # noqa: E402
from zarr.core.buffer.cpu import Buffer  # noqa: E402
from zarr.core.sync import sync  # noqa: E402
from zarr.testing import strategies as zarr_strategies  # noqa: E402

pytestmark = [
    # zarr-python advises against compressors around shards, which are legal
    pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed` codec disables partial reads:UserWarning"),
    # what it says of the codecs whose names begin with "numcodecs."
    pytest.mark.filterwarnings("ignore:Numcodecs codecs are not in the Zarr version 3 specification:UserWarning"),
]

patient = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])

# What zarr-python gets wrong, by case. A test that stops failing says so.
LOSES_PAYLOAD = "zarr-python reads a float16 fill value through a Python float and loses the payload of a NaN"
FORGETS_PAYLOAD = "zarr-python writes every NaN fill value as 'NaN' and loses its payload"
MISJUDGES_SHARD = "zarr-python compares the inner chunks with the shard as it was before the transpose codec, and refuses"
READING = {"fill-v3-fill-payload-float16": LOSES_PAYLOAD, "shards-v3-transposed-shard": MISJUDGES_SHARD}
REWRITING = {
    "fill-v3-fill-payload-float16": FORGETS_PAYLOAD,
    "fill-v3-fill-payload-float32": FORGETS_PAYLOAD,
    "fill-v3-fill-payload-float64": FORGETS_PAYLOAD,
    "shards-v3-transposed-shard": MISJUDGES_SHARD,
}
WRITING = {**REWRITING, "rest-v3-names-0d": "zarr-python leaves out the dimension names of arrays without dimensions"}


async def zarr_store(store):
    """zarr-python's store for the same folder, or a copy of a store in memory."""
    if isinstance(store, azarr.LocalStore):
        return zarr.storage.LocalStore(store.root)
    return zarr.storage.MemoryStore({key: Buffer.from_bytes(bytes(await store.get(key))) async for key in store.list_prefix()})


def azarr_store(store):
    """A copy of zarr-python's store in memory."""

    async def content():
        return {key: (await store.get(key, default_buffer_prototype())).to_bytes() async for key in store.list()}

    return azarr.MemoryStore(sync(content()))


async def open_with_zarr(store, path=None):
    return zarr.open_array(await zarr_store(store), path=path, mode="r+")


def create_with_zarr(case, store, name=None):
    """The array of a case, created by zarr-python and with nothing written."""
    if case.zarr_format == 2:
        options = {"chunks": case.chunks, "filters": None, "compressors": case.compressors[0] if case.compressors else None}
        options["order"] = case.order
    elif case.needs_sharding_codec:
        options = {"chunks": case.shards, "serializer": case.sharding, "compressors": None}
    else:
        shards = None if case.shards is None else {"shape": case.shards, "index_location": case.index_location}
        options = {"chunks": case.chunks, "shards": shards, "filters": case.filters or None, "serializer": case.bytes_codec}
        options["compressors"] = list(case.compressors) or None
    key_encoding, separator = case.keys
    return zarr.create_array(
        store,
        name=name,
        shape=case.shape,
        dtype=case.stored if case.zarr_format == 2 else case.native,
        fill_value=case.fill,
        dimension_names=case.dimension_names,
        chunk_key_encoding={"name": key_encoding, "separator": separator},
        attributes=dict(case.attributes),
        zarr_format=case.zarr_format,
        **options,
    )


def write_with_zarr(case, store, name=None):
    array = create_with_zarr(case, store, name)
    array[case.written] = case.values[case.written]
    return array


def check_zarr(case, array):
    """Fail unless zarr-python says of ``array`` what the case says."""
    assert (array.shape, array.dtype.newbyteorder("="), array.chunks, array.shards) == (case.shape, case.native, case.chunks, case.shards)
    assert array.metadata.zarr_format == case.zarr_format
    case.check(np.asarray(array.fill_value, case.native), np.asarray(case.fill))
    assert dict(array.attrs) == case.attributes
    if case.zarr_format == 3:
        assert array.metadata.dimension_names == case.dimension_names
        assert (array.metadata.chunk_key_encoding.name, array.metadata.chunk_key_encoding.separator) == case.keys
    else:
        assert array.metadata.order == case.order
        assert array.metadata.dimension_separator == case.keys[1]


# Every case, both ways


async def test_zarr_python_reads_what_azarr_writes(case, folder, known):
    known(READING)
    await case.write(folder)
    array = await open_with_zarr(folder)
    check_zarr(case, array)
    case.check(array[...])


async def test_azarr_reads_what_zarr_python_writes(case, folder, known):
    known(WRITING)
    write_with_zarr(case, await zarr_store(folder))
    array = await azarr.open_array(folder)
    case.check_azarr(array)
    case.check(await array.read())


async def test_each_changes_what_the_other_has_written(fewer, folder, known):
    case = fewer
    known(READING)
    ours, theirs = await case.write(folder), await open_with_zarr(folder)
    (first, left), (second, right) = case.updates
    expected = case.expected.copy()
    expected[first] = left
    theirs[first] = left
    case.check(await ours.read(), expected)
    expected[second] = right
    await ours[second].write(right)
    case.check(theirs[...], expected)


async def test_zarr_python_means_the_same_by_a_document_that_azarr_has_rewritten(fewer, known):
    case = fewer
    known({"shards-v3-transposed-shard": MISJUDGES_SHARD})
    created = zarr.storage.MemoryStore()
    before = create_with_zarr(case, created).metadata.to_dict()
    array = await azarr.open_array(azarr_store(created))
    await array.update_attributes({"added": [1, None]})
    after = (await open_with_zarr(array.store)).metadata.to_dict()
    assert after.pop("attributes") == {**before.pop("attributes"), "added": [1, None]}
    case.check_documents(after, before)


async def test_azarr_means_the_same_by_a_document_that_zarr_python_has_rewritten(fewer, folder, known):
    case = fewer
    known(REWRITING)
    array = await case.create(folder)
    (await open_with_zarr(folder)).update_attributes({"added": [1, None]})
    expected = array.metadata.with_attributes({**case.attributes, "added": [1, None]})
    assert (await azarr.open_array(folder)).metadata == expected


# Single features


@pytest.mark.parametrize("dtype", ["bool", "int16", "float32", "complex64"])
async def test_an_undefined_fill_value_of_v2_reads_as_zero_and_stays_undefined(make_case, dtype):
    case = make_case(zarr_format=2, dtype=dtype)
    theirs = zarr.storage.MemoryStore()
    zarr.create_array(theirs, shape=case.shape, chunks=case.chunks, dtype=dtype, fill_value=None, zarr_format=2)
    array = await azarr.open_array(azarr_store(theirs))
    case.check(await array.read(), np.zeros(case.shape, dtype))
    await array.update_attributes({"a": 1})
    assert (await open_with_zarr(array.store)).metadata.fill_value is None


@pytest.mark.parametrize("dtype", ["M8[s]", "m8[ns]", [("t", "M8[s]"), ("n", "i4")]])
async def test_undefined_times_of_v2_are_those_that_zarr_python_leaves_out(dtype):
    theirs = zarr.storage.MemoryStore()
    array = zarr.create_array(theirs, shape=6, chunks=2, dtype=np.dtype(dtype), fill_value=None, zarr_format=2)
    values = np.zeros(6, dtype)
    if not values.dtype.names:
        values[:4] = "NaT"
    array[...] = values
    store = azarr_store(theirs)
    assert not [key async for key in store.list_prefix() if key in {"0", "1"}]
    np.testing.assert_array_equal(await azarr.load(store), values)
    ours = await azarr.open_array(store)
    await ours.write(values[::-1])
    np.testing.assert_array_equal((await open_with_zarr(store))[...], values[::-1])


@pytest.mark.parametrize("name", ["Zlib", "BZ2", "LZ4", "GZip", "Zstd"])
async def test_codecs_of_v2_in_v3(name, make_case, folder):
    case = make_case(shape=(40, 50), chunks=(16, 32), dtype="float32")
    theirs = zarr.create_array(
        await zarr_store(folder),
        name="a",
        shape=case.shape,
        chunks=case.chunks,
        dtype=case.native,
        compressors=getattr(numcodecs_in_v3, name)(),
    )
    theirs[...] = case.values
    array = await azarr.open_array(folder, "a")
    case.check(await array.read())
    copy = await azarr.create_array(folder, "b", like=array)
    await copy.write(case.values)
    case.check((await open_with_zarr(folder, "b"))[...])


async def test_v2_filters_that_turn_bytes_into_bytes(make_case):
    case = make_case(zarr_format=2, shape=(9, 10), chunks=(4, 5), dtype="float64", endian="big")
    filters = [numcodecs.Zlib(1), numcodecs.BZ2(1)]
    theirs = zarr.storage.MemoryStore()
    array = zarr.create_array(
        theirs, shape=case.shape, chunks=case.chunks, dtype=case.stored, filters=filters, compressors=numcodecs.GZip(1), zarr_format=2
    )
    array[...] = case.values
    case.check(await (await azarr.open_array(azarr_store(theirs))).read())


@pytest.mark.parametrize("write_empty", [True, False])
@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_chunks_of_fill_value_may_be_stored_or_not(write_empty, zarr_format, make_case):
    case = make_case(zarr_format=zarr_format, dtype="float32", fill_value=np.nan, shards=(4, 6) if zarr_format == 3 else None)
    theirs = zarr.storage.MemoryStore()
    with zarr.config.set({"array.write_empty_chunks": write_empty}):
        create_with_zarr(case, theirs)[...] = np.nan
    store = azarr_store(theirs)
    chunks = [key async for key in store.list_prefix() if key[0] not in "z."]
    assert bool(chunks) is write_empty
    case.check(await (await azarr.open_array(store)).read(), np.full(case.shape, np.float32(np.nan)))


# Groups


def tree_of_zarr(group):
    return {
        path: dict(node.attrs) if isinstance(node, zarr.Group) else (node.shape, dict(node.attrs))
        for path, node in group.members(max_depth=None)
    }


async def tree_of_azarr(group, prefix=""):
    tree = {}
    async for name, node in group.members():
        if isinstance(node, azarr.AsyncGroup):
            tree |= {f"{prefix}{name}": dict(node.attrs), **await tree_of_azarr(node, f"{prefix}{name}/")}
        else:
            tree[f"{prefix}{name}"] = node.shape, dict(node.attrs)
    return tree


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_both_fill_one_hierarchy(zarr_format, make_case, tmp_path):
    case = make_case(zarr_format=zarr_format, attributes={"a": "ä"})
    ours = await azarr.create_group(tmp_path, attributes={"title": "both", "none": None}, zarr_format=zarr_format)
    await case.write(tmp_path, "ours/deep/down")  # groups above it come by themselves
    store = zarr.storage.LocalStore(tmp_path)
    theirs = zarr.open_group(store, mode="r+")
    assert theirs.metadata.zarr_format == zarr_format
    theirs.create_group("theirs", attributes={"from": "zarr"})
    write_with_zarr(case, store, "theirs/array")
    write_with_zarr(case, store, "ours/beside")
    await case.write(tmp_path, "theirs/too")
    await (await ours.open_group("ours")).update_attributes({"from": "azarr"})
    theirs["ours"].update_attributes({"also": [1]})

    array = (case.shape, case.attributes)
    expected = {
        "ours": {"from": "azarr", "also": [1]},
        "ours/beside": array,
        "ours/deep": {},
        "ours/deep/down": array,
        "theirs": {"from": "zarr"},
        "theirs/array": array,
        "theirs/too": array,
    }
    assert dict(theirs.attrs) == dict((await azarr.open_group(tmp_path)).attrs) == {"title": "both", "none": None}
    assert tree_of_zarr(theirs) == expected
    assert await tree_of_azarr(ours) == expected
    for path in ("ours/beside", "ours/deep/down", "theirs/array", "theirs/too"):
        case.check(theirs[path][...])
        case.check(await (await ours.open_array(path)).read())


async def test_a_hierarchy_of_both_formats(make_case, tmp_path):
    await azarr.create_group(tmp_path)
    old, new = make_case(zarr_format=2), make_case(zarr_format=3)
    await old.write(tmp_path, "old")
    write_with_zarr(new, zarr.storage.LocalStore(tmp_path), "new")
    array = await azarr.open_array(tmp_path, "old")
    assert array.metadata.zarr_format == 2
    old.check(await array.read())
    old.check((await open_with_zarr(azarr.LocalStore(tmp_path), "old"))[...])
    assert [name async for name, _ in (await azarr.open_group(tmp_path)).members()] == ["new", "old"]


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part in the Zarr format 3 specification:UserWarning")
@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_consolidated_metadata_is_no_obstacle_and_stays(zarr_format, make_case, tmp_path):
    case = make_case(zarr_format=zarr_format)
    group = await azarr.create_group(tmp_path, attributes={"a": 1}, zarr_format=zarr_format)
    await case.write(tmp_path, "x/y")
    store = zarr.storage.LocalStore(tmp_path)
    zarr.consolidate_metadata(store)
    group = await azarr.open_group(tmp_path)
    assert await tree_of_azarr(group) == {"x": {}, "x/y": (case.shape, {})}
    await (await group.open_group("x")).update_attributes({"b": 2})
    theirs = zarr.open_consolidated(store)
    assert sorted(theirs.metadata.consolidated_metadata.flattened_metadata) == ["x", "x/y"]
    case.check(theirs["x/y"][...])


# Random arrays


@patient
@given(data=st.data())
async def test_zarr_python_reads_random_arrays_of_azarr(data, cases):
    case = data.draw(cases())
    store = azarr.MemoryStore()
    await case.write(store)
    array = await open_with_zarr(store)
    check_zarr(case, array)
    case.check(array[...])


@patient
@given(data=st.data())
async def test_azarr_reads_random_arrays_of_zarr_python(data, cases):
    case = data.draw(cases().filter(lambda case: case.dimension_names != ()))  # which zarr-python does not write
    store = zarr.storage.MemoryStore()
    write_with_zarr(case, store)
    array = await azarr.open_array(azarr_store(store))
    case.check_azarr(array)
    case.check(await array.read())


# zarr-python's own strategies make text, times and durations, too. Chunks of different lengths have tests of their own.


# what zarr-python says of the data types that have no specification in v3
@pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification:FutureWarning")
@patient
@given(theirs=zarr_strategies.arrays(zarr_formats=st.sampled_from([2, 3])), data=st.data())
async def test_azarr_reads_arrays_of_zarr_pythons_strategies(theirs, data, basic_keys):
    array = await azarr.open_array(azarr_store(theirs.store), theirs.path)
    assert (array.shape, array.chunks, array.shards) == (theirs.shape, theirs.chunks, theirs.shards)
    assert dict(array.attrs) == dict(theirs.attrs)
    expected = np.asarray(theirs[...])
    np.testing.assert_array_equal(await array.read(), expected, strict=True)
    selection = data.draw(basic_keys(theirs.shape))
    np.testing.assert_array_equal(await array[selection], expected[selection])
