# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs of the distribution, each in a directory of its own and under a
load of its own; no service of the system is touched."""

import contextlib
import http.client
import os
import pwd
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from . import host, process

SOURCES = Path(__file__).resolve().parents[1] / "targets"
PYTHON = "/usr/bin/python3"


def need(name, *places):
    """The path of a program, or a skip."""
    path = os.pathsep.join([os.environ["PATH"], "/usr/sbin", *places])
    found = shutil.which(name, path=path)
    if not found:
        pytest.skip(f"{name} is not installed")
    return found


def run(*argv, **options):
    done = subprocess.run(
        list(map(str, argv)), stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=60, **options,
    )  # fmt: skip
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Bench(process.Target):
    """A load generator of the distribution, until it is closed."""


class Redis:
    def __init__(self, targets, place):
        server = need("redis-server")
        self._bench = need("redis-benchmark")
        self._socket = str(place / "redis")
        self._targets = targets
        self.target = targets.start(
            [server, "--port", "0", "--unixsocket", self._socket, "--save", "",
             "--dir", place, "--maxmemory", "200mb", "--daemonize", "no"],
            "Ready to accept|The server is now ready",
        )  # fmt: skip
        self._client = None

    def _call(self):
        if not self._client:
            self._client = socket.socket(socket.AF_UNIX)
            self._client.connect(self._socket)
        self._client.sendall(b"INCR calls\r\n")
        assert self._client.recv(64).startswith(b":")

    def load(self):
        run(self._bench, "-s", self._socket, "-q", "-t", "set", "-r", "100000",
            "-d", "300", "-n", "60000", "-P", "16")  # fmt: skip
        bench = self._targets.start(
            [self._bench, "-s", self._socket, "-q", "-t", "set", "-r",
             "100000", "-d", "300", "-c", "8", "-n", "100000", "-l"]
        )  # fmt: skip
        return process.Load(self._call), bench

    def settle(self):
        if self._client:
            self._client.close()
            self._client = None

    def judge(self):
        self._call()
        self.settle()


class Postgres:
    def __init__(self, targets, place):
        bins = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
        if not bins:
            pytest.skip("postgresql is not installed")
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no user postgres")
        self._bin, self._targets = bins[-1], targets
        self._as = {"user": user.pw_uid, "group": user.pw_gid,
                    "extra_groups": []}  # fmt: skip
        self.place = Path(run("mktemp", "-d", "/tmp/victim-pg-XXXXXX").strip())
        targets.adopt(self)  # removed after the server is gone
        os.chown(self.place, user.pw_uid, user.pw_gid)
        run(self._bin / "initdb", "-D", self.place / "data", "-A", "trust",
            "--no-sync", "--locale=C", cwd=self.place, **self._as)  # fmt: skip
        self._env = {**os.environ, "PGHOST": str(self.place), "PGPORT": "5432",
                     "PGUSER": "postgres", "PGDATABASE": "postgres"}  # fmt: skip
        self.target = targets.start(
            [self._bin / "postgres", "-D", self.place / "data", "-c",
             "listen_addresses=", "-c", f"unix_socket_directories={self.place}",
             "-c", "shared_buffers=32MB", "-c", "fsync=off"],
            "ready to accept", stop=signal.SIGQUIT, cwd=self.place, **self._as,
        )  # fmt: skip
        run(self._bin / "pgbench", "-i", "-q", "-s", "2", env=self._env)

    def close(self):
        shutil.rmtree(self.place)

    def _call(self):
        self.psql("update pgbench_accounts set abalance = 1 where aid = 7")

    def psql(self, query):
        return run(self._bin / "psql", "-qAt", "-c", query, env=self._env)

    def load(self):
        bench = self._targets.start(
            [self._bin / "pgbench", "-c", "4", "-j", "1", "-T", "1000", "-P",
             "1", "-n"],
            env=self._env, cwd=self.place, **self._as,
        )  # fmt: skip
        host.wait_for(lambda: len(self.backends()) >= 4)
        return process.Load(self._call), bench

    def backends(self):
        """Pids of those that serve the benchmark."""
        found = set()
        for pid in process.children(self.target.pid):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                title = Path(f"/proc/{pid}/cmdline").read_bytes()
                if b"[local]" in title:
                    found.add(pid)
        return found

    def settle(self):
        host.wait_for(lambda: not self.backends())

    def judge(self):
        """What pgbench writes keeps its sums."""
        sums = [
            self.psql(f"select coalesce(sum({column}), 0) from {table}").strip()
            for table, column in (("pgbench_tellers", "tbalance"),
                                  ("pgbench_branches", "bbalance"))
        ]  # fmt: skip
        assert sums[0] == sums[1]
        assert "PANIC" not in self.target.text()
        self.settle()


class Nginx:
    def __init__(self, targets, place):
        server = need("nginx")
        self._ab, self._targets = need("ab"), targets
        self._port = free_port()
        place.chmod(0o755)
        (place / "index.html").write_text("as it was\n" * 200)
        (place / "conf").write_text(
            f"daemon off; master_process off; pid {place}/pid; error_log stderr;"
            "events { worker_connections 256; }"
            f"http {{ access_log off; server {{ listen 127.0.0.1:{self._port};"
            f" root {place}; }} }}"
        )
        self.target = targets.start(
            [server, "-p", place, "-c", place / "conf", "-e", "stderr"]
        )
        host.wait_for(self._answers)

    def _answers(self):
        with contextlib.suppress(OSError):
            self._call()
            return True

    def _call(self):
        client = http.client.HTTPConnection("127.0.0.1", self._port, timeout=20)
        client.request("GET", "/index.html")
        answer = client.getresponse()
        assert answer.status == 200 and b"as it was" in answer.read()
        client.close()

    def load(self):
        bench = self._targets.start(
            [self._ab, "-q", "-k", "-c", "8", "-t", "1000", "-n", "100000000",
             f"http://127.0.0.1:{self._port}/index.html"]
        )  # fmt: skip
        return process.Load(self._call), bench

    def settle(self):
        pass

    def judge(self):
        self._call()


class Ticking:
    """A program that prints a line every 5 ms and is its own load."""

    def __init__(self, targets, argv, inner=False, **options):
        self.target = targets.start(argv, "^tick$", **options)
        if inner:
            # argv starts it in a namespace of its own.
            host.wait_for(lambda: process.children(self.target.pid))
            self.target.pid, = process.children(self.target.pid)

    def load(self):
        return process.Ticks(self.target), None

    def settle(self):
        pass

    def judge(self):
        process.Ticks(self.target).wait_calls(20)


def python(targets, place):
    return Ticking(targets, [need("python3", "/usr/bin"), SOURCES / "ticks.py"])


def namespaces(targets, place):
    """As root in a user namespace, pid 1 in its own pid namespace."""
    argv = [need("unshare"), "-Umpnf", "--mount-proc", "--map-root-user"]
    if subprocess.run([*argv, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces")
    return Ticking(targets, [*argv, PYTHON, SOURCES / "ticks.py"], inner=True)


def java(targets, place):
    javac, jvm = need("javac"), need("java")
    run(javac, "-d", place, SOURCES / "Ticks.java")
    return Ticking(
        targets,
        [jvm, "-Xmx64m", "-XX:ReservedCodeCacheSize=16m",
         "-XX:CompressedClassSpaceSize=16m", "-XX:+UseG1GC", "-cp", place,
         "Ticks"],
    )  # fmt: skip


def go(targets, place):
    compiler = need("go")
    cache = place / "go"
    run(compiler, "build", "-o", place / "ticks", SOURCES / "ticks.go",
        env={**os.environ, "GOCACHE": str(cache), "CGO_ENABLED": "0",
             "GOFLAGS": "-mod=mod", "GO111MODULE": "off"})  # fmt: skip
    shutil.rmtree(cache)
    return Ticking(targets, [place / "ticks"])
