"""Guests that use page tables, built step by step beside a model of what a perfect machine would do with them.

::

    guest = Paged(random.Random(1))
    guest.page(0x600000, writable=True)       # a page of data
    guest.store(0x600000, 11)                 # instructions of the guest, in order
    guest.load(0x600000)                      # sends what it reads to a port
    guest.forbid(0x600000)                    # its entry loses W, then invlpg
    guest.store(0x600000, 12)                 # a page fault; the guest's handler repairs the entry
    guest.machine()                           # ram, cr3, entry, handler: arguments for `ShadowGuest`
    guest.output, guest.injected              # what a perfect machine sends, and which faults it gives to the guest

The guest's tables are in its own memory, and it changes them itself, with plain stores.

::

    virtual     0x400000  code         0x500000 …  its own page tables (those of level 1)       0x600000 …  data
"""

from __future__ import annotations

import random
from typing import Any

from ..isa.assembler import assemble
from .paging import MIB_2, PAGE, PS, A, D, P, Tables, U, W

CODE, TABLES_AT, DATA = 0x400000, 0x500000, 0x600000
RAM = 384 << 10
_FIRST_TABLE, _FIRST_FRAME = 0x4000, 0x10000
_HANDLER = """
mov eax, r14d
.byte 0xe7, 0xe9        ; out 0xe9, eax: which address faulted
mov [r12], r11          ; the repair that the program has prepared
jmp r15
"""


class Paged:
    """Such a guest, growing.

    Args:
        rng: chooses where pages lie in physical memory.

    Attributes:
        output: what a perfect machine sends.
        injected: the page faults that a perfect machine gives to the guest, as (address, write).
        touched: virtual pages that the guest uses, code and tables included.
        stale: pages whose entry the guest has changed and announced, as (page, "invlpg" or "cr3").
    """

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._ram = bytearray(RAM)
        self._tables = Tables(self._ram, first=_FIRST_TABLE, table_flags=P | W | U | A)
        self._free = rng.sample(range(_FIRST_FRAME, RAM, PAGE), (RAM - _FIRST_FRAME) // PAGE)
        self._entries: dict[int, int] = {}
        self._words: dict[int, int] = {}
        self._source: list[str] = []
        self._windows: dict[int, int] = {}
        self.output = b""
        self.injected: list[tuple[int, bool]] = []
        self.touched: set[int] = {CODE}
        self.stale: list[tuple[int, str]] = []
        for at in range(4):
            self._tables.map(CODE + at * PAGE, self._free.pop(), P | U | A)

    # ── what lies where, before the guest begins ────────────────────────────────────────────────────────────────────

    def page(self, address: int, *, writable: bool, value: int = 0) -> int:
        """Give the guest a page of data that begins with a number; returns its physical address."""
        frame = self._free.pop()
        self._set(address, frame | P | U | A | (W | D if writable else 0))
        self._ram[frame : frame + 4] = value.to_bytes(4, "little")
        self._words[frame] = value
        return frame

    def hole(self, address: int) -> None:
        """Leave an address without a page, in a table that exists."""
        self._set(address, 0)

    def large_page(self, address: int) -> None:
        """Let 2 MiB from an address on (a multiple of 2 MiB) lead to physical address 0: a second view of its RAM."""
        self._tables.map(address, 0, P | W | U | A | D, MIB_2)
        self._entries |= {address + frame: frame | P | W | U for frame in range(0, RAM, PAGE)}

    def write_protect_table(self, address: int) -> None:
        """Clear W above the pages around an address: in the entry that leads to their table."""
        where = self._tables.entry(address, 2)
        self._tables.write(where, self._tables.read(where) & ~W)
        for page in [page for page in self._entries if page // MIB_2 == address // MIB_2]:
            self._entries[page] &= ~W

    # ── what it does ────────────────────────────────────────────────────────────────────────────────────────────────

    def store(self, address: int, value: int, repair: int | None = None) -> None:
        """Store a number at the beginning of a page; where its tables forbid it, the guest repairs its entry first."""
        self._access(address, W | P, repair)
        self._source.append(f"mov dword [{address:#x}], {value:#x}")
        self._words[self._frame(address)] = value

    def load(self, address: int, repair: int | None = None) -> None:
        """Load a number from the beginning of a page and send it."""
        self._access(address, P, repair)
        self._source.append(f"mov eax, [{address:#x}]\n.byte 0xe7, 0xe9")
        self.output += self._words[self._frame(address)].to_bytes(4, "little")

    def change(self, address: int, entry: int, announce: str) -> None:
        """Let the guest write an entry of its own tables and announce it by ``"invlpg"`` or ``"cr3"``."""
        self._source.append(f"mov qword [{self._entry_at(address):#x}], {entry:#x}")
        self._entries[address] = entry
        self.announce(address, announce)

    def store_above(self, address: int, value: int) -> None:
        """Store where the entry *above* the last one forbids it; the guest's handler repairs that entry."""
        where = self._entry_at(address, 2)
        entry = self._tables.read(self._tables.entry(address, 2)) | W
        self._source.append(f"mov r12, {where:#x}\nmov r11, {entry:#x}\nmov dword [{address:#x}], {value:#x}")
        self._entries[address] |= W
        self._words[self._frame(address)] = value
        self.injected.append((address, True))
        self.output += address.to_bytes(4, "little")

    def present(self, address: int) -> bool:
        """Tell whether the guest's entry for a page is present by now."""
        return bool(self._entries[address] & P)

    def announce(self, address: int, how: str) -> None:
        """Let it execute invlpg, or write cr3 again."""
        if how == "invlpg":
            place = address.to_bytes(4, "little")
            self._source.append(".byte 0x0f, 0x01, 0x3c, 0x25, " + ", ".join(map(str, place)))
        else:
            self._source.append(".byte 0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8")  # mov rax, cr3; mov cr3, rax
        self.stale.append((address, how))

    def forbid(self, address: int, announce: str = "invlpg") -> None:
        """Take away W."""
        self.change(address, self._entries[address] & ~W, announce)

    def allow(self, address: int, announce: str = "invlpg") -> None:
        """Give W."""
        self.change(address, self._entries[address] | W, announce)

    def remove(self, address: int, announce: str = "invlpg") -> None:
        """Clear the entry."""
        self.change(address, 0, announce)

    def move(self, address: int, announce: str = "invlpg") -> None:
        """Let the page lead to another physical page, which holds another number."""
        self.change(address, self.spare() | P | W | U, announce)

    def spare(self) -> int:
        """Return the address of a physical page that nothing leads to; it begins with some number."""
        frame, value = self._free.pop(), self._rng.randrange(1 << 32)
        self._ram[frame : frame + 4] = value.to_bytes(4, "little")
        self._words[frame] = value
        return frame

    def machine(self) -> dict[str, Any]:
        """Return the arguments for `ShadowGuest`, plain data: ram, cr3, entry, handler."""
        body = assemble("\n".join([*self._source, "hlt"]), "x86_64", CODE)
        handler = CODE + len(body)
        image = body + assemble(_HANDLER, "x86_64", handler)
        assert len(image) <= 4 * PAGE, "the guest's code has four pages"
        for at in range(0, len(image), PAGE):
            frame = self._tables.read(self._tables.entry(CODE + at)) & -PAGE
            piece = image[at : at + PAGE]
            self._ram[frame : frame + len(piece)] = piece
        return {"ram": bytes(self._ram), "cr3": self._tables.root, "entry": CODE, "handler": handler}

    def _access(self, address: int, needed: int, repair: int | None) -> None:
        self.touched.add(address & -PAGE)
        if self._entries[address] & needed == needed:
            return
        entry = (self._entries[address] & -PAGE or self.spare()) | P | W | U if repair is None else repair
        self._source.append(f"mov r12, {self._entry_at(address):#x}\nmov r11, {entry:#x}")
        self._entries[address] = entry
        self.injected.append((address, bool(needed & W)))
        self.output += address.to_bytes(4, "little")

    def _entry_at(self, address: int, level: int = 1) -> int:
        """The virtual address at which the guest finds the entry of a page."""
        where = self._tables.entry(address, level)
        table = where & -PAGE
        if table not in self._windows:
            window = TABLES_AT + len(self._windows) * PAGE
            self._windows[table] = window
            self._tables.map(window, table, P | W | U | A | D)
        self.touched.add(self._windows[table])
        return self._windows[table] + where % PAGE

    def _set(self, address: int, entry: int) -> None:
        where = self._tables.map(address, 0)
        self._tables.write(where, entry)
        self._entries[address] = entry

    def _frame(self, address: int) -> int:
        return self._entries[address] & -PAGE & ~PS


def example(seed: int = 33) -> Paged:
    """Return the guest of the lesson: three pages, one of them for reading only, and a change of the tables."""
    guest = Paged(random.Random(seed))
    one, two, constant = DATA, DATA + PAGE, DATA + 2 * PAGE
    guest.page(one, writable=True)
    guest.page(two, writable=True)
    guest.page(constant, writable=False, value=33)
    guest.store(one, 11)
    guest.store(two, 22)
    guest.load(one)
    guest.load(constant)
    guest.store(constant, 34)
    guest.load(constant)
    return guest
