"""What docs/stores.md shows of stores that need a server runs against one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "stores.md"
BLOCK = re.compile(r"^```py\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACES = {
    "redis://localhost:6379": ("redis_server", "redis_database"),
    "mongodb://localhost:27017/science": ("mongodb_server", "mongodb_database"),
    'S3Store("science", "weather", endpoint_url="http://localhost:8333"': ("s3_server", "s3_bucket"),
}
BLOCKS = [block for block in BLOCK.findall(PAGE.read_text(encoding="utf-8")) if any(place in block for place in PLACES)]


@pytest.mark.parametrize("place", PLACES)
def test_blocks_run(request, place, capsys, monkeypatch):
    url, fresh = (request.getfixturevalue(name) for name in PLACES[place])
    block = next(block for block in BLOCKS if place in block)
    meant = {
        "redis": f"{url.url}",
        "mongo": f"{url.url}{fresh}",
        "S3Sto": f'S3Store("{fresh}", "weather", endpoint_url="{url.url}"',
    }
    code = block.replace(place, meant[place[:5]])
    if hasattr(url, "access_key"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", url.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", url.secret_key)
    exec(compile(code, PAGE, "exec", dont_inherit=True), {"__name__": "__main__"})
    assert capsys.readouterr().out.startswith("240.0 TrafficStats(attempts=")
