"""A guest that believes to be in ring 0 and is in ring 3: what a VMM without hardware support does for it.

::

    guest                                                  this VMM
    cli, lgdt, mov cr0, out …   trap by themselves ──────▶ emulates them on the virtual processor's state
    popf, sgdt, mov eax, cs …   do not trap: run on the
                                real processor, silently   never learns of them
    int3, put in their place    traps ───────────────────▶ finds in its side table which instruction stood there

So a guest that is run as it is gets wrong answers; one that was patched does not. Who patches is not decided here: the
table comes from outside (`Deprivileged`), or grows while the guest runs (`Translated`).

The virtual processor is simple: flags and their IF, the registers cr0 to cr4, gdtr, idtr, and selectors of ring 0. It
delivers no interrupts.

Source: Intel SDM vol. 2 (each instruction) and vol. 3, section 2.4; K. Adams and O. Agesen, "A Comparison of Software
and Hardware Techniques for x86 Virtualization", ASPLOS 2006.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..error import UsageError
from .cpu import START, Budget, Vcpu
from .decode import _decoded, _operands
from .exits import Breakpoint, BudgetSpent, Exit, Hlt, Io, Preempted, Privileged, Shutdown
from .registers import IF, PARTS

INT3 = b"\xcc"
RING0 = {"cs": 0x08, "ss": 0x10, "ds": 0x10, "es": 0x10, "fs": 0x00, "gs": 0x00}
"""The selectors that a guest in ring 0 would see."""
TRANSFERS = ("j", "call", "ret", "loop")
"""How mnemonics begin of instructions that may go elsewhere: jmp, jne, call, ret, loop …"""


class Deprivileged:
    """Such a guest; use it in a ``with``.

    Args:
        engine: as for `Vcpu.open`.
        code: the guest's image, patched or not; it begins at its first byte.
        table: address → the bytes of the instruction that int3 stands for.
        base: where the image lies.
        exits: how many exits it may make.
        seconds: how long it may run.

    Attributes:
        exits: instruction → how often it made the VMM work.
        output: what the guest sent to any port.
        ended: why it does not run (any more): ``"hlt"`` is the guest's own end, ``""`` while it can go on.
        interrupts: the virtual IF.
        control: cr0, cr2, cr3, cr4, by number.
    """

    def __init__(
        self,
        engine: str,
        code: bytes,
        table: Mapping[int, bytes] | None = None,
        *,
        base: int = START,
        exits: int = 20_000,
        seconds: float = 20,
    ) -> None:
        self.vcpu = Vcpu.open(engine, code, at=base, budget=Budget(exits=exits, seconds=seconds))
        self.table = dict(table or {})
        self.exits: Counter[str] = Counter()
        self.output = bytearray()
        self.ended = ""
        self.interrupts = True
        self.control = {0: 0x80000011, 2: 0, 3: 0x1000, 4: 0x20}
        self._descriptors = {"gdt": bytes(10), "idt": bytes(10)}
        self._work: dict[str, Callable[[Any], None]] = {
            "cli": self._set_if,
            "sti": self._set_if,
            "pushfq": self._pushf,
            "popfq": self._popf,
            "mov": self._mov,
            "smsw": self._store_small,
            "sldt": self._store_small,
            "str": self._store_small,
            "sgdt": self._store_table,
            "sidt": self._store_table,
            "lgdt": self._load_table,
            "lidt": self._load_table,
        }

    def run(self) -> dict[str, Any]:
        """Let it run to its end; returns `report`."""
        while not self.ended:
            self.handle(self.vcpu.run())
        return self.report()

    def report(self) -> dict[str, Any]:
        """What became of it: result (``eax``), output, exits, ended, and the virtual IF, as plain data."""
        return {
            "result": self.vcpu.regs.eax,
            "output": bytes(self.output),
            "exits": dict(self.exits),
            "ended": self.ended,
            "interrupts": self.interrupts,
        }

    def handle(self, reason: Exit) -> None:
        """Do what the guest meant at an exit."""
        match reason:
            case Preempted():
                return
            case Hlt():
                self._count("hlt")
                self.ended = "hlt"
            case Io():
                self._count(reason.text.split()[0])
                self.output += reason.data
                self.vcpu.complete(reason)
            case Breakpoint() if reason.rip in self.table:
                self.emulate(self.table[reason.rip], reason.rip)
            case Privileged():
                self.emulate(reason.code, reason.rip)
            case BudgetSpent():
                self.ended = f"it was stopped: it had used up its {reason.limit}"
            case Shutdown():
                self.ended = f"the processor gave up: {reason.why}"
            case _:
                self.ended = f"{reason.reason} at {reason.rip:#x}: {reason.text or reason.code.hex(' ') or 'nothing'}"

    def emulate(self, code: bytes, rip: int) -> None:
        """Do what a sensitive instruction means, and move on behind it; what is not known ends the guest."""
        instruction = _decoded(bytes(code), rip)
        work = self._work.get(instruction.mnemonic) if instruction is not None else None
        if instruction is None or work is None:
            what = f"{instruction.mnemonic} {instruction.op_str}".strip() if instruction is not None else "unknown"
            self.ended = f"this VMM cannot emulate {bytes(code).hex(' ') or 'nothing'} ({what}) at {rip:#x}"
            return
        self._count(instruction.mnemonic)
        try:
            work(instruction)
        except (UsageError, KeyError) as error:
            self.ended = f"{instruction.mnemonic} at {rip:#x} could not be emulated: {error}"
            return
        self.vcpu.regs.rip = rip + instruction.size

    def close(self) -> None:
        """Close the virtual CPU."""
        self.vcpu.close()

    def __enter__(self) -> Deprivileged:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── the virtual processor ───────────────────────────────────────────────────────────────────────────────────────

    def _count(self, name: str) -> None:
        self.exits[name] += 1

    def _set_if(self, instruction: Any) -> None:
        self.interrupts = instruction.mnemonic == "sti"

    def _pushf(self, _: Any) -> None:
        regs = self.vcpu.regs
        flags = regs.rflags & ~IF | (IF if self.interrupts else 0)
        self.vcpu.memory.write(regs.rsp - 8, flags.to_bytes(8, "little"))
        regs.rsp -= 8

    def _popf(self, _: Any) -> None:
        regs = self.vcpu.regs
        flags = int.from_bytes(self.vcpu.memory.read(regs.rsp, 8), "little")
        regs.rsp += 8
        regs.rflags = flags
        self.interrupts = bool(flags & IF)

    def _mov(self, instruction: Any) -> None:
        to, of = instruction.op_str.split(", ")
        if of in RING0:
            self._store(instruction, RING0[of])
        elif of.startswith("cr"):
            self.vcpu.regs[to] = self.control[int(of[2:])]
        else:
            self.control[int(to[2:])] = self.vcpu.regs[of]

    def _store_small(self, instruction: Any) -> None:
        self._store(instruction, self.control[0] if instruction.mnemonic == "smsw" else 0)

    def _store(self, instruction: Any, value: int) -> None:
        """Put a 16-bit value into a register (all of it) or two bytes of memory."""
        name = instruction.op_str.split(", ")[0]
        if name in PARTS:
            self.vcpu.regs[name] = value
        else:
            self.vcpu.memory.write(self._address(instruction), (value & 0xFFFF).to_bytes(2, "little"))

    def _store_table(self, instruction: Any) -> None:
        self.vcpu.memory.write(self._address(instruction), self._descriptors[instruction.mnemonic[1:]])

    def _load_table(self, instruction: Any) -> None:
        self._descriptors[instruction.mnemonic[1:]] = self.vcpu.memory.read(self._address(instruction), 10)

    def _address(self, instruction: Any) -> int:
        return next(operand.address for operand in _operands(instruction, self.vcpu.regs))


class Translated(Deprivileged):
    """A guest whose traps are set while it runs, block by block.

    ::

        with Translated(engine, code) as guest:
            while (pc := guest.pc) is not None:
                guest.trap(addresses)     # the sensitive instructions of the block at pc, and the one that ends it
                guest.run_block()         # to the block's end and over it: pc is where the guest goes next

    Attributes:
        image: the bytes of the guest as they were, to look at.
        base: their address.
        trapped: every address given to `trap`, in order.
        entries: where each run began.
    """

    def __init__(self, engine: str, code: bytes, *, base: int = START, exits: int = 20_000) -> None:
        super().__init__(engine, code, base=base, exits=exits)
        self.image = bytes(code)
        self.base = base
        self.trapped: list[int] = []
        self.entries: list[int] = []

    def __enter__(self) -> Translated:
        return self

    @property
    def pc(self) -> int | None:
        """Where the guest goes on; None when it has ended."""
        return None if self.ended else self.vcpu.regs.rip

    def trap(self, addresses: Iterable[int]) -> None:
        """Put int3 at each address; the VMM remembers which instruction stood there.

        Raises:
            UsageError: an address is not in the image, or no instruction begins there.
        """
        for address in addresses:
            at = address - self.base
            instruction = _decoded(self.image[at : at + 15], address) if 0 <= at < len(self.image) else None
            if instruction is None:
                raise UsageError(f"no instruction can be read at {address:#x}, so it cannot be replaced by a trap")
            self.trapped.append(address)
            self.table[address] = bytes(instruction.bytes)
            self.vcpu.memory.write(address, INT3)

    def run_block(self) -> None:
        """Run until a trapped jump, call, ret or loop is executed, or the guest ends; sensitive ones are emulated."""
        if self.ended:
            return
        self.entries.append(self.vcpu.regs.rip)
        while not self.ended:
            reason = self.vcpu.run()
            if isinstance(reason, Breakpoint) and self._transfers(reason.rip):
                self._count("block end")
                self._execute(reason.rip)
                return
            self.handle(reason)

    def report(self) -> dict[str, Any]:
        """As for `Deprivileged`, and which addresses were trapped, and where runs began."""
        return {**super().report(), "trapped": list(self.trapped), "entries": list(self.entries)}

    def _transfers(self, address: int) -> bool:
        code = self.table.get(address, b"")
        instruction = _decoded(code, address) if code else None
        return instruction is not None and instruction.mnemonic.startswith(TRANSFERS)

    def _execute(self, address: int) -> None:
        """Let the processor execute the original instruction alone."""
        self.vcpu.memory.write(address, self.table[address][:1])
        self.handle(self.vcpu.step())
        self.vcpu.memory.write(address, INT3)
