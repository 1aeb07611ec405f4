"""Answers to `red_pill`."""

from __future__ import annotations

from autograder.answers import alternative, mutant


def _bytes(text):
    return bytes.fromhex(" ".join(line.partition(";")[0] for line in text.splitlines()))


@alternative("red_pill")
def ring_in_cs():
    return _bytes("""
        8c c8        ; mov eax, cs
        24 01        ; and al, 1
        0f b6 c0     ; movzx eax, al
        f4           ; hlt
    """)


@alternative("red_pill")
def popf_cannot_clear():
    return _bytes("""
        6a 02        ; push 2
        9d           ; popfq
        9c           ; pushfq
        58           ; pop rax
        48 c1 e8 09  ; shr rax, 9
        83 e0 01     ; and eax, 1
        f4           ; hlt
    """)


@alternative("red_pill")
def cr0_by_two_ways():
    return _bytes("""
        0f 20 c3     ; mov rbx, cr0
        48 83 f3 08  ; xor rbx, 8 (task switched)
        0f 22 c3     ; mov cr0, rbx
        0f 01 e1     ; smsw ecx
        31 c0        ; xor eax, eax
        66 39 d9     ; cmp cx, bx
        0f 95 c0     ; setne al
        f4           ; hlt
    """)


@alternative("red_pill")
def selector_of_the_kernel():
    return _bytes("""
        8c d0        ; mov eax, ss
        83 e0 02     ; and eax, 2
        d1 e8        ; shr eax, 1
        f4           ; hlt
    """)


@mutant("red_pill", "constant")
def always_one():
    return _bytes("b8 01 00 00 00  f4")


@mutant("red_pill", "constant")
def always_zero():
    return _bytes("31 c0  f4")


@mutant("red_pill", "upside-down")
def the_other_way_round():
    return _bytes("8c c8  f7 d0  83 e0 01  f4")


@mutant("red_pill", "neither-0-nor-1")
def whole_selector():
    return _bytes("8c c8  f4")


@mutant("red_pill", "neither-0-nor-1")
def bit_9_in_place():
    return _bytes("fa  9c  58  25 00 02 00 00  f4")


@mutant("red_pill", "a-matter-of-time")
def measures_an_exit():
    return _bytes("""
        0f 31        ; rdtsc
        89 c3        ; mov ebx, eax
        fa           ; cli
        0f 31        ; rdtsc
        29 d8        ; sub eax, ebx
        3d 00 10 00 00  ; cmp eax, 4096
        0f 97 c0     ; seta al
        0f b6 c0     ; movzx eax, al
        f4           ; hlt
    """)


@mutant("red_pill", "asks-for-the-name")
def hypervisor_bit():
    return _bytes("b8 01 00 00 00  0f a2  89 c8  c1 e8 1f  f4")


@mutant("red_pill", "accident-of-the-start")
def looks_without_asking():
    return _bytes("9c  58  48 c1 e8 09  83 e0 01  f4")


@mutant("red_pill", "accident-of-the-start")
def trusts_its_registers():
    return _bytes("8c c8  83 e0 01  48 01 d8  f4")


@mutant("red_pill", "does-not-end")
def no_hlt():
    return _bytes("8c c8  83 e0 01  eb fe")


@mutant("red_pill", "does-not-end")
def divides_by_the_ring():
    return _bytes("8c cb  83 e3 01  b8 01 00 00 00  31 d2  f7 f3  f4")


@mutant("red_pill", "too-long")
def padded():
    return b"\x90" * 300 + ring_in_cs()


@mutant("red_pill", "not-bytes")
def as_text():
    return "mov eax, cs"
