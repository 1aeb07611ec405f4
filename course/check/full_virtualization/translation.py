"""Judgements on guests that are translated: block by block while they run (`translate`), or rewritten (`rewrite`)."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from typing import Any

from ...isa.assembler import assemble
from ...isa.disassembler import decode
from ...vcpu.cpu import START
from ...vcpu.deprivileged import Deprivileged
from ...vcpu.sensitive import Guest, straight, switching
from ..compare import shorten
from ..exercise import Exercise, Trial

translate = Exercise("translate", deadline_s=30)
rewrite = Exercise("rewrite", deadline_s=20)

FLAG = 0x200000
"""Where the virtual interrupt flag lies: one byte, 0 or 1."""


# ── translate ────────────────────────────────────────────────────────────────────────────────────────────────────────


def judge_translate(trial: Trial, guest: Guest, engine: str = "best") -> None:
    """Let the answer run a guest block by block; judge what the guest sent and which traps were set."""
    got = trial.call(engine, guest.code, guest.base)
    keys = {"result", "output", "ended", "trapped", "entries"}
    complete = isinstance(got, dict) and keys <= set(got)
    trial.expect(complete, "not-the-report", f"Expected what guest.report() returns, got {shorten(got)}.")
    _judge_traps(trial, guest, got)
    trial.expect(
        got["ended"] == "hlt" and got["output"] == guest.output,
        "wrong-output",
        f"The guest sent {got['output']!r} and ended with {got['ended']!r}; a perfect machine lets it send"
        f" {guest.output!r} and halt. {len(set(got['entries']))} different blocks were entered.",
        "Which instruction did the guest execute that your block did not list?",
    )
    trial.expect(
        set(guest.sensitive) & set(got["trapped"]) != set(),
        "not-translated",
        "The guest sent what it should, and not one of its sensitive instructions was trapped.",
    )
    _judge_cache(trial, got)


def _judge_traps(trial: Trial, guest: Guest, got: dict[str, Any]) -> None:
    """No data was trapped, and blocks came to an end."""
    for address in got["trapped"]:
        if any(begin <= address < end for begin, end in guest.data):
            trial.wrong(
                "data-patched",
                f"You set {len(got['trapped'])} traps, one of them at {address:#x}, where the guest keeps data that it"
                " never executes. It was disassembled as if it were code.",
                "Only what the guest is about to execute is surely code. Where does a block end?",
            )
    ends = [address for address in got["trapped"] if address not in guest.sensitive]
    if not ends:
        trial.wrong(
            "no-block-end",
            f"You set {len(got['trapped'])} traps, none of them where a block ends. The guest was entered"
            f" {len(got['entries'])} time(s); then it jumped, ran on in code that nobody had looked at, and your loop"
            " never saw it again.",
            "Who has to get control when the block's last instruction goes elsewhere?",
        )


def _judge_cache(trial: Trial, got: dict[str, Any]) -> None:
    """A block is translated once: no address is trapped more often than there are blocks that can hold it."""
    blocks = len(set(got["entries"]))
    if not got["trapped"]:
        return
    address, times = Counter(got["trapped"]).most_common(1)[0]
    trial.expect(
        times <= blocks,
        "no-cache",
        f"The guest has {blocks} different blocks, and you set the trap at {address:#x} {times} times:"
        f" {len(got['trapped'])} traps in all for {len(got['entries'])} runs of blocks.",
        "A loop comes to the same block again and again, and its traps are still there.",
    )


@translate.step("a guest without jump tables runs as on a perfect machine")
def _translate_straight(trial: Trial) -> None:
    judge_translate(trial, straight(random.Random(trial.rng.random()), 7))


@translate.step(
    "a guest with a jump table among its code runs as on a perfect machine, and each block is translated once"
)
def _translate_switch(trial: Trial) -> None:
    judge_translate(trial, switching(random.Random(trial.rng.random())))


# ── rewrite ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Program = tuple[str, str]
_END = "mov eax, ebx\n.byte 0xe7, 0xe9\nhlt"


def run_with_flag(engine: str, code: bytes, seconds: float = 20, flag: int = FLAG) -> dict[str, Any]:
    """Run a guest beside a page with its virtual interrupt flag, 255 at first; the report tells it as ``"flag"``."""
    with Deprivileged(engine, code, seconds=seconds) as machine:
        machine.vcpu.memory.map(FLAG, 4096, "rw", b"\xff" * 4096)
        report = machine.run()
        page = machine.vcpu.memory.read(FLAG, 4096)
        touched = [FLAG + at for at, byte in enumerate(page) if byte != 0xFF and FLAG + at != flag]
        return {**report, "flag": page[flag - FLAG], "touched": touched}


@dataclasses.dataclass(frozen=True)
class Case:
    """A guest to be rewritten, and what is to be learnt if it fails.

    Attributes:
        source: assembly, without the end that all of them have.
        misconception: when the rewritten guest does something else.
        hint: what to look at.
    """

    source: str
    misconception: str
    hint: str


def image(case: Case) -> bytes:
    """Return the machine code of a case, with its beginning and its end."""
    return assemble(f"xor ebx, ebx\n{case.source}\n{_END}", "x86_64", START)


def judge_rewrite(trial: Trial, case: Case, engine: str = "best", *, cheaper: int = 1) -> None:
    """Let the answer rewrite a guest; run both and compare output, flag and exits."""
    code, flag = image(case), FLAG + trial.rng.randrange(1, 4096)
    got = trial.call(code, flag)
    trial.expect(isinstance(got, bytes), "not-bytes", f"Expected machine code as bytes, got {shorten(got)}.")
    before, after = run_with_flag(engine, code), run_with_flag(engine, got, 8, flag)
    for name in ("cli", "sti"):
        trial.expect(
            name not in after["exits"],
            "still-traps",
            f"The rewritten guest still executes {name} ({after['exits'].get(name)} times), which traps.",
            "Both instructions change the flag.",
        )
    if (after["ended"], after["output"]) != ("hlt", before["output"]):
        listing = "; ".join(i.text for i in decode(got, "x86_64", START))
        trial.wrong(
            case.misconception,
            f"The guest sent {before['output'].hex(' ')}; rewritten it sent {after['output'].hex(' ') or 'nothing'} and"
            f" ended with {after['ended']!r}. Rewritten it reads: {shorten(listing)}",
            case.hint,
        )
    if after["touched"]:
        trial.wrong(
            "another-byte",
            f"rewrite was told that the flag is the byte at {flag:#x}; the rewritten guest wrote to the one at"
            f" {after['touched'][0]:#x}.",
            "Where does the address in your store come from?",
        )
    expected = int(before["interrupts"])
    trial.expect(
        after["flag"] == expected,
        "wrong-flag",
        f"At the guest's end its interrupts are {'on' if expected else 'off'}: the byte at {flag:#x} should be"
        f" {expected}; it is {after['flag']}.",
        "cli forbids interrupts, sti allows them. The address is the second argument.",
    )
    ratio = sum(before["exits"].values()) / max(1, sum(after["exits"].values()))
    trial.expect(ratio >= cheaper, "not-cheaper", f"The exits went down by a factor of {ratio:.0f} only.")


PLAIN = Case("mov ebx, 5\ncli\nadd ebx, 7", "wrong-store", "mov byte [address], value is c6 04 25, address, value.")


def flags(rng: random.Random) -> Case:
    """The carry lives across cli and sti."""
    first, second = (rng.choice(("cli", "sti")) for _ in range(2))
    carry, value = rng.choice(("stc", "clc")), rng.randrange(1, 1000)
    text = f"mov ebx, {value}\nstc\n{first}\nadc ebx, {value}\n{carry}\n{second}\nadc ebx, 3\ncmp ebx, ebx\n{first}\n"
    return Case(
        f"{text}sbb ebx, 0\nclc\n{second}\nadc ebx, 1",
        "flags-destroyed",
        "cli changes no arithmetic flag. Which flags does your replacement change?",
    )


def numbers(rng: random.Random) -> Case:
    """Bytes that look like cli and sti, in numbers."""
    value = int.from_bytes(bytes(rng.choices((0xFA, 0xFB, 0x75, 0xEB), k=2)) + b"\xfa\x7a", "little")
    hint = "0xfa is cli only where an instruction begins."
    return Case(f"mov ebx, {value:#x}\ncli\nadd ebx, {value:#x}\nsti\nxor ebx, 0xfa", "numbers-rewritten", hint)


def registers(rng: random.Random) -> Case:
    """Every register lives across cli and sti."""
    names = ["eax", "ecx", "edx", "esi", "edi", "ebp", *(f"r{n}d" for n in range(8, 16))]
    load = "\n".join(f"mov {name}, {rng.randrange(1 << 20)}" for name in names)
    use = "\n".join(f"imul ebx, ebx, 17\nadd ebx, {name}" for name in names)
    hint = "cli changes no register, and uses no stack."
    return Case(f"{load}\ncli\nsti\n{use}", "register-destroyed", hint)


_JUMPS = ("ja", "jae", "jb", "jbe", "je", "jg", "jge", "jl", "jle", "jne", "jno", "jns", "jo", "js")


def conditions(rng: random.Random) -> Case:
    """Jumps on several conditions, each over a cli that decides what is added."""
    lines = []
    for n, name in enumerate(rng.sample(_JUMPS, 6)):
        lines += [f"mov eax, {rng.randrange(1, 9)}", f"sub eax, {rng.randrange(1, 9)}", f"{name} on{n}", "cli"]
        lines += [f"add ebx, {rng.randrange(1, 1000)}", f"on{n}: sti", "imul ebx, ebx, 3"]
    hint = "The processor has sixteen conditions. How does your answer tell a jump from anything else?"
    return Case("\n".join(lines), "some-jumps-not-moved", hint)


def loop(rng: random.Random, rounds: int = 100, padding: int = 0) -> Case:
    """A loop backwards, with a jump forwards in it."""
    nops = "\n".join(["cli", "add ebx, 3", "sti"] * padding)
    source = f"""
        mov ecx, {rounds}
top:    cli
        add ebx, ecx
        test ecx, 1
        jz even
        add ebx, {rng.randrange(1, 100)}
        sti
even:   {nops or "nop"}
        sti
        dec ecx
        sti
        jnz top
        jmp over
        cli
        mov ebx, 0
over:   cli
    """
    return Case(
        source,
        "jumps-not-moved",
        "A jump says how many bytes it jumps over. Where does its target lie now?",
    )


@rewrite.step("cli becomes a store of 0 into the flag, and nothing else changes")
def _rewrite_plain(trial: Trial) -> None:
    judge_rewrite(trial, PLAIN)


@rewrite.step("numbers that look like cli stay numbers")
def _rewrite_numbers(trial: Trial) -> None:
    judge_rewrite(trial, numbers(trial.rng))


@rewrite.step("arithmetic flags and registers live on across the new instructions")
def _rewrite_flags(trial: Trial) -> None:
    for _ in range(2):
        judge_rewrite(trial, flags(trial.rng))
    judge_rewrite(trial, registers(trial.rng))


@rewrite.step("jumps find their targets, and the loop costs at least 100 times fewer exits")
def _rewrite_loop(trial: Trial) -> None:
    judge_rewrite(trial, loop(trial.rng), cheaper=100)
