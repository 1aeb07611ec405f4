"""Judgements on patched guests: `patch`, and programs that break a patcher: `break_sweep`."""

from __future__ import annotations

import random
from typing import Any

from ...isa.disassembler import decode
from ...vcpu import flawed
from ...vcpu.cpu import START
from ...vcpu.deprivileged import INT3, Deprivileged
from ...vcpu.sensitive import SILENT, Guest, self_test, straight
from ..compare import shorten
from ..exercise import Exercise, Trial

patch = Exercise("patch", deadline_s=20)
break_sweep = Exercise("break_sweep", deadline_s=20)

PROGRAM_LIMIT_BYTES = 64


# ── patch ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def judge_patch(trial: Trial, guest: Guest, engine: str = "best") -> None:
    """Let the answer patch a guest; judge the bytes, then what the guest finds out about its machine."""
    got = trial.call(guest.code, guest.base, list(guest.data))
    code, table = _shape(trial, got)
    _judge_length(trial, guest, code)
    _judge_untouched(trial, guest, code)
    _judge_places(trial, guest, code, table)
    with Deprivileged(engine, code, table, base=guest.base) as machine:
        seen = machine.run()
    trial.expect(
        seen["ended"] == "hlt" and seen["output"] == guest.output,
        "still-wrong",
        f"The patched guest sent {seen['output']!r} and ended with {seen['ended']!r}; a perfect machine lets it send"
        f" {guest.output!r} and halt.",
        "Compare your table with the disassembly of the guest, line by line.",
    )


def _shape(trial: Trial, got: Any) -> tuple[bytes, dict[int, bytes]]:
    complete = isinstance(got, dict) and {"code", "table"} <= set(got)
    trial.expect(
        complete, "wrong-shape", f'Expected {{"code": bytes, "table": {{address: bytes}}}}, got {shorten(got)}.'
    )
    code, table = got["code"], got["table"]
    plain = isinstance(code, bytes) and isinstance(table, dict)
    plain = plain and all(isinstance(k, int) and isinstance(v, bytes) for k, v in table.items())
    trial.expect(
        plain,
        "wrong-shape",
        f'"code" has to be bytes and "table" a dict from int to bytes; they are {shorten(code)} and {shorten(table)}.',
        "The VMM has to decode what stood there: a name or a number is not enough.",
    )
    return code, table


def _judge_length(trial: Trial, guest: Guest, code: bytes) -> None:
    trial.expect(
        len(code) == len(guest.code),
        "length-changed",
        f"The guest had {len(guest.code)} bytes; patched it has {len(code)}. Every jump in it counts bytes, and all"
        " behind the first change now lies elsewhere.",
        "An int3 is one byte. What fills the rest of an instruction of eight?",
    )


def _judge_untouched(trial: Trial, guest: Guest, code: bytes) -> None:
    """Nothing but sensitive instructions has changed."""
    allowed = {address + n for address, old in guest.sensitive.items() for n in range(len(old))}
    for at, (new, old) in enumerate(zip(code, guest.code, strict=True)):
        address = guest.base + at
        if new == old or address in allowed:
            continue
        if any(begin <= address < end for begin, end in guest.data):
            trial.wrong(
                "data-patched",
                f"The byte at {address:#x} was {old:#04x} and is {new:#04x} now. It lies in data: the guest will read"
                " it, and get your patch.",
                "The ranges of data are the third argument.",
            )
        text = _instruction_around(guest, address)
        trial.wrong(
            "other-code-patched",
            f"The byte at {address:#x} was {old:#04x} and is {new:#04x} now. It is part of {text!r}, which is not"
            " sensitive.",
            "A byte has no meaning by itself. Who knows where instructions begin?",
        )


def _instruction_around(guest: Guest, address: int) -> str:
    """The text of the instruction that covers an address, in the rhythm that the data leaves."""
    starts = [guest.base, *(end for _, end in guest.data if end <= address)]
    begin = max(starts)
    for found in decode(guest.code[begin - guest.base :], "x86_64", begin):
        if found.address <= address < found.address + len(found.code):
            return found.text
    return "an instruction"


def _judge_places(trial: Trial, guest: Guest, code: bytes, table: dict[int, bytes]) -> None:
    """Each sensitive instruction is a trap now and stands in the table, and nothing else does."""
    for address, old in guest.sensitive.items():
        text = next(decode(old, "x86_64", address)).text
        if code[address - guest.base : address - guest.base + 1] != INT3:
            trial.wrong(
                "left-silent",
                f"At {address:#x} there is still {text!r}: the guest will execute it, and no trap tells the VMM.",
                "Which instructions does the table above call silent?",
            )
        if address not in table and address - guest.base in table:
            trial.wrong(
                "offsets-not-addresses",
                f"The trap at {address:#x} stands in your table under {address - guest.base:#x}. The VMM will look for"
                f" {address:#x}: that is what rip holds.",
                "The image lies at `base`.",
            )
        usual = address - guest.base + START
        if address not in table and usual in table:
            trial.wrong(
                "base-taken-for-granted",
                f"The image lies at {guest.base:#x} this time, and the trap at {address:#x} stands in your table under"
                f" {usual:#x}, where it would be if the image lay at {START:#x}.",
                "Where the image lies is the second argument.",
            )
        if table.get(address) != old:
            listed = table[address].hex(" ") if address in table else "nothing"
            trial.wrong(
                "original-lost",
                f"At {address:#x} stood {old.hex(' ')} ({text}); your table has {listed}. The VMM cannot know what to"
                " do there, nor where the next instruction begins.",
                "Keep the whole instruction.",
            )
    extra = sorted(set(table) - set(guest.sensitive))
    if extra:
        trial.wrong(
            "too-much",
            f"Your table lists {extra[0]:#x}, where no silent sensitive instruction stands.",
            "What traps by itself needs no patch, and what is not there should not be listed.",
        )


@patch.step("popf alone becomes a trap, and the table says what stood there")
def _patch_one(trial: Trial) -> None:
    rng = trial.rng
    number = rng.choice((0x002, 0x202))
    code = bytes([0x68]) + number.to_bytes(4, "little") + bytes.fromhex("9d 9c 58 25 00 02 00 00 e7 e9 f4")
    sensitive = {START + 5: b"\x9d", START + 6: b"\x9c"}
    output = (number & 0x200).to_bytes(4, "little")
    judge_patch(trial, Guest(code, START, [], sensitive, number & 0x200, output))


@patch.step("the guest that tests itself finds a perfect machine")
def _patch_self_test(trial: Trial) -> None:
    judge_patch(trial, self_test())


# ── break_sweep ──────────────────────────────────────────────────────────────────────────────────────────────────────


def perfect(engine: str, code: bytes) -> dict[str, Any]:
    """Run a guest as a perfect machine would: instruction by instruction, looking at each before it is executed."""
    with Deprivileged(engine, code, exits=2000) as machine:
        for _ in range(1000):
            if machine.ended:
                break
            rip = machine.vcpu.regs.rip
            found = next(decode(machine.vcpu.memory.fetch(rip), "x86_64", rip), None)
            from_cs = found is not None and found.mnemonic == "mov" and found.operands.endswith(", cs")
            if found is not None and (found.mnemonic in SILENT or from_cs):
                machine.emulate(found.code, rip)
            else:
                machine.handle(machine.vcpu.step())
        return machine.report()


def judge_break(trial: Trial, engine: str = "best") -> None:
    """Let the answer give a program; run it on a perfect machine, and swept by the flawed patcher."""
    code = trial.call()
    if not isinstance(code, bytes) or not 1 <= len(code) <= PROGRAM_LIMIT_BYTES:
        trial.wrong(
            "not-a-program",
            f"Expected 1 to {PROGRAM_LIMIT_BYTES} bytes of machine code, got {shorten(code)}.",
        )
    right = perfect(engine, code)
    if right["ended"] != "hlt":
        trial.wrong(
            "does-not-halt",
            f"On a perfect machine your program does not come to its hlt: {right['ended'] or 'it goes on and on'}.",
            "A program that fails by itself proves nothing about the patcher.",
        )
    patched = flawed.sweep(code)
    with Deprivileged(engine, patched["code"], patched["table"], exits=2000, seconds=8) as machine:
        swept = machine.run()
    told = {key: right[key] for key in ("result", "output", "ended")}
    if told == {key: swept[key] for key in told}:
        places = ", ".join(f"{address:#x}" for address in patched["table"]) or "nowhere"
        trial.wrong(
            "patcher-survives",
            f"Swept or not, your program ends with eax = {right['result']:#x}. The patcher put traps at: {places}.",
            "The patcher decodes from the first byte to the last. What may stand in a program that is no instruction?",
        )


@break_sweep.step("the program halts on a perfect machine, and does something else when the supplied patcher was there")
def _break_here(trial: Trial) -> None:
    judge_break(trial)


def elsewhere(trial: Trial) -> int:
    """Return an address where a guest may lie, other than where guests lie by default."""
    return START + trial.rng.randrange(0x80, 0x200) * 0x1000


def random_guest(trial: Trial, pieces: int) -> Guest:
    """Return a guest of the trial's own."""
    return straight(random.Random(trial.rng.random()), pieces)
