"""Judgements on `vmm`: a trap-and-emulate machine, whose guests' exits and registers are known beforehand."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ...vcpu.instructions import code as machine_code
from ..answer import Call, Outcome
from ..compare import shorten
from ..exercise import Trial

GENERAL = (
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp",
    "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
)  # fmt: skip
CONTROL = ("cr0", "cr2", "cr3", "cr4")
KEYS = ("end", "console", "exits", "registers")
FUEL = 1000
IF = 0x200


@dataclasses.dataclass(frozen=True)
class Guest:
    """A guest and what must become of it.

    Attributes:
        listing: its code, for `course.vcpu.instructions.code`.
        end: ``"hlt"``, ``"fault"`` or ``"budget"``.
        console: what it prints.
        registers: values at the end that matter.
        flag: its interrupt flag at the end; None when it does not matter.
        exits: how many of each kind; None when it does not matter.
        keys: what is typed.
        fuel: exits.
        trap: the misconception that a wrong answer shows.
        hint: what to ask whoever has it.
    """

    listing: str
    trap: str
    hint: str
    end: str = "hlt"
    console: bytes = b""
    registers: Mapping[str, int] = dataclasses.field(default_factory=dict)
    flag: int | None = None
    exits: Mapping[str, int] | None = None
    keys: bytes = b""
    fuel: int = FUEL

    @property
    def code(self) -> bytes:
        """The machine code."""
        return machine_code(self.listing)

    @property
    def text(self) -> str:
        """The disassembly in one line."""
        return "; ".join(line.partition(";")[2].strip() for line in self.listing.strip().splitlines())


HELLO = Guest(
    """
    66 ba e9 00     ; mov dx, 0xe9
    b0 48           ; mov al, 'H'
    ee              ; out dx, al
    b0 69           ; mov al, 'i'
    ee              ; out dx, al
    f4              ; hlt
    """,
    "wrong-console",
    "What is sent to port 0xe9 belongs on the console.",
    console=b"Hi",
    exits={"Io": 2, "Hlt": 1},
)
LENGTHS = Guest(
    """
    e4 f4           ; in al, 0xf4
    b0 58           ; mov al, 'X'
    e6 e9           ; out 0xe9, al
    f4              ; hlt
    """,
    "rip-by-one",
    "The second byte of `in al, 0xf4` is f4, which is hlt when it is executed. How long is an instruction?",
    console=b"X",
)
PORTS = Guest(
    """
    b0 3f           ; mov al, '?'
    e6 80           ; out 0x80, al
    66 ba f8 03     ; mov dx, 0x3f8
    ee              ; out dx, al
    66 ba e9 01     ; mov dx, 0x1e9
    ee              ; out dx, al
    b0 21           ; mov al, '!'
    e6 e9           ; out 0xe9, al
    f4              ; hlt
    """,
    "every-port-prints",
    "Only 0xe9 is the console. Who listens at the others?",
    console=b"!",
)
SIZES = Guest(
    """
    b8 61 62 63 64  ; mov eax, 0x64636261
    e6 e9           ; out 0xe9, al
    66 e7 e9        ; out 0xe9, ax
    e7 e9           ; out 0xe9, eax
    f4              ; hlt
    """,
    "one-byte-only",
    "al is one byte, ax two, eax four: the exit tells size and data.",
    console=b"aababcd",
)
IN_AL = Guest(
    """
    48 83 c8 ff     ; or rax, -1
    e4 60           ; in al, 0x60
    f4              ; hlt
    """,
    "in-al-clears-the-rest",
    "in al writes eight bits. What happens to the other 56?",
    registers={"rax": 0xFFFFFFFFFFFFFF6B},
    keys=b"k",
)
IN_EAX = Guest(
    """
    48 83 c8 ff     ; or rax, -1
    e5 60           ; in eax, 0x60
    f4              ; hlt
    """,
    "in-eax-keeps-the-rest",
    "Writing a 32-bit register clears the upper half of the 64-bit one: always, also by in.",
    registers={"rax": 0x6B},
    keys=b"k",
)
IN_AX = Guest(
    """
    48 83 c8 ff     ; or rax, -1
    66 e5 60        ; in ax, 0x60
    f4              ; hlt
    """,
    "in-ax-wrong",
    "in ax writes sixteen bits, no more and no less.",
    registers={"rax": 0xFFFFFFFFFFFF006B},
    keys=b"k",
)
TYPED = Guest(
    """
    e4 60           ; in al, 0x60
    e6 e9           ; out 0xe9, al
    66 ba 60 00     ; mov dx, 0x60
    ec              ; in al, dx
    e6 e9           ; out 0xe9, al
    ec              ; in al, dx
    f4              ; hlt
    """,
    "keys-mixed-up",
    "Each read takes one key, the oldest first; when none is left, the port reads 0.",
    console=b"ok",
    registers={"rax": 0},
    keys=b"ok",
)
OPEN_BUS = Guest(
    """
    31 c0           ; xor eax, eax
    e4 61           ; in al, 0x61
    48 89 c3        ; mov rbx, rax
    66 e5 80        ; in ax, 0x80
    48 89 c1        ; mov rcx, rax
    e5 cf           ; in eax, 0xcf
    f4              ; hlt
    """,
    "nobody-is-not-zero",
    "Where nothing listens, no one pulls the wires down: all ones, as many as were asked for.",
    registers={"rbx": 0xFF, "rcx": 0xFFFF, "rax": 0xFFFFFFFF},
    keys=b"not for you",
)
CLI = Guest(
    """
    fb              ; sti
    fa              ; cli
    f4              ; hlt
    """,
    "flags-of-the-host",
    "Bit 9 of rflags is the interrupt flag: of whom, the guest or the processor it borrows?",
    flag=0,
    exits={"Privileged": 2, "Hlt": 1},
)
STI = Guest(
    """
    fa              ; cli
    fb              ; sti
    f4              ; hlt
    """,
    "interrupt-flag-not-kept",
    "sti sets the guest's interrupt flag. Where does your machine keep it, and is it in rflags at the end?",
    flag=1,
)
CR3 = Guest(
    """
    b8 00 50 00 00  ; mov eax, 0x5000
    0f 22 d8        ; mov cr3, rax
    0f 20 db        ; mov rbx, cr3
    f4              ; hlt
    """,
    "cr3-not-kept",
    "A control register is a place to write to and to read from.",
    registers={"cr3": 0x5000, "rbx": 0x5000},
)
BANK = Guest(
    """
    bb 01 00 00 80  ; mov ebx, 0x80000001
    0f 22 c3        ; mov cr0, rbx
    bf 20 00 00 00  ; mov edi, 0x20
    0f 22 e7        ; mov cr4, rdi
    41 be 00 70 12 00  ; mov r14d, 0x127000
    41 0f 22 de     ; mov cr3, r14
    41 0f 20 c7     ; mov r15, cr0
    0f 20 e6        ; mov rsi, cr4
    0f 20 d9        ; mov rcx, cr3
    f4              ; hlt
    """,
    "one-control-register",
    "cr0, cr3 and cr4 are three registers, and any general register may stand beside them.",
    registers={"r15": 0x80000001, "rsi": 0x20, "rcx": 0x127000, "cr0": 0x80000001, "cr4": 0x20, "cr3": 0x127000},
)
MSR = Guest(
    """
    b9 80 00 00 c0  ; mov ecx, 0xc0000080
    b8 01 05 00 00  ; mov eax, 0x501
    ba 07 00 00 00  ; mov edx, 7
    0f 30           ; wrmsr
    b9 10 00 00 00  ; mov ecx, 0x10
    b8 22 00 00 00  ; mov eax, 0x22
    31 d2           ; xor edx, edx
    0f 30           ; wrmsr
    b9 80 00 00 c0  ; mov ecx, 0xc0000080
    48 83 c8 ff     ; or rax, -1
    48 83 ca ff     ; or rdx, -1
    0f 32           ; rdmsr
    f4              ; hlt
    """,
    "msr-mixed-up",
    "ecx says which one; edx:eax is its value, and writing a 32-bit register clears the upper half.",
    registers={"rax": 0x501, "rdx": 7},
)
NEW_MSR = Guest(
    """
    b9 34 12 00 00  ; mov ecx, 0x1234
    48 83 c8 ff     ; or rax, -1
    0f 32           ; rdmsr
    f4              ; hlt
    """,
    "msr-not-zero",
    "On this machine an MSR that nobody has written reads 0.",
    registers={"rax": 0, "rdx": 0},
)
AFTER_HLT = Guest(
    """
    b0 31           ; mov al, '1'
    e6 e9           ; out 0xe9, al
    f4              ; hlt
    e6 e9           ; out 0xe9, al
    f4              ; hlt
    """,
    "hlt-ignored",
    "hlt ends the machine: what stands behind it must not run.",
    console=b"1",
    exits={"Io": 1, "Hlt": 1},
)
_UNKNOWN = "A machine that passes over what it does not know goes on with a wrong state. How does yours end?"
LGDT = Guest(
    """
    b0 31           ; mov al, '1'
    e6 e9           ; out 0xe9, al
    0f 01 54 24 f0  ; lgdt [rsp - 16]
    e6 e9           ; out 0xe9, al
    f4              ; hlt
    """,
    "unknown-passed-over",
    _UNKNOWN,
    end="fault",
    console=b"1",
)
DEBUG = Guest(
    """
    0f 23 f8        ; mov dr7, rax
    f4              ; hlt
    """,
    "debug-is-not-control",
    "dr7 is no control register: this machine has none of these.",
    end="fault",
)
CRASHES = tuple(
    Guest(
        f"""
        b0 31           ; mov al, '1'
        e6 e9           ; out 0xe9, al
        {code}          ; {text}
        e6 e9           ; out 0xe9, al
        f4              ; hlt
        """,
        "fault-passed-over",
        _UNKNOWN,
        end="fault",
        console=b"1",
    )
    for text, code in {"ud2": "0f 0b", "mov eax, [16]": "8b 04 25 10 00 00 00", "div ecx": "f7 f1"}.items()
)
ENDLESS = Guest(
    """
    b0 2e           ; mov al, '.'
    e6 e9           ; out 0xe9, al
    eb fc           ; jmp to the out
    """,
    "no-fuel",
    "A guest may never stop asking. Which exit does run() return when the budget is used up?",
    end="budget",
    console=b"." * 60,
    exits={"Io": 60},
    fuel=60,
)


def judge_guest(trial: Trial, guest: Guest, engine: str) -> None:
    """Let the answer run a guest on an engine, and compare what became of it."""
    asked = f"vmm({engine!r}, code, keys={guest.keys!r}, fuel={guest.fuel}) with the code {guest.text!r}"
    done = trial.attempt(engine, guest.code, keys=guest.keys, fuel=guest.fuel)
    _judge_progress(trial, done, guest, asked)
    got = judge_shape(trial, trial.value_of(done, asked), asked)
    said = f"{asked}:\n"
    if got["end"] != guest.end:
        # the most frequent reason, named for what it is
        wrong = (
            f"{said}the machine ended with {got['end']!r}, expected {guest.end!r}; console {shorten(got['console'])}."
        )
        trial.wrong(guest.trap, wrong, guest.hint)
    if got["console"] != guest.console:
        wrong = f"{said}the console shows {shorten(got['console'])}, expected {shorten(guest.console)}."
        trial.wrong(guest.trap, wrong, guest.hint)
    for name, value in guest.registers.items():
        if got["registers"][name] != value:
            trial.wrong(guest.trap, f"{said}{name} is {got['registers'][name]:#x}, expected {value:#x}.", guest.hint)
    flag = int(bool(got["registers"]["rflags"] & IF))
    if guest.flag is not None and flag != guest.flag:
        trial.wrong(guest.trap, f"{said}the interrupt flag in rflags is {flag}, expected {guest.flag}.", guest.hint)
    if guest.exits is not None and got["exits"] != dict(guest.exits):
        wrong = f"{said}exits {shorten(got['exits'])}, expected {dict(guest.exits)}."
        trial.wrong("exits-miscounted", wrong, "Count every exit that run() returned, the last one too, by its reason.")


def _judge_progress(trial: Trial, done: Call, guest: Guest, asked: str) -> None:
    """A VMM that gets nowhere is told so, however it ended."""
    spent = done.outcome is Outcome.RAISED and done.error == "BudgetSpentError"
    if spent and guest.end == "budget":
        trial.wrong(guest.trap, f"{asked} raised {done.error}: {done.detail}", guest.hint)
    ended = done.value.get("end") if isinstance(done.value, dict) else None
    if spent or (ended == "budget" and guest.end != "budget"):
        shown = f" The console shows {shorten(done.value.get('console'))}." if isinstance(done.value, dict) else ""
        trial.wrong(
            "rip-not-advanced",
            f"{asked} used up its {guest.fuel} exits: your VMM never advanced RIP.{shown}",
            "After an exit rip still points at the instruction that trapped. What does run() execute next?",
        )


def judge_shape(trial: Trial, got: Any, asked: str) -> dict[str, Any]:
    """The result has what was asked for, of the right kinds."""
    trial.expect(isinstance(got, dict), "not-a-dict", f"{asked} returned {type(got).__name__}, expected a dict.")
    missing = [key for key in KEYS if key not in got]
    trial.expect(not missing, "incomplete", f"{asked}: the result says nothing about {', '.join(missing)}.")
    kinds = {"end": str, "console": bytes, "exits": dict, "registers": dict}
    for key, kind in kinds.items():
        trial.expect(
            isinstance(got[key], kind),
            "wrong-kind",
            f"{asked}: {key} is {shorten(got[key])}; expected {kind.__name__}.",
        )
    absent = [name for name in (*GENERAL, "rflags", *CONTROL) if not isinstance(got["registers"].get(name), int)]
    trial.expect(not absent, "registers-missing", f"{asked}: no number for the register(s) {', '.join(absent)}.")
    return dict(got)
