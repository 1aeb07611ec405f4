"""Guests of a few bytes, assembled by hand: enough to see whether a machine runs, goes on, or starts anew."""

from __future__ import annotations

from pathlib import Path

COUNTER_GPA = 0x500

# Says READY on COM1; then counts in RAM, echoes what is typed, and powers off when the power button is pressed.
# PIIX4 power management as SeaBIOS maps it: 0x600 status, 0x602 enable, 0x604 control; bit 8 is the power button.
_COUNTER = bytes.fromhex(
    "fa31c08ed8"  # cli; xor ax, ax; mov ds, ax
    "ba0206 b80001 ef"  # mov dx, 0x602; mov ax, 0x100; out dx, ax
    "baf803"  # mov dx, 0x3f8
    "b052ee b045ee b041ee b044ee b059ee b00aee"  # 'READY\n', one out dx, al each
    "66ff060005"  # again: inc dword [0x500]
    "ba0006 ed f6c401 750f"  # mov dx, 0x600; in ax, dx; test ah, 1; jnz off
    "bafd03 ec a801 74ea"  # mov dx, 0x3fd; in al, dx; test al, 1 (data ready); jz again
    "baf803 ec ee ebe3"  # mov dx, 0x3f8; in al, dx; out dx, al; jmp again
    "ba0406 b80020 ef f4 ebfd"  # off: mov dx, 0x604; mov ax, 0x2000; out dx, ax; hlt; jmp -1
)
# Says READY, then counts and writes to 128 pages of RAM (0x10000 to 0x8ffff) over and over.
_WRITER = bytes.fromhex(
    "fa31c08ed8 baf803"  # cli; xor ax, ax; mov ds, ax; mov dx, 0x3f8
    "b052ee b045ee b041ee b044ee b059ee b00aee"
    "66ff060005 bb0010"  # again: inc dword [0x500]; mov bx, 0x1000
    "8ec3 31ff"  # segment: mov es, bx; xor di, di
    "26fe05 81c70010 75f7"  # page: inc byte es:[di]; add di, 0x1000; jnz page
    "81c30010 81fb0090 75e9"  # add bx, 0x1000; cmp bx, 0x9000; jne segment
    "ebdf"  # jmp again
)


def _sector(code: bytes) -> bytes:
    return code.ljust(510, b"\0") + b"\x55\xaa"


SECTOR = _sector(_COUNTER)


def disk(directory: Path, code: bytes = _COUNTER) -> Path:
    """Write a bootable raw disk image of 1 MiB."""
    path = directory / "boot.img"
    path.write_bytes(_sector(code).ljust(1 << 20, b"\0"))
    return path


def writing_disk(directory: Path) -> Path:
    """Write the image of a guest that never stops writing to 512 KiB of its RAM."""
    return disk(directory, _WRITER)


def arguments(image: Path, *, ram_mib: int = 16) -> tuple[str, ...]:
    """QEMU arguments of a PC that boots this raw image, read only: several machines can share it."""
    node = f"driver=raw,node-name=boot,read-only=on,file.driver=file,file.filename={image}"
    return ("-M", "pc", "-m", str(ram_mib), "-blockdev", node, "-device", "virtio-blk-pci,drive=boot")
