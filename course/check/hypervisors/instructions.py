"""Judgements on `classify` and `violates_pg`: what an instruction may do in ring 3, found by running it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..answer import Outcome
from ..exercise import Trial

LABELS = ("privileged", "undefined", "fault", "silent", "endless")


@dataclasses.dataclass(frozen=True)
class Piece:
    """Bytes to be classified.

    Attributes:
        text: disassembly.
        code: the bytes, as hexadecimal.
        label: what ring 3 does with them, on every processor.
        trap: the misconception that a wrong answer shows.
        hint: what to ask whoever has it.
    """

    text: str
    code: str
    label: str
    trap: str = "misjudged"
    hint: str = "Run these bytes alone and print the exit: which kind is it, and at which rip?"


_NAMES = "Does your answer read the bytes or run them? Which instructions does the processor reach?"
_LANDING = "You have put something behind the bytes. How do you know that it was yours that ended the run?"
_SIGNAL = "Ring 3 meets #GP here, #UD there, a page fault elsewhere. Which of them is about privilege?"
_TIME = "Bytes of strangers may never come to their end. What does run() return then, and what do you make of it?"
_PATIENCE = (
    "A loop is not endless because it is a loop. After how many instructions do you give up, and what was agreed?"
)

BASIC = (
    Piece("cli", "fa", "privileged"),
    Piece("nop", "90", "silent"),
    Piece("out 0x80, al", "e6 80", "privileged"),
    Piece("mov rax, cr0", "0f 20 c0", "privileged"),
    Piece("ud2", "0f 0b", "undefined", "illegal-is-not-privileged", _SIGNAL),
    Piece("div ecx, with ecx = 0", "f7 f1", "fault", "every-trap-is-privilege", _SIGNAL),
    Piece("mov eax, cs", "8c c8", "silent", "mnemonic-list", _NAMES),
)
LANDINGS = (
    Piece("hlt", "f4", "privileged", "own-landing", _LANDING),
    Piece("int3", "cc", "fault", "own-landing", _LANDING),
    Piece("ud2", "0f 0b", "undefined", "own-landing", _LANDING),
    Piece("nop; hlt; nop", "90 f4 90", "privileged", "own-landing", _LANDING),
    Piece("nop; ud2; nop", "90 0f 0b 90", "undefined", "own-landing", _LANDING),
    Piece("nop; int3; nop", "90 cc 90", "fault", "own-landing", _LANDING),
)
LOOPS = (
    Piece("jmp to itself", "eb fe", "endless", "no-time-limit", _TIME),
    Piece("nop; jmp to the nop", "90 eb fd", "endless", "no-time-limit", _TIME),
    Piece("inc eax; jmp to the inc", "ff c0 eb fc", "endless", "no-time-limit", _TIME),
)
SLOW = (
    Piece(
        "240 rounds of dec ecx; jnz; then the end",
        "b9 f0 00 00 00 ff c9 75 fc 90",
        "silent",
        "too-impatient",
        _PATIENCE,
    ),
    Piece(
        "240 rounds of dec ecx; jnz; then cli",
        "b9 f0 00 00 00 ff c9 75 fc fa",
        "privileged",
        "too-impatient",
        _PATIENCE,
    ),
)
PRIVILEGED = tuple(
    Piece(text, code, "privileged")
    for text, code in {
        "sti": "fb", "in al, 0x60": "e4 60", "in eax, dx": "ed", "out dx, ax": "66 ef", "mov cr3, rax": "0f 22 d8",
        "mov rdx, cr4": "0f 20 e2", "mov cr3, r9": "41 0f 22 d9", "mov dr7, rax": "0f 23 f8", "lldt ax": "0f 00 d0",
        "ltr ax": "0f 00 d8", "lmsw ax": "0f 01 f0", "clts": "0f 06", "invd": "0f 08", "wbinvd": "0f 09",
        "rdmsr": "0f 32", "wrmsr": "0f 30", "swapgs": "0f 01 f8", "lgdt [rsp - 16]": "0f 01 54 24 f0",
        "mov ecx, 16; rdmsr": "b9 10 00 00 00 0f 32", "mov dx, 0x3f8; out dx, al": "66 ba f8 03 ee",
    }.items()
)  # fmt: skip
DISGUISED = (
    Piece("mov eax, 0xf4fbfa", "b8 fa fb f4 00", "silent", "bytes-are-not-instructions", _NAMES),
    Piece("jmp over cli; cli; nop", "eb 01 fa 90", "silent", "not-reached", _NAMES),
    Piece("xor eax, eax; jz over hlt; hlt; nop", "31 c0 74 01 f4 90", "silent", "not-reached", _NAMES),
    Piece("jmp into a mov, where it says cli", "eb 01 b8 fa 90 90 90", "privileged", "not-as-it-is-listed", _NAMES),
    Piece("popfq with IF cleared", "6a 02 9d", "silent", "mnemonic-list", _NAMES),
    Piece("mov edx, ds", "8c da", "silent", "mnemonic-list", _NAMES),
    Piece("pushfq; pop rax", "9c 58", "silent", "mnemonic-list", _NAMES),
)
ODD = (
    Piece("push es, gone in 64-bit mode", "06", "undefined", "illegal-is-not-privileged", _SIGNAL),
    Piece("27, an instruction until 64-bit mode took it away", "27", "undefined", "illegal-is-not-privileged", _SIGNAL),
    Piece("mov eax, [16]: no memory there", "8b 04 25 10 00 00 00", "fault", "segv-is-not-privilege", _SIGNAL),
    Piece("mov [16], eax: no memory there", "89 04 25 10 00 00 00", "fault", "segv-is-not-privilege", _SIGNAL),
    Piece("mov rax, 1 << 63; mov ecx, [rax]", "48 b8 00 00 00 00 00 00 00 80 8b 08", "fault", "gp-is-not-privilege",
          "#GP comes for more than one reason. Would ring 0 get through with this instruction?"),
)  # fmt: skip


def judge_pieces(trial: Trial, pieces: Sequence[Piece], engines: Sequence[str]) -> None:
    """Let the answer classify each piece on the engine beside it."""
    for piece, engine in zip(pieces, engines, strict=True):
        judge_piece(trial, piece, engine)


def judge_piece(trial: Trial, piece: Piece, engine: str) -> None:
    """Let the answer classify one piece of code."""
    code = bytes.fromhex(piece.code)
    done = trial.attempt(engine, code)
    asked = f"classify({engine!r}, bytes.fromhex({code.hex(' ')!r}))  # {piece.text}"
    if done.outcome is Outcome.DIED:
        trial.wrong(
            "no-child",
            f"{asked} ended the Python process itself ({done.error}).",
            "Those bytes are a stranger's. In whose process did you let them run?",
        )
    if done.outcome is Outcome.TIMED_OUT:
        trial.wrong("waits-for-ever", f"{asked} had not returned after {done.error}.", _TIME)
    got = trial.value_of(done, asked)
    trial.expect(
        got in LABELS, "no-label", f"{asked} returned {got!r}; expected one of {', '.join(map(repr, LABELS))}."
    )
    trial.expect(
        got == piece.label, piece.trap, f"{asked} returned {got!r}; ring 3 makes of it {piece.label!r}.", piece.hint
    )


# ── violates_pg ──────────────────────────────────────────────────────────────────────────────────────────────────────

Row = Mapping[str, Any]


def violations(rows: Sequence[Row]) -> set[str]:
    """Name the instructions that are sensitive in some state and do not trap there."""
    return {row["name"] for row in rows if row["seen"] is not None and row["seen"] != row["perfect"]}


def _silent(rows: Sequence[Row]) -> set[str]:
    return {row["name"] for row in rows if row["outcome"] == "silent"}


def _always(rows: Sequence[Row]) -> set[str]:
    return {name for name in violations(rows) if name not in innocent_somewhere(rows)}


def innocent_somewhere(rows: Sequence[Row]) -> set[str]:
    """Name the instructions that have at least one state in which nothing differs."""
    return {row["name"] for row in rows if row["seen"] is not None and row["seen"] == row["perfect"]}


def _with_trapped(rows: Sequence[Row]) -> set[str]:
    return {row["name"] for row in rows if row["seen"] != row["perfect"]}


def _without(key: str) -> Callable[[Sequence[Row]], set[str]]:
    def reduced(rows: Sequence[Row]) -> set[str]:
        def pick(state: Mapping[str, int]) -> dict[str, int]:
            return {k: v for k, v in state.items() if k != key}

        return {row["name"] for row in rows if row["seen"] is not None and pick(row["seen"]) != pick(row["perfect"])}

    return reduced


def _edge(rows: Sequence[Row], *, last: bool) -> set[str]:
    chosen = {row["name"]: row for row in (rows if last else reversed(rows))}
    return violations(list(chosen.values()))


_WRONG: tuple[tuple[str, Callable[[Sequence[Row]], set[str]], str], ...] = (
    ("silent-is-no-crime", _silent, "nop is silent as well. What would a guest notice?"),
    ("trapping-is-no-crime", _with_trapped, "What does the VMM do about an instruction that traps?"),
    ("every-state-asked", _always, "How many counterexamples does a theorem survive?"),
    ("one-state-only", lambda rows: _edge(rows, last=False), "An instruction may look innocent in its first state."),
    ("one-state-only", lambda rows: _edge(rows, last=True), "An instruction may look innocent in its last state."),
    ("interrupt-flag-overlooked", _without("IF"), "The interrupt flag is part of the guest's state."),
    ("memory-overlooked", _without("memory"), "Some instructions leave their secret in memory."),
    ("flags-overlooked", _without("flags"), "Some instructions tell what they know by a flag."),
)


def judge_violations(trial: Trial, rows: Sequence[Row], of: str) -> None:
    """Let the answer find the culprits among rows; known wrong definitions are named."""
    got = trial.call(list(rows))
    kind = isinstance(got, list | set | tuple) and all(isinstance(name, str) for name in got)
    trial.expect(kind, "no-names", f"Expected the instructions' names, got {type(got).__name__}.")
    expected, obtained = violations(rows), set(got)
    if obtained != expected:
        for misconception, wrong, hint in _WRONG:
            if obtained == wrong(rows):
                _told(trial, (misconception, hint), of, expected, obtained)
        hint = "Take one name of each list and read its rows: does it trap, and does anything differ?"
        _told(trial, ("other-definition", hint), of, expected, obtained)
    if isinstance(got, list | tuple) and len(got) != len(obtained):
        twice = sorted(name for name in obtained if list(got).count(name) > 1)
        trial.nearly("twice", f"{', '.join(twice)}: named more than once.", "There is a row for each state.")


def _told(trial: Trial, why: tuple[str, str], of: str, expected: set[str], obtained: set[str]) -> None:
    wrongly, missed = sorted(obtained - expected), sorted(expected - obtained)
    lines = [f"In {of}:"]
    lines += [f"named, but virtualizable: {', '.join(wrongly)}"] if wrongly else []
    lines += [f"not named, but sensitive and silent: {', '.join(missed)}"] if missed else []
    trial.wrong(why[0], "\n".join(lines), why[1])


def invented(trial: Trial) -> list[Row]:
    """Make rows of instructions that no processor has: every kind of culprit and of innocent."""
    rng, rows = trial.rng, []
    names = rng.sample([a + b for a in ("fl", "gr", "st", "qu", "zw") for b in ("ab", "ix", "ov", "ut", "em")], 14)
    kinds = ["trap", "trap", "same", "same", "IF", "memory", "flags", "rax", "rbx", "first", "last", "always"]
    for name, kind in zip(names, kinds, strict=False):
        states = 3
        guilty = {"first": 0, "last": states - 1}.get(kind, rng.randrange(states))
        for n in range(states):
            perfect = {key: rng.randrange(1 << 16) for key in ("rax", "rbx", "memory", "flags")} | {"IF": n % 2}
            rows.append(_row(name, kind, perfect, bad=n == guilty or kind == "always"))
    return rows


def _row(name: str, kind: str, perfect: dict[str, int], *, bad: bool) -> Row:
    if kind.startswith("trap"):
        return {"name": name, "outcome": "privileged", "perfect": perfect, "seen": None}
    key = kind if kind in perfect else "rbx"
    seen = {**perfect, key: perfect[key] ^ 1} if bad and kind != "same" else dict(perfect)
    return {"name": name, "outcome": "silent", "perfect": perfect, "seen": seen}
