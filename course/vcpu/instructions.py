"""Forty instructions, and what each does where: trapped in ring 3, and with which effect in ring 0.

`survey` puts Popek and Goldberg's question to a processor: does every *sensitive* instruction trap? An instruction is
sensitive when its effect in a virtual machine that runs it directly differs from its effect on a machine of its own::

    the same start ─┬─▶ ring 0 of the reference (`perfect`) ─────────────▶ state "perfect"
                    └─▶ ring 3 of an engine; the VMM hears only of traps ─▶ state "seen"

A state is what the guest has then: registers, arithmetic flags, 16 bytes of memory, and *its* interrupt flag. For
"seen" the VMM keeps that flag, and an instruction that does not trap cannot change what the VMM keeps.

Source: Popek and Goldberg 1974; Robin and Irvine, "Analysis of the Intel Pentium's Ability to Support a Secure Virtual
Machine Monitor", USENIX Security 2000, for the list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import perfect
from .cpu import START, Budget, Vcpu
from .exits import Hlt
from .registers import NAMES

SCRATCH = START + 0x8000
_ARITHMETIC = 0xCD5  # OF, DF, SF, ZF, AF, PF, CF
_IF = 0x200

_LISTING = """
cli                 fa
sti                 fb
hlt                 f4
in al, 0x60         e4 60
in eax, dx          ed
out 0x80, al        e6 80
out dx, eax         ef
mov rax, cr0        0f 20 c0
mov cr3, rax        0f 22 d8
mov rdx, cr4        0f 20 e2
mov dr7, rax        0f 23 f8
lgdt [scratch]      0f 01 14 25 00 80 10 00
lidt [scratch]      0f 01 1c 25 00 80 10 00
lldt ax             0f 00 d0
ltr ax              0f 00 d8
lmsw ax             0f 01 f0
clts                0f 06
invd                0f 08
wbinvd              0f 09
invlpg [scratch]    0f 01 3c 25 00 80 10 00
rdmsr               0f 32
wrmsr               0f 30
swapgs              0f 01 f8
mov rdx, dr6        0f 21 f2
pushfq; pop rax     9c 58
push 2; popfq       6a 02 9d
mov eax, cs         8c c8
smsw eax            0f 01 e0
sgdt [scratch]      0f 01 04 25 00 80 10 00
sidt [scratch]      0f 01 0c 25 00 80 10 00
sldt eax            0f 00 c0
str eax             0f 00 c8
lar ecx, edx (8)    ba 08 00 00 00 0f 02 ca
lsl ecx, edx (8)    ba 08 00 00 00 0f 03 ca
verr dx (8)         ba 08 00 00 00 0f 00 e2
nop                 90
add eax, 5          83 c0 05
push rsp; pop rbx   54 5b
lea rcx, [rsp - 8]  48 8d 4c 24 f8
ud2                 0f 0b
"""


def table() -> dict[str, bytes]:
    """Return the forty, by name; operands that matter are set up by the bytes themselves."""
    rows = (line.rsplit("  ", 1) for line in _LISTING.strip().splitlines())
    return {name.strip(): bytes.fromhex(code) for name, code in rows}


def code(listing: str) -> bytes:
    """Turn a listing into machine code: bytes in hexadecimal; ``;`` begins a comment."""
    return bytes.fromhex(" ".join(line.partition(";")[0] for line in listing.splitlines()))


def survey(engine: str, classify: Callable[[str, bytes], str]) -> list[dict[str, Any]]:
    """Run each of the forty that exists from two states, with the guest's interrupts off and on.

    Args:
        engine: of `Vcpu.open`.
        classify: says what ring 3 does with a piece of code: ``"silent"`` when it runs through.

    Returns:
        One row per instruction and state: ``name``, ``outcome``, ``perfect`` and ``seen``, which is None unless
        the outcome is ``"silent"``.

    Raises:
        CapabilityError: this machine does not have the engine, or not Unicorn.
    """
    rows = []
    for name, piece in table().items():
        outcome = classify(engine, piece)
        if outcome == "undefined":
            continue
        for flag in (0, 1):
            rows.append({
                "name": name,
                "outcome": outcome,
                "perfect": on_its_own_machine(piece, flag),
                "seen": in_ring_3(engine, piece, flag) if outcome == "silent" else None,
            })  # fmt: skip
    return rows


def on_its_own_machine(piece: bytes, flag: int) -> dict[str, int]:
    """Return the state after a piece of code in ring 0, which began with the interrupt flag `flag`."""
    result = perfect.run(piece, registers={"rflags": 2 | _IF * flag})
    return _state(result["registers"], result["memory"], bool(result["registers"]["rflags"] & _IF))


def in_ring_3(engine: str, piece: bytes, flag: int) -> dict[str, int] | None:
    """Return the state that a VMM has after a piece of code that did not trap; None when it did."""
    with Vcpu.open(engine, piece + b"\xf4", budget=Budget(seconds=30)) as vcpu:
        reason = vcpu.run(instructions=10_000)
        if not isinstance(reason, Hlt) or reason.rip != START + len(piece):
            return None
        return _state(dict(vcpu.regs), vcpu.memory.read(SCRATCH, 16), bool(flag))


def _state(registers: dict[str, int], memory: bytes, flag: bool) -> dict[str, int]:
    state = {name: registers[name] for name in NAMES if name not in ("rip", "rflags")}
    flags = {"flags": registers["rflags"] & _ARITHMETIC, "IF": int(flag)}
    return {**state, **flags, "memory": int.from_bytes(memory[:16], "little")}
