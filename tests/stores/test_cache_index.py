from __future__ import annotations

import pytest

from azarr.stores.cache_index import ENTRY_NBYTES, CacheIndex, Kept, name_of, parsed
from azarr.types import ByteRange, Suffix


def kept(name, nbytes=0, mark="1", checked=0.0):
    return Kept(name, nbytes, mark, checked)


def test_a_whole_value_answers_for_its_parts():
    index = CacheIndex(10_000)
    index.put("a", None, kept("whole"))
    assert index.find("a", None) == (kept("whole"), None, None)
    assert index.find("a", ByteRange(0, 5)) == (kept("whole"), None, ByteRange(0, 5))
    index.put("a", ByteRange(0, 5), kept("part"))
    assert index.find("a", ByteRange(0, 5)) == (kept("part"), ByteRange(0, 5), None)
    assert index.find("b", None) is None


def test_what_was_asked_for_longest_ago_makes_room():
    index = CacheIndex(3 * (ENTRY_NBYTES + 100))
    for key in "abc":
        index.put(key, None, kept(key, 100))
    index.find("a", None)
    index.put("d", None, kept("d", 100))
    assert [index.find(key, None) is not None for key in "abcd"] == [True, False, True, True]
    assert (index.garbage, index.evictions, len(index), index.nbytes) == ({"b"}, 1, 3, index.limit)


def test_what_is_too_large_is_not_kept():
    index = CacheIndex(1000)
    index.put("a", None, kept("a", 100))
    index.put("b", None, kept("b", 1000))
    assert index.find("b", None) is None
    assert index.find("a", None) is not None
    assert (index.garbage, index.nbytes) == ({"b"}, 100 + ENTRY_NBYTES)


def test_what_is_replaced_is_garbage():
    index = CacheIndex(10_000)
    index.put("a", None, kept("old", 10))
    index.put("a", None, kept("new", 20))
    assert (index.garbage, index.nbytes) == ({"old"}, 20 + ENTRY_NBYTES)


def test_parts_of_other_versions_go():
    index = CacheIndex(10_000)
    for number, mark in enumerate("1121"):
        index.put("a", ByteRange(number, number + 1), kept(f"{number}", 1, mark))
    index.put("b", None, kept("b", 1, "1"))
    assert index.garbage == {"0", "1", "2"}
    assert len(index) == 2


def test_parts_with_other_stamps_go():
    index = CacheIndex(10_000)
    for number, stamp in enumerate((None, "x", "x", None)):
        index.put("a", ByteRange(number, number + 1), kept(f"{number}", 1)._replace(stamp=stamp))
    assert index.garbage == set()
    index.put("a", ByteRange(9, 10), kept("9", 1)._replace(stamp="y"))
    assert index.garbage == {"1", "2"}


def test_what_is_forgotten_is_garbage():
    index = CacheIndex(10_000)
    for key in ("a/b", "a/c", "ab"):
        for part in (None, Suffix(1)):
            index.put(key, part, kept(f"{key}:{part}", 1))
    index.put("a/d", None, kept(None))
    index.forget("a/b")
    index.forget("x")
    assert index.garbage == {"a/b:None", f"a/b:{Suffix(1)}"}
    index.forget_below("a/")
    assert len(index.garbage) == 4
    assert (len(index), index.nbytes) == (2, 2 * (ENTRY_NBYTES + 1))


def test_what_is_checked_stays_where_it_is():
    index = CacheIndex(10_000)
    index.put("a", None, first := kept("a"))
    index.checked("a", None, first, 5.0)
    assert index.find("a", None)[0].checked == 5.0
    index.put("a", None, kept("b"))
    index.checked("a", None, first, 6.0)
    assert index.find("a", None)[0] == kept("b")


@pytest.mark.parametrize("part", [None, ByteRange(3, 7), ByteRange(3), Suffix(9)])
@pytest.mark.parametrize("key", ["a", "a/b/c", "a/~all-1-0-ab.1", "温度\n/x"])
def test_names_say_what_they_stand_for(key, part):
    name = "folder/" + name_of(key, part, 12, "0a", "abcd.3")
    assert parsed([name], "folder/", "ffff") == [(key, part, Kept(name, 12, "0a", float("-inf"), "0a"))]
    assert parsed([name.replace("-0a-", "-0-")], "folder/", "ffff")[0][2].stamp is None
    assert parsed([name], "folder/", "abcd") == []


def test_other_names_are_left_aside():
    assert parsed(["folder/a", "folder/~all-1-0-ab.1", "folder/a/~some-1-0-ab.1", "folder/a/~all-x-0-ab.1"], "folder/", "ffff") == []
