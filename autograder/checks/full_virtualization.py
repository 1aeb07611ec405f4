"""Hidden checks of lesson 07, full virtualization."""

from __future__ import annotations

import random

from course.check import Exercise, Trial
from course.check.full_virtualization.linux import snapshot
from course.check.full_virtualization.patching import elsewhere, judge_break, judge_patch, random_guest
from course.check.full_virtualization.shadowing import judge_shadow, two_pages
from course.check.full_virtualization.translation import (
    Case,
    conditions,
    flags,
    judge_rewrite,
    judge_translate,
    loop,
    numbers,
)
from course.check.full_virtualization.walking import (
    canonical,
    frame,
    judge_linux,
    judge_refs,
    judge_walk,
    memory,
)
from course.vcpu.paged import DATA, Paged
from course.vcpu.paging import GIB_1, MIB_2, PAGE, P, W
from course.vcpu.sensitive import every_kind, switching, wandering

patch = Exercise("patch", hidden=True, varies=True, seed=701, deadline_s=20)
break_sweep = Exercise("break_sweep", hidden=True, seed=702, deadline_s=20)
translate = Exercise("translate", hidden=True, seed=703, deadline_s=30)
rewrite = Exercise("rewrite", hidden=True, seed=704, deadline_s=20)
gva2gpa = Exercise("gva2gpa", hidden=True, seed=705, deadline_s=20)
shadow = Exercise("shadow", hidden=True, seed=706, deadline_s=30)
walk_refs = Exercise("walk_refs", hidden=True, varies=True, seed=707)


# ─── patch ───────────────────────────────────────────────────────────────────


@patch.step("numbers and data that look like sensitive instructions stay as they are")
def _patch_random(trial: Trial) -> None:
    for pieces in (7, 12):
        judge_patch(trial, random_guest(trial, pieces))


@patch.step("each of the silent instructions is found, wherever the image lies")
def _patch_every_kind(trial: Trial) -> None:
    judge_patch(trial, every_kind(random.Random(trial.rng.random()), elsewhere(trial)))


@patch.step("an emulated processor agrees")
def _patch_emulated(trial: Trial) -> None:
    judge_patch(trial, random_guest(trial, 9), "unicorn")


# ─── break_sweep ─────────────────────────────────────────────────────────────


@break_sweep.step("an emulated processor agrees")
def _break_emulated(trial: Trial) -> None:
    judge_break(trial, "unicorn")


# ─── translate ───────────────────────────────────────────────────────────────


@translate.step("other guests with jump tables run as on a perfect machine, on an emulated processor too")
def _translate_others(trial: Trial) -> None:
    for engine in ("best", "unicorn"):
        judge_translate(trial, switching(random.Random(trial.rng.random()), 12), engine)


@translate.step("calls, returns, loops and jumps on a condition end a block as well, wherever the code lies")
def _translate_ways(trial: Trial) -> None:
    judge_translate(trial, wandering(random.Random(trial.rng.random()), elsewhere(trial)))
    judge_translate(trial, every_kind(random.Random(trial.rng.random())))


# ─── rewrite ─────────────────────────────────────────────────────────────────


@rewrite.step("a loop that grows beyond 127 bytes still finds its beginning")
def _rewrite_long(trial: Trial) -> None:
    case = loop(trial.rng, 20, padding=10)
    hint = "A jump of two bytes reaches 127 bytes. What does a longer one look like?"
    judge_rewrite(trial, Case(case.source, "jump-too-short", hint))
    judge_rewrite(trial, loop(trial.rng, 30), "unicorn")


@rewrite.step("whatever flags and numbers are alive, they live on")
def _rewrite_others(trial: Trial) -> None:
    for _ in range(3):
        judge_rewrite(trial, flags(trial.rng))
    judge_rewrite(trial, numbers(trial.rng))


@rewrite.step("jumps on any condition find their targets")
def _rewrite_conditions(trial: Trial) -> None:
    for _ in range(2):
        judge_rewrite(trial, conditions(trial.rng))


# ─── gva2gpa ─────────────────────────────────────────────────────────────────


@gva2gpa.step("cr3 holds more than an address")
def _cr3(trial: Trial) -> None:
    with memory(trial) as room:
        truth: dict[int, int | None] = {}
        for _ in range(3):
            address, physical = canonical(trial), frame(trial)
            room.tables.map(address, physical)
            truth[address] = physical | address % PAGE
        room.save()
        for extra in (0x18, trial.rng.randrange(1, 1 << 12), 1 << 63 | 5):
            hint = "Bits 3, 4 and, with PCID, all of the lowest twelve of cr3 have other meanings; bit 63 too."
            judge_walk(trial, room.tables.root | extra, room.path, truth, "cr3-low-bits", hint=hint)


@gva2gpa.step("an address whose upper bits disagree with bit 47 is mapped nowhere")
def _not_canonical(trial: Trial) -> None:
    linux = snapshot("hidden")
    hint = "Bits 48 to 63 select no table, and yet they count: what does the processor demand of them?"
    truth = dict(trial.rng.sample(sorted(linux.truth["not canonical"].items()), 6))
    with linux.file() as ram:
        judge_walk(trial, linux.cr3, ram, truth, "not-canonical", hint=hint, about="In a stopped Linux, ")


@gva2gpa.step("bit 7 means a large page on levels 2 and 3 only, and large pages have a bit 12 of their own")
def _large(trial: Trial) -> None:
    with memory(trial) as room:
        address, physical = canonical(trial), frame(trial)
        room.tables.map(address, physical, P | W | 1 << 7)
        hint = "On level 1, bit 7 is PAT: it says how to cache, not how large the page is."
        small: dict[int, int | None] = {address: physical | address % PAGE}
        truth: dict[int, int | None] = {}
        for size in (MIB_2, GIB_1):
            address, physical = canonical(trial) & ~(1 << 12), frame(trial, size)
            room.tables.map(address, physical, P | W | 1 << 12, size)
            truth[address] = physical | address % size
        room.save()
        judge_walk(trial, room.tables.root, room.path, small, "pat-taken-for-size", hint=hint)
        hint = "A page of 2 MiB begins at a multiple of 2 MiB, one of 1 GiB likewise: mask accordingly."
        judge_walk(trial, room.tables.root, room.path, truth, "large-page-misplaced", hint=hint)


@gva2gpa.step("in another living Linux, QEMU's own walk gives the same for some forty addresses")
def _linux(trial: Trial) -> None:
    judge_linux(trial, snapshot("hidden"), 8)


# ─── shadow ──────────────────────────────────────────────────────────────────


@shadow.step("an entry that the guest changes counts from the next mov cr3 on")
def _cr3_flushes(trial: Trial) -> None:
    guest = Paged(trial.rng)
    for page in (DATA, DATA + PAGE):
        guest.page(page, writable=True, value=1)
        guest.load(page)
    guest.remove(DATA, "cr3")
    guest.load(DATA + PAGE)
    guest.load(DATA)
    judge_shadow(trial, guest, "The guest loads from two pages, then clears one entry.", "not-flushed-by-cr3")


@shadow.step("a page that moves is read where it is now, and one that becomes read-only is")
def _moves(trial: Trial) -> None:
    guest = Paged(trial.rng)
    guest.page(DATA, writable=True, value=1)
    guest.load(DATA)
    guest.move(DATA)
    guest.load(DATA)
    guest.forbid(DATA)
    guest.store(DATA, 9)
    guest.load(DATA)
    about = "The guest lets a page lead to another place in its memory, then forbids itself to write to it."
    judge_shadow(trial, guest, about, "never-flushed")


@shadow.step("a page that was read first is written later")
def _upgrade(trial: Trial) -> None:
    guest = two_pages(trial.rng)
    page = DATA + 50 * PAGE
    guest.page(page, writable=False, value=3)
    guest.load(page)
    guest.allow(page, trial.rng.choice(("invlpg", "cr3")))
    guest.store(page, 4)
    guest.load(page)
    judge_shadow(trial, guest, "The guest reads a page, allows itself to write to it, and writes.", "upgrade-refused")


@shadow.step("a write counts as forbidden when any level forbids it, and pages of 2 MiB are pages")
def _levels(trial: Trial) -> None:
    guest = Paged(trial.rng)
    far = DATA + 4 * MIB_2
    guest.page(far, writable=True, value=8)
    guest.load(far)
    guest.large_page(DATA + 8 * MIB_2)
    for _ in range(3):
        guest.load(DATA + 8 * MIB_2 + guest.spare())
    judge_shadow(trial, guest, "The guest has a page of 2 MiB.", hidden="large-page-followed")
    guest = Paged(trial.rng)
    guest.page(far, writable=True, value=8)
    guest.load(far)
    guest.write_protect_table(far)
    guest.store_above(far, 5)
    judge_shadow(trial, guest, "The entry above the last forbids the guest to write.", swallowed="one-level-asked")


@shadow.step("all of this holds on an emulated processor, for a longer life")
def _long_life(trial: Trial) -> None:
    judge_shadow(trial, life(trial.rng, 30), "The guest lives a long life.", "stale-shadow", "unicorn")
    judge_shadow(trial, life(trial.rng, 60), "The guest lives a longer life.", "stale-shadow")


def life(rng: random.Random, steps: int) -> Paged:
    """Return a guest that does everything, in any order."""
    guest = Paged(rng)
    pages = [DATA + n * PAGE for n in range(8)]
    for page in pages:
        if rng.random() < 0.2:
            guest.hole(page)
        else:
            guest.page(page, writable=rng.random() < 0.6, value=rng.randrange(1 << 32))
    for _ in range(steps):
        page, how = rng.choice(pages), rng.choice(("invlpg", "cr3"))
        match rng.choice("sslllmrfa"):
            case "s":
                guest.store(page, rng.randrange(1 << 31))
            case "l":
                guest.load(page)
            case "m":
                guest.move(page, how)
            case "r":
                guest.remove(page, how)
            case "f":
                guest.forbid(page, how)
            case "a" if guest.present(page):
                guest.allow(page, how)
    return guest


# ─── walk_refs ───────────────────────────────────────────────────────────────


@walk_refs.step("any two depths give what a counting walker says")
def _depths(trial: Trial) -> None:
    for _ in range(8):
        n, m = trial.rng.randrange(1, 6), trial.rng.randrange(0, 6)
        judge_refs(trial, (n, m, PAGE, PAGE), (n + 1) * (m + 1) - 1)
    judge_refs(trial, (5, 5, PAGE, PAGE), 35)


@walk_refs.step("large pages make the walk shorter, in either dimension")
def _large_pages(trial: Trial) -> None:
    for guest_page, spared in ((MIB_2, 1), (GIB_1, 2)):
        judge_refs(trial, (4, 4, guest_page, PAGE), (5 - spared) * 5 - 1)
        judge_refs(trial, (4, 5, PAGE, guest_page), 5 * (6 - spared) - 1)
    judge_refs(trial, (4, 4, MIB_2, GIB_1), 4 * 3 - 1)


__all__ = ["break_sweep", "gva2gpa", "patch", "rewrite", "shadow", "translate", "walk_refs"]
