"""The little assemblers, against capstone, keystone and the processors themselves."""

from __future__ import annotations

import re

import pytest

from course import isa
from course.error import CapabilityError, UsageError
from course.isa.assembler import symbols

# Source in our assembler, text in capstone's: what we encode, capstone reads back.
READ_BACK = {
    "x86": """
        mov eax, [esp + 4]|mov eax, dword ptr [esp + 4]
        lea eax, [eax + eax*2]
        lea ecx, [esi*8 + 256]|lea ecx, [esi*8 + 0x100]
        mov dword [ebx + edi*4 - 8], 7|mov dword ptr [ebx + edi*4 - 8], 7
        mov word [esp + 18], 0x1234|mov word ptr [esp + 0x12], 0x1234
        mov byte [ebp], 255|mov byte ptr [ebp], 0xff
        imul eax, eax, 3
        imul ecx, [edx], 1000|imul ecx, dword ptr [edx], 0x3e8
        push ebx
        inc edi
        add esp, 400|add esp, 0x190
        shl eax, 1
        sar edx, 5
        int 0x80
        xchg ecx, ebx
    """,
    "x86_64": """
        lea eax, [rdi + rdi*2]
        mov r9d, esi
        mov r15, [rsp + r12*8]|mov r15, qword ptr [rsp + r12*8]
        mov rax, [r13]|mov rax, qword ptr [r13]
        mov rax, [rsp + rbp]|mov rax, qword ptr [rsp + rbp]
        movabs rax, 0x123456789abcdef0
        mov rdi, -1|mov rdi, 0xffffffffffffffff
        push r14
        pop rbx
        cmp r8, r9
        test eax, eax
        neg r10
        imul rax, r11
        syscall
        ret
    """,
    "ppc": """
        addi r3, r4, -5
        li r3, -32768|li r3, -0x8000
        lis r4, 18|lis r4, 0x12
        mulli r3, r3, 3
        add r3, r3, r4
        subf r3, r4, r5
        slwi r5, r3, 1
        srwi r5, r3, 4
        lwz r3, 8(r1)
        stwu r1, -16(r1)|stwu r1, -0x10(r1)
        mflr r0
        mtctr r12
        cmpwi r3, 0
        or r3, r4, r5
        mr r14, r3
        mullw r6, r7, r8
        blr
        sc
    """,
    "aarch64": """
        add w0, w0, w0, lsl #1
        add x1, x2, #4095|add x1, x2, #0xfff
        sub sp, sp, #32|sub sp, sp, #0x20
        madd w0, w0, w2, w1
        mul x3, x4, x5
        lsl w2, w3, #4
        lsr x2, x3, #40|lsr x2, x3, #0x28
        asr w9, w9, #31|asr w9, w9, #0x1f
        mov x8, #64|mov x8, #0x40
        mov w1, #-1|mov w1, #-1
        movk x1, #4660, lsl #16|movk x1, #0x1234, lsl #16
        ldr x0, [sp, #8]
        strb w3, [x4]
        str x30, [sp, #-16]!|str x30, [sp, #-0x10]!
        ldr x30, [sp], #16|ldr x30, [sp], #0x10
        cmp w0, #7
        cmp x0, x1
        neg w0, w1
        eor x1, x2, x3
        sdiv w1, w2, w3
        svc #0
        ret
    """,
    "riscv64": """
        addi a0, a1, -2048
        slli t0, a0, 33|slli t0, a0, 0x21
        mulw a0, a0, a1
        ld s0, 8(sp)
        sb t6, -1(gp)
        lui a5, 524287|lui a5, 0x7ffff
        sltu a0, a1, a2
        beqz a0, 16|beqz a0, 0x10
        neg a0, a1
        seqz a0, a1
        ecall
        ret
    """,
}


def _canonical(text: str) -> str:
    """One spelling for numbers and spaces."""
    text = re.sub(r"0x[0-9a-f]+", lambda found: str(int(found[0], 16)), text)
    return re.sub(r"[\s#]+", " ", text).replace(" ,", ",").strip()


@pytest.mark.parametrize(
    ("name", "source", "expected"),
    [
        (name, line.split("|")[0].strip(), line.split("|")[-1].strip())
        for name, lines in READ_BACK.items()
        for line in lines.strip().splitlines()
    ],
)
def test_what_is_assembled_reads_back_in_capstone(name, source, expected):
    """Capstone, which nobody here wrote, reads every instruction as it was meant."""
    code = isa.assemble(source.replace("movabs", "mov"), name, 0)
    listing = isa.disassemble(code, name, 0)
    assert [_canonical(i.text) for i in listing] == [_canonical(expected)]


@pytest.mark.parametrize("name", ["x86", "x86_64", "ppc", "aarch64"])
def test_keystone_assembles_the_same_bytes(name):
    """Where keystone is installed, LLVM's encoding of the same line has the same meaning to capstone."""
    pytest.importorskip("keystone")
    differing = []
    for line in READ_BACK[name].strip().splitlines():
        source = line.split("|")[0].strip()
        if name == "ppc":  # keystone wants bare numbers there
            source = re.sub(r"\br(\d+)", r"\1", source)
        if name == "x86":
            source = re.sub(r"(byte|word) \[", r"\1 ptr [", source)
        theirs = isa.disassemble(isa.with_keystone(source, name, 0), name, 0)
        ours = isa.disassemble(isa.assemble(source.replace("movabs", "mov"), name, 0), name, 0)
        if [i.text for i in theirs] != [i.text for i in ours]:
            differing.append((source, theirs, ours))
    assert differing == []


def test_branches_find_their_labels_in_both_directions():
    """A loop that sums 1 to n gives the right sum on every ISA."""
    loops = {
        "x86": "mov ecx, [esp+4]\nxor eax, eax\nl: add eax, ecx\ndec ecx\njne l\nret",
        "x86_64": "xor eax, eax\nl: add eax, edi\ndec edi\njne l\nret",
        "ppc": "li r4, 0\nl: add r4, r4, r3\naddi r3, r3, -1\ncmpwi r3, 0\nbne l\nmr r3, r4\nblr",
        "aarch64": "mov w1, 0\nl: add w1, w1, w0\nsubs w0, w0, #1\nb.ne l\nmov w0, w1\nret",
        "riscv64": "li t0, 0\nl: add t0, t0, a0\naddi a0, a0, -1\nbnez a0, l\nj e\nnop\ne: mv a0, t0\nret",
        "riscv32": "li t0, 0\nl: beqz a0, e\nadd t0, t0, a0\naddi a0, a0, -1\nj l\ne: mv a0, t0\nret",
    }
    sums = {name: isa.call(isa.assemble(source, name), name, 100).value for name, source in loops.items()}
    assert sums == dict.fromkeys(loops, 5050)


@pytest.mark.parametrize("gap", [0, 125, 126, 127, 128, 300])
def test_x86_jumps_are_short_where_they_reach(gap):
    """A forward jump takes two bytes up to a distance of 127 and still arrives beyond."""
    code, labels = symbols(f"jmp over\n{'nop' + chr(10)}" * 1 + "nop\n" * gap + "over: mov eax, 9\nret", "x86_64")
    assert labels["over"] - 0x10000 == (2 if gap + 1 <= 127 else 5) + gap + 1
    assert isa.call(code, "x86_64").value == 9


@pytest.mark.parametrize(
    ("name", "source", "says"),
    [
        ("ppc", "li r3, 1\naddd r3, r3, r4", "line 2: 'addd r3, r3, r4': this small assembler does not know"),
        ("ppc", "addi r3, r3, 40000", "40000 does not fit; here it has to be -32768 to 32767"),
        ("ppc", "addi r3, r99, 1", "'r99' is not a register"),
        ("x86", "mov rax, 1", "rax exists only on x86-64"),
        ("x86", "mov eax, [ebx+ecx+edx]", "more than a base and one scaled register"),
        ("x86_64", "mov [rdi], 1", "how many bytes?"),
        ("x86_64", "jmp nowhere", "there is no label 'nowhere'"),
        ("x86_64", "add al, 1", "registers of 32 and 64 bits only"),
        ("aarch64", "add w0, x0, w1", "cannot be mixed"),
        ("riscv32", "addw a0, a0, a1", "only on 64-bit"),
        ("riscv64", "addi a0, a0", "takes 3 operands, 2 were given"),
        ("riscv64", "l: nop\nl: nop", "exists already"),
        ("riscv64", "beq a0, a1, 3", "multiple of 2 bytes"),
    ],
)
def test_a_line_that_cannot_be_assembled_is_named(name, source, says):
    """The message names ISA, line, and what is wrong with it."""
    with pytest.raises(isa.AssemblyError) as caught:
        isa.assemble(source, name)
    assert says in str(caught.value)


def test_unknown_targets_are_refused_with_the_known_ones():
    """A misspelt ISA, or one without an assembler, gets a list of those that have one."""
    with pytest.raises(UsageError, match="known ones: x86, x86_64"):
        isa.assemble("nop", "x68")
    with pytest.raises(UsageError, match="no assembler for m68k"):
        isa.assemble("nop", "m68k")
    with pytest.raises(CapabilityError, match="riscv64"):
        isa.with_keystone("nop", "riscv64")
