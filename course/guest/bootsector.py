"""A disk and a CD that boot without an operating system: 512 bytes that the firmware loads at 0x7c00.

::

    0x000  16-bit code, then its message
    0x1b8  end of what code may use: a disk signature and four partition entries follow
    0x1fe  55 aa, without which the firmware goes on to the next device

Both print a message on the serial port and on the screen (through the BIOS) and halt: enough to see from which device
a machine booted.

Source: BIOS Boot Specification 1.01, section 6.5; "El Torito" Bootable CD-ROM Format Specification 1.0; ECMA-119.
"""

from __future__ import annotations

from pathlib import Path

from ..error import UsageError
from . import cache
from .iso import Tree, write_iso
from .listing import link

_LOAD_ADDRESS = 0x7C00
_CODE_ROOM_BYTES = 0x1B8
_DISK_BYTES = 1 << 20
_CD_SECTOR_BYTES = 2048

LISTING = """
    fa                      ; cli
    31 c0                   ; xor ax, ax
    8e d8                   ; mov ds, ax
    8e c0                   ; mov es, ax
    8e d0                   ; mov ss, ax
    bc 00 7c                ; mov sp, 0x7c00
    fc                      ; cld
    fb                      ; sti
    be {text:2}             ; mov si, text
next:
    ac                      ; lodsb al, byte ptr [si]
    84 c0                   ; test al, al
    74 {halt:r}             ; je halt
    50                      ; push ax
    b4 0e                   ; mov ah, 0xe             BIOS: write a character on the screen
    bb 07 00                ; mov bx, 7
    cd 10                   ; int 0x10
    58                      ; pop ax
    ba f8 03                ; mov dx, 0x3f8           and on the serial port
    ee                      ; out dx, al
    eb {next:r}             ; jmp next
halt:
    f4                      ; hlt
    eb {halt:r}             ; jmp halt
"""


def sector(message: str) -> bytes:
    """Return the 512 bytes of a boot sector that prints `message`.

    Raises:
        UsageError: the message is empty, not ASCII, or does not fit.
    """
    if not message or not message.isascii() or "\0" in message:
        raise UsageError(f"the message is {message!r}; expected ASCII characters")
    code = link(LISTING, _LOAD_ADDRESS, data={"text": message.encode("ascii") + b"\r\n\0"})
    if len(code) > _CODE_ROOM_BYTES:
        room = len(message) - (len(code) - _CODE_ROOM_BYTES)
        raise UsageError(f"the message has {len(message)} characters; a boot sector has room for {room}")
    return code.ljust(510, b"\0") + b"\x55\xaa"


def disk(message: str = "Hello from the disk", path: Path | None = None) -> Path:
    """Return a raw disk of 1 MiB whose boot sector prints `message`.

    The disk that is returned is shared by all who ask for the same message: attach it with ``snapshot=on`` or
    ``read-only``, or give `path` to have one of your own, written there.

    Raises:
        UsageError: see `sector`.
    """
    content = sector(message).ljust(_DISK_BYTES, b"\0")
    if path is None:
        return cache.image(content, "disk.img")
    path.write_bytes(content)
    return path


def cd(message: str = "Hello from the CD") -> Path:
    """Return an ISO image that boots (El Torito, no emulation) and prints `message`.

    Raises:
        UsageError: see `sector`.
    """
    boot = sector(message).ljust(_CD_SECTOR_BYTES, b"\0")

    def write(directory: Path) -> None:
        write_iso(directory / "cd.iso", Tree(boot=boot, boot_name="boot.bin"), label="HELLO")

    return cache.entry("images", cache.key_of("cd", boot), write).path / "cd.iso"
