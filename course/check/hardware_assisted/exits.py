"""Judgements on `predict_exits` and `count_accesses`: predictions and counts against what QEMU did."""

from __future__ import annotations

import dataclasses
import functools
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ...error import CapabilityError
from ...vcpu import device_log, riscv_guest
from ...vcpu.riscv_guest import Step
from ...vcpu.riscv_h import CAUSES, GUEST_BYTES, HYPERCALL, LOAD_FAULT, STORE_FAULT
from ..answer import Outcome
from ..exercise import Trial

ILLEGAL, VIRTUAL = 2, 22

# ── predict_exits ────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """What a wrong prediction believes."""

    privileged: bool = False
    stores: bool = False
    devices_silent: bool = False
    once: bool = False
    goes_on: bool = False
    last_lost: bool = False
    host_registers_free: bool = False
    same_cause: bool = False
    swapped: bool = False
    edge_lost: bool = False
    repeats_lost: bool = False
    end_stays_inside: bool = False


def imagine(steps: Sequence[Step], wrong: Mistakes = Mistakes()) -> dict[int, int]:
    """Predict a histogram from the lesson's rules, or with mistakes."""
    counts: Counter[int] = Counter()
    for cause, ends in _causes(steps, wrong):
        if not (wrong.last_lost and ends):
            counts[cause] += 1
        if ends and not wrong.goes_on:
            break
    return dict(counts)


def _causes(steps: Sequence[Step], wrong: Mistakes) -> Iterator[tuple[int, bool]]:
    for step in steps:
        match step:
            case ("repeat", times, inner):
                for _ in range(0 if wrong.repeats_lost else 1 if wrong.once else times):
                    for cause, ends in _causes(inner, wrong):
                        yield cause, ends and not wrong.end_stays_inside
                        if ends and wrong.end_stays_inside:
                            break
            case ("ecall", number):
                yield HYPERCALL, number == 0
            case ("read" | "write", "mstatus" | "hgatp" as register) if not wrong.host_registers_free:
                yield (VIRTUAL if register == "hgatp" and not wrong.same_cause else ILLEGAL), True
            case ("read" | "write" | "fence", *_) if wrong.privileged:
                yield ILLEGAL, False
            case ("store", address) if _leaves(address, wrong):
                yield LOAD_FAULT if wrong.swapped else STORE_FAULT, False
            case ("load", address) if _leaves(address, wrong):
                yield STORE_FAULT if wrong.swapped else LOAD_FAULT, address >= GUEST_BYTES


def _leaves(address: int, wrong: Mistakes) -> bool:
    """Whether an access leaves the guest."""
    outside = address > GUEST_BYTES if wrong.edge_lost else address >= GUEST_BYTES
    return (outside and not wrong.devices_silent) or wrong.stores


_KNOWN = [
    (Mistakes(privileged=True), "privileged-means-exit",
     "Reads and writes of the guest's own control registers were counted as exits.",
     "That was so with trap-and-emulate. What does the hypervisor extension give the guest of its own?"),
    (Mistakes(stores=True), "every-store-exits",
     "Accesses to the guest's own memory were counted as exits.",
     "Where does the second stage of translation lead for an address below 2 MiB?"),
    (Mistakes(devices_silent=True), "devices-do-not-exit",
     "Accesses outside of the guest's memory were not counted.",
     "Nothing is mapped there: what happens to an access that the second stage cannot translate?"),
    (Mistakes(edge_lost=True), "first-address-outside-lost",
     "The access to 0x200000 itself was not counted.",
     "2 MiB are the addresses from 0 to 0x1fffff. Which is the first one that is not memory?"),
    (Mistakes(swapped=True), "load-and-store-exchanged",
     "The causes of loads and stores were exchanged.",
     "21 is the fault of a load, 23 that of a store."),
    (Mistakes(repeats_lost=True), "repeats-left-out",
     "What happens within a repeat was left out.",
     "A repeat holds a list of steps like the one that you are going through."),
    (Mistakes(end_stays_inside=True), "end-stays-in-the-repeat",
     "The guest ended within a repeat, and the prediction went on: with the next round, or behind the repeat.",
     "Who tells the caller, in your function, that the guest has ended?"),
    (Mistakes(once=True), "repeat-counted-once",
     "The steps of a repeat were counted once.",
     "The processor does not see a loop: it leaves again at each pass."),
    (Mistakes(goes_on=True), "goes-on-after-the-end",
     "Steps behind the guest's end were counted.",
     "Which exits does this hypervisor not return from? The table says."),
    (Mistakes(last_lost=True), "last-exit-lost",
     "The exit that ends the guest was not counted.",
     "Ending is a hypercall, or a fault, like others: the processor leaves the guest for it."),
    (Mistakes(host_registers_free=True), "host-s-registers-free",
     "An access to a control register that is not the guest's was not counted.",
     "sstatus, stvec and satp exist twice, one for the guest. Do mstatus and hgatp?"),
    (Mistakes(same_cause=True), "one-cause-for-both",
     "hgatp and mstatus were given the same cause.",
     "Run both: an instruction that only a hypervisor may use has a cause of its own, 22."),
]  # fmt: skip


@functools.lru_cache(maxsize=64)
def _measured(text: str, steps: tuple[Step, ...]) -> dict[int, int]:
    del text
    done = riscv_guest.measure(steps)
    if "still running" in done.ended:
        raise CapabilityError("RISC-V's hypervisor extension", done.ended, "Run it when the machine is less busy.")
    return riscv_guest.histogram(done)


def measured(steps: Sequence[Step]) -> dict[int, int]:
    """Run the guest for real; the same guest is run once."""
    return dict(_measured(repr(steps), _frozen(steps)))


def _frozen(steps: Sequence[Step]) -> tuple[Step, ...]:
    return tuple((s[0], s[1], _frozen(s[2])) if s[0] == "repeat" else tuple(s) for s in steps)


def judge_prediction(trial: Trial, steps: Sequence[Step], *, real: bool = True) -> None:
    """Compare a prediction with the run of the same guest under QEMU's hypervisor extension.

    Args:
        trial: the trial.
        steps: the guest.
        real: whether to run it; else the lesson's rules say what is right, for guests that `riscv_guest` refuses.
    """
    done = trial.attempt(list(steps))
    if not real and done.outcome is Outcome.RAISED and done.error in ("UsageError", "CapabilityError"):
        why = done.detail.split(" (line ")[0]
        trial.wrong(
            "measured-not-predicted",
            f"The guest: {riscv_guest.describe(steps)}.\nNo machine can be asked about this one: {why:.90} …",
            "Predict from the steps and the table: a prediction is a function of plain data, and runs nothing.",
        )
    got: Any = trial.value_of(done, "predict_exits(…)")
    if not isinstance(got, dict) or not all(type(k) is int and type(v) is int for k, v in got.items()):
        trial.wrong(
            "not-a-histogram", f"predict_exits returned {got!r}.", "Return a dict: number of the cause → count."
        )
    got = {cause: n for cause, n in got.items() if n}
    truth = measured(steps) if real else imagine(steps)
    if got == truth:
        return
    source = "QEMU measured" if real else "By the table it makes"
    what = f"The guest: {riscv_guest.describe(steps)}.\n{source} {told(truth)}; you predicted {told(got)}.\n"
    for mistakes, misconception, message, hint in _KNOWN:
        if imagine(steps, mistakes) == got:
            trial.wrong(misconception, what + message, hint)
    trial.wrong(
        "wrong-prediction", what.rstrip(), "Take the steps one by one: which of them leaves the guest, and why?"
    )


def told(counts: dict[int, int]) -> str:
    """A histogram in words."""
    return ", ".join(f"{n} × {CAUSES.get(c, 'unknown')} ({c})" for c, n in sorted(counts.items())) or "no exit"


def program(rng: random.Random, length: int, *, depth: int = 2) -> list[Step]:
    """A random guest that runs to its end: harmless steps, hypercalls, stores to devices, repeats."""
    steps: list[Step] = []
    for _ in range(length):
        kind = rng.choice(["add", "read", "write", "fence", "store", "memory", "load", "ecall", "repeat"])
        match kind:
            case "add" | "fence":
                steps.append((kind,))
            case "read" | "write":
                steps.append((kind, rng.choice(["sstatus", "stvec", "sscratch"])))
            case "store":
                steps.append(("store", GUEST_BYTES + rng.randrange(0x10000)))
            case "memory":
                steps.append(("store", rng.randrange(riscv_guest.CODE_BYTES, GUEST_BYTES)))
            case "load":
                steps.append(("load", rng.randrange(riscv_guest.CODE_BYTES, GUEST_BYTES)))
            case "ecall":
                steps.append(("ecall", rng.randrange(1, 9)))
            case _ if depth:
                steps.append(("repeat", rng.randrange(2, 6), program(rng, 3, depth=depth - 1)))
    return steps


# ── count_accesses ───────────────────────────────────────────────────────────────────────────────────────────────────

_LINE = re.compile(r"(memory_region_ops_(?:read|write)) .*\baddr (0x[0-9a-f]+) value (0x[0-9a-f]+) .*name '(.*)'")
BootSteps = tuple[tuple[str, int, int], ...]


def accesses(log: str) -> list[tuple[str, int, int, str]]:
    """Every line of a log as (event, address, value, device)."""
    found = (_LINE.search(line) for line in log.splitlines())
    return [(m[1], int(m[2], 16), int(m[3], 16), m[4]) for m in found if m]


def is_begin(access: tuple[str, int, int, str]) -> bool:
    """Whether an access is the boot sector's first."""
    event, address, value, _ = access
    return event.endswith("write") and (address, value) == (device_log.BEGIN_PORT, device_log.BEGIN)


def own(log: str) -> list[tuple[str, int, int, str]]:
    """The accesses of the boot sector: those between its two marks."""
    lines = accesses(log)
    begin = next(n for n, line in enumerate(lines) if is_begin(line))
    end = next(n for n, line in enumerate(lines) if n > begin and line[1] == device_log.END_PORT)
    return lines[begin + 1 : end]


def _names(lines: list[tuple[str, int, int, str]]) -> dict[str, int]:
    return dict(Counter(line[3] for line in lines))


def _collapsed(log: str) -> dict[str, int]:
    lines = own(log)
    return _names([line for n, line in enumerate(lines) if n == 0 or lines[n - 1] != line])


def _from_any_post_code(log: str) -> dict[str, int]:
    lines = accesses(log)
    begin = next(n for n, line in enumerate(lines) if line[1] == device_log.BEGIN_PORT)
    end = next(n for n, line in enumerate(lines) if n > begin and line[1] == device_log.END_PORT)
    return _names(lines[begin + 1 : end])


def _from_any_0xb8(log: str) -> dict[str, int]:
    lines = accesses(log)
    begin = next(n for n, line in enumerate(lines) if line[2] == device_log.BEGIN)
    end = next(n for n, line in enumerate(lines) if n > begin and line[1] == device_log.END_PORT)
    return _names(lines[begin + 1 : end])


def _behind_any_post_code(log: str) -> dict[str, int]:
    lines = accesses(log)
    begin = next(n for n, line in enumerate(lines) if line[1] == device_log.BEGIN_PORT)
    end = next(n for n, line in enumerate(lines) if n > begin and line[1] == device_log.END_PORT)
    return _names([line for line in lines[begin + 1 : end] if line[1] != device_log.BEGIN_PORT])


def _from_the_last_words(log: str) -> dict[str, int]:
    words = f"addr {device_log.BEGIN_PORT:#x} value {device_log.BEGIN:#x}"
    rest = accesses(log[log.rindex(words) :])
    return _names([line for line in rest if line[1] != device_log.END_PORT])


def _with_marks(log: str) -> dict[str, int]:
    lines = accesses(log)
    return _names(lines[next(n for n, line in enumerate(lines) if is_begin(line)) :])


def _with_last_mark(log: str) -> dict[str, int]:
    lines = accesses(log)
    return _names(lines[next(n for n, line in enumerate(lines) if is_begin(line)) + 1 :])


_COUNTED: list[tuple[Callable[[str], dict[str, int]], str, str, str]] = [
    (lambda log: _names(accesses(log)), "firmware-counted",
     "The accesses of the firmware, before the boot sector began, were counted too.",
     "Which line shows that the boot sector has begun? Count from there."),
    (_with_marks, "marks-counted",
     "The two marks, the write to port 0x80 and the one to 0xf4, were counted.",
     "The marks frame the experiment; they are not part of it."),
    (_with_last_mark, "last-mark-counted", "The last mark, the write to port 0xf4, was counted.",
     "The marks frame the experiment; they are not part of it."),
    (_collapsed, "equal-lines-are-one",
     "Equal lines that follow each other were counted once.",
     "Each line is one access that somebody had to answer, however often it is repeated."),
    (lambda log: _names([a for a in own(log) if a[0].endswith("write")]), "reads-forgotten",
     "Only writes were counted.", "A guest that reads a device waits for an answer, too."),
    (_from_any_post_code, "any-write-to-port-80",
     "The count began at another write to port 0x80: firmware tells its progress there.",
     "The mark is a port *and* a value."),
    (_behind_any_post_code, "any-write-to-port-80",
     "The count began at another write to port 0x80: firmware tells its progress there.",
     "The mark is a port *and* a value."),
    (_from_any_0xb8, "any-write-of-b8",
     "The count began at another line with the value 0xb8.",
     "The mark is a port *and* a value."),
    (_from_the_last_words, "line-of-another-kind",
     "The count began at a line that is no access, though it contains the same words.",
     "Lines about accesses begin with memory_region_ops_: QEMU writes its warnings into the same file."),
    (lambda log: {f"'{name}'": n for name, n in _names(own(log)).items()}, "quotes-kept",
     "The names have their quotes still.", "The device is what stands between the quotes."),
]  # fmt: skip


@functools.lru_cache(maxsize=32)
def recorded(steps: BootSteps) -> str:
    """The log of a boot sector; the same one is run once."""
    return device_log.record(steps)


def judge_count(trial: Trial, log: str, what: str) -> None:
    """Judge the count of one log."""
    got: Any = trial.call(log)
    expected = _names(own(log))
    if not isinstance(got, dict):
        trial.wrong("not-a-dict", f"count_accesses returned {type(got).__name__}.", "Return a dict: device → count.")
    if got == expected:
        return
    for count, misconception, message, hint in _COUNTED:
        if got == count(log):
            trial.wrong(misconception, f"{what} {message}\nexpected {expected}, obtained {brief(got)}", hint)
    trial.equal(expected, got, "wrong-count", what, "Print the lines around the first mark and count by hand.")


def brief(counts: dict[Any, Any]) -> str:
    """The largest three entries of a histogram."""
    largest = sorted(counts.items(), key=lambda item: (-int(item[1]), str(item[0])))[:3]
    rest = f" and {len(counts) - 3} more" if len(counts) > 3 else ""
    return ", ".join(f"{name!r}: {n}" for name, n in largest) + rest if counts else "{}"
