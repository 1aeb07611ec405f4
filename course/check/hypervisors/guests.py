"""Random guests for `vmm`, with a model that knows what each of their instructions does.

The model is a few lines per instruction, from the Intel SDM; it shares nothing with the engines. (A test runs the same
guests on Unicorn in ring 0, where the processor itself does what the model says.)
"""

from __future__ import annotations

import dataclasses
import random

from .machines import CONTROL, GENERAL, Guest

_ORDER = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *GENERAL[8:])
_FREE = tuple(name for name in GENERAL if name != "rsp")
TOP = 0x140000


@dataclasses.dataclass
class Model:
    """A machine that is built and understood at the same time."""

    keys: list[int]
    lines: list[str] = dataclasses.field(default_factory=list)
    registers: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys((*GENERAL, *CONTROL), 0))
    msrs: dict[int, int] = dataclasses.field(default_factory=dict)
    console: bytearray = dataclasses.field(default_factory=bytearray)
    exits: dict[str, int] = dataclasses.field(default_factory=dict)
    flag: int = 0

    def emit(self, code: bytes, text: str, kind: str = "") -> None:
        """Add an instruction, and the exit that it causes."""
        self.lines.append(f"{code.hex(' ')}  ; {text}")
        if kind:
            self.exits[kind] = self.exits.get(kind, 0) + 1

    def load(self, name: str, value: int) -> None:
        """Emit ``mov name, value`` with 64 bits."""
        number = _ORDER.index(name)
        self.emit(
            bytes([0x48 | number >> 3, 0xB8 | number & 7]) + value.to_bytes(8, "little"), f"movabs {name}, {value:#x}"
        )
        self.registers[name] = value

    def port(self, port: int, size: int, *, out: bool, by_dx: bool) -> None:
        """Emit in or out, with the port in the instruction or in dx."""
        if by_dx:
            self.emit(b"\x66\xba" + port.to_bytes(2, "little"), f"mov dx, {port:#x}")
            self.registers["rdx"] = self.registers["rdx"] & ~0xFFFF | port
        opcode = (0xEC if by_dx else 0xE4) | (2 if out else 0) | (size > 1)
        code = (b"\x66" if size == 2 else b"") + bytes([opcode]) + (b"" if by_dx else bytes([port]))
        register, where = {1: "al", 2: "ax", 4: "eax"}[size], "dx" if by_dx else f"{port:#x}"
        self.emit(code, f"out {where}, {register}" if out else f"in {register}, {where}", "Io")
        mask, rax = (1 << 8 * size) - 1, self.registers["rax"]
        if out:
            self.console += (rax & mask).to_bytes(size, "little") if port == 0xE9 else b""
            return
        value = mask if port != 0x60 else self.keys.pop(0) if self.keys else 0
        self.registers["rax"] = value if size == 4 else rax & ~mask | value

    def control(self, control: str, general: str, *, write: bool) -> None:
        """Emit ``mov crN, r64`` or ``mov r64, crN``."""
        number = _ORDER.index(general)
        code = (b"\x41" if number > 7 else b"") + bytes([0x0F, 0x22 if write else 0x20])
        code += bytes([0xC0 | int(control[2:]) << 3 | number & 7])
        source, target = (general, control) if write else (control, general)
        self.emit(code, f"mov {target}, {source}", "Privileged")
        self.registers[target] = self.registers[source]

    def msr(self, index: int, *, write: bool) -> None:
        """Emit wrmsr or rdmsr with its number in ecx."""
        self.emit(b"\xb9" + index.to_bytes(4, "little"), f"mov ecx, {index:#x}")
        self.registers["rcx"] = index
        low = (1 << 32) - 1
        if write:
            self.msrs[index] = (self.registers["rdx"] & low) << 32 | self.registers["rax"] & low
        else:
            value = self.msrs.get(index, 0)
            self.registers.update(rax=value & low, rdx=value >> 32)
        self.emit(b"\x0f\x30" if write else b"\x0f\x32", "wrmsr" if write else "rdmsr", "Privileged")

    def interrupts(self, flag: int) -> None:
        """Emit sti or cli."""
        self.emit(b"\xfb" if flag else b"\xfa", "sti" if flag else "cli", "Privileged")
        self.flag = flag


def random_guest(
    rng: random.Random, *, length: int = 14, controls: tuple[str, ...] = CONTROL, msrs: bool = True
) -> Guest:
    """Make a guest of about `length` instructions that trap, with everything that must become of it."""
    keys = bytes(rng.randrange(1, 256) for _ in range(rng.randrange(4)))
    model = Model(list(keys))
    model.registers["rsp"] = TOP
    for name in rng.sample(_FREE, 5):
        model.load(name, rng.getrandbits(64))
    kinds = ["out", "in", "in", "write", "read", "flag", "load"] + ["msr"] * (2 if msrs else 0)
    for _ in range(length):
        _step(model, rng, rng.choice(kinds), controls)
    model.emit(b"\xf4", "hlt", "Hlt")
    return Guest(
        "\n".join(model.lines),
        "random-guest-differs",
        "Run this guest step by step: print each exit and the registers.",
        console=bytes(model.console),
        registers=dict(model.registers),
        flag=model.flag,
        exits=dict(model.exits),
        keys=keys,
    )


def _step(model: Model, rng: random.Random, kind: str, controls: tuple[str, ...]) -> None:
    if kind in ("out", "in"):
        port = rng.choice([0xE9, 0xE9, 0x80] if kind == "out" else [0x60, 0x60, 0x71])
        model.port(port, rng.choice([1, 2, 4]), out=kind == "out", by_dx=rng.random() < 0.5)
    elif kind in ("write", "read"):
        model.control(rng.choice(controls), rng.choice(_FREE), write=kind == "write")
    elif kind == "msr":
        model.msr(rng.choice([0x10, 0x1B, 0xC0000080]), write=rng.random() < 0.5)
    elif kind == "flag":
        model.interrupts(rng.randrange(2))
    else:
        model.load(rng.choice(_FREE), rng.getrandbits(64))
