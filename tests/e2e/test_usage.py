# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line says of itself, and to those who mistype."""

import re
import shlex
import subprocess

import pytest
from harness import cli

VERBS = ["check", "dump", "inspect", "verify", "convert"]


def test_help():
    result = cli.run("--help").expect(cli.DONE)
    assert result.err == ""
    for verb in VERBS:
        assert verb in result.out.decode()


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_verb(verb):
    result = cli.run(verb, "--help").expect(cli.DONE)
    text = result.out.decode()
    assert result.err == ""
    assert f"snapuffd {verb}" in text
    assert "--json" in text
    assert max(map(len, text.splitlines())) <= 80


def test_help_names_options():
    text = cli.run("dump", "--help").expect(cli.DONE).out.decode()
    for option in ("--pid", "--out", "--qmp"):
        assert option in text


def test_version():
    result = cli.run("--version").expect(cli.DONE)
    assert re.fullmatch(r"snapuffd \d+\.\d+\S*\n", result.out.decode())
    assert result.err == ""


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["frobnicate"],
        ["--frobnicate"],
        *([verb, "--frobnicate"] for verb in VERBS),
        ["dump"],
        ["dump", "--pid", "1"],
        ["dump", "--out", "image"],
        ["dump", "--pid", "--out", "image"],
        ["dump", "--pid", "x", "--out", "image"],
        ["dump", "--pid", "1x", "--out", "image"],
        ["dump", "--pid", "0", "--out", "image"],
        ["dump", "--pid", "-1", "--out", "image"],
        ["dump", "--pid", "99999999999999999999", "--out", "image"],
        ["dump", "--pid", "", "--out", "image"],
        ["dump", "--pid", "1", "--out", ""],
        ["dump", "--pid", "1", "--out", "-"],
        ["dump", "--pid", "1", "--out", "-", "--format", "image"],
        ["dump", "--pid", "1", "--out", "-", "--format", "qemu", "--json"],
        ["dump", "--pid", "1", "--out", "file", "--format", "frobnicate"],
        ["dump", "--pid", "1", "--out", "image", "stray"],
        ["check", "--pid", "x"],
        ["check", "stray"],
        ["inspect"],
        ["inspect", "one", "two"],
        ["verify"],
        ["convert", "image"],
        ["convert", "image", "--to", "qemu"],
        ["convert", "image", "--out", "file"],
        ["convert", "image", "--to", "frobnicate", "--out", "file"],
        ["convert", "--to", "qemu", "--out", "file"],
        ["convert", "image", "--to", "qemu", "--out", "-", "--json"],
    ],
    ids=" ".join,
)
def test_usage_error(tmp_path, monkeypatch, args):
    monkeypatch.chdir(tmp_path)
    result = cli.run(*args)
    result.expect_error(cli.USAGE)
    assert result.out == b""
    assert not list(tmp_path.iterdir())


STREAMS = [
    ["dump", "--pid", "1", "--format", "qemu", "--out", "-"],
    ["convert", "image", "--to", "qemu", "--out", "-"],
]


@pytest.mark.parametrize("args", STREAMS, ids=lambda args: args[0])
def test_a_stream_does_not_go_to_a_terminal(args):
    done = subprocess.run(
        ["script", "-qec", shlex.join([cli.program(), *args]), "/dev/null"],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == cli.USAGE
    lines = done.stdout.decode().splitlines()
    assert len(lines) == 1 and "terminal" in lines[0], lines


@pytest.mark.parametrize("args", STREAMS, ids=lambda args: args[0])
def test_a_stream_needs_an_open_stdout(args):
    """Else it would go into whatever is opened first."""
    cli.run(*args, prefix=["sh", "-c", 'exec "$0" "$@" >&-']).expect_error(
        cli.USAGE, "closed"
    )
