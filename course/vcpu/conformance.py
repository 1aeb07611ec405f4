"""Small guests whose exits, registers and memory the architecture fixes: every engine must give the same.

Each program is written as bytes with its disassembly beside it, and states what must happen, from the Intel SDM; a
test holds the disassembly to capstone's. Guests start with cleared registers, RAM of 256 KiB at 0x100000, and these
pages around it:

::

    0x00200000  read only      0x00201000  read, write, not execute      0x00300000  a device

`run` is the VMM that all of them share: it answers each exit in a fixed way and goes on until hlt.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from .cpu import START, Budget, Vcpu
from .exits import Exit, Hlt, Io, Mmio, PageFault, Preempted

READ_ONLY, NO_EXECUTE, DEVICE = 0x200000, 0x201000, 0x300000
ANSWER = 0x8182838485868788
"""What every in and every load from a device gets, as far as it fits."""


@dataclasses.dataclass(frozen=True)
class Program:
    """One guest and what must become of it.

    Attributes:
        name: in a few words.
        meaning: what the architecture says about it.
        listing: lines of bytes and disassembly, separated by two spaces or more.
        exits: what must be seen, in order, each as `describe` gives it; the last one is where the program ends.
        registers: values at the end.
        memory: address to bytes at the end.
        steps: run by single instructions.
    """

    name: str
    meaning: str
    listing: str
    exits: tuple[str, ...]
    registers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    memory: Mapping[int, bytes] = dataclasses.field(default_factory=dict)
    steps: bool = False

    @property
    def lines(self) -> list[tuple[bytes, str]]:
        """Bytes and disassembly of each instruction."""
        pairs = (line.strip().split("  ", 1) for line in self.listing.strip().splitlines())
        return [(bytes.fromhex(code), text.strip()) for code, text in pairs]

    @property
    def code(self) -> bytes:
        """The machine code."""
        return b"".join(code for code, _ in self.lines)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a program did: the exits as text, the registers, and the memory that it names."""

    exits: tuple[str, ...]
    registers: Mapping[str, int]
    memory: Mapping[int, bytes]


PROGRAMS: tuple[Program, ...] = (
    Program(
        "output",
        "out is trapped in ring 3; al, ax or eax goes out, by size",
        """
        b8 44 43 42 41       mov eax, 0x41424344
        66 ba f8 03          mov dx, 0x3f8
        ee                   out dx, al
        66 ef                out dx, ax
        ef                   out dx, eax
        e6 80                out 0x80, al
        f4                   hlt
        """,
        ("out 3f8/1 44", "out 3f8/2 4443", "out 3f8/4 44434241", "out 80/1 44", "hlt"),
        {"rax": 0x41424344, "rdx": 0x3F8},
    ),
    Program(
        "input",
        "in al keeps the rest of rax, in eax clears its upper half",
        """
        48 83 c8 ff          or rax, 0xffffffffffffffff
        e4 60                in al, 0x60
        48 89 c3             mov rbx, rax
        66 e5 60             in ax, 0x60
        48 89 c1             mov rcx, rax
        e5 60                in eax, 0x60
        f4                   hlt
        """,
        ("in 60/1", "in 60/2", "in 60/4", "hlt"),
        {"rbx": 0xFFFFFFFFFFFFFF88, "rcx": 0xFFFFFFFFFFFF8788, "rax": 0x85868788},
    ),
    Program(
        "strings to a port",
        "rep outsb sends rcx bytes from rsi and leaves rcx 0; rep insb stores what it gets",
        """
        be 1e 00 10 00       mov esi, 0x10001e
        b9 05 00 00 00       mov ecx, 5
        ba e9 00 00 00       mov edx, 0xe9
        f3 6e                rep outsb dx, byte ptr [rsi]
        bf 00 10 20 00       mov edi, 0x201000
        b1 03                mov cl, 3
        f3 6c                rep insb byte ptr [rdi], dx
        f4                   hlt
        90                   nop
        90                   nop
        90                   nop
        68 65 6c 6c 6f       push 0x6f6c6c65
        """,
        ("out e9/1x5 68656c6c6f", "in e9/1x3", "hlt"),
        {"rcx": 0, "rsi": 0x100023, "rdi": NO_EXECUTE + 3},
        {NO_EXECUTE: b"\x88\x87\x86\x00"},
    ),
    Program(
        "instructions of ring 0",
        "each raises #GP in ring 3 and has no effect",
        """
        fa                   cli
        fb                   sti
        0f 20 d8             mov rax, cr3
        41 0f 22 c0          mov cr0, r8
        0f 23 c0             mov dr0, rax
        0f 01 13             lgdt [rbx]
        0f 01 1b             lidt [rbx]
        0f 00 d8             ltr ax
        0f 00 d0             lldt ax
        0f 01 f0             lmsw ax
        0f 32                rdmsr
        0f 30                wrmsr
        0f 06                clts
        0f 08                invd
        0f 09                wbinvd
        0f 01 3b             invlpg byte ptr [rbx]
        f4                   hlt
        """,
        (
            "cli",
            "sti",
            "mov rax, cr3",
            "mov cr0, r8",
            "mov dr0, rax",
            "lgdt [rbx]",
            "lidt [rbx]",
            "ltr ax",
            "lldt ax",
            "lmsw ax",
            "rdmsr",
            "wrmsr",
            "clts",
            "invd",
            "wbinvd",
            "invlpg byte ptr [rbx]",
            "hlt",
        ),
        {"rax": 0},
    ),
    Program(
        "sensitive, and silent",
        "popf cannot clear IF in ring 3, and says nothing; cs shows the ring",
        """
        9c                   pushfq
        58                   pop rax
        68 00 00 00 00       push 0
        9d                   popfq
        9c                   pushfq
        5b                   pop rbx
        8c c9                mov ecx, cs
        83 e1 03             and ecx, 3
        f4                   hlt
        """,
        ("hlt",),
        {"rax": 0x202, "rbx": 0x202, "rcx": 3},
    ),
    Program(
        "hypercalls",
        "syscall leaves its return address in rcx and the flags in r11; int 0x80 changes nothing",
        """
        b8 2a 00 00 00       mov eax, 0x2a
        0f 05                syscall
        48 89 ca             mov rdx, rcx
        4c 89 de             mov rsi, r11
        cd 80                int 0x80
        f4                   hlt
        """,
        ("hypercall 2a", "hypercall 2a", "hlt"),
        {"rax": 0x2A, "rcx": START + 7, "rdx": START + 7, "rsi": 0x202},
    ),
    Program(
        "a device",
        "loads and stores of a device's page, of every size, with and without sign",
        """
        bb 10 00 30 00       mov ebx, 0x300010
        48 b8 08 07 06 05 04 03 02 01  movabs rax, 0x102030405060708
        48 89 03             mov qword ptr [rbx], rax
        88 63 01             mov byte ptr [rbx + 1], ah
        66 c7 03 34 12       mov word ptr [rbx], 0x1234
        8b 0b                mov ecx, dword ptr [rbx]
        48 0f be 13          movsx rdx, byte ptr [rbx]
        0f b7 73 02          movzx esi, word ptr [rbx + 2]
        48 63 3b             movsxd rdi, dword ptr [rbx]
        f4                   hlt
        """,
        (
            "store 300010/8 102030405060708",
            "store 300011/1 7",
            "store 300010/2 1234",
            "load 300010/4",
            "load 300010/1",
            "load 300012/2",
            "load 300010/4",
            "hlt",
        ),
        {"rcx": 0x85868788, "rdx": 0xFFFFFFFFFFFFFF88, "rsi": 0x8788, "rdi": 0xFFFFFFFF85868788},
    ),
    Program(
        "page faults",
        "a missing page, a page without write, a page without execute; read-modify-write counts as a write",
        """
        bb 00 00 40 00       mov ebx, 0x400000
        8a 03                mov al, byte ptr [rbx]
        ff 03                inc dword ptr [rbx]
        bb 00 00 20 00       mov ebx, 0x200000
        8a 03                mov al, byte ptr [rbx]
        88 03                mov byte ptr [rbx], al
        f4                   hlt
        """,
        ("no page 400000 read", "no page 400000 write", "forbidden 200000 write", "hlt"),
    ),
    Program(
        "a jump to data",
        "executing a page that does not allow it faults at the target",
        """
        bb 00 10 20 00       mov ebx, 0x201000
        ff e3                jmp rbx
        """,
        ("forbidden 201000 execute",),
        {"rip": NO_EXECUTE},
    ),
    Program(
        "a stack that ends",
        "push below the stack's page faults and leaves rsp as it was",
        """
        bc 00 00 10 00       mov esp, 0x100000
        50                   push rax
        """,
        ("no page ffff8 write",),
        {"rsp": START},
    ),
    Program(
        "other exceptions",
        "ud2, a division by zero, int3, a vector that no gate allows",
        """
        0f 0b                ud2
        f7 f1                div ecx
        cc                   int3
        cd 30                int 0x30
        f4                   hlt
        """,
        ("undefined", "fault 0", "breakpoint", "fault d", "hlt"),
    ),
    Program(
        "an address that is not canonical",
        "general protection, not a page fault",
        """
        48 b8 00 00 00 00 00 00 00 80  movabs rax, 0x8000000000000000
        8b 08                mov ecx, dword ptr [rax]
        f4                   hlt
        """,
        ("fault d", "hlt"),
    ),
    Program(
        "nothing runs ahead",
        "what stands behind a trapped instruction has not happened at its exit",
        """
        bb 00 10 20 00       mov ebx, 0x201000
        66 ba f8 03          mov dx, 0x3f8
        b0 07                mov al, 7
        ee                   out dx, al
        ec                   in al, dx
        88 03                mov byte ptr [rbx], al
        f4                   hlt
        """,
        ("out 3f8/1 07", "in 3f8/1", "hlt"),
        {"rax": 0x88},
        {NO_EXECUTE: b"\x88"},
    ),
    Program(
        "vectors survive exits",
        "xmm registers keep their values across an exit",
        """
        b8 78 56 34 12       mov eax, 0x12345678
        66 0f 6e c8          movd xmm1, eax
        fa                   cli
        0f 0b                ud2
        66 0f 7e cb          movd ebx, xmm1
        f4                   hlt
        """,
        ("cli", "undefined", "hlt"),
        {"rbx": 0x12345678},
    ),
    Program(
        "code that changes itself",
        "a store into the next instructions takes effect",
        """
        c6 05 05 00 00 00 2a  mov byte ptr [rip + 5], 0x2a
        eb 00                jmp 0x100009
        90                   nop
        90                   nop
        b0 01                mov al, 1
        f4                   hlt
        """,
        ("hlt",),
        {"rax": 0x2A},
        {START + 12: b"\x2a"},
    ),
    Program(
        "step by step",
        "three instructions are three steps; pushf shows no trap flag",
        """
        9c                   pushfq
        58                   pop rax
        ff c0                inc eax
        f4                   hlt
        """,
        ("step 100001", "step 100002", "step 100004", "hlt"),
        {"rax": 0x203},
        steps=True,
    ),
)


def describe(reason: Exit) -> str:
    """An exit in one line, without anything that engines may choose."""
    match reason:
        case Io():
            times = f"x{reason.count}" if reason.string else ""
            return f"{reason.direction} {reason.port:x}/{reason.size}{times} {reason.data.hex()}".strip()
        case Mmio(direction="write", value=value):
            return f"store {reason.address:x}/{reason.size} {value:x}"
        case Mmio():
            return f"load {reason.address:x}/{reason.size}"
        case PageFault():
            return f"{'forbidden' if reason.present else 'no page'} {reason.address:x} {reason.access}"
        case Preempted():
            return f"step {reason.rip:x}"
    number: Any = getattr(reason, "number", getattr(reason, "vector", None))
    word = reason.text if reason.reason == "Privileged" else reason.reason.lower()
    return word if number is None else f"{word} {number:x}"


def run(program: Program, engine: str) -> Outcome:
    """Run a program on an engine, with the VMM that all of them share.

    Raises:
        CapabilityError: this machine does not have the engine.
    """
    seen: list[str] = []
    with Vcpu.open(engine, program.code, budget=Budget(exits=100, seconds=30)) as vcpu:
        vcpu.memory.map(READ_ONLY, 4096, "r")
        vcpu.memory.map(NO_EXECUTE, 4096, "rw")
        vcpu.memory.device(DEVICE, 4096)
        while len(seen) < 100:
            reason = vcpu.step() if program.steps else vcpu.run()
            seen.append(describe(reason))
            stuck = isinstance(reason, PageFault) and (not reason.code or reason.text.startswith("push"))
            if reason.final or isinstance(reason, Hlt) or stuck:
                break
            if not isinstance(reason, Preempted):
                vcpu.complete(reason, _answer(reason))
        memory = {address: vcpu.memory.read(address, len(data)) for address, data in program.memory.items()}
        return Outcome(tuple(seen), dict(vcpu.regs), memory)


def _answer(reason: Exit) -> int | bytes:
    if isinstance(reason, Io) and reason.string:
        return (ANSWER.to_bytes(8, "little") * reason.count)[: reason.count * reason.size]
    return ANSWER


def check(program: Program, engine: str) -> str:
    """Return ``""`` when an engine does what the architecture says, else what differs."""
    outcome = run(program, engine)
    if outcome.exits != program.exits:
        return f"exits {list(outcome.exits)}, expected {list(program.exits)}"
    for name, value in program.registers.items():
        if outcome.registers[name] != value:
            return f"{name} is {outcome.registers[name]:#x}, expected {value:#x}"
    for address, data in program.memory.items():
        if outcome.memory[address] != data:
            return f"memory at {address:#x} is {outcome.memory[address].hex(' ')}, expected {data.hex(' ')}"
    return ""
