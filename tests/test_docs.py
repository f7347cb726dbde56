"""The Python code in the README and the documentation runs as it stands, in the order in which a reader would paste it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def code_blocks(page: Path) -> list[str]:
    """The blocks of a page, each with as many empty lines before it as to make tracebacks point into the page."""
    text = page.read_text(encoding="utf-8")
    return ["\n" * text.count("\n", 0, match.start(1)) + match[1] for match in BLOCK.finditer(text)]


@pytest.mark.parametrize("page", [page for page in PAGES if code_blocks(page)], ids=lambda page: page.name)
def test_code_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in code_blocks(page):
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
