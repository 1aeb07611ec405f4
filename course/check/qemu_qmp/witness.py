"""What the checks know by themselves: a transcript of the answer's monitor, and a monitor of their own.

An answer gets the address of a relay. Behind it is a monitor of a virtual machine that the check has started; the
check keeps another monitor of the same machine, which no answer can reach.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ... import guest
from ...error import EventTimeout
from ...machine import Machine
from ...machine.transcript import QmpProxy

Message = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Line:
    """One message that passed the relay.

    Attributes:
        sent: True from the answer to QEMU, False from QEMU to the answer (when it was handed over).
        seconds: since the relay began.
        message: the message.
    """

    sent: bool
    seconds: float
    message: Message


class Transcript:
    """What passed between an answer and QEMU, in order."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = list(lines)

    @classmethod
    def of(cls, proxy: QmpProxy) -> Transcript:
        """Read a relay's transcript."""
        seen = [entry for entry in proxy.transcript if entry.direction in ("client", "qemu", "proxy")]
        return cls([Line(entry.direction == "client", entry.time_s, entry.message) for entry in seen])

    def __iter__(self) -> Iterator[Line]:
        return iter(self.lines)

    @property
    def commands(self) -> list[str]:
        """Names of the commands sent, in order, without the negotiation."""
        named = [name_of(line.message) for line in self.lines if line.sent]
        return [name for name in named if name and name != "qmp_capabilities"]

    @property
    def told(self) -> str:
        """The commands sent, for a message: repeated ones are counted."""
        runs = [(name, len(list(run))) for name, run in itertools.groupby(self.commands)]
        return ", ".join(f"{name} (×{count})" if count > 1 else name for name, count in runs) or "nothing"

    @property
    def negotiated(self) -> bool:
        """Tell whether qmp_capabilities was sent."""
        return any(line.sent and line.message.get("execute") == "qmp_capabilities" for line in self.lines)

    def arguments(self, command: str) -> list[Message]:
        """Arguments of each time that `command` was sent."""
        return [
            dict(line.message.get("arguments", {}))
            for line in self.lines
            if line.sent and name_of(line.message) == command
        ]

    def errors(self) -> list[str]:
        """Descriptions of the errors that QEMU replied, in order."""
        return [line.message["error"]["desc"] for line in self.lines if not line.sent and "error" in line.message]

    def delivered(self, event: str) -> list[Message]:
        """Events of this name that the answer received."""
        return [line.message for line in self.lines if not line.sent and line.message.get("event") == event]

    def news_of_jobs(self) -> list[str]:
        """Statuses of jobs that the answer received, by event or by query-jobs, in order."""
        news = []
        for line in self.lines:
            if line.sent:
                continue
            if line.message.get("event") == "JOB_STATUS_CHANGE":
                news.append(str(line.message["data"]["status"]))
            elif isinstance(line.message.get("return"), list):
                news += [str(job["status"]) for job in line.message["return"] if _is_job(job)]
        return news

    def asked_for_jobs(self) -> bool:
        """Tell whether the answer asked which jobs there are, and was told of none."""
        return any(name in ("query-jobs", "query-block-jobs") for name in self.commands[-3:])

    def errors_of_jobs(self) -> list[str]:
        """Errors of jobs that query-jobs told, and errors that the human monitor printed."""
        found = []
        for line in self.lines:
            value = None if line.sent else line.message.get("return")
            if isinstance(value, list):
                found += [str(job["error"]) for job in value if _is_job(job) and "error" in job]
            elif isinstance(value, str) and value.startswith("Error"):
                found.append(value.strip())
        return found


def _is_job(entry: Any) -> bool:
    return isinstance(entry, dict) and {"id", "type", "status"} <= entry.keys()


def name_of(message: Message) -> str:
    """Name of the command in a message, empty for a message that is none."""
    return str(message.get("execute", message.get("exec-oob", "")))


def bare_metal(
    *arguments: str, memory: str = "64", dirty_mib: int = 0, paused: bool = False, incoming: bool = False
) -> Machine:
    """Make a machine without any operating system: its only program counts in RAM (see `course.guest.counter`).

    Args:
        *arguments: more arguments of QEMU.
        memory: QEMU's ``-m``: MiB, and slots for more.
        dirty_mib: MiB of RAM that the program writes to all the time.
        paused: begin in the state prelaunch.
        incoming: wait for the guest of another machine.
    """
    program = guest.baremetal.counter(dirty_mib=dirty_mib)
    stop = ["-S"] if paused else []
    return Machine("-m", memory, "-kernel", program, *stop, *arguments, name="check", qmp_sockets=1, incoming=incoming)


def counter(vm: Machine) -> int:
    """Read the guest's counter from its RAM."""
    return guest.counter(vm)


def counts_on(vm: Machine, steps: int = 3, timeout_s: float = 10) -> int:
    """Wait until the guest has counted on by so many steps; returns the counter.

    Raises:
        EventTimeout: when it does not.
    """
    first, end = counter(vm), time.monotonic() + timeout_s
    while (now := counter(vm)) < first + steps:
        if time.monotonic() > end:
            raise vm.fault(EventTimeout, f"{vm.name}'s guest stands at {now} and has not counted for {timeout_s:g} s.")
        time.sleep(0.01)
    return now
