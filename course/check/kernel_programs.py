"""Judgements of lesson 3 on programs that cross into the kernel: shared by visible and hidden checks."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..error import CapabilityError, UsageError
from ..kernel import program, tracer
from ..kernel.loops import Bench, Run
from .compare import shorten
from .exercise import Trial

# ── make_elf ─────────────────────────────────────────────────────────────────────────────────────────────────────────

ELF_LIMIT_BYTES = 400


def judge_layout(trial: Trial, message: bytes, code: int) -> bytes:
    """Let the answer make an executable and judge its headers."""
    image = trial.call(message, code)
    asked = f"make_elf({shorten(message)}, {code})"
    trial.expect(isinstance(image, bytes), "not-bytes", f"{asked} returned {type(image).__name__}, expected bytes.")
    trial.expect(
        len(image) <= ELF_LIMIT_BYTES,
        "too-big",
        f"For a message of {len(message)} bytes the file has {len(image)} bytes; {ELF_LIMIT_BYTES} are allowed.",
        "The two headers take 120 bytes and the code about 40. What is the rest?",
    )
    try:
        headers = program.layout(image)
    except UsageError as error:
        trial.wrong(
            "not-an-elf", f"No kernel would start this file: {error}.", "Compare with the headers of exit_only."
        )
    trial.expect(
        not any(s.kind == program.PT_INTERP for s in headers.segments),
        "not-static",
        "The file asks for a program interpreter (PT_INTERP), the dynamic linker.",
    )
    segment = headers.segment_of(headers.entry)
    if segment is None:
        trial.wrong(
            "entry-is-an-offset",
            f"Execution starts at address {headers.entry:#x}, which no segment of the file maps.",
            "e_entry is an address in memory, not an offset in the file: which one gets the first byte of your code?",
        )
    trial.expect(
        bool(segment.flags & program.EXECUTE),
        "segment-not-executable",
        f"The segment that holds the code has flags {segment.flags}: it may not be executed (flag 1).",
        "Flags are 4 for read, 2 for write, 1 for execute. The processor refuses to run a page without the last.",
    )
    trial.expect(
        (segment.address - segment.offset) % program.PAGE_BYTES == 0,
        "not-congruent",
        f"Offset {segment.offset:#x} is to be mapped at {segment.address:#x}: the kernel maps whole pages, so both "
        f"have to be equal modulo {program.PAGE_BYTES}.",
    )
    return bytes(image)


def judge_run(trial: Trial, message: bytes, code: int) -> None:
    """Let the answer make an executable, run it under a tracer and judge what it did."""
    image = judge_layout(trial, message, code)
    try:
        seen = tracer.run(image, deadline_s=3, max_calls=500)
    except UsageError as error:
        trial.wrong("not-started", f"The system refused the program: {error}.", "Compare the headers with exit_only's.")
    told = ", ".join(c.name for c in seen.calls[:6]) or "none"
    _judge_end(trial, seen, told)
    _judge_output(trial, seen, message)
    trial.expect(
        seen.exitcode == code,
        "wrong-exit-code",
        f"The program ended with exit code {seen.exitcode}, expected {code}.",
        "The exit code is the first argument of exit: which register carries it?",
    )
    allowed = {"write", "writev", "exit", "exit_group"}
    calls = len(seen.calls)
    trial.expect(
        (calls == 2 or (calls == 1 and not message)) and all(c.name in allowed for c in seen.calls),
        "too-many-calls",
        f"The tracer saw {calls} system calls ({told}{', …' if calls > 6 else ''}); expected one write and one exit.",
        "One write can carry the whole message.",
    )


def _judge_end(trial: Trial, seen: tracer.Trace, told: str) -> None:
    """The program came to its own end."""
    if seen.calls and seen.calls[0].abi == "x86_64" and seen.calls[0].name == "stat":
        trial.wrong(
            "wrong-table",
            f"The program asked for system call 4 with the `syscall` instruction: that is stat (seen: {told}).",
            "4 is write on 32-bit x86. Every ISA has its own table: which number does the 64-bit one have?",
        )
    if seen.ended:
        trial.wrong(
            "endless-program", f"The program was stopped: {seen.ended}.", "What comes after your last instruction?"
        )
    if seen.exitcode < 0:
        if any(c.name.startswith("write") for c in seen.calls):
            trial.wrong(
                "no-exit",
                f"The program was killed by signal {-seen.exitcode} after its last system call (seen: {told}).",
                "A program is not over when its code ends: the processor runs on into whatever follows. Who stops it?",
            )
        trial.wrong(
            "crashed",
            f"The program was killed by signal {-seen.exitcode} before it wrote anything (system calls seen: {told}).",
            "Which is the first byte that is executed, and which address does it try to use?",
        )


def _judge_output(trial: Trial, seen: tracer.Trace, message: bytes) -> None:
    """The program wrote the message on its standard output."""
    got = seen.output
    if got == message:
        return
    if seen.errors.startswith(message) and message:
        trial.wrong("wrong-descriptor", "The message came out on descriptor 2 (stderr); expected on 1 (stdout).")
    misconception, hint = "wrong-output", "Which address does write get, and what lies there?"
    if any(c.result is not None and c.result < 0 for c in seen.calls) and len(message) >= 128:
        misconception = "length-sign-extended"
        hint = "A one-byte immediate runs from -128 to 127. What happens to 128 when it is extended to 64 bits?"
    elif b"\0" in message and got == message.split(b"\0")[0]:
        misconception, hint = (
            "stops-at-nul",
            "write counts bytes; a zero byte is a byte like others. Who stopped?",
        )
    elif got == message + b"\n":
        misconception, hint = "added-newline", "print ends a line by itself; write sends what it is given."
    elif got.startswith(message) or message.startswith(got):
        misconception, hint = "wrong-length", "write wants the number of bytes: where does yours come from?"
    trial.equal(message, got, misconception, "The program's output is not the message.", hint)


# ── count_syscalls ───────────────────────────────────────────────────────────────────────────────────────────────────

Stops = list[dict[str, int]]


def _parity(stops: Stops, first: int) -> dict[int, int]:
    return dict(Counter(s["orig_rax"] for s in stops[first::2]))


# Wrong ways to count that are worth their own message: what they give, and what to say.
_COUNTING: list[tuple[str, Callable[[Stops], Any], str]] = [
    ("both-stops", lambda s: dict(Counter(x["orig_rax"] for x in s)), "Each call stops twice: in and out."),
    (
        "both-stops",
        lambda s: dict(Counter(x["orig_rax"] for x in s[1:])),
        "Each call stops twice: in and out.",
    ),
    (
        "rax-is-the-result",
        lambda s: dict(Counter(x["rax"] for x in s[1::2])),
        "rax holds results; which has the call?",
    ),
    (
        "rax-is-the-result",
        lambda s: dict(Counter(x["rax"] for x in s)),
        "rax holds results; which has the call?",
    ),
    ("rax-is-the-result", lambda s: dict(Counter(x["rax"] for x in s[::2])), "rax holds results; which has the call?"),
    ("execve-counted", lambda s: _parity(s, 0), "The first stop is the end of execve: is it an entry or an exit?"),
    (
        "enosys-is-an-answer",
        lambda s: dict(Counter(x["orig_rax"] for x in s if x["rax"] == -tracer.ENOSYS)),
        "-38 also is the honest answer to a call that the kernel does not know. What else tells entry from exit?",
    ),
    (
        "exit-lost",
        lambda s: dict(Counter(x["orig_rax"] for x in s[2::2])),
        "A call that never returns has an entry stop only. Which call is that?",
    ),
]


def judge_count(trial: Trial, stops: Stops, expected: Mapping[int, int], what: str) -> None:
    """Let the answer count and compare; a known wrong way of counting is named."""
    got = trial.call(stops)
    trial.expect(isinstance(got, dict), "not-a-dict", f"Expected a dict number → count, got {type(got).__name__}.")
    wanted = dict(sorted(expected.items()))
    if got == wanted:
        return
    obtained = dict(sorted(got.items(), key=repr))
    for misconception, count, hint in _COUNTING:
        if got == count(stops):
            trial.equal(wanted, obtained, misconception, what, hint)
    trial.equal(wanted, obtained, "miscounted", what, "Write down the first six stops and mark each as entry or exit.")


# ── boundary ─────────────────────────────────────────────────────────────────────────────────────────────────────────

COSTS = ("call", "vdso", "syscall")
MIN_RUNS = 5
_TOLERANCE = 0.25
_FEW_ROUNDS = 5_000


def _per_round(log: Sequence[Run], kind: str, average: Callable[[list[float]], float]) -> float:
    values = [r.ns / r.rounds for r in log if r.kind == kind]
    return average(values) if values else 0.0


def _first(values: list[float]) -> float:
    return values[0]


# What a wrong method would have made of the very runs that the bench has in its log.
_METHODS: list[tuple[str, Callable[[Sequence[Run], str], float], str]] = [
    (
        "loop-not-removed",
        lambda log, kind: _per_round(log, kind, statistics.median),
        "Counting down costs time as well. Which run tells how much?",
    ),
    ("loop-not-removed", lambda log, kind: _per_round(log, kind, min), "Counting down costs time as well."),
    (
        "mean-with-outliers",
        lambda log, kind: _per_round(log, kind, statistics.fmean) - _per_round(log, "empty", statistics.fmean),
        "One interrupted run drags the mean away. Which average does not care about a few bad runs?",
    ),
    (
        "mean-with-outliers",
        lambda log, kind: _per_round(log, kind, statistics.fmean),
        "One interrupted run drags the mean away, and the loop itself is in it as well.",
    ),
    (
        "first-run-counts",
        lambda log, kind: _per_round(log, kind, _first) - _per_round(log, "empty", _first),
        "The first run is the slowest: caches are cold.",
    ),
]


def judge_costs_shape(trial: Trial, got: Any) -> dict[str, float]:
    """The answer's result has the three costs, as positive numbers."""
    trial.expect(isinstance(got, dict), "not-a-dict", f"Expected a dict with {', '.join(COSTS)}, got {shorten(got)}.")
    missing = [kind for kind in COSTS if kind not in got]
    trial.expect(not missing, "missing-cost", f"The result {shorten(got)} says nothing about {', '.join(missing)}.")
    for kind in COSTS:
        number = isinstance(got[kind], int | float) and not isinstance(got[kind], bool)
        trial.expect(number, "not-a-number", f"The cost of {kind} is {shorten(got[kind])}; expected nanoseconds.")
    return {kind: float(got[kind]) for kind in COSTS}


def judge_repeats(trial: Trial, log: Sequence[Run]) -> None:
    """The bench saw enough runs of each kind."""
    runs = Counter(r.kind for r in log)
    for kind in COSTS:
        trial.expect(
            runs[kind] >= MIN_RUNS,
            "too-few-runs",
            f"The bench saw {runs[kind]} run(s) of {kind!r}; expected at least {MIN_RUNS}.",
            "How would you notice that a single measurement was disturbed?",
        )


def judge_simulated(trial: Trial, *, disturbed: bool) -> None:
    """Let the answer measure a bench whose costs are known."""
    rng = trial.rng
    call_ns = rng.uniform(0.8, 3.0)
    truth = {"call": call_ns, "vdso": rng.uniform(5, 60), "syscall": rng.uniform(80, 900)}
    loop_ns = call_ns * rng.uniform(0.5, 1.0)
    with Bench.simulated(truth, loop_ns=loop_ns, seed=rng.randrange(1 << 30), disturbed=disturbed) as bench:
        got = judge_costs_shape(trial, trial.call(bench.path))
        judge_repeats(trial, bench.log)
        for kind in COSTS:
            _judge_cost(trial, bench.log, kind, truth[kind], got[kind])


def _judge_cost(trial: Trial, log: Sequence[Run], kind: str, truth: float, got: float) -> None:
    if abs(got - truth) <= _TOLERANCE * truth:
        return
    said = f"On a bench where {kind} costs {truth:.2f} ns, the answer was {got:.2f} ns (allowed: ±{_TOLERANCE:.0%})."
    for scale, unit in ((1e-3, "microseconds"), (1e-9, "seconds"), (1e-6, "milliseconds")):
        if abs(got - truth * scale) <= _TOLERANCE * truth * scale:
            trial.wrong("wrong-unit", f"{said} That would be right in {unit}.", "The result is in nanoseconds.")
    few = max((r.rounds for r in log if r.kind == kind), default=0)
    if few < _FEW_ROUNDS:
        hint = "Starting a run costs about 20 µs: how many rounds make that negligible?"
        trial.wrong("too-few-rounds", f"{said} The longest run of {kind} had {few} rounds.", hint)
    for misconception, method, hint in _METHODS:
        wrong = method(log, kind)
        if abs(got - wrong) <= 0.02 * abs(wrong):
            trial.wrong(misconception, said, hint)
    if got > 100 * truth:
        trial.wrong("not-per-round", said, "The bench tells the time of all rounds together.")
    trial.wrong("off", said, "Which of your numbers does the bench's log support? Print them before you combine them.")


def _witnessed(log: Sequence[Run]) -> dict[str, tuple[float, float]]:
    """Lowest and highest cost of each kind that the bench saw while the answer ran: a busy machine makes it wide."""
    loops = [r.ns / r.rounds for r in log if r.kind == "empty"] or [0.0]
    seen = {kind: [r.ns / r.rounds for r in log if r.kind == kind] or [0.0] for kind in COSTS}
    return {kind: (max(0.0, min(runs) - max(loops)), max(runs)) for kind, runs in seen.items()}


def judge_native(trial: Trial) -> None:
    """Let the answer measure this machine; relations only, two retries, nothing where there are no native loops.

    The witness is the bench's log of the answer's own runs: another measurement, a second later, may meet a machine
    that is ten times as busy.
    """
    try:
        bench = Bench.native()
    except CapabilityError:
        return
    with bench:
        for _ in range(3):
            bench.log.clear()
            got = judge_costs_shape(trial, trial.call(bench.path))
            log = list(bench.log)
            ordered = got["call"] < got["vdso"] < got["syscall"]
            if ordered:
                break
    judge_repeats(trial, log)
    yours = ", ".join(f"{kind} {got[kind]:.2f}" for kind in COSTS)
    for kind, (low, high) in _witnessed(log).items():
        trial.expect(
            low / 3 <= got[kind] <= high * 3,
            "far-from-the-witness",
            f"While your answer ran, one {kind} cost {low:.2f} to {high:.2f} ns; you say {got[kind]:.2f} ns.",
            "Which of your runs would give this number?",
        )
    trial.expect(ordered, "wrong-order", f"Measured {yours} ns; expected call < vdso < syscall.")
