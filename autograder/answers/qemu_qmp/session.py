"""What most answers begin and end with: a QMP session, and a raw one without any library."""

from __future__ import annotations

import contextlib
import json
import socket

from qemu.qmp import QMPClient


@contextlib.asynccontextmanager
async def session(path, name="answer"):
    """Connect, hand out the client, hang up; a QEMU that has ended is no error."""
    qmp = QMPClient(name)
    await qmp.connect(path)
    try:
        yield qmp
    finally:
        with contextlib.suppress(EOFError, OSError):
            await qmp.disconnect()


class Raw:
    """A monitor spoken to by hand: one line of JSON per message."""

    def __init__(self, path, negotiate=True):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.lines = self.socket.makefile("rb")
        self.events = []
        self.read()
        if negotiate:
            self("qmp_capabilities")

    def read(self):
        line = self.lines.readline()
        if not line:
            raise EOFError("QEMU has closed the monitor")
        return json.loads(line)

    def __call__(self, command, **arguments):
        message = {"execute": command, "arguments": {k.replace("_", "-"): v for k, v in arguments.items()}}
        self.socket.sendall(json.dumps(message).encode() + b"\n")
        while True:
            got = self.read()
            if "event" in got:
                self.events.append(got)
            elif "error" in got:
                raise RuntimeError(got["error"]["desc"])
            else:
                return got["return"]

    def wait(self, name):
        while True:
            got = self.events.pop(0) if self.events else self.read()
            if got["event"] == name:
                return got

    def close(self):
        self.lines.close()
        self.socket.close()
