"""The part of `course.isa.processor` that runs in the child: Unicorn, its hooks, and the memory map.

Unicorn's hooks see everything: each instruction before it runs, each store, each access that the map forbids, each
exception. `emulate` turns that into plain data. Hooks are added before the first instruction: Unicorn does not call one
that is added later for code that it has translated already.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Mapping
from typing import Any

from ..error import CapabilityError
from .disassembler import decode
from .table import Isa, lookup

CODE, DATA, RETURN, STACK = 0x10000, 0x30000, 0x50000, 0x70000
REGION = 0x10000
POINTER = STACK + REGION // 2
_LOOPS = {"x86": "ebfe", "x86_64": "ebfe", "ppc": "48000000", "ppc64": "48000000", "aarch64": "00000014",
          "riscv32": "6f000000", "riscv64": "6f000000"}  # fmt: skip


class End(enum.Enum):
    """Why a run ended."""

    RETURNED = "returned"
    FUEL = "ran out of fuel"
    FAULT = "touched memory that is not there or not allowed"
    ILLEGAL = "met bytes that are no instruction"
    TRAP = "asked for the operating system"
    CRASHED = "crashed the emulator"


@dataclasses.dataclass(frozen=True)
class Job:
    """What to run: plain data. `start` holds every register, `keep` asks for every step."""

    isa: str
    code: bytes
    arguments: tuple[int, ...]
    entry: int
    fuel: int
    data: bytes
    start: Mapping[str, int]
    keep: bool


@functools.lru_cache
def _register_ids(name: str) -> dict[str, int]:
    """Unicorn's number of each register; constants are looked up by name."""
    import importlib  # noqa: PLC0415

    row = lookup(name)
    family = {"x86": "x86", "x86_64": "x86", "ppc": "ppc", "ppc64": "ppc", "aarch64": "arm64"}.get(name, "riscv")
    module = importlib.import_module(f"unicorn.{family}_const")
    ids = {}
    for at, register in enumerate(row.registers):
        label = register.upper()
        if family == "ppc" and register[0] == "r":
            label = register[1:]
        elif family == "riscv" and register != "pc":
            label = f"X{at}"
        ids[register] = getattr(module, f"UC_{family.upper()}_REG_{label}")
    return ids


def load_unicorn() -> Any:
    """Return the module; loaded in the parent, so that the children need not load it again and again."""
    try:
        import unicorn  # noqa: PLC0415 - a large shared library
    except ImportError as error:
        raise CapabilityError("unicorn", str(error), "Install it with pip install unicorn.") from None
    return unicorn


def _new_processor(row: Isa) -> Any:
    unicorn = load_unicorn()
    arch, *modes = row.unicorn
    uc = unicorn.Uc(getattr(unicorn, arch), sum(getattr(unicorn, mode) for mode in modes))
    if row.name == "ppc64":
        from unicorn import ppc_const  # noqa: PLC0415

        uc.ctl_set_cpu_model(ppc_const.UC_CPU_PPC64_POWER8_V2_0)  # the default model cannot execute 64-bit code
        uc.reg_write(ppc_const.UC_PPC_REG_MSR, 1 << 63 | 1 << 13)
    return uc


def _load(uc: Any, row: Isa, job: Job) -> None:
    unicorn = load_unicorn()

    loop = bytes.fromhex(_LOOPS[row.name])
    uc.mem_map(CODE, REGION, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    uc.mem_map(RETURN, 0x1000, unicorn.UC_PROT_READ | unicorn.UC_PROT_EXEC)
    for base in (DATA, STACK):
        uc.mem_map(base, REGION, unicorn.UC_PROT_READ | unicorn.UC_PROT_WRITE)
    uc.mem_write(CODE, (job.code + loop * (REGION // len(loop)))[:REGION])
    uc.mem_write(RETURN, loop * 4)
    uc.mem_write(DATA, job.data)
    order = "little" if row.endian == "little" else "big"
    mask = (1 << row.bits) - 1
    if row.link is None:
        above = [job.start[r] for r in row.preserved] if row.arguments else job.arguments
        on_stack = [RETURN, *above]
        words = b"".join((a & mask).to_bytes(row.word_bytes, "little") for a in on_stack)
        uc.mem_write(job.start[row.stack], words)
    elif row.name.startswith("ppc"):
        uc.mem_write(POINTER, (0).to_bytes(row.word_bytes, "little" if order == "little" else "big"))
    for register, ident in _register_ids(row.name).items():
        if register not in (row.counter, "zero"):
            uc.reg_write(ident, job.start[register])


def emulate(job: Job) -> dict[str, Any]:
    """Run in the child; returns plain data."""
    unicorn = load_unicorn()

    row = lookup(job.isa)
    uc = _new_processor(row)
    _load(uc, row, job)
    stack = uc.mem_read(POINTER - 64, 128)
    ids = _register_ids(row.name)
    watch = _Watch(row, ids, job)
    uc.hook_add(unicorn.UC_HOOK_CODE, watch.on_code)
    uc.hook_add(unicorn.UC_HOOK_INTR, watch.on_interrupt)
    uc.hook_add(unicorn.UC_HOOK_MEM_WRITE, watch.on_write)
    if row.name == "x86_64":
        from unicorn import x86_const  # noqa: PLC0415

        def on_syscall(engine: Any, _: Any) -> None:
            watch.on_interrupt(engine, 0, None)

        uc.hook_add(unicorn.UC_HOOK_INSN, on_syscall, None, 1, 0, x86_const.UC_X86_INS_SYSCALL)
    bad = unicorn.UC_HOOK_MEM_UNMAPPED | unicorn.UC_HOOK_MEM_PROT
    uc.hook_add(bad, watch.on_bad_memory)
    try:
        uc.emu_start(CODE + job.entry, RETURN)
    except unicorn.UcError as error:
        if watch.end is None:
            illegal = error.errno in (unicorn.UC_ERR_INSN_INVALID, unicorn.UC_ERR_EXCEPTION)
            watch.end = End.ILLEGAL if illegal else End.FAULT
            watch.detail = f"at {watch.where:#x} ({watch.text(uc)}): {error}"
    watch.finish_step(uc)
    final = {register: uc.reg_read(ident) for register, ident in ids.items()}
    end = watch.end or End.RETURNED
    if end is End.RETURNED and final[row.counter] & ~3 != RETURN:
        end, watch.detail = End.ILLEGAL, f"at {watch.where:#x} ({watch.text(uc)}): the processor stopped there"
    return {
        "end": end.name, "count": watch.count, "registers": final, "detail": watch.detail,
        "data": uc.mem_read(DATA, len(job.data)).hex() if job.data else "", "steps": watch.steps, "stack": stack.hex(),
    }  # fmt: skip


class _Watch:
    """The hooks: count instructions, stop without fuel, remember the first thing that went wrong, keep steps."""

    def __init__(self, row: Isa, ids: Mapping[str, int], job: Job) -> None:
        self.row, self.ids, self.fuel, self.keep = row, ids, job.fuel, job.keep
        self.count = 0
        self.where = CODE
        self.size = 0
        self.end: End | None = None
        self.detail = ""
        self.steps: list[tuple[int, str, str, dict[str, int], list[tuple[int, str]]]] = []
        self._before: dict[str, int] = {}
        self._writes: list[tuple[int, str]] = []

    def on_code(self, uc: Any, address: int, size: int, _: Any) -> None:
        """Before each instruction."""
        self.finish_step(uc)
        if address & ~3 == RETURN:
            return
        if self.count >= self.fuel:
            self.stop(uc, End.FUEL, f"still running after {self.fuel} instructions; the last was at {self.where:#x}")
            return
        self.count += 1
        self.where, self.size = address, size
        if self.keep:
            self._before = {register: uc.reg_read(ident) for register, ident in self.ids.items()}

    def finish_step(self, uc: Any) -> None:
        """After each instruction: what did it change?"""
        if not self._before:
            return
        after = {register: uc.reg_read(ident) for register, ident in self.ids.items()}
        changes = {r: v for r, v in after.items() if v != self._before[r] and r != self.row.counter}
        body = bytes(uc.mem_read(self.where, self.size or 4))
        self.steps.append((self.where, body.hex(), self.text(uc), changes, self._writes))
        self._before, self._writes = {}, []

    def text(self, uc: Any) -> str:
        """The current instruction, disassembled."""
        try:
            body = bytes(uc.mem_read(self.where, 16))
        except Exception:  # the program counter went astray
            return "no code here"
        found = next(decode(body, self.row, self.where), None)
        return found.text if found else f"bytes {body[:4].hex(' ')}"

    def on_interrupt(self, uc: Any, number: int, _: Any) -> None:
        """An exception or a system call."""
        text = self.text(uc)
        call = text.split()[0] in ("sc", "svc", "ecall", "int", "syscall", "trap", "ebreak", "brk")
        kind = End.TRAP if call else End.ILLEGAL
        self.stop(uc, kind, f"at {self.where:#x} ({text}): exception {number}")

    def on_write(self, uc: Any, access: int, address: int, size: int, value: int, _: Any) -> None:
        """A store that is about to happen."""
        if self.keep:
            order = "little" if self.row.endian == "little" else "big"
            body = (value & (1 << 8 * size) - 1).to_bytes(size, "little" if order == "little" else "big")
            self._writes.append((address, body.hex()))

    def on_bad_memory(self, uc: Any, access: int, address: int, size: int, value: int, _: Any) -> bool:
        """An access that the map forbids."""
        unicorn = load_unicorn()

        verbs = {
            unicorn.UC_MEM_READ_UNMAPPED: "read", unicorn.UC_MEM_READ_PROT: "read",
            unicorn.UC_MEM_WRITE_UNMAPPED: "wrote", unicorn.UC_MEM_WRITE_PROT: "wrote",
        }  # fmt: skip
        verb = verbs.get(access, "jumped to")
        why = "the code, which is read-only" if CODE <= address < CODE + REGION else "where there is no memory"
        self.end = self.end or End.FAULT
        self.detail = self.detail or f"at {self.where:#x} ({self.text(uc)}): it {verb} {address:#x}, {why}"
        return False

    def stop(self, uc: Any, end: End, detail: str) -> None:
        """End the run."""
        if self.end is None:
            self.end, self.detail = end, detail
        uc.emu_stop()
