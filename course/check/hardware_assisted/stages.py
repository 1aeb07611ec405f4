"""Judgements on `ept`: a translation of two stages, against the same translation with known mistakes."""

from __future__ import annotations

import dataclasses
from typing import Any

from ...vcpu.two_stages import FRAME, PAGE, PRESENT, SHIFTS, WRITE, TwoStages
from ..exercise import Trial

Result = tuple[str, int]
MAPPED, FAULT, VIOLATION = "mapped", "page fault", "ept violation"


@dataclasses.dataclass(frozen=True)
class Ask:
    """One question: an access in a world of two stages."""

    world: TwoStages
    gva: int
    write: bool
    words: str


class _Leave(Exception):  # noqa: N818 - carries a result out of a walk
    def __init__(self, kind: str, address: int) -> None:
        super().__init__(kind)
        self.result = (kind, address)


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """What a wrong translation does; none of them is right."""

    tables_at_hpa: bool = False
    stops_at_gpa: bool = False
    swaps: bool = False
    walk_faults: bool = False
    gva_in_violation: bool = False
    gpa_page_only: bool = False
    no_offset: bool = False
    guest_write_only: bool = False
    host_write_only: bool = False
    last_level_only: bool = False
    walk_stores: bool = False
    gva_page_only: bool = False
    fault_names_entry: bool = False
    whole_entry: bool = False
    zero_is_absent: bool = False


def translate(ask: Ask, wrong: Mistakes = Mistakes()) -> Result:
    """Translate as the hardware does, or with mistakes."""
    world = ask.world

    frame = ~(PAGE - 1) if wrong.whole_entry else FRAME

    def second(gpa: int, write: bool, of_table: bool) -> int:
        table = world.eptp
        for shift in SHIFTS:
            entry = world.memory.get(table + 8 * (gpa >> shift & 511), 0)
            last = shift == SHIFTS[-1] or not wrong.last_level_only
            absent = not entry if wrong.zero_is_absent else not entry & 7
            if absent or (write and not entry & WRITE and not wrong.guest_write_only and last):
                if of_table and wrong.walk_faults:
                    raise _Leave(FAULT, ask.gva)
                told = ask.gva if wrong.gva_in_violation else gpa & FRAME if wrong.gpa_page_only else gpa
                raise _Leave(VIOLATION, told)
            table = entry & frame
        return table + (0 if wrong.no_offset and not of_table else gpa % PAGE)

    def first() -> int:
        table, reads_as = world.cr3, ask.write and wrong.walk_stores
        for shift in SHIFTS:
            at = table + 8 * (ask.gva >> shift & 511)
            entry = world.memory.get(at if wrong.tables_at_hpa else second(at, reads_as, True), 0)
            last = shift == SHIFTS[-1] or not wrong.last_level_only
            if not entry & PRESENT or (ask.write and not entry & WRITE and not wrong.host_write_only and last):
                told = at if wrong.fault_names_entry else ask.gva & FRAME if wrong.gva_page_only else ask.gva
                raise _Leave(FAULT, told)
            table = entry & frame
        return table + ask.gva % PAGE

    try:
        gpa = first()
        return MAPPED, gpa if wrong.stops_at_gpa else second(gpa, ask.write, False)
    except _Leave as leave:
        kind, address = leave.result
        return (FAULT if kind == VIOLATION else VIOLATION, address) if wrong.swaps else (kind, address)


_KNOWN = [
    (Mistakes(walk_faults=True), "walk-is-guest-s-fault",
     "A table of the guest lies on a page that the host has taken away; that was reported to the guest.",
     "The guest's tables are in order: it could do nothing about this fault. Who can?"),
    (Mistakes(walk_stores=True), "walk-taken-for-a-store",
     "A table of the guest lies on a page that may only be read; that was taken for a violation.",
     "Only the result of the translation is written to. What does the processor do with the guest's entries here?"),
    (Mistakes(gva_page_only=True), "fault-names-page",
     "A page fault was reported with the page's address, without the offset.",
     "The processor tells the kernel the whole address of the access (on x86 in cr2)."),
    (Mistakes(fault_names_entry=True), "fault-names-entry",
     "A page fault was reported with the address of the entry that said no.",
     "The guest's kernel asks: which of my program's addresses was it?"),
    (Mistakes(whole_entry=True), "other-bits-in-the-address",
     "Bits of an entry above bit 51 were taken for a part of the address.",
     "Bits 12 to 51 are the address; above are bits such as *no execute*, which do not matter here."),
    (Mistakes(zero_is_absent=True), "absent-means-zero",
     "An entry of the second stage without any right was followed, because it is not 0 as a whole.",
     "Which bits say that nothing is there? A host may keep what it likes in the others."),
    (Mistakes(last_level_only=True), "rights-of-last-level-only",
     "Only the entry of the last level was asked whether the page may be written.",
     "A page may be written when the entries of *all* levels say so."),
    (Mistakes(tables_at_hpa=True), "tables-at-host-addresses",
     "cr3 and the addresses in the guest's entries were taken for addresses of the host.",
     "What does a guest know of the host's memory? Its tables lie at guest-physical addresses, too."),
    (Mistakes(stops_at_gpa=True), "one-stage-only",
     "The result is the guest-physical address, where the guest's own tables lead.",
     "Whose memory is it in the end? One more translation."),
    (Mistakes(swaps=True), "faults-swapped",
     "The two kinds of fault are exchanged.",
     "Whose tables said no? The guest's: its own kernel handles it. The host's: the guest never learns of it."),
    (Mistakes(gva_in_violation=True), "violation-names-gva",
     "An EPT violation was reported with the guest's virtual address.",
     "The hypervisor has to bring a page: which of the three addresses names the one that is missing?"),
    (Mistakes(gpa_page_only=True), "violation-names-page",
     "An EPT violation was reported with the page's address, without the offset.",
     "The hardware tells the whole guest-physical address of the access."),
    (Mistakes(no_offset=True), "offset-lost",
     "The result is the page's address: the offset within the page is missing.",
     "Both stages translate pages; the lowest 12 bits go through unchanged."),
    (Mistakes(guest_write_only=True), "host-s-rights-ignored",
     "A store went through to a page that the second stage does not allow to be written.",
     "Which bit of the second stage's entries says *writable*, and who needs it? (A snapshot, for one.)"),
    (Mistakes(host_write_only=True), "guest-s-rights-ignored",
     "A store went through to a page that the guest's own tables do not allow to be written.",
     "The first stage has rights, too: what does a guest's kernel want to protect from its programs?"),
]  # fmt: skip


def judge_translation(trial: Trial, ask: Ask) -> None:
    """Ask the answer for one translation and name the mistake that explains a wrong result."""
    world, expected = ask.world, translate(ask)
    got: Any = trial.call(ask.gva, ask.write, world.cr3, world.eptp, world.memory)
    fits = isinstance(got, tuple | list) and len(got) == 2 and isinstance(got[0], str) and type(got[1]) is int
    trial.expect(fits, "not-a-pair", f"ept returned {got!r}.", "Return a pair: one of the three words, and an address.")
    got = (got[0], got[1])
    if got == expected:
        return
    trial.expect(
        got[0] in (MAPPED, FAULT, VIOLATION),
        "unknown-word",
        f"ept returned {got[0]!r}.",
        f"The first item is one of {MAPPED!r}, {FAULT!r} and {VIOLATION!r}.",
    )
    what = f"{ask.words} (gva {ask.gva:#x}, {'a store' if ask.write else 'a load'}): "
    what += f"expected {expected[0]} {expected[1]:#x}, obtained {got[0]} {got[1]:#x}.\n"
    for mistakes, misconception, message, hint in _KNOWN:
        if translate(ask, mistakes) == got:
            trial.wrong(misconception, what + message, hint)
    trial.wrong(
        "wrong-translation", what.rstrip(), "Follow the drawing by hand for this address, one read after the other."
    )


def address(trial: Trial) -> int:
    """A virtual address of the lower half whose four indices differ."""
    indices = trial.rng.sample(range(1, 256), 4)
    return sum(i << shift for i, shift in zip(indices, SHIFTS, strict=True)) | trial.rng.randrange(8, 4096)


def world(trial: Trial, name: str) -> tuple[TwoStages, int, int, list[int]]:
    """A world with one mapped page: the world, its gva, its gpa, and where the guest's entries lie."""
    made = TwoStages(f"{trial.seed}/{name}")
    gva, gpa = address(trial), trial.rng.randrange(0x100, 0x800) * PAGE
    made.back(gpa)
    return made, gva, gpa | gva % PAGE, made.map(gva, gpa)
