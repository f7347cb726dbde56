from __future__ import annotations

import asyncio

import pytest

import azarr
from azarr import documents
from azarr.errors import MetadataError, NodeExistsError, StoreError
from azarr.metadata.model import ArrayMetadata, GroupMetadata
from azarr.types import ByteRange, Limits

LIMITS = Limits()
V3_GROUP = b'{"zarr_format": 3, "node_type": "group", "attributes": {"format": 3}}'
V2_GROUP = b'{"zarr_format": 2}'
V2_ARRAY = b'{"zarr_format":2,"shape":[4],"chunks":[2],"dtype":"<i4","compressor":null,"fill_value":0,"order":"C","filters":null}'


class Recording(azarr.MemoryStore):
    """Remembers what it was asked to do."""

    def __init__(self, values=None):
        super().__init__(values)
        self.asked = []

    def get_blocking(self, key, byte_range=None, reserve=None):
        self.asked.append(("get", key, byte_range))
        return super().get_blocking(key, byte_range, reserve)

    def set_blocking(self, key, value):
        self.asked.append(("set", key))
        super().set_blocking(key, value)

    async def erase_prefix(self, prefix):
        self.asked.append(("erase_prefix", prefix))
        await super().erase_prefix(prefix)


@pytest.mark.parametrize(("path", "normal"), [("", ""), ("/", ""), ("a", "a"), ("/a/b/", "a/b"), ("a/b", "a/b")])
def test_slashes_around_a_path_do_not_count(path, normal):
    assert documents.normalize(path) == normal


@pytest.mark.parametrize(
    ("path", "name", "expected"), [("", "a", "a"), ("a", "b", "a/b"), ("a", "/b/c/", "a/b/c"), ("a", "", "a"), ("", "", "")]
)
def test_a_child_is_below(path, name, expected):
    assert documents.child(path, name) == expected


def test_keys_of_documents():
    assert documents.key_of("", "zarr.json") == "zarr.json"
    assert documents.key_of("a/b", ".zarray") == "a/b/.zarray"


# Reading


async def test_where_there_is_no_document_there_is_no_node():
    assert await documents.read(azarr.MemoryStore({"a/c/0": b"x"}), "a", LIMITS) is None


async def test_v3_comes_first_where_both_formats_are_there():
    store = azarr.MemoryStore({"zarr.json": V3_GROUP, ".zgroup": V2_GROUP, ".zattrs": b'{"format": 2}'})
    for zarr_format, expected in ((None, 3), (3, 3), (2, 2)):
        metadata = await documents.read(store, "", LIMITS, zarr_format)
        assert metadata.zarr_format == metadata.attributes["format"] == expected


async def test_a_format_that_is_asked_for_is_the_only_one_looked_at():
    store = Recording({"zarr.json": V3_GROUP})
    assert await documents.read(store, "", LIMITS, 2) is None
    assert {key for _, key, _ in store.asked} == {".zarray", ".zgroup", ".zattrs"}
    store = Recording({".zgroup": V2_GROUP})
    assert await documents.read(store, "", LIMITS, 3) is None
    assert {key for _, key, _ in store.asked} == {"zarr.json"}


async def test_a_broken_v3_document_is_not_passed_over_for_v2():
    store = azarr.MemoryStore({"zarr.json": b"{", ".zgroup": V2_GROUP})
    with pytest.raises(MetadataError):
        await documents.read(store, "", LIMITS)


async def test_a_v2_array_comes_before_a_v2_group():
    store = azarr.MemoryStore({".zarray": V2_ARRAY, ".zgroup": V2_GROUP})
    assert isinstance(await documents.read(store, "", LIMITS), ArrayMetadata)


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_v2_attributes_are_read_with_their_node(zarr_format):
    store = azarr.MemoryStore()
    for metadata in (GroupMetadata(zarr_format, {"a": 1}), GroupMetadata(zarr_format)):
        await documents.create(store, "g", metadata, LIMITS, overwrite=True)
        assert await documents.read(store, "g", LIMITS) == metadata
        assert ("g/.zattrs" in store._values) == (zarr_format == 2 and bool(metadata.attributes))


@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zgroup", ".zattrs"])
async def test_a_document_larger_than_the_limit_is_refused_without_reading_it_all(name):
    limits = Limits(metadata_nbytes=100)
    values = {".zgroup": V2_GROUP} if name == ".zattrs" else {}
    store = Recording({**values, name: b'{"zarr_format": 2, "big": "' + b"x" * 10_000 + b'"}'})
    with pytest.raises(MetadataError, match="101 bytes where 100 are accepted|more than"):
        await documents.read(store, "", limits)
    assert all(byte_range == ByteRange(0, 101) for verb, _, byte_range in store.asked if verb == "get")


async def test_a_document_as_large_as_the_limit_is_read():
    store = azarr.MemoryStore({"zarr.json": V3_GROUP})
    assert await documents.read(store, "", Limits(metadata_nbytes=len(V3_GROUP))) is not None
    with pytest.raises(MetadataError):
        await documents.read(store, "", Limits(metadata_nbytes=len(V3_GROUP) - 1))


@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zgroup", ".zattrs"])
async def test_a_document_that_cannot_be_fetched_is_never_taken_for_missing(faulty_store, name):
    await faulty_store.set(".zgroup", V2_GROUP)
    faulty_store.failing.add(name)
    for store in (faulty_store, azarr.LatencyStore(faulty_store, 0)):
        with pytest.raises(StoreError, match="cannot reach"):
            await documents.read(store, "", LIMITS)


class Slow(azarr.MemoryStore):
    """Fails for one key and never answers for another."""

    async def get(self, key, byte_range=None):
        if key == ".zarray":
            raise StoreError("cannot reach it", key=key)
        if key == ".zgroup":
            await asyncio.get_running_loop().create_future()
        return await super().get(key, byte_range)


async def test_no_request_is_left_behind_when_another_fails():
    for call in (lambda: documents.read(Slow(), "", LIMITS), lambda: documents.exists(Slow(), "")):
        with pytest.raises(StoreError):
            await call()
        assert asyncio.all_tasks() == {asyncio.current_task()}


# Creating


async def test_the_document_that_makes_a_node_exist_is_written_last():
    for zarr_format, last in ((2, "g/.zgroup"), (3, "g/zarr.json")):
        store = Recording()
        await documents.create(store, "g", GroupMetadata(zarr_format, {"a": 1}), LIMITS, overwrite=False)
        assert [key for verb, key, *_ in store.asked if verb == "set"][-1] == last


async def test_groups_above_are_created_in_the_same_format():
    for zarr_format, name in ((2, ".zgroup"), (3, "zarr.json")):
        store = azarr.MemoryStore()
        await documents.create(store, "a/b/c", GroupMetadata(zarr_format), LIMITS, overwrite=False)
        assert sorted(store._values) == sorted([name, f"a/{name}", f"a/b/{name}", f"a/b/c/{name}"])


async def test_groups_above_that_are_there_are_left_alone():
    store = azarr.MemoryStore({"zarr.json": V3_GROUP, "a/.zgroup": V2_GROUP, "a/.zattrs": b'{"kept": true}'})
    await documents.create(store, "a/b", GroupMetadata(3), LIMITS, overwrite=False)
    assert sorted(store._values) == ["a/.zattrs", "a/.zgroup", "a/b/zarr.json", "zarr.json"]
    assert store._values["zarr.json"] == V3_GROUP


@pytest.mark.parametrize("array", ["zarr.json", ".zarray"])
@pytest.mark.parametrize("above", ["", "a", "a/b"])
async def test_an_array_above_is_in_the_way(above, array):
    store = azarr.MemoryStore()
    await azarr.create_array(store, above, shape=4, dtype="i4", zarr_format=3 if array == "zarr.json" else 2)
    before = dict(store._values)
    with pytest.raises(NodeExistsError, match="there is an array at") as caught:
        await documents.create(store, "a/b/c", GroupMetadata(3), LIMITS, overwrite=True)
    assert caught.value.path == above
    assert store._values == before


async def test_what_an_array_above_makes_illegal_is_not_erased_first():
    store = azarr.MemoryStore({"a/.zarray": V2_ARRAY, "a/b/.zgroup": V2_GROUP, "a/b/.zattrs": b"{}"})
    before = dict(store._values)
    with pytest.raises(NodeExistsError):
        await documents.create(store, "a/b", GroupMetadata(3), LIMITS, overwrite=True)
    assert {key: store._values[key] for key in before} == before


@pytest.mark.parametrize("name", ["zarr.json", ".zarray", ".zgroup"])
async def test_a_node_of_any_format_is_in_the_way_even_a_broken_one(name):
    store = azarr.MemoryStore({f"a/{name}": b"broken"})
    with pytest.raises(NodeExistsError, match="'a' already; pass overwrite=True") as caught:
        await documents.create(store, "a", GroupMetadata(3), LIMITS, overwrite=False)
    assert caught.value.path == "a"
    assert store._values == {f"a/{name}": b"broken"}
    await documents.create(store, "a", GroupMetadata(3), LIMITS, overwrite=True)
    assert sorted(store._values) == ["a/zarr.json", "zarr.json"]


async def test_overwriting_erases_what_is_below_and_nothing_beside():
    store = Recording()
    for path in ("a", "a/b", "ab", "c"):
        await documents.create(store, path, GroupMetadata(2, {"path": path}), LIMITS, overwrite=False)
    await documents.create(store, "a", GroupMetadata(3), LIMITS, overwrite=True)
    assert sorted(store._values) == [".zgroup", "a/zarr.json", "ab/.zattrs", "ab/.zgroup", "c/.zattrs", "c/.zgroup"]


@pytest.mark.parametrize("path", ["", "a"])
async def test_overwriting_erases_nothing_where_there_is_no_node(path):
    store = Recording({"a/photo.jpg": b"mine", "other/file": b"mine"})
    await documents.create(store, path, GroupMetadata(3), LIMITS, overwrite=True)
    assert not [verb for verb, *_ in store.asked if verb == "erase_prefix"]
    assert store._values["a/photo.jpg"] == store._values["other/file"] == b"mine"


async def test_overwriting_the_root_erases_all():
    store = azarr.MemoryStore({"zarr.json": V3_GROUP, "a/zarr.json": V3_GROUP, "c/0": b"x"})
    await documents.create(store, "", GroupMetadata(2), LIMITS, overwrite=True)
    assert list(store._values) == [".zgroup"]


@pytest.mark.parametrize(
    ("path", "zarr_format"),
    [("a//b", 3), (".", 3), ("..", 2), ("a/../b", 3), ("...", 3), ("__hidden", 3), ("a/__b", 3), ("zarr.json", 3), ("a/zarr.json", 3)],
)
async def test_illegal_names_are_refused_before_anything_is_erased(path, zarr_format):
    store = azarr.MemoryStore()
    with pytest.raises(MetadataError, match="not a node name") as caught:
        await documents.create(store, path, GroupMetadata(zarr_format), LIMITS, overwrite=True)
    assert caught.value.path == path
    assert store._values == {}


@pytest.mark.parametrize("path", ["a", ".hidden", "a.b", "_a", "a__b", "ä/日本", "with space", "c", "0"])
async def test_legal_names(path):
    store = azarr.MemoryStore()
    await documents.create(store, path, GroupMetadata(3), LIMITS, overwrite=False)
    assert await documents.read(store, path, LIMITS) == GroupMetadata(3)


async def test_what_cannot_be_expressed_costs_nothing_that_is_there():
    store = azarr.MemoryStore({"zarr.json": V3_GROUP})
    with pytest.raises(MetadataError, match="not JSON"):
        await documents.create(store, "", GroupMetadata(3, {"a": object()}), LIMITS, overwrite=True)
    assert store._values == {"zarr.json": V3_GROUP}


async def test_a_store_that_cannot_be_written_to_says_so():
    class ReadOnly:
        async def get(self, key, byte_range=None):
            return None

        def __repr__(self):
            return "<ReadOnly>"

    with pytest.raises(StoreError, match="<ReadOnly> cannot be written to and listed"):
        await documents.create(ReadOnly(), "a", GroupMetadata(3), LIMITS, overwrite=False)
    with pytest.raises(StoreError, match="<ReadOnly> cannot be written to"):
        await documents.change(ReadOnly(), "a", "zarr.json", lambda _, members: members, LIMITS, GroupMetadata(3))


async def test_of_many_that_create_one_node_one_succeeds():
    store = azarr.LatencyStore(azarr.MemoryStore(), 0)
    creations = [documents.create(store, "a", GroupMetadata(3, {"by": number}), LIMITS, overwrite=False) for number in range(10)]
    outcomes = await asyncio.gather(*creations, return_exceptions=True)
    winners = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, Exception)]
    assert len(winners) == 1
    assert {type(outcome) for outcome in outcomes if isinstance(outcome, Exception)} == {NodeExistsError}
    assert (await documents.read(store, "a", LIMITS)).attributes == {"by": winners[0]}


class Paused(azarr.MemoryStore):
    """Waits, before it sets a key, until somebody says go."""

    def __init__(self, key):
        super().__init__()
        self.key, self.reached, self.go = key, asyncio.Event(), asyncio.Event()

    async def set(self, key, value):
        await self._pause(key)
        await super().set(key, value)

    async def set_if(self, key, value, version):
        await self._pause(key)
        await super().set_if(key, value, version)

    async def _pause(self, key):
        if key == self.key and not self.reached.is_set():
            self.reached.set()
            await self.go.wait()


async def test_a_group_that_is_created_meanwhile_is_not_replaced_by_an_empty_one():
    store = Paused("a/zarr.json")
    below = asyncio.create_task(documents.create(store, "a/b", GroupMetadata(3), LIMITS, overwrite=False))
    await store.reached.wait()
    above = asyncio.create_task(documents.create(store, "a", GroupMetadata(3, {"kept": True}), LIMITS, overwrite=True))
    for _ in range(20):  # as far as it gets
        await asyncio.sleep(0)
    store.go.set()
    await asyncio.gather(below, above)
    assert (await documents.read(store, "a", LIMITS)).attributes == {"kept": True}


@pytest.mark.parametrize("zarr_format", [2, 3])
async def test_of_two_processes_that_create_a_node_one_succeeds(elsewhere, zarr_format):
    for seed in range(20):
        inner = azarr.MemoryStore()
        stores = [elsewhere(inner, seed=seed + number, jitter=0.001) for number in range(4)]
        creating = [
            documents.create(store, "a/b", GroupMetadata(zarr_format, {"by": number}), LIMITS, overwrite=False)
            for number, store in enumerate(stores)
        ]
        outcomes = await asyncio.gather(*creating, return_exceptions=True)
        winners = [number for number, outcome in enumerate(outcomes) if not isinstance(outcome, BaseException)]
        assert len(winners) == 1
        assert {type(outcome) for outcome in outcomes if isinstance(outcome, BaseException)} == {NodeExistsError}
        if zarr_format == 3:
            assert (await documents.read(inner, "a/b", LIMITS)).attributes == {"by": winners[0]}
        assert await documents.read(inner, "a", LIMITS) == GroupMetadata(zarr_format)


@pytest.mark.parametrize("wrap", [lambda store: store, lambda store: azarr.LatencyStore(store, 0)], ids=["blocking", "awaited"])
@pytest.mark.parametrize("overwrite", [False, True])
async def test_attributes_that_a_creation_left_behind_when_it_crashed_are_nobodys(wrap, overwrite):
    inner = azarr.MemoryStore({".zattrs": b'{"stray": 0}', "a/.zattrs": b'{"stray": 1}', "a/g/.zattrs": b'{"stray": 2}'})
    store = wrap(inner)
    group = await azarr.create_group(store, "a/g", zarr_format=2, overwrite=overwrite)
    assert dict(group.attrs) == dict((await azarr.open_group(store, "a/g", use_consolidated=False)).attrs) == {}
    assert dict((await azarr.open_group(store, "a")).attrs) == dict((await azarr.open_group(store)).attrs) == {}
    await inner.set("x/.zattrs", b'{"stray": 3}')
    await azarr.create_array(store, "x", shape=4, dtype="i4", zarr_format=2, overwrite=overwrite)
    assert dict((await azarr.open_array(store, "x")).attrs) == {}
    await inner.set("y/.zattrs", b'{"stray": 4}')
    await azarr.create_hierarchy(store, {"y": {"shape": 4, "dtype": "i4"}}, zarr_format=2, overwrite=overwrite)
    assert dict((await azarr.open_array(store, "y")).attrs) == {}


async def test_attributes_of_v2_are_left_alone_by_a_node_of_v3_beside_them():
    store = azarr.MemoryStore({".zgroup": V2_GROUP, ".zattrs": b'{"kept": true}', "a/.zattrs": b'{"kept": true}'})
    await azarr.create_group(store, "a", zarr_format=3)
    assert store._values[".zattrs"] == store._values["a/.zattrs"] == b'{"kept": true}'
