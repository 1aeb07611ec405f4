"""Whole programs, written here byte by byte: a greeting in twelve instruction sets, a C struct dumped by six.

Also where to find real foreign programs on every machine that has QEMU: its firmware.
"""

from __future__ import annotations

import dataclasses
import functools
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path

from ..error import UsageError
from .assembler import assemble
from .elf import code_address, write_elf
from .table import Isa, lookup

# ── A greeting ──────────────────────────────────────────────────────────────────────────────────────────────────────
# write(1, message, length), then exit(argc - 1 + status): `status` lets a caller see the exit code travel, argc that
# arguments arrived. The stack of a new process begins with argc.

_GREETINGS = {
    "x86": """
        mov eax, {write}
        mov ebx, 1
        mov ecx, {message}
        mov edx, {length}
        int 0x80
        mov eax, {exit}
        mov ebx, [esp]
        add ebx, {more}
        int 0x80
    """,
    "x86_64": """
        mov eax, {write}
        mov edi, 1
        mov esi, {message}
        mov edx, {length}
        syscall
        mov eax, {exit}
        mov edi, [rsp]
        add edi, {more}
        syscall
    """,
    "ppc": """
        li r0, {write}
        li r3, 1
        lis r4, {high}
        ori r4, r4, {low}
        li r5, {length}
        sc
        li r0, {exit}
        {load} r3, 0(r1)
        addi r3, r3, {more}
        sc
    """,
    "aarch64": """
        mov x8, {write}
        mov x0, 1
        movz x1, {low}
        movk x1, {high}, lsl #16
        mov x2, {length}
        svc 0
        mov x8, {exit}
        ldr x0, [sp]
        mov x1, {more_low}
        add x0, x0, x1
        svc 0
    """,
    "riscv": """
        li a7, {write}
        li a0, 1
        li a1, {message}
        li a2, {length}
        ecall
        li a7, {exit}
        lw a0, 0(sp)
        addi a0, a0, {more}
        ecall
    """,
}


def hello(isa: str | Isa, message: str = "hello\n", status: int = 0) -> bytes:
    """Return an ELF program that writes `message` and ends with exit status `status` + number of its arguments.

    Args:
        isa: any of the twelve.
        message: at most 255 bytes of UTF-8.
        status: 0 to 127.

    Raises:
        UsageError: for a message or a status out of range.
    """
    row, text = lookup(isa), message.encode()
    if not 0 < len(text) < 256 or not 0 <= status < 128:
        raise UsageError(
            f"a message of 1 to 255 bytes and a status of 0 to 127 were expected, not {len(text)} and {status}"
        )
    start = code_address(row)
    size = len(_greeting(row, start, text, status))
    return write_elf(_greeting(row, start + size, text, status) + text, row)


def _greeting(row: Isa, message: int, text: bytes, status: int) -> bytes:
    words = {"arm": _hello_arm, "s390x": _hello_s390x, "m68k": _hello_m68k, "mips": _hello_mips}
    if row.name in words:
        return words[row.name](row, message, len(text), status - 1)
    family = "ppc" if row.name.startswith("ppc") else "riscv" if row.name.startswith("riscv") else row.name
    source = _GREETINGS[family].format(
        write=row.write_call, exit=row.exit_call, message=message, high=message >> 16, low=message & 0xFFFF,
        length=len(text), more=status - 1, more_low=status - 1, load="lwz" if row.bits == 32 else "ld",
    )  # fmt: skip
    return assemble(source, row)


def _hello_arm(row: Isa, message: int, length: int, more: int) -> bytes:
    """Encode mov r7,#4; mov r0,#1; add r1,pc,#24; mov r2,#n; svc 0; mov r7,#1; ldr r0,[sp]; add|sub r0,r0,#m; svc 0."""
    change = 0xE2800000 | more if more >= 0 else 0xE2400001
    words = (0xE3A07004, 0xE3A00001, 0xE28F1000 | 5 * 4, 0xE3A02000 | length, 0xEF000000, 0xE3A07001, 0xE59D0000,
             change, 0xEF000000)  # fmt: skip
    return struct.pack("<9I", *words)


def _hello_s390x(row: Isa, message: int, length: int, more: int) -> bytes:
    """Encode lghi r1,4; lghi r2,1; larl r3,message; lghi r4,n; svc 0; lghi r1,1; lg r2,160(r15)…; aghi r2,m; svc 0."""
    head = bytes.fromhex("a7190004 a7290001")
    tail = struct.pack(">HH", 0xA749, length) + bytes.fromhex("0a00 a7190001 e320f0000004")
    tail += struct.pack(">HhH", 0xA72B, more, 0x0A00)
    return head + struct.pack(">Hi", 0xC030, (6 + len(tail)) // 2) + tail


def _hello_m68k(row: Isa, message: int, length: int, more: int) -> bytes:
    """Encode moveq #4,d0; moveq #1,d1; move.l #message,d2; move.l #n,d3; trap #0; moveq #1,d0; move.l (sp),d1."""
    head = struct.pack(">HHHIHI", 0x7004, 0x7201, 0x243C, message, 0x263C, length)
    return head + struct.pack(">HHHHiH", 0x4E40, 0x7001, 0x2217, 0x0681, more, 0x4E40)


def _hello_mips(row: Isa, message: int, length: int, more: int) -> bytes:
    """Encode li v0,4004; li a0,1; lui a1; ori a1; li a2,n; syscall; li v0,4001; lw a0,0(sp); addiu a0,a0,m; syscall."""
    words = (0x24020000 | row.write_call, 0x24040001, 0x3C050000 | message >> 16, 0x34A50000 | message & 0xFFFF,
             0x24060000 | length, 0xC, 0x24020000 | row.exit_call, 0x8FA40000, 0x24840000 | more & 0xFFFF,
             0xC)  # fmt: skip
    return struct.pack(">10I", *words)


# ── A C struct ──────────────────────────────────────────────────────────────────────────────────────────────────────
# struct record { char tag; double weight; short delta; long serial; };
# Offsets as each platform's C compiler lays it out (its ABI): a member starts at a multiple of its alignment.


@dataclasses.dataclass(frozen=True)
class Layout:
    """Offsets in bytes of the four members, and the struct's size."""

    tag: int
    weight: int
    delta: int
    serial: int
    size: int


@functools.lru_cache
def record_layout(isa: str) -> Layout:
    """Where the members of ``struct record`` lie on `isa`.

    On 32-bit x86 Linux a double inside a struct is aligned to 4 bytes, elsewhere to 8; a long is as wide as an address.

    Source: System V ABI i386 supplement, table 2.1; PowerPC processor supplement, table 3-1; AAPCS64; RISC-V psABI.
    """
    row = lookup(isa)
    double = 4 if row.name == "x86" else 8
    delta = double + 8
    serial = delta + 4 if row.bits == 32 else delta + 8
    end = serial + row.word_bytes
    return Layout(0, double, delta, serial, -(-end // max(double, row.word_bytes)) * max(double, row.word_bytes))


def record(isa: str | Isa, tag: int, weight: float, delta: int, serial: int) -> bytes:
    """Return an ELF program that fills a ``struct record`` with its own store instructions and writes it out.

    Args:
        isa: x86, x86_64, ppc, ppc64, aarch64 or riscv64.
        tag: a char, 0 to 127.
        weight: a double.
        delta: a short, -32768 to 32767.
        serial: a long; 32 bits with sign.

    Raises:
        UsageError: for an ISA without an assembler here, or a value out of range.
    """
    row = lookup(isa)
    if not (0 <= tag < 128 and -32768 <= delta < 32768 and -(1 << 31) <= serial < 1 << 31):
        raise UsageError(f"a value does not fit: tag {tag}, delta {delta}, serial {serial}")
    layout = record_layout(row.name)
    bits = struct.unpack(">Q", struct.pack(">d", weight))[0]
    stores: list[tuple[int, int, int]] = [(layout.tag, 1, tag), (layout.delta, 2, delta & 0xFFFF)]
    halves = [(0, bits >> 32), (4, bits & 0xFFFFFFFF)]
    if row.endian == "little":
        halves = [(4, bits >> 32), (0, bits & 0xFFFFFFFF)]
    stores += [(layout.weight + at, 4, half) for at, half in halves]
    if row.bits == 32:
        stores.append((layout.serial, 4, serial & 0xFFFFFFFF))
    else:
        stores.append((layout.serial, 8, serial))
    return write_elf(assemble(_dump(row, stores, layout.size), row), row)


def _dump(row: Isa, stores: list[tuple[int, int, int]], size: int) -> str:
    """Assembly: make room on the stack, clear it, store each value, write(1, sp, size), exit(0)."""
    room = 64
    lines: list[str] = []
    if row.name in ("x86", "x86_64"):
        sp, width = ("esp", "dword") if row.bits == 32 else ("rsp", "qword")
        names = {1: "byte", 2: "word", 4: "dword", 8: "qword"}
        lines = [f"sub {sp}, {room}"]
        lines += [f"mov {width} [{sp} + {at}], 0" for at in range(0, room, row.word_bytes)]
        lines += [f"mov {names[n]} [{sp} + {at}], {value}" for at, n, value in stores]
        if row.bits == 32:
            return "\n".join([*lines, f"mov eax, 4\nmov ebx, 1\nmov ecx, esp\nmov edx, {size}\nint 0x80",
                              "mov eax, 1\nxor ebx, ebx\nint 0x80"])  # fmt: skip
        return "\n".join([*lines, f"mov eax, 1\nmov edi, 1\nmov rsi, rsp\nmov edx, {size}\nsyscall",
                          "mov eax, 60\nxor edi, edi\nsyscall"])  # fmt: skip
    return "\n".join(_dump_lines(row, stores, size, room))


def _dump_lines(row: Isa, stores: list[tuple[int, int, int]], size: int, room: int) -> list[str]:
    if row.name.startswith("ppc"):
        names = {1: "stb", 2: "sth", 4: "stw", 8: "std"}
        lines = [f"addi r1, r1, -{room}", "li r5, 0"]
        lines += [f"stw r5, {at}(r1)" for at in range(0, room, 4)]
        for at, n, value in stores:  # lis sign-extends, so 64-bit values with sign come out right
            lines += [f"lis r5, {value >> 16 & 0xFFFF}", f"ori r5, r5, {value & 0xFFFF}", f"{names[n]} r5, {at}(r1)"]
        return [*lines, "li r0, 4", "li r3, 1", "mr r4, r1", f"li r5, {size}", "sc", "li r0, 1", "li r3, 0", "sc"]
    if row.name == "aarch64":
        names = {1: "strb", 2: "strh", 4: "str", 8: "str"}
        lines = [f"sub sp, sp, #{room}", *(f"str xzr, [sp, #{at}]" for at in range(0, room, 8))]
        for at, n, value in stores:
            register = "x9" if n == 8 else "w9"
            parts = [f"movz {register}, #{value & 0xFFFF}", f"movk {register}, #{value >> 16 & 0xFFFF}, lsl #16"]
            if n == 8 and value < 0:
                parts += [f"movk x9, #65535, lsl #{shift}" for shift in (32, 48)]
            lines += [*parts, f"{names[n]} {register}, [sp, #{at}]"]
        return [*lines, "mov x8, 64", "mov x0, 1", "mov x1, sp", f"mov x2, #{size}", "svc 0", "mov x8, 93",
                "mov x0, 0", "svc 0"]  # fmt: skip
    names = {1: "sb", 2: "sh", 4: "sw", 8: "sd"}
    wide = names[row.word_bytes]
    lines = [f"addi sp, sp, -{room}", *(f"{wide} zero, {at}(sp)" for at in range(0, room, row.word_bytes))]
    for at, n, value in stores:
        signed = value - (1 << 32) if value >= 1 << 31 else value
        lines += [f"li t0, {signed}", f"{names[n]} t0, {at}(sp)"]
    return [*lines, "li a7, 64", "li a0, 1", "mv a1, sp", f"li a2, {size}", "ecall", "li a7, 93", "li a0, 0", "ecall"]


# ── Real programs ───────────────────────────────────────────────────────────────────────────────────────────────────

_FIRMWARE = {
    "openbios-ppc": "OpenBIOS for PowerPC",
    "openbios-sparc32": "OpenBIOS for SPARC",
    "openbios-sparc64": "OpenBIOS for SPARC 64",
    "opensbi-riscv64-generic-fw_dynamic.elf": "OpenSBI for RISC-V",
    "s390-ccw.img": "boot loader for IBM Z",
    "hppa-firmware.img": "SeaBIOS for HP PA-RISC",
    "palcode-clipper": "PALcode for Alpha",
}


def firmware(qemu: str = "qemu-system-x86_64") -> Mapping[str, Path]:
    """ELF programs of foreign machines that QEMU brings along: their firmware, by file name.

    Args:
        qemu: a QEMU that is asked where its data files are.

    Returns:
        Those that exist here; which ones do depends on how QEMU was packaged.
    """
    try:
        said = subprocess.run([qemu, "-L", "help"], capture_output=True, text=True, timeout=10, check=False).stdout
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return {}
    folders = [Path(line) for line in said.splitlines() if line.startswith("/")]
    found = {}
    for name in _FIRMWARE:
        path = next((folder / name for folder in folders if (folder / name).is_file()), None)
        if path is not None and path.read_bytes()[:4] == b"\x7fELF":
            found[name] = path
    return found
