"""What is imported when it is first asked for."""

from __future__ import annotations

import sys
import threading
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from azarr.deferred import Deferred, DeferredModule, deferred_names


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """A package ``lately`` with a module ``inner``, which has a function, and what a fresh interpreter has imported of them."""
    folder = tmp_path / "lately"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "inner.py").write_text("def add(*numbers): return sum(map(int, numbers))\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield lambda: {name for name in sys.modules if name.partition(".")[0] == "lately"}
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_what_is_deferred_is_imported_once_it_is_needed(modules):
    add, seven = Deferred("lately.inner", "add"), Deferred("lately.inner", "add", ("3", "4"))
    assert modules() == set()
    assert add(1, 2) == 3
    assert modules() == {"lately", "lately.inner"}
    assert add.load() is sys.modules["lately.inner"].add
    assert seven.load() == 7


def test_what_is_not_there_fails_where_it_is_needed(modules):
    missing = Deferred("lately.missing", "add")
    with pytest.raises(ModuleNotFoundError, match="lately.missing"):
        missing.load()
    with pytest.raises(AttributeError, match="subtract"):
        Deferred("lately.inner", "subtract").load()


def test_a_deferred_module_is_imported_with_the_first_attribute(modules, monkeypatch):
    inner = DeferredModule("lately.inner")
    assert repr(inner) == "<DeferredModule lately.inner>"
    assert modules() == set()
    assert inner.add(1, 2) == 3
    assert modules() == {"lately", "lately.inner"}
    monkeypatch.setattr(sys.modules["lately.inner"], "add", lambda *_: 0)
    assert inner.add(1, 2) == 0  # nothing is kept
    with pytest.raises(AttributeError, match="subtract"):
        _ = inner.subtract


def test_threads_that_ask_at_once_get_the_whole_module(modules):
    """The first imports it; the others wait for that, or come when it is done."""
    folder = Path(__import__("lately").__path__[0])
    (folder / "slow.py").write_text("import lately\nlately.begun.set()\nlately.go.wait()\nanswer = 42\n")
    package = sys.modules["lately"]
    package.begun, package.go = threading.Event(), threading.Event()
    slow = DeferredModule("lately.slow")
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(lambda: slow.answer)
        package.begun.wait()
        others = [pool.submit(lambda: slow.answer) for _ in range(2)]
        package.go.set()
        assert [each.result() for each in (first, *others)] == [42, 42, 42]


def test_names_of_a_package_are_looked_up_once(modules, monkeypatch):
    package = types.ModuleType("lately")
    package.__path__ = __import__("lately").__path__
    monkeypatch.setitem(sys.modules, "lately", package)
    package.__getattr__, package.__dir__ = deferred_names("lately", ["add", "inner", "own"], {"lately.inner": ("add",)})
    package.own = 1
    assert modules() == {"lately"}
    assert dir(package) == sorted([*vars(package), "add", "inner"])
    assert package.add(1, 2) == 3
    assert vars(package)["add"] is package.inner.add
    with pytest.raises(AttributeError, match="module 'lately' has no attribute 'other'"):
        _ = package.other


def test_a_submodule_is_a_name_that_no_module_has(modules, monkeypatch):
    package = types.ModuleType("lately")
    package.__path__ = __import__("lately").__path__
    monkeypatch.setitem(sys.modules, "lately", package)
    package.__getattr__, _ = deferred_names("lately", ["inner"], {})
    assert package.inner is sys.modules["lately.inner"]
