"""Answers to `gva2gpa` and `walk_refs`."""

from __future__ import annotations

import mmap
import struct

from autograder.answers import alternative, mutant

ADDRESS = 0x000F_FFFF_FFFF_F000


def _walk(cr3, va, ram, *, mask=ADDRESS, ps=(2, 3), sign=True, present=True, root=None, leaf=None, width=9):
    if sign and va >> 47 not in (0, 0x1FFFF):
        return None
    with open(ram, "rb") as file:
        entry = (cr3 & ADDRESS) if root is None else root(cr3)
        for level in (4, 3, 2, 1):
            file.seek((entry & mask) + 8 * (va >> (12 + 9 * (level - 1)) & 511))
            (entry,) = struct.unpack("<Q", file.read(8))
            if present and not entry & 1:
                return None
            if level in ps and entry & 0x80:
                size = 1 << (12 + 9 * (level - 1))
                if leaf:
                    return leaf(entry & mask, va, size)
                return (entry & mask & -size) | va % size
        return (entry & mask) + va % 4096


@alternative("gva2gpa")
def with_a_loop(cr3, va, ram):
    return _walk(cr3, va, ram)


@alternative("gva2gpa")
def recursive(cr3, va, ram):
    signed = va - (1 << 64) if va >> 63 else va
    if not -(1 << 47) <= signed < 1 << 47:
        return None
    with open(ram, "rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as memory:

        def below(table, shift):
            if shift == 3:
                return table | va & 0xFFF
            at = table + 8 * (va >> shift & 0x1FF)
            entry = int.from_bytes(memory[at : at + 8], "little")
            if not entry & 1:
                return None
            if entry & 0x80 and shift in (30, 21):
                return (entry & 0xFFFFFFFFFFFFF) >> shift << shift | va & ((1 << shift) - 1)
            return below(entry & ADDRESS, shift - 9)

        return below(cr3 & ADDRESS, 39)


@mutant("gva2gpa", "large-page-followed")
def ignores_ps(cr3, va, ram):
    return _walk(cr3, va, ram, ps=())


@mutant("gva2gpa", "large-page-followed")
def large_page_with_a_small_offset(cr3, va, ram):
    return _walk(cr3, va, ram, leaf=lambda base, va, size: base | va % 4096)


@mutant("gva2gpa", "high-bits-kept")
def keeps_nx(cr3, va, ram):
    return _walk(cr3, va, ram, mask=~0xFFF & (1 << 64) - 1)


@mutant("gva2gpa", "high-bits-kept")
def keeps_the_software_bits(cr3, va, ram):
    return _walk(cr3, va, ram, mask=0x7FFF_FFFF_FFFF_F000)


@mutant("gva2gpa", "cr3-low-bits")
def keeps_the_low_bits_of_cr3(cr3, va, ram):
    if va >> 47 not in (0, 0x1FFFF):
        return None
    with open(ram, "rb") as file:
        table = cr3
        for shift in (39, 30, 21, 12):
            file.seek(table + 8 * (va >> shift & 511))
            (entry,) = struct.unpack("<Q", file.read(8))
            if not entry & 1:
                return None
            if entry & 0x80 and shift in (21, 30):
                return entry & ADDRESS & -(1 << shift) | va & (1 << shift) - 1
            table = entry & ADDRESS
        return table | va & 4095


@mutant("gva2gpa", "not-canonical")
def ignores_the_upper_bits(cr3, va, ram):
    return _walk(cr3, va, ram, sign=False)


@mutant("gva2gpa", "absent-followed")
def follows_absent_entries(cr3, va, ram):
    return _walk(cr3, va, ram, present=False)


@mutant("gva2gpa", "absent-followed")
def zero_is_absent(cr3, va, ram):
    if va >> 47 not in (0, 0x1FFFF):
        return None
    with open(ram, "rb") as file:
        table = cr3 & ADDRESS
        for shift in (39, 30, 21, 12):
            file.seek(table + 8 * (va >> shift & 511))
            (entry,) = struct.unpack("<Q", file.read(8))
            if entry == 0:
                return None
            table = entry & ADDRESS
        return table | va & 4095


@mutant("gva2gpa", "pat-taken-for-size")
def ps_on_every_level(cr3, va, ram):
    return _walk(cr3, va, ram, ps=(1, 2, 3), leaf=lambda base, va, size: base & -size | va % (1 << 21))


@mutant("gva2gpa", "large-page-misplaced")
def keeps_bit_12(cr3, va, ram):
    return _walk(cr3, va, ram, leaf=lambda base, va, size: base | va % size)


@mutant("gva2gpa", "large-page-misplaced")
def knows_no_gigabyte(cr3, va, ram):
    return _walk(cr3, va, ram, ps=(2,))


@mutant("gva2gpa", "wrong-walk")
def entries_of_four_bytes(cr3, va, ram):
    with open(ram, "rb") as file:
        table = cr3 & ADDRESS
        for shift in (39, 30, 21, 12):
            file.seek(table + 4 * (va >> shift & 511))
            (table,) = struct.unpack("<I", file.read(4))
            if not table & 1:
                return None
        return table & -4096 | va & 4095


@mutant("gva2gpa", "wrong-walk")
def from_the_wrong_end(cr3, va, ram):
    with open(ram, "rb") as file:
        table = cr3 & ADDRESS
        for shift in (12, 21, 30, 39):
            file.seek(table + 8 * (va >> shift & 511))
            (entry,) = struct.unpack("<Q", file.read(8))
            if not entry & 1:
                return -1
            table = entry & ADDRESS
        return table | va & 4095


@mutant("gva2gpa", "wrong-walk")
def page_without_its_offset(cr3, va, ram):
    found = _walk(cr3, va, ram)
    return found and found & -4096


@mutant("gva2gpa", "unanswered")
def walk_untouched(cr3, va, ram):
    raise NotImplementedError


# ── walk_refs ────────────────────────────────────────────────────────────────────────────────────────────────────────

SPARED = {1 << 12: 0, 1 << 21: 1, 1 << 30: 2}


@alternative("walk_refs")
def formula(n, m, guest_page=4096, host_page=4096):
    return (n - SPARED[guest_page] + 1) * (m - SPARED[host_page] + 1) - 1


@alternative("walk_refs")
def counted(n, m, guest_page=4096, host_page=4096):
    reads = 0

    def host():
        nonlocal reads
        reads += m - SPARED[host_page]

    for _ in range(n - SPARED[guest_page]):
        host()
        reads += 1
    host()
    return reads


@mutant("walk_refs", "product")
def product(n, m, guest_page=4096, host_page=4096):
    return n * m


@mutant("walk_refs", "sum")
def one_after_the_other(n, m, guest_page=4096, host_page=4096):
    return n + m


@mutant("walk_refs", "counts-the-data")
def twenty_five(n, m, guest_page=4096, host_page=4096):
    return (n + 1) * (m + 1)


@mutant("walk_refs", "wrong-count")
def twenty_four(n, m, guest_page=4096, host_page=4096):
    return 24


@mutant("walk_refs", "last-translation-forgotten")
def without_the_last(n, m, guest_page=4096, host_page=4096):
    return n * (m + 1)


@mutant("walk_refs", "guest-entries-forgotten")
def host_reads_only(n, m, guest_page=4096, host_page=4096):
    return (n + 1) * m


@mutant("walk_refs", "large-pages-ignored")
def small_pages_only(n, m, guest_page=4096, host_page=4096):
    return n * m + n + m


@mutant("walk_refs", "large-pages-ignored")
def large_pages_in_the_guest_only(n, m, guest_page=4096, host_page=4096):
    return (n - SPARED[guest_page] + 1) * (m + 1) - 1


@mutant("walk_refs", "unanswered")
def refs_untouched(n, m, guest_page=4096, host_page=4096):
    raise NotImplementedError
