"""Page tables as bytes in memory: their bits, a builder, and a recorder that counts the reads of whoever walks them.

::

    63  62 … 52  51 …………………………………… 12  11 … 9   8   7   6   5   4    3    2  1  0
    NX  ignored  physical address of     ignored  G  PS  D   A  PCD  PWT  U  W  P
                 a table or a page

A table is 512 such entries, little endian, in one page of 4096 bytes. Each level of tables takes nine bits of the
virtual address, the lowest twelve are the place within the page:

::

    level             4 (PML4)   3 (PDPT)   2 (PD)     1 (PT)     page
    bits of address   47 … 39    38 … 30    29 … 21    20 … 12    11 … 0

An entry of level 2 or 3 with PS set is no table but a large page, of 2 MiB or 1 GiB.

The second dimension of hardware virtualization (EPT, nested paging) has the same shape. In Intel's EPT the lowest
three bits mean read, write, execute, so ``flags=7`` allows everything in both; AMD's nested tables are these tables.
`Tables` builds either, with any number of levels up to five, at any place of a `bytearray`. Nothing here walks: that
is the work of whoever uses it.

::

    ram = bytearray(1 << 20)
    tables = Tables(ram, first=0x1000)              # takes pages for tables from 0x1000 on
    tables.map(0x400000, 0x8000, P | W | U)         # a page of 4 KiB
    tables.map(0x40000000, 0x0, P | W, size=MIB_2)  # one of 2 MiB
    recorder = Recorder(ram)
    my_walker(tables.root, 0x400123, recorder)      # calls recorder(address) for each entry
    recorder.reads                                  # [0x1000, 0x2000, 0x3010, 0x4000]

Source: Intel SDM vol. 3, sections 4.5 (4-level and 5-level paging) and 29.3 (EPT); AMD APM vol. 2, 5.3 and 15.25.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from ..error import UsageError

P, W, U, PWT, PCD, A, D, PS, G = (1 << bit for bit in range(9))
NX = 1 << 63
PAGE, MIB_2, GIB_1 = 1 << 12, 1 << 21, 1 << 30
ADDRESS = 0x000FFFFFFFFFF000
"""The bits of an entry, or of cr3, that hold a physical address."""
ENTRIES = 512
_NAMES = {P: "P", W: "W", U: "U", PWT: "PWT", PCD: "PCD", A: "A", D: "D", PS: "PS", G: "G", NX: "NX"}


def index(address: int, level: int) -> int:
    """Return which of a table's 512 entries an address selects; level 1 is the last one before a page."""
    return address >> (12 + 9 * (level - 1)) & (ENTRIES - 1)


def describe(entry: int) -> str:
    """Name the bits of an entry, such as ``"0x8000 P W U"``; ``"not present"`` when P is clear."""
    if not entry & P:
        return "not present"
    return " ".join([f"{entry & ADDRESS:#x}", *(name for bit, name in _NAMES.items() if entry & bit)])


class Recorder:
    """Reads entries for a walker and keeps the addresses, in order.

    Args:
        memory: the bytes, or a function that returns `size` bytes at an address.

    Attributes:
        reads: physical address of each entry that was asked for.
    """

    def __init__(self, memory: bytes | bytearray | Callable[[int, int], bytes]) -> None:
        self._memory = memory
        self.reads: list[int] = []

    def __call__(self, address: int) -> int:
        """Return the 64-bit entry at a physical address, and count it.

        Raises:
            UsageError: there is no memory at that address.
        """
        self.reads.append(address)
        data = self._memory(address, 8) if callable(self._memory) else bytes(self._memory[address : address + 8])
        if address < 0 or len(data) != 8:
            raise UsageError(f"read number {len(self.reads)} was at {address:#x}, where there is no memory")
        return int.from_bytes(data, "little")


class Tables:
    """Builds page tables in a `bytearray` that stands for physical memory.

    Args:
        memory: physical memory; addresses are offsets in it.
        first: physical address of the root; further tables follow page by page.
        levels: 1 to 5.
        table_flags: bits of the entries that lead to tables.
        base: physical address of the first byte of `memory`.

    Attributes:
        root: physical address of the top table, what cr3 holds.
        end: physical address behind the last table so far.
        tables: physical address of every table, by (level, the part of the virtual address above it).
    """

    def __init__(
        self, memory: bytearray, *, first: int, levels: int = 4, table_flags: int = P | W | U, base: int = 0
    ) -> None:
        if not 1 <= levels <= 5 or first % PAGE:
            raise UsageError(
                f"{levels} levels of tables at {first:#x}: expected 1 to 5 levels, and a multiple of 4096 for the root"
            )
        self.memory = memory
        self.levels = levels
        self.table_flags = table_flags
        self.base = base
        self.root = self.end = first
        self.tables: dict[tuple[int, int], int] = {(levels, 0): self._new()}

    def map(self, virtual: int, physical: int, flags: int = P | W | U, size: int = PAGE) -> int:
        """Let a virtual page lead to a physical one; makes the tables in between.

        Args:
            virtual: any address of the page; bits above the topmost level are ignored.
            physical: a multiple of `size`.
            flags: of the last entry; PS is added for large pages.
            size: 4 KiB, 2 MiB or 1 GiB.

        Returns:
            The physical address of the entry that was written.

        Raises:
            UsageError: the page is not possible, or memory for tables has run out.
        """
        level = {PAGE: 1, MIB_2: 2, GIB_1: 3}.get(size, 0)
        if not 1 <= level <= self.levels or physical % size:
            raise UsageError(
                f"a page of {size} bytes at {physical:#x} under {self.levels} levels: expected 4 KiB, 2 MiB or 1 GiB,"
                " aligned, and as many levels as that takes"
            )
        where = self.entry(virtual, level, make=True)
        self.write(where, physical | flags | (PS if level > 1 else 0))
        return where

    def unmap(self, virtual: int, level: int = 1) -> None:
        """Clear the entry for a virtual page."""
        self.write(self.entry(virtual, level), 0)

    def entry(self, virtual: int, level: int = 1, *, make: bool = False) -> int:
        """Return the physical address of the entry for an address on a level.

        Args:
            virtual: the address.
            level: 1 for pages of 4 KiB.
            make: make missing tables on the way.

        Raises:
            UsageError: there is no such table yet.
        """
        for above in range(self.levels, level, -1):
            key = (above - 1, self._prefix(virtual, above - 1))
            if key not in self.tables:
                if not make:
                    raise UsageError(f"no table of level {above - 1} covers {virtual:#x} yet: map a page there first")
                self.tables[key] = self._new()
                where = self.tables[above, self._prefix(virtual, above)] + 8 * index(virtual, above)
                self.write(where, self.tables[key] | self.table_flags)
        return self.tables[level, self._prefix(virtual, level)] + 8 * index(virtual, level)

    def read(self, where: int) -> int:
        """Return the entry at a physical address."""
        return int(struct.unpack_from("<Q", self.memory, where - self.base)[0])

    def write(self, where: int, entry: int) -> None:
        """Change the entry at a physical address."""
        struct.pack_into("<Q", self.memory, where - self.base, entry)

    def _prefix(self, virtual: int, level: int) -> int:
        """The bits that select a table of `level`."""
        return (virtual & ((1 << 12 + 9 * self.levels) - 1)) >> (12 + 9 * level)

    def _new(self) -> int:
        where, self.end = self.end, self.end + PAGE
        if not 0 <= where - self.base <= len(self.memory) - PAGE:
            raise UsageError(f"no memory for another table at {where:#x}: {len(self.memory)} bytes at {self.base:#x}")
        return where
