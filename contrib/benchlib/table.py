# SPDX-License-Identifier: GPL-2.0-or-later
"""A summary as text for the terminal and as Markdown."""

from .methods import OURS, REFERENCE
from .summary import summarize

NOTHING = "–"


def number(value):
    """Three digits that matter."""
    if value is None:
        return NOTHING
    size = abs(value)
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    if size < 0.001:
        return "0"
    return f"{value:.2f}" if size >= 0.1 else f"{value:.3f}"


def ratio_text(ratio):
    if ratio is None:
        return ""
    if 0 < ratio < 0.67:
        return f"1/{1 / ratio:.1f}" if ratio > 0.02 else f"1/{1 / ratio:.0f}"
    return f"{number(ratio)} ×"


def _verdict(reached):
    return {None: "", True: "yes", False: "NO",
            "disk": "yes: the disk's own rate"}[reached]  # fmt: skip


def cells_of(results, workload):
    """(head, body) as text."""
    summary = summarize(results, workload)
    columns = summary["columns"]
    compared = OURS in columns and REFERENCE in columns
    with_goals = workload == results["goals_for"]
    head = ["", *columns]
    if compared:
        head.append(f"against {REFERENCE}")
    if with_goals:
        head += ["goal", "reached"]
    body = []
    for row, cells, ratio, reached in summary["rows"]:
        line = [f"{row.name}, {row.unit}"]
        line += [number(cells[m].value) for m in columns]
        if compared:
            line.append("" if row.absolute else ratio_text(ratio))
        if with_goals:
            line += [row.goal, _verdict(reached)]
        body.append(line)
    return head, body, summary["remarks"]


def text(results, workload):
    head, body, remarks = cells_of(results, workload)
    widths = [max(len(line[i]) for line in [head, *body])
              for i in range(len(head))]  # fmt: skip
    lines = [f"{workload}: {results['workloads'][workload]['what']}"]
    for line in [head, *body]:
        lines.append("  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths))
        ).rstrip())  # fmt: skip
    lines += [f"  {method}: {why}" for method, why in remarks.items()]
    return "\n".join(lines) + "\n"


def markdown(results, workload):
    head, body, remarks = cells_of(results, workload)
    rule = ["---", *["--:"] * (len(head) - 1)]
    lines = ["| " + " | ".join(line) + " |" for line in [head, rule, *body]]
    if remarks:
        lines.append("")
        lines += [f"- `{method}`: {why}" for method, why in remarks.items()]
    return "\n".join(lines)
