"""The benchmarks run, at a size that says nothing, and what they find is what pictures and page are made of."""

from __future__ import annotations

import json
import math
import time

import pytest

from bench import page, peer_figures, suite, tables

SERVED = {"s3", "small_gets", "throttling"}  # need real servers: tests/emulators/test_bench.py
TOGETHER = {"read": ("read", "write"), "write": ()}  # one picture is made of both
GROUPS = [group for name in suite.subjects() if name not in SERVED and (group := TOGETHER.get(name, (name,)))]


def check_form(document):
    assert {"name", "about", "scale", "date", "commit", "machine", "versions", "disturbance", "skipped", "rows"} == document.keys()
    assert {"cpu", "cores", "memory GiB", "kernel"} == document["machine"].keys()
    assert {"python", "numpy", "azarr"} <= document["versions"].keys()
    assert document["about"]
    assert document["disturbance"] >= 0
    assert document["rows"]
    units = {unit for row in document["rows"] for unit in row["figures"]}
    for row in document["rows"]:
        assert row["case"]
        assert all(isinstance(word, str) and isinstance(each, (str, int, float)) for word, each in row["case"].items())
        assert row["figures"]
        for unit, figure in row["figures"].items():
            low, high = row["spread"][unit]
            assert math.isfinite(figure)
            assert low <= figure <= high
    assert units.isdisjoint(word for row in document["rows"] for word in row["case"])


@pytest.mark.parametrize("group", GROUPS, ids="+".join)
def test_subject_writes_what_page_and_pictures_are_made_of(group, tmp_path, capsys):
    documents = {}
    for name in group:
        suite.measure(name, "tiny", tmp_path)
        documents[name] = json.loads((tmp_path / f"{name}.json").read_text(encoding="utf-8"))
        check_form(documents[name])
    assert "| " in capsys.readouterr().out
    made = page.tables(documents)
    for name, (subject, *_) in page.PIVOTS.items():
        assert (made[name] == page.TO_COME) == (subject not in documents)
    pictures = pytest.importorskip("bench.pictures", reason='needs matplotlib; pip install "azarr[demo]"')
    expected = {name for name, (_, needed) in pictures.PICTURES.items() if set(needed) <= set(group)}
    assert {path.stem for path in pictures.draw(documents, tmp_path) if path.stat().st_size} == expected


@pytest.fixture
def peer_runs(tmp_path):
    file = tmp_path / "peers.jsonl"
    runs = [{"task": "T1", "impl": "azarr", "wall": wall, "cpu": 2.0, "rss_before_mb": 10, "rss_peak_mb": 20} for wall in (1.0, 3.0, 1.5)]
    runs += [{"task": "T1", "impl": name, "wall": 3.0, "cpu": 1.0, "rss_before_mb": 10, "rss_peak_mb": 20} for name in ("floor", "zarr")]
    runs += [{"task": "T9", "impl": "azarr", "wall": 0.25, "import_s": 0.1, "rss_peak_mb": 50}]
    runs += [
        {"task": "T1", "impl": "zarrista", "error": "timeout"},
        {"task": "T1", "impl": "zarrista", "wall": 0.1, "cpu": 0.1, "ok": False},
    ]
    file.write_text("\n".join(map(json.dumps, runs)), encoding="utf-8")
    return file


def test_runs_of_the_peer_benchmark_become_a_table_and_a_picture(peer_runs, tmp_path):
    document = peer_figures.peers([peer_runs]).document()
    first, *_ = document["rows"]
    assert first["figures"]["seconds"] == 1.5
    assert first["rounds"] == 3
    lines = page.peer_table(document, page.SHOWN).splitlines()
    cells = next([cell.strip() for cell in line.split("|")] for line in lines if "read 1 GiB at once, zstd" in line)
    assert cells[2:6] == ["1.50 s (2.00)", "2.00 (0.500)", "2.00 (0.500)", ""]
    assert "0.250 s" in next(line for line in lines if "import" in line)
    assert sum(page.TO_COME in line for line in lines) == len(peer_figures.TASKS) - 2
    pictures = pytest.importorskip("bench.pictures", reason='needs matplotlib; pip install "azarr[demo]"')
    assert [path.stem for path in pictures.draw({"peers": document}, tmp_path)] == ["peers"]


def test_runs_of_the_peer_benchmark_become_a_table_of_memory(peer_runs):
    document = peer_figures.peers([peer_runs]).document()
    cells = ([cell.strip() for cell in line.split("|")[1:-1]] for line in page.peer_memory(document).splitlines())
    lines = {task: rest for task, *rest in cells}
    assert lines["task"] == ["result", "azarr", *page.SHOWN]
    assert lines["read 1 GiB at once, zstd"] == ["1,074", "10", "10", "10", "", "", ""]
    assert lines["start, import and open"] == ["", "50", "", "", "", "", ""]
    assert lines["planes in order"] == ["", page.TO_COME, "", "", "", "", ""]


@pytest.mark.parametrize("runs", [[], [{"task": "T1", "impl": "azarr", "wall": 1.0, "cpu": 2.0}]], ids=["no runs", "without memory"])
def test_memory_that_was_not_measured_is_to_come(runs, tmp_path):
    file = tmp_path / "peers.jsonl"
    file.write_text("\n".join(map(json.dumps, runs)), encoding="utf-8")
    for document in (None, peer_figures.peers([file]).document()):
        assert page.peer_memory(document).count(page.TO_COME) == len(peer_figures.TASKS)


def test_a_column_of_tuned_peers_shows_the_one_that_a_task_has(tmp_path):
    file = tmp_path / "tuned_peers.jsonl"
    walls = {"azarr": 1.0, "zarr-obstore-tuned": 2.0, "zarrista-aio-tuned": 3.0}
    file.write_text("\n".join(json.dumps({"task": "T8s3", "impl": name, "wall": wall, "cpu": 1.0}) for name, wall in walls.items()))
    document = peer_figures.peers([file], "tuned_peers").document()
    assert document["name"] == "tuned_peers"
    head, _, *lines = ([cell.strip() for cell in line.split("|")[1:-1]] for line in page.peer_table(document, page.TUNED).splitlines())
    found = next(dict(zip(head, line, strict=True)) for line in lines if "S3" in line[0])
    assert found["azarr"] == "1.00 s (1.00)"
    assert [found[column] for column in page.TUNED] == ["", "2.00 (1.00)", "", "3.00 (1.00)"]


def test_runs_that_are_wrong_or_failed_do_not_count(peer_runs):
    assert {row.case["implementation"] for row in peer_figures.peers([peer_runs]).rows} == {"azarr", "floor", "zarr"}


def test_what_is_measured_again_replaces_what_was_there(peer_runs, tmp_path):
    again = tmp_path / "again.jsonl"
    again.write_text(json.dumps({"task": "T1", "impl": "zarr", "wall": 9.0, "cpu": 9.0}), encoding="utf-8")
    rows = peer_figures.peers([peer_runs, again]).rows
    assert [row.figures["seconds"] for row in rows if row.case == {"task": "T1", "implementation": "zarr"}] == [9.0]
    assert len(rows) == 4


def test_the_page_shows_what_its_results_say():
    text = page.PAGE.read_text(encoding="utf-8")
    assert text == page.updated(text, page.kept()), "docs/performance.md is not what its results say: run 'nox -s bench -- page'"


async def test_cases_take_turns_and_the_first_round_does_not_count():
    calls = []

    def way(name):
        async def way():
            calls.append(name)
            return {"s": float(len(calls))}

        return way

    bench = suite.Bench("test", "quick")
    await bench.compare([({"case": "a"}, way("a")), ({"case": "b"}, way("b"))])
    assert calls == ["a", "b"] * 3
    assert [(row.case["case"], row.figures["s"], row.spread["s"], row.rounds) for row in bench.rows] == [
        ("a", 4.0, (3.0, 5.0), 2),
        ("b", 5.0, (4.0, 6.0), 2),
    ]


async def test_what_keeps_the_loop_is_noticed():
    async with suite.measured(heartbeat=True) as meter:
        time.sleep(0.02)  # blocks the loop, which is what is measured
    assert 0.01 < meter.longest_stall <= meter.seconds + meter.longest_stall
    assert meter.p99_stall <= meter.longest_stall


@pytest.mark.skipif(not suite.Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of memory")
async def test_memory_at_the_peak_is_noticed():
    async with suite.measured() as meter:
        bytearray(b"x") * 2**26
    assert meter.peak > 2**25  # the kernel counts in lots


def test_what_needs_a_fresh_process_gets_one():
    assert suite.in_child(suite.os.getpid) != suite.os.getpid()


def test_what_is_not_installed_is_noted(capsys):
    bench = suite.Bench("test")
    assert bench.those_installed({"NumPy": "numpy", "peer": "no_such_package"}) == ["NumPy"]
    assert "no_such_package" in bench.skipped[0]
    assert "no_such_package" in capsys.readouterr().out


def test_numbers_have_three_digits_that_count():
    assert [tables.number(each) for each in (1234.5, 123.4, 12.34, 0.01234, 0.0, 7, "word", None)] == [
        "1,234",
        "123",
        "12.3",
        "0.0123",
        "0",
        "7",
        "word",
        "",
    ]
