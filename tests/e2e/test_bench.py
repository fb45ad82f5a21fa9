# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/bench runs, and what it writes makes sense.  No time is judged."""

import json
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from harness import cli

TOP = Path(__file__).resolve().parents[2]
BENCH = TOP / "contrib" / "bench"
METHODS = ["background-snapshot", "snapuffd"]

sys.path.insert(0, str(TOP / "contrib"))


def bench(*args):
    return subprocess.run(
        [BENCH, "--program", cli.program(), *map(str, args)],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip


def test_quick(guest_files, tmp_path):
    out, page = tmp_path / "out", tmp_path / "page.md"
    done = bench("--quick", "--out", out, "--dir", tmp_path,
                 "--markdown", page)  # fmt: skip
    assert done.returncode == 0, done.stderr

    results = json.loads((out / "results.json").read_text())
    runs = {run["method"]: run for run in results["runs"]}
    assert sorted(runs) == METHODS
    for run in runs.values():
        assert run["status"] == "complete", run["why"]
        assert len(run["pauses"]) == 1
        assert 0 < run["frozen_s"] < run["captured_s"] <= run["complete_s"]
        assert run["image_bytes"] > 128 << 20
        assert run["rate_before"] > run["worst_second"] >= 0
        assert 0 < run["p50_us"] <= run["p99_us"] <= run["worst_us"] * 1.1
        starts = [bucket[0] for bucket in run["buckets"]]
        assert len(starts) > 20 and starts == sorted(starts)
        assert starts[0] < 0 < run["complete_s"] < run["buckets"][-1][1]
        for _, _, writes, _, pairs in run["buckets"]:
            assert writes == sum(n for _, n in pairs)
    report = runs["snapuffd"]["report"]
    assert report["complete"] is True
    assert runs["snapuffd"]["own_cpu_s"] > 0
    # QEMU's events are within what the program says it took.
    assert runs["snapuffd"]["pause_ms"] <= report["pause_ms"] + 1

    rows = results["summary"]["random"]
    assert rows["captured"]["goal"] == "≤ 1/8"
    assert rows["pause"]["reached"] in (True, False)
    table = (out / "table.txt").read_text()
    assert all(method in table for method in METHODS)
    assert rows["worst_second"]["name"] in page.read_text()
    assert "{{" not in page.read_text()
    for folder in (out, tmp_path / "page"):
        for kind in ("rate", "latency"):
            root = xml.etree.ElementTree.parse(folder / f"random-{kind}.svg")
            texts = [e.text for e in root.iter() if e.tag.endswith("text")]
            assert all(method in texts for method in METHODS)
    assert not list(tmp_path.glob("snapuffd-bench-*")), "images are left"

    # The page comes out the same without the runs.
    again = tmp_path / "again" / "page.md"
    again.parent.mkdir()
    done = bench("--report", out / "results.json", "--markdown", again)
    assert done.returncode == 0, done.stderr
    assert again.read_text() == page.read_text()


@pytest.mark.parametrize("args", [("--methods", "none"), ("--memory", "300")])
def test_bad_arguments(args, tmp_path):
    done = bench("--quick", "--out", tmp_path, *args)
    assert done.returncode
    assert len(done.stderr.strip().splitlines()[-1]) > 10


def test_figures_of_made_up_lines():
    """A guest that makes 10 writes each 100 ms, stands for 1 s at 5 s, and
    whose lines arrive up to 40 ms late."""
    from benchlib import series

    lines = []
    for i in range(100):
        arrival = 1000 + (i + 1) / 10 + (0.04 if i % 7 else 0)
        arrival += 1 if i >= 50 else 0
        lines.append((arrival, f"judge-live: t={i * 100}.0 end={i * 100 + 100}"
                      f".0 writes=10 bad=0 max={1000 * (i + 1)} "
                      "ns=128:9,1024:1"))  # fmt: skip
    buckets = series.place(lines, resumes=[1006.0])
    writes = series.Writes(buckets)
    assert buckets[49].end == pytest.approx(1005)
    assert buckets[50].start == pytest.approx(1005)
    assert buckets[50].end == pytest.approx(1006.1)
    assert writes.rate(1000, 1005) == pytest.approx(100)
    assert writes.worst_second(1000, 1010) == pytest.approx(10 / 1.1)
    assert writes.worst_ns(1000, 1000.95) == 10000
    hist = writes.histogram(1000, 1011)
    assert hist == {128: 900, 1024: 100}
    assert series.quantile_ns(hist, 0.5) == 136
    assert series.quantile_ns(hist, 0.99) == 1088
    assert writes.steady()
