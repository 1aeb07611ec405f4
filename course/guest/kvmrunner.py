"""The program that speaks to /dev/kvm inside a guest: a static ELF of about 800 bytes, made by the course's assembler.

It reads a job from its standard input, makes one virtual machine with one CPU in real mode, runs it, and writes one
line per exit, of which Python reads the structures that the kernel filled in::

    job    0  most exits    8  seconds    16  bytes of code    24  their address    32  MemoryRegion    64  Regs
           208  what devices answer: 8 bytes per exit        then the code
    x      nanoseconds in KVM_RUN (8), kvm_run from exit_reason on (56), port data (8)      in hexadecimal, per exit
    r      Regs after the last exit
    s      what KVM itself counted: the file of KVM_GET_STATS_FD
    f      number of the call that failed (8), minus errno (8)

Source: Linux, Documentation/virt/kvm/api.rst; System V ABI AMD64, appendix A.2 (system calls).
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Sequence

from ..capability import kvm_abi as abi
from ..isa.assembler import assemble
from ..isa.elf import code_address, write_elf

JOB, GUEST, SCRATCH, RUN, SIZE = 0x1000000, 0x1100000, 0x1200000, 0x1300000, 0x400000
GUEST_BYTES, CODE_AT, INPUTS_AT = 0x10000, 0x1000, 208
RECORD = struct.Struct("<Q56s8s")
_LINE, _BEFORE, _AFTER, _RECORD = SCRATCH + 0x10000, SCRATCH + 0x400, SCRATCH + 0x410, SCRATCH + 0x500
_STATS_BYTES = 0x4000

SOURCE = f"""
    mov edi, {JOB}              ; mmap: all the memory there will be
    mov esi, {SIZE}
    mov edx, 3
    mov r10d, 0x31              ; shared, fixed, anonymous
    mov r8, -1
    xor r9d, r9d
    mov eax, 9
    syscall
    xor edi, edi                ; read the job
    mov esi, {JOB}
    mov edx, 0x100000
    xor eax, eax
    syscall
    mov edi, [{JOB + 8}]
    mov eax, 37                 ; alarm: an endless guest ends this program
    syscall
    xor ebp, ebp                ; counts calls

    mov edi, path
    mov esi, 2
    mov eax, 2                  ; open
    call checked
    mov ebx, eax
    mov edi, ebx
    mov esi, {abi.KVM_CREATE_VM}
    xor edx, edx
    call ioctl
    mov r12d, eax
    mov edi, r12d
    mov esi, {abi.KVM_SET_USER_MEMORY_REGION}
    mov edx, {JOB + 32}
    call ioctl
    mov edi, r12d
    mov esi, {abi.KVM_CREATE_VCPU}
    xor edx, edx
    call ioctl
    mov r13d, eax
    mov edi, ebx
    mov esi, {abi.KVM_GET_VCPU_MMAP_SIZE}
    xor edx, edx
    call ioctl
    mov esi, eax
    mov edi, {RUN}
    mov edx, 3
    mov r10d, 0x11              ; shared, fixed
    mov r8d, r13d
    xor r9d, r9d
    mov eax, 9                  ; mmap
    call checked

    mov edi, r13d
    mov esi, {abi.KVM_GET_SREGS}
    mov edx, {SCRATCH}
    call ioctl
    mov qword [{SCRATCH + abi.Sregs.cs.offset}], 0
    mov word [{SCRATCH + abi.Sregs.cs.offset + abi.Segment.selector.offset}], 0
    mov edi, r13d
    mov esi, {abi.KVM_SET_SREGS}
    mov edx, {SCRATCH}
    call ioctl
    mov edi, r13d
    mov esi, {abi.KVM_SET_REGS}
    mov edx, {JOB + 64}
    call ioctl
    mov ecx, [{JOB + 16}]
    mov esi, [{JOB + 24}]
    mov edi, {GUEST + CODE_AT}
    .byte 0xf3, 0xa4            ; rep movsb
    mov r14, [{JOB}]
    mov r15d, {JOB + INPUTS_AT}

run:
    mov esi, {_BEFORE}
    call clock
    mov edi, r13d
    mov esi, {abi.KVM_RUN}
    xor edx, edx
    mov eax, 16
    syscall
    push rax
    mov esi, {_AFTER}
    call clock
    pop rax
    add ebp, 1
    test rax, rax
    js failed
    mov rax, [{_AFTER}]
    sub rax, [{_BEFORE}]
    imul rax, rax, 1000000000
    add rax, [{_AFTER + 8}]
    sub rax, [{_BEFORE + 8}]
    mov [{_RECORD}], rax
    mov esi, {RUN + abi.Run.exit_reason.offset}
    mov edi, {_RECORD + 8}
    mov ecx, 56
    .byte 0xf3, 0xa4            ; rep movsb
    xor edx, edx
    mov eax, [{RUN + abi.Run.exit_reason.offset}]
    cmp eax, {abi.KVM_EXIT_IO}
    jne tell
    mov rax, [{RUN + 32 + abi.Io.data_offset.offset}]
    mov rdx, [rax + {RUN}]
tell:
    mov [{_RECORD + 64}], rdx
    mov r8d, 'x'
    mov esi, {_RECORD}
    mov ecx, {RECORD.size}
    call print
    mov eax, [{RUN + abi.Run.exit_reason.offset}]
    cmp eax, {abi.KVM_EXIT_IO}
    je port
    cmp eax, {abi.KVM_EXIT_MMIO}
    je memory
    jmp done
port:
    mov eax, [{RUN + 32}]       ; the direction is its lowest bit
    and eax, 1
    jne next
    mov rdx, [r15]
    add r15, 8
    mov rax, [{RUN + 32 + abi.Io.data_offset.offset}]
    mov [rax + {RUN}], rdx
    jmp next
memory:
    mov eax, [{RUN + 32 + abi.Mmio.is_write.offset}]
    and eax, 1
    jne next
    mov rdx, [r15]
    add r15, 8
    mov [{RUN + 32 + abi.Mmio.data.offset}], rdx
next:
    sub r14, 1
    jne run

done:
    mov edi, r13d
    mov esi, {abi.KVM_GET_REGS}
    mov edx, {SCRATCH}
    call ioctl
    mov r8d, 'r'
    mov esi, {SCRATCH}
    mov ecx, {ctypes.sizeof(abi.Regs)}
    call print
    mov edi, r13d
    mov esi, {abi.KVM_GET_STATS_FD}
    xor edx, edx
    call ioctl                  ; Linux 5.14 and later
    mov edi, eax
    mov esi, {SCRATCH}
    mov edx, {_STATS_BYTES}
    xor eax, eax                ; read
    call checked
    mov ecx, eax
    mov r8d, 's'
    mov esi, {SCRATCH}
    call print
    xor edi, edi
    mov eax, 60                 ; exit
    syscall

ioctl:
    mov eax, 16
checked:
    syscall
    add ebp, 1
    test rax, rax
    js failed
    ret
failed:
    mov [{_RECORD}], rbp
    mov [{_RECORD + 8}], rax
    mov r8d, 'f'
    mov esi, {_RECORD}
    mov ecx, 16
    call print
    mov edi, 1
    mov eax, 60
    syscall

clock:                          ; clock_gettime(CLOCK_MONOTONIC, rsi)
    mov edi, 1
    mov eax, 228
    syscall
    ret

print:                          ; the letter r8d, ecx bytes at rsi in hexadecimal, a newline
    mov edi, {_LINE}
    mov [rdi], r8d
    add edi, 1
digit:
    .byte 0x0f, 0xb6, 0x06      ; movzx eax, byte [rsi]
    mov edx, eax
    shr eax, 4
    and edx, 15
    .byte 0x0f, 0xb6, 0x80      ; movzx eax, byte [rax + digits]
    .word digits
    .byte 0x0f, 0xb6, 0x92      ; movzx edx, byte [rdx + digits]
    .word digits
    .byte 0x88, 0x07            ; mov [rdi], al
    .byte 0x88, 0x57, 0x01      ; mov [rdi + 1], dl
    add edi, 2
    add esi, 1
    sub ecx, 1
    jne digit
    mov byte [rdi], 10
    lea edx, [rdi - {_LINE - 1}]
    mov esi, {_LINE}
    mov edi, 1
    mov eax, 1                  ; write
    syscall
    ret

digits:
    .ascii "0123456789abcdef"
path:
    .asciz "/dev/kvm"
"""


def program() -> bytes:
    """Return the ELF executable."""
    return write_elf(assemble(SOURCE, "x86_64", code_address("x86_64")), "x86_64")


def job(code: bytes, inputs: Sequence[bytes], registers: abi.Regs, max_exits: int, seconds: int) -> bytes:
    """Return what the program reads.

    Args:
        code: of the guest, for its address 0x1000.
        inputs: what devices answer, one after the other, at most 8 bytes each; zeros when there are no more.
        registers: at the start.
        max_exits: after how many exits it stops.
        seconds: after how many it is ended.
    """
    answers = b"".join(data.ljust(8, b"\0") for data in inputs).ljust(8 * max_exits, b"\0")
    at = JOB + INPUTS_AT + len(answers)
    region = abi.MemoryRegion(0, 0, 0, GUEST_BYTES, GUEST)
    return struct.pack("<4Q", max_exits, seconds, len(code), at) + bytes(region) + bytes(registers) + answers + code
