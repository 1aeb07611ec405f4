"""Answers to `make_elf`."""

from __future__ import annotations

import struct

from autograder.answers import alternative, mutant

BASE = 0x400000


def _headers(body, *, entry=BASE + 120, flags=5, offset=0, vaddr=BASE):
    size = 120 + len(body)
    elf = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return elf + struct.pack("<IIQQQQQQ", 1, flags, offset, vaddr, vaddr, size, size, 4096) + body


def _mov(opcode, value):
    return bytes([opcode]) + struct.pack("<I", value)


def _code(message, code, *, write=1, exit_=60, fd=1, length=None, end=True, address=None):
    length = len(message) if length is None else length
    body_length = 22 + (12 if end else 0)
    address = BASE + 120 + body_length if address is None else address
    body = _mov(0xB8, write) + _mov(0xBF, fd) + _mov(0xBE, address) + _mov(0xBA, length) + b"\x0f\x05"
    if end:
        body += _mov(0xB8, exit_) + _mov(0xBF, code) + b"\x0f\x05"
    return body + message


@alternative("make_elf")
def plain_moves(message, code):
    return _headers(_code(message, code))


@alternative("make_elf")
def with_exit_group(message, code):
    return _headers(_code(message, code, exit_=231))


@alternative("make_elf")
def message_first_then_call_and_pop(message, code):
    # call over the message; the return address is the message's address
    code_ = b"\xe8" + struct.pack("<i", len(message)) + message
    code_ += b"\x5e" + _mov(0xBA, len(message)) + b"\x31\xff\xff\xc7\x89\xf8\x0f\x05"  # pop rsi; edi=eax=1
    code_ += _mov(0xB8, 60) + _mov(0xBF, code) + b"\x0f\x05"
    return _headers(code_)


@alternative("make_elf")
def with_int_80(message, code):
    # 32-bit table: write is 4, exit is 1; ebx, ecx, edx; the address fits into 32 bits
    body = _mov(0xB8, 4) + _mov(0xBB, 1) + _mov(0xB9, BASE + 120 + 34) + _mov(0xBA, len(message)) + b"\xcd\x80"
    body += _mov(0xB8, 1) + _mov(0xBB, code) + b"\xcd\x80"
    return _headers(body + message)


@alternative("make_elf")
def with_writev(message, code):
    # writev(1, vector, 1) with the vector behind the code
    vector = BASE + 120 + 34
    body = _mov(0xB8, 20) + _mov(0xBF, 1) + _mov(0xBE, vector) + _mov(0xBA, 1) + b"\x0f\x05"
    body += _mov(0xB8, 60) + _mov(0xBF, code) + b"\x0f\x05"
    return _headers(body + struct.pack("<QQ", vector + 16, len(message)) + message)


@alternative("make_elf")
def relative_address(message, code):
    # lea rsi, [rip + rest]
    rest = _mov(0xBA, len(message)) + b"\x0f\x05" + _mov(0xB8, 60) + _mov(0xBF, code) + b"\x0f\x05"
    return _headers(_mov(0xB8, 1) + _mov(0xBF, 1) + b"\x48\x8d\x35" + struct.pack("<i", len(rest)) + rest + message)


@alternative("make_elf")
def code_at_another_address_and_two_segments(message, code):
    # data in a read-only segment of its own, code in an executable one; both map the whole file
    base2 = 0x600000
    # registers are zero at the start: mov al, 1; mov edi, eax; ...; mov al, 60; mov dil, code
    body = b"\xb0\x01\x89\xc7" + _mov(0xBE, base2 + 176 + 23) + _mov(0xBA, len(message)) + b"\x0f\x05"
    body += b"\xb0\x3c\x40\xb7" + bytes([code]) + b"\x0f\x05"
    size = 176 + len(body) + len(message)
    elf = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    elf += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + 176, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    for vaddr, flags in ((BASE, 5), (base2, 4)):
        elf += struct.pack("<IIQQQQQQ", 1, flags, 0, vaddr, vaddr, size, size, 4096)
    return elf + body + message


@mutant("make_elf", "no-exit")
def forgets_exit(message, code):
    return _headers(_code(message, code, end=False))


@mutant("make_elf", "wrong-length")
def constant_length(message, code):
    return _headers(_code(message, code, length=40))


@mutant("make_elf", "wrong-length")
def one_byte_short(message, code):
    return _headers(_code(message, code, length=max(0, len(message) - 1)))


@mutant("make_elf", "length-sign-extended")
def length_in_a_signed_byte(message, code):
    # push imm8; pop rdx: sign-extended from 128 on
    tail = b"\x6a" + bytes([len(message)]) + b"\x5a\x0f\x05" + _mov(0xB8, 60) + _mov(0xBF, code) + b"\x0f\x05"
    address = BASE + 120 + 15 + len(tail)
    return _headers(_mov(0xB8, 1) + _mov(0xBF, 1) + _mov(0xBE, address) + tail + message)


@mutant("make_elf", "stops-at-nul")
def as_a_c_string(message, code):
    return _headers(_code(message, code, length=len(message.split(b"\0")[0])))


@mutant("make_elf", "added-newline")
def adds_a_newline(message, code):
    return _headers(_code(message + b"\n", code))


@mutant("make_elf", "segment-not-executable")
def read_only_segment(message, code):
    return _headers(_code(message, code), flags=4)


@mutant("make_elf", "segment-not-executable")
def readable_and_writable(message, code):
    return _headers(_code(message, code), flags=6)


@mutant("make_elf", "entry-is-an-offset")
def entry_as_file_offset(message, code):
    return _headers(_code(message, code), entry=120)


@mutant("make_elf", "not-congruent")
def code_offset_with_page_address(message, code):
    return _headers(_code(message, code), entry=BASE, offset=120)


@mutant("make_elf", "wrong-table")
def numbers_of_32_bit_x86(message, code):
    return _headers(_code(message, code, write=4, exit_=1))


@mutant("make_elf", "wrong-descriptor")
def writes_on_stderr(message, code):
    return _headers(_code(message, code, fd=2))


@mutant("make_elf", "wrong-exit-code")
def always_succeeds(message, code):
    return _headers(_code(message, 0))


@mutant("make_elf", "too-many-calls")
def two_writes(message, code):
    # two writes: the first byte, then the rest
    n = len(message)
    start = BASE + 120 + 22 + 22 + 12
    body = _mov(0xB8, 1) + _mov(0xBF, 1) + _mov(0xBE, start) + _mov(0xBA, min(1, n)) + b"\x0f\x05"
    body += _mov(0xB8, 1) + _mov(0xBF, 1) + _mov(0xBE, start + 1) + _mov(0xBA, max(0, n - 1)) + b"\x0f\x05"
    body += _mov(0xB8, 60) + _mov(0xBF, code) + b"\x0f\x05"
    return _headers(body + message)


@mutant("make_elf", "wrong-output")
def address_of_the_file_start(message, code):
    return _headers(_code(message, code, address=BASE))


@mutant("make_elf", "crashed")
def entry_points_at_the_message(message, code):
    # data first, but execution starts there
    return _headers(b"\xf4" + message + _code(b"", code), entry=BASE + 120)


@mutant("make_elf", "endless-program")
def jumps_to_itself(message, code):
    return _headers(_code(message, code, end=False)[:22] + b"\xeb\xfe" + message)


@mutant("make_elf", "too-big")
def padded_to_a_page(message, code):
    return _headers(_code(message, code)).ljust(4096, b"\0")


@mutant("make_elf", "not-an-elf")
def code_without_headers(message, code):
    return _code(message, code)


@mutant("make_elf", "not-an-elf")
def shell_script(message, code):
    return b"#!/bin/sh\nprintf '" + message + b"'; exit " + str(code).encode()


@mutant("make_elf", "not-bytes")
def returns_hexadecimal(message, code):
    return _headers(_code(message, code)).hex()


@mutant("make_elf", "printed")
def prints_it(message, code):
    print(_headers(_code(message, code)))


@mutant("make_elf", "forgot-return")
def forgets_return(message, code):
    _headers(_code(message, code))


@mutant("make_elf", "unanswered")
def untouched(message, code):
    raise NotImplementedError
