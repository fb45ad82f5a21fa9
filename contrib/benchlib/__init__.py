# SPDX-License-Identifier: GPL-2.0-or-later
"""What contrib/bench is made of.

    workloads   the guests and what they do
    observe     a running guest: its monitor, its serial lines, its memory
    series      serial lines -> buckets in host time -> figures
    methods     the four ways to take a snapshot
    trial       one guest, one method, all figures of it
    summary     medians, ratios, goals
    table       the same as text and Markdown
    svg, plots  pictures
    page        Documentation/benchmarks.md

And contrib/bench-core, besides svg and table:

    victim      the process that is dumped
    cores       the ways to dump it; one trial
    corepage    tables, goals, pictures, Documentation/benchmarks-core.md
"""
