"""Hidden checks of lesson 5, *Emulation*."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from course.check import Exercise, Outcome, Trial
from course.check.compare import shorten
from course.check.emulation.cases import DATA, case, random_case
from course.check.emulation.counting import judge_counts, judge_expansion
from course.check.emulation.devices import BUSY_ACCESSES, FIFO_BYTES, OVERRUN, RX_READY, TX_READY, ask, judge_script
from course.check.emulation.dispatching import judge_budget, judge_pages, judge_run
from course.check.emulation.hunting import judge_program
from course.check.emulation.loops import asking, nested, two_exits
from course.check.emulation.programs import calls, generating, rewriting
from course.check.emulation.qemu_log import write
from course.check.emulation.speed import judge_slowdown
from course.check.emulation.stepping import judge_cases, judge_far_jumps, judge_immediates, judge_refusal, random_word
from course.check.emulation.translating import judge_blocks, machine
from course.isa import bus, rv32, sabotage

immediate = Exercise("immediate", hidden=True, varies=True)
step = Exercise("step", hidden=True, deadline_s=20.0)
translate = Exercise("translate", hidden=True, deadline_s=20.0)
run = Exercise("run", hidden=True, deadline_s=30.0)
tcg_counts = Exercise("tcg_counts", hidden=True, deadline_s=60.0)
expansion = Exercise("expansion", hidden=True)
uart = Exercise("uart", hidden=True, varies=True)
expose = Exercise("expose", hidden=True)
slowdown = Exercise("slowdown", hidden=True)

# ── immediate and step ───────────────────────────────────────────────────────────────────────────────────────────────


@immediate.step("500 random words of each format are read as capstone reads them")
def _all_formats(trial: Trial) -> None:
    for form in "ISUBJ":
        judge_immediates(trial, form, [random_word(trial, form) for _ in range(500)])


@step.step("loads and stores at any address, aligned or not, do what Unicorn does")
def _unaligned(trial: Trial) -> None:
    for source in ("lw x5, 0(x6)", "sw x6, 0(x6)", "lbu x5, 0(x6)"):
        judge_cases(trial, [case(source, {6: 0x1800 + n}, seed=n) for n in range(1, 5)])
    judge_cases(trial, [case("lw x0, 0(x6)", {6: 0x1800}), case("jal x0, 0x1100"), case("jalr x0, x6, 0", {6: 0x1200})])


@step.step("jumps over any distance go where Unicorn goes")
def _far(trial: Trial) -> None:
    judge_far_jumps(trial)
    judge_cases(trial, [case("jalr x6, x6, 8", {6: 0x1200}), case("jalr x6, x6, -3", {6: 0x1200})])


@step.step("400 random instructions do what Unicorn does")
def _many(trial: Trial) -> None:
    names = rv32.MNEMONICS[:13]
    judge_cases(trial, [random_case(trial.rng, names[n % len(names)]) for n in range(400)])


_MUL, _FADD, _ECALL = 0x027302B3, 0x007302D3, 0x00000073
"""mul x5, x6, x7 and fadd.s f5, f6, f7, which nobody adds to a processor of fifteen instructions; ecall."""


@step.step("words that are none of the table are refused, also those that other processors know")
def _refusals(trial: Trial) -> None:
    for word in (_MUL, _FADD, _ECALL):
        judge_refusal(trial, word)
    for word in (0, 0x22 << 25 | 0x33, 0x7003, 0x7023, 0x2063):
        judge_refusal(trial, word)


# ── translate and run ────────────────────────────────────────────────────────────────────────────────────────────────


def random_block(rng: random.Random) -> rv32.State:
    """A block of random instructions that works on random registers; x6 points to data."""
    regs = {n: rng.getrandbits(32) for n in range(1, 32)} | {6: rng.randrange(DATA + 0x100, DATA + 0x400)}
    lines = []
    for _ in range(rng.randrange(1, 12)):
        rd, rs1, rs2 = rng.choice([n for n in range(32) if n != 6]), rng.randrange(32), rng.randrange(32)
        offset = rng.randrange(-0x100, 0x400)
        number = rng.randrange(-2048, 2048)
        lines.append(
            rng.choice(
                [f"add x{rd}, x{rs1}, x{rs2}", f"sub x{rd}, x{rs1}, x{rs2}", f"addi x{rd}, x{rs1}, {number}",
                 f"andi x{rd}, x{rs1}, {number}", f"lui x{rd}, {rng.getrandbits(20)}", f"lw x{rd}, {offset}(x6)",
                 f"lbu x{rd}, {offset}(x6)", f"sw x{rs2}, {offset}(x6)"]
            )
        )  # fmt: skip
    a, b = rng.randrange(32), rng.randrange(32)
    ends = [f"{name} x{a}, x{b}, 0x80" for name in ("beq", "bne", "blt")] + [f"jal x{a}, 0x300", "fence.i", "ebreak"]
    return machine("\n".join([*lines, rng.choice(ends)]), regs, seed=rng.getrandbits(30))


@translate.step("a block ends with its page, at the latest")
def _page(trial: Trial) -> None:
    body = "\n".join(["addi x5, x5, 1"] * 9)
    for before in (1, 2, trial.rng.randrange(3, 7)):
        judge_blocks(trial, [machine(f"{body}\nebreak", {5: 1}, at=rv32.PAGE_BYTES - 4 * before)])


@translate.step("links, targets and signs are those of Unicorn")
def _links(trial: Trial) -> None:
    sources = ["jalr x5, x5, 8\nebreak", "jal x0, 0x200\nebreak", "jalr x0, x5, -1\nebreak"]
    judge_blocks(trial, [machine(source, {5: 0x200}) for source in sources])
    values = [(1, 0xFFFFFFFF), (0xFFFFFFFF, 1), (0x80000000, 0x7FFFFFFF), (5, 5)]
    judge_blocks(trial, [machine("blt x5, x6, 0x200\nebreak", {5: a, 6: b}) for a, b in values])


@translate.step("60 random blocks do what Unicorn does")
def _blocks(trial: Trial) -> None:
    judge_blocks(trial, [random_block(trial.rng) for _ in range(60)])


@translate.step("a block that begins with no instruction is refused")
def _no_instruction(trial: Trial) -> None:
    for word in (0, 0xFFFFFFFF):
        memory = word.to_bytes(4, "little") * (rv32.MEMORY_BYTES // 4)
        done = trial.attempt(memory, 0x100)
        trial.expect(
            done.outcome is Outcome.RAISED and done.error == "ValueError",
            "unknown-passed-over",
            f"Memory is full of {word:#010x}, which is no instruction. translate {done.outcome.value} "
            f"{done.error or shorten(done.value)}; expected ValueError.",
            "What does your last `else` do?",
        )


@run.step("code that is generated at run time is run, and translated when it changes")
def _generated(trial: Trial) -> None:
    judge_run(
        trial, generating(trial.rng), "A program that copies two functions to the same place, one after the other."
    )


@run.step("more programs: calls through a table, rewritten functions, loops over the end of a page")
def _more(trial: Trial) -> None:
    for _ in range(2):
        judge_run(trial, calls(trial.rng), "A function called from several places through a table.")
        judge_run(trial, rewriting(trial.rng), "A program that rewrites one of its functions.")
        judge_pages(trial)


@run.step("the budget is kept to the block")
def _budget(trial: Trial) -> None:
    for budget in (1, trial.rng.randrange(2, 300)):
        judge_budget(trial, budget)


# ── tcg_counts and expansion ─────────────────────────────────────────────────────────────────────────────────────────


@tcg_counts.step("loops with two exits, with system calls, and programs that fail are counted")
def _loops(trial: Trial) -> None:
    judge_counts(trial, two_exits(trial.rng), "A loop with two exits")
    judge_counts(trial, asking(trial.rng, 3), "A loop with a system call in it, exit status 3")


@tcg_counts.step("single steps of nested loops are counted")
def _single(trial: Trial) -> None:
    judge_counts(trial, nested(trial.rng, 1), "Two nested loops, single-stepped", single_step=True)


@expansion.step("constants behind the code are no instructions")
def _constants(trial: Trial) -> None:
    judge_expansion(trial, write(trial.rng, 6))


@expansion.step("a log that shows the operations twice is read once")
def _optimized(trial: Trial) -> None:
    judge_expansion(trial, write(trial.rng, 4, optimized=True, data=False))


# ── uart ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


class Port:
    """The serial port of the lesson, as a model to compare with."""

    def __init__(self, flaw: str = "") -> None:
        self.flaw = flaw
        self.waiting: list[int] = []
        self.sent = bytearray()
        self.busy = 0
        self.overrun = False

    def happen(self, kind: str, *rest: int) -> int | None:
        """Let one event happen; return the reply to a read."""
        if kind == "receive":
            self.busy -= bool(self.busy and self.flaw == "receiving is an access")
            if len(self.waiting) < FIFO_BYTES:
                self.waiting.append(rest[0])
            else:
                self.overrun = True
            return None
        ready = not self.busy
        self.busy = max(0, self.busy - 1)
        if kind == "read":
            return self._read(rest[0], ready)
        if rest[0] == 0 and ready:
            self.sent.append(rest[1] & 0xFF)
            self.busy = BUSY_ACCESSES
        elif rest[0] == 0 and self.flaw == "a lost byte is sent late":
            self.busy = BUSY_ACCESSES
        elif rest[0] == 4 and rest[1] & OVERRUN:
            self.overrun = False
        if rest[0] == 4 and rest[1] & TX_READY and self.flaw == "a write makes it ready":
            self.busy = 0
        return None

    def _read(self, offset: int, ready: bool) -> int:
        if offset == 0:
            return self.waiting.pop(0) if self.waiting else 0
        status = (RX_READY if self.waiting else 0) | (TX_READY if ready else 0) | (OVERRUN if self.overrun else 0)
        return status if offset == 4 else 0


def replay(script: Sequence[tuple[Any, ...]], flaw: str = "") -> tuple[list[int], bytes]:
    """Replies and sent bytes of a script, by the model, or by one with a flaw."""
    port = Port(flaw)
    replies = [port.happen(*event) for event in script]
    return [reply for reply in replies if reply is not None], bytes(port.sent)


@uart.step("OVERRUN stays until a 1 is written to its bit of STATUS")
def _sticky(trial: Trial) -> None:
    letters = trial.rng.choices(range(97, 122), k=6)
    script: list[tuple[Any, ...]] = [("receive", letter) for letter in letters]
    script += [("read", 4), *[("read", 0)] * 4, ("read", 4), ("write", 4, 3), ("read", 4), ("write", 4, 4), ("read", 4)]
    replies, sent = replay(script)
    hint = "Hardware often clears a flag when a 1 is written to it, so that the other flags can be left alone."
    judge_script(trial, script, replies, sent, "overrun-not-sticky", "Six bytes arrive, then STATUS is written.", hint)
    other = trial.rng.randrange(32) << 3 | 4 | trial.rng.randrange(1, 4)
    script = [*(("receive", letter) for letter in letters), ("write", 4, other), ("read", 4)]
    replies, sent = replay(script)
    what, hint = f"Six bytes arrive, then {other:#x} is written to STATUS.", "Bit 2 of what is written decides, alone."
    judge_script(trial, script, replies, sent, "other-bits-matter", what, hint)


@uart.step("only the low byte of DATA is sent, and the other offsets do nothing")
def _bytes(trial: Trial) -> None:
    value = trial.rng.getrandbits(24) << 8 | trial.rng.randrange(65, 90)
    script: list[tuple[Any, ...]] = [("write", 8, 65), ("read", 12), ("write", 0, value), ("read", 4)]
    replies, sent = replay(script)
    judge_script(trial, script, replies, sent, "too-wide", "A word of 32 bits is written.", "A line carries bytes.")


@uart.step("a program that polls, run by Unicorn, sees the port that it expects")
def _polled(trial: Trial) -> None:
    text = bytes(trial.rng.choices(range(97, 122), k=trial.rng.randrange(3, 9)))
    script = polled(text)
    replies, sent = replay(script)
    hint = "Follow the events one by one with pencil and paper."
    judge_script(trial, script, replies, sent, "polling-differs", "A polling program sends a line.", hint)


_FLAWS = {
    "receiving is an access": ("receiving-takes-time", "Who makes an access, and who sends a byte from outside?"),
    "a lost byte is sent late": ("lost-byte-restarts", "Does the port notice a byte that it loses?"),
    "a write makes it ready": ("status-sets-ready", "Which bits of STATUS does a write change?"),
    "": ("script-differs", "Follow the events one by one with pencil and paper."),
}


@uart.step("random scripts give the replies of the model")
def _scripts(trial: Trial) -> None:
    rng = trial.rng
    kinds: list[tuple[Any, ...]] = [("read", 4), ("read", 0), ("write", 0), ("receive",), ("write", 4), ("read", 4)]
    for _ in range(8):
        script: list[tuple[Any, ...]] = []
        for _ in range(60):
            kind = rng.choice(kinds)
            script.append((*kind, rng.randrange(256)) if kind[0] != "read" else kind)
        got = ask(trial, script)
        seen = (list(got["replies"]), got["sent"])
        replies, sent = replay(script)
        flaw = next((name for name in _FLAWS if seen == replay(script, name) != (replies, sent)), "")
        misconception, hint = _FLAWS[flaw]
        judge_script(trial, script, replies, sent, misconception, "A script of 60 events.", hint)


def polled(text: bytes) -> list[tuple[Any, ...]]:
    """What happens to the port when a program sends a text, waiting for the transmitter each time."""
    events: list[tuple[Any, ...]] = []
    port = Port()
    base = 1 << 20

    def device(address: int, value: int | None) -> int:
        events.append(("read", address - base) if value is None else ("write", address - base, value))
        return port.happen(*events[-1]) or 0

    code = bus.GREETING.partition("listen:")[0].replace("0x1FC0", str(base))
    source = f'{code}\nlisten: ebreak\ntext: .asciz "{text.decode()}"'
    processor = rv32.Processor(device=device, device_at=base)
    processor.load(rv32.state(source))
    for _ in range(5000):
        if processor.next_word() == rv32.EBREAK:
            return events
        processor.step()
    raise AssertionError("the polling program did not end")


# ── expose and slowdown ──────────────────────────────────────────────────────────────────────────────────────────────


@expose.step("every fault is exposed in other registers, too")
def _faults(trial: Trial) -> None:
    for fault in sabotage.FAULTS:
        judge_program(trial, fault, trial.rng.randrange(16, 32))


@slowdown.step("factors of disturbed measurements are found")
def _disturbed(trial: Trial) -> None:
    for _ in range(3):
        judge_slowdown(trial, disturbed=True)
