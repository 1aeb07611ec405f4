"""Checks of a translator of blocks: its text is run beside Unicorn, on machines that it has not seen."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Sequence
from typing import Any

from ...isa import blocks, rv32
from ..answer import Outcome, call, call_each
from ..compare import shorten
from ..exercise import Exercise, Trial
from .cases import DATA, changes

translate = Exercise("translate", deadline_s=20.0)
Seen = dict[str, Any]
_MOST_EXTRA_BYTES = 256 << 20


def machine(source: str, regs: dict[int, int] | None = None, *, at: int = 0x100, seed: int = 0) -> rv32.State:
    """Return a machine before a block, with random bytes in the upper part of its memory."""
    made = rv32.state(source, at=at, regs=regs)
    made["memory"][DATA:] = random.Random(seed).randbytes(rv32.MEMORY_BYTES - DATA)
    return made


def truth(processor: rv32.Processor, before: rv32.State) -> tuple[Seen, list[rv32.Executed]]:
    """What the block at pc does according to Unicorn, and its instructions."""
    processor.load(before)
    done: list[rv32.Executed] = []
    while True:
        done.append(rv32.Executed(processor.pc, processor.next_word()))
        if done[-1].word == rv32.EBREAK:
            break
        processor.step()
        if rv32.ends_block(done[-1].word) or processor.pc % rv32.PAGE_BYTES == 0:
            break
    seen = changes(before, processor.read())
    halted = done[-1].word == rv32.EBREAK
    return {
        "next": None if halted else seen["pc"], "regs": seen["regs"], "memory": seen["memory"],
        "cleared": any(here.word == rv32.FENCE_I for here in done),
    }, done  # fmt: skip


def texts(trial: Trial, machines: Sequence[rv32.State]) -> list[Seen]:
    """Let the answer translate the block at each pc, without seeing the data that the block will find."""
    arguments = []
    for before in machines:
        shown = bytearray(before["memory"])
        shown[DATA:] = bytes(len(shown) - DATA)
        arguments.append((bytes(shown), before["pc"]))
    series = call_each(trial.answer, arguments)
    if series.end is not Outcome.RETURNED:
        trial.call(*arguments[0])  # not answered, died: its own message
        trial.wrong("endless", f"translate did not come to its end ({series.end.value}).", "Which instruction ends it?")
    return [
        {"text": done.value} if done.outcome is Outcome.RETURNED else {"raised": done.error, "detail": done.detail}
        for done in series.calls
    ]


def execute_all(made: Sequence[Seen], machines: Sequence[rv32.State]) -> list[Seen]:
    """Run in a child of the check: execute each text that was made."""
    _limit_memory()
    return [execute(one["text"], before) if "text" in one else one for one, before in zip(made, machines, strict=True)]


def _limit_memory() -> None:
    """A text that doubles something in every line gets a MemoryError instead of the machine's memory."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        import resource  # noqa: PLC0415 - not on every system

        limit = int(statm.read_text().split()[0]) * resource.getpagesize() + _MOST_EXTRA_BYTES
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        resource.setrlimit(resource.RLIMIT_AS, (limit if hard < 0 else min(limit, hard), hard))


def execute(text: Any, before: rv32.State) -> Seen:
    """Load a block's text and run it once on a copy of a machine."""
    if text is None:
        return {"none": True}
    try:
        block = blocks.load(text)
    except blocks.BlockError as error:
        return {"refused": str(error), "text": text if isinstance(text, str) else ""}
    after = rv32.copy(before)
    cache: dict[int, Any] = {1: None}
    try:
        following = block(after["regs"], after["memory"], cache)
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}", "text": text}
    if following is not None and type(following) is not int:
        return {"failed": f"it returned {following!r:.60}, expected an address or None", "text": text}
    done = changes(before, {**after, "pc": following})
    return {"next": following, "regs": done["regs"], "memory": done["memory"], "cleared": not cache, "text": text}


def judge_blocks(trial: Trial, machines: Sequence[rv32.State]) -> None:
    """Compare the answer's texts with Unicorn."""
    done = call(execute_all, texts(trial, machines), machines, deadline_s=30.0)
    if done.outcome is not Outcome.RETURNED:
        trial.value_of(done, "A block of translate")
    processor = rv32.Processor()
    for before, got in zip(machines, done.value, strict=True):
        want, instructions = truth(processor, before)
        if {k: v for k, v in got.items() if k != "text"} != want:
            _judge(trial, before, instructions, want, got)


def _listing(instructions: Sequence[rv32.Executed]) -> str:
    lines = [f"  {here.pc:#06x}  {rv32.text(here.word)}" for here in instructions]
    return "\n".join(lines if len(lines) <= 8 else [*lines[:3], f"  … {len(lines) - 5} more", *lines[-2:]])


def _judge(trial: Trial, before: rv32.State, instructions: Sequence[rv32.Executed], want: Seen, got: Seen) -> None:
    listing = f"The block at {before['pc']:#x}:\n{_listing(instructions)}"
    if "none" in got:
        trial.wrong("forgot-return", f"{listing}\ntranslate returned None.", "Return the text of the block.")
    if "raised" in got:
        trial.wrong(
            "raised",
            f"{listing}\ntranslate raised {got['raised']}: {got['detail']}",
            "Does the block end where it should, and is each of its instructions known?",
        )
    text = "\n".join(f"  {line}" for line in got["text"].splitlines()[:12])
    shown = f"{listing}\nYour text:\n{text}"
    if "refused" in got:
        trial.wrong("not-a-block", f"{shown}\nIt was refused: {got['refused']}", "blocks.load(text) says the same.")
    if "failed" in got:
        overflow = "OverflowError" in got["failed"]
        trial.wrong(
            "no-wrap" if overflow else "block-failed",
            f"{shown}\nRunning it failed: {got['failed']}",
            "A register's value has to stay within 32 bits." if overflow else "Run blocks.load(text) by hand.",
        )
    _judge_extent(trial, before, instructions, want, got, shown)
    _judge_registers(trial, before, want, got, shown)
    if want["memory"] != got["memory"]:
        trial.wrong("wrong-store", f"{shown}\nIt did not write what sw writes.", "Four bytes, the lowest first.")
    _judge_end(trial, instructions, want, got, shown)


def _judge_extent(  # noqa: PLR0917
    trial: Trial, before: rv32.State, instructions: Sequence[rv32.Executed], want: Seen, got: Seen, shown: str
) -> None:
    """Is the block as long as it should be?"""
    first, last = instructions[0], instructions[-1]
    if want["next"] is not None and rv32.ends_block(last.word) and got["regs"] != want["regs"]:
        after = _after_the_next(before)
        if after is not None and (got["regs"], got["next"]) == (after["regs"], after["next"]):
            trial.wrong(
                "goes-on-behind-its-end",
                f"{shown}\nIt does what stands behind {rv32.text(last.word)} as well.",
                "Behind this instruction the program may be another one, or elsewhere: the block ends with it.",
            )
    if len(instructions) > 1 and got["next"] == first.pc + 4:
        trial.wrong(
            "one-instruction-only",
            f"{shown}\nIt returns {got['next']:#x} after the first instruction; the block has {len(instructions)}.",
            "A block goes on until an instruction that may go elsewhere.",
        )
    if not rv32.ends_block(last.word) and got["next"] != want["next"]:
        trial.wrong(
            "crosses-page",
            f"{shown}\nIt goes on into the page at {want['next']:#x}; it returned {_place(got['next'])}.",
            "Somebody may replace or forbid that page alone. A block ends where its page ends.",
        )


def _after_the_next(before: rv32.State) -> Seen | None:
    """What the block and the one behind it do together; None where that leads astray."""
    processor = rv32.Processor()
    try:
        truth(processor, before)
        seen, _ = truth(processor, processor.read())
    except rv32.AstrayError:
        return None
    done = changes(before, processor.read())
    return {"regs": done["regs"], "next": seen["next"]}


def _judge_registers(trial: Trial, before: rv32.State, want: Seen, got: Seen, shown: str) -> None:
    for number in sorted({*want["regs"], *got["regs"]}):
        wanted = want["regs"].get(number, before["regs"][number])
        obtained = got["regs"].get(number, before["regs"][number])
        if wanted == obtained:
            continue
        said = f"{shown}\nAfterwards x[{number}] is {shorten(obtained)}, expected {wanted} ({wanted:#x})."
        if number == 0:
            trial.wrong("x0-writable", said, "Register 0 is always 0: leave such a line out, or make it harmless.")
        if isinstance(obtained, int) and obtained & rv32.MASK == wanted:
            trial.wrong("no-wrap", said, "Whatever is written to a register has 32 bits.")
        trial.wrong("wrong-value", said, "Which of your lines writes this register?")


def _place(address: int | None) -> str:
    """An address as a person reads it."""
    return "None" if address is None else f"{address} ({address:#x})"


def _judge_end(trial: Trial, instructions: Sequence[rv32.Executed], want: Seen, got: Seen, shown: str) -> None:
    """Where does control go, and what becomes of the cache?"""
    last = instructions[-1]
    if want["cleared"] and not got["cleared"]:
        trial.wrong("fence-ignored", f"{shown}\nThe cache was not emptied.", "What does fence.i promise to a program?")
    if got["cleared"] and not want["cleared"]:
        trial.wrong("clears-without-need", f"{shown}\nIt emptied the cache.", "Which one instruction asks for that?")
    if want["next"] == got["next"]:
        trial.wrong("differs", f"{shown}\nIt differs from Unicorn.", "Compare it line by line.")
    said = f"{shown}\nIt returned {_place(got['next'])}, expected {_place(want['next'])}."
    if last.word == rv32.EBREAK:
        trial.wrong("no-end", said, "After ebreak there is no next block: return None.")
    if last.word & 0x7F == 0x67:
        same = last.word >> 7 & 31 == last.word >> 15 & 31
        if got["next"] == (want["next"] or 0) | 1:
            trial.wrong("odd-target", said, "jalr clears bit 0 of the sum.")
        trial.wrong(
            "link-before-target" if same else "wrong-target",
            said,
            "Which of the two does jalr need first, the old value or the link?",
        )
    if got["next"] is None:
        trial.wrong("falls-off", said, "Every path through the text has to return an address.")
    if last.word & 0x7F == 0x63 and {got["next"], want["next"]} != {None}:
        trial.wrong("wrong-branch", said, "Is the condition right, are the numbers signed, where does each way lead?")
    trial.wrong("wrong-next", said, "At which address does the next instruction stand?")


@translate.step("a block of two instructions does what they do")
def _two(trial: Trial) -> None:
    judge_blocks(trial, [machine("addi x5, x6, 7\nebreak", {6: trial.rng.randrange(1000)})])


@translate.step("register 0 stays 0, and registers hold 32 bits")
def _edges(trial: Trial) -> None:
    judge_blocks(trial, [machine("addi x0, x6, 7\nadd x5, x6, x6\nsub x7, x0, x8\nebreak", {6: 0xC0000000, 8: 1})])


@translate.step("loads, stores and upper immediates do what Unicorn does")
def _memory(trial: Trial) -> None:
    source = "lui x5, 0xABCDE\nlw x7, 4(x6)\nlbu x8, -3(x6)\nsw x5, -8(x6)\nandi x9, x7, -16\nlw x10, -6(x6)\nebreak"
    judge_blocks(trial, [machine(source, {6: 0x1800}, seed=trial.rng.getrandbits(20))])


@translate.step("a branch or a jump ends the block and tells where to go on")
def _ends(trial: Trial) -> None:
    branches = ["beq x5, x6, 0x40", "bne x5, x6, 0x180", "blt x5, x6, 0x40", "blt x6, x5, 0x40", "jal x1, 0x200"]
    sources = [f"add x5, x5, x7\n{branch}\naddi x5, x5, 1\nebreak" for branch in branches]
    judge_blocks(trial, [machine(s, {5: a, 6: 3, 7: 0xFFFFFFFE}) for s in sources for a in (1, 5)])
    judge_blocks(trial, [machine("jalr x1, x5, 9\nebreak", {5: 0x200})])


@translate.step("fence.i ends the block and empties the cache")
def _fence(trial: Trial) -> None:
    judge_blocks(trial, [machine("addi x5, x5, 1\nfence.i\naddi x5, x5, 1\nebreak"), machine("addi x5, x5, 1\nebreak")])
