"""A CD that counts: a machine of a cluster whose life can be told from a new one, in 2 KiB and without any system.

The firmware loads it at 0x7c00. From then on it counts at 0x500 in RAM with each tick of the PC's clock, a hundred
times a second, and writes each number on the first serial port. Between two ticks the processor sleeps. The number is
nowhere but in RAM: a restart begins at 1, a snapshot or a migration goes on. At 0x504 is a number that each boot draws
anew, from the processor's time stamp counter: two moments with the same number belong to the same life.

Source: "El Torito" Bootable CD-ROM Format Specification 1.0; 8254 data sheet (mode 2, 1193182 Hz); 16550 data sheet.
"""

from __future__ import annotations

from pathlib import Path

from . import cache
from .iso import Tree, write_iso
from .listing import link

LIFE_GPA = 0x504

_LOAD_ADDRESS = 0x7C00
_CD_SECTOR_BYTES = 2048

LISTING = """
    fa                      ; cli
    31 c0                   ; xor ax, ax
    8e d8                   ; mov ds, ax
    8e c0                   ; mov es, ax
    8e d0                   ; mov ss, ax
    bc 00 7c                ; mov sp, 0x7c00
    fc                      ; cld
    b0 34                   ; mov al, 0x34            the PC's clock: a tick 100 times a second
    e6 43                   ; out 0x43, al
    b0 9c                   ; mov al, 0x9c            1193182 Hz / 100 = 0x2e9c
    e6 40                   ; out 0x40, al
    b0 2e                   ; mov al, 0x2e
    e6 40                   ; out 0x40, al
    fb                      ; sti
    66 c7 06 00 05 00 00 00 00 ; mov dword ptr [0x500], 0
    0f 31                   ; rdtsc                   another number in each life
    66 a3 04 05             ; mov dword ptr [0x504], eax
count:
    66 ff 06 00 05          ; inc dword ptr [0x500]
    66 a1 00 05             ; mov eax, dword ptr [0x500]
    66 bb 0a 00 00 00       ; mov ebx, 0xa
    bf {end:2}              ; mov di, end             digits from the last to the first
digit:
    66 31 d2                ; xor edx, edx
    66 f7 f3                ; div ebx
    80 c2 30                ; add dl, 0x30
    4f                      ; dec di
    88 15                   ; mov byte ptr [di], dl
    66 85 c0                ; test eax, eax
    75 {digit:r}            ; jne digit
    89 fe                   ; mov si, di
    ba f8 03                ; mov dx, 0x3f8
send:
    ac                      ; lodsb al, byte ptr [si]
    84 c0                   ; test al, al
    74 {sleep:r}            ; je sleep
    ee                      ; out dx, al
    eb {send:r}             ; jmp send
sleep:
    f4                      ; hlt                     until the next tick
    eb {count:r}            ; jmp count
"""


def sector() -> bytes:
    """Return the boot file: code and the room for one number."""
    code = link(LISTING, _LOAD_ADDRESS, data={"digits": b"0" * 10, "end": b"\r\n\0"})
    return code.ljust(510, b"\0") + b"\x55\xaa"


def cd() -> Path:
    """Return an ISO image that boots (El Torito, no emulation) and counts."""
    boot = sector().ljust(_CD_SECTOR_BYTES, b"\0")

    def write(directory: Path) -> None:
        write_iso(directory / "counter.iso", Tree(boot=boot, boot_name="boot.bin"), label="COUNTER")

    return cache.entry("images", cache.key_of("counter", boot), write).path / "counter.iso"
