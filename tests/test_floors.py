"""The import directions of the architecture: every module stands on a floor and imports from that floor or from below."""

from __future__ import annotations

import ast
import importlib
import itertools
import sys
from pathlib import Path

import pytest

from azarr.deferred import Deferred, DeferredModule

ROOT = Path(__file__).parents[1] / "azarr"

FLOORS = {
    "azarr": 5,
    "azarr.types": 0,
    "azarr.deferred": 0,
    "azarr.version": 0,
    "azarr.errors": 0,
    "azarr.events": 0,
    "azarr.extras": 0,
    "azarr.plugins": 0,
    "azarr.registry": 0,
    "azarr.telemetry": 0,
    "azarr.retry": 0,
    "azarr.data_types": 1,
    "azarr.selection": 1,
    "azarr.indexers": 1,
    "azarr.axis_plans": 1,
    "azarr.projections": 1,
    "azarr.coverage": 1,
    "azarr.chunk_grids": 1,
    "azarr.chunk_keys": 1,
    "azarr.chunk_sizes": 1,
    "azarr.chunk_lengths": 1,
    "azarr.creation": 1,
    "azarr.paths": 1,
    "azarr.tree": 1,
    "azarr.metadata": 1,
    "azarr.codecs": 1,
    "azarr.stores": 2,
    "azarr.importing": 2,
    "azarr.admission": 3,
    "azarr.crew": 3,
    "azarr.result_memory": 3,
    "azarr.executors": 3,
    "azarr.process_executor": 3,
    "azarr.process_pipeline": 3,
    "azarr.process_worker": 3,
    "azarr.shared_memory": 3,
    "azarr.worker_process": 3,
    "azarr.locks": 3,
    "azarr.runners": 3,
    "azarr.window": 3,
    "azarr.engine": 3,
    "azarr.observing": 3,
    "azarr.new_chunks": 3,
    "azarr.chunk_sources": 3,
    "azarr.sharded_chunks": 3,
    "azarr.shard_parts": 3,
    "azarr.cache_contents": 3,
    "azarr.cached_chunk": 3,
    "azarr.cached_reading": 3,
    "azarr.chunk_cache": 3,
    "azarr.appending": 3,
    "azarr.array_locks": 3,
    "azarr.claims": 3,
    "azarr.extents": 3,
    "azarr.resizing": 3,
    "azarr.turns": 3,
    "azarr.reading": 3,
    "azarr.rewriting": 3,
    "azarr.writing": 3,
    "azarr.chunk_reader": 3,
    "azarr.progress": 3,
    "azarr.slices": 3,
    "azarr.slice_assembly": 3,
    "azarr.slice_plans": 3,
    "azarr.handover": 3,
    "azarr.stream": 3,
    "azarr.stream_info": 3,
    "azarr.streaming": 3,
    "azarr.feed": 3,
    "azarr.placement": 3,
    "azarr.gathering": 3,
    "azarr.unit_writer": 3,
    "azarr.checkpoint": 3,
    "azarr.ingest": 3,
    "azarr.catalog": 3,
    "azarr.documents": 3,
    "azarr.attributes": 3,
    "azarr.nodes": 3,
    "azarr.array": 4,
    "azarr.copying": 4,
    "azarr.group": 4,
    "azarr.hierarchy": 4,
    "azarr.locations": 4,
    "azarr.conversion": 4,
    "azarr.transfer": 4,
    "azarr.extensions": 4,
    "azarr.integrations": 5,
    "azarr.blocking": 5,
    "azarr.testing": 6,  # beside the house: nothing in it imports this
}
"""The floor of each module; a package stands for all of its modules."""

ASYNCHRONOUS = {"asyncio", "selectors", "socket", "aiohttp", "anyio"}
"""What computes nothing and only waits; not for floors 0 and 1."""


def name_of(file: Path) -> str:
    parts = ("azarr", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(file): file for file in ROOT.rglob("*.py")}


def floor_of(module: str) -> int | None:
    """The floor of ``module``; ``None`` where it has not been given one."""
    entry = module
    while "." in entry and entry not in FLOORS:
        entry = entry.rpartition(".")[0]
    return FLOORS[entry] if entry != "azarr" or module == "azarr" else None


def imports_of(module: str, *, at_import: bool) -> set[str]:
    """What ``module`` imports, as full names of modules; with ``at_import`` only what is imported with it."""
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    found = set()
    for node in ast.walk(tree):
        if at_import and id(node) in inside:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import; they are absolute here"
            assert node.module
            found |= {f"{node.module}.{alias.name}" if f"{node.module}.{alias.name}" in MODULES else node.module for alias in node.names}
    return found


def own(names: set[str]) -> set[str]:
    return {name for name in names if name.split(".")[0] == "azarr"}


def test_every_module_has_a_floor_and_every_floor_its_modules():
    assert not [module for module in MODULES if floor_of(module) is None], "modules that need a floor, here and in the architecture"
    assert {entry for entry in FLOORS if entry not in MODULES} == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_point_downwards(module):
    for imported in own(imports_of(module, at_import=False)):
        assert imported in MODULES, f"{module} imports {imported}, which does not exist"
        assert floor_of(imported) <= floor_of(module), f"{module} imports {imported} from a higher floor"


@pytest.mark.parametrize("module", sorted(MODULES))
def test_what_is_imported_by_its_name_stands_on_that_floor_or_below(module):
    strings = {node.value for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))) if isinstance(node, ast.Constant)}
    for name in own({each for each in strings if isinstance(each, str)}) & MODULES.keys() - {"azarr"}:
        assert floor_of(name) <= floor_of(module), f"{module} names {name} of a higher floor"


@pytest.mark.parametrize("module", sorted(module for module in MODULES if floor_of(module) in {0, 1}))
def test_the_format_knows_no_store_and_no_event_loop(module):
    imported = imports_of(module, at_import=False)
    assert not {name.split(".")[0] for name in imported} & ASYNCHRONOUS
    assert not {name for name in imported if name.startswith("azarr.stores")}
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith)]


@pytest.mark.parametrize("module", sorted(module for module in MODULES if module.startswith("azarr.stores")))
def test_stores_know_no_codecs(module):
    above_words = {name for name in own(imports_of(module, at_import=False)) if floor_of(name) == 1}
    assert above_words == set()


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_within_functions_are_of_third_parties(module):
    late = imports_of(module, at_import=False) - imports_of(module, at_import=True)
    assert own(late) == set()
    assert {name.split(".")[0] for name in late} & sys.stdlib_module_names == set()


@pytest.mark.parametrize("beside", ["azarr.testing", "azarr.integrations"])
def test_nothing_imports_what_stands_beside_the_house(beside):
    for module in MODULES:
        if not module.startswith(beside):
            assert not {name for name in own(imports_of(module, at_import=False)) if name.startswith(beside)}


def test_what_is_deferred_is_imported_for_type_checkers_and_so_for_these_tests():
    found = []
    for module in sorted(module for module, file in MODULES.items() if "= Deferred" in file.read_text(encoding="utf-8")):
        tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
        blocks = [node.body for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
        seen = {}
        for node in itertools.chain.from_iterable(blocks):
            assert isinstance(node, ast.Import | ast.ImportFrom)
            start = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            seen.update({alias.asname or alias.name: f"{start}{alias.name}" for alias in node.names})
        for name, value in vars(importlib.import_module(module)).items():
            if isinstance(value, DeferredModule):
                assert seen.get(name) == repr(value).removeprefix("<DeferredModule ").removesuffix(">"), f"{module}: {name}"
                found.append(name)
            elif isinstance(value, Deferred) and value.name == name:
                assert seen.get(name) == f"{value.module}.{name}", f"{module}: {name}"
                found.append(name)
    assert {"streaming", "read_cached"} <= set(found)


def test_no_modules_import_each_other_in_a_circle():
    graph = {module: own(imports_of(module, at_import=False)) for module in MODULES}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join((*path[path.index(module) :], module))}"
        if module in done:
            return
        for imported in sorted(graph[module] - {module}):
            visit(imported, (*path, module))
        done.add(module)

    for module in sorted(graph):
        visit(module, ())
    assert done == set(MODULES)
