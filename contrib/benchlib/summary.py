# SPDX-License-Identifier: GPL-2.0-or-later
"""From runs to medians, ratios and goals."""

from dataclasses import dataclass
from statistics import median

from .methods import OURS, REFERENCE

DD_SLACK = 1.1  # "the disk's own rate" is reached within a tenth


@dataclass(frozen=True)
class Row:
    """One line of the table.  `value` of a run's record; `goal`: the sense of
    it ("<=", ">=") and the ratio against the reference, or with `absolute` the
    value itself.  `compare`: whether the ratio says anything."""

    key: str
    name: str
    value: object
    unit: str
    sense: str | None = None
    limit: float | None = None
    absolute: bool = False
    compare: bool = True

    @property
    def goal(self):
        if not self.sense:
            return ""
        sign = {"<=": "≤", ">=": "≥"}[self.sense]
        if self.absolute:
            return f"{sign} {self.limit:g} {self.unit}"
        inverse = 1 / self.limit
        if self.limit < 1 and abs(inverse - round(inverse)) < 1e-9:
            return f"{sign} 1/{inverse:.0f}"
        return f"{sign} {self.limit:g} ×"

    def reached(self, ours, ratio):
        """None where there is nothing to compare."""
        got = ours if self.absolute else ratio
        if not self.sense or got is None:
            return None
        return got <= self.limit if self.sense == "<=" else got >= self.limit


def _scaled(key, factor):
    return lambda run: None if run.get(key) is None else run[key] * factor


def _share(key, of):
    def value(run):
        if run.get(key) is None or not run.get(of):
            return None
        return 100 * run[key] / run[of]

    return value


def _huge_kept(run):
    """Where there were hardly any, keeping them says nothing."""
    if run.get("huge_before_kib", 0) < 64 << 10:
        return None
    return 100 * run["huge_after_kib"] / run["huge_before_kib"]


def _longest_service(run):
    """From reading the event to the release, as the program says itself."""
    longest = run.get("report", {}).get("faults", {}).get("max_us")
    return None if longest is None else longest / 1e3


ROWS = (
    Row("captured", "last page captured after", _scaled("captured_s", 1), "s",
        "<=", 1 / 8),
    Row("frozen", "… of that before the freeze", _scaled("frozen_s", 1), "s",
        compare=False),
    Row("complete", "image complete on disk after", _scaled("complete_s", 1),
        "s", "<=", 1 / 2),
    Row("worst_second", "writes in the worst second",
        _scaled("worst_second", 1e-3), "k", ">=", 10),
    Row("worst_share", "… of its undisturbed rate",
        _share("worst_second", "rate_before"), "%"),
    Row("p99", "p99 of a write, affected seconds", _scaled("p99_us", 1), "µs",
        "<=", 1 / 20),
    Row("p99_held_up", "… freeze to last page only",
        _scaled("p99_held_up_us", 1), "µs"),
    Row("p99_calm", "… undisturbed", _scaled("p99_before_us", 1), "µs",
        compare=False),
    Row("worst", "worst single write", _scaled("worst_us", 1e-3), "ms",
        "<=", 1 / 2),
    Row("service", "… longest service of a fault", _longest_service, "ms",
        compare=False),
    Row("worst_calm", "… undisturbed, in 3 s",
        _scaled("worst_before_us", 1e-3), "ms", compare=False),
    Row("huge", "huge pages kept", _huge_kept, "%", ">=", 90, True),
    Row("pause", "pause", _scaled("pause_ms", 1), "ms", "<=", 5, True),
    Row("size", "image size", _scaled("image_bytes", 1 / (1 << 20)), "MiB",
        "<=", 1),
    Row("after", "write rate afterwards, of before",
        _share("rate_after", "rate_before"), "%", compare=False),
    Row("rss", "QEMU has grown by", _scaled("rss_growth_kib", 1 / 1024),
        "MiB", compare=False),
    Row("qemu_cpu", "CPU time of QEMU", _scaled("qemu_cpu_s", 1), "s"),
    Row("own_cpu", "CPU time of the program", _scaled("own_cpu_s", 1), "s"),
)  # fmt: skip
NEEDS_END = {"complete", "size"}  # worthless of a run that was cut


@dataclass(frozen=True)
class Cell:
    value: float | None
    low: float | None = None
    high: float | None = None


def _cell(row, runs):
    if row.key in NEEDS_END:
        runs = [r for r in runs if r["status"] == "complete"]
    values = [v for r in runs if (v := row.value(r)) is not None]
    if not values:
        return Cell(None)
    return Cell(median(values), min(values), max(values))


def runs_of(results, workload):
    found = {}
    for run in results["runs"]:
        if run["workload"] == workload:
            found.setdefault(run["method"], []).append(run)
    return found


def remark(runs):
    """Why a column is not what it seems, None if all is well."""
    odd = [r for r in runs if r["status"] != "complete"]
    if not odd:
        return None
    why = odd[0]["why"] or odd[0]["status"]
    if odd[0]["status"] in ("refused", "failed"):
        why = f"{odd[0]['status']}: {why}"
    return why if len(odd) == len(runs) else f"{len(odd)} of {len(runs)}: {why}"


def summarize(results, workload):
    """{"columns", "rows": [(Row, {method: Cell}, ratio, reached)], "remarks"}"""
    by_method = runs_of(results, workload)
    methods = [m for m in results["methods"] if m in by_method]
    rows = []
    for row in ROWS:
        cells = {m: _cell(row, by_method[m]) for m in methods}
        if all(cell.value is None for cell in cells.values()):
            continue
        ours = cells.get(OURS, Cell(None)).value
        theirs = cells.get(REFERENCE, Cell(None)).value
        ratio = None
        if ours is not None and theirs and row.compare:
            ratio = ours / theirs
        reached = row.reached(ours, ratio)
        if row.key == "complete" and reached is False:
            reached = _at_disk_rate(results, by_method[OURS], ours) or False
        rows.append((row, cells, ratio, reached))
    remarks = {m: text for m in methods if (text := remark(by_method[m]))}
    return {"columns": methods, "rows": rows, "remarks": remarks}


def _at_disk_rate(results, runs, seconds):
    """"disk" if no plain writer could have been quicker."""
    if not results["disk_mib_per_s"]:
        return None
    size = median(r["image_bytes"] for r in runs if "image_bytes" in r)
    fastest = size / (1 << 20) / median(results["disk_mib_per_s"])
    return "disk" if seconds <= DD_SLACK * fastest else None


def as_json(results, workload):
    summary = summarize(results, workload)
    return {
        row.key: {
            "name": row.name,
            "unit": row.unit,
            "median": {m: c.value for m, c in cells.items()},
            "ratio": ratio,
            "goal": row.goal if workload == results["goals_for"] else "",
            "reached": reached if workload == results["goals_for"] else None,
        }
        for row, cells, ratio, reached in summary["rows"]
    }
