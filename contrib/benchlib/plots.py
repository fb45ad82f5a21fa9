# SPDX-License-Identifier: GPL-2.0-or-later
"""The two pictures of a workload."""

from .methods import REFERENCE
from .svg import Axis, Chart, Curve

# Okabe and Ito's, which all eyes can tell apart.
COLORS = {
    "migrate": "#e69f00",
    "stop-migrate": "#009e73",
    "background-snapshot": "#d55e00",
    "snapuffd": "#0072b2",
}
UNDISTURBED = "#999999"
SHOWN_AFTER_S = 2.5
SHOWN_MAX_S = 20
LOWEST_NS = 10
LONGEST_GAP_S = 0.25  # between buckets; a longer one is shown as no writes


def _typical(runs):
    """The run whose last page came in the middle of all rounds."""
    known = sorted(runs, key=lambda r: r.get("captured_s") or r["complete_s"])
    return known[len(known) // 2]


def _rates(run):
    """Steps of (s since the command, thousand writes/s)."""
    points = []
    for start, end, writes, _, _ in run["buckets"]:
        if points and start - points[-1][0] < LONGEST_GAP_S:
            start = points[-1][0]  # the guest was late, or printed
        elif points:
            points += [(points[-1][0], 0), (start, 0)]
        if end - start < 0.01:
            continue
        rate = writes / (end - start) / 1e3
        points += [(start, rate), (end, rate)]
    for stop, resume in run["pauses"]:
        if resume - stop > 0.1:
            points = [p for p in points if not stop < p[0] < resume]
            points += [(stop, 0), (resume, 0)]
            points.sort(key=lambda p: p[0])
    return points


def _height(points, x):
    return next((y for t, y in points if t >= x), points[-1][1])


def rate_chart(workload, what, runs_of):
    """runs_of: {method: [records that have buckets]}"""
    typical = {m: _typical(runs) for m, runs in runs_of.items()}
    ends = [r["complete_s"] for r in typical.values()
            if r["status"] == "complete"]  # fmt: skip
    last = min(SHOWN_MAX_S, max(ends, default=5) + SHOWN_AFTER_S)
    curves = []
    for method, run in typical.items():
        points = _rates(run)
        marks = []
        if run["captured_s"]:
            marks.append((run["captured_s"],
                          _height(points, run["captured_s"]), "dot"))
        if run["status"] == "complete":
            marks.append((run["complete_s"],
                          _height(points, run["complete_s"]), "square"))
        curves.append(Curve(method, COLORS[method], points, marks=marks))
    high = max((y for c in curves for x, y in c.points if x <= last),
               default=1)  # fmt: skip
    return Chart(
        f"{workload}: the guest's writes around the snapshot",
        what,
        Axis("seconds since the command", -2, last),
        Axis("thousand writes a second", 0, (high or 1) * 1.06),
        curves,
        [(0, "command")],
        [("dot", "last page captured"), ("square", "image on disk")],
    )


def _slower_than(hist):
    """(us, share of writes that took at least so long)"""
    total = sum(hist.values())
    points, left = [], total
    for ns, n in sorted(hist.items()):
        at = max(ns, LOWEST_NS) / 1e3
        points.append((at, left / total))
        left -= n
    return points


def _merge(runs, span_of):
    hist = {}
    for run in runs:
        start, end = span_of(run)
        for begin, stop, _, _, pairs in run["buckets"]:
            if stop > start and begin < end:
                for ns, n in pairs:
                    hist[ns] = hist.get(ns, 0) + n
    return hist


def _held_up(run):
    return run["frozen_s"] or 0, run["captured_s"] or run["complete_s"]


def _percent(share):
    return f"{share * 100:.9f}".rstrip("0").rstrip(".") + " %"


def latency_chart(workload, what, runs_of):
    """Of the writes while pages are captured, all rounds together."""
    calm = _merge([r for runs in runs_of.values() for r in runs],
                  lambda _: (-60, 0))  # fmt: skip
    curves = []
    if sum(calm.values()):
        curves.append(Curve("undisturbed", UNDISTURBED, _slower_than(calm),
                            dash="5 3"))  # fmt: skip
    for method, runs in runs_of.items():
        hist = _merge(runs, _held_up)
        if sum(hist.values()):
            curves.append(Curve(method, COLORS[method], _slower_than(hist)))
    points = [p for c in curves for p in c.points]
    if not points:
        return None

    def us(value):
        return f"{value / 1e3:g} ms" if value >= 1e3 else f"{value:g} µs"

    return Chart(
        f"{workload}: how long a write takes",
        what + "; between freeze and last page",
        Axis("latency of one write", min(x for x, _ in points),
             max(x for x, _ in points) * 1.2, log=True, format=us),
        Axis("share of the writes that take longer",
             max(1e-7, min(y for _, y in points)), 1, log=True,
             format=_percent),
        curves,
    )  # fmt: skip


def draw(results, directory):
    """Writes all that there is to draw; returns [(workload, kind, path)]."""
    directory.mkdir(parents=True, exist_ok=True)
    found = []
    for workload, what in results["workloads"].items():
        runs_of = {}
        for run in results["runs"]:
            if run["workload"] == workload and run.get("buckets"):
                runs_of.setdefault(run["method"], []).append(run)
        runs_of = {m: runs_of[m] for m in COLORS if m in runs_of}
        if len(runs_of) < 2 and REFERENCE not in runs_of:
            continue
        for kind, make in (("rate", rate_chart), ("latency", latency_chart)):
            if kind == "rate" and not any(
                b[2] for runs in runs_of.values() for r in runs
                for b in r["buckets"]
            ):
                continue
            chart = make(workload, what["what"], runs_of)
            if chart:
                path = directory / f"{workload}-{kind}.svg"
                path.write_text(chart.render())
                found.append((workload, kind, path))
    return found
