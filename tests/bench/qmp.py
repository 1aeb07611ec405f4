"""A QMP command through `Machine`, against a bare JSON line on the same kind of socket of the same QEMU.

``python -m tests.bench.qmp`` prints both medians and their ratio. The two are measured in turn, command by command, so
that what else the host does falls on both alike.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import statistics
import sys
import time

from course import Machine

COMMAND = "query-status"


@dataclasses.dataclass(frozen=True)
class Result:
    """Medians of one run, in microseconds per command, and the ratio Machine : raw."""

    machine_us: float
    raw_us: float
    commands: int

    @property
    def ratio(self) -> float:
        """How many times slower a command through `Machine` is."""
        return self.machine_us / self.raw_us


class RawMonitor:
    """The least that speaks QMP: a line out, a line in."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._rest = b""
        self.line()
        self.execute("qmp_capabilities")

    def line(self) -> bytes:
        """Read one line."""
        while b"\n" not in self._rest:
            self._rest += self._sock.recv(65536)
        line, self._rest = self._rest.split(b"\n", 1)
        return line

    def execute(self, command: str) -> object:
        """Execute a command without arguments."""
        self._sock.sendall(b'{"execute":"%s"}\n' % command.encode())
        return json.loads(self.line())["return"]


def measure(commands: int = 2000) -> Result:
    """Run `commands` commands each way, in turn, and return the medians."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            fd = theirs.fileno()
            second = ("-chardev", f"socket,id=raw,fd={fd}", "-mon", "chardev=raw,mode=control")
            vm = Machine("-M", "none", *second, console=False, pass_fds=[fd], name="bench")
            vm.launch()
        try:
            raw = RawMonitor(ours)
            machine_s, raw_s = [], []
            for _ in range(commands):
                start = time.perf_counter()
                vm.execute(COMMAND)
                middle = time.perf_counter()
                raw.execute(COMMAND)
                machine_s.append(middle - start)
                raw_s.append(time.perf_counter() - middle)
        finally:
            vm.kill()
    return Result(statistics.median(machine_s) * 1e6, statistics.median(raw_s) * 1e6, commands)


def main() -> None:
    """Print the result for a person, on one line."""
    result = measure()
    sys.stdout.write(
        f"QMP {COMMAND}: through Machine {result.machine_us:.0f} µs, raw JSON line {result.raw_us:.0f} µs "
        f"(medians of {result.commands}), ratio {result.ratio:.2f}, target at most 2\n"
    )


if __name__ == "__main__":
    main()
