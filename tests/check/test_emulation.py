"""The checks of lesson 05 themselves: their truth, their record, and their defence."""

from __future__ import annotations

import random

import pytest

from autograder.answers.emulation import translating
from autograder.checks.emulation import polled, replay
from course.check.emulation import dispatching, programs, qemu_log, translate
from course.check.emulation.cases import case, changes, random_case, truths
from course.check.emulation.translating import execute_all, machine
from course.isa import rv32


def test_a_case_changes_what_its_instruction_says():
    """Registers, memory, pc and halted, each as a difference."""
    store = case("sw x5, 8(x6)", {5: 0x11223344, 6: 0x1800})
    halt = case("ebreak")
    assert [seen["halted"] for seen in truths([store, halt])] == [False, True]
    [seen] = truths([store])
    assert (seen["pc"], seen["regs"]) == (0x1004, {})
    assert set(seen["memory"]) <= {0x1808, 0x1809, 0x180A, 0x180B}


@pytest.mark.parametrize("name", rv32.MNEMONICS[:13])
def test_random_cases_of_every_kind_can_be_executed(name):
    """No case leaves the memory or holds what Unicorn refuses."""
    rng = random.Random(name)
    cases = [random_case(rng, name) for _ in range(20)]
    assert len(truths(cases)) == 20


def test_work_counts_blocks_by_content_and_by_fence():
    """A program that rewrites a function k times: k contents there, and a translation of the loop after each fence."""
    done = programs.work(programs.rewriting(random.Random(1)))
    several = [pc for pc, count in done.least.items() if count > 1]
    assert len(several) == 1
    assert done.most[several[0]] == done.least[several[0]]
    assert sum(done.most.values()) > sum(done.least.values())


def test_blocks_end_with_their_page():
    """No entry goes on over a multiple of 4096."""
    for entry in programs.work(programs.across_pages(random.Random(2))).entries:
        assert entry.pc // rv32.PAGE_BYTES == (entry.pc + 4 * len(entry.words) - 4) // rv32.PAGE_BYTES


def test_compilations_are_counted_from_outside():
    """A record of `run` that leaves translations out is not believed."""
    verdict = dispatching.run.examine(translating.translates_more_than_it_says, seed=4)
    assert verdict.misconception == "record-is-not-true"
    assert "Python compiled" in verdict.message


def test_texts_of_an_answer_cannot_reach_outside():
    """A text that wants more than arithmetic is refused with its line, and never run."""

    def escapes(memory, pc):
        return "def block(x, memory, cache):\n    return ().__class__.__base__.__subclasses__()"

    verdict = translate.examine(escapes, seed=1)
    assert verdict.misconception == "not-a-block"
    assert "__subclasses__" in verdict.message


def test_a_text_that_doubles_in_every_line_ends_in_a_memory_error():
    """What grows without multiplication meets the limit of the child that runs it."""
    from course.check.answer import call

    lines = ["def block(x, memory, cache):", "    y = x + x", *["    y = y + y"] * 30, "    return 4"]
    before = machine("ebreak")
    done = call(execute_all, [{"text": "\n".join(lines)}], [before], deadline_s=30)
    assert "MemoryError" in done.value[0]["failed"]


def test_a_written_log_holds_what_it_says():
    """Counts of the generator equal a plain count of lines."""
    log = qemu_log.write(random.Random(3), 3, data=False, prologue=False)
    code = [line for line in log.text.splitlines() if line.startswith("0x")]
    assert len(code) == log.guest + log.host
    assert log.text.count("IN: ") == log.blocks


def test_a_polled_text_comes_out_of_the_model():
    """What Unicorn's program writes, byte by byte, is what the port has sent, with polls between."""
    script = polled(b"hello")
    replies, sent = replay(script)
    assert sent == b"hello"
    assert replies.count(0) > 0


def test_changes_of_nothing_are_empty():
    """A state beside itself."""
    before = case("fence.i")
    assert changes(before, before) == {"pc": before["pc"], "regs": {}, "memory": {}, "halted": False}
