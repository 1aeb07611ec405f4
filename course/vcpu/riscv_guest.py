"""Guests for RISC-V's hypervisor extension, written as steps in Python: plain data that a program can predict from.

::

    [("read", "sstatus"), ("repeat", 3, [("store", 0x200000), ("add",)]), ("ecall", 0)]

==================  ================================================================================================
``("add",)``        an instruction that only computes
``("read", r)``     read a control register: sstatus, stvec, satp are the guest's own; hgatp, mstatus are not
``("write", r)``    write 0 to it
``("fence",)``      forget translations of addresses (sfence.vma)
``("store", a)``    store a byte at guest-physical address a; memory ends at 2 MiB, the first 64 KiB hold the code
``("load", a)``     load a byte from there
``("ecall", n)``    hypercall n: 0 ends the guest, 1 writes a character
``("repeat", n, s)``  do the steps s, n times
==================  ================================================================================================
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from ..error import UsageError
from .riscv_h import GUEST_BYTES, HRun, run

Step = tuple[Any, ...]
REGISTERS = {"sstatus": 0x100, "stvec": 0x105, "sscratch": 0x140, "satp": 0x180, "mstatus": 0x300, "hgatp": 0x680}
CODE_BYTES = 0x10000
_COUNTERS = ("s2", "s3", "s4")


def assembly(steps: Sequence[Step]) -> str:
    """Translate steps into RISC-V assembly for `riscv_h.run`.

    Raises:
        UsageError: a step is not one of those above, or repeats lie deeper than three.
    """
    return "\n".join(_lines(steps, 0, itertools.count()))


def _lines(steps: Sequence[Step], depth: int, numbers: Iterator[int]) -> Iterator[str]:
    for step in steps:
        match step:
            case ("add",):
                yield "addi t3, t3, 1"
            case ("read", str(register)) if register in REGISTERS:
                yield f"csrr t0, {REGISTERS[register]:#x}"
            case ("write", str(register)) if register in REGISTERS:
                yield f"csrw {REGISTERS[register]:#x}, x0"
            case ("fence",):
                yield ".word 0x12000073"
            case ("store" | "load" as kind, int(address)) if CODE_BYTES <= address < 1 << 31:
                yield f"li t1, {address}"
                yield "sb a0, 0(t1)" if kind == "store" else "lb t0, 0(t1)"
            case ("ecall", int(number)) if 0 <= number < 2048:
                yield from (f"li a7, {number}", "li a0, 46", "ecall")
            case ("repeat", int(times), inner) if times > 0 and depth < len(_COUNTERS):
                label, counter = f"loop{next(numbers)}", _COUNTERS[depth]
                yield from (f"li {counter}, {times}", f"{label}:")
                yield from _lines(inner, depth + 1, numbers)
                yield from (f"addi {counter}, {counter}, -1", f"bnez {counter}, {label}")
            case _:
                raise UsageError(f"{step!r} is no step of a guest; see course.vcpu.riscv_guest")


def measure(steps: Sequence[Step], *, max_exits: int = 2000, timeout_s: float = 60.0) -> HRun:
    """Run the steps as a guest under the hypervisor."""
    return run(assembly(steps), max_exits=max_exits, timeout_s=timeout_s)


def histogram(done: HRun) -> dict[int, int]:
    """Number of exits by cause."""
    return dict(Counter(e.cause for e in done.exits))


def describe(steps: Sequence[Step]) -> str:
    """Write steps in one line, for messages."""
    words = []
    for kind, *rest in steps:
        if kind == "repeat":
            words.append(f"{rest[0]} × ({describe(rest[1])})")
        elif kind in ("store", "load"):
            words.append(f"{kind} {rest[0]:#x}")
        else:
            words.append(" ".join([kind, *map(str, rest)]))
    return ", ".join(words)


assert GUEST_BYTES == 0x200000, "the table above says 2 MiB"
