"""Run a function of machine code in Unicorn, under fuel, in a child process.

The code is called as compiled code would be: arguments where the calling convention says, a return address that nobody
else uses, a stack, and something unpredictable in every other register. Memory, in this order:

::

    0x00010000  code   read, execute       then jumps to itself, so that code without a return burns its fuel
    0x00030000  data   read, write         the caller's bytes
    0x00050000  return                     reaching it ends the call
    0x00070000  stack  read, write         grows downwards from its middle
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from typing import Any

from ..error import UsageError
from .child import ChildError, in_child
from .emulation import CODE, DATA, POINTER, REGION, RETURN, End, Job, emulate, load_unicorn
from .table import Isa, lookup

__all__ = ["CODE", "DATA", "RETURN", "End", "Result", "Step", "Trace", "call", "call_each", "trace"]


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a call of machine code.

    Attributes:
        isa: the instruction set.
        end: why it ended.
        value: the integer result (unsigned, in the width of a register); meaningful when `end` is RETURNED.
        instructions: number of instructions executed.
        changed: registers that had to be preserved and were not, the stack pointer included: name to (before, after).
        registers: all of them at the end.
        data: the data region's first bytes at the end, as many as were given.
        detail: where and why, in words.
    """

    isa: str
    end: End
    value: int
    instructions: int
    changed: Mapping[str, tuple[int, int]]
    registers: Mapping[str, int]
    data: bytes
    detail: str

    @property
    def ok(self) -> bool:
        """True when the code returned."""
        return self.end is End.RETURNED

    def __repr__(self) -> str:
        what = f"returned {self.value} ({self.value:#x})" if self.ok else f"{self.end.value}: {self.detail}"
        clobbered = f"; clobbered {', '.join(self.changed)}" if self.changed else ""
        return f"<{self.isa}: {what} after {self.instructions} instructions{clobbered}>"


@dataclasses.dataclass(frozen=True)
class Step:
    """One executed instruction.

    Attributes:
        address: where it lies.
        code: its bytes.
        text: its disassembly.
        changes: registers that it changed, to their new values (the program counter apart).
        writes: memory that it wrote: (address, bytes).
    """

    address: int
    code: bytes
    text: str
    changes: Mapping[str, int]
    writes: tuple[tuple[int, bytes], ...]

    def __str__(self) -> str:
        parts = [f"{name}={value:#x}" for name, value in self.changes.items()]
        parts += [f"[{at:#x}]={data.hex(' ')}" for at, data in self.writes]
        return f"{self.address:#08x}  {self.text:<28} {'  '.join(parts)}".rstrip()


@dataclasses.dataclass(frozen=True)
class Trace:
    """A whole run, step by step.

    Attributes:
        result: how it ended.
        start: all registers before the first step.
        steps: what was executed, in order.
        memory: regions before the first step: name to (address, bytes).
    """

    result: Result
    start: Mapping[str, int]
    steps: tuple[Step, ...]
    memory: Mapping[str, tuple[int, bytes]]

    def __str__(self) -> str:
        return "\n".join([*(str(step) for step in self.steps), repr(self.result)])

    __repr__ = __str__


def call(
    code: bytes,
    isa: str | Isa,
    *arguments: int,
    entry: int = 0,
    fuel: int = 100_000,
    data: bytes = b"",
    registers: Mapping[str, int] | None = None,
    seed: int = 0,
    timeout_s: float = 10.0,
) -> Result:
    """Call machine code as a function of integers.

    Args:
        code: the function, at most 64 KiB.
        isa: an ISA that Unicorn runs: x86, x86_64, ppc, ppc64, aarch64, riscv32, riscv64.
        *arguments: integers, placed as the calling convention says.
        entry: offset of the first instruction, in bytes.
        fuel: number of instructions after which it is stopped.
        data: bytes for the data region at `DATA`.
        registers: values for registers that are no arguments.
        seed: makes what stands in all other registers.
        timeout_s: wall time limit, in seconds.

    Returns:
        What happened; code that loops, faults or crashes the emulator is a result, not an error.

    Raises:
        UsageError: for an ISA, arguments or code that cannot be meant.
    """
    row = lookup(isa)
    _reject_nonsense(row, code, arguments, entry, data)
    start = _first_registers(row, arguments, registers or {}, seed)
    return _run(row, Job(row.name, bytes(code), arguments, entry, fuel, data, start, keep=False), timeout_s).result


def trace(
    code: bytes,
    isa: str | Isa,
    *arguments: int,
    entry: int = 0,
    fuel: int = 1_000,
    data: bytes = b"",
    registers: Mapping[str, int] | None = None,
    seed: int = 0,
    timeout_s: float = 10.0,
) -> Trace:
    """Like `call`, and keep every step: what it changed in registers and memory."""
    row = lookup(isa)
    _reject_nonsense(row, code, arguments, entry, data)
    start = _first_registers(row, arguments, registers or {}, seed)
    return _run(row, Job(row.name, bytes(code), arguments, entry, fuel, data, start, keep=True), timeout_s)


def call_each(
    code: bytes, isa: str | Isa, calls: Sequence[tuple[int, ...]], *, fuel: int = 100_000, seed: int = 0
) -> list[Result]:
    """Like `call`, for many lists of arguments in one child: for checks, which ask the same code again and again.

    Args:
        code: the function.
        isa: its instruction set.
        calls: the arguments of each call.
        fuel: of each call.
        seed: of the first call; the next have the next ones.
    """
    row = lookup(isa)
    jobs = []
    for at, arguments in enumerate(calls):
        _reject_nonsense(row, code, arguments, 0, b"")
        start = _first_registers(row, arguments, {}, seed + at)
        jobs.append(Job(row.name, bytes(code), arguments, 0, fuel, b"", start, keep=False))
    return [trace.result for trace in _run_all(row, jobs, 30.0)]


def _run(row: Isa, job: Job, timeout_s: float) -> Trace:
    return _run_all(row, [job], timeout_s)[0]


def _emulate_all(jobs: list[Job]) -> list[dict[str, Any]]:
    return [emulate(job) for job in jobs]


def _run_all(row: Isa, jobs: list[Job], timeout_s: float) -> list[Trace]:
    load_unicorn()
    try:
        found = in_child(_emulate_all, jobs, timeout_s=timeout_s)
    except ChildError as error:
        end = End.FUEL if error.why == "timed out" else End.CRASHED
        return [Trace(Result(row.name, end, 0, 0, {}, j.start, j.data, str(error)), j.start, (), {}) for j in jobs]
    return [_as_trace(row, job, raw) for job, raw in zip(jobs, found, strict=True)]


def _as_trace(row: Isa, job: Job, raw: dict[str, Any]) -> Trace:
    start, data = job.start, job.data
    final = raw["registers"]
    held = (*row.preserved, row.stack)
    returned = raw["end"] == End.RETURNED.name
    expected = dict(start)
    if row.link is None:
        expected[row.stack] = start[row.stack] + row.word_bytes  # `ret` has popped the return address
    changed = {r: (expected[r], final[r]) for r in held if expected[r] != final[r]} if returned else {}
    result = Result(
        row.name, End[raw["end"]], final[row.result], raw["count"], changed, final,
        bytes.fromhex(raw["data"]), raw["detail"],
    )  # fmt: skip
    steps = tuple(
        Step(at, bytes.fromhex(body), text, changes, tuple((w, bytes.fromhex(b)) for w, b in writes))
        for at, body, text, changes, writes in raw["steps"]
    )
    stack = bytes.fromhex(raw["stack"])
    memory = ({"data": (DATA, bytes(data))} if data else {}) | {"stack": (POINTER - 64, stack)}
    return Trace(result, start, steps, memory)


def _reject_nonsense(row: Isa, code: bytes, arguments: tuple[int, ...], entry: int, data: bytes) -> None:
    if not row.runs_in_process:
        raise UsageError(f"Unicorn cannot run {row.name} here; a whole program can be run by course.isa.run")
    if not isinstance(code, bytes | bytearray):
        hint = "; assemble it first" if isinstance(code, str) else ""
        raise UsageError(f"machine code is bytes; a {type(code).__name__} was given{hint}")
    if not code or len(code) > REGION - 64 or len(data) > REGION:
        raise UsageError(f"{len(code)} bytes of code were given; 1 to {REGION - 64} were expected")
    if not 0 <= entry < len(code):
        raise UsageError(f"the entry {entry} lies outside the {len(code)} bytes of code")
    if not all(isinstance(a, int) and -(1 << 63) <= a < 1 << 64 for a in arguments):
        raise UsageError(f"the arguments {arguments} have to be integers of at most 64 bits")
    if row.arguments and len(arguments) > len(row.arguments):
        raise UsageError(f"at most {len(row.arguments)} arguments travel in registers on {row.name}")


def _first_registers(row: Isa, arguments: tuple[int, ...], given: Mapping[str, int], seed: int) -> dict[str, int]:
    rng = random.Random(f"{seed}/{row.name}")
    mask = (1 << row.bits) - 1
    fixed = {"cr0", "lr", "ctr", row.counter, "zero", "gp", "tp"}
    values = {r: 0 if r in fixed else rng.getrandbits(row.bits) | 1 for r in row.registers}
    if row.link:
        values[row.link] = RETURN
    # A caller keeps the stack aligned to 16 bytes; where a call pushes the return address, that lies below.
    values[row.stack] = POINTER - (row.word_bytes if row.link is None else 0)
    values |= {r: a & mask for r, a in zip(row.arguments, arguments, strict=False)}
    unknown = set(given) - set(values)
    if unknown:
        raise UsageError(f"{row.name} has no register {sorted(unknown)}; it has {', '.join(row.registers)}")
    return values | {r: v & mask for r, v in given.items()}
