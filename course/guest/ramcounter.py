"""The program that counts in the RAM of a Linux guest: 0x500 of its physical memory, twenty times a second.

Address 0x500 is free on a PC (above the BIOS data area), and Linux keeps the first page out of its own use, so the
number is nowhere but in RAM: a restart loses it, a snapshot or a migration keeps it. Bare-metal guests of
`course.guest.baremetal` count at the same place.

It is a static ELF program of about 200 bytes and needs no C library.

Source: System V ABI AMD64, section 3.4 and appendix A.2 (system calls); elf(5).
"""

from __future__ import annotations

import struct

from .listing import link

COUNTER_GPA = 0x500

_LOAD_ADDRESS = 0x400000
_HEADERS_BYTES = 64 + 56
_EM_X86_64 = 62

LISTING = """
start:
    bf {path:4}             ; mov edi, path           open(
    be 02 00 00 00          ; mov esi, 2                "/dev/mem", O_RDWR
    b8 02 00 00 00          ; mov eax, 2              )
    0f 05                   ; syscall
    85 c0                   ; test eax, eax
    78 {failed:r}           ; js failed
    41 89 c0                ; mov r8d, eax            mmap( fd,
    45 31 c9                ; xor r9d, r9d              from its first byte,
    31 ff                   ; xor edi, edi              wherever it fits,
    be 00 10 00 00          ; mov esi, 0x1000           one page,
    ba 03 00 00 00          ; mov edx, 3                readable and writable,
    41 ba 01 00 00 00       ; mov r10d, 1               shared
    b8 09 00 00 00          ; mov eax, 9              )
    0f 05                   ; syscall
    48 85 c0                ; test rax, rax
    78 {failed:r}           ; js failed
    48 89 c3                ; mov rbx, rax
    c7 83 00 05 00 00 00 00 00 00 ; mov dword ptr [rbx + 0x500], 0
count:
    ff 83 00 05 00 00       ; inc dword ptr [rbx + 0x500]
    bf {pause:4}            ; mov edi, pause          nanosleep(0.05 s)
    31 f6                   ; xor esi, esi
    b8 23 00 00 00          ; mov eax, 0x23
    0f 05                   ; syscall
    eb {count:r}            ; jmp count
failed:
    bf 01 00 00 00          ; mov edi, 1              exit(1)
    b8 3c 00 00 00          ; mov eax, 0x3c
    0f 05                   ; syscall
"""


def program() -> bytes:
    """Return the ELF executable."""
    entry = _LOAD_ADDRESS + _HEADERS_BYTES
    code = link(LISTING, entry, data={"path": b"/dev/mem\0", "pause": struct.pack("<QQ", 0, 50_000_000)})
    size = _HEADERS_BYTES + len(code)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = ident + struct.pack("<HHIQQQIHHHHHH", 2, _EM_X86_64, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, _LOAD_ADDRESS, _LOAD_ADDRESS, size, size, 0x1000)
    return header + segment + code
