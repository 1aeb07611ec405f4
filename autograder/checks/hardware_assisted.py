"""Hidden checks of lesson 8, *Hardware-assisted virtualization*."""

from __future__ import annotations

import functools
from collections.abc import Callable

from course.check import Exercise, Trial
from course.check.hardware_assisted.exits import judge_count, judge_prediction, program, recorded
from course.check.hardware_assisted.kvm import alphabet, judge_run, memory_mapped, reader, triple_fault, words_of_two
from course.check.hardware_assisted.processor import case, judge_machine
from course.check.hardware_assisted.ring import Attack, Batch, judge_attack, judge_batch, kick
from course.check.hardware_assisted.stages import Ask, judge_translation, world
from course.check.hardware_assisted.theft import judge_theft
from course.vcpu.riscv_guest import Step
from course.vcpu.two_stages import PRESENT, READ, WRITE, TwoStages
from course.vcpu.virtqueue import MEMORY_BYTES, NEXT, Driver

hw_virt = Exercise("hw_virt", deadline_s=4.0, hidden=True)
predict_exits = Exercise("predict_exits", deadline_s=4.0, hidden=True)
run_guest = Exercise("run_guest", deadline_s=30.0, hidden=True)
count_accesses = Exercise("count_accesses", hidden=True)
ring = Exercise("ring", deadline_s=4.0, hidden=True)
steal = Exercise("steal", deadline_s=4.0, hidden=True)
ept = Exercise("ept", deadline_s=4.0, hidden=True)

# ── hw_virt ───────────────────────────────────────────────────────────────────────────────────────────────────────────

_MACHINES = {
    "KVM that runs a guest without the flag counts, and a guest is told from a bare machine": "nested without flag",
    "a machine with nested virtualization is both: in a VM, and able to have some": "nested",
    "an extension that somebody else holds is refused": "busy",
    "a guest that cannot be run is no success": "internal error",
    "a device file without a KVM behind it is an absent one": "stale device",
    "the mode of the device decides nothing": "wide open",
    "a device file that a kernel left behind is an absent one": "left over",
    "the flag is looked for among the flags, not in lines that resemble them": "vmx flags",
    "flags that resemble the flag are told from it": "svm parts",
    "words of other lines are passed over": "model name",
}


def _machine(name: str) -> Callable[[Trial], None]:
    return lambda trial: judge_machine(trial, case(name, trial.rng))


for _sentence, _name in _MACHINES.items():
    hw_virt.step(_sentence)(_machine(_name))


# ── predict_exits ─────────────────────────────────────────────────────────────────────────────────────────────────────


@predict_exits.step("repeats within repeats are counted")
def _nested_repeats(trial: Trial) -> None:
    outer, inner = trial.rng.randrange(2, 7), trial.rng.randrange(2, 7)
    within: list[Step] = [("repeat", inner, [("store", 0x200000 + outer), ("add",)]), ("ecall", 5), ("write", "satp")]
    judge_prediction(trial, [("repeat", outer, within), ("ecall", 0)])


@predict_exits.step("what lies behind the guest's end is not executed")
def _behind_the_end(trial: Trial) -> None:
    judge_prediction(
        trial, [("ecall", 1), ("repeat", 3, [("ecall", 2), ("ecall", 0), ("ecall", 3)]), ("store", 0x300000)]
    )
    judge_prediction(trial, [("ecall", 1), ("load", 0x200000), ("ecall", 1), ("ecall", 0)])


@predict_exits.step("control registers of the host end the guest, each with its cause")
def _host_registers(trial: Trial) -> None:
    rest: list[Step] = [("ecall", 1), ("ecall", 0)]
    for register in ("mstatus", "hgatp"):
        judge_prediction(trial, [("ecall", 1), (trial.rng.choice(["read", "write"]), register), *rest])


@predict_exits.step("random guests are predicted")
def _random_guests(trial: Trial) -> None:
    for _ in range(4):
        judge_prediction(trial, [*program(trial.rng, 7), ("store", 0x200000), ("read", "sstatus"), ("ecall", 0)])


@predict_exits.step("guests that no hypervisor of this course would start are predicted, too")
def _never_run(trial: Trial) -> None:
    steps: list[Step] = [("ecall", trial.rng.randrange(1, 9)), ("store", 0x200000)]
    for _ in range(5):
        steps = [("repeat", trial.rng.randrange(2, 6), steps), ("load", trial.rng.randrange(0x100))]
    judge_prediction(trial, [*steps, ("ecall", 0)], real=False)


# ── run_guest ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@run_guest.step("other ports, and other numbers of bytes, work as well")
def _other_port(trial: Trial) -> None:
    judge_run(
        trial, alphabet(trial.rng.randrange(0x100, 0xFFF0), trial.rng.randrange(97, 105), trial.rng.randrange(5, 15))
    )


@run_guest.step("any bytes can be read by the guest")
def _any_bytes(trial: Trial) -> None:
    judge_run(trial, reader(bytes(trial.rng.sample(range(1, 255), 5))))


@run_guest.step("an access of 16 bits is one exit with two bytes")
def _sixteen_bits(trial: Trial) -> None:
    judge_run(trial, words_of_two(trial.rng.randrange(0x101, 0xFFFF)))


@run_guest.step("places without memory are devices")
def _memory_mapped(trial: Trial) -> None:
    judge_run(trial, memory_mapped(bytes([trial.rng.randrange(1, 90)])))


@run_guest.step("a guest that crashes ends, too")
def _triple_fault(trial: Trial) -> None:
    judge_run(trial, triple_fault())


# ── count_accesses ────────────────────────────────────────────────────────────────────────────────────────────────────


@count_accesses.step("a boot sector with other devices and numbers is counted")
def _other_numbers(trial: Trial) -> None:
    numbers = [trial.rng.randrange(3, 40) for _ in range(4)]
    steps = (("out", 0x3F8, numbers[0]), ("in", 0x60, numbers[1]), ("rep outsb", 0xE9, numbers[2]))
    log = recorded((*steps, ("spin", 0, 200), ("in", 0x3FD, numbers[3])))
    judge_count(trial, log, f"A log with {', '.join(f'{n} × {how} {port:#x}' for how, port, n in steps)} and more.")


@functools.lru_cache
def _firmware() -> list[str]:
    lines = recorded((("out", 0xE9, 1),)).splitlines()
    begin = next(n for n, line in enumerate(lines) if "addr 0x80 value 0xb8 " in line)
    return lines[:begin]


def _line(address: int, value: int, name: str, *, kind: str = "write") -> str:
    return f"memory_region_ops_{kind} cpu 0 mr 0x55d0c3e5a4c0 addr {address:#x} value {value:#x} size 1 name '{name}'"


@count_accesses.step("progress codes of the firmware, long names and lines of other kinds do not confuse the count")
def _confusing(trial: Trial) -> None:
    lines = [*_firmware(), _line(0x80, 0x13, "ioport80"), _line(0x3F8, 0x42, "serial"), _line(0x800, 0xB8, "acpi pm")]
    lines += [_line(0x80, 0xB8, "ioport80")]
    devices = {"virtio-pci common": 0x10, "PCI conf data": 0xCFC, "serial": 0x3F8}
    for name, address in trial.rng.choices(list(devices.items()), k=30):
        lines.append(_line(address, trial.rng.randrange(256), name, kind=trial.rng.choice(["read", "write"])))
    lines.insert(-5, "qemu-system-x86_64: warning: a line of another kind, addr 0x80 value 0xb8")
    log = "\n".join([*lines, _line(0xF4, 0, "isa-debug-exit"), ""])
    judge_count(trial, log, "A log with other writes to port 0x80 and names of several words.")


# ── ring ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


@ring.step("a kick for nothing is served in peace")
def _nothing(trial: Trial) -> None:
    start = trial.rng.randrange(1000)
    judge_batch(trial, Driver(8, start=start), start, Batch([]), "A kick came, and no buffer was offered.")


@ring.step("a full queue, and a chain as long as the queue, are legal")
def _full(trial: Trial) -> None:
    driver = Driver(8, first=trial.rng.randrange(8))
    last = judge_batch(trial, driver, 0, Batch([[trial.rng.randbytes(9)] for _ in range(8)]), "The queue is full.")
    parts = [trial.rng.randbytes(5) for _ in range(8)]
    judge_batch(trial, driver, last, Batch([parts]), "One buffer in 8 parts was offered.")


@ring.step("a thousand buffers go through a queue of eight")
def _long(trial: Trial) -> None:
    driver, last = Driver(8, first=3, start=8 * trial.rng.randrange(100)), 0
    last = driver.idx
    for n in range(12):
        sizes = [trial.rng.randrange(1, 90) for _ in range(trial.rng.randrange(1, 9))]
        batch = Batch([[trial.rng.randbytes(size)] for size in sizes])
        last = judge_batch(trial, driver, last, batch, f"Batch {n + 1}, {len(sizes)} buffers, last={last}.")


@ring.step("the counters go on at 0 after 65535")
def _wrap(trial: Trial) -> None:
    driver = Driver(8, start=65533, first=trial.rng.randrange(8))
    buffers = [[trial.rng.randbytes(20)] for _ in range(6)]
    last = judge_batch(trial, driver, 65533, Batch(buffers, wraps=True), "idx went from 65533 to 3.")
    judge_batch(trial, driver, last, Batch([[b"after"]]), "idx went from 3 to 4.")


@ring.step("no interrupt is sent to a driver that does not want one")
def _quiet(trial: Trial) -> None:
    driver = Driver(8)
    judge_batch(trial, driver, 0, Batch([[b"quiet, please"]], quiet=True), "One buffer was offered.")


@ring.step("a buffer that ends with the last byte of memory, and an empty one, are legal")
def _edges(trial: Trial) -> None:
    driver = Driver(8)
    driver.memory[-4:] = b"edge"
    driver.describe(2, MEMORY_BYTES - 4, 4)
    driver.describe(4, MEMORY_BYTES - 4, 0)
    driver.announce(2)
    driver.announce(4)
    done = kick(trial, driver, 0, "Two buffers: the last 4 bytes of memory, and an empty one.")
    trial.equal(b"edge", done["output"], "edge-of-memory", "The last 4 bytes of memory were offered.")


def _attack_idx(trial: Trial) -> Attack:
    driver = Driver(8)
    driver.offer(b"x")
    driver.announce(0, idx=trial.rng.randrange(1000, 60000))
    words = f"idx says that {driver.idx} buffers wait in a queue of 8"
    return Attack(driver, 0, [b"x"], words, "trusts-idx", "How many buffers can wait in a queue of 8, at most?")


def _attack_idx_by_one(trial: Trial) -> Attack:
    start = trial.rng.randrange(100, 1000)
    driver = Driver(8, start=start)
    buffers = [trial.rng.randbytes(3) for _ in range(8)]
    for buffer in buffers:
        driver.offer(buffer)
    driver.announce(0)
    words = f"idx is {driver.idx} and last is {start}: 9 buffers in a queue of 8"
    return Attack(driver, start, [], words, "trusts-idx-by-one", "Where is the line between full and impossible?")


def _attack_head(trial: Trial) -> Attack:
    driver = Driver(8)
    driver.offer(b"good")
    head = trial.rng.randrange(8, 256)
    driver.describe(head, 0x13000, 4)
    driver.announce(head)
    hint = "Descriptors are numbered 0 to size - 1."
    return Attack(driver, 0, [b"good"], f"the available ring names descriptor {head} of 8", "trusts-head", hint)


def _attack_next(trial: Trial) -> Attack:
    driver = Driver(8)
    following = trial.rng.randrange(8, 256)
    driver.describe(following, 0x13000, 4)
    driver.describe(0, 0x13000, 4, NEXT, following)
    driver.announce(0)
    hint = "The head is not the only number of a descriptor that the guest writes."
    return Attack(driver, 0, [], f"a chain goes on at descriptor {following} of 8", "trusts-next", hint)


def _attack_loop(trial: Trial) -> Attack:
    driver = Driver(8)
    first, second = trial.rng.sample(range(8), 2)
    driver.describe(first, 0x13000, 4, NEXT, second)
    driver.describe(second, 0x13000, 4, NEXT, first)
    driver.announce(first)
    words = f"descriptor {first} goes on at {second}, and {second} at {first}"
    return Attack(driver, 0, [], words, "trusts-chain", "How long can an honest chain be, at most?")


def _attack_address(trial: Trial) -> Attack:
    driver = Driver(8)
    driver.offer(b"good")
    address = MEMORY_BYTES + trial.rng.randrange(0x1000, 0x100000)
    driver.describe(1, address, 16)
    driver.announce(1)
    hint = "What does Python give for memory[a:b] when a lies behind the end? And C?"
    return Attack(driver, 0, [b"good"], f"a buffer lies at {address:#x}, behind the memory", "trusts-address", hint)


def _attack_length(trial: Trial) -> Attack:
    driver = Driver(8)
    length = trial.rng.randrange(0x80000000, 0xFFFFFFFF)
    driver.describe(0, 0x13000, length)
    driver.announce(0)
    hint = "Address and length together decide where a buffer ends."
    return Attack(driver, 0, [], f"a buffer at 0x13000 has {length} bytes", "trusts-length", hint)


def _attack_by_one(trial: Trial) -> Attack:
    driver = Driver(8)
    length = trial.rng.randrange(2, 100)
    driver.describe(0, MEMORY_BYTES - length + 1, length)
    driver.announce(0)
    hint = "Which is the first address that is not memory any more?"
    return Attack(driver, 0, [], "a buffer ends one byte behind the memory", "trusts-last-byte", hint)


def _attack_second_part(trial: Trial) -> Attack:
    driver = Driver(8)
    driver.describe(0, 0x13000, 10, NEXT, 1)
    driver.describe(1, MEMORY_BYTES + trial.rng.randrange(0x1000), 10)
    driver.announce(0)
    hint = "Each part of a chain has an address and a length of its own."
    return Attack(driver, 0, [], "the second part of a chain lies behind the memory", "trusts-second-part", hint)


_ATTACKS = {
    "an impossible idx is noticed": _attack_idx,
    "an idx that is one too far is noticed": _attack_idx_by_one,
    "a head that is no descriptor is noticed": _attack_head,
    "a next that is no descriptor is noticed": _attack_next,
    "a chain that never ends is noticed": _attack_loop,
    "an address that is no memory is noticed": _attack_address,
    "a length that leaves the memory is noticed": _attack_length,
    "a buffer that leaves the memory by one byte is noticed": _attack_by_one,
    "a part of a chain that is no memory is noticed": _attack_second_part,
}


def _attacked(make: Callable[[Trial], Attack]) -> Callable[[Trial], None]:
    return lambda trial: judge_attack(trial, make(trial))


for _sentence, _attack in _ATTACKS.items():
    ring.step(_sentence)(_attacked(_attack))


# ── steal ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@steal.step("queues of other sizes betray their host as well")
def _other_queues(trial: Trial) -> None:
    for size in (2, 64):
        judge_theft(trial, size)


NO_RIGHTS = 1 << 11
"""A bit of an entry of the second stage that the processor ignores."""

# ── ept ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


@ept.step("many pages, mapped at random, are found")
def _many(trial: Trial) -> None:
    made = TwoStages(f"{trial.seed}/many")
    for _ in range(12):
        gva, gpa = trial.rng.getrandbits(47) | 8, trial.rng.randrange(0x100, 0x7FFFF) << 12
        made.back(gpa)
        made.map(gva, gpa)
        judge_translation(trial, Ask(made, gva, trial.rng.random() < 0.5, "A page that both stages map"))


@ept.step("a page of the guest's own tables that the host has taken away is an EPT violation, at every level")
def _tables_gone(trial: Trial) -> None:
    for level in range(4):
        made, gva, _, entries = world(trial, f"tables gone {level}")
        made.back(entries[level], 0)
        words = f"The host has taken away the guest's table of level {4 - level}"
        judge_translation(trial, Ask(made, gva, trial.rng.random() < 0.5, words))


@ept.step("an entry that is not present is the guest's page fault, at every level")
def _not_present(trial: Trial) -> None:
    for level in range(4):
        made, gva, _, entries = world(trial, f"not present {level}")
        made.set_guest_word(entries[level], made.guest_word(entries[level]) & ~PRESENT)
        judge_translation(trial, Ask(made, gva, False, f"The guest's entry of level {4 - level} is not present"))


@ept.step("a store needs the right at every level of the guest's tables")
def _write_rights(trial: Trial) -> None:
    for level in (3, 1, 0):
        made, gva, _, entries = world(trial, f"rights {level}")
        made.set_guest_word(entries[level], made.guest_word(entries[level]) & ~WRITE)
        words = f"The guest's entry of level {4 - level} forbids writing"
        judge_translation(trial, Ask(made, gva, False, words))
        judge_translation(trial, Ask(made, gva, True, words))


@ept.step("bits of an entry that are neither rights nor address do not matter")
def _other_bits(trial: Trial) -> None:
    made, gva, gpa, entries = world(trial, "other bits")
    for entry in entries:
        made.set_guest_word(entry, made.guest_word(entry) | 1 << 63 | 0x20)
    words = "The guest's entries have bit 63, *no execute*, set"
    judge_translation(trial, Ask(made, gva, trial.rng.random() < 0.5, words))
    made.back(gpa, NO_RIGHTS)
    words = "The last entry of the second stage has an address and no rights"
    judge_translation(trial, Ask(made, gva, False, words))


@ept.step("a guest's tables may be read through pages that it may not write")
def _tables_read_only(trial: Trial) -> None:
    made, gva, _, entries = world(trial, "read only tables")
    for entry in entries:
        made.back(entry, READ)
    judge_translation(trial, Ask(made, gva, True, "The host allows the guest's tables to be read only"))
