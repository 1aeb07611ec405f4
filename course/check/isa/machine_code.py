"""Checks of answers that are machine code: the processor is the judge, in a child and under fuel."""

from __future__ import annotations

from collections.abc import Sequence

from ... import isa
from ...error import CapabilityError, CourseError
from ...isa.disassembler import decode
from ...isa.processor import RETURN, call_each
from ..compare import shorten
from ..exercise import Exercise, Trial

NAMES = ("x86", "x86_64", "ppc", "aarch64", "riscv64")
MOST_INSTRUCTIONS = 12
_FUEL = 2_000
_MASK = 0xFFFFFFFF

# ── affine ──────────────────────────────────────────────────────────────────────────────────────────────────────────

affine = Exercise("affine")


def sources(trial: Trial) -> dict[str, str]:
    """Get the five texts from the answer."""
    got = trial.call()
    if not isinstance(got, dict):
        trial.wrong(
            "not-a-dict", f"affine() returned {shorten(got)}.", "Return a dict from ISA names to assembly texts."
        )
    missing = [name for name in NAMES if name not in got]
    trial.expect(
        not missing, "isa-missing", f"There is no text for {', '.join(missing)}; there are texts for {', '.join(got)}."
    )
    for name in NAMES:
        text = got[name]
        trial.expect(isinstance(text, str), "not-text", f"For {name} you gave {shorten(text)}.", "Assembly is text.")
        trial.expect(
            bool(text.strip()), "empty", f"The text for {name} is empty.", "Which two or three instructions are needed?"
        )
    return {name: got[name] for name in NAMES}


def assembled(trial: Trial, name: str, text: str) -> bytes:
    """Assemble, or say which line cannot be."""
    try:
        code = isa.assemble(text[:20_000], name)
    except CourseError as error:
        trial.wrong("assembly", str(error), f"Read the row of {name} in the table of instructions above.")
    trial.expect(bool(code), "empty", f"The text for {name} has no instruction.")
    return code


def judge_affine(trial: Trial, name: str, text: str, pairs: Sequence[tuple[int, int]]) -> None:
    """Run one function on pairs of numbers and look at everything that it did."""
    code = assembled(trial, name, text)
    results = call_each(code, name, pairs, fuel=_FUEL, seed=trial.seed * 1000)
    for (a, b), result in zip(pairs, results, strict=True):
        _judge_end(trial, name, result, a, b)
        want, got = (3 * a + b) & _MASK, result.value & _MASK
        if want != got:
            _blame(trial, name, code, (a, b), got)
        stack = isa.lookup(name).stack
        if stack in result.changed:
            before, after = result.changed[stack]
            trial.wrong(
                "stack-not-restored",
                f"{name}: f({a}, {b}) is right, but {stack} should be {before:#x} after the return and is {after:#x}.",
                "What was pushed has to be popped before the return.",
            )
        if result.changed:
            (register, (before, after)), *_ = result.changed.items()
            trial.wrong(
                "clobbers-callee-saved",
                f"{name}: f({a}, {b}) = {got} is right, but {register} was {before:#x} before and is {after:#x} after. "
                "It belongs to the caller, which may still need it.",
                "Use a register that a function may change, or save this one and give it back.",
            )
        if result.instructions > MOST_INSTRUCTIONS:
            trial.nearly(
                "too-long",
                f"{name}: {result.instructions} instructions were executed; at most {MOST_INSTRUCTIONS} were expected.",
                "3a is a + 2a, and there are instructions that shift and add, or multiply.",
            )


def _judge_end(trial: Trial, name: str, result: isa.Result, a: int, b: int) -> None:
    shown = f"{name}: f({a}, {b})"
    if result.end is isa.End.FUEL:
        back = {"x86": "ret", "x86_64": "ret", "ppc": "blr"}.get(name, "ret")
        trial.wrong(
            "never-returned",
            f"{shown} ran out of fuel: {result.detail}. It never came back to its caller.",
            f"A processor goes on with whatever bytes come next. Which instruction returns? ({back} on {name})",
        )
    if result.end is not isa.End.RETURNED:
        trial.wrong(
            "crashed", f"{shown} {result.end.value}: {result.detail}.", "Step through it with the stepper below."
        )


def _blame(trial: Trial, name: str, code: bytes, pair: tuple[int, int], got: int) -> None:
    """The value is wrong: find out what it depends on, and say so."""
    a, b = pair

    def value(x: int, y: int, seed: int) -> int | None:
        result = isa.call(code, name, x, y, fuel=_FUEL, seed=seed)
        return result.value & _MASK if result.ok else None

    shown = f"{name}: f({a}, {b}) returned {got} ({got:#x}); expected {(3 * a + b) & _MASK}."
    if got == (3 * RETURN + a) & _MASK and name == "x86":
        trial.wrong(
            "return-address-as-argument",
            f"{shown} That is 3 times the return address, {RETURN:#x}, plus a.",
            "On entry [esp] holds the return address; the arguments lie above it.",
        )
    same = value(a + 1, b, 1) == value(a, b + 5, 1) == value(a, b, 1)
    if same and value(a, b, 2) == value(a, b, 1):
        trial.wrong("constant", f"{shown} It returns the same for all arguments.", "Where do a and b come from?")
    if same:
        where = "on the stack, at [esp + 4] and [esp + 8]"
        if name != "x86":
            where = f"in {isa.lookup(name).arguments[0]} and {isa.lookup(name).arguments[1]}"
        trial.wrong(
            "wrong-argument-place",
            f"{shown} The value does not depend on a and b but on what a caller happened to leave elsewhere.",
            f"On {name} the two arguments arrive {where}.",
        )
    if got == (3 * b + a) & _MASK:
        trial.wrong("arguments-swapped", f"{shown} That is 3b + a.", "Which of the two arguments comes first?")
    trial.wrong("wrong-value", shown, "Step through it with the stepper below: at which step does it leave your plan?")


@affine.step("each of the five functions returns 3a + b")
def _values(trial: Trial) -> None:
    texts = sources(trial)
    pairs = [(7, 5), (trial.rng.randrange(1000), trial.rng.randrange(1000)), (0xFFFFFFFF, trial.rng.randrange(3, 99))]
    for name in NAMES:
        judge_affine(trial, name, texts[name], pairs)


# ── two_in_one ──────────────────────────────────────────────────────────────────────────────────────────────────────

two_in_one = Exercise("two_in_one")
MOST_BYTES = 16


def double_code(trial: Trial) -> bytes:
    """Get the bytes from the answer."""
    got = trial.call()
    if isinstance(got, str):
        trial.nearly("text", f"two_in_one() returned the text {shorten(got)}.", "Bytes are asked: bytes.fromhex(...).")
    if not isinstance(got, bytes):
        trial.wrong("not-bytes", f"two_in_one() returned {shorten(got)}.", "Machine code is bytes.")
    trial.expect(len(got) >= 2, "too-short", f"{len(got)} bytes cannot be entered at 0 and at 1.")
    return got


def judge_entries(trial: Trial, code: bytes, seeds: Sequence[int]) -> None:
    """Enter the code at both offsets, with whatever in the registers."""
    for entry, want in ((0, 1), (1, 2)):
        for seed in seeds:
            result = isa.call(code, "x86_64", entry=entry, fuel=_FUEL, seed=seed)
            _judge_entry(trial, code, entry, want, result)


def _judge_entry(trial: Trial, code: bytes, entry: int, want: int, result: isa.Result) -> None:
    value = result.value & _MASK
    listing = "\n".join(f"  {i}" for i in isa.disassemble(code[entry:], "x86_64", entry)[:8])
    shown = f"{code.hex(' ')} entered at +{entry}, read there as\n{listing}\n"
    if result.end is isa.End.FUEL:
        trial.wrong("never-returned", f"{shown}never returned.", "Both readings need a ret before the bytes end.")
    if result.end is isa.End.FAULT and "read-only" in result.detail:
        trial.wrong(
            "writes-code", f"{shown}{result.detail}.", "Code cannot change itself here: its pages are read-only."
        )
    if not result.ok:
        trial.wrong(
            "crashed", f"{shown}{result.end.value}: {result.detail}.", "Follow the listing above, line by line."
        )
    if value != want and value & 0xFF == want:
        trial.wrong(
            "part-of-register",
            f"{shown}returned {value:#x}; expected {want}. Only the lowest byte of eax was set.",
            "mov al, 2 leaves 24 bits of eax as they were. What short sequence sets all of it? (push, pop)",
        )
    if value != want:
        trial.wrong("wrong-value", f"{shown}returned {value:#x}; expected {want}.", "Follow the listing, line by line.")
    if result.changed:
        (register, (before, after)), *_ = result.changed.items()
        trial.wrong(
            "clobbers-callee-saved",
            f"{shown}returned {want}, but changed {register} from {before:#x} to {after:#x}.",
            "That register belongs to the caller.",
        )


@two_in_one.step("the bytes return 1 when entered at offset 0 and 2 when entered at offset 1")
def _both(trial: Trial) -> None:
    judge_entries(trial, double_code(trial), [trial.rng.randrange(1 << 30) for _ in range(3)])


@two_in_one.step("there are at most 16 bytes")
def _short(trial: Trial) -> None:
    code = double_code(trial)
    if len(code) > MOST_BYTES:
        trial.nearly(
            "too-long", f"{len(code)} bytes; at most {MOST_BYTES} are wanted.", "Which instruction is shorter?"
        )


def judge_natively(trial: Trial, code: bytes, seeds: Sequence[int]) -> None:
    """The same on the real processor, where there is one of that kind."""
    for entry, want in ((0, 1), (1, 2)):
        for seed in seeds:
            try:
                native = isa.call_natively(code, entry=entry, seed=seed)
            except CapabilityError:
                return
            if native.value is None or native.value & _MASK != want:
                trial.wrong(
                    "native-differs",
                    f"{code.hex(' ')} entered at +{entry} on this machine's own processor: "
                    f"{native.why or hex(native.value or 0)}; expected {want}.",
                    "The emulator accepted it. What does your code rely on that a processor does not promise?",
                )


# ── desync ──────────────────────────────────────────────────────────────────────────────────────────────────────────

desync = Exercise("desync")


def meeting(code: bytes) -> int | None:
    """The first offset from 1 on where both readings begin an instruction, by capstone; None if there is none."""
    first = {i.address for i in decode(code, "x86_64", 0)}
    second = [1 + i.address for i in decode(code[1:], "x86_64", 0)]
    return next((at for at in second if at in first), None)


def judge_desync(trial: Trial, code: bytes) -> None:
    """Compare one answer; recognise what it computed instead."""
    got, want = trial.call(code, none_is_an_answer=True), meeting(code)
    if got == want and not isinstance(got, bool):
        return
    first = [i.address for i in decode(code, "x86_64", 0)]
    second = [1 + i.address for i in decode(code[1:], "x86_64", 0)]
    shown = (
        f"code {code.hex(' ')}\n  read from 0, instructions begin at {first}\n  read from 1, they begin at {second}\n"
        f"expected {want}, obtained {shorten(got)}"
    )
    if len(first) > 1 and got == first[1] and got not in second:
        trial.wrong("assumes-sync", shown, "That is where the first reading goes on; does the second begin there too?")
    if want is None:
        trial.wrong("never-none", shown, "Sometimes the two readings never agree; then the answer is None.")
    if got is None:
        trial.wrong("gives-up", f"{shown}", "Compare the two lists of beginnings: is there a common number?")
    if isinstance(got, int) and got + 1 == want and got in [s - 1 for s in second]:
        trial.wrong("forgot-the-one", shown, "Offsets in the second reading are counted from code[1].")
    if got == len(code):
        trial.wrong("end-of-code", shown, "An instruction has to begin there; at the end none does.")
    trial.wrong("wrong-offset", shown, "The first number, from 1 on, that is in both lists.")


def random_stream(trial: Trial) -> bytes:
    """Some ordinary x86-64 code, long enough to meet itself."""
    rng = trial.rng
    registers = ("eax", "ecx", "edx", "ebx", "esi", "edi", "r8d", "r9d")
    lines = []
    for _ in range(rng.randrange(5, 12)):
        a, b = rng.choice(registers), rng.choice(registers)
        number, small = rng.getrandbits(31), rng.randrange(1, 100)
        lines.append(
            rng.choice(
                [f"mov {a}, {number}", f"add {a}, {b}", f"lea {a}, [rdi+rsi*4+{small}]", f"mov {a}, [rsp+{small}]",
                 f"imul {a}, {b}, {number}", "push rbx", f"cmp {a}, {small}", f"mov rax, {number << 20 | 1}"]
            )
        )  # fmt: skip
    return isa.assemble("\n".join([*lines, "ret"]), "x86_64")


@desync.step("two readings of the same bytes meet where both begin an instruction")
def _meet(trial: Trial) -> None:
    judge_desync(trial, bytes.fromhex("b96a0258c3b801000000c3"))
    for _ in range(5):
        judge_desync(trial, random_stream(trial))


@desync.step("readings that never meet give None")
def _never(trial: Trial) -> None:
    judge_desync(trial, bytes.fromhex("b8c3909090"))
    judge_desync(trial, bytes.fromhex("48b80600000000000000"))
