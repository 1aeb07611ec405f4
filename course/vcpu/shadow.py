"""A guest with page tables of its own, over a processor that is shown others: what a VMM with shadow paging works on.

::

    guest-virtual ──guest's page tables──▶ guest-physical ──▶ RAM        what the guest believes
         │                                                     ▲
         └───────────── shadow: Memory.alias ──────────────────┘        what the processor uses

The shadow starts empty, so the guest faults at its first step: `run` returns that fault, and whoever calls decides.
Either the guest's own tables allow the access (the fault is the VMM's affair: `map` the page, and nobody in the guest
will know), or they do not (it is the guest's: `inject`). The shadow holds what was true when it was mapped; the guest
changes its tables with plain stores, which nobody sees, and says so with invlpg or by writing cr3, which trap.

The machine is x86-64 in all but this:

- page faults are delivered in registers, as on MIPS or RISC-V: r14 holds the address, r15 where to go on, r13 is 1 for
  a write; the handler ends with ``jmp r15``, which tries the instruction again;
- virtual addresses lie from 64 KiB to 768 MiB; from 0x30000000 on the VMM keeps the guest's RAM;
- there is no NX, and no ring 3 for programs.

Source: Intel SDM vol. 3, section 4.10 (caching of translations); Adams and Agesen 2006, section 2.3.
"""

from __future__ import annotations

import contextlib
from typing import Any

from ..error import UsageError
from .cpu import Budget, Vcpu
from .decode import _decoded, _operands
from .exits import BudgetSpent, Exit, Hlt, Io, PageFault, Privileged
from .memory import PAGE

WINDOW = 0x30000000
Event = tuple[str, int, bool]


class ShadowGuest:
    """Such a guest; use it in a ``with``.

    Args:
        engine: as for `Vcpu.open`.
        ram: its physical memory from address 0 on, page tables and code included; whole pages.
        cr3: physical address of its top table.
        entry: virtual address of its first instruction.
        handler: virtual address of its page fault handler.
        exits: how many exits it may make.

    Attributes:
        cr3: as the guest set it last.
        faults: every fault of the processor, as (virtual address, write).
        injected: those that were given to the guest.
        output: what the guest sent to any port.
        ended: ``"hlt"`` when the guest came to its own end, a reason when it was ended, ``""`` before.
    """

    def __init__(self, engine: str, ram: bytes, cr3: int, entry: int, handler: int, *, exits: int = 1500) -> None:
        self.vcpu = Vcpu.open(engine, at=WINDOW, ram_kib=len(ram) >> 10, budget=Budget(exits=exits, seconds=20))
        self.vcpu.memory.write(WINDOW, ram)
        self.vcpu.regs.rip = entry
        self.cr3 = cr3
        self.faults: list[tuple[int, bool]] = []
        self.injected: list[tuple[int, bool]] = []
        self.output = bytearray()
        self.ended = ""
        self._size = len(ram)
        self._handler = handler
        self._shown: set[int] = set()

    def run(self) -> Event | None:
        """Let the guest run until the VMM has to decide something.

        Returns:
            ``("fault", address, write)``: the processor found nothing there, or no right to write;
            ``("invlpg", address, False)``: the guest has changed its tables for that page;
            ``("cr3", value, False)``: it uses other tables now, or has changed many entries;
            None: it has ended, see `ended`.
        """
        while not self.ended:
            if (event := self._event(self.vcpu.run())) is not None:
                return event
        return None

    def read(self, address: int) -> int:
        """Return the 64-bit entry at a guest-physical address.

        Raises:
            UsageError: the guest has no RAM there.
        """
        return int.from_bytes(self.vcpu.memory.read(self._window(address, 8), 8), "little")

    def map(self, address: int, physical: int, writable: bool) -> None:
        """Let the processor find the page of a virtual address.

        Args:
            address: guest-virtual, any address in the page.
            physical: guest-physical, any address in the page.
            writable: whether stores shall not fault.

        Raises:
            UsageError: the guest has no RAM there, or the virtual address is not possible.
        """
        page, frame = address & -PAGE, physical & -PAGE
        if page >= WINDOW:
            raise UsageError(f"virtual addresses lie below {WINDOW:#x} in this machine; {address:#x} was to be mapped")
        self.vcpu.memory.alias(page, self._window(frame, PAGE), PAGE, "rwx" if writable else "rx")
        self._shown.add(page)

    def unmap(self, address: int) -> None:
        """Take the page of a virtual address out of the shadow."""
        page = address & -PAGE
        if page in self._shown:
            self._shown.discard(page)
            self.vcpu.memory.unmap(page, PAGE)

    def unmap_all(self) -> None:
        """Empty the shadow."""
        for page in sorted(self._shown):
            self.unmap(page)

    def inject(self, address: int, write: bool) -> None:
        """Give a page fault to the guest: its handler runs next."""
        self.injected.append((address, write))
        regs = self.vcpu.regs
        regs.update(r13=int(write), r14=address, r15=regs.rip, rip=self._handler)

    def report(self) -> dict[str, Any]:
        """What became of it, as plain data: result (``eax``), output, faults, injected, exits, ended."""
        return {
            "exits": self.vcpu.exits,
            "result": self.vcpu.regs.eax,
            "output": bytes(self.output),
            "faults": list(self.faults),
            "injected": list(self.injected),
            "ended": self.ended,
        }

    def close(self) -> None:
        """Close the virtual CPU."""
        self.vcpu.close()

    def __enter__(self) -> ShadowGuest:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _window(self, physical: int, size: int) -> int:
        if not 0 <= physical <= self._size - size:
            raise UsageError(f"the guest has {self._size >> 10} KiB of RAM, and none at guest-physical {physical:#x}")
        return WINDOW + physical

    def _event(self, reason: Exit) -> Event | None:
        match reason:
            case PageFault():
                self.faults.append((reason.address, reason.access == "write"))
                return "fault", reason.address, reason.access == "write"
            case Hlt():
                self.ended = "hlt"
            case Io():
                self.output += reason.data
                self.vcpu.complete(reason)
            case Privileged(mnemonic="invlpg"):
                self.vcpu.complete(reason)
                return "invlpg", self._operand(reason), False
            case Privileged(mnemonic="mov") if reason.operands.startswith("cr3, "):
                self.cr3 = self.vcpu.regs[reason.operands[5:]]
                self.vcpu.complete(reason)
                return "cr3", self.cr3, False
            case Privileged(mnemonic="mov") if reason.operands.endswith(", cr3"):
                self.vcpu.regs[reason.operands[:-5]] = self.cr3
                self.vcpu.complete(reason)
            case BudgetSpent():
                last = f"; the last fault was at {self.faults[-1][0]:#x}" if self.faults else ""
                self.ended = f"it was stopped: it had used up its {reason.limit}{last}"
            case _:
                what = reason.text or getattr(reason, "why", "") or reason.code.hex(" ")
                self.ended = f"{reason.reason} at {reason.rip:#x}: {what}"
        return None

    def _operand(self, reason: Exit) -> int:
        with contextlib.suppress(StopIteration):
            return next(o.address for o in _operands(_decoded(reason.code, reason.rip), self.vcpu.regs))
        return 0
