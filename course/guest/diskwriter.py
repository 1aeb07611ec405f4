"""A program without any operating system that writes to its first IDE disk, forever and in a known order.

Write number k (1, 2, 3, …) puts k, a 32-bit little-endian number followed by zeros, into sector k mod N. So whoever
looks at the N sectors can tell after which write the picture was taken, or that it was taken at no single moment: the
live backup of a disk is right when it is what the disk was after *some* write.

The number of the last finished write stands in RAM at 0x500, where all guests of this course count.

Source: ATA/ATAPI-6 (T13/1410D), sections 7 (registers) and 8.62 (WRITE SECTOR(S)), primary channel at 0x1f0.
"""

from __future__ import annotations

from pathlib import Path

from ..error import UsageError
from . import cache
from .baremetal import multiboot
from .listing import link

SECTOR_BYTES = 512
_ENTRY = 0x100020

WRITER = """
    31 db                   ; xor ebx, ebx
round:
    43                      ; inc ebx                 write number k
    89 d8                   ; mov eax, ebx
    31 d2                   ; xor edx, edx
    b9 {sectors:4}          ; mov ecx, sectors
    f7 f1                   ; div ecx                 edx = k mod sectors
    89 d7                   ; mov edi, edx
    66 ba f2 01             ; mov dx, 0x1f2           one sector
    b0 01                   ; mov al, 1
    ee                      ; out dx, al
    89 f8                   ; mov eax, edi            its number, 28 bits over four registers
    66 42                   ; inc dx
    ee                      ; out dx, al
    c1 e8 08                ; shr eax, 8
    66 42                   ; inc dx
    ee                      ; out dx, al
    c1 e8 08                ; shr eax, 8
    66 42                   ; inc dx
    ee                      ; out dx, al
    66 42                   ; inc dx
    b0 e0                   ; mov al, 0xe0            first drive, linear addresses
    ee                      ; out dx, al
    66 42                   ; inc dx
    b0 30                   ; mov al, 0x30            WRITE SECTOR(S)
    ee                      ; out dx, al
ready:
    ec                      ; in al, dx
    a8 08                   ; test al, 8              until it asks for data
    74 {ready:r}            ; je ready
    89 1d {buffer:4}        ; mov dword ptr [buffer], ebx
    be {buffer:4}           ; mov esi, buffer
    b9 00 01 00 00          ; mov ecx, 0x100
    66 ba f0 01             ; mov dx, 0x1f0
    f3 66 6f                ; rep outsw dx, word ptr [esi]
    66 ba f7 01             ; mov dx, 0x1f7
busy:
    ec                      ; in al, dx
    a8 80                   ; test al, 0x80           until it is done
    75 {busy:r}             ; jne busy
    89 1d 00 05 00 00       ; mov dword ptr [0x500], ebx
    eb {round:r}            ; jmp round
"""


def writer(sectors: int = 64) -> Path:
    """Return a Multiboot image that writes to the first `sectors` sectors of the first IDE disk.

    Raises:
        UsageError: `sectors` is not 1 to 2^20.
    """
    if not 1 <= sectors <= 1 << 20:
        raise UsageError(f"sectors is {sectors}; expected 1 to {1 << 20}")
    code = link(WRITER, _ENTRY, data={"buffer": bytes(SECTOR_BYTES)}, constants={"sectors": sectors})
    return cache.image(multiboot(code), f"writer-{sectors}.bin")


def last_write(content: bytes, sectors: int) -> int | None:
    """Tell after which write a disk had this content.

    Args:
        content: the disk from its beginning, at least `sectors` sectors.
        sectors: as given to `writer`.

    Returns:
        The number of the last write, 0 for a disk that was never written to; None when the disk never looked so.
    """
    found = [content[i * SECTOR_BYTES : (i + 1) * SECTOR_BYTES] for i in range(sectors)]
    numbers = [int.from_bytes(sector[:4], "little") for sector in found]
    last = max(numbers)
    for i, (sector, number) in enumerate(zip(found, numbers, strict=True)):
        expected = max(0, last - (last - i) % sectors)
        if number != expected or any(sector[4:]):
            return None
    return last
