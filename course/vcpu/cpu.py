"""The virtual CPU: one API over all engines, with a budget.

::

    with Vcpu.open("ptrace", code) as vcpu:
        while not (exit := vcpu.run()).final:
            match exit:
                case Io(port=0xE9):
                    console += exit.data
                    vcpu.complete(exit)
                case Hlt():
                    break

The guest is always a deprivileged x86-64 program: 64-bit, ring 3, addresses as they are (no paging of its own). See
course/decisions/vcpu.md for why, and for what guests can find out nevertheless.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import time
import weakref
from typing import Any

from ..error import CapabilityError, UsageError
from .decode import to_exit
from .error import BudgetSpentError, VcpuError
from .exits import BudgetSpent, Exit, Io, Mmio, Preempted
from .memory import Memory
from .registers import Registers, user_flags
from .trap import COUNT, TIME, Engine

ENGINES = {
    "ptrace": (".ptrace_engine", "PtraceEngine"),
    "kvm": (".kvm_engine", "KvmEngine"),
    "unicorn": (".unicorn_engine", "UnicornEngine"),
}
"""The engines, best first: the fastest exits, then the hardware, then what works everywhere."""

START = 0x100000
RAM_KIB = 256


@dataclasses.dataclass
class Budget:
    """What a virtual CPU may still use up in its life; give it a new one to let it go on.

    Attributes:
        exits: number of exits.
        instructions: executed by the guest, exactly; None is no limit. Counting costs speed on most engines.
        seconds: wall time spent in `Vcpu.run`.
    """

    exits: int = 1_000_000
    instructions: int | None = None
    seconds: float = 10.0

    def spent(self) -> str:
        """Name the limit that is reached; ``""`` when there is something left of each."""
        if self.exits <= 0:
            return "exits"
        if self.instructions is not None and self.instructions <= 0:
            return "instructions"
        return "seconds" if self.seconds <= 0 else ""


class Vcpu:
    """A virtual CPU and its memory; use it in a ``with``.

    Attributes:
        regs: the registers, by name.
        memory: guest-physical memory.
        budget: what is left.
        exits: how many there were.
    """

    def __init__(self, engine: type[Engine], memory: Memory, *, budget: Budget | None = None) -> None:
        self.memory = memory
        self.regs = Registers()
        self.budget = budget or Budget()
        self.exits = 0
        self._pid = os.getpid()
        self._ended: Exit | None = None
        self._engine: Engine = engine(memory)
        memory.watch(self._engine.remap)
        self._close = weakref.finalize(self, _close, self._engine, memory, self._pid)

    @classmethod
    def open(
        cls,
        engine: str = "best",
        code: bytes = b"",
        *,
        at: int = START,
        ram_kib: int = RAM_KIB,
        budget: Budget | None = None,
    ) -> Vcpu:
        """Make a virtual CPU with RAM at `at`, `code` at its beginning and the stack pointer at its end.

        Args:
            engine: ``"ptrace"``, ``"kvm"``, ``"unicorn"``, or ``"best"`` for the first that this machine has.
            code: machine code; ``rip`` points to its first byte.
            at: guest-physical address, a multiple of 4096.
            ram_kib: size of the RAM, in KiB.
            budget: limits for its whole life.

        Raises:
            CapabilityError: this machine does not have the engine; says why.
            UsageError: no such engine, or the memory is not possible.
        """
        memory = Memory()
        try:
            memory.map(at, ram_kib << 10, "rwx", bytes(code))
            vcpu = _first(cls, memory, budget) if engine == "best" else cls(engine_class(engine), memory, budget=budget)
        except BaseException:
            memory.close()
            raise
        vcpu.regs.update(rip=at, rsp=at + (ram_kib << 10))
        return vcpu

    @property
    def engine(self) -> str:
        """The engine's name."""
        return self._engine.name

    def run(self, *, instructions: int | None = None, seconds: float | None = None) -> Exit:
        """Let the guest run up to its next exit.

        Args:
            instructions: return `Preempted` after exactly so many.
            seconds: return `Preempted` after so much wall time.

        Returns:
            The exit. When the budget is used up: `BudgetSpent`.

        Raises:
            BudgetSpentError: the exit before was final, and nothing has changed since.
            VcpuError: it is closed, or this process is a fork of the one that made it.
        """
        self._check_usable(instructions)
        if limit := self.budget.spent():
            return self._end(BudgetSpent(self.regs.rip, limit=limit))
        steps = _least(instructions, self.budget.instructions)
        wall = self.budget.seconds if seconds is None else min(seconds, self.budget.seconds)
        begin = time.monotonic()
        found = self._engine.resume(self.regs.values, steps, wall)
        self.regs.rflags = user_flags(self.regs.rflags)
        self.budget.seconds -= time.monotonic() - begin
        if found.vector in (TIME, COUNT):
            return self._pause(found.vector, steps)
        if steps is not None and self.budget.instructions is not None:
            self.budget.instructions -= 1  # an exit costs one, so that a guest that only faults ends too
        self.exits += 1
        self.budget.exits -= 1
        result = to_exit(found, self.regs, self.memory)
        return self._end(result) if result.final else result

    def step(self) -> Exit:
        """Execute one instruction; returns its exit, or `Preempted` when it had none."""
        return self.run(instructions=1)

    def complete(self, reason: Exit, value: int | bytes = 0) -> None:
        """Finish the instruction of an exit, and move on behind it.

        Args:
            reason: the last exit.
            value: what an ``in`` or a load gets; bytes or an integer.
        """
        if isinstance(reason, Io):
            self._complete_io(reason, value)
            return
        if isinstance(reason, Mmio) and reason.direction == "read":
            number = int.from_bytes(value, "little") if isinstance(value, bytes) else value
            number &= (1 << 8 * reason.size) - 1
            if reason.signed and number >> 8 * reason.size - 1:
                number -= 1 << 8 * reason.size
            self.regs[reason.register] = number
        self.regs.rip = reason.next

    def _complete_io(self, reason: Io, value: int | bytes) -> None:
        total = reason.size * reason.count
        data = value if isinstance(value, bytes) else (value & ((1 << 8 * total) - 1)).to_bytes(total, "little")
        if not reason.string:
            if reason.direction == "in":
                self.regs[{1: "al", 2: "ax", 4: "eax"}[reason.size]] = int.from_bytes(data[: reason.size], "little")
            self.regs.rip = reason.next
            return
        pointer = "rdi" if reason.direction == "in" else "rsi"
        step = -reason.size if self.regs.rflags & 0x400 else reason.size
        if reason.direction == "in":
            for item in range(reason.count):
                piece = data[item * reason.size : (item + 1) * reason.size]
                self.memory.write(self.regs[pointer] + item * step, piece)
        self.regs[pointer] += step * reason.count
        if {0xF2, 0xF3} & set(reason.code[:-1]):
            self.regs.rcx -= reason.count
            if self.regs.rcx:
                return  # the instruction goes on: the next run exits again
        self.regs.rip = reason.next

    def close(self) -> None:
        """End the engine's processes and give the memory back; may be called twice.

        A CPU that is forgotten in a notebook is closed when Python collects it.
        """
        self._close()

    def __enter__(self) -> Vcpu:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Vcpu {self.engine} rip={self.regs.rip:#x}, {self.exits} exits>"

    def _check_usable(self, instructions: int | None) -> None:
        if self.memory.bytes.closed:
            raise VcpuError("this virtual CPU is closed; make another one with Vcpu.open")
        if os.getpid() != self._pid:
            raise VcpuError("this virtual CPU belongs to the process that made it; make one in this process")
        if instructions is not None and instructions <= 0:
            raise UsageError(f"run(instructions={instructions}): expected at least 1")
        if self._ended is not None and not (isinstance(self._ended, BudgetSpent) and not self.budget.spent()):
            raise BudgetSpentError(f"the last exit was {self._ended!r}, which is final: leave the loop when exit.final")
        self._ended = None

    def _pause(self, vector: int, steps: int | None) -> Exit:
        if vector == COUNT and self.budget.instructions is not None and steps is not None:
            self.budget.instructions -= steps
        if limit := self.budget.spent():
            return self._end(BudgetSpent(self.regs.rip, limit=limit))
        return Preempted(self.regs.rip, limit="instructions" if vector == COUNT else "seconds")

    def _end(self, reason: Exit) -> Exit:
        self._ended = reason
        return reason


def _close(engine: Engine, memory: Memory, pid: int) -> None:
    """Close; a forked process leaves its parent's engine alone."""
    if os.getpid() == pid:
        engine.close()
    memory.close()


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)


def engine_class(name: str) -> type[Engine]:
    """Return an engine's class; its module is loaded now.

    Raises:
        UsageError: there is no such engine.
    """
    if name not in ENGINES:
        raise UsageError(f"there is no engine {name!r}; there are {', '.join(ENGINES)} and best")
    module, attribute = ENGINES[name]
    found: Any = getattr(importlib.import_module(module, __package__), attribute)
    return found  # type: ignore[no-any-return]


def _first(cls: type[Vcpu], memory: Memory, budget: Budget | None) -> Vcpu:
    refusals = []
    for name in ENGINES:
        try:
            return cls(engine_class(name), memory, budget=budget)
        except CapabilityError as error:
            refusals.append(f"{name}: {error.why}")
    raise CapabilityError("every engine", "; ".join(refusals), "pip install unicorn gives one that works anywhere.")
