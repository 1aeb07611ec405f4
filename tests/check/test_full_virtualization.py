"""What the checks of lesson 07 rest on: QEMU's word about Linux, a perfect machine, guests that are worth a check."""

import random
from pathlib import Path

import pytest

from autograder.checks import full_virtualization as hidden
from course.check import full_virtualization as visible
from course.check.full_virtualization import linux, patching, shadowing, translation
from course.vcpu import flawed, sensitive
from course.vcpu.deprivileged import Deprivileged


@pytest.mark.qemu
def test_a_stopped_linux_has_addresses_of_every_kind():
    """Small pages, large pages, holes and impossible addresses are there, and the file is as long as the memory."""
    found = linux.snapshot("visible")
    assert found is linux.snapshot("visible")
    with found.file() as path:
        assert Path(path).stat().st_size == linux.RAM_BYTES
    assert not Path(path).exists()
    assert set(found.truth["not canonical"].values()) == {None}
    assert set(found.truth["nothing"].values()) == {None}
    assert None not in found.truth["kernel text"].values()
    assert None not in found.truth["descriptor tables"].values()
    assert sum(len(addresses) for addresses in found.truth.values()) >= 60


@pytest.mark.qemu
def test_the_tables_in_the_file_lead_to_small_and_to_large_pages():
    """Both kinds of page are among the addresses: whoever ignores PS fails, whoever ignores level 1 too."""
    found = linux.snapshot("visible")
    with found.file() as path, Path(path).open("rb") as ram:

        def levels(address):
            table, read = found.cr3, 0
            for level in (4, 3, 2, 1):
                ram.seek((table & 0xFFFFFFFFFF000) + 8 * (address >> (12 + 9 * (level - 1)) & 511))
                table, read = int.from_bytes(ram.read(8), "little"), read + 1
                if not table & 1 or (level < 4 and table & 0x80):
                    break
            return read

        assert {levels(address) for address in found.truth["kernel text"]} == {3}
        assert 4 in {levels(address) for address in found.truth["descriptor tables"]}


@pytest.mark.parametrize("seed", range(3))
def test_a_perfect_machine_is_what_the_builders_promise(seed):
    """Looking at each instruction before it runs gives what construction says, with data among the code."""
    guest = sensitive.switching(random.Random(seed), 6)
    assert patching.perfect("best", guest.code)["output"] == guest.output


@pytest.mark.parametrize("seed", range(5))
def test_a_sweep_desyncs_on_switching_guests(seed):
    """The guests of `translate` are worth it: a linear sweep ruins each of them."""
    guest = sensitive.switching(random.Random(seed))
    swept = flawed.sweep(guest.code)
    with Deprivileged("best", swept["code"], swept["table"]) as machine:
        seen = machine.run()
    assert (seen["ended"], seen["output"]) != ("hlt", guest.output)


@pytest.mark.parametrize("seed", range(5))
def test_guests_to_rewrite_end_as_they_are(seed):
    """Every guest of `rewrite` halts, and its flag is the virtual IF that trapping gives."""
    rng = random.Random(seed)
    cases = [translation.PLAIN, translation.numbers(rng), translation.flags(rng), translation.registers(rng)]
    for case in [*cases, translation.loop(rng, 20, padding=10)]:
        code = translation.image(case)
        seen = translation.run_with_flag("best", code)
        assert seen["ended"] == "hlt"
        assert seen["flag"] == 0xFF


def test_shadowed_guests_have_faults_of_both_kinds():
    """The longer lives of the hidden check give the guest faults of its own, and announce changes both ways."""
    guest = hidden.life(random.Random(1), 60)
    assert guest.injected
    assert {how for _, how in guest.stale} == {"invlpg", "cr3"}
    assert not shadowing.two_pages(random.Random(1)).injected


@pytest.mark.parametrize("name", visible.__all__)
def test_each_exercise_has_a_visible_and_a_hidden_check(name):
    """Both carry the name of the student's function, and a function that does nothing is told so."""
    assert getattr(visible, name).name == getattr(hidden, name).name == name

    def untouched(*_):
        raise NotImplementedError

    assert getattr(visible, name).examine(untouched).misconception == "unanswered"
