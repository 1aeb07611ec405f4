"""The guests, machines and processes that lesson 06's checks hold answers against, apart from any answer."""

from __future__ import annotations

import random
from pathlib import Path

import capstone
import psutil
import pytest

from autograder.checks import hypervisors as hidden
from course.check import Exercise, hypervisors
from course.check.hypervisors import guests, instructions, live, machines, pills, stacks, turns
from course.check.hypervisors.engines import here, in_turn, quick
from course.vcpu import Hlt, Vcpu, perfect

PIECES = (
    *instructions.BASIC, *instructions.LANDINGS, *instructions.LOOPS, *instructions.PRIVILEGED,
    *instructions.DISGUISED, *instructions.ODD,
)  # fmt: skip
GUESTS = {name: guest for name, guest in vars(machines).items() if isinstance(guest, machines.Guest)}


def test_each_exercise_has_a_hidden_check_of_its_name():
    """What students check is graded, and nothing else is."""
    graded = {name for name, value in vars(hidden).items() if isinstance(value, Exercise)}
    assert graded == set(hypervisors.__all__)
    for name in graded:
        visible, unseen = getattr(hypervisors, name), getattr(hidden, name)
        assert (visible.hidden, unseen.hidden) == (False, True)
        assert visible.steps
        assert unseen.steps


def test_every_quick_engine_is_used_in_turn():
    """However few pieces there are, no engine is forgotten when there are enough of them."""
    assert set(quick()) <= set(here())
    for count in range(1, 9):
        names = in_turn(random.Random(count), count)
        assert len(names) == count
        assert set(names) == set(quick()) or count < len(quick())


# ─── classify ────────────────────────────────────────────────────────────────


def label_of(engine, code):
    """Classify as the lesson's answer does."""
    with Vcpu.open(engine, code + b"\xf4") as cpu:
        end = cpu.regs.rip + len(code)
        found = cpu.run(instructions=200)
    if isinstance(found, Hlt) and found.rip == end:
        return "silent"
    kinds = {"Privileged": "privileged", "Io": "privileged", "Hlt": "privileged", "Undefined": "undefined"}
    return {**kinds, "Preempted": "endless"}.get(found.reason, "fault")


@pytest.mark.parametrize("piece", PIECES, ids=lambda piece: piece.text)
def test_a_piece_is_on_every_engine_what_it_is_called(piece):
    """The label of each piece is what ring 3 makes of it, whatever the processor is made of."""
    found = {engine: label_of(engine, bytes.fromhex(piece.code)) for engine in here()}
    assert found == dict.fromkeys(here(), piece.label)


def test_privileged_pieces_run_in_ring_0():
    """What is called privileged is no fault of the instruction: ring 0 gets through with it."""
    for text in ("cli", "sti", "in al, 0x60", "out dx, ax", "mov cr3, r9", "clts", "mov dx, 0x3f8; out dx, al"):
        [code] = {
            bytes.fromhex(piece.code) for piece in (*instructions.BASIC, *instructions.PRIVILEGED) if piece.text == text
        }
        assert perfect.run(code)["end"] == "end of code", text


def test_invented_processors_have_every_kind_of_culprit():
    """Wrong definitions give other answers on them than the right one, each in its own way."""
    trial = type("Trial", (), {"rng": random.Random(5)})
    rows = instructions.invented(trial)
    right = instructions.violations(rows)
    wrong = [frozenset(definition(rows)) for _, definition, _ in instructions._WRONG]
    assert frozenset(right) not in wrong
    assert len(set(wrong)) == len(wrong)


# ─── vmm ─────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", GUESTS)
def test_a_guest_s_listing_says_what_its_bytes_are(name):
    """The disassembly beside the bytes is capstone's."""
    disassembler = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    listing = GUESTS[name].listing.strip().splitlines()
    code = GUESTS[name].code
    found = [f"{i.mnemonic} {i.op_str}".strip() for i in disassembler.disasm(code, 0)]
    assert len(found) == len(listing)
    for line, mnemonic in zip(listing, found, strict=True):
        assert line.partition(";")[2].split()[0] in (mnemonic.split()[0], "jmp")


@pytest.mark.parametrize("seed", range(6))
def test_random_guests_do_in_ring_0_what_their_model_says(seed):
    """Unicorn in ring 0, which executes control registers and flags by itself, agrees with the model."""
    guest = guests.random_guest(random.Random(seed), length=25, controls=("cr2", "cr3"), msrs=False)
    ran = perfect.run(guest.code, guest.keys)
    # cr0 and cr4 are not zero on the reference; no instruction of these guests touches them.
    expected = {name: value for name, value in guest.registers.items() if name not in ("cr0", "cr4")}
    assert {name: ran["registers"][name] for name in expected} == expected
    assert (ran["end"], ran["console"]) == ("hlt", guest.console)
    assert bool(ran["registers"]["rflags"] & machines.IF) == bool(guest.flag)


def test_random_guests_meet_everything():
    """Over some seeds all kinds of exits, sizes and directions come up."""
    texts = " ".join(guests.random_guest(random.Random(seed)).text for seed in range(20))
    for word in ("out", "in al", "in ax", "in eax", "wrmsr", "rdmsr", "cli", "sti", "cr0", "cr4", "0x60", "hlt"):
        assert word in texts


@pytest.mark.parametrize("machine", [turns.printer("q", 3), turns.keeper(0x7000, 1), turns.keeper(0x9000, 0)])
def test_a_scheduled_guest_comes_to_its_end_alone(machine):
    """Guests that are to halt do, with their own console and registers, in ring 0."""
    ran = perfect.run(machine.code)
    assert (ran["end"], ran["console"], ran["registers"]["cr3"]) == ("hlt", machine.console, machine.cr3)
    assert bool(ran["registers"]["rflags"] & machines.IF) == bool(machine.flag)


# ─── red_pill ────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("code", "alone", "naive"),
    [("8c c8 83 e0 03 f4", 0, 3), ("fa 9c 58 f4", 2, 0x202), ("fb 9c 58 f4", 0x202, 0x202), ("31 c0 f4", 0, 0)],
)
def test_both_worlds_differ_where_the_manual_says(code, alone, naive):
    """The ring in cs and the interrupt flag betray a naive hypervisor; nothing else does here."""
    raw = bytes.fromhex(code)
    assert pills.alone(raw)["registers"]["rax"] == alone
    for engine in here():
        assert pills.naive(engine, raw) == {"end": "hlt", "rax": naive}


def test_code_that_crashes_the_emulator_costs_nothing():
    """Code may switch protection off under the emulator's feet; the check goes on."""
    assert pills.alone(bytes.fromhex("31 c0 0f 22 c0 8e d8 ff e0"))["end"] != "hlt"


# ─── place ───────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("kind", "labels"),
    [
        ("monolith", [(None, 1)]),
        ("service guest", [(None, 1)]),
        ("module", [("K", 2), (None, 1)]),
        ("other world", [("K", 2)]),
    ],
)
def test_a_stack_has_the_types_that_its_structure_allows(kind, labels):
    """Only a module of the first kernel supports both types, each with its own argument."""
    stack = stacks.build(kind, ["K", "M", "G", "P", "V", ""], random.Random(1))
    assert stacks.accepted(stack) == labels
    names = {part["name"] for part in stack["parts"]}
    assert {who for _, who in stack["record"]} <= names
    assert {part["loaded_by"] for part in stack["parts"]} <= names | {stacks.FIRMWARE}


# ─── identify ────────────────────────────────────────────────────────────────


@pytest.mark.qemu
def test_processes_of_each_kind_run_and_end():
    """At least the plain one and QEMU's two run everywhere; afterwards none is left."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with live.running(live.KINDS) as found:
        labels = {kind.label for _, kind in found}
        for pid, kind in found:
            links = {str(fd.readlink()) for fd in Path(f"/proc/{pid}/fd").iterdir()}
            assert ("anon_inode:kvm-vm" in links) == (kind.label == "kvm")
    assert {"process", "qemu-user", "tcg"} <= labels
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


@pytest.mark.qemu
def test_disguised_processes_are_not_what_they_call_themselves():
    """Names say one thing, the kernel another."""
    with live.running([live.IMPOSTOR, live.RENAMED, live.FELL_BACK]) as found:
        seen = {kind.text: Path(f"/proc/{pid}") for pid, kind in found}
        assert seen[live.IMPOSTOR.text].joinpath("comm").read_text().startswith("qemu-system")
        assert Path(seen[live.RENAMED.text] / "exe").readlink().name == "nginx"
        assert b"accel=kvm" in seen[live.FELL_BACK.text].joinpath("cmdline").read_bytes()


def by_one_namespace(pid):
    """Look at the mount namespace only."""
    same = Path(f"/proc/{pid}/ns/mnt").readlink() == Path("/proc/self/ns/mnt").readlink()
    return "process" if same else "container"


def by_cgroup(pid):
    """Look for the name of a product."""
    return "container" if "docker" in Path(f"/proc/{pid}/cgroup").read_text() else "process"


@pytest.mark.parametrize(
    ("answer", "misconception"), [(by_one_namespace, "one-namespace-is-enough"), (by_cgroup, "container-overlooked")]
)
def test_containers_are_not_told_by_one_sign(answer, misconception):
    """Where containers can be started, answers that look at one sign of them are told so."""
    check = Exercise("identify")

    @check.step("containers of two kinds are told from a process")
    def _(trial):
        live.judge_identities(trial, (live.PLAIN, live.CONTAINER, live.NARROW))

    with live.running([live.NARROW]) as found:
        if not found:
            pytest.skip("this system refuses user namespaces")
    assert check.examine(answer).misconception == misconception


def test_a_kind_that_cannot_be_started_is_left_out():
    """A machine without a program goes on without its kind."""
    missing = live.Kind("tcg", "nothing", lambda _: ["no-such-program-anywhere"])
    refused = live.Kind("tcg", "ends at once", lambda _: live._python("raise SystemExit(1)"))
    with live.running([missing, refused, live.PLAIN]) as found:
        assert [kind for _, kind in found] == [live.PLAIN]
