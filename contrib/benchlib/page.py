# SPDX-License-Identifier: GPL-2.0-or-later
"""Documentation/benchmarks.md: page.md.in with figures and pictures filled in.

A placeholder is {{name}}; what it is replaced by is said below.
"""

import re
from pathlib import Path
from statistics import median

from . import plots, summary, table

TEMPLATE = Path(__file__).with_name("page.md.in")


def _rounds(n):
    return "one round" if n == 1 else f"{n} rounds"


def _machine(results):
    m = results["machine"]
    disk = results["disk_mib_per_s"]
    touch = results["first_touch_ms"]
    busy = [r["other_cpu_share"] for r in results["runs"]]
    lines = [
        f"{m['cpus']} CPUs ({m['cpu']}), {m['memory_mib'] / 1024:.0f} GiB of "
        f"memory, Linux {m['kernel']}",
        f"{m['qemu']}; huge pages {m['thp']}",
        f"{m['file_system']}; plain O_DIRECT writes and an fsync reach "
        f"{median(disk):.0f} MiB/s ({min(disk):.0f} to {max(disk):.0f})",
        "the first touch of 2 MiB of memory takes "
        f"{median(t[0] for t in touch):.2f} ms, at worst "
        f"{max(t[1] for t in touch):.1f} ms",
        f"measured {m['date']}, {_rounds(results['rounds'])}; other programs of "
        f"the machine took {100 * median(busy):.0f} % of its CPUs "
        f"(at worst {100 * max(busy):.0f} %)",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _section(results, name, pictures):
    info = results["workloads"][name]
    lines = [f"## {name}", "", info["what"][0].upper() + info["what"][1:] + "."]
    if info["skip"]:
        return "\n".join([*lines, "", f"Skipped: {info['skip']}."])
    lines += ["", table.markdown(results, name)]
    for kind, path in pictures:
        text = {"rate": "writes over time", "latency": "latency of writes"}
        lines += ["", f"![{name}: {text[kind]}]({path})"]
    return "\n".join(lines)


def _spread(results):
    """How far apart the rounds are, of the main workload."""
    lines = ["| | " + " | ".join(results["methods"]) + " |",
             "|---|" + "--:|" * len(results["methods"])]  # fmt: skip
    for row, cells, _, _ in summary.summarize(results, results["goals_for"])[
        "rows"
    ]:
        texts = []
        for method in results["methods"]:
            cell = cells.get(method)
            texts.append(
                table.NOTHING if cell is None or cell.value is None
                else f"{table.number(cell.low)} … {table.number(cell.high)}"
            )  # fmt: skip
        lines.append(f"| {row.name}, {row.unit} | {' | '.join(texts)} |")
    return "\n".join(lines)


def write(results, path):
    directory = path.with_suffix("")
    drawn = {}
    for name, kind, picture in plots.draw(results, directory):
        relative = picture.relative_to(path.parent)
        drawn.setdefault(name, []).append((kind, relative))
    main = results["goals_for"]
    values = {
        "machine": _machine(results),
        "spread": _spread(results),
        "main": _section(results, main, drawn.get(main, []))
        if main in results["workloads"] else "Not measured.",
        "others": "\n\n".join(
            _section(results, name, drawn.get(name, []))
            for name in results["workloads"] if name != main
        ),
    }  # fmt: skip
    text = re.sub(r"\{\{(\w+)\}\}", lambda m: values[m[1]],
                  TEMPLATE.read_text())  # fmt: skip
    path.write_text(text)
