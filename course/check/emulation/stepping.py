"""Checks of an interpreter's parts: immediates against capstone, single instructions against Unicorn."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from ...isa import rv32
from ..answer import Outcome, call_each
from ..compare import shorten
from ..exercise import Exercise, Trial
from .cases import Seen, case, far_jumps, observe, random_case, told, truths, word_of

# ── immediate ────────────────────────────────────────────────────────────────────────────────────────────────────────

immediate = Exercise("immediate")
_OPCODES = {"I": (0x13, 0), "S": (0x23, 2), "B": (0x63, 1), "U": (0x37, 0), "J": (0x6F, 0)}


def capstone_immediate(word: int) -> int:
    """The immediate of an addi, sw, bne, lui or jal, read from capstone's text."""
    shown = rv32.text(word)
    mnemonic, _, operands = shown.partition(" ")
    if mnemonic == "lui":
        return int(operands.split(",")[1], 0) << 12 & rv32.MASK
    if mnemonic in ("nop", "mv"):
        return 0
    found = re.search(r"(-?\w+)\(\w+\)$", operands)
    return int(found[1] if found else operands.split(",")[-1], 0)


def random_word(trial: Trial, form: str) -> int:
    """An instruction of a format with random fields."""
    opcode, funct3 = _OPCODES[form]
    word = trial.rng.getrandbits(25) << 7 | opcode
    return word if form in "UJ" else word & ~0x7000 | funct3 << 12


def judge_immediates(trial: Trial, form: str, words: Sequence[int]) -> None:
    """Compare the answer with capstone on words of one format."""
    series = call_each(trial.answer, [(word,) for word in words])
    first = series.calls[0] if series.calls else None
    if series.end is not Outcome.RETURNED or first is None or not isinstance(first.value, int):
        got = trial.call(words[0])
        trial.wrong("not-a-number", f"immediate({words[0]:#010x}) returned {shorten(got)}.", "Return an int.")
    for word, done in zip(words, series.calls, strict=True):
        got = trial.value_of(done, f"immediate({word:#010x})")
        want = capstone_immediate(word)
        if got == want or (form == "U" and isinstance(got, int) and got & rv32.MASK == want):
            continue
        _judge_immediate(trial, form, word, want, got)


def _judge_immediate(trial: Trial, form: str, word: int, want: int, got: Any) -> None:
    shown = f"{form} format, {rv32.text(word)} (word {word:032b}): expected {want}, obtained {shorten(got)}."
    if not isinstance(got, int):
        trial.wrong("not-a-number", shown, "Every format of the table has an immediate; return an int.")
    bits = {"I": 12, "S": 12, "B": 13, "U": 32, "J": 21}[form]
    if abs(got - want) == 1 << (bits - 1) and form in "BJ":
        trial.wrong(
            "sign-one-bit-off",
            f"{shown} They differ by 2**{bits - 1}.",
            "Bit 0 is not stored, but it counts: how many bits has the number, and which of them is the sign?",
        )
    if got - want == 1 << bits:
        trial.wrong("no-sign-extension", f"{shown} They differ by 2**{bits}.", "Which bit of the word is the sign?")
    if form in "BJ" and got * 2 == want:
        trial.wrong("half-the-distance", f"{shown} That is half of it.", "Bit 0 is not stored, and yet it counts.")
    if form == "U" and got << 12 == want:
        trial.wrong("not-shifted", shown, "lui fills the upper 20 bits of the register.")
    if form == "S" and got == capstone_immediate(word & ~0x707F | 0x13):
        trial.wrong("s-read-as-i", shown, "A store has no rd; its immediate lies in two pieces, one where rd would be.")
    trial.wrong(
        f"{form.lower()}-bits", shown, "Write the word's bits into the table and read the offset off, bit by bit."
    )


def _ask_format(form: str) -> None:
    @immediate.step(f"immediates of the {form} format are those that capstone reads")
    def _format(trial: Trial) -> None:
        judge_immediates(trial, form, [random_word(trial, form) for _ in range(50)])


for _form in "ISUBJ":
    _ask_format(_form)

# ── step ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

step = Exercise("step", deadline_s=20.0)


def judge_cases(trial: Trial, cases: Sequence[rv32.State]) -> None:
    """Compare the answer with Unicorn on machines about to execute one instruction."""
    for machine, want, got in zip(cases, truths(cases), observe(trial, cases), strict=True):
        if got != want:
            _judge_step(trial, machine, want, got)


def _judge_step(trial: Trial, machine: rv32.State, want: Seen, got: Seen) -> None:
    here = told(machine)
    if "shape" in got:
        if got["shape"] == "None":
            trial.wrong("forgot-return", f"{here} step returned None.", "Return the state after the instruction.")
        if "memory of" in got["shape"] and "bytes where" in got["shape"]:
            hint = "A slice takes what it is given, shorter or longer: give memory[a : a + 4] four bytes."
            trial.wrong("memory-of-another-size", f"{here} step returned {got['shape']}.", hint)
        trial.wrong("misshapen", f"{here} step returned {got['shape']}.", "Return pc, regs, memory and halted.")
    if "raised" in got:
        if got["detail"] and word_of(machine) & 0x7F in (3, 0x23) and _address(machine) % 4:
            trial.wrong(
                "unaligned-refused",
                f"{here} The address {_address(machine):#x} is no multiple of 4. step raised {got['raised']}: "
                f"{got['detail']}.",
                "Unicorn, like QEMU, carries such an access out: four bytes, wherever they begin.",
            )
        trial.wrong(
            "raised", f"{here} step raised {got['raised']}: {got['detail']}.", "Try this instruction by itself."
        )
    _judge_zero(trial, machine, got, here)
    _judge_registers(trial, machine, want, got, here)
    _judge_memory(trial, machine, want, got, here)
    _judge_pc(trial, machine, want, got, here)
    trial.wrong("halted", f"{here} halted: expected {want['halted']}, got {got['halted']}.", "Only ebreak halts.")


def _judge_zero(trial: Trial, machine: rv32.State, got: Seen, here: str) -> None:
    if 0 in got["regs"]:
        trial.wrong(
            "x0-writable",
            f"{here} Afterwards x0 is {got['regs'][0]:#x}.",
            "Register 0 is wired to zero: a result that goes there is thrown away.",
        )


def _judge_registers(trial: Trial, machine: rv32.State, want: Seen, got: Seen, here: str) -> None:
    for number in sorted({*want["regs"], *got["regs"]}):
        wanted = want["regs"].get(number, machine["regs"][number])
        obtained = got["regs"].get(number, machine["regs"][number])
        if wanted != obtained:
            _judge_value(trial, machine, number, wanted, obtained, here)


def _judge_value(  # noqa: PLR0917
    trial: Trial, machine: rv32.State, number: int, want: int, got: int, here: str
) -> None:
    word = word_of(machine)
    opcode, funct3 = word & 0x7F, word >> 12 & 7
    shown = f"{here} Afterwards x{number} is {got:#x}, expected {want:#x}."
    if got != got & rv32.MASK and got & rv32.MASK == want:
        trial.wrong("no-wrap", shown, "A register has 32 bits and no sign of its own; Python's integers have no end.")
    if got == machine["regs"][number] and opcode in (0x6F, 0x67):
        trial.wrong("no-link", f"{shown} It kept its old value.", "How does a function know where it was called from?")
    if got == machine["regs"][number]:
        trial.wrong("not-written", shown, "The register kept its old value. Which field names the destination?")
    if opcode == 0x33:
        _judge_sum(trial, machine, got, shown)
    if opcode == 0x13 and (got - want) & rv32.MASK == 0x1000:
        trial.wrong(
            "no-sign-extension", f"{shown} They differ by 0x1000.", "Immediates of 12 bits run from -2048 to 2047."
        )
    if opcode == 0x13 and funct3 == 7:
        trial.wrong("andi-zero-extended", shown, "andi extends its immediate's sign, too: -1 keeps all 32 bits.")
    if opcode == 0x03 and funct3 == 4:
        trial.wrong("lbu-signed", shown, "The u of lbu: the byte is unsigned, 0 to 255.")
    if opcode == 0x03:
        _judge_load(trial, machine, want, got, shown)
    if opcode in (0x6F, 0x67):
        trial.wrong("wrong-link", shown, "A jump leaves the address of the instruction after it.")
    if opcode == 0x37:
        trial.wrong("lui-value", shown, "lui puts its 20 bits on top and zeros below.")
    trial.wrong("wrong-value", shown, "Compute it by hand from the operands.")


def _judge_sum(trial: Trial, machine: rv32.State, got: int, shown: str) -> None:
    word, regs = word_of(machine), machine["regs"]
    a, b = regs[word >> 15 & 31], regs[word >> 20 & 31]
    if word >> 30 and got == (a + b) & rv32.MASK:
        trial.wrong("sub-is-add", f"{shown} That is the sum.", "Which field tells sub from add?")
    if word >> 30 and got == (b - a) & rv32.MASK:
        trial.wrong("operands-exchanged", f"{shown} That is rs2 - rs1.", "Which of the two is taken from which?")


def _judge_load(trial: Trial, machine: rv32.State, want: int, got: int, shown: str) -> None:
    if got == int.from_bytes(want.to_bytes(4, "little"), "big"):
        trial.wrong("big-endian", shown, "RISC-V keeps the lowest byte first.")
    address = _address(machine)
    aligned = rv32.word_at(machine["memory"], address & ~3)
    if address % 4 and got == aligned:
        trial.wrong(
            "aligned-down", f"{shown} The address is {address:#x}; you read at {address & ~3:#x}.", "Every byte counts."
        )
    trial.wrong("wrong-load", f"{shown} The address is {address:#x}.", "Which four bytes begin at that address?")


def _address(machine: rv32.State) -> int:
    """Where a load or a store goes."""
    word = word_of(machine)
    raw = word >> 20 if word & 0x7F == 0x03 else (word >> 25) << 5 | word >> 7 & 31
    return int(machine["regs"][word >> 15 & 31] + raw - (raw >> 11 << 12)) & rv32.MASK


def _judge_memory(trial: Trial, machine: rv32.State, want: Seen, got: Seen, here: str) -> None:
    if want["memory"] == got["memory"]:
        return
    if not got["memory"]:
        trial.wrong("not-stored", f"{here} Memory is as it was before.", "Does your state return the changed memory?")
    at = {"expected": want["memory"], "obtained": got["memory"]}
    lines = [f"{who}: " + (" ".join(f"[{a:#x}]={b:02x}" for a, b in sorted(m.items())) or "-") for who, m in at.items()]
    if not want["memory"]:
        trial.wrong(
            "stray-store", "\n".join([f"{here} It stores nothing.", *lines]), "Which instructions write memory?"
        )
    word, address = word_of(machine), _address(machine)
    if got["memory"] == _stored(machine, address, machine["regs"][word >> 15 & 31]):
        trial.wrong(
            "stores-the-address", "\n".join([f"{here} Changed bytes:", *lines]), "rs1 says where; which one says what?"
        )
    trial.wrong(
        "wrong-store", "\n".join([f"{here} Changed bytes:", *lines]), "Four bytes, the lowest first; S-format offset."
    )


def _stored(machine: rv32.State, address: int, value: int) -> dict[int, int]:
    """Which bytes of a machine a store of a value changes."""
    new = enumerate(int(value).to_bytes(4, "little"), address)
    return {at: byte for at, byte in new if at < len(machine["memory"]) and machine["memory"][at] != byte}


def _judge_pc(trial: Trial, machine: rv32.State, want: Seen, got: Seen, here: str) -> None:
    if want["pc"] == got["pc"]:
        return
    pc, word = machine["pc"], word_of(machine)
    opcode = word & 0x7F
    shown = f"{here} Afterwards pc is {got['pc']:#x}, expected {want['pc']:#x}."
    if opcode == 0x63:
        taken = want["pc"] != pc + 4
        if taken and got["pc"] != pc + 4:
            if got["pc"] == want["pc"] - pc or got["pc"] == want["pc"] + 4:
                trial.wrong("offset-from-elsewhere", shown, "A branch's offset counts from the branch itself.")
            trial.wrong(
                "branch-offset", shown, "The condition was right, the offset was not: bits 11 and 12, the sign?"
            )
        a, b = machine["regs"][word >> 15 & 31], machine["regs"][word >> 20 & 31]
        if word >> 12 & 7 == 4 and a == b:
            trial.wrong("less-or-equal", shown, "The two are equal. Is a number less than itself?")
        if word >> 12 & 7 == 4 and (a ^ b) >> 31:
            trial.wrong("unsigned-compare", shown, "blt compares signed numbers: 0xffffffff is -1.")
        trial.wrong("wrong-condition", shown, "Is the branch taken with these two values?")
    if got["pc"] == want["pc"] | 1:
        trial.wrong("odd-target", shown, "jalr clears bit 0 of the sum.")
    if opcode == 0x67 and word >> 7 & 31 == word >> 15 & 31:
        trial.wrong(
            "link-before-target", f"{shown} rd and rs1 are the same register.", "Which of the two do you read first?"
        )
    if word == rv32.EBREAK:
        trial.wrong(
            "runs-past-ebreak", shown, "ebreak halts the machine where it is: a debugger wants to see the place."
        )
    if got["pc"] == pc:
        trial.wrong("pc-stays", shown, "After most instructions pc is 4 more.")
    trial.wrong("wrong-pc", shown, "Where does the next instruction stand?")


@step.step("addi adds a number to a register, and pc moves on")
def _addi(trial: Trial) -> None:
    judge_cases(trial, [case("addi x5, x6, 7", {6: 35}), case("addi x5, x5, -1", {5: 8}), case("addi x9, x0, -2048")])


@step.step("register 0 stays 0, and results have 32 bits")
def _edges(trial: Trial) -> None:
    edges = [case("addi x0, x6, 7", {6: 35}), case("addi x5, x6, 1", {6: 0xFFFFFFFF})]
    judge_cases(trial, [*edges, case("sub x5, x6, x7", {6: 3, 7: 5}), case("add x5, x6, x7", {6: 1 << 31, 7: 1 << 31})])


@step.step("lui, andi and the loads and stores do what Unicorn does")
def _memory(trial: Trial) -> None:
    at = {6: 0x1800}
    plain = ["lw x5, 8(x6)", "lw x5, -8(x6)", "lbu x5, 3(x6)", "sw x6, 12(x6)", "sw x6, -16(x6)"]
    judge_cases(trial, [case("lui x5, 0x12345"), case("andi x5, x6, -16", at), *(case(s, at, seed=3) for s in plain)])


@step.step("branches and jumps go where Unicorn goes")
def _jumps(trial: Trial) -> None:
    sources = ["beq x5, x5, 0x1040", "bne x5, x5, 0x1040", "bne x5, x6, 0xff0", "blt x5, x6, 0x1100", "jal x1, 0xe00"]
    jumps = [case(source, {5: 1, 6: 2}) for source in sources]
    judge_cases(trial, [*jumps, case("blt x5, x6, 0x1040", {5: rv32.MASK, 6: 1}), case("jalr x1, x5, 5", {5: 0x1100})])


@step.step("fence.i moves on, ebreak halts, and what is no instruction is refused")
def _ends(trial: Trial) -> None:
    judge_cases(trial, [case("fence.i"), case("ebreak")])
    judge_refusal(trial, 0xFFFFFFFF)


@step.step("100 random instructions do what Unicorn does")
def _random(trial: Trial) -> None:
    names = rv32.MNEMONICS[:13]
    judge_cases(trial, [random_case(trial.rng, names[n % len(names)]) for n in range(100)])


def judge_refusal(trial: Trial, word: int) -> None:
    """The answer raises ValueError at a word that is none of the machine's instructions."""
    machine = case("ebreak", {5: 3, 6: 7, 7: 5})
    machine["memory"][machine["pc"] : machine["pc"] + 4] = word.to_bytes(4, "little")
    [got] = observe(trial, [machine])
    if "raised" not in got and got == _by_unicorn(machine):
        trial.wrong(
            "unicorn-s-instructions",
            f"The word {word:#010x} is {rv32.text(word)}. It is none of the table, and step did what Unicorn does.",
            "Unicorn is the judge here and knows far more than the table; your processor knows the table, and stops.",
        )
    if "raised" not in got:
        trial.wrong(
            "unknown-passed-over",
            f"The word {word:#010x} is {rv32.text(word)}, not one of this machine's instructions; step went on as if "
            f"it were (pc {got.get('pc', 0):#x}).",
            "An emulator that guesses is worse than one that stops: raise ValueError.",
        )
    trial.expect(
        got["raised"] == "ValueError",
        "other-exception",
        f"At the word {word:#010x} step raised {got['raised']}: {got['detail']}; expected ValueError.",
    )


def _by_unicorn(machine: rv32.State) -> Seen | None:
    try:
        return truths([machine])[0]
    except rv32.AstrayError:
        return None


def judge_far_jumps(trial: Trial) -> None:
    """`jal` with distances of up to a mebibyte."""
    judge_cases(trial, far_jumps(trial.rng))
