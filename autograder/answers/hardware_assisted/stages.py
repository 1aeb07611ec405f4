"""Answers to `ept`."""

from __future__ import annotations

import functools

from autograder.answers import alternative, mutant

FRAME = 0x000FFFFFFFFFF000


def _translate(gva, write, cr3, eptp, memory, **wrong):
    def host(gpa, write=False, table=False):
        at = eptp
        for shift in (39, 30, 21, 12):
            entry = memory.get(at + 8 * (gpa >> shift & 511), 0)
            last = shift == 12 or not wrong.get("last_level")
            absent = not entry if wrong.get("zero") else not entry & 7
            if absent or (write and not entry & 2 and last and not wrong.get("no_host_rights")):
                if table and wrong.get("walk_faults"):
                    return "page fault", gva
                return "ept violation", gva if wrong.get("names_gva") else gpa & FRAME if wrong.get("page") else gpa
            at = entry & wrong.get("frame", FRAME)
        return "mapped", at | (0 if wrong.get("no_offset") and not table else gpa & 4095)

    at = cr3
    for shift in (39, 30, 21, 12):
        slot = at + 8 * (gva >> shift & 511)
        kind, where = "mapped", slot
        if not wrong.get("host_tables"):
            kind, where = host(where, write and wrong.get("stores", False), table=True)
        if kind != "mapped":
            return kind, where
        entry = memory.get(where, 0)
        last = shift == 12 or not wrong.get("last_level")
        if not entry & 1 or (write and not entry & 2 and last and not wrong.get("no_guest_rights")):
            return "page fault", slot if wrong.get("entry") else gva & FRAME if wrong.get("gva_page") else gva
        at = entry & wrong.get("frame", FRAME)
    gpa = at | gva & 4095
    return ("mapped", gpa) if wrong.get("one_stage") else host(gpa, write)


@alternative("ept")
def in_a_list(gva, write, cr3, eptp, memory):
    return list(_translate(gva, write, cr3, eptp, memory))


@alternative("ept")
def recursive(gva, write, cr3, eptp, memory):
    class Stop(Exception):
        pass

    @functools.cache
    def second(gpa, write=False):
        def down(table, shifts):
            if not shifts:
                return table | gpa % 4096
            entry = memory.get(table + 8 * (gpa >> shifts[0] & 511), 0)
            if not entry & 1 or (write and not entry & 2):
                raise Stop("ept violation", gpa)
            return down(entry & FRAME, shifts[1:])

        return down(eptp, (39, 30, 21, 12))

    def first(table, shifts):
        if not shifts:
            return table | gva % 4096
        entry = memory.get(second(table + 8 * (gva >> shifts[0] & 511)), 0)
        if not entry & 1 or (write and not entry & 2):
            raise Stop("page fault", gva)
        return first(entry & FRAME, shifts[1:])

    try:
        return "mapped", second(first(cr3, (39, 30, 21, 12)), write)
    except Stop as stop:
        return stop.args


@mutant("ept", "tables-at-host-addresses")
def cr3_is_a_host_address(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, host_tables=True)


@mutant("ept", "one-stage-only")
def ends_at_gpa(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, one_stage=True)


@mutant("ept", "faults-swapped")
def swaps_the_faults(gva, write, cr3, eptp, memory):
    kind, address = _translate(gva, write, cr3, eptp, memory)
    return {"page fault": "ept violation", "ept violation": "page fault"}.get(kind, kind), address


@mutant("ept", "walk-is-guest-s-fault")
def table_gone_is_a_page_fault(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, walk_faults=True)


@mutant("ept", "violation-names-gva")
def reports_the_gva(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, names_gva=True)


@mutant("ept", "violation-names-page")
def reports_the_page(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, page=True)


@mutant("ept", "offset-lost")
def forgets_the_offset(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, no_offset=True)


@mutant("ept", "host-s-rights-ignored")
def guest_may_write_everywhere(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, no_host_rights=True)


@mutant("ept", "guest-s-rights-ignored")
def only_the_host_decides(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, no_guest_rights=True)


@mutant("ept", "rights-of-last-level-only")
def only_the_last_entry(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, last_level=True)


@mutant("ept", "walk-taken-for-a-store")
def stores_through_the_walk(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, stores=True)


@mutant("ept", "fault-names-page")
def reports_the_gva_s_page(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, gva_page=True)


@mutant("ept", "fault-names-entry")
def reports_the_entry(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, entry=True)


@mutant("ept", "other-bits-in-the-address")
def clears_the_low_bits_only(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, frame=~0xFFF)


@mutant("ept", "absent-means-zero")
def absent_is_zero(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory, zero=True)


@mutant("ept", "not-a-pair")
def only_the_address(gva, write, cr3, eptp, memory):
    return _translate(gva, write, cr3, eptp, memory)[1]


@mutant("ept", "unknown-word")
def other_words(gva, write, cr3, eptp, memory):
    return "ok", _translate(gva, write, cr3, eptp, memory)[1]


@mutant("ept", "wrong-translation")
def indices_of_ten_bits(gva, write, cr3, eptp, memory):
    return _translate(gva >> 1, write, cr3, eptp, memory)


@mutant("ept", "unanswered")
def ept_untouched(gva, write, cr3, eptp, memory):
    raise NotImplementedError
