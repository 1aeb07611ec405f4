"""Why a virtual CPU stopped: one class per reason.

At every exit ``rip`` still points *at* the instruction that caused it, and that instruction has had no effect (one
exception: ``syscall`` has put the return address into ``rcx`` and the flags into ``r11``, as the architecture says).
The VMM does what the instruction was meant to do, and moves on: `Vcpu.complete` does it for the common cases, or the
VMM writes registers and sets ``rip`` to `Exit.next` itself.

Source: Intel SDM vol. 3, chapter 6 (vectors), and the exit reasons of Linux, Documentation/virt/kvm/api.rst.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

VECTORS = {
    0: "divide error", 1: "debug", 3: "breakpoint", 4: "overflow", 5: "bound range", 6: "invalid opcode",
    7: "device not available", 8: "double fault", 10: "invalid TSS", 11: "segment not present", 12: "stack fault",
    13: "general protection", 14: "page fault", 16: "x87 error", 17: "alignment check", 19: "SIMD error",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Exit:
    """One exit.

    Attributes:
        rip: address of the instruction.
        code: its bytes; empty where none could be read.
        text: its disassembly.
        final: True when the CPU cannot go on.
    """

    rip: int
    code: bytes = b""
    text: str = ""

    final: ClassVar[bool] = False

    @property
    def next(self) -> int:
        """Address of the instruction behind this one."""
        return self.rip + len(self.code)

    @property
    def reason(self) -> str:
        """The exit's name in one word, such as ``"Io"``: what a histogram counts."""
        return type(self).__name__


@dataclasses.dataclass(frozen=True)
class Io(Exit):
    """Port I/O: in, out, ins, outs, with or without rep.

    Attributes:
        port: 0 to 65535.
        size: of one item, in bytes: 1, 2 or 4.
        direction: ``"in"`` or ``"out"``, as the guest sees it.
        count: number of items; more than 1 only with rep. At most 4096 bytes are offered at once, as KVM does.
        data: what the guest sends, ``size * count`` bytes; empty for in.
        string: True for ins and outs, which use memory instead of ``al``, ``ax`` or ``eax``.
    """

    port: int = 0
    size: int = 1
    direction: str = "out"
    count: int = 1
    data: bytes = b""
    string: bool = False

    @property
    def value(self) -> int | None:
        """The (first) item that the guest sends; None for in."""
        return int.from_bytes(self.data[: self.size], "little") if self.direction == "out" else None


@dataclasses.dataclass(frozen=True)
class Mmio(Exit):
    """A load from or a store to a device's pages by one of the mov instructions.

    Attributes:
        address: guest-physical.
        size: in bytes: 1, 2, 4 or 8.
        direction: ``"read"`` or ``"write"``.
        value: what is stored, unsigned; None for a load.
        register: where a load goes to.
        signed: the load extends the sign (movsx).
    """

    address: int = 0
    size: int = 1
    direction: str = "write"
    value: int | None = None
    register: str = ""
    signed: bool = False


@dataclasses.dataclass(frozen=True)
class Hlt(Exit):
    """The guest waits for an interrupt."""


@dataclasses.dataclass(frozen=True)
class Hypercall(Exit):
    """The guest calls its VMM: ``syscall`` or ``int 0x80``; the number is in ``rax``."""

    number: int = 0


@dataclasses.dataclass(frozen=True)
class Privileged(Exit):
    """An instruction of ring 0 (cli, mov cr3, lgdt, rdmsr …).

    Attributes:
        mnemonic: such as ``"mov"``.
        operands: such as ``"rax, cr3"``.
    """

    mnemonic: str = ""
    operands: str = ""


@dataclasses.dataclass(frozen=True)
class Undefined(Exit):
    """Bytes that are no instruction, or ud2."""


@dataclasses.dataclass(frozen=True)
class PageFault(Exit):
    """An access that the memory map does not allow.

    Attributes:
        address: guest-physical, of the first byte that could not be accessed.
        access: ``"read"``, ``"write"`` or ``"execute"``.
        present: the page is there, and its permissions forbid the access.
    """

    address: int = 0
    access: str = "read"
    present: bool = False


@dataclasses.dataclass(frozen=True)
class Fault(Exit):
    """Any other exception of the processor: divide error, general protection, debug."""

    vector: int = 0

    @property
    def name(self) -> str:
        """The vector's name."""
        return VECTORS.get(self.vector, f"vector {self.vector}")


@dataclasses.dataclass(frozen=True)
class Breakpoint(Exit):
    """int3."""


@dataclasses.dataclass(frozen=True)
class Preempted(Exit):
    """The limit given to this `Vcpu.run` is reached; the guest can go on.

    Attributes:
        limit: ``"instructions"`` or ``"seconds"``.
    """

    limit: str = ""


@dataclasses.dataclass(frozen=True)
class BudgetSpent(Exit):
    """The budget of this CPU's life is used up.

    Attributes:
        limit: ``"exits"``, ``"instructions"`` or ``"seconds"``.
    """

    final: ClassVar[bool] = True
    limit: str = ""


@dataclasses.dataclass(frozen=True)
class Shutdown(Exit):
    """The CPU cannot go on: its engine is gone or cannot execute what the guest does."""

    final: ClassVar[bool] = True
    why: str = ""
