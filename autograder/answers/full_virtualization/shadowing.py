"""Answers to `shadow`."""

from __future__ import annotations

from autograder.answers import alternative, mutant
from course.vcpu.shadow import WINDOW, ShadowGuest

ADDRESS = 0x000F_FFFF_FFFF_F000


def _look(guest, va, *, levels_of_w=(4, 3, 2, 1), large=True):
    table, writable = guest.cr3, True
    for level in (4, 3, 2, 1):
        entry = guest.read((table & ADDRESS) + 8 * (va >> (12 + 9 * (level - 1)) & 511))
        if not entry & 1:
            return None
        if level in levels_of_w:
            writable = writable and bool(entry & 2)
        if large and level > 1 and entry & 0x80:
            size = 1 << (12 + 9 * (level - 1))
            return (entry & ADDRESS & -size) | va % size, writable
        table = entry
    return (table & ADDRESS) | va % 4096, writable


def _run(engine, machine, on_fault, *, invlpg=None, cr3=None):
    with ShadowGuest(engine, **machine) as guest:
        while event := guest.run():
            kind, address, write = event
            if kind == "invlpg":
                (invlpg or guest.unmap)(address)
            elif kind == "cr3":
                (cr3 or (lambda _: guest.unmap_all()))(address)
            else:
                on_fault(guest, address, write)
        return guest.report()


def _decide(guest, address, write, **options):
    found = _look(guest, address, **options)
    if found is None or (write and not found[1]):
        guest.inject(address, write)
    else:
        guest.map(address, *found)


def _ignore(_):
    pass


@alternative("shadow")
def lazily(engine, machine):
    return _run(engine, machine, _decide)


@alternative("shadow")
def forgets_everything_at_every_change(engine, machine):
    with ShadowGuest(engine, **machine) as guest:
        while event := guest.run():
            if event[0] == "fault":
                _decide(guest, *event[1:])
            else:
                guest.unmap_all()
        return guest.report()


@alternative("shadow")
def writable_only_when_written(engine, machine):
    def on_fault(guest, address, write):
        found = _look(guest, address)
        if found is None or (write and not found[1]):
            guest.inject(address, write)
        else:
            guest.map(address, found[0], write)

    return _run(engine, machine, on_fault)


@alternative("shadow")
def eagerly(engine, machine):
    """Fill the shadow from the whole of the guest's tables at every change."""

    def sync(guest):
        guest.unmap_all()
        for top in range(0x400000, 0x2000000, 1 << 21):
            for va in range(top, top + (1 << 21), 4096):
                pde = _entry(guest, va, 2)
                if not pde:
                    break
                found = _look(guest, va)
                if found is not None and va < WINDOW and found[0] < len(machine["ram"]):
                    guest.map(va, *found)

    def _entry(guest, va, stop):
        table = guest.cr3
        for level in (4, 3, 2):
            entry = guest.read((table & ADDRESS) + 8 * (va >> (12 + 9 * (level - 1)) & 511))
            if not entry & 1:
                return 0
            table = entry
        return table

    with ShadowGuest(engine, **machine) as guest:
        sync(guest)
        while event := guest.run():
            kind, address, write = event
            if kind != "fault":
                sync(guest)
            else:
                _decide(guest, address, write)
        return guest.report()


@mutant("shadow", "all-writable")
def everything_is_writable(engine, machine):
    def on_fault(guest, address, write):
        found = _look(guest, address)
        if found is None:
            guest.inject(address, write)
        else:
            guest.map(address, found[0], True)

    return _run(engine, machine, on_fault)


@mutant("shadow", "one-level-asked")
def asks_the_last_level_only(engine, machine):
    return _run(engine, machine, lambda *a: _decide(*a, levels_of_w=(1,)))


@mutant("shadow", "large-page-followed")
def knows_no_large_pages(engine, machine):
    return _run(engine, machine, lambda *a: _decide(*a, large=False))


@mutant("shadow", "never-flushed")
def never_forgets(engine, machine):
    return _run(engine, machine, _decide, invlpg=_ignore, cr3=_ignore)


@mutant("shadow", "not-flushed-by-cr3")
def ignores_cr3(engine, machine):
    return _run(engine, machine, _decide, cr3=_ignore)


@mutant("shadow", "hidden-fault-injected")
def every_fault_is_the_guest_s(engine, machine):
    return _run(engine, machine, lambda guest, address, write: guest.inject(address, write))


@mutant("shadow", "upgrade-refused")
def what_is_mapped_cannot_be_missing(engine, machine):
    known = set()

    def on_fault(guest, address, write):
        found = _look(guest, address)
        if found is None or address & -4096 in known:
            guest.inject(address, write)
        elif write and not found[1]:
            guest.inject(address, write)
        else:
            known.add(address & -4096)
            guest.map(address, *found)

    return _run(engine, machine, on_fault, cr3=_ignore)


@mutant("shadow", "never-satisfied")
def maps_nothing_writable(engine, machine):
    def on_fault(guest, address, write):
        found = _look(guest, address)
        if found is None or (write and not found[1]):
            guest.inject(address, write)
        else:
            guest.map(address, found[0], False)

    return _run(engine, machine, on_fault)


@mutant("shadow", "did-not-end")
def stops_at_the_first_fault(engine, machine):
    with ShadowGuest(engine, **machine) as guest:
        event = guest.run()
        _decide(guest, *event[1:])
        return guest.report()


@mutant("shadow", "not-the-report")
def returns_the_output(engine, machine):
    return lazily(engine, machine)["output"]


@mutant("shadow", "unanswered")
def shadow_untouched(engine, machine):
    raise NotImplementedError
