"""Registries: who has a name, who may take it, and how it is given back."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from azarr.errors import RegistrationError
from azarr.registry import OWN, Entry, Registry, callable_of


@pytest.fixture
def registry():
    """A registry of functions, with one of its own that has two names."""
    return Registry("thing", (Entry(("own", "mine"), len, OWN),), ("azarr.tests.nothing",), callable_of("a function"))


def test_a_name_leads_to_what_is_registered_until_it_is_undone(registry):
    registration = registry.register("a", max, aliases=["b"])
    assert registry.get("a") is registry.get("b") is max
    assert registry.names == ("own", "mine", "a", "b")
    registration.undo()
    assert registry.get("a") is registry.get("b") is None
    registration.undo()
    assert registry.names == ("own", "mine")


def test_an_entry_says_where_it_comes_from(registry):
    with registry.register("a", test_an_entry_says_where_it_comes_from, aliases=["b"]):
        own, added = registry.entries
        assert (own.names, own.source) == (("own", "mine"), "azarr")
        assert (added.names, added.source) == (("a", "b"), __name__)


def test_entries_may_be_objects_that_are_equal_and_have_no_hash(registry):
    class Function:
        __hash__ = None

        def __eq__(self, other):
            return True

        def __call__(self):
            """Nothing."""

    with registry.register("a", Function(), aliases=["b"]), registry.register("c", Function()):
        assert [entry.names for entry in registry.entries] == [("own", "mine"), ("a", "b"), ("c",)]


@pytest.mark.parametrize("names", [("own",), ("mine",), ("free", "mine"), ("taken",), ("free", "taken")])
def test_nothing_is_replaced_silently(registry, names):
    with registry.register("taken", min):
        before = registry.names
        with pytest.raises(RegistrationError, match=r"the thing '(own|mine|taken)' is that of \w+ already .*pass replace=True") as caught:
            registry.register(names[0], max, aliases=names[1:])
        assert caught.value.name == names[-1]
        assert registry.names == before
        assert registry.get(names[-1]) in {len, min}


def test_what_was_replaced_comes_back_whatever_the_order_of_undoing(registry):
    first = registry.register("own", min, replace=True)
    second = registry.register("own", max, replace=True)
    assert registry.get("own") is max
    assert registry.get("mine") is len
    assert [entry.names for entry in registry.entries] == [("own",), ("mine",)]
    first.undo()
    assert registry.get("own") is max
    second.undo()
    assert registry.get("own") is len


@pytest.mark.parametrize("name", ["", None, 1, b"a"])
def test_names_are_strings(registry, name):
    with pytest.raises(TypeError, match="names of a thing must be strings"):
        registry.register(name, max)
    with pytest.raises(TypeError, match="names of a thing must be strings"):
        registry.register("a", max, aliases=[name])


def test_what_cannot_be_an_entry_is_refused(registry):
    with pytest.raises(TypeError, match="'a' needs a function, not 1"):
        registry.register("a", 1)


def test_readers_keep_what_they_have_seen(registry):
    entries = registry.entries
    with registry.register("a", max):
        assert len(registry.entries) == len(entries) + 1
    assert len(entries) == 1


def test_of_threads_that_register_the_same_name_one_succeeds(registry):
    start = threading.Barrier(8)

    def register(number):
        start.wait()
        try:
            return registry.register("a", max, aliases=[f"a{number}"])
        except RegistrationError:
            return None

    with ThreadPoolExecutor(8) as pool:
        made = [each for each in pool.map(register, range(8)) if each is not None]
    assert len(made) == 1
    assert len(registry.names) == 4


def test_threads_register_and_undo_without_losing_what_others_did(registry):
    def work(number):
        for turn in range(50):
            with registry.register(f"{number}.{turn}", max):
                assert registry.get(f"{number}.{turn}") is max
        return registry.register(f"{number}", min)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sorted(registry.names) == ["0", "1", "2", "3", "mine", "own"]
