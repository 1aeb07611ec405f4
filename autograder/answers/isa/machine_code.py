"""Answers that are machine code."""

import capstone

from autograder.answers import alternative, mutant

GOOD = {
    "x86": "mov eax, [esp + 4]\nlea eax, [eax + eax*2]\nadd eax, [esp + 8]\nret",
    "x86_64": "lea eax, [rdi + rdi*2]\nadd eax, esi\nret",
    "ppc": "mulli r3, r3, 3\nadd r3, r3, r4\nblr",
    "aarch64": "add w0, w0, w0, lsl #1\nadd w0, w0, w1\nret",
    "riscv64": "slli t0, a0, 1\nadd a0, a0, t0\nadd a0, a0, a1\nret",
}


@alternative("affine")
def multiply():
    return {
        "x86": "imul eax, [esp + 4], 3\nadd eax, [esp + 8]\nret",
        "x86_64": "imul eax, edi, 3\nlea eax, [rax + rsi]\nret",
        "ppc": "li r5, 3\nmullw r3, r3, r5\nadd r3, r4, r3\nblr",
        "aarch64": "mov w2, #3\nmadd w0, w0, w2, w1\nret",
        "riscv64": "li t1, 3\nmul a0, a0, t1\nadd a0, a0, a1\nret",
    }


@alternative("affine")
def only_additions():
    return {
        "x86": "; three times\nmov ecx, [esp+4]\nmov eax, ecx\nadd eax, ecx\nadd eax, ecx\nadd eax, [esp+8]\nret",
        "x86_64": "mov rax, rdi\nadd rax, rdi\nadd rax, rdi\nadd rax, rsi\nret",
        "ppc": "add r5, r3, r3\nadd r5, r5, r3\nadd r3, r5, r4\nblr",
        "aarch64": "add x9, x0, x0\nadd x9, x9, x0\nadd x0, x9, x1\nret",
        "riscv64": "addw t0, a0, a0\naddw t0, t0, a0\naddw a0, t0, a1\nret",
    }


@alternative("affine")
def saves_what_it_uses():
    return {
        "x86": "push ebx\nmov ebx, [esp+8]\nlea eax, [ebx+2*ebx]\nadd eax, [esp+12]\npop ebx\nret",
        "x86_64": "push rbx\nmov ebx, edi\nlea eax, [rbx+rbx*2]\nadd eax, esi\npop rbx\nret",
        "ppc": "stwu r1, -16(r1)\nstw r14, 12(r1)\nslwi r14, r3, 1\nadd r3, r3, r14\nadd r3, r3, r4\n"
        "lwz r14, 12(r1)\naddi r1, r1, 16\nblr",
        "aarch64": "str x19, [sp, #-16]!\nlsl w19, w0, #1\nadd w0, w0, w19\nadd w0, w0, w1\nldr x19, [sp], #16\nret",
        "riscv64": "addi sp, sp, -16\nsd s0, 8(sp)\nslli s0, a0, 1\nadd a0, a0, s0\nadd a0, a0, a1\nld s0, 8(sp)\n"
        "addi sp, sp, 16\nret",
    }


@alternative("affine")
def bytes_written_out():
    return GOOD | {
        "x86_64": ".byte 0x8d, 0x04, 0x7f, 0x01, 0xf0, 0xc3",
        "ppc": ".word 0x1c630003, 0x7c632214, 0x4e800020",
    }


@mutant("affine", "constant")
def always_26():
    return GOOD | {"ppc": "li r3, 26\nblr"}


@mutant("affine", "clobbers-callee-saved")
def uses_rbx():
    return GOOD | {"x86_64": "mov ebx, edi\nlea eax, [rbx+rbx*2]\nadd eax, esi\nret"}


@mutant("affine", "clobbers-callee-saved")
def uses_r14():
    return GOOD | {"ppc": "mulli r14, r3, 3\nadd r3, r14, r4\nblr"}


@mutant("affine", "clobbers-callee-saved")
def uses_s0():
    return GOOD | {"riscv64": "slli s0, a0, 1\nadd a0, a0, s0\nadd a0, a0, a1\nret"}


@mutant("affine", "wrong-argument-place")
def registers_on_x86():
    return GOOD | {"x86": "lea eax, [edi + edi*2]\nadd eax, esi\nret"}


@mutant("affine", "wrong-argument-place")
def stack_on_x86_64():
    return GOOD | {"x86_64": "mov eax, [rsp+8]\nlea eax, [rax+rax*2]\nadd eax, [rsp+16]\nret"}


@mutant("affine", "wrong-argument-place")
def windows_convention():
    return GOOD | {"x86_64": "lea eax, [rcx + rcx*2]\nadd eax, edx\nret"}


@mutant("affine", "return-address-as-argument")
def forgets_the_return_address():
    return GOOD | {"x86": "mov eax, [esp]\nlea eax, [eax + eax*2]\nadd eax, [esp + 4]\nret"}


@mutant("affine", "never-returned")
def no_blr():
    return GOOD | {"ppc": "mulli r3, r3, 3\nadd r3, r3, r4"}


@mutant("affine", "never-returned")
def no_ret():
    return GOOD | {"aarch64": "add w0, w0, w0, lsl #1\nadd w0, w0, w1"}


@mutant("affine", "stack-not-restored")
def pushes_without_pop():
    return GOOD | {"riscv64": "addi sp, sp, -16\n" + GOOD["riscv64"]}


@mutant("affine", "arguments-swapped")
def swaps():
    return GOOD | {"aarch64": "add w0, w0, w1, lsl #1\nadd w0, w0, w1\nret"}


@mutant("affine", "wrong-value")
def twice():
    return GOOD | {"riscv64": "add a0, a0, a0\nadd a0, a0, a1\nret"}


@mutant("affine", "crashed")
def pops_the_return_address():
    return GOOD | {"x86": "pop eax\nlea eax, [eax+eax*2]\nret"}


@mutant("affine", "assembly")
def invented_mnemonic():
    return GOOD | {"ppc": "mul r3, r3, 3\nadd r3, r3, r4\nblr"}


@mutant("affine", "isa-missing")
def only_x86():
    return {"x86": GOOD["x86"]}


@mutant("affine", "too-long")
def many_small_steps():
    return GOOD | {
        "ppc": "li r5, 0\n" + "addi r5, r5, 1\n" * 3 + "addi r6, r6, 0\n" * 8 + "mullw r3, r3, r5\nadd r3, r3, r4\nblr"
    }


@mutant("affine", "not-text")
def assembled_already():
    return GOOD | {"x86_64": bytes.fromhex("8d047f01f0c3")}


# ── two_in_one ──


@alternative("two_in_one")
def push_pop():
    return bytes.fromhex("b96a0258c3b801000000c3")


@alternative("two_in_one")
def jump_inside_a_number():
    # +0: mov ecx, imm32; push 1; pop rax; ret       +1: push 2; pop rax; ret
    return bytes.fromhex("b96a0258c36a0158c3")


@alternative("two_in_one")
def inside_a_test():
    # +0: test eax, imm32; push 1; pop rax; ret
    return bytes.fromhex("a96a0258c36a0158c3")


@alternative("two_in_one")
def alignment_tells():
    # +0: push rax is one byte, so +1 is an ordinary boundary. A caller aligns the stack; the push undoes that:
    # +1: test spl, 8; jne +5; pop rcx; push 1; pop rax; ret; push 2; pop rax; ret
    return bytes.fromhex("5040f6c4087505596a0158c36a0258c3")


@mutant("two_in_one", "part-of-register")
def only_al():
    return bytes.fromhex("b9b002c390b801000000c3")


@mutant("two_in_one", "wrong-value")
def one_program():
    return bytes.fromhex("90b801000000c3")


@mutant("two_in_one", "writes-code")
def changes_itself():
    return bytes.fromhex("90c605fbffffff00b801000000c3")


@mutant("two_in_one", "never-returned")
def no_return():
    return bytes.fromhex("b96a0258ebb801000000")


@mutant("two_in_one", "crashed")
def illegal_inside():
    return bytes.fromhex("b90f0b0f0bb801000000c3")


@mutant("two_in_one", "clobbers-callee-saved")
def in_ebx():
    return bytes.fromhex("bb6a0258c3b801000000c3")


@mutant("two_in_one", "too-long")
def with_padding():
    return bytes.fromhex("b96a0258c3b801000000c3") + bytes(10)


@mutant("two_in_one", "text")
def hexadecimal_text():
    return "b96a0258c3b801000000c3"


# ── desync ──


def _starts(code, base):
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    return [i.address for i in engine.disasm(code, base)]


@alternative("desync")
def two_sets(code):
    common = set(_starts(code, 0)) & set(_starts(code[1:], 1))
    return min(common) if common else None


@alternative("desync")
def two_pointers(code):
    first, second = _starts(code, 0), _starts(code[1:], 1)
    while first and second:
        if first[0] == second[0]:
            return first[0]
        (first if first[0] < second[0] else second).pop(0)
    return None


@mutant("desync", "assumes-sync")
def next_instruction(code):
    starts = _starts(code, 0)
    return starts[1] if len(starts) > 1 else None


@mutant("desync", "forgot-the-one")
def relative(code):
    first, second = _starts(code, 0), _starts(code[1:], 0)
    for at in second:
        if at + 1 in first:
            return at
    return None


@mutant("desync", "never-none")
def the_end_at_least(code):
    common = set(_starts(code, 0)) & set(_starts(code[1:], 1))
    return min(common) if common else len(code)


@mutant("desync", "wrong-offset")
def the_last(code):
    common = set(_starts(code, 0)) & set(_starts(code[1:], 1))
    return max(common) if common else None


@mutant("desync", "gives-up")
def same_index(code):
    return next((a for a, b in zip(_starts(code, 0), _starts(code[1:], 1)) if a == b), None)
