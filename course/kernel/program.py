"""Tiny static x86-64 Linux executables, byte by byte.

::

    offset 0     64   120                   file size
           ┌──────┬────┬──────────────────┐
           │ ELF  │ PT_│ machine code and │   mapped as one readable, executable segment at BASE
           │header│LOAD│ data (the body)  │   so that address = BASE + offset
           └──────┴────┴──────────────────┘
                       ▲ e_entry (unless told otherwise)

Source: System V ABI, "Object Files"; elf(5).
"""

from __future__ import annotations

import dataclasses
import struct

from ..error import UsageError

BASE = 0x400000
HEADER_BYTES = 64 + 56
READ, WRITE, EXECUTE = 4, 2, 1
PT_LOAD, PT_INTERP = 1, 3
PAGE_BYTES = 4096
_EM_X86_64 = 62
_EHDR = "<16sHHIQQQIHHHHHH"
_PHDR = "<IIQQQQQQ"


def elf(body: bytes, *, entry: int = 0, flags: int = READ | EXECUTE) -> bytes:
    """Wrap `body` into an executable of one segment.

    Args:
        body: machine code and data; its first byte lies at address ``BASE + HEADER_BYTES``.
        entry: where execution starts, as an offset into `body`.
        flags: rights of the segment.

    Returns:
        The whole file.
    """
    size = HEADER_BYTES + len(body)
    ident = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)  # 64 bits, little endian, version 1
    header = struct.pack(
        _EHDR, ident, 2, _EM_X86_64, 1, BASE + HEADER_BYTES + entry, 64, 0, 0, 64, 56, 1, 0, 0, 0
    )  # type 2: executable at a fixed address; one program header at 64; no sections
    load = struct.pack(_PHDR, PT_LOAD, flags, 0, BASE, BASE, size, size, PAGE_BYTES)
    return header + load + body


@dataclasses.dataclass(frozen=True)
class Segment:
    """One program header: what the kernel maps, where and with which rights."""

    kind: int
    flags: int
    offset: int
    address: int
    file_bytes: int
    memory_bytes: int

    def holds(self, address: int) -> bool:
        """True when `address` lies in the part of the segment that comes from the file."""
        return self.address <= address < self.address + self.file_bytes


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the headers of an executable promise."""

    entry: int
    segments: tuple[Segment, ...]

    def segment_of(self, address: int) -> Segment | None:
        """Return the loaded segment that holds `address`."""
        return next((s for s in self.segments if s.kind == PT_LOAD and s.holds(address)), None)


def layout(image: bytes) -> Layout:
    """Read the headers of an x86-64 executable.

    Raises:
        UsageError: when the bytes are not a 64-bit little-endian x86-64 ELF file, naming the field and its value.
    """
    if image[:4] != b"\x7fELF":
        raise UsageError(f"the file begins with {image[:4].hex(' ') or 'nothing'}, not with 7f 45 4c 46 (\\x7fELF)")
    if len(image) < 64:
        raise UsageError(f"an ELF header has 64 bytes, this file {len(image)}")
    ident, kind, machine, _, entry, phoff, _, _, _, phentsize, phnum, *_ = struct.unpack_from(_EHDR, image)
    for what, value, wanted in (
        ("EI_CLASS (64 bits is 2)", ident[4], 2),
        ("EI_DATA (little endian is 1)", ident[5], 1),
        ("e_type (a fixed-address executable is 2)", kind, 2),
        ("e_machine (x86-64 is 62)", machine, _EM_X86_64),
        ("e_phentsize", phentsize, 56),
    ):
        if value != wanted:
            raise UsageError(f"{what} is {value}, expected {wanted}")
    if not phnum or phoff + 56 * phnum > len(image):
        raise UsageError(
            f"{phnum} program headers at offset {phoff} do not fit into the {len(image)} bytes of the file"
        )
    segments = []
    for i in range(phnum):
        p_type, flags, offset, vaddr, _, filesz, memsz, _ = struct.unpack_from(_PHDR, image, phoff + 56 * i)
        segments.append(Segment(p_type, flags, offset, vaddr, filesz, memsz))
    return Layout(entry, tuple(segments))


def _mov(register: int, value: int) -> bytes:
    """``mov r32, imm32``: eax 0, ecx 1, edx 2, ebx 3, esi 6, edi 7."""
    return bytes([0xB8 + register]) + struct.pack("<I", value & 0xFFFFFFFF)


_SYSCALL = bytes.fromhex("0f05")


def asking(numbers: list[int], exit_code: int = 0) -> bytes:
    """Return a program that makes the system calls `numbers`, each with zeros as arguments, then exits.

    Args:
        numbers: x86-64 system call numbers; unknown ones are answered with ENOSYS by the kernel.
        exit_code: 0 to 255.
    """
    zero = bytes.fromhex("31ff 31f6 31d2")  # xor edi,edi; xor esi,esi; xor edx,edx
    code = b"".join(zero + _mov(0, n) + _SYSCALL for n in numbers)
    return elf(code + _mov(0, 60) + _mov(7, exit_code) + _SYSCALL)


def copying(block_bytes: int, count: int) -> bytes:
    """Return a program that copies `count` blocks from /dev/zero to /dev/null: dd without the C library.

    It opens two files, then makes ``count`` reads and ``count`` writes of ``block_bytes`` each, then exits.
    """
    if not 0 < block_bytes <= 65536 or count < 1:
        raise UsageError(f"block_bytes={block_bytes}, count={count}: expected 1 to 65536 bytes and at least one block")
    paths = b"/dev/zero\0/dev/null\0"
    # The body is: paths, code; a buffer follows on the stack.
    at = BASE + HEADER_BYTES
    code = b"".join(
        [
            bytes.fromhex("4881ec") + struct.pack("<I", block_bytes),  # sub rsp, block_bytes
            _mov(0, 2) + _mov(7, at) + _mov(6, 0) + _SYSCALL,  # open("/dev/zero", O_RDONLY)
            bytes.fromhex("4189c4"),  # mov r12d, eax
            _mov(0, 2) + _mov(7, at + 10) + _mov(6, 1) + _SYSCALL,  # open("/dev/null", O_WRONLY)
            bytes.fromhex("4189c5"),  # mov r13d, eax
            bytes.fromhex("41be") + struct.pack("<I", count),  # mov r14d, count
        ]
    )
    loop = b"".join(
        [
            bytes.fromhex("31c0 4489e7 4889e6") + _mov(2, block_bytes) + _SYSCALL,  # read(r12, rsp, block)
            _mov(0, 1) + bytes.fromhex("4489ef 4889e6") + _mov(2, block_bytes) + _SYSCALL,  # write(r13, rsp, block)
            bytes.fromhex("41ffce"),  # dec r14d
        ]
    )
    loop += bytes([0x75, (-(len(loop) + 2)) & 0xFF])  # jnz back to the read
    return elf(paths + code + loop + _mov(0, 231) + bytes.fromhex("31ff") + _SYSCALL, entry=len(paths))
