"""Hardware-assisted virtualization that works everywhere: QEMU's emulated AMD CPU enters a guest and leaves it.

A ROM of some 200 bytes is the whole hypervisor. It goes to 32-bit mode, switches SVM on, describes a guest in a VMCB
(real mode, two instructions, leave at ``hlt``), executes ``vmrun``, and looks at what came back: the exit code and the
guest's ``rax``. Lessons need no more than this to show vmenter and vmexit, or even KVM, inside a guest.

Source: AMD64 Architecture Programmer's Manual vol. 2, chapter 15 and appendix B (layout of the VMCB).
"""

from __future__ import annotations

import struct

ROM_BYTES, ROM_AT = 0x10000, 0xF0000
GREETING = b"vm"
EXIT_HLT, ANSWER = 0x78, 0x4321
_VMCB, _HOST_SAVE, _GUEST = 0x10000, 0x12000, 0x7000
_GDT_AT, _PROTECTED_AT = 0x40, 0x60
_GDT = struct.pack("<3Q", 0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF)

# field of the VMCB: what the guest begins with
_FIELDS = {
    0x00C: 1 << 24,  # leave at hlt
    0x010: 1,  # vmrun itself must be intercepted
    0x058: 1,  # address space identifier
    0x410: 0x9B << 16,  # cs: selector 0, present, code
    0x414: 0xFFFF,
    0x420: 0x93 << 16,  # ss: data
    0x424: 0xFFFF,
    0x430: 0x93 << 16,  # ds
    0x434: 0xFFFF,
    0x4D0: 0x1000,  # efer: SVM on, as the CPU demands
    0x558: 0x10,  # cr0: real mode
    0x560: 0x400,  # dr7
    0x570: 2,  # rflags
    0x578: _GUEST,  # rip
}


def _store(address: int, value: int) -> bytes:
    return b"\xc7\x05" + struct.pack("<II", address, value)  # mov dword [address], value


def _send(port: int, data: bytes) -> bytes:
    out = b"".join(bytes([0xB0, byte, 0xEE]) for byte in data)  # mov al, byte / out dx, al
    return b"\x66\xba" + struct.pack("<H", port) + out  # mov dx, port


def firmware(exit_port: int, exit_value: int) -> bytes:
    """Assemble the ROM: says `GREETING` on the first serial line, then writes `exit_value` to `exit_port`."""
    real = bytes.fromhex("fa 2e 66 0f 01 16") + struct.pack("<H", _GDT_AT + len(_GDT))  # cli / lgdt cs:[…]
    real += bytes.fromhex("0f 20 c0 0c 01 0f 22 c0")  # mov eax, cr0 / or al, 1 / mov cr0, eax
    real += b"\x66\xea" + struct.pack("<IH", ROM_AT + _PROTECTED_AT, 8)  # jmp 8:protected
    table = _GDT + struct.pack("<HI", len(_GDT) - 1, ROM_AT + _GDT_AT)
    code = bytes.fromhex("66 b8 10 00 8e d8 8e c0 8e d0")  # mov ax, 16 / mov ds, es and ss, ax
    code += bytes.fromhex("b9 80 00 00 c0 0f 32 80 cc 10 0f 30")  # EFER: rdmsr / or ah, 0x10 / wrmsr
    code += bytes.fromhex("b9 17 01 01 c0 31 d2 b8") + struct.pack("<I", _HOST_SAVE) + b"\x0f\x30"  # VM_HSAVE_PA
    code += b"".join(_store(_VMCB + field, value) for field, value in _FIELDS.items())
    code += _store(_GUEST, 0xF40000B8 | ANSWER << 8)  # the guest: mov ax, ANSWER / hlt
    code += b"\xb8" + struct.pack("<I", _VMCB) + b"\x0f\x01\xd8"  # mov eax, VMCB / vmrun
    done = _send(0x3F8, GREETING) + _send(exit_port, bytes([exit_value]))
    for field, value in ((0x5F8, ANSWER), (0x070, EXIT_HLT)):
        check = b"\x81\x3d" + struct.pack("<II", _VMCB + field, value)  # cmp dword [field], value
        done = check + b"\x0f\x85" + struct.pack("<i", len(done)) + done  # jne behind it
    code += done + b"\xf4"  # hlt
    rom = (real.ljust(_GDT_AT, b"\x90") + table).ljust(_PROTECTED_AT, b"\x90") + code
    reset_vector = bytes.fromhex("ea 00 00 00 f0")  # jmp 0xf000:0x0000, at 0xffff0 where an x86 begins
    return rom.ljust(ROM_BYTES - 16, b"\x90") + reset_vector.ljust(16, b"\x00")
