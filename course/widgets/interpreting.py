"""Run a student's ``step(state) -> state``, one instruction at a time, and write down what each call did.

The function runs here, in the notebook's own process, so that it may print and be debugged. What can go wrong ends the
run and is told: an exception (with the line that raised it), something returned that is no state, a state that does
not change any more, fuel or time that is used up. It is stopped between two calls only; a call that never returns is
interrupted as any other cell.

With a judge beside it (Unicorn, unless another function is given), the first call whose state differs is remembered.
"""

from __future__ import annotations

import copy
import dataclasses
import linecache
import time
from collections.abc import Callable, Mapping
from typing import Any

from ..error import UsageError
from ..isa import rv32

MOST_STEPS = 400
_SECONDS = 20.0
_CHUNK = 4096
Step = Callable[[Any], Any]
Reader = Callable[[Any], Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """A state that nobody can change any more."""

    pc: int
    regs: tuple[int, ...]
    memory: bytes
    halted: bool

    def named(self) -> dict[str, int]:
        """The registers by name, pc first."""
        return {"pc": self.pc, **{f"x{number}": value for number, value in enumerate(self.regs)}}


@dataclasses.dataclass(frozen=True)
class Taken:
    """One call of the function.

    Attributes:
        pc: address of the instruction.
        word: the instruction; -1 outside the memory.
        changes: registers that changed and pc, with their new values.
        writes: memory that changed: (address, bytes).
        note: what was wrong with it, in words.
    """

    pc: int
    word: int
    changes: Mapping[str, int]
    writes: tuple[tuple[int, bytes], ...]
    note: str = ""

    @property
    def text(self) -> str:
        """The instruction, disassembled."""
        return rv32.text(self.word, self.pc) if self.word >= 0 else "nothing: the memory has ended"

    def __str__(self) -> str:
        parts = [f"{name}={value:#x}" for name, value in self.changes.items() if self.tells(name)]
        parts += [f"[{at:#x}]={data.hex(' ')}" for at, data in self.writes]
        note = f"  ✗ {self.note}" if self.note else ""
        return f"{self.pc:#08x}  {self.text:<24} {'  '.join(parts)}".rstrip() + note

    def tells(self, name: str) -> bool:
        """Whether a change is worth a word: pc is when it does not go to the next instruction."""
        return name != "pc" or self.changes["pc"] != self.pc + 4


@dataclasses.dataclass(frozen=True)
class Difference:
    """Where the function and its judge part.

    Attributes:
        step: number of the call, from 1.
        rows: what differs: (name, the function's, the judge's), as text.
    """

    step: int
    rows: tuple[tuple[str, str, str], ...]


@dataclasses.dataclass(frozen=True)
class Record:
    """A whole run.

    Attributes:
        start: the state before it.
        steps: the calls, in order.
        end: why it ended, in words.
        difference: None when nothing differed, or nothing was compared.
        judge: who was asked; ``""`` for nobody.
        judged: number of calls that were compared.
    """

    start: Snapshot
    steps: tuple[Taken, ...]
    end: str
    difference: Difference | None = None
    judge: str = ""
    judged: int = 0

    @property
    def verdict(self) -> str:
        """What the comparison gave, in a sentence; ``""`` when there was none."""
        if not self.judge:
            return ""
        if self.difference is None:
            return f"Nothing differs from {self.judge} in {self.judged} of {len(self.steps)} steps."
        step = self.steps[self.difference.step - 1]
        what = "; ".join(f"{name}: yours {own}, {self.judge} {other}" for name, own, other in self.difference.rows[:3])
        return f"First difference from {self.judge} at step {self.difference.step}, {step.text}: {what}."


def snapshot(state: Any) -> Snapshot:
    """Take a state as the lesson defines it.

    Raises:
        UsageError: saying what is no state about it.
    """
    if not isinstance(state, Mapping):
        raise UsageError(f"it returned {_brief(state)}; expected a state: a dict with pc, regs and memory")
    if missing := [key for key in ("pc", "regs", "memory") if key not in state]:
        raise UsageError(
            f"its state has no {' and no '.join(missing)}; it has {', '.join(map(str, state)) or 'nothing'}"
        )
    pc, regs, memory = state["pc"], state["regs"], state["memory"]
    if not isinstance(regs, (list, tuple)) or len(regs) != 32:
        raise UsageError(f"its regs are {_brief(regs)}; expected a list of 32 numbers")
    numbers = {"pc": pc, **{f"regs[{number}]": value for number, value in enumerate(regs)}}
    for name, value in numbers.items():
        if not isinstance(value, int):
            raise UsageError(f"its {name} is {_brief(value)}; expected an integer")
    if not isinstance(memory, (bytes, bytearray)):
        raise UsageError(f"its memory is {_brief(memory)}; expected a bytearray")
    return Snapshot(int(pc), tuple(map(int, regs)), bytes(memory), bool(state.get("halted", False)))


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}… ({type(value).__name__} of {len(text)} letters)"


def record(
    step: Step, state: Any, *, fuel: int, read: Reader | None = None, judge: Judge | None = None, judged_by: str = ""
) -> Record:
    """Call `step` until the machine halts or something ends it.

    Args:
        step: the student's.
        state: where to begin; stays as it is.
        fuel: number of calls at most.
        read: gives the plain state of whatever `step` works with.
        judge: says what should have come.
        judged_by: its name.

    Raises:
        UsageError: the first state is none.
    """
    before = start = first(state, read)
    current = copy.deepcopy(state)
    steps: list[Taken] = []
    difference = None
    judged = 0
    end = ""
    deadline = time.monotonic() + _SECONDS
    while not end and not before.halted:
        current, after, note = _call(step, current, read)
        if after is None:
            end = f"step {len(steps) + 1} went wrong"
            after = before
        elif judge is not None and judge.awake and difference is None:
            judged += 1
            if rows := judge.compare(after):
                difference, note = Difference(len(steps) + 1, rows), "differs from here on"
        changes = {} if end else _changes(before, after)
        word = rv32.word_at(before.memory, before.pc)
        steps.append(Taken(before.pc, word, changes, writes(before.memory, after.memory), note))
        end = end or _end(before, after, len(steps), fuel, deadline)
        before = after
    return Record(
        start, tuple(steps), end or f"halted at {before.pc:#x} after {len(steps)} steps", difference, judged_by, judged
    )


def first(state: Any, read: Reader | None) -> Snapshot:
    """The state to begin with.

    Raises:
        UsageError: it is none.
    """
    try:
        return snapshot(read(state) if read is not None else state)
    except UsageError as error:
        raise UsageError(f"no state to begin with: {error}".replace("it returned", "got")) from None


def _call(step: Step, current: Any, read: Reader | None) -> tuple[Any, Snapshot | None, str]:
    """Call once: what came, the same as a snapshot, and what is wrong with it."""
    try:
        found = step(current)
        return found, snapshot(read(found) if read is not None else found), ""
    except UsageError as error:
        return current, None, str(error)
    except (Exception, SystemExit) as error:
        return current, None, _raised(error, step)


def _end(before: Snapshot, after: Snapshot, done: int, fuel: int, deadline: float) -> str:
    """Why the run cannot go on, though the last call was a good one; ``""`` when it can."""
    if after == before:
        return f"nothing changes any more: pc stays at {after.pc:#x}"
    if after.halted:
        return ""
    if done >= fuel:
        return f"out of fuel after {fuel} steps"
    return f"stopped after {_SECONDS:.0f} s" if time.monotonic() > deadline else ""


def _raised(error: BaseException, step: Step) -> str:
    """An exception in words, with the line of the student's code that raised it."""
    if isinstance(error, NotImplementedError) and not str(error):
        return "it is not written yet (NotImplementedError)"
    home = getattr(getattr(step, "__code__", None), "co_filename", None)
    place = ""
    trail = error.__traceback__
    while trail is not None:
        code = trail.tb_frame.f_code
        if code.co_filename == home:
            line = linecache.getline(code.co_filename, trail.tb_lineno).strip()
            place = f", in line {trail.tb_lineno} of {code.co_name}" + (f": {line}" if line else "")
        trail = trail.tb_next
    return f"it raised {type(error).__name__}: {error}".rstrip(": ") + place


def _changes(before: Snapshot, after: Snapshot) -> dict[str, int]:
    """Registers that differ; pc always, unless the machine has halted there."""
    old, new = before.named(), after.named()
    always = () if after.halted else ("pc",)
    return {name: value for name, value in new.items() if name in always or value != old[name]}


def writes(before: bytes, after: bytes) -> tuple[tuple[int, bytes], ...]:
    """Where memory differs: address and new bytes of each run."""
    found: list[tuple[int, bytearray]] = []
    for base in range(0, max(len(before), len(after)), _CHUNK):
        old, new = before[base : base + _CHUNK], after[base : base + _CHUNK]
        if old == new:
            continue
        for at, (one, other) in enumerate(zip(old, new, strict=False), base):
            if one == other:
                continue
            if found and found[-1][0] + len(found[-1][1]) == at:
                found[-1][1].append(other)
            else:
                found.append((at, bytearray([other])))
    return tuple((at, bytes(data)) for at, data in found)


class Judge:
    """What should have come, step by step.

    Args:
        state: where it begins.
        step: another ``step(state) -> state``; None for Unicorn.

    Attributes:
        awake: False once it cannot say any more: its machine halted, or it does not know the instruction.
    """

    def __init__(self, state: Snapshot, step: Step | None = None) -> None:
        self._state: rv32.State = {
            "pc": state.pc, "regs": list(state.regs), "memory": bytearray(state.memory), "halted": state.halted,
        }  # fmt: skip
        self._step = step
        self._processor: rv32.Processor | None = None
        self.awake = not state.halted

    def compare(self, seen: Snapshot) -> tuple[tuple[str, str, str], ...]:
        """Go one step, and say what differs from what was seen: (name, seen, expected)."""
        try:
            self._state = self._next()
        except rv32.AstrayError as error:
            self.awake = False
            return (("the instruction", "executed", f"cannot execute it ({error})"),)
        expected = snapshot(self._state)
        self.awake = not expected.halted
        old, new = seen.named(), expected.named()
        rows = [(name, f"{old[name]:#x}", f"{value:#x}") for name, value in new.items() if old[name] != value]
        if seen.memory != expected.memory:
            rows += [_piece(at, data, seen.memory) for at, data in writes(seen.memory, expected.memory)]
        if len(seen.memory) != len(expected.memory):
            rows.append(("memory", f"{len(seen.memory)} bytes", f"{len(expected.memory)} bytes"))
        if seen.halted != expected.halted:
            rows.append(("halted", str(seen.halted), str(expected.halted)))
        return tuple(rows)

    def _next(self) -> rv32.State:
        if self._step is not None:
            return dict(self._step(copy.deepcopy(self._state)))
        if self._processor is None:
            self._processor = rv32.Processor(len(self._state["memory"]))
            self._processor.load(self._state)
        if self._processor.next_word() == rv32.EBREAK:
            return {**self._state, "halted": True}
        self._processor.step()
        return {**self._processor.read(), "halted": False}


def _piece(at: int, expected: bytes, seen: bytes) -> tuple[str, str, str]:
    return f"memory {at:#x}", seen[at : at + len(expected)].hex(" "), expected.hex(" ")
