"""Programs that run without any operating system: QEMU's ``-kernel`` loads them by the Multiboot convention.

::

    0x100000  Multiboot header (32 bytes): magic, flags, checksum, where to load, where to begin
    0x100020  32-bit code, interrupts off, paging off, flat segments
              its data follows

They say hello on the first serial port (0x3f8) within 0.1 s, and one counts in RAM at 0x500, so that a snapshot or a
migration can be told from a restart.

Source: Multiboot Specification version 0.6.96, sections 3.1 to 3.3; Intel SDM volume 3, chapter 6 (interrupts);
8259A and 8254 data sheets.
"""

from __future__ import annotations

import struct
from pathlib import Path

from ..error import UsageError
from . import cache
from .listing import link
from .ramcounter import COUNTER_GPA

_LOAD_ADDRESS = 0x100000
_HEADER_BYTES = 32
_MAGIC, _ADDRESSES_GIVEN = 0x1BADB002, 0x10000
_DIRTY_FROM = 0x400000
_PAGE_BYTES = 4096
_MAX_DIRTY_MIB = 3072

# After a reset the number of before is still in RAM: clear it first, so that the printed line means "from 0".
_CLEAR = """
    31 c0                   ; xor eax, eax
    a3 00 05 00 00          ; mov dword ptr [0x500], eax
"""

# Print the text `text` on the serial port, then fall through.
_PRINT = """
    fa                      ; cli
    bc 00 00 09 00          ; mov esp, 0x90000
    be {text:4}             ; mov esi, text
    66 ba f8 03             ; mov dx, 0x3f8
next:
    ac                      ; lodsb al, byte ptr [esi]
    84 c0                   ; test al, al
    74 {printed:r}          ; je printed
    ee                      ; out dx, al
    eb {next:r}             ; jmp next
printed:
"""

HELLO = (
    _PRINT
    + """
halt:
    f4                      ; hlt
    eb {halt:r}             ; jmp halt
"""
)

# Count a hundred times a second, woken by the timer, so that a host with one processor stays usable.
COUNTER = (
    _CLEAR
    + _PRINT
    + """
    0f 01 15 {gdtr:4}       ; lgdt [gdtr]             our own segments: iret reads them again
    0f 01 1d {idtr:4}       ; lidt [idtr]
    b9 {handler:4}          ; mov ecx, handler        write the gate of interrupt 0x20
    66 89 0d {gate:4}       ; mov word ptr [gate], cx
    c1 e9 10                ; shr ecx, 0x10
    66 89 0d {gate_high:4}  ; mov word ptr [gate_high], cx
    b0 11                   ; mov al, 0x11            interrupt controller: begin
    e6 20                   ; out 0x20, al
    b0 20                   ; mov al, 0x20            its line 0 is interrupt 0x20
    e6 21                   ; out 0x21, al
    b0 04                   ; mov al, 4               the second one hangs on line 2
    e6 21                   ; out 0x21, al
    b0 01                   ; mov al, 1               8086 mode
    e6 21                   ; out 0x21, al
    b0 fe                   ; mov al, 0xfe            only line 0, the timer, may interrupt
    e6 21                   ; out 0x21, al
    b0 34                   ; mov al, 0x34            timer 0, low and high byte, periodic
    e6 43                   ; out 0x43, al
    b0 9c                   ; mov al, 0x9c            1193182 Hz / 0x2e9c = 100 Hz
    e6 40                   ; out 0x40, al
    b0 2e                   ; mov al, 0x2e
    e6 40                   ; out 0x40, al
round:
    ff 05 00 05 00 00       ; inc dword ptr [0x500]
    fb                      ; sti
    f4                      ; hlt
    eb {round:r}            ; jmp round
handler:
    50                      ; push eax
    b0 20                   ; mov al, 0x20            the interrupt is served
    e6 20                   ; out 0x20, al
    58                      ; pop eax
    cf                      ; iretd
"""
)

# Write one word in each page of `pages` pages, then count; never rests.
DIRTY = (
    _CLEAR
    + _PRINT
    + """
round:
    bf {from:4}             ; mov edi, from
    b9 {pages:4}            ; mov ecx, pages
page:
    ff 07                   ; inc dword ptr [edi]
    81 c7 00 10 00 00       ; add edi, 0x1000
    49                      ; dec ecx
    75 {page:r}             ; jne page
    ff 05 00 05 00 00       ; inc dword ptr [0x500]
    eb {round:r}            ; jmp round
"""
)

# Segment descriptors: none, flat code, flat data. Each is limit 0-15, base 0-15, base 16-23, access, flags, base 24-31.
_GDT = struct.pack("<QQQ", 0, 0x00CF9A000000FFFF, 0x00CF92000000FFFF)
_GATES = 0x21
_CODE_SELECTOR, _INTERRUPT_GATE = 0x08, 0x8E00


def hello(message: str = "Hello from bare metal") -> Path:
    """Return a Multiboot image that prints `message` on the serial port and halts: ``Machine("-kernel", path)``.

    Raises:
        UsageError: the message is empty, longer than 1000 characters or not ASCII.
    """
    code = link(HELLO, _LOAD_ADDRESS + _HEADER_BYTES, data={"text": _text(message)})
    return cache.image(multiboot(code), "hello.bin")


def counter(dirty_mib: int = 0) -> Path:
    """Return a Multiboot image that prints ``counter`` and counts in RAM forever, a 32-bit number at 0x500.

    It counts from 1, a hundred times a second and at rest in between; or, when it is to dirty memory, once per round
    and without rest.

    Args:
        dirty_mib: MiB of RAM to write to in each round, one word per page, from 4 MiB on. The guest needs that much
            RAM and 4 MiB more.

    Raises:
        UsageError: `dirty_mib` is negative or above 3072.
    """
    if not 0 <= dirty_mib <= _MAX_DIRTY_MIB:
        raise UsageError(f"dirty_mib is {dirty_mib}; expected 0 to {_MAX_DIRTY_MIB} MiB")
    text = {"text": _text("counter" + (f", dirtying {dirty_mib} MiB" if dirty_mib else ""))}
    if dirty_mib:
        constants = {"from": _DIRTY_FROM, "pages": (dirty_mib << 20) // _PAGE_BYTES}
        code = link(DIRTY, _LOAD_ADDRESS + _HEADER_BYTES, data=text, constants=constants)
    else:
        code = _idle_counter(text)
    return cache.image(multiboot(code), f"counter-{dirty_mib}.bin")


def multiboot(code: bytes) -> bytes:
    """Return `code` behind a Multiboot header that loads it at 1 MiB and begins at its first byte."""
    end = _LOAD_ADDRESS + _HEADER_BYTES + len(code)
    checksum = -(_MAGIC + _ADDRESSES_GIVEN) & 0xFFFFFFFF
    addresses = (_LOAD_ADDRESS, _LOAD_ADDRESS, end, end, _LOAD_ADDRESS + _HEADER_BYTES)
    return struct.pack("<8I", _MAGIC, _ADDRESSES_GIVEN, checksum, *addresses) + code


def _idle_counter(text: dict[str, bytes]) -> bytes:
    """Link `COUNTER` with its descriptor tables, whose addresses are known once the code's length is."""
    origin = _LOAD_ADDRESS + _HEADER_BYTES
    gate = struct.pack("<HHHH", 0, _CODE_SELECTOR, _INTERRUPT_GATE, 0)
    data = {
        **text,
        "gdt": _GDT,
        "idt": bytes(8 * (_GATES - 1)),
        "gate": gate[:6],
        "gate_high": gate[6:],
        "gdtr": bytes(6),
        "idtr": bytes(6),
    }
    code_bytes = len(link(COUNTER, origin, constants=dict.fromkeys(data, 0)))
    at, address = {}, origin + code_bytes
    for name, piece in data.items():
        at[name] = address
        address += len(piece)
    data["gdtr"] = struct.pack("<HI", len(_GDT) - 1, at["gdt"])
    data["idtr"] = struct.pack("<HI", 8 * _GATES - 1, at["idt"])
    return link(COUNTER, origin, data=data)


def _text(message: str) -> bytes:
    if not message or len(message) > 1000 or not message.isascii() or "\0" in message:
        raise UsageError(f"the message is {message!r}; expected 1 to 1000 ASCII characters")
    return message.encode("ascii") + b"\r\n\0"


assert COUNTER_GPA == 0x500, "the listings above say 0x500"
