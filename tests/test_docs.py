"""The Python code in the README and the documentation runs as it stands, in the order in which a reader would paste it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python(?: needs=(\w+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path, needs: str | None = None) -> list[str]:
    """The blocks of a page, each with as many empty lines before it as to make tracebacks point into the page; with ``needs`` its, too."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text.count("\n", 0, match.start(2)) + match[2] for match in BLOCK.finditer(text) if match[1] in {None, needs}]


def needed(page: Path) -> list[str]:
    """The packages that some blocks of a page need."""
    return sorted({match[1] for match in BLOCK.finditer(page.read_text(encoding="utf-8")) if match[1]})


@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page)], ids=lambda page: page.name)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    run(code_blocks(page), page, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("page", "package"), [(page, package) for page in PAGES for package in needed(page)], ids=lambda each: getattr(each, "name", each)
)
def test_code_blocks_that_need_a_package_run(page, package, tmp_path, monkeypatch):
    pytest.importorskip(package, reason=f'needs {package}; pip install "azarr[{package}]"')
    run(code_blocks(page, package), page, tmp_path, monkeypatch)


def run(blocks, page, folder, monkeypatch):
    monkeypatch.chdir(folder)
    namespace = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block, page, "exec", dont_inherit=True), namespace)


def test_there_is_code_to_run():
    assert code_blocks(ROOT / "README.md")
    assert code_blocks(ROOT / "docs" / "quickstart.md")


def test_the_page_of_the_format_says_what_there_is():
    script = ROOT / "docs" / "format.py"
    spec = importlib.util.spec_from_file_location("format_page", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.PAGE.read_text(encoding="utf-8")
    assert page == module.updated(page), "docs/format.md is not what azarr supports any more: run 'python docs/format.py'"
