# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs inside gdb, on a core of the victim: writes what the judge needs to the
directory that VICTIM_FACTS names."""

import json
import os

import gdb

PLACE = os.environ["VICTIM_FACTS"]
PAGE = 4096


def number(expression):
    return int(gdb.parse_and_eval(expression)) & (2**64 - 1)


def text(expression):
    return gdb.parse_and_eval(expression).string()


def save(name, at, length):
    try:
        data = gdb.selected_inferior().read_memory(at, length)
    except gdb.MemoryError:
        return
    with open(os.path.join(PLACE, name), "wb") as file:
        file.write(data)


def frames():
    found = []
    frame = gdb.newest_frame()
    while frame and len(found) < 32:
        found.append(frame.name())
        frame = frame.older()
    return found


def threads():
    found = []
    for thread in gdb.selected_inferior().threads():
        thread.switch()
        try:
            tls = number("victim_tls_mark")
        except gdb.error as error:
            print(f"thread {thread.ptid[1]}: no TLS: {error}")
            tls = None
        found.append({
            "tid": thread.ptid[1],
            "frames": frames(),
            "r12": number("$r12"),
            "xmm15": number("$xmm15.v2_int64[0]"),
            "fs_base": number("$fs_base"),
            "tls": tls,
        })  # fmt: skip
    return found


def table():
    return [
        {
            "tid": number(f"victim_threads[{i}].tid"),
            "name": text(f"victim_threads[{i}].name"),
        }
        for i in range(number("victim_n_threads"))
        if number(f"victim_threads[{i}].tid")
    ]


def journal():
    if not number("(unsigned long)journal"):
        return None
    at = number("(unsigned long)&journal->pages")
    n_pages = number("journal->n_pages")
    save("journal", at, n_pages * PAGE)
    return {"seq": number("journal->seq"), "n_pages": n_pages, "at": at}


def blocks():
    found = []
    for i in range(number("sizeof(churns) / sizeof(churns[0])")):
        churn = f"churns[{i}]"
        if not number(f"{churn}.on"):
            continue
        block = {
            key: number(f"{churn}.{key}")
            for key in ("n_pages", "step", "n_done", "state", "n_rounds")
        }
        block["name"] = text(f"{churn}.name")
        block["at"] = number(f"(unsigned long){churn}.at")
        if block["state"]:
            save(block["name"], block["at"], block["n_pages"] * PAGE)
        found.append(block)
    return found


with open(os.path.join(PLACE, "facts.json"), "w") as out:
    json.dump({
        "threads": threads(),
        "table": table(),
        "journal": journal(),
        "blocks": blocks(),
        "counter": number("registers.page[0]"),
    }, out)  # fmt: skip
