"""A Linux guest, stopped: its physical memory in a file, and what QEMU says about its virtual addresses.

Each process makes such a snapshot once per name and keeps it; the file goes when the process does.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import os
import random
import re
import tempfile
from pathlib import Path

from ...machine import Machine

RAM_BYTES = 128 << 20
TEXT, DIRECT_MAP = 0xFFFFFFFF81000000, 0xFFFF888000000000
_GPA = re.compile(r"gpa: (0x[0-9a-f]+)")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A stopped Linux.

    Attributes:
        cr3: as its processor has it.
        ram: path of the file that holds its physical memory from address 0 on.
        truth: kind of address → virtual address → what QEMU's ``gva2gpa`` says, None where nothing is mapped.
    """

    cr3: int
    ram: str
    truth: dict[str, dict[int, int | None]]


@functools.cache
def snapshot(name: str) -> Snapshot:
    """Stop a Linux guest and keep what the checks need; `name` tells one snapshot from another."""
    from ... import guest  # noqa: PLC0415 - only here is a machine needed

    rng = random.Random(name)
    with guest.linux(name="walked") as vm:
        vm.console.run("ls /proc > /dev/null")
        vm.pause()
        registers = vm.hmp("info registers")
        cr3, stack, rip = (int(_register(name, registers), 16) for name in ("CR3", "RSP", "RIP"))
        truth = {
            kind: {address: ask(vm, address) for address in addresses}
            for kind, addresses in _addresses(rng, stack, rip).items()
        }
        return Snapshot(cr3, _keep(vm.read_memory(0, RAM_BYTES)), truth)


def ask(vm: Machine, address: int) -> int | None:
    """Return QEMU's own translation of a virtual address."""
    found = _GPA.search(vm.hmp(f"gva2gpa {address:#x}"))
    return int(found[1], 16) if found else None


def _register(name: str, registers: str) -> str:
    found = re.search(rf"\b{name}=([0-9a-f]+)", registers)
    assert found, f"QEMU tells no {name}"
    return found[1]


def _addresses(rng: random.Random, stack: int, rip: int) -> dict[str, list[int]]:
    """Addresses of each kind, chosen at random."""
    direct = [DIRECT_MAP + rng.randrange(RAM_BYTES) for _ in range(24)]
    return {
        "where the processor is": [rip],
        "kernel text": [TEXT + rng.randrange(8 << 20) for _ in range(24)],
        "kernel stack": [stack, stack - 8, *((stack & -4096) + rng.randrange(4096) for _ in range(4))],
        "all of RAM": direct,
        "fixed addresses": [0xFFFFFFFFFF5FB000, 0xFFFFFFFFFF5FD0F0, 0xFFFFFFFFFF600000],
        "nothing": [
            0xDEAD0000 + rng.randrange(1 << 12),
            DIRECT_MAP + (1 << 38) + rng.randrange(1 << 30),
            *(rng.randrange(0x10000, 1 << 44) for _ in range(6)),
        ],
        "not canonical": [address & (1 << 48) - 1 | rng.choice((0, 0x00FF << 48)) for address in direct[:6]]
        + [TEXT & (1 << 48) - 1, TEXT & ~(1 << 60)],
    }


def _keep(data: bytes) -> str:
    handle, path = tempfile.mkstemp(prefix="course-ram-")
    owner = os.getpid()

    def remove() -> None:
        if os.getpid() == owner:
            Path(path).unlink(missing_ok=True)

    atexit.register(remove)
    zeros = bytes(1 << 16)
    with os.fdopen(handle, "wb") as file:
        for at in range(0, len(data), len(zeros)):  # what is empty takes no room on the disk
            if (piece := data[at : at + len(zeros)]) != zeros:
                os.pwrite(file.fileno(), piece, at)
        file.truncate(len(data))
    return path
