# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that claims to be a QEMU: listens on a socket and answers QMP in
whatever way its argument says."""

import json
import os
import socket
import sys

GREETING = (b'{"QMP": {"version": {"qemu": {"micro": 0, "minor": 2, "major": 8},'
            b' "package": ""}, "capabilities": []}}\r\n')  # fmt: skip
HEAD = ("              Block Name    PSize              Offset"
        "               Used              Total\r\n")  # fmt: skip


def block(name, offset, used, total):
    return f"{name:>24}    4 KiB  {offset:#018x} {used:#018x} {total:#018x}\r\n"


RAM = {
    "overlap": block("a", 0, 1 << 30, 1 << 30) + block("b", 4096, 4096, 4096),
    "enormous": block("a", 0, (1 << 64) - 4096, (1 << 64) - 4096),
    "absent": block("../../etc/x", 0, 1 << 30, 1 << 40),
    "names": block("\x1b[2J../../../etc/passwd", 0, 4096, 4096),
    "many": "".join(block(f"b{i}", i << 20, 4096, 4096)
                    for i in range(60000)),
}  # fmt: skip


def forever(connection, data):
    while True:
        connection.sendall(data)


def answer(mode, command):
    name = command["execute"]
    if name == "qmp_capabilities":
        return {}
    if mode == "error":
        return None
    return {
        "query-status": {"running": False, "status": "paused"},
        "query-migrate": {},
        "qom-list": [],
        "query-block": [],
        "query-memory-devices": [],
        "qom-get": "pc-i440fx-7.2-machine",
        "human-monitor-command": HEAD + RAM.get(mode, "")
        if "ramblock" in str(command) else "",
    }.get(name, {})  # fmt: skip


def serve(connection, mode):
    if mode == "silent":
        connection.recv(1)
    if mode == "garbage":
        connection.sendall(os.urandom(65536).replace(b"{", b"x"))
    if mode == "endless":
        connection.sendall(b'{"QMP": "')
        forever(connection, b"a" * 65536)
    if mode == "deep":
        connection.sendall(b'{"QMP": ')
        forever(connection, b"[" * 65536)
    connection.sendall(GREETING)
    for line in connection.makefile("rb"):
        command = json.loads(line)
        if command["execute"] != "qmp_capabilities":
            if mode == "events":
                forever(connection, b'{"event": "X"}\r\n')
            if mode == "drip":
                forever(connection, b" ")
        value = answer(mode, command)
        reply = {"id": command.get("id")}
        if value is None:
            reply["error"] = {"class": "GenericError",
                              "desc": "\x1b[2J\n" + "x" * 100000}
        else:
            reply["return"] = value
        connection.sendall(json.dumps(reply).encode() + b"\r\n")


def main():
    path, mode = sys.argv[1:]
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4)
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        try:
            serve(connection, mode)
        except (OSError, ValueError):
            pass
        connection.close()


main()
