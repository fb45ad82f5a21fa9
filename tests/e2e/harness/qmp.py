# SPDX-License-Identifier: GPL-2.0-or-later
"""A minimal QMP client: one command at a time, events are dropped."""

import json
import socket
import time


class QmpError(Exception):
    """QEMU refused a command; str() is its description."""


class Qmp:
    """One connection.  QEMU serves one client per monitor: close it soon."""

    def __init__(self, path, timeout=20):
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(timeout)
        deadline = time.monotonic() + timeout
        while True:
            try:
                self._sock.connect(str(path))
                break
            except (FileNotFoundError, ConnectionRefusedError):
                if time.monotonic() > deadline:
                    self._sock.close()
                    raise
                time.sleep(0.02)
        self._file = self._sock.makefile("rwb")
        if "QMP" not in self._read():
            raise QmpError(f"{path}: no greeting")
        self.command("qmp_capabilities")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._file.close()
        self._sock.close()

    def _read(self):
        line = self._file.readline()
        if not line:
            raise ConnectionResetError("QMP connection closed")
        return json.loads(line)

    def command(self, name, **arguments):
        """Returns what the command returns; `_` in argument names is `-`."""
        request = {"execute": name}
        if arguments:
            request["arguments"] = {
                key.replace("_", "-"): value
                for key, value in arguments.items()
            }
        self._file.write(json.dumps(request).encode() + b"\n")
        self._file.flush()
        while True:
            reply = self._read()
            if "error" in reply:
                raise QmpError(f"{name}: {reply['error']['desc']}")
            if "return" in reply:
                return reply["return"]

    def hmp(self, line):
        return self.command("human-monitor-command", command_line=line)
