"""A Linux guest, stopped: its page tables, and what QEMU says about its virtual addresses.

Each process makes such a snapshot once per name and keeps it. For an answer it becomes a file as large as the guest's
memory, in which all pages that are no tables are holes: half a megabyte on the disk instead of a hundred.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import random
import re
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ...machine import Machine
from ...vcpu.paging import ADDRESS, ENTRIES, PAGE, PS, P

RAM_BYTES = 128 << 20
TEXT, DIRECT_MAP = 0xFFFFFFFF81000000, 0xFFFF888000000000
_GPA = re.compile(r"gpa: (0x[0-9a-f]+)")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A stopped Linux.

    Attributes:
        cr3: as its processor has it.
        tables: the content of each page that is a table, by physical address.
        truth: kind of address → virtual address → what QEMU's ``gva2gpa`` says, None where nothing is mapped.
    """

    cr3: int
    tables: dict[int, bytes]
    truth: dict[str, dict[int, int | None]]

    @contextmanager
    def file(self) -> Iterator[str]:
        """Lend the path of a file whose byte n is the byte at physical address n."""
        with tempfile.TemporaryDirectory(prefix="course-walk-") as directory:
            path = Path(directory, "ram")
            with path.open("wb") as file:
                for address, content in self.tables.items():
                    os.pwrite(file.fileno(), content, address)
                file.truncate(RAM_BYTES)
            yield str(path)


@functools.cache
def snapshot(name: str) -> Snapshot:
    """Stop a Linux guest and keep what the checks need; `name` tells one snapshot from another."""
    from ... import guest  # noqa: PLC0415 - only here is a machine needed

    rng = random.Random(name)
    with guest.linux(name="walked") as vm:
        vm.console.run("ls /proc > /dev/null")
        vm.pause()
        registers = vm.hmp("info registers")
        names = ("CR3", "RSP", "RIP", "GDT", "IDT")
        cr3, stack, rip, *tables = (int(_register(name, registers), 16) for name in names)
        truth = {
            kind: {address: ask(vm, address) for address in addresses}
            for kind, addresses in _addresses(rng, stack, rip, tables).items()
        }
        return Snapshot(cr3, _tables(vm, cr3), truth)


def ask(vm: Machine, address: int) -> int | None:
    """Return QEMU's own translation of a virtual address."""
    found = _GPA.search(vm.hmp(f"gva2gpa {address:#x}"))
    return int(found[1], 16) if found else None


def _register(name: str, registers: str) -> str:
    found = re.search(rf"\b{name}=\s*([0-9a-f]+)", registers)
    assert found, f"QEMU tells no {name}"
    return found[1]


def _addresses(rng: random.Random, stack: int, rip: int, tables: list[int]) -> dict[str, list[int]]:
    """Addresses of each kind, chosen at random."""
    direct = [DIRECT_MAP + rng.randrange(RAM_BYTES) for _ in range(24)]
    return {
        "where the processor is": [rip],
        "kernel text": [TEXT + rng.randrange(8 << 20) for _ in range(24)],
        "kernel stack": [stack, stack - 8, *((stack & -4096) + rng.randrange(4096) for _ in range(4))],
        "all of RAM": direct,
        "descriptor tables": [*tables, *(table + rng.randrange(4096) for table in tables)],
        "fixed addresses": [0xFFFFFFFFFF5FB000, 0xFFFFFFFFFF5FD0F0, 0xFFFFFFFFFF600000],
        "nothing": [
            0xDEAD0000 + rng.randrange(1 << 12),
            DIRECT_MAP + (1 << 38) + rng.randrange(1 << 30),
            *(rng.randrange(0x10000, 1 << 44) for _ in range(6)),
        ],
        "not canonical": [address & (1 << 48) - 1 | rng.choice((0, 0x00FF << 48)) for address in direct[:6]]
        + [TEXT & (1 << 48) - 1, TEXT & ~(1 << 60)],
    }


def _tables(vm: Machine, cr3: int) -> dict[int, bytes]:
    """Every page that is a table, by physical address: a walk reads no other."""
    kept: dict[int, bytes] = {}
    waiting = [(cr3 & ADDRESS, 4)]
    while waiting:
        table, level = waiting.pop()
        if table in kept or table > RAM_BYTES - PAGE:
            continue
        kept[table] = vm.read_memory(table, PAGE)
        entries = struct.unpack(f"<{ENTRIES}Q", kept[table])
        if level > 1:
            waiting += [(entry & ADDRESS, level - 1) for entry in entries if entry & P and not entry & PS]
    return kept
