"""The benchmarks that need real servers run, at a size that says nothing."""

from __future__ import annotations

import json

import pytest

from bench import suite


@pytest.mark.parametrize("name", ["s3", "small_gets", "throttling"])
def test_subject_measures_azarr(name, tmp_path):
    bench = suite.measure(name, "tiny", tmp_path)
    if not bench.rows:
        pytest.skip("; ".join(bench.skipped))
    document = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
    if name == "throttling":
        assert all(row["figures"]["% of the limit"] > 0 for row in document["rows"])
    else:
        assert any("azarr" in row["case"]["client"] or "HTTPStore" in row["case"]["client"] for row in document["rows"])
