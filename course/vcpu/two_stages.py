"""Two-stage address translation as data: a guest's page tables, and the host's tables that move them about.

::

    gva ──guest's tables, from cr3──▶ gpa ──host's tables (EPT), from eptp──▶ hpa
              each table of the guest lies at a gpa, so reading it needs the second stage as well

Both are four levels of 512 entries of 8 bytes, with pages of 4 KiB. Host memory is a dict of 8-byte words by
host-physical address. In a guest's entry bit 0 is *present* and bit 1 *writable*; in an entry of the second stage bit 0
is *readable* and bit 1 *writable*. Bits 12 to 51 are the page's address in both, other bits do not matter here.

Source: Intel SDM vol. 3, the chapters on paging and on VMX address translation (EPT); AMD64 APM vol. 2, section 15.25.
"""

from __future__ import annotations

import itertools
import random

SHIFTS = (39, 30, 21, 12)
FRAME = 0x000FFFFFFFFFF000
PAGE = 4096
READ = PRESENT = 1
WRITE = 2


class TwoStages:
    """A guest's address space and what lies behind it.

    Args:
        seed: where guest-physical pages lie in the host is shuffled by it.

    Attributes:
        memory: host-physical address → 8-byte word.
        cr3: guest-physical address of the guest's root table.
        eptp: host-physical address of the second stage's root table.
        p2m: guest-physical page → host-physical page, of all RAM pages.
    """

    def __init__(self, seed: int | str = 0) -> None:
        self._rng = random.Random(f"two stages/{seed}")
        self._free_host = iter(self._rng.sample(range(0x1000, 0x8000), 2000))
        self._free_guest = itertools.count(self._rng.randrange(0x10, 0x40))
        self.memory: dict[int, int] = {}
        self.p2m: dict[int, int] = {}
        self.eptp = next(self._free_host) * PAGE
        self.cr3 = self.table()

    def table(self) -> int:
        """Take an empty page for a table of the guest; return its gpa."""
        gpa = next(self._free_guest) * PAGE
        self.back(gpa)
        return gpa

    def back(self, gpa: int, flags: int = READ | WRITE) -> int:
        """Put a page of the host behind a guest-physical page, or change its rights; return the host's page."""
        gpa &= FRAME
        table = self.eptp
        for shift in SHIFTS[:-1]:
            slot = table + 8 * (gpa >> shift & 511)
            if slot not in self.memory:
                self.memory[slot] = next(self._free_host) * PAGE | READ | WRITE | 4
            table = self.memory[slot] & FRAME
        slot = table + 8 * (gpa >> 12 & 511)
        if gpa not in self.p2m:
            self.p2m[gpa] = next(self._free_host) * PAGE
        self.memory[slot] = self.p2m[gpa] | flags if flags else 0
        return self.p2m[gpa]

    def map(self, gva: int, gpa: int, flags: int = PRESENT | WRITE) -> list[int]:
        """Map a page in the guest's tables; return the gpa of the entry of each level."""
        table, entries = self.cr3, []
        for shift in SHIFTS[:-1]:
            entries.append(table + 8 * (gva >> shift & 511))
            if not self.guest_word(entries[-1]):
                self.set_guest_word(entries[-1], self.table() | PRESENT | WRITE | 4)
            table = self.guest_word(entries[-1]) & FRAME
        entries.append(table + 8 * (gva >> 12 & 511))
        self.set_guest_word(entries[-1], gpa & FRAME | flags)
        return entries

    def guest_word(self, gpa: int) -> int:
        """Read a word of the guest's RAM."""
        return self.memory.get(self.p2m[gpa & FRAME] + gpa % PAGE, 0)

    def set_guest_word(self, gpa: int, value: int) -> None:
        """Write a word of the guest's RAM."""
        self.memory[self.p2m[gpa & FRAME] + gpa % PAGE] = value
