# SPDX-License-Identifier: GPL-2.0-or-later
"""contrib/bench-core runs, and what it writes makes sense.  No time judged."""

import json
import struct
import subprocess
import sys
import xml.etree.ElementTree
from pathlib import Path

import pytest
from harness import cli, host

TOP = Path(__file__).resolve().parents[2]
BENCH = TOP / "contrib" / "bench-core"
METHODS = ["gcore", "criu", "snapuffd"]
SIZE = 16
MASK = (1 << 64) - 1

sys.path.insert(0, str(TOP / "contrib"))


def bench(*args):
    return subprocess.run(
        [BENCH, "--program", cli.program(), *map(str, args)],
        capture_output=True, text=True, timeout=400,
    )  # fmt: skip


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """(directory, what it printed) of a short run."""
    host.require_root()
    tmp_path = tmp_path_factory.mktemp("bench-core")
    done = bench("--quick", "--sizes", SIZE, "--dir", tmp_path,
                 "--json", tmp_path / "core.json",
                 "--markdown", tmp_path / "page.md")  # fmt: skip
    assert done.returncode == 0, done.stderr
    return tmp_path, done.stdout


def rows_of(text, title):
    """{(memory, pages): [cells]} of one of the tables."""
    lines = iter(text[text.index(title):].splitlines()[2:])
    head = next(lines).strip("| ").split(" | ")
    assert head[:5] == ["memory", "pages", *METHODS]
    next(lines)
    found = {}
    for line in lines:
        if not line.startswith("|"):
            break
        memory, pages, *cells = line.strip("| ").split(" | ")
        assert len(cells) == len(head) - 2
        found[memory, pages] = cells
    return found


def test_tables(ran):
    from benchlib import corepage, cores

    directory, printed = ran
    page = (directory / "page.md").read_text()
    results = json.loads((directory / "core.json").read_text())
    cases = [(f"{SIZE} MiB", "small")]
    if not cores.why_no_huge():
        cases.insert(0, (f"{SIZE} MiB", "huge"))
    for title, _, _ in corepage.FIGURES:
        for text in (printed, page):
            assert list(rows_of(text, title)) == cases
    gaps = rows_of(page, corepage.FIGURES[0][0])
    for _, pages in cases:
        for cell, method in zip(gaps[f"{SIZE} MiB", pages], METHODS):
            known = cores.of(results, method, SIZE, pages == "huge")
            assert (float(cell.replace(",", "")) > 0) if known else (
                cell == "–"
            )  # fmt: skip
    assert "{{" not in page
    for picture in (directory / "page").iterdir():
        xml.etree.ElementTree.parse(picture)
        assert f"(page/{picture.name})" in page
    assert not list(directory.glob("snapuffd-bench-*")), "images are left"


@pytest.mark.parametrize("method", METHODS)
def test_method(ran, method):
    directory, printed = ran
    results = json.loads((directory / "core.json").read_text())
    missing = results["tools"][method]["missing"]
    if missing:
        assert missing in printed
        pytest.skip(missing)
    runs = [run for run in results["runs"] if run["method"] == method]
    assert runs
    for run in runs:
        if run["status"] != "complete":
            assert len(run["why"]) > 10 and run["why"] in printed
            # criu is not ours to judge.
            if method == "criu" or "only QEMU can be dumped" in run["why"]:
                pytest.skip(f"{method}: {run['why']}")
        assert run["status"] == "complete", run["why"]
        assert run["judged"] is (method != "criu")
        assert 0 < run["gap_ms"] <= run["finished_s"] * 1e3 + 1000
        assert run["finished_s"] <= run["synced_s"]
        assert run["image_bytes"] > SIZE << 20
        assert 0 <= run["other_cpu_share"] <= 1.5
        assert run["rate_before"] > 0 and run["rate_during"] >= 0
        starts = [t for t, _ in run["rates"]]
        assert starts == sorted(starts)
        assert starts[0] < 0 < run["finished_s"] < starts[-1] + 0.1


def test_page_anew(ran):
    directory, printed = ran
    again = directory / "again" / "page.md"
    again.parent.mkdir()
    done = bench("--report", directory / "core.json", "--markdown", again)
    assert done.returncode == 0, done.stderr
    assert done.stdout == printed
    assert again.read_text() == (directory / "page.md").read_text()


def test_what_is_missing_is_said(tmp_path):
    host.require_root()
    done = bench("--quick", "--sizes", SIZE, "--dir", tmp_path,
                 "--json", tmp_path / "core.json", "--methods", "criu",
                 "--criu", "/nonexistent")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "criu: skipped: /nonexistent: cannot be executed" in done.stdout


def test_held(tmp_path):
    """A call that does nothing costs many times as much while it is held,
    whatever the machine does beside."""
    host.require_root()
    done = bench("--held", "--quick", "--dir", tmp_path)
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()
            if line.startswith("| ")]  # fmt: skip
    assert [row[0] for row in rows] == ["calls", "getppid",
                                        "mmap, write, munmap"]  # fmt: skip
    times = [[float(cell.removesuffix(" ×").replace(",", ""))
              for cell in row[1:]] for row in rows[1:]]  # fmt: skip
    assert all(value > 0 for row in times for value in row)
    assert times[0][3] > 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "args", [("--methods", "none"), ("--sizes", "3"), ("--sizes", "few")]
)
def test_bad_arguments(args, tmp_path):
    done = bench("--quick", "--json", tmp_path / "core.json", *args)
    assert done.returncode
    assert len(done.stderr.strip().splitlines()[-1]) > 10


def test_figures_of_made_up_samples():
    """1000 writes each 10 ms, but for a gap of 300 ms that begins at 10.5 s."""
    from benchlib.victim import Samples

    lines, writes = ["memory 4096 4096"], 0
    for i in range(1, 101):
        t = 10 + i / 100 + (0.3 if i > 50 else 0)
        gap = 0.31 if i == 51 else 0.001
        writes += 0 if i == 51 else 1000
        lines.append(f"sample {t * 1e9:.0f} {writes} {gap * 1e9:.0f}")
    samples = Samples("\n".join(lines))
    assert samples.longest_gap(10.1, 10.4) == pytest.approx(0.001)
    assert samples.longest_gap(10.1, 10.49) == pytest.approx(0.001)
    # Begun before the end, ended after the start.
    assert samples.longest_gap(10.1, 10.6) == pytest.approx(0.31)
    assert samples.longest_gap(10.7, 11) == pytest.approx(0.31)
    assert samples.longest_gap(10.9, 11) == pytest.approx(0.001)
    assert samples.rate(10.1, 10.4) == pytest.approx(1e5)
    assert samples.rate(10.6, 10.8) == pytest.approx(0, abs=1)
    steps = samples.steps(10.1, 10.1, 10.4, 0.1)
    assert [round(t, 3) for t, _ in steps] == [0, 0.1, 0.2]
    with pytest.raises(RuntimeError):
        samples.rate(10.1, 20)


def test_gaps_without_the_machine_s_own():
    """A gap of 40 ms in which the machine stood for 30, and one of 15 ms."""
    from benchlib.victim import Samples

    text = "\n".join([
        "memory 4096 4096", "gap 10040000000 40000000",
        "gap 10500000000 15000000", "sample 10000000000 1 900000",
        "sample 10040000000 2 40000000", "sample 10500000000 3 15000000",
        "sample 10600000000 4 800000",
    ])  # fmt: skip
    samples = Samples(text)
    assert samples.longest_own_gap(9, 11, []) == pytest.approx(0.04)
    stood = [(10.005, 10.035), (10.1, 10.2)]
    assert samples.longest_own_gap(9, 11, stood) == pytest.approx(0.015)
    assert samples.longest_own_gap(9, 10.3, stood) == pytest.approx(0.01)
    # Half of a stall is before the gap.
    assert samples.longest_own_gap(
        9, 10.3, [(9.9, 10.01)]
    ) == pytest.approx(0.03)  # fmt: skip
    assert samples.longest_own_gap(10.55, 11, stood) == pytest.approx(0.0008)


def test_when_all_processors_stood():
    from benchlib.stalls import at_once

    text = "watching 2\nstall 0 1000000000 3000000000\n"
    assert at_once(text) == []
    text += "stall 1 2000000000 5000000000\nstall 0 4000000000 4500000000\n"
    assert at_once(text) == [(2.0, 3.0), (4.0, 4.5)]
    assert at_once("watching 1\nstall 0 1000000000 3000000000\n") == [(1, 3)]


@pytest.fixture(scope="module")
def victim(tmp_path_factory):
    from benchlib import victim

    return victim.build(tmp_path_factory.mktemp("victim"))


def place_of(n, n_words):
    z = n * 0x9E3779B97F4A7C15 & MASK
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return (z ^ (z >> 31)) * n_words >> 64


N_WORDS = (1 << 20) // 8
N_WRITES = 5000


def written(n_writes, base=None):
    words = list(base or (~i & MASK for i in range(N_WORDS)))
    for n in range(1, n_writes + 1):
        words[place_of(n, N_WORDS)] = n
    return words


def judged(victim, path, words, cut=0):
    """The judge's exit code and words, of memory at an odd place in a file."""
    memory = struct.pack(f"<{N_WORDS}Q", *words)
    path.write_bytes(b"x" * 5003 + memory[: len(memory) - cut])
    done = subprocess.run([victim, "judge", path, "5003", "1"],
                          capture_output=True, text=True)  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_judge(victim, tmp_path):
    words = written(N_WRITES)
    assert judged(victim, tmp_path / "m", words) == (0, f"{N_WRITES}\n")
    assert judged(victim, tmp_path / "m", written(0)) == (0, "0\n")

    # A page that was copied too early, then one too late.
    page = place_of(N_WRITES - 1, N_WORDS) // 512 * 512
    for ours, other in ((N_WRITES, 100), (100, N_WRITES)):
        torn = written(ours)
        torn[page : page + 512] = written(other)[page : page + 512]
        code, said = judged(victim, tmp_path / "m", torn)
        assert code == 1 and "is missing" in said
    # A single write that is missing, and there was one before it.
    places = {}
    for n in range(1, N_WRITES + 1):
        places.setdefault(place_of(n, N_WORDS), []).append(n)
    for i, numbers in places.items():
        if len(numbers) > 1 and numbers[-1] < N_WRITES:
            older = list(words)
            older[i] = numbers[-2]
            code, said = judged(victim, tmp_path / "m", older)
            assert code == 1 and f"write {numbers[-1]} is missing" in said
            break
    else:
        raise AssertionError("no word is written twice")
    for alien in (0, 12345, ~8 & MASK):
        changed = list(written(0))
        changed[7] = alien
        code, said = judged(victim, tmp_path / "m", changed)
        assert code == 1 and "never written there" in said
    assert judged(victim, tmp_path / "m", words, cut=8)[0] == 1
