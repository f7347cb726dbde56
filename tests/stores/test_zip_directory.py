"""Archives that lie: whatever they say, errors are those of a store, and memory stays within what was promised."""

from __future__ import annotations

import io
import tracemalloc
import warnings
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azarr.errors import StoreError
from azarr.stores.memory import MemoryStore
from azarr.stores.zip import ZipStore
from azarr.stores.zip_directory import END, RECORD
from azarr.stores.zip_records import HEADER
from azarr.stores.zipped import ZippedStore
from azarr.testing.values import VALUE, collect, read


@pytest.fixture(params=["file", "value"])
def opened(request, tmp_path):
    """From the bytes of an archive to a store, either of a local file or of a value of another store."""

    def opened(data, **options):
        if request.param == "value":
            return ZippedStore(MemoryStore({"x.zip": data}), "x.zip", **options)
        path = tmp_path / "x.zip"
        path.write_bytes(data)
        return ZipStore(path, **options)

    return opened


def archive(values, method=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as target, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # names that come twice are meant
        for name, value in values:
            target.writestr(zipfile.ZipInfo(name), value, method)
    return buffer.getvalue()


def patched(data, struct, signature, field, value):
    """``data`` with another number in the last structure that has this signature."""
    at = data.rindex(signature)
    fields = list(struct.unpack_from(data, at))
    fields[field] = value
    return data[:at] + struct.pack(*fields) + data[at + struct.size :]


def record(data, field, value):
    return patched(data, RECORD, b"PK\1\2", field, value)


def header(data, field, value):
    return patched(data, HEADER, b"PK\3\4", field, value)


def end(data, field, value):
    return patched(data, END, b"PK\5\6", field, value)


async def refused(store, match, key="a"):
    with pytest.raises(StoreError, match=match) as caught:
        await store.get(key)
    assert type(caught.value) is StoreError


async def test_the_last_of_several_entries_with_one_name_counts(opened):
    store = opened(archive([("a", b"first"), ("b", b"1"), ("a", b"last")]))
    assert await read(store, "a") == b"last"
    assert await collect(store.list_prefix()) == ["a", "b"]


async def test_entries_for_folders_are_no_keys(opened):
    store = opened(archive([("a/", b""), ("a/b", VALUE), ("../", b""), ("/", b"")]))
    assert await collect(store.list_prefix()) == ["a/b"]
    assert await store.get("a") is None


@pytest.mark.parametrize("name", ["../a", "/etc/passwd", "a/../../b", "..", "a\\b", "..\\a", "a//b", "./a", "C:/a", "c:"])
async def test_names_that_leave_the_archive_are_refused(opened, name):
    placeholder = "x" * len(name)
    data = archive([("a", VALUE), (placeholder, b"")]).replace(placeholder.encode(), name.encode())
    await refused(opened(data), "is not a key")


async def test_a_name_with_nul_is_refused(opened):
    await refused(opened(archive([("a", VALUE), ("a?b", b"")]).replace(b"a?b", b"a\0b")), "is not a key")


async def test_a_name_that_is_not_utf8_is_refused(opened):
    data = archive([("a", VALUE), ("ü", b"")]).replace("ü".encode(), b"\xff\xff")
    await refused(opened(data), "is not text")


async def test_names_in_an_old_code_page(opened):
    data = archive([("a?b", VALUE)]).replace(b"a?b", b"a\x81b")
    assert await read(opened(data), "aüb") == VALUE


async def test_a_comment_that_looks_like_an_end(opened):
    buffer = io.BytesIO(archive([("a", VALUE)]))
    with zipfile.ZipFile(buffer, "a") as target:
        target.comment = b"..PK\5\6" + bytes(30)
    assert await read(opened(buffer.getvalue()), "a") == VALUE


async def test_the_longest_comment(opened):
    buffer = io.BytesIO(archive([("a", VALUE)]))
    with zipfile.ZipFile(buffer, "a") as target:
        target.comment = b"c" * 0xFFFF
    assert await read(opened(buffer.getvalue()), "a") == VALUE


async def test_data_descriptors(opened):
    class Unseekable(io.RawIOBase):
        def __init__(self):
            self.data = b""

        def writable(self):
            return True

        def write(self, piece):
            self.data += bytes(piece)
            return len(piece)

    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        target = Unseekable()
        with zipfile.ZipFile(target, "w", method) as made:
            made.writestr("a", VALUE)
            made.writestr("b", VALUE * 2)
        assert b"PK\7\x08" in target.data
        store = opened(target.data)
        assert await read(store, "a") == VALUE
        assert await read(store, "b") == VALUE * 2


@pytest.mark.parametrize("data", [b"", b"PK", b"PK\5\6", bytes(1000), b"PK\3\4" + bytes(200_000)])
async def test_what_is_no_archive(opened, data):
    await refused(opened(data), "no zip archive")


async def test_cut_off_anywhere(opened):
    data = archive([("a", VALUE), ("b", VALUE)], zipfile.ZIP_DEFLATED)
    for length in range(0, len(data), 7):
        await refused(opened(data[:length]), "no zip archive")


async def test_encrypted_entries(opened):
    await refused(opened(record(archive([("a", VALUE)]), 3, 1)), "encrypted.*without a password")


@pytest.mark.parametrize(("method", "name"), [(zipfile.ZIP_BZIP2, "bzip2"), (zipfile.ZIP_LZMA, "lzma")])
async def test_methods_that_azarr_does_not_read(opened, method, name):
    store = opened(archive([("a", VALUE)], method))
    await refused(store, f"compressed with {name}")
    assert await collect(store.list_prefix()) == ["a"]


async def test_a_method_without_a_name(opened):
    await refused(opened(record(archive([("a", VALUE)]), 4, 77)), "method 77")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_wrong_checksum(opened, method):
    store = opened(record(archive([("a", VALUE)], method), 7, 1))
    await refused(store, "damaged.*checksum")
    if isinstance(store, ZipStore):
        with pytest.raises(StoreError, match="checksum"):
            store.get_into("a", memoryview(bytearray(300)))


@pytest.mark.parametrize("size", [255, 257, 100_000, 2**32 - 2])
@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
async def test_a_size_that_is_not_the_real_one(opened, method, size):
    await refused(opened(record(archive([("a", VALUE)], method), 9, size)), "damaged|limit")


async def test_stored_bytes_beyond_the_directory(opened):
    data = record(record(archive([("a", VALUE)]), 8, 400), 9, 400)
    await refused(opened(data), "does not fit")


async def test_an_offset_where_no_entry_begins(opened):
    await refused(opened(record(archive([("a", VALUE), ("b", b"1")]), 16, 40)), "overlap|no entry begins", key="b")
    await refused(opened(record(archive([("a", VALUE), ("b", b"1")]), 16, 2**32 - 2)), "does not fit", key="b")


async def test_entries_that_share_their_bytes(opened):
    data = record(archive([("a", VALUE), ("b", VALUE)]), 16, 0)
    await refused(opened(data), "overlap")


async def test_a_header_that_contradicts_the_directory(opened):
    await refused(opened(header(archive([("a", VALUE)]), 3, 8)), "contradicts")
    await refused(opened(header(archive([("a", VALUE)]), -1, 5000)), "damaged")


@pytest.mark.parametrize(("field", "value", "match"), [
    (3, 5, "5 at its end"),
    (4, 5, "5 at its end"),
    (5, 10, "no zip archive|damaged|cut off|does not fit"),
    (5, 2**31, "limit of"),
    (5, 2**20, "does not fit"),
    (6, 2**20, "does not fit"),
    (1, 1, "one part of several"),
    (7, 1, "no zip archive"),
])  # fmt: skip
async def test_an_end_that_lies(opened, field, value, match):
    if field == 3:  # of the two counts the one of this part does not matter
        assert await read(opened(end(archive([("a", VALUE)]), field, value)), "a") == VALUE
    else:
        await refused(opened(end(archive([("a", VALUE)]), field, value)), match)


async def test_a_name_that_reaches_beyond_the_directory(opened):
    await refused(opened(record(archive([("a", VALUE)]), 10, 5000)), "cut off")


async def test_the_limit_of_the_directory(opened):
    data = archive([(f"a{i}", b"") for i in range(100)])
    await refused(opened(data, directory_nbytes=1000), "limit of 1000 .*directory_nbytes")


async def test_the_limit_of_values(opened):
    store = opened(archive([("a", VALUE), ("b", VALUE[:100])]), value_nbytes=100)
    await refused(store, "limit of 100 .*value_nbytes")
    assert await read(store, "b") == VALUE[:100]


@pytest.mark.parametrize("declared", [10, 2**20, 2**28])
async def test_a_bomb_costs_what_it_declares_at_most(opened, declared):
    deflated = archive([("a", bytes(2**26))], zipfile.ZIP_DEFLATED)
    store = opened(record(deflated, 9, declared), value_nbytes=2**24)
    tracemalloc.start()
    try:
        await refused(store, "damaged|limit")
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()


async def test_zip64_without_its_record(opened):
    data = archive([("a", VALUE)])
    at = data.rindex(b"PK\5\6")
    await refused(opened(data[:at] + b"PK\6\7" + bytes(16) + data[at:]), "zip64")


def test_what_info_zip_says_of_names(tmp_path):
    raw, name = b"a\x81", "ä温"
    field = b"\1" + zlib.crc32(raw).to_bytes(4, "little") + name.encode()
    info = zipfile.ZipInfo("a?")
    info.extra = (0x7075).to_bytes(2, "little") + len(field).to_bytes(2, "little") + field
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as target:
        target.writestr(info, VALUE)
    path = tmp_path / "x.zip"
    path.write_bytes(buffer.getvalue().replace(b"a?", raw))
    assert ZipStore(path).get_blocking(name) == VALUE
    path.write_bytes(buffer.getvalue().replace(b"a?", b"zz"))  # the name was changed by one who did not know of the other one
    assert ZipStore(path).get_blocking("zz") == VALUE


@given(st.data())
def test_whatever_is_damaged_is_an_error_of_the_store_or_none(tmp_path_factory, data):
    good = archive([("zarr.json", VALUE), ("c/0", bytes(1000)), ("c/1", b"x")], data.draw(st.sampled_from([0, 8])))
    bad = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        bad[data.draw(st.integers(0, len(bad) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.zip"
    path.write_bytes(bad)
    store = ZipStore(path)
    for key in ("zarr.json", "c/0", "c/1"):
        try:
            store.get_blocking(key)
            store.get_into(key, memoryview(bytearray(2000)))
        except StoreError:
            pass
