# SPDX-License-Identifier: GPL-2.0-or-later
"""Tables, pictures and page of contrib/bench-core.

A placeholder of page-core.md.in is {{name}}.
"""

import re
from pathlib import Path
from statistics import median

from .cores import LOOKED_AT_S, OURS, REFERENCE, figure, of
from .plots import COLORS as BENCH_COLORS
from .svg import Axis, Chart, Curve
from .table import NOTHING, number

TEMPLATE = Path(__file__).with_name("page-core.md.in")
COLORS = {"gcore": "#d55e00", "criu": "#009e73",
          "snapuffd": BENCH_COLORS["snapuffd"]}  # fmt: skip
GOAL_MIB, GOAL_RATIO = 1024, 100
GOAL_GROWTH = 2  # of the gap, from the smallest size to the largest
MIB = 1 << 20


def _huge_kept(run):
    if not run["huge"] or run["huge_before_kib"] < 8 << 10:
        return None
    return 100 * run["huge_after_kib"] / run["huge_before_kib"]


# title, value of a run, whether a smaller one is better (None: no ratio)
FIGURES = (
    ("Longest gap between two writes, ms", lambda r: r["gap_ms"], True),
    ("The same, with the times when the whole machine stood still, ms",
     lambda r: r["gap_with_stalls_ms"], True),
    ("Until the command is done, s", lambda r: r["finished_s"], True),
    ("Until all is on disk, s", lambda r: r["synced_s"], True),
    ("Writes during the dump, % of before",
     lambda r: 100 * r["rate_during"] / r["rate_before"], False),
    ("Size on disk, MiB", lambda r: r["image_bytes"] / MIB, None),
    ("Huge pages kept, %", _huge_kept, None),
)  # fmt: skip
gap_of = FIGURES[0][1]


def _pages(huge):
    return "huge" if huge else "small"


def _size(mib):
    return f"{mib // 1024} GiB" if mib % 1024 == 0 else f"{mib} MiB"


def _ratio(theirs, ours, smaller_is_better):
    if theirs is None or ours is None:
        return NOTHING
    a, b = (theirs, ours) if smaller_is_better else (ours, theirs)
    return f"{number(a / b)} ×" if b else NOTHING


def _cases(results):
    """Sizes and pages that were run; methods in their fixed order."""
    return [(mib, huge) for mib in results["sizes"]
            for huge in (True, False)
            if any((r["mib"], r["huge"]) == (mib, huge)
                   for r in results["runs"])]  # fmt: skip


def _table(results, title, value, smaller_is_better):
    methods = list(results["tools"])
    rivals = [m for m in methods if m != OURS]
    if OURS not in methods or smaller_is_better is None:
        rivals = []
    head = ["memory", "pages", *methods]
    if smaller_is_better:
        head += [f"{m} / {OURS}" for m in rivals]
    else:
        head += [f"{OURS} / {m}" for m in rivals]
    lines = [f"{title}:", "", "| " + " | ".join(head) + " |",
             "|---|---|" + "--:|" * (len(head) - 2)]  # fmt: skip
    for mib, huge in _cases(results):
        cells = {m: figure(results, m, mib, huge, value) for m in methods}
        ratios = [_ratio(cells[m], cells[OURS], smaller_is_better)
                  for m in rivals]  # fmt: skip
        line = [_size(mib), _pages(huge),
                *(number(cells[m]) for m in methods), *ratios]  # fmt: skip
        lines.append("| " + " | ".join(line) + " |")
    return "\n".join(lines)


def goals(results):
    """[(text, reached)]; reached is None where nothing can be said."""
    found = []
    for huge in (True, False):
        pages = f"{_pages(huge)} pages"
        theirs, ours = (figure(results, m, GOAL_MIB, huge, gap_of)
                        for m in (REFERENCE, OURS))  # fmt: skip
        if theirs and ours:
            found.append((
                f"{_size(GOAL_MIB)}, {pages}: the longest gap of {REFERENCE} "
                f"is {number(theirs / ours)} times ours, goal ≥ {GOAL_RATIO}",
                theirs / ours >= GOAL_RATIO,
            ))  # fmt: skip
        ends = min(results["sizes"]), max(results["sizes"])
        low, high = (figure(results, OURS, mib, huge, gap_of)
                     for mib in ends)  # fmt: skip
        if low and high and ends[0] != ends[1]:
            found.append((
                f"{_size(ends[0])} to {_size(ends[1])}, {pages}: our longest "
                f"gap grows {number(high / low)} times, goal ≤ {GOAL_GROWTH}",
                high / low <= GOAL_GROWTH,
            ))  # fmt: skip
    return found


def _goal_lines(results):
    return "\n".join(
        f"- {text}: {'reached' if reached else 'NOT reached'}"
        for text, reached in goals(results)
    )


def remarks(results):
    """What is not there, and why."""
    lines = [f"- huge pages: skipped: {results['no_huge']}"
             ] if results["no_huge"] else []  # fmt: skip
    for method, tool in results["tools"].items():
        if tool["missing"]:
            lines.append(f"- {method}: skipped: {tool['missing']}")
        for mib, huge in _cases(results):
            odd = [r for r in results["runs"]
                   if (r["method"], r["mib"], r["huge"]) == (method, mib, huge)
                   and r["status"] != "complete"]  # fmt: skip
            if odd:
                lines.append(
                    f"- {method}, {_size(mib)}, {_pages(huge)} pages: "
                    f"{len(odd)} of {results['rounds']} {odd[0]['status']}: "
                    f"{odd[0]['why']}"
                )
    return "\n".join(lines)


def tables(results):
    return "\n\n".join(_table(results, *figure) for figure in FIGURES)


def text(results):
    parts = (tables(results), _goal_lines(results), remarks(results))
    return "\n\n".join(part for part in parts if part)


def _milliseconds(value):
    return f"{value / 1e3:g} s" if value >= 1e3 else f"{value:g} ms"


def _gap_chart(results):
    curves = []
    for method in results["tools"]:
        for huge in (True, False):
            points = [
                (mib, gap) for mib in results["sizes"]
                if (gap := figure(results, method, mib, huge, gap_of))
            ]  # fmt: skip
            if points:
                curves.append(Curve(
                    method if huge else "small", COLORS[method], points,
                    dash=None if huge else "5 3",
                    marks=[(*p, "dot") for p in points],
                ))  # fmt: skip
    gaps = [y for c in curves for _, y in c.points]
    if not gaps:
        return None
    return Chart(
        "How long the process stands still",
        "longest gap between two of its writes; solid: huge pages, "
        "dashed: small pages",
        Axis("MiB of memory", 0, max(results["sizes"]) * 1.05),
        Axis("longest gap", min(gaps) / 2, max(gaps) * 2, log=True,
             format=_milliseconds),
        curves,
    )  # fmt: skip


def _writes_chart(results):
    """Of the size that the goal is for, the run with the median gap."""
    sizes = results["sizes"]
    mib = GOAL_MIB if GOAL_MIB in sizes else max(sizes)
    huge = not of(results, REFERENCE, mib, False)
    curves, ends = [], [1.0]
    for method in results["tools"]:
        runs = sorted(of(results, method, mib, huge), key=gap_of)
        if not runs:
            continue
        run, points = runs[len(runs) // 2], []
        for (a, rate), (b, _) in zip(run["rates"], run["rates"][1:]):
            points += [(a, rate / 1e6), (b, rate / 1e6)]
        done = run["finished_s"]
        at = next((y for x, y in points if x >= done), points[-1][1])
        curves.append(Curve(method, COLORS[method], points,
                            marks=[(done, at, "dot")]))  # fmt: skip
        ends.append(done)
    if not curves:
        return None
    high = max(y for c in curves for _, y in c.points)
    return Chart(
        f"Writes of a process of {_size(mib)} while it is dumped",
        f"{_pages(huge)} pages; random writes of 8 bytes, flat out",
        Axis("seconds since the command", -0.8, max(ends) + 0.4),
        Axis("million writes a second", 0, high * 1.06),
        curves,
        [(0, "command")],
        [("dot", "command done")],
    )


def draw(results, directory):
    """Writes what there is to draw; returns [(title, path)]."""
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    for name, make in (("gap", _gap_chart), ("writes", _writes_chart)):
        chart = make(results)
        if chart:
            path = directory / f"{name}.svg"
            path.write_text(chart.render())
            found.append((chart.title, path))
    return found


def _machine(results):
    m, disk = results["machine"], results["disk_mib_per_s"]
    touch = results["first_touch_ms"]
    busy = [r["other_cpu_share"] for r in results["runs"]
            if "other_cpu_share" in r] or [0]  # fmt: skip
    rounds = results["rounds"]
    lines = [
        "one round" if rounds == 1 else f"{rounds} rounds",
        f"{m['cpus']} CPUs ({m['cpu']}), {m['memory_mib'] / 1024:.0f} GiB of "
        f"memory, Linux {m['kernel']}; huge pages {m['thp']}",
        f"{m['file_system']}; plain O_DIRECT writes and an fsync reach "
        f"{median(disk):.0f} MiB/s ({min(disk):.0f} to {max(disk):.0f})",
        "the first touch of 2 MiB of memory takes "
        f"{median(t[0] for t in touch):.2f} ms, at worst "
        f"{max(t[1] for t in touch):.1f} ms",
        f"measured {m['date']}; before the dumps, other programs of the "
        f"machine took {100 * median(busy):.0f} % of its CPUs "
        f"(at worst {100 * max(busy):.0f} %)",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _undisturbed(results):
    gaps = [r["gap_before_ms"] for r in results["runs"]
            if r["status"] == "complete"]  # fmt: skip
    if not gaps:
        return "not measured"
    return f"{number(median(gaps))} ms (at worst {number(max(gaps))} ms)"


def _spread(results):
    """How far apart the rounds are."""
    methods = list(results["tools"])
    lines = ["| memory | pages | " + " | ".join(methods) + " |",
             "|---|---|" + "--:|" * len(methods)]  # fmt: skip
    for mib, huge in _cases(results):
        cells = [_size(mib), _pages(huge)]
        for method in methods:
            gaps = [gap_of(run) for run in of(results, method, mib, huge)]
            cells.append(f"{number(min(gaps))} … {number(max(gaps))}"
                         if gaps else NOTHING)  # fmt: skip
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _stalls(results):
    """Of the machine, while there were dumps."""
    parts = []
    for method in results["tools"]:
        runs = of(results, method)
        times = [ms for run in runs for ms in run["stalls_ms"] if ms >= 1]
        if runs:
            parts.append(
                f"{method} {len(times)} times in {len(runs)} dumps"
                + (f", for up to {number(max(times))} ms" if times else "")
            )  # fmt: skip
    return ("The machine stood still for a millisecond or longer: "
            + "; ".join(parts) + ".")  # fmt: skip


def _tools(results):
    return "\n".join(
        f"- `{name}`: {tool['what']}"
        + (f" ({tool['version']})" if tool["version"] else "")
        for name, tool in results["tools"].items()
    )


def write(results, path):
    pictures = [f"![{title}]({picture.relative_to(path.parent)})"
                for title, picture in draw(results, path.with_suffix(""))]
    odd = remarks(results)
    values = {
        "tools": _tools(results),
        "machine": _machine(results),
        "tables": tables(results),
        "goals": _goal_lines(results),
        "looked_at": f"{LOOKED_AT_S:g}",
        "undisturbed": _undisturbed(results),
        "spread": _spread(results),
        "stalls": _stalls(results),
        "pictures": "\n\n".join(pictures),
        "remarks": odd and f"Not measured:\n\n{odd}",
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]],
                  TEMPLATE.read_text())  # fmt: skip
    # What had nothing to say leaves blank lines.
    path.write_text(re.sub(r"\n{3,}", "\n\n", page).rstrip() + "\n")
