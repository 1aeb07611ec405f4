"""Checks of decoders of fixed-width instructions, against capstone."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ... import isa
from ...isa.table import lookup
from ..answer import Outcome, call_each
from ..compare import shorten
from ..exercise import Exercise, Trial
from .suspects import SUSPECTS, Decoded

FORMS = {"ppc": ("add", "addi", "lwz", "b", "beq"), "riscv32": ("add", "addi", "lw", "beq")}
_RISCV = {name: at for at, name in enumerate(lookup("riscv32").registers[:32])}


def capstone_says(word: bytes, name: str) -> Decoded:
    """Decode one word with capstone, in the form that the exercise asks for; None for all other instructions."""
    found = isa.disassemble(word, name, 0)
    if not found or len(found[0].code) != 4:
        return None
    mnemonic, texts = found[0].mnemonic, re.split(r"[,()\s]+", found[0].operands.strip(")"))
    return _ppc_form(mnemonic, texts) if name == "ppc" else _riscv_form(mnemonic, texts)


def _number(text: str, bits: int = 0) -> int:
    value = int(text, 0)
    return value - (1 << bits) if bits and value >> (bits - 1) else value


def _ppc_form(mnemonic: str, texts: list[str]) -> Decoded:
    registers = [int(text.removeprefix("r")) for text in texts if re.fullmatch(r"r?\d+", text)]
    if mnemonic == "add":
        return ("add", *registers[:3])
    if mnemonic == "li":
        return ("addi", int(texts[0].removeprefix("r")), 0, _number(texts[1]))
    if mnemonic == "addi":
        return ("addi", *(int(t.removeprefix("r")) for t in texts[:2]), _number(texts[2]))
    if mnemonic == "lwz":
        return ("lwz", int(texts[0].removeprefix("r")), _number(texts[1]), int(texts[2].removeprefix("r")))
    if mnemonic in ("b", "beq") and len(texts) == 1:
        return (mnemonic, _number(texts[0], 64 if len(texts[0]) > 10 else 32))
    return None


def _riscv_form(mnemonic: str, texts: list[str]) -> Decoded:  # noqa: PLR0911 - one per spelling
    if mnemonic == "nop":
        return ("addi", 0, 0, 0)
    if mnemonic == "mv":
        return ("addi", _RISCV[texts[0]], _RISCV[texts[1]], 0)
    if mnemonic == "li":
        return ("addi", _RISCV[texts[0]], 0, _number(texts[1]))
    if mnemonic == "add":
        return ("add", *(_RISCV[text] for text in texts))
    if mnemonic == "addi":
        return ("addi", _RISCV[texts[0]], _RISCV[texts[1]], _number(texts[2]))
    if mnemonic == "lw":
        return ("lw", _RISCV[texts[0]], _number(texts[1]), _RISCV[texts[2]])
    if mnemonic == "beqz":
        return ("beq", _RISCV[texts[0]], 0, _number(texts[1]))
    if mnemonic == "beq":
        return ("beq", _RISCV[texts[0]], _RISCV[texts[1]], _number(texts[2]))
    return None


def random_words(trial: Trial, name: str, count: int) -> list[bytes]:
    """Words of which two in three are instructions of the exercise, the others anything."""
    rng, order = trial.rng, "big" if name == "ppc" else "little"
    fixed = {
        "ppc": [(31 << 26 | 266 << 1, 0x03FFF800), (14 << 26, 0x03FFFFFF), (32 << 26, 0x03FFFFFF),
                (18 << 26, 0x03FFFFFC), (16 << 26 | 12 << 21 | 2 << 16, 0xFFFC), (31 << 26 | 266 << 1, 0x03FFFC01)],
        "riscv32": [(0x33, 0x01FF8F80), (0x13, 0xFFFF8F80), (0x2003, 0xFFFF8F80), (0x63, 0xFFFF8F80),
                    (0x33, 0xC1FFFF80), (0x1063, 0xFFFF8F80)],
    }[name]  # fmt: skip
    values = []
    for _ in range(count):
        base, free = rng.choice(fixed) if rng.random() < 0.8 else (0, 0xFFFFFFFF)
        values.append(base | rng.getrandbits(32) & free)
    return [value.to_bytes(4, "big" if order == "big" else "little") for value in values]


def ask(trial: Trial, words: Sequence[bytes], name: str) -> list[Any]:
    """Decode many words in one child; an exception on one of them is told with that word."""
    series = call_each(trial.answer, [(word, name) for word in words])
    if series.end is not Outcome.RETURNED:
        trial.call(words[0], name, none_is_an_answer=True)  # not answered, endless, died: its own message
        return [None] * len(words)
    for word, done in zip(words, series.calls, strict=True):
        if done.outcome is Outcome.NOT_PLAIN:
            trial.call(word, name)
    return [
        {"raised": f"{done.error}: {done.detail}"} if done.outcome is Outcome.RAISED else done.value
        for done in series.calls
    ]


decode_fixed = Exercise("decode_fixed")


def judge_words(trial: Trial, words: Sequence[bytes], name: str) -> None:
    """Compare with capstone, word by word."""
    got = ask(trial, words, name)
    wanted = [capstone_says(word, name) for word in words]
    if all(value is None for value in got) and any(wanted):
        word = next(word for word, want in zip(words, wanted, strict=True) if want)
        trial.call(word, name)  # forgot return, or prints
    for word, want, value in zip(words, wanted, got, strict=True):
        judge_word(trial, word, name, want, tuple(value) if isinstance(value, list) else value)


def judge_word(trial: Trial, word: bytes, name: str, want: Decoded, got: Any) -> None:
    """Compare one decoded word; recognise the mistake."""
    if got == want:
        return
    text = isa.disassemble(word, name, 0)
    shown = (
        f"{name} word {word.hex(' ')} ({text[0].text if text else 'no instruction'}): expected {want}, "
        f"obtained {shorten(got)}."
    )
    if isinstance(got, dict) and "raised" in got:
        trial.wrong("raised", f"{name} word {word.hex(' ')}: decode_fixed raised {got['raised']}.", "Try it by itself.")
    if got is None:
        trial.wrong("rejects-legal", shown, "Which of your conditions turns this word away?")
    if want is None:
        trial.wrong(
            "accepts-other",
            shown,
            "Every fixed bit of the format has to match: look at the bits that you did not compare.",
        )
    if not isinstance(got, tuple):
        trial.wrong("not-a-tuple", shown, "Return a tuple: the mnemonic, then numbers.")
    if any(isinstance(part, str) for part in got[1:]):
        trial.nearly("names-for-numbers", shown, "Registers are asked by number: 3, not 'r3' or 'a0'.")
    _judge_operands(trial, name, want, got, shown)


def _judge_operands(trial: Trial, name: str, want: tuple[str | int, ...], got: tuple[Any, ...], shown: str) -> None:
    numbers = [part for part in want[1:] if isinstance(part, int)]
    if got[:1] == want[:1] and len(got) == len(want):
        for wanted, obtained in zip(numbers, got[1:], strict=True):
            unsigned = isinstance(obtained, int) and wanted < 0 < obtained
            if unsigned and (obtained - wanted) & (obtained - wanted - 1) == 0:
                trial.wrong(
                    "no-sign-extension",
                    f"{shown} {obtained} - {wanted} = {obtained - wanted}, a power of two.",
                    "The highest bit of an immediate or offset is its sign.",
                )
        if sorted(map(repr, numbers)) == sorted(map(repr, got[1:])):
            trial.wrong("operands-swapped", shown, "Which field is the destination, and which comes second?")
        if want[0] in ("beq", "b") and got[1:-1] == want[1:-1]:
            trial.wrong(
                "branch-offset-bits",
                shown,
                "Draw the word's bits and write each bit of the offset where it belongs"
                + (": RISC-V's B format keeps bit 11 in word bit 7." if name == "riscv32" else "."),
            )
    trial.wrong("wrong-fields", shown, "Which bits of the word does each operand come from?")


@decode_fixed.step("a PowerPC word begins with its most significant byte")
def _order(trial: Trial) -> None:
    word = bytes.fromhex("38630038")  # a legal addi in both orders
    got = ask(trial, [word], "ppc")[0]
    got = tuple(got) if isinstance(got, list) else got
    if got == ("addi", 0, 0, 0x6338):
        trial.wrong(
            "little-endian-ppc",
            f"ppc word 38 63 00 38: expected ('addi', 3, 3, 56), obtained {got}. You read it from the other end.",
            "PowerPC is big endian: the first byte in memory holds the opcode.",
        )
    if got is None:
        trial.call(word, "ppc")
    judge_word(trial, word, "ppc", ("addi", 3, 3, 56), got)


@decode_fixed.step("a few PowerPC words are decoded as capstone does")
def _ppc(trial: Trial) -> None:
    words = ["7c632214", "3883fffb", "80610008", "8081fff8", "48000010", "4bfffff0", "41820008", "4182fff8", "7c632215"]
    judge_words(trial, [bytes.fromhex(word) for word in words], "ppc")


@decode_fixed.step("a few RISC-V words are decoded as capstone does")
def _riscv(trial: Trial) -> None:
    words = ["3305b500", "130585ff", "0325c5ff", "63040500", "e30cb5fe", "e304b500", "3305b540"]
    judge_words(trial, [bytes.fromhex(word) for word in words], "riscv32")


@decode_fixed.step("100 random words of each are decoded as capstone does")
def _random(trial: Trial) -> None:
    for name in FORMS:
        judge_words(trial, random_words(trial, name, 100), name)


# ── counterexamples ─────────────────────────────────────────────────────────────────────────────────────────────────

counterexamples = Exercise("counterexamples")
_ISA_OF = {"addi": "ppc", "beq": "riscv32", "add": "ppc"}


def proofs(trial: Trial) -> dict[str, bytes]:
    """Get the three words from the answer."""
    got = trial.call()
    if not isinstance(got, dict):
        trial.wrong("not-a-dict", f"counterexamples() returned {shorten(got)}.", "Return a dict from suspect to word.")
    for name in SUSPECTS:
        trial.expect(name in got, "missing", f"There is no word for the suspect {name!r}.", "One suspect at a time.")
        word = got[name]
        good = isinstance(word, bytes) and len(word) == 4
        trial.expect(good, "not-a-word", f"For {name!r} you gave {shorten(word)}.", "4 bytes, in memory order.")
    return {name: got[name] for name in SUSPECTS}


def judge_proof(trial: Trial, name: str, word: bytes, suspect: Callable[[bytes], Decoded]) -> None:
    """Does this word convict this suspect?"""
    truth = capstone_says(word, _ISA_OF[name])
    truth = truth if truth is not None and truth[0] == name else None
    said = suspect(word)
    if said != truth:
        return
    text = isa.disassemble(word, _ISA_OF[name], 0)
    what = text[0].text if text else "no instruction"
    shown = f"{name}: {word.hex(' ')} is {what}; suspect and capstone agree on it: {said}."
    backwards = capstone_says(word[::-1], _ISA_OF[name])
    if suspect(word[::-1]) != (backwards if backwards is not None and backwards[0] == name else None):
        trial.nearly("byte-order", shown, "The word's bytes are in the wrong order for this processor's memory.")
    if truth is None:
        trial.wrong("no-such-instruction", f"{shown} Neither takes it for {name}.", "Begin with a word that is one.")
    trial.wrong(
        "agrees", shown, "Compare the suspect's source with the format, bit by bit. Which bit does it not read?"
    )


@counterexamples.step("each suspect gets its word wrong")
def _convict(trial: Trial) -> None:
    for name, word in proofs(trial).items():
        judge_proof(trial, name, word, SUSPECTS[name])
