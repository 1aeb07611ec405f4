"""Visible checks of lesson 8, *Hardware-assisted virtualization*.

The judgements are in the modules of this package, one per exercise, so that the hidden checks share them.
"""

from __future__ import annotations

from ...vcpu.two_stages import READ
from ...vcpu.virtqueue import Driver
from ..exercise import Exercise, Trial
from .exits import judge_count, judge_prediction, recorded
from .kvm import alphabet, judge_run, reader
from .processor import case, judge_machine
from .ring import Batch, judge_batch, judge_guest
from .stages import Ask, judge_translation, world
from .theft import judge_theft

__all__ = ["count_accesses", "ept", "hw_virt", "predict_exits", "ring", "run_guest", "steal"]

# ── hw_virt ──────────────────────────────────────────────────────────────────────────────────────────────────────────

hw_virt = Exercise("hw_virt", deadline_s=4.0)


@hw_virt.step("a laptop with the extension, where KVM runs a guest, is described")
def _laptop(trial: Trial) -> None:
    judge_machine(trial, case("laptop", trial.rng))


@hw_virt.step("a processor with the extension under a kernel without KVM is described")
def _no_module(trial: Trial) -> None:
    judge_machine(trial, case("no module", trial.rng))


@hw_virt.step("a device that may not be opened is told from one that may")
def _denied(trial: Trial) -> None:
    judge_machine(trial, case("denied", trial.rng))


# ── predict_exits ────────────────────────────────────────────────────────────────────────────────────────────────────

predict_exits = Exercise("predict_exits", deadline_s=4.0)


@predict_exits.step("the exits of a guest that computes, calls and ends are predicted")
def _calls(trial: Trial) -> None:
    judge_prediction(trial, [("add",), ("ecall", 1), ("ecall", 1), ("add",), ("ecall", 0)])


@predict_exits.step("the guest's own control registers are told from calls")
def _own_registers(trial: Trial) -> None:
    judge_prediction(trial, [("read", "sstatus"), ("write", "stvec"), ("fence",), ("ecall", 1), ("ecall", 0)])


@predict_exits.step("memory is told from devices, and repeats are counted")
def _stores(trial: Trial) -> None:
    times = trial.rng.randrange(3, 9)
    inner = [("store", 0x1FFFFF), ("store", 0x200000), ("store", 0x200001), ("ecall", 1)]
    judge_prediction(trial, [("repeat", times, inner), ("load", 0x20000), ("ecall", 0)])


# ── run_guest ────────────────────────────────────────────────────────────────────────────────────────────────────────

run_guest = Exercise("run_guest", deadline_s=30.0)


@run_guest.step("the guest that sends the alphabet is built, entered and left 27 times")
def _alphabet(trial: Trial) -> None:
    judge_run(trial, alphabet())


@run_guest.step("what the guest asks for with in, it gets")
def _reader(trial: Trial) -> None:
    judge_run(trial, reader(b"echo"))


# ── count_accesses ───────────────────────────────────────────────────────────────────────────────────────────────────

count_accesses = Exercise("count_accesses", deadline_s=10.0)


@count_accesses.step("64 bytes, one by one and with one instruction, are counted in QEMU's own log")
def _console(trial: Trial) -> None:
    judge_count(trial, recorded((("out", 0xE9, 64), ("rep outsb", 0xE9, 64))), "The log of 64 out and a rep outsb.")


@count_accesses.step("reads count, and instructions that touch no device do not")
def _reads(trial: Trial) -> None:
    steps = (("in", 0x3FD, 9), ("spin", 0, 50), ("out", 0x3F8, 5))
    judge_count(trial, recorded(steps), "The log of 9 reads of a serial port, 50 rounds of a loop and 5 writes.")


# ── ring ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

ring = Exercise("ring", deadline_s=6.0)


@ring.step("one buffer is printed and given back")
def _one(trial: Trial) -> None:
    driver = Driver(8, first=3)
    judge_batch(trial, driver, 0, Batch([[b"Hello from the guest\n"]]), "One buffer was offered.")


@ring.step("several buffers, one of them a chain of three parts, are printed in order")
def _several(trial: Trial) -> None:
    driver = Driver(8, first=5)
    text = [trial.rng.randbytes(trial.rng.randrange(5, 30)) for _ in range(5)]
    batch = Batch([[text[0]], text[1:4], [text[4]]])
    judge_batch(trial, driver, 0, batch, "Three buffers were offered, the second one in three parts.")


@ring.step("a real guest gets 4096 bytes out with at most 64 exits")
def _guest(trial: Trial) -> None:
    judge_guest(trial, trial.rng.randbytes(4096), 8, 64)


# ── steal ────────────────────────────────────────────────────────────────────────────────────────────────────────────

steal = Exercise("steal", deadline_s=4.0)


@steal.step("the device prints bytes of the host that lie behind the guest's memory")
def _stolen(trial: Trial) -> None:
    judge_theft(trial, 8)


# ── ept ──────────────────────────────────────────────────────────────────────────────────────────────────────────────

ept = Exercise("ept", deadline_s=4.0)


@ept.step("a mapped page is found through both stages")
def _mapped(trial: Trial) -> None:
    made, gva, _, _ = world(trial, "mapped")
    judge_translation(trial, Ask(made, gva, False, "A page that both stages map"))


@ept.step("a page that the guest has not mapped is a page fault, one that the host has taken away is an EPT violation")
def _faults(trial: Trial) -> None:
    made, gva, gpa, _ = world(trial, "faults")
    judge_translation(trial, Ask(made, gva ^ 1 << 12, False, "A page that the guest has not mapped"))
    made.back(gpa, 0)
    judge_translation(trial, Ask(made, gva, False, "A page that the guest maps and the host has taken away"))


@ept.step("stores need the right in both stages")
def _rights(trial: Trial) -> None:
    made, gva, gpa, _ = world(trial, "rights")
    judge_translation(trial, Ask(made, gva, True, "A page that may be written in both stages"))
    made.back(gpa, READ)
    judge_translation(trial, Ask(made, gva, False, "A page that the host allows to be read"))
    judge_translation(trial, Ask(made, gva, True, "A page that the host allows to be read only"))
