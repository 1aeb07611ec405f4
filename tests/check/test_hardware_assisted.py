"""The judgements of lesson 08, apart from any answer: their own predictions against what runs."""

from __future__ import annotations

import dataclasses
import random
import shutil

import pytest

from autograder.checks import hardware_assisted as hidden
from course.check import Exercise, State, hardware_assisted
from course.check.hardware_assisted import exits, processor, stages
from course.vcpu import riscv_h
from course.vcpu.two_stages import PAGE, READ, TwoStages

needs_riscv = pytest.mark.skipif(shutil.which(riscv_h.QEMU) is None, reason=f"{riscv_h.QEMU} is not installed")


def test_each_exercise_has_a_hidden_check_of_its_name():
    """What students check is graded, and nothing else is."""
    graded = {name for name, value in vars(hidden).items() if isinstance(value, Exercise)}
    assert graded == set(hardware_assisted.__all__)
    for name in graded:
        visible, unseen = getattr(hardware_assisted, name), getattr(hidden, name)
        assert (visible.hidden, unseen.hidden) == (False, True)
        assert visible.steps
        assert unseen.steps


# ─── predict_exits ───────────────────────────────────────────────────────────


@pytest.mark.qemu
@needs_riscv
@pytest.mark.parametrize("seed", range(6))
def test_the_lesson_s_rules_are_what_qemu_measures(seed):
    """Random guests leave as often, and for the reasons, that the rules say."""
    steps = [*exits.program(random.Random(seed), 8), ("ecall", 0)]
    assert exits.measured(steps) == exits.imagine(steps)


@pytest.mark.qemu
@needs_riscv
@pytest.mark.parametrize("register", ["mstatus", "hgatp"])
def test_the_host_s_registers_end_a_guest_as_predicted(register):
    """The rules for what a guest may not touch."""
    steps = [("ecall", 1), ("write", register), ("ecall", 1)]
    assert exits.measured(steps) == exits.imagine(steps)


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(exits.Mistakes)])
def test_each_mistake_of_a_prediction_shows(field):
    """There is a guest for which the mistake gives another histogram."""
    rest = [("store", 0x20000), ("store", 0x200000), ("repeat", 3, [("ecall", 1)])]
    guests = [[("read", "sstatus"), *rest, ("read", last), ("ecall", 2)] for last in ("mstatus", "hgatp")]
    guests.append([("repeat", 2, [("ecall", 0)])])
    wrong = exits.Mistakes(**{field: True})
    assert any(exits.imagine(steps, wrong) != exits.imagine(steps) for steps in guests)


# ─── ept ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("seed", range(5))
def test_the_reference_finds_what_was_mapped(seed):
    """A page's host address is the one that the world gave it when it was mapped."""
    rng = random.Random(seed)
    world = TwoStages(seed)
    for _ in range(5):
        gva, gpa = rng.getrandbits(47), rng.randrange(0x100, 0x7FFF) * PAGE
        host = world.back(gpa)
        world.map(gva, gpa)
        ask = stages.Ask(world, gva, bool(rng.getrandbits(1)), "a page")
        assert stages.translate(ask) == ("mapped", host + gva % PAGE)
        assert world.p2m[gpa] == host != gpa


def test_the_reference_tells_whose_fault_it_is():
    """Taken away by the host: a violation of that gpa; by the guest: its page fault; in both cases for stores only."""
    world, gva, gpa = TwoStages(1), 0x7FFF12345678, 0x200000
    world.back(gpa)
    entries = world.map(gva, gpa)
    load, store = (stages.Ask(world, gva, write, "a page") for write in (False, True))
    world.back(gpa, READ)
    assert [stages.translate(ask)[0] for ask in (load, store)] == ["mapped", "ept violation"]
    assert stages.translate(store)[1] == gpa + 0x678
    world.set_guest_word(entries[1], world.guest_word(entries[1]) & ~2)
    assert [stages.translate(ask) for ask in (load, store)][1] == ("page fault", gva)
    world.back(entries[2], 0)
    assert stages.translate(load) == ("ept violation", entries[2])


# ─── hw_virt, count_accesses, run_guest ──────────────────────────────────────


def test_cases_differ_by_seed_and_keep_their_answer():
    """The texts vary, what is right does not."""
    first, second = (processor.case("nested", random.Random(seed)) for seed in (1, 2))
    assert first.texts != second.texts
    assert first.expected == second.expected == {"extension": "svm", "in_a_vm": True, "kvm": "usable"}
    assert set(first.blame) == set(first.expected)


def test_only_what_lies_between_the_marks_is_the_sector_s_own():
    """Firmware, marks and lines of other kinds are left out."""
    line = "memory_region_ops_write cpu 0 mr 0x1 addr {} value {} size 1 name '{}'"
    texts = [("0x80", "0x1", "ioport80"), ("0x80", "0xb8", "ioport80"), ("0xe9", "0x41", "a b"), ("0xf4", "0x0", "end")]
    log = "\n".join(line.format(*text) for text in texts) + "\nsomething else"
    assert exits.own(log) == [("memory_region_ops_write", 0xE9, 0x41, "a b")]


def test_an_answer_that_is_missing_is_not_answered_yet():
    """Every exercise's first step says so, before anything else is looked at."""

    def untouched(*_):
        raise NotImplementedError

    for name in ("hw_virt", "ring", "ept", "run_guest"):
        assert getattr(hardware_assisted, name).examine(untouched).state is State.UNANSWERED
